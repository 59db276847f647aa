//! A repository on this machine, in process, without `git`.
//!
//! Objects, configuration and discovery go through gix. Refs are read and written here, by Git's
//! own files-backend protocol, because gix's ref transactions are not safe beside `git pack-refs`:
//! they read the packed refs before they take the locks, and let go of packed-refs.lock before the
//! loose file is gone. Refs in the reftable format, which gix would misread, are left to `git`
//! (`backend`, and `store/git_process`); all else is the same there.

mod backend;
mod delete;
pub mod doctor;
mod fenced;
mod lockfile;
mod looks;
mod loose;
mod objects;
pub(super) mod open;
mod packed;
mod recent;
mod refs;
mod shared;
mod sweep;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    clock::{Clock, SystemClock},
    error::Result,
    lock::fault::Faults,
    name::RefName,
    ref_update::RefUpdates,
    store::{
        NewValue, Object, Oid, RefEdit, RefStore, Swept, Transacted, Watch,
        git_process::{Git, GitRefs},
        object,
    },
};

pub use lockfile::LockFileReport;

use lockfile::LockRules;
use packed::PackedRefs;

/// How often an object is written again that is pruned while it is being read.
const PRUNED_AGAIN: u32 = 5;

/// How the files store treats the repository.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// Sync objects, refs and folders to disk, which Git by default does not. Without it locks
    /// survive crashes of processes, not of the machine. Default: false.
    pub durable: bool,
    /// How old one of Git's own `.lock` files must be before it counts as left behind. Default:
    /// ten minutes.
    pub stale_lock_age: Duration,
    /// How long to wait for a `.lock` file that somebody holds. Default: ten seconds.
    pub lock_timeout: Duration,
    /// How long a superseded object stays, for those who may be reading it. Default: ten minutes.
    pub sweep_grace: Duration,
    /// Whether `GIT_DIR` and its kin are heeded, as a Git command does. Default: false.
    pub environment: bool,
    /// Time. Default: the machine's.
    pub clock: Arc<dyn Clock>,
    /// Steps left out by a test.
    pub faults: Faults,
}

impl Default for FilesOptions {
    fn default() -> FilesOptions {
        FilesOptions {
            durable: false,
            stale_lock_age: Duration::from_secs(600),
            lock_timeout: Duration::from_secs(10),
            sweep_grace: Duration::from_secs(600),
            environment: false,
            clock: Arc::new(SystemClock),
            faults: Faults::NONE,
        }
    }
}

/// The refs and objects of a repository on this machine.
pub struct FilesStore {
    common_dir: PathBuf,
    hash: gix::hash::Kind,
    loose: gix::odb::loose::Store,
    packs: Mutex<objects::Packs>,
    packed: PackedRefs,
    rules: LockRules,
    sweep: sweep::Spool,
    recent: recent::Recent,
    settings: Settings,
    /// What is left to a `git` program: changes of other refs,
    git: Git,
    /// and the refs themselves, where they aren't files.
    git_refs: GitRefs,
    seen: backend::Seen,
    /// The process generation that opened it: a forked child must leave it alone.
    generation: u64,
}

/// What the repository's configuration says about locks, where the caller said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `gitlock.prefix`.
    pub prefix: Option<String>,
    /// `gitlock.keep`.
    pub keep: Option<u32>,
    /// `gitlock.durable`.
    pub durable: Option<bool>,
    /// `gitlock.staleLockAge`, in milliseconds.
    pub stale_lock_age_ms: Option<u64>,
    /// `gitlock.maxClockSkew`, in milliseconds.
    pub max_clock_skew_ms: Option<u64>,
    /// `gitlock.remote`.
    pub remote: Option<String>,
}

impl FilesStore {
    /// The folder that all worktrees of the repository share.
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// What the repository's configuration says.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A path in gitlock's own folder, which is made if it isn't there.
    fn state_file(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.common_dir.join("gitlock");
        let path = folder.join(name);
        if !folder.is_dir() {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => self.rules.shared.path(&folder),
            }
        }
        Ok(path)
    }

    /// Opens a file in gitlock's own folder, which every user of the repository may write.
    fn open_state_file(&self, name: &str, options: &fs::OpenOptions) -> io::Result<fs::File> {
        let file = options.open(self.state_file(name)?)?;
        // Another user's file can't be changed, and needn't be.
        let _ = self.rules.shared.file(&file);
        Ok(file)
    }

    /// Opens one of gitlock's own notes, locked against every other process. Never waits long: what
    /// is noted is only good to have, and whoever holds it may be stopped.
    fn lock_notes(&self, name: &str) -> io::Result<LockedNotes> {
        let options = fs::File::options().create(true).truncate(false).read(true).write(true).clone();
        for round in 0..10 {
            // A child that inherited the descriptor would keep the lock for as long as it lives.
            let no_fork = crate::fork::NoFork::enter();
            let file = self.open_state_file(name, &options)?;
            if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(LockedNotes { file, _no_fork: no_fork });
            }
            drop(file);
            drop(no_fork);
            self.rules.clock.pause(Duration::from_micros(50 << (round / 2)));
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Writes the edits' objects. The caller holds the refs' locks and has compared them, so that a
    /// conflict leaves no object behind: one that a lost race wrote may be the very commit that the
    /// winner wrote, and must not be swept.
    fn write_objects(&self, edits: &[RefEdit]) -> Result<Vec<Option<Oid>>> {
        let mut ids = Vec::with_capacity(edits.len());
        for edit in edits {
            let mut last = None;
            for object in edit.new.iter().flat_map(|value| object::encode(value, self.hash)) {
                self.write_object(&object)?;
                self.recent.note(self, &edit.name, &object);
                last = Some(object.id);
            }
            ids.push(last);
        }
        Ok(ids)
    }
}

/// Notes that no other process can touch while this lives.
struct LockedNotes {
    file: fs::File,
    // Last, so that the descriptor is closed before a fork may go on.
    _no_fork: crate::fork::NoFork,
}

impl RefStore for FilesStore {
    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        self.read_ref(name)
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        let mut found = self.read_object(id)?;
        for _ in 0..PRUNED_AGAIN {
            if found != Object::Missing {
                break;
            }
            // Whether this process writes it again or another does at the same moment: look again.
            if !self.recent.restore_one(self, id) {
                break;
            }
            found = self.read_object(id)?;
        }
        Ok(found)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        self.list_refs(prefix)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        Ok(self.swap(edits, &[], &self.rules)?.0)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact_within(&self, edits: &[RefEdit], patience: Duration) -> Result<Transacted> {
        Ok(self.swap(edits, &[], &self.rules.within(Some(patience)))?.0)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact_beside(
        &self,
        edits: &[RefEdit],
        unmoved: &[(RefName, Oid)],
        patience: Option<Duration>,
    ) -> Result<(Transacted, bool)> {
        self.swap(edits, unmoved, &self.rules.within(patience))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact_with(&self, edits: &[RefEdit], others: &RefUpdates) -> Result<Transacted> {
        self.swap_with(edits, others)
    }

    fn restore(&self, value: &NewValue) -> Result<bool> {
        let mut any = false;
        for object in object::encode(value, self.hash) {
            if !self.has_object(&object.id) {
                self.write_object(&object)?;
                any = true;
            }
        }
        Ok(any)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        watch::start(&self.common_dir, prefix, &self.rules)
    }

    fn superseded(&self, objects: &[Oid]) {
        self.sweep.note(self, objects);
    }

    fn sweep(&self, grace: Option<Duration>) -> Result<Swept> {
        // Somebody takes the time to tidy up: all that a prune may have taken, then, and not only the newest.
        self.recent.restore_from(self, looks::Window::EVERYTHING);
        self.sweep.run(self, grace)
    }

    fn tend(&self) {
        self.recent.restore_all(self);
        self.sweep.flush(self);
    }

    fn unchanged_for(&self, name: &RefName, id: &Oid) -> Option<u64> {
        recent::sighting(self, name, id)
    }

    fn location(&self) -> String {
        self.common_dir.display().to_string()
    }
}

impl std::fmt::Debug for FilesStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesStore").field("common_dir", &self.common_dir).finish_non_exhaustive()
    }
}

/// Widens the gap between two steps, so that a test meets the race on purpose.
#[cfg(feature = "faults")]
fn pause_for_tests(rules: &LockRules) {
    if rules.faults != Faults::NONE {
        rules.clock.pause(Duration::from_millis(2));
    }
}
