//! Counters of the HTTP door, for the admin listener.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of a request: few values each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP status.
    pub status: u16,
}

/// Shared by all handlers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Requests answered, by status.
    pub requests: Family<RequestLabels, Counter>,
    /// Requests being handled.
    pub in_flight: Gauge,
    /// Requests refused because bodies and answers that wait for clients have no room.
    pub no_room: Counter,
    /// Logins, changes of passwords and registrations that were not judged because of too many wrong secrets before.
    pub logins_limited: Counter,
    /// How often a request met a limit, by limit.
    pub limits_met: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    /// Makes them part of what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("godwit_http");
        registry.register("requests", "Requests answered, by status", self.requests.clone());
        registry.register(
            "requests_in_flight",
            "Requests being handled",
            self.in_flight.clone(),
        );
        registry.register(
            "no_room",
            "Requests refused because bodies and answers that wait for clients have no room",
            self.no_room.clone(),
        );
        registry.register(
            "logins_limited",
            "Logins, changes of passwords and registrations refused because of too many wrong secrets before",
            self.logins_limited.clone(),
        );
        registry.register(
            "limits_met",
            "How often a request met a limit, by limit",
            self.limits_met.clone(),
        );
    }
}
