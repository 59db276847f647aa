//! One tenure.

use std::sync::Arc;

use gitlock::{Error, LockGuard, PushSpec, RefUpdate, Result, SharedGuard, json};
use napi_derive::napi;

use crate::{
    bridge::{Outbox, Told},
    errors::{caught, now},
    options::{as_millis, millis},
    pool,
};

/// What a guard holds, for the object and the calls that go on.
struct Held {
    guard: SharedGuard,
    /// Whether the tenure goes on when the environment ends.
    outlives: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.guard.take() {
            Ok(guard) if self.outlives => drop(guard.detach()),
            guard => drop(guard),
        }
    }
}

/// One tenure of a lock. A method whose first argument is a call's number answers it later.
#[napi]
pub struct Guard {
    outbox: Outbox,
    held: Arc<Held>,
}

impl Guard {
    pub(crate) fn new(outbox: &Outbox, guard: LockGuard, outlives: bool) -> Guard {
        Guard { outbox: outbox.clone(), held: Arc::new(Held { guard: SharedGuard::new(guard), outlives }) }
    }

    fn answer(&self, call: u32, run: impl FnOnce(&SharedGuard) -> Result<Told> + Send + 'static) {
        let held = self.held.clone();
        self.outbox.answer(call, move || run(&held.guard));
    }
}

#[napi]
impl Guard {
    #[napi(getter)]
    pub fn name(&self) -> String {
        self.held.guard.name().as_str().to_owned()
    }

    #[napi(getter)]
    pub fn id(&self) -> String {
        self.held.guard.id().to_owned()
    }

    #[napi(getter)]
    pub fn slot(&self) -> Option<u32> {
        self.held.guard.slot()
    }

    /// The fencing token, below 2^53; the last that was known once it is released.
    #[napi(getter)]
    pub fn token(&self) -> f64 {
        self.held.guard.token() as f64
    }

    /// Whether others may hold beside it.
    #[napi(getter)]
    pub fn shared(&self) -> bool {
        self.held.guard.is_shared()
    }

    #[napi(getter)]
    pub fn names(&self) -> napi::Result<Vec<String>> {
        now(|| self.held.guard.with(|guard| Ok(guard.names().iter().map(|name| name.as_str().to_owned()).collect())))
    }

    /// The fencing token of one of several locks.
    #[napi]
    pub fn token_of(&self, name: String) -> Option<f64> {
        self.held.guard.with(|guard| Ok(guard.token_of(&name).map(|token| token as f64))).ok().flatten()
    }

    #[napi]
    pub fn is_lost(&self) -> bool {
        self.held.guard.is_lost()
    }

    /// In milliseconds.
    #[napi]
    pub fn remaining(&self) -> f64 {
        as_millis(self.held.guard.with(|guard| Ok(guard.remaining())).unwrap_or_default())
    }

    #[napi]
    pub fn extend(&self, call: u32, ttl: Option<f64>) {
        self.answer(call, move |held| {
            let ttl = millis("ttl", ttl)?;
            held.with(|guard| guard.extend(ttl)).map(|()| Told::Nothing)
        });
    }

    /// Each change is the words of a line of `git update-ref --stdin`.
    #[napi]
    pub fn update_refs(&self, call: u32, updates: Vec<Vec<String>>, message: Option<String>) {
        self.answer(call, move |held| {
            let updates = updates.iter().map(|words| RefUpdate::from_words(words)).collect::<Result<Vec<_>>>()?;
            held.with(|guard| guard.update_refs(&updates, message.as_deref())).map(|()| Told::Nothing)
        });
    }

    /// Each is a refspec of `git push`.
    #[napi]
    pub fn push(&self, call: u32, refspecs: Vec<String>) {
        self.answer(call, move |held| {
            let specs = refspecs.iter().map(|text| text.parse()).collect::<Result<Vec<PushSpec>>>()?;
            held.with(|guard| guard.push(&specs)).map(|()| Told::Nothing)
        });
    }

    #[napi]
    pub fn release(&self, call: u32) {
        self.answer(call, |held| held.take()?.release().map(|()| Told::Nothing));
    }

    /// On this thread.
    #[napi]
    pub fn release_now(&self) -> napi::Result<()> {
        now(|| self.held.guard.take()?.release())
    }

    /// `Bridge::cancel` ends the wait.
    #[napi]
    pub fn upgrade(&self, call: u32, wait: Option<f64>) {
        let (held, outbox, token) = (self.held.clone(), self.outbox.clone(), self.outbox.wait(call));
        pool::run(move || {
            let there = outbox.clone();
            let begun = caught(|| {
                let wait = millis("wait", wait)?;
                let done = move |result: Result<()>| there.tell(call, result.map(|()| Told::Nothing));
                held.guard.with(|guard| guard.begin_upgrade(wait, Some(&token), done))
            });
            if let Err(error) = begun {
                outbox.tell(call, Err(error));
            }
        });
    }

    #[napi]
    pub fn downgrade(&self, call: u32) {
        self.answer(call, |held| held.with(LockGuard::downgrade).map(|()| Told::Nothing));
    }

    #[napi]
    pub fn wanted(&self, call: u32) {
        self.answer(call, |held| Ok(Told::Text(json::wanted(&held.with(LockGuard::wanted)?).to_string())));
    }

    #[napi]
    pub fn handle(&self) -> napi::Result<String> {
        now(|| self.held.guard.with(|guard| Ok(guard.handle().to_string())))
    }

    #[napi]
    pub fn detach(&self) -> napi::Result<String> {
        now(|| Ok(self.held.guard.take()?.detach().to_string()))
    }

    /// Tells a listener once when it is lost, by an error.
    #[napi]
    pub fn on_lost(&self, listener: u32) -> napi::Result<()> {
        let outbox = self.outbox.clone();
        let told = move |error: &Error| outbox.tell(listener, Err(Error::new(error.code(), error.to_string())));
        now(|| {
            self.held.guard.with(|guard| {
                guard.on_lost(told);
                Ok(())
            })
        })
    }

    /// Tells a listener whenever who waits for it changes.
    #[napi]
    pub fn on_wanted(&self, listener: u32) -> napi::Result<()> {
        let outbox = self.outbox.clone();
        now(|| {
            self.held.guard.with(|guard| {
                guard.on_wanted(move |wanted| outbox.tell(listener, Ok(Told::Text(json::wanted(wanted).to_string()))));
                Ok(())
            })
        })
    }
}
