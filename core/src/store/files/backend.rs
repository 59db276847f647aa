//! Which format the repository's refs have at this moment: files, or one that is left to `git`. It may change under a
//! running process, by `git refs migrate`.
//!
//! Git doesn't keep others from writing while it migrates, and says so. It makes a folder `ref_migration.…` in the
//! repository, copies all refs into it, deletes the old ones, and moves the new ones into place. What is written in
//! between is lost, and refs that are there seem to be absent. So nothing is written while there is such a folder, no
//! absence is believed before a look at the format after it, and what may have been written into refs that were being
//! replaced is settled by a fresh read.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::{self, Clock},
    error::{Error, Result},
    error_code::ErrorCode,
    name::RefName,
    store::{
        Oid, RefEdit, RefStore, Transacted,
        git_process::{GitRefs, Swap, Swapped},
    },
};

use super::{
    FilesStore,
    lockfile::{self, LockRules},
};

/// Where refs are, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Files,
    Reftable,
    /// They are on their way from the one to the other.
    Migrating,
}

/// How old the folder of a migration may be, in milliseconds. `git refs migrate --dry-run` and one that is killed leave it.
const MIGRATION: u64 = 5_000;

/// After how long, in nanoseconds, the next change of a folder that was last changed at `modified` shows in its mtime for
/// certain. Kernels stamp by a clock that ticks every 1 to 10 ms; the coarsest file systems write even seconds.
const fn settles_in(modified: i128) -> i128 {
    if modified % 1_000_000 == 0 { 2_000_000_000 } else { 100_000_000 }
}

/// What was seen last, and the mtime of the repository's folder then; `None`: it was too young to tell.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<(i128, Format)>>);

/// The format of the refs in this folder, whatever was seen before.
pub(super) fn look(common_dir: &Path, wall_ms: u64) -> io::Result<Format> {
    let (mut tables, mut migration) = (false, false);
    let is_young = |meta: fs::Metadata| {
        wall_ms < u64::try_from(meta.mtime()).unwrap_or(0).saturating_mul(1_000).saturating_add(MIGRATION)
    };
    for entry in fs::read_dir(common_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "reftable" {
            let meta = entry.metadata()?;
            // Git goes by its configuration, which it changes last.
            match says_reftable(common_dir) {
                true => tables = meta.is_dir(),
                false => migration |= meta.is_dir() && is_young(meta),
            }
        } else if name.to_string_lossy().starts_with("ref_migration.") {
            // It may be gone by now.
            migration |= entry.metadata().is_ok_and(is_young);
        }
    }
    Ok(match (migration, tables) {
        (true, _) => Format::Migrating,
        (_, true) => Format::Reftable,
        _ => Format::Files,
    })
}

/// The format, once no migration is under way, or none can be any more.
pub(super) fn once_settled(common_dir: &Path, clock: &dyn Clock) -> io::Result<Format> {
    loop {
        match look(common_dir, clock.now().wall)? {
            Format::Migrating => clock.pause(Duration::from_millis(5)),
            format => return Ok(format),
        }
    }
}

/// Whether the refs of a repository at this path, as far as one can be told, are being migrated.
pub(super) fn is_migrating(path: &Path, wall_ms: u64) -> bool {
    [path.to_owned(), path.join(".git")].iter().any(|folder| matches!(look(folder, wall_ms), Ok(Format::Migrating)))
}

/// Whether the configuration says so: in the repository's own file, since Git heeds no other for this.
fn says_reftable(common_dir: &Path) -> bool {
    let config = fs::read_to_string(common_dir.join("config")).unwrap_or_default().to_ascii_lowercase();
    let value =
        |line: &str| Some(line.trim().strip_prefix("refstorage")?.trim_start().strip_prefix('=')?.trim() == "reftable");
    config.lines().filter_map(value).next_back().unwrap_or(false)
}

impl FilesStore {
    /// The format at this moment: one `stat`, unless something in the repository's folder has changed just now.
    fn format_now(&self) -> Result<Format> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => self.rules.gone(),
            _ => Error::io(format_args!("can't read {}", self.common_dir.display()), error),
        };
        let meta = fs::metadata(&self.common_dir).map_err(failed)?;
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let mut seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, format)) = *seen
            && at == modified
        {
            return Ok(format);
        }
        let now = self.rules.clock.now();
        let format = look(&self.common_dir, now.wall).map_err(failed)?;
        let settled = modified + settles_in(modified) < i128::from(now.wall) * 1_000_000;
        *seen = (settled && format != Format::Migrating).then_some((modified, format));
        drop(seen);
        if format != Format::Reftable {
            self.git_refs.let_go();
        }
        Ok(format)
    }

    /// The format, once no migration is under way.
    pub(super) fn format(&self, patience: Duration) -> Result<Format> {
        let started = self.rules.clock.boot_ms();
        loop {
            let format = self.format_now()?;
            if format != Format::Migrating {
                return Ok(format);
            }
            if self.rules.clock.boot_ms().saturating_sub(started) > clock::millis(patience) {
                return Err(Error::new(
                    ErrorCode::RepositoryBusy,
                    format!(
                        "the refs of {} are being migrated to another format; try again when `git refs migrate` is done",
                        self.common_dir.display()
                    ),
                ));
            }
            self.rules.clock.pause(Duration::from_millis(1));
        }
    }

    pub(super) fn read_ref(&self, name: &RefName) -> Result<Option<Oid>> {
        self.reading(|format| match format {
            Format::Reftable => self.git_refs.read(name),
            _ => self.read_file(name),
        })
    }

    /// Every ref below `prefix`.
    pub(super) fn list_refs(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        self.reading(|format| match format {
            Format::Reftable => self.git_refs.list(prefix),
            _ => self.list_files(prefix),
        })
    }

    /// Reads, and again if the refs were on their way meanwhile.
    fn reading<T>(&self, read: impl Fn(Format) -> Result<T>) -> Result<T> {
        loop {
            let before = self.format(self.rules.timeout)?;
            let result = read(before);
            if self.format_now()? == before {
                return result;
            }
        }
    }

    /// Makes all edits, where refs are files only while those that are to be `unmoved` are. Returns whether it has
    /// looked at these.
    pub(super) fn swap(
        &self,
        edits: &[RefEdit],
        unmoved: &[(RefName, Oid)],
        rules: &LockRules,
    ) -> Result<(Transacted, bool)> {
        let before = self.format(rules.timeout)?;
        let done = match before {
            Format::Reftable => self.swap_by_git(edits, rules),
            _ => self.swap_files(edits, unmoved, rules),
        };
        if self.format_now()? == before {
            return Ok((done?, before != Format::Reftable));
        }
        tracing::warn!(repository = %self.common_dir.display(), "the refs were migrated meanwhile; a fresh read settles what was written");
        match done {
            Ok(Transacted::Conflict) => Ok((Transacted::Conflict, false)),
            _ => Ok((Transacted::Unknown, false)),
        }
    }

    /// The objects first: Git wants to see what it is to refer to.
    fn swap_by_git(&self, edits: &[RefEdit], rules: &LockRules) -> Result<Transacted> {
        let values = self.write_objects(edits)?;
        let swaps: Vec<Swap<'_>> = edits
            .iter()
            .zip(&values)
            .map(|(edit, new)| Swap { name: &edit.name, expected: edit.expected, new: *new })
            .collect();
        let started = rules.clock.boot_ms();
        let mut sighting = lockfile::Sighting::default();
        loop {
            match self.git_refs.swap(&swaps)? {
                Swapped::Committed => return Ok(Transacted::Committed(values)),
                Swapped::Unknown => return Ok(Transacted::Unknown),
                Swapped::Conflict => {
                    // A record is like no other; a commit may be the winner's, too.
                    let blobs = edits.iter().zip(&values);
                    let blobs = blobs.filter(|(edit, _)| matches!(edit.new, Some(crate::store::NewValue::Blob(_))));
                    let unused: Vec<Oid> = blobs.filter_map(|(_, id)| *id).collect();
                    self.superseded(&unused);
                    return Ok(Transacted::Conflict);
                }
                Swapped::Refused(words) => {
                    let lock = self.git_refs.lock_file();
                    let held = lock.exists();
                    if held && lockfile::break_if_stale(&lock, rules, &mut sighting)? {
                        continue;
                    }
                    if !held && let Some(error) = self.git_refs.explain(&swaps, &words)? {
                        return Err(error);
                    }
                    // Another process was at it, all the time that Git waits, or changed something just before.
                    let waited = rules.clock.boot_ms().saturating_sub(started);
                    if waited >= clock::millis(rules.timeout.max(GitRefs::WAITED)) {
                        return Err(if held { lockfile::busy(&lock, rules) } else { refused(&words) });
                    }
                    rules.clock.pause(lockfile::backoff(6));
                }
            }
        }
    }
}

fn refused(words: &str) -> Error {
    let message =
        format!("Git has refused to change the lock's refs for a while, though they are as expected; it says: {words}");
    Error::new(ErrorCode::RepositoryBusy, message)
}

#[cfg(test)]
mod tests {
    use super::settles_in;

    #[test]
    fn a_change_is_old_news_sooner_where_times_are_fine() {
        const SECOND: i128 = 1_000_000_000;
        // Whole milliseconds, whole seconds, and even ones: nothing finer may have been kept.
        for coarse in [7 * SECOND + 3_000_000, 7 * SECOND, 8 * SECOND] {
            assert_eq!(settles_in(coarse), 2 * SECOND, "{coarse}");
        }
        for fine in [7 * SECOND + 1, 7 * SECOND + 123_456_789] {
            assert_eq!(settles_in(fine), SECOND / 10, "{fine}");
        }
    }
}
