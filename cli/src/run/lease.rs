//! What a run knows of its lease: until when it lasts, and whether it is still renewed.

use std::time::Duration;

use gitlock::clock::{self, Clock, SystemClock};

use super::held::Held;

/// The guardian may be so much earlier than the guard by rounding alone, in milliseconds.
const ROUNDING: u64 = 20;

/// The lease of a run.
pub(crate) struct Lease {
    /// When the lock counts as lost, on the boot clock.
    deadline: u64,
    /// What was left of it right after it was last renewed.
    whole: u64,
    /// Since when less is left than there should ever be.
    low_since: Option<u64>,
    /// When `--max-hold` is over.
    max_hold_until: Option<u64>,
}

/// What has to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// It hasn't been renewed for too long.
    RunningOut,
    /// `--max-hold` is over. Said once.
    HeldTooLong,
}

impl Lease {
    pub(crate) fn new(guard: &Held, max_hold: Option<Duration>) -> Lease {
        let now = SystemClock.boot_ms();
        let whole = clock::millis(guard.remaining());
        let max_hold_until = max_hold.map(|max| now.saturating_add(clock::millis(max)));
        Lease { deadline: now.saturating_add(whole), whole, low_since: None, max_hold_until }
    }

    /// When the group has to be gone, on the boot clock.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Whether the guard counts itself lost, or is about to.
    pub(crate) fn is_over(&self, guard: &Held) -> bool {
        guard.is_lost() || clock::millis(guard.remaining()) <= ROUNDING
    }

    /// Looks at the guard. A lease is renewed at a third of its length, and a server may take as long to answer; so two
    /// thirds of it are never used up unless renewing fails, or this process didn't run: the latter shows by being over
    /// soon.
    pub(crate) fn look(&mut self, guard: &Held) -> Verdict {
        // The clock first: the deadline may come out too early by that, never too late.
        let now = SystemClock.boot_ms();
        let left = clock::millis(guard.remaining());
        let deadline = now.saturating_add(left);
        // More than what reading two clocks one after the other makes of the same end.
        if left > 0 && deadline.abs_diff(self.deadline) > ROUNDING / 2 {
            (self.deadline, self.whole, self.low_since) = (deadline, left, None);
        }
        if self.max_hold_until.take_if(|until| now >= *until).is_some() {
            return Verdict::HeldTooLong;
        }
        if left * 3 >= self.whole {
            self.low_since = None;
            return Verdict::Fine;
        }
        let since = *self.low_since.get_or_insert(now);
        if now - since >= self.whole / 20 { Verdict::RunningOut } else { Verdict::Fine }
    }

    /// How long to wait for something else before the next look.
    pub(crate) fn next_look(&self) -> Duration {
        let now = SystemClock.boot_ms();
        let left = self.deadline.saturating_sub(now);
        let tick = match self.low_since {
            Some(_) => self.whole / 40,
            None => (self.whole / 8).min(left.saturating_sub(self.whole / 3)),
        };
        let held = self.max_hold_until.map_or(u64::MAX, |until| until.saturating_sub(now));
        Duration::from_millis(tick.min(held).clamp(2, 30_000))
    }
}
