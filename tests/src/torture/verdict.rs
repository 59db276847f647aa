//! What must be so at the end of a round, as plain Git and a fresh process see it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use gitlock::LockManager;

use super::{
    arm::ArmKind,
    figures::{Figures, LogReader},
    forest::ROOTS,
    loops::clear_leftovers,
    scene::{JOURNAL_REF, LOCK, LOCK_REF, Scene},
    support::{millis, pause},
};

/// The longest lease of anybody who may have been killed, and two seconds.
const USABLE_WITHIN: Duration = Duration::from_millis(5_000 + 2_000);

/// The same where plain tools may have left a record of theirs behind.
const USABLE_BESIDE_PLAIN: Duration = Duration::from_millis(10_000 + 2_000);

fn git(scene: &Scene, arguments: &[&str]) -> Result<Output, String> {
    scene.git().args(arguments).output().map_err(|error| format!("git can't be run: {error}"))
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ")
}

/// Looks at everything. Faults go into the figures.
pub(crate) fn reach(scene: &Scene, arm: ArmKind, log: &LogReader, figures: &mut Figures) {
    if arm.is_forest() {
        let faults = [
            forest_usable(scene, figures),
            nothing_left(scene, arm, figures),
            every_journal_tells(scene),
            git_is_content(scene, arm, figures),
        ];
        return figures.faults.extend(faults.into_iter().flatten());
    }
    let faults = [
        usable_again(scene, arm, log, figures),
        nothing_left(scene, arm, figures),
        journal_tells(scene, arm, log),
        git_is_content(scene, arm, figures),
    ];
    figures.faults.extend(faults.into_iter().flatten());
    if arm == ArmKind::Legacy {
        told_the_truth(log, figures);
    }
}

/// Somebody who comes now gets the lock, with nothing done by hand, and a token above all others.
fn usable_again(scene: &Scene, arm: ArmKind, log: &LogReader, figures: &mut Figures) -> Vec<String> {
    let plain = matches!(arm, ArmKind::Legacy | ArmKind::Kills);
    let within = if plain { USABLE_BESIDE_PLAIN } else { USABLE_WITHIN };
    let started = millis();
    let manager = match LockManager::open(scene.repo()) {
        Ok(manager) => manager,
        Err(error) => return vec![format!("the repository can't be opened at the end: {error}")],
    };
    let guard = match manager.lock(LOCK).wait(within).acquire() {
        Ok(guard) => guard,
        Err(error) => return vec![format!("NOT USABLE {} ms after the end: {error}", millis() - started)],
    };
    figures.recovery = millis() - started;
    let mut faults = Vec::new();
    let highest = log.tokens.iter().max().copied().unwrap_or(0);
    if guard.token() <= highest {
        faults.push(format!("SHRINKING TOKEN: {} at the end, after {highest}", guard.token()));
    }
    if let Err(error) = guard.release() {
        faults.push(format!("the last release failed: {error}"));
    }
    if let Err(error) = manager.clean(None) {
        faults.push(format!("clean failed at the end: {error}"));
    }
    manager.close();
    faults
}

/// Somebody who comes now gets every tree, with nothing done by hand.
fn forest_usable(scene: &Scene, figures: &mut Figures) -> Vec<String> {
    let started = millis();
    let manager = match LockManager::open(scene.repo()) {
        Ok(manager) => manager,
        Err(error) => return vec![format!("the repository can't be opened at the end: {error}")],
    };
    let guard = match manager.lock_all(&ROOTS).wait(USABLE_BESIDE_PLAIN).acquire() {
        Ok(guard) => guard,
        Err(error) => return vec![format!("NOT USABLE {} ms after the end: {error}", millis() - started)],
    };
    figures.recovery = millis() - started;
    let mut faults = Vec::new();
    faults.extend(guard.release().err().map(|error| format!("the last release failed: {error}")));
    // What dead owners left further down ends when somebody looks.
    faults.extend(manager.clean(None).err().map(|error| format!("clean failed at the end: {error}")));
    manager.close();
    faults
}

/// Of every lock: each tenure is in its journal once, and each token too.
fn every_journal_tells(scene: &Scene) -> Vec<String> {
    let journals = match git(scene, &["for-each-ref", "--format=%(refname)", "refs/gitvan/journal"]) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return vec![error],
    };
    let format =
        "--format=%(trailers:key=Lock-Id,valueonly,separator=)%x09%(trailers:key=Lock-Token,valueonly,separator=)";
    let mut faults = Vec::new();
    for journal in journals.lines() {
        let output = match git(scene, &["log", format, journal]) {
            Ok(output) if output.status.success() => output,
            Ok(output) => return vec![format!("JOURNAL: git log {journal} failed: {}", words(&output))],
            Err(error) => return vec![error],
        };
        let (mut ids, mut tokens) = (HashSet::new(), HashSet::new());
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (id, token) = line.split_once('\t').unwrap_or((line, ""));
            if !ids.insert(id.to_owned()) {
                faults.push(format!("JOURNAL: the tenure {id} ended twice in {journal}"));
            }
            if !token.is_empty() && !tokens.insert(token.to_owned()) {
                faults.push(format!("REPEATED TOKEN in {journal}: {token}"));
            }
        }
    }
    faults.truncate(20);
    faults
}

/// No lock ref, loose or packed, and no `.lock` file in the way.
fn nothing_left(scene: &Scene, arm: ArmKind, figures: &mut Figures) -> Vec<String> {
    let mut faults = Vec::new();
    match git(scene, &["for-each-ref", "--format=%(refname) %(objectname)", "refs/gitvan/locks"]) {
        Ok(output) if output.status.success() && output.stdout.is_empty() => {}
        Ok(output) => {
            faults.push(format!("LEAKED LOCK: {}{}", String::from_utf8_lossy(&output.stdout).trim(), words(&output)))
        }
        Err(error) => faults.push(error),
    }
    if scene.git_dir().join(LOCK_REF).exists() {
        faults.push(format!("LEAKED LOCK: the file {LOCK_REF} is still there"));
    }
    let mut locks = Vec::new();
    find_lock_files(&scene.git_dir(), &mut locks);
    for path in locks {
        let name = path.strip_prefix(scene.git_dir()).unwrap_or(&path).to_string_lossy().into_owned();
        let ours = name.starts_with("refs/gitvan") || name == "packed-refs.lock";
        // A killed Git may leave one where gitlock had no business since; it isn't gitlock's then.
        if arm.kills() && !ours {
            figures.git.leftovers += 1;
            let _ = fs::remove_file(path);
        } else {
            faults.push(format!("LEAKED LOCK FILE: {name}"));
        }
    }
    faults
}

fn find_lock_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_lock_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            found.push(path);
        }
    }
}

/// `git log` reads the whole journal, each tenure is in it once, and every logged one is.
fn journal_tells(scene: &Scene, arm: ArmKind, log: &LogReader) -> Vec<String> {
    if arm == ArmKind::Control {
        return Vec::new();
    }
    let format = "--format=%s%x09%(trailers:key=Lock-Id,valueonly,separator=)%x09%(trailers:key=Lock-Token,valueonly,separator=)";
    let output = match git(scene, &["log", format, JOURNAL_REF]) {
        Ok(output) if output.status.success() => output,
        Ok(output) => return vec![format!("JOURNAL: git log failed: {}", words(&output))],
        Err(error) => return vec![error],
    };
    let mut faults = Vec::new();
    let (mut causes, mut tokens) = (HashMap::new(), HashSet::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut parts = line.split('\t');
        let (subject, id, token) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let Some(cause) = subject.and_then(|subject| subject.strip_prefix("build: ")) else {
            faults.push(format!("JOURNAL: an entry can't be read: {line}"));
            continue;
        };
        if causes.insert(id.to_owned(), cause.to_owned()).is_some() {
            faults.push(format!("JOURNAL: the tenure {id} ended twice: {line}"));
        }
        if let Ok(token) = token.parse::<u64>()
            && token > 0
            && !tokens.insert(token)
        {
            faults.push(format!("REPEATED TOKEN in the journal: {token}"));
        }
    }
    if arm == ArmKind::Legacy {
        for section in log.sections.iter().filter(|section| section.released) {
            if causes.get(&section.id).is_none_or(|cause| cause != "released") {
                let cause = causes.get(&section.id).map_or("nothing", |cause| cause);
                faults.push(format!("JOURNAL: {} was told that it released; the journal says {cause}", section.id));
            }
        }
    } else {
        let untold: Vec<_> = log.tokens.iter().filter(|token| !tokens.contains(token)).collect();
        if !untold.is_empty() {
            faults.push(format!("JOURNAL: {} tenures are missing, such as token {}", untold.len(), untold[0]));
        }
    }
    faults.truncate(20);
    faults
}

/// fsck finds nothing, and gc does its work.
fn git_is_content(scene: &Scene, arm: ArmKind, figures: &mut Figures) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fsck = |when: &str| match git(scene, &["fsck", "--strict", "--full"]) {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            let harmless = ["dangling ", "notice:", "Checking ", "unreachable "];
            let wrong: Vec<&str> =
                told.lines().filter(|line| !harmless.iter().any(|word| line.starts_with(word))).take(5).collect();
            if !output.status.success() || !wrong.is_empty() {
                faults.push(format!("FSCK {when}: {}: {}", output.status, wrong.join(" | ")));
            }
        }
        Err(error) => faults.push(error),
    };
    fsck("at the end");
    // A gc whose leader was killed may have left its helpers at work: it gets a second chance.
    let mut last = String::new();
    for _ in 0..5 {
        match git(scene, &["gc", "--prune=now", "--quiet"]) {
            Ok(output) if output.status.success() => {
                last.clear();
                break;
            }
            Ok(output) => last = words(&output),
            Err(error) => last = error,
        }
        if arm.kills() {
            figures.git.leftovers += clear_leftovers(scene, &last);
        }
        pause(300);
    }
    fsck("after git gc");
    if !last.is_empty() {
        faults.push(format!("GC fails at the end: {last}"));
    }
    faults
}

/// Where others overthrow holders, exclusion is what holders were told: whoever released its lock
/// with success had it alone.
fn told_the_truth(log: &LogReader, figures: &mut Figures) {
    let mut released: Vec<_> = log.sections.iter().filter(|section| section.released).collect();
    released.sort_by_key(|section| section.span.0);
    let (mut exclusive_until, mut any_until, mut highest) = (0, 0, 0);
    for section in released {
        let (start, end) = section.span;
        let before = if section.shared { exclusive_until } else { any_until };
        if start < before {
            let id = &section.id;
            figures.faults.push(format!(
                "DOUBLE GRANT: {id} began {} ns before another's end, and both were told that they released",
                before - start
            ));
        }
        if !section.shared {
            if section.token <= highest {
                figures.faults.push(format!("SHRINKING TOKEN: {} after {highest}", section.token));
            }
            exclusive_until = exclusive_until.max(end);
        }
        highest = highest.max(section.token);
        any_until = any_until.max(end);
    }
}
