//! One role: a shim in a process of its own, in a process group of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use gitlock::clock::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    scenario::Limit,
    table::{Programs, Surface},
    wire::Link,
};

/// How long a shim may take to end after it was told to.
const ENDS_WITHIN: u64 = 20_000;

/// How long what was killed or stopped may take to be so.
const SETTLES_WITHIN: u64 = 5_000;

/// A shim at work.
pub(super) struct Role {
    pub(super) link: Link,
    /// `None` for one that is part of this process.
    process: Option<Process>,
}

struct Process {
    child: Child,
    /// What it has said on stderr.
    said: Arc<Mutex<String>>,
}

impl Role {
    /// Starts the shim of a surface in a folder.
    pub(super) fn start(
        surface: &Surface,
        programs: &Programs,
        folder: &Path,
        limit: Option<Limit>,
    ) -> Result<Role, String> {
        let words = (surface.start)(programs);
        let mut command = limited(limit);
        command.args(words.iter());
        command.current_dir(folder).process_group(0);
        // What this machine's and this user's configuration say must not matter.
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("GIT_DIR")
            .env_remove("GIT_SSL_CAINFO");
        command.env("LD_LIBRARY_PATH", &programs.library).env("PYTHONDONTWRITEBYTECODE", "1");
        if !programs.packages.as_os_str().is_empty() {
            command.env("PYTHONPATH", &programs.packages);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("the shim {} can't be started: {error}", surface.name))?;
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("a pipe is missing".to_owned());
        };
        let said = Arc::new(Mutex::new(String::new()));
        let hears = said.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                hears.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let write = move |line: &str| {
            writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|error| format!("the shim is gone: {error}"))
        };
        Ok(Role { link: Link::new(write, lines), process: Some(Process { child, said }) })
    }

    /// One that is part of this process, for tests of the runner.
    #[cfg(test)]
    pub(super) fn inside(link: Link) -> Role {
        Role { link, process: None }
    }

    /// Stops everything that belongs to it, and waits until it stands still: on a busy machine it runs on for a moment.
    pub(super) fn stop(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
            process.wait_until_all_are(&["T", "t", "Z", "X"]);
        }
    }

    /// Lets it go on.
    pub(super) fn resume(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
    }

    /// Kills it and all that it has started, and waits until they are gone.
    pub(super) fn kill(mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL);
            let _ = process.child.wait();
            // One that is still dying counts as alive, and may be granted what is free.
            process.wait_until_all_are(&["Z", "X"]);
        }
    }

    /// Tells it to end by closing its stdin, and returns what is wrong with how it ended.
    pub(super) fn finish(self) -> Result<(), String> {
        let Role { link, process } = self;
        drop(link);
        let Some(mut process) = process else { return Ok(()) };
        match process.ended() {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the shim ended with {status}: {}", process.heard())),
            None => Err(format!("the shim didn't end when its stdin was closed: {}", process.heard())),
        }
    }

    /// What it has said on stderr.
    pub(super) fn said(&self) -> String {
        self.process.as_ref().map(Process::heard).unwrap_or_default()
    }
}

impl Process {
    /// Sends it to all of its group.
    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Waits until each thread of its group is in one of these states, of proc_pid_stat(5).
    fn wait_until_all_are(&self, states: &[&str]) {
        let group = self.child.id().to_string();
        let other = |stat: &str| {
            // After the program's name, which may contain anything: state, parent, group.
            let mut words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            words.next().is_some_and(|state| !states.contains(&state)) && words.nth(1) == Some(&group)
        };
        let list = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let any = || {
            let threads = list(Path::new("/proc")).flat_map(|process| list(&process.join("task")));
            threads.filter_map(|thread| std::fs::read_to_string(thread.join("stat")).ok()).any(|stat| other(&stat))
        };
        let until = SystemClock.boot_ms() + SETTLES_WITHIN;
        while any() && SystemClock.boot_ms() < until {
            SystemClock.pause(Duration::from_millis(1));
        }
    }

    fn heard(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let until = SystemClock.boot_ms() + ENDS_WITHIN;
        while SystemClock.boot_ms() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            SystemClock.pause(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn limited(limit: Option<Limit>) -> Command {
    match limit {
        None => Command::new("env"),
        Some(Limit::FullDisk) => {
            // What would grow a file fails with EFBIG then, instead of a signal.
            let mut command = Command::new("sh");
            command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]);
            command
        }
        Some(Limit::PlainUser) if rustix::process::geteuid().is_root() => {
            let mut command = Command::new("setpriv");
            command.arg("--bounding-set=-dac_override,-dac_read_search,-fowner");
            command
        }
        Some(Limit::PlainUser) => Command::new("env"),
    }
}
