//! How a manager works.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Clock, SystemClock},
    lock::{Expiry, fault::Faults},
};

/// The length of a lease unless the caller gives one.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// How a [`crate::LockManager`] works. What is `None` is taken from the repository's
/// configuration (`gitlock.prefix`, `gitlock.keep`, `gitlock.durable`, `gitlock.remote`,
/// `gitlock.staleLockAge` and `gitlock.maxClockSkew`, the last two in milliseconds), and from the
/// defaults named here after that.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where lock refs are kept. Default: `refs/gitvan/locks`.
    pub lock_prefix: Option<String>,
    /// How many ended tenures a journal keeps. Default: all of them. 1 keeps the newest only; a
    /// larger number keeps at least that many, and less than twice as many.
    pub keep: Option<u32>,
    /// Sync to disk, so that locks survive power loss. Default: no.
    pub durable: Option<bool>,
    /// How old one of Git's own `.lock` files must be before it counts as left behind. Default: ten minutes.
    pub stale_lock_age: Option<Duration>,
    /// How far the wall clocks of different boots may differ. Default: one second.
    pub max_clock_skew: Option<Duration>,
    /// A remote of the repository to keep the locks at, instead of in it: its name, such as
    /// `origin`, or a URL. `.` is the repository itself, whatever its configuration says. Default:
    /// none.
    pub remote: Option<String>,
    /// How long one question to a remote and its answer may take. Default: ten seconds.
    pub remote_timeout: Duration,
    /// Whose clock a lease is judged by that another boot wrote. Default: the wall clock in a
    /// repository on this machine, and on a remote what this machine saw on its own clock, so that
    /// clocks needn't agree.
    pub expiry: Option<Expiry>,
    /// How long a grant from the queue lasts until it is claimed. Default: two seconds; on a remote at
    /// least eight poll intervals and two seconds.
    pub claim_window: Duration,
    /// How often a waiter looks when nothing wakes it. On a remote the pauses between two questions
    /// grow to twice this. Default: one second.
    pub poll_interval: Duration,
    /// How long to wait for a `.lock` file that another process holds. Default: ten seconds.
    pub lock_timeout: Duration,
    /// How long superseded objects stay for those who may be reading them. Default: ten minutes.
    pub sweep_grace: Duration,
    /// Whether `GIT_DIR` and its kin are heeded, as a Git command does. Default: no.
    pub environment: bool,
    /// The session that holds and waits. Default: one for each thread.
    pub owner: Option<String>,
    /// Time. Default: the machine's.
    pub clock: Arc<dyn Clock>,
    /// Rules left out by a test.
    #[doc(hidden)]
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lock_prefix: None,
            keep: None,
            durable: None,
            stale_lock_age: None,
            max_clock_skew: None,
            remote: None,
            remote_timeout: Duration::from_secs(10),
            expiry: None,
            claim_window: Duration::from_secs(2),
            poll_interval: Duration::from_secs(1),
            lock_timeout: Duration::from_secs(10),
            sweep_grace: Duration::from_secs(600),
            environment: false,
            owner: None,
            clock: Arc::new(SystemClock),
            faults: Faults::NONE,
        }
    }
}
