//! The rules of several locks, explored exhaustively: trees, sets, slots, upgrades, deadlocks, crashes.
//!
//! As in the worlds of one lock (see [`super`]), but a client is an owner that carries out a list of
//! requests one after another, keeps what it was granted until it releases it, in any order, and
//! upgrades and downgrades it. Every write of several refs may be cut off after any of its edits, by
//! a crash or by a lost connection, and is asked again then. A client looks and writes in one step;
//! what time does to a look is the other worlds' subject.
//!
//! # What must hold
//! - In every state, and after every single edit: no two stand in a record that Gray's matrix keeps
//!   apart, slots are numbered and never more than there are, and nothing is held without its intents
//!   above it, so that a crash locks too much and never too little.
//! - Who believes that it holds has all of it: every name of a set, and every intent; nobody else
//!   believes that of anything on the same path that excludes it.
//! - The *onward course* of a state: nothing fails any more, who doesn't wait releases, everybody else
//!   asks again. Either all are served, and then no deadlock is reported in that state; or some wait for
//!   ever, and then one is. A victim gives up, and so on until all are gone, and every ref with them.
//! - A deadlock is the same whatever the order in which the locks are read.
//!
//! A state is known by what its future depends on: leases by how long they last from here on, places in
//! queues by their order, and tokens not at all, as each write is checked to raise them.

mod client;
mod look;
mod onward;
mod scenarios;
mod world;

use gitlock::{
    Mode, Result,
    lock::fault::{Fault, Faults},
};

use super::{Found, Report, search::explore as search};

pub use scenarios::{groves, small_groves};
use world::Forest;

/// The faults that leave out a rule of several locks.
pub const RULES: &[Fault] = &[
    Fault::IgnoreIntents,
    Fault::NoInheritance,
    Fault::UncountedSlots,
    Fault::UpgradeBesideOthers,
    Fault::UpgradersHang,
    Fault::KeepHalfASet,
    Fault::ReleaseAncestorsFirst,
    Fault::AcquireAncestorsLast,
    Fault::DeadlockOverlooksQueues,
    Fault::DeadlockOverlooksUpgrades,
    Fault::DeadlockNeedsEverySlot,
    Fault::VictimByOrder,
];

/// One small world to explore.
#[derive(Clone, Debug)]
pub struct Grove {
    /// Its name.
    pub name: &'static str,
    /// Its locks, in their order.
    pub(crate) names: &'static [&'static str],
    pub(crate) members: Vec<Member>,
    /// For how many ticks it is followed.
    pub(crate) ticks: u16,
    /// How many clients may crash, and how many writes may end in unknown.
    pub(crate) crashes: u8,
    pub(crate) unknowns: u8,
    /// The faults that this world was made to catch.
    pub catches: &'static [Fault],
}

/// What one client may do.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) owner: &'static str,
    pub(crate) wants: Vec<Want>,
    /// How often it turns what it holds into the other mode.
    pub(crate) converts: u8,
    pub(crate) extends: u8,
    /// Whether it may lose interest while it waits.
    pub(crate) cancels: bool,
    /// Whether it doesn't wait.
    pub(crate) tries: bool,
    /// Whether its death can be proven.
    pub(crate) dies: bool,
    /// Whether it may stop for good without anybody being able to tell.
    pub(crate) stops: bool,
    /// Whose handle it was given: it asks while that client holds something.
    pub(crate) after: Option<usize>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) names: &'static [&'static str],
    pub(crate) mode: Mode,
    pub(crate) slots: Option<u32>,
}

/// Follows every order of events of this world.
///
/// # Errors
/// If the world can't be made at all.
pub fn explore(grove: &Grove, faults: Faults) -> Result<Report> {
    search(&mut Forest::new(grove, faults)?)
}

/// Where and how this fault is caught, if it is: first in the worlds made for it, then in all.
///
/// # Errors
/// If a world can't be made.
pub fn caught(fault: Fault, full: bool) -> Result<Option<(&'static str, Found)>> {
    let mut all = groves(full);
    all.sort_by_key(|grove| !grove.catches.contains(&fault));
    for grove in &all {
        if let Some(found) = explore(grove, Faults::only(fault))?.found {
            return Ok(Some((grove.name, found)));
        }
    }
    Ok(None)
}
