//! Networks that can be cut: each node in a namespace of its own, all traffic forwarded by one more, where packets from one end to another can be
//! dropped without a word: no RST, no ICMP, as behind a dead switch. Needs root and `ip` (iproute2). Nothing of nodes is here.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Of addresses that are to be nobody's (RFC 5737), a /24 each; one a run. A machine that has one of them for itself keeps it.
const BLOCKS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(198, 51, 100, 0),
    Ipv4Addr::new(203, 0, 113, 0),
    Ipv4Addr::new(192, 0, 2, 0),
];
/// How long another run's is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
/// Nodes that a block has room for: a /30 each behind the first eight addresses.
const ROOM: usize = 62;
/// In front of the table of routes.
const RULE: &str = "pref 100";

/// An end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A node.
    Node(usize),
    /// Where nodes reach the store: an address of this machine.
    Store,
    /// Where clients come from: another one.
    Clients,
}

/// See the module. Gone with its drop.
#[derive(Debug)]
pub struct Network {
    base: u32,
    /// Begins every name that is made.
    name: String,
    cuts: BTreeSet<(End, End)>,
    /// Held for as long as the block is ours; the kernel lets go of it however the process ends.
    _lock: File,
}

/// `ip` with these words.
fn ip(words: &str) -> Result<()> {
    let done = Command::new("ip")
        .args(words.split(' '))
        .output()
        .context("`ip` of iproute2 is needed")?;
    if !done.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// A block that nobody has, with all that an earlier run, whose process was killed, left of it removed.
fn take() -> Result<(usize, File)> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        for (number, block) in BLOCKS.into_iter().enumerate() {
            let lock = File::create(std::env::temp_dir().join(format!("godwit-network-{number}.lock")))?;
            if lock.try_lock().is_ok() {
                remove(&name(number));
                if !is_routed(&std::fs::read_to_string("/proc/net/route")?, block) {
                    return Ok((number, lock));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!(
        "of the networks {BLOCKS:?} none is free: as many runs are under way, or this machine has one of them"
    )
}

fn name(number: usize) -> String {
    format!("gwc{number}")
}

/// Whether the machine's table of routes has one, besides that to everywhere, into a block.
fn is_routed(table: &str, block: Ipv4Addr) -> bool {
    table.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            let text = words.get(at)?;
            Some(u32::from_str_radix(text, 16).ok()?.swap_bytes())
        };
        let (Some(to), Some(mask)) = (number(1), number(7)) else {
            return false;
        };
        // The shorter of the two masks decides whether one is in the other.
        let both = mask & 0xFFFF_FF00;
        mask != 0 && to & both == block.to_bits() & both
    })
}

/// What is not there is no error.
fn remove(name: &str) {
    let all = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let spaces = all.filter_map(|entry| entry.file_name().into_string().ok());
    for space in spaces.filter(|space| space.starts_with(name)) {
        // Nodes whose test was killed; those of a test that ends have ended.
        let found = Command::new("ip").args(["netns", "pids", &space]).output();
        let left = found.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
        for pid in left.unwrap_or_default().split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = ip(&format!("netns del {space}"));
    }
    let _ = ip(&format!("link del {name}c"));
}

impl Network {
    /// Makes it for so many nodes, nothing cut.
    ///
    /// # Errors
    /// Without root, `ip`, or a kernel with namespaces, `veth` and rules; or with too many nodes.
    pub fn start(count: usize) -> Result<Self> {
        if count > ROOM {
            bail!("a network has room for {ROOM} nodes");
        }
        let (number, lock) = take()?;
        let made = Self {
            base: BLOCKS[number].to_bits(),
            name: name(number),
            cuts: BTreeSet::new(),
            _lock: lock,
        };
        let (name, hub) = (&made.name, made.at(1));
        ip(&format!("netns add {name}h"))?;
        ip(&format!(
            "link add {name}c type veth peer name host netns {name}h"
        ))?;
        // Clients first: the address that is taken when nobody asks for one.
        ip(&format!("addr add {}/29 dev {name}c", made.address(End::Clients)))?;
        ip(&format!("addr add {}/29 dev {name}c", made.address(End::Store)))?;
        ip(&format!("link set dev {name}c up"))?;
        ip(&format!("-n {name}h addr add {hub}/29 dev host"))?;
        ip(&format!("-n {name}h link set dev host up"))?;
        ip(&format!("route add {}/24 via {hub} dev {name}c", made.at(0)))?;
        for node in 0..count {
            let (space, near) = (made.space(node), made.at(9 + 4 * node));
            ip(&format!("netns add {space}"))?;
            ip(&format!(
                "-n {name}h link add n{node} type veth peer name eth0 netns {space}"
            ))?;
            ip(&format!("-n {name}h addr add {near}/30 dev n{node}"))?;
            ip(&format!("-n {name}h link set dev n{node} up"))?;
            let own = made.address(End::Node(node));
            ip(&format!("-n {space} addr add {own}/30 dev eth0"))?;
            ip(&format!("-n {space} link set dev eth0 up"))?;
            ip(&format!("-n {space} link set dev lo up"))?;
            ip(&format!("-n {space} route add default via {near}"))?;
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip_exec(&format!("{name}h"), forward)?;
        Ok(made)
    }

    fn at(&self, number: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + number as u32)
    }

    fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    /// The address of an end.
    pub fn address(&self, end: End) -> Ipv4Addr {
        match end {
            End::Clients => self.at(2),
            End::Store => self.at(3),
            End::Node(node) => self.at(10 + 4 * node),
        }
    }

    /// What starts a process at a node's end: it becomes the process.
    pub fn command(&self, node: usize) -> Vec<String> {
        let space = format!("--net=/run/netns/{}", self.space(node));
        vec!["nsenter".to_owned(), space, "--".to_owned()]
    }

    /// From now on nothing comes from one end to another.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cut_one_way(&mut self, from: End, to: End) -> Result<()> {
        if self.cuts.insert((from, to)) {
            self.rule("add", from, to)?;
        }
        Ok(())
    }

    /// From now on nothing passes between two ends.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cut(&mut self, one: End, other: End) -> Result<()> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// Everything passes again between two ends.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn heal(&mut self, one: End, other: End) -> Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            if self.cuts.remove(&(from, to)) {
                self.rule("del", from, to)?;
            }
        }
        Ok(())
    }

    /// Everything passes again.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn heal_all(&mut self) -> Result<()> {
        while let Some((from, to)) = self.cuts.pop_first() {
            self.rule("del", from, to)?;
        }
        Ok(())
    }

    fn rule(&self, what: &str, from: End, to: End) -> Result<()> {
        let (from, to) = (self.address(from), self.address(to));
        ip(&format!(
            "-n {}h rule {what} {RULE} from {from} to {to} blackhole",
            self.name
        ))
    }
}

fn ip_exec(space: &str, script: &str) -> Result<()> {
    let done = Command::new("ip")
        .args(["netns", "exec", space, "sh", "-c", script])
        .output()?;
    if !done.status.success() {
        bail!("{script}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    /// Whether a connection from the clients' end to the node's listener comes to be.
    fn reaches(to: SocketAddr) -> bool {
        TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok()
    }

    #[test]
    fn a_block_that_the_machine_has_a_route_to_is_left_alone() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            eth1\t107100CB\t00000000\t0001\t0\t0\t0\tF0FFFFFF\t0\t0\t0\n";
        let routed: Vec<bool> = BLOCKS.iter().map(|block| is_routed(table, *block)).collect();
        assert_eq!(routed, [false, true, true]);
    }

    #[test]
    fn what_is_cut_one_way_does_not_pass_and_passes_when_it_is_healed() {
        let mut network = Network::start(2).expect("root, iproute2 and namespaces");
        let space = File::open(format!("/run/netns/{}", network.space(1))).expect("a namespace");
        let at = SocketAddr::from((network.address(End::Node(1)), 7_000));
        // The socket stays where its thread was.
        let bound = std::thread::spawn(move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            use std::os::fd::AsFd as _;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
            TcpListener::bind(at).expect("a port")
        });
        let _listener = bound.join().expect("a listener");
        assert!(reaches(at));
        for (from, to) in [(End::Clients, End::Node(1)), (End::Node(1), End::Clients)] {
            network.cut_one_way(from, to).expect("a cut");
            assert!(!reaches(at), "{from:?} {to:?}");
            network.heal(to, from).expect("healed");
            assert!(reaches(at));
        }
        network.cut(End::Node(0), End::Node(1)).expect("a cut");
        network.cut(End::Node(1), End::Store).expect("a cut");
        assert!(reaches(at), "somebody else's cut");
        network.heal_all().expect("healed");
    }
}
