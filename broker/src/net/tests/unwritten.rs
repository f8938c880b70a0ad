//! A PUBACK counts as written when the operating system has its last byte, also below TLS and in a WebSocket: what the
//! client gets and what is said to be unwritten are all there were.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::SockRef;

use super::bench::{Bench, given, pair, publish_out};
use super::transports::certificate;
use crate::codec;
use crate::net::transport::{TlsStream, Transport};
use crate::net::websocket::{Stream, WebSocketStream};
use crate::packet::{Ack, Outgoing};
use crate::wire_trait::{ConnId, Sent, Wire};

const PUBACKS: u16 = 3_000;

/// PUBACKs with PUBLISHes between them, more than the socket takes; the client takes some in between.
fn fill(bench: &mut Bench, id: ConnId, client: &TcpStream, got: &mut Vec<u8>) {
    for packet_id in 1..=PUBACKS {
        let puback = Outgoing::Puback(Ack::success(packet_id));
        assert_eq!(bench.net.send(id, &puback), Sent::Taken);
        assert_eq!(
            bench.net.send(id, &publish_out(usize::from(packet_id) % 200)),
            Sent::Taken
        );
        if packet_id % 100 == 0 {
            bench.turn();
        }
        if packet_id % 500 == 0 {
            let mut some = vec![0; 3_333];
            let len = (&*client).read(&mut some).unwrap();
            got.extend_from_slice(&some[..len]);
            std::thread::sleep(Duration::from_millis(5));
            bench.ready(id);
        }
    }
}

fn small() -> (TcpStream, TcpStream) {
    let (ours, client) = pair();
    SockRef::from(&ours).set_send_buffer_size(16 << 10).unwrap();
    SockRef::from(&client).set_recv_buffer_size(16 << 10).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (ours, client)
}

/// Whole PUBACKs at the beginning of a stream that may be cut.
fn pubacks(mut stream: &[u8]) -> usize {
    let mut count = 0;
    while let codec::Frame::Whole { len } = codec::frame(stream, 1 << 20) {
        count += usize::from(stream[0] == 0x40);
        stream = &stream[len..];
    }
    count
}

fn all_of(client: &mut impl std::io::Read, into: &mut Vec<u8>) {
    // A cut at the end is what is to be expected.
    let _ = client.read_to_end(into);
}

fn assert_exact(got: usize, unwritten: u32) {
    assert!(unwritten > 0, "there was more than the socket takes");
    assert_eq!(got + unwritten as usize, usize::from(PUBACKS));
}

#[test]
fn over_tcp() {
    let (ours, mut client) = small();
    let mut bench = Bench::new();
    let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    let mut got = Vec::new();
    fill(&mut bench, id, &client, &mut got);
    let unwritten = bench.net.close(id, None);
    all_of(&mut client, &mut got);
    assert_exact(pubacks(&got), unwritten);
}

#[test]
fn in_a_web_socket() {
    let (ours, mut client) = small();
    let mut bench = Bench::new();
    let stream = Stream::Tcp(mio::net::TcpStream::from_std(ours));
    let transport = Transport::WebSocket(Box::new(WebSocketStream::new(stream, Vec::new())));
    let id = bench.open(transport, &given(0, u32::MAX));
    let mut got = Vec::new();
    fill(&mut bench, id, &client, &mut got);
    let unwritten = bench.net.close(id, None);
    all_of(&mut client, &mut got);
    // The content of its frames, the last of which may be cut.
    let (mut rest, mut content) = (&got[..], Vec::new());
    while rest.len() >= 4 {
        assert_eq!(rest[0] & 0x7f, 0x02, "a binary frame");
        let (head, len) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            len => (2, usize::from(len)),
        };
        let part = &rest[head..(head + len).min(rest.len())];
        content.extend_from_slice(part);
        rest = &rest[head + part.len()..];
    }
    assert_exact(pubacks(&content), unwritten);
}

#[test]
fn below_tls() {
    let (server, config) = certificate();
    let (ours, client) = small();
    let mut bench = Bench::new();
    let session = Box::new(rustls::ServerConnection::new(server).unwrap());
    let stream = TlsStream::new(mio::net::TcpStream::from_std(ours), session);
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
    let id = bench.attached(Transport::Tls(Box::new(stream)), &given(0, u32::MAX));
    let mut socket = client.try_clone().unwrap();
    while tls.is_handshaking() {
        while tls.wants_write() {
            tls.write_tls(&mut socket).unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
        let _ = std::io::Read::read(&mut bench.conn(id).transport, &mut [0; 16]);
        if tls.wants_read() {
            tls.read_tls(&mut socket).unwrap();
            tls.process_new_packets().unwrap();
        }
    }
    while tls.wants_write() {
        tls.write_tls(&mut socket).unwrap();
    }
    std::thread::sleep(Duration::from_millis(5));
    let _ = std::io::Read::read(&mut bench.conn(id).transport, &mut [0; 16]);
    assert_eq!(
        bench.net.send(id, &Outgoing::Connack(Box::default())),
        Sent::Taken
    );
    let mut sealed = Vec::new();
    fill(&mut bench, id, &client, &mut sealed);
    let unwritten = bench.net.close(id, None);
    all_of(&mut socket, &mut sealed);
    let (mut got, mut sealed) = (Vec::new(), &sealed[..]);
    while !sealed.is_empty() {
        tls.read_tls(&mut sealed).unwrap();
        tls.process_new_packets().unwrap();
        all_of(&mut tls.reader(), &mut got);
    }
    assert_exact(pubacks(&got), unwritten);
}
