//! The conformance set: plain-text scenarios, one runner, and one small shim for each surface.
//!
//! `tests/conformance/README.md` says how scenarios are written, what a shim has to do, and how a
//! surface or an operation is added. A scenario is played on every surface alone, and then with
//! different surfaces as its roles.

mod expect;
mod philosophers;
mod plan;
mod play;
mod role;
mod scenario;
mod site;
mod suite;
mod table;
mod tool;
mod wire;
mod words;

use std::path::PathBuf;

use crate::servers::{Kind, Servers};
use site::Site;

pub use table::Programs;

/// Runs what the command line asks for: `[FILTER] [--jobs N] [--surface NAME]... [--ref-format F] [--remote KIND,...] [--once]
/// --FLAG PATH...`, with a path for each of the programs that `cargo xtask conformance` builds, and with `--faulty-FLAG` for those
/// that have faults seeded. `--philosophers N[,N...]` and `--meals N` seat philosophers instead.
pub fn main(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let mut choice = suite::Choice { jobs: 2, filter: None, surfaces: Vec::new(), once: false };
    let (mut scenarios, mut sound, mut faulty) = (PathBuf::new(), Programs::default(), Vec::new());
    let (mut seats, mut meals, mut kinds) = (Vec::new(), 2, Vec::new());
    let number = |flag: &str, text: &str| text.parse().map_err(|_| format!("--{flag} {text:?} is no number"));
    let mut arguments = arguments;
    while let Some(word) = arguments.next() {
        let Some(flag) = word.strip_prefix("--") else {
            choice.filter = Some(word);
            continue;
        };
        if flag == "once" {
            choice.once = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("--{flag} needs a value"))?;
        match flag {
            "jobs" => choice.jobs = number(flag, &value)?,
            "meals" => meals = number(flag, &value)?,
            "philosophers" => {
                seats = value.split(',').map(|seats| number(flag, seats)).collect::<Result<_, String>>()?;
            }
            "surface" => choice.surfaces.push(value),
            "remote" => kinds = Kind::several(&value)?,
            "ref-format" => crate::git::use_ref_format(&value),
            "scenarios" => scenarios = value.into(),
            _ => match flag.strip_prefix("faulty-") {
                Some(flag) => faulty.push((flag.to_owned(), value)),
                None => set(&mut sound, flag, value)?,
            },
        }
    }
    let mut with_faults = sound.clone();
    faulty.into_iter().try_for_each(|(flag, value)| set(&mut with_faults, &flag, value))?;
    let start = play::processes(sound, with_faults);
    if !seats.is_empty() {
        return philosophers::run(&seats, meals, &choice.surfaces, &start);
    }
    let scenarios = scenario::read_all(&scenarios)?;
    if kinds.is_empty() {
        return suite::run(&scenarios, &choice, &start, &Site::Here);
    }
    let servers = Servers::start(&kinds);
    servers.skipped().iter().for_each(|(kind, why)| println!("skipped: {}: {why}", kind.name()));
    let mut wrong = Vec::new();
    for endpoint in servers.endpoints() {
        println!("at {}", endpoint.url("…"));
        let done = suite::run(&scenarios, &choice, &start, &Site::at(endpoint, servers.served().folder()));
        wrong.extend(done.err());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n\n")) }
}

fn set(programs: &mut Programs, flag: &str, value: String) -> Result<(), String> {
    *programs.place(flag).ok_or_else(|| format!("there is no --{flag}"))? = value.into();
    Ok(())
}
