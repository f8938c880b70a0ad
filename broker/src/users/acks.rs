//! Acknowledgements of the client for what was pushed to it: PUBACK, PUBREC, PUBCOMP. What they settle moves the
//! cursors; a PUBACK of a mailbox entry is the delivered receipt.

use godwit_wire::ids::SessionId;

use super::cursor::{Half, State, half_of, packet_id};
use super::env::{Env, What};
use super::home::Home;
use crate::packet::{Ack, Outgoing, PacketId, Version};
use crate::wire_trait::ConnId;

/// PUBREL and PUBCOMP for an identifier that is not in use (MQTT 5).
pub(crate) const NOT_FOUND: u8 = 0x92;
/// The first reason code that is an error.
pub(crate) const FIRST_ERROR: u8 = 0x80;

impl Home {
    /// PUBACK.
    pub(crate) fn puback(&mut self, env: &mut Env<'_, '_>, conn: ConnId, id: PacketId, reason: u8) {
        match half_of(id) {
            Half::Session => {
                let Some(session) = self.session_at(conn) else {
                    return;
                };
                let cursor = &mut session.feed.cursor;
                let Some(position) = cursor.position_of(id) else {
                    return;
                };
                if cursor.state(position) == Some(State::Sent) {
                    let settled = cursor.ack(position, true).count() as u64;
                    session.keeps_no_more(position);
                    let session = session.id;
                    self.settled(env, session, settled);
                }
            }
            Half::Mailbox => {
                let Some(session) = self.session_at(conn) else {
                    return;
                };
                let session_id = session.id;
                let Some(feed) = session.inbox.as_mut().and_then(|inbox| inbox.feed.as_mut()) else {
                    return;
                };
                let Some(position) = feed.cursor.position_of(id) else {
                    return;
                };
                let settled: Vec<_> = feed.cursor.ack(position, reason < FIRST_ERROR).collect();
                let count = settled.len() as u64;
                for (conversation, sequence) in settled.into_iter().flatten() {
                    self.note_delivered(env, conversation, sequence);
                }
                self.settled(env, session_id, count);
            }
        }
    }

    /// Room in a session's window: both of its feeds go on.
    pub(crate) fn settled(&mut self, env: &mut Env<'_, '_>, id: SessionId, count: u64) {
        env.metrics().settled.inc_by(count);
        self.push_all(env, id);
        self.flush_soon(env, count);
    }

    /// Gives a session what there is room for, of both logs.
    pub(crate) fn push_all(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        if let Some(index) = self.sessions.iter().position(|session| session.id == id) {
            let retained = self.sessions[index].gives_retained();
            self.push_mail(env, index);
            self.push_owed(env, id);
            if retained {
                self.give_retained(env, id);
            }
        }
    }

    /// PUBREC: its row is durable before the PUBREL.
    pub(crate) fn pubrec(&mut self, env: &mut Env<'_, '_>, conn: ConnId, id: PacketId, reason: u8) {
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let known = match half_of(id) {
            Half::Session => session.feed.cursor.position_of(id),
            Half::Mailbox => None,
        };
        let state = known.and_then(|position| Some((position, session.feed.cursor.state(position)?)));
        match state {
            Some((position, State::Sent2)) if reason >= FIRST_ERROR => {
                let settled = session.feed.cursor.ack(position, false).count() as u64;
                let session = session.id;
                self.settled(env, session, settled);
            }
            Some((position, State::Sent2)) => {
                session.feed.cursor.set(position, State::Received);
                if !session.is_persistent() {
                    pubrel(env, conn, id, 0);
                    return;
                }
                session.out_waiting.push(position);
                if session.out_writing == 0 {
                    let session = session.id;
                    self.store_pubrecs(env, session);
                }
            }
            // Repeated: if its row is still on its way the PUBREL follows it.
            Some((position, State::Received)) if session.out_waiting.contains(&position) => {}
            Some((_, State::Received)) => pubrel(env, conn, id, 0),
            _ if reason < FIRST_ERROR => {
                let reason = if env.wire.version(conn) == Version::V5 {
                    NOT_FOUND
                } else {
                    0
                };
                pubrel(env, conn, id, reason);
            }
            _ => {}
        }
    }

    fn store_pubrecs(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        if session.out_waiting.is_empty() {
            // Most sessions have none most of the time.
            session.out_waiting = Vec::new();
            return;
        }
        // Each is a position of the cursor's span, which is shorter.
        session.out_writing = u16::try_from(session.out_waiting.len()).unwrap_or(u16::MAX);
        let ops = session.out_ops(env);
        env.store(What::Out2(id), ops);
    }

    /// PUBRECs are durable: their PUBRELs go.
    pub(crate) fn pubrecs_stored(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        let stored = usize::from(std::mem::take(&mut session.out_writing));
        let (cursor, live) = (&session.feed.cursor, session.live.as_deref());
        for position in session.out_waiting.drain(..stored) {
            // One that the present connection has not come to yet gets its PUBREL when it does.
            if let Some(live) = live.filter(|_| position <= cursor.sent())
                && cursor.state(position) == Some(State::Received)
            {
                pubrel(env, live.conn, packet_id(Half::Session, position), 0);
            }
        }
        self.store_pubrecs(env, id);
    }

    /// PUBCOMP, success or "not found": the message is the client's.
    pub(crate) fn pubcomp(&mut self, env: &mut Env<'_, '_>, conn: ConnId, id: PacketId) {
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let Some(position) = session
            .feed
            .cursor
            .position_of(id)
            .filter(|_| half_of(id) == Half::Session)
        else {
            return;
        };
        if session.feed.cursor.state(position) == Some(State::Received) {
            let settled = session.feed.cursor.ack(position, true).count() as u64;
            session.keeps_no_more(position);
            let session = session.id;
            self.settled(env, session, settled);
        }
    }
}

fn pubrel(env: &mut Env<'_, '_>, conn: ConnId, packet_id: PacketId, reason: u8) {
    let ack = Ack {
        reason,
        ..Ack::success(packet_id)
    };
    // An acknowledgement is always taken.
    let _ = env.wire.send(conn, &Outgoing::Pubrel(ack));
}
