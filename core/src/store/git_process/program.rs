//! Running `git`: which repository it works on, what of the environment it sees, and what it says.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::OFlags,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType},
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
};

/// What would lead Git to another repository, other objects or other settings (`git rev-parse
/// --local-env-vars`), or to another language.
const LEFT_OUT: [&str; 19] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "LANGUAGE",
];

/// The `git` on PATH, for one repository.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    git_dir: PathBuf,
    work_tree: Option<PathBuf>,
}

/// What became of a command, with its output as it is.
pub(super) struct RanRaw {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) words: String,
}

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// What it and its hooks said on stderr.
    pub(crate) words: String,
}

impl Ran {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }
}

impl Git {
    /// `work_tree`: where hooks are run, if the repository has one.
    pub(crate) fn new(git_dir: &Path, work_tree: Option<&Path>) -> Git {
        Git { git_dir: git_dir.to_owned(), work_tree: work_tree.map(Path::to_owned) }
    }

    pub(crate) fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// A command on this repository, whatever the environment says. Whose it is was checked when it was opened.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new("git");
        LEFT_OUT.iter().for_each(|name| _ = command.env_remove(name));
        command.env("GIT_DIR", &self.git_dir).env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
        match &self.work_tree {
            Some(folder) => command.env("GIT_WORK_TREE", folder).current_dir(folder),
            None => command.env_remove("GIT_WORK_TREE").current_dir(&self.git_dir),
        };
        command.args(arguments);
        command
    }

    /// Runs a command to its end, and gives it this input.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] if there is no `git`.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Result<Ran> {
        converse(&mut self.command(arguments), input).map_err(failed)
    }
}

/// Whether there is a `git` on the PATH.
///
/// # Errors
/// [`ErrorCode::Unsupported`] if not.
pub(crate) fn find() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("git").is_file()) {
        return Ok(());
    }
    Err(failed(io::ErrorKind::NotFound.into()))
}

/// Why `git` can't be run.
pub(crate) fn failed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        let message =
            "there is no `git` program on the PATH, and this needs one; install Git, or add its folder to PATH";
        return Error::new(ErrorCode::Unsupported, message).with_source(error);
    }
    Error::io("can't run `git`", error)
}

/// Both ends of what a child reads. A socket, since writing to a pipe that nobody reads any more would send
/// SIGPIPE to whatever program this library is part of.
pub(crate) fn input() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    #[cfg(target_vendor = "apple")]
    rustix::net::sockopt::set_socket_nosigpipe(&pair.0, true)?;
    Ok(pair)
}

/// Writes to such a socket as much as it takes at the moment.
pub(crate) fn send(to: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::empty();
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::NOSIGNAL;
    rustix::net::send(to, bytes, flags)
}

fn converse(command: &mut Command, input_bytes: &[u8]) -> io::Result<Ran> {
    let RanRaw { code, stdout, words } = converse_raw(command, input_bytes)?;
    Ok(Ran { code, stdout: String::from_utf8_lossy(&stdout).into_owned(), words })
}

pub(super) fn converse_raw(command: &mut Command, input_bytes: &[u8]) -> io::Result<RanRaw> {
    let (to, from) = input()?;
    command.stdin(Stdio::from(from)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // The command has the child's end of the input, which must be closed here.
    command.stdin(Stdio::null());
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    rustix::fs::fcntl_setfl(&to, OFlags::NONBLOCK)?;
    rustix::fs::fcntl_setfl(&stdout, OFlags::NONBLOCK)?;
    rustix::fs::fcntl_setfl(&stderr, OFlags::NONBLOCK)?;
    let (mut rest, mut to) = (input_bytes, Some(to));
    let (mut out, mut words) = (Vec::new(), Vec::new());
    let mut words_open = true;
    // Until Git has ended. What a hook left behind may keep its stderr for as long as it likes.
    loop {
        if rest.is_empty() {
            to = None;
        }
        let mut polled = vec![PollFd::new(&stdout, PollFlags::IN)];
        if words_open {
            polled.push(PollFd::new(&stderr, PollFlags::IN));
        }
        if let Some(to) = &to {
            polled.push(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT));
        }
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(polled);
        if let Some(open) = &to {
            match send(open, rest) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // It has ended before it read everything, and says why.
                Err(_) => rest = &[],
            }
        }
        words_open = words_open && drain(&mut stderr, &mut words)?;
        if !drain(&mut stdout, &mut out)? {
            break;
        }
    }
    let status = child.wait()?;
    if words_open {
        drain(&mut stderr, &mut words)?;
    }
    let code = status.code();
    let mut words = String::from_utf8_lossy(&words).trim().to_owned();
    if let Some(signal) = status.signal() {
        words = format!("{words} (ended by signal {signal})").trim().to_owned();
    }
    Ok(RanRaw { code, stdout: out, words })
}

/// Reads what there is at the moment. Returns whether more may come.
pub(super) fn drain(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_input_and_a_long_answer_pass_each_other() {
        let long = vec![b'x'; 1 << 20];
        let ran = converse(Command::new("sh").args(["-c", "tee /dev/stderr"]), &long).unwrap();
        assert_eq!((ran.code, ran.stdout.len(), ran.words.len()), (Some(0), 1 << 20, 1 << 20));
    }

    #[test]
    fn who_stays_behind_with_the_stderr_is_not_waited_for() {
        let ran =
            converse(Command::new("sh").args(["-c", "echo out; echo word >&2; sleep 5 >/dev/null & exit 3"]), b"x");
        let ran = ran.unwrap();
        assert_eq!((ran.code, &*ran.stdout, &*ran.words), (Some(3), "out\n", "word"));
        let ran = converse(Command::new("sh").args(["-c", "kill -9 $$"]), &vec![0; 1 << 20]).unwrap();
        assert_eq!((ran.code, &*ran.words), (None, "(ended by signal 9)"));
    }
}
