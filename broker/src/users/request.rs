//! A SUBSCRIBE that is not done: its filters' answers, and the retained messages that wait for the client. Keeps them
//! bounded and current; asks and sends nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use godwit_wire::command::{Publish, Target};
use godwit_wire::ids::SessionId;

use super::owed::Owed;
use super::session::{Live, Session};
use crate::copies::{Held, copied};
use crate::packet::PacketId;
use crate::topics::{RETAINED_AT_ONCE, RETAINED_BYTES, weight};

/// Most bytes of topics that a request notes as overtaken: seconds of a busy broker. Beyond it nobody knows which
/// retained message is current, so filters that are not answered yet and have any are refused.
const NOTED_BYTES: usize = 4 * 1024 * 1024;

/// A SUBSCRIBE that is not answered, or whose retained messages are not all given.
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) packet_id: PacketId,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) filters: Vec<Asked>,
    pub(crate) stored: bool,
    /// A portion of its retained messages is on its way to the session's log.
    pub(crate) logging: bool,
    /// SUBACK was sent.
    pub(crate) answered: bool,
    pub(crate) giving: Giving,
    noted: HashSet<Box<str>>,
    noted_bytes: usize,
}

/// One filter of it.
pub(crate) struct Asked {
    pub(crate) code: u8,
    pub(crate) kind: Kind,
    /// Its route is not answered.
    pub(crate) waits: bool,
}

/// What was asked for by a filter.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Refused at once.
    Refused,
    /// me/inbox; `had`: the client was told before that it has it.
    Inbox { had: bool },
    /// An ordinary filter; `unanswered`: its row says so.
    Route { route_id: u64, unanswered: bool },
}

impl Request {
    pub(crate) fn new(
        id: u64,
        packet_id: PacketId,
        subscription_id: Option<u32>,
        filters: Vec<Asked>,
        stored: bool,
    ) -> Self {
        Self {
            id,
            packet_id,
            subscription_id,
            filters,
            stored,
            logging: false,
            answered: false,
            giving: Giving::default(),
            noted: HashSet::new(),
            noted_bytes: 0,
        }
    }

    /// Whether a route is not answered.
    pub(crate) fn waits(&self) -> bool {
        self.filters.iter().any(|asked| asked.waits)
    }

    /// Whether SUBACK is still to come for me/inbox.
    pub(crate) fn asks_for_inbox(&self) -> bool {
        let inbox = |asked: &Asked| matches!(asked.kind, Kind::Inbox { .. });
        !self.answered && self.filters.iter().any(inbox)
    }

    /// A publish that sets or clears the retained message of this topic was delivered: an older one is stale now, also
    /// one that is still to come.
    fn overtaken(&mut self, topic: &str) {
        self.giving.overtaken(topic);
        if self.waits() && self.noted_bytes <= NOTED_BYTES && self.noted.insert(topic.into()) {
            self.noted_bytes += topic.len();
        }
    }

    /// Retained messages for a filter came, and the room for what of them is a copy. `false`: nobody knows which of them are
    /// current.
    pub(crate) fn take(
        &mut self,
        found: Vec<Arc<Publish>>,
        mut room: Held,
        one: &For,
        persistent: bool,
    ) -> bool {
        if self.noted_bytes > NOTED_BYTES && !found.is_empty() {
            return false;
        }
        for publish in found {
            if !self.noted.contains(&publish.topic) {
                let held = room.split(copied(std::slice::from_ref(&publish)));
                let one = Waiting {
                    publish,
                    one: *one,
                    held,
                };
                self.giving.add(one, persistent);
            }
        }
        true
    }
}

/// For which filter a retained message is given.
#[derive(Clone, Copy)]
pub(crate) struct For {
    pub(crate) route_id: u64,
    /// As granted.
    pub(crate) qos: u8,
    pub(crate) subscription_id: Option<u32>,
}

/// A retained message that waits for a client.
struct Waiting {
    publish: Arc<Publish>,
    one: For,
    /// The room that it has as a copy, or none of it.
    held: Held,
}

type ByTopic = BTreeMap<Box<str>, Vec<Waiting>>;

/// Retained messages that wait for a client, by topic.
#[derive(Default)]
pub(crate) struct Giving {
    /// QoS 1 and 2 for a persistent session: in its log before the SUBACK.
    owed: ByTopic,
    /// All others: given after it, as the connection has room.
    later: ByTopic,
    size: Size,
}

/// How much waits.
#[derive(Clone, Copy, Default)]
struct Size {
    count: usize,
    bytes: usize,
    /// Of these bytes, those of copies that nobody else has.
    copied: usize,
}

impl Size {
    fn of(one: &Waiting) -> Self {
        Self {
            count: 1,
            bytes: weight(&one.publish),
            copied: one.held.bytes(),
        }
    }

    fn add(&mut self, more: Self) {
        self.count += more.count;
        self.bytes += more.bytes;
        self.copied += more.copied;
    }

    fn take_off(&mut self, less: Self) {
        self.count -= less.count;
        self.bytes -= less.bytes;
        self.copied -= less.copied;
    }
}

impl Giving {
    fn add(&mut self, one: Waiting, persistent: bool) {
        self.size.add(Size::of(&one));
        let owed = persistent && one.publish.qos.min(one.one.qos) > 0;
        let list = if owed { &mut self.owed } else { &mut self.later };
        list.entry(one.publish.topic.clone()).or_default().push(one);
    }

    /// Whether all that must be in the log is.
    pub(crate) fn is_logged(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.size.count == 0
    }

    fn pop(list: &mut ByTopic) -> Option<Waiting> {
        let mut first = list.first_entry()?;
        let taken = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        taken
    }

    fn taken(&mut self, session: SessionId, taken: Option<Waiting>) -> Option<Owed> {
        let taken = taken?;
        self.size.take_off(Size::of(&taken));
        let Waiting { publish, one, .. } = taken;
        let target = Target {
            session,
            qos: one.qos,
            retain_as_published: true,
            subscription_ids: one.subscription_id.into_iter().collect(),
        };
        Some(Owed {
            retain: true,
            ..Owed::new(publish, target)
        })
    }

    /// The next for the session's log.
    pub(crate) fn next_owed(&mut self, session: SessionId) -> Option<Owed> {
        let taken = Self::pop(&mut self.owed);
        self.taken(session, taken)
    }

    /// The QoS of what [`Self::next_later`] gives.
    pub(crate) fn qos_of_next(&self) -> Option<u8> {
        let (_, list) = self.later.first_key_value()?;
        list.last().map(|last| last.publish.qos.min(last.one.qos))
    }

    /// The next that is given after the SUBACK.
    pub(crate) fn next_later(&mut self, session: SessionId) -> Option<Owed> {
        let taken = Self::pop(&mut self.later);
        self.taken(session, taken)
    }

    fn overtaken(&mut self, topic: &str) {
        for list in [&mut self.owed, &mut self.later] {
            for stale in list.remove(topic).into_iter().flatten() {
                self.size.take_off(Size::of(&stale));
            }
        }
    }

    /// What is for these routes is not given any more.
    pub(crate) fn forget(&mut self, route_ids: &[u64]) {
        for list in [&mut self.owed, &mut self.later] {
            list.retain(|_, list| {
                list.retain(|waiting| {
                    let stays = !route_ids.contains(&waiting.one.route_id);
                    if !stays {
                        self.size.take_off(Size::of(waiting));
                    }
                    stays
                });
                !list.is_empty()
            });
        }
    }

    /// Takes over what another one has left.
    pub(crate) fn merge(&mut self, other: Self) {
        self.size.add(other.size);
        for (topic, list) in other.later {
            self.later.entry(topic).or_default().extend(list);
        }
    }
}

impl Live {
    /// Whether the client may be given so many more retained messages: what waits for it is in memory.
    pub(crate) fn may_wait(&self, found: &[Arc<Publish>]) -> bool {
        let waiting = self.requests.iter().map(|request| &request.giving);
        let (mut count, mut bytes) = (found.len(), 0);
        for giving in waiting {
            count += giving.size.count;
            bytes += giving.size.bytes;
        }
        bytes += found.iter().map(|publish| weight(publish)).sum::<usize>();
        count <= RETAINED_AT_ONCE && bytes <= RETAINED_BYTES
    }

    /// Bytes of retained messages that wait for the client and that this node has for it alone.
    pub(crate) fn copied(&self) -> usize {
        self.requests
            .iter()
            .map(|request| request.giving.size.copied)
            .sum()
    }
}

impl Session {
    /// A publish that sets or clears the retained message of this topic is delivered now.
    pub(crate) fn overtaken(&mut self, topic: &str) {
        if let Some(live) = self.live.as_deref_mut() {
            for request in &mut live.requests {
                request.overtaken(topic);
            }
        }
    }

    /// Retained messages for these routes are not given any more.
    pub(crate) fn forget_retained(&mut self, route_ids: &[u64]) {
        if let Some(live) = self.live.as_deref_mut() {
            for request in live.requests.iter_mut().filter(|one| !one.giving.is_empty()) {
                request.giving.forget(route_ids);
            }
        }
    }

    /// Whether retained messages may wait for room of its connection.
    pub(crate) fn gives_retained(&self) -> bool {
        self.live.as_deref().is_some_and(|live| !live.requests.is_empty())
    }
}
