//! What can be seen of a lock.

use std::time::Duration;

use crate::{
    lock::{Fact, Facts, Held, Holder, Liveness, Opaque, Record, Waiter, expiry::remaining},
    name::LockName,
};

use super::{Inner, commit_loop::current, snapshot::Snapshot};

/// A lock as it is at one moment: without tenures that have ended by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStatus {
    /// The lock.
    pub name: LockName,
    /// Who holds it, the one whose lease ends last first; empty if it is free, or unreadable.
    pub holders: Vec<HolderStatus>,
    /// Who holds something below it, which keeps others from holding it.
    pub intents: Vec<HolderStatus>,
    /// Who waits, the next one first.
    pub queue: Vec<WaiterStatus>,
    /// Why the record can't be read, if that is so. The lock counts as held then.
    pub problem: Option<String>,
}

/// One who holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HolderStatus {
    /// What the record says.
    pub holder: Holder,
    /// How long its lease lasts from here on.
    pub remaining: Duration,
    /// For how long it has held.
    pub held_for: Duration,
    /// Whether its process is there.
    pub liveness: Liveness,
}

/// One who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaiterStatus {
    /// What the record says.
    pub waiter: Waiter,
    /// For how long it has waited.
    pub waited: Duration,
}

/// A ref under the lock prefix that is no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignRef {
    /// Its full name.
    pub name: String,
    /// What it points at.
    pub object: String,
}

impl LockStatus {
    /// Whether somebody holds it. What is held below it alone doesn't count.
    pub fn is_held(&self) -> bool {
        !self.holders.is_empty() || self.problem.is_some()
    }

    /// Everybody whose tenure keeps others out, of the lock itself first.
    pub fn everybody(&self) -> impl Iterator<Item = &HolderStatus> {
        self.holders.iter().chain(&self.intents)
    }

    pub(super) fn of(inner: &Inner, snapshot: &Snapshot) -> LockStatus {
        let (record, facts) = current(&inner.commits, snapshot);
        LockStatus::from_record(
            inner,
            &snapshot.state.name,
            record,
            &facts,
            match &snapshot.state.held {
                Held::Opaque(opaque) => Some(problem(opaque)),
                _ => None,
            },
        )
    }

    fn from_record(
        inner: &Inner,
        name: &LockName,
        record: Record,
        facts: &Facts,
        problem: Option<String>,
    ) -> LockStatus {
        let now = inner.commits.clock.now();
        let millis = |value: u64| Duration::from_millis(value);
        let mut holders: Vec<HolderStatus> = record
            .holders
            .into_iter()
            .map(|holder| {
                let fact: Fact = facts.of(&holder.claim.id);
                HolderStatus {
                    remaining: millis(
                        u64::try_from(remaining(&holder, &now, fact, &inner.commits.policy)).unwrap_or(0),
                    ),
                    held_for: millis(now.wall.saturating_sub(holder.acquired_at)),
                    liveness: fact.liveness,
                    holder,
                }
            })
            .collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.remaining));
        let queue = record
            .queue
            .into_iter()
            .map(|waiter| WaiterStatus { waited: millis(now.wall.saturating_sub(waiter.since)), waiter });
        let (intents, holders) = holders.into_iter().partition(|held| held.holder.claim.mode.is_intent());
        LockStatus { name: name.clone(), holders, intents, queue: queue.collect(), problem }
    }

    /// `, held by …`, for the end of a sentence; empty if nobody holds.
    pub(super) fn describe_holders(&self) -> String {
        match self.everybody().next() {
            Some(first) => {
                let more = self.everybody().count() - 1;
                let others = if more == 0 { String::new() } else { format!(" and {more} more") };
                format!("; it is held by {}{others}", describe_hold(&first.holder))
            }
            None => self.problem.iter().map(|problem| format!("; it counts as held, and {problem}")).collect(),
        }
    }
}

/// Who holds, in words.
pub(super) fn describe(holder: &Holder) -> String {
    let claim = &holder.claim;
    let reason = claim.reason.as_ref().map(|reason| format!(" for {reason:?}")).unwrap_or_default();
    format!("{} (pid {} on {}){reason}", claim.owner, claim.pid, claim.hostname)
}

/// Who holds, and whether that is a lock below, for after "held by".
pub(super) fn describe_hold(holder: &Holder) -> String {
    let below = if holder.claim.mode.is_intent() { ", who holds something below it" } else { "" };
    format!("{}{below}", describe(holder))
}

fn problem(opaque: &Opaque) -> String {
    match opaque {
        Opaque::Corrupt(why) => format!("its record can't be read: {why}"),
        Opaque::TooNew(version) => format!("its record is of the newer version {version}"),
        Opaque::Missing { .. } => "its record is not in the repository".to_owned(),
        Opaque::Foreign(why) => why.clone(),
    }
}
