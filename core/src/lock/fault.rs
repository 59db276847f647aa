//! Rules and protocol steps that a test can leave out, to show that some test then fails.
//!
//! Without the feature `faults`, [`Faults`] is empty and every question is answered `false` at
//! compile time.

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One rule or step to leave out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// Every fault that can be seeded.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];

            /// The fault's name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Fault::$name => stringify!($name),)* }
            }
        }
    };
}

faults! {
    /// A newcomer that fits beside the holders goes past the queue.
    NewcomerOvertakes,
    /// Exclusive is granted beside a shared holder.
    ExclusiveBesideShared,
    /// A hand-over grants only the first of several leading shared waiters.
    GrantOneSharedOnly,
    /// A grant from the queue lasts the whole ttl, so that a dead waiter costs all of it.
    NoClaimWindow,
    /// Waiters that are provably dead are granted all the same.
    GrantDeadWaiters,
    /// Waiters past their deadline are granted all the same.
    GrantLateWaiters,
    /// The holder's death is not looked at.
    IgnoreDeadOwners,
    /// A lease is extended after its end.
    ExtendEndedLease,
    /// The wall clock is believed without `max_clock_skew`.
    NoClockSkew,
    /// A lease's end on another boot's clock is read on this one's.
    TrustForeignBoot,
    /// The next token ignores what the journal says.
    TokenIgnoresJournal,
    /// The next token ignores what the record says.
    TokenIgnoresRecord,
    /// A tenure that the journal calls ended is believed when it still stands in the record.
    IgnoreJournalTip,
    /// What has ended by itself is ended at once, though its holder may extend it at the same time.
    EndUnclosed,
    /// The last holder's release deletes the record, whoever queues.
    DropQueueOnRelease,
    /// A release hands over to nobody, and leaves a queue without a holder.
    NoHandOver,
    /// A cancel takes the waiter out of the queue but leaves what was granted meanwhile.
    CancelLeavesGrant,
    /// Priority counts without ageing: the queue is ordered by priority alone.
    NoAgeing,
    /// Other refs are changed under the lock without a look at it in the same transaction.
    NoFence,
    /// Whoever knows a lock's name may release it.
    ReleaseWithoutProof,
    /// A queue whose lease is long overdue is kept, and its dead each cost a claim window.
    KeepDeadQueue,
    /// What is held below a name keeps nobody out.
    IgnoreIntents,
    /// Who holds a name queues for an intent on it like everybody else.
    NoInheritance,
    /// More may hold than there are slots.
    UncountedSlots,
    /// A tenure is upgraded beside others.
    UpgradeBesideOthers,
    /// Of two that wait to upgrade, each for the other, neither is refused.
    UpgradersHang,
    /// What was granted of several names stays when the next is refused.
    KeepHalfASet,
    /// An ancestor's intent ends before what is held below it.
    ReleaseAncestorsFirst,
    /// What is held below a name is written before its intent above.
    AcquireAncestorsLast,
    /// Who waits before another in a queue is nobody whom that one waits for.
    DeadlockOverlooksQueues,
    /// Who waits to upgrade waits for nobody.
    DeadlockOverlooksUpgrades,
    /// Who waits for one of several slots waits for all of them.
    DeadlockNeedsEverySlot,
    /// The victim of a deadlock is whichever of its waits is read first.
    VictimByOrder,
    /// Who was queued and is gone from the record is granted again under its old id.
    ReuseEndedId,
    /// A copy that has ended ends its tenure at home too.
    SyncEndsByCopies,
    /// A tenure whose home is elsewhere is judged by the clocks of where its copy is.
    SyncJudgesByCopies,
    /// What was compared is written though others hold by now.
    SyncUnseen,
    /// A tenure is announced with the token that it has, whatever was granted there.
    SyncKeepsTokens,
    /// A tenure that the journal's tip calls ended, and that is alive elsewhere, is written without a word there.
    SyncWithoutGoesOn,
    /// What is held below a name stands against nobody.
    SyncOverlooksIntents,
    /// The guard believes in its lease until the very end.
    NoSafetyMargin,
    /// Fast delete: packed-refs is compared before the look for packed-refs.lock.
    FastDeleteSwapped,
    /// Fast delete: packed-refs.lock isn't looked for.
    FastDeleteIgnoresLock,
    /// Fast delete: packed-refs isn't compared with what was read.
    FastDeleteIgnoresPacked,
    /// Slow delete: packed-refs is rewritten without its lock.
    SlowDeleteWithoutLock,
    /// packed-refs is read before the ref's lock is taken, and believed afterwards.
    PackedReadBeforeLock,
    /// The ref isn't compared with its expected value under the lock.
    NoCompare,
    /// A stale lock is unlinked without its flock.
    BreakWithoutFlock,
    /// A stale lock is unlinked without a look at whether the path is still that file.
    BreakWithoutInodeCheck,
}

/// A set of [`Fault`]s to leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    #[cfg(feature = "faults")]
    bits: u64,
}

impl Faults {
    /// Nothing left out.
    pub const NONE: Faults = Faults {
        #[cfg(feature = "faults")]
        bits: 0,
    };

    /// Leaves out one thing.
    #[cfg(feature = "faults")]
    pub const fn only(fault: Fault) -> Faults {
        Faults { bits: 1 << fault as u8 }
    }

    /// Whether this is to be left out.
    #[inline]
    #[cfg(feature = "faults")]
    pub const fn has(self, fault: Fault) -> bool {
        self.bits & (1 << fault as u8) != 0
    }

    /// Whether this is to be left out.
    #[inline]
    #[cfg(not(feature = "faults"))]
    pub const fn has(self, _fault: Fault) -> bool {
        false
    }
}

/// Panics for one lock's name, as a bug would, so that a test sees what the borders to other languages make of it.
#[inline]
pub(crate) fn panic_if_asked(name: &str) {
    #[cfg(feature = "faults")]
    assert!(name != "gitlock-fault-panic", "a seeded fault");
    let _ = name;
}
