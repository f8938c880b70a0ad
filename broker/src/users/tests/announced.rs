//! What CONNACK announces because the node is set up so, and what becomes of who does not keep to it.

use std::sync::Arc;

use godwit_wire::limits::{SESSION_SUBSCRIPTIONS, TOPIC_ALIASES, USER_SESSIONS, USER_SUBSCRIPTIONS};
use godwit_wire::proto::stored::PublishProperties;

use super::super::config::UsersConfig;
use super::clients::*;
use super::rig::*;
use crate::packet::{Connack, Connect, Incoming, Outgoing, Version, Will};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
const V311: Version = Version::V311;

fn rig(change: impl FnOnce(&mut UsersConfig)) -> Rig {
    let mut rig = Rig::new();
    let mut config = UsersConfig::default();
    change(&mut config);
    rig.users.common.config = Arc::new(config);
    rig
}

fn connack(rig: &mut Rig, connect: Connect) -> Connack {
    let conn = rig.connect(&user("alice"), connect);
    match rig.out(conn).into_iter().next() {
        Some(Outgoing::Connack(connack)) => *connack,
        other => panic!("{other:?}"),
    }
}

fn will(topic: &str, qos: u8, payload: &'static [u8], text: Option<bool>) -> Connect {
    let properties = PublishProperties {
        payload_is_utf8: text,
        ..PublishProperties::default()
    };
    Connect {
        will: Some(Box::new(Will {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain: false,
            delay: 0,
            message_expiry: None,
            properties: Some(Box::new(properties)),
        })),
        ..clean(V5, "c")
    }
}

/// A PUBLISH that says that it is text, or not.
fn said(payload: &'static [u8], text: Option<bool>, qos: u8, id: u16) -> Incoming {
    let Incoming::Publish(mut packet) = publish("iot/alice/t", "", qos, id) else {
        panic!("a PUBLISH")
    };
    packet.payload = payload.into();
    packet.properties = Some(Box::new(PublishProperties {
        payload_is_utf8: text,
        ..PublishProperties::default()
    }));
    Incoming::Publish(packet)
}

fn last_disconnect(rig: &mut Rig, conn: ConnId) -> Option<u8> {
    match rig.out(conn).last() {
        Some(Outgoing::Disconnect(reason, _)) => Some(*reason),
        _ => None,
    }
}

#[test]
fn a_keep_alive_over_the_longest_or_none_is_answered_with_the_longest_in_mqtt_5_alone() {
    for (most, asked, version, told) in [
        (0, 0, V5, None),
        (0, 65_535, V5, None),
        (60, 0, V5, Some(60)),
        (60, 61, V5, Some(60)),
        (60, 60, V5, None),
        (60, 5, V5, None),
        (60, 0, V311, None),
        (60, 90, V311, None),
    ] {
        let mut rig = rig(|config| config.max_keep_alive = most);
        let connect = Connect {
            keep_alive: asked,
            ..clean(version, "c")
        };
        assert_eq!(
            connack(&mut rig, connect).server_keep_alive,
            told,
            "{asked} of {most}"
        );
    }
}

#[test]
fn topic_aliases_are_announced() {
    assert_eq!(
        connack(&mut rig(|_| {}), clean(V5, "c")).topic_alias_maximum,
        TOPIC_ALIASES
    );
}

#[test]
fn a_maximum_qos_is_announced_and_what_is_above_it_ends_the_connection_and_no_subscription() {
    assert_eq!(connack(&mut rig(|_| {}), clean(V5, "c")).maximum_qos, None);
    for (most, version) in [(0, V5), (1, V5), (0, V311), (1, V311)] {
        let mut rig = rig(|config| config.max_qos = most);
        assert_eq!(connack(&mut rig, clean(version, "c")).maximum_qos, Some(most));
        let alice = user("alice");
        let conn = rig.connect(&alice, clean(version, "c"));
        assert_eq!(rig.subscribe(conn, "iot/alice/t", 2), [2], "MQTT-3.2.2-9");
        rig.packet(conn, publish("iot/alice/t", "x", most, 1));
        assert!(!rig.is_closed(conn));
        rig.packet(conn, publish("iot/alice/t", "x", most + 1, 2));
        assert_eq!(last_disconnect(&mut rig, conn), Some(0x9B));
        assert_eq!((rig.published.len(), rig.metrics.limits_met("max_qos")), (1, 1));
    }
}

#[test]
fn a_will_above_the_maximum_qos_is_refused_at_connect() {
    let mut rig = rig(|config| config.max_qos = 1);
    assert_eq!(connack(&mut rig, will("iot/alice/w", 1, b"x", None)).reason, 0);
    assert_eq!(connack(&mut rig, will("iot/alice/w", 2, b"x", None)).reason, 0x9B);
    assert_eq!(rig.metrics.limits_met("max_qos"), 1);
}

#[test]
fn a_payload_that_is_not_the_text_it_is_said_to_be_is_refused_and_goes_nowhere() {
    let mut rig = Rig::new();
    let conn = rig.connect(&user("alice"), clean(V5, "c"));
    rig.out(conn);
    for (payload, text, qos, expected) in [
        (&b"\xff"[..], Some(true), 1, Some(0x99)),
        (b"\xff", Some(true), 2, Some(0x99)),
        (b"\xff", Some(true), 0, None),
        (b"\xff", Some(false), 1, Some(0x10)),
        (b"\xff", None, 1, Some(0x10)),
        ("\u{e9}".as_bytes(), Some(true), 1, Some(0x10)),
    ] {
        let (before, refused) = (rig.published.len(), rig.metrics.refused.get());
        rig.packet(conn, said(payload, text, qos, 1));
        let code = rig.out(conn).iter().find_map(|packet| match packet {
            Outgoing::Puback(ack) | Outgoing::Pubrec(ack) => Some(ack.reason),
            _ => None,
        });
        assert_eq!(code, expected, "{payload:?} {text:?}");
        let wrong = text == Some(true) && payload == b"\xff";
        assert_eq!(rig.published.len() - before, usize::from(!wrong));
        assert_eq!(rig.metrics.refused.get() - refused, u64::from(wrong));
        assert!(!rig.is_closed(conn));
    }
}

#[test]
fn a_will_that_is_not_the_text_it_is_said_to_be_is_refused_at_connect() {
    let mut rig = Rig::new();
    for (payload, text, reason) in [
        (&b"\xff"[..], Some(true), 0x99),
        (b"\xff", None, 0),
        (b"fine", Some(true), 0),
    ] {
        assert_eq!(
            connack(&mut rig, will("iot/alice/w", 1, payload, text)).reason,
            reason
        );
    }
}

#[test]
fn one_session_too_many_is_refused_and_counted() {
    let mut rig = Rig::new();
    let alice = user("alice");
    for n in 0..=USER_SESSIONS {
        let conn = rig.connect(&alice, persistent(V5, &format!("c{n}")));
        let expected = if n < USER_SESSIONS { 0 } else { 0x97 };
        let out = rig.out(conn);
        assert!(
            matches!(out.first(), Some(Outgoing::Connack(connack)) if connack.reason == expected),
            "session {n}: {out:?}"
        );
    }
    assert_eq!(rig.metrics.limits_met("sessions"), 1);
}

#[test]
fn one_subscription_too_many_is_refused_and_counted() {
    let mut rig = Rig::new();
    let conn = rig.connect(&user("alice"), clean(V5, "c"));
    for n in 0..SESSION_SUBSCRIPTIONS {
        assert_eq!(rig.subscribe(conn, &format!("iot/alice/{n}"), 1), [1]);
    }
    assert_eq!(rig.subscribe(conn, "iot/alice/more", 1), [0x97]);
    assert_eq!(
        rig.subscribe(conn, "iot/alice/7", 1),
        [1],
        "one that is there is none more"
    );
    assert!(!rig.is_closed(conn));
    assert_eq!(rig.metrics.limits_met("subscriptions"), 1);
}

#[test]
fn a_user_has_as_many_subscriptions_over_all_sessions_as_it_may() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sessions = USER_SUBSCRIPTIONS / SESSION_SUBSCRIPTIONS;
    for session in 0..=sessions {
        let conn = rig.connect(&alice, clean(V5, &format!("c{session}")));
        let expected = if session < sessions { 1 } else { 0x97 };
        for n in 0..SESSION_SUBSCRIPTIONS {
            assert_eq!(
                rig.subscribe(conn, &format!("iot/alice/{n}"), 1),
                [expected],
                "session {session}, filter {n}"
            );
        }
    }
    assert_eq!(
        rig.metrics.limits_met("user_subscriptions"),
        SESSION_SUBSCRIPTIONS as u64
    );
    // Others have their own.
    let other = rig.connect(&user("bob"), clean(V5, "c"));
    assert_eq!(rig.subscribe(other, "iot/bob/x", 1), [1]);
}
