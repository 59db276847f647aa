//! The processes that want the lock without gitlock: by plain Git with expected old values, and
//! as the tool that gitlock replaces did it.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use super::{
    arm::ArmKind,
    scene::{LOCK_REF, Witness},
    support::{millis, pause, wall_millis},
    workers::Worker,
};

/// For how long a tool that knows only the seven fields takes the lock, in milliseconds.
const TIMEOUT: u64 = 10_000;

const ABSENT: &str = "0000000000000000000000000000000000000000";

impl Worker {
    fn git(&self, arguments: &[&str], input: &str) -> Option<Output> {
        let mut command = self.scene.git();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.spawn().and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        });
        output.map_err(|error| self.witness.fault(&format!("git can't be run: {error}"))).ok()
    }

    /// What Git printed, if it succeeded.
    fn ask(&self, arguments: &[&str], input: &str) -> Option<String> {
        let output = self.git(arguments, input)?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Writes a record of the seven fields. Returns its object and its tenure's id.
    fn record(&mut self) -> Option<(String, String)> {
        let id = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        let (now, pid) = (wall_millis(), std::process::id());
        let record = format!(
            r#"{{"id":"{id}","acquiredAt":{now},"timeout":{TIMEOUT},"fingerprint":"plain-{id}","exclusive":true,"pid":{pid},"hostname":"elsewhere"}}"#
        );
        Some((self.ask(&["hash-object", "-w", "--stdin"], &record)?, id))
    }

    // ------------------------------------------------------------ with expected old values

    pub(crate) fn plain_git(&mut self) {
        while !self.scene.is_over() {
            let Some((object, id)) = self.record() else {
                self.witness.count("hash-object-failed");
                continue;
            };
            let created = if self.random.one_in(2) {
                self.ask(&["update-ref", LOCK_REF, &object, ABSENT], "")
            } else {
                self.ask(&["update-ref", "--stdin"], &format!("create {LOCK_REF} {object}\n"))
            };
            if created.is_none() {
                self.witness.count("turned-away");
                self.random.pause_below(60_000);
                continue;
            }
            self.witness.granted(false, 0);
            if self.arm != ArmKind::Legacy {
                self.witness.enter(false);
                self.work();
                self.witness.leave(false);
            }
            self.delete_own(&object, &id);
            self.witness.flush();
            self.random.pause_below(60_000);
        }
    }

    /// Deletes the ref if it is still this tenure's, by its expected value. Waiters may have put
    /// themselves into the record meanwhile, so the value is read again after each refusal.
    fn delete_own(&self, object: &str, id: &str) {
        let (started, mut expected, mut last) = (millis(), object.to_owned(), String::new());
        while millis() - started < TIMEOUT - 2_000 {
            let Some(output) = self.git(&["update-ref", "-d", LOCK_REF, &expected], "") else { return };
            if output.status.success() {
                return;
            }
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            // The ref first, then what it says: the value that is compared is the one that was judged.
            let Some(now) = self.ask(&["rev-parse", "--verify", "--quiet", LOCK_REF], "") else {
                last = format!("the ref is gone; {last}");
                break;
            };
            match self.ask(&["cat-file", "blob", &now], "") {
                Some(record) if record.contains(id) => expected = now,
                Some(record) => {
                    last = format!("somebody else holds it: {record}; {last}");
                    break;
                }
                // Pruned, or swept because it was replaced just now.
                None => pause(1),
            }
        }
        if self.arm == ArmKind::Kills && last.contains("packed-refs.lock") {
            // Left by a Git command that was killed, and Git never breaks it. gitlock does as soon
            // as it needs it: when it ends this tenure.
            self.witness.count("blocked-by-killed-git");
        } else if self.arm != ArmKind::Legacy {
            self.witness.fault(&format!("plain git's release failed: {last}"));
        } else {
            self.witness.count("lost");
        }
    }

    // ------------------------------------------------------------ the replaced tool

    /// Overwrites on acquire without comparing, deletes what looks expired, and deletes on release.
    pub(crate) fn legacy(&mut self) {
        while !self.scene.is_over() {
            let current = self.ask(&["cat-file", "blob", LOCK_REF], "");
            let expired = current.as_deref().is_some_and(looks_expired);
            if expired {
                self.witness.count("deleted-expired");
                let _ = self.ask(&["update-ref", "-d", LOCK_REF], "");
            }
            // Between its look and its write anybody may come; at times it doesn't even look.
            if current.is_none() || expired || self.random.one_in(4) {
                if let Some((object, _)) = self.record()
                    && self.ask(&["update-ref", LOCK_REF, &object], "").is_some()
                {
                    self.witness.granted(false, 0);
                    self.random.pause_below(20_000);
                    let _ = self.ask(&["update-ref", "-d", LOCK_REF], "");
                }
                self.witness.flush();
                self.random.pause_below(60_000);
            }
            self.random.pause_below(10_000);
        }
    }
}

fn looks_expired(record: &str) -> bool {
    let number = |key: &str| {
        let rest = &record[record.find(key)? + key.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u64>().ok()
    };
    let (acquired, timeout) = (number("\"acquiredAt\":"), number("\"timeout\":"));
    acquired.zip(timeout).is_some_and(|(acquired, timeout)| acquired + timeout < wall_millis())
}

/// The roles by their names, as they are started.
pub(crate) fn run(role: &str, worker: &mut Worker) {
    match role {
        "library" => worker.library(),
        "cli" => worker.command_line(),
        "inside" => worker.inside(),
        "plain" => worker.plain_git(),
        "legacy" => worker.legacy(),
        "gix" => worker.gix(),
        "forest" => worker.forest(),
        "forest-cli" => worker.forest_command_line(),
        "forest-inside" => worker.forest_inside(),
        other => Witness::fault(&worker.witness, &format!("there is no role {other}")),
    }
}
