//! What a users' part is given from outside: its settings and its metrics.

use std::sync::Arc;

use godwit_accounts::Acl;
use godwit_wire::limits;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::copies::Copies;

/// Settings of users' homes.
#[derive(Clone, Debug)]
pub struct UsersConfig {
    /// Rules of ordinary topics.
    pub acl: Arc<Acl>,
    /// How long a home without live connections stays in memory, milliseconds.
    pub idle_ms: u64,
    /// Longest session expiry, seconds.
    pub session_expiry_max: u32,
    /// How long after a take-up clients may take to return before their wills fire and their sessions expire,
    /// milliseconds. What begins since is not held up.
    pub return_ms: u64,
    /// How long mailbox entries are kept, milliseconds.
    pub mailbox_ms: u64,
    /// And how many at most: beyond it the oldest go, a sixteenth at a time, and sessions that did not have them are told
    /// of a gap.
    pub mailbox_entries: u64,
    /// And how many bytes of content that no conversation holds (refused sends).
    pub mailbox_bytes: u64,
    /// Most entries that a session's own log holds unacknowledged: beyond it the oldest go, a sixteenth at a time, and
    /// are counted; a connected client is disconnected (0x97). May be overrun by a sixteenth and what fits in 1 MiB.
    pub session_log_entries: u64,
    /// And most bytes of them.
    pub session_log_bytes: u64,
    /// PUBLISHes a second that a user's clients may send for ever, beside those of 5 s at once; 0: as many as come. Beyond
    /// it they are not read for a while; who keeps at it for 5 minutes is disconnected (0x96).
    pub publishes_per_second: u32,
    /// And bytes of topic, payload and properties.
    pub publish_bytes_per_second: u32,
    /// Most retained messages of a user under all topics; 0: no limit but the topics'. May be overrun by what was under way.
    pub retained_messages: u32,
    /// And most bytes of them, with their topics twice, properties, and 256 for each.
    pub retained_bytes: u64,
    /// Longest keep-alive, seconds; 0: what clients ask for. Only clients of MQTT 5 can be told.
    pub max_keep_alive: u16,
    /// Highest QoS of what clients publish, wills too.
    pub max_qos: u8,
}

impl Default for UsersConfig {
    fn default() -> Self {
        Self {
            acl: Arc::new(Acl::default()),
            idle_ms: 10_000,
            session_expiry_max: limits::SESSION_EXPIRY_SECONDS,
            return_ms: 30_000,
            mailbox_ms: 90 * 24 * 3_600 * 1_000,
            mailbox_entries: 1_000_000,
            mailbox_bytes: 256 * 1024 * 1024,
            session_log_entries: 100_000,
            session_log_bytes: 64 * 1024 * 1024,
            publishes_per_second: 0,
            publish_bytes_per_second: 0,
            retained_messages: 0,
            retained_bytes: 0,
            max_keep_alive: 0,
            max_qos: 2,
        }
    }
}

/// What users' homes count.
#[derive(Clone, Debug)]
pub struct UsersMetrics {
    /// PUBLISH packets from clients.
    pub messages_in: Counter,
    /// PUBLISH packets to clients.
    pub messages_out: Counter,
    /// Publishes that were refused, whatever the reason.
    pub refused: Counter,
    /// QoS 0 publishes to clients that had no room.
    pub dropped_qos0: Counter,
    /// Owed publishes that ended (message expiry) before their session came.
    pub expired: Counter,
    /// Owed publishes whose right was gone at delivery.
    pub no_longer_allowed: Counter,
    /// Connections closed since a change of the rules took away what their client had subscribed.
    pub rights_lost: Counter,
    /// Publishes that came by a route without a subscription.
    pub unwanted: Counter,
    /// Owed entries that went because their session's log, or the mailbox, was over its quota.
    pub over_quota: Counter,
    /// Entries larger than what their client takes.
    pub too_large: Counter,
    /// Entries that should be in the store and are not (a broken invariant).
    pub missing: Counter,
    /// Offers that contradict what the mailbox has (a broken invariant).
    pub contradictions: Counter,
    /// Entries that became owed.
    pub owed: Counter,
    /// Entries that were acknowledged by their session.
    pub settled: Counter,
    /// Entries of a group that went to another member because theirs was gone.
    pub shared_again: Counter,
    /// Entries of a group that ended with its last member, or with the client that a QoS 2 message was begun with.
    pub shared_ended: Counter,
    /// How often a limit was met, by limit.
    limits: Family<Limit, Counter>,
    /// Bytes of other nodes' retained messages that wait for clients.
    pub(crate) copies: Copies,
    /// Connections whose session is in this part.
    pub live: Gauge,
    /// Users in memory.
    pub homes: Gauge,
    /// From PUBLISH to its PUBACK or PUBREC, seconds.
    pub acknowledge_seconds: Histogram,
}

impl Default for UsersMetrics {
    fn default() -> Self {
        Self {
            messages_in: Counter::default(),
            messages_out: Counter::default(),
            refused: Counter::default(),
            dropped_qos0: Counter::default(),
            expired: Counter::default(),
            no_longer_allowed: Counter::default(),
            rights_lost: Counter::default(),
            unwanted: Counter::default(),
            over_quota: Counter::default(),
            too_large: Counter::default(),
            missing: Counter::default(),
            contradictions: Counter::default(),
            owed: Counter::default(),
            settled: Counter::default(),
            shared_again: Counter::default(),
            shared_ended: Counter::default(),
            limits: Family::default(),
            copies: Copies::default(),
            live: Gauge::default(),
            homes: Gauge::default(),
            acknowledge_seconds: Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
            ]),
        }
    }
}

type Limit = [(&'static str, &'static str); 1];

impl UsersMetrics {
    /// A client met a limit.
    pub(crate) fn count_limit(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// How often one was met.
    #[cfg(test)]
    pub(crate) fn limits_met(&self, limit: &'static str) -> u64 {
        self.limits.get_or_create(&[("limit", limit)]).get()
    }

    /// Names them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("godwit");
        let counters: [(&str, &str, &Counter); 16] = [
            (
                "mqtt_messages_in",
                "PUBLISH packets from clients",
                &self.messages_in,
            ),
            (
                "mqtt_messages_out",
                "PUBLISH packets to clients",
                &self.messages_out,
            ),
            (
                "mqtt_publishes_refused",
                "Publishes that were refused",
                &self.refused,
            ),
            (
                "mqtt_qos0_dropped",
                "QoS 0 publishes to clients without room",
                &self.dropped_qos0,
            ),
            (
                "mqtt_owed_expired",
                "Owed publishes that ended before their session came",
                &self.expired,
            ),
            (
                "mqtt_owed_forbidden",
                "Owed publishes whose right was gone at delivery",
                &self.no_longer_allowed,
            ),
            (
                "mqtt_rights_lost",
                "Connections closed since a change of the rules took away what their client had subscribed",
                &self.rights_lost,
            ),
            (
                "mqtt_unwanted",
                "Publishes that came by a route whose subscription has ended",
                &self.unwanted,
            ),
            (
                "owed_over_quota",
                "Owed entries that went because a mailbox or session had too many",
                &self.over_quota,
            ),
            (
                "mqtt_too_large",
                "Entries larger than what their client takes",
                &self.too_large,
            ),
            (
                "owed_missing",
                "Owed entries that the store does not have",
                &self.missing,
            ),
            (
                "owed_contradictions",
                "Offers that contradict a kept entry",
                &self.contradictions,
            ),
            (
                "owed_appended",
                "Entries that became owed to a mailbox or session",
                &self.owed,
            ),
            ("owed_settled", "Entries acknowledged by a session", &self.settled),
            (
                "shared_redistributed",
                "Entries of a group that went to another member",
                &self.shared_again,
            ),
            (
                "shared_ended",
                "Entries of a group that no other member could have",
                &self.shared_ended,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "mqtt_limits_met",
            "How often a user's or session's limit was met, by limit",
            self.limits.clone(),
        );
        registry.register(
            "mqtt_sessions_live",
            "Sessions with a connection",
            self.live.clone(),
        );
        registry.register(
            "mqtt_retained_copies_bytes",
            "Other nodes' retained messages that wait for clients, bytes",
            self.copies.gauge(),
        );
        registry.register("user_homes", "Users in memory", self.homes.clone());
        registry.register_with_unit(
            "mqtt_acknowledge",
            "From PUBLISH to its acknowledgement",
            Unit::Seconds,
            self.acknowledge_seconds.clone(),
        );
    }
}
