//! What a fork must not break.
//!
//! A forked child inherits every descriptor. If it inherited a `.lock` file in the middle of a
//! transaction, it would keep the flock on it after the parent died, and nobody could break the
//! stale file. So a fork waits for the transactions of this process, which take microseconds.
//! And it counts generations, so that managers and guards know that they are the parent's.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        Once,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::clock::{Clock, SystemClock};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static FORKING: AtomicUsize = AtomicUsize::new(0);
static RUNNING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How many of the running ones are this thread's.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// How often this process's memory has been through a fork.
pub(crate) fn generation() -> u64 {
    install();
    GENERATION.load(SeqCst)
}

fn install() {
    static INSTALL: Once = Once::new();
    // SAFETY: the handlers are plain functions that touch atomics, and a thread-local that needs no set-up.
    INSTALL.call_once(|| unsafe {
        libc::pthread_atfork(Some(prepare), Some(parent), Some(child));
    });
}

/// While this lives, no fork happens. It stays in its thread.
pub(crate) struct NoFork(PhantomData<*const ()>);

impl NoFork {
    /// Waits for a fork that is under way, unless that waits for this very thread.
    pub(crate) fn enter() -> NoFork {
        install();
        let outermost = DEPTH.get() == 0;
        loop {
            RUNNING.fetch_add(1, SeqCst);
            if !outermost || FORKING.load(SeqCst) == 0 {
                DEPTH.set(DEPTH.get() + 1);
                return NoFork(PhantomData);
            }
            RUNNING.fetch_sub(1, SeqCst);
            SystemClock.pause(Duration::from_micros(50));
        }
    }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, SeqCst);
        DEPTH.set(DEPTH.get() - 1);
    }
}

extern "C" fn prepare() {
    FORKING.fetch_add(1, SeqCst);
    // A transaction that hangs on a dead disk must not hang the fork for ever: after five seconds
    // the child gets a descriptor that may keep one `.lock` file looking alive.
    for _ in 0..100_000 {
        if RUNNING.load(SeqCst) == 0 {
            return;
        }
        SystemClock.pause(Duration::from_micros(50));
    }
}

extern "C" fn parent() {
    FORKING.fetch_sub(1, SeqCst);
}

extern "C" fn child() {
    FORKING.store(0, SeqCst);
    // The other threads are the parent's.
    RUNNING.store(DEPTH.get(), SeqCst);
    GENERATION.fetch_add(1, SeqCst);
}
