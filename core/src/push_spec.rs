//! What a holder pushes under its lock, in the words of `git push`.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
};

/// One ref of a fenced push, written as `git push` reads it: for [`LockGuard::push`](crate::LockGuard::push).
///
/// `main` pushes that branch to the ref of the same name, `HEAD` the branch that is checked out,
/// `SOURCE:TARGET` whatever `git rev-parse` makes one of, and `:TARGET` deletes. A `+` before it lets a
/// branch go elsewhere than forward, and a tag change. There are no patterns.
///
/// ```
/// use gitlock::PushSpec;
/// let spec: PushSpec = "+HEAD:refs/heads/main".parse()?;
/// assert_eq!(spec.to_string(), "+HEAD:refs/heads/main");
/// assert!("refs/heads/*".parse::<PushSpec>().is_err());
/// # Ok::<(), gitlock::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSpec {
    /// Whether anything may be there before.
    pub(crate) force: bool,
    /// What is pushed; `None`: nothing, the target is deleted.
    pub(crate) source: Option<String>,
    /// Where to; `None`: to the ref that the source is.
    pub(crate) target: Option<String>,
}

impl FromStr for PushSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<PushSpec> {
        let refuse = |why: &str| {
            let message = format!(
                "{text:?} can't be pushed: {why}; write SOURCE, SOURCE:TARGET, or :TARGET to delete, with + before it to force it"
            );
            Err(Error::new(ErrorCode::InvalidArgument, message))
        };
        let (force, rest) = text.strip_prefix('+').map_or((false, text), |rest| (true, rest));
        // The last one, as Git takes it: a source may have one of its own.
        let (source, target) = match rest.rsplit_once(':') {
            Some((source, target)) => (source, Some(target)),
            None => (rest, None),
        };
        if text.chars().any(char::is_control) {
            return refuse("there are control characters in it");
        }
        if source.starts_with(['-', '^']) || rest == ":" || rest.is_empty() || target.is_some_and(str::is_empty) {
            return refuse("it names no single ref");
        }
        // What no ref's name has, a pattern's star among it.
        let odd = |name: &str| name.contains([' ', '*', '?', '[', '\\', '~', '^', ':']) || name.contains("..");
        if source.contains('*') || target.is_some_and(odd) || target.is_some_and(|name| name.starts_with(['-', '/'])) {
            return refuse("its target isn't a ref's name, or it is a pattern");
        }
        Ok(PushSpec {
            force,
            source: (!source.is_empty()).then(|| source.to_owned()),
            target: target.map(str::to_owned),
        })
    }
}

impl fmt::Display for PushSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (force, source) = (if self.force { "+" } else { "" }, self.source.as_deref().unwrap_or_default());
        match &self.target {
            Some(target) => write!(f, "{force}{source}:{target}"),
            None => write!(f, "{force}{source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refspecs_are_read_as_git_reads_them() {
        for text in ["main", "+main", "HEAD:refs/heads/main", "+x:y", ":gone", "v1~2:refs/heads/old", "HEAD:a/b:refs/c"]
        {
            assert_eq!(text.parse::<PushSpec>().unwrap().to_string(), text);
        }
        let parsed: PushSpec = "HEAD:a:refs/c".parse().unwrap();
        assert_eq!((parsed.source.as_deref(), parsed.target.as_deref()), (Some("HEAD:a"), Some("refs/c")));
        for text in
            ["", "+", ":", "+:", "a:", "^main", "--force", "refs/heads/*", "*:x", "a:b c", "a:x\ny", "a:-x", "a:/x"]
        {
            assert_eq!(text.parse::<PushSpec>().unwrap_err().code(), ErrorCode::InvalidArgument, "{text:?}");
        }
    }
}
