//! One lock while it is being decided about.

use super::{
    decide::{
        Cause, Context, Decision, Edit, Ended, Event, Held, JournalTip, LockState, Opaque, Outcome, Place, Rebind,
        Refusal, Request, Tenure, Wait,
    },
    expiry::{Expiry, Fact, is_late, remaining},
    fault::Fault,
    fingerprint::proves,
    fit::{blocks, fits, free_slot, inherits, other_slots},
    queue,
    record::{BootTime, Claim, Holder, MAX_NUMBER, MAX_WAITERS, Record, Waiter},
};

/// One lock while it is being decided about: what its record will say, and what the journal will.
#[derive(Clone)]
pub(super) struct Work<'a> {
    pub(super) lock: usize,
    pub(super) context: Context<'a>,
    journal: &'a JournalTip,
    pub(super) opaque: Option<Opaque>,
    pub(super) record: Record,
    ended: Vec<Ended>,
    /// Whether there is no ref.
    free: bool,
    pub(super) events: Vec<Event>,
    pub(super) highest_token: u64,
    pub(super) changed: bool,
    /// Tenures that the journal's tip calls ended and that still stand in the record as it is.
    pub(super) finished: Vec<String>,
    /// Who cancels and was taken out of the queue.
    pub(super) cancelled: Vec<String>,
}

impl<'a> Work<'a> {
    pub(super) fn new(lock: usize, state: &'a LockState, context: Context<'a>) -> Work<'a> {
        let (record, opaque) = match &state.held {
            Held::Free => (Record::default(), None),
            Held::Record(record) => (record.clone(), None),
            Held::Opaque(opaque) => (Record::default(), Some(opaque.clone())),
        };
        let faults = context.policy.faults;
        let by_journal = if faults.has(Fault::TokenIgnoresJournal) { 0 } else { state.journal.highest_token };
        let by_record = if faults.has(Fault::TokenIgnoresRecord) { 0 } else { record.highest_token() };
        Work {
            lock,
            context,
            journal: &state.journal,
            opaque,
            record,
            ended: Vec::new(),
            free: state.held == Held::Free,
            events: Vec::new(),
            highest_token: by_journal.max(by_record),
            changed: false,
            finished: Vec::new(),
            cancelled: Vec::new(),
        }
    }

    pub(super) fn fault(&self, fault: Fault) -> bool {
        self.context.policy.faults.has(fault)
    }

    pub(super) fn drop_waiters(&mut self, why: impl Fn(&Waiter) -> Option<&'static str>) {
        let (lock, events) = (self.lock, &mut self.events);
        let before = self.record.queue.len();
        self.record.queue.retain(|waiter| match why(waiter) {
            None => true,
            Some(why) => {
                events.push(Event::Dropped { lock, id: waiter.claim.id.clone(), why });
                false
            }
        });
        self.changed |= self.record.queue.len() != before;
    }

    /// Ends the tenure at this index.
    pub(super) fn end(&mut self, at: usize, cause: Cause, reason: Option<String>) -> Holder {
        let holder = self.record.holders.remove(at);
        self.journal_end(Some(holder.clone()), cause, reason);
        holder
    }

    pub(super) fn journal_end(&mut self, holder: Option<Holder>, cause: Cause, reason: Option<String>) {
        self.changed = true;
        let id = holder.as_ref().map(|holder| holder.claim.id.clone());
        self.events.push(Event::Ended { lock: self.lock, id, cause });
        if holder.as_ref().is_none_or(|holder| !holder.claim.mode.is_intent()) {
            let (at, highest_token) = (self.context.now.wall, self.highest_token);
            self.ended.push(Ended { holder, cause, at, reason, highest_token });
        }
    }

    /// Tells the journal of what doesn't end here.
    pub(super) fn tell(&mut self, ended: Ended) {
        self.changed = true;
        self.ended.push(Ended { highest_token: self.highest_token, ..ended });
    }

    /// Whether the journal's tip calls this tenure ended.
    pub(super) fn calls_ended(&self, id: &str) -> bool {
        self.journal.ended.iter().any(|ended| ended == id)
    }

    // ------------------------------------------------------------ grants

    /// Grants to the head of the queue, and to whoever behind it fits beside it.
    pub(super) fn hand_over(&mut self) {
        let mut granted = 0;
        while let Some(head) = self.record.queue.first() {
            let mode = head.claim.mode;
            if self.highest_token >= MAX_NUMBER && !mode.is_intent() {
                // They ask again, and are told why nobody can be granted any more.
                self.drop_waiters(|waiter| (!waiter.claim.mode.is_intent()).then_some("no token is left"));
                continue;
            }
            if self.fault(Fault::NoHandOver) || (granted > 0 && self.fault(Fault::GrantOneSharedOnly)) {
                return;
            }
            match self.hand_over_upgrade() {
                Some(true) => continue,
                Some(false) => return,
                None if !self.fits(&self.record.queue[0].claim) => return,
                None => {}
            }
            let Waiter { claim, since, priority, .. } = self.record.queue.remove(0);
            let (now, policy) = (self.context.now, self.context.policy);
            let lasts = match policy.expiry {
                _ if self.fault(Fault::NoClaimWindow) => claim.ttl,
                // Never longer than the ttl: an observer takes the shorter of the two for what is left.
                Expiry::Observed => policy.claim_window.min(claim.ttl),
                Expiry::WallClock => policy.claim_window,
            };
            self.grant(claim, priority, lasts, (now.wall.saturating_sub(since), true));
            granted += 1;
        }
    }

    fn fits(&self, claim: &Claim) -> bool {
        fits(&self.record, claim, self.context.policy.faults)
    }

    fn grant(&mut self, claim: Claim, priority: i32, lasts: u64, (waited, from_queue): (u64, bool)) -> Holder {
        let now = self.context.now;
        let token = (!claim.mode.is_intent()).then(|| self.next_token());
        let end = Some(BootTime { boot: now.boot_id.to_string(), at: now.boot.saturating_add(lasts).min(MAX_NUMBER) });
        let slot = free_slot(&self.record, &claim);
        let holder = Holder { claim, acquired_at: now.wall, timeout: lasts, token, end, waited, slot, priority };
        let id = holder.claim.id.clone();
        self.events.push(Event::Granted { lock: self.lock, id, token, from_queue });
        self.record.holders.push(holder.clone());
        self.changed = true;
        holder
    }

    /// Makes the lease at this index last `ttl` from now, or longer if it does already.
    fn prolong(&mut self, at: usize, ttl: u64) -> Holder {
        let now = self.context.now;
        let holder = &mut self.record.holders[at];
        // Raised whatever the wall clock says: to an observer on another machine a holder whose
        // entry stays the same hasn't renewed.
        let until = now.wall.saturating_add(ttl).saturating_sub(holder.acquired_at);
        holder.timeout = until.max(holder.timeout.saturating_add(1)).min(MAX_NUMBER);
        let (asked, before) = (now.boot.saturating_add(ttl).min(MAX_NUMBER), holder.end.as_ref());
        let before = before.filter(|end| *end.boot == *now.boot_id).map_or(0, |end| end.at);
        // An observer gives an unchanged entry one ttl, so a lease must never have more left.
        if asked >= before {
            holder.claim.ttl = ttl;
        }
        holder.end = Some(BootTime { boot: now.boot_id.to_string(), at: asked.max(before) });
        self.changed = true;
        holder.clone()
    }

    // ------------------------------------------------------------ requests

    pub(super) fn answer(&mut self, request: &Request) -> Outcome {
        if let Some(opaque) = self.opaque.clone() {
            return match (request, &opaque) {
                (Request::Break { reason, .. }, Opaque::Corrupt(_) | Opaque::Missing { .. }) => {
                    self.opaque = None;
                    self.journal_end(None, Cause::Broken, reason.clone());
                    Outcome::Broken(Vec::new())
                }
                (Request::Reap, _) => Outcome::Reaped,
                // Nobody waits or holds under these ids as far as anybody can tell.
                (Request::Cancel { .. }, Opaque::Corrupt(_)) => Outcome::Cancelled { found: false },
                _ => Outcome::Refused(Refusal::Opaque(opaque)),
            };
        }
        match request {
            Request::Acquire { claim, asked_before, .. }
                if *asked_before && !self.record.knows(&claim.id) && !self.fault(Fault::ReuseEndedId) =>
            {
                // Its tenure ended while it slept, or somebody overwrote the record. Which of the two, the
                // journal's tip alone doesn't tell: others may have ended since.
                Outcome::Gone
            }
            Request::Acquire { claim, priority, wait, place, .. } => {
                self.acquire(claim, *priority, wait.as_ref(), *place)
            }
            Request::Extend { tenure, ttl, rebind } => self.extend(tenure, *ttl, rebind.as_ref()),
            Request::Release { tenure } => match self.find(tenure) {
                Ok(at) => {
                    let holder = self.end(at, Cause::Released, None);
                    if self.fault(Fault::DropQueueOnRelease) {
                        self.record.queue.clear();
                    }
                    self.hand_over();
                    Outcome::Released(holder)
                }
                Err(refusal) => Outcome::Refused(refusal),
            },
            Request::Convert(asked) => self.convert(asked),
            Request::Cancel { ids } => self.cancel(ids),
            Request::Break { id, reason } => self.break_tenures(id.as_deref(), reason.as_ref()),
            Request::Mend { id } => self.mend(id),
            Request::Raise { tenure, token } => self.raise(tenure, *token),
            Request::Lift { id, timeout } => self.lift(id, *timeout),
            Request::Reconcile(wanted) => self.reconcile(wanted),
            Request::Reap => Outcome::Reaped,
        }
    }

    fn lift(&mut self, id: &str, timeout: u64) -> Outcome {
        let is_it =
            |holder: &Holder| holder.claim.id == id && holder.claim.mode.is_intent() && holder.timeout == timeout;
        let Some(at) = self.record.holders.iter().position(is_it) else {
            return Outcome::Refused(Refusal::NotHeld);
        };
        let holder = self.end(at, Cause::Broken, None);
        self.hand_over();
        Outcome::Released(holder)
    }

    fn mend(&mut self, id: &str) -> Outcome {
        let Some(at) = self.record.holders.iter().position(|holder| holder.claim.id == id) else {
            return Outcome::Gone;
        };
        let token = self.next_token();
        let holder = &mut self.record.holders[at];
        if holder.token.is_some() {
            holder.token = Some(token);
            self.changed = true;
        }
        Outcome::Granted(holder.clone())
    }

    fn raise(&mut self, tenure: &Tenure, token: u64) -> Outcome {
        let at = match self.find(tenure) {
            Ok(at) => at,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if token >= MAX_NUMBER {
            return Outcome::Refused(Refusal::TokensExhausted);
        }
        self.highest_token = self.highest_token.max(token);
        let holder = &mut self.record.holders[at];
        if holder.token.is_some_and(|before| before < token) {
            holder.token = Some(token);
            self.changed = true;
        }
        Outcome::Extended(holder.clone())
    }

    /// The token of the next grant: above all that the record and the journal know, and no lower
    /// than the wall clock in microseconds, for the case that both are lost.
    pub(super) fn next_token(&mut self) -> u64 {
        let by_clock = self.context.now.wall_micros;
        self.highest_token = self.highest_token.saturating_add(1).max(by_clock).min(MAX_NUMBER);
        self.highest_token
    }

    fn acquire(&mut self, claim: &Claim, priority: i32, wait: Option<&Wait>, place: Option<Place>) -> Outcome {
        if let Some(at) = self.record.holders.iter().position(|holder| holder.claim.id == claim.id) {
            // Granted from the queue meanwhile, or by an attempt whose answer was lost.
            return Outcome::Granted(self.prolong(at, claim.ttl));
        }
        if let Some(ahead) = self.record.position(&claim.id) {
            let Waiter { rank, since, .. } = self.record.queue[ahead];
            return Outcome::Queued { ahead, place: Place { rank, since } };
        }
        if self.highest_token >= MAX_NUMBER && !claim.mode.is_intent() {
            return Outcome::Refused(Refusal::TokensExhausted);
        }
        if let Some(theirs) = other_slots(&self.record, claim) {
            return Outcome::Refused(Refusal::SlotsDiffer { theirs });
        }
        let now = self.context.now;
        let waited = place.map_or(0, |place| now.wall.saturating_sub(place.since));
        let place = place.unwrap_or_else(|| {
            let since = queue::arrival(&self.record, now.wall);
            let rank = if self.fault(Fault::NoAgeing) { -i64::from(priority) } else { queue::rank(since, priority) };
            Place { rank, since }
        });
        let first = self.record.queue.first();
        let nobody_first = first.is_none_or(|first| first.claim.upgrades.is_none() && place.rank < first.rank)
            || (inherits(&self.record, claim) && !self.fault(Fault::NoInheritance));
        if (nobody_first || self.fault(Fault::NewcomerOvertakes)) && self.fits(claim) {
            return Outcome::Granted(self.grant(claim.clone(), priority, claim.ttl, (waited, false)));
        }
        let Some(wait) = wait else {
            return Outcome::Refused(self.held_against(claim));
        };
        if self.record.queue.len() >= MAX_WAITERS {
            return Outcome::Refused(Refusal::QueueFull);
        }
        let (until, end) = wait.until.clone().unzip();
        let waiter = Waiter { claim: claim.clone(), priority, rank: place.rank, since: place.since, until, end };
        if is_late(&waiter, now, Fact::default(), self.context.policy) {
            return Outcome::Refused(self.held_against(claim));
        }
        let ahead = queue::insert(&mut self.record.queue, waiter);
        self.changed = true;
        self.events.push(Event::Queued { lock: self.lock, id: claim.id.clone(), ahead });
        Outcome::Queued { ahead, place }
    }

    /// Held, and by whom: of those in the claim's way the one whose lease ends last.
    pub(super) fn held_against(&self, claim: &Claim) -> Refusal {
        let holders = self.record.holders.iter().filter(|held| Some(&held.claim.id) != claim.upgrades.as_ref());
        let in_the_way = holders.filter(|held| blocks(&held.claim, claim, self.context.policy.faults));
        match in_the_way.max_by_key(|holder| holder.ends_at()).or_else(|| self.record.last_to_end()) {
            Some(holder) => Refusal::Held { holder: Box::new(holder.clone()), waiting: self.record.queue.len() },
            None => Refusal::QueueFull,
        }
    }

    /// The index of the tenure that is meant, if the proof fits.
    pub(super) fn find(&self, tenure: &Tenure) -> Result<usize, Refusal> {
        let proven = |holder: &Holder| {
            proves(&tenure.proof, &holder.claim.fingerprint) || self.fault(Fault::ReleaseWithoutProof)
        };
        let holders = &self.record.holders;
        match &tenure.id {
            Some(id) => match holders.iter().position(|holder| holder.claim.id == *id) {
                Some(at) if proven(&holders[at]) => Ok(at),
                Some(at) => Err(Refusal::NotOwner(Box::new(holders[at].clone()))),
                None => Err(Refusal::NotHeld),
            },
            None => match (holders.iter().position(proven), self.record.last_to_end()) {
                (Some(at), _) => Ok(at),
                (None, Some(holder)) => Err(Refusal::NotOwner(Box::new(holder.clone()))),
                (None, None) => Err(Refusal::NotHeld),
            },
        }
    }

    fn extend(&mut self, tenure: &Tenure, ttl: Option<u64>, rebind: Option<&Rebind>) -> Outcome {
        let at = match self.find(tenure) {
            Ok(at) => at,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let claim = &mut self.record.holders[at].claim;
        if let Some(Rebind { bound, process, pid, hostname }) = rebind {
            claim.bound = *bound;
            claim.process.clone_from(process);
            claim.pid = *pid;
            claim.hostname.clone_from(hostname);
        }
        let ttl = ttl.unwrap_or(claim.ttl);
        Outcome::Extended(self.prolong(at, ttl))
    }

    fn cancel(&mut self, ids: &[String]) -> Outcome {
        let before = self.record.queue.len();
        self.drop_waiters(|waiter| ids.contains(&waiter.claim.id).then_some("cancelled"));
        let mut found = self.record.queue.len() != before || ids.iter().any(|id| self.cancelled.contains(id));
        if !self.fault(Fault::CancelLeavesGrant) {
            while let Some(at) = self.record.holders.iter().position(|holder| ids.contains(&holder.claim.id)) {
                self.end(at, Cause::Cancelled, None);
                found = true;
            }
        }
        self.hand_over();
        Outcome::Cancelled { found }
    }

    fn break_tenures(&mut self, id: Option<&str>, reason: Option<&String>) -> Outcome {
        let mut broken = Vec::new();
        // An intent ends with the lock below it: without it that lock would stand unprotected.
        let meant = |holder: &Holder| !holder.claim.mode.is_intent() && id.is_none_or(|id| holder.claim.id == id);
        while let Some(at) = self.record.holders.iter().position(meant) {
            broken.push(self.end(at, Cause::Broken, reason.cloned()));
        }
        self.hand_over();
        let below = self.record.holders.iter().find(|holder| id.is_none_or(|id| holder.claim.id == id));
        if let (true, Some(below)) = (broken.is_empty(), below) {
            return Outcome::Refused(Refusal::HeldBelow(Box::new(below.clone())));
        }
        if broken.is_empty() { Outcome::Refused(Refusal::NotHeld) } else { Outcome::Broken(broken) }
    }

    // ------------------------------------------------------------ the end

    /// In how many milliseconds the next lease ends by itself.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let Context { now, facts, policy, .. } = self.context;
        if let Some(Opaque::Missing { unchanged }) = self.opaque {
            return Some(policy.missing_object_hold.saturating_sub(unchanged.unwrap_or(0)));
        }
        let left = |holder: &Holder| remaining(holder, now, facts.of(&holder.claim.id), policy);
        self.record.holders.iter().map(|holder| u64::try_from(left(holder)).unwrap_or(0)).min()
    }

    pub(super) fn into_record(self) -> Record {
        self.record
    }

    /// Adds what is to be written. The journal goes first: a crash in between leaves a tenure in
    /// the record that the journal calls ended, and whoever sees that finishes its removal.
    pub(super) fn finish(self, decision: &mut Decision) {
        let lock = self.lock;
        decision.events.extend(self.events);
        if !self.changed {
            return;
        }
        if !self.ended.is_empty() {
            decision.edits.push(Edit::Journal { lock, entries: self.ended, finished: self.finished });
        }
        if self.record.holders.is_empty()
            && (self.record.queue.is_empty() || !self.context.policy.faults.has(Fault::NoHandOver))
        {
            decision.edits.extend((!self.free).then_some(Edit::Remove { lock }));
        } else {
            decision.edits.push(Edit::Put { lock, record: self.record });
        }
    }
}
