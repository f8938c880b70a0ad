//! How a connection that is passed on to another node ends: its home or its client has ended it, takes too long, this node stops, or
//! what the client came by was revoked. What goes both ways until then is in `relay`.

use godwit_cluster::Cx;
use godwit_wire::command::{Command, UserCommand};
use godwit_wire::ids::Key;

use super::conn::{Conn, Stage};
use super::{LINGER_SECONDS, Net, TICKS};
use crate::codec::reason;
use crate::wire_trait::ConnId;

impl Net {
    /// The home did not answer in time; or the client does not take the rest, or its own end was not answered.
    pub(super) fn relayed_too_late(&mut self, id: ConnId) {
        let Some(conn) = self.get(id) else { return };
        let is_open = conn.relay().is_some_and(|relay| relay.is_open);
        conn.end_relay();
        if is_open {
            self.metrics.count_closed("too_slow");
            if let Some(mut conn) = self.remove(None, id) {
                conn.transport.abort();
            }
        } else {
            conn.stage = Stage::Judging;
            self.refuse(id, reason::SERVER_UNAVAILABLE);
        }
    }

    /// What its client came by was revoked. Its home, which knows where packets end, tells the client and closes, and the client's will
    /// with it; the client is heard no more, and gone in [`LINGER_SECONDS`] whatever its home does.
    pub(super) fn turn_out_relayed(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        let until = self.now + u32::from(LINGER_SECONDS) * TICKS;
        let Some(conn) = self.get(id) else { return };
        let certified = conn.transport.certified().flatten();
        conn.input = Vec::new();
        let Some(relay) = conn.relay().filter(|relay| relay.is_open) else {
            // Nobody has said anything yet.
            conn.end_relay();
            conn.stage = Stage::Judging;
            self.refuse(id, reason::BAD_CREDENTIAL);
            return;
        };
        relay.client_ended = true;
        // Its end is not the client's to say.
        relay.is_shut = true;
        let user = relay.user;
        conn.until = until;
        self.look_at(id, until);
        if let Some(certified) = certified {
            let credential = certified.certificate;
            let ended = UserCommand::CredentialEnded { credential };
            cx.tell(Key::User(user), Command::User(ended));
        }
    }

    /// This node ends. Its home hears so behind what the client has said, and has the last word, which comes behind what is on its
    /// way; all in [`LINGER_SECONDS`]. Who has no home yet is turned away.
    pub(super) fn relays_no_more(&mut self, id: ConnId) {
        match self.get(id).and_then(Conn::relay) {
            Some(relay) if relay.is_open => {
                relay.client_ended = true;
                self.queue(id);
            }
            _ => self.relayed_too_late(id),
        }
    }

    /// The home has ended it, and the client has what was said: it closes too, or is closed in a while.
    pub(super) fn end_relayed(&mut self, id: ConnId, why: &'static str) {
        self.metrics.count_closed(why);
        let (now, stopping) = (self.now, self.stopping);
        let Some(conn) = self.get(id) else { return };
        // Of who still sends the rest is read and thrown away: a socket closed on unread bytes loses what was written to it.
        let has_left = conn.relay().is_none_or(|relay| relay.has_left);
        conn.end_relay();
        conn.transport.end();
        if has_left || stopping {
            // Of a node that ends nobody waits for what the client says last.
            self.discard(id);
            self.remove(None, id);
            return;
        }
        conn.stage = Stage::Closing;
        conn.input = Vec::new();
        let until = now + u32::from(LINGER_SECONDS) * TICKS;
        conn.until = until;
        self.look_at(id, until);
        self.discard(id);
    }
}
