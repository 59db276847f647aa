//! The state of the world, and its steps.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use gitlock::{
    LockName, Result,
    lock::{
        BootTime, Bound, Call, Claim, Edit, Expiry, Fact, Facts, Held, Holder, JournalTip, Liveness, LockState, Mode,
        Now, Outcome, Policy, ProcessStamp, Record, Refusal, Request, decide,
        decide::{Context, Place, Tenure, Wait},
        expiry::safety_margin,
        fault::Faults,
    },
};

use super::{Actor, LAG, MOST_CLIENTS, Scenario, Violation, invariants, late::Past};

/// Where both clocks start, so that no lead makes them negative.
const START: u64 = 1_000_000_000;

/// A set of ids: each client has eight.
pub(super) type Ids = u32;

/// Everything that can differ between two states.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) time: u16,
    /// When the repository was last written.
    pub(super) written: u16,
    pub(super) store: Arc<LockState>,
    pub(super) past: Option<Past>,
    pub(super) clients: Vec<Client>,
    unknowns: u8,
    crashes: u8,
    /// The highest token ever granted.
    pub(super) last_token: u64,
    /// The ids whose tenure the journal has called ended.
    pub(super) ended: Ids,
}

#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) phase: Phase,
    pub(super) health: Health,
    /// When it was last told something, or crashed.
    pub(super) changed: u16,
    /// The number of its present id, and of the first of this try.
    pub(super) attempt: u8,
    first: u8,
    tries: u8,
    extends: u8,
    place: Option<(i64, u64)>,
    /// Whether its present id was asked for before.
    pub(super) asked: bool,
    /// When its patience ends, in milliseconds of true time.
    pub(super) until: Option<u64>,
    /// Ids that it was told are cancelled.
    pub(super) cancelled: Ids,
    /// What it saw of the holders: id, timeout, and since when on its own boot clock.
    sightings: Vec<(u8, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Out of the game, for now if it has tries left.
    Away,
    Wants,
    /// Until its own boot clock says this.
    Holds {
        deadline: u64,
    },
    Releases,
    Cancels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Health {
    Live,
    /// Provably dead, for those of its boot.
    Dead,
    /// Stopped for good, and nobody can tell.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    Acquire,
    Extend,
    Release,
    Cancel,
    Steal,
}

/// A look, and the write that was decided on.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) wish: Wish,
    pub(super) edits: Vec<Edit>,
    /// Nothing: it only closes, and has to ask again.
    pub(super) outcome: Option<Outcome>,
    /// The tick of the look.
    pub(super) looked: u16,
    /// Whether that was before the last write.
    pub(super) late: bool,
    /// Which clients were provably dead to the writer then.
    pub(super) dead: u8,
}

impl Attempt {
    /// Whether it closes what is over, and no more.
    pub(super) fn closes(&self) -> bool {
        self.outcome.is_none()
    }
}

/// How a write ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    Done,
    UnknownDone,
    UnknownNotDone,
    /// The connection was lost between the edits.
    UnknownHalf,
    /// The client crashed between the edits.
    Crash(Health),
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Tick,
    /// A client writes what it decided on when it looked, so many ticks ago.
    Act(u8, Wish, u16, Ending),
    /// The same, and it had looked before the last write.
    ActLate(u8, Wish, u16),
    Crash(u8, Health),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |client: &u8| char::from(b'a' + client);
        match self {
            Step::Tick => f.write_str("a tick passes"),
            Step::Act(client, wish, 0, ending) => write!(f, "{}: {wish:?}: {ending:?}", name(client)),
            Step::Act(client, wish, ago, ending) => {
                write!(f, "{}: {wish:?}, as decided {ago} ticks ago: {ending:?}", name(client))
            }
            Step::ActLate(client, wish, ago) => {
                write!(f, "{}: {wish:?}, as decided {ago} ticks ago, before the last write", name(client))
            }
            Step::Crash(client, health) => write!(f, "{} is {health:?}", name(client)),
        }
    }
}

/// The number of an id, by which sets of ids go.
pub(super) fn bit(id: &str) -> u8 {
    let [client, attempt, ..] = id.as_bytes() else { return 31 };
    (client.wrapping_sub(b'a') & 3) * 8 + (attempt.wrapping_sub(b'0') & 7)
}

pub(super) fn has(ids: Ids, id: &str) -> bool {
    ids & (1 << bit(id)) != 0
}

/// The client behind an id.
pub(super) fn client_of(id: &str) -> usize {
    usize::from(bit(id) / 8)
}

pub(super) fn id_of(client: usize, attempt: u8) -> String {
    format!("{}{attempt}", char::from(b'a' + u8::try_from(client).unwrap_or(0)))
}

/// What doesn't change while a world is explored.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) policy: Policy,
}

impl<'a> Rules<'a> {
    pub(super) fn new(scenario: &'a Scenario, faults: Faults) -> Rules<'a> {
        let policy = Policy {
            claim_window: scenario.window,
            max_clock_skew: scenario.skew,
            poll_interval: scenario.tick,
            expiry: if scenario.observed { Expiry::Observed } else { Expiry::WallClock },
            missing_object_hold: u64::MAX,
            faults,
        };
        Rules { scenario, policy }
    }

    pub(super) fn actor(&self, client: usize) -> &Actor {
        &self.scenario.clients[client]
    }

    /// True time in milliseconds.
    pub(super) fn millis(&self, tick: u16) -> u64 {
        START + u64::from(tick) * self.scenario.tick
    }

    fn now(&self, client: usize, tick: u16) -> Now {
        let (actor, millis) = (self.actor(client), self.millis(tick));
        let set_back = if actor.set_back_at.is_some_and(|at| at <= tick) { 3_600_000 } else { 0 };
        let wall = (START + millis).saturating_add_signed(actor.wall_lead - set_back);
        Now { wall, wall_micros: wall * 1_000, boot: millis + actor.boot_lead, boot_id: actor.boot.into() }
    }

    /// The lease's end in true time.
    pub(super) fn true_end(&self, holder: &Holder) -> u64 {
        let Some(end) = &holder.end else { return 0 };
        let lead =
            self.scenario.clients.iter().find(|actor| *actor.boot == *end.boot).map_or(0, |actor| actor.boot_lead);
        end.at.saturating_sub(lead)
    }

    fn claim(&self, client: usize, attempt: u8) -> Claim {
        let actor = self.actor(client);
        let id = id_of(client, attempt);
        Claim {
            owner: id[..1].to_owned(),
            fingerprint: id[..1].to_owned(),
            id,
            mode: actor.mode,
            ttl: actor.ttl,
            bound: if actor.dies { Bound::Process } else { Bound::Lease },
            process: actor.dies.then(|| ProcessStamp {
                boot: actor.boot.to_owned(),
                pidns: 1,
                start: None,
                group: None,
                extra: BTreeMap::new(),
            }),
            pid: 1,
            hostname: String::new(),
            reason: None,
            slots: None,
            upgrades: None,
            extra: BTreeMap::new(),
        }
    }
}

impl World {
    pub(super) fn first(rules: &Rules<'_>) -> Result<World> {
        let store = LockState { name: LockName::new("lock")?, held: Held::Free, journal: JournalTip::default() };
        let client = |actor: &Actor| Client {
            phase: Phase::Away,
            health: Health::Live,
            attempt: 0,
            first: 0,
            tries: actor.tries,
            extends: actor.extends,
            place: None,
            asked: false,
            until: None,
            changed: 0,
            cancelled: 0,
            sightings: Vec::new(),
        };
        assert!(rules.scenario.clients.len() <= MOST_CLIENTS, "an id has room for no more");
        Ok(World {
            time: 0,
            written: 0,
            store: Arc::new(store),
            past: None,
            clients: rules.scenario.clients.iter().map(client).collect(),
            unknowns: rules.scenario.unknowns,
            crashes: rules.scenario.crashes,
            last_token: 0,
            ended: 0,
        })
    }

    /// What the state is known by. Of what is long past it doesn't matter how long.
    pub(super) fn key(&self, rules: &Rules<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        let ago = |tick: u16| (self.time - tick).min(rules.scenario.stall);
        (self.time, ago(self.written), self.unknowns, self.crashes, self.last_token).hash(&mut hasher);
        (self.ended, self.record()).hash(&mut hasher);
        (&self.store.journal.ended, self.store.journal.highest_token).hash(&mut hasher);
        if let Some(past) = &self.past {
            (past.journal_stays, ago(past.from), ago(past.until), past.gone_on).hash(&mut hasher);
            (&past.store.journal.ended, past.store.journal.highest_token).hash(&mut hasher);
            if let Held::Record(record) = &past.store.held {
                record.hash(&mut hasher);
            }
        }
        for client in &self.clients {
            (client.phase, client.health, ago(client.changed), client.attempt, client.first).hash(&mut hasher);
            (client.tries, client.extends, client.place, client.asked, client.until, client.cancelled)
                .hash(&mut hasher);
            client.sightings.hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn record(&self) -> Option<&Record> {
        if let Held::Record(record) = &self.store.held { Some(record) } else { None }
    }

    /// Whether this client, by its own clock, may be doing what only a holder may.
    pub(super) fn believes(&self, rules: &Rules<'_>, client: usize) -> bool {
        let Client { phase, health, .. } = &self.clients[client];
        let Phase::Holds { deadline } = phase else { return false };
        *health != Health::Dead && rules.millis(self.time) + rules.actor(client).boot_lead < deadline + LAG
    }

    /// The clients whose death a client of this boot can prove.
    fn provably_dead(&self, rules: &Rules<'_>, to: usize, looked: u16) -> u8 {
        let dead = |(at, client): (usize, &Client)| {
            let seen = client.health == Health::Dead
                && client.changed <= looked
                && rules.actor(at).boot == rules.actor(to).boot;
            u8::from(seen) << at
        };
        self.clients.iter().enumerate().map(dead).sum()
    }

    pub(super) fn out_of_patience(&self, rules: &Rules<'_>, client: usize, looked: u16) -> bool {
        self.clients[client].until.is_some_and(|until| until <= rules.millis(looked))
    }

    // -------------------------------------------------------- steps

    /// Every step that may come next.
    pub(super) fn steps(&self, rules: &Rules<'_>, steps: &mut Vec<Step>) {
        if self.time < rules.scenario.ticks {
            steps.push(Step::Tick);
        }
        for (at, client) in self.clients.iter().enumerate() {
            if client.health != Health::Live {
                continue;
            }
            let actor = rules.actor(at);
            let name = u8::try_from(at).unwrap_or(0);
            // Whoever looked before the last write has a conflict now.
            let oldest =
                self.written.max(client.changed).max(actor.from).max(self.time.saturating_sub(rules.scenario.stall));
            for looked in oldest..=self.time {
                for wish in self.wishes(rules, at, looked).into_iter().flatten() {
                    let step = |ending| Step::Act(name, wish, self.time - looked, ending);
                    steps.push(step(Ending::Done));
                    if self.unknowns > 0 {
                        steps.extend([Ending::UnknownDone, Ending::UnknownNotDone, Ending::UnknownHalf].map(step));
                    }
                    if self.crashes > 0 {
                        steps.extend(actor.ways_to_crash().map(|health| step(Ending::Crash(health))));
                    }
                }
            }
            self.late_steps(rules, at, steps);
            if self.crashes > 0 && client.phase != Phase::Away {
                steps.extend(actor.ways_to_crash().map(|health| Step::Crash(name, health)));
            }
        }
    }

    /// What a live client may have been after when it looked.
    pub(super) fn wishes(&self, rules: &Rules<'_>, at: usize, looked: u16) -> [Option<Wish>; 2] {
        let (client, actor) = (&self.clients[at], rules.actor(at));
        match client.phase {
            Phase::Away if client.tries == 0 || looked < actor.from => [None, None],
            Phase::Away if actor.steals => [Some(Wish::Steal), None],
            Phase::Away => [Some(Wish::Acquire), None],
            Phase::Wants if self.out_of_patience(rules, at, looked) => [Some(Wish::Cancel), None],
            Phase::Wants => [Some(Wish::Acquire), actor.cancels.then_some(Wish::Cancel)],
            Phase::Holds { .. } => [Some(Wish::Release), (client.extends > 0).then_some(Wish::Extend)],
            Phase::Releases => [Some(Wish::Release), None],
            Phase::Cancels => [Some(Wish::Cancel), None],
        }
    }

    /// The state after this step.
    pub(super) fn after(&self, rules: &Rules<'_>, step: Step) -> std::result::Result<World, Violation> {
        let mut next = self.clone();
        match step {
            Step::Tick => {
                next.time += 1;
                next.past = next.past.filter(|past| past.until + rules.scenario.stall >= next.time);
            }
            Step::Act(client, wish, ago, ending) => {
                next.act(rules, usize::from(client), wish, self.time - ago, ending)?
            }
            Step::ActLate(client, wish, ago) => {
                if !next.act_late(rules, usize::from(client), wish, self.time - ago)? {
                    return Ok(self.clone());
                }
            }
            Step::Crash(client, health) => next.crash(usize::from(client), health),
        }
        if let (Some(past), Step::Act(client, ..) | Step::ActLate(client, ..)) = (&mut next.past, step) {
            past.gone_on |= 1 << client;
        }
        invariants::in_state(rules, &next)?;
        Ok(next)
    }

    fn crash(&mut self, at: usize, health: Health) {
        (self.clients[at].health, self.clients[at].changed) = (health, self.time);
        self.crashes -= 1;
    }

    /// A look, a decision, and its write. A decision that writes nothing is told at once.
    fn act(
        &mut self,
        rules: &Rules<'_>,
        at: usize,
        wish: Wish,
        looked: u16,
        ending: Ending,
    ) -> std::result::Result<(), Violation> {
        let store = self.store.clone();
        let Some(attempt) = self.decide(rules, at, wish, looked, &store) else { return Ok(()) };
        let all = attempt.edits.len();
        let written = match ending {
            Ending::Done | Ending::UnknownDone => all,
            Ending::UnknownNotDone => 0,
            Ending::UnknownHalf | Ending::Crash(_) => 1,
        };
        // What has no edits can't be cut off, and a lone edit is made or not.
        if ending == Ending::Done || all == 0 || (written == 1 && all == 1) {
            self.apply(rules, at, &attempt, all)?;
            self.told(rules, at, wish, attempt.outcome);
            return Ok(());
        }
        self.apply(rules, at, &attempt, written)?;
        self.clients[at].asked |= wish == Wish::Acquire && !attempt.closes();
        if let Ending::Crash(health) = ending {
            self.crash(at, health);
        } else {
            self.unknowns -= 1;
        }
        Ok(())
    }

    pub(super) fn decide(
        &mut self,
        rules: &Rules<'_>,
        at: usize,
        wish: Wish,
        looked: u16,
        store: &Arc<LockState>,
    ) -> Option<Attempt> {
        let now = rules.now(at, looked);
        let actor = rules.actor(at);
        self.look(rules, at, now.boot, store);
        let dead = self.provably_dead(rules, at, looked);
        let (time, client) = (self.time, &mut self.clients[at]);
        let before = client.phase;
        match wish {
            Wish::Acquire if client.phase == Phase::Away => {
                client.tries -= 1;
                (client.phase, client.first) = (Phase::Wants, client.attempt);
                client.until = actor.patience.map(|patience| rules.millis(looked) + patience);
            }
            Wish::Acquire | Wish::Extend => {}
            Wish::Release => client.phase = Phase::Releases,
            Wish::Cancel => client.phase = Phase::Cancels,
            Wish::Steal => client.tries -= 1,
        }
        if client.phase != before || wish == Wish::Steal {
            client.changed = time;
        }
        let client = &self.clients[at];
        let tenure = Tenure { id: Some(id_of(at, client.attempt)), proof: id_of(at, 0)[..1].to_owned() };
        let request = match wish {
            Wish::Acquire => Request::Acquire {
                claim: rules.claim(at, client.attempt),
                priority: actor.priority,
                wait: (actor.patience != Some(0)).then(|| Wait {
                    until: client.until.map(|until| {
                        let left = until.saturating_sub(rules.millis(looked));
                        (now.wall + left, BootTime { boot: actor.boot.to_owned(), at: now.boot + left })
                    }),
                }),
                place: client.place.map(|(rank, since)| Place { rank, since }),
                asked_before: client.asked,
            },
            Wish::Extend => Request::Extend { tenure, ttl: Some(actor.extends_by), rebind: None },
            Wish::Release => Request::Release { tenure },
            Wish::Cancel => {
                Request::Cancel { ids: (client.first..=client.attempt).map(|attempt| id_of(at, attempt)).collect() }
            }
            Wish::Steal => {
                let victim = store.holders().first()?.claim.id.clone();
                Request::Release { tenure: Tenure { id: Some(victim), proof: tenure.proof } }
            }
        };
        Some(self.decided(rules, (at, wish), request, (store, &now), (looked, dead)))
    }

    fn decided(
        &self,
        rules: &Rules<'_>,
        (at, wish): (usize, Wish),
        request: Request,
        (store, now): (&Arc<LockState>, &Now),
        (looked, dead): (u16, u8),
    ) -> Attempt {
        let facts = self.facts(rules, at, dead, now.boot, store);
        let context = Context { now, facts: &facts, policy: &rules.policy };
        let decision = decide(std::slice::from_ref(store), &[Call { lock: 0, request }], context);
        let outcome = decision.outcomes.into_iter().next();
        assert!(outcome.is_none() == decision.closes, "who closes is told nothing, and nobody else");
        Attempt { wish, edits: decision.edits, outcome, looked, late: false, dead }
    }

    /// Remembers since when each holder's entry has been as it is, where that counts.
    fn look(&mut self, rules: &Rules<'_>, at: usize, boot: u64, store: &Arc<LockState>) {
        if !rules.scenario.observed {
            return;
        }
        let client = &mut self.clients[at];
        let before = client.sightings.clone();
        let entries: Vec<(u8, u64)> = store.holders().iter().map(|h| (bit(&h.claim.id), h.timeout)).collect();
        client.sightings.retain(|(id, timeout, _)| entries.contains(&(*id, *timeout)));
        for (id, timeout) in entries {
            if !client.sightings.iter().any(|(known, ..)| *known == id) {
                client.sightings.push((id, timeout, boot));
            }
        }
        // The next look comes after this one.
        if client.sightings != before {
            client.changed = self.time;
        }
    }

    fn facts(&self, rules: &Rules<'_>, at: usize, dead: u8, boot: u64, store: &LockState) -> Facts {
        let Held::Record(record) = &store.held else { return Facts::default() };
        let ids = record.holders.iter().map(|h| &h.claim.id).chain(record.queue.iter().map(|w| &w.claim.id));
        let fact = |id: &String| {
            let is_dead = dead & (1 << client_of(id)) != 0;
            let liveness = if is_dead { Liveness::Dead } else { Liveness::Unknown };
            let seen = self.clients[at].sightings.iter().find(|(known, ..)| *known == bit(id));
            let unchanged = seen.filter(|_| rules.scenario.observed).map(|(.., since)| boot - since);
            (id.clone(), Fact { liveness, unchanged })
        };
        Facts(ids.map(fact).collect())
    }

    /// Makes the first of these edits.
    pub(super) fn apply(
        &mut self,
        rules: &Rules<'_>,
        at: usize,
        attempt: &Attempt,
        first: usize,
    ) -> std::result::Result<(), Violation> {
        if first == 0 || attempt.edits.is_empty() {
            return Ok(());
        }
        let before = self.clone();
        let mut store = (*self.store).clone();
        for edit in attempt.edits.iter().take(first) {
            match edit {
                Edit::Journal { entries, finished, .. } => {
                    let holders = || entries.iter().filter_map(|entry| entry.holder.as_ref());
                    let ids = holders().map(|holder| &holder.claim.id);
                    store.journal.ended = ids.chain(finished).cloned().collect();
                    let highest = entries.iter().map(|entry| entry.highest_token).max().unwrap_or(0);
                    store.journal.highest_token = store.journal.highest_token.max(highest);
                    for holder in holders() {
                        invariants::ends_once(self, holder)?;
                        self.ended |= 1 << bit(&holder.claim.id);
                        self.last_token = self.last_token.max(holder.token.unwrap_or(0));
                    }
                }
                Edit::Put { record, .. } => store.held = Held::Record(record.clone()),
                Edit::Remove { .. } => store.held = Held::Free,
            }
        }
        let made = &attempt.edits[..first.min(attempt.edits.len())];
        self.past = Past::of(rules, self, made);
        self.store = Arc::new(store);
        self.written = self.time;
        if first >= attempt.edits.len() {
            invariants::at_write(rules, &before, self, at, attempt)?;
        }
        for holder in self.store.clone().holders() {
            self.last_token = self.last_token.max(holder.token.unwrap_or(0));
        }
        Ok(())
    }

    /// Somebody looks after the lock, by the first client's clocks.
    pub(super) fn reap(&mut self, rules: &Rules<'_>) -> std::result::Result<(), Violation> {
        let (now, dead) = (rules.now(0, self.time), self.provably_dead(rules, 0, self.time));
        loop {
            let store = self.store.clone();
            self.look(rules, 0, now.boot, &store);
            let attempt = self.decided(rules, (0, Wish::Steal), Request::Reap, (&store, &now), (self.time, dead));
            self.apply(rules, 0, &attempt, usize::MAX)?;
            if !attempt.closes() {
                return Ok(());
            }
        }
    }

    /// What a client makes of an answer.
    pub(super) fn told(&mut self, rules: &Rules<'_>, at: usize, wish: Wish, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        let (time, client) = (self.time, &mut self.clients[at]);
        let before = (client.phase, client.attempt, client.place);
        let believe = |holder: &Holder| {
            let margin = safety_margin(holder.claim.ttl, rules.policy.faults);
            Phase::Holds { deadline: holder.end.as_ref().map_or(0, |end| end.at).saturating_sub(margin) }
        };
        match (wish, outcome) {
            (Wish::Acquire, Outcome::Granted(holder)) => client.phase = believe(&holder),
            (Wish::Acquire, Outcome::Queued { place, .. }) => {
                (client.place, client.asked) = (Some((place.rank, place.since)), true);
            }
            (Wish::Acquire, Outcome::Gone) => (client.attempt, client.asked) = (client.attempt + 1, false),
            (Wish::Extend, Outcome::Extended(holder)) => {
                client.extends -= 1;
                client.phase = believe(&holder);
            }
            (Wish::Cancel, Outcome::Cancelled { .. }) => {
                for attempt in client.first..=client.attempt {
                    client.cancelled |= 1 << bit(&id_of(at, attempt));
                }
                client.leave();
            }
            (_, Outcome::Refused(Refusal::Opaque(_))) => {}
            _ => client.leave(),
        }
        if before != (client.phase, client.attempt, client.place) {
            client.changed = time;
        }
    }
}

impl Actor {
    fn ways_to_crash(&self) -> impl Iterator<Item = Health> + use<> {
        [self.dies.then_some(Health::Dead), self.stops.then_some(Health::Stopped)].into_iter().flatten()
    }
}

impl Client {
    /// Out of the game, with a fresh id for the next time.
    fn leave(&mut self) {
        self.phase = Phase::Away;
        (self.place, self.asked, self.until) = (None, false, None);
        if self.tries > 0 {
            self.attempt += 1;
        }
    }

    /// When it came to the queue, as it was told.
    pub(super) fn since(&self) -> Option<u64> {
        self.place.map(|(_, since)| since)
    }

    pub(super) fn waits(&self) -> bool {
        self.health == Health::Live && self.phase == Phase::Wants
    }
}

/// The holders of a state of the store.
pub(super) trait Holders {
    fn holders(&self) -> &[Holder];
}

impl Holders for LockState {
    fn holders(&self) -> &[Holder] {
        if let Held::Record(record) = &self.held { &record.holders } else { &[] }
    }
}

/// Whether two modes exclude each other: the model's own word for it, not that of the rules.
pub(super) fn exclude(a: Mode, b: Mode) -> bool {
    a == Mode::Exclusive || b == Mode::Exclusive
}
