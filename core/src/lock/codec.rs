//! Records as bytes: deterministic to write, and strict to read, because anybody who may write the
//! repository may have written them.

use std::fmt;

use serde::{
    Serialize, Serializer,
    de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Map, Value};

use super::{
    mode::Mode,
    queue,
    record::{
        BootTime, Bound, Claim, Extra, Holder, MAX_NUMBER, MAX_RECORD_BYTES, MAX_SLOTS, MAX_WAITERS, ProcessStamp,
        Record, VERSION, Waiter,
    },
};

/// Why bytes are no record that this version may act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// They aren't a record: what is wrong, and where.
    Corrupt(String),
    /// They are of a version that this code doesn't know.
    TooNew(u64),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Corrupt(why) => f.write_str(why),
            Unreadable::TooNew(version) => write!(f, "it is of version {version}, and this gitlock knows {VERSION}"),
        }
    }
}

/// The encoded record would be larger than [`MAX_RECORD_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

// ---------------------------------------------------------------- writing

/// The bytes of a record. The same record and `rev` always give the same bytes.
///
/// # Errors
/// [`TooLarge`] if it doesn't fit into a lock's blob.
pub fn encode(record: &Record, rev: &str) -> Result<Vec<u8>, TooLarge> {
    let mut bytes = Vec::with_capacity(768 + 512 * record.queue.len());
    // Writing to memory can't fail, and no key is anything but a string.
    if serde_json::to_writer(&mut bytes, &TopLevel { record, rev }).is_err() {
        bytes.clear();
    }
    bytes.push(b'\n');
    if bytes.len() > MAX_RECORD_BYTES { Err(TooLarge) } else { Ok(bytes) }
}

struct TopLevel<'a> {
    record: &'a Record,
    rev: &'a str,
}

impl Serialize for TopLevel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(top) = self.record.last_to_end() {
            seven_fields(&mut map, top)?;
            map.serialize_entry("v", &VERSION)?;
            map.serialize_entry("rev", self.rev)?;
            further_fields(&mut map, top)?;
            let also: Vec<Also<'_>> =
                self.record.holders.iter().filter(|other| !std::ptr::eq(*other, top)).map(Also).collect();
            if !also.is_empty() {
                map.serialize_entry("also", &also)?;
            }
        }
        if !self.record.queue.is_empty() {
            let queue: Vec<Queued<'_>> = self.record.queue.iter().map(Queued).collect();
            map.serialize_entry("queue", &queue)?;
        }
        map.end()
    }
}

fn seven_fields<M: SerializeMap>(map: &mut M, holder: &Holder) -> Result<(), M::Error> {
    let claim = &holder.claim;
    map.serialize_entry("id", &claim.id)?;
    map.serialize_entry("acquiredAt", &holder.acquired_at)?;
    map.serialize_entry("timeout", &holder.timeout)?;
    map.serialize_entry("fingerprint", &claim.fingerprint)?;
    map.serialize_entry("exclusive", &(claim.mode == Mode::Exclusive))?;
    map.serialize_entry("pid", &claim.pid)?;
    map.serialize_entry("hostname", &claim.hostname)
}

fn further_fields<M: SerializeMap>(map: &mut M, holder: &Holder) -> Result<(), M::Error> {
    let claim = &holder.claim;
    map.serialize_entry("owner", &claim.owner)?;
    if let Some(token) = holder.token {
        map.serialize_entry("token", &token)?;
    }
    map.serialize_entry("mode", claim.mode.as_str())?;
    map.serialize_entry("ttl", &claim.ttl)?;
    if let Some(end) = &holder.end {
        map.serialize_entry("end", &End(end))?;
    }
    if holder.waited > 0 {
        map.serialize_entry("waited", &holder.waited)?;
    }
    if let Some(slot) = holder.slot {
        map.serialize_entry("slot", &slot)?;
    }
    if holder.priority != 0 {
        map.serialize_entry("priority", &holder.priority)?;
    }
    shared_tail(map, claim)
}

fn shared_tail<M: SerializeMap>(map: &mut M, claim: &Claim) -> Result<(), M::Error> {
    map.serialize_entry("bound", claim.bound.as_str())?;
    if let Some(process) = &claim.process {
        map.serialize_entry("process", &Process(process))?;
    }
    if let Some(reason) = &claim.reason {
        map.serialize_entry("reason", reason)?;
    }
    if let Some(slots) = claim.slots {
        map.serialize_entry("slots", &slots)?;
    }
    if let Some(upgrades) = &claim.upgrades {
        map.serialize_entry("upgrades", upgrades)?;
    }
    for (key, value) in &claim.extra {
        map.serialize_entry(key, value)?;
    }
    Ok(())
}

struct Also<'a>(&'a Holder);

impl Serialize for Also<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        seven_fields(&mut map, self.0)?;
        further_fields(&mut map, self.0)?;
        map.end()
    }
}

struct Queued<'a>(&'a Waiter);

impl Serialize for Queued<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Waiter { claim, priority, rank, since, until, end } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &claim.id)?;
        map.serialize_entry("owner", &claim.owner)?;
        map.serialize_entry("fingerprint", &claim.fingerprint)?;
        map.serialize_entry("mode", claim.mode.as_str())?;
        map.serialize_entry("priority", priority)?;
        map.serialize_entry("rank", rank)?;
        map.serialize_entry("since", since)?;
        if let Some(until) = until {
            map.serialize_entry("until", until)?;
        }
        if let Some(end) = end {
            map.serialize_entry("end", &End(end))?;
        }
        map.serialize_entry("ttl", &claim.ttl)?;
        map.serialize_entry("pid", &claim.pid)?;
        map.serialize_entry("hostname", &claim.hostname)?;
        shared_tail(&mut map, claim)?;
        map.end()
    }
}

struct End<'a>(&'a BootTime);

impl Serialize for End<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("boot", &self.0.boot)?;
        map.serialize_entry("at", &self.0.at)?;
        map.end()
    }
}

struct Process<'a>(&'a ProcessStamp);

impl Serialize for Process<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ProcessStamp { boot, pidns, start, group, extra } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("boot", boot)?;
        map.serialize_entry("pidns", pidns)?;
        if let Some(start) = start {
            map.serialize_entry("start", start)?;
        }
        if let Some(group) = group {
            map.serialize_entry("group", group)?;
        }
        for (key, value) in extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

// ---------------------------------------------------------------- reading

/// The record that bytes say.
///
/// # Errors
/// [`Unreadable`] for anything but a record of a version that this code knows.
pub fn decode(bytes: &[u8]) -> Result<Record, Unreadable> {
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(Unreadable::Corrupt(format!("it is larger than {MAX_RECORD_BYTES} bytes")));
    }
    let Strict(value) = serde_json::from_slice(bytes)
        .map_err(|error| Unreadable::Corrupt(format!("it isn't the JSON of a record: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err(Unreadable::Corrupt("it isn't a JSON object".to_owned()));
    };
    match fields.remove("v") {
        None | Some(Value::Null) => {}
        Some(version) => match version.as_u64() {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(Unreadable::TooNew(newer)),
            _ => return Err(Unreadable::Corrupt(format!("its version is {version}"))),
        },
    }
    fields.remove("rev");
    let read = |fields: Map<String, Value>, also: Value, queue: Value| -> Result<Record, String> {
        let mut holders = vec![Fields(fields).holder()?];
        for other in array("also", also)? {
            holders.push(Fields(object("also", other)?).holder()?);
        }
        let mut waiters = Vec::new();
        for waiter in array("queue", queue)? {
            waiters.push(Fields(object("queue", waiter)?).waiter()?);
        }
        if waiters.len() > MAX_WAITERS {
            return Err(format!("it queues more than {MAX_WAITERS} waiters"));
        }
        // The order of grants: `also` keeps it but for the one at the top level.
        waiters.sort_by_key(queue::order);
        let mut record = Record { holders, queue: waiters };
        record.sort();
        let mut ids: Vec<&str> =
            record.holders.iter().map(|h| &*h.claim.id).chain(record.queue.iter().map(|w| &*w.claim.id)).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("an id stands in it twice".to_owned());
        }
        Ok(record)
    };
    let (also, queue) = (fields.remove("also").unwrap_or_default(), fields.remove("queue").unwrap_or_default());
    read(fields, also, queue).map_err(Unreadable::Corrupt)
}

fn array(key: &str, value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => Ok(values),
        _ => Err(format!("{key:?} isn't a list")),
    }
}

fn object(key: &str, value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(format!("{key:?} has an entry that isn't an object")),
    }
}

/// Every key that has a meaning somewhere in a record.
const KNOWN: [&str; 31] = [
    "id",
    "acquiredAt",
    "timeout",
    "fingerprint",
    "exclusive",
    "pid",
    "hostname",
    "v",
    "rev",
    "owner",
    "token",
    "mode",
    "ttl",
    "end",
    "waited",
    "bound",
    "process",
    "reason",
    "also",
    "queue",
    "priority",
    "rank",
    "since",
    "until",
    "boot",
    "pidns",
    "start",
    "group",
    "slots",
    "slot",
    "upgrades",
];

/// How deep an unknown field may be nested. It moves with its tenure to other places of the record,
/// and must be readable there too: the parser itself gives up at 128.
const MAX_EXTRA_DEPTH: usize = 64;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Takes known fields out one by one; what is left is [`Extra`].
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{key:?} isn't a string")),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if number <= MAX_NUMBER => Ok(Some(number)),
                // A JavaScript writer's clock may give fractions.
                _ => match value.as_f64() {
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
                    Some(number) if (0.0..=MAX_NUMBER as f64).contains(&number) => Ok(Some(number as u64)),
                    _ => Err(format!("{key:?} is {value}, not a number from 0 to 2^53-1")),
                },
            },
        }
    }

    fn small(&mut self, key: &str) -> Result<Option<u32>, String> {
        self.number(key)?.map(|number| u32::try_from(number).map_err(|_| format!("{key:?} is too large"))).transpose()
    }

    fn slots(&mut self) -> Result<Option<u32>, String> {
        match self.small("slots")? {
            Some(slots) if slots == 0 || slots > MAX_SLOTS => {
                Err(format!("\"slots\" is {slots}, not 1 to {MAX_SLOTS}"))
            }
            slots => Ok(slots),
        }
    }

    fn boot_time(&mut self, key: &str) -> Result<Option<BootTime>, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let mut fields = Fields(object(key, value)?);
                let (boot, at) = (fields.text("boot")?, fields.number("at")?);
                Ok(boot.zip(at).map(|(boot, at)| BootTime { boot, at }))
            }
        }
    }

    fn process(&mut self) -> Result<Option<ProcessStamp>, String> {
        match self.0.remove("process") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let mut fields = Fields(object("process", value)?);
                let boot = fields.text("boot")?.unwrap_or_default();
                let pidns = fields.number("pidns")?.unwrap_or_default();
                let (start, group) = (fields.number("start")?, fields.small("group")?);
                Ok(Some(ProcessStamp { boot, pidns, start, group, extra: fields.extra()? }))
            }
        }
    }

    /// What is left. A field that means something elsewhere in a record is dropped: carried along
    /// it could come to stand where it would be believed.
    fn extra(self) -> Result<Extra, String> {
        let extra: Extra = self.0.into_iter().filter(|(key, _)| !KNOWN.contains(&&**key)).collect();
        match extra.iter().find(|(_, value)| depth(value) > MAX_EXTRA_DEPTH) {
            Some((key, _)) => Err(format!("{key:?} is nested more than {MAX_EXTRA_DEPTH} deep")),
            None => Ok(extra),
        }
    }

    fn claim(mut self, exclusive: Option<bool>, timeout: u64) -> Result<Claim, String> {
        let id = self.text("id")?.filter(|id| !id.is_empty()).ok_or("\"id\" is missing")?;
        let hostname = self.text("hostname")?.unwrap_or_default();
        let pid = self.small("pid")?.unwrap_or_default();
        let mode = match self.text("mode")? {
            Some(word) => Mode::parse(&word).ok_or_else(|| format!("the mode {word:?} is unknown"))?,
            // Only an outright `false` says that others may stand beside it.
            None if exclusive == Some(false) => Mode::Shared,
            None => Mode::Exclusive,
        };
        let bound = match self.text("bound")?.as_deref() {
            Some("process") => Bound::Process,
            None | Some("lease") => Bound::Lease,
            Some(other) => return Err(format!("\"bound\" is {other:?}, not \"process\" or \"lease\"")),
        };
        Ok(Claim {
            owner: self.text("owner")?.unwrap_or_else(|| format!("{hostname}:{pid}")),
            fingerprint: self.text("fingerprint")?.unwrap_or_default(),
            ttl: self.number("ttl")?.unwrap_or(timeout),
            process: self.process()?,
            reason: self.text("reason")?,
            slots: self.slots()?,
            upgrades: self.text("upgrades")?,
            id,
            mode,
            bound,
            pid,
            hostname,
            extra: self.extra()?,
        })
    }

    fn signed(&mut self, key: &str) -> Result<i64, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| format!("{key:?} isn't a whole number")),
        }
    }

    fn priority(&mut self) -> Result<i32, String> {
        i32::try_from(self.signed("priority")?).map_err(|_| "\"priority\" is too large".to_owned())
    }

    fn holder(mut self) -> Result<Holder, String> {
        let acquired_at = self.number("acquiredAt")?.ok_or("\"acquiredAt\" is missing")?;
        let timeout = self.number("timeout")?.ok_or("\"timeout\" is missing")?;
        let exclusive = match self.0.remove("exclusive") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(exclusive)) => Some(exclusive),
            Some(_) => return Err("\"exclusive\" isn't true or false".to_owned()),
        };
        let (token, end) = (self.number("token")?, self.boot_time("end")?);
        let waited = self.number("waited")?.unwrap_or_default();
        let (slot, priority) = (self.small("slot")?, self.priority()?);
        Ok(Holder { acquired_at, timeout, token, end, waited, slot, priority, claim: self.claim(exclusive, timeout)? })
    }

    fn waiter(mut self) -> Result<Waiter, String> {
        let since = self.number("since")?.ok_or("a waiter has no \"since\"")?;
        let (rank, priority) = (self.signed("rank")?, self.priority()?);
        let (until, end) = (self.number("until")?, self.boot_time("end")?);
        if !self.0.contains_key("ttl") {
            return Err("a waiter has no \"ttl\"".to_owned());
        }
        Ok(Waiter { priority, rank, since, until, end, claim: self.claim(None, 0)? })
    }
}

/// A JSON value in which no object has a key twice: two readers must never see two records.
/// The depth is bounded by serde_json's own limit of 128.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
                let mut values = Vec::new();
                while let Some(Strict(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Strict(values.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut fields = Map::new();
                while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
                    if fields.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
                    }
                    fields.insert(key, value);
                }
                Ok(Strict(fields.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
