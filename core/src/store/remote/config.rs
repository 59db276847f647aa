//! What Git's configuration says about remotes: names, URLs put in place of others, HTTP, ssh.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    store::{files::Settings, git_process::Git},
};

use super::place::{Place, WebAddress, redacted};

/// The sections that matter here.
const SECTIONS: [&str; 6] = ["remote", "url", "http", "core", "ssh", "protocol"];

/// The configuration around a remote, and where notes about it are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    entries: Vec<Entry>,
    /// The folder that all worktrees of the repository share, if there is a repository.
    pub(crate) common_dir: Option<PathBuf>,
    /// What paths in the configuration are relative to, and where Git is run.
    pub(crate) base: PathBuf,
    /// What it says of locks.
    pub(crate) locks: Settings,
    /// The repository, if there is one, as `git` works on it.
    pub(crate) git: Option<Git>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    section: String,
    subsection: Option<String>,
    key: String,
    value: String,
}

impl Config {
    /// The configuration of the repository that `path` is in, or the user's own if it is in none.
    ///
    /// # Errors
    /// [`ErrorCode::Untrusted`] if the repository is somebody else's: its configuration may name
    /// programs. And what can be wrong with its files.
    pub(crate) fn of(path: &Path, environment: bool) -> Result<Config> {
        let mut config = Config { base: path.to_owned(), ..Config::default() };
        match crate::store::files::open::discover(path, environment) {
            Ok(repo) => {
                let repo = repo.to_thread_local();
                crate::store::files::open::check_trust(&repo)?;
                let snapshot = repo.config_snapshot();
                config.locks = crate::store::files::open::settings(&snapshot)?;
                config.take(snapshot.plumbing());
                config.base = repo.workdir().unwrap_or(repo.common_dir()).to_owned();
                config.common_dir = repo.common_dir().canonicalize().ok();
                let work_tree = repo.workdir().and_then(|folder| folder.canonicalize().ok());
                config.git = repo.git_dir().canonicalize().ok().map(|folder| Git::new(&folder, work_tree.as_deref()));
            }
            Err(error) if error.code() == ErrorCode::NotARepository => {
                let globals = gix::config::File::from_globals().map_err(|error| unreadable(&error))?;
                config.take(&globals);
                let overrides = gix::config::File::from_environment_overrides().map_err(|error| unreadable(&error))?;
                config.take(&overrides);
            }
            Err(error) => return Err(error),
        }
        Ok(config)
    }

    fn take(&mut self, file: &gix::config::File) {
        for section in file.sections() {
            let name = section.header().name().to_string().to_ascii_lowercase();
            if !SECTIONS.contains(&&*name) {
                continue;
            }
            let subsection = section.header().subsection_name().map(ToString::to_string);
            let mut keys: Vec<String> = section.value_names().map(|key| key.to_ascii_lowercase()).collect();
            keys.dedup();
            let mut seen = Vec::new();
            for key in keys {
                if seen.contains(&key) {
                    continue;
                }
                for value in section.values(&key) {
                    self.entries.push(Entry {
                        section: name.clone(),
                        subsection: subsection.clone(),
                        key: key.clone(),
                        value: value.to_string(),
                    });
                }
                seen.push(key);
            }
        }
    }

    fn all<'a>(&'a self, section: &'a str, subsection: Option<&'a str>, key: &'a str) -> impl Iterator<Item = &'a str> {
        let fits = move |entry: &&Entry| {
            entry.section == section && entry.subsection.as_deref() == subsection && entry.key == key
        };
        self.entries.iter().filter(fits).map(|entry| &*entry.value)
    }

    fn last(&self, section: &str, subsection: Option<&str>, key: &str) -> Option<String> {
        self.all(section, subsection, key).last().map(str::to_owned)
    }

    /// Whether a remote is configured by this name.
    pub(crate) fn has_remote(&self, name: &str) -> bool {
        ["url", "pushurl"].into_iter().any(|key| self.last("remote", Some(name), key).is_some())
    }

    /// The place of a remote: of a configured name, or of a URL or path.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for what is neither, or isn't allowed.
    pub(crate) fn place(&self, remote: &str) -> Result<Place> {
        let url = if self.has_remote(remote) {
            // What is pushed to is read from as well: another URL may be of a mirror that lags behind.
            match self.all("remote", Some(remote), "pushurl").next() {
                Some(url) => self.instead(url, "insteadof").unwrap_or_else(|| url.to_owned()),
                None => self.to_push(self.all("remote", Some(remote), "url").next().unwrap_or_default()),
            }
        } else if !remote.is_empty() && !remote.contains(['/', ':', '.', '\\']) && !self.base.join(remote).exists() {
            let mut names: Vec<&str> = self
                .entries
                .iter()
                .filter(|entry| entry.section == "remote" && entry.key == "url")
                .filter_map(|entry| entry.subsection.as_deref())
                .collect();
            names.dedup();
            let names =
                if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
            let message =
                format!("the repository has no remote named {remote:?}: {names}; name one of them, or give a URL");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        } else {
            self.to_push(remote)
        };
        let place = Place::parse(&url)?;
        self.check_allowed(&place, &url)?;
        Ok(match place {
            Place::Path(path) => Place::Path(if path.is_absolute() { path } else { self.base.join(path) }),
            place => place,
        })
    }

    fn to_push(&self, url: &str) -> String {
        let other = self.instead(url, "pushinsteadof").or_else(|| self.instead(url, "insteadof"));
        other.unwrap_or_else(|| url.to_owned())
    }

    /// What is to be put in the URL's place: by the longest beginning that fits.
    fn instead(&self, url: &str, key: &str) -> Option<String> {
        let fitting = self.entries.iter().filter(|entry| {
            entry.section == "url" && entry.key == key && !entry.value.is_empty() && url.starts_with(&entry.value)
        });
        let longest = fitting.max_by_key(|entry| entry.value.len())?;
        Some(format!("{}{}", longest.subsection.as_deref()?, &url[longest.value.len()..]))
    }

    /// Heeds what the user allows at all: GIT_ALLOW_PROTOCOL, `protocol.allow`, `protocol.<name>.allow`.
    fn check_allowed(&self, place: &Place, url: &str) -> Result<()> {
        let scheme = match place {
            Place::Path(_) => "file",
            Place::Git(_) => "git",
            Place::Ssh(_) => "ssh",
            Place::Http(address) if address.https => "https",
            Place::Http(_) => "http",
        };
        let allowed = match std::env::var("GIT_ALLOW_PROTOCOL") {
            Ok(list) => list.split(':').any(|word| word == scheme),
            Err(_) => {
                let own = self.last("protocol", Some(scheme), "allow");
                own.or_else(|| self.last("protocol", None, "allow")).is_none_or(|word| word != "never")
            }
        };
        if allowed {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::InvalidArgument,
            format!(
                "the remote {:?} uses the protocol {scheme}, which GIT_ALLOW_PROTOCOL or protocol.allow forbids",
                redacted(url)
            ),
        ))
    }

    /// How ssh is called.
    pub(crate) fn ssh(&self) -> Ssh {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (command, shell) = match variable("GIT_SSH_COMMAND").or_else(|| self.last("core", None, "sshcommand")) {
            Some(command) => (command, true),
            None => (variable("GIT_SSH").unwrap_or_else(|| "ssh".to_owned()), false),
        };
        let variant = variable("GIT_SSH_VARIANT").or_else(|| self.last("ssh", None, "variant"));
        Ssh { command, shell, variant: variant.filter(|word| word != "auto") }
    }

    /// The settings for an address, of which more special ones go before more general ones.
    pub(crate) fn http(&self, remote: &str, address: &WebAddress) -> HttpSettings {
        self.http_within(remote, address, |name| std::env::var(name).ok())
    }

    fn http_within(
        &self,
        remote: &str,
        address: &WebAddress,
        variable: impl Fn(&str) -> Option<String>,
    ) -> HttpSettings {
        let mut fitting: Vec<(usize, &Entry)> = self
            .entries
            .iter()
            .filter(|entry| entry.section == "http")
            .filter_map(|entry| Some((specificity(entry.subsection.as_deref(), address)?, entry)))
            .collect();
        fitting.sort_by_key(|(specificity, _)| *specificity);
        let last =
            |key: &str| fitting.iter().rev().find(|(_, entry)| entry.key == key).map(|(_, entry)| entry.value.clone());
        let mut headers: Vec<String> = Vec::new();
        for (_, entry) in fitting.iter().filter(|(_, entry)| entry.key == "extraheader") {
            if entry.value.is_empty() {
                headers.clear();
            } else {
                headers.push(entry.value.clone());
            }
        }
        let file =
            |name: &str, key: &str| variable(name).or_else(|| last(key)).filter(|path| !path.is_empty()).map(home);
        let verify =
            last("sslverify").is_none_or(|value| !matches!(&*value.to_ascii_lowercase(), "false" | "no" | "off" | "0"));
        HttpSettings {
            headers,
            ca: file("GIT_SSL_CAINFO", "sslcainfo"),
            cert: file("GIT_SSL_CERT", "sslcert"),
            key: file("GIT_SSL_KEY", "sslkey"),
            verify: verify && variable("GIT_SSL_NO_VERIFY").is_none(),
            proxy: self.last("remote", Some(remote), "proxy").or_else(|| last("proxy")),
        }
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("Git's configuration can't be read: {error}; see `git config --list`"),
    )
}

/// How ssh is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ssh {
    pub(crate) command: String,
    /// Whether the command is a shell's.
    pub(crate) shell: bool,
    pub(crate) variant: Option<String>,
}

/// What Git's configuration says about one web address.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "http"), allow(dead_code))]
pub(crate) struct HttpSettings {
    /// `http.extraHeader`, which may hold secrets.
    pub(crate) headers: Vec<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) verify: bool,
    /// Empty: none, whatever the environment says.
    pub(crate) proxy: Option<String>,
}

impl std::fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSettings").field("verify", &self.verify).field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// A path with the user's home folder in place of `~`.
fn home(path: String) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// How closely a section `http.<pattern>` fits an address; `None`: not at all.
fn specificity(pattern: Option<&str>, address: &WebAddress) -> Option<usize> {
    let Some(pattern) = pattern else { return Some(0) };
    let Ok(Place::Http(pattern)) = Place::parse(pattern.replace("://*.", "://_wild_.").as_str()) else { return None };
    if pattern.https != address.https || pattern.port() != address.port() {
        return None;
    }
    let host = match pattern.host.strip_prefix("_wild_.") {
        Some(domain) => {
            let (first, rest) = address.host.split_once('.')?;
            (rest == domain && !first.is_empty()).then_some(rest.len())?
        }
        None => (pattern.host == address.host).then_some(address.host.len() + 1)?,
    };
    let path = match address.path.strip_prefix(&*pattern.path) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => pattern.path.len(),
        _ => return None,
    };
    if pattern.user.is_some() && pattern.user != address.user {
        return None;
    }
    Some(1 + host * 1_000_000 + path * 10 + usize::from(pattern.user.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entries: &[(&str, &str, &str, &str)]) -> Config {
        let entry = |&(section, subsection, key, value): &(&str, &str, &str, &str)| Entry {
            section: section.to_owned(),
            subsection: (!subsection.is_empty()).then(|| subsection.to_owned()),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        Config { entries: entries.iter().map(entry).collect(), base: PathBuf::from("/work/tree"), ..Config::default() }
    }

    #[test]
    fn names_and_beginnings_are_replaced_as_git_does() {
        let config = config(&[
            ("remote", "origin", "url", "gh:me/a"),
            ("remote", "both", "url", "https://read/a"),
            ("remote", "both", "pushurl", "gh:me/b"),
            ("remote", "near", "url", "../beside"),
            ("url", "https://example.com/", "insteadof", "gh:"),
            ("url", "https://example.com/long/", "insteadof", "gh:me/long"),
            ("url", "ssh://git@example.com/", "pushinsteadof", "https://only-push/"),
        ]);
        let place = |remote: &str| config.place(remote).unwrap().to_string();
        assert_eq!(place("origin"), "https://example.com/me/a");
        assert_eq!(place("both"), "https://example.com/me/b");
        assert_eq!(place("near"), "/work/tree/../beside");
        assert_eq!(place("gh:me/long/x"), "https://example.com/long//x");
        assert_eq!(place("https://only-push/x"), "ssh://git@example.com/x");
        assert_eq!(place("git://elsewhere/x"), "git://elsewhere/x");
        let error = config.place("nobody").unwrap_err().to_string();
        assert!(error.contains("no remote named \"nobody\"") && error.contains("origin, both, near"), "{error}");
        assert!(config.place("-x").is_err() && config.place("").is_err());
    }

    #[test]
    fn a_forbidden_protocol_is_refused() {
        let config = config(&[("protocol", "git", "allow", "never"), ("protocol", "", "allow", "always")]);
        assert!(config.place("git://host/a").unwrap_err().to_string().contains("forbids"));
        assert!(config.place("https://host/a").is_ok());
    }

    #[test]
    fn the_most_special_setting_counts() {
        let config = config(&[
            ("http", "https://host/a", "sslcainfo", "/special"),
            ("http", "", "sslcainfo", "/general"),
            ("http", "https://*.host", "proxy", "wild"),
            ("http", "", "extraheader", "A: 1"),
            ("http", "https://host", "extraheader", "B: 2"),
            ("http", "https://other", "extraheader", "C: 3"),
        ]);
        let settings = |url: &str| {
            let Place::Http(address) = Place::parse(url).unwrap() else { panic!() };
            config.http_within("origin", &address, |_| None)
        };
        assert_eq!(settings("https://host/a/b").ca, Some(PathBuf::from("/special")));
        assert_eq!(settings("https://host/ab").ca, Some(PathBuf::from("/general")));
        assert_eq!(settings("https://x.host/a").proxy.as_deref(), Some("wild"));
        assert_eq!(settings("https://host/a").proxy, None);
        assert_eq!(settings("https://host/a").headers, ["A: 1", "B: 2"]);
        assert_eq!(settings("http://host/a").headers, ["A: 1"]);
        assert!(!format!("{:?}", settings("https://host/a")).contains("B: 2"));
    }
}
