//! A group against a small model, over random publishes, members that come, go and leave, held commits and kills. The
//! model knows only what was acknowledged to whom.

use std::collections::{BTreeMap, BTreeSet};

use godwit_wire::account::Principal;
use proptest::prelude::*;

use super::clients::*;
use super::rig::*;
use crate::packet::{Connect, Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
const GROUP: &str = "$share/g/iot/alice/#";
const TOPIC: &str = "iot/alice/t";
/// A member that stays, two that may be gone for good, and one whose session is in memory only.
const MEMBERS: usize = 4;
const STAYS: usize = 0;
const IN_MEMORY: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Connect(usize),
    CleanStart(usize),
    Vanish(usize),
    Ack(usize, usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Hold(bool),
    Commit(usize),
    Crash,
    Pass(u64),
}

/// Nobody leaves the group and no session ends.
fn calm() -> impl Strategy<Value = Step> {
    let member = 0..IN_MEMORY;
    prop_oneof![
        6 => Just(Step::Publish),
        3 => member.clone().prop_map(Step::Connect),
        2 => member.clone().prop_map(Step::Vanish),
        3 => (member, 0..6usize).prop_map(|(who, count)| Step::Ack(who, count)),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => (1..4usize).prop_map(Step::Commit),
        1 => Just(Step::Crash),
        1 => (0..20u64).prop_map(Step::Pass),
    ]
}

fn wild() -> impl Strategy<Value = Step> {
    let leaver = 1..MEMBERS;
    prop_oneof![
        8 => calm(),
        2 => leaver.clone().prop_map(Step::CleanStart),
        2 => leaver.clone().prop_map(Step::Subscribe),
        1 => leaver.clone().prop_map(Step::Unsubscribe),
        1 => leaver.prop_map(Step::Vanish),
        1 => Just(Step::Pass(70)),
    ]
}

struct Model {
    rig: Rig,
    alice: Principal,
    /// Sessions of the two that may go end after a minute.
    mortal: bool,
    publisher: ConnId,
    lines: [Option<ConnId>; MEMBERS],
    /// Received and not acknowledged on the present connection: packet id and number.
    owed: [Vec<(u16, u16)>; MEMBERS],
    published: u16,
    acknowledged: BTreeSet<u16>,
    done: BTreeSet<u16>,
    got: BTreeMap<u16, BTreeSet<usize>>,
    /// Lost with a kill: a session in memory had it, or what it left was not yet elsewhere.
    excused: BTreeSet<u16>,
    limbo: BTreeSet<u16>,
    held: bool,
}

impl Model {
    fn new(mortal: bool) -> Self {
        let mut rig = Rig::with_topics();
        let alice = user("alice");
        let publisher = rig.connect(&alice, clean(V5, "pub"));
        let mut model = Self {
            rig,
            alice,
            mortal,
            publisher,
            lines: [None; MEMBERS],
            owed: Default::default(),
            published: 0,
            acknowledged: BTreeSet::new(),
            done: BTreeSet::new(),
            got: BTreeMap::new(),
            excused: BTreeSet::new(),
            limbo: BTreeSet::new(),
            held: false,
        };
        for who in 0..IN_MEMORY {
            model.connect(who, false);
            model.subscribe(who);
        }
        model
    }

    fn how(&self, who: usize, clean_start: bool) -> Connect {
        let session_expiry = match who {
            IN_MEMORY => 0,
            STAYS => 1_000_000,
            _ if self.mortal => 60,
            _ => 1_000_000,
        };
        Connect {
            clean_start,
            session_expiry,
            ..persistent(V5, &format!("m{who}"))
        }
    }

    fn left(&mut self, who: usize) {
        let owed = std::mem::take(&mut self.owed[who]);
        if who == IN_MEMORY && self.held {
            self.limbo.extend(owed.iter().map(|(_, number)| *number));
        }
        self.lines[who] = None;
    }

    fn connect(&mut self, who: usize, clean_start: bool) {
        self.left(who);
        let connect = self.how(who, clean_start);
        self.lines[who] = Some(self.rig.connect(&self.alice, connect));
        self.listen();
    }

    fn vanish(&mut self, who: usize) {
        if let Some(conn) = self.lines[who] {
            self.rig.vanish(conn);
            self.left(who);
            self.listen();
        }
    }

    fn subscribe(&mut self, who: usize) {
        if let Some(conn) = self.lines[who] {
            self.rig.packet(conn, subscribe(9, GROUP, 1));
            self.listen();
        }
    }

    /// Takes in what was sent.
    fn listen(&mut self) {
        for packet in self.rig.out(self.publisher) {
            if let Outgoing::Puback(ack) = packet {
                assert!(ack.reason < 0x80);
                self.acknowledged.insert(ack.packet_id);
            }
        }
        for who in 0..MEMBERS {
            let Some(conn) = self.lines[who] else { continue };
            for publish in self.rig.publishes(conn) {
                let number: u16 = text(&publish).parse().unwrap();
                self.got.entry(number).or_default().insert(who);
                self.owed[who].push((publish.packet_id, number));
            }
        }
    }

    fn ack(&mut self, who: usize, count: usize) {
        let Some(conn) = self.lines[who] else { return };
        let count = count.min(self.owed[who].len());
        for (packet_id, number) in self.owed[who].drain(..count).collect::<Vec<_>>() {
            self.rig.packet(conn, Incoming::Puback(packet_id, 0));
            self.done.insert(number);
        }
        self.listen();
    }

    fn hold(&mut self, on: bool) {
        self.held = on;
        self.rig.hold(on);
        self.rig.run();
        if !on {
            self.limbo.clear();
        }
        self.listen();
    }

    fn crash(&mut self) {
        self.listen();
        self.excused
            .extend(self.owed[IN_MEMORY].iter().map(|(_, number)| *number));
        self.excused.append(&mut self.limbo);
        self.rig.crash();
        self.held = false;
        self.lines = [None; MEMBERS];
        self.owed = Default::default();
        self.publisher = self.rig.connect(&self.alice, clean(V5, "pub"));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish => {
                self.published += 1;
                let number = self.published;
                let packet = publish(TOPIC, &number.to_string(), 1, number);
                self.rig.packet(self.publisher, packet);
            }
            Step::Connect(who) => self.connect(who, who == IN_MEMORY),
            Step::CleanStart(who) => self.connect(who, true),
            Step::Vanish(who) => self.vanish(who),
            Step::Ack(who, count) => self.ack(who, count),
            Step::Subscribe(who) => self.subscribe(who),
            Step::Unsubscribe(who) => {
                if let Some(conn) = self.lines[who] {
                    let filters = vec![GROUP.into()];
                    self.rig.packet(
                        conn,
                        Incoming::Unsubscribe {
                            packet_id: 8,
                            filters,
                        },
                    );
                }
            }
            Step::Hold(on) => self.hold(on),
            Step::Commit(count) => {
                self.rig.store.commit(count);
                self.rig.run();
            }
            Step::Crash => self.crash(),
            // Held for longer it would be refused.
            Step::Pass(seconds) if !self.held => self.rig.pass(seconds * 1_000),
            Step::Pass(_) => {}
        }
        self.listen();
    }

    /// Everybody comes back and acknowledges everything.
    fn end(&mut self) {
        self.hold(false);
        self.rig.pass(40_000);
        for who in 0..IN_MEMORY {
            if self.lines[who].is_none() {
                self.connect(who, false);
            }
        }
        for _ in 0..10 {
            self.listen();
            for who in 0..MEMBERS {
                self.ack(who, usize::MAX);
            }
            self.rig.pass(1_000);
        }
        assert!(self.owed.iter().all(Vec::is_empty));
        assert!(self.rig.users.homes.values().all(|home| home.leaving.is_none()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2_048, ..ProptestConfig::default() })]

    #[test]
    fn an_acknowledged_publish_has_exactly_one_member_as_long_as_none_goes(
        steps in prop::collection::vec(calm(), 1..70),
    ) {
        let mut model = Model::new(false);
        for step in steps {
            model.step(step);
        }
        model.end();
        for number in 1..=model.published {
            let members = model.got.get(&number).map_or(0, BTreeSet::len);
            let acknowledged = model.acknowledged.contains(&number);
            prop_assert!(members == 1 || (members == 0 && !acknowledged), "{} has {} members", number, members);
            prop_assert!(model.done.contains(&number) || members == 0);
        }
    }

    #[test]
    fn an_acknowledged_publish_is_acknowledged_by_a_member_whoever_goes_and_comes(
        steps in prop::collection::vec(wild(), 1..90),
    ) {
        let mut model = Model::new(true);
        for step in steps {
            model.step(step);
        }
        model.end();
        for number in &model.acknowledged {
            prop_assert!(
                model.done.contains(number) || model.excused.contains(number),
                "{} is lost", number
            );
        }
    }
}
