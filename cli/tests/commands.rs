//! Every subcommand, every exit code, and the shape of every JSON object.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::Command};

use common::*;
use gitlock_tests::{
    git::run_git,
    servers::{Daemon, Served},
};
use serde_json::Value;

/// The keys of an object, in order.
fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

const HOLDER: [&str; 16] = [
    "acquiredAt",
    "bound",
    "from",
    "hostname",
    "id",
    "mode",
    "owner",
    "pid",
    "priority",
    "reason",
    "slot",
    "slots",
    "timeout",
    "token",
    "ttl",
    "waited",
];

#[test]
fn a_lock_by_its_handle_from_acquire_to_release() {
    let repo = Repo::new();
    let handle = ok(&repo, &["acquire", "build", "--ttl", "2m", "--reason", "a test"]);
    let handle = handle.trim();
    assert!(handle.starts_with("gitlock:1:build:"), "{handle}");
    let held = status(&repo, "build");
    let holder = &held["holders"][0];
    assert_eq!(
        (&holder["bound"], &holder["reason"], &holder["ttl"]),
        (&"lease".into(), &"a test".into(), &120_000.into())
    );
    let left = json(&repo, &["extend", handle, "--ttl", "1h"]);
    assert_eq!(keys(&left), ["name", "remaining"]);
    let remaining = left["remaining"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&remaining), "what is left by now: {remaining}");
    assert_eq!(status(&repo, "build")["holders"][0]["ttl"], 3_600_000);
    let released = json(&repo, &["release", handle]);
    assert_eq!((keys(&released), &released["released"]), (vec!["name", "released"], &true.into()));
    free(&repo, "build");
    fails(&repo, &["release", handle], 3, "LOCK_LOST");
    fails(&repo, &["extend", handle], 3, "LOCK_LOST");
    repo.assert_sound();
}

#[test]
fn a_lock_by_a_fingerprint() {
    let repo = Repo::new();
    let taken = json(&repo, &["acquire", "build", "--fingerprint", "mine", "--ttl", "1m"]);
    assert_eq!(keys(&taken), ["fingerprint", "handle", "id", "mode", "name", "slot", "token", "tokens", "ttl"]);
    assert_eq!((&taken["fingerprint"], &taken["ttl"]), (&"mine".into(), &60_000.into()));
    fails(&repo, &["release", "build", "--fingerprint", "yours"], 3, "NOT_OWNER");
    fails(&repo, &["extend", "build", "--fingerprint", "yours"], 3, "NOT_OWNER");
    ok(&repo, &["extend", "build", "--fingerprint", "mine"]);
    ok(&repo, &["release", "build", "--fingerprint", "mine"]);
    free(&repo, "build");
}

#[test]
fn the_environment_hands_a_handle_on() {
    let repo = Repo::new();
    let handle = ok(&repo, &["acquire", "build"]);
    for arguments in [&["extend"][..], &["extend", "build"], &["release"]] {
        let output = lock(&repo, arguments).env("GIT_LOCK_HANDLE", handle.trim()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    }
    free(&repo, "build");
    let output = lock(&repo, &["release", "other"]).env("GIT_LOCK_HANDLE", handle.trim()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "a handle of another lock is not meant");
    let output = lock(&repo, &["release"]).env("GIT_LOCK_HANDLE", OsStr::from_bytes(b"\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_is_held_is_refused_with_1_or_the_code_that_was_asked_for() {
    let repo = Repo::new();
    ok(&repo, &["acquire", "build", "--reason", "first"]);
    for command in [&["acquire", "build"][..], &["run", "build", "--", "true"]] {
        let with = |more: &[&'static str]| [&command[..1], more, &command[1..]].concat();
        let error = fails(&repo, &with(&["--no-wait"]), 1, "HELD");
        assert_eq!(keys(&error["holder"]), HOLDER);
        assert_eq!(error["holder"]["reason"], "first");
        fails(&repo, &with(&["-n", "-E", "75"]), 75, "HELD");
        fails(&repo, &with(&["--wait", "0"]), 1, "HELD");
        fails(&repo, &with(&["--wait", "50ms"]), 1, "TIMEOUT");
        fails(&repo, &with(&["-w", "50ms", "--conflict-exit-code", "9"]), 9, "TIMEOUT");
    }
    assert_eq!(status(&repo, "build")["queue"].as_array().unwrap().len(), 0, "no waiter is left");
}

#[test]
fn shared_holders_stand_side_by_side() {
    let repo = Repo::new();
    ok(&repo, &["acquire", "data", "--shared"]);
    ok(&repo, &["acquire", "data", "-s", "-n"]);
    let held = status(&repo, "data");
    assert_eq!(held["holders"].as_array().unwrap().len(), 2);
    assert_eq!(held["holders"][0]["mode"], "shared");
    fails(&repo, &["acquire", "data", "-n"], 1, "HELD");
    ok(&repo, &["run", "--shared", "data", "--", "true"]);
}

#[test]
fn status_and_list_say_who_holds_and_who_waits() {
    let repo = Repo::new();
    assert_eq!(ok(&repo, &["status", "build"]), "build: free\n");
    assert_eq!(ok(&repo, &["status"]), "no lock is held\n");
    assert_eq!(ok(&repo, &["list"]), "");
    ok(&repo, &["acquire", "build", "--reason", "nightly"]);
    let mut waiter = Running::start(&mut lock(&repo, &["acquire", "build", "--priority", "-3", "--wait", "5m"]));
    queued(&repo, "build", 1);
    let held = status(&repo, "build");
    assert_eq!(keys(&held), ["held", "holders", "intents", "name", "problem", "queue"]);
    let mut expected = HOLDER.to_vec();
    expected.extend(["heldFor", "process", "remaining"]);
    expected.sort_unstable();
    assert_eq!(keys(&held["holders"][0]), expected);
    let waiting = &held["queue"][0];
    assert_eq!(
        keys(waiting),
        ["hostname", "id", "mode", "owner", "pid", "position", "priority", "reason", "since", "until", "waited"]
    );
    assert_eq!((&waiting["priority"], &waiting["position"]), (&(-3).into(), &1.into()));
    assert_eq!(waiting["pid"], waiter.pid());
    let text = ok(&repo, &["status", "build"]);
    assert!(text.contains("held") && text.contains("\"nightly\"") && text.contains("waiting 1."), "{text}");
    assert!(ok(&repo, &["status"]).contains("build: held"));
    let listed = json(&repo, &["list"]);
    assert_eq!((keys(&listed), keys(&listed["locks"][0])), (vec!["foreign", "locks"], keys(&held)));
    assert_eq!(json(&repo, &["status"])["locks"][0]["name"], "build");
    let text = ok(&repo, &["list"]);
    assert!(text.starts_with("build\t") && text.contains("1 waiting"), "{text}");
    assert!(!waiter.is_over());
}

#[test]
fn another_tools_refs_are_listed() {
    let repo = Repo::new();
    repo.git(&["update-ref", "refs/gitvan/locks/a/b", "HEAD"]);
    let listed = json(&repo, &["list"]);
    assert_eq!(keys(&listed["foreign"][0]), ["object", "ref"]);
    assert_eq!(listed["foreign"][0]["ref"], "refs/gitvan/locks/a/b");
    assert!(ok(&repo, &["list"]).contains("refs/gitvan/locks/a/b\tmade by another tool"));
    fails(&repo, &["acquire", "a"], 4, "NAME_BLOCKED");
}

#[test]
fn the_log_tells_of_ended_tenures() {
    let repo = Repo::new();
    ok(&repo, &["run", "build", "--reason", "one", "--", "true"]);
    ok(&repo, &["acquire", "build", "--reason", "two"]);
    ok(&repo, &["break", "build", "--reason", "because"]);
    let log = json(&repo, &["log", "build"]);
    assert_eq!(keys(&log), ["entries", "name"]);
    let entries = log["entries"].as_array().unwrap();
    assert_eq!(
        keys(&entries[0]),
        [
            "acquiredAt",
            "breakReason",
            "commit",
            "endedAt",
            "endedBy",
            "hostname",
            "id",
            "mode",
            "outcome",
            "owner",
            "pid",
            "reason",
            "token",
            "waited"
        ]
    );
    assert_eq!((&entries[0]["outcome"], &entries[0]["breakReason"]), (&"broken".into(), &"because".into()));
    assert_eq!((&entries[1]["outcome"], &entries[1]["reason"]), (&"released".into(), &"one".into()));
    assert_eq!(entries[0]["commit"], repo.git(&["rev-parse", "refs/gitvan/journal/build"]));
    assert_eq!(json(&repo, &["log", "-n", "1", "build"])["entries"].as_array().unwrap().len(), 1);
    let text = ok(&repo, &["log", "build"]);
    assert!(text.contains("broken") && text.contains("because") && text.contains("\"one\""), "{text}");
    assert_eq!(ok(&repo, &["log", "never"]), "");
}

#[test]
fn break_ends_a_tenure_and_says_whose() {
    let repo = Repo::new();
    fails(&repo, &["break", "build"], 3, "LOCK_LOST");
    let taken = json(&repo, &["acquire", "build"]);
    fails(&repo, &["break", "build", "--id", "another"], 3, "LOCK_LOST");
    let broken = json(&repo, &["break", "build", "--id", taken["id"].as_str().unwrap()]);
    assert_eq!((keys(&broken), keys(&broken["broken"][0])), (vec!["broken", "name"], HOLDER.to_vec()));
    ok(&repo, &["acquire", "build"]);
    assert!(ok(&repo, &["break", "build"]).starts_with("build: broken; it was held by "));
    free(&repo, "build");
}

#[test]
fn clean_ends_what_has_ended() {
    let repo = Repo::new();
    ok(&repo, &["acquire", "build", "--ttl", "1ms"]);
    eventually("the lease ends", || status(&repo, "build")["held"] == false);
    assert_ne!(repo.git(&["for-each-ref", "refs/gitvan/locks"]), "", "its ref is still there");
    let cleaned = json(&repo, &["clean"]);
    assert_eq!(keys(&cleaned), ["locks", "objectsDeleted", "objectsWaiting"]);
    assert_eq!(cleaned["locks"][0], "build");
    assert_eq!(repo.git(&["for-each-ref", "refs/gitvan/locks"]), "");
    ok(&repo, &["run", "build", "--", "true"]);
    let cleaned = json(&repo, &["clean", "--grace", "0"]);
    assert!(cleaned["objectsDeleted"].as_u64().unwrap() > 0, "{cleaned}");
    assert!(ok(&repo, &["clean"]).contains("superseded objects deleted"));
    repo.assert_sound();
}

#[test]
fn the_doctor_finds_and_fixes_and_says_so_with_its_exit_code() {
    let repo = Repo::new();
    assert_eq!(ok(&repo, &["doctor"]), "nothing is wrong\n");
    assert_eq!(json(&repo, &["doctor"])["findings"].as_array().unwrap().len(), 0);
    let folder = repo.git_dir().join("refs/gitvan/locks");
    std::fs::create_dir_all(&folder).unwrap();
    let stale = folder.join("build.lock");
    std::fs::write(&stale, "").unwrap();
    // Older than this boot, so nobody can be at it.
    let old = Command::new("touch").args(["-d", "2001-01-01"]).arg(&stale).status().unwrap();
    assert!(old.success());
    let output = done(&repo, &["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(4), "{}", out(&output));
    let found: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(keys(&found["findings"][0]), ["advice", "fixed", "severity", "what"]);
    assert_eq!((&found["findings"][0]["severity"], &found["findings"][0]["fixed"]), (&"problem".into(), &false.into()));
    assert!(out(&done(&repo, &["doctor"])).contains("doctor --fix"));
    assert!(ok(&repo, &["doctor", "--fix"]).starts_with("fixed: "));
    assert!(!stale.exists());
    assert_eq!(ok(&repo, &["doctor"]), "nothing is wrong\n");
}

#[test]
fn a_record_that_cannot_be_read_is_trouble_and_not_a_free_lock() {
    let repo = Repo::new();
    let path = repo.path().join("no-record");
    std::fs::write(&path, "{").unwrap();
    let blob = repo.git(&["hash-object", "-w", "no-record"]);
    repo.git(&["update-ref", "refs/gitvan/locks/build", &blob]);
    fails(&repo, &["acquire", "-n", "build"], 4, "RECORD_CORRUPT");
    let held = status(&repo, "build");
    assert_eq!(held["held"], true);
    assert!(held["problem"].is_string());
    assert!(ok(&repo, &["status", "build"]).contains("counts as held"));
    assert_eq!(done(&repo, &["doctor"]).status.code(), Some(4));
    ok(&repo, &["break", "build"]);
    ok(&repo, &["acquire", "-n", "build"]);
}

#[test]
fn a_command_line_that_cannot_be_meant_is_refused_with_2() {
    let repo = Repo::new();
    for arguments in [
        &["nonsense"][..],
        &["acquire"],
        &["run", "build"],
        &["run", "build", "--"],
        &["acquire", "--ttl", "soon", "build"],
        &["acquire", "--ttl", "0", "build"],
        &["acquire", "--ttl", "40000d", "build"],
        &["acquire", "--wait", "1s", "--no-wait", "build"],
        &["acquire", "-E", "256", "build"],
        &["acquire", "--priority", "99999999", "build"],
        &["acquire", "--fingerprint", "", "build"],
        &["acquire", "--fingerprint", "sha256:x", "build"],
        &["release"],
        &["release", "build"],
        &["release", "--fingerprint", "x"],
        &["release", "gitlock:1:build:x"],
        &["release", "gitlock:1:build:::78", "--fingerprint", "x"],
        &["extend", "build", "--fingerprint", "x", "--ttl", "0"],
        &["--remote", "nobody", "list"],
        &["list", "--remote", "ext::sh -c true"],
    ] {
        fails(&repo, arguments, 2, "INVALID_ARGUMENT");
    }
    for name in ["", "a//b", "..", ".", "/a", "a\nb", "a/", &"x".repeat(201)] {
        fails(&repo, &["acquire", "--", name], 2, "INVALID_NAME");
        fails(&repo, &["run", "--", name, "true"], 2, "INVALID_NAME");
    }
    assert_eq!(done(&repo, &[]).status.code(), Some(2));
    assert_eq!(ok(&repo, &["list"]), "", "nothing of it took a lock");
}

#[test]
fn arguments_that_are_not_utf8_are_refused_with_2() {
    let repo = Repo::new();
    let bad = OsStr::from_bytes(b"caf\xe9");
    for arguments in [
        &[OsStr::new("acquire"), bad][..],
        &[OsStr::new("status"), bad],
        &[OsStr::new("release"), bad],
        &[OsStr::new("run"), bad, OsStr::new("--"), OsStr::new("true")],
        &[OsStr::new("acquire"), OsStr::new("build"), OsStr::new("--reason"), bad],
        &[OsStr::new("acquire"), OsStr::new("build"), OsStr::new("--ttl"), bad],
        &[OsStr::new("--prefix"), bad, OsStr::new("list")],
        &[bad],
    ] {
        let output = lock(&repo, &[]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        assert!(err(&output).starts_with("git-lock: "), "{}", err(&output));
    }
    // A command's arguments are its own.
    let output = lock(&repo, &["run", "build", "--", "printf", "%s"]).arg(bad).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"caf\xe9"[..]));
}

#[test]
fn names_that_look_like_something_else_work() {
    let repo = Repo::new();
    for (name, file) in [
        ("-x", "-x"),
        ("--json", "--json"),
        ("a.lock", "a%2Elock"),
        ("$(x)", "%24%28x%29"),
        ("two words", "two%20words"),
        ("é", "%C3%A9"),
        ("%41", "%2541"),
    ] {
        let handle = ok(&repo, &["acquire", "--", name]);
        assert_eq!(
            repo.git(&["for-each-ref", "--format=%(refname)", "refs/gitvan/locks"]),
            format!("refs/gitvan/locks/{file}")
        );
        assert_eq!(status(&repo, name)["name"], name);
        ok(&repo, &["release", handle.trim()]);
        let said = ok(&repo, &["run", "--", name, "sh", "-c", "printf %s \"$GIT_LOCK_NAME\""]);
        assert_eq!(said.trim_end(), name);
        let said = ok(&repo, &["run", "--", name, "--", "sh", "-c", "printf %s \"$GIT_LOCK_NAME\""]);
        assert_eq!(said.trim_end(), name);
        assert_eq!(json(&repo, &["log", "--", name])["entries"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn trouble_with_the_repository_is_4() {
    let folder = tempfile::tempdir().unwrap();
    let none = in_folder(folder.path(), &["list"]).env("GIT_CEILING_DIRECTORIES", "/").output().unwrap();
    assert_eq!(none.status.code(), Some(4), "{}", err(&none));
    let repo = Repo::new();
    fails(&repo, &["-C", "/nowhere/at/all", "list"], 4, "NOT_A_REPOSITORY");
    let prefix = done(&repo, &["--prefix", "refs/heads", "list"]);
    assert!(matches!(prefix.status.code(), Some(2 | 4)), "{}", err(&prefix));
}

#[test]
fn the_repository_is_found_as_git_finds_it() {
    let repo = Repo::new();
    let (below, elsewhere) = (repo.path().join("a/b"), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(&below).unwrap();
    assert!(in_folder(&below, &["acquire", "one"]).output().unwrap().status.success());
    let path = repo.path().to_str().unwrap();
    assert!(in_folder(elsewhere.path(), &["-C", path, "acquire", "two"]).output().unwrap().status.success());
    let by_environment = in_folder(elsewhere.path(), &["acquire", "three"]).env("GIT_DIR", repo.git_dir()).output();
    assert!(by_environment.unwrap().status.success());
    let names: Vec<Value> =
        json(&repo, &["list"])["locks"].as_array().unwrap().iter().map(|lock| lock["name"].clone()).collect();
    assert_eq!(names, ["one", "three", "two"]);
    // With -C a command runs there, as with Git's own.
    let there = in_folder(elsewhere.path(), &["-C", path, "run", "four", "--", "pwd", "-P"]).output().unwrap();
    assert_eq!(out(&there).trim(), repo.path().canonicalize().unwrap().to_str().unwrap());
}

#[test]
fn another_prefix_is_another_namespace() {
    let repo = Repo::new();
    ok(&repo, &["--prefix", "refs/mine/locks", "acquire", "build"]);
    ok(&repo, &["acquire", "-n", "build"]);
    assert_eq!(
        repo.git(&["for-each-ref", "--format=%(refname)", "refs/gitvan", "refs/mine"]),
        "refs/gitvan/locks/build\nrefs/mine/locks/build"
    );
    repo.git(&["config", "gitlock.prefix", "refs/mine/locks"]);
    fails(&repo, &["acquire", "-n", "build"], 1, "HELD");
}

#[test]
fn it_is_a_subcommand_of_git() {
    let repo = Repo::new();
    let own = std::path::PathBuf::from(env!("CARGO_BIN_EXE_git-lock"));
    let folders = std::env::var_os("PATH").unwrap();
    let path = std::iter::once(own.parent().unwrap().to_owned()).chain(std::env::split_paths(&folders));
    let path = std::env::join_paths(path).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        clean(&mut command).args(arguments).current_dir("/").env("PATH", &path);
        command.output().unwrap()
    };
    let folder = repo.path().to_str().unwrap();
    let free = git(&["-C", folder, "lock", "status"]);
    assert_eq!((free.status.code(), out(&free).as_str()), (Some(0), "no lock is held\n"), "{}", err(&free));
    let ran = git(&["-C", folder, "lock", "run", "build", "--", "git", "lock", "status", "build"]);
    assert!(ran.status.success() && out(&ran).starts_with("build: held"), "{}{}", out(&ran), err(&ran));
    let help = git(&["lock", "-h"]);
    assert!(help.status.success() && out(&help).contains("git lock run"), "{}", out(&help));
}

#[test]
fn help_teaches() {
    let repo = Repo::new();
    let help = ok(&repo, &["--help"]);
    for word in ["Exit codes:", "GIT_LOCK_HANDLE", "fencing token", "doctor"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains("guardian"), "what only `run` starts is not shown");
    assert!(ok(&repo, &["run", "--help"]).contains("setsid"));
    assert!(ok(&repo, &["--version"]).starts_with("git-lock "));
}

#[test]
fn a_handle_that_nobody_can_read_leaves_no_lock() {
    let repo = Repo::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = lock(&repo, &["acquire", "build"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    free(&repo, "build");
}

#[test]
fn the_log_of_the_program_goes_to_stderr_if_asked_for() {
    let repo = Repo::new();
    let output = lock(&repo, &["list"]).env("GIT_LOCK_LOG", "debug").output().unwrap();
    assert!(err(&output).contains("opened"), "{}", err(&output));
    assert_eq!(err(&done(&repo, &["list"])), "");
}

#[test]
fn what_is_below_a_run_is_its_own_and_several_locks_are_one_request() {
    let repo = Repo::new();
    let exe = env!("CARGO_BIN_EXE_git-lock");
    ok(&repo, &["run", "deploy", "--", exe, "run", "-n", "deploy/eu", "--", "true"]);
    let handle = ok(&repo, &["acquire", "deploy/eu", "--also", "web"]);
    fails(&repo, &["acquire", "-n", "deploy"], 1, "HELD");
    fails(&repo, &["acquire", "-n", "x", "--also", "web"], 1, "HELD");
    free(&repo, "x");
    let listed = ok(&repo, &["list"]);
    assert!(listed.contains("deploy\tsomething below it by "), "{listed}");
    assert!(ok(&repo, &["status", "deploy"]).starts_with("deploy: free, but something below it is held\n"));
    fails(&repo, &["break", "deploy"], 3, "LOCK_LOST");
    ok(&repo, &["extend", &handle]);
    ok(&repo, &["release", &handle]);
    assert_eq!(ok(&repo, &["list"]), "");
}

#[test]
fn slots_say_which_one_it_is() {
    let repo = Repo::new();
    let slot = |arguments: &[&str]| json(&repo, &[&["acquire", "port", "-n"], arguments].concat())["slot"].clone();
    assert_eq!((slot(&["--slots", "2"]), slot(&["--slots", "2"])), (0.into(), 1.into()));
    fails(&repo, &["acquire", "port", "-n", "--slots", "2"], 1, "HELD");
    fails(&repo, &["acquire", "port", "-n", "--slots", "3"], 2, "SLOTS_DIFFER");
    assert!(ok(&repo, &["status", "port"]).contains(", slot 1 of 2\n"));
    assert_eq!(ok(&repo, &["run", "disk", "--slots", "3", "--", "printenv", "GIT_LOCK_SLOT"]), "0\n");
    assert_eq!(ok(&repo, &["graph"]), "");
    assert!(ok(&repo, &["graph", "--dot"]).starts_with("digraph waits {"));
    assert_eq!(json(&repo, &["graph"])["cycles"], Value::Array(Vec::new()));
}

/// Runs with this on stdin.
fn with_input(mut command: Command, input: &str) -> std::process::Output {
    use std::{io::Write, process::Stdio};
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("git lock runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn refs_change_under_a_lock_and_not_without() {
    let repo = Repo::new();
    let head = repo.git(&["rev-parse", "HEAD"]);
    let handle = ok(&repo, &["acquire", "release", "--ttl", "2m"]).trim().to_owned();
    let lines = format!("create refs/heads/a {head}\noption no-deref\nupdate refs/heads/b {head} {}\n", "0".repeat(40));
    let output = with_input(lock(&repo, &["update-ref", &handle, "-m", "for a test"]), &lines);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", err(&output));
    assert_eq!(repo.git(&["rev-parse", "refs/heads/a", "refs/heads/b"]), format!("{head}\n{head}"));
    let told =
        json(&repo, &["update-ref", "--change", "delete refs/heads/a", "--change", "delete refs/heads/b", &handle]);
    assert_eq!((keys(&told), &told["changes"]), (vec!["changes", "name", "remaining"], &2.into()));
    assert!(told["remaining"].as_u64().unwrap() > 60_000);
    // By name and fingerprint, and, below a run, without a word.
    ok(&repo, &["acquire", "site", "--fingerprint", "word"]);
    let create = format!("create refs/heads/c {head}");
    ok(&repo, &["update-ref", "site", "--fingerprint", "word", "--change", &create]);
    let script = format!("echo delete refs/heads/c | '{}' update-ref", env!("CARGO_BIN_EXE_git-lock"));
    ok(&repo, &["run", "other", "--", "sh", "-c", &script]);
    assert_eq!(repo.git(&["for-each-ref", "refs/heads/c"]), "");
    // What is refused.
    let again = format!("update refs/heads/a {head} {head}");
    fails(&repo, &["update-ref", &handle, "--change", &again], 4, "REF_CHANGED");
    fails(&repo, &["update-ref", &handle, "--change", "commit"], 2, "INVALID_ARGUMENT");
    fails(&repo, &["update-ref", &handle, "--change", "delete refs/gitvan/locks/site"], 2, "INVALID_ARGUMENT");
    let below = format!("create refs/heads/main/below {head}");
    repo.git(&["branch", "-f", "-M", "main"]);
    fails(&repo, &["update-ref", &handle, "--change", &below], 4, "REFS_REFUSED");
    ok(&repo, &["break", "release"]);
    let create = format!("create refs/heads/a {head}");
    fails(&repo, &["update-ref", &handle, "--change", &create], 3, "LOCK_LOST");
    assert_eq!(repo.git(&["for-each-ref", "refs/heads/a"]), "");
    repo.assert_sound();
}

#[test]
fn refs_are_pushed_under_a_lock_and_not_without() {
    let (repo, served) = (Repo::new(), Served::new());
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    repo.git(&["branch", "-f", "-M", "main"]);
    repo.git(&["remote", "add", "origin", &daemon.url("locks.git")]);
    let head = repo.git(&["rev-parse", "HEAD"]);
    let there = |name: &str| run_git(&served.repository(), &["for-each-ref", "--format=%(objectname)", name]);
    let handle = ok(&repo, &["--remote", "origin", "acquire", "release", "--ttl", "2m"]).trim().to_owned();
    assert_eq!(ok(&repo, &["--remote", "origin", "push", &handle, "main", "HEAD:refs/heads/stable"]), "");
    assert_eq!((there("refs/heads/main"), there("refs/heads/stable")), (head.clone(), head.clone()));
    let told = json(&repo, &["--remote", "origin", "push", &handle, "+main", ":stable"]);
    assert_eq!(
        (keys(&told), told["pushed"].to_string()),
        (vec!["name", "pushed", "remaining"], r#"["+main",":stable"]"#.into())
    );
    // By name and fingerprint, and, below a run, without a word.
    ok(&repo, &["--remote", "origin", "acquire", "site", "--fingerprint", "word"]);
    ok(&repo, &["--remote", "origin", "push", "--fingerprint", "word", "site", "HEAD:refs/heads/a"]);
    let script = format!("'{}' --remote origin push :refs/heads/a", env!("CARGO_BIN_EXE_git-lock"));
    ok(&repo, &["--remote", "origin", "run", "other", "--", "sh", "-c", &script]);
    assert_eq!(there("refs/heads/a"), "");
    // What is refused.
    fails(&repo, &["--remote", "origin", "push", &handle, ":refs/heads/a"], 4, "REF_CHANGED");
    fails(&repo, &["--remote", "origin", "push", &handle, "nothing"], 2, "INVALID_ARGUMENT");
    fails(&repo, &["--remote", "origin", "push", &handle, "HEAD:refs/heads/main/below"], 4, "REFS_REFUSED");
    ok(&repo, &["--remote", "origin", "break", "release"]);
    fails(&repo, &["--remote", "origin", "push", &handle, "HEAD:refs/heads/late"], 3, "LOCK_LOST");
    assert_eq!(there("refs/heads/late"), "");
    let local = ok(&repo, &["acquire", "release"]).trim().to_owned();
    fails(&repo, &["push", &local, "main"], 4, "UNSUPPORTED");
}

#[test]
fn a_token_is_asked_about() {
    let repo = Repo::new();
    let told = json(&repo, &["acquire", "build"]);
    let (handle, token) = (told["handle"].as_str().unwrap(), told["token"].to_string());
    assert_eq!(keys(&json(&repo, &["verify", "build", &token])), ["holds", "name", "token"]);
    assert_eq!(ok(&repo, &["verify", "build", &token]), "");
    fails(&repo, &["verify", "build", "1"], 3, "LOCK_LOST");
    ok(&repo, &["release", handle]);
    fails(&repo, &["verify", "build", &token], 3, "LOCK_LOST");
}
