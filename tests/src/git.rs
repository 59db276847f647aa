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
        let output = try_git(self.path(), &["fsck", "--strict", "--full"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let wrong: Vec<&str> =
            told.lines().filter(|line| !line.starts_with("dangling ") && !line.starts_with("notice:")).collect();
        assert!(output.status.success() && wrong.is_empty(), "git fsck --strict: {told}");
    }
}

impl Default for Repo {
    fn default() -> Repo {
        Repo::new()
    }
}

/// Where tests make their repositories.
pub fn fast_folder() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}
