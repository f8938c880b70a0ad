//! Ordinary topics: QoS 1 to persistent sessions, over lost connections and crashes; sessions, subscriptions, limits.

use std::sync::atomic::Ordering;

use godwit_wire::command::{Answer, UserCommand};
use godwit_wire::limits::{RECEIVE_MAXIMUM, TOPIC_TIMEOUT_MS};

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

const V3: Version = Version::V311;
const V5: Version = Version::V5;

#[test]
fn a_publish_is_acknowledged_only_after_its_entry_is_durable_and_then_pushed() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V3, "sub"));
    let publisher = rig.connect(&alice, persistent(V3, "pub"));
    assert!(!connack(&mut rig, sub) && !connack(&mut rig, publisher));
    assert_eq!(rig.subscribe(sub, "iot/alice/t", 1), [1]);
    rig.hold(true);
    rig.packet(publisher, publish("iot/alice/t", "one", 1, 5));
    assert_eq!(pubacks(&mut rig, publisher), [0u16; 0], "ACK");
    assert!(rig.publishes(sub).is_empty(), "only what is confirmed leaves");
    rig.hold(false);
    rig.run();
    assert_eq!(pubacks(&mut rig, publisher), [5]);
    let got = rig.publishes(sub);
    assert_eq!(
        (got.len(), text(&got[0]).as_str(), got[0].qos, got[0].dup),
        (1, "one", 1, false)
    );
    assert_eq!(got[0].packet_id % 2, 0, "session logs have even identifiers");
}

#[test]
fn what_was_acknowledged_to_its_publisher_survives_a_crash_and_is_owed_until_the_session_acknowledges() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V3, "sub"));
    rig.subscribe(sub, "iot/alice/#", 1);
    rig.vanish(sub);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 1..=500u16 {
        rig.packet(publisher, publish("iot/alice/t", &n.to_string(), 1, n));
    }
    rig.hold(true);
    rig.packet(publisher, publish("iot/alice/t", "unstored", 1, 501));
    rig.out(publisher);
    rig.crash();
    let mut seen = 0;
    for round in 0..2 {
        let sub = rig.connect(&alice, persistent(V3, "sub"));
        assert!(connack_of(&mut rig, sub));
        let mut expected = seen;
        loop {
            let got = rig.publishes(sub);
            if got.is_empty() {
                break;
            }
            for publish in got {
                expected += 1;
                assert_eq!(text(&publish), expected.to_string(), "ORDER");
                if round == 1 || expected <= 100 {
                    rig.packet(sub, Incoming::Puback(publish.packet_id, 0));
                }
            }
        }
        if round == 0 {
            assert!(expected < 500, "the window holds the rest back");
            seen = 100;
            rig.pass(1_000);
            rig.crash();
        } else {
            assert_eq!(expected, 500, "500 of 500");
            assert!(rig.publishes(sub).is_empty());
        }
    }
}

#[test]
fn an_unacknowledged_entry_is_repeated_with_dup_and_its_first_identifier() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 1);
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    for (id, text) in [(1, "a"), (2, "b"), (3, "c")] {
        rig.packet(publisher, publish("iot/alice/t", text, 1, id));
    }
    let first = rig.publishes(sub);
    rig.packet(sub, Incoming::Puback(first[1].packet_id, 0));
    rig.vanish(sub);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert!(connack_of(&mut rig, sub));
    let again = rig.publishes(sub);
    let of = |p: &crate::packet::PublishOut| (text(p), p.packet_id, p.dup);
    assert_eq!(
        again.iter().map(of).collect::<Vec<_>>(),
        [
            ("a".into(), first[0].packet_id, true),
            ("c".into(), first[2].packet_id, true)
        ],
        "what was acknowledged out of order is not repeated"
    );
}

#[test]
fn the_clients_receive_maximum_is_never_exceeded_and_acknowledging_goes_on() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let mut connect = persistent(V5, "sub");
    connect.receive_maximum = 3;
    let sub = rig.connect(&alice, connect);
    rig.subscribe(sub, "iot/alice/t", 1);
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    for n in 1..=10 {
        rig.packet(publisher, publish("iot/alice/t", &n.to_string(), 1, n));
    }
    rig.out(publisher);
    let mut got = Vec::new();
    for _ in 0..10 {
        let now = rig.publishes(sub);
        assert!(now.len() <= 3);
        for publish in now {
            got.push(text(&publish));
            rig.packet(sub, Incoming::Puback(publish.packet_id, 0));
        }
    }
    assert_eq!(got, (1..=10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_connection_without_room_gets_the_rest_when_it_drained() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 1);
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    rig.wire.lines.get_mut(&sub).unwrap().full = true;
    for n in 1..=400 {
        rig.packet(publisher, publish("iot/alice/t", &n.to_string(), 1, n));
    }
    rig.packet(publisher, publish("iot/alice/t", "dropped", 0, 0));
    assert!(rig.publishes(sub).is_empty());
    rig.drained(sub);
    let got = rig.publishes(sub);
    assert_eq!(got.len(), 256, "a window of it");
    assert_eq!(text(&got[0]), "1", "also what is no longer in memory");
}

#[test]
fn acknowledgements_leave_in_the_order_of_the_publishes() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    rig.out(publisher);
    rig.deaf = true;
    rig.packet(publisher, publish("iot/alice/t", "a", 1, 1));
    rig.packet(publisher, publish("iot/bob/t", "not mine", 1, 2));
    rig.packet(publisher, publish("iot/alice/t", "c", 1, 3));
    assert!(rig.out(publisher).is_empty(), "the refusal waits for its turn");
    rig.deaf = false;
    rig.run();
    let out = rig.out(publisher);
    let acks: Vec<_> = out
        .iter()
        .map(|packet| match packet {
            Outgoing::Puback(ack) => (ack.packet_id, ack.reason),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(acks, [(1, 0x10), (2, 0x87), (3, 0x10)]);
}

#[test]
fn a_refused_publish_closes_a_3_1_1_connection_and_a_refused_qos_0_is_dropped() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    rig.packet(publisher, publish("iot/bob/t", "x", 0, 0));
    assert!(!rig.is_closed(publisher));
    rig.packet(publisher, publish("iot/bob/t", "x", 1, 1));
    assert!(rig.is_closed(publisher));
    assert_eq!(rig.metrics.refused.get(), 2);
    assert!(rig.published.is_empty());
}

#[test]
fn an_unanswered_publish_is_told_unavailable_after_ten_seconds_and_closes_a_3_1_1_connection() {
    for failing in [true, false] {
        let mut rig = Rig::new();
        let (alice, bob) = (user("alice"), user("bob"));
        let five = rig.connect(&alice, persistent(V5, "p"));
        let three = rig.connect(&bob, persistent(V3, "p"));
        rig.out(five);
        rig.deaf = true;
        rig.store.failing.store(failing, Ordering::Relaxed);
        let talk = format!("c/{}/send/text", uuid::Uuid::now_v7());
        let of = |user: &str| match failing {
            true => format!("iot/{user}/t"),
            false => talk.clone(),
        };
        rig.packet(five, publish(&of("alice"), "x", 1, 9));
        rig.packet(three, publish(&of("bob"), "x", 1, 9));
        rig.pass(9_000);
        assert!(rig.out(five).is_empty() && !rig.is_closed(three));
        rig.pass(1_100);
        is_told(&mut rig, five);
        assert!(rig.is_closed(three));
        rig.deaf = false;
        rig.run();
        assert!(
            rig.out(five).is_empty(),
            "the late answer is not a second acknowledgement"
        );
    }
}

/// It was told that its publish 9 is not acknowledged.
fn is_told(rig: &mut Rig, conn: ConnId) {
    let out = rig.out(conn);
    let [Outgoing::Puback(ack)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((ack.packet_id, ack.reason), (9, 0x83));
    assert!(ack.properties.contains(&("retryable".into(), "true".into())));
}

#[test]
fn a_publish_on_an_ordinary_topic_waits_for_its_turn_while_the_store_is_well() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let five = rig.connect(&alice, persistent(V5, "p"));
    let three = rig.connect(&bob, persistent(V3, "p"));
    rig.out(five);
    rig.deaf = true;
    rig.packet(five, publish("iot/alice/t", "x", 1, 9));
    rig.packet(three, publish("iot/bob/t", "x", 1, 9));
    rig.pass(TOPIC_TIMEOUT_MS / 2);
    assert!(rig.out(five).is_empty() && !rig.is_closed(three));
    rig.deaf = false;
    rig.run();
    assert_eq!(
        (pubacks(&mut rig, five), pubacks(&mut rig, three)),
        (vec![9], vec![9])
    );
    // Of QoS 2 too, once its home has it.
    rig.deaf = true;
    rig.packet(five, publish("iot/alice/t", "x", 2, 9));
    rig.out(five);
    rig.pass(TOPIC_TIMEOUT_MS / 2);
    assert!(rig.out(five).is_empty());
    rig.deaf = false;
    rig.run();
    assert!(matches!(&rig.out(five)[..], [Outgoing::Pubrec(ack)] if ack.packet_id == 9 && ack.reason < 0x80));
    // Not for ever, and not beside a store that fails.
    rig.deaf = true;
    for fails_after in [60_000, TOPIC_TIMEOUT_MS] {
        rig.packet(five, publish("iot/alice/t", "x", 1, 9));
        rig.pass(fails_after - 100);
        assert!(rig.out(five).is_empty());
        rig.store
            .failing
            .store(fails_after < TOPIC_TIMEOUT_MS, Ordering::Relaxed);
        rig.pass(1_100);
        is_told(&mut rig, five);
        rig.store.failing.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_connection_has_no_more_qos_0_publishes_under_way_than_may_wait_for_their_turn() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, clean(V5, "p"));
    rig.deaf = true;
    let mut read = 0;
    while !rig.wire.lines[&conn].paused {
        rig.give(conn, publish("iot/alice/t", "x", 0, 0));
        read += 1;
    }
    assert_eq!(read, usize::from(RECEIVE_MAXIMUM));
    rig.deaf = false;
    rig.run();
    assert!(!rig.wire.lines[&conn].paused);
    assert_eq!(rig.published.len(), read);
}

#[test]
fn a_delivery_to_a_session_that_is_gone_says_so() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let session = godwit_wire::ids::SessionId::fresh();
    let publish = std::sync::Arc::new(godwit_wire::command::Publish {
        topic: "iot/alice/t".into(),
        payload: bytes::Bytes::new(),
        qos: 1,
        retain: false,
        expires_at: None,
        properties: None,
        from: None,
        message_id: None,
    });
    let target = godwit_wire::command::Target {
        session,
        qos: 1,
        retain_as_published: false,
        subscription_ids: Vec::new(),
    };
    let mut answer = rig.ask_user(
        alice.user,
        UserCommand::Deliver {
            publish,
            targets: vec![target],
            late: 0,
        },
    );
    assert!(matches!(answer.try_recv(), Ok(Answer::Kept { gone }) if gone == [session]));
}

#[test]
fn an_expired_entry_is_passed_over_and_counted_and_a_living_one_says_how_long() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 1);
    rig.vanish(sub);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for (id, seconds) in [(1, 5), (2, 60)] {
        let Incoming::Publish(mut packet) = publish("iot/alice/t", "x", 1, id) else {
            unreachable!()
        };
        packet.message_expiry = Some(seconds);
        rig.packet(publisher, Incoming::Publish(packet));
    }
    rig.pass(10_000);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let got = rig.publishes(sub);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].message_expiry, Some(50));
    assert_eq!(rig.metrics.expired.get(), 1);
}

#[test]
fn more_than_the_receive_maximum_unacknowledged_is_a_protocol_error_in_5_and_a_pause_in_3_1_1() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let five = rig.connect(&alice, clean(V5, "p"));
    let three = rig.connect(&bob, clean(V3, "p"));
    rig.deaf = true;
    for id in 1..=256 {
        rig.give(five, publish("iot/alice/t", "x", 1, id));
        rig.give(three, publish("iot/bob/t", "x", 1, id));
    }
    assert!(!rig.is_closed(five) && rig.wire.lines[&three].paused);
    rig.give(five, publish("iot/alice/t", "x", 1, 257));
    assert!(matches!(
        rig.out(five).last(),
        Some(Outgoing::Disconnect(0x93, _))
    ));
    rig.deaf = false;
    rig.run();
    assert!(!rig.wire.lines[&three].paused);
}
