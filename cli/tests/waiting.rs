//! What a wait shows, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::*;
use gitlock_tests::{faketime, skipped};
use serde_json::Value;

/// The two commands that wait.
const WAITS: [&[&str]; 2] = [&["acquire", "build"], &["run", "build", "--", "true"]];

#[test]
fn a_signal_ends_a_wait_and_leaves_no_waiter() {
    let repo = Repo::new();
    ok(&repo, &["acquire", "build", "--ttl", "1h"]);
    for arguments in WAITS {
        for (signal, exit) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129), (libc::SIGQUIT, 131)] {
            let waiter = Running::start(&mut lock(&repo, &[&["--json"], arguments].concat()));
            queued(&repo, "build", 1);
            waiter.signal(signal);
            let output = waiter.end();
            assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", err(&output));
            let error: Value = serde_json::from_str(&err(&output)).unwrap();
            assert_eq!(error["error"]["code"], "CANCELLED");
            assert_eq!(status(&repo, "build")["queue"].as_array().unwrap().len(), 0);
        }
    }
    assert_eq!(json(&repo, &["log", "build"])["entries"].as_array().unwrap().len(), 0, "nobody was granted it");
}

#[test]
fn an_ignored_signal_does_not_end_a_wait() {
    let repo = Repo::new();
    let handle = ok(&repo, &["acquire", "build", "--ttl", "1h"]);
    let mut command = lock(&repo, &["run", "build", "--", "true"]);
    // As nohup(1) does.
    // SAFETY: signal is async-signal-safe.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut waiter = Running::start(&mut command);
    queued(&repo, "build", 1);
    waiter.signal(libc::SIGHUP);
    pause(200);
    assert!(!waiter.is_over());
    ok(&repo, &["release", handle.trim()]);
    assert_eq!(waiter.end().status.code(), Some(0));
}

#[test]
fn a_killed_waiter_of_a_run_is_passed_over() {
    let repo = Repo::new();
    let handle = ok(&repo, &["acquire", "build", "--ttl", "1h"]);
    let killed = Running::start(&mut lock(&repo, &["run", "build", "--", "true"]));
    queued(&repo, "build", 1);
    let next = Running::start(&mut lock(&repo, &["run", "build", "--", "echo", "served"]));
    queued(&repo, "build", 2);
    let record: Value = serde_json::from_str(&repo.git(&["cat-file", "-p", "refs/gitvan/locks/build"])).unwrap();
    let guardian = u32::try_from(record["queue"][0]["process"]["group"].as_u64().unwrap()).unwrap();
    killed.signal(libc::SIGKILL);
    eventually("its guardian is gone too", || !gitlock::process::group_works(guardian));
    ok(&repo, &["release", handle.trim()]);
    let output = next.end();
    assert_eq!(out(&output), "served\n", "{}", err(&output));
    let outcomes: Vec<Value> = json(&repo, &["log", "build"])["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["released", "released"], "the dead waiter never held it");
}

#[test]
fn a_wait_is_quiet_unless_asked() {
    let repo = Repo::new();
    let handle = ok(&repo, &["acquire", "build", "--ttl", "1h", "--reason", "nightly"]);
    let quiet = Running::start(&mut lock(&repo, &["run", "build", "--", "true"]));
    queued(&repo, "build", 1);
    let told = Running::start(&mut lock(&repo, &["run", "-v", "build", "--", "true"]));
    queued(&repo, "build", 2);
    ok(&repo, &["extend", handle.trim()]);
    pause(300);
    ok(&repo, &["release", handle.trim()]);
    let (quiet, told) = (quiet.end(), told.end());
    assert_eq!((quiet.status.code(), err(&quiet)), (Some(0), String::new()));
    let lines = err(&told);
    assert_eq!(told.status.code(), Some(0), "{lines}");
    let first = lines.lines().next().unwrap_or_default();
    assert!(first.starts_with("git-lock: waiting for build: place 2 of 2; held for "), "{lines}");
    assert!(first.contains("nightly") && first.contains("until "), "{lines}");
    let same = lines.lines().filter(|line| line.contains("place 2 of 2") && line.contains("nightly")).count();
    assert_eq!(same, 1, "a renewal is no news: {lines}");
}

#[test]
fn on_a_terminal_one_line_shows_the_wait() {
    let repo = Repo::new();
    let handle = ok(&repo, &["acquire", "build", "--ttl", "1h", "--reason", "nightly"]);
    let first = Running::start(&mut lock(&repo, &["acquire", "build"]));
    queued(&repo, "build", 1);
    let terminal = Pty::start(&repo, "git-lock run build -- echo served");
    terminal.shows("build: place 2 of 2; held for ");
    terminal.shows("(pid ");
    terminal.shows(", until ");
    terminal.shows("\"nightly\"");
    first.signal(libc::SIGINT);
    first.end();
    terminal.shows("build: place 1 of 1; held for ");
    // It is drawn again without news, because time goes by.
    let drawn = |terminal: &Pty| terminal.seen().matches("\r\u{1b}[K").count();
    let before = drawn(&terminal);
    eventually("the line is drawn again", || drawn(&terminal) > before + 1);
    ok(&repo, &["release", handle.trim()]);
    terminal.shows("served");
    let seen = terminal.seen();
    assert_eq!(seen.lines().count(), 1, "all in one line: {seen:?}");
    assert!(seen.contains("\r\u{1b}[Kserved"), "the line is cleared at the end: {seen:?}");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_record_cannot_play_tricks_on_the_terminal() {
    let repo = Repo::new();
    ok(&repo, &["acquire", "build", "--ttl", "1h", "--reason", "red\u{1b}[31m"]);
    assert!(!ok(&repo, &["status", "build"]).contains('\u{1b}'));
    let mut terminal = Pty::start(&repo, "git-lock acquire build");
    terminal.shows("place 1 of 1");
    assert!(!terminal.seen().contains("\u{1b}[31m"), "{:?}", terminal.seen());
    terminal.press(b"\x03");
    assert_eq!(terminal.end(), Some(130));
    assert_eq!(status(&repo, "build")["queue"].as_array().unwrap().len(), 0);
}

#[test]
fn control_c_ends_a_wait_on_a_terminal() {
    let repo = Repo::new();
    ok(&repo, &["acquire", "build", "--ttl", "1h"]);
    for command in ["git-lock run build -- true", "git-lock acquire build"] {
        let mut terminal = Pty::start(&repo, command);
        terminal.shows("place 1 of 1");
        terminal.press(b"\x03");
        terminal.shows("git-lock: the wait for the lock build was ended by a signal");
        assert_eq!(terminal.end(), Some(130), "{command}");
        assert_eq!(status(&repo, "build")["queue"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn wall_clock_jumps_change_nothing() {
    let Some(library) = faketime::library() else {
        return skipped("wrong wall clocks", "Debian's package libfaketime isn't here");
    };
    let repo = Repo::new();
    let shifted = |by: &str, arguments: &[&str]| {
        let mut command = lock(&repo, arguments);
        command.envs(faketime::environment(&library, by)).output().unwrap()
    };
    let hour = |by: &str| {
        let mut date = std::process::Command::new("date");
        let output = date.args(["-u", "+%s"]).envs(faketime::environment(&library, by)).output().unwrap();
        out(&output).trim().parse::<i64>().unwrap()
    };
    assert!((3590..3610).contains(&(hour("+1h") - hour("+0s"))), "the clocks are really wrong");
    let mut tokens = Vec::new();
    for (taken, seen) in [("+0s", "+1h"), ("+1h", "-1h"), ("-1h", "+1h"), ("+1h", "+0s"), ("-1h", "+0s")] {
        let output = shifted(taken, &["--json", "acquire", "-n", "build", "--ttl", "5m"]);
        assert!(output.status.success(), "{taken}: {}", err(&output));
        let held: Value = serde_json::from_str(&out(&output)).unwrap();
        tokens.push(held["token"].as_u64().unwrap());
        assert_eq!(shifted(seen, &["acquire", "-n", "build"]).status.code(), Some(1), "{taken}, seen at {seen}");
        let status: Value = serde_json::from_str(&out(&shifted(seen, &["--json", "status", "build"]))).unwrap();
        let left = status["holders"][0]["remaining"].as_u64().unwrap();
        assert!((1..=300_000).contains(&left), "{taken}, seen at {seen}: {left} ms");
        let handle = held["handle"].as_str().unwrap();
        assert!(shifted(seen, &["extend", handle]).status.success());
        assert!(shifted(seen, &["release", handle]).status.success());
        // A short lease ends in its time, whatever the wall clock says.
        let short = shifted(taken, &["acquire", "build", "--ttl", "30ms"]);
        assert!(short.status.success(), "{}", err(&short));
        let next = shifted(seen, &["run", "build", "--", "echo", "served"]);
        assert_eq!(out(&next), "served\n", "{}", err(&next));
    }
    assert!(tokens.is_sorted_by(|a, b| a < b), "tokens grow: {tokens:?}");
}
