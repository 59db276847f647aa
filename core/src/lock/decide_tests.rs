use super::{
    super::{
        expiry::{Expiry, Fact, Liveness},
        fingerprint,
        mode::Mode,
        queue::PRIORITY_STEP,
        record::{MAX_NUMBER, MAX_WAITERS, Waiter},
    },
    *,
};

#[path = "decide_end_tests.rs"]
mod ends;
#[path = "decide_queue_tests.rs"]
mod queue_order;
#[path = "decide_tree_tests.rs"]
mod tree;

const TTL: u64 = 30_000;
const WINDOW: u64 = 2_000;
const SKEW: u64 = 1_000;

/// One lock, one reader's clocks, and everything that is decided carried out at once.
struct Lab {
    state: LockState,
    now: Now,
    facts: Facts,
    policy: Policy,
    events: Vec<Event>,
    entries: Vec<Ended>,
    next_deadline: Option<u64>,
}

impl Lab {
    fn new() -> Lab {
        let now = Now { wall: 1_700_000_000_000, wall_micros: 0, boot: 500_000, boot_id: "boot".into() };
        Lab {
            state: free("lock"),
            now,
            facts: Facts::default(),
            policy: Policy::default(),
            events: Vec::new(),
            entries: Vec::new(),
            next_deadline: None,
        }
    }

    fn observed() -> Lab {
        let mut lab = Lab::new();
        lab.policy.expiry = Expiry::Observed;
        lab
    }

    fn context(&self) -> Context<'_> {
        Context { now: &self.now, facts: &self.facts, policy: &self.policy }
    }

    /// Decides without carrying it out.
    fn decide(&self, requests: &[Request]) -> Decision {
        let calls: Vec<Call> = requests.iter().map(|request| Call { lock: 0, request: request.clone() }).collect();
        decide(std::slice::from_ref(&self.state), &calls, self.context())
    }

    fn ask_all(&mut self, requests: &[Request]) -> Vec<Outcome> {
        self.events = if self.decide(requests).closes { self.close(requests) } else { Vec::new() };
        let decision = self.decide(requests);
        assert!(!decision.closes, "what was closed is closed");
        self.apply(&decision.edits, usize::MAX);
        self.events.extend(decision.events);
        self.next_deadline = decision.next_deadline;
        decision.outcomes
    }

    fn ask(&mut self, request: Request) -> Outcome {
        self.ask_all(&[request]).remove(0)
    }

    /// Closes the leases that are over, and no more. Returns what that is told of.
    fn close(&mut self, requests: &[Request]) -> Vec<Event> {
        let decision = self.decide(requests);
        assert!(decision.closes && decision.outcomes.is_empty(), "{decision:?}");
        assert!(matches!(&decision.edits[..], [Edit::Put { .. }]), "the record alone: {decision:?}");
        self.apply(&decision.edits, usize::MAX);
        decision.events
    }

    /// Carries out the first edits, as a crash would leave them.
    fn apply(&mut self, edits: &[Edit], first: usize) {
        for edit in edits.iter().take(first) {
            match edit {
                Edit::Journal { entries, finished, .. } => {
                    let ids = entries.iter().filter_map(|entry| Some(entry.holder.as_ref()?.claim.id.clone()));
                    self.state.journal.ended = ids.chain(finished.iter().cloned()).collect();
                    let highest = entries.iter().map(|entry| entry.highest_token);
                    let highest = highest.chain([self.state.journal.highest_token]).max().unwrap();
                    self.state.journal.highest_token = highest;
                    self.entries.extend(entries.iter().cloned());
                }
                Edit::Put { record, .. } => {
                    assert!(!record.holders.is_empty(), "a record without a holder: {record:?}");
                    self.state.held = Held::Record(record.clone());
                }
                Edit::Remove { .. } => self.state.held = Held::Free,
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now.wall += millis;
        self.now.boot += millis;
    }

    fn reboot(&mut self) {
        self.now.boot_id = "next boot".into();
        self.now.boot = 10;
    }

    fn dies(&mut self, id: &str) {
        self.facts.0.insert(id.to_owned(), Fact { liveness: Liveness::Dead, unchanged: None });
    }

    fn unchanged(&mut self, id: &str, millis: u64) {
        self.facts.0.insert(id.to_owned(), Fact { liveness: Liveness::Unknown, unchanged: Some(millis) });
    }

    fn record(&self) -> Record {
        match &self.state.held {
            Held::Record(record) => record.clone(),
            Held::Free => Record::default(),
            Held::Opaque(opaque) => panic!("{opaque:?}"),
        }
    }

    fn holders(&self) -> Vec<String> {
        self.record().holders.into_iter().map(|holder| holder.claim.id).collect()
    }

    fn waiters(&self) -> Vec<String> {
        self.record().queue.into_iter().map(|waiter| waiter.claim.id).collect()
    }

    fn holder(&self, id: &str) -> Holder {
        self.record().holder(id).unwrap_or_else(|| panic!("{id} doesn't hold: {:?}", self.record())).clone()
    }

    fn left(&self, id: &str) -> u64 {
        self.holder(id).end.unwrap().at - self.now.boot
    }

    fn causes(&self) -> Vec<(&str, &str)> {
        let entry = |entry: &'_ Ended| entry.cause.as_str();
        self.entries.iter().map(|e| (e.holder.as_ref().map_or("?", |holder| &*holder.claim.id), entry(e))).collect()
    }
}

fn free(name: &str) -> LockState {
    LockState { name: LockName::new(name).unwrap(), held: Held::Free, journal: JournalTip::default() }
}

fn claim(id: &str, mode: Mode) -> Claim {
    Claim {
        id: id.to_owned(),
        owner: format!("owner of {id}"),
        fingerprint: proof(id),
        mode,
        ttl: TTL,
        bound: Bound::Process,
        process: Some(ProcessStamp {
            boot: "boot".to_owned(),
            pidns: 1,
            start: Some(1),
            group: None,
            extra: Default::default(),
        }),
        pid: 7,
        hostname: "host".to_owned(),
        reason: None,
        slots: None,
        upgrades: None,
        extra: Default::default(),
    }
}

fn proof(id: &str) -> String {
    format!("print of {id}")
}

fn asks(claim: Claim, priority: i32, wait: Option<Wait>) -> Request {
    Request::Acquire { claim, priority, wait, place: None, asked_before: false }
}

/// The same, from somebody who was told before that it queues.
fn again(request: Request) -> Request {
    match request {
        Request::Acquire { claim, priority, wait, place, .. } => {
            Request::Acquire { claim, priority, wait, place, asked_before: true }
        }
        other => other,
    }
}

/// Waits for ever.
fn exclusive(id: &str) -> Request {
    asks(claim(id, Mode::Exclusive), 0, Some(Wait::default()))
}

fn shared(id: &str) -> Request {
    asks(claim(id, Mode::Shared), 0, Some(Wait::default()))
}

fn with_priority(id: &str, priority: i32) -> Request {
    asks(claim(id, Mode::Exclusive), priority, Some(Wait::default()))
}

fn attempt(id: &str, mode: Mode) -> Request {
    asks(claim(id, mode), 0, None)
}

fn tenure(id: &str) -> Tenure {
    Tenure { id: Some(id.to_owned()), proof: proof(id) }
}

fn release(id: &str) -> Request {
    Request::Release { tenure: tenure(id) }
}

fn extend(id: &str, ttl: u64) -> Request {
    Request::Extend { tenure: tenure(id), ttl: Some(ttl), rebind: None }
}

fn cancel(id: &str) -> Request {
    Request::Cancel { ids: vec![id.to_owned()] }
}

fn broken(id: Option<&str>) -> Request {
    Request::Break { id: id.map(str::to_owned), reason: Some("in the way".to_owned()) }
}

#[track_caller]
fn granted(outcome: Outcome) -> Holder {
    match outcome {
        Outcome::Granted(holder) => holder,
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
fn queued(outcome: Outcome) -> (usize, Place) {
    match outcome {
        Outcome::Queued { ahead, place } => (ahead, place),
        other => panic!("not queued: {other:?}"),
    }
}

fn is_held(outcome: &Outcome, by: &str, behind: usize) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Held { holder, waiting })
        if holder.claim.id == by && *waiting == behind)
}

// ------------------------------------------------------------------ grants and modes

#[test]
fn a_free_lock_is_granted_for_its_ttl() {
    let mut lab = Lab::new();
    let holder = granted(lab.ask(attempt("a", Mode::Exclusive)));
    assert_eq!((holder.acquired_at, holder.timeout, holder.waited), (lab.now.wall, TTL, 0));
    assert_eq!(holder.end, Some(BootTime { boot: "boot".to_owned(), at: lab.now.boot + TTL }));
    assert_eq!(lab.holder("a"), holder, "the answer is what is written");
    let told = Event::Granted { lock: 0, id: "a".to_owned(), token: holder.token, from_queue: false };
    assert_eq!((lab.events.clone(), lab.next_deadline), (vec![told], Some(TTL)));
}

#[test]
fn exclusive_stands_alone_and_shared_beside_shared() {
    for (first, second, both) in [
        (Mode::Exclusive, Mode::Exclusive, false),
        (Mode::Exclusive, Mode::Shared, false),
        (Mode::Shared, Mode::Exclusive, false),
        (Mode::Shared, Mode::Shared, true),
    ] {
        let mut lab = Lab::new();
        granted(lab.ask(attempt("a", first)));
        let outcome = lab.ask(attempt("b", second));
        assert_eq!(matches!(outcome, Outcome::Granted(_)), both, "{second} beside {first}: {outcome:?}");
        assert!(both || is_held(&outcome, "a", 0), "{outcome:?}");
        assert_eq!(lab.holders().len(), 1 + usize::from(both));
    }
}

#[test]
fn a_refused_attempt_writes_nothing() {
    let mut lab = Lab::new();
    lab.ask(attempt("a", Mode::Exclusive));
    assert_eq!(lab.decide(&[attempt("b", Mode::Exclusive)]).edits, []);
    assert_eq!(lab.decide(&[Request::Reap]).edits, [], "nor does a look at a lock in order");
}

#[test]
fn asked_again_under_the_same_id_it_is_the_same_tenure() {
    let mut lab = Lab::new();
    let first = granted(lab.ask(exclusive("a")));
    lab.pass(5_000);
    let again = granted(lab.ask(exclusive("a")));
    assert_eq!((again.token, again.acquired_at), (first.token, first.acquired_at));
    assert_eq!((lab.left("a"), again.ends_at(), lab.holders().len()), (TTL, lab.now.wall + TTL, 1));
    queued(lab.ask(exclusive("b")));
    assert_eq!(lab.decide(&[exclusive("b")]).edits, [], "a waiter that asks again changes nothing");
}

// ------------------------------------------------------------------ tokens

#[test]
fn the_next_token_is_above_the_record_the_journal_and_the_clock() {
    let token = |lab: &mut Lab, id: &str| granted(lab.ask(shared(id))).token.unwrap();
    let mut lab = Lab::new();
    lab.now.wall_micros = 1_000;
    assert_eq!(token(&mut lab, "a"), 1_000, "the clock");
    lab.now.wall_micros = 10;
    assert_eq!(token(&mut lab, "b"), 1_001, "the record");
    lab.state.journal.highest_token = 5_000;
    assert_eq!(token(&mut lab, "c"), 5_001, "the journal");
    lab.ask(broken(None));
    assert_eq!(lab.state.journal.highest_token, 5_001);
    assert_eq!(token(&mut lab, "d"), 5_002, "across an end");
    lab.state.held = Held::Free;
    lab.now.wall_micros = 9_000;
    assert_eq!(token(&mut lab, "e"), 9_000, "and a lost record");
}

#[test]
fn a_tenure_s_token_can_be_raised_and_never_lowered() {
    let mut lab = Lab::new();
    let raise = |id: &str, token| Request::Raise { tenure: tenure(id), token };
    let before = granted(lab.ask(exclusive("a")));
    let first = before.token.unwrap();
    let Outcome::Extended(raised) = lab.ask(raise("a", first + 10)) else { panic!() };
    assert_eq!((raised.token, raised.timeout), (Some(first + 10), before.timeout));
    assert_eq!(lab.decide(&[raise("a", first)]).edits, [], "it isn't lowered");
    assert!(matches!(lab.ask(raise("a", MAX_NUMBER)), Outcome::Refused(Refusal::TokensExhausted)));
    assert_eq!(lab.ask(raise("b", 1)), Outcome::Refused(Refusal::NotHeld));
    queued(lab.ask(exclusive("b")));
    let both = lab.ask_all(&[raise("a", first + 20), release("a")]);
    assert!(matches!(both[1], Outcome::Released(_)));
    assert_eq!(lab.state.journal.highest_token, first + 20, "the journal tells the raised one");
    assert!(lab.holder("b").token > Some(first + 20), "and what is granted next is above it");
}

#[test]
fn waiters_granted_together_have_tokens_of_their_own() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), shared("b"), shared("c"), shared("d")]);
    lab.ask(release("a"));
    let tokens: Vec<u64> = lab.record().holders.iter().map(|holder| holder.token.unwrap()).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
}

#[test]
fn when_no_token_is_left_nobody_is_granted_one_twice() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b")]);
    let mut record = lab.record();
    record.holders[0].token = Some(MAX_NUMBER);
    lab.state.held = Held::Record(record);
    lab.ask(release("a"));
    assert_eq!((lab.holders().len(), lab.waiters().len()), (0, 0), "the waiters ask again");
    assert_eq!(lab.ask(exclusive("b")), Outcome::Refused(Refusal::TokensExhausted), "and are told why");
}

// ------------------------------------------------------------------ what others wrote

fn legacy(exclusive: bool, at: u64) -> Holder {
    let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
    let claim = Claim { bound: Bound::Lease, process: None, ttl: 500, ..claim("old", mode) };
    Holder { claim, acquired_at: at, timeout: 500, token: None, end: None, waited: 0, slot: None, priority: 0 }
}

#[test]
fn a_holder_of_seven_fields_is_honoured_to_its_end() {
    let mut lab = Lab::new();
    lab.state.held = Held::Record(Record { holders: vec![legacy(true, lab.now.wall)], queue: Vec::new() });
    lab.dies("old");
    assert_eq!(queued(lab.ask(exclusive("b"))).0, 0);
    lab.pass(500 + SKEW - 1);
    assert_eq!(lab.holders(), ["old"]);
    assert_eq!(lab.next_deadline, Some(500 + SKEW));
    lab.pass(1);
    let holder = granted(lab.ask(exclusive("b")));
    assert_eq!((lab.causes(), holder.token), (vec![("old", "expired")], Some(1)));
}

#[test]
fn a_holder_of_seven_fields_is_released_by_its_fingerprint() {
    let mut lab = Lab::new();
    lab.state.held = Held::Record(Record { holders: vec![legacy(false, lab.now.wall)], queue: Vec::new() });
    granted(lab.ask(shared("b")));
    assert!(matches!(
        lab.ask(Request::Release { tenure: Tenure { id: None, proof: proof("old") } }),
        Outcome::Released(_)
    ));
    assert_eq!(lab.holders(), ["b"]);
}

#[test]
fn nonsense_in_a_record_overflows_nothing() {
    let mut lab = Lab::new();
    let mut absurd = legacy(false, MAX_NUMBER);
    (absurd.timeout, absurd.claim.ttl) = (MAX_NUMBER, MAX_NUMBER);
    let waiter = Waiter {
        claim: Claim { ttl: MAX_NUMBER, ..claim("w", Mode::Exclusive) },
        priority: i32::MIN,
        rank: i64::MIN,
        since: MAX_NUMBER,
        until: Some(MAX_NUMBER),
        end: None,
    };
    lab.state.held = Held::Record(Record { holders: vec![absurd], queue: vec![waiter] });
    lab.ask(Request::Extend { tenure: Tenure { id: None, proof: proof("old") }, ttl: None, rebind: None });
    lab.ask_all(&[exclusive("w"), exclusive("x")]);
    lab.ask(Request::Release { tenure: Tenure { id: None, proof: proof("old") } });
    granted(lab.ask(asks(Claim { ttl: MAX_NUMBER, ..claim("w", Mode::Exclusive) }, 0, None)));
    let bytes = super::super::codec::encode(&lab.record(), "rev").unwrap();
    assert_eq!(super::super::codec::decode(&bytes).map(|read| read.holders.len()), Ok(1), "and can be read again");
}

#[test]
fn what_cannot_be_read_is_never_free() {
    let all = [
        Opaque::Corrupt("it is a tree".to_owned()),
        Opaque::TooNew(2),
        Opaque::Missing { unchanged: None },
        Opaque::Missing { unchanged: Some(Policy::default().missing_object_hold - 1) },
        Opaque::Foreign("refs/gitvan/locks/a/b".to_owned()),
    ];
    for opaque in all {
        let mut lab = Lab::new();
        lab.state.held = Held::Opaque(opaque.clone());
        let refused = Outcome::Refused(Refusal::Opaque(opaque.clone()));
        for request in [exclusive("a"), attempt("a", Mode::Shared), release("a"), extend("a", TTL)] {
            let decision = lab.decide(&[request]);
            assert_eq!((decision.outcomes, decision.edits), (vec![refused.clone()], vec![]), "{opaque:?}");
        }
        assert_eq!(lab.decide(&[Request::Reap]).edits, []);
        let breakable = matches!(opaque, Opaque::Corrupt(_) | Opaque::Missing { .. });
        let outcome = lab.decide(&[broken(None)]);
        if breakable {
            assert_eq!(outcome.outcomes, [Outcome::Broken(Vec::new())]);
            assert!(matches!(&outcome.edits[..], [Edit::Journal { .. }, Edit::Remove { .. }]));
        } else {
            assert_eq!((outcome.outcomes, outcome.edits), (vec![refused], vec![]), "{opaque:?}");
        }
    }
}

#[test]
fn a_record_that_is_lost_ends_after_an_hour_unchanged() {
    let hour = Policy::default().missing_object_hold;
    let mut lab = Lab::new();
    lab.state.journal.highest_token = 70;
    lab.state.held = Held::Opaque(Opaque::Missing { unchanged: Some(hour - 5) });
    lab.ask(Request::Reap);
    assert_eq!(lab.next_deadline, Some(5));
    lab.state.held = Held::Opaque(Opaque::Missing { unchanged: Some(hour) });
    assert_eq!(granted(lab.ask(exclusive("a"))).token, Some(71));
    assert_eq!((lab.causes(), lab.entries[0].highest_token), (vec![("?", "expired")], 70));
}

// ------------------------------------------------------------------ several at once

#[test]
fn a_batch_is_answered_in_its_order_and_written_once() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    let batch = [exclusive("b"), release("a"), exclusive("b"), attempt("c", Mode::Exclusive), shared("d"), cancel("d")];
    let decision = lab.decide(&batch);
    assert!(matches!(&decision.edits[..], [Edit::Journal { .. }, Edit::Put { .. }]), "{:?}", decision.edits);
    let outcomes = lab.ask_all(&batch);
    queued(outcomes[0].clone());
    assert!(matches!(&outcomes[1], Outcome::Released(_)));
    granted(outcomes[2].clone());
    assert!(is_held(&outcomes[3], "b", 0));
    queued(outcomes[4].clone());
    assert_eq!(outcomes[5], Outcome::Cancelled { found: true });
    assert_eq!((lab.holders(), lab.waiters().len(), lab.left("b")), (vec!["b".to_owned()], 0, TTL));
}

#[test]
fn a_tenure_that_begins_and_ends_in_one_batch_leaves_its_entry() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), release("a")]);
    assert_eq!((lab.state.held.clone(), lab.causes()), (Held::Free, vec![("a", "released")]));
    let outcomes = lab.ask_all(&[exclusive("b"), release("b"), again(exclusive("b"))]);
    assert_eq!(outcomes[2], Outcome::Gone, "an id is good for one tenure");
}

#[test]
fn several_locks_in_one_call_are_decided_each_for_itself() {
    let lab = Lab::new();
    let mut states = [free("a"), free("b"), free("c")];
    let call = |lock, request| Call { lock, request };
    let first = decide(&states, &[call(2, exclusive("x")), call(0, exclusive("x"))], lab.context());
    let locks: Vec<usize> = first
        .edits
        .iter()
        .map(|edit| match edit {
            Edit::Put { lock, record } => {
                states[*lock].held = Held::Record(record.clone());
                *lock
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(locks, [0, 2], "in the order of the states, and nothing for the one not asked for");
    let calls = [call(0, release("x")), call(1, attempt("y", Mode::Exclusive)), call(2, attempt("y", Mode::Exclusive))];
    let second = decide(&states, &calls, lab.context());
    assert!(matches!(&second.outcomes[..], [Outcome::Released(_), Outcome::Granted(_), Outcome::Refused(_)]));
    assert!(matches!(
        &second.edits[..],
        [Edit::Journal { lock: 0, .. }, Edit::Remove { lock: 0 }, Edit::Put { lock: 1, .. }]
    ));
    assert_eq!(second.next_deadline, Some(TTL));
}

#[test]
fn intents_take_no_token_and_no_entry() {
    let mut lab = Lab::new();
    let holder = granted(lab.ask(attempt("a", Mode::IntentExclusive)));
    granted(lab.ask(attempt("b", Mode::IntentShared)));
    assert!(is_held(&lab.ask(attempt("c", Mode::Exclusive)), "b", 0));
    assert_eq!(holder.token, None);
    lab.ask_all(&[release("a"), release("b")]);
    assert_eq!((lab.state.held.clone(), lab.entries.len()), (Held::Free, 0));
}

#[test]
fn a_look_changes_nothing_and_shows_the_lock_as_it_is() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), shared("b"), shared("c"), exclusive("d")]);
    let state = lab.state.clone();
    lab.pass(TTL);
    let seen = view(&lab.state, lab.context());
    assert_eq!((seen.holders.len(), seen.queue.len()), (2, 1));
    assert_eq!(lab.state, state);
}
