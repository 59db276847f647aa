//! Carrying out a sync: one unit after the other, of names that belong together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    journal::{self, Actor, JournalEntry},
    lock::{
        Ended, Held, Holder, Outcome, Reconciliation, Record, Refusal, Request,
        merge::{Change, Merged, Sides, merge, origin},
    },
    name::{LockName, RefName},
    store::{NewValue, Object, Oid, RefEdit},
    sync::{SyncChange, SyncFate, SyncStrategy, Synced, Tracked},
};

use super::{
    Inner, LockManager,
    snapshot::{Snapshot, entries},
    tenure::TenureState,
    wait::refused,
};

/// How often a unit is tried that others change meanwhile.
const TRIES: usize = 32;

/// How many ended tenures of a lock are told of at the remote at most; the newest.
const MOST_TOLD: usize = 1_000;

impl LockManager {
    /// Brings this repository's locks and a remote's together, for those who worked without a connection:
    /// locks that were taken here are held there too, and the other way round, and what has ended in one has
    /// ended in both. Where two took the same lock, `strategy` says who keeps it: the other one's guard is told
    /// [`ErrorCode::LockLost`], and the journals say who overruled it.
    ///
    /// Until then both went on, so a lock that is taken here without a connection is a wish, not a promise:
    /// use the remote itself ([`LockManager::open_remote`]) wherever it can be reached. Call this again
    /// within every lease, so that what is renewed in one place is renewed in the other.
    ///
    /// Who waits goes on waiting where it does. What both had last is remembered in refs beside the locks,
    /// `refs/gitvan/tracking/…`. What has ended here is told of in the remote's journals, from the first sync on.
    ///
    /// ```
    /// use gitlock::{LockManager, Options, SyncStrategy};
    /// let [laptop, server] = [(); 2].map(|()| LockManager::in_memory(Options::default()).unwrap());
    /// let guard = laptop.lock("report").acquire()?;
    /// laptop.sync(&server, SyncStrategy::RemoteWins)?;
    /// assert!(server.lock("report").try_acquire()?.is_none());
    /// guard.release()?;
    /// laptop.sync(&server, SyncStrategy::RemoteWins)?;
    /// assert!(server.lock("report").try_acquire()?.is_some());
    /// # Ok::<(), gitlock::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorCode::SyncConflict`] with [`SyncStrategy::Fail`], once all else is done,
    /// [`ErrorCode::InvalidArgument`] for a remote that is this repository, and if one of the two can't be read
    /// or written: what was done until then is done, and the next sync goes on from there.
    pub fn sync(&self, remote: &LockManager, strategy: SyncStrategy) -> Result<Synced> {
        let (here, there) = (self.inner(), remote.inner());
        let place = there.commits.store.location();
        if place == here.commits.store.location() {
            let message = format!("{place} can't be synced with itself; name a remote of it");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let tracking = here.commits.names.tracking(&place);
        let mut sync = Sync {
            here,
            there,
            strategy,
            tracking,
            by: here.actor(),
            done: Synced::default(),
            conflicts: Vec::new(),
            place,
        };
        sync.run()?;
        match sync.conflicts.is_empty() {
            true => Ok(sync.done),
            false => Err(conflict(&sync.conflicts, &sync.place)),
        }
    }
}

struct Sync<'a> {
    here: &'a Inner,
    there: &'a Inner,
    /// Where there is.
    place: String,
    strategy: SyncStrategy,
    /// Where it is remembered what both had last.
    tracking: String,
    by: Actor,
    done: Synced,
    conflicts: Vec<SyncChange>,
}

/// What is remembered of a lock, and under which object.
type Memory = BTreeMap<LockName, (Oid, Tracked)>;

/// A lock in both places, as it was read.
struct Pair {
    here: Snapshot,
    there: Snapshot,
    /// Copies here: whether one has ended only its home can say.
    copies: Vec<String>,
    /// Those who are at home here, as far as is known: that one looks dead there says nothing.
    own: Vec<String>,
}

impl Sync<'_> {
    fn run(&mut self) -> Result<()> {
        let (here, there) = (locks_of(self.here)?, locks_of(self.there)?);
        let (journals, memory) = (self.journals()?, self.memory()?);
        let mut names: BTreeSet<&LockName> = here.keys().chain(there.keys()).chain(journals.keys()).collect();
        names.extend(memory.iter().filter(|(_, (_, tracked))| !tracked.base.holders.is_empty()).map(|(name, _)| name));
        let wall = self.here.commits.clock.now().wall;
        let is_changed = |name: &LockName| {
            let now = (here.get(name).copied(), there.get(name).copied(), journals.get(name).copied());
            memory.get(name).is_none_or(|(_, last)| {
                // A lease that may have run out is looked at, also if nobody has ended it yet.
                let due = last.base.holders.iter().any(|holder| holder.ends_at() <= wall);
                due || (last.here, last.there, last.journal) != now
            })
        };
        let held = |name: &LockName| here.contains_key(name) || there.contains_key(name);
        let mut fresh = Vec::new();
        let mut changed = BTreeSet::new();
        for name in &names {
            match memory.get(*name) {
                // Never synced, and held nowhere: its history is from before.
                None if !held(name) => fresh.push((*name).clone()),
                _ if is_changed(name) => drop(changed.insert((*name).clone())),
                _ => {}
            }
        }
        for name in fresh {
            let journal = journals.get(&name).copied();
            self.remember(&name, None, &Tracked { journal, told: self.told(journal)?, ..Tracked::default() })?;
        }
        let related: Vec<LockName> =
            names.into_iter().filter(|name| held(name) || memory.contains_key(*name)).cloned().collect();
        for unit in self.units(&related, &changed, &memory)? {
            self.unit(&unit, &memory)?;
        }
        Ok(())
    }

    fn journals(&self) -> Result<BTreeMap<LockName, Oid>> {
        let commits = &self.here.commits;
        let refs = commits.store.list(commits.names.journals())?;
        Ok(refs.into_iter().filter_map(|(name, id)| Some((commits.names.journal_of(&name)?, id))).collect())
    }

    fn memory(&self) -> Result<Memory> {
        let store = &self.here.commits.store;
        let mut memory = Memory::new();
        for (name, id) in store.list(&self.tracking)? {
            let encoded = name.as_str().strip_prefix(&self.tracking).and_then(|rest| rest.strip_prefix('/'));
            let Some(name) = encoded.and_then(LockName::decode) else { continue };
            let tracked = match store.object(&id)? {
                Object::Blob(bytes) => Tracked::decode(&bytes),
                _ => None,
            };
            memory.insert(name, (id, tracked.unwrap_or_default()));
        }
        Ok(memory)
    }

    /// The names that have to be compared together: those of a tree, and those that a tenure holds together.
    fn units(&self, names: &[LockName], changed: &BTreeSet<LockName>, memory: &Memory) -> Result<Vec<Vec<LockName>>> {
        let mut group: Vec<usize> = (0..names.len()).collect();
        let mut first: HashMap<String, usize> = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            let mut marks = vec![format!("/{}", name.as_str().split('/').next().unwrap_or_default())];
            let mut records = vec![self.here.commits.look(name, None)?.state.held];
            if changed.contains(name) {
                records.push(self.there.commits.look(name, None)?.state.held);
            }
            records.extend(memory.get(name).map(|(_, tracked)| Held::Record(tracked.base.clone())));
            for held in &records {
                let Held::Record(record) = held else { continue };
                marks.extend(record.holders.iter().map(|holder| holder.claim.id.clone()));
            }
            for mark in marks {
                let other = *first.entry(mark).or_insert(at);
                let (from, to) = (group[at], group[other]);
                group.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
            }
        }
        let mut units: BTreeMap<usize, Vec<LockName>> = BTreeMap::new();
        for (at, name) in names.iter().enumerate() {
            units.entry(group[at]).or_default().push(name.clone());
        }
        // In the order of the names, and so ancestors first: a crash in between locks too much.
        Ok(units.into_values().filter(|unit| unit.iter().any(|name| changed.contains(name))).collect())
    }

    fn unit(&mut self, names: &[LockName], memory: &Memory) -> Result<()> {
        for _ in 0..TRIES {
            let Some(pairs) = self.look(names, memory)? else { continue };
            if let Some((name, why)) = pairs.iter().find_map(unreadable) {
                self.done.left.push((name, why));
                return Ok(());
            }
            let sides = names.iter().zip(&pairs).map(|(name, pair)| self.sides(pair, memory.get(name)));
            let sides: Vec<Sides> = sides.collect::<Result<_>>()?;
            let Merged { here, there, base, changes } =
                match merge(&sides, &self.place, self.strategy, self.here.commits.policy.faults) {
                    Ok(merged) => merged,
                    Err(conflicts) => {
                        self.conflicts.extend(conflicts.into_iter().map(|change| named(names, change)));
                        return Ok(());
                    }
                };
            // There first: it is what others see.
            let Some(after_there) = self.reconcile(self.there, names, &pairs, there)? else { continue };
            self.tell(names, &changes, true);
            changes.iter().for_each(|change| self.tell_loser(change, |tenure, why| tenure.foresee_loss(why)));
            let Some(after_here) = self.reconcile(self.here, names, &pairs, here)? else { continue };
            changes.iter().for_each(|change| self.tell_loser(change, TenureState::lose));
            self.tell(names, &changes, false);
            for (at, name) in names.iter().enumerate() {
                let (here, there) = (&after_here[at], &after_there[at]);
                let tracked = Tracked {
                    base: base[at].clone(),
                    here: here.lock,
                    there: there.lock,
                    journal: here.journal.id,
                    told: self.told(here.journal.id)?,
                    journal_there: there.journal.id,
                };
                self.remember(name, memory.get(name).map(|(id, _)| *id), &tracked)?;
            }
            return Ok(());
        }
        let message = format!(
            "the lock {} was changed by others each time just before it could be synced with {}; try again",
            names[0], self.place
        );
        Err(Error::new(ErrorCode::RepositoryBusy, message))
    }

    /// Reads the locks in both places; `None` if something had to be ended first.
    fn look(&self, names: &[LockName], memory: &Memory) -> Result<Option<Vec<Pair>>> {
        let mut pairs = Vec::with_capacity(names.len());
        for name in names {
            let here = self.here.commits.look(name, None)?;
            let there = self.there.commits.look(name, None)?;
            let mut known = record(&here).holders;
            known.extend(memory.get(name).into_iter().flat_map(|(_, tracked)| tracked.base.holders.clone()));
            let (copies, own): (Vec<_>, Vec<_>) =
                known.into_iter().partition(|holder| origin(holder) == Some(&*self.place));
            let ids = |holders: Vec<Holder>| holders.into_iter().map(|holder| holder.claim.id).collect();
            let pair = Pair { here, there, copies: ids(copies), own: ids(own) };
            if !(self.settle(self.here, name, &pair)? && self.settle(self.there, name, &pair)?) {
                return Ok(None);
            }
            pairs.push(pair);
        }
        Ok(Some(pairs))
    }

    /// Ends what has ended by itself in one place. Returns whether there was nothing of that.
    fn settle(&self, inner: &Inner, name: &LockName, pair: &Pair) -> Result<bool> {
        let (snapshot, alive) = self.side(inner, pair);
        let request = Request::Reconcile(Reconciliation { alive, ..Reconciliation::of(&record(snapshot)) });
        let ends = inner.commits.changes_by(snapshot, &request);
        if ends {
            inner.commits.submit(name, request, &self.by)?;
        }
        Ok(!ends)
    }

    /// A lock in one place, and who lives whatever is known of them there.
    fn side<'p>(&self, inner: &Inner, pair: &'p Pair) -> (&'p Snapshot, Vec<String>) {
        match std::ptr::eq(inner, self.here) {
            true => (&pair.here, pair.copies.clone()),
            false => (&pair.there, pair.own.clone()),
        }
    }

    fn sides(&self, pair: &Pair, memory: Option<&(Oid, Tracked)>) -> Result<Sides> {
        let (here, there) = (record(&pair.here), record(&pair.there));
        let mut history = Vec::new();
        let mut told_there = BTreeSet::new();
        if let Some((_, last)) = memory {
            history = self.history(pair.here.journal.id, last)?;
            // Also what a sync told of that was cut off before that could be remembered.
            if !history.is_empty() && pair.there.journal.id != last.journal_there {
                let store = &*self.there.commits.store;
                let since = entries(store, pair.there.journal.id, MOST_TOLD, |id, _| Some(*id) == last.journal_there)?;
                told_there.extend(since.into_iter().map(|entry| entry.id));
            }
        }
        Ok(Sides {
            base: memory.map(|(_, tracked)| tracked.base.clone()).unwrap_or_default(),
            highest_there: there.highest_token().max(pair.there.state.journal.highest_token),
            left_there: self.there.commits.left(&pair.there),
            ended_there: pair.there.state.journal.ended.clone(),
            here,
            there,
            history,
            told_there,
        })
    }

    /// What has ended here since it was looked at last, oldest first.
    fn history(&self, tip: Option<Oid>, tracked: &Tracked) -> Result<Vec<Ended>> {
        let seen = |id: &Oid, entry: &JournalEntry| {
            Some(*id) == tracked.journal || !entry.id.is_empty() && Some(&entry.id) == tracked.told.as_ref()
        };
        let since = entries(&*self.here.commits.store, tip, MOST_TOLD, seen)?;
        Ok(since.into_iter().rev().filter_map(journal::ended).collect())
    }

    /// The newest tenure that a journal here tells of, from this commit on.
    fn told(&self, tip: Option<Oid>) -> Result<Option<String>> {
        let mut newest = None;
        entries(&*self.here.commits.store, tip, MOST_TOLD, |_, entry| {
            newest = Some(entry.id.clone()).filter(|id| !id.is_empty());
            newest.is_some()
        })?;
        Ok(newest)
    }

    /// Does in one place what has to be done there. Returns how it is then; `None` if it was changed meanwhile.
    fn reconcile(
        &self,
        inner: &Inner,
        names: &[LockName],
        pairs: &[Pair],
        wanted: Vec<Reconciliation>,
    ) -> Result<Option<Vec<Snapshot>>> {
        if wanted.iter().all(Reconciliation::is_empty) {
            return Ok(Some(pairs.iter().map(|pair| self.side(inner, pair).0.clone()).collect()));
        }
        let requests = names.iter().zip(pairs).zip(wanted).map(|((name, pair), wanted)| {
            (name.clone(), Request::Reconcile(Reconciliation { alive: self.side(inner, pair).1, ..wanted }))
        });
        let (outcomes, after) = inner.commits.submit_knowing(requests.collect(), &self.by)?;
        for (name, outcome) in names.iter().zip(&outcomes) {
            match outcome {
                Outcome::Reconciled => {}
                Outcome::Refused(refusal) => return Err(refused(name, refusal.clone())),
                _ => return Ok(None),
            }
        }
        Ok(Some(after))
    }

    /// Tells of what was done in one place.
    fn tell(&mut self, names: &[LockName], changes: &[Change], there: bool) {
        for change in changes {
            if change.there == there {
                let change = named(names, change.clone());
                tracing::info!(lock = %change.name, id = change.holder.claim.id, fate = change.fate.as_str(), "synced");
                self.done.changes.push(change);
            }
        }
    }

    /// Tells a guard of this process at once that its tenure is over; others find out when they renew it.
    fn tell_loser(&self, change: &Change, tell: impl Fn(&TenureState, &str)) {
        let why = match &change.fate {
            SyncFate::Lost => format!("it was ended at {}", self.place),
            SyncFate::Overruled { by } => {
                format!("{} keeps it, by a sync with {} ({})", by.claim.owner, self.place, self.strategy.as_str())
            }
            _ => return,
        };
        if let Some(tenure) = self.here.reactor().tenure(&change.holder.claim.id) {
            tell(&tenure, &why);
        }
    }

    /// Remembers how a lock is in both places. If somebody else did at the same time, theirs is as good.
    fn remember(&self, name: &LockName, expected: Option<Oid>, tracked: &Tracked) -> Result<()> {
        let name = RefName::within(&self.tracking, name);
        let edit = RefEdit { name, expected, new: Some(NewValue::Blob(tracked.encode())) };
        self.here.commits.track(edit)
    }
}

fn locks_of(inner: &Inner) -> Result<BTreeMap<LockName, Oid>> {
    let commits = &inner.commits;
    let refs = commits.store.list(commits.names.locks())?;
    Ok(refs.into_iter().filter_map(|(name, id)| Some((commits.names.lock_of(&name)?, id))).collect())
}

fn record(snapshot: &Snapshot) -> Record {
    match &snapshot.state.held {
        Held::Record(record) => record.clone(),
        Held::Free | Held::Opaque(_) => Record::default(),
    }
}

/// Why a lock can't be compared.
fn unreadable(pair: &Pair) -> Option<(LockName, String)> {
    [&pair.here, &pair.there].into_iter().find_map(|snapshot| match &snapshot.state.held {
        Held::Opaque(opaque) => {
            let name = snapshot.state.name.clone();
            let why = refused(&name, Refusal::Opaque(opaque.clone())).to_string();
            Some((name, why))
        }
        _ => None,
    })
}

fn named(names: &[LockName], change: Change) -> SyncChange {
    SyncChange { name: names[change.lock].clone(), holder: change.holder, fate: change.fate }
}

fn conflict(conflicts: &[SyncChange], place: &str) -> Error {
    let one = |change: &SyncChange| {
        let owner = |holder: Option<&Holder>| holder.map_or("somebody", |holder| &holder.claim.owner).to_owned();
        format!(
            "{} is held here by {} and at {place} by {}",
            change.name,
            owner(Some(&change.holder)),
            owner(change.fate.other())
        )
    };
    let message = format!(
        "{}; nothing was changed there: let one of them release it, or sync with a strategy that chooses",
        conflicts.iter().map(one).collect::<Vec<_>>().join("; ")
    );
    let error = Error::new(ErrorCode::SyncConflict, message);
    match conflicts.iter().find_map(|change| change.fate.other()) {
        Some(holder) => error.with_holder(holder.clone()),
        None => error,
    }
}
