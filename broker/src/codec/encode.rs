//! Packets to bytes, by hand into the caller's buffer. PUBLISH and the acknowledgements are the hot ones.

use super::kind;
use super::read::property;
use crate::packet::{Ack, Connack, Outgoing, PublishOut, UserProperties, Version};

/// Appends the packet. `problems`: whether reason strings and user properties may be told on failures (MQTT 5,
/// Request Problem Information). DISCONNECT is nothing in 3.1.1.
pub(crate) fn encode(version: Version, problems: bool, packet: &Outgoing, out: &mut Vec<u8>) {
    match packet {
        Outgoing::Publish(publish) => encode_publish(version, publish, out),
        Outgoing::Puback(ack) => encode_ack(version, problems, kind::PUBACK << 4, ack, out),
        Outgoing::Pubrec(ack) => encode_ack(version, problems, kind::PUBREC << 4, ack, out),
        Outgoing::Pubrel(ack) => encode_ack(version, problems, kind::PUBREL << 4 | 2, ack, out),
        Outgoing::Pubcomp(ack) => encode_ack(version, problems, kind::PUBCOMP << 4, ack, out),
        Outgoing::Pingresp => out.extend_from_slice(&[kind::PINGRESP << 4, 0]),
        Outgoing::Suback(id, codes) => {
            let codes = codes.iter().map(|code| {
                if version == Version::V311 && *code > 2 {
                    0x80
                } else {
                    *code
                }
            });
            framed(out, 9 << 4, |out| {
                out.extend_from_slice(&id.to_be_bytes());
                if version == Version::V5 {
                    out.push(0);
                }
                out.extend(codes);
            });
        }
        Outgoing::Unsuback(id, codes) => framed(out, 11 << 4, |out| {
            out.extend_from_slice(&id.to_be_bytes());
            if version == Version::V5 {
                out.push(0);
                out.extend_from_slice(codes);
            }
        }),
        Outgoing::Connack(connack) => encode_connack(version, connack, out),
        Outgoing::Disconnect(..) if version == Version::V311 => {}
        Outgoing::Disconnect(reason, properties) => framed(out, kind::DISCONNECT << 4, |out| {
            out.push(*reason);
            property_block(out, |out| users(out, properties));
        }),
    }
}

fn variable(mut value: usize, out: &mut Vec<u8>) {
    loop {
        // Seven bits.
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn framed(out: &mut Vec<u8>, first: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(first);
    let start = out.len();
    write(out);
    let mut length = Vec::with_capacity(4);
    variable(out.len() - start, &mut length);
    out.splice(start..start, length);
}

fn property_block(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let mut length = Vec::with_capacity(4);
    variable(out.len() - start, &mut length);
    out.splice(start..start, length);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    // What came in had 16-bit lengths; our own texts are short.
    let len = text.len().min(usize::from(u16::MAX));
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(&text[..len]);
}

fn users(out: &mut Vec<u8>, properties: &UserProperties) {
    for (name, value) in properties {
        out.push(property::USER);
        string(out, name.as_bytes());
        string(out, value.as_bytes());
    }
}

fn encode_ack(version: Version, problems: bool, first: u8, ack: &Ack, out: &mut Vec<u8>) {
    let tell = version == Version::V5 && !ack.properties.is_empty() && (problems || ack.reason < 0x80);
    let id = ack.packet_id.to_be_bytes();
    if tell {
        framed(out, first, |out| {
            out.extend_from_slice(&id);
            out.push(ack.reason);
            property_block(out, |out| users(out, &ack.properties));
        });
    } else if version == Version::V5 && ack.reason != 0 {
        out.extend_from_slice(&[first, 3, id[0], id[1], ack.reason]);
    } else {
        out.extend_from_slice(&[first, 2, id[0], id[1]]);
    }
}

fn encode_publish(version: Version, publish: &PublishOut, out: &mut Vec<u8>) {
    let first = kind::PUBLISH << 4 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    let mut properties = Vec::new();
    if version == Version::V5 {
        publish_properties(publish, &mut properties);
    }
    let mut length = 2 + publish.topic.len() + publish.payload.len() + if publish.qos > 0 { 2 } else { 0 };
    let mut property_length = Vec::new();
    if version == Version::V5 {
        variable(properties.len(), &mut property_length);
        length += property_length.len() + properties.len();
    }
    out.reserve(length + 5);
    out.push(first);
    variable(length, out);
    string(out, publish.topic.as_bytes());
    if publish.qos > 0 {
        out.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    out.extend_from_slice(&property_length);
    out.extend_from_slice(&properties);
    out.extend_from_slice(&publish.payload);
}

fn publish_properties(publish: &PublishOut, out: &mut Vec<u8>) {
    if let Some(seconds) = publish.message_expiry {
        out.push(property::MESSAGE_EXPIRY);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    for id in &publish.subscription_ids {
        out.push(property::SUBSCRIPTION_ID);
        variable(*id as usize, out);
    }
    let Some(with) = publish.properties.as_deref() else {
        return;
    };
    if let Some(utf8) = with.payload_is_utf8 {
        out.extend_from_slice(&[property::PAYLOAD_FORMAT, u8::from(utf8)]);
    }
    if !with.content_type.is_empty() {
        out.push(property::CONTENT_TYPE);
        string(out, with.content_type.as_bytes());
    }
    if !with.response_topic.is_empty() {
        out.push(property::RESPONSE_TOPIC);
        string(out, with.response_topic.as_bytes());
    }
    if let Some(data) = &with.correlation_data {
        out.push(property::CORRELATION_DATA);
        string(out, data);
    }
    for pair in &with.user_properties {
        out.push(property::USER);
        string(out, pair.name.as_bytes());
        string(out, pair.value.as_bytes());
    }
}

fn encode_connack(version: Version, connack: &Connack, out: &mut Vec<u8>) {
    let present = u8::from(connack.session_present && connack.reason == 0);
    if version == Version::V311 {
        let code = match connack.reason {
            0 => 0,
            0x84 => 1,
            0x85 => 2,
            0x86 => 4,
            0x87 => 5,
            _ => 3,
        };
        out.extend_from_slice(&[0x20, 2, present, code]);
        return;
    }
    framed(out, 0x20, |out| {
        out.extend_from_slice(&[present, connack.reason]);
        property_block(out, |out| connack_properties(connack, out));
    });
}

fn connack_properties(connack: &Connack, out: &mut Vec<u8>) {
    if let Some(text) = connack.reason_string {
        out.push(property::REASON_STRING);
        string(out, text.as_bytes());
    }
    if connack.reason != 0 {
        return;
    }
    if let Some(seconds) = connack.session_expiry {
        out.push(property::SESSION_EXPIRY);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    out.push(property::RECEIVE_MAXIMUM);
    out.extend_from_slice(&connack.receive_maximum.max(1).to_be_bytes());
    out.push(property::MAXIMUM_PACKET_SIZE);
    out.extend_from_slice(&connack.maximum_packet_size.max(1).to_be_bytes());
    if let Some(id) = &connack.assigned_client_id {
        out.push(0x12);
        string(out, id.as_bytes());
    }
    if let Some(seconds) = connack.server_keep_alive {
        out.push(0x13);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    if connack.topic_alias_maximum > 0 {
        out.push(property::TOPIC_ALIAS_MAXIMUM);
        out.extend_from_slice(&connack.topic_alias_maximum.to_be_bytes());
    }
    // Shared Subscription Available.
    out.extend_from_slice(&[0x2a, u8::from(connack.shared_subscriptions)]);
}
