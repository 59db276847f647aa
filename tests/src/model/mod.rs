//! The rules, explored exhaustively.
//!
//! A small world is made of the real [`decide`](gitlock::lock::decide()), a modelled repository with
//! one lock and its journal, and a few clients. From its first state every order of events is
//! followed, breadth first, each state once; a state is known by its 64-bit hash.
//!
//! # Time
//! Time goes in ticks, and a tick is just another event: between any two steps of a client any
//! time may pass. So a client that is stopped, swapped out or partitioned needs no event of its
//! own: it is one that takes no step for a while, or for ever, also between its look at the lock
//! and its write. Clients may live on machines (boots) of their own, with other boot clocks and
//! wall clocks that differ.
//!
//! # Clients
//! A client looks at the lock and decides, and some ticks later it writes what it decided. Nothing
//! that it compares was written in between, or it has a conflict; so look and write are one step
//! here, which says how long ago the look was, and whether that was before the last write
//! (`late.rs`). A client wants the lock (in one mode, with a priority, with or without a limit to
//! its patience), asks again until it is granted or told `Gone`, holds, extends, releases, cancels. It may lie dead, provably or
//! not. What it *believes* is what the guard believes: it holds until the lease's end on its own
//! clock less the safety margin, and acts on that belief up to [`LAG`] later. A stranger may try
//! to release what isn't its own.
//!
//! # The repository
//! A write compares what it changes, record or journal or both, with what it read. A client whose
//! read of that has gone stale has a conflict, which changes nothing but that it looks again: not a
//! step of its own. What it doesn't change it doesn't compare, so a record may be written by somebody who
//! hasn't seen what a crash left in the journal. And where refs change one after another, what comes
//! first may be changed before a conflict in what comes after. (The manager's second look at the
//! journal after it created a ref is part of this comparison here.) A write may also end in
//! *unknown*, made or not, and a crash or a lost connection between its ordered edits leaves the
//! journal written and the record not.
//!
//! # What must hold
//! [`Invariant`] lists it. Some are checked in every state, some at every write, and two on the
//! *fair continuation* of every state: from here on nothing fails, every live client steps in
//! turn, holders release at once and nobody new comes. Then whoever waits must be served as soon
//! as what stands before it allows, and in the end the ref must be gone.

mod fair;
mod invariants;
mod late;
mod scenarios;
mod search;
pub mod several;
mod world;

use std::fmt;

use gitlock::{
    Mode, Result,
    lock::fault::{Fault, Faults},
};

pub use scenarios::{RULES, caught, scenarios, small};
use search::Space;
pub use search::{Found, Report};

/// How long after its last look at its guard a client may still act, in milliseconds: what the
/// safety margin, never less than this, is there for.
pub const LAG: u64 = 10;

/// The most clients of one scenario.
const MOST_CLIENTS: usize = 4;

/// What the model checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// Of all who believe that they hold, and of all who stand in the record, an exclusive one is
    /// alone.
    Exclusion,
    /// Each grant has a token above all before it, and keeps it.
    TokensGrow,
    /// A tenure that ended, in the journal or by its lease, doesn't come back, and ends once.
    EndedStaysEnded,
    /// Nobody vanishes from the queue but who was granted, left, died, or was too late.
    NoLostWaiter,
    /// Nothing is granted to, or kept for, whoever left, died, or was too late.
    NoGrantToTheGone,
    /// Nobody is served before who stands before it, and thirty seconds are worth a priority.
    ServedInOrder,
    /// No waiter waits that fits beside all holders.
    NobodyWaitsForNothing,
    /// The ref exists exactly while somebody holds.
    RefMeansHeld,
    /// A live waiter is served as soon as the leases and claim windows before it allow.
    ServedInTime,
    /// Who was told that it holds several locks has all of them, and every intent above them.
    WholeOrNothing,
    /// Nothing is held, between any two edits, without its intents above it.
    IntentsStand,
    /// A deadlock is reported exactly when some would wait for ever, with one victim, the same from every side.
    DeadlockIsOne,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invariant::Exclusion => "exclusion",
            Invariant::TokensGrow => "tokens grow",
            Invariant::EndedStaysEnded => "ended stays ended",
            Invariant::NoLostWaiter => "no lost waiter",
            Invariant::NoGrantToTheGone => "no grant to the gone",
            Invariant::ServedInOrder => "served in order",
            Invariant::NobodyWaitsForNothing => "nobody waits for nothing",
            Invariant::RefMeansHeld => "ref means held",
            Invariant::ServedInTime => "served in time",
            Invariant::WholeOrNothing => "whole or nothing",
            Invariant::IntentsStand => "intents stand",
            Invariant::DeadlockIsOne => "a deadlock is one",
        })
    }
}

/// What an invariant found, and about what.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

/// `Err` with this violation, said in these words, unless it holds.
pub(crate) fn hold(holds: bool, invariant: Invariant, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, what: what() }) }
}

/// One small world to explore.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// How many milliseconds a tick takes.
    pub tick: u64,
    /// For how many ticks it is followed.
    pub ticks: u16,
    /// For how many ticks at most a client may stall between its look and its write.
    pub stall: u16,
    /// The claim window, in milliseconds.
    pub window: u64,
    /// The greatest difference of wall clocks, in milliseconds.
    pub skew: u64,
    /// Whether leases are judged by observation.
    pub observed: bool,
    /// How many writes may end in unknown.
    pub unknowns: u8,
    /// How many clients may crash.
    pub crashes: u8,
    /// Whether refs change one after another, as on a server without atomic pushes.
    pub ordered: bool,
    /// Whether waiters must be served in time: where clocks differ the bound isn't known to all.
    pub timely: bool,
    /// The clients.
    pub(crate) clients: Vec<Actor>,
    /// The faults that this world was made to catch.
    pub catches: &'static [Fault],
}

/// What one client may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actor {
    pub(crate) mode: Mode,
    pub(crate) priority: i32,
    /// For how many milliseconds it waits at most; `Some(0)`: it doesn't queue.
    pub(crate) patience: Option<u64>,
    pub(crate) ttl: u64,
    /// How often it takes the lock, one time after another.
    pub(crate) tries: u8,
    /// How often it extends.
    pub(crate) extends: u8,
    /// The length it extends by, in milliseconds.
    pub(crate) extends_by: u64,
    /// Whether it may lose interest while it waits.
    pub(crate) cancels: bool,
    /// Whether it tries to release another's tenure instead of taking the lock.
    pub(crate) steals: bool,
    /// Whether its death can be proven by others of its boot.
    pub(crate) dies: bool,
    /// Whether it may stop for good without anybody being able to tell.
    pub(crate) stops: bool,
    /// The tick before which it does nothing.
    pub(crate) from: u16,
    /// Its machine.
    pub(crate) boot: &'static str,
    /// Its boot clock's lead, in milliseconds.
    pub(crate) boot_lead: u64,
    /// Its wall clock's lead, in milliseconds.
    pub(crate) wall_lead: i64,
    /// From this tick on its wall clock is an hour behind.
    pub(crate) set_back_at: Option<u16>,
}

/// The rules that one exploration goes by, and what it knows of how states go on.
struct OneLock<'a> {
    rules: world::Rules<'a>,
    fair: fair::Fair,
}

impl Space for OneLock<'_> {
    type World = world::World;
    type Step = world::Step;

    fn first(&self) -> Result<world::World> {
        world::World::first(&self.rules)
    }

    fn key(&self, world: &world::World) -> u64 {
        world.key(&self.rules)
    }

    fn check(&mut self, world: &world::World, key: u64) -> std::result::Result<(), Violation> {
        self.fair.check(&self.rules, world, key)
    }

    fn steps(&self, world: &world::World, steps: &mut Vec<world::Step>) {
        world.steps(&self.rules, steps);
    }

    fn after(&self, world: &world::World, step: world::Step) -> std::result::Result<world::World, Violation> {
        world.after(&self.rules, step)
    }
}

/// Follows every order of events of this scenario.
///
/// # Errors
/// If the world can't be made at all.
pub fn explore(scenario: &Scenario, faults: Faults) -> Result<Report> {
    search::explore(&mut OneLock { rules: world::Rules::new(scenario, faults), fair: fair::Fair::default() })
}
