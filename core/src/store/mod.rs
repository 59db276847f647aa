//! Where refs are kept: compare-and-swap on them, and nothing that knows what a lock is.

pub mod distant;
pub mod files;
mod git_process;
pub mod memory;
mod object;
mod poll;
pub mod remote;

use std::{fmt, os::fd::BorrowedFd};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    hex,
    name::{Namespace, RefName},
    push_spec::PushSpec,
    ref_update::RefUpdates,
};

pub use object::{CommitDraft, CommitView, Parent, Signature};

/// The id of a Git object, of either hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid {
    bytes: [u8; 32],
    length: u8,
}

impl Oid {
    /// The id with these bytes: 20 of SHA-1 or 32 of SHA-256.
    pub fn from_bytes(raw: &[u8]) -> Option<Oid> {
        let length = u8::try_from(raw.len()).ok().filter(|length| matches!(length, 20 | 32))?;
        let mut bytes = [0; 32];
        bytes[..raw.len()].copy_from_slice(raw);
        Some(Oid { bytes, length })
    }

    /// The id that 40 or 64 hexadecimal digits name.
    pub fn from_hex(hex: &[u8]) -> Option<Oid> {
        let mut bytes = [0; 32];
        if !matches!(hex.len(), 40 | 64) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
        }
        Some(Oid { bytes, length: u8::try_from(hex.len() / 2).ok()? })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hex::digits(self.as_bytes(), &mut [0; 64]))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a ref is to point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValue {
    /// A blob of these bytes.
    Blob(Vec<u8>),
    /// The last of these commits; each may have the one before it as its parent. The empty tree
    /// is written with them where `tree` says so.
    Commits {
        /// Oldest first.
        drafts: Vec<CommitDraft>,
        /// Whether the empty tree may be missing.
        tree: bool,
    },
}

/// One ref's compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefEdit {
    /// Which ref.
    pub name: RefName,
    /// What it must point at now; `None`: it must not exist.
    pub expected: Option<Oid>,
    /// What it points at afterwards; `None`: it is deleted.
    pub new: Option<NewValue>,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transacted {
    /// Every edit was made: the new value of each ref.
    Committed(Vec<Option<Oid>>),
    /// Some ref wasn't as expected. Nothing was changed. Normal: read and decide again.
    Conflict,
    /// It can't be known whether it was made: a fresh read has to settle it.
    Unknown,
}

/// An object, as far as locks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A blob's bytes.
    Blob(Vec<u8>),
    /// A commit.
    Commit(Box<CommitView>),
    /// Something that is neither, or is damaged: what is wrong.
    Unusable(String),
    /// It isn't in the repository.
    Missing,
}

/// Refs of the caller's that are ready to be pushed: see [`RefStore::prepare_push`].
pub trait PreparedPush {
    /// Makes all edits and pushes all refs, as one change, or none.
    ///
    /// # Errors
    /// As [`RefStore::transact`], and of the caller's refs [`ErrorCode::RefChanged`] and
    /// [`ErrorCode::RefsRefused`].
    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted>;
}

/// Told which refs may have changed.
pub trait Watch: Send {
    /// Readable as soon as something may have changed; `None`: only polling finds out.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Takes what has been noticed since the last call. Arms what has to be armed anew, so that
    /// a read after this call misses nothing that isn't noticed later.
    fn changes(&mut self) -> Changes;

    /// Is told how many have to let go before anybody here can be served: whoever has to ask for changes may do
    /// so less often while many are before.
    fn expect(&self, _ahead: usize) {}
}

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The last components of lock refs.
    pub names: Vec<String>,
    /// Too much to tell: everything has to be looked at.
    pub all: bool,
}

/// How much a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects deleted.
    pub deleted: u64,
    /// Objects whose grace period isn't over.
    pub waiting: u64,
}

/// Compare-and-swap on refs.
///
/// # The contract, which one behaviour suite checks for every store
/// * A committed [`transact`](RefStore::transact) is visible to every later [`read`](RefStore::read).
/// * At most one of several concurrent transactions with the same expected value commits.
/// * Edits apply in the order given, and a crash leaves a prefix of them.
/// * A conflict changes nothing.
pub trait RefStore: Send + Sync + fmt::Debug {
    /// What a ref points at.
    ///
    /// # Errors
    /// If that can't be read, or the ref is symbolic or damaged.
    fn read(&self, name: &RefName) -> Result<Option<Oid>>;

    /// What several refs point at, with as few questions as the store needs; not at one moment.
    ///
    /// # Errors
    /// As [`read`](RefStore::read).
    fn read_all(&self, names: &[&RefName]) -> Result<Vec<Option<Oid>>> {
        names.iter().map(|name| self.read(name)).collect()
    }

    /// Makes ready to be asked for so many commits of a history, from its newest on.
    ///
    /// # Errors
    /// If they can't be read.
    fn foresee(&self, _from: &Oid, _depth: usize) -> Result<()> {
        Ok(())
    }

    /// An object. Never fails for what the object contains.
    ///
    /// # Errors
    /// If the object database can't be read.
    fn object(&self, id: &Oid) -> Result<Object>;

    /// Every ref below a prefix, in the order of their names, nested ones too.
    ///
    /// # Errors
    /// If they can't be read.
    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>>;

    /// Makes all edits or none, each only if its ref is as expected.
    ///
    /// # Errors
    /// If it failed and changed nothing; what may have changed something is [`Transacted::Unknown`].
    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted>;

    /// As [`transact`](RefStore::transact), but waits no longer than `patience` for what others hold.
    ///
    /// # Errors
    /// As [`transact`](RefStore::transact).
    fn transact_within(&self, edits: &[RefEdit], patience: std::time::Duration) -> Result<Transacted> {
        let _ = patience;
        self.transact(edits)
    }

    /// As [`transact_within`](RefStore::transact_within), and only while these other refs are as given, if the store can
    /// look at them in the same transaction. Returns whether it has: if not, it didn't look at them at all.
    ///
    /// # Errors
    /// As [`transact`](RefStore::transact).
    fn transact_beside(
        &self,
        edits: &[RefEdit],
        unmoved: &[(RefName, Oid)],
        patience: Option<std::time::Duration>,
    ) -> Result<(Transacted, bool)> {
        let _ = unmoved;
        let done = match patience {
            Some(patience) => self.transact_within(edits, patience),
            None => self.transact(edits),
        };
        Ok((done?, false))
    }

    /// Makes all edits, and then, in one transaction and only as long as their refs are as they leave
    /// them, these changes of other refs. With a conflict, an unknown end or an error none of the
    /// others was changed, but for an error that says which were; the edits may have been made.
    ///
    /// # Errors
    /// [`ErrorCode::RefChanged`] if one of the others isn't as expected, [`ErrorCode::RefsRefused`]
    /// if they can't be changed, and as [`transact`](RefStore::transact).
    fn transact_with(&self, edits: &[RefEdit], others: &RefUpdates) -> Result<Transacted> {
        let _ = (edits, others);
        let message = format!("other refs can't be changed under a lock in {}", self.location());
        Err(Error::new(ErrorCode::Unsupported, message))
    }

    /// Makes ready to push these refs of the repository on this machine together with edits: all that
    /// takes a while and needs no lock. None of them may be one that `names` keeps for locks.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] if nothing can be pushed from here or to there,
    /// [`ErrorCode::RefChanged`] if a ref would be changed that mustn't be, and
    /// [`ErrorCode::InvalidArgument`] for what isn't there.
    fn prepare_push(&self, specs: &[PushSpec], names: &Namespace) -> Result<Box<dyn PreparedPush>> {
        let _ = (specs, names);
        let message = format!(
            "{} is on no Git server, and a fenced push is to one; change refs here with update_refs (`git lock update-ref`), or \
             open a remote",
            self.location()
        );
        Err(Error::new(ErrorCode::Unsupported, message))
    }

    /// Writes the objects of a value again if they are missing. Returns whether any was.
    ///
    /// # Errors
    /// If they can't be written.
    fn restore(&self, value: &NewValue) -> Result<bool>;

    /// Starts to watch the refs below a prefix.
    ///
    /// # Errors
    /// If they can't be watched; polling then has to do.
    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>>;

    /// Notes that nothing refers to these objects any more, for a later sweep.
    fn superseded(&self, objects: &[Oid]);

    /// Deletes superseded objects after their grace period (`None`: the store's own), and puts
    /// right whatever else other programs may have done to recent ones.
    ///
    /// # Errors
    /// If they can't be read or deleted.
    fn sweep(&self, grace: Option<std::time::Duration>) -> Result<Swept>;

    /// Puts right what other programs may have taken from under recent refs. Cheap if nothing is missing.
    fn tend(&self) {}

    /// For how many milliseconds this ref has been seen at this object, sightings of other
    /// processes of this boot counted in. The first sighting starts the count.
    fn unchanged_for(&self, _name: &RefName, _id: &Oid) -> Option<u64> {
        None
    }

    /// For how many milliseconds of this machine's clock each of these entries of a ref's record has
    /// been seen, as [`unchanged_for`](RefStore::unchanged_for); what isn't among them is forgotten.
    fn seen_for(&self, _name: &RefName, entries: &[String]) -> Vec<Option<u64>> {
        vec![None; entries.len()]
    }

    /// How long a question to the store lately took, where that is worth thinking of; `None`: it is
    /// on this machine.
    fn round_trip(&self) -> Option<std::time::Duration> {
        None
    }

    /// A word for messages: where this store is.
    fn location(&self) -> String;
}

#[cfg(test)]
mod tests {
    use super::Oid;

    #[test]
    fn ids_are_read_as_they_are_written() {
        for hex in ["0123456789abcdef0123456789abcdef01234567", &"f0".repeat(32)] {
            assert_eq!(Oid::from_hex(hex.as_bytes()).unwrap().to_string(), hex);
        }
        assert!(Oid::from_hex(b"0123").is_none());
        assert!(Oid::from_hex("g".repeat(40).as_bytes()).is_none());
    }
}
