//! The onward course of a state: nothing fails any more, who doesn't wait releases, the others ask again.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use gitlock::{
    LockName,
    lock::{
        Mode, Record,
        deadlock::{Cycle, cycles},
        decide::{Context, view},
    },
};

use super::{
    client::{Client, Wish},
    look::longest,
    world::{Forest, Step, TICK, TTL, WINDOW, World, client_of, record},
};
use crate::model::{Invariant, Violation, hold, search::Space, world::Health};

/// After so many turns without any change nothing will come any more.
const STILL: usize = ((TTL + WINDOW) / TICK) as usize + 3;
const MOST_TURNS: usize = 400;

/// Follows onward courses, each state once.
#[derive(Debug, Default)]
pub(super) struct Onward {
    /// Which clients wait for ever.
    stuck: HashMap<u64, u8>,
    /// What has been seen to come to an end, victims and all.
    ends: BTreeSet<u64>,
}

impl Onward {
    pub(super) fn check(&mut self, forest: &Forest<'_>, world: &World, key: u64) -> Result<(), Violation> {
        let (stuck, last) = self.follow(forest, world, key)?;
        let told = deadlocks(forest, world)?;
        for cycle in &told {
            let ids = cycle.edges.iter().flat_map(|edge| [&edge.id, &edge.blocker]);
            let clients: BTreeSet<usize> = ids.map(|id| client_of(id)).collect();
            // A client that has stopped is no different from one that waits, until its leases are over.
            if clients.iter().any(|client| world.clients[*client].health != Health::Live) {
                continue;
            }
            let waits = cycle.edges.iter().all(|edge| stuck & (1 << client_of(&edge.id)) != 0);
            hold(waits, Invariant::DeadlockIsOne, || format!("{cycle} is reported, and resolves itself"))?;
        }
        if let Some(last) = last {
            self.end(forest, last)?;
        }
        Ok(())
    }

    /// Who waits for ever, and the state in which they do, if that wasn't seen before.
    fn follow(&mut self, forest: &Forest<'_>, world: &World, key: u64) -> Result<(u8, Option<World>), Violation> {
        let (mut path, mut state, mut at) = (Vec::new(), world.clone(), key);
        let (mut still, mut last) = (0, None);
        let stuck = loop {
            if let Some(stuck) = self.stuck.get(&at) {
                break *stuck;
            }
            hold(path.len() < MOST_TURNS, Invariant::ServedInTime, || "it goes on for ever".to_owned())?;
            path.push(at);
            let before = shape(&state);
            state = turn(forest, &state)?;
            still = if shape(&state) == before { still + 1 } else { 0 };
            if still > STILL {
                let waits = |(at, client): (usize, &Client)| {
                    let waits = client.health == Health::Live && client.doing.is_some();
                    u8::from(waits) << at
                };
                let stuck = state.clients.iter().enumerate().map(waits).sum();
                last = Some(state);
                break stuck;
            }
            at = forest.key(&state);
        };
        for key in path {
            self.stuck.insert(key, stuck);
        }
        Ok((stuck, last))
    }

    /// Victims give up one after another, and in the end nothing is left.
    fn end(&mut self, forest: &Forest<'_>, mut world: World) -> Result<(), Violation> {
        for _ in 0..=2 * world.clients.len() {
            if !self.ends.insert(forest.key(&world)) {
                return Ok(());
            }
            let busy: Vec<usize> = (0..world.clients.len())
                .filter(|at| world.clients[*at].health == Health::Live && world.clients[*at].doing.is_some())
                .collect();
            if busy.is_empty() {
                return goes_away(forest, world);
            }
            let told = deadlocks(forest, &world)?;
            let victim = told.first().map(|cycle| client_of(&cycle.victim));
            let Some(victim) = victim.filter(|victim| busy.contains(victim)) else {
                return hold(false, Invariant::DeadlockIsOne, || {
                    format!("{busy:?} wait for ever, and nobody reports a deadlock: {:?}", world.states)
                });
            };
            let waits_as = world.clients[victim].waits_as(victim);
            hold(waits_as.as_ref() == Some(&told[0].victim), Invariant::DeadlockIsOne, || {
                format!("{} is to give up, and waits as {waits_as:?}", told[0].victim)
            })?;
            world.act_out(forest, victim, Wish::GiveUp)?;
            for _ in 0..2 * STILL {
                world = turn(forest, &world)?;
            }
        }
        hold(false, Invariant::DeadlockIsOne, || "one victim after another isn't enough".to_owned())
    }
}

/// Everybody takes a turn, and a tick passes.
fn turn(forest: &Forest<'_>, world: &World) -> Result<World, Violation> {
    let mut world = world.clone();
    for at in 0..world.clients.len() {
        if world.clients[at].health != Health::Live {
            continue;
        }
        if world.clients[at].doing.is_none() {
            if !world.clients[at].held.is_empty() {
                world.act_out(forest, at, Wish::Release(0))?;
            }
            continue;
        }
        // Its background thread renews what it has.
        let held = world.clients[at].held.len();
        let believes: Vec<bool> = (0..held).map(|held| world.believes(forest, at, held)).collect();
        let doing = world.clients[at].doing.take();
        for (index, believes) in (0u8..).zip(believes) {
            if believes {
                let before = world.clients[at].held.len();
                world.act_out(forest, at, Wish::Extend(index))?;
                hold(world.clients[at].held.len() == before, Invariant::WholeOrNothing, || {
                    format!("client {at} can't extend what it believes that it holds")
                })?;
            }
        }
        world.clients[at].doing = doing;
        world.act_out(forest, at, Wish::Again)?;
    }
    forest.after(&world, Step::Tick)
}

/// Once nobody wants anything every ref goes away.
fn goes_away(forest: &Forest<'_>, mut world: World) -> Result<(), Violation> {
    for _ in 0..4 {
        let ticks = longest(forest, &world) + forest.policy.dead_queue_after().div_ceil(TICK) + 1;
        world.passes(ticks);
        world.reap(forest)?;
    }
    let left = world.states.iter().find(|state| !record(state).holders.is_empty() || !record(state).queue.is_empty());
    hold(left.is_none(), Invariant::RefMeansHeld, || format!("nobody is left, and {left:?} stays"))
}

/// What there is to see but for time.
fn shape(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    for state in &world.states {
        let record = record(state);
        let holders: Vec<(&str, Mode)> = record.holders.iter().map(|h| (&*h.claim.id, h.claim.mode)).collect();
        let queue: Vec<&str> = record.queue.iter().map(|w| &*w.claim.id).collect();
        (holders, queue).hash(&mut hasher);
    }
    for client in &world.clients {
        (client.held.len(), client.doing.as_ref().map(std::mem::discriminant)).hash(&mut hasher);
    }
    hasher.finish()
}

/// The deadlocks, as everybody sees them.
fn deadlocks(forest: &Forest<'_>, world: &World) -> Result<Vec<Cycle>, Violation> {
    let (now, facts) = (forest.now(world), world.facts());
    let context = Context { now: &now, facts: &facts, policy: &forest.policy };
    let mut locks: Vec<(LockName, Record)> =
        world.states.iter().map(|state| (state.name.clone(), view(state, context))).collect();
    let faults = forest.policy.faults;
    let told = cycles(&locks, faults);
    locks.reverse();
    let other_way: BTreeSet<String> = cycles(&locks, faults).into_iter().map(|cycle| cycle.victim).collect();
    let victims: BTreeSet<String> = told.iter().map(|cycle| cycle.victim.clone()).collect();
    hold(victims == other_way, Invariant::DeadlockIsOne, || {
        format!("{victims:?} are the victims from one side, and {other_way:?} from the other")
    })?;
    // A cycle has one victim, which is part of it.
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for cycle in &told {
        let members: BTreeSet<&str> = cycle.edges.iter().map(|edge| &*edge.id).collect();
        let sound = members.contains(&*cycle.victim) && members.is_disjoint(&seen);
        hold(sound, Invariant::DeadlockIsOne, || format!("{cycle} has the victim {}", cycle.victim))?;
        seen.extend(members);
    }
    Ok(told)
}
