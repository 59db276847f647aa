//! The runner with shims that are part of this process: what is wrong has to fail.

use std::sync::{LazyLock, mpsc};

use super::*;
use crate::conformance::{role::Role, scenario::parse, table::surface, wire::Link};

/// Every operation of the table.
static ALL: LazyLock<String> = LazyLock::new(|| {
    let asked = OPERATIONS.iter().filter(|operation| operation.event.is_none());
    asked.map(|operation| operation.name).collect::<Vec<_>>().join(" ")
});

/// What a shim says; nothing if it is gone.
type Answers = fn(&Line) -> Option<Line>;

/// A shim that knows the answers by heart.
fn fake(operations: &'static str, answer: Answers) -> Role {
    let (sender, lines) = mpsc::channel();
    let write = move |text: &str| {
        let line = Line::parse(text);
        let number = line.get("n").unwrap_or_default().to_owned();
        let told = match &*line.verb {
            "supports" => Line::new("ok").with("operations", operations),
            "open" => Line::new("ok"),
            _ => match answer(&line) {
                Some(told) => told,
                None => return Err("it is gone".to_owned()),
            },
        };
        sender.send(told.with("n", number).to_string()).map_err(|error| error.to_string())
    };
    Role::inside(Link::new(write, lines))
}

fn held(class: &str, retry: &str, message: &str) -> Line {
    let error = format!(r#"{{"code":"HELD","message":"{message}","retry":"{retry}","holder":{{"id":"x"}}}}"#);
    Line::new("error").with("class", class).with("error", error)
}

const MESSAGE: &str = "the lock build is held by somebody";

fn play_with(steps: &str, answer: Answers) -> Result<(), String> {
    let scenario = parse("x", "x.scenario", &format!("title: t\nroles: A\n{steps}")).unwrap();
    let cast = vec![surface("rust").unwrap()];
    play(&scenario, &cast, &|_, _, _| Ok(fake(&ALL, answer)), &Site::Here).map(drop)
}

#[test]
fn a_shim_that_lacks_an_operation_fails() {
    let lacks: &'static str = "open close acquire";
    let rust = surface("rust").unwrap();
    let why = unsupported(rust, &|_, _, _| Ok(fake(lacks, |_| None))).unwrap_err();
    assert!(why.starts_with("rust: its shim lacks: ") && why.contains("release") && !why.contains("open"), "{why}");
    unsupported(rust, &|_, _, _| Ok(fake(&ALL, |_| None))).unwrap();
    // What the table excuses is excused for that surface alone.
    let why = unsupported(surface("cli").unwrap(), &|_, _, _| Ok(fake(&ALL, |_| None))).unwrap_err();
    assert!(why.contains("what the table doesn't: ") && why.contains("fork") && !why.contains("open"), "{why}");
}

#[test]
fn a_wrong_expectation_fails_with_all_that_is_needed() {
    let answer: Answers = |_| Some(held("gitlock::Error", "later", MESSAGE));
    play_with("A: try build -> HELD holder.id=x message~somebody", answer).unwrap();
    for (step, why) in [
        ("A: try build", "expected ok, got HELD"),
        ("A: try build -> TIMEOUT", "expected TIMEOUT, got HELD"),
        ("A: try build -> HELD holder.id=y", "expected holder.id=\"y\", got \"x\""),
        ("A: try build -> HELD message~nobody", "expected message~\"nobody\""),
    ] {
        let told = play_with(step, answer).unwrap_err();
        assert!(told.starts_with("x.scenario:3: A=rust\n") && told.contains(step) && told.contains(why), "{told}");
    }
}

#[test]
fn an_error_of_the_wrong_kind_fails_wherever_it_comes() {
    let step = "A: try build -> HELD";
    let wrong: [(Answers, &str); 5] = [
        (|_| Some(held("gitlock.Timeout", "later", MESSAGE)), "should arrive as \"gitlock::Error\""),
        (|_| Some(held("gitlock::Error", "never", MESSAGE)), "should say retry"),
        (|_| Some(held("gitlock::Error", "later", "held")), "says nothing"),
        (|_| Some(Line::new("error").with("error", r#"{"code":"OOPS"}"#)), "is no code"),
        (|_| None, "it is gone"),
    ];
    for (answer, why) in wrong {
        let told = play_with(step, answer).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_code_that_nobody_raises_fails_the_set() {
    let text = "title: t\nroles: A\nA: try build -> HELD";
    let scenario = parse("x", "x.scenario", text).unwrap();
    let scenarios = [&scenario];
    let rust: Vec<&'static Surface> = vec![surface("rust").unwrap()];
    let plan = plan(&scenarios, &rust, Extent::Whole, &Site::Here);
    let mut results = Results::default();
    let start: Start<'_> = &|_, _, _| Ok(fake(&ALL, |_| Some(held("gitlock::Error", "later", MESSAGE))));
    play_all(&plan, 2, start, &Site::Here, &mut results);
    assert_eq!((results.failures.len(), results.codes.len()), (0, 1));
    complete(&plan, &rust, &scenarios, &mut results);
    let failed = |why: &str| results.failures.iter().any(|failure| failure == why);
    assert!(failed("rust: no scenario raises TIMEOUT there") && !failed("rust: no scenario raises HELD there"));
    assert!(failed("no scenario asks for \"release\""));
    // Excused, with a reason.
    assert!(!failed("rust: no scenario raises INTERNAL there"));
    results.codes.insert(("rust", ErrorCode::Internal));
    complete(&plan, &rust, &scenarios, &mut results);
    assert!(results.failures.iter().any(|failure| failure.contains("INTERNAL was raised")));
}
