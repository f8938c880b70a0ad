//! Sessions and subscriptions: CONNECT, SUBSCRIBE, take-over, clean start, limits.

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};

const V3: Version = Version::V311;
const V5: Version = Version::V5;

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
fn who_is_taken_over_before_the_connack_is_closed_without_a_word() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.hold(true);
    let first = rig.connect(&alice, persistent(V5, "c"));
    let second = rig.connect(&alice, persistent(V5, "c"));
    assert!(rig.out(first).is_empty(), "MQTT-3.14.0-1");
    assert!(rig.is_closed(first));
    rig.hold(false);
    rig.run();
    assert!(!rig.is_closed(second));
    assert!(matches!(rig.out(second)[..], [Outgoing::Connack(_)]));
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
        ("$share/g/iot/alice/x", 2),
        ("$share/g/iot/bob/x", 0x87),
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
