//! The order in which waiters are served: priority with ageing.

use super::record::{Record, Waiter};

/// How many milliseconds of waiting one step of priority is worth.
pub const PRIORITY_STEP: i64 = 30_000;

/// The highest and lowest priority: a year's worth of waiting either way.
pub const MAX_PRIORITY: i32 = 1_000_000;

/// When a newcomer arrives: now, but never before somebody who is here already, so that a wall
/// clock that was set back doesn't reorder the queue.
pub fn arrival(record: &Record, now: u64) -> u64 {
    record.queue.iter().map(|waiter| waiter.since).max().unwrap_or(0).max(now)
}

/// The place in the queue that an arrival and a priority give.
pub fn rank(since: u64, priority: i32) -> i64 {
    i64::try_from(since).unwrap_or(i64::MAX).saturating_sub(PRIORITY_STEP.saturating_mul(i64::from(priority)))
}

/// By what the queue is ordered. Who waits to upgrade goes first: it holds, so whoever stands before it would wait for it.
pub fn order(waiter: &Waiter) -> (bool, i64) {
    (waiter.claim.upgrades.is_none(), waiter.rank)
}

/// Puts a waiter where its rank says: behind everybody of the same rank. Returns its position.
pub fn insert(queue: &mut Vec<Waiter>, waiter: Waiter) -> usize {
    let position = queue.partition_point(|other| order(other) <= order(&waiter));
    queue.insert(position, waiter);
    position
}
