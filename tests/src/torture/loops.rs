//! Git itself, at work in the same repository all the time, and killed at times.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::{
    scene::Scene,
    support::{Random, at_work, group_runs, millis, pause},
};

/// What one loop runs, and for how long it pauses at most in between, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GitLoop {
    pub(crate) arguments: &'static [&'static str],
    pub(crate) pause: u64,
}

/// What became of the runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoopFigures {
    pub(crate) runs: u64,
    pub(crate) failed: u64,
    pub(crate) killed: u64,
    /// Runs that met a ref of ours without its object.
    pub(crate) missing: u64,
    /// For how long at most every run did, in milliseconds.
    pub(crate) missing_for: u64,
    /// Files of Git's own that a killed run left, that block Git for ever, and that Git doesn't clear.
    pub(crate) leftovers: u64,
    /// What they said, a few of them.
    pub(crate) words: Vec<String>,
}

/// A loop that is running.
pub(crate) struct Running {
    child: Arc<Mutex<Option<Child>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<LoopFigures>,
}

/// Words by which Git says that an object isn't there.
const MISSING: [&str; 9] = [
    "could not read",
    "unable to parse",
    "bad object",
    "missing",
    "invalid sha1 pointer",
    "not a valid object",
    "does not point to a valid object",
    "unable to read",
    "could not parse",
];

/// Whether a run failed because a ref of ours has no object.
pub(crate) fn tells_of_missing(words: &str) -> bool {
    MISSING.iter().any(|word| words.to_lowercase().contains(word))
}

impl Running {
    pub(crate) fn start(scene: &Scene, what: GitLoop, at: usize, seed: u64) -> Running {
        let (child, stop) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (scene, its_child, its_stop) = (scene.clone(), child.clone(), stop.clone());
        let thread = std::thread::spawn(move || turn(&scene, what, at, seed, &its_child, &its_stop));
        Running { child, stop, thread }
    }

    /// Kills what runs at this moment: the whole group, or only its leader.
    pub(crate) fn kill(&self, whole: bool) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // It is reaped under the same mutex, so its id is still its own.
        let Some(child) = child.as_mut() else { return false };
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        match pid.filter(|_| whole) {
            Some(pid) => rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).is_ok(),
            None => child.kill().is_ok(),
        }
    }

    pub(crate) fn stop(self) -> LoopFigures {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_default()
    }
}

fn turn(
    scene: &Scene,
    what: GitLoop,
    at: usize,
    seed: u64,
    current: &Mutex<Option<Child>>,
    stop: &AtomicBool,
) -> LoopFigures {
    let mut figures = LoopFigures::default();
    let mut random = Random::new(seed);
    let mut missing_since = None;
    let errors = scene.root().join(format!("git-{at}.err"));
    while !stop.load(Ordering::SeqCst) {
        let Ok(stderr) = fs::File::create(&errors) else { break };
        let mut command = scene.git();
        // A ref that is deleted between Git's listing and its reading it, Git takes for a broken one, and dies of a
        // "bad object": also where nobody but Git is at work. Without this care it passes over such a ref, and still
        // tells of one whose object isn't there. But what only that ref leads to is unreachable to it then.
        command.env("GIT_REF_PARANOIA", "0");
        command.args(what.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
        let Ok(child) = command.spawn() else { break };
        let group = child.id();
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let status = loop {
            let mut child = current.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                *child = None;
                break status;
            }
            drop(child);
            pause(1);
        };
        // A gc that was killed leaves its `git repack` at work. Beside the next one's, Git itself
        // misses objects whose packs the two take from each other.
        while status.code().is_none() && group_runs(group) {
            pause(1);
        }
        figures.runs += 1;
        let words = fs::read_to_string(&errors).unwrap_or_default();
        if status.code().is_none() {
            figures.killed += 1;
        } else if !status.success() {
            figures.failed += 1;
            if figures.words.len() < 4 {
                figures.words.push(format!("git {}: {}", what.arguments.join(" "), words.trim().replace('\n', " | ")));
            }
        }
        if status.code().is_some() && tells_of_missing(&words) {
            figures.missing += 1;
            figures.words.push(format!("then: {}", circumstances(scene, &words)));
            let since = *missing_since.get_or_insert_with(millis);
            figures.missing_for = figures.missing_for.max(millis() - since);
        } else if status.success() {
            missing_since = None;
        }
        figures.leftovers += clear_leftovers(scene, &words);
        random.pause_below(what.pause);
    }
    figures
}

/// What a fault of missing objects has to be judged by: whether they are there now, and who else was at work.
fn circumstances(scene: &Scene, words: &str) -> String {
    let named = words.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 40);
    let refs = words.split_whitespace().filter(|word| word.starts_with("refs/"));
    let objects: Vec<String> = named
        .chain(refs)
        .map(|object| {
            let output = scene.git().args(["cat-file", "-t", object]).output();
            let kind = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            format!("{object} is {:?}", kind.unwrap_or_default())
        })
        .collect();
    format!("{}; at work: {}", objects.join(", "), at_work(&scene.repo()).join(", "))
}

/// What a killed Git leaves that no Git clears, and that isn't gitlock's: a person has to. Only
/// what Git's own words name, and only under Git's own lock for it.
pub(crate) fn clear_leftovers(scene: &Scene, words: &str) -> u64 {
    let git_dir = scene.git_dir();
    let mut cleared = 0;
    if words.contains("gc.pid.lock") {
        cleared += u64::from(fs::remove_file(git_dir.join("gc.pid.lock")).is_ok());
    }
    if words.contains("packed-refs.new") {
        let lock = git_dir.join("packed-refs.lock");
        if fs::File::options().create_new(true).write(true).open(&lock).is_ok() {
            cleared += u64::from(fs::remove_file(git_dir.join("packed-refs.new")).is_ok());
            let _ = fs::remove_file(lock);
        }
    }
    cleared
}
