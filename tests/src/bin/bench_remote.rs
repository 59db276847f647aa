//! Speed at real servers, beside `git push`: `cargo xtask bench --remote`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    gitlock_tests::remote_bench::main(&arguments)
}
