//! One arm: rounds of processes after one lock, each round in a repository of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gitlock::lock::fault::Fault;

use super::{
    figures::{Figures, LogReader, tail},
    forest,
    loops::{GitLoop, Running},
    scene::{LOCK_REF, Scene},
    support::{Random, descendants, kill_descendant, look, millis, pause},
    verdict, workers,
};

/// Which arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArmKind {
    Exclusion,
    Kills,
    Legacy,
    /// The surfaces of other languages together.
    Languages,
    /// Trees, sets and slots.
    Trees,
    /// The same, and processes are killed.
    TreesKills,
    Control,
    /// Trees with a seeded fault.
    TreesControl,
}

impl ArmKind {
    pub(crate) const ALL: [ArmKind; 8] = [
        ArmKind::Exclusion,
        ArmKind::Kills,
        ArmKind::Legacy,
        ArmKind::Languages,
        ArmKind::Trees,
        ArmKind::TreesKills,
        ArmKind::Control,
        ArmKind::TreesControl,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            ArmKind::Exclusion => "exclusion",
            ArmKind::Kills => "kills",
            ArmKind::Legacy => "legacy",
            ArmKind::Languages => "languages",
            ArmKind::Trees => "trees",
            ArmKind::TreesKills => "trees-kills",
            ArmKind::Control => "control",
            ArmKind::TreesControl => "trees-control",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<ArmKind> {
        ArmKind::ALL.into_iter().find(|arm| arm.name() == name)
    }

    /// Whether somebody is killed.
    pub(crate) fn kills(self) -> bool {
        matches!(self, ArmKind::Kills | ArmKind::TreesKills)
    }

    /// Whether it is about trees, sets and slots.
    pub(crate) fn is_forest(self) -> bool {
        matches!(self, ArmKind::Trees | ArmKind::TreesKills | ArmKind::TreesControl)
    }

    /// Whether it has to be caught.
    pub(crate) fn is_control(self) -> bool {
        matches!(self, ArmKind::Control | ArmKind::TreesControl)
    }

    fn roles(self, cli: bool) -> Vec<&'static str> {
        let cli = if cli { &["cli", "cli"][..] } else { &[] };
        match self {
            ArmKind::Exclusion => [&["library", "library", "library", "plain", "plain"], cli].concat(),
            ArmKind::Kills => [&["library", "library", "library", "library", "plain"], cli].concat(),
            ArmKind::Legacy => [&["library", "library", "library", "legacy", "plain"], &cli[..cli.len() / 2]].concat(),
            ArmKind::Languages => [&["library", "library", "plain"], &cli[..cli.len() / 2]].concat(),
            ArmKind::Trees | ArmKind::TreesKills => {
                let cli = if cli.is_empty() { &[][..] } else { &["forest-cli", "forest-cli"] };
                [&["forest", "forest", "forest", "forest"], cli].concat()
            }
            ArmKind::Control => vec!["gix", "gix", "gix"],
            ArmKind::TreesControl => vec!["forest", "forest", "forest", "forest"],
        }
    }

    fn loops(self) -> &'static [GitLoop] {
        const PACK: GitLoop = GitLoop { arguments: &["pack-refs", "--all"], pause: 60_000 };
        const GC: GitLoop = GitLoop { arguments: &["gc", "--quiet"], pause: 500_000 };
        const GC_NOW: GitLoop = GitLoop { arguments: &["gc", "--prune=now", "--quiet"], pause: 500_000 };
        const REPACK: GitLoop = GitLoop { arguments: &["repack", "-a", "-d", "-q"], pause: 800_000 };
        match self {
            ArmKind::Languages => &[PACK, GC],
            ArmKind::Exclusion => &[PACK, GC_NOW, REPACK],
            // No `repack -a -d`: it throws unreachable objects away, also those that a gc is just packing.
            ArmKind::Kills | ArmKind::Trees | ArmKind::TreesKills => &[PACK, GC],
            ArmKind::Legacy | ArmKind::TreesControl => &[PACK, GC],
            ArmKind::Control => &[GitLoop { arguments: &["pack-refs", "--all"], pause: 1 }],
        }
    }
}

/// How much an arm does.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) acquisitions: u64,
    pub(crate) millis: u64,
    /// The most of one round, so that its journal doesn't grow until `git repack` does nothing else.
    pub(crate) round: u64,
    pub(crate) seed: u64,
    pub(crate) folder: PathBuf,
    pub(crate) git_lock: Option<PathBuf>,
    /// What the arm of the languages has beside them: `ROLE=PROGRAM[,ARGUMENT]`.
    pub(crate) workers: Vec<String>,
    /// What the library leaves out in the arms of trees.
    pub(crate) fault: Option<Fault>,
}

/// How long nobody may get the lock before that is a fault, in milliseconds.
const STALL: u64 = 30_000;

/// The same in the control arm, whose workers retry at once.
const CONTROL_STALL: u64 = 3_000;

/// How long a round lasts at most where Git prunes at once, in milliseconds. With the care that the loops take (see
/// `loops`), Git passes over a journal whose newest commit it has just pruned, and throws the whole of it away. What
/// gitlock writes again is what was written in the last minute at least, so that has to be all of it.
const PRUNED_ROUND: u64 = 45_000;

/// Runs the arm's rounds until it has done enough, or, with a fault, until the round's end.
pub(crate) fn run(arm: ArmKind, extent: &Extent) -> Figures {
    let mut random = Random::new(extent.seed);
    let mut sum = Figures::default();
    let started = millis();
    while sum.faults.is_empty() && sum.acquisitions() < extent.acquisitions && millis() - started < extent.millis {
        let want = extent.round.min(extent.acquisitions - sum.acquisitions());
        let longest = if arm == ArmKind::Exclusion { PRUNED_ROUND } else { u64::MAX };
        let left = (extent.millis - (millis() - started)).min(longest);
        let round = one_round(arm, extent, want, left, random.next());
        sum.add(round);
    }
    if arm == ArmKind::Legacy && sum.rounds > 0 && sum.count("lost") == 0 {
        sum.faults.push("nobody ever lost the lock to the legacy actor, so nothing was shown".to_owned());
    }
    if arm == ArmKind::Languages && sum.rounds > 0 {
        for worker in &extent.workers {
            let role = worker.split('=').next().unwrap_or_default();
            if sum.of(role) == 0 {
                sum.faults.push(format!("the {role} worker never got the lock, so nothing was shown"));
            }
        }
    }
    sum
}

struct Slot {
    role: String,
    child: Child,
}

fn one_round(arm: ArmKind, extent: &Extent, want: u64, most_millis: u64, seed: u64) -> Figures {
    let started = millis();
    let mut figures = Figures::default();
    let folder = match tempfile::Builder::new().prefix("gitlock-torture-").tempdir_in(&extent.folder) {
        Ok(folder) => folder,
        Err(error) => {
            figures.faults.push(format!("no folder in {}: {error}", extent.folder.display()));
            return figures;
        }
    };
    let scene = Scene::at(folder.path());
    if let Err(error) = set_up(&scene, arm) {
        figures.faults.push(error);
        return figures;
    }
    let mut round = Round { arm, extent, scene, random: Random::new(seed), slots: Vec::new(), figures };
    round.go(want, most_millis);
    round.figures.millis = millis() - started;
    if !round.figures.faults.is_empty() && !arm.is_control() {
        println!("  the folder of the round with seed {seed} is kept: {}", folder.keep().display());
    }
    round.figures
}

pub(super) fn set_up(scene: &Scene, arm: ArmKind) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the round's folder can't be made: {error}");
    fs::create_dir(scene.repo()).and_then(|()| fs::create_dir(scene.oracle())).map_err(failed)?;
    let mut steps = vec![
        vec!["init", "-q"],
        vec!["commit", "-q", "--allow-empty", "-m", "first"],
        vec!["config", "gc.auto", "0"],
        vec!["config", "user.name", "Tester"],
        vec!["config", "user.email", "tester@example.com"],
        vec!["pack-refs", "--all"],
    ];
    if arm.kills() {
        steps.push(vec!["config", "gitlock.staleLockAge", "300"]);
    }
    for step in steps {
        let output = scene.git().args(&step).output().map_err(|error| format!("git can't be run: {error}"))?;
        if !output.status.success() {
            return Err(format!("git {step:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}

struct Round<'a> {
    arm: ArmKind,
    extent: &'a Extent,
    scene: Scene,
    random: Random,
    slots: Vec<Slot>,
    figures: Figures,
}

impl Round<'_> {
    fn go(&mut self, want: u64, most_millis: u64) {
        let mut starts: Vec<(String, Result<Child, String>)> = Vec::new();
        for role in self.arm.roles(self.extent.git_lock.is_some()) {
            starts.push((role.to_owned(), self.start(role)));
        }
        if self.arm == ArmKind::Languages {
            for worker in &self.extent.workers {
                starts.push(self.start_foreign(worker));
            }
        }
        for (role, started) in starts {
            match started {
                Ok(child) => self.slots.push(Slot { role, child }),
                Err(error) => self.figures.faults.push(error),
            }
        }
        let loops: Vec<Running> = self
            .arm
            .loops()
            .iter()
            .enumerate()
            .map(|(at, what)| Running::start(&self.scene, *what, at, self.random.next()))
            .collect();
        let mut log = LogReader::new(self.arm != ArmKind::Legacy && !self.arm.is_forest());
        let mut told = 0;
        self.watch(want, most_millis, &loops, &mut log, &mut told);
        let stopped = fs::write(self.scene.stop_file(), "").is_ok();
        if !stopped {
            self.figures.faults.push("the workers can't be told to stop".to_owned());
        }
        self.end_workers();
        for running in loops {
            let figures = running.stop();
            self.figures.add_git(figures);
        }
        self.end_strays();
        log.read(&self.scene.log(), &mut self.figures);
        self.hear_faults(&mut told);
        let errors = fs::read_to_string(self.scene.root().join("workers.err")).unwrap_or_default();
        if errors.contains("panicked") {
            self.figures.faults.push(format!("a worker panicked: {}", errors.trim().replace('\n', " | ")));
        }
        if self.arm == ArmKind::TreesControl {
            return;
        }
        if self.arm == ArmKind::Control {
            if self.scene.git_dir().join(LOCK_REF).exists() || self.is_packed() {
                self.figures.faults.push("LEAKED LOCK: all have gone, and the ref is there".to_owned());
            }
            return;
        }
        if self.figures.git.killed > 0 && !self.arm.kills() {
            // Nobody killed it: Git crashed, on an object that was pruned, and left what it held.
            let lock = self.scene.git_dir().join("objects/info/commit-graph.lock");
            self.figures.git.leftovers += u64::from(fs::remove_file(lock).is_ok());
        }
        if self.figures.git.missing > 0 && self.arm.kills() {
            let words = self.figures.git.words.join("; ");
            self.figures.faults.push(format!("git gc with its default expiry met missing objects: {words}"));
        }
        verdict::reach(&self.scene, self.arm, &log, &mut self.figures);
    }

    fn is_packed(&self) -> bool {
        fs::read_to_string(self.scene.git_dir().join("packed-refs")).is_ok_and(|packed| packed.contains(LOCK_REF))
    }

    /// Where workers complain.
    fn errors(&self) -> std::io::Result<fs::File> {
        fs::File::options().create(true).append(true).open(self.scene.root().join("workers.err"))
    }

    /// One that speaks another language, which knows no more than the round's folder and a seed.
    fn start_foreign(&mut self, worker: &str) -> (String, Result<Child, String>) {
        let (role, words) = worker.split_once('=').unwrap_or((worker, ""));
        let failed = |error: std::io::Error| format!("the {role} worker can't be started: {error}");
        let mut words = words.split(',');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg(self.scene.root()).arg(self.random.next().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = self.errors().and_then(|errors| command.stderr(errors).spawn()).map_err(failed);
        (role.to_owned(), started)
    }

    fn start(&mut self, role: &str) -> Result<Child, String> {
        let failed = |error: std::io::Error| format!("a worker can't be started: {error}");
        let errors = self.errors().map_err(failed)?;
        let git_lock = self.extent.git_lock.as_deref().unwrap_or(Path::new("-"));
        Command::new(workers::myself())
            .args(["worker", role])
            .arg(self.scene.root())
            .args([self.random.next().to_string(), self.arm.name().to_owned()])
            .arg(git_lock)
            .env(forest::FAULT, self.extent.fault.map_or("", Fault::as_str))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(failed)
    }

    /// Until enough was acquired, or something is wrong.
    fn watch(&mut self, want: u64, most_millis: u64, loops: &[Running], log: &mut LogReader, told: &mut u64) {
        let (started, mut last) = (millis(), millis());
        let stall = if self.arm == ArmKind::Control { CONTROL_STALL } else { STALL };
        let mut next_kill = started + 200;
        while millis() - started < most_millis {
            pause(20);
            if log.read(&self.scene.log(), &mut self.figures) > 0 {
                last = millis();
            }
            self.hear_faults(told);
            self.look_after();
            if !self.figures.faults.is_empty() || self.figures.acquisitions() >= want {
                return;
            }
            if millis() - last > stall {
                let state = self.scene.git().args(["show", LOCK_REF]).output();
                let state = state.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
                self.figures.faults.push(format!("STALL: nobody got the lock for {stall} ms: {state:?}"));
                return;
            }
            if self.arm.kills() && millis() >= next_kill {
                self.kill_somebody(loops);
                next_kill = millis() + 10 + self.random.below(150);
            }
        }
    }

    /// A worker that ended by itself while there is work to do crashed.
    fn look_after(&mut self) {
        for slot in &mut self.slots {
            if let Ok(Some(status)) = slot.child.try_wait() {
                self.figures.faults.push(format!("a {} worker ended by itself: {status}", slot.role));
            }
        }
    }

    fn kill_somebody(&mut self, loops: &[Running]) {
        let dice = self.random.below(4);
        if dice == 0 {
            let at = usize::try_from(self.random.below(loops.len() as u64)).unwrap_or(0);
            self.figures.git_kills += u64::from(loops[at].kill(self.random.one_in(2)));
            return;
        }
        // Plain Git's holders have leases of their own, and nothing that tells of their death.
        let killable: Vec<usize> = (0..self.slots.len()).filter(|at| self.slots[*at].role != "plain").collect();
        let at = killable[usize::try_from(self.random.below(killable.len() as u64)).unwrap_or(0)];
        let pid = self.slots[at].child.id();
        if dice == 1 && self.slots[at].role.ends_with("cli") {
            let below = descendants(pid);
            let which = usize::try_from(self.random.below(below.len() as u64)).unwrap_or(0);
            self.figures.kills += u64::from(below.get(which).is_some_and(|victim| kill_descendant(pid, *victim)));
            return;
        }
        let slot = &mut self.slots[at];
        let _ = slot.child.kill();
        let _ = slot.child.wait();
        self.figures.kills += 1;
        let role = slot.role.clone();
        match self.start(&role) {
            Ok(child) => self.slots[at].child = child,
            Err(error) => self.figures.faults.push(error),
        }
    }

    fn end_workers(&mut self) {
        // With kills, half of them don't get to the end of what they were doing.
        let kills = self.arm.kills();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if kills && at % 2 == 0 && matches!(&*slot.role, "library" | "forest") {
                let _ = slot.child.kill();
                self.figures.kills += 1;
            }
        }
        let started = millis();
        for slot in &mut self.slots {
            loop {
                match slot.child.try_wait() {
                    Ok(None) if millis() - started < STALL => pause(5),
                    Ok(Some(status)) => {
                        if !status.success() && !kills {
                            self.figures.faults.push(format!("a {} worker ended with {status}", slot.role));
                        }
                        break;
                    }
                    _ => {
                        self.figures.faults.push(format!("a {} worker doesn't end", slot.role));
                        let _ = slot.child.kill();
                        let _ = slot.child.wait();
                        break;
                    }
                }
            }
        }
    }

    /// What killed workers and killed Git commands left running, which came to this process as its
    /// reaper, gets no further either.
    fn end_strays(&mut self) {
        let (me, started) = (std::process::id(), millis());
        loop {
            let strays = descendants(me);
            for pid in &strays {
                let living = look(*pid).is_some_and(|view| !view.gone);
                // Without kills, what a failed Git command left at work comes to its end by itself.
                if self.arm.kills() || millis() - started > STALL {
                    self.figures.strays += u64::from(living && kill_descendant(me, *pid));
                }
            }
            // Everybody else was waited for, so this takes no child from anybody.
            while matches!(rustix::process::wait(rustix::process::WaitOptions::NOHANG), Ok(Some(_))) {}
            if strays.is_empty() {
                return;
            }
            pause(2);
        }
    }

    fn hear_faults(&mut self, at: &mut u64) {
        if let Ok(text) = tail(&self.scene.faults(), at) {
            self.figures.faults.extend(text.lines().map(str::to_owned));
        }
    }
}
