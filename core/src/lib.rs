//! A lock manager whose only database is a Git repository.
//!
//! A lock is the ref `refs/gitvan/locks/<name>`; its blob says who holds it and until when; every
//! change is a compare-and-swap of that ref; and a journal of commits keeps the history that
//! `git log refs/gitvan/journal/<name>` shows. There is no daemon and no other database.
//!
//! ```
//! use std::time::Duration;
//! use gitlock::LockManager;
//! # let repo = tempfile::tempdir()?;
//! # assert!(std::process::Command::new("git").arg("init").arg("-q").arg(repo.path()).status()?.success());
//! # let path = repo.path();
//!
//! let manager = LockManager::open(path)?;
//! let guard = manager.lock("build").ttl(Duration::from_secs(30)).wait(Duration::from_secs(10)).acquire()?;
//! println!("building under token {}", guard.token());
//! guard.release()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a lock promises
//! Locks are leases. A [`LockGuard`] renews its lease in the background, and counts itself lost,
//! by its own clock, before anybody else may take the lock. But a process that is stopped between
//! looking at [`LockGuard::is_lost`] and acting on it can act too late. Where that must never
//! happen, let what the lock protects compare [`LockGuard::token`], which grows with every grant,
//! and refuse one that is lower than the last it saw.
//!
//! # How it is built
//! [`lock`] holds the rules, as pure functions. [`store`] swaps refs and knows nothing of locks.
//! [`manager`] carries the decisions of the one out on the other. ARCHITECTURE.md has the map.

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "gitlock runs on Linux and macOS: leases need a clock that goes on during suspend, and a look at processes"
);

pub mod clock;
pub mod error;
pub mod error_code;
pub mod handle;
pub mod journal;
pub mod json;
pub mod lock;
pub mod manager;
pub mod multi;
pub mod name;
pub mod options;
pub mod process;
pub mod push_spec;
pub mod ref_update;
pub mod store;
pub mod sync;

mod cancel;
mod fork;
mod hex;

pub use cancel::CancelToken;
pub use error::{Error, Result};
pub use error_code::{ErrorCode, Retry};
pub use handle::LockHandle;
pub use journal::JournalEntry;
pub use lock::{
    Bound, Claim, Holder, Liveness, Mode, Waiter,
    deadlock::{Cycle, WaitEdge},
};
pub use manager::{
    AcquireOptions, Cleaned, Finding, ForeignRef, HolderStatus, Listing, LockGuard, LockManager, LockRequest,
    LockStatus, Severity, SharedGuard, WaitGraph, WaitProgress, WaiterStatus, Waiting, Wanted,
};
pub use multi::{MultiGuard, MultiRequest, Repositories};
pub use name::{LockName, Namespace, RefName};
pub use options::{DEFAULT_TTL, Options};
pub use push_spec::PushSpec;
pub use ref_update::RefUpdate;
pub use store::remote::init_server;
pub use sync::{SyncChange, SyncFate, SyncStrategy, Synced};
