//! What is counted, and the check of the log as it grows.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::loops::LoopFigures;

/// What one arm came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) rounds: u64,
    pub(crate) millis: u64,
    /// By role.
    pub(crate) acquired: BTreeMap<String, u64>,
    /// By what happened.
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) kills: u64,
    pub(crate) git_kills: u64,
    /// Processes that were still there at the end of a round.
    pub(crate) strays: u64,
    pub(crate) git: LoopFigures,
    /// The longest that the lock took to be free at the end of a round, in milliseconds.
    pub(crate) recovery: u64,
    pub(crate) faults: Vec<String>,
}

impl Figures {
    pub(crate) fn acquisitions(&self) -> u64 {
        self.acquired.values().sum()
    }

    pub(crate) fn of(&self, role: &str) -> u64 {
        self.acquired.get(role).copied().unwrap_or(0)
    }

    pub(crate) fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn add_git(&mut self, more: LoopFigures) {
        let git = &mut self.git;
        git.runs += more.runs;
        git.failed += more.failed;
        git.killed += more.killed;
        git.missing += more.missing;
        git.missing_for = git.missing_for.max(more.missing_for);
        git.leftovers += more.leftovers;
        for words in more.words {
            if git.words.len() < 12 {
                git.words.push(words);
            }
        }
    }

    pub(crate) fn add(&mut self, round: Figures) {
        self.rounds += 1;
        self.millis += round.millis;
        for (role, count) in round.acquired {
            *self.acquired.entry(role).or_default() += count;
        }
        for (what, count) in round.counts {
            *self.counts.entry(what).or_default() += count;
        }
        self.kills += round.kills;
        self.git_kills += round.git_kills;
        self.strays += round.strays;
        self.add_git(round.git);
        self.recovery = self.recovery.max(round.recovery);
        self.faults.extend(round.faults);
    }
}

/// A critical section that was logged whole.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) shared: bool,
    pub(crate) token: u64,
    pub(crate) id: String,
    pub(crate) span: (u64, u64),
    pub(crate) released: bool,
}

/// Reads the log as it grows.
#[derive(Debug, Default)]
pub(crate) struct LogReader {
    at: u64,
    rest: String,
    /// Whether tokens must grow from line to line. Where a holder can be overthrown before it has
    /// logged its token, they needn't.
    in_order: bool,
    highest: u64,
    highest_exclusive: u64,
    pub(crate) tokens: HashSet<u64>,
    pub(crate) sections: Vec<Section>,
}

impl LogReader {
    pub(crate) fn new(in_order: bool) -> LogReader {
        LogReader { in_order, ..LogReader::default() }
    }

    /// Takes in what is new. Returns how many acquisitions that were.
    pub(crate) fn read(&mut self, path: &Path, figures: &mut Figures) -> u64 {
        let text = match tail(path, &mut self.at) {
            Ok(text) => std::mem::take(&mut self.rest) + &text,
            Err(_) => return 0,
        };
        let (whole, rest) = text.rsplit_once('\n').map_or(("", &*text), |(whole, rest)| (whole, rest));
        self.rest = rest.to_owned();
        whole.lines().map(|line| u64::from(self.take(line, figures))).sum()
    }

    fn take(&mut self, line: &str, figures: &mut Figures) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match words[..] {
            ["E", role, mode, _] => {
                *figures.acquired.entry(role.to_owned()).or_default() += 1;
                if number(3) > 0 {
                    self.token(line, mode == "s", number(3), figures);
                }
                true
            }
            ["X", _, mode, _, id, ..] => {
                let (shared, span, released) = (mode == "s", (number(5), number(6)), number(7) == 1);
                self.sections.push(Section { shared, token: number(3), id: id.to_owned(), span, released });
                false
            }
            ["N", role, what, _] => {
                *figures.counts.entry(what.to_owned()).or_default() += number(3);
                *figures.counts.entry(format!("{role}.{what}")).or_default() += number(3);
                false
            }
            _ => {
                figures.faults.push(format!("a line of the log can't be read: {line}"));
                false
            }
        }
    }

    fn token(&mut self, line: &str, shared: bool, token: u64, figures: &mut Figures) {
        if !self.tokens.insert(token) {
            figures.faults.push(format!("REPEATED TOKEN: {line}"));
        }
        // Shared holders are granted in an order, but log in any.
        let below = if shared { self.highest_exclusive } else { self.highest };
        if self.in_order && token < below {
            figures.faults.push(format!("SHRINKING TOKEN: {line}, after {below}"));
        }
        self.highest = self.highest.max(token);
        if !shared {
            self.highest_exclusive = self.highest_exclusive.max(token);
        }
    }
}

/// What was added to a file.
pub(crate) fn tail(path: &Path, at: &mut u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(*at))?;
    let mut bytes = Vec::new();
    *at += file.read_to_end(&mut bytes)? as u64;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
