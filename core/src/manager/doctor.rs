//! Looking for what crashes leave behind, and for records that can't be read.

use crate::{
    error::Result,
    lock::{Held, Opaque},
    store::files::doctor::Leftover,
};

use super::{Inner, snapshot::Snapshot};

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

pub(super) fn examine(inner: &Inner, fix: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if let Some(files) = &inner.files {
        let names = &inner.commits.names;
        for leftover in files.leftovers(&[names.locks(), names.journals()])? {
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
    Ok(findings)
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
                (Severity::Note, what, advice, age >= 5.0)
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
