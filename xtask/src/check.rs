//! The house rules: what may use what, and how large a file may grow.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The most lines of code in one source file, tests, comments and empty lines not counted.
const MOST_LINES: usize = 600;

/// A word that only some files may use.
struct Rule {
    /// Files it holds for: those whose path starts with one of these.
    within: &'static [&'static str],
    /// Files that are exempt.
    except: &'static [&'static str],
    /// What they must not contain.
    words: &'static [&'static str],
    /// Why.
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        within: &["core/src/lock/"],
        except: &[],
        words: &[
            "crate::store",
            "crate::manager",
            "crate::clock",
            "crate::process",
            "std::fs",
            "std::io",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "std::time",
            "SystemTime",
            "Instant",
            "uuid::",
            "rustix::",
            "libc::",
            "gix::",
        ],
        why: "lock/ is pure: it uses nothing of store/ or manager/, nor clock, randomness or I/O",
    },
    Rule {
        within: &["core/src/", "cli/src/", "ffi-c/src/", "bindings-python/src/", "bindings-node/src/"],
        except: &["core/src/store/"],
        words: &["gix::", "use gix"],
        why: "only store/ names gix",
    },
    Rule {
        within: &["core/src/", "cli/src/"],
        except: &["core/src/manager/commit_loop.rs", "core/src/store/"],
        words: &[".transact(", ".transact_within("],
        why: "only the commit loop changes refs",
    },
    Rule {
        within: &["core/src/", "cli/src/"],
        except: &["core/src/clock.rs"],
        words: &["SystemTime::now", "Instant::now", "clock_gettime", "thread::sleep"],
        why: "only clock.rs reads time",
    },
    Rule {
        within: &["cli/src/", "ffi-c/src/", "bindings-python/src/", "bindings-node/src/"],
        except: &[],
        words: &["gitlock::store::", "gitlock::lock::decide", "gitlock::lock::work", "lock::fault"],
        why: "the surfaces use the core's public face alone",
    },
    Rule {
        within: &["cli/src/", "ffi-c/src/", "bindings-python/src/", "bindings-node/src/", "core/src/"],
        except: &[],
        words: &["todo!(", "unimplemented!(", "dbg!("],
        why: "nothing half-finished is committed",
    },
];

/// Runs every check, and tells of everything that is wrong at once.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    sources(root, root, &mut files);
    for file in &files {
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        check_file(file, &text, &mut wrong);
    }
    for arguments in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"][..],
    ] {
        let status = Command::new("cargo").args(arguments).current_dir(root).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            wrong.push(format!("`cargo {}` is not content", arguments.join(" ")));
        }
    }
    wrong.extend(crate::codegen::run(root, true).err());
    if wrong.is_empty() {
        println!("checked {} source files: the house is in order", files.len());
        Ok(())
    } else {
        Err(format!("{} things are wrong:\n  {}", wrong.len(), wrong.join("\n  ")))
    }
}

fn check_file(file: &str, text: &str, wrong: &mut Vec<String>) {
    let code = code_of(text);
    if code.len() > MOST_LINES {
        wrong.push(format!("{file}: {} lines of code, and {MOST_LINES} is the most; split it", code.len()));
    }
    for rule in RULES {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| file.starts_with(prefix));
        if !starts(rule.within) || starts(rule.except) {
            continue;
        }
        for (number, line) in &code {
            if let Some(word) = rule.words.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{file}:{number}: {word:?}: {}", rule.why));
            }
        }
    }
}

/// The lines of code with their numbers: no comments, no empty lines, and nothing from the unit
/// tests at the end of a file on.
fn code_of(text: &str) -> Vec<(usize, &str)> {
    let tests = text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..tests]
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
        .collect()
}

/// The project's Rust sources, by their paths from the root.
fn sources(root: &Path, folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(&*name, "target" | "node_modules") && !name.starts_with('.') {
                sources(root, &path, found);
            }
        } else if name.ends_with(".rs")
            && let Ok(relative) = path.strip_prefix(root)
        {
            found.push(relative.to_string_lossy().into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(file: &str, text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        check_file(file, text, &mut wrong);
        wrong
    }

    #[test]
    fn each_rule_bites() {
        for (file, text) in [
            ("core/src/lock/x.rs", "use crate::store::Oid;"),
            ("core/src/lock/x.rs", "let now = std::time::SystemTime::UNIX_EPOCH;"),
            ("core/src/manager/x.rs", "use gix::ObjectId;"),
            ("core/src/manager/x.rs", "store.transact(&edits)"),
            ("core/src/store/x.rs", "let now = Instant::now();"),
            ("cli/src/x.rs", "use gitlock::store::files::FilesStore;"),
            ("core/src/x.rs", "todo!()"),
        ] {
            assert_eq!(wrong(file, text).len(), 1, "{file}: {text}");
        }
        assert_eq!(wrong("core/src/x.rs", &"let x = 1;\n".repeat(MOST_LINES + 1)).len(), 1);
    }

    #[test]
    fn comments_tests_and_the_exempt_are_left_alone() {
        assert!(wrong("core/src/lock/x.rs", "// as crate::store says\n").is_empty());
        assert!(
            wrong("core/src/lock/x.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use std::time::Duration; }").is_empty()
        );
        assert!(wrong("core/src/store/files/x.rs", "use gix::ObjectId;").is_empty());
        assert!(wrong("core/src/manager/commit_loop.rs", "store.transact(&edits)").is_empty());
    }
}
