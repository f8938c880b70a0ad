//! Connections while the node's lease is over and its homes stand still: who comes is told at once that this node does not serve, who was connected hears
//! nothing and is closed after a while, so that it looks elsewhere (docs/decisions/0010-ownership.md). Whether the lease is over is the loop's to know.

use std::any::Any;
use std::collections::HashSet;

use godwit_cluster::Cx;

use super::conn::Stage;
use super::pace::ENDS;
use super::{Event, Net, NewConnection, TIMER_ACCEPT, Up};
use crate::codec::reason;
use crate::packet::Outgoing;
use crate::part::Part;
use crate::wire_trait::{CloseReason, ConnId, Wire as _};

/// How long after the end of the lease connections stay, milliseconds: by then the others have called this node dead, which takes a margin, and taken its
/// users up. A store that is back sooner costs nobody its connection.
const STAY_MS: u64 = 4_000;
/// Connections closed in one call, of which there are 50 a second: 2,000 a second and worker, as of those that have to go elsewhere.
const CLOSED_A_CALL: usize = 40;

/// What is known while the lease is over.
#[derive(Default)]
pub(super) struct Lapse {
    /// A call is under way: CONNECTs are refused.
    pub(super) is_over: bool,
    /// Slots below it are done.
    next: usize,
    /// Closed and counted, and their homes do not know yet. Bounded by the connections that there are.
    pub(super) closed: HashSet<ConnId>,
    /// The tick in which accepting was tried although there is a pause.
    tried: u32,
}

impl Net {
    /// See [`Role::lapsed`](godwit_cluster::Role::lapsed). Nothing goes up to homes.
    pub(crate) fn lapsed(&mut self, cx: &mut Cx<'_>, over_ms: u64, handed: &mut Vec<Box<dyn Any + Send>>) {
        self.tell_time(cx);
        self.lapse.is_over = true;
        // Connections of HTTP that are MQTT from here on; all others belong to somebody.
        let (new, kept) = std::mem::take(handed)
            .into_iter()
            .partition(|item| item.is::<NewConnection>());
        *handed = kept;
        let new: Vec<Box<dyn Any + Send>> = new;
        for item in new {
            self.handed(cx, item);
        }
        self.accept_lapsed(cx);
        let mut up = |_: &mut Cx<'_>, _: &mut Net, _: ConnId, _: Event| {
            debug_assert!(false, "a connection without a home has nothing to say to one");
        };
        for index in 0..self.slots.len() {
            if let Some(id) = self.in_slot(index) {
                self.turn_away(cx, id, &mut up);
            }
        }
        if over_ms >= STAY_MS {
            self.close_some();
        }
        self.lapse.is_over = false;
    }

    /// Timers stand still: a pause is over with the tick.
    fn accept_lapsed(&mut self, cx: &mut Cx<'_>) {
        // As many as are accepted in a turn are no pause for want of descriptors.
        let more = std::mem::take(&mut self.later.accepts);
        let paused = std::mem::take(&mut self.accept_paused) && !more;
        if !paused || self.lapse.tried != self.now {
            self.lapse.tried = self.now;
            let first = self.first_listener;
            self.first_listener = (first + 1) % self.listeners.len().max(1);
            for listener in (first..self.listeners.len()).chain(0..first) {
                self.accept(cx, listener);
            }
        }
        if self.accept_paused && !paused && !self.later.accepts {
            cx.after(0, Part::Net.tag(TIMER_ACCEPT));
        }
        self.accept_paused |= paused;
    }

    /// Who has no CONNACK yet gets one that says no.
    fn turn_away(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let now = self.now;
        let Some(conn) = self.get(id) else { return };
        let (stage, owned, until) = (conn.stage, conn.owned, conn.until);
        match stage {
            Stage::Greeting if now >= until => {
                self.metrics.greeting_timeouts.inc();
                self.drop_silently(id, "no_connect");
            }
            Stage::Greeting => {
                conn.unread = true;
                // Of TLS and WebSocket: what their handshakes say.
                self.flush(cx, id, up);
                self.read(cx, id, up);
            }
            Stage::Judging | Stage::Exchange | Stage::Waiting if !owned => {
                self.refuse(id, reason::SERVER_UNAVAILABLE);
            }
            Stage::Closing if now >= until => drop(self.remove(None, id)),
            Stage::Closing => self.discard(id),
            _ => {}
        }
    }

    /// Closes the next of those that were connected.
    fn close_some(&mut self) {
        let last = match &self.config.server_reference {
            Some(server) => Outgoing::Elsewhere(server.clone()),
            None => Outgoing::Disconnect(reason::SHUTTING_DOWN, Vec::new()),
        };
        let mut closed = 0;
        while closed < CLOSED_A_CALL && self.lapse.next < self.slots.len() {
            let index = self.lapse.next;
            self.lapse.next += 1;
            let Some(id) = self.in_slot(index) else { continue };
            let Some(conn) = self.get(id) else { continue };
            closed += 1;
            match conn.stage {
                Stage::Greeting | Stage::Closing => closed -= 1,
                // No home of this node knows of them.
                Stage::Orphan | Stage::Relay => {
                    self.metrics.count_closed("no_lease");
                    self.remove(None, id);
                }
                stage => {
                    // Behind what is kept it would come too late, and nothing of that may be said any more.
                    if stage == Stage::Open && conn.out.is_empty() {
                        let _ = self.send(id, &last);
                        self.write_out(id);
                    }
                    self.metrics.count_closed("no_lease");
                    let Some(conn) = self.get(id) else { continue };
                    conn.transport.end();
                    if let Some(socket) = conn.transport.socket() {
                        let _ = socket.shutdown(std::net::Shutdown::Both);
                    }
                    // What its client has sent meanwhile it will send again, elsewhere.
                    (conn.unread, conn.ended) = (false, true);
                    conn.input = Vec::new();
                    self.lapse.closed.insert(id);
                }
            }
        }
    }

    /// The lease is back: the homes of those that were closed hear of it, a part a turn.
    pub(super) fn tell_lapsed(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        self.lapse.next = 0;
        let some: Vec<ConnId> = self.lapse.closed.iter().take(ENDS).copied().collect();
        for id in some {
            self.gone(cx, id, CloseReason::Moved, up);
            // Of one that had gone otherwise.
            self.lapse.closed.remove(&id);
        }
    }

    /// A connection ends, and is counted once: who was closed without a lease has been.
    pub(super) fn count_end(&mut self, id: ConnId, reason: &'static str) {
        if !self.lapse.closed.remove(&id) {
            self.metrics.count_closed(reason);
        }
    }
}
