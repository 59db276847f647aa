//! Repositories whose refs are in the reftable format, which is left to `git`; and those that change it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};

use gitlock::{
    ErrorCode, LockManager, Options, RefUpdate,
    store::{
        RefStore,
        files::{FilesOptions, FilesStore},
    },
};
use gitlock_tests::{
    behaviour::{blob, name, put},
    git::{Repo, again_in, try_git},
};

fn reftable() -> Repo {
    let repo = Repo::with(&["--ref-format=reftable"]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
    repo
}

fn open(repo: &Repo) -> LockManager {
    LockManager::open(repo.path()).unwrap()
}

/// The `git` processes that this one has started and that run now.
fn children() -> Vec<(u32, String)> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        if fields[1] == me {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&words).replace('\0', " ")));
        }
    }
    found
}

#[test]
fn git_sees_every_lock_and_keeps_it_through_all_its_housekeeping() {
    let repo = reftable();
    let manager = open(&repo);
    let guard = manager.lock("build").reason("a test").acquire().unwrap();
    let record = repo.git(&["cat-file", "-p", "refs/gitvan/locks/build"]);
    assert!(record.contains(guard.id()), "{record}");
    for command in
        [&["pack-refs", "--all"][..], &["gc", "-q", "--prune=now"], &["repack", "-adq"], &["fsck", "--strict"]]
    {
        repo.git(command);
        guard.extend(None).unwrap();
        assert_eq!(manager.lock("build").acquire_now().unwrap_err().code(), ErrorCode::Held);
    }
    guard.update_refs(&[RefUpdate::create("refs/heads/new", "HEAD")], None).unwrap();
    let head = repo.git(&["rev-parse", "HEAD"]);
    assert_eq!(repo.git(&["rev-parse", "refs/heads/new"]), head);
    let taken = RefUpdate::create("refs/heads/new", "HEAD");
    assert_eq!(guard.update_refs(&[taken], None).unwrap_err().code(), ErrorCode::RefChanged);
    guard.release().unwrap();
    assert_eq!(repo.git(&["log", "--format=%s", "refs/gitvan/journal/build"]), "build: released");
    assert_eq!(repo.git(&["for-each-ref", "refs/gitvan/locks"]), "");
    // Nothing beside Git: no loose ref that it would never see, no reflog, and no hook was run.
    assert!(!repo.git_dir().join("refs/gitvan").exists());
    assert_eq!(manager.log("build", 10).unwrap().len(), 1);
    assert_eq!(manager.doctor(false).unwrap(), []);
    repo.assert_sound();
}

#[test]
fn a_waiter_is_woken_by_the_release_and_by_the_death_of_the_holder() {
    let repo = reftable();
    let mut options = Options::default();
    // So long that polling wouldn't do.
    options.poll_interval = Duration::from_secs(3_600);
    let (here, there) = (open(&repo), LockManager::open_with(repo.path(), options).unwrap());
    for _ in 0..5 {
        let guard = here.lock("build").acquire().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| there.lock("build").wait(Duration::from_secs(60)).acquire());
            while here.status("build").unwrap().queue.is_empty() {
                thread::sleep(Duration::from_millis(2));
            }
            guard.release().unwrap();
            waiter.join().unwrap().unwrap().release().unwrap();
        });
    }
}

#[test]
fn git_processes_that_are_killed_are_started_again_and_none_stays_behind() {
    again_in(&["env"], "with_processes_of_its_own");
}

#[test]
#[ignore = "run by git_processes_that_are_killed_are_started_again_and_none_stays_behind"]
fn with_processes_of_its_own() {
    let repo = reftable();
    let manager = open(&repo);
    for round in 0..6 {
        let guard = manager.lock("build").acquire().unwrap();
        let ours = children();
        assert!((1..=2).contains(&ours.len()), "one that reads and one that writes: {ours:?}");
        for (pid, _) in ours {
            // SAFETY: a child of this process, which nobody has waited for.
            unsafe { libc::kill(i32::try_from(pid).unwrap(), libc::SIGKILL) };
        }
        assert_eq!(manager.status("build").unwrap().holders.len(), 1, "{round}");
        guard.release().unwrap();
    }
    drop(manager);
    for _ in 0..500 {
        if children().is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("left behind: {:?}", children());
}

#[test]
fn nobody_who_forks_or_dies_keeps_anything_alive() {
    let repo = reftable();
    let manager = open(&repo);
    let guard = manager.lock("build").acquire().unwrap();
    // SAFETY: the child asks one thing, and ends by a system call.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // It has processes of its own, and the parent's lock isn't its.
        let held = manager.lock("build").acquire_now().is_err_and(|error| error.code() == ErrorCode::Held);
        let own = manager.lock("other").acquire_now().and_then(gitlock::LockGuard::release);
        let forked = guard.extend(None).is_err_and(|error| error.code() == ErrorCode::Forked);
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(!(held && own.is_ok() && forked))) };
    }
    let mut status = 0;
    // SAFETY: a child of this process.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    guard.extend(None).unwrap();
    guard.release().unwrap();
}

#[test]
fn a_lock_of_all_refs_that_was_left_behind_is_broken_and_a_live_one_waited_for() {
    let repo = reftable();
    let lock = repo.git_dir().join("reftable/tables.list.lock");
    let patient = |stale: u64| {
        let mut options = Options::default();
        options.lock_timeout = Duration::from_millis(400);
        options.stale_lock_age = Some(Duration::from_millis(stale));
        LockManager::open_with(repo.path(), options).unwrap()
    };
    fs::write(&lock, "").unwrap();
    let error = patient(600_000).lock("build").acquire().unwrap_err();
    assert_eq!(error.code(), ErrorCode::RepositoryBusy, "{error}");
    assert!(error.to_string().contains("tables.list.lock"), "{error}");
    let findings = patient(600_000).doctor(false).unwrap();
    assert!(findings.iter().any(|finding| finding.what.contains("tables.list.lock")), "{findings:?}");
    let guard = patient(50).lock("build").acquire().unwrap();
    fs::write(&lock, "").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(150));
            fs::remove_file(&lock).unwrap();
        });
        guard.release().unwrap();
    });
}

#[test]
fn without_git_the_error_says_what_is_missing() {
    again_in(&["env"], "with_nothing_on_the_path");
}

#[test]
#[ignore = "run by without_git_the_error_says_what_is_missing"]
fn with_nothing_on_the_path() {
    let repo = reftable();
    // SAFETY: no other thread of this process looks at the environment.
    unsafe { std::env::set_var("PATH", "/nowhere") };
    let error = LockManager::open(repo.path()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(error.to_string().contains("`git`"), "{error}");
}

#[test]
fn a_ref_in_the_way_and_one_that_other_tools_made() {
    let repo = reftable();
    let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
    let head = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["update-ref", "refs/gitvan/locks/a/b", &head]);
    let manager = open(&repo);
    let error = manager.lock("a").acquire_now().unwrap_err();
    assert_eq!(error.code(), ErrorCode::NameBlocked, "{error}");
    assert_eq!(manager.list().unwrap().foreign.len(), 1);
    // A reader of records meets a commit.
    repo.git(&["update-ref", "refs/gitvan/locks/c", &head]);
    assert_eq!(manager.lock("c").acquire_now().unwrap_err().code(), ErrorCode::RecordCorrupt);
    manager.break_lock("c", None, None).unwrap();
    // What Git writes between two of our transactions is seen.
    let first = put(&store, &name("x"), None, blob("first"));
    repo.git(&["update-ref", "-d", "refs/gitvan/locks/x"]);
    assert_eq!(store.read(&name("x")).unwrap(), None);
    let again = put(&store, &name("x"), None, blob("first"));
    assert_eq!(first, again);
}

#[test]
fn exclusion_between_processes_beside_pack_refs() {
    let repo = reftable();
    let (inside, count, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let packer = scope.spawn(|| {
            while !stop.load(SeqCst) {
                // Who is turned away tries again.
                let _ = try_git(repo.path(), &["pack-refs", "--all"]);
            }
        });
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let manager = open(&repo);
                    for _ in 0..25 {
                        let guard = manager.lock("build").wait(Duration::from_secs(120)).acquire().unwrap();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0, "a double grant");
                        count.fetch_add(1, SeqCst);
                        inside.fetch_sub(1, SeqCst);
                        guard.release().unwrap();
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        stop.store(true, SeqCst);
        packer.join().unwrap();
    });
    assert_eq!(count.load(SeqCst), 100);
    repo.assert_sound();
}

// ---------------------------------------------------------------- migration

/// A bare repository: `git refs migrate` can't take reflogs along yet.
fn bare(format: &str) -> Repo {
    let repo = Repo::with(&["--bare", &format!("--ref-format={format}")]);
    let tree = repo.git(&["hash-object", "-t", "tree", "-w", "/dev/null"]);
    let commit = repo.git(&["commit-tree", "-m", "first", &tree]);
    repo.git(&["update-ref", "HEAD", &commit]);
    repo
}

fn migrate(at: &Path, format: &str) {
    let output = try_git(at, &["refs", "migrate", &format!("--ref-format={format}")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_running_manager_follows_a_migration_there_and_back() {
    for (first, second) in [("files", "reftable"), ("reftable", "files")] {
        let repo = bare(first);
        let (manager, other) = (open(&repo), open(&repo));
        let guard = manager.lock("build").acquire().unwrap();
        for format in [second, first] {
            migrate(repo.path(), format);
            assert_eq!(repo.git(&["rev-parse", "--show-ref-format"]), format);
            guard.extend(None).unwrap();
            assert_eq!(other.lock("build").acquire_now().unwrap_err().code(), ErrorCode::Held, "{format}");
            let record = repo.git(&["cat-file", "-p", "refs/gitvan/locks/build"]);
            assert!(record.contains(guard.id()), "Git sees the extension");
            let beside = other.lock("beside").acquire_now().unwrap();
            guard.update_refs(&[RefUpdate::update(format!("refs/heads/{format}"), "HEAD")], None).unwrap();
            beside.release().unwrap();
            assert_eq!(format == "files", repo.path().join("refs/gitvan").exists());
        }
        let token = guard.token();
        guard.release().unwrap();
        let guard = other.lock("build").acquire_now().unwrap();
        assert!(guard.token() > token);
        guard.release().unwrap();
        assert_eq!(repo.git(&["log", "--format=%s", "refs/gitvan/journal/build"]).lines().count(), 2);
        repo.assert_sound();
    }
}

#[test]
fn a_waiter_is_served_through_a_migration() {
    for (first, second) in [("files", "reftable"), ("reftable", "files")] {
        let repo = bare(first);
        let (manager, other) = (open(&repo), open(&repo));
        let guard = manager.lock("build").acquire().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| other.lock("build").wait(Duration::from_secs(60)).acquire());
            while manager.status("build").unwrap().queue.is_empty() {
                thread::sleep(Duration::from_millis(2));
            }
            migrate(repo.path(), second);
            // The watch is set again in the new format, and nothing is made in the way of it.
            thread::sleep(Duration::from_millis(300));
            guard.release().unwrap();
            waiter.join().unwrap().unwrap().release().unwrap();
        });
        repo.assert_sound();
        migrate(repo.path(), first);
    }
}

#[test]
fn while_a_migration_is_under_way_nothing_is_believed_absent() {
    let repo = bare("files");
    let manager = open(&repo);
    let guard = manager.lock("build").acquire().unwrap();
    // As Git does it: a folder, then everything is deleted, then it comes back.
    let (folder, refs) = (repo.path().join("ref_migration.abc"), repo.path().join("refs"));
    fs::create_dir(&folder).unwrap();
    fs::rename(&refs, folder.join("refs")).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            fs::rename(folder.join("refs"), &refs).unwrap();
            fs::remove_dir(&folder).unwrap();
        });
        let other = open(&repo);
        assert_eq!(other.lock("build").acquire_now().unwrap_err().code(), ErrorCode::Held);
        guard.extend(None).unwrap();
    });
    // One that a dry run leaves behind delays nobody for long.
    fs::create_dir(&folder).unwrap();
    guard.release().unwrap();
}
