//! The workers in Rust: by the library, and by the command line.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use gitlock::{LockHandle, LockManager, Options};

use super::{LOCKS, POLL, TIMEOUT, TTL, WAIT};
use crate::torture::{Random, pause};

/// What the harness tells a worker.
#[derive(Debug)]
pub(super) struct Task {
    /// The folder of the run, with the resource's socket in it.
    root: PathBuf,
    repo: PathBuf,
    remote: String,
    role: String,
    random: RefCell<Random>,
}

impl Task {
    /// By the words that every worker gets: root, repository, remote, role, seed.
    pub(super) fn new(words: &[String]) -> Option<Task> {
        let [root, repo, remote, role, seed] = words else { return None };
        let random = RefCell::new(Random::new(seed.parse().ok()?));
        Some(Task { root: root.into(), repo: repo.into(), remote: remote.clone(), role: role.clone(), random })
    }

    fn is_over(&self) -> bool {
        self.root.join("stop").exists()
    }

    fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().below(end)
    }

    fn lock(&self) -> &'static str {
        LOCKS[usize::try_from(self.below(LOCKS.len() as u64)).unwrap_or(0)]
    }

    fn say(&self, line: &str) {
        tell(&self.root, line);
    }

    fn failed(&self, code: &str, words: &str) {
        self.say(&format!("failed {} {code} {}", self.role, words.replace('\n', " | ")));
        pause(50 + self.below(200));
    }

    /// By the library.
    pub(super) fn library(&self) {
        let mut options = Options::default();
        options.remote = Some(self.remote.clone());
        options.poll_interval = Duration::from_millis(POLL);
        options.remote_timeout = Duration::from_millis(TIMEOUT);
        let manager = match LockManager::open_with(&self.repo, options) {
            Ok(manager) => manager,
            Err(error) => return self.failed(error.code().as_str(), &error.to_string()),
        };
        let millis = Duration::from_millis;
        while !self.is_over() {
            let name = self.lock();
            match manager.lock(name).ttl(millis(TTL)).wait(millis(WAIT)).acquire() {
                Ok(guard) => {
                    let token = guard.token();
                    self.stay(name, token);
                    let result = guard.release();
                    let word = result.as_ref().map_or_else(|error| error.code().as_str(), |()| "ok");
                    self.say(&format!("result {name} {token} {word}"));
                }
                Err(error) => self.failed(error.code().as_str(), &error.to_string()),
            }
            pause(self.below(20));
        }
    }

    fn stay(&self, name: &str, token: u64) {
        self.say(&format!("enter {name} {token} {}", self.role));
        pause(self.below(30));
        self.say(&format!("leave {name} {token}"));
    }

    /// By the command line: half of the time as two commands, half of the time around one.
    pub(super) fn command_line(&self, program: &Path) {
        while !self.is_over() {
            let name = self.lock();
            if self.below(2) == 0 {
                self.around(program, name);
            } else {
                self.before_and_after(program, name);
            }
            pause(self.below(50));
        }
    }

    fn git_lock(&self, program: &Path, words: &[&str]) -> Option<Output> {
        let mut command = Command::new(program);
        command.arg("-C").arg(&self.repo).args(["--remote", &self.remote, "--json"]).args(words);
        let output = command.stdin(Stdio::null()).output();
        output.map_err(|error| self.failed("INTERNAL", &format!("git-lock can't be started: {error}"))).ok()
    }

    fn before_and_after(&self, program: &Path, name: &str) {
        let (ttl, wait) = (format!("{TTL}ms"), format!("{WAIT}ms"));
        let Some(acquired) = self.git_lock(program, &["acquire", "--ttl", &ttl, "--wait", &wait, name]) else { return };
        if !acquired.status.success() {
            return self.failed(&code(&acquired), &words(&acquired));
        }
        let told = String::from_utf8_lossy(&acquired.stdout).into_owned();
        let handle = told.split(|c: char| c == '"' || c.is_whitespace()).find(|word| LockHandle::is_handle(word));
        let Some((handle, token)) =
            handle.and_then(|handle| Some((handle, handle.parse::<LockHandle>().ok()?.token()?)))
        else {
            return self.failed("INTERNAL", &format!("no handle with a token: {told}"));
        };
        self.stay(name, token);
        let Some(released) = self.git_lock(program, &["release", handle]) else { return };
        let word = if released.status.success() { "ok".to_owned() } else { code(&released) };
        self.say(&format!("result {name} {token} {word}"));
    }

    fn around(&self, program: &Path, name: &str) {
        let (ttl, wait, me) = (format!("{TTL}ms"), format!("{WAIT}ms"), super::myself());
        let root = self.root.display().to_string();
        let inside = ["--", &*me, "inside", &root, name, &self.role];
        let Some(run) = self.git_lock(program, &[&["run", "--ttl", &ttl, "--wait", &wait, name][..], &inside].concat())
        else {
            return;
        };
        let token = String::from_utf8_lossy(&run.stdout).trim().to_owned();
        let told = words(&run);
        if token.is_empty() {
            return self.failed(&code(&run), &told);
        }
        // A command that went well hides that its lock could not be released, but for what is said.
        let word = match (run.status.success(), told.contains("\"error\"") || told.contains("could not be released")) {
            (true, false) => "ok".to_owned(),
            _ if told.contains("\"code\"") => code(&run),
            _ => "LOCK_LOST".to_owned(),
        };
        self.say(&format!("result {name} {token} {word}"));
    }
}

/// What runs under `git lock run`.
pub(super) fn inside(root: &Path, name: &str, role: &str) {
    let token = std::env::var("GIT_LOCK_TOKEN").unwrap_or_default();
    println!("{token}");
    tell(root, &format!("enter {name} {token} {role}"));
    pause(5);
    tell(root, &format!("leave {name} {token}"));
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// The code of a failure that is told as JSON.
fn code(output: &Output) -> String {
    let told = words(output);
    let code = told.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
    code.map_or_else(|| format!("exit-{}", output.status.code().unwrap_or(-1)), str::to_owned)
}

/// Tells the resource, and waits for its answer.
fn tell(root: &Path, line: &str) {
    let Ok(stream) = UnixStream::connect(root.join("resource")) else { return };
    if writeln!(&stream, "{line}").is_ok() {
        let _ = BufReader::new(&stream).read_line(&mut String::new());
    }
}
