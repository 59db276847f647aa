//! The program `servers`: real servers on this machine, each over one lock repository, for as long as somebody
//! wants them.

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus},
    thread,
};

use gitlock::store::remote::init_server;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{Kind, Servers};
use crate::git::run_git;

/// The repository that each shows.
const REPOSITORY: &str = "locks.git";

/// Starts them, runs the command if there is one, and else waits for Ctrl-C. Everything is gone afterwards.
///
/// # Errors
/// What can't be started.
pub fn main(command: &[String]) -> Result<ExitCode, String> {
    // From here on no signal ends this process before it has cleaned up.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| error.to_string())?;
    let servers = Servers::start(&Kind::ALL);
    init_server(&servers.served().folder().join(REPOSITORY)).map_err(|error| error.to_string())?;
    let client = servers.folder().join("client");
    run_git(servers.folder(), &["init", "-q", "client"]);
    for endpoint in servers.endpoints() {
        endpoint.set_up(&client);
        run_git(&client, &["remote", "add", endpoint.kind.name(), &endpoint.url(REPOSITORY)]);
    }
    tell(&servers, &client);
    match command.split_first() {
        None => {
            say("Ctrl-C ends them.");
            signals.forever().next();
            Ok(ExitCode::SUCCESS)
        }
        Some((program, arguments)) => {
            let remotes: Vec<&str> = servers.endpoints().iter().map(|endpoint| endpoint.kind.name()).collect();
            let mut child = Command::new(program)
                .args(arguments)
                .env("GITLOCK_SERVERS_CLIENT", &client)
                .env("GITLOCK_SERVERS_REMOTES", remotes.join(" "))
                // It would go before what the client's configuration names.
                .env_remove("GIT_SSL_CAINFO")
                .spawn()
                .map_err(|error| format!("{program} can't be started: {error}"))?;
            Ok(code(wait_for(&mut child, signals)?))
        }
    }
}

/// Waits for the command. Of what Ctrl-C sends it has its own copy; the rest is handed on.
fn wait_for(child: &mut Child, mut signals: Signals) -> Result<ExitStatus, String> {
    let (handle, pid) = (signals.handle(), i32::try_from(child.id()).ok().and_then(Pid::from_raw));
    let passes_on = thread::spawn(move || {
        for signal in signals.forever() {
            let signal = match signal {
                SIGTERM => Signal::TERM,
                SIGHUP => Signal::HUP,
                _ => continue,
            };
            if let Some(pid) = pid {
                let _ = kill_process(pid, signal);
            }
        }
    });
    let status = child.wait().map_err(|error| error.to_string());
    handle.close();
    let _ = passes_on.join();
    status
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn tell(servers: &Servers, client: &Path) {
    for endpoint in servers.endpoints() {
        say(&format!("{:<9} {}", endpoint.kind.name(), endpoint.url(REPOSITORY)));
        for (key, value) in &endpoint.settings {
            say(&format!("          git config {key} {}", quoted(value)));
        }
    }
    for (kind, why) in servers.skipped() {
        say(&format!("skipped: {}: {why}", kind.name()));
    }
    let client = client.display();
    say(&format!("A repository that has them all as remotes: git -C {client} lock --remote git run build -- true"));
}

/// For a shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

fn say(line: &str) {
    // Nobody has to listen.
    let _ = writeln!(std::io::stdout(), "{line}");
}
