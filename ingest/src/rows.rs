//! A conversation's small rows: their protobuf forms and names. Fields are only ever added.

use bytes::Bytes;
use godwit_store::{Op, Read, View};
use godwit_wire::ids::{ConversationId, UserId};
use prost::Message;

use crate::tables::CONVERSATION_ROWS;

/// What a conversation is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InfoRow {
    #[prost(bool, tag = "1")]
    pub(crate) group: bool,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) description: String,
    #[prost(uint64, tag = "4")]
    pub(crate) created_at: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) created_by: Bytes,
    #[prost(bool, tag = "6")]
    pub(crate) full_history: bool,
    /// Everybody who was in at the creation knows of it.
    #[prost(bool, tag = "7")]
    pub(crate) announced: bool,
    /// SHA-256 prefix of the creating request, to tell a repeat from another one with the same id.
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) request_digest: Bytes,
}

/// One user who is or was in.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberRow {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// `chat::Role`.
    #[prost(int32, tag = "2")]
    pub(crate) role: i32,
    /// Positions between which the user is in, both inclusive: from, to, from, to …; an odd count: still in.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) bounds: Vec<u64>,
    /// When the last interval began, for "the oldest member".
    #[prost(uint64, tag = "4")]
    pub(crate) order: u64,
}

/// How far a member got.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct WatermarkRow {
    #[prost(uint64, tag = "1")]
    pub(crate) delivered: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) read: u64,
}

/// Up to where everything was fanned out when the row was written.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct MarkRow {
    #[prost(uint64, tag = "1")]
    pub(crate) fanned_out: u64,
    /// Newest time in the log then, milliseconds since 1970: the next entry's is not below it.
    #[prost(uint64, tag = "2")]
    pub(crate) last_created_at: u64,
}

/// The name of a small row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowName {
    Info,
    Member(UserId),
    Watermark(UserId),
    /// This user blocks the other (one-to-one).
    BlockedBy(UserId),
    Mark,
}

impl RowName {
    pub(crate) fn encode(self) -> Bytes {
        let (kind, user) = match self {
            Self::Info => return Bytes::from_static(b"i"),
            Self::Mark => return Bytes::from_static(b"f"),
            Self::Member(user) => (b'm', user),
            Self::Watermark(user) => (b'w', user),
            Self::BlockedBy(user) => (b'b', user),
        };
        let mut name = [0u8; 17];
        name[0] = kind;
        name[1..].copy_from_slice(user.0.as_bytes());
        Bytes::copy_from_slice(&name)
    }

    pub(crate) fn decode(name: &[u8]) -> Option<Self> {
        let (kind, rest) = name.split_first()?;
        match kind {
            b'i' if rest.is_empty() => Some(Self::Info),
            b'f' if rest.is_empty() => Some(Self::Mark),
            b'm' => UserId::from_slice(rest).map(Self::Member),
            b'w' => UserId::from_slice(rest).map(Self::Watermark),
            b'b' => UserId::from_slice(rest).map(Self::BlockedBy),
            _ => None,
        }
    }
}

pub(crate) fn put(conversation: ConversationId, view: View, name: RowName, value: Option<Bytes>) -> Op {
    Op::Put {
        table: CONVERSATION_ROWS,
        partition: conversation.to_bytes(),
        name: name.encode(),
        view,
        value,
    }
}

/// Reads up to where a conversation was fanned out, and so confirmed, when that was stored last. Anybody may.
pub fn fan_out_mark_of(conversation: ConversationId) -> Read {
    Read::Row {
        table: CONVERSATION_ROWS,
        partition: conversation.to_bytes(),
        name: RowName::Mark.encode(),
    }
}

/// The position in a row that [`fan_out_mark_of`] gave; `None` if it cannot be read.
pub fn fan_out_mark(value: &[u8]) -> Option<u64> {
    MarkRow::decode(value).ok().map(|row| row.fanned_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rows_read_back() {
        let user = UserId::fresh();
        for name in [
            RowName::Info,
            RowName::Mark,
            RowName::Member(user),
            RowName::Watermark(user),
            RowName::BlockedBy(user),
        ] {
            assert_eq!(RowName::decode(&name.encode()), Some(name));
        }
        assert_eq!(RowName::decode(b"m123"), None);
        assert_eq!(RowName::decode(b""), None);
    }
}
