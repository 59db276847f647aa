//! `codegen [--check]`: the files that are generated from the core's tables.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let check = std::env::args().any(|word| word == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match gitlock_tests::codegen::run(&root, check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("codegen: {why}");
            ExitCode::FAILURE
        }
    }
}
