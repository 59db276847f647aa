//! Talks over a stream of bytes: `git://` over TCP, and ssh over the pipes of the user's own ssh.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
    store::git_process::program::{input, send},
};

use super::{
    config::Ssh,
    pkt,
    place::Host,
    transport::{self, Service, Session, Transport},
};

/// The port of `git://`.
const PORT: u16 = 9418;

/// How much of what ssh says is kept.
const MOST_WORDS: usize = 4_096;

/// For how long an ssh that was told that all is said may take to end.
const ENDS_WITHIN: Duration = Duration::from_millis(500);

/// `git://`
#[derive(Debug)]
pub(super) struct GitTransport {
    pub(super) host: Host,
    pub(super) clock: Arc<dyn Clock>,
}

impl Transport for GitTransport {
    fn connect(&self, service: Service, time: Duration) -> Result<Box<dyn Session>> {
        let deadline = self.clock.boot_ms().saturating_add(clock::millis(time));
        let place = format!("git://{}", self.host);
        let port = self.host.port.unwrap_or(PORT);
        let failed = |error| transport::cut(&place, error);
        let addresses = (&*self.host.name, port).to_socket_addrs().map_err(|error| {
            Error::new(
                ErrorCode::Io,
                format!("the host of {place} isn't found: {error}; check its name and the network"),
            )
        })?;
        let mut result = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        for address in addresses {
            result = TcpStream::connect_timeout(&address, left(&*self.clock, deadline).map_err(failed)?);
            if result.is_ok() {
                break;
            }
        }
        let socket = result.map_err(failed)?;
        let _ = socket.set_nodelay(true);
        // What is silent for ever is noticed, and nothing blocks between two looks at the clock.
        socket.set_nonblocking(true).map_err(failed)?;
        let mut stream = Stream { ends: Ends::Socket(socket), deadline, clock: self.clock.clone(), place };
        let host = match self.host.port {
            Some(port) => format!("{}:{port}", self.host.name),
            None => self.host.name.clone(),
        };
        let mut hello = Vec::new();
        let version = if service == Service::UploadPack { "\0version=2\0" } else { "" };
        pkt::write(&mut hello, format!("{} {}\0host={host}\0{version}", service.name(), self.host.path).as_bytes());
        stream.write_all(&hello).map_err(|error| stream.trouble(error))?;
        Ok(Box::new(stream))
    }

    fn is_stateless(&self) -> bool {
        false
    }
}

/// The user's own ssh.
#[derive(Debug)]
pub(super) struct SshTransport {
    pub(super) host: Host,
    pub(super) ssh: Ssh,
    pub(super) clock: Arc<dyn Clock>,
}

impl SshTransport {
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
        let deadline = self.clock.boot_ms().saturating_add(clock::millis(time));
        let (child, to) = self.start(service).map_err(|error| {
            let message = format!("ssh can't be started: {error}; install it, or set core.sshCommand");
            Error::new(ErrorCode::Io, message).with_source(error)
        })?;
        let ssh = Box::new(SshChild { child, to: Some(to), words: String::new() });
        let stream =
            Stream { ends: Ends::Ssh(ssh), deadline, clock: self.clock.clone(), place: format!("ssh://{}", self.host) };
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

fn left(clock: &dyn Clock, deadline: u64) -> io::Result<Duration> {
    let left = deadline.saturating_sub(clock.boot_ms());
    if left == 0 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Duration::from_millis(left)) }
}

#[derive(Debug)]
struct SshChild {
    child: Child,
    /// What it reads, until all is said.
    to: Option<OwnedFd>,
    /// What it said on stderr.
    words: String,
}

impl SshChild {
    /// Takes what ssh has said, so that it never blocks on it.
    fn listen(&mut self) {
        let Some(stderr) = &mut self.child.stderr else { return };
        if !readable(stderr) {
            return;
        }
        let mut buffer = [0; 1_024];
        match stderr.read(&mut buffer) {
            Ok(count) if count > 0 => {
                if self.words.len() < MOST_WORDS {
                    self.words.push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
            }
            _ => self.child.stderr = None,
        }
    }
}

fn readable(stderr: &ChildStderr) -> bool {
    let mut polled = [PollFd::new(stderr, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
}

#[derive(Debug)]
enum Ends {
    Socket(TcpStream),
    Ssh(Box<SshChild>),
    /// None, any more.
    Gone,
}

/// A stream with a deadline for all that is read and written.
struct Stream {
    ends: Ends,
    deadline: u64,
    clock: Arc<dyn Clock>,
    place: String,
}

impl Stream {
    /// Waits until there is something to do on this descriptor, and takes what ssh says meanwhile.
    fn wait(&mut self, flags: PollFlags) -> io::Result<()> {
        loop {
            let left = left(&*self.clock, self.deadline)?;
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
            let (main, stderr): (BorrowedFd<'_>, Option<BorrowedFd<'_>>) = match &self.ends {
                Ends::Gone => return Err(gone()),
                Ends::Socket(socket) => (socket.as_fd(), None),
                Ends::Ssh(ssh) => {
                    let child = &ssh.child;
                    let main = if flags == PollFlags::OUT {
                        ssh.to.as_ref().ok_or_else(gone)?.as_fd()
                    } else {
                        child.stdout.as_ref().ok_or_else(gone)?.as_fd()
                    };
                    (main, child.stderr.as_ref().map(AsFd::as_fd))
                }
            };
            let mut polled = vec![PollFd::from_borrowed_fd(main, flags)];
            polled.extend(stderr.map(|stderr| PollFd::from_borrowed_fd(stderr, PollFlags::IN)));
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let (ready, said) =
                (!polled[0].revents().is_empty(), polled.get(1).is_some_and(|fd| !fd.revents().is_empty()));
            drop(polled);
            if let (true, Ends::Ssh(ssh)) = (said, &mut self.ends) {
                ssh.listen();
            }
            if ready {
                return Ok(());
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::IN)?;
            let read = match &mut self.ends {
                Ends::Gone => return Ok(0),
                Ends::Socket(socket) => socket.read(buffer),
                Ends::Ssh(ssh) => ssh.child.stdout.as_mut().map_or(Ok(0), |out| out.read(buffer)),
            };
            match read {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                read => return read,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::OUT)?;
            let written = match &mut self.ends {
                Ends::Gone => return Ok(0),
                Ends::Socket(socket) => socket.write(bytes),
                Ends::Ssh(ssh) => ssh.to.as_ref().map_or(Ok(0), |to| Ok(send(to, bytes)?)),
            };
            match written {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session for Stream {
    fn greeting(&mut self) -> Result<&mut dyn Read> {
        Ok(self)
    }

    fn ask(&mut self, request: &[u8]) -> Result<&mut dyn Read> {
        self.write_all(request).map_err(|error| self.trouble(error))?;
        Ok(self)
    }

    fn close(&mut self) {
        // So that the server isn't left with a client that went away without a word.
        let _ = self.write_all(pkt::FLUSH);
    }

    fn trouble(&mut self, error: io::Error) -> Error {
        if let Ends::Ssh(ssh) = &mut self.ends {
            // It says why right before it ends.
            for _ in 0..20 {
                if ssh.child.stderr.is_none() || matches!(ssh.child.try_wait(), Ok(Some(_))) {
                    break;
                }
                ssh.listen();
                if error.kind() == io::ErrorKind::TimedOut {
                    break;
                }
                self.clock.pause(Duration::from_millis(5));
            }
            ssh.listen();
            if !ssh.words.trim().is_empty() && error.kind() != io::ErrorKind::TimedOut {
                return transport::refused(&self.place, &ssh.words);
            }
        }
        transport::cut(&self.place, error)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Ends::Ssh(mut ssh) = std::mem::replace(&mut self.ends, Ends::Gone) else { return };
        ssh.to = None;
        if matches!(ssh.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // It ends when the server's end has tidied up, and nobody has to wait for that. What the server runs isn't ended
        // by this.
        let clock = self.clock.clone();
        let see_it_end = move || {
            let until = clock.boot_ms() + clock::millis(ENDS_WITHIN);
            while clock.boot_ms() < until {
                match ssh.child.try_wait() {
                    Ok(None) => clock.pause(Duration::from_millis(2)),
                    _ => return,
                }
            }
            let _ = ssh.child.kill();
            let _ = ssh.child.wait();
        };
        if let Err(error) = std::thread::Builder::new().name("gitlock-ssh".to_owned()).spawn(see_it_end) {
            tracing::debug!(%error, "an ssh that ends is left to itself");
        }
    }
}
