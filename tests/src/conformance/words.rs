//! Words of a scenario's line: separated by spaces, with quotes around what has some itself.

use std::collections::BTreeMap;

/// Takes a line apart. A `#` at the beginning of a word starts a comment.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, None);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (quoted, c) {
            (Some(quote), c) if c == quote => quoted = None,
            (Some('"'), '\\') => word.get_or_insert_default().push(escape(rest.next())?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quoted = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quoted.is_some() {
        return Err("a quote isn't closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

fn escape(c: Option<char>) -> Result<char, String> {
    match c {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('e') => Ok('\u{1b}'),
        Some(c @ ('"' | '\\')) => Ok(c),
        other => Err(format!("\\{} is no escape", other.map(String::from).unwrap_or_default())),
    }
}

/// A length of time in milliseconds: `500ms`, `30s`, `2m`, or `0`.
pub(super) fn millis(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no length of time; write 500ms, 30s or 2m"))?;
    match unit {
        "ms" => Ok(number),
        "s" => Ok(number * 1_000),
        "m" => Ok(number * 60_000),
        "" if number == 0 => Ok(0),
        _ => Err(format!("{text:?} has no unit that is known; write 500ms, 30s or 2m")),
    }
}

/// The names of the variables that a word mentions.
pub(super) fn mentioned(word: &str) -> Vec<&str> {
    let name = |part: &'_ str| part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
    word.split('$').skip(1).map(|part| &part[..name(part)]).filter(|name| !name.is_empty()).collect()
}

/// Puts in what variables stand for; a `$` without a name after it stays.
pub(super) fn fill(word: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut parts = word.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        match (name, variables.get(name)) {
            ("", _) => filled += "$",
            (_, Some(value)) => filled += value,
            (_, None) => return Err(format!("${name} has no value yet")),
        }
        filled += rest;
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_comments() {
        let words = |text| split(text).unwrap();
        assert_eq!(words(r#"try "a b" reason='x "y"' "" # the rest"#), ["try", "a b", "reason=x \"y\"", ""]);
        assert_eq!(words(r#""a\nb\te\\" x#y"#), ["a\nb\te\\", "x#y"]);
        assert!(split("try \"a").unwrap_err().contains("isn't closed"));
        assert!(split(r#""\q""#).unwrap_err().contains("no escape"));
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(
            [millis("500ms"), millis("30s"), millis("2m"), millis("0")],
            [Ok(500), Ok(30_000), Ok(120_000), Ok(0)]
        );
        assert!(millis("30").is_err() && millis("s").is_err() && millis("1h").is_err() && millis("-1s").is_err());
    }

    #[test]
    fn variables_are_filled_in() {
        let variables = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(fill("x$a/$(y)$", &variables).unwrap(), "x1/$(y)$");
        assert!(fill("$b", &variables).is_err());
        assert_eq!(mentioned("x$a/$(y)$bc"), ["a", "bc"]);
    }
}
