//! What one address may, at listeners and by WebSocket, and that everything counted is given back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_cluster::RoleId;

use super::bench::pair;
use super::rig::{Client, Rig, connect};
use crate::net::{AddressLimits, Addresses, NetConfig, NewConnection, NewTransport};

pub(super) fn limited(connections: u32, per_second: u32) -> NetConfig {
    let limits = AddressLimits {
        connections,
        per_second,
    };
    NetConfig {
        addresses: Arc::new(Addresses::new(limits)),
        ..NetConfig::default()
    }
}

/// Asks until it is so, 5 s at most.
pub(super) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !so() {
        assert!(Instant::now() < until, "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client of a user of either worker, if it is let in.
fn let_in(rig: &Rig, user: &str) -> Option<Client> {
    let mut client = rig.client();
    // It may be closed already.
    let _ = client.0.write_all(&connect(5, "c", 0, Some((user, "good"))));
    let mut connack = [0; 4];
    client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.0.read_exact(&mut connack).ok().map(|()| client)
}

#[test]
fn an_address_with_all_its_connections_is_closed_at_once_and_gets_room_by_each_that_goes() {
    let config = limited(2, 0);
    let addresses = config.addresses.clone();
    let rig = Rig::new(config);
    for _ in 0..5 {
        // One stays where it was accepted, one moves to another worker.
        let both = (let_in(&rig, "alice").unwrap(), let_in(&rig, "bob").unwrap());
        assert!(let_in(&rig, "alice").is_none());
        drop(both);
        until("both are gone", || rig.metrics.connections.get() == 0);
    }
    assert_eq!(rig.refused("address_connections"), 5);
    assert_eq!(addresses.known.get(), 0, "nothing is left of it");
}

#[test]
fn an_address_that_connects_too_fast_is_closed_at_once() {
    let rig = Rig::new(limited(0, 1));
    let came_in = (0..15).filter(|_| let_in(&rig, "bob").is_some()).count();
    // A second or two may pass.
    assert!((10..14).contains(&came_in), "{came_in}");
    assert_eq!(rig.refused("address_rate"), 15 - came_in as u64);
}

/// The CONNACK, or nothing, that a WebSocket of 127.0.0.1 gets.
fn by_web_socket(rig: &Rig, level: u8) -> (TcpStream, Vec<u8>) {
    let (ours, mut client) = pair();
    let peer = ours.peer_addr().unwrap();
    let packet = connect(level, "c", 0, Some(("alice", "good")));
    let frame = [&[0x82, 0x80 | packet.len() as u8, 0, 0, 0, 0][..], &packet].concat();
    let new = NewConnection {
        transport: NewTransport::WebSocket(ours, None),
        peer,
        already_read: frame,
    };
    rig.router().hand_over(0, RoleId::Broker, Box::new(new));
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let mut content = vec![0; usize::from(head[1])];
    client.read_exact(&mut content).unwrap();
    (client, content)
}

#[test]
fn a_web_socket_beyond_a_limit_is_told_in_its_connack() {
    let rig = Rig::new(limited(1, 0));
    let (_first, connack) = by_web_socket(&rig, 5);
    assert_eq!(connack[3], 0);
    assert_eq!(by_web_socket(&rig, 5).1[3], 0x97);
    assert_eq!(by_web_socket(&rig, 4).1[3], 3, "3.1.1: server unavailable");
    assert_eq!(rig.refused("address_connections"), 2);
    let rig = Rig::new(limited(0, 1));
    let codes: Vec<u8> = (0..12).map(|_| by_web_socket(&rig, 5).1[3]).collect();
    assert_eq!(codes[..10], [0; 10]);
    assert_eq!(codes[11], 0x9f);
}
