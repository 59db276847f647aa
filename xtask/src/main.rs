//! gitlock's own commands. `cargo xtask help` lists them.

mod bench;
mod c;
mod check;
mod codegen;
mod commands;
mod conformance;
mod demo;
mod examples;
mod hosts;
mod install;
mod node;
mod python;
mod suites;
mod torture;

use std::{env, path::PathBuf, process::ExitCode};

const HELP: &str = "\
cargo xtask COMMAND

  demo                      several processes share a lock in a real repository; Git shows the trail
  test                      every test, and a slice of the long runs
  codegen [--check]         the files that are generated from the core's tables
  check                     the house rules, formatting and lints; every commit passes it
  c                         libgitlock as C and C++ programs use it
  conformance [FILTER]      the scenarios of tests/conformance, on every surface and mixed; `--surface NAME`,
                            `--jobs N`, `--remote KIND`, `--once`
  examples                  every example in examples/, run as a user would
  philosophers [--seats N,N] [--meals N]   dining philosophers, a process each, in every language (default 5,12,50)
  servers [-- COMMAND]      real Git servers on this machine, until Ctrl-C or for as long as the command runs
  suites                    the tests of the Rust code, several programs at the same time
  python                    the wheel, its tests, and its types
  node                      the package for Node, its tests, and its types
  install --prefix DIR      libgitlock where pkg-config finds it, and git-lock
  bench [--core | --surfaces | --node | --remote]   speed, beside bare system calls, git commands, and what other languages have
  torture [--acquisitions N] [...]   many processes after one lock, beside git gc and kill -9
  hosts [--seconds S] [--faults N] [--acquisitions N]   clients on several hosts around one Git server that fails,
                            as network namespaces; needs root (default: 180 s)
  scale [--latency MS] [--clients N,N]   what many clients of one hot lock ask of a server, simulated
  histories [N]             N random histories beside a plain lock table (default 100000)
  model [--full] [--faults] the rules, explored exhaustively
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let root = root();
    let done = match arguments.first().map(String::as_str) {
        Some("demo") => demo::run(&root),
        Some("test") => commands::test(&root),
        Some("check") => check::run(&root),
        Some("codegen") => codegen::run_with(&root, rest),
        Some("c") => c::test(&root),
        Some("conformance") => conformance::run_with(&root, rest),
        Some("philosophers") => conformance::philosophers(&root, rest),
        Some("servers") => commands::servers(&root, rest),
        Some("python") => python::test(&root),
        Some("node") => node::test(&root),
        Some("examples") => examples::test(&root),
        Some("install") => install::run_with(&root, rest),
        Some("bench") => bench::run_with(&root, rest),
        Some("torture") => torture::run_with(&root, rest),
        Some("hosts") => hosts::run_with(&root, rest),
        Some("scale") => commands::scale(&root, rest),
        Some("suites") => suites::run_all(&root, &[]),
        Some("histories") => commands::histories(&root, rest),
        Some("model") => commands::model(&root, rest),
        None | Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(())
        }
        Some(other) => Err(format!("there is no command {other:?}\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The checkout.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or_else(|| manifest.clone(), PathBuf::from)
}
