//! Wills and what their client came by: whether they may leave is said when they do.

use bytes::Bytes;
use godwit_wire::command::UserCommand;
use uuid::Uuid;

use super::clients::*;
use super::rig::*;
use crate::packet::{Connect, Version, Will};
use crate::wire_trait::CloseReason;

const V5: Version = Version::V5;

fn with_will(mut connect: Connect, delay: u32) -> Connect {
    connect.will = Some(Box::new(Will {
        topic: "iot/alice/gone".into(),
        payload: Bytes::from_static(b"gone"),
        qos: 1,
        retain: false,
        delay,
        message_expiry: None,
        properties: None,
    }));
    connect
}

/// Rows of wills, and of what is due.
fn rows(rig: &Rig) -> (usize, usize) {
    (rig.store.rows_of_table(202), rig.store.rows_of_table(203))
}

#[test]
fn the_will_of_who_came_by_a_revoked_token_is_not_published_whoever_closes_the_connection() {
    for gone_before in [false, true] {
        let mut rig = Rig::new();
        let alice = user("alice");
        let credential = alice.credential.unwrap();
        let conn = rig.connect(&alice, with_will(clean(V5, "c"), 0));
        rig.known.remove(&credential);
        if gone_before {
            // It vanished before the word of the revocation came.
            rig.vanish(conn);
        }
        drop(rig.ask_user(alice.user, UserCommand::CredentialEnded { credential }));
        rig.run();
        assert!(rig.published.is_empty(), "gone before: {gone_before}");
        assert!(rig.is_closed(conn));
        assert!(rig.metrics.refused.get() == 1);
        assert_eq!(rows(&rig), (0, 0));
    }
}

#[test]
fn a_delayed_will_whose_token_is_revoked_meanwhile_is_not_published_also_after_a_crash() {
    for crash in [false, true] {
        let mut rig = Rig::new();
        let alice = user("alice");
        rig.pass(31_000);
        let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 5));
        rig.vanish(conn);
        rig.known.remove(&alice.credential.unwrap());
        if crash {
            rig.crash();
        }
        rig.pass(60_000);
        assert!(rig.published.is_empty(), "crash: {crash}");
        assert_eq!(rig.metrics.refused.get(), 1);
    }
}

#[test]
fn a_will_is_published_although_the_time_of_its_token_is_over() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 0));
    rig.close(conn, CloseReason::CredentialEnded);
    rig.run();
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn the_will_of_who_came_by_a_revoked_certificate_is_not_published() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, with_will(clean(V5, "c"), 0));
    rig.close(conn, CloseReason::Revoked);
    rig.run();
    assert!(rig.published.is_empty());
}

#[test]
fn after_a_renewal_the_new_token_counts_for_the_will_too() {
    for (revoked, published) in [(0, 1), (1, 0)] {
        let mut rig = Rig::new();
        let alice = user("alice");
        let mut fresh = alice.clone();
        fresh.credential = Some(Uuid::now_v7());
        rig.known.insert(fresh.credential.unwrap(), fresh.clone());
        let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 0));
        rig.renew(conn, &fresh);
        let both = [alice.credential.unwrap(), fresh.credential.unwrap()];
        rig.known.remove(&both[revoked]);
        // Also from its row.
        rig.crash();
        rig.pass(60_000);
        assert_eq!(rig.published.len(), published, "of the two: {revoked}");
    }
}

#[test]
fn a_will_that_nobody_can_judge_now_is_tried_again() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 0));
    rig.accounts_fail = true;
    rig.vanish(conn);
    rig.run();
    assert!(rig.published.is_empty());
    rig.accounts_fail = false;
    rig.pass(30_000);
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn a_will_that_waits_for_its_turn_goes_before_what_its_returned_client_says_and_once() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 0));
    // So much of others' is being published that it waits.
    rig.users.common.firing.begins(alice.user, u64::MAX, 1 << 20);
    rig.vanish(conn);
    rig.run();
    assert!(rig.published.is_empty(), "it waits");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    rig.packet(conn, publish("iot/alice/gone", "back", 1, 1));
    rig.users.common.firing.is_over(u64::MAX);
    rig.pass(1_000);
    let payloads: Vec<_> = rig.published.iter().map(|one| one.payload.clone()).collect();
    assert_eq!(payloads, ["gone", "back"]);
}

#[test]
fn a_will_that_was_in_line_at_a_stop_goes_before_what_its_client_says_after_the_next_start_and_once() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 0));
    let other = rig.connect(&bob, persistent(V5, "d"));
    rig.users.common.firing.begins(bob.user, u64::MAX, 1 << 20);
    rig.vanish(conn);
    rig.shut_down(other);
    assert!(rig.published.is_empty(), "it waits");
    rig.crash();
    let conn = rig.connect(&alice, persistent(V5, "c"));
    rig.packet(conn, publish("iot/alice/gone", "back", 1, 1));
    rig.pass(60_000);
    let payloads: Vec<_> = rig.published.iter().map(|one| one.payload.clone()).collect();
    assert_eq!(payloads, ["gone", "back"]);
}

#[test]
fn a_will_whose_session_was_ended_before_its_delay_is_due_after_a_stop_too() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    rig.pass(31_000);
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), 3_000));
    let other = rig.connect(&bob, persistent(V5, "d"));
    rig.vanish(conn);
    rig.users.common.firing.begins(bob.user, u64::MAX, 1 << 20);
    let kick = UserCommand::Kick {
        client_id: None,
        forget: true,
    };
    drop(rig.ask_user(alice.user, kick));
    rig.run();
    rig.shut_down(other);
    assert!(rig.published.is_empty(), "it waits");
    rig.crash();
    rig.pass(60_000);
    assert_eq!(rig.published.len(), 1);
}
