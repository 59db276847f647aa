//! `cargo xtask c`: libgitlock as C and C++ programs use it, installed, found by pkg-config, shared
//! and static, under AddressSanitizer and Valgrind.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{commands::target, install::install};

/// The two languages: compiler, standard, source.
const LANGUAGES: [(&str, &str, &str); 2] = [("cc", "-std=c11", "library.c"), ("c++", "-std=c++17", "library.cpp")];

pub(crate) fn test(root: &Path) -> Result<(), String> {
    // Outside of what Cargo keeps, and moved once, so that nothing depends on where it was made.
    let place = target(root).join("c");
    let _ = fs::remove_dir_all(&place);
    install(root, &place.join("made"))?;
    let prefix = place.join("moved");
    fs::rename(place.join("made"), &prefix).map_err(|error| format!("can't move the installation: {error}"))?;
    let soname = output(Command::new("readelf").arg("-d").arg(prefix.join("lib/libgitlock.so")))?;
    if !soname.contains("soname: [libgitlock.so.0]") {
        return Err(format!("libgitlock.so has no soname libgitlock.so.0:\n{soname}"));
    }
    for (compiler, standard, source) in LANGUAGES {
        for (kind, extra) in [("shared", &[][..]), ("static", &[][..]), ("asan", &["-fsanitize=address", "-g"][..])] {
            let program = compile(root, &prefix, (compiler, standard, source), kind, extra)?;
            check(root, &prefix, &place, &program, kind)?;
            if kind == "shared" {
                valgrind(root, &prefix, &place, &program)?;
            }
        }
    }
    Ok(())
}

/// Compiles a program that needs nothing but an installation, whose shared library it finds by itself.
pub(crate) fn compile_against(
    prefix: &Path,
    (compiler, standard): (&str, &str),
    source: &Path,
    program: &Path,
) -> Result<(), String> {
    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Werror", "-pthread", "-g"]).arg("-I").arg(include).arg("-o");
    command.arg(program).arg(source).arg("-L").arg(&lib).arg("-lgitlock");
    command.arg(format!("-Wl,-rpath,{}", lib.display()));
    output(&mut command).map(drop)
}

fn compile(
    root: &Path,
    prefix: &Path,
    (compiler, standard, source): (&str, &str, &str),
    kind: &str,
    extra: &[&str],
) -> Result<PathBuf, String> {
    let is_static = kind == "static";
    let mut ask = Command::new("pkg-config");
    ask.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(["--cflags", "--libs"]);
    let flags = output(ask.args(is_static.then_some("--static")).arg("gitlock"))?;
    let program = prefix.join(format!("{source}.{kind}"));
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Werror", "-pthread"]).args(extra).arg("-o").arg(&program);
    command.arg(root.join("ffi-c/tests").join(source));
    for flag in flags.split_whitespace() {
        // The linker would choose the shared one.
        if is_static && flag == "-lgitlock" {
            command.arg("-l:libgitlock.a")
        } else {
            command.arg(flag)
        };
    }
    output(&mut command)?;
    Ok(program)
}

fn check(root: &Path, prefix: &Path, place: &Path, program: &Path, kind: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    if kind != "static" {
        command.env("LD_LIBRARY_PATH", prefix.join("lib"));
    }
    println!("{}: {}", name(program), output(command.arg(repository(root, place, program)?))?.trim());
    Ok(())
}

fn valgrind(root: &Path, prefix: &Path, place: &Path, program: &Path) -> Result<(), String> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
    command.arg(program).env("LD_LIBRARY_PATH", prefix.join("lib"));
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("{}: SKIPPED under Valgrind, which isn't installed", name(program));
        return Ok(());
    }
    println!(
        "{} under Valgrind: {}",
        name(program),
        output(command.arg(repository(root, place, program)?).arg("no-fork"))?.trim()
    );
    Ok(())
}

fn name(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A repository for one run.
fn repository(root: &Path, place: &Path, program: &Path) -> Result<PathBuf, String> {
    let path = place.join("repositories").join(name(program));
    let _ = fs::remove_dir_all(&path);
    output(Command::new("git").args(["init", "-q"]).arg(&path).current_dir(root))?;
    Ok(path)
}

/// What a command prints. Anything but success is an error, with all that it said.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    let words = words.join(" ");
    let done = command.output().map_err(|error| format!("`{words}` can't be run: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(said);
    }
    Err(format!("`{words}`: {}\n{said}{}", done.status, String::from_utf8_lossy(&done.stderr)))
}
