//! What must hold in every state, and at every write.

use gitlock::lock::{Holder, Record, Waiter};

use super::{
    Invariant, Violation, hold,
    world::{Attempt, Health, Holders, Rules, Wish, World, bit, client_of, exclude, has},
};

/// How many milliseconds of waiting a step of priority is worth: what the design promises.
const STEP: i64 = 30_000;

/// In every state: of all who believe that they hold, an exclusive one is alone; and nothing
/// stands in the record for whoever was told that it is cancelled.
pub(super) fn in_state(rules: &Rules<'_>, world: &World) -> Result<(), Violation> {
    let mut believers = [false; super::MOST_CLIENTS];
    for at in 0..world.clients.len() {
        believers[at] = world.believes(rules, at);
        for other in (0..at).filter(|other| believers[at] && believers[*other]) {
            let apart = exclude(rules.actor(at).mode, rules.actor(other).mode);
            hold(!apart, Invariant::Exclusion, || format!("clients {other} and {at} both believe that they hold"))?;
        }
    }
    let Some(record) = world.record() else { return Ok(()) };
    let holders = record.holders.iter().filter(|holder| !has(world.ended, &holder.claim.id)).map(|h| &h.claim.id);
    for id in holders.chain(record.queue.iter().map(|waiter| &waiter.claim.id)) {
        hold(!has(world.clients[client_of(id)].cancelled, id), Invariant::NoGrantToTheGone, || {
            format!("{id} stands in the record after its cancel was confirmed")
        })?;
    }
    Ok(())
}

/// No id has two entries in the journal.
pub(super) fn ends_once(world: &World, holder: &Holder) -> Result<(), Violation> {
    let id = &holder.claim.id;
    hold(!has(world.ended, id), Invariant::EndedStaysEnded, || format!("the journal ends {id} a second time"))
}

/// At every write that was made in full.
pub(super) fn at_write(
    rules: &Rules<'_>,
    before: &World,
    after: &World,
    by: usize,
    attempt: &Attempt,
) -> Result<(), Violation> {
    let empty = Record::default();
    let (old, new) = (before.record().unwrap_or(&empty), after.record().unwrap_or(&empty));
    hold(after.record().is_none() || !new.holders.is_empty(), Invariant::RefMeansHeld, || {
        format!("the ref exists, and nobody holds: {} wait", new.queue.len())
    })?;
    record_excludes(new)?;
    let record = new;
    // Who looked before the journal told of an end leaves what ended in the record, or hands over to it. As long as the
    // tip names it, it has ended all the same.
    let finished = |holder: &Holder| attempt.late && after.store.journal.ended.contains(&holder.claim.id);
    let mut lasting = new.clone();
    lasting.holders.retain(|holder| !finished(holder));
    let new = &lasting;
    // Who looked before the journal was written knows nothing of tokens that it speaks of and that nobody was granted.
    let journalled = if attempt.late { 0 } else { before.store.journal.highest_token };
    tokens_grow(before.last_token.max(journalled), old, new)?;
    let write = Write { rules, before, after, old, new, by, attempt };
    write.ended_stays_ended()?;
    write.no_lost_waiter()?;
    write.no_grant_to_the_gone()?;
    write.served_in_order()?;
    // Who closed comes back to hand over.
    let Some(head) = new.queue.first().filter(|_| !attempt.closes()) else { return Ok(()) };
    let fits = !record.holders.iter().any(|holder| exclude(holder.claim.mode, head.claim.mode));
    hold(!fits, Invariant::NobodyWaitsForNothing, || format!("{} waits, and nothing is in its way", head.claim.id))
}

fn record_excludes(record: &Record) -> Result<(), Violation> {
    for (at, holder) in record.holders.iter().enumerate() {
        for other in &record.holders[..at] {
            hold(!exclude(holder.claim.mode, other.claim.mode), Invariant::Exclusion, || {
                format!("{} and {} stand in the record side by side", other.claim.id, holder.claim.id)
            })?;
        }
    }
    Ok(())
}

fn tokens_grow(mut highest: u64, old: &Record, new: &Record) -> Result<(), Violation> {
    for holder in &new.holders {
        let id = &holder.claim.id;
        let token = holder.token.unwrap_or(0);
        if let Some(known) = old.holder(id) {
            hold(known.token == holder.token, Invariant::TokensGrow, || format!("the token of {id} changed"))?;
        } else {
            hold(token > highest, Invariant::TokensGrow, || format!("{id} has token {token} after {highest}"))?;
            highest = token;
        }
    }
    Ok(())
}

/// One write, with what was there before.
struct Write<'a> {
    rules: &'a Rules<'a>,
    before: &'a World,
    after: &'a World,
    old: &'a Record,
    new: &'a Record,
    by: usize,
    attempt: &'a Attempt,
}

impl Write<'_> {
    /// When the writer looked, in true time.
    fn looked_at(&self) -> u64 {
        self.rules.millis(self.attempt.looked)
    }

    fn was_dead(&self, id: &str) -> bool {
        self.attempt.dead & (1 << client_of(id)) != 0
    }

    /// Whether a waiter's patience had ended before the writer looked.
    fn was_late(&self, waiter: &Waiter) -> bool {
        let until = self.before.clients[client_of(&waiter.claim.id)].until;
        waiter.until.is_some() && until.is_none_or(|until| until <= self.looked_at())
    }

    fn ended_stays_ended(&self) -> Result<(), Violation> {
        for holder in &self.new.holders {
            let id = &holder.claim.id;
            hold(!has(self.after.ended, id), Invariant::EndedStaysEnded, || format!("{id} has ended and holds again"))?;
            let Some(known) = self.old.holder(id) else { continue };
            hold(!known.is_closed() || holder.is_closed(), Invariant::EndedStaysEnded, || {
                format!("the lease of {id} was closed and goes on")
            })?;
            let own_boot = self.rules.actor(self.by).boot == known.end.as_ref().map_or("", |end| &*end.boot);
            let over = own_boot && self.rules.true_end(known) <= self.looked_at();
            hold(!over || known.end == holder.end, Invariant::EndedStaysEnded, || {
                format!("the lease of {id} was over and goes on")
            })?;
        }
        Ok(())
    }

    fn no_lost_waiter(&self) -> Result<(), Violation> {
        for waiter in &self.old.queue {
            let id = &waiter.claim.id;
            let there = self.new.position(id).is_some() || self.new.holder(id).is_some();
            let own = self.attempt.wish == Wish::Cancel && client_of(id) == self.by;
            let why = there
                || own
                || self.was_dead(id)
                || self.was_late(waiter)
                || has(self.after.ended, id)
                || dead_queue(self.rules, self.before, self.looked_at());
            hold(why, Invariant::NoLostWaiter, || format!("{id} is gone from the queue"))?;
        }
        Ok(())
    }

    fn no_grant_to_the_gone(&self) -> Result<(), Violation> {
        for waiter in &self.old.queue {
            let id = &waiter.claim.id;
            if self.new.holder(id).is_none() {
                continue;
            }
            hold(!self.was_dead(id), Invariant::NoGrantToTheGone, || format!("{id} was dead and was granted"))?;
            hold(!self.was_late(waiter), Invariant::NoGrantToTheGone, || format!("{id} had left and was granted"))?;
            let alive = client_of(id) == self.by || !dead_queue(self.rules, self.before, self.looked_at());
            hold(alive, Invariant::NoGrantToTheGone, || {
                format!("{id} was granted, and nobody alive can have been in that queue")
            })?;
        }
        Ok(())
    }

    fn served_in_order(&self) -> Result<(), Violation> {
        let wrong = |what: String| hold(false, Invariant::ServedInOrder, || what);
        let worth = |since: u64, priority: i32| since.cast_signed() - STEP * i64::from(priority);
        let place = |waiter: &Waiter| worth(waiter.since, waiter.priority);
        for holder in self.new.holders.iter().filter(|holder| self.old.holder(&holder.claim.id).is_none()) {
            let id = &holder.claim.id;
            let position = self.old.position(id);
            // Who wasn't in the queue would have come to it with its old place, or now, and last.
            let latest = self.old.queue.iter().map(|waiter| waiter.since).max().unwrap_or(0);
            let since = self.before.clients[client_of(id)].since().unwrap_or(holder.acquired_at.max(latest));
            let newcomer = worth(since, self.rules.actor(client_of(id)).priority);
            for (at, waiter) in self.old.queue.iter().enumerate() {
                let first = position.map_or(place(waiter) <= newcomer, |position| at < position);
                if first && self.new.position(&waiter.claim.id).is_some() {
                    return wrong(format!("{id} overtakes {}", waiter.claim.id));
                }
            }
        }
        for pair in self.new.queue.windows(2) {
            if place(&pair[0]) > place(&pair[1]) {
                return wrong(format!("{} stands before {}", pair[0].claim.id, pair[1].claim.id));
            }
        }
        for waiter in &self.new.queue {
            let moved = |old: &Waiter| bit(&old.claim.id) == bit(&waiter.claim.id) && old.rank != waiter.rank;
            if self.old.queue.iter().any(moved) {
                return wrong(format!("the rank of {} changed", waiter.claim.id));
            }
        }
        Ok(())
    }
}

/// Whether every lease of this record has been over for so long that a live waiter, had there
/// been one, would have ended it.
pub(super) fn dead_queue(rules: &Rules<'_>, world: &World, millis: u64) -> bool {
    let after = 2 * rules.scenario.window + rules.scenario.skew + rules.scenario.tick;
    let holders = world.store.holders();
    !holders.is_empty() && holders.iter().all(|holder| rules.true_end(holder) + after <= millis)
}

/// How long, in milliseconds of true time, this holder may yet keep others waiting.
pub(super) fn keeps_others(rules: &Rules<'_>, world: &World, id: &str, end: u64) -> u64 {
    let client = &world.clients[client_of(id)];
    let present = bit(id) % 8 == client.attempt && client.phase != super::world::Phase::Away;
    match client.health {
        // It will claim what it is granted, and release what it holds.
        Health::Live if present => 0,
        Health::Dead if rules.actor(client_of(id)).dies => 0,
        _ if has(world.ended, id) => 0,
        _ => end.saturating_sub(rules.millis(world.time)),
    }
}
