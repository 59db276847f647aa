//! Objects, read and written by gix.

use std::{os::unix::fs::PermissionsExt, sync::PoisonError};

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

use super::{FilesStore, lockfile};

impl FilesStore {
    pub(super) fn write_object(&self, object: &Encoded) -> Result<()> {
        let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        for _ in 0..100 {
            match self.write_object_once(object) {
                // `git prune` and `git gc` remove the folders they find empty, at any time: between
                // making one and putting the object there, too.
                Err((_, Some(cause))) if gone(&cause) && self.loose.path().is_dir() => {}
                Err((what, Some(cause))) => return Err(Error::io(what, cause)),
                Err((what, None)) => return Err(Error::new(ErrorCode::Io, what)),
                Ok(()) => return Ok(()),
            }
        }
        Err(Error::new(
            ErrorCode::Io,
            format!(
                "can't write an object to {}: its folders vanish as soon as they are made",
                self.loose.path().display()
            ),
        ))
    }

    /// What went wrong, in words, and the I/O error behind it.
    fn write_object_once(&self, object: &Encoded) -> std::result::Result<(), (String, Option<std::io::Error>)> {
        let id = object::to_gix(&object.id);
        let written = self.loose.write_buf_with_known_id(object.kind, &object.bytes, id);
        written.map_err(|error| {
            let what = format!("can't write an object to {}", self.loose.path().display());
            match io_cause(&error) {
                Some(cause) => (what, Some(cause)),
                None => (format!("{what}: {error}"), None),
            }
        })?;
        if self.rules.shared == 0 && !self.rules.durable {
            return Ok(());
        }
        let path = self.loose.object_path(&id);
        let done = (|| {
            if self.rules.shared != 0 {
                // gix leaves permissions to the umask; other users of the repository must be able
                // to read the object, and to write into the folder that may have been made for it.
                let read = self.rules.shared & 0o444;
                let mode = std::fs::metadata(&path)?.permissions().mode() | read;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
                if let Some(folder) = path.parent() {
                    let mode =
                        std::fs::metadata(folder)?.permissions().mode() | self.rules.shared | (read >> 2) | 0o2000;
                    // Another user's folder can't be changed, and needn't be.
                    let _ = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode));
                }
            }
            if self.rules.durable {
                std::fs::File::open(&path)?.sync_all()?;
                lockfile::sync_parent(&path)?;
            }
            Ok(())
        })();
        done.map_err(|error| (format!("can't finish the object {}", path.display()), Some(error)))
    }

    pub(super) fn has_object(&self, id: &Oid) -> bool {
        if !self.is_of_this_hash(id) {
            return false;
        }
        let id = object::to_gix(id);
        self.loose.contains(&id) || self.odb().exists(&id)
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
                Ok(None) => match gix::prelude::Find::try_find(&*self.odb(), &id, &mut bytes) {
                    Ok(found) => found.is_some(),
                    Err(error) => return Ok(Object::Unusable(format!("it is damaged: {error}"))),
                },
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

    fn header(&self, id: &gix::oid) -> std::result::Result<Option<(gix::objs::Kind, u64)>, String> {
        match self.loose.try_header(id) {
            Ok(Some((size, kind))) => return Ok(Some((kind, size))),
            Ok(None) => {}
            Err(error) => return Err(format!("it is damaged: {error}")),
        }
        match gix::prelude::Header::try_header(&*self.odb(), id) {
            Ok(header) => Ok(header.map(|header| (header.kind(), header.size()))),
            Err(error) => Err(format!("it is damaged: {error}")),
        }
    }

    fn odb(&self) -> std::sync::MutexGuard<'_, gix::odb::Handle> {
        self.odb.lock().unwrap_or_else(PoisonError::into_inner)
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
