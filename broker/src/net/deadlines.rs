//! Deadlines of connections on a wheel of quarter seconds: a CONNECT in time, keep-alive, the end of a credential, the end of a
//! close. A packet costs no timer: an entry looks whether the deadline has moved, and goes where it is now.

use godwit_cluster::Cx;

use super::conn::Stage;
use super::relay::NEVER;
use super::{Net, TICKS, Up};
use crate::codec::reason;
use crate::packet::Outgoing;
use crate::wire_trait::{CloseReason, ConnId};

/// Longest time between two looks at a connection. The wall clock, by which credentials end, may be set meanwhile, and
/// that is to be noticed; and the entry of a connection that is closed stays until its tick.
const LOOK_SECONDS: u32 = 600;

impl Net {
    /// Looks at a connection at this tick; an entry that it has elsewhere is void.
    pub(super) fn look_at(&mut self, id: ConnId, tick: u32) {
        // Never in the tick that was looked at already.
        let tick = tick.max(self.now + 1);
        let now = self.now;
        if let Some(conn) = self.get(id) {
            // An earlier look finds out the rest: however often a deadline moves, there is one entry to come.
            if (now + 1..=tick).contains(&conn.looked_at) {
                return;
            }
            conn.looked_at = tick;
            self.wheel.entry(tick).or_default().push(id);
        }
    }

    /// Looks at an open connection when its next deadline may be; not at all if it has none.
    pub(super) fn look_for(&mut self, id: ConnId) {
        let (now, unix) = (self.now, self.unix);
        let Some(conn) = self.get(id) else { return };
        let ends = (conn.ends_at != 0)
            .then(|| now.saturating_add(conn.ends_at.saturating_sub(unix).max(1).saturating_mul(TICKS)));
        let all = [conn.silent_until(), ends, conn.renewal_until()];
        match all.into_iter().flatten().min() {
            Some(tick) => self.look_at(id, tick.min(now + LOOK_SECONDS * TICKS)),
            None => conn.looked_at = 0,
        }
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self, cx: &mut Cx<'_>, up: &mut Up<'_>) {
        // Those that closed while there is no room behind, which may be long.
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = waiting
            .into_iter()
            .filter(|id| self.peek(*id).is_some())
            .collect();
        let later = self.wheel.split_off(&(self.now + 1));
        for (tick, ids) in std::mem::replace(&mut self.wheel, later) {
            self.later.put_looks(tick, ids);
        }
        self.look_at_some(cx, up);
        self.look_for_homes(cx);
    }

    pub(super) fn look(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let Some(conn) = self.get(id) else { return };
        let (stage, until) = (conn.stage, conn.until);
        if stage == Stage::Open {
            self.look_at_open(cx, id, up);
        } else if until == NEVER {
            conn.looked_at = 0;
        } else if self.now < until {
            self.look_at(id, until);
        } else {
            match stage {
                Stage::Judging => self.judged_too_late(cx, id, up),
                Stage::Waiting => self.waited_too_long(cx, id),
                Stage::Relay => self.relayed_too_late(id),
                Stage::Exchange => self.refuse(id, reason::NOT_AUTHORIZED),
                Stage::Greeting => {
                    self.metrics.greeting_timeouts.inc();
                    self.drop_silently(id, "no_connect");
                }
                _ => {
                    if let Some(mut conn) = self.remove(None, id)
                        && conn.abort > 0
                    {
                        conn.transport.abort();
                    }
                }
            }
        }
    }

    fn look_at_open(&mut self, cx: &mut Cx<'_>, id: ConnId, up: &mut Up<'_>) {
        let (now, unix, stopping) = (self.now, self.unix, self.stopping);
        let Some(conn) = self.get(id) else { return };
        if conn.ends_at != 0 && unix >= conn.ends_at {
            let last = Outgoing::Disconnect(reason::CREDENTIAL_ENDED, Vec::new());
            self.end(cx, id, CloseReason::CredentialEnded, Some(&last), up);
            return;
        }
        if conn.renewal_until().is_some_and(|until| now >= until) {
            let ours = conn.paused || conn.in_line || conn.queued || cx.congested() || stopping;
            if self.renewal_over(cx, id, ours, up) {
                return;
            }
        }
        let Some(conn) = self.get(id) else { return };
        if conn.silent_until().is_some_and(|until| now >= until) {
            if conn.paused || conn.in_line || cx.congested() || stopping {
                // It is we who do not read: what it sent may wait in the socket.
                conn.last_in = now;
            } else {
                // After a standstill of the process the clock runs before the sockets are looked at.
                conn.unread = true;
                self.read(cx, id, up);
            }
        }
        let Some(conn) = self.get(id) else { return };
        if conn.paused || conn.in_line {
            // Since this look: what is behind it in the socket was not read.
            conn.last_in = now;
        }
        if conn.silent_until().is_some_and(|until| now >= until) {
            self.metrics.keep_alive_timeouts.inc();
            let last = Outgoing::Disconnect(reason::KEEP_ALIVE, Vec::new());
            self.end(cx, id, CloseReason::KeepAlive, Some(&last), up);
        } else {
            self.look_for(id);
        }
    }
}
