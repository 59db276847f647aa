//! Real repositories, and real Git to judge them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A command that no configuration of this machine changes.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Tester")
        .env("GIT_AUTHOR_EMAIL", "tester@example.com")
        .env("GIT_COMMITTER_NAME", "Tester")
        .env("GIT_COMMITTER_EMAIL", "tester@example.com")
        .env_remove("GIT_DIR");
    command
}

/// Runs Git.
///
/// # Panics
/// If it can't be run.
pub fn try_git(dir: &Path, arguments: &[&str]) -> Output {
    #[allow(clippy::expect_used)] // a test without git can't go on
    git(dir).args(arguments).output().expect("git runs")
}

/// Runs Git, which has to succeed, and gives what it printed.
///
/// # Panics
/// If it fails.
pub fn run_git(dir: &Path, arguments: &[&str]) -> String {
    let output = try_git(dir, arguments);
    assert!(
        output.status.success(),
        "git {arguments:?} in {}: {}",
        dir.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// From here on this process makes repositories with refs of this format (`files`, `reftable`).
pub fn use_ref_format(format: &str) {
    // SAFETY: programs say so before they start threads.
    unsafe { std::env::set_var(REF_FORMAT, format) };
}

/// The format of the refs of new repositories.
pub fn ref_format() -> String {
    std::env::var(REF_FORMAT).unwrap_or_else(|_| "files".to_owned())
}

/// What `git init` heeds.
const REF_FORMAT: &str = "GIT_DEFAULT_REF_FORMAT";

/// A repository in a folder that goes away with it.
#[derive(Debug)]
pub struct Repo {
    folder: tempfile::TempDir,
}

impl Repo {
    /// An empty repository with these arguments to `git init`, on tmpfs where there is one.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn with(arguments: &[&str]) -> Repo {
        #[allow(clippy::expect_used)] // a test without a folder can't go on
        let folder = tempfile::Builder::new().prefix("gitlock-").tempdir_in(fast_folder()).expect("a folder");
        run_git(folder.path(), &[&["init", "-q"], arguments].concat());
        Repo { folder }
    }

    /// A repository with one commit.
    pub fn new() -> Repo {
        let repo = Repo::with(&[]);
        run_git(repo.path(), &["commit", "-q", "--allow-empty", "-m", "first"]);
        repo
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its Git folder.
    pub fn git_dir(&self) -> PathBuf {
        PathBuf::from(run_git(self.path(), &["rev-parse", "--absolute-git-dir"]))
    }

    /// Runs Git in it.
    pub fn git(&self, arguments: &[&str]) -> String {
        run_git(self.path(), arguments)
    }

    /// Asserts that Git finds nothing wrong.
    ///
    /// # Panics
    /// If it does.
    pub fn assert_sound(&self) {
        assert_sound(self.path());
    }
}

impl Default for Repo {
    fn default() -> Repo {
        Repo::new()
    }
}

/// Asserts that Git finds nothing wrong with the repository there.
///
/// # Panics
/// If it does.
pub fn assert_sound(dir: &Path) {
    let output = try_git(dir, &["fsck", "--strict", "--full"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<&str> =
        told.lines().filter(|line| !line.starts_with("dangling ") && !line.starts_with("notice:")).collect();
    assert!(output.status.success() && wrong.is_empty(), "git fsck --strict: {told}");
}

/// Runs one ignored test of this test program again, in a process that these words start: under
/// another umask, as another user, with mounts of its own.
///
/// # Panics
/// If it fails, if it can't be run, or if there is no such test.
pub fn again_in(words: &[&str], test: &str) {
    #[allow(clippy::expect_used)] // every test program has a path
    let program = std::env::current_exe().expect("this program's path");
    let (first, rest) = words.split_first().unwrap_or((&"env", &[]));
    let started = Command::new(first)
        .args(rest)
        .arg(program)
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .output();
    #[allow(clippy::expect_used)] // and can be started
    let output = started.expect("the test program can be started");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{test} failed, or was not run: {told}");
}

/// The words that start a program with mounts of its own, if this user may have them.
pub fn own_mounts() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--map-root-user", "--mount"]];
    let works = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["sh", "-c", "mount -t tmpfs none /mnt"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    WAYS.into_iter().find(|words| works(words))
}

/// Where tests make their repositories.
pub fn fast_folder() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}
