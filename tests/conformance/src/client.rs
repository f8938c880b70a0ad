//! A client on a bare socket that does nothing by itself: it sends the bytes that a case gives it, reads what comes
//! with a deadline, and has short ways for what every case needs.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use crate::opening::{Connect, Will};
use crate::server::Server;
use crate::wire::{
    self, CONNACK, DISCONNECT, Out, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Packet, SUBACK,
    UNSUBACK, Value, Version, parse,
};

pub(crate) type Outcome<T = ()> = Result<T, String>;

/// How long something that must come may take: a loaded machine is not the server's fault.
const PATIENCE_MOST: Duration = Duration::from_secs(8);
static PATIENCE: AtomicU64 = AtomicU64::new(PATIENCE_MOST.as_secs() * 1_000);

/// How long something that must come may take in this process.
pub(crate) fn patience() -> Duration {
    Duration::from_millis(PATIENCE.load(Ordering::Relaxed))
}

/// Sets it.
pub(crate) fn be_patient(time: Duration) {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    PATIENCE.store(millis, Ordering::Relaxed);
}

/// How long is looked for something that must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(350);

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    pub(crate) version: Version,
    pub(crate) id: Vec<u8>,
    pub(crate) connack: Packet,
    bytes: Vec<u8>,
    /// Read, and put back by who looked for something else.
    waiting: VecDeque<Packet>,
    /// The largest packet it takes, bytes.
    pub(crate) limit: usize,
    pid: u16,
    gone: bool,
}

impl Client {
    /// A connection on which nothing was sent.
    pub(crate) fn bare(server: &Server) -> Outcome<Self> {
        let stream =
            TcpStream::connect_timeout(&server.mqtt, patience()).map_err(|e| format!("connect: {e}"))?;
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(patience()));
        Ok(Self {
            stream,
            version: server.version,
            id: Vec::new(),
            connack: Packet::default(),
            bytes: Vec::new(),
            waiting: VecDeque::new(),
            limit: usize::MAX,
            pid: 100,
            gone: false,
        })
    }

    /// Connected, with a clean session.
    pub(crate) fn new(server: &Server) -> Outcome<Self> {
        Connect::new(server).open()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.stream
            .write_all(bytes)
            .map_err(|error| format!("send: {error}"))
    }

    /// The same where the server may have closed already.
    pub(crate) fn send_anyway(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn fresh_pid(&mut self) -> u16 {
        self.pid += 1;
        self.pid
    }

    /// The next packet before `until`; None: nothing came in time, or the end (then `gone` is set).
    fn read(&mut self, until: Instant) -> Outcome<Option<Packet>> {
        if let Some(packet) = self.waiting.pop_front() {
            return Ok(Some(packet));
        }
        loop {
            if let Some(packet) = parse(self.version, &self.bytes)? {
                self.bytes.drain(..packet.size);
                if packet.size > self.limit {
                    return Err(format!(
                        "{} bytes, more than the maximum packet size: {}",
                        packet.size,
                        packet.short()
                    ));
                }
                if packet.kind == DISCONNECT && !self.bytes.is_empty() {
                    return Err("bytes behind a DISCONNECT".into());
                }
                return Ok(Some(packet));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.gone {
                return Ok(None);
            }
            let _ = self.stream.set_read_timeout(Some(left));
            let mut chunk = [0_u8; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.gone = true,
                Ok(count) => self.bytes.extend(chunk.get(..count).unwrap_or_default()),
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::TimedOut => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }

    /// The next packet, whatever it is.
    pub(crate) fn next(&mut self) -> Outcome<Packet> {
        match self.read(Instant::now() + patience())? {
            Some(packet) => Ok(packet),
            None if self.gone => Err("the server closed the connection".into()),
            None => Err(format!("nothing came in {:?}", patience())),
        }
    }

    /// The next packet of this kind; a PUBLISH that comes before it is kept for later, anything else is an error.
    pub(crate) fn expect(&mut self, kind: u8) -> Outcome<Packet> {
        let mut kept = VecDeque::new();
        let found = loop {
            match self.next() {
                Ok(packet) if packet.kind == kind => break Ok(packet),
                Ok(packet) if packet.kind == PUBLISH => kept.push_back(packet),
                Ok(packet) => {
                    break Err(format!(
                        "expected {}, got {}",
                        wire::kind_name(kind),
                        packet.short()
                    ));
                }
                Err(error) => break Err(format!("expected {}: {error}", wire::kind_name(kind))),
            }
        };
        kept.append(&mut self.waiting);
        self.waiting = kept;
        found
    }

    /// The acknowledgement of this kind for this packet identifier, with code 0 or 0x10.
    pub(crate) fn acked(&mut self, kind: u8, pid: u16) -> Outcome<Packet> {
        let packet = self.expect(kind)?;
        if packet.pid != pid || !matches!(packet.code, 0 | 0x10) {
            return Err(format!(
                "expected {} id {pid} code 0, got {}",
                wire::kind_name(kind),
                packet.short()
            ));
        }
        Ok(packet)
    }

    /// The next PUBLISH, unacknowledged.
    pub(crate) fn message(&mut self) -> Outcome<Packet> {
        self.expect(PUBLISH)
    }

    /// The next PUBLISH, which must have this payload; unacknowledged.
    pub(crate) fn message_is(&mut self, payload: &str) -> Outcome<Packet> {
        let packet = self
            .message()
            .map_err(|error| format!("waiting for {payload:?}: {error}"))?;
        if packet.payload != payload.as_bytes() {
            return Err(format!("expected {payload:?}, got {}", packet.short()));
        }
        Ok(packet)
    }

    /// Whether a PUBLISH comes within a short while; it is not acknowledged.
    pub(crate) fn message_soon(&mut self) -> bool {
        let until = Instant::now() + QUIET;
        matches!(self.read(until), Ok(Some(packet)) if packet.kind == PUBLISH)
    }

    /// Whether a PUBLISH comes within a short while; it stays to be read.
    pub(crate) fn message_waits(&mut self) -> Outcome<bool> {
        match self.read(Instant::now() + QUIET)? {
            Some(packet) if packet.kind == PUBLISH => {
                self.waiting.push_front(packet);
                Ok(true)
            }
            Some(packet) => Err(format!("expected a PUBLISH or nothing, got {}", packet.short())),
            None => Ok(false),
        }
    }

    /// Whether a PUBLISH has come already.
    pub(crate) fn message_waits_at_once(&mut self) -> Outcome<bool> {
        match self.read(Instant::now() + Duration::from_millis(5))? {
            Some(packet) if packet.kind == PUBLISH => Ok(true),
            Some(packet) => Err(packet.short()),
            None => Ok(false),
        }
    }

    /// Whether the server has not closed it yet; packets are read and forgotten.
    pub(crate) fn is_open(&mut self) -> bool {
        while let Ok(Some(_)) = self.read(Instant::now() + Duration::from_millis(5)) {}
        !self.gone
    }

    /// Whatever comes within a short while.
    pub(crate) fn next_soon(&mut self) -> Outcome<Option<Packet>> {
        self.read(Instant::now() + QUIET)
    }

    /// Acknowledges it to the end.
    pub(crate) fn finish(&mut self, packet: &Packet) -> Outcome {
        match packet.qos() {
            1 => self.send(&wire::ack(PUBACK, packet.pid)),
            2 => {
                self.send(&wire::ack(PUBREC, packet.pid))?;
                self.acked(PUBREL, packet.pid)?;
                self.send(&wire::ack(PUBCOMP, packet.pid))
            }
            _ => Ok(()),
        }
    }

    /// The next PUBLISH with this payload, acknowledged to the end.
    pub(crate) fn take(&mut self, payload: &str) -> Outcome<Packet> {
        let packet = self.message_is(payload)?;
        self.finish(&packet)?;
        Ok(packet)
    }

    /// Nothing comes for a while, not even the end.
    pub(crate) fn quiet(&mut self) -> Outcome {
        self.quiet_for(QUIET)
    }

    pub(crate) fn quiet_for(&mut self, time: Duration) -> Outcome {
        match self.read(Instant::now() + time)? {
            Some(packet) => Err(format!("expected nothing, got {}", packet.short())),
            None if self.gone => Err("expected nothing, the server closed the connection".into()),
            None => Ok(()),
        }
    }

    /// A PINGREQ is answered, so the connection is alive and everything before it was read.
    pub(crate) fn ping(&mut self) -> Outcome {
        self.send(&wire::PINGREQ_BYTES)?;
        self.expect(PINGRESP).map(drop)
    }

    /// SUBSCRIBE to one filter; it must be granted so.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> Outcome {
        let codes = self.subscribe_all(&[(filter, options)], &[])?;
        if codes != [options & 3] {
            return Err(format!(
                "SUBSCRIBE {filter} QoS {}: SUBACK {codes:02x?}",
                options & 3
            ));
        }
        Ok(())
    }

    /// SUBSCRIBE; the SUBACK's codes.
    pub(crate) fn subscribe_all(
        &mut self,
        filters: &[(&str, u8)],
        props: &[(u8, Value)],
    ) -> Outcome<Vec<u8>> {
        let pid = self.fresh_pid();
        self.send(&wire::subscribe(self.version, pid, filters, props))?;
        let suback = self.expect(SUBACK)?;
        if suback.pid != pid || suback.codes.len() != filters.len() {
            return Err(format!(
                "SUBSCRIBE id {pid} with {} filters: {}",
                filters.len(),
                suback.short()
            ));
        }
        Ok(suback.codes)
    }

    /// UNSUBSCRIBE; the UNSUBACK's codes.
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Outcome<Vec<u8>> {
        let pid = self.fresh_pid();
        self.send(&wire::unsubscribe(self.version, pid, filters))?;
        let unsuback = self.expect(UNSUBACK)?;
        let codes = if self.version == Version::V5 {
            filters.len()
        } else {
            0
        };
        if unsuback.pid != pid || unsuback.codes.len() != codes {
            return Err(format!("UNSUBSCRIBE id {pid}: {}", unsuback.short()));
        }
        Ok(unsuback.codes)
    }

    /// Publishes and waits until it is acknowledged to the end.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: u8) -> Outcome {
        let pid = self.fresh_pid();
        self.publish_out(&Out::new(topic, payload, qos, pid))
    }

    /// The same with RETAIN 1.
    pub(crate) fn retain(&mut self, topic: &str, payload: &str, qos: u8) -> Outcome {
        let pid = self.fresh_pid();
        self.publish_out(&Out::new(topic, payload, qos, pid).retain())
    }

    /// Publishes this and waits until it is acknowledged to the end.
    pub(crate) fn publish_out(&mut self, out: &Out) -> Outcome {
        self.send(&out.bytes(self.version))?;
        match out.qos {
            1 => self.acked(PUBACK, out.pid).map(drop),
            2 => {
                self.acked(PUBREC, out.pid)?;
                self.send(&wire::ack(PUBREL, out.pid))?;
                self.acked(PUBCOMP, out.pid).map(drop)
            }
            _ => self.ping(),
        }
    }

    /// DISCONNECT with code 0; waits for the end.
    pub(crate) fn disconnect(mut self) -> Outcome {
        self.send(&[0xE0, 0])?;
        self.ended()
    }

    /// DISCONNECT with a code and properties (MQTT 5); waits for the end.
    pub(crate) fn disconnect_with(mut self, code: u8, props: &[(u8, Value)]) -> Outcome {
        self.send(&wire::disconnect(self.version, code, props))?;
        self.ended()
    }

    /// The server closes without another packet.
    pub(crate) fn ended(&mut self) -> Outcome {
        match self.read(Instant::now() + patience())? {
            Some(packet) => Err(format!(
                "expected the end of the connection, got {}",
                packet.short()
            )),
            None if self.gone => Ok(()),
            None => Err("the server leaves the connection open".into()),
        }
    }

    /// An error on an open connection: the end; in MQTT 5 before it may come a DISCONNECT, and if it comes it has one
    /// of these codes.
    pub(crate) fn refused(&mut self, codes: &[u8]) -> Outcome {
        match self.read(Instant::now() + patience())? {
            Some(packet) if packet.kind == DISCONNECT && codes.contains(&packet.code) => self.ended(),
            Some(packet) => Err(format!(
                "expected the end or DISCONNECT {codes:02x?}, got {}",
                packet.short()
            )),
            None if self.gone => Ok(()),
            None => Err("the server leaves the connection open".into()),
        }
    }

    /// Like [`Self::refused`], and the DISCONNECT must come in MQTT 5.
    pub(crate) fn told(&mut self, codes: &[u8]) -> Outcome {
        if self.version == Version::V311 {
            return self.ended();
        }
        let packet = self.next()?;
        if packet.kind != DISCONNECT || !codes.contains(&packet.code) {
            return Err(format!(
                "expected DISCONNECT {codes:02x?}, got {}",
                packet.short()
            ));
        }
        self.ended()
    }

    /// See [`Connect::refused`].
    pub(crate) fn refused_connect(&mut self, codes: &[u8], silent: bool) -> Outcome {
        match self.read(Instant::now() + patience())? {
            Some(packet) if packet.kind == CONNACK && codes.contains(&packet.code) => {
                if packet.present {
                    return Err("session present 1 in a CONNACK that refuses".into());
                }
                self.ended()
            }
            Some(packet) => Err(format!("expected CONNACK {codes:02x?}, got {}", packet.short())),
            None if !self.gone => Err("the server leaves the connection open".into()),
            None if silent => Ok(()),
            None => Err(format!("the server closed without CONNACK {codes:02x?}")),
        }
    }

    /// Whatever bytes come until the end or the deadline.
    pub(crate) fn raw(&mut self) -> Vec<u8> {
        let until = Instant::now() + patience();
        while !self.gone && Instant::now() < until {
            let _ = self.stream.set_read_timeout(Some(patience()));
            let mut chunk = [0_u8; 1024];
            match self.stream.read(&mut chunk) {
                Ok(count) if count > 0 => self.bytes.extend(chunk.get(..count).unwrap_or_default()),
                _ => self.gone = true,
            }
        }
        std::mem::take(&mut self.bytes)
    }
}
