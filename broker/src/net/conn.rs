//! One connection. Small, since there are many: an idle one holds no buffer.

use std::collections::VecDeque;

use godwit_wire::account::Principal;
use godwit_wire::ids::UserId;

use super::transport::Transport;
use crate::codec::{self, Peer};
use crate::packet::{Connect, Outgoing, Version};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its CONNECT is awaited.
    Greeting,
    /// Its CONNECT is being judged; nothing more is read.
    Judging,
    /// A home has answered its CONNECT.
    Open,
}

/// What is known of a client before its CONNACK.
pub(super) struct Arrival {
    pub(super) connect: Box<Connect>,
    pub(super) user: UserId,
    pub(super) principal: Option<Principal>,
}

/// A connection.
pub(super) struct Conn {
    pub(super) transport: Transport,
    pub(super) stage: Stage,
    pub(super) version: Version,
    /// The client wants reason strings and user properties on failures.
    problems: bool,
    /// A home has it, and hears when it goes.
    pub(super) owned: bool,
    /// The home wants no packets now.
    pub(super) paused: bool,
    /// The socket may have more.
    pub(super) unread: bool,
    pub(super) dirty: bool,
    pub(super) wants_room: bool,
    /// Seconds; 0: none.
    keep_alive: u16,
    /// Largest packet that the client takes.
    max_out: u32,
    pub(super) last_in_ms: u64,
    pub(super) greeting_until_ms: u64,
    /// When its credential ends, milliseconds since 1970; 0: never.
    pub(super) ends_at: u64,
    /// An incomplete packet, or what was read and may not be given up now.
    pub(super) input: Vec<u8>,
    /// To be written.
    pub(super) out: Vec<u8>,
    /// Ends of the PUBACKs in `out`.
    pubacks: VecDeque<u32>,
    pub(super) arrival: Option<Box<Arrival>>,
}

const _: () = assert!(std::mem::size_of::<Conn>() <= 192, "an idle connection is small");

impl Conn {
    pub(super) fn new(transport: Transport, input: Vec<u8>, now_ms: u64, greeting_ms: u64) -> Self {
        Self {
            transport,
            stage: Stage::Greeting,
            version: Version::V5,
            problems: true,
            owned: false,
            paused: false,
            unread: true,
            dirty: false,
            wants_room: false,
            keep_alive: 0,
            max_out: u32::MAX,
            last_in_ms: now_ms,
            greeting_until_ms: now_ms + greeting_ms,
            ends_at: 0,
            input,
            out: Vec::new(),
            pubacks: VecDeque::new(),
            arrival: None,
        }
    }

    /// What the CONNECT says of the connection itself.
    pub(super) fn connected_by(&mut self, connect: &Connect) {
        self.version = connect.version;
        self.problems = connect.request_problem_information;
        self.keep_alive = connect.keep_alive;
        self.max_out = connect.maximum_packet_size;
        self.stage = Stage::Judging;
    }

    /// Its CONNECT cannot be taken, and is answered in this version.
    pub(super) fn answer_in(&mut self, version: Version) {
        self.version = version;
        self.stage = Stage::Judging;
    }

    /// Whether no packet may be given up now.
    pub(super) fn held(&self) -> bool {
        self.paused || self.stage == Stage::Judging
    }

    /// When it is closed unless something comes: 1.5 times its keep-alive.
    pub(super) fn silent_until(&self) -> Option<u64> {
        (self.keep_alive != 0).then(|| self.last_in_ms + u64::from(self.keep_alive) * 1_500)
    }

    /// Appends a packet to what is to be written. `false`: larger than the client takes.
    pub(super) fn encode(&mut self, packet: &Outgoing) -> bool {
        let peer = Peer { version: self.version, max: self.max_out, problem_information: self.problems };
        if !codec::encode(peer, packet, &mut self.out) {
            return false;
        }
        if matches!(packet, Outgoing::Puback(_)) {
            // Bounded by the hard cap of what is kept for a connection.
            self.pubacks.push_back(self.out.len() as u32);
        }
        true
    }

    /// The first `done` bytes went to the operating system.
    pub(super) fn wrote(&mut self, done: usize) {
        if done == 0 {
            return;
        }
        self.out.drain(..done);
        let done = done as u32;
        while self.pubacks.front().is_some_and(|end| *end <= done) {
            self.pubacks.pop_front();
        }
        if self.pubacks.is_empty() {
            self.pubacks = VecDeque::new();
        }
        for end in &mut self.pubacks {
            *end -= done;
        }
    }

    pub(super) fn pubacks_unwritten(&self) -> u32 {
        self.pubacks.len() as u32
    }
}
