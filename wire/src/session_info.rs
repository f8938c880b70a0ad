//! What operators see of a user's sessions. Forms of the admin listener and of the command line are the server's.

use uuid::Uuid;

/// Most filters of a session that are told; the others are only counted.
pub const LISTED_FILTERS: usize = 100;

/// A session, as its user's home sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Client id.
    pub client_id: Box<str>,
    /// Its connection, while it has one.
    pub live: Option<LiveInfo>,
    /// When its last connection ended, milliseconds since 1970; 0: it has one, or nobody knows (its home crashed).
    pub disconnected_at: u64,
    /// Session Expiry Interval as granted, seconds; 0: ends with its connection, `u32::MAX`: as late as may be.
    pub expiry: u32,
    /// Topic filters that it was granted, in no order, [`LISTED_FILTERS`] at most.
    pub filters: Vec<String>,
    /// How many there are.
    pub subscriptions: u32,
    /// Entries that it is owed or has not acknowledged: of the mailbox, and of its own log.
    pub owed: u64,
    /// About how many bytes those of its own log take; the mailbox only refers to what is stored elsewhere.
    pub owed_bytes: u64,
}

/// A session's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveInfo {
    /// Since when, milliseconds since 1970, to the second.
    pub since: u64,
    /// Whether it speaks MQTT 5; else 3.1.1.
    pub is_v5: bool,
    /// The start of the node where its client came, if that is not its home's.
    pub via: Option<Uuid>,
}
