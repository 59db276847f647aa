//! `cargo xtask install --prefix DIR`: libgitlock where `pkg-config` finds it, and `git-lock` on the PATH.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::commands::{once, release, run, ship};

/// What a program needs that links `libgitlock.a`: what Rust's standard library needs.
const PRIVATE_LIBS: &str = "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";

pub(crate) fn run_with(root: &Path, arguments: &[String]) -> Result<(), String> {
    let [flag, prefix] = arguments else { return Err("usage: cargo xtask install --prefix DIR".to_owned()) };
    if flag != "--prefix" {
        return Err(format!("what is {flag:?}? usage: cargo xtask install --prefix DIR"));
    }
    let prefix = std::path::absolute(prefix).map_err(|error| format!("{prefix}: {error}"))?;
    install(root, &prefix)?;
    println!("installed to {}; PKG_CONFIG_PATH={}", prefix.display(), prefix.join("lib/pkgconfig").display());
    Ok(())
}

pub(crate) fn install(root: &Path, prefix: &Path) -> Result<(), String> {
    once(&format!("libgitlock in {}", prefix.display()), || put(root, prefix))
}

fn put(root: &Path, prefix: &Path) -> Result<(), String> {
    ship(root)?;
    let version = env!("CARGO_PKG_VERSION");
    let major = version.split('.').next().unwrap_or("0");
    let (include, lib, bin) = (prefix.join("include"), prefix.join("lib"), prefix.join("bin"));
    for folder in [&include, &lib.join("pkgconfig"), &bin] {
        fs::create_dir_all(folder).map_err(|error| format!("can't make {}: {error}", folder.display()))?;
    }
    for header in ["gitlock.h", "gitlock.hpp"] {
        copy(&root.join("ffi-c/include").join(header), &include.join(header), 0o644)?;
    }
    let full = if cfg!(target_os = "macos") {
        let full = format!("libgitlock.{major}.dylib");
        copy(Path::new(&release(root, "libgitlock_c.dylib")), &lib.join(&full), 0o755)?;
        link(&full, &lib.join("libgitlock.dylib"))?;
        full
    } else {
        let full = format!("libgitlock.so.{version}");
        copy(Path::new(&release(root, "libgitlock_c.so")), &lib.join(&full), 0o755)?;
        link(&full, &lib.join(format!("libgitlock.so.{major}")))?;
        link(&format!("libgitlock.so.{major}"), &lib.join("libgitlock.so"))?;
        full
    };
    copy(Path::new(&release(root, "libgitlock_c.a")), &lib.join("libgitlock.a"), 0o644)?;
    copy(Path::new(&release(root, "git-lock")), &bin.join("git-lock"), 0o755)?;
    let manual = prefix.join("share/man/man1");
    run(root, &bin.join("git-lock").to_string_lossy(), &["manual", &manual.to_string_lossy()])?;
    // Found from where the file itself lies, so that the folder can be moved.
    let text = format!(
        "prefix=${{pcfiledir}}/../..\nlibdir=${{prefix}}/lib\nincludedir=${{prefix}}/include\n\n\
         Name: gitlock\nDescription: A lock manager whose only database is a Git repository\nVersion: {version}\n\
         Libs: -L${{libdir}} -lgitlock\nLibs.private: {PRIVATE_LIBS}\nCflags: -I${{includedir}}\n"
    );
    let file = lib.join("pkgconfig/gitlock.pc");
    fs::write(&file, text).map_err(|error| format!("can't write {}: {error}", file.display()))?;
    println!("{full}, libgitlock.a, gitlock.h, gitlock.hpp, gitlock.pc, git-lock and its manual");
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    // A new file under the name: whoever runs the old one goes on with it.
    let _ = fs::remove_file(to);
    fs::copy(from, to)
        .and_then(|_| fs::set_permissions(to, fs::Permissions::from_mode(mode)))
        .map_err(|error| format!("can't copy {} to {}: {error}", from.display(), to.display()))
}

fn link(target: &str, at: &PathBuf) -> Result<(), String> {
    let _ = fs::remove_file(at);
    symlink(target, at).map_err(|error| format!("can't make the link {}: {error}", at.display()))
}
