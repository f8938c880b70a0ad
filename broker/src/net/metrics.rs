//! What the sockets count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of all workers together; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct NetMetrics {
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) accept_failures: Counter,
    pub(crate) refused: Counter,
    pub(crate) closed: Counter,
    pub(crate) protocol_errors: Counter,
    pub(crate) greeting_timeouts: Counter,
    pub(crate) keep_alive_timeouts: Counter,
    pub(crate) too_slow: Counter,
    pub(crate) congested: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) packets_in: Counter,
    pub(crate) packets_out: Counter,
}

impl NetMetrics {
    /// Names them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "godwit_mqtt_connections",
            "MQTT connections now",
            self.connections.clone(),
        );
        for (name, help, counter) in [
            ("godwit_mqtt_accepted", "Connections accepted", &self.accepted),
            (
                "godwit_mqtt_accept_failures",
                "Accepts that failed",
                &self.accept_failures,
            ),
            ("godwit_mqtt_refused", "CONNECTs refused", &self.refused),
            (
                "godwit_mqtt_closed",
                "Connections closed by the broker",
                &self.closed,
            ),
            (
                "godwit_mqtt_protocol_errors",
                "Clients that broke the protocol",
                &self.protocol_errors,
            ),
            (
                "godwit_mqtt_greeting_timeouts",
                "Connections without a CONNECT in time",
                &self.greeting_timeouts,
            ),
            (
                "godwit_mqtt_keep_alive_timeouts",
                "Connections that fell silent",
                &self.keep_alive_timeouts,
            ),
            (
                "godwit_mqtt_too_slow",
                "Connections closed for taking too little",
                &self.too_slow,
            ),
            (
                "godwit_mqtt_congested",
                "Reads put off for lack of room behind",
                &self.congested,
            ),
            ("godwit_mqtt_bytes_in", "Bytes read", &self.bytes_in),
            ("godwit_mqtt_bytes_out", "Bytes written", &self.bytes_out),
            (
                "godwit_mqtt_packets_in",
                "Packets read after CONNECT",
                &self.packets_in,
            ),
            ("godwit_mqtt_packets_out", "Packets written", &self.packets_out),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}
