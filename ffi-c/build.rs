//! The soname, which changes with whatever breaks a program that was built before.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libgitlock.0.dylib"),
        _ => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libgitlock.so.0"),
    }
}
