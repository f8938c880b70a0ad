//! The tables of this crate (ids 200–299, part of the on-disk format), and the one of ingest that mailboxes read.
//! What the rows hold is said in `users/rows.rs` and at the topics' homes.

use godwit_store::{Kind, Table};

use crate::topics::retained::{RETAINED, RETAINED_OF};
use crate::topics::{RETAINED_KEYS, ROUTES};

/// Every table of this crate, for an engine that makes them beforehand.
pub const ALL: [Table; 8] = [
    MAILBOX,
    SESSION_LOG,
    USER_ROWS,
    DUE,
    RETAINED,
    RETAINED_KEYS,
    RETAINED_OF,
    ROUTES,
];

/// A user's mailbox; the log's id is the user's. Rows: `stored.v1.MailboxEntry`.
pub const MAILBOX: Table = Table {
    id: 200,
    kind: Kind::Log,
    name: "mailbox",
};
/// A session's own log: publishes on ordinary topics that are owed to it. Rows: `stored.v1.StoredPublish`. The floor is
/// the session's cursor.
pub const SESSION_LOG: Table = Table {
    id: 201,
    kind: Kind::Log,
    name: "session_log",
};
/// A user's small rows: sessions, subscriptions, cursors, marks, QoS 2, wills. Partition = user id.
pub const USER_ROWS: Table = Table {
    id: 202,
    kind: Kind::Owned,
    name: "user_rows",
};
/// What must be looked at without a client: partition = shard and slice, element = when, then whose.
pub const DUE: Table = Table {
    id: 203,
    kind: Kind::Set,
    name: "due",
};

/// Ingest's table of conversations' logs: mailbox entries are references into it. That it is the same table there is
/// tested where both crates meet (server).
pub const CONVERSATION_LOG: Table = Table {
    id: 300,
    kind: Kind::Log,
    name: "conversation_log",
};
