//! The state of a world of several locks, and its steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use gitlock::{
    LockName, Result,
    lock::{
        BootTime, Bound, Call, Claim, Edit, Fact, Facts, Held, Holder, JournalTip, Liveness, LockState, Mode, Now,
        Outcome, Policy, ProcessStamp, Record, Request,
        convert::Conversion,
        decide::{Context, Place, Tenure, Wait, decide_together},
        expiry::safety_margin,
        fault::Faults,
        hierarchy::{Step as Part, steps},
    },
};

use super::{
    Grove, Member, Want,
    client::{Client, Doing, Tenancy, Wish},
    look,
    onward::Onward,
};
use crate::model::{LAG, Violation, search::Space, world::Health};

/// How many milliseconds a tick takes.
pub(super) const TICK: u64 = 20;
/// How long a lease and a claim window last, in milliseconds.
pub(super) const TTL: u64 = 3 * TICK;
pub(super) const WINDOW: u64 = 2 * TICK;
const START: u64 = 1_000_000_000;
/// An id has eight attempts.
const MOST_ATTEMPTS: u8 = 8;

/// What doesn't change while a world is explored.
pub(super) struct Forest<'a> {
    pub(super) grove: &'a Grove,
    pub(super) policy: Policy,
    pub(super) names: Vec<LockName>,
    /// What each request of each client takes: the lock's index and the part.
    pub(super) parts: Vec<Vec<Vec<(usize, Part)>>>,
    pub(super) onward: Onward,
}

/// Everything that can differ between two states.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) time: u16,
    pub(super) states: Vec<Arc<LockState>>,
    pub(super) clients: Vec<Client>,
    crashes: u8,
    unknowns: u8,
    /// The highest token of each lock.
    pub(super) tokens: Vec<u64>,
}

/// How a write ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    Done,
    /// After so many edits the connection is lost.
    Unknown(usize),
    /// After so many edits the client crashes.
    Crash(usize, Health),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Tick,
    Act(u8, Wish, Ending),
    Crash(u8, Health),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |client: &u8| char::from(b'a' + client);
        match self {
            Step::Tick => f.write_str("a tick passes"),
            Step::Act(client, wish, ending) => write!(f, "{}: {wish:?}: {ending:?}", name(client)),
            Step::Crash(client, health) => write!(f, "{} is {health:?}", name(client)),
        }
    }
}

pub(super) fn id_of(client: usize, attempt: u8) -> String {
    format!("{}{attempt}", char::from(b'a' + u8::try_from(client).unwrap_or(0)))
}

/// The client behind an id.
pub(super) fn client_of(id: &str) -> usize {
    usize::from(id.as_bytes().first().copied().unwrap_or(b'a') - b'a')
}

pub(super) fn record(state: &LockState) -> &Record {
    static NOBODY: Record = Record { holders: Vec::new(), queue: Vec::new() };
    if let Held::Record(record) = &state.held { record } else { &NOBODY }
}

impl<'a> Forest<'a> {
    pub(super) fn new(grove: &'a Grove, faults: Faults) -> Result<Forest<'a>> {
        let policy = Policy {
            claim_window: WINDOW,
            max_clock_skew: TICK,
            poll_interval: TICK,
            missing_object_hold: u64::MAX,
            faults,
            ..Policy::default()
        };
        let names = grove.names.iter().map(|name| LockName::new(name)).collect::<Result<Vec<_>>>()?;
        let part = |want: &Want| {
            let wanted = want.names.iter().map(|name| LockName::new(name)).collect::<Result<Vec<_>>>()?;
            let part = |part: Part| (names.iter().position(|name| *name == part.name).unwrap_or(0), part);
            Ok(steps(&wanted, want.mode, want.slots).into_iter().map(part).collect())
        };
        let parts = grove.members.iter().map(|member| member.wants.iter().map(part).collect());
        let parts = parts.collect::<Result<_>>()?;
        Ok(Forest { grove, policy, names, parts, onward: Onward::default() })
    }

    pub(super) fn member(&self, client: usize) -> &Member {
        &self.grove.members[client]
    }

    pub(super) fn parts(&self, client: usize, want: u8) -> &[(usize, Part)] {
        &self.parts[client][usize::from(want)]
    }

    pub(super) fn now(&self, world: &World) -> Now {
        let millis = START + u64::from(world.time) * TICK;
        Now { wall: millis, wall_micros: millis * 1_000, boot: millis, boot_id: "boot".into() }
    }

    fn claim(&self, client: usize, id: String, part: &Part) -> Claim {
        let member = self.member(client);
        Claim {
            id,
            owner: member.owner.to_owned(),
            fingerprint: member.owner.to_owned(),
            mode: part.mode,
            ttl: TTL,
            bound: if member.dies { Bound::Process } else { Bound::Lease },
            process: member.dies.then(|| ProcessStamp {
                boot: "boot".to_owned(),
                pidns: 1,
                start: None,
                group: None,
                extra: BTreeMap::new(),
            }),
            pid: 1,
            hostname: String::new(),
            reason: None,
            slots: part.slots,
            upgrades: None,
            extra: BTreeMap::new(),
        }
    }
}

impl Space for Forest<'_> {
    type World = World;
    type Step = Step;

    fn first(&self) -> Result<World> {
        let state = |name: &LockName| {
            Arc::new(LockState { name: name.clone(), held: Held::Free, journal: JournalTip::default() })
        };
        let client = |member: &Member| Client {
            health: Health::Live,
            next: 0,
            attempt: 0,
            held: Vec::new(),
            doing: None,
            converts: member.converts,
            extends: member.extends,
            cancelled: Vec::new(),
        };
        Ok(World {
            time: 0,
            states: self.names.iter().map(state).collect(),
            clients: self.grove.members.iter().map(client).collect(),
            crashes: self.grove.crashes,
            unknowns: self.grove.unknowns,
            tokens: vec![0; self.names.len()],
        })
    }

    fn key(&self, world: &World) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.grove.ticks.saturating_sub(world.time), world.crashes, world.unknowns).hash(&mut hasher);
        let now = self.now(world).boot;
        let left = |end: u64| (end + TTL).saturating_sub(now);
        let waiters = world.states.iter().flat_map(|state| &record(state).queue).map(|waiter| waiter.rank);
        let ranks: BTreeSet<i64> = waiters.chain(world.clients.iter().flat_map(Client::ranks)).collect();
        let place = |rank: i64| ranks.range(..rank).count();
        for state in &world.states {
            let record = record(state);
            (record.holders.len(), record.queue.len(), &state.journal.ended).hash(&mut hasher);
            for holder in &record.holders {
                let end = holder.end.as_ref().map_or(0, |end| end.at);
                (&holder.claim.id, holder.claim.mode, left(end), holder.slot).hash(&mut hasher);
            }
            for waiter in &record.queue {
                (&waiter.claim.id, waiter.claim.mode, place(waiter.rank)).hash(&mut hasher);
            }
        }
        for client in &world.clients {
            (client.health, client.next, client.attempt, client.converts, client.extends).hash(&mut hasher);
            client.cancelled.hash(&mut hasher);
            for Tenancy { want, attempt, mode, deadline, .. } in &client.held {
                (want, attempt, mode, left(*deadline)).hash(&mut hasher);
            }
            if let Some(doing) = &client.doing {
                doing.hash_with(&place, &mut hasher);
            }
        }
        hasher.finish()
    }

    fn check(&mut self, world: &World, key: u64) -> std::result::Result<(), Violation> {
        let mut onward = std::mem::take(&mut self.onward);
        let checked = onward.check(self, world, key);
        self.onward = onward;
        checked
    }

    fn steps(&self, world: &World, all: &mut Vec<Step>) {
        if world.time < self.grove.ticks {
            all.push(Step::Tick);
        }
        for (at, client) in world.clients.iter().enumerate().filter(|(_, client)| client.health == Health::Live) {
            let (name, member) = (u8::try_from(at).unwrap_or(0), self.member(at));
            let crashes =
                [member.dies.then_some(Health::Dead), member.stops.then_some(Health::Stopped)].into_iter().flatten();
            let crashes: Vec<Health> = crashes.filter(|_| world.crashes > 0).collect();
            let given = member.after.is_none_or(|other| !world.clients[other].held.is_empty());
            for wish in client.wishes(member).into_iter().filter(|wish| given || *wish != Wish::Acquire) {
                all.push(Step::Act(name, wish, Ending::Done));
                for edits in 1..=5 {
                    all.extend(crashes.iter().map(|health| Step::Act(name, wish, Ending::Crash(edits, *health))));
                    if world.unknowns > 0 {
                        all.push(Step::Act(name, wish, Ending::Unknown(edits)));
                    }
                }
            }
            if client.doing.is_some() || !client.held.is_empty() {
                all.extend(crashes.iter().map(|health| Step::Crash(name, *health)));
            }
        }
    }

    fn after(&self, world: &World, step: Step) -> std::result::Result<World, Violation> {
        let mut next = world.clone();
        match step {
            Step::Tick => next.time += 1,
            Step::Act(client, wish, ending) => {
                next.act(self, usize::from(client), wish, ending)?;
            }
            Step::Crash(client, health) => next.crash(usize::from(client), health),
        }
        look::in_state(self, &next)?;
        Ok(next)
    }
}

impl World {
    /// Whether this client, by its own clock, may be doing what only a holder may.
    pub(super) fn believes(&self, forest: &Forest<'_>, client: usize, held: usize) -> bool {
        let Client { health, doing, held: all, .. } = &self.clients[client];
        // Who has begun to release does nothing under it any more.
        let releases = matches!(doing, Some(Doing::Releases { at }) if usize::from(*at) == held);
        *health != Health::Dead && !releases && forest.now(self).boot < all[held].deadline + LAG
    }

    pub(super) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for state in &self.states {
            let record = record(state);
            let ids = record.holders.iter().map(|h| &h.claim.id).chain(record.queue.iter().map(|w| &w.claim.id));
            for id in ids.filter(|id| self.clients[client_of(id)].health == Health::Dead) {
                facts.0.insert(id.clone(), Fact { liveness: Liveness::Dead, unchanged: None });
            }
        }
        facts
    }

    fn crash(&mut self, at: usize, health: Health) {
        self.clients[at].health = health;
        self.crashes = self.crashes.saturating_sub(1);
    }

    /// A client does all that is to do for what it wishes.
    pub(super) fn act_out(&mut self, forest: &Forest<'_>, at: usize, wish: Wish) -> std::result::Result<(), Violation> {
        let mut told = self.act(forest, at, wish, Ending::Done)?;
        while !told {
            told = self.act(forest, at, Wish::Again, Ending::Done)?;
        }
        Ok(())
    }

    /// One decision of a client, and its write. Returns whether it was told anything: else it only closed, and asks again.
    pub(super) fn act(
        &mut self,
        forest: &Forest<'_>,
        at: usize,
        wish: Wish,
        ending: Ending,
    ) -> std::result::Result<bool, Violation> {
        let client = &mut self.clients[at];
        match wish {
            Wish::Again => {}
            Wish::Acquire => {
                let parts = forest.parts[at][usize::from(client.next)].len();
                let (want, attempt, places) = (client.next, client.attempt, vec![None; parts]);
                client.doing = Some(Doing::Acquires { want, attempt, first: attempt, asked: 0, places });
                (client.next, client.attempt) = (want + 1, attempt + 1);
            }
            Wish::GiveUp => {
                client.doing = match client.doing.take() {
                    Some(Doing::Acquires { want, attempt, first, .. }) => {
                        Some(Doing::Leaves { want, first, last: attempt, again: None })
                    }
                    Some(Doing::Upgrades { at, .. }) => Some(Doing::TurnsBack { at }),
                    other => other,
                }
            }
            Wish::Upgrade(held) => {
                client.converts -= 1;
                client.doing = Some(Doing::Upgrades { at: held, asked: 0 });
            }
            Wish::Downgrade(held) => {
                client.converts -= 1;
                client.held[usize::from(held)].mode = Mode::Shared;
                client.doing = Some(Doing::Downgrades { at: held });
            }
            Wish::Extend(held) => {
                client.extends = client.extends.saturating_sub(1);
                client.doing = Some(Doing::Extends { at: held });
            }
            Wish::Release(held) => client.doing = Some(Doing::Releases { at: held }),
        }
        let Some(doing) = self.clients[at].doing.clone() else { return Ok(true) };
        let calls = self.calls(forest, at, &doing);
        let (now, facts) = (forest.now(self), self.facts());
        let context = Context { now: &now, facts: &facts, policy: &forest.policy };
        // What isn't concerned isn't read.
        let locks: Vec<usize> = {
            let mut seen: Vec<usize> = calls.iter().map(|call| call.lock).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        let states: Vec<LockState> = locks.iter().map(|lock| (*self.states[*lock]).clone()).collect();
        let here = |lock: usize| locks.iter().position(|other| *other == lock).unwrap_or(0);
        let calls: Vec<Call> =
            calls.into_iter().map(|call| Call { lock: here(call.lock), request: call.request }).collect();
        let decision = decide_together(&states, &calls, context);
        let all = decision.edits.len();
        let edits = match ending {
            Ending::Unknown(edits) | Ending::Crash(edits, _) => edits.min(all),
            Ending::Done => all,
        };
        self.apply(forest, &decision.edits[..edits], &locks, edits == all && !decision.closes)?;
        match ending {
            Ending::Done if decision.closes => return Ok(false),
            Ending::Done => self.told(forest, at, doing, decision.outcomes),
            Ending::Crash(_, health) => self.crash(at, health),
            Ending::Unknown(_) if decision.closes => self.unknowns -= 1,
            Ending::Unknown(_) => {
                self.unknowns -= 1;
                let all = calls.len();
                if let Some(Doing::Acquires { asked, .. } | Doing::Upgrades { asked, .. }) = &mut self.clients[at].doing
                {
                    *asked = all;
                }
            }
        }
        Ok(true)
    }

    fn calls(&self, forest: &Forest<'_>, at: usize, doing: &Doing) -> Vec<Call> {
        let client = &self.clients[at];
        let proof = || forest.member(at).owner.to_owned();
        let tenure = |held: u8| {
            let tenancy = client.held[usize::from(held)];
            (tenancy, Tenure { id: Some(id_of(at, tenancy.attempt)), proof: proof() })
        };
        let each = |want: u8, request: &dyn Fn(usize, &Part) -> Request| -> Vec<Call> {
            let parts = forest.parts(at, want).iter().enumerate();
            parts.map(|(index, (lock, part))| Call { lock: *lock, request: request(index, part) }).collect()
        };
        let convert = |held: u8, mode: &dyn Fn(&Part) -> Mode, wait: bool, asked: usize| {
            let (tenancy, tenure) = tenure(held);
            each(tenancy.want, &|index, part| {
                Request::Convert(Conversion {
                    tenure: tenure.clone(),
                    mode: mode(part),
                    id: id_of(at, tenancy.attempt) + "^",
                    wait: wait.then(Wait::default),
                    asked_before: index < asked,
                })
            })
        };
        let ends = |mut calls: Vec<Call>| {
            calls.reverse();
            calls
        };
        let as_it_is = |mode: Mode| move |part: &Part| if part.mode.is_intent() { mode.intent() } else { mode };
        match doing {
            Doing::Acquires { want, attempt, asked, places, .. } => each(*want, &|index, part| Request::Acquire {
                claim: forest.claim(at, id_of(at, *attempt), part),
                priority: 0,
                wait: (!forest.member(at).tries).then(Wait::default),
                place: places[index].map(|(rank, since)| Place { rank, since }),
                asked_before: index < *asked,
            }),
            Doing::Leaves { want, first, last, .. } => {
                let ids: Vec<String> = (*first..=*last).map(|attempt| id_of(at, attempt)).collect();
                ends(each(*want, &|_, _| Request::Cancel { ids: ids.clone() }))
            }
            Doing::Upgrades { at: held, asked } => convert(*held, &as_it_is(Mode::Exclusive), true, *asked),
            Doing::TurnsBack { at: held } => {
                ends(convert(*held, &as_it_is(client.held[usize::from(*held)].mode), false, usize::MAX))
            }
            Doing::Downgrades { at: held } => ends(convert(*held, &as_it_is(Mode::Shared), false, usize::MAX)),
            Doing::Extends { at: held } => {
                let (tenancy, tenure) = tenure(*held);
                each(tenancy.want, &|_, _| Request::Extend { tenure: tenure.clone(), ttl: None, rebind: None })
            }
            Doing::Releases { at: held } => {
                let (tenancy, tenure) = tenure(*held);
                ends(each(tenancy.want, &|_, _| Request::Release { tenure: tenure.clone() }))
            }
        }
    }

    /// Makes these edits, one by one.
    fn apply(
        &mut self,
        forest: &Forest<'_>,
        edits: &[Edit],
        locks: &[usize],
        whole: bool,
    ) -> std::result::Result<(), Violation> {
        for edit in edits {
            let (Edit::Journal { lock, .. } | Edit::Put { lock, .. } | Edit::Remove { lock }) = edit;
            let lock = locks[*lock];
            let before = self.states[lock].clone();
            let mut state = (*before).clone();
            match edit {
                Edit::Journal { entries, finished, .. } => {
                    let ended = entries.iter().filter_map(|entry| Some(&entry.holder.as_ref()?.claim.id));
                    state.journal.ended = ended.chain(finished).cloned().collect();
                    let highest = entries.iter().map(|entry| entry.highest_token).max().unwrap_or(0);
                    state.journal.highest_token = state.journal.highest_token.max(highest);
                }
                Edit::Put { record, .. } => state.held = Held::Record(record.clone()),
                Edit::Remove { .. } => state.held = Held::Free,
            }
            self.states[lock] = Arc::new(state);
            look::at_edit(forest, self, lock, &before, edit)?;
        }
        if whole {
            look::at_write(self, locks)?;
        }
        Ok(())
    }

    /// What a client makes of the answers.
    fn told(&mut self, forest: &Forest<'_>, at: usize, doing: Doing, outcomes: Vec<Outcome>) {
        let margin = safety_margin(TTL, forest.policy.faults);
        let deadline = |holders: &[&Holder]| {
            let ends = holders.iter().map(|holder| holder.end.as_ref().map_or(0, |end| end.at));
            ends.min().unwrap_or(0).saturating_sub(margin)
        };
        let token = |holders: &[&Holder]| holders.iter().find_map(|holder| holder.token).unwrap_or(0);
        let client = &mut self.clients[at];
        let parts = match &doing {
            Doing::Acquires { want, .. } | Doing::Leaves { want, .. } => forest.parts(at, *want).len(),
            Doing::Upgrades { at: held, .. }
            | Doing::TurnsBack { at: held }
            | Doing::Downgrades { at: held }
            | Doing::Extends { at: held }
            | Doing::Releases { at: held } => forest.parts(at, client.held[usize::from(*held)].want).len(),
        };
        let holders = outcomes.iter().map_while(|outcome| match outcome {
            Outcome::Granted(holder) | Outcome::Converted(holder) | Outcome::Extended(holder) => Some(holder),
            _ => None,
        });
        let mut holders: Vec<&Holder> = holders.collect();
        if matches!(doing, Doing::Downgrades { .. } | Doing::TurnsBack { .. }) {
            holders.reverse();
        }
        let all = holders.len() == parts;
        client.doing = match doing {
            Doing::Acquires { want, attempt, .. } if all => {
                let mode = forest.member(at).wants[usize::from(want)].mode;
                client.held.push(Tenancy { want, attempt, mode, deadline: deadline(&holders), token: token(&holders) });
                None
            }
            Doing::Acquires { want, attempt, first, asked, mut places } => match outcomes.last() {
                Some(Outcome::Queued { place, .. }) => {
                    places[outcomes.len() - 1].get_or_insert((place.rank, place.since));
                    Some(Doing::Acquires { want, attempt, first, asked: outcomes.len(), places })
                }
                Some(Outcome::Gone) => Some(Doing::Leaves { want, first, last: attempt, again: Some(places) }),
                _ if asked > 0 => Some(Doing::Leaves { want, first, last: attempt, again: None }),
                // It was told no: nothing may be left of it.
                _ => {
                    client.cancelled.push(id_of(at, attempt));
                    None
                }
            },
            Doing::Leaves { want, first, last, again } => match again {
                Some(places) if client.attempt < MOST_ATTEMPTS => {
                    let attempt = client.attempt;
                    client.attempt += 1;
                    Some(Doing::Acquires { want, attempt, first, asked: 0, places })
                }
                _ => {
                    client.cancelled.extend((first..=last).map(|attempt| id_of(at, attempt)));
                    None
                }
            },
            Doing::Upgrades { at: held, .. } if all => {
                let tenancy = &mut client.held[usize::from(held)];
                (tenancy.mode, tenancy.token) = (Mode::Exclusive, token(&holders));
                None
            }
            Doing::Upgrades { at: held, asked } => match outcomes.last() {
                Some(Outcome::Queued { .. }) => Some(Doing::Upgrades { at: held, asked: outcomes.len() }),
                Some(Outcome::Gone) => Some(Doing::TurnsBack { at: held }),
                _ => (asked > 0).then_some(Doing::TurnsBack { at: held }),
            },
            Doing::Extends { at: held } if all => {
                client.held[usize::from(held)].deadline = deadline(&holders);
                None
            }
            // What is left of it is given back.
            Doing::Extends { at: held } => {
                let Tenancy { want, attempt, .. } = client.held.remove(usize::from(held));
                Some(Doing::Leaves { want, first: attempt, last: attempt, again: None })
            }
            Doing::Releases { at: held } => {
                client.held.remove(usize::from(held));
                None
            }
            // What was granted at the same moment is turned back, with its higher token.
            Doing::Downgrades { at: held } | Doing::TurnsBack { at: held } if all => {
                client.held[usize::from(held)].token = token(&holders);
                None
            }
            Doing::Downgrades { .. } | Doing::TurnsBack { .. } => None,
        };
    }

    /// Somebody looks after every lock.
    pub(super) fn reap(&mut self, forest: &Forest<'_>) -> std::result::Result<(), Violation> {
        for lock in 0..self.states.len() {
            let (now, facts) = (forest.now(self), self.facts());
            let context = Context { now: &now, facts: &facts, policy: &forest.policy };
            let mut closes = true;
            while closes {
                let states = [(*self.states[lock]).clone()];
                let decision = decide_together(&states, &[Call { lock: 0, request: Request::Reap }], context);
                self.apply(forest, &decision.edits, &[lock], !decision.closes)?;
                closes = decision.closes;
            }
        }
        Ok(())
    }

    /// A boot time that has come by this many ticks.
    pub(super) fn passes(&mut self, ticks: u64) {
        self.time = self.time.saturating_add(u16::try_from(ticks).unwrap_or(u16::MAX));
    }
}

/// Where a lease's end stands on the clock.
pub(super) fn end_of(holder: &Holder) -> u64 {
    holder.end.as_ref().map_or(0, |BootTime { at, .. }| *at)
}
