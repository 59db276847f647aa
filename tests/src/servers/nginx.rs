//! nginx before fcgiwrap and `git http-backend`: plain, with basic authentication, and with TLS of an
//! authority that is made for it.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    free_port,
    group::{Group, program, run},
};
use crate::git::run_git;

/// Who is let in with a password.
pub const USER: &str = "me";

/// The password.
pub const PASSWORD: &str = "secret-of-nginx";

/// A server for one folder of repositories, with three doors.
#[derive(Debug)]
pub struct Nginx {
    folder: PathBuf,
    /// Without anything.
    pub http: u16,
    /// With a password.
    pub basic: u16,
    /// With TLS.
    pub https: u16,
    // In this order they end.
    _server: Group,
    _gateway: Group,
}

impl Nginx {
    /// Starts one that shows `served`, and keeps its own files in `folder`.
    ///
    /// # Errors
    /// Which package is missing.
    ///
    /// # Panics
    /// If what is there doesn't work.
    pub fn start(served: &Path, folder: &Path) -> Result<Nginx, String> {
        let [nginx, fcgiwrap] = [program("nginx", "nginx-light")?, program("fcgiwrap", "fcgiwrap")?];
        program("openssl", "openssl")?;
        fs::create_dir_all(folder).expect("a folder");
        make_certificates(folder);
        let socket = folder.join("fcgi");
        let mut gateway =
            Group::start(Command::new(fcgiwrap).args(["-c", "4", "-s"]).arg(format!("unix:{}", socket.display())))
                .expect("fcgiwrap");
        assert!(gateway.comes_up(|| UnixStream::connect(&socket).is_ok()), "fcgiwrap doesn't listen");
        let [http, basic, https] = [(); 3].map(|()| free_port());
        fs::write(folder.join("users"), format!("{USER}:{{PLAIN}}{PASSWORD}\n")).expect("a file");
        fs::write(folder.join("git.conf"), backend(served, &socket)).expect("a file");
        fs::write(folder.join("nginx.conf"), configuration(folder, [http, basic, https])).expect("a file");
        let mut server =
            Group::start(Command::new(nginx).arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")))
                .expect("nginx");
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!([http, basic, https].iter().all(|port| server.listens(*port)), "nginx doesn't listen: {}", log());
        Ok(Nginx { folder: folder.to_owned(), http, basic, https, _server: server, _gateway: gateway })
    }

    /// The certificate of the authority that vouches for the server.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// That of one that doesn't.
    pub fn stranger(&self) -> PathBuf {
        self.folder.join("stranger.pem")
    }
}

fn configuration(folder: &Path, [http, basic, https]: [u16; 3]) -> String {
    let folder = folder.display();
    // One process, which needs no user to change to.
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/log warn;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n\
         access_log off;\n\
         client_body_temp_path {folder}/body;\n\
         fastcgi_temp_path {folder}/fastcgi;\n\
         proxy_temp_path {folder}/proxy;\n\
         scgi_temp_path {folder}/scgi;\n\
         uwsgi_temp_path {folder}/uwsgi;\n\
         client_max_body_size 64m;\n\
         server {{ listen 127.0.0.1:{http}; include {folder}/git.conf; }}\n\
         server {{ listen 127.0.0.1:{basic}; auth_basic locks; auth_basic_user_file {folder}/users; \
         include {folder}/git.conf; }}\n\
         server {{ listen 127.0.0.1:{https} ssl; ssl_certificate {folder}/server.pem; \
         ssl_certificate_key {folder}/server.key; include {folder}/git.conf; }}\n\
         }}\n"
    )
}

fn backend(served: &Path, socket: &Path) -> String {
    let program = run_git(served, &["--exec-path"]) + "/git-http-backend";
    let parameters = [
        ("SCRIPT_FILENAME", &*program),
        ("PATH_INFO", "$uri"),
        ("QUERY_STRING", "$query_string"),
        ("REQUEST_METHOD", "$request_method"),
        ("CONTENT_TYPE", "$content_type"),
        ("CONTENT_LENGTH", "$content_length"),
        ("REMOTE_USER", "$remote_user"),
        ("REMOTE_ADDR", "$remote_addr"),
        ("GIT_PROTOCOL", "$http_git_protocol"),
        ("GIT_PROJECT_ROOT", &*served.display().to_string()),
        ("GIT_HTTP_EXPORT_ALL", "1"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        // Nobody has to say who it is before it may push.
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "http.receivepack"),
        ("GIT_CONFIG_VALUE_0", "true"),
    ]
    .map(|(name, value)| format!("fastcgi_param {name} {value};\n"));
    format!("location / {{\nfastcgi_pass unix:{};\n{}}}\n", socket.display(), parameters.concat())
}

/// An authority, one that nobody trusts, and what the first vouches for.
fn make_certificates(folder: &Path) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    for (name, subject) in [("ca", "/CN=gitlock tests"), ("stranger", "/CN=a stranger")] {
        let [pem, private] = ["pem", "key"].map(|ending| format!("{name}.{ending}"));
        let words = ["-x509", "-days", "7", "-subj", subject, "-out", &pem, "-keyout", &private];
        run(folder, &[&["openssl", "req"][..], &key, &words].concat());
    }
    let words = ["-subj", "/CN=localhost", "-out", "server.csr", "-keyout", "server.key"];
    run(folder, &[&["openssl", "req"][..], &key, &words].concat());
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("a file");
    let request = ["-req", "-in", "server.csr", "-out", "server.pem", "-days", "7", "-extfile", "names"];
    let authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    run(folder, &[&["openssl", "x509"][..], &request, &authority].concat());
}
