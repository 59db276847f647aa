//! The one error type.

use std::{any::Any, error, fmt, io};

use crate::{
    error_code::{ErrorCode, Retry},
    lock::Holder,
};

/// What every fallible function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: a code for programs, and a message that says what happened, who holds the
/// lock, and what to do.
///
/// ```
/// use gitlock::{ErrorCode, LockName};
/// let error = LockName::new("a//b").unwrap_err();
/// assert_eq!(error.code(), ErrorCode::InvalidName);
/// assert!(error.to_string().contains("empty component"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    code: ErrorCode,
    message: String,
    holder: Option<Box<Holder>>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// One of its own, for a surface that has to refuse what it was given before the core sees it.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Error {
        Error(Box::new(Inner { code, message: message.into(), holder: None, source: None }))
    }

    /// What a panic is, for a surface that caught it at the border to another language.
    pub fn panicked(panic: &(dyn Any + Send)) -> Error {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Error::new(ErrorCode::Internal, format!("gitlock failed: {words}; this is a bug, please report it"))
    }

    pub(crate) fn with_holder(mut self, holder: Holder) -> Error {
        self.0.holder = Some(Box::new(holder));
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// An I/O error, with the code that its kind stands for.
    pub(crate) fn io(what: impl fmt::Display, error: io::Error) -> Error {
        use io::ErrorKind as Kind;
        let (code, advice) = match error.kind() {
            Kind::PermissionDenied => (ErrorCode::PermissionDenied, "; make the repository writable for this user"),
            Kind::ReadOnlyFilesystem => {
                (ErrorCode::PermissionDenied, "; a lock is a write, so use a writable repository")
            }
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
                (ErrorCode::StorageFull, "; free some space and try again")
            }
            _ => (ErrorCode::Io, ""),
        };
        Error::new(code, format!("{what}: {error}{advice}")).with_source(error)
    }

    /// What went wrong, for programs.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        self.0.code.retry()
    }

    /// Who holds the lock, where that is why.
    pub fn holder(&self) -> Option<&Holder> {
        self.0.holder.as_deref()
    }

    /// Whether the lock is somebody else's for now: waiting, or trying later, can help.
    pub fn is_held(&self) -> bool {
        matches!(self.0.code, ErrorCode::Held | ErrorCode::Timeout)
    }

    /// Whether the tenure has ended, so that work under it must stop.
    pub fn is_lost(&self) -> bool {
        self.0.code == ErrorCode::LockLost
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn error::Error + 'static))
    }
}
