//! Deleting our own superseded objects, so that a busy lock doesn't fill the repository.
//!
//! Every change of a record leaves the blob before it behind, which nothing refers to any more.
//! Git would prune it after two weeks. Who supersedes an object notes it here, and after a grace
//! period, for those who have just read the ref and are about to read the object, it is deleted.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock,
    error::{Error, Result},
    store::{Oid, Swept, object},
};

use super::FilesStore;

/// The file of the notes, in gitlock's own folder.
const NOTES: &str = "superseded";

/// How many notes a process gathers before it writes them down.
const GATHER: usize = 256;

/// From how many bytes of notes on a command that is about to end sweeps by itself.
const WORTH_A_SWEEP: u64 = 16 << 10;

/// How many superseded objects may wait. Beyond it the oldest go early, after `SHORTEST_GRACE`: a
/// lock that changes thousands of times a second would fill a disk in ten minutes.
const MOST_WAITING: usize = 20_000;
const SHORTEST_GRACE: u64 = 30_000;

/// How often one process sweeps by itself, in milliseconds.
const INTERVAL: u64 = 10_000;

pub(super) struct Spool {
    grace: Duration,
    /// Git deletes no objects here (`extensions.preciousObjects`), so neither do we.
    precious: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gathered: Vec<(u64, Oid)>,
    last_run: Option<u64>,
}

impl Spool {
    pub(super) fn new(grace: Duration, precious: bool) -> Spool {
        Spool { grace, precious, state: Mutex::default() }
    }

    pub(super) fn note(&self, store: &FilesStore, objects: &[Oid]) {
        if self.precious || objects.is_empty() {
            return;
        }
        let now = store.rules.clock.now().wall;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gathered.extend(objects.iter().map(|id| (now, *id)));
        if state.gathered.len().is_multiple_of(GATHER) {
            write_down(store, &mut state.gathered);
        }
    }

    /// Writes down what was gathered, and sweeps if that is worth it.
    pub(super) fn flush(&self, store: &FilesStore) {
        let now = store.rules.clock.boot_ms();
        let due = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            write_down(store, &mut state.gathered);
            let size = fs::metadata(store.common_dir().join("gitlock").join(NOTES)).map_or(0, |meta| meta.size());
            let due = size >= WORTH_A_SWEEP && state.last_run.is_none_or(|last| now.saturating_sub(last) >= INTERVAL);
            if due {
                state.last_run = Some(now);
            }
            due
        };
        if due && let Err(error) = self.run(store, None) {
            tracing::warn!(%error, "superseded objects could not be swept");
        }
    }

    /// Deletes what has waited long enough.
    pub(super) fn run(&self, store: &FilesStore, grace: Option<Duration>) -> Result<Swept> {
        if self.precious {
            return Ok(Swept::default());
        }
        write_down(store, &mut self.state.lock().unwrap_or_else(PoisonError::into_inner).gathered);
        match sweep(store, clock::millis(grace.unwrap_or(self.grace))) {
            // Another process is at it, or was stopped while it was: nothing is lost by leaving it to the next sweep.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Swept::default()),
            Err(error) => Err(Error::io(
                format_args!("can't sweep superseded objects in {}", store.common_dir().display()),
                error,
            )),
            Ok(swept) => Ok(swept),
        }
    }
}

impl Drop for FilesStore {
    fn drop(&mut self) {
        if self.generation != crate::fork::generation() {
            return; // the parent writes them down
        }
        // If this fails, some objects wait for `git gc` instead.
        write_down(self, &mut self.sweep.state.lock().unwrap_or_else(PoisonError::into_inner).gathered);
    }
}

fn write_down(store: &FilesStore, gathered: &mut Vec<(u64, Oid)>) {
    if gathered.is_empty() {
        return;
    }
    let text: String = gathered.iter().map(|(at, id)| format!("{at} {id}\n")).collect();
    let written = store.lock_notes(NOTES).and_then(|mut notes| {
        notes.file.seek(io::SeekFrom::End(0))?;
        notes.file.write_all(text.as_bytes())
    });
    match written {
        // Somebody is at it: next time. They don't gather for ever.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && gathered.len() < 64 * GATHER => return,
        Err(error) => tracing::debug!(%error, "superseded objects are left to `git gc`"),
        Ok(()) => {}
    }
    gathered.clear();
}

fn sweep(store: &FilesStore, grace: u64) -> io::Result<Swept> {
    let mut locked = store.lock_notes(NOTES)?;
    let file = &mut locked.file;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let now = store.rules.clock.now().wall;
    let notes: Vec<(u64, Oid)> = text
        .lines()
        .filter_map(|line| {
            let (at, id) = line.split_once(' ')?;
            Some((at.parse().ok()?, Oid::from_hex(id.as_bytes())?))
        })
        .collect();
    let too_many = notes.len().saturating_sub(MOST_WAITING);
    let is_due = |place: usize, at: u64| {
        // A wall clock that was set back makes notes wait longer, never shorter.
        let age = now.saturating_sub(at);
        age >= grace || (place < too_many && age >= SHORTEST_GRACE.min(grace))
    };
    let (mut due, mut waiting) = (Vec::new(), Vec::new());
    for (place, (at, id)) in notes.into_iter().enumerate() {
        if is_due(place, at) { due.push((at, id)) } else { waiting.push((at, id)) }
    }
    // First the notes, then the objects: whoever notes something must not wait for thousands of
    // deletions. What a kill in between leaves is left to `git gc`.
    let rest: String = waiting.iter().map(|(at, id)| format!("{at} {id}\n")).collect();
    if rest.len() != text.len() {
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(rest.as_bytes())?;
    }
    drop(locked);
    let mut deleted = 0;
    if !due.is_empty() {
        let referred = referred_to(store)?;
        for (at, id) in due.iter().filter(|(_, id)| !referred.contains(id)) {
            deleted += u64::from(delete(store, *at, id)?);
        }
    }
    tracing::debug!(deleted, waiting = waiting.len(), "swept superseded objects");
    Ok(Swept { deleted, waiting: waiting.len() as u64 })
}

/// What any ref of the repository points at: somebody may have tagged a record.
fn referred_to(store: &FilesStore) -> io::Result<HashSet<Oid>> {
    let refs = store.list_refs("refs").map_err(io::Error::other)?;
    Ok(refs.into_iter().map(|(_, id)| id).collect())
}

/// Deletes a loose object, unless somebody wrote the same one since: Git then sets its mtime anew.
fn delete(store: &FilesStore, superseded_at: u64, id: &Oid) -> io::Result<bool> {
    let path = store.loose.object_path(&object::to_gix(id));
    let modified = match fs::metadata(&path) {
        Ok(meta) => u64::try_from(meta.mtime()).unwrap_or(0).saturating_mul(1_000),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if modified > superseded_at.saturating_add(1_000) {
        return Ok(false);
    }
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
