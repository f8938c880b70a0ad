//! Sessions against a small model, over random packets, drops, crashes and held commits. The model knows only what was
//! acknowledged to whom: nothing acknowledged is lost, nothing overtakes, nothing is given to a session that it has
//! acknowledged durably, identifiers in flight are distinct, windows are kept.

use std::collections::{BTreeMap, HashMap};

use godwit_wire::account::Principal;
use godwit_wire::ids::ConversationId;
use proptest::prelude::*;

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

const WINDOW: u16 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// The publisher sends the next number with this QoS on the ordinary topic.
    Publish(u8),
    /// Or as a chat message.
    Send,
    /// The subscriber acknowledges the nth of what it holds.
    Ack(usize),
    /// It vanishes.
    Drop,
    /// Or says goodbye.
    Leave,
    /// It comes (back).
    Come,
    /// The publisher reconnects and repeats what is not acknowledged.
    PublisherAgain,
    /// The store holds commits back, or commits so many.
    Hold,
    Commit(usize),
    /// kill -9.
    Crash,
    /// Time passes.
    Pass(u64),
    /// The subscriber's socket is full, or has room again.
    Full,
    Drained,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1u8..=2).prop_map(Step::Publish),
        10 => Just(Step::Send),
        14 => (0usize..6).prop_map(Step::Ack),
        2 => Just(Step::Drop),
        1 => Just(Step::Leave),
        4 => Just(Step::Come),
        2 => Just(Step::PublisherAgain),
        1 => Just(Step::Hold),
        3 => (1usize..8).prop_map(Step::Commit),
        1 => Just(Step::Crash),
        2 => prop_oneof![Just(600u64), Just(15_000), Just(30_000)].prop_map(Step::Pass),
        1 => Just(Step::Full),
        2 => Just(Step::Drained),
    ]
}

/// One of the two streams: the ordinary topic and the conversation.
#[derive(Default)]
struct Stream {
    next: u32,
    /// Acknowledged to the publisher.
    acknowledged: Vec<u32>,
    /// What the subscriber saw first, in order.
    seen: Vec<u32>,
    /// Delivered on this connection, the last one.
    last_on_connection: u32,
}

struct Model {
    rig: Rig,
    alice: Principal,
    conversation: ConversationId,
    subscriber: Option<ConnId>,
    publisher: ConnId,
    topic: Stream,
    chat: Stream,
    /// Packets that the publisher has not been acknowledged: by identifier (topic QoS 1 and 2, chat).
    unacknowledged: BTreeMap<u16, (bool, u8, u32)>,
    /// PUBRELs that wait for PUBCOMP.
    released: Vec<u16>,
    next_id: u16,
    /// What the subscriber holds unacknowledged: identifier → QoS and whether PUBREC was sent.
    held: Vec<(u16, u8, bool)>,
    received2: HashMap<u32, u32>,
}

impl Model {
    fn new() -> Self {
        let mut rig = Rig::new();
        let (alice, bob) = (user("alice"), user("bob"));
        let conversation = rig.make_conversation(&[alice.user, bob.user]);
        let publisher = rig.connect(&alice, persistent(Version::V5, "publisher"));
        let mut model = Self {
            rig,
            alice,
            conversation,
            subscriber: None,
            publisher,
            topic: Stream::default(),
            chat: Stream::default(),
            unacknowledged: BTreeMap::new(),
            released: Vec::new(),
            next_id: 1,
            held: Vec::new(),
            received2: HashMap::new(),
        };
        model.come();
        let subscriber = model.subscriber.unwrap();
        assert_eq!(model.rig.subscribe(subscriber, "iot/alice/#", 2), [2]);
        assert_eq!(model.rig.subscribe(subscriber, "me/inbox/text", 1), [1]);
        model
    }

    fn come(&mut self) {
        if self.subscriber.is_some_and(|conn| !self.rig.is_closed(conn)) {
            self.look();
        }
        let mut connect = persistent(Version::V5, "subscriber");
        connect.receive_maximum = WINDOW;
        self.held.clear();
        self.topic.last_on_connection = 0;
        self.chat.last_on_connection = 0;
        self.subscriber = Some(self.rig.connect(&self.alice, connect));
    }

    fn give(&mut self, id: u16, (chat, qos, number): (bool, u8, u32), dup: bool) {
        let topic = match chat {
            true => format!("c/{}/send/json", self.conversation),
            false => "iot/alice/t".into(),
        };
        let payload = match chat {
            true => format!("{{\"client_message_id\":\"m{number}\",\"content\":\"{number}\"}}"),
            false => number.to_string(),
        };
        let Incoming::Publish(mut packet) = publish(&topic, &payload, qos, id) else {
            unreachable!()
        };
        packet.dup = dup;
        self.rig.packet(self.publisher, Incoming::Publish(packet));
    }

    fn publish(&mut self, chat: bool, qos: u8) {
        // A real client keeps to the order and has one connection: it goes on only when it is connected.
        if self.unacknowledged.len() + self.released.len() >= 20 || self.rig.is_closed(self.publisher) {
            return;
        }
        let stream = if chat { &mut self.chat } else { &mut self.topic };
        stream.next += 1;
        let number = stream.next;
        let id = self.next_id;
        self.next_id = self.next_id % 60_000 + 1;
        self.unacknowledged.insert(id, (chat, qos, number));
        self.give(id, (chat, qos, number), false);
    }

    fn publisher_again(&mut self) {
        self.publisher = self
            .rig
            .connect(&self.alice, persistent(Version::V5, "publisher"));
        for (id, what) in self.unacknowledged.clone() {
            self.give(id, what, true);
        }
        for id in self.released.clone() {
            self.rig.packet(self.publisher, Incoming::Pubrel(id, 0));
        }
    }

    /// Looks at what was sent to both.
    fn look(&mut self) {
        for packet in self.rig.out(self.publisher) {
            match packet {
                Outgoing::Puback(ack) if ack.reason < 0x80 => {
                    let known = self.unacknowledged.remove(&ack.packet_id);
                    if let Some((chat, _, number)) = known {
                        if chat { &mut self.chat } else { &mut self.topic }
                            .acknowledged
                            .push(number);
                    }
                }
                Outgoing::Pubrec(ack) if ack.reason < 0x80 => {
                    if let Some((_, _, number)) = self.unacknowledged.remove(&ack.packet_id) {
                        self.topic.acknowledged.push(number);
                        self.released.push(ack.packet_id);
                        self.rig.give(self.publisher, Incoming::Pubrel(ack.packet_id, 0));
                    }
                }
                Outgoing::Pubcomp(ack) => self.released.retain(|id| *id != ack.packet_id),
                Outgoing::Puback(ack) | Outgoing::Pubrec(ack) => {
                    // Held too long: told unavailable. It is sent again under its number.
                    assert_eq!(ack.reason, 0x83);
                    if let Some(what) = self.unacknowledged.remove(&ack.packet_id) {
                        let id = self.next_id;
                        self.next_id = self.next_id % 60_000 + 1;
                        // Only a chat message has an id of its own; another publish would be a new one.
                        if what.0 {
                            self.unacknowledged.insert(id, what);
                        }
                    }
                }
                _ => {}
            }
        }
        let Some(conn) = self.subscriber else { return };
        for packet in self.rig.out(conn) {
            match packet {
                Outgoing::Publish(publish) => {
                    let chat = publish.topic.starts_with("me/");
                    let body = text(&publish);
                    let number: u32 = body.rsplit(' ').next().unwrap().parse().unwrap();
                    assert!(
                        !self.held.iter().any(|(id, ..)| *id == publish.packet_id),
                        "identifiers in flight are distinct"
                    );
                    self.held.push((publish.packet_id, publish.qos, false));
                    assert!(self.held.len() <= usize::from(WINDOW), "the window is kept");
                    if publish.qos == 2 {
                        *self.received2.entry(number).or_default() += 1;
                    }
                    let stream = if chat { &mut self.chat } else { &mut self.topic };
                    if chat {
                        assert!(number > stream.last_on_connection, "nothing overtakes (ORDER)");
                        stream.last_on_connection = number;
                    }
                    if !stream.seen.contains(&number) {
                        if chat {
                            assert_eq!(number, stream.seen.len() as u32 + 1, "no gap");
                        }
                        stream.seen.push(number);
                    }
                }
                Outgoing::Pubrel(ack) => {
                    let known = self.held.iter().position(|(id, ..)| *id == ack.packet_id);
                    match known {
                        Some(at) => assert!(self.held[at].2, "a PUBREL follows a PUBREC"),
                        None => self.held.push((ack.packet_id, 2, true)),
                    }
                    assert!(self.held.len() <= usize::from(WINDOW), "the window is kept");
                    self.held.retain(|(id, ..)| *id != ack.packet_id);
                    self.rig.give(conn, Incoming::Pubcomp(ack.packet_id, 0));
                }
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        loop {
            self.rig.run();
            let outs = |rig: &Rig, conn: ConnId| rig.wire.lines.get(&conn).map_or(0, |line| line.out.len());
            let left =
                outs(&self.rig, self.publisher) + self.subscriber.map_or(0, |conn| outs(&self.rig, conn));
            if left == 0 {
                return;
            }
            self.look();
        }
    }

    fn ack(&mut self, nth: usize) {
        let Some(conn) = self.subscriber.filter(|conn| !self.rig.is_closed(*conn)) else {
            return;
        };
        let open: Vec<usize> = (0..self.held.len()).filter(|at| !self.held[*at].2).collect();
        let Some(at) = open.get(nth % open.len().max(1)).copied() else {
            return;
        };
        let (id, qos, _) = self.held[at];
        if qos == 2 {
            self.held[at].2 = true;
            self.rig.packet(conn, Incoming::Pubrec(id, 0));
        } else {
            self.held.remove(at);
            self.rig.packet(conn, Incoming::Puback(id, 0));
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Publish(qos) => self.publish(false, *qos),
            Step::Send => self.publish(true, 1),
            Step::Ack(nth) => self.ack(*nth),
            Step::Drop => {
                self.settle();
                if let Some(conn) = self.subscriber {
                    self.rig.vanish(conn);
                }
            }
            Step::Leave => {
                self.settle();
                if let Some(conn) = self.subscriber.filter(|conn| !self.rig.is_closed(*conn)) {
                    self.rig.packet(
                        conn,
                        Incoming::Disconnect {
                            reason: 0,
                            session_expiry: None,
                        },
                    );
                }
            }
            Step::Come => self.come(),
            Step::PublisherAgain => {
                self.settle();
                self.publisher_again();
            }
            Step::Hold => self.rig.hold(true),
            Step::Commit(count) => self.rig.store.commit(*count),
            Step::Crash => {
                self.settle();
                self.rig.crash();
                self.held.clear();
                self.subscriber = None;
                self.publisher_again();
            }
            Step::Pass(ms) => self.rig.pass(*ms),
            Step::Full => {
                if let Some(line) = self
                    .subscriber
                    .and_then(|conn| self.rig.wire.lines.get_mut(&conn))
                {
                    line.full = true;
                }
            }
            Step::Drained => {
                if let Some(conn) = self.subscriber.filter(|conn| !self.rig.is_closed(*conn)) {
                    self.rig.drained(conn);
                }
            }
        }
        self.settle();
    }

    /// Everything works again: everything acknowledged arrives.
    fn finish(&mut self) {
        self.rig.hold(false);
        self.settle();
        for round in 0..4 {
            self.publisher_again();
            self.settle();
            if self.unacknowledged.is_empty() && self.released.is_empty() {
                break;
            }
            assert!(
                round < 3,
                "the publisher is done: {:?} {:?}",
                self.unacknowledged,
                self.released
            );
        }
        self.come();
        self.settle();
        while self.held.iter().any(|(_, _, recorded)| !recorded) {
            self.ack(0);
            self.settle();
        }
        for (name, stream) in [("topic", &self.topic), ("chat", &self.chat)] {
            for number in &stream.acknowledged {
                assert!(
                    stream.seen.contains(number),
                    "{name} {number} was acknowledged and is lost"
                );
            }
        }
        assert_eq!(
            self.chat.seen.len() as u32,
            self.chat.next,
            "every message once, in order"
        );
        assert_eq!(self.rig.metrics.missing.get(), 0);
        // Everything is settled: after a clean end and a new start nothing comes again.
        self.rig.pass(1_000);
        self.rig.crash();
        self.subscriber = None;
        self.come();
        self.look();
        assert!(self.held.is_empty(), "nothing is owed any more: {:?}", self.held);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4_096, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_arrives_in_order_whatever_happens(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
        }
        model.finish();
    }
}
