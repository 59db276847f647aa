//! The workspace's tests, as `cargo test` has them, but several programs at the same time: most of them wait for
//! leases, servers and kills, and not for the processor.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use serde_json::Value;

use crate::commands::run;

/// How many run at the same time.
const JOBS: usize = 3;

/// The longest, to begin with.
const LONG: [&str; 8] =
    ["real_servers", "multi", "control_arm", "remote_cuts", "sync", "remote_locks", "fenced_push", "model"];

/// What looks at how quickly something happens, or at how little: alone, at the end.
const ALONE: [&str; 2] = ["waiting", "forks"];

/// A program of tests.
struct Suite {
    name: String,
    program: PathBuf,
    /// The package's folder, which it is started in.
    folder: PathBuf,
}

/// Runs all of them, with these environment variables, and the examples in doc comments.
pub(crate) fn run_all(root: &Path, environment: &[(&str, &str)]) -> Result<(), String> {
    let (alone, mut together): (Vec<Suite>, Vec<Suite>) =
        suites(root)?.into_iter().partition(|suite| ALONE.contains(&&*suite.name));
    let place = |suite: &Suite| LONG.iter().position(|long| *long == suite.name).unwrap_or(LONG.len());
    together.sort_by_key(place);
    let (queue, failed) = (Mutex::new(VecDeque::from(together)), Mutex::new(Vec::new()));
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let play = |suite: &Suite| {
        if !passes(suite, environment) {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(suite.name.clone());
        }
    };
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(suite) = take() {
                    play(&suite);
                }
            });
        }
    });
    alone.iter().for_each(play);
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        return Err(format!("these tests failed, see above: {}", failed.join(", ")));
    }
    run(root, "cargo", &["test", "--quiet", "--workspace", "--doc"])
}

/// Builds them, and says where they are.
fn suites(root: &Path) -> Result<Vec<Suite>, String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json-render-diagnostics"]);
    let output = cargo.current_dir(root).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("`cargo test` can't be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("the tests can't be built: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| suite(&message)).collect())
}

fn suite(message: &Value) -> Option<Suite> {
    if message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let name = message["target"]["name"].as_str()?.to_owned();
    Some(Suite { name, program: PathBuf::from(message["executable"].as_str()?), folder })
}

/// Runs one to its end, and shows what it says.
fn passes(suite: &Suite, environment: &[(&str, &str)]) -> bool {
    let mut command = Command::new(&suite.program);
    command.current_dir(&suite.folder).env("CARGO_MANIFEST_DIR", &suite.folder).stdin(Stdio::null());
    command.envs(environment.iter().copied());
    let (passed, said) = match command.output() {
        Ok(output) => (
            output.status.success(),
            [&output.stdout[..], &output.stderr[..]].map(|text| String::from_utf8_lossy(text).into_owned()).concat(),
        ),
        Err(error) => (false, format!("it can't be started: {error}")),
    };
    let skips = said.lines().filter(|line| line.contains("skipped"));
    let result = said.lines().filter(|line| line.starts_with("test result:"));
    let shown: Vec<&str> = if passed { skips.chain(result).collect() } else { said.lines().collect() };
    println!("{}\n  {}", suite.name, shown.join("\n  "));
    passed
}
