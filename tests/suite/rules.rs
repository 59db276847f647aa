//! Hierarchies, sets, slots, upgrades, reentrancy and deadlocks, through managers on real repositories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use gitlock::{
    ErrorCode, LockGuard, LockManager, Mode, Options, Wanted,
    clock::{Clock, SystemClock},
};
use gitlock_tests::git::Repo;

/// How many wait, and the highest priority among them.
type News = (usize, Option<i32>);

const SOON: Duration = Duration::from_secs(20);

fn opened() -> (Repo, LockManager) {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    (repo, manager)
}

/// A manager of its own for everybody, as in processes of their own.
fn session(repo: &Repo, owner: &str) -> LockManager {
    let mut options = Options::default();
    options.owner = Some(owner.to_owned());
    LockManager::open_with(repo.path(), options).unwrap()
}

fn refs(repo: &Repo) -> String {
    repo.git(&["for-each-ref", "--format=%(refname:lstrip=3)", "refs/gitvan/locks"])
}

fn tries(manager: &LockManager, name: &str) -> Option<LockGuard> {
    manager.lock(name).try_acquire().unwrap()
}

#[test]
fn a_tree_excludes_along_every_path_and_leaves_nothing_behind() {
    let (repo, _) = opened();
    let (me, you) = (session(&repo, "me"), session(&repo, "you"));
    let eu = me.lock("deploy/eu").acquire().unwrap();
    assert_eq!(refs(&repo), "deploy\ndeploy%2Feu");
    assert!(tries(&you, "deploy").is_none());
    assert!(tries(&you, "deploy/eu/web").is_none());
    let us = tries(&you, "deploy/us").expect("a sibling");
    let error = you.lock("deploy").acquire_now().unwrap_err();
    assert!(error.to_string().contains("), who holds something below it"), "{error}");
    let listing = me.list().unwrap();
    let held: Vec<(&str, bool)> = listing.locks.iter().map(|lock| (lock.name.as_str(), lock.is_held())).collect();
    assert_eq!(held, [("deploy", false), ("deploy/eu", true), ("deploy/us", true)]);
    let error = me.break_lock("deploy", None, None).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().matches("something below").count()),
        (ErrorCode::LockLost, 1),
        "{error}"
    );
    eu.extend(None).unwrap();
    eu.release().unwrap();
    us.release().unwrap();
    assert_eq!(refs(&repo), "");
    assert_eq!(me.log("deploy", 9).unwrap().len(), 0, "an intent has no entry");
    assert_eq!(me.log("deploy/eu", 9).unwrap().len(), 1);
    repo.git(&["fsck", "--strict"]);
}

#[test]
fn who_holds_the_whole_takes_its_parts_also_from_another_process() {
    let (repo, _) = opened();
    let (me, helper, you) = (session(&repo, "me"), session(&repo, "helper"), session(&repo, "you"));
    let whole = me.lock("deploy").acquire().unwrap();
    let handle = whole.handle().to_string().parse().unwrap();
    let part = helper.lock("deploy/eu").within(&handle).try_acquire().unwrap().expect("by the handle");
    assert!(helper.lock("deploy/us").try_acquire().unwrap().is_none(), "not without it");
    assert!(tries(&me, "deploy/us").is_some());
    whole.release().unwrap();
    assert!(tries(&you, "deploy").is_none(), "a part is still held");
    assert!(tries(&you, "deploy/us").is_some());
    part.release().unwrap();
    assert!(tries(&you, "deploy").is_some());
}

#[test]
fn a_wait_for_a_part_goes_on_after_the_whole_and_is_resumed_elsewhere() {
    let (repo, _) = opened();
    let (me, you) = (session(&repo, "me"), session(&repo, "you"));
    let whole = me.lock("a").acquire().unwrap();
    let (sender, heard) = mpsc::channel();
    you.lock("a/b/c").ttl(Duration::from_secs(2)).start(move |guard| sender.send(guard).unwrap()).unwrap();
    assert!(heard.recv_timeout(Duration::from_millis(200)).is_err());
    let below = me.lock("a/b/c").acquire().unwrap();
    whole.release().unwrap();
    // It has its intents, keeps them beyond their lease, and waits for the last step.
    assert!(heard.recv_timeout(Duration::from_secs(3)).is_err());
    below.release().unwrap();
    let guard = heard.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!(guard.name().as_str(), "a/b/c");
    let handle = guard.detach();
    let resumed = me.resume(&handle).unwrap();
    assert!(me.extend(&handle, Some(Duration::from_secs(60))).unwrap() > Duration::from_secs(50));
    resumed.release().unwrap();
    assert_eq!(refs(&repo), "");
}

#[test]
fn force_takes_the_intents_too_and_the_loser_is_told() {
    let (repo, manager) = opened();
    let guard = manager.lock("a/b").acquire().unwrap();
    assert_eq!(session(&repo, "op").break_lock("a/b", None, Some("stuck")).unwrap().len(), 1);
    assert_eq!(refs(&repo), "");
    assert_eq!(guard.release().unwrap_err().code(), ErrorCode::LockLost);
}

#[test]
fn a_set_is_all_or_none_whatever_the_order() {
    let (repo, _) = opened();
    let (me, you) = (session(&repo, "me"), session(&repo, "you"));
    let one = me.lock("b").acquire().unwrap();
    assert!(you.lock_all(&["c", "b", "a/x"]).try_acquire().unwrap().is_none());
    assert_eq!(refs(&repo), "b", "nothing of it stays");
    one.release().unwrap();
    let set = you.lock_all(&["c", "b", "a/x"]).acquire().unwrap();
    assert_eq!(refs(&repo), "a\na%2Fx\nb\nc");
    let tokens: Vec<u64> = ["c", "b", "a/x"].iter().map(|name| set.token_of(name).unwrap()).collect();
    assert_eq!(set.token(), tokens[0]);
    you.verify("b", tokens[1]).unwrap();
    assert_eq!(you.verify("b", tokens[1] - 1).unwrap_err().code(), ErrorCode::LockLost);
    let handle = set.handle();
    assert_eq!(handle.to_string().parse::<gitlock::LockHandle>().unwrap(), handle);
    set.release().unwrap();
    assert_eq!(refs(&repo), "");
}

#[test]
fn sets_in_any_order_never_wait_for_each_other() {
    let (repo, _) = opened();
    let names = ["a", "b/x", "b/y", "c"];
    let workers: Vec<_> = (0..4)
        .map(|at: usize| {
            let manager = session(&repo, &format!("worker {at}"));
            thread::spawn(move || {
                for round in 0..15 {
                    let pick = [names[(at + round) % 4], names[(at * 3 + round + 1) % 4], names[(at + 2) % 4]];
                    manager.lock_all(&pick).wait(SOON).acquire().unwrap().release().unwrap();
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(refs(&repo), "");
}

#[test]
fn slots_are_counted_and_named() {
    let (_repo, manager) = opened();
    let take = || manager.lock("port").slots(2).try_acquire().unwrap();
    let (first, second) = (take().unwrap(), take().unwrap());
    assert_eq!((first.slot(), second.slot()), (Some(0), Some(1)));
    assert!(take().is_none());
    assert!(tries(&manager, "port").is_none(), "nor the whole");
    assert_eq!(manager.lock("port").slots(3).acquire_now().unwrap_err().code(), ErrorCode::SlotsDiffer);
    assert_eq!(manager.lock("port").slots(0).acquire_now().unwrap_err().code(), ErrorCode::InvalidArgument);
    assert_eq!(first.upgrade(None, None).unwrap_err().code(), ErrorCode::InvalidArgument);
    first.release().unwrap();
    assert_eq!(take().unwrap().slot(), Some(0));
}

#[test]
fn an_upgrade_waits_for_readers_and_two_are_a_deadlock() {
    let (repo, manager) = opened();
    let read = || manager.lock("t/x").shared().acquire().unwrap();
    let (first, second) = (read(), read());
    assert_eq!(first.upgrade(Some(Duration::ZERO), None).unwrap_err().code(), ErrorCode::Held);
    assert_eq!(first.upgrade(Some(Duration::from_millis(50)), None).unwrap_err().code(), ErrorCode::Timeout);
    assert_eq!(first.mode(), Mode::Shared);
    let token = second.token();
    let first = Arc::new(first);
    let waiting = thread::spawn({
        let first = first.clone();
        move || first.upgrade(Some(SOON), None)
    });
    while manager.status("t/x").unwrap().queue.is_empty() {
        SystemClock.pause(Duration::from_millis(5));
    }
    assert_eq!(second.upgrade(Some(SOON), None).unwrap_err().code(), ErrorCode::Deadlock);
    second.release().unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!(first.mode(), Mode::Exclusive);
    assert!(first.token() > token);
    assert!(session(&repo, "you").lock("t").shared().try_acquire().unwrap().is_none(), "its intent went up too");
    first.downgrade().unwrap();
    assert!(session(&repo, "you").lock("t").shared().try_acquire().unwrap().is_some());
    assert!(manager.lock("t/x").shared().try_acquire().unwrap().is_some());
}

#[test]
fn an_owner_takes_it_once_more_only_on_request() {
    let (repo, manager) = opened();
    let outer = manager.lock("x").reentrant(true).acquire().unwrap();
    assert!(tries(&manager, "x").is_none());
    let inner = manager.lock("x").reentrant(true).acquire().unwrap();
    assert_eq!(inner.token(), outer.token());
    let elsewhere = manager.clone();
    thread::spawn(move || assert!(elsewhere.lock("x").reentrant(true).try_acquire().unwrap().is_none()))
        .join()
        .unwrap();
    outer.release().unwrap();
    assert!(!inner.is_lost());
    assert_eq!(refs(&repo), "x");
    inner.release().unwrap();
    assert_eq!(refs(&repo), "");
    assert!(tries(&manager, "x").is_some());
}

#[test]
fn a_tenure_that_is_detached_outlives_its_other_guards() {
    let (repo, manager) = opened();
    let outer = manager.lock("x").reentrant(true).acquire().unwrap();
    let handle = manager.lock("x").reentrant(true).acquire().unwrap().detach();
    outer.extend(None).unwrap();
    outer.release().unwrap();
    assert_eq!(refs(&repo), "x");
    manager.release(&handle).unwrap();
    assert_eq!(refs(&repo), "");
}

#[test]
fn who_loses_one_of_several_locks_gives_the_others_back() {
    let (repo, manager) = opened();
    let set = manager.lock_all(&["a/x", "b"]).ttl(Duration::from_secs(3_600)).acquire().unwrap();
    let (sender, lost) = mpsc::channel();
    set.on_lost(move |error| sender.send(error.code()).unwrap());
    session(&repo, "op").break_lock("b", None, None).unwrap();
    assert_eq!(lost.recv_timeout(SOON).unwrap(), ErrorCode::LockLost);
    while !refs(&repo).is_empty() {
        SystemClock.pause(Duration::from_millis(5));
    }
}

#[test]
fn a_holder_learns_that_others_wait() {
    let (repo, manager) = opened();
    let guard = manager.lock("x").acquire().unwrap();
    assert_eq!(guard.wanted().unwrap(), Wanted::default());
    let told: Arc<Mutex<Vec<News>>> = Arc::default();
    let tell = told.clone();
    guard.on_wanted(move |wanted| tell.lock().unwrap().push((wanted.waiters, wanted.priority)));
    let you = session(&repo, "you");
    let waiting = you.lock("x").priority(7).start(|_| {}).unwrap();
    let until = |want: &[News]| {
        while told.lock().unwrap().as_slice() != want {
            SystemClock.pause(Duration::from_millis(5));
        }
    };
    until(&[(1, Some(7))]);
    assert_eq!(guard.wanted().unwrap().waiters, 1);
    waiting.cancel();
    until(&[(1, Some(7)), (0, None)]);
    // Who asks only when others wait already is told so too.
    let waiting = you.lock("x").start(|_| {}).unwrap();
    while guard.wanted().unwrap().waiters == 0 {
        SystemClock.pause(Duration::from_millis(5));
    }
    let (sender, late) = mpsc::channel();
    guard.on_wanted(move |wanted| sender.send(wanted.waiters).unwrap());
    assert_eq!(late.recv_timeout(SOON).unwrap(), 1);
    waiting.cancel();
}

/// Everybody holds one and wants the next.
fn ring(sessions: &[LockManager], names: &[&str]) -> Vec<gitlock::Result<()>> {
    let guards: Vec<LockGuard> = sessions.iter().zip(names).map(|(s, name)| s.lock(name).acquire().unwrap()).collect();
    let (sender, heard) = mpsc::channel();
    thread::scope(|scope| {
        for (at, guard) in guards.into_iter().enumerate() {
            let (session, next, sender) = (&sessions[at], names[(at + 1) % names.len()], sender.clone());
            scope.spawn(move || {
                let result = session.lock(next).wait(SOON).acquire();
                // Whoever was picked lets go, and the others are served.
                guard.release().unwrap();
                sender.send(result.and_then(LockGuard::release)).unwrap();
            });
        }
    });
    drop(sender);
    heard.iter().collect()
}

#[test]
fn a_ring_of_waits_has_one_victim_who_is_told_the_cycle() {
    let (repo, _) = opened();
    for count in 2..5 {
        let names = ["x", "y/z", "v", "w"];
        let sessions: Vec<LockManager> = (0..count).map(|at| session(&repo, &format!("owner {at}"))).collect();
        let results = ring(&sessions, &names[..count]);
        let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].code(), ErrorCode::Deadlock);
        let text = errors[0].to_string();
        assert!((0..count).all(|at| text.contains(&format!("owner {at} holds"))), "{text}");
    }
    assert_eq!(refs(&repo), "");
}

#[test]
fn no_deadlock_is_told_of_one_owner_or_of_who_is_served() {
    let (repo, manager) = opened();
    let guard = manager.lock("x").acquire().unwrap();
    // The same owner waits for what another of its threads is going to release.
    let releasing = thread::spawn(move || {
        SystemClock.pause(Duration::from_millis(1_600));
        guard.release().unwrap();
    });
    manager.lock("x").wait(SOON).acquire().unwrap().release().unwrap();
    releasing.join().unwrap();
    let (me, you) = (session(&repo, "me"), session(&repo, "you"));
    let held = me.lock("x").acquire().unwrap();
    let graph = || me.graph().unwrap();
    let waiting = you.lock("x").start(|_| {}).unwrap();
    while graph().edges.is_empty() {
        SystemClock.pause(Duration::from_millis(5));
    }
    let graph = graph();
    assert_eq!((graph.edges.len(), graph.cycles.len()), (1, 0));
    assert!(graph.to_dot().contains("\"you\" -> \"me\" [label=\"x\"]"), "{}", graph.to_dot());
    waiting.cancel();
    held.release().unwrap();
}

/// Each has one lock at a time and waits for the other's release, for longer than it takes until somebody looks.
#[test]
fn threads_that_only_wait_for_each_others_release_are_in_no_deadlock() {
    let (repo, manager) = opened();
    let lost: Vec<gitlock::Error> = thread::scope(|scope| {
        let work = |at: usize| {
            let manager = &manager;
            scope.spawn(move || -> gitlock::Result<()> {
                for round in 0..6 {
                    let guard = manager.lock(["x", "y"][(at + round) % 2]).wait(SOON).acquire()?;
                    SystemClock.pause(Duration::from_millis(60));
                    guard.release()?;
                }
                Ok(())
            })
        };
        let threads: Vec<_> = (0..6).map(work).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect()
    });
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(refs(&repo), "");
}

/// Its owner waits for it, and for another that the releasing thread waits for too.
#[test]
fn a_lock_that_another_thread_releases_is_in_no_deadlock() {
    let (repo, manager) = opened();
    let (guard, other) = (manager.lock("x").acquire().unwrap(), session(&repo, "another"));
    let held = other.lock("y").acquire().unwrap();
    thread::scope(|scope| {
        let releasing = scope.spawn(|| {
            // On a thread, and so by an owner, of its own.
            manager.lock("y").wait(SOON).acquire().unwrap().release().unwrap();
            guard.release().unwrap();
        });
        scope.spawn(|| {
            SystemClock.pause(Duration::from_millis(1_600));
            held.release().unwrap();
        });
        manager.lock("x").wait(SOON).acquire().unwrap().release().unwrap();
        releasing.join().unwrap();
    });
    assert_eq!(refs(&repo), "");
}
