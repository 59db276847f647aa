//! The worlds of several locks: each small enough to be explored to its end.

use gitlock::{Mode, lock::fault::Fault};

use super::{Grove, Member, Want};

const fn write(names: &'static [&'static str]) -> Want {
    Want { names, mode: Mode::Exclusive, slots: None }
}

const fn read(names: &'static [&'static str]) -> Want {
    Want { names, mode: Mode::Shared, slots: None }
}

const fn slot(names: &'static [&'static str], slots: u32) -> Want {
    Want { names, mode: Mode::Exclusive, slots: Some(slots) }
}

fn member(owner: &'static str, wants: &[Want]) -> Member {
    Member {
        owner,
        wants: wants.to_vec(),
        converts: 0,
        extends: 0,
        cancels: false,
        tries: false,
        dies: false,
        stops: false,
        after: None,
    }
}

fn grove(name: &'static str, names: &'static [&'static str], members: &[Member], catches: &'static [Fault]) -> Grove {
    Grove { name, names, members: members.to_vec(), ticks: 0, crashes: 0, unknowns: 0, catches }
}

/// Every world, with the longer time and the further failures of `full` or without.
pub fn groves(full: bool) -> Vec<Grove> {
    let more = u16::from(full);
    vec![
        tree(2 + more, 1 + u8::from(full)),
        deep_tree(2 + 2 * more, u8::from(full)),
        inheritance(1 + more),
        sets(1 + more, u8::from(full)),
        sets_in_a_tree(1 + more),
        slots(1 + more),
        free_slot(more),
        philosophers(1 + more),
        upgraders(1 + more),
        upgrade_and_another(1 + more),
        behind_a_writer(1 + more),
        leases_in_a_tree(6 + 2 * more),
    ]
}

/// A few worlds that are explored in a moment.
pub fn small_groves() -> Vec<Grove> {
    vec![tree(0, 0), inheritance(0), free_slot(0), philosophers(0), upgrade_and_another(0), behind_a_writer(0)]
}

const TREE: &[&str] = &["d", "d/a", "d/b"];
const FLAT: &[&str] = &["e", "f", "g"];

/// Three who want the whole, a part, and to read the whole.
fn tree(ticks: u16, unknowns: u8) -> Grove {
    let members = [
        Member { dies: true, stops: true, ..member("p", &[write(&["d/a"])]) },
        Member { cancels: true, dies: true, ..member("q", &[write(&["d"]), read(&["d/b"])]) },
        Member { dies: true, ..member("r", &[read(&["d"])]) },
    ];
    let catches = &[Fault::IgnoreIntents, Fault::ReleaseAncestorsFirst, Fault::AcquireAncestorsLast];
    Grove { ticks, crashes: 1, unknowns, ..grove("a tree", TREE, &members, catches) }
}

/// Three levels.
fn deep_tree(ticks: u16, unknowns: u8) -> Grove {
    let members = [
        Member { extends: 1, dies: true, ..member("p", &[write(&["d/a/x"])]) },
        Member { stops: true, cancels: true, ..member("q", &[read(&["d/a"])]) },
        member("r", &[write(&["d"])]),
    ];
    Grove { ticks, crashes: 1, unknowns, ..grove("a deep tree", &["d", "d/a", "d/a/x"], &members, &[]) }
}

/// Two processes of one owner, of which one holds the whole and the other takes a part of it.
fn inheritance(ticks: u16) -> Grove {
    let members = [
        Member { dies: true, ..member("p", &[write(&["d"])]) },
        Member { dies: true, after: Some(0), ..member("p", &[write(&["d/a"])]) },
        Member { dies: true, ..member("q", &[write(&["d/a"]), read(&["d"])]) },
    ];
    Grove { ticks, crashes: 1, ..grove("inheritance", TREE, &members, &[Fault::NoInheritance]) }
}

/// Three sets, of which any two have a name in common.
fn sets(ticks: u16, unknowns: u8) -> Grove {
    let members = [
        Member { dies: true, ..member("p", &[write(&["f", "e"])]) },
        Member { cancels: true, ..member("q", &[write(&["g", "f"])]) },
        Member { stops: true, ..member("r", &[read(&["e", "g"])]) },
        Member { tries: true, ..member("s", &[write(&["e", "g"])]) },
    ];
    Grove { ticks, crashes: 1, unknowns, ..grove("sets", FLAT, &members, &[Fault::KeepHalfASet]) }
}

/// A set of parts of one tree.
fn sets_in_a_tree(ticks: u16) -> Grove {
    let members = [
        Member { dies: true, ..member("p", &[write(&["d/b", "d/a"])]) },
        Member { converts: 1, ..member("q", &[read(&["d"])]) },
        Member { cancels: true, ..member("r", &[read(&["d/b"])]) },
    ];
    Grove { ticks, crashes: 1, ..grove("sets in a tree", TREE, &members, &[Fault::UpgradeBesideOthers]) }
}

/// Two slots for three, and one who counts others.
fn slots(ticks: u16) -> Grove {
    let one = &[slot(&["p"], 2)];
    let members = [
        Member { dies: true, extends: 1, ..member("p", one) },
        Member { stops: true, ..member("q", one) },
        Member { cancels: true, ..member("r", one) },
        member("s", &[write(&["p"])]),
        member("t", &[slot(&["p"], 3)]),
    ];
    Grove { ticks, crashes: 1, ..grove("slots", &["p"], &members, &[Fault::UncountedSlots]) }
}

/// Of two slots one comes free whatever the others do.
fn free_slot(ticks: u16) -> Grove {
    let members = [
        member("p", &[slot(&["p"], 2), write(&["e"])]),
        Member { cancels: true, ..member("q", &[slot(&["p"], 2)]) },
        member("r", &[write(&["e"]), slot(&["p"], 2)]),
    ];
    Grove { ticks, ..grove("a free slot", &["e", "p"], &members, &[Fault::DeadlockNeedsEverySlot]) }
}

/// Each takes its left one, then its right one.
fn philosophers(ticks: u16) -> Grove {
    let members = [
        Member { dies: true, ..member("p", &[write(&["e"]), write(&["f"])]) },
        Member { cancels: true, ..member("q", &[write(&["f"]), write(&["g"])]) },
        Member { stops: true, ..member("r", &[write(&["g"]), write(&["e"])]) },
    ];
    Grove { ticks, crashes: 1, ..grove("philosophers", FLAT, &members, &[Fault::VictimByOrder]) }
}

/// Two readers of a part who want to write it, beside one of the whole.
fn upgraders(ticks: u16) -> Grove {
    let members = [
        Member { converts: 1, dies: true, ..member("p", &[read(&["d/a"])]) },
        Member { converts: 1, cancels: true, ..member("q", &[read(&["d/a"])]) },
        Member { converts: 1, ..member("r", &[read(&["d"])]) },
    ];
    let catches = &[Fault::UpgradersHang, Fault::UpgradeBesideOthers];
    Grove { ticks, crashes: 1, ..grove("upgraders", &["d", "d/a"], &members, catches) }
}

/// One waits to upgrade, the other for what that one has besides.
fn upgrade_and_another(ticks: u16) -> Grove {
    let members = [
        Member { converts: 1, ..member("p", &[read(&["e"]), write(&["f"])]) },
        Member { converts: 1, dies: true, cancels: true, ..member("q", &[read(&["e"]), write(&["f"])]) },
    ];
    let catches = &[Fault::DeadlockOverlooksUpgrades, Fault::UpgradersHang];
    Grove { ticks, crashes: 1, ..grove("an upgrade and another", &["e", "f"], &members, catches) }
}

/// A reader behind a writer that waits for a reader that waits for the first.
fn behind_a_writer(ticks: u16) -> Grove {
    let members = [
        member("p", &[write(&["f"]), read(&["e"])]),
        Member { cancels: true, dies: true, ..member("q", &[write(&["e"])]) },
        member("r", &[read(&["e"]), write(&["f"])]),
    ];
    Grove { ticks, crashes: 1, ..grove("behind a writer", &["e", "f"], &members, &[Fault::DeadlockOverlooksQueues]) }
}

/// Leases that run out while others wait.
fn leases_in_a_tree(ticks: u16) -> Grove {
    let members = [
        Member { extends: 1, stops: true, ..member("p", &[write(&["d/a"])]) },
        Member { stops: true, ..member("q", &[write(&["d"])]) },
    ];
    Grove { ticks, crashes: 1, unknowns: 1, ..grove("leases in a tree", &["d", "d/a"], &members, &[]) }
}
