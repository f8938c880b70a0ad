//! What happens at the edges of promises: begun deliveries whose time is over, routes that outlive one of several
//! subscriptions, and what is due right after a start.

use std::sync::Arc;

use bytes::Bytes;
use godwit_wire::account::Principal;
use godwit_wire::command::{Publish, Target, UserCommand};

use super::clients::*;
use super::rig::*;
use crate::packet::{Ack, Connect, FilterIn, Incoming, Outgoing, PublishOut, Version, Will};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
const TOPIC: &str = "iot/alice/t";

fn with_expiry(seconds: u32, qos: u8, packet_id: u16) -> Incoming {
    let Incoming::Publish(mut packet) = publish(TOPIC, "x", qos, packet_id) else {
        unreachable!()
    };
    packet.message_expiry = Some(seconds);
    Incoming::Publish(packet)
}

fn lasting(client_id: &str, session_expiry: u32) -> Connect {
    Connect {
        session_expiry,
        ..persistent(V5, client_id)
    }
}

#[test]
fn a_begun_delivery_is_repeated_although_its_message_has_expired_and_what_was_not_begun_is_not() {
    for qos in [1, 2] {
        let mut rig = Rig::new();
        let alice = user("alice");
        let mut connect = persistent(V5, "sub");
        connect.receive_maximum = 1;
        let sub = rig.connect(&alice, connect);
        rig.subscribe(sub, TOPIC, 2);
        let publisher = rig.connect(&alice, clean(V5, "p"));
        rig.packet(publisher, with_expiry(5, qos, 1));
        rig.packet(publisher, with_expiry(5, qos, 2));
        let first = rig.publishes(sub);
        assert_eq!(first.len(), 1, "the other waits for its acknowledgement");
        rig.vanish(sub);
        rig.pass(10_000);
        let sub = rig.connect(&alice, persistent(V5, "sub"));
        let again = rig.publishes(sub);
        let of = |one: &PublishOut| (one.packet_id, one.dup, one.qos, one.message_expiry);
        assert_eq!(
            again.iter().map(of).collect::<Vec<_>>(),
            [(first[0].packet_id, true, qos, Some(0))]
        );
        assert_eq!(rig.metrics.expired.get(), 1);
        let id = first[0].packet_id;
        if qos == 1 {
            rig.packet(sub, Incoming::Puback(id, 0));
            continue;
        }
        rig.packet(sub, Incoming::Pubrec(id, 0));
        assert!(
            matches!(rig.out(sub).last(), Some(Outgoing::Pubrel(Ack { packet_id, .. })) if *packet_id == id)
        );
    }
}

#[test]
fn a_begun_delivery_is_repeated_after_a_crash_although_its_message_has_expired() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, TOPIC, 1);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    rig.packet(publisher, with_expiry(5, 1, 1));
    assert_eq!(rig.publishes(sub).len(), 1);
    rig.pass(1_000);
    rig.crash();
    rig.pass(10_000);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.publishes(sub).len(), 1);
}

/// A session with subscriptions `(filter, QoS, identifier, retain as published, no local)`.
fn subscribed(rig: &mut Rig, alice: &Principal, all: &[(&str, u8, u32, bool, bool)]) -> ConnId {
    let conn = rig.connect(alice, persistent(V5, "sub"));
    for (filter, qos, id, retain_as_published, no_local) in all {
        let filter = FilterIn {
            filter: (*filter).into(),
            qos: *qos,
            no_local: *no_local,
            retain_as_published: *retain_as_published,
            retain_handling: 2,
        };
        let subscribe = Incoming::Subscribe {
            packet_id: 7,
            filters: vec![filter],
            subscription_id: Some(*id).filter(|id| *id > 0),
        };
        rig.packet(conn, subscribe);
    }
    rig.out(conn);
    conn
}

/// What comes of a publish that the routes of before an UNSUBSCRIBE matched.
fn delivered(rig: &mut Rig, alice: &Principal, conn: ConnId, target: Target, own: bool) -> Vec<PublishOut> {
    delivered_then(rig, alice, conn, target, (own, 0))
}

/// The same, matched so many seconds ago.
fn delivered_then(
    rig: &mut Rig,
    alice: &Principal,
    conn: ConnId,
    target: Target,
    (own, late): (bool, u32),
) -> Vec<PublishOut> {
    let publish = Arc::new(Publish {
        topic: TOPIC.into(),
        payload: Bytes::from_static(b"x"),
        qos: 2,
        retain: true,
        expires_at: None,
        properties: None,
        from: own.then_some(target.session),
        message_id: None,
    });
    let targets = vec![target];
    let deliver = UserCommand::Deliver {
        publish,
        targets,
        late,
    };
    drop(rig.ask_user(alice.user, deliver));
    rig.run();
    rig.publishes(conn)
}

fn target(rig: &Rig, alice: &Principal, qos: u8, ids: &[u32]) -> Target {
    Target {
        session: rig.users.homes[&alice.user].sessions[0].id,
        qos,
        retain_as_published: true,
        subscription_ids: ids.to_vec(),
    }
}

fn unsubscribe(rig: &mut Rig, conn: ConnId, filter: &str) {
    let unsubscribe = Incoming::Unsubscribe {
        packet_id: 9,
        filters: vec![filter.into()],
    };
    rig.packet(conn, unsubscribe);
    assert!(matches!(rig.out(conn).last(), Some(Outgoing::Unsuback(9, codes)) if codes[..] == [0]));
}

#[test]
fn after_an_unsuback_the_options_of_what_is_left_count_although_the_route_is_still_there() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let all = [(TOPIC, 2, 5, true, false), ("iot/alice/#", 1, 6, false, false)];
    let conn = subscribed(&mut rig, &alice, &all);
    let both = target(&rig, &alice, 2, &[5, 6]);
    let got = delivered(&mut rig, &alice, conn, both.clone(), false);
    assert_eq!(
        (got[0].qos, got[0].retain, &got[0].subscription_ids[..]),
        (2, true, &[5, 6][..])
    );
    unsubscribe(&mut rig, conn, TOPIC);
    let got = delivered(&mut rig, &alice, conn, both, false);
    assert_eq!(
        (got[0].qos, got[0].retain, &got[0].subscription_ids[..]),
        (1, false, &[6][..])
    );
}

#[test]
fn a_session_with_many_subscriptions_looks_at_every_publish_right_after_its_unsuback() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let filters: Vec<String> = (0..40).map(|n| format!("iot/alice/other/{n}")).collect();
    let mut all: Vec<_> = filters
        .iter()
        .map(|filter| (&**filter, 0, 0, false, false))
        .collect();
    all.extend([(TOPIC, 2, 0, true, false), ("iot/alice/#", 1, 0, false, false)]);
    let conn = subscribed(&mut rig, &alice, &all);
    rig.pass(20_000);
    unsubscribe(&mut rig, conn, TOPIC);
    for round in 0..20 {
        let both = target(&rig, &alice, 2, &[]);
        let got = delivered(&mut rig, &alice, conn, both, false);
        assert_eq!(got[0].qos, 1, "round {round}");
        rig.pass(101);
    }
}

#[test]
fn a_publish_that_was_matched_before_the_unsuback_is_looked_at_however_long_it_waited() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let filters: Vec<String> = (0..40).map(|n| format!("iot/alice/other/{n}")).collect();
    let mut all: Vec<_> = filters
        .iter()
        .map(|filter| (&**filter, 0, 0, false, false))
        .collect();
    all.push((TOPIC, 2, 0, true, false));
    let conn = subscribed(&mut rig, &alice, &all);
    let matched = target(&rig, &alice, 2, &[]);
    unsubscribe(&mut rig, conn, TOPIC);
    rig.pass(20_000);
    let mut looked_at = 0;
    for round in 0..20 {
        let got = delivered_then(&mut rig, &alice, conn, matched.clone(), (false, 23));
        assert!(got.is_empty(), "round {round}");
        let got = delivered_then(&mut rig, &alice, conn, matched.clone(), (false, 5));
        looked_at += usize::from(got.is_empty());
        rig.pass(101);
    }
    assert!(
        (1..20).contains(&looked_at),
        "{looked_at}: those matched after it are looked at now and then"
    );
}

#[test]
fn a_target_gets_nothing_more_than_its_routes_said_and_the_identifier_that_took_anothers_place() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let all = [(TOPIC, 2, 5, true, false), ("iot/alice/#", 1, 6, false, false)];
    let conn = subscribed(&mut rig, &alice, &all);
    let one = target(&rig, &alice, 1, &[6]);
    let got = delivered(&mut rig, &alice, conn, one, false);
    assert_eq!((got[0].qos, &got[0].subscription_ids[..]), (1, &[6][..]));
    let older = target(&rig, &alice, 1, &[4]);
    let got = delivered(&mut rig, &alice, conn, older, false);
    assert_eq!(got[0].subscription_ids, [5, 6]);
}

#[test]
fn no_local_of_what_is_left_keeps_the_sessions_own_publish_away() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let all = [(TOPIC, 1, 0, false, false), ("iot/alice/#", 1, 0, false, true)];
    let conn = subscribed(&mut rig, &alice, &all);
    let both = target(&rig, &alice, 1, &[]);
    assert_eq!(delivered(&mut rig, &alice, conn, both.clone(), true).len(), 1);
    unsubscribe(&mut rig, conn, TOPIC);
    assert!(delivered(&mut rig, &alice, conn, both.clone(), true).is_empty());
    assert_eq!(delivered(&mut rig, &alice, conn, both, false).len(), 1);
}

#[test]
fn what_began_after_a_start_ends_in_time_and_what_was_there_before_has_its_half_minute() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let older = rig.connect(&alice, lasting("older", 5));
    let returning = rig.connect(&alice, lasting("returning", 6));
    rig.vanish(older);
    rig.vanish(returning);
    rig.crash();
    let conn = rig.connect(&alice, lasting("new", 2));
    rig.vanish(conn);
    let mut connect = lasting("will", 600);
    connect.will = Some(Box::new(Will {
        topic: "iot/alice/gone".into(),
        payload: Bytes::from_static(b"gone"),
        qos: 1,
        retain: false,
        delay: 3,
        message_expiry: None,
        properties: None,
    }));
    let conn = rig.connect(&alice, connect);
    rig.vanish(conn);
    // Its row of before the start stands, and is the right one.
    let conn = rig.connect(&alice, lasting("returning", 6));
    rig.vanish(conn);
    let ids = |rig: &Rig| {
        let home = rig.users.homes.get(&alice.user);
        let mut ids: Vec<String> = home
            .map(|home| {
                home.sessions
                    .iter()
                    .map(|one| one.client_id.to_string())
                    .collect()
            })
            .unwrap_or_default();
        ids.sort_unstable();
        ids
    };
    rig.pass(1_500);
    assert_eq!(ids(&rig), ["new", "older", "returning", "will"]);
    assert!(rig.published.is_empty());
    rig.pass(3_000);
    assert_eq!(ids(&rig), ["older", "returning", "will"]);
    assert_eq!(rig.published.len(), 1);
    rig.pass(5_000);
    assert_eq!(ids(&rig), ["older", "will"]);
    let conn = rig.connect(&alice, lasting("older", 5));
    assert!(connack(&mut rig, conn), "its client may take half a minute");
}
