//! What the codes mean.

use std::ffi::{CStr, c_char};

use gitlock::{ErrorCode, Retry};

use crate::{boundary::answer, generated::NAMES};

/// The word for a code, such as "HELD", the same as in every other language; "OK" for 0, and NULL
/// for a number that is no code. Valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn gitlock_code_name(code: i32) -> *const c_char {
    let name = |(number, name): &(i32, &'static CStr)| (*number == code).then_some(name.as_ptr());
    answer(std::ptr::null(), || NAMES.iter().find_map(name).unwrap_or(std::ptr::null()))
}

/// Whether trying again can help: one of `gitlock_retry`. For 0, and for a number that is no code: never.
#[unsafe(no_mangle)]
pub extern "C" fn gitlock_code_retry(code: i32) -> i32 {
    use crate::generated::gitlock_retry::{GITLOCK_RETRY_FROM_START, GITLOCK_RETRY_LATER, GITLOCK_RETRY_NEVER};
    let retry = match ErrorCode::from_number(code).map(ErrorCode::retry) {
        Some(Retry::Later) => GITLOCK_RETRY_LATER,
        Some(Retry::FromStart) => GITLOCK_RETRY_FROM_START,
        Some(Retry::Never) | None => GITLOCK_RETRY_NEVER,
    };
    retry as i32
}
