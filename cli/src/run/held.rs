//! What a run holds: a lock in one repository, or in several at once.

use std::time::Duration;

use gitlock::{LockGuard, LockHandle, MultiGuard, Result};
use serde_json::{Value, json};

/// The guard of a run.
pub(crate) enum Held {
    One(LockGuard),
    Several(MultiGuard),
}

impl Held {
    /// The lock; of several names the first.
    pub(crate) fn name(&self) -> &str {
        match self {
            Held::One(guard) => guard.name().as_str(),
            Held::Several(guard) => &guard.names()[0],
        }
    }

    pub(crate) fn token(&self) -> u64 {
        match self {
            Held::One(guard) => guard.token(),
            Held::Several(guard) => guard.token(),
        }
    }

    pub(crate) fn slot(&self) -> Option<u32> {
        match self {
            Held::One(guard) => guard.slot(),
            Held::Several(_) => None,
        }
    }

    /// What its command can extend and release it by: there is none for several repositories.
    pub(crate) fn handle(&self) -> Option<LockHandle> {
        match self {
            Held::One(guard) => Some(guard.handle()),
            Held::Several(_) => None,
        }
    }

    /// What is told of it.
    pub(crate) fn told(&self) -> Value {
        match self {
            Held::One(guard) => json!({ "name": guard.name().as_str(), "id": guard.id(), "token": guard.token() }),
            Held::Several(guard) => json!({ "name": self.name(), "heldIn": guard.held_in(), "token": guard.token() }),
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Held::One(guard) => guard.is_lost(),
            Held::Several(guard) => guard.is_lost(),
        }
    }

    /// For how long it is safe without another renewal.
    pub(crate) fn remaining(&self) -> Duration {
        match self {
            Held::One(guard) => guard.remaining(),
            Held::Several(guard) => guard.validity(),
        }
    }

    pub(crate) fn on_lost(&self, listener: impl FnOnce(String) + Send + 'static) {
        match self {
            Held::One(guard) => guard.on_lost(move |error| listener(error.to_string())),
            Held::Several(guard) => {
                let why = format!("the lock {} is lost: it is held in too few repositories", self.name());
                guard.on_lost(move || listener(why));
            }
        }
    }

    pub(crate) fn extend(&self) -> Result<()> {
        match self {
            Held::One(guard) => guard.extend(None),
            Held::Several(guard) => guard.extend(None),
        }
    }

    pub(crate) fn release(self) -> Result<()> {
        match self {
            Held::One(guard) => guard.release(),
            Held::Several(guard) => guard.release(),
        }
    }

    /// Leaves it to its lease.
    pub(crate) fn detach(self) {
        match self {
            Held::One(guard) => drop(guard.detach()),
            Held::Several(guard) => drop(guard.detach()),
        }
    }
}
