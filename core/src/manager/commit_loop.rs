//! The one loop that changes refs: read, decide, transact, and again after a conflict.
//!
//! Requests of one process for one lock share a swap: whoever comes while another thread is at it
//! leaves its request, and the thread takes all that were left in its next round. A thousand
//! enqueues are then a few writes, and threads don't fight each other for a `.lock` file.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    error::{Error, Result},
    error_code::ErrorCode,
    journal::{self, Actor, Batch},
    lock::{
        Call, Decision, Edit, Event, Expiry, Facts, Held, LockState, Outcome, Policy, Refusal, Request, codec,
        decide::{Context, decide, decide_together, view},
        fault::Fault,
    },
    name::{LockName, Namespace, RefName},
    ref_update::RefUpdates,
    store::{NewValue, Object, Oid, Parent, PreparedPush, RefEdit, RefStore, Transacted},
};

use super::snapshot::{self, JournalAt, Snapshot};

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
        let (now, facts) = (self.clock.now(), self.facts_of(snapshot));
        let context = Context { now: &now, facts: &facts, policy: &self.policy };
        let reap = [Call { lock: 0, request: Request::Reap }];
        !decide(std::slice::from_ref(&snapshot.state), &reap, context).edits.is_empty()
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
        let mut names: Vec<LockName> = Vec::new();
        let calls = requests.into_iter().map(|(name, request)| {
            let lock = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            Call { lock, request }
        });
        let calls = calls.collect();
        self.commit_calls(&names, calls, &mut Vec::new(), others, by, patience)
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
        for round in 0u32.. {
            let mut snapshots = std::mem::take(known);
            if fresh {
                let look = |(at, name)| self.look(name, snapshots.get(at));
                snapshots = names.iter().enumerate().map(look).collect::<Result<_>>()?;
            }
            let mut decision = self.decide(&snapshots, &calls);
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
            if self.clock.boot_ms().saturating_sub(started) > GIVE_UP_AFTER {
                break;
            }
            // Another process was faster. The first time that was chance; then it is a crowd.
            if round > 0 {
                // On a server each try is a question, and a crowd is spread over that.
                let question = self.store.round_trip().map_or(0, |time| time.as_micros() as u64 / 64);
                let spread = uuid::Uuid::new_v4().as_u64_pair().0 % ((100 + question) << round.min(7));
                self.clock.pause(Duration::from_micros(spread));
            }
        }
        Err(Error::new(
            ErrorCode::RepositoryBusy,
            format!(
                "the lock {} was changed by others for a minute, each time just before this process could; try again",
                names[0]
            ),
        ))
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

    /// Turns edits of locks into edits of refs.
    fn plan<'a>(&self, snapshots: &[Snapshot], decision: &'a Decision, by: &'a Actor) -> Result<Plan<'a>> {
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

/// The refs to change, and what that leaves.
struct Plan<'a> {
    edits: Vec<RefEdit>,
    /// Which edits are of journals, of which lock, what they add, and how long the journal then is.
    journals: Vec<(usize, usize, Batch<'a>, u64)>,
    superseded: Vec<Oid>,
    /// The locks whose records held no token, so that only the journal knows the highest.
    created: Vec<usize>,
}

impl Plan<'_> {
    /// What is known once the edits are made.
    fn settled(&self, mut known: Vec<Snapshot>, values: &[Option<Oid>], decision: &Decision) -> Vec<Snapshot> {
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
