//! What the sockets count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Reason = [(&'static str, &'static str); 1];

/// Counters of all workers together; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct NetMetrics {
    pub(super) connections: Gauge,
    pub(super) kept_bytes: Gauge,
    pub(super) addresses: Gauge,
    pub(super) addresses_uncounted: Counter,
    pub(super) accepted: Counter,
    pub(super) accept_failures: Counter,
    refused: Family<Reason, Counter>,
    closed: Family<Reason, Counter>,
    pub(super) protocol_errors: Counter,
    pub(super) greeting_timeouts: Counter,
    pub(super) keep_alive_timeouts: Counter,
    pub(super) congested: Counter,
    pub(super) paused: Counter,
    pub(super) renewals: Counter,
    pub(super) renewals_too_many: Counter,
    pub(super) going: Gauge,
    pub(super) spliced_here: Gauge,
    pub(super) spliced_home: Gauge,
    pub(super) spliced_bytes_in: Counter,
    pub(super) spliced_bytes_out: Counter,
    pub(super) awaited_home: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    packets_in: Counter,
    packets_out: Counter,
}

/// What one worker counted in a turn: added to the shared counters once, since the hot ones would be fought over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
}

impl NetMetrics {
    /// Adds a turn's counts and begins anew.
    pub(super) fn add(&self, tally: &mut Tally) {
        let Tally {
            bytes_in,
            bytes_out,
            packets_in,
            packets_out,
        } = std::mem::take(tally);
        for (counter, by) in [
            (&self.bytes_in, bytes_in),
            (&self.bytes_out, bytes_out),
            (&self.packets_in, packets_in),
            (&self.packets_out, packets_out),
        ] {
            if by > 0 {
                counter.inc_by(by);
            }
        }
    }

    /// Connections that are still to be told to come by another node, and those that are passed on to one.
    pub fn going(&self) -> i64 {
        self.going.get() + self.spliced_here.get()
    }

    /// A connection ended before it was one.
    pub(super) fn count_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// How many ended so.
    #[cfg(test)]
    pub(super) fn refused(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&[("reason", reason)]).get()
    }

    /// How many ended, for all reasons and for each.
    #[cfg(test)]
    pub(super) fn closed(&self, reasons: &[&'static str]) -> Vec<u64> {
        let of = |reason: &&'static str| self.closed.get_or_create(&[("reason", *reason)]).get();
        reasons.iter().map(of).collect()
    }

    /// A connection ended.
    pub(super) fn count_closed(&self, reason: &'static str) {
        self.closed.get_or_create(&[("reason", reason)]).inc();
    }

    /// Names them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let mut gauge = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge(
            "godwit_mqtt_connections",
            "MQTT connections now",
            &self.connections,
        );
        gauge(
            "godwit_mqtt_kept_bytes",
            "Bytes kept for clients that do not take them",
            &self.kept_bytes,
        );
        gauge(
            "godwit_mqtt_addresses",
            "Addresses whose connections are counted now",
            &self.addresses,
        );
        gauge(
            "godwit_mqtt_spliced_away",
            "Connections now that came here and are passed on to their user's home on another node",
            &self.spliced_here,
        );
        gauge(
            "godwit_mqtt_spliced_home",
            "Connections now of users at home here that came to another node",
            &self.spliced_home,
        );
        gauge(
            "godwit_mqtt_going",
            "Connections now that are to be told to come by another node",
            &self.going,
        );
        let mut family = |name, help, family: &Family<Reason, Counter>| {
            registry.register(name, help, family.clone());
        };
        family(
            "godwit_mqtt_refused",
            "Connections refused before their CONNACK",
            &self.refused,
        );
        family("godwit_mqtt_closed", "Connections closed, by why", &self.closed);
        for (name, help, counter) in [
            ("godwit_mqtt_accepted", "Connections accepted", &self.accepted),
            (
                "godwit_mqtt_accept_failures",
                "Accepts that failed",
                &self.accept_failures,
            ),
            (
                "godwit_mqtt_addresses_uncounted",
                "Connections let in uncounted, too many addresses being counted already",
                &self.addresses_uncounted,
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
                "godwit_mqtt_congested",
                "Reads put off for lack of room behind",
                &self.congested,
            ),
            (
                "godwit_mqtt_paused",
                "Pauses in reading a client at its home's wish",
                &self.paused,
            ),
            (
                "godwit_mqtt_reauthentications",
                "Open connections that authenticated anew",
                &self.renewals,
            ),
            (
                "godwit_mqtt_reauthentications_too_many",
                "Connections closed because they authenticated anew too often",
                &self.renewals_too_many,
            ),
            (
                "godwit_mqtt_spliced_bytes_in",
                "Bytes of clients passed on to other nodes",
                &self.spliced_bytes_in,
            ),
            (
                "godwit_mqtt_spliced_bytes_out",
                "Bytes of other nodes passed on to clients",
                &self.spliced_bytes_out,
            ),
            (
                "godwit_mqtt_awaited_home",
                "Connections that waited for their user's home to be somebody's, or to be reached",
                &self.awaited_home,
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
