//! Two repositories whose locks are brought together, after work without a connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use gitlock::{
    Error, ErrorCode, LockHandle, LockManager, Mode, Options, Result, SyncFate, SyncStrategy, Synced,
    clock::{Clock, SystemClock},
    lock::{Now, fault::Faults, fit::blocks},
    name::RefName,
    store::{NewValue, Object, Oid, RefEdit, RefStore, Swept, Transacted, Watch, memory::MemoryStore},
};

const WINS: SyncStrategy = SyncStrategy::RemoteWins;
const MINUTE: Duration = Duration::from_secs(60);

/// A time that tests move, the same on every machine; each machine has booted for itself.
#[derive(Clone, Debug)]
struct Machine {
    time: Arc<AtomicU64>,
    boot: Arc<str>,
}

impl Clock for Machine {
    fn now(&self) -> Now {
        let at = 1_700_000_000_000 + self.time.load(SeqCst);
        Now { wall: at, wall_micros: at * 1_000, boot: 5_000_000 + self.time.load(SeqCst), boot_id: self.boot.clone() }
    }

    fn pause(&self, duration: Duration) {
        SystemClock.pause(duration);
    }
}

type Once = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// A store that fails, or in which something happens just before it is written.
#[derive(Clone, Default)]
struct Stumbling {
    store: MemoryStore,
    /// How many writes succeed until one fails, for ever if nothing is said.
    writes: Arc<Mutex<Option<u64>>>,
    before: Arc<Once>,
}

impl std::fmt::Debug for Stumbling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

impl Stumbling {
    fn fail_after(&self, writes: Option<u64>) {
        *self.writes.lock().unwrap() = writes;
    }

    fn before_the_next_write(&self, what: impl FnOnce() + Send + 'static) {
        *self.before.lock().unwrap() = Some(Box::new(what));
    }
}

impl RefStore for Stumbling {
    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        self.store.read(name)
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        self.store.object(id)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        self.store.list(prefix)
    }

    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        let before = self.before.lock().unwrap().take();
        before.into_iter().for_each(|what| what());
        if let Some(writes) = self.writes.lock().unwrap().as_mut() {
            if *writes == 0 {
                return Err(Error::new(ErrorCode::Io, "the connection is cut"));
            }
            *writes -= 1;
        }
        self.store.transact(edits)
    }

    fn restore(&self, value: &NewValue) -> Result<bool> {
        self.store.restore(value)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        self.store.watch(prefix)
    }

    fn superseded(&self, objects: &[Oid]) {
        self.store.superseded(objects);
    }

    fn sweep(&self, grace: Option<Duration>) -> Result<Swept> {
        self.store.sweep(grace)
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

/// A laptop's own repository, and the server as it and others see it.
struct World {
    time: Arc<AtomicU64>,
    /// The laptop's.
    own: Stumbling,
    /// The server's.
    store: Stumbling,
    /// The laptop.
    here: LockManager,
    /// The server, from the laptop.
    there: LockManager,
    /// The server, from another machine.
    team: LockManager,
}

fn manager(time: &Arc<AtomicU64>, store: &Stumbling, boot: &str, owner: Option<&str>) -> LockManager {
    let mut options = Options::default();
    options.clock = Arc::new(Machine { time: time.clone(), boot: boot.into() });
    options.owner = owner.map(str::to_owned);
    LockManager::with_store(Arc::new(store.clone()), options).unwrap()
}

impl World {
    fn new() -> World {
        let (time, own, store) = (Arc::new(AtomicU64::new(0)), Stumbling::default(), Stumbling::default());
        let here = manager(&time, &own, "laptop", Some("laptop"));
        let there = manager(&time, &store, "laptop", Some("laptop"));
        let team = manager(&time, &store, "team", Some("team"));
        World { time, own, store, here, there, team }
    }

    fn laptop(&self, boot: &str) -> (LockManager, LockManager) {
        let here = manager(&self.time, &Stumbling::default(), boot, Some(boot));
        (here, manager(&self.time, &self.store, boot, Some(boot)))
    }

    fn passes(&self, time: Duration) {
        self.time.fetch_add(u64::try_from(time.as_millis()).unwrap(), SeqCst);
    }

    fn sync(&self, strategy: SyncStrategy) -> Vec<String> {
        told(&self.here.sync(&self.there, strategy).unwrap())
    }
}

/// What a sync did, as words.
fn told(synced: &Synced) -> Vec<String> {
    assert_eq!(synced.left, []);
    let mut told: Vec<String> =
        synced.changes.iter().map(|one| format!("{} {}", one.name, one.fate.as_str())).collect();
    told.sort();
    told
}

/// Acquires for a minute, without a background thread that renews it.
fn take(manager: &LockManager, name: &str) -> LockHandle {
    take_with(manager, name, Mode::Exclusive, 0).unwrap()
}

fn take_with(manager: &LockManager, name: &str, mode: Mode, priority: i32) -> Option<LockHandle> {
    let request = manager.lock(name).fingerprint("mine").ttl(MINUTE).priority(priority);
    let request = if mode == Mode::Shared { request.shared() } else { request };
    Some(request.try_acquire().unwrap()?.detach())
}

/// Who holds what, by name: the ids, and those of intents.
fn held(manager: &LockManager) -> BTreeMap<String, Vec<String>> {
    let listing = manager.list().unwrap();
    let all = listing.locks.into_iter().map(|lock| {
        let holders = lock.holders.iter().chain(&lock.intents);
        let mut ids: Vec<String> = holders.map(|status| status.holder.claim.id.clone()).collect();
        ids.sort();
        (lock.name.to_string(), ids)
    });
    all.collect()
}

fn journal(manager: &LockManager, name: &str) -> Vec<(String, String)> {
    let entries = manager.log(name, 100).unwrap();
    entries.into_iter().map(|entry| (entry.outcome, entry.id)).collect()
}

fn id(handle: &LockHandle) -> String {
    handle.id().unwrap().to_owned()
}

#[test]
fn what_is_taken_here_is_held_there_until_it_is_released_here() {
    let world = World::new();
    let handle = take(&world.here, "report");
    assert_eq!(world.sync(WINS), ["report sent"]);
    assert_eq!(held(&world.there), held(&world.here));
    assert!(take_with(&world.team, "report", Mode::Exclusive, 0).is_none());
    assert_eq!(world.sync(WINS), [""; 0]);
    world.passes(MINUTE / 2);
    world.here.extend(&handle, None).unwrap();
    assert_eq!(world.sync(WINS), [""; 0], "a renewal is nothing to tell of");
    world.passes(MINUTE * 3 / 4);
    assert!(take_with(&world.team, "report", Mode::Exclusive, 0).is_none(), "but it is carried over");
    world.here.release(&handle).unwrap();
    assert_eq!(world.sync(WINS), ["report ended-there"]);
    assert_eq!(journal(&world.team, "report"), [("released".to_owned(), id(&handle))]);
    let token = take(&world.team, "report").token().unwrap();
    assert!(token > handle.token().unwrap());
}

#[test]
fn what_is_taken_there_is_held_here_until_it_is_released_there() {
    let world = World::new();
    let handle = take(&world.team, "report");
    assert_eq!(world.sync(WINS), ["report received"]);
    assert!(take_with(&world.here, "report", Mode::Exclusive, 0).is_none());
    let status = world.here.status("report").unwrap();
    assert_eq!(gitlock::json::status(&status)["holders"][0]["from"], world.there.location());
    assert_eq!(world.sync(WINS), [""; 0]);
    world.team.release(&handle).unwrap();
    assert!(take_with(&world.here, "report", Mode::Exclusive, 0).is_none(), "nobody has heard of that here");
    assert_eq!(world.sync(WINS), ["report ended-here"]);
    assert_eq!(journal(&world.here, "report")[0], ("ended elsewhere".to_owned(), id(&handle)));
    assert!(take(&world.here, "report").token() > handle.token());
}

#[test]
fn a_copy_that_ran_out_ends_nothing() {
    let world = World::new();
    let handle = take(&world.team, "report");
    world.sync(WINS);
    // Renewed there, and nobody here heard of it.
    world.passes(MINUTE / 2);
    world.team.extend(&handle, None).unwrap();
    world.passes(MINUTE * 3 / 4);
    let mine = take(&world.here, "report");
    assert_eq!(journal(&world.here, "report")[0].0, "expired");
    world.here.release(&mine).unwrap();
    assert_eq!(world.sync(WINS), ["report received"]);
    assert!(world.team.verify("report", handle.token().unwrap()).is_ok());
    assert!(take_with(&world.here, "report", Mode::Exclusive, 0).is_none());
    // What ended here without a connection is told of there, but for the copy.
    let there = world.team.log("report", 9).unwrap();
    assert_eq!(there.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>(), [id(&mine)]);
    // The copy was called ended by the journal's tip, and is held all the same.
    world.passes(MINUTE * 2);
    take(&world.here, "other");
    world.team.release(&handle).unwrap_err();
}

#[test]
fn a_copy_that_the_journals_tip_calls_ended_goes_on() {
    let world = World::new();
    let handle = take(&world.team, "report");
    world.sync(WINS);
    world.passes(MINUTE / 2);
    world.team.extend(&handle, None).unwrap();
    world.passes(MINUTE * 3 / 4);
    world.here.clean(None).unwrap();
    assert_eq!(journal(&world.here, "report")[0].0, "expired");
    assert_eq!(world.sync(WINS), ["report received"]);
    assert_eq!(journal(&world.here, "report")[0].0, "goes on");
    assert_eq!(held(&world.here), held(&world.there));
    assert!(take_with(&world.here, "report", Mode::Exclusive, 0).is_none());
    assert_eq!(world.sync(WINS), [""; 0]);
}

#[test]
fn a_holder_that_was_offline_for_longer_than_its_lease_keeps_the_lock_that_nobody_took() {
    let world = World::new();
    let handle = take(&world.here, "report");
    world.sync(WINS);
    for _ in 0..6 {
        world.passes(MINUTE / 2);
        world.here.extend(&handle, None).unwrap();
    }
    assert_eq!(world.sync(WINS), [""; 0]);
    assert!(take_with(&world.team, "report", Mode::Exclusive, 0).is_none());
}

#[test]
fn what_was_ended_there_is_lost_here() {
    let world = World::new();
    let guard = world.here.lock("report").ttl(MINUTE).acquire().unwrap();
    world.sync(WINS);
    world.team.break_lock("report", None, Some("too slow")).unwrap();
    let (tell, heard) = mpsc::channel();
    guard.on_lost(move |error| tell.send(error.to_string()).unwrap());
    assert_eq!(world.sync(WINS), ["report lost"]);
    assert!(heard.try_recv().unwrap().contains("was ended at"));
    assert_eq!(guard.release().unwrap_err().code(), ErrorCode::LockLost);
    assert_eq!(held(&world.here), BTreeMap::new());
}

#[test]
fn what_was_ended_there_before_it_could_be_remembered_is_not_brought_back() {
    let world = World::new();
    let handle = take(&world.here, "report");
    world.own.fail_after(Some(0));
    assert_eq!(world.here.sync(&world.there, WINS).unwrap_err().code(), ErrorCode::Io);
    world.own.fail_after(None);
    assert!(world.team.status("report").unwrap().is_held(), "it was sent, and that wasn't remembered here");
    world.team.break_lock("report", None, None).unwrap();
    assert_eq!(world.sync(WINS), ["report lost"]);
    world.here.release(&handle).unwrap_err();
}

#[test]
fn what_others_do_in_the_midst_of_it_is_seen() {
    let world = World::new();
    let mine = take(&world.here, "report");
    let team = world.team.clone();
    world.store.before_the_next_write(move || drop(take(&team, "report")));
    assert_eq!(world.sync(WINS), ["report overruled", "report received"]);
    world.here.release(&mine).unwrap_err();

    // Here a reader comes, who doesn't go with what was just compared.
    let world = World::new();
    let theirs = take(&world.team, "docs");
    let here = world.here.clone();
    world.own.before_the_next_write(move || drop(take_with(&here, "docs", Mode::Shared, 0).unwrap()));
    assert_eq!(world.sync(WINS), ["docs overruled", "docs received"]);
    assert_eq!(held(&world.here)["docs"], [id(&theirs)]);
}

#[test]
fn every_strategy_chooses_as_it_says() {
    // The team acquires first; the laptop has the higher priority, and the higher token.
    for (strategy, laptop_wins) in [
        (SyncStrategy::RemoteWins, false),
        (SyncStrategy::Oldest, false),
        (SyncStrategy::HighestPriority, true),
        (SyncStrategy::HighestToken, true),
    ] {
        let world = World::new();
        let theirs = take_with(&world.team, "report", Mode::Exclusive, 1).unwrap();
        world.passes(Duration::from_secs(1));
        let mine = take_with(&world.here, "report", Mode::Exclusive, 2).unwrap();
        let expected =
            if laptop_wins { ["report overruled", "report sent"] } else { ["report overruled", "report received"] };
        assert_eq!(world.sync(strategy), expected, "{strategy:?}");
        let (winner, loser) = if laptop_wins { (&mine, &theirs) } else { (&theirs, &mine) };
        assert_eq!(held(&world.here)["report"], [id(winner)]);
        assert_eq!(held(&world.there), held(&world.here));
        let (home, elsewhere) = if laptop_wins { (&world.team, &world.here) } else { (&world.here, &world.team) };
        assert_eq!(journal(home, "report"), [("overruled".to_owned(), id(loser))]);
        assert_eq!(journal(elsewhere, "report"), []);
        let why = home.log("report", 1).unwrap()[0].break_reason.clone().unwrap();
        assert!(why.contains(strategy.as_str()) && why.contains(if laptop_wins { "laptop" } else { "team" }), "{why}");
        home.release(loser).unwrap_err();
        assert_eq!(world.sync(strategy), [""; 0]);
    }
}

#[test]
fn the_oldest_wins_from_here_too() {
    let world = World::new();
    let mine = take(&world.here, "report");
    world.passes(Duration::from_secs(1));
    let theirs = take(&world.team, "report");
    assert_eq!(world.sync(SyncStrategy::Oldest), ["report overruled", "report sent"]);
    assert_eq!(held(&world.there)["report"], [id(&mine)]);
    let token = world.here.status("report").unwrap().holders[0].holder.token.unwrap();
    assert!(token > theirs.token().unwrap(), "whoever checks tokens has seen the other one's");
    assert!(world.team.verify("report", token).is_ok());
}

#[test]
fn fail_leaves_both_and_does_the_rest() {
    let world = World::new();
    let (mine, theirs) = (take(&world.here, "report"), take(&world.team, "report"));
    take(&world.here, "other");
    let error = world.here.sync(&world.there, SyncStrategy::Fail).unwrap_err();
    assert_eq!(error.code(), ErrorCode::SyncConflict);
    assert!(error.to_string().contains("laptop") && error.to_string().contains("team"), "{error}");
    assert_eq!(held(&world.here)["report"], [id(&mine)]);
    assert_eq!(held(&world.there)["report"], [id(&theirs)]);
    assert_eq!(held(&world.there)["other"], held(&world.here)["other"]);
    world.team.release(&theirs).unwrap();
    assert_eq!(told(&world.here.sync(&world.there, SyncStrategy::Fail).unwrap()), ["report sent"]);
}

#[test]
fn a_tree_is_one_thing() {
    let world = World::new();
    let (below, above) = (take(&world.team, "deploy/eu"), take(&world.here, "deploy"));
    assert_eq!(world.sync(WINS), ["deploy overruled", "deploy/eu received"]);
    assert_eq!(held(&world.here), held(&world.there));
    assert_eq!(held(&world.here)["deploy"], [id(&below)], "its intent is there too");
    assert!(take_with(&world.here, "deploy", Mode::Exclusive, 0).is_none());
    world.here.release(&above).unwrap_err();
    let beside = take(&world.here, "deploy/us");
    assert_eq!(world.sync(WINS), ["deploy/us sent"]);
    assert_eq!(held(&world.here), held(&world.there));
    world.team.release(&below).unwrap();
    assert_eq!(world.sync(WINS), ["deploy/eu ended-here"]);
    world.here.release(&beside).unwrap();
    assert_eq!(world.sync(WINS), ["deploy/us ended-there"]);
    assert_eq!((held(&world.here), held(&world.there)), (BTreeMap::new(), BTreeMap::new()));
}

#[test]
fn the_whole_of_a_set_goes_or_none() {
    let world = World::new();
    let set = world.here.lock_all(&["web", "db"]).fingerprint("mine").ttl(MINUTE).acquire().unwrap().detach();
    take(&world.team, "db");
    assert_eq!(world.sync(WINS), ["db overruled", "db received", "web overruled"]);
    assert!(!held(&world.there).contains_key("web") && !held(&world.here).contains_key("web"));
    world.here.release(&set).unwrap_err();
}

#[test]
fn readers_and_slots_get_along() {
    let world = World::new();
    take_with(&world.here, "docs", Mode::Shared, 0).unwrap();
    take_with(&world.team, "docs", Mode::Shared, 0).unwrap();
    let slot = |manager: &LockManager| {
        let guard = manager.lock("gpu").slots(2).fingerprint("mine").ttl(MINUTE).try_acquire().unwrap().unwrap();
        (guard.slot().unwrap(), guard.detach())
    };
    let (first, mine) = slot(&world.here);
    let (same, _) = slot(&world.team);
    assert_eq!((first, same), (0, 0));
    assert_eq!(world.sync(WINS), ["docs received", "docs sent", "gpu overruled", "gpu received"]);
    assert_eq!(held(&world.here), held(&world.there));
    world.here.release(&mine).unwrap_err();
    assert_eq!(slot(&world.here).0, 1);
    assert_eq!(world.sync(WINS), ["gpu sent"]);
    assert!(world.team.lock("gpu").slots(2).try_acquire().unwrap().is_none());
}

#[test]
fn who_waits_goes_on_waiting_where_it_does() {
    let world = World::new();
    let theirs = take(&world.team, "report");
    world.sync(WINS);
    let (tell, granted) = mpsc::channel();
    let waiting = world.here.lock("report").start(move |result| tell.send(result).unwrap()).unwrap();
    while world.here.status("report").unwrap().queue.is_empty() {
        SystemClock.pause(Duration::from_millis(5));
    }
    assert_eq!(world.sync(WINS), [""; 0]);
    assert_eq!(world.there.status("report").unwrap().queue.len(), 0);
    world.team.release(&theirs).unwrap();
    assert_eq!(world.sync(WINS), ["report ended-here"]);
    let guard = granted.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert_eq!(world.sync(WINS), ["report sent"]);
    guard.release().unwrap();
    drop(waiting);
}

#[test]
fn what_was_done_offline_is_told_of_there() {
    let world = World::new();
    world.here.release(&take(&world.here, "report")).unwrap();
    world.sync(WINS);
    assert_eq!(journal(&world.team, "report"), [], "what was before the first sync stays here");
    let offline = [take(&world.here, "report")].map(|handle| {
        world.here.release(&handle).unwrap();
        handle
    });
    world.passes(Duration::from_secs(1));
    let expired = take(&world.here, "report");
    world.passes(MINUTE * 2);
    world.sync(WINS);
    world.sync(WINS);
    let expected = [("expired".to_owned(), id(&expired)), ("released".to_owned(), id(&offline[0]))];
    assert_eq!(journal(&world.team, "report"), expected);
    assert!(!held(&world.team).contains_key("report"));
    assert!(take(&world.team, "report").token() > expired.token());
}

#[test]
fn a_bounded_journal_is_not_told_twice() {
    let time = Arc::new(AtomicU64::new(0));
    let mut options = Options::default();
    options.keep = Some(2);
    options.clock = Arc::new(Machine { time: time.clone(), boot: "laptop".into() });
    let here = LockManager::with_store(Arc::new(MemoryStore::new()), options).unwrap();
    let there = manager(&time, &Stumbling::default(), "laptop", None);
    here.release(&take(&here, "report")).unwrap();
    here.sync(&there, WINS).unwrap();
    for count in 1..9 {
        here.release(&take(&here, "report")).unwrap();
        here.sync(&there, WINS).unwrap();
        assert_eq!(journal(&there, "report").len(), count);
    }
}

#[test]
fn a_repository_is_not_synced_with_itself() {
    let world = World::new();
    let error = world.there.sync(&world.team, WINS).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

// ---------------------------------------------------------------- at random

/// A small generator, so that a failure can be told by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
    }
}

/// Nobody stands beside somebody who keeps it out.
fn assert_compatible(manager: &LockManager) {
    for lock in manager.list().unwrap().locks {
        let all: Vec<_> = lock.holders.iter().chain(&lock.intents).map(|status| &status.holder).collect();
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                let apart =
                    blocks(&one.claim, &other.claim, Faults::NONE) && blocks(&other.claim, &one.claim, Faults::NONE);
                assert!(
                    !apart && (one.slot.is_none() || one.slot != other.slot),
                    "{} beside {}",
                    one.claim.id,
                    other.claim.id
                );
            }
        }
    }
}

/// Everybody's tenures, as their homes know them.
struct Tenures {
    /// By home: 0 and 1 are laptops, 2 is the team.
    all: Vec<(usize, LockHandle)>,
    /// The highest token of each lock that the server has seen.
    highest: HashMap<String, u64>,
}

fn lives(manager: &LockManager, handle: &LockHandle) -> bool {
    held(manager).get(handle.name().as_str()).is_some_and(|ids| ids.contains(&id(handle)))
}

#[test]
fn any_history_ends_in_agreement() {
    let rounds: u64 = std::env::var("GITLOCK_SYNC_HISTORIES").map_or(150, |count| count.parse().unwrap());
    for seed in 0..rounds {
        history(seed);
    }
}

fn history(seed: u64) {
    let mut dice = Dice(seed);
    let world = World::new();
    let (second, second_there) = world.laptop("second");
    let homes = [world.here.clone(), second, world.team.clone()];
    let servers = [world.there.clone(), second_there];
    let mut tenures = Tenures { all: Vec::new(), highest: HashMap::new() };
    for step in 0..30 {
        let home = usize::try_from(dice.roll(3)).unwrap();
        match dice.roll(10) {
            0..=2 => {
                let name = *dice.of(&["x", "x/a", "x/a/b", "y"]);
                let mode = *dice.of(&[Mode::Shared, Mode::Exclusive, Mode::Exclusive]);
                let priority = i32::try_from(dice.roll(3)).unwrap();
                let Some(handle) = take_with(&homes[home], name, mode, priority) else { continue };
                if home == 2 {
                    let highest = tenures.highest.entry(name.to_owned()).or_default();
                    assert!(handle.token().unwrap() > *highest, "seed {seed}, step {step}: a token shrank");
                    *highest = handle.token().unwrap();
                }
                tenures.all.push((home, handle));
            }
            3 if !tenures.all.is_empty() => {
                let (home, handle) = dice.of(&tenures.all);
                let _ = homes[*home].release(handle);
            }
            4 if !tenures.all.is_empty() => {
                let (home, handle) = dice.of(&tenures.all);
                let _ = homes[*home].extend(handle, None);
            }
            5 => world.passes(MINUTE / *dice.of(&[1, 2, 5, 60])),
            6 if dice.roll(4) == 0 => drop(homes[home].break_lock("x", None, None)),
            // A cut in the middle, after which all goes on as if it had never been.
            7 => {
                let cut = if dice.roll(2) == 0 { &world.own } else { &world.store };
                cut.fail_after(Some(dice.roll(3)));
                let _ = world.here.sync(&world.there, *dice.of(&SyncStrategy::ALL));
                cut.fail_after(None);
            }
            _ => {
                let laptop = home % 2;
                let strategy = *dice.of(&SyncStrategy::ALL);
                sync_and_check(
                    (&homes, laptop, &servers[laptop]),
                    strategy,
                    &mut tenures,
                    &format!("seed {seed}, step {step}"),
                );
            }
        }
    }
}

fn sync_and_check(
    (homes, laptop, server): (&[LockManager; 3], usize, &LockManager),
    strategy: SyncStrategy,
    tenures: &mut Tenures,
    at: &str,
) {
    let here = &homes[laptop];
    let living: Vec<(usize, LockHandle)> =
        tenures.all.iter().filter(|(home, handle)| lives(&homes[*home], handle)).cloned().collect();
    let known_there: Vec<String> = held(server).into_values().flatten().collect();
    let synced = match here.sync(server, strategy) {
        Ok(synced) => synced,
        Err(error) => {
            assert_eq!((error.code(), strategy), (ErrorCode::SyncConflict, SyncStrategy::Fail), "{at}: {error}");
            return;
        }
    };
    assert_eq!(held(here), held(server), "{at}: the two differ");
    assert_compatible(here);
    assert_compatible(server);
    for change in &synced.changes {
        let (fate, of) = (&change.fate, change.holder.claim.id.clone());
        if *fate == SyncFate::Sent {
            let highest = tenures.highest.entry(change.name.to_string()).or_default();
            let token = change.holder.token.unwrap();
            assert!(token > *highest, "{at}: a token was sent that isn't above {highest}");
            *highest = token;
        }
        if *fate == SyncFate::Lost {
            assert!(!known_there.contains(&of), "{at}: {of} was lost, and stood there");
        }
    }
    for (home, handle) in living {
        let fate: Vec<&SyncFate> = synced
            .changes
            .iter()
            .filter(|change| change.holder.claim.id == id(&handle))
            .map(|change| &change.fate)
            .collect();
        let overruled = fate.iter().any(|fate| matches!(fate, SyncFate::Overruled { .. }));
        let lost = fate.contains(&&SyncFate::Lost);
        if home == laptop {
            assert_eq!(lives(here, &handle), !overruled && !lost, "{at}: {handle:?} {fate:?}");
        } else if home == 2 {
            assert_eq!(lives(&homes[2], &handle), !overruled, "{at}: {handle:?} {fate:?}");
        } else {
            assert!(lives(&homes[home], &handle), "{at}: another laptop's own repository was changed");
        }
    }
}
