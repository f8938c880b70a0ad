//! The JSON forms from protobuf and back. Nothing is checked here but that each field has its form.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use uuid::Uuid;

use super::{
    Base64, Content, ContentType, Conversation, ConversationKind, ConversationOp, Event, Gap, InboxEvent,
    Media, Member, MemberOp, Message, Receipt, Refused, Role, Timestamp,
};
use crate::command::EntryBody;
use crate::ids::{ConversationId, MessageId, UserId};
use crate::proto::chat::{self, inbox_event, message, send_request};

/// An event, a message or a content that has not its form: the field that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` has not its form")]
pub struct BadForm(pub &'static str);

/// Content as protobuf has it, in a message and in a send alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ContentRef<'a> {
    Text(&'a str),
    Media(&'a chat::Media),
    Ciphertext(&'a Bytes),
}

impl<'a> From<&'a message::Content> for ContentRef<'a> {
    fn from(content: &'a message::Content) -> Self {
        match content {
            message::Content::Text(text) => Self::Text(text),
            message::Content::Media(media) => Self::Media(media),
            message::Content::Ciphertext(bytes) => Self::Ciphertext(bytes),
        }
    }
}

impl<'a> From<&'a send_request::Content> for ContentRef<'a> {
    fn from(content: &'a send_request::Content) -> Self {
        match content {
            send_request::Content::Text(text) => Self::Text(text),
            send_request::Content::Media(media) => Self::Media(media),
            send_request::Content::Ciphertext(bytes) => Self::Ciphertext(bytes),
        }
    }
}

impl From<send_request::Content> for message::Content {
    fn from(content: send_request::Content) -> Self {
        match content {
            send_request::Content::Text(text) => Self::Text(text),
            send_request::Content::Media(media) => Self::Media(media),
            send_request::Content::Ciphertext(bytes) => Self::Ciphertext(bytes),
        }
    }
}

impl From<message::Content> for send_request::Content {
    fn from(content: message::Content) -> Self {
        match content {
            message::Content::Text(text) => Self::Text(text),
            message::Content::Media(media) => Self::Media(media),
            message::Content::Ciphertext(bytes) => Self::Ciphertext(bytes),
        }
    }
}

impl Content<'_> {
    /// As protobuf has it. The content type says whether a string is text or base64.
    pub fn to_proto(&self, content_type: ContentType) -> Result<send_request::Content, BadForm> {
        match (content_type, self) {
            (ContentType::Text, Content::Text(text)) => Ok(send_request::Content::Text(text.as_ref().into())),
            (ContentType::Encrypted, Content::Text(text)) => STANDARD
                .decode(text.as_bytes())
                .map(|bytes| send_request::Content::Ciphertext(bytes.into()))
                .map_err(|_| BadForm("content")),
            (ContentType::Image | ContentType::Video | ContentType::File, Content::Media(media)) => {
                Ok(send_request::Content::Media(media.into()))
            }
            _ => Err(BadForm("content")),
        }
    }
}

impl<'a> TryFrom<ContentRef<'a>> for Content<'a> {
    type Error = BadForm;

    fn try_from(content: ContentRef<'a>) -> Result<Self, BadForm> {
        Ok(match content {
            ContentRef::Text(text) => Self::Text(text.into()),
            ContentRef::Ciphertext(bytes) => Self::Text(STANDARD.encode(bytes).into()),
            ContentRef::Media(media) => Self::Media(Media {
                media_id: Uuid::from_slice(&media.media_id).map_err(|_| BadForm("media_id"))?,
                mime_type: (&*media.mime_type).into(),
                size: media.size,
                caption: given(&media.caption),
            }),
        })
    }
}

impl From<&Media<'_>> for chat::Media {
    fn from(media: &Media<'_>) -> Self {
        Self {
            media_id: Bytes::copy_from_slice(media.media_id.as_bytes()),
            mime_type: media.mime_type.as_ref().into(),
            size: media.size,
            caption: owned(&media.caption),
        }
    }
}

impl<'a> TryFrom<&'a chat::Message> for Message<'a> {
    type Error = BadForm;

    fn try_from(message: &'a chat::Message) -> Result<Self, BadForm> {
        let content = message.content.as_ref().ok_or(BadForm("content"))?;
        Ok(Self {
            conversation_id: conversation(&message.conversation_id)?,
            sequence_number: message.sequence_number,
            message_id: MessageId::from_slice(&message.message_id).ok_or(BadForm("message_id"))?,
            client_message_id: given(&message.client_message_id),
            sender_id: user(&message.sender_id, "sender_id")?,
            sender_name: given(&message.sender_name),
            content_type: ContentType::from_proto(message.content_type).ok_or(BadForm("content_type"))?,
            content: ContentRef::from(content).try_into()?,
            reply_to: reply_to(&message.reply_to)?,
            created_at: Timestamp(message.created_at),
        })
    }
}

impl TryFrom<&Message<'_>> for chat::Message {
    type Error = BadForm;

    fn try_from(message: &Message<'_>) -> Result<Self, BadForm> {
        Ok(Self {
            conversation_id: message.conversation_id.to_bytes(),
            sequence_number: message.sequence_number,
            message_id: message.message_id.to_bytes(),
            client_message_id: owned(&message.client_message_id),
            sender_id: message.sender_id.to_bytes(),
            sender_name: owned(&message.sender_name),
            content_type: message.content_type.to_proto() as i32,
            content: Some(message.content.to_proto(message.content_type)?.into()),
            reply_to: message.reply_to.map(MessageId::to_bytes).unwrap_or_default(),
            created_at: message.created_at.0,
        })
    }
}

impl TryFrom<&chat::Member> for Member {
    type Error = BadForm;

    fn try_from(member: &chat::Member) -> Result<Self, BadForm> {
        Ok(Self {
            conversation_id: conversation(&member.conversation_id)?,
            sequence_number: member.sequence_number,
            user_id: user(&member.user_id, "user_id")?,
            by: user(&member.by, "by")?,
            op: MemberOp::from_proto(member.op).ok_or(BadForm("op"))?,
            role: Role::from_proto(member.role),
            created_at: Timestamp(member.created_at),
        })
    }
}

impl From<&Member> for chat::Member {
    fn from(member: &Member) -> Self {
        Self {
            conversation_id: member.conversation_id.to_bytes(),
            sequence_number: member.sequence_number,
            user_id: member.user_id.to_bytes(),
            by: member.by.to_bytes(),
            op: member.op.to_proto() as i32,
            role: member.role.map_or(chat::Role::Unspecified, Role::to_proto) as i32,
            created_at: member.created_at.0,
        }
    }
}

impl<'a> TryFrom<&'a EntryBody> for Event<'a> {
    type Error = BadForm;

    fn try_from(body: &'a EntryBody) -> Result<Self, BadForm> {
        match body {
            EntryBody::Message(message) => message.try_into().map(Self::Message),
            EntryBody::Member(member) => member.try_into().map(Self::Member),
        }
    }
}

impl<'a> TryFrom<&'a chat::InboxEvent> for Event<'a> {
    type Error = BadForm;

    fn try_from(event: &'a chat::InboxEvent) -> Result<Self, BadForm> {
        Ok(match event.event.as_ref().ok_or(BadForm("event"))? {
            inbox_event::Event::Message(message) => Self::Message(message.try_into()?),
            inbox_event::Event::Member(member) => Self::Member(member.try_into()?),
            inbox_event::Event::Conversation(change) => Self::Conversation(Conversation {
                conversation_id: conversation(&change.conversation_id)?,
                op: ConversationOp::from_proto(change.op).ok_or(BadForm("op"))?,
                by: user(&change.by, "by")?,
                conversation_type: ConversationKind::from_name(&change.conversation_type)
                    .ok_or(BadForm("conversation_type"))?,
                name: given(&change.name),
                description: given(&change.description),
                created_at: Timestamp(change.created_at),
            }),
            inbox_event::Event::Refused(refused) => {
                let text = std::str::from_utf8(&refused.content).ok();
                Self::Refused(Refused {
                    code: (&*refused.code).into(),
                    topic: (&*refused.topic).into(),
                    client_message_id: given(&refused.client_message_id),
                    content: text.map_or_else(|| STANDARD.encode(&refused.content).into(), Cow::Borrowed),
                    content_encoding: text.is_none().then_some(Base64::Base64),
                })
            }
            inbox_event::Event::Gap(gap) => Self::Gap(Gap {
                after: gap.after,
                conversation_id: match gap.conversation_id.is_empty() {
                    true => None,
                    false => Some(conversation(&gap.conversation_id)?),
                },
            }),
            inbox_event::Event::Receipt(receipt) => Self::Receipt(Receipt {
                conversation_id: conversation(&receipt.conversation_id)?,
                user_id: user(&receipt.user_id, "user_id")?,
                delivered_up_to: receipt.delivered_up_to,
                read_up_to: receipt.read_up_to,
            }),
        })
    }
}

impl TryFrom<&InboxEvent<'_>> for chat::InboxEvent {
    type Error = BadForm;

    fn try_from(inbox: &InboxEvent<'_>) -> Result<Self, BadForm> {
        let event = match &inbox.event {
            Event::Message(message) => inbox_event::Event::Message(message.try_into()?),
            Event::Member(member) => inbox_event::Event::Member(member.into()),
            Event::Conversation(change) => inbox_event::Event::Conversation(chat::ConversationChange {
                conversation_id: change.conversation_id.to_bytes(),
                op: change.op.to_proto() as i32,
                by: change.by.to_bytes(),
                name: owned(&change.name),
                description: owned(&change.description),
                conversation_type: change.conversation_type.name().into(),
                created_at: change.created_at.0,
            }),
            Event::Refused(refused) => inbox_event::Event::Refused(chat::Refused {
                code: refused.code.as_ref().into(),
                topic: refused.topic.as_ref().into(),
                client_message_id: owned(&refused.client_message_id),
                content: match refused.content_encoding {
                    None => Bytes::copy_from_slice(refused.content.as_bytes()),
                    Some(Base64::Base64) => STANDARD
                        .decode(refused.content.as_bytes())
                        .map_err(|_| BadForm("content"))?
                        .into(),
                },
            }),
            Event::Gap(gap) => inbox_event::Event::Gap(chat::Gap {
                after: gap.after,
                conversation_id: gap
                    .conversation_id
                    .map(ConversationId::to_bytes)
                    .unwrap_or_default(),
            }),
            Event::Receipt(receipt) => inbox_event::Event::Receipt(chat::Receipt {
                conversation_id: receipt.conversation_id.to_bytes(),
                user_id: receipt.user_id.to_bytes(),
                delivered_up_to: receipt.delivered_up_to,
                read_up_to: receipt.read_up_to,
            }),
        };
        Ok(Self {
            inbox_seq: inbox.inbox_seq.unwrap_or(0),
            event: Some(event),
        })
    }
}

fn conversation(bytes: &[u8]) -> Result<ConversationId, BadForm> {
    ConversationId::from_slice(bytes).ok_or(BadForm("conversation_id"))
}

fn user(bytes: &[u8], field: &'static str) -> Result<UserId, BadForm> {
    UserId::from_slice(bytes).ok_or(BadForm(field))
}

/// A message id in a protobuf field, where empty is none.
pub(crate) fn reply_to(bytes: &[u8]) -> Result<Option<MessageId>, BadForm> {
    match bytes.is_empty() {
        true => Ok(None),
        false => MessageId::from_slice(bytes).map(Some).ok_or(BadForm("reply_to")),
    }
}

fn given(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

fn owned(text: &Option<Cow<'_, str>>) -> String {
    text.as_deref().unwrap_or_default().to_owned()
}
