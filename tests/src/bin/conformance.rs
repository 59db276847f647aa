//! Plays the conformance scenarios; `cargo xtask conformance` builds what it needs and starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match gitlock_tests::conformance::main(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("conformance: {why}");
            ExitCode::FAILURE
        }
    }
}
