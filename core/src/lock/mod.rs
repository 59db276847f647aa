//! The rules of locking, as pure functions: no clock, no randomness, no I/O.
//!
//! [`decide()`] takes what is known of some locks, what somebody wants, and the time, and says what
//! to write, what that means for who asked, and until when nothing changes by itself. Everything
//! else in this crate only carries its decisions out.

pub mod codec;
pub mod convert;
pub mod deadlock;
pub mod decide;
pub mod expiry;
pub mod fault;
pub mod fingerprint;
pub mod fit;
pub mod hierarchy;
pub mod merge;
pub mod mode;
pub mod queue;
pub mod reconcile;
pub mod record;
mod settle;
mod work;

pub use decide::{
    Call, Cause, Decision, Edit, Ended, Event, Held, JournalTip, LockState, Opaque, Outcome, Refusal, Request, decide,
};
pub use expiry::{Expiry, Fact, Facts, Liveness, Now, Policy};
pub use mode::Mode;
pub use reconcile::Reconciliation;
pub use record::{BootTime, Bound, Claim, Holder, ProcessStamp, Record, Waiter};
