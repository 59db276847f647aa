//! Commands that run what other packages build.

use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

/// Runs a command in the checkout; an exit code other than 0 is an error.
pub(crate) fn run(root: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    run_in(root, program, arguments)
}

/// The same in another folder.
pub(crate) fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    println!("$ {program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).current_dir(folder).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` failed: {status}", arguments.join(" "))),
        Err(error) => Err(format!("`{program}` can't be run: {error}")),
    }
}

/// Does something, unless this command has done it already: most of what `cargo xtask test` runs builds the same first.
pub(crate) fn once(what: &str, run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    static DONE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let done = || DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !done().contains(what) {
        run()?;
        done().insert(what.to_owned());
    }
    Ok(())
}

/// Every test, then a slice of each long run.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    build(root)?;
    crate::suites::run_all(root, &[("GITLOCK_DULWICH_PYTHON", &crate::python::environment(root)?)])?;
    crate::c::test(root)?;
    crate::python::test(root)?;
    crate::node::test(root)?;
    crate::examples::test(root)?;
    crate::demo::run(root)?;
    crate::conformance::run_with(root, &[])?;
    let remote = ["--remote", "git,http,ssh-kept", "--once", "--jobs", "4"].map(str::to_owned);
    crate::conformance::run_with(root, &remote)?;
    let reftable = |more: &[&str]| {
        [&["--ref-format", "reftable"], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    crate::conformance::run_with(root, &reftable(&["--surface", "rust"]))?;
    crate::conformance::philosophers(root, &["--seats".to_owned(), "8".to_owned()])?;
    model(root, &[])?;
    crate::hosts::run_with(root, &["--seconds".to_owned(), "30".to_owned()])?;
    crate::torture::run_with(root, &["--slice".to_owned()])?;
    crate::torture::run_with(root, &reftable(&["--slice"]))
}

/// Random histories of several locks beside a plain lock table.
pub(crate) fn histories(root: &Path, arguments: &[String]) -> Result<(), String> {
    let count = arguments.first().cloned().unwrap_or_else(|| "100000".to_owned());
    model(root, &["--histories".to_owned(), count])
}

/// What many clients of one hot lock cost a server, in a simulation.
pub(crate) fn scale(root: &Path, arguments: &[String]) -> Result<(), String> {
    tool(root, "scale", arguments)
}

/// The rules, explored exhaustively.
pub(crate) fn model(root: &Path, arguments: &[String]) -> Result<(), String> {
    tool(root, "model", arguments)
}

/// Runs a program of the tests, with optimisation.
pub(crate) fn tool(root: &Path, name: &str, arguments: &[String]) -> Result<(), String> {
    run(root, "cargo", &["build", "--quiet", "--release", "-p", "gitlock-tests", "--bin", name])?;
    let all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(root, &release(root, name), &all)
}

/// Builds everything that is tested, for tests.
pub(crate) fn build(root: &Path) -> Result<(), String> {
    // Always by the same words: with others the same crates would have other features, and be compiled again.
    once("build", || run(root, "cargo", &["build", "--quiet", "--workspace", "--all-targets"]))
}

/// Builds what is shipped, but for the wheel, which maturin builds. Together with the tests it would have seeded faults.
pub(crate) fn ship(root: &Path) -> Result<(), String> {
    let packages = ["gitlock-ffi", "gitlock-node", "git-lock"].map(|name| ["-p", name]).concat();
    once("ship", || run(root, "cargo", &[&["build", "--quiet", "--release", "--locked"], &packages[..]].concat()))
}

/// Real Git servers, for as long as somebody wants them.
pub(crate) fn servers(root: &Path, arguments: &[String]) -> Result<(), String> {
    run(root, "cargo", &["build", "--quiet", "-p", "gitlock-tests", "--bin", "servers"])?;
    let command = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    // In this process's place, so that Ctrl-C is heard by nobody else, and whoever waits does until all is gone.
    let error = Command::new(target(root).join("debug/servers")).args(command).exec();
    Err(format!("the servers can't be started: {error}"))
}

pub(crate) fn release(root: &Path, binary: &str) -> String {
    target(root).join("release").join(binary).display().to_string()
}

/// Where Cargo puts what it builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
