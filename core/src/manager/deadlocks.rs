//! Finding out that waits would never end, across processes and languages.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    error::Result,
    lock::{
        Record,
        deadlock::{self, Cycle, WaitEdge},
    },
    name::{LockName, RefName},
    store::Oid,
};

use super::{Inner, commit_loop, snapshot::Snapshot};

/// How long a wait has lasted before anybody looks whether it is in a deadlock, in milliseconds.
pub(super) const FIRST_LOOK: u64 = 100;

/// How often it is looked at then.
const LOOK_AGAIN: u64 = 1_000;

/// How soon a cycle is looked at for the second time: who was only passing is gone by then.
const CONFIRM: u64 = 50;

/// Who waits for whom, at one moment. [`LockManager::graph`](super::LockManager::graph) makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitGraph {
    /// One who waits, and one who is in its way.
    pub edges: Vec<WaitEdge>,
    /// The deadlocks among them.
    pub cycles: Vec<Cycle>,
}

impl WaitGraph {
    /// The graph in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let stuck: BTreeSet<&str> = self.cycles.iter().flat_map(|cycle| &cycle.edges).map(|edge| &*edge.id).collect();
        let mut text = String::from("digraph waits {\n");
        for edge in &self.edges {
            let style = if edge.holds { "" } else { ", style=dashed" };
            let color = if stuck.contains(&*edge.id) { ", color=red" } else { "" };
            let (from, to, lock) = (quoted(&edge.owner), quoted(&edge.blocked_by), quoted(edge.lock.as_str()));
            text += &format!("  {from} -> {to} [label={lock}{style}{color}];\n");
        }
        text + "}\n"
    }
}

/// What the background thread knows of deadlocks.
#[derive(Default)]
pub(super) struct Detector {
    looked: u64,
    /// Whether the last look could not be taken, so that it has to be taken again whatever has changed.
    failed: bool,
    listed: Vec<(RefName, Oid)>,
    known: HashMap<LockName, Snapshot>,
    /// What the last reading found, by the ids in each cycle.
    suspects: Vec<BTreeSet<String>>,
}

impl Detector {
    /// When to look next for waits that began at these times.
    pub(super) fn next(&self, begun: impl Iterator<Item = u64>, poll_interval: u64) -> Option<u64> {
        // On a server each look is a question.
        let again = self.looked + if self.suspects.is_empty() { LOOK_AGAIN.max(poll_interval) } else { CONFIRM };
        begun.map(|since| if since + FIRST_LOOK > self.looked { since + FIRST_LOOK } else { again }).min()
    }

    /// The deadlocks that two readings agree in, and that are for this process to end. Of others nothing is done
    /// here, so nobody looks at them a second time: a large circle has many who see it.
    ///
    /// `unchanged`: nothing has changed since the last look, which then needn't be asked for.
    pub(super) fn look(&mut self, inner: &Arc<Inner>, unchanged: bool, own: impl Fn(&Cycle) -> bool) -> Vec<Cycle> {
        self.looked = inner.commits.clock.boot_ms();
        if unchanged && self.suspects.is_empty() && !self.failed {
            return Vec::new();
        }
        let read = self.read(inner);
        self.failed = read.is_err();
        let mut cycles = read.unwrap_or_else(|error| {
            tracing::debug!(%error, "nobody can tell whether there is a deadlock");
            Vec::new()
        });
        cycles.retain(own);
        let (sure, new): (Vec<Cycle>, Vec<Cycle>) =
            cycles.into_iter().partition(|cycle| self.suspects.contains(&cycle.ids()));
        self.suspects = sure.iter().chain(&new).map(Cycle::ids).collect();
        sure
    }

    fn read(&mut self, inner: &Arc<Inner>) -> Result<Vec<Cycle>> {
        let listed = inner.commits.store.list(inner.commits.names.locks())?;
        if listed == self.listed && self.suspects.is_empty() {
            // Nobody came. Who has gone since closes no cycle.
            return Ok(Vec::new());
        }
        let locks = views(inner, &listed, &mut self.known)?;
        self.listed = listed;
        Ok(deadlock::cycles(&locks, inner.commits.policy.faults))
    }
}

/// What the locks say, without what has ended.
fn views(
    inner: &Inner,
    listed: &[(RefName, Oid)],
    known: &mut HashMap<LockName, Snapshot>,
) -> Result<Vec<(LockName, Record)>> {
    let mut all = HashMap::new();
    let mut views = Vec::new();
    for (name, id) in listed {
        let Some(name) = inner.commits.names.lock_of(name) else { continue };
        let snapshot = inner.commits.look_listed(&name, *id, known.get(&name))?;
        views.push((name.clone(), commit_loop::current(&inner.commits, &snapshot).0));
        all.insert(name, snapshot);
    }
    *known = all;
    Ok(views)
}

/// Who waits for whom at this moment.
pub(super) fn graph(inner: &Inner) -> Result<WaitGraph> {
    let listed = inner.commits.store.list(inner.commits.names.locks())?;
    let locks = views(inner, &listed, &mut HashMap::new())?;
    Ok(WaitGraph { edges: deadlock::edges(&locks), cycles: deadlock::cycles(&locks, inner.commits.policy.faults) })
}
