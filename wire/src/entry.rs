//! Entries of a conversation's log: made, read from and written to their stored rows, and put into inbox payloads. The
//! bytes of a message are encoded once, when it is made; row and payloads hold those very bytes.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use crate::command::{EntryBody, LoggedEntry};
use crate::ids::{ConversationId, MessageId, UserId};
use crate::proto::chat::{self, inbox_event, message};

/// A stored row that is no entry.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not the protobuf of a row or of what is in it.
    #[error("a stored row is not protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Protobuf, but a field that must be there is not, or has not its form.
    #[error("a stored row has no proper `{0}`")]
    Field(&'static str),
}

/// What a row keeps beside the entry: for ONCE, and to make its other rows again if they were not stored with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryKeys {
    /// What names the send when the client gave no id ([`SendIdentity::Implicit`](crate::command::SendIdentity)).
    pub retry_key: Option<[u8; 16]>,
    /// Digest of what the sender asked for; `None` for a membership entry.
    pub content_digest: Option<[u8; 16]>,
    /// The name of who a membership entry is about.
    pub member_name: Option<Arc<str>>,
}

/// `stored.LogEntry` with its message left as bytes, which protobuf cannot tell apart.
#[derive(Clone, PartialEq, prost::Message)]
struct LogRow {
    #[prost(bytes = "bytes", optional, tag = "1")]
    message: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    member: Option<Bytes>,
    #[prost(bytes = "bytes", tag = "3")]
    retry_key: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    content_digest: Bytes,
    #[prost(string, tag = "5")]
    member_name: String,
}

/// `chat.InboxEvent` with its message left as bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct InboxRow {
    #[prost(uint64, tag = "1")]
    inbox_seq: u64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    message: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    member: Option<Bytes>,
}

impl LoggedEntry {
    /// An entry of a message with its number. Fails if an id has not 16 bytes or there is no content.
    pub fn message(message: chat::Message) -> Result<Self, DecodeError> {
        let encoded = message.encode_to_vec().into();
        Self::of_message(message, encoded)
    }

    /// An entry of a membership change with its number. Fails if an id has not 16 bytes.
    pub fn member(member: chat::Member) -> Result<Self, DecodeError> {
        let encoded = member.encode_to_vec().into();
        Self::of_member(member, encoded)
    }

    /// The entry of a row of a conversation's log. It shares the row's memory.
    pub fn from_stored(row: Bytes) -> Result<(Self, RetryKeys), DecodeError> {
        let row = LogRow::decode(row)?;
        let keys = RetryKeys {
            retry_key: sixteen(&row.retry_key, "retry_key")?,
            content_digest: sixteen(&row.content_digest, "content_digest")?,
            member_name: (!row.member_name.is_empty()).then(|| row.member_name.into()),
        };
        let entry = match (row.message, row.member) {
            (Some(encoded), None) => Self::of_message(chat::Message::decode(encoded.clone())?, encoded)?,
            (None, Some(encoded)) => Self::of_member(chat::Member::decode(encoded.clone())?, encoded)?,
            _ => return Err(DecodeError::Field("entry")),
        };
        Ok((entry, keys))
    }

    /// The row of this entry.
    pub fn to_stored(&self, keys: &RetryKeys) -> Bytes {
        let (message, member) = self.as_fields();
        let bytes = |key: &Option<[u8; 16]>| key.map(|key| Bytes::copy_from_slice(&key)).unwrap_or_default();
        LogRow {
            message,
            member,
            retry_key: bytes(&keys.retry_key),
            content_digest: bytes(&keys.content_digest),
            member_name: keys.member_name.as_deref().unwrap_or_default().to_owned(),
        }
        .encode_to_vec()
        .into()
    }

    /// The message's id; `None` for a membership entry.
    pub fn message_id(&self) -> Option<MessageId> {
        match &self.body {
            EntryBody::Message(message) => MessageId::from_slice(&message.message_id),
            EntryBody::Member(_) => None,
        }
    }

    fn of_message(message: chat::Message, encoded: Bytes) -> Result<Self, DecodeError> {
        let conversation = ConversationId::from_slice(&message.conversation_id)
            .ok_or(DecodeError::Field("conversation_id"))?;
        MessageId::from_slice(&message.message_id).ok_or(DecodeError::Field("message_id"))?;
        UserId::from_slice(&message.sender_id).ok_or(DecodeError::Field("sender_id"))?;
        if message.content.is_none() {
            return Err(DecodeError::Field("content"));
        }
        Ok(Self {
            conversation,
            sequence_number: message.sequence_number,
            body: EntryBody::Message(message),
            encoded,
        })
    }

    fn of_member(member: chat::Member, encoded: Bytes) -> Result<Self, DecodeError> {
        let conversation = ConversationId::from_slice(&member.conversation_id)
            .ok_or(DecodeError::Field("conversation_id"))?;
        UserId::from_slice(&member.user_id).ok_or(DecodeError::Field("user_id"))?;
        UserId::from_slice(&member.by).ok_or(DecodeError::Field("by"))?;
        Ok(Self {
            conversation,
            sequence_number: member.sequence_number,
            body: EntryBody::Member(member),
            encoded,
        })
    }

    /// The encoded bytes in the field of their kind: message, member.
    fn as_fields(&self) -> (Option<Bytes>, Option<Bytes>) {
        match self.body {
            EntryBody::Message(_) => (Some(self.encoded.clone()), None),
            EntryBody::Member(_) => (None, Some(self.encoded.clone())),
        }
    }
}

fn sixteen(bytes: &[u8], field: &'static str) -> Result<Option<[u8; 16]>, DecodeError> {
    match bytes.is_empty() {
        true => Ok(None),
        false => bytes.try_into().map(Some).map_err(|_| DecodeError::Field(field)),
    }
}

/// Payload of `me/inbox` for an entry; its message's bytes are copied, not encoded again.
pub fn inbox_proto(inbox_seq: u64, entry: &LoggedEntry) -> Bytes {
    let (message, member) = entry.as_fields();
    InboxRow {
        inbox_seq,
        message,
        member,
    }
    .encode_to_vec()
    .into()
}

/// Payload of `me/inbox` for an event of its own; `inbox_seq` 0: not owed.
pub fn event_proto(inbox_seq: u64, event: &chat::InboxEvent) -> Bytes {
    chat::InboxEvent {
        inbox_seq,
        event: event.event.clone(),
    }
    .encode_to_vec()
    .into()
}

/// Payload of `me/inbox/text` for an entry: `{sender name}: {text}`. Media is shown as `[image] caption`, what is
/// encrypted as `[encrypted]`. `None`: it has no text form (membership); such an entry counts as delivered unseen.
pub fn inbox_text(entry: &LoggedEntry) -> Option<String> {
    let EntryBody::Message(message) = &entry.body else {
        return None;
    };
    let name = &message.sender_name;
    Some(match message.content.as_ref()? {
        message::Content::Text(text) => format!("{name}: {text}"),
        message::Content::Ciphertext(_) => format!("{name}: [encrypted]"),
        message::Content::Media(media) => {
            let kind = match message.content_type() {
                chat::ContentType::Image => "image",
                chat::ContentType::Video => "video",
                _ => "file",
            };
            match media.caption.is_empty() {
                true => format!("{name}: [{kind}]"),
                false => format!("{name}: [{kind}] {}", media.caption),
            }
        }
    })
}

/// Payload of `me/inbox/text` for an event of its own. A refused publish and a gap are said in a line that begins with
/// `!`, which no user name does; the other events have no text form.
pub fn event_text(event: &chat::InboxEvent) -> Option<String> {
    match event.event.as_ref()? {
        inbox_event::Event::Refused(refused) => {
            Some(format!("! refused: {} {}", refused.code, refused.topic))
        }
        inbox_event::Event::Gap(_) => Some("! older messages were removed".to_owned()),
        _ => None,
    }
}
