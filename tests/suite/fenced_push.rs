//! Refs of the caller's that are pushed with the lock's renewal in one atomic push: all or none, over every
//! transport, and never for a holder that is none any more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use gitlock::{
    Error, ErrorCode, LockGuard, LockManager, Options, PushSpec,
    lock::fault::{Fault, Faults},
};
use gitlock_tests::{
    git::{Repo, assert_sound, run_git, try_git},
    servers::{Cut, Cutter, Daemon, Link, Served, Web, local_ssh},
};

const LEASE: Duration = Duration::from_millis(700);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn options(url: &str) -> Options {
    let mut options = Options::default();
    options.remote = Some(url.to_owned());
    options.poll_interval = millis(150);
    options
}

fn open(repo: &Repo, url: &str) -> LockManager {
    LockManager::open_with(repo.path(), options(url)).unwrap()
}

fn daemon(served: &Served) -> Daemon {
    Daemon::start(served.folder(), &["--enable=receive-pack"])
}

fn specs(texts: &[&str]) -> Vec<PushSpec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn push(guard: &LockGuard, texts: &[&str]) -> Result<(), Error> {
    guard.push(&specs(texts))
}

fn refused(guard: &LockGuard, texts: &[&str], code: ErrorCode, words: &[&str]) {
    let error = push(guard, texts).unwrap_err();
    let told = error.to_string();
    assert!(error.code() == code && words.iter().all(|word| told.contains(word)), "{texts:?}: {code:?} {told}");
}

/// A commit with a file of this text, on the branch that is checked out.
fn commit(repo: &Repo, text: &str) -> String {
    fs::write(repo.path().join("file"), text.repeat(50)).unwrap();
    repo.git(&["add", "file"]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", text]);
    repo.git(&["rev-parse", "HEAD"])
}

fn at(folder: &Path, name: &str) -> Option<String> {
    let output = try_git(folder, &["rev-parse", "--verify", "-q", name]);
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn hook(folder: &Path, name: &str, script: &str) {
    let path = folder.join("hooks").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What is pushed, and what it needs; forward, by force, and away.
fn everything(served: &Served, repo: &Repo, manager: &LockManager) {
    let there = served.repository();
    repo.git(&["checkout", "-q", "-B", "main"]);
    let one = commit(repo, "one");
    repo.git(&["tag", "-a", "-m", "first", "v1"]);
    let guard = manager.lock("release").acquire().unwrap();
    let before = guard.remaining();
    push(&guard, &["main", "v1", "HEAD:refs/heads/other", "HEAD:refs/notes/anything"]).unwrap();
    assert!(guard.remaining() + millis(1_000) > before);
    for name in ["refs/heads/main", "refs/tags/v1^{}", "refs/heads/other", "refs/notes/anything"] {
        assert_eq!(at(&there, name).as_ref(), Some(&one), "{name}");
    }
    // Forward, deltas against what is there, a branch away, and what is there already.
    let two = commit(repo, "one\ntwo");
    push(&guard, &["HEAD", "v1", ":other", "main:refs/x/y", "main:more"]).unwrap();
    assert_eq!(at(&there, "refs/heads/main"), Some(two.clone()));
    assert_eq!((at(&there, "refs/heads/other"), at(&there, "refs/x/y")), (None, Some(two.clone())));
    assert_eq!(at(&there, "refs/heads/more"), Some(two.clone()));
    // Elsewhere only by force.
    repo.git(&["checkout", "-q", "-B", "main", &one]);
    let three = commit(repo, "three");
    refused(&guard, &["main"], ErrorCode::RefChanged, &["refs/heads/main", &two, "nothing was pushed"]);
    refused(&guard, &["HEAD:refs/heads/new", "main"], ErrorCode::RefChanged, &["refs/heads/main"]);
    repo.git(&["tag", "-f", "v1"]);
    refused(&guard, &["v1"], ErrorCode::RefChanged, &["refs/tags/v1", "+"]);
    assert_eq!((at(&there, "refs/heads/main"), at(&there, "refs/heads/new")), (Some(two), None));
    push(&guard, &["+main", "+v1"]).unwrap();
    assert_eq!((at(&there, "refs/heads/main"), at(&there, "refs/tags/v1")), (Some(three.clone()), Some(three)));
    guard.release().unwrap();
    assert_eq!(run_git(&there, &["for-each-ref", "refs/gitvan/locks"]), "");
    assert_sound(&there);
}

#[test]
fn over_git() {
    let (served, repo) = (Served::new(), Repo::new());
    let daemon = daemon(&served);
    everything(&served, &repo, &open(&repo, &daemon.url("locks.git")));
}

#[test]
fn over_git_with_sha256() {
    let (served, repo) = (Served::with(&["--object-format=sha256"]), Repo::with(&["--object-format=sha256"]));
    let daemon = daemon(&served);
    everything(&served, &repo, &open(&repo, &daemon.url("locks.git")));
    let other = Repo::new();
    let guard = open(&other, &daemon.url("locks.git")).lock("release").acquire().unwrap();
    refused(&guard, &["HEAD:refs/heads/x"], ErrorCode::Unsupported, &["hash"]);
}

#[test]
fn over_http() {
    let (served, repo) = (Served::new(), Repo::new());
    let web = Web::start(served.folder());
    everything(&served, &repo, &open(&repo, &web.url("locks.git")));
    web.requests();
    let guard = open(&repo, &web.url("locks.git")).lock("release").acquire().unwrap();
    web.requests();
    commit(&repo, "more");
    push(&guard, &["main"]).unwrap();
    let asked = web.requests();
    let pushes = asked.iter().filter(|line| line.starts_with("POST") && line.ends_with("git-receive-pack")).count();
    assert_eq!(pushes, 1, "{asked:?}");
}

#[test]
fn over_ssh() {
    let (served, repo) = (Served::new(), Repo::new());
    let ssh = local_ssh(served.folder(), true);
    repo.git(&["config", "core.sshCommand", ssh.to_str().unwrap()]);
    repo.git(&["config", "ssh.variant", "ssh"]);
    repo.git(&["remote", "add", "origin", &format!("ssh://me@host:2222{}", served.repository().display())]);
    everything(&served, &repo, &open(&repo, "origin"));
}

#[test]
fn what_cannot_be_pushed_is_told_and_nothing_is() {
    let (served, repo) = (Served::new(), Repo::new());
    let there = served.repository();
    let daemon = daemon(&served);
    repo.git(&["checkout", "-q", "-B", "main"]);
    commit(&repo, "one");
    let manager = open(&repo, &daemon.url("locks.git"));
    let guard = manager.lock("release").acquire().unwrap();
    push(&guard, &["main"]).unwrap();
    let first = at(&there, "refs/heads/main");
    commit(&repo, "two");
    let lock = |()| at(&there, "refs/gitvan/locks/release");
    let before = lock(());
    let bad = ErrorCode::InvalidArgument;
    refused(&guard, &[], bad, &["nothing is named"]);
    refused(&guard, &["main", "nowhere"], bad, &["nowhere"]);
    refused(&guard, &["main", "HEAD:refs/gitvan/locks/other"], bad, &["gitlock"]);
    refused(&guard, &["main", "HEAD:refs/gitvan/journal"], bad, &["gitlock"]);
    refused(&guard, &["main", "HEAD~0"], bad, &["HEAD~0"]);
    refused(&guard, &["main", "HEAD~0:unknown"], bad, &["refs/heads/"]);
    refused(&guard, &["main", "HEAD:refs/heads/main"], bad, &["twice"]);
    refused(&guard, &["main", ":refs/heads/gone"], ErrorCode::RefChanged, &["refs/heads/gone", "doesn't exist"]);
    refused(&guard, &["main", "HEAD:refs/heads/main/below"], ErrorCode::RefsRefused, &["refs/heads/main/below"]);
    repo.git(&["branch", "v9"]);
    repo.git(&["tag", "v9"]);
    refused(&guard, &["v9"], bad, &["v9"]);
    // What is there isn't here.
    let other = Repo::new();
    other.git(&["fetch", "-q", &daemon.url("locks.git"), "main"]);
    other.git(&["reset", "-q", "--hard", "FETCH_HEAD"]);
    commit(&other, "somebody else's");
    other.git(&["push", "-q", &daemon.url("locks.git"), "HEAD:main"]);
    let theirs = at(&there, "refs/heads/main");
    assert_ne!(theirs, first);
    refused(&guard, &["main", "HEAD:refs/heads/new"], ErrorCode::RefChanged, &["refs/heads/main", "fetch"]);
    // Hooks, of the server and here.
    hook(&there, "update", "case $1 in refs/heads/*) echo not on a Friday; exit 1;; esac");
    refused(&guard, &["+main"], ErrorCode::RefsRefused, &["refs/heads/main", "hook declined", "not on a Friday"]);
    fs::remove_file(there.join("hooks/update")).unwrap();
    hook(&there, "pre-receive", "echo never >&2; exit 1");
    refused(&guard, &["+main"], ErrorCode::RefsRefused, &["pre-receive hook declined", "never"]);
    fs::remove_file(there.join("hooks/pre-receive")).unwrap();
    run_git(&there, &["config", "receive.denyNonFastForwards", "true"]);
    refused(&guard, &["+main"], ErrorCode::RefsRefused, &["refs/heads/main", "non-fast-forward"]);
    run_git(&there, &["config", "receive.denyDeletes", "true"]);
    refused(&guard, &[":main"], ErrorCode::RefsRefused, &["refs/heads/main", "deletion prohibited"]);
    hook(&repo.git_dir(), "pre-push", "cat >&2; echo $1; exit 3");
    let head = repo.git(&["rev-parse", "HEAD"]);
    let words = ["pre-push hook", &*head, "refs/heads/fresh", &daemon.url("locks.git")];
    refused(&guard, &["main:refs/heads/fresh"], ErrorCode::RefsRefused, &words);
    assert_eq!((at(&there, "refs/heads/main"), at(&there, "refs/heads/new")), (theirs, None));
    assert_eq!(lock(()), before, "the lock isn't renewed by what was refused");
    hook(&repo.git_dir(), "pre-push", "cat > hooked; echo $1 >> hooked");
    push(&guard, &["main:refs/heads/fresh"]).unwrap();
    let zero = "0".repeat(40);
    let told = fs::read_to_string(repo.path().join("hooked")).unwrap();
    assert_eq!(told, format!("refs/heads/main {head} refs/heads/fresh {zero}\n{}\n", daemon.url("locks.git")));
    guard.release().unwrap();
}

#[test]
fn where_there_is_no_server_or_none_that_is_atomic() {
    let (served, repo) = (Served::new(), Repo::new());
    repo.git(&["checkout", "-q", "-B", "main"]);
    run_git(&served.repository(), &["config", "receive.advertiseAtomic", "false"]);
    let daemon = daemon(&served);
    let guard = open(&repo, &daemon.url("locks.git")).lock("release").acquire().unwrap();
    refused(&guard, &["main"], ErrorCode::Unsupported, &["atomic", "receive.advertiseAtomic"]);
    assert_eq!(at(&served.repository(), "refs/heads/main"), None);
    guard.release().unwrap();
    let guard = LockManager::open(repo.path()).unwrap().lock("release").acquire().unwrap();
    refused(&guard, &["main"], ErrorCode::Unsupported, &["update_refs"]);
    guard.release().unwrap();
    let guard = LockManager::in_memory(Options::default()).unwrap().lock("release").acquire().unwrap();
    refused(&guard, &["main"], ErrorCode::Unsupported, &["update_refs"]);
    let nowhere = tempfile::tempdir().unwrap();
    let manager = LockManager::open_with(nowhere.path(), options(&daemon.url("locks.git"))).unwrap();
    let guard = manager.lock("release").acquire().unwrap();
    refused(&guard, &["main"], ErrorCode::Unsupported, &["outside of any repository"]);
    guard.release().unwrap();
}

#[test]
fn a_shallow_clone_and_a_linked_worktree_push_too() {
    let (served, repo) = (Served::new(), Repo::new());
    let daemon = daemon(&served);
    let url = daemon.url("locks.git");
    repo.git(&["checkout", "-q", "-B", "main"]);
    for text in ["one", "two", "three"] {
        commit(&repo, text);
    }
    let guard = open(&repo, &url).lock("release").acquire().unwrap();
    push(&guard, &["main"]).unwrap();
    guard.release().unwrap();
    let clone = Repo::with(&[]);
    clone.git(&["remote", "add", "origin", &url]);
    clone.git(&["fetch", "-q", "--depth=1", "origin", "main"]);
    clone.git(&["checkout", "-q", "-b", "main", "FETCH_HEAD"]);
    let four = commit(&clone, "four");
    let guard = open(&clone, "origin").lock("release").acquire().unwrap();
    push(&guard, &["main"]).unwrap();
    guard.release().unwrap();
    assert_eq!(at(&served.repository(), "refs/heads/main"), Some(four));
    let linked = clone.path().join("linked");
    clone.git(&["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    run_git(&linked, &["commit", "-q", "--allow-empty", "-m", "five"]);
    let manager = LockManager::open_with(&linked, options("origin")).unwrap();
    let guard = manager.lock("release").acquire().unwrap();
    push(&guard, &["HEAD"]).unwrap();
    guard.release().unwrap();
    assert_eq!(at(&served.repository(), "refs/heads/side"), Some(run_git(&linked, &["rev-parse", "HEAD"])));
    assert_sound(&served.repository());
}

#[test]
fn by_a_handle_and_of_several_locks() {
    let (served, repo) = (Served::new(), Repo::new());
    let daemon = daemon(&served);
    repo.git(&["checkout", "-q", "-B", "main"]);
    let manager = open(&repo, &daemon.url("locks.git"));
    let guard = manager.lock_all(&["web/eu", "db"]).ttl(millis(60_000)).acquire().unwrap();
    let handle = guard.handle();
    let left = manager.push(&handle, &specs(&["main"])).unwrap();
    assert!(left > millis(50_000));
    assert_eq!(at(&served.repository(), "refs/heads/main"), Some(repo.git(&["rev-parse", "HEAD"])));
    guard.release().unwrap();
    let head = commit(&repo, "two");
    let error = manager.push(&handle, &specs(&["main"])).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LockLost, "{error}");
    assert_ne!(at(&served.repository(), "refs/heads/main"), Some(head));
}

/// A push that is on its way for longer than the lease, over this transport, with and without the fence.
fn late(served: &Served, port: u16, url: impl Fn(u16) -> String) {
    for fenced in [true, false] {
        let (repo, other) = (Repo::new(), Repo::new());
        let link = Link::start(port, Duration::ZERO);
        commit(&repo, "late");
        let mut late = options(&url(link.port));
        late.remote_timeout = millis(60_000);
        late.faults = if fenced { Faults::NONE } else { Faults::only(Fault::NoFence) };
        let name = if fenced { "fenced" } else { "unfenced" };
        let (branch, lock) = (format!("refs/heads/{name}"), format!("refs/gitvan/locks/{name}"));
        let theirs = open(&other, &url(port));
        let guard = LockManager::open_with(repo.path(), late).unwrap().lock(name).ttl(LEASE).acquire().unwrap();
        link.hold(&branch);
        std::thread::scope(|scope| {
            let pushed = scope.spawn(|| push(&guard, &[&format!("+HEAD:{branch}")]));
            assert!(link.wait_until_held(millis(20_000)));
            let next = theirs.lock(name).wait(millis(30_000)).acquire().unwrap();
            push(&next, &[&format!("HEAD:{branch}")]).unwrap();
            let both = || [&branch, &lock].map(|name| at(&served.repository(), name));
            let before = both();
            assert_eq!(before[0], Some(other.git(&["rev-parse", "HEAD"])));
            link.let_go();
            let result = pushed.join().unwrap();
            if fenced {
                assert_eq!(result.unwrap_err().code(), ErrorCode::LockLost);
                assert_eq!(before, both(), "both refs are as they were");
            } else {
                assert_eq!(at(&served.repository(), &branch), Some(repo.git(&["rev-parse", "HEAD"])), "a stale write");
            }
            next.release().unwrap();
        });
        assert!(guard.is_lost());
    }
}

#[test]
fn a_late_push_is_refused_over_git() {
    let served = Served::new();
    let daemon = daemon(&served);
    late(&served, daemon.port, |port| format!("git://127.0.0.1:{port}/locks.git"));
}

#[test]
fn a_late_push_is_refused_over_http() {
    let served = Served::new();
    let web = Web::start(served.folder());
    late(&served, web.port, |port| format!("http://127.0.0.1:{port}/locks.git"));
}

#[test]
fn neither_who_queues_nor_a_renewal_stops_a_push() {
    let (served, repo, other) = (Served::new(), Repo::new(), Repo::new());
    let web = Web::start(served.folder());
    let link = Link::start(web.port, Duration::ZERO);
    let guard = open(&repo, &format!("http://127.0.0.1:{}/locks.git", link.port))
        .lock("release")
        .ttl(millis(2_400))
        .acquire()
        .unwrap();
    let pushes = || {
        let asked = web.requests();
        asked.iter().filter(|line| line.starts_with("POST") && line.ends_with("git-receive-pack")).count()
    };
    pushes();
    link.hold("refs/heads/slow");
    std::thread::scope(|scope| {
        let pushed = scope.spawn(|| push(&guard, &["HEAD:refs/heads/slow"]));
        assert!(link.wait_until_held(millis(20_000)));
        // Longer than until the next renewal would be due.
        gitlock::clock::Clock::pause(&gitlock::clock::SystemClock, millis(1_100));
        link.let_go();
        pushed.join().unwrap().unwrap();
    });
    assert_eq!(pushes(), 1, "no renewal came between");
    let theirs = open(&other, &web.url("locks.git"));
    link.hold("refs/heads/queued");
    std::thread::scope(|scope| {
        let guard = &guard;
        let pushed = scope.spawn(move || push(guard, &["HEAD:refs/heads/queued"]));
        assert!(link.wait_until_held(millis(20_000)));
        let waits = scope.spawn(|| theirs.lock("release").wait(millis(30_000)).acquire().unwrap().release().unwrap());
        while theirs.status("release").unwrap().queue.is_empty() {
            assert!(!waits.is_finished());
        }
        link.let_go();
        pushed.join().unwrap().unwrap();
        theirs.release(&guard.handle()).unwrap();
        waits.join().unwrap();
    });
    let head = repo.git(&["rev-parse", "HEAD"]);
    for name in ["refs/heads/slow", "refs/heads/queued"] {
        assert_eq!(at(&served.repository(), name).as_ref(), Some(&head), "{name}");
    }
}

/// One push with this cut in it. Returns what went over the wire.
fn cut_push(repo: &Repo, served: &Served, manager: &LockManager, cutter: &Cutter, cut: Option<Cut>) -> Vec<[usize; 2]> {
    let head = commit(repo, &format!("{cut:?}"));
    let guard = manager.lock("release").ttl(millis(60_000)).renew(false).acquire().unwrap();
    let before = at(&served.repository(), "refs/gitvan/locks/release");
    cutter.plan(cut);
    push(&guard, &["HEAD:refs/heads/main"]).unwrap_or_else(|error| panic!("{cut:?}: {error}"));
    let seen = cutter.seen();
    cutter.plan(None);
    assert_eq!(at(&served.repository(), "refs/heads/main"), Some(head), "{cut:?}");
    assert_ne!(at(&served.repository(), "refs/gitvan/locks/release"), before, "{cut:?}");
    guard.release().unwrap_or_else(|error| panic!("{cut:?}: {error}"));
    seen
}

fn cut_everywhere(served: &Served, port: u16, url: impl Fn(u16) -> String) {
    let repo = Repo::new();
    let cutter = Cutter::start(port);
    let mut options = options(&url(cutter.port));
    options.remote_timeout = millis(20_000);
    let manager = LockManager::open_with(repo.path(), options).unwrap();
    cut_push(&repo, served, &manager, &cutter, None);
    let whole = cut_push(&repo, served, &manager, &cutter, None);
    let mut cuts = 0;
    for (connection, [up, down]) in whole.into_iter().enumerate() {
        for (upward, length) in [(true, up), (false, down)] {
            let mut places =
                vec![0, 4, length / 3, 2 * length / 3, length.saturating_sub(21), length.saturating_sub(1)];
            places.retain(|place| *place < length);
            places.dedup();
            for after in places {
                cut_push(&repo, served, &manager, &cutter, Some(Cut { connection, upward, after }));
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
    assert!(cuts >= 10);
    assert_sound(&served.repository());
}

#[test]
fn cuts_over_git() {
    let served = Served::new();
    let daemon = daemon(&served);
    cut_everywhere(&served, daemon.port, |port| format!("git://127.0.0.1:{port}/locks.git"));
}

#[test]
fn cuts_over_http() {
    let served = Served::new();
    let web = Web::start(served.folder());
    cut_everywhere(&served, web.port, |port| format!("http://127.0.0.1:{port}/locks.git"));
}
