//! What must hold in every state, after every edit, and at every write.

use gitlock::lock::{Claim, Edit, LockState, Mode, Record};

use super::world::{Forest, TICK, World, client_of, end_of, id_of, record};
use crate::model::{Invariant, Violation, hold, world::Health};

/// Gray's matrix: the model's own, not that of the rules.
fn beside(a: Mode, b: Mode) -> bool {
    use Mode::{Exclusive, IntentExclusive, IntentShared, Shared};
    match (a, b) {
        (Exclusive, _) | (_, Exclusive) => false,
        (IntentShared, _) | (_, IntentShared) => true,
        (IntentExclusive, IntentExclusive) | (Shared, Shared) => true,
        (IntentExclusive, Shared) | (Shared, IntentExclusive) => false,
    }
}

/// Whether these two may stand in one record: an owner's own intents are in nobody's way of its own.
fn together(a: &Claim, b: &Claim) -> bool {
    let own = a.owner == b.owner && (a.mode.is_intent() || b.mode.is_intent());
    own || (a.slots.is_some() && a.slots == b.slots) || beside(a.mode, b.mode)
}

/// In every state: who believes that it holds has all of it, and nobody else has what excludes that.
pub(super) fn in_state(forest: &Forest<'_>, world: &World) -> Result<(), Violation> {
    let mut believers: Vec<(usize, &str, &str, Mode, Option<u32>)> = Vec::new();
    for (at, client) in world.clients.iter().enumerate() {
        for (_, tenancy) in client.held.iter().enumerate().filter(|(index, _)| world.believes(forest, at, *index)) {
            let (id, member) = (id_of(at, tenancy.attempt), forest.member(at));
            let first = forest.parts(at, tenancy.want).iter().find(|(_, part)| !part.mode.is_intent());
            let first = first.map_or(&0, |(lock, _)| lock);
            for (lock, part) in forest.parts(at, tenancy.want) {
                let wanted = if part.mode.is_intent() { tenancy.mode.intent() } else { tenancy.mode };
                let state = &world.states[*lock];
                let there = record(state).holder(&id).filter(|_| !state.journal.ended.contains(&id));
                let told = there.and_then(|held| held.token).filter(|_| client.doing.is_none());
                let known = lock != first || told.is_none_or(|token| token == tenancy.token);
                hold(known, Invariant::TokensGrow, || {
                    format!("{id} believes that it has the token {}, and its record says {told:?}", tenancy.token)
                })?;
                hold(there.is_some_and(|held| held.claim.mode.covers(wanted)), Invariant::WholeOrNothing, || {
                    format!("{id} believes that it holds {} {wanted}, and its record doesn't say so", state.name)
                })?;
            }
            let want = &member.wants[usize::from(tenancy.want)];
            for name in want.names {
                for (other, owner, held, mode, slots) in &believers {
                    let above = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
                    let path = (above(name, held) || above(held, name)) && *owner != member.owner;
                    let same = name == held && (*other != at || want.slots.is_none());
                    let apart = tenancy.mode == Mode::Exclusive || *mode == Mode::Exclusive;
                    let slotted = name == held && want.slots.is_some() && *slots == want.slots;
                    hold(!((path || same) && apart && !slotted), Invariant::Exclusion, || {
                        format!("clients {other} and {at} both believe that they hold {held} and {name}")
                    })?;
                }
                let beside = believers.iter().filter(|(_, _, held, ..)| held == name).count();
                hold(want.slots.is_none_or(|slots| beside < slots as usize), Invariant::Exclusion, || {
                    format!("{} believe that they hold a slot of {name}", beside + 1)
                })?;
            }
            believers.extend(want.names.iter().map(|name| (at, member.owner, *name, tenancy.mode, want.slots)));
        }
        for state in &world.states {
            let gone = client.cancelled.iter().find(|id| {
                let record = record(state);
                record.knows(id) && !state.journal.ended.contains(id)
            });
            hold(gone.is_none(), Invariant::NoGrantToTheGone, || {
                format!("{gone:?} stands in {} after its cancel was confirmed", state.name)
            })?;
        }
    }
    Ok(())
}

/// After each edit of a write, the last one or not.
pub(super) fn at_edit(
    forest: &Forest<'_>,
    world: &mut World,
    lock: usize,
    before: &LockState,
    edit: &Edit,
) -> Result<(), Violation> {
    if matches!(edit, Edit::Journal { .. }) {
        return Ok(());
    }
    let (old, state) = (record(before), world.states[lock].clone());
    let new = record(&state);
    stands(new)?;
    hold(!matches!(edit, Edit::Put { .. }) || !new.holders.is_empty(), Invariant::RefMeansHeld, || {
        format!("{} exists, and nobody holds it", state.name)
    })?;
    for holder in &new.holders {
        let id = &holder.claim.id;
        let known = old.holder(id);
        let raised = known.is_none_or(|known| !known.claim.mode.covers(holder.claim.mode));
        let highest = world.tokens[lock];
        match holder.token {
            Some(token) if raised || known.is_some_and(|known| known.token != holder.token) => {
                hold(token > highest, Invariant::TokensGrow, || format!("{id} has token {token} after {highest}"))?;
                world.tokens[lock] = token;
            }
            _ => {}
        }
        hold(!state.journal.ended.contains(id), Invariant::EndedStaysEnded, || format!("{id} has ended and holds"))?;
        // What was granted from the queue isn't claimed yet: nobody works under it.
        if known.is_none() && old.position(id).is_none() {
            for above in state.name.ancestors() {
                let at = forest.names.iter().position(|name| *name == above).unwrap_or(0);
                let intent = record(&world.states[at]).holder(id);
                hold(intent.is_some(), Invariant::IntentsStand, || {
                    format!("{id} stands in {} before its intent does in {above}", state.name)
                })?;
            }
        }
    }
    let upgraders = new.queue.iter().filter(|waiter| {
        let tenure = waiter.claim.upgrades.as_ref().and_then(|tenure| new.holder(tenure));
        waiter.claim.mode == Mode::Exclusive && tenure.is_some_and(|held| held.claim.mode == Mode::Shared)
    });
    hold(upgraders.count() < 2, Invariant::DeadlockIsOne, || {
        format!("two wait to upgrade {}, each for the other", state.name)
    })?;
    let now = forest.now(world).boot;
    for gone in old.holders.iter().filter(|held| end_of(held) > now) {
        let id = &gone.claim.id;
        let left = new.holder(id).map(|holder| holder.claim.mode);
        if world.clients[client_of(id)].health == Health::Dead || left == Some(gone.claim.mode) {
            continue;
        }
        for (below, name) in world.states.iter().zip(&forest.names) {
            if !name.ancestors().any(|above| above == state.name) || below.journal.ended.contains(id) {
                continue;
            }
            let held = record(below).holder(id).filter(|held| end_of(held) > now);
            let unguarded = held.is_some_and(|held| left.is_none_or(|left| !left.covers(held.claim.mode.intent())));
            hold(!unguarded, Invariant::IntentsStand, || {
                format!("the intent of {id} on {} goes before what it holds at {name}", state.name)
            })?;
        }
    }
    Ok(())
}

/// At every write that was made in full.
pub(super) fn at_write(world: &World, locks: &[usize]) -> Result<(), Violation> {
    for lock in locks {
        let (state, record) = (&world.states[*lock], record(&world.states[*lock]));
        let Some(head) = record.queue.first() else { continue };
        let others = record.holders.iter().filter(|held| Some(&held.claim.id) != head.claim.upgrades.as_ref());
        let slots = record.holders.iter().filter(|held| held.claim.slots.is_some()).count();
        let fits = others.map(|held| &held.claim).all(|held| together(held, &head.claim))
            && head.claim.slots.is_none_or(|all| slots < all as usize);
        hold(!fits, Invariant::NobodyWaitsForNothing, || {
            format!("{} waits for {}, and nothing is in its way", head.claim.id, state.name)
        })?;
    }
    Ok(())
}

/// No two in a record that exclude each other.
fn stands(record: &Record) -> Result<(), Violation> {
    for (at, holder) in record.holders.iter().enumerate() {
        for other in &record.holders[..at] {
            let (a, b) = (&other.claim, &holder.claim);
            hold(together(a, b), Invariant::Exclusion, || {
                format!("{} ({}) and {} ({}) stand side by side", a.id, a.mode, b.id, b.mode)
            })?;
            let numbered = a.slots.is_none() || b.slots.is_none() || other.slot != holder.slot;
            hold(numbered, Invariant::Exclusion, || format!("{} and {} have the same slot", a.id, b.id))?;
        }
        let numbered = holder.claim.slots.is_none_or(|slots| holder.slot.is_some_and(|slot| slot < slots));
        hold(numbered, Invariant::Exclusion, || format!("{} has the slot {:?}", holder.claim.id, holder.slot))?;
    }
    Ok(())
}

/// How long a lease may yet last, in ticks.
pub(super) fn longest(forest: &Forest<'_>, world: &World) -> u64 {
    let now = forest.now(world).boot;
    let holders = world.states.iter().flat_map(|state| &record(state).holders);
    holders.map(|holder| end_of(holder).saturating_sub(now)).max().unwrap_or(0).div_ceil(TICK)
}
