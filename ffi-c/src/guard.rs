//! One tenure.

use std::{
    ffi::{CString, c_char, c_void},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use gitlock::{Error, ErrorCode, LockGuard, Mode, Result, json};

use crate::{
    boundary::{answer, enter},
    options::{Data, GITLOCK_DEFAULT, GITLOCK_EXCLUSIVE, GITLOCK_SHARED},
    text::{c_string, give, place, reference},
};

/// One tenure of a lock: it ends when it is released or freed, when its lease runs out, or when
/// somebody breaks it. Every function may be called from any thread, also at the same time as
/// others, but for `gitlock_guard_free`.
pub struct gitlock_guard {
    /// `None` once it is released or detached.
    guard: RwLock<Option<LockGuard>>,
    name: CString,
    id: CString,
    token: u64,
    mode: i32,
}

impl gitlock_guard {
    /// Gives a guard to the caller.
    pub(crate) fn give(guard: LockGuard) -> *mut gitlock_guard {
        let mode = if guard.mode() == Mode::Shared { GITLOCK_SHARED } else { GITLOCK_EXCLUSIVE };
        Box::into_raw(Box::new(gitlock_guard {
            name: c_string(guard.name().as_str().to_owned()),
            id: c_string(guard.id().to_owned()),
            token: guard.token(),
            mode,
            guard: RwLock::new(Some(guard)),
        }))
    }

    fn over(&self) -> Error {
        let name = self.name.to_string_lossy();
        Error::new(ErrorCode::LockLost, format!("this guard of the lock {name} was released or detached before"))
    }

    /// Does something with the tenure, while nobody takes it away.
    fn with<T>(&self, run: impl FnOnce(&LockGuard) -> Result<T>) -> Result<T> {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map_or_else(|| Err(self.over()), run)
    }

    /// Takes the tenure away.
    fn take(&self) -> Result<LockGuard> {
        self.guard.write().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| self.over())
    }
}

/// The lock's name. Valid until the guard is freed; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_name(guard: *const gitlock_guard) -> *const c_char {
    // SAFETY: NULL or valid, by the convention.
    answer(std::ptr::null(), || unsafe { guard.as_ref() }.map_or(std::ptr::null(), |guard| guard.name.as_ptr()))
}

/// The tenure's id. Valid until the guard is freed; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_id(guard: *const gitlock_guard) -> *const c_char {
    // SAFETY: NULL or valid, by the convention.
    answer(std::ptr::null(), || unsafe { guard.as_ref() }.map_or(std::ptr::null(), |guard| guard.id.as_ptr()))
}

/// The fencing token: it grows with every grant of this lock. Give it to whatever the lock
/// protects, and let that refuse a token lower than one it has seen. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_token(guard: *const gitlock_guard) -> u64 {
    // SAFETY: NULL or valid, by the convention.
    answer(0, || unsafe { guard.as_ref() }.map_or(0, |guard| guard.token))
}

/// GITLOCK_EXCLUSIVE or GITLOCK_SHARED; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_mode(guard: *const gitlock_guard) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    answer(-1, || unsafe { guard.as_ref() }.map_or(-1, |guard| guard.mode))
}

/// Whether the tenure has ended, by this process's own clock or by what was found in the
/// repository. A `false` is as old as the question: what must never happen twice has to check the
/// token where it happens. True for NULL, and for what was released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_is_lost(guard: *const gitlock_guard) -> bool {
    // SAFETY: NULL or valid, by the convention.
    answer(true, || unsafe { guard.as_ref() }.is_none_or(|guard| guard.with(|held| Ok(held.is_lost())).unwrap_or(true)))
}

/// For how many milliseconds the tenure is safe from here on without another renewal; 0 once it is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_remaining_ms(guard: *const gitlock_guard) -> u64 {
    answer(0, || {
        // SAFETY: NULL or valid, by the convention.
        let left = unsafe { guard.as_ref() }.map(|guard| guard.with(|held| Ok(held.remaining())));
        let left = left.and_then(Result::ok).unwrap_or_default();
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Makes the lease last `ttl_ms` from now; -1: its own length again.
/// GITLOCK_LOCK_LOST if it has ended, even if nobody has taken the lock since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_extend(guard: *const gitlock_guard, ttl_ms: i64) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    enter(|| unsafe { reference("guard", guard) }?.with(|held| held.extend(ttl(ttl_ms)?)))
}

/// A length that was asked for.
pub(crate) fn ttl(ttl_ms: i64) -> Result<Option<Duration>> {
    match ttl_ms {
        GITLOCK_DEFAULT => Ok(None),
        ttl => u64::try_from(ttl).map(|ttl| Some(Duration::from_millis(ttl))).map_err(|_| {
            Error::new(ErrorCode::InvalidArgument, format!("ttl_ms can't be {ttl}; give milliseconds, or -1"))
        }),
    }
}

/// Ends the tenure, and hands the lock to whoever is next. The guard is still to be freed.
/// GITLOCK_LOCK_LOST if the tenure had ended before, so that the work under it may have overlapped
/// another's; with other errors it stays held until its lease ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_release(guard: *const gitlock_guard) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    enter(|| unsafe { reference("guard", guard) }?.take()?.release())
}

/// Frees a guard, and releases its lock if that wasn't done; a failure of that is told to nobody.
/// NULL is fine. No other call with this guard may be under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_free(guard: *mut gitlock_guard) {
    if !guard.is_null() {
        // SAFETY: it came from this library, by the convention.
        answer((), || drop(unsafe { Box::from_raw(guard) }));
    }
}

/// The tenure as a string, for another process or language to go on with: treat it like a
/// password. Free it with `gitlock_string_free`. GITLOCK_LOCK_LOST once it was released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_handle(guard: *const gitlock_guard, handle: *mut *mut c_char) -> i32 {
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let (handle, guard) = unsafe { (place("handle", handle, std::ptr::null_mut())?, reference("guard", guard)?) };
        *handle = give(guard.with(|held| Ok(held.handle().to_string()))?);
        Ok(())
    })
}

/// As `gitlock_guard_handle`, and lets the tenure go on without this guard, until its lease ends or
/// somebody with the handle releases it: this process renews it no more. The guard is still to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_detach(guard: *const gitlock_guard, handle: *mut *mut c_char) -> i32 {
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let (handle, guard) = unsafe { (place("handle", handle, std::ptr::null_mut())?, reference("guard", guard)?) };
        *handle = give(guard.take()?.detach().to_string());
        Ok(())
    })
}

/// What is called when a tenure is lost; `error` is as `gitlock_last_error_json` gives it, valid
/// during the call. It must not block, nor unwind.
pub type gitlock_on_lost = Option<unsafe extern "C" fn(data: *mut c_void, error: *const c_char)>;

/// What is called once when a callback's data is not going to be used any more, on whichever thread
/// that turns out. It must not block, nor unwind.
pub type gitlock_free_data = Option<unsafe extern "C" fn(data: *mut c_void)>;

/// A callback's data, and how it is freed.
struct Owned {
    data: Data,
    free: gitlock_free_data,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the caller gave the function for this data, and nobody uses it from here on.
            unsafe { free(self.data.0) }
        }
    }
}

/// Calls `listener` once when the tenure is lost, on the manager's background thread, or at once on
/// this one if it is lost already. A release doesn't call it. `free_data`, which may be NULL, is called
/// with `data` in any case, also if this fails, once `listener` has been called or never will be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_on_lost(
    guard: *const gitlock_guard,
    listener: gitlock_on_lost,
    data: *mut c_void,
    free_data: gitlock_free_data,
) -> i32 {
    let owned = Owned { data: Data(data), free: free_data };
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let guard = unsafe { reference("guard", guard) }?;
        let Some(listener) = listener else { return Ok(()) };
        guard.with(|held| {
            held.on_lost(move |error| {
                let owned = owned;
                let error = c_string(json::error(error).to_string());
                // SAFETY: the caller gave the function and the data for this.
                unsafe { listener(owned.data.0, error.as_ptr()) }
            });
            Ok(())
        })
    })
}
