//! The packets that come seldom, decoded by the codec crate after our own checks: CONNECT, SUBSCRIBE, UNSUBSCRIBE,
//! DISCONNECT, AUTH. Converts its types to ours; knows no sockets.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use godwit_wire::proto::stored::{PublishProperties, UserProperty};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::{DecodeError, checks};
use crate::packet::{Connect, FilterIn, Incoming, Version, Will};

/// Whether the frame's sender would understand an MQTT 5 CONNACK: what a refused CONNECT is answered in. `None` if it
/// is no CONNECT of any MQTT.
pub(crate) fn answer_version(frame: &[u8]) -> Option<Version> {
    match checks::version(frame) {
        Ok(version) => Some(version),
        Err(error) if error.reason == super::reason::UNSUPPORTED_VERSION => {
            // A later version is answered in MQTT 5, an earlier one in 3.1.1.
            let later = matches!(super::body(frame), [0, 4, _, _, _, _, 6..0x80, ..]);
            Some(if later { Version::V5 } else { Version::V311 })
        }
        Err(_) => None,
    }
}

/// Decodes a whole CONNECT frame.
pub(crate) fn decode_connect(frame: &[u8]) -> Result<Box<Connect>, DecodeError> {
    let checked = checks::connect(frame)?;
    let mut copy = BytesMut::from(frame);
    if let Some(flags) = checked.pretend_clean.and_then(|at| copy.get_mut(at)) {
        *flags |= 0x02;
    }
    if let Some(last) = checked.zero_expiry.and_then(|at| copy.get_mut(at + 3)) {
        *last = 1;
    }
    let mut connect = match checked.version {
        Version::V311 => connect_v3(copy)?,
        Version::V5 => connect_v5(copy)?,
    };
    if checked.pretend_clean.is_some() {
        connect.clean_start = false;
    }
    if let (Some(_), Some(will)) = (checked.zero_expiry, &mut connect.will) {
        will.message_expiry = Some(0);
    }
    Ok(connect)
}

fn connect_v3(mut frame: BytesMut) -> Result<Box<Connect>, DecodeError> {
    let v3::Packet::Connect(given) = whole_v3(&mut frame)? else {
        return Err(OTHER);
    };
    Ok(Box::new(Connect {
        version: Version::V311,
        client_id: text(&given.client_id),
        client_id_assigned: false,
        clean_start: given.clean_session,
        keep_alive: given.keep_alive,
        session_expiry: if given.clean_session { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        maximum_packet_size: u32::MAX,
        topic_alias_maximum: 0,
        request_problem_information: true,
        will: given.last_will.map(|will| {
            Box::new(Will {
                topic: text(&will.topic),
                payload: copy(&will.message),
                qos: will.qos.value(),
                retain: will.retain,
                delay: 0,
                message_expiry: None,
                properties: None,
            })
        }),
        username: given.username.as_ref().map(text),
        password: given.password.as_ref().map(copy),
        authentication_method: None,
        authentication_data: None,
    }))
}

fn connect_v5(mut frame: BytesMut) -> Result<Box<Connect>, DecodeError> {
    let v5::Packet::Connect(given) = whole_v5(&mut frame)? else {
        return Err(OTHER);
    };
    Ok(Box::new(Connect {
        version: Version::V5,
        client_id: text(&given.client_id),
        client_id_assigned: false,
        clean_start: given.clean_start,
        keep_alive: given.keep_alive,
        session_expiry: given.session_expiry_interval_secs,
        receive_maximum: given.receive_max.map_or(u16::MAX, Into::into),
        maximum_packet_size: given.max_packet_size.map_or(u32::MAX, Into::into),
        topic_alias_maximum: given.topic_alias_max,
        request_problem_information: given.request_problem_info,
        username: given.username.as_ref().map(text),
        password: given.password.as_ref().map(copy),
        authentication_method: given.auth_method.as_ref().map(text),
        authentication_data: given.auth_data.as_ref().map(copy),
        will: given.last_will.map(|will| Box::new(will_v5(&will))),
    }))
}

fn will_v5(will: &v5::LastWill) -> Will {
    let properties = PublishProperties {
        payload_is_utf8: will.is_utf8_payload,
        response_topic: will.response_topic.as_deref().unwrap_or_default().to_owned(),
        correlation_data: will.correlation_data.as_ref().map(copy),
        user_properties: will
            .user_properties
            .iter()
            .map(|(name, value)| UserProperty {
                name: name.to_string(),
                value: value.to_string(),
            })
            .collect(),
        content_type: will.content_type.as_deref().unwrap_or_default().to_owned(),
    };
    Will {
        topic: text(&will.topic),
        payload: copy(&will.message),
        qos: will.qos.value(),
        retain: will.retain,
        delay: will.will_delay_interval_sec.unwrap_or(0),
        message_expiry: will.message_expiry_interval.map(Into::into),
        properties: (properties != PublishProperties::default()).then(|| Box::new(properties)),
    }
}

/// Decodes a whole SUBSCRIBE frame.
pub(super) fn decode_subscribe(version: Version, frame: &[u8]) -> Result<Incoming, DecodeError> {
    checks::subscribe(version, frame)?;
    let mut copy = BytesMut::from(frame);
    match version {
        Version::V311 => {
            let v3::Packet::Subscribe {
                packet_id,
                topic_filters,
            } = whole_v3(&mut copy)?
            else {
                return Err(OTHER);
            };
            let filter = |(filter, qos): &(ByteString, rmqtt_codec::types::QoS)| FilterIn {
                filter: text(filter),
                qos: qos.value(),
                no_local: false,
                retain_as_published: false,
                retain_handling: 0,
            };
            let filters = topic_filters.iter().map(filter).collect();
            Ok(Incoming::Subscribe {
                packet_id: packet_id.get(),
                filters,
                subscription_id: None,
            })
        }
        Version::V5 => {
            let v5::Packet::Subscribe(given) = whole_v5(&mut copy)? else {
                return Err(OTHER);
            };
            let filter = |(filter, options): &(ByteString, v5::SubscriptionOptions)| FilterIn {
                filter: text(filter),
                qos: options.qos.value(),
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                retain_handling: options.retain_handling.into(),
            };
            Ok(Incoming::Subscribe {
                packet_id: given.packet_id.get(),
                filters: given.topic_filters.iter().map(filter).collect(),
                subscription_id: given.id.map(Into::into),
            })
        }
    }
}

/// Decodes a whole UNSUBSCRIBE frame.
pub(super) fn decode_unsubscribe(version: Version, frame: &[u8]) -> Result<Incoming, DecodeError> {
    checks::unsubscribe(version, frame)?;
    let mut copy = BytesMut::from(frame);
    let (packet_id, filters) = match version {
        Version::V311 => match whole_v3(&mut copy)? {
            v3::Packet::Unsubscribe {
                packet_id,
                topic_filters,
            } => (packet_id, topic_filters),
            _ => return Err(OTHER),
        },
        Version::V5 => match whole_v5(&mut copy)? {
            v5::Packet::Unsubscribe(given) => (given.packet_id, given.topic_filters),
            _ => return Err(OTHER),
        },
    };
    Ok(Incoming::Unsubscribe {
        packet_id: packet_id.get(),
        filters: filters.iter().map(text).collect(),
    })
}

/// Decodes a whole DISCONNECT frame.
pub(super) fn decode_disconnect(version: Version, frame: &[u8]) -> Result<Incoming, DecodeError> {
    checks::disconnect(version, frame)?;
    if version == Version::V311 {
        return Ok(Incoming::Disconnect {
            reason: 0,
            session_expiry: None,
        });
    }
    let v5::Packet::Disconnect(given) = whole_v5(&mut BytesMut::from(frame))? else {
        return Err(OTHER);
    };
    Ok(Incoming::Disconnect {
        reason: given.reason_code.into(),
        session_expiry: given.session_expiry_interval_secs,
    })
}

/// Decodes a whole AUTH frame of MQTT 5.
pub(super) fn decode_auth(frame: &[u8]) -> Result<Incoming, DecodeError> {
    checks::auth(frame).map(|auth| Incoming::Auth(Box::new(auth)))
}

const OTHER: DecodeError = DecodeError::malformed("a packet of another type than its header says");
const CUT: DecodeError = DecodeError::malformed("a packet that ends too early");

fn whole_v3(frame: &mut BytesMut) -> Result<v3::Packet, DecodeError> {
    match v3::Codec::new(0).decode(frame) {
        Ok(Some((packet, _))) => Ok(packet),
        Ok(None) => Err(CUT),
        Err(error) => Err(refused(&error)),
    }
}

fn whole_v5(frame: &mut BytesMut) -> Result<v5::Packet, DecodeError> {
    match v5::Codec::new(0, 0).decode(frame) {
        Ok(Some((packet, _))) => Ok(packet),
        Ok(None) => Err(CUT),
        Err(error) => Err(refused(&error)),
    }
}

/// What our checks let through and the crate does not.
fn refused(error: &rmqtt_codec::error::DecodeError) -> DecodeError {
    use rmqtt_codec::error::DecodeError as E;
    match error {
        E::InvalidTopicFilter | E::InvalidTopicName => DecodeError::protocol("a topic of no characters"),
        E::InvalidClientId => DecodeError {
            reason: super::reason::CLIENT_ID,
            what: "a client id",
        },
        _ => DecodeError::malformed("a packet that the codec refuses"),
    }
}

/// Copied, so that a short string does not keep the whole packet alive.
fn text(text: &ByteString) -> Box<str> {
    let text: &str = text;
    text.into()
}

fn copy(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
