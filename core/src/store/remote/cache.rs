//! Objects that are known already. What an id stands for never changes, so nothing here is ever old.

use std::collections::{HashMap, VecDeque};

use gix::objs::Kind;

use crate::store::{
    Object, Oid,
    object::{Encoded, parse_commit},
};

use super::pack::Unpacked;

/// How many objects are fetched on the way of a listing at most.
pub(super) const MOST_AT_ONCE: usize = 1_000;

/// How many bytes are kept.
const MOST_BYTES: usize = 16 << 20;

/// What is counted for each object besides its bytes.
const OVERHEAD: usize = 200;

/// Objects, the oldest of which go when there are too many.
#[derive(Debug, Default)]
pub(super) struct Cache {
    objects: HashMap<Oid, Known>,
    order: VecDeque<Oid>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    kind: Kind,
    bytes: Vec<u8>,
    /// When the server had it, on the boot clock.
    at: u64,
}

impl Cache {
    pub(super) fn has(&self, id: &Oid) -> bool {
        self.objects.contains_key(id)
    }

    pub(super) fn object(&self, id: &Oid) -> Option<Object> {
        let Known { kind, bytes, .. } = self.objects.get(id)?;
        Some(match kind {
            Kind::Blob => Object::Blob(bytes.clone()),
            Kind::Commit => match parse_commit(bytes, hash_of(id)) {
                Ok(commit) => Object::Commit(Box::new(commit)),
                Err(why) => Object::Unusable(why),
            },
            kind => Object::Unusable(format!("it is a {kind}")),
        })
    }

    /// Whether the server had it at this time or later.
    pub(super) fn had_since(&self, id: &Oid, time: u64) -> bool {
        self.objects.get(id).is_some_and(|known| known.at >= time)
    }

    /// It again as it is written.
    pub(super) fn encoded(&self, id: &Oid) -> Option<Encoded> {
        self.objects.get(id).map(|known| Encoded { kind: known.kind, bytes: known.bytes.clone(), id: *id })
    }

    /// Whether so many commits of a history are here, or all that it has.
    pub(super) fn reaches(&self, from: &Oid, depth: usize) -> bool {
        let mut next = Some(*from);
        for _ in 0..depth {
            let Some(id) = next else { return true };
            let Some(Object::Commit(commit)) = self.object(&id) else { return false };
            next = commit.parent;
        }
        true
    }

    pub(super) fn take(&mut self, objects: impl IntoIterator<Item = Unpacked>, now: u64) {
        for Unpacked { id, kind, bytes } in objects {
            self.put(id, kind, bytes, now);
        }
    }

    pub(super) fn remember(&mut self, objects: &[&Encoded], now: u64) {
        for object in objects {
            self.put(object.id, object.kind, object.bytes.clone(), now);
        }
    }

    fn put(&mut self, id: Oid, kind: Kind, bytes: Vec<u8>, at: u64) {
        let size = bytes.len() + OVERHEAD;
        if self.objects.insert(id, Known { kind, bytes, at }).is_some() {
            return;
        }
        self.bytes += size;
        self.order.push_back(id);
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            let gone = self.objects.remove(&oldest).map_or(0, |known| known.bytes.len() + OVERHEAD);
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

fn hash_of(id: &Oid) -> gix::hash::Kind {
    if id.as_bytes().len() == 32 { gix::hash::Kind::Sha256 } else { gix::hash::Kind::Sha1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut cache = Cache::default();
        let id = |number: u8| Oid::from_bytes(&[number; 20]).unwrap();
        for number in 0..100 {
            cache.put(id(number), Kind::Blob, vec![0; 1 << 20], 0);
        }
        assert!(!cache.has(&id(0)) && cache.has(&id(99)));
        assert!(cache.bytes <= MOST_BYTES && cache.order.len() == cache.objects.len());
    }
}
