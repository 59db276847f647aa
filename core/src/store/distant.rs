//! A store as far away as a server: for simulations, and to see how a program behaves far from its locks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    clock::{Clock, SystemClock},
    error::Result,
    name::RefName,
};

use super::{NewValue, Object, Oid, RefEdit, RefStore, Swept, Transacted, Watch, poll};

/// Another store, at a distance: every question and every change takes its time, changes are noticed by asking, as
/// at a remote, and everything is counted. Clones are the same store.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use gitlock::{LockManager, Options, store::{distant::DistantStore, memory::MemoryStore}};
/// let server = DistantStore::new(Arc::new(MemoryStore::new()), Duration::from_millis(5));
/// let locks = LockManager::with_store(Arc::new(server.clone()), Options::default())?;
/// locks.lock("build").acquire()?.release()?;
/// println!("{} questions, {} changes", server.questions(), server.changes());
/// # Ok::<(), gitlock::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DistantStore {
    store: Arc<dyn RefStore>,
    round_trip: Duration,
    poll_interval: Duration,
    clock: Arc<dyn Clock>,
    counted: Arc<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    questions: AtomicU64,
    changes: AtomicU64,
}

impl DistantStore {
    /// This store, so far away. Waiters ask as at a remote with its default `poll_interval`.
    pub fn new(store: Arc<dyn RefStore>, round_trip: Duration) -> DistantStore {
        let (clock, counted) = (Arc::new(SystemClock), Arc::default());
        DistantStore { store, round_trip, poll_interval: Duration::from_secs(2), clock, counted }
    }

    /// How often it was asked for something.
    pub fn questions(&self) -> u64 {
        self.counted.questions.load(Relaxed)
    }

    /// How often something was to be changed, in vain or not.
    pub fn changes(&self) -> u64 {
        self.counted.changes.load(Relaxed)
    }

    fn question(&self) {
        self.counted.questions.fetch_add(1, Relaxed);
        self.clock.pause(self.round_trip);
    }
}

impl RefStore for DistantStore {
    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        self.question();
        self.store.read(name)
    }

    fn read_all(&self, names: &[&RefName]) -> Result<Vec<Option<Oid>>> {
        self.question();
        self.store.read_all(names)
    }

    /// Comes along with the refs, as at a remote.
    fn object(&self, id: &Oid) -> Result<Object> {
        self.store.object(id)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        self.question();
        self.store.list(prefix)
    }

    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        self.counted.changes.fetch_add(1, Relaxed);
        // There, and back.
        self.clock.pause(self.round_trip / 2);
        let done = self.store.transact(edits);
        self.clock.pause(self.round_trip / 2);
        done
    }

    fn restore(&self, value: &NewValue) -> Result<bool> {
        self.store.restore(value)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        let (store, wanted) = (self.clone(), prefix.to_owned());
        let ask = move || {
            let refs = store.list(&wanted)?;
            Ok(refs.into_iter().map(|(name, id)| (name.to_string(), id)).collect())
        };
        poll::start(Box::new(ask), self.clock.clone(), self.poll_interval, prefix, &self.location())
    }

    fn superseded(&self, objects: &[Oid]) {
        self.store.superseded(objects);
    }

    fn sweep(&self, grace: Option<Duration>) -> Result<Swept> {
        self.store.sweep(grace)
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(self.round_trip)
    }

    fn location(&self) -> String {
        format!("{}, {:?} away", self.store.location(), self.round_trip)
    }
}
