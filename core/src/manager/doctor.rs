//! Looking for what crashes leave behind, and for records that can't be read.

use std::time::Duration;

use crate::{
    error::Result,
    lock::{Held, Holder, Opaque, Outcome, Request},
    name::LockName,
    store::{files::doctor::Leftover, remote::ServerReport},
};

use super::{Inner, commit_loop::current, snapshot::Snapshot, status};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is in nobody's way.
    Note,
    /// It is in somebody's way, or soon will be.
    Problem,
}

impl Severity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Problem => "problem",
        }
    }
}

/// Something that isn't as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found, and where.
    pub what: String,
    /// What to do about it.
    pub advice: String,
    /// Whether it was put right.
    pub fixed: bool,
}

/// How many refs a server may show to whoever pushes before that is worth a word.
const MANY_REFS: usize = 5_000;

/// How far a server's clock may be off before that is worth a word, in milliseconds.
const CLOCK_OFF: u64 = 5_000;

/// What a server can do, and what to do about what it can't.
fn examine_server(report: &ServerReport) -> Vec<Finding> {
    let ServerReport { location, compares, atomic, v2, refs, round_trip, clock_difference, .. } = report;
    let finding =
        |severity, what: String, advice: &str| Finding { severity, what, advice: advice.to_owned(), fixed: false };
    let word = |can: bool, yes: &'static str, no: &'static str| if can { yes } else { no };
    let clock = match clock_difference {
        Some(millis) => format!("its clock differs by {:.0} s", *millis as f64 / 1_000.0),
        None => "it doesn't tell its time".to_owned(),
    };
    let mut findings = vec![finding(
        Severity::Note,
        format!(
            "{location}: {}, {}, {}, {refs} refs shown to whoever pushes, {} ms for a question and its answer, {clock}",
            word(*compares, "compares before it swaps", "doesn't compare before it swaps"),
            word(*atomic, "atomic pushes", "no atomic pushes"),
            word(*v2, "protocol v2", "no protocol v2"),
            round_trip.as_millis(),
        ),
        "nothing is to be done about this; it is what the server can do",
    )];
    if !compares {
        findings.push(finding(
            Severity::Problem,
            format!(
                "{location} says that it has changed a ref whose expected value was wrong, so two could hold one lock"
            ),
            "use another server",
        ));
    }
    if !atomic {
        findings.push(finding(
            Severity::Note,
            format!("{location} can't change several refs as one: a release takes two pushes"),
            "enable receive.advertiseAtomic, if the server has it",
        ));
    }
    if !v2 {
        findings.push(finding(
            Severity::Note,
            format!("{location} doesn't speak protocol v2, so that every look at a lock brings all its refs"),
            "allow it on the server; for ssh let sshd accept GIT_PROTOCOL (AcceptEnv)",
        ));
    }
    if *refs > MANY_REFS {
        findings.push(finding(
            Severity::Note,
            format!("{location} shows {refs} refs to whoever pushes, each time"),
            "keep locks in a repository of their own: `git lock init-server`",
        ));
    }
    if clock_difference.is_some_and(|millis| millis.unsigned_abs() > CLOCK_OFF) {
        findings.push(finding(
            Severity::Note,
            format!("the clock of {location} and this machine's differ: {clock}"),
            "leases don't depend on it; tokens and the journal's dates are easier to read where clocks agree",
        ));
    }
    findings
}

pub(super) fn examine(inner: &Inner, fix: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if let Some(remote) = &inner.remote {
        findings.extend(examine_server(&remote.examine(inner.commits.names.locks())?));
    }
    if let Some(files) = &inner.files {
        let names = &inner.commits.names;
        let prefixes = [names.locks(), names.journals()];
        let mut leftovers = files.leftovers(&prefixes)?;
        if let Some(age) = leftovers.iter().filter_map(young).min().filter(|_| fix) {
            inner.commits.clock.pause(Duration::from_millis(YOUNG.saturating_sub(age)));
            leftovers = files.leftovers(&prefixes)?;
        }
        for leftover in leftovers {
            let (severity, what, advice, safe) = describe(&leftover);
            let fixed = fix && safe && files.clear(&leftover)?;
            findings.push(Finding { severity, what, advice, fixed });
        }
    }
    if fix {
        inner.commits.store.tend();
    }
    for (name, object) in inner.commits.store.list(inner.commits.names.locks())? {
        let Some(name) = inner.commits.names.lock_of(&name) else {
            findings.push(Finding {
                severity: Severity::Note,
                what: format!("{name} was made by another tool"),
                advice: format!(
                    "it blocks a lock of that name; delete it with `git update-ref -d {name}` if nobody needs it"
                ),
                fixed: false,
            });
            continue;
        };
        let Snapshot { state, journal, .. } = inner.commits.look(&name, None)?;
        if let Held::Opaque(opaque) = &state.held {
            let advice = match opaque {
                Opaque::TooNew(_) => "use the gitlock that wrote it".to_owned(),
                _ => format!("nobody can tell who holds it; if nobody works under it, `git lock break {name}`"),
            };
            let what = match opaque {
                Opaque::Corrupt(why) => format!("the record of {name} ({object}) can't be read: {why}"),
                Opaque::Missing { .. } => format!("the record of {name} ({object}) is not in the repository"),
                Opaque::TooNew(version) => format!("the record of {name} is of the newer version {version}"),
                Opaque::Foreign(why) => why.clone(),
            };
            findings.push(Finding { severity: Severity::Problem, what, advice, fixed: false });
        }
        if let (false, Some(commit)) = (journal.usable, journal.id) {
            findings.push(broken_journal(&name.to_string(), &commit.to_string()));
        }
    }
    orphaned_intents(inner, fix, &mut findings)?;
    Ok(findings)
}

/// Intents whose lock below is gone: a release or a break was cut off, or a ref was deleted by hand.
fn orphaned_intents(inner: &Inner, fix: bool, findings: &mut Vec<Finding>) -> Result<()> {
    let mut suspects: Vec<(LockName, Holder)> = Vec::new();
    for (name, record) in everything(inner)? {
        let intents = record.holders.into_iter().filter(|holder| holder.claim.mode.is_intent());
        suspects.extend(intents.map(|intent| (name.clone(), intent)));
    }
    if suspects.is_empty() {
        return Ok(());
    }
    // A transaction takes every .lock before it writes anything: where there is none, all that began with
    // one of these intents is written. Who is stopped in the middle keeps its own.
    // Of other stores nobody here can tell that.
    let nobody_writes = match &inner.files {
        Some(files) => files.leftovers(&[inner.commits.names.locks()])?.is_empty(),
        None => false,
    };
    let after = everything(inner)?;
    suspects.retain(|(name, intent)| {
        let below = |(other, record): &(LockName, crate::lock::Record)| {
            other.ancestors().any(|above| above == *name) && record.knows(&intent.claim.id)
        };
        !after.iter().any(below)
    });
    for (name, Holder { claim, timeout, .. }) in &suspects {
        let lift = Request::Lift { id: claim.id.clone(), timeout: *timeout };
        let record = inner.current(name).ok();
        let Some(holder) = record.and_then(|record| record.holder(&claim.id).cloned()) else { continue };
        let fixed = fix && nobody_writes && matches!(inner.submit(name, lift)?, Outcome::Released(_));
        findings.push(Finding {
            severity: Severity::Problem,
            what: format!(
                "{name} is kept from others because of a lock below it that is gone, by {}",
                status::describe(&holder)
            ),
            advice:
                "it ends with its lease or its process; `git lock doctor --fix` ends it at once, while nobody else \
                     writes here"
                    .to_owned(),
            fixed,
        });
    }
    Ok(())
}

/// Every lock as it is to this process.
fn everything(inner: &Inner) -> Result<Vec<(LockName, crate::lock::Record)>> {
    let mut all = Vec::new();
    for (name, _) in inner.commits.store.list(inner.commits.names.locks())? {
        let Some(name) = inner.commits.names.lock_of(&name) else { continue };
        let snapshot = inner.commits.look(&name, None)?;
        all.push((name, current(&inner.commits, &snapshot).0));
    }
    Ok(all)
}

fn broken_journal(name: &str, commit: &str) -> Finding {
    Finding {
        severity: Severity::Problem,
        what: format!(
            "the newest commit of the journal of {name} ({commit}) is not in the repository, or is no commit"
        ),
        advice: "restore it from a clone or a backup if the trail matters; the next release begins a new chain"
            .to_owned(),
        fixed: false,
    }
}

/// How old one of Git's own `.lock` files has to be before it is taken away by hand, in milliseconds: no command of Git
/// keeps one of a ref for so long.
const YOUNG: u64 = 5_000;

/// The age of one that may be at work, in milliseconds.
fn young(leftover: &Leftover) -> Option<u64> {
    match leftover {
        Leftover::LockFile(report) if !report.ours && !report.stale => Some(report.age_ms).filter(|age| *age < YOUNG),
        _ => None,
    }
}

fn describe(leftover: &Leftover) -> (Severity, String, String, bool) {
    match leftover {
        Leftover::LockFile(report) => {
            let age = report.age_ms as f64 / 1_000.0;
            let (path, whose) = (report.path.display(), if report.ours { "gitlock" } else { "Git" });
            if report.stale {
                let what = format!("{path} was left behind by {whose} {age:.0} s ago");
                (Severity::Problem, what, "`git lock doctor --fix` removes it".to_owned(), true)
            } else if report.ours {
                let what = format!("{path} is held by a live gitlock process, {age:.1} s old");
                (Severity::Note, what, "wait: a transaction takes milliseconds".to_owned(), false)
            } else {
                let what = format!("{path} was made by Git {age:.1} s ago");
                let advice = "if no Git command is running here, `git lock doctor --fix` removes it".to_owned();
                // A person who says so is believed, but not about something that may be at work.
                (Severity::Note, what, advice, report.age_ms >= YOUNG)
            }
        }
        Leftover::Temporary { path } => {
            let what = format!("{} was left behind by a killed process", path.display());
            (Severity::Problem, what, "`git lock doctor --fix` removes it".to_owned(), true)
        }
        Leftover::TornRef { name } => {
            let what = format!("{name} holds no object id: a crash of the machine cut it off");
            let advice = "`git lock doctor --fix` removes it; what it was before, if packed, shows again".to_owned();
            (Severity::Problem, what, advice, true)
        }
    }
}
