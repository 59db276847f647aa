//! The program `servers`: what it starts works with Git itself, and is gone afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gitlock_tests::{servers::Kind, skipped};
use rustix::process::{Pid, Signal, kill_process};

fn start(command: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_servers")).args(command).stdout(Stdio::piped()).spawn().unwrap()
}

/// Every process that has this folder in its command line or works in it.
fn who_uses(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let uses = |process: PathBuf| {
        let words = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).replace('\0', " ");
        let there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        (there || words.contains(folder)).then_some(words)
    };
    entries.filter_map(uses).collect()
}

/// The folder of everything, by the line that names the client's repository in it.
fn folder(told: &str) -> PathBuf {
    let client = told.split_whitespace().find(|word| word.ends_with("/client")).unwrap_or_else(|| panic!("{told}"));
    Path::new(client).parent().unwrap().to_owned()
}

#[test]
fn git_itself_locks_at_each_and_a_command_ends_them() {
    let script = r#"
        cd "$GITLOCK_SERVERS_CLIENT" && blob=$(echo held | git hash-object -w --stdin) || exit 1
        for remote in $GITLOCK_SERVERS_REMOTES; do
            git push -q $remote $blob:refs/gitvan/locks/$remote || exit 2
            git ls-remote $remote refs/gitvan/locks/$remote | grep -q $blob || exit 3
            echo "works: $remote"
        done
        exit 7
    "#;
    let mut child = start(&["sh", "-c", script]);
    let mut told = String::new();
    child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7), "the command's own code: {told}");
    for kind in Kind::ALL.map(Kind::name) {
        match told.lines().find_map(|line| line.strip_prefix(&format!("skipped: {kind}: "))) {
            Some(why) => skipped(kind, why),
            None => assert!(told.contains(&format!("works: {kind}\n")), "{told}"),
        }
    }
    assert!(!folder(&told).exists(), "its files are gone");
    assert_eq!(who_uses(&folder(&told)), Vec::<String>::new(), "and so are its processes");
}

#[test]
fn a_signal_ends_them() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = start(&[]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("Ctrl-C")).collect();
        let folder = folder(&told.join("\n"));
        assert!(!who_uses(&folder).is_empty(), "the control: they run");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(!folder.exists(), "its files are gone");
        assert_eq!(who_uses(&folder), Vec::<String>::new(), "and so are its processes");
    }
}
