//! Scenarios as text, and what is wrong with one: always with its file and line.

use std::{collections::BTreeSet, fs, path::Path};

use gitlock::ErrorCode;

use super::{
    expect::{End, Expectation, Test},
    table::{OPERATIONS, Operation, SURFACES, TIMES, TOOL, surface},
    words::{mentioned, millis, split},
};

/// One scenario.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// The file's name without its ending.
    pub(super) name: String,
    pub(super) file: String,
    pub(super) title: String,
    pub(super) roles: Vec<char>,
    /// Roles whose process is limited, and how.
    pub(super) limits: Vec<(char, Limit)>,
    /// Whether the programs are those with seeded faults.
    pub(super) faults: bool,
    /// Surfaces that it isn't for, and why.
    pub(super) except: Vec<(&'static str, String)>,
    /// Why it is for repositories whose refs are files, and for no others.
    pub(super) only_files: Option<String>,
    /// Why it is for repositories of this machine alone.
    pub(super) only_here: Option<String>,
    /// Why it is played only with the locks at a server.
    pub(super) only_there: Option<String>,
    pub(super) steps: Vec<Step>,
}

impl Scenario {
    /// What its roles are asked for.
    pub(super) fn operations(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Ask { operation, .. } => Some(operation.name),
            _ => None,
        })
    }

    /// The codes that it expects.
    pub(super) fn codes(&self) -> impl Iterator<Item = ErrorCode> + '_ {
        self.steps.iter().filter_map(|step| match step.expected.end {
            End::Code(code) => Some(code),
            _ => None,
        })
    }
}

/// What a role's process may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Write to files: as on a full disk.
    FullDisk,
    /// Go past the permissions of files, as root may.
    PlainUser,
}

/// One line of it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) line: usize,
    /// As it stands there.
    pub(super) text: String,
    pub(super) action: Action,
    pub(super) expected: Expectation,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A role is asked for something, or waits for an event.
    Ask {
        role: char,
        operation: &'static Operation,
        fields: Vec<(String, String)>,
    },
    /// Git is run.
    Git(Vec<String>),
    /// The repository is changed without gitlock and without Git.
    Tool {
        operation: &'static Operation,
        fields: Vec<(String, String)>,
    },
    /// A role's process is sent a signal.
    Kill(char),
    Stop(char),
    Continue(char),
    Sleep(u64),
}

/// Reads every scenario of a folder, in the order of their names.
pub(super) fn read_all(folder: &Path) -> Result<Vec<Scenario>, String> {
    let failed = |error| format!("{} can't be read: {error}", folder.display());
    let mut files: Vec<_> = fs::read_dir(folder).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "scenario"));
    files.sort();
    let (mut scenarios, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match parse(&name, &file.display().to_string(), &text) {
            Ok(scenario) => scenarios.push(scenario),
            Err(why) => wrong.push(why),
        }
    }
    if wrong.is_empty() { Ok(scenarios) } else { Err(wrong.join("\n")) }
}

/// Reads one scenario. An error begins with `file:line: `.
pub(super) fn parse(name: &str, file: &str, text: &str) -> Result<Scenario, String> {
    let mut scenario = Scenario {
        name: name.to_owned(),
        file: file.to_owned(),
        title: String::new(),
        roles: Vec::new(),
        limits: Vec::new(),
        faults: false,
        except: Vec::new(),
        only_files: None,
        only_here: None,
        only_there: None,
        steps: Vec::new(),
    };
    let mut known = BTreeSet::from(["repo".to_owned()]);
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        take(&mut scenario, at + 1, trimmed, &mut known).map_err(|why| format!("{file}:{}: {why}", at + 1))?;
    }
    let whole = |what| Err(format!("{file}:1: the scenario has no {what}"));
    match (&*scenario.title, scenario.steps.len()) {
        ("", _) => whole("title"),
        (_, 0) => whole("steps"),
        _ => Ok(scenario),
    }
}

fn take(scenario: &mut Scenario, line: usize, text: &str, known: &mut BTreeSet<String>) -> Result<(), String> {
    let (subject, rest) = text.split_once(':').unwrap_or(("", text));
    let rest = rest.trim();
    if matches!(subject, "title" | "roles" | "limit" | "build" | "except" | "only" | "refs" | "remotes") {
        if !scenario.steps.is_empty() {
            return Err(format!("{subject:?} has to come before the first step"));
        }
        return header(scenario, subject, rest);
    }
    let words = split(rest)?;
    let arrow = words.iter().position(|word| word == "->" || word == "~>");
    let (asked, expected) = match arrow {
        Some(at) => (&words[..at], Expectation::parse(&words[at + 1..], words[at] == "~>")?),
        None => (&words[..], Expectation::success()),
    };
    let action = match (subject, asked) {
        ("", [word, role]) if matches!(&**word, "kill" | "stop" | "continue") => {
            let role = known_role(scenario, role)?;
            match &**word {
                "kill" => Action::Kill(role),
                "stop" => Action::Stop(role),
                _ => Action::Continue(role),
            }
        }
        ("", [word, time]) if word == "sleep" => Action::Sleep(millis(time)?),
        ("", _) => return Err(format!("{text:?} is no step; write `A: acquire build`, `kill A` or `sleep 1s`")),
        ("git", []) => return Err("Git is asked for nothing".to_owned()),
        ("git", words) => Action::Git(words.to_vec()),
        ("tool", words) => {
            let (operation, fields) = operation(TOOL, words)?;
            Action::Tool { operation, fields }
        }
        (role, words) => {
            let role = known_role(scenario, role)?;
            let (operation, fields) = operation(OPERATIONS, words)?;
            Action::Ask { role, operation, fields }
        }
    };
    let named: Vec<String> =
        expected.conditions.iter().filter(|it| it.test == Test::Name).map(|it| it.field.clone()).collect();
    let values = expected.conditions.iter().filter(|it| it.test != Test::Name).map(|it| &it.value);
    for name in asked.iter().chain(values).flat_map(|word| mentioned(word)) {
        if !known.contains(name) {
            return Err(format!("${name} was not named by a step before this one, as in `-> {name}:=token`"));
        }
    }
    known.extend(named);
    scenario.steps.push(Step { line, text: text.to_owned(), action, expected });
    Ok(())
}

fn header(scenario: &mut Scenario, subject: &str, rest: &str) -> Result<(), String> {
    if rest.is_empty() {
        return Err(format!("{subject:?} says nothing"));
    }
    match subject {
        "title" => scenario.title = rest.to_owned(),
        "roles" => {
            for role in rest.split(',').map(str::trim) {
                match role.chars().next() {
                    Some(letter) if role.len() == 1 && letter.is_ascii_uppercase() => scenario.roles.push(letter),
                    _ => return Err(format!("{role:?} is no role; roles are A, B, C")),
                }
            }
        }
        "refs" => {
            let why = rest.strip_prefix("files (").and_then(|why| why.strip_suffix(')'));
            scenario.only_files = Some(why.ok_or("write `refs: files (why)`")?.to_owned());
        }
        "remotes" => {
            let why = |word: &str| rest.strip_prefix(word)?.strip_prefix(" (")?.strip_suffix(')').map(str::to_owned);
            (scenario.only_here, scenario.only_there) = (why("none"), why("only"));
            if scenario.only_here.is_none() && scenario.only_there.is_none() {
                return Err("write `remotes: none (why)` or `remotes: only (why)`".to_owned());
            }
        }
        "build" if rest == "with faults" => scenario.faults = true,
        "build" => return Err(format!("{rest:?} is no build; there is `with faults`")),
        "limit" => {
            let (role, limit) = rest.split_once(' ').unwrap_or((rest, ""));
            let limit = match limit.trim() {
                "full disk" => Limit::FullDisk,
                "plain user" => Limit::PlainUser,
                other => return Err(format!("{other:?} is no limit; there are `full disk` and `plain user`")),
            };
            scenario.limits.push((known_role(scenario, role)?, limit));
        }
        _ => {
            let (names, why) = rest.split_once('(').ok_or("say why, in parentheses")?;
            let why = why.trim_end_matches(')').to_owned();
            let names = names.split(',').map(|name| {
                let name = name.trim();
                surface(name).map(|surface| surface.name).ok_or_else(|| format!("there is no surface {name:?}"))
            });
            let names: Vec<&'static str> = names.collect::<Result<_, String>>()?;
            let all = SURFACES.iter().map(|surface| surface.name);
            let left_out = all.filter(|name| names.contains(name) == (subject == "except"));
            scenario.except.extend(left_out.map(|name| (name, why.clone())));
        }
    }
    Ok(())
}

fn known_role(scenario: &Scenario, name: &str) -> Result<char, String> {
    let letter = name.chars().next().filter(|_| name.len() == 1);
    let role = letter.filter(|letter| scenario.roles.contains(letter));
    role.ok_or_else(|| format!("there is no role {name:?}; `roles:` has {:?}", scenario.roles))
}

type Asked = (&'static Operation, Vec<(String, String)>);

fn operation(table: &'static [Operation], words: &[String]) -> Result<Asked, String> {
    let (name, rest) = words.split_first().ok_or("nothing is asked for")?;
    let operation = table.iter().find(|operation| operation.name == name);
    let operation = operation.ok_or_else(|| format!("there is no operation {name:?}"))?;
    if rest.len() < operation.words.len() {
        return Err(format!("{name:?} needs {}", operation.words.join(" and ")));
    }
    let (first, rest) = rest.split_at(operation.words.len());
    let mut fields: Vec<(String, String)> =
        operation.words.iter().map(|word| (*word).to_owned()).zip(first.iter().cloned()).collect();
    for word in rest {
        let (key, value) = word.split_once('=').unwrap_or((word, "yes"));
        if !operation.options.contains(&key) {
            return Err(format!("{name:?} has no option {key:?}; it has {:?}", operation.options));
        }
        let value = if TIMES.contains(&key) { millis(value)?.to_string() } else { value.to_owned() };
        fields.push((key.to_owned(), value));
    }
    Ok((operation, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "title: t\nroles: A, B\n";

    fn read(steps: &str) -> Result<Scenario, String> {
        parse("x", "x.scenario", &format!("{HEAD}{steps}"))
    }

    #[test]
    fn a_scenario_is_read() {
        let scenario = read(
            "# a comment\n\nA: acquire build ttl=2s shared -> t:=token\nB: try \"a b\" -> HELD holder.token=$t\n\
             kill A\nsleep 20ms\ngit: for-each-ref ~> out=\"\"\ntool: record build v=2",
        )
        .unwrap();
        assert_eq!((&*scenario.title, &*scenario.roles, scenario.steps.len()), ("t", &['A', 'B'][..], 6));
        let Action::Ask { role: 'A', operation, fields } = &scenario.steps[0].action else { panic!() };
        assert_eq!(operation.name, "acquire");
        let fields: Vec<_> = fields.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(fields, [("name", "build"), ("ttl", "2000"), ("shared", "yes")]);
        assert_eq!(scenario.steps[1].expected.end, End::Code(ErrorCode::Held));
        assert_eq!(scenario.steps[1].line, 6);
        assert!(scenario.steps[4].expected.eventually);
    }

    #[test]
    fn who_is_left_out_needs_a_reason() {
        let left_out = |header: &str| {
            let text = format!("title: t\nroles: A\n{header}\nA: list\n");
            parse("x", "x.scenario", &text).map(|it| it.except.iter().map(|(name, _)| *name).collect::<Vec<_>>())
        };
        assert_eq!(left_out("except: cli, c (it can't)").unwrap(), ["c", "cli"]);
        assert_eq!(left_out("only: cli (it alone)").unwrap().len(), SURFACES.len() - 1);
        assert!(left_out("except: cli").unwrap_err().contains("say why"));
        assert!(left_out("except: cobol (none)").unwrap_err().contains("no surface"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (step, why) in [
            ("A: acquire", "needs name"),
            ("A: acquire build tll=1s", "no option \"tll\""),
            ("A: acquire build ttl=1", "no unit"),
            ("A: borrow build", "no operation \"borrow\""),
            ("C: list", "no role \"C\""),
            ("kill C", "no role"),
            ("A: list -> HOLD", "no code and no condition"),
            ("A: list ->", "nothing is expected"),
            ("A: try \"x", "isn't closed"),
            ("A: try x -> token>$u", "$u was not named"),
            ("jump", "is no step"),
            ("git:", "asked for nothing"),
            ("tool: paint x", "no operation"),
        ] {
            let told = read(&format!("A: list\n{step}\n")).unwrap_err();
            assert!(told.starts_with("x.scenario:4: ") && told.contains(why), "{step}: {told}");
        }
        assert!(read("A: list\nroles: C").unwrap_err().contains("before the first step"));
        assert!(parse("x", "x", "roles: A\nA: list").unwrap_err().contains("no title"));
        assert!(read("").unwrap_err().contains("no steps"));
        assert!(parse("x", "x", "title: t\nroles: a\n").unwrap_err().starts_with("x:2: "));
    }
}
