//! The answers to SUBSCRIBE, with the retained messages behind it, and UNSUBSCRIBE whole.

use godwit_wire::command::{Route, Target};
use godwit_wire::ids::SessionId;
use godwit_wire::topic::{FilterTopic, classify_filter};

use super::deliver;
use super::env::{Env, What};
use super::home::Home;
use super::owed::Owed;
use super::rows::Name;
use super::subscribe::{QUOTA, UNSPECIFIED, unroute};
use super::waiter::Waiter;
use crate::packet::{Outgoing, PacketId, Version};
use crate::wire_trait::ConnId;

/// UNSUBACK: no subscription existed.
const NONE_EXISTED: u8 = 0x11;

/// An UNSUBSCRIBE whose rows are on their way.
pub(crate) struct Unsubscribed {
    packet_id: PacketId,
    codes: Vec<u8>,
    /// They go once the rows are durable.
    routes: Vec<Route>,
}

impl Home {
    /// SUBACK, if everything has come, then the retained messages.
    pub(crate) fn answer_subscribe(&mut self, env: &mut Env<'_, '_>, id: SessionId, request: u64) {
        let Some(session) = self.session(id) else { return };
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        let Some(at) = live.requests.iter().position(|one| one.id == request) else {
            return;
        };
        let open = &live.requests[at];
        if !open.stored || open.filters.iter().any(|asked| asked.waits) {
            return;
        }
        let done = live.requests.swap_remove(at);
        let mut codes: Vec<u8> = done.filters.iter().map(|asked| asked.code).collect();
        if live.version == Version::V311 {
            codes
                .iter_mut()
                .filter(|code| **code > 2)
                .for_each(|code| *code = UNSPECIFIED);
        }
        // An acknowledgement is always taken.
        let _ = env.wire.send(live.conn, &Outgoing::Suback(done.packet_id, codes));
        for asked in done.filters {
            for publish in asked.retained {
                let target = Target {
                    session: id,
                    qos: asked.code,
                    retain_as_published: true,
                    subscription_ids: done.subscription_id.into_iter().collect(),
                };
                let owed = Owed {
                    retain: true,
                    ..Owed::new(publish, target)
                };
                self.give_retained(env, id, owed);
            }
        }
        self.push_all(env, id);
    }

    fn give_retained(&mut self, env: &mut Env<'_, '_>, id: SessionId, owed: Owed) {
        let Some(index) = self.sessions.iter().position(|session| session.id == id) else {
            return;
        };
        let session = &mut self.sessions[index];
        if owed.qos == 0 {
            deliver::give_now(session, env, &owed);
        } else if session.is_persistent() {
            self.append_owed(env, index, owed, Waiter::Nobody, false);
        } else if !deliver::queue(session, env, owed, false) {
            self.close_session_connection(env, id, QUOTA);
        }
    }

    /// An UNSUBSCRIBE.
    pub(crate) fn unsubscribe(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        packet_id: PacketId,
        filters: Vec<Box<str>>,
    ) {
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
                        inbox.form = None;
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
        if self.session_at(conn).is_some() {
            // An acknowledgement is always taken.
            let _ = env
                .wire
                .send(conn, &Outgoing::Unsuback(done.packet_id, done.codes));
        }
    }
}
