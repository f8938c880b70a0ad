//! What the links count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Way = [(&'static str, &'static str); 1];

/// Counters of all links of a node; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) up: Gauge,
    pub(crate) made: Counter,
    pub(crate) broken: Counter,
    pub(crate) strangers: Counter,
    frames: Family<Way, Counter>,
    bytes: Family<Way, Counter>,
    requests: Family<Way, Counter>,
    pub(crate) refused: Counter,
    pub(crate) late: Counter,
    pub(crate) channels: Gauge,
}

impl Metrics {
    pub(crate) fn sent(&self, bytes: usize, requests: usize) {
        self.count("out", bytes, requests);
    }

    pub(crate) fn received(&self, bytes: usize, requests: usize) {
        self.count("in", bytes, requests);
    }

    fn count(&self, way: &'static str, bytes: usize, requests: usize) {
        let way = [("way", way)];
        self.frames.get_or_create(&way).inc();
        self.bytes.get_or_create(&way).inc_by(bytes as u64);
        self.requests.get_or_create(&way).inc_by(requests as u64);
    }

    /// Links that are up.
    pub fn up(&self) -> i64 {
        self.up.get()
    }

    /// Links that were made, the first time or again.
    pub fn made(&self) -> u64 {
        self.made.get()
    }

    /// Requests answered `unavailable` since their link broke, ended or was down for too long.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Calls that were refused: of no node, or of one that may not call.
    pub fn strangers(&self) -> u64 {
        self.strangers.get()
    }

    /// Channels that are open.
    pub fn channels(&self) -> i64 {
        self.channels.get()
    }

    /// Names them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "godwit_links_up",
            "Links to other nodes that are up",
            self.up.clone(),
        );
        let channels = self.channels.clone();
        registry.register(
            "godwit_links_channels",
            "Connections spliced between nodes",
            channels,
        );
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter(
            "godwit_links_made",
            "Links made, the first time or again",
            &self.made,
        );
        counter(
            "godwit_links_broken",
            "Links that broke or were ended",
            &self.broken,
        );
        counter(
            "godwit_links_strangers",
            "Calls refused: of no node, or of one that may not call",
            &self.strangers,
        );
        counter(
            "godwit_links_refused",
            "Requests answered unavailable: their link broke or was down",
            &self.refused,
        );
        counter(
            "godwit_links_late",
            "Answers to requests that were refused when their link broke",
            &self.late,
        );
        let mut family =
            |name, help, family: &Family<Way, Counter>| registry.register(name, help, family.clone());
        family("godwit_links_messages", "Messages of the links", &self.frames);
        family(
            "godwit_links_bytes",
            "Bytes of these messages, before TLS",
            &self.bytes,
        );
        family(
            "godwit_links_requests",
            "Requests to and from other nodes",
            &self.requests,
        );
    }
}
