//! To the socket: what gathered in a turn, what did not fit, and the ends of connections. What homes call is at the end.

use std::io::{self, Write as _};

use godwit_cluster::Cx;
use godwit_store::coordination::StartId;
use godwit_wire::ids::UserId;
use uuid::Uuid;

use super::conn::{Conn, Stage};
use super::transport::Transport;
use super::{
    Event, KEPT_MOST, LINGER_SECONDS, Net, ROOM, SLOW_SECONDS, SPARE_BUFFERS, SPARE_BYTES, TICKS, Up,
};
use crate::codec::reason;
use crate::packet::{Connack, Outgoing, Version};
use crate::wire_trait::{CloseReason, Closed, ConnId, Sent, Wire};

/// Connections to be written to from which on a turn takes no more requests, at 10 to 60 µs each.
pub(super) const WRITES: usize = 64;

impl Net {
    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_BYTES && self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Whether as many connections are written to at the end of this turn as should be: those of others wait meanwhile.
    pub(crate) fn has_enough(&self) -> bool {
        self.dirty.len() >= WRITES
    }

    /// Writes what the socket takes. `false`: the connection is broken.
    pub(super) fn write_out(&mut self, id: ConnId) -> bool {
        let now = self.now;
        let Some(conn) = self.get(id) else { return true };
        let before = conn.out.len();
        let mut done = 0;
        let alive = loop {
            let rest = conn.out.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break !matches!(conn.transport.flush(), Err(error) if error.kind() != io::ErrorKind::WouldBlock);
            }
            match conn.transport.write(rest) {
                Ok(0) => break false,
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        if done > 0 {
            conn.wrote(done);
            if before >= ROOM / 2 {
                // It may not be read for what is kept, so its PINGREQs may wait in the socket; but it is there.
                conn.last_in = now;
            }
        }
        // Far below 4 GiB: see `KEPT_MOST`.
        let (kept, counted) = (conn.out.len() as u32, conn.counted);
        conn.counted = kept;
        if conn.out.is_empty() {
            let buffer = std::mem::take(&mut conn.out);
            self.give_back(buffer);
        }
        self.tally.bytes_out += done as u64;
        if kept != counted {
            self.metrics
                .kept_bytes
                .inc_by(i64::from(kept) - i64::from(counted));
        }
        alive
    }

    /// Writes what gathered for a connection, and tells its home when there is room again.
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let Some(conn) = self.get(id) else { return };
        conn.dirty = false;
        match conn.stage {
            Stage::Closing => return,
            Stage::Relay => return self.pump(id, up),
            _ => {}
        }
        if !self.write_out(id) {
            self.gone(cx, id, CloseReason::Gone, up);
            return;
        }
        let Some(conn) = self.get(id) else { return };
        if conn.out.len() > KEPT_MOST {
            let last = Outgoing::Disconnect(reason::QUOTA, Vec::new());
            self.end(cx, id, CloseReason::TooSlow, Some(&last), up);
            return;
        }
        if std::mem::take(&mut conn.unanswerable) {
            self.end_unanswered(cx, id, up);
            return;
        }
        let wanted = conn.out.len() < ROOM / 2 && std::mem::take(&mut conn.wants_room);
        self.go_on_later(cx, id);
        if wanted {
            up(cx, self, id, Event::Drained);
        }
    }

    /// The client takes no packet as large as the answer that it waits for: it is told so, if it takes that, and closed.
    fn end_unanswered(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let open = self.peek(id).is_some_and(|conn| conn.stage == Stage::Open);
        let last = if open {
            Outgoing::Disconnect(reason::TOO_LARGE, Vec::new())
        } else {
            Outgoing::Connack(Box::new(Connack {
                reason: reason::TOO_LARGE,
                ..Connack::default()
            }))
        };
        let reason = CloseReason::Protocol(reason::TOO_LARGE);
        self.end(cx, id, reason, Some(&last), up);
    }

    /// The other side is gone, or not worth a word: closes, and its home hears of it.
    pub(super) fn gone(&mut self, cx: &mut Cx<'_>, id: ConnId, reason: CloseReason, up: &mut Up<'_>) {
        self.end(cx, id, reason, None, up);
    }

    /// Says `last`, closes, and its home hears of it.
    pub(super) fn end(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConnId,
        reason: CloseReason,
        last: Option<&Outgoing>,
        up: &mut Up<'_>,
    ) {
        // Who goes by itself before it is told where to leaves like those that are.
        let reason = match reason {
            CloseReason::Gone if self.going.has(id) => CloseReason::Moved,
            other => other,
        };
        let Some(conn) = self.get(id) else { return };
        let owned = std::mem::take(&mut conn.owned);
        // Who has vanished or takes nothing: what the operating system holds for it would stay for minutes.
        conn.abort = match reason {
            CloseReason::KeepAlive => LINGER_SECONDS,
            CloseReason::TooSlow => SLOW_SECONDS,
            _ => 0,
        };
        self.count_end(id, name(reason));
        let unwritten = self.finish(id, last);
        if owned {
            up(cx, self, id, Event::Closed(Closed { reason, unwritten }));
        }
    }

    /// Closes a connection that never was one.
    pub(super) fn drop_silently(&mut self, id: ConnId, why: &'static str) {
        self.metrics.count_refused(why);
        self.remove(None, id);
    }

    /// Writes what the socket takes now, `last` behind it, and closes: at once without a last word, else when the
    /// client has closed too or after [`LINGER_SECONDS`] (who was too slow: [`SLOW_SECONDS`]), since closing on unread bytes would destroy what was said.
    /// Says which PUBACKs were not written.
    fn finish(&mut self, id: ConnId, last: Option<&Outgoing>) -> u32 {
        if let Some(last) = last {
            let _ = self.send(id, last);
        }
        self.write_out(id);
        let now = self.now;
        self.waits_no_more(id);
        let Some(conn) = self.get(id) else {
            return 0;
        };
        let until = now + u32::from(conn.abort.max(LINGER_SECONDS)) * TICKS;
        let unwritten = conn.unwritten();
        conn.transport.end();
        if last.is_none() || conn.ended {
            self.remove(None, id);
            return unwritten;
        }
        conn.stage = Stage::Closing;
        conn.owned = false;
        conn.until = until;
        (conn.input, conn.out) = (Vec::new(), Vec::new());
        drop(self.take_arrival(id));
        self.look_at(id, until);
        self.discard(id);
        unwritten
    }

    /// Accepts and reads no more; what is not open yet is turned away. What is passed on ends when its home has said all, soon: see
    /// [`Self::passes_on`].
    pub(crate) fn stop_reading(&mut self) {
        self.stopping = true;
        self.listeners.clear();
        for index in 0..self.slots.len() {
            let Some(id) = self.in_slot(index) else { continue };
            match self.peek(id).map(|conn| (conn.stage, conn.owned)) {
                Some((Stage::Greeting, _)) => self.drop_silently(id, "stopping"),
                Some((Stage::Judging | Stage::Exchange | Stage::Waiting, false)) => {
                    self.refuse(id, reason::SERVER_UNAVAILABLE)
                }
                Some((Stage::Relay, _)) => self.relays_no_more(id),
                _ => {}
            }
        }
    }

    /// Whether something is passed on still.
    pub(crate) fn passes_on(&self) -> bool {
        let is_relay = |slot: &super::Slot| slot.conn.as_ref().is_some_and(|conn| conn.stage == Stage::Relay);
        self.slots.iter().any(is_relay)
    }

    /// Ends every connection; clients of MQTT 5 are told.
    pub(crate) fn shut_down(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        self.stop_reading();
        // Where they are to go is better than that this node ends.
        self.send_away(cx, usize::MAX, up);
        let last = match &self.config.server_reference {
            Some(server) => Outgoing::Elsewhere(server.clone()),
            None => Outgoing::Disconnect(reason::SHUTTING_DOWN, Vec::new()),
        };
        for index in 0..self.slots.len() {
            if let Some(id) = self.in_slot(index)
                && let Some(conn) = self.peek(id)
                && conn.stage != Stage::Closing
            {
                let last = (conn.stage == Stage::Open).then_some(&last);
                self.end(cx, id, CloseReason::Shutdown, last, up);
            }
        }
    }
}

/// Its name in metrics.
fn name(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Gone => "gone",
        CloseReason::KeepAlive => "keep_alive",
        CloseReason::Protocol(_) => "protocol",
        CloseReason::TooSlow => "too_slow",
        CloseReason::CredentialEnded => "credential_ended",
        CloseReason::Revoked => "revoked",
        CloseReason::Shutdown => "shutdown",
        CloseReason::Moved => "moved",
    }
}

impl Wire for Net {
    fn send(&mut self, id: ConnId, packet: &Outgoing) -> Sent {
        let opened = matches!(packet, Outgoing::Connack(connack) if connack.reason == 0);
        let needs_buffer = match self.peek(id) {
            Some(conn) if conn.stage != Stage::Closing => conn.out.capacity() == 0,
            _ => return Sent::Taken,
        };
        let spare = if needs_buffer { self.spare.pop() } else { None };
        let named = if opened { self.named(id, packet) } else { None };
        let packet = named.as_ref().unwrap_or(packet);
        if matches!(packet, Outgoing::Suback(..) | Outgoing::Unsuback(..)) {
            self.has_subscribed(id);
        }
        let Some(conn) = self.get(id) else {
            return Sent::Taken;
        };
        if let Some(spare) = spare {
            conn.out = spare;
        }
        let taken = conn.encode(packet);
        // Also when nothing was written: the flush gives the buffer back.
        let newly_dirty = !std::mem::replace(&mut conn.dirty, true);
        if opened && taken {
            conn.stage = Stage::Open;
            if let Outgoing::Connack(connack) = packet {
                conn.obey(connack);
            }
            conn.transport.let_in();
            self.has_entered(id);
            self.look_for(id);
            self.queue(id);
        }
        if newly_dirty {
            self.dirty.push(id);
        }
        if !taken {
            return Sent::TooLarge;
        }
        self.tally.packets_out += 1;
        Sent::Taken
    }

    fn close(&mut self, id: ConnId, last: Option<Outgoing>) -> u32 {
        match self.get(id) {
            Some(conn) if conn.stage != Stage::Closing => conn.owned = false,
            _ => return 0,
        }
        self.count_end(id, if last.is_some() { "told" } else { "disconnected" });
        // The client's node takes an end without a word for a home that has moved, and tries again.
        let is_spliced =
            |conn: &Conn| matches!(conn.transport, Transport::Spliced(_)) && conn.stage == Stage::Judging;
        let last = match last {
            None if self.peek(id).is_some_and(is_spliced) => Some(Outgoing::Connack(Box::new(Connack {
                reason: reason::SERVER_UNAVAILABLE,
                ..Connack::default()
            }))),
            last => last,
        };
        self.finish(id, last.as_ref())
    }

    fn moved(&mut self, id: ConnId, user: UserId, waits: bool) {
        self.home_moved(id, user, waits);
    }

    fn pause(&mut self, id: ConnId, paused: bool) {
        if let Some(conn) = self.get(id) {
            let before = std::mem::replace(&mut conn.paused, paused);
            if before && !paused {
                self.more_time(id);
                self.queue(id);
            } else if !before && paused {
                self.metrics.paused.inc();
            }
        }
    }

    fn room(&mut self, id: ConnId) -> bool {
        let full = |conn: &&mut Conn| conn.out.len() >= ROOM;
        match self.get(id).filter(full) {
            None => return true,
            // It has not taken what was left by an earlier try, or a flush would have come since.
            Some(conn) if conn.wants_room => return false,
            Some(_) => {}
        }
        // What gathered in this turn may find its place in the socket.
        let alive = self.write_out(id);
        let Some(conn) = self.get(id).filter(full) else {
            return true;
        };
        conn.wants_room = true;
        // The flush at the end of the turn finds that it is broken, and ends it.
        if !alive && !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(id);
        }
        false
    }

    fn version(&self, id: ConnId) -> Version {
        self.peek(id).map_or(Version::V5, |conn| conn.version)
    }

    fn came_by(&self, id: ConnId) -> Option<StartId> {
        match &self.peek(id)?.transport {
            Transport::Spliced(spliced) => Some(spliced.from),
            _ => None,
        }
    }

    fn certificate(&self, id: ConnId) -> Option<Uuid> {
        match &self.peek(id)?.transport {
            Transport::Spliced(spliced) => spliced.certified.as_ref().map(|of| of.certificate),
            _ => None,
        }
    }

    fn unwritten(&self, id: ConnId) -> u32 {
        self.peek(id).map_or(0, Conn::unwritten)
    }
}
