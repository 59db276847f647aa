//! `cargo xtask conformance`: builds every surface and its shim, as users get them, and plays the
//! scenarios of `tests/conformance`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    c::compile_against,
    commands::{build, once, target},
    install::install,
    node, python,
};

/// The shims that a compiler makes: compiler, standard, source.
const COMPILED: [(&str, &str, &str); 2] = [("cc", "-std=c11", "shim.c"), ("c++", "-std=c++17", "shim.cpp")];

pub(crate) fn run_with(root: &Path, arguments: &[String]) -> Result<(), String> {
    let prefix = target(root).join("conformance");
    let (node, built, faulty) = (prefix.join("node"), target(root).join("debug"), prefix.join("faulty"));
    let interpreter = python::environment(root)?;
    once("the surfaces of conformance", || {
        install(root, &prefix)?;
        COMPILED.iter().try_for_each(|shim| compile(root, &prefix, *shim))?;
        python::install(root, &interpreter)?;
        let _ = fs::remove_dir_all(&node);
        node::install(&node, &node::pack(root, None)?)?;
        fill_faulty(root, &faulty)
    })?;
    let [c, cpp] = COMPILED.map(|(_, _, source)| program(&prefix, source));
    let here = root.join("tests/conformance");
    let mut command = Command::new(built.join("conformance"));
    command.args(arguments).current_dir(root);
    for (flag, path) in [
        ("--scenarios", PathBuf::from("tests/conformance/scenarios")),
        ("--shims", here.join("shims")),
        ("--rust", built.join("conformance_rust")),
        ("--c", c),
        ("--cpp", cpp),
        ("--library", prefix.join("lib")),
        ("--python", interpreter.into()),
        ("--node", node.join("node_modules/gitlock")),
        ("--git-lock", prefix.join("bin/git-lock")),
        ("--faulty-library", faulty.clone()),
        ("--faulty-packages", faulty.clone()),
        ("--faulty-node", faulty.join("node/node_modules/gitlock")),
        ("--faulty-git-lock", faulty.join("git-lock")),
    ] {
        command.arg(flag).arg(path);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("the conformance set is not as expected".to_owned()),
        Err(error) => Err(format!("the runner can't be started: {error}")),
    }
}

/// `cargo xtask philosophers`: the same programs, around a table.
pub(crate) fn philosophers(root: &Path, arguments: &[String]) -> Result<(), String> {
    let mut all = vec!["--philosophers".to_owned(), "5,12,50".to_owned()];
    for pair in arguments.chunks(2) {
        match pair {
            [flag, value] if flag == "--seats" => all[1].clone_from(value),
            [flag, _] if flag == "--meals" || flag == "--surface" => all.extend(pair.iter().cloned()),
            _ => return Err("usage: cargo xtask philosophers [--seats N,N] [--meals N] [--surface NAME]".to_owned()),
        }
    }
    run_with(root, &all)
}

/// The surfaces with a core that has faults to be seeded, as none that is shipped has, in one folder.
fn fill_faulty(root: &Path, folder: &Path) -> Result<(), String> {
    // Built together, they share the features that the tests ask of the core.
    build(root)?;
    let built = target(root).join("debug");
    let failed = |error: std::io::Error| format!("can't fill {}: {error}", folder.display());
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder.join("gitlock")).map_err(failed)?;
    let copy = |from: PathBuf, to: &str| fs::copy(from, folder.join(to)).map(drop).map_err(failed);
    for entry in fs::read_dir(root.join("bindings-python/python/gitlock")).map_err(failed)?.flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "py") {
            copy(entry.path(), &format!("gitlock/{}", entry.file_name().to_string_lossy()))?;
        }
    }
    let (ending, soname) =
        if cfg!(target_os = "macos") { ("dylib", "libgitlock.0.dylib") } else { ("so", "libgitlock.so.0") };
    copy(built.join(format!("lib_gitlock.{ending}")), "gitlock/_gitlock.abi3.so")?;
    copy(built.join(format!("libgitlock_c.{ending}")), soname)?;
    copy(built.join("git-lock"), "git-lock")?;
    let addon = built.join(format!("libgitlock_node.{ending}"));
    node::install(&folder.join("node"), &node::pack(root, Some(&addon))?)
}

fn compile(root: &Path, prefix: &Path, (compiler, standard, source): (&str, &str, &str)) -> Result<(), String> {
    let shim = root.join("tests/conformance/shims").join(source);
    compile_against(prefix, (compiler, standard), &shim, &program(prefix, source))
}

/// What a shim is compiled to.
fn program(prefix: &Path, source: &str) -> PathBuf {
    prefix.join("bin").join(source.replace('.', "-"))
}
