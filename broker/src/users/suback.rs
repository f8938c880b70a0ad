//! The answers to SUBSCRIBE, with the retained messages before and behind it, and UNSUBSCRIBE whole.

use std::sync::Arc;

use godwit_store::Op;
use godwit_wire::command::{Publish, Route};
use godwit_wire::ids::SessionId;
use godwit_wire::limits::SESSION_SUBSCRIPTIONS;
use godwit_wire::topic::{FilterTopic, classify_filter};

use super::deliver;
use super::env::{Env, What};
use super::home::Home;
use super::leaving::unroute;
use super::request::Kind;
use super::rows::Name;
use super::session::Live;
use super::subscribe::{QUOTA, UNSPECIFIED};
use super::unwanted;
use super::waiter::Waiter;
use crate::copies::{COPIES_OF_USER, Held, copied};
use crate::packet::{Outgoing, PacketId, Version};
use crate::wire_trait::ConnId;

/// UNSUBACK: no subscription existed.
const NONE_EXISTED: u8 = 0x11;
/// Retained messages that go to a session's log in one batch; the next follows when it is durable, so that live
/// publishes find room in between.
const PORTION: usize = 256;
/// And about as many bytes of it at most.
const PORTION_BYTES: usize = 1024 * 1024;
/// Retained messages that wait in the memory of a session that is not persistent: well below what closes it.
const FED: usize = 256;
/// And their bytes.
const FED_BYTES: usize = 256 * 1024;

/// An UNSUBSCRIBE whose rows are on their way.
pub(crate) struct Unsubscribed {
    packet_id: PacketId,
    codes: Vec<u8>,
    /// They go once the rows are durable.
    routes: Vec<Route>,
}

impl Home {
    /// SUBACK, if everything has come: with a persistent session that is also that the retained messages are in its log.
    /// The others follow it.
    pub(crate) fn answer_subscribe(&mut self, env: &mut Env<'_, '_>, id: SessionId, request: u64) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session(id) else { return };
        let persistent = session.is_persistent();
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        let Some(at) = live.requests.iter().position(|one| one.id == request) else {
            return;
        };
        let open = &live.requests[at];
        if open.answered || !open.stored || open.logging || open.waits() {
            return;
        }
        if !open.giving.is_logged() {
            self.log_retained(env, id, request);
            return;
        }
        let mut done = live.requests.swap_remove(at);
        let mut codes: Vec<u8> = done.filters.iter().map(|asked| asked.code).collect();
        if live.version == Version::V311 {
            codes
                .iter_mut()
                .filter(|code| **code > 2)
                .for_each(|code| *code = UNSPECIFIED);
        }
        let (conn, suback) = (live.conn, Outgoing::Suback(done.packet_id, codes));
        // Larger than what the client takes: its connection ends.
        let _ = env.wire.send(conn, &suback);
        let filters = std::mem::take(&mut done.filters);
        if !done.giving.is_empty() {
            match live.requests.iter_mut().find(|one| one.answered) {
                Some(one) => one.giving.merge(done.giving),
                None => {
                    done.answered = true;
                    live.requests.push(done);
                }
            }
        }
        let mut ops = Vec::new();
        for asked in filters.iter().filter(|asked| asked.code <= 2) {
            let Kind::Route { route_id, unanswered } = asked.kind else {
                continue;
            };
            let mut all = session.subscriptions.iter_mut();
            if let Some(granted) = all.find(|one| one.route_id == route_id) {
                granted.granted = true;
                let row = || Name::Subscription(id, route_id).put(user, view, &granted.row());
                ops.extend((persistent && unanswered).then(row));
            }
        }
        if !ops.is_empty() {
            env.store(What::Lazy, ops);
        }
        self.push_all(env, id);
    }

    /// The next portion of retained messages goes to the session's log.
    fn log_retained(&mut self, env: &mut Env<'_, '_>, id: SessionId, request: u64) {
        let view = env.view();
        let Some(session) = self.session(id) else { return };
        let log = session.log_id();
        let live = session.live.as_deref_mut();
        let mut open = live.into_iter().flat_map(|live| &mut live.requests);
        let Some(open) = open.find(|one| one.id == request) else {
            return;
        };
        let (mut ops, mut bytes) = (Vec::new(), 0);
        while ops.len() < PORTION
            && bytes < PORTION_BYTES
            && let Some(owed) = open.giving.next_owed(id)
        {
            let row = owed.row();
            bytes += row.len();
            let seq = session.log.append(owed, Waiter::Nobody, row.len());
            ops.push(Op::Append { log, view, seq, row });
        }
        open.logging = true;
        let entries = u32::try_from(ops.len()).unwrap_or(u32::MAX);
        env.metrics().owed.inc_by(u64::from(entries));
        let what = What::Retained {
            session: id,
            request,
            entries,
        };
        env.store(what, ops);
    }

    /// A portion of retained messages is durable.
    pub(crate) fn retained_stored(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        request: u64,
        entries: u32,
    ) {
        if let Some(open) = self.request(id, request) {
            open.logging = false;
            self.answer_subscribe(env, id, request);
        }
        for _ in 0..entries {
            self.owed_stored(env, id);
        }
    }

    /// Room for what of these retained messages is a copy of another node's.
    pub(crate) fn room_for(&self, env: &Env<'_, '_>, found: &[Arc<Publish>]) -> Option<Held> {
        let live = self.sessions.iter().filter_map(|one| one.live.as_deref());
        let has: usize = live.map(Live::copied).sum();
        let bytes = copied(found);
        let of_user = bytes == 0 || has + bytes <= COPIES_OF_USER;
        let room = env.metrics().copies.hold(bytes).ok().filter(|_| of_user);
        if room.is_none() {
            env.metrics().count_limit("retained_copies");
        }
        room
    }

    /// Retained messages that follow their SUBACK, as far as the connection has room; it says when there is more.
    pub(crate) fn give_retained(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        loop {
            let Some(live) = session.live.as_deref_mut() else {
                return;
            };
            let Some(at) = live.requests.iter().position(|one| one.answered) else {
                return;
            };
            let giving = &mut live.requests[at].giving;
            let Some(qos) = giving.qos_of_next() else {
                live.requests.swap_remove(at);
                return;
            };
            let (entries, bytes) = session.log.kept();
            let room = match qos {
                0 => env.wire.room(live.conn),
                _ => entries < FED && bytes < FED_BYTES,
            };
            if !room {
                return;
            }
            let Some(owed) = giving.next_later(id) else {
                return;
            };
            if qos == 0 {
                deliver::give_now(session, env, &owed);
            } else if !deliver::queue(session, env, owed, false) {
                break;
            }
        }
        self.close_session_connection(env, id, QUOTA);
    }

    /// An UNSUBSCRIBE.
    pub(crate) fn unsubscribe(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        packet_id: PacketId,
        filters: Vec<Box<str>>,
    ) {
        if filters.len() > SESSION_SUBSCRIPTIONS {
            env.metrics().count_limit("subscriptions");
            self.close_connection(env, conn, QUOTA);
            return;
        }
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let (id, persistent) = (session.id, session.is_persistent());
        let (mut ops, mut routes, mut codes) = (Vec::new(), Vec::new(), Vec::with_capacity(filters.len()));
        for filter in filters {
            let existed = if let Ok(FilterTopic::Inbox(encoding)) = classify_filter(&filter) {
                match session
                    .inbox
                    .as_deref_mut()
                    .filter(|i| i.form.is_some_and(|f| f.encoding == encoding))
                {
                    Some(inbox) => {
                        // The cursor stays.
                        inbox.unsubscribe();
                        ops.extend(persistent.then(|| Name::Inbox(id).put(user, view, &inbox.row())));
                        true
                    }
                    None => false,
                }
            } else if let Some(at) = session
                .subscriptions
                .iter()
                .position(|one| *one.filter == *filter)
            {
                let gone = session.subscriptions.swap_remove(at);
                routes.extend(gone.routes(user, id, persistent));
                ops.extend(persistent.then(|| Name::Subscription(id, gone.route_id).end(user, view)));
                true
            } else {
                false
            };
            codes.push(if existed { 0 } else { NONE_EXISTED });
        }
        if session.gives_retained() {
            let ids: Vec<u64> = routes.iter().map(|route| route.route_id).collect();
            session.forget_retained(&ids);
        }
        let done = Unsubscribed {
            packet_id,
            codes,
            routes,
        };
        if ops.is_empty() {
            self.unsubscribed(env, conn, done);
        } else {
            env.store(What::Unsubscribed(conn, Box::new(done)), ops);
        }
    }

    /// The rows of an UNSUBSCRIBE are durable.
    pub(crate) fn unsubscribed(&mut self, env: &mut Env<'_, '_>, conn: ConnId, done: Unsubscribed) {
        unroute(env, done.routes);
        let unsuback = Outgoing::Unsuback(done.packet_id, done.codes);
        let now = env.mono_ms();
        let session = self.session_at(conn);
        if let Some(live) = session.and_then(|session| session.live.as_deref_mut()) {
            live.narrowed = unwanted::second(now);
            // Larger than what the client takes: its connection ends.
            let _ = env.wire.send(conn, &unsuback);
        }
    }
}
