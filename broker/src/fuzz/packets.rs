//! The bytes of packets that clients send in the target `sessions`: they come in through the codec, as real ones.

use crate::codec::{decode, decode_connect};
use crate::packet::{Connect, Incoming, Version};

/// What a CONNECT says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hello {
    pub(super) version: Version,
    pub(super) client: u8,
    pub(super) clean: bool,
    /// Seconds; in 3.1.1 0 (clean) or for ever.
    pub(super) expiry: u32,
    pub(super) window: u16,
    /// QoS, whether retained, delay in seconds.
    pub(super) will: Option<(u8, bool, u32)>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut len = body.len();
    while len >= 0x80 {
        packet.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    packet.push(len as u8);
    packet.extend_from_slice(body);
    packet
}

pub(super) fn connect(hello: Hello) -> Box<Connect> {
    let five = hello.version == Version::V5;
    let mut flags = u8::from(hello.clean) << 1;
    if let Some((qos, retain, _)) = hello.will {
        flags |= 0x04 | qos << 3 | u8::from(retain) << 5;
    }
    let mut body = [&text("MQTT")[..], &[if five { 5 } else { 4 }, flags, 0, 0]].concat();
    if five {
        body.extend([8, 0x11]);
        body.extend(hello.expiry.to_be_bytes());
        body.push(0x21);
        body.extend(hello.window.max(1).to_be_bytes());
    }
    body.extend(text(&format!("client-{}", hello.client)));
    if let Some((.., delay)) = hello.will {
        if five {
            body.extend([5, 0x18]);
            body.extend(delay.to_be_bytes());
        }
        body.extend(text("iot/t/a"));
        body.extend(text("will"));
    }
    decode_connect(&whole(0x10, &body)).expect("a right CONNECT")
}

pub(super) fn publish(
    version: Version,
    (topic, payload): (&str, &str),
    qos: u8,
    id: u16,
    (dup, retain): (bool, bool),
) -> Incoming {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(payload.as_bytes());
    let first = 0x30 | u8::from(dup && qos > 0) << 3 | qos << 1 | u8::from(retain);
    of(version, first, &body)
}

/// Filters with their options byte.
pub(super) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Incoming {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(if version == Version::V5 {
            *options
        } else {
            options & 3
        });
    }
    of(version, 0x82, &body)
}

pub(super) fn unsubscribe(version: Version, id: u16, filter: &str) -> Incoming {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(text(filter));
    of(version, 0xa2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, by its first byte.
pub(super) fn ack(version: Version, first: u8, id: u16, reason: u8) -> Incoming {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 && reason != 0 {
        body.push(reason);
    }
    of(version, first, &body)
}

pub(super) fn disconnect(version: Version, reason: u8, expiry: Option<u32>) -> Incoming {
    let mut body = Vec::new();
    if version == Version::V5 {
        body.push(reason);
        if let Some(expiry) = expiry {
            body.extend([5, 0x11]);
            body.extend(expiry.to_be_bytes());
        }
    }
    of(version, 0xe0, &body)
}

fn of(version: Version, first: u8, body: &[u8]) -> Incoming {
    match decode(version, &whole(first, body)) {
        Ok(packet) => packet,
        Err(error) => panic!(
            "a right packet is refused: {error} {first:#x} {}",
            body.escape_ascii()
        ),
    }
}
