//! Random histories of two laptops and a server.

use std::{collections::HashMap, panic::catch_unwind};

use gitlock::{
    ErrorCode, LockHandle, LockManager, LockName, Mode, SyncFate, SyncStrategy,
    lock::{
        fault::{Fault, Faults},
        fit::blocks,
    },
};

use gitlock_tests::torture::Random;

use crate::world::{MINUTE, World, held, id, journal, take_with};

const NAMES: [&str; 5] = ["x", "x/a", "x/a/b", "x/b", "y"];

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
    let held = held(manager);
    let holds = |name: &LockName| held.get(name.as_str()).is_some_and(|ids| ids.contains(&id(handle)));
    handle.names().iter().all(holds)
}

#[test]
fn any_history_ends_in_agreement() {
    let rounds: u64 = std::env::var("GITLOCK_SYNC_HISTORIES").map_or(150, |count| count.parse().unwrap());
    for seed in 0..rounds {
        history(seed, Faults::NONE);
    }
}

/// Without any one of the rules of a sync some history ends otherwise.
#[test]
fn no_rule_of_a_sync_can_be_left_out() {
    let of_a_sync: Vec<&Fault> = Fault::ALL.iter().filter(|fault| fault.as_str().starts_with("Sync")).collect();
    assert_eq!(of_a_sync.len(), 6);
    for fault in of_a_sync {
        let caught = (0..2_000).find(|seed| catch_unwind(|| history(*seed, Faults::only(*fault))).is_err());
        println!("{}: caught by history {caught:?}", fault.as_str());
        assert!(caught.is_some(), "{} isn't noticed", fault.as_str());
    }
}

fn history(seed: u64, faults: Faults) {
    let mut dice = Random::new(seed);
    let world = World::with(faults);
    let (second, second_there) = world.laptop("second");
    let homes = [world.here.clone(), second, world.team.clone()];
    let servers = [world.there.clone(), second_there];
    let mut tenures = Tenures { all: Vec::new(), highest: HashMap::new() };
    for step in 0..30 {
        let home = usize::try_from(dice.below(3)).unwrap();
        match dice.below(10) {
            0..=2 => {
                let names: &[&str] = dice.of::<&[&str]>(&[&["x"], &["x/a"], &["x/a/b"], &["y"], &["x/b", "y"]]);
                let shared = dice.below(3) == 0;
                let request = homes[home].lock_all(names).fingerprint("mine").ttl(MINUTE);
                let request = request.priority(i32::try_from(dice.below(3)).unwrap());
                let request = if shared { request.shared() } else { request };
                let Some(guard) = request.try_acquire().unwrap() else { continue };
                for name in names.iter().filter(|_| home == 2) {
                    let (token, highest) =
                        (guard.token_of(name).unwrap(), tenures.highest.entry((*name).to_owned()).or_default());
                    assert!(token > *highest, "seed {seed}, step {step}: a token shrank");
                    *highest = token;
                }
                tenures.all.push((home, guard.detach()));
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
            6 if dice.below(4) == 0 => drop(homes[home].break_lock("x", None, None)),
            // A cut in the middle, after which all goes on as if it had never been.
            7 => {
                let cut = if dice.below(2) == 0 { &world.own } else { &world.store };
                cut.fail_after(Some(dice.below(3)));
                let _ = world.here.sync(&world.there, *dice.of(&SyncStrategy::ALL));
                cut.fail_after(None);
            }
            _ => {
                let laptop = home % 2;
                // Once while somebody comes in the middle of it.
                if dice.below(3) == 0 {
                    let (team, here) = world.others();
                    world.store.before_the_next_write(move || drop(take_with(&team, "x/a", Mode::Shared, 0)));
                    world.own.before_the_next_write(move || drop(take_with(&here, "y", Mode::Shared, 0)));
                    let _ = homes[laptop].sync(&servers[laptop], *dice.of(&SyncStrategy::ALL));
                    world.store.before_the_next_write(|| {});
                    world.own.before_the_next_write(|| {});
                    homes.iter().for_each(assert_compatible);
                }
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
    let ended_there: Vec<String> = NAMES.iter().flat_map(|name| journal(server, name)).map(|(_, id)| id).collect();
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
            assert!(ended_there.contains(&of), "{at}: {of} was lost, and nobody had ended it");
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
