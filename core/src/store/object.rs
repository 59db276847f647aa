//! Objects as bytes. All encoding and parsing is gix's.

use gix::{
    bstr::BString,
    date::Time,
    objs::{CommitRef, WriteTo},
};

use super::{NewValue, Oid};

/// Who and when, in a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The name. Characters that a commit can't hold are replaced.
    pub name: String,
    /// The mail address, likewise.
    pub email: String,
    /// Seconds since the Unix epoch.
    pub seconds: u64,
}

/// What a commit's parent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// It has none.
    None,
    /// This commit.
    Commit(Oid),
    /// The draft before it.
    Previous,
}

/// A commit to write, on the empty tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitDraft {
    /// Its parent.
    pub parent: Parent,
    /// Whose work it tells of.
    pub author: Signature,
    /// Who wrote it down.
    pub committer: Signature,
    /// Subject, empty line, trailers.
    pub message: String,
}

/// A commit that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitView {
    /// Its first parent.
    pub parent: Option<Oid>,
    /// Whose work it tells of.
    pub author: Signature,
    /// Who wrote it down.
    pub committer: Signature,
    /// The message.
    pub message: String,
}

/// An encoded object with its id.
pub(super) struct Encoded {
    pub(super) kind: gix::objs::Kind,
    pub(super) bytes: Vec<u8>,
    pub(super) id: Oid,
}

pub(super) fn from_gix(id: &gix::oid) -> Oid {
    // Both hashes that gix knows have a length that `Oid` knows.
    Oid::from_bytes(id.as_bytes()).unwrap_or(Oid { bytes: [0; 32], length: 20 })
}

pub(super) fn to_gix(id: &Oid) -> gix::ObjectId {
    gix::ObjectId::try_from(id.as_bytes()).unwrap_or_else(|_| gix::hash::Kind::Sha1.null())
}

/// The objects of a value, in an order in which each refers only to those before it.
pub(super) fn encode(value: &NewValue, hash: gix::hash::Kind) -> Vec<Encoded> {
    match value {
        NewValue::Blob(bytes) => vec![encoded(gix::objs::Kind::Blob, bytes.clone(), hash)],
        NewValue::Commits { drafts, tree } => {
            let mut objects = Vec::new();
            if *tree {
                objects.push(encoded(gix::objs::Kind::Tree, Vec::new(), hash));
            }
            let mut previous = None;
            for draft in drafts {
                let parent = match draft.parent {
                    Parent::None => None,
                    Parent::Commit(id) => Some(id),
                    Parent::Previous => previous,
                };
                let object = encoded(gix::objs::Kind::Commit, commit_bytes(draft, parent, hash), hash);
                previous = Some(object.id);
                objects.push(object);
            }
            objects
        }
    }
}

fn encoded(kind: gix::objs::Kind, bytes: Vec<u8>, hash: gix::hash::Kind) -> Encoded {
    // The only failure is a SHA-1 collision attack, whose object must not get a usable id.
    let id = gix::objs::compute_hash(hash, kind, &bytes).map_or_else(|_| from_gix(&hash.null()), |id| from_gix(&id));
    Encoded { kind, bytes, id }
}

fn commit_bytes(draft: &CommitDraft, parent: Option<Oid>, hash: gix::hash::Kind) -> Vec<u8> {
    let commit = gix::objs::Commit {
        tree: gix::ObjectId::empty_tree(hash),
        parents: parent.iter().map(to_gix).collect(),
        author: draft.author.to_gix(),
        committer: draft.committer.to_gix(),
        encoding: None,
        message: BString::from(draft.message.as_str()),
        extra_headers: Vec::new(),
    };
    let mut bytes = Vec::with_capacity(512);
    // Writing to memory can't fail, and `to_gix` leaves no character that a signature can't hold.
    if commit.write_to(&mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

pub(super) fn parse_commit(bytes: &[u8], hash: gix::hash::Kind) -> Result<CommitView, String> {
    let commit = CommitRef::from_bytes(bytes, hash)
        .map_err(|error| format!("it isn't a commit that Git could read: {error}"))?;
    let signature = |result: Result<gix::actor::SignatureRef<'_>, _>| {
        result.map(|signature| Signature {
            name: signature.name.to_string(),
            email: signature.email.to_string(),
            seconds: signature.time().map_or(0, |time| u64::try_from(time.seconds).unwrap_or(0)),
        })
    };
    let (author, committer) = (commit.author(), commit.committer());
    Ok(CommitView {
        parent: commit.parents().next().map(|id| from_gix(&id)),
        author: signature(author).unwrap_or_default(),
        committer: signature(committer).unwrap_or_default(),
        message: commit.message.to_string(),
    })
}

impl Signature {
    fn to_gix(&self) -> gix::actor::Signature {
        let clean = |text: &str| {
            let text = text.replace(|c: char| c.is_control() || matches!(c, '<' | '>'), "_");
            // Git strips these from both ends, and refuses a name that is nothing else.
            let text = text.trim_matches(|c: char| c.is_whitespace() || ".,:;\"'\\".contains(c));
            BString::from(if text.is_empty() { "unknown" } else { text })
        };
        let seconds = i64::try_from(self.seconds).unwrap_or(i64::MAX);
        gix::actor::Signature { name: clean(&self.name), email: clean(&self.email), time: Time { seconds, offset: 0 } }
    }
}
