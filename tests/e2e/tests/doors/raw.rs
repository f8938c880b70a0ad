//! A raw MQTT client over TCP, 3.1.1 and 5.0, written by hand: every packet and reason code is seen as it was sent.
//! It does one thing at a time and keeps nothing; what a door's answer should be is not known here.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Version {
    V3,
    V5,
}

/// What a door answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing, and the connection lives.
    Silence,
    /// PUBACK or PUBREC: reason code, and the user properties `code` and `retryable` of a refusal.
    Ack(u8, Vec<(String, String)>),
    /// SUBACK: the one code.
    Suback(u8),
    /// CONNACK: return or reason code.
    Connack(u8),
    /// The connection was closed; in MQTT 5 with the reason code of a DISCONNECT.
    Closed(Option<u8>),
}

/// A packet from the server.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Connack(u8),
    Publish(Delivery),
    /// PUBACK or PUBREC.
    Ack(u16, u8, Vec<(String, String)>),
    Pubcomp(u16),
    Suback(u16, Vec<u8>),
    Pingresp,
    Disconnect(u8),
}

/// A PUBLISH from the server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Delivery {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
    pub(crate) qos: u8,
    pub(crate) id: u16,
}

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) version: Version,
    pub(crate) client: &'a str,
    /// User name and password.
    pub(crate) login: Option<(&'a str, &'a str)>,
    /// Topic, payload, QoS; never retained.
    pub(crate) will: Option<(&'a str, &'a [u8], u8)>,
    /// Session Expiry Interval in MQTT 5, Clean Session = 0 in 3.1.1, if not 0.
    pub(crate) keep: bool,
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    version: Version,
    next_id: u16,
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let byte = u8::try_from(left % 128).unwrap_or(0);
        left /= 128;
        out.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

impl Wire {
    /// Connects; gives the connection if CONNACK accepted, and what was answered in any case.
    pub(crate) fn connect(port: u16, hello: &Hello<'_>) -> Result<(Option<Self>, Answer)> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let five = hello.version == Version::V5;
        let mut flags = if hello.keep { 0 } else { 2 };
        if let Some((_, _, qos)) = hello.will {
            flags |= 0x04 | (qos << 3);
        }
        if hello.login.is_some() {
            flags |= 0xc0;
        }
        let mut body = Vec::new();
        string(&mut body, b"MQTT");
        body.extend([if five { 5 } else { 4 }, flags, 0, 0]);
        match (five, hello.keep) {
            (true, true) => body.extend([5, 0x11, 0, 0, 0x0e, 0x10]),
            (true, false) => body.push(0),
            _ => {}
        }
        string(&mut body, hello.client.as_bytes());
        if let Some((topic, payload, _)) = hello.will {
            if five {
                body.push(0);
            }
            string(&mut body, topic.as_bytes());
            string(&mut body, payload);
        }
        if let Some((user, password)) = hello.login {
            string(&mut body, user.as_bytes());
            string(&mut body, password.as_bytes());
        }
        let mut wire = Self {
            stream,
            version: hello.version,
            next_id: 0,
        };
        wire.write(&packet(0x10, &body));
        match wire.read()? {
            Some(Packet::Connack(0)) => Ok((Some(wire), Answer::Connack(0))),
            Some(Packet::Connack(code)) => Ok((None, Answer::Connack(code))),
            Some(Packet::Disconnect(code)) => Ok((None, Answer::Closed(Some(code)))),
            None => Ok((None, Answer::Closed(None))),
            Some(other) => bail!("{other:?} as the answer to CONNECT"),
        }
    }

    /// A second handle, so that one thread reads and another ends the connection.
    pub(crate) fn stream(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// A write may fail when the server has closed: the next read says so.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn fresh(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    /// Publishes and waits for the answer; QoS 2 to its end; QoS 0: until the server has taken it.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Result<Answer> {
        let mut body = Vec::new();
        string(&mut body, topic.as_bytes());
        let id = if qos > 0 { self.fresh() } else { 0 };
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        if self.version == Version::V5 {
            body.push(0);
        }
        body.extend(payload);
        self.write(&packet(0x30 | (qos << 1) | u8::from(retain), &body));
        if qos == 0 {
            self.write(&[0xc0, 0]);
        }
        let answer = self.answer(id)?;
        let goes_on = matches!(answer, Answer::Ack(code, _) if code < 0x80);
        if qos == 2 && goes_on {
            let [high, low] = id.to_be_bytes();
            self.write(&packet(0x62, &[high, low]));
            loop {
                match self.read()?.context("closed before PUBCOMP")? {
                    Packet::Pubcomp(of) if of == id => break,
                    Packet::Publish(_) => {}
                    other => bail!("{other:?} instead of PUBCOMP"),
                }
            }
        }
        Ok(answer)
    }

    /// Subscribes to one filter.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> Result<Answer> {
        let id = self.fresh();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        string(&mut body, filter.as_bytes());
        body.push(qos);
        self.write(&packet(0x82, &body));
        self.answer(id)
    }

    /// Acknowledges a QoS 1 delivery.
    pub(crate) fn puback(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.write(&packet(0x40, &[high, low]));
    }

    /// Drops the connection without DISCONNECT: its will is due.
    pub(crate) fn vanish(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn answer(&mut self, id: u16) -> Result<Answer> {
        loop {
            match self.read()? {
                None => return Ok(Answer::Closed(None)),
                Some(Packet::Disconnect(code)) => return Ok(Answer::Closed(Some(code))),
                Some(Packet::Pingresp) => return Ok(Answer::Silence),
                Some(Packet::Ack(of, code, told)) if of == id => return Ok(Answer::Ack(code, told)),
                Some(Packet::Suback(of, codes)) if of == id => match codes[..] {
                    [code] => return Ok(Answer::Suback(code)),
                    _ => bail!("{codes:?} for one filter"),
                },
                // What a subscription of before delivers.
                Some(Packet::Publish(_)) => {}
                Some(other) => bail!("unexpected {other:?}"),
            }
        }
    }

    /// The next packet; `None`: the connection is closed.
    pub(crate) fn read(&mut self) -> Result<Option<Packet>> {
        let mut first = [0];
        if !self.fill(&mut first)? {
            return Ok(None);
        }
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let mut byte = [0];
            if !self.fill(&mut byte)? {
                return Ok(None);
            }
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        if !self.fill(&mut body)? {
            return Ok(None);
        }
        self.parse(first[0], &body).map(Some)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(false),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => bail!("no answer within {PATIENCE:?}"),
                _ => Err(error.into()),
            },
        }
    }

    fn parse(&self, first: u8, body: &[u8]) -> Result<Packet> {
        let five = self.version == Version::V5;
        let mut rest = Rest(body);
        Ok(match first >> 4 {
            2 => {
                rest.byte()?;
                Packet::Connack(rest.byte()?)
            }
            3 => {
                let qos = (first >> 1) & 3;
                let topic = rest.text()?;
                let id = if qos > 0 { rest.two()? } else { 0 };
                if five {
                    rest.properties()?;
                }
                let (payload, retain) = (rest.0.to_vec(), first & 1 != 0);
                Packet::Publish(Delivery {
                    topic,
                    payload,
                    retain,
                    qos,
                    id,
                })
            }
            4 | 5 => {
                let id = rest.two()?;
                let code = if rest.0.is_empty() { 0 } else { rest.byte()? };
                let mut told = if rest.0.is_empty() {
                    Vec::new()
                } else {
                    rest.properties()?
                };
                told.retain(|(name, _)| name == "code" || name == "retryable");
                if !five && body.len() != 2 {
                    bail!("an acknowledgement of {} bytes in 3.1.1", body.len());
                }
                Packet::Ack(id, code, told)
            }
            7 => Packet::Pubcomp(rest.two()?),
            9 => {
                let id = rest.two()?;
                if five {
                    rest.properties()?;
                }
                Packet::Suback(id, rest.0.to_vec())
            }
            13 => Packet::Pingresp,
            14 => Packet::Disconnect(if rest.0.is_empty() { 0 } else { rest.byte()? }),
            kind => bail!("a packet of type {kind}"),
        })
    }
}

/// The unread rest of a packet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .context("a packet that ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Result<u16> {
        let two = self.take(2)?;
        Ok(u16::from_be_bytes([two[0], two[1]]))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.two()?;
        Ok(String::from_utf8(self.take(usize::from(length))?.to_vec())?)
    }

    fn variable(&mut self) -> Result<usize> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    }

    /// The user properties of a block; the others are stepped over.
    fn properties(&mut self) -> Result<Vec<(String, String)>> {
        let length = self.variable()?;
        let mut block = Rest(self.take(length)?);
        let mut told = Vec::new();
        while !block.0.is_empty() {
            match block.byte()? {
                0x26 => told.push((block.text()?, block.text()?)),
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(block.byte()?),
                0x13 | 0x21 | 0x22 | 0x23 => drop(block.two()?),
                0x02 | 0x11 | 0x18 | 0x27 => drop(block.take(4)?),
                0x0b => drop(block.variable()?),
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => drop({
                    let length = block.two()?;
                    block.take(usize::from(length))?
                }),
                other => bail!("unknown property {other:#04x}"),
            }
        }
        Ok(told)
    }
}
