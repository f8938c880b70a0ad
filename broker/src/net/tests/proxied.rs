//! Connections that a balancer announces: both versions of the PROXY protocol, cut anywhere, and what is none.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use super::addresses::{limited, until};
use super::rig::{Client, Rig, connect, packet};
use super::transports::certificate;
use crate::net::{Announced, NetConfig, Proxies, announced};

fn behind(config: NetConfig) -> Rig {
    let proxies = Proxies::new(&["127.0.0.0/8".parse().unwrap()]);
    Rig::with_proxies(config, None, Some(proxies))
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.200 40000 1883\r\n").into_bytes()
}

/// `command` and `family` as in the specification, 2.2.
fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend((content.len() as u16).to_be_bytes());
    header.extend(content);
    header
}

fn v2_of(client: [u8; 4], more: &[u8]) -> Vec<u8> {
    let content = [&client[..], &[192, 0, 2, 200, 0x9c, 0x40, 7, 0x5b], more].concat();
    v2(0x21, 0x11, &content)
}

fn hello(user: &str) -> Vec<u8> {
    connect(5, "c", 0, Some((user, "good")))
}

#[test]
fn a_client_comes_in_behind_a_header_of_either_version() {
    let rig = behind(NetConfig::default());
    let headers = [
        v1("198.51.100.7"),
        b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 1883\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2_of([198, 51, 100, 7], &[]),
        v2_of([198, 51, 100, 7], &[0; 500]),
        // A look whether the server is there, and a client by a Unix socket.
        v2(0x20, 0, &[]),
        v2(0x21, 0x31, &[0; 216]),
    ];
    for header in headers {
        for user in ["alice", "bob"] {
            let mut client = rig.client();
            client.write(&[&header[..], &hello(user)].concat());
            assert_eq!(client.packet().unwrap()[3], 0, "{header:x?}");
        }
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let rig = behind(NetConfig::default());
    for header in [v1("198.51.100.7"), v2_of([198, 51, 100, 7], &[4, 0, 1, 0])] {
        let mut client = rig.client();
        client.0.set_nodelay(true).unwrap();
        for byte in &header {
            client.write(&[*byte]);
            std::thread::sleep(Duration::from_millis(2));
        }
        client.write(&hello("alice"));
        assert_eq!(client.packet().unwrap()[3], 0);
    }
}

#[test]
fn what_is_no_header_is_closed_at_once_and_counted() {
    let rig = behind(NetConfig::default());
    let bad = [
        hello("alice"),
        b"PROXY TCP4 not.an.address 192.0.2.1 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 70000\r\n".to_vec(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
        v2(0x31, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 3]),
        v2(0x21, 0x77, &[0; 12]),
        // One byte more than is taken.
        v2_of([192, 0, 2, 1], &[0; 509]),
    ];
    let began = Instant::now();
    for (number, bytes) in bad.iter().enumerate() {
        let mut client = rig.client();
        let _ = client.0.write_all(bytes);
        let mut answer = Vec::new();
        client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = std::io::Read::read_to_end(&mut client.0, &mut answer);
        assert!(answer.is_empty());
        until("it is counted", || {
            rig.refused("proxy_header") == number as u64 + 1
        });
    }
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "none waited for its deadline"
    );
    let mut half = rig.client();
    half.write(&v1("192.0.2.1")[..20]);
    half.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(half.packet(), None, "half a header, and no more will come");
    assert_eq!(rig.refused("proxy_header"), bad.len() as u64 + 1);
}

#[test]
fn a_header_from_elsewhere_is_not_believed() {
    let proxies = Proxies::new(&["192.0.2.0/24".parse().unwrap()]);
    let rig = Rig::with_proxies(NetConfig::default(), None, Some(proxies));
    let mut client = rig.client();
    let _ = client.0.write_all(&[v1("198.51.100.7"), hello("alice")].concat());
    assert_eq!(client.packet(), None);
    assert_eq!(rig.refused("proxy_from"), 1);
}

#[test]
fn the_announced_address_is_the_one_that_counts() {
    let config = limited(1, 0);
    let addresses = config.addresses.clone();
    let rig = behind(config);
    let come = |client: &str| -> Option<Client> {
        let mut connection = rig.client();
        let _ = connection.0.write_all(&[v1(client), hello("bob")].concat());
        connection.packet().map(|_| connection)
    };
    let first = come("198.51.100.7").unwrap();
    let _second = come("198.51.100.8").unwrap();
    assert!(come("198.51.100.7").is_none());
    assert_eq!(rig.refused("address_connections"), 1);
    assert_eq!(addresses.known.get(), 2);
    drop(first);
    until("its place is free", || addresses.known.get() == 1);
    assert!(come("198.51.100.7").is_some());
}

#[test]
fn a_header_comes_before_the_handshake_of_tls() {
    let (server, client) = certificate();
    let proxies = Proxies::new(&["127.0.0.1/32".parse().unwrap()]);
    let rig = Rig::with_proxies(NetConfig::default(), Some(server), Some(proxies));
    let mut socket = TcpStream::connect(rig.at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(&v2_of([198, 51, 100, 7], &[])).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(client, name).unwrap();
    let mut tls = rustls::StreamOwned::new(session, socket);
    tls.write_all(&hello("bob")).unwrap();
    assert_eq!(packet(&mut tls).unwrap()[3], 0);
}

#[test]
fn a_header_that_never_ends_has_the_deadline_of_a_connect() {
    let rig = behind(NetConfig {
        connect_seconds: 1,
        ..NetConfig::default()
    });
    let mut client = rig.client();
    client.write(b"PROXY ");
    let began = Instant::now();
    assert_eq!(client.packet(), None);
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(rig.refused("no_connect"), 1);
}

#[test]
fn every_beginning_of_a_header_is_incomplete_and_what_is_behind_it_is_not_part_of_it() {
    for header in [v1("198.51.100.7"), v2_of([1, 2, 3, 4], &[9; 7]), v2(0x20, 0, &[])] {
        for len in 0..header.len() {
            assert_eq!(
                announced(&header[..len]),
                Announced::Incomplete,
                "{len} of {header:x?}"
            );
        }
        let followed = [&header[..], &[0x10; 700]].concat();
        let Announced::Client(_, len) = announced(&followed) else {
            panic!("{:?}", announced(&followed));
        };
        assert_eq!(len, header.len());
    }
}
