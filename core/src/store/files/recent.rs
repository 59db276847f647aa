//! A small log of objects that were just put behind refs, to write them again if they vanish.
//!
//! `git prune --expire=now` marks what is reachable and then deletes everything else. An object
//! that is written and referred to in between is deleted with its ref in place, and then
//! `git gc` dies of the broken ref. Holders write their records again, but a journal's commits
//! have no holder, and a lock that a finished command acquired has none that runs. So what is
//! written goes into this log too, and whoever finds an object missing takes it from here.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crate::{
    name::RefName,
    store::{
        Oid,
        object::{self, Encoded},
    },
};

use super::{
    FilesStore,
    looks::{self, Window},
};

/// When one generation of the log is full, in bytes. Two are kept.
const GENERATION: u64 = 8 << 20;

/// For how long a full generation goes on growing if the one before it is younger, in milliseconds: a `git gc`
/// may take so long between looking what is referred to and deleting the rest.
const YOUNG: u64 = 60_000;

/// How large one may become by that, in bytes.
const LARGEST: u64 = 64 << 20;

/// After how many entries a process looks whether the log was rotated by another.
const LOOK_EVERY: u32 = 64;

#[derive(Default)]
pub(super) struct Recent(Mutex<State>);

#[derive(Default)]
struct State {
    file: Option<File>,
    written: u32,
    /// Whether something was logged since the last look at what is missing.
    dirty: bool,
}

struct Entry<'a> {
    kind: gix::objs::Kind,
    id: Oid,
    name: &'a str,
    bytes: &'a [u8],
}

impl Recent {
    /// Logs an object. That it may fail harms nothing but the second chance.
    pub(super) fn note(&self, store: &FilesStore, name: &RefName, object: &Encoded) {
        let mut entry = format!("o {} {} {} {name}\n", object.kind, object.id, object.bytes.len()).into_bytes();
        entry.extend_from_slice(&object.bytes);
        entry.push(b'\n');
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = state.append(store, &entry) {
            state.file = None;
            tracing::debug!(%error, "an object isn't in the log of recent ones");
        }
    }

    /// Writes this object again if it is in the log. Returns whether it is.
    pub(super) fn restore_one(&self, store: &FilesStore, wanted: &Oid) -> bool {
        let log = read_log(store, Window::EVERYTHING);
        let entries = parse(&log);
        let entry = entries.iter().find(|entry| entry.id == *wanted);
        entry.is_some_and(|entry| write_again(store, entry))
    }

    /// Writes the records and the newest commits of every lock in the log again that are missing.
    pub(super) fn restore_all(&self, store: &FilesStore) {
        if !std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).dirty) {
            return;
        }
        self.restore_from(store, looks::begin(store));
    }

    /// The same for this part of the log.
    pub(super) fn restore_from(&self, store: &FilesStore, window: Window) {
        restore_seen(store, &read_log(store, window));
    }
}

/// Restores what this reading of the log knows of.
fn restore_seen(store: &FilesStore, log: &[u8]) {
    let mut entries = parse(log);
    let names: HashSet<&str> = entries.iter().map(|entry| entry.name).collect();
    let tips: Vec<(&str, Oid)> = names
        .into_iter()
        .filter_map(|name| Some((name, store.read_ref(&RefName::foreign(name)).ok().flatten()?)))
        .collect();
    // A busy lock has moved on since the log was read, and from a commit that isn't in it no way
    // leads to those that are. What a ref points at is in the log before, so it can be read on.
    let known: HashSet<Oid> = entries.iter().map(|entry| entry.id).collect();
    let mut newest = Vec::new();
    if tips.iter().any(|(_, tip)| !known.contains(tip)) {
        newest = read_log(store, looks::newest(store));
    }
    entries.extend(parse(&newest));
    for entry in missing_from_refs(store, &tips, &entries) {
        write_again(store, entry);
    }
}

/// This part of the log. What can't be read restores nothing, which is what there would be
/// without a log.
fn read_log(store: &FilesStore, window: Window) -> Vec<u8> {
    let mut log = Vec::new();
    let folder = store.common_dir().join("gitlock");
    if let Some(from) = window.before {
        let _ = read_from(folder.join("recent.1"), from, &mut log);
    }
    let _ = read_from(folder.join("recent"), window.present, &mut log);
    log
}

impl State {
    fn append(&mut self, store: &FilesStore, entry: &[u8]) -> io::Result<()> {
        self.dirty = true;
        self.written += 1;
        if self.file.is_none() || self.written.is_multiple_of(LOOK_EVERY) {
            self.file = None;
            let options = File::options().create(true).append(true).clone();
            let mut file = store.open_state_file("recent", &options)?;
            // What was pruned is written again now or never.
            let last_look = || restore_seen(store, &read_log(store, Window::EVERYTHING));
            if is_full(store, file.metadata()?.size()) && looks::rotate(store, &file, last_look)? {
                file = store.open_state_file("recent", &options)?;
            }
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(entry),
            None => Ok(()),
        }
    }
}

/// Whether a generation of this size is to be followed by another.
fn is_full(store: &FilesStore, size: u64) -> bool {
    if !(GENERATION..LARGEST).contains(&size) {
        return size >= LARGEST;
    }
    let before = std::fs::metadata(store.common_dir().join("gitlock/recent.1")).and_then(|meta| meta.modified());
    let ended = before.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map(crate::clock::millis);
    // Of a clock that was set back nothing can be told.
    let now = store.rules.clock.now().wall;
    ended.is_none_or(|ended| ended > now || now - ended >= YOUNG)
}

fn read_from(path: PathBuf, from: u64, log: &mut Vec<u8>) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    // No more than that, but who knows what somebody put there.
    file.take(2 * LARGEST).read_to_end(log)?;
    log.push(b'\n');
    Ok(())
}

/// The entries of a log; what is torn or cut off is skipped.
fn parse(log: &[u8]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < log.len() {
        let line_end = memchr::memchr(b'\n', &log[at..]).map_or(log.len(), |newline| at + newline);
        match entry_at(log, at, line_end) {
            Some(entry) => {
                at = line_end + 1 + entry.bytes.len() + 1;
                entries.push(entry);
            }
            None => at = line_end + 1,
        }
    }
    entries
}

fn entry_at(log: &[u8], at: usize, line_end: usize) -> Option<Entry<'_>> {
    let line = std::str::from_utf8(&log[at..line_end]).ok()?;
    let mut words = line.strip_prefix("o ")?.split(' ');
    let kind = gix::objs::Kind::from_bytes(words.next()?.as_bytes()).ok()?;
    let id = Oid::from_hex(words.next()?.as_bytes())?;
    let length: usize = words.next()?.parse().ok()?;
    let name = words.next()?;
    let bytes = log.get(line_end + 1..line_end.checked_add(1)?.checked_add(length)?)?;
    Some(Entry { kind, id, name, bytes })
}

/// What these refs still reach and that is gone: records, and the commits of journals.
fn missing_from_refs<'a>(store: &FilesStore, tips: &[(&str, Oid)], entries: &'a [Entry<'a>]) -> Vec<&'a Entry<'a>> {
    let commits: HashMap<Oid, &Entry<'_>> =
        entries.iter().filter(|entry| entry.kind != gix::objs::Kind::Blob).map(|entry| (entry.id, entry)).collect();
    let mut wanted = Vec::new();
    for (_, tip) in tips {
        let mut next = Some(*tip);
        while let Some(entry) = next.and_then(|id| commits.get(&id)) {
            wanted.push(*entry);
            next = object::parse_commit(entry.bytes, store.hash).ok().and_then(|commit| commit.parent);
        }
    }
    // A record is written again by its holder at the next renewal; but a holder that is no gitlock
    // doesn't, and those who wait behind it remember what they wrote and don't read it again.
    let records: HashMap<Oid, &Entry<'_>> =
        entries.iter().filter(|entry| entry.kind == gix::objs::Kind::Blob).map(|entry| (entry.id, entry)).collect();
    wanted.extend(tips.iter().filter_map(|(_, tip)| records.get(tip).copied()));
    // The tree that they all have; whoever made a journal's first commit logged it.
    wanted.extend(commits.values().filter(|entry| entry.kind == gix::objs::Kind::Tree));
    let missing = store.missing(wanted.iter().map(|entry| entry.id));
    wanted.retain(|entry| missing.contains(&entry.id));
    wanted
}

/// Writes an object from the log, unless it is there by now. Returns whether it then is.
fn write_again(store: &FilesStore, entry: &Entry<'_>) -> bool {
    if store.has_object(&entry.id) {
        return true;
    }
    // The log is a file like any other: what it says has to be what it says it is.
    let id = gix::objs::compute_hash(store.hash, entry.kind, entry.bytes).ok();
    if id != Some(object::to_gix(&entry.id)) {
        return false;
    }
    tracing::warn!(object = %entry.id, name = entry.name, "writing an object again that was pruned from under its ref");
    store.write_object(&Encoded { kind: entry.kind, bytes: entry.bytes.to_vec(), id: entry.id }).is_ok()
}

// ---------------------------------------------------------------- sightings

/// For how long a ref has been seen at this object, in milliseconds of this boot's clock: kept in
/// a file, so that one-shot commands don't start over.
pub(super) fn sighting(store: &FilesStore, name: &RefName, id: &Oid) -> Option<u64> {
    let now = store.rules.clock.now();
    let mut notes = store.lock_notes("sightings").ok()?;
    let file = &mut notes.file;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let key = format!("{name} {id}");
    // Only this boot's clock can be compared with.
    let mut kept: Vec<(u64, &str)> = text
        .lines()
        .filter_map(|line| {
            let (boot, rest) = line.split_once(' ')?;
            let (at, key) = rest.split_once(' ')?;
            (boot == &*now.boot_id).then_some((at.parse().ok()?, key))
        })
        .filter(|(_, other)| *other == key || !other.starts_with(&format!("{name} ")))
        .collect();
    let since = kept.iter().find(|(_, other)| *other == key).map(|(at, _)| *at);
    if since.is_none() {
        kept.push((now.boot, &key));
        let text: String = kept.iter().map(|(at, key)| format!("{} {at} {key}\n", now.boot_id)).collect();
        file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(text.as_bytes())).ok()?;
    }
    Some(now.boot.saturating_sub(since.unwrap_or(now.boot)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{CommitDraft, NewValue, Parent, RefEdit, RefStore, Signature, Transacted, files::FilesOptions};

    fn commit(store: &FilesStore, name: &RefName, number: u64) -> Oid {
        let before = store.read(name).unwrap();
        let who = Signature { name: "a".to_owned(), email: "a".to_owned(), seconds: number };
        let draft = CommitDraft {
            parent: before.map_or(Parent::None, Parent::Commit),
            author: who.clone(),
            committer: who,
            message: format!("{number}\n"),
        };
        let new = Some(NewValue::Commits { drafts: vec![draft], tree: true });
        match store.transact(&[RefEdit { name: name.clone(), expected: before, new }]).unwrap() {
            Transacted::Committed(values) => values[0].unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        assert!(std::process::Command::new("git").args(["init", "-q"]).arg(dir.path()).status().unwrap().success());
        dir
    }

    #[test]
    fn what_was_pruned_is_written_again_before_its_generation_is_dropped() {
        let dir = repository();
        let open = || FilesStore::open(dir.path(), &FilesOptions::default()).unwrap();
        let name = RefName::foreign("refs/gitvan/journal/build");
        let ids: Vec<Oid> = (0..5).map(|number| commit(&open(), &name, number)).collect();
        let folder = dir.path().join(".git/gitlock");
        std::fs::rename(folder.join("recent"), folder.join("recent.1")).unwrap();
        std::fs::write(folder.join("recent"), vec![b'\n'; GENERATION as usize]).unwrap();
        let logged = |id: &Oid, of: &FilesStore| {
            read_log(of, Window::EVERYTHING).windows(40).any(|hex| hex == id.to_string().as_bytes())
        };
        commit(&open(), &name, 5);
        assert!(logged(&ids[2], &open()), "a busy log grows until the generation before it is old enough");
        let store = open();
        let old = store.rules.clock.now().wall - YOUNG - 1_000;
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_millis(old);
        File::options().append(true).open(folder.join("recent.1")).unwrap().set_modified(old).unwrap();
        std::fs::remove_file(store.loose.object_path(&object::to_gix(&ids[2]))).unwrap();
        commit(&store, &name, 6);
        assert!(!logged(&ids[2], &store));
        assert!(store.has_object(&ids[2]));
    }

    #[test]
    fn a_journal_that_moves_on_while_the_log_is_read_is_followed_all_the_same() {
        let dir = repository();
        let store = FilesStore::open(dir.path(), &FilesOptions::default()).unwrap();
        let name = RefName::foreign("refs/gitvan/journal/build");
        let ids: Vec<Oid> = (0..5).map(|number| commit(&store, &name, number)).collect();
        let log = read_log(&store, Window::EVERYTHING);
        std::fs::remove_file(store.loose.object_path(&object::to_gix(&ids[2]))).unwrap();
        (5..9).for_each(|number| assert!(store.has_object(&commit(&store, &name, number))));
        restore_seen(&store, &log);
        assert!(store.has_object(&ids[2]));
    }
}
