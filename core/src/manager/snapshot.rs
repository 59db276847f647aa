//! Reading a lock: its ref, its record, its journal, and who is still there.

use std::collections::HashMap;

use crate::{
    error::Result,
    journal::{self, JournalEntry, Tip},
    lock::{BootTime, Fact, Facts, Held, JournalTip, Liveness, LockState, Opaque, Record, codec},
    name::{LockName, Namespace, RefName},
    process,
    store::{Object, Oid, RefStore},
};

/// One lock as it was read, with what a compare-and-swap of it expects.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// What the rules see.
    pub(super) state: LockState,
    /// What the lock's ref pointed at.
    pub(super) lock: Option<Oid>,
    /// What the journal's ref pointed at.
    pub(super) journal: JournalAt,
}

/// Where a journal stands.
#[derive(Clone, Debug, Default)]
pub(super) struct JournalAt {
    /// What its ref pointed at.
    pub(super) id: Option<Oid>,
    /// What that commit says.
    pub(super) tip: Tip,
    /// Whether the next commit can have this one as its parent.
    pub(super) usable: bool,
}

/// A lock whose ref was read already, and without its journal: to look at, not to change. On a server
/// every read is a question, and a listing has all refs.
pub(super) fn listed(store: &dyn RefStore, name: &LockName, id: Oid, known: Option<&Snapshot>) -> Result<Snapshot> {
    let known = known.filter(|known| known.lock == Some(id) && !matches!(known.state.held, Held::Opaque(_)));
    let held = match known {
        Some(known) => known.state.held.clone(),
        None => match store.object(&id)? {
            Object::Blob(bytes) => decoded(&bytes),
            Object::Missing => Held::Opaque(Opaque::Missing { unchanged: None }),
            Object::Commit(_) => Held::Opaque(Opaque::Corrupt("it is a commit".to_owned())),
            Object::Unusable(why) => Held::Opaque(Opaque::Corrupt(why)),
        },
    };
    let state = LockState { name: name.clone(), held, journal: JournalTip::default() };
    Ok(Snapshot { state, lock: Some(id), journal: JournalAt { usable: true, ..JournalAt::default() } })
}

/// Reads a lock. What `known` says of objects that are still the ones referred to isn't read again.
pub(super) fn read(
    store: &dyn RefStore,
    names: &Namespace,
    name: &LockName,
    known: Option<&Snapshot>,
) -> Result<Snapshot> {
    let (lock_ref, journal_ref) = (names.lock_ref(name), names.journal_ref(name));
    // On a server both with one question. Whichever was read first: a grant that finds no token in the
    // record looks at the journal once more.
    let (mut lock_at, mut journal_at) = if store.round_trip().is_some() {
        let both = store.read_all(&[&lock_ref, &journal_ref])?;
        (both.first().copied(), both.last().copied())
    } else {
        (None, None)
    };
    let (lock, held) = loop {
        let lock = match lock_at.take().map_or_else(|| store.read(&lock_ref), Ok) {
            Err(error) if error.code() == crate::ErrorCode::NameBlocked => {
                break (None, Held::Opaque(Opaque::Foreign(error.to_string())));
            }
            read => read?,
        };
        let Some(id) = lock else { break (None, Held::Free) };
        if let Some(known) = known.filter(|known| known.lock == lock && !matches!(known.state.held, Held::Opaque(_))) {
            break (lock, known.state.held.clone());
        }
        match store.object(&id)? {
            Object::Blob(bytes) => break (lock, decoded(&bytes)),
            Object::Missing => {
                // Superseded objects are swept: is it still the one?
                if store.read(&lock_ref)? == lock {
                    break (lock, Held::Opaque(Opaque::Missing { unchanged: store.unchanged_for(&lock_ref, &id) }));
                }
            }
            Object::Commit(_) => break (lock, Held::Opaque(Opaque::Corrupt("it is a commit".to_owned()))),
            Object::Unusable(why) => break (lock, Held::Opaque(Opaque::Corrupt(why))),
        }
    };
    let journal = match journal_at.take() {
        Some(at) => at,
        None => store.read(&journal_ref)?,
    };
    let journal = read_journal(store, names, name, known.map(|known| &known.journal), journal)?;
    let state = LockState { name: name.clone(), held, journal: journal.tip.journal.clone() };
    Ok(Snapshot { state, lock, journal })
}

fn decoded(bytes: &[u8]) -> Held {
    match codec::decode(bytes) {
        Ok(record) => Held::Record(record),
        Err(codec::Unreadable::Corrupt(why)) => Held::Opaque(Opaque::Corrupt(why)),
        Err(codec::Unreadable::TooNew(version)) => Held::Opaque(Opaque::TooNew(version)),
    }
}

/// What a journal tells from this commit on, newest first: at most so many entries, and none from the one on of which
/// `until` says so.
pub(super) fn entries(
    store: &dyn RefStore,
    tip: Option<Oid>,
    most: usize,
    mut until: impl FnMut(&Oid, &JournalEntry) -> bool,
) -> Result<Vec<JournalEntry>> {
    let (mut entries, mut next) = (Vec::new(), tip);
    if let Some(tip) = &tip {
        store.foresee(tip, most)?;
    }
    while let Some(id) = next.filter(|_| entries.len() < most) {
        let Object::Commit(commit) = store.object(&id)? else { break };
        let entry = journal::entry(&id, &commit);
        if until(&id, &entry) {
            break;
        }
        entries.push(entry);
        next = commit.parent;
    }
    Ok(entries)
}

fn read_journal(
    store: &dyn RefStore,
    names: &Namespace,
    name: &LockName,
    known: Option<&JournalAt>,
    mut id: Option<Oid>,
) -> Result<JournalAt> {
    let (at, object) = loop {
        let Some(at) = id else { return Ok(JournalAt { usable: true, ..JournalAt::default() }) };
        if let Some(known) = known.filter(|known| known.id == id) {
            return Ok(known.clone());
        }
        let object = store.object(&at)?;
        // With `keep`, what a tip replaces is swept: is it still the one?
        let again = if object == Object::Missing { store.read(&names.journal_ref(name))? } else { id };
        if again == id {
            break (at, object);
        }
        id = again;
    };
    Ok(match object {
        Object::Commit(commit) => JournalAt { id, tip: journal::tip(&commit), usable: true },
        other => {
            tracing::warn!(lock = %name, commit = %at, found = ?other, "the journal's newest commit can't be read; a new chain begins");
            JournalAt { id, tip: Tip::default(), usable: false }
        }
    })
}

/// For how long those entries have been seen that this machine's clocks say nothing of.
pub(super) fn sightings(store: &dyn RefStore, lock: &RefName, record: &Record, boot: &str, facts: &mut Facts) {
    let foreign = |end: &Option<BootTime>| end.as_ref().is_none_or(|end| *end.boot != *boot);
    let holders = record.holders.iter().filter(|holder| foreign(&holder.end));
    let holders = holders.map(|holder| (&holder.claim.id, format!("{} {}", holder.claim.id, holder.timeout)));
    let waiters = record.queue.iter().filter(|waiter| waiter.until.is_some() && foreign(&waiter.end));
    let waiters = waiters.map(|waiter| (&waiter.claim.id, format!("{} waits", waiter.claim.id)));
    let (ids, entries): (Vec<&String>, Vec<String>) = holders.chain(waiters).unzip();
    if entries.is_empty() {
        return;
    }
    for (id, unchanged) in ids.into_iter().zip(store.seen_for(lock, &entries)) {
        facts.0.entry(id.clone()).or_default().unchanged = unchanged;
    }
}

/// Finds out who in a record is still there. Most of many waiters share few processes.
pub(super) fn facts(record: &Record) -> Facts {
    let mut facts = Facts::default();
    let mut seen: HashMap<(u32, Option<u64>), Liveness> = HashMap::new();
    let claims =
        record.holders.iter().map(|holder| &holder.claim).chain(record.queue.iter().map(|waiter| &waiter.claim));
    for claim in claims {
        let Some(stamp) = claim.process.as_ref() else { continue };
        // A group is part of what is looked at, so only what has none can be shared.
        let liveness = if stamp.group.is_some() {
            process::liveness(claim)
        } else {
            *seen.entry((claim.pid, stamp.start)).or_insert_with(|| process::liveness(claim))
        };
        if liveness != Liveness::Unknown {
            facts.0.insert(claim.id.clone(), Fact { liveness, unchanged: None });
        }
    }
    facts
}
