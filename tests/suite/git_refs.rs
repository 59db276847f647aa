//! Names, formats and states of a repository that the files store has to read as Git reads them,
//! or to refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use gitlock::{
    ErrorCode, LockName, Namespace, RefName,
    store::{
        Object, Oid, RefEdit, RefStore, Transacted,
        files::{FilesOptions, FilesStore, doctor::Leftover},
    },
};
use gitlock_tests::{
    behaviour::{PREFIX, blob, commit, edit, name, put, remove},
    git::{Repo, again_in, own_mounts, run_git, try_git},
};
use proptest::{prelude::*, strategy::ValueTree};

fn open(at: &Path) -> FilesStore {
    FilesStore::open(at, &FilesOptions::default()).unwrap()
}

fn refusal(at: &Path) -> gitlock::Error {
    let error = FilesStore::open(at, &FilesOptions::default()).unwrap_err();
    assert!(error.to_string().len() > 30, "it says what to do: {error}");
    error
}

/// What reading, swapping, creating and deleting this ref fails with: the same for all of them.
fn refused(store: &FilesStore, name: &RefName) -> ErrorCode {
    let code = store.read(name).unwrap_err().code();
    let id = Oid::from_bytes(&[7; 20]);
    for (expected, new) in [(None, Some(blob("x"))), (id, Some(blob("x"))), (id, None)] {
        assert_eq!(store.transact(&[edit(name, expected, new)]).unwrap_err().code(), code);
    }
    code
}

// ---------------------------------------------------------------- names

fn git_takes(full: &str) -> bool {
    try_git(Path::new("/"), &["check-ref-format", full]).status.success()
}

const NASTY: &str = r"([a-zA-Z0-9._%@{}~^:?*\[\\ \-/]|\.\.|\.lock|@\{|é|\u{1F512}){1,24}|\PC{1,60}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn git_takes_every_encoded_name(text in NASTY) {
        if let Ok(lock) = LockName::new(&text) {
            let space = Namespace::default();
            prop_assert!(git_takes(space.lock_ref(&lock).as_str()), "{lock:?}: {}", lock.encoded());
            prop_assert!(git_takes(space.journal_ref(&lock).as_str()));
        }
    }

    #[test]
    fn git_takes_every_prefix_that_is_accepted(text in r"refs/([a-z0-9._@{~\-]|\.\.|/|\.lock|@\{){1,16}|[a-z/.]{0,12}") {
        if let Ok(space) = Namespace::new(&text) {
            let lock = LockName::new("x").unwrap();
            prop_assert!(git_takes(space.lock_ref(&lock).as_str()), "{text:?}");
            prop_assert!(git_takes(space.journal_ref(&lock).as_str()), "{text:?}");
            prop_assert!(!space.journals().starts_with(&format!("{}/", space.locks())), "the journals are no locks");
        }
    }
}

#[test]
fn the_judge_of_names_refuses() {
    for bad in ["refs/gitvan/locks/a..b", "refs/gitvan/locks/.a", "refs/gitvan/locks/a.lock", "refs/a b", "refs/a@{b"] {
        assert!(!git_takes(bad), "{bad}");
    }
}

#[test]
fn git_and_the_store_see_the_same_refs_under_any_name() {
    let repo = Repo::new();
    let (store, space) = (open(repo.path()), Namespace::default());
    let mut made = 0;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..150 {
        let text = NASTY.new_tree(&mut runner).unwrap().current();
        let Ok(lock) = LockName::new(&text) else { continue };
        if store.read(&space.lock_ref(&lock)).unwrap().is_none() {
            put(&store, &space.lock_ref(&lock), None, blob(&text));
            made += 1;
        }
    }
    assert!(made > 50, "the control: {made} names");
    for packed in [false, true] {
        if packed {
            repo.git(&["pack-refs", "--all"]);
        }
        let ours: Vec<String> = store.list(PREFIX).unwrap().iter().map(|(name, id)| format!("{id} {name}")).collect();
        assert_eq!(ours.join("\n"), repo.git(&["for-each-ref", "--format=%(objectname) %(refname)", PREFIX]));
        for (name, id) in store.list(PREFIX).unwrap() {
            let lock = space.lock_of(&name).expect("the name of a lock");
            assert_eq!(store.object(&id).unwrap(), Object::Blob(lock.as_str().as_bytes().to_vec()));
        }
    }
    repo.assert_sound();
}

// ---------------------------------------------------------------- formats

/// Whether Git itself opens the repository there.
fn git_opens(at: &Path) -> bool {
    try_git(at, &["rev-parse", "--git-dir"]).status.success()
}

#[test]
fn a_format_that_is_not_what_the_configuration_says_is_refused() {
    let repo = Repo::with(&["--ref-format=reftable"]);
    assert!(git_opens(repo.path()));
    put(&open(repo.path()), &name("a"), None, blob("a"));
    // Somebody has taken the extension out of the configuration. At first that could be a migration.
    repo.git(&["config", "--unset", "extensions.refStorage"]);
    let error = refusal(repo.path());
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(error.to_string().contains("reftable"), "{error}");
}

#[test]
fn unknown_extensions_are_refused_where_git_refuses_them() {
    let repo = Repo::new();
    repo.git(&["config", "extensions.frobnicate", "true"]);
    // In version 0 Git heeds none that it doesn't know.
    assert!(git_opens(repo.path()));
    put(&open(repo.path()), &name("a"), None, blob("a"));
    repo.git(&["config", "core.repositoryFormatVersion", "1"]);
    assert!(!git_opens(repo.path()));
    let error = refusal(repo.path());
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(error.to_string().contains("frobnicate"), "{error}");
}

#[test]
fn harmless_extensions_are_taken() {
    for (extension, value) in [
        ("noop", "true"),
        ("preciousObjects", "true"),
        ("worktreeConfig", "true"),
        ("relativeWorktrees", "false"),
        ("partialClone", "origin"),
        ("objectFormat", "sha1"),
        ("refStorage", "files"),
    ] {
        let repo = Repo::new();
        repo.git(&["config", "core.repositoryFormatVersion", "1"]);
        fs::OpenOptions::new()
            .append(true)
            .open(repo.git_dir().join("config"))
            .unwrap()
            .write_all(format!("[extensions]\n\t{extension} = {value}\n").as_bytes())
            .unwrap();
        put(&open(repo.path()), &name("a"), None, blob("a"));
    }
}

#[test]
fn precious_objects_are_never_swept() {
    let repo = Repo::new();
    repo.git(&["config", "core.repositoryFormatVersion", "1"]);
    repo.git(&["config", "extensions.preciousObjects", "true"]);
    let store = open(repo.path());
    let first = put(&store, &name("a"), None, blob("first"));
    put(&store, &name("a"), Some(first), blob("second"));
    store.superseded(&[first]);
    assert_eq!(store.sweep(Some(Duration::ZERO)).unwrap().deleted, 0);
    assert!(!store.restore(&blob("first")).unwrap());
}

#[test]
fn unknown_versions_are_refused() {
    for version in ["2", "99", "-1", "nonsense"] {
        let repo = Repo::new();
        repo.git(&["config", "core.repositoryFormatVersion", version]);
        if version != "-1" {
            assert!(!git_opens(repo.path()), "{version}");
        }
        assert_eq!(refusal(repo.path()).code(), ErrorCode::Unsupported, "{version}");
    }
}

#[test]
fn extensions_of_version_1_in_version_0_are_refused_as_git_does() {
    for (extension, value) in [("objectFormat", "sha256"), ("refStorage", "reftable")] {
        let repo = Repo::new();
        repo.git(&["config", &format!("extensions.{extension}"), value]);
        assert!(!git_opens(repo.path()), "{extension}");
        assert_eq!(refusal(repo.path()).code(), ErrorCode::Unsupported, "{extension}");
    }
}

#[test]
fn no_repository_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    for at in [folder.path().to_owned(), folder.path().join("not/there")] {
        let error = refusal(&at);
        assert_eq!(error.code(), ErrorCode::NotARepository, "{error}");
        assert!(error.to_string().contains("git init"), "{error}");
    }
    // Pointing at nothing.
    fs::write(folder.path().join(".git"), "gitdir: /not/there\n").unwrap();
    let code = refusal(folder.path()).code();
    assert!(matches!(code, ErrorCode::NotARepository | ErrorCode::Unsupported), "{code:?}");
}

#[test]
fn a_damaged_configuration_is_refused() {
    let repo = Repo::new();
    let config = repo.git_dir().join("config");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{before}\n[gitlock\nkeep = 1\n")).unwrap();
    assert!(!git_opens(repo.path()));
    assert_eq!(refusal(repo.path()).code(), ErrorCode::Unsupported);
    for (key, value) in [("gitlock.keep", "many"), ("gitlock.staleLockAge", "-1"), ("gitlock.maxClockSkew", "x")] {
        fs::write(&config, &before).unwrap();
        repo.git(&["config", key, value]);
        let error = refusal(repo.path());
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.to_string().contains(key), "{error}");
    }
}

// ---------------------------------------------------------------- other users, read-only, full

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const NOBODY: u32 = 65_534;

fn give_away(folder: &Path) {
    assert!(Command::new("chown").arg("-R").arg(NOBODY.to_string()).arg(folder).status().unwrap().success());
}

const FOREIGN: &str = "GITLOCK_TEST_FOREIGN";

#[test]
fn a_repository_of_another_user_is_refused() {
    if !is_root() {
        println!("skipped: only root can give a repository to another user");
        return;
    }
    let repo = Repo::new();
    give_away(repo.path());
    assert!(!git_opens(repo.path()), "Git doesn't trust it either");
    let error = refusal(repo.path());
    assert_eq!(error.code(), ErrorCode::Untrusted);
    assert!(error.to_string().contains("safe.directory"), "{error}");
    // What the message says to do helps.
    let home = tempfile::tempdir().unwrap();
    let folder = repo.path().canonicalize().unwrap();
    fs::write(home.path().join(".gitconfig"), format!("[safe]\n\tdirectory = {}\n", folder.display())).unwrap();
    let home = format!("HOME={}", home.path().display());
    let foreign = format!("{FOREIGN}={}", folder.display());
    again_in(&["env", &home, &foreign], "a_trusted_repository_of_another_user");
}

#[test]
#[ignore = "run by a_repository_of_another_user_is_refused with a configuration that trusts it"]
fn a_trusted_repository_of_another_user() {
    let at = PathBuf::from(std::env::var_os(FOREIGN).unwrap());
    put(&open(&at), &name("a"), None, blob("a"));
}

/// Reads go on, every write is refused, and nothing is changed.
fn refuses_writes(at: &Path, a: &RefName, id: Oid) {
    let store = open(at);
    assert_eq!(store.read(a).unwrap(), Some(id));
    assert_eq!(store.object(&id).unwrap(), Object::Blob(b"before".to_vec()));
    for edits in [
        vec![edit(&name("new"), None, Some(blob("new")))],
        vec![edit(a, Some(id), Some(blob("swapped")))],
        vec![edit(a, Some(id), None)],
        vec![edit(&name("new"), None, Some(commit(None, "ended"))), edit(a, Some(id), None)],
    ] {
        let error = store.transact(&edits).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error}");
        assert!(error.to_string().contains("writable"), "{error}");
    }
    assert_eq!(store.list(PREFIX).unwrap(), [(a.clone(), id)]);
    // Nothing has to be written to look on.
    store.superseded(&[id]);
    store.tend();
    let mut watch = store.watch(PREFIX).unwrap();
    watch.changes();
    assert_eq!(store.leftovers(&[PREFIX]).unwrap(), []);
}

#[test]
fn a_repository_without_write_permission() {
    if is_root() {
        again_in(&["env"], "a_repository_without_write_permission_for_nobody");
    } else {
        without_write_permission();
    }
}

#[test]
#[ignore = "run by a_repository_without_write_permission, since nothing is forbidden to root"]
fn a_repository_without_write_permission_for_nobody() {
    // SAFETY: plain system calls; glibc changes every thread of this process.
    let changed = unsafe { libc::setgroups(0, std::ptr::null()) | libc::setgid(NOBODY) | libc::setuid(NOBODY) };
    assert_eq!(changed, 0);
    without_write_permission();
}

fn without_write_permission() {
    let repo = Repo::new();
    let a = name("a");
    let id = put(&open(repo.path()), &a, None, blob("before"));
    // The folder of the new object must not be there by chance.
    let chmod = |mode: &str| {
        assert!(Command::new("chmod").args(["-R", mode]).arg(repo.path()).status().unwrap().success());
    };
    chmod("a-w");
    refuses_writes(repo.path(), &a, id);
    chmod("u+w");
    put(&open(repo.path()), &a, Some(id), blob("after"));
    repo.assert_sound();
}

#[test]
fn a_read_only_file_system() {
    match own_mounts() {
        Some(words) => again_in(words, "a_read_only_file_system_mounted"),
        None => println!("skipped: this user may not have mounts of its own"),
    }
}

fn mount(arguments: &[&str], at: &Path) {
    assert!(Command::new("mount").args(arguments).arg(at).status().unwrap().success(), "mount {arguments:?}");
}

#[test]
#[ignore = "run by a_read_only_file_system with mounts of its own"]
fn a_read_only_file_system_mounted() {
    let repo = Repo::new();
    let a = name("a");
    let id = put(&open(repo.path()), &a, None, blob("before"));
    mount(&["--bind", repo.path().to_str().unwrap()], repo.path());
    mount(&["-o", "remount,bind,ro"], repo.path());
    refuses_writes(repo.path(), &a, id);
    mount(&["-o", "remount,bind,rw"], repo.path());
    put(&open(repo.path()), &a, Some(id), blob("after"));
    repo.assert_sound();
    assert!(Command::new("umount").arg(repo.path()).status().unwrap().success());
}

#[test]
fn a_full_disk() {
    match own_mounts() {
        Some(words) => again_in(words, "a_full_disk_mounted"),
        None => println!("skipped: this user may not have mounts of its own"),
    }
}

/// Every amount of space that is left, from none on: a transaction is made, or is refused as the
/// disk is full and has changed nothing.
#[test]
#[ignore = "run by a_full_disk with mounts of its own"]
fn a_full_disk_mounted() {
    let folder = tempfile::tempdir().unwrap();
    // Out of bytes, and out of inodes.
    for limit in ["size=2m", "size=8m,nr_inodes=1200"] {
        mount(&["-t", "tmpfs", "-o", limit, "none"], folder.path());
        fill_up(folder.path(), limit.contains("inodes"));
        assert!(Command::new("umount").arg(folder.path()).status().unwrap().success());
    }
}

fn fill_up(at: &Path, inodes: bool) {
    run_git(at, &["init", "-q", "--template="]);
    let store = open(at);
    let fillers = at.join("fillers");
    fs::create_dir(&fillers).unwrap();
    let fill = || {
        let mut count = 0;
        loop {
            let bytes: &[u8] = if inodes { &[] } else { &[1; 4096] };
            let filler = fillers.join(count.to_string());
            if let Err(error) = fs::write(&filler, bytes) {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                let _ = fs::remove_file(filler);
                return count;
            }
            count += 1;
        }
    };
    let [lock, packed, journal] = ["lock", "packed", "journal"].map(name);
    let (mut full, mut made) = (0, 0);
    let state = |store: &FilesStore| [&lock, &packed, &journal].map(|name| store.read(name).unwrap());
    for (free, kind) in (0..7).flat_map(|free| (0..5).map(move |kind| (free, kind))) {
        // A state from which every kind of edit can start: one ref packed, one loose.
        for (name, id) in [&lock, &packed, &journal].into_iter().zip(state(&store)) {
            if let Some(id) = id {
                remove(&store, name, id);
            }
        }
        let round = format!("{free} {kind}");
        let at_packed = put(&store, &packed, None, blob(&format!("packed {round}")));
        run_git(at, &["pack-refs", "--all"]);
        let at_lock = put(&store, &lock, None, blob(&format!("lock {round}")));
        let release = edit(&lock, Some(at_lock), None);
        let edits: Vec<RefEdit> = match kind {
            0 => vec![edit(&journal, None, Some(blob(&format!("{:9000}", round))))],
            1 => vec![edit(&lock, Some(at_lock), Some(blob(&format!("swapped {round}"))))],
            2 => vec![edit(&journal, None, Some(commit(None, &format!("ended {round}")))), release],
            3 => vec![edit(&packed, Some(at_packed), None)],
            _ => vec![release, edit(&packed, Some(at_packed), None)],
        };
        let filled = fill();
        for number in 0..free.min(filled) {
            fs::remove_file(fillers.join(number.to_string())).unwrap();
        }
        let before = state(&store);
        let outcome = store.transact(&edits);
        let after = state(&store);
        for entry in fs::read_dir(&fillers).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        match outcome {
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::StorageFull, "{error}");
                assert_eq!(before, after, "{free} free: {edits:?}");
                full += 1;
            }
            Ok(Transacted::Committed(_)) => made += 1,
            // All that can fail for want of space comes before the first change.
            Ok(other) => panic!("{other:?}, {free} free: {edits:?}"),
        }
        assert_eq!(store.leftovers(&[PREFIX]).unwrap(), [], "nothing is left behind");
        // With space again, everything works, and Git agrees.
        let id = put(&store, &lock, after[0], blob(&format!("works again {round}")));
        assert_eq!(run_git(at, &["rev-parse", lock.as_str()]), id.to_string());
    }
    println!("{full} refused, {made} made");
    assert!(full >= 5 && made >= 5, "the control: {full} refused, {made} made");
    gitlock_tests::git::assert_sound(at);
}

// ---------------------------------------------------------------- what stands in the way

#[test]
fn refs_above_and_below_block_a_name() {
    for packed in [false, true] {
        let repo = Repo::new();
        let (store, blocked) = (open(repo.path()), name("a"));
        repo.git(&["update-ref", &format!("{PREFIX}/a/nested/ref"), "HEAD"]);
        repo.git(&["update-ref", &format!("{PREFIX}/b"), "HEAD"]);
        if packed {
            repo.git(&["pack-refs", "--all"]);
        }
        assert_eq!(store.read(&blocked).unwrap(), None);
        for name in [&blocked, &name("a/nested"), &name("b/c"), &name("b/c/d")] {
            let error = store.transact(&[edit(name, None, Some(blob("x")))]).unwrap_err();
            assert_eq!(error.code(), ErrorCode::NameBlocked, "{name}, packed: {packed}: {error}");
        }
        let listed: Vec<String> = store.list(PREFIX).unwrap().iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(listed, [format!("{PREFIX}/a/nested/ref"), format!("{PREFIX}/b")]);
        assert_eq!(store.list("refs/gitvan/locks/b").unwrap(), []);
        // Once that ref is gone, nothing is in the way, empty folders included.
        repo.git(&["update-ref", "-d", &format!("{PREFIX}/a/nested/ref")]);
        fs::create_dir_all(repo.git_dir().join(PREFIX).join("a/nested/deeper")).unwrap();
        put(&store, &blocked, None, blob("x"));
        repo.assert_sound();
    }
}

#[test]
fn empty_folders_are_no_obstacle_to_a_packed_ref() {
    let repo = Repo::new();
    let (store, a) = (open(repo.path()), name("a"));
    let mut current = put(&store, &a, None, blob("0"));
    let in_the_way = repo.git_dir().join(PREFIX).join("a/left/behind");
    for round in 1..4 {
        repo.git(&["pack-refs", "--all"]);
        fs::create_dir_all(&in_the_way).unwrap();
        assert_eq!(store.read(&a).unwrap(), Some(current));
        current = put(&store, &a, Some(current), blob(&round.to_string()));
        assert_eq!(repo.git(&["rev-parse", a.as_str()]), current.to_string());
    }
    repo.git(&["pack-refs", "--all"]);
    fs::create_dir_all(&in_the_way).unwrap();
    remove(&store, &a, current);
    assert_eq!(repo.git(&["for-each-ref", PREFIX]), "");
    put(&store, &a, None, blob("again"));
    repo.assert_sound();
}

#[test]
fn anything_else_in_the_way_is_left_alone() {
    let repo = Repo::new();
    let (store, a) = (open(repo.path()), name("a"));
    let folder = repo.git_dir().join(PREFIX).join("a");
    fs::create_dir_all(&folder).unwrap();
    // Git is about to make a nested ref; or somebody left a file there.
    for file in ["nested.lock", "README"] {
        fs::write(folder.join(file), "precious").unwrap();
        let error = store.transact(&[edit(&a, None, Some(blob("x")))]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NameBlocked, "{file}: {error}");
        assert_eq!(fs::read(folder.join(file)).unwrap(), b"precious");
        fs::remove_file(folder.join(file)).unwrap();
    }
    put(&store, &a, None, blob("x"));
}

#[test]
fn symbolic_refs_are_refused_and_left_alone() {
    for (link, target) in [(false, "refs/heads/main"), (false, "refs/heads/missing"), (true, "refs/heads/main")] {
        let repo = Repo::with(&["--initial-branch=main"]);
        repo.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        let (store, a) = (open(repo.path()), name("a"));
        let prefer = if link { "core.preferSymlinkRefs=true" } else { "core.preferSymlinkRefs=false" };
        repo.git(&["-c", prefer, "symbolic-ref", a.as_str(), target]);
        let path = repo.git_dir().join(a.as_str());
        assert_eq!(fs::symlink_metadata(&path).unwrap().is_symlink(), link, "the control");
        let head = repo.git(&["rev-parse", "HEAD"]);
        assert_eq!(refused(&store, &a), ErrorCode::NameBlocked);
        assert!(store.read(&a).unwrap_err().to_string().contains(target));
        put(&store, &name("b"), None, blob("b"));
        assert_eq!(store.list(PREFIX).unwrap().len(), 1, "the others are listed");
        assert_eq!(repo.git(&["symbolic-ref", a.as_str()]), target);
        assert_eq!(repo.git(&["rev-parse", "HEAD"]), head);
        // As the message says.
        repo.git(&["symbolic-ref", "-d", a.as_str()]);
        put(&store, &a, None, blob("a"));
    }
}

// ---------------------------------------------------------------- torn refs

fn long_ago(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)).unwrap();
}

#[test]
fn a_torn_ref_of_this_boot_is_told_of_and_left_alone() {
    let repo = Repo::new();
    let (store, a) = (open(repo.path()), name("a"));
    for content in ["", "0123", "\0\0\0\0\0\0\0\0", "not an id at all\n"] {
        let path = repo.git_dir().join(a.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        assert_eq!(refused(&store, &a), ErrorCode::RecordCorrupt, "{content:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(store.list(PREFIX).unwrap(), []);
        let found = store.leftovers(&[PREFIX]).unwrap();
        assert_eq!(found, [Leftover::TornRef { name: a.to_string() }]);
        assert!(store.clear(&found[0]).unwrap());
        assert_eq!(store.leftovers(&[PREFIX]).unwrap(), []);
        assert_eq!(store.read(&a).unwrap(), None);
    }
}

#[test]
fn a_torn_ref_of_an_earlier_boot_is_healed() {
    let repo = Repo::new();
    let (store, a) = (open(repo.path()), name("a"));
    let path = repo.git_dir().join(a.as_str());
    let first = put(&store, &a, None, blob("first"));
    fs::write(&path, "").unwrap();
    long_ago(&path);
    assert_eq!(store.read(&a).unwrap(), None);
    assert!(!path.exists());
    // What it was before, if that was packed, shows again.
    assert_eq!(put(&store, &a, None, blob("first")), first);
    repo.git(&["pack-refs", "--all"]);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    long_ago(&path);
    assert_eq!(store.read(&a).unwrap(), Some(first));
    remove(&store, &a, first);
    repo.assert_sound();
}

#[test]
fn an_id_of_the_other_hash_is_refused() {
    let long = "ab".repeat(32);
    let repo = Repo::new();
    let (store, a) = (open(repo.path()), name("a"));
    let path = repo.git_dir().join(a.as_str());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("{long}\n")).unwrap();
    assert_eq!(refused(&store, &a), ErrorCode::RecordCorrupt);
    // However old it is.
    long_ago(&path);
    assert_eq!(refused(&store, &a), ErrorCode::RecordCorrupt);
    fs::remove_file(&path).unwrap();
    fs::write(repo.git_dir().join("packed-refs"), format!("{long} {a}\n")).unwrap();
    assert_eq!(refused(&store, &a), ErrorCode::RecordCorrupt);
    assert_eq!(store.list(PREFIX).unwrap(), []);
}
