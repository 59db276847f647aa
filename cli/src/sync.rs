//! `git lock sync`: once, or again and again.

use std::time::Duration;

use gitlock::{
    ErrorCode, LockManager, Retry, SyncChange, SyncFate, Synced,
    clock::{Clock, SystemClock},
    json,
};

use crate::{
    args::{Global, Sync},
    commands::Exit,
    failure::Failure,
    open,
    output::{self, plain, say},
};

/// The repository itself, whatever its configuration says of remotes.
const HERE: &str = ".";

/// The remote that is meant where none is named.
const ORIGIN: &str = "origin";

pub(crate) fn sync(global: &Global, remote: Option<&String>, asked: &Sync) -> Exit {
    let here = open(global, Some(&HERE.to_owned()))?;
    let there = match asked.remote.as_ref().or(remote) {
        Some(remote) => open(global, Some(remote))?,
        None => {
            let configured = open(global, None)?;
            if configured.location() == here.location() { open(global, Some(&ORIGIN.to_owned()))? } else { configured }
        }
    };
    match asked.every {
        None => {
            let synced = here.sync(&there, asked.strategy)?;
            tell(&synced, &there, global.json)?;
            Ok(if synced.left.is_empty() { 0 } else { ErrorCode::RecordCorrupt.exit_code() })
        }
        Some(every) => go_on(&here, &there, asked, (every, global.json)),
    }
}

/// Syncs until somebody stops it. That the remote is away is nothing to stop for.
fn go_on(here: &LockManager, there: &LockManager, asked: &Sync, (every, json): (Duration, bool)) -> Exit {
    let mut trouble = None;
    loop {
        match here.sync(there, asked.strategy) {
            Ok(synced) => {
                if trouble.take().is_some() {
                    output::tell(&format!("git-lock: synced with {} again", plain(&there.location())));
                }
                if !synced.changes.is_empty() || !synced.left.is_empty() {
                    tell(&synced, there, json)?;
                }
            }
            // What doesn't pass by itself is no reason to go on.
            Err(error) if error.retry() == Retry::Never => return Err(error.into()),
            // Told once, and not each time.
            Err(error) => {
                let now = error.to_string();
                if trouble.as_ref() != Some(&now) {
                    Failure::from(error).tell(json);
                    trouble = Some(now);
                }
            }
        }
        here.close();
        there.close();
        SystemClock.pause(every.max(Duration::from_millis(100)));
    }
}

fn tell(synced: &Synced, there: &LockManager, json: bool) -> Result<(), Failure> {
    if json {
        return say(&json::synced(synced).to_string());
    }
    let place = plain(&there.location());
    let changes =
        synced.changes.iter().map(|change| format!("{}: {}\n", plain(change.name.as_str()), fate(change, &place)));
    let left =
        synced.left.iter().map(|(name, why)| format!("{}: left as it is: {}\n", plain(name.as_str()), plain(why)));
    let mut text: String = changes.chain(left).collect();
    if text.is_empty() {
        text = format!("nothing had changed, here or at {place}\n");
    }
    say(&text)
}

fn fate(change: &SyncChange, place: &str) -> String {
    let who = output::holder_words(&change.holder);
    match &change.fate {
        SyncFate::Sent => format!("held here by {who}, and now at {place} too"),
        SyncFate::Received => format!("held at {place} by {who}, and now here too"),
        SyncFate::EndedThere => format!("had ended here, and now at {place} too; it was held by {who}"),
        SyncFate::EndedHere => format!("had ended at {place}, and now here too; it was held by {who}"),
        SyncFate::Lost => format!("lost by {who}: it had been ended at {place}"),
        SyncFate::Overruled { by } => format!("lost by {who}: {} keeps it", output::holder_words(by)),
        SyncFate::Conflict { with } => format!("held by {who}, and by {}", output::holder_words(with)),
    }
}
