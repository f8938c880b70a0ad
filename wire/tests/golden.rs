//! Every form of tests/golden/ by both encoders and both decoders. The files are the contract: when one of these tests
//! fails, the code is wrong, unless docs/protocol.md changes with it. A `.hex` was not written by this code.

#![allow(clippy::unwrap_used)] // a test may

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use godwit_wire::code::Code;
use godwit_wire::command::LoggedEntry;
use godwit_wire::content::{SendParts, decode_read};
use godwit_wire::entry::{RetryKeys, event_proto, event_text, inbox_proto, inbox_text};
use godwit_wire::json::{self, EventJson, inbox_json};
use godwit_wire::proto::chat::{self, inbox_event};
use godwit_wire::topic::Encoding;
use prost::Message as _;
use serde_json::Value;

const EVENTS: [&str; 14] = [
    "message",
    "message-plain",
    "message-image",
    "message-encrypted",
    "member-added",
    "member-left",
    "member-role",
    "conversation-created",
    "conversation-direct",
    "refused",
    "refused-binary",
    "gap",
    "gap-mailbox",
    "receipt",
];
const SENDS: [&str; 4] = ["send", "send-plain", "send-encrypted", "send-image"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn json_of(name: &str) -> Bytes {
    std::fs::read(folder().join(format!("{name}.json")))
        .unwrap()
        .into()
}

fn proto_of(name: &str) -> Bytes {
    let hex = std::fs::read_to_string(folder().join(format!("{name}.hex"))).unwrap();
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect::<Vec<_>>().into()
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

fn event(name: &str) -> chat::InboxEvent {
    chat::InboxEvent::decode(proto_of(name)).unwrap()
}

/// The entry that a golden event is of, if it is of one.
fn entry(name: &str) -> Option<LoggedEntry> {
    match event(name).event.unwrap() {
        inbox_event::Event::Message(message) => Some(LoggedEntry::message(message).unwrap()),
        inbox_event::Event::Member(member) => Some(LoggedEntry::member(member).unwrap()),
        _ => None,
    }
}

#[test]
fn every_file_is_checked_by_a_test() {
    let found: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let checked: BTreeSet<String> = EVENTS
        .iter()
        .chain(&SENDS)
        .chain(&["read"])
        .flat_map(|name| [format!("{name}.json"), format!("{name}.hex")])
        .collect();
    assert_eq!(found, checked);
}

#[test]
fn an_event_in_protobuf_becomes_the_golden_json() {
    for name in EVENTS {
        let event = event(name);
        let json = inbox_json(event.inbox_seq, &EventJson::of_event(&event).unwrap());
        assert_eq!(value(&json), value(&json_of(name)), "{name}");
        let text = String::from_utf8(json).unwrap();
        assert!(text.starts_with("{\"type\":\""), "{text}");
    }
}

#[test]
fn an_event_in_json_becomes_the_golden_protobuf() {
    for name in EVENTS {
        let read: json::InboxEvent<'_> = json::parse(&json_of(name)).unwrap();
        let event = chat::InboxEvent::try_from(&read).unwrap();
        assert_eq!(event.encode_to_vec(), proto_of(name), "{name}");
        assert_eq!(event_proto(event.inbox_seq, &event), proto_of(name), "{name}");
        assert_eq!(
            serde_json::to_value(&read).unwrap(),
            value(&json_of(name)),
            "{name}"
        );
    }
}

#[test]
fn an_entry_is_spliced_into_the_same_bytes_that_encoding_it_whole_gives() {
    let mut entries = 0;
    for name in EVENTS {
        let Some(entry) = entry(name) else { continue };
        entries += 1;
        let whole = event(name);
        assert_eq!(inbox_proto(whole.inbox_seq, &entry), proto_of(name), "{name}");
        assert_eq!(
            EventJson::of_entry(&entry).unwrap(),
            EventJson::of_event(&whole).unwrap(),
            "{name}"
        );
    }
    assert_eq!(entries, 7);
}

#[test]
fn an_entry_comes_back_from_its_row_with_its_retry_keys() {
    let both = RetryKeys {
        retry_key: Some([7; 16]),
        content_digest: Some([9; 16]),
        member_name: Some("bob".into()),
    };
    for entry in EVENTS.into_iter().filter_map(entry) {
        for keys in [both.clone(), RetryKeys::default()] {
            let row = entry.to_stored(&keys);
            assert_eq!(LoggedEntry::from_stored(row).unwrap(), (entry.clone(), keys));
        }
    }
}

#[test]
fn a_send_and_a_read_mean_the_same_in_every_encoding() {
    for name in SENDS {
        let from_json = SendParts::decode(Encoding::Json, &json_of(name));
        let from_proto = SendParts::decode(Encoding::Proto, &proto_of(name));
        assert_eq!(from_json, from_proto, "{name}");
        let served = name != "send-image";
        assert_eq!(
            from_json.as_ref().map_err(|refusal| refusal.code).err(),
            (!served).then_some(Code::Malformed)
        );
        if let (Ok(json), Ok(proto)) = (from_json, from_proto) {
            assert_eq!(json.digest(), proto.digest());
        }
        let body: json::SendBody<'_> = json::parse(&json_of(name)).unwrap();
        let content = body.content.to_proto(body.content_type).unwrap();
        assert_eq!(
            Some(content),
            chat::SendRequest::decode(proto_of(name)).unwrap().content,
            "{name}"
        );
    }
    let plain = SendParts::decode(Encoding::Text, &Bytes::from_static(b"hi"));
    assert_eq!(plain, SendParts::decode(Encoding::Json, &json_of("send-plain")));
    assert_eq!(decode_read(Encoding::Json, &json_of("read")), Ok(17));
    assert_eq!(decode_read(Encoding::Proto, &proto_of("read")), Ok(17));
}

#[test]
fn in_bare_text_a_message_is_its_senders_name_and_its_text() {
    let text = |name| inbox_text(&entry(name).unwrap());
    assert_eq!(text("message-plain").as_deref(), Some("alice: hi"));
    assert_eq!(
        text("message-image").as_deref(),
        Some("alice: [image] the harbour")
    );
    assert_eq!(text("message-encrypted").as_deref(), Some("alice: [encrypted]"));
    assert_eq!(text("member-added"), None);
    assert_eq!(
        event_text(&event("refused-binary")).as_deref(),
        Some("! refused: malformed c/@bob/send")
    );
    assert!(event_text(&event("gap")).unwrap().starts_with('!'));
    assert_eq!(event_text(&event("receipt")), None);
}
