//! Speed at Git servers, each thing beside `git push` doing the same in the same run: medians of interleaved
//! rounds; round trips, counted by a proxy with 20 ms of delay; throughput; and what a server runs.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods)] // a bench that measures time, or nothing

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

use gitlock::{LockManager, Options};

use crate::{
    git::{Repo, run_git},
    servers::{Endpoint, Kind, Link, Served, Servers, free_port},
};

const USAGE: &str = "\
usage: bench_remote [OPTIONS]
  --rounds N           of a pair at each server (default 21)
  --servers KINDS      which, with commas between (default all)
  --seconds S          of each throughput (default 3)
  --only PART          pairs, trips, throughput or processes
";

/// The repository that servers show.
const LOCKS: &str = "locks.git";

/// A round trip of the long line.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// What the kinds may cost at most, beside `git push`.
fn target(kind: Kind) -> Option<f64> {
    match kind {
        Kind::Git | Kind::Https => Some(0.35),
        Kind::Http | Kind::SshKept => Some(0.6),
        Kind::Basic | Kind::Ssh => None,
    }
}

struct Settings {
    rounds: usize,
    seconds: u64,
    kinds: Vec<Kind>,
    only: Option<String>,
}

/// The program.
pub fn main(arguments: &[String]) -> ExitCode {
    let settings = match parse(arguments) {
        Ok(settings) => settings,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // It would go before what the clients' configuration names.
    // SAFETY: there is no other thread yet.
    unsafe { std::env::remove_var("GIT_SSL_CAINFO") };
    let servers = Servers::start(&settings.kinds);
    for (kind, why) in servers.skipped() {
        println!("skipped: {}: {why}", kind.name());
    }
    servers.served().add(LOCKS, &[]);
    let wants = |part: &str| settings.only.as_deref().is_none_or(|only| only == part);
    if wants("pairs") {
        pairs(&servers, settings.rounds);
    }
    if wants("trips") {
        trips(&servers, settings.rounds);
    }
    if wants("throughput") {
        throughput(&servers, Duration::from_secs(settings.seconds));
    }
    if wants("processes") {
        processes();
    }
    ExitCode::SUCCESS
}

fn parse(arguments: &[String]) -> Result<Settings, String> {
    let mut settings = Settings { rounds: 21, seconds: 3, kinds: Kind::ALL.to_vec(), only: None };
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{value:?} is no number"));
        match word.as_str() {
            "--rounds" => settings.rounds = usize::try_from(number()?.max(1)).unwrap_or(1),
            "--seconds" => settings.seconds = number()?.max(1),
            "--servers" => settings.kinds = Kind::several(value)?,
            "--only" => settings.only = Some(value.clone()),
            other => return Err(format!("what is {other:?}?")),
        }
    }
    Ok(settings)
}

fn open(repo: &Path, url: &str, owner: &str) -> LockManager {
    let mut options = Options::default();
    options.remote = Some(url.to_owned());
    options.owner = Some(owner.to_owned());
    LockManager::open_with(repo, options).expect("a manager")
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// What a script would do: a fresh blob, and a ref to it with an expected value, created and deleted.
struct Script<'a> {
    repo: &'a Repo,
    url: &'a str,
    number: u32,
}

impl Script<'_> {
    /// The blob is written beforehand: only the push is measured.
    fn blob(&mut self) -> String {
        self.number += 1;
        let path = self.repo.path().join("blob");
        fs::write(&path, format!("{} {}", std::process::id(), self.number)).expect("a file");
        self.repo.git(&["hash-object", "-w", &path.display().to_string()])
    }

    fn push(&self, lease: &str, spec: &str) -> Duration {
        let lease = format!("--force-with-lease=refs/plain/lock:{lease}");
        time(|| drop(self.repo.git(&["push", "-q", &lease, self.url, spec])))
    }

    /// How long creating takes, and deleting.
    fn pair(&mut self) -> [Duration; 2] {
        let blob = self.blob();
        [self.push("", &format!("{blob}:refs/plain/lock")), self.push(&blob, ":refs/plain/lock")]
    }
}

/// How long acquiring takes, extending, and releasing.
fn tenure(manager: &LockManager, name: &str) -> [Duration; 3] {
    let start = Instant::now();
    let guard = manager.lock(name).renew(false).acquire().expect("a lock");
    let acquired = start.elapsed();
    let extended = time(|| guard.extend(None).expect("an extension"));
    [acquired, extended, time(|| guard.release().expect("a release"))]
}

fn pairs(servers: &Servers, rounds: usize) {
    println!(
        "\nacquire and release of a free lock, and `git push` creating and deleting a ref: medians of {rounds}, in ms"
    );
    println!(
        "{:9} {:>8} {:>8} {:>8} {:>12} {:>12} {:>8} {:>8}",
        "server", "acquire", "extend", "release", "push create", "push delete", "ratio", "at most"
    );
    for endpoint in servers.endpoints() {
        let repo = Repo::new();
        endpoint.set_up(repo.path());
        let url = endpoint.url(LOCKS);
        let manager = open(repo.path(), &url, "bench");
        let mut script = Script { repo: &repo, url: &url, number: 0 };
        tenure(&manager, "warm");
        script.pair();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(tenure(&manager, "build"));
            theirs.push(script.pair());
        }
        let mine = |at: usize| median(ours.iter().map(|times| times[at]).collect());
        let git = |at: usize| median(theirs.iter().map(|times| times[at]).collect());
        let pair = median(ours.iter().map(|[acquired, _, released]| *acquired + *released).collect());
        let ratio = pair / median(theirs.iter().map(|[created, deleted]| *created + *deleted).collect());
        let most = target(endpoint.kind);
        println!(
            "{:9} {:>8.1} {:>8.1} {:>8.1} {:>12.1} {:>12.1} {:>7.2}x {:>8} {}",
            endpoint.kind.name(),
            mine(0),
            mine(1),
            mine(2),
            git(0),
            git(1),
            ratio,
            most.map_or_else(|| "-".to_owned(), |most| format!("{most}x")),
            if most.is_some_and(|most| ratio > most) { "MISSED" } else { "" }
        );
    }
}

/// The port of a URL of this machine, and the URL by way of another.
fn by_way_of(url: &str, port: u16) -> String {
    let (host, path) =
        url.split_once("127.0.0.1:").map(|(head, rest)| (head, rest.split_once('/').expect("a path"))).expect("a port");
    format!("{host}127.0.0.1:{port}/{}", path.1)
}

fn port_of(url: &str) -> u16 {
    let rest = url.split_once("127.0.0.1:").expect("a port").1;
    rest.split_once('/').expect("a path").0.parse().expect("a number")
}

fn trips(servers: &Servers, rounds: usize) {
    println!(
        "\nround trips on a line of {} ms, counted in a proxy: medians of {rounds} (and ms)",
        ROUND_TRIP.as_millis()
    );
    println!(
        "{:9} {:>14} {:>14} {:>14} {:>14} {:>14} {:>12}",
        "server", "acquire", "extend", "release", "push create", "push delete", "connections"
    );
    for endpoint in servers.endpoints() {
        if !matches!(endpoint.kind, Kind::Git | Kind::Http | Kind::Https) {
            continue;
        }
        let url = endpoint.url(LOCKS);
        let link = Link::start(port_of(&url), ROUND_TRIP / 2);
        let url = by_way_of(&url, link.port);
        let repo = Repo::new();
        set_up_by_way_of(&endpoint, repo.path(), link.port);
        let manager = open(repo.path(), &url, "bench");
        tenure(&manager, "warm");
        let mut script = Script { repo: &repo, url: &url, number: 0 };
        let mut counts: [Vec<u64>; 5] = Default::default();
        let mut times: [Vec<Duration>; 5] = Default::default();
        let mut connections = 0;
        for _ in 0..rounds {
            let before = link.connections();
            let mut step = |at: usize, run: &mut dyn FnMut()| {
                let trips = link.trips();
                times[at].push(time(run));
                counts[at].push(link.trips() - trips);
            };
            let mut guard = None;
            step(0, &mut || guard = Some(manager.lock("far").renew(false).acquire().expect("a lock")));
            step(1, &mut || guard.as_ref().expect("a guard").extend(None).expect("an extension"));
            step(2, &mut || guard.take().expect("a guard").release().expect("a release"));
            connections += link.connections() - before;
            let blob = script.blob();
            step(3, &mut || _ = script.push("", &format!("{blob}:refs/plain/lock")));
            step(4, &mut || _ = script.push(&blob, ":refs/plain/lock"));
        }
        print!("{:9}", endpoint.kind.name());
        for (counts, times) in counts.iter_mut().zip(times) {
            counts.sort_unstable();
            print!(" {:>5} ({:>6.1})", counts[counts.len() / 2], median(times));
        }
        println!(" {:>12.1}", connections as f64 / rounds as f64);
    }
    println!("connections: new ones of gitlock's for an acquire, an extension and a release together");
}

/// Configures a client that comes by way of a proxy.
fn set_up_by_way_of(endpoint: &Endpoint, client: &Path, port: u16) {
    let base = endpoint.url("");
    let own = format!("127.0.0.1:{}", port_of(&base));
    for (key, value) in &endpoint.settings {
        run_git(client, &["config", &key.replace(&own, &format!("127.0.0.1:{port}")), value]);
    }
}

fn throughput(servers: &Servers, span: Duration) {
    println!("\nacquire and release by so many clients at once, pairs a second over {} s", span.as_secs());
    println!("{:9} {:22} {:>8} {:>8} {:>8}", "server", "", 1, 8, 32);
    for endpoint in servers.endpoints() {
        if !matches!(endpoint.kind, Kind::Git | Kind::Http) {
            continue;
        }
        for (what, names) in [("one hot lock", 1), ("1,000 cold locks", 1_000)] {
            print!("{:9} {what:22}", endpoint.kind.name());
            for clients in [1, 8, 32] {
                // A repository of its own, so that nothing is left of the one before.
                let name = format!("{}-{names}-{clients}.git", endpoint.kind.name());
                servers.served().add(&name, &[]);
                print!(" {:>8.1}", many(&endpoint, &endpoint.url(&name), clients, names, span));
            }
            println!();
        }
    }
}

/// So many clients, each a manager in a repository of its own, over so many locks. Pairs a second.
fn many(endpoint: &Endpoint, url: &str, clients: u64, names: u64, span: Duration) -> f64 {
    let (done, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (done, next) = (&done, &next);
            scope.spawn(move || {
                let repo = Repo::with(&[]);
                endpoint.set_up(repo.path());
                let manager = open(repo.path(), url, &format!("client {client}"));
                while start.elapsed() < span {
                    let name = format!("lock-{}", next.fetch_add(1, SeqCst) % names);
                    let patience = span.saturating_sub(start.elapsed()) + Duration::from_millis(1);
                    match manager.lock(&name).wait(patience).acquire() {
                        Ok(guard) => {
                            guard.release().expect("a release");
                            done.fetch_add(1, SeqCst);
                        }
                        Err(error) if error.code() == gitlock::ErrorCode::Timeout => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    done.load(SeqCst) as f64 / start.elapsed().as_secs_f64()
}

/// What `git daemon` starts for one operation, by Git's own trace.
fn processes() {
    let served = Served::new();
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
    let trace = folder.path().join("trace");
    let child = Command::new("git")
        .args(["daemon", "--reuseaddr", "--listen=127.0.0.1", "--export-all", "--enable=receive-pack"])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", served.folder().display()))
        .env("GIT_TRACE2_EVENT", &trace)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("git daemon");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = format!("git://127.0.0.1:{port}/{LOCKS}");
    let repo = Repo::new();
    let manager = open(repo.path(), &url, "bench");
    tenure(&manager, "warm");
    println!("\nGit processes of the server for one operation, behind `git daemon`");
    let count = |run: &mut dyn FnMut()| {
        // What was started before ends, and says so, a moment after its answer.
        std::thread::sleep(Duration::from_millis(300));
        let _ = fs::remove_file(&trace);
        run();
        std::thread::sleep(Duration::from_millis(300));
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let started = text.lines().filter(|line| line.contains("\"event\":\"start\""));
        let names = started.filter_map(|line| {
            let word = line.split("\"argv\":[").nth(1)?.split(']').next()?;
            let words = word.split(',').map(|word| word.trim_matches('"').rsplit('/').next().unwrap_or_default());
            { words }.find(|word| !matches!(*word, "git" | "locks.git")).map(str::to_owned)
        });
        let names: Vec<String> = names.collect();
        format!("{}: {}", names.len(), names.join(", "))
    };
    let mut script = Script { repo: &repo, url: &url, number: 0 };
    let (mut guard, blob) = (None, script.blob());
    println!(
        "acquire      {}",
        count(&mut || guard = Some(manager.lock("one").renew(false).acquire().expect("a lock")))
    );
    println!("extend       {}", count(&mut || guard.as_ref().expect("a guard").extend(None).expect("an extension")));
    println!("release      {}", count(&mut || guard.take().expect("a guard").release().expect("a release")));
    println!("push create  {}", count(&mut || _ = script.push("", &format!("{blob}:refs/plain/lock"))));
    println!("push delete  {}", count(&mut || _ = script.push(&blob, ":refs/plain/lock")));
    let _ = child.kill();
    let _ = child.wait();
}
