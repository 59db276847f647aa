//! What ends by itself: leases that are over, tenures whose owners are dead, waiters that nobody serves any more.
//!
//! An end takes two refs, the journal's and the record's, and the journal's goes first: see [`Work::finish`]. So as
//! long as the record says that a tenure lives, its holder may extend it or claim it, by a swap of the record alone,
//! while somebody else's end of it stands in the journal already: after a crash in between, and all the time on a
//! server that changes one ref after another. An end that the holder doesn't ask for therefore begins in the record:
//! its lease is *closed*, which is a swap of its own that a holder's either comes before, and then nothing has ended,
//! or after, and then it fails.

use super::{
    decide::{Asking, Cause, Context, Opaque},
    expiry::{is_dead, is_late, remaining},
    fault::Fault,
    record::{BootTime, Holder, Waiter},
    work::Work,
};

/// Why a tenure has ended by itself, and how long ago its lease was over, in milliseconds.
struct Over {
    cause: Cause,
    overdue: u64,
}

impl Work<'_> {
    /// Closes what has ended by itself and isn't closed: from then on it has ended for everybody, and nothing makes it
    /// last longer. Returns whether there was any; only then anything is changed.
    pub(super) fn close(&mut self, asking: &Asking<'_>) -> bool {
        let is_open = |holder: &Holder| !holder.is_closed() && self.over(holder, asking).is_some();
        let open: Vec<String> =
            self.record.holders.iter().filter(|holder| is_open(holder)).map(|holder| holder.claim.id.clone()).collect();
        if open.is_empty() || self.fault(Fault::EndUnclosed) {
            return false;
        }
        // Told by how long ago it ended, which whoever ends it after a crash may not know.
        if self.is_queue_dead(asking) {
            self.drop_waiters(|waiter| (!asking.ids.contains(&&*waiter.claim.id)).then_some("its queue was dead"));
        }
        self.finish_ended();
        let now = self.context.now;
        for holder in self.record.holders.iter_mut().filter(|holder| open.contains(&holder.claim.id)) {
            holder.timeout = 0;
            let before = holder.end.as_ref().filter(|end| *end.boot == *now.boot_id).map_or(now.boot, |end| end.at);
            holder.end = Some(BootTime { boot: now.boot_id.to_string(), at: before.min(now.boot) });
        }
        self.changed = true;
        true
    }

    /// Ends what has ended by itself, drops who is gone, and grants to who is next. Whoever is
    /// `asking` is evidently there.
    pub(super) fn settle(&mut self, asking: &Asking<'_>) {
        let Context { now, facts, policy, .. } = self.context;
        if let Some(Opaque::Missing { unchanged: Some(unchanged) }) = self.opaque
            && unchanged >= policy.missing_object_hold
        {
            self.opaque = None;
            self.journal_end(None, Cause::Expired, Some("its record was lost".to_owned()));
        }
        let is_queue_dead = self.is_queue_dead(asking);
        self.finish_ended();
        let mut at = 0;
        while let Some(holder) = self.record.holders.get(at) {
            match self.over(holder, asking) {
                Some(Over { cause, .. }) => {
                    self.end(at, cause, None);
                }
                None => at += 1,
            }
        }
        let (late, dead) = (self.fault(Fault::GrantLateWaiters), self.fault(Fault::GrantDeadWaiters));
        self.drop_waiters(|waiter| {
            if is_late(waiter, now, facts.of(&waiter.claim.id), policy) && !late {
                Some("late")
            } else if is_dead(waiter.claim.bound, facts.of(&waiter.claim.id)) && !dead {
                Some("dead")
            } else if is_queue_dead && !asking.ids.contains(&&*waiter.claim.id) {
                Some("its queue was dead")
            } else {
                None
            }
        });
        // Or they would be granted what they have to give back, in the journal too.
        let leaves = |waiter: &Waiter| asking.leaving.contains(&&*waiter.claim.id);
        let leaving = self.record.queue.iter().filter(|waiter| leaves(waiter)).map(|waiter| waiter.claim.id.clone());
        self.cancelled = leaving.collect();
        self.drop_waiters(|waiter| leaves(waiter).then_some("cancelled"));
        self.hand_over();
    }

    /// Whether, and why, this tenure has ended by itself.
    fn over(&self, holder: &Holder, asking: &Asking<'_>) -> Option<Over> {
        let Context { now, facts, policy, .. } = self.context;
        let id = &*holder.claim.id;
        if self.is_finished(id) || asking.vouched.contains(&id) && !self.fault(Fault::SyncJudgesByCopies) {
            return None;
        }
        let left = remaining(holder, now, facts.of(id), policy);
        let overdue = left.min(0).unsigned_abs();
        if is_dead(holder.claim.bound, facts.of(id)) && !self.fault(Fault::IgnoreDeadOwners) {
            Some(Over { cause: Cause::OwnerDied, overdue })
        } else if left <= 0 && !(self.fault(Fault::ExtendEndedLease) && asking.ids.contains(&id)) {
            Some(Over { cause: Cause::Expired, overdue })
        } else {
            None
        }
    }

    /// Whether all that is held has ended so long ago that whoever waits and lives would have ended it: so nobody
    /// there lives.
    fn is_queue_dead(&self, asking: &Asking<'_>) -> bool {
        if self.record.queue.is_empty() {
            return false;
        }
        let Context { now, facts, policy, .. } = self.context;
        let overdue = |holder: &Holder| {
            if self.is_finished(&holder.claim.id) {
                let left = remaining(holder, now, facts.of(&holder.claim.id), policy);
                return left.min(0).unsigned_abs();
            }
            self.over(holder, asking).map_or(0, |over| over.overdue)
        };
        let least = self.record.holders.iter().map(overdue).min();
        least.is_some_and(|least| least >= policy.dead_queue_after()) && !self.fault(Fault::KeepDeadQueue)
    }

    fn is_finished(&self, id: &str) -> bool {
        self.calls_ended(id) && !self.fault(Fault::IgnoreJournalTip)
    }

    /// Takes away what the journal's tip calls ended: whoever wrote it crashed before the record told of that. Waiters
    /// too, whom it had granted to and whose grant it had ended.
    fn finish_ended(&mut self) {
        let record = &self.record;
        let all = record.holders.iter().map(|h| &h.claim.id).chain(record.queue.iter().map(|w| &w.claim.id));
        let ended: Vec<String> = all.filter(|id| self.is_finished(id)).cloned().collect();
        if ended.is_empty() {
            return;
        }
        self.record.holders.retain(|holder| !ended.contains(&holder.claim.id));
        self.drop_waiters(|waiter| ended.contains(&waiter.claim.id).then_some("ended already"));
        self.finished.extend(ended);
        self.changed = true;
    }
}
