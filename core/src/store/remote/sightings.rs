//! Since when entries of records have been seen unchanged, on this machine's own clock: where
//! clocks of several machines needn't agree, that is what a lease is measured by.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{hex, lock::Now};

/// By ref and entry, the boot time of the first sighting.
type Seen = HashMap<String, HashMap<String, u64>>;

/// The sightings of one remote's refs.
#[derive(Debug)]
pub(super) struct Sightings {
    seen: Mutex<Seen>,
    /// Where they are kept, so that commands that end don't start over.
    file: Option<PathBuf>,
}

impl Sightings {
    pub(super) fn new(notes: Option<&Path>, place: &str) -> Sightings {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(place.as_bytes());
        let name = hex::text(&digest[..8]);
        Sightings { seen: Mutex::default(), file: notes.map(|notes| notes.join(format!("sightings-{name}"))) }
    }

    /// For how long each of these entries of a ref's record has been seen. What isn't among them
    /// is forgotten.
    pub(super) fn seen_for(&self, now: &Now, name: &str, entries: &[String]) -> Vec<Option<u64>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.entry(name.to_owned()).or_default();
        known.retain(|entry, _| entries.contains(entry));
        if entries.iter().any(|entry| !known.contains_key(entry)) {
            // Another process may have seen them before.
            self.share(now, name, entries, known);
        }
        let since = entries.iter().map(|entry| Some(now.boot.saturating_sub(*known.get(entry)?))).collect();
        if entries.is_empty() {
            seen.remove(name);
        }
        since
    }

    /// Takes what others noted in, and notes what is new.
    fn share(&self, now: &Now, name: &str, entries: &[String], known: &mut HashMap<String, u64>) {
        let noted = self.file.as_ref().and_then(|file| {
            // A child that inherited the descriptor would keep the lock.
            let _no_fork = crate::fork::NoFork::enter();
            note(file, now, name, entries, known)
                .inspect_err(|error| tracing::debug!(%error, "sightings could not be noted"))
                .ok()
        });
        if noted.is_none() {
            for entry in entries {
                known.entry(entry.clone()).or_insert(now.boot);
            }
        }
    }
}

/// Lines of: boot id, boot time, ref, entry.
fn note(
    file: &Path,
    now: &Now,
    name: &str,
    entries: &[String],
    known: &mut HashMap<String, u64>,
) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::options().create(true).truncate(false).read(true).write(true).open(file)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut kept = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(boot), Some(at), Some(of), Some(entry)) = (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        // Only this boot's clock can be compared with.
        if boot != &*now.boot_id {
            continue;
        }
        if of != name {
            kept.push(line.to_owned());
        } else if let Ok(at) = at.parse::<u64>()
            && at <= now.boot
            && entries.iter().any(|other| other == entry)
        {
            let since = known.entry(entry.to_owned()).or_insert(at);
            *since = at.min(*since);
        }
    }
    for entry in entries {
        let since = known.entry(entry.clone()).or_insert(now.boot);
        kept.push(format!("{} {since} {name} {entry}", now.boot_id));
    }
    file.rewind()?;
    file.set_len(0)?;
    file.write_all((kept.join("\n") + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot: u64, id: &str) -> Now {
        Now { wall: 0, wall_micros: 0, boot, boot_id: id.into() }
    }

    #[test]
    fn another_process_goes_on_where_the_first_ended() {
        let folder = tempfile::tempdir().unwrap();
        let ask = |boot, id: &str, entries: &[&str]| {
            let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
            Sightings::new(Some(folder.path()), "git://host/a").seen_for(&now(boot, id), "refs/a", &entries)
        };
        assert_eq!(ask(1_000, "x", &["t 1"]), [Some(0)]);
        assert_eq!(ask(4_000, "x", &["t 1", "u 1"]), [Some(3_000), Some(0)]);
        assert_eq!(ask(5_000, "x", &["t 2", "u 1"]), [Some(0), Some(1_000)], "it was renewed");
        assert_eq!(ask(6_000, "x", &["t 1"]), [Some(0)], "what was gone begins anew");
        assert_eq!(ask(9_000, "y", &["t 1"]), [Some(0)], "after a boot as well");
        let other = Sightings::new(Some(folder.path()), "git://host/b");
        assert_eq!(other.seen_for(&now(9_000, "y"), "refs/a", &["t 1".to_owned()]), [Some(0)], "remotes are apart");
    }

    #[test]
    fn without_a_folder_this_process_remembers() {
        let sightings = Sightings::new(None, "git://host/a");
        let entry = ["t 1".to_owned()];
        assert_eq!(sightings.seen_for(&now(5, "x"), "refs/a", &entry), [Some(0)]);
        assert_eq!(sightings.seen_for(&now(9, "x"), "refs/a", &entry), [Some(4)]);
        sightings.seen_for(&now(9, "x"), "refs/a", &[]);
        assert_eq!(sightings.seen_for(&now(10, "x"), "refs/a", &entry), [Some(0)]);
    }
}
