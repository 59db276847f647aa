//! A lock manager whose only database is a Git repository.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "gitlock runs on Linux and macOS: leases need a clock that goes on during suspend, and a look at processes"
);

pub mod clock;
pub mod error;
pub mod error_code;
pub mod handle;
pub mod journal;
pub mod lock;
pub mod manager;
pub mod name;
pub mod options;
pub mod process;
pub mod store;

mod cancel;
mod fork;

pub use cancel::CancelToken;
pub use error::{Error, Result};
pub use error_code::{ErrorCode, Retry};
pub use handle::LockHandle;
pub use journal::JournalEntry;
pub use lock::{Bound, Claim, Holder, Liveness, Mode, Waiter};
pub use manager::{
    Cleaned, Finding, ForeignRef, HolderStatus, Listing, LockGuard, LockManager, LockRequest, LockStatus, Severity,
    WaitProgress, WaiterStatus, Waiting,
};
pub use name::{LockName, Namespace, RefName};
pub use options::{DEFAULT_TTL, Options};
