//! A proxy that is a long line to a server of this machine: it delays what passes, counts the round
//! trips, and can hold back what a client sends while the client is stopped.

use std::{
    fmt,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

/// A proxy that goes away with this.
pub struct Link {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How long everything takes, in each direction.
    delay: Duration,
    trips: AtomicU64,
    connections: AtomicU64,
    over: AtomicBool,
    /// What holds back what holds this text.
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    text: Option<Vec<u8>>,
    /// Whether something is being held back.
    holds: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Link {
    /// Starts one before a server of this machine. `delay`: of each direction, half of a round trip.
    pub fn start(server: u16, delay: Duration) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let shared = Arc::new(Shared { delay, ..Shared::default() });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if theirs.over.load(SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                theirs.connections.fetch_add(1, SeqCst);
                let turn = Arc::new(AtomicBool::new(false));
                for (upward, from, to) in [(true, &client, &server), (false, &server, &client)] {
                    let ends = [from, to].map(|end| end.try_clone().expect("a descriptor"));
                    carry(&theirs, upward, &turn, ends);
                }
            }
        });
        Link { port, shared }
    }

    /// How many round trips there were until now: what a client sends at once, and is answered. To connect is one more.
    pub fn trips(&self) -> u64 {
        self.shared.trips.load(SeqCst)
    }

    /// How many connections there were until now.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }

    /// Holds back the next thing with this text in it that a client sends.
    pub fn hold(&self, text: &str) {
        *self.held() = Held { text: Some(text.as_bytes().to_vec()), holds: false };
    }

    /// Waits until something is held back; `false` if nothing is in this time.
    pub fn wait_until_held(&self, time: Duration) -> bool {
        let waited = self.shared.changed.wait_timeout_while(self.held(), time, |held| !held.holds);
        waited.unwrap_or_else(PoisonError::into_inner).0.holds
    }

    /// Lets go of what is held back, and holds back nothing more.
    pub fn let_go(&self) {
        *self.held() = Held::default();
        self.shared.changed.notify_all();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        self.let_go();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    /// Waits as long as this is to be held back.
    fn pass(&self, bytes: &[u8]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = held.text.as_ref().filter(|_| !held.holds) else { return };
        if !bytes.windows(text.len()).any(|part| part == text.as_slice()) {
            return;
        }
        held.holds = true;
        self.changed.notify_all();
        let _held = self.changed.wait_while(held, |held| held.holds).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Carries one direction on two threads, so that what is under way doesn't wait for what is before it.
#[allow(clippy::disallowed_methods)] // what takes its time
fn carry(shared: &Arc<Shared>, upward: bool, turn: &Arc<AtomicBool>, [mut from, mut to]: [TcpStream; 2]) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (delay, sharing, turn) = (shared.delay, shared.clone(), turn.clone());
    std::thread::spawn(move || {
        let mut buffer = [0; 64 << 10];
        while let Ok(count) = from.read(&mut buffer) {
            // The first thing that the server says after a client's words ends a round trip.
            if upward && count > 0 {
                turn.store(true, SeqCst);
            } else if !upward && count > 0 && turn.swap(false, SeqCst) {
                sharing.trips.fetch_add(1, SeqCst);
            }
            if upward {
                sharing.pass(&buffer[..count]);
            }
            if send.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() || count == 0 {
                return;
            }
        }
        let _ = send.send((Instant::now() + delay, Vec::new()));
    });
    std::thread::spawn(move || {
        for (due, bytes) in receive {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
