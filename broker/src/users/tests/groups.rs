//! Shared subscriptions: who of a group gets a publish, and what members are told.

use std::sync::Arc;

use godwit_accounts::Acl;
use godwit_accounts::acl::{Access, Effect, Rule, Who};
use godwit_wire::command::{Answer, Publish, UserCommand};
use godwit_wire::ids::MessageId;

use super::clients::*;
use super::rig::*;
use crate::packet::{FilterIn, Incoming, Outgoing, PublishOut, Version};
use crate::wire_trait::ConnId;

const V3: Version = Version::V311;
const V5: Version = Version::V5;
const GROUP: &str = "$share/g/iot/alice/#";
const TOPIC: &str = "iot/alice/t";

pub(super) fn texts(publishes: &[PublishOut]) -> Vec<String> {
    publishes.iter().map(text).collect()
}

pub(super) fn member(
    rig: &mut Rig,
    who: &godwit_wire::account::Principal,
    name: &str,
    filter: &str,
    qos: u8,
) -> ConnId {
    let conn = rig.connect(who, persistent(V5, name));
    rig.out(conn);
    assert_eq!(rig.subscribe(conn, filter, qos), [qos]);
    conn
}

#[test]
fn each_publish_goes_to_one_connected_member_in_turn_and_to_every_other_subscription() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let members: Vec<ConnId> = (0..3)
        .map(|n| member(&mut rig, &alice, &format!("m{n}"), GROUP, 1))
        .collect();
    let other_group = member(&mut rig, &alice, "o", "$share/h/iot/alice/#", 1);
    let wild = member(&mut rig, &alice, "w", "$share/g/iot/alice/+", 1);
    let alone = member(&mut rig, &alice, "a", "iot/alice/#", 1);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 1..=9 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!(pubacks(&mut rig, publisher).len(), 9);
    let mut all = Vec::new();
    for conn in members {
        let got = texts(&rig.publishes(conn));
        assert_eq!(got.len(), 3, "in turn");
        all.extend(got);
    }
    all.sort();
    assert_eq!(all, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    for conn in [other_group, wild, alone] {
        assert_eq!(rig.publishes(conn).len(), 9);
    }
}

#[test]
fn a_session_in_a_group_and_outside_gets_both_and_in_two_groups_one_of_each() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let conn = member(&mut rig, &alice, "m", GROUP, 2);
    for filter in ["$share/h/iot/alice/#", "$share/h/iot/alice/+", "iot/alice/t"] {
        assert_eq!(rig.subscribe(conn, filter, 2), [2]);
    }
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    rig.packet(publisher, publish(TOPIC, "x", 2, 1));
    assert_eq!(rig.publishes(conn).len(), 4, "one message id, four subscriptions");
}

#[test]
fn connected_members_come_before_those_that_are_away_who_take_turns_when_nobody_is() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let bob = user("alice");
    let first = member(&mut rig, &alice, "a", GROUP, 1);
    let second = member(&mut rig, &bob, "b", GROUP, 1);
    let deaf = member(&mut rig, &alice, "deaf", GROUP, 0);
    let publisher = rig.connect(&bob, clean(V3, "pub"));
    rig.vanish(first);
    rig.vanish(deaf);
    for n in 1..=4 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!(rig.publishes(second).len(), 4);
    rig.vanish(second);
    for n in 5..=8 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!(pubacks(&mut rig, publisher).len(), 8);
    // It waits for nobody.
    rig.packet(publisher, publish(TOPIC, "qos 0", 0, 0));
    rig.pass(60_000);
    let first = rig.connect(&alice, persistent(V5, "a"));
    assert_eq!(texts(&rig.publishes(first)).len(), 2);
    // That it is back is known.
    rig.packet(publisher, publish(TOPIC, "9", 1, 9));
    assert_eq!(texts(&rig.publishes(first)), ["9"]);
    let second = rig.connect(&bob, persistent(V5, "b"));
    assert_eq!(
        rig.publishes(second).len(),
        6,
        "4 unacknowledged and 2 of its turns"
    );
}

#[test]
fn groups_and_what_their_members_are_owed_survive_a_crash() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    for (name, filter) in [
        ("a", GROUP),
        ("b", GROUP),
        ("c", "$share/g/iot/alice/+"),
        ("d", "$share/g/iot/alice/+"),
    ] {
        let conn = member(&mut rig, &alice, name, filter, 1);
        rig.vanish(conn);
    }
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 1..=10 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!(pubacks(&mut rig, publisher).len(), 10);
    rig.crash();
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 11..=20 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    for names in [["a", "b"], ["c", "d"]] {
        let mut got = Vec::new();
        for name in names {
            let conn = rig.connect(&alice, persistent(V5, name));
            let all = ack_all(&mut rig, conn);
            assert!(!all.is_empty());
            got.extend(all.iter().map(|one| text(one).parse::<u32>().unwrap()));
        }
        got.sort_unstable();
        assert_eq!(got, (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_publish_is_acknowledged_after_its_members_entry_is_durable() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let conn = member(&mut rig, &alice, "m", GROUP, 1);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    rig.out(publisher);
    rig.hold(true);
    rig.packet(publisher, publish(TOPIC, "x", 1, 1));
    assert!(
        pubacks(&mut rig, publisher).is_empty() && rig.publishes(conn).is_empty(),
        "ACK"
    );
    rig.hold(false);
    rig.run();
    assert_eq!(pubacks(&mut rig, publisher), [1]);
    assert_eq!(rig.publishes(conn).len(), 1);
}

#[test]
fn a_member_has_its_own_qos_identifier_and_no_retained_messages() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    let mut retained = publish(TOPIC, "old", 1, 1);
    if let Incoming::Publish(publish) = &mut retained {
        publish.retain = true;
    }
    rig.packet(publisher, retained.clone());
    let conn = rig.connect(&alice, persistent(V5, "m"));
    rig.out(conn);
    let filter = FilterIn {
        filter: GROUP.into(),
        qos: 1,
        no_local: false,
        retain_as_published: true,
        retain_handling: 0,
    };
    rig.packet(
        conn,
        Incoming::Subscribe {
            packet_id: 1,
            filters: vec![filter],
            subscription_id: Some(77),
        },
    );
    assert!(matches!(&rig.out(conn)[..], [Outgoing::Suback(1, codes)] if *codes == [1]));
    rig.packet(publisher, publish(TOPIC, "x", 2, 2));
    rig.packet(publisher, retained);
    let got = rig.publishes(conn);
    let of = |one: &PublishOut| (one.qos, one.subscription_ids.clone(), one.retain);
    assert_eq!(
        got.iter().map(of).collect::<Vec<_>>(),
        [(1, vec![77], false), (1, vec![77], true)]
    );
}

#[test]
fn no_local_on_a_shared_filter_closes_the_connection_and_subscribes_to_nothing() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "m"));
    let mut asked = subscribe(1, GROUP, 1);
    if let Incoming::Subscribe { filters, .. } = &mut asked {
        filters[0].no_local = true;
    }
    rig.packet(conn, asked);
    assert!(matches!(
        rig.out(conn).last(),
        Some(Outgoing::Disconnect(0x82, _))
    ));
    assert!(rig.is_closed(conn) && rig.users.homes.values().all(|home| home.shares() == 0));
}

#[test]
fn refused_by_the_inner_filter_and_by_form() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "m"));
    for (filter, code) in [
        ("$share/g/c/#", 0x87),
        ("$share/g/me/inbox", 0x87),
        ("$share//iot/alice/t", 0x8F),
        ("$share/g", 0x8F),
        ("$share/g+/iot/alice/t", 0x8F),
    ] {
        assert_eq!(rig.subscribe(conn, filter, 1), [code], "{filter}");
    }
}

#[test]
fn a_user_has_a_most_of_shared_subscriptions() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "m"));
    for n in 0..godwit_wire::limits::USER_SHARES {
        assert_eq!(rig.subscribe(conn, &format!("$share/g{n}/iot/alice/t"), 1), [1]);
    }
    assert_eq!(rig.subscribe(conn, GROUP, 1), [0x97]);
    assert_eq!(rig.subscribe(conn, "$share/g0/iot/alice/t", 0), [0], "again");
    assert_eq!(rig.subscribe(conn, "iot/alice/t", 1), [1]);
    let other = rig.connect(&alice, persistent(V5, "n"));
    assert_eq!(rig.subscribe(other, GROUP, 1), [0x97], "over all sessions");
}

/// Everybody may do everything under this filter.
fn rule(filter: &str) -> Arc<Acl> {
    let rule = Rule {
        effect: Effect::Allow,
        access: Access::Both,
        filter: filter.into(),
        who: Who::Everyone,
    };
    Arc::new(Acl::new(vec![rule]).unwrap())
}

#[test]
fn a_member_whose_right_has_ended_takes_no_turns() {
    let mut rig = Rig::with_topics();
    rig.users.new_rules(rule("iot/#"));
    let (alice, bob) = (user("alice"), user("bob"));
    let first = member(&mut rig, &alice, "a", GROUP, 1);
    let second = member(&mut rig, &bob, "b", GROUP, 1);
    rig.users.new_rules(rule("iot/%u/#"));
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 1..=6 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!(pubacks(&mut rig, publisher).len(), 6);
    assert!(rig.publishes(second).is_empty());
    assert_eq!(rig.publishes(first).len(), 6);
    // It is passed over for this topic, not taken for one that is away.
    rig.users.new_rules(rule("iot/#"));
    for n in 7..=10 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!((rig.publishes(first).len(), rig.publishes(second).len()), (2, 2));
}

#[test]
fn what_waits_for_a_member_whose_right_ends_is_given_to_one_that_has_it_and_ends_when_nobody_has() {
    let mut rig = Rig::with_topics();
    rig.users.new_rules(rule("iot/#"));
    let (alice, bob) = (user("alice"), user("bob"));
    let member_of_bob = member(&mut rig, &bob, "b", GROUP, 2);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    // Sent and not acknowledged, then one that was not sent, of each QoS.
    for (n, qos) in [(1, 1), (2, 2)] {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), qos, n));
    }
    assert_eq!(rig.publishes(member_of_bob).len(), 2);
    rig.vanish(member_of_bob);
    for (n, qos) in [(3, 1), (4, 2)] {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), qos, n));
    }
    rig.users.new_rules(rule("iot/%u/#"));
    let member_of_alice = member(&mut rig, &alice, "a", GROUP, 2);
    let again = rig.connect(&bob, persistent(V5, "b"));
    assert!(rig.publishes(again).is_empty(), "SCOPE");
    let mut got = texts(&rig.publishes(member_of_alice));
    got.sort();
    assert_eq!(got, ["1", "3", "4"], "2 may have been the other one's");
    // Nobody is left that may have it: it ends, counted, and goes round in no circle.
    rig.vanish(member_of_alice);
    rig.vanish(again);
    rig.packet(publisher, publish(TOPIC, "5", 1, 5));
    rig.packet(publisher, publish(TOPIC, "6", 1, 6));
    rig.users.new_rules(rule("none/#"));
    let ended = rig.metrics.shared_ended.get();
    for (who, name) in [(&alice, "a"), (&bob, "b"), (&alice, "a"), (&bob, "b")] {
        let conn = rig.connect(who, persistent(V5, name));
        assert!(rig.publishes(conn).is_empty());
    }
    assert!(rig.metrics.shared_ended.get() >= ended + 2);
    rig.pass(60_000);
    let sessions = rig.users.homes.values().flat_map(|home| &home.sessions);
    let owed = sessions.map(|session| session.log.confirmed() - session.feed.cursor.acked());
    assert_eq!(owed.sum::<u64>(), 0);
}

#[test]
fn that_a_client_is_there_is_told_again_when_the_group_could_not_take_it_in() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let first = member(&mut rig, &alice, "a", GROUP, 1);
    let second = member(&mut rig, &alice, "b", GROUP, 1);
    rig.vanish(second);
    rig.topics_refuse = true;
    let second = rig.connect(&alice, persistent(V5, "b"));
    rig.topics_refuse = false;
    rig.pass(1_000);
    let publisher = rig.connect(&alice, clean(V3, "pub"));
    for n in 1..=4 {
        rig.packet(publisher, publish(TOPIC, &n.to_string(), 1, n));
    }
    assert_eq!((rig.publishes(first).len(), rig.publishes(second).len()), (2, 2));
}

#[test]
fn however_often_a_client_comes_a_group_that_refuses_is_told_by_its_last_connection_only() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let member = member(&mut rig, &alice, "a", GROUP, 1);
    rig.vanish(member);
    rig.topics_refuse = true;
    for n in 0..40 {
        let conn = rig.connect(&alice, persistent(V5, "a"));
        if n % 2 == 0 {
            rig.vanish(conn);
        }
    }
    // The timers of the connections before it come once more and end.
    rig.pass(600);
    rig.topics_refused = 0;
    rig.pass(5_000);
    assert!((9..=11).contains(&rig.topics_refused), "{}", rig.topics_refused);
}

#[test]
fn a_member_asked_again_for_what_it_has_says_so_also_without_its_client() {
    let mut rig = Rig::with_topics();
    let alice = user("alice");
    let conn = member(&mut rig, &alice, "m", GROUP, 2);
    let session = rig.users.homes[&alice.user].sessions[0].id;
    let publish = Publish {
        topic: TOPIC.into(),
        payload: "once".into(),
        qos: 2,
        retain: false,
        expires_at: None,
        properties: None,
        from: None,
        message_id: Some(MessageId::fresh()),
    };
    let share = UserCommand::Share {
        publish: Arc::new(publish),
        session,
        filter: GROUP.into(),
        waits: false,
        last: false,
    };
    let ask = |rig: &mut Rig| {
        let mut asked = rig.ask_user(alice.user, share.clone());
        rig.run();
        asked.try_recv().unwrap()
    };
    let took = |answer: &Answer| matches!(answer, Answer::Kept { gone } if gone.is_empty());
    assert!(took(&ask(&mut rig)));
    rig.vanish(conn);
    let answer = ask(&mut rig);
    assert!(took(&answer), "ONCE: {answer:?} would let another have it too");
    let conn = rig.connect(&alice, persistent(V5, "m"));
    assert_eq!(texts(&rig.publishes(conn)), ["once"]);
}
