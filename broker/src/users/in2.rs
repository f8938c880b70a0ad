//! QoS 2 from the client: a message id is stored under the packet identifier before the publish goes on, and ended
//! durably before PUBCOMP. Sessions that end with their connection keep it in memory. Everything here is found by its
//! message id: a packet identifier may name another message on the next connection.

use bytes::Bytes;
use godwit_wire::command::Answer;
use godwit_wire::ids::{MessageId, SessionId};

use super::acks::NOT_FOUND;
use super::env::{Env, What};
use super::home::Home;
use super::publish_in::{OPEN_V311, done};
use super::rows::{InRow, Name};
use super::session::{In2, Live, Phase, Session};
use super::target::{Target, ask};
use crate::packet::{Ack, Outgoing, PacketId, Version};
use crate::wire_trait::ConnId;

/// Most QoS 2 messages of a session that are not ended: what a connection may have open, and as many that earlier ones
/// left or whose end is on its way. Beyond it the oldest that an earlier connection left is forgotten (its repeat would
/// be a new message); if there is none the connection is closed.
pub(crate) const IN2_MOST: usize = 2 * OPEN_V311;

/// What a QoS 2 PUBLISH is.
#[derive(Debug)]
pub(crate) enum Begun {
    /// A message that goes on, or goes on once more, under this id.
    Goes(MessageId),
    /// One whose answer is on its way: it is the repeat's too.
    Awaits(MessageId),
    /// One that went on: only its PUBREC is due.
    Passed(MessageId),
}

impl In2 {
    /// Whether it counts against the receive maximum of the present connection, beside the queue.
    pub(crate) fn is_open(&self) -> bool {
        self.here && self.phase == Phase::Received
    }
}

impl Live {
    /// Whether a publish of this connection is not acknowledged.
    pub(crate) fn awaits(&self, message: MessageId) -> bool {
        self.inbound
            .iter()
            .any(|inbound| inbound.message == Some(message))
    }
}

impl Session {
    /// What was taken under this identifier with this digest and is not ended.
    pub(crate) fn in2_of(&self, packet_id: PacketId, digest: [u8; 16]) -> Option<&In2> {
        let same = |taken: &&In2| {
            taken.packet_id == packet_id && taken.digest == digest && taken.phase != Phase::Ending
        };
        self.in2.iter().rev().find(same)
    }

    fn in2_named(&mut self, message: MessageId) -> Option<&mut In2> {
        self.in2.iter_mut().find(|taken| taken.message == message)
    }

    /// Begins a QoS 2 PUBLISH. What another publish left under its identifier is ended, however far it is: the client
    /// has the identifier free again, or has lost what it knew.
    pub(crate) fn begin_in2(
        &mut self,
        env: &mut Env<'_, '_>,
        packet_id: PacketId,
        digest: [u8; 16],
    ) -> Begun {
        let (id, user, view) = (self.id, env.user, env.view());
        let known = self.in2_of(packet_id, digest).map(|taken| taken.message);
        let mut ops = Vec::new();
        self.in2.retain(|other| {
            let stale =
                other.packet_id == packet_id && other.phase != Phase::Ending && known != Some(other.message);
            if stale {
                ops.push(Name::In(id, other.message).end(user, view));
            }
            !stale
        });
        if !ops.is_empty() && self.is_persistent() {
            env.store(What::Lazy, ops);
        }
        if let Some(taken) = known.and_then(|message| self.in2_named(message)) {
            taken.here = true;
            return match taken.phase {
                Phase::Going => Begun::Awaits(taken.message),
                Phase::Passed | Phase::Received => Begun::Passed(taken.message),
                Phase::Kept | Phase::Ending => Begun::Goes(taken.message),
            };
        }
        let message = MessageId::fresh();
        self.in2.push(In2 {
            packet_id,
            message,
            digest,
            phase: Phase::Kept,
            here: true,
        });
        Begun::Goes(message)
    }

    /// A message goes on.
    fn goes_in2(&mut self, env: &mut Env<'_, '_>, message: MessageId, target: Target) {
        if let (Some(live), Target::Topic(_)) = (self.live.as_deref_mut(), &target)
            && let Some(inbound) = live
                .inbound
                .iter_mut()
                .find(|inbound| inbound.message == Some(message))
        {
            inbound.at_topic = true;
        }
        let session = self.id;
        ask(env, What::Publish2 { session, message }, target);
    }

    /// Makes room for one more. `false`: there is none (BOUND).
    pub(crate) fn make_room_in2(&mut self, env: &mut Env<'_, '_>) -> bool {
        if self.in2.len() < IN2_MOST {
            return true;
        }
        let left = |taken: &In2| !taken.here && !matches!(taken.phase, Phase::Going | Phase::Ending);
        let Some(oldest) = self.in2.iter().position(left) else {
            return false;
        };
        let message = self.in2.remove(oldest).message;
        if self.is_persistent() {
            let end = Name::In(self.id, message).end(env.user, env.view());
            env.store(What::Lazy, vec![end]);
        }
        true
    }
}

impl Home {
    /// A message that began goes on: its id is stored first if the session is.
    pub(crate) fn pass_in2(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        message: MessageId,
        target: Target,
    ) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let (id, persistent) = (session.id, session.is_persistent());
        let Some(taken) = session.in2_named(message) else {
            return;
        };
        taken.phase = Phase::Going;
        if !persistent {
            session.goes_in2(env, message, target);
            return;
        }
        let row = InRow {
            packet_id: u32::from(taken.packet_id),
            digest: Bytes::copy_from_slice(&taken.digest),
        };
        let what = What::In2 {
            session: id,
            message,
            target: Box::new(target),
        };
        env.store(what, vec![Name::In(id, message).put(user, view, &row)]);
    }

    /// The id is durable. It goes on also if the connection is gone: a repeat waits for the same answer. Not if it was
    /// refused since, because this took too long, or the client gave it up.
    pub(crate) fn in2_stored(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        message: MessageId,
        target: Target,
    ) {
        if let Some(session) = self
            .session(id)
            .filter(|session| session.in2.iter().any(|taken| taken.message == message))
        {
            session.goes_in2(env, message, target);
        }
    }

    /// The answer to a QoS 2 publish. It is noted whether its connection still lives or not, so that a repeat does not go
    /// on once more (ONCE), and is for whichever connection has the publish now.
    pub(crate) fn published2(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        message: MessageId,
        answer: Answer,
    ) {
        let result = done(answer);
        let Some(session) = self.session(id) else { return };
        if let Some(taken) = session
            .in2_named(message)
            .filter(|taken| taken.phase == Phase::Going)
        {
            taken.phase = match result {
                Ok(_) => Phase::Passed,
                Err(_) => Phase::Kept,
            };
        }
        let Some(live) = session.live.as_deref() else {
            return;
        };
        let mut inbound = (0..).zip(live.inbound.iter());
        let Some((index, _)) = inbound.find(|(_, inbound)| inbound.message == Some(message)) else {
            return;
        };
        let (conn, serial) = (live.conn, live.first_serial.wrapping_add(index));
        match result {
            Ok(done) => self.done(env, conn, serial, done),
            Err(refusal) => self.refuse(env, conn, serial, refusal),
        }
    }

    /// PUBREL.
    pub(crate) fn pubrel(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet_id: PacketId) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let (id, persistent) = (session.id, session.is_persistent());
        // What began last has the identifier.
        let with_id = |taken: &&mut In2| taken.packet_id == packet_id;
        let Some(taken) = session.in2.iter_mut().rev().find(with_id) else {
            let reason = if env.wire.version(conn) == Version::V5 {
                NOT_FOUND
            } else {
                0
            };
            pubcomp(env, conn, packet_id, reason);
            return;
        };
        taken.here = true;
        if taken.phase == Phase::Ending {
            // Its end is on its way.
            return;
        }
        taken.phase = Phase::Ending;
        let (session, message) = (id, taken.message);
        if persistent {
            let end = Name::In(session, message).end(user, view);
            env.store(What::In2Ended { session, message }, vec![end]);
        } else {
            self.in2_ended(env, session, message);
        }
    }

    /// The end is durable: PUBCOMP to the connection that asked last.
    pub(crate) fn in2_ended(&mut self, env: &mut Env<'_, '_>, id: SessionId, message: MessageId) {
        let Some(session) = self.session(id) else { return };
        let Some(at) = session.in2.iter().position(|taken| taken.message == message) else {
            return;
        };
        let taken = session.in2.remove(at);
        if let Some(live) = session.live.as_deref().filter(|_| taken.here) {
            pubcomp(env, live.conn, taken.packet_id, 0);
        }
    }

    /// A refused publish: its identifier is free again. The row's digest keeps another publish from being taken for it
    /// until its end is stored.
    pub(crate) fn forget_in2(&mut self, env: &mut Env<'_, '_>, conn: ConnId, message: MessageId) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let Some(at) = session.in2.iter().position(|taken| taken.message == message) else {
            return;
        };
        session.in2.remove(at);
        if session.is_persistent() {
            env.store(What::Lazy, vec![Name::In(session.id, message).end(user, view)]);
        }
    }
}

fn pubcomp(env: &mut Env<'_, '_>, conn: ConnId, packet_id: PacketId, reason: u8) {
    let ack = Ack {
        reason,
        ..Ack::success(packet_id)
    };
    // An acknowledgement is always taken.
    let _ = env.wire.send(conn, &Outgoing::Pubcomp(ack));
}
