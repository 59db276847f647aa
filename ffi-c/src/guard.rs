//! One tenure.

use std::{
    ffi::{CString, c_char, c_void},
    time::Duration,
};

use gitlock::{Error, ErrorCode, LockGuard, PushSpec, RefUpdate, Result, SharedGuard, json};

use crate::{
    boundary::{answer, enter},
    options::{Data, GITLOCK_DEFAULT, GITLOCK_EXCLUSIVE, GITLOCK_SHARED, millis},
    text::{c_string, every, give, optional, place, reference, required},
    wait::gitlock_cancel,
};

/// One tenure of a lock: it ends when it is released or freed, when its lease runs out, or when
/// somebody breaks it. Every function may be called from any thread, also at the same time as
/// others, but for `gitlock_guard_free`.
pub struct gitlock_guard {
    held: SharedGuard,
    name: CString,
    id: CString,
}

impl gitlock_guard {
    /// Gives a guard to the caller.
    pub(crate) fn give(guard: LockGuard) -> *mut gitlock_guard {
        Box::into_raw(Box::new(gitlock_guard {
            name: c_string(guard.name().as_str().to_owned()),
            id: c_string(guard.id().to_owned()),
            held: SharedGuard::new(guard),
        }))
    }
}

/// The lock's name; of several the first. Valid until the guard is freed; NULL for NULL.
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
/// protects, and let that refuse a token lower than one it has seen. Of several locks it is the
/// first one's; an upgrade gives a higher one. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_token(guard: *const gitlock_guard) -> u64 {
    // SAFETY: NULL or valid, by the convention.
    let guard = unsafe { guard.as_ref() };
    answer(0, || guard.map_or(0, |guard| guard.held.token()))
}

/// The fencing token of one of several locks. 0 if it isn't one of them, for NULL, and once the
/// guard was released or detached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_token_of(guard: *const gitlock_guard, name: *const c_char) -> u64 {
    answer(0, || {
        // SAFETY: NULL or valid, by the convention.
        let (guard, name) = unsafe { (guard.as_ref(), required("name", name)) };
        let token = guard.zip(name.ok()).map(|(guard, name)| guard.held.with(|held| Ok(held.token_of(name))));
        token.and_then(Result::ok).flatten().unwrap_or(0)
    })
}

/// Which slot it has, from 0; -1 if the lock wasn't taken as one of several slots, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_slot(guard: *const gitlock_guard) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    let slot = unsafe { guard.as_ref() }.and_then(|guard| guard.held.slot());
    slot.and_then(|slot| i32::try_from(slot).ok()).unwrap_or(-1)
}

/// GITLOCK_EXCLUSIVE or GITLOCK_SHARED; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_mode(guard: *const gitlock_guard) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    let guard = unsafe { guard.as_ref() };
    answer(-1, || match guard.map(|guard| guard.held.is_shared()) {
        Some(true) => GITLOCK_SHARED,
        Some(false) => GITLOCK_EXCLUSIVE,
        None => -1,
    })
}

/// Whether the tenure has ended, by this process's own clock or by what was found in the
/// repository. A `false` is as old as the question: what must never happen twice has to check the
/// token where it happens. True for NULL, and for what was released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_is_lost(guard: *const gitlock_guard) -> bool {
    // SAFETY: NULL or valid, by the convention.
    answer(true, || unsafe { guard.as_ref() }.is_none_or(|guard| guard.held.is_lost()))
}

/// For how many milliseconds the tenure is safe from here on without another renewal; 0 once it is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_remaining_ms(guard: *const gitlock_guard) -> u64 {
    answer(0, || {
        // SAFETY: NULL or valid, by the convention.
        let left = unsafe { guard.as_ref() }.map(|guard| guard.held.with(|held| Ok(held.remaining())));
        let left = left.and_then(Result::ok).unwrap_or_default();
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Makes the lease last `ttl_ms` from now; -1: its own length again.
/// GITLOCK_LOCK_LOST if it has ended, even if nobody has taken the lock since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_extend(guard: *const gitlock_guard, ttl_ms: i64) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    enter(|| unsafe { reference("guard", guard) }?.held.with(|held| held.extend(ttl(ttl_ms)?)))
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

/// Changes other refs of the repository, so that a holder which has lost its lease can't: in one
/// transaction of `git update-ref`, in which the lock must still be held. Reflogs, symbolic refs and hooks
/// are Git's own. Either all of the `count` changes are made or none, and the lease lasts another ttl.
///
/// Each is a line as `git update-ref --stdin` reads it: `update REF NEW [OLD]`, `create REF NEW`,
/// `delete REF [OLD]` or `verify REF [OLD]`, with one space between words, and `no-deref` before it where
/// a symbolic ref is itself meant. `message` is for the reflogs; NULL: it names the lock.
///
/// GITLOCK_LOCK_LOST if the tenure has ended, GITLOCK_REF_CHANGED if a ref isn't as expected,
/// GITLOCK_REFS_REFUSED if Git or a hook says no, GITLOCK_INVALID_ARGUMENT for what isn't there or is gitlock's,
/// GITLOCK_UNSUPPORTED without a `git` program. None was changed then, unless the message says otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_update_refs(
    guard: *const gitlock_guard,
    updates: *const *const c_char,
    count: usize,
    message: *const c_char,
) -> i32 {
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let (guard, lines) = unsafe { (reference("guard", guard)?, every("updates", updates, count)?) };
        // SAFETY: NULL or valid, by the convention.
        let message = unsafe { optional("message", message) }?;
        let updates = lines.into_iter().map(str::parse).collect::<Result<Vec<RefUpdate>>>()?;
        guard.held.with(|held| held.update_refs(&updates, message))
    })
}

/// Pushes refs of the repository on this machine to the server that the lock lives on, so that a holder which
/// has lost its lease can't: in one atomic push with the lock's renewal, of which the server takes all or
/// nothing. What they lead to is sent along, after the repository's pre-push hook. The lease lasts another ttl; while
/// the pack is sent it isn't renewed otherwise, so give it one longer than that takes.
///
/// Each of the `count` refspecs is as `git push` reads it: `main`, `HEAD`, `SOURCE:TARGET`, `:TARGET` to delete, and
/// with + before it to let a branch go elsewhere than forward, or a tag change.
///
/// GITLOCK_LOCK_LOST if the tenure has ended, GITLOCK_REF_CHANGED if a ref there isn't what comes before the pushed one,
/// GITLOCK_REFS_REFUSED if the server or a hook says no, GITLOCK_INVALID_ARGUMENT for what isn't there or is gitlock's,
/// GITLOCK_UNSUPPORTED if the server has no atomic pushes, or the lock isn't at one. Nothing was changed then, unless
/// the message says otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_push(
    guard: *const gitlock_guard,
    refspecs: *const *const c_char,
    count: usize,
) -> i32 {
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let (guard, specs) = unsafe { (reference("guard", guard)?, every("refspecs", refspecs, count)?) };
        let specs = specs.into_iter().map(str::parse).collect::<Result<Vec<PushSpec>>>()?;
        guard.held.with(|held| held.push(&specs))
    })
}

/// Turns a shared tenure into an exclusive one without letting go: waits for the other holders to
/// leave, before everybody who queues. `wait_ms`: how long, GITLOCK_FOREVER, or 0: not at all. `cancel`
/// may be NULL. Nothing to do if it is exclusive. While it waits, the guard must not be released or
/// detached: cancel it first.
///
/// GITLOCK_TIMEOUT, GITLOCK_HELD with a wait of 0, GITLOCK_CANCELLED, GITLOCK_DEADLOCK if another
/// holder waits to upgrade too, GITLOCK_INVALID_ARGUMENT for a slot: it stays shared then. And GITLOCK_LOCK_LOST.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_upgrade(
    guard: *const gitlock_guard,
    wait_ms: i64,
    cancel: *const gitlock_cancel,
) -> i32 {
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let (guard, cancel) = unsafe { (reference("guard", guard)?, cancel.as_ref()) };
        // It may be freed while it is waited for.
        let cancel = cancel.map(|cancel| cancel.token().clone());
        let wait = millis("wait_ms", wait_ms)?;
        guard.held.with(|held| held.upgrade(wait, cancel.as_ref()))
    })
}

/// Turns an exclusive tenure into a shared one, and lets in the readers who are first in the queue.
/// GITLOCK_INVALID_ARGUMENT for a slot, GITLOCK_LOCK_LOST if it has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_downgrade(guard: *const gitlock_guard) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    enter(|| unsafe { reference("guard", guard) }?.held.with(LockGuard::downgrade))
}

/// How many wait for what this holds, and the highest priority among them, which is 0 if nobody
/// waits. `priority` may be NULL. GITLOCK_LOCK_LOST if the tenure has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_wanted(
    guard: *const gitlock_guard,
    waiters: *mut usize,
    priority: *mut i32,
) -> i32 {
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        unsafe {
            let waiters = place("waiters", waiters, 0)?;
            let wanted = reference("guard", guard)?.held.with(LockGuard::wanted)?;
            *waiters = wanted.waiters;
            if !priority.is_null() {
                priority.write(wanted.priority.unwrap_or(0));
            }
        }
        Ok(())
    })
}

/// Ends the tenure, and hands the lock to whoever is next. The guard is still to be freed.
/// GITLOCK_LOCK_LOST if the tenure had ended before, so that the work under it may have overlapped
/// another's; with other errors it stays held until its lease ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_release(guard: *const gitlock_guard) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    enter(|| unsafe { reference("guard", guard) }?.held.take()?.release())
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
        *handle = give(guard.held.with(|held| Ok(held.handle().to_string()))?);
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
        *handle = give(guard.held.take()?.detach().to_string());
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
pub(crate) struct Owned {
    pub(crate) data: Data,
    free: gitlock_free_data,
}

impl Owned {
    pub(crate) fn new(data: *mut c_void, free: gitlock_free_data) -> Owned {
        Owned { data: Data(data), free }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the caller gave the function for this data, and nobody uses it from here on.
            unsafe { free(self.data.0) }
        }
    }
}

/// Adds a listener to what a guard holds. Its data is freed in any case.
///
/// # Safety
/// By the convention.
unsafe fn listen<L>(
    guard: *const gitlock_guard,
    listener: Option<L>,
    data: *mut c_void,
    free: gitlock_free_data,
    add: impl FnOnce(&LockGuard, L, Owned),
) -> i32 {
    let owned = Owned::new(data, free);
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let guard = unsafe { reference("guard", guard) }?;
        let Some(listener) = listener else { return Ok(()) };
        guard.held.with(|held| {
            add(held, listener, owned);
            Ok(())
        })
    })
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
    let add = |held: &LockGuard, listener: unsafe extern "C" fn(*mut c_void, *const c_char), owned: Owned| {
        held.on_lost(move |error| {
            let owned = owned;
            let error = c_string(json::error(error).to_string());
            // SAFETY: the caller gave the function and the data for this.
            unsafe { listener(owned.data.0, error.as_ptr()) }
        });
    };
    // SAFETY: by the convention.
    unsafe { listen(guard, listener, data, free_data, add) }
}

/// What is called when others begin or cease to wait for what a guard holds: as
/// `gitlock_guard_wanted` tells it. It must not block, nor unwind.
pub type gitlock_on_wanted = Option<unsafe extern "C" fn(data: *mut c_void, waiters: usize, priority: i32)>;

/// Calls `listener` whenever others begin or cease to wait for what this holds, on the manager's
/// background thread, so that it can let go early; until the tenure ends. `free_data`, which may be
/// NULL, is called with `data` in any case, also if this fails, once `listener` won't be called any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_guard_on_wanted(
    guard: *const gitlock_guard,
    listener: gitlock_on_wanted,
    data: *mut c_void,
    free_data: gitlock_free_data,
) -> i32 {
    let add = |held: &LockGuard, listener: unsafe extern "C" fn(*mut c_void, usize, i32), owned: Owned| {
        held.on_wanted(move |wanted| {
            let owned = &owned;
            // SAFETY: the caller gave the function and the data for this.
            unsafe { listener(owned.data.0, wanted.waiters, wanted.priority.unwrap_or(0)) }
        });
    };
    // SAFETY: by the convention.
    unsafe { listen(guard, listener, data, free_data, add) }
}
