//! What ends a command early: a code, a message, and an exit code.

use gitlock::{Error, ErrorCode, Holder};
use serde_json::{Value, json};

use crate::output;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: ErrorCode,
    message: String,
    /// What the process exits with.
    pub(crate) exit: u8,
    holder: Option<Box<Holder>>,
}

impl Failure {
    /// One with a code of the core's table.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), exit: code.exit_code(), holder: None }
    }

    /// A command line that can't be meant.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(ErrorCode::InvalidArgument, message)
    }

    /// The end by a signal.
    pub(crate) fn signal(signal: i32, message: impl Into<String>) -> Failure {
        Failure { exit: 128 + u8::try_from(signal).unwrap_or(0), ..Failure::new(ErrorCode::Cancelled, message) }
    }

    /// The same with another exit code.
    pub(crate) fn exiting(mut self, exit: u8) -> Failure {
        self.exit = exit;
        self
    }

    /// Sets the exit code for a lock that is held.
    pub(crate) fn on_conflict(mut self, exit: u8) -> Failure {
        let conflicts = [ErrorCode::Held, ErrorCode::Timeout, ErrorCode::QueueFull];
        if conflicts.contains(&self.code) {
            self.exit = exit;
        }
        self
    }

    /// Tells of it on stderr.
    pub(crate) fn tell(&self, json: bool) {
        if json {
            let mut error = json!({
                "code": self.code.as_str(),
                "message": self.message,
                "retry": self.code.retry().as_str(),
                "exitCode": self.exit,
            });
            if let (Some(holder), Value::Object(fields)) = (&self.holder, &mut error) {
                fields.insert("holder".to_owned(), gitlock::json::holder(holder));
            }
            output::tell(&json!({ "error": error }).to_string());
        } else {
            output::tell(&format!("git-lock: {}", self.message));
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { holder: error.holder().cloned().map(Box::new), ..Failure::new(error.code(), error.to_string()) }
    }
}
