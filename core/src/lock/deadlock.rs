//! Who waits for whom, and who would wait for ever.
//!
//! A wait needs everybody in its way to let go, and everybody before it in the queue to be served.
//! An owner that waits gets on with nothing else. So the nodes of the graph are waits and owners,
//! and a deadlock is a cycle in it with more than one owner: what one owner alone waits for, another
//! of its threads may release.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use crate::name::LockName;

use super::{
    fault::{Fault, Faults},
    fit::{blocks, free_slot},
    record::{Claim, Record},
};

/// One who waits, and one for whom it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitEdge {
    /// The lock that is waited for.
    pub lock: LockName,
    /// The id of the wait.
    pub id: String,
    /// Who waits.
    pub owner: String,
    /// The id of the tenure or of the wait that is in its way.
    pub blocker: String,
    /// Whose that is.
    pub blocked_by: String,
    /// Whether that one holds; it stands before it in the queue otherwise.
    pub holds: bool,
    /// Whether it has to let go first; otherwise it is enough that it is served.
    excludes: bool,
    /// Whether any of the wait's edges like this one will do: one of several slots.
    any: bool,
}

/// Waits of which none can ever end, if nobody gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The id of the wait that has to give up: that of the highest rank, so that everybody picks the same.
    pub victim: String,
    /// The way from the victim back to it.
    pub edges: Vec<WaitEdge>,
}

impl Cycle {
    /// Every id in the cycle: if two readings agree in it, nobody was just passing.
    pub fn ids(&self) -> BTreeSet<String> {
        self.edges.iter().flat_map(|edge| [edge.id.clone(), edge.blocker.clone()]).collect()
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.edges.len();
        for (at, edge) in self.edges.iter().enumerate() {
            let before = &self.edges[(at + count - 1) % count];
            let separator = if at == 0 { "" } else { "; " };
            let has = if before.holds { "holds" } else { "is before the next in the queue of" };
            write!(f, "{separator}{} {has} {}, waits for {}", edge.owner, before.lock, edge.lock)?;
        }
        Ok(())
    }
}

/// Who waits for whom, in these locks as they are: without tenures that have ended and waiters that have gone.
pub fn edges(locks: &[(LockName, Record)]) -> Vec<WaitEdge> {
    edges_with(locks, Faults::NONE)
}

fn edges_with(locks: &[(LockName, Record)], faults: Faults) -> Vec<WaitEdge> {
    let mut edges = Vec::new();
    let mut waits: BTreeMap<&str, usize> = BTreeMap::new();
    for waiter in locks.iter().flat_map(|(_, record)| &record.queue) {
        *waits.entry(&waiter.claim.owner).or_default() += 1;
    }
    for (lock, record) in locks {
        // Who waits elsewhere too: only their letting go is more than being served here.
        let mut busy: Vec<&Claim> = Vec::new();
        for (at, waiter) in record.queue.iter().enumerate() {
            let wanted = &waiter.claim;
            if wanted.upgrades.is_some() && faults.has(Fault::DeadlockOverlooksUpgrades) {
                continue;
            }
            let mut edge = |other: &Claim, holds: bool, excludes: bool, any: bool| {
                edges.push(WaitEdge {
                    lock: lock.clone(),
                    id: wanted.id.clone(),
                    owner: wanted.owner.clone(),
                    blocker: other.id.clone(),
                    blocked_by: other.owner.clone(),
                    holds,
                    excludes,
                    any,
                });
            };
            let holders = record.holders.iter().map(|holder| &holder.claim);
            let holders: Vec<&Claim> = holders.filter(|held| Some(&held.id) != wanted.upgrades.as_ref()).collect();
            for held in holders.iter().filter(|held| blocks(held, wanted, Faults::NONE)) {
                edge(held, true, true, false);
            }
            if wanted.slots.is_some() && free_slot(record, wanted).is_none() {
                for held in holders.iter().filter(|held| held.slots == wanted.slots) {
                    edge(held, true, true, !faults.has(Fault::DeadlockNeedsEverySlot));
                }
            }
            for earlier in &busy {
                if earlier.owner != wanted.owner && blocks(earlier, wanted, Faults::NONE) {
                    edge(earlier, false, true, false);
                }
            }
            // It is served after the one before it, which is served after the one before that.
            if let Some(before) = at.checked_sub(1).filter(|_| !faults.has(Fault::DeadlockOverlooksQueues)) {
                edge(&record.queue[before].claim, false, false, false);
            }
            let known = |other: &&Claim| other.owner == wanted.owner && other.mode == wanted.mode;
            if waits[&*wanted.owner] > 1 && !busy.iter().any(known) {
                busy.push(wanted);
            }
        }
    }
    edges
}

/// The deadlocks in these locks, each with one victim.
pub fn cycles(locks: &[(LockName, Record)], faults: Faults) -> Vec<Cycle> {
    let mut edges = edges_with(locks, faults);
    let stuck: BTreeSet<String> = Graph::new(&edges).stuck().into_iter().map(str::to_owned).collect();
    edges.retain(|edge| stuck.contains(&edge.id));
    let graph = Graph::new(&edges);
    let ranks: BTreeMap<&str, i64> =
        locks.iter().flat_map(|(_, record)| &record.queue).map(|waiter| (&*waiter.claim.id, waiter.rank)).collect();
    let mut found: Vec<Cycle> = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut waits: Vec<&str> = graph.of_wait.keys().copied().collect();
    // The victim first: what is in a cycle with it needs no other.
    waits.sort_by_key(|id| std::cmp::Reverse((ranks.get(id).copied().unwrap_or(0), *id)));
    if faults.has(Fault::VictimByOrder) {
        waits.clone_from(&graph.order);
    }
    for id in waits {
        if seen.contains(id) {
            continue;
        }
        let component = graph.component(id);
        let owners: BTreeSet<&str> =
            component.iter().flat_map(|wait| graph.of_wait[wait].iter()).map(|edge| &*edge.owner).collect();
        if component.is_empty() || owners.len() < 2 {
            continue;
        }
        seen.extend(&component);
        if let Some(edges) = graph.way_round(id) {
            found.push(Cycle { victim: id.to_owned(), edges });
        }
    }
    found
}

/// The edges by wait, and the waits of each owner.
struct Graph<'a> {
    /// The waits, as they stand in the queues.
    order: Vec<&'a str>,
    of_wait: BTreeMap<&'a str, Vec<&'a WaitEdge>>,
    of_owner: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(edges: &'a [WaitEdge]) -> Graph<'a> {
        let mut graph = Graph { order: Vec::new(), of_wait: BTreeMap::new(), of_owner: BTreeMap::new() };
        for edge in edges {
            if graph.order.last() != Some(&&*edge.id) {
                graph.order.push(&edge.id);
            }
            graph.of_wait.entry(&edge.id).or_default().push(edge);
            graph.of_owner.entry(&edge.owner).or_default().insert(&edge.id);
        }
        graph
    }

    /// The waits that can't end, whatever those do that don't wait.
    fn stuck(&self) -> BTreeSet<&'a str> {
        let mut stuck: BTreeSet<&str> = self.of_wait.keys().copied().collect();
        let mut owners: BTreeMap<&str, usize> =
            self.of_owner.iter().map(|(owner, waits)| (*owner, waits.len())).collect();
        loop {
            let before = stuck.len();
            // In the order of the queues, so that one round is enough for a queue that gets on.
            for wait in &self.order {
                let satisfied = |edge: &&'a WaitEdge| {
                    let owner_waits = edge.excludes && owners.get(&*edge.blocked_by).is_some_and(|waits| *waits > 0);
                    // What its own owner holds, another of its threads may release.
                    edge.holds && edge.owner == edge.blocked_by
                        || !owner_waits && (edge.holds || !stuck.contains(&*edge.blocker))
                };
                let edges = &self.of_wait[wait];
                let (any, all): (Vec<&WaitEdge>, Vec<&WaitEdge>) = edges.iter().partition(|edge| edge.any);
                let gets_on = all.iter().all(satisfied) && (any.is_empty() || any.iter().any(satisfied));
                if gets_on && stuck.remove(wait) {
                    owners.entry(&edges[0].owner).and_modify(|waits| *waits -= 1);
                }
            }
            if stuck.len() == before {
                return stuck;
            }
        }
    }

    /// The waits that have to end before this edge is out of the way.
    fn behind(&self, edge: &'a WaitEdge) -> BTreeSet<&'a str> {
        let mut waits = BTreeSet::new();
        if edge.excludes {
            waits.extend(self.of_owner.get(&*edge.blocked_by).into_iter().flatten());
        }
        if !edge.holds && self.of_wait.contains_key(&*edge.blocker) {
            waits.insert(&*edge.blocker);
        }
        waits
    }

    fn reachable(&self, from: &'a str) -> BTreeSet<&'a str> {
        let (mut reached, mut owners, mut next) = (BTreeSet::new(), BTreeSet::new(), vec![from]);
        while let Some(wait) = next.pop() {
            for edge in &self.of_wait[wait] {
                // Each owner's waits once: there may be a thousand, and as many in its way.
                let whole = edge.excludes && owners.insert(&*edge.blocked_by);
                let waits = if whole || !edge.holds { self.behind(edge) } else { BTreeSet::new() };
                next.extend(waits.into_iter().filter(|other| reached.insert(*other)));
            }
        }
        reached
    }

    /// All waits that can't end before this one, and this one not before them; empty if it is in no cycle.
    fn component(&self, wait: &'a str) -> BTreeSet<&'a str> {
        let mut reached = self.reachable(wait);
        if !reached.contains(wait) {
            return BTreeSet::new();
        }
        reached.retain(|other| self.reachable(other).contains(wait));
        reached
    }

    /// The shortest way from this wait back to it that leads over somebody else.
    fn way_round(&self, wait: &'a str) -> Option<Vec<WaitEdge>> {
        let mine = &self.of_wait[wait].first()?.owner;
        let mut came: BTreeMap<&str, (&str, &'a WaitEdge)> = BTreeMap::new();
        let mut next = VecDeque::from([wait]);
        while let Some(at) = next.pop_front() {
            for edge in &self.of_wait[at] {
                for other in self.behind(edge) {
                    // From the start only to other owners, or the shortest way would be its own thread.
                    if at == wait && (other == wait || self.of_wait[other].iter().all(|edge| edge.owner == *mine)) {
                        continue;
                    }
                    if other == wait {
                        let mut way = vec![(*edge).clone()];
                        let mut at = at;
                        while let Some((before, edge)) = came.get(at) {
                            way.push((*edge).clone());
                            at = before;
                        }
                        way.reverse();
                        return Some(way);
                    }
                    if other != wait && !came.contains_key(other) {
                        came.insert(other, (at, edge));
                        next.push_back(other);
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Bound, Holder, Mode, Waiter};

    fn claim(id: &str, owner: &str, mode: Mode) -> Claim {
        Claim {
            id: id.to_owned(),
            owner: owner.to_owned(),
            fingerprint: String::new(),
            mode,
            ttl: 1,
            bound: Bound::Lease,
            process: None,
            pid: 1,
            hostname: String::new(),
            reason: None,
            slots: None,
            upgrades: None,
            extra: Default::default(),
        }
    }

    /// `("x", "A B", "C")`: A and B hold x, C waits. A lower-case owner is a reader.
    fn locks(all: &[(&str, &str, &str)]) -> Vec<(LockName, Record)> {
        let mut count = 0;
        let lock = |(name, holders, waiters): &(&str, &str, &str)| {
            let mut one = |owner: &str| {
                count += 1;
                let mode = if owner.chars().all(char::is_lowercase) { Mode::Shared } else { Mode::Exclusive };
                claim(&format!("{name}-{owner}-{count}"), &owner.to_uppercase(), mode)
            };
            let holders = holders.split_whitespace().map(|owner| Holder {
                claim: one(owner),
                acquired_at: 0,
                timeout: 1,
                token: Some(1),
                end: None,
                waited: 0,
                slot: None,
                priority: 0,
            });
            let holders = holders.collect();
            let queue = waiters.split_whitespace().enumerate().map(|(at, owner)| Waiter {
                claim: one(owner),
                priority: 0,
                rank: i64::try_from(at).unwrap(),
                since: 0,
                until: None,
                end: None,
            });
            let queue = queue.collect();
            (LockName::new(name).unwrap(), Record { holders, queue })
        };
        all.iter().map(lock).collect()
    }

    fn told(all: &[(&str, &str, &str)]) -> Vec<String> {
        cycles(&locks(all), Faults::NONE).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_that_wait_for_each_other_are_a_deadlock_with_one_victim() {
        let all = [("x", "A", "B"), ("y", "B", "A")];
        assert_eq!(told(&all), ["A holds x, waits for y; B holds y, waits for x"]);
        let mut other_order = locks(&all);
        other_order.reverse();
        assert_eq!(cycles(&other_order, Faults::NONE), cycles(&locks(&all), Faults::NONE), "the same from every side");
    }

    #[test]
    fn who_only_waits_or_only_holds_is_in_no_deadlock() {
        assert_eq!(told(&[("x", "A", "B C"), ("y", "B", "C"), ("z", "C", "")]), [""; 0]);
        assert_eq!(told(&[("x", "A", "A"), ("y", "A", "A B")]), [""; 0], "another thread may release it");
    }

    #[test]
    fn three_in_a_ring_and_one_that_hangs_on_it() {
        let told = told(&[("x", "A", "B D"), ("y", "B", "C"), ("z", "C", "A")]);
        assert_eq!(told.len(), 1);
        assert!(!told[0].contains('D'), "{told:?}");
    }

    #[test]
    fn who_waits_behind_a_writer_that_waits_for_it() {
        // A reads, B wants to write, and A wants to read once more.
        assert_eq!(told(&[("x", "a", "B a")]).len(), 1);
        // Two readers wait together: that one is first is no reason.
        assert_eq!(told(&[("x", "C", "a b"), ("y", "b", "a")]), [""; 0]);
    }

    #[test]
    fn of_slots_one_that_gets_on_is_enough() {
        let slotted = |all: &[(&str, &str, &str)]| {
            let mut locks = locks(all);
            let (_, record) = &mut locks[0];
            for (at, holder) in record.holders.iter_mut().enumerate() {
                (holder.claim.slots, holder.slot) = (Some(2), u32::try_from(at).ok());
            }
            record.queue.iter_mut().for_each(|waiter| waiter.claim.slots = Some(2));
            cycles(&locks, Faults::NONE).len()
        };
        assert_eq!(slotted(&[("x", "A B", "C"), ("y", "C", "A")]), 0, "B may let go");
        assert_eq!(slotted(&[("x", "A B", "C"), ("y", "C", "A B")]), 1);
    }
}
