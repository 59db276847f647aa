//! What `acquire` and `run` have in common: asking for a lock, and waiting for it.

use gitlock::{CancelToken, LockGuard, LockManager, LockRequest};

use crate::{args::Request, failure::Failure, wait_display::WaitDisplay};

/// Acquires the lock as the command line says. `prepare` adds what it doesn't.
pub(crate) fn acquire<'a>(
    manager: &'a LockManager,
    name: &str,
    asked: &Request,
    cancel: &CancelToken,
    prepare: impl FnOnce(LockRequest<'a>) -> LockRequest<'a>,
) -> Result<LockGuard, Failure> {
    let mut request = manager.lock(name).priority(asked.priority).cancel(cancel);
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
