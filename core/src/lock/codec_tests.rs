use proptest::prelude::*;
use serde_json::json;

use super::*;

fn claim(id: &str, mode: Mode) -> Claim {
    Claim {
        id: id.to_owned(),
        owner: format!("owner of {id}"),
        fingerprint: format!("print of {id}"),
        mode,
        ttl: 30_000,
        bound: Bound::Lease,
        process: None,
        pid: 12_345,
        hostname: "host".to_owned(),
        reason: None,
        slots: None,
        upgrades: None,
        extra: Extra::new(),
    }
}

fn holder(id: &str, mode: Mode, acquired_at: u64, timeout: u64) -> Holder {
    let claim = claim(id, mode);
    Holder { claim, acquired_at, timeout, token: Some(acquired_at), end: None, waited: 0, slot: None, priority: 0 }
}

fn waiter(id: &str, rank: i64) -> Waiter {
    Waiter { claim: claim(id, Mode::Exclusive), priority: 0, rank, since: 7, until: None, end: None }
}

fn bytes(record: &Record) -> Vec<u8> {
    encode(record, "rev").unwrap()
}

fn json_of(record: &Record) -> Value {
    serde_json::from_slice(&bytes(record)).unwrap()
}

/// The seven fields that other tools write.
fn seven() -> Value {
    json!({"id": "u", "acquiredAt": 1000, "timeout": 500, "fingerprint": "f", "exclusive": true, "pid": 7,
        "hostname": "h"})
}

/// What [`decode`] says of [`seven`] with these fields added or replaced.
fn with(fields: &Value) -> Result<Record, Unreadable> {
    let mut all = seven();
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    decode(all.to_string().as_bytes())
}

fn full() -> Record {
    let stamp = ProcessStamp {
        boot: "b00t".to_owned(),
        pidns: 4_026_531_836,
        start: Some(81_234),
        group: Some(99),
        extra: Extra::from([("cgroup".to_owned(), json!("/a"))]),
    };
    let end = |at| Some(BootTime { boot: "b00t".to_owned(), at });
    let mut first = holder("first", Mode::Shared, 1_000, 500);
    first.claim.extra.insert("color".to_owned(), json!(["red", {"deep": null}]));
    let mut last = holder("last", Mode::Shared, 1_200, 30_000);
    last.claim.bound = Bound::Process;
    last.claim.process = Some(stamp.clone());
    last.claim.reason = Some("deploy \"v1.2\"\n".to_owned());
    (last.end, last.waited) = (end(99_123_456), 17);
    let mut next = waiter("next", -59_000);
    (next.priority, next.until, next.end) = (2, Some(4_000), end(99_000_000));
    (next.claim.bound, next.claim.process) = (Bound::Process, Some(stamp));
    next.claim.extra.insert("ü".to_owned(), json!(1));
    Record { holders: vec![first, last], queue: vec![next, waiter("after", 1_300)] }
}

// ------------------------------------------------------------------ writing

/// The format is a contract with other implementations: whoever changes these bytes breaks it.
#[test]
fn the_bytes_of_a_full_record() {
    let golden = concat!(
        r#"{"id":"last","acquiredAt":1200,"timeout":30000,"fingerprint":"print of last","exclusive":false,"pid":12345,"#,
        r#""hostname":"host","v":1,"rev":"rev","owner":"owner of last","token":1200,"mode":"shared","ttl":30000,"#,
        r#""end":{"boot":"b00t","at":99123456},"waited":17,"bound":"process","process":{"boot":"b00t","#,
        r#""pidns":4026531836,"start":81234,"group":99,"cgroup":"/a"},"reason":"deploy \"v1.2\"\n","#,
        r#""also":[{"id":"first","acquiredAt":1000,"timeout":500,"fingerprint":"print of first","exclusive":false,"#,
        r#""pid":12345,"hostname":"host","owner":"owner of first","token":1000,"mode":"shared","ttl":30000,"#,
        r#""bound":"lease","color":["red",{"deep":null}]}],"#,
        r#""queue":[{"id":"next","owner":"owner of next","fingerprint":"print of next","mode":"exclusive","#,
        r#""priority":2,"rank":-59000,"since":7,"until":4000,"end":{"boot":"b00t","at":99000000},"ttl":30000,"#,
        r#""pid":12345,"hostname":"host","bound":"process","process":{"boot":"b00t","pidns":4026531836,"#,
        r#""start":81234,"group":99,"cgroup":"/a"},"ü":1},"#,
        r#"{"id":"after","owner":"owner of after","fingerprint":"print of after","mode":"exclusive","priority":0,"#,
        r#""rank":1300,"since":7,"ttl":30000,"pid":12345,"hostname":"host","bound":"lease"}]}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(bytes(&full())).unwrap(), golden);
    assert_eq!(decode(golden.as_bytes()).unwrap(), full());
}

#[test]
fn every_write_has_its_own_bytes_by_its_rev_alone() {
    assert_eq!(encode(&full(), "a"), encode(&full(), "a"));
    assert_ne!(encode(&full(), "a"), encode(&full(), "b"));
}

#[test]
fn readers_of_seven_fields_see_the_holder_whose_lease_ends_last() {
    let holders = vec![
        holder("short", Mode::Shared, 3_000, 100),
        holder("long", Mode::Shared, 1_000, 9_000),
        holder("mid", Mode::Shared, 2_000, 1_000),
    ];
    let value = json_of(&Record { holders, queue: Vec::new() });
    let seen = |key: &str| value[key].clone();
    assert_eq!(
        [seen("id"), seen("acquiredAt"), seen("timeout"), seen("fingerprint"), seen("exclusive"), seen("pid")],
        [json!("long"), json!(1_000), json!(9_000), json!("print of long"), json!(false), json!(12_345)]
    );
    assert_eq!(seen("hostname"), json!("host"));
    let also: Vec<&Value> = value["also"].as_array().unwrap().iter().map(|other| &other["id"]).collect();
    assert_eq!(also, ["short", "mid"], "the others in the order of their grants");
}

#[test]
fn exclusive_is_true_for_exclusive_alone() {
    for mode in Mode::ALL {
        let value = json_of(&Record { holders: vec![holder("a", mode, 1, 1)], queue: Vec::new() });
        assert_eq!(value["exclusive"], json!(mode == Mode::Exclusive), "{mode}");
    }
}

#[test]
fn a_record_that_no_blob_may_hold_is_not_written() {
    let mut record = full();
    record.queue[0].claim.reason = Some("x".repeat(MAX_RECORD_BYTES));
    assert_eq!(encode(&record, "rev"), Err(TooLarge));
    record.queue[0].claim.reason = Some(String::new());
    let room = MAX_RECORD_BYTES - bytes(&record).len();
    record.queue[0].claim.reason = Some("x".repeat(room));
    assert_eq!(decode(&bytes(&record)), Ok(record), "what is written can be read, up to the last byte");
}

// ------------------------------------------------------------------ reading what others wrote

#[test]
fn a_record_of_seven_fields_is_a_lease_bound_holder() {
    let record = with(&json!({})).unwrap();
    let [holder] = &record.holders[..] else { panic!("{record:?}") };
    assert!(record.queue.is_empty());
    assert_eq!((holder.acquired_at, holder.timeout, holder.ends_at()), (1_000, 500, 1_500));
    assert_eq!((holder.token, &holder.end, holder.waited), (None, &None, 0));
    let claim = &holder.claim;
    assert_eq!((&*claim.id, &*claim.fingerprint, &*claim.owner), ("u", "f", "h:7"));
    assert_eq!((claim.mode, claim.bound, claim.ttl, claim.pid), (Mode::Exclusive, Bound::Lease, 500, 7));
    assert_eq!(claim.process, None);
}

#[test]
fn only_an_outright_false_is_shared() {
    let mode = |fields: Value| with(&fields).unwrap().holders[0].claim.mode;
    assert_eq!(mode(json!({"exclusive": false})), Mode::Shared);
    assert_eq!(mode(json!({"exclusive": null})), Mode::Exclusive);
    let mut absent = seven();
    absent.as_object_mut().unwrap().remove("exclusive");
    assert_eq!(decode(absent.to_string().as_bytes()).unwrap().holders[0].claim.mode, Mode::Exclusive);
    assert_eq!(mode(json!({"exclusive": true, "mode": "shared"})), Mode::Shared, "the mode says more");
}

#[test]
fn fractions_are_rounded_down() {
    let record = with(&json!({"acquiredAt": 1000.9, "timeout": 499.999})).unwrap();
    assert_eq!((record.holders[0].acquired_at, record.holders[0].timeout), (1_000, 499));
}

#[test]
fn unknown_fields_belong_to_their_tenure() {
    let text = json!({"id": "a", "acquiredAt": 1, "timeout": 90, "x-top": {"deep": [1]}, "token": 1,
        "also": [{"id": "b", "acquiredAt": 2, "timeout": 1, "token": 2, "x-also": true}],
        "queue": [{"id": "c", "since": 3, "rank": 3, "ttl": 4, "x-queue": "q"}]});
    let mut record = decode(text.to_string().as_bytes()).unwrap();
    let of = |claim: &Claim| serde_json::to_value(&claim.extra).unwrap();
    assert_eq!(of(&record.holders[0].claim), json!({"x-top": {"deep": [1]}}));
    assert_eq!(of(&record.holders[1].claim), json!({"x-also": true}));
    assert_eq!(of(&record.queue[0].claim), json!({"x-queue": "q"}));
    // The other one comes to the top, and a waiter becomes a holder.
    record.holders[1].timeout = 1_000;
    let Waiter { claim, .. } = record.queue.remove(0);
    record.holders.push(Holder { claim, token: Some(3), ..holder("x", Mode::Shared, 4, 1) });
    let value = json_of(&record);
    assert_eq!((&value["id"], &value["x-also"]), (&json!("b"), &json!(true)));
    assert_eq!((&value["also"][0]["id"], &value["also"][0]["x-top"]), (&json!("a"), &json!({"deep": [1]})));
    assert_eq!((&value["also"][1]["id"], &value["also"][1]["x-queue"]), (&json!("c"), &json!("q")));
    assert_eq!((value.get("x-top"), value.get("x-queue")), (None, None));
    assert_eq!(decode(&bytes(&record)).unwrap(), record);
}

#[test]
fn a_field_that_means_something_elsewhere_is_not_carried_there() {
    // A waiter with a "token" must not become a holder with that token, nor with another `also`.
    let waiter = json!({"id": "c", "since": 3, "ttl": 4, "token": 9, "also": [], "v": 7, "acquiredAt": 1});
    let record = with(&json!({"priority": 5, "queue": [waiter]})).unwrap();
    assert!(record.queue[0].claim.extra.is_empty(), "{record:?}");
    assert!(record.holders[0].claim.extra.is_empty(), "{record:?}");
}

#[test]
fn deep_unknown_fields_can_be_read_wherever_they_go() {
    let nested = |depth: usize| {
        (0..depth).fold(json!(1), |inner, at| if at % 2 == 0 { json!([inner]) } else { json!({"k": inner}) })
    };
    let mut record = with(&json!({"x": nested(MAX_EXTRA_DEPTH)})).unwrap();
    record.holders.push(holder("later", Mode::Shared, 9_000, 9_000));
    assert_eq!(decode(&bytes(&record)).unwrap(), record, "from the top level into `also`");
    // Found by this test: at 126 a joining holder made the record unreadable for everybody.
    assert!(matches!(with(&json!({"x": nested(MAX_EXTRA_DEPTH + 1)})), Err(Unreadable::Corrupt(_))));
    assert!(matches!(with(&json!({"process": {"x": nested(126)}})), Err(Unreadable::Corrupt(_))));
}

#[test]
fn a_newer_version_is_refused_whatever_it_says() {
    assert_eq!(with(&json!({"v": 2})), Err(Unreadable::TooNew(2)));
    assert_eq!(with(&json!({"v": 2, "queue": 5, "mode": "sideways"})), Err(Unreadable::TooNew(2)));
    assert_eq!(decode(br#"{"v":18446744073709551615}"#), Err(Unreadable::TooNew(u64::MAX)));
    assert!(with(&json!({"v": 1})).is_ok() && with(&json!({"v": null})).is_ok());
    for odd in [json!(0), json!(-1), json!("1"), json!(1.5), json!([1]), json!(true)] {
        assert!(matches!(with(&json!({"v": odd})), Err(Unreadable::Corrupt(_))), "{odd}");
    }
}

// ------------------------------------------------------------------ hostile input

#[test]
fn wrong_types_and_numbers_out_of_range_are_corrupt() {
    let wrong = json!({
        "id": [null, "", 5, [], {}],
        "acquiredAt": [null, -1, -1.5, "1000", 9_007_199_254_740_992_u64, u64::MAX, 1e300, [], {}, true],
        "timeout": [null, -1, "1", 9_007_199_254_740_992_u64, 1e16, [], false],
        "fingerprint": [5, [], {}],
        "exclusive": [0, "true", []],
        "pid": [-1, "7", 4_294_967_296_u64, []],
        "hostname": [5, {}],
        "owner": [5],
        "token": [-1, "1", 9_007_199_254_740_992_u64, []],
        "mode": ["Exclusive", "", 5, []],
        "ttl": [-1, "5", 1e17],
        "end": [5, "x", [], {"boot": 5}, {"boot": "b", "at": -1}, {"boot": "b", "at": "1"}],
        "waited": [-1, "x"],
        "bound": ["sun", 5],
        "process": [5, "x", [], {"boot": 5}, {"pidns": "x"}, {"start": -1}, {"group": 4_294_967_296_u64}],
        "reason": [5, []],
        "also": [5, "x", {}, [5], [[]], [{}], [{"id": "b"}], [seven()]],
        "queue": [5, "x", {}, [5], [{}], [{"id": "b"}], [{"id": "b", "since": 1}], [{"id": "b", "since": -1, "ttl": 1}],
            [{"id": "b", "since": 1, "ttl": 1, "rank": 1.5}], [{"id": "b", "since": 1, "ttl": 1, "rank": "x"}],
            [{"id": "b", "since": 1, "ttl": 1, "priority": 2_147_483_648_u64}], [{"id": "u", "since": 1, "ttl": 1}],
            [{"id": "b", "since": 1, "ttl": 1}, {"id": "b", "since": 1, "ttl": 1}]],
    });
    for (key, values) in wrong.as_object().unwrap() {
        for value in values.as_array().unwrap() {
            let told = with(&json!({ key: value }));
            assert!(matches!(told, Err(Unreadable::Corrupt(_))), "{key} = {value}: {told:?}");
        }
    }
}

#[test]
fn what_is_no_record_at_all_is_corrupt() {
    let not: [&[u8]; 16] = [
        b"",
        b" ",
        b"\0",
        b"null",
        b"[]",
        b"5",
        b"\"x\"",
        b"{}",
        b"{",
        b"{\"id\":\"a\"}",
        b"{\"id\":\"\xff\",\"acquiredAt\":1,\"timeout\":1}",
        b"{\"id\":\"\\ud800\",\"acquiredAt\":1,\"timeout\":1}",
        b"{\"id\":\"a\",\"acquiredAt\":1,\"timeout\":1}{}",
        b"{\"id\":\"a\",\"acquiredAt\":1,\"timeout\":1e999}",
        b"{\"id\":\"a\",\"acquiredAt\":NaN,\"timeout\":1}",
        b"\xef\xbb\xbf{\"id\":\"a\",\"acquiredAt\":1,\"timeout\":1}",
    ];
    for bytes in not {
        assert!(matches!(decode(bytes), Err(Unreadable::Corrupt(_))), "{}", bytes.escape_ascii());
    }
    assert!(decode(b"{\"id\":\"a\",\"acquiredAt\":1,\"timeout\":1}").is_ok(), "the control");
}

#[test]
fn a_key_that_stands_twice_is_corrupt_wherever_it_stands() {
    for text in [
        r#"{"id":"a","id":"b","acquiredAt":1,"timeout":1}"#,
        r#"{"id":"a","acquiredAt":1,"timeout":1,"timeout":999999}"#,
        r#"{"id":"a","acquiredAt":1,"timeout":1,"\u0069d":"b"}"#,
        r#"{"id":"a","acquiredAt":1,"timeout":1,"x":{"y":[{"z":1,"z":1}]}}"#,
        r#"{"id":"a","acquiredAt":1,"timeout":1,"queue":[{"id":"b","since":1,"ttl":1,"ttl":2}]}"#,
    ] {
        let Err(Unreadable::Corrupt(why)) = decode(text.as_bytes()) else { panic!("{text}") };
        assert!(why.contains("stands twice"), "{why}");
    }
}

#[test]
fn fifty_megabytes_are_refused_unread() {
    let mut huge = b"{\"id\":\"a\",\"acquiredAt\":1,\"timeout\":1,\"x\":\"".to_vec();
    huge.resize(50_000_000, b'x');
    huge.extend_from_slice(b"\"}");
    assert!(matches!(decode(&huge), Err(Unreadable::Corrupt(_))));
}

#[test]
fn ten_thousand_levels_are_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = open.repeat(10_000) + "1" + &close.repeat(10_000);
        for text in [deep.clone(), format!("{{\"id\":\"a\",\"acquiredAt\":1,\"timeout\":1,\"x\":{deep}}}")] {
            assert!(matches!(decode(text.as_bytes()), Err(Unreadable::Corrupt(_))));
        }
        assert!(matches!(decode(open.repeat(500_000).as_bytes()), Err(Unreadable::Corrupt(_))), "never closed");
    }
}

#[test]
fn one_waiter_too_many_is_corrupt() {
    let queue = |count: usize| {
        let one = |at: usize| json!({"id": format!("w{at}"), "since": 1, "rank": at, "ttl": 1});
        with(&json!({"queue": (0..count).map(one).collect::<Vec<_>>()}))
    };
    assert_eq!(queue(MAX_WAITERS).unwrap().queue.len(), MAX_WAITERS);
    assert!(matches!(queue(MAX_WAITERS + 1), Err(Unreadable::Corrupt(_))));
}

// ------------------------------------------------------------------ any record, any bytes

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..=MAX_NUMBER, Just(MAX_NUMBER)]
}

fn boot_time() -> impl Strategy<Value = BootTime> {
    ("[a-f0-9-]{0,8}", number()).prop_map(|(boot, at)| BootTime { boot, at })
}

fn extra() -> impl Strategy<Value = Extra> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from)
    ];
    let value = leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("x-.{0,5}", value, 0..3)
}

fn stamp() -> impl Strategy<Value = ProcessStamp> {
    (".{0,6}", number(), prop::option::of(number()), prop::option::of(any::<u32>()), extra())
        .prop_map(|(boot, pidns, start, group, extra)| ProcessStamp { boot, pidns, start, group, extra })
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let who = (".{0,8}", ".{0,8}", any::<u32>(), ".{0,8}", prop::option::of(".{0,8}"));
    let kind = (0..4_usize, prop::option::of(1..9_u32), prop::option::of(".{0,3}"));
    let what = (kind, number(), any::<bool>(), prop::option::of(stamp()), extra());
    (who, what).prop_map(
        |((owner, fingerprint, pid, hostname, reason), ((mode, slots, upgrades), ttl, bound, process, extra))| Claim {
            id: String::new(),
            owner,
            fingerprint,
            mode: Mode::ALL[mode],
            ttl,
            bound: if bound { Bound::Process } else { Bound::Lease },
            process,
            pid,
            hostname,
            reason,
            slots,
            upgrades,
            extra,
        },
    )
}

/// Any record as it stands in memory: holders by their grants, waiters by rank, no id twice.
fn any_record() -> impl Strategy<Value = Record> {
    let a_holder = (
        any_claim(),
        number(),
        number(),
        prop::option::of(number()),
        prop::option::of(boot_time()),
        (number(), prop::option::of(0..8_u32), any::<i32>()),
    )
        .prop_map(|(claim, acquired_at, timeout, token, end, (waited, slot, priority))| Holder {
            claim,
            acquired_at,
            timeout,
            token,
            end,
            waited,
            slot,
            priority,
        });
    let a_waiter =
        (any_claim(), any::<i32>(), any::<i64>(), number(), prop::option::of(number()), prop::option::of(boot_time()))
            .prop_map(|(claim, priority, rank, since, until, end)| Waiter { claim, priority, rank, since, until, end });
    (prop::collection::vec(a_holder, 1..5), prop::collection::vec(a_waiter, 0..5)).prop_map(
        |(mut holders, mut queue)| {
            let ids = holders.iter_mut().map(|h| &mut h.claim).chain(queue.iter_mut().map(|w| &mut w.claim));
            ids.enumerate().for_each(|(at, claim)| claim.id = format!("id{at}"));
            holders.sort_by_key(|h| (h.token, h.acquired_at, h.claim.id.clone()));
            queue.sort_by_key(crate::lock::queue::order);
            Record { holders, queue }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(record in any_record()) {
        let bytes = bytes(&record);
        prop_assert!(decode(&bytes) == Ok(record.clone()), "{record:?}");
        prop_assert_eq!(encode(&decode(&bytes).unwrap(), "rev"), Ok(bytes));
        let value = json_of(&record);
        let top = record.last_to_end().unwrap();
        prop_assert!(record.holders.iter().all(|holder| holder.ends_at() <= top.ends_at()));
        prop_assert_eq!(&value["id"], &json!(top.claim.id));
        prop_assert_eq!(&value["acquiredAt"], &json!(top.acquired_at));
        prop_assert_eq!(&value["timeout"], &json!(top.timeout));
        prop_assert_eq!(&value["fingerprint"], &json!(top.claim.fingerprint));
        prop_assert_eq!(&value["exclusive"], &json!(top.claim.mode == Mode::Exclusive));
        prop_assert_eq!(&value["pid"], &json!(top.claim.pid));
        prop_assert_eq!(&value["hostname"], &json!(top.claim.hostname));
    }

    /// Whatever the bytes are: a record with a holder, or an error. Never a panic, never "free".
    #[test]
    fn damaged_bytes_are_never_free(record in any_record(), at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut bytes = bytes(&record);
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(read) = decode(&bytes) {
            prop_assert!(!read.holders.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(decode(&bytes).is_err());
    }

    /// Other tools' JSON, whatever it looks like: what can be read can be written and read again.
    #[test]
    fn foreign_json_is_carried_faithfully(extra in extra(), acquired in number(), timeout in number()) {
        let mut value = json!({"id": "f", "acquiredAt": acquired, "timeout": timeout});
        value.as_object_mut().unwrap().extend(extra.clone());
        let record = decode(value.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&record.holders[0].claim.extra, &extra);
        prop_assert_eq!(decode(&bytes(&record)), Ok(record));
    }
}
