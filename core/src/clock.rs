//! The only place that reads a clock.
//!
//! Leases are measured on CLOCK_BOOTTIME, which goes on during suspend and ignores changes of the
//! wall clock. The wall clock is read for what people and other boots see.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::lock::Now;

/// A source of time; tests put their own in its place.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Both clocks at this moment.
    fn now(&self) -> Now;

    /// Lets this thread pause. Only for pauses too short to be worth cancelling.
    fn pause(&self, duration: Duration);

    /// Milliseconds on the boot clock.
    fn boot_ms(&self) -> u64 {
        self.now().boot
    }
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        #[allow(clippy::disallowed_methods)] // this is the one place
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Now {
            wall: millis(wall),
            wall_micros: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            boot: self.boot_ms(),
            boot_id: boot_id(),
        }
    }

    fn boot_ms(&self) -> u64 {
        let nanos = i128::from(boot_nanos()) - i128::from(time_namespace_offset());
        u64::try_from(nanos / 1_000_000).unwrap_or(0)
    }

    #[allow(clippy::disallowed_methods)] // this is the one place
    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Nanoseconds on this process's boot clock. Through libc, so that a preloaded clock is seen.
fn boot_nanos() -> i64 {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    // CLOCK_MONOTONIC goes on during sleep on macOS, as CLOCK_BOOTTIME does on Linux.
    #[cfg(target_os = "macos")]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to, and the clock exists on every supported system.
    unsafe { libc::clock_gettime(CLOCK, &mut time) };
    #[allow(clippy::useless_conversion)] // both are narrower on some targets
    i64::from(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
}

/// How far this process's time namespace shifts the boot clock, in nanoseconds: two processes of
/// one boot must read one clock.
fn time_namespace_offset() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                (words.next()? == "boottime").then_some(())?;
                let (seconds, nanos): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
            })
            .next()
            .unwrap_or(0)
    })
}

/// This boot's id: the same for every process of the machine until it restarts.
pub fn boot_id() -> Arc<str> {
    static BOOT_ID: OnceLock<Arc<str>> = OnceLock::new();
    BOOT_ID.get_or_init(|| read_boot_id().into()).clone()
}

#[cfg(target_os = "linux")]
fn read_boot_id() -> String {
    let path = "/proc/sys/kernel/random/boot_id";
    // Without an id of its own no boot is ever taken for another: each process stands for itself.
    std::fs::read_to_string(path).map_or_else(|_| uuid::Uuid::new_v4().to_string(), |id| id.trim().to_owned())
}

#[cfg(target_os = "macos")]
fn read_boot_id() -> String {
    let mut text = [0u8; 64];
    let mut length = text.len();
    // SAFETY: the name is a C string, and `text` has `length` writable bytes.
    let status = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            text.as_mut_ptr().cast(),
            &mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if status != 0 || length == 0 {
        return uuid::Uuid::new_v4().to_string();
    }
    String::from_utf8_lossy(&text[..length]).trim_end_matches('\0').to_owned()
}

/// When this boot began, in wall-clock milliseconds as the wall clock stands now.
pub fn boot_started_at(now: &Now) -> u64 {
    now.wall.saturating_sub(now.boot)
}

/// A duration in whole milliseconds, rounded up.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
