//! Git servers on loopback. Of what Git itself brings: `git daemon`, `git http-backend` behind a small
//! HTTP server, and an ssh that runs its command here. And those that teams have: nginx and sshd.
#![allow(clippy::expect_used, clippy::panic)] // a test without its server can't go on

mod cut;
pub(crate) mod group;
mod link;
mod nginx;
mod program;
mod real;
mod sshd;
mod web;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::git::{fast_folder, run_git};

use group::Group;

pub use cut::{Cut, Cutter};
pub use link::Link;
pub use nginx::{Nginx, PASSWORD, USER};
pub use program::main as program;
pub use real::{Endpoint, Kind, Servers};
pub use sshd::Sshd;
pub use web::{Gate, Web};

/// A folder with bare repositories that servers show.
#[derive(Debug)]
pub struct Served {
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Served {
    /// With one empty repository, `locks.git`, made with these arguments to `git init`.
    pub fn with(arguments: &[&str]) -> Served {
        let made = tempfile::Builder::new().prefix("gitlock-served-").tempdir_in(fast_folder()).expect("a folder");
        let served = Served { folder: made.path().to_owned(), _temporary: Some(made) };
        served.add("locks.git", arguments);
        served
    }

    /// With one empty repository, `locks.git`.
    pub fn new() -> Served {
        Served::with(&[])
    }

    /// With none yet, in a folder that somebody else looks after.
    pub fn in_folder(folder: &Path) -> Served {
        Served { folder: folder.to_owned(), _temporary: None }
    }

    /// Adds a bare repository.
    pub fn add(&self, name: &str, arguments: &[&str]) -> PathBuf {
        run_git(&self.folder, &[&["init", "-q", "--bare"], arguments, &[name]].concat());
        let path = self.folder.join(name);
        // A clean-up of its own accord would run beside the tests, and slow them down.
        run_git(&path, &["config", "receive.autogc", "false"]);
        path
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The one repository's path.
    pub fn repository(&self) -> PathBuf {
        self.folder.join("locks.git")
    }
}

impl Default for Served {
    fn default() -> Served {
        Served::new()
    }
}

/// A `git daemon` and all that it starts.
#[derive(Debug)]
pub struct Daemon {
    _group: Group,
    /// Where it listens.
    pub port: u16,
}

/// A port that nobody listens at.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

impl Daemon {
    /// Starts one that shows this folder and takes pushes, with these arguments besides.
    pub fn start(folder: &Path, arguments: &[&str]) -> Daemon {
        Daemon::start_at(folder, arguments, free_port())
    }

    /// Likewise, at this port.
    pub fn start_at(folder: &Path, arguments: &[&str], port: u16) -> Daemon {
        let mut command = Command::new("git");
        command.args(["daemon", "--reuseaddr", "--listen=127.0.0.1", "--export-all"]).arg(format!("--port={port}"));
        command.arg(format!("--base-path={}", folder.display())).args(arguments);
        let mut group = Group::start(&mut command).expect("git daemon");
        assert!(group.listens(port), "git daemon doesn't listen");
        Daemon { _group: group, port }
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

/// Writes a program that stands in for ssh: it runs its last argument here, and hands on the
/// protocol's version only if it `sends` it, as a server that accepts the variable does.
pub fn local_ssh(folder: &Path, sends: bool) -> PathBuf {
    let path = folder.join(if sends { "ssh" } else { "ssh-v0" });
    let unset = if sends { "" } else { "unset GIT_PROTOCOL\n" };
    fs::write(&path, format!("#!/bin/sh\n{unset}for last; do :; done\nexec sh -c \"$last\"\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    path
}
