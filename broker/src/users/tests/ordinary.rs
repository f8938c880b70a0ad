//! Ordinary topics: QoS 1 to persistent sessions, over lost connections and crashes; sessions, subscriptions, limits.

use godwit_wire::command::{Answer, UserCommand};

use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

const V3: Version = Version::V311;
const V5: Version = Version::V5;

fn connack(rig: &mut Rig, conn: ConnId) -> bool {
    match rig.out(conn).first() {
        Some(Outgoing::Connack(connack)) => {
            assert_eq!(connack.reason, 0);
            connack.session_present
        }
        other => panic!("{other:?} is no CONNACK"),
    }
}

fn pubacks(rig: &mut Rig, conn: ConnId) -> Vec<u16> {
    let puback = |packet: Outgoing| match packet {
        Outgoing::Puback(ack) => Some(ack.packet_id),
        _ => None,
    };
    rig.out(conn).into_iter().filter_map(puback).collect()
}

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

fn connack_of(rig: &mut Rig, conn: ConnId) -> bool {
    let lines = rig.wire.lines.get_mut(&conn).unwrap();
    let at = lines
        .out
        .iter()
        .position(|packet| matches!(packet, Outgoing::Connack(_)));
    match lines.out.remove(at.unwrap()) {
        Outgoing::Connack(connack) => connack.session_present,
        _ => unreachable!(),
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
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let five = rig.connect(&alice, persistent(V5, "p"));
    let three = rig.connect(&bob, persistent(V3, "p"));
    rig.out(five);
    rig.deaf = true;
    rig.packet(five, publish("iot/alice/t", "x", 1, 9));
    rig.packet(three, publish("iot/bob/t", "x", 1, 9));
    rig.pass(9_000);
    assert!(rig.out(five).is_empty() && !rig.is_closed(three));
    rig.pass(1_100);
    let out = rig.out(five);
    let [Outgoing::Puback(ack)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((ack.packet_id, ack.reason), (9, 0x83));
    assert!(ack.properties.contains(&("retryable".into(), "true".into())));
    assert!(rig.is_closed(three));
    rig.deaf = false;
    rig.run();
    assert!(
        rig.out(five).is_empty(),
        "the late answer is not a second acknowledgement"
    );
}

#[test]
fn connack_waits_until_the_session_is_durable() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.hold(true);
    let conn = rig.connect(&alice, persistent(V3, "c"));
    assert!(rig.out(conn).is_empty());
    rig.hold(false);
    rig.run();
    assert!(!connack(&mut rig, conn));
    rig.crash();
    let conn = rig.connect(&alice, persistent(V3, "c"));
    assert!(connack(&mut rig, conn));
}

#[test]
fn suback_waits_for_rows_and_routes_and_the_subscription_survives_a_crash() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    rig.out(conn);
    rig.hold(true);
    assert_eq!(
        rig.subscribe(conn, "iot/alice/+", 2),
        [0u8; 0],
        "the rows are not durable"
    );
    rig.deaf = true;
    assert_eq!(rig.subscribe(conn, "iot/alice/other", 2), [0u8; 0]);
    rig.hold(false);
    rig.run();
    assert_eq!(rig.out(conn).len(), 1, "the route of the second is not live");
    rig.deaf = false;
    rig.run();
    assert_eq!(rig.out(conn).len(), 1);
    rig.packet(
        conn,
        Incoming::Unsubscribe {
            packet_id: 2,
            filters: vec!["iot/alice/other".into()],
        },
    );
    assert_eq!(rig.routes(), 1);
    rig.crash();
    let conn = rig.connect(&alice, persistent(V5, "c"));
    assert!(connack(&mut rig, conn));
    let publisher = rig.connect(&alice, clean(V5, "p"));
    rig.packet(publisher, publish("iot/alice/t", "x", 1, 1));
    assert_eq!(rig.publishes(conn).len(), 1);
    rig.packet(
        conn,
        Incoming::Unsubscribe {
            packet_id: 3,
            filters: vec!["iot/alice/+".into(), "no".into()],
        },
    );
    assert!(
        rig.out(conn)
            .iter()
            .any(|p| matches!(p, Outgoing::Unsuback(3, codes) if codes[..] == [0, 0x11]))
    );
    assert_eq!(rig.routes(), 0);
}

#[test]
fn a_subscribe_whose_route_does_not_come_is_refused_after_five_seconds() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    rig.deaf = true;
    assert_eq!(rig.subscribe(conn, "iot/alice/+", 1), [0u8; 0]);
    rig.pass(5_100);
    assert!(
        rig.out(conn)
            .iter()
            .any(|p| matches!(p, Outgoing::Suback(7, codes) if codes[..] == [0x80]))
    );
    rig.deaf = false;
    rig.run();
    assert_eq!(rig.routes(), 0, "the late route is taken back");
}

#[test]
fn filters_are_granted_by_form_scope_and_acl() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    let expected = [
        ("iot/alice/#", 2),
        ("iot/bob/x", 0x87),
        ("#", 0x87),
        ("c/+/log", 0x87),
        ("me/#", 0x87),
        ("me/live", 0x87),
        ("u/x/inbox", 0x87),
        ("$share/g/iot/alice/x", 0x9E),
        ("a/#/b", 0x8F),
    ];
    for (filter, code) in expected {
        assert_eq!(rig.subscribe(conn, filter, 2), [code], "{filter}");
    }
    let conn = rig.connect(&alice, persistent(V3, "three"));
    assert_eq!(rig.subscribe(conn, "iot/bob/x", 1), [0x80]);
}

#[test]
fn a_second_connection_of_a_client_takes_the_firsts_place_and_its_session() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let first = rig.connect(&alice, persistent(V5, "c"));
    rig.subscribe(first, "iot/alice/t", 1);
    rig.out(first);
    let second = rig.connect(&alice, persistent(V5, "c"));
    assert!(matches!(rig.out(first)[..], [Outgoing::Disconnect(0x8E, _)]));
    assert!(rig.is_closed(first));
    assert!(connack(&mut rig, second));
    let publisher = rig.connect(&alice, clean(V5, "p"));
    rig.packet(publisher, publish("iot/alice/t", "x", 1, 1));
    assert_eq!(rig.publishes(second).len(), 1);
}

#[test]
fn a_clean_start_ends_the_session_with_its_routes_its_log_and_what_it_was_owed() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    rig.subscribe(conn, "iot/alice/t", 1);
    rig.vanish(conn);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    rig.packet(publisher, publish("iot/alice/t", "x", 1, 1));
    rig.vanish(publisher);
    let mut connect = persistent(V5, "c");
    connect.clean_start = true;
    let conn = rig.connect(&alice, connect);
    assert!(!connack(&mut rig, conn));
    assert!(rig.publishes(conn).is_empty());
    assert_eq!(rig.routes(), 0);
    assert_eq!(rig.store.rows_of_table(202), 1, "one session row is left");
    assert_eq!(rig.store.rows_of_table(203), 1, "and its due row");
}

#[test]
fn a_session_that_ends_with_its_connection_leaves_nothing_in_the_store() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, clean(V5, "c"));
    assert_eq!(rig.subscribe(conn, "iot/alice/t", 1), [1]);
    rig.out(conn);
    rig.packet(conn, publish("iot/alice/t", "x", 1, 1));
    let out = rig.publishes(conn);
    assert_eq!(out.len(), 1);
    rig.packet(conn, Incoming::Puback(out[0].packet_id, 0));
    rig.packet(
        conn,
        Incoming::Disconnect {
            reason: 0,
            session_expiry: None,
        },
    );
    assert!(rig.is_closed(conn));
    assert_eq!(
        (
            rig.routes(),
            rig.store.rows_of_table(202),
            rig.store.rows_of_table(203)
        ),
        (0, 0, 0)
    );
    rig.pass(25_000);
    assert!(!rig.users.is_loaded(alice.user));
}

#[test]
fn a_client_that_takes_too_little_of_an_in_memory_queue_is_closed() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let mut connect = clean(V5, "c");
    connect.receive_maximum = 1;
    let conn = rig.connect(&alice, connect);
    rig.subscribe(conn, "iot/alice/t", 1);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for n in 1..=1_100u16 {
        rig.packet(publisher, publish("iot/alice/t", "x", 1, n));
    }
    assert!(matches!(
        rig.out(conn).last(),
        Some(Outgoing::Disconnect(0x97, _))
    ));
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
fn retained_messages_follow_the_suback_as_owed_entries() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let publisher = rig.connect(&alice, clean(V5, "p"));
    let Incoming::Publish(mut packet) = publish("iot/alice/t", "kept", 1, 1) else {
        unreachable!()
    };
    packet.retain = true;
    rig.packet(publisher, Incoming::Publish(packet));
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    rig.packet(sub, subscribe(7, "iot/alice/#", 1));
    let out = rig.out(sub);
    assert!(matches!(out[0], Outgoing::Suback(..)));
    let Outgoing::Publish(first) = &out[1] else {
        panic!("{out:?}")
    };
    assert!(first.retain && first.qos == 1);
    rig.vanish(sub);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.publishes(sub).len(), 1, "OWED");
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
