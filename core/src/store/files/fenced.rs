//! Changes of other refs, which Git makes while it holds the locks' refs still.

use crate::{
    clock,
    error::{Error, Result},
    error_code::ErrorCode,
    lock::fault::Fault,
    ref_update::RefUpdates,
    store::{RefEdit, RefStore, Transacted, git_process::Fenced},
};

use super::{FilesStore, lockfile};

impl FilesStore {
    pub(super) fn swap_with(&self, edits: &[RefEdit], others: &RefUpdates) -> Result<Transacted> {
        let done = self.transact(edits)?;
        let Transacted::Committed(values) = &done else { return Ok(done) };
        if others.updates.is_empty() {
            return Ok(done);
        }
        let mut fence: Vec<_> =
            edits.iter().zip(values).filter_map(|(edit, value)| Some((edit.name.clone(), (*value)?))).collect();
        if self.rules.faults.has(Fault::NoFence) {
            fence.clear();
        }
        let refused = match self.git.update_refs(&fence, others, clock::millis(self.rules.timeout)) {
            Ok(Fenced::Made) => return Ok(done),
            Ok(Fenced::Refused(words)) => Ok(words),
            Err(error) => Err(error),
        };
        // The edits are made, whatever becomes of the rest.
        let before: Vec<_> = edits.iter().filter_map(|edit| edit.expected).collect();
        self.superseded(&before);
        let words = refused?;
        for (name, id) in &fence {
            if self.read(name)? != Some(*id) {
                // Somebody has queued, or has taken the lock: that is for the rules to say.
                return Ok(Transacted::Conflict);
            }
        }
        let error = self.git.explain(&others.updates, &words);
        let busy = others.updates.iter().find_map(|update| {
            let folders = [self.git.git_dir(), self.common_dir()];
            let locks = folders.iter().map(|folder| lockfile::lock_path(&folder.join(&update.name)));
            locks.chain([self.git_refs.lock_file()]).find(|path| path.exists())
        });
        match busy {
            Some(path) if error.code() == ErrorCode::RefsRefused => Err(Error::new(
                ErrorCode::RepositoryBusy,
                format!(
                    "{} was there all the time, and nothing was changed; try again, or see `git lock doctor`",
                    path.display()
                ),
            )),
            _ => Err(error),
        }
    }
}
