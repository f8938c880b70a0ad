//! QoS 2 from the client: a message id is stored under the packet identifier before the publish goes on, and ended
//! durably before PUBCOMP. Sessions that end with their connection keep it in memory.

use godwit_wire::ids::{MessageId, SessionId};

use super::acks::NOT_FOUND;
use super::env::{Env, What};
use super::home::Home;
use super::retries::digest;
use super::rows::{InRow, Name};
use super::session::{In2, Phase, Session};
use super::target::{Target, ask};
use crate::packet::{Ack, Outgoing, PacketId, PublishIn, Version};
use crate::wire_trait::ConnId;

impl In2 {
    /// Whether it counts against the receive maximum beside the queue.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Received | Phase::Ending)
    }
}

impl Session {
    /// The message id of a QoS 2 PUBLISH that is to go on. `None`: it went on already.
    pub(crate) fn begin_in2(&mut self, packet: &PublishIn) -> Option<MessageId> {
        let digest = digest(packet).to_be_bytes();
        let known = self
            .in2
            .iter()
            .position(|taken| taken.packet_id == packet.packet_id);
        if let Some(taken) = known.map(|at| &mut self.in2[at]) {
            match taken.phase {
                // The same publish again, after a restart or on a new connection: it takes the same id once more.
                Phase::Kept if taken.digest == digest => {
                    taken.phase = Phase::Going;
                    return Some(taken.message);
                }
                Phase::Going | Phase::Received => return None,
                Phase::Kept | Phase::Ending => {}
            }
        }
        let fresh = In2 {
            packet_id: packet.packet_id,
            message: MessageId::fresh(),
            digest,
            phase: Phase::Going,
        };
        self.in2.push(fresh);
        Some(fresh.message)
    }
}

impl Home {
    /// A QoS 2 PUBLISH that was taken before: its PUBREC again, if it was given.
    pub(crate) fn repeat_in2(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet: &PublishIn) {
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let received = |taken: &In2| taken.packet_id == packet.packet_id && taken.phase == Phase::Received;
        if session.in2.iter().any(received) {
            // An acknowledgement is always taken.
            let _ = env
                .wire
                .send(conn, &Outgoing::Pubrec(Ack::success(packet.packet_id)));
        }
    }

    /// Stores the id; the publish goes on when it is durable. What an earlier message of the same identifier left is
    /// ended with it.
    pub(crate) fn store_in2(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        serial: u32,
        message: MessageId,
        target: Box<Target>,
    ) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let id = session.id;
        let Some(taken) = session.in2.iter().find(|taken| taken.message == message).copied() else {
            return;
        };
        let row = InRow {
            packet_id: u32::from(taken.packet_id),
            digest: bytes::Bytes::copy_from_slice(&taken.digest),
        };
        let mut ops = vec![Name::In(id, message).put(user, view, &row)];
        session.in2.retain(|other| {
            let stale =
                other.packet_id == taken.packet_id && other.message != message && other.phase == Phase::Kept;
            if stale {
                ops.push(Name::In(id, other.message).end(user, view));
            }
            !stale
        });
        env.store(What::In2 { conn, serial, target }, ops);
    }

    /// The id is durable.
    pub(crate) fn in2_stored(&mut self, env: &mut Env<'_, '_>, conn: ConnId, serial: u32, target: Target) {
        // Also if the connection is gone: the repeat of it is known by its id.
        ask(env, What::Publish2(conn, serial), target);
    }

    /// PUBREL.
    pub(crate) fn pubrel(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet_id: PacketId) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let persistent = session.is_persistent();
        let newest = |taken: &&mut In2| taken.packet_id == packet_id && taken.phase != Phase::Ending;
        let Some(taken) = session.in2.iter_mut().find(newest) else {
            if session.in2.iter().any(|taken| taken.packet_id == packet_id) {
                // Its end is on its way.
                return;
            }
            let reason = if env.wire.version(conn) == Version::V5 {
                NOT_FOUND
            } else {
                0
            };
            pubcomp(env, conn, packet_id, reason);
            return;
        };
        taken.phase = Phase::Ending;
        let message = taken.message;
        let session = session.id;
        if persistent {
            let what = What::In2Ended {
                session,
                conn,
                packet_id,
                message,
            };
            env.store(what, vec![Name::In(session, message).end(user, view)]);
        } else {
            self.in2_ended(env, session, conn, packet_id, message);
        }
    }

    /// The end is durable.
    pub(crate) fn in2_ended(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        conn: ConnId,
        packet_id: PacketId,
        message: MessageId,
    ) {
        let Some(session) = self.session(session) else {
            return;
        };
        session.in2.retain(|taken| taken.message != message);
        if session.live_at(conn).is_some() {
            pubcomp(env, conn, packet_id, 0);
        }
    }

    /// A refused publish: its identifier is free again. The row's digest keeps another publish from being taken for it
    /// until its end is stored.
    pub(crate) fn forget_in2(&mut self, env: &mut Env<'_, '_>, conn: ConnId, message: MessageId) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return;
        };
        session.in2.retain(|taken| taken.message != message);
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
