//! QoS 2 both ways, over lost connections and crashes.

use std::sync::atomic::Ordering;

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;

fn pubrecs(rig: &mut Rig, conn: ConnId) -> Vec<(u16, u8)> {
    let of = |packet: Outgoing| match packet {
        Outgoing::Pubrec(ack) => Some((ack.packet_id, ack.reason)),
        _ => None,
    };
    rig.out(conn).into_iter().filter_map(of).collect()
}

fn pubcomps(rig: &mut Rig, conn: ConnId) -> Vec<(u16, u8)> {
    let of = |packet: Outgoing| match packet {
        Outgoing::Pubcomp(ack) => Some((ack.packet_id, ack.reason)),
        _ => None,
    };
    rig.out(conn).into_iter().filter_map(of).collect()
}

fn pubrels(rig: &mut Rig, conn: ConnId) -> Vec<u16> {
    let of = |packet: Outgoing| match packet {
        Outgoing::Pubrel(ack) => Some(ack.packet_id),
        _ => None,
    };
    rig.out(conn).into_iter().filter_map(of).collect()
}

#[test]
fn a_qos_2_send_is_one_message_over_repeats_reconnects_and_a_crash() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let topic = format!("c/{conversation}/send/text");
    let conn = rig.connect(&alice, persistent(V5, "a"));
    rig.out(conn);
    rig.hold(true);
    rig.packet(conn, publish(&topic, "once", 2, 9));
    assert_eq!(
        rig.entries(conversation),
        0,
        "the id is durable before the message goes on"
    );
    rig.hold(false);
    rig.run();
    assert_eq!(pubrecs(&mut rig, conn), [(9, 0)]);
    rig.packet(conn, publish(&topic, "once", 2, 9));
    assert_eq!(pubrecs(&mut rig, conn), [(9, 0)], "the PUBREC again");
    rig.vanish(conn);
    let conn = rig.connect(&alice, persistent(V5, "a"));
    rig.packet(conn, publish(&topic, "once", 2, 9));
    assert_eq!(pubrecs(&mut rig, conn), [(9, 0)]);
    rig.crash();
    let conn = rig.connect(&alice, persistent(V5, "a"));
    rig.packet(conn, publish(&topic, "once", 2, 9));
    assert_eq!(pubrecs(&mut rig, conn), [(9, 0)]);
    assert_eq!(rig.entries(conversation), 1, "ONCE");
    rig.hold(true);
    rig.packet(conn, Incoming::Pubrel(9, 0));
    assert_eq!(pubcomps(&mut rig, conn), [], "the end is durable before PUBCOMP");
    rig.hold(false);
    rig.run();
    assert_eq!(pubcomps(&mut rig, conn), [(9, 0)]);
    rig.packet(conn, Incoming::Pubrel(9, 0));
    assert_eq!(pubcomps(&mut rig, conn), [(9, 0x92)]);
    rig.packet(conn, publish(&topic, "once", 2, 9));
    assert_eq!(
        rig.entries(conversation),
        2,
        "the identifier names another message now"
    );
}

#[test]
fn another_publish_under_an_identifier_left_by_a_crash_is_not_taken_for_the_first() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let topic = format!("c/{conversation}/send/text");
    let conn = rig.connect(&alice, persistent(V5, "a"));
    rig.packet(conn, publish(&topic, "first", 2, 9));
    rig.crash();
    let conn = rig.connect(&alice, persistent(V5, "a"));
    rig.out(conn);
    rig.packet(conn, publish(&topic, "second", 2, 9));
    assert_eq!(pubrecs(&mut rig, conn), [(9, 0)]);
    assert_eq!(rig.entries(conversation), 2);
}

#[test]
fn a_refused_qos_2_publish_gets_its_reason_and_frees_its_identifier() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "a"));
    rig.out(conn);
    rig.packet(conn, publish("iot/bob/t", "x", 2, 3));
    assert_eq!(pubrecs(&mut rig, conn), [(3, 0x87)]);
    rig.packet(conn, publish("iot/alice/t", "x", 2, 3));
    assert_eq!(pubrecs(&mut rig, conn), [(3, 0x10)]);
}

#[test]
fn a_qos_2_delivery_keeps_its_identifier_and_its_pubrec_over_a_crash() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 2);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for (id, payload) in [(1, "a"), (2, "b")] {
        rig.packet(publisher, publish("iot/alice/t", payload, 2, id));
    }
    let got = rig.publishes(sub);
    assert_eq!((got.len(), got[0].qos), (2, 2));
    rig.hold(true);
    rig.packet(sub, Incoming::Pubrec(got[1].packet_id, 0));
    assert!(
        pubrels(&mut rig, sub).is_empty(),
        "PUBREC is durable before PUBREL"
    );
    rig.hold(false);
    rig.run();
    assert_eq!(pubrels(&mut rig, sub), [got[1].packet_id]);
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let out = rig.out(sub);
    let [
        Outgoing::Connack(_),
        Outgoing::Publish(first),
        Outgoing::Pubrel(second),
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!(
        (first.packet_id, first.dup, second.packet_id),
        (got[0].packet_id, true, got[1].packet_id)
    );
    rig.packet(sub, Incoming::Pubcomp(second.packet_id, 0));
    rig.packet(sub, Incoming::Pubrec(first.packet_id, 0));
    rig.packet(sub, Incoming::Pubcomp(first.packet_id, 0));
    rig.pass(1_000);
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.out(sub).len(), 1, "nothing is owed any more");
}

#[test]
fn a_completed_qos_2_delivery_is_not_given_again_after_a_crash_whatever_was_stored_after_it() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 2);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        rig.packet(publisher, publish("iot/alice/t", payload, 2, id));
    }
    let got: Vec<u16> = rig
        .publishes(sub)
        .iter()
        .map(|publish| publish.packet_id)
        .collect();
    // The first and the third are complete, the second is not, when the PUBREC of the fourth is stored.
    for id in [got[0], got[2]] {
        rig.packet(sub, Incoming::Pubrec(id, 0));
        rig.packet(sub, Incoming::Pubcomp(id, 0));
    }
    rig.packet(sub, Incoming::Pubrec(got[3], 0));
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let out = rig.out(sub);
    let [
        Outgoing::Connack(_),
        Outgoing::Publish(second),
        Outgoing::Pubrel(fourth),
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!((second.packet_id, fourth.packet_id), (got[1], got[3]));
}

/// The writes of one batch are apart in some engines, and the last of them is the head.
#[test]
fn a_completed_qos_2_delivery_is_not_given_again_where_the_head_was_not_written_with_the_row() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 2);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
        rig.packet(publisher, publish("iot/alice/t", payload, 2, id));
    }
    let got: Vec<u16> = rig
        .publishes(sub)
        .iter()
        .map(|publish| publish.packet_id)
        .collect();
    rig.packet(sub, Incoming::Pubrec(got[0], 0));
    rig.packet(sub, Incoming::Pubcomp(got[0], 0));
    rig.store.lose_heads.store(true, Ordering::SeqCst);
    rig.packet(sub, Incoming::Pubrec(got[1], 0));
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let out = rig.out(sub);
    let [
        Outgoing::Connack(_),
        Outgoing::Pubrel(second),
        Outgoing::Publish(third),
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!((second.packet_id, third.packet_id), (got[1], got[2]));
}

#[test]
fn a_repeated_qos_2_publish_is_in_the_sessions_log_once() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 2);
    rig.vanish(sub);
    let publisher = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(publisher, publish("iot/alice/t", "once", 2, 1));
    rig.crash();
    let publisher = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(publisher, publish("iot/alice/t", "once", 2, 1));
    rig.pass(25_000);
    rig.crash();
    let publisher = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(publisher, publish("iot/alice/t", "once", 2, 1));
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.publishes(sub).len(), 1);
}

#[test]
fn a_client_that_never_completes_qos_2_is_closed() {
    for (version, most) in [(V5, 256), (Version::V311, 1_024)] {
        let mut rig = Rig::new();
        let alice = user("alice");
        let conn = rig.connect(&alice, persistent(version, "a"));
        for id in 1..=most {
            rig.packet(conn, publish("iot/alice/t", "x", 2, id));
        }
        assert!(!rig.is_closed(conn));
        rig.packet(conn, publish("iot/alice/t", "x", 2, most));
        assert!(!rig.is_closed(conn), "a repeat is none more");
        rig.packet(conn, publish("iot/alice/t", "x", 2, most + 1));
        assert!(rig.is_closed(conn));
    }
}
