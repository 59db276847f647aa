//! Deleting beside `git pack-refs --all`: no ref comes back, in any order of their steps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use gitlock::{
    ErrorCode, RefName,
    lock::fault::{Fault, Faults},
    store::{
        Oid, RefStore, Transacted,
        files::{FilesOptions, FilesStore},
    },
};
use gitlock_tests::{
    behaviour::{PREFIX, blob, edit, name, put, remove},
    git::{Repo, try_git},
    packer::{Packer, Pause, Schedule, Scheduled, ScriptedClock, schedules},
};

/// A fault that no store has: it only opens the gaps.
const HARMLESS: Fault = Fault::NoAgeing;

/// How many gaps one deletion has at most: before and after the unlink, between the two looks, and
/// in the slow way before packed-refs is replaced, and before the unlink.
const GAPS: usize = 5;

fn open(at: &Path) -> FilesStore {
    FilesStore::open(at, &FilesOptions::default()).unwrap()
}

/// Where the ref is when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Loose, and there is no packed-refs.
    LooseAlone,
    /// Loose, and another ref is packed.
    LooseBesidePacked,
    /// Packed only.
    Packed,
    /// Loose, and packed with an older value.
    Both,
}

const STARTS: [Start; 4] = [Start::LooseAlone, Start::LooseBesidePacked, Start::Packed, Start::Both];

fn prepare(repo: &Repo, start: Start, lock: &RefName, round: usize) -> Oid {
    let plain = open(repo.path());
    let _ = fs::remove_file(repo.git_dir().join("packed-refs"));
    let pack = || assert!(Packer::new(&repo.git_dir()).run());
    if start == Start::LooseBesidePacked {
        let other = RefName::foreign("refs/gitvan/other");
        if plain.read(&other).unwrap().is_none() {
            put(&plain, &other, None, blob("other"));
        }
        pack();
    }
    let first = put(&plain, lock, None, blob(&format!("first {round}")));
    match start {
        Start::LooseAlone | Start::LooseBesidePacked => first,
        Start::Packed => {
            pack();
            first
        }
        Start::Both => {
            pack();
            put(&plain, lock, Some(first), blob(&format!("second {round}")))
        }
    }
}

/// Deletes a ref while a pack-refs goes by this schedule. Returns what the ref is afterwards.
fn delete_beside(repo: &Repo, start: Start, schedule: Schedule, fault: Fault, round: usize) -> Option<Oid> {
    let lock = name("deleted");
    let id = prepare(repo, start, &lock, round);
    let packer: Arc<Mutex<Option<Scheduled>>> = Arc::default();
    let script = packer.clone();
    let clock = ScriptedClock::new(move |pause| {
        if let Some(packer) = script.lock().unwrap().as_mut() {
            match pause {
                Pause::Gap => packer.gap(),
                Pause::Wait => packer.turn(),
            }
        }
    });
    let options = FilesOptions { clock: Arc::new(clock), faults: Faults::only(fault), ..FilesOptions::default() };
    let store = FilesStore::open(repo.path(), &options).unwrap();
    *packer.lock().unwrap() = Some(Scheduled::start(&repo.git_dir(), schedule));
    let outcome = store.transact(&[edit(&lock, Some(id), None)]).unwrap();
    assert_eq!(outcome, Transacted::Committed(vec![None]), "{start:?} {schedule:?}");
    packer.lock().unwrap().as_mut().unwrap().finish();
    let left = open(repo.path()).read(&lock).unwrap();
    assert_eq!(store.read(&lock).unwrap(), left, "whoever deleted it reads what everybody reads");
    if let Some(id) = left {
        remove(&open(repo.path()), &lock, id);
    }
    left
}

/// In how many of all interleavings the ref comes back.
fn come_backs(fault: Fault) -> (usize, usize) {
    let repo = Repo::with(&[]);
    let (mut back, mut all) = (0, 0);
    for start in STARTS {
        for schedule in schedules(GAPS) {
            back += usize::from(delete_beside(&repo, start, schedule, fault, all).is_some());
            all += 1;
        }
    }
    println!("{}: back in {back} of {all} interleavings", fault.as_str());
    assert_eq!(try_git(repo.path(), &["for-each-ref", PREFIX]).stdout, b"");
    repo.assert_sound();
    (back, all)
}

#[test]
fn no_deleted_ref_comes_back_in_any_interleaving() {
    let (back, all) = come_backs(HARMLESS);
    assert_eq!(back, 0);
    assert!(all >= 4 * 126, "the control: {all} interleavings");
}

#[test]
fn each_step_of_the_fast_delete_is_needed() {
    for fault in [Fault::FastDeleteSwapped, Fault::FastDeleteIgnoresLock, Fault::FastDeleteIgnoresPacked] {
        assert_ne!(come_backs(fault).0, 0, "{}", fault.as_str());
    }
}

#[test]
fn the_slow_delete_needs_its_lock() {
    assert_ne!(come_backs(Fault::SlowDeleteWithoutLock).0, 0);
}

/// A pack-refs has read the ref and hangs, so that nobody can say whether the ref will come back.
#[test]
fn a_deletion_that_cannot_be_made_for_certain_is_undone() {
    let repo = Repo::with(&[]);
    let (lock, journal) = (name("undone"), RefName::foreign("refs/gitvan/journal/undone"));
    let id = put(&open(repo.path()), &lock, None, blob("held"));
    let mut packer = Packer::new(&repo.git_dir());
    let mut gaps = 0;
    let clock = ScriptedClock::new(move |pause| {
        gaps += usize::from(pause == Pause::Gap);
        // Between the choice of the fast way and the unlink.
        if pause == Pause::Gap && gaps == 1 {
            assert!(packer.lock());
            packer.read();
        }
    });
    let options = FilesOptions {
        clock: Arc::new(clock),
        faults: Faults::only(HARMLESS),
        lock_timeout: Duration::from_millis(200),
        ..FilesOptions::default()
    };
    let store = FilesStore::open(repo.path(), &options).unwrap();
    let error = store.transact(&[edit(&lock, Some(id), None)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RepositoryBusy, "{error}");
    assert_eq!(open(repo.path()).read(&lock).unwrap(), Some(id), "it is there, as everybody believes");
    fs::remove_file(repo.git_dir().join("packed-refs.lock")).unwrap();
    // Where an edit before it was made, that is said too: the outcome has to be read.
    let mut packer = Packer::new(&repo.git_dir());
    let mut gaps = 0;
    let clock = ScriptedClock::new(move |pause| {
        gaps += usize::from(pause == Pause::Gap);
        if pause == Pause::Gap && gaps == 1 {
            assert!(packer.lock());
        }
    });
    let store = FilesStore::open(repo.path(), &FilesOptions { clock: Arc::new(clock), ..options }).unwrap();
    let edits = [edit(&journal, None, Some(blob("ended"))), edit(&lock, Some(id), None)];
    assert_eq!(store.transact(&edits).unwrap(), Transacted::Unknown);
    let fresh = open(repo.path());
    assert_eq!((fresh.read(&lock).unwrap(), fresh.read(&journal).unwrap().is_some()), (Some(id), true));
    fs::remove_file(repo.git_dir().join("packed-refs.lock")).unwrap();
    remove(&fresh, &lock, id);
    repo.assert_sound();
}

/// A ref is packed, and pruned, while a creation of it waits for its lock.
fn created_twice(fault: Fault) -> bool {
    let repo = Repo::with(&[]);
    let lock = name("packed-meanwhile");
    let first = put(&open(repo.path()), &lock, None, blob("first"));
    let git_dir = repo.git_dir();
    let (loose, ref_lock) = (git_dir.join(lock.as_str()), git_dir.join(format!("{lock}.lock")));
    // As the pruning of a pack-refs does it, which holds the lock of the ref that it unlinks.
    fs::write(&ref_lock, "").unwrap();
    let mut waited = false;
    let clock = ScriptedClock::new(move |pause| {
        if pause == Pause::Wait && !std::mem::replace(&mut waited, true) {
            let mut packer = Packer::new(&git_dir);
            assert!(packer.lock());
            packer.read();
            packer.rename();
            packer.unlock();
            fs::remove_file(&loose).unwrap();
            fs::remove_file(&ref_lock).unwrap();
        }
    });
    let options = FilesOptions { clock: Arc::new(clock), faults: Faults::only(fault), ..FilesOptions::default() };
    let store = FilesStore::open(repo.path(), &options).unwrap();
    let outcome = store.transact(&[edit(&lock, None, Some(blob("second")))]).unwrap();
    assert_eq!(outcome == Transacted::Conflict, open(repo.path()).read(&lock).unwrap() == Some(first));
    outcome != Transacted::Conflict
}

#[test]
fn packed_refs_are_read_under_the_lock() {
    assert!(!created_twice(HARMLESS));
    assert!(created_twice(Fault::PackedReadBeforeLock));
}

#[test]
fn a_ref_is_compared() {
    for (fault, overwritten) in [(HARMLESS, false), (Fault::NoCompare, true)] {
        let repo = Repo::with(&[]);
        let options = FilesOptions { faults: Faults::only(fault), ..FilesOptions::default() };
        let store = FilesStore::open(repo.path(), &options).unwrap();
        put(&store, &name("a"), None, blob("first"));
        let outcome = store.transact(&[edit(&name("a"), None, Some(blob("second")))]).unwrap();
        assert_eq!(outcome != Transacted::Conflict, overwritten, "{}", fault.as_str());
    }
}

// ---------------------------------------------------------------- beside the real one

/// Runs `work` beside a loop of `pack`. Returns how often that succeeded.
fn beside(pack: impl Fn() -> bool + Sync, work: impl FnOnce()) -> u64 {
    let (stop, packs) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                packs.fetch_add(u64::from(pack()), SeqCst);
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, SeqCst);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    packs.into_inner()
}

fn create_and_delete(repo: &Repo, rounds: usize) {
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = open(repo.path());
            scope.spawn(move || {
                let lock = name(&format!("busy-{thread}"));
                for round in 0..rounds {
                    let id = put(&store, &lock, None, blob(&format!("{thread} {round}")));
                    let id = put(&store, &lock, Some(id), blob(&format!("{thread} {round} again")));
                    assert_eq!(store.read(&lock).unwrap(), Some(id));
                    remove(&store, &lock, id);
                    assert_eq!(store.read(&lock).unwrap(), None, "round {round}");
                }
            });
        }
    });
}

#[test]
fn no_ref_comes_back_beside_a_loop_of_pack_refs() {
    let repo = Repo::new();
    let git_dir = repo.git_dir();
    let rounds = 1_500;
    let git = || try_git(repo.path(), &["pack-refs", "--all"]).status.success();
    // The real one takes its time, so ours goes on beside it.
    let mut ours = 0;
    let packs = beside(git, || {
        ours = beside(|| Packer::new(&git_dir).run(), || create_and_delete(&repo, rounds));
    });
    println!("{} deletions beside {packs} git pack-refs and {ours} of our own", 3 * rounds);
    assert!(packs > 2 && ours > 20, "the control: {packs} and {ours}");
    assert_eq!(repo.git(&["for-each-ref", PREFIX]), "");
    assert_eq!(open(repo.path()).leftovers(&[PREFIX]).unwrap(), []);
    repo.assert_sound();
}

/// A ref that exists when a list begins is in it, though it is packed meanwhile for the first time.
#[test]
fn a_list_misses_nothing_beside_a_loop_of_pack_refs() {
    let repo = Repo::new();
    let store = open(repo.path());
    // Others, so that there is time between the look at the folder and the look at the file.
    for number in 0..100 {
        put(&store, &name(&format!("other-{number}")), None, blob("other"));
    }
    let (git_dir, made, lists) = (repo.git_dir(), AtomicU64::new(0), AtomicU64::new(0));
    let total = 1_000;
    let packs = beside(
        || Packer::under(&git_dir, &format!("{PREFIX}/nested")).run(),
        || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0..total {
                        put(&store, &name(&format!("nested/{number}")), None, blob("new"));
                        made.fetch_add(1, SeqCst);
                    }
                });
                let reader = open(repo.path());
                while made.load(SeqCst) < total {
                    let before = made.load(SeqCst);
                    let listed = u64::try_from(reader.list(PREFIX).unwrap().len()).unwrap();
                    assert!(listed >= 100 + before, "{listed} listed, and {before} were there besides the 100");
                    lists.fetch_add(1, SeqCst);
                }
            });
        },
    );
    let lists = lists.into_inner();
    println!("{lists} lists beside {packs} pack-refs");
    assert!(packs > 10 && lists > 10, "the control: {packs}, {lists}");
    repo.assert_sound();
}
