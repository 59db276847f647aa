//! Signals as values: what ends a wait, and what a run passes on.

use std::sync::{
    Arc,
    atomic::{AtomicI32, Ordering::SeqCst},
};

use gitlock::{CancelToken, ErrorCode};
use signal_hook::{
    consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};

use crate::failure::Failure;

/// The signals that end a wait.
pub(crate) const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Of these signals, those that whoever started this process doesn't have ignored, as nohup(1)
/// does with SIGHUP and a shell without job control with SIGINT in the background.
pub(crate) fn heeded(signals: &[i32]) -> Vec<i32> {
    let ignored = |signal: i32| {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null new action only asks, and `action` is valid to write to; zeroed is a valid value.
        unsafe {
            libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    };
    signals.iter().copied().filter(|signal| !ignored(*signal)).collect()
}

/// Calls `heard` on a thread of its own for each of these signals, from now on.
///
/// # Errors
/// If the handlers or the thread can't be had.
pub(crate) fn listen(signals: &[i32], mut heard: impl FnMut(i32) + Send + 'static) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(ErrorCode::Io, format!("signals can't be listened for: {error}"));
    let mut signals = Signals::new(signals).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(&mut heard))
        .map_err(failed)?;
    Ok(())
}

/// The end of a wait by a signal. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    signal: Arc<AtomicI32>,
    token: CancelToken,
}

impl Interrupt {
    /// What the request is given.
    pub(crate) fn token(&self) -> &CancelToken {
        &self.token
    }

    /// Ends the wait because of this signal. A second one ends the process: whoever sends it
    /// doesn't want to wait for a clean end.
    pub(crate) fn by(&self, signal: i32) {
        if self.signal.swap(signal, SeqCst) != 0 {
            std::process::exit(128 + signal);
        }
        self.token.cancel();
    }

    /// The failure that it was, if it was.
    pub(crate) fn failure(&self, name: &str) -> Option<Failure> {
        match self.signal.load(SeqCst) {
            0 => None,
            signal => Some(ended(name, signal)),
        }
    }
}

/// The end by a signal before the lock was put to use.
pub(crate) fn ended(name: &str, signal: i32) -> Failure {
    Failure::signal(signal, format!("the wait for the lock {name} was ended by a signal"))
}
