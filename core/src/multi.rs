//! Locks in several repositories at once: in all of them, or in most.
//!
//! One Git server is one point of failure. With a [quorum](Repositories::quorum) a lock is held in a majority
//! of repositories on servers that fail independently, so that any minority may be down. Two majorities
//! have a repository in common, and there only one can hold: that is all the safety there is, and all
//! that is needed. It is how Redlock goes about it (<https://redis.io/docs/latest/develop/use/patterns/distributed-locks/>);
//! but each part is a lock with a queue, an observed lease and a journal, and there is a token.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    cancel::CancelToken,
    clock,
    error::{Error, Result},
    error_code::ErrorCode,
    handle::LockHandle,
    manager::{LockGuard, LockManager, LockRequest, RequestOptions, SharedGuard},
};

type LostFn = Box<dyn FnOnce() + Send>;

/// For how long a repository that failed is asked last, and not waited for, in milliseconds.
const SUSPECTED_FOR: u64 = 30_000;

/// How often a wait looks whether its repository is still there.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Several repositories in which locks are taken together. Clones are the same.
///
/// Everybody has to name the same repositories, in the same words: locks are taken in the order of their
/// [locations](LockManager::location), so that no two requests wait for each other, whatever the order here.
#[derive(Clone)]
pub struct Repositories {
    managers: Arc<[LockManager]>,
    /// Until when each is suspected to be down, on the boot clock.
    suspected: Arc<[AtomicU64]>,
}

/// What is asked of several repositories. [`Repositories::all`] and [`Repositories::quorum`] make it.
#[must_use = "a request does nothing until it is acquired"]
pub struct MultiRequest {
    repositories: Repositories,
    names: Vec<String>,
    needed: usize,
    options: RequestOptions,
}

/// A lock in several repositories. It is released when it is dropped, without a word if that fails.
#[must_use = "the locks are released as soon as the guard is dropped"]
pub struct MultiGuard {
    group: Arc<Group>,
}

/// What a guard and those who work for it share.
struct Group {
    repositories: Repositories,
    names: Vec<String>,
    /// In how many repositories it has to be held.
    needed: usize,
    options: RequestOptions,
    token: AtomicU64,
    /// By repository.
    parts: Mutex<Vec<Option<Arc<SharedGuard>>>>,
    /// Released, or held in too few.
    over: AtomicBool,
    released: AtomicBool,
    listeners: Mutex<Vec<LostFn>>,
    /// Held while repositories are joined: two at once would be in each other's way.
    joining: Mutex<()>,
}

impl Repositories {
    /// These repositories.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for none, and for the same one twice.
    pub fn new(managers: impl IntoIterator<Item = LockManager>) -> Result<Repositories> {
        let mut managers: Vec<LockManager> = managers.into_iter().collect();
        managers.sort_by_cached_key(LockManager::location);
        if managers.is_empty() {
            return Err(Error::new(ErrorCode::InvalidArgument, "there is no repository; give at least one"));
        }
        if let Some(twice) = managers.windows(2).find(|pair| pair[0].location() == pair[1].location()) {
            let message = format!("the repository {} is there twice; give each once", twice[0].location());
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let suspected = managers.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Repositories { managers: managers.into(), suspected })
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // it never is
    pub fn len(&self) -> usize {
        self.managers.len()
    }

    /// How many of them are a majority.
    pub fn majority(&self) -> usize {
        self.len() / 2 + 1
    }

    /// Their managers, in the order in which locks are taken.
    pub fn managers(&self) -> &[LockManager] {
        &self.managers
    }

    /// Begins a request for the locks of these names in every repository, or none. The first wins where two
    /// want the same: each waits for the others with what it has, in an order that is everybody's.
    ///
    /// ```
    /// use gitlock::{LockManager, Options, Repositories};
    /// let [app, infra] = [(); 2].map(|()| LockManager::in_memory(Options::default()).unwrap());
    /// let both = Repositories::new([app.clone(), infra])?;
    /// let guard = both.all(&["deploy"]).with(|request| request.reason("a change of both")).acquire()?;
    /// assert!(app.lock("deploy").try_acquire()?.is_none());
    /// guard.release()?;
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    pub fn all<N: AsRef<str>>(&self, names: &[N]) -> MultiRequest {
        self.request(names.iter().map(|name| name.as_ref().to_owned()).collect(), self.len())
    }

    /// Begins a request for the lock in a majority of the repositories, whichever are there, and in the others
    /// when they are. The guard's [token](MultiGuard::token) is above that of every earlier majority. One that is
    /// away isn't waited for; one in which somebody holds the lock is, in an order that is everybody's.
    ///
    /// Each is a session of its own unless it names an owner, so that a circle of those who wait for each
    /// other's majorities isn't found: give a wait where that can be.
    ///
    /// ```
    /// use gitlock::{LockManager, Options, Repositories};
    /// use std::time::Duration;
    /// let three = [(); 3].map(|()| LockManager::in_memory(Options::default()).unwrap());
    /// let request = Repositories::new(three)?.quorum("deploy");
    /// let guard = request.with(|request| request.wait(Duration::from_secs(10))).acquire()?;
    /// println!("held under token {}, for {:?} without a renewal", guard.token(), guard.validity());
    /// guard.release()?;
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    pub fn quorum(&self, name: &str) -> MultiRequest {
        self.request(vec![name.to_owned()], self.majority())
    }

    fn request(&self, names: Vec<String>, needed: usize) -> MultiRequest {
        let options = self.managers[0].lock_all(&names).into_options();
        MultiRequest { repositories: self.clone(), names, needed, options }
    }

    fn now(&self) -> u64 {
        self.managers[0].clock().boot_ms()
    }

    fn is_suspected(&self, at: usize) -> bool {
        self.suspected[at].load(SeqCst) > self.now()
    }

    /// What went wrong in one of them.
    fn at(&self, at: usize, error: &Error) -> Error {
        let told = Error::new(error.code(), format!("in {}: {error}", self.managers[at].location()));
        match error.holder() {
            Some(holder) => told.with_holder(holder.clone()),
            None => told,
        }
    }

    fn too_few(&self, needed: usize, what: &str, failures: Vec<(usize, Error)>) -> Error {
        let why: Vec<String> = failures.iter().map(|(at, error)| self.at(*at, error).to_string()).collect();
        let message = format!(
            "only {} of {} repositories {what}, and {needed} are needed; try again when more are there: {}",
            self.len().saturating_sub(failures.len()),
            self.len(),
            why.join("; ")
        );
        Error::new(ErrorCode::Io, message)
    }
}

impl MultiRequest {
    /// Sets the options of the request in each repository. The wait is for all of them together, for ever unless
    /// it says otherwise.
    pub fn with(mut self, set: impl FnOnce(LockRequest<'_>) -> LockRequest<'_>) -> MultiRequest {
        self.options = set(self.first().with_options(self.options.clone())).into_options();
        self
    }

    /// As [`MultiRequest::with`], for options that may be wrong.
    ///
    /// # Errors
    /// What `set` says.
    pub fn try_with<E>(
        mut self,
        set: impl FnOnce(LockRequest<'_>) -> Result<LockRequest<'_>, E>,
    ) -> Result<MultiRequest, E> {
        self.options = set(self.first().with_options(self.options.clone()))?.into_options();
        Ok(self)
    }

    fn first(&self) -> LockRequest<'_> {
        self.repositories.managers[0].lock_all(&self.names)
    }

    /// Acquires the locks, queueing for them where they are held.
    ///
    /// # Errors
    /// As [`LockRequest::acquire`], naming the repository. Of a majority [`ErrorCode::Io`], with each one's
    /// trouble, if too few of the repositories can be used. Nothing is held then, as far as they can be reached;
    /// elsewhere a lease ends by itself.
    pub fn acquire(self) -> Result<MultiGuard> {
        self.acquire_attending(LOOK_EVERY, &mut || {})
    }

    /// As [`MultiRequest::acquire`], and calls `attend` on this thread every so often while it waits: see
    /// [`LockRequest::acquire_attending`].
    ///
    /// # Errors
    /// As [`MultiRequest::acquire`].
    pub fn acquire_attending(self, every: Duration, attend: &mut dyn FnMut()) -> Result<MultiGuard> {
        let MultiRequest { repositories, names, needed, mut options } = self;
        let until = options.patience().map(|wait| repositories.now().saturating_add(clock::millis(wait)));
        let owner = repositories.managers[0].default_owner();
        // What an earlier tenure of a majority left where a server was away has its owner. With the same one
        // this would look as if it waited for itself: a deadlock.
        options.owned_by(|| match needed < repositories.len() {
            true => format!("{owner}+{}", uuid::Uuid::new_v4().simple()),
            false => owner,
        });
        let group = Arc::new(Group {
            parts: Mutex::new(repositories.managers.iter().map(|_| None).collect()),
            repositories,
            names,
            needed,
            options,
            token: AtomicU64::new(0),
            over: AtomicBool::new(false),
            released: AtomicBool::new(false),
            listeners: Mutex::default(),
            joining: Mutex::default(),
        });
        // What was taken is given back by the guard, wherever this ends.
        let guard = MultiGuard { group: group.clone() };
        group.gather(until, &mut Attention { every, attend })?;
        group.settle_token()?;
        if group.is_quorum() {
            group.fill_up_aside();
        }
        Ok(guard)
    }

    /// As [`MultiRequest::acquire`], on a thread of its own: `done` is called there once. A
    /// [`CancelToken`] of the request ends the wait.
    ///
    /// # Errors
    /// [`ErrorCode::Io`] if there can be no thread; everything else comes to `done`.
    pub fn start(self, done: impl FnOnce(Result<MultiGuard>) + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name("gitlock-multi".to_owned());
        let started = thread.spawn(move || done(self.acquire()));
        started.map(drop).map_err(|error| Error::io("no thread can be started to wait on", error))
    }
}

/// What is to be done while something is waited for, and how often.
struct Attention<'a> {
    every: Duration,
    attend: &'a mut dyn FnMut(),
}

/// Whether it is the repository, or its server, that is the trouble, and not the lock.
fn is_down(error: &Error) -> bool {
    error.code().exit_code() == ErrorCode::Io.exit_code() && error.code() != ErrorCode::Internal
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    fn is_quorum(&self) -> bool {
        self.needed < self.repositories.len()
    }

    /// In which order the repositories are asked, and whether each failed lately: everybody's, but those last.
    fn order(&self) -> Vec<(usize, bool)> {
        let suspected = |at| self.is_quorum() && self.repositories.is_suspected(at);
        let mut order: Vec<(usize, bool)> = (0..self.repositories.len()).map(|at| (at, suspected(at))).collect();
        order.sort_by_key(|(_, suspected)| *suspected);
        order
    }

    /// Acquires in as many repositories as are needed.
    fn gather(self: &Arc<Self>, until: Option<u64>, attention: &mut Attention<'_>) -> Result<()> {
        let all = &self.repositories;
        let mut failures = Vec::new();
        for (at, suspected) in self.order() {
            if self.held().len() == self.needed || failures.len() > all.len() - self.needed {
                break;
            }
            let left = until.map(|until| Duration::from_millis(until.saturating_sub(all.now())));
            // Out of the order nobody may wait.
            match self.take(at, if suspected { Some(Duration::ZERO) } else { left }, attention) {
                Ok(part) => self.put(at, part),
                Err(error) if self.is_quorum() && (is_down(&error) || suspected && error.is_held()) => {
                    failures.push((at, error));
                }
                Err(error) => return Err(all.at(at, &error)),
            }
        }
        if self.held().len() < self.needed {
            return Err(all.too_few(self.needed, "can be used", failures));
        }
        Ok(())
    }

    /// Acquires in one repository.
    fn take(&self, at: usize, wait: Option<Duration>, attention: &mut Attention<'_>) -> Result<LockGuard> {
        let taken = self.ask(at, wait, attention);
        let until = if taken.as_ref().is_err_and(is_down) { self.repositories.now() + SUSPECTED_FOR } else { 0 };
        self.repositories.suspected[at].store(until, SeqCst);
        taken
    }

    fn ask(&self, at: usize, wait: Option<Duration>, attention: &mut Attention<'_>) -> Result<LockGuard> {
        let (manager, names) = (&self.repositories.managers[at], &self.names);
        let gone = CancelToken::new();
        let (mut why, mut looked) = (None, self.repositories.now());
        let request = manager.lock_all(names).with_options(self.options.for_step(wait)).cancel(&gone);
        let mut look = || {
            (attention.attend)();
            // A wait outlasts its server's absence; here others can stand in.
            let due = self.repositories.now() >= looked + clock::millis(LOOK_EVERY);
            if self.is_quorum() && why.is_none() && due {
                why = names.iter().find_map(|name| manager.status(name).err()).filter(is_down);
                if why.is_some() {
                    gone.cancel();
                }
                looked = self.repositories.now();
            }
        };
        match (request.acquire_attending(attention.every.min(LOOK_EVERY), &mut look), why) {
            (Err(error), Some(why)) if error.code() == ErrorCode::Cancelled => Err(why),
            (taken, _) => taken,
        }
    }

    fn put(self: &Arc<Self>, at: usize, guard: LockGuard) {
        let part = Arc::new(SharedGuard::new(guard));
        {
            let mut parts = lock(&self.parts);
            // After a release nobody is going to release this one.
            if self.over.load(SeqCst) {
                return;
            }
            parts[at] = Some(part.clone());
        }
        if !lock(&self.listeners).is_empty() {
            self.listen_to(&part);
        }
    }

    /// What is held at this moment, by repository.
    fn held(&self) -> Vec<(usize, Arc<SharedGuard>)> {
        let parts = lock(&self.parts);
        let held = parts.iter().enumerate().filter_map(|(at, part)| Some((at, part.clone()?)));
        held.filter(|(_, part)| !part.is_lost()).collect()
    }

    /// Whether it is held in too few by now. Once it is, it stays so.
    fn is_lost(&self) -> bool {
        if !self.over.load(SeqCst) && self.held().len() < self.needed {
            self.over.store(true, SeqCst);
        }
        self.over.load(SeqCst)
    }

    /// Ends it everywhere, also where it is thought lost: who waits there needn't wait on.
    fn release(&self) -> Vec<(usize, Result<()>)> {
        let parts: Vec<Option<Arc<SharedGuard>>> = lock(&self.parts).iter_mut().map(Option::take).collect();
        let parts = parts.into_iter().enumerate().filter_map(|(at, part)| Some((at, part?))).collect();
        let released = everywhere(parts, |part| part.take()?.release());
        self.wait_for_who_joins();
        released
    }

    /// What is being acquired at this moment comes too late, and is given back at once. The program may end after that,
    /// and then nobody would.
    fn wait_for_who_joins(&self) {
        drop(lock(&self.joining));
    }

    /// Gives the tenure its token. In a majority it is above all that any earlier majority had, and is written
    /// back to this one, so that the next finds it.
    fn settle_token(self: &Arc<Self>) -> Result<()> {
        let highest = self.held().iter().map(|(_, part)| part.token()).max().unwrap_or_default();
        self.token.store(highest, SeqCst);
        if !self.is_quorum() {
            return Ok(());
        }
        self.token.store(highest + 1, SeqCst);
        let results = everywhere(self.held(), |part| part.with(|held| held.raise_token(highest + 1)));
        let failures: Vec<(usize, Error)> =
            results.into_iter().filter_map(|(at, result)| Some((at, result.err()?))).collect();
        for (at, _) in &failures {
            self.part_with(*at);
        }
        if self.held().len() < self.needed {
            return Err(self.repositories.too_few(self.needed, "took the token", failures));
        }
        Ok(())
    }

    /// Gives one repository's part back, without waiting for it.
    fn part_with(&self, at: usize) {
        let Some(part) = lock(&self.parts)[at].take() else { return };
        let aside = move || drop(part.take().map(LockGuard::release));
        let _ = std::thread::Builder::new().name("gitlock-multi".to_owned()).spawn(aside);
    }

    /// Acquires in the repositories in which it isn't held, where that is possible at once, so that more of
    /// those in which it is may go down.
    fn fill_up(self: &Arc<Self>) {
        let _alone = lock(&self.joining);
        for at in 0..self.repositories.len() {
            let missing = lock(&self.parts)[at].as_ref().is_none_or(|part| part.is_lost());
            if self.is_lost() || !missing || self.repositories.is_suspected(at) {
                continue;
            }
            let mut nobody = Attention { every: LOOK_EVERY, attend: &mut || {} };
            let taken = self.take(at, Some(Duration::ZERO), &mut nobody).and_then(|guard| {
                guard.raise_token(self.token.load(SeqCst))?;
                Ok(guard)
            });
            match taken {
                Ok(guard) if !self.is_lost() => self.put(at, guard),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(repository = self.repositories.managers[at].location(), %error, "not held there")
                }
            }
        }
    }

    fn fill_up_aside(self: &Arc<Self>) {
        let group = self.clone();
        let aside = move || group.fill_up();
        if let Err(error) = std::thread::Builder::new().name("gitlock-multi".to_owned()).spawn(aside) {
            tracing::debug!(%error, "the other repositories are left out");
        }
    }

    fn listen_to(self: &Arc<Self>, part: &SharedGuard) {
        let group: Weak<Group> = Arc::downgrade(self);
        let look = move |_: &Error| {
            let Some(group) = group.upgrade() else { return };
            if group.is_lost() {
                let listeners = std::mem::take(&mut *lock(&group.listeners));
                listeners.into_iter().for_each(|listener| listener());
            }
        };
        let _ = part.with(|held| {
            held.on_lost(look);
            Ok(())
        });
    }

    fn lost(&self) -> Error {
        let message = format!(
            "the lock {} is lost: it is held in fewer than {} of {} repositories; stop what was done under it, and acquire it \
             again before going on",
            self.names[0],
            self.needed,
            self.repositories.len()
        );
        Error::new(ErrorCode::LockLost, message)
    }
}

impl MultiGuard {
    /// The names that were asked for.
    pub fn names(&self) -> &[String] {
        &self.group.names
    }

    /// The fencing token: it grows with every grant by the same repositories in the same way, whichever
    /// of them took part. Give it to whatever the lock protects, and let that refuse a token lower than one it has seen.
    pub fn token(&self) -> u64 {
        self.group.token.load(SeqCst)
    }

    /// The locations of the repositories in which it is held at this moment.
    pub fn held_in(&self) -> Vec<String> {
        let managers = &self.group.repositories.managers;
        self.group.held().into_iter().map(|(at, _)| managers[at].location()).collect()
    }

    /// Whether it is held in too few repositories, by this process's own clock or by what was found there. A
    /// `false` is as old as the question: what must never happen twice has to check the token where it happens.
    pub fn is_lost(&self) -> bool {
        self.group.is_lost()
    }

    /// For how long it is safe from here on without another renewal: enough of its leases last so long, less
    /// what clocks may drift apart. Zero once it is lost. Leases are renewed in the background, unless the
    /// request said otherwise.
    pub fn validity(&self) -> Duration {
        if self.is_lost() {
            return Duration::ZERO;
        }
        let remaining = |part: &SharedGuard| part.with(|held| Ok(held.remaining())).unwrap_or_default();
        let mut left: Vec<Duration> = self.group.held().iter().map(|(_, part)| remaining(part)).collect();
        left.sort_unstable_by(|a, b| b.cmp(a));
        left.get(self.group.needed - 1).copied().unwrap_or_default()
    }

    /// Makes the leases last another ttl from now, or the given time, and of a majority acquires the lock in
    /// the repositories that are there again.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it is held in too few, and [`ErrorCode::Io`], with each one's trouble, if too
    /// few could be asked: it is held until the leases end then.
    pub fn extend(&self, ttl: Option<Duration>) -> Result<()> {
        if self.is_lost() {
            return Err(self.group.lost());
        }
        let results = everywhere(self.group.held(), |part| part.with(|held| held.extend(ttl)));
        let extended = results.iter().filter(|(_, result)| result.is_ok()).count();
        let failures: Vec<(usize, Error)> =
            results.into_iter().filter_map(|(at, result)| Some((at, result.err()?))).collect();
        if let Some((_, wrong)) = failures.iter().find(|(_, error)| error.code() == ErrorCode::InvalidArgument) {
            return Err(Error::new(wrong.code(), wrong.to_string()));
        }
        if self.is_lost() {
            return Err(self.group.lost());
        }
        if extended < self.group.needed {
            return Err(self.group.repositories.too_few(self.group.needed, "could be asked", failures));
        }
        if self.group.is_quorum() {
            self.group.fill_up();
        }
        Ok(())
    }

    /// Calls `listener` once when it is lost, on a background thread; at once if it is lost already. It must
    /// not block. A release doesn't call it.
    pub fn on_lost(&self, listener: impl FnOnce() + Send + 'static) {
        if self.is_lost() {
            return listener();
        }
        lock(&self.group.listeners).push(Box::new(listener));
        for (_, part) in self.group.held() {
            self.group.listen_to(&part);
        }
    }

    /// Lets the leases go on without this guard, until they end or somebody with the handles, one for each
    /// repository in which it is held, releases them. They are no longer renewed by this process.
    pub fn detach(self) -> Vec<LockHandle> {
        self.group.over.store(true, SeqCst);
        let parts: Vec<Option<Arc<SharedGuard>>> = lock(&self.group.parts).iter_mut().map(Option::take).collect();
        self.group.wait_for_who_joins();
        parts.into_iter().flatten().filter_map(|part| Some(part.take().ok()?.detach())).collect()
    }

    /// Ends the tenure everywhere, in all repositories at once. One that is just being joined is waited for, as long as its
    /// server may take to answer.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it was held in too few, so that the work under it may have overlapped
    /// another's, or was released before. A repository that can't be reached is no error where enough others
    /// can: its lease ends by itself.
    pub fn release(&self) -> Result<()> {
        let lost = self.is_lost();
        // First, so that nothing is joined any more.
        self.group.over.store(true, SeqCst);
        if self.group.released.swap(true, SeqCst) {
            let message = format!("this guard of the lock {} was released before", self.group.names[0]);
            return Err(Error::new(ErrorCode::LockLost, message));
        }
        lock(&self.group.listeners).clear();
        // What is left of one that is lost too: who waits there needn't wait on.
        let (released, failed): (Vec<_>, Vec<_>) =
            self.group.release().into_iter().partition(|(_, result)| result.is_ok());
        let unknown = failed.iter().filter(|(_, result)| result.as_ref().is_err_and(|error| !error.is_lost())).count();
        if lost || released.len() + unknown < self.group.needed {
            return Err(self.group.lost());
        }
        for (at, error) in failed.into_iter().filter_map(|(at, result)| Some((at, result.err()?))) {
            // Of a majority the others are gone, so that nobody is kept out.
            if !self.group.is_quorum() {
                return Err(self.group.repositories.at(at, &error));
            }
            tracing::warn!(error = %self.group.repositories.at(at, &error), "a lease is left to end by itself");
        }
        Ok(())
    }
}

impl Drop for MultiGuard {
    fn drop(&mut self) {
        self.group.over.store(true, SeqCst);
        for (at, result) in self.group.release() {
            if let Err(error) = result {
                tracing::warn!(error = %self.group.repositories.at(at, &error), "a dropped guard could not release its lock");
            }
        }
    }
}

/// Does something with each of these parts, with all at once.
fn everywhere(
    parts: Vec<(usize, Arc<SharedGuard>)>,
    run: impl Fn(&SharedGuard) -> Result<()> + Sync,
) -> Vec<(usize, Result<()>)> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = parts.into_iter().map(|(at, part)| (at, scope.spawn(move || run(&part)))).collect();
        let result = |(at, thread): (usize, std::thread::ScopedJoinHandle<'_, Result<()>>)| {
            (at, thread.join().unwrap_or_else(|panic| Err(Error::panicked(&*panic))))
        };
        threads.into_iter().map(result).collect()
    })
}

impl fmt::Debug for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.managers.iter().map(LockManager::location)).finish()
    }
}

impl fmt::Debug for MultiGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiGuard")
            .field("names", &self.group.names)
            .field("token", &self.token())
            .field("held_in", &self.held_in())
            .finish_non_exhaustive()
    }
}
