//! The closed table of error codes: name, number, exit code, and whether trying again can help.

/// Whether, and how, trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It can't: something has to change first.
    Never,
    /// It can, once somebody else has let go: wait, or ask with a longer wait.
    Later,
    /// It can at once: acquire again from the start.
    FromStart,
}

impl Retry {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Retry::Never => "never",
            Retry::Later => "later",
            Retry::FromStart => "from-start",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal, exit $exit:literal, $retry:ident;)*) => {
        /// What went wrong, in one word. Numbers and words are fixed for ever; retired ones stay reserved.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[doc = $doc])* $name = $number,)* }

        impl ErrorCode {
            /// The whole table.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The number that C sees.
            pub const fn number(self) -> i32 { self as i32 }

            /// The word that Node sees as `error.code`, and `--json` prints.
            pub const fn as_str(self) -> &'static str { match self { $(ErrorCode::$name => $text,)* } }

            /// What it means, in a sentence or two.
            pub const fn description(self) -> &'static str {
                match self { $(ErrorCode::$name => concat!($($doc),*).trim_ascii(),)* }
            }

            /// The code with this number, if there is one.
            pub fn from_number(number: i32) -> Option<ErrorCode> {
                ErrorCode::ALL.iter().copied().find(|code| code.number() == number)
            }

            /// The exit code of `git lock`.
            pub const fn exit_code(self) -> u8 { match self { $(ErrorCode::$name => $exit,)* } }

            /// Whether trying again can help.
            pub const fn retry(self) -> Retry { match self { $(ErrorCode::$name => Retry::$retry,)* } }
        }
    };
}

codes! {
    /// Somebody else holds the lock, and the caller didn't want to wait.
    Held = 1, "HELD", exit 1, Later;
    /// The wait ended before the lock was granted.
    Timeout = 2, "TIMEOUT", exit 1, Later;
    /// The wait was cancelled.
    Cancelled = 3, "CANCELLED", exit 1, FromStart;
    /// The tenure has ended: its lease ran out, it was broken, or its record was overwritten.
    LockLost = 4, "LOCK_LOST", exit 3, FromStart;
    /// The lock is somebody else's to release or extend.
    NotOwner = 5, "NOT_OWNER", exit 3, Never;
    /// The queue takes no more waiters.
    QueueFull = 6, "QUEUE_FULL", exit 1, Later;
    /// The name can't be a lock's.
    InvalidName = 7, "INVALID_NAME", exit 2, Never;
    /// An option is out of its range, or two don't go together.
    InvalidArgument = 8, "INVALID_ARGUMENT", exit 2, Never;
    /// There is no repository there.
    NotARepository = 9, "NOT_A_REPOSITORY", exit 4, Never;
    /// The repository has something that this version would misread, or `git` is needed and isn't there.
    Unsupported = 10, "UNSUPPORTED", exit 4, Never;
    /// The repository belongs to somebody else.
    Untrusted = 11, "UNTRUSTED", exit 4, Never;
    /// The repository can't be written.
    PermissionDenied = 12, "PERMISSION_DENIED", exit 4, Never;
    /// The disk is full, or a quota is used up.
    StorageFull = 13, "STORAGE_FULL", exit 4, Later;
    /// The lock's ref points at something that is no record.
    RecordCorrupt = 14, "RECORD_CORRUPT", exit 4, Never;
    /// The lock's record is of a newer version.
    RecordTooNew = 15, "RECORD_TOO_NEW", exit 4, Never;
    /// The object behind the lock's ref is missing.
    RecordMissing = 16, "RECORD_MISSING", exit 4, Later;
    /// Another tool's ref is where the lock would be.
    NameBlocked = 17, "NAME_BLOCKED", exit 4, Never;
    /// Another process holds the ref's `.lock` file, or `packed-refs.lock`, for too long.
    RepositoryBusy = 18, "REPOSITORY_BUSY", exit 4, Later;
    /// Reading or writing the repository failed.
    Io = 19, "IO", exit 4, Later;
    /// The object belongs to the process that this one was forked from.
    Forked = 20, "FORKED", exit 3, Never;
    /// The wait would never have ended: whoever it waited for waited for it in turn.
    Deadlock = 22, "DEADLOCK", exit 1, FromStart;
    /// Others take the lock as one of another number of slots.
    SlotsDiffer = 23, "SLOTS_DIFFER", exit 2, Never;
    /// Another ref, which was to be changed under the lock, isn't as was expected.
    RefChanged = 24, "REF_CHANGED", exit 4, FromStart;
    /// Git, a server, or one of their hooks, refused to change other refs under the lock.
    RefsRefused = 25, "REFS_REFUSED", exit 4, Never;
    /// Two hold the same lock in two repositories that were to be synced, and neither was to be overruled.
    SyncConflict = 26, "SYNC_CONFLICT", exit 1, Later;
    /// gitlock itself failed: a panic was caught at the border to another language. A bug.
    Internal = 21, "INTERNAL", exit 4, Never;
}

impl ErrorCode {
    /// What its class is called in the languages that have one for each code.
    pub fn class_name(self) -> String {
        match self {
            // Those that would be taken for something else.
            ErrorCode::Io => "RepositoryError".to_owned(),
            ErrorCode::Internal => "InternalError".to_owned(),
            ErrorCode::PermissionDenied => "RepositoryNotWritable".to_owned(),
            code => format!("{code:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ErrorCode;

    #[test]
    fn numbers_and_words_are_unique() {
        let numbers: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        let words: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        assert_eq!(words.len(), ErrorCode::ALL.len());
        assert!(!numbers.contains(&0), "0 is success in C");
        assert!(ErrorCode::ALL.iter().all(|code| (1..=4).contains(&code.exit_code())));
    }
}
