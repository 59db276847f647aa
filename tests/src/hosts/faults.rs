//! What goes wrong: wires, the server, and those who want the lock.

use rustix::process::Signal;

use super::{
    Stage,
    net::{Network, wire},
};
use crate::torture::{Random, pause};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A host is cut off, both ways.
    Partition,
    /// What a host sends is lost.
    Upward,
    /// What a host is sent is lost: what it asks for is done, and it isn't told.
    Downward,
    /// Every host is cut off.
    Everybody,
    /// Packets are lost, delayed and put out of order; where wires can't be made, a third is lost.
    Lossy,
    /// The link is slow: packets wait for each other.
    Slow,
    /// The wire is pulled out.
    Unplugged,
    /// The server is killed with all that it does, and started again.
    ServerKilled,
    /// The server is stopped in the middle of what it does, and goes on.
    ServerStopped,
    /// A client is killed, and another started in its place.
    ClientKilled,
    /// A client is stopped past its lease, and goes on.
    ClientStopped,
}

impl Fault {
    const ALL: [Fault; 11] = [
        Fault::Partition,
        Fault::Upward,
        Fault::Downward,
        Fault::Everybody,
        Fault::Lossy,
        Fault::Slow,
        Fault::Unplugged,
        Fault::ServerKilled,
        Fault::ServerStopped,
        Fault::ClientKilled,
        Fault::ClientStopped,
    ];

    /// The next: each kind in its turn.
    pub(super) fn next(number: u64) -> Fault {
        Fault::ALL[usize::try_from(number).unwrap_or(0) % Fault::ALL.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::Partition => "partition",
            Fault::Upward => "upward lost",
            Fault::Downward => "downward lost",
            Fault::Everybody => "all cut off",
            Fault::Lossy => "lossy",
            Fault::Slow => "slow",
            Fault::Unplugged => "unplugged",
            Fault::ServerKilled => "server killed",
            Fault::ServerStopped => "server stopped",
            Fault::ClientKilled => "client killed",
            Fault::ClientStopped => "client stopped",
        }
    }
}

/// Makes a fault, and ends it.
pub(super) fn strike(fault: Fault, stage: &mut Stage<'_>, random: &mut Random) -> Result<(), String> {
    let hosts = stage.hosts as u64;
    let at = usize::try_from(random.below(hosts)).unwrap_or(0);
    let lasts = 200 + random.below(2_800);
    let client = usize::try_from(random.below(stage.clients.len() as u64)).unwrap_or(0);
    match fault {
        Fault::ServerKilled => {
            stage.daemon = None;
            pause(lasts);
            stage.start_server()?;
        }
        Fault::ServerStopped => {
            // Only what is there now: who connects meanwhile waits in the listener's queue.
            stage.daemon.iter().for_each(|daemon| daemon.signal(Signal::STOP));
            pause(lasts);
            stage.daemon.iter().for_each(|daemon| daemon.signal(Signal::CONT));
        }
        Fault::ClientKilled => stage.restart(client)?,
        Fault::ClientStopped => {
            stage.clients[client].process.signal(Signal::STOP);
            pause(super::TTL + lasts);
            stage.clients[client].process.signal(Signal::CONT);
        }
        _ => {
            disturb(fault, stage.network, at, stage.hosts)?;
            pause(lasts);
            heal(stage.network, at)?;
        }
    }
    Ok(())
}

fn disturb(fault: Fault, network: &Network, at: usize, hosts: usize) -> Result<(), String> {
    let device = wire(at);
    let drop = |chain: &str, flag: &str, device: &str| {
        network.at_server(&["iptables", "-A", chain, flag, device, "-j", "DROP"]).map(|_| ())
    };
    match fault {
        Fault::Upward => drop("INPUT", "-i", &device),
        Fault::Downward => drop("OUTPUT", "-o", &device),
        Fault::Partition => drop("INPUT", "-i", &device).and_then(|()| drop("OUTPUT", "-o", &device)),
        Fault::Everybody => (0..hosts).map(wire).try_for_each(|device| {
            drop("INPUT", "-i", &device)?;
            drop("OUTPUT", "-o", &device)
        }),
        Fault::Unplugged => network.at_server(&["ip", "link", "set", &device, "down"]).map(|_| ()),
        Fault::Lossy if network.wire(at).is_some() => {
            network.wire(at).iter().for_each(|wire| wire.go_bad(true));
            Ok(())
        }
        Fault::Lossy => [("INPUT", "-i"), ("OUTPUT", "-o")].into_iter().try_for_each(|(chain, flag)| {
            let random = ["-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP"];
            network.at_server(&[&["iptables", "-A", chain, flag, &device][..], &random].concat()).map(|_| ())
        }),
        _ => shape(network, at, &["tbf", "rate", "128kbit", "burst", "2kb", "latency", "800ms"]),
    }
}

/// Shapes what goes over a wire, at both of its ends.
fn shape(network: &Network, at: usize, words: &[&str]) -> Result<(), String> {
    let device = wire(at);
    network.at_server(&[&["tc", "qdisc", "replace", "dev", &device, "root"], words].concat())?;
    network.at_host(at, &[&["tc", "qdisc", "replace", "dev", "wire", "root"], words].concat()).map(|_| ())
}

fn heal(network: &Network, at: usize) -> Result<(), String> {
    let device = wire(at);
    network.wire(at).iter().for_each(|wire| wire.go_bad(false));
    network.at_server(&["iptables", "-F"])?;
    network.at_server(&["ip", "link", "set", &device, "up"])?;
    // Where nothing was shaped there is nothing to take away.
    let _ = network.at_server(&["tc", "qdisc", "delete", "dev", &device, "root"]);
    let _ = network.at_host(at, &["tc", "qdisc", "delete", "dev", "wire", "root"]);
    Ok(())
}
