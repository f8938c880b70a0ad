//! Retained messages on their way to a client: in portions, as it has room, and never behind newer ones.

use std::sync::Arc;

use godwit_wire::command::{Answer, Command, Target, TopicCommand, UserCommand};

use super::clients::*;
use super::rig::*;
use super::subscribing::{subacks, texts};
use crate::packet::{Incoming, Outgoing, PublishOut, Version};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;

fn retained(topic: &str, payload: &str, qos: u8, packet_id: u16) -> Incoming {
    let Incoming::Publish(mut packet) = publish(topic, payload, qos, packet_id) else {
        unreachable!()
    };
    packet.retain = true;
    Incoming::Publish(packet)
}

fn handling(packet_id: u16, filter: &str, qos: u8, retain_handling: u8) -> Incoming {
    let Incoming::Subscribe { mut filters, .. } = subscribe(packet_id, filter, qos) else {
        unreachable!()
    };
    filters[0].retain_handling = retain_handling;
    Incoming::Subscribe {
        packet_id,
        filters,
        subscription_id: None,
    }
}

fn keep(rig: &mut Rig, count: usize, qos: u8) {
    for n in 0..count {
        let topic = format!("iot/alice/{n:05}");
        let Incoming::Publish(packet) = retained(&topic, &n.to_string(), qos, 0) else {
            unreachable!()
        };
        let one = godwit_wire::command::Publish {
            topic: topic.as_str().into(),
            payload: packet.payload,
            qos,
            retain: true,
            expires_at: None,
            properties: None,
            from: None,
            message_id: None,
        };
        rig.retained.insert(topic, Arc::new(one));
    }
}

fn published(out: &[Outgoing]) -> Vec<PublishOut> {
    let publish = |packet: &Outgoing| match packet {
        Outgoing::Publish(publish) => Some((**publish).clone()),
        _ => None,
    };
    out.iter().filter_map(publish).collect()
}

#[test]
fn many_retained_messages_reach_a_client_without_persistence_as_it_takes_them() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 3_000, 1);
    let sub = rig.connect(&alice, clean(V5, "sub"));
    rig.out(sub);
    rig.packet(sub, subscribe(7, "iot/alice/#", 1));
    assert_eq!(subacks(&rig.wire.lines[&sub].out), [(7, vec![1])]);
    let got = ack_all(&mut rig, sub);
    assert!(!rig.is_closed(sub));
    assert_eq!(got.len(), 3_000);
    assert!(got.iter().all(|one| one.retain && one.qos == 1));
}

#[test]
fn many_retained_messages_go_to_a_persistent_session_in_portions_and_all_before_the_suback() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 20_000, 1);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    rig.hold(true);
    rig.packet(sub, subscribe(7, "iot/alice/#", 1));
    let mut rounds = 0;
    loop {
        rig.store.commit(1);
        rig.run();
        if !subacks(&rig.wire.lines[&sub].out).is_empty() {
            break;
        }
        rounds += 1;
        // Live publishes find room all the time.
        if rounds == 20 {
            let publish = Arc::new(godwit_wire::command::Publish {
                topic: "iot/alice/live".into(),
                payload: "live".into(),
                qos: 1,
                retain: false,
                expires_at: None,
                properties: None,
                from: None,
                message_id: None,
            });
            let targets = vec![Target {
                session: rig.routes[0].session,
                qos: 1,
                retain_as_published: false,
                subscription_ids: Vec::new(),
            }];
            let deliver = UserCommand::Deliver {
                publish,
                targets,
                late: 0,
            };
            let mut answer = rig.ask_user(alice.user, deliver);
            assert!(answer.try_recv().is_err(), "taken, and not durable");
        }
        assert!(rounds < 1_000);
    }
    assert!(rounds > 20_000 / 1_024, "in portions");
    // SUBACK was sent: everything is durable.
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let got = ack_all(&mut rig, sub);
    assert_eq!(got.len(), 20_001, "20,000 of 20,000, and the live one");
}

#[test]
fn a_portion_of_retained_messages_is_bounded_in_bytes_too() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 40, 1);
    for one in rig.retained.values_mut() {
        Arc::make_mut(one).payload = vec![b'x'; 128 * 1024].into();
    }
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    rig.hold(true);
    rig.packet(sub, subscribe(7, "iot/alice/#", 1));
    let mut rounds = 0;
    while subacks(&rig.out(sub)).is_empty() {
        rig.store.commit(1);
        rig.run();
        rounds += 1;
        assert!(rounds < 20);
    }
    assert!(rounds > 4, "5 MiB in portions of about 1 MiB");
}

#[test]
fn a_subscribe_whose_retained_messages_do_not_become_durable_in_time_is_refused() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 3, 1);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    rig.hold(true);
    rig.packet(sub, subscribe(7, "iot/alice/#", 1));
    rig.store.commit(1);
    rig.run();
    assert!(
        subacks(&rig.out(sub)).is_empty(),
        "the retained messages are not durable"
    );
    rig.pass(5_001);
    assert_eq!(subacks(&rig.out(sub)), [(7, vec![0x80])]);
    rig.hold(false);
    rig.run();
    assert_eq!(rig.routes(), 0);
    rig.out(sub);
    assert_eq!(rig.subscribe(sub, "iot/alice/#", 1), [1], "and granted later");
}

#[test]
fn retained_messages_for_new_subscriptions_only_come_until_one_was_answered() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 1, 0);
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.hold(true);
    rig.packet(sub, handling(7, "iot/alice/#", 1, 1));
    rig.vanish(sub);
    rig.hold(false);
    rig.run();
    // The first round after a lost SUBACK, the second after a crash before one.
    for round in 0..2 {
        let sub = rig.connect(&alice, persistent(V5, "sub"));
        rig.out(sub);
        if round == 0 {
            rig.hold(true);
            rig.packet(sub, handling(8, "iot/alice/#", 1, 1));
            rig.store.commit(1);
            rig.crash();
            continue;
        }
        rig.packet(sub, handling(8, "iot/alice/#", 1, 1));
        let out = rig.out(sub);
        assert_eq!((subacks(&out).len(), published(&out).len()), (1, 1));
        rig.packet(sub, handling(9, "iot/alice/#", 1, 1));
        let out = rig.out(sub);
        assert_eq!((subacks(&out).len(), published(&out).len()), (1, 0), "it knows");
    }
    rig.crash();
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    rig.packet(sub, handling(9, "iot/alice/#", 1, 1));
    let out = rig.out(sub);
    assert_eq!(
        (subacks(&out).len(), published(&out).len()),
        (1, 0),
        "also after a start"
    );
}

#[test]
fn retained_messages_of_qos_0_wait_for_room() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 50, 0);
    let sub = rig.connect(&alice, clean(V5, "sub"));
    rig.out(sub);
    rig.wire.lines.get_mut(&sub).unwrap().full = true;
    rig.packet(sub, subscribe(7, "iot/alice/#", 0));
    let out = rig.out(sub);
    assert_eq!((subacks(&out).len(), published(&out).len()), (1, 0));
    rig.drained(sub);
    assert_eq!(rig.publishes(sub).len(), 50, "none is lost");
}

#[test]
fn a_retained_message_never_follows_a_newer_one_that_was_delivered_live() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 3, 0);
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.out(sub);
    // Its rows are late: the retained messages are there, the SUBACK is not.
    rig.hold(true);
    rig.packet(sub, subscribe(7, "iot/alice/#", 0));
    rig.packet(publisher, retained("iot/alice/00001", "new", 0, 0));
    assert_eq!(texts(&rig.publishes(sub)), ["new"]);
    rig.hold(false);
    rig.run();
    assert_eq!(texts(&rig.publishes(sub)), ["0", "2"]);
    // And while they wait for room.
    rig.wire.lines.get_mut(&sub).unwrap().full = true;
    rig.packet(sub, subscribe(8, "iot/alice/#", 0));
    rig.packet(publisher, retained("iot/alice/00002", "newer", 0, 0));
    rig.drained(sub);
    assert_eq!(
        texts(&rig.publishes(sub)),
        ["0", "new"],
        "what had no room is no reason to give the old one"
    );
}

#[test]
fn a_live_publish_overtakes_a_retained_message_that_is_still_to_come() {
    let mut rig = Rig::new();
    let alice = user("alice");
    keep(&mut rig, 2, 0);
    let sub = rig.connect(&alice, clean(V5, "sub"));
    rig.out(sub);
    rig.deaf = true;
    rig.packet(sub, subscribe(7, "iot/alice/#", 0));
    let (_, command, reply) = rig.harness.take_command().expect("a route is asked for");
    let Command::Topic(TopicCommand::Subscribe { route, .. }) = command else {
        panic!("{command:?}")
    };
    rig.routes.push(route);
    let found: Vec<_> = rig.retained.values().cloned().collect();
    rig.deaf = false;
    let publisher = rig.connect(&alice, clean(V5, "pub"));
    rig.packet(publisher, retained("iot/alice/00001", "new", 0, 0));
    assert_eq!(texts(&rig.publishes(sub)), ["new"]);
    rig.answer(reply, Answer::Retained(found));
    rig.run();
    assert_eq!(texts(&rig.publishes(sub)), ["0"]);
}

/// SUBSCRIBEs at QoS 0, and the topic's home is at another node, so that what it answers is nobody else's: so many messages of 4 MiB.
fn subscribe_far(rig: &mut Rig, sub: ConnId, name: &str, count: usize) -> u8 {
    let payload = bytes::Bytes::from(vec![b'x'; 4 * 1024 * 1024 - 1_024]);
    rig.out(sub);
    rig.deaf = true;
    rig.packet(sub, subscribe(7, &format!("iot/{name}/#"), 0));
    let (_, command, reply) = rig.harness.take_command().expect("a route is asked for");
    let Command::Topic(TopicCommand::Subscribe { route, .. }) = command else {
        panic!("{command:?}")
    };
    rig.routes.push(route);
    rig.deaf = false;
    let one = |n: usize| godwit_wire::command::Publish {
        topic: format!("iot/{name}/{n}").as_str().into(),
        payload: payload.clone(),
        qos: 0,
        retain: true,
        expires_at: None,
        properties: None,
        from: None,
        message_id: None,
    };
    let found: Vec<_> = (0..count).map(|n| Arc::new(one(n))).collect();
    rig.answer(reply, Answer::Retained(found));
    rig.run();
    subacks(&rig.out(sub))[0].1[0]
}

#[test]
fn other_nodes_retained_messages_that_wait_have_a_bound_over_a_users_sessions_and_over_all() {
    let mut rig = Rig::new();
    let names = ["alice", "bob", "carol", "dave", "erin"];
    let users = names.map(user);
    let slow = |rig: &mut Rig, at: usize, client: &str| {
        let sub = rig.connect(&users[at], clean(V5, client));
        rig.wire.lines.get_mut(&sub).unwrap().full = true;
        sub
    };
    let subs = [0, 1, 2, 3, 4].map(|at| slow(&mut rig, at, "slow"));
    assert_eq!(subscribe_far(&mut rig, subs[0], "alice", 16), 0);
    let second = slow(&mut rig, 0, "second");
    assert_eq!(
        subscribe_far(&mut rig, second, "alice", 1),
        0x97,
        "a user has a quarter"
    );
    for at in 1..4 {
        assert_eq!(subscribe_far(&mut rig, subs[at], names[at], 16), 0);
    }
    assert_eq!(
        subscribe_far(&mut rig, subs[4], "erin", 1),
        0x97,
        "256 MiB are taken"
    );
    assert_eq!(rig.metrics.limits_met("retained_copies"), 2);
    let routes = rig.routes();
    assert_eq!(routes, 4, "what was refused has no route");
    // What is shared with its topic's home takes nothing more.
    keep(&mut rig, 100, 0);
    let second = slow(&mut rig, 0, "third");
    assert_eq!(rig.subscribe(second, "iot/alice/#", 0), [0]);
    rig.drained(subs[1]);
    assert_eq!(rig.publishes(subs[1]).len(), 16);
    assert_eq!(
        subscribe_far(&mut rig, subs[4], "erin", 1),
        0,
        "room that was given back"
    );
    for sub in [subs[0], subs[2], subs[3], subs[4]] {
        rig.vanish(sub);
    }
    assert_eq!(rig.metrics.copies.gauge().get(), 0);
}
