//! The demo: several processes build in one checkout, one at a time, and Git tells the story.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    commands,
    examples::{self, Build},
};

/// What every worker runs under the lock: a real change of the shared checkout. Two of these at
/// once would trip over each other's index.
const BUILD: &str = r#"
set -e
echo "  $WORKER starts, with token $GIT_LOCK_TOKEN"
echo "$WORKER" > holding
sleep 0.2
if [ -n "$HANG" ]; then echo "  $WORKER hangs"; sleep 60; fi
echo "built by $WORKER under token $GIT_LOCK_TOKEN" >> build.txt
git add build.txt
git commit -q -m "Build by $WORKER"
rm -f holding
echo "  $WORKER is done"
"#;

pub(crate) fn run(root: &Path) -> Result<(), String> {
    commands::ship(root)?;
    let builds = examples::builds(root, &commands::target(root).join("demo-programs"))?;
    let demo = Demo::new(root)?;
    demo.make_repository()?;

    let languages: Vec<&str> = builds.iter().map(|build| build.language).collect();
    let wanting = builds.len() + 1;
    say(&format!(
        "{wanting} processes want to build in one checkout, each under `build-lock`: one by `git lock run`, and the builds of \
         examples/ in {}.",
        languages.join(", ")
    ));
    let mut victim = demo.worker("worker-1", true)?;
    demo.until("worker-1 holds the lock", || {
        fs::read_to_string(demo.repo.join("holding")).is_ok_and(|who| who.trim() == "worker-1")
    })?;
    let mut workers = Vec::new();
    for (before, build) in builds.iter().enumerate() {
        workers.push(demo.build(&format!("worker-{} ({})", before + 2, build.language), build)?);
        demo.until("it queues", || demo.status().is_ok_and(|status| status.matches("  waiting ").count() > before))?;
    }
    say("Who holds, and who waits (`git lock status build-lock`):");
    print!("{}", demo.status()?);
    say("worker-1 hangs. kill -9 on its `git lock run`:");
    victim.kill().map_err(|error| format!("worker-1 can't be killed: {error}"))?;
    victim.wait().map_err(|error| format!("worker-1 can't be waited for: {error}"))?;
    for worker in &mut workers {
        let status = worker.wait().map_err(|error| format!("a worker can't be waited for: {error}"))?;
        if !status.success() {
            return Err(format!("a worker failed: {status}"));
        }
    }

    say("Who held when (`git lock log build-lock`):");
    demo.git_lock(&["log", "build-lock"])?;
    say("The same in plain Git. What a held lock is (`git cat-file -p refs/gitvan/locks/release`):");
    let handle = demo.output(&["acquire", "release", "--ttl", "1m", "--reason", "the demo shows it"])?;
    demo.git(&["for-each-ref", "refs/gitvan"])?;
    demo.git(&["cat-file", "-p", "refs/gitvan/locks/release"])?;
    demo.git_lock(&["release", handle.trim()])?;
    say("The audit trail (`git log refs/gitvan/journal/build-lock`):");
    demo.git(&[
        "log",
        "--format=%h %an  %ai -> %ci  %s (token %(trailers:key=Lock-Token,valueonly,separator=%x2c))",
        "refs/gitvan/journal/build-lock",
    ])?;
    demo.git(&["log", "-1", "refs/gitvan/journal/build-lock"])?;
    say("What was built, one after the other:");
    demo.git(&["log", "--oneline"])?;
    say("`git fsck --strict`:");
    demo.git(&["fsck", "--strict", "--no-dangling"])?;
    demo.judge(builds.len())
}

struct Demo {
    repo: PathBuf,
    git_lock: PathBuf,
}

impl Demo {
    fn new(root: &Path) -> Result<Demo, String> {
        let repo = root.join("target/demo");
        if repo.exists() {
            fs::remove_dir_all(&repo).map_err(|error| format!("the last demo can't be removed: {error}"))?;
        }
        fs::create_dir_all(&repo).map_err(|error| format!("no folder for the demo: {error}"))?;
        Ok(Demo { repo, git_lock: PathBuf::from(commands::release(root, "git-lock")) })
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.repo);
        identify(&mut command);
        command
    }

    fn git(&self, arguments: &[&str]) -> Result<(), String> {
        let status = self.command("git").args(["--no-pager"]).args(arguments).status();
        if status.is_ok_and(|status| status.success()) {
            Ok(())
        } else {
            Err(format!("`git {}` failed", arguments.join(" ")))
        }
    }

    fn git_lock(&self, arguments: &[&str]) -> Result<(), String> {
        print!("{}", self.output(arguments)?);
        Ok(())
    }

    fn output(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(&self.git_lock).args(arguments).stderr(Stdio::inherit()).output();
        match output {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(output) => Err(format!("`git lock {}` failed: {}", arguments.join(" "), output.status)),
            Err(error) => Err(format!("`git lock` can't be run: {error}")),
        }
    }

    fn status(&self) -> Result<String, String> {
        self.output(&["status", "build-lock"])
    }

    fn make_repository(&self) -> Result<(), String> {
        self.git(&["init", "-q", "-b", "main"])?;
        fs::write(self.repo.join("README"), "A project.\n")
            .map_err(|error| format!("no file for the demo: {error}"))?;
        self.git(&["add", "README"])?;
        self.git(&["commit", "-q", "-m", "Begin"])?;
        fs::write(self.repo.join(".git/info/exclude"), "holding\n")
            .map_err(|error| format!("no file for the demo: {error}"))
    }

    fn worker(&self, name: &str, hang: bool) -> Result<Child, String> {
        self.command(&self.git_lock)
            .args(["run", "--ttl", "10s", "--reason", name, "build-lock", "--", "sh", "-c", BUILD])
            .env("WORKER", name)
            .env("HANG", if hang { "1" } else { "" })
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{name} can't be started: {error}"))
    }

    fn build(&self, name: &str, build: &Build) -> Result<Child, String> {
        let mut command = build.command(&self.repo, BUILD);
        identify(&mut command);
        let started = command.env("WORKER", name).env("HANG", "").spawn();
        started.map_err(|error| format!("{name} can't be started: {error}"))
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
        #[allow(clippy::disallowed_methods)] // a demo waits as a person would
        let (start, nap) = (Instant::now(), || std::thread::sleep(Duration::from_millis(20)));
        while !done() {
            if start.elapsed() > Duration::from_secs(30) {
                return Err(format!("the demo waited 30 s in vain until {what}"));
            }
            nap();
        }
        Ok(())
    }

    /// The demo is a test too: all but the one that was killed built, and nothing else did.
    fn judge(&self, builds: usize) -> Result<(), String> {
        let built = fs::read_to_string(self.repo.join("build.txt")).unwrap_or_default();
        let refs = self.command("git").args(["for-each-ref", "refs/gitvan/locks"]).output();
        let left = refs.map(|output| output.stdout).unwrap_or_default();
        let journal = self.command("git").args(["log", "--format=%s", "refs/gitvan/journal/build-lock"]).output();
        let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let died = journal.lines().filter(|line| *line == "build-lock: owner died").count();
        if built.lines().count() == builds && left.is_empty() && journal.lines().count() == builds + 1 && died == 1 {
            say(&format!(
                "{builds} built, one after the other; the one that was killed left nothing behind. The repository is in target/demo.",
            ));
            Ok(())
        } else {
            Err(format!("the demo is not as it should be: built:\n{built}\njournal:\n{journal}"))
        }
    }
}

/// Who commits in the demo, whatever this machine's Git is told.
fn identify(command: &mut Command) {
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Demo").env(format!("GIT_{who}_EMAIL"), "demo@example.com");
    }
}

#[allow(clippy::print_stdout)]
fn say(what: &str) {
    println!("\n== {what}");
}
