//! A lock manager whose only database is a Git repository.
#![expect(dead_code, reason = "the manager, which comes next, uses the rest")]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "gitlock runs on Linux and macOS: leases need a clock that goes on during suspend, and a look at processes"
);

pub mod clock;
pub mod error;
pub mod error_code;
pub mod lock;
pub mod name;
pub mod process;
pub mod store;

mod cancel;
mod fork;

pub use cancel::CancelToken;
pub use error::{Error, Result};
pub use error_code::{ErrorCode, Retry};
pub use lock::Mode;
pub use name::{LockName, Namespace, RefName};
