//! gitlock for Python: the part in Rust. It converts, and decides nothing.
//!
//! `python/gitlock` gives it the shape of `threading.Lock` and of `asyncio.Lock`.

mod errors;
mod guard;
mod manager;
mod messenger;
mod multi;
mod options;

use pyo3::{exceptions::PyImportError, prelude::*};

/// The core, as `gitlock` uses it. Import `gitlock` instead.
#[pymodule(gil_used = true)]
fn _gitlock(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // PyO3 notices the second interpreter that imports it, but the first may be a sub-interpreter.
    // SAFETY: the interpreter's lock is held.
    if unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) } != 0 {
        return Err(PyImportError::new_err(
            "gitlock doesn't support subinterpreters yet; import it in the main interpreter, or use processes",
        ));
    }
    let end_calls = wrap_pyfunction!(messenger::end_calls, module)?;
    module.py().import("atexit")?.call_method1("register", (end_calls,))?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<manager::Manager>()?;
    module.add_class::<manager::Waiting>()?;
    module.add_class::<guard::Guard>()?;
    module.add_class::<multi::Repositories>()?;
    module.add_class::<multi::MultiGuard>()?;
    module.add_class::<options::CancelToken>()?;
    module.add_function(wrap_pyfunction!(manager::thread_owner, module)?)?;
    module.add_function(wrap_pyfunction!(manager::handle_by_fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(manager::describe_handle, module)?)
}
