//! What a lock's blob says: who holds it, and who waits.

use std::collections::BTreeMap;

use super::mode::Mode;

/// Fields that this version doesn't know. They belong to their tenure and go with it.
pub type Extra = BTreeMap<String, serde_json::Value>;

/// The version of the record that this code writes, and the highest it understands.
pub const VERSION: u64 = 1;

/// The largest encoded record, in bytes.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// The most waiters that one lock queues.
pub const MAX_WAITERS: usize = 1024;

/// The most slots that a lock has.
pub const MAX_SLOTS: u32 = 1024;

/// The largest number in a record: what a JavaScript reader holds exactly.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// What ends a tenure besides a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bound {
    /// The end of its lease alone.
    Lease,
    /// The end of its lease, or the proven death of its process.
    Process,
}

impl Bound {
    /// The word that stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Bound::Lease => "lease",
            Bound::Process => "process",
        }
    }
}

/// A moment on one boot's CLOCK_BOOTTIME.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BootTime {
    /// The kernel's boot id of the machine that wrote the moment.
    pub boot: String,
    /// Milliseconds on that boot's clock.
    pub at: u64,
}

/// Enough to tell later whether a process is still the same one, and still there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessStamp {
    /// The boot id of the process's machine.
    pub boot: String,
    /// The inode of its pid namespace.
    pub pidns: u64,
    /// Its start time in clock ticks since boot, where that could be read.
    pub start: Option<u64>,
    /// A process group that works under the lock: while any of it runs, the owner isn't dead.
    pub group: Option<u32>,
    /// Fields this version doesn't know.
    pub extra: Extra,
}

/// Who asks: what a holder and a waiter have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Names the tenure, or the wait for it. Fresh for every attempt.
    pub id: String,
    /// The session that holds or waits, the same across locks.
    pub owner: String,
    /// The right to release and extend, in the form that is stored (see [`super::fingerprint`]).
    pub fingerprint: String,
    /// How much of the lock it takes.
    pub mode: Mode,
    /// The length of the lease in milliseconds, each time it is claimed or extended.
    pub ttl: u64,
    /// What ends it besides a release.
    pub bound: Bound,
    /// The process it is bound to; absent in records of other tools.
    pub process: Option<ProcessStamp>,
    /// The process id, for people and for the liveness check.
    pub pid: u32,
    /// The host, for people.
    pub hostname: String,
    /// Why the lock is wanted, in the caller's words.
    pub reason: Option<String>,
    /// How many may hold at once, if the lock is taken as one of so many slots.
    pub slots: Option<u32>,
    /// Of a waiter: the tenure that it wants to turn into one of its mode.
    pub upgrades: Option<String>,
    /// Fields this version doesn't know.
    pub extra: Extra,
}

/// A tenure: one grant, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Who holds.
    pub claim: Claim,
    /// When it was granted, in wall-clock milliseconds since the Unix epoch.
    pub acquired_at: u64,
    /// Milliseconds from `acquired_at` to the end of the lease.
    pub timeout: u64,
    /// The fencing token. Absent for holders that another tool wrote, and for intents.
    pub token: Option<u64>,
    /// The lease's end on the boot clock of whoever wrote it last.
    pub end: Option<BootTime>,
    /// How long it queued, in milliseconds.
    pub waited: u64,
    /// Which slot it has, from 0.
    pub slot: Option<u32>,
    /// The priority it asked with: nothing goes by it while it holds, but a [sync](crate::SyncStrategy) may.
    pub priority: i32,
}

impl Holder {
    /// The lease's end on the wall clock, in milliseconds since the Unix epoch.
    pub fn ends_at(&self) -> u64 {
        self.acquired_at.saturating_add(self.timeout)
    }

    /// Whether its lease was closed: it has no length, has ended for everybody, and can't be extended.
    pub fn is_closed(&self) -> bool {
        self.timeout == 0
    }
}

/// Somebody in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// Who waits.
    pub claim: Claim,
    /// Higher goes first: each step is worth [`super::queue::PRIORITY_STEP`] of waiting.
    pub priority: i32,
    /// The place in the queue: lowest first. Fixed on arrival.
    pub rank: i64,
    /// When it arrived, in wall-clock milliseconds, never before an earlier arrival.
    pub since: u64,
    /// When it gives up, in wall-clock milliseconds; absent if it never does.
    pub until: Option<u64>,
    /// `until` on the boot clock of whoever wrote it.
    pub end: Option<BootTime>,
}

/// What a lock's blob says. In memory the holders stand in the order of their grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Everybody who holds; never empty on disk.
    pub holders: Vec<Holder>,
    /// Everybody who waits, first to be granted first.
    pub queue: Vec<Waiter>,
}

impl Record {
    /// The holder whose lease ends last: the one that readers of seven fields see.
    pub fn last_to_end(&self) -> Option<&Holder> {
        // On a tie the later grant, so that the choice is one of the record alone.
        self.holders.iter().max_by_key(|holder| holder.ends_at())
    }

    /// The holder with this id.
    pub fn holder(&self, id: &str) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.claim.id == id)
    }

    /// The place in the queue of the waiter with this id, from 0.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.queue.iter().position(|waiter| waiter.claim.id == id)
    }

    /// Whether this id holds or waits.
    pub fn knows(&self, id: &str) -> bool {
        self.holder(id).is_some() || self.position(id).is_some()
    }

    /// Puts the holders in the order of their grants.
    pub(super) fn sort(&mut self) {
        fn order(holder: &Holder) -> (Option<u64>, u64, &str) {
            (holder.token, holder.acquired_at, &holder.claim.id)
        }
        self.holders.sort_by(|a, b| order(a).cmp(&order(b)));
    }

    /// The highest token that any holder carries.
    pub fn highest_token(&self) -> u64 {
        self.holders.iter().filter_map(|holder| holder.token).max().unwrap_or(0)
    }
}
