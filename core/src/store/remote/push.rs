//! Writing: the client of receive-pack (gitprotocol-pack). One push is one compare-and-swap.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use gix::hash;

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    store::{Oid, RefEdit, object::Encoded},
};

use super::{
    fetch::Capabilities,
    pack,
    pkt::{self, SideBand},
    transport::{self, Session},
};

/// One ref's part of a push.
#[derive(Clone, Debug)]
pub(super) struct Command<'a> {
    pub(super) edit: &'a RefEdit,
    /// What it is to point at; `None`: nothing.
    pub(super) new: Option<Oid>,
}

/// What a server reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// What went wrong with the pack, if anything did.
    unpack: Option<String>,
    /// By ref: nothing if it was changed, or why not.
    refs: HashMap<String, Option<String>>,
    /// What the server, or a hook of it, wants people to read.
    pub(super) messages: String,
}

impl Report {
    /// Whether it says that every one of these was carried out.
    pub(super) fn is_clean(&self, commands: &[Command<'_>]) -> bool {
        let ok = |command: &Command<'_>| self.refs.get(command.edit.name.as_str()) == Some(&None);
        self.unpack.is_none() && commands.iter().all(ok)
    }

    /// Why this ref wasn't changed, if it says so.
    pub(super) fn reason(&self, name: &str) -> Option<&str> {
        self.refs.get(name)?.as_deref()
    }

    /// The server's first reason for a refusal.
    pub(super) fn why(&self, commands: &[Command<'_>]) -> String {
        let reasons = commands.iter().filter_map(|command| self.refs.get(command.edit.name.as_str())?.as_deref());
        // That all failed together says less than why one of them did.
        let mut reasons: Vec<&str> = reasons.collect();
        reasons.sort_by_key(|reason| reason.contains("atomic"));
        let unpack = self.unpack.iter().map(|why| format!("unpack: {why}"));
        unpack.chain(reasons.into_iter().map(str::to_owned)).next().unwrap_or_else(|| "it reported nothing".to_owned())
    }
}

/// What a push brings.
#[derive(Clone, Copy, Default)]
pub(super) struct Bring<'a> {
    /// Objects of gitlock's own.
    pub(super) objects: &'a [&'a Encoded],
    /// A pack that Git made; empty: none.
    pub(super) pack: &'a [u8],
    /// Where the history in it is cut off.
    pub(super) shallow: &'a [Oid],
}

/// What a push says: the commands, and the pack of the objects that they bring.
pub(super) fn request(
    commands: &[Command<'_>],
    bring: Bring<'_>,
    capabilities: &Capabilities,
    hash: hash::Kind,
) -> Result<Vec<u8>> {
    if !capabilities.has("report-status") && !capabilities.has("report-status-v2") {
        return Err(lacks("report-status, by which it says what it did"));
    }
    let mut words = vec!["report-status".to_owned()];
    if !capabilities.has("report-status") {
        words = vec!["report-status-v2".to_owned()];
    }
    for word in ["side-band-64k", "quiet"] {
        if capabilities.has(word) {
            words.push(word.to_owned());
        }
    }
    if commands.len() > 1 {
        if !capabilities.has("atomic") {
            return Err(lacks("atomic"));
        }
        words.push("atomic".to_owned());
    }
    if commands.iter().any(|command| command.new.is_none()) && !capabilities.has("delete-refs") {
        return Err(lacks("delete-refs: it can't delete a ref, and a release is a deletion"));
    }
    if let Some(format) = capabilities.value("object-format") {
        words.push(format!("object-format={format}"));
    }
    if capabilities.value("agent").is_some() {
        words.push(concat!("agent=gitlock/", env!("CARGO_PKG_VERSION")).to_owned());
    }
    let none = "0".repeat(2 * hash.len_in_bytes());
    let id = |id: Option<Oid>| id.map_or_else(|| none.clone(), |id| id.to_string());
    let mut request = Vec::new();
    for id in bring.shallow {
        pkt::write(&mut request, format!("shallow {id}").as_bytes());
    }
    for (at, command) in commands.iter().enumerate() {
        let line = format!("{} {} {}", id(command.edit.expected), id(command.new), command.edit.name);
        let line = if at == 0 { format!("{line}\0 {}", words.join(" ")) } else { line };
        pkt::write(&mut request, line.as_bytes());
    }
    request.extend_from_slice(pkt::FLUSH);
    if commands.iter().any(|command| command.new.is_some()) {
        let pack = pack::write(bring.objects, bring.pack, hash);
        request.extend(
            pack.map_err(|error| Error::new(ErrorCode::Io, format!("a push could not be put together: {error}")))?,
        );
    }
    Ok(request)
}

fn lacks(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, format!("the server doesn't offer {what}; use another server for locks"))
}

/// Reads what the server says it did.
pub(super) fn report(session: &mut dyn Session, request: &[u8], capabilities: &Capabilities) -> Result<Report> {
    let answer = session.ask(request)?;
    let read = if capabilities.has("side-band-64k") {
        let mut band = SideBand::new(answer);
        let mut report = lines(&mut band);
        if report.is_ok() {
            report = band.finish().and(report);
        }
        if let Ok(report) = &mut report {
            report.messages = transport::plain(&band.messages);
        }
        report
    } else {
        lines(answer)
    };
    read.map_err(|error| session.trouble(error))
}

fn lines(from: &mut dyn Read) -> io::Result<Report> {
    let mut report = Report::default();
    while let Some(line) = pkt::text(from)? {
        if let Some(result) = line.strip_prefix("unpack ") {
            report.unpack = (result != "ok").then(|| transport::plain(result));
        } else if let Some(name) = line.strip_prefix("ok ") {
            report.refs.insert(name.to_owned(), None);
        } else if let Some((name, why)) = line.strip_prefix("ng ").and_then(|rest| rest.split_once(' ')) {
            report.refs.insert(name.to_owned(), Some(transport::plain(why)));
        } else if let Some(why) = line.strip_prefix("ERR ") {
            report.unpack = Some(transport::plain(why));
        }
    }
    Ok(report)
}

/// A refusal that asking again doesn't change, in words of its own; `None` if it may pass.
pub(super) fn refusal(place: &str, why: &str, messages: &str) -> Option<Error> {
    let lower = why.to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|word| lower.contains(word));
    let said = if messages.is_empty() { String::new() } else { format!(" It says: {messages}.") };
    let (code, message) = if has(&["hook declined", "hook failed"]) {
        (
            ErrorCode::PermissionDenied,
            format!(
                "a hook of {place} refused the lock's refs ({why}).{said} Let it pass refs/gitvan/ (or the prefix in use)"
            ),
        )
    } else if has(&["hidden ref"]) {
        (
            ErrorCode::PermissionDenied,
            format!(
                "{place} hides the refs that locks are kept in ({why}).{said} Take them out of receive.hideRefs and transfer.hideRefs, or set gitlock.prefix"
            ),
        )
    } else if has(&[
        "protected",
        "prohibited",
        "not allowed",
        "not permitted",
        "denied",
        "forbidden",
        "non-fast-forward",
        "read-only",
    ]) {
        (
            ErrorCode::PermissionDenied,
            format!(
                "{place} doesn't allow a change that locks need ({why}).{said} Exempt refs/gitvan/ (or the prefix in use) from that rule, or set gitlock.prefix"
            ),
        )
    } else if has(&["funny refname", "invalid ref", "invalid refname", "unsupported ref", "ref namespace"]) {
        (
            ErrorCode::Unsupported,
            format!(
                "{place} takes no refs of this kind ({why}).{said} Set gitlock.prefix to one that it takes, such as refs/heads/locks, or use another server"
            ),
        )
    } else if has(&["no space", "quota", "disk full", "exceeds maximum"]) {
        (ErrorCode::StorageFull, format!("{place} has no room left ({why}).{said} Free some, and try again"))
    } else {
        return None;
    };
    Some(Error::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RefName;

    #[test]
    fn only_a_report_of_everything_is_clean() {
        let edits =
            ["refs/a", "refs/b"].map(|name| RefEdit { name: RefName::foreign(name), expected: None, new: None });
        let commands = edits.each_ref().map(|edit| Command { edit, new: None });
        let report = |text: &[&str]| {
            let mut bytes = Vec::new();
            text.iter().for_each(|line| pkt::line(&mut bytes, line));
            bytes.extend_from_slice(pkt::FLUSH);
            lines(&mut &*bytes).unwrap()
        };
        assert!(report(&["unpack ok", "ok refs/a", "option x", "ok refs/b"]).is_clean(&commands));
        for unclean in [
            &["unpack ok", "ok refs/a"][..],
            &["unpack ok"],
            &["unpack index-pack failed", "ok refs/a", "ok refs/b"],
            &["unpack ok", "ok refs/a", "ng refs/b failed"],
            &["ERR no", "ok refs/a", "ok refs/b"],
        ] {
            assert!(!report(unclean).is_clean(&commands), "{unclean:?}");
        }
        let both = report(&["unpack ok", "ng refs/a atomic push failure", "ng refs/b failed to update ref"]);
        assert_eq!(both.why(&commands), "failed to update ref");
    }

    #[test]
    fn what_may_pass_and_what_does_not_are_told_apart() {
        for passing in [
            "failed to update ref",
            "atomic push failure",
            "cannot lock ref 'refs/a': …",
            "incorrect old value provided",
            "reference already exists",
            "lock failure",
        ] {
            assert!(refusal("x", passing, "").is_none(), "{passing}");
        }
        for lasting in [
            "pre-receive hook declined",
            "deny updating a hidden ref",
            "deletion prohibited",
            "funny refname",
            "non-fast-forward",
            "protected branch hook declined",
        ] {
            assert!(refusal("x", lasting, "").is_some(), "{lasting}");
        }
    }

    #[test]
    fn what_is_not_offered_is_not_asked_for() {
        let edit = RefEdit { name: RefName::foreign("refs/a"), expected: None, new: None };
        let command = Command { edit: &edit, new: None };
        let none = Capabilities::default();
        assert_eq!(
            request(std::slice::from_ref(&command), Bring::default(), &none, hash::Kind::Sha1).unwrap_err().code(),
            ErrorCode::Unsupported
        );
    }
}
