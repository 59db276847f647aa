//! Calls into Python from the core's background thread.
//!
//! That thread renews leases, so it must never wait for the interpreter's lock, which a long
//! computation may hold for seconds. Another thread does: one for each process.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use pyo3::{prelude::*, types::PyTuple};

type Message = Box<dyn FnOnce(Python<'_>) + Send>;

/// The thread's mailbox, and the process that it belongs to: a forked child has only the mailbox.
static MAILBOX: Mutex<Option<(u32, mpsc::Sender<Message>)>> = Mutex::new(None);

/// Has this called with the interpreter's lock held, later, in the order of the calls.
pub(crate) fn send(message: impl FnOnce(Python<'_>) + Send + 'static) {
    let mut mailbox = MAILBOX.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    let mut message: Message = Box::new(message);
    if let Some((_, sender)) = mailbox.as_ref().filter(|(of, _)| *of == process) {
        match sender.send(message) {
            Ok(()) => return,
            Err(mpsc::SendError(back)) => message = back,
        }
    }
    let (sender, receiver) = mpsc::channel::<Message>();
    let deliver = move || {
        for message in receiver {
            // `None` while the interpreter ends, when nobody listens any more.
            if Python::try_attach(message).is_none() {
                return;
            }
        }
    };
    if thread::Builder::new().name("gitlock-py".to_owned()).spawn(deliver).is_ok() && sender.send(message).is_ok() {
        *mailbox = Some((process, sender));
    }
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
