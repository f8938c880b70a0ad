//! What a client asked for in CONNECT and what it is told: aliases, reasons, user properties.

use bytes::BytesMut;
use godwit_wire::limits::USER_PROPERTIES;
use rmqtt_codec::v5;
use tokio_util::codec::Decoder as _;

use super::{V3, V5, reason, whole};
use crate::codec::{Alias, Peer, decode, encode, encode_publish};
use crate::packet::{Connack, Incoming, Outgoing, PublishOut, UserProperties};

fn publish(topic: &str, qos: u8) -> PublishOut {
    PublishOut {
        topic: topic.into(),
        payload: "payload".into(),
        qos,
        retain: false,
        dup: false,
        packet_id: if qos > 0 { 9 } else { 0 },
        message_expiry: Some(7),
        subscription_ids: Vec::new(),
        properties: None,
    }
}

fn read(bytes: &[u8]) -> v5::Packet {
    let mut codec = v5::Codec::new(0, 0);
    codec.decode(&mut BytesMut::from(bytes)).unwrap().unwrap().0
}

#[test]
fn an_alias_goes_with_its_topic_first_and_in_its_place_then() {
    for qos in 0..3 {
        let packet = publish("some/topic", qos);
        let mut sizes = Vec::new();
        for (alias, topic, number) in [
            (None, "some/topic", None),
            (Some((3, true)), "some/topic", Some(3)),
            (Some((3, false)), "", Some(3)),
        ] {
            let alias = alias.map(|(number, with_topic)| Alias { number, with_topic });
            let mut out = Vec::new();
            assert!(encode_publish(Peer::new(V5), &packet, alias, &mut out));
            let Ok(Incoming::Publish(read)) = decode(V5, &out) else {
                panic!("a PUBLISH")
            };
            assert_eq!((&*read.topic, read.topic_alias), (topic, number));
            assert_eq!(
                (&read.payload[..], read.message_expiry),
                (&b"payload"[..], Some(7))
            );
            sizes.push(out.len());
        }
        assert_eq!([sizes[1], sizes[2]], [sizes[0] + 3, sizes[0] + 3 - 10]);
    }
}

#[test]
fn the_size_that_a_client_takes_is_compared_with_what_is_sent() {
    let packet = publish("some/topic", 1);
    for (alias, size) in [(None, 29), (Some(true), 32), (Some(false), 22)] {
        let alias = alias.map(|with_topic| Alias {
            number: 1,
            with_topic,
        });
        for (max, taken) in [(size, true), (size - 1, false)] {
            let (peer, mut out) = (Peer { max, ..Peer::new(V5) }, vec![1]);
            assert_eq!(encode_publish(peer, &packet, alias, &mut out), taken, "{alias:?}");
            assert_eq!(out.len(), if taken { 1 + size as usize } else { 1 });
        }
    }
}

#[test]
fn a_reason_is_told_where_it_was_asked_for_and_has_room() {
    let disconnect = Outgoing::Disconnect(0x97, UserProperties::new());
    let connack = Outgoing::Connack(Box::new(Connack {
        reason: 0x97,
        ..Connack::default()
    }));
    for packet in [disconnect, connack] {
        for (peer, told) in [
            (Peer::new(V5), true),
            (
                Peer {
                    max: 40,
                    ..Peer::new(V5)
                },
                false,
            ),
            (
                Peer {
                    problem_information: false,
                    ..Peer::new(V5)
                },
                false,
            ),
        ] {
            let mut out = Vec::new();
            assert!(encode(peer, &packet, &mut out));
            let reason = match read(&out) {
                v5::Packet::Disconnect(read) => read.reason_string,
                v5::Packet::ConnectAck(read) => read.reason_string,
                other => panic!("{other:?}"),
            };
            assert_eq!(reason.is_some(), told, "{packet:?}");
        }
    }
}

#[test]
fn another_server_is_named_in_mqtt_5() {
    let packet = Outgoing::Elsewhere("other:1883".into());
    let mut out = Vec::new();
    assert!(encode(Peer::new(V3), &packet, &mut out) && out.is_empty());
    assert!(encode(Peer::new(V5), &packet, &mut out));
    let v5::Packet::Disconnect(disconnect) = read(&out) else {
        panic!("a DISCONNECT")
    };
    assert_eq!(u8::from(disconnect.reason_code), 0x9C);
    assert_eq!(disconnect.server_reference.as_deref(), Some("other:1883"));
    out.clear();
    let connack = Connack {
        reason: 0x9C,
        server_reference: Some("other:1883".into()),
        ..Connack::default()
    };
    assert!(encode(
        Peer::new(V5),
        &Outgoing::Connack(Box::new(connack)),
        &mut out
    ));
    let v5::Packet::ConnectAck(connack) = read(&out) else {
        panic!("a CONNACK")
    };
    assert_eq!(connack.server_reference.as_deref(), Some("other:1883"));
}

#[test]
fn a_maximum_qos_below_2_is_in_the_connack() {
    for (given, expected) in [(None, 2), (Some(1), 1), (Some(0), 0)] {
        let (connack, mut out) = (
            Connack {
                maximum_qos: given,
                ..Connack::default()
            },
            Vec::new(),
        );
        assert!(encode(
            Peer::new(V5),
            &Outgoing::Connack(Box::new(connack)),
            &mut out
        ));
        let v5::Packet::ConnectAck(read) = read(&out) else {
            panic!("a CONNACK")
        };
        assert_eq!(read.max_qos.value(), expected);
    }
}

#[test]
fn a_packet_has_as_many_user_properties_as_it_may_and_no_more() {
    let body = |pairs: usize| {
        let pairs = b"\x26\0\x01a\0\x01b".repeat(pairs);
        let mut body = b"\0\x01t".to_vec();
        let len = pairs.len();
        body.extend([(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]);
        [body, pairs].concat()
    };
    let Ok(Incoming::Publish(publish)) = decode(V5, &whole(0x30, &body(USER_PROPERTIES))) else {
        panic!("a PUBLISH")
    };
    assert_eq!(publish.properties.unwrap().user_properties.len(), USER_PROPERTIES);
    assert_eq!(reason(V5, 0x30, &body(USER_PROPERTIES + 1)), 0x97);
}
