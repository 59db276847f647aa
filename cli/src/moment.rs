//! Moments for people, in their own time zone.

/// The broken-down local time of a moment in milliseconds since the Unix epoch.
fn local(millis: u64) -> Option<libc::tm> {
    let seconds = libc::time_t::try_from(millis / 1_000).ok()?;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call, and an all-zero tm is a valid one.
    unsafe {
        if libc::localtime_r(&seconds, parts.as_mut_ptr()).is_null() {
            return None;
        }
        Some(parts.assume_init())
    }
}

fn day(parts: &libc::tm) -> String {
    format!("{:04}-{:02}-{:02}", i64::from(parts.tm_year) + 1_900, parts.tm_mon + 1, parts.tm_mday)
}

fn time(parts: &libc::tm) -> String {
    format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec)
}

/// The day and the time.
pub(crate) fn date_time(millis: u64) -> String {
    local(millis).map_or_else(|| format!("@{millis}"), |parts| format!("{} {}", day(&parts), time(&parts)))
}

/// The time, with the day before it unless that is today.
pub(crate) fn clock_time(millis: u64) -> String {
    use gitlock::clock::{Clock, SystemClock};
    let today = local(SystemClock.now().wall).map(|now| day(&now));
    match local(millis) {
        Some(parts) if today.as_ref() == Some(&day(&parts)) => time(&parts),
        _ => date_time(millis),
    }
}
