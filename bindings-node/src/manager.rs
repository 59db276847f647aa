//! Opening a repository, acquiring, and everything that needs no guard.
//!
//! A method whose first argument is a call's number answers that call later, by a message; any other
//! answers at once.

use gitlock::{HolderStatus, LockManager, LockRequest, LockStatus, Mode, Result, json};
use napi_derive::napi;

use crate::{
    bridge::{Bridge, Outbox, Told},
    errors::{caught, now},
    guard::Guard,
    options::{AcquireOptions, ManagerOptions, as_millis, millis},
    pool,
};

/// The locks of one repository.
#[napi]
pub struct Manager {
    outbox: Outbox,
    manager: LockManager,
}

fn open(path: &str, options: ManagerOptions) -> Result<LockManager> {
    LockManager::open_with(path, options.into_core()?)
}

/// The request that was asked for, and whether its tenure outlives this environment.
fn request<'a>(
    manager: &'a LockManager,
    outbox: &Outbox,
    names: &[String],
    options: Option<AcquireOptions>,
) -> Result<(LockRequest<'a>, bool)> {
    let request = manager.lock_all(names);
    let Some(options) = options else { return Ok((request, false)) };
    let outlives = options.fingerprint.is_some();
    Ok((options.apply(outbox, request)?, outlives))
}

/// What every tool reads in a record.
fn record(manager: &LockManager, lock: &LockStatus, held: &HolderStatus) -> json::Value {
    let (holder, claim, text) = (&held.holder, &held.holder.claim, |text: &str| json::Value::from(text));
    let fields = [
        ("name", text(lock.name.as_str())),
        ("ref", text(manager.namespace().lock_ref(&lock.name).as_str())),
        ("id", text(&claim.id)),
        ("acquiredAt", holder.acquired_at.into()),
        ("timeout", holder.timeout.into()),
        ("fingerprint", text(&claim.fingerprint)),
        ("exclusive", (claim.mode != Mode::Shared).into()),
        ("pid", claim.pid.into()),
        ("hostname", text(&claim.hostname)),
        ("remaining", as_millis(held.remaining).into()),
    ];
    json::Value::from_iter(fields.map(|(field, value)| (field.to_owned(), value)))
}

impl Manager {
    pub(crate) fn new(outbox: &Outbox, manager: LockManager) -> Manager {
        Manager { outbox: outbox.clone(), manager }
    }

    pub(crate) fn core(&self) -> &LockManager {
        &self.manager
    }

    /// Answers a call with what is found, as JSON.
    fn tell(&self, call: u32, find: impl FnOnce(&LockManager) -> Result<json::Value> + Send + 'static) {
        let manager = self.manager.clone();
        self.outbox.answer(call, move || Ok(Told::Text(find(&manager)?.to_string())));
    }
}

#[napi]
impl Manager {
    #[napi]
    pub fn open(bridge: &Bridge, call: u32, path: String, options: ManagerOptions) {
        bridge.outbox().answer(call, move || Ok(Told::Manager(open(&path, options)?)));
    }

    #[napi]
    pub fn open_now(bridge: &Bridge, path: String, options: ManagerOptions) -> napi::Result<Manager> {
        now(|| Ok(Manager::new(bridge.outbox(), open(&path, options)?)))
    }

    #[napi(getter)]
    pub fn location(&self) -> String {
        self.manager.location()
    }

    #[napi(getter)]
    pub fn lock_prefix(&self) -> String {
        self.manager.namespace().locks().to_owned()
    }

    /// The ref of a lock.
    #[napi]
    pub fn ref_of(&self, name: String) -> napi::Result<String> {
        now(|| {
            let name = gitlock::LockName::new(&name)?;
            Ok(self.manager.namespace().lock_ref(&name).as_str().to_owned())
        })
    }

    /// The holders of a lock, or of every lock if there is no name, with what other tools read in a record.
    #[napi]
    pub fn records(&self, call: u32, name: Option<String>) {
        self.tell(call, move |manager| {
            let locks = match name {
                Some(name) => vec![manager.status(&name)?],
                None => manager.list()?.locks,
            };
            Ok(locks.iter().flat_map(|lock| lock.holders.iter().map(|held| record(manager, lock, held))).collect())
        });
    }

    /// Begins to acquire. The call is answered with a guard; `Bridge::cancel` ends the wait.
    #[napi]
    pub fn acquire(&self, call: u32, names: Vec<String>, options: Option<AcquireOptions>) {
        let (outbox, manager, token) = (self.outbox.clone(), self.manager.clone(), self.outbox.wait(call));
        pool::in_order(move |in_a_row| {
            let begun = caught(|| {
                let (request, outlives) = request(&manager, &outbox, &names, options)?;
                let there = outbox.clone();
                let done = move |result: Result<gitlock::LockGuard>| {
                    there.tell(call, result.map(|guard| Told::Guard(Box::new(guard), outlives)));
                };
                let request = request.cancel(&token);
                // Many at once share a swap, if they are left to the background thread.
                if in_a_row { request.start(done) } else { request.begin(done) }
            });
            if let Err(error) = begun {
                outbox.tell(call, Err(error));
            }
        });
    }

    /// Acquires if that is possible at once, on this thread.
    #[napi]
    pub fn acquire_now(&self, names: Vec<String>, options: Option<AcquireOptions>) -> napi::Result<Guard> {
        now(|| {
            let (request, outlives) = request(&self.manager, &self.outbox, &names, options)?;
            Ok(Guard::new(&self.outbox, request.acquire_now()?, outlives))
        })
    }

    #[napi]
    pub fn status(&self, call: u32, name: String) {
        self.tell(call, move |manager| Ok(json::status(&manager.status(&name)?)));
    }

    #[napi]
    pub fn list(&self, call: u32) {
        self.tell(call, |manager| Ok(json::listing(&manager.list()?)));
    }

    #[napi]
    pub fn log(&self, call: u32, name: String, most: u32) {
        self.tell(call, move |manager| Ok(json::log(&name, &manager.log(&name, most as usize)?)));
    }

    #[napi]
    pub fn break_lock(&self, call: u32, name: String, id: Option<String>, reason: Option<String>) {
        self.tell(call, move |manager| {
            Ok(json::broken(&name, &manager.break_lock(&name, id.as_deref(), reason.as_deref())?))
        });
    }

    #[napi]
    pub fn verify(&self, call: u32, name: String, token: f64) {
        let manager = self.manager.clone();
        self.outbox.answer(call, move || manager.verify(&name, token as u64).map(|()| Told::Nothing));
    }

    #[napi]
    pub fn graph(&self, call: u32) {
        self.tell(call, |manager| Ok(json::graph(&manager.graph()?)));
    }

    /// The graph in the language of Graphviz.
    #[napi]
    pub fn graph_dot(&self, call: u32) {
        let manager = self.manager.clone();
        self.outbox.answer(call, move || Ok(Told::Text(manager.graph()?.to_dot())));
    }

    #[napi]
    pub fn sync(&self, call: u32, remote: &Manager, strategy: String) {
        let remote = remote.manager.clone();
        self.tell(call, move |manager| Ok(json::synced(&manager.sync(&remote, strategy.parse()?)?)));
    }

    #[napi]
    pub fn clean(&self, call: u32, grace: Option<f64>) {
        self.tell(call, move |manager| Ok(json::cleaned(&manager.clean(millis("grace", grace)?)?)));
    }

    #[napi]
    pub fn doctor(&self, call: u32, fix: bool) {
        self.tell(call, move |manager| Ok(json::findings(&manager.doctor(fix)?)));
    }

    #[napi]
    pub fn close(&self, call: u32) {
        let manager = self.manager.clone();
        self.outbox.answer(call, move || {
            manager.close();
            Ok(Told::Nothing)
        });
    }

    #[napi]
    pub fn release(&self, call: u32, handle: String) {
        let manager = self.manager.clone();
        self.outbox.answer(call, move || manager.release(&handle.parse()?).map(|()| Told::Nothing));
    }

    /// Answers with the milliseconds that are left.
    #[napi]
    pub fn extend(&self, call: u32, handle: String, ttl: Option<f64>) {
        let manager = self.manager.clone();
        self.outbox
            .answer(call, move || Ok(Told::Number(as_millis(manager.extend(&handle.parse()?, millis("ttl", ttl)?)?))));
    }

    #[napi]
    pub fn resume(&self, call: u32, handle: String) {
        let manager = self.manager.clone();
        // It began elsewhere, and may be meant to end elsewhere.
        self.outbox.answer(call, move || Ok(Told::Guard(Box::new(manager.resume(&handle.parse()?)?), true)));
    }
}
