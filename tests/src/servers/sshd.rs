//! A real sshd that lets in who started it, by a key made for it, and the ssh configuration that leads there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use gitlock::clock::{Clock, SystemClock};

use super::{
    free_port,
    group::{Group, LOOKS, program, run},
};

/// The host under which each connection is made anew.
pub(super) const HOST: &str = "gitlock";

/// The host under which one connection is kept for all (ControlMaster).
pub(super) const KEPT_HOST: &str = "gitlock-kept";

/// A server.
#[derive(Debug)]
pub struct Sshd {
    folder: PathBuf,
    server: Group,
}

impl Sshd {
    /// Starts one that keeps its own files in `folder`.
    ///
    /// # Errors
    /// Which package is missing, or that it doesn't let this user in.
    ///
    /// # Panics
    /// If it doesn't listen.
    pub fn start(folder: &Path) -> Result<Sshd, String> {
        let sshd = program("sshd", "openssh-server")?;
        program("ssh", "openssh-client")?;
        fs::create_dir_all(folder).expect("a folder");
        if rustix::process::geteuid().is_root() {
            // As Debian's unit does before it starts one.
            fs::create_dir_all("/run/sshd").map_err(|error| format!("/run/sshd can't be made: {error}"))?;
        }
        for name in ["host", "user"] {
            run(folder, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "gitlock-tests", "-f", name]);
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized")).expect("a file");
        let port = free_port();
        fs::write(folder.join("sshd_config"), configuration(folder, port)).expect("a file");
        let host = fs::read_to_string(folder.join("host.pub")).expect("a key");
        fs::write(folder.join("known"), format!("[127.0.0.1]:{port} {host}")).expect("a file");
        fs::write(folder.join("ssh_config"), client(folder, port)).expect("a file");
        let mut server = Group::start(
            Command::new(sshd).arg("-D").arg("-f").arg(folder.join("sshd_config")).arg("-E").arg(folder.join("log")),
        )
        .expect("sshd");
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(server.listens(port), "sshd doesn't listen: {}", log());
        let sshd = Sshd { folder: folder.to_owned(), server };
        let entered = sshd.ssh().args([HOST, "true"]).output().expect("ssh");
        if !entered.status.success() {
            let said = String::from_utf8_lossy(&entered.stderr).trim().to_owned();
            return Err(format!("sshd doesn't let this user in: {said}; {}", log().trim()));
        }
        Ok(sshd)
    }

    /// What leads there, for `core.sshCommand`.
    pub fn command(&self) -> String {
        format!("ssh -F {}", self.folder.join("ssh_config").display())
    }

    fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.folder.join("ssh_config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Whether a connection is kept.
    pub fn keeps_one(&self) -> bool {
        self.keeper().is_some()
    }

    /// The process that keeps one, if there is one: "Master running (pid=7)".
    fn keeper(&self) -> Option<u32> {
        let checked = self.ssh().args(["-O", "check", KEPT_HOST]).output().ok().filter(|it| it.status.success())?;
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        said.split_once("pid=")?.1.split_once(')')?.0.parse().ok()
    }
}

/// Whether this process still runs.
fn runs(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // What is kept runs in the background, and has nobody else who ends it.
        if let Some(keeper) = self.keeper() {
            let _ = self.ssh().args(["-O", "exit", KEPT_HOST]).output();
            // It says that it will before it does.
            for _ in (0..LOOKS).take_while(|_| runs(keeper)) {
                SystemClock.pause(Duration::from_millis(10));
            }
        }
        // Each connection has a session and a process group of its own.
        #[cfg(target_os = "linux")]
        for pid in crate::torture::descendants(self.server.id()) {
            crate::torture::kill_descendant(self.server.id(), pid);
        }
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile {folder}/pid\n\
         AuthorizedKeysFile {folder}/authorized\n\
         # The folder is one for temporary files.\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
         # Nothing that this user has set up runs: some shells read their settings for each connection.\n\
         PermitUserRC no\nSetEnv HOME={folder} GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null\n\
         AcceptEnv GIT_PROTOCOL\n\
         MaxStartups 200\nMaxSessions 200\nLogLevel INFO\n"
    )
}

fn client(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "Host {KEPT_HOST}\n  ControlMaster auto\n  ControlPath {folder}/kept\n  ControlPersist 30\n\
         Host {HOST} {KEPT_HOST}\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
         BatchMode yes\n  SendEnv GIT_PROTOCOL\n  # Half as long as the default.\n  KexAlgorithms curve25519-sha256\n"
    )
}
