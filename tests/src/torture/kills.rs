//! One process in a hot loop, killed at a random moment, many times; and the same after it forked.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use gitlock::{LockManager, Options};

use super::{
    figures::Figures,
    scene::{LOCK, Scene},
    support::{Random, descendants, die_with_parent, kill_descendant, look, millis, nanos, pause},
    verdict, workers,
};

/// How long the next may take to acquire after a kill, in milliseconds: its owner is provably
/// dead, so that nothing is waited for, but a busy machine may be slow.
const AT_ONCE: u64 = 2_000;

/// The lease of those who are killed: so long that only the death of its owner can end it.
const LEASE: Duration = Duration::from_secs(3_600);

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct KillFigures {
    pub(crate) rounds: u64,
    /// Rounds in which the victim died holding the lock, or waiting for it.
    pub(crate) held: u64,
    /// Rounds that left one of gitlock's `.lock` files.
    pub(crate) lock_files: u64,
    /// How long the next took, in microseconds.
    pub(crate) took: Vec<u64>,
    pub(crate) faults: Vec<String>,
}

/// Kills a victim `rounds` times.
pub(crate) fn run(fork: bool, rounds: u64, seed: u64, folder: &Path) -> KillFigures {
    let mut figures = KillFigures::default();
    let made = tempfile::Builder::new().prefix("gitlock-kills-").tempdir_in(folder);
    let Ok(folder) = made.map_err(|error| figures.faults.push(error.to_string())) else { return figures };
    let scene = Scene::at(folder.path());
    if let Err(error) = super::arm::set_up(&scene, super::arm::ArmKind::Kills) {
        figures.faults.push(error);
        return figures;
    }
    let mut random = Random::new(seed);
    let options = Options::default();
    match LockManager::open_with(scene.repo(), options) {
        Ok(manager) => {
            let mut last = 0;
            for round in 0..rounds {
                if let Err(error) = one(&scene, &manager, fork, &mut random, &mut last, &mut figures) {
                    figures.faults.push(format!("round {round}: {error}"));
                    break;
                }
                figures.rounds += 1;
                // A packed ref, or a packed-refs.lock in the way, now and then.
                if random.one_in(16) {
                    let _ = scene.git().args(["pack-refs", "--all"]).output();
                }
            }
            manager.close();
        }
        Err(error) => figures.faults.push(error.to_string()),
    }
    let mut end = Figures::default();
    verdict::reach(&scene, super::arm::ArmKind::Kills, &super::figures::LogReader::default(), &mut end);
    figures.faults.extend(end.faults);
    if !figures.faults.is_empty() {
        println!("  the folder is kept: {}", folder.keep().display());
    }
    figures
}

fn one(
    scene: &Scene,
    manager: &LockManager,
    fork: bool,
    random: &mut Random,
    last: &mut u64,
    figures: &mut KillFigures,
) -> Result<(), String> {
    let role = if fork { "forker" } else { "victim" };
    let mut victim = Command::new(workers::myself())
        .args(["worker", role])
        .arg(scene.root())
        .args([random.next().to_string(), "kills".to_owned(), "-".to_owned()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("the victim can't be started: {error}"))?;
    let ready = first_line(&mut victim);
    // Microseconds, so that every moment of a transaction gets its share.
    random.pause_below(3_000);
    let killed = victim.kill().and_then(|()| victim.wait());
    let ready = ready.ok_or("the victim never got as far as a lock")?;
    killed.map_err(|error| format!("the victim can't be killed: {error}"))?;
    if ready != "ready" {
        return Err(format!("the victim failed: {ready}"));
    }
    figures.held += u64::from(manager.status(LOCK).is_ok_and(|status| !status.is_held()) && lock_is_there(scene));
    figures.lock_files += u64::from(lock_files(scene) > 0);
    let started = nanos();
    let guard = manager.lock(LOCK).wait(Duration::from_secs(20)).acquire();
    let took = (nanos() - started) / 1_000;
    // Children of a victim that forked live on until here.
    end_orphans();
    let guard = guard.map_err(|error| format!("NOT USABLE after a kill: {error}"))?;
    figures.took.push(took);
    if took > AT_ONCE * 1_000 {
        figures.faults.push(format!("usable again only after {} ms", took / 1_000));
    }
    if guard.token() <= *last {
        figures.faults.push(format!("SHRINKING TOKEN: {} after {last}", guard.token()));
    }
    *last = guard.token();
    guard.release().map_err(|error| format!("the release after a kill failed: {error}"))
}

fn lock_is_there(scene: &Scene) -> bool {
    scene.git_dir().join(super::scene::LOCK_REF).exists()
}

fn lock_files(scene: &Scene) -> usize {
    let folders = ["refs/gitvan/locks", "refs/gitvan/journal", ""];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(scene.git_dir().join(folder)).into_iter().flatten());
    entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".lock")).count()
}

fn first_line(victim: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(victim.stdout.take()?).read_line(&mut line).ok()?;
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn end_orphans() {
    let me = std::process::id();
    loop {
        let orphans = descendants(me);
        for pid in orphans.iter().filter(|pid| look(**pid).is_some_and(|view| !view.gone)) {
            kill_descendant(me, *pid);
        }
        while matches!(rustix::process::wait(rustix::process::WaitOptions::NOHANG), Ok(Some(_))) {}
        if orphans.is_empty() {
            return;
        }
    }
}

// ---------------------------------------------------------------- the victims

fn tell(word: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{word}").and_then(|()| stdout.flush());
}

/// Locks and releases as fast as it can, until it is killed.
pub(crate) fn victim(scene: &Scene, seed: u64, threads: u64) {
    die_with_parent();
    let manager = match LockManager::open(scene.repo()) {
        Ok(manager) => manager,
        Err(error) => return tell(&error.to_string()),
    };
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (manager, mut random) = (manager.clone(), Random::new(seed ^ thread << 32));
            scope.spawn(move || {
                for count in 0u64.. {
                    let mut request = manager.lock(LOCK).ttl(LEASE);
                    if random.one_in(4) {
                        request = request.shared();
                    }
                    let result = request.acquire().and_then(|guard| {
                        if random.one_in(4) {
                            guard.extend(None)?;
                        }
                        guard.release()
                    });
                    match result {
                        Ok(()) if count == 0 && thread == 0 => tell("ready"),
                        Ok(()) => {}
                        Err(error) => return tell(&error.to_string()),
                    }
                }
            });
        }
    });
}

/// The same from several threads, beside one that forks children, which live on.
pub(crate) fn forker(scene: &Scene, seed: u64) {
    std::thread::spawn(|| {
        for _ in 0..8 {
            // SAFETY: the child does nothing but wait for its end, by system calls alone.
            let child = unsafe { libc::fork() };
            if child == 0 {
                loop {
                    // SAFETY: pause(2) touches no memory.
                    unsafe { libc::pause() };
                }
            }
            pause(1);
        }
    });
    victim(scene, seed, 3);
}

/// Prints a row for people.
pub(crate) fn print(name: &str, figures: &mut KillFigures, started: u64) {
    figures.took.sort_unstable();
    let at = |share: usize| {
        let at = (figures.took.len() * share / 1_000).min(figures.took.len().saturating_sub(1));
        figures.took.get(at).copied().unwrap_or(0)
    };
    println!(
        "{name}: {} kills in {:.1} s; the victim held the lock in {}, left a .lock file in {}; the next had it after {} µs \
         (median), {} µs (99 %), {} µs (worst); {} faults",
        figures.rounds,
        (millis() - started) as f64 / 1_000.0,
        figures.held,
        figures.lock_files,
        at(500),
        at(990),
        at(1_000),
        figures.faults.len()
    );
    for fault in figures.faults.iter().take(20) {
        println!("  FAULT {fault}");
    }
}
