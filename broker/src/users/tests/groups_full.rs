//! Shared subscriptions: a member that has as much as it may hold is passed over while others have room.

use std::sync::Arc;

use super::super::config::UsersConfig;
use super::clients::*;
use super::groups::member;
use super::rig::*;
use crate::packet::{Incoming, Version};

const V3: Version = Version::V311;
const V5: Version = Version::V5;
const GROUP: &str = "$share/g/iot/alice/#";
const TOPIC: &str = "iot/alice/t";

#[test]
fn a_member_that_is_full_is_passed_over_before_its_oldest_would_go() {
    let mut rig = Rig::with_topics();
    rig.users.common.config = Arc::new(UsersConfig {
        session_log_entries: 160,
        ..UsersConfig::default()
    });
    let alice = user("alice");
    let slow = member(&mut rig, &alice, "slow", GROUP, 1);
    let quick = member(&mut rig, &alice, "quick", GROUP, 1);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    let mut done = 0;
    for n in 1..=400 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
        done += ack_all(&mut rig, quick).len();
    }
    assert_eq!(pubacks(&mut rig, publisher).len(), 400);
    assert_eq!(done, 250);
    assert_eq!(rig.publishes(slow).len(), 150);
    assert_eq!(rig.metrics.over_quota.get(), 0);
}

#[test]
fn a_member_whose_log_is_full_in_bytes_is_passed_over_too_also_while_it_is_away() {
    let mut rig = Rig::with_topics();
    rig.users.common.config = Arc::new(UsersConfig {
        session_log_bytes: 64 * 1024,
        ..UsersConfig::default()
    });
    let alice = user("alice");
    let slow = member(&mut rig, &alice, "slow", GROUP, 1);
    let quick = member(&mut rig, &alice, "quick", GROUP, 1);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    let large = "x".repeat(1_000);
    let mut done = 0;
    for n in 1..=300 {
        rig.packet(publisher, publish(TOPIC, &large, 1, n));
        done += ack_all(&mut rig, quick).len();
    }
    let held = rig.publishes(slow).len();
    assert!((40..64).contains(&held), "{held} of some sixty that fit");
    assert_eq!(done + held, 300);
    rig.vanish(slow);
    rig.vanish(quick);
    for n in 301..=340 {
        rig.packet(publisher, publish(TOPIC, &large, 1, n));
    }
    assert_eq!(pubacks(&mut rig, publisher).len(), 340);
    rig.pass(10_000);
    assert_eq!(rig.metrics.over_quota.get(), 0);
    let quick = rig.connect(&alice, persistent(V5, "quick"));
    assert_eq!(ack_all(&mut rig, quick).len(), 40);
}

#[test]
fn when_all_members_are_full_the_first_one_takes_it() {
    let mut rig = Rig::with_topics();
    rig.users.common.config = Arc::new(UsersConfig {
        session_log_entries: 32,
        ..UsersConfig::default()
    });
    let alice = user("alice");
    for name in ["a", "b"] {
        let conn = member(&mut rig, &alice, name, GROUP, 1);
        rig.vanish(conn);
    }
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 1..=3_000 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!(pubacks(&mut rig, publisher).len(), 3_000);
    assert!(rig.metrics.over_quota.get() > 500);
}

#[test]
fn a_member_in_memory_only_that_leaves_one_open_and_acknowledges_the_others_is_not_closed() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let conn = rig.connect(&alice, clean(V5, "m"));
    rig.out(conn);
    assert_eq!(rig.subscribe(conn, GROUP, 1), [1]);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    let mut open = None;
    let large = "x".repeat(4_000);
    for n in 1..=3_000u16 {
        rig.packet(publisher, publish(TOPIC, &large, 1, n));
        for one in rig.publishes(conn) {
            if open.is_none() {
                open = Some(one.packet_id);
            } else {
                rig.packet(conn, Incoming::Puback(one.packet_id, 0));
            }
        }
    }
    assert!(!rig.is_closed(conn));
    // What it keeps of them would be 12 MB.
    let session = rig.users.homes.values().flat_map(|home| &home.sessions);
    let kept: usize = session.map(|session| session.log.kept().1).sum();
    assert!(kept < 512 * 1024, "{kept}");
    // It goes, and what it did not acknowledge is another one's.
    let other = member(&mut rig, &alice, "other", GROUP, 1);
    rig.vanish(conn);
    assert_eq!(rig.publishes(other).len(), 1);
}

#[test]
fn a_member_in_memory_only_that_takes_too_little_is_passed_over_before_it_would_be_closed() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let slow = rig.connect(&alice, clean(V5, "slow"));
    rig.out(slow);
    assert_eq!(rig.subscribe(slow, GROUP, 1), [1]);
    let quick = member(&mut rig, &alice, "quick", GROUP, 1);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    let mut done = 0;
    for n in 1..=3_000 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
        done += ack_all(&mut rig, quick).len();
    }
    assert!(!rig.is_closed(slow));
    assert!((3_000 - 1_000..2_500).contains(&done), "{done}");
    rig.vanish(slow);
    assert_eq!(done + ack_all(&mut rig, quick).len(), 3_000);
}
