//! Refs of a repository whose format only Git reads, such as reftable: read and swapped by `git` processes.
//!
//! One `git update-ref --stdin` goes on for all transactions, until one of them is refused, which ends it; one
//! `git cat-file --batch-command` for all reading. Transactions are told in one piece, `commit` included, so that Git
//! waits for nobody who may have been stopped while it has the repository's one lock; and what ends in the middle
//! changes nothing.
//!
//! No hooks run and no reflogs are written, as for refs that are files: these are gitlock's own refs.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    name::RefName,
    store::Oid,
};

use super::{
    process::Process,
    program::{Git, failed},
};

/// One ref's compare-and-swap, its object written.
#[derive(Clone, Debug)]
pub(crate) struct Swap<'a> {
    pub(crate) name: &'a RefName,
    pub(crate) expected: Option<Oid>,
    pub(crate) new: Option<Oid>,
}

/// How a transaction ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Swapped {
    Committed,
    Conflict,
    Unknown,
    /// Nothing was changed, and all refs are as expected: somebody holds a lock, or Git can't. Its words.
    Refused(String),
}

/// The processes of one repository.
#[derive(Debug)]
pub(crate) struct GitRefs {
    git: Git,
    /// The folder of the refs, below the repository's own.
    folder: PathBuf,
    /// How long an object id is, in bytes.
    length: usize,
    durable: bool,
    updating: Mutex<Option<Process>>,
    reading: Mutex<Option<Process>>,
}

fn lock(process: &Mutex<Option<Process>>) -> MutexGuard<'_, Option<Process>> {
    let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
    if process.as_ref().is_some_and(|process| !process.is_ours()) {
        *process = None;
    }
    process
}

/// For how long Git itself waits for the lock of all refs, in milliseconds. Who wants to wait for longer asks again.
const GIT_WAITS: u64 = 100;

impl GitRefs {
    pub(crate) fn new(git: Git, folder: &Path, length: usize, durable: bool) -> GitRefs {
        let (updating, reading) = (Mutex::default(), Mutex::default());
        GitRefs { git, folder: folder.to_owned(), length, durable, updating, reading }
    }

    /// Lets the processes go: the repository's format has changed.
    pub(crate) fn let_go(&self) {
        *lock(&self.updating) = None;
        *lock(&self.reading) = None;
    }

    /// The lock of all refs.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.folder.join("tables.list.lock")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    // ------------------------------------------------------------ reading

    /// What a ref points at.
    pub(crate) fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        let mut process = lock(&self.reading);
        // One that was killed is started again, once.
        for _ in 0..2 {
            let reader = match &mut *process {
                Some(reader) => reader,
                none => {
                    let command = self.git.command(&["cat-file", "--batch-command=%(objectname)"]);
                    none.insert(Process::start(command, false).map_err(failed)?)
                }
            };
            reader.say(format!("info {name}\n").as_bytes());
            match reader.hear() {
                Some(line) => match Oid::from_hex(line.as_bytes()) {
                    Some(id) => return Ok(Some(id)),
                    // No such ref, or its object is missing.
                    None => break,
                },
                None => *process = None,
            }
        }
        drop(process);
        self.read_surely(name)
    }

    /// The same, without a look at the object, by a process of its own.
    fn read_surely(&self, name: &RefName) -> Result<Option<Oid>> {
        let found = self.list_matching(name.as_str())?;
        Ok(found.into_iter().find(|(found, _)| found == name).map(|(_, id)| id))
    }

    /// Every ref below a prefix.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        let mut found = self.list_matching(&format!("{}/", prefix.trim_end_matches('/')))?;
        found.sort();
        Ok(found)
    }

    fn list_matching(&self, pattern: &str) -> Result<Vec<(RefName, Oid)>> {
        let ran = self.git.run(&["for-each-ref", "--format=%(objectname) %(refname)", "--", pattern], b"")?;
        if !ran.succeeded() {
            let message = format!("Git can't list the refs of {}: {}", self.git.git_dir().display(), ran.words);
            return Err(Error::new(ErrorCode::Io, message));
        }
        let entry = |line: &str| {
            let (id, name) = line.split_once(' ')?;
            Some((RefName::foreign(name), Oid::from_hex(id.as_bytes())?))
        };
        Ok(ran.stdout.lines().filter_map(entry).collect())
    }

    // ------------------------------------------------------------ compare-and-swap

    /// Makes all of them or none.
    pub(crate) fn swap(&self, swaps: &[Swap<'_>]) -> Result<Swapped> {
        let mut process = lock(&self.updating);
        let updater = match &mut *process {
            Some(updater) => updater,
            none => none.insert(Process::start(self.updater(), true).map_err(failed)?),
        };
        updater.say(&self.transaction(swaps));
        let mut heard = 0;
        for word in ["start: ok", "prepare: ok", "commit: ok"] {
            if updater.hear().as_deref() != Some(word) {
                break;
            }
            heard += 1;
        }
        if heard == 3 {
            return Ok(Swapped::Committed);
        }
        let stuck = updater.is_stuck();
        let words = process.take().map(Process::last_words).unwrap_or_default();
        drop(process);
        if stuck || heard == 2 {
            tracing::warn!(words, "a transaction of Git stopped half-way; a fresh read will settle it");
            return Ok(Swapped::Unknown);
        }
        for swap in swaps {
            if self.read_surely(swap.name)? != swap.expected {
                return Ok(Swapped::Conflict);
            }
        }
        // Killed before it said anything, or after: the refs tell. Who expected what is there now has lost nothing.
        if words.is_empty() && swaps.iter().any(|swap| swap.new != swap.expected) {
            return Ok(Swapped::Unknown);
        }
        Ok(Swapped::Refused(words))
    }

    fn updater(&self) -> std::process::Command {
        let waits = format!("reftable.lockTimeout={GIT_WAITS}");
        let mut words = vec!["-c", &waits, "-c", "core.hooksPath=/dev/null", "-c", "core.logAllRefUpdates=false"];
        if self.durable {
            words.extend(["-c", "core.fsync=committed"]);
        }
        words.extend(["update-ref", "--no-deref", "--stdin", "-z"]);
        self.git.command(&words)
    }

    fn transaction(&self, swaps: &[Swap<'_>]) -> Vec<u8> {
        let mut text = String::from("start\0");
        let zero = "0".repeat(2 * self.length);
        for Swap { name, expected, new } in swaps {
            let expected = expected.map_or_else(|| zero.clone(), |id| id.to_string());
            text += &match new {
                Some(new) => format!("option no-deref\0update {name}\0{new}\0{expected}\0"),
                None if expected == zero => format!("verify {name}\0{expected}\0"),
                None => format!("option no-deref\0delete {name}\0{expected}\0"),
            };
        }
        text += "prepare\0commit\0";
        text.into_bytes()
    }

    /// Why Git refuses what is as expected, if it isn't that somebody holds a lock.
    pub(crate) fn explain(&self, swaps: &[Swap<'_>], words: &str) -> Result<Option<Error>> {
        if let Err(error) = rustix::fs::access(&self.folder, rustix::fs::Access::WRITE_OK) {
            return Ok(Some(Error::io(format_args!("can't write {}", self.folder.display()), error.into())));
        }
        let full = rustix::fs::statvfs(&self.folder).is_ok_and(|disk| disk.f_bavail == 0 && disk.f_blocks > 0);
        if full {
            let message =
                format!("can't write {}: the disk is full; free some space and try again", self.folder.display());
            return Ok(Some(Error::new(ErrorCode::StorageFull, format!("{message} ({words})"))));
        }
        for swap in swaps.iter().filter(|swap| swap.expected.is_none() && swap.new.is_some()) {
            let mut around = self.list(swap.name.as_str())?;
            let mut above = swap.name.as_str();
            while let Some((parent, _)) = above.rsplit_once('/').filter(|(parent, _)| parent.contains('/')) {
                let parent = RefName::foreign(parent);
                around.extend(self.read_surely(&parent)?.map(|id| (parent, id)));
                above = &swap.name.as_str()[..above.rfind('/').unwrap_or(0)];
            }
            if let Some((other, _)) = around.first() {
                let message = format!(
                    "another tool's ref {other} is in the way of {}; delete that ref, or choose another lock name or prefix",
                    swap.name
                );
                return Ok(Some(Error::new(ErrorCode::NameBlocked, message)));
            }
        }
        Ok(None)
    }

    /// For how long Git itself has waited when it refuses.
    pub(crate) const WAITED: Duration = Duration::from_millis(GIT_WAITS);
}
