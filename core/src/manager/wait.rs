//! One wait for a lock: what it asks, what it is told, and how it ends.

use std::{
    collections::HashSet,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use crate::{
    clock,
    error::{Error, Result},
    error_code::{ErrorCode, Retry},
    journal::Actor,
    lock::{
        BootTime, Holder, Opaque, Outcome, Record, Refusal, Request,
        decide::{Place, Wait},
    },
    name::LockName,
};

use super::{
    Inner, LockGuard, LockStatus, callback,
    guard::TenureState,
    request::{Checked, Patience, WaitProgress},
};

pub(super) type Done = Box<dyn FnOnce(Result<LockGuard>) + Send>;

/// For how long a wait that is over tries to leave the queue. Where it fails, a grant lapses after one claim window.
const LEAVING_AT_MOST: std::time::Duration = std::time::Duration::from_secs(1);

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
    /// Every id under which it ever asked; the last is the present one.
    ids: Vec<String>,
    /// Whether the present one was in the queue.
    queued: bool,
    place: Option<Place>,
    /// When it gives up, on the boot clock and on the wall clock.
    until: Option<(u64, u64)>,
    cancelled: Arc<AtomicBool>,
    done: Option<Done>,
    /// Since when it has failed to ask, on the boot clock; before it is queued, since when it asks.
    failing_since: Option<u64>,
    /// Whether its progress was told since it came.
    told: bool,
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
    pub(super) fn new(inner: &Arc<Inner>, mut checked: Checked, done: Option<Done>) -> WaitEntry {
        let now = inner.commits.clock.now();
        let until = match checked.options.patience {
            Patience::ForEver => None,
            Patience::For(wait) => {
                Some((now.boot.saturating_add(clock::millis(wait)), now.wall.saturating_add(clock::millis(wait))))
            }
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        if let Some(token) = checked.options.cancel.take() {
            let (flag, inner) = (cancelled.clone(), Arc::downgrade(inner));
            token.listen(move || {
                flag.store(true, SeqCst);
                if let Some(inner) = inner.upgrade() {
                    inner.reactor().wake();
                }
            });
        }
        let (ids, by) = (vec![checked.claim.id.clone()], inner.actor());
        WaitEntry {
            checked,
            by,
            ids,
            queued: false,
            place: None,
            until,
            cancelled,
            done,
            failing_since: Some(now.boot),
            told: false,
        }
    }

    pub(super) fn waiting(&self, inner: &Arc<Inner>) -> Waiting {
        Waiting { cancelled: self.cancelled.clone(), inner: Arc::downgrade(inner) }
    }

    pub(super) fn name(&self) -> &LockName {
        &self.checked.name
    }

    pub(super) fn id(&self) -> &str {
        &self.checked.claim.id
    }

    pub(super) fn until(&self) -> Option<u64> {
        self.until.map(|(boot, _)| boot)
    }

    /// Whether it has been in the queue.
    pub(super) fn is_queued(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    pub(super) fn set_done(&mut self, done: Done) {
        self.done = Some(done);
    }

    /// What it asks of the rules: to hold, to claim what it was granted, or its place again.
    pub(super) fn request(&self) -> Request {
        let end = |boot| BootTime { boot: clock::boot_id().to_string(), at: boot };
        Request::Acquire {
            claim: self.checked.claim.clone(),
            priority: self.checked.options.priority,
            wait: Some(Wait { until: self.until.map(|(boot, wall)| (wall, end(boot))) }),
            place: self.place,
            asked_before: self.queued,
        }
    }

    /// What it asks if it doesn't queue.
    pub(super) fn request_now(&self) -> Request {
        Request::Acquire {
            claim: self.checked.claim.clone(),
            priority: self.checked.options.priority,
            wait: None,
            place: None,
            asked_before: false,
        }
    }

    /// Goes on under another id: nothing was, or is left, of what was asked under the present one.
    pub(super) fn take_fresh_id(&mut self) {
        self.checked.claim.id = uuid::Uuid::new_v4().to_string();
        self.ids.push(self.checked.claim.id.clone());
        self.queued = false;
    }

    /// Makes ready to ask, as this reading of the lock makes it necessary.
    pub(super) fn prepare(&mut self, record: &Record) {
        if self.queued && !record.knows(self.id()) {
            self.take_fresh_id();
        }
    }

    pub(super) fn ask(&self, inner: &Inner) -> Result<Outcome> {
        inner.commits.submit(self.name(), self.request(), &self.by)
    }

    /// Takes an answer in. An answer that the id's tenure is over is asked again under a fresh id.
    pub(super) fn hear(mut self, inner: &Arc<Inner>, mut answer: Result<Outcome>) -> Verdict {
        loop {
            match answer {
                Ok(Outcome::Granted(holder)) => {
                    let guard = self.guard(inner, &holder);
                    return self.finish(Ok(guard));
                }
                Ok(Outcome::Queued { place, .. }) => {
                    self.failing_since = None;
                    self.place.get_or_insert(place);
                    self.queued = true;
                    return Verdict::Waits(self);
                }
                Ok(Outcome::Gone) => {
                    // It was granted to this one while it slept, and the claim window closed; or its place was lost.
                    self.take_fresh_id();
                    answer = self.ask(inner);
                }
                // It may be written again, or end after its hour.
                Ok(Outcome::Refused(Refusal::Opaque(Opaque::Missing { .. }))) => return Verdict::Waits(self),
                // Whoever is willing to wait is only refused like this when its time is over.
                Ok(Outcome::Refused(Refusal::Held { holder, .. })) => {
                    let who = format!("; it is held by {}", super::status::describe(&holder));
                    let error = self.timed_out(&who, Some(*holder));
                    return self.finish(Err(error));
                }
                Ok(Outcome::Refused(refusal)) => {
                    let error = refused(self.name(), refusal);
                    return self.finish(Err(error));
                }
                Ok(other) => {
                    let error = unfit(self.name(), &other);
                    return self.finish(Err(error));
                }
                Err(error) => return self.stumble(inner, error),
            }
        }
    }

    /// A failure that may pass is waited out; others end the wait.
    pub(super) fn stumble(mut self, inner: &Inner, error: Error) -> Verdict {
        let now = inner.commits.clock.boot_ms();
        let failing = now.saturating_sub(*self.failing_since.get_or_insert(now));
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
        self.finish(Err(error))
    }

    /// Leaves the queue because of a timeout or a cancel.
    pub(super) fn give_up(self, inner: &Inner, status: Option<&LockStatus>) -> Verdict {
        let request = Request::Cancel { ids: self.ids.clone() };
        if let Err(error) = inner.commits.submit_within(self.name(), request, &self.by, Some(LEAVING_AT_MOST)) {
            tracing::warn!(lock = %self.name(), %error, "a waiter could not leave the queue; it may be granted the lock for one claim window");
        }
        let error = if self.is_cancelled() {
            Error::new(ErrorCode::Cancelled, format!("the wait for the lock {} was cancelled", self.name()))
        } else {
            let who = status.map(LockStatus::describe_holders).unwrap_or_default();
            let holder = status.and_then(|status| status.holders.first()).map(|holder| holder.holder.clone());
            self.timed_out(&who, holder)
        };
        self.finish(Err(error))
    }

    fn timed_out(&self, who: &str, holder: Option<Holder>) -> Error {
        let waited = match self.checked.options.patience {
            Patience::For(wait) => format!(" after {:.1} s", wait.as_secs_f64()),
            Patience::ForEver => String::new(),
        };
        let name = self.name();
        let message = format!("the wait for the lock {name} ended{waited}{who}; wait longer, or try again later");
        let error = Error::new(ErrorCode::Timeout, message);
        match holder {
            Some(holder) => error.with_holder(holder),
            None => error,
        }
    }

    pub(super) fn finish(mut self, result: Result<LockGuard>) -> Verdict {
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
        let Some(progress) = &mut self.checked.options.progress else { return };
        let ahead = status.queue.iter().position(|waiter| waiter.waiter.claim.id == self.checked.claim.id).unwrap_or(0);
        let news = WaitProgress { ahead, status: status.clone() };
        callback::call("on_wait", &self.checked.name, || progress(&news));
    }

    /// The guard of a tenure that this wait was granted.
    pub(super) fn guard(&mut self, inner: &Arc<Inner>, holder: &Holder) -> LockGuard {
        let options = &self.checked.options;
        let renews = options.renew.unwrap_or(holder.claim.bound == crate::lock::Bound::Process);
        let (now, proof) = (inner.commits.clock.boot_ms(), std::mem::take(&mut self.checked.proof));
        let tenure = TenureState::new(self.checked.name.clone(), holder, proof, renews, options.max_hold, now);
        inner.adopt(tenure)
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
                    self.checked.name
                ),
            );
            callback::call("done", &self.checked.name, move || done(Err(error)));
        }
    }
}

/// Which waits of this process one reading of the lock concerns.
pub(super) fn sort(waits: Vec<WaitEntry>, record: &Record) -> (Vec<WaitEntry>, Vec<WaitEntry>) {
    let queued: HashSet<&str> = record.queue.iter().map(|waiter| &*waiter.claim.id).collect();
    // Who isn't queued was granted the lock, or has lost its place: both have to ask.
    waits.into_iter().partition(|wait| !queued.contains(wait.id()))
}

/// What the waiting thread does meanwhile, and how often.
pub(super) type Attention<'a> = (std::time::Duration, &'a mut dyn FnMut());

/// Where a thread waits for its wait to end.
#[derive(Default)]
pub(super) struct Rendezvous {
    result: Mutex<Option<Result<LockGuard>>>,
    there: Condvar,
}

impl Rendezvous {
    pub(super) fn put(&self, result: Result<LockGuard>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.there.notify_one();
    }

    /// Waits for the end of the wait, and calls `attend` every so often while it lasts.
    pub(super) fn take(&self, attention: Option<Attention<'_>>) -> Result<LockGuard> {
        let (every, mut attend) = attention.unzip();
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            result = match (every, &mut attend) {
                (Some(every), Some(attend)) => {
                    let waited = self.there.wait_timeout(result, every).unwrap_or_else(PoisonError::into_inner);
                    if waited.1.timed_out() && waited.0.is_none() {
                        drop(waited.0);
                        attend();
                        self.result.lock().unwrap_or_else(PoisonError::into_inner)
                    } else {
                        waited.0
                    }
                }
                _ => self.there.wait(result).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// An answer that no question of this kind has.
pub(super) fn unfit(name: &LockName, outcome: &Outcome) -> Error {
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
                super::status::describe(&holder)
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
        Refusal::NotHeld => super::guard::lost_error(name, super::guard::TAKEN_AWAY),
        Refusal::NotOwner(holder) => {
            let message = format!(
                "the lock {name} is held by {}, and this is neither its handle nor its fingerprint; `git lock break` ends it by force",
                super::status::describe(&holder)
            );
            Error::new(ErrorCode::NotOwner, message).with_holder(*holder)
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
