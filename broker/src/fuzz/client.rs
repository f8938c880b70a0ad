//! What a client of the target `sessions` knows of its session: what it holds, what it was acknowledged, what it is owed
//! for certain. Judges every packet that it gets.

use std::collections::{HashMap, HashSet, VecDeque};

use super::packets::Hello;
use super::world::World;
use crate::packet::{Incoming, Outgoing};
use crate::wire_trait::ConnId;

/// A PUBLISH of QoS 1 or 2 that is not settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) id: u16,
    pub(super) qos: u8,
    /// PUBREC went.
    pub(super) received: bool,
}

/// A filter that was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    /// Names this grant.
    pub(super) number: u64,
    pub(super) qos: u8,
    pub(super) no_local: bool,
}

/// A filter of a SUBSCRIBE that is not answered; `None`: what comes of it is not followed.
type Asked = Option<(String, bool)>;

/// A publish whose arrival is followed: who must get it, by client and grant.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) serial: u32,
    pub(super) chat: bool,
    pub(super) targets: Vec<(usize, u64)>,
}

/// What follows from a packet for others.
pub(super) enum Told {
    /// This publish was acknowledged.
    Acknowledged(Tracked),
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) conn: Option<ConnId>,
    pub(super) hello: Option<Hello>,
    pub(super) held: Vec<Held>,
    /// QoS 2 publishes that got their PUBREC.
    pub(super) to_release: Vec<u16>,
    /// By identifier.
    pub(super) tracked: HashMap<u16, Tracked>,
    pub(super) granted: HashMap<String, Granted>,
    /// Serial numbers that it got.
    pub(super) seen: HashSet<u32>,
    /// Those that it must get.
    pub(super) owed: HashSet<u32>,
    /// Identifiers of what it was given with QoS 1 and 2 and has not settled, on this connection or an earlier one: to
    /// be repeated when its session is resumed, whatever became of the subscription.
    pub(super) begun: HashSet<u16>,
    /// Its session exists for certain until this time, milliseconds; it was told so.
    pub(super) exists_until: Option<u64>,
    /// And until this time also if a crash takes what nobody acknowledged: a DISCONNECT that lengthens it.
    survives_until: u64,
    /// Seconds, as the last CONNECT said, and as the last CONNACK confirmed.
    asked_expiry: u32,
    confirmed_expiry: u32,
    /// What it is owed after it said things that it should not have said is not followed.
    pub(super) lied: bool,
    /// Identifiers of its PUBRECs for nothing on this connection: in 3.1.1 their PUBRELs look like right ones.
    for_nothing: Vec<u16>,
    /// Acknowledgements that it may get on this connection, by first byte and identifier.
    awaited: HashMap<(u8, u16), u32>,
    asked: HashMap<u16, VecDeque<Vec<Asked>>>,
    next_grant: u64,
}

impl Client {
    /// Its session is gone, or may be: nothing is followed any more.
    pub(super) fn forget(&mut self) {
        self.exists_until = None;
        self.granted.clear();
        self.owed.clear();
        self.begun.clear();
        self.seen.clear();
        self.tracked.clear();
        self.to_release.clear();
        self.lied = false;
    }

    /// A new connection takes the place of the one it had.
    pub(super) fn begins(&mut self, conn: ConnId, hello: Hello) {
        if hello.clean {
            self.forget();
        }
        self.conn = Some(conn);
        self.asked_expiry = hello.expiry;
        self.hello = Some(hello);
    }

    /// Its connection is over.
    pub(super) fn ended(&mut self, now_ms: u64) {
        self.conn = None;
        self.held.clear();
        self.awaited.clear();
        self.asked.clear();
        self.for_nothing.clear();
        let until = |expiry: u32| now_ms.saturating_add(u64::from(expiry) * 1_000);
        match (self.hello, self.exists_until) {
            (Some(hello), Some(before)) if hello.expiry > 0 => {
                // A CONNECT without its CONNACK may have shortened the time that it was told before, and lengthens nothing.
                let told = before.min(until(hello.expiry));
                self.exists_until = Some(told);
                self.survives_until = self.survives_until.min(told).min(until(self.confirmed_expiry));
            }
            _ => self.forget(),
        }
    }

    /// The server has crashed.
    pub(super) fn crashed(&mut self, now_ms: u64) {
        if self.conn.is_some() {
            self.ended(now_ms);
        }
        self.exists_until = self.exists_until.map(|until| until.min(self.survives_until));
        self.now(now_ms);
    }

    /// Time has passed.
    pub(super) fn now(&mut self, now_ms: u64) {
        if self.conn.is_none() && self.exists_until.is_some_and(|until| now_ms >= until) {
            self.forget();
        }
    }

    /// Whether it has a session that outlives its connection.
    pub(super) fn is_persistent(&self) -> bool {
        self.exists_until.is_some() && self.hello.is_some_and(|hello| hello.expiry > 0)
    }

    /// It is about to say this. `told`: as a right client would.
    pub(super) fn says(&mut self, packet: &Incoming, right: bool) {
        match packet {
            Incoming::Publish(publish) if publish.qos > 0 => {
                let first = if publish.qos == 1 { 0x40 } else { 0x50 };
                *self.awaited.entry((first, publish.packet_id)).or_default() += 1;
                if publish.qos == 2 {
                    // Its PUBREL may come from an earlier connection's PUBREC.
                    *self.awaited.entry((0x70, publish.packet_id)).or_default() += 1;
                }
                self.tracked.remove(&publish.packet_id);
            }
            Incoming::Pubrel(id, _) => {
                *self.awaited.entry((0x70, *id)).or_default() += 1;
                self.to_release.retain(|one| one != id);
            }
            Incoming::Puback(id, _) | Incoming::Pubcomp(id, _) => {
                self.settles(*id);
                self.lied |= !right;
            }
            Incoming::Pubrec(id, reason) => {
                if !right {
                    self.for_nothing.push(*id);
                }
                if *reason >= 0x80 {
                    self.settles(*id);
                } else if let Some(held) = self.held.iter_mut().find(|held| held.id == *id) {
                    held.received = true;
                }
                self.lied |= !right;
            }
            Incoming::Subscribe {
                packet_id, filters, ..
            } => {
                let mut asked: Vec<Asked> = filters
                    .iter()
                    .map(|one| {
                        self.no_longer(&one.filter);
                        Some((one.filter.to_string(), one.no_local))
                    })
                    .collect();
                let open = self.asked.entry(*packet_id).or_default();
                // Of two with one identifier, which no right client sends, either may be answered first and the answers
                // look alike: neither is taken for a grant.
                if !open.is_empty() {
                    open.iter_mut().flatten().for_each(|one| *one = None);
                    asked.fill(None);
                }
                open.push_back(asked);
            }
            Incoming::Unsubscribe { packet_id, filters } => {
                for filter in filters {
                    self.no_longer(filter);
                }
                // What is owed by a filter that is gone may go with it.
                self.owed.clear();
                *self.awaited.entry((0xb0, *packet_id)).or_default() += 1;
            }
            Incoming::Disconnect { session_expiry, .. } => {
                if let (Some(expiry), Some(hello)) = (session_expiry, &mut self.hello)
                    && hello.expiry > 0
                {
                    hello.expiry = *expiry;
                }
            }
            _ => {}
        }
    }

    fn settles(&mut self, id: u16) {
        self.held.retain(|held| held.id != id);
        self.begun.remove(&id);
    }

    /// A filter is asked for again, or given back: what it had is not followed.
    fn no_longer(&mut self, filter: &str) {
        self.granted.remove(filter);
        for asked in self.asked.values_mut().flatten().flatten() {
            asked.take_if(|(other, _)| other == filter);
        }
    }

    fn awaited(&mut self, first: u8, id: u16) -> bool {
        self.awaited.get(&(first, id)).is_some_and(|count| *count > 0)
    }

    /// Judges a packet that came.
    pub(super) fn hears(&mut self, packet: Outgoing) -> Option<Told> {
        match packet {
            Outgoing::Connack(connack) if connack.reason == 0 => {
                let hello = self.hello?;
                assert!(
                    !(hello.clean && connack.session_present),
                    "a clean start finds nothing"
                );
                let must = self.exists_until.is_some();
                assert!(connack.session_present || !must, "a session is lost");
                if !connack.session_present {
                    self.forget();
                }
                self.exists_until = Some(u64::MAX);
                self.survives_until = u64::MAX;
                self.confirmed_expiry = self.asked_expiry;
            }
            Outgoing::Publish(publish) => {
                if let Some(serial) = World::serial(&publish.payload) {
                    self.seen.insert(serial);
                }
                assert_eq!(publish.qos > 0, publish.packet_id > 0);
                if publish.qos > 0 {
                    let again = self.held.iter().any(|held| held.id == publish.packet_id);
                    assert!(!again, "identifiers in flight are distinct");
                    self.held.push(Held {
                        id: publish.packet_id,
                        qos: publish.qos,
                        received: false,
                    });
                    self.begun.insert(publish.packet_id);
                    self.keeps_window();
                }
            }
            // An answer to a PUBREC for nothing.
            Outgoing::Pubrel(ack) if ack.reason >= 0x80 => {
                assert!(
                    self.lied || self.for_nothing.contains(&ack.packet_id),
                    "a PUBREL with an error"
                );
            }
            Outgoing::Pubrel(ack) => {
                let nothing = self.for_nothing.iter().position(|id| *id == ack.packet_id);
                match (
                    self.held.iter_mut().find(|held| held.id == ack.packet_id),
                    nothing,
                ) {
                    (Some(held), _) => held.received = true,
                    (None, Some(at)) => _ = self.for_nothing.swap_remove(at),
                    (None, None) => self.held.push(Held {
                        id: ack.packet_id,
                        qos: 2,
                        received: true,
                    }),
                }
                self.keeps_window();
            }
            Outgoing::Puback(ack) => {
                assert!(
                    self.awaited(0x40, ack.packet_id),
                    "a PUBACK for what was published"
                );
                *self.awaited.entry((0x40, ack.packet_id)).or_default() -= 1;
                let tracked = self.tracked.remove(&ack.packet_id);
                return tracked.filter(|_| ack.reason < 0x80).map(Told::Acknowledged);
            }
            Outgoing::Pubrec(ack) => {
                assert!(
                    self.awaited(0x50, ack.packet_id),
                    "a PUBREC for what was published"
                );
                let tracked = self.tracked.remove(&ack.packet_id);
                if ack.reason < 0x80 {
                    self.to_release.push(ack.packet_id);
                    return tracked.map(Told::Acknowledged);
                }
            }
            Outgoing::Pubcomp(ack) => {
                assert!(
                    self.awaited(0x70, ack.packet_id),
                    "a PUBCOMP for what was released"
                );
            }
            Outgoing::Suback(id, codes) => {
                let asked = self.asked.get_mut(&id).and_then(VecDeque::pop_front);
                let asked = asked.expect("a SUBACK for a SUBSCRIBE");
                // Of two with one identifier the other may have been answered first.
                if asked.len() != codes.len() {
                    let others = self.asked.get(&id).is_some_and(|others| !others.is_empty());
                    assert!(others || self.lied, "one code a filter");
                    self.lied = true;
                    self.granted.clear();
                    return None;
                }
                for (asked, code) in asked.into_iter().zip(codes) {
                    let Some((filter, no_local)) = asked.filter(|_| code <= 2) else {
                        continue;
                    };
                    self.next_grant += 1;
                    let granted = Granted {
                        number: self.next_grant,
                        qos: code,
                        no_local,
                    };
                    self.granted.insert(filter, granted);
                }
            }
            Outgoing::Unsuback(id, _) => {
                assert!(self.awaited(0xb0, id), "an UNSUBACK for an UNSUBSCRIBE");
                *self.awaited.entry((0xb0, id)).or_default() -= 1;
            }
            _ => {}
        }
        None
    }

    fn keeps_window(&self) {
        let window = self.hello.map_or(0, |hello| usize::from(hello.window));
        assert!(
            self.held.len() <= window.min(256) || self.lied,
            "BOUND: the client's receive maximum"
        );
    }
}
