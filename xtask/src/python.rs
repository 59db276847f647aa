//! `cargo xtask python`: the wheel, as a user installs it, its tests, and its types.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::commands::{once, run_in, target};

/// Builds the wheel, installs it into the checkout's virtual environment, and tries it from outside
/// of the checkout.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    let python = environment(root)?;
    install(root, &python)?;
    let outside = target(root).join("python");
    let _ = fs::remove_dir_all(&outside);
    let package = root.join("bindings-python");
    copy_tests(&package.join("tests"), &outside)?;
    let run = |arguments: &[&str]| run_in(&outside, &python, arguments);
    run(&[
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error::pytest.PytestUnraisableExceptionWarning",
        ".",
    ])?;
    run(&["-m", "mypy", "--strict", "-p", "gitlock"])?;
    run(&["-m", "mypy.stubtest", "gitlock"])
}

/// The interpreter of the checkout's virtual environment, with the tools in it.
pub(crate) fn environment(root: &Path) -> Result<String, String> {
    let folder = root.join(".venv");
    let python = folder.join("bin/python").display().to_string();
    if !Path::new(&python).exists() {
        run_in(root, "python3", &["-m", "venv", ".venv"])?;
    }
    let pins = root.join("bindings-python/requirements-dev.txt");
    // The pins as they were when they were installed: asking pip takes a second each time.
    let stamp = folder.join("installed");
    if fs::read(&stamp).ok() != fs::read(&pins).ok() {
        run_in(root, &python, &["-m", "pip", "install", "--quiet", "--requirement", &pins.display().to_string()])?;
        fs::copy(&pins, &stamp).map_err(|error| format!("can't write {}: {error}", stamp.display()))?;
    }
    Ok(python)
}

/// Installs the wheel into the virtual environment.
pub(crate) fn install(root: &Path, python: &str) -> Result<(), String> {
    once(&format!("the wheel for {python}"), || build_and_install(root, python))
}

fn build_and_install(root: &Path, python: &str) -> Result<(), String> {
    let wheels = target(root).join("wheels");
    let _ = fs::remove_dir_all(&wheels);
    let out = wheels.display().to_string();
    run_in(
        &root.join("bindings-python"),
        python,
        &["-m", "maturin", "build", "--quiet", "--release", "--locked", "--out", &out],
    )?;
    let wheel = only_file(&wheels)?.display().to_string();
    run_in(root, python, &["-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", &wheel])
}

fn only_file(folder: &Path) -> Result<PathBuf, String> {
    let files: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    match &files[..] {
        [file] => Ok(file.clone()),
        other => Err(format!("there should be one wheel in {}, and there are {}", folder.display(), other.len())),
    }
}

fn copy_tests(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the tests can't be copied to {}: {error}", to.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "py") {
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed)?;
        }
    }
    Ok(())
}
