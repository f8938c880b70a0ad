//! Packets to clients, appended to the bytes that a connection is about to write. PUBLISH by
//! hand, acknowledgements in `acks`, the rest by the codec crate. Keeps within what the client said in CONNECT.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use godwit_wire::proto::stored::PublishProperties;
use rmqtt_codec::{types, v3, v5};
use tokio_util::codec::Encoder as _;

use super::acks::encode_ack;
use super::read::property;
use super::why::why;
use super::{kind, reason};
use crate::packet::{Auth, Connack, Outgoing, PacketId, PublishOut, UserProperties, Version};

/// What a client said in CONNECT about what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Version.
    pub(crate) version: Version,
    /// Maximum Packet Size, bytes.
    pub(crate) max: u32,
    /// Request Problem Information: whether acknowledgements may carry properties.
    pub(crate) problem_information: bool,
}

impl Peer {
    /// A client of which no more is known.
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            max: u32::MAX,
            problem_information: true,
        }
    }
}

/// The Topic Alias of a PUBLISH to a client (3.3.2.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    /// Not 0.
    pub(crate) number: u16,
    /// The topic name comes along: the alias stands for it from now on.
    pub(crate) with_topic: bool,
}

/// Most bytes of a remaining length (2.1.4).
const LONGEST: usize = 268_435_455;

/// Appends a packet. `false`, and nothing appended, if it is larger than the client takes; acknowledgements are then
/// sent without their properties instead. A DISCONNECT to a 3.1.1 client is nothing.
pub(crate) fn encode(peer: Peer, packet: &Outgoing, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    match packet {
        Outgoing::Publish(publish) => return encode_publish(peer, publish, None, out),
        Outgoing::Puback(ack) => encode_ack(peer, kind::PUBACK << 4, ack, out),
        Outgoing::Pubrec(ack) => encode_ack(peer, kind::PUBREC << 4, ack, out),
        Outgoing::Pubrel(ack) => encode_ack(peer, (kind::PUBREL << 4) | 2, ack, out),
        Outgoing::Pubcomp(ack) => encode_ack(peer, kind::PUBCOMP << 4, ack, out),
        Outgoing::Pingresp => out.extend_from_slice(&[kind::PINGRESP << 4, 0]),
        Outgoing::Connack(connack) => encode_connack(peer, connack, out),
        Outgoing::Auth(auth) => encode_auth(auth, out),
        Outgoing::Suback(id, codes) => encode_suback(peer, *id, codes, out),
        Outgoing::Unsuback(id, codes) => encode_unsuback(peer, *id, codes, out),
        Outgoing::Disconnect(reason, properties) => encode_disconnect(peer, *reason, properties, None, out),
        Outgoing::Elsewhere(server) => {
            encode_disconnect(peer, reason::USE_ANOTHER_SERVER, &Vec::new(), Some(server), out);
        }
    }
    let fits = out.len() - start <= peer.max as usize;
    if !fits {
        out.truncate(start);
    }
    fits
}

pub(super) fn put_two(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Text or bytes with their length. What is over 65,535 bytes cannot have come from a client; it is cut.
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    // Cut to what fits.
    put_two(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

pub(super) fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        // The lower seven bits.
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn variable_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

pub(super) fn binary_len(bytes: &[u8]) -> usize {
    2 + bytes.len().min(usize::from(u16::MAX))
}

/// Appends a PUBLISH, to a client of MQTT 5 with an alias. `false`, and nothing appended, if it is larger than the client
/// takes.
pub(crate) fn encode_publish(
    peer: Peer,
    publish: &PublishOut,
    alias: Option<Alias>,
    out: &mut Vec<u8>,
) -> bool {
    let v5 = peer.version == Version::V5;
    let topic = match alias {
        Some(alias) if !alias.with_topic => &[],
        _ => publish.topic.as_bytes(),
    };
    let properties = match v5 {
        true => publish_properties_len(publish) + if alias.is_some() { 3 } else { 0 },
        false => 0,
    };
    let remaining = binary_len(topic)
        + if publish.qos > 0 { 2 } else { 0 }
        + if v5 {
            variable_len(properties) + properties
        } else {
            0
        }
        + publish.payload.len();
    let whole = 1 + variable_len(remaining) + remaining;
    if remaining > LONGEST || whole > peer.max as usize {
        return false;
    }
    out.reserve(whole);
    let flags = (u8::from(publish.dup) << 3) | (publish.qos << 1) | u8::from(publish.retain);
    out.push((kind::PUBLISH << 4) | flags);
    put_variable(out, remaining);
    put_binary(out, topic);
    if publish.qos > 0 {
        put_two(out, publish.packet_id);
    }
    if v5 {
        put_variable(out, properties);
        if let Some(alias) = alias {
            out.push(property::TOPIC_ALIAS);
            put_two(out, alias.number);
        }
        put_publish_properties(publish, out);
    }
    out.extend_from_slice(&publish.payload);
    true
}

fn publish_properties_len(publish: &PublishOut) -> usize {
    let ids = publish
        .subscription_ids
        .iter()
        .map(|id| 1 + variable_len(*id as usize))
        .sum::<usize>();
    let expiry = if publish.message_expiry.is_some() { 5 } else { 0 };
    ids + expiry + publish.properties.as_deref().map_or(0, carried_len)
}

fn carried_len(carried: &PublishProperties) -> usize {
    let text = |text: &str| {
        if text.is_empty() {
            0
        } else {
            1 + binary_len(text.as_bytes())
        }
    };
    let pairs = carried.user_properties.iter();
    let pairs = pairs.map(|pair| 1 + binary_len(pair.name.as_bytes()) + binary_len(pair.value.as_bytes()));
    (if carried.payload_is_utf8.is_some() { 2 } else { 0 })
        + text(&carried.content_type)
        + text(&carried.response_topic)
        + carried
            .correlation_data
            .as_ref()
            .map_or(0, |data| 1 + binary_len(data))
        + pairs.sum::<usize>()
}

fn put_publish_properties(publish: &PublishOut, out: &mut Vec<u8>) {
    if let Some(seconds) = publish.message_expiry {
        out.push(property::MESSAGE_EXPIRY);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    for id in &publish.subscription_ids {
        out.push(property::SUBSCRIPTION_ID);
        put_variable(out, *id as usize);
    }
    let Some(carried) = publish.properties.as_deref() else {
        return;
    };
    if let Some(utf8) = carried.payload_is_utf8 {
        out.extend_from_slice(&[property::PAYLOAD_FORMAT, u8::from(utf8)]);
    }
    if !carried.content_type.is_empty() {
        out.push(property::CONTENT_TYPE);
        put_binary(out, carried.content_type.as_bytes());
    }
    if !carried.response_topic.is_empty() {
        out.push(property::RESPONSE_TOPIC);
        put_binary(out, carried.response_topic.as_bytes());
    }
    if let Some(data) = &carried.correlation_data {
        out.push(property::CORRELATION_DATA);
        put_binary(out, data);
    }
    for pair in &carried.user_properties {
        out.push(property::USER);
        put_binary(out, pair.name.as_bytes());
        put_binary(out, pair.value.as_bytes());
    }
}

fn encode_connack(peer: Peer, connack: &Connack, out: &mut Vec<u8>) {
    if peer.version == Version::V311 {
        let session_present = u8::from(connack.session_present && connack.reason == 0);
        out.extend_from_slice(&[0x20, 2, session_present, v3_return_code(connack.reason)]);
        return;
    }
    let ok = connack.reason == 0;
    let reason_code = connack
        .reason
        .try_into()
        .unwrap_or(v5::ConnectAckReason::UnspecifiedError);
    let given = v5::ConnectAck {
        session_present: connack.session_present && ok,
        reason_code,
        session_expiry_interval_secs: connack.session_expiry,
        receive_max: connack
            .receive_maximum
            .try_into()
            .unwrap_or(std::num::NonZeroU16::MAX),
        max_packet_size: (connack.maximum_packet_size > 0).then_some(connack.maximum_packet_size),
        assigned_client_id: connack.assigned_client_id.as_deref().map(ByteString::from),
        topic_alias_max: connack.topic_alias_maximum,
        shared_subscription_available: connack.shared_subscriptions || !ok,
        server_keepalive_sec: connack.server_keep_alive,
        auth_method: connack
            .authentication
            .as_ref()
            .map(|(method, _)| ByteString::from_static(method)),
        auth_data: connack.authentication.as_ref().and_then(|(_, data)| some(data)),
        max_qos: connack
            .maximum_qos
            .and_then(|qos| qos.try_into().ok())
            .unwrap_or(types::QoS::ExactlyOnce),
        server_reference: connack.server_reference.as_deref().map(ByteString::from),
        ..v5::ConnectAck::default()
    };
    let start = out.len();
    if let Some(why) = connack
        .reason_string
        .or(why(connack.reason))
        .filter(|_| peer.problem_information)
    {
        let told = v5::ConnectAck {
            reason_string: Some(ByteString::from_static(why)),
            ..given.clone()
        };
        put_v5(v5::Packet::ConnectAck(Box::new(told)), out);
    }
    if out.len() == start || out.len() - start > peer.max as usize {
        // MQTT-3.2.2-19: the reason is left out where it would make the packet too large.
        out.truncate(start);
        put_v5(v5::Packet::ConnectAck(Box::new(given)), out);
    }
}

/// Only clients of MQTT 5 name a method.
fn encode_auth(auth: &Auth, out: &mut Vec<u8>) {
    let given = v5::Auth {
        reason_code: auth.reason.try_into().unwrap_or(v5::AuthReasonCode::Success),
        auth_method: Some(ByteString::from(&*auth.method)),
        auth_data: some(&auth.data),
        reason_string: None,
        user_properties: Vec::new(),
    };
    put_v5(v5::Packet::Auth(given), out);
}

fn some(data: &Bytes) -> Option<Bytes> {
    (!data.is_empty()).then(|| data.clone())
}

/// The 3.1.1 return code for an MQTT 5 reason code of a CONNACK.
fn v3_return_code(reason: u8) -> u8 {
    match reason {
        0 => 0,
        0x84 => 1,
        0x85 => 2,
        0x86 => 4,
        // A will of a QoS that is not taken is not taken at the next try either.
        0x87 | 0x8A | 0x8C | 0x9A | 0x9B => 5,
        _ => 3,
    }
}

fn encode_suback(peer: Peer, id: PacketId, codes: &[u8], out: &mut Vec<u8>) {
    let Ok(packet_id) = id.try_into() else {
        return;
    };
    match peer.version {
        Version::V311 => {
            let status = codes.iter().map(|code| match types::QoS::try_from(*code) {
                Ok(qos) => v3::SubscribeReturnCode::Success(qos),
                Err(_) => v3::SubscribeReturnCode::Failure,
            });
            put_v3(
                v3::Packet::SubscribeAck {
                    packet_id,
                    status: status.collect(),
                },
                out,
            );
        }
        Version::V5 => {
            let status = codes.iter().map(|code| {
                (*code)
                    .try_into()
                    .unwrap_or(v5::SubscribeAckReason::UnspecifiedError)
            });
            let ack = v5::SubscribeAck {
                packet_id,
                properties: Vec::new(),
                reason_string: None,
                status: status.collect(),
            };
            put_v5(v5::Packet::SubscribeAck(ack), out);
        }
    }
}

fn encode_unsuback(peer: Peer, id: PacketId, codes: &[u8], out: &mut Vec<u8>) {
    let Ok(packet_id) = id.try_into() else {
        return;
    };
    match peer.version {
        Version::V311 => put_v3(v3::Packet::UnsubscribeAck { packet_id }, out),
        Version::V5 => {
            let status = codes.iter().map(|code| {
                (*code)
                    .try_into()
                    .unwrap_or(v5::UnsubscribeAckReason::UnspecifiedError)
            });
            let ack = v5::UnsubscribeAck {
                packet_id,
                properties: Vec::new(),
                reason_string: None,
                status: status.collect(),
            };
            put_v5(v5::Packet::UnsubscribeAck(ack), out);
        }
    }
}

fn encode_disconnect(
    peer: Peer,
    reason: u8,
    properties: &UserProperties,
    server: Option<&str>,
    out: &mut Vec<u8>,
) {
    if peer.version == Version::V311 {
        return;
    }
    let given = v5::Disconnect {
        reason_code: reason
            .try_into()
            .unwrap_or(v5::DisconnectReasonCode::UnspecifiedError),
        session_expiry_interval_secs: None,
        server_reference: server.map(ByteString::from),
        reason_string: why(reason)
            .filter(|_| peer.problem_information)
            .map(ByteString::from_static),
        user_properties: properties
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect(),
    };
    let start = out.len();
    let bare = given.reason_string.is_some().then(|| v5::Disconnect {
        reason_string: None,
        ..given.clone()
    });
    put_v5(v5::Packet::Disconnect(given), out);
    if let Some(bare) = bare.filter(|_| out.len() - start > peer.max as usize) {
        // MQTT-3.14.2-3.
        out.truncate(start);
        put_v5(v5::Packet::Disconnect(bare), out);
    }
}

/// A new codec each time: it remembers a CONNECT, and encoding is rare here.
fn put_v5(packet: v5::Packet, out: &mut Vec<u8>) {
    let mut bytes = BytesMut::new();
    match v5::Codec::new(0, 0).encode(packet, &mut bytes) {
        Ok(()) => out.extend_from_slice(&bytes),
        Err(error) => tracing::error!(?error, "a packet of ours cannot be encoded"),
    }
}

fn put_v3(packet: v3::Packet, out: &mut Vec<u8>) {
    let mut bytes = BytesMut::new();
    match v3::Codec::new(0).encode(packet, &mut bytes) {
        Ok(()) => out.extend_from_slice(&bytes),
        Err(error) => tracing::error!(?error, "a packet of ours cannot be encoded"),
    }
}
