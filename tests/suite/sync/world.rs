//! A laptop, a server and a team, with a time that tests move.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use gitlock::{
    Error, ErrorCode, LockHandle, LockManager, Mode, Options, Result, SyncStrategy, Synced,
    clock::{Clock, SystemClock},
    lock::{Now, fault::Faults},
    name::RefName,
    store::{NewValue, Object, Oid, RefEdit, RefStore, Swept, Transacted, Watch, memory::MemoryStore},
};

pub(crate) const WINS: SyncStrategy = SyncStrategy::RemoteWins;
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A time that tests move, the same on every machine; each machine has booted for itself.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) time: Arc<AtomicU64>,
    pub(crate) boot: Arc<str>,
}

impl Clock for Machine {
    fn now(&self) -> Now {
        let at = 1_700_000_000_000 + self.time.load(SeqCst);
        Now { wall: at, wall_micros: at * 1_000, boot: 5_000_000 + self.time.load(SeqCst), boot_id: self.boot.clone() }
    }

    fn pause(&self, duration: Duration) {
        SystemClock.pause(duration);
    }
}

pub(crate) type Once = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// A store that fails, or in which something happens just before it is written.
#[derive(Clone, Default)]
pub(crate) struct Stumbling {
    pub(crate) store: MemoryStore,
    /// How many writes succeed until one fails, for ever if nothing is said.
    pub(crate) writes: Arc<Mutex<Option<u64>>>,
    pub(crate) before: Arc<Once>,
}

impl std::fmt::Debug for Stumbling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

impl Stumbling {
    pub(crate) fn fail_after(&self, writes: Option<u64>) {
        *self.writes.lock().unwrap() = writes;
    }

    pub(crate) fn before_the_next_write(&self, what: impl FnOnce() + Send + 'static) {
        *self.before.lock().unwrap() = Some(Box::new(what));
    }
}

impl RefStore for Stumbling {
    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        self.store.read(name)
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        self.store.object(id)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        self.store.list(prefix)
    }

    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        let before = self.before.lock().unwrap().take();
        before.into_iter().for_each(|what| what());
        if let Some(writes) = self.writes.lock().unwrap().as_mut() {
            if *writes == 0 {
                return Err(Error::new(ErrorCode::Io, "the connection is cut"));
            }
            *writes -= 1;
        }
        self.store.transact(edits)
    }

    fn restore(&self, value: &NewValue) -> Result<bool> {
        self.store.restore(value)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        self.store.watch(prefix)
    }

    fn superseded(&self, objects: &[Oid]) {
        self.store.superseded(objects);
    }

    fn sweep(&self, grace: Option<Duration>) -> Result<Swept> {
        self.store.sweep(grace)
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

/// A laptop's own repository, and the server as it and others see it.
pub(crate) struct World {
    pub(crate) time: Arc<AtomicU64>,
    /// The laptop's.
    pub(crate) own: Stumbling,
    /// The server's.
    pub(crate) store: Stumbling,
    /// The laptop.
    pub(crate) here: LockManager,
    /// The server, from the laptop.
    pub(crate) there: LockManager,
    /// The server, from another machine.
    pub(crate) team: LockManager,
    faults: Faults,
}

pub(crate) fn manager(time: &Arc<AtomicU64>, store: &Stumbling, boot: &str, owner: Option<&str>) -> LockManager {
    faulty(time, store, boot, owner, Faults::NONE)
}

fn faulty(time: &Arc<AtomicU64>, store: &Stumbling, boot: &str, owner: Option<&str>, faults: Faults) -> LockManager {
    let mut options = Options::default();
    options.faults = faults;
    options.clock = Arc::new(Machine { time: time.clone(), boot: boot.into() });
    options.owner = owner.map(str::to_owned);
    LockManager::with_store(Arc::new(store.clone()), options).unwrap()
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Faults::NONE)
    }

    /// With these rules left out.
    pub(crate) fn with(faults: Faults) -> World {
        let (time, own, store) = (Arc::new(AtomicU64::new(0)), Stumbling::default(), Stumbling::default());
        let here = faulty(&time, &own, "laptop", Some("laptop"), faults);
        let there = faulty(&time, &store, "laptop", Some("laptop"), faults);
        let team = manager(&time, &store, "team", Some("team"));
        World { time, own, store, here, there, team, faults }
    }

    pub(crate) fn laptop(&self, boot: &str) -> (LockManager, LockManager) {
        let here = faulty(&self.time, &Stumbling::default(), boot, Some(boot), self.faults);
        (here, faulty(&self.time, &self.store, boot, Some(boot), self.faults))
    }

    /// The server and the laptop's repository as yet other processes have them.
    pub(crate) fn others(&self) -> (LockManager, LockManager) {
        let of = |store, boot| faulty(&self.time, store, boot, Some("other"), self.faults);
        (of(&self.store, "team"), of(&self.own, "laptop"))
    }

    pub(crate) fn passes(&self, time: Duration) {
        self.time.fetch_add(u64::try_from(time.as_millis()).unwrap(), SeqCst);
    }

    pub(crate) fn sync(&self, strategy: SyncStrategy) -> Vec<String> {
        told(&self.here.sync(&self.there, strategy).unwrap())
    }
}

/// What a sync did, as words.
pub(crate) fn told(synced: &Synced) -> Vec<String> {
    assert_eq!(synced.left, []);
    let mut told: Vec<String> =
        synced.changes.iter().map(|one| format!("{} {}", one.name, one.fate.as_str())).collect();
    told.sort();
    told
}

/// Acquires for a minute, without a background thread that renews it.
pub(crate) fn take(manager: &LockManager, name: &str) -> LockHandle {
    take_with(manager, name, Mode::Exclusive, 0).unwrap()
}

pub(crate) fn take_with(manager: &LockManager, name: &str, mode: Mode, priority: i32) -> Option<LockHandle> {
    let request = manager.lock(name).fingerprint("mine").ttl(MINUTE).priority(priority);
    let request = if mode == Mode::Shared { request.shared() } else { request };
    Some(request.try_acquire().unwrap()?.detach())
}

/// Who holds what, by name: the ids, and those of intents.
pub(crate) fn held(manager: &LockManager) -> BTreeMap<String, Vec<String>> {
    let listing = manager.list().unwrap();
    let all = listing.locks.into_iter().map(|lock| {
        let holders = lock.holders.iter().chain(&lock.intents);
        let mut ids: Vec<String> = holders.map(|status| status.holder.claim.id.clone()).collect();
        ids.sort();
        (lock.name.to_string(), ids)
    });
    all.collect()
}

pub(crate) fn journal(manager: &LockManager, name: &str) -> Vec<(String, String)> {
    let entries = manager.log(name, 100).unwrap();
    entries.into_iter().map(|entry| (entry.outcome, entry.id)).collect()
}

pub(crate) fn id(handle: &LockHandle) -> String {
    handle.id().unwrap().to_owned()
}
