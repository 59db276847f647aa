//! Locks between machines: managers with clocks of their own that share nothing but a Git server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use gitlock::{
    ErrorCode, LockManager, Options,
    clock::{Clock, SystemClock},
    lock::Now,
};
use gitlock_tests::{
    git::{Repo, assert_sound, run_git},
    servers::{Daemon, Served, Web, free_port},
};

/// The clocks of another machine: another boot, and a wall clock that is wrong by minutes.
#[derive(Debug)]
struct OtherMachine {
    boot_id: Arc<str>,
    ahead: i64,
}

impl Clock for OtherMachine {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        let wall = now.wall.saturating_add_signed(self.ahead);
        Now { wall, wall_micros: wall * 1_000, boot: now.boot + 1_000_000, boot_id: self.boot_id.clone() }
    }

    fn pause(&self, duration: Duration) {
        SystemClock.pause(duration);
    }
}

fn now() -> u64 {
    SystemClock.boot_ms()
}

fn pause(millis: u64) {
    SystemClock.pause(Duration::from_millis(millis));
}

/// One machine: its repository, and the name of its boot.
struct Machine {
    repo: Repo,
    name: &'static str,
    ahead: i64,
}

impl Machine {
    fn new(name: &'static str, minutes_ahead: i64) -> Machine {
        Machine { repo: Repo::new(), name, ahead: minutes_ahead * 60_000 }
    }

    fn open(&self, url: &str) -> LockManager {
        self.open_with(url, Duration::from_millis(1_500))
    }

    /// A manager that waits so long for an answer.
    fn open_with(&self, url: &str, patience: Duration) -> LockManager {
        let mut options = Options::default();
        options.remote = Some(url.to_owned());
        options.owner = Some(self.name.to_owned());
        options.poll_interval = Duration::from_millis(150);
        options.remote_timeout = patience;
        options.clock = Arc::new(OtherMachine { boot_id: self.name.into(), ahead: self.ahead });
        LockManager::open_with(self.repo.path(), options).unwrap()
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn daemon(served: &Served) -> Daemon {
    Daemon::start(served.folder(), &["--enable=receive-pack"])
}

#[test]
fn two_machines_take_turns_and_the_server_has_the_journal() {
    let served = Served::new();
    let daemon = daemon(&served);
    let (one, two) = (Machine::new("one", 5), Machine::new("two", -5));
    let (one, two) = (one.open(&daemon.url("locks.git")), two.open(&daemon.url("locks.git")));
    let first = one.lock("build").reason("first").acquire().unwrap();
    let refused = two.lock("build").wait(Duration::ZERO).acquire().unwrap_err();
    assert!(refused.code() == ErrorCode::Held && refused.to_string().contains("first"), "{refused}");
    assert_eq!(two.lock("build").wait(millis(400)).acquire().unwrap_err().code(), ErrorCode::Timeout);
    let token = first.token();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| two.lock("build").wait(millis(30_000)).acquire().unwrap());
        pause(600);
        assert_eq!(one.status("build").unwrap().queue.len(), 1);
        first.release().unwrap();
        let second = waits.join().unwrap();
        assert!(second.token() > token);
        second.release().unwrap();
    });
    let told: Vec<String> = one.log("build", 10).unwrap().into_iter().map(|entry| entry.outcome).collect();
    assert_eq!(told, ["released", "released"]);
    let refs = run_git(&served.repository(), &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/gitvan/journal/build", "nobody holds, and the probe left nothing");
    assert_eq!(run_git(&served.repository(), &["log", "--format=%s", &refs]).lines().count(), 2);
    assert_sound(&served.repository());
}

/// Many rounds of many machines on one lock: never two inside, and tokens that grow.
fn crowd(url: &str, machines: &[Machine], rounds: usize) {
    let (inside, highest, entered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for machine in machines {
            let (inside, highest, entered) = (&inside, &highest, &entered);
            scope.spawn(move || {
                // The server is there, however busy everything is.
                let manager = machine.open_with(url, millis(20_000));
                for _ in 0..rounds {
                    let guard = manager.lock("hot").wait(millis(60_000)).acquire().unwrap();
                    assert!(!inside.swap(true, SeqCst), "two are inside");
                    assert!(highest.swap(guard.token(), SeqCst) < guard.token(), "a token went back");
                    pause(3);
                    entered.fetch_add(1, SeqCst);
                    inside.store(false, SeqCst);
                    guard.release().unwrap();
                }
            });
        }
    });
    assert_eq!(entered.load(SeqCst), (machines.len() * rounds) as u64);
}

fn machines() -> [Machine; 4] {
    [Machine::new("one", 0), Machine::new("two", 7), Machine::new("three", -3), Machine::new("four", 90)]
}

#[test]
fn a_crowd_over_git() {
    let served = Served::new();
    let daemon = daemon(&served);
    crowd(&daemon.url("locks.git"), &machines(), 5);
    assert_sound(&served.repository());
}

#[test]
fn a_crowd_over_http() {
    let served = Served::new();
    let web = Web::start(served.folder());
    crowd(&web.url("locks.git"), &machines(), 5);
    assert_sound(&served.repository());
}

#[test]
fn a_crowd_without_atomic_pushes() {
    let served = Served::new();
    run_git(&served.repository(), &["config", "receive.advertiseAtomic", "false"]);
    let daemon = daemon(&served);
    crowd(&daemon.url("locks.git"), &machines(), 4);
    assert_sound(&served.repository());
}

#[test]
fn a_lease_ends_by_what_others_saw_however_wrong_the_clocks_are() {
    let served = Served::new();
    let daemon = daemon(&served);
    let url = daemon.url("locks.git");
    for minutes in [-30, 0, 30] {
        let (dead, alive) = (Machine::new("dead", 0), Machine::new("alive", minutes));
        let began = now();
        dead.open(&url).lock("build").ttl(millis(1_500)).fingerprint("mine").acquire().unwrap().detach();
        let guard = alive.open(&url).lock("build").wait(millis(20_000)).acquire().unwrap();
        assert!(now() - began >= 1_500, "it was taken {} ms after it was acquired", now() - began);
        guard.release().unwrap();
    }
}

#[test]
fn commands_that_end_do_not_start_over() {
    let served = Served::new();
    let daemon = daemon(&served);
    let url = daemon.url("locks.git");
    let (dead, alive) = (Machine::new("dead", 0), Machine::new("alive", 0));
    let began = now();
    dead.open(&url).lock("build").ttl(millis(1_000)).fingerprint("mine").acquire().unwrap().detach();
    let mut asked = 0;
    loop {
        asked += 1;
        // A manager of its own for each look, as a command has.
        if let Some(guard) = alive.open(&url).lock("build").try_acquire().unwrap() {
            guard.release().unwrap();
            break;
        }
        assert!(now() - began < 60_000, "it never ended");
        pause(100);
    }
    assert!(now() - began >= 1_000 && asked > 1);
}

#[test]
fn what_could_not_be_released_is_when_the_server_is_back() {
    let served = Served::new();
    let port = free_port();
    let start = || Daemon::start_at(served.folder(), &["--enable=receive-pack"], port);
    let daemon = start();
    let url = daemon.url("locks.git");
    let (one, two) = (Machine::new("one", 0).open(&url), Machine::new("two", 0).open(&url));
    let guard = one.lock("build").ttl(millis(300_000)).acquire().unwrap();
    drop(daemon);
    assert_eq!(guard.release().unwrap_err().code(), ErrorCode::Io);
    assert_eq!(one.lock("build").acquire_now().unwrap_err().code(), ErrorCode::Io);
    let _daemon = start();
    // Also by the owner who left it: it would wait for itself otherwise.
    one.lock("build").wait(millis(30_000)).acquire().unwrap().release().unwrap();
    two.lock("build").wait(millis(30_000)).acquire().unwrap().release().unwrap();
    let told: Vec<String> = two.log("build", 10).unwrap().into_iter().map(|entry| entry.outcome).collect();
    assert_eq!(told, ["released", "released", "released"]);
}

#[test]
fn a_guard_is_lost_in_time_when_the_server_is_gone() {
    let served = Served::new();
    let daemon = daemon(&served);
    let machine = Machine::new("one", 0);
    let manager = machine.open(&daemon.url("locks.git"));
    let began = now();
    let guard = manager.lock("build").ttl(millis(2_000)).acquire().unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let at = told.clone();
    guard.on_lost(move |_| at.store(now(), SeqCst));
    drop(daemon);
    while told.load(SeqCst) == 0 {
        assert!(now() - began < 60_000, "nobody was told");
        pause(20);
    }
    assert!(guard.is_lost());
    assert!(now() - began >= 1_500, "it was given up too early");
    assert_eq!(guard.release().unwrap_err().code(), ErrorCode::LockLost);
}

#[test]
fn a_renewal_gets_through_when_the_server_comes_back() {
    let served = Served::new();
    let port = free_port();
    let first = Daemon::start_at(served.folder(), &["--enable=receive-pack"], port);
    let machine = Machine::new("one", 0);
    let manager = machine.open(&first.url("locks.git"));
    let guard = manager.lock("build").ttl(millis(6_000)).acquire().unwrap();
    pause(1_000);
    drop(first);
    pause(2_500);
    let second = Daemon::start_at(served.folder(), &["--enable=receive-pack"], port);
    pause(5_000);
    assert!(!guard.is_lost(), "it was renewed in the end");
    let other = Machine::new("two", 0);
    assert!(other.open(&second.url("locks.git")).lock("build").try_acquire().unwrap().is_none());
    guard.release().unwrap();
}

#[test]
fn trees_sets_slots_and_breaks() {
    let served = Served::new();
    let web = Web::start(served.folder());
    let (one, two) = (Machine::new("one", 0), Machine::new("two", 0));
    let (one, two) = (one.open(&web.url("locks.git")), two.open(&web.url("locks.git")));
    let eu = one.lock("deploy/eu").acquire().unwrap();
    assert!(two.lock("deploy").try_acquire().unwrap().is_none());
    let us = two.lock("deploy/us").acquire().unwrap();
    let both = one.lock_all(&["web", "db"]).acquire().unwrap();
    assert!(two.lock("db").try_acquire().unwrap().is_none());
    let (port, other) = (one.lock("port").slots(2).acquire().unwrap(), two.lock("port").slots(2).acquire().unwrap());
    assert_ne!(port.slot(), other.slot());
    assert!(two.lock("port").slots(2).try_acquire().unwrap().is_none());
    let mut names: Vec<String> = two.list().unwrap().locks.iter().map(|lock| lock.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["db", "deploy", "deploy/eu", "deploy/us", "port", "web"]);
    assert_eq!(two.break_lock("deploy/eu", None, Some("on a Friday")).unwrap().len(), 1);
    assert_eq!(eu.release().unwrap_err().code(), ErrorCode::LockLost);
    assert_eq!(two.log("deploy/eu", 1).unwrap()[0].break_reason.as_deref(), Some("on a Friday"));
    for guard in [us, both, port, other] {
        guard.release().unwrap();
    }
    assert_eq!(two.list().unwrap().locks, []);
    let findings = two.doctor(false).unwrap();
    assert!(
        findings.iter().any(|finding| finding.what.contains("compares before it swaps, atomic pushes, protocol v2")),
        "{findings:?}"
    );
    assert_sound(&served.repository());
}

#[test]
fn a_deadlock_between_machines_is_found() {
    let served = Served::new();
    let daemon = daemon(&served);
    let (one, two) = (Machine::new("one", 0), Machine::new("two", 0));
    let (one, two) = (one.open(&daemon.url("locks.git")), two.open(&daemon.url("locks.git")));
    let codes: Vec<Option<ErrorCode>> = std::thread::scope(|scope| {
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let threads = [(&one, "a", "b"), (&two, "b", "a")].map(|(manager, first, second)| {
            let barrier = barrier.clone();
            scope.spawn(move || {
                let held = manager.lock(first).owner(first).acquire().unwrap();
                barrier.wait();
                let result = manager.lock(second).owner(first).wait(millis(60_000)).acquire();
                let code = result.as_ref().err().map(gitlock::Error::code);
                held.release().unwrap();
                code
            })
        });
        threads.map(|thread| thread.join().unwrap()).to_vec()
    });
    assert_eq!(codes.iter().flatten().collect::<Vec<_>>(), [&ErrorCode::Deadlock], "{codes:?}");
}

#[test]
fn what_could_not_be_released_is_no_deadlock() {
    let (served, port) = (Served::new(), free_port());
    let start = || Daemon::start_at(served.folder(), &["--enable=receive-pack"], port);
    let mut server = start();
    let url = server.url("locks.git");
    let (one, two) = (Machine::new("one", 0), Machine::new("two", 0));
    let managers = [one.open(&url), two.open(&url)];
    for _ in 0..3 {
        let held = [managers[0].lock("a").acquire().unwrap(), managers[1].lock("b").acquire().unwrap()];
        drop(server);
        for guard in held {
            assert_eq!(guard.release().unwrap_err().code(), ErrorCode::Io);
        }
        server = start();
        // For the server each still holds what the other waits for.
        std::thread::scope(|scope| {
            for (manager, name) in managers.iter().zip(["b", "a"]) {
                scope.spawn(move || manager.lock(name).wait(millis(15_000)).acquire().unwrap().release().unwrap());
            }
        });
    }
}

#[test]
fn names_and_paths_as_git_has_them() {
    let served = Served::new();
    let repo = Repo::new();
    let path = served.repository();
    repo.git(&["remote", "add", "origin", path.to_str().unwrap()]);
    repo.git(&["remote", "add", "gone", "/nowhere/at/all.git"]);
    let at = path.canonicalize().unwrap().display().to_string();
    for remote in ["origin", path.to_str().unwrap(), &format!("file://{}", path.display())] {
        let manager = LockManager::open_remote(repo.path(), remote).unwrap();
        assert_eq!(manager.location(), at);
        let guard = manager.lock("build").acquire().unwrap();
        assert_eq!(
            run_git(&path, &["for-each-ref", "--format=%(refname)", "refs/gitvan/locks"]),
            "refs/gitvan/locks/build"
        );
        guard.release().unwrap();
    }
    let code = |remote: &str| LockManager::open_remote(repo.path(), remote).unwrap_err().code();
    assert_eq!(code("gone"), ErrorCode::NotARepository);
    assert_eq!(code("nobody"), ErrorCode::InvalidArgument);
    assert_eq!(code("ext::sh"), ErrorCode::InvalidArgument);
    // What the repository's configuration says is the default, and can be set aside.
    repo.git(&["config", "gitlock.remote", "origin"]);
    assert_eq!(LockManager::open(repo.path()).unwrap().location(), at);
    let own = LockManager::open_remote(repo.path(), ".").unwrap();
    assert_eq!(own.location(), repo.git_dir().canonicalize().unwrap().display().to_string());
    // Without a repository a URL will do.
    let nowhere = tempfile::tempdir().unwrap();
    let daemon = daemon(&served);
    let manager = LockManager::open_remote(nowhere.path(), &daemon.url("locks.git")).unwrap();
    manager.lock("build").acquire().unwrap().release().unwrap();
}

#[test]
fn a_free_lock_is_one_question_at_a_server_that_is_known() {
    let (served, repo, other) = (Served::new(), Repo::new(), Repo::new());
    let web = Web::start(served.folder());
    let open = |repo: &Repo| LockManager::open_remote(repo.path(), &web.url("locks.git")).unwrap();
    let manager = open(&repo);
    let pair = |manager: &LockManager| {
        let guard = manager.lock("build").acquire().unwrap();
        let token = guard.token();
        guard.release().unwrap();
        token
    };
    for _ in 0..3 {
        pair(&manager);
    }
    let post = "POST /locks.git/git-receive-pack";
    web.requests();
    let token = pair(&manager);
    assert_eq!(web.requests(), [post; 2], "the journal is compared in the push that grants");
    // Somebody else's tenure in between moves the journal: the grant is decided again.
    let theirs = pair(&open(&other));
    let next = pair(&manager);
    assert!(token < theirs && theirs < next, "{token} {theirs} {next}");
    // A manager that comes later knows from a note.
    let later = open(&repo);
    pair(&later);
    web.requests();
    pair(&later);
    assert_eq!(web.requests(), [post; 2]);
    let refs = run_git(&served.repository(), &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/gitvan/journal/build", "no probe is left");
    assert_sound(&served.repository());
}

#[test]
fn a_server_that_takes_nothing_unmoved_is_no_worse() {
    use std::os::unix::fs::PermissionsExt;
    let (served, repo) = (Served::new(), Repo::new());
    let hook = served.repository().join("hooks/update");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\ntest $2 != $3\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let web = Web::start(served.folder());
    let manager = LockManager::open_remote(repo.path(), &web.url("locks.git")).unwrap();
    let mut token = 0;
    for round in 0..8 {
        web.requests();
        let guard = manager.lock("build").acquire().unwrap();
        assert!(guard.token() > token);
        token = guard.token();
        guard.release().unwrap();
        let pushes =
            web.requests().iter().filter(|line| line.starts_with("POST") && line.ends_with("receive-pack")).count();
        assert!(round < 6 || pushes == 2, "it isn't tried for ever: {pushes} in round {round}");
    }
}

#[test]
fn what_a_killed_server_left_is_told_of_and_cleared_away_there() {
    let served = Served::new();
    let daemon = daemon(&served);
    let machine = Machine::new("one", 0);
    let locks = machine.open(&daemon.url("locks.git"));
    locks.lock("build").acquire().unwrap().release().unwrap();
    let stale = served.repository().join("refs/gitvan/locks/build.lock");
    std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
    std::fs::write(&stale, "").unwrap();
    let error = locks.lock("build").wait(millis(700)).acquire().unwrap_err();
    assert!(error.to_string().contains("doctor --fix"), "{error}");
    let error = locks.lock("build").try_acquire().unwrap_err();
    assert_eq!(error.code(), ErrorCode::RepositoryBusy);
    assert!(error.to_string().contains(".lock file"), "{error}");
    // As an operator does before the server starts.
    let findings = LockManager::open(served.repository()).unwrap().doctor(true).unwrap();
    assert!(findings.iter().any(|finding| finding.fixed && finding.what.contains("build.lock")), "{findings:?}");
    locks.lock("build").wait(millis(10_000)).acquire().unwrap().release().unwrap();
    assert_sound(&served.repository());
}
