//! Clients on several hosts around one Git server, under fire. See `gitlock_tests::hosts`.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    gitlock_tests::hosts::main(&std::env::args().skip(1).collect::<Vec<_>>())
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("skipped: hosts: they are network namespaces, which only Linux has");
    std::process::ExitCode::SUCCESS
}
