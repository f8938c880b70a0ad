//! SUBSCRIBE under a slow store and at its bounds, and routes that nobody wants.

use godwit_wire::command::{Answer, Route};

use super::clients::*;
use super::rig::*;
use crate::packet::{FilterIn, Incoming, Outgoing, PublishOut, Version};
use crate::wire_trait::ConnId;

const V3: Version = Version::V311;
const V5: Version = Version::V5;

pub(super) fn subacks(out: &[Outgoing]) -> Vec<(u16, Vec<u8>)> {
    let suback = |packet: &Outgoing| match packet {
        Outgoing::Suback(id, codes) => Some((*id, codes.clone())),
        _ => None,
    };
    out.iter().filter_map(suback).collect()
}

pub(super) fn texts(publishes: &[PublishOut]) -> Vec<String> {
    publishes.iter().map(text).collect()
}

fn unsubscribe(rig: &mut Rig, conn: ConnId, filter: &str) -> Vec<u8> {
    let packet = Incoming::Unsubscribe {
        packet_id: 9,
        filters: vec![filter.into()],
    };
    rig.packet(conn, packet);
    let unsuback = |packet: Outgoing| match packet {
        Outgoing::Unsuback(9, codes) => Some(codes),
        _ => None,
    };
    rig.out(conn).into_iter().find_map(unsuback).unwrap_or_default()
}

#[test]
fn a_granted_filter_that_is_asked_for_again_under_a_slow_store_stays_owed() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.subscribe(sub, "iot/alice/t", 1), [1]);
    rig.hold(true);
    rig.packet(sub, subscribe(8, "iot/alice/t", 1));
    rig.packet(sub, subscribe(9, "iot/alice/new", 1));
    rig.pass(5_001);
    assert_eq!(subacks(&rig.out(sub)), [(8, vec![0x80]), (9, vec![0x80])]);
    rig.hold(false);
    rig.run();
    for restart in [false, true] {
        if restart {
            rig.crash();
        } else {
            rig.vanish(sub);
        }
        let publisher = rig.connect(&alice, clean(V5, "pub"));
        rig.packet(publisher, publish("iot/alice/t", "owed", 1, 1));
        rig.packet(publisher, publish("iot/alice/new", "never granted", 1, 2));
        let sub = rig.connect(&alice, persistent(V5, "sub"));
        assert_eq!(texts(&ack_all(&mut rig, sub)), ["owed"], "restart: {restart}");
        // The cursor is stored lazily: a crash would repeat.
        rig.pass(1_000);
        rig.vanish(sub);
        rig.vanish(publisher);
    }
    assert_eq!(rig.routes(), 1);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(unsubscribe(&mut rig, sub, "iot/alice/t"), [0]);
    assert_eq!(rig.routes(), 0);
}

#[test]
fn a_re_subscription_whose_route_is_refused_keeps_the_one_before() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.subscribe(sub, "iot/alice/t", 1), [1]);
    rig.deaf = true;
    rig.packet(sub, subscribe(8, "iot/alice/t", 1));
    let (_, _, reply) = rig.harness.take_command().expect("a route is asked for");
    rig.answer(reply, Answer::Refused(godwit_wire::code::Refusal::unavailable()));
    rig.deaf = false;
    rig.run();
    assert_eq!(subacks(&rig.out(sub)), [(8, vec![0x80])]);
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    rig.packet(publisher, publish("iot/alice/t", "owed", 1, 1));
    assert_eq!(texts(&rig.publishes(sub)), ["owed"]);
}

#[test]
fn a_subscribe_that_is_one_too_many_changes_nothing() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.subscribe(sub, "iot/alice/t", 1), [1]);
    rig.hold(true);
    for n in 0..64 {
        rig.packet(sub, subscribe(100 + n, &format!("iot/alice/{n}"), 1));
    }
    assert!(!rig.is_closed(sub));
    rig.packet(sub, subscribe(8, "iot/alice/t", 1));
    assert!(rig.is_closed(sub));
    rig.hold(false);
    rig.run();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    assert_eq!(unsubscribe(&mut rig, sub, "iot/alice/t"), [0]);
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    let code = unsubscribe(&mut rig, sub, "iot/alice/t");
    assert_eq!(code, [0x11], "the row of before came back");
}

#[test]
fn what_comes_by_a_route_without_subscription_is_not_delivered_and_the_route_goes() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V3, "sub"));
    assert_eq!(rig.subscribe(sub, "iot/alice/a", 1), [1]);
    let left_over = Route {
        filter: "iot/alice/b".into(),
        route_id: 1,
        ..rig.routes[0].clone()
    };
    rig.routes.push(left_over);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    rig.packet(publisher, publish("iot/alice/b", "unwanted", 1, 1));
    rig.packet(publisher, publish("iot/alice/a", "wanted", 1, 2));
    assert_eq!(pubacks(&mut rig, publisher), [1, 2]);
    assert_eq!(texts(&rig.publishes(sub)), ["wanted"]);
    assert_eq!(rig.routes(), 1);
    assert_eq!(rig.metrics.unwanted.get(), 1);
}

#[test]
fn an_unsubscribe_with_more_filters_than_a_session_can_have_closes_the_connection() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let filters = |count: usize| Incoming::Unsubscribe {
        packet_id: 3,
        filters: (0..count).map(|n| n.to_string().into()).collect(),
    };
    rig.packet(sub, filters(1_000));
    assert!(!rig.is_closed(sub));
    rig.packet(sub, filters(1_001));
    assert!(matches!(rig.out(sub).last(), Some(Outgoing::Disconnect(0x97, _))));
}

#[test]
fn an_inbox_whose_row_is_late_is_refused_and_not_fed_unless_it_was_granted_before() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let sender = rig.connect(&bob, clean(V5, "sender"));
    rig.out(sub);
    for (round, expected) in [(0, 0), (1, 1)] {
        rig.hold(true);
        rig.packet(sub, subscribe(7, "me/inbox", 1));
        rig.pass(5_001);
        assert_eq!(subacks(&rig.out(sub)), [(7, vec![0x80])], "round {round}");
        rig.hold(false);
        rig.run();
        rig.packet(sender, send(conversation, "hello", 1));
        assert_eq!(rig.publishes(sub).len(), expected, "round {round}");
        assert_eq!(rig.subscribe(sub, "me/inbox", 1), [1]);
        ack_all(&mut rig, sub);
    }
}

#[test]
fn a_packet_with_the_same_filter_twice_is_answered_with_both_codes() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    let filter = |qos| FilterIn {
        filter: "iot/alice/#".into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let packet = Incoming::Subscribe {
        packet_id: 7,
        filters: vec![filter(0), filter(1)],
        subscription_id: None,
    };
    rig.packet(sub, packet);
    let out = rig.out(sub);
    assert_eq!(subacks(&out), [(7, vec![0, 1])]);
    assert_eq!(rig.routes(), 1);
}
