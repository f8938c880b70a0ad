//! What a mailbox entry is to those who get it, and its payload in the encodings of me/inbox.

use std::sync::Arc;

use bytes::Bytes;
use godwit_wire::command::{EntryBody, LoggedEntry};
use godwit_wire::entry;
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::json::{EventJson, inbox_json};
use godwit_wire::proto::chat;
use godwit_wire::topic::Encoding;
use prost::Message as _;

use super::log::Entry;

/// An entry of a mailbox.
#[derive(Clone)]
pub(crate) enum Mail {
    /// A conversation's entry.
    Entry(Arc<LoggedEntry>),
    /// An event of its own.
    Event(Arc<chat::InboxEvent>),
    /// Its conversation's row is gone, or its form is of a later version: passed over.
    Lost,
}

impl Mail {
    /// The message whose acknowledgement is a delivered receipt: somebody else's.
    pub(crate) fn about(&self, me: UserId) -> Option<(ConversationId, u64)> {
        match self {
            Self::Entry(entry) if !self.is_mine(me) && matches!(entry.body, EntryBody::Message(_)) => {
                Some((entry.conversation, entry.sequence_number))
            }
            _ => None,
        }
    }

    /// Whether it is a message that I sent.
    pub(crate) fn is_mine(&self, me: UserId) -> bool {
        match self {
            Self::Entry(entry) => match &entry.body {
                EntryBody::Message(message) => message.sender_id == me.0.as_bytes()[..],
                EntryBody::Member(_) => false,
            },
            Self::Event(_) | Self::Lost => false,
        }
    }

    /// Its payload. `None`: it has no form in this encoding, and is passed over.
    pub(crate) fn payload(&self, inbox_seq: u64, encoding: Encoding) -> Option<Bytes> {
        match (self, encoding) {
            (Self::Entry(entry), Encoding::Proto) => Some(entry::inbox_proto(inbox_seq, entry)),
            (Self::Event(event), Encoding::Proto) => Some(entry::event_proto(inbox_seq, event)),
            (Self::Entry(entry), Encoding::Text) => entry::inbox_text(entry).map(Bytes::from),
            (Self::Event(event), Encoding::Text) => entry::event_text(event).map(Bytes::from),
            (Self::Entry(entry), Encoding::Json) => json(inbox_seq, EventJson::of_entry(entry).ok()?),
            (Self::Event(event), Encoding::Json) => json(inbox_seq, EventJson::of_event(event).ok()?),
            (Self::Lost, _) => None,
        }
    }
}

fn json(inbox_seq: u64, event: EventJson) -> Option<Bytes> {
    Some(inbox_json(inbox_seq, &event).into())
}

impl Entry for Mail {
    fn weight(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.encoded.len() * 2 + 128,
            Self::Event(event) => event.encoded_len() + 128,
            Self::Lost => 16,
        }
    }
}
