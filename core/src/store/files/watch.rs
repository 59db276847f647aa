//! Noticing changes of refs: inotify on their folder.

use std::path::Path;

use crate::{error::Result, store::Watch};

use super::shared::Shared;

#[cfg(target_os = "linux")]
pub(super) fn start(folder: &Path, shared: Shared) -> Result<Box<dyn Watch>> {
    linux::start(folder, shared)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn start(folder: &Path, _shared: Shared) -> Result<Box<dyn Watch>> {
    use crate::{error::Error, error_code::ErrorCode};
    Err(Error::new(ErrorCode::Unsupported, format!("{} is polled on this system", folder.display())))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs,
        mem::MaybeUninit,
        os::fd::{AsFd, BorrowedFd, OwnedFd},
        path::{Path, PathBuf},
    };

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

    use crate::{
        error::{Error, Result},
        store::{Changes, Watch, files::shared::Shared},
    };

    struct Inotify {
        queue: OwnedFd,
        folder: PathBuf,
        /// What `core.sharedRepository` makes of the permissions of a folder.
        shared: Shared,
        armed: bool,
    }

    pub(super) fn start(folder: &Path, shared: Shared) -> Result<Box<dyn Watch>> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| Error::io("can't start to watch for changes", error.into()))?;
        let mut watch = Inotify { queue, folder: folder.to_owned(), shared, armed: false };
        watch.arm();
        Ok(Box::new(watch))
    }

    impl Inotify {
        /// Watches the folder, and makes it first if `git pack-refs` has just removed it.
        fn arm(&mut self) {
            // A ref is put in place by rename and taken away by unlink. The end of a `.lock` tells
            // of changes that happen in packed-refs alone.
            let events = WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            for _ in 0..3 {
                if inotify::add_watch(&self.queue, &self.folder, events | WatchFlags::ONLYDIR).is_ok() {
                    self.armed = true;
                    return;
                }
                if fs::create_dir_all(&self.folder).is_err() {
                    return; // read-only, or in the way: polling finds out
                }
                self.shared.folders(&self.folder);
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
                } else if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
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
