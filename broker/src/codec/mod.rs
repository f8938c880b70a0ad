//! Bytes to packets and back: cuts frames, checks what the codec crate does not (docs/decisions/0002-packet-codec.md),
//! decodes and encodes the hot packets by hand. Holds no state and no connection; bad input never panics.

mod acks;
mod checks;
mod cold;
mod encode;
mod fuzz;
mod publish;
mod read;
#[cfg(test)]
mod tests;
mod why;

pub(crate) use cold::{answer_version, decode_connect};
pub(crate) use encode::{Alias, Peer, encode, encode_publish};
pub use fuzz::{Fuzzed, fuzz_one};

use crate::packet::{Incoming, Version};

/// Packet types: the upper four bits of the first byte.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const PINGRESP: u8 = 13;
    pub(crate) const DISCONNECT: u8 = 14;
    pub(crate) const AUTH: u8 = 15;
}

/// Reason codes that this file's callers and its own parts give (MQTT 5, 2.4).
pub(crate) mod reason {
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
    pub(crate) const UNSUPPORTED_VERSION: u8 = 0x84;
    pub(crate) const CLIENT_ID: u8 = 0x85;
    pub(crate) const BAD_CREDENTIAL: u8 = 0x86;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const SERVER_UNAVAILABLE: u8 = 0x88;
    pub(crate) const SERVER_BUSY: u8 = 0x89;
    pub(crate) const SHUTTING_DOWN: u8 = 0x8B;
    pub(crate) const BAD_AUTH_METHOD: u8 = 0x8C;
    pub(crate) const KEEP_ALIVE: u8 = 0x8D;
    pub(crate) const TOPIC_NAME: u8 = 0x90;
    pub(crate) const TOPIC_ALIAS: u8 = 0x94;
    pub(crate) const TOO_LARGE: u8 = 0x95;
    pub(crate) const RATE: u8 = 0x96;
    pub(crate) const QUOTA: u8 = 0x97;
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x99;
    pub(crate) const QOS: u8 = 0x9B;
    pub(crate) const USE_ANOTHER_SERVER: u8 = 0x9C;
    pub(crate) const CONNECTION_RATE: u8 = 0x9F;
    pub(crate) const CREDENTIAL_ENDED: u8 = 0xA0;
}

/// Why a packet is not taken. The connection is closed with `reason` (MQTT 5; in 3.1.1 without a word).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (reason code {reason:#04x})")]
pub(crate) struct DecodeError {
    /// MQTT 5 reason code of the DISCONNECT or CONNACK.
    pub(crate) reason: u8,
    /// For logs and metrics; never holds anything of the packet.
    pub(crate) what: &'static str,
}

impl DecodeError {
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self {
            reason: reason::MALFORMED,
            what,
        }
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self {
            reason: reason::PROTOCOL_ERROR,
            what,
        }
    }
}

/// What stands at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// More bytes are wanted: at least this many in all.
    Incomplete {
        /// Bytes from the start of the frame, at most the limit.
        need: usize,
    },
    /// A whole packet.
    Whole {
        /// Its bytes, header included.
        len: usize,
    },
    /// Never a packet, or larger than the limit.
    Bad(DecodeError),
}

/// Judges a frame by its header alone, so that nothing is kept for a length that was only announced. `max` bounds the
/// whole packet, in bytes.
pub(crate) fn frame(bytes: &[u8], max: usize) -> Frame {
    let mut remaining = 0usize;
    for index in 0..4 {
        let Some(byte) = bytes.get(index + 1) else {
            return Frame::Incomplete { need: index + 2 };
        };
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return Frame::Bad(DecodeError::malformed("a length not in its shortest form"));
            }
            let len = index + 2 + remaining;
            if len > max {
                return Frame::Bad(DecodeError {
                    reason: reason::TOO_LARGE,
                    what: "a packet over the size limit",
                });
            }
            return if bytes.len() < len {
                Frame::Incomplete { need: len }
            } else {
                Frame::Whole { len }
            };
        }
    }
    Frame::Bad(DecodeError::malformed("a length of more than four bytes"))
}

/// What follows the fixed header of a whole frame.
fn body(frame: &[u8]) -> &[u8] {
    let header = frame.iter().skip(1).position(|byte| byte & 0x80 == 0);
    header.and_then(|at| frame.get(at + 2..)).unwrap_or_default()
}

/// Decodes one whole frame, as [`frame`] cut it, from a client that is connected.
pub(crate) fn decode(version: Version, frame: &[u8]) -> Result<Incoming, DecodeError> {
    let Some(&first) = frame.first() else {
        return Err(DecodeError::malformed("no packet"));
    };
    let (body, flags) = (body(frame), first & 0x0f);
    let expected = if matches!(first >> 4, kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE) {
        2
    } else {
        0
    };
    if first >> 4 != kind::PUBLISH && flags != expected {
        return Err(DecodeError::malformed("reserved flags of the fixed header"));
    }
    match first >> 4 {
        kind::PUBLISH => publish::decode(version, flags, body),
        kind::PUBACK => {
            publish::decode_ack(version, kind::PUBACK, body).map(|(id, r)| Incoming::Puback(id, r))
        }
        kind::PUBREC => {
            publish::decode_ack(version, kind::PUBREC, body).map(|(id, r)| Incoming::Pubrec(id, r))
        }
        kind::PUBREL => {
            publish::decode_ack(version, kind::PUBREL, body).map(|(id, r)| Incoming::Pubrel(id, r))
        }
        kind::PUBCOMP => {
            publish::decode_ack(version, kind::PUBCOMP, body).map(|(id, r)| Incoming::Pubcomp(id, r))
        }
        kind::PINGREQ if body.is_empty() => Ok(Incoming::Pingreq),
        kind::PINGREQ => Err(DecodeError::malformed("a PINGREQ with a body")),
        kind::CONNECT => decode_connect(frame).map(Incoming::Connect),
        kind::SUBSCRIBE => cold::decode_subscribe(version, frame),
        kind::UNSUBSCRIBE => cold::decode_unsubscribe(version, frame),
        kind::DISCONNECT => cold::decode_disconnect(version, frame),
        kind::AUTH if version == Version::V5 => cold::decode_auth(frame),
        0 => Err(DecodeError::malformed("packet type 0")),
        kind::AUTH => Err(DecodeError::malformed("packet type 15 in MQTT 3.1.1")),
        _ => Err(DecodeError::protocol("a packet that only a server sends")),
    }
}
