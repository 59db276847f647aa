//! Changes of other refs under a lock: all or none, by Git itself, and never for a holder that is none any more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use gitlock::{
    Error, ErrorCode, LockManager, Options, RefUpdate,
    lock::fault::{Fault, Faults},
};
use gitlock_tests::git::{Repo, again_in, try_git};

fn manager(repo: &Repo) -> LockManager {
    LockManager::open(repo.path()).unwrap()
}

/// A second commit, and the first.
fn two(repo: &Repo) -> (String, String) {
    let one = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["commit", "-q", "--allow-empty", "-m", "second"]);
    (one, repo.git(&["rev-parse", "HEAD"]))
}

fn value(repo: &Repo, name: &str) -> Option<String> {
    let output = try_git(repo.path(), &["rev-parse", "--verify", "-q", name]);
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn code(result: Result<(), Error>) -> ErrorCode {
    result.unwrap_err().code()
}

fn hook(repo: &Repo, name: &str, script: &str) {
    let path = repo.git_dir().join("hooks").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_kind_of_change_with_reflog_and_symbolic_refs() {
    for arguments in [&[][..], &["--object-format=sha256"]] {
        let repo = Repo::with(arguments);
        repo.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        let (one, two) = two(&repo);
        repo.git(&["config", "core.logAllRefUpdates", "true"]);
        repo.git(&["branch", "old"]);
        repo.git(&["branch", "gone"]);
        repo.git(&["pack-refs", "--all"]);
        repo.git(&["symbolic-ref", "refs/heads/alias", "refs/heads/aliased"]);
        let manager = manager(&repo);
        let guard = manager.lock("release").acquire().unwrap();
        guard
            .update_refs(
                &[
                    RefUpdate::create("refs/heads/new", &one),
                    RefUpdate::update("refs/heads/old", &one).expecting(&two),
                    RefUpdate::delete("refs/heads/gone").expecting(&two),
                    RefUpdate::update("refs/heads/alias", "old"),
                    RefUpdate::verify("HEAD", "HEAD"),
                    RefUpdate::verify_absent("refs/heads/never"),
                ],
                Some("release 1.2"),
            )
            .unwrap();
        let at = |name| value(&repo, name);
        assert_eq!(at("refs/heads/new"), Some(one.clone()));
        assert_eq!(at("refs/heads/old"), Some(one.clone()));
        assert_eq!(at("refs/heads/gone"), None);
        assert_eq!(at("refs/heads/aliased"), Some(two.clone()), "the symbolic ref was followed");
        assert_eq!(repo.git(&["symbolic-ref", "refs/heads/alias"]), "refs/heads/aliased");
        assert_eq!(repo.git(&["log", "-g", "--format=%gs", "refs/heads/old", "-1"]), "release 1.2");
        let alias = RefUpdate::delete("refs/heads/alias").no_deref();
        guard.update_refs(&[alias, RefUpdate::update("HEAD", &one)], None).unwrap();
        assert_eq!((at("refs/heads/alias"), at("refs/heads/aliased")), (None, Some(two)));
        assert_eq!(repo.git(&["log", "-g", "--format=%gs", "HEAD", "-1"]), "git lock: release");
        guard.update_refs(&[], None).unwrap();
        guard.release().unwrap();
        repo.assert_sound();
    }
}

#[test]
fn one_that_does_not_fit_keeps_all_as_they_are() {
    let repo = Repo::new();
    let (one, two) = two(&repo);
    repo.git(&["branch", "stable"]);
    let manager = manager(&repo);
    let guard = manager.lock("release").acquire().unwrap();
    let refused = |update: RefUpdate| {
        let updates = [RefUpdate::create("refs/heads/new", &one), update];
        let error = guard.update_refs(&updates, None).unwrap_err();
        assert_eq!(value(&repo, "refs/heads/new"), None, "{error}");
        assert_eq!(value(&repo, "refs/heads/stable"), Some(two.clone()), "{error}");
        error
    };
    let stable = "refs/heads/stable";
    let (nowhere, none) = ("1".repeat(40), "refs/heads/none");
    for (update, code, words) in [
        (RefUpdate::update(stable, &one).expecting(&one), ErrorCode::RefChanged, two.as_str()),
        (RefUpdate::create(stable, &one), ErrorCode::RefChanged, "not to exist"),
        (RefUpdate::verify(stable, "HEAD~1"), ErrorCode::RefChanged, stable),
        (RefUpdate::verify(none, &one), ErrorCode::RefChanged, "does not exist"),
        (RefUpdate::verify_absent(stable), ErrorCode::RefChanged, stable),
        (RefUpdate::delete(none).expecting(&one), ErrorCode::RefChanged, none),
        (RefUpdate::update(stable, &nowhere), ErrorCode::InvalidArgument, "no object"),
        (RefUpdate::update(stable, "never"), ErrorCode::InvalidArgument, "never"),
        (RefUpdate::create("refs/heads/stable/below", &one), ErrorCode::RefsRefused, stable),
        (RefUpdate::update("refs/heads/a..b", &one), ErrorCode::RefsRefused, "a..b"),
        (RefUpdate::update("refs/gitvan/locks/other", &one), ErrorCode::InvalidArgument, "gitlock"),
        (RefUpdate::delete("refs/gitvan/journal/release"), ErrorCode::InvalidArgument, "gitlock"),
    ] {
        let error = refused(update.clone());
        assert!(error.code() == code && error.to_string().contains(words), "{update:?}: {error:?}");
    }
    guard.release().unwrap();
}

#[test]
fn who_has_lost_the_lock_changes_nothing() {
    let repo = Repo::new();
    let (one, two) = two(&repo);
    let (manager, other) = (manager(&repo), self::manager(&repo));
    let main = repo.git(&["symbolic-ref", "HEAD"]);
    let update = [RefUpdate::update(&main, &one)];
    // Broken, and nobody has it.
    let guard = manager.lock("release").acquire().unwrap();
    other.break_lock("release", None, None).unwrap();
    assert_eq!(code(guard.update_refs(&update, None)), ErrorCode::LockLost);
    // Somebody else has it.
    let guard = manager.lock("release").acquire().unwrap();
    other.break_lock("release", None, None).unwrap();
    let theirs = other.lock("release").acquire_now().unwrap();
    assert_eq!(code(guard.update_refs(&update, None)), ErrorCode::LockLost);
    assert!(guard.is_lost());
    // By the handle of a tenure that has ended.
    let handle = theirs.handle();
    other.update_refs(&handle, &[RefUpdate::verify(&main, &two)], None).unwrap();
    theirs.release().unwrap();
    assert_eq!(code(other.update_refs(&handle, &update, None).map(drop)), ErrorCode::LockLost);
    // A lease that ran out, though nobody has taken the lock.
    let guard = manager.lock("release").ttl(Duration::from_millis(50)).renew(false).acquire().unwrap();
    thread::sleep(Duration::from_millis(80));
    assert_eq!(code(guard.update_refs(&update, None)), ErrorCode::LockLost);
    assert_eq!(value(&repo, &main), Some(two));
}

/// The lock is taken away after the renewal, just before Git begins: the programs that this test
/// starts find a `git` that waits.
#[test]
fn a_holder_that_loses_the_lock_in_the_last_moment_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let real =
        String::from_utf8(std::process::Command::new("sh").args(["-c", "command -v git"]).output().unwrap().stdout);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *update-ref*--stdin*)\n  if [ -n \"$GITLOCK_TEST_GATE\" ]; then\n    touch \"$GITLOCK_TEST_GATE/arrived\"\n    \
         while [ ! -e \"$GITLOCK_TEST_GATE/go\" ]; do sleep 0.01; done\n  fi;;\nesac\nexec {} \"$@\"\n",
        real.unwrap().trim()
    );
    let git = folder.path().join("git");
    fs::write(&git, script).unwrap();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let gate = folder.path().join("gate");
    fs::create_dir(&gate).unwrap();
    again_in(&["env", &path, &format!("GITLOCK_TEST_GATE={}", gate.display())], "behind_a_gate");
}

#[test]
#[ignore = "run by a_holder_that_loses_the_lock_in_the_last_moment_changes_nothing"]
fn behind_a_gate() {
    let gate = std::env::var("GITLOCK_TEST_GATE").unwrap();
    let gate = Path::new(&gate);
    for (faults, expected) in [(Faults::NONE, Err(ErrorCode::LockLost)), (Faults::only(Fault::NoFence), Ok(()))] {
        for word in ["arrived", "go"] {
            let _ = fs::remove_file(gate.join(word));
        }
        let repo = Repo::new();
        let (one, two) = two(&repo);
        let main = repo.git(&["symbolic-ref", "HEAD"]);
        let (other, mut options) = (manager(&repo), Options::default());
        options.faults = faults;
        let holder = LockManager::open_with(repo.path(), options).unwrap();
        let guard = holder.lock("release").acquire().unwrap();
        let result = thread::scope(|scope| {
            let stale = scope.spawn(|| guard.update_refs(&[RefUpdate::update(&main, &one)], None));
            while !gate.join("arrived").exists() {
                thread::sleep(Duration::from_millis(1));
            }
            other.break_lock("release", None, None).unwrap();
            let theirs = other.lock("release").acquire_now().unwrap();
            fs::write(gate.join("go"), "").unwrap();
            let result = stale.join().unwrap();
            theirs.release().unwrap();
            result
        });
        assert_eq!(result.map_err(|error| error.code()), expected);
        // The control: without the fence it would have been written.
        assert_eq!(value(&repo, &main), Some(if expected.is_ok() { one } else { two }));
    }
}

#[test]
fn hooks_run_and_one_that_refuses_changes_nothing() {
    let repo = Repo::new();
    let (one, _) = two(&repo);
    let manager = manager(&repo);
    let guard = manager.lock("release").acquire().unwrap();
    let log = repo.path().join("log");
    hook(&repo, "reference-transaction", &format!("(pwd; echo $1; cat) >> {}; exec 1>&2", log.display()));
    guard.update_refs(&[RefUpdate::create("refs/heads/new", &one)], None).unwrap();
    let told = fs::read_to_string(&log).unwrap();
    assert!(told.contains(&format!("{} {one} refs/heads/new", "0".repeat(40))), "{told}");
    assert!(told.contains("prepared") && told.contains("committed"), "{told}");
    let folder = repo.path().canonicalize().unwrap();
    assert!(told.starts_with(&format!("{}\n", folder.display())), "it runs where Git runs it: {told}");
    hook(
        &repo,
        "reference-transaction",
        "grep -q refs/heads/no && test $1 = prepared && echo not these >&2 && exit 1; exit 0",
    );
    let error = guard.update_refs(&[RefUpdate::create("refs/heads/no", &one)], None).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RefsRefused);
    assert!(error.to_string().contains("not these") && error.to_string().contains("hook"), "{error}");
    assert_eq!(value(&repo, "refs/heads/no"), None);
    // A hook that leaves something behind with its stderr keeps nobody waiting.
    hook(&repo, "reference-transaction", "sleep 60 & exit 0");
    guard.update_refs(&[RefUpdate::create("refs/heads/yes", &one)], None).unwrap();
    // And one that kills Git: it is told what became of the refs, and the next finds its way.
    hook(&repo, "reference-transaction", "test $1 = prepared && kill -9 $PPID; exit 0");
    let error = guard.update_refs(&[RefUpdate::create("refs/heads/no", &one)], None).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Io);
    assert!(error.to_string().contains("refs/heads/no does not exist"), "{error}");
    assert_eq!(value(&repo, "refs/heads/no"), None);
}

#[test]
fn a_ref_that_somebody_else_is_changing() {
    let repo = Repo::new();
    let (one, _) = two(&repo);
    let mut options = Options::default();
    options.lock_timeout = Duration::from_millis(300);
    let manager = LockManager::open_with(repo.path(), options).unwrap();
    let guard = manager.lock("release").acquire().unwrap();
    let lock = repo.git_dir().join("refs/heads/new.lock");
    fs::write(&lock, "").unwrap();
    let update = [RefUpdate::create("refs/heads/new", &one)];
    let error = guard.update_refs(&update, None).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RepositoryBusy);
    assert!(error.to_string().contains("new.lock"), "{error}");
    // It is waited for.
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            fs::remove_file(&lock).unwrap();
        });
        guard.update_refs(&update, None).unwrap();
    });
    guard.release().unwrap();
}

#[test]
fn a_path_a_set_and_a_shared_lock_are_renewed_as_a_whole() {
    let repo = Repo::new();
    let (one, two) = two(&repo);
    let (manager, other) = (manager(&repo), self::manager(&repo));
    let ttl = Duration::from_secs(60);
    let record = |name: &str| repo.git(&["cat-file", "-p", &format!("refs/gitvan/locks/{name}")]);
    let path = manager.lock("deploy/eu").ttl(ttl).acquire().unwrap();
    let before = [record("deploy"), record("deploy%2Feu")];
    path.update_refs(&[RefUpdate::create("refs/heads/new", &one)], None).unwrap();
    assert!(record("deploy") != before[0] && record("deploy%2Feu") != before[1]);
    assert!(path.remaining() > Duration::from_secs(50));
    let set = manager.lock_all(&["web", "db"]).ttl(ttl).acquire().unwrap();
    set.update_refs(&[RefUpdate::update("refs/heads/new", &two).expecting(&one)], None).unwrap();
    other.break_lock("web", None, None).unwrap();
    assert_eq!(code(set.update_refs(&[RefUpdate::delete("refs/heads/new")], None)), ErrorCode::LockLost);
    assert_eq!(value(&repo, "refs/heads/new"), Some(two));
    let (reader, beside) =
        (manager.lock("index").shared().acquire().unwrap(), other.lock("index").shared().acquire().unwrap());
    reader.update_refs(&[RefUpdate::delete("refs/heads/new")], None).unwrap();
    beside.release().unwrap();
    reader.release().unwrap();
    repo.assert_sound();
}

#[test]
fn a_queue_that_comes_and_goes_is_no_obstacle() {
    let repo = Repo::new();
    let (one, _) = two(&repo);
    let (manager, other) = (manager(&repo), self::manager(&repo));
    let guard = manager.lock("release").acquire().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let wait = other.lock("release").wait(Duration::from_millis(3)).acquire();
                assert_eq!(wait.unwrap_err().code(), ErrorCode::Timeout);
            }
        });
        for round in 0..60 {
            guard.update_refs(&[RefUpdate::create(format!("refs/heads/{round}"), &one)], None).unwrap();
        }
        done.store(true, SeqCst);
    });
    assert_eq!(repo.git(&["for-each-ref", "refs/heads/?", "refs/heads/??"]).lines().count(), 60);
    guard.release().unwrap();
}

#[test]
fn in_a_linked_worktree_head_is_its_own() {
    let repo = Repo::new();
    let (one, two) = two(&repo);
    let beside = tempfile::tempdir().unwrap();
    let tree = beside.path().join("tree");
    repo.git(&["worktree", "add", "-q", "--detach", tree.to_str().unwrap()]);
    let manager = LockManager::open(&tree).unwrap();
    let guard = manager.lock("release").acquire().unwrap();
    guard.update_refs(&[RefUpdate::update("HEAD", &one).expecting(&two)], None).unwrap();
    assert_eq!(value(&repo, "HEAD"), Some(two));
    let output = try_git(&tree, &["rev-parse", "HEAD"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), one);
    guard.release().unwrap();
}

#[test]
fn a_bare_repository_and_a_confusing_environment() {
    let repo = Repo::new();
    let (one, _) = two(&repo);
    let beside = tempfile::tempdir().unwrap();
    repo.git(&["clone", "-q", "--bare", ".", beside.path().join("bare").to_str().unwrap()]);
    let bare = beside.path().join("bare");
    let path = format!("GITLOCK_TEST_BARE={}", bare.display());
    again_in(
        &["env", &path, "GIT_DIR=/nowhere", "GIT_WORK_TREE=/", "GIT_OBJECT_DIRECTORY=/nowhere", "LANG=de_DE.UTF-8"],
        "where_the_environment_points_elsewhere",
    );
    let output = try_git(&bare, &["rev-parse", "refs/heads/new"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), one);
}

#[test]
#[ignore = "run by a_bare_repository_and_a_confusing_environment"]
fn where_the_environment_points_elsewhere() {
    let manager = LockManager::open(std::env::var("GITLOCK_TEST_BARE").unwrap()).unwrap();
    let guard = manager.lock("release").acquire().unwrap();
    guard.update_refs(&[RefUpdate::create("refs/heads/new", "HEAD~1")], None).unwrap();
    guard.release().unwrap();
}

#[test]
fn without_git_it_is_said_what_is_missing() {
    again_in(&["env", "GITLOCK_TEST_PATH=/nowhere"], "with_nothing_on_the_path");
}

#[test]
#[ignore = "run by without_git_it_is_said_what_is_missing"]
fn with_nothing_on_the_path() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let guard = manager.lock("release").acquire().unwrap();
    let before = repo.git(&["rev-parse", "HEAD"]);
    // SAFETY: no other thread of this process looks at the environment.
    unsafe { std::env::set_var("PATH", "/nowhere") };
    let error = guard.update_refs(&[RefUpdate::create("refs/heads/new", before)], None).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(error.to_string().contains("`git`"), "{error}");
    guard.release().unwrap();
}

/// A slice of `cargo xtask torture fenced`.
#[test]
fn a_stopped_holder_is_refused() {
    let figures = gitlock_tests::torture::fenced::run(
        15,
        2,
        7,
        &gitlock_tests::git::fast_folder(),
        env!("CARGO_BIN_EXE_torture"),
    );
    assert_eq!(figures.faults, Vec::<String>::new());
    assert_eq!((figures.rounds, figures.refused), (30, 30));
}
