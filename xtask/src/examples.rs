//! `cargo xtask examples`: every example in `examples/`, run as a user would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    c::{compile_against, output},
    commands::{release, run, target},
    install::install,
    node, python,
};

/// What the builds run: a count that two of them at once would spoil.
const COUNT: &str = r#"n=$(cat count); sleep 0.05; echo $((n + 1)) > count; echo "$GIT_LOCK_TOKEN" >> tokens"#;

/// How often each build is run at the same time.
const TIMES: usize = 3;

pub(crate) fn test(root: &Path) -> Result<(), String> {
    let place = target(root).join("examples");
    let _ = fs::remove_dir_all(&place);
    let builds = builds(root, &place)?;
    let repository = place.join("repository");
    output(Command::new("git").args(["init", "-q"]).arg(&repository).current_dir(root))?;
    race(&place, &repository, &builds)?;
    exit_codes(&repository, &builds)?;
    migration(root, &place, &repository)
}

/// One program, and what comes before its arguments.
pub(crate) struct Build {
    pub(crate) language: &'static str,
    program: PathBuf,
    first: Option<PathBuf>,
    path: PathBuf,
}

impl Build {
    /// The build in this repository; its command runs there.
    pub(crate) fn command(&self, repository: &Path, command: &str) -> Command {
        let mut build = Command::new(&self.program);
        // The shell's finds `git-lock` on its PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        build.env("PATH", format!("{}:{path}", self.path.display()));
        build.args(&self.first).arg(repository).arg(command).current_dir(repository).stdin(Stdio::null());
        build
    }
}

/// The build in every language.
pub(crate) fn builds(root: &Path, place: &Path) -> Result<Vec<Build>, String> {
    let (prefix, sources) = (place.join("installed"), root.join("examples"));
    install(root, &prefix)?;
    run(root, "cargo", &["build", "--quiet", "--release", "-p", "gitlock-examples"])?;
    let path = prefix.join("bin");
    let build =
        |language, program: PathBuf, first: Option<PathBuf>| Build { language, program, first, path: path.clone() };
    let mut all = vec![
        build("shell", sources.join("sh/build.sh"), None),
        build("Rust", PathBuf::from(release(root, "build-under-lock")), None),
    ];
    for (language, compiler, standard, source) in
        [("C", "cc", "-std=c11", "c/build.c"), ("C++", "c++", "-std=c++17", "cpp/build.cpp")]
    {
        let program = path.join(source.replace(['/', '.'], "-"));
        compile_against(&prefix, (compiler, standard), &sources.join(source), &program)?;
        all.push(build(language, program, None));
    }
    let interpreter = python::environment(root)?;
    python::install(root, &interpreter)?;
    all.push(build("Python", interpreter.into(), Some(sources.join("python/build.py"))));
    // A module finds its packages from where it is.
    let project = place.join("node");
    node::install(&project, &node::pack(root, None)?)?;
    let module = project.join("build.mjs");
    fs::copy(sources.join("node/build.mjs"), &module).map_err(|error| format!("{}: {error}", module.display()))?;
    all.push(build("Node", "node".into(), Some(module)));
    Ok(all)
}

/// All at once: none may come between another's reading and writing.
fn race(place: &Path, repository: &Path, builds: &[Build]) -> Result<(), String> {
    fs::write(repository.join("count"), "0\n").map_err(|error| format!("{}: {error}", place.display()))?;
    let mut running: Vec<(&str, Child)> = Vec::new();
    for build in (0..TIMES).flat_map(|_| builds) {
        let child = build.command(repository, COUNT).spawn();
        running.push((build.language, child.map_err(|error| format!("the {} build: {error}", build.language))?));
    }
    let count = running.len();
    for (language, mut child) in running {
        let status = child.wait().map_err(|error| format!("the {language} build: {error}"))?;
        if !status.success() {
            return Err(format!("the {language} build failed: {status}"));
        }
    }
    let read = |name: &str| fs::read_to_string(repository.join(name)).unwrap_or_default();
    if read("count").trim() != count.to_string() {
        return Err(format!("of {count} builds {} were counted: two were at it together", read("count").trim()));
    }
    let tokens: Vec<u64> = read("tokens").lines().filter_map(|line| line.parse().ok()).collect();
    if tokens.len() != count || !tokens.is_sorted_by(|one, next| one < next) {
        return Err(format!("the tokens of {count} builds are {tokens:?}"));
    }
    let journal = output(
        Command::new("git").args(["log", "--format=%s", "refs/gitvan/journal/build-lock"]).current_dir(repository),
    )?;
    if journal.lines().filter(|line| *line == "build-lock: released").count() != count {
        return Err(format!("the journal of {count} builds:\n{journal}"));
    }
    println!("{count} builds in {} languages, one at a time", builds.len());
    Ok(())
}

/// What a build's command says becomes the build's own exit code.
fn exit_codes(repository: &Path, builds: &[Build]) -> Result<(), String> {
    for build in builds {
        let status = build.command(repository, "exit 7").status();
        if !matches!(&status, Ok(status) if status.code() == Some(7)) {
            return Err(format!("the {} build of a command that ends with 7: {status:?}", build.language));
        }
    }
    Ok(())
}

/// A stale token changes nothing.
fn migration(root: &Path, place: &Path, repository: &Path) -> Result<(), String> {
    let (interpreter, folder) = (python::environment(root)?, root.join("examples/python"));
    let database = place.join("database");
    let migrate = || output(Command::new(&interpreter).arg(folder.join("migrate.py")).arg(repository).arg(&database));
    let (first, second) = (migrate()?, migrate()?);
    if !first.starts_with("2 steps") || !second.starts_with("0 steps") {
        return Err(format!("the migration says {first:?}, and then {second:?}"));
    }
    let stale = "import migrate, sqlite3, sys\n\
                 database = sqlite3.connect(sys.argv[1])\n\
                 before = list(database.iterdump())\n\
                 try: migrate.migrate(database, 1)\n\
                 except migrate.Stale: assert list(database.iterdump()) == before\n\
                 else: sys.exit('a stale token was taken')\n";
    output(Command::new(&interpreter).args(["-c", stale]).arg(&database).current_dir(&folder))?;
    println!("the migration: {}, and a stale token was refused", first.trim());
    Ok(())
}
