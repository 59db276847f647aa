//! The folder of one round: the repository, and beside it the oracle, which gitlock knows nothing of.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use super::support::{look, may_run};

/// The lock that everybody wants.
pub(crate) const LOCK: &str = "build";

/// Its ref.
pub(crate) const LOCK_REF: &str = "refs/gitvan/locks/build";

/// Its journal.
pub(crate) const JOURNAL_REF: &str = "refs/gitvan/journal/build";

/// The folder of one round.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    root: PathBuf,
}

impl Scene {
    pub(crate) fn at(root: &Path) -> Scene {
        Scene { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.root.join("repo")
    }

    pub(crate) fn git_dir(&self) -> PathBuf {
        self.repo().join(".git")
    }

    pub(crate) fn git(&self) -> Command {
        crate::git::git(&self.repo())
    }

    pub(crate) fn oracle(&self) -> PathBuf {
        self.root.join("oracle")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn faults(&self) -> PathBuf {
        self.root.join("faults")
    }

    pub(crate) fn stop_file(&self) -> PathBuf {
        self.root.join("stop")
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop_file().exists()
    }
}

/// Adds one line to a file, in one write.
fn append(path: &Path, line: &str) -> io::Result<()> {
    File::options().create(true).append(true).open(path)?.write_all(format!("{line}\n").as_bytes())
}

/// One process's part in the oracle: its file, and its lines in the log.
#[derive(Debug)]
pub(crate) struct Witness {
    scene: Scene,
    role: String,
    stamp: String,
    mine: PathBuf,
    log: File,
    counts: RefCell<BTreeMap<&'static str, u64>>,
}

impl Witness {
    pub(crate) fn new(scene: &Scene, role: &str) -> io::Result<Witness> {
        let pid = std::process::id();
        let start = look(pid).map_or(0, |view| view.start);
        let stamp = format!("{pid} {start} {role}");
        let mine = scene.oracle().join(format!("me.{pid}.{start}"));
        fs::write(&mine, &stamp)?;
        let log = File::options().create(true).append(true).open(scene.log())?;
        Ok(Witness { scene: scene.clone(), role: role.to_owned(), stamp, mine, log, counts: RefCell::default() })
    }

    /// Tells of something that must not be.
    pub(crate) fn fault(&self, what: &str) {
        let line = what.replace('\n', " | ");
        let told = append(&self.scene.faults(), &format!("{} [{}]: {line}", self.role, self.stamp));
        assert!(told.is_ok(), "a fault could not be told: {line}: {told:?}");
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    /// Writes the counts down.
    pub(crate) fn flush(&self) {
        for (what, count) in std::mem::take(&mut *self.counts.borrow_mut()) {
            self.line(&format!("N {} {what} {count}", self.role));
        }
    }

    fn line(&self, line: &str) {
        let written = (&self.log).write_all(format!("{line}\n").as_bytes());
        assert!(written.is_ok(), "the log can't be written: {written:?}");
    }

    /// Logs a grant, by its token (0: it has none), from inside the critical section.
    pub(crate) fn granted(&self, shared: bool, token: u64) {
        self.line(&format!("E {} {} {token}", self.role, if shared { 's' } else { 'x' }));
    }

    /// Logs a whole critical section, on the boot clock, and whether its release succeeded.
    pub(crate) fn section(&self, shared: bool, token: u64, id: &str, span: (u64, u64), released: bool) {
        let mode = if shared { 's' } else { 'x' };
        self.line(&format!("X {} {mode} {token} {id} {} {} {}", self.role, span.0, span.1, u8::from(released)));
    }

    fn gate(&self, shared: bool) -> PathBuf {
        let pid = std::process::id();
        self.scene.oracle().join(if shared { format!("shared.{pid}") } else { "exclusive".to_owned() })
    }

    /// Enters the critical section: says so with a file that can be made once only, and looks for others'.
    pub(crate) fn enter(&self, shared: bool) {
        let gate = self.gate(shared);
        // link(2) fails where the name exists, as O_CREAT|O_EXCL does, and the file is never empty.
        for _ in 0..8 {
            match fs::hard_link(&self.mine, &gate) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if self.judge(&gate) {
                        let _ = fs::remove_file(&gate);
                    }
                }
                Err(error) => return self.fault(&format!("the oracle failed: {error}")),
            }
        }
        if shared {
            let exclusive = self.gate(false);
            if exclusive.exists() {
                // What a kill left is for the next exclusive holder to remove: it is alone, we aren't.
                self.judge(&exclusive);
            }
            return;
        }
        for entry in fs::read_dir(self.scene.oracle()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("shared.") && self.judge(&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Somebody else's file, in a critical section that is ours: left behind by a kill, or a double grant.
    /// Returns whether it was left behind.
    fn judge(&self, path: &Path) -> bool {
        let Ok(text) = fs::read_to_string(path) else {
            self.fault(&format!("DOUBLE GRANT: somebody left {} just now", path.display()));
            return false;
        };
        let mut words = text.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let (pid, start) = (u32::try_from(number()).unwrap_or(0), number());
        let alive = may_run(pid, start);
        if alive {
            self.fault(&format!("DOUBLE GRANT: inside beside [{text}]"));
        }
        !alive
    }

    /// Leaves the critical section.
    pub(crate) fn leave(&self, shared: bool) {
        let gate = self.gate(shared);
        match fs::read_to_string(&gate) {
            Ok(text) if text == self.stamp => drop(fs::remove_file(&gate)),
            Ok(text) => self.fault(&format!("DOUBLE GRANT: on leaving, [{text}] is inside")),
            Err(error) => self.fault(&format!("DOUBLE GRANT: on leaving, the file was gone ({error})")),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.flush();
        let _ = fs::remove_file(&self.mine);
    }
}
