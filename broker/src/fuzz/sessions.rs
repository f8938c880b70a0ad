//! Sequences of packets of several clients of several users, with drops, take-overs, crashes, time that passes, a store
//! that answers late or not, and packets that no right client sends. Besides what the recorded connections and the
//! clients check: an acknowledged publish is in the log of every persistent session that it is for and arrives there
//! (ACK, OWED), a session that was promised is there, and when everybody has gone nothing stays in memory.

use godwit_wire::account::{Principal, Scopes};
use godwit_wire::command::UserCommand;
use godwit_wire::ids::UserId;
use godwit_wire::topic;
use uuid::Uuid;

use super::client::{Client, Told, Tracked};
use super::input::Input;
use super::packets::{self, Hello};
use super::world::World;
use crate::codec::{self, Frame};
use crate::packet::{Incoming, Version};
use crate::wire_trait::CloseReason;

/// Users, and client ids of each.
pub(super) const USERS: usize = 3;
const CLIENTS: usize = 3;
/// Steps of a sequence.
const STEPS: usize = 96;
/// Packet identifiers of publishes that are followed; those of other packets are below.
const TRACKED_FROM: u16 = 1_000;

const FILTERS: &[&str] = &[
    "iot/t/a",
    "iot/t/+",
    "iot/#",
    "+/t/a",
    "#",
    "iot/t/b",
    "iot/x/#",
    "me/inbox/text",
    "me/inbox",
    "me/inbox/json",
    "$share/g/iot/#",
    "iot/+/y/z",
    "me/live",
    "c/+/log",
    "iot/a+",
    "$SYS/#",
];
const TOPICS: &[&str] = &[
    "iot/t/a",
    "iot/t/b",
    "iot/x/y/z",
    "iot/t",
    "other",
    "c/@bob/send/text",
    "me/inbox",
    "c/x/send",
];
const EXPIRIES: &[u32] = &[3_600, 0, 1, 30, u32::MAX, 3_600];
const TIMES: &[u64] = &[1, 60, 600, 1_100, 5_100, 10_100, 3_100, 31_000];

/// Each step is a byte for what, a byte for who, and what it needs.
pub fn sessions(bytes: &[u8]) {
    let mut play = Play::new();
    let mut input = Input::new(bytes);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        play.step(&mut input);
    }
    play.finish();
}

pub(super) struct Play {
    pub(super) world: World,
    pub(super) users: Vec<Principal>,
    pub(super) clients: Vec<Client>,
    next_serial: u32,
    next_id: u16,
    /// When clients looked last: what ended since ended then at the earliest.
    looked_ms: u64,
}

fn user(number: usize) -> Principal {
    let id =
        |kind: u128| Uuid::from_u128(0x8000_0000_0000_7000_8000_0000_0000_0000 | kind << 8 | number as u128);
    Principal {
        user: UserId(id(1)),
        name: ["alice", "bob", "carol"][number].into(),
        credential: Some(id(2)),
        expires_at: 0,
        scopes: Scopes {
            chat: true,
            topics: true,
            rest: true,
        },
        admin: false,
    }
}

impl Play {
    fn new() -> Self {
        let users: Vec<Principal> = (0..USERS).map(user).collect();
        let names: Vec<(&str, UserId)> = users.iter().map(|user| (&*user.name, user.user)).collect();
        let members = users.iter().map(|user| user.user).collect();
        Self {
            world: World::new(members, &names),
            users: users.clone(),
            clients: (0..USERS * CLIENTS).map(|_| Client::default()).collect(),
            next_serial: 1,
            next_id: TRACKED_FROM,
            looked_ms: 0,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (what, who) = (input.byte(), usize::from(input.byte()));
        let at = who % self.clients.len();
        match what & 0x1f {
            0..=2 => self.connect(at, input),
            3..=8 => self.publish(at, input),
            9..=11 => self.subscribe(at, input),
            12 => self.unsubscribe(at, input),
            13..=17 => self.acknowledge(at, input.byte()),
            18 => self.release(at, input.byte()),
            19 => self.raw(at, input),
            20 => self.disconnect(at, input),
            21 => self.drop(at, input.byte()),
            22 => {
                let ms = input.one_of(TIMES);
                self.world.pass(ms);
            }
            23 => match input.byte() & 1 {
                0 => self.world.hold(true),
                _ => self.world.hold(false),
            },
            24 => self.world.commit(usize::from(input.byte() & 7)),
            25 => self.world.slow = input.byte() & 1 != 0,
            26 => self.world.deaf = input.byte() & 1 != 0,
            27 => self.world.fail_reads(input.byte() & 1 != 0),
            28 => {
                if let Some(conn) = self.clients[at].conn {
                    self.world.full(conn, input.byte() & 1 != 0);
                }
            }
            29 => match input.byte() {
                0..0x40 => self.crash(),
                0x40..0x60 => self.world.low_space(true),
                _ => self.world.low_space(false),
            },
            30 => {
                let count = input.byte() & 3;
                if let Some(conn) = self.clients[at].conn {
                    self.world.unwritten(conn, u32::from(count));
                }
            }
            _ => {
                let who = &self.users[at % USERS];
                let (user, credential) = (who.user, who.credential.unwrap_or_default());
                let _ = self.world.ask(user, UserCommand::CredentialEnded { credential });
            }
        }
        // Now and then several steps come in one turn.
        if what & 0x20 == 0 {
            self.world.run();
        }
        self.look();
    }

    fn connect(&mut self, at: usize, input: &mut Input<'_>) {
        let (how, more) = (input.byte(), input.byte());
        let version = if how & 1 == 0 { Version::V5 } else { Version::V311 };
        let clean = how & 0x0e == 0x0e;
        let expiry = match version {
            Version::V5 => EXPIRIES[usize::from(more) % EXPIRIES.len()],
            Version::V311 if clean => 0,
            Version::V311 => u32::MAX,
        };
        let window = match (version, how >> 4) {
            (Version::V5, few @ 1..8) => u16::from(few),
            _ => 65_535,
        };
        let will =
            (more & 0x30 == 0x30).then_some((more >> 6 & 1, more & 0x80 != 0, u32::from(how >> 6) * 5));
        let hello = Hello {
            version,
            client: (at / USERS) as u8,
            clean,
            expiry,
            window,
            will,
        };
        self.come(at, hello);
    }

    pub(super) fn come(&mut self, at: usize, hello: Hello) {
        self.look();
        let who = self.users[at % USERS].clone();
        let conn = self.world.connect(&who, *packets::connect(hello));
        // What it had is taken over by now; where its home cannot be loaded, the door refuses the newcomer alone.
        if self.world.line(conn).is_some_and(|line| line.closed) {
            return;
        }
        self.look();
        self.clients[at].begins(conn, hello);
    }

    /// A packet of a client that may be wrong.
    pub(super) fn say(&mut self, at: usize, packet: Incoming, right: bool) -> bool {
        let Some(conn) = self.clients[at].conn else {
            return false;
        };
        // Nothing that it has in its hands is forgotten on the way: it looks first.
        self.look();
        if self.clients[at].conn != Some(conn) {
            return false;
        }
        let before = packet.clone();
        let given = self.world.give(conn, packet);
        if given {
            self.clients[at].says(&before, right);
        }
        given
    }

    fn version(&self, at: usize) -> Option<Version> {
        let client = &self.clients[at];
        client.conn.and(client.hello).map(|hello| hello.version)
    }

    fn publish(&mut self, at: usize, input: &mut Input<'_>) {
        let (how, which) = (input.byte(), input.byte());
        let Some(version) = self.version(at) else { return };
        let serial = self.next_serial;
        self.next_serial += 1;
        let payload = format!("#{serial:08x}");
        let qos = how % 3;
        let topic = match which {
            0xc0.. => format!("c/{}/send/text", self.world.conversation_id),
            which => TOPICS[usize::from(which) % TOPICS.len()].into(),
        };
        let follow = how & 0x80 == 0;
        let id = match follow {
            true => {
                self.next_id = self.next_id % 60_000 + 1;
                self.next_id = self.next_id.max(TRACKED_FROM);
                self.next_id
            }
            false => 1 + u16::from(how >> 4 & 7),
        };
        let flags = (how & 0x10 != 0 && !follow, how & 0x60 == 0x60);
        let packet = packets::publish(version, (&topic, &payload), qos, id, flags);
        let chat = which >= 0xc0;
        let targets = self.targets(at, &topic, chat);
        // A retained send is refused, and 3.1.1 cannot say so.
        let refused = chat && flags.1;
        if self.say(at, packet, true) && follow && qos > 0 && !refused {
            let tracked = Tracked {
                serial,
                chat,
                targets,
            };
            self.clients[at].tracked.insert(id, tracked);
        }
    }

    /// The sessions that a publish is for, for certain.
    fn targets(&self, from: usize, name: &str, chat: bool) -> Vec<(usize, u64)> {
        let mut targets = Vec::new();
        for (at, client) in self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.is_persistent())
        {
            let found = client.granted.iter().find(|(filter, granted)| {
                let local = match chat {
                    true => at % USERS == from % USERS,
                    false => at == from,
                };
                let for_it = match chat {
                    true => filter.starts_with("me/inbox"),
                    false => !filter.starts_with("$share/") && topic::matches(filter, name),
                };
                for_it && granted.qos > 0 && !(granted.no_local && local)
            });
            targets.extend(found.map(|(_, granted)| (at, granted.number)));
        }
        targets
    }

    fn subscribe(&mut self, at: usize, input: &mut Input<'_>) {
        let (how, first, second) = (input.byte(), input.byte(), input.byte());
        let Some(version) = self.version(at) else { return };
        let options = |byte: u8, filter: &str| {
            let no_local = if filter.starts_with("$share/") {
                0
            } else {
                (byte >> 4) & 4
            };
            let handling = ((byte >> 4) & 3).min(2) << 4;
            ((byte >> 4) % 3) | no_local | handling
        };
        let filter = |byte: u8| {
            let filter = FILTERS[usize::from(byte) % FILTERS.len()];
            (filter, options(byte ^ how, filter))
        };
        let filters = [filter(first), filter(second)];
        let count = 1 + usize::from(how & 0x80 != 0 && filters[0].0 != filters[1].0);
        let packet = packets::subscribe(version, 1 + u16::from(how & 0x3f), &filters[..count]);
        self.say(at, packet, true);
    }

    fn unsubscribe(&mut self, at: usize, input: &mut Input<'_>) {
        let (how, which) = (input.byte(), input.byte());
        let Some(version) = self.version(at) else { return };
        let filter = FILTERS[usize::from(which) % FILTERS.len()];
        self.say(
            at,
            packets::unsubscribe(version, 100 + u16::from(how), filter),
            true,
        );
    }

    /// It answers for something that it holds; or, rarely, for something that it does not.
    fn acknowledge(&mut self, at: usize, which: u8) {
        let Some(version) = self.version(at) else { return };
        let held = &self.clients[at].held;
        if which == 0xff || held.is_empty() {
            if which >= 0xf0 {
                let first = [0x40, 0x50, 0x70][usize::from(which) % 3];
                self.say(
                    at,
                    packets::ack(version, first, u16::from(which & 7) + 1, 0),
                    false,
                );
            }
            return;
        }
        let one = held[usize::from(which & 0x7f) % held.len()];
        let first = match (one.qos, one.received) {
            (1, _) => 0x40,
            (_, false) => 0x50,
            (_, true) => 0x70,
        };
        let reason = if which & 0xc0 == 0xc0 && first != 0x70 {
            0x80
        } else {
            0
        };
        self.say(at, packets::ack(version, first, one.id, reason), true);
    }

    fn release(&mut self, at: usize, which: u8) {
        let Some(version) = self.version(at) else { return };
        let waiting = &self.clients[at].to_release;
        let id = match waiting.is_empty() {
            true => u16::from(which & 7) + 1,
            false => waiting[usize::from(which) % waiting.len()],
        };
        self.say(at, packets::ack(version, 0x62, id, 0), true);
    }

    /// Bytes as they come: one packet, or a broken one.
    fn raw(&mut self, at: usize, input: &mut Input<'_>) {
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        let (Some(conn), Some(version)) = (self.clients[at].conn, self.version(at)) else {
            return;
        };
        let Frame::Whole { len } = codec::frame(bytes, 1 << 16) else {
            return;
        };
        match codec::decode(version, &bytes[..len]) {
            Ok(Incoming::Connect(_) | Incoming::Pingreq | Incoming::Auth { .. }) => {}
            // The door puts the topic in.
            Ok(Incoming::Publish(publish)) if publish.topic.is_empty() || publish.topic_alias.is_some() => {}
            Ok(packet) => {
                // It may lengthen or shorten its session by what is not followed.
                let odd = matches!(packet, Incoming::Disconnect { .. });
                if self.say(at, packet, false) && odd {
                    self.clients[at].forget();
                }
            }
            Err(error) => self.world.close(conn, CloseReason::Protocol(error.reason), 0),
        }
    }

    fn disconnect(&mut self, at: usize, input: &mut Input<'_>) {
        let how = input.byte();
        let Some(version) = self.version(at) else { return };
        let expiry = (how & 3 == 3).then(|| EXPIRIES[usize::from(how >> 2) % EXPIRIES.len()]);
        let reason = if how & 0x80 == 0 { 0 } else { 4 };
        self.say(at, packets::disconnect(version, reason, expiry), true);
    }

    pub(super) fn drop(&mut self, at: usize, how: u8) {
        let Some(conn) = self.clients[at].conn else { return };
        let reason = match how & 3 {
            0 | 1 => CloseReason::Gone,
            2 => CloseReason::KeepAlive,
            _ => CloseReason::TooSlow,
        };
        self.world.close(conn, reason, u32::from(how >> 2 & 3));
    }

    fn crash(&mut self) {
        self.look();
        self.world.crash();
        let now_ms = self.world.now_ms();
        for client in &mut self.clients {
            client.crashed(now_ms);
        }
    }

    /// Every client takes what came for it.
    pub(super) fn look(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let Some(conn) = client.conn else { continue };
            let mut told = Vec::new();
            let Some(line) = self.world.line(conn) else {
                continue;
            };
            while let Some(packet) = line.out.pop_front() {
                told.extend(client.hears(packet));
            }
            let closed = line.closed;
            for Told::Acknowledged(tracked) in told {
                self.acknowledged(&tracked);
            }
            if closed {
                self.clients[at].ended(self.looked_ms);
            }
        }
        let now_ms = self.world.now_ms();
        self.looked_ms = now_ms;
        for client in &mut self.clients {
            client.now(now_ms);
        }
    }

    /// ACK: it is in the log of each that it is for, or has been there.
    fn acknowledged(&mut self, tracked: &Tracked) {
        let mut logs = 0;
        for (at, grant) in &tracked.targets {
            let client = &mut self.clients[*at];
            let same = client.granted.values().any(|granted| granted.number == *grant);
            if same && client.is_persistent() {
                client.owed.insert(tracked.serial);
                logs += 1;
            }
        }
        if !tracked.chat && logs > 0 {
            let found = self
                .world
                .logs_with(format!("#{:08x}", tracked.serial).as_bytes());
            assert!(
                found >= logs,
                "ACK: {logs} sessions should have it in their logs, {found} have"
            );
        }
    }
}
