//! What the codec crate accepts and MQTT does not, on the packets that it decodes for us, and the two legal forms that
//! it refuses, which it is given changed. Works on the raw frame.

use bytes::Bytes;

use super::publish::has_wildcard;
use super::read::{Properties, Reader, Value, property};
use super::{DecodeError, body, reason};
use crate::packet::{Auth, Version};

const CONNECT_PROPERTIES: &[u8] = &[
    property::SESSION_EXPIRY,
    property::AUTH_METHOD,
    property::AUTH_DATA,
    property::REQUEST_PROBLEM,
    property::REQUEST_RESPONSE,
    property::RECEIVE_MAXIMUM,
    property::TOPIC_ALIAS_MAXIMUM,
    property::USER,
    property::MAXIMUM_PACKET_SIZE,
];

const WILL_PROPERTIES: &[u8] = &[
    property::PAYLOAD_FORMAT,
    property::MESSAGE_EXPIRY,
    property::CONTENT_TYPE,
    property::RESPONSE_TOPIC,
    property::CORRELATION_DATA,
    property::WILL_DELAY,
    property::USER,
];

/// Bits of the CONNECT flags (3.1.2.3).
mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

/// What the raw walk over a CONNECT found.
pub(super) struct ConnectChecked {
    pub(super) version: Version,
    /// Where the flag byte is, if the codec must be told clean start: it refuses an empty client id without.
    pub(super) pretend_clean: Option<usize>,
    /// Where the four bytes of a will's message expiry of 0 are: the codec refuses them.
    pub(super) zero_expiry: Option<usize>,
}

/// Protocol name and level of what may be a CONNECT, if they are there: version, or the refusal of another one.
pub(super) fn version(frame: &[u8]) -> Result<Version, DecodeError> {
    const UNSUPPORTED: DecodeError = DecodeError {
        reason: reason::UNSUPPORTED_VERSION,
        what: "a protocol version other than 3.1.1 and 5.0",
    };
    let mut rest = Reader(body(frame));
    match (rest.binary()?, rest.byte()?) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT" | b"MQIsdp", _) => Err(UNSUPPORTED),
        _ => Err(DecodeError::malformed("another protocol than MQTT")),
    }
}

/// Walks over a whole CONNECT frame.
pub(super) fn connect(frame: &[u8]) -> Result<ConnectChecked, DecodeError> {
    if frame.first() != Some(&0x10) {
        return Err(DecodeError::malformed("reserved flags of the fixed header"));
    }
    let version = version(frame)?;
    let mut rest = Reader(body(frame));
    rest.binary()?;
    rest.byte()?;
    let at_flags = frame.len() - rest.0.len();
    let flags = rest.byte()?;
    check_flags(version, flags)?;
    rest.two()?;
    if version == Version::V5 {
        connect_properties(rest.properties(CONNECT_PROPERTIES)?)?;
    }
    let client_id = rest.string()?;
    let mut zero_expiry = None;
    if flags & flag::WILL != 0 {
        if version == Version::V5 {
            zero_expiry = will_properties(frame, &mut rest)?;
        }
        let topic = rest.string()?;
        if topic.is_empty() || has_wildcard(topic) {
            return Err(DecodeError {
                reason: reason::TOPIC_NAME,
                what: "a will topic that is no topic name",
            });
        }
        rest.binary()?;
    }
    if flags & flag::USER_NAME != 0 {
        rest.string()?;
    }
    if flags & flag::PASSWORD != 0 {
        rest.binary()?;
    }
    if !rest.0.is_empty() {
        return Err(DecodeError::malformed("bytes after the end of a packet"));
    }
    let mut pretend_clean = None;
    if client_id.is_empty() && flags & flag::CLEAN_START == 0 {
        if version == Version::V311 {
            return Err(DecodeError {
                reason: reason::CLIENT_ID,
                what: "no client id for a kept session",
            });
        }
        pretend_clean = Some(at_flags);
    }
    Ok(ConnectChecked {
        version,
        pretend_clean,
        zero_expiry,
    })
}

fn check_flags(version: Version, flags: u8) -> Result<(), DecodeError> {
    if flags & flag::RESERVED != 0 {
        return Err(DecodeError::malformed("the reserved flag of a CONNECT"));
    }
    if flags & flag::WILL == 0 && flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0 {
        return Err(DecodeError::malformed("will flags without a will"));
    }
    if flags & flag::WILL_QOS == flag::WILL_QOS {
        return Err(DecodeError::malformed("QoS 3"));
    }
    if version == Version::V311 && flags & flag::PASSWORD != 0 && flags & flag::USER_NAME == 0 {
        return Err(DecodeError::malformed("a password without a user name"));
    }
    Ok(())
}

fn connect_properties(mut given: Properties<'_>) -> Result<(), DecodeError> {
    let (mut method, mut data) = (false, false);
    while let Some((id, value)) = given.next()? {
        match (id, value) {
            (property::RECEIVE_MAXIMUM | property::MAXIMUM_PACKET_SIZE, Value::Number(0)) => {
                return Err(DecodeError::protocol("a maximum of 0"));
            }
            (property::AUTH_METHOD, _) => method = true,
            (property::AUTH_DATA, _) => data = true,
            _ => {}
        }
    }
    if data && !method {
        return Err(DecodeError::protocol("authentication data without a method"));
    }
    Ok(())
}

/// Where a message expiry of 0 is in `frame`, if there is one.
fn will_properties(frame: &[u8], rest: &mut Reader<'_>) -> Result<Option<usize>, DecodeError> {
    let mut given = rest.properties(WILL_PROPERTIES)?;
    let end_of_block = frame.len() - rest.0.len();
    let mut zero_expiry = None;
    while let Some((id, value)) = given.next()? {
        match (id, value) {
            (property::MESSAGE_EXPIRY, Value::Number(0)) => {
                zero_expiry = Some(end_of_block - given.unread() - 4);
            }
            (property::RESPONSE_TOPIC, Value::Text(text)) if text.is_empty() || has_wildcard(text) => {
                return Err(DecodeError::protocol("a response topic that is no topic name"));
            }
            _ => {}
        }
    }
    Ok(zero_expiry)
}

/// Walks over a whole SUBSCRIBE frame.
pub(super) fn subscribe(version: Version, frame: &[u8]) -> Result<(), DecodeError> {
    let mut rest = Reader(body(frame));
    rest.packet_id()?;
    if version == Version::V5 {
        let mut given = rest.properties(&[property::SUBSCRIPTION_ID, property::USER])?;
        while let Some((_, value)) = given.next()? {
            if value == Value::Number(0) {
                return Err(DecodeError::protocol("subscription identifier 0"));
            }
        }
    }
    if rest.0.is_empty() {
        return Err(DecodeError::protocol("a SUBSCRIBE without a filter"));
    }
    while !rest.0.is_empty() {
        rest.string()?;
        let options = rest.byte()?;
        let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
        if options & reserved != 0 || options & 3 == 3 || (options >> 4) & 3 == 3 {
            return Err(DecodeError::malformed("subscription options that do not exist"));
        }
    }
    Ok(())
}

/// Walks over a whole UNSUBSCRIBE frame.
pub(super) fn unsubscribe(version: Version, frame: &[u8]) -> Result<(), DecodeError> {
    let mut rest = Reader(body(frame));
    rest.packet_id()?;
    if version == Version::V5 {
        let mut given = rest.properties(&[property::USER])?;
        while given.next()?.is_some() {}
    }
    if rest.0.is_empty() {
        return Err(DecodeError::protocol("an UNSUBSCRIBE without a filter"));
    }
    while !rest.0.is_empty() {
        rest.string()?;
    }
    Ok(())
}

/// Walks over a whole DISCONNECT frame.
pub(super) fn disconnect(version: Version, frame: &[u8]) -> Result<(), DecodeError> {
    let mut rest = Reader(body(frame));
    if rest.0.is_empty() {
        return Ok(());
    }
    if version == Version::V311 {
        return Err(DecodeError::malformed("a DISCONNECT with a body"));
    }
    rest.byte()?;
    walk_properties(
        rest,
        &[property::SESSION_EXPIRY, property::REASON_STRING, property::USER],
    )
}

/// Reads a whole AUTH frame.
pub(super) fn auth(frame: &[u8]) -> Result<Auth, DecodeError> {
    const PROPERTIES: &[u8] = &[
        property::AUTH_METHOD,
        property::AUTH_DATA,
        property::REASON_STRING,
        property::USER,
    ];
    let mut rest = Reader(body(frame));
    let mut auth = Auth {
        reason: 0,
        method: "".into(),
        data: Bytes::new(),
    };
    if rest.0.is_empty() {
        return Ok(auth);
    }
    auth.reason = rest.byte()?;
    if !matches!(auth.reason, 0x00 | 0x18 | 0x19) {
        return Err(DecodeError::malformed("an unknown reason code"));
    }
    walk_properties(rest, PROPERTIES)?;
    if !rest.0.is_empty() {
        let mut given = rest.properties(PROPERTIES)?;
        while let Some((id, value)) = given.next()? {
            match (id, value) {
                (property::AUTH_METHOD, Value::Text(method)) => auth.method = method.into(),
                (property::AUTH_DATA, Value::Binary(data)) => auth.data = Bytes::copy_from_slice(data),
                _ => {}
            }
        }
    }
    Ok(auth)
}

fn walk_properties(mut rest: Reader<'_>, allowed: &'static [u8]) -> Result<(), DecodeError> {
    if rest.0.is_empty() {
        return Ok(());
    }
    let mut given = rest.properties(allowed)?;
    while given.next()?.is_some() {}
    if rest.0.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::malformed("bytes after the end of a packet"))
    }
}
