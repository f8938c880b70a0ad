//! The JSON forms of the contract: one object an event, the same in REST, the inbox, WebSocket and search, and the bodies
//! of send and read. How they come from and go to protobuf is in `convert`, what a send must be in [`crate::content`].

mod convert;
mod encoded;
mod forms;

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::code::{Code, Refusal};
use crate::ids::{ConversationId, MessageId, UserId};

pub use convert::BadForm;
pub(crate) use convert::{ContentRef, reply_to};
pub use encoded::{EventJson, inbox_json};
pub use forms::{Base64, ContentType, ConversationKind, ConversationOp, MemberOp, Role, Timestamp};

/// An event: what one inbox payload, one frame, one entry of a history page is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A message.
    Message(Message<'a>),
    /// A numbered change of who is in a conversation.
    Member(Member),
    /// A conversation came to be or changed.
    Conversation(Conversation<'a>),
    /// A publish of mine that was refused for good.
    Refused(Refused<'a>),
    /// Entries are gone that I never had.
    Gap(Gap),
    /// How far a member got; not owed.
    Receipt(Receipt),
}

/// An event with its place in the mailbox, as it is read back: for clients and tests. [`inbox_json`] writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InboxEvent<'a> {
    /// Place in the mailbox; absent: not owed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox_seq: Option<u64>,
    /// What it is.
    #[serde(flatten)]
    pub event: Event<'a>,
}

/// The message object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// Which conversation.
    pub conversation_id: ConversationId,
    /// Position in it.
    pub sequence_number: u64,
    /// Its id.
    pub message_id: MessageId,
    /// The sender's own id for it, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<Cow<'a, str>>,
    /// Who sent it.
    pub sender_id: UserId,
    /// The sender's user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<Cow<'a, str>>,
    /// Kind of content.
    pub content_type: ContentType,
    /// Content.
    pub content: Content<'a>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Content: a string (text; base64 for encrypted) or, for media, an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content<'a> {
    /// Text, or base64 of what is encrypted.
    Text(Cow<'a, str>),
    /// Where an image, a video or a file is.
    Media(Media<'a>),
}

/// Where an image, a video or a file is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Media<'a> {
    /// Its id.
    pub media_id: Uuid,
    /// Its MIME type.
    pub mime_type: Cow<'a, str>,
    /// Its size, bytes.
    pub size: u64,
    /// What is written under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<Cow<'a, str>>,
}

/// A numbered change of who is in a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Which conversation.
    pub conversation_id: ConversationId,
    /// Position in it.
    pub sequence_number: u64,
    /// Who came, went or has a role.
    pub user_id: UserId,
    /// Who did it.
    pub by: UserId,
    /// What.
    pub op: MemberOp,
    /// The role it has now; absent for who is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// When.
    pub created_at: Timestamp,
}

/// A conversation came to be, or its name or description changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation<'a> {
    /// Which.
    pub conversation_id: ConversationId,
    /// What happened.
    pub op: ConversationOp,
    /// Who did it.
    pub by: UserId,
    /// Which kind.
    pub conversation_type: ConversationKind,
    /// Groups only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// Groups only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Cow<'a, str>>,
    /// When.
    pub created_at: Timestamp,
}

/// A publish of mine that was refused for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused<'a> {
    /// Name of the error code.
    pub code: Cow<'a, str>,
    /// Where it was published.
    pub topic: Cow<'a, str>,
    /// Its client message id, if it had one that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<Cow<'a, str>>,
    /// The payload; as base64 if `content_encoding` says so.
    pub content: Cow<'a, str>,
    /// `base64` for a payload that is not UTF-8, else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<Base64>,
}

/// Entries after this one were removed before I had them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Sequence number; without a conversation: inbox_seq.
    pub after: u64,
    /// Which conversation; absent: the mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
}

/// How far a member got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which conversation.
    pub conversation_id: ConversationId,
    /// Which member.
    pub user_id: UserId,
    /// Acknowledged by a device up to here.
    pub delivered_up_to: u64,
    /// Read up to here.
    pub read_up_to: u64,
}

/// Payload of `c/{conv}/send/json` and body of POST message. What it must be is checked by
/// [`SendParts`](crate::content::SendParts).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SendBody<'a> {
    /// 1–64 bytes; names the message for retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<Cow<'a, str>>,
    /// Kind of content; absent: text.
    #[serde(default)]
    pub content_type: ContentType,
    /// Content.
    pub content: Content<'a>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
}

/// Payload of `c/{conv}/read/json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadBody {
    /// Sequence number, inclusive.
    pub up_to: u64,
}

/// Told instead of serde's "no variant matched".
const CONTENT_FORM: &str = "`content` is a string, or for media an object with media_id, mime_type and size";

impl<'de> Deserialize<'de> for Content<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Content<'static>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(CONTENT_FORM)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                self.visit_string(text.to_owned())
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Content::Text(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Media::deserialize(de::value::MapAccessDeserializer::new(map)).map(Content::Media)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Reads a JSON body of the contract. Refused as `malformed`, in a sentence that repeats nothing of the body but names
/// of fields.
pub fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

/// The refusal for a body that serde_json did not take. Its own sentence may quote the body, so it is not passed on.
pub fn malformed(error: &serde_json::Error) -> Refusal {
    let at = format!("line {}, column {}", error.line(), error.column());
    let detail = match error.classify() {
        serde_json::error::Category::Data => {
            let told = error.to_string();
            // serde's text for it holds a field name of ours and nothing of the body.
            let missing = told
                .strip_prefix("missing field `")
                .and_then(|rest| rest.split('`').next());
            match missing {
                Some(field) => format!("the field `{field}` is missing"),
                None if told.contains(CONTENT_FORM) => CONTENT_FORM.to_owned(),
                None => format!("a field has the wrong type or value ({at})"),
            }
        }
        serde_json::error::Category::Eof => "the JSON ends too early".to_owned(),
        _ => format!("this is not JSON ({at})"),
    };
    Refusal::new(Code::Malformed, detail)
}
