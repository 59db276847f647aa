//! Holders that are stopped past their lease while they change a ref under the lock, and go on
//! when somebody else has it.
//!
//! One process holds the lock and changes a ref without pause. It is stopped at a random moment, at times with the Git
//! command that works for it, until its lease is over. Another takes the lock and sets the ref to a value of its own;
//! then the first goes on. What it asked for must be refused, and the ref must stay as it is.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use gitlock::{ErrorCode, LockManager, Options, RefUpdate};
use rustix::process::{Pid, Signal};

use super::{
    scene::{LOCK, Scene},
    support::{Random, descendants, die_with_parent, look, millis, pause},
};

/// The ref that is changed.
const TARGET: &str = "refs/fenced/target";

/// The lease of those who are stopped.
const LEASE: Duration = Duration::from_millis(150);

/// How it went.
#[derive(Debug, Default)]
pub struct FencedFigures {
    /// Holders that were stopped.
    pub rounds: u64,
    /// Of them those that were refused, with the ref as the next holder had set it.
    pub refused: u64,
    /// Those whose Git command was stopped too.
    pub git_stopped: u64,
    /// Those that were stopped in the microseconds in which they held the lock's `.lock` file themselves: nobody can take
    /// the lock from them then, so they don't count.
    pub blocked: u64,
    /// What must not be.
    pub faults: Vec<String>,
}

/// Stops so many holders in each of so many repositories at once. `program` is the torture's own.
pub fn run(rounds: u64, scenes: u64, seed: u64, folder: &Path, program: &str) -> FencedFigures {
    let mut sum = FencedFigures::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..scenes)
            .map(|number| scope.spawn(move || one_scene(rounds, seed ^ number << 32, folder, program)))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(figures) => {
                    sum.rounds += figures.rounds;
                    sum.refused += figures.refused;
                    sum.git_stopped += figures.git_stopped;
                    sum.blocked += figures.blocked;
                    sum.faults.extend(figures.faults);
                }
                Err(_) => sum.faults.push("the harness panicked".to_owned()),
            }
        }
    });
    sum
}

/// Prints a row for people.
pub(crate) fn print(place: &str, figures: &FencedFigures, started: u64) {
    println!(
        "fenced on {place}: {} holders stopped in {:.1} s, in {} rounds their Git command too; {} refused; {} more stopped with a \
         .lock file in hand; {} faults",
        figures.rounds,
        (millis() - started) as f64 / 1_000.0,
        figures.git_stopped,
        figures.refused,
        figures.blocked,
        figures.faults.len()
    );
    for fault in figures.faults.iter().take(20) {
        println!("  FAULT {fault}");
    }
}

struct Stage {
    scene: Scene,
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
    fn start(scene: &Scene, seed: u64, program: &str) -> std::io::Result<Holder> {
        let mut child = Command::new(program)
            .args(["worker", "fenced-holder"])
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

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our own child, or one that only a stopped process could reap.
fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no such process")?;
    rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
}

fn one_scene(rounds: u64, seed: u64, folder: &Path, program: &str) -> FencedFigures {
    let mut figures = FencedFigures::default();
    let made = tempfile::Builder::new().prefix("gitlock-fenced-").tempdir_in(folder);
    let Ok(folder) = made.map_err(|error| figures.faults.push(error.to_string())) else { return figures };
    let mut random = Random::new(seed);
    let stage = Stage::set(folder.path(), random.next(), program);
    let Ok(mut stage) = stage.map_err(|error| figures.faults.push(error)) else { return figures };
    stage.random = random;
    while figures.rounds < rounds {
        match stage.round(&mut figures) {
            Ok(true) => figures.rounds += 1,
            Ok(false) if figures.blocked < 20 + rounds => figures.blocked += 1,
            Ok(false) => figures.faults.push("nobody was ever stopped without a .lock file in hand".to_owned()),
            Err(error) => figures.faults.push(format!("round {}: {error}", figures.rounds)),
        }
        if !figures.faults.is_empty() {
            break;
        }
    }
    drop(stage.holder);
    crate::git::assert_sound(&stage.scene.repo());
    if !figures.faults.is_empty() {
        println!("  the folder is kept: {}", folder.keep().display());
    }
    figures
}

impl Stage {
    fn set(root: &Path, seed: u64, program: &str) -> Result<Stage, String> {
        let scene = Scene::at(root);
        super::arm::set_up(&scene, super::arm::ArmKind::Exclusion)?;
        let blob = |text: &str| {
            let path = root.join("value");
            fs::write(&path, text).map_err(|error| error.to_string())?;
            let words = ["hash-object", "-w", &path.to_string_lossy()].map(str::to_owned);
            let output = scene.git().args(words).output().map_err(|error| error.to_string())?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let mine = blob("of the next holder")?;
        let theirs = (0..8).map(|number| blob(&format!("{number} of the holder"))).collect::<Result<Vec<_>, _>>()?;
        fs::write(root.join("values"), theirs.join("\n")).map_err(|error| error.to_string())?;
        let mut options = Options::default();
        options.lock_timeout = Duration::from_secs(2);
        let manager = LockManager::open_with(scene.repo(), options).map_err(|error| error.to_string())?;
        let holder = Holder::start(&scene, seed, program).map_err(|error| error.to_string())?;
        Ok(Stage { scene, manager, holder, random: Random::new(0), mine })
    }

    fn value(&self) -> Result<String, String> {
        let output = self.scene.git().args(["rev-parse", TARGET]).output().map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Returns whether the holder was stopped at a moment at which another could take the lock.
    fn round(&mut self, figures: &mut FencedFigures) -> Result<bool, String> {
        let told = |error: gitlock::Error| format!("{} {error}", error.code().as_str());
        writeln!(self.holder.to, "go").map_err(|error| error.to_string())?;
        let held = self.holder.hear()?;
        if held != "held" {
            return Err(format!("the holder failed: {held}"));
        }
        self.random.pause_below(20_000);
        let pid = self.holder.pid();
        signal(pid, Signal::STOP)?;
        if self.random.one_in(3) {
            // What works for it stands still for as long; the `.lock` files that it has, too.
            let children = descendants(pid);
            let stopped: Vec<u32> = children.into_iter().filter(|child| signal(*child, Signal::STOP).is_ok()).collect();
            figures.git_stopped += u64::from(!stopped.is_empty());
            pause(u64::try_from(LEASE.as_millis()).unwrap_or(0) + 50);
            stopped.iter().filter(|child| look(**child).is_some()).for_each(|child| _ = signal(*child, Signal::CONT));
        }
        let guard = match self.manager.lock(LOCK).wait(Duration::from_secs(30)).acquire() {
            Err(error) if error.code() == ErrorCode::RepositoryBusy && self.holds_lock_file() => {
                signal(pid, Signal::CONT)?;
                return match self.holder.hear()? {
                    answer if answer == ErrorCode::LockLost.as_str() => Ok(false),
                    answer => Err(format!("a holder whose lease was over was told: {answer}")),
                };
            }
            acquired => acquired.map_err(told)?,
        };
        guard.update_refs(&[RefUpdate::update(TARGET, &self.mine)], None).map_err(told)?;
        signal(pid, Signal::CONT)?;
        let answer = self.holder.hear()?;
        let value = self.value()?;
        if value != self.mine {
            return Err(format!("A STALE WRITE: {TARGET} is at {value}, and the next holder set {}", self.mine));
        }
        if answer != ErrorCode::LockLost.as_str() {
            return Err(format!("the holder that had lost its lease was told: {answer}"));
        }
        figures.refused += 1;
        guard.release().map_err(told)?;
        Ok(true)
    }

    /// Whether the `.lock` file of the lock's ref is gitlock's own, by its mark.
    fn holds_lock_file(&self) -> bool {
        let path = self.scene.git_dir().join(format!("{}.lock", super::scene::LOCK_REF));
        fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o1000 != 0)
    }
}

/// Changes the ref under the lock until it is refused, then says what it was told; and again.
pub(crate) fn holder(scene: &Scene, seed: u64) {
    die_with_parent();
    let tell = |word: &str| {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{word}").and_then(|()| stdout.flush());
    };
    let manager = match LockManager::open(scene.repo()) {
        Ok(manager) => manager,
        Err(error) => return tell(&error.to_string()),
    };
    let values = fs::read_to_string(scene.root().join("values")).unwrap_or_default();
    let values: Vec<&str> = values.lines().collect();
    let mut random = Random::new(seed);
    for line in std::io::stdin().lines() {
        if line.is_err() {
            return;
        }
        let guard = match manager.lock(LOCK).ttl(LEASE).wait(Duration::from_secs(30)).acquire() {
            Ok(guard) => guard,
            Err(error) => return tell(&error.to_string()),
        };
        tell("held");
        loop {
            let value = values[usize::try_from(random.below(values.len() as u64)).unwrap_or(0)];
            if let Err(error) = guard.update_refs(&[RefUpdate::update(TARGET, value)], None) {
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
