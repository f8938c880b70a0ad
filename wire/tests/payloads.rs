//! What a send or a read must be, what is said of those that are not, and that no bytes make a decoder panic.

#![allow(clippy::unwrap_used)] // a test may

use bytes::Bytes;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::LoggedEntry;
use godwit_wire::content::{SendParts, content_digest, decode_read};
use godwit_wire::entry::DecodeError;
use godwit_wire::ids::MessageId;
use godwit_wire::json;
use godwit_wire::limits::MESSAGE_BYTES;
use godwit_wire::proto::chat::{ContentType, Media, SendRequest, send_request};
use godwit_wire::proto::stored::LogEntry;
use godwit_wire::topic::Encoding;
use proptest::prelude::*;
use prost::Message as _;

fn send(encoding: Encoding, payload: impl Into<Vec<u8>>) -> Result<SendParts, Refusal> {
    SendParts::decode(encoding, &payload.into().into())
}

fn refused(encoding: Encoding, payload: impl Into<Vec<u8>>) -> (Code, String) {
    let refusal = send(encoding, payload).unwrap_err();
    (refusal.code, refusal.detail.into_owned())
}

fn proto(request: &SendRequest) -> Vec<u8> {
    request.encode_to_vec()
}

#[test]
fn a_refused_body_is_told_why_without_being_quoted() {
    for (body, said) in [
        ("", "the JSON ends too early"),
        ("{\"content\":\"sec", "the JSON ends too early"),
        ("secret", "this is not JSON (line 1, column 1)"),
        ("{}", "the field `content` is missing"),
        (
            "{\"content\":{\"mime_type\":\"a/b\"}}",
            "the field `media_id` is missing",
        ),
        (
            "{\"content\":5}",
            "`content` is a string, or for media an object with media_id, mime_type and size",
        ),
        (
            "{\"content\":\"hi\",\"content_type\":\"secret\"}",
            "a field has the wrong type or value",
        ),
        (
            "{\"content\":\"hi\",\"reply_to\":\"secret\"}",
            "a field has the wrong type or value",
        ),
        (
            "{\"content\":\"hi\",\"client_message_id\":\"\"}",
            "a client message id has 1 to 64 bytes",
        ),
        ("{\"content\":\"\"}", "the content is empty"),
        (
            "{\"content\":\"secret!\",\"content_type\":\"encrypted\"}",
            "content of type encrypted is bytes",
        ),
        (
            "{\"content\":\"hi\",\"content_type\":\"image\"}",
            "content of type image, video or file is a media object",
        ),
        ("\"secret\"", "a field has the wrong type or value"),
        (
            "{\"content\":\"a\",\"content\":\"secret\"}",
            "a field has the wrong type or value",
        ),
    ] {
        let (code, detail) = refused(Encoding::Json, body);
        assert_eq!(code, Code::Malformed, "{body}");
        assert!(detail.starts_with(said), "{body}: {detail}");
        assert!(!detail.contains("sec"), "{detail}");
    }
}

#[test]
fn content_must_be_of_its_type_in_protobuf_too() {
    let text = || Some(send_request::Content::Text("hi".into()));
    let bytes = || Some(send_request::Content::Ciphertext(Bytes::from_static(b"hi")));
    for (content_type, content) in [
        (0, None),
        (0, bytes()),
        (1, bytes()),
        (2, text()),
        (5, text()),
        (6, text()),
        (-1, text()),
    ] {
        let request = SendRequest {
            content_type,
            content,
            ..SendRequest::default()
        };
        assert_eq!(
            refused(Encoding::Proto, proto(&request)).0,
            Code::Malformed,
            "{request:?}"
        );
    }
    let request = SendRequest {
        content: text(),
        reply_to: Bytes::from_static(b"short"),
        ..SendRequest::default()
    };
    assert_eq!(
        refused(Encoding::Proto, proto(&request)).1,
        "reply_to is not a message id"
    );
    assert_eq!(refused(Encoding::Proto, "\u{7}").0, Code::Malformed);
    assert_eq!(refused(Encoding::Text, [0xff]).1, "the text is not UTF-8");
    let unspecified = SendRequest {
        content: text(),
        ..SendRequest::default()
    };
    assert_eq!(
        send(Encoding::Proto, proto(&unspecified)).unwrap().content_type,
        ContentType::Text
    );
}

#[test]
fn the_size_limit_counts_the_content_and_not_its_encoding() {
    let longest = "\"".repeat(MESSAGE_BYTES);
    let body = |text: &str| serde_json::json!({ "content": text }).to_string();
    assert!(body(&longest).len() > MESSAGE_BYTES);
    assert!(send(Encoding::Json, body(&longest)).is_ok());
    assert!(send(Encoding::Text, longest.clone()).is_ok());
    let over = format!("{longest}x");
    assert_eq!(refused(Encoding::Json, body(&over)).0, Code::TooLarge);
    assert_eq!(refused(Encoding::Text, over.clone()).0, Code::TooLarge);
    let request = SendRequest {
        content_type: 5,
        content: Some(send_request::Content::Ciphertext(over.into())),
        ..SendRequest::default()
    };
    assert_eq!(refused(Encoding::Proto, proto(&request)).0, Code::TooLarge);
}

#[test]
fn a_client_message_id_counts_bytes_and_comes_from_one_place() {
    let with = |id: &str| {
        send(
            Encoding::Json,
            serde_json::json!({"content": "hi", "client_message_id": id}).to_string(),
        )
    };
    assert!(with(&"é".repeat(32)).is_ok());
    assert_eq!(
        with(&format!("{}x", "é".repeat(32))).unwrap_err().code,
        Code::Malformed
    );
    let plain = || send(Encoding::Text, "hi").unwrap();
    let id = |parts: Result<SendParts, Refusal>| parts.map(|parts| parts.client_message_id);
    assert_eq!(id(plain().identified_by(None)), Ok(None));
    assert_eq!(id(plain().identified_by(Some("a"))), Ok(Some("a".into())));
    assert_eq!(plain().identified_by(Some("")).unwrap_err().code, Code::Malformed);
    assert_eq!(
        plain().identified_by(Some(&"x".repeat(65))).unwrap_err().code,
        Code::Malformed
    );
    assert_eq!(
        id(with("a").unwrap().identified_by(Some("a"))),
        Ok(Some("a".into()))
    );
    assert_eq!(id(with("a").unwrap().identified_by(None)), Ok(Some("a".into())));
    assert_eq!(
        with("a").unwrap().identified_by(Some("b")).unwrap_err().code,
        Code::Malformed
    );
}

#[test]
fn the_digest_tells_every_part_apart_and_stays_what_it_is() {
    use send_request::Content::{Ciphertext, Text};
    let media = |mime: &str, caption: &str| {
        send_request::Content::Media(Media {
            media_id: Bytes::from_static(&[1; 16]),
            mime_type: mime.into(),
            size: 1,
            caption: caption.into(),
        })
    };
    let reply = Some(MessageId::from_slice(&[1; 16]).unwrap());
    let digests = [
        content_digest(ContentType::Text, &Text("hi".into()), None),
        content_digest(ContentType::Text, &Text("hi ".into()), None),
        content_digest(ContentType::Text, &Text("hi".into()), reply),
        content_digest(
            ContentType::Encrypted,
            &Ciphertext(Bytes::from_static(b"hi")),
            None,
        ),
        content_digest(ContentType::Image, &media("ab", "c"), None),
        content_digest(ContentType::Image, &media("a", "bc"), None),
        content_digest(ContentType::File, &media("a", "bc"), None),
    ];
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "{at}");
    }
    let hex: String = digests[0].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "e78b147a84d2260b85d0326a15ab14fe");
}

#[test]
fn a_read_is_a_number_and_has_no_bare_text() {
    assert_eq!(
        decode_read(Encoding::Json, &Bytes::from_static(b"{\"up_to\":17,\"later\":1}")),
        Ok(17)
    );
    for bad in ["{}", "{\"up_to\":-1}", "{\"up_to\":\"17\"}", "17"] {
        let refusal = decode_read(Encoding::Json, &Bytes::copy_from_slice(bad.as_bytes())).unwrap_err();
        assert_eq!(refusal.code, Code::Malformed, "{bad}");
    }
    assert_eq!(
        decode_read(Encoding::Text, &Bytes::from_static(b"17"))
            .unwrap_err()
            .code,
        Code::NotFound
    );
}

#[test]
fn a_row_that_is_no_entry_is_an_error() {
    let none = LogEntry::default().encode_to_vec();
    assert_eq!(
        LoggedEntry::from_stored(none.into()),
        Err(DecodeError::Field("entry"))
    );
    // An empty message: present, but without ids.
    assert_eq!(
        LoggedEntry::from_stored(Bytes::from_static(&[0x0a, 0])),
        Err(DecodeError::Field("conversation_id"))
    );
    assert!(matches!(
        LoggedEntry::from_stored(Bytes::from_static(&[0x0a, 9])),
        Err(DecodeError::Protobuf(_))
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        for encoding in [Encoding::Proto, Encoding::Json, Encoding::Text] {
            let _ = (SendParts::decode(encoding, &bytes), decode_read(encoding, &bytes));
        }
        let _ = LoggedEntry::from_stored(bytes.clone());
        let _ = json::parse::<json::InboxEvent<'_>>(&bytes);
    }

    #[test]
    fn text_means_the_same_in_all_three_encodings(text in "\\PC{1,80}", id in "[a-z0-9]{1,64}") {
        let body = serde_json::json!({"content": text, "client_message_id": id}).to_string();
        let request = SendRequest {
            client_message_id: id.clone(),
            content: Some(send_request::Content::Text(text.clone())),
            ..SendRequest::default()
        };
        let expected = send(Encoding::Text, text).unwrap().identified_by(Some(&id));
        prop_assert_eq!(&send(Encoding::Json, body), &expected);
        prop_assert_eq!(&send(Encoding::Proto, proto(&request)), &expected);
    }
}
