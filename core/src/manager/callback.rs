//! Calls to functions of the caller's: one that panics must not end renewals and other waits.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::name::LockName;

/// Calls it, and logs a panic. Nobody looks at what the panic left half-done: it was the caller's alone.
pub(super) fn call(what: &str, lock: &LockName, callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!(%lock, what, "a callback panicked");
    }
}
