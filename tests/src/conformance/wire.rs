//! What goes between the runner and a shim: lines of a verb and `key=value` fields, separated by tabs.

use std::{
    fmt,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use gitlock::clock::{Clock, SystemClock};

/// How long an answer, or an event that has to come, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One line. Values may hold anything; what would end them is percent-encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) verb: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Line {
    pub(super) fn new(verb: &str) -> Line {
        Line { verb: verb.to_owned(), fields: Vec::new() }
    }

    pub(super) fn with(mut self, key: &str, value: impl fmt::Display) -> Line {
        self.fields.push((key.to_owned(), value.to_string()));
        self
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    pub(super) fn parse(text: &str) -> Line {
        let mut words = text.split('\t');
        let mut line = Line::new(words.next().unwrap_or_default());
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            line.fields.push((key.to_owned(), decode(value)));
        }
        line
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verb)?;
        for (key, value) in &self.fields {
            write!(f, "\t{key}={}", encode(value))?;
        }
        Ok(())
    }
}

fn encode(value: &str) -> String {
    value.replace('%', "%25").replace('\t', "%09").replace('\n', "%0A").replace('\r', "%0D")
}

fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        match code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]).1,
            None => (bytes.push(*first), rest = tail).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

type Write = Box<dyn FnMut(&str) -> Result<(), String> + Send>;

/// The runner's end of the connection to one shim.
pub(super) struct Link {
    write: Write,
    lines: Receiver<String>,
    number: u64,
    /// Events that nobody has asked for yet.
    events: Vec<Line>,
}

impl Link {
    pub(super) fn new(write: impl FnMut(&str) -> Result<(), String> + Send + 'static, lines: Receiver<String>) -> Link {
        Link { write: Box::new(write), lines, number: 0, events: Vec::new() }
    }

    /// Asks, and waits for the answer: a line with the verb `ok` or `error`.
    pub(super) fn ask(&mut self, request: Line) -> Result<Line, String> {
        self.number += 1;
        let (verb, number) = (request.verb.clone(), self.number.to_string());
        (self.write)(&request.with("n", &number).to_string())?;
        let until = SystemClock.boot_ms() + PATIENCE.as_millis() as u64;
        loop {
            let line = self.next(until, &format!("an answer to {verb:?}"))?;
            match &*line.verb {
                "event" => self.events.push(line),
                "ok" | "error" if line.get("n") == Some(&number) => return Ok(line),
                other => return Err(format!("the shim said {other:?} when it was asked {verb:?}: {line}")),
            }
        }
    }

    /// Waits for an event of this kind about this thing. Each is told once.
    pub(super) fn event(&mut self, kind: &str, about: &str) -> Result<Line, String> {
        let until = SystemClock.boot_ms() + PATIENCE.as_millis() as u64;
        let is_it = |line: &Line| line.get("kind") == Some(kind) && line.get("about") == Some(about);
        loop {
            if let Some(at) = self.events.iter().position(is_it) {
                return Ok(self.events.remove(at));
            }
            let line = self.next(until, &format!("the event {kind:?} of {about:?}"))?;
            if line.verb != "event" {
                return Err(format!("the shim said {:?} unasked: {line}", line.verb));
            }
            self.events.push(line);
        }
    }

    fn next(&self, until: u64, what: &str) -> Result<Line, String> {
        let left = Duration::from_millis(until.saturating_sub(SystemClock.boot_ms()));
        match self.lines.recv_timeout(left) {
            Ok(line) => Ok(Line::parse(&line)),
            Err(RecvTimeoutError::Timeout) => Err(format!("{what} didn't come within {} s", PATIENCE.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err(format!("the shim ended before {what} came")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn lines_round_trip_whatever_they_hold() {
        let line = Line::new("ok").with("a", "x=1\ty\n100%\r").with("b", "").with("json", "{\"é\": \"%09\"}");
        assert_eq!(Line::parse(&line.to_string()), line);
        assert_eq!(line.to_string().matches('\t').count(), 3);
        assert_eq!(Line::parse("ok\tv=%zz%4").get("v"), Some("%zz%4"));
    }
}
