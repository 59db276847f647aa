//! Ending waits from another thread, and waits that block no thread.

use std::ffi::{c_char, c_void};

use gitlock::{CancelToken, Result, Waiting};

use crate::{
    boundary::{answer, enter, remember},
    guard::gitlock_guard,
    manager::gitlock_manager,
    options::{Data, gitlock_acquire_options, request},
    text::{every, place, reference, required},
};

/// Ends waits from another thread. One may be given to any number of acquires.
pub struct gitlock_cancel(CancelToken);

impl gitlock_cancel {
    pub(crate) fn token(&self) -> &CancelToken {
        &self.0
    }
}

/// One that isn't cancelled. NULL only if memory is used up.
#[unsafe(no_mangle)]
pub extern "C" fn gitlock_cancel_new() -> *mut gitlock_cancel {
    answer(std::ptr::null_mut(), || Box::into_raw(Box::new(gitlock_cancel(CancelToken::new()))))
}

/// Ends every wait that was given this, now and later, with GITLOCK_CANCELLED. NULL is fine.
/// May be called from any thread, while others use the same pointer, and again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_cancel_cancel(cancel: *const gitlock_cancel) {
    answer((), || {
        // SAFETY: NULL or valid, by the convention.
        if let Some(cancel) = unsafe { cancel.as_ref() } {
            cancel.0.cancel();
        }
    });
}

/// Frees it; the waits that were given it go on. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_cancel_free(cancel: *mut gitlock_cancel) {
    if !cancel.is_null() {
        // SAFETY: it came from `gitlock_cancel_new`, by the convention.
        answer((), || drop(unsafe { Box::from_raw(cancel) }));
    }
}

/// A wait that goes on in the background.
pub struct gitlock_waiting(Waiting);

/// How a wait in the background ends: `code` 0 and a guard, which is the callee's to free, or another
/// code and NULL, with what `gitlock_last_error_message` says on this thread. It comes once, on the
/// manager's background thread, and must not block, nor unwind.
pub type gitlock_on_done = Option<unsafe extern "C" fn(data: *mut c_void, code: i32, guard: *mut gitlock_guard)>;

/// Starts to acquire without blocking this thread; the wait itself costs no thread. `options` may
/// be NULL. `waiting` may be NULL for a wait that isn't going to be cancelled.
///
/// Returns 0 if the wait has begun; `done` is called once then, and perhaps before this returns.
/// GITLOCK_INVALID_NAME, GITLOCK_INVALID_ARGUMENT: it isn't called. Concurrent calls are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_acquire_start(
    manager: *const gitlock_manager,
    name: *const c_char,
    options: *const gitlock_acquire_options,
    done: gitlock_on_done,
    data: *mut c_void,
    waiting: *mut *mut gitlock_waiting,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { start(manager, || Ok(vec![required("name", name)?]), options, (done, data), waiting) }
}

/// As `gitlock_acquire_start`, for `count` locks: all of them or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_acquire_all_start(
    manager: *const gitlock_manager,
    names: *const *const c_char,
    count: usize,
    options: *const gitlock_acquire_options,
    done: gitlock_on_done,
    data: *mut c_void,
    waiting: *mut *mut gitlock_waiting,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { start(manager, || every("names", names, count), options, (done, data), waiting) }
}

/// # Safety
/// By the convention.
unsafe fn start<'a>(
    manager: *const gitlock_manager,
    names: impl FnOnce() -> Result<Vec<&'a str>>,
    options: *const gitlock_acquire_options,
    (done, data): (gitlock_on_done, *mut c_void),
    waiting: *mut *mut gitlock_waiting,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        unsafe {
            if !waiting.is_null() {
                place("waiting", waiting, std::ptr::null_mut())?;
            }
            let manager = reference("manager", manager)?;
            let request = request(manager.0.lock_all(&names()?), options)?;
            let data = Data(data);
            let started = request.start(move |result| {
                let data = data;
                // Without anybody to take the guard the lock is given back.
                let Some(done) = done else { return };
                let (code, guard) = match result {
                    Ok(guard) => (0, gitlock_guard::give(guard)),
                    Err(error) => (remember(&error), std::ptr::null_mut()),
                };
                done(data.0, code, guard);
            })?;
            if !waiting.is_null() {
                waiting.write(Box::into_raw(Box::new(gitlock_waiting(started))));
            }
            Ok(())
        }
    })
}

/// Ends a wait; its `done` hears GITLOCK_CANCELLED, unless it is being called already. NULL is fine.
/// May be called from any thread, also after `done` has come, and again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_waiting_cancel(waiting: *const gitlock_waiting) {
    answer((), || {
        // SAFETY: NULL or valid, by the convention.
        if let Some(waiting) = unsafe { waiting.as_ref() } {
            waiting.0.cancel();
        }
    });
}

/// Frees it; the wait goes on. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_waiting_free(waiting: *mut gitlock_waiting) {
    if !waiting.is_null() {
        // SAFETY: it came from `gitlock_acquire_start`, by the convention.
        answer((), || drop(unsafe { Box::from_raw(waiting) }));
    }
}
