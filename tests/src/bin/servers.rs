//! `cargo xtask servers` builds and starts it: `servers [COMMAND…]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let command: Vec<String> = std::env::args().skip(1).collect();
    match gitlock_tests::servers::program(&command) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("servers: {why}");
            ExitCode::FAILURE
        }
    }
}
