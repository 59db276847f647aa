//! The one background thread of a manager: it renews leases, tells of losses, watches the refs
//! that somebody waits for, and wakes who is granted. It sleeps in one `poll` until something
//! happens or the nearest deadline, however many locks and waits there are.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    lock::{Held, Outcome, Refusal, Request, deadlock::Cycle},
    name::LockName,
};

use super::{
    Inner, LockStatus,
    deadlocks::Detector,
    leftovers::{self, Leftover},
    sleeper::{Sleeper, Waker},
    snapshot::Snapshot,
    tenure::{TAKEN_AWAY, TenureState, Wanted},
    wait::{self, Verdict, WaitEntry},
};

/// How long after a change the store is tended, in milliseconds.
const TEND_AFTER: u64 = 2_000;

/// How long after a panic the background thread goes on, in milliseconds.
const AFTER_PANIC: u64 = 10;

/// For how long in one turn the background thread waits for what others hold at most, in
/// milliseconds. What that isn't enough for comes again in the next turn, so that a `.lock` file
/// that somebody left behind delays no other lock's renewal, and nobody's news of a loss.
const PATIENCE: u64 = 100;

/// What each lock has of it at least, since a transaction takes microseconds, or a few milliseconds
/// on a busy machine.
const LEAST_PATIENCE: u64 = 5;

/// How often it is looked for new tenures whose loss has to be told, in milliseconds.
const LOSSES_EVERY: u64 = 200;

/// When it tries again then, in milliseconds.
const BUSY_AGAIN: u64 = 50;

/// How much later each place in the queue looks when a lease ends or an owner dies, in
/// milliseconds: the first does the work, and the others find it done.
const STAGGER: u64 = 3;

/// What the background thread is told, and how it is woken.
#[derive(Default)]
pub(super) struct Reactor {
    state: Mutex<State>,
    /// How many of its waits haven't been asked for yet, so that none of them has a place in a queue.
    unasked: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    /// Set once the thread runs.
    waker: Option<Arc<Waker>>,
    /// Tenures to renew and to tell of, by id, with the boot time at which to look at each.
    tenures: HashMap<String, (Weak<TenureState>, u64)>,
    /// Waits that the thread has not seen yet.
    incoming: Vec<WaitEntry>,
    /// What could not be ended yet, and the thread has not seen.
    leftovers: Vec<Leftover>,
    /// Whether somebody wants to be told at once when a held lock changes.
    news: bool,
    /// Locks that news are newly wanted of: they may have changed before.
    asked: Vec<String>,
    /// When something was first written since the store was last tended, on the boot clock.
    dirty_since: Option<u64>,
    /// Until when the thread sleeps, on the boot clock.
    sleeps_until: u64,
    /// The earliest that anything asked for since the thread's turn began has to be looked at.
    earliest: u64,
}

impl Reactor {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches over a tenure: renews it, and tells when it is lost.
    pub(super) fn touch(&self, inner: &Arc<Inner>, tenure: &Arc<TenureState>) {
        let now = inner.commits.clock.boot_ms();
        let next = next_look(inner, tenure, now);
        self.with_thread(inner, |state| {
            state.tenures.insert(tenure.id.clone(), (Arc::downgrade(tenure), next));
            state.dirty_since.get_or_insert(now);
            next.min(now + TEND_AFTER)
        });
    }

    /// Also notices at once when this tenure is taken away.
    pub(super) fn guard_wants_news(&self, inner: &Arc<Inner>, tenure: &Arc<TenureState>) {
        self.touch(inner, tenure);
        self.with_thread(inner, |state| {
            state.news = true;
            state.asked.extend(tenure.names().iter().map(|name| name.encoded().to_owned()));
            0
        });
    }

    /// Ends later what can't be ended now.
    pub(super) fn leave_behind(&self, inner: &Arc<Inner>, leftover: Leftover) {
        self.with_thread(inner, |state| {
            let next = leftover.next;
            state.leftovers.push(leftover);
            next
        });
    }

    pub(super) fn forget(&self, id: &str) {
        self.lock().tenures.remove(id);
    }

    /// The tenure with this id, if it is watched over here.
    pub(super) fn tenure(&self, id: &str) -> Option<Arc<TenureState>> {
        self.lock().tenures.get(id)?.0.upgrade()
    }

    pub(super) fn has_unasked(&self) -> bool {
        self.unasked.load(SeqCst) > 0
    }

    pub(super) fn add(&self, inner: &Arc<Inner>, mut entry: WaitEntry) {
        entry.count_unasked(&self.unasked);
        self.with_thread(inner, |state| {
            state.incoming.push(entry);
            0
        });
    }

    /// Makes the thread look at everything now.
    pub(super) fn wake(&self) {
        let waker = self.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Changes the state, starts the thread if it doesn't run, and wakes it if it would sleep too long.
    fn with_thread(&self, inner: &Arc<Inner>, change: impl FnOnce(&mut State) -> u64) {
        let mut state = self.lock();
        let needed_at = change(&mut state);
        state.earliest = state.earliest.min(needed_at);
        if state.waker.is_none() {
            match start(inner) {
                Ok(waker) => state.waker = Some(waker),
                Err(error) => {
                    tracing::error!(%error, "the background thread could not be started; leases are not renewed");
                    // Nobody would ever answer these.
                    let stranded = std::mem::take(&mut state.incoming);
                    drop(state);
                    for entry in stranded {
                        let error = Error::new(error.code(), error.to_string());
                        let _ = entry.finish(Err(error));
                    }
                    return;
                }
            }
        }
        if needed_at < state.sleeps_until {
            let waker = state.waker.clone();
            // Whoever comes next needn't wake it again.
            state.sleeps_until = 0;
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// When to look at a tenure next: at a third of its ttl, or when it has to count as lost.
fn next_look(inner: &Inner, tenure: &TenureState, now: u64) -> u64 {
    let lost_at = tenure.lost_at(inner);
    if tenure.renews && now < tenure.renew_until { lost_at.min(now + (tenure.ttl() / 3).max(1)) } else { lost_at }
}

fn start(inner: &Arc<Inner>) -> Result<Arc<Waker>> {
    let failed = |error: std::io::Error| Error::new(ErrorCode::Io, format!("no background thread: {error}"));
    let (sleeper, waker) = Sleeper::new().map_err(failed)?;
    let world = World {
        sleeper,
        waits: HashMap::new(),
        watching: false,
        unseen: true,
        leftovers: Vec::new(),
        detector: Detector::default(),
        patient_until: 0,
    };
    if inner.commits.store.round_trip().is_some() {
        let inner = Arc::downgrade(inner);
        let thread = std::thread::Builder::new().name("gitlock-loss".to_owned());
        thread.spawn(move || tell_losses(&inner)).map_err(failed)?;
    }
    let inner = Arc::downgrade(inner);
    std::thread::Builder::new().name("gitlock".to_owned()).spawn(move || world.run(&inner)).map_err(failed)?;
    Ok(waker)
}

/// Tells of losses in time while the background thread waits for a server.
fn tell_losses(inner: &Weak<Inner>) {
    loop {
        let pause = {
            let Some(inner) = inner.upgrade() else { return };
            let now = inner.commits.clock.boot_ms();
            let tenures: Vec<Arc<TenureState>> =
                inner.reactor().lock().tenures.values().filter_map(|(tenure, _)| tenure.upgrade()).collect();
            let mut next = now + LOSSES_EVERY;
            for tenure in tenures.iter().filter(|tenure| !tenure.is_over()) {
                let lost_at = tenure.lost_at(&inner);
                if lost_at <= now {
                    tenure.lose("its lease ran out before it could be renewed");
                } else {
                    next = next.min(lost_at);
                }
            }
            next - now
        };
        std::thread::park_timeout(Duration::from_millis(pause));
    }
}

/// What only the background thread sees.
struct World {
    sleeper: Sleeper,
    waits: HashMap<LockName, WaitedFor>,
    watching: bool,
    /// Whether anything has changed since deadlocks were last looked for, as far as the watch knows.
    unseen: bool,
    /// What could not be ended yet.
    leftovers: Vec<Leftover>,
    detector: Detector,
    /// Until when this turn waits for others, on the boot clock.
    patient_until: u64,
}

/// How much of this turn's patience is left.
fn patience(inner: &Inner, until: u64) -> Duration {
    Duration::from_millis(until.saturating_sub(inner.commits.clock.boot_ms()).max(LEAST_PATIENCE))
}

/// A lock that somebody in this process waits for.
struct WaitedFor {
    name: LockName,
    waits: Vec<WaitEntry>,
    /// Those that wait for another lock from now on.
    moved: Vec<WaitEntry>,
    known: Option<Snapshot>,
    /// When to look at it next, on the boot clock.
    next: u64,
    /// Whether somebody held its `.lock` file for longer than this thread waits.
    busy: bool,
}

impl World {
    fn run(mut self, inner: &Weak<Inner>) {
        loop {
            let Some(inner) = inner.upgrade() else { return };
            inner.reactor().lock().earliest = u64::MAX;
            // Whatever it was, it must not end renewals and everybody's waits. Those that the turn
            // had in its hands are told by `WaitEntry`'s drop.
            let until = catch_unwind(AssertUnwindSafe(|| self.turn(&inner))).unwrap_or_else(|_| {
                tracing::error!("the background thread panicked; it goes on");
                self.waits.values_mut().for_each(|waited| waited.next = 0);
                Some(inner.commits.clock.boot_ms() + AFTER_PANIC)
            });
            let until = until.unwrap_or(u64::MAX);
            let clock = inner.commits.clock.clone();
            let until = {
                // In one step: what came since the turn began has woken nobody.
                let mut state = inner.reactor().lock();
                state.sleeps_until = until.min(state.earliest);
                state.sleeps_until
            };
            drop(inner);
            self.sleeper.sleep((until != u64::MAX).then_some(until), &*clock);
        }
    }

    /// Does all that is due. Returns when the next thing is, if any is.
    fn turn(&mut self, inner: &Arc<Inner>) -> Option<u64> {
        let woken = self.sleeper.take();
        self.unseen |= woken.changes.all || !woken.changes.names.is_empty();
        self.patient_until = inner.commits.clock.boot_ms() + PATIENCE;
        self.take_incoming(inner);
        self.leftovers.append(&mut inner.reactor().lock().leftovers);
        let mut next = self.tenures(inner, &woken.changes.names, woken.changes.all);
        self.arm(inner);
        let asked = std::mem::take(&mut inner.reactor().lock().asked);
        if !asked.is_empty() {
            // Armed, then read, here too.
            next = self.tenures(inner, &asked, false);
        }
        let now = inner.commits.clock.boot_ms();
        for (name, waited) in &mut self.waits {
            let changed = woken.changes.all || woken.changes.names.iter().any(|changed| changed == name.encoded());
            if woken.process_died {
                waited.next = waited.next.min(now + waited.stagger());
            }
            let cancelled = waited.waits.iter().any(WaitEntry::is_cancelled);
            if changed || cancelled || waited.next <= now {
                waited.look(inner, &mut self.sleeper, self.patient_until);
            }
            next = next.min(waited.next);
        }
        let moved: Vec<WaitEntry> = self.waits.values_mut().flat_map(|waited| waited.moved.drain(..)).collect();
        if !moved.is_empty() {
            next = 0;
        }
        moved.into_iter().for_each(|entry| self.await_it(entry));
        next = next.min(self.end_deadlocks(inner));
        self.waits.retain(|_, waited| !waited.waits.is_empty());
        if self.waits.is_empty() {
            self.sleeper.forget_processes();
        }
        let news = inner.reactor().lock().news;
        self.sleeper.expect(if news { 0 } else { self.waits.values().map(WaitedFor::ahead).min().unwrap_or(0) });
        if let Some(at) = self.tend(inner) {
            next = next.min(at);
        }
        next = next.min(leftovers::clear(inner, &mut self.leftovers));
        (next != u64::MAX).then_some(next)
    }

    /// Tends the store, some time after the first change. Returns when to, if that is still to come.
    fn tend(&mut self, inner: &Arc<Inner>) -> Option<u64> {
        let now = inner.commits.clock.boot_ms();
        let at = {
            let mut state = inner.reactor().lock();
            let at = state.dirty_since? + TEND_AFTER;
            state.dirty_since = state.dirty_since.filter(|_| now < at);
            at
        };
        if now < at {
            return Some(at);
        }
        inner.commits.store.tend();
        None
    }

    /// Enqueues the waits that have come, those for one lock together.
    fn take_incoming(&mut self, inner: &Arc<Inner>) {
        let incoming = std::mem::take(&mut inner.reactor().lock().incoming);
        let mut by_lock: HashMap<LockName, Vec<WaitEntry>> = HashMap::new();
        for entry in incoming {
            by_lock.entry(entry.name().clone()).or_default().push(entry);
        }
        for (name, entries) in by_lock {
            let (fresh, queued): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| !entry.is_queued());
            let (waiting, _) = ask_all(inner, &name, fresh, self.patient_until);
            // What was free is held by now, and nobody needs to watch it.
            queued.into_iter().chain(waiting).for_each(|entry| self.await_it(entry));
        }
    }

    fn await_it(&mut self, entry: WaitEntry) {
        let name = entry.name().clone();
        let waited = self.waits.entry(name.clone()).or_insert_with(|| WaitedFor::new(name));
        waited.next = 0;
        waited.waits.push(entry);
    }

    /// Renews what is due, and tells of what is lost. Returns when the next is due.
    fn tenures(&mut self, inner: &Arc<Inner>, changed: &[String], all: bool) -> u64 {
        let now = inner.commits.clock.boot_ms();
        let (mut due, mut next) = (Vec::new(), u64::MAX);
        {
            let mut state = inner.reactor().lock();
            let news = state.news;
            state.tenures.retain(|_, (tenure, at)| {
                let Some(tenure) = tenure.upgrade().filter(|tenure| !tenure.is_over()) else { return false };
                if *at <= now {
                    due.push((tenure, true));
                } else if news && (all || tenure.is_any_of(changed)) {
                    due.push((tenure, false));
                }
                true
            });
        }
        for (tenure, by_time) in due {
            let at = if by_time {
                renew(inner, &tenure, self.patient_until)
            } else {
                check(inner, &tenure, self.patient_until)
            };
            let mut state = inner.reactor().lock();
            match at {
                Some(at) if state.tenures.contains_key(&tenure.id) => {
                    state.tenures.insert(tenure.id.clone(), (Arc::downgrade(&tenure), at));
                }
                Some(_) => {}
                None => drop(state.tenures.remove(&tenure.id)),
            }
        }
        for (_, at) in inner.reactor().lock().tenures.values() {
            next = next.min(*at);
        }
        next
    }

    /// Ends waits that would never end, if they are the ones to give up. Returns when to look again.
    fn end_deadlocks(&mut self, inner: &Arc<Inner>) -> u64 {
        let begun = |world: &World| {
            world.detector.next(
                world.waits.values().flat_map(|waited| &waited.waits).map(|wait| wait.since),
                inner.commits.policy.poll_interval,
            )
        };
        let due = begun(self).unwrap_or(u64::MAX);
        if due > inner.commits.clock.boot_ms() {
            return due;
        }
        let (waits, leftovers) = (&self.waits, &self.leftovers);
        let own = |cycle: &Cycle| {
            // Of what is let go as soon as that gets through nobody waits for ever.
            let ends = cycle.ids().iter().any(|id| leftovers.iter().any(|left| left.ends(id)));
            !ends && waits.values().flat_map(|waited| &waited.waits).any(|wait| wait.id() == cycle.victim)
        };
        // What a server's refs are the watch has asked already.
        let known = self.watching && inner.commits.store.round_trip().is_some() && !self.unseen;
        self.unseen = false;
        for cycle in self.detector.look(inner, known, own) {
            for waited in self.waits.values_mut() {
                let Some(at) = waited.waits.iter().position(|wait| wait.id() == cycle.victim) else { continue };
                let message = format!(
                    "deadlock: {cycle}; this wait, which came last, was ended so that the others can go on: release what you hold, and try again"
                );
                waited.waits.remove(at).fail(inner, Error::new(ErrorCode::Deadlock, message));
            }
        }
        begun(self).unwrap_or(u64::MAX)
    }

    /// Watches the refs while somebody waits for one, or wants news of one.
    fn arm(&mut self, inner: &Arc<Inner>) {
        let wanted = !self.waits.is_empty() || {
            let mut state = inner.reactor().lock();
            state.news &= !state.tenures.is_empty();
            state.news
        };
        if wanted && !self.watching {
            match inner.commits.store.watch(inner.commits.names.locks()) {
                Ok(watch) => self.sleeper.watch(Some(watch)),
                Err(error) => tracing::debug!(%error, "refs are polled"),
            }
            // Armed, then read: what changed before is seen by this turn's look.
            self.waits.values_mut().for_each(|waited| waited.next = 0);
        } else if !wanted {
            self.sleeper.watch(None);
        }
        self.watching = wanted;
    }
}

/// Asks for waits of one lock, those for it alone together. Returns who waits on, and whether
/// somebody held its `.lock` file for too long.
fn ask_all(inner: &Arc<Inner>, name: &LockName, waits: Vec<WaitEntry>, patient_until: u64) -> (Vec<WaitEntry>, bool) {
    let (single, several): (Vec<_>, Vec<_>) = waits.into_iter().partition(WaitEntry::is_single);
    let requests = single.iter().map(WaitEntry::request).collect();
    let answers = inner.commits.submit_all(name, requests, &inner.actor(), patience(inner, patient_until));
    let mut answers: Vec<wait::Answer> =
        answers.into_iter().map(|answer| answer.map(|outcome| vec![outcome])).collect();
    answers.extend(several.iter().map(|wait| wait.ask(inner, true, Some(patience(inner, patient_until)))));
    let is_busy = |answer: &wait::Answer| answer.as_ref().is_err_and(|error| error.code() == ErrorCode::RepositoryBusy);
    let busy = answers.iter().any(is_busy);
    let waiting =
        single.into_iter().chain(several).zip(answers).filter_map(|(wait, answer)| match wait.hear(inner, answer) {
            Verdict::Waits(wait) => Some(wait),
            Verdict::Over => None,
        });
    (waiting.collect(), busy)
}

/// Renews one lease. Returns when to look again, or `None` once it is over.
fn renew(inner: &Arc<Inner>, tenure: &Arc<TenureState>, patient_until: u64) -> Option<u64> {
    let now = inner.commits.clock.boot_ms();
    let lost_at = tenure.lost_at(inner);
    if now >= lost_at {
        tenure.lose("its lease ran out before it could be renewed");
        return None;
    }
    if !tenure.renews || now >= tenure.renew_until {
        return Some(lost_at);
    }
    if tenure.is_still() {
        // A push renews it, or fails; the lease goes on meanwhile, and its end is looked at as ever.
        return Some(lost_at.min(now + (tenure.ttl() / 12).clamp(10, 1_000)));
    }
    let request = Request::Extend { tenure: tenure.request(), ttl: None, rebind: None };
    let patience = Some(patience(inner, patient_until));
    match tenure.submit(inner, &request, patience) {
        Ok(outcomes) if tenure.prolonged(&outcomes) => {
            tracing::debug!(lock = %tenure.name(), id = tenure.id, "renewed");
            Some(next_look(inner, tenure, inner.commits.clock.boot_ms()))
        }
        Ok(outcomes) if !matches!(outcomes[..], [.., Outcome::Refused(Refusal::Opaque(_))]) => {
            if !tenure.is_ending() {
                tenure.lose(TAKEN_AWAY);
                tenure.let_go(inner, patience);
            }
            None
        }
        failed => {
            tracing::warn!(lock = %tenure.name(), ?failed, "a lease could not be renewed; it will be tried again");
            Some(lost_at.min(inner.commits.clock.boot_ms() + (tenure.ttl() / 12).clamp(10, 1_000)))
        }
    }
}

/// Looks whether a tenure still stands in its record.
fn check(inner: &Arc<Inner>, tenure: &Arc<TenureState>, patient_until: u64) -> Option<u64> {
    let now = inner.commits.clock.boot_ms();
    let mut wanted = Wanted::default();
    for name in tenure.names() {
        match inner.commits.look(name, None) {
            Ok(Snapshot { state, .. }) => match state.held {
                Held::Record(record) if record.holder(&tenure.id).is_some() => wanted.count(&record, &tenure.id),
                // A record that can't be read for a moment may be read at the next renewal.
                Held::Opaque(_) => {}
                // Its own release looks like this too.
                Held::Record(_) | Held::Free if tenure.is_ending() => return None,
                Held::Record(_) | Held::Free => {
                    tenure.lose(TAKEN_AWAY);
                    tenure.let_go(inner, Some(patience(inner, patient_until)));
                    return None;
                }
            },
            Err(error) => tracing::debug!(lock = %name, %error, "a held lock could not be looked at"),
        }
    }
    tenure.tell_wanted(wanted);
    Some(next_look(inner, tenure, now))
}

impl WaitedFor {
    fn new(name: LockName) -> WaitedFor {
        WaitedFor { name, waits: Vec::new(), moved: Vec::new(), known: None, next: 0, busy: false }
    }

    /// How much later than at once this process acts on what every waiter notices.
    fn stagger(&self) -> u64 {
        STAGGER * self.ahead().min(20) as u64
    }

    /// How many are before every wait of this process.
    fn ahead(&self) -> usize {
        let Some(Held::Record(record)) = self.known.as_ref().map(|known| &known.state.held) else { return 0 };
        let own: HashSet<&str> = self.waits.iter().map(WaitEntry::id).collect();
        record.queue.iter().position(|waiter| own.contains(&*waiter.claim.id)).unwrap_or(0)
    }

    /// Reads the lock, and gives every wait what it means for it.
    fn look(&mut self, inner: &Arc<Inner>, sleeper: &mut Sleeper, patient_until: u64) {
        let before = self.known.as_ref().and_then(|known| known.lock);
        let read = inner
            .commits
            .look(&self.name, self.known.as_ref())
            .and_then(|snapshot| self.settle(inner, snapshot, patient_until));
        let clock = &inner.commits.clock;
        let status = match read {
            Ok(snapshot) => {
                if let Some(id) = snapshot.lock.filter(|_| before == snapshot.lock) {
                    // What is remembered isn't read again, so this is what notices that the record
                    // was pruned, and has the store write it again: its holder may be no gitlock.
                    let _ = inner.commits.store.object(&id);
                }
                self.known = Some(snapshot);
                self.known.as_ref().map(|known| LockStatus::of(inner, known))
            }
            Err(error) => {
                for wait in std::mem::take(&mut self.waits) {
                    if let Verdict::Waits(wait) = wait.stumble(inner, Error::new(error.code(), error.to_string())) {
                        self.waits.push(wait);
                    }
                }
                None
            }
        };
        let now = clock.boot_ms();
        let over = |wait: &WaitEntry| wait.is_cancelled() || wait.until().is_some_and(|until| until <= now);
        let (over, waits): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waits).into_iter().partition(over);
        self.waits = waits;
        for wait in over {
            // Nothing waits on after this, so whether it gave up or was served is all the same.
            let _ = wait.give_up(inner, status.as_ref());
        }
        if let Some(status) = &status {
            let changed = before.is_none() || before != self.known.as_ref().and_then(|known| known.lock);
            self.waits.iter_mut().for_each(|wait| wait.tell_progress(status, changed));
            sleeper.watch_processes(status, now);
        }
        self.next = self.next_look(inner, status.as_ref(), now);
        if status.as_ref().is_some_and(|status| self.has_ended_since(status)) {
            self.next = self.next.min(now + 1);
        }
        // A killed group takes a moment to be gone, and then nothing tells of it: look again, less and less often.
        if let Some(since) = status.as_ref().and_then(|status| sleeper.lingers_since(status)) {
            self.next = self.next.min(now + now.saturating_sub(since).max(2));
        }
    }

    /// Whether somebody has ended since the reading that found nothing to do: the status knows of
    /// deaths that are newer, and shows what the lock will be.
    fn has_ended_since(&self, status: &LockStatus) -> bool {
        let Some(Held::Record(record)) = self.known.as_ref().map(|known| &known.state.held) else { return false };
        let still = |id: &str| status.everybody().any(|held| held.holder.claim.id == id);
        record.holders.iter().any(|holder| !still(&holder.claim.id))
    }

    /// Ends what has ended by itself, claims what was granted, and takes lost places again, until
    /// one reading has nothing left to do.
    fn settle(&mut self, inner: &Arc<Inner>, mut snapshot: Snapshot, patient_until: u64) -> Result<Snapshot> {
        for _ in 0..100 {
            let (record, opaque) = match &snapshot.state.held {
                Held::Record(record) => (record.clone(), false),
                Held::Free => (Default::default(), false),
                Held::Opaque(_) => (Default::default(), true),
            };
            let overdue = inner.commits.has_overdue(&snapshot);
            let now = inner.commits.clock.boot_ms();
            let (mut asking, mut waits) = wait::sort(std::mem::take(&mut self.waits), &record, now);
            if asking.is_empty() && !overdue {
                self.busy = false;
                self.waits = waits;
                return Ok(snapshot);
            }
            if asking.is_empty() && !waits.is_empty() {
                // Whoever asks is evidently there, so its queue isn't taken for dead.
                asking.push(waits.remove(0));
            }
            asking.iter_mut().for_each(|wait| wait.prepare(&record));
            let (waiting, busy) = ask_all(inner, &self.name, asking, patient_until);
            self.busy = busy;
            let (moved, here): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|wait| *wait.name() != self.name);
            self.moved.extend(moved);
            waits.extend(here);
            self.waits = waits;
            snapshot = inner.commits.look(&snapshot.state.name, Some(&snapshot))?;
            if opaque || self.busy {
                // Nothing more to be had from it for now; whoever waits on was told to.
                return Ok(snapshot);
            }
        }
        Ok(snapshot)
    }

    fn next_look(&self, inner: &Inner, status: Option<&LockStatus>, now: u64) -> u64 {
        let again = if self.busy { BUSY_AGAIN } else { u64::MAX };
        let mut next = now + again.min(inner.look_interval);
        // One millisecond more, so that the lease has ended by then.
        let ends = status
            .iter()
            .flat_map(|status| status.everybody())
            .map(|holder| now + crate::clock::millis(holder.remaining) + 1);
        if let Some(end) = ends.min() {
            next = next.min(end + self.stagger());
        }
        let renewals = self.waits.iter().filter_map(WaitEntry::renew_at);
        self.waits.iter().filter_map(WaitEntry::until).chain(renewals).fold(next, u64::min)
    }
}
