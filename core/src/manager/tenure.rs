//! What a guard and the background thread share about one tenure.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    clock,
    error::{Error, Result},
    error_code::ErrorCode,
    lock::{
        Claim, Holder, Mode, Outcome, Record, Request, decide::Tenure, expiry::safety_margin, fault::Faults,
        fit::blocks,
    },
    name::LockName,
};

use super::{Inner, callback};

pub(super) type LostFn = Box<dyn FnOnce(&Error) + Send>;
pub(super) type WantedFn = Arc<Mutex<dyn FnMut(&Wanted) + Send>>;

/// Who waits for what a tenure holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// How many wait that the tenure keeps out.
    pub waiters: usize,
    /// The highest priority among them; `None` if nobody waits.
    pub priority: Option<i32>,
}

impl Wanted {
    /// Adds those whom this tenure keeps waiting for one lock.
    pub(super) fn count(&mut self, record: &Record, id: &str) {
        let Some(holder) = record.holder(id) else { return };
        // Its own upgrade waits for others.
        let others = record.queue.iter().filter(|waiter| waiter.claim.upgrades.as_deref() != Some(id));
        // Slots fit beside each other, but who waits for one waits for any of their holders.
        let both_slots = |claim: &Claim| claim.slots.is_some() && holder.claim.slots.is_some();
        let kept = |claim: &Claim| blocks(&holder.claim, claim, Faults::NONE) || both_slots(claim);
        for waiter in others.filter(|waiter| kept(&waiter.claim)) {
            self.waiters += 1;
            self.priority = self.priority.max(Some(waiter.priority));
        }
    }
}

/// One tenure: of a lock, with what it takes above it, or of several at once.
pub(super) struct TenureState {
    /// The names that were asked for.
    asked: Vec<LockName>,
    /// Everything that it holds, ancestors first.
    names: Vec<LockName>,
    pub(super) id: String,
    pub(super) proof: String,
    parts: Mutex<Vec<Part>>,
    ttl: AtomicU64,
    /// The lease's end on the boot clock.
    lease_end: AtomicU64,
    /// The boot time after which it isn't renewed any more.
    pub(super) renew_until: u64,
    pub(super) renews: bool,
    over: AtomicBool,
    /// Whether its own release is under way, so that its end is no loss.
    pub(super) ending: AtomicBool,
    lost: Mutex<Lost>,
    /// How many guards have it.
    guards: AtomicU32,
    /// Whether it goes on when none has.
    pub(super) detached: AtomicBool,
    /// How many pushes are under way that a renewal would have start over.
    pushes: AtomicU32,
    /// Who wants to know of waiters, and what each was told last.
    wanted: Mutex<Vec<(Wanted, WantedFn)>>,
}

/// As long as this is there, a tenure isn't renewed in the background.
pub(super) struct Still<'a>(&'a AtomicU32);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[derive(Default)]
struct Lost {
    why: Option<String>,
    /// Why it will be, if it is found taken away.
    foreseen: Option<String>,
    listeners: Vec<LostFn>,
}

/// What it holds under one name.
#[derive(Clone, Copy, Debug)]
struct Part {
    mode: Mode,
    token: Option<u64>,
    slot: Option<u32>,
}

impl Part {
    fn of(holder: &Holder) -> Part {
        Part { mode: holder.claim.mode, token: holder.token, slot: holder.slot }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TenureState {
    /// A tenure of these names, as each one's record says.
    pub(super) fn new(
        names: Vec<LockName>,
        holders: &[&Holder],
        proof: String,
        renews: bool,
        max_hold: Option<Duration>,
        now: u64,
    ) -> TenureState {
        let claim = &holders[0].claim;
        TenureState {
            asked: names.clone(),
            names,
            id: claim.id.clone(),
            proof,
            parts: Mutex::new(holders.iter().map(|holder| Part::of(holder)).collect()),
            ttl: AtomicU64::new(claim.ttl),
            lease_end: AtomicU64::new(lease_end(holders.iter().copied())),
            renew_until: max_hold.map_or(u64::MAX, |max| now.saturating_add(clock::millis(max))),
            renews,
            over: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            lost: Mutex::default(),
            guards: AtomicU32::new(1),
            detached: AtomicBool::new(false),
            pushes: AtomicU32::new(0),
            wanted: Mutex::default(),
        }
    }

    /// Keeps the background thread from renewing it, which would change what a push compares with.
    pub(super) fn hold_still(&self) -> Still<'_> {
        self.pushes.fetch_add(1, SeqCst);
        Still(&self.pushes)
    }

    pub(super) fn is_still(&self) -> bool {
        self.pushes.load(SeqCst) > 0
    }

    /// Says which of the names were asked for.
    pub(super) fn asked_for(mut self, names: &[LockName]) -> TenureState {
        self.asked = names.to_vec();
        self
    }

    /// The first of the names that were asked for.
    pub(super) fn name(&self) -> &LockName {
        &self.asked[0]
    }

    pub(super) fn asked(&self) -> &[LockName] {
        &self.asked
    }

    pub(super) fn names(&self) -> &[LockName] {
        &self.names
    }

    fn part(&self, name: &LockName) -> Option<Part> {
        let at = self.names.iter().position(|other| other == name)?;
        lock(&self.parts).get(at).copied()
    }

    /// The token that it has of this name.
    pub(super) fn token(&self, name: &LockName) -> Option<u64> {
        self.part(name)?.token
    }

    pub(super) fn slot(&self) -> Option<u32> {
        self.part(self.name())?.slot
    }

    pub(super) fn mode(&self) -> Mode {
        self.part(self.name()).map_or(Mode::Exclusive, |part| part.mode)
    }

    pub(super) fn mode_of(&self, at: usize) -> Mode {
        lock(&self.parts)[at].mode
    }

    /// It has these modes and tokens from now on. A sync may have raised a token.
    pub(super) fn converted(&self, holders: &[&Holder]) {
        *lock(&self.parts) = holders.iter().map(|holder| Part::of(holder)).collect();
    }

    /// Whether one of these encoded names is one of its own.
    pub(super) fn is_any_of(&self, encoded: &[String]) -> bool {
        self.names.iter().any(|name| encoded.iter().any(|other| other == name.encoded()))
    }

    pub(super) fn request(&self) -> Tenure {
        Tenure { id: Some(self.id.clone()), proof: self.proof.clone() }
    }

    /// Asks the same for everything that it holds: ancestors first, or last if that `ends` it.
    pub(super) fn submit(&self, inner: &Inner, request: &Request, patience: Option<Duration>) -> Result<Vec<Outcome>> {
        inner.submit_for(&self.names, request, patience)
    }

    /// Ends it. What was asked for must be released; an intent that had ended before is no loss.
    pub(super) fn release(&self, inner: &Inner) -> Result<Outcome> {
        let outcomes = self.submit(inner, &Request::Release { tenure: self.request() }, None)?;
        let asked = self.names.iter().rev().zip(outcomes).filter(|(name, _)| self.asked.contains(name));
        let mut outcomes: Vec<Outcome> = asked.map(|(_, outcome)| outcome).collect();
        let failed = outcomes.iter().position(|outcome| !matches!(outcome, Outcome::Released(_)));
        Ok(outcomes.swap_remove(failed.unwrap_or(0)))
    }

    /// Gives back what is left of it where it holds several locks and has lost one.
    pub(super) fn let_go(&self, inner: &Inner, patience: Option<Duration>) {
        if self.names.len() > 1
            && let Err(error) = self.submit(inner, &Request::Cancel { ids: vec![self.id.clone()] }, patience)
        {
            tracing::warn!(lock = %self.name(), %error, "what is left of a lost tenure stays until its lease ends");
        }
    }

    pub(super) fn ttl(&self) -> u64 {
        self.ttl.load(SeqCst)
    }

    /// Takes the answers to an extension in. Returns whether all of it was extended.
    pub(super) fn prolonged(&self, outcomes: &[Outcome]) -> bool {
        let holders = outcomes.iter().map(|outcome| match outcome {
            Outcome::Extended(holder) => Some(holder),
            _ => None,
        });
        let Some(holders) = holders.collect::<Option<Vec<&Holder>>>().filter(|all| all.len() == self.names.len())
        else {
            return false;
        };
        self.converted(&holders);
        self.ttl.store(holders[0].claim.ttl, SeqCst);
        self.lease_end.store(lease_end(holders.into_iter()), SeqCst);
        true
    }

    /// When its lease ends, on the boot clock.
    pub(super) fn lease_end(&self) -> u64 {
        self.lease_end.load(SeqCst)
    }

    /// The boot time at which the guard counts itself lost, before anybody may end the lease.
    pub(super) fn lost_at(&self, inner: &Inner) -> u64 {
        let margin = safety_margin(self.ttl(), inner.commits.policy.faults);
        self.lease_end.load(SeqCst).saturating_sub(margin)
    }

    /// Counts another guard of it, unless the last one is giving it up.
    pub(super) fn join(&self) -> bool {
        let more = |guards: u32| (guards > 0).then(|| guards + 1);
        !self.is_ending() && self.guards.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Counts a guard less. Returns whether that was the last.
    pub(super) fn part_with(&self) -> bool {
        self.guards.fetch_sub(1, SeqCst) == 1
    }

    /// Released, or lost.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// Counts it as over. Returns whether it was before.
    pub(super) fn end(&self) -> bool {
        self.over.swap(true, SeqCst)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_over() || self.ending.load(SeqCst)
    }

    /// Counts the tenure as lost, and tells who wants to know.
    pub(super) fn lose(&self, why: &str) {
        let (why, listeners) = {
            let mut lost = lock(&self.lost);
            if self.end() {
                return;
            }
            let why = lost.foreseen.take().unwrap_or_else(|| why.to_owned());
            lost.why = Some(why.clone());
            (why, std::mem::take(&mut lost.listeners))
        };
        let why = &*why;
        tracing::error!(lock = %self.name(), id = self.id, why, "a lock was lost");
        for listener in listeners {
            callback::call("on_lost", self.name(), || listener(&lost_error(self.name(), why)));
        }
    }

    /// Says why it is about to be taken away: whoever finds that done tells this.
    pub(super) fn foresee_loss(&self, why: &str) {
        lock(&self.lost).foreseen = Some(why.to_owned());
    }

    pub(super) fn why_lost(&self) -> Option<String> {
        lock(&self.lost).why.clone()
    }

    /// Keeps a listener for a loss; gives it back if the tenure is over.
    pub(super) fn listen(&self, listener: LostFn) -> Option<LostFn> {
        let mut lost = lock(&self.lost);
        if self.is_over() {
            return Some(listener);
        }
        lost.listeners.push(listener);
        None
    }

    pub(super) fn listen_wanted(&self, listener: WantedFn) {
        lock(&self.wanted).push((Wanted::default(), listener));
    }

    /// Tells of who waits everybody whom that is news to.
    pub(super) fn tell_wanted(&self, now: Wanted) {
        let news =
            |(told, listener): &mut (Wanted, WantedFn)| (std::mem::replace(told, now) != now).then(|| listener.clone());
        let listeners: Vec<WantedFn> = lock(&self.wanted).iter_mut().filter_map(news).collect();
        for listener in listeners {
            callback::call("on_wanted", self.name(), || {
                listener.lock().unwrap_or_else(PoisonError::into_inner)(&now);
            });
        }
    }
}

fn lease_end<'a>(holders: impl Iterator<Item = &'a Holder>) -> u64 {
    holders.map(|holder| holder.end.as_ref().map_or(0, |end| end.at)).min().unwrap_or(0)
}

pub(super) fn lost_error(name: &LockName, why: &str) -> Error {
    Error::new(
        ErrorCode::LockLost,
        format!("the lock {name} is lost: {why}; stop what was done under it, and acquire it again before going on"),
    )
}

/// Why a tenure that isn't in its record any more ended, as far as anybody can tell.
pub(super) const TAKEN_AWAY: &str =
    "its tenure has ended (see `git lock log`): it was broken, released elsewhere, overwritten, or its lease ran out";
