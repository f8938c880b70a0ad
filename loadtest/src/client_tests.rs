//! Tests of the client's state machine, without sockets.

use super::*;
use crate::{
    packets::Version,
    payload::Template,
    spec::{ClientKind, Encoding, Scenario},
};

pub(crate) fn shared(scenario: Scenario, recipients: usize, publishers: usize, window: u16) -> Shared {
    let spec = Spec {
        scenario,
        client: ClientKind::Light,
        version: Version::V311,
        target: ([127, 0, 0, 1], 1883).into(),
        run_id: "t".into(),
        first: 0,
        recipients,
        publishers,
        members: 1,
        window,
        payload_len: 128,
        messages_each: 3,
        rate: None,
        keep_alive: 0,
        connect_window: 1,
        source_salt: 0,
        scram: false,
        login: None,
        chat: Vec::new(),
        encoding: Encoding::Text,
    };
    Shared {
        publishing: true,
        measuring: true,
        ..Shared::new(spec)
    }
}

/// Connects the client at `index` and makes it ready.
fn ready(index: usize, shared: &mut Shared) -> Client {
    let mut client = Client::new(index, &shared.spec);
    let mut out = Vec::new();
    client.connected(shared, &mut out).expect("CONNECT");
    assert_eq!(out.first(), Some(&0x10));
    client
        .packet(Incoming::ConnAck { code: 0 }, 0, shared, &mut out)
        .expect("CONNACK");
    if client.stage() == Stage::AwaitSubAck {
        client
            .packet(Incoming::SubAck { granted: true }, 0, shared, &mut out)
            .expect("SUBACK");
    }
    assert_eq!(client.stage(), Stage::Ready);
    client
}

/// Packet identifier, topic and payload of each PUBLISH in `out`.
fn publishes(mut out: &[u8]) -> Vec<(u16, String, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((header, whole)) = packets::frame_len(out).expect("frames") {
        let topic_len = usize::from(u16::from_be_bytes([out[header], out[header + 1]]));
        let topic = String::from_utf8(out[header + 2..header + 2 + topic_len].to_vec()).expect("text");
        let Incoming::Publish {
            packet_id, payload, ..
        } = packets::read(Version::V311, &out[..whole], header).expect("readable")
        else {
            panic!("not a PUBLISH")
        };
        found.push((packet_id, topic, payload.to_vec()));
        out = &out[whole..];
    }
    found
}

fn deliver(client: &mut Client, number: u64, shared: &mut Shared) -> Vec<u8> {
    let template = Template::new(b"", 64, b"", 0);
    let mut message = template.bytes().to_vec();
    template.stamp(&mut message, number, 1_000);
    let mut out = Vec::new();
    let publish = Incoming::Publish {
        packet_id: 9,
        qos: 1,
        payload: &message,
    };
    client
        .packet(publish, 501_000, shared, &mut out)
        .expect("accepted");
    out
}

#[test]
fn a_publisher_never_has_more_than_its_window_unacknowledged() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 20);
    let mut publisher = ready(1, &mut shared);
    let mut out = Vec::new();
    publisher.pump(5, &mut shared, &mut out);
    publisher.pump(5, &mut shared, &mut out);
    let first = publishes(&out);
    assert_eq!(
        (first.len(), publisher.unanswered(), shared.stats.sent),
        (20, 20, 20)
    );
    out.clear();
    for (packet_id, ..) in &first[..3] {
        let ack = Incoming::PubAck {
            packet_id: *packet_id,
            reason: 0,
        };
        publisher
            .packet(ack, 7_005, &mut shared, &mut out)
            .expect("known");
    }
    publisher.pump(9, &mut shared, &mut out);
    assert_eq!(
        (publishes(&out).len(), publisher.unanswered(), shared.stats.acked),
        (3, 20, 3)
    );
    assert_eq!(shared.stats.ack.summary().count, 3);
}

#[test]
fn a_publisher_numbers_its_messages_without_a_gap() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 4);
    let mut publisher = ready(1, &mut shared);
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let mut out = Vec::new();
        publisher.pump(1, &mut shared, &mut out);
        for (packet_id, topic, payload) in publishes(&out) {
            assert_eq!(topic, "inbox/tu0");
            numbers.push(payload::read_stamp(&payload).expect("stamped").0);
            let ack = Incoming::PubAck { packet_id, reason: 0 };
            publisher
                .packet(ack, 2, &mut shared, &mut Vec::new())
                .expect("known");
        }
    }
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
}

#[test]
fn an_acknowledgement_of_nothing_is_an_error() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 4);
    let mut publisher = ready(1, &mut shared);
    publisher.pump(1, &mut shared, &mut Vec::new());
    let mut ack = |packet_id| {
        publisher.packet(
            Incoming::PubAck { packet_id, reason: 0 },
            1,
            &mut shared,
            &mut Vec::new(),
        )
    };
    assert!(ack(2).is_ok());
    assert!(ack(2).is_err());
    assert!(ack(0).is_err());
    assert!(ack(5).is_err());
}

#[test]
fn a_refused_publish_frees_its_room_and_is_counted_apart() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 1);
    let mut publisher = ready(1, &mut shared);
    publisher.pump(1, &mut shared, &mut Vec::new());
    let refusal = Incoming::PubAck {
        packet_id: 1,
        reason: 0x97,
    };
    publisher
        .packet(refusal, 2, &mut shared, &mut Vec::new())
        .expect("known");
    assert_eq!(
        (shared.stats.acked, shared.stats.refused, publisher.unanswered()),
        (0, 1, 0)
    );
}

#[test]
fn a_recipient_acknowledges_each_copy_and_counts_it_once() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 1);
    let mut recipient = ready(0, &mut shared);
    assert_eq!(deliver(&mut recipient, 0, &mut shared), [0x40, 2, 0, 9]);
    assert_eq!(deliver(&mut recipient, 0, &mut shared), [0x40, 2, 0, 9]);
    assert_eq!((shared.stats.received, shared.stats.duplicates), (1, 1));
    let latency = shared.stats.receive.summary();
    assert_eq!(latency.count, 1);
    assert!((499..=501).contains(&latency.p50_us), "{latency:?}");
}

#[test]
fn a_message_that_comes_late_is_overtaken_and_one_that_never_comes_is_missing_from_the_count() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 1);
    let mut recipient = ready(0, &mut shared);
    for number in [0, 3, 1, 4, 1] {
        deliver(&mut recipient, number, &mut shared);
    }
    let stats = &shared.stats;
    assert_eq!((stats.received, stats.overtaken, stats.duplicates), (4, 1, 1));
}

#[test]
fn nothing_is_measured_outside_the_window() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 1);
    shared.measuring = false;
    let mut recipient = ready(0, &mut shared);
    deliver(&mut recipient, 0, &mut shared);
    assert_eq!((shared.stats.received, shared.stats.window_received), (1, 0));
    assert_eq!(shared.stats.receive.summary().count, 0);
}

#[test]
fn the_sweep_of_connect_sends_each_recipient_its_messages_once() {
    let mut shared = shared(Scenario::Connect, 7, 3, 2);
    let mut counts = std::collections::BTreeMap::new();
    for publisher in 0..3 {
        let mut publisher = ready(7 + publisher, &mut shared);
        loop {
            let mut out = Vec::new();
            publisher.pump(1, &mut shared, &mut out);
            let sent = publishes(&out);
            if sent.is_empty() {
                break;
            }
            for (packet_id, topic, payload) in sent {
                let number = payload::read_stamp(&payload).expect("stamped").0;
                *counts.entry((topic, number)).or_insert(0) += 1;
                let ack = Incoming::PubAck { packet_id, reason: 0 };
                publisher
                    .packet(ack, 2, &mut shared, &mut Vec::new())
                    .expect("known");
            }
        }
    }
    assert_eq!(counts.len(), 7 * 3);
    assert!(counts.values().all(|count| *count == 1));
    assert!((0..7).all(|u| (0..3).all(|n| counts.contains_key(&(format!("inbox/tu{u}"), n)))));
}

#[test]
fn in_rate_mode_the_clock_of_a_message_starts_when_it_was_due() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 1);
    shared.spec.rate = Some(1.0);
    let mut publisher = ready(1, &mut shared);
    let mut out = Vec::new();
    publisher.pump(10, &mut shared, &mut out);
    assert!(out.is_empty(), "nothing is due yet");
    publisher.due(100, &mut shared);
    publisher.due(200, &mut shared);
    publisher.pump(250, &mut shared, &mut out);
    let ack = Incoming::PubAck {
        packet_id: 1,
        reason: 0,
    };
    publisher
        .packet(ack, 900, &mut shared, &mut Vec::new())
        .expect("known");
    publisher.pump(1_000, &mut shared, &mut out);
    let sent_at: Vec<u64> = publishes(&out)
        .iter()
        .map(|(_, _, p)| payload::read_stamp(p).expect("stamped").1)
        .collect();
    assert_eq!(sent_at, [100, 200]);
}

#[test]
fn a_refused_login_says_what_to_do() {
    let mut shared = shared(Scenario::Pairs, 1, 1, 1);
    let mut client = Client::new(0, &shared.spec);
    client.connected(&mut shared, &mut Vec::new()).expect("CONNECT");
    let refused = client.packet(Incoming::ConnAck { code: 5 }, 0, &mut shared, &mut Vec::new());
    assert!(refused.is_err_and(|error| error.0.contains("--username")));
}

#[test]
fn an_idle_client_is_small() {
    assert!(size_of::<Client>() <= 48, "{} bytes", size_of::<Client>());
}

#[test]
fn members_of_a_group_have_seen_a_message_when_one_of_them_has() {
    let one = shared(Scenario::Pairs, 4, 2, 5);
    let mut spec = one.spec.clone();
    spec.members = 2;
    assert_eq!(
        (spec.filter(0), spec.filter(1)),
        (spec.filter(1), "$share/load/inbox/tu0".into())
    );
    assert_eq!(
        (spec.filter(3), spec.topic(2)),
        ("$share/load/inbox/tu1".into(), "inbox/tu1".into())
    );
    let mut shared = Shared::new(spec);
    for (index, number) in [(0, 0), (1, 1), (0, 2), (1, 2), (2, 0), (3, 1)] {
        shared.received_by_member(index, number, 1);
    }
    assert_eq!((shared.stats.received, shared.stats.duplicates), (5, 1));
}
