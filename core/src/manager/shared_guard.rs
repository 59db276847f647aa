//! A guard that several use at the same time.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    lock::Mode,
    name::LockName,
};

use super::guard::LockGuard;

/// A guard that any number of threads may use at the same time, until one of them takes it away to end
/// it: what a language without moves makes of a [`LockGuard`]. It goes on telling what it last knew.
///
/// Dropping it drops the guard.
///
/// ```
/// use gitlock::{LockManager, Options, SharedGuard};
/// let manager = LockManager::in_memory(Options::default())?;
/// let guard = SharedGuard::new(manager.lock("build").acquire()?);
/// let token = guard.token();
/// guard.take()?.release()?;
/// assert_eq!(guard.token(), token);
/// assert!(guard.with(|held| held.extend(None)).is_err());
/// # Ok::<(), gitlock::Error>(())
/// ```
#[derive(Debug)]
pub struct SharedGuard {
    /// `None` once it was taken away.
    guard: RwLock<Option<LockGuard>>,
    name: LockName,
    id: String,
    slot: Option<u32>,
    last_token: AtomicU64,
    last_is_shared: AtomicBool,
}

impl SharedGuard {
    /// Makes a guard one that several may use.
    pub fn new(guard: LockGuard) -> SharedGuard {
        SharedGuard {
            name: guard.name().clone(),
            id: guard.id().to_owned(),
            slot: guard.slot(),
            last_token: AtomicU64::new(guard.token()),
            last_is_shared: AtomicBool::new(guard.mode() == Mode::Shared),
            guard: RwLock::new(Some(guard)),
        }
    }

    /// The lock; of several the first that was asked for.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// The tenure's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As [`LockGuard::slot`].
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// As [`LockGuard::token`]; the last one after it was taken away.
    pub fn token(&self) -> u64 {
        self.with(|held| Ok(held.token())).unwrap_or_else(|_| self.last_token.load(SeqCst))
    }

    /// Whether others may hold beside it; or might, before it was taken away.
    pub fn is_shared(&self) -> bool {
        self.with(|held| Ok(held.mode() == Mode::Shared)).unwrap_or_else(|_| self.last_is_shared.load(SeqCst))
    }

    /// As [`LockGuard::is_lost`]; true after it was taken away.
    pub fn is_lost(&self) -> bool {
        self.with(|held| Ok(held.is_lost())).unwrap_or(true)
    }

    /// Does something with the guard, while nobody can take it away.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] after it was taken away, and what `run` says.
    pub fn with<T>(&self, run: impl FnOnce(&LockGuard) -> Result<T>) -> Result<T> {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map_or_else(|| Err(self.over()), run)
    }

    /// Takes the guard away, to release, detach or drop it. Waits for whoever does something with it.
    ///
    /// # Errors
    /// [`ErrorCode::LockLost`] if somebody else did before.
    pub fn take(&self) -> Result<LockGuard> {
        let mut place = self.guard.write().unwrap_or_else(PoisonError::into_inner);
        let guard = place.take().ok_or_else(|| self.over())?;
        self.last_token.store(guard.token(), SeqCst);
        self.last_is_shared.store(guard.mode() == Mode::Shared, SeqCst);
        Ok(guard)
    }

    fn over(&self) -> Error {
        Error::new(ErrorCode::LockLost, format!("this guard of the lock {} was released or detached before", self.name))
    }
}
