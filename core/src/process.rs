//! Who this process is, and whether another is still there.

use std::{
    cell::RefCell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    clock, fork,
    lock::{Bound, Claim, Liveness, ProcessStamp},
};

/// This host's name.
pub fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// This process's id.
pub fn pid() -> u32 {
    identity(|this| this.pid)
}

/// What every lock says of this process and thread, and what asks the system.
struct Identity {
    /// Of the process that it was read in: a forked child is another.
    generation: u64,
    pid: u32,
    stamp: ProcessStamp,
    owner: String,
}

/// Reads it once per thread and process: no lock, so that a fork can't leave one held.
fn identity<T>(read: impl FnOnce(&Identity) -> T) -> T {
    thread_local! { static IDENTITY: RefCell<Option<Identity>> = const { RefCell::new(None) } }
    let generation = fork::generation();
    IDENTITY.with_borrow_mut(|cached| match cached {
        Some(this) if this.generation == generation => read(this),
        _ => {
            let (pid, stamp) = (std::process::id(), stamp());
            let owner = format!("{}/{pid}.{}/{}", hostname(), stamp.start.unwrap_or_default(), thread_number());
            read(cached.insert(Identity { generation, pid, stamp, owner }))
        }
    })
}

/// What tells this process from every other, now and later.
pub fn stamp() -> ProcessStamp {
    ProcessStamp {
        boot: clock::boot_id().to_string(),
        pidns: pid_namespace(),
        start: system::status(std::process::id()).map(|status| status.start),
        group: None,
        extra: Default::default(),
    }
}

/// The inode of this process's pid namespace; 0 where there are none.
fn pid_namespace() -> u64 {
    static NAMESPACE: OnceLock<u64> = OnceLock::new();
    *NAMESPACE.get_or_init(|| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
    })
}

/// Whether the process behind a claim is there, as far as this process can tell for certain.
pub fn liveness(claim: &Claim) -> Liveness {
    let (Bound::Process, Some(process)) = (claim.bound, &claim.process) else { return Liveness::Unknown };
    if *process.boot != *clock::boot_id() || process.pidns != pid_namespace() || claim.pid == 0 {
        return Liveness::Unknown;
    }
    if identity(|this| this.pid == claim.pid && this.stamp.start == process.start) {
        return Liveness::Alive; // asked without a system call, on the path of every release
    }
    match (pid_liveness(claim.pid, process.start), process.group) {
        (Liveness::Dead, Some(group)) if group_works(group) => Liveness::Alive,
        (liveness, _) => liveness,
    }
}

fn pid_liveness(pid: u32, start: Option<u64>) -> Liveness {
    let Some(handle) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return Liveness::Unknown;
    };
    if rustix::process::test_kill_process(handle) == Err(rustix::io::Errno::SRCH) {
        return Liveness::Dead;
    }
    // Whoever has the pid now: is it who had it then?
    match (system::status(pid), start) {
        (Some(status), Some(start)) if status.start != start => Liveness::Dead,
        (Some(status), _) if status.zombie && status.threads <= 1 => Liveness::Dead,
        (Some(_), Some(_)) => Liveness::Alive,
        // hidepid, or a system without start times: it may be somebody else with the same pid.
        _ => Liveness::Unknown,
    }
}

/// Whether anything in this process group still runs. Zombies don't.
pub fn group_works(group: u32) -> bool {
    let Some(handle) = i32::try_from(group).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    match rustix::process::test_kill_process_group(handle) {
        Err(rustix::io::Errno::SRCH) => false,
        // Zombies answer too, and where nobody reaps them they would hold the lock for ever.
        _ => system::group_has_running_member(group),
    }
}

struct Status {
    start: u64,
    zombie: bool,
    threads: u64,
}

#[cfg(target_os = "linux")]
mod system {
    use super::Status;

    /// What `/proc` says of a process, if this process may read it.
    pub(super) fn status(pid: u32) -> Option<Status> {
        Some(parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.1)
    }

    /// The process group and status in a `/proc/<pid>/stat` line.
    fn parse(stat: &str) -> Option<(u32, Status)> {
        // The command's name stands in parentheses and may contain anything, parentheses too.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // proc_pid_stat(5): 3 is the state, 5 the process group, 20 the threads, 22 the start.
        let field = |number: usize| fields.get(number - 3).copied();
        let zombie = matches!(field(3)?, "Z" | "X" | "x");
        let status = Status { zombie, threads: field(20)?.parse().ok()?, start: field(22)?.parse().ok()? };
        Some((field(5)?.parse().ok()?, status))
    }

    pub(super) fn group_has_running_member(group: u32) -> bool {
        let Ok(entries) = std::fs::read_dir("/proc") else { return true };
        let mut seen = false;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
                continue;
            }
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((its_group, status)) = parse(&stat) else { continue };
            if its_group == group {
                seen = true;
                if !status.zombie || status.threads > 1 {
                    return true;
                }
            }
        }
        // The group answered a signal, yet none of it can be seen: /proc hides it.
        !seen
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn a_hostile_command_name_does_not_shift_the_fields() {
            let stat = "7 (a) Z 1 (b) R 1 42 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 99 0 0";
            let (group, status) = super::parse(stat).unwrap();
            assert_eq!((group, status.threads, status.start, status.zombie), (42, 3, 99, false));
        }
    }
}

#[cfg(target_os = "macos")]
mod system {
    use super::Status;

    /// What the kernel says of a process, if this process may ask.
    pub(super) fn status(pid: u32) -> Option<Status> {
        let pid = i32::try_from(pid).ok()?;
        let size = std::mem::size_of::<libc::proc_bsdinfo>();
        let mut info = std::mem::MaybeUninit::<libc::proc_bsdinfo>::zeroed();
        // SAFETY: `info` has exactly the size that is passed with it.
        let read = unsafe {
            libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, info.as_mut_ptr().cast(), i32::try_from(size).ok()?)
        };
        if usize::try_from(read).ok()? < size {
            return None;
        }
        // SAFETY: the call filled it, and all-zero bytes were valid before.
        let info = unsafe { info.assume_init() };
        let start = info.pbi_start_tvsec.saturating_mul(1_000_000).saturating_add(info.pbi_start_tvusec);
        Some(Status { start, zombie: info.pbi_status == libc::SZOMB, threads: 1 })
    }

    /// A group that answers a signal is taken to work: macOS lists no members cheaply.
    pub(super) fn group_has_running_member(_group: u32) -> bool {
        true
    }
}

/// A number that no other thread of this process has had.
fn thread_number() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local! { static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed) }
    THREAD.with(|thread| *thread)
}

/// The owner of this thread's locks unless the caller names another: the host, the process, a
/// number that no other process of this host has had, and the thread.
pub fn thread_owner() -> String {
    identity(|this| this.owner.clone())
}

/// [`stamp`], without asking the system.
pub fn stamp_cached() -> ProcessStamp {
    identity(|this| this.stamp.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(pid: u32, process: ProcessStamp) -> Claim {
        Claim {
            id: "id".to_owned(),
            owner: "owner".to_owned(),
            fingerprint: String::new(),
            mode: crate::Mode::Exclusive,
            ttl: 1,
            bound: Bound::Process,
            process: Some(process),
            pid,
            hostname: String::new(),
            reason: None,
            slots: None,
            upgrades: None,
            extra: Default::default(),
        }
    }

    #[test]
    fn this_process_is_alive() {
        assert_eq!(liveness(&claim(pid(), stamp())), Liveness::Alive);
    }

    #[test]
    fn a_reused_pid_is_a_dead_owner() {
        let start = stamp().start.map(|start| start + 1);
        assert_eq!(liveness(&claim(pid(), ProcessStamp { start, ..stamp() })), Liveness::Dead);
    }

    #[test]
    fn an_owner_of_another_boot_or_namespace_is_unknown() {
        let gone = 4_000_000;
        let here = claim(gone, stamp());
        assert_eq!(liveness(&here), Liveness::Dead, "the control: here it is provably gone");
        assert_eq!(liveness(&claim(gone, ProcessStamp { boot: "other".to_owned(), ..stamp() })), Liveness::Unknown);
        assert_eq!(liveness(&claim(gone, ProcessStamp { pidns: 1, ..stamp() })), Liveness::Unknown);
        assert_eq!(liveness(&Claim { bound: Bound::Lease, ..here }), Liveness::Unknown);
    }

    #[test]
    fn a_zombie_with_one_thread_is_dead() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60"]).spawn().unwrap();
        let start = system::status(child.id()).map(|status| status.start);
        let claim = claim(child.id(), ProcessStamp { start, ..stamp() });
        assert_eq!(liveness(&claim), Liveness::Alive);
        child.kill().unwrap();
        // Not reaped yet, so it stays a zombie; the kernel takes a moment to make it one.
        while system::status(child.id()).is_some_and(|status| !status.zombie) {
            std::thread::yield_now();
        }
        assert_eq!(liveness(&claim), Liveness::Dead);
        child.wait().unwrap();
        assert_eq!(liveness(&claim), Liveness::Dead);
    }
}
