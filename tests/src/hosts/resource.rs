//! The fenced resource, which is the oracle: it refuses a token lower than the highest that it saw, writes down who was
//! inside when, and knows nothing of gitlock. It is reached by a socket in the file system, past every network.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::torture::millis;

/// Errors that a worker may meet while the network or the server is in trouble. Nobody wants a second lock, so there is
/// no deadlock, not even of those whose releases didn't get through.
const EXPECTED: [&str; 5] = ["TIMEOUT", "HELD", "IO", "REPOSITORY_BUSY", "LOCK_LOST"];

/// One stay inside.
#[derive(Clone, Debug)]
struct Section {
    lock: String,
    token: u64,
    role: String,
    /// Milliseconds on this machine's boot clock, here and below.
    entered: u64,
    left: Option<u64>,
    refused: bool,
    /// Whether somebody with a higher token had come before it left.
    late: bool,
    /// How the release ended: `ok`, or an error's code.
    result: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    sections: Vec<Section>,
    by_token: HashMap<(String, u64), usize>,
    highest: HashMap<String, u64>,
    last: HashMap<String, u64>,
    failures: BTreeMap<String, u64>,
    faults: Vec<String>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Stays inside, by who it was.
    pub(super) entered: BTreeMap<String, u64>,
    /// Those that were refused because of their token.
    pub(super) refused: u64,
    /// Those whose last write was.
    pub(super) late: u64,
    /// How releases ended.
    pub(super) results: BTreeMap<String, u64>,
    /// Errors of acquires.
    pub(super) failures: BTreeMap<String, u64>,
    /// Tokens whose release succeeded, by lock.
    pub(super) released: Vec<(String, u64)>,
    /// What must not be.
    pub(super) faults: Vec<String>,
}

/// The resource; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Resource(Arc<Mutex<State>>);

impl Resource {
    /// Listens at a path.
    pub(super) fn start(path: &Path) -> std::io::Result<Resource> {
        let listener = UnixListener::bind(path)?;
        let resource = Resource(Arc::default());
        let theirs = resource.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let resource = theirs.clone();
                thread::spawn(move || resource.serve(&stream));
            }
        });
        Ok(resource)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &UnixStream) {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let answer = self.state().take(&line, millis());
            if writeln!({ stream }, "{answer}").is_err() {
                return;
            }
        }
    }

    /// How many stays there were.
    pub(super) fn count(&self) -> u64 {
        self.state().sections.iter().filter(|section| !section.refused).count() as u64
    }

    /// When somebody last came inside by this lock.
    pub(super) fn last(&self, lock: &str) -> u64 {
        self.state().last.get(lock).copied().unwrap_or(0)
    }

    /// Something that must not be.
    pub(super) fn fault(&self, what: String) {
        self.state().faults.push(what);
    }

    /// Judges it all.
    pub(super) fn judge(&self) -> Seen {
        self.state().judge()
    }
}

impl State {
    /// Answers one line.
    fn take(&mut self, line: &str, now: u64) -> &'static str {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["enter", lock, token, role] => self.enter(lock, token.parse().unwrap_or(0), role, now),
            ["leave", lock, token] => {
                let highest = self.highest.get(lock).copied().unwrap_or_default();
                let Some(section) = self.section(lock, token) else { return "ok" };
                section.left = Some(now);
                // What is written last is fenced too: by then its lease may be over.
                section.late = section.token < highest;
                if section.late { "refused" } else { "ok" }
            }
            ["result", lock, token, result] => {
                if let Some(section) = self.section(lock, token) {
                    section.result = Some(result.to_owned());
                    self.expect(result, line);
                }
                "ok"
            }
            ["failed", role, code, ..] => {
                *self.failures.entry(format!("{role} {code}")).or_default() += 1;
                self.expect(code, line);
                "ok"
            }
            _ => {
                self.faults.push(format!("nobody understands {line:?}"));
                "what?"
            }
        }
    }

    fn expect(&mut self, code: &str, line: &str) {
        if code != "ok" && !EXPECTED.contains(&code) {
            self.faults.push(format!("UNEXPECTED ERROR: {line}"));
        }
    }

    fn section(&mut self, lock: &str, token: &str) -> Option<&mut Section> {
        let at = self.by_token.get(&(lock.to_owned(), token.parse().unwrap_or(0)));
        match at {
            Some(at) => self.sections.get_mut(*at),
            None => {
                self.faults.push(format!("somebody leaves {lock} with {token}, and never entered"));
                None
            }
        }
    }

    fn enter(&mut self, lock: &str, token: u64, role: &str, now: u64) -> &'static str {
        let (key, at) = ((lock.to_owned(), token), self.sections.len());
        if let Some(before) = self.by_token.insert(key, at) {
            let before = &self.sections[before];
            self.faults.push(format!("DOUBLE GRANT: {role} comes to {lock} with {token}, as {} did", before.role));
        }
        let highest = self.highest.entry(lock.to_owned()).or_default();
        let refused = token < *highest;
        *highest = token.max(*highest);
        if !refused {
            self.last.insert(lock.to_owned(), now);
        }
        self.sections.push(Section {
            lock: lock.to_owned(),
            token,
            role: role.to_owned(),
            entered: now,
            left: None,
            refused,
            late: false,
            result: None,
        });
        if refused { "refused" } else { "ok" }
    }

    fn judge(&self) -> Seen {
        let mut seen = Seen { failures: self.failures.clone(), faults: self.faults.clone(), ..Seen::default() };
        for section in &self.sections {
            if section.refused {
                seen.refused += 1;
            } else {
                *seen.entered.entry(section.role.clone()).or_default() += 1;
            }
            seen.late += u64::from(section.late);
            let result = section.result.as_deref().unwrap_or("never told");
            *seen.results.entry(result.to_owned()).or_default() += 1;
        }
        // Who released with success held the lock all the time from before it entered until after it left.
        let mut held: Vec<&Section> =
            self.sections.iter().filter(|section| section.result.as_deref() == Some("ok")).collect();
        held.sort_by_key(|section| (section.lock.clone(), section.entered));
        for section in &held {
            seen.released.push((section.lock.clone(), section.token));
            if section.refused || section.late {
                seen.faults.push(format!("DOUBLE GRANT: refused by its token, and yet it held the lock: {section:?}"));
            }
        }
        for pair in held.windows(2).filter(|pair| pair[0].lock == pair[1].lock) {
            if pair[1].token <= pair[0].token {
                seen.faults.push(format!("SHRINKING TOKEN: {:?}, then {:?}", pair[0], pair[1]));
            }
            if pair[0].left.is_none_or(|left| left > pair[1].entered) {
                seen.faults.push(format!("DOUBLE GRANT: {:?}, and meanwhile {:?}", pair[0], pair[1]));
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str]) -> Seen {
        let mut state = State::default();
        for (now, line) in (0..).zip(lines) {
            state.take(line, now);
        }
        state.judge()
    }

    fn judged(lines: &[&str]) -> Vec<String> {
        seen(lines).faults
    }

    #[test]
    fn what_is_right_passes() {
        let lines =
            ["enter a 1 x", "leave a 1", "result a 1 ok", "enter b 1 x", "enter a 2 y", "leave a 2", "result a 2 ok"];
        assert_eq!(judged(&lines), [""; 0]);
        // One that was stopped past its lease.
        let lines = ["enter a 1 x", "enter a 2 y", "leave a 2", "result a 2 ok", "leave a 1", "result a 1 LOCK_LOST"];
        assert_eq!((judged(&lines), seen(&lines).late), (vec![], 1));
        assert_eq!(judged(&["enter a 2 y", "enter a 1 x", "result a 1 LOCK_LOST", "failed x IO gone"]), [""; 0]);
    }

    #[test]
    fn each_fault_is_seen() {
        for (lines, fault) in [
            (&["enter a 1 x", "enter a 1 y"][..], "DOUBLE GRANT"),
            (&["enter a 2 x", "enter a 1 y", "result a 1 ok"], "DOUBLE GRANT"),
            (
                &["enter a 1 x", "enter a 2 y", "leave a 2", "result a 2 ok", "leave a 1", "result a 1 ok"],
                "DOUBLE GRANT",
            ),
            (&["enter a 2 x", "leave a 2", "result a 2 ok", "enter a 1 y", "leave a 1", "result a 1 ok"], "SHRINKING"),
            (&["failed x RECORD_CORRUPT"], "UNEXPECTED"),
            (&["failed x DEADLOCK a holds b"], "UNEXPECTED"),
            (&["enter a 1 x", "result a 1 NOT_OWNER"], "UNEXPECTED"),
            (&["leave a 1"], "never entered"),
            (&["hello"], "nobody understands"),
        ] {
            let told = judged(lines);
            assert!(told.iter().any(|line| line.contains(fault)), "{lines:?}: {told:?}");
        }
    }
}
