//! Changes of the rules of ordinary topics that follow each other before all connections were looked at.

use std::sync::Arc;

use godwit_accounts::Acl;
use godwit_accounts::acl::{Access, Effect, Rule, Who};
use godwit_cluster::RoleId;
use godwit_wire::account::Principal;

use super::clients::*;
use super::rig::*;
use crate::packet::Version;
use crate::wire_trait::ConnId;

/// Everybody may do everything under this filter.
fn rules(rig: &mut Rig, filter: &str) {
    let rule = Rule {
        effect: Effect::Allow,
        access: Access::Both,
        filter: filter.into(),
        who: Who::Everyone,
    };
    rig.users.new_rules(Arc::new(Acl::new(vec![rule]).unwrap()));
}

/// The next connections are looked at.
fn review(rig: &mut Rig) {
    let (users, wire) = (&mut rig.users, &mut rig.wire);
    rig.harness.with(RoleId::Broker, |cx| users.review(cx, wire));
}

fn subscriber(rig: &mut Rig, who: &Principal, filter: &str) -> ConnId {
    let conn = rig.connect(who, persistent(Version::V5, "c"));
    assert_eq!(rig.subscribe(conn, filter, 1), [1]);
    conn
}

#[test]
fn who_got_a_right_by_a_change_and_loses_it_by_the_next_is_closed_although_nobody_was_looked_at_between() {
    let mut rig = Rig::new();
    rules(&mut rig, "a/#");
    review(&mut rig);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let keeps = subscriber(&mut rig, &alice, "a/1");
    rules(&mut rig, "+/1");
    let loses = subscriber(&mut rig, &bob, "b/1");
    rules(&mut rig, "a/#");
    review(&mut rig);
    rig.run();
    assert!(rig.is_closed(loses) && !rig.is_closed(keeps));
    assert_eq!(rig.metrics.rights_lost.get(), 1);
    // It comes back with what it may not have, and loses nothing by what follows.
    let again = rig.connect(&bob, persistent(Version::V5, "c"));
    rules(&mut rig, "a/+");
    let other = subscriber(&mut rig, &carol, "a/1");
    rules(&mut rig, "a/#");
    review(&mut rig);
    rig.run();
    assert!([again, other, keeps].iter().all(|conn| !rig.is_closed(*conn)));
}

#[test]
fn more_changes_than_are_remembered_lose_none_of_them() {
    let mut rig = Rig::new();
    rules(&mut rig, "a/#");
    review(&mut rig);
    let [alice, bob] = ["alice", "bob"].map(user);
    let keeps = subscriber(&mut rig, &alice, "a/1");
    rules(&mut rig, "+/1");
    let loses = subscriber(&mut rig, &bob, "b/1");
    for _ in 0..40 {
        rules(&mut rig, "a/#");
    }
    review(&mut rig);
    rig.run();
    assert!(rig.is_closed(loses) && !rig.is_closed(keeps));
}

#[test]
fn those_that_wait_since_a_change_are_looked_at_first_after_the_next_and_all_in_turn() {
    let mut rig = Rig::new();
    rules(&mut rig, "a/#");
    review(&mut rig);
    let conns: Vec<ConnId> = (0..1_500)
        .map(|n| rig.connect(&user(&format!("u{n}")), clean(Version::V5, "c")))
        .collect();
    rules(&mut rig, "+/1");
    review(&mut rig);
    let waiting = rig.users.review.as_ref().unwrap().rest.clone();
    assert_eq!(waiting.len(), 1_500 - 1_024);
    rules(&mut rig, "a/1");
    let rest = &rig.users.review.as_ref().unwrap().rest;
    assert_eq!(rest.len(), conns.len(), "all are compared with the change");
    assert_eq!(rest[1_024..], waiting[..], "the last are the next");
    rig.pass(5_000);
    assert!(rig.users.review.is_none());
}
