//! A session: its subscriptions, its own log and feed, its place in the mailbox, and, while it has one, its connection.
//! The flows over it are in the files named after them.

use godwit_store::{Head, LogId, Op};
use godwit_wire::account::Principal;
use godwit_wire::command::Route;
use godwit_wire::ids::{MessageId, SessionId, UserId};

use super::cursor::Cursor;
use super::feed::Feed;
use super::inbox::Inbox;
use super::log::Log;
use super::owed::Owed;
use super::publish_in::Inbound;
use super::queue::Queue;
use super::request::Request;
use super::retries::Retry;
use super::rows::{Name, OutRow, SessionRow, SubscriptionRow};
use crate::packet::Version;
use crate::tables::SESSION_LOG;
use crate::wire_trait::ConnId;

/// QoS 2 messages remembered in a session's log so that a repeated one is known: what its publishers may have
/// unacknowledged at a time, twice.
pub(crate) const RECENT: usize = 512;

/// A session of a user.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) client_id: Box<str>,
    /// Session Expiry Interval as granted, seconds; 0: ends with its connection.
    pub(crate) expiry: u32,
    /// Milliseconds since 1970; 0: connected.
    pub(crate) disconnected_at: u64,
    /// When its last connection ended while it was in memory, as [`Now::mono_ms`](godwit_cluster::Now); `None`: none did.
    pub(crate) left_mono_ms: Option<u64>,
    /// It has rows in the store, and what it is owed is there too: it was once to outlive its connection.
    pub(crate) stored: bool,
    /// It was once a member of a group, so its log may have what others are to get.
    pub(crate) shared: bool,
    /// Where its due row stands, milliseconds since 1970; 0: none.
    pub(crate) due_at: u64,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) inbox: Option<Box<Inbox>>,
    pub(crate) log: Log<Owed>,
    pub(crate) feed: Feed<Owed>,
    /// QoS 2 messages from the client that are not ended.
    pub(crate) in2: Vec<In2>,
    /// QoS 2 messages that were appended to the log last.
    pub(crate) recent: Queue<u64>,
    /// `recent` or a PUBREC has changed since [`OutRow`] was written.
    pub(crate) out_dirty: bool,
    /// Positions whose PUBREC is not durable yet, so that no PUBREL may go.
    pub(crate) out_waiting: Vec<u64>,
    /// As many of the first of them are in the row that is on its way; the others wait for it.
    pub(crate) out_writing: u16,
    pub(crate) live: Option<Box<Live>>,
}

/// A session's connection.
pub(crate) struct Live {
    pub(crate) conn: ConnId,
    pub(crate) version: Version,
    pub(crate) principal: Principal,
    /// Since when, seconds since 1970.
    pub(crate) since: u32,
    /// The connection's number: names its will, and its publishes for retries.
    pub(crate) number: u64,
    /// What the client takes unacknowledged, at most our own receive maximum.
    pub(crate) window: u16,
    /// CONNACK was sent.
    pub(crate) ready: bool,
    /// Whether it has a will.
    pub(crate) will: bool,
    pub(crate) session_present: bool,
    /// What CONNACK says of the granted expiry, if it differs from what was asked.
    pub(crate) told_expiry: Option<u32>,
    /// Server Keep Alive, seconds, if it is not what was asked for; else 0.
    pub(crate) told_keep_alive: u16,
    pub(crate) assigned_client_id: bool,
    /// Why reading is paused.
    pub(crate) paused: u8,
    /// A timer for held PUBLISHes is set.
    pub(crate) ack_timer: bool,
    /// When an UNSUBACK was sent last, or it began ([`super::unwanted::second`]).
    pub(crate) narrowed: u8,
    /// QoS 1 and 2 publishes from the client that are not acknowledged, in order.
    pub(crate) inbound: Queue<Inbound>,
    /// Number of the first of them.
    pub(crate) first_serial: u32,
    /// QoS 0 publishes that were asked and not answered.
    pub(crate) asked0: u16,
    /// Bytes of its publishes that are not answered.
    pub(crate) unanswered: u32,
    /// Publishes without an id whose PUBACK was given and may not be written yet, the latest last.
    pub(crate) given: Queue<Retry>,
    /// A publish that waits for the user behind the name in its topic.
    pub(crate) parked: Option<Box<crate::packet::PublishIn>>,
    /// SUBSCRIBEs that are not answered, or whose retained messages are not all given.
    pub(crate) requests: Vec<Request>,
}

impl Live {
    /// Whether its client waits for an answer.
    pub(crate) fn waits(&self) -> bool {
        !(self.ready && self.inbound.is_empty() && self.requests.is_empty()) || self.parked.is_some()
    }

    /// Whether the mailbox may speak to this connection: it has its CONNACK, and its credential's scopes have the chat,
    /// whoever subscribed (SCOPE). What it may not have stays owed.
    pub(crate) fn takes_mail(&self) -> bool {
        self.ready && self.principal.scopes.chat && !self.principal.is_anonymous()
    }
}

/// A subscription to ordinary topics.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subscription {
    pub(crate) filter: Box<str>,
    pub(crate) route_id: u64,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// The client was told that it has this filter, by this SUBSCRIBE or an earlier one.
    pub(crate) granted: bool,
    /// Route ids that it replaced and that may still stand.
    pub(crate) replaced: Vec<u64>,
}

impl Subscription {
    /// Its route.
    pub(crate) fn route(&self, user: UserId, session: SessionId, persistent: bool) -> Route {
        Route {
            user,
            session,
            route_id: self.route_id,
            filter: self.filter.clone(),
            persistent,
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            subscription_id: self.subscription_id,
        }
    }

    /// Its routes, the replaced ones too.
    pub(crate) fn routes(&self, user: UserId, session: SessionId, persistent: bool) -> Vec<Route> {
        let mut routes = vec![self.route(user, session, persistent)];
        for replaced in &self.replaced {
            routes.push(Route {
                route_id: *replaced,
                ..routes[0].clone()
            });
        }
        routes
    }

    pub(crate) fn row(&self) -> SubscriptionRow {
        SubscriptionRow {
            filter: self.filter.to_string(),
            qos: u32::from(self.qos),
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            subscription_id: self.subscription_id,
            replaced: self.replaced.clone(),
            unanswered: false,
        }
    }

    pub(crate) fn restored(route_id: u64, row: SubscriptionRow) -> Self {
        Self {
            filter: row.filter.into(),
            route_id,
            subscription_id: row.subscription_id,
            qos: row.qos.min(2) as u8,
            no_local: row.no_local,
            retain_as_published: row.retain_as_published,
            granted: !row.unanswered,
            replaced: row.replaced,
        }
    }
}

/// How far a QoS 2 publish from the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing of it is under way: known from the store and perhaps passed on, or refused and not told.
    Kept,
    /// Its row or the answer to it is under way, whichever connection asked.
    Going,
    /// It went on; its PUBREC waits for its turn, or for the client to return.
    Passed,
    /// PUBREC was sent.
    Received,
    /// PUBREL came; its end is on its way to the store.
    Ending,
}

/// A QoS 2 publish from the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct In2 {
    pub(crate) packet_id: u16,
    pub(crate) message: MessageId,
    /// Of topic and payload.
    pub(crate) digest: [u8; 16],
    pub(crate) phase: Phase,
    /// The present connection has sent its PUBLISH or PUBREL.
    pub(crate) here: bool,
}

impl Session {
    /// A session that begins.
    pub(crate) fn new(id: SessionId, client_id: Box<str>) -> Self {
        Self {
            id,
            client_id,
            expiry: 0,
            disconnected_at: 0,
            left_mono_ms: None,
            stored: false,
            shared: false,
            due_at: 0,
            subscriptions: Vec::new(),
            inbox: None,
            log: Log::restored(Head::default(), 0),
            feed: Feed::new(Cursor::default()),
            in2: Vec::new(),
            recent: Queue::default(),
            out_dirty: false,
            out_waiting: Vec::new(),
            out_writing: 0,
            live: None,
        }
    }

    /// Whether what it is and what it is owed is kept in the store.
    pub(crate) fn is_persistent(&self) -> bool {
        self.stored
    }

    /// Whether it goes on when its connection ends.
    pub(crate) fn outlives(&self) -> bool {
        self.expiry > 0
    }

    /// Its own log in the store.
    pub(crate) fn log_id(&self) -> LogId {
        log_id(self.id)
    }

    /// QoS 1 and 2 publishes to the client that are not settled.
    pub(crate) fn in_flight(&self) -> u16 {
        let inbox = self.inbox.as_ref().and_then(|inbox| inbox.feed.as_ref());
        self.feed.cursor.in_flight() + inbox.map_or(0, |feed| feed.cursor.in_flight())
    }

    /// When it ends if nobody comes, milliseconds since 1970.
    pub(crate) fn ends_at(&self) -> u64 {
        self.disconnected_at + u64::from(self.expiry) * 1_000
    }

    pub(crate) fn row(&self) -> SessionRow {
        SessionRow {
            client_id: self.client_id.to_string(),
            expiry: self.expiry,
            disconnected_at: self.disconnected_at,
            given_mailbox: self
                .inbox
                .as_ref()
                .and_then(|inbox| inbox.feed.as_ref())
                .map_or(0, |feed| feed.cursor.given_to()),
            given_log: self.feed.cursor.given_to(),
            due_at: self.due_at,
            shared: self.shared,
        }
    }

    pub(crate) fn out_row(&mut self) -> OutRow {
        let (slices, slice_bytes) = self.log.store_slices();
        OutRow {
            slices,
            slice_bytes,
            acked: self.feed.cursor.acked(),
            received: self.feed.cursor.received().collect(),
            recent: self.recent.iter().copied().collect(),
            settled: self.feed.cursor.settled().collect(),
        }
    }

    /// Remembers a QoS 2 message by its number. `false`: it was appended before.
    pub(crate) fn note_recent(&mut self, number: u64) -> bool {
        if self.recent.contains(&number) {
            return false;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(number);
        self.out_dirty = true;
        true
    }

    /// The rows that end it, and its log's unless that is kept for a while.
    pub(crate) fn end_ops(&self, user: UserId, view: u64, keep_log: bool) -> Vec<Op> {
        let mut ops = vec![Name::Session(self.id).end(user, view)];
        for subscription in &self.subscriptions {
            ops.push(Name::Subscription(self.id, subscription.route_id).end(user, view));
        }
        if self.inbox.is_some() {
            ops.push(Name::Inbox(self.id).end(user, view));
        }
        ops.push(Name::Out(self.id).end(user, view));
        for taken in &self.in2 {
            ops.push(Name::In(self.id, taken.message).end(user, view));
        }
        if !keep_log && (self.log.confirmed() > 0 || !self.log.is_settled()) {
            let ended = Head {
                confirmed: self.log.confirmed(),
                floor: u64::MAX,
            };
            ops.push(Op::Head {
                log: self.log_id(),
                head: ended,
            });
        }
        ops
    }
}

/// A session's own log in the store.
pub(crate) fn log_id(id: SessionId) -> LogId {
    LogId {
        table: SESSION_LOG,
        id: id.0,
    }
}

/// How a QoS 2 message is remembered: a part of its UUIDv7 that is random, and one that is not.
pub(crate) fn recent_number(message: MessageId) -> u64 {
    let (high, low) = message.0.as_u64_pair();
    low ^ high.rotate_left(32)
}
