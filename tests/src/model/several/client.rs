//! One client of a world of several locks: what it does, and what it may be after.

use std::hash::{DefaultHasher, Hash};

use gitlock::Mode;

use super::{Member, world::id_of};
use crate::model::world::Health;

#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) health: Health,
    pub(super) next: u8,
    pub(super) attempt: u8,
    pub(super) held: Vec<Tenancy>,
    pub(super) doing: Option<Doing>,
    pub(super) converts: u8,
    pub(super) extends: u8,
    /// Ids that it was told are cancelled.
    pub(super) cancelled: Vec<String>,
}

/// What a client believes that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tenancy {
    pub(super) want: u8,
    pub(super) attempt: u8,
    pub(super) mode: Mode,
    /// Until its clock says this.
    pub(super) deadline: u64,
    /// The token of the first name, as it was told.
    pub(super) token: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Acquires {
        want: u8,
        attempt: u8,
        first: u8,
        /// In how many parts the present id may stand in the record.
        asked: usize,
        places: Vec<Option<(i64, u64)>>,
    },
    /// Neither waits nor holds under these attempts; and then maybe asks anew.
    Leaves {
        want: u8,
        first: u8,
        last: u8,
        again: Option<Vec<Option<(i64, u64)>>>,
    },
    Upgrades {
        at: u8,
        asked: usize,
    },
    TurnsBack {
        at: u8,
    },
    Downgrades {
        at: u8,
    },
    Extends {
        at: u8,
    },
    Releases {
        at: u8,
    },
}

/// What a client may be after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    Acquire,
    /// What it does already, once more.
    Again,
    GiveUp,
    Upgrade(u8),
    Downgrade(u8),
    Extend(u8),
    Release(u8),
}

impl Doing {
    pub(super) fn hash_with(&self, place: &dyn Fn(i64) -> usize, hasher: &mut DefaultHasher) {
        std::mem::discriminant(self).hash(hasher);
        let places = |all: &[Option<(i64, u64)>]| all.iter().map(|at| at.map(|at| place(at.0))).collect::<Vec<_>>();
        match self {
            Doing::Acquires { want, attempt, first, asked, places: all } => {
                (want, attempt, first, asked, places(all)).hash(hasher);
            }
            Doing::Leaves { want, first, last, again } => {
                (want, first, last, again.as_deref().map(places)).hash(hasher);
            }
            Doing::Upgrades { at, asked } => (at, asked).hash(hasher),
            Doing::TurnsBack { at } | Doing::Downgrades { at } | Doing::Extends { at } | Doing::Releases { at } => {
                at.hash(hasher);
            }
        }
    }

    /// Whether it waits for others.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Doing::Acquires { .. } | Doing::Upgrades { .. })
    }
}

impl Client {
    pub(super) fn ranks(&self) -> Vec<i64> {
        match &self.doing {
            Some(Doing::Acquires { places, .. } | Doing::Leaves { again: Some(places), .. }) => {
                places.iter().flatten().map(|at| at.0).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn wishes(&self, member: &Member) -> Vec<Wish> {
        if let Some(doing) = &self.doing {
            let give_up = (member.cancels && doing.waits()).then_some(Wish::GiveUp);
            return std::iter::once(Wish::Again).chain(give_up).collect();
        }
        let mut wishes = Vec::new();
        if usize::from(self.next) < member.wants.len() {
            wishes.push(Wish::Acquire);
        }
        for (at, tenancy) in (0u8..).zip(&self.held) {
            wishes.push(Wish::Release(at));
            let whole = member.wants[usize::from(tenancy.want)].slots.is_none();
            if self.converts > 0 && whole {
                wishes.push(if tenancy.mode == Mode::Shared { Wish::Upgrade(at) } else { Wish::Downgrade(at) });
            }
            if self.extends > 0 {
                wishes.push(Wish::Extend(at));
            }
        }
        wishes
    }

    /// The id under which it waits.
    pub(super) fn waits_as(&self, client: usize) -> Option<String> {
        match self.doing.as_ref()? {
            Doing::Acquires { attempt, .. } => Some(id_of(client, *attempt)),
            Doing::Upgrades { at, .. } => Some(id_of(client, self.held[usize::from(*at)].attempt) + "^"),
            _ => None,
        }
    }
}
