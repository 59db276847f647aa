//! Hosts: network namespaces with clients in every language around one that has a Git server, while the network, the
//! server and the clients fail.
//!
//! Each host has its own boot id, boot clock, name, and a wall clock that is wrong by minutes. The oracle is a resource
//! outside (`resource.rs`) that goes by tokens alone; at the end plain Git looks at what is left.

mod faults;
mod net;
mod resource;
mod wires;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use gitlock::{LockManager, store::remote::init_server};

use crate::{
    git::{fast_folder, run_git, try_git},
    servers::group::Group,
    skipped,
    torture::{Random, descendants, kill_descendant, millis, pause, random_seed},
};

use faults::{Fault, strike};
use net::Network;
use resource::{Resource, Seen};

/// The locks that everybody wants.
const LOCKS: [&str; 6] = ["build", "deploy", "docs", "release", "site", "test"];

/// The lease that everybody asks for, in milliseconds. The workers of other languages have the same numbers.
const TTL: u64 = 3_000;

/// How long everybody waits, in milliseconds.
const WAIT: u64 = 15_000;

/// How often a waiter looks at first, in milliseconds.
const POLL: u64 = 150;

/// How long a question to the server may take, in milliseconds.
const TIMEOUT: u64 = 2_000;

/// How long after the end of a fault every lock has to have been granted again, in milliseconds: a lease of a client that
/// is gone, the claim windows of waiters that are, and a machine that is busy.
const STUCK: u64 = 45_000;

/// Where the server listens.
const PORT: u16 = 9_418;

const USAGE: &str = "\
usage: hosts [OPTIONS]
  --seconds S          how long (default 180, unless one of the next two is given)
  --faults N           until there were so many faults
  --acquisitions N     and so many acquisitions
  --git-lock PATH      the git-lock program; without it the command line takes no part
  --worker ROLE=PROGRAM[,ARGUMENT]  a worker in another language; may be repeated
  --seed N             the randomness (default: random, and printed)
";

#[derive(Debug, Default)]
struct Settings {
    seconds: Option<u64>,
    faults: Option<u64>,
    acquisitions: Option<u64>,
    git_lock: Option<String>,
    workers: Vec<String>,
    seed: u64,
}

/// The program `hosts`.
pub fn main(arguments: &[String]) -> ExitCode {
    match arguments.split_first() {
        Some((word, rest)) if word == "worker" => return work(rest),
        Some((word, [root, name, role])) if word == "inside" => {
            worker::inside(Path::new(root), name, role);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match parse(arguments).and_then(|settings| run(&settings)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("hosts: {why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Result<Settings, String> {
    let mut settings = Settings { seed: random_seed(), ..Settings::default() };
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{value:?} is no number"));
        match word.as_str() {
            "--seconds" => settings.seconds = Some(number()?),
            "--faults" => settings.faults = Some(number()?),
            "--acquisitions" => settings.acquisitions = Some(number()?),
            "--git-lock" => settings.git_lock = Some(value.clone()),
            "--worker" => settings.workers.push(value.clone()),
            "--seed" => settings.seed = number()?,
            other => return Err(format!("what is {other:?}?")),
        }
    }
    Ok(settings)
}

/// One worker: its way, the git-lock program, and what every worker is told.
fn work(words: &[String]) -> ExitCode {
    let Some(([way, git_lock], rest)) = words.split_first_chunk() else { return ExitCode::from(2) };
    let Some(task) = worker::Task::new(rest) else { return ExitCode::from(2) };
    match way.as_str() {
        "cli" => task.command_line(Path::new(git_lock)),
        _ => task.library(),
    }
    ExitCode::SUCCESS
}

/// The path of this program.
fn myself() -> String {
    std::env::current_exe().map_or_else(|_| "hosts".to_owned(), |path| path.display().to_string())
}

/// One client: on which host, what it is called, and what starts it.
struct Client {
    host: usize,
    role: String,
    words: Vec<String>,
    process: Group,
}

/// Everything that runs.
struct Stage<'a> {
    network: &'a Network,
    root: PathBuf,
    hosts: usize,
    // Both end before the namespaces do.
    daemon: Option<Group>,
    clients: Vec<Client>,
    random: Random,
}

impl Stage<'_> {
    fn start_server(&mut self) -> Result<(), String> {
        let served = self.root.join("served");
        // A server that was killed may have left .lock files, which no client can take away.
        let locks = LockManager::open(served.join("locks.git")).map_err(|error| error.to_string())?;
        for left in locks.doctor(true).map_err(|error| error.to_string())?.iter().filter(|finding| finding.fixed) {
            println!("  {}", left.what);
        }
        let mut command = self.network.server_command("git");
        command.args(["daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--max-connections=0"]);
        // A client that is cut off is not waited for.
        command.args(["--timeout=15", "--init-timeout=15"]);
        command.arg(format!("--port={PORT}")).arg(format!("--base-path={}", served.display()));
        let mut daemon = Group::start(&mut command).map_err(|error| format!("git daemon: {error}"))?;
        let url = format!("git://127.0.0.1:{PORT}/locks.git");
        if !daemon.comes_up(|| self.network.at_server(&["git", "ls-remote", "-q", &url]).is_ok()) {
            return Err("git daemon doesn't answer".to_owned());
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    fn start(&mut self, host: usize, role: &str, words: &[String]) -> Result<Group, String> {
        let repo = self.root.join(format!("repo-{host}"));
        let remote = format!("git://{}:{PORT}/locks.git", Network::address(host));
        let mut all = words.to_vec();
        all.extend([self.root.display().to_string(), repo.display().to_string(), remote, role.to_owned()]);
        all.push(self.random.below(1 << 30).to_string());
        Group::start(&mut self.network.command(host, &all)).map_err(|error| format!("{role}: {error}"))
    }

    fn add(&mut self, host: usize, role: &str, words: Vec<String>) -> Result<(), String> {
        let process = self.start(host, role, &words)?;
        self.clients.push(Client { host, role: role.to_owned(), words, process });
        Ok(())
    }

    /// Kills a client, and starts another in its place.
    fn restart(&mut self, at: usize) -> Result<(), String> {
        let (host, role, words) =
            (self.clients[at].host, self.clients[at].role.clone(), self.clients[at].words.clone());
        self.clients[at].process.signal(rustix::process::Signal::KILL);
        let process = self.start(host, &role, &words)?;
        self.clients[at].process = process;
        Ok(())
    }
}

fn run(settings: &Settings) -> Result<bool, String> {
    // Orphans come to this process, which sees to their end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| error.to_string())?;
    let folder =
        tempfile::Builder::new().prefix("gitlock-hosts-").tempdir_in(fast_folder()).map_err(|e| e.to_string())?;
    let ways = ways(settings);
    let network = match Network::new(ways.len(), folder.path()) {
        Ok(network) => network,
        Err(why) => {
            skipped("hosts", &why);
            return Ok(true);
        }
    };
    println!("seed {}", settings.seed);
    network.missing().iter().for_each(|(what, why)| skipped(what, why));
    check_hosts(&network, ways.len())?;
    let root = folder.path().to_owned();
    fs::create_dir(root.join("served")).map_err(|error| error.to_string())?;
    let locks = root.join("served/locks.git");
    init_server(&locks).map_err(|error| error.to_string())?;
    (0..ways.len()).for_each(|host| drop(run_git(&root, &["init", "-q", &format!("repo-{host}")])));
    let resource = Resource::start(&root.join("resource")).map_err(|error| error.to_string())?;
    let mut stage = Stage {
        network: &network,
        root: root.clone(),
        hosts: ways.len(),
        daemon: None,
        clients: Vec::new(),
        random: Random::new(settings.seed),
    };
    let began = millis();
    let done = trouble(settings, &mut stage, &ways, &resource);
    let ended = end(&mut stage);
    let (struck, longest) = done?;
    for why in ended.into_iter().chain(left_over(&locks)) {
        resource.fault(why);
    }
    let seen = resource.judge();
    let faults = [seen.faults.clone(), journal(&locks, &seen)].concat();
    tell(&seen, &struck, longest, millis() - began, &faults);
    let carried = stage.network.carried();
    println!(
        "  packets lost by a bad wire: {}, late: {}, overtaken: {}",
        carried.lost, carried.late, carried.overtaken
    );
    drop(stage);
    if !faults.is_empty() {
        println!("  the folder is kept: {}", folder.keep().display());
    }
    Ok(faults.is_empty())
}

/// Who works on each host.
fn ways(settings: &Settings) -> Vec<(String, Vec<String>)> {
    let ours = |way: &str, git_lock: &str| [&*myself(), "worker", way, git_lock].map(str::to_owned).to_vec();
    let mut ways = vec![("rust".to_owned(), ours("library", "-"))];
    match &settings.git_lock {
        Some(path) => ways.push(("cli".to_owned(), ours("cli", path))),
        None => skipped("the command line", "no --git-lock"),
    }
    for worker in &settings.workers {
        let (role, words) = worker.split_once('=').unwrap_or(("other", worker));
        ways.push((role.to_owned(), words.split(',').map(str::to_owned).collect()));
    }
    ways
}

/// Makes sure that hosts are what they are taken for.
fn check_hosts(network: &Network, hosts: usize) -> Result<(), String> {
    let told: Vec<String> = (0..hosts).map(|host| network.clocks(host)).collect();
    let boots: BTreeSet<&str> = told.iter().filter_map(|clocks| clocks.split(' ').next()).collect();
    println!("{hosts} hosts: boot id, boot clock and wall clock in s: {}", told.join("; "));
    if boots.len() == hosts { Ok(()) } else { Err("two hosts have the same boot".to_owned()) }
}

type Struck = BTreeMap<&'static str, u64>;

/// Starts everybody, and makes trouble until it is enough. Returns the faults, and how long the locks took at most to be
/// granted again, in milliseconds.
fn trouble(
    settings: &Settings,
    stage: &mut Stage<'_>,
    ways: &[(String, Vec<String>)],
    resource: &Resource,
) -> Result<(Struck, u64), String> {
    stage.start_server()?;
    for (host, (role, words)) in ways.iter().enumerate() {
        for _ in 0..2 {
            stage.add(host, role, words.clone())?;
        }
    }
    let mut random = Random::new(settings.seed ^ 1);
    let bounded =
        settings.seconds.or(if settings.faults.or(settings.acquisitions).is_none() { Some(180) } else { None });
    let until = bounded.map_or(u64::MAX, |seconds| millis() + seconds * 1_000);
    let (mut struck, mut longest, mut number) = (Struck::new(), 0, 0);
    longest =
        wait_for_grants(resource, millis()).unwrap_or_else(|why| stuck(resource, "the beginning", &why)).max(longest);
    while millis() < until {
        let enough = number >= settings.faults.unwrap_or(0) && resource.count() >= settings.acquisitions.unwrap_or(0);
        if bounded.is_none() && enough {
            break;
        }
        let fault = Fault::next(number);
        strike(fault, stage, &mut random)?;
        number += 1;
        *struck.entry(fault.name()).or_default() += 1;
        let took = wait_for_grants(resource, millis()).unwrap_or_else(|why| stuck(resource, fault.name(), &why));
        longest = longest.max(took);
        for client in &mut stage.clients {
            if let Some(status) = client.process.ended() {
                let said = stage.network.said(client.host);
                resource.fault(format!("a {} worker ended by itself: {status}: {said}", client.role));
                return Ok((struck, longest));
            }
        }
        if number.is_multiple_of(20) {
            println!("{number} faults, {} acquisitions", resource.count());
        }
    }
    Ok((struck, longest))
}

fn stuck(resource: &Resource, after: &str, why: &str) -> u64 {
    resource.fault(format!("STUCK LOCK after {after}: {why}"));
    STUCK
}

/// Waits until every lock has been granted since then. Returns how long that took.
fn wait_for_grants(resource: &Resource, since: u64) -> Result<u64, String> {
    loop {
        let waiting: Vec<&str> = LOCKS.into_iter().filter(|lock| resource.last(lock) < since).collect();
        if waiting.is_empty() {
            return Ok(millis() - since);
        }
        if millis() - since > STUCK {
            return Err(format!("nobody was granted {} for {STUCK} ms", waiting.join(", ")));
        }
        pause(20);
    }
}

/// Ends everybody, in peace; then each lock has to be free for whoever comes, and the server goes too.
fn end(stage: &mut Stage<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let _ = fs::write(stage.root.join("stop"), "");
    let until = millis() + WAIT + 15_000;
    for client in &mut stage.clients {
        let status = loop {
            match client.process.ended() {
                None if millis() < until => pause(20),
                status => break status,
            }
        };
        match status {
            Some(status) if status.success() => {}
            Some(status) => faults.push(format!("a {} worker ended with {status}", client.role)),
            None => faults.push(format!("a {} worker doesn't end", client.role)),
        }
    }
    stage.clients.clear();
    // What killed clients left at work.
    let me = std::process::id();
    let server = stage.daemon.as_ref().map(|daemon| daemon.id());
    let theirs: Vec<u32> = server.map(descendants).unwrap_or_default();
    for pid in descendants(me) {
        if Some(pid) != server && !theirs.contains(&pid) {
            kill_descendant(me, pid);
        }
    }
    faults
}

/// What is left in the server's repository: no lock that nobody can have, and nothing that Git finds wrong.
fn left_over(locks: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    // A path of this machine is opened as one, which needs no server.
    match LockManager::open(locks) {
        Ok(manager) => {
            for name in LOCKS {
                let wait = std::time::Duration::from_millis(STUCK);
                let freed = manager.lock(name).wait(wait).acquire().and_then(|guard| guard.release());
                faults.extend(freed.err().map(|error| format!("STUCK LOCK at the end: {name}: {error}")));
            }
            manager.close();
        }
        Err(error) => faults.push(format!("the server's repository can't be opened: {error}")),
    }
    let refs = run_git(locks, &["for-each-ref", "--format=%(refname)", "refs/gitvan/locks"]);
    if !refs.is_empty() {
        faults.push(format!("LEAKED LOCK: {refs}"));
    }
    let output = try_git(locks, &["fsck", "--strict", "--full"]);
    if !output.status.success() {
        faults.push(format!("FSCK: {}", String::from_utf8_lossy(&output.stderr)));
    }
    faults
}

/// Every tenure has ended once, no token is there twice, and who was told that it released did.
fn journal(locks: &Path, seen: &Seen) -> Vec<String> {
    let format = "--format=%s%x09%(trailers:key=Lock-Id,valueonly,separator=)%x09%(trailers:key=Lock-Token,valueonly,separator=)";
    let mut faults = Vec::new();
    for lock in LOCKS {
        let told = run_git(locks, &["log", format, &format!("refs/gitvan/journal/{lock}")]);
        let (mut ids, mut tokens) = (BTreeSet::new(), BTreeMap::new());
        for line in told.lines() {
            let mut parts = line.split('\t');
            let (subject, id, token) =
                (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            if !ids.insert(id.to_owned()) {
                faults.push(format!("JOURNAL: the tenure {id} ended twice in {lock}"));
            }
            let Ok(token) = token.parse::<u64>() else { continue };
            // A cut-off acquire may not have come to mend the token that it began with. Nobody was told that token: the
            // tenure has expired.
            let told = |subject: &str| subject == format!("{lock}: released");
            let before = tokens.get(&token).is_some_and(|before: &String| told(before));
            if before && told(subject) {
                faults.push(format!("REPEATED TOKEN in the journal of {lock}: {token}"));
            }
            if !before {
                tokens.insert(token, subject.to_owned());
            }
        }
        for (_, token) in seen.released.iter().filter(|(name, _)| name == lock) {
            let subject = tokens.get(token).map_or("", |subject| subject);
            // A release that was cut off, and whose lease somebody else ended before it could be sent again: it had left
            // before, and that is judged by who was inside when.
            let ended = ["released", "expired"].map(|how| format!("{lock}: {how}"));
            if !ended.iter().any(|ended| ended == subject) {
                faults
                    .push(format!("JOURNAL: the holder of {lock} with {token} was told that it released: {subject:?}"));
            }
        }
    }
    faults.truncate(20);
    faults
}

fn tell(seen: &Seen, struck: &Struck, longest: u64, took: u64, faults: &[String]) {
    let each = |counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let kinds: Vec<String> = struck.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!(
        "{} faults over {} acquisitions in {:.1} s",
        struck.values().sum::<u64>(),
        seen.entered.values().sum::<u64>(),
        took as f64 / 1_000.0
    );
    println!("  faults: {}", kinds.join(", "));
    println!("  inside: {}", each(&seen.entered));
    println!("  refused because of an old token: {} as they came, {} as they left", seen.refused, seen.late);
    println!("  releases: {}", each(&seen.results));
    println!("  acquires that failed: {}", each(&seen.failures));
    println!("  every lock was granted again within {longest} ms after a fault");
    faults.iter().take(20).for_each(|fault| println!("  FAULT {fault}"));
    println!("{}", if faults.is_empty() { "no double grant, no stuck lock" } else { "FAULTS" });
}
