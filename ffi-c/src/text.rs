//! Strings, in both directions.

use std::ffi::{CStr, CString, c_char};

use gitlock::{Error, ErrorCode, Result};

/// A Rust string for C. What comes after a NUL character would be lost, so there are none.
pub(crate) fn c_string(text: String) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Gives a string to the caller.
pub(crate) fn give(text: String) -> *mut c_char {
    c_string(text).into_raw()
}

/// A string that must be there.
///
/// # Safety
/// NULL, or a C string that lives as long as the result.
pub(crate) unsafe fn required<'a>(what: &str, text: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise is the same.
    unsafe { optional(what, text) }?.ok_or_else(|| null(what))
}

/// A string that may be left out.
///
/// # Safety
/// NULL, or a C string that lives as long as the result.
pub(crate) unsafe fn optional<'a>(what: &str, text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it isn't NULL, so it is a C string, by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) }.to_str();
    text.map(Some).map_err(|_| Error::new(ErrorCode::InvalidArgument, format!("the {what} is not UTF-8; encode it so")))
}

/// So many strings, which all must be there. None are none, wherever `texts` points.
///
/// # Safety
/// NULL, or an array of `count` C strings, or NULLs, that live as long as the result.
pub(crate) unsafe fn every<'a>(what: &str, texts: *const *const c_char, count: usize) -> Result<Vec<&'a str>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if texts.is_null() {
        return Err(null(what));
    }
    // SAFETY: it isn't NULL, so there are `count`, by the caller's promise.
    let texts = unsafe { std::slice::from_raw_parts(texts, count) };
    // SAFETY: the caller's promise is the same.
    texts.iter().map(|text| unsafe { required(what, *text) }).collect()
}

/// A pointer that must be there.
///
/// # Safety
/// NULL, or valid for as long as the result lives.
pub(crate) unsafe fn reference<'a, T>(what: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: it is valid unless it is NULL, by the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
}

/// A place for a result, with nothing in it yet.
///
/// # Safety
/// NULL, or valid for writes for as long as the result lives.
pub(crate) unsafe fn place<'a, T>(what: &str, pointer: *mut T, nothing: T) -> Result<&'a mut T> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: it isn't NULL, so it is valid for writes; what is there may be uninitialized and is not read.
    unsafe {
        pointer.write(nothing);
        Ok(&mut *pointer)
    }
}

fn null(what: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("the {what} is NULL; it can't be left out"))
}

/// Frees a string that a function of this library gave away. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: it came from `give`, by the convention.
        drop(unsafe { CString::from_raw(text) });
    }
}
