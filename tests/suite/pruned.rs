//! Objects, written beside a Git that tidies up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use gitlock::{
    ErrorCode, LockManager,
    clock::{Clock, SystemClock},
    store::{
        NewValue, Object, RefStore,
        files::{FilesOptions, FilesStore},
    },
};
use gitlock_tests::{
    behaviour::{blob, name, put},
    git::Repo,
};

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

fn object_file(repo: &Repo, hex: &str) -> PathBuf {
    repo.git_dir().join("objects").join(&hex[..2]).join(&hex[2..])
}

/// Whoever comes second finds nothing to restore, and must not take that for "not there".
#[test]
fn a_pruned_object_is_found_by_everybody_who_looks_at_once() {
    const LOOKERS: usize = 4;
    let repo = Repo::new();
    let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
    let id = put(&store, &name("pruned"), None, blob("a record"));
    let file = object_file(&repo, &id.to_string());
    let (start, end) = (Barrier::new(LOOKERS + 1), Barrier::new(LOOKERS + 1));
    let missed = AtomicUsize::new(0);
    const ROUNDS: usize = 500;
    thread::scope(|scope| {
        for _ in 0..LOOKERS {
            scope.spawn(|| {
                let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
                for _ in 0..ROUNDS {
                    start.wait();
                    missed.fetch_add(usize::from(store.object(&id).unwrap() == Object::Missing), Ordering::SeqCst);
                    end.wait();
                }
            });
        }
        for _ in 0..ROUNDS {
            fs::remove_file(&file).unwrap();
            start.wait();
            end.wait();
        }
    });
    assert_eq!(missed.into_inner(), 0);
}

/// A record that isn't in the repository for a moment says nothing about who holds the lock.
#[test]
fn a_holder_whose_record_is_pruned_has_not_lost_its_lock() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let guard = manager.lock("build").ttl(Duration::from_millis(1_500)).acquire().unwrap();
    let elsewhere = LockManager::open(repo.path()).unwrap();
    let mut waits = Vec::new();
    // Without the second chance too, as if the log of recent objects had been rotated away.
    let mut take = || {
        // Somebody queues, so that what the holder remembers of its record is old.
        let before = repo.git(&["rev-parse", "refs/gitvan/locks/build"]);
        waits.push(elsewhere.lock("build").owner(before.clone()).start(drop).unwrap());
        while repo.git(&["rev-parse", "refs/gitvan/locks/build"]) == before {
            SystemClock.pause(Duration::from_millis(5));
        }
        let file = object_file(&repo, &repo.git(&["rev-parse", "refs/gitvan/locks/build"]));
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        // The second time it is gone already: who has it open writes on where nobody reads.
        let _ = fs::remove_file(repo.git_dir().join("gitlock/recent"));
        (file, bytes)
    };
    let (file, bytes) = take();
    let error = guard.extend(None).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RecordMissing, "{error}");
    assert!(!guard.is_lost());
    // A renewal falls into this time as well: it is due at a third of the lease.
    SystemClock.pause(Duration::from_millis(700));
    assert!(!guard.is_lost());
    fs::write(&file, bytes).unwrap();
    guard.extend(None).unwrap();
    let (file, bytes) = take();
    let handle = guard.handle();
    let error = guard.release().unwrap_err();
    assert_eq!(error.code(), ErrorCode::RecordMissing, "{error}");
    fs::write(&file, bytes).unwrap();
    manager.release(&handle).unwrap();
}

/// Behind a plain tool's record nobody renews, and the waiters remember what they wrote.
#[test]
fn waiters_restore_the_record_of_a_holder_that_is_no_gitlock() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let record = r#"{"id":"plain","acquiredAt":4000000000000,"timeout":60000,"fingerprint":"f","exclusive":true,"pid":1,"hostname":"elsewhere"}"#;
    let file = repo.path().join("record");
    fs::write(&file, record).unwrap();
    let object = repo.git(&["hash-object", "-w", "record"]);
    repo.git(&["update-ref", "refs/gitvan/locks/build", &object]);
    let _waiting = manager.lock("build").start(drop).unwrap();
    let mut queued = object.clone();
    while queued == object {
        SystemClock.pause(Duration::from_millis(5));
        queued = repo.git(&["rev-parse", "refs/gitvan/locks/build"]);
    }
    let file = object_file(&repo, &queued);
    fs::remove_file(&file).unwrap();
    for _ in 0..3_000 {
        if file.exists() {
            return;
        }
        SystemClock.pause(Duration::from_millis(10));
    }
    panic!("nobody wrote the record again");
}

/// Who comes to wait behind a record that isn't there waits, and is told why when its time is over.
#[test]
fn whoever_waits_behind_a_pruned_record_waits_on() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let record = r#"{"id":"plain","acquiredAt":1000,"timeout":4000000000000,"fingerprint":"f","exclusive":true,"pid":1,"hostname":"elsewhere"}"#;
    fs::write(repo.path().join("record"), record).unwrap();
    let object = repo.git(&["hash-object", "-w", "record"]);
    repo.git(&["update-ref", "refs/gitvan/locks/build", &object]);
    let file = object_file(&repo, &object);
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let error = manager.lock("build").wait(Duration::from_millis(50)).acquire().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
    assert!(error.to_string().contains("not in the repository"), "{error}");
    assert_eq!(manager.lock("build").acquire_now().unwrap_err().code(), ErrorCode::RecordMissing);
    let (sender, done) = std::sync::mpsc::channel();
    let _waiting = manager.lock("build").start(move |result| sender.send(result.map(drop)).unwrap()).unwrap();
    assert!(done.recv_timeout(Duration::from_millis(300)).is_err(), "it must wait");
    fs::write(&file, bytes).unwrap();
    manager.release(&gitlock::LockHandle::by_fingerprint("build", "f").unwrap()).unwrap();
    done.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
}

/// A busy lock's journal loses a commit to `git prune --expire=now` after the last process of its
/// time is gone. Whoever comes next writes it again, however many were written after it.
#[test]
fn a_commit_far_back_is_written_again_by_the_next_command() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let cycle = |manager: &LockManager| manager.lock("build").acquire().unwrap().release().unwrap();
    (0..5).for_each(|_| cycle(&manager));
    let early = repo.git(&["rev-parse", "refs/gitvan/journal/build~2"]);
    let log = repo.git_dir().join("gitlock/recent");
    // Beyond the end that is looked through in any case.
    while fs::metadata(&log).unwrap().len() < 7 << 19 {
        cycle(&manager);
    }
    manager.close();
    drop(manager);
    fs::remove_file(object_file(&repo, early.trim())).unwrap();
    // Somebody may have looked just now, and not seen it gone.
    SystemClock.pause(Duration::from_millis(2_200));
    let next = LockManager::open(repo.path()).unwrap();
    cycle(&next);
    next.close();
    repo.git(&["fsck", "--strict"]);
    repo.git(&["gc", "--quiet"]);
}
