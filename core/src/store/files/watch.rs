//! Noticing changes of refs: inotify on their folder.

use std::path::Path;

use crate::{error::Result, store::Watch};

use super::lockfile::LockRules;

#[cfg(target_os = "linux")]
pub(super) fn start(common_dir: &Path, prefix: &str, rules: &LockRules) -> Result<Box<dyn Watch>> {
    linux::start(common_dir, prefix, rules)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn start(common_dir: &Path, _prefix: &str, _rules: &LockRules) -> Result<Box<dyn Watch>> {
    use crate::{error::Error, error_code::ErrorCode};
    Err(Error::new(ErrorCode::Unsupported, format!("{} is polled on this system", common_dir.display())))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        mem::MaybeUninit,
        os::fd::{AsFd, BorrowedFd, OwnedFd},
        path::{Path, PathBuf},
    };

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

    use crate::{
        error::{Error, Result},
        store::{
            Changes, Watch,
            files::{
                backend::{self, Format},
                lockfile::LockRules,
            },
        },
    };

    struct Inotify {
        queue: OwnedFd,
        common_dir: PathBuf,
        folder: PathBuf,
        rules: LockRules,
        armed: bool,
        /// Whether the refs are not files, so that it can't be told which one has changed.
        tables: bool,
    }

    pub(super) fn start(common_dir: &Path, prefix: &str, rules: &LockRules) -> Result<Box<dyn Watch>> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| Error::io("can't start to watch for changes", error.into()))?;
        let (common_dir, folder) = (common_dir.to_owned(), common_dir.join(prefix));
        let mut watch = Inotify { queue, common_dir, folder, rules: rules.clone(), armed: false, tables: false };
        watch.arm();
        Ok(Box::new(watch))
    }

    impl Inotify {
        /// Watches the folder, and makes it first if `git pack-refs` has just removed it; or the one of the tables.
        fn arm(&mut self) {
            // A ref is put in place by rename and taken away by unlink. The end of a `.lock` tells
            // of changes that happen in packed-refs alone.
            let events = WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            let format = backend::look(&self.common_dir, self.rules.clock.now().wall).unwrap_or(Format::Migrating);
            self.tables = format == Format::Reftable;
            let folder = if self.tables { self.common_dir.join("reftable") } else { self.folder.clone() };
            for _ in 0..3 {
                // A folder that is made now would be in the way of the refs that come.
                if format == Format::Migrating {
                    return;
                }
                if inotify::add_watch(&self.queue, &folder, events | WatchFlags::ONLYDIR).is_ok() {
                    self.armed = true;
                    return;
                }
                if self.tables || self.rules.make_folders(&folder).is_err() {
                    return; // read-only, gone, or in the way: polling finds out
                }
            }
        }
    }

    impl Watch for Inotify {
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            Some(self.queue.as_fd())
        }

        fn changes(&mut self) -> Changes {
            let mut changes = Changes::default();
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(&self.queue, &mut buffer);
            while let Ok(event) = reader.next() {
                let flags = event.events();
                if flags
                    .intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT)
                {
                    self.armed = false;
                    changes.all = true;
                } else if flags.contains(ReadFlags::QUEUE_OVERFLOW) || self.tables {
                    changes.all = true;
                } else if let Some(Ok(name)) = event.file_name().map(std::ffi::CStr::to_str) {
                    changes.names.push(name.strip_suffix(".lock").unwrap_or(name).to_owned());
                }
            }
            if !self.armed {
                self.arm();
                changes.all = true;
            }
            changes
        }
    }
}
