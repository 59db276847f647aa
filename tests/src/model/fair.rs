//! The fair continuation of a state: nothing fails any more, every live client steps in turn.

use std::collections::HashMap;

use super::{
    Invariant, MOST_CLIENTS, Violation, hold,
    invariants::{dead_queue, keeps_others},
    world::{Ending, Health, Phase, Rules, Step, Wish, World},
};

/// For each client the tick at which it was served, or gave up.
type Served = [u16; MOST_CLIENTS];

/// The most ticks until everybody is served: far more than any sum of leases.
const MOST_TICKS: usize = 2_000;

/// Follows fair continuations, each state once.
#[derive(Debug, Default)]
pub(super) struct Fair {
    known: HashMap<u64, Served>,
}

impl Fair {
    /// Checks the continuation of this state.
    pub(super) fn check(&mut self, rules: &Rules<'_>, world: &World, key: u64) -> Result<(), Violation> {
        let served = self.follow(rules, world, key)?;
        if !rules.scenario.timely {
            return Ok(());
        }
        for (at, client) in world.clients.iter().enumerate() {
            if client.waits() && client.until.is_none() {
                let bound = bound(rules, world);
                hold(served[at] <= bound, Invariant::ServedInTime, || {
                    format!("client {at} is served at tick {}, not by tick {bound}", served[at])
                })?;
            }
        }
        Ok(())
    }

    fn follow(&mut self, rules: &Rules<'_>, world: &World, key: u64) -> Result<Served, Violation> {
        let mut path: Vec<(u64, World)> = Vec::new();
        let (mut at, mut state) = (key, world.clone());
        let mut served = loop {
            if let Some(served) = self.known.get(&at) {
                break *served;
            }
            let busy = |client: &super::world::Client| client.health == Health::Live && client.phase != Phase::Away;
            if !state.clients.iter().any(busy) {
                goes_away(rules, &state)?;
                break [state.time; MOST_CLIENTS];
            }
            hold(path.len() < MOST_TICKS, Invariant::ServedInTime, || "somebody waits for ever".to_owned())?;
            let next = turn(rules, &state)?;
            path.push((at, std::mem::replace(&mut state, next)));
            at = state.key(rules);
        };
        for (key, state) in path.into_iter().rev() {
            for (at, client) in state.clients.iter().enumerate() {
                if !client.waits() {
                    served[at] = state.time;
                }
            }
            self.known.insert(key, served);
        }
        Ok(served)
    }
}

/// Every live client takes as many steps as it can use at this moment; then a tick passes.
fn turn(rules: &Rules<'_>, world: &World) -> Result<World, Violation> {
    let mut world = world.clone();
    for at in 0..world.clients.len() {
        let name = u8::try_from(at).unwrap_or(0);
        // Enough to close what is over, to be told that its id is used up, to acquire under another, and to release.
        for _ in 0..6 {
            let client = &world.clients[at];
            let wish = match client.phase {
                _ if client.health != Health::Live => break,
                Phase::Away => break,
                Phase::Wants if world.out_of_patience(rules, at, world.time) => Wish::Cancel,
                Phase::Wants => Wish::Acquire,
                Phase::Holds { .. } | Phase::Releases => Wish::Release,
                Phase::Cancels => Wish::Cancel,
            };
            world = world.after(rules, Step::Act(name, wish, 0, Ending::Done))?;
        }
    }
    world.after(rules, Step::Tick)
}

/// Once nobody wants anything the ref goes away: at the latest when every lease and every claim
/// window has passed and somebody looks.
fn goes_away(rules: &Rules<'_>, world: &World) -> Result<(), Violation> {
    let Some(record) = world.record() else { return Ok(()) };
    let mut world = world.clone();
    let longest = record.holders.iter().map(|holder| rules.true_end(holder)).max().unwrap_or(0);
    let patience = world.clients.iter().filter_map(|client| client.until).max().unwrap_or(0);
    for _ in 0..2 * (record.queue.len() + 2) {
        world.reap(rules)?;
        if world.record().is_none() {
            return Ok(());
        }
        let jump = longest.max(patience).saturating_sub(rules.millis(world.time)) + rules.scenario.window;
        let jump = jump.max(rules.policy.dead_queue_after()) / rules.scenario.tick + 1;
        world.time = world.time.saturating_add(u16::try_from(jump).unwrap_or(u16::MAX));
    }
    hold(false, Invariant::RefMeansHeld, || "nobody is left, and the ref stays".to_owned())
}

/// The tick by which everybody who waits in this state is served, if nobody costs more than it may.
fn bound(rules: &Rules<'_>, world: &World) -> u16 {
    let mut millis = 0;
    if let Some(record) = world.record() {
        let cost = |id: &str, end| keeps_others(rules, world, id, end);
        millis = record.holders.iter().map(|h| cost(&h.claim.id, rules.true_end(h))).max().unwrap_or(0);
        if !dead_queue(rules, world, rules.millis(world.time)) {
            let window = rules.millis(world.time) + rules.scenario.window;
            millis += record.queue.iter().map(|waiter| cost(&waiter.claim.id, window)).sum::<u64>();
        }
    }
    // Each of them may need a turn for itself.
    let turns = 2 + world.clients.len() as u64;
    world.time.saturating_add(u16::try_from(millis.div_ceil(rules.scenario.tick) + turns).unwrap_or(u16::MAX))
}
