//! Options, as `lib/` gives them: it has checked their types. Times are in milliseconds.

use std::time::Duration;

use gitlock::{Error, ErrorCode, LockRequest, Options, Result};
use napi_derive::napi;

use crate::bridge::{Outbox, Told};

/// A length of time in milliseconds.
pub(crate) fn millis(what: &str, value: Option<f64>) -> Result<Option<Duration>> {
    let refuse = |value: f64| {
        let message = format!("{what} can't be {value}; give milliseconds, 0 or more");
        Error::new(ErrorCode::InvalidArgument, message)
    };
    value.map(|value| Duration::try_from_secs_f64(value / 1_000.0).map_err(|_| refuse(value))).transpose()
}

/// What is left of a time, in milliseconds.
pub(crate) fn as_millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// How a lock is acquired.
#[napi(object, object_to_js = false)]
pub struct AcquireOptions {
    pub shared: Option<bool>,
    pub priority: Option<i32>,
    pub ttl: Option<f64>,
    pub wait: Option<f64>,
    pub max_hold: Option<f64>,
    pub renew: Option<bool>,
    pub owner: Option<String>,
    pub fingerprint: Option<String>,
    pub reason: Option<String>,
    pub slots: Option<u32>,
    pub within: Option<String>,
    pub reentrant: Option<bool>,
    pub process_group: Option<u32>,
    /// The listener to tell of the wait.
    pub on_wait: Option<u32>,
}

impl AcquireOptions {
    /// Puts them into a request.
    pub(crate) fn apply<'a>(self, outbox: &Outbox, mut request: LockRequest<'a>) -> Result<LockRequest<'a>> {
        request = request.set(gitlock::AcquireOptions {
            shared: self.shared == Some(true),
            priority: self.priority.unwrap_or_default(),
            ttl: millis("ttl", self.ttl)?,
            wait: millis("wait", self.wait)?,
            max_hold: millis("maxHold", self.max_hold)?,
            renew: self.renew,
            owner: self.owner,
            fingerprint: self.fingerprint,
            reason: self.reason,
            slots: self.slots,
            within: self.within,
            reentrant: self.reentrant == Some(true),
            process_group: self.process_group,
        })?;
        if let Some(listener) = self.on_wait {
            let outbox = outbox.clone();
            request = request.on_wait(move |progress| {
                let news = format!("[{},{}]", progress.ahead, gitlock::json::status(&progress.status));
                outbox.tell(listener, Ok(Told::Text(news)));
            });
        }
        Ok(request)
    }
}

/// How a manager works.
#[napi(object, object_to_js = false)]
pub struct ManagerOptions {
    pub lock_prefix: Option<String>,
    pub owner: Option<String>,
    pub keep: Option<u32>,
    pub durable: Option<bool>,
    pub stale_lock_age: Option<f64>,
    pub max_clock_skew: Option<f64>,
    pub claim_window: Option<f64>,
    pub poll_interval: Option<f64>,
    pub lock_timeout: Option<f64>,
    pub sweep_grace: Option<f64>,
    pub environment: Option<bool>,
    pub remote: Option<String>,
    pub remote_timeout: Option<f64>,
}

impl ManagerOptions {
    /// As the core wants them.
    pub(crate) fn into_core(self) -> Result<Options> {
        let mut options = Options::default();
        (options.lock_prefix, options.owner, options.keep) = (self.lock_prefix, self.owner, self.keep);
        (options.durable, options.environment) = (self.durable, self.environment == Some(true));
        options.remote = self.remote;
        if self.keep == Some(0) {
            let message = "keep can't be 0; give at least 1, or leave it out for the default";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        options.stale_lock_age = millis("staleLockAge", self.stale_lock_age)?;
        options.max_clock_skew = millis("maxClockSkew", self.max_clock_skew)?;
        let or = |what, value, default| millis(what, value).map(|value| value.unwrap_or(default));
        options.claim_window = or("claimWindow", self.claim_window, options.claim_window)?;
        options.poll_interval = or("pollInterval", self.poll_interval, options.poll_interval)?;
        options.lock_timeout = or("lockTimeout", self.lock_timeout, options.lock_timeout)?;
        options.remote_timeout = or("remoteTimeout", self.remote_timeout, options.remote_timeout)?;
        options.sweep_grace = or("sweepGrace", self.sweep_grace, options.sweep_grace)?;
        Ok(options)
    }
}
