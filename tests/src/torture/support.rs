//! Randomness with a seed, time, and a look at processes that doesn't go through gitlock.

use std::{fs, path::Path, time::Duration};

use gitlock::clock::{Clock, SystemClock};

/// SplitMix64: a seed gives the same numbers everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From this seed always the same.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// One of these.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap_or(0)]
    }

    /// Once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Pauses for less than so many microseconds.
    pub(crate) fn pause_below(&mut self, micros: u64) {
        let micros = self.below(micros);
        SystemClock.pause(Duration::from_micros(micros));
    }
}

/// A seed that nobody chose.
pub(crate) fn random_seed() -> u64 {
    Random::new(nanos() ^ u64::from(std::process::id()) << 40).next()
}

pub(crate) fn pause(millis: u64) {
    SystemClock.pause(Duration::from_millis(millis));
}

/// Nanoseconds on the boot clock, the same for all processes.
pub(crate) fn nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Milliseconds on the boot clock.
pub(crate) fn millis() -> u64 {
    nanos() / 1_000_000
}

/// Milliseconds since 1970.
pub(crate) fn wall_millis() -> u64 {
    SystemClock.now().wall
}

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessView {
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) start: u64,
    /// It will run no more of its own code: a zombie whose threads are all gone.
    pub(crate) gone: bool,
}

/// Looks at a process; `None` if there is none.
pub(crate) fn look(pid: u32) -> Option<ProcessView> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let dead = matches!(*fields.first()?, "Z" | "X") && number(17)? <= 1;
    let id = |at: usize| u32::try_from(number(at)?).ok();
    Some(ProcessView { parent: id(1)?, group: id(2)?, start: number(19)?, gone: dead })
}

/// Whether that very process may still run.
pub(crate) fn may_run(pid: u32, start: u64) -> bool {
    look(pid).is_some_and(|view| view.start == start && !view.gone)
}

/// Every process there is.
fn processes() -> impl Iterator<Item = (u32, ProcessView)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, look(pid)?)))
}

/// Whether any process of this group may still run; zombies that nobody has reaped yet don't count.
pub(crate) fn group_runs(group: u32) -> bool {
    processes().any(|(_, view)| view.group == group && !view.gone)
}

/// The commands of Git that run in this folder.
pub(crate) fn at_work(folder: &Path) -> Vec<String> {
    let there = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let command = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
    };
    processes().filter(|(pid, view)| !view.gone && there(*pid)).map(|(pid, _)| command(pid)).collect()
}

/// The processes that descend from this one.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = processes().map(|(pid, view)| (pid, view.parent)).collect();
    let mut found = vec![of];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(all.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// Kills a descendant of `of`, and nobody else: through a descriptor that is looked at again.
pub(crate) fn kill_descendant(of: u32, pid: u32) -> bool {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(descriptor) = pidfd_open(target, PidfdFlags::empty()) else { return false };
    descendants(of).contains(&pid) && pidfd_send_signal(&descriptor, Signal::KILL).is_ok()
}

/// This process ends when the thread that started it does: a harness that dies leaves nobody behind.
pub(crate) fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}
