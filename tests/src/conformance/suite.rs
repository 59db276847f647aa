//! The whole set: what each shim supports, every run, and whether every code was raised everywhere.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use gitlock::{
    ErrorCode,
    clock::{Clock, SystemClock},
};

use super::{
    plan::{Extent, Plan, Run, plan},
    play::{Conditions, Start, names, play},
    scenario::Scenario,
    site::Site,
    table::{OPERATIONS, SURFACES, Surface},
    wire::Line,
};
use crate::git::Repo;

/// What to run.
pub(super) struct Choice {
    /// How many scenarios at a time.
    pub(super) jobs: usize,
    /// Only scenarios whose names have this in them.
    pub(super) filter: Option<String>,
    /// Only these surfaces; all if it is empty.
    pub(super) surfaces: Vec<String>,
    /// Every scenario only once.
    pub(super) once: bool,
}

/// What came of it all.
#[derive(Default)]
struct Results {
    failures: Vec<String>,
    codes: BTreeSet<(&'static str, ErrorCode)>,
}

/// Runs what was chosen, and says what is wrong.
pub(super) fn run(scenarios: &[Scenario], choice: &Choice, start: Start<'_>, site: &Site) -> Result<(), String> {
    let surfaces = chosen(&choice.surfaces)?;
    let extent = match (choice.once, &choice.filter) {
        (true, _) => Extent::Once,
        (false, None) if choice.surfaces.is_empty() => Extent::Whole,
        _ => Extent::Part,
    };
    let scenarios: Vec<&Scenario> = scenarios
        .iter()
        .filter(|scenario| choice.filter.as_ref().is_none_or(|filter| scenario.name.contains(&**filter)))
        .collect();
    let mut results = Results::default();
    for surface in &surfaces {
        results.failures.extend(unsupported(surface, start).err());
    }
    let plan = plan(&scenarios, &surfaces, extent, site);
    plan.skipped.iter().for_each(|line| println!("{line}"));
    let began = SystemClock.boot_ms();
    play_all(&plan, choice.jobs, start, site, &mut results);
    if extent == Extent::Whole {
        complete(&plan, &surfaces, &scenarios, &mut results);
    }
    let took = (SystemClock.boot_ms() - began) as f64 / 1_000.0;
    println!(
        "{} scenarios, {} surfaces, {} runs in {took:.0} s: {}",
        scenarios.len(),
        surfaces.len(),
        plan.runs.len(),
        if results.failures.is_empty() { "all as expected" } else { "not as expected" }
    );
    match results.failures.len() {
        0 if plan.runs.is_empty() => Err("no scenario has that in its name".to_owned()),
        0 => Ok(()),
        count => Err(format!("{count} things are not as expected:\n\n{}", results.failures.join("\n\n"))),
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Surface>, String> {
    if let Some(unknown) = names.iter().find(|name| super::table::surface(name).is_none()) {
        let known: Vec<_> = SURFACES.iter().map(|surface| surface.name).collect();
        return Err(format!("there is no surface {unknown:?}; there are {}", known.join(", ")));
    }
    Ok(SURFACES.iter().filter(|surface| names.is_empty() || names.iter().any(|name| name == surface.name)).collect())
}

/// Compares what a shim says that it supports with the table.
fn unsupported(surface: &Surface, start: Start<'_>) -> Result<(), String> {
    let told = |why: &str| format!("{}: {why}", surface.name);
    let repo = Repo::with(&[]);
    let mut role = start(surface, &repo, Conditions::default()).map_err(|why| told(&why))?;
    let answer = role.link.ask(Line::new("supports"));
    let answer = answer.map_err(|why| told(&format!("{why}; it said on stderr: {}", role.said())))?;
    let supported: BTreeSet<&str> = answer.get("operations").unwrap_or_default().split(' ').collect();
    let wanted: BTreeSet<&str> = OPERATIONS
        .iter()
        .filter(|operation| operation.event.is_none() && surface.cannot(operation.name).is_none())
        .map(|operation| operation.name)
        .collect();
    let words = |names: Vec<&&str>| names.iter().map(|name| **name).collect::<Vec<_>>().join(", ");
    let missing: Vec<_> = wanted.difference(&supported).collect();
    let unknown: Vec<_> = supported.difference(&wanted).filter(|name| !name.is_empty()).collect();
    if !missing.is_empty() {
        return Err(told(&format!("its shim lacks: {}", words(missing))));
    }
    if !unknown.is_empty() {
        return Err(told(&format!("its shim has what the table doesn't: {}", words(unknown))));
    }
    role.finish().map_err(|why| told(&why))
}

fn play_all(plan: &Plan<'_>, jobs: usize, start: Start<'_>, site: &Site, results: &mut Results) {
    let (next, shared) = (AtomicUsize::new(0), Mutex::new(results));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(run) = plan.runs.get(next.fetch_add(1, SeqCst)) {
                    play_one(run, start, site, &shared);
                }
            });
        }
    });
}

fn play_one(run: &Run<'_>, start: Start<'_>, site: &Site, results: &Mutex<&mut Results>) {
    let began = SystemClock.boot_ms();
    let result = play(run.scenario, &run.cast, start, site);
    let took = (SystemClock.boot_ms() - began) as f64 / 1_000.0;
    let word = if result.is_ok() { "ok  " } else { "FAIL" };
    println!("{word} {took:5.1} s  {}: {}", run.scenario.name, names(run.scenario, &run.cast));
    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(shown) => results.codes.extend(shown.codes),
        Err(why) => {
            println!("{why}");
            results.failures.push(why);
        }
    }
}

/// What must be true of the set as a whole.
fn complete(plan: &Plan<'_>, surfaces: &[&'static Surface], scenarios: &[&Scenario], results: &mut Results) {
    for surface in surfaces {
        let silent = |code| surface.silent.iter().find(|(silent, _)| *silent == code).map(|(_, why)| *why);
        let mut raised = Vec::new();
        for code in ErrorCode::ALL.iter().copied() {
            let (word, was_raised) = (code.as_str(), results.codes.contains(&(surface.name, code)));
            match (was_raised, silent(code)) {
                (true, None) => raised.push(word),
                (false, Some(why)) => println!("{}: {word} isn't raised: {why}", surface.name),
                (true, Some(_)) => results
                    .failures
                    .push(format!("{}: {word} was raised, and the table says that it can't be", surface.name)),
                (false, None) if plan.excused.contains(&code) => {
                    println!("{}: {word} wasn't raised; see what was skipped on this machine", surface.name);
                }
                (false, None) => {
                    results.failures.push(format!("{}: no scenario raises {word} there", surface.name));
                }
            }
        }
        println!("{}: {} codes arrived: {}", surface.name, raised.len(), raised.join(" "));
    }
    for (one, other) in &plan.strangers {
        results.failures.push(format!("{one} and {other} never meet in these parts; add scenarios with several roles"));
    }
    let asked: BTreeSet<&str> = scenarios.iter().flat_map(|scenario| scenario.operations()).collect();
    for operation in OPERATIONS.iter().filter(|operation| !asked.contains(operation.name)) {
        results.failures.push(format!("no scenario asks for {:?}", operation.name));
    }
}

#[cfg(test)]
#[path = "suite_tests.rs"]
mod tests;
