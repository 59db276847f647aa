//! What the tests share: repositories made by real Git, and Git as the judge.

pub mod behaviour;
pub mod breakers;
pub mod clocks;
pub mod conformance;
pub mod faketime;
pub mod git;
pub mod gix_locks;
#[cfg(target_os = "linux")]
pub mod hosts;
#[cfg(target_os = "linux")]
pub mod killpoints;
pub mod model;
pub mod packer;
pub mod reference;
pub mod remote_bench;
pub mod servers;
#[cfg(target_os = "linux")]
pub mod torture;

/// Tells that a test isn't run, and why: past what test programs keep of the words of tests that pass.
pub fn skipped(what: &str, why: &str) {
    use std::io::Write;
    // Where nobody can hear it, nobody is told.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
