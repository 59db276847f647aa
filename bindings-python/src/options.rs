//! Options, as Python gives them: seconds as numbers, `None` for the default.

use std::{sync::Arc, time::Duration};

use gitlock::{LockRequest, Options};
use pyo3::{prelude::*, types::PyTuple};

use crate::{
    errors::{exception, invalid, outside},
    messenger,
};

/// A length of time in seconds.
pub(crate) fn seconds(py: Python<'_>, what: &str, value: Option<f64>) -> PyResult<Option<Duration>> {
    value
        .map(|value| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| invalid(py, format!("{what} can't be {value}; give seconds, 0 or more")))
        })
        .transpose()
}

/// Ends waits from another thread: every one that was given it, now and later.
#[pyclass(frozen, module = "gitlock")]
pub(crate) struct CancelToken(pub(crate) gitlock::CancelToken);

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> CancelToken {
        CancelToken(gitlock::CancelToken::new())
    }

    /// Ends every wait that was given this. Any thread may call it, and again.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.0.cancel());
    }

    /// Whether it was cancelled.
    fn cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// How a lock is acquired.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct AcquireOptions {
    shared: bool,
    priority: i32,
    ttl: Option<f64>,
    wait: Option<f64>,
    max_hold: Option<f64>,
    renew: Option<bool>,
    owner: Option<String>,
    fingerprint: Option<String>,
    reason: Option<String>,
    cancel: Option<Py<CancelToken>>,
    on_wait: Option<Py<PyAny>>,
    slots: Option<u32>,
    within: Option<String>,
    reentrant: bool,
}

impl AcquireOptions {
    /// Puts them into a request.
    pub(crate) fn apply<'a>(self, py: Python<'_>, mut request: LockRequest<'a>) -> PyResult<LockRequest<'a>> {
        let core = gitlock::AcquireOptions {
            shared: self.shared,
            priority: self.priority,
            ttl: seconds(py, "ttl", self.ttl)?,
            wait: seconds(py, "wait", self.wait)?,
            max_hold: seconds(py, "max_hold", self.max_hold)?,
            renew: self.renew,
            owner: self.owner,
            fingerprint: self.fingerprint,
            reason: self.reason,
            slots: self.slots,
            within: self.within,
            reentrant: self.reentrant,
            process_group: None,
        };
        request = request.set(core).map_err(|error| exception(py, &error))?;
        if let Some(cancel) = self.cancel {
            request = request.cancel(&cancel.get().0);
        }
        if let Some(on_wait) = self.on_wait.map(Arc::new) {
            request = request.on_wait(move |progress| {
                let (ahead, status) = (progress.ahead, gitlock::json::status(&progress.status).to_string());
                messenger::call(&on_wait, move |py| {
                    PyTuple::new(py, [ahead.into_pyobject(py)?.into_any(), status.into_pyobject(py)?.into_any()])
                });
            });
        }
        Ok(request)
    }
}

/// How a manager works.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ManagerOptions {
    lock_prefix: Option<String>,
    owner: Option<String>,
    keep: Option<u32>,
    durable: Option<bool>,
    stale_lock_age: Option<f64>,
    max_clock_skew: Option<f64>,
    claim_window: Option<f64>,
    poll_interval: Option<f64>,
    lock_timeout: Option<f64>,
    environment: bool,
    remote: Option<String>,
    remote_timeout: Option<f64>,
}

impl ManagerOptions {
    /// As the core wants them.
    pub(crate) fn into_core(self, py: Python<'_>) -> PyResult<Options> {
        let mut options = Options::default();
        (options.lock_prefix, options.owner, options.keep) = (self.lock_prefix, self.owner, self.keep);
        options.remote = self.remote;
        (options.durable, options.environment) = (self.durable, self.environment);
        if self.keep == Some(0) {
            return Err(invalid(py, "keep can't be 0; give at least 1, or None for the default".to_owned()));
        }
        options.stale_lock_age = seconds(py, "stale_lock_age", self.stale_lock_age)?;
        options.max_clock_skew = seconds(py, "max_clock_skew", self.max_clock_skew)?;
        let or = |what, value, default| seconds(py, what, value).map(|value| value.unwrap_or(default));
        options.claim_window = or("claim_window", self.claim_window, options.claim_window)?;
        options.poll_interval = or("poll_interval", self.poll_interval, options.poll_interval)?;
        options.lock_timeout = or("lock_timeout", self.lock_timeout, options.lock_timeout)?;
        options.remote_timeout = or("remote_timeout", self.remote_timeout, options.remote_timeout)?;
        Ok(options)
    }
}

/// A length that was asked for, as an argument of its own.
pub(crate) fn ttl(py: Python<'_>, ttl: Option<f64>) -> PyResult<Option<Duration>> {
    seconds(py, "ttl", ttl)
}

/// What the core has found, as the JSON that `gitlock` turns into dictionaries.
pub(crate) fn tell<F>(py: Python<'_>, find: F) -> PyResult<String>
where
    F: FnOnce() -> gitlock::Result<gitlock::json::Value> + Send,
{
    outside(py, || Ok(find()?.to_string()))
}
