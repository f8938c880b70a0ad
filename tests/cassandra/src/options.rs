//! What whoever starts a cluster can choose. The rest is in `settings`, with the reasons.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

/// Which protocol carries lightweight transactions (`paxos_variant`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Paxos {
    /// Cassandra 5.0's default, so what a cluster runs whose operator chose nothing: four round trips a write, and older promises
    /// are forgotten by a TTL. What holds on it must hold on the other; tests run on it unless they say otherwise.
    #[default]
    V1,
    /// Two round trips a write. Its condition is that promises are purged only when a Paxos repair is behind them
    /// (`paxos_state_purging: repaired`, which is set with it); a node repairs unfinished rounds by itself every five minutes.
    /// Data written so must not be purged the old way later, so a cluster keeps what it was started with.
    V2,
}

/// How a cluster is started. `Options::default()` is what tests want: small, quick to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest heap of each node in MiB (`-Xmx`); a process takes some 250 MiB besides. Default 512, least 256.
    pub heap_mib: u32,
    /// Compile for throughput, not for a quick start: a start takes nearly twice the processor time, statements later less.
    /// For runs of many minutes. Default false.
    pub long_running: bool,
    /// How long a start may take until the cluster answers, all its nodes at once. Default 240 s: a machine whose processors
    /// are taken by a build needs a minute.
    pub start_timeout: Duration,
    /// The protocol of lightweight transactions.
    pub paxos: Paxos,
    /// Addresses of the nodes, as many as nodes, all on this machine and with ports 9042 and 7000 free. Default none: the first free ones
    /// of 127.0.0.1–3, 127.0.1.1–3, …
    pub addresses: Vec<Ipv4Addr>,
    /// Further lines for cassandra.yaml, or other values for those that are there: `("read_request_timeout", "2s".into())`.
    pub settings: Vec<(String, Value)>,
    /// Further flags for the Java virtual machine; a later one overrides ours.
    pub java: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heap_mib: 512,
            long_running: false,
            start_timeout: Duration::from_secs(240),
            paxos: Paxos::default(),
            addresses: Vec::new(),
            settings: Vec::new(),
            java: Vec::new(),
        }
    }
}

impl Options {
    /// With a line of cassandra.yaml.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }
}
