//! What accounts keeps in the store: table constants (ids 100–199, part of the on-disk format). What the rows hold is
//! said at `rows`.

use godwit_store::{Kind, Table};

/// Every table of this crate, for an engine that makes them beforehand.
pub const ALL: [Table; 5] = [USER_NAMES, USER_EMAILS, USERS, DEVICE_TOKENS, USER_CONVERSATIONS];

/// Claimed user names: lower-case user name → 16 bytes user id. Written once, never freed.
pub const USER_NAMES: Table = Table {
    id: 100,
    kind: Kind::Facts,
    name: "user_names",
};

/// Claimed e-mail addresses: lower-case address → 16 bytes user id.
pub const USER_EMAILS: Table = Table {
    id: 101,
    kind: Kind::Facts,
    name: "user_emails",
};

/// A user's small rows: partition = 16 bytes user id.
pub const USERS: Table = Table {
    id: 102,
    kind: Kind::Owned,
    name: "users",
};

/// Where a device token leads: partition = SHA-256 of the token, empty name → 16 bytes user id. Says only where to
/// ask: whether the token is good is said by the user's own rows.
pub const DEVICE_TOKENS: Table = Table {
    id: 103,
    kind: Kind::Single,
    name: "device_tokens",
};

/// The conversations a user is in: partition = user id and `g` (groups) or `d` (one-to-one), element = 16 bytes
/// conversation id, no value.
pub const USER_CONVERSATIONS: Table = Table {
    id: 104,
    kind: Kind::Set,
    name: "user_conversations",
};
