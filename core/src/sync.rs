//! Sync, for those who worked offline: what a repository and its remote have of the same locks is compared
//! with what they had when they last were the same, and made the same again.

use std::str::FromStr;

use crate::{
    Error, ErrorCode, LockName,
    lock::{Record, codec},
    store::Oid,
};

pub use crate::lock::merge::{Fate as SyncFate, SyncStrategy};
use crate::lock::record::Holder;

/// What a sync has changed. What was the same already, or was renewed only, isn't told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Synced {
    /// What became of which tenure, in the order in which it was done.
    pub changes: Vec<SyncChange>,
    /// Locks that were left as they are, because a record of theirs can't be read: which, and why.
    pub left: Vec<(LockName, String)>,
}

/// What became of one tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncChange {
    /// The lock.
    pub name: LockName,
    /// The tenure.
    pub holder: Holder,
    /// What became of it.
    pub fate: SyncFate,
}

/// The strategy that a word names.
///
/// ```
/// use gitlock::SyncStrategy;
/// assert_eq!("oldest".parse::<SyncStrategy>()?, SyncStrategy::Oldest);
/// assert!("newest".parse::<SyncStrategy>().unwrap_err().to_string().contains("highest-token"));
/// # Ok::<(), gitlock::Error>(())
/// ```
impl FromStr for SyncStrategy {
    type Err = Error;

    fn from_str(word: &str) -> Result<SyncStrategy, Error> {
        SyncStrategy::parse(word).ok_or_else(|| {
            let words: Vec<&str> = SyncStrategy::ALL.iter().map(|strategy| strategy.as_str()).collect();
            let message = format!("{word:?} is no strategy of a sync; give one of {}", words.join(", "));
            Error::new(ErrorCode::InvalidArgument, message)
        })
    }
}

impl SyncFate {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            SyncFate::Sent => "sent",
            SyncFate::Received => "received",
            SyncFate::EndedThere => "ended-there",
            SyncFate::EndedHere => "ended-here",
            SyncFate::Lost => "lost",
            SyncFate::Overruled { .. } => "overruled",
            SyncFate::Conflict { .. } => "conflict",
        }
    }

    /// The tenure that was kept instead.
    pub fn other(&self) -> Option<&Holder> {
        match self {
            SyncFate::Overruled { by: other } | SyncFate::Conflict { with: other } => Some(other),
            _ => None,
        }
    }
}

/// How a lock was in both places when they last were the same: the blob behind a tracking ref.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// Who held, as it was written here.
    pub(crate) base: Record,
    /// What the lock's ref pointed at here.
    pub(crate) here: Option<Oid>,
    /// The same there.
    pub(crate) there: Option<Oid>,
    /// What its journal's ref pointed at here.
    pub(crate) journal: Option<Oid>,
    /// The same of its journal there.
    pub(crate) journal_there: Option<Oid>,
    /// The newest tenure that the journal told of here: commits are rewritten where a journal is bounded.
    pub(crate) told: Option<String>,
}

impl Tracked {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let hex = |id: Option<Oid>| id.map(|id| id.to_string());
        let held = !self.base.holders.is_empty();
        let record = held.then(|| codec::encode(&self.base, "").ok()).flatten();
        let record: Option<serde_json::Value> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let value = serde_json::json!({
            "v": 1,
            "here": hex(self.here),
            "there": hex(self.there),
            "journal": hex(self.journal),
            "journalThere": hex(self.journal_there),
            "told": self.told,
            "record": record,
        });
        format!("{value}\n").into_bytes()
    }

    /// What bytes say; `None` if that isn't known to this version, and then nothing is remembered.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Tracked> {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let id = |key: &str| Oid::from_hex(value[key].as_str()?.as_bytes());
        let base = match &value["record"] {
            serde_json::Value::Null => Record::default(),
            record => codec::decode(record.to_string().as_bytes()).ok()?,
        };
        let told = value["told"].as_str().map(str::to_owned);
        let (here, there) = (id("here"), id("there"));
        let (journal, journal_there) = (id("journal"), id("journalThere"));
        (value["v"] == 1).then_some(Tracked { base, here, there, journal, journal_there, told })
    }
}
