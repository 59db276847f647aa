//! What a step is expected to end with, and whether it did.

use std::collections::BTreeMap;

use gitlock::{ErrorCode, json::Value};

use super::words;

/// The values that a scenario has named.
pub(super) type Variables = BTreeMap<String, String>;

/// How a step is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Ok,
    /// An error of gitlock's.
    Code(ErrorCode),
    /// An exit code other than 0, of Git.
    Fails,
}

/// One thing that must be true of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// The path of a field, such as `holders.0.reason`; for [`Test::Name`] the name that it gets.
    pub(super) field: String,
    pub(super) test: Test,
    pub(super) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Is,
    IsNot,
    Contains,
    Greater,
    Less,
    /// Remembers the field.
    Name,
}

const TESTS: [(&str, Test); 6] = [
    (":=", Test::Name),
    ("!=", Test::IsNot),
    ("=", Test::Is),
    ("~", Test::Contains),
    (">", Test::Greater),
    ("<", Test::Less),
];

/// What a step is expected to end with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expectation {
    pub(super) end: End,
    pub(super) conditions: Vec<Condition>,
    /// Whether it may take some time, and is asked again until then.
    pub(super) eventually: bool,
}

/// How a step ended.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) end: End,
    /// An object of what was told.
    pub(super) told: Value,
}

impl Expectation {
    pub(super) fn parse(words: &[String], eventually: bool) -> Result<Expectation, String> {
        let mut words = words.iter().peekable();
        let end = match words.peek() {
            None => return Err("nothing is expected after the arrow".to_owned()),
            Some(word) => end(word),
        };
        if end.is_some() {
            words.next();
        }
        let conditions = words.map(|word| condition(word)).collect::<Result<_, _>>()?;
        Ok(Expectation { end: end.unwrap_or(End::Ok), conditions, eventually })
    }

    /// What is expected where nothing is said.
    pub(super) fn success() -> Expectation {
        Expectation { end: End::Ok, conditions: Vec::new(), eventually: false }
    }

    /// Says what isn't as expected, if anything isn't. Named values are remembered if all is well.
    pub(super) fn check(&self, answer: &Answer, variables: &mut Variables) -> Result<(), String> {
        if answer.end != self.end {
            return Err(format!("expected {}, got {}: {}", self.end, answer.end, answer.told));
        }
        let mut named = Vec::new();
        for condition in &self.conditions {
            let found = find(&answer.told, &condition.field_path());
            if condition.test == Test::Name {
                let value = found.map(plain).filter(|value| !value.is_empty());
                let value = value.ok_or_else(|| format!("there is no {} in {}", condition.value, answer.told))?;
                named.push((condition.field.clone(), value));
                continue;
            }
            let wanted = words::fill(&condition.value, variables)?;
            if !holds(condition.test, found, &wanted) {
                let got = found.map_or_else(|| "nothing of that name".to_owned(), plain);
                return Err(format!(
                    "expected {}{}{wanted:?}, got {got:?} in {}",
                    condition.field, condition.test, answer.told
                ));
            }
        }
        variables.extend(named);
        Ok(())
    }
}

impl Condition {
    fn field_path(&self) -> String {
        if self.test == Test::Name { self.value.clone() } else { self.field.clone() }
    }
}

fn end(word: &str) -> Option<End> {
    match word {
        "ok" => Some(End::Ok),
        "fails" => Some(End::Fails),
        word => ErrorCode::ALL.iter().find(|code| code.as_str() == word).map(|code| End::Code(*code)),
    }
}

fn condition(word: &str) -> Result<Condition, String> {
    let at = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_').unwrap_or(word.len());
    let (field, rest) = word.split_at(at);
    let test = TESTS.iter().find_map(|(sign, test)| Some((test, rest.strip_prefix(sign)?)));
    match test {
        Some((test, value)) if !field.is_empty() => {
            Ok(Condition { field: field.to_owned(), test: *test, value: value.to_owned() })
        }
        _ => Err(format!("{word:?} is no code and no condition; write HELD, or a field as in token>5")),
    }
}

/// The field at a path of names and numbers.
fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// A value as a scenario writes it: a list as its length.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.len().to_string(),
        other => other.to_string(),
    }
}

fn holds(test: Test, found: Option<&Value>, wanted: &str) -> bool {
    let Some(found) = found else { return test == Test::Is && wanted == "null" };
    let text = plain(found);
    let numbers = || Some((text.parse::<i128>().ok()?, wanted.parse::<i128>().ok()?));
    match test {
        Test::Is => text == wanted,
        Test::IsNot => text != wanted,
        Test::Contains => text.contains(wanted),
        Test::Greater => numbers().is_some_and(|(text, wanted)| text > wanted),
        Test::Less => numbers().is_some_and(|(text, wanted)| text < wanted),
        Test::Name => true,
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            End::Ok => "ok",
            End::Code(code) => code.as_str(),
            End::Fails => "fails",
        })
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(TESTS.iter().find(|(_, test)| test == self).map_or("", |(sign, _)| sign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(text: &str) -> Expectation {
        Expectation::parse(&words::split(text).unwrap(), false).unwrap()
    }

    fn answer(told: &str) -> Answer {
        let end = End::Ok;
        Answer {
            end,
            told: Value::from_iter([("list".to_owned(), Value::from(vec![1, 2])), ("a".to_owned(), told.into())]),
        }
    }

    #[test]
    fn conditions_hold_or_say_what_they_got() {
        let mut variables = Variables::new();
        for text in ["ok", "list=2", "list.1=2", "a=7 a!=8 a>6 a<8 a~7", "b=null", "x:=a", "a=$x a>5"] {
            expected(text).check(&answer("7"), &mut variables).unwrap();
        }
        for text in ["HELD", "list=3", "a=8", "a!=7", "a>7", "a<7", "a~8", "b=7", "x:=b", "a>$x", "list.5=1"] {
            assert!(expected(text).check(&answer("7"), &mut variables).is_err(), "{text}");
        }
        assert!(expected("a=8").check(&answer("7"), &mut variables).unwrap_err().contains("got \"7\""));
    }

    #[test]
    fn what_is_no_expectation_is_refused() {
        for text in ["", "held", "NO_SUCH_CODE", "ok =5", "HELD HELD"] {
            assert!(Expectation::parse(&words::split(text).unwrap(), false).is_err(), "{text}");
        }
    }
}
