//! `git lock` on a Git server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::Command;

use common::{Repo, clean, done, err, in_folder, out};
use gitlock_tests::{
    git::{assert_sound, run_git},
    servers::{Daemon, Web},
};

#[test]
fn every_subcommand_works_at_a_remote() {
    let folder = tempfile::tempdir().unwrap();
    let made = in_folder(folder.path(), &["--json", "init-server", "locks.git"]).output().unwrap();
    assert!(made.status.success() && out(&made).contains("gc --quiet"), "{}", err(&made));
    let server = folder.path().join("locks.git");
    for (key, value) in [("receive.autogc", "false"), ("receive.advertiseAtomic", "true"), ("core.bare", "true")] {
        assert_eq!(run_git(&server, &["config", key]), value);
    }
    assert_eq!(in_folder(folder.path(), &["init-server", "locks.git"]).output().unwrap().status.code(), Some(2));
    let daemon = Daemon::start(folder.path(), &["--enable=receive-pack"]);
    let web = Web::start(folder.path());
    for url in [daemon.url("locks.git"), web.url("locks.git")] {
        let repo = Repo::new();
        repo.git(&["remote", "add", "origin", &url]);
        let ok = |arguments: &[&str]| {
            let output = done(&repo, &[&["--remote", "origin"], arguments].concat());
            assert!(output.status.success(), "{arguments:?}: {}", err(&output));
            out(&output)
        };
        let code = |arguments: &[&str]| done(&repo, &[&["--remote", "origin"], arguments].concat()).status.code();
        assert_eq!(ok(&["run", "build", "--", "sh", "-c", "echo $GIT_LOCK_NAME"]).trim(), "build");
        let handle = ok(&["acquire", "deploy"]);
        assert_eq!(code(&["acquire", "-n", "deploy"]), Some(1));
        assert_eq!(code(&["run", "-w", "300ms", "-E", "75", "deploy", "--", "true"]), Some(75));
        assert!(ok(&["status", "deploy"]).contains("deploy") && ok(&["list"]).contains("deploy"));
        ok(&["extend", handle.trim()]);
        ok(&["release", handle.trim()]);
        let handle = ok(&["acquire", "deploy"]);
        ok(&["break", "--reason", "on a Friday", "deploy"]);
        assert_eq!(code(&["release", handle.trim()]), Some(3));
        assert!(ok(&["log", "deploy"]).contains("on a Friday"));
        ok(&["clean"]);
        ok(&["graph"]);
        assert!(ok(&["doctor"]).contains("compares before it swaps"));
        // Nothing of it is in the repository itself, and what its configuration says is the default.
        assert_eq!(repo.git(&["for-each-ref", "refs/gitvan"]), "");
        repo.git(&["config", "gitlock.remote", "origin"]);
        let log = done(&repo, &["log", "build"]);
        assert!(out(&log).contains("released"), "{}", err(&log));
        run_git(&server, &["update-ref", "-d", "refs/gitvan/journal/deploy"]);
        run_git(&server, &["update-ref", "-d", "refs/gitvan/journal/build"]);
    }
    assert_sound(&server);
}

#[test]
fn trouble_with_a_server_is_told_with_4_and_without_secrets() {
    let repo = Repo::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_git-lock"));
    let url = format!("http://me:secret@127.0.0.1:{}/locks.git", gitlock_tests::servers::free_port());
    clean(&mut command)
        .args(["--remote", &url, "acquire", "-n", "x"])
        .env("GIT_LOCK_LOG", "trace")
        .current_dir(repo.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let told = err(&output);
    assert!(told.contains("127.0.0.1") && !told.contains("secret") && !told.contains("bWU6c2VjcmV0"), "{told}");
}
