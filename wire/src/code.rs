//! The one closed list of error codes. Only this file knows HTTP statuses and MQTT reason codes.

use std::borrow::Cow;

/// Why something was refused; docs/protocol.md has the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// No credential, or one that is not valid.
    Unauthenticated,
    /// Not there, or not yours.
    NotFound,
    /// Seen, but the role for it is missing.
    Forbidden,
    /// Does not have the form of the contract.
    Malformed,
    /// An ordinary topic name over its limits.
    TopicForm,
    /// Contradicts what is there.
    Conflict,
    /// Over a size limit.
    TooLarge,
    /// Too often.
    RateLimited,
    /// Too many.
    Quota,
    /// Not acknowledged, which is not "not stored": the same id finds out.
    Unavailable,
}

impl Code {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::Unauthenticated,
        Self::NotFound,
        Self::Forbidden,
        Self::Malformed,
        Self::TopicForm,
        Self::Conflict,
        Self::TooLarge,
        Self::RateLimited,
        Self::Quota,
        Self::Unavailable,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Malformed => "malformed",
            Self::TopicForm => "topic_form",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Quota => "quota",
            Self::Unavailable => "unavailable",
        }
    }

    /// HTTP status.
    pub fn http(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::Forbidden => 403,
            Self::Malformed | Self::TopicForm => 400,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited | Self::Quota => 429,
            Self::Unavailable => 503,
        }
    }

    /// Reason code of a PUBACK or PUBREC (MQTT 5, 3.4.2.1). A connection that is not authenticated has none to send.
    pub fn puback(self) -> u8 {
        match self {
            Self::NotFound | Self::Forbidden | Self::Unauthenticated => 0x87,
            Self::Malformed => 0x99,
            Self::TopicForm => 0x90,
            Self::Conflict | Self::TooLarge | Self::Unavailable => 0x83,
            Self::RateLimited | Self::Quota => 0x97,
        }
    }

    /// Whether the same request may succeed later.
    pub fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Quota | Self::Unavailable)
    }
}

/// A refusal: a code and a sentence for people, which never holds a message body or a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name())]
pub struct Refusal {
    /// What kind.
    pub code: Code,
    /// One sentence.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }

    /// "Not there", which is also the answer to "not yours".
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "there is no such thing here")
    }

    /// The store or a home does not answer in time.
    pub fn unavailable() -> Self {
        Self::new(
            Code::Unavailable,
            "not acknowledged in time; retry with the same id to find out",
        )
    }
}
