//! The packets that come once or seldom: CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH.

use bytes::Bytes;
use godwit_wire::proto::stored::{PublishProperties, UserProperty};

use super::publish::has_wildcard;
use super::read::{Properties, Reader, Value, property};
use super::{DecodeError, body, reason};
use crate::packet::{Connect, FilterIn, Incoming, Version, Will};

const CONNECT_PROPERTIES: &[u8] = &[
    property::SESSION_EXPIRY,
    property::RECEIVE_MAXIMUM,
    property::MAXIMUM_PACKET_SIZE,
    property::TOPIC_ALIAS_MAXIMUM,
    property::REQUEST_RESPONSE,
    property::REQUEST_PROBLEM,
    property::USER,
    property::AUTH_METHOD,
    property::AUTH_DATA,
];

const WILL_PROPERTIES: &[u8] = &[
    property::WILL_DELAY,
    property::PAYLOAD_FORMAT,
    property::MESSAGE_EXPIRY,
    property::CONTENT_TYPE,
    property::RESPONSE_TOPIC,
    property::CORRELATION_DATA,
    property::USER,
];

/// A whole CONNECT frame (3.1).
pub(crate) fn decode_connect(frame: &[u8]) -> Result<Box<Connect>, DecodeError> {
    if frame.first() != Some(&0x10) {
        return Err(DecodeError::malformed("reserved flags of the fixed header"));
    }
    let mut rest = Reader(body(frame));
    let unsupported = DecodeError {
        reason: reason::UNSUPPORTED_VERSION,
        what: "a protocol name or version not served",
    };
    let name = rest.binary()?;
    let level = rest.byte()?;
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        _ => return Err(unsupported),
    };
    let flags = rest.byte()?;
    let (will, will_qos, will_retain) = (flags & 4 != 0, (flags >> 3) & 3, flags & 0x20 != 0);
    let (has_password, has_name) = (flags & 0x40 != 0, flags & 0x80 != 0);
    if flags & 1 != 0 {
        return Err(DecodeError::malformed("the reserved flag of CONNECT"));
    }
    if will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
        return Err(DecodeError::malformed("will flags that contradict each other"));
    }
    if version == Version::V311 && has_password && !has_name {
        return Err(DecodeError::malformed("a password without a user name"));
    }
    let clean_start = flags & 2 != 0;
    let keep_alive = rest.two()?;
    let mut connect = Connect {
        version,
        client_id: "".into(),
        client_id_assigned: false,
        clean_start,
        keep_alive,
        session_expiry: if version == Version::V311 && !clean_start {
            u32::MAX
        } else {
            0
        },
        receive_maximum: u16::MAX,
        maximum_packet_size: u32::MAX,
        topic_alias_maximum: 0,
        request_problem_information: true,
        will: None,
        username: None,
        password: None,
        authentication_method: None,
    };
    if version == Version::V5 {
        connect_properties(&mut connect, rest.properties(CONNECT_PROPERTIES)?)?;
    }
    connect.client_id = rest.string()?.into();
    if will {
        connect.will = Some(Box::new(decode_will(version, &mut rest, will_qos, will_retain)?));
    }
    if has_name {
        connect.username = Some(rest.string()?.into());
    }
    if has_password {
        connect.password = Some(Bytes::copy_from_slice(rest.binary()?));
    }
    if !rest.0.is_empty() {
        return Err(DecodeError::malformed("bytes after the end of a packet"));
    }
    Ok(Box::new(connect))
}

fn connect_properties(connect: &mut Connect, mut given: Properties<'_>) -> Result<(), DecodeError> {
    let mut auth_data = false;
    while let Some((id, value)) = given.next()? {
        match (id, value) {
            (property::SESSION_EXPIRY, Value::Number(seconds)) => connect.session_expiry = seconds,
            (property::RECEIVE_MAXIMUM, Value::Number(0)) => {
                return Err(DecodeError::protocol("receive maximum 0"));
            }
            // Read from two bytes, so it fits.
            (property::RECEIVE_MAXIMUM, Value::Number(most)) => connect.receive_maximum = most as u16,
            (property::MAXIMUM_PACKET_SIZE, Value::Number(0)) => {
                return Err(DecodeError::protocol("maximum packet size 0"));
            }
            (property::MAXIMUM_PACKET_SIZE, Value::Number(size)) => connect.maximum_packet_size = size,
            (property::TOPIC_ALIAS_MAXIMUM, Value::Number(most)) => connect.topic_alias_maximum = most as u16,
            (property::REQUEST_PROBLEM, Value::Number(flag)) => {
                connect.request_problem_information = flag == 1
            }
            (property::AUTH_METHOD, Value::Text(method)) => {
                connect.authentication_method = Some(method.into())
            }
            (property::AUTH_DATA, _) => auth_data = true,
            _ => {}
        }
    }
    if auth_data && connect.authentication_method.is_none() {
        return Err(DecodeError::protocol("authentication data without a method"));
    }
    Ok(())
}

fn decode_will(version: Version, rest: &mut Reader<'_>, qos: u8, retain: bool) -> Result<Will, DecodeError> {
    let mut will = Will {
        topic: "".into(),
        payload: Bytes::new(),
        qos,
        retain,
        delay: 0,
        message_expiry: None,
        properties: None,
    };
    if version == Version::V5 {
        let mut properties = PublishProperties::default();
        let mut any = false;
        let mut given = rest.properties(WILL_PROPERTIES)?;
        while let Some((id, value)) = given.next()? {
            any |= !matches!(id, property::WILL_DELAY | property::MESSAGE_EXPIRY);
            match (id, value) {
                (property::WILL_DELAY, Value::Number(seconds)) => will.delay = seconds,
                (property::MESSAGE_EXPIRY, Value::Number(seconds)) => will.message_expiry = Some(seconds),
                (property::PAYLOAD_FORMAT, Value::Number(format)) => {
                    properties.payload_is_utf8 = Some(format == 1)
                }
                (property::CONTENT_TYPE, Value::Text(text)) => properties.content_type = text.into(),
                (property::RESPONSE_TOPIC, Value::Text(text)) => {
                    if text.is_empty() || has_wildcard(text) {
                        return Err(DecodeError::protocol("a response topic that is no topic name"));
                    }
                    properties.response_topic = text.into();
                }
                (property::CORRELATION_DATA, Value::Binary(data)) => {
                    properties.correlation_data = Some(data.to_vec().into());
                }
                (property::USER, Value::Pair(name, value)) => {
                    let pair = UserProperty {
                        name: name.into(),
                        value: value.into(),
                    };
                    properties.user_properties.push(pair);
                }
                _ => {}
            }
        }
        will.properties = any.then(|| Box::new(properties));
    }
    will.topic = rest.string()?.into();
    if will.topic.is_empty() || has_wildcard(&will.topic) {
        return Err(DecodeError {
            reason: reason::TOPIC_NAME,
            what: "a will's topic that is no topic name",
        });
    }
    will.payload = Bytes::copy_from_slice(rest.binary()?);
    Ok(will)
}

pub(crate) fn decode_subscribe(version: Version, frame: &[u8]) -> Result<Incoming, DecodeError> {
    let mut rest = Reader(body(frame));
    let packet_id = rest.packet_id()?;
    let mut subscription_id = None;
    if version == Version::V5 {
        let mut given = rest.properties(&[property::SUBSCRIPTION_ID, property::USER])?;
        while let Some((id, value)) = given.next()? {
            match (id, value) {
                (property::SUBSCRIPTION_ID, Value::Number(0)) => {
                    return Err(DecodeError::protocol("subscription identifier 0"));
                }
                (property::SUBSCRIPTION_ID, Value::Number(number)) => subscription_id = Some(number),
                _ => {}
            }
        }
    }
    let mut filters = Vec::new();
    while !rest.0.is_empty() {
        let filter = rest.string()?;
        let options = rest.byte()?;
        let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
        if options & reserved != 0 || options & 3 == 3 {
            return Err(DecodeError::malformed("subscription options that do not exist"));
        }
        let retain_handling = (options >> 4) & 3;
        if retain_handling == 3 {
            return Err(DecodeError::protocol("retain handling 3"));
        }
        filters.push(FilterIn {
            filter: filter.into(),
            qos: options & 3,
            no_local: options & 4 != 0,
            retain_as_published: options & 8 != 0,
            retain_handling,
        });
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("a SUBSCRIBE without a filter"));
    }
    Ok(Incoming::Subscribe {
        packet_id,
        filters,
        subscription_id,
    })
}

pub(crate) fn decode_unsubscribe(version: Version, frame: &[u8]) -> Result<Incoming, DecodeError> {
    let mut rest = Reader(body(frame));
    let packet_id = rest.packet_id()?;
    if version == Version::V5 {
        let mut given = rest.properties(&[property::USER])?;
        while given.next()?.is_some() {}
    }
    let mut filters: Vec<Box<str>> = Vec::new();
    while !rest.0.is_empty() {
        filters.push(rest.string()?.into());
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("an UNSUBSCRIBE without a filter"));
    }
    Ok(Incoming::Unsubscribe { packet_id, filters })
}

pub(crate) fn decode_disconnect(version: Version, frame: &[u8]) -> Result<Incoming, DecodeError> {
    let mut rest = Reader(body(frame));
    let (mut reason, mut session_expiry) = (0, None);
    if version == Version::V311 {
        if !rest.0.is_empty() {
            return Err(DecodeError::malformed("a DISCONNECT with a body"));
        }
        return Ok(Incoming::Disconnect {
            reason,
            session_expiry,
        });
    }
    if !rest.0.is_empty() {
        reason = rest.byte()?;
        if !rest.0.is_empty() {
            let mut given =
                rest.properties(&[property::SESSION_EXPIRY, property::REASON_STRING, property::USER])?;
            while let Some((id, value)) = given.next()? {
                if let (property::SESSION_EXPIRY, Value::Number(seconds)) = (id, value) {
                    session_expiry = Some(seconds);
                }
            }
        }
        if !rest.0.is_empty() {
            return Err(DecodeError::malformed("bytes after the end of a packet"));
        }
    }
    Ok(Incoming::Disconnect {
        reason,
        session_expiry,
    })
}

pub(crate) fn decode_auth(_frame: &[u8]) -> Result<Incoming, DecodeError> {
    Ok(Incoming::Auth)
}
