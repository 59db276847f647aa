//! How tenures end.

use super::*;

// ------------------------------------------------------------------ the end of a lease

#[test]
fn on_its_own_boot_only_the_boot_clock_counts() {
    for jump in [-3_600_000_i64, 0, 3_600_000] {
        let mut lab = Lab::new();
        lab.ask(exclusive("a"));
        lab.now.wall = lab.now.wall.checked_add_signed(jump).unwrap();
        lab.now.boot += TTL - 1;
        assert!(is_held(&lab.ask(attempt("b", Mode::Exclusive)), "a", 0), "{jump}");
        assert_eq!(lab.next_deadline, Some(1));
        lab.now.boot += 1;
        granted(lab.ask(attempt("b", Mode::Exclusive)));
        assert_eq!(lab.causes(), [("a", "expired")]);
    }
}

#[test]
fn on_another_boot_the_wall_clock_counts_with_skew() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    lab.reboot();
    lab.now.wall += TTL + SKEW - 1;
    assert!(is_held(&lab.ask(attempt("b", Mode::Exclusive)), "a", 0));
    lab.now.wall += 1;
    granted(lab.ask(attempt("b", Mode::Exclusive)));
}

#[test]
fn an_observer_goes_by_what_it_saw() {
    let mut lab = Lab::observed();
    lab.ask(exclusive("a"));
    lab.reboot();
    lab.now.wall += 100 * TTL;
    assert!(is_held(&lab.ask(attempt("b", Mode::Exclusive)), "a", 0), "never seen before");
    lab.unchanged("a", TTL - 1);
    assert!(is_held(&lab.ask(attempt("b", Mode::Exclusive)), "a", 0));
    assert_eq!(lab.next_deadline, Some(1));
    lab.unchanged("a", TTL);
    granted(lab.ask(attempt("b", Mode::Exclusive)));
}

#[test]
fn an_observer_gives_an_unclaimed_grant_its_window() {
    let mut lab = Lab::observed();
    lab.ask_all(&[exclusive("a"), exclusive("b")]);
    lab.ask(release("a"));
    lab.reboot();
    lab.unchanged("b", WINDOW - 1);
    assert!(is_held(&lab.ask(attempt("c", Mode::Exclusive)), "b", 0));
    lab.unchanged("b", WINDOW);
    granted(lab.ask(attempt("c", Mode::Exclusive)));
}

/// What an observer takes for the length of a lease is never less than its holder believes in.
#[test]
fn after_every_write_at_most_one_ttl_is_left() {
    let mut lab = Lab::observed();
    lab.ask(exclusive("a"));
    lab.ask(extend("a", 100));
    assert_eq!((lab.left("a"), lab.holder("a").claim.ttl), (TTL, TTL), "extending never shortens");
    lab.pass(TTL - 50);
    lab.ask(extend("a", 100));
    assert_eq!((lab.left("a"), lab.holder("a").claim.ttl), (100, 100));
    lab.ask(extend("a", 2 * TTL));
    assert_eq!((lab.left("a"), lab.holder("a").claim.ttl), (2 * TTL, 2 * TTL));
}

/// An observer goes by whether the entry (id and timeout) changes.
#[test]
fn every_renewal_raises_the_timeout_whatever_the_wall_clock_does() {
    let mut lab = Lab::new();
    let mut before = granted(lab.ask(exclusive("a"))).timeout;
    lab.now.wall -= 3_600_000;
    for _ in 0..3 {
        lab.now.boot += 10_000;
        let Outcome::Extended(holder) = lab.ask(extend("a", TTL)) else { panic!() };
        assert!(holder.timeout > before, "{} then {}", before, holder.timeout);
        assert_eq!(lab.left("a"), TTL, "the lease itself is not longer for it");
        before = holder.timeout;
    }
}

// ------------------------------------------------------------------ dead owners

#[test]
fn a_provably_dead_owner_has_ended_at_once() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b")]);
    lab.dies("a");
    lab.ask(Request::Reap);
    assert_eq!((lab.holders(), lab.causes()), (vec!["b".to_owned()], vec![("a", "owner died")]));
    let ended = Event::Ended { lock: 0, id: Some("a".to_owned()), cause: Cause::OwnerDied };
    assert_eq!(lab.events[0], ended);
}

#[test]
fn death_means_nothing_to_a_lease_bound_tenure_and_the_unknown_is_alive() {
    let mut lab = Lab::new();
    lab.ask(asks(Claim { bound: Bound::Lease, ..claim("a", Mode::Shared) }, 0, None));
    lab.ask(shared("b"));
    lab.dies("a");
    lab.unchanged("b", 0);
    assert_eq!(lab.decide(&[Request::Reap]).edits, []);
    lab.pass(TTL);
    lab.ask(Request::Reap);
    assert_eq!(lab.causes(), [("a", "expired"), ("b", "expired")]);
    assert_eq!(lab.state.held, Held::Free);
}

// ------------------------------------------------------------------ closing

/// Found at a server without atomic pushes: a grant was claimed between the two pushes of another's end of it.
#[test]
fn what_is_over_is_closed_in_the_record_before_it_ends() {
    for (by, cause) in [("time", "expired"), ("death", "owner died")] {
        let mut lab = Lab::new();
        lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
        if by == "time" {
            lab.pass(TTL)
        } else {
            lab.dies("a")
        }
        let before = lab.record();
        assert_eq!(lab.close(&[exclusive("b")]), [], "nothing has ended yet");
        let (holder, closed) = (before.holders[0].clone(), lab.holder("a"));
        assert!(closed.is_closed() && closed.end.as_ref().is_some_and(|end| end.at <= lab.now.boot), "{closed:?}");
        assert_eq!(Holder { timeout: holder.timeout, end: holder.end.clone(), ..closed }, holder, "and nothing else");
        assert_eq!(lab.record().queue, before.queue);
        // Whoever comes now finds it ended, also who knows nothing of what the closer knew.
        lab.facts = Facts::default();
        let refused = |outcome: &Outcome| *outcome == Outcome::Refused(Refusal::NotHeld);
        for asks in [extend("a", TTL), release("a")] {
            assert!(refused(&lab.decide(std::slice::from_ref(&asks)).outcomes[0]), "{asks:?}");
        }
        assert_eq!(lab.decide(&[again(exclusive("a"))]).outcomes, [Outcome::Gone]);
        for reboots in [false, true] {
            if reboots {
                lab.reboot();
            }
            assert_eq!(view(&lab.state, lab.context()).holders[0].claim.id, "b", "whatever its clocks say");
        }
        lab.ask(Request::Reap);
        assert_eq!((lab.holders(), lab.causes().len()), (vec!["b".to_owned()], 1), "{cause}");
    }
}

#[test]
fn a_closed_lease_is_over_to_observers_at_once() {
    let mut lab = Lab::observed();
    lab.ask_all(&[exclusive("a"), exclusive("b")]);
    lab.pass(TTL);
    lab.close(&[Request::Reap]);
    lab.reboot();
    assert_eq!(view(&lab.state, lab.context()).holders[0].claim.id, "b");
}

#[test]
fn who_finds_its_own_lease_over_closes_it_too() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    lab.pass(TTL);
    lab.close(&[extend("a", TTL)]);
    assert_eq!(lab.ask(extend("a", TTL)), Outcome::Refused(Refusal::NotHeld));
    assert_eq!(lab.causes(), [("a", "expired")]);
}

#[test]
fn a_dead_queue_goes_with_the_closing() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
    lab.pass(TTL + lab.policy.dead_queue_after());
    let dropped = |id: &str| Event::Dropped { lock: 0, id: id.to_owned(), why: "its queue was dead" };
    assert_eq!(lab.close(&[again(exclusive("c"))]), [dropped("b")], "but not who asks");
    assert_eq!(lab.waiters(), ["c"]);
}

#[test]
fn one_of_several_shared_holders_is_closed_alone() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), shared("b")]);
    lab.dies("a");
    lab.close(&[Request::Reap]);
    assert_eq!((lab.holder("a").is_closed(), lab.holder("b").is_closed()), (true, false));
    lab.ask(Request::Reap);
    assert_eq!((lab.holders(), lab.causes()), (vec!["b".to_owned()], vec![("a", "owner died")]));
}

// ------------------------------------------------------------------ extend

#[test]
fn extending_keeps_acquired_at_and_raises_the_timeout() {
    let mut lab = Lab::new();
    let before = granted(lab.ask(exclusive("a")));
    lab.pass(20_000);
    let Outcome::Extended(after) = lab.ask(extend("a", TTL)) else { panic!() };
    assert_eq!((after.acquired_at, after.timeout, after.token), (before.acquired_at, 20_000 + TTL, before.token));
    let own = Request::Extend { tenure: tenure("a"), ttl: None, rebind: None };
    lab.pass(1_000);
    lab.ask(own);
    assert_eq!(lab.left("a"), TTL, "without a length it is the tenure's own");
}

#[test]
fn an_ended_lease_cannot_be_extended_even_if_nobody_has_taken_the_lock() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    lab.pass(TTL);
    assert_eq!(lab.ask(extend("a", TTL)), Outcome::Refused(Refusal::NotHeld));
    assert_eq!((lab.state.held.clone(), lab.causes()), (Held::Free, vec![("a", "expired")]));
    assert_eq!(lab.ask(again(exclusive("a"))), Outcome::Gone, "nor taken up again under its id");
    granted(lab.ask(exclusive("a2")));
}

#[test]
fn a_tenure_moves_to_another_process() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    let rebind = Rebind { bound: Bound::Lease, process: None, pid: 99, hostname: "elsewhere".to_owned() };
    lab.ask(Request::Extend { tenure: tenure("a"), ttl: None, rebind: Some(rebind) });
    lab.dies("a");
    lab.ask(Request::Reap);
    let claim = lab.holder("a").claim;
    assert_eq!((claim.pid, &*claim.hostname, claim.bound, claim.process), (99, "elsewhere", Bound::Lease, None));
}

#[test]
fn extending_on_another_boot_starts_from_its_clock() {
    let mut lab = Lab::new();
    lab.ask(exclusive("a"));
    lab.reboot();
    lab.now.wall += 10_000;
    lab.ask(extend("a", 5_000));
    let holder = lab.holder("a");
    assert_eq!(holder.end, Some(BootTime { boot: "next boot".to_owned(), at: lab.now.boot + 5_000 }));
    assert_eq!(holder.claim.ttl, 5_000);
    assert!(holder.ends_at() >= lab.now.wall + 5_000);
}

// ------------------------------------------------------------------ release

#[test]
fn a_release_needs_the_proof() {
    let mut lab = Lab::new();
    let secret = Claim { fingerprint: fingerprint::hash("secret"), ..claim("a", Mode::Exclusive) };
    let held = granted(lab.ask(asks(secret, 0, None)));
    let by = |id: Option<&str>, proof: &str| Tenure { id: id.map(str::to_owned), proof: proof.to_owned() };
    let not_owner = Outcome::Refused(Refusal::NotOwner(Box::new(held.clone())));
    for wrong in ["", "guess", &fingerprint::hash("secret")] {
        for id in [Some("a"), None] {
            assert_eq!(lab.ask(Request::Release { tenure: by(id, wrong) }), not_owner, "{id:?} {wrong}");
            let extends = Request::Extend { tenure: by(id, wrong), ttl: None, rebind: None };
            assert_eq!(lab.ask(extends), not_owner);
        }
    }
    assert_eq!(lab.ask(Request::Release { tenure: by(Some("x"), "secret") }), Outcome::Refused(Refusal::NotHeld));
    assert_eq!(lab.ask(Request::Release { tenure: by(Some("a"), "secret") }), Outcome::Released(held));
    assert_eq!(lab.ask(Request::Release { tenure: by(None, "secret") }), Outcome::Refused(Refusal::NotHeld));
}

#[test]
fn by_its_fingerprint_alone_a_tenure_of_several_is_found() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), shared("b"), shared("c")]);
    let outcome = lab.ask(Request::Release { tenure: Tenure { id: None, proof: proof("b") } });
    assert!(matches!(outcome, Outcome::Released(holder) if holder.claim.id == "b"));
    assert_eq!(lab.holders(), ["a", "c"]);
}

#[test]
fn the_last_release_deletes_the_ref_and_the_journal_goes_first() {
    let mut lab = Lab::new();
    let holder = granted(lab.ask(exclusive("a")));
    let edits = lab.decide(&[release("a")]).edits;
    let [Edit::Journal { entries, finished, .. }, Edit::Remove { lock: 0 }] = &edits[..] else { panic!("{edits:?}") };
    let [entry] = &entries[..] else { panic!("one commit per tenure: {entries:?}") };
    assert_eq!((entry.at, entry.cause, entry.highest_token), (lab.now.wall, Cause::Released, holder.token.unwrap()));
    assert_eq!((entry.holder.as_ref(), finished.len()), (Some(&holder), 0));
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b")]);
    let edits = lab.decide(&[release("a")]).edits;
    assert!(matches!(&edits[..], [Edit::Journal { .. }, Edit::Put { .. }]), "{edits:?}");
}

// ------------------------------------------------------------------ cancel and break

#[test]
fn a_cancel_takes_the_wait_away_or_what_was_granted_meanwhile() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
    assert_eq!(lab.ask(cancel("b")), Outcome::Cancelled { found: true });
    assert_eq!((lab.waiters(), lab.causes().len()), (vec!["c".to_owned()], 0), "a wait is no tenure");
    lab.ask(release("a"));
    assert_eq!(lab.ask(cancel("c")), Outcome::Cancelled { found: true });
    assert_eq!((lab.state.held.clone(), lab.causes().pop()), (Held::Free, Some(("c", "cancelled"))));
    assert_eq!(lab.ask(cancel("c")), Outcome::Cancelled { found: false });
}

#[test]
fn a_cancel_names_every_id_it_ever_asked_under() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a1"), exclusive("a2"), shared("b")]);
    let all = Request::Cancel { ids: ["a0", "a1", "a2"].map(str::to_owned).to_vec() };
    assert_eq!(lab.ask(all), Outcome::Cancelled { found: true });
    assert_eq!((lab.holders(), lab.waiters().len()), (vec!["b".to_owned()], 0));
}

#[test]
fn a_break_ends_one_tenure_or_all_and_says_why() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), shared("b"), exclusive("c")]);
    assert_eq!(lab.ask(broken(Some("x"))), Outcome::Refused(Refusal::NotHeld));
    assert!(matches!(lab.ask(broken(Some("a"))), Outcome::Broken(ended) if ended.len() == 1));
    assert_eq!(lab.holders(), ["b"]);
    assert!(matches!(lab.ask(broken(None)), Outcome::Broken(ended) if ended[0].claim.id == "b"));
    assert_eq!((lab.holders(), lab.causes()), (vec!["c".to_owned()], vec![("a", "broken"), ("b", "broken")]));
    assert_eq!(lab.entries[0].reason.as_deref(), Some("in the way"));
    lab.ask(broken(None));
    assert_eq!(lab.ask(broken(None)), Outcome::Refused(Refusal::NotHeld), "there is nothing to break");
}

// ------------------------------------------------------------------ the journal

#[test]
fn a_tenure_that_the_journal_calls_ended_is_finished_without_a_second_commit() {
    for shared_with in [false, true] {
        let mut lab = Lab::new();
        lab.ask(shared("a"));
        if shared_with {
            lab.ask(shared("b"));
        }
        let half = lab.decide(&[release("a")]);
        lab.apply(&half.edits, 1);
        let edits = lab.decide(&[Request::Reap]).edits;
        match (&edits[..], shared_with) {
            ([Edit::Remove { .. }], false) => {}
            ([Edit::Put { record, .. }], true) => assert_eq!(record.holders.len(), 1),
            other => panic!("{other:?}"),
        }
        assert_eq!(lab.ask(extend("a", TTL)), Outcome::Refused(Refusal::NotHeld));
        assert_eq!(lab.ask(again(exclusive("a"))), Outcome::Gone);
        assert_eq!(lab.causes(), [("a", "released")]);
    }
}

/// Two crashes in a row, each between the journal and the record.
#[test]
fn an_end_is_not_forgotten_when_the_next_one_is_half_finished_too() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), shared("b"), shared("c")]);
    for id in ["a", "b"] {
        let half = lab.decide(&[release(id)]);
        lab.apply(&half.edits, 1);
    }
    assert_eq!(lab.holders(), ["a", "b", "c"], "the record still names them all");
    let seen: Vec<String> = view(&lab.state, lab.context()).holders.into_iter().map(|h| h.claim.id).collect();
    assert_eq!(seen, ["c"]);
    lab.ask(Request::Reap);
    assert_eq!((lab.holders(), lab.causes()), (vec!["c".to_owned()], vec![("a", "released"), ("b", "released")]));
}

#[test]
fn the_end_of_several_tenures_is_one_swap_with_an_entry_each() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), shared("b")]);
    lab.pass(TTL);
    lab.close(&[Request::Reap]);
    let edits = lab.decide(&[Request::Reap]).edits;
    assert!(matches!(&edits[..], [Edit::Journal { entries, .. }, Edit::Remove { .. }] if entries.len() == 2));
}

/// A release that granted the lock to a waiter and a break that ended that came together, and were cut off between the
/// journal and the record.
#[test]
fn a_waiter_whose_grant_and_end_were_half_finished_is_not_granted_again() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
    let half = lab.decide(&[release("a"), broken(None)]);
    lab.apply(&half.edits, 1);
    assert_eq!(lab.waiters(), ["b", "c"], "the record still says so");
    lab.ask(Request::Reap);
    assert_eq!((lab.holders(), lab.waiters().len()), (vec!["c".to_owned()], 0));
    assert_eq!(lab.causes(), [("a", "released"), ("b", "broken")]);
}

/// Found by the model: the token of such a grant stood in the journal alone, and could be granted again.
#[test]
fn who_cancels_is_granted_nothing_first() {
    let mut lab = Lab::new();
    lab.ask_all(&[exclusive("a"), exclusive("b"), exclusive("c")]);
    lab.dies("a");
    assert_eq!(lab.ask(cancel("b")), Outcome::Cancelled { found: true });
    assert_eq!((lab.holders(), lab.waiters().len()), (vec!["c".to_owned()], 0));
    assert_eq!(lab.causes(), [("a", "owner died")], "and the journal has nothing to tell of it");
    assert_eq!(lab.ask(cancel("b")), Outcome::Cancelled { found: false });
}
