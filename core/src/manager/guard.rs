//! The guard of one tenure.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    clock,
    error::{Error, Result},
    error_code::ErrorCode,
    fork,
    handle::LockHandle,
    lock::{Holder, Mode, Outcome, Refusal, Request, decide::Tenure, expiry::safety_margin},
    name::LockName,
};

use super::{Inner, callback, wait::refused};

type LostFn = Box<dyn FnOnce(&Error) + Send>;

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

/// What the guard and the background thread share about a tenure.
pub(super) struct TenureState {
    pub(super) name: LockName,
    pub(super) id: String,
    pub(super) proof: String,
    pub(super) mode: Mode,
    token: Option<u64>,
    ttl: AtomicU64,
    /// The lease's end on the boot clock.
    lease_end: AtomicU64,
    /// The boot time after which it isn't renewed any more.
    pub(super) renew_until: u64,
    pub(super) renews: bool,
    over: AtomicBool,
    /// Whether its own release is under way, so that its end is no loss.
    ending: AtomicBool,
    lost: Mutex<Lost>,
}

#[derive(Default)]
struct Lost {
    why: Option<String>,
    listeners: Vec<LostFn>,
}

impl TenureState {
    pub(super) fn new(
        name: LockName,
        holder: &Holder,
        proof: String,
        renews: bool,
        max_hold: Option<Duration>,
        now: u64,
    ) -> TenureState {
        TenureState {
            name,
            id: holder.claim.id.clone(),
            proof,
            mode: holder.claim.mode,
            token: holder.token,
            ttl: AtomicU64::new(holder.claim.ttl),
            lease_end: AtomicU64::new(lease_end(holder)),
            renew_until: max_hold.map_or(u64::MAX, |max| now.saturating_add(clock::millis(max))),
            renews,
            over: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            lost: Mutex::default(),
        }
    }

    pub(super) fn request(&self) -> Tenure {
        Tenure { id: Some(self.id.clone()), proof: self.proof.clone() }
    }

    pub(super) fn ttl(&self) -> u64 {
        self.ttl.load(SeqCst)
    }

    pub(super) fn prolonged(&self, holder: &Holder) {
        self.ttl.store(holder.claim.ttl, SeqCst);
        self.lease_end.store(lease_end(holder), SeqCst);
    }

    /// The boot time at which the guard counts itself lost, before anybody may end the lease.
    pub(super) fn lost_at(&self, inner: &Inner) -> u64 {
        let margin = safety_margin(self.ttl(), inner.commits.policy.faults);
        self.lease_end.load(SeqCst).saturating_sub(margin)
    }

    /// Released, or lost.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_over() || self.ending.load(SeqCst)
    }

    /// Counts the tenure as lost, and tells who wants to know.
    pub(super) fn lose(&self, why: &str) {
        let listeners = {
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            if self.over.swap(true, SeqCst) {
                return;
            }
            lost.why = Some(why.to_owned());
            std::mem::take(&mut lost.listeners)
        };
        tracing::error!(lock = %self.name, id = self.id, why, "a lock was lost");
        for listener in listeners {
            callback::call("on_lost", &self.name, || listener(&lost_error(&self.name, why)));
        }
    }

    fn why_lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).why.clone()
    }
}

fn lease_end(holder: &Holder) -> u64 {
    holder.end.as_ref().map_or(0, |end| end.at)
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

impl LockGuard {
    pub(super) fn new(inner: Arc<Inner>, tenure: Arc<TenureState>) -> LockGuard {
        LockGuard { inner, tenure, armed: true }
    }

    /// The lock.
    pub fn name(&self) -> &LockName {
        &self.tenure.name
    }

    /// The tenure's id.
    pub fn id(&self) -> &str {
        &self.tenure.id
    }

    /// The fencing token: it grows with every grant of this lock. Give it to whatever the lock
    /// protects, and let that refuse a token lower than one it has seen.
    pub fn token(&self) -> u64 {
        self.tenure.token.unwrap_or_default()
    }

    /// How much of the lock it takes.
    pub fn mode(&self) -> Mode {
        self.tenure.mode
    }

    /// The tenure as a string, for another process to go on with. See [`LockGuard::detach`].
    pub fn handle(&self) -> LockHandle {
        LockHandle {
            name: self.tenure.name.clone(),
            id: Some(self.tenure.id.clone()),
            token: self.tenure.token,
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
        let mut listener: Option<LostFn> = Some(Box::new(listener));
        {
            let mut lost = self.tenure.lost.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.tenure.is_over() {
                lost.listeners.extend(listener.take());
            }
        }
        match (listener, self.tenure.why_lost()) {
            (Some(listener), Some(why)) => listener(&lost_error(&self.tenure.name, &why)),
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
        match self.inner.submit(&self.tenure.name, request)? {
            Outcome::Extended(holder) => {
                self.tenure.prolonged(&holder);
                self.inner.reactor().touch(&self.inner, &self.tenure);
                Ok(())
            }
            Outcome::Refused(refusal @ Refusal::Opaque(_)) => Err(refused(&self.tenure.name, refusal)),
            _ => {
                self.tenure.lose(TAKEN_AWAY);
                Err(lost_error(&self.tenure.name, TAKEN_AWAY))
            }
        }
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
        self.tenure.ending.store(true, SeqCst);
        // Asked even if it is thought lost: the record knows better, and who waits needn't wait on.
        let request = Request::Release { tenure: self.tenure.request() };
        let answer = self.inner.submit(&self.tenure.name, request);
        let released = matches!(answer, Ok(Outcome::Released(_)));
        let told_lost = if released { self.tenure.over.swap(true, SeqCst) } else { self.tenure.is_over() };
        self.inner.forget(&self.tenure);
        match answer {
            Ok(Outcome::Released(_)) if !told_lost => Ok(()),
            Err(error) if !told_lost => Err(error),
            // Nobody can tell, so nobody says that it is lost.
            Ok(Outcome::Refused(refusal @ Refusal::Opaque(_))) if !told_lost => {
                Err(refused(&self.tenure.name, refusal))
            }
            _ => {
                self.tenure.lose(TAKEN_AWAY);
                let why = self.tenure.why_lost().unwrap_or_else(|| TAKEN_AWAY.to_owned());
                Err(lost_error(&self.tenure.name, &why))
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
                    self.tenure.name
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
            return Err(lost_error(&self.tenure.name, &why));
        }
        Ok(())
    }

    /// Lets the tenure go on without this guard, until its lease ends or somebody with the handle
    /// releases it. It is no longer renewed by this process.
    pub fn detach(mut self) -> LockHandle {
        self.armed = false;
        self.inner.forget(&self.tenure);
        self.handle()
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.armed || self.is_forked() || self.tenure.is_over() {
            return;
        }
        if let Err(error) = self.end() {
            tracing::error!(lock = %self.tenure.name, %error, "a dropped guard could not release its lock");
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", &self.tenure.name)
            .field("id", &self.tenure.id)
            .field("token", &self.tenure.token)
            .finish_non_exhaustive()
    }
}
