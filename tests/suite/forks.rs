//! After a fork the child owns nothing that the parent took.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, unsafe_code)]

use std::time::Duration;

use gitlock::{ErrorCode, LockManager};
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
