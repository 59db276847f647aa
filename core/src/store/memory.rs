//! The reference store: a map behind a mutex. For tests, the model, and to read first.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    name::RefName,
    ref_update::{Expected, New, RefUpdates},
};

use super::{Changes, NewValue, Object, Oid, RefEdit, RefStore, Swept, Transacted, Watch, object};

/// Refs and objects in this process's memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    refs: BTreeMap<RefName, Oid>,
    objects: HashMap<Oid, (gix::objs::Kind, Vec<u8>)>,
    superseded: Vec<Oid>,
    watchers: Vec<Weak<Noticed>>,
}

#[derive(Debug)]
struct Noticed {
    prefix: String,
    changes: Mutex<Changes>,
    signal: OwnedFd,
}

const HASH: gix::hash::Kind = gix::hash::Kind::Sha1;

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Loses an object, as `git prune` may.
    pub fn prune(&self, id: &Oid) {
        self.memory().objects.remove(id);
    }

    /// How many objects there are.
    pub fn object_count(&self) -> usize {
        self.memory().objects.len()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn write(&mut self, value: &NewValue) -> Option<Oid> {
        let mut last = None;
        for object in object::encode(value, HASH) {
            self.objects.insert(object.id, (object.kind, object.bytes));
            last = Some(object.id);
        }
        last
    }

    fn transact(&mut self, edits: &[RefEdit]) -> Result<Transacted> {
        if edits.iter().any(|edit| self.refs.get(&edit.name) != edit.expected.as_ref()) {
            return Ok(Transacted::Conflict);
        }
        let mut values = Vec::with_capacity(edits.len());
        for edit in edits {
            let id = edit.new.as_ref().and_then(|value| self.write(value));
            match id {
                Some(id) => self.refs.insert(edit.name.clone(), id),
                None => self.refs.remove(&edit.name),
            };
            self.notify(&edit.name);
            values.push(id);
        }
        Ok(Transacted::Committed(values))
    }

    fn notify(&mut self, name: &RefName) {
        self.watchers.retain(|watcher| {
            let Some(noticed) = watcher.upgrade() else { return false };
            if let Some(last) = name.as_str().strip_prefix(&noticed.prefix) {
                noticed.changes.lock().unwrap_or_else(PoisonError::into_inner).names.push(last.to_owned());
                // A full pipe is a signal that hasn't been read yet.
                let _ = rustix::io::write(&noticed.signal, &[1]);
            }
            true
        });
    }
}

impl RefStore for MemoryStore {
    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        Ok(self.memory().refs.get(name).copied())
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        Ok(match self.memory().objects.get(id) {
            None => Object::Missing,
            Some((gix::objs::Kind::Blob, bytes)) => Object::Blob(bytes.clone()),
            Some((gix::objs::Kind::Commit, bytes)) => match object::parse_commit(bytes, HASH) {
                Ok(commit) => Object::Commit(Box::new(commit)),
                Err(why) => Object::Unusable(why),
            },
            Some((kind, _)) => Object::Unusable(format!("it is a {kind}")),
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        let below = |name: &RefName| name.as_str().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        Ok(self.memory().refs.iter().filter(|(name, _)| below(name)).map(|(name, id)| (name.clone(), *id)).collect())
    }

    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        self.memory().transact(edits)
    }

    /// Values are whole object ids here, of whatever objects.
    fn transact_with(&self, edits: &[RefEdit], others: &RefUpdates) -> Result<Transacted> {
        let mut memory = self.memory();
        let mut wanted = Vec::with_capacity(others.updates.len());
        for update in &others.updates {
            let name = RefName::foreign(&*update.name);
            let (now, expected) = (memory.refs.get(&name).copied(), whole_id(update.expected_value())?);
            if expected.is_some() && now != expected || update.expected == Expected::Absent && now.is_some() {
                let is = now.map_or_else(|| "does not exist".to_owned(), |id| format!("is at {id}"));
                let message = format!("{name} {is}, and not as expected; nothing was changed: read it again");
                return Err(Error::new(ErrorCode::RefChanged, message));
            }
            wanted.extend((update.new != New::Unchanged).then_some((name, whole_id(update.new_value())?)));
        }
        let done = memory.transact(edits)?;
        if matches!(done, Transacted::Committed(_)) {
            for (name, value) in wanted {
                match value {
                    Some(id) => memory.refs.insert(name, id),
                    None => memory.refs.remove(&name),
                };
            }
        }
        Ok(done)
    }

    fn restore(&self, value: &NewValue) -> Result<bool> {
        let mut memory = self.memory();
        let before = memory.objects.len();
        memory.write(value);
        Ok(memory.objects.len() != before)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (readable, signal) = rustix::pipe::pipe_with(flags)
            .map_err(|error| Error::new(ErrorCode::Io, format!("no pipe to watch the memory store with: {error}")))?;
        let noticed = Arc::new(Noticed { prefix: format!("{prefix}/"), changes: Mutex::default(), signal });
        self.memory().watchers.push(Arc::downgrade(&noticed));
        Ok(Box::new(MemoryWatch { noticed, readable }))
    }

    fn superseded(&self, objects: &[Oid]) {
        self.memory().superseded.extend_from_slice(objects);
    }

    fn sweep(&self, _grace: Option<Duration>) -> Result<Swept> {
        let mut memory = self.memory();
        let superseded = std::mem::take(&mut memory.superseded);
        let mut deleted = 0;
        for id in superseded {
            if !memory.refs.values().any(|current| *current == id) && memory.objects.remove(&id).is_some() {
                deleted += 1;
            }
        }
        Ok(Swept { deleted, waiting: 0 })
    }

    fn location(&self) -> String {
        // Each is a place of its own; clones are the same one.
        format!("this process's memory at {:p}", Arc::as_ptr(&self.0))
    }
}

fn whole_id(value: Option<&str>) -> Result<Option<Oid>> {
    let id = |value: &str| {
        let message = format!("{value:?} is no whole object id, and memory knows no other values");
        Oid::from_hex(value.as_bytes()).ok_or_else(|| Error::new(ErrorCode::InvalidArgument, message))
    };
    value.map(id).transpose()
}

struct MemoryWatch {
    noticed: Arc<Noticed>,
    readable: OwnedFd,
}

impl Watch for MemoryWatch {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.readable.as_fd())
    }

    fn changes(&mut self) -> Changes {
        let mut drained = [0u8; 64];
        while rustix::io::read(&self.readable, &mut drained).is_ok_and(|count| count > 0) {}
        std::mem::take(&mut *self.noticed.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
