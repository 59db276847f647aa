//! What waiting costs, and how soon it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{
    fs,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use gitlock::{CancelToken, ErrorCode, LockManager, Options};
use gitlock_tests::git::Repo;

/// Longer than any test may take: whoever is served by polling fails.
const POLL: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(60);

fn never_polls(repo: &Repo) -> LockManager {
    let mut options = Options::default();
    options.poll_interval = POLL;
    LockManager::open_with(repo.path(), options).unwrap()
}

/// This process's threads, and its CPU time in clock ticks (proc_pid_stat(5), fields 14, 15, 20).
fn cost() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<u64> =
        stat.rsplit_once(')').unwrap().1.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
    (fields[20 - 4], fields[14 - 4] + fields[15 - 4])
}

/// Not beside other tests of this file: it measures the process.
#[test]
fn a_thousand_waits_cost_one_thread_and_next_to_no_cpu() {
    let repo = Repo::new();
    let (holder, waiter) = (LockManager::open(repo.path()).unwrap(), LockManager::open(repo.path()).unwrap());
    let minute = Duration::from_secs(600);
    let guards: Vec<_> = (0..100).map(|at| holder.lock(&format!("lock-{at}")).ttl(minute).acquire().unwrap()).collect();
    let (sender, done) = mpsc::channel();
    let threads_before = cost().0;
    for number in 0..1_000 {
        let sender = sender.clone();
        let name = format!("lock-{}", number % 100);
        let served = move |guard: gitlock::Result<gitlock::LockGuard>| {
            guard.unwrap().release().unwrap();
            sender.send(number).unwrap();
        };
        waiter.lock(&name).start(served).unwrap();
    }
    let queued = || (0..100).map(|at| holder.status(&format!("lock-{at}")).unwrap().queue.len()).sum::<usize>();
    while queued() < 1_000 {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(1));
    let (threads, before) = cost();
    // Other tests of this file may start threads of their own; a thread for each wait would show.
    assert!(threads <= threads_before + 20, "{threads} threads, {threads_before} before");
    let start = Instant::now();
    thread::sleep(Duration::from_secs(4));
    let ticks = cost().1 - before;
    // A tick is 10 ms: a share of the time that passed, not an absolute speed.
    let share = ticks as f64 * 0.01 / start.elapsed().as_secs_f64();
    println!("1,000 waits on 100 locks: {threads} threads in the process, {:.1} % of one core", share * 100.0);
    assert!(share < 0.25, "waiting takes {:.0} % of a core", share * 100.0);
    for guard in guards {
        guard.release().unwrap();
    }
    for _ in 0..1_000 {
        done.recv_timeout(SOON).unwrap();
    }
}

/// The lock is released that long after somebody has queued who never polls.
fn one_waits_for_a_release(repo: &Repo, holder: &LockManager, after: Duration) {
    let guard = holder.lock("x").acquire().unwrap();
    let waiter = never_polls(repo);
    let (sender, queued) = mpsc::channel();
    let waits = thread::spawn(move || {
        let request = waiter.lock("x").wait(SOON).on_wait(move |_| sender.send(()).unwrap_or_default());
        request.acquire().unwrap().release().unwrap();
    });
    queued.recv_timeout(SOON).unwrap();
    thread::sleep(after);
    guard.release().unwrap();
    waits.join().unwrap();
}

#[test]
fn a_release_in_another_process_wakes_the_next_without_polling() {
    let repo = Repo::new();
    let holder = LockManager::open(repo.path()).unwrap();
    for _ in 0..20 {
        one_waits_for_a_release(&repo, &holder, Duration::ZERO);
    }
}

#[test]
fn a_release_wakes_the_next_beside_pack_refs_which_removes_the_watched_folder() {
    let repo = Repo::new();
    let holder = LockManager::open(repo.path()).unwrap();
    let path = repo.path().to_owned();
    let (stop, stopped) = mpsc::channel::<()>();
    let packer = thread::spawn(move || {
        let mut rounds = 0;
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            gitlock_tests::git::try_git(&path, &["pack-refs", "--all"]);
            rounds += 1;
        }
        rounds
    });
    for _ in 0..40 {
        // Long enough for pack-refs to pack the ref and remove its folder.
        one_waits_for_a_release(&repo, &holder, Duration::from_millis(20));
    }
    drop(stop);
    assert!(packer.join().unwrap() > 10);
    repo.assert_sound();
}

/// A process that holds a lock, bound to itself, until it is killed.
fn holder_process(repo: &Repo) -> std::process::Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_until_killed", "--ignored", "--nocapture"])
        .env("GITLOCK_TEST_REPO", repo.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let manager = LockManager::open(repo.path()).unwrap();
    while !manager.status("x").unwrap().is_held() {
        assert!(child.try_wait().unwrap().is_none(), "the holder ended early");
        thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
#[ignore = "only as a process of its own, for the test below"]
fn hold_until_killed() {
    let repo = std::env::var_os("GITLOCK_TEST_REPO").unwrap();
    let guard = LockManager::open(repo).unwrap().lock("x").ttl(Duration::from_secs(600)).acquire().unwrap();
    thread::sleep(Duration::from_secs(600));
    drop(guard);
}

#[test]
fn the_death_of_the_owner_wakes_the_next_without_polling() {
    let repo = Repo::new();
    for _ in 0..5 {
        let mut holder = holder_process(&repo);
        let waiter = never_polls(&repo);
        let (sender, queued) = mpsc::channel();
        let waits = thread::spawn(move || {
            waiter
                .lock("x")
                .wait(SOON)
                .on_wait(move |_| sender.send(()).unwrap_or_default())
                .acquire()
                .unwrap()
                .release()
                .unwrap();
        });
        queued.recv_timeout(SOON).unwrap();
        holder.kill().unwrap();
        // Not reaped before the wait ends: a zombie is dead enough.
        waits.join().unwrap();
        holder.wait().unwrap();
    }
    assert!(repo.git(&["log", "--format=%s", "refs/gitvan/journal/x"]).contains("x: owner died"));
}

#[test]
fn a_waiter_that_is_stopped_past_its_claim_window_takes_its_place_again() {
    let repo = Repo::new();
    let holder = LockManager::open(repo.path()).unwrap();
    let guard = holder.lock("x").acquire().unwrap();
    let mut stopped = holder_queue_process(&repo);
    while holder.status("x").unwrap().queue.is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&stopped);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // On a busy machine it runs on for a moment.
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED).unwrap();
    guard.release().unwrap();
    // The stopped one was granted the lock, and didn't claim it; its window closes.
    let guard = holder.lock("x").wait(SOON).acquire().unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    while holder.status("x").unwrap().queue.is_empty() {
        assert!(stopped.try_wait().unwrap().is_none(), "it believes that it holds");
        thread::sleep(Duration::from_millis(5));
    }
    guard.release().unwrap();
    assert!(stopped.wait().unwrap().success(), "it was served in the end");
}

fn holder_queue_process(repo: &Repo) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "acquire_and_release_once", "--ignored", "--nocapture"])
        .env("GITLOCK_TEST_REPO", repo.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "only as a process of its own, for the test above"]
fn acquire_and_release_once() {
    let repo = std::env::var_os("GITLOCK_TEST_REPO").unwrap();
    LockManager::open(repo).unwrap().lock("x").wait(SOON).acquire().unwrap().release().unwrap();
}

#[test]
fn priorities_go_first_and_nobody_starves() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let guard = manager.lock("x").acquire().unwrap();
    let (sender, served) = mpsc::channel();
    for (at, priority) in [0, 5, -3, 5, 1].into_iter().enumerate() {
        let sender = sender.clone();
        let done = move |guard: gitlock::Result<gitlock::LockGuard>| {
            guard.unwrap().release().unwrap();
            sender.send((priority, at)).unwrap();
        };
        manager.lock("x").priority(priority).start(done).unwrap();
        while manager.status("x").unwrap().queue.len() <= at {
            thread::sleep(Duration::from_millis(2));
        }
    }
    guard.release().unwrap();
    let order: Vec<(i32, usize)> = (0..5).map(|_| served.recv_timeout(SOON).unwrap()).collect();
    assert_eq!(order, [(5, 1), (5, 3), (1, 4), (0, 0), (-3, 2)]);
}

#[test]
fn a_wait_that_is_cancelled_while_it_is_granted_holds_nothing() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    for _ in 0..50 {
        let guard = manager.lock("x").acquire().unwrap();
        let (sender, result) = mpsc::channel();
        let waiting = manager.lock("x").start(move |result| sender.send(result.map(drop)).unwrap()).unwrap();
        let releases = thread::spawn(move || guard.release().unwrap());
        waiting.cancel();
        releases.join().unwrap();
        if let Err(error) = result.recv_timeout(SOON).unwrap() {
            assert_eq!(error.code(), ErrorCode::Cancelled);
        }
        let free = manager.lock("x").acquire_now().unwrap();
        free.release().unwrap();
    }
}

/// A caller's mistake ends neither the background thread nor anybody's wait.
#[test]
fn a_panic_in_a_callback_harms_nobody_else() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let short = manager.lock("short").ttl(Duration::from_millis(100)).renew(false).acquire().unwrap();
    short.on_lost(|_| panic!("a listener that panics"));
    let other = manager.lock("short-too").ttl(Duration::from_millis(150)).renew(false).acquire().unwrap();
    let (sender, lost) = mpsc::channel();
    other.on_lost(move |error| sender.send(error.code()).unwrap());
    assert_eq!(lost.recv_timeout(SOON).unwrap(), ErrorCode::LockLost);
    let held = LockManager::open(repo.path()).unwrap().lock("long").acquire().unwrap();
    manager.lock("long").start(|_| panic!("a callback that panics")).unwrap();
    let (sender, done) = mpsc::channel();
    manager.lock("long").start(move |guard| sender.send(guard.map(drop)).unwrap()).unwrap();
    while manager.status("long").unwrap().queue.len() < 2 {
        thread::sleep(Duration::from_millis(5));
    }
    held.release().unwrap();
    done.recv_timeout(SOON).unwrap().unwrap();
    assert!(!manager.status("long").unwrap().is_held());
}

/// A manager that goes tells those who wait.
#[test]
fn a_wait_hears_that_its_manager_is_gone() {
    let repo = Repo::new();
    let holder = LockManager::open(repo.path()).unwrap();
    let held = holder.lock("x").acquire().unwrap();
    let manager = LockManager::open(repo.path()).unwrap();
    let (sender, done) = mpsc::channel();
    manager.lock("x").start(move |guard| sender.send(guard.map(drop)).unwrap()).unwrap();
    while holder.status("x").unwrap().queue.is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    drop(manager);
    assert_eq!(done.recv_timeout(SOON).unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    held.release().unwrap();
}

/// A `.lock` file that a killed Git left behind holds up the locks it belongs to, and no others.
#[test]
fn a_lock_file_left_behind_delays_no_news_of_other_locks() {
    let repo = Repo::new();
    let mut options = Options::default();
    // Whoever waits for the file as long as it may doesn't come back in time.
    options.lock_timeout = POLL;
    let manager = LockManager::open_with(repo.path(), options).unwrap();
    let ttl = Duration::from_millis(1_500);
    let (stuck, other) = (manager.lock("stuck").ttl(ttl), manager.lock("other").ttl(ttl));
    let (stuck, other) = (stuck.acquire().unwrap(), other.acquire().unwrap());
    let (sender, lost) = mpsc::channel();
    stuck.on_lost(move |error| sender.send(error.code()).unwrap());
    let file = repo.git_dir().join("refs/gitvan/locks/stuck.lock");
    fs::write(&file, "").unwrap();
    // One that would wait at the file in the background, and one behind the other lock.
    let (sender, done) = mpsc::channel();
    let late = sender.clone();
    manager.lock("stuck").start(move |guard| late.send(("stuck", guard.map(drop))).unwrap()).unwrap();
    assert_eq!(lost.recv_timeout(SOON).unwrap(), ErrorCode::LockLost);
    thread::sleep(ttl);
    assert!(!other.is_lost(), "it was renewed all the time");
    manager.lock("other").start(move |guard| sender.send(("other", guard.map(drop))).unwrap()).unwrap();
    while manager.status("other").unwrap().queue.is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    other.release().unwrap();
    let (which, result) = done.recv_timeout(SOON).unwrap();
    assert_eq!((which, result.is_ok()), ("other", true));
    fs::remove_file(&file).unwrap();
    let (which, result) = done.recv_timeout(SOON).unwrap();
    assert_eq!((which, result.is_ok()), ("stuck", true));
}

/// Who starts without any time to wait hears what a blocking try hears: who holds, and never a place in the queue.
#[test]
fn a_start_that_may_not_wait_says_who_holds() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let held = manager.lock("x").reason("a test").acquire().unwrap();
    let start = |name: &str| {
        let (sender, done) = mpsc::channel();
        manager.lock(name).wait(Duration::ZERO).start(move |guard| sender.send(guard).unwrap()).unwrap();
        done.recv_timeout(SOON).unwrap()
    };
    let error = start("x").unwrap_err();
    assert_eq!(error.code(), ErrorCode::Held);
    assert_eq!(error.to_string(), manager.lock("x").acquire_now().unwrap_err().to_string());
    assert_eq!(error.holder().map(|holder| &*holder.claim.id), Some(held.id()));
    assert!(manager.status("x").unwrap().queue.is_empty());
    let file = repo.git_dir().join("refs/gitvan/locks/gone");
    fs::write(&file, "1234567890123456789012345678901234567890\n").unwrap();
    assert_eq!(start("gone").unwrap_err().code(), ErrorCode::RecordMissing);
    start("free").unwrap().release().unwrap();
    held.release().unwrap();
}

#[test]
fn any_of_several_tokens_ends_a_wait() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let held = manager.lock("x").acquire().unwrap();
    for which in 0..2 {
        let tokens = [CancelToken::new(), CancelToken::new()];
        let (sender, done) = mpsc::channel();
        let request = manager.lock("x").cancel(&tokens[0]).cancel(&tokens[1]);
        request.start(move |guard| sender.send(guard.map(drop)).unwrap()).unwrap();
        tokens[which].cancel();
        assert_eq!(done.recv_timeout(SOON).unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    }
    held.release().unwrap();
}

/// What is told by a callback, and on which thread.
fn telling<T: Send + 'static>() -> (impl FnOnce(T) + Send + 'static, mpsc::Receiver<(T, thread::ThreadId)>) {
    let (sender, told) = mpsc::channel();
    (move |what| sender.send((what, thread::current().id())).unwrap(), told)
}

#[test]
fn a_free_lock_that_is_begun_is_granted_on_this_thread_and_a_held_one_blocks_it_not() {
    let repo = Repo::new();
    let (holder, waiter) = (LockManager::open(repo.path()).unwrap(), never_polls(&repo));
    let (done, told) = telling();
    waiter.lock("x").begin(done).unwrap();
    let (guard, thread) = told.try_recv().unwrap();
    assert_eq!(thread, thread::current().id());
    guard.unwrap().release().unwrap();

    let held = holder.lock("x").acquire().unwrap();
    let (done, refused) = telling();
    waiter.lock("x").wait(Duration::ZERO).begin(done).unwrap();
    assert_eq!(refused.try_recv().unwrap().0.unwrap_err().code(), ErrorCode::Held);
    let (done, served) = telling();
    let (other, cancelled) = telling();
    waiter.lock("x").begin(done).unwrap();
    let cancelled_wait = waiter.lock("x").begin(other).unwrap();
    assert!(served.try_recv().is_err());
    assert_eq!(holder.status("x").unwrap().queue.len(), 2, "both are in the queue as soon as they are begun");
    cancelled_wait.cancel();
    assert_eq!(cancelled.recv_timeout(SOON).unwrap().0.unwrap_err().code(), ErrorCode::Cancelled);
    held.release().unwrap();
    let (guard, thread) = served.recv_timeout(SOON).unwrap();
    assert_ne!(thread, thread::current().id());
    guard.unwrap().release().unwrap();
}

/// A `.lock` file that somebody left behind doesn't hold the thread up, and nobody who comes later goes first.
#[test]
fn who_begins_later_does_not_overtake_who_could_not_be_asked_for_yet() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let stuck = repo.git_dir().join("refs/gitvan/locks/x.lock");
    fs::create_dir_all(stuck.parent().unwrap()).unwrap();
    fs::write(&stuck, "").unwrap();
    let (sender, granted) = mpsc::channel();
    for number in 0..20 {
        let sender = sender.clone();
        let start = Instant::now();
        let done = move |guard: gitlock::Result<gitlock::LockGuard>| sender.send((number, guard.unwrap())).unwrap();
        manager.lock("x").begin(done).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "begin() waited for a .lock file");
    }
    fs::remove_file(&stuck).unwrap();
    for number in 0..20 {
        let (came, guard) = granted.recv_timeout(SOON).unwrap();
        assert_eq!(came, number);
        guard.release().unwrap();
    }
}

#[test]
fn an_upgrade_that_is_begun_blocks_nobody() {
    let repo = Repo::new();
    let manager = never_polls(&repo);
    let (one, other) =
        (manager.lock("x").shared().acquire().unwrap(), manager.lock("x").shared().owner("b").acquire().unwrap());
    let (done, refused) = telling();
    one.begin_upgrade(Some(Duration::ZERO), None, done).unwrap();
    assert_eq!(refused.try_recv().unwrap().0.unwrap_err().code(), ErrorCode::Held);
    let (token, (done, cancelled)) = (CancelToken::new(), telling());
    one.begin_upgrade(None, Some(&token), done).unwrap();
    token.cancel();
    assert_eq!(cancelled.recv_timeout(SOON).unwrap().0.unwrap_err().code(), ErrorCode::Cancelled);
    assert_eq!((one.mode(), one.is_lost()), (gitlock::Mode::Shared, false));
    let (done, upgraded) = telling();
    one.begin_upgrade(None, None, done).unwrap();
    assert!(upgraded.try_recv().is_err());
    other.release().unwrap();
    upgraded.recv_timeout(SOON).unwrap().0.unwrap();
    assert_eq!(one.mode(), gitlock::Mode::Exclusive);
    one.release().unwrap();
}

#[test]
fn the_holder_of_a_slot_hears_who_waits_for_one() {
    let repo = Repo::new();
    let manager = LockManager::open(repo.path()).unwrap();
    let slot = || manager.lock("port").slots(2);
    let held = [slot().acquire().unwrap(), slot().owner("b").acquire().unwrap()];
    let (sender, heard) = mpsc::channel();
    held[0].on_wanted(move |wanted| sender.send(wanted.waiters).unwrap());
    let waits = slot().owner("c").start(drop).unwrap();
    assert_eq!(heard.recv_timeout(SOON).unwrap(), 1);
    assert!(held.iter().all(|guard| guard.wanted().unwrap().waiters == 1));
    waits.cancel();
    assert_eq!(heard.recv_timeout(SOON).unwrap(), 0);
}
