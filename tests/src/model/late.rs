//! Writes after a look from before the last write.

use std::sync::Arc;

use gitlock::lock::{Edit, LockState};

use super::{
    Violation,
    world::{Attempt, Rules, Step, Wish, World},
};

/// What was there before the last write, for those who looked then, where not all of what they compare has changed.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) store: Arc<LockState>,
    /// Whether the last write left the journal as it was, or else the record.
    pub(super) journal_stays: bool,
    /// The ticks of the write before, and of the last.
    pub(super) from: u16,
    pub(super) until: u16,
    /// The clients that have done something since, and so look at what is there now.
    pub(super) gone_on: u8,
}

impl Past {
    /// What the world is to whoever doesn't see these edits, which are just being made.
    pub(super) fn of(rules: &Rules<'_>, world: &World, made: &[Edit]) -> Option<Past> {
        let journals = made.iter().filter(|edit| matches!(edit, Edit::Journal { .. })).count();
        let journal_stays = journals == 0;
        // Of a journal and a record that both move none is what a late writer expects. Where they change as one, it
        // expects both of them; a record that stays while its journal moves is what a crash leaves.
        let one_stays = journal_stays || journals == made.len();
        (one_stays && (rules.scenario.ordered || !journal_stays)).then(|| Past {
            store: world.store.clone(),
            journal_stays,
            from: world.written,
            until: world.time,
            gone_on: 0,
        })
    }

    /// How many of these edits find what they expect, from the first on.
    fn expected(&self, edits: &[Edit]) -> usize {
        edits.iter().take_while(|edit| matches!(edit, Edit::Journal { .. }) == self.journal_stays).count()
    }
}

impl World {
    /// What a client may write that looked before the last write.
    pub(super) fn late_steps(&self, rules: &Rules<'_>, at: usize, steps: &mut Vec<Step>) {
        let Some(past) = self.past.as_ref().filter(|past| past.gone_on & (1 << at) == 0) else { return };
        let name = u8::try_from(at).unwrap_or(0);
        let stalled = self.time.saturating_sub(rules.scenario.stall);
        let oldest = past.from.max(self.clients[at].changed).max(rules.actor(at).from).max(stalled);
        for looked in oldest..=past.until {
            let wishes = self.wishes(rules, at, looked).into_iter().flatten();
            steps.extend(wishes.map(|wish| Step::ActLate(name, wish, self.time - looked)));
        }
    }

    /// A write after a look from before the last one. Returns whether it came to anything: else it has a conflict,
    /// which changes nothing but that it looks again.
    pub(super) fn act_late(
        &mut self,
        rules: &Rules<'_>,
        at: usize,
        wish: Wish,
        looked: u16,
    ) -> std::result::Result<bool, Violation> {
        let Some(past) = self.past.clone() else { return Ok(false) };
        let Some(attempt) = self.decide(rules, at, wish, looked, &past.store) else { return Ok(false) };
        let attempt = Attempt { late: true, ..attempt };
        let (all, expected) = (attempt.edits.len(), past.expected(&attempt.edits));
        if expected == all {
            self.apply(rules, at, &attempt, all)?;
            self.told(rules, at, wish, attempt.outcome);
            return Ok(true);
        }
        // Some of it is done where refs change one after another.
        if expected == 0 || !rules.scenario.ordered {
            return Ok(false);
        }
        self.apply(rules, at, &attempt, expected)?;
        self.clients[at].asked |= wish == Wish::Acquire && !attempt.closes();
        Ok(true)
    }
}
