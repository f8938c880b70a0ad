//! Requests for keys that this worker does not hold: sent to the node that does, and sent again when that one says that it
//! does not either; kept, bounded and in order, while nobody is known to (docs/decisions/0011-many-nodes.md). Each worker
//! does so for the slots that would be its own, so all requests of this node for one key go one way.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::coordination::StartId;
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;
use godwit_wire::peer::{PeerAnswer, PeerRequest};

use crate::own::Standing;
use crate::peers::{Peers, Pipe};
use crate::role::{Reply, ReplyTo};
use crate::router::Envelope;
use crate::turn::slot_of;

/// Most requests that wait for a slot to be somebody's; beyond it they are refused as `unavailable`.
pub const WAITING: usize = 65_536;
/// Most requests that other nodes were asked and have not answered, of a worker: twice what one link takes of all of them
/// would be as many from a dozen nodes. Beyond it the worker takes no more from its clients until some are answered.
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
    key: Key,
    command: Command,
    reply: Reply,
    until: u64,
}

struct Waiting {
    slot: u16,
    until: u64,
    envelope: Envelope,
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
    standing: Option<(Arc<Standing>, StartId)>,
    waiting: VecDeque<Waiting>,
    /// How many wait, by slot: what comes later for such a slot waits behind them.
    slots: HashMap<u16, usize>,
    again_at: Option<u64>,
    asked: HashMap<u64, Asked>,
    last: u64,
    outgoing: BTreeMap<StartId, VecDeque<PeerRequest>>,
    answers: BTreeMap<StartId, Vec<(u64, PeerAnswer)>>,
}

/// The worker that asked under this id.
pub(crate) fn asker(id: u64) -> u16 {
    // What is above the number is a worker's, which fits.
    (id >> NUMBER_BITS) as u16
}

impl Away {
    pub(crate) fn new(worker: u16, peers: Arc<dyn Peers>) -> Self {
        Self {
            worker,
            peers,
            standing: None,
            waiting: VecDeque::new(),
            slots: HashMap::new(),
            again_at: None,
            asked: HashMap::new(),
            last: 0,
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
        for (node, requests) in std::mem::take(&mut self.outgoing) {
            self.look_again(node, requests, now_ms);
        }
        let members: HashSet<StartId> = self.members().collect();
        let gone = self.asked.extract_if(|_, asked| !members.contains(&asked.node));
        gone.map(|(_, asked)| asked.reply).collect()
    }

    /// What no link to a node has taken yet: it may be another's by now.
    fn look_again(&mut self, node: StartId, requests: VecDeque<PeerRequest>, now_ms: u64) {
        for request in requests {
            if let Key::Node(_) = request.key {
                match self.is_member(node) {
                    true => self.outgoing.entry(node).or_default().push_back(request),
                    // Its asker is told by the end of its reply.
                    false => drop(self.asked.remove(&request.id)),
                }
                continue;
            }
            let asked = self.asked.remove(&request.id);
            let (reply, until) = asked.map_or((Reply::nobody(), now_ms + WAITS_MS), |asked| {
                (asked.reply, asked.until)
            });
            let envelope = Envelope {
                key: request.key,
                command: request.command,
                reply,
            };
            self.wait(envelope, until, now_ms);
        }
    }

    /// The start of this node, as far as it has been told.
    pub(crate) fn me(&self) -> Option<StartId> {
        self.standing.as_ref().map(|(_, me)| *me)
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

    fn wait(&mut self, envelope: Envelope, until: u64, now_ms: u64) {
        let slot = slot_of(&envelope.key);
        *self.slots.entry(slot).or_default() += 1;
        self.waiting.push_back(Waiting {
            slot,
            until,
            envelope,
        });
        self.again_at.get_or_insert(now_ms + AGAIN_MS);
    }

    /// This worker took slots up. What waits is to be looked at.
    pub(crate) fn took_up(&mut self) {
        self.again_at = Some(0);
    }

    /// Whether something waits for this slot, so that nothing may overtake it.
    pub(crate) fn holds_back(&self, slot: u16) -> bool {
        !self.slots.is_empty() && self.slots.contains_key(&slot)
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
        self.put(envelope, now_ms + WAITS_MS, now_ms)
    }

    fn put(&mut self, envelope: Envelope, until: u64, now_ms: u64) -> Option<Reply> {
        if let Key::Node(node) = envelope.key {
            if !self.is_member(node) {
                return Some(envelope.reply);
            }
            self.send_on(node, envelope, until);
            return None;
        }
        let slot = slot_of(&envelope.key);
        let place = match self.slots.contains_key(&slot) {
            true => Place::Nobody,
            false => self.place(slot),
        };
        match place {
            Place::Node(node) => {
                self.send_on(node, envelope, until);
                None
            }
            Place::Nobody if self.waiting.len() < WAITING => {
                self.wait(envelope, until, now_ms);
                None
            }
            Place::Nobody => Some(envelope.reply),
        }
    }

    fn send_on(&mut self, node: StartId, envelope: Envelope, until: u64) {
        let Envelope {
            key,
            command,
            mut reply,
        } = envelope;
        if let ReplyTo::Peer { node, id } = reply.0 {
            // It was sent here by a view that is not this node's: its sender looks again.
            drop(reply.take());
            self.answer(node, id, PeerAnswer::Moved);
            return;
        }
        let view = self.standing.as_ref().map_or(0, |(standing, _)| standing.number);
        let id = match reply.is_nobody() {
            true => 0,
            false => {
                self.last += 1;
                u64::from(self.worker) << NUMBER_BITS | self.last
            }
        };
        let request = PeerRequest {
            id,
            view,
            key: key.clone(),
            command: command.clone(),
        };
        if id != 0 {
            let asked = Asked {
                node,
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
        let asked = self.asked.remove(&id)?;
        match answer {
            PeerAnswer::Answer(answer) => Some((asked.reply, answer)),
            // That start is over.
            PeerAnswer::Moved if matches!(asked.key, Key::Node(_)) => {
                Some((asked.reply, Refusal::unavailable().into()))
            }
            PeerAnswer::Moved => {
                let Asked {
                    key,
                    command,
                    reply,
                    until,
                    ..
                } = asked;
                // It waits even if the map still names that node: one of the two is behind.
                self.wait(Envelope { key, command, reply }, until, now_ms);
                None
            }
        }
    }

    /// An answer of this worker to another node.
    pub(crate) fn answer(&mut self, node: StartId, id: u64, answer: PeerAnswer) {
        self.answers.entry(node).or_default().push((id, answer));
    }

    /// What waits is looked at if it is time; `held`: whether this worker holds a slot.
    pub(crate) fn look(&mut self, now_ms: u64, held: impl Fn(u16) -> bool) -> Vec<Went> {
        if self.again_at.is_none_or(|at| now_ms < at) {
            return Vec::new();
        }
        self.again_at = None;
        let mut went = Vec::new();
        let waiting = std::mem::take(&mut self.waiting);
        self.slots.clear();
        for Waiting {
            slot,
            until,
            envelope,
        } in waiting
        {
            if now_ms >= until {
                went.push(Went::Refused(envelope.reply));
            } else if held(slot) {
                went.push(Went::Here(envelope));
            } else if let Some(reply) = self.put(envelope, until, now_ms) {
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
