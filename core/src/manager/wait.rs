//! One wait for a lock: what it asks, what it is told, and how it ends.

use std::{
    collections::HashSet,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    clock,
    error::{Error, Result},
    error_code::{ErrorCode, Retry},
    journal::Actor,
    lock::{
        BootTime, Claim, Holder, Opaque, Outcome, Record, Refusal, Request,
        convert::Conversion,
        decide::{Place, Wait},
    },
    name::LockName,
};

use super::{
    Inner, LockGuard, LockStatus, callback,
    leftovers::Leftover,
    request::{Checked, Patience, WaitProgress},
    tenure::TenureState,
};

/// What each step was answered, up to the first that wasn't granted.
pub(super) type Answer = Result<Vec<Outcome>>;

pub(super) type Done = Box<dyn FnOnce(Result<LockGuard>) + Send>;

/// For how long a wait that is over tries to leave the queue. Where it fails, a grant lapses after one claim window.
const LEAVING_AT_MOST: Duration = Duration::from_secs(1);

/// For how long a wait in the queue may fail to read or change its lock before it gives up, in milliseconds.
const FAILING_AT_MOST: u64 = 300_000;

/// A wait that goes on in the background. Dropping this doesn't end it.
#[derive(Clone, Debug)]
pub struct Waiting {
    cancelled: Arc<AtomicBool>,
    inner: std::sync::Weak<Inner>,
}

impl Waiting {
    /// Ends the wait: its `done` is called with [`ErrorCode::Cancelled`], unless it is being called already.
    pub fn cancel(&self) {
        if !self.cancelled.swap(true, SeqCst)
            && let Some(inner) = self.inner.upgrade()
        {
            inner.reactor().wake();
        }
    }
}

/// One wait, as the background thread keeps it.
pub(super) struct WaitEntry {
    checked: Checked,
    by: Actor,
    /// The tenure that it upgrades, if it is that.
    upgrades: Option<Arc<TenureState>>,
    /// Every id under which it ever asked; the last is the present one.
    ids: Vec<String>,
    /// Which step it waits for.
    at: usize,
    /// In how many steps the present id may stand in the record.
    asked: usize,
    /// The place that it had in each step's queue.
    places: Vec<Option<Place>>,
    /// When to renew what it has of several steps, on the boot clock.
    renew_at: Option<u64>,
    /// When it was queued first, on the boot clock.
    pub(super) since: u64,
    /// When it gives up, on the boot clock and on the wall clock.
    until: Option<(u64, u64)>,
    cancelled: Arc<AtomicBool>,
    done: Option<Done>,
    /// Since when it has failed to ask, on the boot clock; before it is queued, since when it asks.
    failing_since: Option<u64>,
    /// What the last try failed for, if it did.
    trouble: Option<String>,
    /// Whether its progress was told since it came.
    told: bool,
    /// Counts it among those that haven't been asked for.
    unasked: Option<Unasked>,
}

/// One of the waits that the background thread hasn't asked for yet.
struct Unasked(Arc<AtomicUsize>);

impl Drop for Unasked {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// What one round means for a wait.
#[allow(clippy::large_enum_variant)] // it is taken apart as soon as it is made
pub(super) enum Verdict {
    /// It goes on.
    Waits(WaitEntry),
    /// It is over, and whoever waited was told.
    Over,
}

impl WaitEntry {
    /// A wait to turn a tenure that is held into another mode.
    pub(super) fn upgrade(inner: &Arc<Inner>, checked: Checked, tenure: Arc<TenureState>) -> WaitEntry {
        let mut entry = WaitEntry::new(inner, checked, None);
        entry.upgrades = Some(tenure);
        entry
    }

    pub(super) fn new(inner: &Arc<Inner>, mut checked: Checked, done: Option<Done>) -> WaitEntry {
        let now = inner.commits.clock.now();
        let until = match checked.options.patience {
            // Who doesn't wait is answered at once.
            Patience::ForEver | Patience::For(Duration::ZERO) => None,
            Patience::For(wait) => {
                Some((now.boot.saturating_add(clock::millis(wait)), now.wall.saturating_add(clock::millis(wait))))
            }
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        for token in std::mem::take(&mut checked.options.cancel) {
            let (flag, inner) = (cancelled.clone(), Arc::downgrade(inner));
            token.listen(move || {
                flag.store(true, SeqCst);
                if let Some(inner) = inner.upgrade() {
                    inner.reactor().wake();
                }
            });
        }
        let (ids, by) = (vec![checked.claim.id.clone()], inner.actor());
        let places = vec![None; checked.steps.len()];
        WaitEntry {
            checked,
            by,
            upgrades: None,
            ids,
            at: 0,
            asked: 0,
            places,
            renew_at: None,
            since: now.boot,
            until,
            cancelled,
            done,
            failing_since: Some(now.boot),
            trouble: None,
            told: false,
            unasked: None,
        }
    }

    /// Counts it, if it has no place in a queue yet, until it has one or is over.
    pub(super) fn count_unasked(&mut self, count: &Arc<AtomicUsize>) {
        if !self.is_queued() && self.unasked.is_none() {
            count.fetch_add(1, SeqCst);
            self.unasked = Some(Unasked(count.clone()));
        }
    }

    pub(super) fn waiting(&self, inner: &Arc<Inner>) -> Waiting {
        Waiting { cancelled: self.cancelled.clone(), inner: Arc::downgrade(inner) }
    }

    /// The lock that it waits for at the moment.
    pub(super) fn name(&self) -> &LockName {
        &self.checked.steps[self.at].name
    }

    /// What was asked for, in words.
    fn title(&self) -> String {
        let names: Vec<&str> = self.checked.names.iter().map(LockName::as_str).collect();
        names.join(", ")
    }

    /// Whether it is for one lock alone, so that it can be asked for together with others.
    pub(super) fn is_single(&self) -> bool {
        self.checked.steps.len() == 1
    }

    /// When it has to be asked again whatever happens, on the boot clock.
    pub(super) fn renew_at(&self) -> Option<u64> {
        self.renew_at
    }

    pub(super) fn id(&self) -> &str {
        &self.checked.claim.id
    }

    pub(super) fn until(&self) -> Option<u64> {
        self.until.map(|(boot, _)| boot)
    }

    /// Whether it has been in the queue.
    pub(super) fn is_queued(&self) -> bool {
        self.places.iter().any(Option::is_some)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    pub(super) fn set_done(&mut self, done: Done) {
        self.done = Some(done);
    }

    /// Whether it queues at all.
    pub(super) fn may_wait(&self) -> bool {
        self.checked.options.patience != Patience::For(Duration::ZERO)
    }

    /// What it asks of the rules for one step: to hold, to claim what it was granted, or its place again.
    fn request_for(&self, at: usize, queues: bool) -> Request {
        let end = |boot| BootTime { boot: clock::boot_id().to_string(), at: boot };
        let wait =
            (queues && self.may_wait()).then(|| Wait { until: self.until.map(|(boot, wall)| (wall, end(boot))) });
        let (step, asked_before) = (&self.checked.steps[at], at < self.asked);
        match &self.upgrades {
            Some(tenure) => {
                let (id, tenure) = (self.id().to_owned(), tenure.request());
                Request::Convert(Conversion { tenure, mode: step.mode, id, wait, asked_before })
            }
            None => Request::Acquire {
                claim: Claim { mode: step.mode, slots: step.slots, ..self.checked.claim.clone() },
                priority: self.checked.options.priority,
                wait,
                place: self.places[at],
                asked_before,
            },
        }
    }

    /// What a wait for one lock asks.
    pub(super) fn request(&self) -> Request {
        self.request_for(0, true)
    }

    fn every_step(&self, request: impl Fn(usize) -> Request) -> Vec<(LockName, Request)> {
        self.checked.steps.iter().enumerate().map(|(at, step)| (step.name.clone(), request(at))).collect()
    }

    /// Goes on under another id: nothing was, or is left, of what was asked under the present one.
    pub(super) fn take_fresh_id(&mut self) {
        self.checked.claim.id = uuid::Uuid::new_v4().to_string();
        self.ids.push(self.checked.claim.id.clone());
        self.asked = 0;
    }

    /// Makes ready to ask, as this reading of the lock makes it necessary.
    pub(super) fn prepare(&mut self, record: &Record) {
        if self.is_single() && self.upgrades.is_none() && self.asked > 0 && !record.knows(self.id()) {
            self.take_fresh_id();
        }
    }

    /// Asks: for all that it wants, as one request.
    pub(super) fn ask(&self, inner: &Inner, queues: bool, patience: Option<Duration>) -> Answer {
        if self.is_single() {
            let request = self.request_for(0, queues);
            return Ok(vec![inner.commits.submit_within(self.name(), request, &self.by, patience)?]);
        }
        inner.commits.submit_together(self.every_step(|at| self.request_for(at, queues)), &self.by, patience)
    }

    /// Acquires without queueing.
    pub(super) fn take_now(&mut self, inner: &Arc<Inner>) -> Result<LockGuard> {
        loop {
            let mut outcomes = self.ask(inner, false, None).inspect_err(|error| self.leave_behind(inner, error))?;
            if let Some(guard) = self.granted(inner, &outcomes) {
                return Ok(guard);
            }
            let name = &self.checked.steps[outcomes.len().saturating_sub(1)].name;
            match outcomes.pop() {
                Some(Outcome::Refused(refusal)) => return Err(refused(name, refusal)),
                Some(Outcome::Gone) => self.take_fresh_id(),
                other => return Err(unfit(name, &other)),
            }
        }
    }

    /// The guard, if all that was asked for was granted.
    fn granted(&mut self, inner: &Arc<Inner>, outcomes: &[Outcome]) -> Option<LockGuard> {
        let holders: Vec<&Holder> = outcomes.iter().map(held).collect::<Option<_>>()?;
        (holders.len() == self.checked.steps.len()).then(|| self.guard(inner, &holders))
    }

    /// Takes an answer in. An answer that the id's tenure is over is asked again under a fresh id.
    pub(super) fn hear(mut self, inner: &Arc<Inner>, mut answer: Answer) -> Verdict {
        loop {
            let outcomes = match answer {
                Ok(outcomes) => outcomes,
                Err(error) => return self.stumble(inner, error),
            };
            if let Some(guard) = self.granted(inner, &outcomes) {
                return self.finish(Ok(guard));
            }
            let at = outcomes.len().saturating_sub(1);
            let error = match outcomes.into_iter().last() {
                Some(Outcome::Queued { place, .. }) => {
                    (self.failing_since, self.trouble, self.unasked) = (None, None, None);
                    self.places[at].get_or_insert(place);
                    (self.at, self.asked) = (at, at + 1);
                    let third = (self.checked.claim.ttl / 3).max(1);
                    self.renew_at = (at > 0 && self.upgrades.is_none()).then(|| inner.commits.clock.boot_ms() + third);
                    return Verdict::Waits(self);
                }
                Some(Outcome::Gone) => {
                    // It was granted to this one while it slept, and the claim window closed; or its place was lost.
                    self.let_go(inner);
                    self.take_fresh_id();
                    answer = self.ask(inner, true, Some(LEAVING_AT_MOST));
                    continue;
                }
                Some(Outcome::Refused(refusal)) if !self.may_wait() => refused(&self.checked.steps[at].name, refusal),
                // It may be written again, or end after its hour.
                Some(Outcome::Refused(Refusal::Opaque(Opaque::Missing { .. }))) => return Verdict::Waits(self),
                // Whoever is willing to wait is only refused like this when its time is over.
                Some(Outcome::Refused(Refusal::Held { holder, .. })) => {
                    let who = format!("; it is held by {}", super::status::describe_hold(&holder));
                    self.timed_out(&who, Some(*holder))
                }
                Some(Outcome::Refused(refusal)) => refused(&self.checked.steps[at].name, refusal),
                other => unfit(self.name(), &other),
            };
            self.let_go(inner);
            return self.finish(Err(error));
        }
    }

    /// Gives back what it has of several steps, and its place in a queue.
    fn let_go(&self, inner: &Arc<Inner>) {
        if self.is_single() && self.upgrades.is_none() {
            return;
        }
        if self.asked > 0 {
            self.leave(inner);
        }
    }

    /// Neither waits nor holds any more under any id; an upgrade is taken back.
    fn leave(&self, inner: &Arc<Inner>) {
        let back = |at: usize| match &self.upgrades {
            Some(tenure) => Request::Convert(Conversion {
                tenure: tenure.request(),
                mode: tenure.mode_of(at),
                id: self.id().to_owned(),
                wait: None,
                asked_before: true,
            }),
            None => Request::Cancel { ids: self.ids.clone() },
        };
        let mut left = if self.is_single() {
            let request = back(0);
            inner.commits.submit_within(self.name(), request, &self.by, Some(LEAVING_AT_MOST)).map(|one| vec![one])
        } else {
            let mut requests = self.every_step(back);
            requests.reverse();
            inner.commits.submit_together(requests, &self.by, Some(LEAVING_AT_MOST))
        };
        if let (Ok(outcomes), Some(tenure)) = (&mut left, &self.upgrades) {
            // It may have been granted at the same moment: turned back, it keeps the higher token.
            outcomes.reverse();
            let holders: Option<Vec<&Holder>> = outcomes.iter().map(held).collect();
            if let Some(holders) = holders.filter(|all| all.len() == self.checked.steps.len()) {
                tenure.converted(&holders);
            }
        }
        if let Err(error) = left {
            tracing::warn!(lock = %self.name(), %error, "a waiter could not leave the queue; it may be granted the lock for one claim window");
            self.leave_behind(inner, &error);
        }
    }

    /// Ends the wait because it would never end by itself.
    pub(super) fn fail(self, inner: &Arc<Inner>, error: Error) {
        self.leave(inner);
        let _ = self.finish(Err(error));
    }

    /// A failure that may pass is waited out; others end the wait.
    pub(super) fn stumble(mut self, inner: &Arc<Inner>, error: Error) -> Verdict {
        let now = inner.commits.clock.boot_ms();
        let failing = now.saturating_sub(*self.failing_since.get_or_insert(now));
        self.trouble = Some(error.to_string());
        // Before it queues, whoever asked wants to know soon.
        let most = match (self.is_queued(), error.code()) {
            (true, _) => FAILING_AT_MOST,
            (false, ErrorCode::RepositoryBusy) => inner.lock_timeout,
            (false, _) => 0,
        };
        if error.retry() == Retry::Later && failing < most {
            tracing::warn!(lock = %self.name(), %error, "a waiter can't read its lock; it will try again");
            return Verdict::Waits(self);
        }
        self.let_go(inner);
        if self.is_single() || self.asked == 0 {
            self.leave_behind(inner, &error);
        }
        self.finish(Err(error))
    }

    /// Of a question to a server that got no answer nobody knows whether it was carried out: what may have been
    /// granted is given back when the server can be asked again.
    fn leave_behind(&self, inner: &Arc<Inner>, error: &Error) {
        if inner.remote.is_none() || self.upgrades.is_some() || error.retry() != Retry::Later {
            return;
        }
        let cancel = Request::Cancel { ids: self.ids.clone() };
        let mut requests = self.every_step(|_| cancel.clone());
        requests.reverse();
        let until = inner.commits.clock.boot_ms().saturating_add(self.checked.claim.ttl);
        inner.reactor().leave_behind(inner, Leftover::new(inner, requests, self.by.clone(), until));
    }

    /// Leaves the queue because of a timeout or a cancel.
    pub(super) fn give_up(self, inner: &Arc<Inner>, status: Option<&LockStatus>) -> Verdict {
        self.leave(inner);
        let error = if self.is_cancelled() {
            Error::new(ErrorCode::Cancelled, format!("the wait for the lock {} was cancelled", self.title()))
        } else {
            let who = status.map(LockStatus::describe_holders).unwrap_or_default();
            let holder = status.and_then(|status| status.everybody().next()).map(|holder| holder.holder.clone());
            self.timed_out(&who, holder)
        };
        self.finish(Err(error))
    }

    fn timed_out(&self, who: &str, holder: Option<Holder>) -> Error {
        let waited = match self.checked.options.patience {
            Patience::For(wait) => format!(" after {:.1} s", wait.as_secs_f64()),
            Patience::ForEver => String::new(),
        };
        let title = self.title();
        let what = if title == self.name().as_str() { title } else { format!("{title} ({} of it)", self.name()) };
        let trouble = self.trouble.iter().map(|why| format!("; the last try failed: {why}")).collect::<String>();
        let advice = if trouble.is_empty() { "; wait longer, or try again later" } else { "" };
        let message = format!("the wait for the lock {what} ended{waited}{who}{trouble}{advice}");
        let error = Error::new(ErrorCode::Timeout, message);
        match holder {
            Some(holder) => error.with_holder(holder),
            None => error,
        }
    }

    pub(super) fn finish(mut self, result: Result<LockGuard>) -> Verdict {
        self.unasked = None;
        if let Some(done) = self.done.take() {
            callback::call("done", self.name(), move || done(result));
        }
        Verdict::Over
    }

    /// Tells of the wait, if that is news: because the lock has changed, or because the wait is new.
    pub(super) fn tell_progress(&mut self, status: &LockStatus, changed: bool) {
        if !changed && self.told {
            return;
        }
        self.told = true;
        let Some(progress) = &self.checked.options.progress else { return };
        let ahead = status.queue.iter().position(|waiter| waiter.waiter.claim.id == self.checked.claim.id).unwrap_or(0);
        let news = WaitProgress { ahead, status: status.clone() };
        callback::call("on_wait", &status.name, || progress.lock().unwrap_or_else(PoisonError::into_inner)(&news));
    }

    /// The guard of a tenure that this wait was granted.
    fn guard(&mut self, inner: &Arc<Inner>, holders: &[&Holder]) -> LockGuard {
        if let Some(tenure) = &self.upgrades {
            tenure.converted(holders);
            return LockGuard::beside(inner, tenure);
        }
        let options = &self.checked.options;
        let renews = options.renew.unwrap_or(self.checked.claim.bound == crate::lock::Bound::Process);
        let (now, proof) = (inner.commits.clock.boot_ms(), std::mem::take(&mut self.checked.proof));
        let names = self.checked.steps.iter().map(|step| step.name.clone()).collect();
        let shared = options.reentrant.then(|| self.checked.claim.owner.clone());
        let tenure = TenureState::new(names, holders, proof, renews, options.max_hold, now);
        inner.adopt(tenure.asked_for(&self.checked.names), shared)
    }
}

impl Drop for WaitEntry {
    /// Whoever waits is told, also when the wait ends in no ordinary way.
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            let error = Error::new(
                ErrorCode::Cancelled,
                format!(
                    "the wait for the lock {} ended because its manager is gone, or failed; open one and acquire again",
                    self.title()
                ),
            );
            callback::call("done", self.name(), move || done(Err(error)));
        }
    }
}

/// Which waits of this process one reading of the lock concerns.
pub(super) fn sort(waits: Vec<WaitEntry>, record: &Record, now: u64) -> (Vec<WaitEntry>, Vec<WaitEntry>) {
    let queued: HashSet<&str> = record.queue.iter().map(|waiter| &*waiter.claim.id).collect();
    // Who isn't queued was granted the lock, or has lost its place: both have to ask.
    waits.into_iter().partition(|wait| !queued.contains(wait.id()) || wait.renew_at.is_some_and(|at| at <= now))
}

/// What the waiting thread does meanwhile, and how often.
pub(super) type Attention<'a> = (Duration, &'a mut dyn FnMut());

/// Where a thread waits for its wait to end.
#[derive(Default)]
pub(super) struct Rendezvous {
    said: Mutex<Said>,
    there: Condvar,
}

#[derive(Default)]
struct Said {
    result: Option<Result<LockGuard>>,
    /// Whether the thread waits already. A free lock is granted before that, and to wake nobody costs a system call.
    awaited: bool,
}

impl Rendezvous {
    pub(super) fn put(&self, result: Result<LockGuard>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.result = Some(result);
        if said.awaited {
            self.there.notify_one();
        }
    }

    /// Waits for the end of the wait, and calls `attend` every so often while it lasts.
    pub(super) fn take(&self, attention: Option<Attention<'_>>) -> Result<LockGuard> {
        let (every, mut attend) = attention.unzip();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = said.result.take() {
                return result;
            }
            said.awaited = true;
            said = match (every, &mut attend) {
                (Some(every), Some(attend)) => {
                    let waited = self.there.wait_timeout(said, every).unwrap_or_else(PoisonError::into_inner);
                    if waited.1.timed_out() && waited.0.result.is_none() {
                        drop(waited.0);
                        attend();
                        self.said.lock().unwrap_or_else(PoisonError::into_inner)
                    } else {
                        waited.0
                    }
                }
                _ => self.there.wait(said).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// What was granted by this answer, if anything was.
fn held(outcome: &Outcome) -> Option<&Holder> {
    match outcome {
        Outcome::Granted(holder) | Outcome::Converted(holder) => Some(holder),
        _ => None,
    }
}

/// An answer that no question of this kind has.
fn unfit(name: &LockName, outcome: &Option<Outcome>) -> Error {
    Error::new(ErrorCode::Io, format!("the lock {name} gave an answer that fits no question: {outcome:?}"))
}

/// What a refusal is as an error.
pub(super) fn refused(name: &LockName, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Held { holder, waiting } => {
            let queue = match waiting {
                0 => String::new(),
                1 => ", and one more waits".to_owned(),
                more => format!(", and {more} more wait"),
            };
            let message = format!(
                "the lock {name} is held by {}{queue}; wait for it, or try again later",
                super::status::describe_hold(&holder)
            );
            Error::new(ErrorCode::Held, message).with_holder(*holder)
        }
        Refusal::QueueFull => Error::new(
            ErrorCode::QueueFull,
            format!(
                "the lock {name} has {} waiters, which is the most; try again later",
                crate::lock::record::MAX_WAITERS
            ),
        ),
        Refusal::NotHeld => super::tenure::lost_error(name, super::tenure::TAKEN_AWAY),
        Refusal::NotOwner(holder) => {
            let message = format!(
                "the lock {name} is held by {}, and this is neither its handle nor its fingerprint; `git lock break` ends it by force",
                super::status::describe(&holder)
            );
            Error::new(ErrorCode::NotOwner, message).with_holder(*holder)
        }
        Refusal::SlotsDiffer { theirs } => Error::new(
            ErrorCode::SlotsDiffer,
            format!("the lock {name} is in use with {theirs} slots; ask for as many, or wait until nobody uses it"),
        ),
        Refusal::HeldBelow(holder) => {
            let message = format!(
                "nobody holds the lock {name} itself: {} holds something below it; `git lock list` shows what, and that can be broken",
                super::status::describe(&holder)
            );
            Error::new(ErrorCode::LockLost, message).with_holder(*holder)
        }
        Refusal::Deadlock(holder) => {
            let message = format!(
                "the lock {name} can't be upgraded: {} waits to upgrade it too, and each would wait for the other to let go; \
                 release it and acquire it anew",
                super::status::describe(&holder)
            );
            Error::new(ErrorCode::Deadlock, message).with_holder(*holder)
        }
        Refusal::Opaque(Opaque::Corrupt(why)) => Error::new(
            ErrorCode::RecordCorrupt,
            format!(
                "the lock {name} is held, but its record can't be read: {why}; `git lock break {name}` ends it if nobody works under it"
            ),
        ),
        Refusal::Opaque(Opaque::TooNew(version)) => Error::new(
            ErrorCode::RecordTooNew,
            format!(
                "the lock {name} is held by a newer gitlock, whose record (version {version}) this one must not change; use that version"
            ),
        ),
        Refusal::Opaque(Opaque::Missing { .. }) => Error::new(
            ErrorCode::RecordMissing,
            format!(
                "the lock {name} counts as held, but its record is not in the repository, perhaps pruned; it ends an hour after it was \
                 first seen so, or by `git lock break {name}`"
            ),
        ),
        Refusal::Opaque(Opaque::Foreign(why)) => Error::new(ErrorCode::NameBlocked, why),
        Refusal::TokensExhausted => Error::new(
            ErrorCode::RecordCorrupt,
            format!(
                "the journal of the lock {name} claims the highest possible token; delete its journal ref if that isn't true"
            ),
        ),
    }
}
