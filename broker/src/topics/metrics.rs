//! What topics' homes count. What it means is said where it is counted.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::copies::Copies;
use crate::users::UsersMetrics;

/// What this part counts; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) publishes: Counter,
    pub(super) deliveries: Counter,
    pub(super) spread: Counter,
    pub(super) crowded: Counter,
    pub(super) homes: Gauge,
    pub(super) wildcards: Gauge,
    pub(super) routes_gone: Counter,
    pub(super) shared: Counter,
    pub(super) retained_expired: Counter,
    pub(super) retained_refused: Counter,
    limits: Family<[(&'static str, &'static str); 1], Counter>,
    /// Registered with the users' part, which holds them longer.
    pub(super) copies: Copies,
}

impl Metrics {
    /// Those of a node's topics' homes: what is kept of other nodes' retained messages is counted with its users' homes.
    pub(crate) fn beside(users: &UsersMetrics) -> Self {
        Self {
            copies: users.copies.clone(),
            ..Self::default()
        }
    }

    /// A subscription met a limit of topics' homes.
    pub(super) fn count_limit(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// Names them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "godwit_topic_limits_met",
            "Subscriptions refused for want of room at their topic's home, by limit",
            self.limits.clone(),
        );
        registry.register(
            "godwit_topic_publishes",
            "Publishes on ordinary topics",
            self.publishes.clone(),
        );
        registry.register(
            "godwit_topic_deliveries",
            "Users that a publish was for",
            self.deliveries.clone(),
        );
        registry.register(
            "godwit_topic_publishes_spread",
            "Publishes for so many that they were given to them over several turns",
            self.spread.clone(),
        );
        registry.register(
            "godwit_topic_publishes_crowded",
            "Publishes refused because too many wait for those that are for many",
            self.crowded.clone(),
        );
        registry.register(
            "godwit_topic_keys_loaded",
            "Topic keys in memory",
            self.homes.clone(),
        );
        registry.register(
            "godwit_wildcard_routes",
            "Routes with early wildcards, a worker",
            self.wildcards.clone(),
        );
        registry.register(
            "godwit_routes_gone",
            "Routes removed after their session or subscription",
            self.routes_gone.clone(),
        );
        registry.register(
            "godwit_topic_shared_deliveries",
            "Publishes that a member of a group took",
            self.shared.clone(),
        );
        registry.register(
            "godwit_retained_expired",
            "Retained messages removed when their time was over",
            self.retained_expired.clone(),
        );
        registry.register(
            "godwit_retained_refused",
            "Retained publishes refused because their first levels hold too many",
            self.retained_refused.clone(),
        );
    }
}
