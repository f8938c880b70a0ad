//! Options of MQTT 5 that sockets serve: topic aliases from the client, and another server at the end.

use super::rig::{Client, Rig, Saw, connect, whole};
use crate::net::NetConfig;

fn alice(rig: &Rig, level: u8) -> Client {
    rig.connected(&connect(level, "c", 0, Some(("alice", "good"))))
}

/// A PUBLISH of QoS 0 with an alias.
fn aliased(topic: &str, alias: u8, payload: &[u8]) -> Vec<u8> {
    let topic = [&(topic.len() as u16).to_be_bytes()[..], topic.as_bytes()].concat();
    whole(0x30, &[&topic[..], &[3, 0x23, 0, alias], payload].concat())
}

#[test]
fn a_home_sees_topics_and_no_aliases_however_the_packets_come() {
    let rig = Rig::new(NetConfig::default());
    let mut client = alice(&rig, 5);
    let packets = [
        aliased("some/topic", 3, b"1"),
        aliased("", 3, b"22"),
        // What follows waits until the home reads on.
        aliased("pause", 4, b""),
        aliased("other", 3, b"333"),
        aliased("", 3, b"4444"),
    ];
    client.write(&packets.concat());
    rig.wait_for(&Saw::Publish("other".into(), 4));
    let saw = rig.shared.saw.lock().unwrap().clone();
    let expected = [
        ("some/topic", 1),
        ("some/topic", 2),
        ("pause", 0),
        ("other", 3),
        ("other", 4),
    ];
    assert_eq!(saw, expected.map(|(topic, len)| Saw::Publish(topic.into(), len)));
    client.write(&aliased("", 9, b""));
    let answer = client.packet().unwrap();
    assert_eq!((answer[0], answer[2]), (0xe0, 0x82));
    // Another connection knows nothing of it.
    let mut client = alice(&rig, 5);
    client.write(&aliased("", 3, b""));
    assert_eq!(client.packet().unwrap()[2], 0x82);
}

#[test]
fn at_the_end_clients_of_mqtt_5_are_sent_to_the_server_that_is_named() {
    let config = NetConfig {
        server_reference: Some("other.example:1883".into()),
        ..NetConfig::default()
    };
    let mut rig = Rig::new(config);
    let (mut new, mut old) = (alice(&rig, 5), alice(&rig, 4));
    rig.stop();
    let told = new.packet().unwrap();
    assert_eq!((told[0], told[2]), (0xe0, 0x9c));
    assert!(told.windows(18).any(|part| part == b"other.example:1883"));
    assert_eq!((new.packet(), old.packet()), (None, None));
}
