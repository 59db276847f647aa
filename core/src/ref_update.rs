//! Changes of the repository's other refs, for a holder to make under its lock.

use std::str::FromStr;

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    name::Namespace,
};

/// One change of a ref that isn't gitlock's, in the words of `git update-ref`: for
/// [`LockGuard::update_refs`](crate::LockGuard::update_refs).
///
/// A value is the full id of an object, or whatever else `git rev-parse` makes one of.
///
/// ```
/// use gitlock::RefUpdate;
/// let id = "0123456789012345678901234567890123456789";
/// let update = RefUpdate::update("refs/heads/main", id).expecting(id);
/// assert_eq!(format!("update refs/heads/main {id} {id}").parse::<RefUpdate>()?, update);
/// # Ok::<(), gitlock::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    pub(crate) name: String,
    pub(crate) new: New,
    pub(crate) expected: Expected,
    pub(crate) follow: bool,
}

/// What a ref is to be afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum New {
    Value(String),
    Deleted,
    Unchanged,
}

/// What it must be before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Anything,
    Absent,
    Value(String),
}

/// Changes that are made together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdates {
    pub(crate) updates: Vec<RefUpdate>,
    pub(crate) message: String,
}

impl RefUpdate {
    fn new(name: impl Into<String>, new: New, expected: Expected) -> RefUpdate {
        RefUpdate { name: name.into(), new, expected, follow: true }
    }

    /// The ref points at `new` afterwards, whatever it was before: see [`RefUpdate::expecting`].
    pub fn update(name: impl Into<String>, new: impl Into<String>) -> RefUpdate {
        RefUpdate::new(name, New::Value(new.into()), Expected::Anything)
    }

    /// The ref, which must not exist, points at `new` afterwards.
    pub fn create(name: impl Into<String>, new: impl Into<String>) -> RefUpdate {
        RefUpdate::new(name, New::Value(new.into()), Expected::Absent)
    }

    /// The ref is deleted, whatever it was before: see [`RefUpdate::expecting`].
    pub fn delete(name: impl Into<String>) -> RefUpdate {
        RefUpdate::new(name, New::Deleted, Expected::Anything)
    }

    /// The ref must point at `value`, and stays as it is.
    pub fn verify(name: impl Into<String>, value: impl Into<String>) -> RefUpdate {
        RefUpdate::new(name, New::Unchanged, Expected::Value(value.into()))
    }

    /// The ref must not exist.
    pub fn verify_absent(name: impl Into<String>) -> RefUpdate {
        RefUpdate::new(name, New::Unchanged, Expected::Absent)
    }

    /// It must point at `old` before.
    #[must_use]
    pub fn expecting(mut self, old: impl Into<String>) -> RefUpdate {
        self.expected = Expected::Value(old.into());
        self
    }

    /// A symbolic ref is itself meant, and not what it points at.
    #[must_use]
    pub fn no_deref(mut self) -> RefUpdate {
        self.follow = false;
        self
    }

    /// Which ref.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads what `git update-ref --stdin` reads, a line for each change: `update REF NEW [OLD]`,
    /// `create REF NEW`, `delete REF [OLD]`, `verify REF [OLD]`, and `option no-deref` before one of
    /// them. An `OLD` of zeros means that the ref must not exist, and a `NEW` of zeros deletes it.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for anything else.
    pub fn parse_lines(text: &str) -> Result<Vec<RefUpdate>> {
        let (mut updates, mut follow) = (Vec::new(), true);
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line == "option no-deref" {
                follow = false;
                continue;
            }
            let update: RefUpdate = line.parse()?;
            updates.push(RefUpdate { follow: std::mem::replace(&mut follow, true), ..update });
        }
        Ok(updates)
    }

    /// Reads the words of such a line. A value may have spaces in it here.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for anything else.
    pub fn from_words(words: &[impl AsRef<str>]) -> Result<RefUpdate> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        if let ["no-deref", rest @ ..] = &words[..] {
            return Ok(RefUpdate::from_words(rest)?.no_deref());
        }
        let expected = |old: &str| if is_zero(old) { Expected::Absent } else { Expected::Value(old.to_owned()) };
        let new = |new: &str| if is_zero(new) { New::Deleted } else { New::Value(new.to_owned()) };
        let (name, new, expected) = match words[..] {
            ["update", name, value] => (name, new(value), Expected::Anything),
            ["update", name, value, old] => (name, new(value), expected(old)),
            ["create", name, value] if !is_zero(value) => (name, new(value), Expected::Absent),
            ["delete", name] => (name, New::Deleted, Expected::Anything),
            ["delete", name, old] if !is_zero(old) => (name, New::Deleted, expected(old)),
            ["verify", name] => (name, New::Unchanged, Expected::Absent),
            ["verify", name, old] => (name, New::Unchanged, expected(old)),
            _ => return Err(no_change(&words.join(" "))),
        };
        Ok(RefUpdate::new(name, new, expected))
    }

    fn check(&self, names: &Namespace) -> Result<()> {
        let refuse = |why: &str| {
            Err(Error::new(ErrorCode::InvalidArgument, format!("the ref {:?} can't be changed here: {why}", self.name)))
        };
        let values = [&self.new_value(), &self.expected_value()].map(|value| value.unwrap_or("-").to_owned());
        if [&self.name, &values[0], &values[1]].iter().any(|word| word.is_empty() || word.contains(char::is_control)) {
            return refuse("its name and values can't be empty, nor have control characters in them");
        }
        // A ref of the main or another worktree may be one of the repository, by another name.
        let mut name = self.name.as_str();
        if let Some(rest) = name.strip_prefix("main-worktree/") {
            name = rest;
        } else if let Some((_, rest)) = name.strip_prefix("worktrees/").and_then(|rest| rest.split_once('/')) {
            name = rest;
        }
        if names.owns(name) {
            return refuse("it belongs to gitlock, which alone changes locks and journals");
        }
        Ok(())
    }

    pub(crate) fn new_value(&self) -> Option<&str> {
        match &self.new {
            New::Value(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn expected_value(&self) -> Option<&str> {
        match &self.expected {
            Expected::Value(value) => Some(value),
            _ => None,
        }
    }
}

/// As a line of `git update-ref --stdin`, with `no-deref` before it for a symbolic ref that is itself meant.
impl FromStr for RefUpdate {
    type Err = Error;

    fn from_str(line: &str) -> Result<RefUpdate> {
        let words: Vec<&str> = line.split(' ').collect();
        let odd = words.iter().any(|word| word.is_empty() || word.starts_with('"'));
        if odd { Err(no_change(line)) } else { RefUpdate::from_words(&words) }
    }
}

fn no_change(line: &str) -> Error {
    let message = format!(
        "{line:?} is no change of a ref; write `update REF NEW [OLD]`, `create REF NEW`, `delete REF [OLD]` or `verify REF \
         [OLD]`, with one space between words and nothing quoted; all of them are one transaction"
    );
    Error::new(ErrorCode::InvalidArgument, message)
}

fn is_zero(id: &str) -> bool {
    matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte == b'0')
}

impl RefUpdates {
    /// Checks changes. `message`: what the reflogs say of them.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for a ref that is gitlock's own, and for words that Git couldn't be told.
    pub(crate) fn new(updates: &[RefUpdate], message: String, names: &Namespace) -> Result<RefUpdates> {
        updates.iter().try_for_each(|update| update.check(names))?;
        if message.contains('\0') {
            return Err(Error::new(ErrorCode::InvalidArgument, "a message for reflogs can't have a zero byte in it"));
        }
        Ok(RefUpdates { updates: updates.to_vec(), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_git_reads_them() {
        let zero = "0".repeat(40);
        let text = format!(
            "update refs/a 1\nupdate refs/a 1 2\nupdate refs/a 1 {zero}\noption no-deref\nupdate HEAD {zero} 2\n\
             create refs/b 1\ndelete refs/c\ndelete refs/c 2\nverify refs/d\nverify refs/d {zero}\nverify refs/d 2\n"
        );
        assert_eq!(
            RefUpdate::parse_lines(&text).unwrap(),
            [
                RefUpdate::update("refs/a", "1"),
                RefUpdate::update("refs/a", "1").expecting("2"),
                RefUpdate::create("refs/a", "1"),
                RefUpdate::delete("HEAD").expecting("2").no_deref(),
                RefUpdate::create("refs/b", "1"),
                RefUpdate::delete("refs/c"),
                RefUpdate::delete("refs/c").expecting("2"),
                RefUpdate::verify_absent("refs/d"),
                RefUpdate::verify_absent("refs/d"),
                RefUpdate::verify("refs/d", "2"),
            ]
        );
        let more =
            ["update refs/a", "commit", "update  refs/a 1", "update \"refs/a\" 1", "create refs/a", "verify a b c"];
        assert_eq!("no-deref delete HEAD".parse::<RefUpdate>().unwrap(), RefUpdate::delete("HEAD").no_deref());
        let words = ["update", "refs/a", "HEAD@{1 day ago}"];
        assert_eq!(RefUpdate::from_words(&words).unwrap(), RefUpdate::update("refs/a", "HEAD@{1 day ago}"));
        for line in more.iter().copied().chain([&*format!("create refs/a {zero}"), &format!("delete refs/a {zero}")]) {
            assert_eq!(RefUpdate::parse_lines(line).unwrap_err().code(), ErrorCode::InvalidArgument, "{line}");
        }
    }

    #[test]
    fn what_is_gitlocks_own_stays_so() {
        let names = Namespace::default();
        let check = |name: &str| RefUpdates::new(&[RefUpdate::delete(name)], String::new(), &names);
        for name in ["refs/heads/main", "HEAD", "refs/gitvan/locks-beside", "refs/gitvan/other", "worktrees/x/HEAD"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in [
            "refs/gitvan/locks/build",
            "refs/gitvan/locks",
            "refs/gitvan/journal/build",
            "main-worktree/refs/gitvan/locks/build",
            "worktrees/x/refs/gitvan/journal/build",
            "",
            "refs/a\nb",
        ] {
            assert_eq!(check(name).unwrap_err().code(), ErrorCode::InvalidArgument, "{name}");
        }
        let bad = RefUpdate::update("refs/heads/main", "a\0b");
        assert!(RefUpdates::new(&[bad], String::new(), &names).is_err());
    }
}
