//! What the command line says.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::duration;

/// Locks that live in a Git repository.
#[derive(Debug, Parser)]
#[command(
    name = "git-lock",
    bin_name = "git lock",
    version,
    about = "Locks that live in a Git repository",
    long_about = "Locks that live in a Git repository.\n\n\
        A lock is a ref under refs/gitvan/locks; what it says is a blob; every change is a compare-and-swap of \
        that ref. A lock is held for a lease: `run` renews it for as long as its command runs, `acquire` takes it \
        once and leaves extending and releasing to you. Each tenure that ends is a commit of the lock's journal: \
        `git log refs/gitvan/journal/NAME`.\n\n\
        Leases are advisory. What must never happen twice has to check the fencing token (GIT_LOCK_TOKEN), a \
        number that grows with every grant: let whatever the lock protects refuse a token lower than one it has seen.",
    after_help = EXAMPLES,
    after_long_help = EXIT_CODES,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  git lock run deploy -- ./deploy.sh          one at a time, whoever starts it
  git lock run --wait 1m -E 75 db -- make db  wait for a minute, then exit with 75
  handle=$(git lock acquire --ttl 5m build)   hold it across commands of a script
  git lock release \"$handle\"
  git lock status build                       who holds it, and who waits";

const EXIT_CODES: &str = "\
Examples:
  git lock run deploy -- ./deploy.sh          one at a time, whoever starts it
  git lock run --wait 1m -E 75 db -- make db  wait for a minute, then exit with 75
  handle=$(git lock acquire --ttl 5m build)   hold it across commands of a script
  git lock release \"$handle\"
  git lock status build                       who holds it, and who waits

Exit codes:
  0    done
  1    somebody else holds the lock, or the wait timed out (-E sets another code)
  2    the command line is wrong
  3    not the owner, or the lock was lost
  4    trouble with the repository
  128+n  ended by signal n
`run` passes its command's exit code through; 126 and 127 say that it could not be started.

Environment:
  GIT_LOCK_HANDLE  the tenure that `extend`, `release` and `update-ref` mean unless told otherwise, and under
                   which `run` and `acquire` take what is below its lock
  GIT_LOCK_LOG     what to log on stderr, such as debug or gitlock=debug
  GIT_DIR          the repository, as for Git itself
Lengths of time are written 500ms, 30s, 2m, 1h, or as a number of seconds.";

/// What every subcommand takes.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Work in the repository that this folder is in
    #[arg(short = 'C', value_name = "DIR", global = true, default_value = ".")]
    pub(crate) directory: PathBuf,
    /// Keep lock refs here instead of under refs/gitvan/locks (or gitlock.prefix)
    #[arg(long, value_name = "REF", global = true)]
    pub(crate) prefix: Option<String>,
    /// Keep the locks on a Git server: a remote of the repository, such as origin, or a URL; `run` takes several
    #[arg(long, value_name = "REMOTE", global = true)]
    pub(crate) remote: Vec<String>,
    /// Print one JSON object, on stderr if it is an error
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command while holding a lock
    ///
    /// Waits for the lock, runs the command without a shell, renews the lease while it runs, and releases the lock
    /// when it ends. The command sees GIT_LOCK_NAME, GIT_LOCK_TOKEN, GIT_LOCK_HANDLE and with --slots GIT_LOCK_SLOT,
    /// gets the signals that are sent to `git lock run`, and has the terminal. A `git lock` in it takes what is below
    /// the lock at once.
    ///
    /// If the lock is lost, the command and all processes of its process group are stopped before anybody else may
    /// hold the lock, and the exit code is 3. If `git lock run` itself is killed, its guardian kills them. What
    /// leaves the process group (setsid) escapes that; what the command leaves in the background when it ends goes
    /// on without the lock. A stopped `git lock run` (Ctrl-Z) can't renew: after the ttl the lock is lost.
    Run(Run),
    /// Take a lock and print its handle
    ///
    /// The lock is held until it is released or its lease ends, whatever becomes of this process: nothing renews it.
    /// The handle is the right to extend and to release it; treat it like a password.
    Acquire(Acquire),
    /// End a tenure by its handle or fingerprint
    Release(Tenure),
    /// Make a lease last another ttl from now
    Extend(Extend),
    /// Change other refs under a lock, so that a holder that lost its lease can't
    ///
    /// Reads what `git update-ref --stdin` reads, a line for each change: `update REF NEW [OLD]`, `create REF NEW`,
    /// `delete REF [OLD]`, `verify REF [OLD]`, and `option no-deref` before one of them. All of them are one transaction
    /// of `git update-ref`, in which the lock must still be held; reflogs, symbolic refs and hooks are Git's own. The
    /// lease lasts another ttl. If the lock is lost, the exit code is 3 and nothing is changed.
    UpdateRef(UpdateRef),
    /// Push refs under a lock, so that a holder that lost its lease can't
    ///
    /// To the server that the lock lives on, in one atomic push with the lock's renewal: the server takes all of it or
    /// nothing. Refspecs are as `git push` reads them: `main`, `HEAD`, `SOURCE:TARGET`, `:TARGET` to delete, and with +
    /// before it to let a branch go elsewhere than forward. The lease lasts another ttl. If the lock is lost, the exit code
    /// is 3 and nothing is changed.
    Push(Push),
    /// Ask whether a fencing token is that of somebody who holds the lock
    ///
    /// The exit code is 3 if it isn't, or isn't any more.
    Verify(Verify),
    /// Show who holds a lock and who waits for it
    ///
    /// Without a name: of every lock that is held. The exit code is 0 whether the lock is held or free.
    Status(Status),
    /// List the locks that are held, one per line
    List,
    /// Show who waits for whom, and which waits would never end
    Graph(Graph),
    /// Show a lock's ended tenures, newest first
    Log(Log),
    /// End what has ended by itself, and delete superseded objects
    Clean(Clean),
    /// End a tenure by force, whoever holds it
    ///
    /// The journal says who did it and why. Whoever held may work on until it notices: make sure that it doesn't.
    Break(Break),
    /// Look for what crashes leave behind, and say what to do
    ///
    /// The exit code is 4 while there is a problem that wasn't fixed.
    Doctor(Doctor),
    /// Bring this repository's locks and a remote's together, after work without a connection
    ///
    /// Locks that were taken here are held there too, and the other way round; what has ended in one has ended in both.
    /// Of two who took the same lock one keeps it, and the other one is told that it is lost. Until they are synced both
    /// go on: keep locks at the remote itself (--remote, or gitlock.remote) wherever it can be reached.
    Sync(Sync),
    /// Make a bare repository for locks alone, to be served by any Git server
    ///
    /// With the settings that fit: atomic pushes, no clean-up of its own accord, and syncing to disk. Prints what to
    /// run at night, and how to serve it.
    InitServer(Folder),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Manual(Folder),
    /// Guards the process group of a run. Only `run` starts it.
    #[command(hide = true)]
    Guardian,
}

/// What `run` and `acquire` ask for.
#[derive(Args, Debug)]
pub(crate) struct Request {
    /// The length of the lease [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
    /// Wait this long at most [default: for ever]
    #[arg(short = 'w', long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
    /// Don't wait
    #[arg(short = 'n', long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// Beside other shared holders
    #[arg(short = 's', long)]
    pub(crate) shared: bool,
    /// One of N slots instead of the whole lock; everybody has to say the same N
    #[arg(long, value_name = "N", conflicts_with = "shared")]
    pub(crate) slots: Option<u32>,
    /// This lock too, all of them or none; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) also: Vec<String>,
    /// The session that holds and waits [default: one for each command]
    ///
    /// Give all runs that wait while another of them holds the same, and a deadlock between two such sessions is
    /// found. What is below the lock of a session is taken at once.
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,
    /// Higher goes first: each step is worth 30 s of waiting
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
    /// A word of your own as the right to extend and release; everybody can read it in the record
    #[arg(long, value_name = "WORD")]
    pub(crate) fingerprint: Option<String>,
    /// Why, for whoever waits and for the journal
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// The exit code if the lock is held or the wait times out
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 1)]
    pub(crate) conflict_exit_code: u8,
    /// Print a line on stderr for each change while waiting
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) request: Request,
    /// Stop the command when it has held the lock for this long
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) max_hold: Option<Duration>,
    /// Of several --remote a majority is enough, whichever can be used [default: all of them are needed]
    #[arg(long, conflicts_with_all = ["also", "slots"])]
    pub(crate) quorum: bool,
    /// The lock
    pub(crate) name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Acquire {
    #[command(flatten)]
    pub(crate) request: Request,
    /// The lock
    pub(crate) name: String,
}

/// Which tenure is meant.
#[derive(Args, Debug)]
pub(crate) struct Tenure {
    /// The handle that `acquire` printed, or a lock's name together with --fingerprint
    #[arg(value_name = "HANDLE|NAME")]
    pub(crate) tenure: Option<String>,
    /// The word that the lock was acquired with
    #[arg(long, value_name = "WORD")]
    pub(crate) fingerprint: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Extend {
    #[command(flatten)]
    pub(crate) tenure: Tenure,
    /// The new length of the lease [default: as it was]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct UpdateRef {
    #[command(flatten)]
    pub(crate) tenure: Tenure,
    /// One change, such as "create refs/heads/stable ID"; may be repeated [default: read from stdin]
    #[arg(long, value_name = "LINE")]
    pub(crate) change: Vec<String>,
    /// What the reflogs say [default: the lock's name]
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Push {
    /// The handle that `acquire` printed, or a lock's name together with --fingerprint, if it isn't that of the run
    /// around this; and what to push
    #[arg(value_name = "[HANDLE|NAME] REFSPEC", required = true)]
    pub(crate) words: Vec<String>,
    /// The word that the lock was acquired with
    #[arg(long, value_name = "WORD")]
    pub(crate) fingerprint: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The lock
    pub(crate) name: String,
    /// The token
    pub(crate) token: u64,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// The lock
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Graph {
    /// In the language of Graphviz
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Log {
    /// How many at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) max_count: usize,
    /// The lock
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct Clean {
    /// Delete superseded objects that are older than this [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) grace: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct Break {
    /// Only the tenure of this id (see `status --json`)
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// The lock
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct Sync {
    /// Who keeps a lock that was taken in both: remote-wins, oldest, highest-priority, highest-token, or fail, which
    /// leaves it as it is and exits with 1
    #[arg(long, value_name = "STRATEGY", default_value = "remote-wins")]
    pub(crate) strategy: gitlock::SyncStrategy,
    /// Go on until it is stopped, with a sync this often; within every lease, so that none runs out in one place
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) every: Option<Duration>,
    /// The remote [default: --remote, gitlock.remote, or origin]
    #[arg(value_name = "REMOTE")]
    pub(crate) remote: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Folder {
    /// The folder to make
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Do what is safe
    #[arg(long)]
    pub(crate) fix: bool,
}
