//! What the code of a home reaches beyond its own state during one call: the loop, the connections, what homes of this
//! worker share, and the tickets by which completions, answers and timers find back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_store::{Op, Read, View};
use godwit_wire::command::{Command, Publish, Route, TopicCommand};
use godwit_wire::ids::{Key, MessageId, SessionId, UserId};
use godwit_wire::proto::stored::MailboxEntry;

use super::NOBODY;
use super::attach::EndedSession;
use super::config::{UsersConfig, UsersMetrics};
use super::due::{Due, Look};
use super::firing::Firing;
use super::handing::Handing;
use super::leaving::Leaving;
use super::shares::Telling;
use super::suback::Unsubscribed;
use super::target::Target;
use crate::part::Part;
use crate::wire_trait::{ConnId, Wire};

/// Where the view of a home's take-up begins in the numbers that it makes.
pub(crate) const VIEW_SHIFT: u32 = 32;
/// Tickets whose memory is kept for the next burst.
const KEPT_SLOTS: usize = 1_024;
/// Most user names whose ids are remembered: names are immutable, so an entry is never wrong, only forgotten.
const NAMES: usize = 8 * 1024;

/// Why something was stored, read, asked or timed: what to do when it comes back.
pub(crate) enum What {
    /// Stored: the mailbox's oldest unconfirmed entry.
    Mail,
    /// Stored: the oldest unconfirmed entry of a session's log.
    Owed(SessionId),
    /// Stored: the rows of a CONNECT, and the end of the session before it.
    Attached {
        conn: ConnId,
        ended: Option<Box<EndedSession>>,
        /// As at `Expected`.
        look_at: Option<u64>,
    },
    /// Stored: the rows that end a session.
    Ended(Box<EndedSession>),
    /// Stored: the rows that end subscriptions that were not granted.
    Unrouted(Vec<Route>),
    /// Stored: so many retained messages, the oldest unconfirmed entries of a session's log.
    Retained {
        session: SessionId,
        request: u64,
        entries: u32,
    },
    /// Stored: subscription rows of a SUBSCRIBE.
    Subscribed(SessionId, u64),
    /// Stored: the rows that end subscriptions.
    Unsubscribed(ConnId, Box<Unsubscribed>),
    /// Stored: a QoS 2 publish has its message id; it goes on now.
    In2 {
        session: SessionId,
        message: MessageId,
        target: Box<Target>,
    },
    /// Stored: a QoS 2 publish is ended.
    In2Ended { session: SessionId, message: MessageId },
    /// Stored: the first of the PUBRECs that wait for it.
    Out2(SessionId),
    /// Stored: nothing, so that it is confirmed that these sessions have ended.
    Gone(Box<(Reply, Vec<SessionId>)>),
    /// Stored: lazily kept rows.
    Lazy,
    /// Stored: rows with a due row at this time, to be looked at from now on.
    Expected(u64),
    /// Stored: marks of everything up to here.
    Marks(u64),
    /// Stored: cursors above this floor of the mailbox.
    Trim(u64),
    /// Read: a page of a session's log.
    OwedPage(SessionId, Asked),
    /// Read: a page of the mailbox.
    MailPage(SessionId, Asked),
    /// Read: the conversations' rows that a page of the mailbox refers to.
    #[expect(
        clippy::box_collection,
        reason = "tickets are many: the largest decides their size"
    )]
    MailRows(SessionId, Asked, Box<Vec<(u64, MailboxEntry)>>),
    /// Read: a page of the log of a session that left work of groups.
    EstatePage(SessionId),
    /// Read: which retained messages are the user's.
    Retaining,
    /// Read: the user behind a name in a topic.
    Name(ConnId),
    /// Read: due rows of a shard.
    Due(u16),
    /// Asked: a publish.
    Publish(ConnId, u32),
    /// Asked: a publish of QoS 0 of so many bytes.
    Publish0(ConnId, u32),
    /// Asked: a QoS 2 publish.
    Publish2 { session: SessionId, message: MessageId },
    /// Asked: a route.
    Routed {
        session: SessionId,
        request: u64,
        index: usize,
        route_id: u64,
    },
    /// Asked: whom a will is of.
    WillOf(SessionId, u64),
    /// Entered: a will's turn to be published has come.
    WillTurn(SessionId, u64),
    /// Asked: a will was published.
    Will(SessionId, u64),
    /// Asked: an entry for another member of its group.
    Handed(Box<Handing>),
    /// Timer: it is asked again.
    HandAgain(Box<Handing>),
    /// Asked: that a member's client is there, for the group behind this route.
    Told(SessionId, Telling),
    /// Timer: its group is told again.
    TellAgain(SessionId, Telling),
    /// Timer: a page of an estate is read again.
    EstateAgain(SessionId),
    /// Timer: PUBLISHes that were held for too long.
    AckTimeout(ConnId),
    /// Timer: filters that were not answered.
    SubscribeTimeout(SessionId, u64),
    /// Timer: whether the home can leave memory.
    Idle,
    /// Timer: further connections are looked at after a change of the rules.
    Review,
    /// Timer: a page of a session's log is read again, of this generation of its feed.
    OwedAgain(SessionId, u32),
    /// Timer: and one of the mailbox.
    MailAgain(SessionId, u32),
    /// Timer: clients that published too much are read again.
    RateOver,
    /// Timer: store what is kept lazily.
    Flush,
    /// Timer: tell delivered receipts.
    Receipts,
    /// Timer: look at due rows.
    Tick,
    /// Timer: the next routes go.
    Leave,
    /// Entered: something of this user is due.
    Look(Box<Look>),
}

/// Which page of a log was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Of the feed: a page for an earlier connection is not taken.
    pub(crate) generation: u32,
    /// The last number that was confirmed then.
    pub(crate) up_to: u64,
}

/// A thing under way.
pub(crate) struct Ticket {
    /// Whose; nil for what is nobody's.
    pub(crate) user: UserId,
    /// Why.
    pub(crate) what: What,
}

/// Tickets by number. Bounded by what this part has under way, each of which is bounded where it begins.
#[derive(Default)]
pub(crate) struct Tickets {
    slots: Vec<Option<Ticket>>,
    free: Vec<u32>,
}

impl Tickets {
    pub(crate) fn issue(&mut self, ticket: Ticket) -> u64 {
        if let Some(free) = self.free.pop() {
            self.slots[free as usize] = Some(ticket);
            return u64::from(free);
        }
        self.slots.push(Some(ticket));
        self.slots.len() as u64 - 1
    }

    /// Gives memory back after a burst.
    pub(crate) fn rest(&mut self) {
        if self.slots.len() < KEPT_SLOTS || self.free.len() < self.slots.len() / 4 * 3 {
            return;
        }
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
        }
        self.slots.shrink_to_fit();
        // Numbers of tickets fit: they were given as such.
        let free = (0..).zip(&self.slots).filter(|(_, slot)| slot.is_none());
        self.free = free.map(|(number, _)| number).collect();
    }

    /// Takes back what was to be looked at of a user whose home could not be loaded.
    pub(crate) fn take_looks(&mut self, user: UserId) -> Vec<Look> {
        let is_look = |slot: &Option<Ticket>| {
            slot.as_ref()
                .is_some_and(|ticket| ticket.user == user && matches!(ticket.what, What::Look(_)))
        };
        let numbers: Vec<u64> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| is_look(slot))
            .map(|(n, _)| n)
            .collect();
        let taken = numbers.into_iter().filter_map(|number| self.take(number));
        taken
            .filter_map(|ticket| match ticket.what {
                What::Look(look) => Some(*look),
                _ => None,
            })
            .collect()
    }

    /// What comes back for these shards finds nobody, also when they are held again by then.
    pub(crate) fn forget(&mut self, lost: &HashSet<u16>) {
        for ticket in self.slots.iter_mut().flatten() {
            if ticket.user != NOBODY && lost.contains(&Key::User(ticket.user).shard()) {
                *ticket = Ticket {
                    user: NOBODY,
                    what: What::Idle,
                };
            }
        }
    }

    /// Takes a ticket that has come back.
    pub(crate) fn take(&mut self, number: u64) -> Option<Ticket> {
        let index = u32::try_from(number).ok()?;
        let ticket = self.slots.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(ticket)
    }
}

/// What homes of one worker share.
pub(crate) struct Common {
    pub(crate) config: Arc<UsersConfig>,
    pub(crate) metrics: UsersMetrics,
    pub(crate) tickets: Tickets,
    /// Whose a connection is.
    pub(crate) conns: HashMap<ConnId, UserId>,
    pub(crate) due: Due,
    pub(crate) firing: Firing,
    pub(crate) leaving: Leaving,
    pub(crate) inbox_topics: [Arc<str>; 3],
    names: HashMap<Box<str>, UserId>,
    next_number: u64,
    looks: u64,
}

impl Common {
    /// Numbers what is given to sessions, so that some of it can be picked.
    pub(crate) fn next_look(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }

    pub(crate) fn new(config: Arc<UsersConfig>, metrics: UsersMetrics) -> Self {
        Self {
            config,
            metrics,
            tickets: Tickets::default(),
            conns: HashMap::new(),
            due: Due::default(),
            firing: Firing::default(),
            leaving: Leaving::default(),
            inbox_topics: ["me/inbox".into(), "me/inbox/json".into(), "me/inbox/text".into()],
            names: HashMap::new(),
            next_number: 0,
            looks: 0,
        }
    }

    /// The id behind a user name, if it is remembered.
    pub(crate) fn known_name(&self, name: &str) -> Option<UserId> {
        self.names.get(name).copied()
    }

    /// Remembers a user name.
    pub(crate) fn learn_name(&mut self, name: &str, user: UserId) {
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        self.names.insert(name.into(), user);
    }
}

/// One call's surroundings.
pub(crate) struct Env<'a, 'c> {
    pub(crate) cx: &'a mut Cx<'c>,
    pub(crate) wire: &'a mut dyn Wire,
    pub(crate) common: &'a mut Common,
    /// The home that is called.
    pub(crate) user: UserId,
    /// How much the call left under way.
    pub(crate) issued: u32,
}

impl Env<'_, '_> {
    /// Milliseconds since 1970.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.cx.now().unix_ms
    }

    /// The time from which something is to last: see [`Cx::stamp_ms`](godwit_cluster::Cx::stamp_ms).
    pub(crate) fn stamp_ms(&self) -> u64 {
        self.cx.stamp_ms()
    }

    /// The time by which something may be called over: see [`Cx::expiry_ms`](godwit_cluster::Cx::expiry_ms).
    pub(crate) fn expiry_ms(&self) -> u64 {
        self.cx.expiry_ms()
    }

    /// Milliseconds that only grow.
    pub(crate) fn mono_ms(&self) -> u64 {
        self.cx.now().mono_ms
    }

    /// The view in rows.
    pub(crate) fn view(&self) -> View {
        self.cx.view_of(&Key::User(self.user))
    }

    /// The counters.
    pub(crate) fn metrics(&self) -> &UsersMetrics {
        &self.common.metrics
    }

    /// A number that no connection, route or will of this worker had before, in any start.
    pub(crate) fn fresh_number(&mut self) -> u64 {
        self.common.next_number += 1;
        // 2^32 a start, at 10,000 connects a second five days; then the view's part grows, which no later start has yet
        // had in its rows for this session.
        (self.view() << VIEW_SHIFT).wrapping_add(self.common.next_number)
    }

    fn issue(&mut self, what: What) -> u64 {
        let ticket = Ticket {
            user: self.user,
            what,
        };
        Part::Users.tag(self.common.tickets.issue(ticket))
    }

    /// Submits writes.
    pub(crate) fn store(&mut self, what: What, ops: Vec<Op>) {
        self.issued += 1;
        let tag = self.issue(what);
        self.cx.store(&Key::User(self.user), tag, ops);
    }

    /// Asks for reads.
    pub(crate) fn read(&mut self, what: What, reads: Vec<Read>) {
        self.issued += 1;
        let tag = self.issue(what);
        self.cx.read(tag, reads);
    }

    /// Asks another home.
    pub(crate) fn ask(&mut self, what: What, key: Key, command: Command) {
        self.issued += 1;
        let tag = self.issue(what);
        self.cx.ask(tag, key, command);
    }

    /// Waits for a will's turn.
    pub(crate) fn wait_to_fire(&mut self, what: What) {
        self.issued += 1;
        let tag = self.issue(what);
        self.common.firing.wait(self.user, tag);
    }

    /// Sets a timer. Not counted as under way.
    pub(crate) fn after(&mut self, ms: u64, what: What) {
        let tag = self.issue(what);
        self.cx.after(ms, tag);
    }

    /// Publishes on an ordinary topic, as this home's user.
    pub(crate) fn ask_topic(&mut self, what: What, publish: Arc<Publish>) {
        let key = Key::of_topic(&publish.topic);
        let command = TopicCommand::Publish(publish, self.user);
        self.ask(what, key, Command::Topic(command));
    }
}
