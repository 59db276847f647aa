//! Compare-and-swap by push, and how its end is found out.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    error_code::{ErrorCode, Retry},
    name::RefName,
    store::{Oid, RefEdit, Transacted, object},
};

use super::{
    Backoff, Reading, Remote, lock,
    push::{self, Bring, Command},
    transport::Service,
};

/// For how long no server takes away what it was sent, in milliseconds: far less than any prune leaves.
const SURELY_KEPT: u64 = 600_000;

/// How often in a row a server may refuse what has unmoved refs beside it before none is sent along any more.
const REFUSED_BESIDE_AT_MOST: u32 = 3;

/// What C Git says where a ref's object is missing, whoever's it is.
const LOST: &str = "missing necessary objects";

/// How one push ended.
pub(super) enum Pushed {
    /// The server reports that all of it was done: what each ref points at now.
    Clean(Vec<Option<Oid>>),
    /// Nothing was sent: what the server showed isn't what is expected.
    Differs {
        /// Whether that is because an expected ref isn't shown at all.
        unseen: bool,
    },
    /// Nothing was sent: the server can't change several refs as one.
    NotAtomic,
    /// The server reports that it refused: why, and what it wants people to read.
    Refused { why: String, messages: String },
}

/// What was tried so far.
#[derive(Default)]
pub(super) struct Attempt {
    /// What the refs are to point at, once that is known: it depends on the server's hash.
    values: Option<Vec<Option<Oid>>>,
    /// Other refs that have to be as they are, and stay so.
    beside: Vec<RefEdit>,
    /// Whether they were compared in the push that made the change.
    looked: bool,
    /// Objects that the server has lost from under other refs, and that go along.
    lost: Vec<object::Encoded>,
    /// Whether anything was sent.
    sent: bool,
    /// Whether something was sent whose answer is lost, so that it may still be carried out.
    uncertain: bool,
}

/// What the refs point at.
enum Effect {
    /// At what they were to.
    Done,
    /// At what they were expected to.
    Untouched,
    /// At something else.
    Other,
}

impl Remote {
    pub(super) fn swap(&self, edits: &[RefEdit], patience: Option<Duration>) -> Result<Transacted> {
        self.after_checks(edits, |changes| self.change(changes, patience))
    }

    /// The same, only while other refs are as given, if the server compares them in the same push. Returns whether it did.
    pub(super) fn swap_beside(
        &self,
        edits: &[RefEdit],
        unmoved: &[(RefName, Oid)],
        patience: Option<Duration>,
    ) -> Result<(Transacted, bool)> {
        let mut beside = Vec::new();
        if let (Some(edit), false) = (edits.first(), unmoved.is_empty())
            && self.verifies(&edit.name)
        {
            let stays = |(name, id): &(RefName, Oid)| RefEdit { name: name.clone(), expected: Some(*id), new: None };
            beside.extend(unmoved.iter().map(stays));
        }
        let mut attempt = Attempt { beside, ..Attempt::default() };
        let done = self.after_checks(edits, |changes| self.change_from(changes, patience, &mut attempt))?;
        Ok((done, attempt.looked))
    }

    /// Sees to what is only to be absent, and to whether the server compares; then makes the changes in this way.
    pub(super) fn after_checks(
        &self,
        edits: &[RefEdit],
        change: impl FnOnce(&[&RefEdit]) -> Result<Transacted>,
    ) -> Result<Transacted> {
        let is_check = |edit: &RefEdit| edit.expected.is_none() && edit.new.is_none();
        let checks: Vec<&RefName> = edits.iter().filter(|edit| is_check(edit)).map(|edit| &edit.name).collect();
        if !checks.is_empty() && self.read_names(&checks)?.iter().any(Option::is_some) {
            return Ok(Transacted::Conflict);
        }
        let changes: Vec<&RefEdit> = edits.iter().filter(|edit| !is_check(edit)).collect();
        if changes.is_empty() {
            return Ok(Transacted::Committed(vec![None; edits.len()]));
        }
        self.prove(&changes[0].name)?;
        Ok(match change(&changes)? {
            Transacted::Committed(values) => {
                let mut values = values.into_iter();
                let value = |edit: &RefEdit| if is_check(edit) { None } else { values.next().flatten() };
                Transacted::Committed(edits.iter().map(value).collect())
            }
            other => other,
        })
    }

    /// All of the changes or none, tried again until it is known which.
    fn change(&self, edits: &[&RefEdit], patience: Option<Duration>) -> Result<Transacted> {
        self.change_from(edits, patience, &mut Attempt::default())
    }

    fn change_from(&self, edits: &[&RefEdit], patience: Option<Duration>, attempt: &mut Attempt) -> Result<Transacted> {
        let mut pause = Backoff::new(self, patience);
        let (mut unseen_before, mut tried_to_heal) = (false, false);
        loop {
            let pushed = self.push(edits, attempt, true);
            let refused = matches!(pushed, Ok(Pushed::Refused { .. }));
            let error = match pushed {
                Ok(Pushed::Clean(values)) => {
                    attempt.looked = !attempt.beside.is_empty();
                    if attempt.looked {
                        lock(&self.known).unverified = 0;
                    }
                    return Ok(Transacted::Committed(values));
                }
                Ok(Pushed::NotAtomic) if !attempt.beside.is_empty() => {
                    attempt.beside.clear();
                    continue;
                }
                Ok(Pushed::NotAtomic) => return self.change_in_order(edits, patience),
                Ok(Pushed::Differs { unseen: false }) if !attempt.uncertain => return Ok(Transacted::Conflict),
                Ok(Pushed::Differs { unseen }) => {
                    if unseen && unseen_before {
                        self.hidden(edits)
                    } else {
                        unseen_before = unseen;
                        self.busy("it shows something else when it is read than when it is written")
                    }
                }
                Ok(Pushed::Refused { why, .. }) if why.contains(LOST) && self.has_deleted(edits) => {
                    return self.delete_first(edits, patience);
                }
                Ok(Pushed::Refused { why, .. }) if why.contains(LOST) && !tried_to_heal => {
                    tried_to_heal = true;
                    attempt.lost = self.lost(edits);
                    self.busy(&why)
                }
                Ok(Pushed::Refused { why, .. }) if why.contains(LOST) && edits.len() > 1 => {
                    return self.delete_first(edits, patience);
                }
                Ok(Pushed::Refused { why, messages }) => {
                    push::refusal(&self.place.to_string(), &why, &messages).unwrap_or_else(|| self.busy(&why))
                }
                Err(error) => error,
            };
            if attempt.sent || unseen_before {
                match self.effect(edits, attempt) {
                    Ok(Effect::Done) => {
                        let values = attempt.values.take();
                        return Ok(Transacted::Committed(values.unwrap_or_else(|| vec![None; edits.len()])));
                    }
                    // Perhaps it takes nothing that is to stay as it is.
                    Ok(Effect::Untouched) if refused && !attempt.beside.is_empty() => {
                        attempt.beside.clear();
                        let mut known = lock(&self.known);
                        known.unverified += 1;
                        if known.unverified >= REFUSED_BESIDE_AT_MOST {
                            known.verifies = Some(false);
                        }
                        continue;
                    }
                    // What was sent and got no answer may have been done, and others gone on from there.
                    Ok(Effect::Other) if attempt.uncertain => return Ok(Transacted::Unknown),
                    Ok(Effect::Other) => return Ok(Transacted::Conflict),
                    // The same is sent again until it, or somebody else's, is there: only so can what
                    // is still on its way do no harm.
                    Ok(Effect::Untouched) => {
                        if let Some(blocked) = self.blocked(edits) {
                            return Err(blocked);
                        }
                    }
                    Err(unread) => tracing::debug!(place = %self.place, error = %unread, "the effect can't be read"),
                }
            }
            if error.retry() != Retry::Later || !pause.wait(&error) {
                return Err(error);
            }
        }
    }

    /// Change after change, where the server has no atomic pushes. Callers order them so that every
    /// beginning is safe.
    fn change_in_order(&self, edits: &[&RefEdit], patience: Option<Duration>) -> Result<Transacted> {
        let mut values = Vec::with_capacity(edits.len());
        for (at, edit) in edits.iter().enumerate() {
            match self.change(&[edit], patience) {
                Ok(Transacted::Committed(value)) => values.extend(value),
                // Part of it is done: whoever asked reads what came of it.
                Ok(_) | Err(_) if at > 0 => return Ok(Transacted::Unknown),
                other => return other,
            }
        }
        Ok(Transacted::Committed(values))
    }

    /// What is known of the objects that the server's locks and journals need: it takes nothing new
    /// while one is missing.
    fn lost(&self, edits: &[&RefEdit]) -> Vec<object::Encoded> {
        // Locks and journals are beside each other.
        let mut folders: Vec<String> = edits
            .iter()
            .filter_map(|edit| edit.name.as_str().rsplit_once('/')?.0.rsplit_once('/'))
            .map(|(root, _)| format!("{root}/"))
            .collect();
        folders.dedup();
        let refs = self.read_refs(&folders).map(|mut reading| {
            reading.session.close();
            reading.refs
        });
        let cache = lock(&self.cache);
        refs.unwrap_or_default().iter().filter_map(|(_, id)| cache.encoded(id)).collect()
    }

    /// Where the server has lost a record that nobody knows, it takes nothing new until that ref is
    /// gone: so that goes first, and the journal tells of it after.
    fn delete_first(&self, edits: &[&RefEdit], patience: Option<Duration>) -> Result<Transacted> {
        let (rest, deleted): (Vec<&RefEdit>, Vec<&RefEdit>) = edits.iter().partition(|edit| edit.new.is_some());
        if deleted.is_empty() || rest.is_empty() {
            return Err(self.busy(LOST));
        }
        if !self.has_deleted(&deleted) {
            match self.change(&deleted, patience)? {
                Transacted::Committed(_) => {}
                other => return Ok(other),
            }
        }
        let Ok(Transacted::Committed(values)) = self.change(&rest, patience) else { return Ok(Transacted::Unknown) };
        let mut values = values.into_iter();
        let value = |edit: &&RefEdit| edit.new.as_ref().and_then(|_| values.next().flatten());
        Ok(Transacted::Committed(edits.iter().map(value).collect()))
    }

    /// Whether every deletion was made. C Git makes them even in an atomic push whose other changes it refuses because
    /// of an object that is missing.
    fn has_deleted(&self, edits: &[&RefEdit]) -> bool {
        let names: Vec<&RefName> = edits.iter().filter(|edit| edit.new.is_none()).map(|edit| &edit.name).collect();
        !names.is_empty() && self.read_names(&names).is_ok_and(|found| found.iter().all(Option::is_none))
    }

    /// Another tool's ref below one that is to be made, which servers don't tell of.
    fn blocked(&self, edits: &[&RefEdit]) -> Option<Error> {
        let made = edits.iter().filter(|edit| edit.expected.is_none()).map(|edit| edit.name.as_str());
        let below: Vec<String> = made.map(|name| format!("{name}/")).collect();
        if below.is_empty() {
            return None;
        }
        let mut reading = self.read_once(&below).ok()?;
        reading.session.close();
        let (other, _) = reading.refs.first()?;
        let name = below.iter().find(|name| other.starts_with(&***name))?.trim_end_matches('/');
        let message = format!(
            "another tool's ref {other} is in the way of {name} in {}; delete that ref, or choose another lock name or prefix",
            self.place
        );
        Some(Error::new(ErrorCode::NameBlocked, message))
    }

    /// One push. `heed`: whether what the server shows first has to be as expected.
    pub(super) fn push(&self, edits: &[&RefEdit], attempt: &mut Attempt, heed: bool) -> Result<Pushed> {
        let began = self.options.clock.boot_ms();
        // A deletion whose expected object the server no longer has is unconditional. So a ref is
        // deleted only where it was just seen; or where the swap of another guards it, and the server
        // had the object a moment ago.
        let known = lock(&self.known).receives.clone().filter(|known| {
            let mut deleted = edits.iter().filter(|edit| edit.new.is_none()).peekable();
            let guarded = known.has("atomic") && edits.iter().any(|edit| edit.new.is_some());
            let since = began.saturating_sub(SURELY_KEPT);
            let cache = lock(&self.cache);
            deleted.peek().is_none()
                || guarded && deleted.all(|edit| edit.expected.is_some_and(|id| cache.had_since(&id, since)))
        });
        let known_before = known.is_some();
        let Reading { mut session, capabilities, refs } = match known {
            Some(known) => self.begin_to_push(known)?,
            None => self.begin(Service::ReceivePack, None)?,
        };
        // What a session showed that was begun before may be old, and needn't be seen: the server compares.
        let shown = !known_before || !self.transport.is_stateless() && !session.was_waiting();
        let beside = attempt.beside.clone();
        if edits.len() + beside.len() > 1 && !capabilities.has("atomic") {
            session.close();
            return Ok(Pushed::NotAtomic);
        }
        let hash = capabilities.hash()?;
        let objects: Vec<Vec<object::Encoded>> =
            edits.iter().map(|edit| edit.new.iter().flat_map(|new| object::encode(new, hash)).collect()).collect();
        let values: Vec<Option<Oid>> = objects.iter().map(|objects| objects.last().map(|object| object.id)).collect();
        attempt.values = Some(values.clone());
        if shown && heed {
            let at = |edit: &RefEdit| refs.iter().find(|(name, _)| name == edit.name.as_str()).map(|(_, id)| *id);
            let differing: Vec<Option<Oid>> = edits
                .iter()
                .copied()
                .chain(&beside)
                .map(|edit| (at(edit), edit.expected))
                .filter(|(at, expected)| at != expected)
                .map(|(at, _)| at)
                .collect();
            if !differing.is_empty() {
                session.close();
                return Ok(Pushed::Differs { unseen: differing.iter().all(Option::is_none) });
            }
        }
        let changed = edits.iter().zip(&values).map(|(edit, new)| Command { edit, new: *new });
        let unmoved = beside.iter().map(|edit| Command { edit, new: edit.expected });
        let commands: Vec<Command<'_>> = changed.chain(unmoved).collect();
        let mut bring: Vec<&object::Encoded> = objects.iter().flatten().chain(&attempt.lost).collect();
        bring.sort_by_key(|object| object.id);
        bring.dedup_by_key(|object| object.id);
        let objects = Bring { objects: &bring, ..Bring::default() };
        let request = push::request(&commands, objects, &capabilities, hash)?;
        attempt.sent = true;
        // Of a refusal to listen at all nothing can come.
        let report = push::report(&mut *session, &request, &capabilities)
            .inspect_err(|error| attempt.uncertain |= error.retry() == Retry::Later)?;
        self.took(began);
        if report.is_clean(&commands) {
            lock(&self.cache).remember(&bring, self.options.clock.boot_ms());
            return Ok(Pushed::Clean(values));
        }
        Ok(Pushed::Refused { why: report.why(&commands), messages: report.messages })
    }

    /// What became of a push, by a fresh read.
    fn effect(&self, edits: &[&RefEdit], attempt: &Attempt) -> Result<Effect> {
        let all = || edits.iter().copied().chain(&attempt.beside);
        let now = self.read_names(&all().map(|edit| &edit.name).collect::<Vec<_>>())?;
        let as_wanted = attempt.values.as_ref().is_some_and(|values| *values == now[..edits.len()]);
        // Every record is new in every write, so one that is there is ours. A ref that is gone
        // tells nobody who deleted it.
        let tells = edits.iter().any(|edit| edit.new.is_some());
        Ok(if as_wanted && tells && attempt.sent {
            Effect::Done
        } else if all().zip(&now).all(|(edit, now)| edit.expected == *now) {
            Effect::Untouched
        } else {
            Effect::Other
        })
    }

    fn busy(&self, why: &str) -> Error {
        let message = format!(
            "{} could not make a change just now ({why}); try again. If it stays so, a server that was killed may have left a \
             .lock file there, which `git lock doctor --fix` in that repository removes",
            self.place
        );
        Error::new(ErrorCode::RepositoryBusy, message)
    }

    fn hidden(&self, edits: &[&RefEdit]) -> Error {
        let message = format!(
            "{} doesn't show {} to whoever pushes; take it out of receive.hideRefs and transfer.hideRefs, or set gitlock.prefix",
            self.place, edits[0].name
        );
        Error::new(ErrorCode::PermissionDenied, message)
    }
}
