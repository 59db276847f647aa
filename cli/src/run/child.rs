//! The command of a run.

use std::{io, os::unix::process::CommandExt, process::Command};

use gitlock::ErrorCode;
use rustix::process::{Pid, WaitOptions};

use crate::{args::Run, commands::HANDLE, failure::Failure};

use super::held::Held;

/// The command, running.
pub(crate) struct Job {
    pid: Pid,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It ended with this code.
    Exited(u8),
    /// A signal ended it.
    Killed(i32),
    /// A signal stopped it.
    Stopped(i32),
}

impl Change {
    /// What the run exits with, as a shell would.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Change::Exited(code) => code,
            Change::Killed(signal) | Change::Stopped(signal) => 128 + u8::try_from(signal).unwrap_or(0),
        }
    }
}

impl Job {
    /// Starts it in the guardian's process group.
    ///
    /// # Errors
    /// With 127 if there is no such command, and 126 if it can't be run.
    pub(crate) fn start(asked: &Run, guard: &Held, group: u32) -> Result<Job, Failure> {
        let (program, arguments) = match &asked.command[..] {
            // `run -- -x -- make`: the first `--` was for a name like an option.
            [dashes, program, arguments @ ..] if dashes == "--" => (program, arguments),
            [program, arguments @ ..] => (program, arguments),
            [] => return Err(Failure::usage("there is no command to run")),
        };
        let mut command = Command::new(program);
        match guard.slot() {
            Some(slot) => command.env("GIT_LOCK_SLOT", slot.to_string()),
            None => command.env_remove("GIT_LOCK_SLOT"),
        };
        match guard.handle() {
            Some(handle) => command.env(HANDLE, handle.to_string()),
            None => command.env_remove(HANDLE),
        };
        let spawned = command
            .args(arguments)
            .env("GIT_LOCK_NAME", guard.name())
            .env("GIT_LOCK_TOKEN", guard.token().to_string())
            .process_group(i32::try_from(group).unwrap_or(0))
            .spawn();
        match spawned {
            Ok(child) => match i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                Some(pid) => Ok(Job { pid }),
                None => Err(Failure::new(ErrorCode::Io, "the command has no pid")),
            },
            Err(error) => {
                let exit = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                let program = program.to_string_lossy();
                let failure =
                    Failure::new(ErrorCode::InvalidArgument, format!("{program:?} can't be started: {error}"));
                Err(failure.exiting(exit))
            }
        }
    }

    /// What became of it since the last time, if anything did.
    pub(crate) fn change(&self) -> Option<Change> {
        let status = match rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(None) => return None,
            Ok(Some((_, status))) => status,
            // Somebody else reaped it; whatever it said is lost.
            Err(_) => return Some(Change::Exited(ErrorCode::Io.exit_code())),
        };
        if let Some(code) = status.exit_status() {
            return Some(Change::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
        }
        if let Some(signal) = status.terminating_signal() {
            return Some(Change::Killed(signal));
        }
        status.stopping_signal().map(Change::Stopped)
    }
}
