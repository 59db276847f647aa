//! The remote store at the servers that teams have: nginx with and without a password and TLS, and sshd. What
//! isn't installed is told as skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, time::Duration};

use gitlock::{
    ErrorCode,
    store::{
        Oid, RefStore,
        remote::{RemoteOptions, RemoteStore},
    },
};
use gitlock_tests::{
    behaviour::{self, Subject, blob, edit, name},
    git::{Repo, again_in, assert_sound},
    servers::{Endpoint, Kind, PASSWORD, Servers, USER},
    skipped,
};

/// Runs a test at a server of this kind, or tells why not.
fn at(kind: Kind, test: impl Fn(&Servers, &Endpoint, &Repo)) {
    let servers = Servers::start(&[kind]);
    match servers.endpoint(kind) {
        Some(endpoint) => test(&servers, &endpoint, &Repo::new()),
        None => skipped(kind.name(), &servers.skipped()[0].1),
    }
}

fn open(repo: &Repo, url: &str) -> RemoteStore {
    let options = RemoteOptions { poll_interval: Duration::from_millis(200), ..RemoteOptions::default() };
    RemoteStore::open(repo.path(), url, &options).unwrap()
}

/// Every check of the behaviour suite.
fn suite(servers: &Servers, endpoint: &Endpoint, repo: &Repo) {
    let served = servers.served().add("locks.git", &[]);
    endpoint.set_up(repo.path());
    let store = open(repo, &endpoint.url("locks.git"));
    let prune = |id: &Oid| {
        let hex = id.to_string();
        fs::remove_file(served.join("objects").join(&hex[..2]).join(&hex[2..])).unwrap();
    };
    behaviour::run(&Subject { store: &store, prune: &prune, rounds: 8, keeps_objects: false });
    assert_sound(&served);
    let report = store.examine(behaviour::PREFIX).unwrap();
    assert!(report.compares && report.atomic && report.v2, "{report:?}");
}

/// What an error says, and its code.
fn refused(store: &RemoteStore) -> (ErrorCode, String) {
    let error = store.transact(&[edit(&name("a"), None, Some(blob("a")))]).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn git_daemon() {
    at(Kind::Git, suite);
}

#[test]
fn nginx() {
    at(Kind::Http, suite);
}

#[test]
fn nginx_with_a_password_of_a_helper() {
    at(Kind::Basic, suite);
}

#[test]
fn nginx_with_a_password_in_a_header() {
    at(Kind::Basic, |servers, endpoint, repo| {
        let word = base64(&format!("{USER}:{PASSWORD}"));
        let header = ("http.extraHeader".to_owned(), format!("Authorization: Basic {word}"));
        let mut endpoint = endpoint.clone();
        endpoint.settings = vec![header];
        suite(servers, &endpoint, repo);
    });
}

#[test]
fn nginx_with_a_wrong_password() {
    at(Kind::Basic, |servers, endpoint, repo| {
        servers.served().add("locks.git", &[]);
        let url = endpoint.url("locks.git");
        let (code, told) = refused(&open(repo, &url));
        assert!(code == ErrorCode::PermissionDenied && told.contains("asks who you are"), "{told}");
        let (code, told) = refused(&open(repo, &url.replace("http://", "http://me:wrong-word@")));
        assert!(code == ErrorCode::PermissionDenied && !told.contains("wrong-word"), "{told}");
    });
}

/// Which authorities the environment names goes before what the configuration says.
fn without_authorities(test: &str) {
    let servers = Servers::start(&[Kind::Https]);
    match servers.skipped() {
        [] => again_in(&["env", "-u", "GIT_SSL_CAINFO", "-u", "GIT_SSL_NO_VERIFY"], test),
        [(kind, why), ..] => skipped(kind.name(), why),
    }
}

#[test]
fn nginx_with_tls() {
    without_authorities("tls_of_an_own_authority");
    without_authorities("a_certificate_that_nobody_vouches_for");
}

#[test]
#[ignore = "run by nginx_with_tls"]
fn tls_of_an_own_authority() {
    at(Kind::Https, suite);
}

#[test]
#[ignore = "run by nginx_with_tls"]
fn a_certificate_that_nobody_vouches_for() {
    at(Kind::Https, |servers, endpoint, repo| {
        servers.served().add("locks.git", &[]);
        let url = endpoint.url("locks.git");
        let untrusted = |what: &str| {
            let (code, told) = refused(&open(repo, &url));
            assert_eq!(code, ErrorCode::PermissionDenied, "{what}: {told}");
            assert!(told.contains("certificate") && told.contains("http.sslCAInfo"), "{what}: {told}");
        };
        untrusted("no authority is named");
        let stranger = servers.nginx().unwrap().stranger().display().to_string();
        repo.git(&["config", "http.sslCAInfo", &stranger]);
        untrusted("another authority is named");
        repo.git(&["config", "http.sslVerify", "false"]);
        behaviour::put(&open(repo, &url), &name("a"), None, blob("a"));
    });
}

#[test]
fn sshd() {
    at(Kind::Ssh, suite);
}

#[test]
fn sshd_with_one_connection_for_all() {
    at(Kind::SshKept, |servers, endpoint, repo| {
        suite(servers, endpoint, repo);
        assert!(servers.sshd().unwrap().keeps_one());
    });
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = text.as_bytes().chunks(3).map(|three| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(three.get(at).copied().unwrap_or(0)));
        let letter = |at: usize| if at > three.len() { '=' } else { LETTERS[bits >> (18 - 6 * at) & 63].into() };
        (0..4).map(letter).collect::<String>()
    });
    groups.collect()
}
