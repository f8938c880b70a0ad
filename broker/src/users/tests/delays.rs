//! What happens without a client on a store that is late, after crashes and after refusals: wills and session expiry.

use bytes::Bytes;
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, Publish, TopicCommand};
use godwit_wire::ids::Key;
use std::sync::Arc;

use super::clients::*;
use super::rig::*;
use crate::packet::{Connect, Incoming, Outgoing, Version, Will};

const V5: Version = Version::V5;

fn with_will(mut connect: Connect, qos: u8, delay: u32) -> Connect {
    connect.will = Some(Box::new(Will {
        topic: "iot/alice/gone".into(),
        payload: Bytes::from_static(b"gone"),
        qos,
        retain: false,
        delay,
        message_expiry: None,
        properties: None,
    }));
    connect
}

fn due_rows(rig: &Rig) -> (usize, usize) {
    (rig.store.rows_of_table(202), rig.store.rows_of_table(203))
}

#[test]
fn a_delayed_will_whose_row_becomes_durable_after_its_time_fires() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 1, 5));
    rig.hold(true);
    rig.vanish(conn);
    rig.pass(8_000);
    assert!(rig.published.is_empty());
    rig.hold(false);
    rig.pass(2_000);
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn a_session_whose_expiry_row_becomes_durable_after_its_time_ends() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let mut connect = persistent(V5, "c");
    connect.session_expiry = 100;
    let conn = rig.connect(&alice, connect);
    rig.subscribe(conn, "iot/alice/t", 1);
    rig.packet(
        conn,
        Incoming::Disconnect {
            reason: 0,
            session_expiry: Some(3),
        },
    );
    rig.hold(true);
    let conn = {
        let mut connect = persistent(V5, "d");
        connect.session_expiry = 2;
        rig.connect(&alice, connect)
    };
    rig.vanish(conn);
    rig.pass(9_000);
    rig.hold(false);
    rig.pass(4_000);
    assert_eq!((due_rows(&rig), rig.routes()), ((0, 0), 0));
}

#[test]
fn the_will_of_a_connect_that_was_never_accepted_is_not_published() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    rig.hold(true);
    let first = rig.connect(&alice, with_will(persistent(V5, "c"), 1, 0));
    let second = rig.connect(&alice, with_will(persistent(V5, "c"), 1, 0));
    assert!(rig.is_closed(first), "taken over");
    rig.vanish(second);
    let third = rig.connect(&alice, with_will(clean(V5, "other"), 1, 0));
    rig.vanish(third);
    rig.pass(3_000);
    rig.hold(false);
    rig.pass(60_000);
    assert!(rig.published.is_empty());
}

#[test]
fn a_connect_that_was_never_accepted_leaves_the_will_of_the_connection_before() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    rig.connect(&alice, with_will(persistent(V5, "c"), 1, 20));
    rig.hold(true);
    let second = rig.connect(&alice, persistent(V5, "c"));
    rig.vanish(second);
    rig.hold(false);
    rig.pass(15_000);
    assert!(rig.published.is_empty());
    rig.pass(10_000);
    assert_eq!(rig.published.len(), 1, "of the first");
    rig.pass(60_000);
    assert_eq!(rig.published.len(), 1);
}

/// The next publish that topics' homes are asked for, refused.
fn refuse_next(rig: &mut Rig) -> Option<Arc<Publish>> {
    let (mut key, mut command, mut reply) = rig.harness.take_command()?;
    if let (Key::User(user), Command::Account(standing)) = (&key, &command) {
        rig.account(*user, standing, reply);
        rig.run();
        (key, command, reply) = rig.harness.take_command()?;
    }
    drop(key);
    let Command::Topic(TopicCommand::Publish(publish, _)) = command else {
        panic!("{command:?} is no publish")
    };
    rig.answer(reply, Answer::Refused(Refusal::unavailable()));
    rig.run();
    Some(publish)
}

#[test]
fn a_will_that_is_tried_again_is_one_message_and_tried_ever_less_often() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 2, 0));
    rig.deaf = true;
    rig.vanish(conn);
    let first = refuse_next(&mut rig).unwrap();
    let mut tries = 1;
    for _ in 0..600 {
        rig.pass(1_000);
        if let Some(again) = refuse_next(&mut rig) {
            assert_eq!(first.message_id, again.message_id);
            tries += 1;
        }
    }
    assert!(first.message_id.is_some());
    assert!((5..=7).contains(&tries), "{tries} in ten minutes");
    rig.crash();
    rig.pass(700_000);
    assert_eq!(rig.published.len(), 1);
    assert_eq!(rig.published[0].message_id, first.message_id, "nor after a crash");
}

#[test]
fn after_a_crash_a_will_waits_no_longer_than_its_session_lasts() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.connect(&alice, with_will(clean(V5, "a"), 1, u32::MAX));
    let mut connect = with_will(persistent(V5, "b"), 1, u32::MAX);
    connect.session_expiry = 60;
    rig.connect(&alice, connect);
    rig.crash();
    rig.pass(40_000);
    assert_eq!(
        rig.published.len(),
        1,
        "of the session that ended with its connection"
    );
    rig.pass(150_000);
    assert_eq!(rig.published.len(), 2);
    assert_eq!(due_rows(&rig), (0, 0));
}

fn shortened_to_nothing_and_crashed() -> (Rig, godwit_wire::account::Principal) {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    rig.subscribe(conn, "iot/alice/t", 1);
    rig.vanish(conn);
    let mut connect = persistent(V5, "c");
    connect.session_expiry = 0;
    let conn = rig.connect(&alice, connect);
    assert!(connack(&mut rig, conn));
    rig.pass(60_000);
    assert!(!rig.is_closed(conn));
    assert_eq!(rig.routes(), 1, "it lasts as long as its connection");
    rig.crash();
    (rig, alice)
}

#[test]
fn a_stored_session_that_was_to_end_with_its_connection_ends_after_a_crash() {
    let (mut rig, _) = shortened_to_nothing_and_crashed();
    rig.pass(40_000);
    assert_eq!((due_rows(&rig), rig.routes()), ((0, 0), 0));
}

#[test]
fn a_stored_session_that_was_to_end_with_its_connection_is_not_found_after_a_crash() {
    let (mut rig, alice) = shortened_to_nothing_and_crashed();
    let conn = rig.connect(&alice, persistent(V5, "c"));
    assert!(!connack(&mut rig, conn));
    assert_eq!(rig.routes(), 0);
}

#[test]
fn an_expiry_in_disconnect_after_none_in_connect_is_a_protocol_error_and_the_will_stands() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let leave = Incoming::Disconnect {
        reason: 0,
        session_expiry: Some(5),
    };
    let conn = rig.connect(&alice, with_will(clean(V5, "c"), 1, 0));
    rig.packet(conn, leave.clone());
    assert!(matches!(
        rig.out(conn).last(),
        Some(Outgoing::Disconnect(0x82, _))
    ));
    assert_eq!(rig.published.len(), 1);
    let conn = rig.connect(&alice, with_will(persistent(V5, "d"), 1, 0));
    rig.packet(conn, leave);
    assert!(!matches!(rig.out(conn).last(), Some(Outgoing::Disconnect(..))));
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn a_3_1_1_connection_that_is_closed_on_is_closed_with_a_last_word_so_that_it_is_not_reset() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let first = rig.connect(&alice, persistent(Version::V311, "c"));
    let second = rig.connect(&alice, persistent(Version::V311, "c"));
    assert!(matches!(rig.out(first).last(), Some(Outgoing::Disconnect(..))));
    rig.packet(second, publish("iot/bob/t", "x", 1, 1));
    assert!(rig.is_closed(second));
    assert!(matches!(rig.out(second).last(), Some(Outgoing::Disconnect(..))));
}

#[test]
fn a_will_that_could_not_be_published_is_not_void_when_its_client_returns() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    rig.deaf = true;
    let mut conn = rig.connect(&alice, with_will(persistent(V5, "c"), 1, 0));
    for _ in 0..300 {
        rig.vanish(conn);
        assert!(refuse_next(&mut rig).is_some());
        conn = rig.connect(&alice, with_will(persistent(V5, "c"), 1, 0));
        assert!(rig.users.homes[&alice.user].wills.len() <= 130, "bounded");
    }
    rig.deaf = false;
    rig.pass(30_000);
    assert!(!rig.is_closed(conn));
    assert!(
        (100..=130).contains(&rig.published.len()),
        "{}",
        rig.published.len()
    );
    rig.pass(60_000);
    assert_eq!(
        due_rows(&rig),
        (2, 2),
        "of the session and the will of its connection"
    );
}
