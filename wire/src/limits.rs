//! Limits that clients meet, with their reasons. All are defaults of docs/protocol.md.

/// Largest content of one message, bytes: text fits a screen, media goes by reference.
pub const MESSAGE_BYTES: usize = 64 * 1024;
/// Largest MQTT packet, bytes: a message with its properties and room for device payloads.
pub const PACKET_BYTES: usize = 256 * 1024;
/// Longest client message id, bytes.
pub const CLIENT_MESSAGE_ID_BYTES: usize = 64;
/// Members of a group: what is copied to each mailbox at write.
pub const GROUP_MEMBERS: usize = 512;
/// Groups of a user.
pub const USER_GROUPS: usize = 1_000;
/// Persistent sessions of a user.
pub const USER_SESSIONS: usize = 64;
/// Unacknowledged QoS 1/2 publishes of a client at a time, each way.
pub const RECEIVE_MAXIMUM: u16 = 256;
/// Longest session expiry, seconds: 90 days.
pub const SESSION_EXPIRY_SECONDS: u32 = 90 * 24 * 3600;
/// Longest topic name or filter, bytes: deeper than people's topics, below what makes matching costly.
pub const TOPIC_BYTES: usize = 4 * 1024;
/// Most levels of a topic name or filter: bounds the recursion of matching.
pub const TOPIC_LEVELS: usize = 64;
/// Subscriptions of one session.
pub const SESSION_SUBSCRIPTIONS: usize = 1_000;
/// Subscriptions of one user, over all sessions: a publish that all of them match costs its worker some 3 ms, which others
/// wait for.
pub const USER_SUBSCRIPTIONS: usize = 10_000;
/// Longest name of a shared subscription's group, bytes: as long as names that people give, and a part of every shared
/// entry's row.
pub const SHARE_NAME_BYTES: usize = 128;
/// Members of a shared subscription's group: what one topic's home keeps of it in memory is some 200 KiB.
pub const SHARE_MEMBERS: usize = 1_024;
/// Shared subscriptions of a user, over all sessions: each may be a copy of a publish, though it goes to one session.
pub const USER_SHARES: usize = 256;
/// Filters with a wildcard in the first two levels, of a node: every worker keeps a copy.
pub const WILDCARD_FILTERS: usize = 100_000;
/// How long a PUBLISH is held while the store does not answer, milliseconds.
pub const ACK_TIMEOUT_MS: u64 = 10_000;
/// How long one on an ordinary topic is held while the store is well, milliseconds: it waits for its turn, perhaps behind as
/// many of its own user as may wait, each for ten thousand; and would, sent once more, come to all of them twice.
pub const TOPIC_TIMEOUT_MS: u64 = 120_000;
/// Topic aliases that a client may set on a connection (MQTT 5): what a device has topics; a table of as many times
/// [`TOPIC_BYTES`] is the most that a connection costs.
pub const TOPIC_ALIASES: u16 = 16;
/// User properties of one packet, and as many of a will: what HTTP servers take of header lines. Each costs several times
/// its bytes in memory.
pub const USER_PROPERTIES: usize = 100;
/// Longest client id, bytes (the specification asks for at least 23).
pub const CLIENT_ID_BYTES: usize = 256;
/// Longest page of history, entries.
pub const PAGE: u32 = 200;

const _: () = assert!(MESSAGE_BYTES < PACKET_BYTES, "a message must fit a packet");
const _: () = assert!(TOPIC_BYTES < PACKET_BYTES, "a topic must fit a packet");
const _: () = assert!(TOPIC_BYTES <= 65_535, "MQTT strings have 16-bit lengths");
