//! What one address may, at listeners and by WebSocket, and that everything counted is given back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use godwit_cluster::RoleId;

use super::bench::pair;
use super::rig::{Client, Rig, connect, publish, whole};
use crate::net::{AddressLimits, Addresses, NetConfig, NewConnection, NewTransport, Proxies, TOLD};

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

/// A WebSocket of 127.0.0.1 that has sent this.
fn web_socket(rig: &Rig, already_read: Vec<u8>) -> TcpStream {
    let (ours, client) = pair();
    let peer = ours.peer_addr().unwrap();
    let new = NewConnection {
        transport: NewTransport::WebSocket(ours, None),
        peer,
        already_read,
    };
    rig.router().hand_over(0, RoleId::Broker, Box::new(new));
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client
}

/// The CONNACK that a WebSocket of 127.0.0.1 gets.
fn by_web_socket(rig: &Rig, level: u8) -> (TcpStream, Vec<u8>) {
    let packet = connect(level, "c", 0, Some(("alice", "good")));
    let frame = [&[0x82, 0x80 | packet.len() as u8, 0, 0, 0, 0][..], &packet].concat();
    let mut client = web_socket(rig, frame);
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

#[test]
fn of_web_sockets_beyond_a_limit_a_few_are_kept_to_be_told_and_the_rest_is_closed_at_once() {
    let config = NetConfig {
        connect_seconds: 60,
        ..limited(1, 0)
    };
    let addresses = config.addresses.clone();
    let rig = Rig::new(config);
    let (_first, connack) = by_web_socket(&rig, 5);
    assert_eq!(connack[3], 0);
    let mut silent: Vec<TcpStream> = (0..TOLD).map(|_| web_socket(&rig, Vec::new())).collect();
    until("all are there", || addresses.told() == TOLD);
    assert_eq!(web_socket(&rig, Vec::new()).read(&mut [0]).unwrap(), 0);
    assert_eq!(rig.refused("address_connections"), 1);
    drop(silent.pop());
    until("one is gone", || addresses.told() < TOLD);
    assert_eq!(by_web_socket(&rig, 5).1[3], 0x97);
    drop(silent);
    until("nothing is left of them", || addresses.told() == 0);
}

/// A node with room for one connection that knows of another server.
fn full(connect_seconds: u32) -> NetConfig {
    NetConfig {
        max_connections: 1,
        server_reference: Some("other.example:1883".into()),
        connect_seconds,
        ..limited(1_000, 0)
    }
}

fn is_sent_elsewhere(answer: &[u8]) -> bool {
    (answer[0], answer[3]) == (0x20, 0x9c) && answer.windows(18).any(|part| part == b"other.example:1883")
}

#[test]
fn a_full_node_says_where_else_to_go() {
    let config = full(5);
    let addresses = config.addresses.clone();
    let rig = Rig::new(config);
    let first = let_in(&rig, "bob").unwrap();
    let mut new = rig.client();
    new.write(&connect(5, "c", 0, Some(("alice", "good"))));
    assert!(is_sent_elsewhere(&new.packet().unwrap()));
    assert_eq!(new.packet(), None);
    let mut old = rig.client();
    old.write(&connect(4, "c", 0, Some(("alice", "good"))));
    assert_eq!(old.packet().unwrap(), [0x20, 2, 0, 3]);
    assert!(is_sent_elsewhere(
        &[&[0x20][..], &by_web_socket(&rig, 5).1[1..]].concat()
    ));
    assert_eq!(rig.refused("too_many"), 3);
    drop((first, new, old));
    until("all are gone", || rig.metrics.connections.get() == 0);
    assert_eq!(
        (addresses.told(), addresses.known.get()),
        (0, 0),
        "nothing is left"
    );
    assert!(let_in(&rig, "alice").is_some());
}

#[test]
fn a_node_at_its_bound_on_memory_says_so_and_lets_in_again_when_it_is_below() {
    let config = NetConfig::default();
    let (addresses, memory_full) = (config.addresses.clone(), config.memory_full.clone());
    let rig = Rig::new(config);
    let mut first = rig.connected(&connect(5, "c", 0, Some(("bob", "good"))));
    memory_full.store(true, Ordering::Relaxed);
    let mut new = rig.client();
    new.write(&connect(5, "c", 0, Some(("alice", "good"))));
    assert_eq!(new.packet().unwrap()[3], 0x97);
    let mut old = rig.client();
    old.write(&connect(4, "c", 0, Some(("alice", "good"))));
    assert_eq!(old.packet().unwrap(), [0x20, 2, 0, 3]);
    assert_eq!(rig.refused("memory"), 2);
    first.write(&publish("served", 7, b""));
    assert_eq!(first.packet().unwrap(), [0x40, 2, 0, 7]);
    memory_full.store(false, Ordering::Relaxed);
    assert!(let_in(&rig, "alice").is_some());
    drop((first, new, old));
    until("all are gone", || rig.metrics.connections.get() == 0);
    assert_eq!(addresses.told(), 0, "nothing is left");
}

#[test]
fn behind_a_balancer_it_says_so_too() {
    let rig = Rig::with_proxies(
        full(5),
        None,
        Some(Proxies::new(&["127.0.0.0/8".parse().unwrap()])),
    );
    let come = || {
        let mut client = rig.client();
        let hello = connect(5, "c", 0, Some(("alice", "good")));
        client.write(&[b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", &hello[..]].concat());
        let answer = client.packet().unwrap();
        (client, answer)
    };
    let (_first, welcome) = come();
    assert_eq!(welcome[3], 0);
    assert!(is_sent_elsewhere(&come().1));
}

#[test]
fn who_keeps_silent_at_a_full_node_is_one_of_a_few_and_takes_nobodys_room() {
    let config = full(60);
    let addresses = config.addresses.clone();
    let rig = Rig::new(config);
    let first = let_in(&rig, "bob").unwrap();
    let silent: Vec<Client> = (0..TOLD).map(|_| rig.client()).collect();
    until("all are there", || addresses.told() == TOLD);
    assert_eq!(rig.client().packet(), None, "closed at once");
    assert_eq!(rig.refused("too_many"), 1);
    drop(first);
    until("the first is gone", || {
        rig.metrics.connections.get() == i64::from(TOLD)
    });
    assert!(let_in(&rig, "alice").is_some());
    drop(silent);
}

#[test]
fn a_connect_with_too_many_user_properties_has_a_count_of_its_own() {
    let rig = Rig::new(limited(10, 0));
    let mut client = rig.client();
    let properties = b"\x26\0\x01a\0\x01b".repeat(101);
    let (low, high) = (
        (properties.len() & 0x7f) as u8 | 0x80,
        (properties.len() >> 7) as u8,
    );
    let body = [
        &b"\0\x04MQTT\x05\x02\0\0"[..],
        &[low, high],
        &properties,
        b"\0\x01c",
    ]
    .concat();
    client.write(&whole(0x10, &body));
    assert_eq!(client.packet().unwrap()[3], 0x97);
    assert_eq!(rig.refused("user_properties"), 1);
    assert_eq!(rig.refused("address_connections"), 0);
}
