//! After a fork the child owns nothing that the parent took.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, unsafe_code)]

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use gitlock::{ErrorCode, LockGuard, LockManager};
use gitlock_tests::git::Repo;

/// Runs `child` in a fork of this process, and gives its exit code.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs the closure and exits; it never returns into the test harness.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(99);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just forked.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    libc::WEXITSTATUS(status)
}

#[test]
fn a_forked_guard_is_the_parents_and_a_forked_manager_works() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let guard = manager.lock("x").ttl(Duration::from_secs(60)).acquire().unwrap();
    let code = in_child(|| {
        if !guard.is_lost() {
            return 1;
        }
        if guard.extend(None).unwrap_err().code() != ErrorCode::Forked {
            return 2;
        }
        if manager.lock("x").try_acquire().unwrap().is_some() {
            return 3;
        }
        let own = manager.lock("y").acquire().unwrap();
        let error = manager.lock("x").wait(Duration::from_millis(50)).acquire().unwrap_err();
        if error.code() != ErrorCode::Timeout {
            return 4;
        }
        own.release().unwrap();
        0
    });
    assert_eq!(code, 0);
    // Dropping its copy in the child has released nothing.
    let mut guard = Some(guard);
    let code = in_child(|| {
        drop(guard.take());
        i32::from(!manager.status("x").unwrap().is_held())
    });
    assert_eq!(code, 0);
    guard.take().unwrap().release().unwrap();
    assert_eq!(manager.log("y", 9).unwrap().len(), 1);
}

/// A child that lives on, forked at any moment, keeps nothing locked that others need.
#[test]
fn a_child_that_lives_on_stops_nobody() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let over = AtomicBool::new(false);
    let mut children = Vec::new();
    thread::scope(|scope| {
        for name in ["a", "b"] {
            let (manager, over) = (manager.clone(), &over);
            scope.spawn(move || {
                while !over.load(SeqCst) {
                    manager.lock(name).acquire().unwrap().release().unwrap();
                    // The notes of superseded objects have a lock of their own, which may be taken just now.
                    let _ = manager.clean(None);
                }
            });
        }
        for _ in 0..200 {
            // SAFETY: the child does nothing but wait for its end, by system calls alone.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: alarm(2) and pause(2) touch no memory; the child ends with the signal.
                unsafe {
                    libc::alarm(60);
                    libc::pause();
                    libc::_exit(0);
                }
            }
            children.push(pid);
            thread::sleep(Duration::from_millis(1));
        }
        over.store(true, SeqCst);
    });
    // The children have every descriptor that was open, and still nothing is in use.
    let acquired = manager.lock("a").try_acquire().map(|guard| guard.map(LockGuard::release));
    let cleaned = manager.clean(None);
    for pid in children {
        // SAFETY: these are this process's own children, not yet waited for.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
    acquired.unwrap().unwrap().unwrap();
    assert!(cleaned.unwrap().objects_waiting > 0, "the control: there are notes");
}
