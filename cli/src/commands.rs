//! The subcommands that ask one thing of the core and print the answer.

use std::{fs::File, io::Read, path::Path, time::Duration};

use clap::CommandFactory;
use gitlock::{DEFAULT_TTL, ErrorCode, LockGuard, LockHandle, LockManager, PushSpec, RefUpdate, Severity, json};
use serde_json::{Value, json};

use crate::{
    args::{
        Acquire, Arguments, Break, Clean, Doctor, Extend, Folder, Graph, Log, Push, Status, Tenure, UpdateRef, Verify,
    },
    duration::show,
    failure::Failure,
    output::{self, plain, say},
    request,
    signals::{self, Interrupt},
};

/// The environment variable that hands a tenure on.
pub(crate) const HANDLE: &str = "GIT_LOCK_HANDLE";

/// What a command that succeeded exits with.
pub(crate) type Exit = Result<u8, Failure>;

/// Prints the one or the other.
fn answer(json: bool, object: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Exit {
    say(&if json { object().to_string() } else { text() })?;
    Ok(0)
}

pub(crate) fn acquire(manager: &LockManager, asked: &Acquire, json: bool) -> Exit {
    let interrupt = Interrupt::default();
    let heard = interrupt.clone();
    signals::listen(&signals::heeded(&signals::ENDING), move |signal| heard.by(signal))?;
    let fingerprint = match &asked.request.fingerprint {
        Some(word) => word.clone(),
        None => random_word()?,
    };
    let result = request::acquire(manager, &asked.name, &asked.request, interrupt.token(), |request| {
        request.fingerprint(&fingerprint)
    });
    let guard = match (result, interrupt.failure(&asked.name)) {
        (Ok(guard), None) => guard,
        // Granted at the same moment: whoever sent the signal doesn't want it any more.
        (Ok(guard), Some(failure)) => {
            guard.release()?;
            return Err(failure);
        }
        (Err(_), Some(failure)) => return Err(failure),
        (Err(failure), None) => return Err(failure),
    };
    let (handle, ttl) = (guard.handle(), asked.request.ttl.unwrap_or(DEFAULT_TTL));
    let object = || {
        json!({
            "name": guard.name().as_str(),
            "handle": handle.to_string(),
            "id": guard.id(),
            "token": guard.token(),
            "tokens": tokens(&guard),
            "mode": guard.mode().as_str(),
            "slot": guard.slot(),
            "fingerprint": fingerprint,
            "ttl": u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        })
    };
    if let Err(failure) = hand_out(&if json { object().to_string() } else { handle.to_string() }) {
        // Nobody has the handle now, so nobody could release it.
        guard.release()?;
        return Err(failure);
    }
    let _ = guard.detach();
    manager.close();
    Ok(0)
}

/// The token of each lock that was asked for.
fn tokens(guard: &LockGuard) -> Value {
    guard.names().iter().map(|name| (name.as_str().to_owned(), json!(guard.token_of(name.as_str())))).collect()
}

/// Prints a handle. Other than for [`say`], a reader that has gone is a failure.
fn hand_out(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| {
        Failure::new(ErrorCode::Io, format!("the handle can't be written to stdout, so the lock is released: {error}"))
    })
}

/// A word that nobody guesses.
fn random_word() -> Result<String, Failure> {
    let mut bytes = [0u8; 16];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).map_err(|error| {
        Failure::new(ErrorCode::Io, format!("/dev/urandom can't be read: {error}; give a --fingerprint"))
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The tenure that the command line or the environment names.
fn tenure(asked: &Tenure) -> Result<LockHandle, Failure> {
    let from_environment = || match std::env::var(HANDLE) {
        Ok(text) if !text.is_empty() => Ok(Some(text.parse::<LockHandle>()?)),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{HANDLE} is no handle: it isn't UTF-8"))),
        _ => Ok(None),
    };
    match (&asked.tenure, &asked.fingerprint) {
        (Some(word), None) if LockHandle::is_handle(word) => Ok(word.parse()?),
        (Some(word), Some(_)) if LockHandle::is_handle(word) => {
            Err(Failure::usage("a handle says it all; leave --fingerprint out, or name the lock instead"))
        }
        (Some(name), Some(fingerprint)) => Ok(LockHandle::by_fingerprint(name, fingerprint)?),
        // Inside of a run: its own lock by its name.
        (Some(name), None) => match from_environment()? {
            Some(handle) if handle.name().as_str() == name => Ok(handle),
            _ => Err(Failure::usage(format!(
                "{name:?} is a lock's name; give --fingerprint with it, or the handle that `git lock acquire` printed"
            ))),
        },
        (None, Some(_)) => Err(Failure::usage("--fingerprint needs the name of the lock")),
        (None, None) => from_environment()?.ok_or_else(|| {
            Failure::usage(format!("which tenure? Give a handle, or a name and --fingerprint, or set {HANDLE}"))
        }),
    }
}

pub(crate) fn release(manager: &LockManager, asked: &Tenure, json: bool) -> Exit {
    let handle = tenure(asked)?;
    manager.release(&handle)?;
    manager.close();
    let name = handle.name().as_str();
    answer(json, || json!({ "name": name, "released": true }), String::new)
}

pub(crate) fn extend(manager: &LockManager, asked: &Extend, json: bool) -> Exit {
    let handle = tenure(&asked.tenure)?;
    let left = manager.extend(&handle, asked.ttl)?;
    manager.close();
    let name = handle.name().as_str();
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    answer(json, || json!({ "name": name, "remaining": millis }), String::new)
}

pub(crate) fn update_ref(manager: &LockManager, asked: &UpdateRef, json: bool) -> Exit {
    let handle = tenure(&asked.tenure)?;
    let updates = if asked.change.is_empty() {
        let mut lines = String::new();
        std::io::stdin().read_to_string(&mut lines).map_err(|error| {
            Failure::new(ErrorCode::InvalidArgument, format!("the changes can't be read from stdin: {error}"))
        })?;
        RefUpdate::parse_lines(&lines)?
    } else {
        asked.change.iter().map(|line| line.parse()).collect::<Result<_, gitlock::Error>>()?
    };
    let left = manager.update_refs(&handle, &updates, asked.message.as_deref())?;
    manager.close();
    let name = handle.name().as_str();
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    answer(json, || json!({ "name": name, "changes": updates.len(), "remaining": millis }), String::new)
}

pub(crate) fn push(manager: &LockManager, asked: &Push, json: bool) -> Exit {
    // A handle is no refspec, and a fingerprint comes with a name.
    let named = asked.fingerprint.is_some() || asked.words.first().is_some_and(|word| LockHandle::is_handle(word));
    let (which, refspecs) = asked.words.split_at(usize::from(named));
    let which = Tenure { tenure: which.first().cloned(), fingerprint: asked.fingerprint.clone() };
    let specs = refspecs.iter().map(|text| text.parse()).collect::<Result<Vec<PushSpec>, gitlock::Error>>()?;
    let handle = tenure(&which)?;
    let left = manager.push(&handle, &specs)?;
    manager.close();
    let name = handle.name().as_str();
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let pushed: Vec<String> = specs.iter().map(ToString::to_string).collect();
    answer(json, || json!({ "name": name, "pushed": pushed, "remaining": millis }), String::new)
}

pub(crate) fn verify(manager: &LockManager, asked: &Verify, json: bool) -> Exit {
    manager.verify(&asked.name, asked.token)?;
    answer(json, || json!({ "name": asked.name, "token": asked.token, "holds": true }), String::new)
}

pub(crate) fn status(manager: &LockManager, asked: &Status, json: bool) -> Exit {
    if let Some(name) = &asked.name {
        let status = manager.status(name)?;
        return answer(json, || json::status(&status), || output::status_text(&status));
    }
    let listing = manager.list()?;
    let text = || match listing.locks.is_empty() {
        true => "no lock is held\n".to_owned(),
        false => listing.locks.iter().map(output::status_text).collect(),
    };
    answer(json, || json::listing(&listing), text)
}

pub(crate) fn list(manager: &LockManager, json: bool) -> Exit {
    let listing = manager.list()?;
    answer(json, || json::listing(&listing), || output::listing_text(&listing))
}

pub(crate) fn graph(manager: &LockManager, asked: &Graph, json: bool) -> Exit {
    let graph = manager.graph()?;
    let text = || if asked.dot { plain_lines(&graph.to_dot()) } else { output::graph_text(&graph) };
    answer(json, || json::graph(&graph), text)
}

fn plain_lines(text: &str) -> String {
    text.lines().map(|line| plain(line) + "\n").collect()
}

pub(crate) fn log(manager: &LockManager, asked: &Log, json: bool) -> Exit {
    let entries = manager.log(&asked.name, asked.max_count)?;
    answer(json, || json::log(&asked.name, &entries), || output::log_text(&entries))
}

pub(crate) fn clean(manager: &LockManager, asked: &Clean, json: bool) -> Exit {
    let cleaned = manager.clean(asked.grace)?;
    manager.close();
    let names: Vec<&str> = cleaned.locks.iter().map(gitlock::LockName::as_str).collect();
    let text = || {
        let mut text: String = names.iter().map(|name| format!("{}: cleaned\n", plain(name))).collect();
        text += &format!(
            "{} superseded objects deleted, {} not old enough\n",
            cleaned.objects_deleted, cleaned.objects_waiting
        );
        text
    };
    answer(json, || json::cleaned(&cleaned), text)
}

pub(crate) fn break_lock(manager: &LockManager, asked: &Break, json: bool) -> Exit {
    let broken = manager.break_lock(&asked.name, asked.id.as_deref(), asked.reason.as_deref())?;
    manager.close();
    let object = || json::broken(&asked.name, &broken);
    let text = || {
        let name = plain(&asked.name);
        if broken.is_empty() {
            return format!("{name}: broken; nobody can tell who held it\n");
        }
        let line = |holder: &gitlock::Holder| {
            let left = show(Duration::from_millis(holder.claim.ttl));
            format!("{name}: broken; it was held by {} (ttl {left})\n", output::holder_words(holder))
        };
        broken.iter().map(line).collect()
    };
    answer(json, object, text)
}

pub(crate) fn init_server(directory: &Path, asked: &Folder, json: bool) -> Exit {
    let folder = directory.join(&asked.folder);
    gitlock::init_server(&folder)?;
    let folder = folder.canonicalize().unwrap_or(folder).display().to_string();
    let gc = format!("git -C '{folder}' gc --quiet --prune=2.weeks.ago");
    let fix = format!("git lock -C '{folder}' doctor --fix");
    let text = || {
        format!(
            "{}: made, for locks alone\n\
             serve it as any repository, by ssh, or by HTTP with git http-backend, to those who may push; then\n  \
             git lock --remote URL doctor\n\
             and pack it once a night, such as by this line of a crontab\n  17 3 * * * {}\n\
             and before the server starts, in case that it was killed,\n  {}\n",
            plain(&folder),
            plain(&gc),
            plain(&fix)
        )
    };
    answer(json, || json!({ "path": folder, "nightly": gc, "atStart": fix }), text)
}

/// Writes what `git lock --help` and `git help lock-run` show.
pub(crate) fn manual(asked: &Folder) -> Exit {
    let folder = &asked.folder;
    std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Arguments::command(), folder)).map_err(
        |error| Failure::new(ErrorCode::Io, format!("can't write manual pages to {}: {error}", folder.display())),
    )?;
    Ok(0)
}

pub(crate) fn doctor(manager: &LockManager, asked: &Doctor, json: bool) -> Exit {
    let findings = manager.doctor(asked.fix)?;
    answer(json, || json::findings(&findings), || output::findings_text(&findings))?;
    let ill = findings.iter().any(|finding| finding.severity == Severity::Problem && !finding.fixed);
    Ok(if ill { ErrorCode::Io.exit_code() } else { 0 })
}
