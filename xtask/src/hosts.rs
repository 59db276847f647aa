//! `cargo xtask hosts`: clients in every language on several hosts around one Git server, under fire.

use std::path::Path;

use crate::{
    commands::{release, run, ship},
    torture::workers,
};

pub(crate) fn run_with(root: &Path, arguments: &[String]) -> Result<(), String> {
    ship(root)?;
    run(root, "cargo", &["build", "--quiet", "--release", "-p", "gitlock-tests", "--bin", "hosts"])?;
    let mut all = vec!["--git-lock".to_owned(), release(root, "git-lock")];
    for worker in workers(root, "hosts")? {
        all.extend(["--worker".to_owned(), worker]);
    }
    all.extend_from_slice(arguments);
    run(root, &release(root, "hosts"), &all.iter().map(String::as_str).collect::<Vec<_>>())
}
