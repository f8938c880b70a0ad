//! One entry for fuzzers: any bytes through framing, decoding and, where it gives a packet back, encoding. Panics only
//! on a bug.

use super::{Frame, Peer, decode, decode_connect, encode, frame};
use crate::packet::{Ack, Incoming, Outgoing, PublishOut, Version};

/// What a run over some bytes gave, so that a fuzzer can tell whether it reaches anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fuzzed {
    /// Frames cut.
    pub frames: u32,
    /// Packets decoded, over both versions.
    pub decoded: u32,
    /// Packets refused, over both versions.
    pub refused: u32,
}

/// Takes the bytes as a client would send them, as 3.1.1 and as 5.0. Checks: no panic; a cut frame is within its bounds;
/// a decoded PUBLISH or PUBACK that is encoded and decoded again is the same.
pub fn fuzz_one(bytes: &[u8]) -> Fuzzed {
    let mut fuzzed = Fuzzed::default();
    let mut rest = bytes;
    loop {
        match frame(rest, godwit_wire::limits::PACKET_BYTES) {
            Frame::Whole { len } => {
                let (whole, after) = rest.split_at(len);
                fuzzed.frames += 1;
                for version in [Version::V311, Version::V5] {
                    match decode(version, whole) {
                        Ok(packet) => {
                            fuzzed.decoded += 1;
                            again(version, &packet);
                        }
                        Err(_) => fuzzed.refused += 1,
                    }
                }
                let _ = (decode_connect(whole), super::answer_version(whole));
                rest = after;
            }
            Frame::Incomplete { need } => {
                assert!(
                    need > rest.len(),
                    "a frame that is complete was called incomplete"
                );
                return fuzzed;
            }
            Frame::Bad(_) => return fuzzed,
        }
    }
}

fn again(version: Version, packet: &Incoming) {
    let mut bytes = Vec::new();
    match packet {
        Incoming::Publish(first) if first.topic_alias.is_none() => {
            let out = Outgoing::Publish(Box::new(PublishOut {
                topic: first.topic.as_ref().into(),
                payload: first.payload.clone(),
                qos: first.qos,
                retain: first.retain,
                dup: first.dup,
                packet_id: first.packet_id,
                message_expiry: first.message_expiry,
                subscription_ids: Vec::new(),
                properties: first.properties.clone(),
            }));
            assert!(encode(Peer::new(version), &out, &mut bytes));
            let Ok(Incoming::Publish(second)) = decode(version, &bytes) else {
                panic!("a PUBLISH that was decoded is refused when encoded again");
            };
            assert_eq!(
                (
                    &first.topic,
                    &first.payload,
                    first.packet_id,
                    first.qos,
                    first.retain,
                    first.dup
                ),
                (
                    &second.topic,
                    &second.payload,
                    second.packet_id,
                    second.qos,
                    second.retain,
                    second.dup
                )
            );
            assert_eq!(
                (&first.properties, first.message_expiry),
                (&second.properties, second.message_expiry)
            );
        }
        Incoming::Puback(id, reason) => {
            let ack = Ack {
                packet_id: *id,
                reason: *reason,
                properties: Vec::new(),
            };
            assert!(encode(Peer::new(version), &Outgoing::Puback(ack), &mut bytes));
            let same =
                matches!(decode(version, &bytes), Ok(Incoming::Puback(i, r)) if (i, r) == (*id, *reason));
            assert!(same, "a PUBACK changed on its way");
        }
        _ => {}
    }
}
