//! Programs whose wall clock is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// libfaketime, where Debian puts it.
pub fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime"));
    folders.map(|folder| folder.join("libfaketime.so.1")).find(|path| path.is_file())
}

/// The variables that set a program's wall clock `by` so much, as in `+1h`, and leave its other clocks alone. Not by the
/// command faketime: it makes a semaphore by the name of its process id, and fails on one that was left behind.
pub fn environment(library: &Path, by: &str) -> [(&'static str, String); 3] {
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", by.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}
