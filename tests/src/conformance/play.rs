//! One scenario with one cast: which surface plays which role.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use gitlock::{
    ErrorCode,
    clock::{Clock, SystemClock},
    json::Value,
};

use super::{
    expect::{Answer, End, Variables},
    role::Role,
    scenario::{Action, Limit, Scenario, Step},
    site::{Ground, Site},
    table::{Operation, Programs, Surface, TIMES},
    tool,
    wire::Line,
    words,
};
use crate::git::Repo;

/// How long something may take to come true.
const EVENTUALLY: u64 = 20_000;

/// The surface of each role, in the order of the scenario's roles.
pub(super) type Cast = Vec<&'static Surface>;

/// Starts a role of a surface in a repository.
pub(super) type Start<'a> = &'a (dyn Fn(&Surface, &Repo, Conditions) -> Result<Role, String> + Sync);

/// Under which conditions a role works.
#[derive(Clone, Copy, Default)]
pub(super) struct Conditions {
    /// What it may not do.
    pub(super) limit: Option<Limit>,
    /// Whether it has seeded faults.
    pub(super) faults: bool,
}

/// What a run has shown.
#[derive(Default)]
pub(super) struct Shown {
    /// The codes that arrived as they should, by the surface that told them.
    pub(super) codes: BTreeSet<(&'static str, ErrorCode)>,
}

/// `rust, c, cli` as `A=rust B=c C=cli`.
pub(super) fn names(scenario: &Scenario, cast: &Cast) -> String {
    let pairs = scenario.roles.iter().zip(cast);
    pairs.map(|(role, surface)| format!("{role}={}", surface.name)).collect::<Vec<_>>().join(" ")
}

/// The shims that were built, and those that were built with faults.
pub(super) fn processes(
    sound: Programs,
    faulty: Programs,
) -> impl Fn(&Surface, &Repo, Conditions) -> Result<Role, String> + Sync {
    move |surface, repo, conditions| {
        let programs = if conditions.faults { &faulty } else { &sound };
        Role::start(surface, programs, repo.path(), conditions.limit)
    }
}

/// Plays a scenario. An error tells everything that is needed to see what went wrong.
pub(super) fn play(scenario: &Scenario, cast: &Cast, start: Start<'_>, site: &Site) -> Result<Shown, String> {
    let ground = site.ground();
    let variables = Variables::from([("repo".to_owned(), ground.opened.path().display().to_string())]);
    let mut stage =
        Stage { scenario, cast, start, ground: &ground, roles: BTreeMap::new(), variables, shown: Shown::default() };
    let mut result = scenario.steps.iter().try_for_each(|step| stage.step(step));
    for (letter, role) in std::mem::take(&mut stage.roles) {
        let surface = stage.surface(letter).name;
        // After a failure nobody knows what a shim is at.
        if result.is_ok() {
            result = role.finish().map_err(|why| format!("{}: {letter}={surface}: {why}", scenario.file));
        }
    }
    let shown = stage.shown;
    tool::thaw(ground.locks());
    result.map(|()| shown)
}

struct Stage<'a> {
    scenario: &'a Scenario,
    cast: &'a Cast,
    start: Start<'a>,
    ground: &'a Ground,
    roles: BTreeMap<char, Role>,
    variables: Variables,
    shown: Shown,
}

impl Stage<'_> {
    fn surface(&self, letter: char) -> &'static Surface {
        let at = self.scenario.roles.iter().position(|role| *role == letter).unwrap_or(0);
        self.cast[at]
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let until = SystemClock.boot_ms() + EVENTUALLY;
        loop {
            let result = self.act(step).and_then(|answer| step.expected.check(&answer, &mut self.variables));
            match result {
                Ok(()) => break,
                Err(_) if step.expected.eventually && SystemClock.boot_ms() < until => {
                    SystemClock.pause(Duration::from_millis(10));
                }
                Err(why) => return Err(self.report(step, &why)),
            }
        }
        if let (Action::Ask { role, .. }, End::Code(code)) = (&step.action, step.expected.end) {
            self.shown.codes.insert((self.surface(*role).name, code));
        }
        Ok(())
    }

    fn report(&self, step: &Step, why: &str) -> String {
        let mut text = format!(
            "{}:{}: {}\n    {}\n    {why}",
            self.scenario.file,
            step.line,
            names(self.scenario, self.cast),
            step.text
        );
        for (letter, role) in &self.roles {
            let said = role.said();
            if !said.is_empty() {
                let _ = write!(text, "\n    {letter} said on stderr: {}", said.replace('\n', "\n      "));
            }
        }
        text
    }

    fn act(&mut self, step: &Step) -> Result<Answer, String> {
        match &step.action {
            Action::Ask { role, operation, fields } => self.ask(*role, operation, fields),
            Action::Git(words) => {
                let words =
                    words.iter().map(|word| words::fill(word, &self.variables)).collect::<Result<Vec<_>, _>>()?;
                // What is configured is what is opened.
                let configures = words.first().is_some_and(|word| word == "config");
                let place = if configures { self.ground.opened.path() } else { self.ground.locks() };
                Ok(tool::run_git(place, &words))
            }
            Action::Tool { operation, fields } => {
                // What matters of an owner is whose configuration is trusted.
                let opened = operation.name == "owner";
                let place = if opened { self.ground.opened.path() } else { self.ground.locks() };
                tool::work(place, operation.name, &self.filled(fields)?)
            }
            Action::Kill(role) => {
                self.roles.remove(role).ok_or("it isn't running")?.kill();
                Ok(nothing())
            }
            Action::Stop(role) => {
                self.running(*role)?.stop();
                Ok(nothing())
            }
            Action::Continue(role) => {
                self.running(*role)?.resume();
                Ok(nothing())
            }
            Action::Sleep(time) => {
                SystemClock.pause(Duration::from_millis(self.ground.paced(*time)));
                Ok(nothing())
            }
        }
    }

    fn filled(&self, fields: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        fields.iter().map(|(key, value)| Ok((key.clone(), words::fill(value, &self.variables)?))).collect()
    }

    fn running(&self, role: char) -> Result<&Role, String> {
        Ok(self.roles.get(&role).ok_or("it isn't running")?)
    }

    fn ask(&mut self, letter: char, operation: &Operation, fields: &[(String, String)]) -> Result<Answer, String> {
        let (surface, mut fields) = (self.surface(letter), self.filled(fields)?);
        for (_, value) in fields.iter_mut().filter(|(key, _)| TIMES.contains(&&**key)) {
            *value = value.parse().map_or_else(|_| value.clone(), |time| self.ground.paced(time).to_string());
        }
        let path = self.ground.opened.path().display();
        let remote = self.ground.remote();
        let role = match self.roles.remove(&letter) {
            Some(role) => role,
            None => {
                let limit = self.scenario.limits.iter().find(|(role, _)| *role == letter).map(|(_, limit)| *limit);
                let conditions = Conditions { limit, faults: self.scenario.faults };
                let mut role = (self.start)(surface, &self.ground.opened, conditions)?;
                if operation.name != "open" {
                    let mut line = Line::new("open").with("path", &path);
                    if let Some(remote) = remote {
                        line = line.with("remote", remote);
                    }
                    let answer = role.link.ask(line)?;
                    if answer.verb != "ok" {
                        return Err(format!("the repository can't be opened: {answer}"));
                    }
                }
                role
            }
        };
        let role = self.roles.entry(letter).or_insert(role);
        let line = match operation.event {
            Some(kind) => role.link.event(kind, fields.first().map_or("", |(_, about)| about))?,
            None => {
                if operation.name == "open" && !fields.iter().any(|(key, _)| key == "path") {
                    fields.push(("path".to_owned(), path.to_string()));
                }
                if let Some(remote) = remote.filter(|_| operation.name == "open") {
                    fields.push(("remote".to_owned(), remote.to_owned()));
                }
                role.link.ask(Line { verb: operation.name.to_owned(), fields })?
            }
        };
        read(surface, &line)
    }
}

fn nothing() -> Answer {
    Answer { end: End::Ok, told: Value::Null }
}

/// What a shim's line says. What must be true of every error is checked here.
pub(super) fn read(surface: &Surface, line: &Line) -> Result<Answer, String> {
    let mut told = Value::from_iter(
        line.fields
            .iter()
            .filter(|(key, _)| !matches!(&**key, "json" | "error" | "n" | "kind" | "about"))
            .map(|(key, value)| (key.clone(), Value::from(value.clone()))),
    );
    for key in ["json", "error"] {
        let Some(text) = line.get(key) else { continue };
        match (text.parse(), &mut told) {
            (Ok(Value::Object(more)), Value::Object(told)) => told.extend(more),
            _ => return Err(format!("{key} is no JSON object: {text:?}")),
        }
    }
    if line.get("error").is_none() && line.verb != "error" {
        return Ok(Answer { end: End::Ok, told });
    }
    let text = |key: &str| told.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = ErrorCode::ALL.iter().copied().find(|code| code.as_str() == text("code"));
    let code = code.ok_or_else(|| format!("{:?} is no code: {told}", text("code")))?;
    let class = (surface.class)(code);
    if text("class") != class {
        return Err(format!("{code:?} should arrive as {class:?}, and came as {:?}: {told}", text("class")));
    }
    if text("retry") != code.retry().as_str() {
        return Err(format!("{code:?} should say retry {:?}: {told}", code.retry().as_str()));
    }
    if text("message").len() < 20 {
        return Err(format!("the message of {code:?} says nothing: {told}"));
    }
    Ok(Answer { end: End::Code(code), told })
}
