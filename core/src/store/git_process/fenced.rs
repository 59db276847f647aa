//! Changes of other refs under a lock, in one transaction of `git update-ref`.
//!
//! The lock's ref is renewed just before, and verified in the transaction. Verified, and not written
//! by it: Git lets go of the `.lock` of a ref that it writes as soon as that one is in place, and goes
//! on with the others. Were it stopped there for longer than the lease, it would write for a
//! holder that is none any more. The `.lock` of a ref that is only verified it keeps until all is done.
//!
//! Everything is in Git's hands before it takes the first `.lock`, so that it waits for nobody who may
//! have been stopped; and what ends in the middle, without `commit`, changes nothing.

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    name::RefName,
    ref_update::{Expected, New, RefUpdate, RefUpdates},
    store::Oid,
};

use super::program::{Git, Ran};

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fenced {
    /// The refs are as they were to be.
    Made,
    /// Git refused, or failed. Whether the locks are still as they were must be looked at.
    Refused(String),
}

impl Git {
    /// Makes the changes while these refs are as given. `patience`: how long Git waits for each
    /// `.lock`, in milliseconds.
    pub(crate) fn update_refs(&self, fence: &[(RefName, Oid)], wanted: &RefUpdates, patience: u64) -> Result<Fenced> {
        let message = if wanted.message.is_empty() { "git lock" } else { &wanted.message };
        let arguments = [
            "-c",
            &format!("core.filesRefLockTimeout={patience}"),
            "-c",
            &format!("core.packedRefsTimeout={patience}"),
            "-c",
            &format!("reftable.lockTimeout={patience}"),
            "update-ref",
            "-m",
            message,
            "--stdin",
            "-z",
        ];
        let ran = self.run(&arguments, &transaction(fence, &wanted.updates))?;
        if ran.succeeded() {
            return Ok(Fenced::Made);
        }
        if ran.code.is_none() {
            return Err(self.ended_in_the_middle(&wanted.updates, &ran));
        }
        Ok(Fenced::Refused(ran.words))
    }

    /// Why Git refused, if that isn't because of a lock: by a fresh look at everything.
    pub(crate) fn explain(&self, updates: &[RefUpdate], words: &str) -> Error {
        match self.find_cause(updates) {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => {
                let hook = if self.has_hook() {
                    "; a reference-transaction hook of this repository may have done so"
                } else {
                    ""
                };
                Error::new(
                    ErrorCode::RefsRefused,
                    format!("Git refused to change the refs, and nothing was changed{hook}; it said: {words}"),
                )
            }
        }
    }

    fn find_cause(&self, updates: &[RefUpdate]) -> Result<Option<Error>> {
        for update in updates {
            let changed = |is: String, should: &str| {
                Error::new(
                    ErrorCode::RefChanged,
                    format!(
                        "{} {is}, and was expected {should}; nothing was changed: read it again before you go on",
                        update.name
                    ),
                )
            };
            let now =
                |value: Option<String>| value.map_or_else(|| "does not exist".to_owned(), |id| format!("is at {id}"));
            match &update.expected {
                Expected::Anything => {}
                Expected::Absent => {
                    if let Some(is) = self.value_of(&update.name)? {
                        return Ok(Some(changed(now(Some(is)), "not to exist")));
                    }
                }
                Expected::Value(old) => {
                    let Some(expected) = self.resolve(old)? else { return Ok(Some(no_object(old))) };
                    let is = self.value_of(&update.name)?;
                    if is.as_ref() != Some(&expected) {
                        return Ok(Some(changed(now(is), &format!("at {expected}"))));
                    }
                }
            }
            if let Some(new) = update.new_value()
                && (self.resolve(new)?.is_none()
                    || !self.run(&["cat-file", "-e", "--end-of-options", new], b"")?.succeeded())
            {
                return Ok(Some(no_object(new)));
            }
        }
        Ok(None)
    }

    /// What a ref leads to, by its full name.
    fn value_of(&self, name: &str) -> Result<Option<String>> {
        if !name.starts_with("refs/") {
            return self.resolve(name);
        }
        let ran = self.run(&["for-each-ref", "--format=%(refname) %(objectname)", "--", name], b"")?;
        let found = ran.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.map(str::to_owned))
    }

    /// The id of what Git takes this for, if there is such a thing.
    pub(crate) fn resolve(&self, value: &str) -> Result<Option<String>> {
        let ran = self.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", value], b"")?;
        Ok(ran.succeeded().then(|| ran.stdout.trim().to_owned()).filter(|id| !id.is_empty()))
    }

    fn has_hook(&self) -> bool {
        let path = self.run(&["rev-parse", "--git-path", "hooks/reference-transaction"], b"");
        path.is_ok_and(|ran| {
            let from = self.command(&[] as &[&str]).get_current_dir().map(std::path::Path::to_owned);
            from.unwrap_or_default().join(ran.stdout.trim_end_matches('\n')).exists()
        })
    }

    /// A signal ended Git, and some of the changes may have been made.
    fn ended_in_the_middle(&self, updates: &[RefUpdate], ran: &Ran) -> Error {
        let are = updates.iter().filter(|update| update.new != New::Unchanged).map(|update| {
            let value = self.value_of(&update.name).ok().flatten();
            format!("{} {}", update.name, value.map_or_else(|| "does not exist".to_owned(), |id| format!("is at {id}")))
        });
        let are: Vec<String> = are.collect();
        Error::new(
            ErrorCode::Io,
            format!(
                "`git update-ref` was killed, so that some of the changes may have been made: now {}; see to them, and to \
                 what it may have left behind (`git lock doctor`); {}",
                are.join(", "),
                ran.words
            ),
        )
    }
}

fn no_object(value: &str) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("there is no object {value:?} in the repository, and nothing was changed; write it first"),
    )
}

/// The transaction as `git update-ref --stdin -z` reads it.
fn transaction(fence: &[(RefName, Oid)], updates: &[RefUpdate]) -> Vec<u8> {
    let mut text = String::from("start\0");
    let mut add = |words: &[&str]| {
        for word in words {
            text.push_str(word);
            text.push('\0');
        }
    };
    let length = fence.first().map_or(40, |(_, id)| 2 * id.as_bytes().len());
    let zero = "0".repeat(length);
    for update in updates {
        if !update.follow {
            add(&["option no-deref"]);
        }
        // An empty word is a value that isn't given.
        let expected = match &update.expected {
            Expected::Anything => "",
            Expected::Absent => &zero,
            Expected::Value(old) => old,
        };
        let name = &update.name;
        match &update.new {
            New::Value(new) => add(&[&format!("update {name}"), new, expected]),
            New::Deleted => add(&[&format!("delete {name}"), expected]),
            New::Unchanged => add(&[&format!("verify {name}"), expected]),
        }
    }
    // Last, so that nobody who wants a lock waits while Git waits for another ref.
    for (name, id) in fence {
        add(&[&format!("verify {name}"), &id.to_string()]);
    }
    add(&["prepare", "commit"]);
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transaction_is_as_git_reads_it() {
        let id = Oid::from_bytes(&[0xab; 20]).unwrap();
        let updates = [
            RefUpdate::update("HEAD", "new").no_deref(),
            RefUpdate::create("refs/a", "new"),
            RefUpdate::delete("refs/b").expecting("old"),
            RefUpdate::verify_absent("refs/c"),
        ];
        let text = transaction(&[(RefName::foreign("refs/gitvan/locks/x"), id)], &updates);
        let zero = "0".repeat(40);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            format!(
                "start\0option no-deref\0update HEAD\0new\0\0update refs/a\0new\0{zero}\0delete refs/b\0old\0\
                 verify refs/c\0{zero}\0verify refs/gitvan/locks/x\0{id}\0prepare\0commit\0"
            )
        );
    }
}
