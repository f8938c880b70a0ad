//! Where a publish goes: which home, with which command, and whether this client may (SCOPE). Decides, sends nothing
//! back.

use std::sync::Arc;

use godwit_store::Health;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Command, ConversationCommand, Named, Publish, Send, SendIdentity};
use godwit_wire::content::{SendParts, decode_read};
use godwit_wire::ids::{ConversationId, Key, MessageId, SessionId};
use godwit_wire::proto::stored::PublishProperties;
use godwit_wire::topic::{ConversationName, Encoding, PublishTopic, classify_publish};

use super::env::{Common, Env, What};
use super::retries::Retry;
use super::session::Live;
use crate::packet::PublishIn;

/// The user property that carries a client message id.
const CLIENT_MESSAGE_ID: &str = "client_message_id";

/// Where a publish goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To a conversation's home.
    Conversation(ConversationId, Box<ConversationCommand>),
    /// To a topic's home.
    Topic(Arc<Publish>),
}

/// Sends it on.
pub(crate) fn ask(env: &mut Env<'_, '_>, what: What, target: Target) {
    match target {
        Target::Conversation(id, command) => {
            env.ask(what, Key::Conversation(id), Command::Conversation(*command));
        }
        Target::Topic(publish) => env.ask_topic(what, publish),
    }
}

/// Whether it is named by the broker: only then is a repeat known by its packet.
pub(crate) fn is_implicit(command: &ConversationCommand) -> bool {
    matches!(command, ConversationCommand::Send(send) if matches!(send.identity, SendIdentity::Implicit(_)))
}

/// Whether a payload is the text that its Payload Format Indicator says (MQTT 5, 3.3.2.3.2).
pub(crate) fn is_as_said(properties: Option<&PublishProperties>, payload: &[u8]) -> bool {
    let text = properties.and_then(|properties| properties.payload_is_utf8) == Some(true);
    !text || std::str::from_utf8(payload).is_ok()
}

/// Who publishes.
pub(crate) struct Asker<'a> {
    pub(crate) live: &'a Live,
    pub(crate) session_id: SessionId,
    pub(crate) client_id: &'a str,
}

impl Asker<'_> {
    /// Where a publish goes, or why it does not (SCOPE).
    pub(crate) fn target(
        &self,
        common: &Common,
        health: Health,
        stamp_ms: u64,
        packet: &PublishIn,
        message: Option<MessageId>,
        retry: Option<&Retry>,
    ) -> Result<Target, Refusal> {
        let to = classify_publish(&packet.topic)?;
        if !is_as_said(packet.properties.as_deref(), &packet.payload) {
            let detail = "the payload is not the UTF-8 that it is said to be";
            return Err(Refusal::new(Code::Malformed, detail));
        }
        match to {
            PublishTopic::Ordinary(topic) => {
                if !common
                    .config
                    .acl
                    .may_publish(&self.live.principal, self.client_id, topic)
                {
                    return Err(Refusal::not_found());
                }
                if health == Health::LowSpace && (packet.qos > 0 || packet.retain) {
                    return Err(Refusal::unavailable());
                }
                Ok(Target::Topic(Arc::new(Publish {
                    topic: topic.into(),
                    payload: packet.payload.clone(),
                    qos: packet.qos,
                    retain: packet.retain,
                    expires_at: packet
                        .message_expiry
                        .map(|seconds| stamp_ms + u64::from(seconds) * 1_000),
                    properties: packet.properties.clone(),
                    from: Some(self.session_id),
                    message_id: message,
                })))
            }
            PublishTopic::Send(name, encoding) => {
                let (conversation, with) = self.conversation(common, packet, name)?;
                if health == Health::LowSpace {
                    return Err(Refusal::unavailable());
                }
                let send = self.send(packet, encoding, message, retry, with)?;
                Ok(Target::Conversation(
                    conversation,
                    Box::new(ConversationCommand::Send(Box::new(send))),
                ))
            }
            PublishTopic::Read(name, encoding) => {
                let (conversation, _) = self.conversation(common, packet, name)?;
                let read = ConversationCommand::Read {
                    by: self.live.principal.user,
                    up_to: decode_read(encoding, &packet.payload)?,
                };
                Ok(Target::Conversation(conversation, Box::new(read)))
            }
        }
    }

    /// The conversation that a topic names, and with whom it would be made.
    fn conversation(
        &self,
        common: &Common,
        packet: &PublishIn,
        name: ConversationName<'_>,
    ) -> Result<(ConversationId, Option<Named>), Refusal> {
        let me = &self.live.principal;
        if me.is_anonymous() || !me.scopes.chat || packet.retain {
            return Err(Refusal::not_found());
        }
        match name {
            ConversationName::Id(id) => Ok((id, None)),
            ConversationName::With(name) => {
                let user = common.known_name(name).ok_or_else(Refusal::not_found)?;
                let with = Named {
                    user,
                    name: name.into(),
                };
                Ok((ConversationId::direct(me.user, user), Some(with)))
            }
        }
    }

    fn send(
        &self,
        packet: &PublishIn,
        encoding: Encoding,
        message: Option<MessageId>,
        retry: Option<&Retry>,
        direct_with: Option<Named>,
    ) -> Result<Send, Refusal> {
        let properties = packet
            .properties
            .iter()
            .flat_map(|properties| &properties.user_properties);
        let mut ids = properties.filter(|property| property.name == CLIENT_MESSAGE_ID);
        let beside = ids.next().map(|property| property.value.as_str());
        if ids.next().is_some() {
            return Err(Refusal::new(
                Code::Malformed,
                "client_message_id is given more than once",
            ));
        }
        let parts = SendParts::decode(encoding, &packet.payload)?.identified_by(beside)?;
        let (identity, fresh) = match (parts.client_message_id, message, retry) {
            (Some(id), _, _) => (SendIdentity::Client(id), false),
            (None, Some(message), _) => (SendIdentity::Implicit(*message.0.as_bytes()), false),
            (None, None, Some(retry)) => (SendIdentity::Implicit(retry.identity), retry.fresh),
            (None, None, None) => (SendIdentity::Implicit(*MessageId::fresh().0.as_bytes()), true),
        };
        let me = &self.live.principal;
        Ok(Send {
            sender: Named {
                user: me.user,
                name: me.name.clone(),
            },
            identity,
            fresh,
            content: parts.content,
            content_type: parts.content_type,
            reply_to: parts.reply_to,
            direct_with,
        })
    }
}
