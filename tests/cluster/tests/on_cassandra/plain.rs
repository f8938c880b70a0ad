//! A plain MQTT client of 3.1.1 or 5 on a blocking socket, over TCP, TLS or a WebSocket. It acknowledges what it is told to, and
//! keeps what came for whoever asks.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_e2e::world::User;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// For an answer that must come; a node may just have been killed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);
/// How long a read may block.
const LOOK: Duration = Duration::from_millis(20);

/// How it comes.
pub(crate) enum Way {
    Tcp(SocketAddr),
    Tls(SocketAddr, Arc<ClientConfig>),
    /// The address of HTTP.
    WebSocket(SocketAddr),
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    WebSocket(Box<WebSocket<TcpStream>>),
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    id: u16,
}

/// A connection.
pub(crate) struct Client {
    stream: Stream,
    level: u8,
    input: Vec<u8>,
    came: VecDeque<Came>,
    /// Type, packet id, reason code.
    answers: VecDeque<(u8, u16, u8)>,
    /// QoS 2 publishes that are not released.
    open: Vec<u16>,
    last_id: u16,
    /// Whether it acknowledges.
    pub(crate) acknowledges: bool,
}

fn field(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("short");
    [&len.to_be_bytes()[..], bytes].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut out, mut left) = (vec![first], body.len());
    loop {
        let more = if left > 0x7f { 0x80 } else { 0 };
        out.push((left & 0x7f) as u8 | more);
        left >>= 7;
        if more == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// Length of the first packet and of its head, if it is whole.
fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut len = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (bytes.len() >= 2 + at + len).then_some((2 + at + len, 2 + at));
        }
    }
    None
}

fn upgraded(http: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {http}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    ensure!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    Ok(stream)
}

impl Client {
    /// Connects with a clean session; `will`: topic and payload, of QoS 1.
    pub(crate) fn connect(
        way: &Way,
        level: u8,
        user: &User,
        name: &str,
        will: Option<(&str, &str)>,
    ) -> Result<Self> {
        let socket = match way {
            Way::Tcp(at) | Way::Tls(at, _) => TcpStream::connect(at)?,
            Way::WebSocket(http) => upgraded(*http)?,
        };
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut stream = match way {
            Way::Tcp(_) => Stream::Tcp(socket),
            Way::WebSocket(_) => {
                Stream::WebSocket(Box::new(WebSocket::from_raw_socket(socket, Role::Client, None)))
            }
            Way::Tls(_, config) => {
                let session = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
                let mut tls = StreamOwned::new(session, socket);
                tls.conn.complete_io(&mut tls.sock)?;
                Stream::Tls(Box::new(tls))
            }
        };
        match &mut stream {
            Stream::Tcp(socket) => socket.set_read_timeout(Some(LOOK))?,
            Stream::Tls(tls) => tls.sock.set_read_timeout(Some(LOOK))?,
            Stream::WebSocket(socket) => socket.get_ref().set_read_timeout(Some(LOOK))?,
        }
        let mut client = Self {
            stream,
            level,
            input: Vec::new(),
            came: VecDeque::new(),
            answers: VecDeque::new(),
            open: Vec::new(),
            last_id: 0,
            acknowledges: true,
        };
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let mut body = field(b"MQTT");
        let flags = 0xc2 | if will.is_some() { 0x0c } else { 0 };
        body.extend([level, flags, 0, 60]);
        body.extend(properties);
        body.extend(field(name.as_bytes()));
        if let Some((topic, payload)) = will {
            body.extend(properties);
            body.extend(field(topic.as_bytes()));
            body.extend(field(payload.as_bytes()));
        }
        body.extend(field(user.name.as_bytes()));
        body.extend(field(user.token.as_bytes()));
        client.write(&packet(0x10, &body))?;
        match client.answer(2)? {
            (_, 0) => Ok(client),
            (_, reason) => bail!("CONNACK {reason:#x} for {name}"),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Tcp(socket) => socket.write_all(bytes)?,
            Stream::Tls(tls) => {
                tls.write_all(bytes)?;
                tls.flush()?;
            }
            Stream::WebSocket(socket) => socket.send(Message::binary(bytes.to_vec()))?,
        }
        Ok(())
    }

    /// Reads what is there, for a short while.
    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 64 << 10];
        let read = match &mut self.stream {
            Stream::Tcp(socket) => socket.read(&mut buffer),
            Stream::Tls(tls) => tls.read(&mut buffer),
            Stream::WebSocket(socket) => match socket.read() {
                Ok(Message::Binary(bytes)) => {
                    self.input.extend_from_slice(&bytes);
                    return self.take();
                }
                Ok(_) => return Ok(()),
                Err(tungstenite::Error::Io(error)) => Err(error),
                Err(error) => return Err(error.into()),
            },
        };
        match read {
            Ok(0) => bail!("the server has closed"),
            Ok(len) => self.input.extend_from_slice(&buffer[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        self.take()
    }

    fn take(&mut self) -> Result<()> {
        while let Some((len, head)) = whole(&self.input) {
            let bytes: Vec<u8> = self.input.drain(..len).collect();
            let (kind, body) = (bytes[0] >> 4, &bytes[head..]);
            let id = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
            match kind {
                2 => self.answers.push_back((kind, 0, body[1])),
                3 => self.publish_came(bytes[0], body)?,
                // Released: it may come no more by this id.
                6 => {
                    self.open.retain(|open| *open != id(0));
                    self.write(&packet(0x70, &body[..2]))?;
                }
                4 | 5 | 7 => self
                    .answers
                    .push_back((kind, id(0), body.get(2).copied().unwrap_or(0))),
                9 => self.answers.push_back((kind, id(0), body[body.len() - 1])),
                14 => bail!("DISCONNECT {body:02x?}"),
                _ => {}
            }
        }
        Ok(())
    }

    fn publish_came(&mut self, first: u8, body: &[u8]) -> Result<()> {
        let qos = first >> 1 & 3;
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let mut at = 2 + topic_len;
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([body[at], body[at + 1]]);
            at += 2;
        }
        if self.level == 5 {
            // Few properties here.
            at += 1 + usize::from(body[at]);
        }
        let repeats = qos == 2 && self.open.contains(&id);
        if qos == 2 && !repeats {
            self.open.push(id);
        }
        if !repeats {
            self.came.push_back(Came {
                topic: String::from_utf8(body[2..2 + topic_len].to_vec())?,
                payload: body[at..].to_vec(),
                qos,
                retain: first & 1 != 0,
                id,
            });
        }
        match qos {
            1 if self.acknowledges => self.write(&packet(0x40, &id.to_be_bytes())),
            2 if self.acknowledges => self.write(&packet(0x50, &id.to_be_bytes())),
            _ => Ok(()),
        }
    }

    /// The next answer of this kind: packet id and reason.
    fn answer(&mut self, kind: u8) -> Result<(u16, u8)> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer.0 == kind) {
                let (_, id, reason) = self.answers.remove(at).context("it is there")?;
                return Ok((id, reason));
            }
            ensure!(Instant::now() < until, "no answer of kind {kind}");
            self.read()?;
        }
    }

    fn fresh_id(&mut self) -> u16 {
        self.last_id += 1;
        self.last_id
    }

    /// SUBSCRIBE, and its SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let mut body = self.fresh_id().to_be_bytes().to_vec();
        if self.level == 5 {
            body.push(0);
        }
        body.extend(field(filter.as_bytes()));
        body.push(qos);
        self.write(&packet(0x82, &body))?;
        let (_, granted) = self.answer(9)?;
        ensure!(granted == qos, "{filter}: granted {granted:#x}");
        Ok(())
    }

    /// PUBLISH, and its way to the end; gives the reason.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Result<u8> {
        let id = self.fresh_id();
        let mut body = field(topic.as_bytes());
        body.extend(id.to_be_bytes());
        if self.level == 5 {
            body.push(0);
        }
        body.extend_from_slice(payload);
        self.write(&packet(0x30 | qos << 1 | u8::from(retain), &body))?;
        let (of, reason) = self.answer(if qos == 1 { 4 } else { 5 })?;
        ensure!(of == id, "the answer of another publish");
        if qos == 2 && reason < 0x80 {
            self.write(&packet(0x62, &id.to_be_bytes()))?;
            ensure!(self.answer(7)? == (id, 0), "PUBCOMP");
        }
        Ok(reason)
    }

    /// The same until it is taken: while homes move it may be refused.
    pub(crate) fn publish_at_last(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.publish(topic, payload, 1, false)? >= 0x80 {
            ensure!(Instant::now() < until, "{topic} is not taken");
        }
        Ok(())
    }

    /// What has come, within so long.
    pub(crate) fn came(&mut self, within: Duration) -> Result<Vec<Came>> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            self.read()?;
        }
        Ok(self.came.drain(..).collect())
    }

    /// The next so many publishes.
    pub(crate) fn next(&mut self, count: usize) -> Result<Vec<Came>> {
        let until = Instant::now() + PATIENCE;
        while self.came.len() < count {
            ensure!(
                Instant::now() < until,
                "{} of {count} came: {:?}",
                self.came.len(),
                self.came
            );
            self.read()?;
        }
        Ok(self.came.drain(..count).collect())
    }
}
