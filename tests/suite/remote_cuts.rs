//! A connection that is cut after every class of bytes, for acquire, extend and release: each has the
//! outcome that it would have had, and nothing is left behind. And a server that lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use gitlock::{
    ErrorCode, LockGuard, LockManager, Options,
    clock::{Clock, SystemClock},
};
use gitlock_tests::{
    git::{Repo, assert_sound, run_git},
    servers::{Cut, Cutter, Daemon, Served, Web, free_port},
    skipped,
};

/// The first and the last bytes of what went over a connection, and some between: the line that asks,
/// the greeting, commands, pack, and report all begin and end somewhere there.
fn places(length: usize) -> Vec<usize> {
    let mut places = vec![0, 1, 4, 30, length / 4, length / 2, 3 * length / 4, length.saturating_sub(21)];
    places.extend((1..6).map(|back| length.saturating_sub(back)));
    places.retain(|place| *place < length);
    places.sort_unstable();
    places.dedup();
    places
}

/// How many cuts were made.
static MADE: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire,
    Extend,
    Release,
}

/// A whole tenure, with this cut in one of its steps. Returns what went over the wire in that step.
fn tenure(manager: &LockManager, cutter: &Cutter, name: &str, at: Step, cut: Option<Cut>) -> Vec<[usize; 2]> {
    let arm = |step: Step| {
        if std::mem::discriminant(&step) == std::mem::discriminant(&at) {
            cutter.plan(cut);
        }
    };
    let done = |step: Step| {
        let now = std::mem::discriminant(&step) == std::mem::discriminant(&at);
        now.then(|| cutter.seen())
    };
    let mut seen = Vec::new();
    arm(Step::Acquire);
    let guard: LockGuard = manager
        .lock(name)
        .ttl(Duration::from_secs(60))
        .renew(false)
        .try_acquire()
        .unwrap_or_else(|error| panic!("acquire with {cut:?}: {error}"))
        .unwrap_or_else(|| panic!("acquire with {cut:?}: held"));
    seen.extend(done(Step::Acquire).unwrap_or_default());
    let holders = manager.status(name).unwrap().holders;
    assert_eq!(holders.iter().map(|held| &*held.holder.claim.id).collect::<Vec<_>>(), [guard.id()], "{cut:?}");
    let before = holders[0].remaining;
    arm(Step::Extend);
    guard.extend(Some(Duration::from_secs(120))).unwrap_or_else(|error| panic!("extend with {cut:?}: {error}"));
    seen.extend(done(Step::Extend).unwrap_or_default());
    assert!(manager.status(name).unwrap().holders[0].remaining > before, "{cut:?}");
    arm(Step::Release);
    guard.release().unwrap_or_else(|error| panic!("release with {cut:?}: {error}"));
    seen.extend(done(Step::Release).unwrap_or_default());
    if cut.is_some() && cutter.has_cut() {
        MADE.fetch_add(1, SeqCst);
    }
    cutter.plan(None);
    assert!(!manager.status(name).unwrap().is_held(), "{cut:?}");
    let log = manager.log(name, 9).unwrap();
    assert_eq!(log.iter().map(|entry| &*entry.outcome).collect::<Vec<_>>(), ["released"], "{cut:?}");
    seen
}

fn cut_everywhere(served: &Served, port: u16, url: impl Fn(u16) -> String) {
    let repo = Repo::new();
    let cutter = Cutter::start(port);
    let mut options = Options::default();
    options.remote = Some(url(cutter.port));
    options.remote_timeout = Duration::from_secs(20);
    let (mut cuts, mut names) = (0, 0);
    for step in [Step::Acquire, Step::Extend, Step::Release] {
        let open = || LockManager::open_with(repo.path(), options.clone()).unwrap();
        names += 1;
        let whole = tenure(&open(), &cutter, &format!("n{names}"), step, None);
        assert!(!whole.is_empty(), "{step:?} asks the server");
        for (connection, [up, down]) in whole.into_iter().enumerate() {
            for (upward, length) in [(true, up), (false, down)] {
                for after in places(length) {
                    names += 1;
                    let cut = Cut { connection, upward, after };
                    tenure(&open(), &cutter, &format!("n{names}"), step, Some(cut));
                    cuts += 1;
                }
            }
        }
    }
    // The last words of the step before may come to pass after the plan was made, and be the ones to be cut.
    println!("{cuts} cuts were planned, {} made until now in both tests", MADE.load(SeqCst));
    assert!(cuts > 40 && MADE.load(SeqCst) > cuts / 2);
    assert_eq!(run_git(&served.repository(), &["for-each-ref", "--format=%(refname)", "refs/gitvan/locks"]), "");
    assert_sound(&served.repository());
}

#[test]
fn cuts_over_git() {
    let served = Served::new();
    let daemon = Daemon::start(served.folder(), &["--enable=receive-pack"]);
    cut_everywhere(&served, daemon.port, |port| format!("git://127.0.0.1:{port}/locks.git"));
}

#[test]
fn cuts_over_http() {
    let served = Served::new();
    let web = Web::start(served.folder());
    cut_everywhere(&served, web.port, |port| format!("http://127.0.0.1:{port}/locks.git"));
}

struct Dulwich(Child);

impl Drop for Dulwich {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// dulwich's HTTP server takes every swap for done, whatever was expected.
#[test]
fn a_server_that_does_not_compare_is_refused() {
    let python = std::env::var("GITLOCK_DULWICH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import dulwich.web"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        skipped(
            "dulwich",
            &format!(
                "{python} doesn't have it; name one that does in GITLOCK_DULWICH_PYTHON, as `cargo xtask test` does"
            ),
        );
        return;
    }
    let served = Served::new();
    let port = free_port();
    let child = Command::new(&python)
        .args(["-m", "dulwich.web", "-l", "127.0.0.1", "-p", &port.to_string()])
        .arg(served.repository())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Dulwich(child);
    for _ in 0..2_000 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        SystemClock.pause(Duration::from_millis(10));
    }
    let repo = Repo::new();
    let manager = LockManager::open_remote(repo.path(), &format!("http://127.0.0.1:{port}/")).unwrap();
    let error = manager.lock("build").try_acquire().unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported, "{error}");
    assert!(error.to_string().contains("doesn't compare before it swaps"), "{error}");
    let refs = run_git(&served.repository(), &["for-each-ref", "refs/gitvan/locks"]);
    assert_eq!(refs, "", "neither a lock nor a probe is left");
    let findings = manager.doctor(false).unwrap();
    assert!(findings.iter().any(|finding| finding.severity == gitlock::Severity::Problem), "{findings:?}");
}
