//! The contract of `RefStore`, as checks that every store has to pass.
//!
//! They are written for the trait alone: what a store is made of shows only in [`Subject`].

#![allow(clippy::expect_used)] // a store that fails here fails the test

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use gitlock::{
    RefName,
    store::{CommitDraft, NewValue, Object, Oid, Parent, RefEdit, RefStore, Signature, Transacted, Watch},
};

/// The prefix that the checks keep their refs under.
pub const PREFIX: &str = "refs/gitvan/locks";

/// A store under test.
pub struct Subject<'a> {
    /// The store.
    pub store: &'a dyn RefStore,
    /// Takes an object away behind the store's back, as `git prune` may.
    pub prune: &'a (dyn Fn(&Oid) + Sync),
    /// How often the checks with several threads go round.
    pub rounds: u64,
    /// Whether objects can be written and deleted without a ref, as on this machine and on no server.
    pub keeps_objects: bool,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A check and its name.
pub type Behaviour = (&'static str, fn(&Subject<'_>));

/// Every check. Each uses names of its own, so that they run one after the other on one store.
pub const ALL: &[Behaviour] = &[
    ("create_only", create_only),
    ("swap", swap),
    ("delete", delete),
    ("conflict_changes_nothing", conflict_changes_nothing),
    ("several_edits", several_edits),
    ("several_deletes", several_deletes),
    ("edits_show_in_their_order", edits_show_in_their_order),
    ("beside_what_is_unmoved", beside_what_is_unmoved),
    ("one_winner", one_winner),
    ("objects", objects),
    ("commits", commits),
    ("missing_objects", missing_objects),
    ("list", list),
    ("watch", watch),
    ("sweep", sweep),
    ("sweep_spares_what_is_in_use", sweep_spares_what_is_in_use),
    ("sweep_spares_history", sweep_spares_history),
    ("identical_content", identical_content),
    ("names_of_every_length", names_of_every_length),
];

/// Runs every check on a store, and tells which one failed.
pub fn run(subject: &Subject<'_>) {
    for (name, check) in ALL {
        println!("{name} on {}", subject.store.location());
        check(subject);
    }
}

/// A ref under the prefix.
pub fn name(last: &str) -> RefName {
    RefName::foreign(format!("{PREFIX}/{last}"))
}

/// A blob with this text.
pub fn blob(text: &str) -> NewValue {
    NewValue::Blob(text.as_bytes().to_vec())
}

/// One edit.
pub fn edit(name: &RefName, expected: Option<Oid>, new: Option<NewValue>) -> RefEdit {
    RefEdit { name: name.clone(), expected, new }
}

/// A commit on the empty tree.
pub fn draft(parent: Parent, message: &str) -> CommitDraft {
    let who = Signature { name: "Tester".into(), email: "tester@example.com".into(), seconds: 1_700_000_000 };
    CommitDraft { parent, author: who.clone(), committer: who, message: format!("{message}\n") }
}

/// One commit as a ref's value.
pub fn commit(parent: Option<Oid>, message: &str) -> NewValue {
    let parent = parent.map_or(Parent::None, Parent::Commit);
    NewValue::Commits { drafts: vec![draft(parent, message)], tree: true }
}

/// Makes edits that have to be made, and gives the new values.
///
/// # Panics
/// If they are not.
pub fn commits_to(store: &dyn RefStore, edits: &[RefEdit]) -> Vec<Option<Oid>> {
    match store.transact(edits).expect("a transaction") {
        Transacted::Committed(values) => values,
        other => panic_with(&other, edits),
    }
}

#[allow(clippy::panic)] // it tells which edits failed
fn panic_with(outcome: &Transacted, edits: &[RefEdit]) -> ! {
    panic!("{outcome:?} instead of a commit of {edits:?}")
}

/// Creates or swaps one ref.
pub fn put(store: &dyn RefStore, name: &RefName, expected: Option<Oid>, value: NewValue) -> Oid {
    commits_to(store, &[edit(name, expected, Some(value))])[0].expect("a new value")
}

/// Deletes one ref.
pub fn remove(store: &dyn RefStore, name: &RefName, expected: Oid) {
    assert_eq!(commits_to(store, &[edit(name, Some(expected), None)]), [None]);
}

fn conflicts(store: &dyn RefStore, edits: &[RefEdit]) {
    assert_eq!(store.transact(edits).expect("a transaction"), Transacted::Conflict, "{edits:?}");
}

fn reads(store: &dyn RefStore, name: &RefName) -> Option<Oid> {
    store.read(name).expect("a ref that can be read")
}

fn nowhere() -> Oid {
    Oid::from_bytes(&[7; 20]).expect("20 bytes")
}

fn create_only(subject: &Subject<'_>) {
    let (store, a) = (subject.store, name("create"));
    assert_eq!(reads(store, &a), None);
    let first = put(store, &a, None, blob("one"));
    assert_eq!(reads(store, &a), Some(first));
    conflicts(store, &[edit(&a, None, Some(blob("two")))]);
    assert_eq!(reads(store, &a), Some(first));
    assert_eq!(store.object(&first).expect("an object"), Object::Blob(b"one".to_vec()));
}

fn swap(subject: &Subject<'_>) {
    let (store, a) = (subject.store, name("swap"));
    conflicts(store, &[edit(&a, Some(nowhere()), Some(blob("of nothing")))]);
    assert_eq!(reads(store, &a), None);
    let mut current = put(store, &a, None, blob("0"));
    for round in 1..20 {
        let next = put(store, &a, Some(current), blob(&round.to_string()));
        assert_ne!(next, current);
        conflicts(store, &[edit(&a, Some(current), Some(blob("late")))]);
        assert_eq!(reads(store, &a), Some(next));
        current = next;
    }
}

fn delete(subject: &Subject<'_>) {
    let (store, a) = (subject.store, name("delete"));
    for round in 0..5 {
        let first = put(store, &a, None, blob(&format!("first {round}")));
        let second = put(store, &a, Some(first), blob(&format!("second {round}")));
        conflicts(store, &[edit(&a, Some(first), None)]);
        assert_eq!(reads(store, &a), Some(second));
        remove(store, &a, second);
        assert_eq!(reads(store, &a), None);
        conflicts(store, &[edit(&a, Some(second), None)]);
    }
    // To ask for nothing where nothing is, is a check and no change.
    assert_eq!(commits_to(store, &[edit(&a, None, None)]), [None]);
    assert_eq!(reads(store, &a), None);
}

fn conflict_changes_nothing(subject: &Subject<'_>) {
    let store = subject.store;
    let [a, b, c] = ["conflict-a", "conflict-b", "conflict-c"].map(name);
    let (at_a, at_b) = (put(store, &a, None, blob("a")), put(store, &b, None, blob("b")));
    for wrong in 0..3 {
        let expected = |at: usize, right: Option<Oid>| if at == wrong { Some(nowhere()) } else { right };
        conflicts(
            store,
            &[
                edit(&a, expected(0, Some(at_a)), Some(blob("changed"))),
                edit(&b, expected(1, Some(at_b)), None),
                edit(&c, expected(2, None), Some(blob("made"))),
            ],
        );
        assert_eq!([reads(store, &a), reads(store, &b), reads(store, &c)], [Some(at_a), Some(at_b), None]);
    }
}

fn several_edits(subject: &Subject<'_>) {
    let store = subject.store;
    let [a, b, c, journal] = ["several-c", "several-a", "several-b", "several-journal"].map(name);
    let at_b = put(store, &b, None, blob("b"));
    let at_c = put(store, &c, None, blob("c"));
    // Not in the order of their names, and every kind of edit.
    let values = commits_to(
        store,
        &[
            edit(&journal, None, Some(commit(None, "ended"))),
            edit(&c, Some(at_c), None),
            edit(&a, None, Some(blob("a"))),
            edit(&b, Some(at_b), Some(blob("b again"))),
        ],
    );
    assert_eq!(values.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    for (name, value) in [&journal, &c, &a, &b].into_iter().zip(values) {
        assert_eq!(reads(store, name), value, "{name}");
    }
    assert_eq!(commits_to(store, &[]), []);
}

fn several_deletes(subject: &Subject<'_>) {
    let store = subject.store;
    let names = ["gone-1", "gone-2", "gone-3"].map(name);
    let values = names.each_ref().map(|a| put(store, a, None, blob(a.as_str())));
    let edits: Vec<RefEdit> = names.iter().zip(values).map(|(a, value)| edit(a, Some(value), None)).collect();
    assert_eq!(commits_to(store, &edits), [None, None, None]);
    assert!(names.iter().all(|a| reads(store, a).is_none()));
}

/// Whoever sees a later edit sees the earlier ones.
fn edits_show_in_their_order(subject: &Subject<'_>) {
    let store = subject.store;
    // Against the order of names, so that it isn't kept by chance.
    let (first, second) = (name("order-z"), name("order-a"));
    let number = |id: Option<Oid>| -> u64 {
        let Some(id) = id else { return 0 };
        match store.object(&id).expect("an object") {
            Object::Blob(bytes) => String::from_utf8_lossy(&bytes).parse().expect("a number"),
            other => unreachable(&other),
        }
    };
    let done = AtomicBool::new(false);
    let looked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut current = (None, None);
            // Memory is so fast that a busy machine would be done before the other thread looks.
            while looked.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            for round in 1..=subject.rounds {
                let values = commits_to(
                    store,
                    &[
                        edit(&first, current.0, Some(blob(&round.to_string()))),
                        edit(&second, current.1, Some(blob(&round.to_string()))),
                    ],
                );
                current = (values[0], values[1]);
            }
            done.store(true, SeqCst);
        });
        while !done.load(SeqCst) {
            let later = number(reads(store, &second));
            let earlier = number(reads(store, &first));
            assert!(earlier >= later, "the second edit of round {later} showed before the first: {earlier}");
            looked.fetch_add(1, SeqCst);
        }
    });
    assert!(looked.load(SeqCst) > 0);
}

#[allow(clippy::panic)] // a store that changes an object's kind
fn unreachable(object: &Object) -> ! {
    panic!("a blob was written, and {object:?} is read")
}

/// Of several transactions with the same expected value, one commits.
/// A store looks at what is to be unmoved, or says that it didn't.
fn beside_what_is_unmoved(subject: &Subject<'_>) {
    let (store, lock, journal) = (subject.store, name("beside-lock"), name("beside-journal"));
    let id = put(store, &journal, None, blob("beside 1"));
    let create = [edit(&lock, None, Some(blob("beside 2")))];
    let beside = |unmoved: Oid| {
        let unmoved = [(journal.clone(), unmoved)];
        store.transact_beside(&create, &unmoved, Some(Duration::from_secs(10))).expect("a transaction")
    };
    match beside(nowhere()) {
        (Transacted::Conflict, _) => {}
        (Transacted::Committed(values), false) => remove(store, &lock, values[0].expect("a new value")),
        (other, looked) => panic_with(&other, if looked { &create } else { &[] }),
    }
    assert_eq!(reads(store, &lock), None);
    let (done, _) = beside(id);
    let Transacted::Committed(values) = done else { panic_with(&done, &create) };
    assert_eq!(reads(store, &lock), values[0]);
    remove(store, &lock, values[0].expect("a new value"));
    remove(store, &journal, id);
}

fn one_winner(subject: &Subject<'_>) {
    let (store, a) = (subject.store, name("race"));
    let mut current = None;
    for round in 0..subject.rounds.div_ceil(4) {
        let wins = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (wins, a) = (&wins, &a);
                scope.spawn(move || {
                    // Every third round ends with a delete, so that creation is contended too.
                    let new = (round % 3 != 2).then(|| blob(&format!("{round} {thread}")));
                    match store.transact(&[edit(a, current, new)]).expect("a transaction") {
                        Transacted::Committed(_) => drop(wins.fetch_add(1, SeqCst)),
                        outcome => assert_eq!(outcome, Transacted::Conflict),
                    }
                });
            }
        });
        assert_eq!(wins.load(SeqCst), 1, "round {round}");
        current = reads(store, &a);
    }
}

fn objects(subject: &Subject<'_>) {
    let (store, a) = (subject.store, name("objects"));
    let mut current = None;
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for bytes in [Vec::new(), b"\0".to_vec(), b"{}\n".to_vec(), binary] {
        let id = put(store, &a, current, NewValue::Blob(bytes.clone()));
        assert_eq!(store.object(&id).expect("an object"), Object::Blob(bytes));
        current = Some(id);
    }
    assert_eq!(store.object(&nowhere()).expect("no error"), Object::Missing);
}

fn commits(subject: &Subject<'_>) {
    let (store, a) = (subject.store, name("commits"));
    let view = |id: &Oid| match store.object(id).expect("an object") {
        Object::Commit(commit) => *commit,
        other => unreachable(&other),
    };
    let chain = NewValue::Commits {
        drafts: vec![draft(Parent::None, "one"), draft(Parent::Previous, "two"), draft(Parent::Previous, "three")],
        tree: true,
    };
    let third = put(store, &a, None, chain);
    let fourth = put(store, &a, Some(third), commit(Some(third), "four\n\nLock-Id: 4"));
    let mut told = Vec::new();
    let mut next = Some(fourth);
    while let Some(id) = next {
        let commit = view(&id);
        assert_eq!((&*commit.author.name, commit.author.seconds), ("Tester", 1_700_000_000));
        told.push(commit.message.trim().to_owned());
        next = commit.parent;
    }
    assert_eq!(told, ["four\n\nLock-Id: 4", "three", "two", "one"]);
}

fn missing_objects(subject: &Subject<'_>) {
    let (store, a) = (subject.store, name("missing"));
    let value = blob("pruned from under its ref");
    let id = put(store, &a, None, value.clone());
    (subject.prune)(&id);
    assert_eq!(reads(store, &a), Some(id), "the ref counts, whatever became of the object");
    // A store may have a second chance of its own, but it never makes something else of it.
    let found = store.object(&id).expect("no error");
    assert!(matches!(&found, Object::Missing) || found == Object::Blob(b"pruned from under its ref".to_vec()));
    if subject.keeps_objects {
        (subject.prune)(&id);
        assert!(store.restore(&value).expect("it can be written"), "something was missing");
        assert!(!store.restore(&value).expect("it can be written"), "nothing was missing");
        assert_eq!(store.object(&id).expect("an object"), Object::Blob(b"pruned from under its ref".to_vec()));
        (subject.prune)(&id);
    }
    // And compare-and-swap needs no object.
    let next = put(store, &a, Some(id), blob("after it"));
    assert_eq!(reads(store, &a), Some(next));
}

fn list(subject: &Subject<'_>) {
    let store = subject.store;
    let prefix = format!("{PREFIX}/listed");
    assert_eq!(store.list(&prefix).expect("a list"), []);
    let names = ["b", "a", "nested/one", "nested/deeper/two", "a.b", "-x"];
    let mut made: Vec<(RefName, Oid)> = names
        .iter()
        .map(|last| {
            let full = RefName::foreign(format!("{prefix}/{last}"));
            let id = put(store, &full, None, blob(last));
            (full, id)
        })
        .collect();
    // A prefix ends at a slash.
    put(store, &RefName::foreign(format!("{prefix}-beside")), None, blob("beside"));
    made.sort();
    assert_eq!(store.list(&prefix).expect("a list"), made);
    let (gone, id) = made.remove(2);
    remove(store, &gone, id);
    let (changed, id) = &mut made[0];
    *id = put(store, &changed.clone(), Some(*id), blob("changed"));
    assert_eq!(store.list(&prefix).expect("a list"), made);
    assert_eq!(store.list("refs/gitvan/nothing").expect("a list"), []);
}

fn watch(subject: &Subject<'_>) {
    let store = subject.store;
    let prefix = "refs/gitvan/watched";
    let a = RefName::foreign(format!("{prefix}/a"));
    let mut watch = store.watch(prefix).expect("a watch");
    watch.changes();
    let first = put(store, &a, None, blob("watched"));
    noticed(&mut *watch, "a", "create");
    let second = put(store, &a, Some(first), blob("watched again"));
    noticed(&mut *watch, "a", "swap");
    put(store, &name("beside-the-watched"), None, blob("elsewhere"));
    remove(store, &a, second);
    noticed(&mut *watch, "a", "delete");
    let third = put(store, &a, None, blob("once more"));
    noticed(&mut *watch, "a", "create again");
    assert_eq!(reads(store, &a), Some(third));
}

fn noticed(watch: &mut dyn Watch, name: &str, what: &str) {
    for _ in 0..100 {
        let Some(descriptor) = watch.descriptor() else { return };
        let mut ready = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        let count = rustix::event::poll(&mut ready, Some(&timeout)).expect("poll");
        assert_ne!(count, 0, "the {what} of {name} isn't noticed");
        let changes = watch.changes();
        if changes.all || changes.names.iter().any(|changed| changed == name) {
            return;
        }
    }
    assert_eq!(what, "noticed", "only other names change");
}

fn sweep(subject: &Subject<'_>) {
    if !subject.keeps_objects {
        return; // the server sweeps
    }
    let (store, a) = (subject.store, name("sweep"));
    let values: Vec<NewValue> = (0..4).map(|round| blob(&format!("superseded {round}"))).collect();
    let mut current = None;
    let mut old = Vec::new();
    for value in &values {
        old.extend(current);
        current = Some(put(store, &a, current, value.clone()));
    }
    store.sweep(Some(Duration::ZERO)).expect("a sweep");
    store.superseded(&old);
    let swept = store.sweep(Some(Duration::ZERO)).expect("a sweep");
    assert_eq!((swept.deleted, swept.waiting), (3, 0));
    for value in &values[..3] {
        assert!(store.restore(value).expect("it can be written"), "it was swept");
    }
    assert!(!store.restore(&values[3]).expect("it can be written"), "what the ref points at stays");
    assert_eq!(store.sweep(Some(Duration::ZERO)).expect("a sweep").deleted, 0, "and only once");
}

fn sweep_spares_what_is_in_use(subject: &Subject<'_>) {
    if !subject.keeps_objects {
        return; // the server sweeps
    }
    let (store, a, b) = (subject.store, name("used-a"), RefName::foreign("refs/gitvan/elsewhere/used"));
    let value = blob("somebody else refers to this");
    let id = put(store, &a, None, value.clone());
    put(store, &b, None, value.clone());
    remove(store, &a, id);
    store.superseded(&[id]);
    assert_eq!(store.sweep(Some(Duration::ZERO)).expect("a sweep").deleted, 0);
    assert!(!store.restore(&value).expect("it can be written"));
}

/// A commit that a lost race wrote may be the very commit that the winner wrote. It is part of a
/// history by the time of the sweep, though no ref points at it any more.
fn sweep_spares_history(subject: &Subject<'_>) {
    if !subject.keeps_objects {
        return; // the server sweeps
    }
    let store = subject.store;
    let (journal, lock) = (name("history-journal"), name("history-lock"));
    let held = put(store, &lock, None, blob("held"));
    let ended = |expected| {
        [edit(&journal, None, Some(commit(None, "the same from both sides"))), edit(&lock, Some(expected), None)]
    };
    conflicts(store, &ended(nowhere()));
    let first = commits_to(store, &ended(held))[0];
    conflicts(store, &ended(held));
    let second = put(store, &journal, first, commit(first, "the next"));
    store.sweep(Some(Duration::ZERO)).expect("a sweep");
    assert!(!store.restore(&commit(None, "the same from both sides")).expect("it can be written"), "it was swept");
    assert_eq!(reads(store, &journal), Some(second));
}

fn identical_content(subject: &Subject<'_>) {
    let store = subject.store;
    let (a, b) = (name("same-a"), name("same-b"));
    let id = put(store, &a, None, blob("same"));
    assert_eq!(put(store, &b, None, blob("same")), id);
    assert_eq!(put(store, &a, Some(id), blob("same")), id, "a swap to the same content is made");
    remove(store, &b, id);
    assert_eq!((reads(store, &a), reads(store, &b)), (Some(id), None));
    assert_eq!(store.object(&id).expect("an object"), Object::Blob(b"same".to_vec()));
}

fn names_of_every_length(subject: &Subject<'_>) {
    let store = subject.store;
    for last in ["x", "%2Ehidden", "a%20b", "%C3%A9", "-", "_", "HEAD", "@", &"n".repeat(200)] {
        let a = name(last);
        let id = put(store, &a, None, blob(last));
        assert_eq!(reads(store, &a), Some(id));
        remove(store, &a, id);
        assert_eq!(reads(store, &a), None);
    }
}
