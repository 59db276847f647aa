//! Clocks that are wrong.

use std::time::Duration;

use gitlock::{
    clock::{Clock, SystemClock},
    lock::Now,
};

/// A wall clock that is a day ahead.
#[derive(Debug)]
pub struct Tomorrow;

impl Clock for Tomorrow {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        let wall = now.wall + 86_400_000;
        Now { wall, wall_micros: wall * 1_000, ..now }
    }

    fn pause(&self, duration: Duration) {
        SystemClock.pause(duration);
    }
}
