//! A repository on any Git server: push as compare-and-swap.
//!
//! gix has no push, so the client of receive-pack is written here, and what it needs of reading
//! with it. The effect decides, never the server's words: after any answer but a clean success, and
//! after every lost connection, a fresh read settles whether a change was made.

mod cache;
pub(crate) mod config;
mod credentials;
mod fenced;
mod fetch;
#[cfg(feature = "http")]
mod http;
mod pack;
mod pkt;
pub(crate) mod place;
mod probe;
mod push;
mod server;
mod sightings;
mod ssh;
mod stream;
mod swap;
mod transport;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    clock::{self, Clock, SystemClock},
    error::{Error, Result},
    error_code::{ErrorCode, Retry},
    lock::fault::Faults,
    name::{Namespace, RefName},
    options::Options,
    push_spec::PushSpec,
    store::{
        NewValue, Object, Oid, PreparedPush, RefEdit, RefStore, Swept, Transacted, Watch, files::Settings,
        git_process::Git, poll,
    },
};

use cache::Cache;
use config::Config;
use fetch::Capabilities;
use place::Place;
use sightings::Sightings;
use transport::{Service, Session, Transport};

pub use probe::ServerReport;
pub use server::init_server;

/// How the remote store treats the server.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// How long one question and its answer may take. Default: ten seconds.
    pub timeout: Duration,
    /// How often a waiter looks when nothing has changed for a while. Default: two seconds.
    pub poll_interval: Duration,
    /// Time. Default: the machine's.
    pub clock: Arc<dyn Clock>,
    /// Rules left out by a test.
    #[doc(hidden)]
    pub faults: Faults,
}

impl Default for RemoteOptions {
    fn default() -> RemoteOptions {
        RemoteOptions {
            timeout: Duration::from_secs(10),
            poll_interval: Duration::from_secs(2),
            clock: Arc::new(SystemClock),
            faults: Faults::NONE,
        }
    }
}

/// The refs and objects of a repository on a Git server. Clones are the same store.
#[derive(Clone)]
pub struct RemoteStore(Arc<Remote>);

struct Remote {
    place: Place,
    /// Its name in the configuration, if it has one; else its place.
    name: String,
    /// The repository on this machine that is pushed from, if there is one.
    git: Option<Git>,
    transport: Box<dyn Transport>,
    options: RemoteOptions,
    known: Mutex<Known>,
    cache: Mutex<Cache>,
    sightings: Sightings,
    /// gitlock's folder in the repository on this machine, if there is one.
    notes: Option<PathBuf>,
    /// How long a question lately took, in microseconds.
    round_trip: AtomicU64,
}

/// What the server said of itself.
#[derive(Clone, Debug, Default)]
struct Known {
    receives: Option<Capabilities>,
    uploads: Option<Capabilities>,
    /// Whether it was seen to refuse a swap with a wrong expected value.
    proven: bool,
    /// Whether it was seen to compare what is to stay as it is, too; `None`: nobody has tried.
    verifies: Option<bool>,
    /// Whether that was asked for once.
    wants_to_verify: bool,
    /// How often in a row it refused something with such a ref beside it, and nothing had moved.
    unverified: u32,
}

/// What a remote turned out to be.
pub(crate) enum Found {
    /// A repository of this machine.
    Here(PathBuf),
    /// One on a server.
    There {
        store: RemoteStore,
        settings: Settings,
        /// Where the configuration was found.
        path: PathBuf,
    },
}

/// Finds a remote of the repository that `path` is in.
pub(crate) fn open(path: &Path, remote: &str, options: &Options) -> Result<Found> {
    let config = Config::of(path, options.environment)?;
    match config.place(remote)? {
        Place::Path(path) if path.exists() => Ok(Found::Here(path)),
        Place::Path(path) => Err(Error::new(
            ErrorCode::NotARepository,
            format!("the remote {remote:?} is the path {}, and nothing is there", path.display()),
        )),
        place => {
            let store = RemoteOptions {
                timeout: options.remote_timeout,
                poll_interval: 2 * options.poll_interval,
                clock: options.clock.clone(),
                faults: options.faults,
            };
            let store = RemoteStore::at(place, &config, remote, &store)?;
            // A linked worktree has a HEAD of its own.
            let linked = config.git.as_ref().map(Git::git_dir) != config.common_dir.as_deref();
            let path = config.common_dir.clone().filter(|_| !linked).unwrap_or(config.base);
            Ok(Found::There { store, settings: config.locks, path: path.canonicalize().unwrap_or(path) })
        }
    }
}

/// Refs as they were just read, and the session in which they were.
struct Reading {
    session: Box<dyn Session>,
    capabilities: Capabilities,
    refs: Vec<(String, Oid)>,
}

/// After how many fetches that were cut off an object counts as missing, if other questions are answered.
const CUT_OFF_AT_MOST: u32 = 4;

/// Where no ref is.
const NOWHERE: &str = "refs/gitlock-nowhere/";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteStore {
    /// Opens the remote of this name, or at this URL, as the configuration of the repository that
    /// `path` is in says, or else the user's own. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for what is no remote, no URL that is allowed, or a path of
    /// this machine, which [`FilesStore`](crate::store::files::FilesStore) opens.
    pub fn open(path: impl AsRef<Path>, remote: &str, options: &RemoteOptions) -> Result<RemoteStore> {
        let config = Config::of(path.as_ref(), false)?;
        let place = config.place(remote)?;
        RemoteStore::at(place, &config, remote, options)
    }

    pub(crate) fn at(place: Place, config: &Config, remote: &str, options: &RemoteOptions) -> Result<RemoteStore> {
        let clock = options.clock.clone();
        let transport: Box<dyn Transport> = match &place {
            Place::Git(host) => Box::new(stream::GitTransport { host: host.clone(), clock }),
            Place::Ssh(host) => Box::new(ssh::SshTransport::new(host.clone(), config.ssh(), clock)),
            #[cfg(feature = "http")]
            Place::Http(address) => Box::new(http::HttpTransport::new(config, remote, address.clone(), clock)?),
            #[cfg(not(feature = "http"))]
            Place::Http(address) => {
                let message =
                    format!("{address}: this gitlock was built without HTTP; build it with the feature `http`");
                return Err(Error::new(ErrorCode::Unsupported, message));
            }
            Place::Path(path) => {
                let message = format!("{} is a path of this machine, and is opened as one", path.display());
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
        };
        let notes = config.common_dir.as_ref().map(|folder| folder.join("gitlock"));
        let sightings = Sightings::new(notes.as_deref(), &place.to_string());
        let name = if config.has_remote(remote) { remote.to_owned() } else { place.to_string() };
        // Not what it was named by: that may hold a password.
        tracing::debug!(%place, "remote store");
        Ok(RemoteStore(Arc::new(Remote {
            place,
            name,
            git: config.git.clone(),
            transport,
            options: options.clone(),
            known: Mutex::default(),
            cache: Mutex::default(),
            sightings,
            notes,
            round_trip: AtomicU64::new(0),
        })))
    }

    /// Asks the server what it can do, and tries it out.
    ///
    /// # Errors
    /// If the server can't be reached, or doesn't let this user push.
    pub fn examine(&self, prefix: &str) -> Result<ServerReport> {
        probe::examine(&self.0, prefix)
    }
}

impl Remote {
    /// Begins a session and reads what the server says first, unless that is known and needn't be asked.
    fn begin(&self, service: Service, known: Option<Capabilities>) -> Result<Reading> {
        self.begin_within(service, known, self.options.timeout)
    }

    fn begin_within(&self, service: Service, known: Option<Capabilities>, time: Duration) -> Result<Reading> {
        let session = self.transport.connect(service, time)?;
        self.greeted(session, service, known)
    }

    /// Begins to push where what the server has to say of itself is known: in a session that waits for that, if there is one.
    fn begin_to_push(&self, known: Capabilities) -> Result<Reading> {
        let session = self.transport.connect_to_push(self.options.timeout)?;
        let waited = session.was_waiting();
        match self.greeted(session, Service::ReceivePack, Some(known)) {
            // It was cut off while it waited, and nothing has been said in it.
            Err(error) if waited && error.retry() == Retry::Later => self.begin(Service::ReceivePack, None),
            begun => begun,
        }
    }

    fn greeted(&self, mut session: Box<dyn Session>, service: Service, known: Option<Capabilities>) -> Result<Reading> {
        if let Some(known) = known.filter(|_| self.transport.is_stateless()) {
            return Ok(Reading { session, capabilities: known, refs: Vec::new() });
        }
        let greeting = fetch::greeting(session.greeting()?).map_err(|error| session.trouble(error))?;
        let greeting = greeting.map_err(|why| transport::refused(&self.place, &why))?;
        {
            let mut known = lock(&self.known);
            match service {
                Service::UploadPack => known.uploads = Some(greeting.capabilities.clone()),
                Service::ReceivePack => known.receives = Some(greeting.capabilities.clone()),
            }
        }
        Ok(Reading { session, capabilities: greeting.capabilities, refs: greeting.refs })
    }

    /// Reads the refs whose names begin with one of these, in a session of its own: one that is
    /// kept shows what was, not what is.
    fn read_once(&self, prefixes: &[String]) -> Result<Reading> {
        let began = self.options.clock.boot_ms();
        let known = lock(&self.known).uploads.clone().filter(|known| known.v2);
        let mut reading = self.begin(Service::UploadPack, known)?;
        if reading.capabilities.v2 {
            reading.refs = fetch::ls_refs(&mut *reading.session, &reading.capabilities, prefixes)?;
        }
        reading.refs.retain(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        self.took(began);
        Ok(reading)
    }

    fn read_refs(&self, prefixes: &[String]) -> Result<Reading> {
        self.persist(|| self.read_once(prefixes))
    }

    /// What these refs point at, and, on the way, the objects there that aren't known.
    fn read_names(&self, names: &[&RefName]) -> Result<Vec<Option<Oid>>> {
        let (mut reading, found) = self.find_names(names)?;
        self.fetch_along(&mut reading, found.iter().flatten().copied());
        Ok(found)
    }

    /// What these refs point at, without any objects.
    fn where_are(&self, names: &[&RefName]) -> Result<Vec<Option<Oid>>> {
        let (mut reading, found) = self.find_names(names)?;
        reading.session.close();
        Ok(found)
    }

    fn find_names(&self, names: &[&RefName]) -> Result<(Reading, Vec<Option<Oid>>)> {
        let mut prefixes: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
        prefixes.dedup();
        let reading = self.read_refs(&prefixes)?;
        let found = |name: &&RefName| reading.refs.iter().find(|(other, _)| other == name.as_str()).map(|(_, id)| *id);
        let found = names.iter().map(found).collect();
        Ok((reading, found))
    }

    /// Fetches what isn't known of these, without a word if that fails: who needs one asks for it.
    fn fetch_along(&self, reading: &mut Reading, ids: impl Iterator<Item = Oid>) {
        let mut wanted: Vec<Oid> = {
            let cache = lock(&self.cache);
            ids.filter(|id| !cache.has(id)).collect()
        };
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            reading.session.close();
            return;
        }
        match fetch::objects(&mut *reading.session, &reading.capabilities, &wanted, 1) {
            Ok(Ok(objects)) => lock(&self.cache).take(objects, self.options.clock.boot_ms()),
            Ok(Err(why)) => tracing::debug!(place = %self.place, why, "objects could not be fetched"),
            Err(error) => tracing::debug!(place = %self.place, %error, "objects could not be fetched"),
        }
    }

    /// Fetches one object, and of a commit so many of its history.
    fn fetch(&self, id: &Oid, depth: usize) -> Result<()> {
        let known = lock(&self.known).uploads.clone().filter(|known| known.v2);
        let Reading { mut session, capabilities, .. } = self.begin(Service::UploadPack, known)?;
        match fetch::objects(&mut *session, &capabilities, &[*id], depth)? {
            Ok(objects) => lock(&self.cache).take(objects, self.options.clock.boot_ms()),
            // It isn't there, or isn't shown to whoever doesn't come by a ref.
            Err(why) => tracing::debug!(place = %self.place, %id, why, "an object could not be fetched"),
        }
        Ok(())
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        if let Some(object) = self.cached(id) {
            return Ok(object);
        }
        let mut cut_off = 0;
        self.persist(|| match self.fetch(id, 1) {
            // A server that is asked for what it doesn't have says so and hangs up, and what it said
            // is often lost with the connection. If it answers everything else, that is why.
            Err(error) if transport::is_cut_off(&error) && cut_off < CUT_OFF_AT_MOST => {
                cut_off += 1;
                self.read_once(&[NOWHERE.to_owned()])?.session.close();
                if cut_off == CUT_OFF_AT_MOST { Ok(()) } else { Err(error) }
            }
            result => result,
        })?;
        Ok(self.cached(id).unwrap_or(Object::Missing))
    }

    fn cached(&self, id: &Oid) -> Option<Object> {
        lock(&self.cache).object(id)
    }

    /// Tries again what may pass, for about as long as one question may take.
    fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut pause = Backoff::new(self, None);
        loop {
            match attempt() {
                Err(error) if error.retry() == Retry::Later && pause.wait(&error) => {}
                result => return result,
            }
        }
    }

    /// Remembers how long a question took.
    fn took(&self, began: u64) {
        let micros = self.options.clock.boot_ms().saturating_sub(began).saturating_mul(1_000).max(500);
        let before = self.round_trip.load(Relaxed);
        let smooth = if before == 0 { micros } else { (before * 7 + micros) / 8 };
        self.round_trip.store(smooth, Relaxed);
    }
}

/// Pauses that grow, up to an end.
struct Backoff<'a> {
    remote: &'a Remote,
    until: u64,
    next: u64,
}

/// The most attempts of a kind that fails at once are far apart, in milliseconds.
const LONGEST_PAUSE: u64 = 2_000;

impl Backoff<'_> {
    fn new(remote: &Remote, patience: Option<Duration>) -> Backoff<'_> {
        let patience = clock::millis(patience.unwrap_or(remote.options.timeout));
        let until = remote.options.clock.boot_ms().saturating_add(patience);
        Backoff { remote, until, next: remote.round_trip.load(Relaxed).div_ceil(1_000).max(10) }
    }

    /// Pauses before the next attempt; `false`: there is none.
    fn wait(&mut self, error: &dyn fmt::Display) -> bool {
        let spread = uuid::Uuid::new_v4().as_u64_pair().0 % (self.next + 1);
        let pause = self.next / 2 + spread;
        let clock = &self.remote.options.clock;
        if clock.boot_ms().saturating_add(pause) >= self.until {
            return false;
        }
        tracing::debug!(place = %self.remote.place, %error, pause, "it will be tried again");
        clock.pause(Duration::from_millis(pause));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        true
    }
}

impl RefStore for RemoteStore {
    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        Ok(self.0.read_names(&[name])?[0])
    }

    fn read_all(&self, names: &[&RefName]) -> Result<Vec<Option<Oid>>> {
        self.0.read_names(names)
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        self.0.object(id)
    }

    fn foresee(&self, from: &Oid, depth: usize) -> Result<()> {
        if depth > 1 && !lock(&self.0.cache).reaches(from, depth) {
            self.0.persist(|| self.0.fetch(from, depth))?;
        }
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        let mut reading = self.0.read_refs(&[format!("{prefix}/")])?;
        let refs = std::mem::take(&mut reading.refs);
        self.0.fetch_along(&mut reading, refs.iter().map(|(_, id)| *id).take(cache::MOST_AT_ONCE));
        let mut refs: Vec<(RefName, Oid)> = refs.into_iter().map(|(name, id)| (RefName::foreign(name), id)).collect();
        refs.sort();
        Ok(refs)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        self.0.swap(edits, None)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact_within(&self, edits: &[RefEdit], patience: Duration) -> Result<Transacted> {
        self.0.swap(edits, Some(patience))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(edits = edits.len()), err(level = "debug"))]
    fn transact_beside(
        &self,
        edits: &[RefEdit],
        unmoved: &[(RefName, Oid)],
        patience: Option<Duration>,
    ) -> Result<(Transacted, bool)> {
        self.0.swap_beside(edits, unmoved, patience)
    }

    fn prepare_push(&self, specs: &[PushSpec], names: &Namespace) -> Result<Box<dyn PreparedPush>> {
        Ok(Box::new(fenced::prepare(&self.0, specs, names)?))
    }

    /// The server keeps its objects: nothing can be written to it that no ref points at.
    fn restore(&self, _value: &NewValue) -> Result<bool> {
        Ok(false)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        let (remote, prefixes) = (self.0.clone(), [format!("{prefix}/")]);
        let ask = move || {
            let mut reading = remote.read_once(&prefixes)?;
            reading.session.close();
            Ok(reading.refs)
        };
        let (clock, longest) = (self.0.options.clock.clone(), self.0.options.poll_interval);
        poll::start(Box::new(ask), clock, longest, prefix, &self.0.place.to_string())
    }

    fn superseded(&self, _objects: &[Oid]) {}

    fn sweep(&self, _grace: Option<Duration>) -> Result<Swept> {
        Ok(Swept::default())
    }

    fn unchanged_for(&self, name: &RefName, id: &Oid) -> Option<u64> {
        self.seen_for(name, &[id.to_string()]).pop().flatten()
    }

    fn seen_for(&self, name: &RefName, entries: &[String]) -> Vec<Option<u64>> {
        self.0.sightings.seen_for(&self.0.options.clock.now(), name.as_str(), entries)
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.0.round_trip.load(Relaxed)))
    }

    fn location(&self) -> String {
        self.0.place.to_string()
    }
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("place", &self.0.place).finish_non_exhaustive()
    }
}
