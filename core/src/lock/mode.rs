//! How much of a lock a tenure takes, and what may stand beside it.

use std::fmt;

/// How much of a lock a tenure takes.
///
/// The two intents are what a holder takes on the *ancestors* of a name, so that a whole tree can
/// be locked against them. The compatibility between modes is Gray's matrix (J. Gray et al.,
/// "Granularity of Locks in a Shared Data Base", 1975).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Something below this name is, or will be, held shared.
    IntentShared,
    /// Something below this name is, or will be, held exclusively.
    IntentExclusive,
    /// Any number of shared holders at once, and no exclusive one.
    Shared,
    /// One holder, and nobody beside it.
    Exclusive,
}

impl Mode {
    /// Every mode, weakest first.
    pub const ALL: [Mode; 4] = [Mode::IntentShared, Mode::IntentExclusive, Mode::Shared, Mode::Exclusive];

    /// Whether two tenures of these modes may stand side by side.
    ///
    /// ```
    /// use gitlock::Mode;
    /// assert!(Mode::Shared.compatible(Mode::Shared));
    /// assert!(!Mode::Shared.compatible(Mode::Exclusive));
    /// ```
    pub const fn compatible(self, other: Mode) -> bool {
        use Mode::{Exclusive, IntentExclusive, IntentShared, Shared};
        match (self, other) {
            (Exclusive, _) | (_, Exclusive) => false,
            (Shared, IntentExclusive) | (IntentExclusive, Shared) => false,
            (IntentShared | IntentExclusive, IntentShared | IntentExclusive)
            | (Shared, Shared | IntentShared)
            | (IntentShared, Shared) => true,
        }
    }

    /// Whether who holds this mode has all that the other one gives.
    pub const fn covers(self, other: Mode) -> bool {
        use Mode::{Exclusive, IntentExclusive, IntentShared, Shared};
        match (self, other) {
            (Exclusive, _) | (_, IntentShared) | (Shared, Shared) | (IntentExclusive, IntentExclusive) => true,
            (Shared | IntentShared | IntentExclusive, _) => false,
        }
    }

    /// The intent that this mode needs on every ancestor.
    pub const fn intent(self) -> Mode {
        match self {
            Mode::IntentShared | Mode::Shared => Mode::IntentShared,
            Mode::IntentExclusive | Mode::Exclusive => Mode::IntentExclusive,
        }
    }

    /// Whether this mode only announces a lock further down.
    pub const fn is_intent(self) -> bool {
        matches!(self, Mode::IntentShared | Mode::IntentExclusive)
    }

    /// The word that stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::IntentShared => "intent-shared",
            Mode::IntentExclusive => "intent-exclusive",
            Mode::Shared => "shared",
            Mode::Exclusive => "exclusive",
        }
    }

    /// The mode that a record's word names.
    pub fn parse(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;

    #[test]
    fn the_matrix_is_grays() {
        // Rows and columns IS, IX, S, X.
        let matrix = [
            [true, true, true, false],
            [true, true, false, false],
            [true, false, true, false],
            [false, false, false, false],
        ];
        for (row, a) in Mode::ALL.into_iter().enumerate() {
            for (column, b) in Mode::ALL.into_iter().enumerate() {
                assert_eq!(a.compatible(b), matrix[row][column], "{a} beside {b}");
                assert_eq!(a.compatible(b), b.compatible(a), "{a} beside {b} is symmetric");
            }
        }
    }

    #[test]
    fn who_covers_a_mode_keeps_out_all_that_it_keeps_out() {
        for a in Mode::ALL {
            assert!(a.covers(a));
            for b in Mode::ALL {
                let keeps_out_no_less = Mode::ALL.into_iter().all(|c| b.compatible(c) || !a.compatible(c));
                // An intent keeps out what the shared mode does not, and gives less.
                let gives_no_less = !a.is_intent() || b.is_intent();
                assert_eq!(a.covers(b), keeps_out_no_less && gives_no_less, "{a} covers {b}");
            }
        }
    }

    #[test]
    fn words_round_trip() {
        for mode in Mode::ALL {
            assert_eq!(Mode::parse(mode.as_str()), Some(mode));
        }
        assert_eq!(Mode::parse("Exclusive"), None);
    }
}
