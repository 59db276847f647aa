//! The worlds that are explored: each small enough to be explored to its end.

use gitlock::{
    Mode, Result,
    lock::fault::{Fault, Faults},
};

use super::{Actor, Found, Scenario, explore};

/// The faults that leave out a rule of locking; the others are the stores'.
pub const RULES: &[Fault] = &[
    Fault::NewcomerOvertakes,
    Fault::ExclusiveBesideShared,
    Fault::GrantOneSharedOnly,
    Fault::NoClaimWindow,
    Fault::GrantDeadWaiters,
    Fault::GrantLateWaiters,
    Fault::IgnoreDeadOwners,
    Fault::ExtendEndedLease,
    Fault::NoClockSkew,
    Fault::TrustForeignBoot,
    Fault::TokenIgnoresJournal,
    Fault::TokenIgnoresRecord,
    Fault::IgnoreJournalTip,
    Fault::EndUnclosed,
    Fault::DropQueueOnRelease,
    Fault::NoHandOver,
    Fault::CancelLeavesGrant,
    Fault::NoAgeing,
    Fault::ReleaseWithoutProof,
    Fault::KeepDeadQueue,
    Fault::ReuseEndedId,
    Fault::NoSafetyMargin,
];

/// Where and how this fault is caught, if it is: first in the worlds made for it, then in all.
///
/// # Errors
/// If a world can't be made.
pub fn caught(fault: Fault, full: bool) -> Result<Option<(&'static str, Found)>> {
    let mut all = scenarios(full);
    all.sort_by_key(|scenario| !scenario.catches.contains(&fault));
    for scenario in &all {
        if let Some(found) = explore(scenario, Faults::only(fault))?.found {
            return Ok(Some((scenario.name, found)));
        }
    }
    Ok(None)
}

const TICK: u64 = 20;

/// A client that takes the lock once, and may do so at any time.
const fn actor(mode: Mode) -> Actor {
    Actor {
        mode,
        priority: 0,
        patience: None,
        ttl: 3 * TICK,
        tries: 1,
        extends: 0,
        extends_by: 3 * TICK,
        cancels: false,
        steals: false,
        dies: false,
        stops: false,
        from: 0,
        boot: "boot",
        boot_lead: 0,
        wall_lead: 0,
        set_back_at: None,
    }
}

const WRITER: Actor = actor(Mode::Exclusive);
const READER: Actor = actor(Mode::Shared);

fn scenario(name: &'static str, ticks: u16, clients: &[Actor], catches: &'static [Fault]) -> Scenario {
    Scenario {
        name,
        tick: TICK,
        ticks,
        stall: 2,
        window: 2 * TICK,
        skew: TICK,
        observed: false,
        unknowns: 0,
        crashes: 0,
        ordered: false,
        timely: true,
        clients: clients.to_vec(),
        catches,
    }
}

/// Every world, with the longer time and the further failures of `full` or without.
pub fn scenarios(full: bool) -> Vec<Scenario> {
    let more = u16::from(full);
    vec![
        stranger(4 + more),
        ageing(3 + more),
        clock_set_back(2 + more),
        impatient(3 + more),
        machines(3 + more),
        observers(3 + more),
        half_finished(1 + more),
        one_after_another(1 + more),
        dead_queue(6 + more),
        lasting_tenures(3 + more),
        writers(2 + more, 1 + u8::from(full)),
        readers(2 + more, 1 + u8::from(full)),
        crowd(2 + more),
    ]
}

/// A few worlds that are explored in a moment.
pub fn small() -> Vec<Scenario> {
    vec![stranger(2), ageing(2), readers(0, 1), half_finished(0), one_after_another(1), dead_queue(6)]
}

/// Three who exclude each other, with everything that may go wrong.
fn writers(ticks: u16, failures: u8) -> Scenario {
    let clients = [
        Actor { extends: 1, dies: true, ..WRITER },
        Actor { cancels: true, priority: 1, stops: true, ..WRITER },
        Actor { dies: true, ..WRITER },
    ];
    let catches = &[
        Fault::NoSafetyMargin,
        Fault::ReuseEndedId,
        Fault::ExtendEndedLease,
        Fault::IgnoreJournalTip,
        Fault::NoHandOver,
    ];
    Scenario { unknowns: failures, crashes: 1, ..scenario("three writers", ticks, &clients, catches) }
}

/// Readers with a writer between them.
fn readers(ticks: u16, failures: u8) -> Scenario {
    let clients = [
        Actor { dies: true, ..READER },
        Actor { cancels: true, extends: 1, dies: true, ..WRITER },
        Actor { priority: 1, stops: true, ..READER },
    ];
    let catches = &[
        Fault::NewcomerOvertakes,
        Fault::ExclusiveBesideShared,
        Fault::DropQueueOnRelease,
        Fault::CancelLeavesGrant,
        Fault::GrantDeadWaiters,
    ];
    Scenario { unknowns: failures, crashes: 1, ..scenario("readers and a writer", ticks, &clients, catches) }
}

/// Four, so that two readers wait together.
fn crowd(ticks: u16) -> Scenario {
    let clients = [WRITER, READER, READER, Actor { dies: true, priority: -1, ..WRITER }];
    Scenario { crashes: 1, ..scenario("four clients", ticks, &clients, &[Fault::GrantOneSharedOnly]) }
}

/// Leases that last much longer than a claim window.
fn lasting_tenures(ticks: u16) -> Scenario {
    let lasting = Actor { ttl: 20 * TICK, ..WRITER };
    let clients =
        [Actor { dies: true, ..lasting }, Actor { stops: true, ..lasting }, Actor { cancels: true, ..lasting }];
    let catches = &[Fault::NoClaimWindow, Fault::IgnoreDeadOwners];
    Scenario { crashes: 1, ..scenario("lasting tenures", ticks, &clients, catches) }
}

/// A holder and its queue stop for good; somebody comes long after.
fn dead_queue(ticks: u16) -> Scenario {
    let stops = Actor { stops: true, ttl: TICK, ..WRITER };
    let clients = [stops, stops, Actor { from: ticks - 1, ..WRITER }];
    let scenario = scenario("a dead queue", ticks, &clients, &[Fault::KeepDeadQueue]);
    Scenario { stall: 0, crashes: 2, window: TICK, ..scenario }
}

/// Waiters with a limit to their patience, and one that doesn't queue.
fn impatient(ticks: u16) -> Scenario {
    let clients = [
        Actor { extends: 1, ..WRITER },
        Actor { patience: Some(2 * TICK), stops: true, tries: 2, ..WRITER },
        Actor { patience: Some(0), ..READER },
    ];
    Scenario { crashes: 1, ..scenario("the impatient", ticks, &clients, &[Fault::GrantLateWaiters]) }
}

/// One who releases what isn't its own.
fn stranger(ticks: u16) -> Scenario {
    let clients = [WRITER, WRITER, Actor { steals: true, tries: 2, ..WRITER }];
    scenario("a stranger", ticks, &clients, &[Fault::ReleaseWithoutProof])
}

/// A later one with a higher priority, when thirty seconds make up for it.
fn ageing(ticks: u16) -> Scenario {
    const LONG: u64 = 20_000;
    let long = Actor { ttl: 5 * LONG, ..WRITER };
    let clients = [Actor { priority: 2, ..long }, Actor { cancels: true, ..long }, Actor { priority: 1, ..long }];
    let scenario = scenario("a long wait", ticks, &clients, &[Fault::NoAgeing]);
    Scenario { tick: LONG, window: 2 * LONG, skew: 1_000, ..scenario }
}

/// The wall clock of the machine is set back by an hour.
fn clock_set_back(ticks: u16) -> Scenario {
    let back = |actor| Actor { set_back_at: Some(1), ..actor };
    let clients = [back(READER), back(Actor { extends: 1, ..READER }), back(Actor { stops: true, ..WRITER })];
    let catches = &[Fault::TokenIgnoresJournal, Fault::TokenIgnoresRecord];
    let scenario = scenario("a clock set back", ticks, &clients, catches);
    Scenario { unknowns: 1, crashes: 1, ..scenario }
}

/// Machines whose boot clocks have nothing in common, and whose wall clocks differ by the skew.
fn machines(ticks: u16) -> Scenario {
    let clients = [
        Actor { boot: "first", wall_lead: -20, extends: 1, ..WRITER },
        Actor { boot: "second", boot_lead: 5_000_000, ..WRITER },
        Actor { boot: "second", boot_lead: 5_000_000, ..READER },
    ];
    let catches = &[Fault::NoClockSkew, Fault::TrustForeignBoot];
    Scenario { timely: false, unknowns: 1, ..scenario("two machines", ticks, &clients, catches) }
}

/// Machines that judge leases by what they see, whatever the clocks say; a claim window longer
/// than a ttl, and an extension shorter than what is left.
fn observers(ticks: u16) -> Scenario {
    let clients = [
        Actor { boot: "first", set_back_at: Some(1), extends: 2, extends_by: 2 * TICK, ..WRITER },
        Actor { boot: "first", set_back_at: Some(1), ttl: 2 * TICK, ..WRITER },
        Actor { boot: "second", boot_lead: 9_000_000, wall_lead: -7_000, ttl: 2 * TICK, ..WRITER },
    ];
    let scenario = scenario("observers", ticks, &clients, &[Fault::NoSafetyMargin]);
    Scenario { timely: false, observed: true, window: 4 * TICK, ..scenario }
}

/// Several ends, one after another, each left half-finished.
fn half_finished(ticks: u16) -> Scenario {
    let clients = [Actor { dies: true, ..READER }, Actor { stops: true, ..READER }, READER];
    Scenario { unknowns: 2, crashes: 1, ..scenario("half-finished ends", ticks, &clients, &[Fault::IgnoreJournalTip]) }
}

/// A server that changes one ref after another: claims and renewals beside the ends that others make.
fn one_after_another(ticks: u16) -> Scenario {
    let clients = [
        Actor { extends: 1, ttl: TICK, ..WRITER },
        Actor { stops: true, ttl: TICK, ..WRITER },
        Actor { ttl: TICK, ..WRITER },
    ];
    let scenario = scenario("one ref after another", ticks, &clients, &[Fault::EndUnclosed]);
    Scenario { ordered: true, unknowns: 1, crashes: 1, window: TICK, ..scenario }
}
