//! What a caller asks for: the options of one acquire.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    cancel::CancelToken,
    clock,
    error::{Error, Result},
    error_code::ErrorCode,
    handle::LockHandle,
    lock::{
        Bound, Claim, Mode, fault, fingerprint,
        hierarchy::{Step, steps},
        queue::MAX_PRIORITY,
        record::MAX_SLOTS,
    },
    name::LockName,
    options::DEFAULT_TTL,
    process,
};

use super::{LockGuard, LockManager, tenure::TenureState, wait::Waiting};

/// The longest lease, in milliseconds: a hundred years.
pub(super) const MAX_TTL: u64 = 100 * 366 * 86_400_000;

/// The longest owner, reason and session, in bytes.
const MAX_TEXT: usize = 512;

/// How long an acquire may queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    ForEver,
    For(Duration),
}

/// What a waiter sees of its wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitProgress {
    /// How many wait before it.
    pub ahead: usize,
    /// The lock as it is.
    pub status: super::LockStatus,
}

pub(super) type ProgressFn = Arc<Mutex<dyn FnMut(&WaitProgress) + Send>>;

/// The options of one acquire. [`LockManager::lock`] makes it.
#[must_use = "a request does nothing until it is acquired"]
pub struct LockRequest<'a> {
    manager: &'a LockManager,
    names: Vec<String>,
    pub(super) options: RequestOptions,
}

#[derive(Clone)]
pub(crate) struct RequestOptions {
    mode: Mode,
    ttl: Duration,
    pub(super) patience: Patience,
    pub(super) priority: i32,
    reason: Option<String>,
    slots: Option<u32>,
    within: Option<LockHandle>,
    pub(super) reentrant: bool,
    owner: Option<String>,
    fingerprint: Option<String>,
    process_group: Option<u32>,
    pub(super) renew: Option<bool>,
    pub(super) max_hold: Option<Duration>,
    pub(super) cancel: Vec<CancelToken>,
    pub(super) progress: Option<ProgressFn>,
}

impl Default for RequestOptions {
    fn default() -> RequestOptions {
        RequestOptions {
            mode: Mode::Exclusive,
            ttl: DEFAULT_TTL,
            patience: Patience::ForEver,
            priority: 0,
            reason: None,
            slots: None,
            within: None,
            reentrant: false,
            owner: None,
            fingerprint: None,
            process_group: None,
            renew: None,
            max_hold: None,
            cancel: Vec::new(),
            progress: None,
        }
    }
}

impl RequestOptions {
    /// How long it may queue; `None`: for ever.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.patience {
            Patience::ForEver => None,
            Patience::For(wait) => Some(wait),
        }
    }

    /// As one step of something larger that waits so long.
    pub(crate) fn for_step(&self, wait: Option<Duration>) -> RequestOptions {
        let patience = wait.map_or(Patience::ForEver, Patience::For);
        // Whoever watches a wait needn't be there any more when nothing is waited for.
        let progress = self.progress.clone().filter(|_| wait != Some(Duration::ZERO));
        RequestOptions { patience, progress, ..self.clone() }
    }

    /// By this owner, unless another is named.
    pub(crate) fn owned_by(&mut self, owner: impl FnOnce() -> String) {
        if self.owner.is_none() && self.within.is_none() {
            self.owner = Some(owner());
        }
    }
}

/// A request that was checked.
pub(super) struct Checked {
    /// The names that were asked for.
    pub(super) names: Vec<LockName>,
    /// What has to be taken for that, in this order.
    pub(super) steps: Vec<Step>,
    pub(super) claim: Claim,
    /// What proves the right to it.
    pub(super) proof: String,
    pub(super) options: RequestOptions,
}

impl<'a> LockRequest<'a> {
    pub(super) fn new(manager: &'a LockManager, names: Vec<String>) -> LockRequest<'a> {
        LockRequest { manager, names, options: RequestOptions::default() }
    }

    /// Beside other shared holders. Default: exclusive.
    pub fn shared(mut self) -> Self {
        self.options.mode = Mode::Shared;
        self
    }

    /// One of so many slots, 1 to 1,024: as many may hold at once, and [`LockGuard::slot`] says which
    /// one each has. Everybody has to say the same number. Default: none, the lock is one whole.
    pub fn slots(mut self, slots: u32) -> Self {
        self.options.slots = Some(slots);
        self
    }

    /// As part of the tenure of this handle: by its owner, who takes what is below its lock at once.
    pub fn within(mut self, handle: &LockHandle) -> Self {
        self.options.within = Some(handle.clone());
        self
    }

    /// Once more, if the same owner holds the lock already through this manager. It is held until
    /// every guard of it was released.
    pub fn reentrant(mut self, reentrant: bool) -> Self {
        self.options.reentrant = reentrant;
        self
    }

    /// The length of the lease, each time it is claimed, renewed or extended. From one millisecond
    /// to a hundred years. Default: 30 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = ttl;
        self
    }

    /// How long [`LockRequest::acquire`] may queue. Default: for ever.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.options.patience = Patience::For(wait);
        self
    }

    /// Higher goes first: each step is worth 30 s of waiting. Default: 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// Why the lock is wanted, for whoever waits and for the journal. At most 512 bytes.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.options.reason = Some(reason.into());
        self
    }

    /// The session that holds and waits. Default: the manager's, or one for each thread.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.options.owner = Some(owner.into());
        self
    }

    /// A word of the caller's own as the right to release and extend. The tenure is then bound to
    /// its lease alone, outlives this process, and isn't renewed unless asked for. It stands in
    /// the record for everybody to read. At most 256 bytes.
    pub fn fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.options.fingerprint = Some(fingerprint.into());
        self
    }

    /// Whether the lease is renewed while the guard lives. Default: yes, unless there is a fingerprint.
    pub fn renew(mut self, renew: bool) -> Self {
        self.options.renew = Some(renew);
        self
    }

    /// For how long it is renewed at most, so that a holder that hangs loses the lock. Default: no limit.
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.options.max_hold = Some(max_hold);
        self
    }

    /// Ends the wait when this token is cancelled. Given several, any of them ends it.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.options.cancel.push(token.clone());
        self
    }

    /// A process group that works under the lock: the owner doesn't count as dead while any of it runs.
    pub fn process_group(mut self, group: u32) -> Self {
        self.options.process_group = Some(group);
        self
    }

    /// Called when the wait begins and whenever what it waits for changes, on the manager's
    /// background thread or the acquiring one. It must not block.
    pub fn on_wait(mut self, progress: impl FnMut(&WaitProgress) + Send + 'static) -> Self {
        self.options.progress = Some(Arc::new(Mutex::new(progress)));
        self
    }

    /// With what was set for another request.
    pub(crate) fn with_options(mut self, options: RequestOptions) -> Self {
        self.options = options;
        self
    }

    pub(crate) fn into_options(self) -> RequestOptions {
        self.options
    }

    /// Acquires the lock, queueing for it if it is held.
    ///
    /// # Errors
    /// [`ErrorCode::Timeout`] when the wait is over, [`ErrorCode::Cancelled`], and what can be
    /// wrong with the name, the options, the record and the repository.
    pub fn acquire(self) -> Result<LockGuard> {
        let manager = self.manager;
        manager.acquire(self.check()?, None)
    }

    /// As [`LockRequest::acquire`], and calls `attend` on this thread every so often while it waits:
    /// for languages that run signal handlers between two steps of a program. What shall end the
    /// wait cancels its [`CancelToken`].
    ///
    /// # Errors
    /// As [`LockRequest::acquire`].
    pub fn acquire_attending(self, every: Duration, attend: &mut dyn FnMut()) -> Result<LockGuard> {
        let manager = self.manager;
        manager.acquire(self.check()?, Some((every, attend)))
    }

    /// Acquires the lock if that is possible at once: `None` if somebody holds it, or is first.
    ///
    /// # Errors
    /// What can be wrong with the name, the options, the record and the repository.
    pub fn try_acquire(self) -> Result<Option<LockGuard>> {
        let manager = self.manager;
        match manager.acquire_now(self.check()?) {
            Ok(guard) => Ok(Some(guard)),
            Err(error) if error.code() == ErrorCode::Held => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`LockRequest::try_acquire`], with an error that says who holds it.
    ///
    /// # Errors
    /// [`ErrorCode::Held`], and what [`LockRequest::try_acquire`] says.
    pub fn acquire_now(self) -> Result<LockGuard> {
        let manager = self.manager;
        manager.acquire_now(self.check()?)
    }

    /// Starts to acquire without blocking this thread. `done` is called once, on the manager's
    /// background thread, and must not block. The wait itself costs no thread. Without any time to
    /// wait it hears what [`LockRequest::acquire_now`] says.
    ///
    /// # Errors
    /// What is wrong with the name or the options; everything else comes to `done`.
    pub fn start(self, done: impl FnOnce(Result<LockGuard>) + Send + 'static) -> Result<Waiting> {
        let manager = self.manager;
        manager.start(self.check()?, Box::new(done))
    }

    /// As [`LockRequest::start`], but asks on this thread, which may wait for the disk, though for nothing
    /// that others hold: `done` comes here if that decides it, as a free lock is, and on the manager's
    /// background thread otherwise. Requests that are begun one after the other queue in that order.
    ///
    /// # Errors
    /// As [`LockRequest::start`].
    ///
    /// ```
    /// use gitlock::{LockManager, Options};
    /// let manager = LockManager::in_memory(Options::default())?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// manager.lock("build").begin(move |result| drop(tell.send(result)))?;
    /// let guard = told.try_recv().expect("it was free, so it is granted by now")?;
    /// guard.release()?;
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    pub fn begin(self, done: impl FnOnce(Result<LockGuard>) + Send + 'static) -> Result<Waiting> {
        let manager = self.manager;
        manager.begin(self.check()?, Box::new(done))
    }

    fn check(self) -> Result<Checked> {
        let LockRequest { manager, names, options } = self;
        names.iter().for_each(|name| fault::panic_if_asked(name));
        let names = names.iter().map(|name| LockName::new(name)).collect::<Result<Vec<_>>>()?;
        let refuse = |what: String| Err(Error::new(ErrorCode::InvalidArgument, what));
        let ttl = clock::millis(options.ttl);
        if ttl == 0 || ttl > MAX_TTL {
            return refuse(format!(
                "a lease of {:?} is not possible; the ttl goes from one millisecond to a hundred years",
                options.ttl
            ));
        }
        if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&options.priority) {
            return refuse(format!(
                "the priority {} is out of range; it goes from -{MAX_PRIORITY} to {MAX_PRIORITY}",
                options.priority
            ));
        }
        if options.slots.is_some_and(|slots| slots == 0 || slots > MAX_SLOTS) {
            return refuse(format!("a lock can't have {} slots; it has 1 to {MAX_SLOTS}", options.slots.unwrap_or(0)));
        }
        if options.slots.is_some() && options.mode != Mode::Exclusive {
            return refuse("a slot is one holder's; leave out either the slots or shared".to_owned());
        }
        if names.is_empty() {
            return refuse("there is no name; give at least one".to_owned());
        }
        if options.within.is_some() && options.owner.is_some() {
            return refuse(
                "within a handle's tenure its owner acquires; leave out either the handle or the owner".to_owned(),
            );
        }
        let within = options.within.as_ref().map(|handle| manager.owner_of(handle)).transpose()?;
        let owner = options.owner.clone().or(within).unwrap_or_else(|| manager.default_owner());
        for (what, text) in [("owner", Some(&owner)), ("reason", options.reason.as_ref())] {
            if text.is_some_and(|text| text.len() > MAX_TEXT) {
                return refuse(format!("the {what} is longer than {MAX_TEXT} bytes; shorten it"));
            }
        }
        if owner.is_empty() {
            return refuse("the owner is empty; leave it out, or name the session".to_owned());
        }
        let (proof, stored, bound) = match &options.fingerprint {
            Some(word) if word.is_empty() => {
                return refuse("the fingerprint is empty; leave it out, or give a word".to_owned());
            }
            Some(word) if word.len() > fingerprint::MAX_FINGERPRINT_BYTES => {
                return refuse(format!(
                    "the fingerprint is longer than {} bytes; shorten it",
                    fingerprint::MAX_FINGERPRINT_BYTES
                ));
            }
            Some(word) if word.starts_with(fingerprint::HASHED) => {
                return refuse(format!(
                    "a fingerprint can't start with {:?}; choose another word",
                    fingerprint::HASHED
                ));
            }
            Some(word) => (word.clone(), word.clone(), Bound::Lease),
            None => {
                let secret = uuid::Uuid::new_v4().simple().to_string();
                let stored = fingerprint::hash(&secret);
                (secret, stored, Bound::Process)
            }
        };
        let mut process = process::stamp_cached();
        process.group = options.process_group;
        let claim = Claim {
            id: uuid::Uuid::new_v4().to_string(),
            owner,
            fingerprint: stored,
            mode: options.mode,
            ttl,
            bound,
            process: Some(process),
            pid: process::pid(),
            hostname: process::hostname().to_owned(),
            reason: options.reason.clone(),
            slots: options.slots,
            upgrades: None,
            extra: Default::default(),
        };
        let steps = steps(&names, options.mode, options.slots);
        Ok(Checked { names, steps, claim, proof, options })
    }
}

impl Checked {
    /// What an upgrade asks for.
    pub(super) fn upgrade(tenure: &TenureState, wait: Option<Duration>, cancel: Option<&CancelToken>) -> Checked {
        let claim = Claim {
            id: uuid::Uuid::new_v4().to_string(),
            owner: String::new(),
            fingerprint: String::new(),
            mode: Mode::Exclusive,
            ttl: tenure.ttl(),
            bound: Bound::Process,
            process: None,
            pid: process::pid(),
            hostname: String::new(),
            reason: None,
            slots: None,
            upgrades: Some(tenure.id.clone()),
            extra: Default::default(),
        };
        let steps = tenure.names().iter().enumerate().map(|(at, name)| {
            let intent = tenure.mode_of(at).is_intent();
            Step { name: name.clone(), mode: if intent { Mode::IntentExclusive } else { Mode::Exclusive }, slots: None }
        });
        let options = RequestOptions {
            patience: wait.map_or(Patience::ForEver, Patience::For),
            cancel: cancel.cloned().into_iter().collect(),
            ..RequestOptions::default()
        };
        Checked { names: tenure.asked().to_vec(), steps: steps.collect(), claim, proof: tenure.proof.clone(), options }
    }
}

/// Every lock that a tenure of these has: they, and what is above them.
pub(super) fn names_of(names: &[LockName]) -> Vec<LockName> {
    steps(names, Mode::Exclusive, None).into_iter().map(|step| step.name).collect()
}
