//! The processes that want the lock through gitlock: the library, the command line, and, for the
//! control arm, gix.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use gitlock::{ErrorCode, LockGuard, LockHandle, LockManager, Options};

use super::{
    arm::ArmKind,
    scene::{LOCK, LOCK_REF, Scene, Witness},
    support::{Random, nanos, pause},
};
use crate::gix_locks;

/// How long everybody who waits does so at most. In a fair queue nobody needs as long.
const WAIT: Duration = Duration::from_secs(20);

/// What every worker has.
pub(crate) struct Worker {
    pub(crate) scene: Scene,
    pub(crate) witness: Witness,
    pub(crate) random: Random,
    pub(crate) arm: ArmKind,
    pub(crate) git_lock: Option<PathBuf>,
}

impl Worker {
    /// Between two acquisitions: at times long enough for the lock to become free, so that those
    /// who can't queue get their turn.
    pub(crate) fn rest(&mut self) {
        if self.random.one_in(40) {
            self.random.pause_below(60_000);
        } else if self.random.one_in(4) {
            self.random.pause_below(1_500);
        }
    }

    /// The work under the lock.
    pub(crate) fn work(&mut self) {
        if self.random.one_in(16) {
            self.random.pause_below(3_000);
        }
    }

    // ------------------------------------------------------------ the library

    pub(crate) fn library(&mut self) {
        let mut options = Options::default();
        if self.arm == ArmKind::Kills {
            options.claim_window = Duration::from_millis(500 + self.random.below(1_500));
        }
        let manager = match LockManager::open_with(self.scene.repo(), options) {
            Ok(manager) => manager,
            Err(error) => return self.witness.fault(&format!("the repository can't be opened: {error}")),
        };
        let mut rounds = 0u64;
        while !self.scene.is_over() {
            let shared = self.random.one_in(6);
            if let Some(guard) = self.acquire(&manager, shared) {
                self.hold(guard, shared);
            }
            rounds += 1;
            if rounds.is_multiple_of(64) {
                self.witness.flush();
            }
            self.rest();
        }
        self.witness.flush();
    }

    fn acquire(&mut self, manager: &LockManager, shared: bool) -> Option<LockGuard> {
        let ttl = Duration::from_millis([2_000, 3_000, 5_000][usize::try_from(self.random.below(3)).unwrap_or(0)]);
        let mut request = manager.lock(LOCK).ttl(ttl);
        if shared {
            request = request.shared();
        }
        let answer = if !self.random.one_in(24) {
            request.try_acquire()
        } else if self.random.one_in(4) {
            // One that gives up, in a queue that goes on without it.
            let short = Duration::from_micros(1 + self.random.below(4_000));
            match request.wait(short).acquire() {
                Err(error) if error.code() == ErrorCode::Timeout => Ok(None),
                answer => answer.map(Some),
            }
        } else {
            request.wait(WAIT).acquire().map(Some)
        };
        match answer {
            Ok(Some(guard)) => return Some(guard),
            Ok(None) => {
                self.witness.count("turned-away");
                self.random.pause_below(500);
            }
            // A plain tool's record that `git gc --prune=now` took: only its writer could write it again.
            Err(error) if error.code() == ErrorCode::RecordMissing && self.arm == ArmKind::Exclusion => {
                self.witness.count("record-missing");
                pause(5);
            }
            Err(error) => {
                self.witness.fault(&format!("acquire failed: {} {error}", error.code().as_str()));
                pause(50);
            }
        }
        None
    }

    fn hold(&mut self, guard: LockGuard, shared: bool) {
        let (token, id) = (guard.token(), guard.id().to_owned());
        let start = nanos();
        self.witness.granted(shared, token);
        if self.arm == ArmKind::Legacy {
            if self.random.one_in(64) {
                // Long enough for a renewal to find out.
                self.random.pause_below(2_500_000);
            }
            self.work();
            let (told, end) = (guard.is_lost(), nanos());
            let released = match guard.release() {
                Ok(()) => true,
                Err(error) if error.code() == ErrorCode::LockLost => {
                    self.witness.count("lost");
                    false
                }
                Err(error) => {
                    self.witness.fault(&format!("release failed: {} {error}", error.code().as_str()));
                    false
                }
            };
            if told && released {
                self.witness.fault("a guard said that it was lost, and then released its lock");
            }
            return self.witness.section(shared, token, &id, (start, end), released);
        }
        self.witness.enter(shared);
        self.work();
        self.witness.leave(shared);
        if let Err(error) = guard.release() {
            let held = (nanos() - start) / 1_000_000;
            self.witness.fault(&format!("release failed after {held} ms: {} {error}", error.code().as_str()));
        }
    }

    // ------------------------------------------------------------ the command line

    pub(crate) fn command_line(&mut self) {
        let Some(git_lock) = self.git_lock.clone() else { return };
        while !self.scene.is_over() {
            // Its processes are dear: the library is to get most of the machine.
            self.random.pause_below(800_000);
            if self.random.one_in(2) {
                self.run_under_lock(&git_lock);
            } else {
                self.acquire_and_release(&git_lock);
            }
            self.witness.flush();
        }
    }

    pub(crate) fn git_lock(&self, program: &PathBuf, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-C").arg(self.scene.repo()).args(arguments).stdin(Stdio::null());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command
    }

    fn run_under_lock(&mut self, program: &PathBuf) {
        let mut arguments = vec!["run", "--ttl", "3s", "--wait", "20s", LOCK, "--"];
        let (me, scene, seed) = (myself(), self.scene.root().to_string_lossy().into_owned(), self.random.next());
        let seed = seed.to_string();
        arguments.extend([&*me, "worker", "inside", &*scene, &*seed, self.arm.name(), "-"]);
        match self.git_lock(program, &arguments).output() {
            Ok(output) if output.status.success() => {
                self.witness.count("run");
                // It goes on without an error of its own when its release fails, and says so.
                let words = String::from_utf8_lossy(&output.stderr);
                if words.contains("could not be released") {
                    self.witness.fault(&format!("git-lock run: {words}"));
                }
            }
            Ok(output) => self.judge("run", output.status, &output.stderr),
            Err(error) => self.witness.fault(&format!("git-lock can't be started: {error}")),
        }
    }

    /// What `git-lock run` runs: it is inside.
    pub(crate) fn inside(&mut self) {
        let token = std::env::var("GIT_LOCK_TOKEN").ok().and_then(|token| token.parse().ok()).unwrap_or(0);
        if token == 0 {
            self.witness.fault("git-lock run gave its command no GIT_LOCK_TOKEN");
        }
        self.witness.granted(false, token);
        if self.arm != ArmKind::Legacy {
            self.witness.enter(false);
            self.work();
            self.witness.leave(false);
        }
    }

    fn acquire_and_release(&mut self, program: &PathBuf) {
        // Nobody renews it between the two commands, which a busy machine may keep apart; after a kill it is waited for.
        let ttl = if self.arm.kills() { "3s" } else { "20s" };
        let acquired = match self.git_lock(program, &["acquire", "--ttl", ttl, "--wait", "20s", LOCK]).output() {
            Ok(output) if output.status.success() => output,
            Ok(output) => return self.judge("acquire", output.status, &output.stderr),
            Err(error) => return self.witness.fault(&format!("git-lock can't be started: {error}")),
        };
        let text = String::from_utf8_lossy(&acquired.stdout).into_owned();
        let handle = text.split_whitespace().find(|word| LockHandle::is_handle(word));
        let parsed = handle.and_then(|handle| handle.parse::<LockHandle>().ok());
        let Some((handle, Some(token))) = handle.zip(parsed.map(|parsed| parsed.token())) else {
            return self.witness.fault(&format!("git-lock acquire printed no handle with a token: {text}"));
        };
        self.witness.granted(false, token);
        if self.arm != ArmKind::Legacy {
            self.witness.enter(false);
            self.work();
            self.witness.leave(false);
        }
        match self.git_lock(program, &["release", handle]).output() {
            Ok(output) if output.status.success() => self.witness.count("acquire"),
            Ok(output) => self.judge("release", output.status, &output.stderr),
            Err(error) => self.witness.fault(&format!("git-lock can't be started: {error}")),
        }
    }

    fn judge(&self, what: &str, status: ExitStatus, stderr: &[u8]) {
        let (lost, killed) = (status.code() == Some(3), status.code().is_none_or(|code| code >= 128));
        if lost && self.arm == ArmKind::Legacy {
            return self.witness.count("lost");
        }
        let words = String::from_utf8_lossy(stderr);
        if what != "release" && self.arm == ArmKind::Exclusion && words.contains("its record is not in the repository")
        {
            return self.witness.count("record-missing");
        }
        // The guardian is among those that are killed, and then the command isn't run.
        let killed = killed || words.contains("guardian of the command was killed");
        if killed && self.arm == ArmKind::Kills {
            return self.witness.count("cli-killed");
        }
        self.witness.fault(&format!("git-lock {what}: {status}: {words}"));
    }

    // ------------------------------------------------------------ gix

    pub(crate) fn gix(&mut self) {
        let repo = match gix::open(self.scene.repo()) {
            Ok(repo) => repo,
            Err(error) => return self.witness.fault(&format!("gix can't open the repository: {error}")),
        };
        let mut count = 0u64;
        while !self.scene.is_over() {
            count += 1;
            let record = format!("{} {count}", std::process::id());
            if !gix_locks::acquire(&repo, LOCK_REF, record.as_bytes()) {
                self.random.pause_below(300);
                continue;
            }
            self.witness.granted(false, 0);
            self.witness.enter(false);
            self.work();
            self.witness.leave(false);
            // A `.lock` of pack-refs in the way is no fault; one that doesn't go away is.
            let released = (0..20).any(|round| {
                if round > 0 {
                    pause(50);
                }
                gix_locks::release(&repo, LOCK_REF, record.as_bytes())
            });
            if !released {
                self.witness.fault("release failed: the ref was not what its holder made it");
            }
        }
    }
}

/// The path of this program.
pub(crate) fn myself() -> String {
    std::env::current_exe().map_or_else(|_| "torture".to_owned(), |path| path.to_string_lossy().into_owned())
}
