//! The core's errors on their way to JavaScript: as JSON, from which `lib/errors.js` makes them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gitlock::{Error, Result, json};

/// Runs this; a panic is an error of gitlock's, like every other.
pub(crate) fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(Error::panicked(&*panic)))
}

/// Runs this on the present thread, for a call that answers at once.
pub(crate) fn now<T>(run: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    caught(run).map_err(|error| napi::Error::from_reason(json::error(&error).to_string()))
}
