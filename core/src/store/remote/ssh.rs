//! ssh, by the user's own program and configuration.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::fs::OFlags;

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
    store::git_process::program::input,
};

use super::{
    config::Ssh,
    place::Host,
    stream::Stream,
    transport::{Service, Session, Transport},
};

/// For how long a session waits for somebody who needs it, in milliseconds: the server keeps a process for it.
const WAITS: u64 = 3_000;

/// How many wait at most: one is begun while two pushes are under way, since to begin takes longer than a push.
const DEPTH: usize = 2;

/// How soon after each other two pushes are part of a burst, in milliseconds.
const BURST: u64 = 1_000;

/// The user's own ssh.
///
/// To start it takes as long as all that a push asks of the server. So in a burst of pushes, such as a lock that is handed
/// around, each begins another session for one of the next.
#[derive(Debug)]
pub(super) struct SshTransport(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    host: Host,
    ssh: Ssh,
    clock: Arc<dyn Clock>,
    spare: Mutex<Spare>,
}

#[derive(Debug, Default)]
struct Spare {
    /// What waits, oldest first, and since when on the boot clock.
    waiting: VecDeque<(Stream, u64)>,
    /// When the last push began.
    last: Option<u64>,
    /// Whether a thread sees to its end.
    watched: bool,
}

impl SshTransport {
    pub(super) fn new(host: Host, ssh: Ssh, clock: Arc<dyn Clock>) -> SshTransport {
        SshTransport(Arc::new(Shared { host, ssh, clock, spare: Mutex::default() }))
    }
}

impl Shared {
    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, service: Service, deadline: u64) -> Result<Stream> {
        let (child, to) = self.start(service).map_err(|error| {
            let message = format!("ssh can't be started: {error}; install it, or set core.sshCommand");
            Error::new(ErrorCode::Io, message).with_source(error)
        })?;
        Ok(Stream::over_ssh(child, to, deadline, self.clock.clone(), format!("ssh://{}", self.host)))
    }

    /// Begins a session for the next push.
    fn leave_spare(self: &Arc<Self>) {
        let now = self.clock.boot_ms();
        let mut spare = self.spare();
        while spare.waiting.len() < DEPTH {
            match self.open(Service::ReceivePack, now + WAITS) {
                Ok(stream) => spare.waiting.push_back((stream, now)),
                Err(error) => {
                    tracing::debug!(%error, "no session is begun for the next push");
                    break;
                }
            }
        }
        if !spare.waiting.is_empty() && !spare.watched {
            let shared = Arc::downgrade(self);
            let clock = self.clock.clone();
            let watch = move || {
                while let Some(shared) = shared.upgrade() {
                    if !shared.has_fresh_spares() {
                        return;
                    }
                    drop(shared);
                    clock.pause(Duration::from_millis(WAITS / 3));
                }
            };
            spare.watched = std::thread::Builder::new().name("gitlock-ssh".to_owned()).spawn(watch).is_ok();
        }
    }

    /// Whether something waits that may wait on. What may not is ended.
    fn has_fresh_spares(&self) -> bool {
        let mut spare = self.spare();
        let now = self.clock.boot_ms();
        let (fresh, old): (VecDeque<_>, VecDeque<_>) =
            spare.waiting.drain(..).partition(|(_, since)| now < since + WAITS);
        spare.waiting = fresh;
        spare.watched = !spare.waiting.is_empty();
        let goes_on = spare.watched;
        drop(spare);
        old.into_iter().for_each(end);
        goes_on
    }
}

/// So that the server isn't left with a client that went away without a word.
fn end((mut stream, _): (Stream, u64)) {
    stream.close();
}

impl Drop for Shared {
    fn drop(&mut self) {
        std::mem::take(&mut self.spare().waiting).into_iter().for_each(end);
    }
}

impl Shared {
    fn command(&self, service: Service) -> Command {
        let Ssh { command, shell, variant } = &self.ssh;
        let mut program = if *shell {
            let mut program = Command::new("sh");
            // As Git does it: the user's words are a shell's, and what is added are arguments.
            program.arg("-c").arg(format!("{command} \"$@\"")).arg(command);
            program
        } else {
            Command::new(command)
        };
        let first = command.split_whitespace().next().unwrap_or_default();
        let name = first.rsplit('/').next().unwrap_or_default().trim_end_matches(".exe");
        let variant = variant.as_deref().unwrap_or(name).to_ascii_lowercase();
        match &*variant {
            "simple" => {}
            "plink" | "putty" | "tortoiseplink" => {
                program.arg("-batch");
                if let Some(port) = self.host.port {
                    program.arg("-P").arg(port.to_string());
                }
            }
            _ => {
                // Nobody is there to be asked for a password.
                program.args(["-o", "BatchMode=yes", "-o", "SendEnv=GIT_PROTOCOL"]);
                if let Some(port) = self.host.port {
                    program.arg("-p").arg(port.to_string());
                }
            }
        }
        let host = match &self.host.user {
            Some(user) => format!("{user}@{}", self.host.name),
            None => self.host.name.clone(),
        };
        program.arg(host).arg(format!("{} {}", service.name(), quoted(&self.host.path)));
        if service == Service::UploadPack {
            program.env("GIT_PROTOCOL", "version=2");
        } else {
            program.env_remove("GIT_PROTOCOL");
        }
        program.stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    }

    /// Starts ssh. Returns what it reads as well.
    fn start(&self, service: Service) -> io::Result<(Child, OwnedFd)> {
        let (to, from) = input()?;
        rustix::fs::fcntl_setfl(&to, OFlags::NONBLOCK)?;
        let child = self.command(service).stdin(from).spawn()?;
        Ok((child, to))
    }
}

impl Transport for SshTransport {
    fn connect(&self, service: Service, time: Duration) -> Result<Box<dyn Session>> {
        let deadline = self.0.clock.boot_ms().saturating_add(clock::millis(time));
        Ok(Box::new(self.0.open(service, deadline)?))
    }

    fn connect_to_push(&self, time: Duration) -> Result<Box<dyn Session>> {
        let now = self.0.clock.boot_ms();
        let deadline = now.saturating_add(clock::millis(time));
        let (waiting, last) = {
            let mut spare = self.0.spare();
            (spare.waiting.pop_front(), spare.last.replace(now))
        };
        let fresh = waiting.filter(|(_, since)| now < since + WAITS).map(|(stream, _)| stream);
        let fresh = fresh.and_then(|mut stream| stream.goes_on(deadline).then_some(stream));
        let mut stream = fresh.map_or_else(|| self.0.open(Service::ReceivePack, deadline), Ok)?;
        if last.is_some_and(|last| now < last + BURST) {
            let shared = self.0.clone();
            stream.meanwhile(move || shared.leave_spare());
        }
        Ok(Box::new(stream))
    }

    fn is_stateless(&self) -> bool {
        false
    }
}

/// For the shell at the other end.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''").replace('!', "'\\!'"))
}
