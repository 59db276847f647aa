//! Objects, written beside a Git that tidies up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use gitlock::store::{
    NewValue, RefStore,
    files::{FilesOptions, FilesStore},
};
use gitlock_tests::git::Repo;

/// `git prune` removes each folder of objects that it finds empty, also one that was made for the
/// object that is just being put there.
#[test]
fn folders_that_git_removes_are_made_again() {
    for shared in ["umask", "group"] {
        let repo = Repo::new();
        repo.git(&["config", "core.sharedRepository", shared]);
        let objects = repo.git_dir().join("objects");
        let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    for folder in 0..=255u8 {
                        // As `git prune` does it: fails where something is in it.
                        let _ = fs::remove_dir(objects.join(format!("{folder:02x}")));
                    }
                }
            });
            let mut written = Ok(true);
            for at in 0..20_000 {
                written = store.restore(&NewValue::Blob(format!("object {at}").into_bytes()));
                if written.is_err() {
                    break;
                }
                // Now and then everything goes, so that folders are made again and again.
                if at % 20 == 0 {
                    for folder in (0..=255u8).map(|folder| objects.join(format!("{folder:02x}"))) {
                        let _ = fs::remove_dir_all(folder);
                    }
                }
            }
            over.store(true, Ordering::SeqCst);
            written.unwrap();
        });
    }
}
