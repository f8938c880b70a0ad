//! What a WebSocket may hold and cost, and frames of all kinds between each other.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use godwit_cluster::RoleId;
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

use super::bench::{Bench, given, pair};
use super::rig::{Rig, Saw, connect, publish, whole};
use crate::net::transport::Transport;
use crate::net::websocket::{Stream, WebSocketStream};
use crate::net::{NetConfig, NewConnection, NewTransport};
use crate::packet::Outgoing;
use crate::wire_trait::{CloseReason, Wire};

/// The client's end of a WebSocket after its upgrade, given to worker 0.
pub(super) fn upgraded(rig: &Rig, already_read: Vec<u8>) -> TcpStream {
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

pub(super) fn binary(socket: &mut WebSocket<TcpStream>) -> Vec<u8> {
    loop {
        match socket.read().unwrap() {
            Message::Binary(bytes) => return bytes.to_vec(),
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn opened(rig: &Rig) -> WebSocket<TcpStream> {
    let mut socket = WebSocket::from_raw_socket(upgraded(rig, Vec::new()), Role::Client, None);
    socket
        .send(Message::binary(connect(5, "c", 0, Some(("alice", "good")))))
        .unwrap();
    assert_eq!(binary(&mut socket)[3], 0);
    socket
}

#[test]
fn fragments_with_pings_between_them_and_frames_of_nothing_carry_packets() {
    let rig = Rig::new(NetConfig::default());
    let mut socket = opened(&rig);
    let part = |bytes: &[u8], code: Data, last: bool| {
        Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(code), last))
    };
    let packets: Vec<u8> = (1..=50).flat_map(|id| publish("parts", id, &[5; 100])).collect();
    let mut pings = 0;
    for message in packets.chunks(777) {
        let mut chunks = message.chunks(100).enumerate().peekable();
        socket.send(Message::binary(Vec::new())).unwrap();
        while let Some((at, chunk)) = chunks.next() {
            let code = if at == 0 { Data::Binary } else { Data::Continue };
            socket.send(part(chunk, code, false)).unwrap();
            socket.send(Message::Ping(vec![at as u8].into())).unwrap();
            pings += 1;
            socket
                .send(part(b"", Data::Continue, chunks.peek().is_none()))
                .unwrap();
        }
    }
    let (mut acks, mut pongs) = (Vec::new(), 0);
    while acks.len() < 50 * 4 || pongs < 1 {
        match socket.read().unwrap() {
            Message::Binary(bytes) => acks.extend_from_slice(&bytes),
            Message::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<u8> = (1..=50).flat_map(|id| [0x40, 2, 0, id]).collect();
    assert_eq!(acks, expected);
    assert!(pongs <= pings);
}

/// A masked frame of a client.
fn frame(first: u8, content: &[u8]) -> Vec<u8> {
    let len = match content.len() {
        len @ 0..=125 => vec![0x80 | len as u8],
        len @ 126..=0xffff => [&[0x80 | 126][..], &(len as u16).to_be_bytes()].concat(),
        len => [&[0x80 | 127][..], &(len as u64).to_be_bytes()].concat(),
    };
    [&[first][..], &len, &[0; 4], content].concat()
}

fn ends(mut client: TcpStream) -> bool {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_frame_or_message_larger_than_a_connect_is_refused_by_its_header_until_the_client_is_let_in() {
    let rig = Rig::new(NetConfig::default());
    let before = Instant::now();
    let mut large = upgraded(&rig, Vec::new());
    large.write_all(&frame(0x82, &[0; 17_000])[..10]).unwrap();
    assert!(ends(large));
    let mut parts = upgraded(&rig, Vec::new());
    parts.write_all(&frame(0x02, &[0; 9_000])).unwrap();
    parts.write_all(&frame(0x00, &[0; 9_000])).unwrap();
    assert!(ends(parts));
    assert!(
        ends(upgraded(&rig, vec![0; 17_000])),
        "nor is as much read ahead taken"
    );
    assert!(before.elapsed() < Duration::from_secs(4), "not at the deadline");
    let mut socket = opened(&rig);
    let many: Vec<u8> = (1..=40)
        .flat_map(|id| publish("many", id, &[1; 10_000]))
        .collect();
    socket.send(Message::binary(many)).unwrap();
    let mut acks = 0;
    while acks < 40 * 4 {
        acks += binary(&mut socket).len();
    }
}

#[test]
fn a_frame_over_the_largest_ends_the_connection() {
    let rig = Rig::new(NetConfig::default());
    let mut socket = opened(&rig);
    socket
        .get_mut()
        .write_all(&frame(0x82, &vec![0; (1 << 20) + 1])[..14])
        .unwrap();
    rig.wait_for(&Saw::Closed(CloseReason::Gone));
}

/// Streams these frames, and takes what comes back, until it is told to stop.
struct Streaming(TcpStream, Vec<std::thread::JoinHandle<()>>);

impl Streaming {
    fn new(client: TcpStream, bytes: Vec<u8>) -> Self {
        let limit = Some(Duration::from_secs(8));
        client.set_write_timeout(limit).unwrap();
        client.set_read_timeout(limit).unwrap();
        let (mut writer, mut reader) = (client.try_clone().unwrap(), client.try_clone().unwrap());
        let until = Instant::now() + Duration::from_secs(8);
        let writing = std::thread::spawn(
            move || {
                while Instant::now() < until && writer.write_all(&bytes).is_ok() {}
            },
        );
        let reading = std::thread::spawn(
            move || {
                while reader.read(&mut [0; 4_096]).is_ok_and(|len| len > 0) {}
            },
        );
        Self(client, vec![writing, reading])
    }

    fn stop(self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
        for thread in self.1 {
            thread.join().unwrap();
        }
    }
}

#[test]
fn frames_without_content_do_not_keep_the_worker_however_many_come() {
    for (first, frames) in [
        ("pings", frame(0x89, b"")),
        ("empty frames", frame(0x82, b"")),
        ("empty fragments", frame(0x00, b"")),
    ] {
        let mut bench = Bench::new();
        let (ours, client) = pair();
        let stream = Stream::Tcp(mio::net::TcpStream::from_std(ours));
        let transport = Transport::WebSocket(Box::new(WebSocketStream::new(stream, Vec::new())));
        let id = bench.open(transport, &given(0, u32::MAX));
        let mut begin = client.try_clone().unwrap();
        begin.write_all(&frame(0x02, &[0x30, 4])).unwrap();
        if first != "empty fragments" {
            begin.write_all(&frame(0x80, b"\0\x01t\0")).unwrap();
        }
        let streaming = Streaming::new(client, frames.repeat(20_000));
        std::thread::sleep(Duration::from_millis(50));
        for _ in 0..20 {
            let before = Instant::now();
            bench.ready(id);
            let took = before.elapsed();
            // Who sends may have to wait for a core.
            let until = before + Duration::from_secs(20);
            while !bench.conn(id).unread && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
                bench.ready(id);
            }
            assert!(took < Duration::from_secs(1), "{first}: {took:?}");
            assert!(bench.conn(id).unread, "{first}: there is more");
            assert_eq!(
                bench.net.again.len(),
                1,
                "{first}: and it is read in a later turn"
            );
            let _ = bench.net.send(id, &Outgoing::Pingresp);
            bench.turn();
            assert_eq!(bench.net.again.len(), 1, "{first}: once");
        }
        if first != "empty fragments" {
            assert_eq!(bench.came.len(), 1, "what came before them was given");
        }
        streaming.stop();
    }
}

#[test]
fn few_pings_are_answered_in_one_read() {
    let mut bench = Bench::new();
    let (ours, mut client) = pair();
    let stream = Stream::Tcp(mio::net::TcpStream::from_std(ours));
    let transport = Transport::WebSocket(Box::new(WebSocketStream::new(stream, Vec::new())));
    let id = bench.open(transport, &given(0, u32::MAX));
    let connack = client.read(&mut [0; 64]).unwrap();
    assert!(connack > 0);
    client.write_all(&frame(0x89, b"").repeat(1_000)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    bench.ready(id);
    std::thread::sleep(Duration::from_millis(50));
    let answered = client.read(&mut [0; 4_096]).unwrap() / 2;
    assert!((1..=64).contains(&answered), "{answered}");
}

#[test]
fn what_is_behind_many_pings_arrives() {
    let rig = Rig::new(NetConfig::default());
    let mut socket = opened(&rig);
    let mut bytes = frame(0x89, b"ping").repeat(5_000);
    bytes.extend(frame(0x82, &publish("behind", 1, b"")));
    bytes.extend(frame(0x82, &whole(0xc0, b"")));
    let mut writer = socket.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut got = Vec::new();
    while got.len() < 6 {
        got.extend(binary(&mut socket));
    }
    assert_eq!(got, [0x40, 2, 0, 1, 0xd0, 0]);
    writing.join().unwrap();
}

#[test]
fn a_connect_of_more_than_16_kib_is_answered_also_over_a_web_socket() {
    let rig = Rig::new(NetConfig::default());
    let user = "x".repeat(40_000);
    let large = connect(5, "c", 0, Some((&user, "good")));
    // One frame; a ping before it; two frames of which the first is taken.
    let ping = Message::Ping("x".into());
    let ways = [
        vec![Message::binary(large.clone())],
        vec![ping, Message::binary(large.clone())],
        vec![
            Message::binary(large[..12_000].to_vec()),
            Message::binary(large[12_000..].to_vec()),
        ],
    ];
    for way in ways {
        let mut socket = WebSocket::from_raw_socket(upgraded(&rig, Vec::new()), Role::Client, None);
        for message in way {
            // It may be answered before everything is sent.
            let _ = socket.send(message);
        }
        let connack = binary(&mut socket);
        assert_eq!((connack[0], connack[3]), (0x20, 0x95));
    }
    let old = connect(4, "c", 0, Some((&user, "good")));
    let mut socket = WebSocket::from_raw_socket(upgraded(&rig, Vec::new()), Role::Client, None);
    socket.send(Message::binary(old)).unwrap();
    assert!(
        !matches!(socket.read(), Ok(Message::Binary(_))),
        "3.1.1 has no code for it"
    );
}
