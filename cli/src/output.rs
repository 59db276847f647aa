//! What is printed: text for people, JSON for programs. Both say the same.

use std::io::{self, Write};

use gitlock::{
    Bound, Finding, Holder, HolderStatus, JournalEntry, Listing, Liveness, LockStatus, Severity, WaiterStatus,
};
use serde_json::{Value, json};

use crate::{duration::show, failure::Failure, moment};

/// Writes a line to stderr. There is nobody to tell if that fails.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes text to stdout, with a line's end unless it is empty or has one.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        // A reader that has seen enough, such as `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| {
            Failure::new(gitlock::ErrorCode::Io, format!("the result can't be written to stdout: {error}"))
        }),
    }
}

/// What a record says of a holder.
pub(crate) fn holder(holder: &Holder) -> Value {
    let claim = &holder.claim;
    json!({
        "id": claim.id,
        "owner": claim.owner,
        "mode": claim.mode.as_str(),
        "token": holder.token,
        "bound": claim.bound.as_str(),
        "pid": claim.pid,
        "hostname": claim.hostname,
        "reason": claim.reason,
        "acquiredAt": holder.acquired_at,
        "timeout": holder.timeout,
        "ttl": claim.ttl,
        "waited": holder.waited,
    })
}

fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, more) {
        fields.extend(more);
    }
    value
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn holder_status(status: &HolderStatus) -> Value {
    let process = match status.liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "dead",
        Liveness::Unknown => "unknown",
    };
    let more = json!({ "remaining": millis(status.remaining), "heldFor": millis(status.held_for), "process": process });
    with(holder(&status.holder), more)
}

fn waiter_status((at, status): (usize, &WaiterStatus)) -> Value {
    let (waiter, claim) = (&status.waiter, &status.waiter.claim);
    json!({
        "position": at + 1,
        "id": claim.id,
        "owner": claim.owner,
        "mode": claim.mode.as_str(),
        "priority": waiter.priority,
        "pid": claim.pid,
        "hostname": claim.hostname,
        "reason": claim.reason,
        "since": waiter.since,
        "until": waiter.until,
        "waited": millis(status.waited),
    })
}

/// A lock as it is.
pub(crate) fn status_json(status: &LockStatus) -> Value {
    json!({
        "name": status.name.as_str(),
        "held": status.is_held(),
        "holders": status.holders.iter().map(holder_status).collect::<Vec<_>>(),
        "queue": status.queue.iter().enumerate().map(waiter_status).collect::<Vec<_>>(),
        "problem": status.problem,
    })
}

/// Every lock that is held.
pub(crate) fn listing_json(listing: &Listing) -> Value {
    let foreign: Vec<Value> =
        listing.foreign.iter().map(|foreign| json!({ "ref": foreign.name, "object": foreign.object })).collect();
    json!({ "locks": listing.locks.iter().map(status_json).collect::<Vec<_>>(), "foreign": foreign })
}

/// `alice (pid 12 on host), "deploy"`
fn who(owner: &str, pid: u32, hostname: &str, reason: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(", {reason:?}")).unwrap_or_default();
    format!("{} (pid {pid} on {}){reason}", plain(owner), plain(hostname))
}

/// Without the control characters with which a record could play tricks on a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Who holds, in a few words.
pub(crate) fn holder_words(holder: &Holder) -> String {
    let claim = &holder.claim;
    who(&claim.owner, claim.pid, &claim.hostname, claim.reason.as_deref())
}

/// A lock as it is, in lines.
pub(crate) fn status_text(status: &LockStatus) -> String {
    let name = plain(status.name.as_str());
    if let Some(problem) = &status.problem {
        return format!("{name}: counts as held: {}\n", plain(problem));
    }
    if status.holders.is_empty() {
        return format!("{name}: free\n");
    }
    let mut text = format!("{name}: held\n");
    for held in &status.holders {
        let renewed = match held.holder.claim.bound {
            Bound::Process => "unless renewed",
            Bound::Lease => "unless extended",
        };
        let token = held.holder.token.map(|token| format!(", token {token}")).unwrap_or_default();
        text += &format!(
            "  {} by {}\n    for {}, until {} {renewed}{token}\n",
            held.holder.claim.mode,
            holder_words(&held.holder),
            show(held.held_for),
            moment::clock_time(held.holder.ends_at()),
        );
    }
    for (at, queued) in status.queue.iter().enumerate() {
        let claim = &queued.waiter.claim;
        let priority = match queued.waiter.priority {
            0 => String::new(),
            priority => format!(", priority {priority}"),
        };
        text += &format!(
            "  waiting {}. {} for {}, {}{priority}\n",
            at + 1,
            who(&claim.owner, claim.pid, &claim.hostname, claim.reason.as_deref()),
            show(queued.waited),
            claim.mode,
        );
    }
    text
}

/// Every lock that is held, a line each.
pub(crate) fn listing_text(listing: &Listing) -> String {
    let mut text = String::new();
    for lock in &listing.locks {
        let name = plain(lock.name.as_str());
        let held = match (lock.holders.first(), &lock.problem) {
            (Some(first), _) => {
                let more = if lock.holders.len() > 1 {
                    format!(" and {} more", lock.holders.len() - 1)
                } else {
                    String::new()
                };
                let until = moment::clock_time(first.holder.ends_at());
                format!("{}{more}\t{}\tuntil {until}", holder_words(&first.holder), first.holder.claim.mode)
            }
            (None, Some(problem)) => plain(problem),
            (None, None) => continue,
        };
        let queue = if lock.queue.is_empty() { String::new() } else { format!("\t{} waiting", lock.queue.len()) };
        text += &format!("{name}\t{held}{queue}\n");
    }
    for foreign in &listing.foreign {
        text += &format!("{}\tmade by another tool\n", plain(&foreign.name));
    }
    text
}

/// A journal's entries.
pub(crate) fn log_json(name: &str, entries: &[JournalEntry]) -> Value {
    let entry = |entry: &JournalEntry| {
        json!({
            "commit": entry.commit,
            "outcome": entry.outcome,
            "id": entry.id,
            "token": entry.token,
            "owner": entry.owner,
            "hostname": entry.hostname,
            "pid": entry.pid,
            "mode": entry.mode,
            "acquiredAt": entry.acquired_at,
            "endedAt": entry.ended_at,
            "waited": entry.waited,
            "reason": entry.reason,
            "endedBy": entry.ended_by,
            "breakReason": entry.break_reason,
        })
    };
    json!({ "name": name, "entries": entries.iter().map(entry).collect::<Vec<_>>() })
}

/// A journal's entries, a line each.
pub(crate) fn log_text(entries: &[JournalEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let at = entry.ended_at.map_or_else(|| "at an unknown time".to_owned(), moment::date_time);
        let held = match (entry.acquired_at, entry.ended_at) {
            (Some(from), Some(to)) => {
                format!(" after {}", show(std::time::Duration::from_millis(to.saturating_sub(from))))
            }
            _ => String::new(),
        };
        let token = entry.token.map(|token| format!(", token {token}")).unwrap_or_default();
        let reason = entry.reason.as_ref().map(|reason| format!(", {reason:?}")).unwrap_or_default();
        let by = match entry.break_reason.as_deref() {
            Some(why) => format!("; ended by {}: {}", plain(&entry.ended_by), plain(why)),
            None if entry.outcome == "broken" => format!("; ended by {}", plain(&entry.ended_by)),
            None => String::new(),
        };
        let commit = entry.commit.get(..10).unwrap_or(&entry.commit);
        let (outcome, owner) = (plain(&entry.outcome), plain(&entry.owner));
        text += &format!("{commit} {at} {outcome}{held}: {owner}, {}{token}{reason}{by}\n", plain(&entry.mode));
    }
    text
}

/// What the doctor found.
pub(crate) fn findings_json(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Problem => "problem",
            Severity::Note => "note",
        };
        json!({ "severity": severity, "what": finding.what, "advice": finding.advice, "fixed": finding.fixed })
    };
    json!({ "findings": findings.iter().map(finding).collect::<Vec<_>>() })
}

/// What the doctor found, with what to do.
pub(crate) fn findings_text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong\n".to_owned();
    }
    let mut text = String::new();
    for finding in findings {
        let severity = match (finding.fixed, finding.severity) {
            (true, _) => "fixed",
            (false, Severity::Problem) => "problem",
            (false, Severity::Note) => "note",
        };
        text += &format!("{severity}: {}\n", plain(&finding.what));
        if !finding.fixed {
            text += &format!("  {}\n", plain(&finding.advice));
        }
    }
    text
}
