//! `cargo xtask torture`: many processes after one lock, those of other languages among them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    c::compile_against,
    commands::{release, run, ship, target},
    install::install,
    node, python,
};

pub(crate) fn run_with(root: &Path, arguments: &[String]) -> Result<(), String> {
    // The command line as it ships: built by itself, it has no seeded faults.
    ship(root)?;
    run(root, "cargo", &["build", "--quiet", "--release", "-p", "gitlock-tests", "--bin", "torture"])?;
    let mut all = vec!["--git-lock".to_owned(), release(root, "git-lock")];
    for worker in if wants_languages(arguments) { workers(root, "torture")? } else { Vec::new() } {
        all.extend(["--worker".to_owned(), worker]);
    }
    all.extend_from_slice(arguments);
    run(root, &release(root, "torture"), &all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Whether the arm of the languages is among those that are asked for.
fn wants_languages(arguments: &[String]) -> bool {
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let one = ["--arm", "kill-random", "fork", "fenced", "fenced-push", "--ref-format"];
    asked("languages") || !one.into_iter().any(asked)
}

/// The workers of a folder of `tests`, each through its language's package as users install it.
pub(crate) fn workers(root: &Path, folder: &str) -> Result<Vec<String>, String> {
    let (sources, prefix) = (root.join("tests").join(folder), target(root).join(folder));
    install(root, &prefix)?;
    let program = prefix.join("bin/worker-c");
    compile_against(&prefix, ("cc", "-std=c11"), &sources.join("worker.c"), &program)?;
    let interpreter = python::environment(root)?;
    python::install(root, &interpreter)?;
    let package = prefix.join("node");
    let _ = fs::remove_dir_all(&package);
    node::install(&package, &node::pack(root, None)?)?;
    let script = |name: &str| -> PathBuf { sources.join(name) };
    let package = package.join("node_modules/gitlock");
    Ok(vec![
        format!("c={}", program.display()),
        format!("python={interpreter},{}", script("worker.py").display()),
        format!("node=node,{},{}", script("worker.mjs").display(), package.display()),
    ])
}
