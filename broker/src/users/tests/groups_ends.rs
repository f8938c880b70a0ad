//! Shared subscriptions: what a member that goes had not acknowledged is another member's.

use godwit_wire::account::Principal;

use super::clients::*;
use super::groups::texts;
use super::rig::*;
use crate::packet::{Incoming, Version};
use crate::wire_trait::ConnId;

const V3: Version = Version::V311;
const V5: Version = Version::V5;
const GROUP: &str = "$share/g/iot/alice/#";
const TOPIC: &str = "iot/alice/t";

struct Two {
    rig: Rig,
    alice: Principal,
    first: ConnId,
    publisher: ConnId,
}

/// A group whose only member is `first`, with messages 1 to `count`; then `second` comes in.
fn two(connect: impl Fn(&str) -> crate::packet::Connect, qos: u8, count: u16) -> Two {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let first = rig.connect(&alice, connect("first"));
    rig.out(first);
    rig.subscribe(first, GROUP, qos);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 1..=count {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), qos, n));
    }
    Two {
        rig,
        alice,
        first,
        publisher,
    }
}

impl Two {
    fn second(&mut self) -> ConnId {
        let second = self.rig.connect(&self.alice, persistent(V5, "second"));
        self.rig.out(second);
        assert_eq!(self.rig.subscribe(second, GROUP, 2), [2]);
        second
    }

    fn numbers(&mut self, conn: ConnId) -> Vec<u32> {
        let mut got: Vec<u32> = ack_all(&mut self.rig, conn)
            .iter()
            .map(|one| text(one).parse().unwrap())
            .collect();
        got.sort_unstable();
        got
    }
}

fn durable(name: &str) -> crate::packet::Connect {
    persistent(V5, name)
}

#[test]
fn a_lost_connection_leaves_its_work_where_it_is() {
    let mut two = two(durable, 1, 3);
    let second = two.second();
    two.rig.vanish(two.first);
    assert!(two.rig.publishes(second).is_empty());
    let first = two.rig.connect(&two.alice, durable("first"));
    let again = two.rig.publishes(first);
    assert!(again.iter().all(|one| one.dup) && texts(&again) == ["1", "2", "3"]);
}

#[test]
fn a_clean_start_gives_what_was_not_acknowledged_to_another_member() {
    let mut two = two(durable, 1, 600);
    let second = two.second();
    let got = two.rig.publishes(two.first);
    assert_eq!(got.len(), 256, "its window");
    for one in &got[..100] {
        two.rig.packet(two.first, Incoming::Puback(one.packet_id, 0));
    }
    // Out of order: above the prefix.
    two.rig.packet(two.first, Incoming::Puback(got[150].packet_id, 0));
    let first = two.rig.connect(&two.alice, clean(V5, "first"));
    assert!(!connack_of(&mut two.rig, first));
    let expected: Vec<u32> = (101..=600).filter(|n| *n != 151).collect();
    assert_eq!(two.numbers(second), expected);
    assert_eq!(two.rig.metrics.shared_again.get(), expected.len() as u64);
    assert_eq!(
        two.rig.store.rows_of_table(crate::tables::DUE.id),
        1,
        "of the second session"
    );
    assert!(two.rig.users.homes.values().all(|home| home.leaving.is_none()));
}

#[test]
fn an_expired_session_gives_its_work_to_another_member_also_when_the_broker_is_killed_at_any_moment() {
    let mut repeats = Vec::new();
    for commits in (0..120).step_by(5) {
        let minute = |name: &str| crate::packet::Connect {
            session_expiry: 60,
            ..durable(name)
        };
        let mut two = two(minute, 1, 100);
        let second = two.second();
        two.rig.vanish(two.first);
        two.rig.vanish(second);
        two.rig.hold(true);
        two.rig.pass(62_000);
        for _ in 0..commits {
            two.rig.store.commit(1);
            two.rig.run();
        }
        two.rig.crash();
        two.rig.pass(60_000);
        let second = two.rig.connect(&two.alice, durable("second"));
        let mut got = two.numbers(second);
        repeats.push(got.len() - 100);
        got.dedup();
        assert_eq!(
            got,
            (1..=100).collect::<Vec<_>>(),
            "killed after {commits} commits"
        );
        assert!(two.rig.users.homes.values().all(|home| home.leaving.is_none()));
    }
    assert!(
        repeats.iter().any(|count| *count > 0),
        "killed in the middle too: {repeats:?}"
    );
    assert!(
        repeats.iter().all(|count| *count <= 64),
        "at most a page: {repeats:?}"
    );
}

#[test]
fn a_session_without_expiry_gives_its_work_on_when_its_connection_is_lost() {
    let mut two = two(|name| clean(V5, name), 1, 300);
    let second = two.second();
    let got = two.rig.publishes(two.first);
    for one in got.iter().skip(1) {
        two.rig.packet(two.first, Incoming::Puback(one.packet_id, 0));
    }
    let more = two.rig.publishes(two.first);
    assert!(!more.is_empty());
    two.rig.vanish(two.first);
    let expected: Vec<u32> = std::iter::once(1).chain(257..=300).collect();
    assert_eq!(two.numbers(second), expected);
}

#[test]
fn after_an_unsubscribe_what_was_sent_is_still_the_clients_and_the_rest_anothers() {
    let mut two = two(durable, 1, 400);
    let second = two.second();
    let unsubscribe = Incoming::Unsubscribe {
        packet_id: 3,
        filters: vec![GROUP.into()],
    };
    let sent = two.rig.publishes(two.first);
    assert_eq!(sent.len(), 256);
    two.rig.packet(two.first, unsubscribe);
    for one in &sent {
        two.rig.packet(two.first, Incoming::Puback(one.packet_id, 0));
    }
    assert!(two.rig.publishes(two.first).is_empty());
    assert_eq!(two.numbers(second), (257..=400).collect::<Vec<_>>());
    // All of it is settled.
    two.rig.vanish(two.first);
    let first = two.rig.connect(&two.alice, durable("first"));
    assert!(two.rig.publishes(first).is_empty());
    two.rig.packet(two.publisher, publish(TOPIC, "500", 1, 500));
    assert_eq!(two.numbers(second), [500]);
}

#[test]
fn what_was_on_its_way_to_another_member_when_its_session_ended_is_given_once() {
    let mut two = two(durable, 1, 300);
    let second = two.second();
    let sent = two.rig.publishes(two.first);
    assert_eq!(sent.len(), 256);
    let unsubscribe = Incoming::Unsubscribe {
        packet_id: 3,
        filters: vec![GROUP.into()],
    };
    two.rig.packet(two.first, unsubscribe);
    two.rig.hold(true);
    for one in &sent {
        two.rig.packet(two.first, Incoming::Puback(one.packet_id, 0));
    }
    let first = two.rig.connect(&two.alice, clean(V5, "first"));
    two.rig.hold(false);
    two.rig.run();
    two.rig.pass(3_000);
    assert!(!connack_of(&mut two.rig, first));
    assert_eq!(two.numbers(second), (257..=300).collect::<Vec<_>>());
    assert!(two.rig.users.homes.values().all(|home| home.leaving.is_none()));
}

#[test]
fn a_qos_2_message_that_was_sent_is_never_anothers_and_one_that_was_not_is() {
    let mut two = two(durable, 2, 300);
    assert_eq!(two.rig.publishes(two.first).len(), 256);
    let second = two.second();
    let first = two.rig.connect(&two.alice, clean(V5, "first"));
    assert!(!connack_of(&mut two.rig, first));
    let got = two.rig.publishes(second);
    assert_eq!(
        texts(&got),
        (257..=300).map(|n| n.to_string()).collect::<Vec<_>>(),
        "MQTT-4.8.2-5"
    );
    assert!(got.iter().all(|one| one.qos == 2 && !one.dup));
    assert_eq!(two.rig.metrics.shared_ended.get(), 256);
}

#[test]
fn an_error_code_ends_a_message() {
    let mut two = two(durable, 1, 2);
    let second = two.second();
    for one in two.rig.publishes(two.first) {
        two.rig.packet(two.first, Incoming::Puback(one.packet_id, 0x83));
    }
    let first = two.rig.connect(&two.alice, clean(V5, "first"));
    assert!(!connack_of(&mut two.rig, first));
    assert!(two.rig.publishes(second).is_empty(), "MQTT-4.8.2-6");
}

#[test]
fn with_the_last_member_its_work_ends_and_is_counted() {
    let mut two = two(durable, 1, 5);
    let first = two.rig.connect(&two.alice, clean(V5, "first"));
    assert!(!connack_of(&mut two.rig, first));
    assert_eq!(two.rig.metrics.shared_ended.get(), 5);
    assert!(two.rig.users.homes.values().all(|home| home.leaving.is_none()));
    let second = two.second();
    assert!(two.rig.publishes(second).is_empty());
    two.rig.packet(two.publisher, publish(TOPIC, "6", 1, 6));
    assert_eq!(two.numbers(second), [6]);
}

#[test]
fn what_a_member_got_by_its_own_subscription_is_nobody_elses() {
    let mut two = two(durable, 1, 0);
    two.rig.subscribe(two.first, TOPIC, 1);
    two.rig.packet(two.publisher, publish(TOPIC, "1", 1, 1));
    assert_eq!(two.rig.publishes(two.first).len(), 2);
    let second = two.second();
    let first = two.rig.connect(&two.alice, clean(V5, "first"));
    assert!(!connack_of(&mut two.rig, first));
    assert_eq!(two.numbers(second), [1]);
}

#[test]
fn a_publish_on_its_way_to_a_member_that_ends_goes_to_another_one() {
    let mut two = two(durable, 1, 0);
    let second = two.second();
    two.rig.out(two.publisher);
    two.rig.hold(true);
    for n in 1..=2 {
        two.rig
            .packet(two.publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    // Its entries are not durable yet.
    two.rig.connect(&two.alice, clean(V5, "first"));
    assert!(pubacks(&mut two.rig, two.publisher).is_empty());
    two.rig.hold(false);
    two.rig.run();
    assert_eq!(pubacks(&mut two.rig, two.publisher).len(), 2);
    assert_eq!(two.numbers(second), [1, 2]);
}

#[test]
fn what_a_session_left_before_a_kill_is_given_as_soon_as_its_user_has_a_client_again() {
    let mut two = two(durable, 1, 3);
    let second = two.second();
    two.rig.vanish(two.first);
    two.rig.vanish(second);
    two.rig.topics_refuse = true;
    let connect = crate::packet::Connect {
        clean_start: true,
        ..durable("first")
    };
    two.rig.connect(&two.alice, connect);
    two.rig.crash();
    let second = two.rig.connect(&two.alice, durable("second"));
    assert_eq!(two.numbers(second), [1, 2, 3]);
    two.rig.pass(60_000);
    assert!(two.rig.publishes(second).is_empty(), "once");
    assert!(two.rig.users.homes.values().all(|home| home.leaving.is_none()));
}
