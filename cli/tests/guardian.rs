//! What happens to a command when its lock is lost, or whoever runs it dies: it is dead before
//! anybody else may hold the lock.
//!
//! The oracle is flock(1) on a file: the kernel drops it when the last process in the critical
//! section is dead, and not before. (A file made with O_EXCL would outlive who is killed.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::path::PathBuf;

use common::*;

/// The critical section: a child that waits, and a grandchild at work inside the oracle.
struct Oracle {
    entered: PathBuf,
    overlaps: PathBuf,
    script: String,
}

impl Oracle {
    fn new(repo: &Repo) -> Oracle {
        let [file, entered, overlaps] = ["oracle", "entered", "overlaps"].map(|name| repo.path().join(name));
        let work = format!("echo $$ >> {}; while :; do sleep 0.01; done", entered.display());
        let script =
            format!("flock -n {} sh -c '{work}' || echo overlap >> {} & wait", file.display(), overlaps.display());
        Oracle { entered, overlaps, script }
    }

    fn run(&self, repo: &Repo, options: &[&str]) -> Running {
        let arguments = [&["run"], options, &["build", "--", "sh", "-c", &self.script]].concat();
        Running::start(&mut lock(repo, &arguments))
    }

    /// Waits until so many have entered since the beginning. Gives the pid of the last.
    #[track_caller]
    fn entered(&self, count: usize) -> i32 {
        let mut pid = 0;
        eventually(&format!("{count} have entered, without an overlap"), || {
            self.assert_alone();
            let text = std::fs::read_to_string(&self.entered).unwrap_or_default();
            pid = text.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0);
            text.ends_with('\n') && text.lines().count() >= count
        });
        pid
    }

    #[track_caller]
    fn assert_alone(&self) {
        assert!(!self.overlaps.exists(), "two worked at once");
    }
}

fn rounds(default: usize) -> usize {
    std::env::var("GITLOCK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_killed_run_takes_its_grandchildren_with_it_before_the_next_works() {
    let repo = Repo::new();
    let oracle = Oracle::new(&repo);
    let mut holder = oracle.run(&repo, &[]);
    let (mut took, mut zombies) = (Vec::new(), Vec::new());
    let rounds = rounds(30);
    for round in 1..=rounds {
        let worker = oracle.entered(round);
        let waits = round % 3 != 0;
        let next = waits.then(|| oracle.run(&repo, &[]));
        if waits {
            queued(&repo, "build", 1);
        }
        assert!(runs(worker));
        let killed_at = now();
        holder.signal(libc::SIGKILL);
        // Not reaped before the end: a zombie owner is a dead one.
        zombies.push(holder);
        holder = next.unwrap_or_else(|| oracle.run(&repo, &[]));
        oracle.entered(round + 1);
        took.push(now() - killed_at);
        assert!(!runs(worker), "the grandchild of the killed run is dead");
    }
    took.sort_unstable();
    println!(
        "{rounds} runs killed with -9; the next was at work after {} ms (median), {} ms at most",
        took[rounds / 2],
        took[rounds - 1]
    );
    holder.signal(libc::SIGTERM);
    holder.end();
    oracle.assert_alone();
    free(&repo, "build");
    let log = json(&repo, &["log", "-n", "100000", "build"]);
    let entries = log["entries"].as_array().unwrap();
    assert_eq!(entries.iter().filter(|entry| entry["outcome"] == "owner died").count(), rounds);
    repo.assert_sound();
}

#[test]
fn a_killed_run_in_the_middle_of_anything_leaves_nothing_behind() {
    let repo = Repo::new();
    for round in 0..rounds(30) {
        let run = Running::start(&mut lock(&repo, &["run", "build", "--", "sh", "-c", "sleep 0.005; exit 0"]));
        pause(round as u64 % 25);
        run.signal(libc::SIGKILL);
        drop(run);
        // At once: its owner is provably dead as soon as the guardian is.
        ok(&repo, &["run", "--wait", "30s", "build", "--", "true"]);
        free(&repo, "build");
    }
    repo.assert_sound();
}

#[test]
fn a_stopped_run_loses_its_lease_and_its_command() {
    let repo = Repo::new();
    let oracle = Oracle::new(&repo);
    for round in 0..5 {
        let stopped = oracle.run(&repo, &["--ttl", "500ms"]);
        let worker = oracle.entered(2 * round + 1);
        let next = oracle.run(&repo, &[]);
        queued(&repo, "build", 1);
        assert!(runs(worker));
        stopped.signal(libc::SIGSTOP);
        oracle.entered(2 * round + 2);
        assert!(!runs(worker), "the guardian killed it while the run was stopped");
        stopped.signal(libc::SIGCONT);
        let output = stopped.end();
        assert_eq!(output.status.code(), Some(3), "{}", err(&output));
        assert!(err(&output).starts_with("git-lock: the lock"), "{}", err(&output));
        next.signal(libc::SIGTERM);
        assert_eq!(next.end().status.code(), Some(143));
    }
    oracle.assert_alone();
}

#[test]
fn a_broken_lock_kills_the_command_at_once() {
    let repo = Repo::new();
    let oracle = Oracle::new(&repo);
    let run = {
        let arguments = ["--json", "run", "--ttl", "1h", "build", "--", "sh", "-c", &oracle.script];
        Running::start(&mut lock(&repo, &arguments))
    };
    let worker = oracle.entered(1);
    ok(&repo, &["break", "build", "--reason", "a test"]);
    let output = run.end();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    let error: serde_json::Value = serde_json::from_str(&err(&output)).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["exitCode"]), (&"LOCK_LOST".into(), &3.into()));
    assert!(!runs(worker), "nothing of it is left when the run says so");
    free(&repo, "build");
}

#[test]
fn a_lock_that_was_released_under_a_run_is_lost() {
    let repo = Repo::new();
    let script = format!("{} release; sleep 1000", env!("CARGO_BIN_EXE_git-lock"));
    let output = done(&repo, &["run", "build", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    // Too late to stop anything, but not too late to say so.
    let script = format!("exec {} release", env!("CARGO_BIN_EXE_git-lock"));
    let output = done(&repo, &["run", "build", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
}

#[test]
fn a_ttl_made_shorter_by_its_handle_costs_a_run_nothing() {
    let repo = Repo::new();
    let script = "git-lock extend --ttl 600ms && sleep 2 && git-lock status build";
    let script = script.replace("git-lock", env!("CARGO_BIN_EXE_git-lock"));
    let output = done(&repo, &["run", "--ttl", "1h", "build", "--", "sh", "-c", &script]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    assert!(out(&output).starts_with("build: held"), "{}", out(&output));
}

/// Makes every write of the lock's ref wait, as a hung Git process would.
fn block_renewals(repo: &Repo) -> PathBuf {
    let path = repo.git_dir().join("refs/gitvan/locks/build.lock");
    eventually("the ref's .lock is free", || {
        std::fs::OpenOptions::new().write(true).create_new(true).open(&path).is_ok()
    });
    path
}

#[test]
fn a_lease_that_cannot_be_renewed_stops_the_command_while_it_is_still_held() {
    let repo = Repo::new();
    let [ready, told] = ["ready", "told"].map(|name| repo.path().join(name));
    let script = format!(
        "trap 'echo stopped > {}; exit 0' TERM; echo > {}; while :; do sleep 0.01; done",
        told.display(),
        ready.display()
    );
    let run = Running::start(&mut lock(&repo, &["run", "--ttl", "4s", "build", "--", "sh", "-c", &script]));
    eventually("it is ready", || ready.exists());
    let blocked = block_renewals(&repo);
    line_of(&told);
    let held = status(&repo, "build");
    assert_eq!(held["held"], true, "it was asked while the lease lasted: {held}");
    std::fs::remove_file(blocked).unwrap();
    let output = run.end();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains("can't be renewed"), "{}", err(&output));
    free(&repo, "build");
}

#[test]
fn a_command_that_does_not_stop_is_killed_before_the_lease_ends() {
    let repo = Repo::new();
    let [ready, beat] = ["ready", "beat"].map(|name| repo.path().join(name));
    let script =
        format!("trap '' TERM; echo $$ > {}; while :; do echo > {}; sleep 0.01; done", ready.display(), beat.display());
    let run = Running::start(&mut lock(&repo, &["run", "--ttl", "2s", "build", "--", "sh", "-c", &script]));
    let worker: i32 = line_of(&ready).parse().unwrap();
    let blocked = block_renewals(&repo);
    // Asked again and again: as long as it runs, the lease lasts.
    loop {
        let ran = runs(worker);
        let held = status(&repo, "build")["held"] == true;
        let still = runs(worker);
        assert!(held || !still, "it ran, and the lease was over");
        if !ran && !held {
            break;
        }
        pause(5);
    }
    std::fs::remove_file(blocked).unwrap();
    let output = run.end();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
}

#[test]
fn without_its_guardian_a_command_does_not_run_on() {
    let repo = Repo::new();
    let oracle = Oracle::new(&repo);
    let run = oracle.run(&repo, &[]);
    let worker = oracle.entered(1);
    send(group_of(&repo, "build"), libc::SIGKILL);
    let output = run.end();
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    assert!(err(&output).contains("guardian"), "{}", err(&output));
    assert!(!runs(worker));
    free(&repo, "build");
}

#[test]
fn without_its_guardian_a_run_stops_waiting() {
    let repo = Repo::new();
    ok(&repo, &["acquire", "build", "--ttl", "1h"]);
    let run = Running::start(&mut lock(&repo, &["run", "build", "--", "true"]));
    queued(&repo, "build", 1);
    let record: serde_json::Value =
        serde_json::from_str(&repo.git(&["cat-file", "-p", "refs/gitvan/locks/build"])).unwrap();
    send(i32::try_from(record["queue"][0]["process"]["group"].as_i64().unwrap()).unwrap(), libc::SIGKILL);
    let output = run.end();
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    queued(&repo, "build", 0);
}

#[test]
fn the_guardian_survives_what_is_sent_to_the_group() {
    let repo = Repo::new();
    let ready = repo.path().join("ready");
    let script = format!(
        "trap '' HUP INT QUIT TERM USR1 USR2 TSTP ALRM; echo > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let run = Running::start(&mut lock(&repo, &["run", "build", "--", "sh", "-c", &script]));
    eventually("it is ready", || ready.exists());
    let guardian = group_of(&repo, "build");
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGTSTP,
        libc::SIGALRM,
    ] {
        send(guardian, signal);
    }
    pause(100);
    assert!(runs(guardian));
    run.signal(libc::SIGKILL);
    drop(run);
    eventually("the whole group is gone", || !gitlock::process::group_works(guardian.unsigned_abs()));
}

#[test]
fn the_guardian_is_nothing_to_start_by_hand() {
    let repo = Repo::new();
    fails(&repo, &["guardian"], 2, "INVALID_ARGUMENT");
}
