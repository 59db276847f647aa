//! What a decision means for refs: which ones change to what, and what is known of them then.

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    journal::{self, Actor, Batch},
    lock::{Decision, Edit, Held, codec},
    store::{NewValue, Object, Oid, Parent, RefEdit},
};

use super::{
    commit_loop::CommitLoop,
    snapshot::{JournalAt, Snapshot},
};

/// The refs to change, and what that leaves.
pub(super) struct Plan<'a> {
    pub(super) edits: Vec<RefEdit>,
    /// Which edits are of journals, of which lock, what they add, and how long the journal then is.
    journals: Vec<(usize, usize, Batch<'a>, u64)>,
    pub(super) superseded: Vec<Oid>,
    /// The locks whose records held no token, so that only the journal knows the highest.
    pub(super) created: Vec<usize>,
}

impl Plan<'_> {
    /// What is known once the edits are made.
    pub(super) fn settled(
        &self,
        mut known: Vec<Snapshot>,
        values: &[Option<Oid>],
        decision: &Decision,
    ) -> Vec<Snapshot> {
        for &(at, lock, batch, depth) in &self.journals {
            let after = &mut known[lock];
            let tip = &mut after.journal.tip;
            tip.journal.ended = batch.ids();
            let highest = batch.entries.iter().map(|entry| entry.highest_token).max().unwrap_or(0);
            tip.journal.highest_token = tip.journal.highest_token.max(highest);
            tip.depth = depth;
            (after.journal.id, after.journal.usable) = (values[at], true);
            after.state.journal = after.journal.tip.journal.clone();
        }
        for (at, edit) in decision.edits.iter().enumerate() {
            let (lock, held) = match edit {
                Edit::Put { lock, record } => (*lock, Held::Record(record.clone())),
                Edit::Remove { lock } => (*lock, Held::Free),
                Edit::Journal { .. } => continue,
            };
            (known[lock].lock, known[lock].state.held) = (values[at], held);
        }
        known
    }
}

impl CommitLoop {
    /// Turns edits of locks into edits of refs.
    pub(super) fn plan<'a>(&self, snapshots: &[Snapshot], decision: &'a Decision, by: &'a Actor) -> Result<Plan<'a>> {
        let mut plan = Plan { edits: Vec::new(), journals: Vec::new(), superseded: Vec::new(), created: Vec::new() };
        for edit in &decision.edits {
            let (Edit::Journal { lock, .. } | Edit::Put { lock, .. } | Edit::Remove { lock }) = edit;
            let (lock, snapshot) = (*lock, &snapshots[*lock]);
            let name = &snapshot.state.name;
            match edit {
                Edit::Journal { entries, finished, .. } => {
                    let batch = Batch { entries, finished, by };
                    let (value, tip_depth) = self.journal_value(snapshot, batch, &mut plan.superseded)?;
                    plan.journals.push((plan.edits.len(), lock, batch, tip_depth));
                    plan.edits.push(RefEdit {
                        name: self.names.journal_ref(name),
                        expected: snapshot.journal.id,
                        new: Some(value),
                    });
                }
                Edit::Put { record, .. } => {
                    let rev = uuid::Uuid::new_v4().simple().to_string();
                    let bytes = codec::encode(record, &rev).map_err(|codec::TooLarge| {
                        Error::new(
                            ErrorCode::QueueFull,
                            format!("the record of {name} would be larger than 1 MiB; wait until some of its queue is served"),
                        )
                    })?;
                    let untold = match &snapshot.state.held {
                        Held::Record(record) => record.highest_token() == 0,
                        _ => true,
                    };
                    plan.created.extend(untold.then_some(lock));
                    plan.superseded.extend(snapshot.lock);
                    plan.edits.push(RefEdit {
                        name: self.names.lock_ref(name),
                        expected: snapshot.lock,
                        new: Some(NewValue::Blob(bytes)),
                    });
                }
                Edit::Remove { .. } => {
                    plan.superseded.extend(snapshot.lock);
                    plan.edits.push(RefEdit { name: self.names.lock_ref(name), expected: snapshot.lock, new: None });
                }
            }
        }
        Ok(plan)
    }

    /// The commits to add, bounded by `keep`; what they replace is superseded.
    fn journal_value(
        &self,
        snapshot: &Snapshot,
        batch: Batch<'_>,
        superseded: &mut Vec<Oid>,
    ) -> Result<(NewValue, u64)> {
        let name = &snapshot.state.name;
        let JournalAt { id, tip, usable } = &snapshot.journal;
        let parent = id.filter(|_| *usable);
        let tree = parent.is_none();
        let count = batch.entries.len() as u64;
        let keep = self.keep.map(|keep| u64::from(keep.max(1)));
        // One more than asked for is enough at 1; otherwise the chain may grow to twice that, so
        // that rewriting it costs a constant for each tenure.
        let full = keep.is_some_and(|keep| if keep == 1 { true } else { tip.depth + count > 2 * keep });
        let (Some(keep), true) = (keep, full) else {
            let depth = if parent.is_some() { tip.depth } else { 0 };
            let parent = parent.map_or(Parent::None, Parent::Commit);
            return Ok((
                NewValue::Commits { drafts: journal::drafts(name, batch, parent, depth), tree },
                depth + count,
            ));
        };
        let (kept, dropped) = self.newest(parent, keep.saturating_sub(count))?;
        superseded.extend(dropped);
        let mut drafts = Vec::new();
        for (at, commit) in kept.iter().rev().enumerate() {
            let parent = if at == 0 { Parent::None } else { Parent::Previous };
            drafts.push(journal::rebase(commit, parent, at as u64 + 1));
        }
        let (depth, parent) = (drafts.len() as u64, if drafts.is_empty() { Parent::None } else { Parent::Previous });
        let mut newest = journal::drafts(name, batch, parent, depth);
        if keep < count {
            newest.drain(..newest.len() - usize::try_from(keep).unwrap_or(1));
            newest[0].parent = Parent::None;
        }
        drafts.extend(newest);
        Ok((NewValue::Commits { drafts, tree }, depth + count))
    }

    /// The newest commits of a journal, newest first, and every id of the chain, all of which are
    /// going to be replaced.
    fn newest(&self, from: Option<Oid>, most: u64) -> Result<(Vec<crate::store::CommitView>, Vec<Oid>)> {
        let (mut kept, mut all, mut next) = (Vec::new(), Vec::new(), from);
        if let Some(from) = &from {
            self.store.foresee(from, usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(3).min(100_000))?;
        }
        while let Some(id) = next {
            let Object::Commit(commit) = self.store.object(&id)? else { break };
            all.push(id);
            next = commit.parent;
            if (kept.len() as u64) < most {
                kept.push(*commit);
            }
        }
        Ok((kept, all))
    }
}
