//! `.lock` files by Git's protocol, made so that a stale one can be told from a live one.
//!
//! Git creates `x.lock` with O_EXCL and renames it onto `x`. What a killed process leaves behind
//! blocks everybody, and nothing tells whether its owner lives. So ours are made in another way,
//! which Git can't tell from its own:
//!
//! 1. a file without a name (O_TMPFILE), whose sticky bit says that it is ours;
//! 2. flock on it;
//! 3. linkat gives it the name, or fails with EEXIST, exactly as O_EXCL does.
//!
//! So whoever sees the name with the sticky bit knows that its owner held the flock before
//! anybody could see it, and holds it until the name is gone or the owner is. A breaker takes the
//! flock, checks that the name still belongs to that file, and unlinks it. The bit is part of the
//! inode, so there is no moment before the rename at which the mark is gone and the file is not.

use std::{
    borrow::Cow,
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
    fork::NoFork,
    lock::{
        Now,
        fault::{Fault, Faults},
    },
};

use super::shared::Shared;

/// The sticky bit, which means nothing on a file on Linux: this `.lock` was made under flock.
const MARK: u32 = 0o1000;

/// How `.lock` files are made, waited for, and broken.
#[derive(Clone, Debug)]
pub(super) struct LockRules {
    /// The folder that all worktrees share.
    pub(super) common_dir: Arc<Path>,
    /// How long to wait for a `.lock` that somebody holds.
    pub(super) timeout: Duration,
    /// How old one of Git's own must be before it counts as left behind.
    pub(super) stale_age: Duration,
    /// What `core.sharedRepository` makes of permissions.
    pub(super) shared: Shared,
    /// Whether to sync what is written.
    pub(super) durable: bool,
    pub(super) clock: Arc<dyn Clock>,
    /// When this boot began, as the wall clock stood when the store was opened.
    pub(super) boot_started: u64,
    pub(super) faults: Faults,
}

impl LockRules {
    /// These, but waiting for no `.lock` longer than `patience`, if that is given.
    pub(super) fn within(&self, patience: Option<Duration>) -> Cow<'_, LockRules> {
        let shorter = patience.filter(|patience| *patience < self.timeout);
        shorter.map_or(Cow::Borrowed(self), |timeout| Cow::Owned(LockRules { timeout, ..self.clone() }))
    }

    /// Now, for judging a file's age: the wall clock without what somebody has set it forward by
    /// since the store was opened. One that was set back is believed. Either way files only seem
    /// younger than they are.
    pub(super) fn cautious_now(&self) -> Now {
        let mut now = self.clock.now();
        now.wall = now.wall.min(self.boot_started.saturating_add(now.boot));
        now
    }

    /// Makes a folder and those above it, if the repository is still there: one that was removed
    /// stays removed.
    pub(super) fn make_folders(&self, folder: &Path) -> io::Result<()> {
        if self.is_gone() {
            return Err(io::ErrorKind::NotFound.into());
        }
        fs::create_dir_all(folder)?;
        self.shared.folders(folder);
        Ok(())
    }

    /// Whether somebody has removed the repository since it was opened.
    fn is_gone(&self) -> bool {
        !self.common_dir.join("refs").is_dir()
    }

    /// What is said of such a one.
    pub(super) fn gone(&self) -> Error {
        let message = format!("there is no repository at {} any more", self.common_dir.display());
        Error::new(ErrorCode::NotARepository, message)
    }
}

/// A held `.lock` file. Dropping it gives the lock back without a change.
pub(super) struct LockFile {
    target: PathBuf,
    path: PathBuf,
    file: OwnedFd,
    /// Whether the name is still ours to remove.
    named: bool,
    // Last, so that the descriptor is closed before a fork may go on.
    _no_fork: NoFork,
}

pub(super) fn lock_path(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

impl LockFile {
    /// Takes `target.lock`, waiting for who holds it and breaking what is stale.
    ///
    /// # Errors
    /// [`ErrorCode::RepositoryBusy`] if somebody holds it beyond the timeout, and I/O errors.
    pub(super) fn acquire(target: &Path, rules: &LockRules) -> Result<LockFile> {
        let path = lock_path(target);
        let started = rules.clock.boot_ms();
        let mut seen = Sighting::default();
        let mut round = 0u32;
        loop {
            let no_fork = NoFork::enter();
            match create(target, &path, rules) {
                Ok(file) => {
                    return Ok(LockFile { target: target.to_owned(), path, file, named: true, _no_fork: no_fork });
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOTDIR) => return Err(blocked(target)),
                Err(Errno::NOENT) if rules.is_gone() => return Err(rules.gone()),
                Err(error) => return Err(Error::io(format_args!("can't lock {}", path.display()), error.into())),
            }
            drop(no_fork);
            if break_if_stale(&path, rules, &mut seen)? {
                continue;
            }
            if rules.clock.boot_ms().saturating_sub(started) >= clock::millis(rules.timeout) {
                return Err(busy(&path, rules));
            }
            rules.clock.pause(backoff(round));
            round = round.saturating_add(1);
        }
    }

    /// Writes what the target is to contain. Nobody sees it yet.
    pub(super) fn write(&self, bytes: &[u8], rules: &LockRules) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = rustix::io::write(&self.file, rest)?;
            rest = &rest[written..];
        }
        if rules.durable {
            rustix::fs::fsync(&self.file)?;
        }
        Ok(())
    }

    /// Puts the file in the target's place, which gives the lock back too.
    pub(super) fn commit(mut self, rules: &LockRules) -> io::Result<()> {
        rustix::fs::rename(&self.path, &self.target)?;
        self.named = false;
        // Only tidiness: on the target the mark means nothing.
        if let Ok(stat) = rustix::fs::fstat(&self.file) {
            let _ = rustix::fs::fchmod(&self.file, Mode::from_raw_mode(stat.st_mode & 0o777));
        }
        if rules.durable {
            sync_parent(&self.target)?;
        }
        Ok(())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.named {
            // Without the name the lock is free; if this fails it is stale, and the next breaks it.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Short at first, since a transaction takes microseconds, and never longer than a claim would mind.
pub(super) fn backoff(round: u32) -> Duration {
    static SALT: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    let salt = SALT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) ^ u64::from(std::process::id()) << 32;
    let spread = (salt ^ (salt >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    let ceiling = 50u64 << round.min(6);
    Duration::from_micros(ceiling / 2 + spread % ceiling)
}

/// Makes the `.lock`, or says EEXIST.
fn create(target: &Path, path: &Path, rules: &LockRules) -> rustix::io::Result<OwnedFd> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    for _ in 0..100 {
        match create_once(parent, path, rules) {
            // Git removes empty folders at any time, between any two of our steps.
            Err(Errno::NOENT) => match rules.make_folders(parent) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            },
            done => return done,
        }
    }
    Err(Errno::NOENT)
}

fn create_once(parent: &Path, path: &Path, rules: &LockRules) -> rustix::io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o666 | MARK);
    match unnamed(parent, mode) {
        Ok(file) => {
            rules.shared.file(&file)?;
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return create_unmarked(path, rules);
            }
            name_it(&file, path)?;
            Ok(file)
        }
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => create_by_link(parent, path, mode, rules),
        Err(error) => Err(error),
    }
}

/// A file without a name, which vanishes unless [`name_it`] gives it one.
#[cfg(target_os = "linux")]
pub(super) fn unnamed(parent: &Path, mode: Mode) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(parent, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn unnamed(_parent: &Path, _mode: Mode) -> rustix::io::Result<OwnedFd> {
    Err(Errno::OPNOTSUPP)
}

#[cfg(target_os = "linux")]
pub(super) fn name_it(file: &impl AsFd, path: &Path) -> rustix::io::Result<()> {
    match rustix::fs::linkat(file, "", CWD, path, AtFlags::EMPTY_PATH) {
        // Kernels before 6.10 want a capability for that; the detour through /proc needs none.
        Err(Errno::NOENT | Errno::PERM) => {
            let detour = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            rustix::fs::linkat(CWD, detour, CWD, path, AtFlags::SYMLINK_FOLLOW)
        }
        done => done,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn name_it(_file: &impl AsFd, _path: &Path) -> rustix::io::Result<()> {
    Err(Errno::OPNOTSUPP)
}

/// For file systems without O_TMPFILE: the same with a name that nobody looks for.
fn create_by_link(parent: &Path, path: &Path, mode: Mode, rules: &LockRules) -> rustix::io::Result<OwnedFd> {
    let hidden = parent.join(format!(".gitlock-{}", uuid::Uuid::new_v4()));
    let file = rustix::fs::open(&hidden, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, mode)?;
    // O_CREAT drops the sticky bit on some systems.
    let marked = rules
        .shared
        .file(&file)
        .and_then(|()| rustix::fs::fstat(&file))
        .and_then(|stat| rustix::fs::fchmod(&file, Mode::from_raw_mode((stat.st_mode & 0o777) | MARK)))
        .and_then(|()| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive));
    let linked = marked.and_then(|()| rustix::fs::linkat(CWD, &hidden, CWD, path, AtFlags::empty()));
    let _ = rustix::fs::unlink(&hidden);
    match linked {
        Ok(()) => Ok(file),
        Err(error @ (Errno::EXIST | Errno::NOENT)) => Err(error),
        Err(_) => create_unmarked(path, rules),
    }
}

/// For file systems without flock or links: as Git does it, and judged by age as Git's are.
fn create_unmarked(path: &Path, rules: &LockRules) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?;
    rules.shared.file(&file)?;
    Ok(file)
}

// ---------------------------------------------------------------- stale ones

/// What a waiter saw of one of Git's own `.lock` files, and since when.
#[derive(Default)]
pub(super) struct Sighting {
    file: Option<(u64, u64)>,
    since: u64,
}

#[allow(clippy::unnecessary_cast, trivial_numeric_casts)] // the widths differ between systems
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Removes a `.lock` whose owner is provably gone. Returns whether it is worth trying again at once.
pub(super) fn break_if_stale(path: &Path, rules: &LockRules, seen: &mut Sighting) -> Result<bool> {
    let _no_fork = NoFork::enter();
    let context = |error: Errno| Error::io(format_args!("can't look at {}", path.display()), error.into());
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(true),
        // Somebody else's: it can't be looked at, so it can't be judged.
        Err(Errno::ACCESS | Errno::PERM) => return Ok(false),
        Err(error) => return Err(context(error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(context)?;
    let marked = stat.st_mode & MARK != 0;
    if !marked && !is_left_behind(path, &stat, rules, seen) {
        return Ok(false);
    }
    #[cfg(feature = "faults")]
    super::pause_for_tests(rules);
    let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    if !taken && !rules.faults.has(Fault::BreakWithoutFlock) {
        return Ok(false);
    }
    // From here on no other breaker touches this file. Is it still the one with the name?
    let still_named = rustix::fs::stat(path).is_ok_and(|now| identity(&now) == identity(&stat));
    if !still_named && !rules.faults.has(Fault::BreakWithoutInodeCheck) {
        return Ok(true);
    }
    tracing::warn!(path = %path.display(), ours = marked, "removing a lock file whose owner is gone");
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(error) => Err(context(error)),
    }
}

/// Whether one of Git's own `.lock` files was left behind: it is from an earlier boot, or older
/// than the stale age, by the wall clock; and it has not changed for a while on this waiter's own
/// clock, so that a jump of the wall clock doesn't break a live one.
fn is_left_behind(path: &Path, stat: &Stat, rules: &LockRules, seen: &mut Sighting) -> bool {
    let now = rules.cautious_now();
    let file = Some(identity(stat));
    if seen.file != file {
        *seen = Sighting { file, since: now.boot };
    }
    let stale_age = clock::millis(rules.stale_age);
    if now.boot.saturating_sub(seen.since) < stale_age.min(1_000) {
        return false;
    }
    let modified = modified_ms(stat);
    now.wall.saturating_sub(modified) >= stale_age || is_older_than_boot(path, modified, &now)
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion, trivial_numeric_casts)] // the widths differ between systems
fn modified_ms(stat: &Stat) -> u64 {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(stat.st_mtime_nsec as u64 / 1_000_000)
}

/// Whether a file on a local file system was last written before this machine started.
pub(super) fn is_older_than_boot(path: &Path, modified: u64, now: &Now) -> bool {
    // Two seconds for clocks that were set right after the start.
    is_local(path) && modified.saturating_add(2_000) < clock::boot_started_at(now)
}

#[cfg(target_os = "linux")]
fn is_local(path: &Path) -> bool {
    // statfs(2): NFS, SMB, CIFS, SMB2, FUSE, 9P, Ceph, AFS, Coda, GFS2, OCFS2, Lustre.
    const REMOTE: [u32; 12] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x0102_1997,
        0x00c3_6400,
        0x5346_414f,
        0x7375_7245,
        0x0116_1970,
        0x7461_636f,
        0x0bd0_0bd0,
    ];
    let parent = path.parent().unwrap_or(path);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // magic numbers are 32 bits wide
    rustix::fs::statfs(parent).is_ok_and(|stat| !REMOTE.contains(&(stat.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_local(_path: &Path) -> bool {
    false
}

/// A `.lock` file that stands there, as `doctor` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFileReport {
    /// The file.
    pub path: PathBuf,
    /// How old it is, in milliseconds of the wall clock.
    pub age_ms: u64,
    /// Whether gitlock made it.
    pub ours: bool,
    /// Whether its owner is provably gone.
    pub stale: bool,
}

/// Looks at a `.lock` file without touching it.
pub(super) fn report(path: &Path, rules: &LockRules) -> Option<LockFileReport> {
    let _no_fork = NoFork::enter();
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let ours = stat.st_mode & MARK != 0;
    let now = rules.cautious_now();
    let (modified, stale_age) = (modified_ms(&stat), clock::millis(rules.stale_age));
    let age_ms = now.wall.saturating_sub(modified);
    let stale = if ours {
        // Shared, so that two doctors don't take each other for owners.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
    } else {
        age_ms >= stale_age || is_older_than_boot(path, modified, &now)
    };
    Some(LockFileReport { path: path.to_owned(), age_ms, ours, stale })
}

/// Removes a `.lock` file because a person said so, unless gitlock can prove that its owner lives.
pub(super) fn remove_by_hand(path: &Path, rules: &LockRules) -> Result<bool> {
    let rules = LockRules { stale_age: Duration::ZERO, ..rules.clone() };
    break_if_stale(path, &rules, &mut Sighting::default())?;
    Ok(rustix::fs::lstat(path).is_err())
}

pub(super) fn busy(path: &Path, rules: &LockRules) -> Error {
    let age = fs::metadata(path)
        .ok()
        .and_then(|meta| meta.modified().ok())
        .and_then(|modified| modified.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |modified| rules.clock.now().wall.saturating_sub(clock::millis(modified)));
    Error::new(
        ErrorCode::RepositoryBusy,
        format!(
            "{} has been held by another process for {:.1} s (it is {:.1} s old); wait for it, or if no Git command is \
             running here, let `git lock doctor --fix` remove it",
            path.display(),
            rules.timeout.as_secs_f64(),
            Duration::from_millis(age).as_secs_f64()
        ),
    )
}

pub(super) fn blocked(target: &Path) -> Error {
    Error::new(
        ErrorCode::NameBlocked,
        format!(
            "another tool's ref is in the way of {}; delete that ref, or choose another lock name or prefix",
            target.display()
        ),
    )
}
