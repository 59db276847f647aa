//! Everything that can be seen of locks as JSON: one shape, which every surface passes on.
//!
//! Times are in milliseconds: moments since the Unix epoch, lengths as such. What isn't known is `null`.

use serde_json::json;

/// What every function here gives.
pub use serde_json::Value;

use crate::{
    Cleaned, Cycle, Error, Finding, Holder, HolderStatus, JournalEntry, Listing, LockStatus, SyncChange, Synced,
    WaitEdge, WaitGraph, WaiterStatus, Wanted, clock::millis, lock::merge,
};

/// What a record says of a holder.
pub fn holder(holder: &Holder) -> Value {
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
        "slot": holder.slot,
        "slots": claim.slots,
        "priority": holder.priority,
        "from": merge::origin(holder),
    })
}

fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, more) {
        fields.extend(more);
    }
    value
}

fn holder_status(status: &HolderStatus) -> Value {
    let more = json!({ "remaining": millis(status.remaining), "heldFor": millis(status.held_for), "process": status.liveness.as_str() });
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
pub fn status(status: &LockStatus) -> Value {
    json!({
        "name": status.name.as_str(),
        "held": status.is_held(),
        "holders": status.holders.iter().map(holder_status).collect::<Vec<_>>(),
        "intents": status.intents.iter().map(holder_status).collect::<Vec<_>>(),
        "queue": status.queue.iter().enumerate().map(waiter_status).collect::<Vec<_>>(),
        "problem": status.problem,
    })
}

/// Every lock that is held.
pub fn listing(listing: &Listing) -> Value {
    let foreign: Vec<Value> =
        listing.foreign.iter().map(|foreign| json!({ "ref": foreign.name, "object": foreign.object })).collect();
    json!({ "locks": listing.locks.iter().map(status).collect::<Vec<_>>(), "foreign": foreign })
}

/// Who waits for what a tenure holds.
pub fn wanted(wanted: &Wanted) -> Value {
    json!({ "waiters": wanted.waiters, "priority": wanted.priority })
}

/// Who waits for whom.
pub fn graph(graph: &WaitGraph) -> Value {
    let edge = |edge: &WaitEdge| {
        json!({
            "lock": edge.lock.as_str(),
            "id": edge.id,
            "owner": edge.owner,
            "blocker": edge.blocker,
            "blockedBy": edge.blocked_by,
            "holds": edge.holds,
        })
    };
    let cycle = |cycle: &Cycle| json!({ "victim": cycle.victim, "text": cycle.to_string() });
    json!({
        "edges": graph.edges.iter().map(edge).collect::<Vec<_>>(),
        "cycles": graph.cycles.iter().map(cycle).collect::<Vec<_>>(),
    })
}

/// A journal's entries.
pub fn log(name: &str, entries: &[JournalEntry]) -> Value {
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

/// What the doctor found.
pub fn findings(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| json!({ "severity": finding.severity.as_str(), "what": finding.what, "advice": finding.advice, "fixed": finding.fixed });
    json!({ "findings": findings.iter().map(finding).collect::<Vec<_>>() })
}

/// Tenures that were ended by force.
pub fn broken(name: &str, broken: &[Holder]) -> Value {
    json!({ "name": name, "broken": broken.iter().map(holder).collect::<Vec<_>>() })
}

/// What a clean-up did.
pub fn cleaned(cleaned: &Cleaned) -> Value {
    json!({
        "locks": cleaned.locks.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "objectsDeleted": cleaned.objects_deleted,
        "objectsWaiting": cleaned.objects_waiting,
    })
}

/// What a sync has changed.
pub fn synced(synced: &Synced) -> Value {
    let change = |change: &SyncChange| {
        json!({
            "name": change.name.as_str(),
            "fate": change.fate.as_str(),
            "holder": holder(&change.holder),
            "other": change.fate.other().map(holder),
        })
    };
    let left = |(name, why): &(crate::LockName, String)| json!({ "name": name.as_str(), "problem": why });
    json!({
        "changes": synced.changes.iter().map(change).collect::<Vec<_>>(),
        "left": synced.left.iter().map(left).collect::<Vec<_>>(),
    })
}

/// What went wrong.
pub fn error(error: &Error) -> Value {
    json!({
        "code": error.code().as_str(),
        "message": error.to_string(),
        "retry": error.retry().as_str(),
        "holder": error.holder().map(holder),
    })
}
