//! The core's errors as Python's exceptions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gitlock::{Error, ErrorCode, Result, json};
use pyo3::{exceptions::PyRuntimeError, prelude::*, sync::PyOnceLock, types::PyAny};

/// `gitlock._errors.from_json`, which knows the classes.
fn from_json(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FROM_JSON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let function =
        FROM_JSON.get_or_try_init(py, || py.import("gitlock._errors")?.getattr("from_json").map(Bound::unbind))?;
    Ok(function.bind(py))
}

/// The exception that an error is.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    match from_json(py).and_then(|from_json| from_json.call1((json::error(error).to_string(),))) {
        Ok(exception) => PyErr::from_value(exception),
        // Only while the interpreter ends.
        Err(_) => PyRuntimeError::new_err(error.to_string()),
    }
}

/// Runs this; a panic is an error of gitlock's, like every other.
pub(crate) fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(Error::panicked(&*panic)))
}

/// Runs this while others have the interpreter, and raises the exception that an error is.
pub(crate) fn outside<T: Send>(py: Python<'_>, run: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(|| caught(run)).map_err(|error| exception(py, &error))
}

/// An argument that can't be meant.
pub(crate) fn invalid(py: Python<'_>, message: String) -> PyErr {
    exception(py, &Error::new(ErrorCode::InvalidArgument, message))
}
