//! What `git` does for a push: it knows the refs and objects of the repository, and makes packs of them.

use std::{collections::HashSet, os::unix::fs::PermissionsExt, process::Command};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    store::Oid,
};

use super::program::{Git, converse_raw, failed};

/// What a pack is to bring.
#[derive(Debug)]
pub(crate) struct ToPush<'a> {
    /// With all that they lead to.
    pub(crate) wanted: &'a [Oid],
    /// But for what these lead to, which the other side has.
    pub(crate) there: &'a [Oid],
    /// Whether deltas may be against what the other side has.
    pub(crate) thin: bool,
    /// Whether deltas may say where their base is.
    pub(crate) offsets: bool,
}

/// Whether one commit comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descent {
    /// It does.
    After,
    /// It doesn't.
    Elsewhere,
    /// They aren't both commits.
    NoCommits,
}

impl Git {
    /// The full name of the ref that Git takes this for, if it is one.
    pub(crate) fn full_name(&self, word: &str) -> Result<Option<String>> {
        let ran =
            self.run(&["rev-parse", "--verify", "--quiet", "--symbolic-full-name", "--end-of-options", word], b"")?;
        Ok(Some(ran.stdout.trim().to_owned()).filter(|name| ran.succeeded() && !name.is_empty()))
    }

    /// Which of these objects the repository has.
    pub(crate) fn having(&self, ids: &[Oid]) -> Result<HashSet<Oid>> {
        let input: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let mut command = self.command(&["cat-file", "--batch-check=%(objectname)"]);
        // What a partial clone would have to ask for isn't there.
        command.env("GIT_NO_LAZY_FETCH", "1");
        let ran = converse_raw(&mut command, input.as_bytes()).map_err(failed)?;
        // Of one that isn't there the line says so after its id.
        let found = ran.stdout.split(|byte| *byte == b'\n').filter_map(Oid::from_hex);
        Ok(found.collect())
    }

    /// Whether `new` comes after `old`; both are there.
    pub(crate) fn descent(&self, old: &Oid, new: &Oid) -> Result<Descent> {
        let ran = self.run(&["merge-base", "--is-ancestor", &old.to_string(), &new.to_string()], b"")?;
        Ok(match ran.code {
            Some(0) => Descent::After,
            Some(1) => Descent::Elsewhere,
            _ => Descent::NoCommits,
        })
    }

    /// The pack of what is to be pushed.
    pub(crate) fn pack(&self, what: &ToPush<'_>) -> Result<Vec<u8>> {
        let mut arguments = vec!["pack-objects", "--revs", "--stdout", "-q"];
        arguments.extend(what.thin.then_some("--thin"));
        arguments.extend(what.offsets.then_some("--delta-base-offset"));
        if !self.cut_off()?.is_empty() {
            arguments.push("--shallow");
        }
        let mut input: String = what.there.iter().map(|id| format!("^{id}\n")).collect();
        input.extend(what.wanted.iter().map(|id| format!("{id}\n")));
        let ran = converse_raw(&mut self.command(&arguments), input.as_bytes()).map_err(failed)?;
        if ran.code == Some(0) && ran.stdout.starts_with(b"PACK") {
            return Ok(ran.stdout);
        }
        let message = format!(
            "`git pack-objects` can't pack what is to be pushed, and nothing was pushed: {}; see `git fsck`",
            ran.words
        );
        Err(Error::new(ErrorCode::Io, message))
    }

    /// Where a shallow repository's history is cut off.
    pub(crate) fn cut_off(&self) -> Result<Vec<Oid>> {
        let ran = self.run(&["rev-parse", "--git-path", "shallow"], b"")?;
        let path = self.path_of(ran.stdout.trim_end_matches('\n'));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Ok(text.lines().filter_map(|line| Oid::from_hex(line.as_bytes())).collect())
    }

    /// Runs the repository's pre-push hook, as `git push` does, if there is one. `lines`: what it reads.
    /// What it says if it refuses.
    pub(crate) fn pre_push(&self, remote: &str, url: &str, lines: &str) -> Result<Option<String>> {
        let ran = self.run(&["rev-parse", "--git-path", "hooks/pre-push"], b"")?;
        let path = self.path_of(ran.stdout.trim_end_matches('\n'));
        if !std::fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0) {
            return Ok(None);
        }
        let like = self.command(&[] as &[&str]);
        let mut hook = Command::new(&path);
        hook.args([remote, url]);
        if let Some(folder) = like.get_current_dir() {
            hook.current_dir(folder);
        }
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => hook.env(name, value),
                None => hook.env_remove(name),
            };
        }
        let ran = converse_raw(&mut hook, lines.as_bytes())
            .map_err(|error| Error::io(format_args!("can't run the hook {}", path.display()), error))?;
        Ok((ran.code != Some(0)).then(|| {
            let said = String::from_utf8_lossy(&ran.stdout);
            [said.trim(), &ran.words].join(" ").trim().to_owned()
        }))
    }

    /// A path that Git gave, from the folder that it is run in.
    fn path_of(&self, path: &str) -> std::path::PathBuf {
        let here = self.command(&[] as &[&str]).get_current_dir().map(std::path::Path::to_owned);
        here.unwrap_or_default().join(path)
    }
}
