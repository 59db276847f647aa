//! One behaviour suite, on every store and in every kind of repository.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use gitlock::{
    RefName, Result,
    store::{
        NewValue, Object, Oid, RefEdit, RefStore, Swept, Transacted, Watch,
        files::{FilesOptions, FilesStore},
        memory::MemoryStore,
    },
};
use gitlock_tests::{
    behaviour::{self, Subject},
    git::{Repo, again_in, assert_sound, run_git, try_git},
};

#[test]
fn memory() {
    let store = MemoryStore::new();
    behaviour::run(&Subject { store: &store, prune: &|id| store.prune(id), rounds: 400, keeps_objects: true });
}

/// Takes an object away, loose or packed.
fn prune(common_dir: &Path, id: &Oid) {
    let hex = id.to_string();
    let path = common_dir.join("objects").join(&hex[..2]).join(&hex[2..]);
    fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Runs the suite on a store of the repository that `at` is in, then asks Git.
fn files_suite(at: &Path, options: &FilesOptions) {
    let store = FilesStore::open(at, options).unwrap();
    behaviour::run(&Subject {
        store: &store,
        prune: &|id| prune(store.common_dir(), id),
        rounds: 200,
        keeps_objects: true,
    });
    agrees_with_git(at, &store);
}

fn agrees_with_git(at: &Path, store: &FilesStore) {
    let mut ours = String::new();
    for (name, id) in store.list("refs/gitvan").unwrap() {
        writeln!(ours, "{id} {name}").unwrap();
    }
    assert!(ours.lines().count() > 10, "the suite leaves refs behind, of every kind");
    let git = run_git(at, &["for-each-ref", "--format=%(objectname) %(refname)", "refs/gitvan"]);
    assert_eq!(ours.trim(), git);
    for line in git.lines() {
        let (id, name) = line.split_once(' ').unwrap();
        assert_eq!(store.read(&RefName::foreign(name)).unwrap(), Oid::from_hex(id.as_bytes()));
    }
    assert_sound(at);
    assert_eq!(store.leftovers(&["refs/gitvan"]).unwrap(), []);
    let common = store.common_dir();
    assert!(!common.join("packed-refs.lock").exists() && !common.join("packed-refs.new").exists());
}

#[test]
fn normal_repository() {
    files_suite(Repo::new().path(), &FilesOptions::default());
}

#[test]
fn empty_repository() {
    files_suite(Repo::with(&[]).path(), &FilesOptions::default());
}

#[test]
fn bare_repository() {
    files_suite(Repo::with(&["--bare"]).path(), &FilesOptions::default());
}

#[test]
fn reftable_repository() {
    files_suite(Repo::with(&["--ref-format=reftable"]).path(), &FilesOptions::default());
    let bare = Repo::with(&["--bare", "--ref-format=reftable", "--object-format=sha256"]);
    files_suite(bare.path(), &FilesOptions::default());
    assert!(!bare.path().join("refs/gitvan").exists(), "Git would never see it");
    let durable = FilesOptions { durable: true, ..FilesOptions::default() };
    files_suite(Repo::with(&["--ref-format=reftable"]).path(), &durable);
}

#[test]
fn sha256_repository() {
    let repo = Repo::with(&["--object-format=sha256"]);
    files_suite(repo.path(), &FilesOptions::default());
    let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
    assert!(store.list("refs").unwrap().iter().all(|(_, id)| id.as_bytes().len() == 32));
}

#[test]
fn linked_worktree() {
    let repo = Repo::new();
    let beside = tempfile::tempdir().unwrap();
    let tree = beside.path().join("tree");
    repo.git(&["worktree", "add", "-q", "--detach", tree.to_str().unwrap()]);
    files_suite(&tree, &FilesOptions::default());
    // Seen from the main worktree too: locks belong to the repository.
    agrees_with_git(repo.path(), &FilesStore::open(repo.path(), &FilesOptions::default()).unwrap());
    let main = repo.git_dir().canonicalize().unwrap();
    assert_eq!(FilesStore::open(&tree, &FilesOptions::default()).unwrap().common_dir(), main);
    assert!(!main.join("worktrees/tree/refs/gitvan").exists());
}

#[test]
fn submodule() {
    let (inner, outer) = (Repo::new(), Repo::new());
    let url = inner.path().to_str().unwrap();
    outer.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "sub"]);
    let at = outer.path().join("sub");
    files_suite(&at, &FilesOptions::default());
    assert_eq!(outer.git(&["for-each-ref", "refs/gitvan"]), "", "the locks are the submodule's");
    assert!(outer.git_dir().join("modules/sub/refs/gitvan").is_dir());
}

#[test]
fn durable() {
    files_suite(Repo::new().path(), &FilesOptions { durable: true, ..FilesOptions::default() });
    let repo = Repo::new();
    repo.git(&["config", "gitlock.durable", "true"]);
    files_suite(repo.path(), &FilesOptions::default());
}

#[test]
fn without_tmpfs() {
    // The file system of the temporary folder, which is another than the other tests' where there is one.
    let folder = tempfile::tempdir().unwrap();
    run_git(folder.path(), &["init", "-q"]);
    files_suite(folder.path(), &FilesOptions::default());
}

/// Packs every ref before every operation.
#[derive(Debug)]
struct AllPacked {
    store: FilesStore,
    at: PathBuf,
}

impl AllPacked {
    fn packed(&self) -> &FilesStore {
        // Two of them at once are normal in the checks with threads; Git then waits a second.
        let output = try_git(&self.at, &["-c", "core.packedRefsTimeout=20000", "pack-refs", "--all"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        &self.store
    }
}

impl RefStore for AllPacked {
    fn read(&self, name: &RefName) -> Result<Option<Oid>> {
        self.packed().read(name)
    }

    fn object(&self, id: &Oid) -> Result<Object> {
        self.store.object(id)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(RefName, Oid)>> {
        self.packed().list(prefix)
    }

    fn transact(&self, edits: &[RefEdit]) -> Result<Transacted> {
        self.packed().transact(edits)
    }

    fn restore(&self, value: &NewValue) -> Result<bool> {
        self.store.restore(value)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>> {
        self.packed().watch(prefix)
    }

    fn superseded(&self, objects: &[Oid]) {
        self.store.superseded(objects);
    }

    fn sweep(&self, grace: Option<Duration>) -> Result<Swept> {
        self.packed().sweep(grace)
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

#[test]
fn everything_packed() {
    let repo = Repo::new();
    let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
    let packed = AllPacked { store, at: repo.path().to_owned() };
    // A ref whose object is gone can't be packed, and Git says so; that check is made elsewhere.
    let common = packed.store.common_dir().to_owned();
    for (name, check) in behaviour::ALL.iter().filter(|(name, _)| *name != "missing_objects") {
        println!("{name}, packed");
        check(&Subject { store: &packed, prune: &|id| prune(&common, id), rounds: 40, keeps_objects: true });
    }
    agrees_with_git(repo.path(), packed.packed());
    assert!(!common.join("refs/gitvan/locks/create").exists(), "the control: it was packed");
    // And a second store, which never saw the loose refs.
    agrees_with_git(repo.path(), &FilesStore::open(repo.path(), &FilesOptions::default()).unwrap());
}

const UMASK: &str = "umask $0 && exec \"$@\"";

#[test]
fn shared_repository() {
    for umask in ["022", "077", "002"] {
        again_in(&["sh", "-c", UMASK, umask], "shared_repository_under_another_umask");
    }
}

/// Everything that gitlock makes has the permissions that Git gives what it makes itself.
#[test]
#[ignore = "run by shared_repository under several umasks"]
fn shared_repository_under_another_umask() {
    for shared in ["umask", "group", "all", "0640", "0666", "0600", "true", "1"] {
        let repo = Repo::with(&[&format!("--shared={shared}")]);
        // Git's own, of each kind: a ref, its folder, an object, the object's folder.
        repo.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        repo.git(&["update-ref", "refs/by-git/folder/ref", "HEAD"]);
        let git_dir = repo.git_dir();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        let head = repo.git(&["rev-parse", "HEAD"]);
        let object = git_dir.join("objects").join(&head[..2]).join(&head[2..]);
        let [of_ref, of_folder] =
            ["refs/by-git/folder/ref", "refs/by-git/folder"].map(|path| mode(&git_dir.join(path)));
        let [of_object, of_fan_out] = [&object, object.parent().unwrap()].map(mode);
        let before = modes(&git_dir);
        // The watch may make the folder, so it comes first.
        let store = FilesStore::open(repo.path(), &FilesOptions::default()).unwrap();
        let _watch = store.watch("refs/gitvan/locks").unwrap();
        files_suite(repo.path(), &FilesOptions::default());
        // Packed and deleted: packed-refs is written anew.
        repo.git(&["pack-refs", "--all"]);
        let of_packed = mode(&git_dir.join("packed-refs"));
        let a = behaviour::name("create");
        let id = store.read(&a).unwrap().unwrap();
        behaviour::remove(&store, &a, id);
        store.unchanged_for(&a, &id);
        behaviour::put(&store, &a, None, behaviour::blob("loose again"));
        let mut looked = 0;
        for (path, mode) in modes(&git_dir).into_iter().filter(|entry| !before.contains(entry)) {
            let in_objects = path.starts_with(git_dir.join("objects"));
            let wanted = match path.is_dir() {
                true if in_objects => of_fan_out,
                true => of_folder,
                false if in_objects => of_object,
                false if path.ends_with("packed-refs") => of_packed,
                false => of_ref,
            };
            looked += 1;
            assert_eq!(mode & 0o7777, wanted, "shared = {shared}: {}: {mode:o} and not {wanted:o}", path.display());
        }
        assert!(looked > 50, "the control: {looked} files are new");
    }
}

fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.extend(modes(&path));
        }
        found.push((path, meta.permissions().mode()));
    }
    found
}
