//! The small values of the JSON forms: the words of closed lists, and times.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use crate::proto::chat;

/// A closed list that is words in JSON and an enum in protobuf. `None` of `from_proto`: unspecified or unknown.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident of $proto:ty { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Its protobuf value.
            pub fn to_proto(self) -> $proto {
                match self {
                    $(Self::$variant => <$proto>::$variant,)+
                }
            }

            /// `None`: unspecified, or of a later version.
            pub fn from_proto(value: i32) -> Option<Self> {
                match <$proto>::try_from(value) {
                    $(Ok(<$proto>::$variant) => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

words!(
    /// Kind of content.
    #[derive(Default)]
    ContentType of chat::ContentType {
        /// A string.
        #[default]
        Text,
        /// A media object.
        Image,
        /// A media object.
        Video,
        /// A media object.
        File,
        /// Base64 (standard alphabet, padded) of what only the members' devices can read.
        Encrypted,
    }
);
words!(
    /// What a member may do.
    Role of chat::Role {
        /// Read, write, leave.
        Member,
        /// Also change the group and who is in it.
        Admin,
    }
);
words!(
    /// What changed about a member.
    MemberOp of chat::MemberOp {
        /// Came in.
        Added,
        /// Was taken out.
        Removed,
        /// Left.
        Left,
        /// Has another role.
        Role,
    }
);
words!(
    /// What happened to a conversation.
    ConversationOp of chat::ConversationOp {
        /// It came to be.
        Created,
        /// Its name or description changed.
        Changed,
    }
);

/// Which kind of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// Of two users.
    OneOnOne,
    /// With a name and roles.
    Group,
}

impl ConversationKind {
    /// Its word, which protobuf has too.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneOnOne => "one_on_one",
            Self::Group => "group",
        }
    }

    /// `None`: not one of the words.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::OneOnOne, Self::Group]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// The one content encoding there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base64 {
    /// Standard alphabet, padded.
    Base64,
}

/// Milliseconds since 1970; in JSON RFC 3339 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

const FORMAT: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The last millisecond that has a year of four digits.
const LAST: u64 = 253_402_300_799_999;

impl Timestamp {
    /// A time in RFC 3339, any offset; what is finer than a millisecond is cut. `None`: not that form, or before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .ok()?
            .to_offset(UtcOffset::UTC);
        u64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000))
            .ok()
            .filter(|ms| *ms <= LAST)
            .map(Self)
    }
}

impl std::fmt::Display for Timestamp {
    /// Years over 9999 are shown as the last millisecond before them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = i128::from(self.0.min(LAST)) * 1_000_000;
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| std::fmt::Error)?;
        f.write_str(&time.format(FORMAT).map_err(|_| std::fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a time is RFC 3339"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds_and_are_read_with_any_offset() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp(1_767_323_045_678).to_string(),
            "2026-01-02T03:04:05.678Z"
        );
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        let read = Timestamp::parse("2026-01-02T04:04:05.678999+01:00");
        assert_eq!(read, Some(Timestamp(1_767_323_045_678)));
        assert_eq!(Timestamp::parse("1969-12-31T23:59:59.999Z"), None);
        assert_eq!(Timestamp::parse("2026-01-02"), None);
    }

    #[test]
    fn closed_lists_go_to_protobuf_and_back_and_unspecified_is_none() {
        for kind in [
            ContentType::Text,
            ContentType::Image,
            ContentType::File,
            ContentType::Encrypted,
        ] {
            assert_eq!(ContentType::from_proto(kind.to_proto() as i32), Some(kind));
        }
        assert_eq!(ContentType::from_proto(0), None);
        assert_eq!(ContentType::from_proto(99), None);
        assert_eq!(
            ConversationKind::from_name("group"),
            Some(ConversationKind::Group)
        );
        assert_eq!(ConversationKind::from_name("channel"), None);
    }
}
