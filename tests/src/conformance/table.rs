//! The tables: what can be asked of a shim, and which surfaces there are. A new operation is a line
//! here and a few in each shim; a new surface is an entry here and a shim.

use std::path::PathBuf;

use gitlock::ErrorCode;

/// Something that a scenario can ask of a role.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// The words that come first, all of them needed.
    pub(super) words: &'static [&'static str],
    /// What may follow, as `key=value`, or as `key` for `key=yes`.
    pub(super) options: &'static [&'static str],
    /// The event that it waits for, if it asks the shim for nothing.
    pub(super) event: Option<&'static str>,
}

const fn ask(name: &'static str, words: &'static [&'static str], options: &'static [&'static str]) -> Operation {
    Operation { name, words, options, event: None }
}

const fn hear(name: &'static str, kind: &'static str) -> Operation {
    Operation { name, words: &["about"], options: &[], event: Some(kind) }
}

/// What an acquire takes, but for how long it waits.
macro_rules! acquire_options {
    ($($more:literal),*) => {
        &[
            "as", "shared", "ttl", "priority", "fingerprint", "reason", "owner", "renew", "max_hold", "slots", "also",
            "within", "reentrant" $(, $more)*
        ]
    };
}
/// What one in several repositories takes.
const SEVERAL: &[&str] = &["as", "also", "shared", "ttl", "wait", "priority", "reason", "owner"];
const TRY: &[&str] = acquire_options!();
const ACQUIRE: &[&str] = acquire_options!("wait");

/// Everything that can be asked. README.md says what each means and answers.
pub(super) const OPERATIONS: &[Operation] = &[
    ask("open", &[], &["path", "prefix", "owner", "keep", "lock_timeout", "max_clock_skew", "remote"]),
    ask("close", &[], &[]),
    ask("acquire", &["name"], ACQUIRE),
    ask("try", &["name"], TRY),
    ask("start", &["wait_as", "name"], ACQUIRE),
    ask("cancel", &["wait_as"], &[]),
    ask("look", &["guard"], &[]),
    ask("extend", &["guard"], &["ttl"]),
    ask("release", &["guard"], &[]),
    ask("upgrade", &["guard"], &["wait"]),
    ask("start-upgrade", &["wait_as", "guard"], &["wait"]),
    ask("downgrade", &["guard"], &[]),
    ask("token-of", &["guard", "name"], &[]),
    ask("wanted", &["guard"], &[]),
    ask("heed", &["guard"], &[]),
    ask("watch", &["guard"], &[]),
    ask("handle", &["guard"], &[]),
    ask("detach", &["guard"], &[]),
    ask("fork", &["guard"], &[]),
    ask("handle-of", &["name", "fingerprint"], &[]),
    ask("resume", &["handle"], &["as"]),
    ask("extend-handle", &["handle"], &["ttl"]),
    ask("release-handle", &["handle"], &[]),
    ask("status", &["name"], &[]),
    ask("list", &[], &[]),
    ask("graph", &[], &[]),
    ask("log", &["name"], &["most"]),
    ask("break", &["name"], &["tenure", "reason"]),
    ask("update-refs", &["guard", "change"], &["also", "message"]),
    ask("push", &["guard", "refspec"], &["also"]),
    ask("verify", &["name", "token"], &[]),
    ask("clean", &[], &["grace"]),
    ask("doctor", &[], &["fix"]),
    ask("sync", &["there"], &["strategy"]),
    ask("everywhere", &["places", "name"], SEVERAL),
    ask("quorum", &["places", "name"], SEVERAL),
    ask("let-go", &["guard"], &[]),
    hear("await", "ended"),
    hear("progress", "waiting"),
    hear("lost", "lost"),
    hear("heard", "wanted"),
];

/// What the pseudo-roles `git` and `tool` do: another program, with plain Git and plain files.
pub(super) const TOOL: &[Operation] = &[
    ask("record", &["name"], &["id", "fingerprint", "timeout", "age", "exclusive", "v", "waiters"]),
    ask("text", &["name", "text"], &[]),
    ask("file", &["path", "text"], &[]),
    ask("folder", &["path"], &[]),
    ask("remove", &["path"], &[]),
    ask("owner", &["user"], &[]),
    ask("freeze", &[], &[]),
];

/// The options that are lengths of time; the wire has them in milliseconds.
pub(super) const TIMES: &[&str] =
    &["ttl", "wait", "max_hold", "grace", "lock_timeout", "max_clock_skew", "timeout", "age"];

/// Where the programs are that `cargo xtask conformance` has built.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// The shims' sources.
    pub sources: PathBuf,
    /// The Rust shim.
    pub rust: PathBuf,
    /// The C shim.
    pub c: PathBuf,
    /// The C++ shim.
    pub cpp: PathBuf,
    /// The folder of libgitlock.
    pub library: PathBuf,
    /// The interpreter that has the Python package.
    pub python: PathBuf,
    /// A folder that Python looks into before its own packages; empty for none.
    pub packages: PathBuf,
    /// The folder that the package for Node is installed in.
    pub node: PathBuf,
    /// The command line.
    pub git_lock: PathBuf,
}

impl Programs {
    /// The place of the path that the command line gives with this flag.
    pub(super) fn place(&mut self, flag: &str) -> Option<&mut PathBuf> {
        Some(match flag {
            "shims" => &mut self.sources,
            "rust" => &mut self.rust,
            "c" => &mut self.c,
            "cpp" => &mut self.cpp,
            "library" => &mut self.library,
            "python" => &mut self.python,
            "packages" => &mut self.packages,
            "node" => &mut self.node,
            "git-lock" => &mut self.git_lock,
            _ => return None,
        })
    }
}

/// One surface of gitlock, driven by a shim.
pub(super) struct Surface {
    pub(super) name: &'static str,
    /// The words that start its shim.
    pub(super) start: fn(&Programs) -> Vec<PathBuf>,
    /// What an error of this code is in its language, as the shim tells it.
    pub(super) class: fn(ErrorCode) -> String,
    /// Operations that the language or the surface can't have, and why.
    pub(super) lacks: &'static [(&'static str, &'static str)],
    /// Codes that nothing from outside can raise there, and why.
    pub(super) silent: &'static [(ErrorCode, &'static str)],
}

const ONE_MODE: &str = "a command holds its lock in one mode from its beginning to its end";
const RUST_PANICS: (ErrorCode, &str) = (ErrorCode::Internal, "a panic reaches a Rust caller as a panic");
/// Every surface, in the order of the runs.
pub(super) const SURFACES: &[Surface] = &[
    Surface {
        name: "rust",
        start: |programs| vec![programs.rust.clone(), "blocking".into()],
        class: |_| "gitlock::Error".to_owned(),
        lacks: &[],
        silent: &[RUST_PANICS],
    },
    Surface {
        name: "rust-start",
        start: |programs| vec![programs.rust.clone(), "start".into()],
        class: |_| "gitlock::Error".to_owned(),
        lacks: &[],
        silent: &[RUST_PANICS],
    },
    Surface {
        name: "c",
        start: |programs| vec![programs.c.clone(), "blocking".into()],
        class: |code| code.number().to_string(),
        lacks: &[],
        silent: &[],
    },
    Surface {
        name: "c-start",
        start: |programs| vec![programs.c.clone(), "start".into()],
        class: |code| code.number().to_string(),
        lacks: &[],
        silent: &[],
    },
    Surface { name: "c++", start: |programs| vec![programs.cpp.clone()], class: cpp_class, lacks: &[], silent: &[] },
    Surface {
        name: "python",
        start: |programs| vec![programs.python.clone(), programs.sources.join("python.py"), "blocking".into()],
        class: |code| format!("gitlock.{}", code.class_name()),
        lacks: &[],
        silent: &[],
    },
    Surface {
        name: "python-asyncio",
        start: |programs| vec![programs.python.clone(), programs.sources.join("python.py"), "asyncio".into()],
        class: |code| format!("gitlock.{}", code.class_name()),
        lacks: &[],
        silent: &[],
    },
    Surface {
        name: "node",
        start: |programs| vec!["node".into(), programs.sources.join("node.mjs"), programs.node.clone()],
        class: |code| format!("gitlock.{}", code.class_name()),
        lacks: &[("fork", "Node has no fork that copies a process")],
        silent: &[(ErrorCode::Forked, "Node has no fork that copies a process")],
    },
    Surface {
        name: "cli",
        start: |programs| vec![programs.python.clone(), programs.sources.join("cli.py"), programs.git_lock.clone()],
        // What ends a wait is a signal.
        class: |code| match code {
            ErrorCode::Cancelled => "exit 143".to_owned(),
            code => format!("exit {}", code.exit_code()),
        },
        lacks: &[
            ("fork", "a command holds nothing that a fork could copy"),
            ("upgrade", ONE_MODE),
            ("start-upgrade", ONE_MODE),
            ("downgrade", ONE_MODE),
            ("heed", "a command isn't called; `git lock status` tells who waits"),
        ],
        silent: &[(ErrorCode::Forked, "a command holds nothing that a fork could copy")],
    },
];

fn cpp_class(code: ErrorCode) -> String {
    match code {
        ErrorCode::Held
        | ErrorCode::Timeout
        | ErrorCode::Cancelled
        | ErrorCode::LockLost
        | ErrorCode::Deadlock
        | ErrorCode::NotOwner => {
            format!("gitlock::{}", code.as_str().to_ascii_lowercase())
        }
        _ => "gitlock::error".to_owned(),
    }
}

pub(super) fn surface(name: &str) -> Option<&'static Surface> {
    SURFACES.iter().find(|surface| surface.name == name)
}

impl Surface {
    /// Why it can't do this, if that is known.
    pub(super) fn cannot(&self, operation: &str) -> Option<&'static str> {
        self.lacks.iter().find(|(name, _)| *name == operation).map(|(_, why)| *why)
    }
}
