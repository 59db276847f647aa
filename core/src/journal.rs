//! The journal: one commit for each tenure that ended, so that `git log` is the audit trail.

use std::fmt::Write;

use crate::{
    lock::{Bound, Cause, Claim, Ended, Holder, JournalTip, Mode},
    name::LockName,
    store::{CommitDraft, CommitView, Oid, Parent, Signature},
};

/// Who ends tenures: this process, or somebody in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The session.
    pub owner: String,
    /// The host.
    pub hostname: String,
    /// The process.
    pub pid: u32,
}

/// The newest commit of a journal, as far as the next one needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tip {
    /// What the rules need.
    pub(crate) journal: JournalTip,
    /// How many commits the journal has.
    pub(crate) depth: u64,
}

/// One ended tenure, read back from the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalEntry {
    /// The commit.
    pub commit: String,
    /// How it ended: `released`, `expired`, `owner died`, `broken` or `cancelled`; after a sync with another
    /// repository also `ended elsewhere` or `overruled`, and `goes on` for one that hadn't ended after all.
    pub outcome: String,
    /// The tenure's id; empty if its record couldn't be read.
    pub id: String,
    /// Its fencing token.
    pub token: Option<u64>,
    /// The session that held.
    pub owner: String,
    /// Its host.
    pub hostname: String,
    /// Its process.
    pub pid: Option<u64>,
    /// The mode.
    pub mode: String,
    /// When it was acquired, in milliseconds since the Unix epoch.
    pub acquired_at: Option<u64>,
    /// When it ended, likewise.
    pub ended_at: Option<u64>,
    /// How long it had queued, in milliseconds.
    pub waited: Option<u64>,
    /// Why the lock was wanted.
    pub reason: Option<String>,
    /// Who ended it.
    pub ended_by: String,
    /// Why it was ended by force.
    pub break_reason: Option<String>,
}

const ID: &str = "Lock-Id";
const TOKEN: &str = "Lock-Token";
const HIGHEST: &str = "Lock-Highest-Token";
const DEPTH: &str = "Lock-Depth";
const ALSO_ENDED: &str = "Lock-Also-Ended";

/// What is to be written down at once: by whom, and what still stands in the record besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    /// The tenures that ended, oldest first.
    pub(crate) entries: &'a [Ended],
    /// Tenures that the tip before ended and that still stand in the record.
    pub(crate) finished: &'a [String],
    /// Who ends them.
    pub(crate) by: &'a Actor,
}

impl Batch<'_> {
    /// Every id that the new tip has to name.
    pub(crate) fn ids(&self) -> Vec<String> {
        let ended = self.entries.iter().filter_map(|entry| entry.holder.as_ref()).map(|holder| &holder.claim.id);
        ended.chain(self.finished).cloned().collect()
    }
}

/// The commits that tell of these tenures, oldest first, on top of `parent`.
pub(crate) fn drafts(name: &LockName, batch: Batch<'_>, parent: Parent, depth: u64) -> Vec<CommitDraft> {
    let Batch { entries, by, .. } = batch;
    let ids = batch.ids();
    let commit = |(at, entry): (usize, &Ended)| {
        let mut message = format!("{name}: {}\n\n", entry.cause.as_str());
        let mut trailer = |key: &str, value: &dyn std::fmt::Display| trailer(&mut message, key, value);
        let mut author =
            Signature { name: "unknown".to_owned(), email: "unknown".to_owned(), seconds: entry.at / 1_000 };
        if let Some(holder) = &entry.holder {
            let claim = &holder.claim;
            author = Signature {
                name: claim.owner.clone(),
                email: format!("{}@{}", claim.pid, claim.hostname),
                seconds: holder.acquired_at / 1_000,
            };
            trailer(ID, &claim.id);
            if let Some(token) = holder.token {
                trailer(TOKEN, &token);
            }
            trailer("Lock-Owner", &claim.owner);
            trailer("Lock-Host", &claim.hostname);
            trailer("Lock-Pid", &claim.pid);
            trailer("Lock-Mode", &claim.mode);
            trailer("Lock-Acquired", &holder.acquired_at);
            trailer("Lock-Waited", &holder.waited);
            if let Some(reason) = &claim.reason {
                trailer("Lock-Reason", reason);
            }
        }
        trailer("Lock-Ended", &entry.at);
        trailer("Lock-Ended-By", &format_args!("{} {}@{}", by.owner, by.pid, by.hostname));
        if let Some(reason) = &entry.reason {
            trailer("Lock-Break-Reason", reason);
        }
        trailer(HIGHEST, &entry.highest_token);
        trailer(DEPTH, &(depth + at as u64 + 1));
        // The tip must name all that ended with it: a crash may have left them in the record.
        if at + 1 == entries.len() {
            let own = entry.holder.as_ref().map(|holder| &*holder.claim.id);
            ids.iter().filter(|id| Some(id.as_str()) != own).for_each(|id| trailer(ALSO_ENDED, id));
        }
        CommitDraft {
            parent: if at == 0 { parent } else { Parent::Previous },
            author,
            committer: Signature {
                name: by.owner.clone(),
                email: format!("{}@{}", by.pid, by.hostname),
                seconds: entry.at / 1_000,
            },
            message,
        }
    };
    entries.iter().enumerate().map(commit).collect()
}

fn trailer(message: &mut String, key: &str, value: &dyn std::fmt::Display) {
    let _ = write!(message, "{key}: ");
    let start = message.len();
    let _ = write!(message, "{value}");
    let value = &message[start..];
    // A value that could end its line could say anything about the lock.
    if value.contains(char::is_control) || value.trim().len() != value.len() {
        let harmless = value.replace(char::is_control, " ");
        message.replace_range(start.., harmless.trim());
    }
    message.push('\n');
}

/// The same commit for another place in the chain.
pub(crate) fn rebase(commit: &CommitView, parent: Parent, depth: u64) -> CommitDraft {
    let mut message = String::with_capacity(commit.message.len());
    for line in commit.message.lines() {
        match line.split_once(": ") {
            Some((DEPTH, _)) => drop(writeln!(message, "{DEPTH}: {depth}")),
            _ => drop(writeln!(message, "{line}")),
        }
    }
    CommitDraft { parent, author: commit.author.clone(), committer: commit.committer.clone(), message }
}

fn trailers(message: &str) -> impl Iterator<Item = (&str, &str)> {
    let paragraph = message.trim_end().rsplit("\n\n").next().unwrap_or_default();
    paragraph.lines().filter_map(|line| line.split_once(": "))
}

/// What the next commit needs of this one. A commit that isn't ours says nothing.
pub(crate) fn tip(commit: &CommitView) -> Tip {
    let mut tip = Tip::default();
    for (key, value) in trailers(&commit.message) {
        match key {
            ID | ALSO_ENDED => tip.journal.ended.push(value.to_owned()),
            TOKEN | HIGHEST => {
                let token = value.parse().unwrap_or(0).min(crate::lock::record::MAX_NUMBER);
                tip.journal.highest_token = tip.journal.highest_token.max(token);
            }
            DEPTH => tip.depth = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    tip
}

/// What a commit tells.
pub(crate) fn entry(id: &Oid, commit: &CommitView) -> JournalEntry {
    let subject = commit.message.lines().next().unwrap_or_default();
    let outcome = subject.rsplit_once(": ").map_or(subject, |(_, outcome)| outcome);
    let mut entry = JournalEntry { commit: id.to_string(), outcome: outcome.to_owned(), ..JournalEntry::default() };
    for (key, value) in trailers(&commit.message) {
        let number = || value.parse().ok();
        match key {
            ID => entry.id = value.to_owned(),
            TOKEN => entry.token = number(),
            "Lock-Owner" => entry.owner = value.to_owned(),
            "Lock-Host" => entry.hostname = value.to_owned(),
            "Lock-Pid" => entry.pid = number(),
            "Lock-Mode" => entry.mode = value.to_owned(),
            "Lock-Acquired" => entry.acquired_at = number(),
            "Lock-Waited" => entry.waited = number(),
            "Lock-Reason" => entry.reason = Some(value.to_owned()),
            "Lock-Ended" => entry.ended_at = number(),
            "Lock-Ended-By" => entry.ended_by = value.to_owned(),
            "Lock-Break-Reason" => entry.break_reason = Some(value.to_owned()),
            _ => {}
        }
    }
    entry
}

/// A tenure as another journal is to tell of it; `None` for what is no tenure's end.
pub(crate) fn ended(entry: JournalEntry) -> Option<Ended> {
    let cause = Cause::parse(&entry.outcome)?;
    let claim = Claim {
        id: Some(entry.id).filter(|id| !id.is_empty())?,
        owner: entry.owner,
        fingerprint: String::new(),
        mode: Mode::parse(&entry.mode).unwrap_or(Mode::Exclusive),
        ttl: 0,
        bound: Bound::Lease,
        process: None,
        pid: entry.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        hostname: entry.hostname,
        reason: entry.reason,
        slots: None,
        upgrades: None,
        extra: Default::default(),
    };
    let (acquired_at, waited, token) = (entry.acquired_at.unwrap_or(0), entry.waited.unwrap_or(0), entry.token);
    let holder = Holder { claim, acquired_at, timeout: 0, token, end: None, waited, slot: None, priority: 0 };
    let (at, highest_token) = (entry.ended_at.unwrap_or(0), token.unwrap_or(0));
    Some(Ended { holder: Some(holder), cause, at, reason: entry.break_reason, highest_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: &str, token: u64, reason: &str) -> Ended {
        let claim = Claim {
            id: id.to_owned(),
            owner: "host/1/1".to_owned(),
            fingerprint: String::new(),
            mode: Mode::Exclusive,
            ttl: 30_000,
            bound: Bound::Lease,
            process: None,
            pid: 7,
            hostname: "host".to_owned(),
            reason: Some(reason.to_owned()),
            slots: None,
            upgrades: None,
            extra: Default::default(),
        };
        let holder = Holder {
            claim,
            acquired_at: 1_000,
            timeout: 30_000,
            token: Some(token),
            end: None,
            waited: 5,
            slot: None,
            priority: 0,
        };
        Ended { holder: Some(holder), cause: Cause::Released, at: 2_000, reason: None, highest_token: token }
    }

    fn view(draft: &CommitDraft) -> CommitView {
        CommitView { message: draft.message.clone(), ..CommitView::default() }
    }

    #[test]
    fn the_tip_names_all_that_ended_with_it_and_the_highest_token() {
        let by = Actor { owner: "me".to_owned(), hostname: "host".to_owned(), pid: 1 };
        let entries = [ended("a", 9, ""), ended("b", 8, "")];
        let batch = Batch { entries: &entries, finished: &["c".to_owned()], by: &by };
        let drafts = drafts(&LockName::new("x").unwrap(), batch, Parent::None, 3);
        let tip = tip(&view(&drafts[1]));
        assert_eq!(tip.journal.ended, ["b", "a", "c"]);
        assert_eq!(tip.depth, 5);
        assert_eq!(super::tip(&view(&drafts[0])).journal.highest_token, 9);
        let entry = entry(&Oid::from_bytes(&[1; 20]).unwrap(), &view(&drafts[0]));
        assert_eq!((entry.id.as_str(), entry.token, entry.outcome.as_str()), ("a", Some(9), "released"));
    }

    #[test]
    fn a_reason_cannot_forge_a_trailer() {
        let by = Actor { owner: "me".to_owned(), hostname: "host".to_owned(), pid: 1 };
        let forged = ended("a", 5, "x\n\nLock-Token: 9007199254740991\nLock-Also-Ended: b");
        let batch = Batch { entries: &[forged], finished: &[], by: &by };
        let drafts = drafts(&LockName::new("x").unwrap(), batch, Parent::None, 0);
        let tip = tip(&view(&drafts[0]));
        assert_eq!(tip.journal.highest_token, 5);
        assert_eq!(tip.journal.ended, ["a"]);
    }
}
