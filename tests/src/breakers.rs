//! Two breakers of one stale `.lock` at once, again and again: never two winners.

#![allow(clippy::expect_used)] // a test that can't touch its repository can't go on

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use gitlock::{
    lock::fault::Faults,
    store::{
        RefStore, Transacted,
        files::{FilesOptions, FilesStore},
    },
};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::{
    behaviour::{blob, edit, name, put, remove},
    git::Repo,
};

/// Makes a `.lock` as a gitlock process makes it: marked, and under flock before it has a name.
/// It lives as long as what is returned.
pub fn live_lock(path: &Path) -> OwnedFd {
    let parent = path.parent().expect("a folder");
    fs::create_dir_all(parent).expect("the lock's folder");
    let file =
        rustix::fs::open(parent, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o1666))
            .expect("O_TMPFILE");
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).expect("a flock of our own");
    let detour = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file.as_fd()));
    rustix::fs::linkat(CWD, detour, CWD, path, AtFlags::SYMLINK_FOLLOW).expect("nobody holds the lock");
    file
}

/// Makes a `.lock` as a killed gitlock process leaves it.
pub fn stale_lock(path: &Path) {
    drop(live_lock(path));
}

/// What became of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many stale locks there were.
    pub rounds: usize,
    /// In how many of them both breakers won, or an update was lost.
    pub two_winners: usize,
    /// In how many of them one that should have won didn't.
    pub no_winner: usize,
    /// How often the first and the second breaker won.
    pub wins: [usize; 2],
}

/// The judge must not leave the breakers waiting for it for ever.
struct ExitOnPanic;

impl Drop for ExitOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = b"the judge of the breakers panicked; run this test alone with --nocapture to see why\n";
            let _ = rustix::io::write(std::io::stderr(), told);
            std::process::exit(101);
        }
    }
}

/// Has two breakers meet at a stale lock this many times, by turns at a ref's own `.lock` and at
/// packed-refs.lock. With steps left out, if the harness is to be tried.
///
/// # Panics
/// If the repository can't be made or isn't sound afterwards.
pub fn run(rounds: usize, faults: Faults) -> Report {
    let repo = Repo::with(&[]);
    let git_dir = repo.git_dir();
    let options = FilesOptions { faults, ..FilesOptions::default() };
    let open = || FilesStore::open(repo.path(), &FilesOptions::default()).expect("the repository");
    let stores = [0, 1].map(|_| FilesStore::open(repo.path(), &options).expect("the repository"));
    let lock = name("contended");
    let packed = [name("packed-0"), name("packed-1")];
    let ref_lock = git_dir.join(format!("{lock}.lock"));
    let (start, end) = (Barrier::new(3), Barrier::new(3));
    let won = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let mut report = Report { rounds, ..Report::default() };
    // Both kinds of lock, alternating; the second needs refs that are packed.
    let at_packed = |round: usize| round % 2 == 1;
    std::thread::scope(|scope| {
        for (me, store) in stores.iter().enumerate() {
            let (start, end, won, lock, packed) = (&start, &end, &won[me], &lock, &packed[me]);
            scope.spawn(move || {
                let mut seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(me as u64 + 1);
                for round in 0..rounds {
                    start.wait();
                    let expected = if at_packed(round) { store.read(packed).expect("a ref") } else { None };
                    // Not always at the same time to the microsecond, so that every order is met.
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    for _ in 0..(seed >> 33) % 2_000 {
                        std::hint::spin_loop();
                    }
                    let edit = if at_packed(round) {
                        edit(packed, expected, None)
                    } else {
                        edit(lock, None, Some(blob(&format!("{me} {round}"))))
                    };
                    // Whatever goes wrong is told of by the judge; who panicked here would leave the others waiting.
                    let outcome = store.transact(&[edit]);
                    won.store(usize::from(matches!(outcome, Ok(Transacted::Committed(_)))), SeqCst);
                    end.wait();
                }
            });
        }
        let judge = open();
        let _no_hang = ExitOnPanic;
        for round in 0..rounds {
            let content = |me: usize| blob(&format!("packed {me}"));
            if at_packed(round) {
                let ids = [0, 1].map(|me| {
                    judge
                        .read(&packed[me])
                        .expect("a ref")
                        .unwrap_or_else(|| put(&judge, &packed[me], None, content(me)))
                });
                let lines: String = (0..2).map(|me| format!("{} {}\n", ids[me], packed[me])).collect();
                fs::write(
                    git_dir.join("packed-refs.made"),
                    format!("# pack-refs with: peeled fully-peeled sorted \n{lines}"),
                )
                .expect("packed-refs");
                fs::rename(git_dir.join("packed-refs.made"), git_dir.join("packed-refs")).expect("packed-refs");
                for name in &packed {
                    // One that came back is packed only.
                    let _ = fs::remove_file(git_dir.join(name.as_str()));
                }
                stale_lock(&git_dir.join("packed-refs.lock"));
            } else {
                stale_lock(&ref_lock);
            }
            start.wait();
            end.wait();
            let wins = [0, 1].map(|me: usize| won[me].load(SeqCst));
            if at_packed(round) {
                // Each deletes a ref of its own; who writes packed-refs last must not bring the other's back.
                report.no_winner += usize::from(wins != [1, 1]);
                let back = packed.iter().any(|name| judge.read(name).expect("a ref").is_some());
                report.two_winners += usize::from(back);
            } else {
                report.no_winner += usize::from(wins == [0, 0]);
                report.two_winners += usize::from(wins == [1, 1]);
                report.wins = [report.wins[0] + wins[0], report.wins[1] + wins[1]];
                match judge.read(&lock) {
                    Ok(Some(id)) => remove(&judge, &lock, id),
                    Ok(None) => {}
                    // One put the other's file in place before anything was in it.
                    Err(_) => {
                        report.two_winners += usize::from(wins != [1, 1]);
                        fs::remove_file(git_dir.join(lock.as_str())).expect("a torn ref");
                    }
                }
            }
            if round % 1_000 == 999 {
                judge.sweep(Some(Duration::ZERO)).expect("a sweep");
            }
        }
    });
    repo.assert_sound();
    report
}
