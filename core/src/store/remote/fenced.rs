//! Refs of the caller's, pushed in one atomic push with the renewal of the lock: the server takes both
//! or neither, so that a holder that has lost its lease changes nothing.
//!
//! What takes long is done before the lock's record is read and renewed: the caller's refs are looked
//! up there and here, the pre-push hook is run, and Git makes the pack. What is left is one request.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    error_code::{ErrorCode, Retry},
    lock::fault::Fault,
    name::{Namespace, RefName},
    push_spec::PushSpec,
    store::{
        Oid, PreparedPush, RefEdit, Transacted,
        git_process::{Descent, Git, ToPush},
        object,
    },
};

use super::{
    Backoff, Reading, Remote,
    fetch::Capabilities,
    lock,
    push::{self, Bring, Command},
    transport::Service,
};

/// How many bytes a second a connection has to take at least.
const SLOWEST: u64 = 64 << 10;

/// What a server says of a ref when another was faster, or it has something else to do just now.
const MAY_PASS: [&str; 8] = [
    "failed to update ref",
    "cannot lock ref",
    "failed to lock",
    "incorrect old value",
    "already exists",
    "lock failure",
    "lock_failure",
    "transaction aborted",
];

/// A push that is ready to be made, and can be made ready again.
pub(super) struct Push {
    remote: Arc<Remote>,
    git: Git,
    sources: Vec<Source>,
    names: Namespace,
    ready: RefCell<Option<Ready>>,
    /// Whether something was sent whose answer is lost, so that it may have been carried out.
    uncertain: Cell<bool>,
}

/// One refspec, its source looked up.
struct Source {
    spec: PushSpec,
    new: Option<Oid>,
    /// The source's full name, if it is a ref.
    full_name: Option<String>,
}

/// What is pushed, as the server last showed its refs.
struct Ready {
    capabilities: Capabilities,
    wants: Vec<Want>,
    pack: Vec<u8>,
    shallow: Vec<Oid>,
}

/// One ref's change.
struct Want {
    /// Its name and what it must be at before.
    edit: RefEdit,
    new: Option<Oid>,
    source: String,
}

impl Want {
    fn command(&self) -> Command<'_> {
        Command { edit: &self.edit, new: self.new }
    }

    fn name(&self) -> &str {
        self.edit.name.as_str()
    }
}

/// How one push ended, if it isn't an error.
enum Sent {
    Clean(Vec<Option<Oid>>),
    /// Nothing was sent: the server showed another value of a ref of the lock's.
    LockDiffers,
    /// Nothing was sent: the server showed another value of one of the caller's refs.
    RefsDiffer,
    /// The server refused for a reason that may pass.
    Refused(Error),
}

/// What the refs are at after a push that didn't end well.
enum Effect {
    Done,
    Untouched,
    /// The lock is as it was, and the caller's refs aren't.
    RefsMoved,
    /// Somebody else has changed the lock: whether all of the caller's refs are as they were to be.
    LockMoved(bool),
}

/// Makes ready to push.
pub(super) fn prepare(remote: &Arc<Remote>, specs: &[PushSpec], names: &Namespace) -> Result<Push> {
    let Some(git) = remote.git.clone() else {
        let message = format!(
            "there is nothing to push from: the locks at {} were opened outside of any repository; open them at a path in \
             the repository whose refs are to be pushed",
            remote.place
        );
        return Err(Error::new(ErrorCode::Unsupported, message));
    };
    if specs.is_empty() {
        let message = "nothing is named that could be pushed; name a branch, or SOURCE:TARGET";
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    let sources = specs.iter().map(|spec| source(&git, spec)).collect::<Result<Vec<_>>>()?;
    let push = Push {
        remote: remote.clone(),
        git,
        sources,
        names: names.clone(),
        ready: RefCell::default(),
        uncertain: Cell::default(),
    };
    let ready = push.make_ready()?;
    push.ready.replace(Some(ready));
    Ok(push)
}

fn source(git: &Git, spec: &PushSpec) -> Result<Source> {
    let Some(word) = &spec.source else { return Ok(Source { spec: spec.clone(), new: None, full_name: None }) };
    let id = git.resolve(word)?.and_then(|id| Oid::from_hex(id.as_bytes()));
    let Some(id) = id else {
        let message = format!(
            "there is nothing named {word:?} in the repository, and nothing was pushed; see `git branch` and `git tag`"
        );
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    };
    Ok(Source { spec: spec.clone(), new: Some(id), full_name: git.full_name(word)? })
}

impl Push {
    /// Asks the server for its refs, and makes the pack of what it lacks.
    fn make_ready(&self) -> Result<Ready> {
        let place = &self.remote.place;
        let Reading { capabilities, refs, .. } = self.remote.persist(|| {
            let mut reading = self.remote.begin(Service::ReceivePack, None)?;
            reading.session.close();
            Ok(reading)
        })?;
        if !capabilities.has("atomic") {
            let message = format!(
                "{place} doesn't offer atomic pushes, so that it could take the refs without the lock's renewal, and nothing was \
                 pushed; set receive.advertiseAtomic there, or let what is pushed to check the fencing token"
            );
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        let length = capabilities.hash()?.len_in_bytes();
        let mut wants: Vec<Want> = Vec::new();
        for source in &self.sources {
            if source.new.is_some_and(|id| id.as_bytes().len() != length) {
                let message =
                    format!("{place} keeps objects of another hash than this repository, and takes none of it");
                return Err(Error::new(ErrorCode::Unsupported, message));
            }
            let Some(want) = self.want(source, &refs)? else { continue };
            if wants.iter().any(|other| other.name() == want.name()) {
                let message = format!("{} is pushed to twice; name it once", want.name());
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
            wants.push(want);
        }
        let deleted = |name: &str| wants.iter().any(|want| want.new.is_none() && want.name() == name);
        for want in wants.iter().filter(|want| want.new.is_some()) {
            let below = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('/'));
            let names = refs.iter().map(|(name, _)| name.as_str()).filter(|name| !deleted(name));
            if let Some(other) = { names }.find(|name| below(name, want.name()) || below(want.name(), name)) {
                let message = format!(
                    "{} can't be beside {other}, which is at {place}; nothing was pushed: delete one of them",
                    want.name()
                );
                return Err(Error::new(ErrorCode::RefsRefused, message));
            }
        }
        self.ask_hook(&wants, length)?;
        let wanted: Vec<Oid> = wants.iter().filter_map(|want| want.new).collect();
        let (mut pack, mut shallow) = (Vec::new(), Vec::new());
        if !wanted.is_empty() {
            let theirs = refs.iter().filter(|(name, _)| !self.names.owns(name)).map(|(_, id)| *id);
            let mut there: Vec<Oid> = self.git.having(&theirs.collect::<Vec<_>>())?.into_iter().collect();
            there.sort_unstable();
            let (thin, offsets) = (!capabilities.has("no-thin"), capabilities.has("ofs-delta"));
            pack = self.git.pack(&ToPush { wanted: &wanted, there: &there, thin, offsets })?;
            shallow = self.git.cut_off()?;
        }
        tracing::debug!(%place, refs = wants.len(), bytes = pack.len(), "a push is ready");
        Ok(Ready { capabilities, wants, pack, shallow })
    }

    /// What becomes of one ref; `None`: it is as it is to be.
    fn want(&self, source: &Source, shown: &[(String, Oid)]) -> Result<Option<Want>> {
        let name = target(source, shown)?;
        if self.names.owns(&name) {
            let message =
                format!("{name} belongs to gitlock, which alone changes locks and journals; push to another ref");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let old = shown.iter().find(|(other, _)| *other == name).map(|(_, id)| *id);
        if old == source.new {
            // One that is to go and isn't there: perhaps this push has done it already.
            return if source.new.is_some() || self.uncertain.get() {
                Ok(None)
            } else {
                Err(self.changed(&name, "doesn't exist"))
            };
        }
        if let (Some(old), Some(new), false) = (&old, &source.new, source.spec.force) {
            self.check_forward(&name, old, new)?;
        }
        let source_name = source.full_name.clone().or_else(|| source.spec.source.clone());
        let source_name = source_name.unwrap_or_else(|| "(delete)".to_owned());
        let edit = RefEdit { name: RefName::foreign(name), expected: old, new: None };
        Ok(Some(Want { edit, new: source.new, source: source_name }))
    }

    /// Refuses what `git push` refuses without a `+`.
    fn check_forward(&self, name: &str, old: &Oid, new: &Oid) -> Result<()> {
        if name.starts_with("refs/tags/") {
            return Err(self.changed(name, &format!("is there already, at {old}; a tag is changed with + before it")));
        }
        if !self.git.having(&[*old])?.contains(old) {
            return Err(self.changed(name, &format!("is at {old}, which isn't in this repository: fetch it")));
        }
        match self.git.descent(old, new)? {
            Descent::After => Ok(()),
            Descent::Elsewhere => Err(self.changed(
                name,
                &format!("is at {old}, which {new} doesn't come after: merge it, or put + before it to replace it"),
            )),
            Descent::NoCommits => Err(self
                .changed(name, &format!("is at {old}, and they aren't both commits: put + before it to replace it"))),
        }
    }

    fn changed(&self, name: &str, is: &str) -> Error {
        let message = format!("{name} at {} {is}; nothing was pushed", self.remote.place);
        Error::new(ErrorCode::RefChanged, message)
    }

    fn ask_hook(&self, wants: &[Want], length: usize) -> Result<()> {
        if wants.is_empty() {
            return Ok(());
        }
        let id = |id: Option<Oid>| id.map_or_else(|| "0".repeat(2 * length), |id| id.to_string());
        let lines: String = wants
            .iter()
            .map(|want| format!("{} {} {} {}\n", want.source, id(want.new), want.name(), id(want.edit.expected)))
            .collect();
        match self.git.pre_push(&self.remote.name, &self.remote.place.to_string(), &lines)? {
            None => Ok(()),
            Some(said) => Err(Error::new(
                ErrorCode::RefsRefused,
                format!(
                    "the pre-push hook of this repository refused, and nothing was pushed: {}",
                    super::transport::plain(&said)
                ),
            )),
        }
    }

    /// Pushes, again and again until it is known what came of it.
    fn push(&self, edits: &[&RefEdit]) -> Result<Transacted> {
        let remote = &*self.remote;
        let mut pause: Option<Backoff<'_>> = None;
        let mut values = Vec::new();
        let mut sent = false;
        loop {
            let ready = match self.ready.take() {
                Some(ready) => ready,
                None => self.make_ready().map_err(|error| self.told(error))?,
            };
            if edits.is_empty() && ready.wants.is_empty() {
                return Ok(Transacted::Committed(Vec::new()));
            }
            let time = self.time(&ready);
            let mut drop_ready = false;
            let error = match self.send(edits, &ready, &mut values, &mut sent, time) {
                Ok(Sent::Clean(values)) => {
                    self.ready.replace(Some(ready));
                    return Ok(Transacted::Committed(values));
                }
                Ok(Sent::LockDiffers) if !self.uncertain.get() => {
                    self.ready.replace(Some(ready));
                    return Ok(Transacted::Conflict);
                }
                Ok(Sent::LockDiffers) => self.busy("the lock is at something else"),
                Ok(Sent::RefsDiffer) => {
                    drop_ready = true;
                    self.busy("a ref has moved meanwhile")
                }
                Ok(Sent::Refused(error)) | Err(error) => error,
            };
            if sent {
                match self.effect(edits, &ready, &values) {
                    Ok(Effect::Done) => {
                        self.ready.replace(Some(ready));
                        return Ok(Transacted::Committed(values));
                    }
                    Ok(Effect::LockMoved(all_there)) => {
                        // Of a push that is carried out as a whole, a ref that is where it was tells that this one wasn't.
                        let unknown = self.uncertain.get() && all_there;
                        self.uncertain.set(unknown);
                        return Ok(if unknown { Transacted::Unknown } else { Transacted::Conflict });
                    }
                    Ok(Effect::RefsMoved) => drop_ready = true,
                    Ok(Effect::Untouched) => {}
                    Err(unread) => tracing::debug!(place = %remote.place, error = %unread, "the effect can't be read"),
                }
            }
            if !drop_ready {
                self.ready.replace(Some(ready));
            }
            let pause = pause.get_or_insert_with(|| Backoff::new(remote, Some(time)));
            if error.retry() != Retry::Later || !pause.wait(&error) {
                return Err(self.told(error));
            }
        }
    }

    /// How long one push may take.
    fn time(&self, ready: &Ready) -> Duration {
        self.remote.options.timeout + Duration::from_secs(ready.pack.len() as u64 / SLOWEST)
    }

    fn send(
        &self,
        edits: &[&RefEdit],
        ready: &Ready,
        values: &mut Vec<Option<Oid>>,
        sent: &mut bool,
        time: Duration,
    ) -> Result<Sent> {
        let remote = &*self.remote;
        let Reading { mut session, capabilities, refs } =
            remote.begin_within(Service::ReceivePack, Some(ready.capabilities.clone()), time)?;
        let hash = capabilities.hash()?;
        let objects: Vec<Vec<object::Encoded>> =
            edits.iter().map(|edit| edit.new.iter().flat_map(|new| object::encode(new, hash)).collect()).collect();
        *values = objects.iter().map(|objects| objects.last().map(|object| object.id)).collect();
        if !remote.transport.is_stateless() {
            let differs = |edit: &RefEdit| {
                refs.iter().find(|(name, _)| name == edit.name.as_str()).map(|(_, id)| *id) != edit.expected
            };
            let lock_differs = edits.iter().any(|edit| differs(edit));
            if lock_differs || ready.wants.iter().any(|want| differs(&want.edit)) {
                session.close();
                return Ok(if lock_differs { Sent::LockDiffers } else { Sent::RefsDiffer });
            }
        }
        let own = edits.iter().zip(values.iter()).map(|(edit, new)| Command { edit, new: *new });
        let commands: Vec<Command<'_>> = own.chain(ready.wants.iter().map(Want::command)).collect();
        let objects: Vec<&object::Encoded> = objects.iter().flatten().collect();
        let bring = Bring { objects: &objects, pack: &ready.pack, shallow: &ready.shallow };
        let request = push::request(&commands, bring, &capabilities, hash)?;
        *sent = true;
        let report = push::report(&mut *session, &request, &capabilities).inspect_err(|error| {
            if error.retry() == Retry::Later {
                self.uncertain.set(true);
            }
        })?;
        if report.is_clean(&commands) {
            lock(&remote.cache).remember(&objects, remote.options.clock.boot_ms());
            return Ok(Sent::Clean(values.clone()));
        }
        self.refusal(ready, &report, &commands).map(Sent::Refused)
    }

    /// What a refusal is: an error that lasts, or one that may pass.
    fn refusal(&self, ready: &Ready, report: &push::Report, commands: &[Command<'_>]) -> Result<Error> {
        let place = &self.remote.place;
        let said = if report.messages.is_empty() { String::new() } else { format!(" It says: {}.", report.messages) };
        let why = report.why(commands);
        let passes = |why: &str| {
            let lower = why.to_ascii_lowercase();
            lower.contains("atomic") || MAY_PASS.iter().any(|word| lower.contains(word))
        };
        let reasons = ready.wants.iter().filter_map(|want| Some((want.name(), report.reason(want.name())?)));
        if let Some((name, why)) = { reasons }.find(|(_, why)| !passes(why)) {
            return Err(Error::new(
                ErrorCode::RefsRefused,
                format!(
                    "{place} refused to change {name} ({why}), and nothing was changed.{said} See its hooks and rules for that ref"
                ),
            ));
        }
        if let Some(error) = push::refusal(&place.to_string(), &why, &report.messages) {
            return Err(error);
        }
        Ok(self.busy(&why))
    }

    fn effect(&self, edits: &[&RefEdit], ready: &Ready, values: &[Option<Oid>]) -> Result<Effect> {
        let names: Vec<&RefName> =
            edits.iter().map(|edit| &edit.name).chain(ready.wants.iter().map(|want| &want.edit.name)).collect();
        let now = self.remote.where_are(&names)?;
        let (lock, refs) = now.split_at(edits.len());
        // Every record is new in every write, so one that is there is ours.
        Ok(if lock == values && values.iter().any(Option::is_some) {
            Effect::Done
        } else if edits.iter().zip(lock).all(|(edit, now)| edit.expected == *now) {
            let unmoved = ready.wants.iter().zip(refs).all(|(want, now)| want.edit.expected == *now);
            if unmoved { Effect::Untouched } else { Effect::RefsMoved }
        } else {
            Effect::LockMoved(ready.wants.iter().zip(refs).all(|(want, now)| want.new == *now))
        })
    }

    /// An error, after something was sent that got no answer.
    fn told(&self, error: Error) -> Error {
        if !self.uncertain.get() {
            return error;
        }
        let message = format!(
            "{error}; what was sent before may have been carried out, or still be: look at the refs there first"
        );
        Error::new(error.code(), message)
    }

    fn busy(&self, why: &str) -> Error {
        let message = format!(
            "{} could not take the push just now ({why}), and nothing was changed; try again",
            self.remote.place
        );
        Error::new(ErrorCode::RepositoryBusy, message)
    }
}

impl PreparedPush for Push {
    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        if self.remote.options.faults.has(Fault::NoFence) {
            let done = self.remote.swap(edits, None)?;
            return match (done, self.push(&[])) {
                (Transacted::Committed(values), Ok(Transacted::Committed(_))) => Ok(Transacted::Committed(values)),
                (_, refs) => refs,
            };
        }
        self.remote.after_checks(edits, |changes| self.push(changes))
    }
}

/// The full name of the ref that is pushed to, as `git push` finds it.
fn target(source: &Source, shown: &[(String, Oid)]) -> Result<String> {
    let advise = |why: String| {
        Err(Error::new(ErrorCode::InvalidArgument, format!("{why}; write the target out, as refs/heads/…")))
    };
    let spec = &source.spec;
    let Some(target) = &spec.target else {
        return match &source.full_name {
            Some(name) if name.starts_with("refs/") => Ok(name.clone()),
            _ => advise(format!("{spec} is no single ref, so that nothing says where to push it to")),
        };
    };
    if target.starts_with("refs/") {
        return Ok(target.clone());
    }
    let ways = ["refs/", "refs/tags/", "refs/heads/", "refs/remotes/"].map(|folder| format!("{folder}{target}"));
    let mut there = ways.iter().filter(|way| shown.iter().any(|(name, _)| name == *way));
    match (there.next(), there.next()) {
        (Some(name), None) => return Ok(name.clone()),
        (Some(one), Some(other)) => return advise(format!("{target} may be {one} or {other} there")),
        (None, _) => {}
    }
    let folder = ["refs/heads/", "refs/tags/"];
    let like = |name: &String| folder.into_iter().find(|folder| name.starts_with(folder));
    match source.full_name.as_ref().and_then(like) {
        Some(folder) => Ok(format!("{folder}{target}")),
        None if source.new.is_none() => Ok(format!("refs/heads/{target}")),
        None => advise(format!("{target} isn't there, and {spec} doesn't say whether it is to be a branch or a tag")),
    }
}
