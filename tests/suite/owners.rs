//! Owners that are hard to judge: hidden, in another pid namespace, zombies, and pids used again.
//! What isn't provably dead is never taken for dead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use gitlock::{ErrorCode, Liveness, LockManager, lock::ProcessStamp};
use gitlock_tests::git::Repo;

fn this_test(name: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().display().to_string();
    [&*exe, "--exact", name, "--ignored", "--nocapture"].map(str::to_owned).to_vec()
}

/// Runs a test of this file under another program, such as `unshare`.
fn under(wrapper: &[&str], name: &str, repo: &Path) -> Command {
    let mut words: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
    words.extend(this_test(name));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("GITLOCK_TEST_REPO", repo).stderr(Stdio::null());
    command
}

fn can(wrapper: &[&str]) -> bool {
    let ran = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").stderr(Stdio::null()).status();
    let can = ran.is_ok_and(|status| status.success());
    if !can {
        println!("skipped: `{}` is not possible here", wrapper.join(" "));
    }
    can
}

#[test]
#[ignore = "only as a process of its own, for the tests below"]
fn hold_for_a_second_and_die() {
    let repo = std::env::var_os("GITLOCK_TEST_REPO").unwrap();
    let guard = LockManager::open(repo).unwrap().lock("x").ttl(Duration::from_secs(4)).renew(false).acquire().unwrap();
    println!("held");
    thread::sleep(Duration::from_secs(1));
    std::mem::forget(guard);
    std::process::abort();
}

fn until_held(manager: &LockManager, child: &mut Child) {
    while !manager.status("x").unwrap().is_held() {
        assert!(child.try_wait().unwrap().is_none(), "the holder ended early");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_owner_in_another_pid_namespace_ends_by_time_alone() {
    let wrapper = ["unshare", "--pid", "--fork", "--mount-proc"];
    if !can(&wrapper) {
        return;
    }
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let mut holder = under(&wrapper, "hold_for_a_second_and_die", repo.path()).stdout(Stdio::null()).spawn().unwrap();
    until_held(&manager, &mut holder);
    // Its pid means another process here, or none: neither says anything about it.
    assert_eq!(manager.status("x").unwrap().holders[0].liveness, Liveness::Unknown);
    holder.wait().unwrap();
    assert_eq!(
        manager.lock("x").acquire_now().unwrap_err().code(),
        ErrorCode::Held,
        "nobody here can know that it died"
    );
    manager.lock("x").wait(Duration::from_secs(60)).acquire().unwrap().release().unwrap();
    assert_eq!(manager.log("x", 9).unwrap()[1].outcome, "expired");
}

#[test]
fn an_owner_that_dies_here_frees_its_lock_at_once() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let mut holder = under(&["env"], "hold_for_a_second_and_die", repo.path()).stdout(Stdio::null()).spawn().unwrap();
    until_held(&manager, &mut holder);
    assert_eq!(manager.status("x").unwrap().holders[0].liveness, Liveness::Alive);
    // Not reaped: a zombie with one thread is as dead as can be.
    let guard = manager.lock("x").wait(Duration::from_secs(60)).acquire().unwrap();
    assert_eq!(manager.log("x", 9).unwrap()[0].outcome, "owner died");
    guard.release().unwrap();
    holder.wait().unwrap();
}

#[test]
#[ignore = "only as a process of its own, for the test below"]
fn judge() {
    let number = |key: &str| std::env::var(key).unwrap().parse::<u64>().unwrap();
    let pid = u32::try_from(number("GITLOCK_TEST_PID")).unwrap();
    let mut stamp = gitlock::process::stamp();
    stamp.start = Some(number("GITLOCK_TEST_START"));
    println!("judged {:?}", gitlock::process::liveness(&claim(pid, stamp)));
}

fn claim(pid: u32, process: ProcessStamp) -> gitlock::Claim {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let guard = manager.lock("x").acquire().unwrap();
    let mut claim = manager.status("x").unwrap().holders[0].holder.claim.clone();
    guard.release().unwrap();
    (claim.pid, claim.process) = (pid, Some(process));
    claim
}

#[test]
fn an_owner_that_proc_hides_is_unknown_and_a_dead_one_is_dead() {
    let hidden =
        "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-c", hidden, "sh"];
    if !can(&wrapper) {
        return;
    }
    let stamp = gitlock::process::stamp();
    let judge = |pid: u32, start: u64| {
        let exe = tempfile::Builder::new().prefix("gitlock-judge-").tempdir().unwrap();
        // Where the other user may run it.
        let copy = exe.path().join("judge");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        std::fs::set_permissions(exe.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new(wrapper[0])
            .args(&wrapper[1..])
            .arg(&copy)
            .args(["--exact", "judge", "--ignored", "--nocapture"])
            .env("GITLOCK_TEST_PID", pid.to_string())
            .env("GITLOCK_TEST_START", start.to_string())
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let judged = told.lines().find_map(|line| line.split_once("judged ").map(|(_, judged)| judged.to_owned()));
        judged.unwrap_or_else(|| panic!("{told}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let start = stamp.start.unwrap();
    assert_eq!(judge(std::process::id(), start), "Unknown", "it lives, and can't be seen");
    assert_eq!(judge(std::process::id(), start + 1), "Unknown", "nor can it be told from another");
    assert_eq!(judge(4_000_000, start), "Dead", "a pid that nobody has");
}
