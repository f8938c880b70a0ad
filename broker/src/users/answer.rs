//! Answers to the client's QoS 1 and 2 publishes: in order, once ACK holds, or refused as its protocol version can carry
//! it. Held too long: `unavailable`.

use godwit_store::Health;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Sent;
use godwit_wire::content::SendParts;
use godwit_wire::limits::{ACK_TIMEOUT_MS, TOPIC_TIMEOUT_MS};
use godwit_wire::proto::chat::{self, inbox_event};
use godwit_wire::topic::{PublishTopic, classify_publish};

use super::env::{Env, What};
use super::home::Home;
use super::publish_in::Inbound;
use super::queue::Queue;
use super::retries::GIVEN;
use super::session::Phase;
use super::waiter::Waiter;
use crate::packet::{Ack, Outgoing, UserProperties, Version};
use crate::wire_trait::ConnId;

/// No matching subscribers (MQTT 5).
const UNMATCHED: u8 = 0x10;
/// How often it is looked whether the store still is well while a publish is held beyond [`ACK_TIMEOUT_MS`], milliseconds.
const LOOK_AGAIN_MS: u64 = 1_000;

/// Until when a publish is held, of the loop's milliseconds. On an ordinary topic it may wait for its turn, and there a
/// repeat is a second message, so that it is told only once there is little hope.
fn held_until(inbound: &Inbound, health: Health) -> u64 {
    let waits_for_turn = inbound.at_topic && health != Health::Failing;
    let ms = if waits_for_turn {
        TOPIC_TIMEOUT_MS
    } else {
        ACK_TIMEOUT_MS
    };
    inbound.since_ms + ms
}

/// What a publish waits for.
#[derive(Debug)]
pub(crate) enum Waits {
    /// The home that it went to, or the row before.
    Home,
    /// Its `refused` entry (3.1.1).
    RefusedEntry,
    /// Those before it.
    Turn(Done),
}

/// How a publish ended.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    /// Stored.
    Sent(Sent),
    /// Done.
    Ok,
    /// Done; nobody matched.
    Unmatched,
    /// Refused (MQTT 5).
    Refused(Refusal),
}

impl Home {
    /// A publish is done: it is acknowledged when those before it are.
    pub(crate) fn done(&mut self, env: &mut Env<'_, '_>, conn: ConnId, serial: u32, done: Done) {
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        let Some(inbound) = live.inbound_at(serial) else {
            return;
        };
        // One that was told `unavailable` stays told.
        if !matches!(inbound.waits, Waits::Turn(_)) {
            inbound.waits = Waits::Turn(done);
            self.acknowledge(env, conn);
        }
    }

    /// Acknowledges what is at the front and done.
    fn acknowledge(&mut self, env: &mut Env<'_, '_>, conn: ConnId) {
        let now = env.mono_ms();
        let mut ended = Vec::new();
        let mut news = false;
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        while matches!(
            live.inbound.front().map(|inbound| &inbound.waits),
            Some(Waits::Turn(_))
        ) {
            let Some(inbound) = live.inbound.pop_front() else {
                break;
            };
            let Waits::Turn(done) = inbound.waits else { break };
            live.first_serial = live.first_serial.wrapping_add(1);
            live.unanswered = live.unanswered.saturating_sub(inbound.bytes);
            let taken = now.saturating_sub(inbound.since_ms);
            env.metrics().acknowledge_seconds.observe(taken as f64 / 1_000.0);
            let refused = matches!(done, Done::Refused(_));
            let ack = ack(inbound.packet_id, live.version, done);
            let Some(message) = inbound.message else {
                news |= !refused && inbound.retry.is_some_and(|retry| retry.fresh);
                live.given.push_back(inbound.retry.unwrap_or_default());
                // An acknowledgement is always taken.
                let _ = env.wire.send(conn, &Outgoing::Puback(ack));
                if live.given.len() > GIVEN {
                    let unwritten = env.wire.unwritten(conn) as usize;
                    let written = live.given.len().saturating_sub(unwritten);
                    live.given.drain(..written);
                }
                continue;
            };
            if refused {
                ended.push(message);
            } else if let Some(taken) = session.in2.iter_mut().find(|taken| taken.message == message)
                && taken.phase != Phase::Ending
            {
                taken.phase = Phase::Received;
            }
            let _ = env.wire.send(conn, &Outgoing::Pubrec(ack));
        }
        live.relax(env);
        if news {
            self.pass_previous(conn);
        }
        for message in ended {
            self.forget_in2(env, conn, message);
        }
    }

    /// A publish is refused: as its version can carry it.
    pub(crate) fn refuse(&mut self, env: &mut Env<'_, '_>, conn: ConnId, serial: u32, refusal: Refusal) {
        let has_room = self.mailbox.log.has_room();
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        let (version, anonymous) = (live.version, live.principal.is_anonymous());
        let Some(inbound) = live.inbound_at(serial) else {
            return;
        };
        if !matches!(inbound.waits, Waits::Home) {
            return;
        }
        env.metrics().refused.inc();
        if version == Version::V5 {
            self.done(env, conn, serial, Done::Refused(refusal));
            return;
        }
        // Not for good: its client sends it again on the next connection.
        let for_good = refusal.code != Code::Unavailable;
        match inbound.refusable.take() {
            Some(refused) if for_good && !anonymous && has_room => {
                inbound.waits = Waits::RefusedEntry;
                let event = refused_event(&refusal, &refused);
                self.mailbox.note(env, event, Waiter::Publish(conn, serial));
            }
            _ => self.close_connection(env, conn, refusal.code.puback()),
        }
    }

    /// An entry is durable: tells who waited.
    pub(crate) fn kept(&mut self, env: &mut Env<'_, '_>, waiter: Waiter) {
        let mut refused = Vec::new();
        waiter.kept(env.cx, &mut refused);
        for (conn, serial) in refused {
            self.done(env, conn, serial, Done::Ok);
        }
    }

    /// The timer for held PUBLISHes.
    pub(crate) fn ack_timeout(&mut self, env: &mut Env<'_, '_>, conn: ConnId) {
        let (now, health) = (env.mono_ms(), env.cx.health());
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        live.ack_timer = false;
        let any_late = live
            .inbound
            .iter()
            .take_while(|inbound| held_until(inbound, health) <= now)
            .count();
        if any_late > 0 && live.version == Version::V311 {
            self.close_connection(env, conn, Code::Unavailable.puback());
            return;
        }
        for inbound in live.inbound.iter_mut().take(any_late) {
            if !matches!(inbound.waits, Waits::Turn(_)) {
                inbound.waits = Waits::Turn(Done::Refused(Refusal::unavailable()));
            }
        }
        self.acknowledge(env, conn);
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        if let Some(first) = live.inbound.front() {
            live.ack_timer = true;
            let by_failing = held_until(first, Health::Failing).saturating_sub(now);
            let left = held_until(first, health).saturating_sub(now);
            env.after(left.min(by_failing.max(LOOK_AGAIN_MS)), What::AckTimeout(conn));
        }
        if env.wire.unwritten(conn) == 0 {
            live.given = Queue::default();
        }
    }
}

fn ack(packet_id: u16, version: Version, done: Done) -> Ack {
    let mut ack = Ack::success(packet_id);
    if version == Version::V311 {
        return ack;
    }
    match done {
        Done::Ok => {}
        Done::Unmatched => ack.reason = UNMATCHED,
        Done::Sent(sent) => {
            ack.properties = vec![
                ("message_id".into(), sent.message_id.to_string()),
                ("seq".into(), sent.sequence_number.to_string()),
                ("duplicate".into(), sent.duplicate.to_string()),
            ];
        }
        Done::Refused(refusal) => {
            ack.reason = refusal.code.puback();
            ack.properties = refusal_properties(&refusal);
            // Sentences of ours; what is made up for one request is not among them.
            if let std::borrow::Cow::Borrowed(detail) = refusal.detail {
                ack.reason_string = Some(detail);
            }
        }
    }
    ack
}

/// Code and retryable, as MQTT 5 carries them.
pub(crate) fn refusal_properties(refusal: &Refusal) -> UserProperties {
    vec![
        ("code".into(), refusal.code.name().into()),
        ("retryable".into(), refusal.code.retryable().to_string()),
    ]
}

fn refused_event(refusal: &Refusal, (topic, payload): &(Box<str>, bytes::Bytes)) -> chat::InboxEvent {
    let id = match classify_publish(topic) {
        Ok(PublishTopic::Send(_, encoding)) => SendParts::decode(encoding, payload)
            .ok()
            .and_then(|parts| parts.client_message_id),
        _ => None,
    };
    let refused = chat::Refused {
        code: refusal.code.name().into(),
        topic: topic.to_string(),
        client_message_id: id.map(String::from).unwrap_or_default(),
        content: payload.clone(),
    };
    chat::InboxEvent {
        inbox_seq: 0,
        event: Some(inbox_event::Event::Refused(refused)),
    }
}
