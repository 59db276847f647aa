//! `cargo xtask node`: the package for Node as a user installs it, its tests, its types, and its examples.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    c::output,
    commands::{once, release, run_in, ship, target},
};

/// Builds the package, installs it into an empty project outside of the checkout, and tries it there.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    let tarballs = pack(root, None)?;
    let project = Project::new()?;
    install(&project.0, &tarballs)?;
    let test = project.0.join("test");
    copy(&root.join("bindings-node/test"), &test)?;
    copy(&root.join("examples/node"), &project.0.join("examples"))?;
    let mut words = vec!["--expose-gc".to_owned(), "--test".to_owned(), "--test-concurrency=1".to_owned()];
    words.extend(files(&test)?);
    println!("$ node {}", words[..3].join(" "));
    let mut command = Command::new("node");
    command.args(words).current_dir(&project.0).env("TYPESCRIPT", root.join("bindings-node/node_modules"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the tests in JavaScript failed: {status}")),
        Err(error) => Err(format!("node can't be run: {error}")),
    }
}

/// The speed from Node, beside one hop to a thread and back, and beside what others use.
pub(crate) fn bench(root: &Path) -> Result<(), String> {
    let package = root.join("bindings-node");
    modules(&package)?;
    modules(&package.join("bench"))?;
    run_in(&package, "npm", &["run", "--silent", "build"])?;
    run_in(&package, "node", &["bench/bench.mjs"])
}

/// Packs the package, and that of this platform, as they would be published: with this compiled part, or the one that is
/// shipped. Returns the tarballs.
pub(crate) fn pack(root: &Path, addon: Option<&Path>) -> Result<Vec<String>, String> {
    let out = target(root).join(if addon.is_some() { "node-faulty" } else { "node" });
    // Which tarballs there are is written down beside them.
    let names = out.with_extension("tarballs");
    once(&format!("{}", out.display()), || {
        let tarballs = pack_to(root, addon, &out)?.join("\n");
        fs::write(&names, tarballs).map_err(|error| format!("{}: {error}", names.display()))
    })?;
    let tarballs = fs::read_to_string(&names).map_err(|error| format!("{}: {error}", names.display()))?;
    Ok(tarballs.lines().map(str::to_owned).collect())
}

fn pack_to(root: &Path, addon: Option<&Path>, out: &Path) -> Result<Vec<String>, String> {
    let package = root.join("bindings-node");
    modules(&package)?;
    let shipped = || {
        // As `npm run build` does, but beside what the other surfaces have compiled: napi names the target, and
        // Cargo then compiles everything anew.
        ship(root)?;
        let ending = if cfg!(target_os = "macos") { "dylib" } else { "so" };
        Ok::<_, String>(PathBuf::from(release(root, &format!("libgitlock_node.{ending}"))))
    };
    let addon = addon.map_or_else(shipped, |addon| Ok(addon.to_owned()))?;
    let mut command = Command::new("node");
    command.args(["scripts/pack.mjs".as_ref(), out.as_os_str(), addon.as_os_str()]).current_dir(&package);
    Ok(output(&mut command)?.lines().map(str::to_owned).collect())
}

/// Installs tarballs into a folder, from nowhere but this machine.
pub(crate) fn install(folder: &Path, tarballs: &[String]) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    fs::write(folder.join("package.json"), "{ \"private\": true }\n")
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut words = vec!["install", "--silent", "--offline", "--no-audit", "--no-fund"];
    words.extend(tarballs.iter().map(String::as_str));
    run_in(folder, "npm", &words)
}

/// The tools, as the lock file has them.
fn modules(package: &Path) -> Result<(), String> {
    // npm's own note of what it has installed: asking it takes a few seconds each time.
    let (pins, stamp) = (package.join("package-lock.json"), package.join("node_modules/.installed"));
    if fs::read(&stamp).ok() != fs::read(&pins).ok() {
        run_in(package, "npm", &["ci", "--silent", "--no-audit", "--no-fund"])?;
        fs::copy(&pins, &stamp).map_err(|error| format!("can't write {}: {error}", stamp.display()))?;
    }
    Ok(())
}

/// An empty project, which goes when it isn't used any more.
struct Project(PathBuf);

impl Project {
    fn new() -> Result<Project, String> {
        let folder = env::temp_dir().join(format!("gitlock-node-user-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("no folder for a project: {error}"))?;
        Ok(Project(folder))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The test files of a folder.
fn files(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<String> = entries.flatten().map(|entry| entry.path().display().to_string()).collect();
    files.retain(|file| file.ends_with(".test.mjs") || file.ends_with(".test.cjs"));
    files.sort();
    Ok(files)
}

/// Copies a folder with what is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} can't be copied to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)?.flatten() {
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &there)?;
        } else {
            fs::copy(entry.path(), there).map_err(failed)?;
        }
    }
    Ok(())
}
