//! The guardian of a run: the leader of the process group that works under the lock. When the run
//! dies, or can't say in time that the lease was renewed, it kills that group, itself included.
//!
//! Others take the owner for dead only when the run is gone *and* nothing of the group runs any
//! more, so a grandchild that outlives a killed run doesn't meet the next holder.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
};

use gitlock::{
    ErrorCode,
    clock::{Clock, SystemClock},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, WaitId, WaitIdOptions},
};

use crate::{commands::Exit, failure::Failure};

/// What is sent when the run is over. Every other number is the deadline: the time on the boot
/// clock at which the group has to be gone unless a later one comes before.
const DONE: u64 = 0;

/// The guardian, as the run has it.
pub(crate) struct Guardian {
    process: Child,
    pipe: File,
    told: u64,
}

impl Guardian {
    /// Starts the guardian, with nothing to guard yet.
    ///
    /// # Errors
    /// If it can't be started.
    pub(crate) fn start() -> Result<Guardian, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(ErrorCode::Io, format!("the guardian of the command can't be started: {error}"))
        };
        // The file that runs here, even if an upgrade has replaced it meanwhile.
        let here = std::path::PathBuf::from("/proc/self/exe");
        let program = if here.exists() { here } else { std::env::current_exe().map_err(failed)? };
        let mut command = Command::new(program);
        command
            .arg0("git-lock")
            .arg("guardian")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        // SAFETY: signal(2) is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // What is sent to the group is meant for the command. Before exec, so that no signal comes too early.
                for signal in (1..=libc::SIGSYS.max(64)).filter(|signal| *signal != libc::SIGCHLD) {
                    libc::signal(signal, libc::SIG_IGN);
                }
                Ok(())
            });
        }
        let mut process = command.spawn().map_err(failed)?;
        let pipe = process.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let pipe = pipe.ok_or_else(|| Failure::new(ErrorCode::Io, "the guardian has no pipe"))?;
        // A guardian that was stopped must not stop the run.
        rustix::io::ioctl_fionbio(&pipe, true).map_err(|error| failed(error.into()))?;
        Ok(Guardian { process, pipe, told: DONE })
    }

    /// The process group it leads.
    pub(crate) fn group(&self) -> u32 {
        self.process.id()
    }

    /// A question whether it has ended that can be asked from anywhere while this lives.
    pub(crate) fn watcher(&self) -> impl Fn() -> bool + Send + 'static {
        let pid = self.process.id();
        move || has_ended(pid)
    }

    /// Whether it has ended. It isn't reaped before the end, so that its pid stays the group's.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(self.process.id())
    }

    /// Tells it until when the group may work, if that is news.
    pub(crate) fn tell(&mut self, deadline: u64) {
        // A pipe that is full or broken: it is stopped, or gone, and both are found out elsewhere.
        if deadline != self.told && self.pipe.write_all(&deadline.to_le_bytes()).is_ok() {
            self.told = deadline;
        }
    }

    /// Signals the group. The guardian ignores what can be ignored.
    pub(crate) fn signal_group(&self, signal: i32) {
        if let Ok(group) = i32::try_from(self.process.id()) {
            // SAFETY: killpg takes any numbers. The group is still this guardian's, who isn't reaped.
            unsafe {
                libc::killpg(group, signal);
            }
        }
    }

    /// Ends it: its group is left alone.
    pub(crate) fn dismiss(mut self) {
        let _ = self.pipe.write_all(&DONE.to_le_bytes());
        self.reap();
    }

    /// Waits for an end that is certain.
    pub(crate) fn reap(self) {
        let Guardian { mut process, pipe, .. } = self;
        drop(pipe);
        // If it was stopped.
        if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::CONT);
        }
        let _ = process.wait();
    }
}

fn has_ended(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None))
}

/// What the guardian process does.
pub(crate) fn main() -> Exit {
    let own = rustix::process::getpid();
    if rustix::process::getpgrp() != own {
        return Err(Failure::usage("`guardian` is started by `git lock run` alone"));
    }
    let input = std::io::stdin();
    let timer = Timer::new();
    let mut deadline = None;
    loop {
        let left = deadline.map(|deadline: u64| deadline.saturating_sub(SystemClock.boot_ms()));
        if left == Some(0) {
            // Without a word: the run says why when it goes on.
            kill_group(own);
        }
        timer.sleep(input.as_fd(), left);
        match received(&input) {
            Received::Deadline(at) => deadline = Some(at),
            Received::Nothing => {}
            Received::Done => return Ok(0),
            // Nobody else has the pipe's other end, so the run is dead.
            Received::End => kill_group(own),
        }
    }
}

enum Received {
    Nothing,
    Deadline(u64),
    Done,
    End,
}

fn received(input: &std::io::Stdin) -> Received {
    let mut polled = [PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    if !matches!(poll(&mut polled, Some(&now)), Ok(1..)) {
        return Received::Nothing;
    }
    let mut bytes = [0u8; 4096];
    // Unbuffered, so that a poll sees what is left. Numbers are written whole, so they come whole.
    match rustix::io::read(input.as_fd(), &mut bytes) {
        Ok(0) => Received::End,
        Ok(count) => {
            let mut last = Received::Nothing;
            for number in bytes[..count].as_chunks::<8>().0 {
                match u64::from_le_bytes(*number) {
                    DONE => return Received::Done,
                    deadline => last = Received::Deadline(deadline),
                }
            }
            last
        }
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Received::Nothing,
        Err(_) => Received::End,
    }
}

/// Kills the whole group in one call, so that nothing of it can fork away meanwhile.
fn kill_group(own: Pid) {
    let _ = rustix::process::kill_process_group(own, Signal::KILL);
    // It was the last thing that this process did, unless it isn't allowed to signal itself.
    std::process::exit(i32::from(ErrorCode::LockLost.exit_code()));
}

/// A sleep on the boot clock, which goes on during suspend as poll's own timeout doesn't.
struct Timer(Option<File>);

impl Timer {
    #[cfg(target_os = "linux")]
    fn new() -> Timer {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK);
        Timer(timer.ok().map(File::from))
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Timer {
        Timer(None)
    }

    /// Until there is something to read, or for so many milliseconds.
    fn sleep(&self, input: std::os::fd::BorrowedFd<'_>, left: Option<u64>) {
        let timer = self.0.as_ref().filter(|timer| left.is_some_and(|left| arm(timer, left)));
        // Without a timer: often enough that a suspend costs a second at most.
        let timeout = (timer.is_none() && left.is_some()).then(|| {
            let millis = left.unwrap_or(0).min(1_000);
            rustix::event::Timespec {
                tv_sec: i64::try_from(millis / 1_000).unwrap_or(0),
                tv_nsec: i64::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
            }
        });
        let mut polled = vec![PollFd::from_borrowed_fd(input, PollFlags::IN)];
        polled.extend(timer.map(|timer| PollFd::new(timer, PollFlags::IN)));
        // An interrupted poll is a wake-up for nothing.
        let _ = poll(&mut polled, timeout.as_ref());
        if let Some(mut timer) = timer {
            let _ = timer.read(&mut [0u8; 8]);
        }
    }
}

#[cfg(target_os = "linux")]
fn arm(timer: &File, left: u64) -> bool {
    use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Zero would disarm it.
    let left = left.max(1);
    let first = Timespec {
        tv_sec: i64::try_from(left / 1_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(left % 1_000).unwrap_or(0) * 1_000_000,
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: first }).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn arm(_timer: &File, _left: u64) -> bool {
    false
}
