//! Round trips over random packets, the codec crate as a second opinion on what we wrote by hand, random bytes.

use bytes::BytesMut;
use godwit_wire::proto::stored::{PublishProperties, UserProperty};
use proptest::prelude::*;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::{V3, V5, whole};
use crate::codec::{Frame, Peer, decode, encode, frame, fuzz_one};
use crate::packet::{Ack, Incoming, Outgoing, PublishOut};

fn text() -> impl Strategy<Value = String> {
    "[^\0+#]{1,40}"
}

fn properties() -> impl Strategy<Value = Option<PublishProperties>> {
    let one = (
        any::<Option<bool>>(),
        prop_oneof![Just(String::new()), text()],
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        proptest::collection::vec(("[^\0]{0,20}", "[^\0]{0,20}"), 0..4),
        prop_oneof![Just(String::new()), text()],
    );
    let one = one.prop_map(
        |(payload_is_utf8, response_topic, correlation_data, pairs, content_type)| PublishProperties {
            payload_is_utf8,
            response_topic,
            correlation_data: correlation_data.map(Into::into),
            user_properties: pairs
                .into_iter()
                .map(|(name, value)| UserProperty { name, value })
                .collect(),
            content_type,
        },
    );
    proptest::option::of(one)
}

fn publishes() -> impl Strategy<Value = PublishOut> {
    let payload = proptest::collection::vec(any::<u8>(), 0..20_000);
    (
        text(),
        payload,
        0..3u8,
        any::<bool>(),
        any::<bool>(),
        1..=u16::MAX,
        any::<Option<u32>>(),
        properties(),
    )
        .prop_map(
            |(topic, payload, qos, retain, dup, id, message_expiry, properties)| PublishOut {
                topic: topic.into(),
                payload: payload.into(),
                qos,
                retain,
                dup: dup && qos > 0,
                packet_id: if qos > 0 { id } else { 0 },
                message_expiry,
                subscription_ids: Vec::new(),
                properties: properties
                    .filter(|given| *given != PublishProperties::default())
                    .map(Box::new),
            },
        )
}

proptest! {
    #[test]
    fn a_publish_comes_back_as_it_went_in_both_versions(publish in publishes()) {
        for version in [V3, V5] {
            let mut out = Vec::new();
            prop_assert!(encode(Peer::new(version), &Outgoing::Publish(Box::new(publish.clone())), &mut out));
            prop_assert_eq!(frame(&out, usize::MAX), Frame::Whole { len: out.len() });
            let Ok(Incoming::Publish(back)) = decode(version, &out) else {
                return Err(TestCaseError::fail("not a PUBLISH"));
            };
            prop_assert_eq!(&*back.topic, &*publish.topic);
            prop_assert_eq!(&back.payload, &publish.payload);
            prop_assert_eq!(
                (back.qos, back.retain, back.dup, back.packet_id),
                (publish.qos, publish.retain, publish.dup, publish.packet_id)
            );
            if version == V5 {
                prop_assert_eq!(back.message_expiry, publish.message_expiry);
                prop_assert_eq!(&back.properties, &publish.properties);
            }
        }
    }

    /// The codec crate reads what we write by hand, and sees the same.
    #[test]
    fn the_codec_crate_agrees_on_publishes(publish in publishes(), ids in proptest::collection::vec(1..268_435_456u32, 0..3)) {
        let publish = PublishOut { subscription_ids: ids, message_expiry: publish.message_expiry.filter(|e| *e > 0), ..publish };
        let mut out = Vec::new();
        prop_assert!(encode(Peer::new(V5), &Outgoing::Publish(Box::new(publish.clone())), &mut out));
        let Some((v5::Packet::Publish(read), _)) = v5::Codec::new(0, 0).decode(&mut BytesMut::from(&out[..])).unwrap() else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        prop_assert_eq!(&*read.topic, &*publish.topic);
        prop_assert_eq!(&read.payload, &publish.payload);
        let properties = read.properties.unwrap();
        let ids: Vec<u32> = properties.subscription_ids.iter().map(|id| id.get()).collect();
        prop_assert_eq!(&ids, &publish.subscription_ids);
        out.clear();
        prop_assert!(encode(Peer::new(V3), &Outgoing::Publish(Box::new(publish.clone())), &mut out));
        let Some((v3::Packet::Publish(read), _)) = v3::Codec::new(0).decode(&mut BytesMut::from(&out[..])).unwrap() else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        prop_assert_eq!(&read.payload, &publish.payload);
        prop_assert_eq!(read.packet_id.map_or(0, u16::from), publish.packet_id);
    }

    #[test]
    fn acknowledgements_come_back_as_they_went(id in 1..=u16::MAX, kind in 0..4u8, bad in any::<bool>(), note in "[^\0]{0,20}") {
        let reason = match (bad, kind) { (false, _) => 0, (true, 0 | 1) => 0x97, (true, _) => 0x92 };
        let ack = Ack { packet_id: id, reason, properties: vec![("note".into(), note)], reason_string: bad.then_some("why") };
        let packet = match kind {
            0 => Outgoing::Puback(ack),
            1 => Outgoing::Pubrec(ack),
            2 => Outgoing::Pubrel(ack),
            _ => Outgoing::Pubcomp(ack),
        };
        for version in [V3, V5] {
            let mut out = Vec::new();
            prop_assert!(encode(Peer::new(version), &packet, &mut out));
            let expected = (id, if version == V5 { reason } else { 0 });
            let back = match decode(version, &out).unwrap() {
                Incoming::Puback(id, reason) if kind == 0 => (id, reason),
                Incoming::Pubrec(id, reason) if kind == 1 => (id, reason),
                Incoming::Pubrel(id, reason) if kind == 2 => (id, reason),
                Incoming::Pubcomp(id, reason) if kind == 3 => (id, reason),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert_eq!(back, expected);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = fuzz_one(&bytes);
    }

    /// Most random bytes are no frame: these are, of every type.
    #[test]
    fn random_bodies_never_panic(first in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let fuzzed = fuzz_one(&whole(first, &body));
        prop_assert_eq!(fuzzed.frames, 1);
        prop_assert_eq!(fuzzed.decoded + fuzzed.refused, 2);
    }
}
