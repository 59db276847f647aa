//! Where a remote is: a URL that is allowed, taken apart.

use std::{fmt, path::PathBuf};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
};

/// A remote's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A repository of this machine.
    Path(PathBuf),
    /// `git://`
    Git(Host),
    /// `ssh://`, or `user@host:path`.
    Ssh(Host),
    /// `http://` and `https://`.
    Http(WebAddress),
}

/// A host and what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) user: Option<String>,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    pub(crate) path: String,
}

/// A web address, its secrets kept apart.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebAddress {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) path: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Display for Place {
    /// Without any password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Git(host) => write!(f, "git://{host}"),
            Place::Ssh(host) => write!(f, "ssh://{host}"),
            Place::Http(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        write!(f, "{}{}{slash}{}", bracketed(&self.name), Port(self.port), self.path)
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}{}", bracketed(&self.host), Port(self.port), self.path)
    }
}

impl fmt::Debug for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

struct Port(Option<u16>);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl WebAddress {
    /// The port, the scheme's own if none is given.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// Whether it is on this machine, where nobody else listens.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl Place {
    /// Takes a URL apart, and refuses what isn't allowed.
    pub(crate) fn parse(url: &str) -> Result<Place> {
        let refuse = |why: &str| {
            let shown = redacted(url);
            Err(Error::new(ErrorCode::InvalidArgument, format!("the remote {shown:?} {why}")))
        };
        if url.is_empty() || url.chars().any(char::is_control) {
            return refuse("is empty, or has characters that no URL has");
        }
        if url.starts_with('-') {
            return refuse("begins with a dash, so that a program could take it for an option");
        }
        if let Some((helper, _)) = url.split_once("::")
            && !helper.contains(['/', ':', '@', '['])
        {
            return refuse(
                "names a remote helper, which would run a program; give a URL of git, http, https or ssh, or a path",
            );
        }
        let Some((scheme, rest)) = url.split_once("://") else { return scp_or_path(url) };
        let place = match &*scheme.to_ascii_lowercase() {
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return refuse("is a file URL without an absolute path");
                }
                Some(Place::Path(PathBuf::from(percent_decoded(path))))
            }
            "git" => host(rest).filter(|host| host.user.is_none()).map(Place::Git),
            "ssh" | "git+ssh" | "ssh+git" => host(rest).map(Place::Ssh),
            scheme @ ("http" | "https") => web(scheme == "https", rest).map(Place::Http),
            _ => return refuse("has a scheme that isn't allowed; git, http, https, ssh and file are"),
        };
        match place {
            Some(place) => place.checked(url),
            None => refuse("can't be taken apart; write scheme://host/path"),
        }
    }

    /// Refuses what a program could take for an option.
    fn checked(self, url: &str) -> Result<Place> {
        let parts = match &self {
            Place::Git(host) | Place::Ssh(host) => [&*host.name, &*host.path, host.user.as_deref().unwrap_or_default()],
            Place::Path(_) | Place::Http(_) => [""; 3],
        };
        // Percent-decoding may have brought forth what stood in no URL.
        if !parts.iter().any(|part| part.starts_with('-') || part.chars().any(char::is_control)) {
            return Ok(self);
        }
        let shown = redacted(url);
        let message = format!(
            "the remote {shown:?} has a part that begins with a dash, which a program could take for an option, or one with \
             a control character"
        );
        Err(Error::new(ErrorCode::InvalidArgument, message))
    }
}

/// `user@host:path`, or a path of this machine, as Git tells them apart: by a colon before the first slash.
fn scp_or_path(url: &str) -> Result<Place> {
    let colon =
        if url.starts_with('[') || url.contains("@[") { url.find("]:").map(|at| at + 1) } else { url.find(':') };
    match colon {
        Some(colon) if colon > 0 && !url[..colon].contains('/') => {
            let (at, path) = (&url[..colon], &url[colon + 1..]);
            let (user, name) = match at.rsplit_once('@') {
                Some((user, name)) => (Some(user.to_owned()), name),
                None => (None, at),
            };
            let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
            let (name, port) = match inside {
                // `[host:port]:path` is Git's own extension; more colons are an IPv6 address.
                Some(inside) if inside.matches(':').count() == 1 => {
                    let (name, port) = inside.split_once(':').unwrap_or((inside, ""));
                    (name, port.parse().ok())
                }
                Some(inside) => (inside, None),
                None => (name, None),
            };
            if name.is_empty() || path.is_empty() {
                let message = format!("the remote {:?} has no host or no path; write user@host:path", redacted(url));
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
            Place::Ssh(Host { user, name: name.to_owned(), port, path: path.to_owned() }).checked(url)
        }
        _ => Ok(Place::Path(PathBuf::from(url))),
    }
}

/// User, host, port and path of what follows `scheme://`.
fn split(rest: &str) -> Option<(Option<&str>, String, Option<u16>, String)> {
    let (authority, path) = match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, ""),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (host, port) = if let Some(inside) = host.strip_prefix('[') {
        let (inside, after) = inside.split_once(']')?;
        (inside, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
    } else {
        host.split_once(':').unwrap_or((host, ""))
    };
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:%".contains(c) || !c.is_ascii();
    (!host.is_empty() && host.chars().all(plain)).then(|| (user, host.to_owned(), port, path.to_owned()))
}

fn host(rest: &str) -> Option<Host> {
    let (user, name, port, path) = split(rest)?;
    let path = percent_decoded(&path);
    // `/~user/…` is relative to that user's home.
    let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
    let user = user.filter(|user| !user.is_empty()).map(percent_decoded);
    // A password in an ssh URL is nothing that ssh would take.
    let user = user.map(|user| user.split(':').next().unwrap_or_default().to_owned());
    (path.len() > 1).then_some(Host { user, name, port, path })
}

fn web(https: bool, rest: &str) -> Option<WebAddress> {
    let (user, host, port, path) = split(rest)?;
    let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        Some((user, password)) => (
            Some(percent_decoded(user)).filter(|user| !user.is_empty()),
            Some(percent_decoded(password)).filter(|password| !password.is_empty()),
        ),
        None => (None, None),
    };
    Some(WebAddress {
        https,
        host: host.to_ascii_lowercase(),
        port,
        path: path.trim_end_matches('/').to_owned(),
        user,
        password,
    })
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let pair = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A URL as it may be shown: whatever stands before the host is left out.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        Place::parse(url).unwrap().to_string()
    }

    #[test]
    fn what_is_allowed_is_taken_apart() {
        assert_eq!(shown("git://host/a.git"), "git://host/a.git");
        assert_eq!(shown("https://Host:8443/a/b.git/"), "https://host:8443/a/b.git");
        assert_eq!(shown("ssh://me@host:22/srv/a.git"), "ssh://me@host:22/srv/a.git");
        assert_eq!(shown("me@host:a.git"), "ssh://me@host/a.git");
        assert_eq!(shown("[host:2222]:a.git"), "ssh://host:2222/a.git");
        assert_eq!(shown("[::1]:a.git"), "ssh://[::1]/a.git");
        assert_eq!(shown("http://[::1]:80/a"), "http://[::1]:80/a");
        assert_eq!(shown("file:///srv/a%20b"), "/srv/a b");
        assert_eq!(shown("../beside"), "../beside");
        assert_eq!(shown("./odd:name"), "./odd:name");
        let Place::Ssh(host) = Place::parse("ssh://host/~me/a").unwrap() else { panic!() };
        assert_eq!(host.path, "~me/a");
        let Place::Http(address) = Place::parse("https://me:p%40ss@host/a").unwrap() else { panic!() };
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (Some("me"), Some("p@ss")));
    }

    #[test]
    fn what_could_run_a_program_is_refused() {
        for url in [
            "",
            "-oProxyCommand=touch x",
            "ext::sh -c touch% x",
            "fd::3",
            "ftp://host/a",
            "git://-host/a",
            "ssh://-oProxyCommand=x/a",
            "ssh://-x@host/a",
            "-x@host:a",
            "host:-a",
            "[-host]:a",
            "ssh://host",
            "https:///a",
            "https://host:port/a",
            "http://ho st/a",
            "git://host/a\nb",
            "git://host/a%0ab",
            "file://other/a",
        ] {
            let error = Place::parse(url).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in
            ["https://me:secret@host/a", "https://secret@host:x/a", "ftp://secret@host/a", "https://me:secret@/a"]
        {
            let told = Place::parse(url)
                .map_or_else(|error| format!("{error} {error:?}"), |place| format!("{place} {place:?}"));
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
