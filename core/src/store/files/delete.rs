//! Deleting a ref so that a concurrent `git pack-refs` can't bring it back.
//!
//! `git pack-refs` takes packed-refs.lock, reads loose refs *without* their locks, writes what it
//! read to a new packed-refs, renames that into place, and only then lets packed-refs.lock go. If
//! it reads our ref just before we unlink it, it writes the ref into packed-refs after we have
//! looked there, and the ref is back.
//!
//! *Slow and sure* is Git's own way: hold packed-refs.lock across the unlink.
//!
//! *Fast* takes no second lock. Under the ref's own lock, having found the ref not packed in the
//! file whose descriptor is kept open, unlink it; then, **first**, packed-refs.lock is absent;
//! **then**, the path is still that very file. Why that is enough: a pack-refs that read our ref
//! read it before the unlink, so it had taken packed-refs.lock before. If the lock is absent
//! afterwards, that pack-refs has finished, renames included. So if the path is still the file
//! that was read under the ref's lock, whatever finished did so before that read, and the read
//! saw its outcome. The order is the proof: looked at the other way round, a pack-refs may rename
//! and let go between the two looks. The tests seed the swapped order, and each look left out.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    lock::fault::Fault,
    name::RefName,
    store::Oid,
};

use super::{
    FilesStore,
    lockfile::{LockFile, LockRules, lock_path, sync_parent},
    packed::Packed,
};

/// What the name of a packed-refs in the making starts with, in gitlock's own folder.
pub(super) const TEMPORARY: &str = "packed-refs.";

/// How the refs of one transaction are going to be deleted.
pub(super) enum Way {
    /// With packed-refs.lock held; `None` where a test leaves that out.
    Slow(#[expect(dead_code, reason = "held, never looked at")] Option<LockFile>),
    /// Without it, against this reading of packed-refs.
    Fast(Packed),
}

impl FilesStore {
    /// Chooses the way, the same for all of them, and takes what it needs, before anything is
    /// changed. The caller holds the refs' own locks and goes on holding them.
    pub(super) fn prepare_deletes<'a>(
        &self,
        mut names: impl Iterator<Item = &'a RefName>,
        stale: Option<&Packed>,
        rules: &LockRules,
    ) -> Result<Way> {
        let packed = match stale {
            Some(stale) => stale.clone(),
            None => self.packed.read()?,
        };
        let path = self.packed.path();
        if names.all(|name| packed.find(name.as_str()).is_none())
            && (!exists(&lock_path(path)) || self.rules.faults.has(Fault::FastDeleteIgnoresLock))
        {
            return Ok(Way::Fast(packed));
        }
        if self.rules.faults.has(Fault::SlowDeleteWithoutLock) {
            return Ok(Way::Slow(None));
        }
        LockFile::acquire(path, rules).map(|lock| Way::Slow(Some(lock)))
    }

    /// Deletes the ref whose lock is given, and gives the lock back.
    pub(super) fn delete(&self, name: &RefName, was: Option<Oid>, way: &Way, lock: LockFile) -> Result<()> {
        let loose = self.path_of(name);
        let packed = match way {
            Way::Slow(_) => {
                self.drop_packed(name)?;
                #[cfg(feature = "faults")]
                super::pause_for_tests(&self.rules);
                return self.unlink(&loose);
            }
            Way::Fast(packed) => packed,
        };
        #[cfg(feature = "faults")]
        super::pause_for_tests(&self.rules);
        self.unlink(&loose)?;
        #[cfg(feature = "faults")]
        super::pause_for_tests(&self.rules);
        if self.nothing_was_packed(packed) {
            return Ok(());
        }
        // The ref may have come back. Its own lock is still held, so nobody acts on it.
        let sure = LockFile::acquire(self.packed.path(), &self.rules).and_then(|_packed_lock| self.drop_packed(name));
        if let (Err(error), Some(was)) = (&sure, was) {
            // Better still there, as everybody believes it is, than perhaps back later.
            let restored =
                lock.write(format!("{was}\n").as_bytes(), &self.rules).and_then(|()| lock.commit(&self.rules));
            tracing::warn!(name = %name, %error, restored = restored.is_ok(), "a ref could not be deleted for certain");
        }
        sure
    }

    fn nothing_was_packed(&self, read: &Packed) -> bool {
        let faults = self.rules.faults;
        let lock_absent = || faults.has(Fault::FastDeleteIgnoresLock) || !exists(&lock_path(self.packed.path()));
        let unchanged = || faults.has(Fault::FastDeleteIgnoresPacked) || self.packed.is_still(read);
        if faults.has(Fault::FastDeleteSwapped) {
            let unchanged = unchanged();
            #[cfg(feature = "faults")]
            super::pause_for_tests(&self.rules);
            unchanged && lock_absent()
        } else {
            let absent = lock_absent();
            #[cfg(feature = "faults")]
            super::pause_for_tests(&self.rules);
            absent && unchanged()
        }
    }

    fn unlink(&self, loose: &Path) -> Result<()> {
        let context = |error| Error::io(format_args!("can't delete {}", loose.display()), error);
        match fs::remove_file(loose) {
            Ok(()) => {}
            // Packed only, and its place may even be an empty folder.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(context(error)),
        }
        if self.rules.durable { sync_parent(loose).map_err(context) } else { Ok(()) }
    }

    /// Takes a ref out of packed-refs. The caller holds packed-refs.lock.
    fn drop_packed(&self, name: &RefName) -> Result<()> {
        let Some(content) = self.packed.read()?.without(name.as_str()) else { return Ok(()) };
        #[cfg(feature = "faults")]
        super::pause_for_tests(&self.rules);
        let path = self.packed.path();
        let context = |error| Error::io(format_args!("can't rewrite {}", path.display()), error);
        // Git makes this file with O_EXCL and so fails for ever where a kill left one behind.
        // Whoever holds packed-refs.lock is alone here, so one that exists was left behind.
        let mut leftover = path.as_os_str().to_owned();
        leftover.push(".new");
        let _ = fs::remove_file(PathBuf::from(leftover));
        let new = self.state_file(&format!("{TEMPORARY}{}", uuid::Uuid::new_v4())).map_err(context)?;
        let written = fs::metadata(path)
            .and_then(|meta| fs::write(&new, &content).and_then(|()| fs::set_permissions(&new, meta.permissions())))
            .and_then(|()| if self.rules.durable { fs::File::open(&new)?.sync_all() } else { Ok(()) })
            .and_then(|()| fs::rename(&new, path))
            .and_then(|()| if self.rules.durable { sync_parent(path) } else { Ok(()) });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.map_err(context)
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
