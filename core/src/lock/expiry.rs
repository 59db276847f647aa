//! When a lease ends, and for whom.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    fault::{Fault, Faults},
    record::{Bound, Holder, Waiter},
};

/// The reader's clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch.
    pub wall: u64,
    /// Microseconds since the Unix epoch, for tokens.
    pub wall_micros: u64,
    /// Milliseconds on this boot's CLOCK_BOOTTIME.
    pub boot: u64,
    /// This boot's id.
    pub boot_id: Arc<str>,
}

/// What the reader found out about one holder or waiter, by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// Whether its process is there.
    pub liveness: Liveness,
    /// For how many milliseconds of its own clock the reader has seen this entry unchanged: a
    /// holder's with its lease, a waiter's at all.
    pub unchanged: Option<u64>,
}

/// What the reader knows of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing certain: only time ends it.
    #[default]
    Unknown,
    /// It is there.
    Alive,
    /// It is provably gone.
    Dead,
}

impl Liveness {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Liveness::Unknown => "unknown",
            Liveness::Alive => "alive",
            Liveness::Dead => "dead",
        }
    }
}

/// Facts by the id of the holder or waiter. What isn't here is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(pub BTreeMap<String, Fact>);

impl Facts {
    /// What is known of this id.
    pub fn of(&self, id: &str) -> Fact {
        self.0.get(id).copied().unwrap_or_default()
    }
}

/// Whose clock a lease without a readable boot clock is judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// The record's own wall-clock end, plus the skew: for the repository of one machine.
    #[default]
    WallClock,
    /// What the observer saw on its own clock: clocks needn't agree.
    Observed,
}

/// The numbers that the rules go by, all in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a grant from the queue lasts until it is claimed.
    pub claim_window: u64,
    /// How far wall clocks may differ.
    pub max_clock_skew: u64,
    /// How often a waiter looks when nothing wakes it.
    pub poll_interval: u64,
    /// Whose clock counts where boot clocks can't be compared.
    pub expiry: Expiry,
    /// For how long a ref whose object is missing counts as held.
    pub missing_object_hold: u64,
    /// Rules left out by a test.
    pub faults: Faults,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            claim_window: 2_000,
            max_clock_skew: 1_000,
            poll_interval: 1_000,
            expiry: Expiry::WallClock,
            missing_object_hold: 3_600_000,
            faults: Faults::NONE,
        }
    }
}

impl Policy {
    /// How far past its end a lease must be before its whole queue is taken for dead: a live
    /// waiter would have ended it long before.
    pub fn dead_queue_after(&self) -> u64 {
        2 * self.claim_window + self.max_clock_skew + self.poll_interval
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Milliseconds until this lease ends, as this reader may judge it; negative once it has ended.
pub fn remaining(holder: &Holder, now: &Now, fact: Fact, policy: &Policy) -> i64 {
    if let Some(end) = &holder.end
        && (*end.boot == *now.boot_id || policy.faults.has(Fault::TrustForeignBoot))
    {
        let left = signed(end.at).saturating_sub(signed(now.boot));
        return if holder.is_closed() { left.min(0) } else { left };
    }
    match policy.expiry {
        // It has ended, and nothing tells when.
        Expiry::WallClock if holder.is_closed() => 0,
        Expiry::WallClock => {
            let skew = if policy.faults.has(Fault::NoClockSkew) { 0 } else { policy.max_clock_skew };
            signed(holder.ends_at().saturating_add(skew)).saturating_sub(signed(now.wall))
        }
        // The writer's clock says nothing here. Right after any write at most the shorter of the
        // two remains: a grant's claim window, or one ttl; and of a closed lease nothing.
        Expiry::Observed => {
            let length = holder.timeout.min(holder.claim.ttl);
            signed(length).saturating_sub(signed(fact.unchanged.unwrap_or(0)))
        }
    }
}

/// Whether this process-bound tenure's or waiter's process is provably gone.
pub fn is_dead(bound: Bound, fact: Fact) -> bool {
    bound == Bound::Process && fact.liveness == Liveness::Dead
}

/// Whether a waiter's own deadline has passed, as this reader may judge it.
pub fn is_late(waiter: &Waiter, now: &Now, fact: Fact, policy: &Policy) -> bool {
    let Some(until) = waiter.until else { return false };
    match &waiter.end {
        Some(end) if *end.boot == *now.boot_id => end.at <= now.boot,
        // How long it meant to wait, on the reader's own clock: it can't have begun later than it was seen.
        _ if policy.expiry == Expiry::Observed => {
            fact.unchanged.is_some_and(|seen| seen >= until.saturating_sub(waiter.since))
        }
        _ => until.saturating_add(policy.max_clock_skew) <= now.wall,
    }
}

/// How long before the end of its lease a guard counts itself lost, in milliseconds, so that it
/// stops before anybody may end it.
pub fn safety_margin(ttl: u64, faults: Faults) -> u64 {
    if faults.has(Fault::NoSafetyMargin) { 0 } else { (ttl / 10).clamp(10, 2_000) }
}
