//! An MQTT 5 client on a bare blocking socket that does nothing by itself: what is acknowledged, when, and how a connection
//! ends, is the test's. Only the packets that the tests need.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// For connecting, and for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A publish.
    Publish {
        /// Packet identifier, 0 at QoS 0.
        id: u16,
        /// 0 to 2.
        qos: u8,
        /// DUP.
        dup: bool,
        /// Application message.
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP: packet type, packet identifier, reason code.
    Ack(u8, u16, u8),
    /// SUBACK or UNSUBACK with its last reason code.
    Suback(u8),
    /// DISCONNECT with its reason code.
    Disconnect(u8),
    /// Anything else.
    Other,
}

/// PUBACK.
pub const PUBACK: u8 = 4;
/// PUBREC.
pub const PUBREC: u8 = 5;
/// PUBREL.
pub const PUBREL: u8 = 6;
/// PUBCOMP.
pub const PUBCOMP: u8 = 7;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
    taken: usize,
}

fn field(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
        .to_vec();
    out.extend(bytes);
    out
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let byte = u8::try_from(left % 128).unwrap_or_default();
        left /= 128;
        out.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

impl Raw {
    /// Connects to a port of this machine without credentials; says whether the session was there.
    ///
    /// # Errors
    /// When nothing listens, or the CONNACK says no or does not come.
    pub fn connect(port: u16, client: &str, clean_start: bool, expiry: u32) -> Result<(Self, bool)> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut raw = Self {
            stream,
            input: Vec::new(),
            taken: 0,
        };
        let mut body = field(b"MQTT");
        body.extend([5, u8::from(clean_start) << 1, 0, 60, 5, 0x11]);
        body.extend(expiry.to_be_bytes());
        body.extend(field(client.as_bytes()));
        raw.stream.write_all(&packet(0x10, &body))?;
        let (first, body) = raw.frame(PATIENCE)?.context("no CONNACK")?;
        match (first, body.get(1)) {
            (0x20, Some(0)) => Ok((raw, body[0] == 1)),
            _ => bail!("CONNACK {body:02x?}"),
        }
    }

    /// PUBLISH at QoS 1 or 2.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16, dup: bool) -> Result<()> {
        let mut body = field(topic.as_bytes());
        body.extend(id.to_be_bytes());
        body.push(0);
        body.extend(payload);
        let first = 0x30 | qos << 1 | u8::from(dup) << 3;
        Ok(self.stream.write_all(&packet(first, &body))?)
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn ack(&mut self, kind: u8, id: u16) -> Result<()> {
        let first = kind << 4 | u8::from(kind == PUBREL) << 1;
        Ok(self.stream.write_all(&packet(first, &id.to_be_bytes()))?)
    }

    /// SUBSCRIBE to one filter; its SUBACK comes by [`Raw::next`].
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let mut body = vec![0, 1, 0];
        body.extend(field(filter.as_bytes()));
        body.push(qos);
        Ok(self.stream.write_all(&packet(0x82, &body))?)
    }

    /// UNSUBSCRIBE from one filter; its UNSUBACK comes by [`Raw::next`].
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn unsubscribe(&mut self, filter: &str) -> Result<()> {
        let mut body = vec![0, 2, 0];
        body.extend(field(filter.as_bytes()));
        Ok(self.stream.write_all(&packet(0xa2, &body))?)
    }

    /// DISCONNECT, and waits until the server has closed; `ends`: the session ends with it.
    pub fn leave(mut self, ends: bool) {
        let body: &[u8] = match ends {
            true => &[0, 5, 0x11, 0, 0, 0, 0],
            false => &[],
        };
        let _ = self.stream.write_all(&packet(0xe0, body));
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && matches!(self.next(PATIENCE), Ok(Some(_))) {}
    }

    /// The next packet; `None` if none comes within `time`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn next(&mut self, time: Duration) -> Result<Option<Packet>> {
        let Some((first, body)) = self.frame(time)? else {
            return Ok(None);
        };
        let two = |at: usize| -> u16 {
            let byte = |at: usize| body.get(at).copied().unwrap_or_default();
            u16::from_be_bytes([byte(at), byte(at + 1)])
        };
        let code = |at: usize| body.get(at).copied().unwrap_or_default();
        Ok(Some(match first >> 4 {
            3 => {
                let qos = first >> 1 & 3;
                let mut at = 2 + usize::from(two(0));
                let id = if qos > 0 { two(at) } else { 0 };
                at += if qos > 0 { 2 } else { 0 };
                // Properties are short here.
                at += 1 + usize::from(code(at));
                Packet::Publish {
                    id,
                    qos,
                    dup: first & 8 != 0,
                    payload: body.get(at..).unwrap_or_default().to_vec(),
                }
            }
            kind @ PUBACK..=PUBCOMP => Packet::Ack(kind, two(0), code(2)),
            9 | 11 => Packet::Suback(body.last().copied().unwrap_or(0x80)),
            14 => Packet::Disconnect(code(0)),
            _ => Packet::Other,
        }))
    }

    fn frame(&mut self, time: Duration) -> Result<Option<(u8, Vec<u8>)>> {
        let until = Instant::now() + time;
        loop {
            if let Some(found) = self.whole() {
                return Ok(Some(found));
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let left = until.saturating_duration_since(Instant::now());
            self.stream
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let had = self.input.len();
            self.input.resize(had + READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[had..]);
            self.input.truncate(had + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => bail!("closed"),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= until {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn whole(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = self.input.get(self.taken..)?;
        let first = *bytes.first()?;
        let (mut length, mut at) = (0_usize, 1);
        loop {
            let byte = *bytes.get(at)?;
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 || at > 4 {
                break;
            }
        }
        let body = bytes.get(at..at + length)?.to_vec();
        self.taken += at + length;
        Some((first, body))
    }
}
