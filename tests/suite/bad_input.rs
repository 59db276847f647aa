//! Bad names, bad options, and hostile records: a typed error that says what to do, and never a
//! lock that is taken for free.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{fs, time::Duration};

use gitlock::{ErrorCode, LockHandle, LockManager, Options, Severity};
use gitlock_tests::git::Repo;

fn manager(repo: &Repo) -> LockManager {
    LockManager::open(repo.path()).unwrap()
}

fn code<T>(result: gitlock::Result<T>) -> ErrorCode {
    let Err(error) = result else { panic!("this should have failed") };
    assert!(error.to_string().len() > 20, "it says what to do: {error}");
    error.code()
}

#[test]
fn odd_names_work_and_impossible_ones_are_refused() {
    let repo = Repo::new();
    let manager = manager(&repo);
    for name in ["-x", "a.lock", "$(x)", "two words", "é", "@", "HEAD", "..a", "a..b", "~^:?*[\\", &"x".repeat(200)] {
        manager.lock(name).acquire().unwrap().release().unwrap();
        assert_eq!(manager.log(name, 9).unwrap().len(), 1, "{name}");
    }
    for name in ["", "..", ".", "a\0b", "a\nb", &"x".repeat(201), "a//b", "deploy/"] {
        assert_eq!(code(manager.lock(name).acquire()), ErrorCode::InvalidName, "{name:?}");
    }
    repo.assert_sound();
}

#[test]
fn options_out_of_range_are_refused_and_long_leases_work() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let bad = ErrorCode::InvalidArgument;
    assert_eq!(code(manager.lock("x").ttl(Duration::ZERO).acquire()), bad);
    assert_eq!(code(manager.lock("x").ttl(Duration::MAX).acquire()), bad);
    assert_eq!(code(manager.lock("x").priority(i32::MAX).acquire()), bad);
    assert_eq!(code(manager.lock("x").priority(i32::MIN).acquire()), bad);
    assert_eq!(code(manager.lock("x").fingerprint("").acquire()), bad);
    assert_eq!(code(manager.lock("x").fingerprint("sha256:00").acquire()), bad);
    assert_eq!(code(manager.lock("x").owner("").acquire()), bad);
    assert_eq!(code(manager.lock("x").reason("x".repeat(513)).acquire()), bad);
    let years = Duration::from_secs(10 * 365 * 86_400);
    let guard = manager.lock("x").ttl(years).wait(years).acquire().unwrap();
    guard.extend(Some(years)).unwrap();
    guard.release().unwrap();
    for prefix in ["refs/heads/locks", "refs/tags", "HEAD", "refs/a/../b", ""] {
        let mut options = Options::default();
        options.lock_prefix = Some(prefix.to_owned());
        assert_eq!(code(LockManager::open_with(repo.path(), options)), bad, "{prefix}");
    }
    repo.git(&["config", "gitlock.keep", "-1"]);
    assert_eq!(code(LockManager::open(repo.path())), bad);
}

#[test]
fn there_has_to_be_a_repository() {
    let folder = tempfile::tempdir_in(gitlock_tests::git::fast_folder()).unwrap();
    assert_eq!(code(LockManager::open(folder.path())), ErrorCode::NotARepository);
    assert_eq!(code(LockManager::open(folder.path().join("nowhere"))), ErrorCode::NotARepository);
}

#[test]
fn a_repository_that_is_removed_stays_removed() {
    let repo = Repo::new();
    let manager = manager(&repo);
    manager.lock("x").acquire_now().unwrap().release().unwrap();
    let guard = manager.lock("held").acquire_now().unwrap();
    fs::remove_dir_all(repo.path()).unwrap();
    let error = manager.lock("x").acquire_now().unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotARepository, "{error}");
    assert!(error.to_string().contains(&*repo.path().to_string_lossy()), "it names the place: {error}");
    assert!(guard.release().is_err(), "nothing to release");
    assert!(manager.lock("held").wait(Duration::from_millis(50)).acquire().is_err());
    drop(manager);
    assert!(!repo.path().exists(), "nothing is made again where it was");
}

/// Puts these bytes in the place of a lock's record, as anybody may.
fn put(repo: &Repo, bytes: &[u8]) {
    let file = repo.path().join("record");
    fs::write(&file, bytes).unwrap();
    let id = repo.git(&["hash-object", "-w", "record"]);
    repo.git(&["update-ref", "refs/gitvan/locks/x", &id]);
}

fn assert_held_by_nobody_knows(repo: &Repo, what: &str, expected: ErrorCode) {
    let manager = manager(repo);
    assert_eq!(code(manager.lock("x").acquire_now()), expected, "{what}");
    // What is missing may be written again, so whoever has the time waits.
    let waited = if expected == ErrorCode::RecordMissing { ErrorCode::Timeout } else { expected };
    assert_eq!(code(manager.lock("x").wait(Duration::from_millis(50)).acquire()), waited, "{what}");
    let handle = LockHandle::by_fingerprint("x", "anything").unwrap();
    assert_eq!(code(manager.release(&handle)), expected, "{what}");
    assert_eq!(code(manager.extend(&handle, None)), expected, "{what}");
    let status = manager.status("x").unwrap();
    assert!(status.is_held() && status.problem.is_some(), "{what}");
    assert_eq!(manager.list().unwrap().locks.len(), 1, "{what}");
    assert!(manager.clean(None).unwrap().locks.is_empty(), "{what}: nothing was cleaned away");
    let findings = manager.doctor(true).unwrap();
    assert!(
        findings.iter().any(|finding| finding.severity == Severity::Problem && !finding.fixed),
        "{what}: {findings:?}"
    );
    // By its file, because `git for-each-ref` dies of a ref whose object is missing.
    assert!(repo.git_dir().join("refs/gitvan/locks/x").is_file(), "{what}: the ref is still there");
}

#[test]
fn hostile_records_count_as_held_until_they_are_broken() {
    let repo = Repo::new();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let huge = vec![b' '; 50 << 20];
    let valid = r#""acquiredAt":1,"timeout":1,"fingerprint":"f","exclusive":true,"pid":1,"hostname":"h""#;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("50 MB", huge),
        ("10,000 deep", deep.into_bytes()),
        ("empty", Vec::new()),
        ("no object", b"[]".to_vec()),
        ("no JSON", b"held by bob".to_vec()),
        ("not UTF-8", b"{\"id\":\"\xff\"}".to_vec()),
        ("wrong types", br#"{"id":1,"acquiredAt":"now","timeout":[]}"#.to_vec()),
        ("no id", format!("{{{valid}}}").into_bytes()),
        ("duplicate keys", format!(r#"{{"id":"a","id":"b",{valid}}}"#).into_bytes()),
        ("negative time", br#"{"id":"a","acquiredAt":-1,"timeout":1}"#.to_vec()),
        ("version 0", format!(r#"{{"id":"a","v":0,{valid}}}"#).into_bytes()),
        ("a mode of tomorrow", format!(r#"{{"id":"a","v":1,"mode":"quantum",{valid}}}"#).into_bytes()),
    ];
    for (what, bytes) in cases {
        put(&repo, &bytes);
        assert_held_by_nobody_knows(&repo, what, ErrorCode::RecordCorrupt);
        assert!(manager(&repo).break_lock("x", None, Some(what)).unwrap().is_empty());
        let guard = manager(&repo).lock("x").acquire_now().unwrap();
        guard.release().unwrap();
    }
    repo.assert_sound();
}

#[test]
fn a_newer_record_is_left_alone_even_by_force() {
    let repo = Repo::new();
    put(
        &repo,
        br#"{"id":"a","acquiredAt":1,"timeout":1,"fingerprint":"f","exclusive":true,"pid":1,"hostname":"h","v":2}"#,
    );
    assert_held_by_nobody_knows(&repo, "version 2", ErrorCode::RecordTooNew);
    assert_eq!(code(manager(&repo).break_lock("x", None, None)), ErrorCode::RecordTooNew);
}

#[test]
fn an_object_that_is_no_blob_or_is_not_there_counts_as_held() {
    let repo = Repo::new();
    for object in ["HEAD", "HEAD^{tree}"] {
        let id = repo.git(&["rev-parse", object]);
        repo.git(&["update-ref", "refs/gitvan/locks/x", &id]);
        assert_held_by_nobody_knows(&repo, object, ErrorCode::RecordCorrupt);
        manager(&repo).break_lock("x", None, None).unwrap();
    }
    fs::create_dir_all(repo.git_dir().join("refs/gitvan/locks")).unwrap();
    fs::write(repo.git_dir().join("refs/gitvan/locks/x"), "1234567890123456789012345678901234567890\n").unwrap();
    assert_held_by_nobody_knows(&repo, "missing", ErrorCode::RecordMissing);
    manager(&repo).break_lock("x", None, None).unwrap();
    manager(&repo).lock("x").acquire_now().unwrap().release().unwrap();
    repo.assert_sound();
}

#[test]
fn a_record_of_another_tool_is_honoured_until_its_time_is_over() {
    let repo = Repo::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let record = |id: &str, acquired: u128, timeout: u128| {
        format!(
            r#"{{"id":"{id}","acquiredAt":{acquired},"timeout":{timeout},"fingerprint":"theirs","exclusive":true,"pid":1,"hostname":"h"}}"#
        )
    };
    put(&repo, record("first", now, 600_000).as_bytes());
    let manager = manager(&repo);
    assert_eq!(code(manager.lock("x").acquire_now()), ErrorCode::Held);
    assert_eq!(code(manager.release(&LockHandle::by_fingerprint("x", "mine").unwrap())), ErrorCode::NotOwner);
    manager.release(&LockHandle::by_fingerprint("x", "theirs").unwrap()).unwrap();
    put(&repo, record("second", now - 60_000, 30_000).as_bytes());
    let guard = manager.lock("x").acquire_now().unwrap();
    assert_eq!(manager.log("x", 1).unwrap()[0].outcome, "expired");
    guard.release().unwrap();
}

#[test]
fn somebody_elses_lock_is_neither_released_nor_extended() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let guard = manager.lock("x").acquire().unwrap();
    let status = manager.status("x").unwrap();
    // Reading the record must not be enough.
    let stored = LockHandle::by_fingerprint("x", &status.holders[0].holder.claim.fingerprint).unwrap();
    assert_eq!(code(manager.release(&stored)), ErrorCode::NotOwner);
    assert_eq!(code(manager.extend(&stored, None)), ErrorCode::NotOwner);
    guard.release().unwrap();
    assert_eq!(code(manager.release(&stored)), ErrorCode::LockLost);
}

#[test]
fn tokens_grow_when_refs_are_deleted_by_hand() {
    let repo = Repo::new();
    let manager = manager(&repo);
    let mut last = 0;
    for round in 0..8 {
        let guard = manager.lock("x").acquire().unwrap();
        assert!(guard.token() > last, "round {round}: {} after {last}", guard.token());
        last = guard.token();
        if round % 2 == 0 {
            guard.release().unwrap();
        } else {
            repo.git(&["update-ref", "-d", "refs/gitvan/locks/x"]);
            assert_eq!(code(guard.release()), ErrorCode::LockLost);
        }
        if round % 3 == 0 {
            repo.git(&["update-ref", "-d", "refs/gitvan/journal/x"]);
        }
    }
    repo.assert_sound();
}
