//! gitlock for Node: the part in Rust. It converts, and decides nothing.
//!
//! `lib/` gives it the shape of JavaScript: promises, signals, events.

// The macros of Node-API make items of their own.
#![allow(missing_docs, unreachable_pub)]

mod bridge;
mod errors;
mod guard;
mod manager;
mod multi;
mod options;
mod pool;

use gitlock::LockHandle;
use napi_derive::napi;

use errors::now;

/// The session of this thread, which everybody's session here begins with.
#[napi]
pub fn thread_owner() -> String {
    gitlock::process::thread_owner()
}

/// The handle of a tenure that was acquired with a fingerprint.
#[napi]
pub fn handle_by_fingerprint(name: String, fingerprint: String) -> napi::Result<String> {
    now(|| Ok(LockHandle::by_fingerprint(&name, &fingerprint)?.to_string()))
}

/// What a handle says of its tenure.
#[napi(object, object_from_js = false)]
pub struct HandleParts {
    pub names: Vec<String>,
    pub id: Option<String>,
    /// Below 2^53.
    pub token: Option<f64>,
}

/// Takes a handle apart.
#[napi]
pub fn describe_handle(handle: String) -> napi::Result<HandleParts> {
    now(|| {
        let handle: LockHandle = handle.parse()?;
        let names = handle.names().iter().map(|name| name.as_str().to_owned()).collect();
        Ok(HandleParts { names, id: handle.id().map(str::to_owned), token: handle.token().map(|token| token as f64) })
    })
}
