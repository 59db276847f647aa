//! Killing a process at every system call that it makes: once before each, until it completes.

#![allow(clippy::expect_used)] // a harness that can't trace can't show anything

use std::{
    collections::HashSet,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
};

/// Runs the command again and again, and kills it with SIGKILL as it enters its first system call,
/// its second, and so on, until it ends by itself. After each run, the last included, calls
/// `after` with the number of the call. Returns how many runs were killed, and how the last ended.
///
/// The calls of all threads count, those of child processes don't, and only the process itself is
/// killed. While this runs, the calling thread must have no other children.
///
/// # Panics
/// If the command can't be started or traced.
pub fn for_every_syscall(command: impl Fn() -> Command, mut after: impl FnMut(u64)) -> (u64, ExitStatus) {
    for number in 1.. {
        let ended = run_until(&mut command(), number);
        after(number);
        if let Some(status) = ended {
            return (number - 1, status);
        }
    }
    (0, ExitStatus::default())
}

/// Runs a command and kills it as it enters this system call, counted from 1. Returns how it
/// ended if it did before that.
///
/// # Panics
/// If the command can't be started or traced.
pub fn run_until(command: &mut Command, kill_at: u64) -> Option<ExitStatus> {
    // SAFETY: ptrace(2) may be called after a fork.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    #[allow(clippy::zombie_processes)] // it is waited for below, with its threads
    let child = command.spawn().expect("the command can be started");
    let main = i32::try_from(child.id()).expect("a pid");
    let mut threads = HashSet::new();
    let (mut calls, mut killed) = (0, false);
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid to write to. This thread's children and tracees alone are waited for.
        let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(thread > 0, "waitpid: {}", io::Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            if thread == main {
                let ended = ExitStatus::from_raw(status);
                return (!killed || ended.signal() != Some(libc::SIGKILL)).then_some(ended);
            }
            continue;
        }
        let first = threads.insert(thread);
        if first && thread == main {
            // Threads are followed; and whatever happens to this process, nothing of that one stays.
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
            // SAFETY: `thread` is a stopped tracee of this thread.
            let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, thread, 0, options) };
            assert_eq!(set, 0, "PTRACE_SETOPTIONS: {}", io::Error::last_os_error());
        }
        let signal = libc::WSTOPSIG(status);
        let is_call = signal == libc::SIGTRAP | 0x80;
        if is_call && is_entry(thread) && !killed {
            calls += 1;
            if calls == kill_at {
                killed = true;
                // SAFETY: a child that hasn't been waited for, so the pid is still its own.
                unsafe { libc::kill(main, libc::SIGKILL) };
                continue;
            }
        }
        // Stops of ptrace's own, and a new thread's first, are nobody else's business.
        let is_event = status >> 16 != 0;
        let deliver = if is_call || is_event || first { 0 } else { signal };
        // SAFETY: `thread` is a stopped tracee of this thread, or was just killed, which is no harm.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, deliver) };
    }
}

/// Whether a thread that stopped at a system call is about to make it, or has made it.
fn is_entry(thread: i32) -> bool {
    // SAFETY: all zeroes are a valid value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: `info` has `size` writable bytes, and `thread` is a stopped tracee of this thread.
    let told = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &mut info) };
    // A thread that was killed meanwhile tells nothing.
    told > 0 && info.op == libc::PTRACE_SYSCALL_INFO_ENTRY
}
