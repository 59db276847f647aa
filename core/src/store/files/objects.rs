//! Objects, read and written by gix, but for small ones, which `loose` writes.

use std::{
    cell::RefCell,
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::PoisonError,
};

use gix::objs::{Exists as _, Write as _};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    lock::record::MAX_RECORD_BYTES,
    store::{
        Object, Oid,
        object::{self, Encoded},
    },
};

use super::{FilesStore, lockfile, loose};

type Odb = gix::odb::Handle;

/// What the object database has, or what is wrong with it.
type Answer<T> = std::result::Result<Option<T>, String>;

impl FilesStore {
    pub(super) fn write_object(&self, object: &Encoded) -> Result<()> {
        let id = object::to_gix(&object.id);
        let path = self.loose.object_path(&id);
        let mut tries = 0;
        while !loose::write_small(&path, object) {
            let Err(error) = self.loose.write_buf_with_known_id(object.kind, &object.bytes, id) else { break };
            let what = format!("can't write an object to {}", self.loose.path().display());
            let Some(cause) = io_cause(&error) else {
                return Err(Error::new(ErrorCode::Io, format!("{what}: {error}")));
            };
            // `git prune` and `git gc` remove empty folders at any time, also between gix's making
            // one and putting the object there.
            tries += 1;
            if cause.kind() != std::io::ErrorKind::NotFound || tries > 100 {
                return Err(Error::io(what, cause));
            }
        }
        if self.rules.shared.is_off() && !self.rules.durable {
            return Ok(());
        }
        let done: std::io::Result<()> = (|| {
            // gix leaves permissions to the umask; other users of the repository must be able to
            // read the object, and to write into the folder that may have been made for it.
            self.rules.shared.path(&path);
            path.parent().into_iter().for_each(|folder| self.rules.shared.path(folder));
            if self.rules.durable {
                std::fs::File::open(&path)?.sync_all()?;
                lockfile::sync_parent(&path)?;
            }
            Ok(())
        })();
        done.map_err(|error| Error::io(format_args!("can't finish the object {}", path.display()), error))
    }

    pub(super) fn has_object(&self, id: &Oid) -> bool {
        if !self.is_of_this_hash(id) {
            return false;
        }
        let id = object::to_gix(id);
        self.loose.contains(&id) || matches!(self.ask_odb(|odb| Ok(odb.exists(&id).then_some(()))), Ok(Some(())))
    }

    /// Which of these aren't there. Asks the whole database once for all that aren't loose.
    pub(super) fn missing(&self, ids: impl Iterator<Item = Oid>) -> HashSet<Oid> {
        let not_loose: HashSet<Oid> = ids.filter(|id| !self.loose.contains(&object::to_gix(id))).collect();
        if not_loose.is_empty() {
            return not_loose;
        }
        let missing = RefCell::new(not_loose.clone());
        let ask = |odb: &Odb| {
            let gone = not_loose.iter().filter(|id| !odb.exists(&object::to_gix(id)));
            missing.replace(gone.copied().collect());
            Ok(missing.borrow().is_empty().then_some(()))
        };
        // What can't be asked counts as missing; whoever writes an object again looks once more.
        let _ = self.ask_odb(ask);
        missing.into_inner()
    }

    pub(super) fn read_object(&self, id: &Oid) -> Result<Object> {
        if !self.is_of_this_hash(id) {
            return Ok(Object::Missing);
        }
        let (id, mut bytes) = (object::to_gix(id), Vec::new());
        // Nearly always loose; the whole database, packs and alternates too, only otherwise. Twice,
        // because `git repack` moves objects from the one to the other between two looks.
        for _ in 0..2 {
            let (kind, size) = match self.header(&id) {
                Ok(Some(header)) => header,
                Ok(None) => continue,
                Err(damaged) => return Ok(Object::Unusable(damaged)),
            };
            if size > MAX_RECORD_BYTES as u64 {
                return Ok(Object::Unusable(format!("it is larger than {MAX_RECORD_BYTES} bytes")));
            }
            if !matches!(kind, gix::objs::Kind::Blob | gix::objs::Kind::Commit) {
                return Ok(Object::Unusable(format!("it is a {kind}")));
            }
            let found = match self.loose.try_find(&id, &mut bytes) {
                Ok(Some(_)) => true,
                Ok(None) => {
                    let find = |odb: &Odb| {
                        let mut packed = Vec::new();
                        let found =
                            gix::prelude::Find::try_find(odb, &id, &mut packed).map_err(|error| error.to_string())?;
                        Ok(found.is_some().then_some(packed))
                    };
                    match self.ask_odb(find) {
                        Ok(Some(packed)) => {
                            bytes = packed;
                            true
                        }
                        Ok(None) => false,
                        Err(error) => return Ok(Object::Unusable(format!("it is damaged: {error}"))),
                    }
                }
                Err(error) => return Ok(Object::Unusable(format!("it is damaged: {error}"))),
            };
            if !found {
                continue;
            }
            return Ok(match kind {
                gix::objs::Kind::Blob => Object::Blob(bytes),
                _ => match object::parse_commit(&bytes, self.hash) {
                    Ok(commit) => Object::Commit(Box::new(commit)),
                    Err(why) => Object::Unusable(why),
                },
            });
        }
        Ok(Object::Missing)
    }

    fn header(&self, id: &gix::oid) -> Answer<(gix::objs::Kind, u64)> {
        match self.loose.try_header(id) {
            Ok(Some((size, kind))) => return Ok(Some((kind, size))),
            Ok(None) => {}
            Err(error) => return Err(format!("it is damaged: {error}")),
        }
        let header = |odb: &Odb| {
            let header = gix::prelude::Header::try_header(odb, id).map_err(|error| error.to_string())?;
            Ok(header.map(|header| (header.kind(), header.size())))
        };
        self.ask_odb(header).map_err(|error| format!("it is damaged: {error}"))
    }

    /// Asks the whole database, packs and alternates too.
    ///
    /// It is opened anew when packs have come or gone, since what was in a pack that is gone may be
    /// gone, and when it hasn't what is asked for. gix would follow the packs by itself; but beside
    /// `git repack` gix 0.90 can panic over it (gix-odb's `consolidate_with_disk_state`), or run out
    /// of slots for them. A database that never looks at the folder again does neither.
    fn ask_odb<T>(&self, ask: impl Fn(&Odb) -> Answer<T>) -> Answer<T> {
        // What a panic leaves half-done in the database is thrown away with it.
        let guarded = |odb: &Odb| {
            catch_unwind(AssertUnwindSafe(|| ask(odb))).unwrap_or_else(|_| Err("gix panicked over it".to_owned()))
        };
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        if packs.as_of.is_some()
            && packs.as_of == self.packs_changed()
            && let Ok(Some(found)) = guarded(&packs.odb)
        {
            return Ok(Some(found));
        }
        let mut anew = || {
            // Looked at before, so that what changes meanwhile shows the next time.
            let as_of = self.packs_changed();
            let fresh = Packs::open(self.loose.path(), self.hash).map_err(|error| error.to_string())?;
            *packs = Packs { as_of, ..fresh };
            guarded(&packs.odb)
        };
        anew().or_else(|error| {
            tracing::warn!(error, "the object database is opened again");
            anew()
        })
    }

    /// When packs last came or went; `None` if that is too short a while ago for the file system's
    /// clock to tell the next change from it.
    fn packs_changed(&self) -> Option<u64> {
        let modified = std::fs::metadata(self.loose.path().join("pack")).and_then(|meta| meta.modified()).ok()?;
        let modified = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        let settled = crate::clock::millis(modified).saturating_add(2_000) < self.rules.clock.now().wall;
        u64::try_from(modified.as_nanos()).ok().filter(|_| settled)
    }
}

/// The object database as of a moment: it knows the packs that there were when it was first asked.
pub(super) struct Packs {
    odb: Odb,
    as_of: Option<u64>,
}

impl Packs {
    pub(super) fn open(folder: &Path, hash: gix::hash::Kind) -> std::io::Result<Packs> {
        let mut odb = gix::odb::at(folder, hash)?;
        odb.refresh_never();
        Ok(Packs { odb, as_of: None })
    }
}

/// The I/O error at the root of one of gix's, rebuilt, since it can't be moved out.
fn io_cause(error: &(dyn std::error::Error + 'static)) -> Option<std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.raw_os_error().map_or_else(|| io.kind().into(), std::io::Error::from_raw_os_error));
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::files::FilesOptions;

    #[test]
    fn a_panic_in_the_object_database_is_asked_again_in_a_fresh_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(std::process::Command::new("git").args(["init", "-q"]).arg(dir.path()).status().unwrap().success());
        let store = FilesStore::open(dir.path(), &FilesOptions::default()).unwrap();
        let asked = Cell::new(0);
        let once = |_: &Odb| {
            asked.set(asked.get() + 1);
            assert!(asked.get() > 1, "as gix does");
            Ok(Some(asked.get()))
        };
        assert_eq!(store.ask_odb(once), Ok(Some(2)));
        let always = |_: &Odb| -> Answer<()> { panic!("for ever") };
        assert!(store.ask_odb(always).unwrap_err().contains("gix panicked"));
        assert!(!store.has_object(&Oid::from_bytes(&[1; 20]).unwrap()));
    }
}
