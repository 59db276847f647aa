//! Making a lock's record agree with another repository's: what [`super::merge`] found has to be done.

use super::{
    decide::{Cause, Ended, Outcome},
    fault::Fault,
    merge::{origin, standing},
    mode::Mode,
    record::{BootTime, Holder, MAX_NUMBER, Record},
    work::Work,
};

/// What is to be done in one lock of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Who has to hold, and how, for this to be done.
    pub seen: Vec<(String, Mode)>,
    /// Tenures to tell of in the journal that this place has never heard of.
    pub append: Vec<Ended>,
    /// Tenures to end: why, and in whose words.
    pub end: Vec<(String, Cause, Option<String>)>,
    /// Tenures to write as they are given, in the place of what is there of them.
    pub adopt: Vec<Adopted>,
    /// Tenures that live, whatever this place's clock says: their home is somewhere else.
    pub alive: Vec<String>,
}

/// A tenure of another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// As it is to be written.
    pub holder: Holder,
    /// How long its lease lasts from now on, in milliseconds, if its own clocks say nothing here.
    pub left: u64,
}

impl Reconciliation {
    /// Nothing is to be done with this record.
    pub fn of(record: &Record) -> Reconciliation {
        Reconciliation { seen: standing(record), ..Reconciliation::default() }
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.append.is_empty() && self.end.is_empty() && self.adopt.is_empty()
    }

    /// Tenures that mustn't be ended for what this place knows of them.
    pub(super) fn vouched(&self) -> impl Iterator<Item = &str> {
        self.alive.iter().chain(self.adopt.iter().map(|adopted| &adopted.holder.claim.id)).map(String::as_str)
    }
}

impl Work<'_> {
    pub(super) fn reconcile(&mut self, wanted: &Reconciliation) -> Outcome {
        if standing(&self.record) != wanted.seen && !self.fault(Fault::SyncUnseen) {
            return Outcome::Gone;
        }
        for ended in &wanted.append {
            let token = ended.holder.as_ref().and_then(|holder| holder.token).unwrap_or(0).min(MAX_NUMBER);
            self.highest_token = self.highest_token.max(token);
            self.tell(ended.clone());
        }
        for (id, cause, reason) in &wanted.end {
            if let Some(at) = self.record.holders.iter().position(|holder| holder.claim.id == *id) {
                self.end(at, *cause, reason.clone());
            }
        }
        for Adopted { holder, left } in &wanted.adopt {
            self.adopt(holder.clone(), *left);
        }
        self.record.sort();
        self.hand_over();
        Outcome::Reconciled
    }

    fn adopt(&mut self, mut holder: Holder, left: u64) {
        let now = self.context.now;
        let id = holder.claim.id.clone();
        if self.calls_ended(&id) && !self.fault(Fault::SyncWithoutGoesOn) {
            // Else whoever reads the journal's tip would take it for what a crash left.
            let why = format!("{id}, which {} holds", holder.claim.owner);
            let note = Ended { holder: None, cause: Cause::GoesOn, at: now.wall, reason: Some(why), highest_token: 0 };
            self.tell(note);
        }
        let known = self.record.holders.iter().position(|other| other.claim.id == id);
        let foreign = holder.end.as_ref().is_none_or(|end| *end.boot != *now.boot_id);
        if origin(&holder).is_some() && foreign {
            let at = now.boot.saturating_add(left).min(MAX_NUMBER);
            holder.end = Some(BootTime { boot: now.boot_id.to_string(), at });
        }
        self.highest_token = self.highest_token.max(holder.token.unwrap_or(0));
        self.changed = true;
        match known {
            Some(at) => self.record.holders[at] = holder,
            None => self.record.holders.push(holder),
        }
    }
}
