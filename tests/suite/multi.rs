//! Locks in several repositories at once, on servers that come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use gitlock::{
    CancelToken, ErrorCode, LockManager, MultiGuard, Options, Repositories, Result,
    clock::{Clock, SystemClock},
};
use gitlock_tests::{
    clocks::Tomorrow,
    git::{Repo, assert_sound},
    servers::{Daemon, Served, free_port},
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn pause(time: u64) {
    SystemClock.pause(millis(time));
}

/// A server of its own for each repository, which can go away and come back.
struct Farm {
    served: Vec<(Served, u16)>,
    up: Vec<Option<Daemon>>,
    client: Repo,
}

impl Farm {
    fn new(count: usize) -> Farm {
        let served: Vec<(Served, u16)> = (0..count).map(|_| (Served::new(), free_port())).collect();
        let up = served.iter().map(|(served, port)| Some(start(served, *port))).collect();
        Farm { served, up, client: Repo::new() }
    }

    fn stop(&mut self, which: &[usize]) {
        which.iter().for_each(|at| self.up[*at] = None);
    }

    fn start(&mut self, which: &[usize]) {
        which.iter().for_each(|at| self.up[*at] = Some(start(&self.served[*at].0, self.served[*at].1)));
    }

    fn manager(&self, at: usize, clock: Arc<dyn Clock>) -> LockManager {
        let mut options = Options::default();
        options.remote = Some(format!("git://127.0.0.1:{}/locks.git", self.served[at].1));
        options.poll_interval = millis(100);
        options.remote_timeout = millis(1_000);
        options.clock = clock;
        LockManager::open_with(self.client.path(), options).unwrap()
    }

    fn open(&self) -> Repositories {
        Repositories::new((0..self.served.len()).map(|at| self.manager(at, Arc::new(SystemClock)))).unwrap()
    }
}

fn start(served: &Served, port: u16) -> Daemon {
    Daemon::start_at(served.folder(), &["--enable=receive-pack"], port)
}

fn memories(count: usize) -> Vec<LockManager> {
    (0..count).map(|_| LockManager::in_memory(Options::default()).unwrap()).collect()
}

fn quorum(of: &Repositories, wait: u64) -> Result<MultiGuard> {
    of.quorum("deploy").with(|request| request.wait(millis(wait))).acquire()
}

fn all(of: &Repositories, names: &[&str], wait: u64) -> Result<MultiGuard> {
    of.all(names).with(|request| request.wait(millis(wait))).acquire()
}

fn in_turn(managers: &[LockManager]) -> Vec<LockManager> {
    Repositories::new(managers.iter().cloned()).unwrap().managers().to_vec()
}

#[test]
fn all_or_none() {
    let managers = in_turn(&memories(3));
    let three = Repositories::new(managers.clone()).unwrap();
    let held = |name: &str| managers.iter().filter(|manager| manager.status(name).unwrap().is_held()).count();
    let guard = all(&three, &["web", "db"], 0).unwrap();
    assert_eq!((held("web"), held("db"), guard.held_in().len()), (3, 3, 3));
    assert!(guard.validity() > Duration::from_secs(20));
    let first = guard.token();
    guard.release().unwrap();
    assert_eq!((held("web"), held("db")), (0, 0));

    let other = managers[2].lock("db").reason("the migration").acquire().unwrap();
    let error = all(&three, &["web", "db"], 100).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert!(error.to_string().contains(&managers[2].location()) && error.to_string().contains("the migration"));
    assert_eq!((held("web"), held("db")), (0, 1), "what was taken before is given back");
    other.release().unwrap();
    assert!(all(&three, &["web", "db"], 0).unwrap().token() > first);
    assert_eq!(held("web"), 0, "a dropped guard releases");
}

#[test]
fn the_same_repository_twice_and_none_are_refused() {
    let one = LockManager::in_memory(Options::default()).unwrap();
    assert_eq!(Repositories::new([one.clone(), one]).unwrap_err().code(), ErrorCode::InvalidArgument);
    assert_eq!(Repositories::new([]).unwrap_err().code(), ErrorCode::InvalidArgument);
}

#[test]
fn a_majority_holds_and_a_minority_in_other_hands_does_not_matter() {
    let managers = in_turn(&memories(3));
    let three = Repositories::new(managers.clone()).unwrap();
    let guard = quorum(&three, 0).unwrap();
    let (one, two) = (three.clone(), three.clone());
    assert_eq!(quorum(&one, 0).unwrap_err().code(), ErrorCode::Held);
    assert_eq!(quorum(&two, 50).unwrap_err().code(), ErrorCode::Timeout);
    for manager in &managers[..2] {
        let token = manager.status("deploy").unwrap().holders[0].holder.token;
        assert_eq!(token, Some(guard.token()), "the token is written back");
    }
    guard.extend(None).unwrap();
    assert_eq!(guard.held_in().len(), 3);
    managers[0].break_lock("deploy", None, None).unwrap();
    guard.extend(None).unwrap();
    assert_eq!(guard.held_in().len(), 3, "and what was lost of it is acquired again");
    guard.release().unwrap();
}

#[test]
fn what_joins_while_a_majority_lets_go_is_given_back_before_that_is_done() {
    let managers = in_turn(&memories(5));
    let five = Repositories::new(managers.clone()).unwrap();
    for round in 0..500 {
        let guard = quorum(&five, 0).unwrap();
        SystemClock.pause(Duration::from_micros(round % 100 * 2));
        match round % 2 {
            0 => guard.release().unwrap(),
            _ => drop(guard),
        }
        // A program that ends now must have left nothing that only its lease ends.
        for manager in &managers {
            assert!(!manager.status("deploy").unwrap().is_held(), "in round {round}");
        }
    }
}

#[test]
fn who_is_left_with_a_minority_is_told_and_can_not_go_on() {
    let managers = in_turn(&memories(3));
    let guard = quorum(&Repositories::new(managers.clone()).unwrap(), 0).unwrap();
    guard.extend(None).unwrap();
    let (tell, told) = mpsc::channel();
    guard.on_lost(move || tell.send(()).unwrap());
    managers[0].break_lock("deploy", None, None).unwrap();
    assert!(told.recv_timeout(millis(2_500)).is_err() && !guard.is_lost(), "two of three are enough");
    managers[2].break_lock("deploy", None, None).unwrap();
    told.recv_timeout(millis(20_000)).unwrap();
    assert!(guard.is_lost() && guard.validity().is_zero());
    assert_eq!(guard.extend(None).unwrap_err().code(), ErrorCode::LockLost);
    assert_eq!(guard.release().unwrap_err().code(), ErrorCode::LockLost);
    assert!(!managers[1].status("deploy").unwrap().is_held(), "what was left of it is given back");
    let again = guard.release().unwrap_err();
    assert!(again.code() == ErrorCode::LockLost && again.to_string().contains("before"), "{again}");
}

#[test]
fn whoever_waits_is_next() {
    let three = Repositories::new(memories(3)).unwrap();
    let guard = quorum(&three, 0).unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (client, order) = (three.clone(), &order);
            scope.spawn(move || {
                let guard = quorum(&client, 30_000).unwrap();
                order.lock().unwrap().push((number, guard.token()));
                guard.release().unwrap();
            });
            while three.managers()[0].status("deploy").unwrap().queue.len() <= number {
                pause(2);
            }
        }
        guard.release().unwrap();
    });
    let order = order.into_inner().unwrap();
    assert!(order.iter().map(|(number, _)| *number).eq(0..4), "{order:?}");
    assert!(order.is_sorted_by(|a, b| a.1 < b.1), "{order:?}");
}

#[test]
fn a_wait_can_be_cancelled_and_leaves_nothing() {
    let three = Repositories::new(memories(3)).unwrap();
    let other = three.managers()[1].lock("deploy").acquire().unwrap();
    let cancel = CancelToken::new();
    let token = cancel.clone();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| three.all(&["deploy"]).with(|request| request.cancel(&token)).acquire());
        while three.managers()[1].status("deploy").unwrap().queue.is_empty() {
            pause(2);
        }
        cancel.cancel();
        assert_eq!(waits.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    });
    assert!(!three.managers()[0].status("deploy").unwrap().is_held());
    other.release().unwrap();
}

#[test]
fn any_two_of_five_may_be_down_and_three_are_too_many() {
    let mut farm = Farm::new(5);
    let five = farm.open();
    let mut highest = 0;
    let mut works = |why: &str| {
        let guard = quorum(&five, 30_000).unwrap_or_else(|error| panic!("{why}: {error}"));
        assert!(guard.token() > highest, "{why}");
        highest = guard.token();
        assert!(guard.validity() > millis(10_000), "{why}");
        guard.release().unwrap();
    };
    works("all are there");
    for (one, two) in [(0, 1), (1, 3), (2, 4)] {
        farm.stop(&[one, two]);
        works(&format!("{one} and {two} are down"));
        farm.start(&[one, two]);
    }
    farm.stop(&[0, 2, 3]);
    let error = quorum(&five, 30_000).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Io);
    assert!(error.to_string().contains("only 2 of 5 repositories can be used, and 3 are needed"), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", farm.served[0].1)), "{error}");
    farm.start(&[0, 2, 3]);
    works("all are there again");
    farm.served.iter().for_each(|(served, _)| assert_sound(&served.repository()));
}

#[test]
fn a_holder_goes_on_when_two_of_its_servers_go_and_who_waits_there_finds_the_others() {
    let mut farm = Farm::new(5);
    let (holder, waiter) = (farm.open(), farm.open());
    let guard = holder.quorum("deploy").with(|request| request.ttl(millis(3_000))).acquire().unwrap();
    guard.extend(None).unwrap();
    assert_eq!(guard.held_in().len(), 5);
    let gate = farm
        .served
        .iter()
        .position(|(_, port)| holder.managers()[0].location().contains(&format!(":{port}/")))
        .unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| quorum(&waiter, 60_000).unwrap());
        while waiter.managers()[0].status("deploy").unwrap().queue.is_empty() {
            pause(20);
        }
        farm.stop(&[gate]);
        pause(4_000);
        assert!(!guard.is_lost() && !waits.is_finished());
        let token = guard.token();
        guard.release().unwrap();
        let next = waits.join().unwrap();
        assert!(next.token() > token);
        next.release().unwrap();
    });
}

#[test]
fn a_majority_s_token_is_above_that_of_one_with_which_it_shares_a_single_repository() {
    let mut farm = Farm::new(5);
    // A clock that was wrong once has left a high token in the first repository.
    let ahead = farm.manager(0, Arc::new(Tomorrow));
    ahead.lock("deploy").acquire().unwrap().release().unwrap();
    farm.stop(&[3, 4]);
    let guard = quorum(&farm.open(), 30_000).unwrap();
    let high = guard.token();
    assert!(high > SystemClock.now().wall_micros + 3_600_000_000);
    guard.release().unwrap();
    farm.start(&[3, 4]);
    farm.stop(&[0, 1]);
    let guard = quorum(&farm.open(), 30_000).unwrap();
    assert!(guard.token() > high, "{} after {high}", guard.token());
    guard.release().unwrap();
}

#[test]
fn never_two_holders_while_servers_come_and_go() {
    let mut farm = Farm::new(5);
    let clients: Vec<Repositories> = (0..3).map(|_| farm.open()).collect();
    let (inside, highest) = (AtomicBool::new(false), AtomicU64::new(0));
    let (taken, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in &clients {
            let (inside, highest, taken, over) = (&inside, &highest, &taken, &over);
            scope.spawn(move || {
                while !over.load(SeqCst) {
                    let guard = match client
                        .quorum("hot")
                        .with(|request| request.ttl(millis(4_000)).wait(millis(30_000)))
                        .acquire()
                    {
                        Ok(guard) => guard,
                        Err(error) if matches!(error.code(), ErrorCode::Io | ErrorCode::Timeout) => continue,
                        Err(error) => panic!("{error}"),
                    };
                    if !guard.is_lost() {
                        assert!(!inside.swap(true, SeqCst), "two are inside");
                        assert!(highest.swap(guard.token(), SeqCst) < guard.token(), "a token went back");
                        pause(5);
                        taken.fetch_add(1, SeqCst);
                        inside.store(false, SeqCst);
                    }
                    let _ = guard.release();
                }
            });
        }
        for round in 0..3_usize {
            let down = [round % 5, (round * 3 + 1) % 5];
            let before = taken.load(SeqCst);
            farm.stop(&down);
            let mut patience = 0;
            while taken.load(SeqCst) < before + 3 {
                pause(100);
                patience += 1;
                assert!(patience < 600, "with {down:?} down nobody acquires any more");
            }
            farm.start(&down);
        }
        over.store(true, SeqCst);
    });
    assert!(taken.load(SeqCst) >= 9);
    farm.served.iter().for_each(|(served, _)| assert_sound(&served.repository()));
}
