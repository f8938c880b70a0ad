//! What many connections need at once — to be let in, to subscribe, their ends, their deadlines — a part a turn, so that the others
//! are served in between; and which connections are between their CONNECT and their home.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use godwit_cluster::Cx;
use godwit_wire::ids::{Key, UserId};

use super::conn::Arrival;
use super::transport::Transport;
use super::{Net, Up};
use crate::codec::reason;
use crate::part::Part;
use crate::wire_trait::ConnId;

/// Connections of homes whose other side has gone that are ended in a turn, and as many among what is read in it: each
/// costs 20 to 50 µs with the rows of its session and its will.
pub(super) const ENDS: usize = 16;
/// Deadlines looked at in a turn. Most have moved; one that has come costs as much as an end.
pub(super) const LOOKS: usize = 128;
/// What of those that are not let in yet is read in a turn, in reads of a piece, 5 to 15 µs each.
pub(super) const STRANGERS: usize = 64;
/// And what a step of a handshake of TLS counts for, or a whole CONNECT: with its home, which is loaded, and its rows it costs 50 to 150 µs here and at the user's
/// worker. So a turn lets 8 in, and a worker some 10,000 a second while it does nothing else.
pub(super) const OF_A_CONNECT: usize = 8;
/// And the time for them: on a busy machine each may cost many times that.
const NEWCOMERS: Duration = Duration::from_micros(400);
/// SUBSCRIBEs and UNSUBSCRIBEs that are taken as they come in a turn, and as many of those that wait: each stores rows, and goes to homes
/// of topics.
pub(super) const SUBSCRIBES: usize = 8;
/// And how many may be unanswered: other workers have them in their inboxes, before what others ask. At 5 ms each a worker
/// does 12,000 a second.
pub(super) const SUBSCRIBING: usize = 64;
/// Clients at most that are with their home and have no CONNACK yet: what one commit answers is done in one turn, some 50 µs each, and all others'
/// messages wait for it. At 5 ms a commit a worker lets in 6,000 a second.
pub(super) const ENTERING: usize = 32;
/// The same where the store answers each by itself, so that they are spread over turns, but later.
pub(super) const ENTERING_BY_ITSELF: usize = 6 * ENTERING;
/// Ticks for which there were as many all the while, from which on twice as many may be: then it is not this worker that is busy, but a store that
/// stands still or a node that does not answer, and who asks nothing of those is not to wait for them.
const STUCK: u32 = 2;

/// What is under way at homes, of a kind of which there may be so many at a time.
struct UnderWay {
    now: usize,
    usual: usize,
    /// [`Self::usual`], doubled each time that nothing moved. It is that again once fewer are under way.
    most: usize,
    /// The tick since which there are as many as may be.
    full_since: Option<u32>,
}

impl UnderWay {
    fn at_most(most: usize) -> Self {
        Self {
            now: 0,
            usual: most,
            most,
            full_since: None,
        }
    }

    fn has_room(&mut self, tick: u32) -> bool {
        if self
            .full_since
            .is_some_and(|since| tick.saturating_sub(since) >= STUCK)
        {
            self.most = self.most.saturating_mul(2);
            self.full_since = None;
        }
        self.now < self.most
    }

    fn begins(&mut self, tick: u32) {
        self.now += 1;
        if self.now >= self.most {
            self.full_since.get_or_insert(tick);
        }
    }

    fn ended(&mut self, count: usize) {
        self.now = self.now.saturating_sub(count);
        if self.now < self.most {
            self.full_since = None;
        }
        if self.now < self.usual {
            self.most = self.usual;
        }
    }
}

/// What waits for a later turn. A connection is in each as often as once at most, or its entry is void.
pub(super) struct Later {
    /// The other side has gone.
    ends: VecDeque<ConnId>,
    /// Deadlines that have come, each with its tick.
    looks: VecDeque<(u32, ConnId)>,
    /// Ended in this turn.
    ended: usize,
    /// Not let in yet, and to be read. None is in it twice.
    pub(super) strangers: VecDeque<ConnId>,
    /// Whose next packet is a SUBSCRIBE that waits for its turn: they are not read.
    in_line: VecDeque<ConnId>,
    /// SUBSCRIBEs taken in this turn.
    subscribes: usize,
    /// And those that are not answered, of connections that there are.
    subscribing: UnderWay,
    /// Known clients that wait to be given to their home, in the order in which they came; their arrival is kept.
    at_door: VecDeque<ConnId>,
    /// And those that were and have no answer, of connections that there are.
    entering: UnderWay,
    /// There is more to accept.
    pub(super) accepts: bool,
    /// CONNECTs taken in this turn.
    pub(super) connects: usize,
}

impl Default for Later {
    fn default() -> Self {
        Self {
            ends: VecDeque::new(),
            looks: VecDeque::new(),
            ended: 0,
            strangers: VecDeque::new(),
            in_line: VecDeque::new(),
            subscribes: 0,
            subscribing: UnderWay::at_most(SUBSCRIBING),
            at_door: VecDeque::new(),
            entering: UnderWay::at_most(ENTERING),
            accepts: false,
            connects: 0,
        }
    }
}

impl Later {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.looks.is_empty()
    }

    /// Whether there is more for the next turn that need not wait for time to pass.
    pub(super) fn has_lines(&mut self, now: u32) -> bool {
        let may_subscribe = !self.in_line.is_empty() && self.subscribing.has_room(now);
        let may_enter = !self.at_door.is_empty() && self.entering.has_room(now);
        !self.strangers.is_empty() || may_subscribe || may_enter || self.accepts
    }

    /// How the worker's store answers.
    pub(super) fn store_is(&mut self, totally_ordered: bool) {
        if !totally_ordered {
            self.entering = UnderWay::at_most(ENTERING_BY_ITSELF);
        }
    }

    /// Whether a SUBSCRIBE may be taken now.
    fn takes_subscribe(&mut self, now: u32) -> bool {
        self.subscribes < SUBSCRIBES && self.subscribing.has_room(now)
    }

    /// What a connection has under way at homes is answered, or will not be.
    pub(super) fn answered(&mut self, unanswered: Unanswered) {
        self.subscribing.ended(usize::from(unanswered.subscribes));
        self.entering.ended(usize::from(unanswered.connect));
    }

    pub(super) fn put_looks(&mut self, tick: u32, ids: Vec<ConnId>) {
        self.looks.extend(ids.into_iter().map(|id| (tick, id)));
    }
}

/// What a connection has under way at homes.
#[derive(Clone, Copy, Default)]
pub(super) struct Unanswered {
    /// SUBSCRIBEs and UNSUBSCRIBEs.
    pub(super) subscribes: u16,
    /// Its CONNECT.
    pub(super) connect: bool,
}

/// Connections whose arrival is kept, by user: what befalls a user finds them without a look at all others.
#[derive(Default)]
pub(super) struct Arriving(BTreeSet<(UserId, ConnId)>);

impl Arriving {
    pub(super) fn of(&self, user: UserId) -> Vec<ConnId> {
        let first = ConnId {
            index: 0,
            generation: 0,
        };
        let from = self.0.range((user, first)..);
        from.take_while(|(of, _)| *of == user)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Those of users in these shards.
    pub(super) fn of_shards(&self, shards: &HashSet<u16>) -> Vec<(UserId, ConnId)> {
        let all = self.0.iter().copied();
        all.filter(|(user, _)| shards.contains(&Key::User(*user).shard()))
            .collect()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn forget(&mut self, id: ConnId, arrival: &Arrival) {
        self.0.remove(&(arrival.user, id));
    }
}

impl Net {
    /// Keeps what is known of a client until its CONNACK.
    pub(super) fn keep_arrival(&mut self, id: ConnId, arrival: Box<Arrival>) {
        let user = arrival.user;
        if let Some(conn) = self.get(id) {
            conn.arrival = Some(arrival);
            self.arriving.0.insert((user, id));
        }
    }

    pub(super) fn take_arrival(&mut self, id: ConnId) -> Option<Box<Arrival>> {
        let arrival = self.get(id)?.arrival.take()?;
        self.arriving.forget(id, &arrival);
        Some(arrival)
    }

    /// The home of a connection that waits at the door could not be loaded.
    pub(crate) fn not_entered(&mut self, user: UserId) {
        for id in self.arriving.of(user) {
            self.refuse(id, reason::SERVER_UNAVAILABLE);
        }
    }

    /// The other side of a connection has gone. In a turn in which many go the rest waits.
    pub(super) fn left(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let many = self.later.ended >= ENDS;
        let Some(conn) = self.get(id) else { return };
        if !conn.owned || !many {
            self.later.ended += usize::from(conn.owned);
            self.said_all(cx, id, up);
        } else {
            // Nothing is there to be read.
            conn.unread = false;
            self.later.ends.push_back(id);
        }
    }

    /// The end of a turn: the next of them.
    pub(super) fn go_on_later_ones(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        self.later.ended = 0;
        for _ in 0..ENDS {
            let Some(id) = self.later.ends.pop_front() else {
                break;
            };
            self.said_all(cx, id, up);
        }
        self.look_at_some(cx, up);
    }

    /// A connection's next packet is a SUBSCRIBE. `false`: it waits for its turn, and what is behind it.
    pub(super) fn may_subscribe(&mut self, id: ConnId) -> bool {
        let now = self.now;
        let may = self.later.takes_subscribe(now);
        let Some(conn) = self.get(id) else { return true };
        conn.in_line = !may;
        let subscribes = &mut conn.unanswered.subscribes;
        *subscribes = subscribes.saturating_add(u16::from(may));
        if may {
            self.later.subscribes += 1;
            self.later.subscribing.begins(now);
        } else {
            self.later.in_line.push_back(id);
        }
        may
    }

    /// A SUBSCRIBE was answered.
    pub(super) fn has_subscribed(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id)
            && conn.unanswered.subscribes > 0
        {
            conn.unanswered.subscribes -= 1;
            self.later.subscribing.ended(1);
        }
    }

    /// A client is known, and its home holds what it needs. `false`: it waits for its turn, its arrival being kept.
    pub(super) fn may_enter(&mut self, id: ConnId) -> bool {
        let may = self.later.at_door.is_empty() && self.later.entering.has_room(self.now);
        if may {
            self.enters(id);
        } else {
            self.later.at_door.push_back(id);
        }
        may
    }

    fn enters(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = self.get(id) else { return };
        if !std::mem::replace(&mut conn.unanswered.connect, true) {
            self.later.entering.begins(now);
        }
    }

    /// Its turn has come to be given to its home, which may have gone meanwhile.
    pub(super) fn enter_home(&mut self, cx: &mut Cx<'_>, id: ConnId, mut arrival: Box<Arrival>) {
        let key = Key::User(arrival.user);
        if !cx.holds(&key) {
            self.waits_no_more(id);
            self.elsewhere(cx, id, arrival);
            return;
        }
        // The home needs none of them.
        arrival.connect.password = None;
        arrival.connect.username = None;
        arrival.raw = None;
        self.keep_arrival(id, arrival);
        cx.enter(key, Part::Net.tag(id.to_tag()));
    }

    /// A client was let in, or refused.
    pub(super) fn has_entered(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id)
            && std::mem::take(&mut conn.unanswered.connect)
        {
            self.later.entering.ended(1);
        }
    }

    /// Nothing that a connection has under way is waited for any more.
    pub(super) fn waits_no_more(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id) {
            let unanswered = std::mem::take(&mut conn.unanswered);
            self.later.answered(unanswered);
        }
    }

    /// The end of a turn: the next of those that are to be let in, and of those that subscribe.
    pub(super) fn go_on_lines(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        let mut read = 0;
        let begun = Instant::now();
        // Who has more to be read is behind the others.
        for _ in 0..self.later.strangers.len() {
            if read + self.later.connects * OF_A_CONNECT >= STRANGERS || begun.elapsed() >= NEWCOMERS {
                break;
            }
            let Some(id) = self.later.strangers.pop_front() else {
                break;
            };
            if let Some(conn) = self.get(id) {
                conn.queued = false;
                let is_dear = matches!(&conn.transport, Transport::Tls(stream) if stream.is_handshaking());
                read += if is_dear { OF_A_CONNECT } else { 1 };
                self.read(cx, id, up);
            }
        }
        self.later.connects = 0;
        self.later.subscribes = 0;
        for _ in 0..self.later.in_line.len().min(SUBSCRIBES) {
            if !self.later.takes_subscribe(self.now) {
                break;
            }
            let Some(id) = self.later.in_line.pop_front() else {
                break;
            };
            if let Some(conn) = self.get(id)
                && std::mem::take(&mut conn.in_line)
            {
                self.read(cx, id, up);
            }
        }
        self.later.subscribes = 0;
        while self.later.entering.has_room(self.now)
            && let Some(id) = self.later.at_door.pop_front()
        {
            // Who is to be told where to go waits for that.
            if !self.going.has(id)
                && let Some(arrival) = self.take_arrival(id)
            {
                self.enters(id);
                self.enter_home(cx, id, arrival);
            }
        }
    }

    /// The next deadlines that have come.
    pub(super) fn look_at_some(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        for _ in 0..LOOKS {
            let Some((tick, id)) = self.later.looks.pop_front() else {
                break;
            };
            if self.peek(id).is_some_and(|conn| conn.looked_at == tick) {
                self.look(cx, id, up);
            }
        }
    }
}
