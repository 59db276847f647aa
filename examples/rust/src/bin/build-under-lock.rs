//! A build under a lock: `build REPOSITORY COMMAND`.
//!
//! `cargo run -p gitlock-examples --bin build-under-lock -- . 'make release'`

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use gitlock::{ErrorCode, LockManager};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let repository = words.next().unwrap_or_else(|| ".".to_owned());
    let command = words.next().unwrap_or_else(|| "make".to_owned());
    match build(&repository, &command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // It says what happened, who holds the lock, and what to do.
            eprintln!("build: {error}");
            let lost = error.downcast_ref::<gitlock::Error>().is_some_and(|error| error.code() == ErrorCode::LockLost);
            ExitCode::from(if lost { 3 } else { 1 })
        }
    }
}

fn build(repository: &str, command: &str) -> Result<u8, Box<dyn std::error::Error>> {
    let manager = LockManager::open(repository)?;
    let guard = manager.lock("build-lock").wait(Duration::from_secs(60)).reason("an example in Rust").acquire()?;
    let status = Command::new("sh").args(["-c", command]).env("GIT_LOCK_TOKEN", guard.token().to_string()).status()?;
    // An error here says that the lock had been lost before: somebody else may have been building.
    guard.release()?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}
