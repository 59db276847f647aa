//! Hierarchies, sets, slots and upgrades: several locks at once.

use super::*;
use crate::lock::convert::Conversion;

/// Several locks, and everything that is decided about them together carried out at once.
struct Tree {
    labs: Vec<Lab>,
}

/// One of `names` in a mode, with the intents on what is above it.
fn path(names: &[&str], at: usize, claim: &Claim, wait: bool) -> Vec<Call> {
    let name = LockName::new(names[at]).unwrap();
    let ask = |name: &LockName, mode| {
        let lock = names.iter().position(|other| *other == name.as_str()).unwrap();
        let claim = Claim { mode, slots: if mode.is_intent() { None } else { claim.slots }, ..claim.clone() };
        Call { lock, request: asks(claim, 0, wait.then(Wait::default)) }
    };
    let mut calls: Vec<Call> = name.ancestors().map(|above| ask(&above, claim.mode.intent())).collect();
    calls.push(ask(&name, claim.mode));
    calls
}

const NAMES: [&str; 4] = ["d", "d/a", "d/b", "e"];

impl Tree {
    fn new() -> Tree {
        Tree { labs: NAMES.iter().map(|name| Lab { state: free(name), ..Lab::new() }).collect() }
    }

    fn decide(&self, calls: &[Call]) -> Decision {
        let states: Vec<LockState> = self.labs.iter().map(|lab| lab.state.clone()).collect();
        decide_together(&states, calls, self.labs[0].context())
    }

    fn ask(&mut self, calls: &[Call]) -> Vec<Outcome> {
        let mut decision = self.decide(calls);
        if decision.closes {
            self.apply(&decision.edits, usize::MAX);
            decision = self.decide(calls);
        }
        self.apply(&decision.edits, usize::MAX);
        decision.outcomes
    }

    fn apply(&mut self, edits: &[Edit], first: usize) {
        for edit in edits.iter().take(first) {
            let (Edit::Journal { lock, .. } | Edit::Put { lock, .. } | Edit::Remove { lock }) = edit;
            self.labs[*lock].apply(std::slice::from_ref(edit), 1);
        }
    }

    /// Acquires one of the names, without waiting.
    fn tries(&mut self, at: usize, claim: &Claim) -> bool {
        let outcomes = self.ask(&path(&NAMES, at, claim, false));
        matches!(outcomes.last(), Some(Outcome::Granted(_)))
    }

    fn waits(&mut self, at: usize, claim: &Claim) -> Outcome {
        self.ask(&path(&NAMES, at, claim, true)).pop().unwrap()
    }

    fn releases(&mut self, at: usize, id: &str) {
        let mut calls = path(&NAMES, at, &claim(id, Mode::Exclusive), false);
        calls.reverse();
        calls.iter_mut().for_each(|call| call.request = release(id));
        let outcomes = self.ask(&calls);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Released(_))), "{outcomes:?}");
    }

    fn held(&self, at: usize) -> Vec<String> {
        self.labs[at].holders()
    }
}

fn of(owner: &str, id: &str, mode: Mode) -> Claim {
    Claim { owner: owner.to_owned(), ..claim(id, mode) }
}

fn upgrade(id: &str, wait: bool) -> Request {
    turn(id, Mode::Exclusive, wait)
}

fn turn(id: &str, mode: Mode, wait: bool) -> Request {
    let tenure = Tenure { id: Some(id.to_owned()), proof: proof(id) };
    let wait = wait.then(Wait::default);
    Request::Convert(Conversion { tenure, mode, id: format!("upgrade of {id}"), wait, asked_before: false })
}

#[test]
fn a_parent_and_a_child_exclude_each_other_and_siblings_do_not() {
    let mut tree = Tree::new();
    assert!(tree.tries(1, &claim("a", Mode::Exclusive)));
    assert!(tree.tries(2, &claim("b", Mode::Exclusive)));
    assert!(!tree.tries(0, &claim("p", Mode::Exclusive)));
    assert!(!tree.tries(0, &claim("p", Mode::Shared)));
    tree.releases(1, "a");
    tree.releases(2, "b");
    assert_eq!(tree.held(0), [""; 0]);
    assert!(tree.tries(0, &claim("p", Mode::Exclusive)));
    assert!(!tree.tries(1, &claim("a", Mode::Shared)));
    assert_eq!(tree.held(1), [""; 0], "nothing is left of what was refused");
}

#[test]
fn shared_parents_and_shared_children_coexist() {
    let mut tree = Tree::new();
    assert!(tree.tries(0, &claim("p", Mode::Shared)));
    assert!(tree.tries(1, &claim("a", Mode::Shared)));
    assert!(!tree.tries(2, &claim("b", Mode::Exclusive)));
    assert!(tree.tries(0, &claim("q", Mode::Shared)));
}

#[test]
fn who_holds_a_parent_takes_its_children_at_once_whoever_queues() {
    let mut tree = Tree::new();
    assert!(tree.tries(0, &of("me", "p", Mode::Exclusive)));
    assert!(matches!(tree.waits(0, &claim("w", Mode::Exclusive)), Outcome::Queued { .. }));
    assert!(tree.tries(1, &of("me", "a", Mode::Exclusive)));
    assert!(!tree.tries(2, &of("you", "b", Mode::Exclusive)));
    // The second child too, though a waiter was there first: it waits for this owner.
    assert!(tree.tries(2, &of("me", "c", Mode::Shared)));
    tree.releases(0, "p");
    assert_eq!(tree.held(0), ["a", "c"], "the children aren't stranded");
    tree.releases(1, "a");
    tree.releases(2, "c");
    assert_eq!(tree.held(0), ["w"]);
}

#[test]
fn inheritance_gives_at_most_the_parents_mode() {
    let mut tree = Tree::new();
    assert!(tree.tries(0, &of("me", "p", Mode::Shared)));
    assert!(tree.tries(0, &of("you", "q", Mode::Shared)));
    assert!(tree.tries(1, &of("me", "a", Mode::Shared)));
    assert!(!tree.tries(2, &of("me", "b", Mode::Exclusive)));
}

#[test]
fn an_owner_may_take_the_parent_of_what_it_holds() {
    let mut tree = Tree::new();
    assert!(tree.tries(1, &of("me", "a", Mode::Exclusive)));
    assert!(tree.tries(0, &of("me", "p", Mode::Exclusive)));
    assert!(!tree.tries(2, &of("you", "b", Mode::Exclusive)));
}

#[test]
fn a_crash_locks_too_much_and_never_too_little() {
    let mut tree = Tree::new();
    let calls = path(&NAMES, 1, &claim("a", Mode::Exclusive), false);
    let decision = tree.decide(&calls);
    for kept in 0..=decision.edits.len() {
        let mut crashed = Tree::new();
        crashed.apply(&decision.edits, kept);
        assert!(crashed.held(1).is_empty() || !crashed.held(0).is_empty(), "a child without its intent");
    }
    tree.apply(&decision.edits, usize::MAX);
    let mut calls = calls;
    calls.reverse();
    calls.iter_mut().for_each(|call| call.request = release("a"));
    let decision = tree.decide(&calls);
    for kept in 0..=decision.edits.len() {
        let mut crashed = Tree::new();
        crashed.labs[0].state = tree.labs[0].state.clone();
        crashed.labs[1].state = tree.labs[1].state.clone();
        crashed.apply(&decision.edits, kept);
        assert!(crashed.held(1).is_empty() || !crashed.held(0).is_empty(), "a child without its intent");
    }
}

#[test]
fn a_set_is_all_or_none_and_keeps_its_place_where_it_waits() {
    let mut tree = Tree::new();
    assert!(tree.tries(3, &claim("other", Mode::Exclusive)));
    let set = |wait: bool| {
        let mut calls = path(&NAMES, 0, &claim("s", Mode::Exclusive), wait);
        calls.extend(path(&NAMES, 3, &claim("s", Mode::Exclusive), wait));
        calls
    };
    let outcomes = tree.ask(&set(false));
    assert!(matches!(outcomes[..], [Outcome::Granted(_), Outcome::Refused(_)]));
    assert_eq!(tree.held(0), [""; 0]);
    let outcomes = tree.ask(&set(true));
    assert!(matches!(outcomes[..], [Outcome::Granted(_), Outcome::Queued { .. }]));
    assert_eq!(tree.held(0), ["s"], "what was granted is kept");
    tree.releases(3, "other");
    let outcomes = tree.ask(&set(true));
    assert!(matches!(outcomes[..], [Outcome::Granted(_), Outcome::Granted(_)]));
}

#[test]
fn nobody_breaks_an_intent_from_under_what_it_protects() {
    let mut tree = Tree::new();
    assert!(tree.tries(1, &claim("a", Mode::Exclusive)));
    let force = Request::Break { id: None, reason: None };
    let outcome = tree.ask(&[Call { lock: 0, request: force }]).pop().unwrap();
    assert!(matches!(outcome, Outcome::Refused(Refusal::HeldBelow(holder)) if holder.claim.id == "a"));
    assert_eq!(tree.held(0), ["a"]);
}

#[test]
fn slots_are_counted_named_and_agreed_on() {
    let mut lab = Lab::new();
    let slot = |id: &str, slots: u32| Claim { slots: Some(slots), ..claim(id, Mode::Exclusive) };
    let take = |lab: &mut Lab, id: &str| lab.ask(asks(slot(id, 2), 0, Some(Wait::default())));
    assert_eq!(granted(take(&mut lab, "a")).slot, Some(0));
    assert_eq!(granted(take(&mut lab, "b")).slot, Some(1));
    assert!(matches!(take(&mut lab, "c"), Outcome::Queued { ahead: 0, .. }));
    assert!(matches!(
        lab.ask(asks(slot("d", 3), 0, Some(Wait::default()))),
        Outcome::Refused(Refusal::SlotsDiffer { theirs: 2 })
    ));
    assert!(matches!(lab.ask(attempt("x", Mode::Exclusive)), Outcome::Refused(Refusal::Held { .. })));
    lab.ask(release("a"));
    assert_eq!(lab.holder("c").slot, Some(0), "the slot that was free");
    let tokens: Vec<_> = lab.record().holders.iter().map(|holder| holder.token).collect();
    assert!(tokens.is_sorted() && tokens[0] < tokens[1]);
}

#[test]
fn an_upgrade_waits_for_the_other_readers_before_everybody_else() {
    let mut lab = Lab::new();
    let first = granted(lab.ask(attempt("a", Mode::Shared)));
    let second = granted(lab.ask(attempt("b", Mode::Shared)));
    assert!(matches!(lab.ask(exclusive("w")), Outcome::Queued { ahead: 0, .. }));
    assert!(
        matches!(lab.ask(upgrade("a", false)), Outcome::Refused(Refusal::Held { holder, .. }) if holder.claim.id == "b")
    );
    assert!(matches!(lab.ask(upgrade("a", true)), Outcome::Queued { ahead: 0, .. }));
    assert!(matches!(lab.ask(attempt("c", Mode::Shared)), Outcome::Refused(_)), "no reader comes between");
    lab.ask(release("b"));
    let upgraded = lab.holder("a");
    assert_eq!((upgraded.claim.mode, lab.waiters()), (Mode::Exclusive, vec!["w".to_owned()]));
    assert!(upgraded.token > second.token && second.token > first.token, "above all that readers had");
    assert!(
        matches!(lab.ask(turn("a", Mode::Shared, false)), Outcome::Converted(holder) if holder.token == upgraded.token)
    );
    assert_eq!(lab.waiters(), ["w"], "a writer still can't go beside a reader");
}

#[test]
fn of_two_upgraders_the_second_is_told_of_the_deadlock() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), shared("b")]);
    assert!(matches!(lab.ask(upgrade("a", true)), Outcome::Queued { .. }));
    assert!(matches!(lab.ask(upgrade("b", true)), Outcome::Refused(Refusal::Deadlock(rival)) if rival.claim.id == "a"));
    // It may take it back, and then the other one may.
    assert!(matches!(lab.ask(turn("a", Mode::Shared, false)), Outcome::Converted(_)));
    assert_eq!(lab.waiters(), [""; 0]);
    assert!(matches!(lab.ask(upgrade("b", true)), Outcome::Queued { .. }));
}

#[test]
fn an_upgrade_goes_with_its_tenure() {
    let mut lab = Lab::new();
    lab.ask_all(&[shared("a"), shared("b")]);
    lab.ask(upgrade("a", true));
    lab.dies("a");
    lab.ask(Request::Reap);
    assert_eq!((lab.holders(), lab.waiters()), (vec!["b".to_owned()], vec![]));
}
