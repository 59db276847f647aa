//! Holders that are stopped past their lease while they push under the lock to a server, and go on when
//! somebody else has it.
//!
//! One process holds the lock and pushes to a ref without pause. In most rounds a proxy holds its request back, and it
//! is stopped then: another takes the lock and pushes a value of its own; then the first goes on, and its request
//! reaches the server, which has to refuse it. In the others it is stopped at a random moment. Both refs, the lock's and
//! the one that is pushed to, must stay as the next holder has set them.
//!
//! The control arm does the same without the fence, and must be caught.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use gitlock::{
    ErrorCode, LockManager, Options, PushSpec,
    lock::fault::{Fault, Faults},
};
use rustix::process::{Pid, Signal};

use crate::servers::{Daemon, Link, Served, Web};

use super::{
    scene::{LOCK, LOCK_REF, Scene},
    support::{Random, die_with_parent, millis},
};

/// The ref that is pushed to.
const TARGET: &str = "refs/fenced/target";

/// The lease of those who are stopped.
const LEASE: Duration = Duration::from_millis(600);

/// How long anything may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// The values that the holder pushes.
const VALUES: usize = 8;

/// How it went.
#[derive(Debug, Default)]
pub struct PushFigures {
    /// Holders whose request reached the server when they had lost their lease.
    pub late: u64,
    /// Of them those that the server refused, with both refs as the next holder had set them.
    pub refused: u64,
    /// Holders that were stopped at a random moment; all of them were refused, by whomever.
    pub random: u64,
    /// What must not be.
    pub faults: Vec<String>,
}

/// Has so many requests come late, half over git://, half over HTTP. `program` is the torture's own.
pub fn run(rounds: u64, seed: u64, folder: &Path, program: &str, fenced: bool) -> PushFigures {
    let mut sum = PushFigures::default();
    std::thread::scope(|scope| {
        let threads = [rounds.div_ceil(2), rounds / 2].into_iter().enumerate().map(|(number, rounds)| {
            scope.spawn(move || one_scene(rounds, number == 1, seed ^ (number as u64) << 32, folder, program, fenced))
        });
        for thread in threads.collect::<Vec<_>>() {
            match thread.join() {
                Ok(figures) => {
                    sum.late += figures.late;
                    sum.refused += figures.refused;
                    sum.random += figures.random;
                    sum.faults.extend(figures.faults);
                }
                Err(_) => sum.faults.push("the harness panicked".to_owned()),
            }
        }
    });
    sum
}

/// Runs both arms and prints a row for each. Returns how many faults there were.
pub(crate) fn both(rounds: u64, seed: u64, place: &str, folder: &Path, program: &str) -> usize {
    let started = millis();
    let figures = run(rounds, seed, folder, program, true);
    println!(
        "fenced-push on {place}: {} requests came to the server after the lease, {} were refused with both refs unchanged; {} \
         holders more stopped at random; {:.1} s; {} faults",
        figures.late,
        figures.refused,
        figures.random,
        (millis() - started) as f64 / 1_000.0,
        figures.faults.len()
    );
    figures.faults.iter().take(20).for_each(|fault| println!("  FAULT {fault}"));
    let control = run(2, seed, folder, program, false);
    match control.faults.first() {
        Some(fault) => println!("  without the fence, caught as it must be: {fault}"),
        None => println!("  NOT CAUGHT: a harness that can't see a stale push without the fence sees none with it"),
    }
    figures.faults.len() + usize::from(control.faults.is_empty())
}

struct Stage {
    served: Served,
    link: Link,
    _servers: (Option<Daemon>, Option<Web>),
    manager: LockManager,
    holder: Holder,
    random: Random,
    mine: String,
}

struct Holder {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Holder {
    fn start(scene: &Scene, seed: u64, program: &str, fenced: bool) -> std::io::Result<Holder> {
        let role = if fenced { "fenced-push-holder" } else { "unfenced-push-holder" };
        let mut child = Command::new(program)
            .args(["worker", role])
            .arg(scene.root())
            .args([&*seed.to_string(), "exclusion", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(to), Some(from)) => Ok(Holder { child, to, from: BufReader::new(from) }),
            _ => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn hear(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.from.read_line(&mut line).map_err(|error| error.to_string())?;
        Ok(line.trim().to_owned())
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("no such process")?;
        rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn one_scene(rounds: u64, web: bool, seed: u64, folder: &Path, program: &str, fenced: bool) -> PushFigures {
    let mut figures = PushFigures::default();
    let made = tempfile::Builder::new().prefix("gitlock-fenced-push-").tempdir_in(folder);
    let Ok(folder) = made.map_err(|error| figures.faults.push(error.to_string())) else { return figures };
    let stage = Stage::set(folder.path(), web, seed, program, fenced);
    let Ok(mut stage) = stage.map_err(|error| figures.faults.push(error)) else { return figures };
    while figures.late < rounds && figures.faults.is_empty() {
        let late = !stage.random.one_in(4);
        match stage.round(late) {
            Ok(()) if late => (figures.late, figures.refused) = (figures.late + 1, figures.refused + 1),
            Ok(()) => figures.random += 1,
            Err(error) => {
                figures.late += u64::from(late);
                figures.faults.push(format!("round {}: {error}", figures.late + figures.random));
            }
        }
    }
    stage.link.let_go();
    drop(stage.holder);
    crate::git::assert_sound(&stage.served.repository());
    figures
}

impl Stage {
    fn set(root: &Path, web: bool, seed: u64, program: &str, fenced: bool) -> Result<Stage, String> {
        let (scene, served) = (Scene::at(root), Served::new());
        let (daemon, web) = match web {
            true => (None, Some(Web::start(served.folder()))),
            false => (Some(Daemon::start(served.folder(), &["--enable=receive-pack"])), None),
        };
        let server = daemon.as_ref().map(|daemon| daemon.port).or(web.as_ref().map(|web| web.port)).unwrap_or_default();
        let url = |port: u16| {
            let scheme = if web.is_some() { "http" } else { "git" };
            format!("{scheme}://127.0.0.1:{port}/locks.git")
        };
        let link = Link::start(server, Duration::ZERO);
        let repo = scene.repo().display().to_string();
        crate::git::run_git(root, &["init", "-q", &repo]);
        let git = |words: &[&str]| crate::git::run_git(&scene.repo(), words);
        git(&["remote", "add", "origin", &url(link.port)]);
        git(&["remote", "add", "direct", &url(server)]);
        for number in 0..=VALUES {
            let path = root.join("value");
            std::fs::write(&path, format!("value {number}")).map_err(|error| error.to_string())?;
            let blob = git(&["hash-object", "-w", &path.display().to_string()]);
            git(&["update-ref", &format!("refs/values/{number}"), &blob]);
        }
        let mine = git(&["rev-parse", &format!("refs/values/{VALUES}")]);
        let manager = open(&scene, "direct", Faults::NONE)?;
        let mut random = Random::new(seed);
        let holder = Holder::start(&scene, random.next(), program, fenced).map_err(|error| error.to_string())?;
        Ok(Stage { served, link, _servers: (daemon, web), manager, holder, random, mine })
    }

    fn refs(&self) -> String {
        crate::git::run_git(&self.served.repository(), &["rev-parse", TARGET, LOCK_REF])
    }

    /// One holder that is stopped: when its request is on its way and the server doesn't have it yet, or at random.
    fn round(&mut self, late: bool) -> Result<(), String> {
        let told = |error: gitlock::Error| format!("{} {error}", error.code().as_str());
        writeln!(self.holder.to, "go").map_err(|error| error.to_string())?;
        let held = self.holder.hear()?;
        if held != "held" {
            return Err(format!("the holder failed: {held}"));
        }
        self.random.pause_below(60_000);
        if late {
            self.link.hold(TARGET);
            if !self.link.wait_until_held(PATIENCE) {
                return Err(format!("the holder pushed nothing more, and was told: {}", self.holder.hear()?));
            }
        }
        self.holder.signal(Signal::STOP)?;
        let guard = self.manager.lock(LOCK).wait(PATIENCE).acquire().map_err(told)?;
        guard.push(&[spec(VALUES)?]).map_err(told)?;
        let before = self.refs();
        // What renews the lock itself would change its ref.
        let handle = guard.detach();
        self.holder.signal(Signal::CONT)?;
        self.link.let_go();
        let answer = self.holder.hear()?;
        let after = self.refs();
        if !after.starts_with(&self.mine) {
            return Err(format!("A STALE PUSH: {TARGET} isn't at {}, as the next holder set it: {after}", self.mine));
        }
        if after != before {
            return Err(format!("the lock's ref has moved: {before} is {after}"));
        }
        if answer != ErrorCode::LockLost.as_str() {
            return Err(format!("the holder that had lost its lease was told: {answer}"));
        }
        self.manager.release(&handle).map_err(told)
    }
}

fn open(scene: &Scene, remote: &str, faults: Faults) -> Result<LockManager, String> {
    let mut options = Options::default();
    options.remote = Some(remote.to_owned());
    options.poll_interval = Duration::from_millis(100);
    options.remote_timeout = PATIENCE;
    options.faults = faults;
    LockManager::open_with(scene.repo(), options).map_err(|error| error.to_string())
}

fn spec(number: usize) -> Result<PushSpec, String> {
    format!("+refs/values/{number}:{TARGET}").parse().map_err(|error: gitlock::Error| error.to_string())
}

/// Pushes under the lock until it is refused, then says what it was told; and again.
pub(crate) fn holder(scene: &Scene, seed: u64, fenced: bool) {
    die_with_parent();
    let tell = |word: &str| {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{word}").and_then(|()| stdout.flush());
    };
    let faults = if fenced { Faults::NONE } else { Faults::only(Fault::NoFence) };
    let manager = match open(scene, "origin", faults) {
        Ok(manager) => manager,
        Err(error) => return tell(&error),
    };
    let mut random = Random::new(seed);
    for line in std::io::stdin().lines() {
        if line.is_err() {
            return;
        }
        let guard = match manager.lock(LOCK).ttl(LEASE).wait(PATIENCE).acquire() {
            Ok(guard) => guard,
            Err(error) => return tell(&error.to_string()),
        };
        tell("held");
        loop {
            let Ok(spec) = spec(usize::try_from(random.below(VALUES as u64)).unwrap_or(0)) else { return };
            if let Err(error) = guard.push(&[spec]) {
                let word = error.code().as_str();
                match error.code() {
                    ErrorCode::LockLost => tell(word),
                    _ => tell(&format!("{word} {error}").replace('\n', " | ")),
                }
                break;
            }
        }
    }
}
