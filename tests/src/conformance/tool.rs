//! What another program does to the repository: with plain Git, and with plain files.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
};

use gitlock::{
    clock::{Clock, SystemClock},
    json::Value,
};

use super::expect::{Answer, End};
use crate::git::{git, try_git};

/// Runs Git in the repository. Output that is JSON is told by its fields.
pub(super) fn run_git(repo: &Path, words: &[String]) -> Answer {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = try_git(repo, &words);
    let out = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let lines: Vec<Value> = out.lines().map(Value::from).collect();
    let mut told = match out.parse() {
        Ok(Value::Object(fields)) => fields,
        _ => Default::default(),
    };
    told.insert("lines".to_owned(), lines.into());
    told.insert("out".to_owned(), out.into());
    told.insert("err".to_owned(), String::from_utf8_lossy(&output.stderr).trim_end().into());
    Answer { end: if output.status.success() { End::Ok } else { End::Fails }, told: told.into() }
}

/// Does one of the pseudo-role's operations.
pub(super) fn work(repo: &Path, operation: &str, fields: &[(String, String)]) -> Result<Answer, String> {
    let get = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| &**value);
    let (name, path) = (get("name").unwrap_or_default(), repo.join(".git").join(get("path").unwrap_or_default()));
    let text = get("text").unwrap_or_default();
    let failed = |error: std::io::Error| format!("{operation}: {error}");
    match operation {
        "record" => put(repo, name, &record(&get)?)?,
        "text" => put(repo, name, text)?,
        "file" => {
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            fs::write(&path, format!("{text}\n")).map_err(failed)?;
        }
        "folder" => fs::create_dir_all(&path).map_err(failed)?,
        "remove" if path.is_dir() => fs::remove_dir_all(&path).map_err(failed)?,
        "remove" => fs::remove_file(&path).map_err(failed)?,
        "owner" => {
            let user = get("user").and_then(|user| user.parse().ok()).ok_or("owner needs a user's number")?;
            each(repo, &|path| std::os::unix::fs::lchown(path, Some(user), None)).map_err(failed)?;
        }
        "freeze" => each(&repo.join(".git"), &|path| {
            let mode = fs::metadata(path)?.permissions().mode();
            fs::set_permissions(path, Permissions::from_mode(mode & !0o222))
        })
        .map_err(failed)?,
        other => return Err(format!("nobody knows how to {other:?}")),
    }
    Ok(Answer { end: End::Ok, told: Value::Null })
}

/// A record with the seven fields that every tool writes, and what the scenario adds.
fn record<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<String, String> {
    let number = |key: &str, default: u64| {
        get(key).map_or(Ok(default), |value| value.parse::<u64>().map_err(|_| format!("{key} is no number")))
    };
    let acquired = SystemClock.now().wall.saturating_sub(number("age", 0)?);
    let mut fields = vec![
        ("id", Value::from(get("id").unwrap_or("theirs"))),
        ("acquiredAt", acquired.into()),
        ("timeout", number("timeout", 60_000)?.into()),
        ("fingerprint", get("fingerprint").unwrap_or("theirs").into()),
        ("exclusive", (get("exclusive") != Some("no")).into()),
        ("pid", 1.into()),
        ("hostname", "elsewhere".into()),
    ];
    if get("v").is_some() {
        fields.push(("v", number("v", 1)?.into()));
    }
    let waiters = number("waiters", 0)?;
    if waiters > 0 {
        fields.extend([("v", 1.into()), ("queue", (0..waiters).map(|at| waiter(at, acquired)).collect())]);
    }
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value));
    Ok(Value::from_iter(fields).to_string())
}

/// One that waits on a machine that nobody here can look at.
fn waiter(at: u64, since: u64) -> Value {
    let fields = [
        ("id", Value::from(format!("waiter-{at}"))),
        ("owner", format!("owner-{at}").into()),
        ("fingerprint", "theirs".into()),
        ("mode", "exclusive".into()),
        ("priority", 0.into()),
        ("rank", (since + at).into()),
        ("since", since.into()),
        ("ttl", 30_000.into()),
        ("bound", "lease".into()),
        ("pid", 1.into()),
        ("hostname", "elsewhere".into()),
    ];
    Value::from_iter(fields.map(|(key, value)| (key.to_owned(), value)))
}

/// Makes this text the record of a lock.
fn put(repo: &Path, name: &str, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("git hash-object: {error}");
    let mut command = git(repo);
    command.args(["hash-object", "-w", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes())).map_err(failed)?;
    let output = child.wait_with_output().map_err(failed)?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let done = try_git(repo, &["update-ref", &format!("refs/gitvan/locks/{name}"), &id]);
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// Does something to everything under a path, the innermost first.
fn each(path: &Path, change: &impl Fn(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            each(&entry?.path(), change)?;
        }
    }
    change(path)
}

/// Gives a frozen repository its rights back, so that it can be deleted.
pub(super) fn thaw(repo: &Path) {
    let thaw = |path: &Path| {
        let mode = fs::metadata(path)?.permissions().mode();
        fs::set_permissions(path, Permissions::from_mode(mode | 0o200))
    };
    let _ = each(repo, &thaw);
}

/// What this machine must allow for an operation, if it doesn't.
pub(super) fn missing(operation: &str) -> Option<&'static str> {
    let is_root = rustix::process::geteuid().is_root();
    (operation == "owner" && !is_root).then_some("only root can give files to somebody else")
}
