//! Acquire and release of a free lock, beside the same file operations as bare system calls (the
//! floor) and the `git` commands that a script would use: spawned straight from here, by a real
//! shell script, and from Node as GitVan's manager spawns them. Medians of interleaved rounds in one
//! run, on tmpfs and on disk.
//!
//! `cargo bench -p gitlock --bench acquire`, with `-- --pairs N` for N pairs in each round.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use gitlock::{LockManager, Options};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

const ROUNDS: usize = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let pairs = arguments.iter().position(|word| word == "--pairs").and_then(|at| arguments.get(at + 1)?.parse().ok());
    let pairs: usize = pairs.unwrap_or(1_000);
    println!("acquire + release of a free lock: medians of {ROUNDS} rounds of {pairs} pairs, journal on");
    println!(
        "{:8} {:>12} {:>12} {:>8} {:>19} {:>19} {:>19}",
        "", "gitlock", "floor", "ratio", "git commands", "in a shell script", "from Node"
    );
    for (what, folder) in [("tmpfs", PathBuf::from("/dev/shm")), ("disk", std::env::temp_dir())] {
        if !folder.is_dir() {
            println!("{what:8} not run: there is no {}", folder.display());
            continue;
        }
        let folder = tempfile::Builder::new().prefix("gitlock-bench-").tempdir_in(folder).unwrap();
        let row = compare(folder.path(), pairs);
        print!("{what:8} {:>9.1} µs {:>9.1} µs {:>7.2}x", row.gitlock, row.floor, row.gitlock / row.floor);
        for commands in [Some(row.git), Some(row.shell), row.node] {
            match commands {
                Some(micros) => print!(" {micros:>8.0} µs {:>6.0}x", micros / row.gitlock),
                None => print!(" {:>19}", "no Node here"),
            }
        }
        println!();
    }
}

struct Row {
    gitlock: f64,
    floor: f64,
    git: f64,
    shell: f64,
    node: Option<f64>,
}

fn compare(folder: &Path, pairs: usize) -> Row {
    let [ours, theirs, bare, shell, node] =
        ["ours", "theirs", "bare", "shell", "node"].map(|name| repository(folder, name));
    let (script, module) = (folder.join("pair.sh"), folder.join("pair.mjs"));
    fs::write(&script, SHELL_PAIR).unwrap();
    fs::write(&module, NODE_PAIRS).unwrap();
    let mut options = Options::default();
    options.owner = Some("bench".to_owned());
    let manager = LockManager::open_with(&ours, options).unwrap();
    manager.lock("build").acquire().unwrap().release().unwrap();
    let floor = Floor::new(&bare);
    let (mut gitlock_times, mut floor_times, mut git_times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut shell_times, mut node_times) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        gitlock_times.push(time(pairs, |_| manager.lock("build").acquire().unwrap().release().unwrap()));
        floor_times.push(time(pairs, |at| floor.pair(round * pairs + at)));
        git_times.push(time(3, |at| git_pair(&theirs, round * 3 + at)));
        shell_times.push(time(3, |at| shell_pair(&shell, &script, round * 3 + at)));
        node_times.extend(node_pairs(&node, &module));
    }
    Row {
        gitlock: median(gitlock_times),
        floor: median(floor_times),
        git: median(git_times),
        shell: median(shell_times),
        node: (!node_times.is_empty()).then(|| median(node_times)),
    }
}

fn repository(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let status = Command::new("git").args(["init", "-q"]).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

fn time(count: usize, mut run: impl FnMut(usize)) -> Duration {
    let start = Instant::now();
    (0..count).for_each(&mut run);
    start.elapsed() / u32::try_from(count).unwrap()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// What a shell script does: write the record, create the ref, write the journal's commit, move
/// the journal, delete the ref.
fn git_pair(repo: &Path, number: usize) {
    let git = |arguments: &[&str], input: &str| {
        use std::io::Write;
        let mut child = Command::new("git")
            .current_dir(repo)
            .args(["-c", "user.name=bench", "-c", "user.email=bench@example.com"])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let none = "0".repeat(40);
    let blob = git(&["hash-object", "-w", "--stdin"], &format!("{{\"id\":\"{number}\"}}"));
    git(&["update-ref", "refs/gitvan/locks/build", &blob, &none], "");
    let tree = git(&["mktree"], "");
    let parent = git(&["rev-parse", "--verify", "-q", "refs/gitvan/journal/build"], "");
    let mut arguments = vec!["commit-tree", &tree, "-m", "build: released"];
    if !parent.is_empty() {
        arguments.extend(["-p", &parent]);
    }
    let commit = git(&arguments, "");
    git(&["update-ref", "refs/gitvan/journal/build", &commit], "");
    git(&["update-ref", "-d", "refs/gitvan/locks/build", &blob], "");
}

/// The same as the script that it would be, run by a shell for each pair.
const SHELL_PAIR: &str = r#"set -e
export GIT_AUTHOR_NAME=bench GIT_AUTHOR_EMAIL=bench@example.com
export GIT_COMMITTER_NAME=bench GIT_COMMITTER_EMAIL=bench@example.com
lock=refs/gitvan/locks/build journal=refs/gitvan/journal/build none=0000000000000000000000000000000000000000
blob=$(printf '{"id":"%s"}' "$1" | git hash-object -w --stdin)
git update-ref $lock $blob $none
tree=$(git mktree </dev/null)
parent=$(git rev-parse --verify -q $journal) || parent=
commit=$(git commit-tree $tree ${parent:+-p $parent} -m 'build: released')
git update-ref $journal $commit ${parent:-$none}
git update-ref -d $lock $blob
"#;

fn shell_pair(repo: &Path, script: &Path, number: usize) {
    let status = Command::new("sh").current_dir(repo).arg(script).arg(number.to_string()).status().unwrap();
    assert!(status.success());
}

/// The same from Node, one command awaited after the other. Prints what a pair takes in nanoseconds, so that
/// Node's own start isn't in it.
const NODE_PAIRS: &str = r#"import { execFile } from 'node:child_process';
const git = (args, input = '') => new Promise((resolve) => {
  const child = execFile('git', ['-c', 'user.name=bench', '-c', 'user.email=bench@example.com', ...args],
    (_, stdout) => resolve(stdout.trim()));
  child.stdin.end(input);
});
const [lock, journal, none] = ['refs/gitvan/locks/build', 'refs/gitvan/journal/build', '0'.repeat(40)];
const pairs = 3;
const start = process.hrtime.bigint();
for (let at = 0; at < pairs; at++) {
  const blob = await git(['hash-object', '-w', '--stdin'], JSON.stringify({ id: `${start}-${at}` }));
  await git(['update-ref', lock, blob, none]);
  const tree = await git(['mktree']);
  const parent = await git(['rev-parse', '--verify', '-q', journal]);
  const commit = await git(['commit-tree', tree, '-m', 'build: released', ...(parent ? ['-p', parent] : [])]);
  await git(['update-ref', journal, commit]);
  await git(['update-ref', '-d', lock, blob]);
}
console.log(String((process.hrtime.bigint() - start) / BigInt(pairs)));
"#;

/// `None` where there is no Node.
fn node_pairs(repo: &Path, module: &Path) -> Option<Duration> {
    let output = Command::new("node").current_dir(repo).arg(module).output().ok()?;
    let nanos = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// The file operations of a pair without anything else: two objects written, the lock's ref
/// created, the journal's replaced, the lock's deleted, each under its `.lock`, with the reads
/// that the protocol needs. What is written is made up beforehand, so nothing is hashed,
/// deflated, encoded or decided, and nothing is read before the locks are taken.
struct Floor {
    git_dir: PathBuf,
    object: Vec<u8>,
}

impl Floor {
    fn new(repo: &Path) -> Floor {
        let git_dir = repo.join(".git");
        fs::create_dir_all(git_dir.join("refs/gitvan/locks")).unwrap();
        fs::create_dir_all(git_dir.join("refs/gitvan/journal")).unwrap();
        fs::write(git_dir.join("refs/gitvan/journal/build"), "0".repeat(41)).unwrap();
        Floor { git_dir, object: vec![7; 600] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.git_dir.join(name)
    }

    fn pair(&self, number: usize) {
        let (lock, journal) = (self.path("refs/gitvan/locks/build"), self.path("refs/gitvan/journal/build"));
        // Acquire.
        self.write_object(2 * number);
        let held = self.lock(&lock);
        self.read(&lock);
        self.is_packed();
        rustix::io::write(&held, &[b'1'; 41]).unwrap();
        rustix::fs::rename(self.path("refs/gitvan/locks/build.lock"), &lock).unwrap();
        drop(held);
        self.read(&journal);
        // Release.
        self.write_object(2 * number + 1);
        let (journal_lock, lock_lock) = (self.lock(&journal), self.lock(&lock));
        self.read(&journal);
        self.read(&lock);
        self.is_packed();
        rustix::io::write(&journal_lock, &[b'2'; 41]).unwrap();
        rustix::fs::rename(self.path("refs/gitvan/journal/build.lock"), &journal).unwrap();
        drop(journal_lock);
        rustix::fs::unlink(&lock).unwrap();
        let _ = rustix::fs::stat(self.path("packed-refs.lock"));
        self.is_packed();
        rustix::fs::unlink(self.path("refs/gitvan/locks/build.lock")).unwrap();
        drop(lock_lock);
    }

    fn lock(&self, target: &Path) -> rustix::fd::OwnedFd {
        let parent = target.parent().unwrap();
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(parent, flags, Mode::from_raw_mode(0o666)).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        rustix::fs::linkat(&file, "", CWD, target.with_extension("lock"), AtFlags::EMPTY_PATH).unwrap();
        file
    }

    fn read(&self, path: &Path) {
        if let Ok(file) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            let mut buffer = [0u8; 64];
            rustix::io::read(&file, &mut buffer).unwrap();
        }
    }

    fn is_packed(&self) {
        let _ = rustix::fs::stat(self.path("packed-refs"));
    }

    fn write_object(&self, number: usize) {
        let folder = self.path(&format!("objects/{:02x}", number % 256));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let open = || rustix::fs::open(&folder, flags, Mode::from_raw_mode(0o444));
        let file = open().unwrap_or_else(|_| {
            rustix::fs::mkdir(&folder, Mode::from_raw_mode(0o777)).unwrap();
            open().unwrap()
        });
        rustix::io::write(&file, &self.object).unwrap();
        rustix::fs::linkat(&file, "", CWD, folder.join(format!("{number:038x}")), AtFlags::EMPTY_PATH).unwrap();
    }
}
