//! What a user's home says to a connection and hears of it: the [`Wire`] that `net` implements, connection ids and the
//! reasons of a close. No sockets here, so that `users` runs in tests with a recording `Wire`.

use godwit_store::coordination::StartId;
use godwit_wire::ids::UserId;
use uuid::Uuid;

use crate::packet::{Outgoing, Version};

/// A connection of this worker. Never names another connection later: the generation grows when a slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnId {
    /// Slot.
    pub(crate) index: u32,
    /// Grows each time the slot is taken.
    pub(crate) generation: u32,
}

impl ConnId {
    /// In 52 bits, for tags (the generation's lower 28, the slot's 24: `net` has fewer slots than that).
    pub(crate) fn to_tag(self) -> u64 {
        (u64::from(self.generation & 0x0fff_ffff) << 24) | u64::from(self.index & 0x00ff_ffff)
    }

    /// Whether a tag names this connection.
    pub(crate) fn is_tag(self, tag: u64) -> bool {
        self.to_tag() == tag
    }
}

/// Why `net` closed a connection. The client's own DISCONNECT is not among them: it comes as a packet, and the home
/// closes. In all of these the will is due, but see `Revoked`, `Shutdown` and `Moved`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CloseReason {
    /// The client closed or vanished without a DISCONNECT.
    Gone,
    /// Nothing came for 1.5 times the keep-alive.
    KeepAlive,
    /// It broke the protocol; the reason code that it was told.
    Protocol(u8),
    /// It took too little of what was sent to it, beyond the bound of what is kept.
    TooSlow,
    /// Its credential came to its end by its time.
    CredentialEnded,
    /// Its certificate was revoked: no will.
    Revoked,
    /// The process ends. The session goes on at the next start.
    Shutdown,
    /// It was told to come by another node. The session goes on there or here.
    Moved,
}

/// What `users.closed` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Why.
    pub(crate) reason: CloseReason,
    /// How many of the last PUBACKs given to [`Wire::send`] are known not to have been handed to the operating system, or to the link to the client's
    /// node, whole.
    pub(crate) unwritten: u32,
}

/// What became of a packet given to [`Wire::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a PUBLISH that is too large for its client counts as delivered (MQTT-3.1.2-25)"]
pub(crate) enum Sent {
    /// Taken; it is written in this turn or later, in the order given. Also said of a connection that is gone: its
    /// `closed` is on its way.
    Taken,
    /// Larger than the client's Maximum Packet Size: nothing is sent of it. Acknowledgements are sent without their
    /// properties instead and are `Taken`. If it is an answer that the client waits for, the connection ends at the end
    /// of the turn.
    TooLarge,
}

/// The connections of this worker, as users' homes see them. No call fails and none calls back: calls for a
/// connection that is gone do nothing. After `users.attach` no `packet` comes before the home has sent a CONNACK; a
/// CONNACK that refuses is given to `close` as the last packet. PINGREQ, AUTH and a second CONNECT never come up.
pub(crate) trait Wire {
    /// Gives a packet to a connection. Encoded at once; written at the end of the turn.
    fn send(&mut self, conn: ConnId, packet: &Outgoing) -> Sent;

    /// Writes what was sent and `last`, as far as the socket takes it now, and closes. The home forgets the connection:
    /// no `packet`, `drained` or `closed` follows. Says what [`Closed::unwritten`] says.
    fn close(&mut self, conn: ConnId, last: Option<Outgoing>) -> u32;

    /// Its user's home has gone to another node: nothing more is read, and it is told so and closed when its turn comes, sooner if it
    /// `waits` for an answer. The home forgets the connection, as at [`Self::close`].
    fn moved(&mut self, conn: ConnId, user: UserId, waits: bool);

    /// Stops (`true`) or goes on reading from the client. No `packet` comes while paused, not even what was read
    /// already.
    fn pause(&mut self, conn: ConnId, paused: bool);

    /// Whether more PUBLISHes may be given now. Once it said `false`, `users.drained` follows when there is room again.
    fn room(&mut self, conn: ConnId) -> bool;

    /// Its protocol version (`V5` if it is gone).
    fn version(&self, conn: ConnId) -> Version;

    /// The start of the node where its client came, if that is not this one.
    fn came_by(&self, conn: ConnId) -> Option<StartId>;

    /// The certificate of a client that came to another node, where it showed one there: its credential, or beside it.
    fn certificate(&self, conn: ConnId) -> Option<Uuid> {
        let _ = conn;
        None
    }

    /// What [`Closed::unwritten`] would be now; 0 if it is gone.
    fn unwritten(&self, conn: ConnId) -> u32;
}
