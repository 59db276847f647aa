//! Managers and guards on real repositories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use gitlock::{CancelToken, ErrorCode, LockManager, Options};
use gitlock_tests::{clocks::Tomorrow, git::Repo};

fn manager(repo: &Repo) -> LockManager {
    LockManager::open(repo.path()).unwrap()
}

#[test]
fn one_lock_from_acquire_to_journal() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let guard = manager.lock("build").reason("a test").acquire().unwrap();
    let first = guard.token();
    assert_eq!(
        repo.git(&["for-each-ref", "--format=%(refname) %(objecttype)", "refs/gitvan"]),
        "refs/gitvan/locks/build blob"
    );
    let record = repo.git(&["cat-file", "-p", "refs/gitvan/locks/build"]);
    assert!(record.starts_with(&format!("{{\"id\":\"{}\"", guard.id())), "{record}");
    assert!(manager.lock("build").try_acquire().unwrap().is_none());
    let error = manager.lock("build").acquire_now().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Held);
    assert!(error.to_string().contains("a test"), "{error}");
    guard.release().unwrap();
    assert_eq!(repo.git(&["for-each-ref", "--format=%(refname)", "refs/gitvan"]), "refs/gitvan/journal/build");
    assert_eq!(repo.git(&["log", "--format=%s", "refs/gitvan/journal/build"]), "build: released");
    let token = repo.git(&["log", "--format=%(trailers:key=Lock-Token,valueonly)", "refs/gitvan/journal/build"]);
    assert_eq!(token.trim(), first.to_string());
    let guard = manager.lock("build").acquire().unwrap();
    assert!(guard.token() > first);
    drop(guard);
    assert_eq!(repo.git(&["log", "--format=%s", "refs/gitvan/journal/build"]).lines().count(), 2);
    repo.assert_sound();
}

#[test]
fn a_token_is_above_what_others_journalled_since_this_one_looked() {
    let repo = Repo::new();
    let mut options = Options::default();
    options.clock = Arc::new(Tomorrow);
    let (here, ahead) = (manager(&repo), LockManager::open_with(repo.path(), options).unwrap());
    // So that it remembers the lock as it is then: free, with this journal.
    here.lock("build").acquire().unwrap().release().unwrap();
    let mut last = 0;
    for round in 0..6 {
        let manager = if round % 2 == 0 { &ahead } else { &here };
        let guard = manager.lock("build").acquire().unwrap();
        assert!(guard.token() > last, "{} after {last} in round {round}", guard.token());
        last = guard.token();
        guard.release().unwrap();
    }
}

#[test]
fn waiters_are_served_in_order() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let guard = manager.lock("x").acquire().unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..32)
        .map(|number| {
            let (sender, queued) = mpsc::channel();
            let (other, served) = (manager.clone(), served.clone());
            let waiter = thread::spawn(move || {
                let guard = other.lock("x").on_wait(move |_| sender.send(()).unwrap_or_default()).acquire().unwrap();
                served.lock().unwrap().push((number, guard.token()));
                guard.release().unwrap();
            });
            // In the queue before the next one comes.
            queued.recv().unwrap();
            waiter
        })
        .collect();
    guard.release().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let served = served.lock().unwrap();
    assert_eq!(served.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..32).collect::<Vec<_>>());
    assert!(served.windows(2).all(|pair| pair[0].1 < pair[1].1), "tokens grow: {served:?}");
    repo.assert_sound();
}

#[test]
fn a_lease_is_renewed_and_a_break_is_told() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let guard = manager.lock("x").ttl(Duration::from_millis(400)).acquire().unwrap();
    let (sender, lost) = mpsc::channel();
    guard.on_lost(move |error| sender.send(error.code()).unwrap());
    thread::sleep(Duration::from_millis(1_200));
    assert!(!guard.is_lost(), "it was renewed");
    let broken = LockManager::open(repo.path()).unwrap().break_lock("x", None, Some("test")).unwrap();
    assert_eq!(broken.len(), 1);
    assert_eq!(lost.recv_timeout(Duration::from_secs(10)).unwrap(), ErrorCode::LockLost);
    assert_eq!(guard.release().unwrap_err().code(), ErrorCode::LockLost);
}

/// The next renewal would notice it after twenty minutes.
#[test]
fn a_break_is_told_to_who_asks_for_news_only_later() {
    let repo = Repo::new();
    let (manager, other) = (manager(&repo), manager(&repo));
    let guard = manager.lock("x").ttl(Duration::from_secs(3_600)).acquire().unwrap();
    other.break_lock("x", None, None).unwrap();
    let (sender, lost) = mpsc::channel();
    guard.on_lost(move |error| sender.send(error.code()).unwrap());
    assert_eq!(lost.recv_timeout(Duration::from_secs(60)).unwrap(), ErrorCode::LockLost);
}

#[test]
fn a_wait_ends_by_timeout_and_by_cancel_and_leaves_no_waiter() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let guard = manager.lock("x").acquire().unwrap();
    let error = manager.lock("x").wait(Duration::from_millis(50)).acquire().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert!(error.holder().is_some(), "{error}");
    let token = CancelToken::new();
    let canceller = token.clone();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        canceller.cancel();
    });
    assert_eq!(manager.lock("x").cancel(&token).acquire().unwrap_err().code(), ErrorCode::Cancelled);
    thread.join().unwrap();
    assert!(manager.status("x").unwrap().queue.is_empty());
    guard.release().unwrap();
    assert!(!manager.status("x").unwrap().is_held());
}

#[test]
fn a_thousand_waits_in_one_process() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let guard = manager.lock("x").acquire().unwrap();
    let (sender, done) = mpsc::channel();
    for number in 0..1_000 {
        let sender = sender.clone();
        let waiting = manager.lock("x").shared().start(move |guard| {
            guard.unwrap().release().unwrap();
            sender.send(number).unwrap();
        });
        waiting.unwrap();
    }
    while manager.status("x").unwrap().queue.len() < 1_000 {
        thread::sleep(Duration::from_millis(5));
    }
    guard.release().unwrap();
    let mut seen: Vec<u32> = (0..1_000).map(|_| done.recv_timeout(Duration::from_secs(120)).unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn many_threads_and_managers_never_overlap() {
    let repo = Repo::new();
    let inside = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (manager, inside, count) = (manager(&repo), inside.clone(), count.clone());
            thread::spawn(move || {
                for _ in 0..50 {
                    let guard = manager.lock("x").acquire().unwrap();
                    assert!(!inside.swap(true, Ordering::SeqCst), "two holders at once");
                    count.fetch_add(1, Ordering::SeqCst);
                    inside.store(false, Ordering::SeqCst);
                    guard.release().unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(count.load(Ordering::SeqCst), 200);
    repo.assert_sound();
}

#[test]
fn a_handle_is_resumed_by_another_manager() {
    let repo = Repo::new();
    let guard = manager(&repo).lock("x").acquire().unwrap();
    let token = guard.token();
    let handle = guard.detach().to_string();
    let other = manager(&repo);
    let guard = other.resume(&handle.parse().unwrap()).unwrap();
    assert_eq!(guard.token(), token);
    guard.release().unwrap();
    assert_eq!(other.release(&handle.parse().unwrap()).unwrap_err().code(), ErrorCode::LockLost);
}

#[test]
fn a_bounded_journal_keeps_the_newest() {
    let repo = Repo::new();
    let mut options = Options::default();
    options.keep = Some(3);
    let manager = LockManager::open_with(repo.path(), options).unwrap();
    for _ in 0..20 {
        manager.lock("x").acquire().unwrap().release().unwrap();
        let length = manager.log("x", 100).unwrap().len();
        assert!((1..=6).contains(&length), "{length}");
    }
    assert!(manager.log("x", 100).unwrap().len() >= 3);
    repo.assert_sound();
}

#[test]
fn many_guards_are_all_renewed() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let threads: Vec<_> = (0..64)
        .map(|number| {
            let manager = manager.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(number * 7));
                let guard = manager.lock(&format!("lock-{number}")).ttl(Duration::from_secs(2)).acquire().unwrap();
                thread::sleep(Duration::from_secs(5));
                assert!(!guard.is_lost(), "lock-{number}");
                guard.release().unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    repo.assert_sound();
}

#[test]
fn a_lease_that_is_not_renewed_is_told_lost_before_anybody_may_end_it() {
    let repo = Repo::new();
    let (manager, other) = (manager(&repo), manager(&repo));
    let guard = manager.lock("x").fingerprint("mine").ttl(Duration::from_millis(500)).acquire().unwrap();
    let (sender, lost) = mpsc::channel();
    guard.on_lost(move |error| sender.send(error.code()).unwrap());
    let next = thread::spawn(move || other.lock("x").acquire().unwrap());
    assert_eq!(lost.recv_timeout(Duration::from_secs(60)).unwrap(), ErrorCode::LockLost);
    assert!(guard.is_lost());
    assert_eq!(guard.extend(None).unwrap_err().code(), ErrorCode::LockLost);
    drop(guard);
    next.join().unwrap().release().unwrap();
}

/// A lock below is gone, by hand or because a release was cut off, and its intent is still there.
#[test]
fn the_doctor_ends_an_intent_whose_lock_is_gone() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let held = manager.lock("deploy/us").acquire().unwrap();
    let gone = manager.lock("deploy/eu").fingerprint("word").acquire().unwrap();
    let waits = manager.lock("deploy/us/a").owner("another").fingerprint("waits").start(|_| ()).unwrap();
    while manager.status("deploy/us").unwrap().queue.is_empty() {
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(manager.doctor(true).unwrap(), [], "what protects something, or is waited under, is no orphan");
    gone.detach();
    repo.git(&["update-ref", "-d", "refs/gitvan/locks/deploy%2Feu"]);
    let findings = manager.doctor(false).unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].what.contains("deploy is kept from others") && !findings[0].fixed, "{findings:?}");
    assert_eq!(manager.status("deploy").unwrap().intents.len(), 3);
    // Who is in the middle of a write may be about to write what is below.
    let lock = repo.git_dir().join("refs/gitvan/locks/deploy%2Feu.lock");
    // Young for as long as this test lasts, as one of a Git command at work is.
    let at_work = std::fs::File::create(&lock).unwrap();
    at_work.set_modified(std::time::SystemTime::now() + Duration::from_secs(3_600)).unwrap();
    let fixed =
        |findings: &[gitlock::Finding]| findings.iter().any(|it| it.what.contains("deploy is kept") && it.fixed);
    assert!(!fixed(&manager.doctor(true).unwrap()));
    assert!(lock.exists());
    std::fs::remove_file(&lock).unwrap();
    assert!(fixed(&manager.doctor(true).unwrap()));
    assert_eq!(manager.status("deploy").unwrap().intents.len(), 2, "the others' stay");
    waits.cancel();
    held.release().unwrap();
    manager.lock("deploy").acquire().unwrap().release().unwrap();
}
