//! One connection. Small, since there are many: an idle one holds no buffer.

use godwit_wire::account::Principal;
use godwit_wire::ids::UserId;

use super::TICKS;
use super::alias::Aliases;
use super::auth::Auth;
use super::pace::Unanswered;
use super::relay::Relay;
use super::transport::Transport;
use crate::codec::{self, Frame, Peer, kind};
use crate::packet::{Connack, Connect, Outgoing, Version};

/// Keep-alive in seconds from above which on a client that has vanished is looked for by other means.
const LONG_KEEP_ALIVE: u16 = 1_800;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its CONNECT is awaited.
    Greeting,
    /// Its CONNECT is being judged; nothing more is read.
    Judging,
    /// The AUTH that follows its CONNECT is awaited.
    Exchange,
    /// A home has answered its CONNECT.
    Open,
    /// Its user's home is nobody's at the moment, or cannot be reached; nothing more is read.
    Waiting,
    /// Its home is on another node; its bytes go there.
    Relay,
    /// Its home has gone to another node; nothing is read of it until it is told so.
    Orphan,
    /// Everything was said; what it still sends is thrown away, so that what was said arrives.
    Closing,
}

/// What is known of a client before its CONNACK.
pub(super) struct Arrival {
    pub(super) connect: Box<Connect>,
    pub(super) user: UserId,
    pub(super) principal: Option<Principal>,
    /// Its user name is nobody's: it is judged like any other, so that the answer takes the same time.
    pub(super) nobody: bool,
    /// The CONNECT as it came, where it may have to go to another node.
    pub(super) raw: Option<Box<[u8]>>,
    /// Its home was looked for on other nodes.
    pub(super) awaited: bool,
}

/// A connection.
pub(super) struct Conn {
    pub(super) transport: Transport,
    pub(super) stage: Stage,
    pub(super) version: Version,
    /// A home has it, and hears when it goes.
    pub(super) owned: bool,
    /// The home wants no packets now.
    pub(super) paused: bool,
    /// The next packet waits for its turn.
    pub(super) in_line: bool,
    /// The socket may have more.
    pub(super) unread: bool,
    /// The other side will send no more than what is there: it is read to its end.
    pub(super) ended: bool,
    pub(super) dirty: bool,
    /// Among those that are read without a further readiness.
    pub(super) queued: bool,
    pub(super) wants_room: bool,
    /// It takes no packet as large as the answer that it waits for.
    pub(super) unanswerable: bool,
    /// What it has not taken so many seconds after its end is thrown away by the operating system too; 0: it is not.
    pub(super) abort: u8,
    /// What is left of a packet that was written in part was a PUBACK.
    partial_is_puback: bool,
    /// Seconds; 0: none.
    keep_alive: u16,
    /// Tick (of the worker's time) in which something came last.
    pub(super) last_in: u32,
    /// Before it is open, and while it closes: the tick at which it is closed.
    pub(super) until: u32,
    /// When its credential ends, seconds since 1970; 0: never.
    pub(super) ends_at: u32,
    /// The tick at which its deadline is looked at; other entries of the wheel are old.
    pub(super) looked_at: u32,
    /// PUBACKs in `out`, one written in part included.
    pubacks: u32,
    /// What is under way at homes, of the worker's counts.
    pub(super) unanswered: Unanswered,
    /// Bytes at the start of `out` that end a packet which was written in part.
    partial: u32,
    /// What of `out` is in the gauge of kept bytes.
    pub(super) counted: u32,
    /// An incomplete packet, or what was read and may not be given up now.
    pub(super) input: Vec<u8>,
    /// To be written.
    pub(super) out: Vec<u8>,
    pub(super) arrival: Option<Box<Arrival>>,
    /// Few have it.
    pub(super) special: Option<Box<Special>>,
}

/// What few clients say in their CONNECT, or use.
pub(super) struct Special {
    /// The client wants reason strings and user properties on failures.
    problems: bool,
    /// Largest packet that the client takes.
    max_out: u32,
    pub(super) aliases: Aliases,
    /// It named an authentication method.
    pub(super) auth: Option<Box<Auth>>,
    /// It is passed on to another node.
    pub(super) relay: Option<Box<Relay>>,
}

impl Default for Special {
    fn default() -> Self {
        Self {
            problems: true,
            max_out: u32::MAX,
            aliases: Aliases::default(),
            auth: None,
            relay: None,
        }
    }
}

const _: () = assert!(
    // In debug builds mio keeps a word more with each socket.
    std::mem::size_of::<Conn>() <= 128 + if cfg!(debug_assertions) { 8 } else { 0 },
    "an idle connection is small"
);

impl Conn {
    /// A connection whose CONNECT must have come, and been answered, by the tick `until`.
    pub(super) fn new(transport: Transport, input: Vec<u8>, now: u32, until: u32) -> Self {
        Self {
            transport,
            stage: Stage::Greeting,
            version: Version::V5,
            owned: false,
            paused: false,
            in_line: false,
            unread: true,
            ended: false,
            dirty: false,
            queued: false,
            wants_room: false,
            unanswerable: false,
            abort: 0,
            partial_is_puback: false,
            keep_alive: 0,
            last_in: now,
            until,
            ends_at: 0,
            looked_at: 0,
            pubacks: 0,
            unanswered: Unanswered::default(),
            partial: 0,
            counted: 0,
            input,
            out: Vec::new(),
            arrival: None,
            special: None,
        }
    }

    /// What the CONNECT says of the connection itself.
    pub(super) fn connected_by(&mut self, connect: &Connect) {
        self.version = connect.version;
        self.keep_alive = connect.keep_alive;
        let special = Special {
            problems: connect.request_problem_information,
            max_out: connect.maximum_packet_size,
            aliases: Aliases::towards(connect.topic_alias_maximum),
            auth: None,
            relay: None,
        };
        let usual = special.problems && special.max_out == u32::MAX && connect.topic_alias_maximum == 0;
        self.special = (!usual).then(|| Box::new(special));
        self.stage = Stage::Judging;
        if self.keep_alive == 0 || self.keep_alive > LONG_KEEP_ALIVE {
            self.transport.probe();
        }
    }

    /// What its CONNACK says of the connection itself.
    pub(super) fn obey(&mut self, connack: &Connack) {
        self.keep_alive = connack.server_keep_alive.unwrap_or(self.keep_alive);
    }

    /// The same over another transport.
    pub(super) fn over(self, change: impl FnOnce(Transport) -> Transport) -> Self {
        Self {
            transport: change(self.transport),
            ..self
        }
    }

    /// Its CONNECT cannot be taken, and is answered in this version.
    pub(super) fn answer_in(&mut self, version: Version) {
        self.version = version;
        self.stage = Stage::Judging;
    }

    /// When its credential ends, or the certificate that it showed beside it. Rounded up, so that 0 stays "never"; seconds
    /// of 32 bits last until 2106.
    pub(super) fn ends_by(&mut self, principal: &Principal) {
        let shown = self.transport.certified().flatten();
        let certificate = shown.map(|certified| certified.expires_at);
        let credential = Some(principal.expires_at).filter(|at| *at != 0);
        let ends = credential.into_iter().chain(certificate).min().unwrap_or(0);
        self.ends_at = u32::try_from(ends.div_ceil(1_000)).unwrap_or(0);
    }

    /// The tick at which a re-authentication is given up.
    pub(super) fn renewal_until(&self) -> Option<u32> {
        self.special.as_deref()?.auth.as_deref()?.until()
    }

    /// Whether a re-authentication waits for the client.
    pub(super) fn is_challenged(&self) -> bool {
        let special = self.special.as_deref();
        special.is_some_and(|special| special.auth.as_deref().is_some_and(Auth::is_challenged))
    }

    /// Whether no packet may be given up now.
    pub(super) fn held(&self) -> bool {
        let is_held = matches!(
            self.stage,
            Stage::Judging | Stage::Waiting | Stage::Relay | Stage::Orphan | Stage::Closing
        );
        self.paused || self.in_line || is_held
    }

    /// The tick from which on it has been silent for 1.5 times its keep-alive (MQTT-3.1.2-24).
    pub(super) fn silent_until(&self) -> Option<u32> {
        // The tick in which something came counts whole, so nobody is closed early.
        (self.keep_alive != 0).then(|| self.last_in + u32::from(self.keep_alive) * 3 * TICKS / 2 + 1)
    }

    /// Appends a packet to what is to be written. `false`: larger than the client takes.
    pub(super) fn encode(&mut self, packet: &Outgoing) -> bool {
        let peer = Peer::new(self.version);
        let taken = match self.special.as_deref_mut() {
            None => codec::encode(peer, packet, &mut self.out),
            Some(special) => special.encode(peer, packet, &mut self.out),
        };
        if taken && matches!(packet, Outgoing::Puback(_)) {
            self.pubacks += 1;
        }
        // A PUBLISH counts as delivered (MQTT-3.1.2-25); for an answer a client would wait for ever.
        self.unanswerable |= !taken && !matches!(packet, Outgoing::Publish(_));
        taken
    }

    /// The first `done` bytes went to the operating system.
    pub(super) fn wrote(&mut self, done: usize) {
        if self.stage == Stage::Relay {
            // Packets are the home's affair, which hears what the client has.
            self.out.drain(..done);
            if let Some(relay) = self.relay() {
                relay.pipe.taken(done);
            }
            return;
        }
        if done == self.out.len() {
            self.out.clear();
            (self.pubacks, self.partial) = (0, 0);
            return;
        }
        let mut at = self.partial as usize;
        if done < at {
            // `done` is below a number of 32 bits.
            self.partial -= done as u32;
        } else {
            if at > 0 && self.partial_is_puback {
                self.pubacks -= 1;
            }
            self.partial = 0;
            while at < done {
                let Some(packet) = self.out.get(at..) else { break };
                let Frame::Whole { len } = codec::frame(packet, usize::MAX) else {
                    break;
                };
                let is_puback = packet.first().is_some_and(|first| first >> 4 == kind::PUBACK);
                at += len;
                if at > done {
                    // No packet of ours is near 4 GiB.
                    self.partial = (at - done) as u32;
                    self.partial_is_puback = is_puback;
                } else if is_puback {
                    self.pubacks -= 1;
                }
            }
        }
        self.out.drain(..done);
    }

    /// How many of the last PUBACKs are not wholly written.
    pub(super) fn unwritten(&self) -> u32 {
        self.pubacks
    }
}

impl Special {
    fn encode(&mut self, peer: Peer, packet: &Outgoing, out: &mut Vec<u8>) -> bool {
        let peer = Peer {
            max: self.max_out,
            problem_information: self.problems,
            ..peer
        };
        let Outgoing::Publish(publish) = packet else {
            return codec::encode(peer, packet, out);
        };
        let Some(alias) = self.aliases.choose(&publish.topic) else {
            return codec::encode_publish(peer, publish, None, out);
        };
        if codec::encode_publish(peer, publish, Some(alias), out) {
            self.aliases.went(&publish.topic, alias);
            return true;
        }
        // With topic and alias it may be too large, and not without the alias.
        alias.with_topic && codec::encode_publish(peer, publish, None, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ack, PublishOut};

    fn conn() -> Conn {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        Conn::new(
            Transport::Tcp(mio::net::TcpStream::from_std(stream)),
            Vec::new(),
            0,
            5,
        )
    }

    fn publish(bytes: usize) -> Outgoing {
        Outgoing::Publish(Box::new(PublishOut {
            topic: "t".into(),
            payload: vec![0x40; bytes].into(),
            qos: 0,
            retain: false,
            dup: false,
            packet_id: 0,
            message_expiry: None,
            subscription_ids: Vec::new(),
            properties: None,
        }))
    }

    /// However the writes fall, the count is that of the PUBACKs whose last byte was not written.
    #[test]
    fn pubacks_not_wholly_written_are_counted_at_every_cut() {
        for step in 1..9 {
            let mut conn = conn();
            let mut ends = Vec::new();
            for id in 1..6 {
                assert!(conn.encode(&publish(usize::from(id) * 3)));
                assert!(conn.encode(&Outgoing::Puback(Ack::success(id))));
                ends.push(conn.out.len());
            }
            let (whole, mut written) = (conn.out.len(), 0);
            while written < whole {
                let done = step.min(whole - written);
                conn.wrote(done);
                written += done;
                let expected = ends.iter().filter(|end| **end > written).count();
                assert_eq!(
                    conn.unwritten() as usize,
                    expected,
                    "step {step}, written {written}"
                );
                assert_eq!(conn.out.len(), whole - written);
            }
        }
    }

    #[test]
    fn silence_is_counted_from_the_end_of_the_tick_in_which_something_came() {
        let mut conn = conn();
        assert_eq!(conn.silent_until(), None);
        (conn.keep_alive, conn.last_in) = (1, 10);
        assert_eq!(conn.silent_until(), Some(10 + 6 + 1));
        conn.keep_alive = u16::MAX;
        assert_eq!(conn.silent_until(), Some(10 + 65_535 * 6 + 1));
        conn.obey(&Connack::default());
        assert_eq!(conn.keep_alive, u16::MAX);
        let connack = Connack {
            server_keep_alive: Some(1),
            ..Connack::default()
        };
        conn.obey(&connack);
        assert_eq!(
            conn.silent_until(),
            Some(10 + 6 + 1),
            "a server's keep-alive counts"
        );
    }

    /// Packets of 100 bytes at most: with a topic of 20 bytes and an alias, one fits that else does not.
    #[test]
    fn what_is_too_large_with_topic_and_alias_goes_without_the_alias_which_then_stands_for_nothing() {
        let mut conn = conn();
        conn.special = Some(Box::new(Special {
            max_out: 100,
            aliases: Aliases::towards(1),
            ..Special::default()
        }));
        let mut send = |topic: &str, bytes: usize| {
            let Outgoing::Publish(mut packet) = publish(bytes) else {
                panic!("a PUBLISH")
            };
            packet.topic = topic.into();
            conn.out.clear();
            let taken = conn.encode(&Outgoing::Publish(packet));
            (taken, conn.out.len())
        };
        let topic = "a/topic/of/20/bytes!";
        let head = 2 + 2 + 1;
        assert_eq!(send(topic, 100 - head - 20), (true, 100));
        assert_eq!(
            send(topic, 100 - head - 20),
            (true, 100),
            "no room for the alias too"
        );
        assert_eq!(send(topic, 100 - head - 20 + 1), (false, 0));
        assert_eq!(send(topic, 100 - head - 23), (true, 100), "topic and alias");
        assert_eq!(send(topic, 100 - head - 3), (true, 100), "the alias alone");
        assert_eq!(send(topic, 100 - head - 2), (false, 0));
    }
}
