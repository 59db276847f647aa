//! What may stand beside what: Gray's matrix, inheritance, and slots.

use super::{
    fault::{Fault, Faults},
    mode::Mode,
    record::{Claim, Record},
};

/// Whether who holds `held` keeps `wanted` out.
///
/// An owner's own intents never do, nor its own lock an intent that the lock covers: it has the
/// whole tree already. Slots of one kind exclude each other only by their number.
pub fn blocks(held: &Claim, wanted: &Claim, faults: Faults) -> bool {
    if held.owner == wanted.owner && (held.mode.is_intent() || inherited(held, wanted)) {
        return false;
    }
    if held.slots.is_some() && held.slots == wanted.slots {
        return false;
    }
    let seeded = (wanted.mode, held.mode) == (Mode::Exclusive, Mode::Shared)
        && faults.has(Fault::ExclusiveBesideShared)
        || held.mode.is_intent() && faults.has(Fault::IgnoreIntents);
    !held.mode.compatible(wanted.mode) && !seeded
}

/// Whether `wanted` is an intent of the same owner that `held` covers.
fn inherited(held: &Claim, wanted: &Claim) -> bool {
    wanted.mode.is_intent() && held.owner == wanted.owner && held.mode.covers(wanted.mode)
}

/// Whether this claim may be granted beside all that hold, but for the tenure that it turns into something else.
pub fn fits(record: &Record, wanted: &Claim, faults: Faults) -> bool {
    let mut others =
        record.holders.iter().map(|holder| &holder.claim).filter(|held| Some(&held.id) != wanted.upgrades.as_ref());
    others.all(|held| !blocks(held, wanted, faults))
        && (wanted.slots.is_none() || free_slot(record, wanted).is_some() || faults.has(Fault::UncountedSlots))
}

/// Whether the claim's owner has on this name already what the claim asks for, so that it needn't queue for it.
///
/// Whoever queues here waits for that owner, who must not wait for them in turn.
pub fn inherits(record: &Record, wanted: &Claim) -> bool {
    record.holders.iter().any(|holder| inherited(&holder.claim, wanted))
}

/// The lowest slot that nobody has, if the claim takes one and one is free.
pub fn free_slot(record: &Record, wanted: &Claim) -> Option<u32> {
    (0..wanted.slots?).find(|slot| record.holders.iter().all(|holder| holder.slot != Some(*slot)))
}

/// How many slots others say that the lock has, if that isn't what the claim says.
pub fn other_slots(record: &Record, wanted: &Claim) -> Option<u32> {
    let own = wanted.slots?;
    let holders = record.holders.iter().map(|holder| &holder.claim);
    holders.chain(record.queue.iter().map(|waiter| &waiter.claim)).filter_map(|other| other.slots).find(|n| *n != own)
}
