//! Acquires a lock, which somebody may hold, and releases it: a process to be killed in the middle.
//!
//! `lock_actor REPOSITORY NAME`

use std::time::Duration;

fn main() -> Result<(), gitlock::Error> {
    let mut words = std::env::args().skip(1);
    let (repo, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let manager = gitlock::LockManager::open(repo)?;
    let guard = manager.lock(&name).ttl(Duration::from_secs(600)).wait(Duration::from_secs(60)).acquire()?;
    guard.extend(None)?;
    guard.release()
}
