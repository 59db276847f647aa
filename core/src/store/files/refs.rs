//! Refs by Git's own files-backend protocol: reading, and compare-and-swap.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    lock::fault::Fault,
    name::RefName,
    store::{Oid, RefEdit, Transacted},
};

use super::{
    FilesStore,
    lockfile::{self, LockFile, LockRules},
    packed::Packed,
};

/// What stands in a loose ref's place.
#[derive(Debug, PartialEq, Eq)]
enum Loose {
    Absent,
    Is(Oid),
    /// A folder: empty, or with nested refs in it.
    Folder,
    /// `ref: …`
    Symbolic(String),
    /// Cut off by a crash of the machine, or damaged.
    Torn,
}

fn read_loose(path: &Path) -> io::Result<Loose> {
    // A symbolic link is an old form of symbolic ref; and a pipe must not make anybody wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = match rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from) {
        Ok(file) => File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loose::Absent),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Ok(Loose::Symbolic(fs::read_link(path)?.display().to_string()));
        }
        Err(error) => return Err(error),
    };
    // Longer than any object id; a symbolic ref's target is only wanted for a message.
    let mut buffer = [0u8; 256];
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(count) => {
                length += count;
                // A file that gives less than was asked for has no more.
                if length < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(Loose::Folder),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let content = &buffer[..length];
    if let Some(target) = content.strip_prefix(b"ref:") {
        return Ok(Loose::Symbolic(String::from_utf8_lossy(target).trim().to_owned()));
    }
    // Git too reads the digits and ignores what follows white space.
    let digits = content.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    Ok(Oid::from_hex(digits).map_or(Loose::Torn, Loose::Is))
}

impl FilesStore {
    pub(super) fn path_of(&self, name: &RefName) -> PathBuf {
        self.common_dir.join(name.as_str())
    }

    /// What a ref points at. `packed` is looked at if it isn't loose.
    fn look_up(&self, name: &RefName, packed: impl FnOnce() -> Result<Packed>) -> Result<Option<Oid>> {
        self.look_closely(name, packed).map(|(id, _)| id)
    }

    /// Also tells whether a folder is in the ref's place.
    fn look_closely(&self, name: &RefName, packed: impl FnOnce() -> Result<Packed>) -> Result<(Option<Oid>, bool)> {
        let path = self.path_of(name);
        match read_loose(&path) {
            Ok(Loose::Is(id)) => Ok((Some(self.check_hash(name, id)?), false)),
            Ok(loose @ (Loose::Absent | Loose::Folder)) => {
                let id = packed()?.find(name.as_str()).map(|id| self.check_hash(name, id)).transpose()?;
                Ok((id, loose == Loose::Folder))
            }
            Ok(Loose::Symbolic(target)) => Err(Error::new(
                ErrorCode::NameBlocked,
                format!(
                    "{name} is a symbolic ref to {target:?}, and a lock is none; delete it with `git symbolic-ref -d {name}`"
                ),
            )),
            Ok(Loose::Torn) => Err(Error::new(
                ErrorCode::RecordCorrupt,
                format!("{name} is damaged: its file holds no object id; `git lock doctor` tells what to do"),
            )),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(lockfile::blocked(&path)),
            Err(error) => Err(Error::io(format_args!("can't read {}", path.display()), error)),
        }
    }

    pub(super) fn is_of_this_hash(&self, id: &Oid) -> bool {
        id.as_bytes().len() == self.hash.len_in_bytes()
    }

    fn check_hash(&self, name: &RefName, id: Oid) -> Result<Oid> {
        if self.is_of_this_hash(&id) {
            return Ok(id);
        }
        Err(Error::new(
            ErrorCode::RecordCorrupt,
            format!("{name} holds an object id of the other hash; delete the ref, it can't be of this repository"),
        ))
    }

    pub(super) fn read_file(&self, name: &RefName) -> Result<Option<Oid>> {
        match self.look_up(name, || self.packed.read()) {
            Err(error) if error.code() == ErrorCode::RecordCorrupt && self.heal_torn(name, false)? => {
                self.read_file(name)
            }
            done => done,
        }
    }

    /// Removes a ref file without an object id in it, if a crash of the machine explains it or a
    /// person says so. What the ref was before, if that was packed, shows again. Returns whether
    /// there is something else in its place now.
    pub(super) fn heal_torn(&self, name: &RefName, by_hand: bool) -> Result<bool> {
        let path = self.path_of(name);
        let explained = |path: &Path| {
            use std::os::unix::fs::MetadataExt;
            let Ok(meta) = fs::metadata(path) else { return false };
            let modified = u64::try_from(meta.mtime()).unwrap_or(0).saturating_mul(1_000);
            by_hand || lockfile::is_older_than_boot(path, modified, &self.rules.cautious_now())
        };
        let torn = || matches!(read_loose(&path), Ok(Loose::Torn));
        if !torn() || !explained(&path) {
            return Ok(false);
        }
        let _lock = LockFile::acquire(&path, &self.rules)?;
        if !torn() || !explained(&path) {
            return Ok(true);
        }
        tracing::warn!(name = %name, "removing a ref that a crash of the machine left without an object id");
        fs::remove_file(&path).map_err(|error| Error::io(format_args!("can't remove {}", path.display()), error))?;
        Ok(true)
    }

    /// Every ref below `prefix`, loose over packed.
    pub(super) fn list_files(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        // Loose first, with their values: what is packed meanwhile is then found packed.
        let mut names = Vec::new();
        collect(&self.common_dir.join(prefix), prefix, &mut names)?;
        let mut loose = Vec::with_capacity(names.len());
        for name in names {
            let name = RefName::foreign(name);
            loose.push((self.look_up(&name, || Ok(Packed::Absent)), name));
        }
        let packed = self.packed.read()?;
        let below = format!("{prefix}/");
        let mut found = std::collections::BTreeMap::new();
        for (name, id) in packed.below(&below) {
            let name = RefName::foreign(name);
            loose.push((self.check_hash(&name, id).map(Some), name));
        }
        for (value, name) in loose {
            match value {
                Ok(Some(id)) => drop(found.entry(name).or_insert(Some(id))),
                // Packed or deleted since it was seen.
                Ok(None) => {}
                // `doctor` tells of damaged ones; a list of locks must not fail for one of them.
                Err(error) if matches!(error.code(), ErrorCode::RecordCorrupt | ErrorCode::NameBlocked) => {
                    tracing::warn!(%error, "a ref is left out of the list");
                    found.entry(name).or_insert(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found.into_iter().filter_map(|(name, id)| Some((name, id?))).collect())
    }

    // ------------------------------------------------------------ compare-and-swap

    /// Makes all edits if their refs are as expected, and those that are to be `unmoved`, which are looked at under
    /// the edits' locks.
    pub(super) fn swap_files(
        &self,
        edits: &[RefEdit],
        unmoved: &[(RefName, Oid)],
        rules: &LockRules,
    ) -> Result<Transacted> {
        let stale_packed =
            if self.rules.faults.has(Fault::PackedReadBeforeLock) { Some(self.packed.read()?) } else { None };
        // Every ref's lock first, in the order of their names, as Git does: two transactions over
        // the same refs then wait for each other instead of holding one each.
        let mut order: Vec<usize> = (0..edits.len()).collect();
        order.sort_by(|a, b| edits[*a].name.cmp(&edits[*b].name));
        let mut locks: Vec<Option<LockFile>> = edits.iter().map(|_| None).collect();
        for at in order {
            locks[at] = Some(LockFile::acquire(&self.path_of(&edits[at].name), rules)?);
        }
        let mut folders = Vec::new();
        // Once is enough: every ref is locked now, so the value of none of them changes, packed or not.
        let read_packed = RefCell::new(stale_packed.clone());
        let packed = || match &mut *read_packed.borrow_mut() {
            Some(packed) => Ok(packed.clone()),
            none => self.packed.read().map(|packed| none.insert(packed).clone()),
        };
        for edit in edits {
            let (current, folder) = self.look_closely(&edit.name, packed)?;
            if current != edit.expected && !self.rules.faults.has(Fault::NoCompare) {
                return Ok(Transacted::Conflict);
            }
            if folder {
                folders.push(&edit.name);
            }
        }
        for (name, id) in unmoved {
            if self.look_up(name, packed)? != Some(*id) {
                return Ok(Transacted::Conflict);
            }
        }
        for edit in edits.iter().filter(|edit| edit.new.is_some()) {
            self.make_way(edit, packed, folders.contains(&&edit.name))?;
        }
        // What can fail for want of space or of packed-refs.lock, before anything is changed.
        let new = self.write_objects(edits)?;
        for ((edit, lock), new) in edits.iter().zip(&locks).zip(&new) {
            if let (Some(lock), Some(id)) = (lock, new) {
                let written = lock.write(format!("{id}\n").as_bytes(), &self.rules);
                written.map_err(|error| Error::io(format_args!("can't write {}.lock", edit.name), error))?;
            }
        }
        let is_delete = |edit: &&RefEdit| edit.new.is_none() && edit.expected.is_some();
        let deletes = edits.iter().any(|edit| is_delete(&edit));
        let names = edits.iter().filter(is_delete).map(|edit| &edit.name);
        let way = deletes.then(|| self.prepare_deletes(names, stale_packed.as_ref(), rules)).transpose()?;
        for (at, edit) in edits.iter().enumerate() {
            let Some(lock) = locks[at].take() else { continue };
            let made = if new[at].is_some() {
                match lock.commit(&self.rules) {
                    // Who took us for dead, or a tool that cleans up, has removed the lock file, and nothing is changed.
                    Err(error) if at == 0 && error.kind() == io::ErrorKind::NotFound => {
                        tracing::warn!(name = %edit.name, "a lock file was removed while it was held; trying again");
                        return Ok(Transacted::Conflict);
                    }
                    made => made.map_err(|error| Error::io(format_args!("can't write {}", edit.name), error)),
                }
            } else if let Some(way) = way.as_ref().filter(|_| is_delete(&edit)) {
                self.delete(&edit.name, edit.expected, way, lock)
            } else {
                Ok(())
            };
            if let Err(error) = made {
                // It may have failed after the rename or the unlink.
                let unchanged =
                    || self.look_up(&edit.name, || self.packed.read()).is_ok_and(|now| now == edit.expected);
                if at == 0 && unchanged() {
                    return Err(error);
                }
                tracing::warn!(%error, name = %edit.name, "a transaction stopped half-way; a fresh read will settle it");
                return Ok(Transacted::Unknown);
            }
        }
        Ok(Transacted::Committed(new))
    }

    /// Sees to it that a ref of this name can exist: removes empty folders in its place, and
    /// refuses if a ref stands above or below it. One that is packed may have such folders too.
    fn make_way(&self, edit: &RefEdit, packed: impl Fn() -> Result<Packed>, folder: bool) -> Result<()> {
        let (name, path) = (&edit.name, self.path_of(&edit.name));
        if edit.expected.is_none() {
            let packed = packed()?;
            if packed.below(&format!("{name}/")).next().is_some() {
                return Err(lockfile::blocked(&path));
            }
            let mut above = name.as_str();
            while let Some((parent, _)) = above.rsplit_once('/').filter(|(parent, _)| parent.contains('/')) {
                if packed.find(parent).is_some() {
                    return Err(lockfile::blocked(&path));
                }
                above = parent;
            }
        }
        if folder {
            remove_empty_folders(&path).map_err(|_| lockfile::blocked(&path))?;
        }
        Ok(())
    }
}

/// The names of the refs that have a file below `folder`.
fn collect(folder: &Path, name: &str, found: &mut Vec<String>) -> Result<()> {
    let context = |error| Error::io(format_args!("can't list {}", folder.display()), error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(context(error)),
    };
    for entry in entries {
        let entry = entry.map_err(context)?;
        let file = entry.file_name();
        // As Git does: hidden files and locks are no refs.
        let Some(file) = file.to_str().filter(|file| !file.starts_with('.') && !file.ends_with(".lock")) else {
            continue;
        };
        let full = format!("{name}/{file}");
        if entry.file_type().map_err(context)?.is_dir() {
            collect(&entry.path(), &full, found)?;
        } else {
            found.push(full);
        }
    }
    Ok(())
}

/// Git may be doing the same at the same time.
fn remove_empty_folders(folder: &Path) -> io::Result<()> {
    let removed = (|| {
        for entry in fs::read_dir(folder)? {
            remove_empty_folders(&entry?.path())?;
        }
        fs::remove_dir(folder)
    })();
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_refs_are_read_as_git_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ref");
        let id = "0123456789012345678901234567890123456789";
        let oid = Oid::from_hex(id.as_bytes()).unwrap();
        for (content, expected) in [
            (format!("{id}\n"), Loose::Is(oid)),
            (id.to_owned(), Loose::Is(oid)),
            (format!("{id} trailing\n"), Loose::Is(oid)),
            ("ref: refs/heads/main\n".to_owned(), Loose::Symbolic("refs/heads/main".to_owned())),
            (String::new(), Loose::Torn),
            ("\0\0\0\0".to_owned(), Loose::Torn),
            (format!("{id}x\n"), Loose::Torn),
        ] {
            fs::write(&path, &content).unwrap();
            assert_eq!(read_loose(&path).unwrap(), expected, "{content:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read_loose(&path).unwrap(), Loose::Absent);
        fs::create_dir(&path).unwrap();
        assert_eq!(read_loose(&path).unwrap(), Loose::Folder);
    }
}
