//! Talks over a stream of bytes: a socket, or the pipes of an ssh; and `git://`, which is the former.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, ChildStderr},
    sync::Arc,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
    store::git_process::program::send,
};

use super::{
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
        let mut stream = Stream::over_socket(socket, deadline, self.clock.clone(), place);
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
pub(super) struct Stream {
    ends: Ends,
    deadline: u64,
    clock: Arc<dyn Clock>,
    place: String,
    /// Whether it was begun before it was asked for.
    waiting: bool,
    /// What is to be done while the other end works on what it was asked.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Stream {
    /// Over an ssh that was just started.
    pub(super) fn over_ssh(child: Child, to: OwnedFd, deadline: u64, clock: Arc<dyn Clock>, place: String) -> Stream {
        let ssh = Box::new(SshChild { child, to: Some(to), words: String::new() });
        Stream { ends: Ends::Ssh(ssh), deadline, clock, place, waiting: false, meanwhile: None }
    }

    /// Does this while the other end works on what it is asked.
    pub(super) fn meanwhile(&mut self, run: impl FnOnce() + Send + 'static) {
        self.meanwhile = Some(Box::new(run));
    }

    fn over_socket(socket: TcpStream, deadline: u64, clock: Arc<dyn Clock>, place: String) -> Stream {
        Stream { ends: Ends::Socket(socket), deadline, clock, place, waiting: false, meanwhile: None }
    }

    /// Goes on with one that was begun before. Returns whether its other end is there as far as can be told.
    pub(super) fn goes_on(&mut self, deadline: u64) -> bool {
        (self.deadline, self.waiting) = (deadline, true);
        match &mut self.ends {
            Ends::Ssh(ssh) => matches!(ssh.child.try_wait(), Ok(None)),
            Ends::Socket(_) => true,
            Ends::Gone => false,
        }
    }

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

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("place", &self.place).field("ends", &self.ends).finish_non_exhaustive()
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
        self.meanwhile.take().into_iter().for_each(|run| run());
        Ok(self)
    }

    fn close(&mut self) {
        // So that the server isn't left with a client that went away without a word.
        let _ = self.write_all(pkt::FLUSH);
    }

    fn was_waiting(&self) -> bool {
        self.waiting
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
