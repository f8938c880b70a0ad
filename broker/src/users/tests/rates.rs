//! What a user may publish a second: who is over it is not read, loses nothing, and harms nobody else.

use std::sync::Arc;

use super::super::config::UsersConfig;
use super::super::rates::{BURST_MS, PATIENCE_MS, ROUTES};
use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
/// What a bucket holds at 100 a second.
const BURST: u64 = 100 * BURST_MS / 1_000;

fn rig(change: impl FnOnce(&mut UsersConfig)) -> Rig {
    let mut rig = Rig::new();
    let mut config = UsersConfig::default();
    change(&mut config);
    rig.users.common.config = Arc::new(config);
    rig
}

fn is_read(rig: &Rig, conn: ConnId) -> bool {
    !rig.wire.lines[&conn].paused
}

/// Publishes until the client is not read, at most so many; how many went.
fn until_held(rig: &mut Rig, conn: ConnId, payload: &str, most: u64) -> u64 {
    for n in 0..most {
        if !is_read(rig, conn) || rig.is_closed(conn) {
            return n;
        }
        rig.packet(conn, publish("iot/alice/t", payload, 1, n as u16 + 1));
    }
    most
}

#[test]
fn a_user_may_publish_a_burst_and_then_its_rate_and_nothing_is_lost() {
    let mut rig = rig(|config| config.publishes_per_second = 100);
    let alice = user("alice");
    let conn = rig.connect(&alice, clean(V5, "c"));
    assert_eq!(until_held(&mut rig, conn, "x", 10_000), BURST + 1);
    let began = rig.harness.now().mono_ms;
    let mut more = 0;
    while more < 1_000 {
        rig.pass(10);
        more += until_held(&mut rig, conn, "x", 1_000);
    }
    let took = rig.harness.now().mono_ms - began;
    assert!(
        (9_900..10_200).contains(&took),
        "1,000 at 100 a second took {took} ms"
    );
    assert_eq!(rig.published.len() as u64, BURST + 1 + more);
    assert_eq!(pubacks(&mut rig, conn).len() as u64, BURST + 1 + more);
    assert!(rig.metrics.limits_met("publishes_per_second") > 10);
    assert_eq!(rig.metrics.limits_met("publish_bytes_per_second"), 0);
}

#[test]
fn bytes_are_counted_apart_from_messages() {
    let mut rig = rig(|config| {
        config.publishes_per_second = 1_000;
        config.publish_bytes_per_second = 20_000;
    });
    let alice = user("alice");
    let conn = rig.connect(&alice, clean(V5, "c"));
    let payload = "x".repeat(1_000 - "iot/alice/t".len());
    assert_eq!(
        until_held(&mut rig, conn, &payload, 10_000),
        20 * BURST_MS / 1_000 + 1
    );
    assert!(rig.metrics.limits_met("publish_bytes_per_second") == 1);
    // What one packet is over is waited for, and no more.
    rig.pass(49);
    assert!(!is_read(&rig, conn));
    rig.pass(2);
    assert!(is_read(&rig, conn));
}

#[test]
fn all_connections_of_a_user_share_its_rate_and_other_users_do_not_feel_it() {
    let mut rig = rig(|config| config.publishes_per_second = 100);
    let (alice, bob) = (user("alice"), user("bob"));
    let first = rig.connect(&alice, clean(V5, "1"));
    let second = rig.connect(&alice, clean(V5, "2"));
    let other = rig.connect(&bob, clean(V5, "1"));
    until_held(&mut rig, first, "x", 1_000);
    assert!(!is_read(&rig, second), "a second connection gives no second rate");
    let third = rig.connect(&alice, clean(V5, "3"));
    assert!(!is_read(&rig, third), "nor does one that comes later");
    assert!(is_read(&rig, other));
    rig.pass(60);
    assert!([first, second, third].iter().all(|conn| is_read(&rig, *conn)));
}

#[test]
fn leaving_and_coming_back_gives_no_new_burst() {
    let mut rig = rig(|config| config.publishes_per_second = 100);
    let alice = user("alice");
    let conn = rig.connect(&alice, clean(V5, "c"));
    until_held(&mut rig, conn, "x", 1_000);
    rig.vanish(conn);
    rig.pass(1_000);
    let conn = rig.connect(&alice, clean(V5, "c"));
    let went = until_held(&mut rig, conn, "x", 1_000);
    assert!((95..=105).contains(&went), "a second's worth, not {went}");
}

#[test]
fn who_never_lets_up_is_told_and_closed_and_who_catches_up_is_not() {
    for (pause_ms, closed) in [(0, true), (4_000, false)] {
        let mut rig = rig(|config| config.publishes_per_second = 100);
        let alice = user("alice");
        let conn = rig.connect(&alice, clean(V5, "c"));
        let mut next = 0;
        while rig.harness.now().mono_ms < START_PASSED + PATIENCE_MS && !rig.is_closed(conn) {
            until_held(&mut rig, conn, "x", 10_000);
            next += 1;
            rig.pass(if next % 100 == 0 { 50 + pause_ms } else { 500 });
            pubacks_until_now(&mut rig, conn);
        }
        assert_eq!(rig.is_closed(conn), closed, "pause of {pause_ms} ms");
        assert_eq!(rig.metrics.limits_met("message_rate"), u64::from(closed));
        if closed {
            assert!(matches!(
                rig.out(conn).last(),
                Some(Outgoing::Disconnect(0x96, _))
            ));
        }
    }
}

/// After the patience and what the first burst takes.
const START_PASSED: u64 = 60_000;

fn pubacks_until_now(rig: &mut Rig, conn: ConnId) {
    if !rig.is_closed(conn) {
        rig.out(conn);
    }
}

#[test]
fn without_a_rate_nobody_is_held_and_no_bucket_is_kept() {
    let mut rig = rig(|_| {});
    let alice = user("alice");
    let conn = rig.connect(&alice, clean(V5, "c"));
    assert_eq!(until_held(&mut rig, conn, "x", 3_000), 3_000);
    assert!(rig.users.homes[&alice.user].rates.is_none());
}

#[test]
fn full_buckets_are_given_back() {
    let mut rig = rig(|config| config.publishes_per_second = 100);
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    rig.subscribe(conn, "iot/alice/t", 1);
    rig.packet(conn, publish("iot/alice/t", "x", 1, 1));
    assert!(rig.users.homes[&alice.user].rates.is_some());
    rig.pass(1_000);
    for got in rig.publishes(conn) {
        rig.packet(conn, Incoming::Puback(got.packet_id, 0));
    }
    rig.pass(1_000);
    assert!(rig.users.homes[&alice.user].rates.is_none());
}

#[test]
fn a_packet_larger_than_the_burst_now_and_then_is_waited_for_and_no_flood() {
    let mut rig = rig(|config| {
        config.publishes_per_second = 0;
        config.publish_bytes_per_second = 100;
    });
    let conn = rig.connect(&user("alice"), clean(V5, "c"));
    let large = "x".repeat(1_000);
    for n in 1..=PATIENCE_MS / 60_000 + 3 {
        rig.packet(conn, publish("iot/alice/t", &large, 1, n as u16));
        assert!(!rig.is_closed(conn) && !is_read(&rig, conn));
        rig.pass(60_000);
        assert!(is_read(&rig, conn));
    }
}

#[test]
fn a_publish_that_was_for_thousands_counts_as_many_more_and_holds_back_nobody_else() {
    let mut rig = rig(|config| config.publishes_per_second = 100);
    let (alice, bob) = (user("alice"), user("bob"));
    let conn = rig.connect(&alice, clean(V5, "c"));
    let other = rig.connect(&bob, clean(V5, "c"));
    rig.routes_of_a_publish = 10_000;
    rig.packet(conn, publish("iot/alice/t", "x", 1, 1));
    assert_eq!(pubacks(&mut rig, conn).len(), 1);
    assert!(!is_read(&rig, conn) && is_read(&rig, other));
    // 10,000 routes are 1,250 publishes more: beside a full bucket 7.5 seconds' worth.
    let owed = 1 + 10_000 / u64::from(ROUTES) - BURST;
    rig.pass(owed * 10 - 50);
    assert!(!is_read(&rig, conn), "not before it is paid for");
    rig.pass(100);
    assert!(is_read(&rig, conn));
}
