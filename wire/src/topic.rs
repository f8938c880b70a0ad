//! The grammar of topic names and filters (docs/protocol.md, the MQTT table), the reference matcher, and the rule by
//! which a filter is granted. Says what a name means, never who may use it: that is the doors' and the ACL's.

use std::borrow::Cow;

use uuid::Uuid;

use crate::code::{Code, Refusal};
use crate::ids::{ConversationId, Key};
use crate::limits::{SHARE_NAME_BYTES, TOPIC_BYTES, TOPIC_LEVELS};

/// How a payload is written: the suffix of the reserved topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Protobuf; no suffix.
    Proto,
    /// `/json`.
    Json,
    /// `/text`: bare UTF-8. Only of `send` and `me/inbox`.
    Text,
}

impl Encoding {
    fn of_suffix(suffix: Option<&str>) -> Option<Self> {
        match suffix {
            None => Some(Self::Proto),
            Some("json") => Some(Self::Json),
            Some("text") => Some(Self::Text),
            Some(_) => None,
        }
    }

    /// As [`Self::of_suffix`], for forms that have no bare text.
    fn structured(suffix: Option<&str>) -> Option<Self> {
        Self::of_suffix(suffix).filter(|encoding| *encoding != Self::Text)
    }
}

/// The conversation a `c/…` topic names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationName<'a> {
    /// `c/{conv}/…`
    Id(ConversationId),
    /// `c/@{user name}/…`: the publisher's one-to-one conversation with that user.
    With(&'a str),
}

/// What a PUBLISH is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishTopic<'a> {
    /// `c/{conv}/send[/json|/text]`: a message.
    Send(ConversationName<'a>, Encoding),
    /// `c/{conv}/read[/json]`: the publisher's read watermark.
    Read(ConversationName<'a>, Encoding),
    /// Ordinary MQTT, within the limits. Whether it is allowed is the ACL's to say.
    Ordinary(&'a str),
}

/// What a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterTopic<'a> {
    /// `me/inbox[/json|/text]`.
    Inbox(Encoding),
    /// Ordinary MQTT, valid. Never matches a reserved first level. Whether it is allowed is the ACL's to say.
    Ordinary(&'a str),
    /// `$share/{name}/{filter}`: a shared subscription to ordinary topics. Here is its inner filter, as of `Ordinary`.
    Shared(&'a str),
}

/// What a shared subscription's filter begins with (MQTT 5, 4.8.2).
const SHARE: &str = "$share/";

/// Why a topic name or filter is refused by its form alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicRefusal {
    /// A reserved first level in a form that does not exist: the answer is that to "not yours".
    #[error("there is no such thing here")]
    NotFound,
    /// A reserved form of the contract that this version does not serve yet.
    #[error("this topic is not served yet")]
    NotYet,
    /// An ordinary name or filter, or a shared one, that is empty, over its limits, or has a wildcard or U+0000 where
    /// none may be.
    #[error("the topic is empty, too long, too deep, or has a wildcard or U+0000 where none may be")]
    Form,
}

impl TopicRefusal {
    /// The code that names it on the wire.
    pub fn code(self) -> Code {
        match self {
            Self::NotFound | Self::NotYet => Code::NotFound,
            Self::Form => Code::TopicForm,
        }
    }
}

impl From<TopicRefusal> for Refusal {
    fn from(refusal: TopicRefusal) -> Self {
        match refusal {
            TopicRefusal::NotFound => Self::not_found(),
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

/// Whether a topic, filter or first level is under one of the reserved first levels: `c`, `p`, `u`, `me`, `$…`.
pub fn is_reserved_first_level(topic: &str) -> bool {
    let bytes = topic.as_bytes();
    match bytes.first() {
        Some(b'$') => true,
        Some(b'c' | b'p' | b'u') => matches!(bytes.get(1), None | Some(b'/')),
        Some(b'm') => bytes.get(1) == Some(&b'e') && matches!(bytes.get(2), None | Some(b'/')),
        _ => false,
    }
}

/// What the topic name of a PUBLISH means.
pub fn classify_publish(topic: &str) -> Result<PublishTopic<'_>, TopicRefusal> {
    if !is_reserved_first_level(topic) {
        return if is_topic_name(topic) {
            Ok(PublishTopic::Ordinary(topic))
        } else {
            Err(TopicRefusal::Form)
        };
    }
    let levels = Few::of(topic).ok_or(TopicRefusal::NotFound)?;
    match levels.as_slice() {
        ["c", conversation, verb, suffix @ ..] => {
            let name = conversation_name(conversation).ok_or(TopicRefusal::NotFound)?;
            match (*verb, suffix) {
                ("send", suffix) => one_suffix(suffix)
                    .and_then(Encoding::of_suffix)
                    .map(|encoding| PublishTopic::Send(name, encoding))
                    .ok_or(TopicRefusal::NotFound),
                ("read", suffix) => one_suffix(suffix)
                    .and_then(Encoding::structured)
                    .map(|encoding| PublishTopic::Read(name, encoding))
                    .ok_or(TopicRefusal::NotFound),
                ("react", [] | ["json"]) | ("typing", []) => Err(TopicRefusal::NotYet),
                _ => Err(TopicRefusal::NotFound),
            }
        }
        ["p", "me", device] if is_literal(device) => Err(TopicRefusal::NotYet),
        _ => Err(TopicRefusal::NotFound),
    }
}

/// What a filter of a SUBSCRIBE or UNSUBSCRIBE means.
pub fn classify_filter(filter: &str) -> Result<FilterTopic<'_>, TopicRefusal> {
    if !is_reserved_first_level(filter) {
        return if is_filter(filter) {
            Ok(FilterTopic::Ordinary(filter))
        } else {
            Err(TopicRefusal::Form)
        };
    }
    if filter == "$share" || filter.starts_with(SHARE) {
        return classify_shared(filter);
    }
    let levels = Few::of(filter).ok_or(TopicRefusal::NotFound)?;
    match levels.as_slice() {
        ["me", "inbox", suffix @ ..] => one_suffix(suffix)
            .and_then(Encoding::of_suffix)
            .map(FilterTopic::Inbox)
            .ok_or(TopicRefusal::NotFound),
        ["me", "live"] | ["me", "live", "json"] => Err(TopicRefusal::NotYet),
        ["c", conversation, "typing", "+"]
        | ["c", conversation, "log"]
        | ["c", conversation, "log", "json"]
            if conversation_name(conversation).is_some() =>
        {
            Err(TopicRefusal::NotYet)
        }
        ["p", user] if is_literal(user) => Err(TopicRefusal::NotYet),
        _ => Err(TopicRefusal::NotFound),
    }
}

/// A shared subscription: to a reserved first level there is none.
fn classify_shared(filter: &str) -> Result<FilterTopic<'_>, TopicRefusal> {
    match shared(filter) {
        Some((_, inner)) if is_reserved_first_level(inner) => Err(TopicRefusal::NotFound),
        Some((name, inner)) if is_literal(name) && name.len() <= SHARE_NAME_BYTES && is_filter(inner) => {
            Ok(FilterTopic::Shared(inner))
        }
        _ => Err(TopicRefusal::Form),
    }
}

/// Name and inner filter of `$share/{name}/{filter}`; `None` if it is no shared subscription. Checks neither.
pub fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix(SHARE)?.split_once('/')
}

/// The filter that topics are matched against: a shared subscription's inner one.
pub fn inner_filter(filter: &str) -> &str {
    shared(filter).map_or(filter, |(_, inner)| inner)
}

/// Levels of a reserved topic, of which the longest form has four: no allocation for them.
struct Few<'a> {
    levels: [&'a str; 4],
    len: usize,
}

impl<'a> Few<'a> {
    fn of(topic: &'a str) -> Option<Self> {
        let mut few = Self {
            levels: [""; 4],
            len: 0,
        };
        for level in topic.split('/') {
            *few.levels.get_mut(few.len)? = level;
            few.len += 1;
        }
        Some(few)
    }

    fn as_slice(&self) -> &[&'a str] {
        &self.levels[..self.len]
    }
}

fn one_suffix<'a>(levels: &[&'a str]) -> Option<Option<&'a str>> {
    match levels {
        [] => Some(None),
        [suffix] => Some(Some(suffix)),
        _ => None,
    }
}

fn conversation_name(level: &str) -> Option<ConversationName<'_>> {
    match level.strip_prefix('@') {
        Some(name) if is_user_name(name) => Some(ConversationName::With(name)),
        Some(_) => None,
        None => level.parse().ok().map(ConversationName::Id),
    }
}

fn is_literal(level: &str) -> bool {
    !level.is_empty() && !level.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0))
}

/// Whether this is a user name: `[a-z0-9][a-z0-9._-]{1,31}`, neither `me` nor a UUID in any of its forms.
pub fn is_user_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (2..=32).contains(&bytes.len())
        && plain(&bytes[0])
        && bytes[1..]
            .iter()
            .all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && name != "me"
        && Uuid::try_parse(name).is_err()
}

/// Whether this is a topic name within [`TOPIC_BYTES`] and [`TOPIC_LEVELS`], without wildcard and U+0000.
/// Says nothing of reserved first levels.
pub fn is_topic_name(topic: &str) -> bool {
    if topic.is_empty() || topic.len() > TOPIC_BYTES {
        return false;
    }
    let mut levels = 1;
    for byte in topic.bytes() {
        match byte {
            b'+' | b'#' | 0 => return false,
            b'/' => levels += 1,
            _ => {}
        }
    }
    levels <= TOPIC_LEVELS
}

/// Whether this is a topic filter by MQTT 5, 4.7, within [`TOPIC_BYTES`] and [`TOPIC_LEVELS`]: a wildcard fills its
/// level, `#` is the last. Says nothing of reserved first levels and shared subscriptions.
pub fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > TOPIC_BYTES {
        return false;
    }
    let mut count = 0;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        count += 1;
        let fine = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            literal => !literal.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0)),
        };
        if !fine || count > TOPIC_LEVELS {
            return false;
        }
    }
    true
}

/// Whether a valid filter matches a valid topic name: MQTT 5, 4.7. `a/#` matches `a`; a wildcard in the first level
/// never matches a reserved first level. This is the reference; the broker's topic tree must agree with it.
pub fn matches(filter: &str, topic: &str) -> bool {
    if is_reserved_first_level(topic) && filter.starts_with(['+', '#']) {
        return false;
    }
    // What is alike is passed in one go; where a level is a wildcard, or they part, it is looked at. In a valid filter a
    // wildcard is its level's only character.
    let (filter, topic) = (filter.as_bytes(), topic.as_bytes());
    let (mut at, mut place) = (0, 0);
    loop {
        let same = alike(
            filter.get(at..).unwrap_or_default(),
            topic.get(place..).unwrap_or_default(),
        );
        (at, place) = (at + same, place + same);
        match (filter.get(at), topic.get(place)) {
            (None, None) => return true,
            (Some(b'#'), _) => return true,
            (Some(b'+'), _) => {
                let rest = topic.get(place..).unwrap_or_default();
                place += rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
                at += 1;
            }
            // The parent: the filter goes on with `/#`.
            (Some(b'/'), None) => return filter.get(at + 1) == Some(&b'#'),
            _ => return false,
        }
    }
}

/// How many bytes at the beginning of both are the same.
fn alike(one: &[u8], other: &[u8]) -> usize {
    // Eight at a time: filters of many levels share long beginnings.
    let mut same = 0;
    for (one, other) in one.chunks_exact(8).zip(other.chunks_exact(8)) {
        if one != other {
            break;
        }
        same += 8;
    }
    let rest = one.iter().zip(other).skip(same);
    same + rest.take_while(|(one, other)| one == other).count()
}

/// Whether every topic that `filter` can match is matched by `allow`: only then is a subscription granted (SCOPE).
/// Both are valid filters.
pub fn covers(allow: &str, filter: &str) -> bool {
    let (mut allowed, mut wanted) = (allow.split('/'), filter.split('/'));
    let mut depth = 0;
    while let Some(level) = allowed.next() {
        let wanted = wanted.next();
        // A wildcard in the first level of `allow` leaves the reserved ones out; one of `filter` does so itself.
        let hidden = depth == 0 && is_reserved_first_level(filter);
        match (level, wanted) {
            ("#", _) => return !hidden,
            // Deeper `#` also matches the parent, `+` does not. But every topic has a first level, and none is empty: there, and
            // behind an empty first one, `#` is `+/#`.
            ("+", Some("#")) if depth == 0 || (depth == 1 && filter == "/#") => {
                return allowed.next() == Some("#");
            }
            ("+", Some(wanted)) if wanted != "#" && !hidden => {}
            (literal, Some(wanted)) if literal == wanted => {}
            _ => return false,
        }
        depth += 1;
    }
    wanted.next().is_none()
}

/// Whose key a filter's route is under; a shared subscription's is under that of its inner filter. `Wildcards` if there
/// is a wildcard in its first two levels; else every topic it matches has the same key.
pub fn filter_key(filter: &str) -> Key {
    let filter = inner_filter(filter);
    if filter.split('/').take(2).any(|level| matches!(level, "+" | "#")) {
        Key::Wildcards
    } else {
        Key::of_topic(filter)
    }
}

/// An ACL pattern with `%u` and `%c` filled in. `None`: it matches nothing, because a value it asks for is empty or
/// holds `/`, `+`, `#` or U+0000. What is filled in is not looked at for more of them.
pub fn expand_acl<'a>(pattern: &'a str, user_name: &str, client_id: &str) -> Option<Cow<'a, str>> {
    if !pattern.contains('%') {
        return Some(Cow::Borrowed(pattern));
    }
    let mut expanded = String::with_capacity(pattern.len() + user_name.len() + client_id.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        expanded.push_str(&rest[..at]);
        let value = match rest.as_bytes().get(at + 1) {
            Some(b'u') => user_name,
            Some(b'c') => client_id,
            _ => {
                expanded.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        };
        if !is_literal(value) || value.contains('/') {
            return None;
        }
        expanded.push_str(value);
        rest = &rest[at + 2..];
    }
    expanded.push_str(rest);
    Some(Cow::Owned(expanded))
}
