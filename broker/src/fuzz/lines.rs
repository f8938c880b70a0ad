//! Connections of the target `sessions`: what was sent to each, and what a home may never do to one.

use std::collections::{HashMap, VecDeque};

use godwit_store::coordination::StartId;
use godwit_wire::ids::UserId;

use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::{ConnId, Sent, Wire};

/// Packets to a connection in one step: what a window, retained messages and answers to the backlog come to.
const OUT: usize = 20_000;

/// One recorded connection.
pub(super) struct Line {
    pub(super) out: VecDeque<Outgoing>,
    pub(super) closed: bool,
    /// Its CONNACK said yes.
    pub(super) ready: bool,
    pub(super) full: bool,
    pub(super) version: Version,
    pub(super) paused: bool,
    pub(super) unwritten: u32,
    /// What came while it was not read.
    pub(super) backlog: VecDeque<Incoming>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Lines(pub(super) HashMap<ConnId, Line>);

impl Wire for Lines {
    fn send(&mut self, conn: ConnId, packet: &Outgoing) -> Sent {
        if let Some(line) = self.0.get_mut(&conn) {
            assert!(!line.closed, "a packet to a closed connection");
            if let Outgoing::Connack(connack) = packet {
                assert!(
                    !line.ready && connack.reason == 0,
                    "one CONNACK, and no refusal goes on"
                );
                line.ready = true;
            }
            assert!(line.ready, "a packet before CONNACK");
            line.out.push_back(packet.clone());
            assert!(line.out.len() < OUT, "BOUND: what one step sends to a connection");
        }
        Sent::Taken
    }

    fn close(&mut self, conn: ConnId, last: Option<Outgoing>) -> u32 {
        let Some(line) = self.0.get_mut(&conn) else {
            return 0;
        };
        assert!(!line.closed, "a connection is closed once");
        line.out.extend(last);
        line.closed = true;
        line.unwritten
    }

    fn moved(&mut self, conn: ConnId, _: UserId, _: bool) {
        self.close(conn, None);
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        if let Some(line) = self.0.get_mut(&conn) {
            line.paused = paused;
        }
    }

    fn room(&mut self, conn: ConnId) -> bool {
        self.0.get(&conn).is_some_and(|line| !line.full && !line.closed)
    }

    fn version(&self, conn: ConnId) -> Version {
        self.0.get(&conn).map_or(Version::V5, |line| line.version)
    }

    fn came_by(&self, _: ConnId) -> Option<StartId> {
        None
    }

    fn unwritten(&self, conn: ConnId) -> u32 {
        self.0.get(&conn).map_or(0, |line| line.unwritten)
    }
}

impl Line {
    /// A connection whose CONNECT a home is given.
    pub(super) fn new(version: Version) -> Self {
        Self {
            out: VecDeque::new(),
            closed: false,
            ready: false,
            full: false,
            version,
            paused: false,
            unwritten: 0,
            backlog: VecDeque::new(),
        }
    }
}
