//! Sends without a client message id: a publish that equals one of the previous connection whose PUBACK is known not to
//! have been written takes that one's identity (docs/protocol.md, Retries). Everything else gets a fresh one: also what a client marks as a
//! repeat (DUP) of one whose PUBACK nobody knows to be lost, since it may repeat a later publish of the same id and text that never came.

use godwit_wire::ids::SessionId;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::detach::Leave;
use super::home::Home;
use super::rows::{PreviousClient, PreviousRow};
use super::session::{Live, Session};
use crate::packet::PublishIn;
use crate::wire_trait::ConnId;

/// PUBACKs given that are remembered before it is asked how many of them are written.
pub(crate) const GIVEN: usize = 32;
/// Clients of a user whose previous connection is remembered.
const CLIENTS: usize = 64;
/// Publishes of one connection that are remembered: what it could have unacknowledged, and PUBACKs on their way.
const PUBLISHES: usize = 1_024;
/// And of all a user's clients: they are kept in one row.
const ALL: usize = 8 * 1_024;

/// How a publish is known again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retry {
    /// 0: not a send without an id.
    pub(crate) packet_id: u16,
    /// Of topic and payload.
    pub(crate) digest: u128,
    /// What its message is named by.
    pub(crate) identity: [u8; 16],
    /// It repeats nothing that is known; not stored.
    pub(crate) fresh: bool,
}

/// A client's previous connection.
pub(crate) struct Previous {
    client_id: Box<str>,
    publishes: Vec<Retry>,
    /// On the present connection a new send was acknowledged: clients repeat the old ones first, so this one is done with them.
    passed: bool,
}

/// The identity of a publish.
pub(crate) fn identity(
    previous: &mut [Previous],
    session: SessionId,
    client_id: &str,
    live: &Live,
    packet: &PublishIn,
) -> Retry {
    let digest = digest(packet);
    let same = |retry: &Retry| retry.packet_id == packet.packet_id && retry.digest == digest;
    if let Some(of) = previous.iter_mut().find(|of| *of.client_id == *client_id) {
        if let Some(at) = of.publishes.iter().position(same) {
            // Taken out: a later equal publish of this connection is a new message.
            return of.publishes.remove(at);
        }
        // The client has this packet id free again, so it is done with what had it.
        of.publishes.retain(|retry| retry.packet_id != packet.packet_id);
    }
    let serial = live.first_serial.wrapping_add(live.inbound.len() as u32);
    let mut hash = Xxh3::new();
    hash.update(session.0.as_bytes());
    hash.update(&live.number.to_be_bytes());
    hash.update(&serial.to_be_bytes());
    hash.update(&packet.packet_id.to_be_bytes());
    hash.update(&digest.to_be_bytes());
    Retry {
        packet_id: packet.packet_id,
        digest,
        identity: hash.digest128().to_be_bytes(),
        fresh: true,
    }
}

/// Of topic and payload.
pub(crate) fn digest(packet: &PublishIn) -> u128 {
    let topic = xxh3_128(packet.topic.as_bytes());
    topic.rotate_left(64) ^ xxh3_128(&packet.payload)
}

/// Bytes of a publish in its row.
const ROW_BYTES: usize = 34;

impl Retry {
    fn encode(&self, row: &mut Vec<u8>) {
        row.extend_from_slice(&self.packet_id.to_be_bytes());
        row.extend_from_slice(&self.digest.to_be_bytes());
        row.extend_from_slice(&self.identity);
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (packet_id, rest) = row.split_at_checked(2)?;
        let (digest, identity) = rest.split_at_checked(16)?;
        Some(Self {
            packet_id: u16::from_be_bytes(packet_id.try_into().ok()?),
            digest: u128::from_be_bytes(digest.try_into().ok()?),
            identity: identity.try_into().ok()?,
            fresh: false,
        })
    }
}

/// The row of what a home knows of previous connections.
pub(crate) fn row(previous: &[Previous]) -> PreviousRow {
    let client = |of: &Previous| {
        let mut publishes = Vec::with_capacity(of.publishes.len() * ROW_BYTES);
        of.publishes.iter().for_each(|retry| retry.encode(&mut publishes));
        PreviousClient {
            client_id: of.client_id.to_string(),
            publishes: publishes.into(),
        }
    };
    PreviousRow {
        clients: previous.iter().map(client).collect(),
    }
}

/// What a row knows.
pub(crate) fn restored(row: PreviousRow) -> Vec<Previous> {
    let client = |of: PreviousClient| Previous {
        client_id: of.client_id.into(),
        publishes: of
            .publishes
            .chunks_exact(ROW_BYTES)
            .filter_map(Retry::decode)
            .collect(),
        passed: false,
    };
    row.clients.into_iter().map(client).collect()
}

impl Home {
    /// A new send of this client's present connection was acknowledged.
    pub(crate) fn pass_previous(&mut self, conn: ConnId) {
        if self.previous.is_empty() {
            return;
        }
        let Home {
            sessions, previous, ..
        } = self;
        let at = |session: &&Session| session.live.as_ref().is_some_and(|live| live.conn == conn);
        if let Some(session) = sessions.iter().find(at)
            && let Some(of) = previous.iter_mut().find(|of| of.client_id == session.client_id)
        {
            of.passed = true;
        }
    }

    /// A connection is gone. `unwritten`: which of its PUBACKs were not written. What it had not yet sent again
    /// of the connection before it is remembered on, for it may have been cut for that very reason; not if it took leave.
    pub(crate) fn remember_publishes(&mut self, client_id: &str, live: &Live, leave: Leave, unwritten: u32) {
        let at = self.previous.iter().position(|of| *of.client_id == *client_id);
        let before = at.map(|at| self.previous.remove(at));
        let left = before
            .filter(|of| !of.passed && leave != Leave::Normally)
            .map_or_else(Vec::new, |of| of.publishes);
        // What may be on its way over a link, or lost by the network, is new if it comes again: it may double, never be lost.
        let given = live.given.iter().rev().take(unwritten as usize).copied();
        let waiting = live.inbound.iter().filter_map(|inbound| inbound.retry);
        let mut publishes: Vec<Retry> = given
            .chain(waiting)
            .chain(left)
            .filter(|retry| retry.packet_id != 0)
            .take(PUBLISHES)
            .collect();
        for retry in &mut publishes {
            retry.fresh = false;
        }
        if !publishes.is_empty() {
            let others: usize = self.previous.iter().map(|of| of.publishes.len()).sum();
            if self.previous.len() >= CLIENTS || others + publishes.len() > ALL {
                self.previous.remove(0);
            }
            self.previous.push(Previous {
                client_id: client_id.into(),
                publishes,
                passed: false,
            });
        }
    }
}
