//! What a client asks for in a send or a read: decoded from its three encodings, checked, and named by a digest. Who may
//! send it, and where to, is not known here.

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::code::{Code, Refusal};
use crate::command::Send;
use crate::ids::MessageId;
use crate::json::{self, ContentRef, ContentType, ReadBody, SendBody};
use crate::limits::{CLIENT_MESSAGE_ID_BYTES, MESSAGE_BYTES};
use crate::proto::chat::{self, send_request};
use crate::topic::Encoding;

/// The parts of a [`Send`] that come from its payload, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SendParts {
    /// 1–64 bytes.
    pub client_message_id: Option<Box<str>>,
    /// Which of the content types; agrees with the content.
    pub content_type: chat::ContentType,
    /// Not empty, at most [`MESSAGE_BYTES`].
    pub content: send_request::Content,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
}

impl SendParts {
    /// Decodes and checks a payload of `c/{conv}/send…`. Refused as `malformed` or `too_large`.
    pub fn decode(encoding: Encoding, payload: &Bytes) -> Result<Self, Refusal> {
        match encoding {
            Encoding::Proto => {
                let request = chat::SendRequest::decode(payload.clone())
                    .map_err(|_| bad("the payload is not a protobuf SendRequest"))?;
                Self::of_request(request)
            }
            Encoding::Json => Self::of_body(&json::parse(payload)?),
            Encoding::Text => {
                let text = std::str::from_utf8(payload).map_err(|_| bad("the text is not UTF-8"))?;
                Self::checked(
                    None,
                    chat::ContentType::Text,
                    send_request::Content::Text(text.to_owned()),
                    None,
                )
            }
        }
    }

    /// Checks a body of POST message.
    pub fn of_body(body: &SendBody<'_>) -> Result<Self, Refusal> {
        let content = body
            .content
            .to_proto(body.content_type)
            .map_err(|_| mismatch(body.content_type))?;
        let id = body.client_message_id.as_deref();
        Self::checked(id, body.content_type.to_proto(), content, body.reply_to)
    }

    fn of_request(request: chat::SendRequest) -> Result<Self, Refusal> {
        let content_type = match request.content_type {
            0 => ContentType::Text,
            other => ContentType::from_proto(other).ok_or_else(|| bad("the content type is unknown"))?,
        };
        let content = request.content.ok_or_else(|| bad("there is no content"))?;
        let reply_to = json::reply_to(&request.reply_to).map_err(|_| bad("reply_to is not a message id"))?;
        let id = Some(&*request.client_message_id).filter(|id| !id.is_empty());
        Self::checked(id, content_type.to_proto(), content, reply_to)
    }

    fn checked(
        id: Option<&str>,
        content_type: chat::ContentType,
        content: send_request::Content,
        reply_to: Option<MessageId>,
    ) -> Result<Self, Refusal> {
        check_content(content_type, &content)?;
        Ok(Self {
            client_message_id: id.map(client_message_id).transpose()?,
            content_type,
            content,
            reply_to,
        })
    }

    /// Takes the id that came beside the payload (PUBLISH user property `client_message_id`, `Idempotency-Key`).
    /// Refused as `malformed` if it is not 1–64 bytes, or the payload has another one.
    pub fn identified_by(mut self, beside: Option<&str>) -> Result<Self, Refusal> {
        let Some(beside) = beside.map(client_message_id).transpose()? else {
            return Ok(self);
        };
        match &self.client_message_id {
            Some(inside) if *inside != beside => Err(bad(
                "two different client message ids are given, in the payload and beside it",
            )),
            _ => {
                self.client_message_id = Some(beside);
                Ok(self)
            }
        }
    }

    /// Names what is asked for: the same id with another digest is a conflict.
    pub fn digest(&self) -> [u8; 16] {
        content_digest(self.content_type, &self.content, self.reply_to)
    }
}

impl Send {
    /// Names what is asked for; kept in the message's row.
    pub fn digest(&self) -> [u8; 16] {
        content_digest(self.content_type, &self.content, self.reply_to)
    }
}

/// Decodes a payload of `c/{conv}/read…` into the position that was read up to. Refused as `malformed`.
pub fn decode_read(encoding: Encoding, payload: &Bytes) -> Result<u64, Refusal> {
    match encoding {
        Encoding::Json => json::parse::<ReadBody>(payload).map(|body| body.up_to),
        Encoding::Proto => chat::ReadRequest::decode(payload.clone())
            .map(|request| request.up_to)
            .map_err(|_| bad("the payload is not a protobuf ReadRequest")),
        Encoding::Text => Err(Refusal::not_found()),
    }
}

/// SHA-256, its first 16 bytes, over content type, content and reply, each with its length: the same whichever encoding
/// it came in. Part of the stored format, never changes.
pub fn content_digest(
    content_type: chat::ContentType,
    content: &send_request::Content,
    reply_to: Option<MessageId>,
) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"godwit content 1\0");
    hash.update((content_type as i32).to_be_bytes());
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(reply_to.as_ref().map_or(&[][..], |id| id.0.as_bytes()));
    match ContentRef::from(content) {
        ContentRef::Text(text) => field(text.as_bytes()),
        ContentRef::Ciphertext(bytes) => field(bytes),
        ContentRef::Media(media) => {
            field(&media.media_id);
            field(media.mime_type.as_bytes());
            field(&media.size.to_be_bytes());
            field(media.caption.as_bytes());
        }
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}

fn check_content(content_type: chat::ContentType, content: &send_request::Content) -> Result<(), Refusal> {
    use chat::ContentType::{Encrypted, File, Image, Text, Video};
    let size = match (content_type, ContentRef::from(content)) {
        (Text, ContentRef::Text(text)) => text.len(),
        (Encrypted, ContentRef::Ciphertext(bytes)) => bytes.len(),
        // Nobody could fetch it: there is no place for media yet.
        (Image | Video | File, ContentRef::Media(_)) => return Err(bad("media is not served yet")),
        (other, _) => return Err(ContentType::from_proto(other as i32).map_or_else(no_type, mismatch)),
    };
    match size {
        0 => Err(bad("the content is empty")),
        1..=MESSAGE_BYTES => Ok(()),
        _ => Err(Refusal::new(
            Code::TooLarge,
            format!("the content has {size} bytes, at most {MESSAGE_BYTES} are taken"),
        )),
    }
}

fn client_message_id(id: &str) -> Result<Box<str>, Refusal> {
    match id.len() {
        1..=CLIENT_MESSAGE_ID_BYTES => Ok(id.into()),
        _ => Err(bad("a client message id has 1 to 64 bytes")),
    }
}

fn mismatch(content_type: ContentType) -> Refusal {
    bad(match content_type {
        ContentType::Text => "content of type text is a string",
        ContentType::Encrypted => "content of type encrypted is bytes, in JSON a string in base64",
        ContentType::Image | ContentType::Video | ContentType::File => {
            "content of type image, video or file is a media object"
        }
    })
}

fn no_type() -> Refusal {
    bad("the content type is unknown")
}

fn bad(detail: &'static str) -> Refusal {
    Refusal::new(Code::Malformed, detail)
}
