//! A process that does one thing with a files store, for tests that stop it or kill it half-way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what goes wrong here shows as its exit

use std::{
    fs,
    path::Path,
    sync::{Arc, mpsc},
};

use gitlock::{
    RefName,
    clock::{Clock, SystemClock},
    lock::fault::{Fault, Faults},
    store::{
        RefEdit, RefStore, Transacted,
        files::{FilesOptions, FilesStore},
    },
};
use gitlock_tests::{
    behaviour::{blob, commit, edit, name},
    packer::{Pause, ScriptedClock},
};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["delete", repo, name, signal, gap] => {
            let (signal, gap): (i32, usize) = (signal.parse().unwrap(), gap.parse().unwrap());
            let at_gap = in_gaps(Path::new(repo), move |number| {
                if number == gap {
                    println!("in the gap");
                    raise(signal);
                }
            });
            delete(&at_gap, name);
        }
        ["fork", repo, how] => fork(Path::new(repo), how),
        ["cycle", repo] => cycle(Path::new(repo)),
        ["threads"] => std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        // SAFETY: a plain system call.
                        unsafe { libc::getppid() };
                    }
                });
            }
        }),
        _ => panic!("not for use by hand: {words:?}"),
    }
}

fn raise(signal: i32) {
    // SAFETY: a plain system call.
    unsafe { libc::raise(signal) };
}

/// A store that calls this in the gaps of its transactions, with the number of the gap.
fn in_gaps(repo: &Path, mut script: impl FnMut(usize) + Send + 'static) -> FilesStore {
    let mut number = 0;
    let clock = ScriptedClock::new(move |pause| {
        if pause == Pause::Gap {
            number += 1;
            script(number);
        }
    });
    // A fault that no store has opens the gaps, and does nothing else.
    let faults = Faults::only(Fault::NoAgeing);
    FilesStore::open(repo, &FilesOptions { clock: Arc::new(clock), faults, ..FilesOptions::default() }).unwrap()
}

fn commits(store: &FilesStore, edits: &[RefEdit]) {
    assert!(matches!(store.transact(edits).unwrap(), Transacted::Committed(_)), "{edits:?}");
}

fn delete(store: &FilesStore, name: &str) {
    let name = RefName::foreign(name);
    let id = store.read(&name).unwrap();
    commits(store, &[edit(&name, id, None)]);
}

/// Forks while another thread is inside a lock, and is killed inside a later one. The child lives
/// on, and its pid is printed.
///
/// `raw`: by the system call itself, which asks nobody. `libc`: as programs do.
fn fork(repo: &Path, how: &str) {
    let raw = how == "raw";
    let (inside, wait_inside) = mpsc::channel();
    let (forked, wait_forked) = mpsc::channel();
    let store = in_gaps(repo, move |number| {
        if number == 1 {
            inside.send(()).unwrap();
            // The fork that asks has to be under way before this transaction ends.
            SystemClock.pause(std::time::Duration::from_millis(300));
        }
        // The first gap of the first transaction, or of the second.
        if number == if raw { 1 } else { 4 } {
            wait_forked.recv().unwrap();
            raise(libc::SIGKILL);
        }
    });
    let transactions = std::thread::spawn(move || {
        delete(&store, name("a").as_str());
        delete(&store, name("b").as_str());
    });
    wait_inside.recv().unwrap();
    // SAFETY: the child calls nothing that isn't safe after a fork.
    let child = unsafe { if raw { libc::syscall(libc::SYS_fork) } else { libc::fork().into() } };
    if child == 0 {
        loop {
            // SAFETY: a plain system call.
            unsafe { libc::pause() };
        }
    }
    fs::write(repo.join("child"), child.to_string()).unwrap();
    forked.send(()).unwrap();
    transactions.join().unwrap();
}

/// What a lock's life comes to: created, unless it is there, swapped, and deleted with an entry in
/// its journal.
fn cycle(repo: &Path) {
    let store = FilesStore::open(repo, &FilesOptions::default()).unwrap();
    let (lock, journal) = (name("killed"), RefName::foreign("refs/gitvan/journal/killed"));
    if store.read(&lock).unwrap().is_none() {
        commits(&store, &[edit(&lock, None, Some(blob("created")))]);
    }
    let created = store.read(&lock).unwrap();
    commits(&store, &[edit(&lock, created, Some(blob("swapped")))]);
    let (swapped, ended) = (store.read(&lock).unwrap(), store.read(&journal).unwrap());
    commits(&store, &[edit(&journal, ended, Some(commit(ended, "killed: released"))), edit(&lock, swapped, None)]);
}
