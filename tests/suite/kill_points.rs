//! A process is killed between any two of its system calls: what it did is a prefix of what it was
//! to do, nothing is damaged, and nobody has to wait.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use gitlock::{
    RefName,
    clock::{Clock, SystemClock},
    store::{
        Object, Oid, RefStore,
        files::{FilesOptions, FilesStore},
    },
};
use gitlock_tests::{
    behaviour::{blob, commit, name, put, remove},
    git::Repo,
    killpoints::{for_every_syscall, run_until},
    packer::{Pause, ScriptedClock},
};

fn content(store: &FilesStore, id: Option<Oid>) -> Option<String> {
    id.map(|id| match store.object(&id).unwrap() {
        Object::Blob(bytes) => String::from_utf8(bytes).unwrap(),
        Object::Commit(commit) => commit.message.trim().to_owned(),
        other => panic!("{id} is {other:?}"),
    })
}

/// Kills the cycle of `store_actor` everywhere. With `packed`, its refs are packed when it starts.
fn kill_everywhere(packed: bool, options: &FilesOptions) {
    let repo = Repo::new();
    let waits = Arc::new(AtomicU64::new(0));
    let count = waits.clone();
    let clock = ScriptedClock::new(move |pause| {
        if pause == Pause::Wait {
            count.fetch_add(1, SeqCst);
        }
    });
    let options = FilesOptions { clock: Arc::new(clock), lock_timeout: Duration::from_secs(2), ..options.clone() };
    let store = FilesStore::open(repo.path(), &options).unwrap();
    let (lock, journal) = (name("killed"), RefName::foreign("refs/gitvan/journal/killed"));
    let before = packed.then(|| {
        let first = commit(None, "before");
        [put(&store, &journal, None, first), put(&store, &lock, None, blob("before"))]
    });
    let pack = || drop(repo.git(&["pack-refs", "--all"]));
    if packed {
        pack();
    }
    let base = packed.then(|| "before".to_owned());
    let word = |text: &str| Some(text.to_owned());
    // What the cycle does, edit by edit.
    let mut prefixes = vec![(base.clone(), base.clone())];
    if !packed {
        prefixes.push((word("created"), None));
    }
    prefixes.extend([
        (word("swapped"), base.clone()),
        (word("swapped"), word("killed: released")),
        (None, word("killed: released")),
    ]);
    let mut met = BTreeSet::new();
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store_actor"));
        command.arg("cycle").arg(repo.path()).stderr(Stdio::inherit());
        command
    };
    let (kills, status) = for_every_syscall(command, |number| {
        // As another process finds it, for whom nothing is remembered.
        let fresh = FilesStore::open(repo.path(), &options).unwrap();
        let (at_lock, at_journal) = (fresh.read(&lock).unwrap(), fresh.read(&journal).unwrap());
        let state = (content(&fresh, at_lock), content(&fresh, at_journal));
        let at = prefixes.iter().position(|prefix| *prefix == state);
        met.insert(at.unwrap_or_else(|| panic!("killed at call {number}: {state:?}")));
        if number % 20 == 0 {
            repo.assert_sound();
        }
        // Both refs can be changed at once, and deleted, packed-refs.lock included.
        waits.store(0, SeqCst);
        let next = put(&fresh, &lock, at_lock, blob("usable"));
        let journal_next = put(&fresh, &journal, at_journal, commit(at_journal, "usable"));
        remove(&fresh, &lock, next);
        remove(&fresh, &journal, journal_next);
        assert_eq!(waits.load(SeqCst), 0, "killed at call {number}: somebody had to wait");
        if let Some([at_journal, at_lock]) = before {
            assert_eq!(put(&fresh, &journal, None, commit(None, "before")), at_journal);
            assert_eq!(put(&fresh, &lock, None, blob("before")), at_lock);
            // Git waits for packed-refs.lock if we left ours; nobody broke it unless it was in the way.
            for leftover in fresh.leftovers(&["refs/gitvan"]).unwrap() {
                assert!(fresh.clear(&leftover).unwrap(), "killed at call {number}: {leftover:?}");
            }
            pack();
        }
        if number % 20 == 1 {
            assert!(fresh.leftovers(&["refs/gitvan"]).unwrap().iter().all(|left| fresh.clear(left).unwrap()));
        }
    });
    assert!(status.success(), "{status}");
    println!("killed at {kills} system calls, packed: {packed}; states met: {met:?}");
    assert_eq!(met.len(), prefixes.len(), "the control: every prefix is met: {met:?}");
    repo.assert_sound();
}

#[test]
fn killed_at_every_system_call() {
    kill_everywhere(false, &FilesOptions::default());
}

#[test]
fn killed_at_every_system_call_with_packed_refs() {
    kill_everywhere(true, &FilesOptions::default());
}

#[test]
fn the_harness_kills_where_it_says() {
    // Each call of `true` is counted once, and one more than there are is not reached.
    let command = || Command::new("true");
    let mut seen = Vec::new();
    let (kills, status) = for_every_syscall(command, |number| seen.push(number));
    assert!(status.success());
    assert_eq!(seen, (1..=kills + 1).collect::<Vec<_>>());
    assert!(kills > 5, "{kills}");
    assert_eq!(run_until(&mut command(), 1), None);
    // `yes` would never end by itself, so it is killed wherever one says.
    let mut yes = Command::new("yes");
    assert_eq!(run_until(yes.stdout(Stdio::null()), 200), None);
}

#[test]
fn the_harness_follows_threads_and_leaves_children_alone() {
    let actor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store_actor"));
        command.arg("threads");
        command
    };
    // Far into the 200 calls that only the threads make.
    assert_eq!(run_until(&mut actor(), 200), None);
    assert!(run_until(&mut actor(), 100_000).expect("it ends before that").success());
    let mut shell = Command::new("sh");
    shell.args(["-c", "git --version >&2; exit 7"]).stderr(Stdio::null());
    assert_eq!(run_until(&mut shell, 100_000).expect("it ends before that").code(), Some(7));
}

/// The whole way of a lock, queueing included, with the owner killed everywhere on it: whoever
/// comes next on this host has the lock at once, with nothing done by hand, and tokens grow.
#[test]
fn an_owner_killed_anywhere_leaves_a_lock_that_can_be_had_at_once() {
    let repo = Repo::new();
    let mut options = gitlock::Options::default();
    options.lock_timeout = Duration::from_secs(2);
    let manager = gitlock::LockManager::open_with(repo.path(), options).unwrap();
    for held in [false, true] {
        let mut last = 0;
        let guard = std::cell::RefCell::new(None);
        let command = || {
            if held {
                let first = manager.lock("x").ttl(Duration::from_secs(600)).acquire().unwrap();
                // Released while the other queues, or before it comes: both are met.
                *guard.borrow_mut() = Some(std::thread::spawn(move || {
                    SystemClock.pause(Duration::from_millis(8));
                    first.release().unwrap();
                }));
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_lock_actor"));
            command.arg(repo.path()).arg("x").stderr(Stdio::inherit());
            command
        };
        let (kills, status) = for_every_syscall(command, |number| {
            if let Some(release) = guard.borrow_mut().take() {
                release.join().unwrap();
            }
            let guard = manager.lock("x").acquire_now().unwrap_or_else(|error| panic!("killed at {number}: {error:?}"));
            assert!(guard.token() > last, "killed at {number}: the token {} after {last}", guard.token());
            last = guard.token();
            guard.release().unwrap();
            if number % 50 == 0 {
                repo.assert_sound();
            }
        });
        assert!(status.success() && kills > 50, "{kills} kills, then {status}");
        println!("{}: {kills} kills", if held { "held by another at first" } else { "free" });
        repo.assert_sound();
    }
}
