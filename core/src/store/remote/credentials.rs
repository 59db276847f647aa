//! Users and passwords for web addresses: from the URL, the environment, and Git's credential helpers.

use std::{
    fmt,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use crate::store::git_process::program;

use super::place::WebAddress;

/// A user and what proves it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
    /// Whether a helper gave it, which then wants to know how it went.
    pub(super) helped: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// What is known without asking anybody: of the URL, or of `GIT_LOCK_REMOTE_TOKEN` (and
    /// `GIT_LOCK_REMOTE_USER`), which goes over no network unencrypted.
    pub(super) fn known(address: &WebAddress) -> Option<Credentials> {
        if let (Some(user), Some(password)) = (&address.user, &address.password) {
            return Some(Credentials { user: user.clone(), password: password.clone(), helped: false });
        }
        let token = std::env::var("GIT_LOCK_REMOTE_TOKEN").ok().filter(|token| !token.is_empty())?;
        if !address.https && !address.is_loopback() {
            tracing::warn!(remote = %address, "GIT_LOCK_REMOTE_TOKEN isn't sent over http; use https");
            return None;
        }
        let user = std::env::var("GIT_LOCK_REMOTE_USER").ok().or_else(|| address.user.clone());
        Some(Credentials { user: user.unwrap_or_else(|| "x-access-token".to_owned()), password: token, helped: false })
    }

    /// What Git's helpers know. Nobody is asked at a terminal.
    pub(super) fn fill(folder: &Path, address: &WebAddress) -> Option<Credentials> {
        let answer = git_credential(folder, "fill", &description(address, None))?;
        let value =
            |key: &str| answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
        Some(Credentials { user: value("username")?, password: value("password")?, helped: true })
    }

    /// Tells the helpers whether it was accepted.
    pub(super) fn report(&self, folder: &Path, address: &WebAddress, accepted: bool) {
        if self.helped {
            git_credential(folder, if accepted { "approve" } else { "reject" }, &description(address, Some(self)));
        }
    }

    /// The header's value.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", base64(format!("{}:{}", self.user, self.password).as_bytes()))
    }
}

fn description(address: &WebAddress, known: Option<&Credentials>) -> String {
    let scheme = if address.https { "https" } else { "http" };
    let port = address.port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut text =
        format!("protocol={scheme}\nhost={}{port}\npath={}\n", address.host, address.path.trim_start_matches('/'));
    let user = known.map(|known| &known.user).or(address.user.as_ref());
    if let Some(user) = user {
        text += &format!("username={user}\n");
    }
    if let Some(known) = known {
        text += &format!("password={}\n", known.password);
    }
    text + "\n"
}

/// Git runs the helpers, as it does for itself, so that they find what they stored. Secrets go
/// over pipes.
fn git_credential(folder: &Path, action: &str, input: &str) -> Option<String> {
    let (to, from) = program::input().ok()?;
    let mut child = Command::new("git")
        .args(["credential", action])
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_ASKPASS")
        .env_remove("SSH_ASKPASS")
        .stdin(from)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .inspect_err(|error| tracing::debug!(%error, "git can't be asked for credentials"))
        .ok()?;
    let mut rest = input.as_bytes();
    while !rest.is_empty() {
        // Git may need none of it.
        let Ok(count) = program::send(&to, rest) else { break };
        rest = &rest[count..];
    }
    drop(to);
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(64 << 10).read_to_string(&mut answer);
    }
    child.wait().is_ok_and(|status| status.success()).then_some(answer)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let bits = part.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= part.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy"), ("?~?", "P34/")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let known = Credentials { user: "me".to_owned(), password: "secret".to_owned(), helped: false };
        assert!(!format!("{known:?}").contains("secret"));
        assert_eq!(known.basic(), "Basic bWU6c2VjcmV0");
    }
}
