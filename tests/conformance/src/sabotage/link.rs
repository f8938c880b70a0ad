//! One connection as a mutation sees it: what was said on it so far, and what it may order beside changing the packet at
//! hand. No sockets; `proxy` does what is ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sent::{Asked, Opening, Posted, ack_of};
use crate::wire::{
    CONNECT, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Packet, SUBSCRIBE, UNSUBSCRIBE, Version,
    parse,
};

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Keep,
    /// These in its place; none: it is swallowed.
    Instead(Vec<Vec<u8>>),
}

/// What a mutation has done beside that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    ToClient(Vec<u8>),
    ToServer(Vec<u8>),
    /// To the client after so many milliseconds.
    Later(u64, Vec<u8>),
    /// To the server after so many milliseconds.
    LaterToServer(u64, Vec<u8>),
    /// The direction at hand waits so many milliseconds before it goes on with this packet.
    Hold(u64),
    /// Both ends are closed.
    Cut,
    /// All connections of this case are.
    CutAll,
}

/// What a mutation remembers over the connections of one case.
#[derive(Debug, Default)]
pub(crate) struct Common {
    /// The last PUBLISH to a client by packet identifier.
    pub(crate) given: BTreeMap<u16, Vec<u8>>,
    /// Whatever else, by name.
    pub(crate) seen: BTreeSet<Vec<u8>>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) version: Version,
    pub(crate) connect: Option<Opening>,
    /// Kind of the client's last packet, 0 before the first.
    pub(crate) last: u8,
    /// CONNACK let the client in.
    pub(crate) welcome: bool,
    /// The client sent DISCONNECT.
    pub(crate) left: bool,
    /// Identifiers and QoS of what was given to the client and is not finished.
    pub(crate) out: BTreeMap<u16, u8>,
    /// Identifiers that the client sent a PUBREC for.
    pub(crate) received: BTreeSet<u16>,
    /// Identifiers of the client's QoS 2 messages before their PUBREL.
    pub(crate) inward: BTreeSet<u16>,
    /// Filters asked for on this connection.
    pub(crate) filters: Vec<Vec<u8>>,
    /// What a mutation puts aside.
    pub(crate) aside: Vec<Vec<u8>>,
    pub(crate) count: u32,
    /// Packets of the server that must not pass: kind and identifier.
    pub(crate) swallow: Vec<(u8, u16)>,
    pub(crate) orders: Vec<Order>,
    common: Arc<Mutex<Common>>,
}

impl Link {
    pub(crate) fn new(version: Version, common: Arc<Mutex<Common>>) -> Self {
        Self {
            version,
            connect: None,
            last: 0,
            welcome: false,
            left: false,
            out: BTreeMap::new(),
            received: BTreeSet::new(),
            inward: BTreeSet::new(),
            filters: Vec::new(),
            aside: Vec::new(),
            count: 0,
            swallow: Vec::new(),
            orders: Vec::new(),
            common,
        }
    }

    pub(crate) fn common(&self) -> MutexGuard<'_, Common> {
        self.common.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    /// The server's packet, if it is one.
    pub(crate) fn read(&self, bytes: &[u8]) -> Option<Packet> {
        parse(self.version, bytes).ok().flatten()
    }

    /// Learns from a client's packet, after the mutation saw it.
    pub(crate) fn note_in(&mut self, bytes: &[u8]) {
        let kind = bytes.first().map_or(0, |first| first >> 4);
        self.last = kind;
        match kind {
            CONNECT if self.connect.is_none() => {
                self.connect = Opening::of(bytes);
                if let Some(connect) = &self.connect {
                    self.version = connect.version();
                }
            }
            PUBLISH => {
                if let Some(posted) = Posted::of(self.version, bytes).filter(|posted| posted.qos() == 2) {
                    self.inward.insert(posted.pid);
                }
            }
            PUBACK..=PUBCOMP => {
                if let Some((kind, pid, code)) = ack_of(bytes) {
                    match kind {
                        PUBREC if code < 0x80 => {
                            self.received.insert(pid);
                        }
                        PUBREL => {
                            self.inward.remove(&pid);
                        }
                        _ => {
                            self.out.remove(&pid);
                            self.received.remove(&pid);
                        }
                    }
                }
            }
            SUBSCRIBE => {
                if let Some(asked) = Asked::of(self.version, bytes) {
                    self.filters
                        .extend(asked.filters.into_iter().map(|(filter, _)| filter));
                }
            }
            UNSUBSCRIBE => {
                if let Some(asked) = Asked::of(self.version, bytes) {
                    self.filters
                        .retain(|known| !asked.filters.iter().any(|(filter, _)| filter == known));
                }
            }
            DISCONNECT => self.left = true,
            _ => {}
        }
    }

    /// Learns from a server's packet, after the mutation saw it.
    pub(crate) fn note_out(&mut self, bytes: &[u8]) {
        self.welcome |= matches!(bytes, [0x20, _, _, 0, ..]);
        if bytes
            .first()
            .is_some_and(|first| first >> 4 == PUBLISH && first & 6 != 0)
            && let Some(posted) = Posted::of(self.version, bytes)
        {
            self.out.insert(posted.pid, posted.qos());
            self.common().given.insert(posted.pid, bytes.to_vec());
        }
    }

    /// Whether this packet of the server is one that it would not have sent, had it not been for the mutation.
    pub(crate) fn swallows(&mut self, bytes: &[u8]) -> bool {
        if self.swallow.is_empty() {
            return false;
        }
        let Some(packet) = self.read(bytes) else {
            return false;
        };
        let at = self
            .swallow
            .iter()
            .position(|it| *it == (packet.kind, packet.pid));
        at.map(|at| self.swallow.swap_remove(at)).is_some()
    }
}
