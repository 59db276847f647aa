//! A store that changes one ref after another, as a server without atomic pushes does, and as a crash between two
//! refs leaves any other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use gitlock::{
    ErrorCode, LockManager, Options, RefName, Result,
    clock::{Clock, SystemClock},
    lock::{
        Now,
        fault::{Fault, Faults},
    },
    store::{NewValue, Object, Oid, RefEdit, RefStore, Swept, Transacted, Watch, memory::MemoryStore},
};

/// What is done before one edit of the next transaction of so many.
struct Hook {
    edit: usize,
    of: usize,
    run: Box<dyn FnOnce() + Send>,
}

/// One process's way to the store.
struct Ordered {
    memory: MemoryStore,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ordered")
    }
}

impl Ordered {
    fn before(&self, edit: usize, of: usize, run: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Hook { edit, of, run: Box::new(run) });
    }
}

impl RefStore for Ordered {
    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        let mut values = Vec::new();
        for (at, edit) in edits.iter().enumerate() {
            let hook = self.hook.lock().unwrap().take_if(|hook| (hook.edit, hook.of) == (at, edits.len()));
            if let Some(hook) = hook {
                (hook.run)();
            }
            match self.memory.transact(std::slice::from_ref(edit))? {
                Transacted::Committed(value) => values.extend(value),
                other => return Ok(if at == 0 { other } else { Transacted::Unknown }),
            }
        }
        Ok(Transacted::Committed(values))
    }

    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        self.memory.read(name)
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        self.memory.object(id)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        self.memory.list(prefix)
    }

    fn restore(&self, value: &NewValue) -> Result<bool> {
        self.memory.restore(value)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        self.memory.watch(prefix)
    }

    fn superseded(&self, _objects: &[Oid]) {}

    fn sweep(&self, _grace: Option<Duration>) -> Result<Swept> {
        Ok(Swept::default())
    }

    fn location(&self) -> String {
        "an ordered store".to_owned()
    }
}

/// The system's clocks, and so many milliseconds more.
#[derive(Clone, Debug, Default)]
struct Ahead(Arc<AtomicU64>);

impl Clock for Ahead {
    fn now(&self) -> Now {
        let (now, ahead) = (SystemClock.now(), self.0.load(SeqCst));
        Now { wall: now.wall + ahead, wall_micros: now.wall_micros + ahead * 1_000, boot: now.boot + ahead, ..now }
    }

    fn pause(&self, duration: Duration) {
        SystemClock.pause(duration);
    }
}

const TTL: u64 = 10_000;

/// A holder decides to extend while its lease lasts, and writes that late: just before this edit of what somebody else
/// writes who finds the lease over. Returns what each of the two is told.
fn renews_late(faults: Faults, edit: usize, of: usize) -> (Result<()>, Result<u64>) {
    let (memory, clock) = (MemoryStore::new(), Ahead::default());
    let open = || {
        let store = Arc::new(Ordered { memory: memory.clone(), hook: Mutex::default() });
        let mut options = Options::default();
        options.clock = Arc::new(clock.clone());
        options.faults = faults;
        (store.clone(), LockManager::with_store(store, options).unwrap())
    };
    let ((slow, holder), (store, other)) = (open(), open());
    let guard = holder.lock("build").ttl(Duration::from_millis(TTL)).fingerprint("mine").acquire().unwrap();
    let (decided, has_decided) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (wrote, has_written) = mpsc::channel();
    slow.before(0, 1, move || {
        decided.send(()).unwrap();
        may_go.recv().unwrap();
    });
    let extends = std::thread::spawn(move || {
        let told = guard.extend(Some(Duration::from_millis(3 * TTL)));
        wrote.send(()).unwrap();
        guard.detach();
        told.map(|_| ())
    });
    has_decided.recv().unwrap();
    clock.0.store(TTL, SeqCst);
    store.before(edit, of, move || {
        go.send(()).unwrap();
        has_written.recv().unwrap();
    });
    let acquired = other.lock("build").ttl(Duration::from_millis(TTL)).acquire_now().map(|guard| guard.token());
    (extends.join().unwrap(), acquired)
}

/// Found at a server without atomic pushes: a grant was claimed while another machine ended it, and both held.
#[test]
fn a_lease_is_never_both_extended_and_ended() {
    // Before the journal's edit, and between that and the record's.
    for edit in [0, 1] {
        let (extended, acquired) = renews_late(Faults::NONE, edit, 2);
        assert_eq!(extended.unwrap_err().code(), ErrorCode::LockLost, "{acquired:?}");
        acquired.unwrap();
        let (extended, acquired) = renews_late(Faults::only(Fault::EndUnclosed), edit, 2);
        assert!(extended.is_ok() && acquired.is_ok(), "where nothing is closed first both hold");
    }
    // Before the record says that it is over.
    let (extended, acquired) = renews_late(Faults::NONE, 0, 1);
    extended.unwrap();
    assert_eq!(acquired.unwrap_err().code(), ErrorCode::Held);
}
