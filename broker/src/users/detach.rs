//! The end of a connection, whoever ended it, and the end of a session.

use godwit_store::Op;
use godwit_wire::command::Answer;
use godwit_wire::ids::SessionId;
use uuid::Uuid;

use super::PROTOCOL_ERROR;
use super::attach::{EndedSession, disconnect};
use super::due;
use super::env::{Env, What};
use super::home::Home;
use super::leaving::unroute;
use super::rows::Name;
use super::waiter::Waiter;
use crate::wire_trait::{CloseReason, Closed, ConnId};

/// How a connection ended, for its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// DISCONNECT 0x00: no will.
    Normally,
    /// Anything else.
    Abruptly,
    /// What its client came by was revoked: no will in its name.
    Revoked,
    /// Another connection of the client takes its place.
    TakenOver {
        /// And ends the session.
        clean_start: bool,
    },
    /// The process ends: the will waits whether the client returns.
    Shutdown,
    /// It was told to come by another node: the will waits for a while whether it does.
    Moved,
}

/// Not authorized: its credential was revoked.
pub(super) const REVOKED: u8 = 0x87;

impl Home {
    /// `net` closed a connection.
    pub(crate) fn closed(&mut self, env: &mut Env<'_, '_>, conn: ConnId, closed: Closed) {
        let leave = match closed.reason {
            CloseReason::Shutdown => Leave::Shutdown,
            CloseReason::Moved => Leave::Moved,
            CloseReason::Revoked => Leave::Revoked,
            _ => Leave::Abruptly,
        };
        if let Some(index) = self.index_at(conn) {
            self.detach(env, index, leave, closed.unwritten);
        }
    }

    /// A DISCONNECT of the client.
    pub(crate) fn disconnected(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        reason: u8,
        expiry: Option<u32>,
    ) {
        let Some(index) = self.index_at(conn) else { return };
        let session = &mut self.sessions[index];
        let asked_none = session.expiry == 0
            && session
                .live
                .as_deref()
                .is_some_and(|live| live.told_expiry.is_none());
        if asked_none && expiry.is_some_and(|expiry| expiry > 0) {
            // MQTT 5, 3.14.2.2.2: no DISCONNECT at all, so the will stands.
            self.close_connection(env, conn, PROTOCOL_ERROR);
            return;
        }
        if let Some(expiry) = expiry.filter(|_| session.expiry > 0) {
            session.expiry = expiry.min(env.common.config.session_expiry_max);
        }
        let leave = if reason == 0 {
            Leave::Normally
        } else {
            Leave::Abruptly
        };
        let unwritten = env.wire.close(conn, None);
        self.detach(env, index, leave, unwritten);
    }

    /// Closes a connection for a reason of ours.
    pub(crate) fn close_connection(&mut self, env: &mut Env<'_, '_>, conn: ConnId, reason: u8) {
        self.close_and(env, conn, reason, Leave::Abruptly);
    }

    fn close_and(&mut self, env: &mut Env<'_, '_>, conn: ConnId, reason: u8, leave: Leave) {
        let Some(index) = self.index_at(conn) else { return };
        let unwritten = env.wire.close(conn, Some(disconnect(reason)));
        self.detach(env, index, leave, unwritten);
    }

    /// As [`Self::close_connection`], by session.
    pub(crate) fn close_session_connection(&mut self, env: &mut Env<'_, '_>, id: SessionId, reason: u8) {
        let conn = self
            .session(id)
            .and_then(|session| session.live.as_deref())
            .map(|live| live.conn);
        if let Some(conn) = conn {
            self.close_connection(env, conn, reason);
        }
    }

    /// A token or login session ended, or a certificate was found to be revoked where its client came.
    pub(crate) fn credential_ended(&mut self, env: &mut Env<'_, '_>, credential: Uuid) {
        let lives = self.sessions.iter().filter_map(|session| session.live.as_deref());
        let of = lives.filter(|live| {
            live.principal.credential == Some(credential)
                || env.wire.certificate(live.conn) == Some(credential)
        });
        let conns: Vec<ConnId> = of.map(|live| live.conn).collect();
        for conn in conns {
            self.close_and(env, conn, REVOKED, Leave::Revoked);
        }
    }

    fn index_at(&self, conn: ConnId) -> Option<usize> {
        self.sessions
            .iter()
            .position(|session| session.live.as_ref().is_some_and(|live| live.conn == conn))
    }

    /// The connection is gone. `unwritten`: which of its PUBACKs were not written.
    pub(crate) fn detach(&mut self, env: &mut Env<'_, '_>, index: usize, leave: Leave, unwritten: u32) {
        let (user, view, now) = (env.user, env.view(), env.stamp_ms());
        let session = &mut self.sessions[index];
        let Some(live) = session.live.take() else { return };
        env.common.conns.remove(&live.conn);
        env.metrics().live.dec();
        session.disconnected_at = now;
        session.left_mono_ms = Some(env.mono_ms());
        session.feed.detach();
        if session.outlives() {
            session.log.forget_tail();
        }
        if let Some(inbox) = session.inbox.as_deref_mut() {
            inbox.gap_told = false;
            if let Some(feed) = inbox.feed.as_mut() {
                feed.detach();
            }
        }
        for taken in &mut session.in2 {
            taken.here = false;
        }
        let (id, client_id, expiry) = (session.id, session.client_id.clone(), session.expiry);
        self.remember_publishes(&client_id, &live, leave, unwritten);
        if live.will {
            // One that was never let in had none.
            let leave = if live.ready { leave } else { Leave::Normally };
            self.will_left(env, id, live.number, leave, expiry);
        }
        let session = &mut self.sessions[index];
        let mut ops = Vec::new();
        if session.outlives() {
            let look_at = due::session_look(env, session, session.ends_at(), &mut ops);
            ops.push(Name::Session(id).put(user, view, &session.row()));
            env.store(look_at.map_or(What::Lazy, What::Expected), ops);
            self.flush_soon(env, 0);
            self.sessions[index].tell_groups(env, false);
        } else {
            let ended = Box::new(self.remove_session(env, index, &mut ops));
            self.finish_end(env, Some(ended), ops);
        }
        if !self.is_live() {
            self.mailbox.log.forget_tail();
        }
    }

    /// Takes a session out of memory; `ops` end its rows.
    pub(crate) fn remove_session(
        &mut self,
        env: &mut Env<'_, '_>,
        index: usize,
        ops: &mut Vec<Op>,
    ) -> EndedSession {
        let (user, view) = (env.user, env.view());
        let (keep_log, left) = self.bequeath(env, index, ops);
        let mut session = self.sessions.swap_remove(index);
        let persistent = session.stored;
        if session.stored {
            ops.extend(session.end_ops(user, view, keep_log));
            due::forget_session(env, &session, ops);
        }
        let routes = session.subscriptions.iter();
        EndedSession {
            id: session.id,
            routes: routes
                .flat_map(|one| one.routes(user, session.id, persistent))
                .collect(),
            waiters: session.log.take_waiters(),
            left,
        }
    }

    /// Stores the end of a session; what follows from it follows then.
    pub(crate) fn finish_end(
        &mut self,
        env: &mut Env<'_, '_>,
        ended: Option<Box<EndedSession>>,
        ops: Vec<Op>,
    ) {
        let Some(ended) = ended else {
            if !ops.is_empty() {
                env.store(What::Lazy, ops);
            }
            return;
        };
        if ops.is_empty() {
            self.session_ended(env, *ended);
        } else {
            env.store(What::Ended(ended), ops);
        }
    }

    /// A session's end is durable.
    pub(crate) fn session_ended(&mut self, env: &mut Env<'_, '_>, ended: EndedSession) {
        unroute(env, ended.routes);
        for waiter in ended.waiters.into_iter().flat_map(Waiter::each) {
            match waiter {
                Waiter::Reply(reply) => env.cx.answer(reply, Answer::Kept { gone: vec![ended.id] }),
                other => self.kept(env, other),
            }
        }
        self.hand_over(env, ended.id, ended.left);
    }
}
