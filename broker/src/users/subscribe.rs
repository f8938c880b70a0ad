//! SUBSCRIBE: me/inbox and ordinary filters. SUBACK leaves once the rows are durable and the routes are
//! live; a route may outlive its subscription, never the reverse.

use godwit_store::Op;
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, Route, TopicCommand};
use godwit_wire::ids::SessionId;
use godwit_wire::limits::{
    SESSION_SUBSCRIPTIONS, SHARE_NAME_BYTES, TOPIC_BYTES, TOPIC_LEVELS, USER_SHARES, USER_SUBSCRIPTIONS,
};
use godwit_wire::topic::{
    Encoding, FilterTopic, TopicRefusal, classify_filter, filter_key, inner_filter, shared,
};

use super::PROTOCOL_ERROR;
use super::cursor::Cursor;
use super::env::{Env, What};
use super::feed::Feed;
use super::home::Home;
use super::inbox::{Inbox, InboxForm};
use super::leaving::{unroute, unroute_all};
use super::request::{Asked, For, Kind, Request};
use super::rows::{Name, SubscriptionRow};
use super::session::Subscription;
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
pub(crate) const UNSPECIFIED: u8 = 0x80;
const SPECIFIC: u8 = 0x83;

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
        let open = self.session_at(conn).and_then(|session| session.live.as_deref());
        let Some(open) = open.map(|live| live.requests.len()) else {
            return;
        };
        // Before anything changes: nothing of a SUBSCRIBE that is refused as a whole may stay.
        if filters.len() > SESSION_SUBSCRIPTIONS || open >= REQUESTS {
            env.metrics().count_limit("subscriptions");
            self.close_connection(env, conn, QUOTA);
            return;
        }
        if filters
            .iter()
            .any(|one| one.no_local && shared(&one.filter).is_some())
        {
            // MQTT-3.8.3-4.
            self.close_connection(env, conn, PROTOCOL_ERROR);
            return;
        }
        let id = env.fresh_number();
        let mut asked = Vec::with_capacity(filters.len());
        let mut ops = Vec::new();
        let mut routes = Vec::new();
        for filter in filters {
            let (code, kind) = match classify_filter(&filter.filter) {
                Err(refusal) => {
                    over(&filter.filter).inspect(|limit| env.metrics().count_limit(limit));
                    (refused(refusal), Kind::Refused)
                }
                Ok(FilterTopic::Inbox(encoding)) => {
                    self.subscribe_inbox(env, conn, encoding, &filter, subscription_id, &mut ops)
                }
                Ok(FilterTopic::Ordinary(_) | FilterTopic::Shared(_)) => {
                    match self.add_subscription(env, conn, filter, subscription_id, &mut ops) {
                        Err(code) => (code, Kind::Refused),
                        Ok((route, retained, kind)) => {
                            let code = route.qos;
                            routes.push((asked.len(), route, retained));
                            (code, kind)
                        }
                    }
                }
            };
            let waits = matches!(kind, Kind::Route { .. });
            asked.push(Asked { code, kind, waits });
        }
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let session_id = session.id;
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        let stored = ops.is_empty();
        let request = Request::new(id, packet_id, subscription_id, asked, stored);
        live.requests.push(request);
        if !stored {
            env.store(What::Subscribed(session_id, id), ops);
        }
        // Submitted behind the rows: where commits have one order a route is never durable without them. Elsewhere a
        // route that outlives a crash alone finds a session that does not know it, and its next SUBSCRIBE replaces it.
        if !routes.is_empty() || !stored {
            env.after(WAIT_MS, What::SubscribeTimeout(session_id, id));
        }
        unroute_all(env);
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

    /// me/inbox in one of its encodings. Gives the code, and whether the client has it already.
    fn subscribe_inbox(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        encoding: Encoding,
        filter: &FilterIn,
        subscription_id: Option<u32>,
        ops: &mut Vec<Op>,
    ) -> (u8, Kind) {
        let (ever, oldest, newest) = (
            self.mailbox.ever,
            self.mailbox.log.floor(),
            self.mailbox.log.confirmed(),
        );
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session_at(conn) else {
            return (UNSPECIFIED, Kind::Refused);
        };
        let persistent = session.is_persistent();
        let Some(live) = session.live.as_deref() else {
            return (UNSPECIFIED, Kind::Refused);
        };
        if live.principal.is_anonymous() || !live.principal.scopes.chat {
            return (NOT_AUTHORIZED, Kind::Refused);
        }
        let unanswered = live.requests.iter().any(Request::asks_for_inbox);
        let inbox = session.inbox.get_or_insert_with(|| Box::new(Inbox::new()));
        if inbox.form.is_some_and(|form| form.encoding != encoding) {
            return (SPECIFIC, Kind::Refused);
        }
        let had = inbox.form.is_some() && !unanswered;
        let qos = filter.qos.min(1);
        let form = InboxForm {
            encoding,
            qos,
            no_local: filter.no_local,
            subscription_id,
        };
        inbox.subscribe(form, newest);
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
        (qos, Kind::Inbox { had })
    }

    /// An ordinary filter. Gives its route, whether retained messages are wanted and what is asked, or the code of its
    /// refusal.
    fn add_subscription(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        filter: FilterIn,
        subscription_id: Option<u32>,
        ops: &mut Vec<Op>,
    ) -> Result<(Route, bool, Kind), u8> {
        let (user, view, route_id) = (env.user, env.view(), env.fresh_number());
        let shares = self.shares();
        let all: usize = self.sessions.iter().map(|one| one.subscriptions.len()).sum();
        let session = self.session_at(conn).ok_or(UNSPECIFIED)?;
        let live = session.live.as_deref().ok_or(UNSPECIFIED)?;
        if !env.common.config.acl.may_subscribe(
            &live.principal,
            &session.client_id,
            inner_filter(&filter.filter),
        ) {
            return Err(NOT_AUTHORIZED);
        }
        let is_shared = shared(&filter.filter).is_some();
        let old = session
            .subscriptions
            .iter()
            .position(|old| *old.filter == *filter.filter);
        if old.is_none() && session.subscriptions.len() >= SESSION_SUBSCRIPTIONS {
            env.metrics().count_limit("subscriptions");
            return Err(QUOTA);
        }
        if old.is_none() && all >= USER_SUBSCRIPTIONS {
            env.metrics().count_limit("user_subscriptions");
            return Err(QUOTA);
        }
        if old.is_none() && is_shared && shares >= USER_SHARES {
            env.metrics().count_limit("shared_subscriptions");
            return Err(QUOTA);
        }
        if is_shared && !std::mem::replace(&mut session.shared, true) && session.is_persistent() {
            ops.push(Name::Session(session.id).put(user, view, &session.row()));
        }
        let (id, persistent) = (session.id, session.is_persistent());
        // A subscription that the client never heard of is new to it.
        let granted = old.is_some_and(|at| session.subscriptions[at].granted);
        let retained = match filter.retain_handling {
            // MQTT 5, 4.8.2: none on a shared subscription.
            _ if is_shared => false,
            0 => true,
            1 => !granted,
            _ => false,
        };
        let unanswered = filter.retain_handling == 1 && !granted && !is_shared;
        let mut subscription = Subscription {
            filter: filter.filter,
            route_id,
            subscription_id,
            qos: filter.qos.min(2),
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            granted,
            replaced: Vec::new(),
        };
        if let Some(old) = old.map(|at| session.subscriptions.swap_remove(at)) {
            ops.extend(persistent.then(|| Name::Subscription(id, old.route_id).end(user, view)));
            subscription.replaced = old.replaced;
            subscription.replaced.push(old.route_id);
            let more = subscription.replaced.len().saturating_sub(REPLACED);
            subscription.replaced.drain(..more);
        }
        if let Some(replaced) = subscription.replaced.last().filter(|_| retained) {
            session.forget_retained(&[*replaced]);
        }
        let row = || SubscriptionRow {
            unanswered,
            ..subscription.row()
        };
        ops.extend(persistent.then(|| Name::Subscription(id, route_id).put(user, view, &row())));
        let route = subscription.route(user, id, persistent);
        session.subscriptions.reserve_exact(1);
        session.subscriptions.push(subscription);
        let kind = Kind::Route { route_id, unanswered };
        Ok((route, retained, kind))
    }

    /// The rows of a SUBSCRIBE are durable.
    pub(crate) fn subscribed(&mut self, env: &mut Env<'_, '_>, session: SessionId, request: u64) {
        if let Some(request) = self.request(session, request) {
            request.stored = true;
        }
        self.answer_subscribe(env, session, request);
    }

    pub(crate) fn request(&mut self, session: SessionId, request: u64) -> Option<&mut Request> {
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
        let mut found = Vec::new();
        let mut code = None;
        match answer {
            Answer::Retained(messages) => found = messages,
            Answer::Refused(refusal) if refusal.code == Code::Quota => code = Some(QUOTA),
            Answer::Refused(_) => code = Some(UNSPECIFIED),
            _ => {}
        }
        let Some(open) = self.session(session) else { return };
        let persistent = open.is_persistent();
        let mut subscriptions = open.subscriptions.iter_mut();
        if code.is_none()
            && let Some(found) = subscriptions.find(|found| found.route_id == route_id)
        {
            found.replaced = Vec::new();
        }
        let may_wait = open.live.as_deref().is_some_and(|live| live.may_wait(&found));
        let room = if may_wait {
            self.room_for(env, &found)
        } else {
            None
        };
        let open = self.request(session, request);
        let waits = |open: &&mut Request| open.filters.get(index).is_some_and(|asked| asked.waits);
        let Some(open) = open.filter(waits) else {
            if code.is_some() {
                self.drop_subscriptions(env, session, &[route_id]);
            }
            return;
        };
        let one = For {
            route_id,
            qos: open.filters[index].code,
            subscription_id: open.subscription_id,
        };
        open.filters[index].waits = false;
        code = code.or_else(|| match room {
            None => Some(QUOTA),
            Some(room) => (!open.take(found, room, &one, persistent)).then_some(UNSPECIFIED),
        });
        if let Some(code) = code {
            open.filters[index].code = code;
            self.drop_subscriptions(env, session, &[route_id]);
        }
        self.answer_subscribe(env, session, request);
    }

    /// It took too long: what is not answered is refused.
    pub(crate) fn subscribe_timeout(&mut self, env: &mut Env<'_, '_>, session: SessionId, request: u64) {
        let Some(open) = self.request(session, request).filter(|open| !open.answered) else {
            return;
        };
        let late_rows = !std::mem::replace(&mut open.stored, true);
        let late_log = std::mem::replace(&mut open.logging, false) || !open.giving.is_logged();
        let (mut late, mut inbox) = (Vec::new(), false);
        for asked in &mut open.filters {
            let logged = (1..=2).contains(&asked.code);
            let is_late = match asked.kind {
                Kind::Refused => false,
                Kind::Inbox { had } => {
                    let is_late = late_rows && asked.code <= 2;
                    inbox |= is_late && !had;
                    is_late
                }
                Kind::Route { route_id, .. } => {
                    let is_late = asked.waits || (late_rows && asked.code <= 2) || (late_log && logged);
                    late.extend(is_late.then_some(route_id));
                    is_late
                }
            };
            if is_late {
                asked.waits = false;
                asked.code = UNSPECIFIED;
            }
        }
        if !late.is_empty() || inbox {
            env.metrics().count_limit("subscribe_time");
        }
        open.giving.forget(&late);
        self.drop_subscriptions(env, session, &late);
        if inbox {
            self.drop_inbox(env, session, request);
        }
        self.answer_subscribe(env, session, request);
    }

    /// Takes a subscription to me/inbox back that was not granted, unless a later SUBSCRIBE asks for it too.
    fn drop_inbox(&mut self, env: &mut Env<'_, '_>, id: SessionId, request: u64) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session(id) else { return };
        let persistent = session.is_persistent();
        let live = session.live.as_deref();
        let mut others = live.into_iter().flat_map(|live| &live.requests);
        if others.any(|one| one.id != request && one.asks_for_inbox()) {
            return;
        }
        if let Some(inbox) = session.inbox.as_deref_mut() {
            // The cursor stays, as over an UNSUBSCRIBE.
            inbox.unsubscribe();
            let row = persistent.then(|| Name::Inbox(id).put(user, view, &inbox.row()));
            if let Some(row) = row {
                env.store(What::Lazy, vec![row]);
            }
        }
    }

    /// Takes subscriptions back that were not granted; their routes go after their rows. One that takes the place of a
    /// granted one stays, with its row and what it replaces, although its SUBSCRIBE is told otherwise: the client was
    /// told before that it is owed what matches.
    fn drop_subscriptions(&mut self, env: &mut Env<'_, '_>, id: SessionId, route_ids: &[u64]) {
        let (user, view) = (env.user, env.view());
        let Some(session) = self.session(id) else { return };
        let persistent = session.is_persistent();
        let (mut ops, mut routes) = (Vec::new(), Vec::new());
        session.subscriptions.retain(|subscription| {
            let dropped = !subscription.granted && route_ids.contains(&subscription.route_id);
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

/// The limit that a filter in a wrong form is over, if it is.
fn over(filter: &str) -> Option<&'static str> {
    let name = shared(filter).map_or("", |(name, _)| name);
    let long = filter.len() > TOPIC_BYTES || filter.split('/').count() > TOPIC_LEVELS;
    match name.len() > SHARE_NAME_BYTES {
        true => Some("share_name"),
        false => long.then_some("topic"),
    }
}

fn refused(refusal: TopicRefusal) -> u8 {
    match refusal {
        TopicRefusal::NotFound | TopicRefusal::NotYet => NOT_AUTHORIZED,
        TopicRefusal::Form => FILTER_INVALID,
    }
}
