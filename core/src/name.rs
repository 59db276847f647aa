//! Names of locks and of the refs behind them.

use std::fmt;

use crate::error::{Error, Result};
use crate::error_code::ErrorCode;
use crate::lock::fingerprint;

/// The longest encoded name, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// The name of a lock, checked.
///
/// Components are separated by `/`. Every name becomes one flat file: what Git wouldn't allow in a
/// ref, and the separator itself, is percent-encoded.
///
/// ```
/// use gitlock::LockName;
/// assert_eq!(LockName::new("build-lock")?.encoded(), "build-lock");
/// assert_eq!(LockName::new("release notes")?.encoded(), "release%20notes");
/// assert_eq!(LockName::new("deploy/eu")?.encoded(), "deploy%2Feu");
/// # Ok::<(), gitlock::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName {
    name: String,
    encoded: String,
}

impl LockName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidName`] for an empty name or component, `.` and `..` as a component,
    /// control characters, and names of more than 200 bytes when encoded.
    pub fn new(name: &str) -> Result<LockName> {
        let refuse =
            |why: &str| Err(Error::new(ErrorCode::InvalidName, format!("the lock name {name:?} is not usable: {why}")));
        if name.is_empty() {
            return refuse("it is empty; give the lock a name of 1 to 200 bytes");
        }
        if name.chars().any(char::is_control) {
            return refuse("it contains a control character; leave it out");
        }
        for component in name.split('/') {
            match component {
                "" => return refuse("it has an empty component; write one '/' between components, none at the ends"),
                "." | ".." => return refuse("'.' and '..' can't be components; choose another word"),
                _ => {}
            }
        }
        let encoded = encode(name);
        if encoded.len() > MAX_NAME_BYTES {
            return refuse(&format!(
                "encoded it takes {} bytes, and {MAX_NAME_BYTES} is the most; shorten it",
                encoded.len()
            ));
        }
        Ok(LockName { name: name.to_owned(), encoded })
    }

    /// Checks a name that came as bytes.
    ///
    /// # Errors
    /// As [`LockName::new`], and for bytes that aren't UTF-8.
    pub fn from_bytes(name: &[u8]) -> Result<LockName> {
        match std::str::from_utf8(name) {
            Ok(name) => LockName::new(name),
            Err(_) => Err(Error::new(
                ErrorCode::InvalidName,
                format!(
                    "the lock name \"{}\" is not usable: it isn't UTF-8; encode it before you pass it",
                    name.escape_ascii()
                ),
            )),
        }
    }

    /// The name that an encoded one stands for, if it is exactly what [`LockName::encoded`] gives.
    pub fn decode(encoded: &str) -> Option<LockName> {
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_bytes();
        while let [first, tail @ ..] = rest {
            if *first == b'%' {
                let [high, low, after @ ..] = tail else { return None };
                let digit = |byte: u8| (byte as char).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = after;
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        let name = LockName::new(&String::from_utf8(bytes).ok()?).ok()?;
        (name.encoded == encoded).then_some(name)
    }

    /// The name as the caller wrote it.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name as the last component of a ref.
    pub fn encoded(&self) -> &str {
        &self.encoded
    }

    /// Whether the name has more than one component.
    pub fn is_hierarchical(&self) -> bool {
        self.name.contains('/')
    }

    /// The names above this one, the topmost first.
    ///
    /// ```
    /// use gitlock::LockName;
    /// let name = LockName::new("deploy/eu/web")?;
    /// let above: Vec<String> = name.ancestors().map(|name| name.to_string()).collect();
    /// assert_eq!(above, ["deploy", "deploy/eu"]);
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    pub fn ancestors(&self) -> impl Iterator<Item = LockName> + '_ {
        self.name
            .match_indices('/')
            .map(|(at, _)| LockName { name: self.name[..at].to_owned(), encoded: encode(&self.name[..at]) })
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

/// Percent-encodes all but `A-Z a-z 0-9 _ -` and those dots that a ref may contain.
fn encode(name: &str) -> String {
    use fmt::Write;
    let bytes = name.as_bytes();
    let mut encoded = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let plain = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => true,
            b'.' => {
                let first_or_last = at == 0 || at + 1 == bytes.len();
                let doubled = at > 0 && bytes[at - 1] == b'.';
                !first_or_last && !doubled && &bytes[at..] != b".lock"
            }
            _ => false,
        };
        if plain {
            encoded.push(char::from(*byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The full name of a ref, such as `refs/gitvan/locks/build-lock`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);

impl RefName {
    /// A ref that another tool made, as it is. Never used to make one.
    pub fn foreign(name: impl Into<String>) -> RefName {
        RefName(name.into())
    }

    /// The ref below this prefix that is called like a lock.
    pub(crate) fn within(prefix: &str, name: &LockName) -> RefName {
        RefName(format!("{prefix}/{}", name.encoded))
    }

    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Where locks and their journals are kept: the lock prefix, and the journal prefix beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    locks: String,
    journals: String,
    tracking: String,
}

/// The lock prefix unless another is configured.
pub const DEFAULT_PREFIX: &str = "refs/gitvan/locks";

/// Namespaces that Git or its users own: a lock there would be pushed, fetched, listed, shown or
/// kept per worktree as something that it is not.
const TAKEN: [&str; 11] =
    ["heads", "tags", "remotes", "notes", "stash", "replace", "bisect", "worktree", "rewritten", "prefetch", "bundles"];

impl Namespace {
    /// Checks a lock prefix.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if it isn't a ref prefix, or not a private one.
    pub fn new(prefix: &str) -> Result<Namespace> {
        let refuse = |why: String| {
            Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the lock prefix {prefix:?} is not usable: {why}; use one such as {DEFAULT_PREFIX}"),
            ))
        };
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let Some(rest) = prefix.strip_prefix("refs/") else {
            return refuse("it doesn't start with refs/".to_owned());
        };
        let first = rest.split('/').next().unwrap_or_default();
        if TAKEN.contains(&first) {
            return refuse(format!("refs/{first} belongs to Git, and a lock is no branch, tag or note"));
        }
        if rest.len() > MAX_NAME_BYTES {
            return refuse(format!("it is longer than {MAX_NAME_BYTES} bytes"));
        }
        if let Some(bad) = rest.split('/').find(|component| encode(component) != **component || component.is_empty()) {
            return refuse(format!(
                "the component {bad:?} is empty or has other characters than letters, digits, '.', '_' and '-'"
            ));
        }
        // A component that ends in .lock would be taken for Git's lock on the one before it.
        if rest.split('/').any(|component| component.ends_with(".lock")) {
            return refuse("a component ends in .lock".to_owned());
        }
        let beside = |what: &str| match prefix.strip_suffix("/locks") {
            Some(parent) => format!("{parent}/{what}"),
            None => format!("{prefix}-{what}"),
        };
        Ok(Namespace { locks: prefix.to_owned(), journals: beside("journal"), tracking: beside("tracking") })
    }

    /// Whether a ref of this full name is gitlock's own, to be changed by nobody else.
    pub(crate) fn owns(&self, name: &str) -> bool {
        let within =
            |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        within(&self.locks) || within(&self.journals) || within(&self.tracking)
    }

    /// The lock prefix, without a slash at its end.
    pub fn locks(&self) -> &str {
        &self.locks
    }

    /// The journal prefix, without a slash at its end.
    pub fn journals(&self) -> &str {
        &self.journals
    }

    /// The prefix below which it is remembered how locks were at this place when they were synced with it.
    pub(crate) fn tracking(&self, place: &str) -> String {
        let place = encode(place);
        if place.len() <= MAX_NAME_BYTES {
            return format!("{}/{place}", self.tracking);
        }
        format!("{}/{}", self.tracking, encode(&fingerprint::hash(&place)))
    }

    /// The ref that is this lock.
    pub fn lock_ref(&self, name: &LockName) -> RefName {
        RefName(format!("{}/{}", self.locks, name.encoded))
    }

    /// The ref that is this lock's journal.
    pub fn journal_ref(&self, name: &LockName) -> RefName {
        RefName(format!("{}/{}", self.journals, name.encoded))
    }

    /// The lock that a ref is, or `None` for a foreign one.
    pub fn lock_of(&self, name: &RefName) -> Option<LockName> {
        LockName::decode(name.0.strip_prefix(&self.locks)?.strip_prefix('/')?)
    }

    /// The lock whose journal a ref is.
    pub(crate) fn journal_of(&self, name: &RefName) -> Option<LockName> {
        LockName::decode(name.0.strip_prefix(&self.journals)?.strip_prefix('/')?)
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        let beside = |what: &str| format!("refs/gitvan/{what}");
        Namespace { locks: DEFAULT_PREFIX.to_owned(), journals: beside("journal"), tracking: beside("tracking") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_encoded_as_the_format_says() {
        for (name, encoded) in [
            ("build-lock", "build-lock"),
            ("a.b", "a.b"),
            (".a", "%2Ea"),
            ("a.", "a%2E"),
            ("a..b", "a.%2Eb"),
            ("a...b", "a.%2E%2Eb"),
            ("a.lock", "a%2Elock"),
            ("a.lock.b", "a.lock.b"),
            ("-x", "-x"),
            ("$(x)", "%24%28x%29"),
            ("a b", "a%20b"),
            ("é", "%C3%A9"),
            ("100%", "100%25"),
            ("deploy/eu", "deploy%2Feu"),
        ] {
            assert_eq!(LockName::new(name).unwrap().encoded(), encoded, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_with_its_reason() {
        for (name, reason) in [
            ("", "empty"),
            ("a//b", "empty component"),
            ("/a", "empty component"),
            ("a/", "empty component"),
            (".", "'.'"),
            ("..", "'..'"),
            ("a/../b", "'..'"),
            ("a\nb", "control"),
            ("a\u{7f}", "control"),
            (&"x".repeat(201), "200"),
            (&"é".repeat(34), "204 bytes"),
        ] {
            let error = LockName::new(name).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidName, "{name:?}");
            assert!(error.to_string().contains(reason), "{name:?}: {error}");
        }
        assert!(LockName::from_bytes(b"a\xff").unwrap_err().to_string().contains("UTF-8"));
        assert!(LockName::new(&"x".repeat(200)).is_ok());
    }

    #[test]
    fn only_private_prefixes_are_taken() {
        for prefix in [
            "refs/heads",
            "refs/heads/locks",
            "refs/tags/x",
            "heads/x",
            "",
            "refs/",
            "refs/a//b",
            "refs/a/../b",
            "refs/a/b.lock",
            "refs/worktree/x",
            "refs/a b/c",
            "refs/bisect/x",
            "refs/.a/b",
        ] {
            let error = Namespace::new(prefix).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{prefix:?}");
        }
        assert_eq!(Namespace::new("refs/gitvan/locks").unwrap(), Namespace::default());
        assert_eq!(Namespace::new("refs/gitvan/locks/").unwrap(), Namespace::default());
        assert_eq!(Namespace::new("refs/team/mutex").unwrap().journals(), "refs/team/mutex-journal");
    }

    proptest! {
        #[test]
        fn encoding_round_trips_and_stays_one_flat_component(name in "\\PC{1,60}") {
            if let Ok(name) = LockName::new(&name) {
                prop_assert_eq!(LockName::decode(name.encoded()), Some(name.clone()));
                prop_assert!(!name.encoded().contains('/'));
                let full = Namespace::default().lock_ref(&name);
                prop_assert_eq!(Namespace::default().lock_of(&full), Some(name));
            }
        }

        #[test]
        fn different_names_never_share_a_ref(a in "[a-z./%-]{1,8}", b in "[a-z./%-]{1,8}") {
            if let (Ok(a), Ok(b)) = (LockName::new(&a), LockName::new(&b)) {
                prop_assert_eq!(a == b, a.encoded() == b.encoded());
            }
        }
    }
}
