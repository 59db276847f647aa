//! What becomes of tenures in two repositories that are brought together: a three-way comparison of who
//! holds *here*, who holds *there*, at the remote, and who held in both when they last were the same.
//!
//! A tenure is compared by its id and as a whole, with the intents that it has on other names, so that no
//! outcome has half of one. It has a home, the repository that granted it; the other one has a copy, which
//! says where it is from. Home alone says how long it lasts and when it has ended, so that a copy that ran
//! out for want of a connection ends nothing. Queues stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    decide::{Cause, Ended},
    fault::{Fault, Faults},
    fit::fits,
    mode::Mode,
    reconcile::{Adopted, Reconciliation},
    record::{Holder, MAX_NUMBER, Record},
};

/// The field of a copy that says where its tenure is at home.
const FROM: &str = "from";

/// Where a tenure was granted that this is a copy of; `None`: here.
pub fn origin(holder: &Holder) -> Option<&str> {
    holder.claim.extra.get(FROM).and_then(Value::as_str)
}

/// Who keeps a lock that was taken here and there, by two who knew nothing of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SyncStrategy {
    /// Who holds it at the remote.
    #[default]
    RemoteWins,
    /// Who acquired it first, by the clocks of both.
    Oldest,
    /// Who asked with the higher priority.
    HighestPriority,
    /// Who has the higher fencing token, and so hasn't been shut out by what checks tokens.
    HighestToken,
    /// Nobody: it is left as it is in both places, and the sync fails once all else is done.
    Fail,
}

impl SyncStrategy {
    /// All of them.
    pub const ALL: [SyncStrategy; 5] = [
        SyncStrategy::RemoteWins,
        SyncStrategy::Oldest,
        SyncStrategy::HighestPriority,
        SyncStrategy::HighestToken,
        SyncStrategy::Fail,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            SyncStrategy::RemoteWins => "remote-wins",
            SyncStrategy::Oldest => "oldest",
            SyncStrategy::HighestPriority => "highest-priority",
            SyncStrategy::HighestToken => "highest-token",
            SyncStrategy::Fail => "fail",
        }
    }

    /// The strategy that a word names.
    pub fn parse(word: &str) -> Option<SyncStrategy> {
        SyncStrategy::ALL.into_iter().find(|strategy| strategy.as_str() == word)
    }
}

/// One lock in both places.
#[derive(Clone, Debug)]
pub struct Sides {
    /// Who held it in both, when they last were the same, as it was written here.
    pub base: Record,
    /// Who holds it here.
    pub here: Record,
    /// Who holds it there.
    pub there: Record,
    /// How much longer the leases there last, in milliseconds, as far as can be told from here: by tenure.
    pub left_there: BTreeMap<String, u64>,
    /// The highest token that it ever had there.
    pub highest_there: u64,
    /// What the newest entry of its journal there calls ended.
    pub ended_there: Vec<String>,
    /// What has ended here since they last were the same, oldest first.
    pub history: Vec<Ended>,
    /// What the journal there has told of since, by tenure.
    pub told_there: BTreeSet<String>,
}

/// What is to be done, by the index of the lock, and what that means.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Here.
    pub here: Vec<Reconciliation>,
    /// There. It goes first: the remote is what others see.
    pub there: Vec<Reconciliation>,
    /// Who holds in both then.
    pub base: Vec<Record>,
    /// What that means for whom.
    pub changes: Vec<Change>,
}

/// What happens to one tenure of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The lock: an index into what was compared.
    pub lock: usize,
    /// The tenure.
    pub holder: Holder,
    /// What happens to it.
    pub fate: Fate,
    /// Whether that is done there, rather than here.
    pub there: bool,
}

/// What happens to a tenure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Held here, and now there too.
    Sent,
    /// Held there, and now here too.
    Received,
    /// It had ended here, and has ended there now.
    EndedThere,
    /// It had ended there, and has ended here now.
    EndedHere,
    /// It was held here, and had been ended there, by force or because its lease ran out.
    Lost,
    /// It stood against another one, which was kept.
    Overruled {
        /// That one.
        by: Box<Holder>,
    },
    /// It stands against another one, and both are left as they are.
    Conflict {
        /// That one.
        with: Box<Holder>,
    },
}

/// A tenure, with all that it has.
struct Tenure<'a> {
    id: &'a str,
    at_home_here: bool,
    is_here: bool,
    is_there: bool,
    /// As its home has it, by the index of the lock.
    parts: BTreeMap<usize, Holder>,
}

impl Tenure<'_> {
    fn locks(&self) -> impl Iterator<Item = &Holder> {
        self.parts.values().filter(|holder| !holder.claim.mode.is_intent())
    }

    /// Lowest first to be kept.
    fn preference(&self, strategy: SyncStrategy) -> (i64, bool, u64, &str) {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let since = self.locks().map(|holder| holder.acquired_at).min().unwrap_or(u64::MAX);
        let by = match strategy {
            SyncStrategy::RemoteWins | SyncStrategy::Fail => i64::from(!self.is_there),
            SyncStrategy::Oldest => signed(since),
            SyncStrategy::HighestPriority => {
                -self.locks().map(|holder| i64::from(holder.priority)).max().unwrap_or(i64::from(i32::MIN))
            }
            SyncStrategy::HighestToken => -self.locks().filter_map(|holder| holder.token).max().map_or(0, signed),
        };
        (by, !self.is_there, since, self.id)
    }
}

/// Compares, and says what is to be done so that both are the same. `place`: where *there* is.
///
/// # Errors
/// With [`SyncStrategy::Fail`] the tenures that stand against each other; nothing is to be done then.
pub fn merge(locks: &[Sides], place: &str, strategy: SyncStrategy, faults: Faults) -> Result<Merged, Vec<Change>> {
    let mut merged = Merged {
        here: locks.iter().map(|lock| Reconciliation::of(&lock.here)).collect(),
        there: locks.iter().map(|lock| Reconciliation::of(&lock.there)).collect(),
        base: vec![Record::default(); locks.len()],
        changes: Vec::new(),
    };
    let mut tenures = Vec::new();
    for id in ids(locks) {
        tenures.extend(Compared::of(locks, id, place, faults).verdict(locks, place, &mut merged));
    }
    tenures.sort_by(|a, b| a.preference(strategy).cmp(&b.preference(strategy)));
    let mut kept: Vec<Record> = vec![Record::default(); locks.len()];
    let (mut winners, mut conflicts) = (Vec::new(), Vec::new());
    for tenure in tenures {
        let Some(rival) = rival(&kept, &tenure, faults).cloned() else {
            tenure.parts.iter().for_each(|(lock, holder)| kept[*lock].holders.push(holder.clone()));
            winners.push(tenure);
            continue;
        };
        if strategy == SyncStrategy::Fail {
            conflicts.extend(tenure.told(&Fate::Conflict { with: Box::new(rival.clone()) }, false));
        }
        overrule(locks, &tenure, &rival, (place, strategy), &mut merged);
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    carry(locks, winners, (place, faults), &mut merged);
    for (lock, sides) in locks.iter().enumerate() {
        merged.there[lock].append = unknown_there(sides);
    }
    Ok(merged)
}

fn ids(locks: &[Sides]) -> BTreeSet<&str> {
    let records = locks.iter().flat_map(|lock| [&lock.base, &lock.here, &lock.there]);
    records.flat_map(|record| &record.holders).map(|holder| &*holder.claim.id).collect()
}

/// What both say of a tenure.
struct Compared<'a> {
    id: &'a str,
    base: BTreeMap<usize, &'a Holder>,
    here: BTreeMap<usize, &'a Holder>,
    there: BTreeMap<usize, &'a Holder>,
    at_home_here: bool,
}

impl<'a> Compared<'a> {
    fn of(locks: &'a [Sides], id: &'a str, place: &str, faults: Faults) -> Compared<'a> {
        let parts = |record: fn(&Sides) -> &Record| -> BTreeMap<usize, &'a Holder> {
            locks.iter().enumerate().filter_map(|(at, lock)| Some((at, record(lock).holder(id)?))).collect()
        };
        let (base, here, there) = (parts(|lock| &lock.base), parts(|lock| &lock.here), parts(|lock| &lock.there));
        // A copy from elsewhere is at home here, as far as this remote is concerned.
        let known = here.values().next().or_else(|| base.values().next());
        let at_home_here = known.is_some_and(|holder| {
            origin(holder) != Some(place) || here.is_empty() && faults.has(Fault::SyncEndsByCopies)
        });
        Compared { id, base, here, there, at_home_here }
    }

    /// Whether it goes on; what has ended is ended wherever it still stands.
    fn verdict(self, locks: &[Sides], place: &str, merged: &mut Merged) -> Option<Tenure<'a>> {
        let Compared { id, base, here, there, at_home_here } = self;
        let (is_here, is_there) = (!here.is_empty(), !there.is_empty());
        let ended_there = || locks.iter().any(|lock| lock.ended_there.iter().any(|ended| ended == id));
        let over_there = is_here && !is_there && (!at_home_here || !base.is_empty() || ended_there());
        let over_here = is_there && !is_here && at_home_here;
        if over_there {
            for (lock, holder) in here {
                merged.here[lock].end.push((id.to_owned(), Cause::Elsewhere, Some(format!("at {place}"))));
                let fate = if at_home_here { Fate::Lost } else { Fate::EndedHere };
                merged.changes.extend(told(lock, holder, fate, false));
            }
            return None;
        }
        if over_here {
            for (lock, holder) in there {
                let by_whom = locks[lock].history.iter().rev().find(|ended| ended.is_of(id));
                let (cause, why) = by_whom.map_or((Cause::Elsewhere, None), |own| (own.cause, own.reason.clone()));
                merged.there[lock].end.push((id.to_owned(), cause, why));
                merged.changes.extend(told(lock, holder, Fate::EndedThere, true));
            }
            return None;
        }
        let home = if at_home_here { here } else { there };
        let parts = home.into_iter().map(|(lock, holder)| (lock, holder.clone())).collect();
        (is_here || is_there).then_some(Tenure { id, at_home_here, is_here, is_there, parts })
    }
}

/// What is said of a lock, but not of an intent.
fn told(lock: usize, holder: &Holder, fate: Fate, there: bool) -> Option<Change> {
    (!holder.claim.mode.is_intent()).then(|| Change { lock, holder: holder.clone(), fate, there })
}

impl Tenure<'_> {
    fn told(&self, fate: &Fate, there: bool) -> Vec<Change> {
        self.parts.iter().filter_map(|(lock, holder)| told(*lock, holder, fate.clone(), there)).collect()
    }
}

/// Who of those that are kept already can't stand beside this one.
fn rival<'a>(kept: &'a [Record], tenure: &Tenure<'_>, faults: Faults) -> Option<&'a Holder> {
    let overlooked = |holder: &Holder| holder.claim.mode.is_intent() && faults.has(Fault::SyncOverlooksIntents);
    tenure.parts.iter().find_map(|(lock, holder)| {
        let record = &kept[*lock];
        let beside = |other: &&Holder| {
            let alone = Record { holders: vec![(*other).clone()], queue: Vec::new() };
            let same_slot = holder.slot.is_some() && holder.slot == other.slot;
            let differ =
                holder.claim.slots.is_some() && other.claim.slots.is_some_and(|n| Some(n) != holder.claim.slots);
            !same_slot && !differ && fits(&alone, &holder.claim, Faults::NONE)
        };
        record.holders.iter().find(|other| !beside(other) && !overlooked(other) && !overlooked(holder))
    })
}

/// Ends a tenure wherever it stands, because another one is kept.
fn overrule(
    locks: &[Sides],
    tenure: &Tenure<'_>,
    by: &Holder,
    (place, strategy): (&str, SyncStrategy),
    merged: &mut Merged,
) {
    let why = format!("{} keeps it, by sync with {place} ({})", by.claim.owner, strategy.as_str());
    for (lock, sides) in locks.iter().enumerate() {
        for (record, ends) in [(&sides.here, &mut merged.here[lock].end), (&sides.there, &mut merged.there[lock].end)] {
            if record.holder(tenure.id).is_some() {
                ends.push((tenure.id.to_owned(), Cause::Overruled, Some(why.clone())));
            }
        }
    }
    let fate = Fate::Overruled { by: Box::new(by.clone()) };
    merged.changes.extend(tenure.told(&fate, tenure.is_there));
}

/// Brings who is kept to where they aren't yet as they are at home.
fn carry(locks: &[Sides], mut winners: Vec<Tenure<'_>>, (place, faults): (&str, Faults), merged: &mut Merged) {
    // Tokens grow in the order in which they came.
    winners.sort_by_key(|tenure| tenure.locks().filter_map(|holder| holder.token).max());
    let mut highest: Vec<u64> = locks.iter().map(|lock| lock.highest_there).collect();
    for mut tenure in winners {
        if tenure.at_home_here && !tenure.is_there {
            let raises = !faults.has(Fault::SyncKeepsTokens);
            for (lock, holder) in &mut tenure.parts {
                if let Some(token) = holder.token.as_mut().filter(|_| raises) {
                    // Whatever checks tokens has seen those that were given there.
                    *token = (*token).max(highest[*lock] + 1).min(MAX_NUMBER);
                    highest[*lock] = *token;
                }
            }
            merged.changes.extend(tenure.told(&Fate::Sent, true));
        }
        if !tenure.is_here {
            merged.changes.extend(tenure.told(&Fate::Received, false));
        }
        for (lock, sides) in locks.iter().enumerate() {
            let (here, there) = (sides.here.holder(tenure.id), sides.there.holder(tenure.id));
            let Some(holder) = tenure.parts.get(&lock) else {
                // An intent that its home needs no more.
                let gone = (tenure.id.to_owned(), Cause::Elsewhere, None);
                merged.here[lock].end.extend(here.map(|_| gone.clone()));
                merged.there[lock].end.extend(there.map(|_| gone));
                continue;
            };
            let mut written_here = holder.clone();
            if !tenure.at_home_here {
                written_here.claim.extra.insert(FROM.to_owned(), Value::from(place));
            }
            if here.is_none_or(|here| !is_same(here, &written_here)) {
                let left = sides.left_there.get(tenure.id).copied().unwrap_or_default();
                merged.here[lock].adopt.push(Adopted { holder: written_here.clone(), left });
            }
            if tenure.at_home_here && there.is_none_or(|there| !is_same(there, holder)) {
                merged.there[lock].adopt.push(Adopted { holder: holder.clone(), left: 0 });
            }
            merged.base[lock].holders.push(written_here);
        }
    }
    for record in &mut merged.base {
        record.sort();
    }
}

/// Whether two entries say the same, but for a boot clock that only one of both places can read.
fn is_same(a: &Holder, b: &Holder) -> bool {
    *a == Holder { end: a.end.clone(), ..b.clone() }
}

/// What was held here and has ended, and nobody there has heard of.
fn unknown_there(lock: &Sides) -> Vec<Ended> {
    let holds = |id: &str| [&lock.base, &lock.here, &lock.there].iter().any(|record| record.holder(id).is_some());
    let known = |id: &str| holds(id) || lock.told_there.contains(id);
    let own = |ended: &&Ended| {
        let of_here = !matches!(ended.cause, Cause::Elsewhere | Cause::Overruled | Cause::GoesOn);
        of_here && ended.holder.as_ref().is_some_and(|holder| !known(&holder.claim.id))
    };
    lock.history.iter().filter(own).cloned().collect()
}

/// Which modes may have changed between a look and a change that goes by it.
pub(super) fn standing(record: &Record) -> Vec<(String, Mode)> {
    record.holders.iter().map(|holder| (holder.claim.id.clone(), holder.claim.mode)).collect()
}

#[cfg(test)]
mod tests {
    use super::SyncStrategy;

    #[test]
    fn words_round_trip() {
        for strategy in SyncStrategy::ALL {
            assert_eq!(SyncStrategy::parse(strategy.as_str()), Some(strategy));
        }
        assert_eq!(SyncStrategy::parse("newest"), None);
    }
}
