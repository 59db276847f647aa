//! `git lock run`: a command under a lock.

mod child;
pub(crate) mod guardian;
mod held;
mod lease;
mod terminal;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use gitlock::{
    CancelToken, ErrorCode, LockManager, LockRequest, Repositories,
    clock::{Clock, SystemClock},
};
use libc::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU};
use serde_json::json;

use crate::{
    args::{Global, Run},
    commands::Exit,
    failure::Failure,
    output, request,
    signals::{self, ENDING, Interrupt},
};

use child::{Change, Job};
use guardian::Guardian;
use held::Held;
use lease::{Lease, Verdict};
use terminal::Terminal;

/// What is passed on to the command.
const FORWARDED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, libc::SIGUSR1, libc::SIGUSR2, SIGTSTP];

/// How long a killed group may take to be gone before the lock is left to its lease.
const GONE_WITHIN: u64 = 5_000;

/// What a run is told.
enum Event {
    Signal(i32),
    Lost(String),
}

/// Where a run's lock is.
pub(crate) enum Place {
    One(LockManager),
    /// In several repositories; whether a majority is enough.
    Several(Repositories, bool),
}

impl Place {
    /// Opens every remote of the command line.
    pub(crate) fn several(global: &Global, asked: &Run) -> Result<Place, Failure> {
        if asked.request.slots.is_some() || asked.request.fingerprint.is_some() {
            return Err(Failure::usage("--slots and --fingerprint go with one --remote only"));
        }
        let managers = global.remote.iter().map(|remote| crate::open(global, Some(remote)));
        Ok(Place::Several(Repositories::new(managers.collect::<Result<Vec<_>, _>>()?)?, asked.quorum))
    }

    fn acquire(
        &self,
        asked: &Run,
        cancel: &CancelToken,
        prepare: impl FnOnce(LockRequest<'_>) -> LockRequest<'_>,
    ) -> Result<Held, Failure> {
        match self {
            Place::One(manager) => {
                request::acquire(manager, &asked.name, &asked.request, cancel, prepare).map(Held::One)
            }
            Place::Several(all, quorum) => {
                let request = if *quorum {
                    all.quorum(&asked.name)
                } else {
                    all.all(&request::names(&asked.name, &asked.request))
                };
                request::acquire_in_several(request, &asked.name, &asked.request, cancel, prepare).map(Held::Several)
            }
        }
    }

    fn close(&self) {
        match self {
            Place::One(manager) => manager.close(),
            Place::Several(all, _) => all.managers().iter().for_each(LockManager::close),
        }
    }
}

/// Runs the command of the command line under its lock.
pub(crate) fn run(place: &Place, asked: &Run, json: bool) -> Exit {
    let mut guardian = Guardian::start()?;
    let (sender, events) = channel();
    let (interrupt, waiting) = (Interrupt::default(), Arc::new(AtomicBool::new(true)));
    listen(&guardian, &sender, &interrupt, &waiting)?;
    let acquired = place.acquire(asked, interrupt.token(), |mut request| {
        // With a fingerprint the tenure outlives a killed run until its lease ends; it is renewed all the same.
        request = request.process_group(guardian.group()).renew(true);
        if let Some(word) = &asked.request.fingerprint {
            request = request.fingerprint(word);
        }
        match asked.max_hold {
            Some(max) => request.max_hold(max),
            None => request,
        }
    });
    waiting.store(false, SeqCst);
    let ended = interrupt.failure(&asked.name).or_else(|| guardian.has_ended().then(no_guardian));
    let guard = match (acquired, ended) {
        (Ok(guard), None) => guard,
        (Ok(guard), Some(failure)) => {
            guard.release()?;
            return Err(failure);
        }
        (Err(_), Some(failure)) | (Err(failure), None) => {
            guardian.dismiss();
            return Err(failure);
        }
    };
    // What came while there was no command to tell. What came to end it came after the wait.
    for event in events.try_iter() {
        if let Event::Signal(signal) = event
            && ENDING.contains(&signal)
        {
            guard.release()?;
            guardian.dismiss();
            return Err(signals::ended(&asked.name, signal));
        }
    }
    let lost = sender.clone();
    guard.on_lost(move |why| {
        let _ = lost.send(Event::Lost(why));
    });
    let lease = Lease::new(&guard, asked.max_hold);
    guardian.tell(lease.deadline());
    let terminal = Terminal::of(guardian.group());
    if let Some(terminal) = &terminal {
        terminal.offer();
    }
    let job = match Job::start(asked, &guard, guardian.group()) {
        Ok(job) => job,
        Err(failure) => {
            if let Some(terminal) = &terminal {
                terminal.take_back();
            }
            guard.release()?;
            let failure = if guardian.has_ended() { no_guardian() } else { failure };
            guardian.dismiss();
            return Err(failure);
        }
    };
    let held = guard.told();
    let result = Supervisor { guard, guardian, job, terminal, lease, ending: Ending::No }.supervise(&events);
    place.close();
    let exit = result?;
    if json {
        output::tell(&json!({ "run": held, "exitCode": exit }).to_string());
    }
    Ok(exit)
}

/// Hears of signals, for the wait as long as there is one, and for the command after that.
fn listen(
    guardian: &Guardian,
    sender: &Sender<Event>,
    interrupt: &Interrupt,
    waiting: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let (interrupt, waiting, sender) = (interrupt.clone(), waiting.clone(), sender.clone());
    let guardian_has_ended = guardian.watcher();
    let mut heard = signals::heeded(&FORWARDED);
    heard.extend([SIGCHLD, SIGCONT]);
    signals::listen(&heard, move |signal| {
        if waiting.load(SeqCst) {
            match signal {
                SIGCHLD if guardian_has_ended() => interrupt.token().cancel(),
                SIGTSTP => terminal::stop(false),
                _ if ENDING.contains(&signal) => interrupt.by(signal),
                _ => {}
            }
        }
        // The run may end at any moment, and then nobody listens.
        let _ = sender.send(Event::Signal(signal));
    })
}

fn no_guardian() -> Failure {
    let message = "the guardian of the command was killed; the command is not run without one";
    Failure::new(ErrorCode::Io, message)
}

/// How a run that goes on comes to its end.
enum Ending {
    /// By itself.
    No,
    /// The command was asked to stop, because of this.
    Asked(Failure),
    /// The command's group was killed, because of this.
    Killed(Failure),
}

struct Supervisor {
    guard: Held,
    guardian: Guardian,
    job: Job,
    terminal: Option<Terminal>,
    lease: Lease,
    ending: Ending,
}

impl Supervisor {
    fn supervise(mut self, events: &Receiver<Event>) -> Exit {
        loop {
            match self.job.change() {
                Some(Change::Stopped(signal)) => self.stopped(signal),
                Some(ended) => return self.ended(ended),
                None => {}
            }
            if self.guardian.has_ended() {
                let failure = if self.lease.is_over(&self.guard) {
                    lost("its lease ran out before it could be renewed")
                } else {
                    no_guardian()
                };
                self.kill(failure);
            }
            match self.lease.look(&self.guard) {
                Verdict::Fine => {}
                Verdict::RunningOut => self.ask(lost(
                    "its lease is running out and can't be renewed, so the command was stopped while it was still held",
                )),
                Verdict::HeldTooLong => {
                    self.ask(lost("it was held for as long as --max-hold allows, so the command was stopped"));
                }
            }
            self.guardian.tell(self.lease.deadline());
            match events.recv_timeout(self.lease.next_look()) {
                Ok(Event::Signal(SIGCHLD)) | Err(_) => {}
                Ok(Event::Signal(SIGCONT)) => self.go_on(),
                Ok(Event::Signal(signal)) => self.guardian.signal_group(signal),
                Ok(Event::Lost(why)) => self.kill(Failure::new(ErrorCode::LockLost, why)),
            }
        }
    }

    /// Asks the command to stop while there is time.
    fn ask(&mut self, why: Failure) {
        if let Ending::No = self.ending {
            self.ending = Ending::Asked(why);
            self.guardian.signal_group(SIGTERM);
            // What is stopped could not end.
            self.guardian.signal_group(SIGCONT);
        }
    }

    /// Kills the group, the guardian with it.
    fn kill(&mut self, why: Failure) {
        if !matches!(self.ending, Ending::Killed(_)) {
            self.ending = Ending::Killed(why);
            self.guardian.signal_group(SIGKILL);
        }
    }

    /// The command was stopped. At a terminal this job stops with it, so that the shell sees it.
    fn stopped(&mut self, signal: i32) {
        let Some(terminal) = &self.terminal else { return };
        if matches!(signal, SIGTTIN | SIGTTOU) && terminal.give() {
            // It only waited for the terminal.
            self.guardian.signal_group(SIGCONT);
            return;
        }
        let by_hand = !matches!(signal, SIGTSTP | SIGTTIN | SIGTTOU);
        if !terminal.take_back() && by_hand {
            // Not this job's doing, and in nobody's way: the lock is held on.
            return;
        }
        // Whoever is stopped can't renew: the pause begins with a whole lease.
        if self.guard.extend().is_ok() {
            let _ = self.lease.look(&self.guard);
            self.guardian.tell(self.lease.deadline());
        }
        terminal::stop(true);
        // Also where nobody could continue this job, so that it didn't stop.
        self.go_on();
    }

    /// After a pause of this process: the command goes on only if the lock is still held.
    fn go_on(&mut self) {
        if let Err(error) = self.guard.extend()
            && self.guard.is_lost()
        {
            self.kill(error.into());
            return;
        }
        let _ = self.lease.look(&self.guard);
        self.guardian.tell(self.lease.deadline());
        if let Some(terminal) = &self.terminal {
            terminal.offer();
        }
        self.guardian.signal_group(SIGCONT);
    }

    /// The command has ended.
    fn ended(self, change: Change) -> Exit {
        let Supervisor { guard, guardian, terminal, lease, ending, .. } = self;
        if let Some(terminal) = &terminal {
            terminal.take_back();
            if matches!(change, Change::Killed(_)) {
                terminal.mend();
            }
        }
        let why = match ending {
            Ending::Asked(why) | Ending::Killed(why) => Some(why),
            // The guardian's blow kills the command first.
            Ending::No if guardian.has_ended() => Some(if lease.is_over(&guard) {
                lost("its lease ran out before it could be renewed")
            } else {
                no_guardian()
            }),
            Ending::No => None,
        };
        let Some(why) = why else {
            let released = guard.release();
            guardian.dismiss();
            return match released {
                Err(error) if error.is_lost() => Err(error.into()),
                Err(error) => {
                    // The owner is about to be dead, which ends the tenure as well.
                    output::tell(&format!("git-lock: the lock could not be released: {error}"));
                    Ok(change.exit_code())
                }
                Ok(()) => Ok(change.exit_code()),
            };
        };
        // What the command has left behind must be gone before the lock is.
        guardian.signal_group(SIGKILL);
        let group = guardian.group();
        guardian.reap();
        if is_gone(group) {
            let _ = guard.release();
        } else {
            guard.detach();
        }
        Err(why)
    }
}

/// Waits until nothing of a killed group runs any more.
fn is_gone(group: u32) -> bool {
    let until = SystemClock.boot_ms() + GONE_WITHIN;
    while gitlock::process::group_works(group) {
        if SystemClock.boot_ms() >= until {
            return false;
        }
        SystemClock.pause(Duration::from_millis(2));
    }
    true
}

fn lost(why: &str) -> Failure {
    Failure::new(ErrorCode::LockLost, format!("the lock is lost: {why}"))
}
