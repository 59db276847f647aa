//! What `acquire` and `run` have in common: asking for a lock, and waiting for it.

use std::time::Duration;

use gitlock::{AcquireOptions, CancelToken, LockGuard, LockHandle, LockManager, LockRequest, MultiGuard, MultiRequest};

use crate::{args::Request, commands, failure::Failure, wait_display::WaitDisplay};

/// Every lock that the command line names.
pub(crate) fn names<'a>(name: &'a str, asked: &'a Request) -> Vec<&'a str> {
    std::iter::once(name).chain(asked.also.iter().map(String::as_str)).collect()
}

/// Puts what the command line says into a request.
fn options<'a>(
    mut request: LockRequest<'a>,
    names: &[&str],
    asked: &Request,
    cancel: &CancelToken,
) -> gitlock::Result<LockRequest<'a>> {
    let outer = std::env::var(commands::HANDLE).ok().and_then(|text| text.parse::<LockHandle>().ok());
    // Inside of a run: below its own lock.
    let outer = outer.filter(|outer| asked.owner.is_none() && names.iter().any(|name| outer.is_above(name)));
    if let Some(outer) = outer {
        request = request.within(&outer);
    }
    request.cancel(cancel).set(AcquireOptions {
        shared: asked.shared,
        priority: asked.priority,
        ttl: asked.ttl,
        wait: asked.wait.or(asked.no_wait.then_some(Duration::ZERO)),
        owner: asked.owner.clone(),
        reason: asked.reason.clone(),
        slots: asked.slots,
        ..AcquireOptions::default()
    })
}

/// Waits with a display of it, where somebody looks.
fn displayed<T>(
    asked: &Request,
    acquire: impl FnOnce(Option<&WaitDisplay>) -> gitlock::Result<T>,
) -> Result<T, Failure> {
    let waits = !(asked.no_wait || asked.wait.is_some_and(|wait| wait.is_zero()));
    let display = WaitDisplay::new(asked.verbose).filter(|_| waits);
    let result = acquire(display.as_ref());
    drop(display);
    result.map_err(|error| Failure::from(error).on_conflict(asked.conflict_exit_code))
}

/// Acquires the lock as the command line says. `prepare` adds what it doesn't.
pub(crate) fn acquire(
    manager: &LockManager,
    name: &str,
    asked: &Request,
    cancel: &CancelToken,
    prepare: impl FnOnce(LockRequest<'_>) -> LockRequest<'_>,
) -> Result<LockGuard, Failure> {
    let names = names(name, asked);
    displayed(asked, |display| {
        let request = prepare(options(manager.lock_all(&names), &names, asked, cancel)?);
        match display {
            Some(display) => request.on_wait(display.listener()),
            None => request,
        }
        .acquire()
    })
}

/// The same in several repositories.
pub(crate) fn acquire_in_several(
    request: MultiRequest,
    name: &str,
    asked: &Request,
    cancel: &CancelToken,
    prepare: impl FnOnce(LockRequest<'_>) -> LockRequest<'_>,
) -> Result<MultiGuard, Failure> {
    let names = names(name, asked);
    displayed(asked, |display| {
        let request = request.try_with(|each| options(each, &names, asked, cancel).map(prepare))?;
        match display {
            Some(display) => request.with(|each| each.on_wait(display.listener())),
            None => request,
        }
        .acquire()
    })
}
