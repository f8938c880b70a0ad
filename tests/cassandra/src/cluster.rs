//! The cluster that a test holds: its nodes started, killed, stopped, started again, and ended with it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::classpath::Runtime;
use crate::place::{CQL_PORT, MAX_NODES, Place};
use crate::process::{Process, tail};
use crate::{Options, ready, settings};

/// The environment variable that names a cluster to use instead: hosts, with a port if it is not 9042, with commas between them.
pub const NODES_VARIABLE: &str = "CQL_NODES";

/// How often a node that is not ready is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// A Cassandra cluster of one node or three on this machine. Nodes are numbered from 0. Dropped, or when this process ends in
/// whatever way, its processes are killed; dropped, its folder is removed (after a kill -9: by the next start on the machine).
#[derive(Debug)]
pub struct Cluster {
    contact_points: Vec<SocketAddr>,
    /// None when the environment named the cluster.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    // Declared, so dropped, before the place that they run in.
    nodes: Vec<Node>,
    place: Place,
    runtime: Runtime,
    options: Options,
}

#[derive(Debug)]
struct Node {
    address: IpAddr,
    folder: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Node {
    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = self.process().take() {
            let _ = process.kill();
        }
    }
}

impl Cluster {
    /// Starts a cluster of 1 or 3 nodes as tests want it, or takes the one that `CQL_NODES` names.
    ///
    /// # Errors
    /// As [`Cluster::start_with`].
    pub async fn start(nodes: usize) -> Result<Self> {
        Self::start_with(nodes, Options::default()).await
    }

    /// Starts a cluster of 1 or 3 nodes and waits until each answers CQL and sees all others up; or takes the one that `CQL_NODES`
    /// names, for which `nodes` and `options` do not count. The first call on a machine downloads Cassandra. Blocks its thread while
    /// it does, else waits.
    ///
    /// # Errors
    /// When Java, Maven or setpriv is missing (says what to install), Cassandra cannot be downloaded, no loopback addresses are free, or a
    /// node ends or does not answer within [`Options::start_timeout`] (with the end of its log).
    pub async fn start_with(nodes: usize, options: Options) -> Result<Self> {
        if let Some(given) = std::env::var_os(NODES_VARIABLE).filter(|given| !given.is_empty()) {
            let given = given.to_str().context("CQL_NODES is not UTF-8")?;
            return Ok(Self {
                contact_points: contact_points(given)?,
                own: None,
            });
        }
        if nodes != 1 && nodes != MAX_NODES {
            bail!("a cluster has 1 node or {MAX_NODES}, not {nodes}");
        }
        let runtime = Runtime::find()?;
        let place = Place::take(nodes, &options)?;
        let mut own = Own {
            nodes: Vec::new(),
            place,
            runtime,
            options,
        };
        for number in 0..nodes {
            let folder = own.place.folder.join(format!("node{number}"));
            settings::write(&folder, number, &own.place.addresses, &own.options)?;
            own.nodes.push(Node {
                address: own.place.addresses[number].into(),
                folder,
                process: Mutex::new(None),
            });
            own.launch(number)?;
        }
        own.wait().await?;
        let contact_points = own
            .nodes
            .iter()
            .map(|node| SocketAddr::new(node.address, CQL_PORT))
            .collect();
        Ok(Self {
            contact_points,
            own: Some(own),
        })
    }

    /// One node for all tests of this process, started by the first that asks: tests take a keyspace each. It is killed with the
    /// process.
    ///
    /// # Errors
    /// As [`Cluster::start_with`]; then the next who asks tries again.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(1)).await
    }

    /// Where CQL is spoken, in the order of the nodes.
    #[must_use]
    pub fn contact_points(&self) -> &[SocketAddr] {
        &self.contact_points
    }

    /// Whether `CQL_NODES` named it: then it cannot be killed or stopped, and keeps what tests leave in it.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.own.is_none()
    }

    /// A driver's session with the driver's defaults.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn session(&self) -> Result<Session> {
        Ok(SessionBuilder::new()
            .known_nodes_addr(&self.contact_points)
            .build()
            .await?)
    }

    /// A session whose statements all go to this node, at consistency ONE unless they say otherwise, for at most 5 s, and are not repeated:
    /// the node is the coordinator, and its errors are seen as they are.
    ///
    /// # Errors
    /// When there is no such node, or it does not answer.
    pub async fn session_to(&self, node: usize) -> Result<Session> {
        let address = self.contact_points.get(node);
        ready::session_to(*address.with_context(|| format!("there is no node {node}"))?).await
    }

    /// Kills a node (SIGKILL) and waits until the process is gone. Its data stay. Nothing happens to one that is dead.
    ///
    /// # Errors
    /// On an external cluster, or when there is no such node.
    pub fn kill(&self, node: usize) -> Result<()> {
        let process = self.node(node)?.process().take();
        process.map_or(Ok(()), Process::kill)
    }

    /// Starts a dead node on its data and waits until it answers and every running node sees all running ones up.
    ///
    /// # Errors
    /// On an external cluster, when the node runs, or as [`Cluster::start_with`].
    pub async fn start_again(&self, node: usize) -> Result<()> {
        self.node(node)?;
        self.own()?.launch(node)?;
        self.wait_until_ready().await
    }

    /// Starts all dead nodes at once, as after a power cut, and waits as [`Cluster::start_again`] does.
    ///
    /// # Errors
    /// As [`Cluster::start_again`].
    pub async fn start_all_again(&self) -> Result<()> {
        let own = self.own()?;
        for number in 0..own.nodes.len() {
            if own.nodes[number].process().is_none() {
                own.launch(number)?;
            }
        }
        self.wait_until_ready().await
    }

    /// Stops a node (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// On an external cluster, or when the node is dead.
    pub fn stop(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::STOP, true)
    }

    /// Lets a stopped node go on (SIGCONT), without waiting for the others to notice.
    ///
    /// # Errors
    /// As [`Cluster::stop`].
    pub fn cont(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::CONT, false)
    }

    /// Waits until every running node answers and sees all running ones up, and has their schema if none is down.
    ///
    /// # Errors
    /// On an external cluster; when a node ends meanwhile, or the start's time-out passes (with the end of the log).
    pub async fn wait_until_ready(&self) -> Result<()> {
        self.own()?.wait().await
    }

    /// A running node's process id.
    ///
    /// # Errors
    /// On an external cluster, or when the node is dead.
    pub fn pid(&self, node: usize) -> Result<u32> {
        let process = self.node(node)?.process();
        Ok(process.as_ref().with_context(|| dead(node))?.pid())
    }

    /// A running node's resident memory in bytes: now, and the most it was.
    ///
    /// # Errors
    /// On an external cluster, or when the node is dead.
    pub fn memory(&self, node: usize) -> Result<(u64, u64)> {
        let process = self.node(node)?.process();
        process.as_ref().with_context(|| dead(node))?.memory()
    }

    /// The end of a node's log.
    ///
    /// # Errors
    /// On an external cluster, or when there is no such node.
    pub fn log_end(&self, node: usize) -> Result<String> {
        Ok(tail(&self.node(node)?.log()))
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().with_context(|| {
            format!("{NODES_VARIABLE} names the cluster: only one that the test started can be killed, stopped or started")
        })
    }

    fn node(&self, number: usize) -> Result<&Node> {
        let nodes = &self.own()?.nodes;
        nodes
            .get(number)
            .with_context(|| format!("there is no node {number}: they are 0 to {}", nodes.len() - 1))
    }

    fn signal(&self, number: usize, signal: Signal, stopped: bool) -> Result<()> {
        let mut process = self.node(number)?.process();
        let process = process.as_mut().with_context(|| dead(number))?;
        process.signal(signal)?;
        process.stopped = stopped;
        Ok(())
    }
}

impl Own {
    fn launch(&self, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        let mut process = node.process();
        if process.is_some() {
            bail!("node {number} runs already");
        }
        let arguments = settings::arguments(
            &node.folder,
            self.nodes.len(),
            &self.runtime.classpath,
            &self.options,
        );
        *process = Some(Process::start(&self.runtime.java, &arguments, &node.log())?);
        Ok(())
    }

    /// Waits for all that run and are not stopped, one after the other: they start at once, so the last one asked has had as long as the first.
    async fn wait(&self) -> Result<()> {
        let until = Instant::now() + self.options.start_timeout;
        let running: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|node| node.process().as_ref().is_some_and(|process| !process.stopped))
            .collect();
        for node in &running {
            loop {
                if let Some(ended) = node
                    .process()
                    .as_mut()
                    .and_then(|process| process.ended().transpose())
                {
                    bail!(
                        "Cassandra on {} has ended ({}):\n{}",
                        node.address,
                        ended?,
                        tail(&node.log())
                    );
                }
                match ready::ask(node.address, CQL_PORT, self.nodes.len(), running.len()).await {
                    Ok(()) => break,
                    Err(error) if Instant::now() >= until => bail!(
                        "Cassandra on {} is not ready after {:?}: {error:#}\n{}",
                        node.address,
                        self.options.start_timeout,
                        tail(&node.log())
                    ),
                    Err(_) => sleep(AGAIN).await,
                }
            }
        }
        Ok(())
    }
}

fn dead(number: usize) -> String {
    format!("node {number} is dead")
}

/// From `a,b:9043,c`.
fn contact_points(given: &str) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for host in given.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        let found = if let Ok(address) = host.parse::<IpAddr>() {
            Some(SocketAddr::new(address, CQL_PORT))
        } else if host.contains(':') {
            host.to_socket_addrs()
                .with_context(|| format!("{NODES_VARIABLE}: {host}"))?
                .next()
        } else {
            (host, CQL_PORT)
                .to_socket_addrs()
                .with_context(|| format!("{NODES_VARIABLE}: {host}"))?
                .next()
        };
        all.push(found.with_context(|| format!("{NODES_VARIABLE}: {host} has no address"))?);
    }
    if all.is_empty() {
        bail!("{NODES_VARIABLE} names no node");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_with_and_without_a_port() {
        let all = contact_points("127.0.0.1, 127.0.0.2:9043,::1,[::1]:9044").expect("four nodes");
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            ["127.0.0.1:9042", "127.0.0.2:9043", "[::1]:9042", "[::1]:9044"]
        );
        assert!(contact_points(" , ").is_err());
        assert!(contact_points("127.0.0.1:port").is_err());
    }

    #[test]
    fn a_cluster_of_the_environment_is_not_harmed_and_the_error_says_why() {
        let cluster = Cluster {
            contact_points: contact_points("127.0.0.1").expect("a node"),
            own: None,
        };
        assert!(cluster.is_external());
        for outcome in [
            cluster.kill(0),
            cluster.stop(0),
            cluster.cont(0),
            cluster.pid(0).map(|_| ()),
        ] {
            assert!(format!("{:#}", outcome.expect_err("harmed")).contains("CQL_NODES"));
        }
    }
}
