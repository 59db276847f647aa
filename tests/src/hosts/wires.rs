//! Wires as a program: two network devices, and a thread that carries frames from one to the other, and when it is told
//! to loses some, delays the rest, and puts them out of order. Few kernels in containers have netem, which does that.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd},
    os::unix::fs::OpenOptionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::torture::{Random, millis};

/// What is said to the kernel to make a device that a program is the other end of, from `linux/if_tun.h`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;

/// The largest frame, in bytes.
const FRAME: usize = 2_048;

/// A wire, until it is dropped.
#[derive(Debug)]
pub(super) struct Wire {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    bad: AtomicBool,
    stop: AtomicBool,
    lost: AtomicU64,
    late: AtomicU64,
    overtaken: AtomicU64,
}

/// What a wire did to frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// It lost them.
    pub(super) lost: u64,
    /// It delayed them.
    pub(super) late: u64,
    /// It delivered them after others that had come later.
    pub(super) overtaken: u64,
}

impl Wire {
    /// Makes the devices of these names, one at each end. They are gone with the wire.
    pub(super) fn new(ends: [&str; 2], seed: u64) -> io::Result<Wire> {
        let [near, far] = ends;
        let devices = [device(near)?, device(far)?];
        let state = Arc::new(State::default());
        let theirs = state.clone();
        let carry =
            move || Carrier { devices, state: theirs, random: Random::new(seed), number: 0, last: [0; 2] }.carry();
        Ok(Wire { thread: Some(thread::Builder::new().name("wire".to_owned()).spawn(carry)?), state })
    }

    /// A tenth is lost, and of the rest seven of ten are 20 to 100 ms late, so that the others overtake them.
    pub(super) fn go_bad(&self, bad: bool) {
        self.state.bad.store(bad, SeqCst);
    }

    pub(super) fn carried(&self) -> Carried {
        let State { lost, late, overtaken, .. } = &*self.state;
        Carried { lost: lost.load(SeqCst), late: late.load(SeqCst), overtaken: overtaken.load(SeqCst) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Makes a device of this name.
fn device(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI;
    // SAFETY: the descriptor is open, and the request is one that this call reads and writes.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// A frame on its way: when it is due, which one it is, where it goes, and what it is.
type Frame = Reverse<(u64, u64, usize, Vec<u8>)>;

struct Carrier {
    devices: [File; 2],
    state: Arc<State>,
    random: Random,
    /// How many have come.
    number: u64,
    /// The newest that was delivered, by where it went.
    last: [u64; 2],
}

impl Carrier {
    fn carry(mut self) {
        let mut waiting: BinaryHeap<Frame> = BinaryHeap::new();
        while !self.state.stop.load(SeqCst) {
            let until = waiting.peek().map_or(50, |Reverse((due, ..))| due.saturating_sub(millis())).min(50);
            let ready = self.wait(until);
            for from in (0..2).filter(|from| ready[*from]) {
                self.take(from, &mut waiting);
            }
            while waiting.peek().is_some_and(|Reverse((due, ..))| *due <= millis()) {
                if let Some(Reverse((_, number, to, frame))) = waiting.pop() {
                    self.deliver(number, to, &frame);
                }
            }
        }
    }

    fn wait(&self, time: u64) -> [bool; 2] {
        let mut polled = self.devices.each_ref().map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN));
        let time = Timespec { tv_sec: 0, tv_nsec: i64::try_from(time).unwrap_or(0) * 1_000_000 };
        match poll(&mut polled, Some(&time)) {
            Ok(_) => polled.each_ref().map(|end| end.revents().contains(PollFlags::IN)),
            Err(_) => [false; 2],
        }
    }

    /// Takes what has come at one end.
    fn take(&mut self, from: usize, waiting: &mut BinaryHeap<Frame>) {
        let mut buffer = [0; FRAME];
        while let Ok(length) = self.devices[from].read(&mut buffer) {
            self.number += 1;
            let mut due = 0;
            if self.state.bad.load(SeqCst) {
                match self.random.below(100) {
                    0..10 => {
                        self.state.lost.fetch_add(1, SeqCst);
                        continue;
                    }
                    10..73 => {
                        self.state.late.fetch_add(1, SeqCst);
                        due = millis() + 20 + self.random.below(81);
                    }
                    _ => {}
                }
            }
            waiting.push(Reverse((due, self.number, 1 - from, buffer[..length].to_vec())));
        }
    }

    fn deliver(&mut self, number: u64, to: usize, frame: &[u8]) {
        if number < self.last[to] {
            self.state.overtaken.fetch_add(1, SeqCst);
        }
        self.last[to] = self.last[to].max(number);
        // A device that is down takes none.
        let _ = self.devices[to].write(frame);
    }
}
