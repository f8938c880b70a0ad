//! Requests for keys that this worker does not hold: sent to the node that does, and sent again when that one says that it
//! does not either; kept, bounded and in order, while nobody is known to (docs/decisions/0011-many-nodes.md). Each worker
//! does so for the slots that would be its own, so all requests of this node for one key go one way.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::View;
use godwit_store::coordination::StartId;
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, UserCommand};
use godwit_wire::ids::Key;
use godwit_wire::peer::{PeerAnswer, PeerRequest};

use crate::own::{Holdings, Standing};
use crate::peers::{Peers, Pipe};
use crate::role::{Reply, ReplyTo};
use crate::router::Envelope;
use crate::turn::slot_of;

/// Most requests that wait for a slot to be somebody's; beyond it they are refused as `unavailable`.
pub const WAITING: usize = 65_536;
/// Requests of a worker that other nodes were asked and have not answered, from which on it reads no more of its clients until
/// some are answered: what all links to a dozen nodes take at a time. What is under way then still comes on top.
const ASKED: usize = 65_536;
/// How long a request waits for its slot to be somebody's, milliseconds; then it is refused as `unavailable`.
pub const WAITS_MS: u64 = 5_000;
/// After how long it is tried again with a node that said that it does not hold the slot (it may not have moved yet).
const AGAIN_MS: u64 = 100;
/// Bits of a request's id below the worker's number.
const NUMBER_BITS: u32 = 48;

/// A request that another node was asked, as it may have to be asked again.
struct Asked {
    /// Which.
    node: StartId,
    /// Which it is of all that this worker took, by its first sending.
    order: u64,
    key: Key,
    command: Command,
    reply: Reply,
    until: u64,
}

struct Waiting {
    slot: u16,
    until: u64,
    /// Whom it was just asked, and until when that one is not asked again by the same map.
    not_before: u64,
    envelope: Envelope,
}

/// Requests for one slot that are not answered. All of them are at one node: while they are, nothing goes to another.
struct UnderWay {
    node: StartId,
    count: usize,
}

/// Where a request is to go.
enum Place {
    Node(StartId),
    /// Nobody's at the moment, or to be this node's.
    Nobody,
}

/// What came of requests that had waited.
pub(crate) enum Went {
    /// The slot is held here by now.
    Here(Envelope),
    /// It was not in time.
    Refused(Reply),
}

/// See the module.
pub(crate) struct Away {
    worker: u16,
    peers: Arc<dyn Peers>,
    holdings: Arc<Holdings>,
    standing: Option<(Arc<Standing>, StartId)>,
    /// In the order of their first sending.
    waiting: BTreeMap<u64, Waiting>,
    /// Slots of those that wait: what comes later for such a slot waits behind them.
    slots: HashSet<u16>,
    under_way: HashMap<u16, UnderWay>,
    again_at: Option<u64>,
    asked: HashMap<u64, Asked>,
    /// Of ids: a request that is sent again has a new one.
    last_id: u64,
    last_order: u64,
    outgoing: BTreeMap<StartId, VecDeque<PeerRequest>>,
    answers: BTreeMap<StartId, Vec<(u64, PeerAnswer)>>,
}

/// The worker that asked under this id.
pub(crate) fn asker(id: u64) -> u16 {
    // What is above the number is a worker's, which fits.
    (id >> NUMBER_BITS) as u16
}

impl Away {
    pub(crate) fn new(worker: u16, peers: Arc<dyn Peers>, holdings: Arc<Holdings>) -> Self {
        Self {
            worker,
            peers,
            holdings,
            standing: None,
            waiting: BTreeMap::new(),
            slots: HashSet::new(),
            under_way: HashMap::new(),
            again_at: None,
            asked: HashMap::new(),
            last_id: 0,
            last_order: 0,
            outgoing: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Members or owners are others. What waits is to be looked at, and what no link has taken yet. Given back are those
    /// whom a node was asked for that is no member any more: nobody knows what it has done, and its link, if it is down, would
    /// keep them for as long as it may come back.
    #[must_use]
    pub(crate) fn stands(&mut self, standing: Arc<Standing>, me: StartId, now_ms: u64) -> Vec<Reply> {
        self.standing = Some((standing, me));
        self.again_at = Some(0);
        // By another map.
        self.waiting.values_mut().for_each(|one| one.not_before = 0);
        for (node, requests) in std::mem::take(&mut self.outgoing) {
            self.look_again(node, requests, now_ms);
        }
        let members: HashSet<StartId> = self.members().collect();
        let gone = self
            .asked
            .iter()
            .filter(|(_, asked)| !members.contains(&asked.node));
        let gone: Vec<u64> = gone.map(|(id, _)| *id).collect();
        let ended = gone.into_iter().filter_map(|id| self.end_asked(id));
        ended.map(|asked| asked.reply).collect()
    }

    /// A request is under way no longer.
    fn end_asked(&mut self, id: u64) -> Option<Asked> {
        let asked = self.asked.remove(&id)?;
        if !matches!(asked.key, Key::Node(_))
            && let Entry::Occupied(mut at) = self.under_way.entry(slot_of(&asked.key))
        {
            at.get_mut().count -= 1;
            if at.get().count == 0 {
                at.remove();
                // Others may have waited for that.
                self.again_at = Some(0);
            }
        }
        Some(asked)
    }

    /// What no link to a node has taken yet: it may be another's by now.
    fn look_again(&mut self, node: StartId, requests: VecDeque<PeerRequest>, now_ms: u64) {
        for request in requests {
            if let Key::Node(_) = request.key {
                match self.is_member(node) {
                    true => self.outgoing.entry(node).or_default().push_back(request),
                    // Its asker is told by the end of its reply.
                    false => drop(self.end_asked(request.id)),
                }
                continue;
            }
            let (reply, until, order) = match self.end_asked(request.id) {
                Some(asked) => (asked.reply, asked.until, asked.order),
                // Told, not asked.
                None => (Reply::nobody(), now_ms + WAITS_MS, self.next_order()),
            };
            let envelope = Envelope::of_this_node(request.key, request.command, reply);
            self.wait(envelope, order, until, now_ms);
        }
    }

    /// The start of this node, as far as it has been told.
    pub(crate) fn me(&self) -> Option<StartId> {
        self.standing.as_ref().map(|(_, me)| *me)
    }

    pub(crate) fn standing(&self) -> Option<Arc<Standing>> {
        self.standing.as_ref().map(|(standing, _)| standing.clone())
    }

    /// Whether this node is meant.
    pub(crate) fn is_me(&self, node: StartId) -> bool {
        self.me() == Some(node)
    }

    /// The members of the view, this node too.
    pub(crate) fn members(&self) -> impl Iterator<Item = StartId> + '_ {
        let seats = self
            .standing
            .iter()
            .flat_map(|(standing, _)| &standing.body.seats);
        seats.map(|seat| seat.start)
    }

    fn is_member(&self, node: StartId) -> bool {
        self.members().any(|member| member == node)
    }

    /// Whether a node is a member that does not leave.
    pub(crate) fn stays(&self, node: StartId) -> bool {
        let mut seats = self
            .standing
            .iter()
            .flat_map(|(standing, _)| &standing.body.seats);
        seats.any(|seat| seat.start == node && !seat.leaving)
    }

    /// Where MQTT clients reach this node, if it says so.
    pub(crate) fn own_reference(&self) -> Option<Arc<str>> {
        self.peers.reference(self.me()?)
    }

    /// Whether a slot is to be this node's.
    pub(crate) fn awaits(&self, slot: u16) -> bool {
        let owner = self.standing.as_ref().and_then(|(standing, me)| {
            let seat = standing.body.seats.get(standing.map.owner(slot)?)?;
            Some(seat.start == *me)
        });
        owner.unwrap_or(false)
    }

    /// Where MQTT clients reach who holds a slot; `None`: nobody knows, or it is to be this node's.
    pub(crate) fn reference(&self, slot: u16) -> Option<Arc<str>> {
        match self.place(slot) {
            Place::Node(node) => self.peers.reference(node),
            Place::Nobody => None,
        }
    }

    /// A way for a client's bytes to who holds a slot.
    pub(crate) fn splice(&self, slot: u16, about: Bytes) -> io::Result<Box<dyn Pipe>> {
        match self.place(slot) {
            Place::Node(node) => self.peers.splice(node, about),
            Place::Nobody => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    /// The view by which this worker knows whose a slot is.
    fn view(&self) -> View {
        self.standing.as_ref().map_or(0, |(standing, _)| standing.number)
    }

    fn wait(&mut self, envelope: Envelope, order: u64, until: u64, now_ms: u64) {
        let slot = slot_of(&envelope.key);
        let one = Waiting {
            slot,
            until,
            not_before: 0,
            envelope,
        };
        self.stay(order, one, now_ms);
    }

    fn stay(&mut self, order: u64, one: Waiting, now_ms: u64) {
        self.slots.insert(one.slot);
        self.waiting.insert(order, one);
        self.again_at.get_or_insert(now_ms + AGAIN_MS);
    }

    /// This worker took slots up. What waits is to be looked at.
    pub(crate) fn took_up(&mut self) {
        self.again_at = Some(0);
    }

    /// Whether a request is sent back for the view by which it was sent: a shard that was `held` here since a later one had been elsewhere
    /// in between; and a delivery is its topic's home's, which has another home in this node's view: who had it before, and may
    /// be dead for all others, would give what the other gives too, or what came before.
    pub(crate) fn is_void(&self, envelope: &Envelope, held: View) -> bool {
        let ReplyTo::Peer { node, .. } = envelope.reply.0 else {
            return false;
        };
        if envelope.view < held {
            return true;
        }
        if envelope.view >= self.view() {
            return false;
        }
        let Command::User(UserCommand::Deliver { publish, .. } | UserCommand::Share { publish, .. }) =
            &envelope.command
        else {
            return false;
        };
        !matches!(self.place(slot_of(&Key::of_topic(&publish.topic))), Place::Node(at) if at == node)
    }

    /// Whether something waits for this slot, or another node was asked, so that nothing may overtake it.
    pub(crate) fn holds_back(&self, slot: u16) -> bool {
        (!self.slots.is_empty() && self.slots.contains(&slot))
            || (!self.under_way.is_empty() && self.under_way.contains_key(&slot))
    }

    fn place(&self, slot: u16) -> Place {
        let Some((standing, me)) = &self.standing else {
            return Place::Nobody;
        };
        let owner = standing
            .map
            .owner(slot)
            .and_then(|at| standing.body.seats.get(at));
        match owner {
            Some(seat) if seat.start != *me => Place::Node(seat.start),
            _ => Place::Nobody,
        }
    }

    /// Takes a request whose slot is not held here, or has others waiting. Given back: it is refused.
    pub(crate) fn take(&mut self, envelope: Envelope, now_ms: u64) -> Option<Reply> {
        let order = self.next_order();
        self.put(envelope, order, now_ms + WAITS_MS, now_ms)
    }

    fn put(&mut self, envelope: Envelope, order: u64, until: u64, now_ms: u64) -> Option<Reply> {
        if let Key::Node(node) = envelope.key {
            if !self.is_member(node) {
                return Some(envelope.reply);
            }
            self.send_on(node, envelope, order, until);
            return None;
        }
        let slot = slot_of(&envelope.key);
        let place = match envelope.view > self.view() {
            // Its sender knows more than this node does yet.
            true => {
                self.holdings.hint(envelope.view);
                Place::Nobody
            }
            false => self.place(slot),
        };
        match place {
            Place::Node(node) if envelope.is_peers() || self.may_go(slot, node) => {
                self.send_on(node, envelope, order, until);
                None
            }
            _ if self.waiting.len() < WAITING => {
                self.wait(envelope, order, until, now_ms);
                None
            }
            _ => Some(envelope.reply),
        }
    }

    /// Whether nothing before it would come to this node later, or to another.
    fn may_go(&self, slot: u16, node: StartId) -> bool {
        !self.slots.contains(&slot) && self.under_way.get(&slot).is_none_or(|at| at.node == node)
    }

    /// It was sent here by a view that is not this node's: its sender looks again.
    pub(crate) fn send_back(&mut self, mut reply: Reply) {
        if let ReplyTo::Peer { node, id } = reply.0 {
            drop(reply.take());
            self.answer(node, id, PeerAnswer::Moved);
        }
    }

    fn send_on(&mut self, node: StartId, envelope: Envelope, order: u64, until: u64) {
        if envelope.is_peers() {
            self.send_back(envelope.reply);
            return;
        }
        let Envelope {
            key, command, reply, ..
        } = envelope;
        let view = self.view();
        let id = match reply.is_nobody() {
            true => 0,
            false => {
                self.last_id += 1;
                u64::from(self.worker) << NUMBER_BITS | self.last_id
            }
        };
        let request = PeerRequest {
            id,
            view,
            key: key.clone(),
            command: command.clone(),
        };
        if id != 0 {
            if !matches!(key, Key::Node(_)) {
                let fresh = UnderWay { node, count: 0 };
                self.under_way.entry(slot_of(&key)).or_insert(fresh).count += 1;
            }
            let asked = Asked {
                node,
                order,
                key,
                command,
                reply,
                until,
            };
            self.asked.insert(id, asked);
        }
        self.outgoing.entry(node).or_default().push_back(request);
    }

    /// Another node's answer; given back with whom it is for.
    pub(crate) fn answered(&mut self, id: u64, answer: PeerAnswer, now_ms: u64) -> Option<(Reply, Answer)> {
        let asked = self.end_asked(id)?;
        match answer {
            PeerAnswer::Answer(answer) => Some((asked.reply, answer)),
            // That start is over.
            PeerAnswer::Moved if matches!(asked.key, Key::Node(_)) => {
                Some((asked.reply, Refusal::unavailable().into()))
            }
            PeerAnswer::Moved => {
                let slot = slot_of(&asked.key);
                // It waits even if the map still names that node: one of the two is behind.
                let same = matches!(self.place(slot), Place::Node(node) if node == asked.node);
                let one = Waiting {
                    slot,
                    until: asked.until,
                    not_before: if same { now_ms + AGAIN_MS } else { 0 },
                    envelope: Envelope::of_this_node(asked.key, asked.command, asked.reply),
                };
                self.stay(asked.order, one, now_ms);
                None
            }
        }
    }

    /// An answer of this worker to another node.
    pub(crate) fn answer(&mut self, node: StartId, id: u64, answer: PeerAnswer) {
        self.answers.entry(node).or_default().push((id, answer));
    }

    /// What waits is looked at if it is time; `held`: the view in which this worker took a slot up; 0: it does not hold it.
    pub(crate) fn look(&mut self, now_ms: u64, held: impl Fn(u16) -> View) -> Vec<Went> {
        if self.again_at.is_none_or(|at| now_ms < at) {
            return Vec::new();
        }
        self.again_at = None;
        let mut went = Vec::new();
        self.slots.clear();
        for (order, one) in std::mem::take(&mut self.waiting) {
            let slot = one.slot;
            let is_blocked = self.slots.contains(&slot) || now_ms < one.not_before;
            let is_elsewhere = || self.under_way.contains_key(&slot);
            if now_ms >= one.until {
                went.push(Went::Refused(one.envelope.reply));
            } else if held(slot) != 0 && self.is_void(&one.envelope, held(slot)) {
                self.send_back(one.envelope.reply);
            } else if is_blocked || (held(slot) != 0 && is_elsewhere()) {
                self.stay(order, one, now_ms);
            } else if held(slot) != 0 {
                went.push(Went::Here(one.envelope));
            } else if let Some(reply) = self.put(one.envelope, order, one.until, now_ms) {
                went.push(Went::Refused(reply));
            }
        }
        went
    }

    /// When it is to be looked again, in the worker's milliseconds.
    pub(crate) fn again_at(&self) -> Option<u64> {
        self.again_at
    }

    /// Requests that no link has taken, and those that wait.
    pub(crate) fn kept(&self) -> usize {
        self.outgoing.values().map(VecDeque::len).sum::<usize>() + self.waiting.len()
    }

    /// Whether as many requests as may be are not answered.
    pub(crate) fn asked_most(&self) -> bool {
        self.asked.len() >= ASKED
    }

    /// Whether something is to be sent.
    pub(crate) fn unsent(&self) -> bool {
        self.outgoing.values().any(|requests| !requests.is_empty())
    }

    /// Gives the links what gathered, as far as they have room.
    pub(crate) fn flush(&mut self) {
        self.outgoing.retain(|node, requests| {
            self.peers.send(*node, requests);
            !requests.is_empty()
        });
        for (node, mut answers) in std::mem::take(&mut self.answers) {
            self.peers.answer(node, &mut answers);
        }
    }
}
