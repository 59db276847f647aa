//! Locks in several repositories at once.

use std::sync::Arc;

use gitlock::CancelToken;
use pyo3::{prelude::*, types::PyTuple};

use crate::{
    errors::outside,
    manager::{Manager, SIGNALS_EVERY, granted, waiting},
    messenger,
    options::{self, AcquireOptions, ttl},
};

/// Several repositories in which locks are taken together.
#[pyclass(frozen, module = "gitlock._gitlock")]
pub(crate) struct Repositories(gitlock::Repositories);

/// A lock in several repositories.
#[pyclass(frozen, module = "gitlock._gitlock")]
pub(crate) struct MultiGuard(gitlock::MultiGuard);

#[pymethods]
impl Repositories {
    #[new]
    fn new(py: Python<'_>, managers: Vec<PyRef<'_, Manager>>) -> PyResult<Repositories> {
        let managers: Vec<gitlock::LockManager> = managers.iter().map(|manager| manager.core().clone()).collect();
        outside(py, || gitlock::Repositories::new(managers)).map(Repositories)
    }

    /// Acquires these in every repository; or, if `quorum`, the one in most. Python's signal handlers run meanwhile.
    fn acquire(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        quorum: bool,
        options: AcquireOptions,
    ) -> PyResult<MultiGuard> {
        let request = self.request(py, &names, quorum, options)?;
        let wait = |cancel: &CancelToken, attend: &mut dyn FnMut()| {
            request.with(|each| each.cancel(cancel)).acquire_attending(SIGNALS_EVERY, attend)
        };
        waiting(py, CancelToken::new(), wait).map(MultiGuard)
    }

    /// Starts to acquire. `done(guard, exception)` is called once, on a thread of gitlock's own, with one of them
    /// `None`. The token ends the wait.
    fn start(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        quorum: bool,
        options: AcquireOptions,
        done: Py<PyAny>,
    ) -> PyResult<options::CancelToken> {
        let request = self.request(py, &names, quorum, options)?;
        let token = CancelToken::new();
        outside(py, || request.with(|each| each.cancel(&token)).start(granted(done, MultiGuard)))?;
        Ok(options::CancelToken(token))
    }
}

impl Repositories {
    fn request(
        &self,
        py: Python<'_>,
        names: &[String],
        quorum: bool,
        options: AcquireOptions,
    ) -> PyResult<gitlock::MultiRequest> {
        let request = if quorum { self.0.quorum(&names[0]) } else { self.0.all(names) };
        request.try_with(|each| options.apply(py, each))
    }
}

#[pymethods]
impl MultiGuard {
    /// The fencing token.
    #[getter]
    fn token(&self) -> u64 {
        self.0.token()
    }

    fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// In seconds.
    fn validity(&self) -> f64 {
        self.0.validity().as_secs_f64()
    }

    fn held_in(&self) -> Vec<String> {
        self.0.held_in()
    }

    #[pyo3(signature = (ttl_seconds=None))]
    fn extend(&self, py: Python<'_>, ttl_seconds: Option<f64>) -> PyResult<()> {
        let ttl = ttl(py, ttl_seconds)?;
        outside(py, || self.0.extend(ttl))
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        outside(py, || self.0.release())
    }

    /// Calls `listener()` once when it is lost, on a thread of gitlock's own.
    fn on_lost(&self, py: Python<'_>, listener: Py<PyAny>) -> PyResult<()> {
        let listener = Arc::new(listener);
        let listen = move || {
            self.0.on_lost(move || messenger::call(&listener, |py| Ok(PyTuple::empty(py))));
            Ok(())
        };
        outside(py, listen)
    }
}

impl Drop for MultiGuard {
    /// Releasing takes a moment in which others may run; dropped again, there is nothing left to release.
    fn drop(&mut self) {
        if self.0.is_lost() {
            return;
        }
        if Python::try_attach(|py| py.detach(|| drop(self.0.release()))).is_none() {
            drop(self.0.release());
        }
    }
}
