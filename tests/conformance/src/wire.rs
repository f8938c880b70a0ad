//! Packets as bytes, built for sending without asking whether they are right. Reading is in `reading`; no sockets.

pub(crate) use crate::reading::{Packet, parse};

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

impl Version {
    /// As it is written in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

pub(crate) const CONNECT: u8 = 1;
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const UNSUBSCRIBE: u8 = 10;
pub(crate) const UNSUBACK: u8 = 11;
pub(crate) const PINGRESP: u8 = 13;
pub(crate) const DISCONNECT: u8 = 14;
pub(crate) const AUTH: u8 = 15;

/// What a kind of packet is called.
pub(crate) fn kind_name(kind: u8) -> &'static str {
    match kind {
        CONNECT => "CONNECT",
        CONNACK => "CONNACK",
        PUBLISH => "PUBLISH",
        PUBACK => "PUBACK",
        PUBREC => "PUBREC",
        PUBREL => "PUBREL",
        PUBCOMP => "PUBCOMP",
        SUBSCRIBE => "SUBSCRIBE",
        SUBACK => "SUBACK",
        UNSUBSCRIBE => "UNSUBSCRIBE",
        UNSUBACK => "UNSUBACK",
        12 => "PINGREQ",
        PINGRESP => "PINGRESP",
        DISCONNECT => "DISCONNECT",
        AUTH => "AUTH",
        _ => "type 0",
    }
}

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Byte(u8),
    Two(u16),
    Four(u32),
    Var(u32),
    Text(Vec<u8>),
    Pair(Vec<u8>, Vec<u8>),
}

pub(crate) type Props = Vec<(u8, Value)>;

/// A text as a property's value.
pub(crate) fn text(text: impl AsRef<[u8]>) -> Value {
    Value::Text(text.as_ref().to_vec())
}

/// A user property.
pub(crate) fn user(name: &str, value: &str) -> (u8, Value) {
    (
        0x26,
        Value::Pair(name.as_bytes().to_vec(), value.as_bytes().to_vec()),
    )
}

/// A Variable Byte Integer in its shortest form.
pub(crate) fn var(mut number: usize) -> Vec<u8> {
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

fn two(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

/// A field with its length in two bytes before it.
pub(crate) fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = two(bytes.len()).to_vec();
    out.extend(bytes);
    out
}

/// Properties without their length.
pub(crate) fn bare_props(props: &[(u8, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, value) in props {
        out.push(*id);
        match value {
            Value::Byte(byte) => out.push(*byte),
            Value::Two(number) => out.extend(number.to_be_bytes()),
            Value::Four(number) => out.extend(number.to_be_bytes()),
            Value::Var(number) => out.extend(var(*number as usize)),
            Value::Text(text) => out.extend(field(text)),
            Value::Pair(name, value) => {
                out.extend(field(name));
                out.extend(field(value));
            }
        }
    }
    out
}

/// Properties with their length in MQTT 5, nothing in 3.1.1.
pub(crate) fn props(version: Version, props: &[(u8, Value)]) -> Vec<u8> {
    if version == Version::V311 {
        return Vec::new();
    }
    let bare = bare_props(props);
    let mut out = var(bare.len());
    out.extend(bare);
    out
}

/// A whole packet: first byte, remaining length, the rest.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(var(body.len()));
    out.extend(body);
    out
}

/// A PUBLISH that a test sends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Out {
    pub(crate) topic: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) pid: u16,
    pub(crate) props: Props,
}

impl Out {
    pub(crate) fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, qos: u8, pid: u16) -> Self {
        Self {
            topic: topic.as_ref().to_vec(),
            payload: payload.as_ref().to_vec(),
            qos,
            pid,
            ..Self::default()
        }
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub(crate) fn with(mut self, id: u8, value: Value) -> Self {
        self.props.push((id, value));
        self
    }

    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = field(&self.topic);
        if self.qos > 0 {
            body.extend(self.pid.to_be_bytes());
        }
        body.extend(props(version, &self.props));
        body.extend(&self.payload);
        packet(
            0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain),
            &body,
        )
    }
}

/// SUBSCRIBE: filters with their option bytes.
pub(crate) fn subscribe(
    version: Version,
    pid: u16,
    filters: &[(&str, u8)],
    given: &[(u8, Value)],
) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    body.extend(props(version, given));
    for (filter, options) in filters {
        body.extend(field(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE.
pub(crate) fn unsubscribe(version: Version, pid: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = pid.to_be_bytes().to_vec();
    body.extend(props(version, &[]));
    for filter in filters {
        body.extend(field(filter));
    }
    packet(0xA2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP without a reason code.
pub(crate) fn ack(kind: u8, pid: u16) -> Vec<u8> {
    packet(kind << 4 | if kind == PUBREL { 2 } else { 0 }, &pid.to_be_bytes())
}

/// The same with a reason code (MQTT 5).
pub(crate) fn ack_code(kind: u8, pid: u16, code: u8) -> Vec<u8> {
    let [high, low] = pid.to_be_bytes();
    packet(kind << 4 | if kind == PUBREL { 2 } else { 0 }, &[high, low, code])
}

pub(crate) const PINGREQ_BYTES: [u8; 2] = [0xC0, 0];

/// DISCONNECT; code and properties in MQTT 5 only.
pub(crate) fn disconnect(version: Version, code: u8, given: &[(u8, Value)]) -> Vec<u8> {
    if version == Version::V311 || (code == 0 && given.is_empty()) {
        return vec![0xE0, 0];
    }
    let mut body = vec![code];
    if !given.is_empty() {
        body.extend(props(version, given));
    }
    packet(0xE0, &body)
}
