//! One tenure.

use std::sync::Arc;

use gitlock::{Error, LockGuard, PushSpec, RefUpdate, Result, SharedGuard, json};
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
    held: SharedGuard,
}

impl Guard {
    pub(crate) fn new(guard: LockGuard) -> Guard {
        Guard { held: SharedGuard::new(guard) }
    }
}

#[pymethods]
impl Guard {
    /// The lock's name.
    #[getter]
    fn name(&self) -> &str {
        self.held.name().as_str()
    }

    /// The tenure's id.
    #[getter]
    fn id(&self) -> &str {
        self.held.id()
    }

    /// Which slot it has, if the lock was taken as one of several.
    #[getter]
    fn slot(&self) -> Option<u32> {
        self.held.slot()
    }

    /// The fencing token.
    #[getter]
    fn token(&self) -> u64 {
        self.held.token()
    }

    /// Whether others may hold beside it.
    #[getter]
    fn shared(&self) -> bool {
        self.held.is_shared()
    }

    /// Every lock that was asked for, with its token.
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<(String, u64)>> {
        let all = |guard: &LockGuard| {
            let names = guard.names().iter().map(|name| name.as_str().to_owned());
            Ok(names.map(|name| (guard.token_of(&name).unwrap_or_default(), name)).map(|(t, n)| (n, t)).collect())
        };
        outside(py, || self.held.with(all))
    }

    /// Waits as long as the seconds say, or until it is cancelled. Python's signal handlers run meanwhile.
    fn upgrade(&self, py: Python<'_>, wait: Option<f64>, cancel: Option<Py<CancelToken>>) -> PyResult<()> {
        let wait = seconds(py, "timeout", wait)?;
        let upgrade = |cancel: &gitlock::CancelToken, attend: &mut dyn FnMut()| {
            self.held.with(|guard| guard.upgrade_attending(wait, Some(cancel), SIGNALS_EVERY, attend))
        };
        let cancel = cancel.map_or_else(gitlock::CancelToken::new, |cancel| cancel.get().0.clone());
        waiting(py, cancel, upgrade)
    }

    fn downgrade(&self, py: Python<'_>) -> PyResult<()> {
        outside(py, || self.held.with(LockGuard::downgrade))
    }

    fn wanted(&self, py: Python<'_>) -> PyResult<String> {
        tell(py, || Ok(json::wanted(&self.held.with(LockGuard::wanted)?)))
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
        outside(py, || self.held.with(listen))
    }

    fn is_lost(&self) -> bool {
        self.held.is_lost()
    }

    /// In seconds.
    fn remaining(&self) -> f64 {
        self.held.with(|guard| Ok(guard.remaining())).unwrap_or_default().as_secs_f64()
    }

    #[pyo3(signature = (ttl_seconds=None))]
    fn extend(&self, py: Python<'_>, ttl_seconds: Option<f64>) -> PyResult<()> {
        let ttl = ttl(py, ttl_seconds)?;
        outside(py, || self.held.with(|guard| guard.extend(ttl)))
    }

    /// Each change is the words of a line of `git update-ref --stdin`.
    fn update_refs(&self, py: Python<'_>, updates: Vec<Vec<String>>, message: Option<String>) -> PyResult<()> {
        let change = || {
            let updates = updates.iter().map(|words| RefUpdate::from_words(words)).collect::<Result<Vec<_>>>()?;
            self.held.with(|guard| guard.update_refs(&updates, message.as_deref()))
        };
        outside(py, change)
    }

    /// Each is a refspec of `git push`.
    fn push(&self, py: Python<'_>, refspecs: Vec<String>) -> PyResult<()> {
        let push = || {
            let specs = refspecs.iter().map(|text| text.parse()).collect::<Result<Vec<PushSpec>>>()?;
            self.held.with(|guard| guard.push(&specs))
        };
        outside(py, push)
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        outside(py, || self.held.take()?.release())
    }

    fn handle(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || self.held.with(|guard| Ok(guard.handle().to_string())))
    }

    fn detach(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || Ok(self.held.take()?.detach().to_string()))
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
        outside(py, || self.held.with(listen))
    }
}

impl Drop for Guard {
    /// Releasing takes a moment in which others may run.
    fn drop(&mut self) {
        let Ok(guard) = self.held.take() else { return };
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
