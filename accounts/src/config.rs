//! What an installation decides about accounts, and the bounds of one user's rows with their reasons.

use serde::{Deserialize, Serialize};

/// Login sessions of a user; one more ends the one not used for longest: people forget to log out.
pub const LOGIN_SESSIONS: usize = 64;
/// Device tokens of a user: one a device, with room; one more is refused (`quota`).
pub const DEVICE_TOKENS: usize = 256;
/// Contacts of a user, asked-for and blocked ones included: all are in memory while the user is.
pub const CONTACTS: usize = 5_000;
/// Idempotency keys kept of a user; one more within 24 h is refused (`quota`).
pub const IDEMPOTENCY_KEYS: usize = 1_000;
/// How long an idempotency key is kept, milliseconds.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600 * 1_000;
/// How long an access token lives, milliseconds.
pub const ACCESS_TOKEN_MS: u64 = 15 * 60 * 1_000;
/// How long a login session lives without a refresh, milliseconds: 30 days.
pub const SESSION_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// How long a credential that has ended by its time is kept, milliseconds, unless its place is wanted: a will that waits for its delay
/// is judged by it.
pub const ENDED_KEPT_MS: u64 = 24 * 3_600 * 1_000;
/// Longest display name or name of a token, bytes.
pub const NAME_BYTES: usize = 128;
/// Longest e-mail address, bytes (RFC 5321, 4.5.3.1.3).
pub const EMAIL_BYTES: usize = 254;

/// Who may write to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direct {
    /// Anyone who is not blocked.
    #[default]
    Anyone,
    /// Only contacts both ways.
    Contacts,
}

/// What the accounts role is told.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Who may open one-to-one conversations.
    pub direct: Direct,
}
