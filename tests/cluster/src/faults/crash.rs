//! Nodes that die, stop, leave and come, replicas of the store that die, and clients that go from node to node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use godwit_cassandra::Cluster;
use rand::RngExt;

use super::{Fault, LEASE, any, some};
use crate::rig::{Rig, SERVED};

/// How long a node may take to end: far less than `drain_seconds`, far more than it needs on a busy machine.
const ENDS: Duration = Duration::from_secs(9);
/// How long clients roam each time.
const ROAM: Duration = Duration::from_secs(5);

/// kill -9 of so many at once, and a start.
pub(super) fn kill(rig: &mut Rig, count: usize) -> Result<()> {
    let nodes = some(rig, count);
    // Half of the time they are back before the others know.
    let away = if rig.random.random_bool(0.5) {
        rig.between(0, 3_000)
    } else {
        rig.between(6_000, 10_000)
    };
    let limit = Fault::Kill.limit();
    rig.mark(format!("kill -9 of {nodes:?}, away {away:?}"), limit);
    for &node in &nodes {
        rig.nodes.kill(node)?;
    }
    rig.go_on(away);
    if away > LEASE * 2 {
        rig.wait_all_served(SERVED)?;
        rig.mark(format!("{nodes:?} are started again"), limit);
    }
    start(rig)
}

/// Starts all that do not run.
fn start(rig: &mut Rig) -> Result<()> {
    rig.nodes.start_all().map(drop)
}

/// kill -9 of all, and a start.
pub(super) fn kill_all(rig: &mut Rig) -> Result<()> {
    rig.mark("kill -9 of all nodes".to_owned(), Fault::KillAll.limit());
    for node in 0..rig.nodes.count() {
        rig.nodes.kill(node)?;
    }
    start(rig)
}

/// SIGSTOP for three leases.
pub(super) fn freeze(rig: &mut Rig) -> Result<()> {
    let node = any(rig);
    rig.mark(
        format!("SIGSTOP of n{node} for three leases"),
        Fault::Freeze.limit(),
    );
    rig.nodes.freeze(node)?;
    rig.go_on(LEASE * 3);
    rig.nodes.thaw(node)?;
    rig.nodes.wait_formed()
}

/// Drained, ended, started.
pub(super) fn drain(rig: &mut Rig) -> Result<()> {
    let node = any(rig);
    let over = (node + 1) % rig.nodes.count();
    rig.mark(format!("drain of n{node}"), Fault::Drain.limit());
    rig.nodes.drain(node, over)?;
    let others: Vec<usize> = (0..rig.nodes.count()).filter(|&one| one != node).collect();
    rig.nodes.wait_members(&others)?;
    let pause = rig.between(500, 3_000);
    rig.go_on(pause);
    rig.mark(format!("n{node} ends and joins"), Fault::Drain.limit());
    rig.nodes.stop(node)?;
    start(rig)
}

/// A rolling restart: each node is asked to end, gives its shards up, ends in order, and is started again.
pub(super) fn restart(rig: &mut Rig) -> Result<()> {
    for node in 0..rig.nodes.count() {
        rig.mark(format!("SIGTERM of n{node}"), Fault::Restart.limit());
        let readiness = Readiness::watch(&rig.nodes.http(node))?;
        let took = rig.nodes.stop(node)?;
        let seen = readiness.end()?;
        if !seen.contains(&503) || seen.iter().skip(1).any(|status| *status == 200) {
            bail!(
                "n{node} is to say 503 from the first moment and for as long as it answers, and said {seen:?}"
            );
        }
        // 10 s for the shards: with so few clients it needs none of them.
        if took > ENDS {
            bail!("n{node} took {took:?} to end\n{}", rig.nodes.tails());
        }
        rig.note(format!("n{node} ended {} ms after SIGTERM", took.as_millis()));
        rig.wait_all_served(SERVED)?;
        rig.mark(format!("n{node} is started again"), Fault::Restart.limit());
        start(rig)?;
        rig.wait_all_served(SERVED)?;
    }
    Ok(())
}

/// What a node says to who asks whether it is ready, again and again.
struct Readiness {
    ends: Arc<AtomicBool>,
    asking: JoinHandle<Vec<u16>>,
}

impl Readiness {
    fn watch(http: &str) -> Result<Self> {
        let url = format!("{http}/readyz");
        let ask = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(2)));
        let agent: ureq::Agent = ask.build().into();
        let status = move || agent.get(&url).call().ok().map(|answer| answer.status().as_u16());
        if status() != Some(200) {
            bail!("it is not ready before it is asked to end");
        }
        let ends = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ends);
        let asking = std::thread::spawn(move || {
            let mut seen = Vec::new();
            // The signal is on its way meanwhile: the first may be a yes.
            std::thread::sleep(Duration::from_millis(100));
            while !asked.load(Ordering::Relaxed) {
                seen.extend(status());
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        Ok(Self { ends, asking })
    }

    /// All answers after the first tenth of a second.
    fn end(self) -> Result<Vec<u16>> {
        self.ends.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| anyhow!("asking panicked"))
    }
}

/// Clients come and go.
pub(super) fn roam(rig: &mut Rig) {
    rig.mark("clients go from node to node".to_owned(), Fault::Roam.limit());
    rig.roams.store(true, Ordering::Relaxed);
    rig.go_on(ROAM);
    rig.roams.store(false, Ordering::Relaxed);
}

/// One replica of three killed, then two.
pub(super) fn replicas(rig: &mut Rig, cassandra: &Cluster) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let first = rig.random.random_range(0..3);
    let second = (first + rig.random.random_range(1..3)) % 3;
    let limit = Fault::Replicas.limit();
    rig.mark(format!("replica {first} of the store is killed"), limit);
    cassandra.kill(first)?;
    rig.wait_all_served(SERVED)?;
    rig.mark(format!("replica {second} is killed, too"), limit);
    cassandra.kill(second)?;
    // What was stored before may still be told.
    rig.go_on(LEASE);
    let before = rig.shared.acknowledged();
    rig.go_on(LEASE * 2);
    let told = rig.shared.acknowledged() - before;
    if told > 0 {
        bail!("{told} sends were acknowledged while two of three replicas were down");
    }
    rig.mark("both are started again".to_owned(), limit);
    runtime.block_on(cassandra.start_all_again())?;
    Ok(())
}
