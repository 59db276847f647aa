//! Two repositories whose locks are brought together, after work without a connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "sync/histories.rs"]
mod histories;
#[path = "sync/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64, mpsc},
    time::Duration,
};

use gitlock::{
    ErrorCode, LockHandle, LockManager, Mode, Options, SyncStrategy,
    clock::{Clock, SystemClock},
    store::memory::MemoryStore,
};
use gitlock_tests::{
    git::{Repo, assert_sound, run_git},
    servers::{Daemon, Served, free_port},
};

use world::{MINUTE, Machine, Stumbling, WINS, World, held, id, journal, manager, take, take_with, told};

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

/// A lock of the team's, and a copy of it that has run out: it was renewed there, and nobody here heard of that.
fn with_an_old_copy() -> (World, LockHandle) {
    let world = World::new();
    let handle = take(&world.team, "report");
    world.sync(WINS);
    world.passes(MINUTE / 2);
    world.team.extend(&handle, None).unwrap();
    world.passes(MINUTE * 3 / 4);
    (world, handle)
}

#[test]
fn a_copy_that_ran_out_ends_nothing() {
    let (world, handle) = with_an_old_copy();
    let mine = take(&world.here, "report");
    assert_eq!(journal(&world.here, "report")[0].0, "expired");
    world.here.release(&mine).unwrap();
    assert_eq!(world.sync(WINS), ["report received"]);
    assert!(world.team.verify("report", handle.token().unwrap()).is_ok());
    assert!(take_with(&world.here, "report", Mode::Exclusive, 0).is_none());
    // What ended here without a connection is told of there, but for the copy.
    let there = world.team.log("report", 9).unwrap();
    assert_eq!(there.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>(), [id(&mine)]);
}

#[test]
fn a_copy_that_the_journals_tip_calls_ended_goes_on() {
    let (world, _) = with_an_old_copy();
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
    let (team, _) = world.others();
    world.store.before_the_next_write(move || drop(take(&team, "report")));
    assert_eq!(world.sync(WINS), ["report overruled", "report received"]);
    world.here.release(&mine).unwrap_err();

    // Here a reader comes, who doesn't go with what was just compared.
    let world = World::new();
    let theirs = take(&world.team, "docs");
    let (_, here) = world.others();
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
fn a_guard_learns_of_the_token_that_it_was_given() {
    let world = World::new();
    let guard = world.here.lock("report").ttl(MINUTE).acquire().unwrap();
    world.passes(Duration::from_secs(1));
    let theirs = take(&world.team, "report");
    world.team.release(&theirs).unwrap();
    assert!(guard.token() < theirs.token().unwrap());
    assert_eq!(world.sync(WINS), ["report sent"]);
    guard.extend(None).unwrap();
    assert!(guard.token() > theirs.token().unwrap());
    assert!(world.team.verify("report", guard.token()).is_ok());
    guard.release().unwrap();
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
fn what_was_told_before_a_cut_is_not_told_twice() {
    let world = World::new();
    world.here.release(&take(&world.here, "report")).unwrap();
    world.sync(WINS);
    let offline = take(&world.here, "report");
    world.here.release(&offline).unwrap();
    world.own.fail_after(Some(0));
    assert_eq!(world.here.sync(&world.there, WINS).unwrap_err().code(), ErrorCode::Io);
    world.own.fail_after(None);
    assert_eq!(journal(&world.team, "report"), [("released".to_owned(), id(&offline))], "told, and not remembered");
    let theirs = take(&world.team, "report");
    world.team.release(&theirs).unwrap();
    let later = take(&world.here, "report");
    world.here.release(&later).unwrap();
    world.sync(WINS);
    let expected = [&later, &theirs, &offline].map(|handle| ("released".to_owned(), id(handle)));
    assert_eq!(journal(&world.team, "report"), expected);
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

// ---------------------------------------------------------------- real Git

#[test]
fn a_clone_works_on_while_its_server_is_away() {
    let (served, port, client) = (Served::new(), free_port(), Repo::new());
    let start = || Daemon::start_at(served.folder(), &["--enable=receive-pack"], port);
    let daemon = start();
    let here = LockManager::open(client.path()).unwrap();
    let mut options = Options::default();
    options.remote = Some(format!("git://127.0.0.1:{port}/locks.git"));
    options.remote_timeout = Duration::from_secs(1);
    let there = LockManager::open_with(client.path(), options.clone()).unwrap();
    let (report, docs) = (take(&here, "report"), take(&there, "docs"));
    assert_eq!(told(&here.sync(&there, WINS).unwrap()), ["docs received", "report sent"]);
    drop(daemon);

    assert_eq!(here.sync(&there, WINS).unwrap_err().code(), ErrorCode::Io);
    here.release(&report).unwrap();
    let again = take(&here, "report");
    here.release(&again).unwrap();
    let site = take(&here, "site");
    client.git(&["gc", "--quiet", "--prune=now"]);

    let _daemon = start();
    let other = LockManager::open_with(client.path(), options).unwrap();
    let theirs = take(&other, "site");
    assert_eq!(told(&here.sync(&there, WINS).unwrap()), ["report ended-there", "site overruled", "site received"]);
    assert_eq!(here.release(&site).unwrap_err().code(), ErrorCode::LockLost);
    other.release(&theirs).unwrap();
    other.release(&docs).unwrap();
    assert_eq!(told(&here.sync(&there, WINS).unwrap()), ["docs ended-here", "site ended-here"]);

    let subjects = |dir: &std::path::Path, name: &str| {
        let log = run_git(dir, &["log", "--format=%s", &format!("refs/gitvan/journal/{name}")]);
        log.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(subjects(&served.repository(), "report"), ["report: released", "report: released"], "both tenures");
    assert_eq!(subjects(client.path(), "site"), ["site: ended elsewhere", "site: overruled"]);
    let tracking = client.git(&["for-each-ref", "--format=%(refname)", "refs/gitvan/tracking"]);
    assert_eq!(tracking.lines().count(), 3, "{tracking}");
    assert_eq!(client.git(&["for-each-ref", "refs/gitvan/locks"]), "");
    client.git(&["gc", "--quiet", "--prune=now"]);
    assert_sound(client.path());
    assert_sound(&served.repository());
}
