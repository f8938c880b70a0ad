//! Connections that are to go elsewhere: their user's home has gone to another node, or they came by a node that leaves. They are
//! told so a few at a time, so that they do not all come back at once (docs/decisions/0011-many-nodes.md). Who has moved is the homes' to know.

use std::collections::{HashMap, HashSet, VecDeque};

use godwit_cluster::Cx;
use godwit_wire::ids::{Key, UserId};

use super::conn::Stage;
use super::relay::NEVER;
use super::transport::Transport;
use super::{Net, Up};
use crate::codec::reason;
use crate::packet::Outgoing;
use crate::part::Part;
use crate::wire_trait::{CloseReason, ConnId};

/// Connections told to go in a turn.
const TOLD_A_TURN: usize = 50;
/// Between two such turns, milliseconds: these and up to as many more at random, 2,000 connections a second and worker. What a node
/// can take in that its neighbour gives away, beside its own clients.
const PAUSE_MS: u64 = 16;
const JITTER_MS: u64 = 18;
/// Their timer: the tag of no connection.
pub(super) const TIMER_GOING: u64 = (1 << 54) - 6;

/// Who is to be told. Bounded by the connections that there are.
#[derive(Default)]
pub(super) struct Going {
    all: HashMap<ConnId, Goer>,
    /// Whose client waits for an answer, or has said something since: in order. What is not in `all` any more is void, here and in
    /// `rest`.
    first: VecDeque<ConnId>,
    /// All others, and some of the first: any of them is the next.
    rest: Vec<ConnId>,
    timer: bool,
    random: u64,
}

/// A connection that is to be told.
struct Goer {
    /// Whose it was; nobody's if its home is here and serves it until then.
    user: Option<UserId>,
    is_first: bool,
}

impl Going {
    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether a connection is to be told.
    pub(super) fn has(&self, id: ConnId) -> bool {
        !self.all.is_empty() && self.all.contains_key(&id)
    }

    /// Whether it is new.
    fn put(&mut self, id: ConnId, user: Option<UserId>, is_first: bool) -> bool {
        let goer = Goer { user, is_first };
        // One that was served and has lost its home meanwhile keeps its place.
        if self.all.insert(id, goer).is_some() {
            return false;
        }
        match is_first {
            true => self.first.push_back(id),
            false => self.rest.push(id),
        }
        true
    }

    fn hurry(&mut self, id: ConnId) {
        if let Some(goer) = self.all.get_mut(&id)
            && !std::mem::replace(&mut goer.is_first, true)
        {
            self.first.push_back(id);
        }
    }

    /// Below `below`, which is not 0. Not for secrets: it spreads clients in time.
    fn random(&mut self, below: usize) -> usize {
        // Knuth's constants; the upper bits are the good ones.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    fn next(&mut self) -> Option<(ConnId, Goer)> {
        loop {
            let id = match self.first.pop_front() {
                Some(first) => first,
                None if self.rest.is_empty() => return None,
                None => {
                    let at = self.random(self.rest.len());
                    self.rest.swap_remove(at)
                }
            };
            if let Some(goer) = self.all.remove(&id) {
                return Some((id, goer));
            }
        }
    }
}

impl Net {
    /// What [`Wire::moved`](crate::wire_trait::Wire::moved) says.
    pub(super) fn home_moved(&mut self, id: ConnId, user: UserId, waits: bool) {
        let Some(conn) = self.get(id) else { return };
        conn.owned = false;
        self.waits_no_more(id);
        let Some(conn) = self.get(id) else { return };
        match conn.stage {
            Stage::Closing => return,
            Stage::Open => {
                conn.stage = Stage::Orphan;
                conn.until = NEVER;
                // Nobody answers it any more; whoever it goes to gets it again.
                conn.input = Vec::new();
                conn.unread = false;
            }
            // It has no CONNACK yet, and hears where to go in that.
            _ => {}
        }
        self.goes(id, Some(user), waits);
    }

    /// These shards are another node's. Who was about to be let in to one of them is told where to.
    pub(crate) fn given_up(&mut self, lost: &HashSet<u16>) {
        for (user, id) in self.arriving.of_shards(lost) {
            let arrival = self.peek(id).and_then(|conn| conn.arrival.as_deref());
            // Of the others the accounts are asked, whose word that they know nothing any more comes back.
            if arrival.is_some_and(|arrival| arrival.principal.is_some()) {
                self.goes(id, Some(user), true);
            }
        }
    }

    fn goes(&mut self, id: ConnId, user: Option<UserId>, is_first: bool) {
        if self.going.put(id, user, is_first) {
            self.metrics.going.inc();
        }
    }

    /// A connection without a home says something: it waits for an answer, and is told before those that are silent.
    pub(super) fn orphan_speaks(&mut self, id: ConnId) {
        let Some(conn) = self.get(id) else { return };
        if conn.ended {
            self.count_end(id, "gone");
            self.remove(None, id);
        } else if std::mem::take(&mut conn.unread) {
            self.going.hurry(id);
        }
    }

    /// Nothing more comes from a client. If it came by a node that leaves, that one may have ended before all were told: this one is, behind
    /// what was on its way.
    pub(super) fn said_all(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let leaves = self.peek(id).is_some_and(|conn| match &conn.transport {
            Transport::Spliced(spliced) => conn.stage == Stage::Open && !cx.stays(spliced.from),
            _ => false,
        });
        if leaves {
            let goer = Goer {
                user: None,
                is_first: true,
            };
            self.tell_to_go(cx, id, &goer, up);
        } else {
            self.gone(cx, id, CloseReason::Gone, up);
        }
    }

    /// Nodes have come or go: who came by one that leaves, or is no member any more, is served until it is told.
    pub(crate) fn stands(&mut self, cx: &Cx<'_>) {
        if self.metrics.spliced_home.get() == 0 {
            return;
        }
        for index in 0..self.slots.len() {
            let Some(id) = self.in_slot(index) else { continue };
            let Some(conn) = self.peek(id) else { continue };
            if let Transport::Spliced(spliced) = &conn.transport
                && conn.stage == Stage::Open
                && !cx.stays(spliced.from)
                && !self.going.has(id)
            {
                self.goes(id, None, false);
            }
        }
    }

    /// The end of a turn: begins with those that are new.
    pub(super) fn send_some_away(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        if !self.going.is_empty() && !self.going.timer {
            self.send_next_away(cx, up);
        }
    }

    /// Tells the next ones, and comes back for the others.
    pub(super) fn send_next_away(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        self.going.random ^= cx.now().unix_ms ^ u64::from(cx.worker()) << 48;
        let told = self.send_away(cx, TOLD_A_TURN, up);
        self.going.timer = told > 0 || !self.going.is_empty();
        if self.going.timer {
            let jitter = self.going.random(JITTER_MS as usize) as u64;
            cx.after(PAUSE_MS + jitter, Part::Net.tag(TIMER_GOING));
        }
    }

    /// Tells so many, and says how many there were.
    pub(super) fn send_away(&mut self, cx: &mut Cx<'_>, most: usize, up: &mut Up<'_>) -> usize {
        let mut told = 0;
        while told < most
            && let Some((id, goer)) = self.going.next()
        {
            self.metrics.going.dec();
            told += usize::from(self.tell_to_go(cx, id, &goer, up));
        }
        told
    }

    /// Whether it was there to be told.
    fn tell_to_go(&mut self, cx: &mut Cx<'_>, id: ConnId, goer: &Goer, up: &mut Up<'_>) -> bool {
        let Some(stage) = self.peek(id).map(|conn| conn.stage) else {
            return false;
        };
        let reference = match goer.user {
            Some(user) => cx.reference_of(&Key::User(user)),
            None => cx.own_reference(),
        };
        match stage {
            Stage::Closing => return false,
            Stage::Open | Stage::Orphan => {}
            _ => {
                self.refuse_elsewhere(id, reference);
                return true;
            }
        }
        let reference = reference.or_else(|| self.config.server_reference.clone());
        let last = match reference {
            Some(server) => Outgoing::Elsewhere(server),
            None => Outgoing::Disconnect(reason::SHUTTING_DOWN, Vec::new()),
        };
        self.end(cx, id, CloseReason::Moved, Some(&last), up);
        true
    }
}
