//! Reads that fail, rows that cannot be read, rows of a connect that was refused.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::clients::*;
use super::rig::*;
use crate::packet::{Outgoing, Version};
use crate::tables::{SESSION_LOG, USER_ROWS};
use godwit_wire::limits::USER_SESSIONS;

const V5: Version = Version::V5;

#[test]
fn a_page_that_could_not_be_read_is_asked_for_again() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 1);
    rig.packet(sub, subscribe(8, "me/inbox/text", 1));
    rig.vanish(sub);
    let publisher = rig.connect(&alice, persistent(V5, "p"));
    for id in 1..=10 {
        rig.packet(publisher, publish("iot/alice/t", "x", 1, id));
        rig.packet(publisher, send(conversation, "y", id + 100));
    }
    rig.store.fail_reads.store(true, Ordering::Relaxed);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    assert_eq!(rig.publishes(sub).len(), 0);
    rig.pass(5_000);
    rig.store.fail_reads.store(false, Ordering::Relaxed);
    rig.pass(1_000);
    let got = rig.publishes(sub);
    let inbox = got
        .iter()
        .filter(|publish| publish.topic.starts_with("me/"))
        .count();
    assert_eq!((got.len(), inbox), (20, 10));
}

#[test]
fn rows_that_cannot_be_read_are_passed_over_and_nothing_after_them() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 1);
    rig.vanish(sub);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for id in 1..=200 {
        rig.packet(publisher, publish("iot/alice/t", &id.to_string(), 1, id));
    }
    let session = rig.routes[0].session;
    let unknown = Bytes::from_static(b"\xff\xff");
    // More than a page.
    for seq in 1..=100 {
        rig.store
            .put_log_row(SESSION_LOG.id, session.0, seq, unknown.clone());
    }
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let got: Vec<String> = rig.publishes(sub).iter().map(text).collect();
    let expected: Vec<String> = (101..=200).map(|number| number.to_string()).collect();
    assert_eq!(got, expected);
    assert_eq!(rig.metrics.missing.get(), 100);
}

#[test]
fn what_a_refused_connect_ended_is_ended_in_the_store_too() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    for number in 0..USER_SESSIONS {
        let conn = rig.connect(&alice, persistent(V5, &number.to_string()));
        if number == 0 {
            rig.deaf = true;
            rig.packet(conn, send(conversation, "x", 1));
        }
        rig.vanish(conn);
        rig.deaf = false;
        rig.run();
    }
    rig.pass(30_000);
    assert!(!rig.users.is_loaded(alice.user), "what may be repeated is stored");
    let rows = rig.store.rows_of_table(USER_ROWS.id);
    let conn = rig.connect(&alice, persistent(V5, "one more"));
    assert!(matches!(&rig.out(conn)[..], [Outgoing::Connack(connack)] if connack.reason == 0x97));
    assert_eq!(
        rig.store.rows_of_table(USER_ROWS.id),
        rows - 1,
        "only memory says from now on what is a retry"
    );
}
