//! What a busy lock leaves in the repository, and whether it gets slower: many acquisitions, with
//! the whole journal and with `keep = 1`; the cost of the last tenth beside the first; and what
//! `git count-objects` says before and after the sweep.
//!
//! `cargo bench -p gitlock --bench growth`, with `-- --pairs N` for N acquisitions (default 20,000).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use gitlock::{LockManager, Options};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let pairs = arguments.iter().position(|word| word == "--pairs").and_then(|at| arguments.get(at + 1)?.parse().ok());
    let pairs: u32 = pairs.unwrap_or(20_000);
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    println!("{pairs} acquisitions of one lock in {}", folder.display());
    println!(
        "{:12} {:>10} {:>10} {:>6} {:>16} {:>16} {:>16}",
        "journal", "first 10th", "last 10th", "ratio", "objects before", "swept", "objects after"
    );
    for (what, keep) in [("everything", None), ("keep = 100", Some(100)), ("keep = 1", Some(1))] {
        let repo = tempfile::Builder::new().prefix("gitlock-growth-").tempdir_in(&folder).unwrap();
        assert!(Command::new("git").args(["init", "-q"]).arg(repo.path()).status().unwrap().success());
        let mut options = Options::default();
        options.keep = keep;
        let manager = LockManager::open_with(repo.path(), options).unwrap();
        let tenth = |_| {
            let start = Instant::now();
            for _ in 0..pairs / 10 {
                manager.lock("build").acquire().unwrap().release().unwrap();
            }
            start.elapsed() / (pairs / 10)
        };
        let tenths: Vec<Duration> = (0..10).map(tenth).collect();
        let before = objects(repo.path());
        let cleaned = manager.clean(Some(Duration::ZERO)).unwrap();
        let (first, last) = (tenths[0].as_secs_f64() * 1e6, tenths[9].as_secs_f64() * 1e6);
        println!(
            "{what:12} {first:>7.1} µs {last:>7.1} µs {:>6.2} {before:>16} {:>16} {:>16}",
            last / first,
            cleaned.objects_deleted,
            objects(repo.path())
        );
        let fsck =
            Command::new("git").current_dir(repo.path()).args(["fsck", "--strict", "--no-dangling"]).output().unwrap();
        assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stderr));
    }
}

fn objects(repo: &Path) -> u64 {
    let output = Command::new("git").current_dir(repo).args(["count-objects", "-v"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap();
    count("count:") + count("in-pack:")
}
