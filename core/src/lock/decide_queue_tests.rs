//! The queue, and how it is handed over to.

use super::*;

// ------------------------------------------------------------------ the queue

#[test]
fn waiters_are_served_in_order_of_arrival() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    for (at, id) in ["b", "c", "d"].into_iter().enumerate() {
        lab.pass(1);
        assert_eq!(queued(lab.ask(exclusive(id))).0, at);
    }
    for (holder, next) in [("a", "b"), ("b", "c"), ("c", "d")] {
        lab.ask(release(holder));
        assert_eq!(lab.holders(), [next]);
    }
}

#[test]
fn of_one_moment_the_first_to_be_written_is_first() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c"), exclusive("d")]);
    assert_eq!(lab.waiters(), ["b", "c", "d"]);
}

#[test]
fn a_step_of_priority_is_worth_thirty_seconds_of_waiting() {
    let step = u64::try_from(PRIORITY_STEP).unwrap();
    for (later, first) in [(step - 1, "high"), (step, "low"), (step + 1, "low")] {
        let mut lab = Lab::new();
        lab.ask(asks(Claim { ttl: 100 * TTL, ..claim("a", Mode::Exclusive) }, 0, None));
        lab.ask(with_priority("low", 2));
        lab.pass(later);
        lab.ask(with_priority("high", 3));
        assert_eq!(lab.waiters()[0], first, "{later} ms later");
    }
}

#[test]
fn priority_goes_below_zero_too() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    lab.ask(with_priority("low", -1));
    lab.pass(100);
    lab.ask(with_priority("usual", 0));
    lab.ask(with_priority("extreme", i32::MAX));
    lab.ask(with_priority("least", i32::MIN));
    assert_eq!(lab.waiters(), ["extreme", "usual", "low", "least"]);
}

#[test]
fn a_wall_clock_set_back_does_not_reorder_the_queue() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    lab.ask(exclusive("b"));
    let first = lab.record().queue[0].clone();
    lab.now.wall -= 3_600_000;
    let (ahead, place) = queued(lab.ask(exclusive("c")));
    assert_eq!((ahead, place), (1, Place { rank: first.rank, since: first.since }));
}

#[test]
fn a_newcomer_never_overtakes() {
    let mut lab = Lab::new();
    lab.ask(shared("reader"));
    lab.ask(exclusive("writer"));
    assert!(is_held(&lab.ask(attempt("b", Mode::Shared)), "reader", 1), "though it would fit beside the reader");
    assert_eq!(queued(lab.ask(shared("c"))).0, 1, "readers behind a waiting writer wait");
    assert_eq!((lab.holders(), lab.waiters()), (vec!["reader".to_owned()], vec!["writer".to_owned(), "c".to_owned()]));
}

#[test]
fn a_newcomer_that_is_first_by_its_priority_does_not_wait_for_nothing() {
    let newcomer = |priority, wait| asks(claim("c", Mode::Shared), priority, wait);
    for wait in [None, Some(Wait::default())] {
        let mut lab = Lab::new();
        lab.ask_all(&[shared("reader"), exclusive("writer")]);
        granted(lab.ask(newcomer(1, wait.clone())));
        assert_eq!((lab.left("c"), lab.waiters()), (TTL, vec!["writer".to_owned()]));
        let mut lab = Lab::new();
        lab.ask_all(&[shared("reader"), exclusive("writer")]);
        assert!(!matches!(lab.ask(newcomer(0, wait)), Outcome::Granted(_)), "of the same rank it comes second");
    }
}

#[test]
fn who_has_an_old_place_gets_it_back() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    let (_, place) = queued(lab.ask(exclusive("b")));
    lab.pass(10);
    lab.ask(exclusive("c"));
    // Another tool overwrote the record, and with it the queue.
    lab.pass(10);
    lab.state.held = Held::Free;
    lab.ask(exclusive("thief"));
    queued(lab.ask(exclusive("d")));
    let rejoins = Request::Acquire {
        claim: claim("b2", Mode::Exclusive),
        priority: 0,
        wait: Some(Wait::default()),
        place: Some(place),
        asked_before: false,
    };
    assert_eq!(queued(lab.ask(rejoins)), (0, place));
    assert_eq!(lab.waiters(), ["b2", "d"]);
    lab.pass(1_000);
    lab.ask(release("thief"));
    assert_eq!(lab.holder("b2").waited, 1_020, "counted from the first arrival");
}

/// The journal's tip names only the newest end, so it isn't what tells.
#[test]
fn who_slept_through_its_grant_and_two_more_tenures_needs_a_fresh_id() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
    lab.ask(release("a"));
    lab.pass(WINDOW);
    lab.ask(again(exclusive("c")));
    lab.ask(release("c"));
    lab.ask(exclusive("d"));
    lab.ask(release("d"));
    assert_eq!(lab.causes(), [("a", "released"), ("b", "expired"), ("c", "released"), ("d", "released")]);
    assert_eq!(lab.ask(again(exclusive("b"))), Outcome::Gone);
    assert_eq!(lab.state.held, Held::Free);
}

#[test]
fn the_queue_takes_so_many_and_no_more() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    let all: Vec<Request> = (0..MAX_WAITERS).map(|at| exclusive(&format!("w{at}"))).collect();
    assert!(lab.ask_all(&all).iter().all(|outcome| matches!(outcome, Outcome::Queued { .. })));
    assert_eq!(lab.ask(exclusive("late")), Outcome::Refused(Refusal::QueueFull));
    assert_eq!(lab.record().queue.len(), MAX_WAITERS);
}

// ------------------------------------------------------------------ hand-over

#[test]
fn a_release_hands_over_for_a_claim_window_and_claiming_extends_it() {
    let mut lab = Lab::new();
    let first = granted(lab.ask(exclusive("a")));
    lab.pass(100);
    lab.ask(exclusive("b"));
    lab.pass(400);
    let Outcome::Released(ended) = lab.ask(release("a")) else { panic!() };
    assert_eq!(ended, first);
    assert_eq!((lab.causes(), lab.holders(), lab.left("b")), (vec![("a", "released")], vec!["b".to_owned()], WINDOW));
    assert_eq!((lab.holder("b").waited, lab.next_deadline), (400, Some(WINDOW)));
    lab.pass(1_500);
    let claimed = granted(lab.ask(exclusive("b")));
    assert_eq!((lab.left("b"), claimed.ends_at()), (TTL, lab.now.wall + TTL));
    assert_eq!(claimed.acquired_at, lab.now.wall - 1_500, "acquiredAt stays");
}

#[test]
fn a_grant_that_is_not_claimed_costs_its_window() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
    lab.ask(release("a"));
    lab.pass(WINDOW);
    assert_eq!(lab.ask(again(exclusive("b"))), Outcome::Gone, "and its id is used up");
    assert_eq!((lab.causes().last().copied(), lab.holders()), (Some(("b", "expired")), vec!["c".to_owned()]));
}

#[test]
fn a_claim_window_is_no_longer_than_the_ttl() {
    let mut lab = Lab::observed();
    lab.ask(exclusive("a"));
    lab.ask(asks(Claim { ttl: 500, ..claim("b", Mode::Exclusive) }, 0, Some(Wait::default())));
    lab.ask(release("a"));
    assert_eq!(lab.left("b"), 500);
}

#[test]
fn all_leading_shared_waiters_are_granted_together() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), shared("b"), shared("c"), exclusive("d"), shared("e")]);
    lab.ask(release("a"));
    assert_eq!(
        (lab.holders(), lab.waiters()),
        (vec!["b".to_owned(), "c".to_owned()], vec!["d".to_owned(), "e".to_owned()])
    );
    lab.ask(release("b"));
    assert_eq!(lab.holders(), ["c"], "the writer waits for the last reader");
    lab.ask(release("c"));
    assert_eq!((lab.holders(), lab.waiters()), (vec!["d".to_owned()], vec!["e".to_owned()]));
}

#[test]
fn a_writer_that_leaves_lets_the_readers_behind_it_in() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), exclusive("b"), shared("c"), shared("d")]);
    assert_eq!(lab.ask(cancel("b")), Outcome::Cancelled { found: true });
    assert_eq!((lab.holders().join(" "), lab.waiters().len()), ("a c d".to_owned(), 0));
}

#[test]
fn who_asks_while_it_is_next_is_granted_its_whole_ttl() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b")]);
    lab.pass(TTL);
    granted(lab.ask(exclusive("b")));
    assert_eq!((lab.left("b"), lab.causes()), (TTL, vec![("a", "expired")]));
}

#[test]
fn late_and_dead_waiters_are_dropped_at_every_rewrite() {
    let mut lab = Lab::new();
    let until = |lab: &Lab, millis: u64| {
        let end = BootTime { boot: "boot".to_owned(), at: lab.now.boot + millis };
        Some(Wait { until: Some((lab.now.wall + millis, end)) })
    };
    let late = asks(claim("late", Mode::Exclusive), 0, until(&lab, 100));
    let patient = asks(claim("patient", Mode::Exclusive), 0, until(&lab, 102));
    let lease = Claim { bound: Bound::Lease, ..claim("lease", Mode::Exclusive) };
    lab.ask_all(&[exclusive("a"), late, exclusive("dead"), patient, asks(lease, 0, Some(Wait::default()))]);
    lab.dies("dead");
    lab.dies("lease");
    lab.pass(99);
    assert_eq!(lab.decide(&[]).edits.len(), 1, "the dead one goes");
    lab.pass(1);
    lab.ask(Request::Reap);
    let dropped = |id: &str, why| Event::Dropped { lock: 0, id: id.to_owned(), why };
    assert_eq!(lab.events, [dropped("late", "late"), dropped("dead", "dead")]);
    assert_eq!(lab.waiters(), ["patient", "lease"], "a lease-bound waiter's process means nothing");
}

#[test]
fn a_waiters_deadline_on_another_boot_is_read_on_the_wall_with_skew() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    let end = BootTime { boot: "another".to_owned(), at: 1 };
    let wait = Some(Wait { until: Some((lab.now.wall + 100, end)) });
    lab.ask(asks(claim("b", Mode::Exclusive), 0, wait));
    lab.pass(100 + SKEW - 1);
    assert_eq!(lab.decide(&[]).edits, []);
    lab.pass(1);
    lab.ask(Request::Reap);
    assert_eq!(lab.waiters().len(), 0);
}

#[test]
fn whose_wait_is_over_is_not_queued_again() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    let end = BootTime { boot: "boot".to_owned(), at: lab.now.boot };
    let over = asks(claim("b", Mode::Exclusive), 0, Some(Wait { until: Some((lab.now.wall, end)) }));
    assert!(is_held(&lab.ask(over.clone()), "a", 0));
    lab.ask(release("a"));
    granted(lab.ask(over));
}

#[test]
fn a_queue_that_nobody_alive_can_be_in_is_dropped() {
    let overdue = Policy::default().dead_queue_after();
    assert_eq!(overdue, 2 * WINDOW + SKEW + 1_000, "two claim windows, skew and a poll interval");
    for (millis, left) in [(overdue - 1, "b"), (overdue, "new")] {
        let mut lab = Lab::new();
        lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
        lab.pass(TTL + millis);
        lab.ask(exclusive("new"));
        assert_eq!(lab.holders(), [left], "{millis} ms overdue");
    }
    // Who asks is alive whatever the others are, and keeps its place.
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
    lab.pass(TTL + overdue);
    granted(lab.ask(exclusive("c")));
    assert_eq!(lab.waiters().len(), 0);
}

#[test]
fn a_queue_is_not_dead_while_somebody_holds() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), asks(Claim { ttl: 100 * TTL, ..claim("b", Mode::Shared) }, 0, None), exclusive("c")]);
    lab.pass(TTL + Policy::default().dead_queue_after());
    lab.ask(Request::Reap);
    assert_eq!((lab.holders(), lab.waiters()), (vec!["b".to_owned()], vec!["c".to_owned()]));
}

#[test]
fn a_queue_behind_a_half_finished_end_can_be_dead_too() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b")]);
    let half = lab.decide(&[release("a")]);
    lab.apply(&half.edits, 1);
    lab.pass(TTL + Policy::default().dead_queue_after());
    granted(lab.ask(exclusive("new")));
    assert_eq!(lab.holders(), ["new"]);
}
