//! Looking for what crashes of processes and machines leave behind, and clearing it away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    name::RefName,
    store::RefStore,
};

use super::{
    FilesStore,
    backend::Format,
    delete,
    lockfile::{self, LockFileReport},
};

/// Something that was left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A `.lock` file.
    LockFile(LockFileReport),
    /// A file that a killed process was still writing.
    Temporary {
        /// The file.
        path: PathBuf,
    },
    /// A ref without an object id in it.
    TornRef {
        /// The ref.
        name: String,
    },
}

impl FilesStore {
    /// Looks for what was left behind below these ref prefixes and around packed-refs.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn leftovers(&self, prefixes: &[&str]) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let packed_lock = lockfile::lock_path(self.packed.path());
        found.extend(lockfile::report(&packed_lock, &self.rules).map(Leftover::LockFile));
        // Only whoever holds packed-refs.lock may be writing this.
        let packed_new = self.packed.path().with_file_name("packed-refs.new");
        if packed_new.exists() && !packed_lock.exists() {
            found.push(Leftover::Temporary { path: packed_new });
        }
        if !packed_lock.exists() {
            let ours = fs::read_dir(self.common_dir.join("gitlock")).into_iter().flatten().flatten();
            let temporary = ours.filter(|entry| entry.file_name().to_string_lossy().starts_with(delete::TEMPORARY));
            found.extend(temporary.map(|entry| Leftover::Temporary { path: entry.path() }));
        }
        if self.format(self.rules.timeout)? == Format::Reftable {
            let locks = fs::read_dir(self.git_refs.folder()).into_iter().flatten().flatten();
            let locks =
                locks.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "lock"));
            found.extend(locks.filter_map(|path| lockfile::report(&path, &self.rules)).map(Leftover::LockFile));
            return Ok(found);
        }
        for prefix in prefixes {
            self.look_through(&self.common_dir.join(prefix), prefix, &mut found)?;
        }
        Ok(found)
    }

    fn look_through(&self, folder: &Path, name: &str, found: &mut Vec<Leftover>) -> Result<()> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let (path, file) = (entry.path(), entry.file_name());
            let file = file.to_string_lossy();
            let full = format!("{name}/{file}");
            if path.is_dir() {
                self.look_through(&path, &full, found)?;
            } else if file.ends_with(".lock") {
                found.extend(lockfile::report(&path, &self.rules).map(Leftover::LockFile));
            } else if file.starts_with(".gitlock-") {
                found.push(Leftover::Temporary { path });
            } else if self.read(&RefName::foreign(&*full)).is_err_and(|error| error.code() == ErrorCode::RecordCorrupt)
            {
                found.push(Leftover::TornRef { name: full });
            }
        }
        Ok(())
    }

    /// Clears away what can be cleared away safely. Returns whether it is gone.
    ///
    /// A `.lock` file goes unless its owner provably lives; call this for one of Git's own only
    /// when no Git command is running.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn clear(&self, leftover: &Leftover) -> Result<bool> {
        match leftover {
            Leftover::LockFile(report) => lockfile::remove_by_hand(&report.path, &self.rules),
            Leftover::Temporary { path } => match fs::remove_file(path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
                Err(error) => Err(Error::io(format_args!("can't remove {}", path.display()), error)),
            },
            Leftover::TornRef { name } => self.heal_torn(&RefName::foreign(name.as_str()), true),
        }
    }
}
