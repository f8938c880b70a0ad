//! The tables of this crate and how their keys are made. Ids are part of the on-disk format.

use bytes::Bytes;
use godwit_store::{Kind, LogId, Op, Table, View};
use godwit_wire::command::SendIdentity;
use godwit_wire::ids::{ConversationId, MessageId, UserId};

/// Every table of this crate, for an engine that makes them beforehand.
pub const ALL_TABLES: [Table; 6] = [
    CONVERSATION_LOG,
    CLIENT_IDS,
    CONVERSATION_ROWS,
    MESSAGE_IDS,
    OPEN_TAILS,
    CONVERSATIONS,
];

/// A conversation's log; the log's id is the conversation's. Rows: `stored.v1.LogEntry`.
pub const CONVERSATION_LOG: Table = Table {
    id: 300,
    kind: Kind::Log,
    name: "conversation_log",
};
/// `(conversation; sender, client message id) → (sequence, view)`: what makes a repeated send recognisable.
pub const CLIENT_IDS: Table = Table {
    id: 301,
    kind: Kind::Single,
    name: "client_ids",
};
/// A conversation's small rows: what it is, its members, blocks, watermarks, the fan-out mark.
pub const CONVERSATION_ROWS: Table = Table {
    id: 302,
    kind: Kind::Owned,
    name: "conversation_rows",
};
/// `message id → (conversation, sequence)`, for the doors that know a message by its id only.
pub const MESSAGE_IDS: Table = Table {
    id: 303,
    kind: Kind::Single,
    name: "message_ids",
};
/// `(shard; conversation)`: conversations that may have an entry not fanned out to all, or not indexed.
pub const OPEN_TAILS: Table = Table {
    id: 304,
    kind: Kind::Set,
    name: "open_tails",
};

/// `(shard; conversation)`: every conversation, written when it is made; read only to build the search index anew.
pub const CONVERSATIONS: Table = Table {
    id: 305,
    kind: Kind::Set,
    name: "conversations",
};

pub(crate) fn log(conversation: ConversationId) -> LogId {
    LogId {
        table: CONVERSATION_LOG,
        id: conversation.0,
    }
}

/// Name of a client id's row: the sender, then which kind of id, then the id.
pub(crate) fn client_id_name(sender: UserId, identity: &SendIdentity) -> Bytes {
    let (kind, id): (u8, &[u8]) = match identity {
        SendIdentity::Client(id) => (b'c', id.as_bytes()),
        SendIdentity::Implicit(id) => (b'i', id),
    };
    let mut name = Vec::with_capacity(17 + id.len());
    name.extend_from_slice(sender.0.as_bytes());
    name.push(kind);
    name.extend_from_slice(id);
    name.into()
}

/// Value of a client id's row. The view tells a later owner whether the position it names is the one it was given.
pub(crate) fn client_id_value(sequence: u64, view: View) -> Bytes {
    let mut value = [0u8; 16];
    value[..8].copy_from_slice(&sequence.to_be_bytes());
    value[8..].copy_from_slice(&view.to_be_bytes());
    Bytes::copy_from_slice(&value)
}

/// The sequence number in a client id's row.
pub(crate) fn client_id_sequence(value: &[u8]) -> Option<u64> {
    value.get(..8)?.try_into().ok().map(u64::from_be_bytes)
}

/// The row that leads from a message's id to its place.
pub(crate) fn message_id_row(id: MessageId, conversation: ConversationId, sequence: u64, view: View) -> Op {
    let mut value = [0u8; 24];
    value[..16].copy_from_slice(conversation.0.as_bytes());
    value[16..].copy_from_slice(&sequence.to_be_bytes());
    let value = Some(Bytes::copy_from_slice(&value));
    Op::Put {
        table: MESSAGE_IDS,
        partition: id.to_bytes(),
        name: Bytes::new(),
        view,
        value,
    }
}

/// The place in a row of [`MESSAGE_IDS`].
pub fn message_place(value: &[u8]) -> Option<(ConversationId, u64)> {
    let conversation = ConversationId::from_slice(value.get(..16)?)?;
    Some((
        conversation,
        u64::from_be_bytes(value.get(16..24)?.try_into().ok()?),
    ))
}

/// Partition of a shard in [`OPEN_TAILS`] and [`CONVERSATIONS`].
pub fn tail_partition(shard: u16) -> Bytes {
    Bytes::copy_from_slice(&shard.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_never_reads_as_an_implicit_one() {
        let sender = UserId::fresh();
        let client = client_id_name(sender, &SendIdentity::Client("0123456789abcdef".into()));
        let implicit = client_id_name(sender, &SendIdentity::Implicit(*b"0123456789abcdef"));
        assert_ne!(client, implicit);
    }

    #[test]
    fn a_message_id_row_leads_back_to_its_place() {
        let (message, conversation) = (MessageId::fresh(), ConversationId::fresh());
        let Op::Put {
            value: Some(value), ..
        } = message_id_row(message, conversation, 77, 3)
        else {
            panic!("a put with a value");
        };
        assert_eq!(message_place(&value), Some((conversation, 77)));
        assert_eq!(message_place(&value[..20]), None);
    }
}
