//! Commands and answers of the accounts role, and what the doors know about who is at them.

use std::sync::Arc;

use uuid::Uuid;

use crate::ids::{ConversationId, UserId};

/// A credential as it came, not yet judged. Its text never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<str>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who is at a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// User id (of an anonymous client: made from its client id).
    pub user: UserId,
    /// Immutable user name; empty for an anonymous client.
    pub name: Arc<str>,
    /// The login session or device token behind it, for revocation; `None` for an anonymous client.
    pub credential: Option<Uuid>,
    /// When the credential ends, milliseconds since 1970; 0: never.
    pub expires_at: u64,
    /// What it may be used for.
    pub scopes: Scopes,
    /// Administrator of the installation.
    pub admin: bool,
}

impl Principal {
    /// Whether nobody logged in.
    pub fn is_anonymous(&self) -> bool {
        self.credential.is_none()
    }
}

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scopes {
    /// `me/…`, `c/…`, `p/…`.
    pub chat: bool,
    /// Ordinary topics.
    pub topics: bool,
    /// REST.
    pub rest: bool,
}

/// For the accounts role at a user's home.
#[derive(Clone, Debug)]
pub enum AccountCommand {
    /// Judges a device token or an access token whose signature was checked. Answer: `Principal`.
    Authenticate {
        /// As it came.
        secret: Secret,
    },
    /// Whether `by` may write to this user (not blocked; config `direct`). Answer: `Done` or `not_found`.
    MayWrite {
        /// Who wants to.
        by: UserId,
    },
    /// This user came into a conversation. Answer: `Done`, durable; `quota` over the limit of groups.
    Joined {
        /// Which.
        conversation: ConversationId,
        /// Group or one-to-one.
        group: bool,
    },
    /// This user is no longer in it. Answer: `Done`, durable.
    Left {
        /// Which.
        conversation: ConversationId,
    },
    /// A page of this user's conversations. Answer: `Conversations`.
    Conversations {
        /// Only ids above.
        after: Option<ConversationId>,
        /// At most.
        limit: u32,
    },
}

/// What the accounts role answers, besides `Done` and refusals.
#[derive(Clone, Debug)]
pub enum AccountAnswer {
    /// Of `Authenticate`.
    Principal(Principal),
    /// Of `Conversations`: `(id, group)`, and whether there is more.
    Conversations(Vec<(ConversationId, bool)>, bool),
}
