//! A PUBLISH from the client: what it is for, whether it may, and the queue of those that are not acknowledged yet.
//! Acknowledgements leave in the order of the PUBLISHes (MQTT 4.6), each only once ACK holds for it.

use std::sync::Arc;

use bytes::Bytes;
use godwit_store::{Health, Read, ReadAnswer};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand, Named, Publish, Send, SendIdentity};
use godwit_wire::content::{SendParts, decode_read};
use godwit_wire::ids::{ConversationId, Key, MessageId, UserId};
use godwit_wire::limits::{ACK_TIMEOUT_MS, RECEIVE_MAXIMUM};
use godwit_wire::topic::{ConversationName, Encoding, PublishTopic, classify_publish};

use super::answer::{Done, Waits};
use super::env::{Common, Env, What};
use super::home::Home;
use super::retries::{self, Retry};
use super::session::{Live, Session};
use crate::packet::{PublishIn, Version};
use crate::wire_trait::ConnId;

/// The user property that carries a client message id.
const CLIENT_MESSAGE_ID: &str = "client_message_id";
/// Most QoS 0 publishes of a connection under way: beyond it the client is not read.
const ASKED0: u16 = 1_024;
/// Receive Maximum exceeded.
const TOO_MANY: u8 = 0x93;
/// Topic Alias invalid: none are taken.
const NO_ALIAS: u8 = 0x94;

/// Reasons of a pause.
pub(crate) const PAUSED_FULL: u8 = 1;
const PAUSED_NAME: u8 = 2;

/// Where a publish goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To a conversation's home.
    Conversation(ConversationId, Box<ConversationCommand>),
    /// To a topic's home.
    Topic(Arc<Publish>),
}

/// A QoS 1 or 2 publish that is not acknowledged.
pub(crate) struct Inbound {
    pub(crate) packet_id: u16,
    pub(crate) qos: u8,
    pub(crate) waits: Waits,
    /// When it came, of the loop's milliseconds.
    pub(crate) since_ms: u64,
    /// How a repeat of it on the next connection is known.
    pub(crate) retry: Option<Retry>,
    /// For the `refused` entry of a 3.1.1 client's `c/…` publish: topic and payload.
    pub(crate) refusable: Option<Box<(Box<str>, Bytes)>>,
}

impl Live {
    /// The publish with this serial number, if it is not acknowledged yet.
    pub(crate) fn inbound_at(&mut self, serial: u32) -> Option<&mut Inbound> {
        self.inbound
            .get_mut(serial.wrapping_sub(self.first_serial) as usize)
    }

    /// Pauses or goes on reading for one of the reasons.
    pub(crate) fn pause(&mut self, env: &mut Env<'_, '_>, reason: u8, on: bool) {
        let before = self.paused;
        self.paused = if on { before | reason } else { before & !reason };
        if (before == 0) != (self.paused == 0) {
            env.wire.pause(self.conn, self.paused != 0);
        }
    }
}

impl Home {
    /// A PUBLISH.
    pub(crate) fn publish(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet: Box<PublishIn>) {
        env.metrics().messages_in.inc();
        if packet.topic.is_empty() || packet.topic_alias.is_some() {
            self.close_connection(env, conn, NO_ALIAS);
            return;
        }
        let name = match classify_publish(&packet.topic) {
            Ok(
                PublishTopic::Send(ConversationName::With(name), _)
                | PublishTopic::Read(ConversationName::With(name), _),
            ) => env.common.known_name(name).is_none().then(|| name.to_owned()),
            _ => None,
        };
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        if let Some(name) = name.filter(|_| live.principal.scopes.chat && !live.principal.is_anonymous()) {
            // What follows waits too, so that the order stays.
            live.pause(env, PAUSED_NAME, true);
            live.parked = Some(packet);
            let read = Read::Fact {
                table: godwit_accounts::USER_NAMES,
                key: name.into(),
            };
            env.read(What::Name(conn), vec![read]);
            return;
        }
        self.take_publish(env, conn, packet, false);
    }

    /// The user behind the name in a parked publish was read.
    pub(crate) fn name_read(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        let Some(packet) = live.parked.take() else {
            return;
        };
        live.pause(env, PAUSED_NAME, false);
        let name = match classify_publish(&packet.topic) {
            Ok(
                PublishTopic::Send(ConversationName::With(name), _)
                | PublishTopic::Read(ConversationName::With(name), _),
            ) => name,
            _ => return,
        };
        let answer = answers.as_ref().and_then(|answers| answers.first());
        let failed = answer.is_none();
        if let Some(ReadAnswer::Fact(Some(id))) = answer {
            if let Some(user) = UserId::from_slice(id) {
                env.common.learn_name(name, user);
            }
        }
        self.take_publish(env, conn, packet, failed);
    }

    fn take_publish(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet: Box<PublishIn>, failed: bool) {
        let Home {
            sessions, previous, ..
        } = self;
        let at = |session: &Session| session.live.as_ref().is_some_and(|live| live.conn == conn);
        let Some(session) = sessions.iter_mut().find(|session| at(session)) else {
            return;
        };
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        if packet.qos > 0 && live.version == Version::V5 {
            let taken = live.inbound.len() + session.in2.iter().filter(|taken| taken.is_open()).count();
            if taken >= usize::from(RECEIVE_MAXIMUM)
                && !session.in2.iter().any(|t| t.packet_id == packet.packet_id)
            {
                self.close_connection(env, conn, TOO_MANY);
                return;
            }
        }
        let mut retry = None;
        let mut message = None;
        if packet.qos == 2 {
            match session.begin_in2(&packet) {
                Some(fresh) => message = Some(fresh),
                None => return self.repeat_in2(env, conn, &packet),
            }
        } else if packet.qos == 1 {
            retry = Some(retries::identity(
                previous,
                session.id,
                &session.client_id,
                live,
                &packet,
            ));
        }
        let live = match session.live.as_deref() {
            Some(live) => live,
            None => return,
        };
        let who = Asker {
            live,
            session_id: session.id,
            client_id: &session.client_id,
        };
        let target = match failed {
            true => Err(Refusal::unavailable()),
            false => who.target(
                env.common,
                env.cx.health(),
                env.unix_ms(),
                &packet,
                message,
                retry.as_ref(),
            ),
        };
        // Only what needs it: a send without an id of its own.
        let retry =
            retry.filter(|_| matches!(&target, Ok(Target::Conversation(_, command)) if is_implicit(command)));
        if packet.qos == 0 {
            self.go_on_0(env, conn, target);
        } else {
            self.hold(env, conn, packet, target, retry, message);
        }
    }

    fn go_on_0(&mut self, env: &mut Env<'_, '_>, conn: ConnId, target: Result<Target, Refusal>) {
        let Ok(target) = target else {
            env.metrics().refused.inc();
            return;
        };
        if let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        {
            live.asked0 += 1;
            if live.asked0 >= ASKED0 {
                live.pause(env, PAUSED_FULL, true);
            }
        }
        ask(env, What::Publish0(conn), target);
    }

    /// Takes its place in the queue of acknowledgements and goes on.
    fn hold(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        packet: Box<PublishIn>,
        target: Result<Target, Refusal>,
        retry: Option<Retry>,
        message: Option<MessageId>,
    ) {
        let since_ms = env.mono_ms();
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let persistent = session.is_persistent();
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        // At most the receive maximum, so it fits.
        let serial = live.first_serial.wrapping_add(live.inbound.len() as u32);
        let reserved = packet.topic.starts_with("c/") && live.version == Version::V311;
        live.inbound.push_back(Inbound {
            packet_id: packet.packet_id,
            qos: packet.qos,
            waits: Waits::Home,
            since_ms,
            retry,
            refusable: reserved.then(|| Box::new((packet.topic.clone(), packet.payload.clone()))),
        });
        if live.version == Version::V311 && live.inbound.len() >= usize::from(RECEIVE_MAXIMUM) {
            live.pause(env, PAUSED_FULL, true);
        }
        if !std::mem::replace(&mut live.ack_timer, true) {
            env.after(ACK_TIMEOUT_MS, What::AckTimeout(conn));
        }
        match (target, message) {
            (Err(refusal), _) => self.refuse(env, conn, serial, refusal),
            (Ok(target), Some(message)) if persistent => {
                self.store_in2(env, conn, serial, message, Box::new(target));
            }
            (Ok(target), Some(_)) => ask(env, What::Publish2(conn, serial), target),
            (Ok(target), None) => ask(env, What::Publish(conn, serial), target),
        }
    }

    /// The answer to a QoS 1 publish.
    pub(crate) fn published(&mut self, env: &mut Env<'_, '_>, conn: ConnId, serial: u32, answer: Answer) {
        match done(answer) {
            Ok(done) => self.done(env, conn, serial, done),
            Err(refusal) => self.refuse(env, conn, serial, refusal),
        }
    }

    /// The answer to a QoS 0 publish: nobody is told.
    pub(crate) fn published0(&mut self, env: &mut Env<'_, '_>, conn: ConnId, answer: &Answer) {
        if matches!(answer, Answer::Refused(_)) {
            env.metrics().refused.inc();
        }
        if let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        {
            live.asked0 = live.asked0.saturating_sub(1);
            live.relax(env);
        }
    }
}

impl Live {
    /// Goes on reading once there is room again.
    pub(crate) fn relax(&mut self, env: &mut Env<'_, '_>) {
        let full = self.asked0 > ASKED0 / 2 || self.inbound.len() > usize::from(RECEIVE_MAXIMUM) / 2;
        if self.paused & PAUSED_FULL != 0 && !full {
            self.pause(env, PAUSED_FULL, false);
        }
    }
}

/// What an answer means for the acknowledgement.
pub(crate) fn done(answer: Answer) -> Result<Done, Refusal> {
    match answer {
        Answer::Refused(refusal) => Err(refusal),
        Answer::Sent(sent) => Ok(Done::Sent(sent)),
        Answer::Published { matched: false } => Ok(Done::Unmatched),
        _ => Ok(Done::Ok),
    }
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

fn is_implicit(command: &ConversationCommand) -> bool {
    matches!(command, ConversationCommand::Send(send) if matches!(send.identity, SendIdentity::Implicit(_)))
}

/// Who publishes.
struct Asker<'a> {
    live: &'a Live,
    session_id: godwit_wire::ids::SessionId,
    client_id: &'a str,
}

impl Asker<'_> {
    /// Where a publish goes, or why it does not (SCOPE).
    fn target(
        &self,
        common: &Common,
        health: Health,
        unix_ms: u64,
        packet: &PublishIn,
        message: Option<MessageId>,
        retry: Option<&Retry>,
    ) -> Result<Target, Refusal> {
        match classify_publish(&packet.topic)? {
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
                        .map(|seconds| unix_ms + u64::from(seconds) * 1_000),
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
        let identity = match (parts.client_message_id, message, retry) {
            (Some(id), _, _) => SendIdentity::Client(id),
            (None, Some(message), _) => SendIdentity::Implicit(*message.0.as_bytes()),
            (None, None, Some(retry)) => SendIdentity::Implicit(retry.identity),
            (None, None, None) => SendIdentity::Implicit(*MessageId::fresh().0.as_bytes()),
        };
        let me = &self.live.principal;
        Ok(Send {
            sender: Named {
                user: me.user,
                name: me.name.clone(),
            },
            identity,
            content: parts.content,
            content_type: parts.content_type,
            reply_to: parts.reply_to,
            direct_with,
        })
    }
}
