//! Every state, breadth first.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

use gitlock::Result;

use super::{Invariant, Violation};

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

/// What can be explored.
pub(super) trait Space {
    /// A state.
    type World: Clone;
    /// An event.
    type Step: Copy + fmt::Display;
    fn first(&self) -> Result<Self::World>;
    /// What a state is known by.
    fn key(&self, world: &Self::World) -> u64;
    /// Checks what must hold in a new state, and of how it goes on.
    fn check(&mut self, world: &Self::World, key: u64) -> std::result::Result<(), Violation>;
    /// Every step that may come next.
    fn steps(&self, world: &Self::World, steps: &mut Vec<Self::Step>);
    fn after(&self, world: &Self::World, step: Self::Step) -> std::result::Result<Self::World, Violation>;
}

/// How each state was first come to; the first state by nothing.
type From<S> = HashMap<u64, (u64, Option<S>), BuildHasherDefault<AsItIs>>;

/// Follows every order of events, breadth first.
///
/// # Errors
/// If the world can't be made at all.
pub(super) fn explore<S: Space>(space: &mut S) -> Result<Report> {
    let first = space.first()?;
    let start = space.key(&first);
    let mut from: From<S::Step> = HashMap::default();
    from.insert(start, (start, None));
    let mut queue = VecDeque::from([(start, first)]);
    let (mut steps, mut possible) = (0, Vec::new());
    let report = |states, steps, found| Ok(Report { states, steps, found });
    while let Some((key, world)) = queue.pop_front() {
        if let Err(violation) = space.check(&world, key) {
            return report(from.len(), steps, Some(found(violation, &from, key, None)));
        }
        possible.clear();
        space.steps(&world, &mut possible);
        for step in &possible {
            steps += 1;
            let next = match space.after(&world, *step) {
                Ok(next) => next,
                Err(violation) => return report(from.len(), steps, Some(found(violation, &from, key, Some(*step)))),
            };
            let reached = space.key(&next);
            if let std::collections::hash_map::Entry::Vacant(entry) = from.entry(reached) {
                entry.insert((key, Some(*step)));
                queue.push_back((reached, next));
            }
        }
    }
    report(from.len(), steps, None)
}

fn found<S: fmt::Display>(violation: Violation, from: &From<S>, at: u64, last: Option<S>) -> Found {
    let mut trace: Vec<String> = last.iter().map(S::to_string).collect();
    let mut at = at;
    while let Some((before, Some(step))) = from.get(&at) {
        trace.push(step.to_string());
        at = *before;
    }
    trace.reverse();
    Found { invariant: violation.invariant, what: violation.what, trace }
}
