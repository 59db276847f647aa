//! Structs of options. They carry their size, so that they can grow.

use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    time::Duration,
};

use gitlock::{AcquireOptions, CancelToken, Error, ErrorCode, LockRequest, Options, Result, json};

use crate::{
    text::{c_string, optional},
    wait::gitlock_cancel,
};

/// A number of milliseconds, or a switch, that is left to the default.
pub const GITLOCK_DEFAULT: i64 = -1;

/// For `wait_ms`: for as long as it takes. The default.
pub const GITLOCK_FOREVER: i64 = -1;

/// Exclusive: nobody beside the holder. The default.
pub const GITLOCK_EXCLUSIVE: i32 = 0;

/// Shared: beside other shared holders.
pub const GITLOCK_SHARED: i32 = 1;

/// How a manager works. Fill it with `gitlock_options_init`, then set what is to differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gitlock_options {
    /// The size of this struct, as the caller knows it.
    pub size: usize,
    /// Where lock refs are kept. NULL: `gitlock.prefix` in the repository's configuration, else
    /// "refs/gitvan/locks".
    pub lock_prefix: *const c_char,
    /// The session that holds and waits. NULL: one for each thread.
    pub owner: *const c_char,
    /// How many ended tenures a journal keeps, at least 1. -1: `gitlock.keep`, else all.
    pub keep: i64,
    /// Whether to sync to disk: 1, 0, or -1: `gitlock.durable`, else no.
    pub durable: i64,
    /// How old one of Git's own `.lock` files must be before it counts as left behind. -1:
    /// `gitlock.staleLockAge`, else ten minutes.
    pub stale_lock_age_ms: i64,
    /// How far the wall clocks of different boots may differ. -1: `gitlock.maxClockSkew`, else 1000.
    pub max_clock_skew_ms: i64,
    /// How long a grant from the queue lasts until it is claimed. -1: 2000.
    pub claim_window_ms: i64,
    /// How often a waiter looks when nothing wakes it; at a remote the pauses grow to twice this. -1: 1000.
    pub poll_interval_ms: i64,
    /// How long to wait for a `.lock` file that another process holds. -1: 10000.
    pub lock_timeout_ms: i64,
    /// Whether GIT_DIR and its kin are heeded, as a Git command does: 1, or 0 or -1: no.
    pub environment: i64,
    /// A remote of the repository to keep the locks at: its name, such as "origin", or a URL, for which
    /// the path needn't be in a repository. NULL: `gitlock.remote`, else in the repository itself.
    pub remote: *const c_char,
    /// How long one question to the remote and its answer may take. 0 or -1: 10000.
    pub remote_timeout_ms: i64,
}

impl gitlock_options {
    const DEFAULT: gitlock_options = gitlock_options {
        size: size_of::<gitlock_options>(),
        lock_prefix: std::ptr::null(),
        owner: std::ptr::null(),
        keep: GITLOCK_DEFAULT,
        durable: GITLOCK_DEFAULT,
        stale_lock_age_ms: GITLOCK_DEFAULT,
        max_clock_skew_ms: GITLOCK_DEFAULT,
        claim_window_ms: GITLOCK_DEFAULT,
        poll_interval_ms: GITLOCK_DEFAULT,
        lock_timeout_ms: GITLOCK_DEFAULT,
        environment: GITLOCK_DEFAULT,
        remote: std::ptr::null(),
        remote_timeout_ms: 0,
    };
}

/// What is called while a wait goes on: `ahead` wait before it, and `status` is the lock as
/// `gitlock_status` gives it, valid during the call. On the manager's background thread or the
/// acquiring one; it must not block, nor unwind.
pub type gitlock_on_wait = Option<unsafe extern "C" fn(data: *mut c_void, ahead: usize, status: *const c_char)>;

/// How a lock is acquired. Fill it with `gitlock_acquire_options_init`, then set what is to differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gitlock_acquire_options {
    /// The size of this struct, as the caller knows it.
    pub size: usize,
    /// GITLOCK_EXCLUSIVE or GITLOCK_SHARED.
    pub mode: i32,
    /// Higher goes first: each step is worth 30 s of waiting. Default: 0.
    pub priority: i32,
    /// The length of the lease, from 1. -1: 30000.
    pub ttl_ms: i64,
    /// How long it may queue; 0: not at all. Default: GITLOCK_FOREVER.
    pub wait_ms: i64,
    /// For how long it is renewed at most. -1: without limit.
    pub max_hold_ms: i64,
    /// Whether the lease is renewed in the background: 1, 0, or -1: yes unless there is a fingerprint.
    pub renew: i64,
    /// The session that holds and waits. NULL: the manager's, or one for each thread.
    pub owner: *const c_char,
    /// A word of the caller's own as the right to release and extend; the tenure is then bound to its
    /// lease alone. NULL: a secret, and the tenure ends with this process.
    pub fingerprint: *const c_char,
    /// Why the lock is wanted, for whoever waits and for the journal. May be NULL.
    pub reason: *const c_char,
    /// What cancels the wait. May be NULL. It may be freed at any time.
    pub cancel: *const gitlock_cancel,
    /// Called when the wait begins, and whenever what it waits for changes. May be NULL.
    pub on_wait: gitlock_on_wait,
    /// Handed to `on_wait`. It must be valid until the acquire has ended.
    pub on_wait_data: *mut c_void,
    /// One of so many slots, 1 to 1024, instead of the whole lock; everybody has to say the same
    /// number, or hears GITLOCK_SLOTS_DIFFER. 0: the whole lock.
    pub slots: u32,
    /// Whether an owner who holds the lock already, by the same manager, gets it once more: 1 or 0. It
    /// is held until each of its guards was released.
    pub reentrant: i32,
    /// The handle of a tenure, maybe another process's: its owner acquires, and takes what is below
    /// its lock at once. Not together with `owner`. May be NULL.
    pub within: *const c_char,
}

impl gitlock_acquire_options {
    const DEFAULT: gitlock_acquire_options = gitlock_acquire_options {
        size: size_of::<gitlock_acquire_options>(),
        mode: GITLOCK_EXCLUSIVE,
        priority: 0,
        ttl_ms: GITLOCK_DEFAULT,
        wait_ms: GITLOCK_FOREVER,
        max_hold_ms: GITLOCK_DEFAULT,
        renew: GITLOCK_DEFAULT,
        owner: std::ptr::null(),
        fingerprint: std::ptr::null(),
        reason: std::ptr::null(),
        cancel: std::ptr::null(),
        on_wait: None,
        on_wait_data: std::ptr::null_mut(),
        slots: 0,
        reentrant: 0,
        within: std::ptr::null(),
    };
}

/// A pointer of the caller's that is only handed back.
#[derive(Clone, Copy)]
pub(crate) struct Data(pub(crate) *mut c_void);

// SAFETY: nothing here looks at what it points to; that callbacks come on other threads is documented.
unsafe impl Send for Data {}

/// Fills `options` with the defaults; `size` is `sizeof *options`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_options_init(options: *mut gitlock_options, size: usize) {
    // SAFETY: both types are plain data, and the caller says how much room there is.
    unsafe { fill(options, size, &gitlock_options::DEFAULT) }
}

/// Fills `options` with the defaults; `size` is `sizeof *options`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gitlock_acquire_options_init(options: *mut gitlock_acquire_options, size: usize) {
    // SAFETY: both types are plain data, and the caller says how much room there is.
    unsafe { fill(options, size, &gitlock_acquire_options::DEFAULT) }
}

/// # Safety
/// `T` is `repr(C)`, begins with its size, and `to` is NULL or has room for `size` bytes.
unsafe fn fill<T: Copy>(to: *mut T, size: usize, defaults: &T) {
    if to.is_null() || size < size_of::<usize>() {
        return;
    }
    // SAFETY: there is room for `size` bytes, and no more than the defaults have is copied. What
    // this version doesn't know is zero, which is the default of every field that is added later.
    unsafe {
        std::ptr::write_bytes(to.cast::<u8>(), 0, size);
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(defaults).cast::<u8>(),
            to.cast::<u8>(),
            size.min(size_of::<T>()),
        );
        to.cast::<usize>().write_unaligned(size);
    }
}

/// What the caller set, on top of the defaults.
///
/// # Safety
/// `T` is `repr(C)` and begins with its size; `from` is NULL or as large as it says.
unsafe fn read<T: Copy>(what: &str, from: *const T, defaults: T) -> Result<T> {
    if from.is_null() {
        return Ok(defaults);
    }
    // SAFETY: it begins with its size.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=4096).contains(&size) {
        let message = format!("the {what} say a size of {size}; fill them with gitlock_…_init first");
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    let mut options = defaults;
    // SAFETY: it is as large as it says, and no more than fits is copied.
    let rest = unsafe {
        let to = std::ptr::from_mut(&mut options).cast::<u8>();
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), to, size.min(size_of::<T>()));
        std::slice::from_raw_parts(from.cast::<u8>().add(size.min(size_of::<T>())), size.saturating_sub(size_of::<T>()))
    };
    if rest.iter().any(|byte| *byte != 0) {
        let message = format!("the {what} use what this libgitlock doesn't know; install a newer one");
        return Err(Error::new(ErrorCode::Unsupported, message));
    }
    Ok(options)
}

/// Milliseconds, unless they are left to the default.
pub(crate) fn millis(what: &str, value: i64) -> Result<Option<Duration>> {
    match value {
        GITLOCK_DEFAULT => Ok(None),
        value => u64::try_from(value)
            .map(|value| Some(Duration::from_millis(value)))
            .map_err(|_| refuse(format!("{what} can't be {value}; give milliseconds, or -1 for the default"))),
    }
}

/// A switch, unless it is left to the default.
fn switch(what: &str, value: i64) -> Result<Option<bool>> {
    match value {
        GITLOCK_DEFAULT => Ok(None),
        0 => Ok(Some(false)),
        1 => Ok(Some(true)),
        other => Err(refuse(format!("{what} can't be {other}; give 1, 0, or -1 for the default"))),
    }
}

fn refuse(message: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// # Safety
/// As the convention says of options.
pub(crate) unsafe fn manager_options(from: *const gitlock_options) -> Result<Options> {
    // SAFETY: by the caller's promise; strings live during the call.
    let (given, prefix, owner, remote) = unsafe {
        let given = read("options", from, gitlock_options::DEFAULT)?;
        let (owner, remote) = (optional("owner", given.owner)?, optional("remote", given.remote)?);
        (given, optional("lock_prefix", given.lock_prefix)?, owner, remote)
    };
    let mut options = Options::default();
    options.lock_prefix = prefix.map(str::to_owned);
    options.owner = owner.map(str::to_owned);
    if given.keep != GITLOCK_DEFAULT {
        let keep = u32::try_from(given.keep).ok().filter(|keep| *keep > 0);
        options.keep = Some(keep.ok_or_else(|| refuse("keep must be at least 1, or -1 for the default".to_owned()))?);
    }
    options.durable = switch("durable", given.durable)?;
    options.stale_lock_age = millis("stale_lock_age_ms", given.stale_lock_age_ms)?;
    options.max_clock_skew = millis("max_clock_skew_ms", given.max_clock_skew_ms)?;
    options.claim_window = millis("claim_window_ms", given.claim_window_ms)?.unwrap_or(options.claim_window);
    options.poll_interval = millis("poll_interval_ms", given.poll_interval_ms)?.unwrap_or(options.poll_interval);
    options.lock_timeout = millis("lock_timeout_ms", given.lock_timeout_ms)?.unwrap_or(options.lock_timeout);
    options.remote = remote.map(str::to_owned);
    let timeout = millis("remote_timeout_ms", given.remote_timeout_ms)?.filter(|timeout| !timeout.is_zero());
    options.remote_timeout = timeout.unwrap_or(options.remote_timeout);
    options.environment = switch("environment", given.environment)?.unwrap_or(false);
    Ok(options)
}

/// # Safety
/// As the convention says of options.
pub(crate) unsafe fn request<'a>(
    mut request: LockRequest<'a>,
    from: *const gitlock_acquire_options,
) -> Result<LockRequest<'a>> {
    // SAFETY: by the caller's promise; what it points to lives during the call.
    let (given, owner, fingerprint, reason, cancel, within) = unsafe {
        let given = read("acquire options", from, gitlock_acquire_options::DEFAULT)?;
        let (owner, within) = (optional("owner", given.owner)?, optional("within", given.within)?);
        let fingerprint = optional("fingerprint", given.fingerprint)?;
        (given, owner, fingerprint, optional("reason", given.reason)?, given.cancel.as_ref(), within)
    };
    let flag = |what: &str, value: i32| match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(refuse(format!("{what} can't be {other}; give 1 or 0"))),
    };
    let shared = match given.mode {
        GITLOCK_EXCLUSIVE => false,
        GITLOCK_SHARED => true,
        other => return Err(refuse(format!("there is no mode {other}; give GITLOCK_EXCLUSIVE or GITLOCK_SHARED"))),
    };
    request = request.set(AcquireOptions {
        shared,
        priority: given.priority,
        ttl: millis("ttl_ms", given.ttl_ms)?,
        wait: millis("wait_ms", given.wait_ms)?,
        max_hold: millis("max_hold_ms", given.max_hold_ms)?,
        renew: switch("renew", given.renew)?,
        owner: owner.map(str::to_owned),
        fingerprint: fingerprint.map(str::to_owned),
        reason: reason.map(str::to_owned),
        slots: Some(given.slots).filter(|slots| *slots != 0),
        within: within.map(str::to_owned),
        reentrant: flag("reentrant", given.reentrant)?,
        process_group: None,
    })?;
    if let Some(cancel) = cancel.map(gitlock_cancel::token) {
        let token: &CancelToken = cancel;
        request = request.cancel(token);
    }
    if let Some(call) = given.on_wait {
        let data = Data(given.on_wait_data);
        request = request.on_wait(move |progress| {
            let data = data;
            let status = c_string(json::status(&progress.status).to_string());
            // SAFETY: the caller gave the function and the data for this, until the acquire has ended.
            unsafe { call(data.0, progress.ahead, status.as_ptr()) }
        });
    }
    Ok(request)
}
