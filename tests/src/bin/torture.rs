//! Many processes after one lock, with an oracle outside the code under test. See `gitlock_tests::torture`.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    gitlock_tests::torture::main(&std::env::args().skip(1).collect::<Vec<_>>())
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("the torture harness needs Linux: it reaps orphans, and kills by process descriptors");
    std::process::ExitCode::from(2)
}
