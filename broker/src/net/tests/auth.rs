//! Exchanges that nobody ends, tokens revoked on the way in, and what a re-authentication does to the connection. Whole
//! exchanges are tested over the real binary (tests/conformance, server/tests/rights.rs).

use super::rig::{Client, Rig, Saw, connect, publish, whole};
use crate::net::NetConfig;
use crate::wire_trait::CloseReason;

fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn named(method: &str, data: &[u8]) -> Vec<u8> {
    let properties = [&[0x15][..], &field(method.as_bytes()), &[0x16], &field(data)].concat();
    [&[properties.len() as u8], &properties[..]].concat()
}

/// A CONNECT of `user` by this method.
fn connect_by(method: &str, user: &str, data: &[u8]) -> Vec<u8> {
    let head = [&field(b"MQTT")[..], &[5, 0x82, 0, 0]].concat();
    let body = [head, named(method, data), field(b"c"), field(user.as_bytes())].concat();
    whole(0x10, &body)
}

fn auth(code: u8, method: &str, data: &[u8]) -> Vec<u8> {
    whole(0xf0, &[&[code], &named(method, data)[..]].concat())
}

/// Whether the packet says this method.
fn says(packet: &[u8], method: &str) -> bool {
    let wanted = [&[0x15][..], &field(method.as_bytes())].concat();
    packet.windows(wanted.len()).any(|window| window == wanted)
}

fn challenged(rig: &Rig, user: &str) -> Client {
    let mut client = rig.client();
    let first = format!("n,,n={user}/id,r=abc");
    client.write(&connect_by("SCRAM-SHA-256", user, first.as_bytes()));
    let challenge = client.packet().unwrap();
    assert_eq!((challenge[0], challenge[2]), (0xf0, 0x18));
    assert!(says(&challenge, "SCRAM-SHA-256"));
    client
}

#[test]
fn an_exchange_is_refused_at_the_connects_deadline_or_at_the_first_wrong_packet() {
    let rig = Rig::new(NetConfig {
        connect_seconds: 1,
        ..NetConfig::default()
    });
    // Users of either worker, and one that is nobody.
    let mut silent: Vec<Client> = ["alice", "bob", "nobody"]
        .map(|user| challenged(&rig, user))
        .into();
    for (wrong, code) in [
        (vec![0xc0, 0], 0x82),
        (publish("t", 1, b""), 0x82),
        (auth(0x18, "TOKEN", b"good"), 0x82),
        (auth(0x19, "SCRAM-SHA-256", b"n,,n=alice/id,r=abc"), 0x82),
        (auth(0x18, "SCRAM-SHA-256", b"c=biws,r=abc,p=AAAA"), 0x86),
        (auth(0x18, "SCRAM-SHA-256", b""), 0x86),
        (vec![0xf1, 0], 0x81),
    ] {
        let mut client = challenged(&rig, "alice");
        client.write(&wrong);
        let connack = client.packet().unwrap();
        assert_eq!((connack[0], connack[3]), (0x20, code), "{wrong:02x?}");
        assert_eq!(client.packet(), None);
    }
    for client in &mut silent {
        let connack = client.packet().unwrap();
        assert_eq!((connack[0], connack[3]), (0x20, 0x87));
        assert_eq!(client.packet(), None);
    }
}

#[test]
fn who_came_by_a_method_renews_by_it_and_a_failure_ends_the_connection_alone() {
    let rig = Rig::new(NetConfig::default());
    let mut late = rig.connected(&connect_by("TOKEN", "bob", b"good"));
    late.write(&auth(0x19, "TOKEN", b"slow"));
    let mut client = rig.client();
    client.write(&connect_by("TOKEN", "alice", b"ends"));
    let connack = client.packet().unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    assert!(says(&connack, "TOKEN"));
    // The next token never ends: neither does the connection, which the first one would have within 3 s.
    client.write(&auth(0x19, "TOKEN", b"good"));
    let renewed = client.packet().unwrap();
    assert_eq!((renewed[0], renewed[2]), (0xf0, 0));
    assert!(says(&renewed, "TOKEN"));
    for (bad, code) in [
        (auth(0x19, "TOKEN", b"no"), 0x87),
        (auth(0x19, "TOKEN", b"failing"), 0x89),
        (auth(0x19, "SCRAM-SHA-256", b"n,,n=bob/id,r=abc"), 0x82),
        (auth(0x18, "TOKEN", b"good"), 0x82),
        (auth(0x00, "TOKEN", b""), 0x82),
        (
            [auth(0x19, "TOKEN", b"slow"), auth(0x19, "TOKEN", b"good")].concat(),
            0x82,
        ),
    ] {
        let mut other = rig.connected(&connect_by("TOKEN", "bob", b"good"));
        other.write(&bad);
        let told = other.packet().unwrap();
        assert_eq!((told[0], told[2]), (0xe0, code), "{bad:02x?}");
        rig.wait_for(&Saw::Closed(CloseReason::Protocol(code)));
    }
    // Without a method there is no AUTH.
    let mut plain = rig.connected(&connect(5, "c", 0, Some(("bob", "good"))));
    plain.write(&auth(0x19, "TOKEN", b"good"));
    assert_eq!(plain.packet().unwrap()[2], 0x82);
    // Nobody answered this one.
    assert_eq!(late.packet().unwrap()[2], 0x89);
    client.write(&publish("alive", 7, b""));
    assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 7]);
}

#[test]
fn who_authenticates_anew_again_and_again_is_told_and_closed() {
    let rig = Rig::new(NetConfig::default());
    let mut client = rig.connected(&connect_by("TOKEN", "alice", b"good"));
    let mut renewed = 0;
    let told = loop {
        client.write(&auth(0x19, "TOKEN", b"good"));
        let packet = client.packet().unwrap();
        if packet[0] != 0xf0 {
            break packet;
        }
        renewed += 1;
        assert!(renewed < 1_000, "nothing ends it");
    };
    assert!(renewed >= 5, "a few at once are no harm, not {renewed}");
    assert_eq!((told[0], told[2]), (0xe0, 0x96));
    rig.wait_for(&Saw::Closed(CloseReason::Protocol(0x96)));
}
