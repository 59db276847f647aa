//! `git lock`: locks in a Git repository, from the command line.

mod args;
mod commands;
mod duration;
mod failure;
mod moment;
mod output;
mod request;
mod run;
mod signals;
mod sync;
mod wait_display;

use std::{
    ffi::OsStr,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use gitlock::{Error, ErrorCode, LockManager, Options};

use args::{Arguments, Command, Global};
use commands::Exit;
use failure::Failure;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(misread(&error)),
    };
    let json = arguments.global.json;
    let exit = if let Command::Guardian = arguments.command {
        run::guardian::main()
    } else {
        log_to_stderr();
        // A bug is told like everything else.
        catch_unwind(AssertUnwindSafe(|| carry_out(&arguments)))
            .unwrap_or_else(|panic| Err(Error::panicked(&*panic).into()))
    };
    ExitCode::from(exit.unwrap_or_else(|failure| {
        failure.tell(json);
        failure.exit
    }))
}

fn carry_out(arguments: &Arguments) -> Exit {
    if let Command::InitServer(asked) = &arguments.command {
        return commands::init_server(&arguments.global.directory, asked, arguments.global.json);
    }
    change_folder(&arguments.global)?;
    if let Command::Manual(asked) = &arguments.command {
        return commands::manual(asked);
    }
    let json = arguments.global.json;
    let manager = match (&arguments.command, &arguments.global.remote[..]) {
        (Command::Run(asked), [_, _, ..]) => {
            return run::run(&run::Place::several(&arguments.global, asked)?, asked, json);
        }
        (Command::Run(asked), _) if asked.quorum => {
            return Err(Failure::usage("--quorum needs several --remote; give each of the repositories"));
        }
        (Command::Sync(asked), remotes) if remotes.len() < 2 => {
            return sync::sync(&arguments.global, remotes.first(), asked);
        }
        (_, [_, _, ..]) => return Err(Failure::usage("only `run` takes several --remote; give one")),
        (_, remotes) => open(&arguments.global, remotes.first())?,
    };
    match &arguments.command {
        Command::Run(asked) => run::run(&run::Place::One(manager), asked, json),
        Command::Acquire(asked) => commands::acquire(&manager, asked, json),
        Command::Release(asked) => commands::release(&manager, asked, json),
        Command::Extend(asked) => commands::extend(&manager, asked, json),
        Command::UpdateRef(asked) => commands::update_ref(&manager, asked, json),
        Command::Push(asked) => commands::push(&manager, asked, json),
        Command::Verify(asked) => commands::verify(&manager, asked, json),
        Command::Status(asked) => commands::status(&manager, asked, json),
        Command::List => commands::list(&manager, json),
        Command::Log(asked) => commands::log(&manager, asked, json),
        Command::Clean(asked) => commands::clean(&manager, asked, json),
        Command::Break(asked) => commands::break_lock(&manager, asked, json),
        Command::Graph(asked) => commands::graph(&manager, asked, json),
        Command::Doctor(asked) => commands::doctor(&manager, asked, json),
        // These open what they need themselves, and were started before.
        Command::Guardian | Command::InitServer(_) | Command::Sync(_) | Command::Manual(_) => Ok(0),
    }
}

/// As Git's own -C: everything after it is as if started there, GIT_DIR and the command of a run too.
fn change_folder(global: &Global) -> Result<(), Failure> {
    if global.directory != OsStr::new(".") {
        std::env::set_current_dir(&global.directory).map_err(|error| {
            let folder = global.directory.display();
            Failure::new(ErrorCode::NotARepository, format!("can't change to {folder}: {error}"))
        })?;
    }
    Ok(())
}

/// Opens the repository here, or this remote of it.
pub(crate) fn open(global: &Global, remote: Option<&String>) -> Result<LockManager, Failure> {
    let mut options = Options::default();
    options.lock_prefix.clone_from(&global.prefix);
    options.remote = remote.cloned();
    options.environment = true;
    Ok(LockManager::open_with(".", options)?)
}

/// Help, a version, or a command line that can't be read.
fn misread(error: &clap::Error) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return 0;
    }
    let help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let json = std::env::args_os()
        .skip(1)
        .take_while(|word| word != OsStr::new("--"))
        .any(|word| word == OsStr::new("--json"));
    if help && !json {
        let _ = error.print();
        return 2;
    }
    let text = error.to_string();
    let message = if help { "no subcommand; see `git lock -h`" } else { text.trim() };
    let failure = Failure::usage(message.strip_prefix("error: ").unwrap_or(message));
    failure.tell(json);
    failure.exit
}

/// Logs what `GIT_LOCK_LOG` asks for; nothing without it.
fn log_to_stderr() {
    use std::io::IsTerminal;
    use tracing_subscriber::{filter::Targets, prelude::*};
    let Ok(wanted) = std::env::var("GIT_LOCK_LOG") else { return };
    match wanted.parse::<Targets>() {
        Ok(wanted) => {
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal());
            tracing_subscriber::registry().with(lines.with_filter(wanted)).init();
        }
        Err(why) => eprintln!("git lock: GIT_LOCK_LOG={wanted:?} is not understood: {why}"),
    }
}
