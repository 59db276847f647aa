//! What a request for names in a tree takes, and in which order.

use std::collections::BTreeMap;

use crate::name::LockName;

use super::mode::Mode;

/// One lock of those that a request takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: LockName,
    /// How much of it.
    pub mode: Mode,
    /// How many may hold at once, if it is taken as one of so many slots.
    pub slots: Option<u32>,
}

/// What has to be taken for these names: each one, and an intent on everything above it. Everybody
/// takes them in this order, ancestors first, so that no two wait for each other.
pub fn steps(names: &[LockName], mode: Mode, slots: Option<u32>) -> Vec<Step> {
    let mut steps: BTreeMap<Vec<&str>, Step> = BTreeMap::new();
    let above: Vec<LockName> = names.iter().flat_map(LockName::ancestors).collect();
    let all = names.iter().map(|name| (name, mode, slots));
    for (name, mode, slots) in all.chain(above.iter().map(|name| (name, mode.intent(), None))) {
        let step = Step { name: name.clone(), mode, slots };
        let known = steps.entry(name.as_str().split('/').collect()).or_insert_with(|| step.clone());
        // The one that covers both; for a shared lock with an exclusive one below it only the whole does.
        if !known.mode.covers(mode) {
            known.mode = if mode.covers(known.mode) { mode } else { Mode::Exclusive };
        }
    }
    steps.into_values().collect()
}
