//! Repositories, processes and patience for the tests of the command line.
#![allow(dead_code, unreachable_pub)] // each test program uses some of it

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use gitlock::clock::{Clock, SystemClock};
pub use gitlock_tests::git::Repo;
use serde_json::Value;

/// How long anything may take that takes a moment.
const PATIENCE: u64 = 60_000;

/// `git-lock` in a repository.
pub fn lock(repo: &Repo, arguments: &[&str]) -> Command {
    in_folder(repo.path(), arguments)
}

/// `git-lock` in a folder, with nothing of this machine's configuration.
pub fn in_folder(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_git-lock"));
    clean(&mut command).args(arguments).current_dir(folder);
    command
}

/// Takes what would change the result from a command's environment.
pub fn clean(command: &mut Command) -> &mut Command {
    for name in ["GIT_DIR", "GIT_LOCK_HANDLE", "GIT_LOCK_LOG", "GIT_LOCK_NAME", "GIT_LOCK_TOKEN"] {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null())
}

/// Runs it to its end.
pub fn done(repo: &Repo, arguments: &[&str]) -> Output {
    lock(repo, arguments).output().unwrap()
}

/// Runs it; it must exit with 0. Gives its stdout.
pub fn ok(repo: &Repo, arguments: &[&str]) -> String {
    let output = done(repo, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    out(&output)
}

/// Runs it with `--json`; it must exit with 0. Gives the object.
pub fn json(repo: &Repo, arguments: &[&str]) -> Value {
    let text = ok(repo, &[&["--json"], arguments].concat());
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Runs it; it must exit with this code and say so on stderr, in text and in JSON. Gives the error object.
pub fn fails(repo: &Repo, arguments: &[&str], exit: i32, code: &str) -> Value {
    let output = done(repo, arguments);
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", err(&output));
    assert!(err(&output).starts_with("git-lock: "), "{arguments:?}: {}", err(&output));
    assert_eq!(out(&output), "", "{arguments:?}");
    let output = done(repo, &[&["--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", err(&output));
    let object: Value = serde_json::from_str(&err(&output)).unwrap_or_else(|_| panic!("{}", err(&output)));
    let error = object["error"].clone();
    assert_eq!(error["code"], code, "{arguments:?}: {object}");
    assert_eq!(error["exitCode"], exit);
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    error
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process that is killed, with what it guards, if the test ends before it does.
pub struct Running(Option<Child>);

impl Running {
    pub fn start(command: &mut Command) -> Running {
        Running(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.as_ref().unwrap().id()).unwrap()
    }

    pub fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    pub fn is_over(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Its end, which has to come.
    pub fn end(mut self) -> Output {
        eventually("the process ends", || self.is_over());
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn send(pid: i32, signal: i32) {
    assert_eq!(unsafe_kill(pid, signal), 0, "signal {signal} to {pid}");
}

/// kill(2); a negative pid is a group.
pub fn unsafe_kill(pid: i32, signal: i32) -> i32 {
    // SAFETY: kill takes any numbers.
    unsafe { libc::kill(pid, signal) }
}

pub fn pause(millis: u64) {
    SystemClock.pause(Duration::from_millis(millis));
}

pub fn now() -> u64 {
    SystemClock.boot_ms()
}

/// Waits until it is so. Panics with `what` if that takes a minute.
#[track_caller]
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = now() + PATIENCE;
    while !so() {
        assert!(now() < until, "this never happens: {what}");
        pause(5);
    }
}

/// Waits until a file has a whole line in it, and gives it without its end.
#[track_caller]
pub fn line_of(path: &Path) -> String {
    let mut text = String::new();
    eventually(&format!("{} has a line", path.display()), || {
        text = fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    });
    text.trim().to_owned()
}

/// The `status --json` of a lock.
pub fn status(repo: &Repo, name: &str) -> Value {
    json(repo, &["status", "--", name])
}

/// Waits until so many wait for a lock.
#[track_caller]
pub fn queued(repo: &Repo, name: &str, count: usize) {
    eventually(&format!("{count} wait for {name}"), || {
        status(repo, name)["queue"].as_array().is_some_and(|queue| queue.len() == count)
    });
}

#[track_caller]
pub fn held(repo: &Repo, name: &str) {
    eventually(&format!("{name} is held"), || status(repo, name)["held"] == true);
}

#[track_caller]
pub fn free(repo: &Repo, name: &str) {
    assert_eq!(status(repo, name)["held"], false, "{}", status(repo, name));
}

/// Whether a process is there and no zombie.
pub fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The process group of the lock's holder, which is its guardian's pid too.
pub fn group_of(repo: &Repo, name: &str) -> i32 {
    let record: Value =
        serde_json::from_str(&repo.git(&["cat-file", "-p", &format!("refs/gitvan/locks/{name}")])).unwrap();
    i32::try_from(record["process"]["group"].as_i64().unwrap()).unwrap()
}

/// A pseudo-terminal with a session of its own, and what it showed.
pub struct Pty {
    child: Child,
    keys: fs::File,
    seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Pty {
    /// Runs a shell command line on a new terminal of 160 columns.
    pub fn start(repo: &Repo, script: &str) -> Pty {
        use std::os::{fd::FromRawFd, unix::process::CommandExt};
        let (mut main, mut other) = (0, 0);
        let size = libc::winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the pointers are valid, null asks for no name and the usual modes.
        let opened = unsafe { libc::openpty(&mut main, &mut other, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(opened, 0, "a pseudo-terminal");
        // SAFETY: openpty gave both, and nobody else has them.
        let (main, other) = unsafe { (fs::File::from_raw_fd(main), fs::File::from_raw_fd(other)) };
        rustix::io::fcntl_setfd(&main, rustix::io::FdFlags::CLOEXEC).unwrap();
        let mut command = Command::new("bash");
        clean(&mut command).args(["--norc", "--noprofile", "-c", script]).current_dir(repo.path());
        let path = PathBuf::from(env!("CARGO_BIN_EXE_git-lock"));
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(path.parent().unwrap().to_owned()).chain(std::env::split_paths(&folders));
        command
            .env("PATH", std::env::join_paths(path).unwrap())
            .stdin(other.try_clone().unwrap())
            .stdout(other.try_clone().unwrap())
            .stderr(other);
        // SAFETY: both calls are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(command);
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (there, mut reader) = (seen.clone(), main.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                there.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Pty { child, keys: main, seen }
    }

    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub fn shows(&self, what: &str) {
        let until = now() + PATIENCE;
        while !self.seen().contains(what) {
            assert!(now() < until, "the terminal never shows {what:?}, but: {:?}", self.seen());
            pause(5);
        }
    }

    pub fn press(&mut self, keys: &[u8]) {
        use std::io::Write;
        self.keys.write_all(keys).unwrap();
    }

    /// The exit code of the shell.
    #[track_caller]
    pub fn end(mut self) -> Option<i32> {
        let until = now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            if now() >= until {
                let _ = self.child.kill();
                panic!("the terminal's shell doesn't end; it shows {:?}", self.seen());
            }
            pause(5);
        }
    }
}
