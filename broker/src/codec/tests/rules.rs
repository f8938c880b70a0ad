//! Every check that the codec crate does not make, and both legal forms that it refuses.

use godwit_wire::limits::PACKET_BYTES;
use godwit_wire::proto::stored::UserProperty;

use super::*;
use crate::codec::{Frame, answer_version, decode_connect, frame};
use crate::packet::Incoming;

#[test]
fn a_frame_is_judged_by_its_header_alone() {
    let max = PACKET_BYTES;
    assert_eq!(frame(&[], max), Frame::Incomplete { need: 2 });
    assert_eq!(frame(&[0xc0], max), Frame::Incomplete { need: 2 });
    assert_eq!(frame(&[0xc0, 0], max), Frame::Whole { len: 2 });
    assert_eq!(frame(&[0x30, 0x80], max), Frame::Incomplete { need: 3 });
    assert_eq!(
        frame(&[0x30, 0x80, 0x01, 0], max),
        Frame::Incomplete { need: 131 }
    );
    for (bytes, reason) in [
        (&[0x30, 0x80, 0x00][..], 0x81),
        (&[0x30, 0xff, 0xff, 0xff, 0xff], 0x81),
        (&[0x30, 0xff, 0xff, 0xff, 0x7f], 0x95),
    ] {
        assert!(
            matches!(frame(bytes, max), Frame::Bad(error) if error.reason == reason),
            "{bytes:?}"
        );
    }
    assert!(matches!(frame(&[0x30, 0x10], 17), Frame::Bad(_)));
    assert_eq!(frame(&[0x30, 0x0f], 17), Frame::Incomplete { need: 17 });
}

#[test]
fn a_publish_that_breaks_a_rule_is_refused_with_its_reason() {
    for (version, flags, body, expected) in [
        (V3, 0x30, &b"\0\x01\0"[..], 0x81),
        (V3, 0x30, b"\0\x02\xc3\x28", 0x81),
        (V3, 0x30, b"\0\x03\xed\xa0\x80", 0x81),
        (V3, 0x30, b"\0\x03a/+", 0x90),
        (V3, 0x30, b"\0\x03a/#", 0x90),
        (V3, 0x30, b"\0\0", 0x82),
        (V5, 0x30, b"\0\0\0", 0x82),
        (V3, 0x38, b"\0\x01t", 0x81),
        (V3, 0x36, b"\0\x01t\0\x01", 0x81),
        (V3, 0x32, b"\0\x01t\0\0", 0x82),
        (V3, 0x32, b"\0\x01t\0", 0x81),
        (V3, 0x30, b"\0\x05t", 0x81),
        (V5, 0x30, b"\0\x01t\x03\x23\0\0", 0x94),
        (V5, 0x30, b"\0\x01t\x02\x0b\x01", 0x82),
        (V5, 0x30, b"\0\x01t\x02\x01\x02", 0x82),
        (V5, 0x30, b"\0\x01t\x04\x01\0\x01\0", 0x82),
        (V5, 0x30, b"\0\x01t\x05\x08\0\x02a#", 0x82),
        (V5, 0x30, b"\0\x01t\x03\x08\0\0", 0x82),
        (V5, 0x30, b"\0\x01t\x03\x11\0\0", 0x82),
        (V5, 0x30, b"\0\x01t\x80\x00", 0x81),
        (V5, 0x30, b"\0\x01t\x09\x26\0\x01a\0\x01b\0", 0x81),
        (V5, 0x30, b"\0\x01t\x07\x26\0\x01\0\0\x01b", 0x81),
        (V5, 0x30, b"\0\x01t\x7f\x26", 0x81),
    ] {
        assert_eq!(
            reason(version, flags, body),
            expected,
            "{version:?} {flags:#x} {body:?}"
        );
    }
}

#[test]
fn an_acknowledgement_that_breaks_a_rule_is_refused() {
    for (version, first, body, expected) in [
        (V3, 0x40, &[0, 0][..], 0x82),
        (V3, 0x40, &[0], 0x81),
        (V3, 0x40, &[0, 1, 0], 0x81),
        (V3, 0x41, &[0, 1], 0x81),
        (V3, 0x60, &[0, 1], 0x81),
        (V5, 0x40, &[0, 1, 0x01], 0x81),
        (V5, 0x62, &[0, 1, 0x10], 0x81),
        (V5, 0x40, &[0, 1, 0, 0, 0], 0x81),
        (V5, 0x40, &[0, 1, 0, 2, 0x11, 0], 0x82),
    ] {
        assert_eq!(
            reason(version, first, body),
            expected,
            "{version:?} {first:#x} {body:?}"
        );
    }
    assert!(matches!(
        decode(V5, &[0x40, 3, 0, 9, 0x87]),
        Ok(Incoming::Puback(9, 0x87))
    ));
    assert!(matches!(
        decode(V5, &[0x50, 4, 0, 9, 0, 0]),
        Ok(Incoming::Pubrec(9, 0))
    ));
    assert!(matches!(
        decode(V3, &[0x62, 2, 1, 0]),
        Ok(Incoming::Pubrel(256, 0))
    ));
    assert!(matches!(
        decode(V5, &[0x70, 3, 0, 1, 0x92]),
        Ok(Incoming::Pubcomp(1, 0x92))
    ));
}

#[test]
fn a_connect_that_breaks_a_rule_is_refused_with_its_reason() {
    let cases: &[(&str, Vec<u8>, u8)] = &[
        ("reserved flag", connect(0x03, b"\0\x01c", 4), 0x81),
        ("will QoS without will", connect(0x0a, b"\0\0\x01c", 5), 0x81),
        ("will retain without will", connect(0x22, b"\0\x01c", 4), 0x81),
        ("will QoS 3", connect(0x1e, b"\0\x01c\0\x01t\0\0", 4), 0x81),
        (
            "password without user name",
            connect(0x42, b"\0\x01c\0\x01p", 4),
            0x81,
        ),
        ("bytes behind", connect(0x02, b"\0\x01cx", 4), 0x81),
        ("U+0000 in the client id", connect(0x02, b"\0\x01\0", 4), 0x81),
        (
            "U+0000 in the user name",
            connect(0x82, b"\0\x01c\0\x01\0", 4),
            0x81,
        ),
        ("no client id for a kept session", connect(0x00, b"\0\0", 4), 0x85),
        (
            "a wildcard in the will topic",
            connect(0x06, b"\0\x01c\0\x01#\0\0", 4),
            0x90,
        ),
        ("an empty will topic", connect(0x06, b"\0\x01c\0\0\0\0", 4), 0x90),
        (
            "authentication data without method",
            connect(0x02, b"\x04\x16\0\x01x\0\x01c", 5),
            0x82,
        ),
        (
            "receive maximum 0",
            connect(0x02, b"\x03\x21\0\0\0\x01c", 5),
            0x82,
        ),
        (
            "maximum packet size 0",
            connect(0x02, b"\x05\x27\0\0\0\0\0\x01c", 5),
            0x82,
        ),
        (
            "a property twice",
            connect(0x02, b"\x06\x21\0\x01\x21\0\x01\0\x01c", 5),
            0x82,
        ),
        (
            "a PUBLISH property",
            connect(0x02, b"\x03\x23\0\x01\0\x01c", 5),
            0x82,
        ),
        (
            "U+0000 in a user property",
            connect(0x02, b"\x07\x26\0\x01\0\0\x01x\0\x01c", 5),
            0x81,
        ),
        (
            "flags of the header",
            [&[0x11][..], &connect(0x02, b"\0\x01c", 4)[1..]].concat(),
            0x81,
        ),
        ("version 3", connect(0x02, b"\0\x01c", 3), 0x84),
        ("version 6", connect(0x02, b"\0\0\x01c", 6), 0x84),
        (
            "another protocol",
            whole(0x10, b"\0\x04MQTX\x05\x02\0\0\0\0\x01c"),
            0x81,
        ),
    ];
    for (what, packet, expected) in cases {
        let error = decode_connect(packet)
            .map(|connect| format!("{connect:?}"))
            .unwrap_err();
        assert_eq!(error.reason, *expected, "{what}");
    }
}

#[test]
fn a_refused_connect_is_answered_in_a_version_its_sender_knows() {
    assert_eq!(answer_version(&connect(0x02, b"\0\x01c", 4)), Some(V3));
    assert_eq!(answer_version(&connect(0x02, b"\0\x01c", 3)), Some(V3));
    assert_eq!(answer_version(&connect(0x02, b"\0\0\x01c", 5)), Some(V5));
    assert_eq!(answer_version(&connect(0x02, b"\0\0\x01c", 7)), Some(V5));
    assert_eq!(
        answer_version(&whole(0x10, b"\0\x06MQIsdp\x03\x02\0\0\0\x01c")),
        Some(V3)
    );
    assert_eq!(answer_version(b"GET / HTTP/1.1"), None);
}

#[test]
fn a_connect_of_mqtt_5_is_read_whole() {
    let properties = b"\x11\0\0\0\x3c\x21\0\x05\x27\0\0\x10\0\x22\0\x07\x17\0\x15\0\x01m";
    let will = b"\x18\0\0\0\x09\x01\x01\x02\0\0\0\0\x03\0\x01j\x08\0\x01r\x09\0\x01d\x26\0\x01a\0\x01b";
    let packet = connect(
        0xf6,
        &[
            &[properties.len() as u8][..],
            properties,
            b"\0\x03dev",
            &[will.len() as u8],
            will,
            b"\0\x04will\0\x04gone\0\x05alice\0\x06secret",
        ]
        .concat(),
        5,
    );
    let connect = decode_connect(&packet).unwrap();
    assert_eq!(
        (&*connect.client_id, connect.clean_start, connect.session_expiry),
        ("dev", true, 60)
    );
    assert_eq!((connect.receive_maximum, connect.maximum_packet_size), (5, 4_096));
    assert_eq!(
        (connect.topic_alias_maximum, connect.request_problem_information),
        (7, false)
    );
    assert_eq!(connect.authentication_method.as_deref(), Some("m"));
    assert_eq!(
        (connect.username.as_deref(), connect.password.as_deref()),
        (Some("alice"), Some(&b"secret"[..]))
    );
    let will = connect.will.unwrap();
    assert_eq!(
        (&*will.topic, &will.payload[..], will.qos, will.retain),
        ("will", &b"gone"[..], 2, true)
    );
    assert_eq!(
        (will.delay, will.message_expiry),
        (9, Some(0)),
        "an expiry of 0 is legal"
    );
    let properties = will.properties.unwrap();
    assert_eq!(
        (properties.payload_is_utf8, &*properties.content_type),
        (Some(true), "j")
    );
    assert_eq!(
        (
            &*properties.response_topic,
            properties.correlation_data.as_deref()
        ),
        ("r", Some(&b"d"[..]))
    );
    assert_eq!(
        properties.user_properties,
        [UserProperty {
            name: "a".into(),
            value: "b".into()
        }]
    );
}

#[test]
fn an_empty_client_id_with_a_kept_session_is_legal_in_mqtt_5() {
    let connect = decode_connect(&connect(0x00, b"\0\0\0", 5)).unwrap();
    assert_eq!((&*connect.client_id, connect.clean_start), ("", false));
}

#[test]
fn a_kept_session_of_3_1_1_has_no_expiry_and_a_clean_one_ends_with_its_connection() {
    assert_eq!(
        decode_connect(&connect(0x00, b"\0\x01c", 4))
            .unwrap()
            .session_expiry,
        u32::MAX
    );
    assert_eq!(
        decode_connect(&connect(0x02, b"\0\x01c", 4))
            .unwrap()
            .session_expiry,
        0
    );
}

#[test]
fn a_subscribe_or_unsubscribe_that_breaks_a_rule_is_refused() {
    for (version, first, body, expected) in [
        (V3, 0x82, &b"\0\x01"[..], 0x82),
        (V3, 0x82, b"\0\0\0\x01a\0", 0x82),
        (V3, 0x82, b"\0\x01\0\x01a\x04", 0x81),
        (V3, 0x82, b"\0\x01\0\x01a\x03", 0x81),
        (V3, 0x82, b"\0\x01\0\x01a", 0x81),
        (V3, 0x82, b"\0\x01\0\x01\0\0", 0x81),
        (V3, 0x82, b"\0\x01\0\0\0", 0x82),
        (V3, 0x80, b"\0\x01\0\x01a\0", 0x81),
        (V5, 0x82, b"\0\x01\0\0\x01a\x40", 0x81),
        (V5, 0x82, b"\0\x01\0\0\x01a\x30", 0x81),
        (V5, 0x82, b"\0\x01\x02\x0b\0\0\x01a\0", 0x82),
        (V5, 0x82, b"\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0", 0x82),
        (V5, 0x82, b"\0\x01\x02\x01\0\0\x01a\0", 0x82),
        (V3, 0xa2, b"\0\x01", 0x82),
        (V3, 0xa2, b"\0\x01\0\x01\0", 0x81),
        (V3, 0xa2, b"\0\x01\0\x01a\0", 0x81),
        (V5, 0xa2, b"\0\x01\0", 0x82),
        (V5, 0xa2, b"\0\x01\x02\x0b\x01\0\x01a", 0x82),
    ] {
        assert_eq!(
            reason(version, first, body),
            expected,
            "{version:?} {first:#x} {body:?}"
        );
    }
    let Ok(Incoming::Subscribe {
        packet_id,
        filters,
        subscription_id,
    }) = decode(V5, &whole(0x82, b"\0\x07\x02\x0b\x09\0\x03a/#\x2d"))
    else {
        panic!("a legal SUBSCRIBE");
    };
    assert_eq!((packet_id, subscription_id, filters.len()), (7, Some(9), 1));
    let filter = &filters[0];
    assert_eq!((&*filter.filter, filter.qos, filter.no_local), ("a/#", 1, true));
    assert_eq!((filter.retain_as_published, filter.retain_handling), (true, 2));
}

#[test]
fn packets_without_a_body_have_none_and_unknown_ones_do_not_exist() {
    for (version, first, body, expected) in [
        (V3, 0xc0, &[0][..], 0x81),
        (V5, 0xc0, &[0], 0x81),
        (V3, 0xe0, &[0], 0x81),
        (V5, 0xe0, &[0x01], 0x81),
        (V5, 0xe0, &[0, 0, 0], 0x81),
        (V5, 0xe0, &[0, 3, 0x21, 0, 1], 0x82),
        (V3, 0xf0, &[], 0x81),
        (V5, 0xf0, &[0x01], 0x81),
        (V3, 0x00, &[], 0x81),
        (V3, 0x20, &[0, 0], 0x82),
        (V3, 0x90, &[0, 1, 0], 0x82),
        (V3, 0xb0, &[0, 1], 0x82),
        (V3, 0xd0, &[], 0x82),
    ] {
        assert_eq!(
            reason(version, first, body),
            expected,
            "{version:?} {first:#x} {body:?}"
        );
    }
    assert!(
        matches!(decode(V5, &[0xf0, 0]), Ok(Incoming::Auth(auth)) if auth.reason == 0 && auth.method.is_empty())
    );
    assert!(matches!(decode(V3, &[0xc0, 0]), Ok(Incoming::Pingreq)));
    let ended = decode(V5, &whole(0xe0, &[4, 5, 0x11, 0, 0, 0, 7]));
    assert!(matches!(
        ended,
        Ok(Incoming::Disconnect {
            reason: 4,
            session_expiry: Some(7)
        })
    ));
    assert!(matches!(
        decode(V5, &[0xe0, 0]),
        Ok(Incoming::Disconnect {
            reason: 0,
            session_expiry: None
        })
    ));
}
