//! A server's process and all that it has started: gone with this value, and with whoever started it.

use std::{
    io,
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use gitlock::clock::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process_group};

/// How often, ten milliseconds apart, is looked whether a server listens, or what it started is gone.
pub(super) const LOOKS: usize = 1_000;

/// A process group. The thread that starts it has to outlive it.
#[derive(Debug)]
pub(crate) struct Group(Child);

impl Group {
    /// Starts a program that says nothing, reads nothing, and heeds no configuration of this machine's.
    pub(crate) fn start(command: &mut Command) -> io::Result<Group> {
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: one system call, and nothing is allocated.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        command.spawn().map(Group)
    }

    /// The first process of the group.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal to all of it.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Whether its first process has ended by itself, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Waits until it listens there; `false`: it has ended, or doesn't.
    pub(super) fn listens(&mut self, port: u16) -> bool {
        self.comes_up(|| TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    /// Waits until it is seen to work; `false`: it has ended, or isn't.
    pub(crate) fn comes_up(&mut self, seen: impl Fn() -> bool) -> bool {
        for _ in 0..LOOKS {
            if seen() {
                return true;
            }
            if !matches!(self.0.try_wait(), Ok(None)) {
                return false;
            }
            SystemClock.pause(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Where a program is, or which of Debian's packages has it. Servers are in folders that only root looks into.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} isn't here; Debian's package {package} has it"))
}

/// Runs a program that has to succeed.
pub(super) fn run(folder: &Path, words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(folder).output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    assert!(done, "{words:?}: {output:?}");
}
