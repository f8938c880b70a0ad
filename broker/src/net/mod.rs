//! Sockets of one worker: accepting, reading, framing, writing, keep-alive, back-pressure. The door before CONNECT is in
//! `door`, transports in `transport`. Packets go up through [`Event`]s; homes speak back through [`Wire`].

mod conn;
mod door;
mod metrics;
mod transport;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use godwit_cluster::Cx;
use godwit_wire::limits::PACKET_BYTES;

use crate::codec::{self, Frame, reason};
use crate::packet::{Incoming, Outgoing, Version};
use crate::part::Part;
use crate::wire_trait::{CloseReason, Closed, ConnId, Sent, Wire};
use conn::{Conn, Stage};
pub use metrics::NetMetrics;
use transport::{Stream, TlsStream, Transport, WebSocketStream};

/// Bytes read at a time, into a buffer that all connections of the worker share.
const SCRATCH: usize = 256 << 10;
/// Most reads of one connection before the others get their turn.
const READS_A_TURN: usize = 4;
/// Bytes kept for a connection from which on it is given no more PUBLISHes.
const ROOM: usize = 256 << 10;
/// Bytes kept for a connection at which it is closed: acknowledgements and what was under way come on top of [`ROOM`].
const KEPT_MOST: usize = (1 << 20) + PACKET_BYTES;
/// Bytes held for a connection before it is authenticated.
const GREETING_BYTES: usize = 16 << 10;
/// Time to a whole CONNECT, and from there to its CONNACK.
const GREETING_MS: u64 = 5_000;
/// Accepts a turn and listener.
const ACCEPTS: usize = 256;
/// Pause of accepting when descriptors are used up.
const ACCEPT_PAUSE_MS: u64 = 100;
/// Buffers kept for the next connections that write, and their size at most.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES: usize = 64 << 10;

/// Slots of connections and listeners, from the tag's 24 bits.
const LISTENER_TOKENS: usize = 1 << 60;

const TIMER_TICK: u64 = (1 << 54) - 1;
const TIMER_ACCEPT: u64 = (1 << 54) - 2;

/// How the doors of the broker are set up.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// Clients without a user name are let in, to ordinary topics only.
    pub anonymous: bool,
}

/// A listening socket, handed to every worker.
pub struct Listener {
    /// Where clients come to.
    pub socket: std::net::TcpListener,
    /// With TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// What a new connection runs over.
pub enum NewTransport {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// TLS, with the session's state so far.
    Tls(std::net::TcpStream, Box<rustls::ServerConnection>),
    /// A WebSocket after its upgrade, over TCP or TLS.
    WebSocket(std::net::TcpStream, Option<Box<rustls::ServerConnection>>),
}

/// A connection made elsewhere (an upgraded WebSocket), handed to any worker.
pub struct NewConnection {
    /// What it runs over.
    pub transport: NewTransport,
    /// The other side.
    pub peer: SocketAddr,
    /// Bytes of it that were read already.
    pub already_read: Vec<u8>,
}

/// What comes up from a connection.
pub(crate) enum Event {
    /// A packet of a connection that a home has.
    Packet(Incoming),
    /// A connection that a home has is gone.
    Closed(Closed),
    /// There is room again.
    Drained,
}

/// Takes events while `Net` goes on.
pub(crate) type Up<'u> = dyn FnMut(&mut Cx<'_>, &mut Net, ConnId, Event) + 'u;

#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// The sockets of one worker.
pub(crate) struct Net {
    config: NetConfig,
    metrics: NetMetrics,
    slots: Vec<Slot>,
    free: Vec<u32>,
    listeners: Vec<(mio::net::TcpListener, Option<Arc<rustls::ServerConfig>>)>,
    scratch: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// Have something to write.
    dirty: Vec<ConnId>,
    /// May have something to read without a further readiness.
    again: Vec<ConnId>,
    /// Seconds (mono) → connections whose deadline may be then.
    wheel: BTreeMap<u64, Vec<ConnId>>,
    now_ms: u64,
    accept_paused: bool,
    stopping: bool,
}

impl Net {
    pub(crate) fn new(config: NetConfig, metrics: NetMetrics) -> Self {
        Self {
            config,
            metrics,
            slots: Vec::new(),
            free: Vec::new(),
            listeners: Vec::new(),
            scratch: vec![0; SCRATCH],
            spare: Vec::new(),
            dirty: Vec::new(),
            again: Vec::new(),
            wheel: BTreeMap::new(),
            now_ms: 0,
            accept_paused: false,
            stopping: false,
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) {
        self.now_ms = cx.now().mono_ms;
        cx.after(1_000, Part::Net.tag(TIMER_TICK));
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            None
        } else {
            slot.conn.as_deref_mut()
        }
    }

    fn peek(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation != id.generation {
            None
        } else {
            slot.conn.as_deref()
        }
    }

    /// The connection of a tag made by [`ConnId::to_tag`].
    fn of_tag(&self, tag: u64) -> Option<ConnId> {
        let index = (tag & 0x00ff_ffff) as u32;
        let generation = self.slots.get(index as usize)?.generation;
        let id = ConnId { index, generation };
        (id.is_tag(tag) && self.peek(id).is_some()).then_some(id)
    }

    fn add(&mut self, cx: &mut Cx<'_>, mut conn: Box<Conn>) -> Option<ConnId> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // `ConnId::to_tag` has room for 2^24; there are fewer descriptors.
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let id = ConnId {
            index,
            generation: slot.generation,
        };
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        if let Err(error) = cx
            .registry()
            .register(conn.transport.socket(), token(id), interest)
        {
            tracing::warn!(%error, "a connection could not be watched");
            self.free.push(index);
            return None;
        }
        slot.conn = Some(conn);
        self.metrics.connections.inc();
        Some(id)
    }

    /// Takes a connection out; its socket closes when it is dropped.
    fn remove(&mut self, cx: Option<&Cx<'_>>, id: ConnId) -> Option<Box<Conn>> {
        self.get(id)?;
        let mut conn = self.slots[id.index as usize].conn.take()?;
        self.free.push(id.index);
        if let Some(cx) = cx {
            // Only a connection that moves to another worker must leave this one's poll; closing does so by itself.
            let _ = cx.registry().deregister(conn.transport.socket());
        }
        self.give_back(std::mem::take(&mut conn.out));
        self.metrics.connections.dec();
        Some(conn)
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_BYTES && self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
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
        self.now_ms = cx.now().mono_ms;
        if token.0 >= LISTENER_TOKENS {
            self.accept(cx, token.0 - LISTENER_TOKENS);
            return;
        }
        let id = ConnId {
            index: token.0 as u32,
            generation: (token.0 >> 32) as u32 & 0x0fff_ffff,
        };
        let Some(full) = self.slots.get(id.index as usize).map(|slot| slot.generation) else {
            return;
        };
        if full & 0x0fff_ffff != id.generation {
            return;
        }
        let id = ConnId {
            generation: full,
            ..id
        };
        if writable {
            self.flush(cx, id, up);
        }
        if readable {
            if let Some(conn) = self.get(id) {
                conn.unread = true;
            }
            self.read(cx, id, up);
        }
    }

    fn accept(&mut self, cx: &mut Cx<'_>, listener: usize) {
        for _ in 0..ACCEPTS {
            let Some((socket, tls)) = self.listeners.get(listener) else {
                return;
            };
            let (stream, _) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // Descriptors are used up, or the client is gone already. The former needs a pause, not a spin.
                    self.metrics.accept_failures.inc();
                    tracing::warn!(%error, "accepting a connection failed");
                    self.pause_accepting(cx);
                    return;
                }
            };
            let _ = stream.set_nodelay(true);
            let tls = match tls.clone().map(rustls::ServerConnection::new).transpose() {
                Ok(tls) => tls,
                Err(error) => {
                    tracing::warn!(%error, "a TLS session could not be begun");
                    continue;
                }
            };
            let transport = match tls {
                Some(tls) => Transport::Tls(Box::new(TlsStream::new(stream, Box::new(tls)))),
                None => Transport::Tcp(stream),
            };
            self.metrics.accepted.inc();
            self.greet(cx, transport, Vec::new());
        }
        // More may wait: the readiness is not told twice.
        self.pause_accepting(cx);
    }

    fn pause_accepting(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::replace(&mut self.accept_paused, true) {
            cx.after(
                if self.listeners.is_empty() {
                    ACCEPT_PAUSE_MS
                } else {
                    1
                },
                Part::Net.tag(TIMER_ACCEPT),
            );
        }
    }

    /// Reads what is there, as far as the connection may be read now.
    pub(crate) fn read(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        // What was kept while it was not read comes first.
        if let Some(conn) = self.get(id)
            && !conn.held()
            && !conn.input.is_empty()
        {
            let input = std::mem::take(&mut conn.input);
            self.take(cx, id, &input, up);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let now_ms = self.now_ms;
        for _ in 0..READS_A_TURN {
            let Some(conn) = self.get(id) else { break };
            if !conn.unread || conn.held() {
                break;
            }
            if cx.congested() && conn.stage == Stage::Open {
                self.metrics.congested.inc();
                self.again.push(id);
                break;
            }
            match conn.transport.read(&mut scratch) {
                Ok(0) => {
                    conn.unread = false;
                    self.gone(cx, id, CloseReason::Gone, up);
                    break;
                }
                Ok(read) => {
                    conn.unread = !(conn.transport.short_read_is_empty() && read < scratch.len());
                    conn.last_in_ms = now_ms;
                    self.metrics.bytes_in.inc_by(read as u64);
                    let kept = self
                        .get(id)
                        .map(|conn| std::mem::take(&mut conn.input))
                        .unwrap_or_default();
                    if kept.is_empty() {
                        self.take(cx, id, &scratch[..read], up);
                    } else {
                        let mut joined = kept;
                        joined.extend_from_slice(&scratch[..read]);
                        self.take(cx, id, &joined, up);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    conn.unread = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.gone(cx, id, CloseReason::Gone, up);
                    break;
                }
            }
        }
        if self.scratch.is_empty() {
            self.scratch = scratch;
        }
        if self.peek(id).is_some_and(|conn| conn.unread && !conn.held()) {
            self.again.push(id);
        }
    }

    /// Cuts packets out of `bytes` and gives them up; keeps the rest.
    fn take(&mut self, cx: &mut Cx<'_>, id: ConnId, bytes: &[u8], up: &mut Up<'_>) {
        let mut rest = bytes;
        loop {
            let Some(conn) = self.get(id) else { return };
            if conn.held() || rest.is_empty() {
                break;
            }
            let max = if conn.stage == Stage::Open {
                PACKET_BYTES
            } else {
                GREETING_BYTES
            };
            let len = match codec::frame(rest, max) {
                Frame::Incomplete { .. } => break,
                Frame::Whole { len } => len,
                Frame::Bad(error) => {
                    self.offend(cx, id, error, up);
                    return;
                }
            };
            let (frame, after) = rest.split_at(len);
            rest = after;
            if conn.stage == Stage::Open {
                let decoded = codec::decode(conn.version, frame);
                self.open_packet(cx, id, decoded, up);
            } else {
                self.first_packet(cx, id, frame);
            }
        }
        if let Some(conn) = self.get(id)
            && !rest.is_empty()
        {
            conn.input = rest.to_vec();
        }
    }

    fn open_packet(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConnId,
        decoded: Result<Incoming, codec::DecodeError>,
        up: &mut Up<'_>,
    ) {
        self.metrics.packets_in.inc();
        match decoded {
            Ok(Incoming::Pingreq) => drop(self.send(id, &Outgoing::Pingresp)),
            Ok(Incoming::Connect(_)) => {
                self.offend(cx, id, codec::DecodeError::protocol("a second CONNECT"), up);
            }
            Ok(Incoming::Auth) => {
                self.offend(
                    cx,
                    id,
                    codec::DecodeError::protocol("AUTH without an authentication method"),
                    up,
                );
            }
            Ok(packet) => up(cx, self, id, Event::Packet(packet)),
            Err(error) => self.offend(cx, id, error, up),
        }
    }

    /// The client broke the protocol: it is told why where its version can be, and closed.
    fn offend(&mut self, cx: &mut Cx<'_>, id: ConnId, error: codec::DecodeError, up: &mut Up<'_>) {
        self.metrics.protocol_errors.inc();
        tracing::debug!(%error, "a client broke the protocol");
        let Some(conn) = self.get(id) else { return };
        if conn.stage != Stage::Open {
            self.refuse(id, error.reason);
            return;
        }
        let _ = self.send(id, &Outgoing::Disconnect(error.reason, Vec::new()));
        self.gone(cx, id, CloseReason::Protocol(error.reason), up);
    }

    /// Closes a connection; its home hears of it.
    fn gone(&mut self, cx: &mut Cx<'_>, id: ConnId, reason: CloseReason, up: &mut Up<'_>) {
        self.write_out(id);
        let Some(conn) = self.remove(None, id) else { return };
        self.metrics.closed.inc();
        if conn.owned {
            let closed = Closed {
                reason,
                pubacks_unwritten: conn.pubacks_unwritten(),
            };
            up(cx, self, id, Event::Closed(closed));
        }
    }

    /// Writes what the socket takes. `false`: the connection is broken.
    fn write_out(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.get(id) else { return true };
        let mut done = 0;
        let alive = loop {
            if done == conn.out.len() {
                break !matches!(conn.transport.flush(), Err(error) if error.kind() != io::ErrorKind::WouldBlock);
            }
            match conn.transport.write(&conn.out[done..]) {
                Ok(0) => break false,
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        conn.wrote(done);
        let empty = conn.out.is_empty();
        let buffer = if empty {
            std::mem::take(&mut conn.out)
        } else {
            Vec::new()
        };
        self.metrics.bytes_out.inc_by(done as u64);
        self.give_back(buffer);
        alive
    }

    fn flush(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        if let Some(conn) = self.get(id) {
            conn.dirty = false;
        }
        if !self.write_out(id) {
            self.gone(cx, id, CloseReason::Gone, up);
            return;
        }
        let Some(conn) = self.get(id) else { return };
        if conn.out.len() > KEPT_MOST {
            self.metrics.too_slow.inc();
            self.gone(cx, id, CloseReason::TooSlow, up);
        } else if conn.wants_room && conn.out.len() < ROOM / 2 {
            conn.wants_room = false;
            up(cx, self, id, Event::Drained);
        }
    }

    /// Writes what gathered in this turn, and goes on with what could not be read before.
    pub(crate) fn end_of_turn(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        self.now_ms = cx.now().mono_ms;
        // What comes meanwhile is for the next turn of this loop, which is bounded by what clients may have unread.
        for id in std::mem::take(&mut self.again) {
            self.read(cx, id, up);
        }
        while let Some(id) = self.dirty.pop() {
            self.flush(cx, id, up);
        }
        if !self.again.is_empty() {
            // Come back soon: other workers and the store have their turn first.
            cx.after(1, Part::Net.tag(TIMER_ACCEPT - 1));
        }
    }

    pub(crate) fn timer(&mut self, cx: &mut Cx<'_>, number: u64, up: &mut Up<'_>) {
        self.now_ms = cx.now().mono_ms;
        match number {
            TIMER_TICK => {
                cx.after(1_000, Part::Net.tag(TIMER_TICK));
                self.tick(cx, up);
            }
            TIMER_ACCEPT => {
                self.accept_paused = false;
                for listener in 0..self.listeners.len() {
                    self.accept(cx, listener);
                }
            }
            _ => {}
        }
    }

    /// Looks at a connection again at this time.
    fn look_at(&mut self, id: ConnId, at_ms: u64) {
        self.wheel.entry(at_ms.div_ceil(1_000)).or_default().push(id);
    }

    fn tick(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        let now = self.now_ms;
        let later = self.wheel.split_off(&(now / 1_000 + 1));
        for id in std::mem::replace(&mut self.wheel, later).into_values().flatten() {
            let unix = cx.now().unix_ms;
            let Some(conn) = self.get(id) else { continue };
            if conn.stage != Stage::Open {
                if now >= conn.greeting_until_ms {
                    self.metrics.greeting_timeouts.inc();
                    self.gone(cx, id, CloseReason::Gone, up);
                } else {
                    let at = conn.greeting_until_ms;
                    self.look_at(id, at);
                }
                continue;
            }
            if conn.ends_at != 0 && unix >= conn.ends_at {
                let _ = self.send(id, &Outgoing::Disconnect(reason::CREDENTIAL_ENDED, Vec::new()));
                self.gone(cx, id, CloseReason::CredentialEnded, up);
                continue;
            }
            let silent_until = conn.silent_until();
            if silent_until.is_some_and(|until| now >= until) {
                self.metrics.keep_alive_timeouts.inc();
                let _ = self.send(id, &Outgoing::Disconnect(reason::KEEP_ALIVE, Vec::new()));
                self.gone(cx, id, CloseReason::KeepAlive, up);
                continue;
            }
            let ends = (conn.ends_at != 0).then(|| now + (conn.ends_at - unix).min(3_600_000));
            if let Some(at) = [silent_until, ends].into_iter().flatten().min() {
                self.look_at(id, at);
            }
        }
    }

    /// Stops accepting and ends every connection; clients of MQTT 5 are told.
    pub(crate) fn shut_down(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        self.stopping = true;
        self.listeners.clear();
        let all: Vec<ConnId> = (0..self.slots.len() as u32)
            .map(|index| ConnId {
                index,
                generation: self.slots[index as usize].generation,
            })
            .collect();
        for id in all {
            if self.peek(id).is_some_and(|conn| conn.stage == Stage::Open) {
                let _ = self.send(id, &Outgoing::Disconnect(reason::SHUTTING_DOWN, Vec::new()));
            }
            self.gone(cx, id, CloseReason::Shutdown, up);
        }
    }
}

fn token(id: ConnId) -> mio::Token {
    mio::Token(((id.generation as usize & 0x0fff_ffff) << 32) | id.index as usize)
}

impl Wire for Net {
    fn send(&mut self, id: ConnId, packet: &Outgoing) -> Sent {
        let spare = self.spare.pop();
        let Some(conn) = self.get(id) else {
            self.spare.extend(spare);
            return Sent::Taken;
        };
        if conn.out.capacity() == 0 {
            conn.out = spare.unwrap_or_default();
        } else {
            self.spare.extend(spare);
        }
        let Some(conn) = self.get(id) else {
            return Sent::Taken;
        };
        if !conn.encode(packet) {
            return Sent::TooLarge;
        }
        let newly_dirty = !std::mem::replace(&mut conn.dirty, true);
        let opened = matches!(packet, Outgoing::Connack(connack) if connack.reason == 0);
        if opened {
            conn.stage = Stage::Open;
            let until = conn.silent_until();
            let ends = conn.ends_at;
            if let Some(until) = until {
                self.look_at(id, until);
            } else if ends != 0 {
                let soon = self.now_ms + 1_000;
                self.look_at(id, soon);
            }
            self.again.push(id);
        }
        if newly_dirty {
            self.dirty.push(id);
        }
        self.metrics.packets_out.inc();
        Sent::Taken
    }

    fn close(&mut self, id: ConnId, last: Option<Outgoing>) -> u32 {
        if let Some(last) = last {
            let _ = self.send(id, &last);
        }
        self.write_out(id);
        self.metrics.closed.inc();
        self.remove(None, id).map_or(0, |conn| conn.pubacks_unwritten())
    }

    fn pause(&mut self, id: ConnId, paused: bool) {
        if let Some(conn) = self.get(id) {
            let before = std::mem::replace(&mut conn.paused, paused);
            if before && !paused {
                self.again.push(id);
            }
        }
    }

    fn room(&mut self, id: ConnId) -> bool {
        match self.get(id) {
            Some(conn) if conn.out.len() >= ROOM => {
                conn.wants_room = true;
                false
            }
            _ => true,
        }
    }

    fn version(&self, id: ConnId) -> Version {
        self.peek(id).map_or(Version::V5, |conn| conn.version)
    }

    fn pubacks_unwritten(&self, id: ConnId) -> u32 {
        self.peek(id).map_or(0, Conn::pubacks_unwritten)
    }
}
