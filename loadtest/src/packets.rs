//! MQTT packets as the generator needs them: frames cut from a read buffer, PUBLISH and PUBACK written and read in
//! place (they are the load), everything else through the codec crate. No sockets and no state of a client here.

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::{error::DecodeError, error::EncodeError, types::QoS, v3, v5};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU16;
use tokio_util::codec::{Decoder, Encoder};

/// Largest frame the generator accepts from a broker; its own messages are far smaller.
pub(crate) const MAX_FRAME: usize = 128 * 1024;
/// Session expiry asked for in MQTT 5, in seconds: long enough for any run, short enough to clean up after itself.
pub(crate) const SESSION_EXPIRY_SECS: u32 = 24 * 3600;

/// Protocol version spoken by every client of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    /// MQTT 3.1.1
    V311,
    /// MQTT 5.0
    V5,
}

/// Why bytes from the broker could not be understood, or a packet could not be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PacketError(pub(crate) String);

impl From<DecodeError> for PacketError {
    fn from(error: DecodeError) -> Self {
        Self(format!("the broker sent a malformed packet: {error}"))
    }
}

impl From<EncodeError> for PacketError {
    fn from(error: EncodeError) -> Self {
        Self(format!("a packet could not be encoded: {error}"))
    }
}

/// What one packet from the broker means to a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// CONNACK; the code is 0 when accepted.
    ConnAck {
        /// Return code (3.1.1) or reason code (5.0).
        code: u8,
    },
    /// SUBACK; true when every filter was granted with at least QoS 1.
    SubAck {
        /// Whether QoS 1 was granted.
        granted: bool,
    },
    /// PUBLISH; the packet identifier is 0 for QoS 0.
    Publish {
        /// Packet identifier, 0 for QoS 0.
        packet_id: u16,
        /// QoS of the delivery, 0 to 2.
        qos: u8,
        /// The application message, borrowed from the read buffer.
        payload: &'a [u8],
    },
    /// PUBACK; the reason is 0 or 0x10 when accepted.
    PubAck {
        /// Packet identifier of the acknowledged PUBLISH.
        packet_id: u16,
        /// Reason code, 0 in 3.1.1.
        reason: u8,
    },
    /// The broker ends the connection and says why.
    Disconnect {
        /// Reason code.
        reason: u8,
    },
    /// AUTH: the authentication goes on.
    Auth {
        /// Authentication Data.
        data: Vec<u8>,
    },
    /// PINGRESP and other packets that need no answer.
    Other,
}

/// Length of the first frame in `buffer`, header included; `None` while it is not wholly there.
pub(crate) fn frame_len(buffer: &[u8]) -> Result<Option<(usize, usize)>, PacketError> {
    let mut length = 0usize;
    for (index, byte) in buffer.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let header = index + 2;
            let whole = header + length;
            if whole > MAX_FRAME {
                return Err(PacketError(format!("the broker sent a packet of {whole} bytes")));
            }
            return Ok((buffer.len() >= whole).then_some((header, whole)));
        }
        if index == 3 {
            return Err(PacketError(
                "the broker sent a remaining length of more than four bytes".into(),
            ));
        }
    }
    Ok(None)
}

/// Reads one whole frame whose fixed header is `header` bytes long.
pub(crate) fn read(version: Version, frame: &[u8], header: usize) -> Result<Incoming<'_>, PacketError> {
    let body = frame.get(header..).unwrap_or_default();
    match frame.first().copied().unwrap_or_default() {
        first if first >> 4 == 3 => read_publish(version, first, body),
        0x40 => match body {
            [a, b] => Ok(Incoming::PubAck {
                packet_id: u16::from_be_bytes([*a, *b]),
                reason: 0,
            }),
            [a, b, reason, ..] => Ok(Incoming::PubAck {
                packet_id: u16::from_be_bytes([*a, *b]),
                reason: *reason,
            }),
            _ => Err(PacketError(
                "the broker sent a PUBACK without a packet identifier".into(),
            )),
        },
        _ => read_by_codec(version, frame),
    }
}

fn read_publish(version: Version, first: u8, body: &[u8]) -> Result<Incoming<'_>, PacketError> {
    let cut = || PacketError("the broker sent a PUBLISH that ends early".into());
    let (length, rest) = body.split_first_chunk::<2>().ok_or_else(cut)?;
    let mut rest = rest
        .get(usize::from(u16::from_be_bytes(*length))..)
        .ok_or_else(cut)?;
    let qos = first >> 1 & 3;
    let mut packet_id = 0;
    if qos > 0 {
        let (id, after) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        packet_id = u16::from_be_bytes(*id);
        rest = after;
    }
    if version == Version::V5 {
        let mut properties = 0usize;
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or_else(cut)?;
            rest = after;
            properties |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return Err(cut());
            }
        }
        rest = rest.get(properties..).ok_or_else(cut)?;
    }
    Ok(Incoming::Publish {
        packet_id,
        qos,
        payload: rest,
    })
}

fn read_by_codec(version: Version, frame: &[u8]) -> Result<Incoming<'static>, PacketError> {
    let mut bytes = BytesMut::from(frame);
    let partial = || PacketError("the broker sent a packet that does not fit its length".into());
    match version {
        Version::V311 => Ok(
            match v3::Codec::new(0).decode(&mut bytes)?.ok_or_else(partial)?.0 {
                v3::Packet::ConnectAck(ack) => Incoming::ConnAck {
                    code: ack.return_code.into(),
                },
                v3::Packet::SubscribeAck { status, .. } => Incoming::SubAck {
                    granted: status.iter().all(
                        |s| matches!(s, v3::SubscribeReturnCode::Success(qos) if *qos >= QoS::AtLeastOnce),
                    ),
                },
                _ => Incoming::Other,
            },
        ),
        Version::V5 => Ok(
            match v5::Codec::new(0, 0).decode(&mut bytes)?.ok_or_else(partial)?.0 {
                v5::Packet::ConnectAck(ack) => Incoming::ConnAck {
                    code: ack.reason_code.into(),
                },
                v5::Packet::SubscribeAck(ack) => Incoming::SubAck {
                    granted: ack.status.iter().all(|s| matches!(u8::from(*s), 1 | 2)),
                },
                v5::Packet::Auth(auth) => Incoming::Auth {
                    data: auth.auth_data.unwrap_or_default().to_vec(),
                },
                v5::Packet::Disconnect(end) => Incoming::Disconnect {
                    reason: end.reason_code.into(),
                },
                _ => Incoming::Other,
            },
        ),
    }
}

/// What a CONNECT says.
pub(crate) struct Connect<'a> {
    /// Client identifier.
    pub(crate) client_id: &'a str,
    /// True for a session that ends with its connection.
    pub(crate) clean: bool,
    /// Keep alive in seconds, 0 for none.
    pub(crate) keep_alive: u16,
    /// User name and password.
    pub(crate) login: Option<(&'a str, &'a str)>,
    /// Authentication Method and Data, in place of the password (5.0).
    pub(crate) method: Option<(&'static str, Vec<u8>)>,
}

/// Appends a CONNECT to `out`.
pub(crate) fn put_connect(
    version: Version,
    connect: &Connect<'_>,
    out: &mut Vec<u8>,
) -> Result<(), PacketError> {
    let client_id = ByteString::from(connect.client_id);
    let username = connect.login.map(|(name, _)| ByteString::from(name));
    let password = connect
        .login
        .filter(|_| connect.method.is_none())
        .map(|(_, password)| bytes::Bytes::copy_from_slice(password.as_bytes()));
    match version {
        Version::V311 => put_v3(
            v3::Packet::Connect(Box::new(v3::Connect {
                clean_session: connect.clean,
                keep_alive: connect.keep_alive,
                client_id,
                username,
                password,
                ..Default::default()
            })),
            out,
        ),
        Version::V5 => put_v5(
            v5::Packet::Connect(Box::new(v5::Connect {
                clean_start: connect.clean,
                session_expiry_interval_secs: if connect.clean { 0 } else { SESSION_EXPIRY_SECS },
                auth_method: connect
                    .method
                    .as_ref()
                    .map(|(name, _)| ByteString::from_static(name)),
                auth_data: connect
                    .method
                    .as_ref()
                    .map(|(_, data)| bytes::Bytes::copy_from_slice(data)),
                keep_alive: connect.keep_alive,
                client_id,
                username,
                password,
                ..Default::default()
            })),
            out,
        ),
    }
}

/// Appends an AUTH that goes on with an exchange.
pub(crate) fn put_auth(method: &'static str, data: Vec<u8>, out: &mut Vec<u8>) -> Result<(), PacketError> {
    let auth = v5::Auth {
        reason_code: v5::AuthReasonCode::ContinueAuth,
        auth_method: Some(ByteString::from_static(method)),
        auth_data: Some(data.into()),
        ..v5::Auth::default()
    };
    put_v5(v5::Packet::Auth(auth), out)
}

/// Appends a SUBSCRIBE for one filter at QoS 1, with packet identifier 1.
pub(crate) fn put_subscribe(version: Version, filter: &str, out: &mut Vec<u8>) -> Result<(), PacketError> {
    let filter = ByteString::from(filter);
    match version {
        Version::V311 => put_v3(
            v3::Packet::Subscribe {
                packet_id: NonZeroU16::MIN,
                topic_filters: vec![(filter, QoS::AtLeastOnce)],
            },
            out,
        ),
        Version::V5 => put_v5(
            v5::Packet::Subscribe(v5::Subscribe {
                packet_id: NonZeroU16::MIN,
                id: None,
                user_properties: Vec::new(),
                topic_filters: vec![(
                    filter,
                    v5::SubscriptionOptions {
                        qos: QoS::AtLeastOnce,
                        ..Default::default()
                    },
                )],
            }),
            out,
        ),
    }
}

fn put_v3(packet: v3::Packet, out: &mut Vec<u8>) -> Result<(), PacketError> {
    let mut bytes = BytesMut::new();
    v3::Codec::new(0).encode(packet, &mut bytes)?;
    out.extend_from_slice(&bytes);
    Ok(())
}

fn put_v5(packet: v5::Packet, out: &mut Vec<u8>) -> Result<(), PacketError> {
    let mut bytes = BytesMut::new();
    v5::Codec::new(0, 0).encode(packet, &mut bytes)?;
    out.extend_from_slice(&bytes);
    Ok(())
}

/// Appends a QoS 1 PUBLISH to `out` and returns where its payload starts there. Allocates nothing beyond `out`.
pub(crate) fn put_publish(
    version: Version,
    topic: &str,
    packet_id: u16,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    let properties = usize::from(version == Version::V5);
    let mut length = 2 + topic.len() + 2 + properties + payload.len();
    out.push(0x32);
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(&packet_id.to_be_bytes());
    if properties > 0 {
        out.push(0);
    }
    let at = out.len();
    out.extend_from_slice(payload);
    at
}

/// Appends a PUBACK with success.
pub(crate) fn put_puback(packet_id: u16, out: &mut Vec<u8>) {
    let [a, b] = packet_id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, a, b]);
}

/// A PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
/// A DISCONNECT without a reason, valid in both versions.
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    fn first(version: Version, bytes: &[u8]) -> Incoming<'_> {
        let (header, whole) = frame_len(bytes).expect("a frame").expect("whole");
        assert_eq!(whole, bytes.len());
        read(version, bytes, header).expect("readable")
    }

    #[test]
    fn a_written_publish_is_read_back_with_its_id_and_payload_in_both_versions() {
        for version in [Version::V311, Version::V5] {
            let mut out = Vec::new();
            let at = put_publish(version, "inbox/u1", 77, &[b'x'; 300], &mut out);
            assert_eq!(&out[at..], &[b'x'; 300]);
            assert_eq!(
                first(version, &out),
                Incoming::Publish {
                    packet_id: 77,
                    qos: 1,
                    payload: &[b'x'; 300]
                }
            );
        }
    }

    #[test]
    fn the_codec_understands_the_publish_written_by_hand() {
        let mut out = Vec::new();
        put_publish(Version::V5, "a/b", 9, b"hello", &mut out);
        let (packet, _) = v5::Codec::new(0, 0)
            .decode(&mut BytesMut::from(&out[..]))
            .expect("decodes")
            .expect("whole");
        let v5::Packet::Publish(publish) = packet else {
            panic!("not a PUBLISH")
        };
        assert_eq!(
            (&*publish.topic, publish.packet_id, &publish.payload[..]),
            ("a/b", NonZeroU16::new(9), &b"hello"[..])
        );
    }

    #[test]
    fn a_frame_is_cut_only_when_it_is_wholly_there() {
        let mut out = Vec::new();
        put_publish(Version::V311, "t", 1, &[0; 200], &mut out);
        for cut in 0..out.len() {
            assert_eq!(frame_len(&out[..cut]), Ok(None), "at {cut}");
        }
        assert_eq!(frame_len(&out), Ok(Some((3, out.len()))));
    }

    #[test]
    fn a_remaining_length_of_five_bytes_is_refused() {
        assert!(frame_len(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }

    #[test]
    fn a_refusal_is_seen_in_puback_suback_and_connack() {
        assert_eq!(
            first(Version::V5, &[0x40, 4, 0, 5, 0x87, 0]),
            Incoming::PubAck {
                packet_id: 5,
                reason: 0x87
            }
        );
        assert_eq!(
            first(Version::V311, &[0x90, 3, 0, 1, 0x80]),
            Incoming::SubAck { granted: false }
        );
        assert_eq!(
            first(Version::V311, &[0x90, 3, 0, 1, 1]),
            Incoming::SubAck { granted: true }
        );
        assert_eq!(
            first(Version::V311, &[0x20, 2, 0, 5]),
            Incoming::ConnAck { code: 5 }
        );
    }

    #[test]
    fn a_truncated_publish_is_an_error_and_no_panic() {
        let mut out = Vec::new();
        put_publish(Version::V5, "topic", 1, b"", &mut out);
        for cut in 2..out.len() - 1 {
            let mut frame = out[..cut].to_vec();
            frame[1] = (cut - 2) as u8;
            assert!(read(Version::V5, &frame, 2).is_err(), "at {cut}");
        }
    }
}
