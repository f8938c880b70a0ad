//! The faults: what is done to the nodes of a run, their networks and their clocks while clients chat, how often, and how long it may leave them
//! without service. How each is done is in the modules below.

mod clock;
mod conditional;
mod crash;
mod cut;
mod everything;
mod slow;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use godwit_cassandra::Cluster;
use rand::RngExt;

use crate::around::Around;
use crate::outcome::Outcome;
use crate::rig::{Rig, SERVED, Size};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a node, started again some seconds later. Row 1 of the table of faults.
    Kill,
    /// kill -9 of two nodes at once, started again some seconds later. Of five, if they are to have a majority that never was away.
    KillTwo,
    /// kill -9 of all nodes at once, and a start of all. Row 2.
    KillAll,
    /// SIGSTOP of a node for three leases, then SIGCONT. Row 4.
    Freeze,
    /// A node is drained, ended and started again: it joins.
    Drain,
    /// SIGTERM to each node, one after the other, and a start of it. One time is all of them.
    Restart,
    /// Clients leave and come back at other nodes, each about once a second. Row 14. One time is five seconds.
    Roam,
    /// One of three replicas of the store is killed, then a second one, then both are started again. Row 8. Needs a Cassandra of three.
    Replicas,
    /// Nothing passes between two nodes. Row 5.
    Peers,
    /// Nothing passes from one node to another, but the other way. Row 5.
    PeersOneWay,
    /// Nothing passes between a node and the store. Row 6.
    Store,
    /// Nothing passes between a node and all others, the store among them.
    Apart,
    /// All links, to peers, store and clients, are cut one by one and healed in another order. Row 7. One time is a round.
    Links,
    /// Everything between nodes, and between them and the store, is 200 ms late, and one piece of 100 stalls.
    Slow,
    /// 5 % of the answers of lightweight transactions are lost or late while nodes are killed, drained and joined and users register. Row 9.
    Conditional,
    /// The clock of a node is set an hour and ten seconds forth and back, and drifts. Row 10.
    Clock,
    /// Any of the others but of the store's replicas, in any order, some at a time.
    Everything,
}

/// A lease, as docs/decisions/0010 has it.
const LEASE: Duration = Duration::from_secs(3);

impl Fault {
    /// How long 99 in 100 of the affected clients may be without service: three times the mark (6 s after a kill, 10 s after one of all nodes, 2 s at a
    /// drain, whose goal of 1 s is for an idle machine; lease + 5 s for an owner that lost the store). A client on a stopped node takes it for dead after
    /// 5 s and may be sent to it once more, which takes 4 s.
    pub fn limit(self) -> Duration {
        match self {
            Self::Kill | Self::KillTwo | Self::Slow | Self::Conditional => Duration::from_secs(18),
            Self::KillAll => Duration::from_secs(30),
            // With two replicas of three down nobody is served, for as long as that is: judged by the scenario. The same where two nodes cannot reach
            // each other: who is at the one and writes to a conversation at the other waits.
            Self::Replicas | Self::Peers | Self::PeersOneWay | Self::Links | Self::Everything => {
                Duration::MAX
            }
            Self::Freeze => Duration::from_secs(27),
            Self::Store | Self::Apart => (LEASE + Duration::from_secs(5)) * 3,
            Self::Drain | Self::Restart | Self::Roam => Duration::from_secs(6),
            // Nothing is to happen: as long as a machine may be busy.
            Self::Clock => Duration::from_secs(3),
        }
    }

    /// What it needs.
    pub fn around(self) -> Around {
        let nothing = Around::default();
        match self {
            Self::Peers | Self::PeersOneWay | Self::Store | Self::Apart | Self::Links => Around {
                network: true,
                ..nothing
            },
            Self::Slow | Self::Conditional => Around {
                proxies: true,
                ..nothing
            },
            Self::Clock => Around {
                clocks: true,
                ..nothing
            },
            Self::Everything => Around {
                network: true,
                proxies: true,
                clocks: true,
            },
            _ => nothing,
        }
    }
}

/// How hard.
#[derive(Debug, Clone, Copy)]
pub struct Force {
    /// Between two faults, milliseconds: at least, and at most.
    pub pause_ms: (u64, u64),
    /// How long what lasts lasts: a cut, a slow network.
    pub lasts: Duration,
    /// Of a million answers of lightweight transactions so many are lost or late.
    pub claims: u32,
    /// How long everything at random goes on.
    pub at_random: Duration,
}

/// A test of faults.
#[derive(Debug, Clone)]
pub struct FaultTest {
    /// Gets data, logs and records.
    pub folder: PathBuf,
    /// Decides everything that is random here.
    pub seed: u64,
    /// What, one after the other.
    pub faults: Vec<Fault>,
    /// How often all of them.
    pub times: u32,
    /// How hard.
    pub force: Force,
    /// How large.
    pub size: Size,
}

impl FaultTest {
    /// Runs it.
    ///
    /// # Errors
    /// When the nodes form no view, one ends by itself, or somebody is not served again.
    pub fn run(&self, cassandra: &Cluster) -> Result<Outcome> {
        let around = self
            .faults
            .iter()
            .fold(Around::default(), |all, fault| all.and(fault.around()));
        let mut rig = Rig::new(&self.folder, cassandra, self.seed, self.size, around)?;
        rig.start_sending();
        rig.wait_all_served(SERVED)?;
        for _ in 0..self.times {
            for &fault in &self.faults {
                let pause = rig.between(self.force.pause_ms.0, self.force.pause_ms.1);
                rig.go_on(pause);
                once(&mut rig, fault, &self.force, cassandra)?;
                rig.wait_all_served(SERVED)?;
                rig.look_at_owners();
            }
        }
        rig.go_on(Duration::from_secs(1));
        rig.finish()
    }
}

fn once(rig: &mut Rig, fault: Fault, force: &Force, cassandra: &Cluster) -> Result<()> {
    match fault {
        Fault::Kill => crash::kill(rig, 1),
        Fault::KillTwo => crash::kill(rig, 2),
        Fault::KillAll => crash::kill_all(rig),
        Fault::Freeze => crash::freeze(rig),
        Fault::Drain => crash::drain(rig),
        Fault::Restart => crash::restart(rig),
        Fault::Roam => {
            crash::roam(rig);
            Ok(())
        }
        Fault::Replicas => crash::replicas(rig, cassandra),
        Fault::Peers => cut::peers(rig, force, true),
        Fault::PeersOneWay => cut::peers(rig, force, false),
        Fault::Store => cut::store(rig, force, false),
        Fault::Apart => cut::store(rig, force, true),
        Fault::Links => cut::links(rig),
        Fault::Slow => slow::slow(rig, force),
        Fault::Conditional => conditional::conditional(rig, force),
        Fault::Clock => clock::clock(rig),
        Fault::Everything => everything::everything(rig, force, cassandra),
    }
}

/// A node.
fn any(rig: &mut Rig) -> usize {
    let count = rig.nodes.count();
    rig.random.random_range(0..count)
}

/// So many different nodes.
fn some(rig: &mut Rig, count: usize) -> Vec<usize> {
    let of = rig.nodes.count();
    rand::seq::index::sample(&mut rig.random, of, count.min(of)).into_vec()
}
