//! Git servers on loopback, of what Git itself brings: `git daemon`, `git http-backend` behind a small
//! HTTP server, and an ssh that runs its command here.
#![allow(clippy::expect_used, clippy::panic)] // a test without its server can't go on

mod cut;
mod link;
mod web;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::git::{fast_folder, run_git};

pub use cut::{Cut, Cutter};
pub use link::Link;
pub use web::{Gate, Web};

/// A folder with bare repositories that servers show.
#[derive(Debug)]
pub struct Served {
    folder: tempfile::TempDir,
}

impl Served {
    /// With one empty repository, `locks.git`, made with these arguments to `git init`.
    pub fn with(arguments: &[&str]) -> Served {
        let folder = tempfile::Builder::new().prefix("gitlock-served-").tempdir_in(fast_folder()).expect("a folder");
        let served = Served { folder };
        served.add("locks.git", arguments);
        served
    }

    /// With one empty repository, `locks.git`.
    pub fn new() -> Served {
        Served::with(&[])
    }

    /// Adds a bare repository.
    pub fn add(&self, name: &str, arguments: &[&str]) -> PathBuf {
        run_git(self.folder.path(), &[&["init", "-q", "--bare"], arguments, &[name]].concat());
        let path = self.folder.path().join(name);
        // A clean-up of its own accord would run beside the tests, and slow them down.
        run_git(&path, &["config", "receive.autogc", "false"]);
        path
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The one repository's path.
    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("locks.git")
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
    child: Child,
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
        let child = Command::new("git")
            .args(["daemon", "--reuseaddr", "--listen=127.0.0.1", "--export-all"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.display()))
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("git daemon");
        let daemon = Daemon { child, port };
        daemon.wait_until_it_listens();
        daemon
    }

    #[allow(clippy::disallowed_methods)] // a server that starts
    fn wait_until_it_listens(&self) {
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("git daemon doesn't listen");
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
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
