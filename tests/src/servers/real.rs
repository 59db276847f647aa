//! The servers that teams really have, each over the same folder of repositories, and how each is reached.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Daemon, Served,
    nginx::{Nginx, PASSWORD, USER},
    sshd::{HOST, KEPT_HOST, Sshd},
};
use crate::git::{fast_folder, run_git};

/// A kind of server, or of a way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `git daemon`.
    Git,
    /// nginx and `git http-backend`.
    Http,
    /// The same with basic authentication.
    Basic,
    /// The same with TLS.
    Https,
    /// sshd, with a connection for each question.
    Ssh,
    /// sshd, with one connection for all (ControlMaster).
    SshKept,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 6] = [Kind::Git, Kind::Http, Kind::Basic, Kind::Https, Kind::Ssh, Kind::SshKept];

    /// What it is called on command lines, and as a remote.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Git => "git",
            Kind::Http => "http",
            Kind::Basic => "basic",
            Kind::Https => "https",
            Kind::Ssh => "ssh",
            Kind::SshKept => "ssh-kept",
        }
    }

    /// The kinds that a word stands for: a name, several with commas between, or `all`.
    ///
    /// # Errors
    /// What there is instead.
    pub fn several(word: &str) -> Result<Vec<Kind>, String> {
        if word == "all" {
            return Ok(Kind::ALL.to_vec());
        }
        let known = || Kind::ALL.map(Kind::name).join(", ");
        let by_name = |name: &str| {
            let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            found.ok_or_else(|| format!("there is no server {name:?}; there are {}, and all", known()))
        };
        word.split(',').map(by_name).collect()
    }
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Which it is.
    pub kind: Kind,
    /// What a repository's name is added to.
    base: String,
    /// What Git's configuration has to say.
    pub settings: Vec<(String, String)>,
}

impl Endpoint {
    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// Configures a client's repository.
    pub fn set_up(&self, client: &Path) {
        for (key, value) in &self.settings {
            run_git(client, &["config", key, value]);
        }
    }
}

/// Servers over one folder of repositories. They are gone with this, and so are their files.
#[derive(Debug)]
pub struct Servers {
    daemon: Option<Daemon>,
    nginx: Option<Nginx>,
    sshd: Option<Sshd>,
    skipped: Vec<(Kind, String)>,
    kinds: Vec<Kind>,
    served: Served,
    folder: tempfile::TempDir,
}

impl Servers {
    /// Starts what these kinds need. The thread that does has to outlive them.
    pub fn start(kinds: &[Kind]) -> Servers {
        let folder = tempfile::Builder::new().prefix("gitlock-servers-").tempdir_in(fast_folder()).expect("a folder");
        let repositories = folder.path().join("repositories");
        fs::create_dir(&repositories).expect("a folder");
        let mut servers = Servers {
            daemon: None,
            nginx: None,
            sshd: None,
            skipped: Vec::new(),
            kinds: kinds.to_vec(),
            served: Served::in_folder(&repositories),
            folder,
        };
        let wanted = |some: &[Kind]| some.iter().copied().filter(|kind| kinds.contains(kind)).collect::<Vec<_>>();
        if kinds.contains(&Kind::Git) {
            servers.daemon = Some(Daemon::start(&repositories, &["--enable=receive-pack"]));
        }
        let by_nginx = wanted(&[Kind::Http, Kind::Basic, Kind::Https]);
        if !by_nginx.is_empty() {
            match Nginx::start(&repositories, &servers.folder.path().join("nginx")) {
                Ok(nginx) => servers.nginx = Some(nginx),
                Err(why) => servers.skipped.extend(by_nginx.into_iter().map(|kind| (kind, why.clone()))),
            }
        }
        let by_sshd = wanted(&[Kind::Ssh, Kind::SshKept]);
        if !by_sshd.is_empty() {
            match Sshd::start(&servers.folder.path().join("sshd")) {
                Ok(sshd) => servers.sshd = Some(sshd),
                Err(why) => servers.skipped.extend(by_sshd.into_iter().map(|kind| (kind, why.clone()))),
            }
        }
        servers
    }

    /// The folder of everything that they need.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The repositories that they show.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// nginx, if it runs.
    pub fn nginx(&self) -> Option<&Nginx> {
        self.nginx.as_ref()
    }

    /// sshd, if it runs.
    pub fn sshd(&self) -> Option<&Sshd> {
        self.sshd.as_ref()
    }

    /// What was wanted and isn't there, and why.
    pub fn skipped(&self) -> &[(Kind, String)] {
        &self.skipped
    }

    /// How those that run are reached.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.kinds.iter().filter_map(|kind| self.endpoint(*kind)).collect()
    }

    /// How one is reached, if it runs.
    pub fn endpoint(&self, kind: Kind) -> Option<Endpoint> {
        let path: PathBuf = self.served.folder().to_owned();
        let at = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
        let (base, settings) = match kind {
            Kind::Git => (at("git", self.daemon.as_ref()?.port), Vec::new()),
            Kind::Http => (at("http", self.nginx.as_ref()?.http), Vec::new()),
            Kind::Basic => {
                let base = at("http", self.nginx.as_ref()?.basic);
                let helper =
                    format!("!f() {{ test \"$1\" = get && printf 'username={USER}\\npassword={PASSWORD}\\n'; }}; f");
                (base.clone(), vec![(format!("credential.{base}.helper"), helper)])
            }
            Kind::Https => {
                let nginx = self.nginx.as_ref()?;
                let base = at("https", nginx.https);
                let authority = nginx.authority().display().to_string();
                (base.clone(), vec![(format!("http.{base}/.sslCAInfo"), authority)])
            }
            Kind::Ssh | Kind::SshKept => {
                let host = if kind == Kind::Ssh { HOST } else { KEPT_HOST };
                let command = self.sshd.as_ref()?.command();
                (format!("ssh://{host}{}", path.display()), vec![("core.sshCommand".to_owned(), command)])
            }
        };
        Some(Endpoint { kind, base, settings })
    }
}
