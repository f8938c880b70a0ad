//! From a readable socket to packets: reads into the worker's buffer, cuts frames, keeps only what is incomplete or may
//! not be given up now.

use std::io::{self, Read as _};

use godwit_cluster::Cx;
use godwit_wire::limits::PACKET_BYTES;

use super::conn::{Conn, Stage};
use super::{Event, GREETING_BYTES, Net, ROOM, Up};
use crate::codec::{self, DecodeError, Frame};
use crate::packet::{Incoming, Outgoing, PublishIn};
use crate::wire_trait::{CloseReason, ConnId, Wire};

/// Most reads of one connection before the others get their turn.
const READS_A_TURN: usize = 4;

/// Packets of one connection that are taken each time it is read: a read holds thousands of small ones, and what is refused at once is nowhere else bounded. The
/// rest has a later turn.
pub(super) const PACKETS_A_TURN: usize = 512;

/// Packets of one connection between two looks whether there is room behind for more.
const PACKETS_A_LOOK: usize = 16;

/// Most reads of a closing connection a readiness: what a fast sender has in the socket, no more.
const DISCARDS: usize = 32;

/// What became of one read.
enum Got {
    Bytes(usize),
    Nothing,
    Ended,
}

impl Net {
    /// Reads what is there, as far as the connection may be read now.
    pub(super) fn read(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        match self.peek(id).map(|conn| conn.stage) {
            Some(Stage::Relay) => return self.pump(id, up),
            Some(Stage::Orphan) => return self.orphan_speaks(id),
            _ => {}
        }
        if !self.is_announced(cx, id) {
            return;
        }
        let mut left = PACKETS_A_TURN;
        // What was kept while it was not read comes first.
        if let Some(conn) = self.get(id)
            && !conn.held()
            && !conn.input.is_empty()
        {
            if conn.stage == Stage::Open && cx.congested() {
                self.put_off(id);
                return;
            }
            let input = std::mem::take(&mut conn.input);
            self.take(cx, id, &input, &mut left, up);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..READS_A_TURN {
            if left == 0 || !self.may_read(cx, id) {
                break;
            }
            match self.read_once(id, &mut scratch) {
                Got::Bytes(len) => {
                    self.arrived(cx, id, scratch.get(..len).unwrap_or_default(), &mut left, up)
                }
                Got::Nothing => break,
                Got::Ended => {
                    self.left(cx, id, up);
                    break;
                }
            }
        }
        self.scratch = scratch;
        self.go_on_later(cx, id);
    }

    /// Reads a connection once more in a later turn.
    pub(super) fn queue(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id)
            && !std::mem::replace(&mut conn.queued, true)
        {
            match conn.stage {
                Stage::Greeting | Stage::Exchange => self.later.strangers.push_back(id),
                _ => self.again.push(id),
            }
        }
    }

    /// Reads a connection once more when there is room behind.
    fn put_off(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id)
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.waiting.push(id);
            self.metrics.congested.inc();
        }
    }

    /// Reads a connection once more if it may have more and may be read.
    pub(super) fn go_on_later(&mut self, cx: &Cx<'_>, id: ConnId) {
        let Some(conn) = self.get(id) else { return };
        if !conn.unread || conn.held() || conn.out.len() >= ROOM {
            return;
        }
        if conn.stage != Stage::Open {
            self.queue(id);
        } else if self.stopping {
            // Nothing more is read of it.
        } else if cx.congested() {
            self.put_off(id);
        } else {
            self.queue(id);
        }
    }

    fn may_read(&mut self, cx: &Cx<'_>, id: ConnId) -> bool {
        let Some(conn) = self.get(id) else { return false };
        // A client that takes nothing is not read either: it comes back when it has taken what is kept for it.
        if !conn.unread || conn.held() || conn.out.len() >= ROOM {
            return false;
        }
        conn.stage != Stage::Open || !(self.stopping || cx.congested())
    }

    fn read_once(&mut self, id: ConnId, scratch: &mut [u8]) -> Got {
        let now = self.now;
        let Some(conn) = self.get(id) else {
            return Got::Nothing;
        };
        // Before it is authenticated no more is read than may be kept.
        let most = if conn.stage == Stage::Open {
            scratch.len()
        } else {
            GREETING_BYTES
                .saturating_sub(conn.input.len())
                .clamp(1, scratch.len())
        };
        let into = scratch.get_mut(..most).unwrap_or_default();
        let read = loop {
            match conn.transport.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => Got::Ended,
            Ok(len) => {
                conn.unread = conn.ended || !conn.transport.short_read_is_empty() || len == most;
                conn.last_in = now;
                self.tally.bytes_in += len as u64;
                Got::Bytes(len)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.unread = conn.transport.cut();
                Got::Nothing
            }
            Err(_) => {
                if conn.transport.has_refused() {
                    self.metrics.protocol_errors.inc();
                }
                Got::Ended
            }
        }
    }

    /// Bytes came; before them stands what of an incomplete packet is kept.
    fn arrived(&mut self, cx: &mut Cx<'_>, id: ConnId, bytes: &[u8], left: &mut usize, up: &mut Up<'_>) {
        let Some(conn) = self.get(id) else { return };
        if conn.input.is_empty() {
            self.take(cx, id, bytes, left, up);
            return;
        }
        conn.input.extend_from_slice(bytes);
        // Looked at by its header: one that is sent in crumbs is copied once, when it is whole.
        let max = most_of(conn);
        if !matches!(codec::frame(&conn.input, max), Frame::Incomplete { .. }) {
            let input = std::mem::take(&mut conn.input);
            self.take(cx, id, &input, left, up);
        }
    }

    /// Cuts packets out of `bytes` and gives them up, `left` at most; keeps the rest.
    fn take(&mut self, cx: &mut Cx<'_>, id: ConnId, bytes: &[u8], left: &mut usize, up: &mut Up<'_>) {
        let mut rest = bytes;
        for taken in 1_usize.. {
            let Some(conn) = self.get(id) else { return };
            if conn.held() || rest.is_empty() {
                break;
            }
            let len = match codec::frame(rest, most_of(conn)) {
                Frame::Incomplete { .. } => break,
                Frame::Whole { len } => len,
                Frame::Bad(error) => {
                    self.offend(cx, id, error, rest, up);
                    return;
                }
            };
            let is_open = conn.stage == Stage::Open;
            if is_open && is_subscribe(rest) && !self.may_subscribe(id) {
                break;
            }
            let (frame, after) = rest.split_at(len);
            rest = after;
            let Some(conn) = self.get(id) else { return };
            if conn.stage != Stage::Open {
                // With its connection it may go to another worker at once, and takes along what is behind.
                conn.input = rest.to_vec();
                if conn.stage == Stage::Exchange {
                    self.exchange_packet(cx, id, frame);
                } else {
                    self.first_packet(cx, id, frame);
                }
                return;
            }
            let decoded = codec::decode(conn.version, frame);
            self.open_packet(cx, id, decoded, up);
            *left = left.saturating_sub(1);
            if *left == 0 {
                if !rest.is_empty() {
                    self.queue(id);
                }
                break;
            }
            if taken.is_multiple_of(PACKETS_A_LOOK) && cx.congested() {
                self.put_off(id);
                break;
            }
        }
        if let Some(conn) = self.get(id)
            && conn.stage != Stage::Closing
            && !rest.is_empty()
        {
            conn.input = rest.to_vec();
        }
    }

    fn open_packet(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConnId,
        decoded: Result<Incoming, DecodeError>,
        up: &mut Up<'_>,
    ) {
        self.tally.packets_in += 1;
        let error = match decoded {
            Ok(Incoming::Publish(publish)) if publish.topic_alias.is_some() => {
                match self.resolve(id, publish) {
                    Ok(publish) => return up(cx, self, id, Event::Packet(Incoming::Publish(publish))),
                    Err(error) => error,
                }
            }
            Ok(Incoming::Pingreq) => {
                let _ = self.send(id, &Outgoing::Pingresp);
                return;
            }
            Ok(Incoming::Connect(_)) => DecodeError::protocol("a second CONNECT"),
            Ok(Incoming::Auth(packet)) => {
                self.auth_packet(cx, id, &packet, up);
                return;
            }
            Ok(packet) => {
                up(cx, self, id, Event::Packet(packet));
                return;
            }
            Err(error) => error,
        };
        self.offend(cx, id, error, &[], up);
    }

    /// From here on a PUBLISH has the topic that its alias stands for: rights, rewriting and repeats know no aliases.
    fn resolve(&mut self, id: ConnId, mut publish: Box<PublishIn>) -> Result<Box<PublishIn>, DecodeError> {
        if let Some(conn) = self.get(id) {
            conn.special
                .get_or_insert_default()
                .aliases
                .resolve(&mut publish)?;
        }
        Ok(publish)
    }

    /// The client broke the protocol: it is told why where its version can be, and closed.
    fn offend(&mut self, cx: &mut Cx<'_>, id: ConnId, error: DecodeError, greeting: &[u8], up: &mut Up<'_>) {
        self.metrics.protocol_errors.inc();
        tracing::debug!(%error, "a client broke the protocol");
        let Some(conn) = self.get(id) else { return };
        if conn.stage != Stage::Open {
            // A CONNECT over the size limit is answered if its version has come; 3.1.1 has no code for it.
            let is_connect = greeting.first() == Some(&(codec::kind::CONNECT << 4));
            if is_connect && codec::answer_version(greeting) == Some(crate::packet::Version::V5) {
                conn.answer_in(crate::packet::Version::V5);
                self.refuse(id, error.reason);
            } else {
                self.drop_silently(id, "not_mqtt");
            }
            return;
        }
        let last = Outgoing::Disconnect(error.reason, Vec::new());
        self.end(cx, id, CloseReason::Protocol(error.reason), Some(&last), up);
    }

    /// Reads and throws away what a closing connection still sends; lets it go at its end.
    pub(super) fn discard(&mut self, id: ConnId) {
        // Not the worker's buffer, which may be in use when a connection is closed.
        let mut away = [0; 16 << 10];
        for _ in 0..DISCARDS {
            let Some(conn) = self.get(id) else { return };
            match conn.transport.read_away(&mut away) {
                Ok(len) if len > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => {
                    self.remove(None, id);
                    return;
                }
            }
        }
    }
}

/// Whether a packet asks for subscriptions or gives them up.
fn is_subscribe(packet: &[u8]) -> bool {
    let kind = packet.first().map(|first| first >> 4);
    matches!(kind, Some(codec::kind::SUBSCRIBE | codec::kind::UNSUBSCRIBE))
}

/// The largest packet that is taken from a connection now.
fn most_of(conn: &Conn) -> usize {
    if conn.stage == Stage::Open {
        PACKET_BYTES
    } else {
        GREETING_BYTES
    }
}
