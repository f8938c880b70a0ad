//! Counters of accounts, for the admin listener.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Shared by all workers' roles and the API.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Credentials judged good.
    pub authenticated: Counter,
    /// Credentials judged bad.
    pub refused: Counter,
    /// Login sessions begun.
    pub logins: Counter,
    /// Login sessions ended because a refresh token was used twice.
    pub refresh_reused: Counter,
    /// Users in memory.
    pub cached: Gauge,
    /// Rows that could not be read: damage, counted and left out.
    pub unreadable: Counter,
    limits: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    /// A user met a limit.
    pub(crate) fn count_limit(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// Makes them part of what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("godwit_accounts");
        registry.register(
            "authenticated",
            "Credentials judged good",
            self.authenticated.clone(),
        );
        registry.register("refused", "Credentials judged bad", self.refused.clone());
        registry.register("logins", "Login sessions begun", self.logins.clone());
        registry.register(
            "refresh_reused",
            "Login sessions ended because a refresh token was used twice",
            self.refresh_reused.clone(),
        );
        registry.register("cached_users", "Users in memory", self.cached.clone());
        registry.register(
            "unreadable_rows",
            "Rows that could not be read",
            self.unreadable.clone(),
        );
        registry.register(
            "limits_met",
            "How often a user's limit was met, by limit",
            self.limits.clone(),
        );
    }
}
