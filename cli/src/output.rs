//! What is printed: text for people, JSON for programs. Both say the same.

use std::io::{self, Write};

use gitlock::{Bound, Finding, Holder, JournalEntry, Listing, LockStatus, Severity, WaitGraph, lock::merge::origin};

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
    let mut text = match (status.holders.is_empty(), status.intents.is_empty()) {
        (true, true) => return format!("{name}: free\n"),
        (true, false) => format!("{name}: free, but something below it is held\n"),
        (false, _) => format!("{name}: held\n"),
    };
    for held in status.everybody() {
        let renewed = match held.holder.claim.bound {
            Bound::Process => "unless renewed",
            Bound::Lease => "unless extended",
        };
        let token = held.holder.token.map(|token| format!(", token {token}")).unwrap_or_default();
        let slot = held.holder.slot.zip(held.holder.claim.slots);
        let token = token + &slot.map(|(slot, of)| format!(", slot {slot} of {of}")).unwrap_or_default();
        text += &format!(
            "  {} by {}\n    for {}, until {} {renewed}{token}\n",
            held.holder.claim.mode,
            holder_words(&held.holder),
            show(held.held_for),
            moment::clock_time(held.holder.ends_at()),
        );
        if let Some(place) = origin(&held.holder) {
            text += &format!("    a copy from {}, as it was at the last sync\n", plain(place));
        }
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

/// Who waits for whom, a line each.
pub(crate) fn graph_text(graph: &WaitGraph) -> String {
    let mut text = String::new();
    for edge in &graph.edges {
        let how = if edge.holds { "holds it" } else { "waits before it" };
        let (owner, other, lock) = (plain(&edge.owner), plain(&edge.blocked_by), plain(edge.lock.as_str()));
        text += &format!("{owner} waits for {lock}: {other} {how}\n");
    }
    for cycle in &graph.cycles {
        text += &format!("deadlock: {}\n", plain(&cycle.to_string()));
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
            (None, None) => match lock.intents.first() {
                Some(below) => {
                    format!("something below it by {}\t{}", holder_words(&below.holder), below.holder.claim.mode)
                }
                None => continue,
            },
        };
        let queue = if lock.queue.is_empty() { String::new() } else { format!("\t{} waiting", lock.queue.len()) };
        text += &format!("{name}\t{held}{queue}\n");
    }
    for foreign in &listing.foreign {
        text += &format!("{}\tmade by another tool\n", plain(&foreign.name));
    }
    text
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
