//! Every state, breadth first.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use gitlock::{Result, lock::fault::Faults};

use super::{
    Invariant, Scenario, Violation,
    fair::Fair,
    world::{Rules, Step, World},
};

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many different states there are.
    pub states: usize,
    /// How many steps between them were taken.
    pub steps: usize,
    /// What is wrong, if anything is.
    pub found: Option<Found>,
}

/// An invariant that doesn't hold.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
    /// The shortest way there.
    pub trace: Vec<String>,
}

/// The keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// How each state was first come to.
type From = HashMap<u64, (u64, Step), BuildHasherDefault<AsItIs>>;

/// Follows every order of events of this scenario.
///
/// # Errors
/// If the world can't be made at all.
pub fn explore(scenario: &Scenario, faults: Faults) -> Result<Report> {
    let rules = Rules::new(scenario, faults);
    let first = World::first(&rules)?;
    let start = first.key(&rules);
    let mut from = From::default();
    from.insert(start, (start, Step::Tick));
    let mut fair = Fair::default();
    let mut queue = VecDeque::from([(start, first)]);
    let (mut steps, mut possible) = (0, Vec::new());
    let report = |states, steps, found| Ok(Report { states, steps, found });
    while let Some((key, world)) = queue.pop_front() {
        if let Err(violation) = fair.check(&rules, &world, key) {
            return report(from.len(), steps, Some(found(violation, &from, key, None)));
        }
        possible.clear();
        world.steps(&rules, &mut possible);
        for step in &possible {
            steps += 1;
            let next = match world.after(&rules, *step) {
                Ok(next) => next,
                Err(violation) => return report(from.len(), steps, Some(found(violation, &from, key, Some(*step)))),
            };
            let reached = next.key(&rules);
            if let std::collections::hash_map::Entry::Vacant(entry) = from.entry(reached) {
                entry.insert((key, *step));
                queue.push_back((reached, next));
            }
        }
    }
    report(from.len(), steps, None)
}

fn found(violation: Violation, from: &From, at: u64, last: Option<Step>) -> Found {
    let mut trace: Vec<String> = last.iter().map(Step::to_string).collect();
    let mut at = at;
    while let Some((before, step)) = from.get(&at).filter(|(before, _)| *before != at) {
        trace.push(step.to_string());
        at = *before;
    }
    trace.reverse();
    Found { invariant: violation.invariant, what: violation.what, trace }
}
