//! Retained messages of other nodes: bounded over all clients of a worker, in the order of coming, and nobody keeps them from the others for good.

use std::sync::Arc;

use godwit_wire::command::Publish;

use super::clients::*;
use super::rig::*;
use super::subscribing::{subacks, texts};
use crate::packet::{Incoming, Outgoing, Version};
use crate::users::copies::COPIES_BYTES;
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
const MIB: usize = 1024 * 1024;
/// So many can wait for three clients, not for four.
const MESSAGES: usize = 20;

/// A worker whose topics are all other nodes', with messages of a mebibyte.
fn rig(qos: u8) -> Rig {
    let mut rig = Rig::new();
    rig.users.common.copies.everywhere = true;
    let payload = bytes::Bytes::from(vec![b'x'; MIB]);
    for n in 0..MESSAGES {
        let topic = format!("iot/alice/{n:05}");
        let one = Publish {
            topic: topic.as_str().into(),
            payload: payload.clone(),
            qos,
            retain: true,
            expires_at: None,
            properties: None,
            from: None,
            message_id: None,
        };
        rig.retained.insert(topic, Arc::new(one));
    }
    rig
}

/// A client that takes nothing, and what it was told of its SUBSCRIBE.
fn ask(rig: &mut Rig, name: &str, qos: u8) -> ConnId {
    let conn = rig.connect(&user("alice"), clean(V5, name));
    rig.out(conn);
    rig.wire.lines.get_mut(&conn).expect("it is connected").full = true;
    rig.packet(conn, subscribe(7, "iot/alice/#", qos));
    conn
}

fn codes(rig: &Rig, conn: ConnId) -> Option<u8> {
    let all = subacks(&rig.wire.lines[&conn].out);
    all.first().map(|(_, codes)| codes[0])
}

fn held(rig: &Rig) -> usize {
    usize::try_from(rig.metrics.copies_bytes.get()).expect("no less than nothing")
}

fn topics(rig: &mut Rig, conn: ConnId) -> Vec<String> {
    let all = rig.publishes(conn).into_iter();
    all.map(|one| one.topic.to_string()).collect()
}

fn all() -> Vec<String> {
    (0..MESSAGES).map(|n| format!("iot/alice/{n:05}")).collect()
}

#[test]
fn many_clients_together_hold_no_more_than_a_worker_may_and_the_others_wait_in_order() {
    let mut rig = rig(0);
    let clients: Vec<ConnId> = (0..6).map(|n| ask(&mut rig, &format!("c{n}"), 0)).collect();
    let answered = |rig: &Rig| {
        clients
            .iter()
            .filter(|conn| codes(rig, **conn) == Some(0))
            .count()
    };
    assert_eq!(answered(&rig), 3);
    assert!(held(&rig) > 3 * MESSAGES * MIB && held(&rig) <= COPIES_BYTES);
    assert_eq!(rig.metrics.copies_waiting.get(), 3);
    for n in 0..6 {
        rig.drained(clients[n]);
        assert_eq!(topics(&mut rig, clients[n]), all());
        assert!(held(&rig) <= COPIES_BYTES);
        // The next one's turn has come.
        if let Some(next) = clients.get(n + 3) {
            assert_eq!(codes(&rig, *next), Some(0), "{n}");
        }
    }
    assert_eq!((held(&rig), rig.metrics.copies_waiting.get()), (0, 0));
}

#[test]
fn those_that_ask_at_once_hold_no_more_either() {
    let mut rig = rig(0);
    rig.deaf = true;
    let clients: Vec<ConnId> = (0..100).map(|n| ask(&mut rig, &format!("c{n}"), 0)).collect();
    assert!(held(&rig) <= COPIES_BYTES, "what is asked for counts");
    rig.deaf = false;
    rig.run();
    assert!(held(&rig) <= COPIES_BYTES);
    assert_eq!(
        clients
            .iter()
            .filter(|conn| codes(&rig, **conn).is_some())
            .count(),
        3
    );
    for _ in 0..100 {
        for conn in &clients {
            rig.drained(*conn);
        }
    }
    for conn in clients {
        assert_eq!((codes(&rig, conn), topics(&mut rig, conn)), (Some(0), all()));
    }
    assert_eq!(held(&rig), 0);
}

#[test]
fn one_answer_that_is_larger_than_all_that_may_wait_comes_alone() {
    let mut rig = rig(0);
    let small = ask(&mut rig, "small", 0);
    let large = rig.retained["iot/alice/00000"].clone();
    for n in MESSAGES..63 {
        let topic = format!("iot/alice/{n:05}");
        let one = Publish {
            topic: topic.as_str().into(),
            ..(*large).clone()
        };
        rig.retained.insert(topic, Arc::new(one));
    }
    let large = ask(&mut rig, "large", 0);
    assert_eq!((codes(&rig, small), codes(&rig, large)), (Some(0), None));
    rig.drained(small);
    assert_eq!(codes(&rig, large), Some(0));
    rig.drained(large);
    assert_eq!(rig.publishes(large).len(), 63);
}

#[test]
fn who_waits_for_longer_than_a_subscribe_may_is_refused_and_who_takes_nothing_gives_back() {
    let mut rig = rig(1);
    let clients: Vec<ConnId> = (0..4).map(|n| ask(&mut rig, &format!("c{n}"), 1)).collect();
    // The first message of each is on its way, the others wait for its PUBACK.
    assert_eq!(codes(&rig, clients[3]), None);
    rig.pass(4_900);
    assert_eq!(codes(&rig, clients[3]), None);
    assert!(held(&rig) > 2 * MESSAGES * MIB);
    rig.pass(1_500);
    assert_eq!(
        codes(&rig, clients[3]),
        Some(0x80),
        "as every SUBSCRIBE that takes too long"
    );
    // They took one each in the first 5 s.
    rig.pass(5_000);
    let next = ask(&mut rig, "next", 1);
    assert_eq!(
        codes(&rig, next),
        Some(1),
        "those who take nothing keep nobody waiting"
    );
    for conn in [clients[0], clients[1], clients[2], next] {
        rig.drained(conn);
        let mut got: Vec<String> = ack_all(&mut rig, conn)
            .into_iter()
            .map(|one| one.topic.to_string())
            .collect();
        got.sort();
        assert_eq!(got, all(), "each once, whether it was given back or not");
    }
    assert_eq!((held(&rig), rig.metrics.copies_waiting.get()), (0, 0));
}

#[test]
fn nobody_gives_back_while_nobody_else_waits() {
    let mut rig = rig(1);
    let only = ask(&mut rig, "only", 1);
    let before = held(&rig);
    rig.pass(60_000);
    assert!(before > 0 && held(&rig) == before);
    rig.drained(only);
    assert_eq!(ack_all(&mut rig, only).len(), MESSAGES);
}

#[test]
fn what_was_given_back_is_not_given_behind_what_came_live() {
    let mut rig = rig(1);
    let clients: Vec<ConnId> = (0..4).map(|n| ask(&mut rig, &format!("c{n}"), 1)).collect();
    rig.pass(11_500);
    let publisher = rig.connect(&user("alice"), clean(V5, "pub"));
    let Incoming::Publish(mut packet) = publish("iot/alice/00010", "new", 1, 3) else {
        unreachable!()
    };
    packet.retain = true;
    let old = rig.retained["iot/alice/00010"].clone();
    rig.packet(publisher, Incoming::Publish(packet));
    // As if it had been read before.
    rig.retained.insert("iot/alice/00010".into(), old);
    rig.drained(clients[0]);
    let got = ack_all(&mut rig, clients[0]);
    let of_topic: Vec<_> = got
        .into_iter()
        .filter(|one| &*one.topic == "iot/alice/00010")
        .collect();
    assert_eq!(texts(&of_topic), ["new"]);
}

#[test]
fn a_filter_that_ends_while_it_waits_is_answered_in_its_turn_and_gives_nothing() {
    let mut rig = rig(0);
    let clients: Vec<ConnId> = (0..4).map(|n| ask(&mut rig, &format!("c{n}"), 0)).collect();
    let unsubscribe = Incoming::Unsubscribe {
        packet_id: 9,
        filters: vec!["iot/alice/#".into()],
    };
    rig.packet(clients[3], unsubscribe);
    rig.drained(clients[0]);
    assert_eq!(codes(&rig, clients[3]), Some(0));
    rig.drained(clients[3]);
    let out = rig.out(clients[3]);
    assert!(!out.iter().any(|packet| matches!(packet, Outgoing::Publish(_))));
    rig.vanish(clients[1]);
    rig.vanish(clients[2]);
    assert_eq!(held(&rig), 0, "who goes holds nothing");
}
