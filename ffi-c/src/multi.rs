//! Locks in several repositories at once.

use std::ffi::{c_char, c_void};

use gitlock::{MultiGuard, MultiRequest, Repositories, Result};

use crate::{
    boundary::{answer, enter},
    guard::{Owned, gitlock_free_data, ttl},
    manager::gitlock_manager,
    options::{gitlock_acquire_options, request},
    text::{every, give, place, reference, required},
};

/// Several repositories in which locks are taken together. Every function may be called from any
/// thread, also at the same time as others, but for `gitlock_repositories_free`.
pub struct gitlock_repositories(Repositories);

/// A lock in several repositories. Every function may be called from any thread, also at the same
/// time as others, but for `gitlock_multi_guard_free`.
pub struct gitlock_multi_guard(MultiGuard);

/// Puts the repositories of `count` managers together. Everybody has to name the same ones, in the same
/// words; the order doesn't matter. The managers may be freed before.
/// GITLOCK_INVALID_ARGUMENT for none, and for the same one twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_repositories_open(
    managers: *const *const gitlock_manager,
    count: usize,
    repositories: *mut *mut gitlock_repositories,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        unsafe {
            let place = place("repositories", repositories, std::ptr::null_mut())?;
            let given =
                if count == 0 { &[][..] } else { std::slice::from_raw_parts(reference("managers", managers)?, count) };
            let managers = given.iter().map(|manager| Ok(reference("manager", *manager)?.0.clone()));
            let opened = Repositories::new(managers.collect::<Result<Vec<_>>>()?)?;
            *place = Box::into_raw(Box::new(gitlock_repositories(opened)));
            Ok(())
        }
    })
}

/// Frees repositories. Their guards go on, and keep what they need. NULL is fine. No other call with
/// these repositories may be under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_repositories_free(repositories: *mut gitlock_repositories) {
    if !repositories.is_null() {
        // SAFETY: it came from `gitlock_repositories_open`, by the convention.
        answer((), || drop(unsafe { Box::from_raw(repositories) }));
    }
}

/// Acquires what `ask` asks for.
///
/// # Safety
/// By the convention.
unsafe fn acquire(
    repositories: *const gitlock_repositories,
    options: *const gitlock_acquire_options,
    guard: *mut *mut gitlock_multi_guard,
    ask: impl FnOnce(&Repositories) -> Result<MultiRequest>,
) -> i32 {
    enter(|| {
        // SAFETY: by the convention.
        unsafe {
            let place = place("guard", guard, std::ptr::null_mut())?;
            let asked = ask(&reference("repositories", repositories)?.0)?;
            let taken = asked.try_with(|each| request(each, options))?.acquire()?;
            *place = Box::into_raw(Box::new(gitlock_multi_guard(taken)));
            Ok(())
        }
    })
}

/// Acquires `count` locks in every repository, or none, queueing where they are held. `options` may be NULL;
/// their wait is for all together. As `gitlock_acquire`; the message names the repository.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_repositories_acquire_all(
    repositories: *const gitlock_repositories,
    names: *const *const c_char,
    count: usize,
    options: *const gitlock_acquire_options,
    guard: *mut *mut gitlock_multi_guard,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { acquire(repositories, options, guard, |all| Ok(all.all(&every("names", names, count)?))) }
}

/// Acquires a lock in a majority of the repositories, whichever can be used, and in the others when they
/// can. One that is away isn't waited for; one in which somebody holds the lock is. `options` may be NULL; their
/// wait is for all together. As `gitlock_acquire`, and GITLOCK_IO if too few of the repositories can be used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_repositories_acquire_quorum(
    repositories: *const gitlock_repositories,
    name: *const c_char,
    options: *const gitlock_acquire_options,
    guard: *mut *mut gitlock_multi_guard,
) -> i32 {
    // SAFETY: by the convention.
    unsafe { acquire(repositories, options, guard, |all| Ok(all.quorum(required("name", name)?))) }
}

/// The fencing token: it grows with every grant by the same repositories in the same way, whichever of
/// them took part. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_token(guard: *const gitlock_multi_guard) -> u64 {
    // SAFETY: NULL or valid, by the convention.
    answer(0, || unsafe { guard.as_ref() }.map_or(0, |guard| guard.0.token()))
}

/// Whether it is held in too few repositories. A `false` is as old as the question. True for NULL, and for
/// what was released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_is_lost(guard: *const gitlock_multi_guard) -> bool {
    // SAFETY: NULL or valid, by the convention.
    let guard = unsafe { guard.as_ref() };
    answer(true, || guard.is_none_or(|guard| guard.0.is_lost()))
}

/// For how many milliseconds it is safe from here on without another renewal: enough of its leases last so
/// long. 0 once it is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_validity_ms(guard: *const gitlock_multi_guard) -> u64 {
    // SAFETY: NULL or valid, by the convention.
    let guard = unsafe { guard.as_ref() };
    answer(0, || {
        let left = guard.map(|guard| guard.0.validity()).unwrap_or_default();
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Where it is held at this moment, as a JSON array of locations. Free it with `gitlock_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_held_in(guard: *const gitlock_multi_guard, json: *mut *mut c_char) -> i32 {
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let (json, guard) = unsafe { (place("json", json, std::ptr::null_mut())?, reference("guard", guard)?) };
        *json = give(gitlock::json::Value::from(guard.0.held_in()).to_string());
        Ok(())
    })
}

/// Makes the leases last `ttl_ms` from now; -1: their own length again. Of a majority it is also acquired in
/// the repositories that can be used again. GITLOCK_LOCK_LOST if it is held in too few.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_extend(guard: *const gitlock_multi_guard, ttl_ms: i64) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    enter(|| unsafe { reference("guard", guard) }?.0.extend(ttl(ttl_ms)?))
}

/// What is called when a lock in several repositories is held in too few. It must not block, nor unwind.
pub type gitlock_on_multi_lost = Option<unsafe extern "C" fn(data: *mut c_void)>;

/// Calls `listener` once when it is held in too few, on a background thread, or at once on this one if it is
/// already. A release doesn't call it. `free_data`, which may be NULL, is called with `data` in any case, also if
/// this fails, once `listener` has been called or never will be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_on_lost(
    guard: *const gitlock_multi_guard,
    listener: gitlock_on_multi_lost,
    data: *mut c_void,
    free_data: gitlock_free_data,
) -> i32 {
    let owned = Owned::new(data, free_data);
    enter(|| {
        // SAFETY: NULL or valid, by the convention.
        let guard = unsafe { reference("guard", guard) }?;
        let Some(listener) = listener else { return Ok(()) };
        guard.0.on_lost(move || {
            let owned = owned;
            // SAFETY: the caller gave the function and the data for this.
            unsafe { listener(owned.data.0) }
        });
        Ok(())
    })
}

/// Ends the tenure in every repository. The guard is still to be freed. GITLOCK_LOCK_LOST if it was held in
/// too few, so that the work under it may have overlapped another's, or was released before. Where it can't be reached while enough
/// others can, its lease ends by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_release(guard: *const gitlock_multi_guard) -> i32 {
    // SAFETY: NULL or valid, by the convention.
    enter(|| unsafe { reference("guard", guard) }?.0.release())
}

/// Frees a guard, and releases its locks if that wasn't done; a failure of that is told to nobody. NULL is
/// fine. No other call with this guard may be under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_multi_guard_free(guard: *mut gitlock_multi_guard) {
    if !guard.is_null() {
        // SAFETY: it came from this library, by the convention.
        answer((), || drop(unsafe { Box::from_raw(guard) }));
    }
}
