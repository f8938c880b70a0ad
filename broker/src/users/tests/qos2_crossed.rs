//! QoS 2 where two things cross: an answer and the end of the connection that asked, a packet identifier and its next
//! use, a PUBREC and a CONNECT.

use super::super::in2::IN2_MOST;
use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::tables::USER_ROWS;
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
const V311: Version = Version::V311;

/// PUBRECs, PUBCOMPs and PUBRELs since the last call, by name.
fn acks(rig: &mut Rig, conn: ConnId) -> Vec<(&'static str, u16, u8)> {
    let of = |packet: Outgoing| match packet {
        Outgoing::Pubrec(ack) => Some(("rec", ack.packet_id, ack.reason)),
        Outgoing::Pubcomp(ack) => Some(("comp", ack.packet_id, ack.reason)),
        Outgoing::Pubrel(ack) => Some(("rel", ack.packet_id, ack.reason)),
        _ => None,
    };
    rig.out(conn).into_iter().filter_map(of).collect()
}

#[test]
fn a_publish_whose_answer_finds_no_connection_does_not_go_on_once_more() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.deaf = true;
    rig.packet(conn, publish("iot/alice/t", "once", 2, 1));
    rig.vanish(conn);
    rig.deaf = false;
    rig.run();
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(conn, publish("iot/alice/t", "once", 2, 1));
    assert_eq!(acks(&mut rig, conn), [("rec", 1, 0)]);
    assert_eq!(rig.published.len(), 1, "ONCE");
    rig.packet(conn, Incoming::Pubrel(1, 0));
    assert_eq!(acks(&mut rig, conn), [("comp", 1, 0)]);
}

#[test]
fn a_repeat_that_comes_before_the_answer_waits_for_the_same_answer() {
    for version in [V5, V311] {
        let mut rig = Rig::new();
        let alice = user("alice");
        let conn = rig.connect(&alice, persistent(version, "p"));
        rig.deaf = true;
        rig.packet(conn, publish("iot/alice/t", "once", 2, 1));
        rig.vanish(conn);
        let conn = rig.connect(&alice, persistent(version, "p"));
        rig.out(conn);
        rig.packet(conn, publish("iot/alice/t", "once", 2, 1));
        assert_eq!(acks(&mut rig, conn), []);
        rig.deaf = false;
        rig.run();
        let pubrecs: Vec<u16> = acks(&mut rig, conn).iter().map(|ack| ack.1).collect();
        assert_eq!((pubrecs, rig.published.len()), (vec![1], 1));
    }
}

#[test]
fn a_publish_whose_row_was_on_its_way_when_the_connection_ended_goes_on_once() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.hold(true);
    rig.packet(conn, publish("iot/alice/t", "once", 2, 1));
    rig.vanish(conn);
    rig.hold(false);
    rig.run();
    assert_eq!(rig.published.len(), 1);
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(conn, publish("iot/alice/t", "once", 2, 1));
    assert_eq!(acks(&mut rig, conn), [("rec", 1, 0)]);
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn a_refused_answer_that_finds_no_connection_is_asked_for_again() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let topic = format!("c/{conversation}/send/text");
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.deaf = true;
    rig.packet(conn, publish(&topic, "hi", 2, 1));
    rig.vanish(conn);
    rig.deaf = false;
    rig.refuse_sends = Some(godwit_wire::code::Refusal::unavailable());
    rig.run();
    rig.refuse_sends = None;
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(conn, publish(&topic, "hi", 2, 1));
    assert_eq!(acks(&mut rig, conn), [("rec", 1, 0)]);
    assert_eq!(rig.entries(conversation), 1);
}

#[test]
fn a_refused_publish_under_an_identifier_left_by_a_crash_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(conn, publish("iot/alice/t", "first", 2, 7));
    rig.crash();
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.out(conn);
    rig.packet(conn, publish("iot/bob/t", "refused", 2, 7));
    assert_eq!(acks(&mut rig, conn), [("rec", 7, 0x87)]);
    for payload in ["second", "third"] {
        rig.packet(conn, publish("iot/alice/t", payload, 2, 7));
        assert_eq!(acks(&mut rig, conn), [("rec", 7, 0x10)], "{payload}");
        rig.packet(conn, Incoming::Pubrel(7, 0));
        assert_eq!(acks(&mut rig, conn), [("comp", 7, 0)], "{payload}");
    }
    assert_eq!(rig.published.len(), 2);
    rig.vanish(conn);
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(conn, publish("iot/alice/t", "second", 2, 7));
    assert_eq!(
        rig.published.len(),
        3,
        "it is a new message: the other is complete"
    );
}

#[test]
fn in_3_1_1_too_the_identifier_of_a_refused_publish_works_again() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V311, "p"));
    rig.packet(conn, publish("iot/alice/t", "first", 2, 7));
    rig.crash();
    let conversation = rig.make_conversation(&[alice.user]);
    let conn = rig.connect(&alice, persistent(V311, "p"));
    rig.out(conn);
    // No form of a send: its `refused` entry is durable before the PUBREC.
    rig.packet(conn, publish(&format!("c/{conversation}/send/json"), "{", 2, 7));
    assert_eq!(acks(&mut rig, conn), [("rec", 7, 0)]);
    rig.packet(conn, Incoming::Pubrel(7, 0));
    assert_eq!(acks(&mut rig, conn), [("comp", 7, 0)]);
    rig.packet(conn, publish("iot/alice/t", "second", 2, 7));
    assert_eq!(acks(&mut rig, conn), [("rec", 7, 0)]);
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn a_publish_that_was_told_unavailable_does_not_go_on_when_its_row_is_durable_at_last() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.out(conn);
    rig.hold(true);
    rig.packet(conn, publish("iot/alice/t", "x", 2, 1));
    rig.pass(11_000);
    assert_eq!(acks(&mut rig, conn), [("rec", 1, 0x83)]);
    rig.hold(false);
    rig.run();
    assert_eq!(rig.published.len(), 0, "it was refused");
    rig.packet(conn, publish("iot/alice/t", "x", 2, 2));
    assert_eq!(
        (acks(&mut rig, conn), rig.published.len()),
        (vec![("rec", 2, 0x10)], 1)
    );
}

#[test]
fn a_device_that_lost_its_state_and_uses_an_identifier_for_another_payload_loses_nothing() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(conn, publish("iot/alice/t", "first", 2, 1));
    rig.vanish(conn);
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.out(conn);
    for repeat in 0..2 {
        rig.packet(conn, publish("iot/alice/t", "second", 2, 1));
        assert_eq!(acks(&mut rig, conn).len(), 1);
        assert_eq!(rig.published.len(), 2, "{repeat}");
    }
    rig.crash();
    let conn = rig.connect(&alice, persistent(V5, "p"));
    rig.packet(conn, publish("iot/alice/t", "first", 2, 1));
    assert_eq!(rig.published.len(), 1, "the row of the first is ended");
}

#[test]
fn what_earlier_connections_left_open_does_not_close_a_client_and_is_bounded() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let mut id = 0;
    for round in 0..10 {
        let conn = rig.connect(&alice, persistent(V5, "p"));
        for _ in 0..256 {
            id += 1;
            rig.packet(conn, publish("iot/alice/t", "x", 2, id));
        }
        assert!(!rig.is_closed(conn), "round {round}");
        rig.vanish(conn);
    }
    let rows = rig.store.rows_of_table(USER_ROWS.id);
    assert!(rows <= IN2_MOST + 2, "{rows} rows are kept");
    assert_eq!(rig.published.len(), 2_560);
}

#[test]
fn a_repeat_of_what_an_earlier_connection_left_counts_on_this_one() {
    let mut rig = Rig::new();
    let alice = user("alice");
    for connection in 0..2 {
        let conn = rig.connect(&alice, persistent(V5, "p"));
        for id in 1..=256 {
            rig.packet(conn, publish("iot/alice/t", "x", 2, id));
        }
        assert!(!rig.is_closed(conn));
        if connection == 1 {
            rig.packet(conn, publish("iot/alice/t", "x", 2, 257));
            assert!(rig.is_closed(conn));
        }
        rig.vanish(conn);
    }
}

#[test]
fn no_pubrel_goes_before_the_row_of_its_pubrec_on_the_next_connection_either() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 2);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for (id, payload) in [(1, "a"), (2, "b")] {
        rig.packet(publisher, publish("iot/alice/t", payload, 2, id));
    }
    let got = rig.publishes(sub);
    let (first, second) = (got[0].packet_id, got[1].packet_id);
    rig.hold(true);
    rig.packet(sub, Incoming::Pubrec(first, 0));
    rig.packet(sub, Incoming::Pubrec(second, 0));
    rig.vanish(sub);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    while !rig.wire.lines[&sub]
        .out
        .iter()
        .any(|packet| matches!(packet, Outgoing::Connack(_)))
    {
        rig.store.commit(1);
        rig.run();
    }
    assert_eq!(acks(&mut rig, sub), [("rel", first, 0)]);
    // The client repeats it: it still waits for the row.
    rig.packet(sub, Incoming::Pubrec(second, 0));
    assert_eq!(acks(&mut rig, sub), []);
    rig.hold(false);
    rig.run();
    assert_eq!(acks(&mut rig, sub), [("rel", second, 0)]);
    for id in [first, second] {
        rig.packet(sub, Incoming::Pubcomp(id, 0));
    }
    rig.pass(1_000);
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.out(sub).len(), 1, "nothing is owed any more");
}
