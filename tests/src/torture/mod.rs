//! The torture harness: many processes after one lock, beside Git at work and under fire, with an
//! oracle that gitlock knows nothing of.
//!
//! The oracle is a file in a folder beside the repository, made inside the critical section so
//! that it can exist once only, and a log to which everybody adds its fencing token from inside.
//! At the end of each round plain Git and a fresh process look at what is left.
//!
//! The control arm runs the same with locks by gix's own ref transactions, and must be caught.

mod arm;
pub mod fenced;
pub mod fenced_push;
mod figures;
mod foreign;
mod forest;
mod kills;
mod loops;
mod scene;
mod support;
mod verdict;
mod workers;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use gitlock::lock::fault::Fault;

use arm::{ArmKind, Extent};
use figures::Figures;
use scene::{Scene, Witness};
pub use support::Random;
use support::die_with_parent;
pub(crate) use support::{descendants, kill_descendant, millis, pause, random_seed};
use workers::Worker;

const USAGE: &str = "\
usage: torture [OPTIONS]                  all arms: exclusion, kills, legacy, languages, trees, trees-kills, and the controls
       torture [OPTIONS] kill-random      one process killed at random moments
       torture [OPTIONS] fork             the same with living children
       torture [OPTIONS] fenced           holders stopped past their lease while they change a ref
       torture [OPTIONS] fenced-push      holders stopped past their lease while they push to a server
  --git-lock PATH      the git-lock program; without it the command line takes no part
  --worker ROLE=PROGRAM[,ARGUMENT]  a worker in another language; may be repeated
  --acquisitions N     in all arms but the controls together (default 20000)
  --seconds S          the most that one arm takes (default: no limit; the control arm 60)
  --arm NAME           only this arm
  --rounds N           of kill-random (default 10000), fork (default 500), fenced (default 1000) and fenced-push (default 200)
  --seed N             the randomness (default: random, and printed)
  --disk               in the folder for temporary files too, beside tmpfs
  --ref-format F       in repositories whose refs are in this format (default files); the arms exclusion and fenced
  --slice              everything, in about a minute
";

/// What the control arm of trees leaves out, one after another.
const FOREST_FAULTS: [Fault; 3] = [Fault::IgnoreIntents, Fault::UncountedSlots, Fault::UpgradeBesideOthers];

/// What the command line says.
#[derive(Debug, Default)]
struct Settings {
    mode: Option<String>,
    git_lock: Option<PathBuf>,
    workers: Vec<String>,
    acquisitions: Option<u64>,
    seconds: Option<u64>,
    arm: Option<ArmKind>,
    rounds: Option<u64>,
    seed: u64,
    disk: bool,
    slice: bool,
}

/// The program `torture`.
pub fn main(arguments: &[String]) -> ExitCode {
    if let Some(("worker", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return work(rest);
    }
    match parse(arguments) {
        Ok(settings) => orchestrate(&settings),
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Result<Settings, String> {
    let mut settings = Settings { seed: random_seed(), ..Settings::default() };
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
        match word.as_str() {
            "--git-lock" => settings.git_lock = Some(value()?.into()),
            "--worker" => settings.workers.push(value()?.clone()),
            "--acquisitions" => settings.acquisitions = Some(number(value()?)?),
            "--seconds" => settings.seconds = Some(number(value()?)?),
            "--rounds" => settings.rounds = Some(number(value()?)?),
            "--seed" => settings.seed = number(value()?)?,
            "--arm" => {
                let name = value()?;
                settings.arm = Some(ArmKind::by_name(name).ok_or_else(|| format!("there is no arm {name:?}"))?);
            }
            "--ref-format" => crate::git::use_ref_format(value()?),
            "--disk" => settings.disk = true,
            "--slice" => settings.slice = true,
            "kill-random" | "fork" | "fenced" | "fenced-push" => settings.mode = Some(word.clone()),
            other => return Err(format!("what is {other:?}?")),
        }
    }
    Ok(settings)
}

/// One worker, started by the harness: role, folder, seed, arm, git-lock.
fn work(arguments: &[String]) -> ExitCode {
    let [role, scene, seed, arm, git_lock] = arguments else { return ExitCode::from(2) };
    let (scene, seed) = (Scene::at(Path::new(scene)), seed.parse().unwrap_or(0));
    let Some(arm) = ArmKind::by_name(arm) else { return ExitCode::from(2) };
    match role.as_str() {
        "victim" => kills::victim(&scene, seed, 1 + seed % 3),
        "forker" => kills::forker(&scene, seed),
        "fenced-holder" => fenced::holder(&scene, seed),
        "fenced-push-holder" => fenced_push::holder(&scene, seed, true),
        "unfenced-push-holder" => fenced_push::holder(&scene, seed, false),
        role => {
            // What runs under `git-lock run` is the guardian's to end.
            if !role.ends_with("inside") {
                die_with_parent();
            }
            let Ok(witness) = Witness::new(&scene, role) else { return ExitCode::from(2) };
            let git_lock = Some(PathBuf::from(git_lock)).filter(|path| path != Path::new("-"));
            foreign::run(role, &mut Worker { scene, witness, random: Random::new(seed), arm, git_lock });
        }
    }
    ExitCode::SUCCESS
}

fn orchestrate(settings: &Settings) -> ExitCode {
    println!("seed {}", settings.seed);
    if settings.git_lock.is_none() {
        println!("no --git-lock: the command line takes no part");
    }
    // Orphans come to this process, so that it can see to their end.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        println!("orphans can't be reaped here: {error}");
    }
    let mut folders = vec![("tmpfs", crate::git::fast_folder())];
    if settings.disk {
        folders.push(("disk", std::env::temp_dir()));
    }
    let mut random = Random::new(settings.seed);
    let mut faults = 0;
    for (place, folder) in folders {
        // The other arms are about files: `.lock` files that are left behind, loose and packed refs.
        let other_refs = crate::git::ref_format() != "files";
        if settings.mode.is_none() {
            faults += arms(settings, place, &folder, &mut random);
        }
        if settings.mode.as_deref() == Some("fenced") || settings.slice && settings.mode.is_none() {
            let rounds = settings.rounds.unwrap_or(if settings.slice { 60 } else { 1_000 });
            let started = millis();
            let figures = fenced::run(rounds.div_ceil(4), 4, random.next(), &folder, &workers::myself());
            fenced::print(place, &figures, started);
            faults += figures.faults.len();
        }
        if settings.mode.as_deref() == Some("fenced-push") || settings.slice && settings.mode.is_none() && !other_refs {
            let rounds = settings.rounds.unwrap_or(if settings.slice { 20 } else { 200 });
            faults += fenced_push::both(rounds, random.next(), place, &folder, &workers::myself());
        }
        for (mode, rounds, slice) in [("kill-random", 10_000, 300), ("fork", 500, 30)] {
            let asked = settings.mode.as_deref() == Some(mode);
            if asked || settings.slice && settings.mode.is_none() && !other_refs {
                let rounds = settings.rounds.unwrap_or(if settings.slice { slice } else { rounds });
                let started = millis();
                let mut figures = kills::run(mode == "fork", rounds, random.next(), &folder);
                kills::print(&format!("{mode} on {place}"), &mut figures, started);
                faults += figures.faults.len();
            }
        }
    }
    println!("{}", if faults == 0 { "no faults" } else { "FAULTS" });
    ExitCode::from(u8::from(faults > 0))
}

fn arms(settings: &Settings, place: &str, folder: &Path, random: &mut Random) -> usize {
    println!(
        "{:<10} {:<6} {:>7} {:>6} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6} {:>9} {:>8} {:>8} {:>6}",
        "arm",
        "place",
        "seconds",
        "rounds",
        "acquired",
        "library",
        "cli",
        "plain",
        "legacy",
        "turned",
        "lost",
        "kills",
        "git runs",
        "failed",
        "free ms",
        "faults"
    );
    let total = settings.acquisitions.unwrap_or(if settings.slice { u64::MAX / 2 } else { 20_000 });
    let mut faults = 0;
    for arm in ArmKind::ALL {
        let seed = random.next();
        let fit = crate::git::ref_format() == "files" || arm == ArmKind::Exclusion;
        if settings.arm.is_some_and(|only| only != arm) || !fit {
            continue;
        }
        if arm == ArmKind::Languages && settings.workers.is_empty() {
            println!("languages  SKIPPED: no --worker");
            continue;
        }
        let tenths = match arm {
            _ if settings.arm.is_some() => 10,
            ArmKind::Exclusion => 6,
            ArmKind::Kills => 2,
            ArmKind::Legacy | ArmKind::Languages | ArmKind::TreesKills => 1,
            ArmKind::Trees => 2,
            ArmKind::Control | ArmKind::TreesControl => 10,
        };
        let control = arm.is_control();
        let most = if control { Some(60) } else { settings.slice.then_some(12) };
        let seconds = settings.seconds.or(most).unwrap_or(7 * 86_400);
        let mut extent = Extent {
            acquisitions: if control { u64::MAX / 2 } else { (total / 10 * tenths).max(1) },
            millis: seconds * 1_000,
            round: if control { u64::MAX / 2 } else { 20_000 },
            seed,
            folder: folder.to_owned(),
            git_lock: settings.git_lock.clone(),
            workers: settings.workers.clone(),
            fault: None,
        };
        let seeds: Vec<Option<Fault>> = match arm {
            ArmKind::TreesControl => FOREST_FAULTS.iter().copied().map(Some).collect(),
            _ => vec![None],
        };
        for fault in seeds {
            extent.fault = fault;
            let figures = arm::run(arm, &extent);
            print(arm, place, &figures, fault);
            faults += if control { usize::from(figures.faults.is_empty()) } else { figures.faults.len() };
        }
    }
    faults
}

fn print(arm: ArmKind, place: &str, figures: &Figures, fault: Option<Fault>) {
    println!(
        "{:<10} {:<6} {:>7.1} {:>6} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6} {:>9} {:>8} {:>8} {:>6}",
        arm.name(),
        place,
        figures.millis as f64 / 1_000.0,
        figures.rounds,
        figures.acquisitions(),
        figures.of("library") + figures.of("gix") + figures.of("forest"),
        ["cli", "inside", "forest-cli", "forest-inside"].map(|role| figures.of(role)).iter().sum::<u64>(),
        figures.of("plain"),
        figures.of("legacy"),
        figures.count("turned-away"),
        figures.count("lost"),
        figures.kills + figures.git_kills,
        figures.git.runs,
        figures.git.failed,
        figures.recovery,
        figures.faults.len()
    );
    if arm == ArmKind::Languages {
        let each: Vec<String> = figures.acquired.iter().map(|(role, count)| format!("{role} {count}")).collect();
        println!("  {}", each.join(", "));
    }
    if figures.git.missing > 0 {
        let git = &figures.git;
        println!(
            "  git met an object that was pruned from under its ref in {} runs, for {} ms at most",
            git.missing, git.missing_for
        );
    }
    if figures.git.killed > 0 && !arm.kills() {
        println!("  {} Git commands crashed, though nobody killed them", figures.git.killed);
    }
    if figures.git.leftovers > 0 {
        println!("  {} files of Git's own that killed Git commands left were removed", figures.git.leftovers);
    }
    if std::env::var_os("TORTURE_VERBOSE").is_some() {
        println!("  {:?}", figures.counts);
        for words in &figures.git.words {
            println!("  {words}");
        }
    }
    if arm.is_forest() {
        let counts = ["deadlock", "upgraded", "inherited"].map(|what| format!("{} {what}", figures.count(what)));
        println!("  {}", counts.join(", "));
    }
    let seeded = fault.map_or("gix's faults", Fault::as_str);
    match (arm.is_control(), figures.faults.is_empty()) {
        (true, true) => {
            println!("  NOT CAUGHT: a harness that can't see {seeded} sees none of gitlock's")
        }
        (true, false) => println!("  {seeded} caught, as it must be: {}", figures.faults[0]),
        _ => {
            for fault in figures.faults.iter().take(20) {
                println!("  FAULT {fault}");
            }
        }
    }
}
