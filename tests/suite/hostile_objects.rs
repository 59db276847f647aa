//! Objects that are no records: too large, of another kind, damaged, or not there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use gitlock::store::{
    Object, Oid, RefStore, Transacted,
    files::{FilesOptions, FilesStore},
};
use gitlock_tests::{
    behaviour::{PREFIX, blob, edit, name, put, remove},
    git::{Repo, git},
};

fn open(at: &Path) -> FilesStore {
    FilesStore::open(at, &FilesOptions::default()).unwrap()
}

fn hash_object(repo: &Repo, arguments: &[&str], bytes: &[u8]) -> Oid {
    let mut child = git(repo.path())
        .args([&["hash-object", "-w", "--stdin"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Oid::from_hex(String::from_utf8_lossy(&output.stdout).trim().as_bytes()).unwrap()
}

fn unusable(store: &FilesStore, id: &Oid, why: &str) {
    match store.object(id).unwrap() {
        Object::Unusable(told) => assert!(told.contains(why), "{told}"),
        other => panic!("{id} is usable: {:.200}", format!("{other:?}")),
    }
}

#[test]
fn objects_that_are_no_records() {
    let repo = Repo::new();
    let store = open(repo.path());
    let large = hash_object(&repo, &[], &vec![b'{'; 50 << 20]);
    let tree = Oid::from_hex(repo.git(&["rev-parse", "HEAD^{tree}"]).as_bytes()).unwrap();
    repo.git(&["tag", "-a", "-m", "a tag", "v1", "HEAD"]);
    let tag = Oid::from_hex(repo.git(&["rev-parse", "v1"]).as_bytes()).unwrap();
    let odd = hash_object(&repo, &["--literally", "-t", "frobnicate"], b"x");
    let commit = hash_object(&repo, &["--literally", "-t", "commit"], b"this is no commit");
    for packed in [false, true] {
        unusable(&store, &large, "larger");
        unusable(&store, &tree, "tree");
        unusable(&store, &tag, "tag");
        unusable(&store, &commit, "commit");
        assert!(!matches!(store.object(&odd).unwrap(), Object::Blob(_) | Object::Commit(_)));
        if !packed {
            // In a pack they are read by another path. The odd ones can't be packed.
            for (at, id) in [large, tree, tag].iter().enumerate() {
                repo.git(&["update-ref", &format!("refs/keep/{at}"), &id.to_string()]);
            }
            repo.git(&["repack", "-a", "-d", "-q"]);
            let hex = large.to_string();
            assert!(!repo.git_dir().join("objects").join(&hex[..2]).join(&hex[2..]).exists(), "the control");
        }
    }
}

/// zlib with one block that isn't compressed.
fn zlib(bytes: &[u8]) -> Vec<u8> {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let length = u16::try_from(bytes.len()).unwrap();
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend((b << 16 | a).to_be_bytes());
    out
}

#[test]
fn damaged_objects_are_told_of() {
    let repo = Repo::new();
    let (store, a) = (open(repo.path()), name("a"));
    let mut current = None;
    for (number, (content, why)) in [
        (Vec::new(), "empty"),
        (b"not zlib at all".to_vec(), "no zlib"),
        (zlib(b""), "nothing inside"),
        (zlib(b"blob"), "no header"),
        (zlib(b"blob \0x"), "no length"),
        (zlib(b"blob 99999999999999999999999\0x"), "a length beyond all numbers"),
        (zlib(b"blob 4611686018427387904\0x"), "a length beyond all memory"),
        (zlib(b"blob 100\0short"), "shorter than it says"),
        (zlib(b"blob 1\0much longer than it says"), "longer than it says"),
        (zlib(b"blob -1\0x"), "a negative length"),
        (zlib(b"frobnicate 1\0x"), "an unknown kind"),
        (zlib(b"blob 1\0x")[..12].to_vec(), "cut off"),
        (zlib(b"commit 9\0tree junk"), "no commit"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = put(&store, &a, current, blob(&format!("overwritten {number}")));
        let hex = id.to_string();
        let path = repo.git_dir().join("objects").join(&hex[..2]).join(&hex[2..]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, &content).unwrap();
        // A store without a log of its own recent objects, as another machine's would be.
        let _ = fs::remove_dir_all(repo.git_dir().join("gitlock"));
        match open(repo.path()).object(&id).unwrap() {
            Object::Unusable(_) | Object::Missing => {}
            other => panic!("{why}: read as {other:?}"),
        }
        assert_eq!(store.read(&a).unwrap(), Some(id), "{why}: the ref counts as it is");
        current = Some(id);
    }
}

#[test]
fn a_ref_without_its_object_is_still_a_ref() {
    let repo = Repo::new();
    let (store, a) = (open(repo.path()), name("a"));
    let missing = "5".repeat(40);
    let path = repo.git_dir().join(a.as_str());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("{missing}\n")).unwrap();
    let id = Oid::from_hex(missing.as_bytes()).unwrap();
    assert_eq!(store.read(&a).unwrap(), Some(id));
    assert_eq!(store.object(&id).unwrap(), Object::Missing);
    assert_eq!(store.list(PREFIX).unwrap(), [(a.clone(), id)]);
    assert_eq!(store.transact(&[edit(&a, None, Some(blob("x")))]).unwrap(), Transacted::Conflict);
    let next = put(&store, &a, Some(id), blob("x"));
    remove(&store, &a, next);
    repo.assert_sound();
}
