//! The rules, explored in worlds small enough for every test run; `cargo run --release --bin model`
//! explores larger ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use gitlock::lock::fault::{Fault, Faults};
use gitlock_tests::{
    model::{Invariant, RULES, explore, scenarios, several, small},
    reference,
};

#[test]
fn every_invariant_holds_in_every_state() {
    for scenario in small() {
        let report = explore(&scenario, Faults::NONE).unwrap();
        assert!(report.found.is_none(), "{}: {:#?}", scenario.name, report.found);
        assert!(report.states > 500, "{}: only {} states", scenario.name, report.states);
    }
}

#[test]
fn a_rule_left_out_is_noticed() {
    for (fault, invariant) in [
        (Fault::ReleaseWithoutProof, Invariant::Exclusion),
        (Fault::ExclusiveBesideShared, Invariant::Exclusion),
        (Fault::NewcomerOvertakes, Invariant::ServedInOrder),
        (Fault::NoAgeing, Invariant::ServedInOrder),
        (Fault::DropQueueOnRelease, Invariant::NoLostWaiter),
        (Fault::CancelLeavesGrant, Invariant::NoGrantToTheGone),
        (Fault::GrantDeadWaiters, Invariant::NoGrantToTheGone),
        (Fault::KeepDeadQueue, Invariant::NoGrantToTheGone),
        (Fault::IgnoreJournalTip, Invariant::EndedStaysEnded),
        (Fault::EndUnclosed, Invariant::Exclusion),
        (Fault::NoHandOver, Invariant::RefMeansHeld),
    ] {
        let found: BTreeSet<Invariant> = small()
            .iter()
            .filter(|scenario| scenario.catches.contains(&fault) || fault == Fault::NoHandOver)
            .filter_map(|scenario| explore(scenario, Faults::only(fault)).unwrap().found)
            .map(|found| found.invariant)
            .collect();
        assert!(found.contains(&invariant), "{}: {found:?}", fault.as_str());
    }
}

/// Each rule's fault has a world that was made for it, and no other fault is left out unseen.
#[test]
fn every_fault_of_a_rule_has_its_world() {
    let stores = |fault: &&Fault| {
        ["FastDelete", "SlowDelete", "Packed", "NoCompare", "NoFence", "Break", "Sync"]
            .iter()
            .any(|of| fault.as_str().starts_with(of))
    };
    let trees = |fault: &&Fault| several::RULES.contains(fault);
    let rules: Vec<&Fault> = Fault::ALL.iter().filter(|fault| !stores(fault) && !trees(fault)).collect();
    assert_eq!(rules, RULES.iter().collect::<Vec<_>>());
    let worlds = scenarios(false);
    for fault in RULES {
        assert!(worlds.iter().any(|world| world.catches.contains(fault)), "{}", fault.as_str());
    }
    let groves = several::groves(false);
    for fault in several::RULES {
        assert!(groves.iter().any(|grove| grove.catches.contains(fault)), "{}", fault.as_str());
    }
    assert!(reference::RULES.iter().all(|fault| several::RULES.contains(fault)));
}

#[test]
fn every_invariant_of_several_locks_holds_in_every_state() {
    for grove in several::small_groves() {
        let report = several::explore(&grove, Faults::NONE).unwrap();
        assert!(report.found.is_none(), "{}: {:#?}", grove.name, report.found);
        assert!(report.states > 100, "{}: only {} states", grove.name, report.states);
    }
}

#[test]
fn a_rule_of_several_locks_left_out_is_noticed() {
    for (fault, invariant) in [
        (Fault::IgnoreIntents, Invariant::Exclusion),
        (Fault::AcquireAncestorsLast, Invariant::IntentsStand),
        (Fault::NoInheritance, Invariant::DeadlockIsOne),
        (Fault::DeadlockNeedsEverySlot, Invariant::DeadlockIsOne),
        (Fault::DeadlockOverlooksUpgrades, Invariant::DeadlockIsOne),
        (Fault::DeadlockOverlooksQueues, Invariant::DeadlockIsOne),
        (Fault::VictimByOrder, Invariant::DeadlockIsOne),
    ] {
        let found: BTreeSet<Invariant> = several::small_groves()
            .iter()
            .filter(|grove| grove.catches.contains(&fault))
            .filter_map(|grove| several::explore(grove, Faults::only(fault)).unwrap().found)
            .map(|found| found.invariant)
            .collect();
        assert!(found.contains(&invariant), "{}: {found:?}", fault.as_str());
    }
}
