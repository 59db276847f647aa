//! Opening a repository, acquiring, and everything that needs no guard.

use std::{sync::Arc, time::Duration};

use gitlock::{CancelToken, LockHandle, LockManager, json};
use pyo3::prelude::*;

use crate::{
    errors::{caught, exception, outside},
    guard::Guard,
    messenger,
    options::{AcquireOptions, ManagerOptions, tell, ttl},
};

/// How often a wait lets Python run signal handlers.
pub(crate) const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// Waits while others have the interpreter. Python's signal handlers run every so often; what one
/// raises ends the wait by this token, and is raised here.
pub(crate) fn waiting<T: Send>(
    py: Python<'_>,
    cancel: CancelToken,
    wait: impl FnOnce(&CancelToken, &mut dyn FnMut()) -> gitlock::Result<T> + Send,
) -> PyResult<T> {
    let (result, raised) = py.detach(move || {
        let mut raised = None;
        let mut attend = || {
            if raised.is_none() {
                raised = Python::attach(|py| py.check_signals().err());
                if raised.is_some() {
                    cancel.cancel();
                }
            }
        };
        let result = caught(|| wait(&cancel, &mut attend));
        (result, raised)
    });
    match (result, raised) {
        (result, None) => result.map_err(|error| exception(py, &error)),
        (result, Some(raised)) => {
            // Granted at the same moment: nobody is going to release it.
            py.detach(move || drop(result));
            Err(raised)
        }
    }
}

/// Tells `done(guard, exception)`, with one of them `None`, what a wait came to.
pub(crate) fn granted<T: Send + 'static, G: for<'py> IntoPyObject<'py> + 'static>(
    done: Py<PyAny>,
    guard: fn(T) -> G,
) -> impl FnOnce(gitlock::Result<T>) + Send {
    let done = Arc::new(done);
    move |result| {
        // The core's guard: if the call isn't made any more, it is dropped where no interpreter is.
        messenger::call(&done, move |py| match result {
            Ok(held) => (guard(held), py.None()).into_pyobject(py),
            Err(error) => (py.None(), exception(py, &error).into_value(py)).into_pyobject(py),
        });
    }
}

/// The locks of one repository.
#[pyclass(frozen, module = "gitlock._gitlock")]
pub(crate) struct Manager(LockManager);

/// A wait that goes on in the background.
#[pyclass(frozen, module = "gitlock._gitlock")]
pub(crate) struct Waiting(gitlock::Waiting);

impl Manager {
    pub(crate) fn core(&self) -> &LockManager {
        &self.0
    }
}

#[pymethods]
impl Waiting {
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.0.cancel());
    }
}

#[pymethods]
impl Manager {
    #[new]
    fn open(py: Python<'_>, path: std::path::PathBuf, options: ManagerOptions) -> PyResult<Manager> {
        let options = options.into_core(py)?;
        outside(py, || LockManager::open_with(path, options)).map(Manager)
    }

    fn location(&self) -> String {
        self.0.location()
    }

    /// Acquires, and waits for it as long as the options say. Python's signal handlers run meanwhile;
    /// what one raises ends the wait and is raised here.
    fn acquire(&self, py: Python<'_>, names: Vec<String>, options: AcquireOptions) -> PyResult<Guard> {
        let request = options.apply(py, self.0.lock_all(&names))?;
        let wait = |cancel: &CancelToken, attend: &mut dyn FnMut()| {
            request.cancel(cancel).acquire_attending(SIGNALS_EVERY, attend)
        };
        waiting(py, CancelToken::new(), wait).map(Guard::new)
    }

    /// Acquires if that is possible at once.
    fn acquire_now(&self, py: Python<'_>, names: Vec<String>, options: AcquireOptions) -> PyResult<Guard> {
        let request = options.apply(py, self.0.lock_all(&names))?;
        outside(py, || request.acquire_now()).map(Guard::new)
    }

    /// Starts to acquire. `done(guard, exception)` is called once, on a thread of gitlock's own, with
    /// one of them `None`.
    fn start(&self, py: Python<'_>, names: Vec<String>, options: AcquireOptions, done: Py<PyAny>) -> PyResult<Waiting> {
        let request = options.apply(py, self.0.lock_all(&names))?;
        let tell = granted(done, Guard::new);
        outside(py, || request.start(tell)).map(Waiting)
    }

    fn status(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        tell(py, || Ok(json::status(&self.0.status(name)?)))
    }

    fn list(&self, py: Python<'_>) -> PyResult<String> {
        tell(py, || Ok(json::listing(&self.0.list()?)))
    }

    fn log(&self, py: Python<'_>, name: &str, most: usize) -> PyResult<String> {
        tell(py, || Ok(json::log(name, &self.0.log(name, most)?)))
    }

    fn break_lock(&self, py: Python<'_>, name: &str, id: Option<&str>, reason: Option<&str>) -> PyResult<String> {
        tell(py, || Ok(json::broken(name, &self.0.break_lock(name, id, reason)?)))
    }

    fn verify(&self, py: Python<'_>, name: &str, token: u64) -> PyResult<()> {
        outside(py, || self.0.verify(name, token))
    }

    fn graph(&self, py: Python<'_>) -> PyResult<String> {
        tell(py, || Ok(json::graph(&self.0.graph()?)))
    }

    /// The graph in the language of Graphviz.
    fn graph_dot(&self, py: Python<'_>) -> PyResult<String> {
        outside(py, || Ok(self.0.graph()?.to_dot()))
    }

    fn sync(&self, py: Python<'_>, remote: &Manager, strategy: &str) -> PyResult<String> {
        tell(py, || Ok(json::synced(&self.0.sync(&remote.0, strategy.parse()?)?)))
    }

    fn clean(&self, py: Python<'_>, grace: Option<f64>) -> PyResult<String> {
        let grace = ttl(py, grace)?;
        tell(py, || Ok(json::cleaned(&self.0.clean(grace)?)))
    }

    fn doctor(&self, py: Python<'_>, fix: bool) -> PyResult<String> {
        tell(py, || Ok(json::findings(&self.0.doctor(fix)?)))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn release(&self, py: Python<'_>, handle: &str) -> PyResult<()> {
        outside(py, || self.0.release(&handle.parse()?))
    }

    /// Returns the seconds that are left.
    fn extend(&self, py: Python<'_>, handle: &str, ttl_seconds: Option<f64>) -> PyResult<f64> {
        let ttl = ttl(py, ttl_seconds)?;
        let left = outside(py, || self.0.extend(&handle.parse()?, ttl))?;
        Ok(left.as_secs_f64())
    }

    fn resume(&self, py: Python<'_>, handle: &str) -> PyResult<Guard> {
        outside(py, || self.0.resume(&handle.parse()?)).map(Guard::new)
    }
}

/// The session of this thread, which is who holds and waits unless somebody says otherwise.
#[pyfunction]
pub(crate) fn thread_owner() -> String {
    gitlock::process::thread_owner()
}

/// The handle of a tenure that was acquired with a fingerprint.
#[pyfunction]
pub(crate) fn handle_by_fingerprint(py: Python<'_>, name: &str, fingerprint: &str) -> PyResult<String> {
    outside(py, || LockHandle::by_fingerprint(name, fingerprint)).map(|handle| handle.to_string())
}

/// The name, id and token of a handle.
#[pyfunction]
pub(crate) fn describe_handle(py: Python<'_>, handle: &str) -> PyResult<(String, Option<String>, Option<u64>)> {
    let handle: LockHandle = outside(py, || handle.parse())?;
    Ok((handle.name().as_str().to_owned(), handle.id().map(str::to_owned), handle.token()))
}
