//! A `git` that goes on: it is asked, and answers, until it is let go.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use super::program::{drain, input, send};

/// For how long an answer is waited for, in seconds. Git takes milliseconds, unless somebody has stopped it.
const PATIENCE: i64 = 30;

/// The process and what connects it with this one.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    to: Option<OwnedFd>,
    from: ChildStdout,
    errors: Option<ChildStderr>,
    read: Vec<u8>,
    /// The process generation that started it: a forked child must leave it alone.
    generation: u64,
    /// Whether it doesn't answer, and may be in the middle of something.
    stuck: bool,
}

impl Process {
    /// Starts it, in a process group of its own: a Ctrl-C is meant for the program that this library is part of.
    pub(super) fn start(mut command: Command, errors: bool) -> io::Result<Process> {
        let (to, from) = input()?;
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GIT_TRACE") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::from(from)).stdout(Stdio::piped()).process_group(0);
        command.stderr(if errors { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn()?;
        // The command has the child's end, which must be closed here.
        drop(command);
        let Some(from) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        rustix::fs::fcntl_setfl(&from, OFlags::NONBLOCK)?;
        let errors = child.stderr.take();
        let (read, generation) = (Vec::new(), crate::fork::generation());
        Ok(Process { child, to: Some(to), from, errors, read, generation, stuck: false })
    }

    /// Whether this process is the one that started it.
    pub(super) fn is_ours(&self) -> bool {
        self.generation == crate::fork::generation()
    }

    /// Says something to it. That it has ended shows in its answer.
    pub(super) fn say(&mut self, text: &[u8]) {
        let Some(to) = &self.to else { return };
        let mut rest = text;
        while !rest.is_empty() {
            match send(to, rest) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// The next line of its answer; `None` if it has ended, or doesn't answer.
    pub(super) fn hear(&mut self) -> Option<String> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read) {
                let line = self.read.drain(..=end).collect::<Vec<u8>>();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            match self.from.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut polled = [PollFd::new(&self.from, PollFlags::IN)];
                    let timeout = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
                    if matches!(poll(&mut polled, Some(&timeout)), Ok(0)) {
                        self.stuck = true;
                        return None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// What it said on stderr, once it has ended.
    pub(super) fn last_words(mut self) -> String {
        let mut words = Vec::new();
        if let Some(errors) = self.errors.as_mut().filter(|_| !self.stuck) {
            let _ = rustix::fs::fcntl_setfl(errors.as_fd(), OFlags::NONBLOCK);
            let _ = drain(errors, &mut words);
        }
        String::from_utf8_lossy(&words).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        // It ends at the end of its input. One that is stuck may be in the middle of something, and is left alone.
        self.to = None;
        if !self.stuck {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
