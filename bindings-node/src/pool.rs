//! Threads of the addon's own for what may wait for the disk, or for a `.lock` file: libuv's pool,
//! which the host's files and look-ups need, is left alone.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    /// How many threads it has at most.
    most: usize,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// Acquires begin here, one after the other, in the order of the calls. They never wait for others.
static ACQUIRES: Pool = Pool::new(1);

/// Everything else. One `.lock` file that somebody left behind must not hold all of it up.
static OTHERS: Pool = Pool::new(8);

/// Runs this after those that were given here before, and tells it whether others come right behind.
pub(crate) fn in_order(job: impl FnOnce(bool) + Send + 'static) {
    ACQUIRES.run(Box::new(|| job(ACQUIRES.has_more())));
}

/// Runs this beside others.
pub(crate) fn run(job: impl FnOnce() + Send + 'static) {
    OTHERS.run(Box::new(job));
}

impl Pool {
    const fn new(most: usize) -> Pool {
        let state = Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 });
        Pool { most, state, work: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_more(&self) -> bool {
        !self.lock().jobs.is_empty()
    }

    fn run(&'static self, job: Job) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads >= self.most {
            drop(state);
            self.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        if thread::Builder::new().name("gitlock-node".to_owned()).spawn(|| self.work()).is_err() {
            // No more threads are to be had. Those that there are do it, or else this one.
            let mut state = self.lock();
            state.threads -= 1;
            if state.threads == 0 {
                let jobs = std::mem::take(&mut state.jobs);
                drop(state);
                jobs.into_iter().for_each(|job| job());
            }
        }
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            match state.jobs.pop_front() {
                Some(job) => {
                    drop(state);
                    // Whoever waits for its answer was told by what the job itself caught.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                    state = self.lock();
                }
                None => {
                    state.idle += 1;
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }
}
