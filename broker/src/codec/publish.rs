//! PUBLISH and its acknowledgements from clients, by hand: they are most of all packets. Allocates topic, payload and
//! what was given of properties, nothing else.

use bytes::Bytes;
use godwit_wire::proto::stored::{PublishProperties, UserProperty};

use super::read::{Properties, Reader, Value, property};
use super::{DecodeError, kind, reason};
use crate::packet::{Incoming, PacketId, PublishIn, Version};

/// What a client may give with a PUBLISH. A Subscription Identifier is the server's alone (MQTT-3.3.4-6).
const PUBLISH_PROPERTIES: &[u8] = &[
    property::PAYLOAD_FORMAT,
    property::MESSAGE_EXPIRY,
    property::CONTENT_TYPE,
    property::RESPONSE_TOPIC,
    property::CORRELATION_DATA,
    property::TOPIC_ALIAS,
    property::USER,
];

const ACK_PROPERTIES: &[u8] = &[property::REASON_STRING, property::USER];

/// Whether a name holds a wildcard.
pub(super) fn has_wildcard(topic: &str) -> bool {
    topic.bytes().any(|byte| byte == b'+' || byte == b'#')
}

/// A PUBLISH without its fixed header; `flags` are the header's lower four bits.
pub(super) fn decode(version: Version, flags: u8, body: &[u8]) -> Result<Incoming, DecodeError> {
    let (dup, qos, retain) = (flags & 8 != 0, (flags >> 1) & 3, flags & 1 != 0);
    if qos == 3 {
        return Err(DecodeError::malformed("QoS 3"));
    }
    if dup && qos == 0 {
        return Err(DecodeError::malformed("DUP with QoS 0"));
    }
    let mut rest = Reader(body);
    let topic = rest.string()?;
    if has_wildcard(topic) {
        return Err(DecodeError {
            reason: reason::TOPIC_NAME,
            what: "a wildcard in a topic name",
        });
    }
    let packet_id = if qos == 0 { 0 } else { rest.packet_id()? };
    let mut with = WithIt::default();
    if version == Version::V5 {
        with.read(rest.properties(PUBLISH_PROPERTIES)?)?;
    }
    if topic.is_empty() && with.topic_alias.is_none() {
        return Err(DecodeError::protocol("a PUBLISH without a topic"));
    }
    Ok(Incoming::Publish(Box::new(PublishIn {
        topic: topic.into(),
        topic_alias: with.topic_alias,
        payload: Bytes::copy_from_slice(rest.0),
        qos,
        retain,
        dup,
        packet_id,
        message_expiry: with.message_expiry,
        properties: with.properties,
    })))
}

#[derive(Default)]
struct WithIt {
    topic_alias: Option<u16>,
    message_expiry: Option<u32>,
    properties: Option<Box<PublishProperties>>,
}

impl WithIt {
    fn read(&mut self, mut given: Properties<'_>) -> Result<(), DecodeError> {
        while let Some((id, value)) = given.next()? {
            match (id, value) {
                (property::TOPIC_ALIAS, Value::Number(0)) => {
                    return Err(DecodeError {
                        reason: reason::TOPIC_ALIAS,
                        what: "topic alias 0",
                    });
                }
                // Read from two bytes, so it fits.
                (property::TOPIC_ALIAS, Value::Number(alias)) => self.topic_alias = Some(alias as u16),
                (property::MESSAGE_EXPIRY, Value::Number(seconds)) => self.message_expiry = Some(seconds),
                (property::PAYLOAD_FORMAT, Value::Number(format)) => {
                    self.properties.get_or_insert_default().payload_is_utf8 = Some(format == 1);
                }
                // An empty one is the same as none in what is stored.
                (property::CONTENT_TYPE, Value::Text("")) => {}
                (property::CONTENT_TYPE, Value::Text(text)) => {
                    self.properties.get_or_insert_default().content_type = text.into();
                }
                (property::RESPONSE_TOPIC, Value::Text(text)) => {
                    if text.is_empty() || has_wildcard(text) {
                        return Err(DecodeError::protocol("a response topic that is no topic name"));
                    }
                    self.properties.get_or_insert_default().response_topic = text.into();
                }
                (property::CORRELATION_DATA, Value::Binary(data)) => {
                    self.properties.get_or_insert_default().correlation_data =
                        Some(Bytes::copy_from_slice(data));
                }
                (property::USER, Value::Pair(name, value)) => {
                    let pair = UserProperty {
                        name: name.into(),
                        value: value.into(),
                    };
                    self.properties.get_or_insert_default().user_properties.push(pair);
                }
                _ => return Err(DecodeError::malformed("a property of another type")),
            }
        }
        Ok(())
    }
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP without its fixed header: identifier and reason code.
pub(super) fn decode_ack(version: Version, kind: u8, body: &[u8]) -> Result<(PacketId, u8), DecodeError> {
    let mut rest = Reader(body);
    let id = rest.packet_id()?;
    if rest.0.is_empty() {
        return Ok((id, 0));
    }
    if version == Version::V311 {
        return Err(DecodeError::malformed(
            "an acknowledgement of more than two bytes",
        ));
    }
    let code = rest.byte()?;
    let known = match kind {
        kind::PUBACK | kind::PUBREC => {
            matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        _ => matches!(code, 0 | 0x92),
    };
    if !known {
        return Err(DecodeError::malformed("an unknown reason code"));
    }
    if !rest.0.is_empty() {
        let mut properties = rest.properties(ACK_PROPERTIES)?;
        while properties.next()?.is_some() {}
        if !rest.0.is_empty() {
            return Err(DecodeError::malformed("bytes after the end of a packet"));
        }
    }
    Ok((id, code))
}
