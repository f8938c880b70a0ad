//! What stands around the nodes of a run so that it can be broken: networks, proxies, clocks. Which of it a run has is said by its faults; a run
//! without has nodes on loopback that reach the store and each other straight.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use godwit_cassandra::Cluster;
use tokio::runtime::Runtime;

use crate::clocks::Clock;
use crate::frames::Claims;
use crate::network::{End, Network};
use crate::proxy::{Pace, Proxy};

/// What a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Around {
    /// A network of its own for each node; each reaches the store through a proxy of its own, and the other nodes straight.
    pub network: bool,
    /// Proxies in front of the store and, without a network, of each node's peer listener.
    pub proxies: bool,
    /// A clock of its own for each node.
    pub clocks: bool,
}

impl Around {
    /// All that either has.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            network: self.network || other.network,
            proxies: self.proxies || other.proxies,
            clocks: self.clocks || other.clocks,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Surroundings {
    /// To be cut.
    pub network: Option<Network>,
    /// A node's clock, to be set.
    pub clocks: Vec<Clock>,
    /// Of all proxies.
    pub pace: Arc<Pace>,
    /// Of the store's.
    pub claims: Arc<Claims>,
    store: Vec<SocketAddr>,
    has_peers: bool,
    proxies: Vec<Proxy>,
    /// The proxies'.
    runtime: Option<Runtime>,
}

impl Surroundings {
    /// For so many nodes.
    ///
    /// # Errors
    /// When a network cannot be made, libfaketime is missing, or the store has several nodes, behind which no proxy can stand.
    pub fn new(folder: &Path, cassandra: &Cluster, count: usize, around: Around) -> Result<Self> {
        let network = if around.network {
            Some(Network::start(count)?)
        } else {
            None
        };
        let mut made = Self {
            network,
            clocks: Vec::new(),
            pace: Arc::default(),
            claims: Arc::default(),
            store: cassandra.contact_points().to_vec(),
            has_peers: around.proxies && !around.network,
            proxies: Vec::new(),
            runtime: None,
        };
        if around.clocks {
            for node in 0..count {
                made.clocks
                    .push(Clock::new(folder.join(format!("n{node}.clock")))?);
            }
        }
        if around.proxies || around.network {
            let &[SocketAddr::V4(to)] = cassandra.contact_points() else {
                bail!(
                    "the store has several nodes, and tells drivers where they are, or is not on IPv4: no proxy stands in front of that"
                );
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("proxies")
                .enable_all()
                .build()?;
            let on = match &made.network {
                Some(network) => network.address(End::Store),
                None => Ipv4Addr::LOCALHOST,
            };
            made.store.clear();
            for _ in 0..count {
                let claims = Some(&made.claims);
                let proxy = Proxy::start(runtime.handle(), on, to, &made.pace, claims)?;
                made.store.push(proxy.address());
                made.proxies.push(proxy);
            }
            made.runtime = Some(runtime);
        }
        Ok(made)
    }

    /// Where a node listens.
    pub fn host(&self, node: usize) -> Ipv4Addr {
        match &self.network {
            Some(network) => network.address(End::Node(node)),
            None => Ipv4Addr::LOCALHOST,
        }
    }

    /// What starts it.
    pub fn command(&self, node: usize) -> Vec<String> {
        self.network
            .as_ref()
            .map_or_else(Vec::new, |network| network.command(node))
    }

    /// Its environment.
    pub fn environment(&self, node: usize) -> Vec<(&'static str, String)> {
        let clock = self.clocks.get(node);
        clock.map_or_else(Vec::new, |clock| clock.environment().to_vec())
    }

    /// Where it reaches the store.
    pub fn store(&self, node: usize) -> String {
        let points = if self.proxies.is_empty() {
            &self.store[..]
        } else {
            &self.store[node..=node]
        };
        let points: Vec<String> = points.iter().map(ToString::to_string).collect();
        points.join(",")
    }

    /// Where others reach its peer listener; makes the proxy if there is to be one.
    ///
    /// # Errors
    /// When no proxy can be made.
    pub fn reached(&mut self, peer: SocketAddrV4) -> Result<SocketAddr> {
        if !self.has_peers {
            return Ok(peer.into());
        }
        let runtime = self.runtime.as_ref().context("no runtime")?;
        let proxy = Proxy::start(runtime.handle(), *peer.ip(), peer, &self.pace, None)?;
        let address = proxy.address();
        self.proxies.push(proxy);
        Ok(address)
    }
}
