//! How many retained messages a user may have, whatever their topics.

use std::sync::Arc;

use bytes::Bytes;

use super::super::config::UsersConfig;
use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version, Will};
use crate::topics::retained::{RETAINED_OF, owned_element};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
const QUOTA: u8 = 0x97;

fn set(rig: &mut Rig, messages: u32, bytes: u64) {
    rig.users.common.config = Arc::new(UsersConfig {
        retained_messages: messages,
        retained_bytes: bytes,
        ..UsersConfig::default()
    });
}

/// The reason code of the PUBACK.
fn retain(rig: &mut Rig, conn: ConnId, topic: &str, payload: &str) -> Option<u8> {
    let Incoming::Publish(mut packet) = publish(topic, payload, 1, 9) else {
        panic!("a PUBLISH")
    };
    packet.retain = true;
    rig.packet(conn, Incoming::Publish(packet));
    rig.out(conn).iter().find_map(|packet| match packet {
        Outgoing::Puback(ack) => Some(ack.reason),
        _ => None,
    })
}

/// The topics' homes of the rig do not write whose a message is: this does.
fn listed(rig: &Rig, who: &godwit_wire::account::Principal, topics: impl Iterator<Item = String>) {
    for topic in topics {
        let bytes = Bytes::copy_from_slice(&300_u32.to_be_bytes());
        let element = owned_element(&topic);
        rig.store
            .put_element(RETAINED_OF.id, who.user.to_bytes(), element, bytes);
    }
}

#[test]
fn one_more_than_the_quota_is_refused_and_what_replaces_or_clears_is_not() {
    let mut rig = Rig::new();
    set(&mut rig, 3, 0);
    let (alice, bob) = (user("alice"), user("bob"));
    let conn = rig.connect(&alice, clean(V5, "c"));
    for topic in ["iot/alice/1", "iot/alice/2", "iot/alice/3"] {
        assert_eq!(retain(&mut rig, conn, topic, "x"), Some(0x10));
    }
    assert_eq!(retain(&mut rig, conn, "iot/alice/4", "x"), Some(QUOTA));
    assert_eq!(rig.published.len(), 3, "it goes nowhere");
    assert_eq!(retain(&mut rig, conn, "iot/alice/2", "larger"), Some(0x10));
    assert_eq!(retain(&mut rig, conn, "iot/alice/1", ""), Some(0x10));
    assert_eq!(retain(&mut rig, conn, "iot/alice/4", "x"), Some(0x10));
    assert_eq!(retain(&mut rig, conn, "iot/alice/5", "x"), Some(QUOTA));
    rig.packet(conn, publish("iot/alice/5", "not retained", 1, 9));
    assert_eq!(pubacks(&mut rig, conn), [9]);
    let other = rig.connect(&bob, clean(V5, "c"));
    assert_eq!(retain(&mut rig, other, "iot/bob/1", "x"), Some(0x10));
    assert_eq!(rig.metrics.limits_met("retained"), 2);
    assert!(!rig.is_closed(conn));
}

#[test]
fn bytes_are_bounded_too() {
    let mut rig = Rig::new();
    set(&mut rig, 0, 2_000);
    let conn = rig.connect(&user("alice"), clean(V5, "c"));
    let large = "x".repeat(1_000);
    assert_eq!(retain(&mut rig, conn, "iot/alice/1", &large), Some(0x10));
    assert_eq!(retain(&mut rig, conn, "iot/alice/2", &large), Some(QUOTA));
    assert_eq!(retain(&mut rig, conn, "iot/alice/1", "x"), Some(0x10), "smaller");
    assert_eq!(retain(&mut rig, conn, "iot/alice/2", &large), Some(0x10));
    assert_eq!(
        retain(&mut rig, conn, "iot/alice/1", &large),
        Some(QUOTA),
        "larger"
    );
}

#[test]
fn what_is_stored_counts_after_a_start_page_by_page_and_order_stays_while_it_is_read() {
    let mut rig = Rig::new();
    set(&mut rig, 5_001, 0);
    let alice = user("alice");
    listed(&rig, &alice, (0..5_000).map(|n| format!("iot/alice/{n}")));
    let conn = rig.connect(&alice, clean(V5, "c"));
    rig.out(conn);
    for (topic, id, retained) in [
        ("iot/alice/new", 1, true),
        ("iot/alice/t", 2, false),
        ("iot/alice/more", 3, true),
    ] {
        let Incoming::Publish(mut packet) = publish(topic, "x", 1, id) else {
            panic!("a PUBLISH")
        };
        packet.retain = retained;
        if rig.wire.lines[&conn].paused {
            rig.run();
        }
        rig.give(conn, Incoming::Publish(packet));
    }
    rig.run();
    let codes: Vec<(u16, u8)> = rig
        .out(conn)
        .iter()
        .filter_map(|packet| match packet {
            Outgoing::Puback(ack) => Some((ack.packet_id, ack.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [(1, 0x10), (2, 0x10), (3, QUOTA)]);
}

#[test]
fn at_the_quota_it_is_looked_again_what_is_left_but_not_at_every_publish() {
    let mut rig = Rig::new();
    set(&mut rig, 2, 0);
    let conn = rig.connect(&user("alice"), clean(V5, "c"));
    for topic in ["iot/alice/1", "iot/alice/2"] {
        assert_eq!(retain(&mut rig, conn, topic, "x"), Some(0x10));
    }
    assert_eq!(retain(&mut rig, conn, "iot/alice/3", "x"), Some(QUOTA));
    // Nothing is stored as alice's: others have replaced both, say.
    rig.pass(9_000);
    assert_eq!(retain(&mut rig, conn, "iot/alice/3", "x"), Some(QUOTA));
    rig.pass(1_500);
    assert_eq!(retain(&mut rig, conn, "iot/alice/3", "x"), Some(0x10));
}

#[test]
fn a_store_that_cannot_be_read_refuses_for_now() {
    let mut rig = Rig::new();
    set(&mut rig, 2, 0);
    let conn = rig.connect(&user("alice"), clean(V5, "c"));
    rig.store
        .fail_reads
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(retain(&mut rig, conn, "iot/alice/1", "x"), Some(0x83));
    rig.store
        .fail_reads
        .store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(retain(&mut rig, conn, "iot/alice/1", "x"), Some(0x10));
}

#[test]
fn a_will_that_would_be_one_too_many_is_not_published() {
    let mut rig = Rig::new();
    set(&mut rig, 1, 0);
    let alice = user("alice");
    listed(&rig, &alice, std::iter::once("iot/alice/there".to_owned()));
    for (topic, published) in [("iot/alice/w", 0), ("iot/alice/there", 1)] {
        let mut connect = clean(V5, "c");
        connect.will = Some(Box::new(Will {
            topic: topic.into(),
            payload: "x".into(),
            qos: 1,
            retain: true,
            delay: 0,
            message_expiry: None,
            properties: None,
        }));
        let conn = rig.connect(&alice, connect);
        rig.vanish(conn);
        assert_eq!(rig.published.len(), published, "{topic}");
    }
    assert_eq!(rig.metrics.limits_met("retained"), 1);
}
