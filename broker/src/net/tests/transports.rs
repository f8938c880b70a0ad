//! TLS and WebSocket: the same packets over other bytes.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use godwit_cluster::RoleId;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::rig::{Rig, Saw, connect, packet, publish};
use crate::net::{NetConfig, NewConnection, NewTransport};
use crate::wire_trait::CloseReason;

pub(super) fn certificate() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

#[test]
fn packets_pass_tls_also_those_larger_than_a_record_and_the_end_is_said() {
    let (server, client) = certificate();
    let rig = Rig::with_tls(NetConfig::default(), Some(server));
    for user in ["alice", "bob"] {
        let session =
            rustls::ClientConnection::new(client.clone(), ServerName::try_from("localhost").unwrap())
                .unwrap();
        let socket = TcpStream::connect(rig.at).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut tls = rustls::StreamOwned::new(session, socket);
        let send = |tls: &mut rustls::StreamOwned<_, _>, bytes: &[u8]| {
            std::io::Write::write_all(tls, bytes).unwrap()
        };
        send(&mut tls, &connect(5, "c", 0, Some((user, "good"))));
        assert_eq!(packet(&mut tls).unwrap()[3], 0);
        send(&mut tls, &publish("large", 1, &[3; 200_000]));
        assert_eq!(packet(&mut tls).unwrap(), [0x40, 2, 0, 1]);
        send(&mut tls, &publish("flood", 2, b""));
        let (mut floods, mut acked) = (0, false);
        while floods < 4_000 || !acked {
            match packet(&mut tls).unwrap()[0] {
                0x30 => floods += 1,
                _ => acked = true,
            }
        }
        send(&mut tls, &[0xe0, 0]);
        assert_eq!(packet(&mut tls), None, "a goodbye of TLS, not a cut");
    }
}

#[test]
fn a_client_that_does_not_speak_tls_is_closed_and_hurts_nobody() {
    let (server, _) = certificate();
    let rig = Rig::with_tls(NetConfig::default(), Some(server));
    for _ in 0..20 {
        let mut client = rig.client();
        client.write(&connect(5, "c", 0, Some(("alice", "good"))));
        let mut answer = Vec::new();
        client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // A TLS alert, then the end.
        let _ = std::io::Read::read_to_end(&mut client.0, &mut answer);
        assert_ne!(answer.first(), Some(&0x20));
    }
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while rig.metrics.connections.get() != 0 {
        assert!(std::time::Instant::now() < until, "descriptors leak");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Both ends of a WebSocket whose upgrade is done; `ahead` was read with the upgrade.
fn web_socket(rig: &Rig, ahead: &[u8]) -> WebSocket<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (theirs, peer) = listener.accept().unwrap();
    let transport = NewTransport::WebSocket(theirs, None);
    let new = NewConnection {
        transport,
        peer,
        already_read: ahead.to_vec(),
    };
    rig.router().hand_over(0, RoleId::Broker, Box::new(new));
    WebSocket::from_raw_socket(client, Role::Client, None)
}

fn next(socket: &mut WebSocket<TcpStream>) -> Vec<u8> {
    match socket.read().unwrap() {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_pass_a_web_socket_split_anywhere_and_read_ahead_with_its_upgrade() {
    let rig = Rig::new(NetConfig::default());
    // A client's frame, masked with zeros.
    let first = connect(5, "c", 0, Some(("bob", "good")));
    let ahead = [&[0x82, 0x80 | first.len() as u8, 0, 0, 0, 0][..], &first].concat();
    let mut socket = web_socket(&rig, &ahead);
    assert_eq!(next(&mut socket)[3], 0);
    for chunk in publish("split", 1, b"abcdefgh").chunks(3) {
        socket.send(Message::binary(chunk.to_vec())).unwrap();
    }
    assert_eq!(next(&mut socket), [0x40, 2, 0, 1]);
    socket.send(Message::Ping("x".into())).unwrap();
    socket
        .send(Message::binary(
            [publish("a", 2, b""), publish("b", 3, b"")].concat(),
        ))
        .unwrap();
    let mut acks = Vec::new();
    while acks.len() < 8 {
        if let Message::Binary(bytes) = socket.read().unwrap() {
            acks.extend_from_slice(&bytes);
        }
    }
    assert_eq!(acks, [0x40, 2, 0, 2, 0x40, 2, 0, 3]);
    socket.send(Message::binary(vec![0xe0, 0])).unwrap();
    rig.wait_for(&Saw::Disconnect);
    assert!(
        matches!(socket.read(), Ok(Message::Close(_))),
        "a goodbye of the WebSocket"
    );
}

#[test]
fn text_on_a_web_socket_ends_it() {
    let rig = Rig::new(NetConfig::default());
    let mut socket = web_socket(&rig, b"");
    socket
        .send(Message::binary(connect(5, "c", 0, Some(("alice", "good")))))
        .unwrap();
    assert_eq!(next(&mut socket)[3], 0);
    socket.send(Message::text("hello")).unwrap();
    rig.wait_for(&Saw::Closed(CloseReason::Gone));
}

#[test]
fn a_slow_web_socket_gets_everything() {
    let rig = Rig::new(NetConfig::default());
    let mut socket = web_socket(&rig, b"");
    socket
        .send(Message::binary(connect(5, "c", 0, Some(("alice", "good")))))
        .unwrap();
    assert_eq!(next(&mut socket)[3], 0);
    socket.send(Message::binary(publish("flood", 1, b""))).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut bytes = 0;
    while bytes < 4_000 * (1_024 + 7 + 4) {
        bytes += next(&mut socket).len();
    }
}
