//! Trying a server out: whether it compares before it swaps, and what else it can do.

use std::{
    fs,
    io::{Read, Write},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    name::RefName,
    store::{NewValue, Oid, RefEdit, object},
};

use super::{
    Reading, Remote, lock, push,
    swap::{Attempt, Pushed},
    transport::Service,
};

/// What a server can do, as far as locks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReport {
    /// Where it is.
    pub location: String,
    /// Whether it refuses a swap with a wrong expected value. Without that no lock is safe.
    pub compares: bool,
    /// Whether it changes several refs as one.
    pub atomic: bool,
    /// Whether it can be asked for some refs alone (protocol v2). Without that every look at a lock
    /// brings all refs.
    pub v2: bool,
    /// How many refs it shows to whoever pushes: each costs time.
    pub refs: usize,
    /// How long a question and its answer take.
    pub round_trip: Duration,
    /// By how many milliseconds the server's clock is ahead of this machine's, if it tells its time.
    pub clock_difference: Option<i64>,
}

/// Where it is noted which servers were tried out.
const NOTES: &str = "proven";

/// What is noted after the place of one that compares what is to stay as it is.
const VERIFIES: &str = " verifies";

impl Remote {
    /// Makes sure that the server refuses a swap with a wrong expected value: once for each server.
    pub(super) fn prove(&self, beside: &RefName) -> Result<()> {
        if lock(&self.known).proven {
            return Ok(());
        }
        if self.is_noted("") {
            lock(&self.known).proven = true;
            return Ok(());
        }
        if !self.persist(|| self.compares(beside))? {
            return Err(Error::new(
                ErrorCode::Unsupported,
                format!(
                    "{} says that it has changed a ref whose expected value was wrong: it doesn't compare before it swaps, so \
                     that two could hold one lock; use another server",
                    self.place
                ),
            ));
        }
        lock(&self.known).proven = true;
        if let Err(error) = self.note("") {
            tracing::debug!(%error, "that the server was tried out could not be noted");
        }
        Ok(())
    }

    /// Tries a swap that has to be refused, on a ref that isn't there.
    fn compares(&self, beside: &RefName) -> Result<bool> {
        let fresh = uuid::Uuid::new_v4();
        let (name, value) = nothing_there(beside, fresh);
        // Of no object that anybody has. Of the server's hash, which its greeting tells.
        let length = self.hash_length()?;
        let nowhere: Vec<u8> = fresh.as_bytes().iter().copied().cycle().take(length).collect();
        let edit = RefEdit { name: name.clone(), expected: Oid::from_bytes(&nowhere), new: Some(value) };
        match self.push(&[&edit], &mut Attempt::default(), false)? {
            Pushed::Refused { why, messages } => match push::refusal(&self.place.to_string(), &why, &messages) {
                Some(error) => Err(error),
                // A refusal is only worth something if nothing was done.
                None => Ok(self.read_names(&[&name])?[0].is_none()),
            },
            Pushed::Clean(values) => {
                let litter = RefEdit { name, expected: values[0], new: None };
                if let Err(error) = self.push(&[&litter], &mut Attempt::default(), false) {
                    tracing::debug!(%error, "the probe's ref stays");
                }
                Ok(false)
            }
            Pushed::Differs { .. } | Pushed::NotAtomic => Ok(false),
        }
    }

    /// Whether the server compares refs that are to stay as they are, in the same push as others: tried out once for each
    /// server. A process that takes one lock pays nothing for it.
    pub(super) fn verifies(&self, beside: &RefName) -> bool {
        {
            let mut known = lock(&self.known);
            if let Some(verifies) = known.verifies {
                return verifies;
            }
            if self.is_noted(VERIFIES) {
                known.verifies = Some(true);
                return true;
            }
            if !std::mem::replace(&mut known.wants_to_verify, true) || !known.proven {
                return false;
            }
        }
        match self.persist(|| self.compares_unmoved(beside)) {
            Ok(verifies) => {
                lock(&self.known).verifies = Some(verifies);
                if verifies && let Err(error) = self.note(VERIFIES) {
                    tracing::debug!(%error, "that the server was tried out could not be noted");
                }
                verifies
            }
            Err(error) => {
                tracing::debug!(place = %self.place, %error, "whether unmoved refs are compared could not be tried");
                false
            }
        }
    }

    /// Tries what has to be refused: a ref that isn't there is to stay at an object that is sent.
    fn compares_unmoved(&self, beside: &RefName) -> Result<bool> {
        let receives = lock(&self.known).receives.clone();
        let Some(receives) = receives.filter(|known| known.has("atomic")) else { return Ok(false) };
        let (name, value) = nothing_there(beside, uuid::Uuid::new_v4());
        let id = object::encode(&value, receives.hash()?).last().map(|object| object.id);
        let edit = RefEdit { name: name.clone(), expected: id, new: Some(value) };
        let pushed = self.push(&[&edit], &mut Attempt::default(), false)?;
        let there = self.where_are(&[&name])?[0];
        if there.is_some() {
            let litter = RefEdit { name, expected: there, new: None };
            if let Err(error) = self.push(&[&litter], &mut Attempt::default(), false) {
                tracing::debug!(%error, "the probe's ref stays");
            }
        }
        Ok(matches!(pushed, Pushed::Refused { .. }) && there.is_none())
    }

    fn hash_length(&self) -> Result<usize> {
        let known = lock(&self.known).receives.clone();
        let known = match known {
            Some(known) => known,
            None => {
                let Reading { mut session, capabilities, .. } = self.begin(Service::ReceivePack, None)?;
                session.close();
                capabilities
            }
        };
        Ok(known.hash()?.len_in_bytes())
    }

    fn is_noted(&self, what: &str) -> bool {
        let Some(notes) = &self.notes else { return false };
        let mut text = String::new();
        let read = fs::File::open(notes.join(NOTES)).and_then(|file| file.take(1 << 20).read_to_string(&mut text));
        read.is_ok() && text.lines().any(|line| line == format!("{}{what}", self.place))
    }

    fn note(&self, what: &str) -> std::io::Result<()> {
        let Some(notes) = &self.notes else { return Ok(()) };
        fs::create_dir_all(notes)?;
        let mut file = fs::File::options().create(true).append(true).open(notes.join(NOTES))?;
        // One write, so that two processes don't mix theirs.
        file.write_all(format!("{}{what}\n", self.place).as_bytes())
    }
}

/// A ref beside another that isn't there, and a value for it.
fn nothing_there(beside: &RefName, fresh: uuid::Uuid) -> (RefName, NewValue) {
    let folder = beside.as_str().rsplit_once('/').map_or("refs/gitvan", |(folder, _)| folder);
    let name = RefName::foreign(format!("{folder}/probe-{}", fresh.simple()));
    (name, NewValue::Blob(format!("gitlock probes whether this server compares: {fresh}\n").into_bytes()))
}

pub(super) fn examine(remote: &Remote, prefix: &str) -> Result<ServerReport> {
    let Reading { mut session, capabilities: receives, refs } = remote.begin(Service::ReceivePack, None)?;
    session.close();
    drop(session);
    let compares = remote.compares(&RefName::foreign(format!("{prefix}/probe")))?;
    let clock = &remote.options.clock;
    let mut fastest = u64::MAX;
    let mut v2 = false;
    for _ in 0..3 {
        let began = clock.boot_ms();
        let mut reading = remote.read_once(&[format!("{prefix}/")])?;
        fastest = fastest.min(clock.boot_ms() - began);
        v2 = reading.capabilities.v2;
        reading.session.close();
    }
    Ok(ServerReport {
        location: remote.place.to_string(),
        compares,
        atomic: receives.has("atomic"),
        v2,
        refs: refs.len(),
        round_trip: Duration::from_millis(fastest),
        clock_difference: remote.transport.clock_difference(),
    })
}
