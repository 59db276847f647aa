//! Managers and guards: what carries the decisions of [`crate::lock`] out on a store.

mod acquire_options;
mod callback;
mod commit_loop;
mod deadlocks;
mod doctor;
mod fenced;
mod guard;
mod leftovers;
mod open;
mod plan;
mod reactor;
mod request;
mod shared_guard;
mod sleeper;
mod snapshot;
mod status;
mod sync;
mod tenure;
mod wait;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use crate::{
    clock,
    error::{Error, Result},
    error_code::ErrorCode,
    fork,
    handle::LockHandle,
    journal::{Actor, JournalEntry},
    lock::{
        Held, Holder, Mode, Outcome, Record, Refusal, Request, convert::Conversion, decide::Rebind, fault,
        fingerprint::proves, hierarchy::Step,
    },
    name::{LockName, Namespace},
    options::Options,
    process,
    store::{RefStore, Swept, files::FilesStore, memory::MemoryStore, remote::RemoteStore},
};

pub use acquire_options::AcquireOptions;
pub use deadlocks::WaitGraph;
pub use doctor::{Finding, Severity};
pub use guard::LockGuard;
pub(crate) use request::RequestOptions;
pub use request::{LockRequest, WaitProgress};
pub use shared_guard::SharedGuard;
pub use status::{ForeignRef, HolderStatus, LockStatus, WaiterStatus};
pub use tenure::Wanted;
pub use wait::Waiting;

use commit_loop::CommitLoop;
use open::Opened;
use reactor::Reactor;
use request::{Checked, Patience};
use tenure::TenureState;
use wait::{Attention, Done, Rendezvous, Verdict, WaitEntry, refused};

/// The locks of one repository. Clones are the same manager; any number of threads may share one.
///
/// After a fork the child owns nothing that the parent took: its copy of a manager works, on its
/// own, and its copies of guards say [`ErrorCode::Forked`].
#[derive(Clone)]
pub struct LockManager {
    inner: Arc<Inner>,
}

/// Everything under a lock prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// The locks that are held, themselves or something below them, in the order of their names.
    pub locks: Vec<LockStatus>,
    /// Refs that another tool made there.
    pub foreign: Vec<ForeignRef>,
}

/// What [`LockManager::clean`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cleaned {
    /// Locks in which something had ended by itself.
    pub locks: Vec<LockName>,
    /// Superseded objects that were deleted.
    pub objects_deleted: u64,
    /// Superseded objects whose grace period isn't over.
    pub objects_waiting: u64,
}

/// For how long a request that doesn't block waits for what others hold before the background thread goes on with it.
const BEGIN_PATIENCE: Duration = Duration::from_millis(5);

type Reentrant = HashMap<(Vec<LockName>, String), Weak<TenureState>>;

pub(crate) struct Inner {
    commits: CommitLoop,
    reactor: Reactor,
    owner: Option<String>,
    /// How long to wait for a `.lock` file, in milliseconds.
    lock_timeout: u64,
    files: Option<Arc<FilesStore>>,
    remote: Option<RemoteStore>,
    /// How often a lock that is waited for is looked at when nothing tells of a change, in milliseconds.
    look_interval: u64,
    /// Tenures that their owner may take once more, by what was asked for and by whom.
    reentrant: Mutex<Reentrant>,
    generation: u64,
    /// How to open the same again after a fork; `None` for a store that only memory has.
    origin: Option<(PathBuf, Options)>,
    after_fork: OnceLock<Arc<Inner>>,
}

impl LockManager {
    /// Opens the repository that `path` is in, with the default options.
    ///
    /// # Errors
    /// As [`LockManager::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<LockManager> {
        LockManager::open_with(path, Options::default())
    }

    /// Opens the repository that `path` is in.
    ///
    /// # Errors
    /// [`ErrorCode::NotARepository`], [`ErrorCode::Untrusted`] for somebody else's,
    /// [`ErrorCode::Unsupported`] for what would be misread, and [`ErrorCode::InvalidArgument`]
    /// for options out of their range.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<LockManager> {
        let inner = Arc::new(Inner::open(path.as_ref(), options)?);
        tracing::debug!(repository = inner.commits.store.location(), prefix = inner.commits.names.locks(), "opened");
        Ok(LockManager { inner })
    }

    /// Opens a remote of the repository that `path` is in: its name, such as `origin`, or a URL, for
    /// which `path` needn't be in a repository. Machines that share nothing but the Git server there
    /// lock together, by pushes that compare before they swap.
    ///
    /// Nothing is asked of the server yet. A remote that is a path of this machine is opened directly.
    ///
    /// # Errors
    /// As [`LockManager::open_with`], and [`ErrorCode::InvalidArgument`] for what is no remote, or a
    /// URL that isn't allowed.
    pub fn open_remote(path: impl AsRef<Path>, remote: &str) -> Result<LockManager> {
        LockManager::open_with(path, Options { remote: Some(remote.to_owned()), ..Options::default() })
    }

    /// Locks in this process's memory, for tests and examples.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for options out of their range.
    ///
    /// ```
    /// use gitlock::{LockManager, Options};
    /// let manager = LockManager::in_memory(Options::default())?;
    /// let guard = manager.lock("build").acquire()?;
    /// assert!(manager.lock("build").try_acquire()?.is_none());
    /// guard.release()?;
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    pub fn in_memory(options: Options) -> Result<LockManager> {
        LockManager::with_store(Arc::new(MemoryStore::new()), options)
    }

    /// Locks in a store of the caller's. What [`Options`] says of repositories doesn't count here.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for options out of their range.
    pub fn with_store(store: Arc<dyn RefStore>, options: Options) -> Result<LockManager> {
        let names = options.lock_prefix.as_deref().map_or_else(|| Ok(Namespace::default()), Namespace::new)?;
        let keep = options.keep;
        let skew = options.max_clock_skew;
        let store = Opened { store, files: None, remote: None };
        Ok(LockManager { inner: Arc::new(Inner::new(store, names, keep, skew, None, options)) })
    }

    fn inner(&self) -> &Arc<Inner> {
        let mut inner = &self.inner;
        while inner.generation != fork::generation() {
            inner = match (inner.after_fork.get(), &inner.origin) {
                (Some(after), _) => after,
                (None, Some((path, options))) => match Inner::open(path, options.clone()) {
                    Ok(fresh) => inner.after_fork.get_or_init(|| Arc::new(fresh)),
                    Err(error) => {
                        // What opened before the fork and doesn't now fails at its first use.
                        tracing::error!(%error, "the repository can't be opened again after a fork");
                        return inner;
                    }
                },
                (None, None) => return inner,
            };
        }
        inner
    }

    pub(crate) fn clock(&self) -> &Arc<dyn clock::Clock> {
        &self.inner().commits.clock
    }

    /// Who holds and waits unless a request says otherwise.
    pub(crate) fn default_owner(&self) -> String {
        self.inner().owner.clone().unwrap_or_else(process::thread_owner)
    }

    /// Where this manager's locks are, in words.
    pub fn location(&self) -> String {
        self.inner().commits.store.location()
    }

    /// The lock prefix and the journal prefix.
    pub fn namespace(&self) -> &Namespace {
        &self.inner().commits.names
    }

    /// Begins a request for a lock. Exclusive, for ever patient, and with a lease of 30 s that is
    /// renewed, unless it says otherwise.
    ///
    /// A name with a '/' is part of a tree: who holds `deploy/eu` keeps others from `deploy`, and who
    /// holds `deploy` has all below it.
    pub fn lock(&self, name: &str) -> LockRequest<'_> {
        LockRequest::new(self, vec![name.to_owned()])
    }

    /// Begins a request for several locks at once: all of them or none. Whatever the order in which
    /// they are given, everybody takes them in the same one, so that no two requests wait for each other.
    ///
    /// ```
    /// use gitlock::{LockManager, Options};
    /// let manager = LockManager::in_memory(Options::default())?;
    /// let both = manager.lock_all(&["web", "db"]).acquire()?;
    /// assert!(manager.lock("db").try_acquire()?.is_none());
    /// assert!(both.token_of("web").is_some());
    /// both.release()?;
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    pub fn lock_all<N: AsRef<str>>(&self, names: &[N]) -> LockRequest<'_> {
        LockRequest::new(self, names.iter().map(|name| name.as_ref().to_owned()).collect())
    }

    /// Whether this token is that of somebody who holds the lock at this moment: for what the lock
    /// protects, where it can't remember the highest token it has seen.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it isn't, and what can be wrong with the name, the record and the repository.
    pub fn verify(&self, name: &str, token: u64) -> Result<()> {
        let (inner, name) = (self.inner(), LockName::new(name)?);
        if inner.current(&name)?.holders.iter().any(|holder| holder.token == Some(token)) {
            return Ok(());
        }
        Err(Error::new(ErrorCode::LockLost, format!("nobody holds the lock {name} with the token {token} any more")))
    }

    /// The owner of a tenure.
    fn owner_of(&self, handle: &LockHandle) -> Result<String> {
        let (inner, handle) = (self.inner(), self.known(handle)?);
        let record = inner.current(handle.name())?;
        let holder = record.holders.into_iter().find(|holder| Some(&holder.claim.id) == handle.id.as_ref());
        match holder {
            Some(holder) if proves(&handle.proof, &holder.claim.fingerprint) => Ok(holder.claim.owner),
            Some(holder) => Err(refused(handle.name(), Refusal::NotOwner(Box::new(holder)))),
            None => Err(tenure::lost_error(handle.name(), tenure::TAKEN_AWAY)),
        }
    }

    /// The handle with its tenure's id, for one that only has the fingerprint.
    fn known(&self, handle: &LockHandle) -> Result<LockHandle> {
        let mut known = handle.clone();
        if known.id.is_none() {
            let record = self.inner().current(handle.name())?;
            let own =
                |holder: &&Holder| !holder.claim.mode.is_intent() && proves(&handle.proof, &holder.claim.fingerprint);
            known.id = record.holders.iter().find(own).map(|holder| holder.claim.id.clone());
        }
        Ok(known)
    }

    /// Carries a request out for everything that the tenure of a handle holds. Returns what came of
    /// it for each name that was asked for, or the first refusal.
    fn for_all(
        &self,
        handle: &LockHandle,
        request: impl Fn(&LockHandle) -> Request,
    ) -> Result<Vec<(LockName, Holder)>> {
        let inner = self.inner();
        let names = request::names_of(&handle.names);
        // One name with nothing above it can be asked for by the proof alone.
        let handle = if names.len() > 1 { self.known(handle)? } else { handle.clone() };
        let request = request(&handle);
        let ends = matches!(request, Request::Release { .. });
        let outcomes = inner.submit_for(&names, &request, None)?;
        let mut order = names;
        if ends {
            order.reverse();
        }
        let mut holders = Vec::new();
        for (name, outcome) in order.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Released(holder) | Outcome::Extended(holder) => holders.push((name, holder)),
                // Of what stands above it, it may be gone already.
                _ if ends && !handle.names.contains(&name) => {}
                Outcome::Refused(refusal) => return Err(refused(&name, refusal)),
                _ => return Err(tenure::lost_error(&name, tenure::TAKEN_AWAY)),
            }
        }
        Ok(holders)
    }

    fn acquire(&self, checked: Checked, attention: Option<Attention<'_>>) -> Result<LockGuard> {
        if checked.options.patience == Patience::For(Duration::ZERO) {
            return self.acquire_now(checked);
        }
        let inner = self.inner();
        if let Some(guard) = inner.once_more(&checked)? {
            return Ok(guard);
        }
        inner.wait_for(WaitEntry::new(inner, checked, None), attention)
    }

    fn acquire_now(&self, checked: Checked) -> Result<LockGuard> {
        let inner = self.inner();
        if let Some(guard) = inner.once_more(&checked)? {
            return Ok(guard);
        }
        WaitEntry::new(inner, checked, None).take_now(inner)
    }

    fn start(&self, checked: Checked, done: Done) -> Result<Waiting> {
        self.wait_aside(checked, done, |inner, entry| inner.reactor().add(inner, entry))
    }

    fn begin(&self, checked: Checked, done: Done) -> Result<Waiting> {
        self.wait_aside(checked, done, |inner, entry| inner.begin(entry, Some(BEGIN_PATIENCE)))
    }

    /// Makes a request one that `done` answers, and has `ask` see to it.
    fn wait_aside(&self, checked: Checked, done: Done, ask: impl FnOnce(&Arc<Inner>, WaitEntry)) -> Result<Waiting> {
        let inner = self.inner();
        let again = inner.once_more(&checked)?;
        let entry = WaitEntry::new(inner, checked, Some(done));
        let waiting = entry.waiting(inner);
        match again {
            Some(guard) => drop(entry.finish(Ok(guard))),
            None => ask(inner, entry),
        }
        Ok(waiting)
    }

    /// The lock as it is.
    ///
    /// # Errors
    /// For a bad name, and if the repository can't be read. A record that can't be read is no
    /// error here: it is the status's `problem`.
    pub fn status(&self, name: &str) -> Result<LockStatus> {
        fault::panic_if_asked(name);
        let (inner, name) = (self.inner(), LockName::new(name)?);
        Ok(LockStatus::of(inner, &inner.commits.look(&name, None)?))
    }

    /// Every lock that is held, and what else is under the prefix.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn list(&self) -> Result<Listing> {
        let inner = self.inner();
        let mut listing = Listing::default();
        for (name, object) in inner.commits.store.list(inner.commits.names.locks())? {
            match inner.commits.names.lock_of(&name) {
                Some(name) => {
                    let status = LockStatus::of(inner, &inner.commits.look_listed(&name, object, None)?);
                    listing.locks.extend(Some(status).filter(|status| status.is_held() || !status.intents.is_empty()));
                }
                None => listing.foreign.push(ForeignRef { name: name.to_string(), object: object.to_string() }),
            }
        }
        listing.locks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listing)
    }

    /// Who waits for whom, and which of them would wait for ever.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn graph(&self) -> Result<WaitGraph> {
        deadlocks::graph(self.inner())
    }

    /// The newest entries of a lock's journal, newest first, at most `most`.
    ///
    /// # Errors
    /// For a bad name, and if the repository can't be read.
    pub fn log(&self, name: &str, most: usize) -> Result<Vec<JournalEntry>> {
        let (inner, name) = (self.inner(), LockName::new(name)?);
        let store = &inner.commits.store;
        let tip = store.read(&inner.commits.names.journal_ref(&name))?;
        snapshot::entries(&**store, tip, most, |_, _| false)
    }

    /// Ends tenures by force, whoever holds them: that of this id, or all of the lock's. The
    /// journal says who did it and why.
    ///
    /// Who held is told at its next renewal, and may work on until then: make sure that it doesn't.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if there is nothing to break, [`ErrorCode::RecordTooNew`] for a
    /// newer version's record, and what can be wrong with the name and the repository.
    pub fn break_lock(&self, name: &str, id: Option<&str>, reason: Option<&str>) -> Result<Vec<Holder>> {
        let (inner, name) = (self.inner(), LockName::new(name)?);
        let request = Request::Break { id: id.map(str::to_owned), reason: reason.map(str::to_owned) };
        match inner.submit(&name, request)? {
            Outcome::Broken(holders) => {
                let ids = holders.iter().map(|holder| holder.claim.id.clone()).collect();
                inner.lift_intents(&name, ids)?;
                Ok(holders)
            }
            Outcome::Refused(Refusal::NotHeld) => {
                Err(Error::new(ErrorCode::LockLost, format!("there is nothing to break: nobody holds the lock {name}")))
            }
            Outcome::Refused(refusal) => Err(refused(&name, refusal)),
            _ => Ok(Vec::new()),
        }
    }

    /// Releases a tenure by its handle, or by its fingerprint.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it has ended, and [`ErrorCode::NotOwner`] if it is somebody else's.
    pub fn release(&self, handle: &LockHandle) -> Result<()> {
        self.for_all(handle, |handle| Request::Release { tenure: handle.tenure() }).map(drop)
    }

    /// Extends a tenure by its handle, or by its fingerprint, to its ttl or the given time from
    /// now. Returns how long it lasts from here on.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it has ended, and [`ErrorCode::NotOwner`] if it is somebody else's.
    pub fn extend(&self, handle: &LockHandle, ttl: Option<Duration>) -> Result<Duration> {
        let ttl = check_ttl(ttl)?;
        let holders = self.for_all(handle, |handle| Request::Extend { tenure: handle.tenure(), ttl, rebind: None })?;
        // Longer than was asked for, if the lease lasted longer already.
        let end = holders.iter().map(|(_, holder)| holder.end.as_ref().map_or(0, |end| end.at)).min().unwrap_or(0);
        Ok(Duration::from_millis(end.saturating_sub(self.inner().commits.clock.boot_ms())))
    }

    /// Goes on with a tenure that another process, or a guard that was detached, began: extends it
    /// and, if it was bound to a process, binds it to this one, which renews it from here on.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it has ended, and [`ErrorCode::NotOwner`] if it is somebody else's.
    pub fn resume(&self, handle: &LockHandle) -> Result<LockGuard> {
        let inner = self.inner();
        let snapshot = inner.commits.look(handle.name(), None)?;
        let bound = match (&snapshot.state.held, &handle.id) {
            (Held::Record(record), Some(id)) => record.holder(id).map(|holder| holder.claim.bound),
            _ => None,
        };
        let rebind = bound.filter(|bound| *bound == crate::lock::Bound::Process).map(|bound| Rebind {
            bound,
            process: Some(process::stamp_cached()),
            pid: process::pid(),
            hostname: process::hostname().to_owned(),
        });
        let renews = rebind.is_some();
        let extend =
            |handle: &LockHandle| Request::Extend { tenure: handle.tenure(), ttl: None, rebind: rebind.clone() };
        let (names, holders): (Vec<LockName>, Vec<Holder>) = self.for_all(handle, extend)?.into_iter().unzip();
        let now = inner.commits.clock.boot_ms();
        let holders: Vec<&Holder> = holders.iter().collect();
        let tenure = TenureState::new(names, &holders, handle.proof.clone(), renews, None, now);
        Ok(inner.adopt(tenure.asked_for(&handle.names), None))
    }

    /// Ends what has ended by itself in every lock, and deletes superseded objects whose grace
    /// period (`None`: the configured one) is over.
    ///
    /// # Errors
    /// If the repository can't be read or written.
    pub fn clean(&self, grace: Option<Duration>) -> Result<Cleaned> {
        let inner = self.inner();
        let mut cleaned = Cleaned::default();
        for (name, id) in inner.commits.store.list(inner.commits.names.locks())? {
            let Some(name) = inner.commits.names.lock_of(&name) else { continue };
            let snapshot = inner.commits.look_listed(&name, id, None)?;
            if inner.commits.has_overdue(&snapshot) {
                inner.submit(&name, Request::Reap)?;
                cleaned.locks.push(name);
            }
        }
        let Swept { deleted, waiting } = inner.commits.store.sweep(grace)?;
        (cleaned.objects_deleted, cleaned.objects_waiting) = (deleted, waiting);
        Ok(cleaned)
    }

    /// Looks for what crashes leave behind, and for records that can't be read. With `fix`, does
    /// what is safe.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn doctor(&self, fix: bool) -> Result<Vec<Finding>> {
        doctor::examine(self.inner(), fix)
    }

    /// Finishes what waits for a better moment: writes again what `git prune` took from under a
    /// ref, and notes superseded objects for a later sweep. For a command that is about to end.
    pub fn close(&self) {
        self.inner().commits.store.tend();
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commits = &self.inner().commits;
        f.debug_struct("LockManager")
            .field("store", &commits.store)
            .field("prefix", &commits.names.locks())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Who ends tenures here.
    fn actor(&self) -> Actor {
        let owner = self.owner.clone().unwrap_or_else(process::thread_owner);
        Actor { owner, hostname: process::hostname().to_owned(), pid: process::pid() }
    }

    fn submit(&self, name: &LockName, request: Request) -> Result<Outcome> {
        self.commits.submit(name, request, &self.actor())
    }

    /// The same request for several locks, in the order in which a crash does no harm: ancestors
    /// first, or last if it ends something.
    fn submit_for(&self, names: &[LockName], request: &Request, patience: Option<Duration>) -> Result<Vec<Outcome>> {
        if let [name] = names {
            return Ok(vec![self.commits.submit_within(name, request.clone(), &self.actor(), patience)?]);
        }
        let mut requests: Vec<_> = names.iter().map(|name| (name.clone(), request.clone())).collect();
        if matches!(request, Request::Release { .. } | Request::Cancel { .. }) {
            requests.reverse();
        }
        self.commits.submit_together(requests, &self.actor(), patience)
    }

    /// Takes away what tenures that were ended by force have above their lock.
    fn lift_intents(&self, name: &LockName, ids: Vec<String>) -> Result<()> {
        let above: Vec<LockName> = name.ancestors().collect();
        if !above.is_empty() {
            self.submit_for(&above, &Request::Cancel { ids }, None)?;
        }
        Ok(())
    }

    /// What a lock's record says at this moment.
    fn current(&self, name: &LockName) -> Result<Record> {
        let snapshot = self.commits.look(name, None)?;
        match snapshot.state.held {
            Held::Opaque(opaque) => Err(refused(name, Refusal::Opaque(opaque))),
            _ => Ok(commit_loop::current(&self.commits, &snapshot).0),
        }
    }

    /// Another guard of what the owner holds already, if the request allows that.
    fn once_more(self: &Arc<Self>, checked: &Checked) -> Result<Option<LockGuard>> {
        if !checked.options.reentrant {
            return Ok(None);
        }
        let key = (checked.names.clone(), checked.claim.owner.clone());
        let mut tenures = self.reentrant.lock().unwrap_or_else(PoisonError::into_inner);
        tenures.retain(|_, tenure| tenure.upgrade().is_some_and(|tenure| !tenure.is_ending()));
        let Some(tenure) = tenures.get(&key).and_then(Weak::upgrade) else { return Ok(None) };
        if !tenure.mode().covers(checked.claim.mode) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "the lock {} is held shared by the same owner, who can't take it exclusively beside itself; upgrade it",
                    tenure.name()
                ),
            ));
        }
        Ok(tenure.join().then(|| LockGuard::new(self.clone(), tenure)))
    }

    /// Waits until a wait is over.
    fn wait_for(self: &Arc<Self>, mut entry: WaitEntry, attention: Option<Attention<'_>>) -> Result<LockGuard> {
        let here = Arc::new(Rendezvous::default());
        let there = here.clone();
        entry.set_done(Box::new(move |result| there.put(result)));
        self.begin(entry, None);
        here.take(attention)
    }

    /// Asks on this thread, waiting no longer than `patience` for others (`None`: as long as the store
    /// does). What has to wait goes to the background thread; so does what comes after others that
    /// were left there and haven't been asked for yet, since it must not overtake them.
    fn begin(self: &Arc<Self>, entry: WaitEntry, patience: Option<Duration>) {
        if entry.is_cancelled() {
            let _ = entry.give_up(self, None);
            return;
        }
        // A question to a server takes longer than a thread that must not block may wait.
        if patience.is_some() && (self.remote.is_some() || self.reactor().has_unasked()) {
            return self.reactor().add(self, entry);
        }
        let answer = entry.ask(self, true, patience);
        if let Verdict::Waits(entry) = entry.hear(self, answer) {
            self.reactor().add(self, entry);
        }
    }

    fn upgrade(self: &Arc<Self>, mut entry: WaitEntry, attention: Option<Attention<'_>>) -> Result<()> {
        let done = if entry.may_wait() { self.wait_for(entry, attention) } else { entry.take_now(self) };
        done.map(drop)
    }

    fn begin_upgrade(self: &Arc<Self>, mut entry: WaitEntry, done: Done) {
        if entry.may_wait() {
            entry.set_done(done);
            return self.begin(entry, Some(BEGIN_PATIENCE));
        }
        done(entry.take_now(self));
    }

    fn downgrade(&self, tenure: &TenureState) -> Result<()> {
        let steps = Checked::upgrade(tenure, None, None).steps;
        let convert = |step: Step| {
            let mode = if step.mode.is_intent() { Mode::IntentShared } else { Mode::Shared };
            let conversion =
                Conversion { tenure: tenure.request(), mode, id: String::new(), wait: None, asked_before: true };
            (step.name, Request::Convert(conversion))
        };
        // What is below goes first, so that it is never without its intent.
        let requests: Vec<(LockName, Request)> = steps.into_iter().rev().map(convert).collect();
        let outcomes = self.commits.submit_together(requests, &self.actor(), None)?;
        let mut holders = Vec::new();
        for outcome in outcomes.iter().rev() {
            match outcome {
                Outcome::Converted(holder) => holders.push(holder),
                Outcome::Refused(refusal) => return Err(refused(tenure.name(), refusal.clone())),
                _ => return Err(tenure::lost_error(tenure.name(), tenure::TAKEN_AWAY)),
            }
        }
        tenure.converted(&holders);
        Ok(())
    }

    /// Makes the guard of a tenure, and has the background thread watch over it. `owner`: who may
    /// take it once more.
    fn adopt(self: &Arc<Self>, tenure: TenureState, owner: Option<String>) -> LockGuard {
        let tenure = Arc::new(tenure);
        if let Some(owner) = owner {
            let mut tenures = self.reentrant.lock().unwrap_or_else(PoisonError::into_inner);
            tenures.insert((tenure.asked().to_vec(), owner), Arc::downgrade(&tenure));
        }
        self.reactor.touch(self, &tenure);
        LockGuard::new(self.clone(), tenure)
    }

    fn forget(&self, tenure: &TenureState) {
        self.reactor.forget(&tenure.id);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The background thread sees that nobody is left, and ends.
        self.reactor.wake();
    }
}

fn check_ttl(ttl: Option<Duration>) -> Result<Option<u64>> {
    match ttl.map(clock::millis) {
        Some(0) => Err(Error::new(
            ErrorCode::InvalidArgument,
            "a lease can't be extended by nothing; give a ttl of at least one millisecond",
        )),
        Some(ttl) if ttl > request::MAX_TTL => Err(Error::new(
            ErrorCode::InvalidArgument,
            "a lease can't last longer than a hundred years; give a shorter ttl",
        )),
        ttl => Ok(ttl),
    }
}
