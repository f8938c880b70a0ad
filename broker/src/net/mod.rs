//! Sockets of one worker: who is connected, and the calls of the loop. Accepting is in `listen`, the time before CONNACK
//! in `door`, who has to go elsewhere in `going`, bytes to packets in `reading`, packets to bytes in `writing`, time in `deadlines`, TCP, TLS and WebSocket in
//! `transport`, connections whose home is on another node in `relay` and `spliced`. Packets go up as [`Event`]s; homes speak back through [`Wire`].

mod addresses;
mod alias;
mod auth;
mod conn;
mod deadlines;
mod door;
mod frame_head;
mod going;
mod lapsed;
mod listen;
mod metrics;
mod pace;
mod proxy;
mod reading;
mod relay;
mod relay_ends;
mod spliced;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod verify_again;
mod websocket;
mod writing;

/// What fuzzers reach of this part.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzed {
    pub(crate) const GREETING_BYTES: usize = super::GREETING_BYTES;
    pub(crate) use super::websocket::{Stream, WebSocketStream};
}

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use godwit_cluster::Cx;
use godwit_wire::account::Principal;
use godwit_wire::limits::PACKET_BYTES;

use crate::packet::Incoming;
use crate::part::Part;
use crate::wire_trait::{Closed, ConnId};
use addresses::Place;
pub use addresses::{AddressLimits, Addresses, TOLD};
use conn::{Conn, Stage};
use going::{Going, TIMER_GOING};
use lapsed::Lapse;
pub use listen::{Listener, NewConnection, NewTransport, StopListening};
pub use metrics::NetMetrics;
use metrics::Tally;
use pace::{Arriving, Later};
pub use proxy::{Announced, PROXY_V2_BYTES, Proxies, announced};
use spliced::Ready;
pub use spliced::spliced;
pub use tls::TlsSettings;
pub use verify_again::VerifyAgain;
use verify_again::Verifying;

/// Bytes read at a time, into a buffer that all connections of the worker share.
const SCRATCH: usize = 64 << 10;
/// Bytes kept for a connection from which on it is given no more PUBLISHes and not read.
const ROOM: usize = 256 << 10;
/// Bytes kept for a connection at which it is closed: answers to what was read and what was under way come on top of
/// [`ROOM`].
const KEPT_MOST: usize = (1 << 20) + PACKET_BYTES;
/// Bytes held for a connection before it is authenticated; a larger CONNECT is refused.
const GREETING_BYTES: usize = 16 << 10;
/// How long a connection that was told why it ends may take to close its side.
const LINGER_SECONDS: u8 = 2;
/// The same of one that took too little: it may still read what the operating system holds for it, PUBACKs among that.
const SLOW_SECONDS: u8 = 30;
/// Looks at deadlines in a second: one is met within the next quarter, which leaves three to a node that has thousands to
/// close at once (a second in all is promised). The worker's time is counted in these.
const TICKS: u32 = 4;
const TICK_MS: u64 = 1_000 / TICKS as u64;
/// Buffers kept for the next connections that write, and their size at most.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES: usize = 64 << 10;

/// Tokens of listeners; those of connections are below (60 bits).
const LISTENER_TOKENS: usize = 1 << 60;

const TIMER_TICK: u64 = (1 << 54) - 1;
const TIMER_ACCEPT: u64 = (1 << 54) - 2;
const TIMER_AGAIN: u64 = (1 << 54) - 3;
const TIMER_VERIFY: u64 = (1 << 54) - 4;

const _: () = assert!(
    GREETING_BYTES <= SCRATCH,
    "a CONNECT is read into the worker's buffer"
);
const _: () = assert!(
    ROOM + SCRATCH < KEPT_MOST,
    "who is given no more is not closed for it"
);

/// Connections a turn that are gone on with where they stopped, and pipes that are ready, which all come at once: 5 to 50 µs each.
const AGAIN: usize = 128;

/// How the doors of the broker are set up.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Clients without a user name are let in, to ordinary topics only.
    pub anonymous: bool,
    /// Most connections of all workers together; further ones are closed at once, or told where else to go if that is known
    /// (at most [`TOLD`] at a time). 0: no limit but the system's.
    pub max_connections: u32,
    /// Set while the node is at its bound on memory: further connections are told so (at most [`TOLD`] at a time) or closed at once.
    pub memory_full: Arc<AtomicBool>,
    /// Where clients of MQTT 5 are sent when the node ends or is full (Server Reference).
    pub server_reference: Option<Arc<str>>,
    /// Seconds from the first byte of TCP to a whole CONNECT and its CONNACK, what a balancer announces and the handshake
    /// of TLS included. A WebSocket's begin at its upgrade.
    pub connect_seconds: u32,
    /// What one address may: one table for all workers.
    pub addresses: Arc<Addresses>,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            anonymous: false,
            max_connections: 0,
            memory_full: Arc::default(),
            server_reference: None,
            connect_seconds: 5,
            addresses: Arc::default(),
        }
    }
}

/// What comes up from a connection.
pub(crate) enum Event {
    /// A packet of a connection that a home has.
    Packet(Incoming),
    /// A connection that a home has is gone.
    Closed(Closed),
    /// There is room again.
    Drained,
    /// The client has authenticated anew, as the same user: its rights and its credential from now on.
    Renewed(Principal),
}

/// Takes events while `Net` goes on.
pub(crate) type Up<'u> = dyn FnMut(&mut Cx<'_>, &mut Net, ConnId, Event) + 'u;

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Where its address is counted. Here, since it costs nothing beside the generation.
    place: Place,
    conn: Option<Box<Conn>>,
}

/// The sockets of one worker.
pub(crate) struct Net {
    config: NetConfig,
    metrics: NetMetrics,
    tally: Tally,
    slots: Vec<Slot>,
    free: Vec<u32>,
    listeners: Vec<listen::Open>,
    scratch: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// Have something to write.
    dirty: Vec<ConnId>,
    /// May have something to read without a further readiness. No connection is in it, or in `waiting`, twice.
    again: Vec<ConnId>,
    /// The same, when there is room behind again.
    waiting: Vec<ConnId>,
    again_timer: bool,
    later: Later,
    arriving: Arriving,
    /// Wait for their user's home; those that are gone meanwhile are void.
    wanting: VecDeque<ConnId>,
    /// Are to be told that they have to go elsewhere.
    going: Going,
    /// Pipes to other nodes that are ready, once there is one.
    pipes_ready: Option<Arc<Ready>>,
    /// Tick → connections whose deadline may be then.
    wheel: BTreeMap<u32, Vec<ConnId>>,
    /// Ticks of the worker's time, [`TICKS`] a second.
    now: u32,
    /// Seconds since 1970.
    unix: u32,
    accept_paused: bool,
    /// The listener that is first after a pause.
    first_listener: usize,
    verifying: Option<Verifying>,
    /// By whom certificates are judged since the last reload, if there was one.
    verifier: Option<std::sync::Arc<dyn rustls::server::danger::ClientCertVerifier>>,
    stopping: bool,
    lapse: Lapse,
}

impl Net {
    pub(crate) fn new(config: NetConfig, metrics: NetMetrics) -> Self {
        Self {
            config,
            metrics,
            tally: Tally::default(),
            slots: Vec::new(),
            free: Vec::new(),
            listeners: Vec::new(),
            scratch: vec![0; SCRATCH],
            spare: Vec::new(),
            dirty: Vec::new(),
            again: Vec::new(),
            waiting: Vec::new(),
            again_timer: false,
            later: Later::default(),
            arriving: Arriving::default(),
            wanting: VecDeque::new(),
            going: Going::default(),
            pipes_ready: None,
            wheel: BTreeMap::new(),
            now: 0,
            unix: 0,
            accept_paused: false,
            first_listener: 0,
            verifying: None,
            verifier: None,
            stopping: false,
            lapse: Lapse::default(),
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) {
        self.tell_time(cx);
        self.later.store_is(cx.totally_ordered());
        Self::await_tick(cx);
    }

    /// Ticks come at the beginning of their time, so that a deadline is met within it.
    fn await_tick(cx: &mut Cx<'_>) {
        cx.after(TICK_MS - cx.now().mono_ms % TICK_MS, Part::Net.tag(TIMER_TICK));
    }

    fn tell_time(&mut self, cx: &Cx<'_>) {
        let now = cx.now();
        // Ticks of 32 bits last for 34 years, seconds until 2106.
        self.now = (now.mono_ms / TICK_MS) as u32;
        self.unix = (now.unix_ms / 1_000) as u32;
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation {
            slot.conn.as_deref_mut()
        } else {
            None
        }
    }

    fn peek(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation {
            slot.conn.as_deref()
        } else {
            None
        }
    }

    /// The connection that is in a slot now.
    fn in_slot(&self, index: usize) -> Option<ConnId> {
        let slot = self.slots.get(index)?;
        slot.conn.as_ref()?;
        // `ConnId::to_tag` has room for 2^24 slots; there are fewer descriptors.
        Some(ConnId {
            index: index as u32,
            generation: slot.generation,
        })
    }

    /// The connection of a tag made by [`ConnId::to_tag`].
    fn of_tag(&self, tag: u64) -> Option<ConnId> {
        let id = self.in_slot((tag & 0x00ff_ffff) as usize)?;
        id.is_tag(tag).then_some(id)
    }

    /// The connection of a token made by [`token`].
    fn of_token(&self, token: mio::Token) -> Option<ConnId> {
        let id = self.in_slot(token.0 & 0xffff_ffff)?;
        (self::token(id) == token).then_some(id)
    }

    /// `None`: its socket cannot be watched, and it is gone.
    fn add(&mut self, cx: &Cx<'_>, mut conn: Box<Conn>, place: Place) -> Option<ConnId> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = self.slots.get_mut(index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        let id = ConnId {
            index,
            generation: slot.generation,
        };
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        if let Some(socket) = conn.transport.socket()
            && let Err(error) = cx.registry().register(socket, token(id), interest)
        {
            tracing::warn!(%error, "a connection could not be watched");
            self.free.push(index);
            self.config.addresses.left(place);
            return None;
        }
        (slot.conn, slot.place) = (Some(conn), place);
        self.metrics.connections.inc();
        self.config.addresses.opened(place);
        self.watch_pipe(cx, id);
        Some(id)
    }

    /// Takes a connection out; its socket closes when it is dropped. With `cx` it leaves this worker alive.
    fn remove(&mut self, cx: Option<&Cx<'_>>, id: ConnId) -> Option<Box<Conn>> {
        self.peek(id)?;
        let slot = self.slots.get_mut(id.index as usize)?;
        let mut conn = slot.conn.take()?;
        let place = std::mem::take(&mut slot.place);
        if let Some(arrival) = &conn.arrival {
            self.arriving.forget(id, arrival);
        }
        self.later.answered(std::mem::take(&mut conn.unanswered));
        if cx.is_none() {
            self.config.addresses.left(place);
        }
        self.free.push(id.index);
        if let Some(cx) = cx
            && let Some(socket) = conn.transport.socket()
        {
            // Only a connection that moves to another worker must leave this one's poll; closing does so by itself.
            let _ = cx.registry().deregister(socket);
        }
        self.config.addresses.closes(place);
        self.metrics.connections.dec();
        if conn.counted > 0 {
            self.metrics.kept_bytes.dec_by(i64::from(conn.counted));
        }
        Some(conn)
    }

    /// A socket will not become readable again.
    pub(crate) fn io_ended(&mut self, token: mio::Token) {
        if let Some(id) = self.of_token(token)
            && let Some(conn) = self.get(id)
        {
            conn.ended = true;
        }
    }

    /// A socket is ready.
    pub(crate) fn io(
        &mut self,
        cx: &mut Cx<'_>,
        token: mio::Token,
        readable: bool,
        writable: bool,
        up: &mut Up<'_>,
    ) {
        self.tell_time(cx);
        if token.0 >= LISTENER_TOKENS {
            self.accept(cx, token.0 - LISTENER_TOKENS);
            return;
        }
        let Some(id) = self.of_token(token) else { return };
        if self.peek(id).is_some_and(|conn| conn.stage == Stage::Closing) {
            self.discard(id);
            return;
        }
        if writable {
            self.flush(cx, id, up);
        }
        if readable {
            let Some(conn) = self.get(id) else { return };
            conn.unread = true;
            if matches!(conn.stage, Stage::Greeting | Stage::Exchange) {
                // At the end of the turn, so many a turn.
                self.queue(id);
            } else {
                self.read(cx, id, up);
            }
        }
    }

    /// Writes what gathered in this turn, and goes on with what could not be read before.
    pub(crate) fn end_of_turn(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        self.tell_time(cx);
        if !cx.congested() {
            self.again.append(&mut self.waiting);
        }
        // What comes meanwhile is for a later turn.
        let rest = self.again.split_off(self.again.len().min(AGAIN));
        let has_rest = !rest.is_empty();
        for id in std::mem::replace(&mut self.again, rest) {
            if let Some(conn) = self.get(id) {
                conn.queued = false;
                self.read(cx, id, up);
            }
        }
        self.tell_lapsed(cx, up);
        self.send_some_away(cx, up);
        while let Some(id) = self.dirty.pop() {
            self.flush(cx, id, up);
        }
        if has_rest {
            cx.again();
        }
    }

    /// Newcomers, and others of whom there are many at once: a part. Whether something is to be written.
    pub(crate) fn after_turn(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) -> bool {
        if std::mem::take(&mut self.later.accepts) {
            self.accept_again(cx);
        }
        self.go_on_lines(cx, up);
        self.go_on_later_ones(cx, up);
        let more = !(self.again.is_empty()
            && self.waiting.is_empty()
            && self.later.is_empty()
            && self.lapse.closed.is_empty());
        if more && !std::mem::replace(&mut self.again_timer, true) {
            // Soon: other connections, other workers and the store have their turn first.
            cx.after(0, Part::Net.tag(TIMER_AGAIN));
        }
        if self.later.has_lines(self.now) {
            cx.again();
        }
        self.metrics.add(&mut self.tally);
        !self.dirty.is_empty()
    }

    pub(crate) fn timer(&mut self, cx: &mut Cx<'_>, number: u64, up: &mut Up<'_>) {
        self.tell_time(cx);
        match number {
            TIMER_TICK => {
                Self::await_tick(cx);
                self.tick(cx, up);
            }
            TIMER_ACCEPT => self.accept_again(cx),
            TIMER_VERIFY => self.verify_some(cx, up),
            TIMER_GOING => self.send_next_away(cx, up),
            // The end of this turn reads them.
            TIMER_AGAIN => self.again_timer = false,
            _ => {}
        }
    }
}

fn token(id: ConnId) -> mio::Token {
    mio::Token(((id.generation as usize & 0x0fff_ffff) << 32) | id.index as usize)
}
