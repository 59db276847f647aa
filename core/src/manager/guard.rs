//! The guard of one tenure.

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    error_code::{ErrorCode, Retry},
    fork,
    handle::LockHandle,
    lock::{Holder, Mode, Outcome, Refusal, Request},
    name::LockName,
    push_spec::PushSpec,
    ref_update::RefUpdate,
};

use super::{
    Inner,
    leftovers::Leftover,
    request::Checked,
    tenure::{TAKEN_AWAY, TenureState, Wanted, lost_error},
    wait::{Attention, WaitEntry, refused},
};

/// One tenure of a lock: it ends when this is released or dropped, when its lease runs out, or
/// when somebody breaks it.
///
/// Dropping it releases the lock, and can only log a failure. Call [`LockGuard::release`] where it
/// matters whether the lock was held to the end.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard {
    inner: Arc<Inner>,
    tenure: Arc<TenureState>,
    /// Whether dropping it releases.
    armed: bool,
}

impl LockGuard {
    pub(super) fn new(inner: Arc<Inner>, tenure: Arc<TenureState>) -> LockGuard {
        LockGuard { inner, tenure, armed: true }
    }

    /// Another guard of a tenure, which ends nothing.
    pub(super) fn beside(inner: &Arc<Inner>, tenure: &Arc<TenureState>) -> LockGuard {
        LockGuard { inner: inner.clone(), tenure: tenure.clone(), armed: false }
    }

    /// The lock; of several the first that was asked for.
    pub fn name(&self) -> &LockName {
        self.tenure.name()
    }

    /// Every lock that was asked for.
    pub fn names(&self) -> &[LockName] {
        self.tenure.asked()
    }

    /// The tenure's id.
    pub fn id(&self) -> &str {
        &self.tenure.id
    }

    /// The fencing token: it grows with every grant of this lock. Give it to whatever the lock
    /// protects, and let that refuse a token lower than one it has seen. Of several locks it is the
    /// first one's; an upgrade gives a higher one.
    pub fn token(&self) -> u64 {
        self.tenure.token(self.tenure.name()).unwrap_or_default()
    }

    /// The fencing token of one of several locks; `None` if it isn't one of them.
    pub fn token_of(&self, name: &str) -> Option<u64> {
        self.tenure.token(self.tenure.asked().iter().find(|asked| asked.as_str() == name)?)
    }

    /// Which slot it has, from 0, if the lock was taken as one of several.
    pub fn slot(&self) -> Option<u32> {
        self.tenure.slot()
    }

    /// How much of the lock it takes.
    pub fn mode(&self) -> Mode {
        self.tenure.mode()
    }

    /// The tenure as a string, for another process to go on with. See [`LockGuard::detach`].
    pub fn handle(&self) -> LockHandle {
        LockHandle {
            names: self.tenure.asked().to_vec(),
            id: Some(self.tenure.id.clone()),
            token: self.tenure.token(self.tenure.name()),
            proof: self.tenure.proof.clone(),
        }
    }

    /// Whether the tenure has ended, by this guard's own clock or by what was found in the
    /// repository. A `false` is as old as the question: what must never happen twice has to check
    /// the token where it happens.
    pub fn is_lost(&self) -> bool {
        if self.is_forked() || self.tenure.is_over() {
            return true;
        }
        self.lose_if_late()
    }

    fn lose_if_late(&self) -> bool {
        let late = self.inner.commits.clock.boot_ms() >= self.tenure.lost_at(&self.inner);
        if late {
            self.tenure.lose("its lease ran out before it could be renewed");
        }
        late
    }

    fn is_forked(&self) -> bool {
        self.inner.generation != fork::generation()
    }

    /// For how long the tenure is safe from here on without another renewal. Zero once it is lost.
    pub fn remaining(&self) -> Duration {
        if self.is_lost() {
            return Duration::ZERO;
        }
        let left = self.tenure.lost_at(&self.inner).saturating_sub(self.inner.commits.clock.boot_ms());
        Duration::from_millis(left)
    }

    /// Calls `listener` once when the tenure is lost, on the manager's background thread; at once
    /// if it is lost already. It must not block. A release doesn't call it.
    pub fn on_lost(&self, listener: impl FnOnce(&Error) + Send + 'static) {
        match (self.tenure.listen(Box::new(listener)), self.tenure.why_lost()) {
            (Some(listener), Some(why)) => listener(&lost_error(self.tenure.name(), &why)),
            _ => self.inner.reactor().guard_wants_news(&self.inner, &self.tenure),
        }
    }

    /// Makes the lease last another ttl from now, or the given time.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it has ended, even if nobody has taken the lock since.
    pub fn extend(&self, ttl: Option<Duration>) -> Result<()> {
        self.check_alive()?;
        let request = Request::Extend { tenure: self.tenure.request(), ttl: super::check_ttl(ttl)?, rebind: None };
        let outcomes = self.tenure.submit(&self.inner, &request, None)?;
        self.hear_extended(outcomes)
    }

    /// Gives the tenure at least this token under each of its names.
    pub(crate) fn raise_token(&self, token: u64) -> Result<()> {
        self.check_alive()?;
        let outcomes =
            self.tenure.submit(&self.inner, &Request::Raise { tenure: self.tenure.request(), token }, None)?;
        let holders: Vec<&Holder> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Extended(holder) => Some(holder),
                _ => None,
            })
            .collect();
        if holders.len() < outcomes.len() {
            return Err(lost_error(self.tenure.name(), TAKEN_AWAY));
        }
        self.tenure.converted(&holders);
        Ok(())
    }

    /// Changes other refs of the repository, so that a holder which has lost its lease can't: in one
    /// transaction of `git update-ref`, in which the lock must be as its renewal just before has left it.
    /// Reflogs, symbolic refs and hooks are Git's own. Either all of the changes are made or none, and the
    /// lease lasts another ttl. `message` is for the reflogs; by default it names the lock.
    ///
    /// ```
    /// use gitlock::{LockManager, Options, RefUpdate};
    /// let manager = LockManager::in_memory(Options::default())?;
    /// let guard = manager.lock("release").acquire()?;
    /// let id = "0123456789012345678901234567890123456789";
    /// guard.update_refs(&[RefUpdate::create("refs/heads/stable", id)], None)?;
    /// guard.release()?;
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    ///
    /// # Errors
    /// None of the changes was made after any of them, but for one that says otherwise.
    /// [`ErrorCode::LockLost`] if the tenure has ended, [`ErrorCode::RefChanged`] if a ref isn't as
    /// expected, [`ErrorCode::RefsRefused`] if Git or a hook says no, [`ErrorCode::InvalidArgument`] for
    /// what isn't there or belongs to gitlock, and [`ErrorCode::Unsupported`] without a `git` program.
    pub fn update_refs(&self, updates: &[RefUpdate], message: Option<&str>) -> Result<()> {
        self.check_alive()?;
        let request = Request::Extend { tenure: self.tenure.request(), ttl: None, rebind: None };
        let outcomes = self.inner.update_refs(self.tenure.names(), &request, updates, message)?;
        self.hear_extended(outcomes)
    }

    /// Pushes refs of the repository on this machine to the server that the lock lives on, so that a holder which
    /// has lost its lease can't: in one atomic push with the lock's renewal, of which the server takes all or
    /// nothing. What they lead to is sent along, as `git push` does it, after the repository's pre-push hook; remote-
    /// tracking branches are left to the next fetch. The lease lasts another ttl.
    ///
    /// While the pack is sent the lease isn't renewed otherwise: give it a ttl longer than that takes. The pack is
    /// kept in memory.
    ///
    /// # Errors
    /// Nothing was changed after any of them, but for one that says otherwise. [`ErrorCode::LockLost`] if the
    /// tenure has ended, [`ErrorCode::RefChanged`] if a ref there isn't what comes before the pushed one and there is no
    /// `+`, [`ErrorCode::RefsRefused`] if the server or a hook says no, [`ErrorCode::InvalidArgument`] for what isn't
    /// there or belongs to gitlock, and [`ErrorCode::Unsupported`] if the server has no atomic pushes, if the lock
    /// isn't at a server, without a repository to push from, or without a `git` program.
    pub fn push(&self, specs: &[PushSpec]) -> Result<()> {
        self.check_alive()?;
        let request = Request::Extend { tenure: self.tenure.request(), ttl: None, rebind: None };
        match self.inner.push(self.tenure.names(), &request, specs, Some(&self.tenure)) {
            Ok(outcomes) => self.hear_extended(outcomes),
            Err(error) => {
                if error.code() == ErrorCode::LockLost {
                    self.tenure.lose(TAKEN_AWAY);
                    self.tenure.let_go(&self.inner, None);
                }
                Err(error)
            }
        }
    }

    /// Takes the answers to an extension in.
    fn hear_extended(&self, mut outcomes: Vec<Outcome>) -> Result<()> {
        if self.tenure.prolonged(&outcomes) {
            self.inner.reactor().touch(&self.inner, &self.tenure);
            return Ok(());
        }
        match outcomes.pop() {
            Some(Outcome::Refused(refusal @ Refusal::Opaque(_))) => Err(refused(self.tenure.name(), refusal)),
            _ => {
                self.tenure.lose(TAKEN_AWAY);
                self.tenure.let_go(&self.inner, None);
                Err(lost_error(self.tenure.name(), TAKEN_AWAY))
            }
        }
    }

    /// Turns a shared tenure into an exclusive one without letting go: waits for the other holders to
    /// leave, before everybody who queues. `wait`: how long; `None`: for ever. Nothing to do if it is
    /// exclusive. The token is a higher one from then on.
    ///
    /// # Errors
    /// [`ErrorCode::Timeout`], [`ErrorCode::Held`] with a wait of zero, [`ErrorCode::Cancelled`],
    /// [`ErrorCode::Deadlock`] if another holder waits to upgrade too, [`ErrorCode::InvalidArgument`]
    /// for a slot, and [`ErrorCode::LockLost`]. The tenure stays shared then, except when it is lost.
    pub fn upgrade(&self, wait: Option<Duration>, cancel: Option<&CancelToken>) -> Result<()> {
        self.upgrade_with(wait, cancel, None)
    }

    /// As [`LockGuard::upgrade`], and calls `attend` on this thread every so often while it waits: see
    /// [`LockRequest::acquire_attending`](super::LockRequest::acquire_attending).
    ///
    /// # Errors
    /// As [`LockGuard::upgrade`].
    pub fn upgrade_attending(
        &self,
        wait: Option<Duration>,
        cancel: Option<&CancelToken>,
        every: Duration,
        attend: &mut dyn FnMut(),
    ) -> Result<()> {
        self.upgrade_with(wait, cancel, Some((every, attend)))
    }

    fn upgrade_with(
        &self,
        wait: Option<Duration>,
        cancel: Option<&CancelToken>,
        attention: Option<Attention<'_>>,
    ) -> Result<()> {
        let done = self.inner.upgrade(self.upgrading(wait, cancel)?, attention);
        if done.as_ref().is_err_and(|error| error.code() == ErrorCode::LockLost) {
            self.tenure.lose(TAKEN_AWAY);
        }
        done
    }

    fn upgrading(&self, wait: Option<Duration>, cancel: Option<&CancelToken>) -> Result<WaitEntry> {
        self.check_alive()?;
        self.check_convertible()?;
        let checked = Checked::upgrade(&self.tenure, wait, cancel);
        Ok(WaitEntry::upgrade(&self.inner, checked, self.tenure.clone()))
    }

    /// As [`LockGuard::upgrade`], but doesn't block while it waits: `done` is called once, as
    /// [`LockRequest::begin`](super::LockRequest::begin) says.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for a slot, and [`ErrorCode::LockLost`]; everything else comes to `done`.
    pub fn begin_upgrade(
        &self,
        wait: Option<Duration>,
        cancel: Option<&CancelToken>,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        let (entry, tenure) = (self.upgrading(wait, cancel)?, self.tenure.clone());
        let done = move |result: Result<LockGuard>| {
            if result.as_ref().is_err_and(|error| error.code() == ErrorCode::LockLost) {
                tenure.lose(TAKEN_AWAY);
            }
            done(result.map(drop));
        };
        self.inner.begin_upgrade(entry, Box::new(done));
        Ok(())
    }

    /// Turns an exclusive tenure into a shared one, and lets in the readers who are first in the queue.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for a slot, and [`ErrorCode::LockLost`].
    pub fn downgrade(&self) -> Result<()> {
        self.check_alive()?;
        self.check_convertible()?;
        self.inner.downgrade(&self.tenure)
    }

    fn check_convertible(&self) -> Result<()> {
        if self.slot().is_none() {
            return Ok(());
        }
        let message =
            format!("{} is held as a slot, which is neither shared nor the whole; release it instead", self.name());
        Err(Error::new(ErrorCode::InvalidArgument, message))
    }

    /// Who waits for what this holds, as it is at this moment.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`], and if the repository can't be read.
    pub fn wanted(&self) -> Result<Wanted> {
        self.check_alive()?;
        let mut wanted = Wanted::default();
        for name in self.tenure.names() {
            wanted.count(&self.inner.current(name)?, &self.tenure.id);
        }
        Ok(wanted)
    }

    /// Calls `listener` whenever others begin or cease to wait for what this holds, on the manager's
    /// background thread, so that it can let go early. It must not block.
    pub fn on_wanted(&self, listener: impl FnMut(&Wanted) + Send + 'static) {
        self.tenure.listen_wanted(Arc::new(Mutex::new(listener)));
        self.inner.reactor().guard_wants_news(&self.inner, &self.tenure);
    }

    /// Ends the tenure, and hands the lock to whoever is next.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if it had ended before, so that the work under it may have
    /// overlapped another's. Other errors leave the lock held until its lease ends.
    pub fn release(mut self) -> Result<()> {
        self.armed = false;
        self.end()
    }

    fn end(&self) -> Result<()> {
        self.check_process()?;
        if !self.tenure.part_with() {
            return self.check_alive();
        }
        if self.tenure.detached.load(SeqCst) {
            self.inner.forget(&self.tenure);
            return self.check_alive();
        }
        self.tenure.ending.store(true, SeqCst);
        // Asked even if it is thought lost: the record knows better, and who waits needn't wait on.
        let answer = self.tenure.release(&self.inner);
        let released = matches!(answer, Ok(Outcome::Released(_)));
        let told_lost = if released { self.tenure.end() } else { self.tenure.is_over() };
        self.inner.forget(&self.tenure);
        match answer {
            Ok(Outcome::Released(_)) if !told_lost => Ok(()),
            Err(error) if !told_lost => {
                if error.retry() == Retry::Later {
                    let release = Request::Release { tenure: self.tenure.request() };
                    let names = self.tenure.names().iter().rev();
                    let requests = names.map(|name| (name.clone(), release.clone())).collect();
                    let left = Leftover::new(&self.inner, requests, self.inner.actor(), self.tenure.lease_end());
                    self.inner.reactor().leave_behind(&self.inner, left);
                }
                Err(error)
            }
            // Nobody can tell, so nobody says that it is lost.
            Ok(Outcome::Refused(refusal @ Refusal::Opaque(_))) if !told_lost => {
                Err(refused(self.tenure.name(), refusal))
            }
            _ => {
                self.tenure.lose(TAKEN_AWAY);
                let why = self.tenure.why_lost().unwrap_or_else(|| TAKEN_AWAY.to_owned());
                Err(lost_error(self.tenure.name(), &why))
            }
        }
    }

    fn check_process(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::new(
                ErrorCode::Forked,
                format!(
                    "this guard of {} belongs to the process that this one was forked from; acquire the lock here, or hand \
                     over a handle",
                    self.tenure.name()
                ),
            ));
        }
        Ok(())
    }

    fn check_alive(&self) -> Result<()> {
        self.check_process()?;
        if self.is_lost() {
            self.inner.forget(&self.tenure);
            let why = self.tenure.why_lost().unwrap_or_else(|| TAKEN_AWAY.to_owned());
            return Err(lost_error(self.tenure.name(), &why));
        }
        Ok(())
    }

    /// Lets the tenure go on without this guard, until its lease ends or somebody with the handle
    /// releases it. It is no longer renewed by this process.
    pub fn detach(mut self) -> LockHandle {
        self.armed = false;
        self.tenure.detached.store(true, SeqCst);
        if self.tenure.part_with() {
            self.inner.forget(&self.tenure);
        }
        self.handle()
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.armed || self.is_forked() || self.tenure.is_over() {
            return;
        }
        if let Err(error) = self.end() {
            tracing::error!(lock = %self.tenure.name(), %error, "a dropped guard could not release its lock");
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", self.tenure.name())
            .field("id", &self.tenure.id)
            .field("token", &self.token())
            .finish_non_exhaustive()
    }
}
