//! One tenure.

use std::sync::{Arc, PoisonError, RwLock};

use gitlock::{Error, ErrorCode, LockGuard, Mode, RefUpdate, Result, json};
use pyo3::{prelude::*, types::PyTuple};

use crate::{
    errors::{exception, outside},
    manager::{SIGNALS_EVERY, waiting},
    messenger,
    options::{CancelToken, seconds, tell, ttl},
};

/// One tenure of a lock.
#[pyclass(frozen, module = "gitlock._gitlock")]
pub(crate) struct Guard {
    /// `None` once it is released or detached.
    guard: RwLock<Option<LockGuard>>,
    /// The lock's name.
    #[pyo3(get)]
    name: String,
    /// The tenure's id.
    #[pyo3(get)]
    id: String,
    /// Which slot it has, if the lock was taken as one of several.
    #[pyo3(get)]
    slot: Option<u32>,
    /// The fencing token, as it is when nothing else is known any more.
    first_token: u64,
}

impl Guard {
    pub(crate) fn new(guard: LockGuard) -> Guard {
        Guard {
            name: guard.name().as_str().to_owned(),
            id: guard.id().to_owned(),
            slot: guard.slot(),
            first_token: guard.token(),
            guard: RwLock::new(Some(guard)),
        }
    }

    fn over(&self) -> Error {
        let message = format!("the lock {} was released or detached before", self.name);
        Error::new(ErrorCode::LockLost, message)
    }

    fn with<T>(&self, run: impl FnOnce(&LockGuard) -> Result<T>) -> Result<T> {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map_or_else(|| Err(self.over()), run)
    }

    fn take(&self) -> Result<LockGuard> {
        self.guard.write().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| self.over())
    }
}

#[pymethods]
impl Guard {
    /// The fencing token.
    #[getter]
    fn token(&self) -> u64 {
        self.with(|guard| Ok(guard.token())).unwrap_or(self.first_token)
    }

    /// Whether others may hold beside it.
    #[getter]
    fn shared(&self) -> bool {
        self.with(|guard| Ok(guard.mode() == Mode::Shared)).unwrap_or(false)
    }

    /// Every lock that was asked for, with its token.
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<(String, u64)>> {
        let all = |guard: &LockGuard| {
            let names = guard.names().iter().map(|name| name.as_str().to_owned());
            Ok(names.map(|name| (guard.token_of(&name).unwrap_or_default(), name)).map(|(t, n)| (n, t)).collect())
        };
        outside(py, || self.with(all))
    }

    /// Waits as long as the seconds say, or until it is cancelled. Python's signal handlers run meanwhile.
    fn upgrade(&self, py: Python<'_>, wait: Option<f64>, cancel: Option<Py<CancelToken>>) -> PyResult<()> {
        let wait = seconds(py, "timeout", wait)?;
        let upgrade = |cancel: &gitlock::CancelToken, attend: &mut dyn FnMut()| {
            self.with(|guard| guard.upgrade_attending(wait, Some(cancel), SIGNALS_EVERY, attend))
        };
        let cancel = cancel.map_or_else(gitlock::CancelToken::new, |cancel| cancel.get().0.clone());
        waiting(py, cancel, upgrade)
    }

    fn downgrade(&self, py: Python<'_>) -> PyResult<()> {
        outside(py, || self.with(LockGuard::downgrade))
    }

    fn wanted(&self, py: Python<'_>) -> PyResult<String> {
        tell(py, || Ok(json::wanted(&self.with(LockGuard::wanted)?)))
    }

    /// Calls `listener(waiters, priority)` whenever that changes, on a thread of gitlock's own.
    fn on_wanted(&self, py: Python<'_>, listener: Py<PyAny>) -> PyResult<()> {
        let listener = Arc::new(listener);
        let listen = |guard: &LockGuard| {
            guard.on_wanted(move |wanted| {
                let (waiters, priority) = (wanted.waiters, wanted.priority);
                messenger::call(&listener, move |py| {
                    PyTuple::new(py, [waiters.into_pyobject(py)?.into_any(), priority.into_pyobject(py)?.into_any()])
                });
            });
            Ok(())
        };
        outside(py, || self.with(listen))
    }

    fn is_lost(&self) -> bool {
        self.with(|guard| Ok(guard.is_lost())).unwrap_or(true)
    }

    /// In seconds.
    fn remaining(&self) -> f64 {
        self.with(|guard| Ok(guard.remaining())).unwrap_or_default().as_secs_f64()
    }

    #[pyo3(signature = (ttl_seconds=None))]
    fn extend(&self, py: Python<'_>, ttl_seconds: Option<f64>) -> PyResult<()> {
        let ttl = ttl(py, ttl_seconds)?;
        outside(py, || self.with(|guard| guard.extend(ttl)))
    }

    /// Each change is the words of a line of `git update-ref --stdin`.
    fn update_refs(&self, py: Python<'_>, updates: Vec<Vec<String>>, message: Option<String>) -> PyResult<()> {
        let change = || {
            let updates = updates.iter().map(|words| {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                RefUpdate::from_words(&words)
            });
            let updates = updates.collect::<Result<Vec<_>>>()?;
            self.with(|guard| guard.update_refs(&updates, message.as_deref()))
        };
        outside(py, change)
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        outside(py, || self.take()?.release())
    }

    fn handle(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || self.with(|guard| Ok(guard.handle().to_string())))
    }

    fn detach(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || Ok(self.take()?.detach().to_string()))
    }

    /// Calls `listener(exception)` once when it is lost, on a thread of gitlock's own.
    fn on_lost(&self, py: Python<'_>, listener: Py<PyAny>) -> PyResult<()> {
        let listener = Arc::new(listener);
        let listen = |guard: &LockGuard| {
            guard.on_lost(move |error| {
                let error = Error::new(error.code(), error.to_string());
                messenger::call(&listener, move |py| PyTuple::new(py, [exception(py, &error).into_value(py)]));
            });
            Ok(())
        };
        outside(py, || self.with(listen))
    }
}

impl Drop for Guard {
    /// Releasing takes a moment in which others may run.
    fn drop(&mut self) {
        let Some(guard) = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let mut guard = Some(guard);
        if Python::try_attach(|py| {
            let guard = guard.take();
            py.detach(move || drop(guard));
        })
        .is_none()
        {
            drop(guard);
        }
    }
}
