//! For the benchmark of the surfaces: `pairs REPOSITORY`. For each number that it reads from stdin it acquires and releases
//! a free lock so many times, and prints how many nanoseconds a pair took.

use std::io::BufRead;

use gitlock::LockManager;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = LockManager::open(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()))?;
    for line in std::io::stdin().lock().lines() {
        let pairs: u32 = line?.trim().parse()?;
        let start = nanos();
        for _ in 0..pairs {
            manager.lock("rust").acquire()?.release()?;
        }
        println!("{}", (nanos() - start) / u64::from(pairs.max(1)));
    }
    Ok(())
}

fn nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
