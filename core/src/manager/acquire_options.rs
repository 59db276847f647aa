//! The options of one acquire as plain data.

use std::time::Duration;

use crate::error::Result;

use super::request::LockRequest;

/// The options of one acquire all at once, for languages that take them so. What is `None`, zero or `false` is the
/// default of the method of the same name of [`LockRequest`].
///
/// ```
/// use gitlock::{AcquireOptions, LockManager, Options};
/// let manager = LockManager::in_memory(Options::default())?;
/// let options = AcquireOptions { shared: true, reason: Some("reading".to_owned()), ..AcquireOptions::default() };
/// manager.lock("index").set(options)?.acquire()?.release()?;
/// # Ok::<(), gitlock::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AcquireOptions {
    /// Beside other shared holders.
    pub shared: bool,
    /// Higher goes first.
    pub priority: i32,
    /// The length of the lease.
    pub ttl: Option<Duration>,
    /// How long to queue.
    pub wait: Option<Duration>,
    /// For how long it is renewed at most.
    pub max_hold: Option<Duration>,
    /// Whether it is renewed.
    pub renew: Option<bool>,
    /// The session that holds and waits.
    pub owner: Option<String>,
    /// A word as the right to release and extend.
    pub fingerprint: Option<String>,
    /// Why it is wanted.
    pub reason: Option<String>,
    /// One of so many slots.
    pub slots: Option<u32>,
    /// The handle of the tenure that it is part of.
    pub within: Option<String>,
    /// Whether its owner may take it once more.
    pub reentrant: bool,
    /// The process group that works under it.
    pub process_group: Option<u32>,
}

impl LockRequest<'_> {
    /// Sets what these options say.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`](crate::ErrorCode::InvalidArgument) for what is no handle.
    pub fn set(mut self, options: AcquireOptions) -> Result<Self> {
        let AcquireOptions { shared, priority, ttl, wait, max_hold, renew, owner, fingerprint, reason, .. } = options;
        self = self.priority(priority).reentrant(options.reentrant);
        if shared {
            self = self.shared();
        }
        if let Some(ttl) = ttl {
            self = self.ttl(ttl);
        }
        if let Some(wait) = wait {
            self = self.wait(wait);
        }
        if let Some(max_hold) = max_hold {
            self = self.max_hold(max_hold);
        }
        if let Some(renew) = renew {
            self = self.renew(renew);
        }
        if let Some(owner) = owner {
            self = self.owner(owner);
        }
        if let Some(word) = fingerprint {
            self = self.fingerprint(word);
        }
        if let Some(reason) = reason {
            self = self.reason(reason);
        }
        if let Some(slots) = options.slots {
            self = self.slots(slots);
        }
        if let Some(handle) = options.within {
            self = self.within(&handle.parse()?);
        }
        if let Some(group) = options.process_group {
            self = self.process_group(group);
        }
        Ok(self)
    }
}
