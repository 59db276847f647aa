//! One tenure.

use std::sync::{Arc, PoisonError, RwLock};

use gitlock::{Error, ErrorCode, LockGuard, Mode, Result};
use pyo3::{prelude::*, types::PyTuple};

use crate::{
    errors::{exception, outside},
    messenger,
    options::ttl,
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
    /// The fencing token.
    #[pyo3(get)]
    token: u64,
    /// Whether others may hold beside it.
    #[pyo3(get)]
    shared: bool,
}

impl Guard {
    pub(crate) fn new(guard: LockGuard) -> Guard {
        Guard {
            name: guard.name().as_str().to_owned(),
            id: guard.id().to_owned(),
            token: guard.token(),
            shared: guard.mode() == Mode::Shared,
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
