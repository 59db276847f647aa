//! Calls into Python from the core's background thread.
//!
//! That thread renews leases, so it must never wait for the interpreter's lock, which a long
//! computation may hold for seconds. Another thread does: one for each process.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use pyo3::{prelude::*, types::PyTuple};

type Message = Box<dyn FnOnce(Python<'_>) + Send>;

/// The thread, and the process that it belongs to: a forked child has only the rest.
struct Messenger {
    process: u32,
    mailbox: mpsc::Sender<Message>,
    thread: JoinHandle<()>,
}

static MESSENGER: Mutex<Option<Messenger>> = Mutex::new(None);

/// Set once the interpreter is about to end. A thread that calls into it after that aborts the process.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Has this called with the interpreter's lock held, later, in the order of the calls.
pub(crate) fn send(message: impl FnOnce(Python<'_>) + Send + 'static) {
    let mut messenger = MESSENGER.lock().unwrap_or_else(PoisonError::into_inner);
    if ENDED.load(SeqCst) {
        return;
    }
    let process = std::process::id();
    let mut message: Message = Box::new(message);
    if let Some(there) = messenger.as_ref().filter(|there| there.process == process) {
        match there.mailbox.send(message) {
            Ok(()) => return,
            Err(mpsc::SendError(back)) => message = back,
        }
    }
    let (mailbox, receiver) = mpsc::channel::<Message>();
    let deliver = move || {
        for message in receiver {
            // `None` while the interpreter ends, when nobody listens any more.
            if ENDED.load(SeqCst) || Python::try_attach(message).is_none() {
                return;
            }
        }
    };
    if let Ok(thread) = thread::Builder::new().name("gitlock-py".to_owned()).spawn(deliver)
        && mailbox.send(message).is_ok()
    {
        *messenger = Some(Messenger { process, mailbox, thread });
    }
}

/// Lets the call that is under way end, and makes no more. For the end of the interpreter.
#[pyfunction]
pub(crate) fn end_calls(py: Python<'_>) {
    py.detach(|| {
        ENDED.store(true, SeqCst);
        let messenger = MESSENGER.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Messenger { mailbox, thread, .. }) = messenger.filter(|there| there.process == std::process::id()) {
            drop(mailbox);
            // It has told what went wrong, if anything did.
            let _ = thread.join();
        }
    });
}

/// Calls a Python function later; what it raises is told as Python tells of what nobody can catch.
pub(crate) fn call(
    function: &Arc<Py<PyAny>>,
    arguments: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyTuple>> + Send + 'static,
) {
    let function = function.clone();
    send(move |py| {
        let function = function.bind(py);
        if let Err(error) = arguments(py).and_then(|arguments| function.call1(arguments)) {
            error.write_unraisable(py, Some(function));
        }
    });
}
