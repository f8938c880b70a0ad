//! A connection whose user's home is on another node, where its client came: CONNECT goes there as it came, and then the bytes of
//! both sides, which are not looked at (docs/decisions/0011-many-nodes.md). The home's end is in `spliced`; how it ends, in `relay_ends`.

use std::io::{self, ErrorKind, Read as _};
use std::sync::Arc;

use godwit_cluster::{Cx, Pipe};
use godwit_wire::ids::{Key, UserId};
use godwit_wire::limits::PACKET_BYTES;

use super::conn::{Arrival, Conn, Stage};
use super::spliced::{Counted, about};
use super::transport::Transport;
use super::{LINGER_SECONDS, Net, SLOW_SECONDS, TICKS, Up};
use crate::codec::{self, Frame, kind, reason};
use crate::packet::{Connack, Outgoing};
use crate::wire_trait::{ConnId, Wire as _};

/// How long a connection waits at the door for its user's home to be somebody's, or to be reached, and to answer: longer
/// than a failover takes (some 6 s), shorter than clients wait for their CONNACK.
const WAITS_SECONDS: u32 = if cfg!(test) { 2 } else { 8 };
/// Most that wait so at a worker; further ones are turned away at once.
const WAITING: usize = 16 * 1024;
/// Of which so many are tried in a quarter of a second: a shard's clients come back together.
const TRIES_A_TICK: usize = 1_024;
/// Bytes taken from one side at a time; what the other does not take of them is kept, and no more is taken.
const CHUNK: usize = 16 << 10;
/// Such in a turn and direction, before other connections have theirs.
const CHUNKS_A_TURN: usize = 4;
/// The deadline of a connection that has none.
pub(super) const NEVER: u32 = u32::MAX;

/// What a connection has that is passed on.
pub(super) struct Relay {
    pub(super) user: UserId,
    pub(super) pipe: Box<dyn Pipe>,
    /// The home has said something. Before that nothing but the CONNECT goes there, so that it can go elsewhere.
    pub(super) is_open: bool,
    /// It has said something else than AUTH: what the client says is bounded by it from then on, not by frames.
    has_answered: bool,
    /// The pipe may have something.
    pub(super) unread: bool,
    /// Nothing more comes from the client, or nothing more of it is taken.
    pub(super) client_ended: bool,
    /// The client has ended it by itself.
    pub(super) has_left: bool,
    /// The home was told so.
    pub(super) is_shut: bool,
    /// The home takes no more.
    home_ended: bool,
    _counted: Counted,
}

/// What became of a turn.
enum Pumped {
    /// All that can be done now.
    Rests,
    /// There is more.
    More,
    /// The home has said all, and the client has it.
    Over,
    /// The way to the home broke.
    Broken,
    /// The client is gone.
    Gone,
}

impl Conn {
    pub(super) fn relay(&mut self) -> Option<&mut Relay> {
        self.special.as_deref_mut()?.relay.as_deref_mut()
    }

    pub(super) fn end_relay(&mut self) {
        if let Some(special) = self.special.as_deref_mut() {
            special.relay = None;
        }
    }
}

impl Net {
    /// The user's home is not on this node, or not yet: the connection is passed on, or waits for that.
    pub(super) fn elsewhere(&mut self, cx: &mut Cx<'_>, id: ConnId, mut arrival: Box<Arrival>) {
        let Some(conn) = self.get(id) else { return };
        if let Transport::Spliced(_) = conn.transport {
            if cx.awaits(&Key::User(arrival.user)) && self.wanting.len() < WAITING {
                self.keep_arrival(id, arrival);
                self.want_home(id);
            } else {
                // The node where it came looks again who holds it.
                self.drop_silently(id, "moved");
            }
            return;
        }
        if cx.me().is_some_and(|me| !cx.stays(me)) {
            // This node leaves: who were passed on now would be told to go in a moment.
            self.refuse_elsewhere(id, cx.reference_of(&Key::User(arrival.user)));
            return;
        }
        let Some(raw) = arrival.raw.as_deref() else {
            self.refuse_elsewhere(id, cx.reference_of(&Key::User(arrival.user)));
            return;
        };
        let certified = conn.transport.certified().flatten();
        let key = Key::User(arrival.user);
        let pipe = cx.splice(&key, about(&arrival, certified)).and_then(|mut pipe| {
            match pipe.write(raw)? == raw.len() {
                true => Ok(pipe),
                false => Err(ErrorKind::WouldBlock.into()),
            }
        });
        let is_first = !std::mem::replace(&mut arrival.awaited, true);
        self.keep_arrival(id, arrival);
        match pipe {
            Ok(pipe) => self.pass_on(cx, id, pipe),
            Err(_) if self.wanting.len() >= WAITING => {
                self.refuse_elsewhere(id, cx.reference_of(&key));
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "a client waits for its user's home");
                self.metrics.awaited_home.inc_by(u64::from(is_first));
                self.want_home(id);
            }
        }
        if is_first {
            let until = self.now + WAITS_SECONDS * TICKS + 1;
            if let Some(conn) = self.get(id) {
                conn.until = until;
            }
            self.look_at(id, until);
        }
    }

    /// Its home is looked for again in the next tick.
    fn want_home(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id) {
            conn.stage = Stage::Waiting;
            self.wanting.push_back(id);
        }
    }

    /// Tries again those whose home was nobody's, or out of reach.
    pub(crate) fn look_for_homes(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..self.wanting.len().min(TRIES_A_TICK) {
            let Some(id) = self.wanting.pop_front() else {
                return;
            };
            match self.get(id) {
                Some(conn) if conn.stage == Stage::Waiting => conn.stage = Stage::Judging,
                _ => continue,
            }
            if self.has_given_up(id) {
                self.metrics.count_closed("gone");
                self.remove(None, id);
                continue;
            }
            if let Some(arrival) = self.take_arrival(id) {
                self.judge(cx, id, arrival);
            }
        }
    }

    /// Whether the client has gone without an answer to its CONNECT, and has said nothing behind it: then it is not to be let in, where it would put out the
    /// connection that its client has made since. What it has said is kept for its home.
    fn has_given_up(&mut self, id: ConnId) -> bool {
        let mut chunk = [0; 512];
        let Some(conn) = self.get(id).filter(|conn| conn.ended && conn.input.is_empty()) else {
            return false;
        };
        match conn.transport.read(&mut chunk) {
            Ok(len) if len > 0 => {
                conn.input.extend_from_slice(chunk.get(..len).unwrap_or_default());
                false
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => false,
            _ => true,
        }
    }

    /// Its time at the door is over.
    pub(super) fn waited_too_long(&mut self, cx: &Cx<'_>, id: ConnId) {
        let user = self
            .peek(id)
            .and_then(|conn| conn.arrival.as_deref())
            .map(|of| of.user);
        let reference = user.and_then(|user| cx.reference_of(&Key::User(user)));
        self.refuse_elsewhere(id, reference);
    }

    /// The user's home is on another node, reached there; or nobody knows where.
    pub(super) fn refuse_elsewhere(&mut self, id: ConnId, reference: Option<Arc<str>>) {
        self.metrics.count_refused("elsewhere");
        let connack = Connack {
            reason: match reference {
                Some(_) => reason::USE_ANOTHER_SERVER,
                None => reason::SERVER_UNAVAILABLE,
            },
            server_reference: reference,
            ..Connack::default()
        };
        self.close(id, Some(Outgoing::Connack(Box::new(connack))));
    }

    fn pass_on(&mut self, cx: &Cx<'_>, id: ConnId, pipe: Box<dyn Pipe>) {
        let on_ready = self.signal(cx, id);
        let counted = Counted::of(&self.metrics.spliced_here);
        let Some(conn) = self.get(id) else { return };
        let Some(arrival) = conn.arrival.as_deref() else {
            return;
        };
        let (user, raw) = (arrival.user, arrival.raw.as_deref().map_or(0, <[u8]>::len));
        conn.stage = Stage::Relay;
        let mut relay = Relay {
            user,
            pipe,
            is_open: false,
            has_answered: false,
            unread: false,
            client_ended: false,
            has_left: false,
            is_shut: false,
            home_ended: false,
            _counted: counted,
        };
        relay.pipe.on_ready(on_ready);
        conn.special.get_or_insert_default().relay = Some(Box::new(relay));
        self.metrics.spliced_bytes_in.inc_by(raw as u64);
    }

    /// Moves what can be moved now, both ways.
    pub(super) fn pump(&mut self, id: ConnId, up: &mut Up<'_>) {
        // The home is another's: nothing of it goes up.
        let _ = up;
        let mut scratch = std::mem::take(&mut self.scratch);
        let chunk = scratch.get_mut(..CHUNK).unwrap_or_default();
        let pumped = match self.feed_client(id, chunk) {
            Pumped::Rests => self.feed_home(id, chunk),
            Pumped::More => match self.feed_home(id, chunk) {
                Pumped::Rests => Pumped::More,
                other => other,
            },
            other => other,
        };
        self.scratch = scratch;
        let is_open = self
            .get(id)
            .and_then(Conn::relay)
            .is_some_and(|relay| relay.is_open);
        let pumped = match !is_open && self.has_given_up(id) {
            true => Pumped::Gone,
            false => pumped,
        };
        match pumped {
            Pumped::Rests => {}
            Pumped::More => self.queue(id),
            // Nothing was said: it may be another's by now.
            Pumped::Over | Pumped::Broken if !is_open => {
                if let Some(conn) = self.get(id) {
                    conn.end_relay();
                }
                self.want_home(id);
            }
            Pumped::Over => self.end_relayed(id, "home_ended"),
            Pumped::Broken => self.end_relayed(id, "link"),
            Pumped::Gone => {
                self.metrics.count_closed("gone");
                self.remove(None, id);
            }
        }
    }

    fn feed_client(&mut self, id: ConnId, chunk: &mut [u8]) -> Pumped {
        for _ in 0..CHUNKS_A_TURN {
            if !self.write_out(id) {
                return Pumped::Gone;
            }
            let (now, spare) = (self.now, self.spare.pop());
            let Some(conn) = self.get(id) else {
                return Pumped::Rests;
            };
            let is_taken = conn.out.is_empty();
            let Conn {
                special, out, until, ..
            } = conn;
            let Some(relay) = special.as_deref_mut().and_then(|of| of.relay.as_deref_mut()) else {
                return Pumped::Rests;
            };
            // Whoever takes nothing may not hold what the home has given up for ever.
            let asked = if relay.is_shut {
                Ok(0)
            } else {
                relay.pipe.write(&[])
            };
            let home_ended = matches!(asked, Err(error) if error.kind() == ErrorKind::BrokenPipe);
            let has_just_ended = home_ended && !std::mem::replace(&mut relay.home_ended, true);
            let read = match is_taken && relay.unread {
                true => relay.pipe.read(chunk),
                false => Err(ErrorKind::WouldBlock.into()),
            };
            if is_taken && matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock) {
                relay.unread = false;
            }
            let has_just_ended = has_just_ended && relay.is_open;
            if has_just_ended {
                *until = now + u32::from(SLOW_SECONDS) * TICKS;
            }
            let until = *until;
            let read = match read {
                Ok(0) => return Pumped::Over,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.give_back(spare.unwrap_or_default());
                    if has_just_ended {
                        self.look_at(id, until);
                    }
                    return Pumped::Rests;
                }
                Err(_) => return Pumped::Broken,
            };
            let bytes = chunk.get(..read).unwrap_or_default();
            if let Some(spare) = spare {
                *out = spare;
            }
            out.extend_from_slice(bytes);
            let is_first = !std::mem::replace(&mut relay.is_open, true);
            let answers = !relay.has_answered && has_answer(bytes);
            relay.has_answered |= answers;
            self.metrics.spliced_bytes_out.inc_by(read as u64);
            if is_first {
                self.opened_at_home(id);
            }
            if answers && let Some(conn) = self.get(id) {
                conn.transport.let_in();
            }
            if has_just_ended {
                self.look_at(id, until);
            }
        }
        match self.write_out(id) {
            false => Pumped::Gone,
            true => match self.peek(id).is_some_and(|conn| conn.out.is_empty()) {
                true => Pumped::More,
                false => Pumped::Rests,
            },
        }
    }

    /// The home has said its first word: the rest of what the client says goes there too.
    fn opened_at_home(&mut self, id: ConnId) {
        drop(self.take_arrival(id));
        let Some(conn) = self.get(id) else { return };
        if conn.relay().is_none_or(|relay| !relay.home_ended) {
            conn.until = NEVER;
        }
        conn.unread = true;
        if let Some(special) = conn.special.as_deref_mut() {
            special.auth = None;
        }
        conn.transport.probe();
    }

    fn feed_home(&mut self, id: ConnId, chunk: &mut [u8]) -> Pumped {
        let now = self.now;
        let mut pumped = Pumped::More;
        let mut bytes_in = 0;
        let Some(conn) = self.get(id) else {
            return Pumped::Rests;
        };
        let Conn {
            special,
            transport,
            input,
            unread,
            ended,
            until,
            ..
        } = conn;
        let Some(relay) = special.as_deref_mut().and_then(|of| of.relay.as_deref_mut()) else {
            return Pumped::Rests;
        };
        if !relay.is_open {
            return Pumped::Rests;
        }
        for _ in 0..CHUNKS_A_TURN {
            if !input.is_empty() {
                match relay.give(input) {
                    Ok(given) if given == input.len() => *input = Vec::new(),
                    Ok(given) => drop(input.drain(..given)),
                    Err(_) => return Pumped::Broken,
                }
            }
            if !input.is_empty() || relay.client_ended || !*unread {
                pumped = Pumped::Rests;
                break;
            }
            match transport.read(chunk) {
                Ok(len) if len > 0 => {
                    *unread = *ended || !transport.short_read_is_empty() || len == chunk.len();
                    bytes_in += len as u64;
                    input.extend_from_slice(chunk.get(..len).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => *unread = transport.cut(),
                _ => (relay.client_ended, relay.has_left) = (true, true),
            }
        }
        let ends = relay.client_ended && input.is_empty() && !relay.is_shut;
        if ends {
            relay.is_shut = true;
            relay.pipe.shutdown();
        }
        if relay.client_ended && *until == NEVER {
            *until = now + u32::from(LINGER_SECONDS) * TICKS;
            let until = *until;
            self.look_at(id, until);
        }
        self.tally.bytes_in += bytes_in;
        if bytes_in > 0 {
            self.metrics.spliced_bytes_in.inc_by(bytes_in);
        }
        pumped
    }
}

/// Whether something else than an AUTH is among what a home has said. Each AUTH is one write of it, far below a window, so
/// that it comes whole.
fn has_answer(mut bytes: &[u8]) -> bool {
    while let Some(first) = bytes.first() {
        if first >> 4 != kind::AUTH {
            return true;
        }
        bytes = match codec::frame(bytes, PACKET_BYTES) {
            Frame::Whole { len } => bytes.get(len..).unwrap_or_default(),
            _ => return false,
        };
    }
    false
}

impl Relay {
    /// Gives the home what it has window for. It takes no more when it has ended: then what is still said is nobody's.
    fn give(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.home_ended {
            return Ok(bytes.len());
        }
        match self.pipe.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            given => given,
        }
    }
}
