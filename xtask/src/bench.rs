//! `cargo xtask bench`: speed, each thing beside others in the same run.

use std::{fs, path::Path};

use crate::{
    c::compile_against,
    commands::{release, run, target, tool},
    install::install,
    node, python,
};

pub(crate) fn run_with(root: &Path, arguments: &[String]) -> Result<(), String> {
    match arguments.first().map(String::as_str) {
        Some("--surfaces") => surfaces(root),
        Some("--core") => core(root, &arguments[1..]),
        Some("--node") => node::bench(root),
        Some("--remote") => tool(root, "bench_remote", &arguments[1..]),
        None => {
            core(root, &[])?;
            surfaces(root)?;
            node::bench(root)?;
            tool(root, "bench_remote", &[])
        }
        Some(other) => Err(format!(
            "what is {other:?}? usage: cargo xtask bench [--core [--pairs N] | --surfaces | --node | --remote]"
        )),
    }
}

/// The core, beside bare system calls and beside `git` commands.
fn core(root: &Path, arguments: &[String]) -> Result<(), String> {
    for name in ["acquire", "growth"] {
        let mut all = vec!["bench", "--quiet", "-p", "gitlock", "--bench", name, "--"];
        all.extend(arguments.iter().map(String::as_str));
        run(root, "cargo", &all)?;
    }
    Ok(())
}

/// C and Python beside Rust, and beside what else Python has.
fn surfaces(root: &Path) -> Result<(), String> {
    let (prefix, folder) = (target(root).join("bench"), root.join("bindings-python/bench"));
    install(root, &prefix)?;
    run(root, "cargo", &["build", "--quiet", "--release", "-p", "gitlock", "--example", "pairs"])?;
    let c = prefix.join("bin/pairs-c");
    compile_against(&prefix, ("cc", "-std=c11"), &root.join("ffi-c/bench/pairs.c"), &c)?;
    let interpreter = python::environment(root)?;
    python::install(root, &interpreter)?;
    // What is compared with, in a folder of its own: nothing but the benchmark sees it.
    let others = prefix.join("python");
    let _ = fs::remove_dir_all(&others);
    let (pins, target) = (folder.join("requirements.txt").display().to_string(), others.display().to_string());
    run(root, &interpreter, &["-m", "pip", "install", "--quiet", "--target", &target, "--requirement", &pins])?;
    let (rust, c, bench) = (release(root, "examples/pairs"), c.display().to_string(), folder.join("bench.py"));
    run(root, "env", &[&format!("PYTHONPATH={target}"), &interpreter, &bench.display().to_string(), &rust, &c])
}
