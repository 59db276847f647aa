//! What many clients of one hot lock cost a server: `scale [--latency MS] [--clients N,N,…]`.
//!
//! Every client is a manager of its own, as on a machine of its own, on one memory store at a distance. What is
//! counted is what a server would be asked.
#![allow(clippy::expect_used, clippy::panic)] // a simulation that can't go on says so

use std::{sync::Arc, sync::mpsc, time::Duration};

use gitlock::{
    LockGuard, LockManager, Options,
    clock::{Clock, SystemClock},
    store::{distant::DistantStore, memory::MemoryStore},
};

/// How long nothing happens while questions are counted, in milliseconds.
const QUIET: u64 = 10_000;

/// How often the lock is handed over.
const HANDED: usize = 10;

fn pause(millis: u64) {
    SystemClock.pause(Duration::from_millis(millis));
}

fn main() {
    let (mut latency, mut all) = (20, vec![1, 10, 100, 300]);
    let words: Vec<String> = std::env::args().skip(1).collect();
    for pair in words.chunks(2) {
        match pair {
            [flag, value] if flag == "--latency" => latency = value.parse().expect("milliseconds"),
            [flag, value] if flag == "--clients" => {
                all = value.split(',').map(|count| count.parse().expect("a number of clients")).collect();
            }
            _ => panic!("usage: scale [--latency MS] [--clients N,N,…]"),
        }
    }
    println!("one hot lock at a server {latency} ms away, every client a machine of its own");
    println!(
        "{:>8} {:>14} {:>14} {:>16} {:>16} {:>18}",
        "waiters", "changes to", "questions/s", "questions/s", "wake-up, ms", "record, bytes"
    );
    println!(
        "{:>8} {:>14} {:>14} {:>16} {:>16} {:>18}",
        "", "queue, each", "while quiet", "in a hand-over", "(median)", ""
    );
    for clients in all {
        round(latency, clients);
    }
}

fn round(latency: u64, clients: usize) {
    let memory = MemoryStore::new();
    let server = DistantStore::new(Arc::new(memory), Duration::from_millis(latency));
    let open = || LockManager::with_store(Arc::new(server.clone()), Options::default()).expect("a manager");
    let holder = open();
    let mut held = holder.lock("hot").acquire().expect("it is free");
    let before = server.changes();
    let (tell, told) = mpsc::channel::<(u64, LockGuard)>();
    let mut waits = Vec::new();
    for number in 0..clients {
        let (manager, tell) = (open(), tell.clone());
        let owner = format!("client {number}");
        let done = move |result: gitlock::Result<LockGuard>| {
            // At the end all waits are cancelled.
            if let Ok(guard) = result {
                let _ = tell.send((SystemClock.boot_ms(), guard));
            }
        };
        let waiting = manager.lock("hot").owner(owner).start(done).expect("a wait");
        waits.push((manager, waiting));
    }
    while holder.status("hot").expect("a status").queue.len() < clients {
        pause(200);
    }
    let queued = (server.changes() - before) as f64 / clients as f64;
    let record = shown_length(&holder);
    // The pauses between two questions have grown.
    pause(5_000);
    let quiet = server.questions();
    pause(QUIET);
    let quiet = (server.questions() - quiet) as f64 * 1_000.0 / QUIET as f64;
    let (began, asked) = (SystemClock.boot_ms(), server.questions());
    let mut woken = Vec::new();
    for _ in 0..HANDED.min(clients) {
        let released = SystemClock.boot_ms();
        held.release().expect("it is held");
        let (at, next) = told.recv().expect("whoever is next");
        woken.push(at - released);
        held = next;
    }
    let took = (SystemClock.boot_ms() - began).max(1);
    let busy = (server.questions() - asked) as f64 * 1_000.0 / took as f64;
    woken.sort_unstable();
    println!(
        "{clients:>8} {queued:>14.1} {quiet:>14.1} {busy:>16.1} {:>16} {record:>18}",
        woken.get(woken.len() / 2).copied().unwrap_or_default()
    );
    waits.iter().for_each(|(_, waiting)| waiting.cancel());
}

/// How long the lock's record is, about: as what can be seen of it.
fn shown_length(manager: &LockManager) -> usize {
    gitlock::json::status(&manager.status("hot").expect("a status")).to_string().len()
}
