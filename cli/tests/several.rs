//! `git lock run` in several repositories at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{path::Path, process::Command};

use common::{Repo, lock, out};

/// Three repositories, and the words that name them.
fn three() -> (Repo, Vec<String>) {
    let repo = Repo::new();
    let mut words = Vec::new();
    for number in 0..3 {
        let path = repo.path().join(format!("of-three-{number}.git"));
        assert!(Command::new("git").args(["init", "-q", "--bare"]).arg(&path).status().unwrap().success());
        words.extend(["--remote".to_owned(), path.display().to_string()]);
    }
    (repo, words)
}

fn run(repo: &Repo, remotes: &[String], words: &[&str]) -> std::process::Output {
    lock(repo, &["run"]).args(remotes).args(words).output().unwrap()
}

fn broken(path: &str) -> String {
    format!("{} --remote {path} break deploy", env!("CARGO_BIN_EXE_git-lock"))
}

#[test]
fn a_command_runs_under_a_majority() {
    let (repo, remotes) = three();
    let shows = "for at in 0 1 2; do git --git-dir=of-three-$at.git for-each-ref refs/gitvan/locks; done | wc -l; \
                 test -n \"$GIT_LOCK_TOKEN\" && test -z \"$GIT_LOCK_HANDLE\" && exit 7";
    let output = run(&repo, &remotes, &["deploy", "--", "sh", "-c", shows]);
    assert_eq!((output.status.code(), out(&output).trim()), (Some(7), "3"), "{output:?}");
    let held = repo.path().join("of-three-0.git");
    let handle = out(&lock(&repo, &["acquire", "--remote"]).arg(&held).arg("deploy").output().unwrap());
    let refused = run(&repo, &remotes, &["--no-wait", "-E", "9", "deploy", "--", "true"]);
    assert_eq!(refused.status.code(), Some(9), "all of them are needed: {refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("of-three-0.git"), "{refused:?}");
    let released = lock(&repo, &["release", "--remote"]).arg(&held).arg(handle.trim()).status().unwrap();
    assert!(released.success());
    let output = run(&repo, &remotes, &["--quorum", "--json", "deploy", "--", "true"]);
    assert!(output.status.success(), "{output:?}");
    for number in 0..3 {
        let folder = repo.path().join(format!("of-three-{number}.git"));
        assert!(!Path::new(&folder).join("refs/gitvan/locks/deploy").exists(), "nothing is left");
    }
}

#[test]
fn a_command_is_stopped_when_only_a_minority_is_left() {
    let (repo, remotes) = three();
    let minority = broken(&remotes[1]);
    let output =
        run(&repo, &remotes, &["--quorum", "deploy", "--", "sh", "-c", &format!("{minority} && sleep 3 && exit 5")]);
    assert_eq!(output.status.code(), Some(5), "two of three are enough: {output:?}");
    let most = [broken(&remotes[1]), broken(&remotes[3]), "sleep 60".to_owned()].join(" && ");
    let output = run(&repo, &remotes, &["--quorum", "deploy", "--", "sh", "-c", &most]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("too few"), "{output:?}");
}

#[test]
fn several_remotes_are_for_runs_alone() {
    let (repo, remotes) = three();
    for words in [
        &["status", "deploy"][..],
        &["acquire", "deploy"],
        &["run", "--quorum", "--also", "b", "deploy", "--", "true"],
        &["run", "--slots", "2", "deploy", "--", "true"],
    ] {
        let output = lock(&repo, words).args(&remotes).output().unwrap();
        let first = lock(&repo, &words[..1]).args(&remotes).args(&words[1..]).output().unwrap();
        assert_eq!(first.status.code(), Some(2), "{words:?}: {output:?}");
    }
    let alone = lock(&repo, &["run", "--quorum", "deploy", "--", "true"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
    let twice = run(&repo, &[&remotes[..2], &remotes[..2]].concat(), &["deploy", "--", "true"]);
    assert_eq!(twice.status.code(), Some(2), "{twice:?}");
}
