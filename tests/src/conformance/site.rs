//! Where a scenario is played: in a repository of this machine, or at a server.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::{
    git::{Repo, run_git},
    servers::{Endpoint, Kind},
};

/// Where runs get their repositories.
pub(super) enum Site {
    /// On this machine.
    Here,
    /// At a server, which shows a folder of repositories.
    There {
        /// The server.
        endpoint: Endpoint,
        /// The folder that it shows.
        folder: PathBuf,
        /// How many runs there were.
        runs: AtomicUsize,
    },
}

/// What counts as short, in milliseconds: leases that are to end soon, and sleeps that let them.
const SHORT: u64 = 5_000;

/// The repositories of one run.
pub(super) struct Ground {
    /// How many times as long a short time has to be: where each question is an `ssh` of its own, and with it a connection
    /// or a share of one, a lease of half a second is over before it can be renewed.
    pace: u64,
    /// The one that is opened.
    pub(super) opened: Repo,
    /// The one at the server, and its URL.
    server: Option<(PathBuf, String)>,
}

impl Site {
    pub(super) fn at(endpoint: Endpoint, folder: &Path) -> Site {
        Site::There { endpoint, folder: folder.to_owned(), runs: AtomicUsize::new(0) }
    }

    /// Fresh repositories with one commit.
    pub(super) fn ground(&self) -> Ground {
        let opened = Repo::new();
        let pace = match self {
            Site::There { endpoint, .. } if endpoint.kind == Kind::Ssh => 4,
            Site::There { endpoint, .. } if endpoint.kind == Kind::SshKept => 2,
            _ => 1,
        };
        let server = match self {
            Site::Here => None,
            Site::There { endpoint, folder, runs } => {
                endpoint.set_up(opened.path());
                let name = format!("{}-{}", endpoint.kind.name(), runs.fetch_add(1, SeqCst));
                // With a work tree, so that scenarios can commit there.
                run_git(folder, &["init", "-q", &name]);
                let path = folder.join(&name);
                run_git(&path, &["commit", "-q", "--allow-empty", "-m", "first"]);
                Some((path, endpoint.url(&format!("{name}/.git"))))
            }
        };
        Ground { pace, opened, server }
    }
}

impl Ground {
    /// How long this many milliseconds of a scenario are here.
    pub(super) fn paced(&self, time: u64) -> u64 {
        if time < SHORT { time * self.pace } else { time }
    }

    /// The repository that the locks are in.
    pub(super) fn locks(&self) -> &Path {
        self.server.as_ref().map_or(self.opened.path(), |(path, _)| path)
    }

    /// The remote that managers are opened with.
    pub(super) fn remote(&self) -> Option<&str> {
        self.server.as_ref().map(|(_, url)| &**url)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.server {
            let _ = fs::remove_dir_all(path);
        }
    }
}
