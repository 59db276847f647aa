//! The control arm: locks by gix's own ref transactions, which are not safe beside `git pack-refs`.
//! A harness that doesn't catch these can't be believed about anything else.

use gix::{
    Repository,
    refs::{
        FullName, Target,
        transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog},
    },
};

/// Makes the ref, if it isn't there, with this as its content. Returns whether it did. The content
/// has to be unique: gix lets a ref that must not exist pass if it exists with the same value.
///
/// Whatever goes wrong counts as "held by somebody else", as it does for a caller that tries again.
pub fn acquire(repo: &Repository, name: &str, content: &[u8]) -> bool {
    let Ok(blob) = repo.write_blob(content) else { return false };
    edit(
        repo,
        name,
        Change::Update {
            log: LogChange::default(),
            expected: PreviousValue::MustNotExist,
            new: Target::Object(blob.detach()),
        },
    )
}

/// Deletes the ref, if it has this content. Returns whether it did.
pub fn release(repo: &Repository, name: &str, content: &[u8]) -> bool {
    let Ok(blob) = gix::objs::compute_hash(repo.object_hash(), gix::objs::Kind::Blob, content) else { return false };
    let expected = PreviousValue::MustExistAndMatch(Target::Object(blob));
    edit(repo, name, Change::Delete { expected, log: RefLog::AndReference })
}

fn edit(repo: &Repository, name: &str, change: Change) -> bool {
    let Ok(name) = FullName::try_from(name) else { return false };
    repo.edit_reference(RefEdit { change, name, deref: false }).is_ok()
}
