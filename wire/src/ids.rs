//! Identifiers: 16-byte UUIDs with a type each, and the key that says where something lives.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Text that is not an id in its lower-case hyphenated form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is a UUID in lower case with hyphens")]
pub struct NotAnId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh id: UUIDv7, so ids made later sort later.
            pub fn fresh() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id in 16 bytes; `None` if there are not 16.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// Its 16 bytes, for protobuf fields and keys.
            pub fn to_bytes(self) -> Bytes {
                Bytes::copy_from_slice(self.0.as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            /// Only the lower-case hyphenated form of the contract.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let id = Uuid::try_parse(text).map_err(|_| NotAnId)?;
                let mut buffer = Uuid::encode_buffer();
                if id.hyphenated().encode_lower(&mut buffer) == text { Ok(Self(id)) } else { Err(NotAnId) }
            }
        }
    };
}

id!(
    /// A user.
    UserId
);
id!(
    /// A conversation; a group's id is its conversation's.
    ConversationId
);
id!(
    /// A message.
    MessageId
);
id!(
    /// An MQTT session: fresh each time a session begins, so nothing of an ended one is taken for a new one's.
    SessionId
);

impl UserId {
    /// The key under which sessions of an anonymous client are kept (no user, client id): UUIDv8 of SHA-256.
    pub fn anonymous(client_id: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"godwit anonymous client\0");
        hash.update(client_id.as_bytes());
        Self(uuid_v8(&hash.finalize()))
    }
}

impl ConversationId {
    /// The one-to-one conversation of two users: UUIDv8 of SHA-256 over both ids, the smaller first.
    pub fn direct(a: UserId, b: UserId) -> Self {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        let mut hash = Sha256::new();
        hash.update(first.0.as_bytes());
        hash.update(second.0.as_bytes());
        Self(uuid_v8(&hash.finalize()))
    }
}

fn uuid_v8(digest: &[u8]) -> Uuid {
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

/// Where something lives: everything about one key is owned by one worker of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A user: account, mailbox, sessions, live connections.
    User(UserId),
    /// A conversation: sequence, members, fan-out.
    Conversation(ConversationId),
    /// The first two levels of an ordinary topic (`a/b` of `a/b/c/d`; `a` of `a`): routes, retained messages.
    Topic(Box<str>),
    /// Filters with a wildcard inside the first two levels: the one key that owns their rows.
    Wildcards,
    /// What a worker has for all its keys: the copy of those filters that it matches its own topics against, and the
    /// interest of its users. Never leaves the node.
    WildcardCopy(u16),
    /// What a node has for all its homes, whoever holds what: the copies of all its workers. By its start.
    Node(Uuid),
}

impl Key {
    /// Number of shards; fixed when a cluster is created.
    pub const SHARDS: u16 = 4096;

    /// The key of an ordinary topic name or of a filter whose first two levels are literal.
    pub fn of_topic(topic: &str) -> Self {
        let end = topic.match_indices('/').nth(1).map_or(topic.len(), |(at, _)| at);
        Self::Topic(topic[..end].into())
    }

    /// The shard of this key: part of the wire and disk formats, never changes.
    pub fn shard(&self) -> u16 {
        let hash = match self {
            Self::User(id) => hash(b'u', id.0.as_bytes()),
            Self::Conversation(id) => hash(b'c', id.0.as_bytes()),
            Self::Topic(levels) => hash(b't', levels.as_bytes()),
            Self::Wildcards | Self::WildcardCopy(_) | Self::Node(_) => 0,
        };
        // The remainder is below SHARDS, which fits.
        (hash % u64::from(Self::SHARDS)) as u16
    }
}

fn hash(kind: u8, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, u64::from(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_key_is_its_first_two_levels() {
        assert_eq!(Key::of_topic("a/b/c/d"), Key::Topic("a/b".into()));
        assert_eq!(Key::of_topic("a/b"), Key::Topic("a/b".into()));
        assert_eq!(Key::of_topic("a"), Key::Topic("a".into()));
        assert_eq!(Key::of_topic("/a/b"), Key::Topic("/a".into()));
    }

    #[test]
    fn a_direct_conversation_is_the_same_from_both_sides_and_of_version_8() {
        let (a, b) = (UserId::fresh(), UserId::fresh());
        assert_eq!(ConversationId::direct(a, b), ConversationId::direct(b, a));
        assert_eq!(ConversationId::direct(a, b).0.get_version_num(), 8);
        assert_ne!(ConversationId::direct(a, b), ConversationId::direct(a, a));
    }

    #[test]
    fn only_the_canonical_form_of_an_id_is_read() {
        let id = UserId::fresh();
        assert_eq!(id.to_string().parse::<UserId>().ok(), Some(id));
        assert!(id.to_string().to_uppercase().parse::<UserId>().is_err());
        assert!(id.0.simple().to_string().parse::<UserId>().is_err());
    }

    #[test]
    fn shards_are_part_of_the_format_and_stay_what_they_are() {
        assert_eq!(
            Key::of_topic("iot/alice").shard(),
            Key::Topic("iot/alice".into()).shard()
        );
        let user = UserId(Uuid::from_u128(1));
        assert_eq!(Key::User(user).shard(), Key::User(user).shard());
        assert_ne!(
            Key::User(user).shard(),
            Key::Conversation(ConversationId(user.0)).shard()
        );
    }
}
