//! A proxy that cuts a connection after so many bytes, once, and passes everything else.

use std::{
    fmt,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which connection from now on, from 0.
    pub connection: usize,
    /// In what the client sends, or in what the server answers.
    pub upward: bool,
    /// After how many bytes of it.
    pub after: usize,
}

/// A proxy that goes away with this.
pub struct Cutter {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    plan: Option<Cut>,
    /// Connections in the order in which they were used since the plan was made, and what went up and
    /// down on each. One that is kept is counted anew.
    seen: Vec<(usize, [usize; 2])>,
}

impl State {
    /// Counts bytes that want to pass. Returns how many may, and whether the connection is cut then.
    fn pass(&mut self, number: usize, upward: bool, count: usize) -> (usize, bool) {
        let at = self.seen.iter().position(|(other, _)| *other == number).unwrap_or_else(|| {
            self.seen.push((number, [0, 0]));
            self.seen.len() - 1
        });
        let passed = &mut self.seen[at].1[usize::from(!upward)];
        let cut = self.plan.filter(|cut| cut.connection == at && cut.upward == upward);
        let may = cut.map_or(count, |cut| count.min(cut.after.saturating_sub(*passed)));
        *passed += may;
        if may < count {
            self.plan = None;
        }
        (may, may < count)
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutter").field("port", &self.port).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cutter {
    /// Starts one before a server of this machine.
    pub fn start(server: u16) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        std::thread::spawn(move || {
            let mut number = 0;
            for client in listener.incoming().flatten() {
                if theirs.over.load(SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                number += 1;
                for (upward, from, to) in [(true, &client, &server), (false, &server, &client)] {
                    let ends = [from, to].map(|end| end.try_clone().expect("a descriptor"));
                    let shared = theirs.clone();
                    std::thread::spawn(move || pass(&shared, number, upward, &ends));
                }
            }
        });
        Cutter { port, shared }
    }

    /// Cuts there, and begins to count anew; `None`: nowhere.
    pub fn plan(&self, cut: Option<Cut>) {
        let mut state = lock(&self.shared.state);
        state.seen.clear();
        state.plan = cut;
    }

    /// Whether the cut that was planned was made.
    pub fn has_cut(&self) -> bool {
        lock(&self.shared.state).plan.is_none()
    }

    /// How many bytes went up and down on each connection since the plan was made.
    pub fn seen(&self) -> Vec<[usize; 2]> {
        lock(&self.shared.state).seen.iter().map(|(_, counts)| *counts).collect()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn pass(shared: &Shared, number: usize, upward: bool, [from, to]: &[TcpStream; 2]) {
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match { from }.read(&mut buffer) {
            Ok(count) if count > 0 => count,
            _ => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        };
        let (may, cut) = lock(&shared.state).pass(number, upward, count);
        if { to }.write_all(&buffer[..may]).is_err() {
            return;
        }
        if cut {
            return end(from, to);
        }
    }
}

fn end(from: &TcpStream, to: &TcpStream) {
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}
