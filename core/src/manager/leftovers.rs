//! What could not be ended because the repository, or its server, could not be asked: it is tried again until its
//! lease is over, so that nobody waits longer for it than the trouble lasts.

use std::sync::Arc;

use crate::{error_code::Retry, journal::Actor, lock::Request, name::LockName};

use super::Inner;

/// How far two attempts are apart, in milliseconds.
const AGAIN: u64 = 1_000;

/// One of them.
pub(super) struct Leftover {
    /// What is asked of each lock, in this order.
    pub(super) requests: Vec<(LockName, Request)>,
    /// Who wanted to end it.
    pub(super) by: Actor,
    /// When it has ended by itself, on the boot clock.
    pub(super) until: u64,
    /// When to try it.
    pub(super) next: u64,
}

impl Leftover {
    pub(super) fn new(inner: &Inner, requests: Vec<(LockName, Request)>, by: Actor, until: u64) -> Leftover {
        Leftover { requests, by, until, next: inner.commits.clock.boot_ms() + AGAIN }
    }

    /// Whether it is the end of the tenure, or of the wait, with this id.
    pub(super) fn ends(&self, id: &str) -> bool {
        self.requests.iter().any(|(_, request)| match request {
            Request::Release { tenure } => tenure.id.as_deref() == Some(id),
            Request::Cancel { ids } => ids.iter().any(|other| other == id),
            _ => false,
        })
    }
}

/// Tries what is due. Returns when the next is.
pub(super) fn clear(inner: &Arc<Inner>, leftovers: &mut Vec<Leftover>) -> u64 {
    leftovers.retain_mut(|left| {
        let now = inner.commits.clock.boot_ms();
        if left.next > now {
            return true;
        }
        if left.until <= now {
            return false;
        }
        let done = inner.commits.submit_together(left.requests.clone(), &left.by, Some(super::BEGIN_PATIENCE));
        left.next = inner.commits.clock.boot_ms() + AGAIN;
        // Whatever else comes of it, it isn't there any more, or isn't to be ended.
        done.is_err_and(|error| error.retry() == Retry::Later)
    });
    leftovers.iter().map(|left| left.next).min().unwrap_or(u64::MAX)
}
