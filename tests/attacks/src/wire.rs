//! Packets as bytes, right or wrong, as an attacker sends them; and the few fields of answers that attacks look at.

/// A CONNECT.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    /// MQTT 3.1.1 instead of 5.0.
    pub old: bool,
    /// Client id.
    pub client: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Seconds.
    pub keep_alive: u16,
    /// Session expiry, seconds; 0 begins clean and ends with the connection.
    pub expiry: u32,
    /// Topic, payload, QoS, delay in seconds.
    pub will: Option<(String, Vec<u8>, u8, u32)>,
}

/// A Variable Byte Integer.
pub fn var(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(number % 128).unwrap_or_default();
        number /= 128;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// Bytes with their length in two bytes before them.
pub fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// A whole packet: first byte, remaining length, the rest.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(var(body.len()));
    out.extend(body);
    out
}

/// CONNECT.
pub fn connect(hello: &Hello) -> Vec<u8> {
    let mut flags = if hello.expiry == 0 { 2 } else { 0 };
    if let Some((_, _, qos, _)) = hello.will {
        flags |= 0x04 | (qos << 3);
    }
    if hello.login.is_some() {
        flags |= 0xc0;
    }
    let mut body = field("MQTT");
    body.extend([if hello.old { 4 } else { 5 }, flags]);
    body.extend(hello.keep_alive.to_be_bytes());
    if !hello.old {
        body.extend([5, 0x11]);
        body.extend(hello.expiry.to_be_bytes());
    }
    body.extend(field(&hello.client));
    if let Some((topic, payload, _, delay)) = &hello.will {
        if !hello.old {
            body.extend([5, 0x18]);
            body.extend(delay.to_be_bytes());
        }
        body.extend(field(topic));
        body.extend(field(payload));
    }
    if let Some((user, password)) = &hello.login {
        body.extend(field(user));
        body.extend(field(password));
    }
    packet(0x10, &body)
}

/// PUBLISH; `pid` counts for QoS 1 and 2.
pub fn publish(old: bool, topic: &str, payload: &[u8], qos: u8, retain: bool, pid: u16) -> Vec<u8> {
    let mut body = field(topic);
    if qos > 0 {
        body.extend(pid.to_be_bytes());
    }
    if !old {
        body.push(0);
    }
    body.extend(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

/// SUBSCRIBE to filters with one QoS.
pub fn subscribe<S: AsRef<[u8]>>(old: bool, pid: u16, filters: &[S], qos: u8) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    if !old {
        body.push(0);
    }
    for filter in filters {
        body.extend(field(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn ack(kind: u8, pid: u16) -> Vec<u8> {
    packet(kind << 4 | if kind == 6 { 2 } else { 0 }, &pid.to_be_bytes())
}

/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// DISCONNECT with code 0.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Packet types.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBACK: u8 = 9;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// A packet from the server.
#[derive(Clone, Debug)]
pub struct Packet {
    /// First byte.
    pub first: u8,
    /// What follows the remaining length.
    pub body: Vec<u8>,
    /// Whether it is of 3.1.1.
    pub old: bool,
}

impl Packet {
    /// The first whole packet of `bytes`, and its length there.
    pub fn parse(old: bool, bytes: &[u8]) -> Option<(Self, usize)> {
        let first = *bytes.first()?;
        let (mut length, mut at) = (0_usize, 1);
        loop {
            let byte = *bytes.get(at)?;
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = bytes.get(at..at + length)?.to_vec();
        Some((Self { first, body, old }, at + length))
    }

    /// Its type.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Its QoS, of a PUBLISH.
    pub fn qos(&self) -> u8 {
        (self.first >> 1) & 3
    }

    /// The two bytes at a place.
    fn two(&self, at: usize) -> u16 {
        let byte = |at: usize| self.body.get(at).copied().unwrap_or_default();
        u16::from_be_bytes([byte(at), byte(at + 1)])
    }

    /// Packet identifier; of a PUBLISH of QoS 0: 0.
    pub fn pid(&self) -> u16 {
        match self.kind() {
            kind::PUBLISH if self.qos() == 0 => 0,
            kind::PUBLISH => self.two(2 + usize::from(self.two(0))),
            _ => self.two(0),
        }
    }

    /// Reason code of a CONNACK, an acknowledgement or a DISCONNECT.
    pub fn code(&self) -> u8 {
        let at = match self.kind() {
            kind::CONNACK => 1,
            kind::DISCONNECT => 0,
            _ => 2,
        };
        self.body.get(at).copied().unwrap_or_default()
    }

    /// Whether it is a CONNACK that lets in.
    pub fn is_welcome(&self) -> bool {
        self.kind() == kind::CONNACK && self.code() == 0
    }

    /// Whether a CONNACK says that a session was there.
    pub fn session_present(&self) -> bool {
        self.body.first() == Some(&1)
    }

    /// Codes of a SUBACK.
    pub fn codes(&self) -> &[u8] {
        let properties = if self.old { 0 } else { 1 + self.var_at(2) };
        self.body.get(2 + properties..).unwrap_or_default()
    }

    /// A length of up to 127 bytes: all that stand before codes and payloads here.
    fn var_at(&self, at: usize) -> usize {
        self.body.get(at).copied().map_or(0, usize::from)
    }

    /// Topic of a PUBLISH.
    pub fn topic(&self) -> String {
        let length = usize::from(self.two(0));
        String::from_utf8_lossy(self.body.get(2..2 + length).unwrap_or_default()).into_owned()
    }

    /// Payload of a PUBLISH.
    pub fn payload(&self) -> &[u8] {
        let mut at = 2 + usize::from(self.two(0)) + if self.qos() > 0 { 2 } else { 0 };
        if !self.old {
            at += 1 + self.var_at(at);
        }
        self.body.get(at..).unwrap_or_default()
    }
}
