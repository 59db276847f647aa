//! A tenure turned into one of another mode: upgrades and downgrades.

use super::{
    decide::{Event, Outcome, Place, Refusal, Tenure, Wait},
    expiry::{Fact, is_late},
    fault::Fault,
    fit::{blocks, fits},
    mode::Mode,
    queue,
    record::{Claim, MAX_NUMBER, MAX_WAITERS, Waiter},
    work::Work,
};

/// What is asked of a tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Which tenure.
    pub tenure: Tenure,
    /// What it shall be.
    pub mode: Mode,
    /// The id of the wait for it.
    pub id: String,
    /// How long it may queue; `None`: not at all.
    pub wait: Option<Wait>,
    /// Whether the wait stands in the record already, or may have.
    pub asked_before: bool,
}

impl Work<'_> {
    /// Gives a tenure another mode. What it covers already it is at once, and then it waits for no more.
    pub(super) fn convert(&mut self, asked: &Conversion) -> Outcome {
        let at = match self.find(&asked.tenure) {
            Ok(at) => at,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let held = self.record.holders[at].claim.clone();
        if let Some(theirs) = held.slots {
            return Outcome::Refused(Refusal::SlotsDiffer { theirs });
        }
        if held.mode.covers(asked.mode) {
            self.drop_waiters(|waiter| {
                (waiter.claim.upgrades.as_ref() == Some(&held.id)).then_some("not wanted any more")
            });
            if held.mode != asked.mode {
                self.turn(at, asked.mode);
            }
            self.hand_over();
            // Nobody else's tenure has ended by this.
            let now = self.record.holder(&held.id).cloned();
            return now.map_or(Outcome::Refused(Refusal::NotHeld), Outcome::Converted);
        }
        if let Some(ahead) = self.record.position(&asked.id) {
            let Waiter { rank, since, .. } = self.record.queue[ahead];
            return Outcome::Queued { ahead, place: Place { rank, since } };
        }
        if asked.asked_before {
            return Outcome::Gone;
        }
        let tenure = held.id.clone();
        let wanted = Claim { id: asked.id.clone(), mode: asked.mode, upgrades: Some(tenure.clone()), ..held.clone() };
        if self.highest_token >= MAX_NUMBER && !asked.mode.is_intent() {
            return Outcome::Refused(Refusal::TokensExhausted);
        }
        let faults = self.context.policy.faults;
        if fits(&self.record, &wanted, faults) || faults.has(Fault::UpgradeBesideOthers) {
            self.turn(at, asked.mode);
            return Outcome::Converted(self.record.holders[at].clone());
        }
        let Some(wait) = &asked.wait else { return Outcome::Refused(self.held_against(&wanted)) };
        if let Some(rival) = self.rival(&held, &wanted).filter(|_| !faults.has(Fault::UpgradersHang)) {
            return Outcome::Refused(Refusal::Deadlock(Box::new(rival)));
        }
        if self.record.queue.len() >= MAX_WAITERS {
            return Outcome::Refused(Refusal::QueueFull);
        }
        let (now, (until, end)) = (self.context.now, wait.until.clone().unzip());
        let since = queue::arrival(&self.record, now.wall);
        let waiter = Waiter { claim: wanted, priority: 0, rank: queue::rank(since, 0), since, until, end };
        if is_late(&waiter, now, Fact::default(), self.context.policy) {
            return Outcome::Refused(self.held_against(&waiter.claim));
        }
        let (place, id) = (Place { rank: waiter.rank, since }, asked.id.clone());
        let ahead = queue::insert(&mut self.record.queue, waiter);
        self.changed = true;
        self.events.push(Event::Queued { lock: self.lock, id, ahead });
        Outcome::Queued { ahead, place }
    }

    /// Who waits to upgrade already and would wait for this one, which would wait for it.
    fn rival(&self, held: &Claim, wanted: &Claim) -> Option<super::record::Holder> {
        let faults = self.context.policy.faults;
        self.record.queue.iter().find_map(|waiter| {
            let theirs = self.record.holder(waiter.claim.upgrades.as_ref()?)?;
            let mutual = blocks(held, &waiter.claim, faults) && blocks(&theirs.claim, wanted, faults);
            mutual.then(|| theirs.clone())
        })
    }

    /// Makes the tenure at this index one of this mode. An upgraded one has a token above all that
    /// were given while it was shared: what it protects has seen theirs.
    pub(super) fn turn(&mut self, at: usize, mode: Mode) {
        let up = !self.record.holders[at].claim.mode.covers(mode);
        let token = (up && !mode.is_intent()).then(|| self.next_token());
        let holder = &mut self.record.holders[at];
        holder.claim.mode = mode;
        holder.token = token.or(holder.token);
        let event = Event::Converted { lock: self.lock, id: holder.claim.id.clone(), mode, token: holder.token };
        self.events.push(event);
        self.changed = true;
    }

    /// Grants the upgrade that is first in the queue, if nobody is in its way. `None`: the first isn't one.
    pub(super) fn hand_over_upgrade(&mut self) -> Option<bool> {
        let first = self.record.queue.first()?;
        let tenure = first.claim.upgrades.as_ref()?;
        let Some(at) = self.record.holders.iter().position(|holder| holder.claim.id == *tenure) else {
            let id = first.claim.id.clone();
            self.drop_waiters(|waiter| (waiter.claim.id == id).then_some("its tenure has ended"));
            return Some(true);
        };
        let mode = first.claim.mode;
        if !fits(&self.record, &first.claim, self.context.policy.faults) {
            return Some(false);
        }
        self.record.queue.remove(0);
        self.turn(at, mode);
        Some(true)
    }
}
