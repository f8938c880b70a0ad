//! MQTT over WebSocket: subprotocol, frames that are no packets. The handshake and frames are written by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Case, SKIPPED, cases, check};
use crate::client::{Connect, Outcome, patience};
use crate::server::Server;
use crate::wire::{CONNACK, PINGRESP, Packet, SUBACK, Version, parse, subscribe};

pub(crate) const CASES: &[Case] = cases!("websocket";
    Both: subprotocol_is_mqtt, packets_are_in_binary_frames, text_frame_closes, frames_are_no_packets,
        control_frames_may_come_between, unmasked_frame_closes;
);

struct Socket {
    stream: TcpStream,
    version: Version,
    head: String,
    bytes: Vec<u8>,
    /// Payload of binary frames.
    data: Vec<u8>,
}

impl Socket {
    fn open(server: &Server) -> Outcome<Self> {
        let Some(http) = server.http else {
            return Err(format!("{SKIPPED}no WebSocket listener known"));
        };
        let mut stream = TcpStream::connect_timeout(&http, patience()).map_err(|e| e.to_string())?;
        let _ = stream.set_read_timeout(Some(patience()));
        let ask = format!(
            "GET /mqtt HTTP/1.1\r\nHost: {http}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: other, mqtt\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).map_err(|e| e.to_string())?;
        let mut socket = Self {
            stream,
            version: server.version,
            head: String::new(),
            bytes: Vec::new(),
            data: Vec::new(),
        };
        loop {
            let end = socket.bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = socket.bytes.drain(..end + 4).collect();
                socket.head = String::from_utf8_lossy(&head).to_lowercase();
                return Ok(socket);
            }
            if socket.more()? == 0 {
                return Err("no answer to the upgrade".into());
            }
        }
    }

    fn more(&mut self) -> Outcome<usize> {
        let mut chunk = [0_u8; 4096];
        let count = self
            .stream
            .read(&mut chunk)
            .map_err(|error| format!("read: {error}"))?;
        self.bytes.extend(chunk.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// A frame from the client; masked with zeros, which changes nothing.
    fn frame(&mut self, first: u8, payload: &[u8]) -> Outcome {
        let length = u8::try_from(payload.len()).map_err(|_| "too long for this test")?;
        check(length < 126, || "too long for this test".into())?;
        let mut bytes = vec![first, 0x80 | length, 0, 0, 0, 0];
        bytes.extend(payload);
        self.stream.write_all(&bytes).map_err(|error| error.to_string())
    }

    /// The next frame: its first byte and payload; None at the end.
    fn next_frame(&mut self) -> Outcome<Option<(u8, Vec<u8>)>> {
        loop {
            if let [first, length, ..] = self.bytes[..] {
                let (skip, length) = match length {
                    126 => {
                        let long = self.bytes.get(2..4).unwrap_or(&[0xFF, 0xFF]);
                        (4, long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
                    }
                    length => (2, length.into()),
                };
                if self.bytes.len() >= skip + length {
                    let frame: Vec<u8> = self.bytes.drain(..skip + length).collect();
                    return Ok(Some((first, frame.get(skip..).unwrap_or_default().to_vec())));
                }
            }
            match self.more() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.contains("reset") => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn packet(&mut self) -> Outcome<Packet> {
        loop {
            if let Some(packet) = parse(self.version, &self.data)? {
                self.data.drain(..packet.size);
                return Ok(packet);
            }
            match self.next_frame()? {
                Some((0x82 | 0x02 | 0x80 | 0, payload)) => self.data.extend(payload),
                Some((first, _)) => return Err(format!("a frame {first:#04x}, no binary one")),
                None => return Err("the server closed the connection".into()),
            }
        }
    }
}

fn subprotocol_is_mqtt(server: &Server) -> Outcome {
    let socket = Socket::open(server)?;
    let head = &socket.head;
    check(head.starts_with("http/1.1 101"), || format!("answer: {head}"))?;
    check(
        head.lines()
            .any(|line| line.replace(' ', "") == "sec-websocket-protocol:mqtt"),
        || format!("answer: {head}"),
    )
}

fn packets_are_in_binary_frames(server: &Server) -> Outcome {
    let mut socket = Socket::open(server)?;
    socket.frame(0x82, &Connect::new(server).bytes())?;
    let connack = socket.packet()?;
    check(connack.kind == CONNACK && connack.code == 0, || connack.short())?;
    socket.frame(0x82, &[0xC0, 0])?;
    let answer = socket.packet()?;
    check(answer.kind == PINGRESP, || answer.short())
}

fn text_frame_closes(server: &Server) -> Outcome {
    let mut socket = Socket::open(server)?;
    socket.frame(0x82, &Connect::new(server).bytes())?;
    socket.packet()?;
    socket.frame(0x81, &[0xC0 & 0x7F, 0])?;
    loop {
        match socket.next_frame()? {
            None => return Ok(()),
            // A DISCONNECT and a close frame may come before.
            Some((0x88 | 0x82, payload)) => {
                check(payload.first() != Some(&0xD0), || {
                    "answered as if it were binary".into()
                })?;
            }
            Some((first, payload)) => return Err(format!("frame {first:#04x} {payload:02x?}")),
        }
    }
}

/// A packet over many frames, many packets in one, and a packet's end with the next one's beginning.
fn frames_are_no_packets(server: &Server) -> Outcome {
    let mut socket = Socket::open(server)?;
    let connect = Connect::new(server).bytes();
    for byte in &connect {
        socket.frame(0x82, &[*byte])?;
    }
    let connack = socket.packet()?;
    check(connack.kind == CONNACK && connack.code == 0, || connack.short())?;
    let mut many = vec![0xC0, 0];
    many.extend(subscribe(server.version, 5, &[("a", 0)], &[]));
    many.push(0xC0);
    socket.frame(0x82, &many)?;
    // A message in three fragments: the rest of a PINGREQ, and one more.
    socket.frame(0x02, &[0])?;
    socket.frame(0x00, &[0xC0])?;
    socket.frame(0x80, &[0])?;
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(socket.packet()?.kind);
    }
    kinds.sort_unstable();
    check(kinds == [SUBACK, PINGRESP, PINGRESP, PINGRESP], || {
        format!("{kinds:?}")
    })
}

/// A ping between the fragments of a message is answered, and the message is whole.
fn control_frames_may_come_between(server: &Server) -> Outcome {
    let mut socket = Socket::open(server)?;
    socket.frame(0x82, &Connect::new(server).bytes())?;
    socket.packet()?;
    socket.frame(0x02, &[0xC0])?;
    socket.frame(0x89, b"hello")?;
    socket.frame(0x80, &[0])?;
    let (mut ponged, mut answered) = (false, false);
    while !(ponged && answered) {
        match socket.next_frame()? {
            Some((0x8A, payload)) => {
                check(payload == b"hello", || format!("pong {payload:02x?}"))?;
                ponged = true;
            }
            Some((0x82, payload)) => {
                check(payload == [0xD0, 0], || format!("{payload:02x?}"))?;
                answered = true;
            }
            other => return Err(format!("{other:02x?}")),
        }
    }
    Ok(())
}

fn unmasked_frame_closes(server: &Server) -> Outcome {
    let mut socket = Socket::open(server)?;
    let mut bytes = vec![
        0x82,
        u8::try_from(Connect::new(server).bytes().len()).unwrap_or(0),
    ];
    bytes.extend(Connect::new(server).bytes());
    socket
        .stream
        .write_all(&bytes)
        .map_err(|error| error.to_string())?;
    loop {
        match socket.next_frame()? {
            None => return Ok(()),
            Some((0x88, _)) => {}
            Some((first, payload)) => return Err(format!("frame {first:#04x} {payload:02x?}")),
        }
    }
}
