//! Noticing changes where nothing tells of them: by asking for one prefix of refs, however many wait. The
//! pauses are short after a change and grow while nothing changes, each a little different, so that many
//! machines don't ask all at once.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
};

use super::{Changes, Oid, Watch};

/// The shortest pause between two questions, in milliseconds; longer where a question takes long.
const SHORTEST: u64 = 100;

/// Asks what is below the prefix.
pub(super) type Ask = Box<dyn Fn() -> Result<Vec<(String, Oid)>> + Send>;

struct PollWatch {
    changes: Arc<Mutex<Changes>>,
    ahead: Arc<AtomicU64>,
    readable: Arc<OwnedFd>,
    /// Closed with this: the thread sees that, and ends.
    _stop: OwnedFd,
}

struct Poller {
    ask: Ask,
    clock: Arc<dyn Clock>,
    /// The longest pause between two questions, in milliseconds.
    longest: u64,
    prefix: String,
    changes: Arc<Mutex<Changes>>,
    /// How many are before everybody here.
    ahead: Arc<AtomicU64>,
    signal: OwnedFd,
    /// So that somebody can read what is written, also when nobody watches any more: SIGPIPE would end a program.
    _readable: Arc<OwnedFd>,
    stopped: OwnedFd,
}

fn lock(changes: &Mutex<Changes>) -> MutexGuard<'_, Changes> {
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to ask for what is below `prefix`, on a thread of its own.
pub(super) fn start(
    ask: Ask,
    clock: Arc<dyn Clock>,
    longest: Duration,
    prefix: &str,
    place: &str,
) -> Result<Box<dyn Watch>> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK);
    let failed = |error: std::io::Error| Error::new(ErrorCode::Io, format!("{place} can't be watched: {error}"));
    let (readable, signal) = pipe().map_err(|error| failed(error.into()))?;
    let readable = Arc::new(readable);
    let (stopped, stop) = pipe().map_err(|error| failed(error.into()))?;
    let (changes, ahead) = (Arc::new(Mutex::default()), Arc::new(AtomicU64::new(0)));
    let longest = clock::millis(longest).max(SHORTEST);
    let (prefix, news, before) = (format!("{prefix}/"), changes.clone(), ahead.clone());
    let _readable = readable.clone();
    let poller = Poller { ask, clock, longest, prefix, changes: news, ahead: before, signal, _readable, stopped };
    std::thread::Builder::new().name("gitlock-poll".to_owned()).spawn(move || poller.run()).map_err(failed)?;
    Ok(Box::new(PollWatch { changes, ahead, readable, _stop: stop }))
}

impl Poller {
    fn run(self) {
        let mut before: Option<BTreeMap<String, Oid>> = None;
        let mut pause = SHORTEST;
        loop {
            let began = self.clock.boot_ms();
            match (self.ask)() {
                Ok(refs) => {
                    let now: BTreeMap<String, Oid> = refs.into_iter().collect();
                    let changed = before.as_ref().is_none_or(|before| *before != now);
                    if changed {
                        self.tell(before.as_ref(), &now);
                    }
                    // Whoever is far back in a queue has time until those before it have had their turns. So
                    // a queue of any length costs a server little more than one that is short.
                    let soon = SHORTEST.saturating_mul(1 + self.ahead.load(Relaxed)).min(self.longest);
                    pause = if changed { soon } else { (pause * 3 / 2).min(self.longest) };
                    before = Some(now);
                }
                Err(error) => {
                    tracing::debug!(%error, "the server can't be asked for changes");
                    pause = (pause * 2).min(self.longest);
                }
            }
            // A server that takes long is asked less often.
            let took = self.clock.boot_ms().saturating_sub(began);
            let spread = uuid::Uuid::new_v4().as_u64_pair().0 % (pause / 2 + 1);
            if self.sleep(pause.max(2 * took).min(self.longest.max(took)) * 3 / 4 + spread) {
                return;
            }
        }
    }

    fn tell(&self, before: Option<&BTreeMap<String, Oid>>, now: &BTreeMap<String, Oid>) {
        let mut changes = lock(&self.changes);
        match before {
            // What changed before the first look, nobody knows.
            None => changes.all = true,
            Some(before) => {
                let differs =
                    |(name, id): &(&String, &Oid), other: &BTreeMap<String, Oid>| other.get(*name) != Some(*id);
                let names = now
                    .iter()
                    .filter(|entry| differs(entry, before))
                    .chain(before.iter().filter(|entry| differs(entry, now)));
                changes.names.extend(names.filter_map(|(name, _)| name.strip_prefix(&self.prefix)).map(str::to_owned));
            }
        }
        // A full pipe is a signal that hasn't been read yet.
        let _ = rustix::io::write(&self.signal, &[1]);
    }

    /// Sleeps; `true` if nobody watches any more.
    fn sleep(&self, millis: u64) -> bool {
        let timeout = Timespec {
            tv_sec: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
        };
        let mut polled = [PollFd::new(&self.stopped, PollFlags::IN)];
        poll(&mut polled, Some(&timeout)).is_ok_and(|count| count > 0)
    }
}

impl Watch for PollWatch {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.readable.as_fd())
    }

    fn changes(&mut self) -> Changes {
        let mut drained = [0u8; 64];
        while rustix::io::read(&*self.readable, &mut drained).is_ok_and(|count| count > 0) {}
        std::mem::take(&mut *lock(&self.changes))
    }

    fn expect(&self, ahead: usize) {
        self.ahead.store(ahead as u64, Relaxed);
    }
}
