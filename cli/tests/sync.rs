//! `git lock sync`, and the manual.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use common::{Repo, err, fails, json, lock, ok};
use gitlock_tests::{
    git::{assert_sound, run_git},
    servers::{Daemon, Served, free_port},
};

/// A clone, and its server, which can go away.
struct World {
    repo: Repo,
    served: Served,
    port: u16,
}

impl World {
    fn new() -> World {
        let (repo, served, port) = (Repo::new(), Served::new(), free_port());
        repo.git(&["remote", "add", "origin", &format!("git://127.0.0.1:{port}/locks.git")]);
        World { repo, served, port }
    }

    fn start(&self) -> Daemon {
        Daemon::start_at(self.served.folder(), &["--enable=receive-pack"], self.port)
    }
}

#[test]
fn a_clone_and_its_origin_agree() {
    let world = World::new();
    let _daemon = world.start();
    let repo = &world.repo;
    let mine = ok(repo, &["acquire", "--ttl", "1m", "report"]);
    ok(repo, &["--remote", "origin", "acquire", "--reason", "a release", "docs"]);
    let text = ok(repo, &["sync"]);
    assert!(text.contains("report: held here by") && text.contains("docs: held at git://"), "{text}");
    assert!(text.contains("a release"), "{text}");
    assert!(ok(repo, &["sync", "origin"]).contains("nothing had changed"));
    assert!(ok(repo, &["status", "docs"]).contains("a copy from git://"));
    fails(repo, &["--remote", "origin", "acquire", "-n", "report"], 1, "HELD");
    ok(repo, &["release", mine.trim()]);
    // Where locks are at the remote unless told otherwise, the repository's own are meant all the same.
    repo.git(&["config", "gitlock.remote", "origin"]);
    let synced = json(repo, &["sync"]);
    assert_eq!(
        (&synced["changes"][0]["name"], &synced["changes"][0]["fate"]),
        (&"report".into(), &"ended-there".into())
    );
    assert_eq!(synced["changes"].as_array().unwrap().len(), 1);
    assert_sound(repo.path());
    assert_sound(&world.served.repository());
}

#[test]
fn who_is_overruled_is_stopped() {
    let world = World::new();
    let _daemon = world.start();
    let repo = &world.repo;
    let mut run = lock(repo, &["run", "--ttl", "2s", "deploy", "--", "sh", "-c", "echo begun; sleep 60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    first_line(&mut run);
    ok(repo, &["--remote", "origin", "acquire", "deploy"]);
    fails(repo, &["sync", "--strategy", "fail"], 1, "SYNC_CONFLICT");
    let text = ok(repo, &["sync", "--strategy", "remote-wins"]);
    assert!(text.contains("deploy: lost by") && text.contains("keeps it"), "{text}");
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    let log = ok(repo, &["log", "deploy"]);
    assert!(log.contains("overruled") && log.contains("keeps it, by sync with git://"), "{log}");
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn it_goes_on_while_the_server_is_away() {
    let world = World::new();
    let repo = &world.repo;
    ok(repo, &["acquire", "--ttl", "1h", "report"]);
    let mut sync =
        lock(repo, &["sync", "--every", "200ms"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(sync.stderr.take().unwrap()).lines();
    let away = errors.next().unwrap().unwrap();
    assert!(away.starts_with("git-lock: "), "{away}");
    let _daemon = world.start();
    let line = first_line(&mut sync);
    assert!(line.starts_with("report: held here by"), "{line}");
    assert!(errors.next().unwrap().unwrap().contains("again"), "told once that it is away, and once that it is back");
    sync.kill().unwrap();
    sync.wait().unwrap();
    let held = run_git(&world.served.repository(), &["for-each-ref", "--format=%(refname)", "refs/gitvan/locks"]);
    assert_eq!(held, "refs/gitvan/locks/report");
}

#[test]
fn what_cannot_be_synced_is_told() {
    let repo = Repo::new();
    let error = fails(&repo, &["sync"], 2, "INVALID_ARGUMENT");
    assert!(error["message"].as_str().unwrap().contains("origin"), "{error}");
    fails(&repo, &["sync", "."], 2, "INVALID_ARGUMENT");
    fails(&repo, &["sync", "--every", "1s", "."], 2, "INVALID_ARGUMENT");
    fails(&repo, &["sync", "--strategy", "newest"], 2, "INVALID_ARGUMENT");
}

#[test]
fn the_manual_has_a_page_for_each_subcommand() {
    let repo = Repo::new();
    let folder = repo.path().join("man1");
    ok(&repo, &["manual", folder.to_str().unwrap()]);
    for (page, word) in [("git-lock", "Exit codes"), ("git-lock-run", "max\\-hold"), ("git-lock-sync", "strategy")] {
        let text = std::fs::read_to_string(folder.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".TH") && text.contains(word), "{page}: {text}");
    }
    assert!(!folder.join("git-lock-guardian.1").exists());
}
