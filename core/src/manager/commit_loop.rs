//! The one loop that changes refs: read, decide, transact, and again after a conflict.
//!
//! Requests of one process for one lock share a swap: whoever comes while another thread is at it
//! leaves its request, and the thread takes all that were left in its next round. A thousand
//! enqueues are then a few writes, and threads don't fight each other for a `.lock` file.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    error::{Error, Result},
    error_code::ErrorCode,
    journal::Actor,
    lock::{
        Call, Decision, Event, Expiry, Facts, Held, Holder, LockState, Outcome, Policy, Refusal, Request,
        decide::{Context, decide, decide_together, view},
        expiry::remaining,
        fault::Fault,
    },
    name::{LockName, Namespace, RefName},
    ref_update::RefUpdates,
    store::{Oid, PreparedPush, RefEdit, RefStore, Transacted},
};

use super::{
    plan::Plan,
    snapshot::{self, Snapshot},
};

/// How long a change is tried before the repository counts as too busy, in milliseconds.
const GIVE_UP_AFTER: u64 = 60_000;

/// The requests that one round takes at most.
const BATCH: usize = 1_024;

/// Of how many locks the last state is remembered.
const REMEMBERED: usize = 1_024;

/// Other refs that are changed with a lock's.
#[derive(Clone, Copy)]
pub(super) enum Others<'a> {
    /// In the same repository, by `git update-ref`.
    Updates(&'a RefUpdates),
    /// On a server, by the same push.
    Push(&'a dyn PreparedPush),
}

/// The loop, and what it needs.
#[derive(Debug)]
pub(super) struct CommitLoop {
    pub(super) store: Arc<dyn RefStore>,
    pub(super) names: Namespace,
    pub(super) policy: Policy,
    pub(super) keep: Option<u32>,
    pub(super) clock: Arc<dyn Clock>,
    cells: Mutex<HashMap<LockName, Arc<Cell>>>,
}

/// What this process has going on with one lock.
#[derive(Debug, Default)]
struct Cell {
    state: Mutex<CellState>,
}

#[derive(Debug, Default)]
struct CellState {
    /// Whether a thread is at it.
    busy: bool,
    left: Vec<(Request, Arc<Slot>)>,
    /// What the last round left, to begin the next one with.
    known: Option<Snapshot>,
}

/// Where a thread waits for the answer to the request that it left.
#[derive(Debug, Default)]
struct Slot {
    said: Mutex<Option<Said>>,
    changed: Condvar,
}

#[derive(Debug)]
enum Said {
    Answer(Box<Result<Outcome>>),
    /// Nobody is at it any more: it's this thread's turn.
    YourTurn,
}

impl Slot {
    fn say(&self, said: Said) {
        *lock(&self.said) = Some(said);
        self.changed.notify_one();
    }

    /// `None`: nothing was said in this time.
    fn hear_within(&self, patience: Duration) -> Option<Said> {
        let said = lock(&self.said);
        let waited = self.changed.wait_timeout_while(said, patience, |said| said.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }

    fn hear(&self) -> Said {
        let mut said = lock(&self.said);
        loop {
            if let Some(said) = said.take() {
                return said;
            }
            said = self.changed.wait(said).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CommitLoop {
    pub(super) fn new(
        store: Arc<dyn RefStore>,
        names: Namespace,
        policy: Policy,
        keep: Option<u32>,
        clock: Arc<dyn Clock>,
    ) -> CommitLoop {
        CommitLoop { store, names, policy, keep, clock, cells: Mutex::default() }
    }

    /// Carries out one request.
    pub(super) fn submit(&self, name: &LockName, request: Request, by: &Actor) -> Result<Outcome> {
        self.submit_within(name, request, by, None)
    }

    /// Carries out one request, waiting no longer than `patience` for others (`None`: as long as
    /// the store does). It takes no other thread's requests along, which may have more patience.
    pub(super) fn submit_within(
        &self,
        name: &LockName,
        request: Request,
        by: &Actor,
        patience: Option<Duration>,
    ) -> Result<Outcome> {
        let cell = lock(&self.cells).entry(name.clone()).or_default().clone();
        let mut state = lock(&cell.state);
        let mut mine = Some(request);
        if state.busy {
            let slot = Arc::new(Slot::default());
            state.left.extend(mine.take().map(|request| (request, slot.clone())));
            drop(state);
            let said = patience.map_or_else(|| Some(slot.hear()), |patience| slot.hear_within(patience));
            let said = match said {
                Some(said) => said,
                None => {
                    let mut state = lock(&cell.state);
                    let at = state.left.iter().position(|(_, other)| Arc::ptr_eq(other, &slot));
                    // Told in the meantime that it's its turn, or taken along in a round: that can't be undone.
                    if let Some(at) = at.filter(|_| lock(&slot.said).is_none()) {
                        state.left.remove(at);
                        return Err(Error::new(
                            ErrorCode::RepositoryBusy,
                            format!(
                                "another thread of this process has been changing the lock {name} for a while; try again"
                            ),
                        ));
                    }
                    drop(state);
                    slot.hear()
                }
            };
            match said {
                Said::Answer(answer) => return *answer,
                Said::YourTurn => state = lock(&cell.state),
            }
            // The request is the first of those that were left.
            let at = state.left.iter().position(|(_, other)| Arc::ptr_eq(other, &slot));
            mine = at.map(|at| state.left.remove(at).0);
        }
        state.busy = true;
        let Some(mine) = mine else {
            state.busy = false;
            return Err(Error::new(ErrorCode::Io, "a request was lost on its way; try again"));
        };
        let others: Vec<(Request, Arc<Slot>)> = {
            let count = if patience.is_some() { 0 } else { state.left.len().min(BATCH - 1) };
            state.left.drain(..count).collect()
        };
        let mut known = state.known.take();
        drop(state);
        let (requests, slots): (Vec<Request>, Vec<Arc<Slot>>) = others.into_iter().unzip();
        let mut all = vec![mine];
        all.extend(requests);
        let mut answers = self.commit_all(name, all, &mut known, by, patience).into_iter();
        let answer =
            answers.next().unwrap_or_else(|| Err(Error::new(ErrorCode::Io, "a request got no answer; try again")));
        for (slot, answer) in slots.iter().zip(answers) {
            slot.say(Said::Answer(Box::new(answer)));
        }
        let mut state = lock(&cell.state);
        state.known = known;
        let next = state.left.first().map(|(_, slot)| slot.clone());
        state.busy = next.is_some();
        if let Some(next) = next {
            // Still busy, in that thread's name. Said before anybody can take the request back.
            next.say(Said::YourTurn);
            return answer;
        }
        drop(state);
        self.forget_idle();
        answer
    }

    /// Keeps what is remembered of locks from growing with every name that was ever locked.
    fn forget_idle(&self) {
        let mut cells = lock(&self.cells);
        if cells.len() > REMEMBERED {
            // Whoever is at a cell has a clone of it.
            cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
    }

    /// Carries out requests that come together, each with its own answer, waiting no longer than
    /// `patience` for others.
    pub(super) fn submit_all(
        &self,
        name: &LockName,
        requests: Vec<Request>,
        by: &Actor,
        patience: Duration,
    ) -> Vec<Result<Outcome>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let batch: Vec<Request> = requests.by_ref().take(BATCH).collect();
            answers.extend(self.commit_all(name, batch, &mut None, by, Some(patience)));
        }
        answers
    }

    /// What is known of a lock at this moment.
    pub(super) fn look(&self, name: &LockName, known: Option<&Snapshot>) -> Result<Snapshot> {
        snapshot::read(&*self.store, &self.names, name, known)
    }

    /// What a lock's record says, whose ref was just listed: to look at, not to change.
    pub(super) fn look_listed(&self, name: &LockName, id: Oid, known: Option<&Snapshot>) -> Result<Snapshot> {
        match self.store.round_trip() {
            Some(_) => snapshot::listed(&*self.store, name, id, known),
            None => self.look(name, known),
        }
    }

    /// What this process can tell of who holds and who waits.
    fn facts_of(&self, snapshot: &Snapshot) -> Facts {
        let Held::Record(record) = &snapshot.state.held else { return Facts::default() };
        let mut facts = snapshot::facts(record);
        if self.policy.expiry == Expiry::Observed {
            let (lock, boot) = (self.names.lock_ref(&snapshot.state.name), self.clock.now().boot_id);
            snapshot::sightings(&*self.store, &lock, record, &boot, &mut facts);
        }
        facts
    }

    /// Whether something in a lock has ended by itself and waits for somebody to end it.
    pub(super) fn has_overdue(&self, snapshot: &Snapshot) -> bool {
        self.changes_by(snapshot, &Request::Reap)
    }

    /// How much longer the leases in a lock last, in milliseconds, by tenure.
    pub(super) fn left(&self, snapshot: &Snapshot) -> BTreeMap<String, u64> {
        let Held::Record(record) = &snapshot.state.held else { return BTreeMap::new() };
        let (now, facts) = (self.clock.now(), self.facts_of(snapshot));
        let left = |holder: &Holder| remaining(holder, &now, facts.of(&holder.claim.id), &self.policy);
        let of = |holder: &Holder| (holder.claim.id.clone(), u64::try_from(left(holder)).unwrap_or(0));
        record.holders.iter().map(of).collect()
    }

    /// Whether a request would change anything in a lock.
    pub(super) fn changes_by(&self, snapshot: &Snapshot, request: &Request) -> bool {
        let (now, facts) = (self.clock.now(), self.facts_of(snapshot));
        let context = Context { now: &now, facts: &facts, policy: &self.policy };
        let call = [Call { lock: 0, request: request.clone() }];
        !decide(std::slice::from_ref(&snapshot.state), &call, context).edits.is_empty()
    }

    fn commit_all(
        &self,
        name: &LockName,
        requests: Vec<Request>,
        known: &mut Option<Snapshot>,
        by: &Actor,
        patience: Option<Duration>,
    ) -> Vec<Result<Outcome>> {
        let count = requests.len();
        match self.commit(name, requests, known, by, patience) {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) => {
                *known = None;
                let again = |_| Err(Error::new(error.code(), error.to_string()));
                let mut errors: Vec<_> = (1..count).map(again).collect();
                errors.insert(0, Err(error));
                errors
            }
        }
    }

    /// Carries out requests for several locks that are one request: see [`decide_together`].
    pub(super) fn submit_together(
        &self,
        requests: Vec<(LockName, Request)>,
        by: &Actor,
        patience: Option<Duration>,
    ) -> Result<Vec<Outcome>> {
        self.submit_with(requests, None, by, patience)
    }

    /// The same, and if they are granted makes these changes of other refs in the same transaction.
    pub(super) fn submit_with(
        &self,
        requests: Vec<(LockName, Request)>,
        others: Option<Others<'_>>,
        by: &Actor,
        patience: Option<Duration>,
    ) -> Result<Vec<Outcome>> {
        let (names, calls) = calls_of(requests);
        self.commit_calls(&names, calls, &mut Vec::new(), others, by, patience)
    }

    /// As [`submit_together`](CommitLoop::submit_together), and tells how each lock is then.
    pub(super) fn submit_knowing(
        &self,
        requests: Vec<(LockName, Request)>,
        by: &Actor,
    ) -> Result<(Vec<Outcome>, Vec<Snapshot>)> {
        let ((names, calls), mut known) = (calls_of(requests), Vec::new());
        let outcomes = self.commit_calls(&names, calls, &mut known, None, by, None)?;
        Ok((outcomes, known))
    }

    /// Writes down how a lock was somewhere else. What somebody else wrote at the same time stays.
    pub(super) fn track(&self, edit: RefEdit) -> Result<()> {
        let before = edit.expected;
        if let Transacted::Committed(_) = self.store.transact(&[edit])? {
            self.store.superseded(before.as_slice());
        }
        Ok(())
    }

    fn commit(
        &self,
        name: &LockName,
        requests: Vec<Request>,
        known: &mut Option<Snapshot>,
        by: &Actor,
        patience: Option<Duration>,
    ) -> Result<Vec<Outcome>> {
        let calls: Vec<Call> = requests.into_iter().map(|request| Call { lock: 0, request }).collect();
        let mut all = known.take().into_iter().collect();
        let outcomes = self.commit_calls(std::slice::from_ref(name), calls, &mut all, None, by, patience);
        *known = all.pop();
        outcomes
    }

    /// The loop itself. What is `known` is of all the names, or of none. Calls for several locks are one.
    #[tracing::instrument(level = "debug", name = "commit", skip_all, fields(lock = %names[0], calls = calls.len()))]
    fn commit_calls(
        &self,
        names: &[LockName],
        mut calls: Vec<Call>,
        known: &mut Vec<Snapshot>,
        others: Option<Others<'_>>,
        by: &Actor,
        patience: Option<Duration>,
    ) -> Result<Vec<Outcome>> {
        let mut uncertain: Option<Vec<Outcome>> = None;
        let started = self.clock.boot_ms();
        let mut fresh = known.is_empty();
        let mut conflicts = 0;
        while self.has_patience(conflicts, started) {
            let mut snapshots = std::mem::take(known);
            if fresh {
                let look = |(at, name)| self.look(name, snapshots.get(at));
                snapshots = names.iter().enumerate().map(look).collect::<Result<_>>()?;
            }
            let mut decision = self.decide(&snapshots, &calls);
            if decision.closes {
                fresh = !self.close(names, snapshots, &decision, (known, by), patience)?;
                conflicts += u32::from(fresh);
                continue;
            }
            if let Some(before) = &uncertain {
                // Kept through conflicts: it stays true of what was taken away then.
                settle_by_effect(before.clone(), &mut decision.outcomes);
            }
            let refused = decision.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)));
            if others.is_some() && uncertain.is_some() && refused {
                return Err(perhaps_pushed(&names[0]));
            }
            if decision.edits.is_empty() {
                *known = snapshots;
                if fresh {
                    return Ok(decision.outcomes);
                }
                // It was decided on what is remembered, and nothing proved that still true.
                fresh = true;
                continue;
            }
            fresh = true;
            let plan = self.plan(&snapshots, &decision, by)?;
            let (transacted, journals_kept) = match others.filter(|_| !refused) {
                Some(Others::Updates(updates)) => (self.store.transact_with(&plan.edits, updates)?, false),
                Some(Others::Push(push)) => (push.transact(&plan.edits)?, false),
                None => {
                    let unmoved = self.journals_of(names, &snapshots, &plan);
                    let (done, looked) = self.store.transact_beside(&plan.edits, &unmoved, patience)?;
                    (done, looked && !unmoved.is_empty())
                }
            };
            match transacted {
                Transacted::Committed(values) => {
                    let created = plan.created.clone();
                    *known = plan.settled(snapshots, &values, &decision);
                    self.store.superseded(&plan.superseded);
                    report(names, &decision.events, by);
                    for lock in created.into_iter().filter(|_| !journals_kept) {
                        let moved = self.store.read(&self.names.journal_ref(&names[lock]))? != known[lock].journal.id;
                        if moved && !self.policy.faults.has(Fault::TokenIgnoresJournal) {
                            known[lock] = self.mend(names, lock, &calls, &mut decision.outcomes, by)?;
                        }
                    }
                    return Ok(decision.outcomes);
                }
                Transacted::Conflict => *known = snapshots,
                Transacted::Unknown => {
                    // A break of everybody must not go on to break who comes after.
                    for (call, outcome) in calls.iter_mut().zip(&decision.outcomes) {
                        if let Request::Acquire { asked_before, .. } = &mut call.request {
                            *asked_before = true;
                        }
                        if let (Request::Break { id: None, .. }, Outcome::Broken(_)) = (&call.request, outcome) {
                            call.request = Request::Reap;
                        }
                    }
                    uncertain = Some(decision.outcomes);
                }
            }
            conflicts += 1;
        }
        Err(Error::new(
            ErrorCode::RepositoryBusy,
            format!(
                "the lock {} was changed by others for a minute, each time just before this process could; try again",
                names[0]
            ),
        ))
    }

    /// Pauses after so many conflicts. Returns whether another round may end without one.
    fn has_patience(&self, conflicts: u32, started: u64) -> bool {
        if conflicts > 0 && self.clock.boot_ms().saturating_sub(started) > GIVE_UP_AFTER {
            return false;
        }
        // Another process was faster. The first time that was chance; then it is a crowd.
        if conflicts > 1 {
            // On a server each try is a question, and a crowd is spread over that.
            let question = self.store.round_trip().map_or(0, |time| time.as_micros() as u64 / 64);
            let spread = uuid::Uuid::new_v4().as_u64_pair().0 % ((100 + question) << (conflicts - 1).min(7));
            self.clock.pause(Duration::from_micros(spread));
        }
        true
    }

    /// Writes that leases are over, and nothing beside it. Returns whether that is what is `known` now.
    fn close(
        &self,
        names: &[LockName],
        snapshots: Vec<Snapshot>,
        decision: &Decision,
        (known, by): (&mut Vec<Snapshot>, &Actor),
        patience: Option<Duration>,
    ) -> Result<bool> {
        let plan = self.plan(&snapshots, decision, by)?;
        let (done, _) = self.store.transact_beside(&plan.edits, &[], patience)?;
        let Transacted::Committed(values) = done else {
            *known = snapshots;
            return Ok(false);
        };
        *known = plan.settled(snapshots, &values, decision);
        self.store.superseded(&plan.superseded);
        report(names, &decision.events, by);
        Ok(true)
    }

    fn decide(&self, snapshots: &[Snapshot], calls: &[Call]) -> Decision {
        if let [one] = snapshots {
            let facts = self.facts_of(one);
            let now = self.clock.now();
            let context = Context { now: &now, facts: &facts, policy: &self.policy };
            return decide(std::slice::from_ref(&one.state), calls, context);
        }
        let mut facts = Facts::default();
        snapshots.iter().for_each(|snapshot| facts.0.extend(self.facts_of(snapshot).0));
        let now = self.clock.now();
        let states: Vec<LockState> = snapshots.iter().map(|snapshot| snapshot.state.clone()).collect();
        decide_together(&states, calls, Context { now: &now, facts: &facts, policy: &self.policy })
    }

    /// The journals that tell what tokens there were, where records don't: all of them, or none if that isn't all.
    fn journals_of(&self, names: &[LockName], snapshots: &[Snapshot], plan: &Plan<'_>) -> Vec<(RefName, Oid)> {
        let journal = |lock: &usize| {
            let name = self.names.journal_ref(&names[*lock]);
            let edited = plan.edits.iter().any(|edit| edit.name == name);
            snapshots[*lock].journal.id.filter(|_| !edited).map(|id| (name, id))
        };
        plan.created.iter().map(journal).collect::<Option<_>>().unwrap_or_default()
    }

    /// Gives what was just granted on a lock that was free a token above what was journalled meanwhile.
    /// Returns what is known of that lock then.
    fn mend(
        &self,
        names: &[LockName],
        lock: usize,
        calls: &[Call],
        outcomes: &mut [Outcome],
        by: &Actor,
    ) -> Result<Snapshot> {
        let granted = calls.iter().zip(outcomes).filter_map(|(call, outcome)| match outcome {
            Outcome::Granted(holder) if call.lock == lock => {
                Some((Call { lock: 0, request: Request::Mend { id: holder.claim.id.clone() } }, outcome))
            }
            _ => None,
        });
        let (mut mends, granted): (Vec<Call>, Vec<&mut Outcome>) = granted.unzip();
        if mends.is_empty() {
            mends.push(Call { lock: 0, request: Request::Reap });
        }
        // What was known of the journal is what turned out to be old.
        let mut known = Vec::new();
        let mended = self.commit_calls(&names[lock..=lock], mends, &mut known, None, by, None)?;
        granted.into_iter().zip(mended).for_each(|(outcome, mended)| *outcome = mended);
        known.pop().map_or_else(|| self.look(&names[lock], None), Ok)
    }
}

/// Requests by the locks that they are for, each of which is named once.
fn calls_of(requests: Vec<(LockName, Request)>) -> (Vec<LockName>, Vec<Call>) {
    let mut names: Vec<LockName> = Vec::new();
    let calls = requests.into_iter().map(|(name, request)| {
        let lock = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        Call { lock, request }
    });
    let calls = calls.collect();
    (names, calls)
}

/// The answer to a push was lost, and the lock is gone since: that it was refused nobody knows.
fn perhaps_pushed(name: &LockName) -> Error {
    Error::new(
        ErrorCode::LockLost,
        format!(
            "the lock {name} is lost, and before that the connection was cut while the refs were pushed, perhaps after they were: \
             look at them there before going on"
        ),
    )
}

/// After a transaction with an unknown end: what was to be taken away and is gone was taken away.
fn settle_by_effect(before: Vec<Outcome>, now: &mut [Outcome]) {
    for (before, now) in before.into_iter().zip(now) {
        let taken = matches!(before, Outcome::Released(_) | Outcome::Broken(_));
        if taken && matches!(now, Outcome::Refused(Refusal::NotHeld) | Outcome::Reaped) {
            *now = before;
        }
    }
}

/// Tells the operator's log what happened.
fn report(names: &[LockName], events: &[Event], by: &Actor) {
    for event in events {
        let (Event::Granted { lock, .. }
        | Event::Converted { lock, .. }
        | Event::Ended { lock, .. }
        | Event::Queued { lock, .. }
        | Event::Dropped { lock, .. }) = event;
        let name = &names[*lock];
        match event {
            Event::Granted { id, token, from_queue, .. } => {
                tracing::info!(lock = %name, id, token, from_queue, "granted");
            }
            Event::Converted { id, mode, token, .. } => tracing::info!(lock = %name, id, token, %mode, "converted"),
            Event::Ended { id, cause, .. } => {
                tracing::info!(lock = %name, id, cause = cause.as_str(), by = by.owner, "ended");
            }
            Event::Queued { id, ahead, .. } => tracing::info!(lock = %name, id, ahead, "queued"),
            Event::Dropped { id, why, .. } => tracing::info!(lock = %name, id, why, "left the queue"),
        }
    }
}

/// The record as this process may see it at this moment, without what has ended by itself.
pub(super) fn current(commits: &CommitLoop, snapshot: &Snapshot) -> (crate::lock::Record, Facts) {
    let facts = commits.facts_of(snapshot);
    let now = commits.clock.now();
    let record = view(&snapshot.state, Context { now: &now, facts: &facts, policy: &commits.policy });
    (record, facts)
}
