//! Network namespaces as hosts: one for the server, and others, each with a wire to it, a boot of its own, and
//! clocks of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{faketime, servers::group::program};

use super::wires::{Carried, Wire};

/// What a program on a host is started by: the host's boot id and name, then its clock, then the program.
const ENTER: &str = r#"
mount --bind "$1" /proc/sys/kernel/random/boot_id && hostname "$2" || exit 99
said=$1.said
shift 2
exec env "$@" 2>>"$said"
"#;

/// By how many seconds the hosts' wall clocks are wrong, one after the other.
const WRONG: [i64; 5] = [0, 420, -180, 1_800, -3_600];

/// The namespaces. They are gone with this; what runs in them has to end before.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
    folder: PathBuf,
    hosts: usize,
    /// The library that shifts a process's wall clock.
    faketime: Option<PathBuf>,
    /// Whether boot clocks can differ.
    own_time: bool,
    /// The wires, by host, if they can be made; else the kernel's own.
    wires: Vec<Wire>,
}

fn run(words: &[&str]) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("`{}`: {why}", words.join(" "));
    let output = Command::new(words[0]).args(&words[1..]).output().map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(failed(&String::from_utf8_lossy(&output.stderr).trim()))
}

impl Network {
    /// Makes so many hosts, which keep their boot ids in `folder`.
    ///
    /// # Errors
    /// What isn't there.
    pub(super) fn new(hosts: usize, folder: &Path) -> Result<Network, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make network namespaces".to_owned());
        }
        for (name, package) in
            [("ip", "iproute2"), ("iptables", "iptables"), ("tc", "iproute2"), ("unshare", "util-linux")]
        {
            program(name, package)?;
        }
        let own_time = run(&["unshare", "--time", "--boottime", "1000", "true"]).is_ok();
        let name = format!("gitlock{}", std::process::id());
        let mut network = Network {
            name,
            folder: folder.to_owned(),
            hosts: 0,
            faketime: faketime::library(),
            own_time,
            wires: Vec::new(),
        };
        network.make(hosts)?;
        Ok(network)
    }

    fn make(&mut self, hosts: usize) -> Result<(), String> {
        let server = self.server();
        run(&["ip", "netns", "add", &server])?;
        run(&["ip", "-n", &server, "link", "set", "lo", "up"])?;
        for at in 0..hosts {
            let (host, wire) = (self.host(at), wire(at));
            run(&["ip", "netns", "add", &host])?;
            self.hosts = at + 1;
            let ends = [format!("gl{}s{at}", std::process::id()), format!("gl{}h{at}", std::process::id())];
            match Wire::new([&ends[0], &ends[1]], at as u64) {
                Ok(own) => {
                    self.wires.push(own);
                    run(&["ip", "link", "set", &ends[0], "netns", &server, "name", &wire])?;
                    run(&["ip", "link", "set", &ends[1], "netns", &host, "name", "wire"])?;
                }
                Err(_) => {
                    let veth = ["type", "veth", "peer", "name", "wire", "netns", &host];
                    run(&[&["ip", "link", "add", &wire, "netns", &server], &veth[..]].concat())?;
                }
            }
            for (place, device, last) in [(&server, &*wire, 1), (&host, "wire", 2)] {
                let address = format!("10.77.{at}.{last}/30");
                run(&["ip", "-n", place, "address", "add", &address, "dev", device])?;
                run(&["ip", "-n", place, "link", "set", device, "up"])?;
            }
            run(&["ip", "-n", &host, "link", "set", "lo", "up"])?;
            let boot = format!("00000000-0000-4000-8000-{:012x}\n", u64::from(std::process::id()) << 8 | at as u64);
            fs::write(self.boot(at), boot).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// A host's wire, if it can be disturbed.
    pub(super) fn wire(&self, at: usize) -> Option<&Wire> {
        self.wires.get(at)
    }

    /// What all wires did to frames.
    pub(super) fn carried(&self) -> Carried {
        let add = |sum: Carried, one: Carried| Carried {
            lost: sum.lost + one.lost,
            late: sum.late + one.late,
            overtaken: sum.overtaken + one.overtaken,
        };
        self.wires.iter().map(Wire::carried).fold(Carried::default(), add)
    }

    fn server(&self) -> String {
        format!("{}-server", self.name)
    }

    fn host(&self, at: usize) -> String {
        format!("{}-{at}", self.name)
    }

    fn boot(&self, at: usize) -> PathBuf {
        self.folder.join(format!("boot-{at}"))
    }

    /// A program at the server.
    pub(super) fn server_command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.server(), program]);
        command
    }

    /// Runs something at the server.
    pub(super) fn at_server(&self, words: &[&str]) -> Result<String, String> {
        run(&[&["ip", "netns", "exec", &self.server()], words].concat())
    }

    /// Runs something on a host's side of the network.
    pub(super) fn at_host(&self, at: usize, words: &[&str]) -> Result<String, String> {
        run(&[&["ip", "netns", "exec", &self.host(at)], words].concat())
    }

    /// A program on a host.
    pub(super) fn command(&self, at: usize, words: &[String]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(at), "unshare", "--mount", "--uts"]);
        if self.own_time {
            command.args(["--time", "--boottime", &(1_000_000 * (at + 1)).to_string()]);
        }
        command.args(["sh", "-c", ENTER, "sh"]).arg(self.boot(at)).arg(format!("host-{at}"));
        if let Some(library) = &self.faketime {
            let by = format!("{:+}s", WRONG[at % WRONG.len()]);
            let variables = faketime::environment(library, &by);
            command.args(variables.map(|(name, value)| format!("{name}={value}")));
        }
        command.args(words);
        command
    }

    /// What programs of a host said on stderr.
    pub(super) fn said(&self, at: usize) -> String {
        let said = fs::read_to_string(self.boot(at).with_extension("said")).unwrap_or_default();
        said.trim().replace('\n', " | ")
    }

    /// What the server is called from a host.
    pub(super) fn address(at: usize) -> String {
        format!("10.77.{at}.1")
    }

    /// Says what a host takes for its boot, its boot clock and its wall clock.
    pub(super) fn clocks(&self, at: usize) -> String {
        let script = "cat /proc/sys/kernel/random/boot_id; cut -d. -f1 /proc/uptime; date +%s".to_owned();
        let output = self.command(at, &["sh".to_owned(), "-c".to_owned(), script]).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().replace('\n', " ")).unwrap_or_default()
    }

    /// What can't be had here, and what is done instead.
    pub(super) fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let mut missing = Vec::new();
        if self.faketime.is_none() {
            missing.push(("wrong wall clocks", "Debian's package faketime isn't here"));
        }
        if !self.own_time {
            missing.push(("boot clocks of their own", "the kernel has no time namespaces"));
        }
        if self.wires.is_empty() {
            missing
                .push(("packets out of order", "there is no /dev/net/tun; packets that are lost at random stand in"));
        }
        missing
    }
}

/// A host's wire, at the server.
pub(super) fn wire(at: usize) -> String {
    format!("host{at}")
}

impl Drop for Network {
    fn drop(&mut self) {
        for at in 0..self.hosts {
            let _ = run(&["ip", "netns", "delete", &self.host(at)]);
        }
        let _ = run(&["ip", "netns", "delete", &self.server()]);
    }
}
