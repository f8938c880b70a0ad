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

/// Takes the bytes as a client would send them, as 3.1.1 and as 5.0. Checks: no panic; a cut frame is within its bounds
/// and none of its beginnings is whole; what is decoded is what homes may rely on; a decoded PUBLISH or PUBACK that is
/// encoded and decoded again is the same.
pub fn fuzz_one(bytes: &[u8]) -> Fuzzed {
    let mut fuzzed = Fuzzed::default();
    let mut rest = bytes;
    loop {
        match frame(rest, godwit_wire::limits::PACKET_BYTES) {
            Frame::Whole { len } => {
                let (whole, after) = rest.split_at(len);
                fuzzed.frames += 1;
                cut_short(whole);
                for version in [Version::V311, Version::V5] {
                    match decode(version, whole) {
                        Ok(packet) => {
                            fuzzed.decoded += 1;
                            is_valid(&packet);
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

/// A frame that has not all come is wanted whole, never more than it has.
fn cut_short(whole: &[u8]) {
    for len in [0, 1, 2, 3, whole.len() / 2, whole.len() - 1] {
        let Some(begin) = whole.get(..len).filter(|begin| begin.len() < whole.len()) else {
            continue;
        };
        let wanted = frame(begin, godwit_wire::limits::PACKET_BYTES);
        assert!(
            matches!(wanted, Frame::Incomplete { need } if need > len && need <= whole.len()),
            "the first {len} of {} bytes are called {wanted:?}",
            whole.len()
        );
    }
}

/// What homes rely on (MQTT 5: 1.5.4, 2.2.1, 3.3.2.1, 3.3.1.2, 3.8.3).
fn is_valid(packet: &Incoming) {
    let string = |text: &str| {
        assert!(
            !text.contains('\0') && text.len() <= 65_535,
            "a string with U+0000"
        )
    };
    match packet {
        Incoming::Publish(publish) => {
            string(&publish.topic);
            assert!(
                !publish.topic.contains(['+', '#']),
                "a topic name with a wildcard"
            );
            assert!(!publish.topic.is_empty() || publish.topic_alias.is_some());
            assert!(publish.qos <= 2 && (publish.qos > 0) == (publish.packet_id > 0));
            assert!(publish.qos > 0 || !publish.dup, "DUP without QoS");
            assert!(publish.topic_alias != Some(0));
        }
        Incoming::Puback(id, _)
        | Incoming::Pubrec(id, _)
        | Incoming::Pubrel(id, _)
        | Incoming::Pubcomp(id, _) => assert!(*id > 0),
        Incoming::Subscribe {
            packet_id, filters, ..
        } => {
            assert!(*packet_id > 0 && !filters.is_empty());
            for filter in filters {
                string(&filter.filter);
                assert!(filter.qos <= 2 && filter.retain_handling <= 2);
            }
        }
        Incoming::Unsubscribe { packet_id, filters } => {
            assert!(*packet_id > 0 && !filters.is_empty());
            filters.iter().for_each(|filter| string(filter));
        }
        Incoming::Connect(connect) => {
            string(&connect.client_id);
            assert!(connect.receive_maximum > 0 && connect.maximum_packet_size > 0);
            if let Some(will) = &connect.will {
                string(&will.topic);
                assert!(will.qos <= 2);
            }
        }
        Incoming::Pingreq | Incoming::Disconnect { .. } => {}
        // Enhanced authentication is the door's.
        #[allow(unreachable_patterns)]
        _ => {}
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
                reason_string: None,
            };
            assert!(encode(Peer::new(version), &Outgoing::Puback(ack), &mut bytes));
            let same =
                matches!(decode(version, &bytes), Ok(Incoming::Puback(i, r)) if (i, r) == (*id, *reason));
            assert!(same, "a PUBACK changed on its way");
        }
        _ => {}
    }
}
