//! The JSON forms of the contract and the payloads of send and read: what is taken keeps its meaning through JSON,
//! protobuf and back, keeps to the limits, and a refusal repeats nothing of the body.

use bytes::Bytes;
use godwit_wire::code::Refusal;
use godwit_wire::content::{SendParts, decode_read};
use godwit_wire::json::{self, ContentType, EventJson, InboxEvent, ReadBody, SendBody, inbox_json};
use godwit_wire::limits::{CLIENT_MESSAGE_ID_BYTES, MESSAGE_BYTES};
use godwit_wire::proto::chat::{self, send_request};
use godwit_wire::topic::Encoding;
use prost::Message as _;
use serde::de::DeserializeOwned;

/// The first byte says which form the rest is; with its upper bit it is a body that only REST has.
pub fn json(bytes: &[u8]) {
    let Some((form, body)) = bytes.split_first() else {
        return;
    };
    if form & 0x80 != 0 {
        if let Some(refusal) = godwit_history_api::fuzz_body(form & 0x7f, body) {
            repeats_nothing(&refusal);
        }
        return;
    }
    match form & 7 {
        0 | 1 => send_body(body),
        2 => {
            let _ = decode_read(Encoding::Proto, &Bytes::copy_from_slice(body));
            let read = decode_read(Encoding::Json, &Bytes::copy_from_slice(body));
            assert_eq!(read.ok(), parsed::<ReadBody>(body).map(|read| read.up_to));
        }
        3 => {
            for encoding in [Encoding::Proto, Encoding::Text] {
                if let Ok(parts) = SendParts::decode(encoding, &Bytes::copy_from_slice(body)) {
                    within_limits(&parts);
                }
            }
        }
        4 => {
            if let Ok(event) = chat::InboxEvent::decode(body)
                && let Ok(json) = EventJson::of_event(&event)
            {
                let _: InboxEvent<'_> = reads(&inbox_json(event.inbox_seq, &json));
            }
        }
        _ => inbox_event(body),
    }
}

fn reads<T: DeserializeOwned>(body: &[u8]) -> T {
    match json::parse(body) {
        Ok(value) => value,
        Err(refusal) => panic!(
            "what we wrote is refused: {} {}",
            refusal.detail,
            body.escape_ascii()
        ),
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    json::parse(body)
        .map_err(|refusal| repeats_nothing(&refusal))
        .ok()
}

/// Names of fields that may be told missing: ours, never the body's.
const FIELDS: &[&str] = &[
    "after",
    "by",
    "code",
    "content",
    "content_type",
    "conversation_id",
    "conversation_type",
    "created_at",
    "current_password",
    "delivered_up_to",
    "description",
    "display_name",
    "email",
    "event",
    "media_id",
    "members",
    "message_id",
    "mime_type",
    "name",
    "new_password",
    "op",
    "password",
    "read_up_to",
    "refresh_token",
    "role",
    "scopes",
    "sender_id",
    "sequence_number",
    "size",
    "state",
    "status",
    "topic",
    "type",
    "up_to",
    "user_id",
    "username",
];

/// A refusal is one of the sentences that there are.
fn repeats_nothing(refusal: &Refusal) {
    let detail = &*refusal.detail;
    let field = detail
        .strip_prefix("the field `")
        .and_then(|rest| rest.strip_suffix("` is missing"));
    let at = |begin: &str| {
        let place = detail.strip_prefix(begin).and_then(|rest| rest.strip_suffix(')'));
        place.is_some_and(|place| {
            place
                .replace(" column ", "")
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b',')
        })
    };
    let known = field.is_some_and(|field| FIELDS.contains(&field))
        || at("a field has the wrong type or value (line ")
        || at("this is not JSON (line ")
        || detail == "the JSON ends too early"
        || detail.starts_with("`content` is a string, or for media an object");
    assert!(known, "a refusal that may repeat the body: {detail:?}");
}

fn within_limits(parts: &SendParts) {
    let size = match &parts.content {
        send_request::Content::Text(text) => text.len(),
        send_request::Content::Ciphertext(bytes) => bytes.len(),
        send_request::Content::Media(_) => panic!("there is no place for media"),
    };
    assert!((1..=MESSAGE_BYTES).contains(&size));
    let id = parts.client_message_id.as_deref().map_or(1, str::len);
    assert!((1..=CLIENT_MESSAGE_ID_BYTES).contains(&id));
}

fn send_body(body: &[u8]) {
    let sent = SendParts::decode(Encoding::Json, &Bytes::copy_from_slice(body));
    let Some(form) = parsed::<SendBody<'static>>(body) else {
        assert!(sent.is_err());
        return;
    };
    let written = serde_json::to_vec(&form).unwrap_or_default();
    assert_eq!(
        reads::<SendBody<'static>>(&written),
        form,
        "written and read again"
    );
    let Ok(parts) = SendParts::of_body(&form) else {
        assert!(sent.is_err());
        return;
    };
    assert_eq!(sent.as_ref().ok(), Some(&parts), "the same by MQTT and REST");
    within_limits(&parts);
    let request = chat::SendRequest {
        client_message_id: parts.client_message_id.as_deref().unwrap_or_default().into(),
        content_type: parts.content_type as i32,
        content: Some(parts.content.clone()),
        reply_to: parts.reply_to.map(|id| id.to_bytes()).unwrap_or_default(),
    };
    let again = SendParts::decode(Encoding::Proto, &request.encode_to_vec().into());
    assert_eq!(again.as_ref().ok(), Some(&parts), "the same in protobuf");
    assert_eq!(again.map(|again| again.digest()).ok(), Some(parts.digest()));
    assert!(ContentType::from_proto(parts.content_type as i32).is_some());
    let _ = parts.identified_by(form.client_message_id.as_deref());
}

fn inbox_event(body: &[u8]) {
    let Some(event) = parsed::<InboxEvent<'static>>(body) else {
        return;
    };
    let written = serde_json::to_vec(&event).unwrap_or_default();
    assert_eq!(
        reads::<InboxEvent<'static>>(&written),
        event,
        "written and read again"
    );
    let Ok(proto) = chat::InboxEvent::try_from(&event) else {
        return;
    };
    let decoded = chat::InboxEvent::decode(&*proto.encode_to_vec());
    assert_eq!(decoded.as_ref().ok(), Some(&proto));
    let json = match EventJson::of_event(&proto) {
        Ok(json) => json,
        Err(error) => panic!("{error}: an event that came from JSON does not go back"),
    };
    let again: InboxEvent<'static> = reads(&inbox_json(proto.inbox_seq, &json));
    assert_eq!(
        chat::InboxEvent::try_from(&again).as_ref(),
        Ok(&proto),
        "the same after a round"
    );
}
