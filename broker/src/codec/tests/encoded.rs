//! What clients of each version get.

use bytes::BytesMut;
use rmqtt_codec::v5;
use tokio_util::codec::Decoder as _;

use super::{V3, V5};
use crate::codec::{Peer, encode};
use crate::packet::{Ack, Connack, Outgoing, PublishOut};

#[test]
fn a_connack_says_what_each_version_can_say() {
    let mut out = Vec::new();
    for (given, expected) in [
        (0, 0),
        (0x84, 1),
        (0x85, 2),
        (0x88, 3),
        (0x86, 4),
        (0x87, 5),
        (0x97, 3),
    ] {
        let connack = Connack {
            reason: given,
            session_present: true,
            ..Connack::default()
        };
        assert!(encode(
            Peer::new(V3),
            &Outgoing::Connack(Box::new(connack)),
            &mut out
        ));
        assert_eq!(out, [0x20, 2, u8::from(given == 0), expected], "{given:#x}");
        out.clear();
    }
    let connack = Connack {
        session_present: true,
        session_expiry: Some(60),
        receive_maximum: 256,
        maximum_packet_size: 262_144,
        assigned_client_id: Some("assigned".into()),
        server_keep_alive: Some(30),
        topic_alias_maximum: 8,
        ..Connack::default()
    };
    assert!(encode(
        Peer::new(V5),
        &Outgoing::Connack(Box::new(connack)),
        &mut out
    ));
    let Some((v5::Packet::ConnectAck(read), _)) = v5::Codec::new(0, 0)
        .decode(&mut BytesMut::from(&out[..]))
        .unwrap()
    else {
        panic!("a CONNACK");
    };
    assert_eq!(
        (read.session_present, read.session_expiry_interval_secs),
        (true, Some(60))
    );
    assert_eq!(
        (read.receive_max.get(), read.max_packet_size),
        (256, Some(262_144))
    );
    assert_eq!(
        (read.assigned_client_id.as_deref(), read.server_keepalive_sec),
        (Some("assigned"), Some(30))
    );
    assert_eq!(
        (read.topic_alias_max, read.shared_subscription_available),
        (8, false)
    );
    assert_eq!((read.retain_available, read.max_qos.value()), (true, 2));
}

#[test]
fn a_client_gets_no_packet_larger_than_it_takes_and_no_properties_it_did_not_ask_for() {
    let properties = vec![("code".to_owned(), "unavailable".to_owned())];
    let ack = Outgoing::Puback(Ack {
        packet_id: 5,
        reason: 0x83,
        properties,
        reason_string: Some("not now"),
    });
    let mut out = Vec::new();
    assert!(encode(Peer::new(V5), &ack, &mut out));
    let told = |out: &[u8]| {
        let read = v5::Codec::new(0, 0).decode(&mut BytesMut::from(out)).unwrap();
        let Some((v5::Packet::PublishAck(read), _)) = read else {
            panic!("a PUBACK")
        };
        (read.reason_string.clone(), read.properties.len())
    };
    assert_eq!(told(&out), (Some("not now".into()), 1));
    // MQTT-3.4.2-2: the sentence goes first, then the properties (MQTT-3.4.2-3).
    let peer = Peer {
        max: out.len() as u32 - 1,
        ..Peer::new(V5)
    };
    let mut shorter = Vec::new();
    assert!(encode(peer, &ack, &mut shorter));
    assert_eq!(told(&shorter), (None, 1));
    for peer in [
        Peer {
            max: 10,
            ..Peer::new(V5)
        },
        Peer {
            problem_information: false,
            ..Peer::new(V5)
        },
    ] {
        let mut out = vec![1];
        assert!(encode(peer, &ack, &mut out));
        assert_eq!(out, [1, 0x40, 3, 0, 5, 0x83]);
    }
    let mut out = vec![1];
    assert!(encode(Peer::new(V3), &ack, &mut out));
    assert_eq!(out, [1, 0x40, 2, 0, 5]);
    let publish = Outgoing::Publish(Box::new(PublishOut {
        topic: "t".into(),
        payload: vec![0; 100].into(),
        qos: 1,
        retain: false,
        dup: false,
        packet_id: 1,
        message_expiry: None,
        subscription_ids: Vec::new(),
        properties: None,
    }));
    let size = 2 + 3 + 2 + 1 + 100;
    assert!(!encode(
        Peer {
            max: size - 1,
            ..Peer::new(V5)
        },
        &publish,
        &mut out
    ));
    assert_eq!(out, [1, 0x40, 2, 0, 5], "nothing of it is left behind");
    assert!(encode(
        Peer {
            max: size,
            ..Peer::new(V5)
        },
        &publish,
        &mut out
    ));
    assert_eq!(out.len(), 5 + size as usize);
}

#[test]
fn a_disconnect_to_3_1_1_is_nothing_and_subacks_say_failure() {
    let mut out = Vec::new();
    assert!(encode(
        Peer::new(V3),
        &Outgoing::Disconnect(0x8b, Vec::new()),
        &mut out
    ));
    assert!(out.is_empty());
    assert!(encode(
        Peer::new(V3),
        &Outgoing::Suback(3, vec![0, 1, 2, 0x87]),
        &mut out
    ));
    assert_eq!(out, [0x90, 6, 0, 3, 0, 1, 2, 0x80]);
    out.clear();
    assert!(encode(
        Peer::new(V5),
        &Outgoing::Suback(3, vec![1, 0x9e]),
        &mut out
    ));
    assert_eq!(out, [0x90, 5, 0, 3, 0, 1, 0x9e]);
    out.clear();
    assert!(encode(
        Peer::new(V3),
        &Outgoing::Unsuback(3, vec![0, 0x11]),
        &mut out
    ));
    assert_eq!(out, [0xb0, 2, 0, 3]);
    out.clear();
    assert!(encode(
        Peer::new(V5),
        &Outgoing::Unsuback(3, vec![0, 0x11]),
        &mut out
    ));
    assert_eq!(out, [0xb0, 5, 0, 3, 0, 0, 0x11]);
}
