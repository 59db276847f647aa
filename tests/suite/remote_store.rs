//! The remote store on real servers: one behaviour suite over every transport, and what a server may
//! do that no store on this machine does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use gitlock::{
    ErrorCode,
    clock::{Clock, SystemClock},
    store::{
        Object, Oid, RefStore, Transacted,
        remote::{RemoteOptions, RemoteStore},
    },
};
use gitlock_tests::{
    behaviour::{self, Subject, blob, edit, name},
    git::{Repo, again_in, assert_sound, run_git},
    servers::{Daemon, Served, Web, local_ssh},
};

fn open(repo: &Repo, remote: &str) -> RemoteStore {
    let options = RemoteOptions { poll_interval: Duration::from_millis(200), ..RemoteOptions::default() };
    RemoteStore::open(repo.path(), remote, &options).unwrap()
}

fn suite(served: &Served, store: &RemoteStore) {
    let prune = |id: &Oid| {
        let hex = id.to_string();
        fs::remove_file(served.repository().join("objects").join(&hex[..2]).join(&hex[2..])).unwrap();
    };
    behaviour::run(&Subject { store, prune: &prune, rounds: 8, keeps_objects: false });
    // What the checks pruned from under a ref is gone for good.
    for line in run_git(&served.repository(), &["for-each-ref", "--format=%(refname)"]).lines() {
        if line.ends_with("/missing") {
            run_git(&served.repository(), &["update-ref", "-d", line]);
        }
    }
    assert_sound(&served.repository());
    let mut theirs: Vec<String> = run_git(&served.repository(), &["for-each-ref", "--format=%(objectname) %(refname)"])
        .lines()
        .map(str::to_owned)
        .collect();
    let mut ours: Vec<String> = store.list("refs").unwrap().iter().map(|(name, id)| format!("{id} {name}")).collect();
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
    assert!(!ours.iter().any(|line| line.contains("probe")), "the probe leaves nothing: {ours:?}");
}

#[test]
fn git_daemon() {
    let (served, repo) = (Served::new(), Repo::new());
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    suite(&served, &open(&repo, &daemon.url("locks.git")));
}

#[test]
fn git_daemon_with_sha256() {
    let (served, repo) = (Served::with(&["--object-format=sha256"]), Repo::new());
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    let store = open(&repo, &daemon.url("locks.git"));
    suite(&served, &store);
    assert!(store.list("refs").unwrap().iter().all(|(_, id)| id.as_bytes().len() == 32));
}

#[test]
fn a_server_without_atomic_pushes() {
    let (served, repo) = (Served::new(), Repo::new());
    run_git(&served.repository(), &["config", "receive.advertiseAtomic", "false"]);
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    let store = open(&repo, &daemon.url("locks.git"));
    let (journal, lock) = (name("a"), name("b"));
    let both = |journal_at, lock_at, text: &str| {
        store.transact(&[edit(&journal, journal_at, Some(blob(text))), edit(&lock, lock_at, Some(blob(text)))]).unwrap()
    };
    let Transacted::Committed(values) = both(None, None, "one") else { panic!() };
    assert_eq!(store.read_all(&[&journal, &lock]).unwrap(), values);
    assert_eq!(both(None, values[1], "two"), Transacted::Conflict, "the first fails, and nothing was done");
    assert_eq!(both(values[0], None, "three"), Transacted::Unknown, "the first was done");
    assert_ne!(store.read(&journal).unwrap(), values[0], "in the order given");
    assert_eq!(store.read(&lock).unwrap(), values[1]);
}

#[test]
fn http_backend() {
    let (served, repo) = (Served::new(), Repo::new());
    let web = Web::start(served.folder());
    suite(&served, &open(&repo, &web.url("locks.git")));
}

#[test]
fn an_http_connection_is_kept_and_a_swap_is_one_request() {
    let (served, repo) = (Served::new(), Repo::new());
    let web = Web::start(served.folder());
    let store = open(&repo, &web.url("locks.git"));
    let (a, journal) = (name("a"), name("journal"));
    let mut at = behaviour::put(&store, &a, None, blob("0"));
    web.requests();
    for round in 1..10 {
        at = behaviour::put(&store, &a, Some(at), blob(&round.to_string()));
    }
    let post = "POST /locks.git/git-receive-pack";
    assert_eq!(web.requests(), [post; 9], "no advertisement is needed for a swap");
    assert_eq!(store.object(&at).unwrap(), Object::Blob(b"9".to_vec()));
    // A deletion alone is only made where the ref was just seen.
    behaviour::remove(&store, &a, at);
    assert_eq!(web.requests(), ["GET /locks.git/info/refs?service=git-receive-pack", post]);
    // With another ref's swap beside it that isn't needed.
    let at = behaviour::put(&store, &a, None, blob("again"));
    let edits = [edit(&journal, None, Some(behaviour::commit(None, "ended"))), edit(&a, Some(at), None)];
    behaviour::commits_to(&store, &edits);
    assert_eq!(web.requests(), [post; 2]);
    assert_eq!(store.read(&a).unwrap(), None);
    assert_eq!(web.connections(), 1, "one connection for everything");
}

#[test]
fn ssh_with_and_without_version_2() {
    for sends in [true, false] {
        let (served, repo) = (Served::new(), Repo::new());
        let ssh = local_ssh(served.folder(), sends);
        repo.git(&["config", "core.sshCommand", ssh.to_str().unwrap()]);
        repo.git(&["config", "ssh.variant", "ssh"]);
        repo.git(&["remote", "add", "origin", &format!("ssh://me@host:2222{}", served.repository().display())]);
        suite(&served, &open(&repo, "origin"));
    }
}

#[test]
fn in_a_burst_a_session_waits_for_the_next_push() {
    let (served, repo) = (Served::new(), Repo::new());
    // Writes down each start.
    let (ssh, log) = (served.folder().join("ssh"), served.folder().join("log"));
    let script =
        format!("#!/bin/sh\nfor last; do :; done\necho $$ $last >>{}\nexec sh -c \"exec $last\"\n", log.display());
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    repo.git(&["config", "core.sshCommand", ssh.to_str().unwrap()]);
    repo.git(&["config", "ssh.variant", "ssh"]);
    repo.git(&["remote", "add", "origin", &format!("ssh://host{}", served.repository().display())]);
    let store = open(&repo, "origin");
    let begun = || {
        // What was begun last may not have written itself down yet.
        pause(150);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let pushes = text.lines().filter(|line| line.contains("receive-pack"));
        pushes.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut number = 0;
    let mut swap = |expected: Option<Oid>| {
        number += 1;
        store.transact(&[edit(&name("a"), expected, Some(blob(&number.to_string())))]).unwrap()
    };
    let value = |done: Transacted| match done {
        Transacted::Committed(values) => values[0],
        other => panic!("{other:?}"),
    };
    let mut at = None;
    for _ in 0..6 {
        at = value(swap(at));
    }
    let before = begun().len();
    for _ in 0..4 {
        at = value(swap(at));
    }
    assert_eq!(begun().len(), before + 4, "each push takes one that waits, and begins another");
    assert!(alive(begun().last().unwrap()), "one waits");

    // What others do meanwhile is seen, though the session that waits shows what was before.
    let other = run_git(&served.repository(), &["hash-object", "-w", "--stdin"]);
    run_git(&served.repository(), &["update-ref", name("a").as_str(), &other]);
    assert_eq!(swap(at), Transacted::Conflict);
    at = value(swap(Oid::from_hex(other.as_bytes())));
    at = value(swap(at));

    // And what was cut off while it waited is begun anew.
    for waiting in begun().iter().rev().take(2) {
        assert!(alive(waiting));
        run_git(repo.path(), &["-c", &format!("alias.end=!kill -9 {waiting}"), "end"]);
    }
    at = value(swap(at));
    value(swap(at));

    let until = SystemClock.boot_ms() + 20_000;
    while begun().iter().any(|pid| alive(pid)) && SystemClock.boot_ms() < until {
        pause(100);
    }
    assert!(!begun().iter().any(|pid| alive(pid)), "nothing waits for ever");
    assert_sound(&served.repository());
}

fn pause(time: u64) {
    SystemClock.pause(Duration::from_millis(time));
}

fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// What an error says, and its code.
fn refused(store: &RemoteStore) -> (ErrorCode, String) {
    let error = store.transact(&[edit(&name("a"), None, Some(blob("a")))]).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn each_refusal_has_its_own_message() {
    let (served, repo) = (Served::new(), Repo::new());
    let closed = Daemon::start(served.folder(), &["--informative-errors"]);
    let (code, told) = refused(&open(&repo, &closed.url("locks.git")));
    assert!(code == ErrorCode::PermissionDenied && told.contains("doesn't accept pushes"), "{told}");
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack", "--informative-errors"]);
    let (code, told) = refused(&open(&repo, &daemon.url("nothing.git")));
    assert!(code == ErrorCode::NotARepository && told.contains("no repository"), "{told}");
    let url = daemon.url("locks.git");

    let hook = served.repository().join("hooks/pre-receive");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\necho not on a Friday >&2\nexit 1\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, told) = refused(&open(&repo, &url));
    assert!(
        code == ErrorCode::PermissionDenied && told.contains("a hook of") && told.contains("not on a Friday"),
        "{told}"
    );
    fs::remove_file(hook).unwrap();

    run_git(&served.repository(), &["config", "transfer.hideRefs", "refs/gitvan"]);
    let (code, told) = refused(&open(&repo, &url));
    assert!(code == ErrorCode::PermissionDenied && told.contains("hideRefs"), "{told}");
    run_git(&served.repository(), &["config", "--unset", "transfer.hideRefs"]);

    let quick = RemoteOptions { timeout: Duration::from_millis(300), ..RemoteOptions::default() };
    let nobody = format!("git://127.0.0.1:{}/locks.git", gitlock_tests::servers::free_port());
    let (code, told) = refused(&RemoteStore::open(repo.path(), &nobody, &quick).unwrap());
    assert!(code == ErrorCode::Io && told.contains("nobody listens"), "{told}");

    repo.git(&["config", "core.sshCommand", "sh -c 'echo Permission denied \\(publickey\\). >&2; exit 255'"]);
    let (code, told) = refused(&open(&repo, "git@host:locks.git"));
    assert!(code == ErrorCode::PermissionDenied && told.contains("doesn't let this user in"), "{told}");
}

#[test]
fn a_server_that_never_answers_is_left() {
    let repo = Repo::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let quick = RemoteOptions { timeout: Duration::from_millis(200), ..RemoteOptions::default() };
    for url in [format!("git://127.0.0.1:{port}/a"), format!("http://127.0.0.1:{port}/a")] {
        let (code, told) = refused(&RemoteStore::open(repo.path(), &url, &quick).unwrap());
        assert!(code == ErrorCode::Io && told.contains("didn't answer in time"), "{told}");
    }
    repo.git(&["config", "core.sshCommand", "sleep 60; :"]);
    let (code, told) = refused(&RemoteStore::open(repo.path(), "host:a", &quick).unwrap());
    assert!(code == ErrorCode::Io && told.contains("didn't answer in time"), "{told}");
}

#[test]
fn http_credentials_and_what_is_told_of_them() {
    let (served, repo) = (Served::new(), Repo::new());
    let web = Web::start(served.folder());
    // me:secret
    web.gate(Box::new(|_, _, headers| match headers.get("authorization").map(String::as_str) {
        Some("Basic bWU6c2VjcmV0") => None,
        Some("Bearer token") => None,
        _ => Some((401, "who are you?".to_owned())),
    }));
    let (url, bare) = (web.url("locks.git"), web.url("locks.git").replace("http://", ""));
    let (code, told) = refused(&open(&repo, &url));
    assert!(code == ErrorCode::PermissionDenied && told.contains("credential helper"), "{told}");
    let (code, told) = refused(&open(&repo, &format!("http://me:wrong-secret@{bare}")));
    assert!(code == ErrorCode::PermissionDenied && !told.contains("wrong-secret"), "{told}");

    let works = |remote: &str, at: &str| {
        let store = open(&repo, remote);
        behaviour::put(&store, &name(at), None, blob(at));
        assert!(!format!("{store:?} {}", store.location()).contains("secret"));
    };
    works(&format!("http://me:secret@{bare}"), "by-url");
    repo.git(&["config", "http.extraHeader", "Authorization: Bearer token"]);
    works(&url, "by-header");
    repo.git(&["config", "--unset", "http.extraHeader"]);
    let helper = "!f() { echo \"$1\" >> told; test \"$1\" = get && printf 'username=me\\npassword=secret\\n'; }; f";
    repo.git(&["config", "credential.helper", &helper.replace("told", repo.path().join("told").to_str().unwrap())]);
    works(&url, "by-helper");
    assert_eq!(
        fs::read_to_string(repo.path().join("told")).unwrap(),
        "get\nstore\n",
        "asked once, and told that it was right"
    );

    web.gate(Box::new(|_, path, _| path.contains("receive-pack").then(|| (403, "readers only".to_owned()))));
    let (code, told) = refused(&open(&repo, &url));
    assert!(code == ErrorCode::PermissionDenied && told.contains("readers only"), "{told}");
}

#[test]
fn http_trouble_that_passes_is_waited_out_and_a_server_that_moved_is_followed() {
    let (served, repo) = (Served::new(), Repo::new());
    let web = Web::start(served.folder());
    let count = std::sync::atomic::AtomicUsize::new(0);
    web.gate(Box::new(move |_, _, _| {
        let at = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (at < 4)
            .then(|| if at.is_multiple_of(2) { (503, "upside down".to_owned()) } else { (429, "too often".to_owned()) })
    }));
    let store = open(&repo, &web.url("locks.git"));
    let at = behaviour::put(&store, &name("a"), None, blob("a"));
    assert_eq!(store.read(&name("a")).unwrap(), Some(at));

    let elsewhere = Web::start(served.folder());
    let target = web.port;
    web.gate(Box::new(|_, _, _| None));
    elsewhere.gate(Box::new(move |method, path, _| {
        assert_eq!(method, "GET", "only the first question is sent elsewhere");
        Some((302, format!("http://127.0.0.1:{target}{path}")))
    }));
    let store = open(&repo, &elsewhere.url("locks.git"));
    let again = behaviour::put(&store, &name("a"), Some(at), blob("moved"));
    assert_eq!(store.read(&name("a")).unwrap(), Some(again));
}

#[test]
fn it_is_tried_out_once_for_each_server() {
    let (served, repo) = (Served::new(), Repo::new());
    let web = Web::start(served.folder());
    behaviour::put(&open(&repo, &web.url("locks.git")), &name("a"), None, blob("a"));
    let first = web.requests().len();
    behaviour::put(&open(&repo, &web.url("locks.git")), &name("b"), None, blob("b"));
    let second = web.requests().len();
    assert!(first > second, "{first} and {second} requests");
    assert!(fs::read_to_string(repo.git_dir().join("gitlock/proven")).unwrap().contains(&web.url("locks.git")));
    assert_eq!(run_git(&served.repository(), &["for-each-ref", "--format=%(refname)"]).lines().count(), 2);
}

#[test]
fn a_ref_without_its_object_is_deleted_where_it_is_seen() {
    let (served, repo) = (Served::new(), Repo::new());
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    let web = Web::start(served.folder());
    for url in [daemon.url("locks.git"), web.url("locks.git")] {
        let store = open(&repo, &url);
        let lost = Oid::from_hex(b"1234567890123456789012345678901234567890").unwrap();
        let lose = || {
            let file = served.repository().join(name("lost").as_str());
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, format!("{lost}\n")).unwrap();
            assert_eq!(store.read(&name("lost")).unwrap(), Some(lost));
        };
        lose();
        assert_eq!(store.object(&lost).unwrap(), Object::Missing);
        let end = edit(&name("lost"), Some(lost), None);
        assert_eq!(store.transact(std::slice::from_ref(&end)).unwrap(), Transacted::Committed(vec![None]), "{url}");
        lose();
        let journal = name(&format!("journal-{}", &url[..3]));
        let edits = [edit(&journal, None, Some(behaviour::commit(None, "broken"))), end];
        let done = store.transact(&edits).unwrap();
        assert!(matches!(done, Transacted::Committed(_)), "{url}: {done:?}");
        assert_eq!(store.read(&name("lost")).unwrap(), None);
        assert!(store.read(&journal).unwrap().is_some());
    }
}

#[test]
fn a_nested_ref_blocks_a_name() {
    let (served, repo) = (Served::new(), Repo::new());
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    let store = open(&repo, &daemon.url("locks.git"));
    let at = behaviour::put(&store, &name("deep/er"), None, blob("another tool's"));
    let error = store.transact(&[edit(&name("deep"), None, Some(blob("ours")))]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::NameBlocked, "{error}");
    assert!(error.to_string().contains(name("deep/er").as_str()), "{error}");
    behaviour::remove(&store, &name("deep/er"), at);
    behaviour::put(&store, &name("deep"), None, blob("ours"));
}

#[test]
fn it_reports_what_a_server_can() {
    let (served, repo) = (Served::new(), Repo::new());
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    let report = open(&repo, &daemon.url("locks.git")).examine("refs/gitvan/locks").unwrap();
    assert!(report.compares && report.atomic && report.v2 && report.refs == 0, "{report:?}");
    run_git(&served.repository(), &["config", "receive.advertiseAtomic", "false"]);
    assert!(!open(&repo, &daemon.url("locks.git")).examine("refs/gitvan/locks").unwrap().atomic);
}

#[test]
fn a_url_that_would_run_a_program_runs_none() {
    let repo = Repo::new();
    let marker = repo.path().join("ran");
    let touch = format!("touch {}", marker.display());
    for url in [
        format!("ext::sh -c \"{touch}\""),
        format!("-oProxyCommand={touch}"),
        format!("ssh://-oProxyCommand={}/a", touch.replace(' ', "%20")),
    ] {
        let error = RemoteStore::open(repo.path(), &url, &RemoteOptions::default()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    }
    assert!(!Path::new(&marker).exists());
}

/// Rust ignores SIGPIPE in its own programs, and a C program that uses the library doesn't.
#[test]
fn no_write_to_who_is_gone_ends_the_program() {
    again_in(&["env"], "whoever_is_gone_is_written_to");
}

#[test]
#[ignore = "run by no_write_to_who_is_gone_ends_the_program"]
fn whoever_is_gone_is_written_to() {
    // SAFETY: nothing else runs in this process yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (served, repo) = (Served::new(), Repo::new());
    let pause = |millis| SystemClock.pause(Duration::from_millis(millis));
    // A watch that ends while the server is asked.
    let web = Web::start(served.folder());
    web.gate(Box::new(move |_, _, _| {
        pause(200);
        None
    }));
    let watch = open(&repo, &web.url("locks.git")).watch("refs/gitvan/locks").unwrap();
    pause(50);
    drop(watch);
    pause(1_500);
    assert!(!web.requests().is_empty(), "the control: it was asked");
    // An ssh that greets and ends, and a helper that doesn't listen.
    let greets = served.folder().join("greets");
    fs::write(&greets, "#!/bin/sh\nexec <&-\nprintf '000eversion 2\\n0000'\nsleep 0.2\n").unwrap();
    fs::set_permissions(&greets, fs::Permissions::from_mode(0o755)).unwrap();
    repo.git(&["config", "core.sshCommand", greets.to_str().unwrap()]);
    repo.git(&["config", "ssh.variant", "ssh"]);
    let quick = RemoteOptions { timeout: Duration::from_millis(600), ..RemoteOptions::default() };
    let store = RemoteStore::open(repo.path(), "host:a", &quick).unwrap();
    assert_eq!(store.read(&name("a")).unwrap_err().code(), ErrorCode::Io);
}
