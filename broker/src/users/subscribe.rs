//! SUBSCRIBE: me/inbox and ordinary filters. SUBACK leaves once the rows are durable and the routes are
//! live; a route may outlive its subscription, never the reverse.

use std::sync::Arc;

use godwit_store::Op;
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, Publish, Route, TopicCommand};
use godwit_wire::ids::SessionId;
use godwit_wire::limits::SESSION_SUBSCRIPTIONS;
use godwit_wire::topic::{Encoding, FilterTopic, TopicRefusal, classify_filter, filter_key};

use super::cursor::Cursor;
use super::env::{Env, What};
use super::home::Home;
use super::log::Feed;
use super::rows::Name;
use super::session::{Inbox, InboxForm, Subscription};
use crate::packet::{FilterIn, PacketId};
use crate::wire_trait::ConnId;

/// How long a SUBACK waits for routes, milliseconds.
const WAIT_MS: u64 = 5_000;
/// Most SUBSCRIBEs of a connection that are not answered; beyond it the connection is closed (0x97).
const REQUESTS: usize = 64;
/// Route ids that a subscription remembers to have replaced: more are only left by as many crashes in mid-subscribe.
const REPLACED: usize = 8;

const NOT_AUTHORIZED: u8 = 0x87;
const FILTER_INVALID: u8 = 0x8F;
pub(crate) const QUOTA: u8 = 0x97;
const NO_SHARED: u8 = 0x9E;
pub(crate) const UNSPECIFIED: u8 = 0x80;
const SPECIFIC: u8 = 0x83;

/// A SUBSCRIBE that is not answered.
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) packet_id: PacketId,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) filters: Vec<Asked>,
    pub(crate) stored: bool,
}

/// One filter of it.
pub(crate) struct Asked {
    pub(crate) code: u8,
    /// Of an ordinary filter whose route is awaited, or was made.
    route_id: u64,
    pub(crate) waits: bool,
    pub(crate) retained: Vec<Arc<Publish>>,
}

impl Asked {
    fn done(code: u8) -> Self {
        Self {
            code,
            route_id: 0,
            waits: false,
            retained: Vec::new(),
        }
    }
}

impl Home {
    /// A SUBSCRIBE.
    pub(crate) fn subscribe(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        packet_id: PacketId,
        filters: Vec<FilterIn>,
        subscription_id: Option<u32>,
    ) {
        if filters.len() > SESSION_SUBSCRIPTIONS {
            self.close_connection(env, conn, QUOTA);
            return;
        }
        let id = env.fresh_number();
        let mut asked = Vec::with_capacity(filters.len());
        let mut ops = Vec::new();
        let mut routes = Vec::new();
        for filter in filters {
            let one = match classify_filter(&filter.filter) {
                Err(refusal) => Asked::done(refused(refusal)),
                Ok(FilterTopic::Inbox(encoding)) => {
                    Asked::done(self.subscribe_inbox(env, conn, encoding, &filter, subscription_id, &mut ops))
                }
                Ok(FilterTopic::Ordinary(_)) => {
                    match self.add_subscription(env, conn, filter, subscription_id, &mut ops) {
                        Err(code) => Asked::done(code),
                        Ok((route, retained)) => {
                            let code = route.qos;
                            let route_id = route.route_id;
                            routes.push((asked.len(), route, retained));
                            Asked {
                                code,
                                route_id,
                                waits: true,
                                retained: Vec::new(),
                            }
                        }
                    }
                }
            };
            asked.push(one);
        }
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let session_id = session.id;
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        if live.requests.len() >= REQUESTS {
            self.close_connection(env, conn, QUOTA);
            return;
        }
        let stored = ops.is_empty();
        live.requests.push(Request {
            id,
            packet_id,
            subscription_id,
            filters: asked,
            stored,
        });
        if !stored {
            env.store(What::Subscribed(session_id, id), ops);
        }
        // Submitted behind the rows: where commits have one order a route is never durable without them. Elsewhere a
        // route that outlives a crash alone finds a session that does not know it, and its next SUBSCRIBE replaces it.
        if !routes.is_empty() {
            env.after(WAIT_MS, What::SubscribeTimeout(session_id, id));
        }
        for (index, route, retained) in routes {
            let what = What::Routed {
                session: session_id,
                request: id,
                index,
                route_id: route.route_id,
            };
            let key = filter_key(&route.filter);
            env.ask(
                what,
                key,
                Command::Topic(TopicCommand::Subscribe { route, retained }),
            );
        }
        self.answer_subscribe(env, session_id, id);
    }

    /// me/inbox in one of its encodings. Gives the code.
    fn subscribe_inbox(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        encoding: Encoding,
        filter: &FilterIn,
        subscription_id: Option<u32>,
        ops: &mut Vec<Op>,
    ) -> u8 {
        let (ever, oldest, newest) = (
            self.mailbox.ever,
            self.mailbox.log.floor(),
            self.mailbox.log.confirmed(),
        );
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return UNSPECIFIED;
        };
        let persistent = session.is_persistent();
        let Some(live) = session.live.as_deref() else {
            return UNSPECIFIED;
        };
        if live.principal.is_anonymous() || !live.principal.scopes.chat {
            return NOT_AUTHORIZED;
        }
        let inbox = session.inbox.get_or_insert_with(|| Box::new(Inbox::new()));
        if inbox.form.is_some_and(|form| form.encoding != encoding) {
            return SPECIFIC;
        }
        let qos = filter.qos.min(1);
        inbox.form = Some(InboxForm {
            encoding,
            qos,
            no_local: filter.no_local,
            subscription_id,
        });
        let mut first = false;
        if qos > 0 && inbox.feed.is_none() {
            first = persistent && !ever;
            let from = if first { oldest } else { newest };
            inbox.feed = Some(Feed::new(Cursor::new(from, 0)));
            inbox.stored = from;
        }
        if persistent {
            ops.push(Name::Inbox(session.id).put(user, view, &inbox.row()));
        }
        if first {
            ops.push(Name::InboxEver.put_bytes(user, view, bytes::Bytes::from_static(&[1])));
            self.mailbox.ever = true;
        }
        qos
    }

    /// An ordinary filter. Gives its route and whether retained messages are wanted, or the code of its refusal.
    fn add_subscription(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        filter: FilterIn,
        subscription_id: Option<u32>,
        ops: &mut Vec<Op>,
    ) -> Result<(Route, bool), u8> {
        let (user, view, route_id) = (env.user, env.view(), env.fresh_number());
        let session = self.session_at(conn).ok_or(UNSPECIFIED)?;
        let live = session.live.as_deref().ok_or(UNSPECIFIED)?;
        if !env
            .common
            .config
            .acl
            .may_subscribe(&live.principal, &session.client_id, &filter.filter)
        {
            return Err(NOT_AUTHORIZED);
        }
        let old = session
            .subscriptions
            .iter()
            .position(|old| *old.filter == *filter.filter);
        if old.is_none() && session.subscriptions.len() >= SESSION_SUBSCRIPTIONS {
            return Err(QUOTA);
        }
        let (id, persistent) = (session.id, session.is_persistent());
        let retained = match filter.retain_handling {
            0 => true,
            1 => old.is_none(),
            _ => false,
        };
        let mut subscription = Subscription {
            filter: filter.filter,
            route_id,
            subscription_id,
            qos: filter.qos.min(2),
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            routed: false,
            replaced: Vec::new(),
        };
        if let Some(old) = old.map(|at| session.subscriptions.swap_remove(at)) {
            ops.extend(persistent.then(|| Name::Subscription(id, old.route_id).end(user, view)));
            subscription.replaced = old.replaced;
            subscription.replaced.push(old.route_id);
            let more = subscription.replaced.len().saturating_sub(REPLACED);
            subscription.replaced.drain(..more);
        }
        ops.extend(persistent.then(|| Name::Subscription(id, route_id).put(user, view, &subscription.row())));
        let route = subscription.route(user, id, persistent);
        session.subscriptions.reserve_exact(1);
        session.subscriptions.push(subscription);
        Ok((route, retained))
    }

    /// The rows of a SUBSCRIBE are durable.
    pub(crate) fn subscribed(&mut self, env: &mut Env<'_, '_>, session: SessionId, request: u64) {
        if let Some(request) = self.request(session, request) {
            request.stored = true;
        }
        self.answer_subscribe(env, session, request);
    }

    fn request(&mut self, session: SessionId, request: u64) -> Option<&mut Request> {
        let live = self.session(session)?.live.as_deref_mut()?;
        live.requests.iter_mut().find(|one| one.id == request)
    }

    /// A route is live, or refused.
    pub(crate) fn routed(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        request: u64,
        index: usize,
        route_id: u64,
        answer: Answer,
    ) {
        let mut retained = Vec::new();
        let mut refused = None;
        match answer {
            Answer::Retained(messages) => retained = messages,
            Answer::Refused(refusal) if refusal.code == Code::Quota => refused = Some(QUOTA),
            Answer::Refused(_) => refused = Some(UNSPECIFIED),
            _ => {}
        }
        if refused.is_some() {
            self.drop_subscriptions(env, session, &[route_id]);
        } else if let Some(found) = self.session(session).and_then(|session| {
            session
                .subscriptions
                .iter_mut()
                .find(|found| found.route_id == route_id)
        }) {
            found.routed = true;
            found.replaced = Vec::new();
        }
        let asked = self
            .request(session, request)
            .and_then(|request| request.filters.get_mut(index));
        if let Some(asked) = asked.filter(|asked| asked.waits) {
            asked.waits = false;
            asked.code = refused.unwrap_or(asked.code);
            asked.retained = retained;
            self.answer_subscribe(env, session, request);
        }
    }

    /// It took too long: what is not answered is refused.
    pub(crate) fn subscribe_timeout(&mut self, env: &mut Env<'_, '_>, session: SessionId, request: u64) {
        let Some(open) = self.request(session, request) else {
            return;
        };
        let late_rows = !std::mem::replace(&mut open.stored, true);
        let mut late = Vec::new();
        for asked in open
            .filters
            .iter_mut()
            .filter(|asked| asked.waits || (late_rows && asked.code <= 2))
        {
            asked.waits = false;
            asked.code = UNSPECIFIED;
            asked.retained = Vec::new();
            late.push(asked.route_id);
        }
        self.drop_subscriptions(env, session, &late);
        self.answer_subscribe(env, session, request);
    }

    /// Takes subscriptions back that were not granted; their routes go after their rows.
    fn drop_subscriptions(&mut self, env: &mut Env<'_, '_>, id: SessionId, route_ids: &[u64]) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session(id) else { return };
        let persistent = session.is_persistent();
        let (mut ops, mut routes) = (Vec::new(), Vec::new());
        session.subscriptions.retain(|subscription| {
            let dropped = route_ids.contains(&subscription.route_id);
            if dropped {
                routes.extend(subscription.routes(user, id, persistent));
                ops.extend(persistent.then(|| Name::Subscription(id, subscription.route_id).end(user, view)));
            }
            !dropped
        });
        if ops.is_empty() {
            unroute(env, routes);
        } else {
            env.store(What::Unrouted(routes), ops);
        }
    }
}

/// Removes routes whose subscriptions have ended durably.
pub(crate) fn unroute(env: &mut Env<'_, '_>, routes: Vec<Route>) {
    for route in routes {
        let key = filter_key(&route.filter);
        env.cx
            .tell(key, Command::Topic(TopicCommand::Unsubscribe { route }));
    }
}

fn refused(refusal: TopicRefusal) -> u8 {
    match refusal {
        TopicRefusal::NotFound | TopicRefusal::NotYet => NOT_AUTHORIZED,
        TopicRefusal::Shared => NO_SHARED,
        TopicRefusal::Form => FILTER_INVALID,
    }
}
