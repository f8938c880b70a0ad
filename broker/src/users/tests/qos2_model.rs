//! A client that publishes with QoS 2, over random drops, held commits, silent topics, crashes and re-used identifiers:
//! a message has one id for ever, goes on once in a start, and what got its PUBREC went on (ONCE, ACK).

use std::collections::{BTreeMap, HashMap, VecDeque};

use godwit_wire::account::Principal;
use proptest::prelude::*;

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

/// Few identifiers, so that they come again soon.
const IDS: u16 = 6;

#[derive(Clone, Debug)]
enum Step {
    Publish,
    /// To where it may not: refused before anything is stored.
    Refused,
    Drop,
    Hold,
    Commit(usize),
    Deaf(bool),
    Pass(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Publish),
        2 => Just(Step::Refused),
        6 => Just(Step::Drop),
        2 => Just(Step::Hold),
        6 => (1usize..4).prop_map(Step::Commit),
        3 => any::<bool>().prop_map(Step::Deaf),
        2 => prop_oneof![Just(600u64), Just(4_000), Just(11_000)].prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Sent,
    Released,
}

struct Client {
    rig: Rig,
    alice: Principal,
    version: Version,
    conn: ConnId,
    /// CONNACK came.
    ready: bool,
    /// What is not complete, in the order in which it was sent.
    open: VecDeque<(u16, String, String, At)>,
    next_id: u16,
    next: u32,
    /// Payloads by the message id that they had.
    ids: HashMap<String, godwit_wire::ids::MessageId>,
    recorded: Vec<String>,
    went_on: Vec<String>,
    seen: usize,
}

impl Client {
    fn new(version: Version) -> Self {
        let mut rig = Rig::new();
        let alice = user("alice");
        let conn = rig.connect(&alice, persistent(version, "p"));
        let mut client = Self {
            rig,
            alice,
            version,
            conn,
            ready: false,
            open: VecDeque::new(),
            next_id: 1,
            next: 0,
            ids: HashMap::new(),
            recorded: Vec::new(),
            went_on: Vec::new(),
            seen: 0,
        };
        client.settle();
        client
    }

    fn publish(&mut self, topic: &str) {
        let free = |id: &u16| self.open.iter().all(|open| open.0 != *id);
        let id = (0..IDS).map(|n| (self.next_id + n) % IDS + 1).find(free);
        let Some(id) = id.filter(|_| self.ready && !self.rig.is_closed(self.conn)) else {
            return;
        };
        self.next_id = id;
        self.next += 1;
        let payload = self.next.to_string();
        self.open
            .push_back((id, topic.to_owned(), payload.clone(), At::Sent));
        self.rig.give(self.conn, publish(topic, &payload, 2, id));
    }

    fn come(&mut self) {
        self.ready = false;
        self.conn = self.rig.connect(&self.alice, persistent(self.version, "p"));
    }

    fn look(&mut self) {
        for packet in self.rig.out(self.conn) {
            match packet {
                Outgoing::Connack(connack) => {
                    assert_eq!(connack.reason, 0);
                    self.ready = true;
                    for (id, topic, payload, at) in self.open.clone() {
                        let again = match at {
                            At::Sent => publish(&topic, &payload, 2, id),
                            At::Released => Incoming::Pubrel(id, 0),
                        };
                        self.rig.give(self.conn, again);
                    }
                }
                Outgoing::Pubrec(ack) => {
                    let sent =
                        |open: &(u16, String, String, At)| open.0 == ack.packet_id && open.3 == At::Sent;
                    let at = self.open.iter().position(sent);
                    let at = at.unwrap_or_else(|| panic!("{ack:?} is of nothing that waits for it"));
                    if ack.reason >= 0x80 {
                        self.open.remove(at);
                        continue;
                    }
                    assert!(self.open[at].1.contains("alice"), "a refused one got a PUBREC");
                    self.open[at].3 = At::Released;
                    self.recorded.push(self.open[at].2.clone());
                    self.rig.give(self.conn, Incoming::Pubrel(ack.packet_id, 0));
                }
                Outgoing::Pubcomp(ack) => {
                    let released =
                        |open: &(u16, String, String, At)| open.0 == ack.packet_id && open.3 == At::Released;
                    let at = self.open.iter().position(released);
                    self.open.remove(at.expect("a PUBCOMP of what was released"));
                }
                _ => {}
            }
        }
        for publish in &self.rig.published[self.seen..] {
            let payload = String::from_utf8_lossy(&publish.payload).into_owned();
            let id = publish.message_id.expect("QoS 2 has one");
            assert_eq!(
                *self.ids.entry(payload.clone()).or_insert(id),
                id,
                "{payload} has one id"
            );
            self.went_on.push(payload);
        }
        self.seen = self.rig.published.len();
        let mut counts = BTreeMap::new();
        for publish in &self.rig.published {
            let count = counts.entry(&publish.payload).or_insert(0);
            *count += 1;
            assert_eq!(*count, 1, "{:?} goes on once in a start", publish.payload);
        }
        for recorded in &self.recorded {
            assert!(self.went_on.contains(recorded), "{recorded} has its PUBREC");
        }
    }

    fn settle(&mut self) {
        loop {
            self.rig.run();
            let out = self
                .rig
                .wire
                .lines
                .get(&self.conn)
                .map_or(0, |line| line.out.len());
            self.look();
            if out == 0 {
                return;
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Publish => self.publish("iot/alice/t"),
            // In 3.1.1 it would close every connection from now on.
            Step::Refused if self.version == Version::V311 => {}
            Step::Refused => self.publish("iot/bob/t"),
            Step::Drop => {
                self.rig.vanish(self.conn);
                self.rig.out(self.conn);
                self.come();
            }
            Step::Hold => self.rig.hold(true),
            Step::Commit(count) => self.rig.store.commit(*count),
            Step::Deaf(deaf) => self.rig.deaf = *deaf,
            Step::Pass(ms) => self.rig.pass(*ms),
            Step::Crash => {
                self.rig.crash();
                self.seen = 0;
                self.come();
            }
        }
        self.settle();
        if self.rig.is_closed(self.conn) {
            self.come();
            self.settle();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4_096, ..ProptestConfig::default() })]

    #[test]
    fn a_message_goes_on_once_under_one_id_whatever_happens(
        v311 in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut client = Client::new(if v311 { Version::V311 } else { Version::V5 });
        for step in &steps {
            client.apply(step);
        }
        client.rig.deaf = false;
        client.rig.hold(false);
        client.settle();
        client.apply(&Step::Drop);
        prop_assert!(client.open.is_empty(), "everything is complete");
        client.rig.pass(60_000);
        // What is left in the store is what the client gave up when it was told `unavailable`, once for an identifier.
        client.rig.crash();
        client.seen = 0;
        client.come();
        client.settle();
        let kept = client.rig.store.rows_of_table(crate::tables::USER_ROWS.id);
        prop_assert!(kept <= 2 + usize::from(IDS), "{kept} rows");
    }
}
