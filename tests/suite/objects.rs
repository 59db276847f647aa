//! The objects behind locks and journals: what is superseded goes, what is pruned comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{fs, path::PathBuf, time::Duration};

use gitlock::{
    LockManager, Options,
    store::{
        NewValue, Object, Oid, RefStore,
        files::{FilesOptions, FilesStore},
    },
};
use gitlock_tests::git::Repo;

fn open(repo: &Repo, keep: Option<u32>) -> LockManager {
    let mut options = Options::default();
    options.keep = keep;
    LockManager::open_with(repo.path(), options).unwrap()
}

fn loose(repo: &Repo) -> usize {
    repo.git(&["count-objects"]).split(' ').next().unwrap().parse().unwrap()
}

fn object_file(repo: &Repo, name: &str) -> PathBuf {
    let id = repo.git(&["rev-parse", name]);
    repo.git_dir().join("objects").join(&id[..2]).join(&id[2..])
}

#[test]
fn after_a_sweep_only_the_journal_is_left() {
    for (keep, most) in [(None, 302), (Some(10), 22), (Some(1), 3)] {
        let repo = Repo::with(&[]);
        let manager = open(&repo, keep);
        for _ in 0..300 {
            manager.lock("x").acquire().unwrap().release().unwrap();
        }
        assert!(loose(&repo) > 500 || keep.is_some(), "the control: there is something to sweep");
        let cleaned = manager.clean(Some(Duration::ZERO)).unwrap();
        assert!(cleaned.objects_deleted >= 300, "{cleaned:?}");
        assert!(loose(&repo) <= most, "keep {keep:?}: {} objects", loose(&repo));
        repo.assert_sound();
    }
}

#[test]
fn nothing_is_swept_that_somebody_may_still_need() {
    let repo = Repo::new();
    let manager = open(&repo, None);
    let guard = manager.lock("x").acquire().unwrap();
    repo.git(&["tag", "kept", "refs/gitvan/locks/x"]);
    guard.release().unwrap();
    let held = manager.lock("y").acquire().unwrap();
    held.extend(None).unwrap();
    // The grace period isn't over.
    assert_eq!(manager.clean(None).unwrap().objects_deleted, 0);
    manager.clean(Some(Duration::ZERO)).unwrap();
    repo.git(&["cat-file", "-e", "kept"]);
    repo.git(&["cat-file", "-e", "refs/gitvan/locks/y"]);
    held.release().unwrap();
    repo.assert_sound();
    // A repository that deletes no objects.
    let precious = Repo::new();
    precious.git(&["config", "core.repositoryFormatVersion", "1"]);
    precious.git(&["config", "extensions.preciousObjects", "true"]);
    let manager = open(&precious, Some(1));
    manager.lock("x").acquire().unwrap().release().unwrap();
    assert_eq!(manager.clean(Some(Duration::ZERO)).unwrap().objects_deleted, 0);
}

#[test]
fn a_pruned_record_comes_back_and_its_holder_keeps_it() {
    let repo = Repo::new();
    let guard = open(&repo, None).lock("x").ttl(Duration::from_secs(600)).acquire().unwrap();
    let record = object_file(&repo, "refs/gitvan/locks/x");
    fs::remove_file(&record).unwrap();
    // Whoever looks, in whatever process, writes it again.
    let status = open(&repo, None).status("x").unwrap();
    assert_eq!(status.holders[0].holder.claim.id, guard.id());
    assert!(record.is_file());
    repo.assert_sound();
    guard.release().unwrap();
}

#[test]
fn pruned_commits_of_a_journal_come_back() {
    let repo = Repo::new();
    let manager = open(&repo, None);
    for _ in 0..5 {
        manager.lock("x").acquire().unwrap().release().unwrap();
    }
    // The tip, one in the middle, and the tree that they all have.
    let files = ["refs/gitvan/journal/x", "refs/gitvan/journal/x~2", "refs/gitvan/journal/x^{tree}"];
    let files = files.map(|name| object_file(&repo, name));
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    manager.lock("x").acquire().unwrap().release().unwrap();
    manager.close();
    assert!(files.iter().all(|file| file.is_file()));
    assert_eq!(manager.log("x", 99).unwrap().len(), 6);
    repo.assert_sound();
}

#[test]
fn a_folder_that_git_prune_removes_is_made_again() {
    let repo = Repo::with(&[]);
    let (stop, objects) =
        (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), repo.git_dir().join("objects"));
    let stopped = stop.clone();
    // As `git prune` does with every folder that it finds empty.
    let pruner = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            for folder in 0..=255 {
                let _ = fs::remove_dir(objects.join(format!("{folder:02x}")));
            }
        }
    });
    let manager = open(&repo, None);
    for _ in 0..1_000 {
        manager.lock("x").acquire().unwrap().release().unwrap();
        manager.clean(Some(Duration::ZERO)).unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    pruner.join().unwrap();
    repo.assert_sound();
}

#[test]
fn notes_that_a_stopped_process_holds_hold_nobody_up() {
    let repo = Repo::with(&[]);
    fs::create_dir(repo.git_dir().join("gitlock")).unwrap();
    let notes = fs::File::create(repo.git_dir().join("gitlock/superseded")).unwrap();
    rustix::fs::flock(&notes, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (sender, done) = std::sync::mpsc::channel();
    let manager = open(&repo, None);
    let worker = std::thread::spawn(move || {
        for _ in 0..600 {
            manager.lock("x").acquire().unwrap().release().unwrap();
        }
        manager.close();
        drop(manager);
        sender.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(120)).expect("nobody waits for the notes");
    worker.join().unwrap();
    drop(notes);
    repo.assert_sound();
}

/// More often than gix has places in its table of packs. It would follow them by itself, but was
/// seen to panic over it, so the store opens the database anew instead.
#[test]
fn packs_that_come_and_go_are_followed() {
    let repo = Repo::new();
    let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
    fs::write(repo.path().join("file"), "content").unwrap();
    let blob = repo.git(&["hash-object", "-w", "file"]);
    repo.git(&["update-ref", "refs/kept/it", blob.trim()]);
    repo.git(&["repack", "-a", "-d", "-q"]);
    let blob = Oid::from_hex(blob.trim().as_bytes()).unwrap();
    let folder = repo.git_dir().join("objects/pack");
    let mut files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut name = files.find(|path| path.extension().is_some_and(|end| end == "idx")).unwrap();
    for round in 0..100 {
        assert!(matches!(store.object(&blob).unwrap(), Object::Blob(_)), "round {round}");
        let next = folder.join(format!("pack-{round:040}.idx"));
        for end in ["pack", "idx"] {
            fs::rename(name.with_extension(end), next.with_extension(end)).unwrap();
        }
        name = next;
        assert_eq!(store.object(&Oid::from_bytes(&[7; 20]).unwrap()).unwrap(), Object::Missing);
    }
}

/// What was in a pack that is gone is gone, even for a process that read it there.
#[test]
fn a_pack_that_is_gone_is_noticed() {
    let repo = Repo::new();
    let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
    fs::write(repo.path().join("file"), "content").unwrap();
    let blob = repo.git(&["hash-object", "-w", "file"]);
    repo.git(&["update-ref", "refs/kept/it", blob.trim()]);
    repo.git(&["repack", "-a", "-d", "-q"]);
    let value = NewValue::Blob(b"content".to_vec());
    assert!(!store.restore(&value).unwrap(), "the control: it is packed");
    repo.git(&["update-ref", "-d", "refs/kept/it"]);
    repo.git(&["repack", "-a", "-d", "-q"]);
    assert!(store.restore(&value).unwrap(), "it was thrown away with its pack");
    repo.git(&["cat-file", "-e", blob.trim()]);
}
