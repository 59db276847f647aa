//! `model [--full] [--fault NAME | --faults | --only SCENARIO | --histories N]`: explores the rules of locking exhaustively, and
//! shows that leaving any of them out is noticed.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
};

use gitlock::lock::fault::{Fault, Faults};
use gitlock_tests::{
    model::{Found, RULES, Report, caught, explore, scenarios, several},
    reference::history,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (full, rest): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|argument| *argument == "--full");
    let full = !full.is_empty();
    let words: Vec<&str> = rest.into_iter().map(String::as_str).collect();
    match words[..] {
        [] => faultless(full, ""),
        ["--only", scenario] => faultless(full, scenario),
        ["--faults"] => every_fault(full),
        ["--histories", count] if count.parse::<u64>().is_ok() => histories(count.parse().unwrap_or(0)),
        ["--fault", name] => match every_rule().find(|fault| fault.as_str() == name) {
            Some(fault) => one_fault(fault, full),
            None => {
                eprintln!("no fault is called {name:?}; those of the rules are:");
                every_rule().for_each(|fault| eprintln!("  {}", fault.as_str()));
                ExitCode::from(2)
            }
        },
        _ => {
            eprintln!("usage: model [--full] [--fault NAME | --faults | --only SCENARIO | --histories N]");
            ExitCode::from(2)
        }
    }
}

/// A world to explore, and how.
type World = (&'static str, Box<dyn Fn() -> gitlock::Result<Report> + Sync>);

/// The worlds of one lock, and those of several.
fn worlds(full: bool) -> Vec<World> {
    let one = scenarios(full)
        .into_iter()
        .map(|scenario| -> World { (scenario.name, Box::new(move || explore(&scenario, Faults::NONE))) });
    let several = several::groves(full)
        .into_iter()
        .map(|grove| -> World { (grove.name, Box::new(move || several::explore(&grove, Faults::NONE))) });
    one.chain(several).collect()
}

/// The faults that leave out a rule, of one lock or of several.
fn every_rule() -> impl Iterator<Item = Fault> {
    RULES.iter().chain(several::RULES).copied()
}

fn find(fault: Fault, full: bool) -> gitlock::Result<Option<(&'static str, Found)>> {
    if several::RULES.contains(&fault) { several::caught(fault, full) } else { caught(fault, full) }
}

/// Everything as it should be: no invariant may break in any state.
fn faultless(full: bool, only: &str) -> ExitCode {
    let worlds: Vec<World> = worlds(full).into_iter().filter(|world| world.0.contains(only)).collect();
    let (mut states, mut steps, mut sound) = (0, 0, true);
    for ((name, _), report) in worlds.iter().zip(on_all_cores(&worlds, |(_, explore)| explore())) {
        match report {
            Ok(report) => {
                println!("{name:24}{:>10} states {:>10} steps", report.states, report.steps);
                (states, steps) = (states + report.states, steps + report.steps);
                if let Some(found) = report.found {
                    println!("{name}: BROKEN");
                    tell(&found);
                    sound = false;
                }
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                sound = false;
            }
        }
    }
    let verdict = if sound && states > 0 { "every invariant holds" } else { "BROKEN" };
    println!("{:24}{states:>10} states {steps:>10} steps: {verdict}", "in all");
    if sound && states > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// So many random histories of trees, sets, slots and upgrades beside a plain lock table.
fn histories(count: u64) -> ExitCode {
    let chunks: Vec<u64> = (0..count.div_ceil(1_000)).collect();
    let found = on_all_cores(&chunks, |chunk| {
        let seeds = chunk * 1_000 + 1..(chunk * 1_000 + 1_001).min(count + 1);
        seeds.clone().find_map(|seed| Some((seed, history(seed, Faults::NONE).err()?)))
    });
    let wrong: Vec<(u64, String)> = found.into_iter().flatten().collect();
    wrong.iter().take(5).for_each(|(seed, why)| println!("history {seed}: {why}"));
    println!("{count} histories, {} of them wrong", wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn every_fault(full: bool) -> ExitCode {
    if faultless(full, "") != ExitCode::SUCCESS {
        return ExitCode::FAILURE;
    }
    let (mut missed, rules) = (0, every_rule().collect::<Vec<_>>());
    for (fault, found) in rules.iter().zip(on_all_cores(&rules, |fault| find(*fault, full))) {
        match found {
            Ok(Some((scenario, Found { invariant, what, .. }))) => {
                println!("{:24}caught by {:24} in {scenario}: {what}", fault.as_str(), invariant.to_string());
            }
            Ok(None) => {
                println!("{:24}NOT CAUGHT", fault.as_str());
                missed += 1;
            }
            Err(error) => {
                eprintln!("{}: {error}", fault.as_str());
                missed += 1;
            }
        }
    }
    println!("{} of {} faults caught", rules.len() - missed, rules.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Applies this to each, as many at a time as there are cores, and keeps the order.
fn on_all_cores<T: Sync, R: Send>(items: &[T], apply: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let work = || {
        let mut done = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(at)
        {
            done.push((at, apply(item)));
        }
        done
    };
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        // A worker that panics has told why; what it had is missing, and so is its verdict.
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    assert_eq!(all.len(), items.len(), "a worker panicked");
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Whoever seeds a fault wants to see it: success is that it is caught.
fn one_fault(fault: Fault, full: bool) -> ExitCode {
    match find(fault, full) {
        Ok(Some((scenario, found))) => {
            println!("{}: caught in {scenario}", fault.as_str());
            tell(&found);
            ExitCode::SUCCESS
        }
        Ok(None) => {
            println!("{}: NOT CAUGHT", fault.as_str());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(found: &Found) {
    println!("  {}: {}", found.invariant, found.what);
    found.trace.iter().enumerate().for_each(|(at, step)| println!("  {:>3}. {step}", at + 1));
}
