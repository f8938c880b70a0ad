//! The faults: what is done to the nodes of a run while its clients chat, how often, and how long it may leave them without service.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use godwit_cassandra::Cluster;
use rand::RngExt;

use crate::rig::{Outcome, Rig, Size};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a node, started again some seconds later. Row 1 of the table of faults.
    Kill,
    /// kill -9 of all nodes at once, and a start of all. Row 2.
    KillAll,
    /// SIGSTOP of a node for three leases, then SIGCONT. Row 4.
    Freeze,
    /// A node is drained, ended and started again: it joins.
    Drain,
    /// Clients leave and come back at other nodes, each about once a second. Row 14. One time is five seconds.
    Roam,
    /// One of three replicas of the store is killed, then a second one, then both are started again. Row 8. Needs a Cassandra of three.
    Replicas,
}

/// A lease, as docs/decisions/0010 has it.
const LEASE: Duration = Duration::from_secs(3);
/// How long clients roam each time.
const ROAM: Duration = Duration::from_secs(5);
/// Every client is served again within this, or the run is over.
const SERVED: Duration = Duration::from_secs(60);

impl Fault {
    /// How long 99 in 100 of the affected clients may be without service: three times the mark (6 s after a kill, 10 s after one of all nodes, 2 s at a
    /// drain, whose goal of 1 s is for an idle machine). A client on a stopped node takes it for dead after 5 s and may be sent to it once more, which takes
    /// 4 s.
    pub fn limit(self) -> Duration {
        match self {
            Self::Kill => Duration::from_secs(18),
            Self::KillAll => Duration::from_secs(30),
            // With two replicas of three down nobody is served, for as long as that is: judged by the scenario.
            Self::Replicas => Duration::MAX,
            Self::Freeze => Duration::from_secs(27),
            Self::Drain | Self::Roam => Duration::from_secs(6),
        }
    }
}

/// A test of one fault.
#[derive(Debug, Clone)]
pub struct FaultTest {
    /// Gets data, logs and records.
    pub folder: PathBuf,
    /// Decides everything that is random here.
    pub seed: u64,
    /// What.
    pub fault: Fault,
    /// How often.
    pub times: u32,
    /// How large.
    pub size: Size,
}

impl FaultTest {
    /// Runs it.
    ///
    /// # Errors
    /// When the nodes form no view, one ends by itself, or somebody is not served again.
    pub fn run(&self, cassandra: &Cluster) -> Result<Outcome> {
        let mut rig = Rig::new(&self.folder, cassandra, self.seed, self.size)?;
        rig.start_sending();
        rig.wait_all_served(SERVED)?;
        for _ in 0..self.times {
            let pause = rig.between(500, 4_000);
            rig.go_on(pause);
            match self.fault {
                Fault::Kill => kill(&mut rig)?,
                Fault::KillAll => kill_all(&mut rig)?,
                Fault::Freeze => freeze(&mut rig)?,
                Fault::Drain => drain(&mut rig)?,
                Fault::Roam => roam(&mut rig),
                Fault::Replicas => replicas(&mut rig, cassandra)?,
            }
            rig.wait_all_served(SERVED)?;
        }
        rig.go_on(Duration::from_secs(1));
        rig.finish()
    }
}

fn any(rig: &mut Rig) -> usize {
    let count = rig.nodes.count();
    rig.random.random_range(0..count)
}

fn kill(rig: &mut Rig) -> Result<()> {
    let node = any(rig);
    // Half of the time it is back before the others know.
    let away = if rig.random.random_bool(0.5) {
        rig.between(0, 3_000)
    } else {
        rig.between(6_000, 10_000)
    };
    rig.mark(format!("kill -9 of n{node}, away {away:?}"));
    rig.nodes.kill(node)?;
    rig.go_on(away);
    if away > LEASE * 2 {
        rig.wait_all_served(SERVED)?;
        rig.mark(format!("n{node} is started again"));
    }
    rig.nodes.start_all()?;
    Ok(())
}

fn kill_all(rig: &mut Rig) -> Result<()> {
    rig.mark("kill -9 of all nodes".to_owned());
    for node in 0..rig.nodes.count() {
        rig.nodes.kill(node)?;
    }
    rig.nodes.start_all()?;
    Ok(())
}

fn freeze(rig: &mut Rig) -> Result<()> {
    let node = any(rig);
    rig.mark(format!("SIGSTOP of n{node} for three leases"));
    rig.nodes.freeze(node)?;
    rig.go_on(LEASE * 3);
    rig.nodes.thaw(node)?;
    rig.nodes.wait_formed()
}

fn drain(rig: &mut Rig) -> Result<()> {
    let node = any(rig);
    let over = (node + 1) % rig.nodes.count();
    rig.mark(format!("drain of n{node}"));
    rig.nodes.drain(node, over)?;
    let others: Vec<usize> = (0..rig.nodes.count()).filter(|&one| one != node).collect();
    rig.nodes.wait_members(&others)?;
    let pause = rig.between(500, 3_000);
    rig.go_on(pause);
    rig.mark(format!("n{node} ends and joins"));
    rig.nodes.stop(node)?;
    rig.nodes.start_all()?;
    Ok(())
}

fn roam(rig: &mut Rig) {
    rig.mark("clients go from node to node".to_owned());
    rig.roams.store(true, Ordering::Relaxed);
    rig.go_on(ROAM);
    rig.roams.store(false, Ordering::Relaxed);
}

fn replicas(rig: &mut Rig, cassandra: &Cluster) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let first = rig.random.random_range(0..3);
    let second = (first + rig.random.random_range(1..3)) % 3;
    rig.mark(format!("replica {first} of the store is killed"));
    cassandra.kill(first)?;
    rig.wait_all_served(SERVED)?;
    rig.mark(format!("replica {second} is killed, too"));
    cassandra.kill(second)?;
    // What was stored before may still be told.
    rig.go_on(LEASE);
    let before = rig.shared.acknowledged();
    rig.go_on(LEASE * 2);
    let told = rig.shared.acknowledged() - before;
    if told > 0 {
        bail!("{told} sends were acknowledged while two of three replicas were down");
    }
    rig.mark("both are started again".to_owned());
    runtime.block_on(cassandra.start_all_again())?;
    Ok(())
}
