//! Opening a manager: which store, and with what options.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use crate::{
    clock,
    error::Result,
    fork,
    lock::{Expiry, Policy},
    name::Namespace,
    options::Options,
    store::{
        RefStore,
        files::{FilesOptions, FilesStore, Settings},
        remote::{self, RemoteStore},
    },
};

use super::{Inner, commit_loop::CommitLoop, reactor::Reactor};

/// A store, and what it is besides.
pub(super) struct Opened {
    pub(super) store: Arc<dyn RefStore>,
    pub(super) files: Option<Arc<FilesStore>>,
    pub(super) remote: Option<RemoteStore>,
}

impl Inner {
    pub(super) fn open(path: &Path, options: Options) -> Result<Inner> {
        let Some(remote) = &options.remote else {
            let (inner, settings) = Inner::open_files(path, options.clone())?;
            return match settings.remote {
                Some(remote) => Inner::open(path, Options { remote: Some(remote), ..options }),
                None => Ok(inner),
            };
        };
        match remote::open(path, remote, &options)? {
            remote::Found::Here(path) => {
                let (mut inner, _) = Inner::open_files(&path, Options { environment: false, ..options.clone() })?;
                // By its path, so that what its own configuration says of remotes doesn't count.
                let at = inner.commits.store.location();
                inner.origin = Some((PathBuf::from(&at), Options { remote: Some(at), environment: false, ..options }));
                Ok(inner)
            }
            remote::Found::There { store, settings, path } => {
                let prefix = options.lock_prefix.as_ref().or(settings.prefix.as_ref());
                let names = prefix.map_or_else(|| Ok(Namespace::default()), |prefix| Namespace::new(prefix))?;
                let keep = options.keep.or(settings.keep);
                let skew = options.max_clock_skew.or(settings.max_clock_skew_ms.map(Duration::from_millis));
                let origin = Some((path, Options { environment: false, ..options.clone() }));
                let store = Opened { store: Arc::new(store.clone()), files: None, remote: Some(store) };
                Ok(Inner::new(store, names, keep, skew, origin, options))
            }
        }
    }

    /// Opens a repository on this machine, and tells what its configuration says.
    fn open_files(path: &Path, options: Options) -> Result<(Inner, Settings)> {
        let defaults = FilesOptions::default();
        let files = FilesOptions {
            durable: options.durable.unwrap_or(false),
            stale_lock_age: options.stale_lock_age.unwrap_or(defaults.stale_lock_age),
            lock_timeout: options.lock_timeout,
            sweep_grace: options.sweep_grace,
            environment: options.environment,
            clock: options.clock.clone(),
            faults: options.faults,
        };
        let store = Arc::new(FilesStore::open(path, &files)?);
        let settings = store.settings().clone();
        let names = match options.lock_prefix.as_ref().or(settings.prefix.as_ref()) {
            Some(prefix) => Namespace::new(prefix)?,
            None => Namespace::default(),
        };
        let keep = options.keep.or(settings.keep);
        let skew = options.max_clock_skew.or(settings.max_clock_skew_ms.map(Duration::from_millis));
        // Where it was found, so that a change of the working directory doesn't change the repository.
        let origin = Some((store.common_dir().to_owned(), Options { environment: false, ..options.clone() }));
        let store = Opened { store: store.clone(), files: Some(store), remote: None };
        Ok((Inner::new(store, names, keep, skew, origin, options), settings))
    }

    pub(super) fn new(
        Opened { store, files, remote }: Opened,
        names: Namespace,
        keep: Option<u32>,
        skew: Option<Duration>,
        origin: Option<(PathBuf, Options)>,
        options: Options,
    ) -> Inner {
        let poll_interval = clock::millis(options.poll_interval).max(1);
        let (poll_interval, claim_window) = match store.round_trip() {
            // Whoever is granted has to hear of it, and to claim it, by questions to a server.
            Some(_) => (2 * poll_interval, clock::millis(options.claim_window).max(8 * poll_interval + 2_000)),
            None => (poll_interval, clock::millis(options.claim_window)),
        };
        let remote_expiry = if store.round_trip().is_some() { Expiry::Observed } else { Expiry::WallClock };
        let policy = Policy {
            claim_window,
            max_clock_skew: skew.map_or(Policy::default().max_clock_skew, clock::millis),
            poll_interval,
            expiry: options.expiry.unwrap_or(remote_expiry),
            faults: options.faults,
            ..Policy::default()
        };
        // The watch of a remote asks, and looks for itself only in case that it fails.
        let looks_seldom = store.round_trip().is_some();
        let look_interval = if looks_seldom { 15 * policy.poll_interval } else { policy.poll_interval };
        Inner {
            commits: CommitLoop::new(store, names, policy, keep, options.clock),
            reactor: Reactor::default(),
            owner: options.owner,
            lock_timeout: clock::millis(options.lock_timeout),
            files,
            remote,
            look_interval,
            reentrant: Mutex::default(),
            generation: fork::generation(),
            origin,
            after_fork: OnceLock::new(),
        }
    }
}
