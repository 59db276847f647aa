//! How the background thread sleeps: one `poll` over everything that may wake it.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    clock::{self, Clock},
    lock::Bound,
    store::{Changes, Watch},
};

use super::LockStatus;

/// How many processes are watched for their death at most. Beyond that, polling finds out.
const MOST_PROCESSES: usize = 64;

/// Wakes the sleeping thread.
pub(super) struct Waker(OwnedFd);

impl Waker {
    pub(super) fn wake(&self) {
        // A full pipe is a wake-up that hasn't been seen yet.
        let _ = rustix::io::write(&self.0, &[1]);
    }
}

pub(super) struct Sleeper {
    woken: OwnedFd,
    watch: Option<Box<dyn Watch>>,
    timer: Option<OwnedFd>,
    /// Owners of locks that are waited for, by pid.
    processes: HashMap<u32, OwnedFd>,
    /// Those that have died, and when. A zombie whose group works on would wake this thread again and again.
    gone: HashMap<u32, u64>,
    process_died: bool,
}

/// What happened during a sleep.
#[derive(Debug, Default)]
pub(super) struct Woken {
    pub(super) changes: Changes,
    /// Whether the owner of a lock that somebody waits for is gone.
    pub(super) process_died: bool,
}

impl Sleeper {
    pub(super) fn new() -> io::Result<(Sleeper, Arc<Waker>)> {
        let (woken, waker) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
        let sleeper = Sleeper {
            woken,
            watch: None,
            timer: timer(),
            processes: HashMap::new(),
            gone: HashMap::new(),
            process_died: false,
        };
        Ok((sleeper, Arc::new(Waker(waker))))
    }

    pub(super) fn watch(&mut self, watch: Option<Box<dyn Watch>>) {
        self.watch = watch;
    }

    /// Notices the death of the processes that hold this lock.
    /// Tells the watch how many are before everybody here.
    pub(super) fn expect(&self, ahead: usize) {
        if let Some(watch) = &self.watch {
            watch.expect(ahead);
        }
    }

    pub(super) fn watch_processes(&mut self, status: &LockStatus, now: u64) {
        for holder in status.everybody() {
            let claim = &holder.holder.claim;
            let local = claim.process.as_ref().filter(|process| *process.boot == *clock::boot_id());
            let watchable = claim.bound == Bound::Process && holder.liveness == crate::lock::Liveness::Alive;
            let Some(process) = local.filter(|_| watchable) else { continue };
            let pid = watched(claim.pid, process.group);
            if self.processes.len() < MOST_PROCESSES
                && !self.gone.contains_key(&pid)
                && let std::collections::hash_map::Entry::Vacant(place) = self.processes.entry(pid)
            {
                match process_descriptor(pid) {
                    Some(descriptor) => drop(place.insert(descriptor)),
                    // Dead already, and its group only about to be.
                    None => drop(self.gone.insert(pid, now)),
                }
            }
        }
    }

    /// Since when the leader of a process group is dead that still works under this lock.
    pub(super) fn lingers_since(&self, status: &LockStatus) -> Option<u64> {
        let claims = status.everybody().map(|holder| &holder.holder.claim);
        let groups = claims.filter_map(|claim| Some(watched(claim.pid, claim.process.as_ref()?.group)));
        groups.filter_map(|pid| self.gone.get(&pid).copied()).max()
    }

    pub(super) fn forget_processes(&mut self) {
        self.processes.clear();
        self.gone.clear();
    }

    /// Sleeps until something happens, or until this time on the boot clock.
    pub(super) fn sleep(&mut self, until: Option<u64>, clock: &dyn Clock) {
        let left = until.map(|until| until.saturating_sub(clock.boot_ms()));
        // The timer goes on during suspend, which poll's own timeout doesn't.
        let timed = left.is_some_and(|left| self.timer.as_ref().is_some_and(|timer| set(timer, left)));
        let timeout = match left {
            Some(left) if !timed => Some(rustix::event::Timespec {
                tv_sec: i64::try_from(left / 1_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(left % 1_000).unwrap_or(0) * 1_000_000,
            }),
            _ => None,
        };
        let mut pids = Vec::new();
        let mut polled: Vec<PollFd<'_>> = Vec::new();
        let watch = self.watch.as_ref().and_then(|watch| watch.descriptor());
        let timer = self.timer.as_ref().filter(|_| timed).map(AsFd::as_fd);
        for descriptor in [Some(self.woken.as_fd()), watch, timer].into_iter().flatten() {
            polled.push(PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        }
        let first = polled.len();
        for (pid, descriptor) in &self.processes {
            pids.push(*pid);
            polled.push(PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN));
        }
        // An interrupted or failed poll is a wake-up that was for nothing.
        let _ = poll(&mut polled, timeout.as_ref());
        let dead: Vec<u32> = polled[first..]
            .iter()
            .zip(&pids)
            .filter(|(polled, _)| !polled.revents().is_empty())
            .map(|(_, pid)| *pid)
            .collect();
        drop(polled);
        for pid in dead {
            self.processes.remove(&pid);
            self.gone.insert(pid, clock.boot_ms());
            self.process_died = true;
        }
    }

    /// Takes what happened.
    pub(super) fn take(&mut self) -> Woken {
        let mut drained = [0u8; 64];
        while rustix::io::read(&self.woken, &mut drained).is_ok_and(|count| count > 0) {}
        let changes = self.watch.as_mut().map(|watch| watch.changes()).unwrap_or_default();
        Woken { changes, process_died: std::mem::take(&mut self.process_died) }
    }
}

/// Whose death is worth a look: of a process group its leader's. Its owner's says too little.
fn watched(pid: u32, group: Option<u32>) -> u32 {
    group.unwrap_or(pid)
}

#[cfg(target_os = "linux")]
fn timer() -> Option<OwnedFd> {
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
    timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK).ok()
}

#[cfg(target_os = "linux")]
fn set(timer: &OwnedFd, left: u64) -> bool {
    use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Zero would disarm it.
    let nanos = i64::try_from(left % 1_000).unwrap_or(0) * 1_000_000;
    let first =
        Timespec { tv_sec: i64::try_from(left / 1_000).unwrap_or(i64::MAX), tv_nsec: nanos.max(i64::from(left == 0)) };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: first }).is_ok()
}

#[cfg(target_os = "linux")]
fn process_descriptor(pid: u32) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn timer() -> Option<OwnedFd> {
    None
}

#[cfg(not(target_os = "linux"))]
fn set(_timer: &OwnedFd, _left: u64) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn process_descriptor(_pid: u32) -> Option<OwnedFd> {
    None
}
