//! Opening a repository, acquiring, and everything that needs no guard.

use std::ffi::c_char;

use gitlock::{Error, LockGuard, LockHandle, LockManager, LockRequest, Result, SyncStrategy, json};

use crate::{
    boundary::{answer, enter},
    guard::{gitlock_guard, ttl},
    options::{gitlock_acquire_options, gitlock_options, manager_options, request},
    text::{every, give, optional, place, reference, required},
};

/// The locks of one repository. Every function may be called from any thread, also at the same
/// time as others, but for `gitlock_manager_free`. After a fork the child owns nothing that the
/// parent took: its copy of a manager works on its own, its copies of guards say GITLOCK_FORKED.
pub struct gitlock_manager(pub(crate) LockManager);

/// Opens the repository that `path` is in. `options` may be NULL.
/// GITLOCK_NOT_A_REPOSITORY, GITLOCK_UNTRUSTED for somebody else's, GITLOCK_UNSUPPORTED for what would
/// be misread, GITLOCK_INVALID_ARGUMENT for options out of their range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_open(
    path: *const c_char,
    options: *const gitlock_options,
    manager: *mut *mut gitlock_manager,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        unsafe {
            let manager = place("manager", manager, std::ptr::null_mut())?;
            let opened = LockManager::open_with(required("path", path)?, manager_options(options)?)?;
            *manager = Box::into_raw(Box::new(gitlock_manager(opened)));
            Ok(())
        }
    })
}

/// Frees a manager. Its guards and waits go on, and keep what they need. NULL is fine. No other
/// call with this manager may be under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_manager_free(manager: *mut gitlock_manager) {
    if !manager.is_null() {
        answer((), || {
            // SAFETY: it came from `gitlock_open`, by the convention.
            let manager = unsafe { Box::from_raw(manager) };
            manager.0.close();
        });
    }
}

/// Acquires one lock or several, as `take` does it.
///
/// # Safety
/// By the convention.
unsafe fn acquire<'a>(
    manager: *const gitlock_manager,
    names: impl FnOnce() -> Result<Vec<&'a str>>,
    options: *const gitlock_acquire_options,
    guard: *mut *mut gitlock_guard,
    take: impl FnOnce(LockRequest<'_>) -> Result<LockGuard>,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        unsafe {
            let guard = place("guard", guard, std::ptr::null_mut())?;
            let manager = reference("manager", manager)?;
            *guard = gitlock_guard::give(take(request(manager.0.lock_all(&names()?), options)?)?);
            Ok(())
        }
    })
}

/// Acquires a lock, queueing for it if it is held. `options` may be NULL.
/// GITLOCK_TIMEOUT when the wait is over, GITLOCK_HELD if it wasn't to wait, GITLOCK_CANCELLED,
/// and what can be wrong with the name, the options, the record and the repository.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_acquire(
    manager: *const gitlock_manager,
    name: *const c_char,
    options: *const gitlock_acquire_options,
    guard: *mut *mut gitlock_guard,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { acquire(manager, || Ok(vec![required("name", name)?]), options, guard, |request| request.acquire()) }
}

/// As `gitlock_acquire`, but never waits: GITLOCK_HELD if somebody holds the lock, or is first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_try_acquire(
    manager: *const gitlock_manager,
    name: *const c_char,
    options: *const gitlock_acquire_options,
    guard: *mut *mut gitlock_guard,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { acquire(manager, || Ok(vec![required("name", name)?]), options, guard, |request| request.acquire_now()) }
}

/// Acquires `count` locks, all of them or none, in whatever order they are named; the guard is that
/// of all of them. Otherwise as `gitlock_acquire`: with a `wait_ms` of 0 it never waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_acquire_all(
    manager: *const gitlock_manager,
    names: *const *const c_char,
    count: usize,
    options: *const gitlock_acquire_options,
    guard: *mut *mut gitlock_guard,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { acquire(manager, || every("names", names, count), options, guard, |request| request.acquire()) }
}

/// Whether this token is that of somebody who holds the lock at this moment: for what the lock
/// protects, where it can't remember the highest token it has seen. GITLOCK_LOCK_LOST if it isn't.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_verify(manager: *const gitlock_manager, name: *const c_char, token: u64) -> i32 {
    // SAFETY: by the convention.
    enter(|| unsafe { reference("manager", manager)?.0.verify(required("name", name)?, token) })
}

/// Gives JSON to the caller, or an error.
///
/// # Safety
/// By the convention.
unsafe fn tell(
    manager: *const gitlock_manager,
    to: *mut *mut c_char,
    ask: impl FnOnce(&LockManager) -> Result<gitlock::json::Value>,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        let (to, manager) = unsafe { (place("json", to, std::ptr::null_mut())?, reference("manager", manager)?) };
        *to = give(ask(&manager.0)?.to_string());
        Ok(())
    })
}

/// The lock as it is, as JSON: `name`, `held`, `holders`, `queue`, `problem`. Free it with
/// `gitlock_string_free`. A record that can't be read is no error here: it is the `problem`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_status(
    manager: *const gitlock_manager,
    name: *const c_char,
    json: *mut *mut c_char,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { tell(manager, json, |manager| Ok(json::status(&manager.status(required("name", name)?)?))) }
}

/// Every lock that is held, and what else is under the prefix, as JSON: `locks`, `foreign`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_list(manager: *const gitlock_manager, json: *mut *mut c_char) -> i32 {
    // SAFETY: by the convention.
    unsafe { tell(manager, json, |manager| Ok(json::listing(&manager.list()?))) }
}

/// Who waits for whom, and which of them would wait for ever, as JSON: `edges`, `cycles`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_graph(manager: *const gitlock_manager, json: *mut *mut c_char) -> i32 {
    // SAFETY: by the convention.
    unsafe { tell(manager, json, |manager| Ok(json::graph(&manager.graph()?))) }
}

/// The same in the language of Graphviz. Free it with `gitlock_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_graph_dot(manager: *const gitlock_manager, dot: *mut *mut c_char) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        let (dot, manager) = unsafe { (place("dot", dot, std::ptr::null_mut())?, reference("manager", manager)?) };
        *dot = give(manager.0.graph()?.to_dot());
        Ok(())
    })
}

/// Brings this repository's locks and those of a remote of it together, for those who worked without a connection:
/// locks that were taken here are held there too and the other way round, and what has ended in one has ended in both.
/// `strategy` says who keeps a lock that two took: "remote-wins" (also for NULL), "oldest", "highest-priority",
/// "highest-token" or "fail"; the other one's guard is lost. Call it again within every lease. `json` tells of what was
/// changed, `changes`, and of what couldn't be read, `left`. GITLOCK_SYNC_CONFLICT with "fail", once all else is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_sync(
    manager: *const gitlock_manager,
    remote: *const gitlock_manager,
    strategy: *const c_char,
    json: *mut *mut c_char,
) -> i32 {
    // SAFETY: by the convention.
    unsafe {
        tell(manager, json, |manager| {
            let strategy = optional("strategy", strategy)?.map_or(Ok(SyncStrategy::default()), str::parse)?;
            Ok(json::synced(&manager.sync(&reference("remote", remote)?.0, strategy)?))
        })
    }
}

/// The newest entries of a lock's journal, newest first, at most `most`, as JSON: `name`, `entries`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_log(
    manager: *const gitlock_manager,
    name: *const c_char,
    most: usize,
    json: *mut *mut c_char,
) -> i32 {
    // SAFETY: by the convention.
    unsafe {
        tell(manager, json, |manager| {
            let name = required("name", name)?;
            Ok(json::log(name, &manager.log(name, most)?))
        })
    }
}

/// Ends tenures by force, whoever holds them: that of this `id`, or all of the lock's if it is
/// NULL. The journal says who did it and why; `reason` may be NULL. `json` tells of those that were
/// ended: `name`, `broken`. GITLOCK_LOCK_LOST if there is nothing to break.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_break(
    manager: *const gitlock_manager,
    name: *const c_char,
    id: *const c_char,
    reason: *const c_char,
    json: *mut *mut c_char,
) -> i32 {
    // SAFETY: by the convention.
    unsafe {
        tell(manager, json, |manager| {
            let name = required("name", name)?;
            let broken = manager.break_lock(name, optional("id", id)?, optional("reason", reason)?)?;
            Ok(json::broken(name, &broken))
        })
    }
}

/// Ends what has ended by itself in every lock, and deletes superseded objects that are older than
/// `grace_ms`; -1: ten minutes. `json`: `locks`, `objectsDeleted`, `objectsWaiting`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_clean(manager: *const gitlock_manager, grace_ms: i64, json: *mut *mut c_char) -> i32 {
    // SAFETY: by the convention.
    unsafe { tell(manager, json, |manager| Ok(json::cleaned(&manager.clean(ttl(grace_ms)?)?))) }
}

/// Looks for what crashes leave behind, and for records that can't be read; with `fix`, does what
/// is safe. `json`: `findings`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_doctor(manager: *const gitlock_manager, fix: bool, json: *mut *mut c_char) -> i32 {
    // SAFETY: by the convention.
    unsafe { tell(manager, json, |manager| Ok(json::findings(&manager.doctor(fix)?))) }
}

// ---------------------------------------------------------------- by handle

/// Does something with the tenure of a handle.
///
/// # Safety
/// By the convention.
unsafe fn by_handle(
    manager: *const gitlock_manager,
    handle: *const c_char,
    run: impl FnOnce(&LockManager, &LockHandle) -> Result<()>,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        let (manager, handle) = unsafe { (reference("manager", manager)?, required("handle", handle)?) };
        run(&manager.0, &handle.parse::<LockHandle>()?)
    })
}

/// The handle of a tenure that was acquired with a fingerprint. Free it with `gitlock_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_handle_by_fingerprint(
    name: *const c_char,
    fingerprint: *const c_char,
    handle: *mut *mut c_char,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        unsafe {
            let handle = place("handle", handle, std::ptr::null_mut())?;
            let of = LockHandle::by_fingerprint(required("name", name)?, required("fingerprint", fingerprint)?)?;
            *handle = give(of.to_string());
            Ok::<(), Error>(())
        }
    })
}

/// Releases a tenure by its handle. GITLOCK_LOCK_LOST if it has ended, GITLOCK_NOT_OWNER if it is
/// somebody else's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_release(manager: *const gitlock_manager, handle: *const c_char) -> i32 {
    // SAFETY: by the convention.
    unsafe { by_handle(manager, handle, LockManager::release) }
}

/// Extends a tenure by its handle to `ttl_ms` from now; -1: its own length again. `remaining_ms`,
/// which may be NULL, is how long it lasts from here on. Errors as for `gitlock_release`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_extend(
    manager: *const gitlock_manager,
    handle: *const c_char,
    ttl_ms: i64,
    remaining_ms: *mut u64,
) -> i32 {
    // SAFETY: by the convention.
    unsafe {
        by_handle(manager, handle, |manager, handle| {
            let left = manager.extend(handle, ttl(ttl_ms)?)?;
            if !remaining_ms.is_null() {
                remaining_ms.write(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            }
            Ok(())
        })
    }
}

/// Goes on with a tenure that another process, or a guard that was detached, began: extends it,
/// and, if it was bound to a process, binds it to this one, which renews it. Errors as for `gitlock_release`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_resume(
    manager: *const gitlock_manager,
    handle: *const c_char,
    guard: *mut *mut gitlock_guard,
) -> i32 {
    // SAFETY: by the convention.
    unsafe {
        by_handle(manager, handle, |manager, handle| {
            let guard = place("guard", guard, std::ptr::null_mut())?;
            *guard = gitlock_guard::give(manager.resume(handle)?);
            Ok(())
        })
    }
}
