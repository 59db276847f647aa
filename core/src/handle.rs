//! A tenure as a string, for another process or language to go on with.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    hex,
    lock::decide::Tenure,
    name::LockName,
};

/// A tenure and the right to it. As a string it can be handed to another process, which may then
/// extend, release or resume the tenure: treat it like a password.
///
/// ```
/// use gitlock::LockHandle;
/// let handle = LockHandle::by_fingerprint("build", "build-session-123")?;
/// let same: LockHandle = handle.to_string().parse()?;
/// assert_eq!(same, handle);
/// # Ok::<(), gitlock::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LockHandle {
    pub(crate) names: Vec<LockName>,
    pub(crate) id: Option<String>,
    pub(crate) token: Option<u64>,
    pub(crate) proof: String,
}

/// What every handle starts with, so that it can be told from a name.
const PREFIX: &str = "gitlock:1:";

impl LockHandle {
    /// The tenure of this lock that was acquired with this fingerprint.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidName`].
    pub fn by_fingerprint(name: &str, fingerprint: &str) -> Result<LockHandle> {
        Ok(LockHandle { names: vec![LockName::new(name)?], id: None, token: None, proof: fingerprint.to_owned() })
    }

    /// Whether a word is a handle rather than a lock's name.
    pub fn is_handle(word: &str) -> bool {
        word.starts_with(PREFIX)
    }

    /// The lock; of several the first that was asked for.
    pub fn name(&self) -> &LockName {
        &self.names[0]
    }

    /// Every lock that was asked for.
    pub fn names(&self) -> &[LockName] {
        &self.names
    }

    /// Whether a name is below one of its locks, so that [`LockRequest::within`](crate::LockRequest::within)
    /// takes it at once.
    pub fn is_above(&self, name: &str) -> bool {
        self.names.iter().any(|own| name.strip_prefix(own.as_str()).is_some_and(|below| below.starts_with('/')))
    }

    /// The tenure's id, if it is known.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The fencing token, if it is known.
    pub fn token(&self) -> Option<u64> {
        self.token
    }

    pub(crate) fn tenure(&self) -> Tenure {
        Tenure { id: self.id.clone(), proof: self.proof.clone() }
    }
}

impl fmt::Display for LockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = hex::text(self.proof.as_bytes());
        let id = self.id.as_deref().unwrap_or_default();
        let token = self.token.map(|token| token.to_string()).unwrap_or_default();
        // A comma in a name is encoded.
        let names: Vec<&str> = self.names.iter().map(LockName::encoded).collect();
        write!(f, "{PREFIX}{}:{id}:{token}:{proof}", names.join(","))
    }
}

/// Without the secret, so that it can be logged.
impl fmt::Debug for LockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockHandle")
            .field("names", &self.names)
            .field("id", &self.id)
            .field("token", &self.token)
            .finish()
    }
}

impl FromStr for LockHandle {
    type Err = Error;

    fn from_str(text: &str) -> Result<LockHandle> {
        parse(text).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                "this isn't a lock handle; pass what `acquire` printed, whole and unchanged",
            )
        })
    }
}

fn parse(text: &str) -> Option<LockHandle> {
    let fields: Vec<&str> = text.trim().strip_prefix(PREFIX)?.split(':').collect();
    let &[names, id, token, hex] = &fields[..] else { return None };
    let proof = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
        .collect::<Option<Vec<u8>>>()?;
    Some(LockHandle {
        names: names.split(',').map(LockName::decode).collect::<Option<_>>()?,
        id: Some(id.to_owned()).filter(|id| !id.is_empty()),
        token: if token.is_empty() { None } else { Some(token.parse().ok()?) },
        proof: String::from_utf8(proof).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_round_trip_and_do_not_show_their_secret() {
        let handle = LockHandle {
            names: vec![LockName::new("a b:c").unwrap(), LockName::new("d,e/f").unwrap()],
            id: Some("id-1".to_owned()),
            token: Some(42),
            proof: "sécret:1".to_owned(),
        };
        assert_eq!(handle.to_string().parse::<LockHandle>().unwrap(), handle);
        assert!(!format!("{handle:?}").contains("cret"));
        assert!(LockHandle::is_handle(&handle.to_string()));
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        for text in [
            "",
            "build",
            "gitlock:1:",
            "gitlock:1:a:b:c",
            "gitlock:1:a:b:x:00",
            "gitlock:1:a:b:1:0",
            "gitlock:2:a:b:1:00",
        ] {
            assert_eq!(text.parse::<LockHandle>().unwrap_err().code(), ErrorCode::InvalidArgument, "{text:?}");
        }
    }
}
