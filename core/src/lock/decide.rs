//! What somebody may ask for, and the one function that answers.

use crate::name::LockName;

use super::{
    convert::Conversion,
    expiry::{Facts, Now, Policy},
    fault::Fault,
    mode::Mode,
    reconcile::Reconciliation,
    record::{BootTime, Bound, Claim, Holder, ProcessStamp, Record},
    work::Work,
};

/// What is known of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockState {
    /// Which lock.
    pub name: LockName,
    /// What its ref says.
    pub held: Held,
    /// What the newest entry of its journal says.
    pub journal: JournalTip,
}

/// What a lock's ref says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// There is no ref.
    Free,
    /// Somebody holds, and this is who.
    Record(Record),
    /// Somebody holds, and the record doesn't tell who.
    Opaque(Opaque),
}

/// Why a ref that exists says nothing that may be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// Its object is no record: why not.
    Corrupt(String),
    /// Its record is of this newer version.
    TooNew(u64),
    /// Its object is not in the repository.
    Missing {
        /// For how long the ref has been seen like that, in milliseconds of the reader's clock.
        unchanged: Option<u64>,
    },
    /// Another tool's ref is in the way: which.
    Foreign(String),
}

/// What the newest entry of a journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalTip {
    /// The ids of the tenures that it ends.
    pub ended: Vec<String>,
    /// The highest token that the lock ever had, as far as the journal knows.
    pub highest_token: u64,
}

/// One request, for one of the locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The lock: an index into the states.
    pub lock: usize,
    /// What is wanted.
    pub request: Request,
}

/// What somebody may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To hold the lock, or to queue for it. Asked again under the same id, it claims what was
    /// granted meanwhile; an id is never granted twice.
    Acquire {
        /// Who asks.
        claim: Claim,
        /// Higher goes first.
        priority: i32,
        /// How long it may queue; `None`: not at all.
        wait: Option<Wait>,
        /// The place it had before, if it lost it through no fault of its own.
        place: Option<Place>,
        /// Whether this id may stand in the record already, or may have: it was asked for before,
        /// and the answer was that it queues, or was lost.
        asked_before: bool,
    },
    /// To hold it longer.
    Extend {
        /// Whose tenure is meant.
        tenure: Tenure,
        /// The length from now in milliseconds; `None`: the tenure's own ttl.
        ttl: Option<u64>,
        /// The process that holds it from now on, if that is another one.
        rebind: Option<Rebind>,
    },
    /// To end a tenure of one's own.
    Release {
        /// Whose tenure is meant.
        tenure: Tenure,
    },
    /// To turn a tenure into one of another mode.
    Convert(Conversion),
    /// To neither wait nor hold under any of these ids.
    Cancel {
        /// Every id under which the canceller ever asked.
        ids: Vec<String>,
    },
    /// To end tenures whoever holds them.
    Break {
        /// The tenure; `None`: all of them.
        id: Option<String>,
        /// Why, for the journal.
        reason: Option<String>,
    },
    /// To give a tenure that was just granted a token above the journal's, because the journal
    /// moved between the look at it and the grant.
    Mend {
        /// The tenure.
        id: String,
    },
    /// To give a tenure at least this token, above what was granted elsewhere under the same name.
    Raise {
        /// Whose tenure is meant.
        tenure: Tenure,
        /// The token.
        token: u64,
    },
    /// To end an intent that protects nothing any more, unless somebody has touched it since it was seen.
    Lift {
        /// The tenure.
        id: String,
        /// Its `timeout` as it was seen: whoever does anything below it raises that first.
        timeout: u64,
    },
    /// To agree with another repository.
    Reconcile(Reconciliation),
    /// To end what has ended, and drop who is gone.
    Reap,
}

/// A tenure and the proof of the right to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Its id; `None`: the first that the proof fits.
    pub id: Option<String>,
    /// The fingerprint, or the secret behind a hashed one.
    pub proof: String,
}

/// How long a newcomer queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Until this wall-clock millisecond, and the same moment on the boot clock; `None`: for ever.
    pub until: Option<(u64, BootTime)>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The rank.
    pub rank: i64,
    /// The arrival.
    pub since: u64,
}

/// The process that takes a tenure over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebind {
    /// What ends the tenure from now on.
    pub bound: Bound,
    /// The process.
    pub process: Option<ProcessStamp>,
    /// Its pid.
    pub pid: u32,
    /// Its host.
    pub hostname: String,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds, and this is its tenure.
    Granted(Holder),
    /// It queues.
    Queued {
        /// How many wait before it.
        ahead: usize,
        /// Its place.
        place: Place,
    },
    /// This id was asked for before, and neither waits nor holds any more; ask again under a fresh one.
    Gone,
    /// The tenure as it is now.
    Extended(Holder),
    /// The tenure in its new mode.
    Converted(Holder),
    /// The tenure that was ended.
    Released(Holder),
    /// It neither waits nor holds.
    Cancelled {
        /// Whether there was anything to take away.
        found: bool,
    },
    /// The tenures that were ended by force; empty for a record that couldn't be read.
    Broken(Vec<Holder>),
    /// It agrees.
    Reconciled,
    /// What had ended is ended.
    Reaped,
    /// No, and why.
    Refused(Refusal),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody holds it, or somebody else is first.
    Held {
        /// Who holds: the one whose lease ends last.
        holder: Box<Holder>,
        /// How many wait.
        waiting: usize,
    },
    /// The queue takes no more.
    QueueFull,
    /// No such tenure: it was released, it ended, or it was taken away.
    NotHeld,
    /// Somebody else's tenure.
    NotOwner(Box<Holder>),
    /// Others take the lock as one of another number of slots.
    SlotsDiffer {
        /// Of how many.
        theirs: u32,
    },
    /// Nobody holds the lock itself, and this is who holds something below it.
    HeldBelow(Box<Holder>),
    /// This one, who waits to upgrade, would wait for the caller, and the caller for it.
    Deadlock(Box<Holder>),
    /// The record says nothing that may be acted on.
    Opaque(Opaque),
    /// No token is left above the highest.
    TokensExhausted,
}

/// Something to write. Edits are in an order in which any prefix is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Add these to the lock's journal.
    Journal {
        /// The lock: an index into the states.
        lock: usize,
        /// What ended, oldest first.
        entries: Vec<Ended>,
        /// Tenures that the tip before this one ended and that still stand in the record. The new
        /// tip has to name them too, or a crash before the next edit would bring them back.
        finished: Vec<String>,
    },
    /// Write this record.
    Put {
        /// The lock: an index into the states.
        lock: usize,
        /// The record.
        record: Record,
    },
    /// Delete the ref.
    Remove {
        /// The lock: an index into the states.
        lock: usize,
    },
}

/// Why a tenure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its holder released it.
    Released,
    /// Its lease ended.
    Expired,
    /// Its process died.
    OwnerDied,
    /// Somebody ended it by force.
    Broken,
    /// It was granted to somebody who had stopped waiting.
    Cancelled,
    /// Another repository, with which this one was brought together, had ended it.
    Elsewhere,
    /// It stood against another tenure of another repository, and that one was kept.
    Overruled,
    /// Not an end: a tenure that was called ended is alive in another repository.
    GoesOn,
}

impl Cause {
    /// The words of the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Released => "released",
            Cause::Expired => "expired",
            Cause::OwnerDied => "owner died",
            Cause::Broken => "broken",
            Cause::Cancelled => "cancelled",
            Cause::Elsewhere => "ended elsewhere",
            Cause::Overruled => "overruled",
            Cause::GoesOn => "goes on",
        }
    }

    /// The cause that these words name.
    pub fn parse(words: &str) -> Option<Cause> {
        use Cause::{Broken, Cancelled, Elsewhere, Expired, GoesOn, Overruled, OwnerDied, Released};
        let all = [Released, Expired, OwnerDied, Broken, Cancelled, Elsewhere, Overruled, GoesOn];
        all.into_iter().find(|cause| cause.as_str() == words)
    }
}

/// A tenure that ended: what the journal will say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The tenure; `None` if its record couldn't be read.
    pub holder: Option<Holder>,
    /// Why it ended.
    pub cause: Cause,
    /// When, in wall-clock milliseconds.
    pub at: u64,
    /// In whose words, if somebody gave any.
    pub reason: Option<String>,
    /// The highest token the lock ever had, as far as is known.
    pub highest_token: u64,
}

impl Ended {
    /// Whether it tells of the tenure with this id.
    pub fn is_of(&self, id: &str) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.claim.id == id)
    }
}

/// Something that an operator would ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A tenure began.
    Granted {
        /// Which lock.
        lock: usize,
        /// Its id.
        id: String,
        /// Its token.
        token: Option<u64>,
        /// Whether it had to queue.
        from_queue: bool,
    },
    /// A tenure has another mode.
    Converted {
        /// Which lock.
        lock: usize,
        /// Its id.
        id: String,
        /// The mode.
        mode: Mode,
        /// Its token from now on.
        token: Option<u64>,
    },
    /// A tenure ended.
    Ended {
        /// Which lock.
        lock: usize,
        /// Its id; `None` if its record couldn't be read.
        id: Option<String>,
        /// Why.
        cause: Cause,
    },
    /// A waiter came.
    Queued {
        /// Which lock.
        lock: usize,
        /// Its id.
        id: String,
        /// How many wait before it.
        ahead: usize,
    },
    /// A waiter was taken out: it was late, dead, or cancelled.
    Dropped {
        /// Which lock.
        lock: usize,
        /// Its id.
        id: String,
        /// Why.
        why: &'static str,
    },
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What to write, in this order; nothing if nothing changes.
    pub edits: Vec<Edit>,
    /// Whether that closes leases that are over and no more: there are no answers yet, and once the edits are written
    /// everything has to be decided again.
    pub closes: bool,
    /// One answer for each call, true once the edits are written.
    pub outcomes: Vec<Outcome>,
    /// What happened.
    pub events: Vec<Event>,
    /// In how many milliseconds something ends by itself, if nobody does anything.
    pub next_deadline: Option<u64>,
}

/// What the rules need besides the locks: the time, what was found out, and the numbers.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The reader's clocks.
    pub now: &'a Now,
    /// What the reader found out about holders and waiters.
    pub facts: &'a Facts,
    /// The numbers to go by.
    pub policy: &'a Policy,
}

/// Decides: the only place where anything about locks is decided.
///
/// Calls are answered in their order, each on what the ones before it leave. Everything that has
/// ended by itself is ended first, whoever asks for what; and before that [closed](Decision::closes),
/// by a decision of its own.
///
/// # Panics
/// If a call names a lock that isn't among the states.
pub fn decide(states: &[LockState], calls: &[Call], context: Context<'_>) -> Decision {
    let mut works: Vec<Work<'_>> =
        states.iter().enumerate().map(|(lock, state)| Work::new(lock, state, context)).collect();
    let asking = Asking::of(calls);
    if close(&mut works, &asking) {
        return Decision { closes: true, ..finish(works, Vec::new()) };
    }
    works.iter_mut().for_each(|work| work.settle(&asking));
    let outcomes = calls.iter().map(|call| works[call.lock].answer(&call.request)).collect();
    finish(works, outcomes)
}

/// Closes what is over. Returns whether there was any; only then anything is changed.
fn close(works: &mut [Work<'_>], asking: &Asking<'_>) -> bool {
    let mut any = false;
    for work in works {
        any |= work.close(asking);
    }
    any
}

fn finish(works: Vec<Work<'_>>, outcomes: Vec<Outcome>) -> Decision {
    let mut decision = Decision { outcomes, ..Decision::default() };
    for work in works {
        let deadline = work.next_deadline();
        decision.next_deadline = [decision.next_deadline, deadline].into_iter().flatten().min();
        work.finish(&mut decision);
    }
    decision
}

/// Decides about calls that are one: an acquire on a path or of a set, and what becomes of it later.
///
/// They are answered in their order, until one has to wait; what was granted before it is kept. If
/// one is refused, or has to ask again, none is carried out. But what is to end ends, whatever has
/// ended before. The edits are in the order of the calls: who acquires or extends names ancestors
/// first, and who ends names them last, so that a crash in between locks too much and never too little.
///
/// # Panics
/// If a call names a lock that isn't among the states.
pub fn decide_together(states: &[LockState], calls: &[Call], context: Context<'_>) -> Decision {
    let asking = Asking::of(calls);
    let mut works: Vec<Work<'_>> =
        states.iter().enumerate().map(|(lock, state)| Work::new(lock, state, context)).collect();
    if close(&mut works, &asking) {
        return Decision { closes: true, ..finish(works, Vec::new()) };
    }
    works.iter_mut().for_each(|work| work.settle(&asking));
    let settled = works.clone();
    let mut outcomes = Vec::with_capacity(calls.len());
    for call in calls {
        let outcome = works[call.lock].answer(&call.request);
        let ends = matches!(call.request, Request::Release { .. } | Request::Cancel { .. } | Request::Break { .. });
        let goes_on = ends || !matches!(outcome, Outcome::Queued { .. } | Outcome::Gone | Outcome::Refused(_));
        if !goes_on && !matches!(outcome, Outcome::Queued { .. }) && !context.policy.faults.has(Fault::KeepHalfASet) {
            works.clone_from(&settled);
        }
        outcomes.push(outcome);
        if !goes_on {
            break;
        }
    }
    let turn = |lock: usize| calls.iter().position(|call| call.lock == lock);
    works.sort_by_key(|work| turn(work.lock));
    if context.policy.faults.has(Fault::ReleaseAncestorsFirst) {
        works.sort_by_key(|work| work.lock);
    }
    if context.policy.faults.has(Fault::AcquireAncestorsLast)
        && matches!(calls.first(), Some(Call { request: Request::Acquire { .. }, .. }))
    {
        works.reverse();
    }
    finish(works, outcomes)
}

/// The lock as it is to this reader: without what has ended by itself. Nothing is written.
pub fn view(state: &LockState, context: Context<'_>) -> Record {
    let mut work = Work::new(0, state, context);
    work.settle(&Asking::default());
    work.into_record()
}

/// Who is evidently there, whatever the clocks say.
#[derive(Default)]
pub(super) struct Asking<'a> {
    /// Those who ask.
    pub(super) ids: Vec<&'a str>,
    /// Those of them who don't wait any more.
    pub(super) leaving: Vec<&'a str>,
    /// Tenures of another repository, which says that they live.
    pub(super) vouched: Vec<&'a str>,
}

impl<'a> Asking<'a> {
    fn of(calls: &'a [Call]) -> Asking<'a> {
        let requests = || calls.iter().map(|call| &call.request);
        Asking {
            ids: requests().flat_map(Request::ids).collect(),
            leaving: requests().flat_map(Request::leaving).collect(),
            vouched: requests().flat_map(Request::vouched).collect(),
        }
    }
}

impl Request {
    /// The ids under which somebody asks who is evidently there.
    fn ids(&self) -> Vec<&str> {
        match self {
            Request::Acquire { claim, .. } => vec![&claim.id],
            Request::Extend { tenure, .. } | Request::Release { tenure } | Request::Raise { tenure, .. } => {
                tenure.id.as_deref().into_iter().collect()
            }
            Request::Convert(Conversion { tenure, id, .. }) => {
                tenure.id.as_deref().into_iter().chain([&**id]).collect()
            }
            Request::Cancel { ids } => ids.iter().map(String::as_str).collect(),
            Request::Mend { id } => vec![id],
            Request::Break { .. } | Request::Lift { .. } | Request::Reconcile(_) | Request::Reap => Vec::new(),
        }
    }

    /// The ids that wait no more.
    fn leaving(&self) -> impl Iterator<Item = &str> {
        let ids = match self {
            Request::Cancel { ids } => &ids[..],
            _ => &[],
        };
        ids.iter().map(String::as_str)
    }

    /// The ids of tenures that live, whatever is known of them here.
    fn vouched(&self) -> impl Iterator<Item = &str> {
        let wanted = match self {
            Request::Reconcile(wanted) => Some(wanted),
            _ => None,
        };
        wanted.into_iter().flat_map(Reconciliation::vouched)
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
