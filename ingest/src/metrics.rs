//! What the bridge counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Counters of all workers together; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) messages: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) refused_busy: Counter,
    pub(crate) offers_refused: Counter,
    pub(crate) damaged: Counter,
    pub(crate) loaded: Gauge,
    acknowledge_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let bounds = [
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
        ];
        Self {
            messages: Counter::default(),
            duplicates: Counter::default(),
            refused_busy: Counter::default(),
            offers_refused: Counter::default(),
            damaged: Counter::default(),
            loaded: Gauge::default(),
            acknowledge_seconds: Histogram::new(bounds),
        }
    }
}

impl Metrics {
    /// Names them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "godwit_messages",
            "Messages that took a sequence number",
            self.messages.clone(),
        );
        registry.register(
            "godwit_duplicate_sends",
            "Sends answered with an earlier message",
            self.duplicates.clone(),
        );
        registry.register(
            "godwit_sends_refused_busy",
            "Sends refused for lack of room",
            self.refused_busy.clone(),
        );
        registry.register(
            "godwit_offers_refused",
            "Mailbox offers that had to come again",
            self.offers_refused.clone(),
        );
        registry.register(
            "godwit_damaged_conversations",
            "Loads of a conversation of which something stored cannot be read; it takes no writes",
            self.damaged.clone(),
        );
        registry.register(
            "godwit_conversations_loaded",
            "Conversations in memory",
            self.loaded.clone(),
        );
        registry.register(
            "godwit_acknowledge_seconds",
            "From sequence number to stored and in every mailbox, at millisecond resolution",
            self.acknowledge_seconds.clone(),
        );
    }

    pub(crate) fn acknowledged(&self, ms: u64) {
        // Far below 2^52.
        self.acknowledge_seconds.observe(ms as f64 / 1_000.0);
    }
}
