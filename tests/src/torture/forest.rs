//! Trees, sets, slots, upgrades and inheritance: the processes that want them, and an oracle of their own
//! that knows what each of them means.
//!
//! The oracle is a ledger: a folder with a file for everybody who is inside, with names, mode and slot. Who
//! enters compares itself with all that are there, under a flock that gitlock knows nothing of, and looks
//! whether each name's tokens grow.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use gitlock::{
    ErrorCode, LockGuard, LockHandle, LockManager, Options,
    lock::fault::{Fault, Faults},
};

use super::{
    scene::{Scene, Witness},
    support::{look, may_run},
    workers::{Worker, myself},
};

/// What is left when all have gone is nothing below these.
pub(crate) const ROOTS: [&str; 3] = ["d", "e", "f"];

const POOL: [&str; 6] = ["d", "d/a", "d/a/x", "d/b", "e", "f"];
/// What is taken as one of so many slots.
const SLOTTED: &str = "d/p";
const SLOTS: u32 = 2;
/// Longer than any machine lets a process that lives stand still; who dies is found dead at once.
const TTL: Duration = Duration::from_secs(20);
const WAIT: Duration = Duration::from_secs(20);

/// The environment variable that names the fault to seed.
pub(crate) const FAULT: &str = "TORTURE_FAULT";
/// The one that tells the command of a run what is held.
const HOLDS: &str = "TORTURE_HOLDS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shared,
    Exclusive,
    Slot(Option<u32>),
}

impl Kind {
    fn word(self) -> String {
        match self {
            Kind::Shared => "s".to_owned(),
            Kind::Exclusive => "x".to_owned(),
            Kind::Slot(slot) => format!("p{}", slot.map_or_else(String::new, |slot| slot.to_string())),
        }
    }

    fn parse(word: &str) -> Kind {
        match word {
            "s" => Kind::Shared,
            "x" => Kind::Exclusive,
            slot => Kind::Slot(slot[1..].parse().ok()),
        }
    }
}

/// So that no two of a process's entries have one name.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// One process's part in the ledger.
struct Ledger {
    folder: PathBuf,
    pid: u32,
    start: u64,
    count: u64,
}

impl Ledger {
    fn new(scene: &Scene) -> io::Result<Ledger> {
        let (pid, folder) = (std::process::id(), scene.oracle().join("ledger"));
        fs::create_dir_all(&folder)?;
        Ok(Ledger {
            folder,
            pid,
            start: look(pid).map_or(0, |view| view.start),
            count: COUNT.fetch_add(1_000, Relaxed),
        })
    }

    fn gate(&self) -> io::Result<File> {
        let gate = File::options().create(true).truncate(false).write(true).open(self.folder.join("gate"))?;
        rustix::fs::flock(&gate, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(gate)
    }

    /// Enters with these names and their tokens (0: unknown). `owner`: who has what is above and below at once.
    fn enter(&mut self, witness: &Witness, names: &[(String, u64)], kind: Kind, owner: u32) -> PathBuf {
        self.count += 1;
        let mine = self.folder.join(format!("in.{}.{}", self.pid, self.count));
        if let Err(error) = self.try_enter(witness, names, kind, owner, &mine) {
            witness.fault(&format!("the ledger failed: {error}"));
        }
        mine
    }

    fn try_enter(
        &self,
        witness: &Witness,
        names: &[(String, u64)],
        kind: Kind,
        owner: u32,
        mine: &PathBuf,
    ) -> io::Result<()> {
        let _gate = self.gate()?;
        let mut beside = 0;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with("in.") {
                continue;
            }
            // Whoever leaves does so without the gate.
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            let words: Vec<&str> = text.split(' ').collect();
            let [pid, start, other, word, theirs] = words[..] else { continue };
            if !may_run(pid.parse().unwrap_or(0), start.parse().unwrap_or(0)) {
                let _ = fs::remove_file(entry.path());
                continue;
            }
            let their_kind = Kind::parse(word);
            for (own, other_name) in names.iter().flat_map(|(own, _)| theirs.split(',').map(move |their| (own, their)))
            {
                let above = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
                let path = (above(own, other_name) || above(other_name, own)) && other != owner.to_string();
                let readers = kind == Kind::Shared && their_kind == Kind::Shared;
                let apart = match (kind, their_kind) {
                    (Kind::Slot(mine), Kind::Slot(theirs)) if own == other_name => {
                        beside += 1;
                        beside >= SLOTS || (mine.is_some() && mine == theirs)
                    }
                    _ => (own == other_name || path) && !readers,
                };
                // It may have left since its file was read.
                if apart && entry.path().exists() {
                    let all: Vec<&str> = names.iter().map(|(name, _)| &**name).collect();
                    let what = format!("{} {}", kind.word(), all.join(","));
                    witness.fault(&format!("DOUBLE GRANT: {what} inside beside [{text}]"));
                }
            }
        }
        for (name, token) in names.iter().filter(|(_, token)| *token > 0) {
            self.token(witness, name, *token, kind)?;
        }
        let all: Vec<&str> = names.iter().map(|(name, _)| &**name).collect();
        let text = format!("{} {} {owner} {} {}", self.pid, self.start, kind.word(), all.join(","));
        // Never seen half written.
        let draft = self.folder.join(format!("draft.{}", self.pid));
        fs::write(&draft, text)?;
        fs::rename(draft, mine)
    }

    /// Under the gate: an exclusive token is above all before it, any other above the last exclusive one.
    fn token(&self, witness: &Witness, name: &str, token: u64, kind: Kind) -> io::Result<()> {
        let path = self.folder.join(format!("token.{}", name.replace('/', "%")));
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut words = text.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
        let (highest, exclusive) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        let below = if kind == Kind::Exclusive { highest } else { exclusive };
        if token <= below {
            witness.fault(&format!("SHRINKING TOKEN: {name} has {token} after {below}"));
        }
        let exclusive = if kind == Kind::Exclusive { token } else { exclusive };
        let draft = self.folder.join(format!("draft.{}", self.pid));
        fs::write(&draft, format!("{} {exclusive}", highest.max(token)))?;
        fs::rename(draft, path)
    }

    fn leave(&self, witness: &Witness, mine: &PathBuf) {
        if let Err(error) = fs::remove_file(mine) {
            witness.fault(&format!("DOUBLE GRANT: on leaving, {} was gone ({error})", mine.display()));
        }
    }
}

fn seeded() -> Faults {
    let name = std::env::var(FAULT).unwrap_or_default();
    Fault::ALL.iter().find(|fault| fault.as_str() == name).map_or(Faults::NONE, |fault| Faults::only(*fault))
}

fn tokens(guard: &LockGuard) -> Vec<(String, u64)> {
    let token = |name: &gitlock::LockName| (name.as_str().to_owned(), guard.token_of(name.as_str()).unwrap_or(0));
    guard.names().iter().map(token).collect()
}

/// What is asked for.
struct Want {
    names: Vec<&'static str>,
    kind: Kind,
}

impl Worker {
    fn want(&mut self) -> Want {
        let name = |worker: &mut Worker| POOL[usize::try_from(worker.random.below(POOL.len() as u64)).unwrap_or(0)];
        match self.random.below(10) {
            0..=2 => return Want { names: vec![SLOTTED], kind: Kind::Slot(None) },
            3..=5 => {
                let mut names = vec![name(self), name(self), name(self)];
                names.sort_unstable();
                names.dedup();
                let kind = if self.random.one_in(4) { Kind::Shared } else { Kind::Exclusive };
                return Want { names, kind };
            }
            _ => {}
        }
        let kind = if self.random.one_in(3) { Kind::Shared } else { Kind::Exclusive };
        Want { names: vec![name(self)], kind }
    }

    /// `forest`: through the library.
    pub(crate) fn forest(&mut self) {
        let mut options = Options::default();
        options.faults = seeded();
        let opened = LockManager::open_with(self.scene.repo(), options);
        let (manager, scene) = match opened {
            Ok(manager) => (manager, self.scene.clone()),
            Err(error) => return self.witness.fault(&format!("the repository can't be opened: {error}")),
        };
        while !scene.is_over() {
            let want = self.want();
            if let Some(guard) = self.get(&manager, &want) {
                self.inside_forest(&manager, guard, &want);
            }
            self.witness.flush();
            if self.random.one_in(4) {
                self.random.pause_below(1_500);
            }
        }
    }

    fn get(&mut self, manager: &LockManager, want: &Want) -> Option<LockGuard> {
        let mut request = manager.lock_all(&want.names).ttl(TTL);
        request = match want.kind {
            Kind::Shared => request.shared(),
            Kind::Exclusive => request,
            Kind::Slot(_) => request.slots(SLOTS),
        };
        let answer = match self.random.below(8) {
            0 => request.try_acquire(),
            1 => request.wait(Duration::from_micros(1 + self.random.below(4_000))).acquire().map(Some),
            _ => request.wait(WAIT).acquire().map(Some),
        };
        self.heard(answer, "acquire").flatten()
    }

    /// What an answer says; others' holding it, and a deadlock with an upgrade, are no faults.
    fn heard<T>(&self, answer: gitlock::Result<T>, what: &str) -> Option<T> {
        match answer {
            Ok(done) => return Some(done),
            Err(error) if error.code() == ErrorCode::Deadlock => self.witness.count("deadlock"),
            Err(error) if matches!(error.code(), ErrorCode::Timeout | ErrorCode::Held) => {
                self.witness.count("turned-away");
            }
            Err(error) => self.witness.fault(&format!("{what} failed: {} {error}", error.code().as_str())),
        }
        None
    }

    fn inside_forest(&mut self, manager: &LockManager, guard: LockGuard, want: &Want) {
        let owner = std::process::id();
        let kind = match want.kind {
            Kind::Slot(_) => Kind::Slot(guard.slot()),
            kind => kind,
        };
        self.witness.granted(kind == Kind::Shared, 0);
        let scene = self.scene.clone();
        let Ok(mut ledger) = Ledger::new(&scene) else { return self.witness.fault("there is no ledger") };
        let mut mine = ledger.enter(&self.witness, &tokens(&guard), kind, owner);
        self.work();
        if let Kind::Slot(_) = kind {
            // Long enough for all of them to be taken.
            self.random.pause_below(4_000);
        }
        if kind == Kind::Shared && self.random.one_in(3) {
            let wait = Duration::from_millis(self.random.below(300));
            if self.heard(guard.upgrade(Some(wait), None), "upgrade").is_some() {
                ledger.leave(&self.witness, &mine);
                mine = ledger.enter(&self.witness, &tokens(&guard), Kind::Exclusive, owner);
                self.witness.count("upgraded");
                self.work();
                ledger.leave(&self.witness, &mine);
                if let Err(error) = guard.downgrade() {
                    self.witness.fault(&format!("downgrade failed: {error}"));
                }
                mine = ledger.enter(
                    &self.witness,
                    &tokens(&guard).into_iter().map(|(name, _)| (name, 0)).collect::<Vec<_>>(),
                    Kind::Shared,
                    owner,
                );
            }
        }
        let below = match want.names[..] {
            ["d"] => Some("d/a"),
            ["d/a"] => Some("d/a/x"),
            _ => None,
        };
        if let Some(below) = below.filter(|_| kind == Kind::Exclusive && self.random.one_in(2)) {
            // What is below is had at once, and stays when what is above goes.
            match manager.lock(below).ttl(TTL).acquire_now() {
                Ok(inner) => {
                    self.witness.granted(false, 0);
                    self.witness.count("inherited");
                    let inside = ledger.enter(&self.witness, &tokens(&inner), Kind::Exclusive, owner);
                    let outer_first = self.random.one_in(2);
                    let mut outer = Some(guard);
                    if outer_first {
                        ledger.leave(&self.witness, &mine);
                        self.let_go(outer.take());
                    }
                    self.work();
                    ledger.leave(&self.witness, &inside);
                    self.let_go(Some(inner));
                    if !outer_first {
                        ledger.leave(&self.witness, &mine);
                        self.let_go(outer);
                    }
                    return;
                }
                Err(error) => self.witness.fault(&format!("{below} isn't inherited: {error}")),
            }
        }
        ledger.leave(&self.witness, &mine);
        self.let_go(Some(guard));
    }

    fn let_go(&self, guard: Option<LockGuard>) {
        if let Some(Err(error)) = guard.map(LockGuard::release) {
            self.witness.fault(&format!("release failed: {} {error}", error.code().as_str()));
        }
    }

    /// `forest-cli`: through the command line.
    pub(crate) fn forest_command_line(&mut self) {
        let Some(git_lock) = self.git_lock.clone() else { return };
        while !self.scene.is_over() {
            self.random.pause_below(800_000);
            let want = self.want();
            let mut words: Vec<String> = Vec::new();
            match want.kind {
                Kind::Shared => words.push("--shared".to_owned()),
                Kind::Exclusive => {}
                Kind::Slot(_) => words.extend(["--slots".to_owned(), SLOTS.to_string()]),
            }
            words.extend(want.names[1..].iter().flat_map(|name| ["--also".to_owned(), (*name).to_owned()]));
            words.extend(["--ttl", "8s", "--wait", "20s", "--", want.names[0]].map(str::to_owned));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let holds = format!("{} {}", want.kind.word(), want.names.join(","));
            if self.random.one_in(2) {
                let (me, scene) = (myself(), self.scene.root().to_string_lossy().into_owned());
                let (seed, arm) = (self.random.next().to_string(), self.arm.name());
                let inside = [&*me, "worker", "forest-inside", &*scene, &*seed, arm, "-"];
                let run = [&["run"], &words[..], &inside[..]].concat();
                match self.git_lock(&git_lock, &run).env(HOLDS, holds).output() {
                    Ok(output) if output.status.success() => self.witness.count("run"),
                    Ok(output) => self.judge_forest("run", output.status.code(), &output.stderr),
                    Err(error) => self.witness.fault(&format!("git-lock can't be started: {error}")),
                }
            } else {
                self.take_and_release(&git_lock, &words, &want);
            }
            self.witness.flush();
        }
    }

    fn take_and_release(&mut self, git_lock: &PathBuf, words: &[&str], want: &Want) {
        let acquired = match self.git_lock(git_lock, &[&["acquire"], words].concat()).output() {
            Ok(output) if output.status.success() => output,
            Ok(output) => return self.judge_forest("acquire", output.status.code(), &output.stderr),
            Err(error) => return self.witness.fault(&format!("git-lock can't be started: {error}")),
        };
        let text = String::from_utf8_lossy(&acquired.stdout).trim().to_owned();
        let Ok(handle) = text.parse::<LockHandle>() else {
            return self.witness.fault(&format!("git-lock acquire printed no handle: {text}"));
        };
        self.witness.granted(want.kind == Kind::Shared, 0);
        let scene = self.scene.clone();
        let Ok(mut ledger) = Ledger::new(&scene) else { return self.witness.fault("there is no ledger") };
        let token =
            |(at, name): (usize, &&str)| ((*name).to_owned(), if at == 0 { handle.token().unwrap_or(0) } else { 0 });
        let names: Vec<(String, u64)> = want.names.iter().enumerate().map(token).collect();
        let mine = ledger.enter(&self.witness, &names, want.kind, std::process::id());
        ledger.leave(&self.witness, &mine);
        match self.git_lock(git_lock, &["release", &text]).output() {
            Ok(output) if output.status.success() => self.witness.count("acquire"),
            Ok(output) => self.judge_forest("release", output.status.code(), &output.stderr),
            Err(error) => self.witness.fault(&format!("git-lock can't be started: {error}")),
        }
    }

    fn judge_forest(&self, what: &str, code: Option<i32>, stderr: &[u8]) {
        let words = String::from_utf8_lossy(stderr);
        let killed = code.is_none_or(|code| code >= 128) || words.contains("guardian of the command was killed");
        if killed && self.arm.kills() {
            return self.witness.count("cli-killed");
        }
        if words.contains("deadlock") {
            return self.witness.count("deadlock");
        }
        self.witness.fault(&format!("git-lock {what}: {code:?}: {words}"));
    }

    /// `forest-inside`: what `git-lock run` runs.
    pub(crate) fn forest_inside(&mut self) {
        let holds = std::env::var(HOLDS).unwrap_or_default();
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let (kind, names) = holds.split_once(' ').unwrap_or(("x", ""));
        let kind = match Kind::parse(kind) {
            Kind::Slot(_) => Kind::Slot(number("GIT_LOCK_SLOT").and_then(|slot| u32::try_from(slot).ok())),
            kind => kind,
        };
        let token = number("GIT_LOCK_TOKEN").unwrap_or(0);
        if token == 0 || kind == Kind::Slot(None) {
            self.witness.fault("git-lock run gave its command no GIT_LOCK_TOKEN, or no GIT_LOCK_SLOT");
        }
        self.witness.granted(kind == Kind::Shared, 0);
        let scene = self.scene.clone();
        let Ok(mut ledger) = Ledger::new(&scene) else { return self.witness.fault("there is no ledger") };
        let first = names.split(',').next().unwrap_or_default();
        let token = |name: &str| (name.to_owned(), if name == first { token } else { 0 });
        let names: Vec<(String, u64)> = names.split(',').map(token).collect();
        let mine = ledger.enter(&self.witness, &names, kind, std::process::id());
        if self.random.one_in(16) {
            self.random.pause_below(3_000);
        }
        ledger.leave(&self.witness, &mine);
    }
}
