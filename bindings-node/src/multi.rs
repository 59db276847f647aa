//! Locks in several repositories at once.

use std::sync::Arc;

use gitlock::Result;
use napi::bindgen_prelude::ClassInstance;
use napi_derive::napi;

use crate::{
    bridge::{Bridge, Outbox, Told},
    errors::{caught, now},
    manager::Manager,
    options::{AcquireOptions, as_millis, millis},
};

/// Several repositories in which locks are taken together.
#[napi]
pub struct Repositories {
    outbox: Outbox,
    repositories: gitlock::Repositories,
}

/// A lock in several repositories.
#[napi]
pub struct MultiGuard {
    outbox: Outbox,
    guard: Arc<gitlock::MultiGuard>,
}

#[napi]
impl Repositories {
    #[napi]
    pub fn of(bridge: &Bridge, managers: Vec<ClassInstance<'_, Manager>>) -> napi::Result<Repositories> {
        let managers: Vec<gitlock::LockManager> = managers.iter().map(|manager| manager.core().clone()).collect();
        now(|| {
            Ok(Repositories { outbox: bridge.outbox().clone(), repositories: gitlock::Repositories::new(managers)? })
        })
    }

    /// Acquires these in every repository; or, if `quorum`, the one in most. The call is answered with a guard;
    /// `Bridge::cancel` ends the wait.
    #[napi]
    pub fn acquire(&self, call: u32, names: Vec<String>, quorum: bool, options: AcquireOptions) {
        let (outbox, there, token) = (self.outbox.clone(), self.outbox.clone(), self.outbox.wait(call));
        let begun = caught(|| {
            let request = if quorum { self.repositories.quorum(&names[0]) } else { self.repositories.all(&names) };
            let request = request.try_with(|each| options.apply(&outbox, each))?.with(|each| each.cancel(&token));
            let told = |guard: gitlock::MultiGuard| Told::MultiGuard(Arc::new(guard));
            request.start(move |result: Result<gitlock::MultiGuard>| there.tell(call, result.map(told)))
        });
        if let Err(error) = begun {
            outbox.tell(call, Err(error));
        }
    }
}

impl MultiGuard {
    pub(crate) fn new(outbox: &Outbox, guard: Arc<gitlock::MultiGuard>) -> MultiGuard {
        MultiGuard { outbox: outbox.clone(), guard }
    }
}

#[napi]
impl MultiGuard {
    /// The fencing token, below 2^53.
    #[napi(getter)]
    pub fn token(&self) -> f64 {
        self.guard.token() as f64
    }

    #[napi]
    pub fn is_lost(&self) -> bool {
        self.guard.is_lost()
    }

    /// In milliseconds.
    #[napi]
    pub fn validity(&self) -> f64 {
        as_millis(self.guard.validity())
    }

    #[napi]
    pub fn held_in(&self) -> Vec<String> {
        self.guard.held_in()
    }

    #[napi]
    pub fn extend(&self, call: u32, ttl: Option<f64>) {
        let guard = self.guard.clone();
        self.outbox.answer(call, move || guard.extend(millis("ttl", ttl)?).map(|()| Told::Nothing));
    }

    #[napi]
    pub fn release(&self, call: u32) {
        let guard = self.guard.clone();
        self.outbox.answer(call, move || guard.release().map(|()| Told::Nothing));
    }

    /// Tells a listener once when it is lost.
    #[napi]
    pub fn on_lost(&self, listener: u32) {
        let outbox = self.outbox.clone();
        self.guard.on_lost(move || outbox.tell(listener, Ok(Told::Nothing)));
    }
}
