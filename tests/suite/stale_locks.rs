//! `.lock` files that somebody left behind, and those that only look like it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use gitlock::{
    ErrorCode, RefName,
    clock::{Clock, SystemClock, millis},
    lock::{
        Now,
        fault::{Fault, Faults},
    },
    store::{
        Oid, RefStore, Transacted,
        files::{FilesOptions, FilesStore, doctor::Leftover},
    },
};
use gitlock_tests::{
    behaviour::{PREFIX, blob, edit, name, put, remove},
    breakers::{self, live_lock, stale_lock},
    git::Repo,
    packer::{Pause, ScriptedClock},
};

const HARMLESS: Fault = Fault::NoAgeing;

fn open(at: &Path) -> FilesStore {
    FilesStore::open(at, &FilesOptions::default()).unwrap()
}

/// A store that doesn't wait long, for locks that it isn't to get.
fn impatient(at: &Path) -> FilesStore {
    FilesStore::open(at, &FilesOptions { lock_timeout: Duration::from_millis(300), ..FilesOptions::default() }).unwrap()
}

fn is_busy(store: &FilesStore, name: &RefName, expected: Option<Oid>) {
    let error = store.transact(&[edit(name, expected, Some(blob("not to be")))]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RepositoryBusy, "{error}");
    assert_eq!(store.read(name).unwrap(), expected, "readers go on");
}

/// A store that counts how often it waits for a lock.
fn counting(at: &Path) -> (FilesStore, Arc<AtomicU64>) {
    let waits = Arc::new(AtomicU64::new(0));
    let count = waits.clone();
    let clock = ScriptedClock::new(move |pause| {
        if pause == Pause::Wait {
            count.fetch_add(1, SeqCst);
        }
    });
    (FilesStore::open(at, &FilesOptions { clock: Arc::new(clock), ..FilesOptions::default() }).unwrap(), waits)
}

/// A repository with a ref, packed or loose, and the paths of the locks that a deletion takes.
fn repository(packed: bool) -> (Repo, RefName, Oid, Vec<PathBuf>) {
    let repo = Repo::new();
    let a = name("a");
    let id = put(&open(repo.path()), &a, None, blob("a"));
    let mut locks = vec![repo.git_dir().join(format!("{a}.lock"))];
    if packed {
        repo.git(&["pack-refs", "--all"]);
        locks.push(repo.git_dir().join("packed-refs.lock"));
    }
    (repo, a, id, locks)
}

/// Starts a process that deletes the ref and sends itself this signal inside its locks.
fn deleting(repo: &Repo, a: &RefName, signal: i32, gap: usize) -> Child {
    Command::new(env!("CARGO_BIN_EXE_store_actor"))
        .arg("delete")
        .arg(repo.path())
        .args([a.as_str(), &signal.to_string(), &gap.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a plain system call, on a child that hasn't been waited for.
    assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) }, 0);
}

/// Waits until a child has stopped.
fn wait_stopped(child: &Child) {
    let mut status = 0;
    // SAFETY: `status` is valid to write to.
    let waited = unsafe { libc::waitpid(i32::try_from(child.id()).unwrap(), &mut status, libc::WUNTRACED) };
    assert!(waited > 0 && libc::WIFSTOPPED(status), "{status}");
}

// ---------------------------------------------------------------- ours

#[test]
fn the_lock_of_a_killed_process_is_broken_at_once() {
    for (packed, gap) in [(false, 1), (false, 2), (false, 3), (true, 1), (true, 2)] {
        let (repo, a, id, locks) = repository(packed);
        let status = deleting(&repo, &a, libc::SIGKILL, gap).wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "the control: it died in the gap");
        for lock in &locks {
            assert!(fs::metadata(lock).unwrap().mode() & 0o1000 != 0, "{}", lock.display());
        }
        let (store, waits) = counting(repo.path());
        let found = store.leftovers(&[PREFIX]).unwrap();
        assert!(found.iter().all(|left| match left {
            Leftover::LockFile(report) => report.ours && report.stale,
            Leftover::Temporary { .. } => packed,
            Leftover::TornRef { .. } => false,
        }));
        let current = store.read(&a).unwrap();
        let deleted = gap > 1;
        assert_eq!(current, (!deleted).then_some(id), "packed: {packed}, gap {gap}");
        let next = put(&store, &a, current, blob("at once"));
        remove(&store, &a, next);
        assert_eq!(waits.load(SeqCst), 0, "nobody had to wait");
        assert!(locks.iter().all(|lock| !lock.exists()));
        repo.assert_sound();
    }
}

#[test]
fn the_lock_of_a_stopped_process_is_never_broken() {
    for packed in [false, true] {
        let (repo, a, id, locks) = repository(packed);
        let mut child = deleting(&repo, &a, libc::SIGSTOP, 1);
        wait_stopped(&child);
        let inodes = || locks.iter().map(|lock| fs::metadata(lock).unwrap().ino()).collect::<Vec<_>>();
        let before = inodes();
        is_busy(&impatient(repo.path()), &a, Some(id));
        // Neither a short stale age nor a doctor changes that.
        let hasty = FilesOptions {
            stale_lock_age: Duration::ZERO,
            lock_timeout: Duration::from_millis(1_500),
            ..FilesOptions::default()
        };
        let hasty = FilesStore::open(repo.path(), &hasty).unwrap();
        is_busy(&hasty, &a, Some(id));
        let found = hasty.leftovers(&[PREFIX]).unwrap();
        assert_eq!(found.len(), locks.len());
        for leftover in &found {
            assert!(matches!(leftover, Leftover::LockFile(report) if report.ours && !report.stale), "{leftover:?}");
            assert!(!hasty.clear(leftover).unwrap());
        }
        // Nor does its age.
        for lock in &locks {
            let file = File::options().write(true).open(lock).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        is_busy(&hasty, &a, Some(id));
        assert_eq!(inodes(), before);
        // It goes on, and what it began is made.
        signal(&child, libc::SIGCONT);
        assert!(child.wait().unwrap().success());
        assert_eq!(open(repo.path()).read(&a).unwrap(), None);
        repo.assert_sound();
    }
}

#[test]
fn without_the_flock_a_live_lock_is_broken() {
    let (repo, a, id, locks) = repository(false);
    let faulty = |fault| {
        let lock_timeout = Duration::from_millis(300);
        let options = FilesOptions { faults: Faults::only(fault), lock_timeout, ..FilesOptions::default() };
        FilesStore::open(repo.path(), &options).unwrap()
    };
    let mut child = deleting(&repo, &a, libc::SIGSTOP, 1);
    wait_stopped(&child);
    is_busy(&faulty(HARMLESS), &a, Some(id));
    let broken = faulty(Fault::BreakWithoutFlock).transact(&[edit(&a, Some(id), Some(blob("stolen")))]).unwrap();
    assert!(matches!(broken, Transacted::Committed(_)), "the fault isn't noticed: {broken:?}");
    assert!(!locks[0].exists());
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
}

/// A breaker has opened a stale lock; another breaks it, and takes the lock; the first goes on.
fn breaks_its_successor(fault: Fault) -> bool {
    let (repo, a, id, locks) = repository(false);
    stale_lock(&locks[0]);
    let (path, held) = (locks[0].clone(), Arc::new(Mutex::new(None)));
    let successor = held.clone();
    let clock = ScriptedClock::new(move |pause| {
        let mut successor = successor.lock().unwrap();
        if pause == Pause::Gap && successor.is_none() {
            fs::remove_file(&path).unwrap();
            *successor = Some(live_lock(&path));
        }
    });
    let options = FilesOptions {
        clock: Arc::new(clock),
        faults: Faults::only(fault),
        lock_timeout: Duration::from_millis(300),
        ..FilesOptions::default()
    };
    let store = FilesStore::open(repo.path(), &options).unwrap();
    let outcome = store.transact(&[edit(&a, Some(id), Some(blob("stolen")))]);
    let held = held.lock().unwrap();
    let successor = rustix::fs::fstat(held.as_ref().expect("the gap was met")).unwrap().st_ino;
    match outcome {
        Ok(Transacted::Committed(_)) => true,
        Err(error) if error.code() == ErrorCode::RepositoryBusy => {
            assert_eq!(fs::metadata(&locks[0]).unwrap().ino(), successor);
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_breaker_looks_whether_the_name_is_still_that_file() {
    assert!(!breaks_its_successor(HARMLESS));
    assert!(breaks_its_successor(Fault::BreakWithoutInodeCheck), "the fault isn't noticed");
}

#[test]
fn two_breakers_never_both_win() {
    let report = breakers::run(2_000, Faults::NONE);
    println!("{report:?}");
    assert_eq!((report.two_winners, report.no_winner), (0, 0));
    assert!(report.wins.iter().all(|wins| *wins > 20), "the control: both take part: {report:?}");
}

/// And the same harness sees it when a breaker doesn't look.
#[test]
fn two_breakers_that_do_not_look_both_win() {
    for fault in [Fault::BreakWithoutInodeCheck, Fault::BreakWithoutFlock] {
        let report = breakers::run(200, Faults::only(fault));
        println!("{}: {report:?}", fault.as_str());
        assert!(report.two_winners + report.no_winner > 0, "{}: {report:?}", fault.as_str());
    }
}

// ---------------------------------------------------------------- Git's own

/// A clock that passes only where the store waits, and that the test sets.
#[derive(Clone, Debug)]
struct SetClock(Arc<Mutex<Time>>);

#[derive(Debug)]
struct Time {
    now: Now,
    /// After how many pauses the wall clock jumps, and by how much.
    jump: Option<(u32, i64)>,
}

impl Time {
    fn jump(&mut self, millis: i64) {
        self.now.wall = self.now.wall.checked_add_signed(millis).unwrap();
    }
}

impl SetClock {
    fn new() -> SetClock {
        SetClock(Arc::new(Mutex::new(Time { now: SystemClock.now(), jump: None })))
    }
}

impl Clock for SetClock {
    fn now(&self) -> Now {
        self.0.lock().unwrap().now.clone()
    }

    fn pause(&self, duration: Duration) {
        let mut time = self.0.lock().unwrap();
        // Faster than the store thinks, so that minutes take no minutes.
        let passed = millis(duration).max(10);
        time.now.wall += passed;
        time.now.boot += passed;
        match &mut time.jump {
            Some((0, by)) => {
                let by = *by;
                time.jump = None;
                time.jump(by);
            }
            Some((pauses, _)) => *pauses -= 1,
            None => {}
        }
    }
}

const STALE: Duration = Duration::from_secs(600);

/// Git's own `.lock`, made now by the wall clock, and a store with a clock that the test sets.
fn gits_lock(clock: &SetClock, timeout: Duration) -> (Repo, FilesStore, RefName, PathBuf) {
    let repo = Repo::new();
    let a = name("a");
    let options = FilesOptions {
        clock: Arc::new(clock.clone()),
        lock_timeout: timeout,
        stale_lock_age: STALE,
        ..FilesOptions::default()
    };
    let store = FilesStore::open(repo.path(), &options).unwrap();
    let path = repo.git_dir().join(format!("{a}.lock"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create_new(&path).unwrap();
    (repo, store, a, path)
}

#[test]
fn gits_own_lock_is_broken_after_the_stale_age_and_not_before() {
    let clock = SetClock::new();
    let before = clock.now().boot;
    let (_repo, store, a, path) = gits_lock(&clock, STALE * 2);
    put(&store, &a, None, blob("a"));
    let waited = clock.now().boot - before;
    assert!(waited >= millis(STALE) - 1_000, "broken after {waited} ms");
    assert!(waited < millis(STALE) * 3 / 2, "broken only after {waited} ms");
    assert!(!path.exists());
}

#[test]
fn gits_own_lock_that_is_old_is_broken_within_the_wait() {
    for age in [millis(STALE) + 1_000, millis(STALE) * 100] {
        let clock = SetClock::new();
        let (_repo, store, a, path) = gits_lock(&clock, Duration::from_secs(10));
        let made = std::time::UNIX_EPOCH + Duration::from_millis(clock.now().wall - age);
        File::options().write(true).open(&path).unwrap().set_modified(made).unwrap();
        put(&store, &a, None, blob("a"));
    }
}

#[test]
fn a_jump_of_the_wall_clock_breaks_nothing() {
    const HOUR: i64 = 3_600_000;
    for jump in [HOUR, 100_000 * HOUR, -HOUR] {
        // Before somebody begins to wait, and while somebody waits.
        for while_waiting in [false, true] {
            let clock = SetClock::new();
            let (_repo, store, a, path) = gits_lock(&clock, STALE / 2);
            match while_waiting {
                false => clock.0.lock().unwrap().jump(jump),
                true => clock.0.lock().unwrap().jump = Some((1_000, jump)),
            }
            is_busy(&store, &a, None);
            assert!(path.exists(), "broken by a jump of {jump} ms, while waiting: {while_waiting}");
            assert!(clock.0.lock().unwrap().jump.is_none(), "the control: it jumped");
            let report = store.leftovers(&[PREFIX]).unwrap();
            assert!(matches!(&report[..], [Leftover::LockFile(report)] if !report.stale), "{report:?}");
        }
    }
}

#[test]
fn gits_own_lock_of_an_earlier_boot_is_broken() {
    let clock = SetClock::new();
    let (_repo, store, a, path) = gits_lock(&clock, Duration::from_secs(10));
    // This machine has been up for as long as its boot clock says; a minute before that, then.
    let now = clock.now();
    let made = std::time::UNIX_EPOCH + Duration::from_millis(now.wall - now.boot - 60_000);
    File::options().write(true).open(&path).unwrap().set_modified(made).unwrap();
    put(&store, &a, None, blob("a"));
}

#[test]
fn git_waits_for_ours_and_we_for_gits() {
    let (repo, a, id, locks) = repository(false);
    let live = live_lock(&locks[0]);
    let refused = gitlock_tests::git::try_git(repo.path(), &["update-ref", "-d", a.as_str()]);
    assert!(!refused.status.success(), "Git takes our lock for its own");
    drop(live);
    fs::remove_file(&locks[0]).unwrap();
    File::create_new(&locks[0]).unwrap();
    is_busy(&impatient(repo.path()), &a, Some(id));
    fs::remove_file(&locks[0]).unwrap();
    repo.git(&["update-ref", "-d", a.as_str()]);
}

// ---------------------------------------------------------------- the doctor

#[test]
fn the_doctor_finds_and_clears_what_was_left_behind() {
    let (repo, a, id, locks) = repository(true);
    let git_dir = repo.git_dir();
    let store = impatient(repo.path());
    assert_eq!(store.leftovers(&[PREFIX]).unwrap(), []);
    fs::create_dir_all(locks[0].parent().unwrap()).unwrap();
    // Git's own is told of, though nothing says that it is stale; clearing it is a person's decision.
    File::create_new(&locks[0]).unwrap();
    let found = store.leftovers(&[PREFIX]).unwrap();
    assert!(matches!(&found[..], [Leftover::LockFile(report)] if !report.ours && !report.stale), "{found:?}");
    assert!(store.clear(&found[0]).unwrap());
    for leftover in ["packed-refs.new", "gitlock/packed-refs.1234", &format!("{PREFIX}/.gitlock-1234")] {
        fs::write(git_dir.join(leftover), "").unwrap();
        let found = store.leftovers(&[PREFIX]).unwrap();
        assert_eq!(found, [Leftover::Temporary { path: store.common_dir().join(leftover) }]);
        assert!(store.clear(&found[0]).unwrap());
        assert!(store.clear(&found[0]).unwrap(), "twice is fine");
    }
    // A packed-refs.new without its lock blocks Git for ever, and doesn't block us.
    fs::write(git_dir.join("packed-refs.new"), "").unwrap();
    remove(&store, &a, id);
    assert!(!git_dir.join("packed-refs.new").exists());
    assert_eq!(store.leftovers(&[PREFIX]).unwrap(), []);
    repo.assert_sound();
}

// ---------------------------------------------------------------- forks

/// Runs a process that forks in the middle of a transaction and is killed inside one. Returns
/// which refs can then not be changed, while its child lives on.
fn blocked_after_a_fork(how: &str) -> Vec<&'static str> {
    let repo = Repo::new();
    let store = open(repo.path());
    let names = ["a", "b"];
    for a in names {
        put(&store, &name(a), None, blob(a));
    }
    let mut parent =
        Command::new(env!("CARGO_BIN_EXE_store_actor")).args(["fork"]).arg(repo.path()).arg(how).spawn().unwrap();
    assert_eq!(parent.wait().unwrap().signal(), Some(libc::SIGKILL));
    let child: i32 = fs::read_to_string(repo.path().join("child")).unwrap().parse().unwrap();
    // SAFETY: plain system calls, on a process that nobody else waits for or ends.
    assert_eq!(unsafe { libc::kill(child, 0) }, 0, "the control: the child lives on");
    let left = store.leftovers(&[PREFIX]).unwrap();
    assert_eq!(left.len(), 1, "the control: a lock was left behind: {left:?}");
    let impatient = impatient(repo.path());
    let blocked = |a: &&str| {
        let current = impatient.read(&name(a)).unwrap();
        match impatient.transact(&[edit(&name(a), current, Some(blob("after the fork")))]) {
            Ok(Transacted::Committed(_)) => false,
            Err(error) if error.code() == ErrorCode::RepositoryBusy => true,
            other => panic!("{other:?}"),
        }
    };
    let blocked = names.into_iter().filter(blocked).collect();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    blocked
}

#[test]
fn a_fork_in_the_middle_of_a_transaction_keeps_no_lock() {
    assert_eq!(blocked_after_a_fork("libc"), [] as [&str; 0]);
    // The system call itself asks nobody, so the child keeps the lock that the parent was in.
    assert_eq!(blocked_after_a_fork("raw"), ["a"], "the control");
}

/// A thread holds one lock and waits for the next while another thread forks: neither may wait for
/// the other.
#[test]
fn a_fork_and_a_transaction_of_two_refs_never_wait_for_each_other() {
    let repo = Repo::new();
    let second = repo.git_dir().join(format!("{}.lock", name("b")));
    fs::create_dir_all(second.parent().unwrap()).unwrap();
    File::create_new(&second).unwrap();
    let waiting = Arc::new(AtomicU64::new(0));
    let waits = waiting.clone();
    let clock = ScriptedClock::new(move |pause| {
        if pause == Pause::Wait {
            waits.fetch_add(1, SeqCst);
        }
    });
    let store =
        FilesStore::open(repo.path(), &FilesOptions { clock: Arc::new(clock), ..FilesOptions::default() }).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let edits = [edit(&name("a"), None, Some(blob("a"))), edit(&name("b"), None, Some(blob("b")))];
            assert!(matches!(store.transact(&edits).unwrap(), Transacted::Committed(_)));
        });
        while waiting.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        scope.spawn(|| {
            SystemClock.pause(Duration::from_millis(200));
            fs::remove_file(&second).unwrap();
        });
        let before = SystemClock.boot_ms();
        // SAFETY: the child ends at once, by a call that is safe after a fork.
        let child = unsafe {
            match libc::fork() {
                0 => libc::_exit(0),
                child => child,
            }
        };
        let took = SystemClock.boot_ms() - before;
        // SAFETY: our own child; its status isn't wanted.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        assert!(took < 4_000, "the fork took {took} ms, and the lock that was in its way came free after 200");
    });
    assert_eq!(store.list(PREFIX).unwrap().len(), 2);
}

/// Threads that transact, and one that forks all the time: everything goes on, in the parent and
/// for everybody else, while the children live.
#[test]
fn many_forks_beside_many_transactions() {
    let repo = Repo::new();
    let mut children = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = open(repo.path());
            scope.spawn(move || {
                let lock = name(&format!("t{thread}"));
                for round in 0..200 {
                    let id = put(&store, &lock, None, blob(&format!("{thread} {round}")));
                    remove(&store, &lock, id);
                }
            });
        }
        for _ in 0..40 {
            // SAFETY: the child calls nothing that isn't safe after a fork.
            let child = unsafe { libc::fork() };
            if child == 0 {
                loop {
                    // SAFETY: a plain system call.
                    unsafe { libc::pause() };
                }
            }
            children.push(child);
            std::thread::yield_now();
        }
    });
    let (store, waits) = counting(repo.path());
    for thread in 0..3 {
        put(&store, &name(&format!("t{thread}")), None, blob("after"));
    }
    assert_eq!(waits.load(SeqCst), 0);
    for child in children {
        // SAFETY: our own children, which haven't been waited for.
        unsafe {
            assert_eq!(libc::kill(child, libc::SIGKILL), 0);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    repo.assert_sound();
}

/// A tool that cleans up, or a breaker that took a starved holder for dead, may remove a live lock
/// file. Whoever had it has changed nothing yet, and does it again.
#[test]
fn a_lock_file_that_is_removed_from_under_its_holder_is_taken_again() {
    let repo = Repo::new();
    let manager = gitlock::LockManager::open(repo.path()).unwrap();
    let removing = std::thread::spawn({
        let file = repo.git_dir().join("refs/gitvan/locks/build.lock");
        move || {
            for _ in 0..50 {
                while fs::remove_file(&file).is_err() {
                    std::hint::spin_loop();
                }
                SystemClock.pause(Duration::from_millis(2));
            }
        }
    });
    while !removing.is_finished() {
        manager.lock("build").acquire().unwrap().release().unwrap();
    }
    removing.join().unwrap();
    repo.git(&["fsck", "--strict"]);
}
