//! How a server is reached: what every transport does, and how failures of it are told.

use std::{
    fmt,
    io::{self, Read},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
};

/// What a server is asked to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Service {
    /// To read.
    UploadPack,
    /// To write.
    ReceivePack,
}

impl Service {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Service::UploadPack => "git-upload-pack",
            Service::ReceivePack => "git-receive-pack",
        }
    }
}

/// A way to reach one server.
pub(super) trait Transport: Send + Sync + fmt::Debug {
    /// Begins to talk. Everything up to the end of the session takes no longer than `time`.
    fn connect(&self, service: Service, time: Duration) -> Result<Box<dyn Session>>;

    /// The same, to push, and perhaps in a session that was begun a moment before: what it shows first was so then.
    fn connect_to_push(&self, time: Duration) -> Result<Box<dyn Session>> {
        self.connect(Service::ReceivePack, time)
    }

    /// Whether each question stands alone, so that what a server said of itself once needn't be
    /// asked again.
    fn is_stateless(&self) -> bool;

    /// By how many milliseconds the server's clock was last ahead of this machine's.
    fn clock_difference(&self) -> Option<i64> {
        None
    }
}

/// One talk with a server.
pub(super) trait Session {
    /// What the server says first.
    fn greeting(&mut self) -> Result<&mut dyn Read>;

    /// Asks. What comes back is the answer; without the greeting read before, on transports that are stateless.
    fn ask(&mut self, request: &[u8]) -> Result<&mut dyn Read>;

    /// Whether it was begun before it was asked for, so that what the server says first may be old.
    fn was_waiting(&self) -> bool {
        false
    }

    /// Says that nothing more is asked.
    fn close(&mut self) {}

    /// What a failed read or write is as an error.
    fn trouble(&mut self, error: io::Error) -> Error;
}

/// Text of a server, as it may be shown: on one line, without control characters, and not too long.
pub(super) fn plain(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim_start_matches("remote:").trim()).filter(|line| !line.is_empty());
    let text: String = lines.collect::<Vec<_>>().join("; ");
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// A connection that failed.
pub(super) fn cut(place: &dyn fmt::Display, error: io::Error) -> Error {
    let message = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("{place} didn't answer in time; see whether the server is there, and try again")
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => {
            format!("the connection to {place} was cut off: {error}; try again")
        }
        io::ErrorKind::ConnectionRefused => {
            format!("nobody listens at {place}: {error}; see whether the server runs, and try again")
        }
        _ => format!("the talk with {place} failed: {error}; try again"),
    };
    Error::new(ErrorCode::Io, message).with_source(error)
}

/// Whether a connection ended in the middle of an answer.
pub(super) fn is_cut_off(error: &Error) -> bool {
    use std::error::Error as _;
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// What a server said instead of an answer.
pub(super) fn refused(place: &dyn fmt::Display, words: &str) -> Error {
    let words = plain(words);
    let lower = words.to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|word| lower.contains(word));
    if has(&["not enabled", "service not allowed", "read-only", "readonly"]) {
        let message = format!(
            "{place} doesn't accept pushes: {words}; locks are pushed: enable it (git daemon --enable=receive-pack, \
             http.receivepack), or use another remote"
        );
        return Error::new(ErrorCode::PermissionDenied, message);
    }
    if has(&[
        "not exported",
        "repository not found",
        "does not appear to be a git repository",
        "no such repository",
        "could not be found",
    ]) {
        let message =
            format!("there is no repository at {place}, or it isn't shown to this user: {words}; check the URL");
        return Error::new(ErrorCode::NotARepository, message);
    }
    if has(&[
        "permission denied",
        "access denied",
        "authentication",
        "publickey",
        "not authorized",
        "unauthorized",
        "forbidden",
    ]) {
        let message = format!(
            "{place} doesn't let this user in: {words}; check the user, its key or token, and its rights there"
        );
        return Error::new(ErrorCode::PermissionDenied, message);
    }
    if has(&["host key verification failed"]) {
        let message = format!(
            "ssh doesn't know the key of {place}: {words}; connect once by hand and check it, or add it to known_hosts"
        );
        return Error::new(ErrorCode::PermissionDenied, message);
    }
    Error::new(ErrorCode::Io, format!("{place} refused: {words}; try again"))
}
