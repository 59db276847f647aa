//! The control arm of the torture is caught, and the files store is not, by one and the same loop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use gitlock::{
    RefName,
    clock::{Clock, SystemClock},
    store::{
        RefStore, Transacted,
        files::{FilesOptions, FilesStore},
    },
};
use gitlock_tests::{
    behaviour::{PREFIX, blob, edit, name},
    git::{Repo, try_git},
    gix_locks,
    packer::Packer,
};

/// Locks by some way of changing refs.
trait Locks: Send {
    fn acquire(&self, name: &str, content: &str) -> bool;
    fn release(&self, name: &str, content: &str) -> bool;
}

impl Locks for gix::Repository {
    fn acquire(&self, name: &str, content: &str) -> bool {
        gix_locks::acquire(self, name, content.as_bytes())
    }

    fn release(&self, name: &str, content: &str) -> bool {
        gix_locks::release(self, name, content.as_bytes())
    }
}

impl Locks for FilesStore {
    fn acquire(&self, name: &str, content: &str) -> bool {
        let edit = edit(&RefName::foreign(name), None, Some(blob(content)));
        matches!(self.transact(&[edit]), Ok(Transacted::Committed(_)))
    }

    fn release(&self, name: &str, content: &str) -> bool {
        let name = RefName::foreign(name);
        let held = self.read(&name).unwrap();
        assert_eq!(self.object(&held.unwrap()).unwrap(), gitlock::store::Object::Blob(content.as_bytes().to_vec()));
        matches!(self.transact(&[edit(&name, held, None)]), Ok(Transacted::Committed(_)))
    }
}

#[derive(Debug, Default)]
struct Caught {
    acquisitions: AtomicUsize,
    double_grants: AtomicUsize,
    failed_releases: AtomicUsize,
    came_back: AtomicUsize,
}

impl Caught {
    fn faults(&self) -> usize {
        [&self.double_grants, &self.failed_releases, &self.came_back].iter().map(|count| count.load(SeqCst)).sum()
    }
}

/// Two clients after one lock, beside pack-refs, until one thing goes wrong or they have had it
/// this often.
fn torture(repo: &Repo, most: usize, open: impl Fn(&Path) -> Box<dyn Locks>) -> Caught {
    let (caught, stop, inside) = (Caught::default(), AtomicBool::new(false), AtomicUsize::new(0));
    let git_dir = repo.git_dir();
    let lock = name("hot").to_string();
    let last = AtomicU64::new(SystemClock.boot_ms());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                Packer::new(&git_dir).run();
            }
        });
        for me in 0..2 {
            let (client, caught, stop, inside, lock, last) = (open(repo.path()), &caught, &stop, &inside, &lock, &last);
            scope.spawn(move || {
                for round in 0.. {
                    let content = format!("{me} {round}");
                    // A leaked lock lets nobody acquire any more.
                    let stuck = SystemClock.boot_ms().saturating_sub(last.load(SeqCst)) > 10_000;
                    if caught.faults() > 0 || caught.acquisitions.load(SeqCst) >= most || stuck {
                        stop.store(true, SeqCst);
                    }
                    if stop.load(SeqCst) {
                        return;
                    }
                    if !client.acquire(lock, &content) {
                        SystemClock.pause(Duration::from_micros(20));
                        continue;
                    }
                    caught.acquisitions.fetch_add(1, SeqCst);
                    last.store(SystemClock.boot_ms(), SeqCst);
                    caught.double_grants.fetch_add(inside.swap(1, SeqCst), SeqCst);
                    inside.store(0, SeqCst);
                    // Somebody may hold the ref's `.lock` for a moment; who holds the lock tries again.
                    let released = (0..100).any(|_| client.release(lock, &content));
                    caught.failed_releases.fetch_add(usize::from(!released), SeqCst);
                }
            });
        }
    });
    if !try_git(repo.path(), &["for-each-ref", PREFIX]).stdout.is_empty() {
        caught.came_back.fetch_add(1, SeqCst);
    }
    caught
}

#[test]
fn gix_locks_and_releases() {
    let repo = Repo::new();
    let client = gix::open(repo.path()).unwrap();
    let lock = name("a").to_string();
    for _ in 0..3 {
        assert!(client.acquire(&lock, "mine"));
        assert!(!client.acquire(&lock, "yours"));
        // To gix, what must not exist may exist with the very same content. So content has to be unique.
        assert!(client.acquire(&lock, "mine"));
        assert!(!client.release(&lock, "yours"));
        repo.git(&["pack-refs", "--all"]);
        assert!(client.release(&lock, "mine") && !client.release(&lock, "mine"));
        assert_eq!(repo.git(&["for-each-ref", PREFIX]), "");
    }
    repo.assert_sound();
}

#[test]
fn the_control_arm_is_caught() {
    let caught = torture(&Repo::new(), 1_000_000, |at| Box::new(gix::open(at).unwrap()));
    println!("{caught:?}");
    assert!(caught.faults() > 0, "{caught:?}");
}

#[test]
fn the_files_store_is_not() {
    let repo = Repo::new();
    let caught = torture(&repo, 2_000, |at| Box::new(FilesStore::open(at, &FilesOptions::default()).unwrap()));
    println!("{caught:?}");
    assert_eq!(caught.faults(), 0, "{caught:?}");
    assert!(caught.acquisitions.into_inner() >= 2_000, "the control");
    repo.assert_sound();
}
