//! The one border: no panic gets through it, and every error is told in the same way.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
};

use gitlock::{Error, Result, json};

use crate::text::c_string;

/// The last error of a thread.
#[derive(Default)]
struct Last {
    code: i32,
    message: CString,
    json: CString,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// Runs this, and gives its end as a code. Only failures change the thread's last error.
pub(crate) fn enter(run: impl FnOnce() -> Result<()>) -> i32 {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => remember(&error),
        Err(panic) => remember(&Error::panicked(&*panic)),
    }
}

/// Runs this, and gives `otherwise` after a panic.
pub(crate) fn answer<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(answer) => answer,
        Err(panic) => {
            remember(&Error::panicked(&*panic));
            otherwise
        }
    }
}

/// Makes this the thread's last error. Returns its code.
pub(crate) fn remember(error: &Error) -> i32 {
    let code = error.code().number();
    let last = Last { code, message: c_string(error.to_string()), json: c_string(json::error(error).to_string()) };
    // Fails only while the thread ends, when nobody can ask any more.
    let _ = LAST.try_with(|place| place.replace(last));
    code
}

fn of_last(field: impl FnOnce(&Last) -> *const c_char) -> *const c_char {
    LAST.try_with(|last| field(&last.borrow())).unwrap_or(c"".as_ptr())
}

/// The code of this thread's last failed call; 0 if none has failed. A success doesn't change it.
#[unsafe(no_mangle)]
pub extern "C" fn gitlock_last_error_code() -> i32 {
    LAST.try_with(|last| last.borrow().code).unwrap_or(0)
}

/// What happened in this thread's last failed call, who holds the lock, and what to do. Never NULL;
/// valid until this thread's next failed call.
#[unsafe(no_mangle)]
pub extern "C" fn gitlock_last_error_message() -> *const c_char {
    of_last(|last| last.message.as_ptr())
}

/// The same as JSON: `code`, `message`, `retry`, and `holder`, which is null unless somebody's
/// holding the lock is why. Never NULL ("" if no call has failed); valid until this thread's next
/// failed call.
#[unsafe(no_mangle)]
pub extern "C" fn gitlock_last_error_json() -> *const c_char {
    of_last(|last| last.json.as_ptr())
}

/// The library's version, such as "0.1.0". Never NULL, valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn gitlock_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use gitlock::ErrorCode;

    use super::*;

    #[test]
    fn a_panic_becomes_a_code_and_a_message() {
        assert_eq!(enter(|| panic!("as a bug does")), ErrorCode::Internal.number());
        assert_eq!(gitlock_last_error_code(), ErrorCode::Internal.number());
        // SAFETY: the message is valid until the next failed call.
        let message = unsafe { CStr::from_ptr(gitlock_last_error_message()) };
        assert!(message.to_string_lossy().contains("as a bug does"));
        assert_eq!(answer(7, || panic!("{}", "again")), 7);
        assert_eq!(enter(|| Ok(())), 0);
        assert_eq!(gitlock_last_error_code(), ErrorCode::Internal.number(), "a success leaves it");
    }
}
