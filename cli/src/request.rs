//! What `acquire` and `run` have in common: asking for a lock, and waiting for it.

use gitlock::{CancelToken, LockGuard, LockHandle, LockManager, LockRequest};

use crate::{args::Request, commands, failure::Failure, wait_display::WaitDisplay};

/// Acquires the lock as the command line says. `prepare` adds what it doesn't.
pub(crate) fn acquire<'a>(
    manager: &'a LockManager,
    name: &str,
    asked: &Request,
    cancel: &CancelToken,
    prepare: impl FnOnce(LockRequest<'a>) -> LockRequest<'a>,
) -> Result<LockGuard, Failure> {
    let names: Vec<&str> = std::iter::once(name).chain(asked.also.iter().map(String::as_str)).collect();
    let mut request = manager.lock_all(&names).priority(asked.priority).cancel(cancel);
    // Inside of a run: below its own lock.
    let outer = std::env::var(commands::HANDLE).ok().and_then(|text| text.parse::<LockHandle>().ok());
    if let Some(owner) = &asked.owner {
        request = request.owner(owner);
    } else if let Some(outer) = outer.filter(|outer| names.iter().any(|name| outer.is_above(name))) {
        request = request.within(&outer);
    }
    if let Some(slots) = asked.slots {
        request = request.slots(slots);
    }
    if let Some(ttl) = asked.ttl {
        request = request.ttl(ttl);
    }
    if asked.shared {
        request = request.shared();
    }
    if let Some(reason) = &asked.reason {
        request = request.reason(reason);
    }
    if let Some(wait) = asked.wait {
        request = request.wait(wait);
    }
    request = prepare(request);
    let result = if asked.no_wait || asked.wait.is_some_and(|wait| wait.is_zero()) {
        request.acquire_now()
    } else {
        let display = WaitDisplay::new(asked.verbose);
        if let Some(display) = &display {
            request = request.on_wait(display.listener());
        }
        let result = request.acquire();
        drop(display);
        result
    };
    result.map_err(|error| Failure::from(error).on_conflict(asked.conflict_exit_code))
}
