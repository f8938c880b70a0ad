//! A recorded run in memory, lean enough for millions of records: names as numbers, ids and contents as 64-bit
//! hashes, each fact with the line it came from. Only the shapes; reading is in `read`, judging in `rules`.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;

/// A hash of an id or a content; 0 stands for "absent". At ten million ids the chance that any two meet is 3 in
/// a million.
pub(crate) type Key = u64;

/// The hash of a string, never 0.
pub(crate) fn key(text: &str) -> Key {
    BuildHasherDefault::<DefaultHasher>::default()
        .hash_one(text)
        .max(1)
}

pub(crate) fn key_or_0(text: Option<&str>) -> Key {
    text.map_or(0, key)
}

/// A line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) file: u16,
    pub(crate) line: u32,
}

/// Strings that repeat much, as numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
}

impl Names {
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }

    pub(crate) fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("?", |text| text)
    }
}

/// How an attempt ended as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unknown,
    Acked,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) t: u64,
    /// When it was acknowledged or refused; `u64::MAX` if never.
    pub(crate) answered: u64,
    pub(crate) sender: u32,
    pub(crate) conversation: u32,
    pub(crate) client_id: Key,
    pub(crate) hash: Key,
    pub(crate) outcome: Outcome,
    pub(crate) at: At,
}

#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) attempt: u32,
    pub(crate) message: Key,
    /// 0 if the door did not tell.
    pub(crate) seq: u32,
    pub(crate) at: At,
}

/// A message, or another event with `message` 0 and `hash` 0, in an inbox.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) t: u64,
    pub(crate) message: Key,
    pub(crate) hash: Key,
    pub(crate) client_id: Key,
    pub(crate) session: u32,
    pub(crate) conversation: u32,
    /// 0 if the form does not tell.
    pub(crate) seq: u32,
    /// 0 if the form does not tell.
    pub(crate) inbox: u32,
    /// `NOBODY` if the form does not tell.
    pub(crate) sender: u32,
    pub(crate) at: At,
}

/// In place of a user's number.
pub(crate) const NOBODY: u32 = u32::MAX;

/// A place in a mailbox taken by something that is no message.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) session: u32,
    pub(crate) inbox: u32,
    /// Of type, conversation and number together.
    pub(crate) identity: Key,
    pub(crate) at: At,
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u32,
    pub(crate) is_message: bool,
    pub(crate) acked: bool,
    pub(crate) sender: u32,
    pub(crate) message: Key,
    pub(crate) client_id: Key,
    pub(crate) hash: Key,
    pub(crate) at: At,
}

#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// In the order in which they were listed.
    pub(crate) history: Vec<Stored>,
    pub(crate) read: bool,
    pub(crate) members: Vec<Interval>,
}

#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) user: u32,
    pub(crate) joined: u32,
    pub(crate) left: u32,
}

impl Interval {
    pub(crate) fn covers(&self, seq: u32) -> bool {
        self.joined < seq && seq <= self.left
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    pub(crate) from: u32,
    pub(crate) no_local: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) user: Option<u32>,
    pub(crate) drained: Option<Drained>,
    pub(crate) connects: Vec<u64>,
    /// Conversations of which it was told that entries are missing; `None` stands for any.
    pub(crate) gaps: Vec<Option<u32>>,
    pub(crate) subscriptions: Vec<Subscription>,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) t: u64,
    pub(crate) filter: u32,
    pub(crate) qos: u8,
}

#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) t: u64,
    pub(crate) publisher: u32,
    pub(crate) topic: u32,
    pub(crate) qos: u8,
    pub(crate) acked: bool,
    /// When it was acknowledged; `u64::MAX` if never.
    pub(crate) answered: u64,
    pub(crate) at: At,
}

#[derive(Debug)]
pub(crate) struct TopicDelivery {
    pub(crate) t: u64,
    pub(crate) session: u32,
    /// Index of the publish, or `None` if nobody published this id.
    pub(crate) publish: Option<u32>,
    pub(crate) topic: u32,
    pub(crate) at: At,
}

/// All that was recorded.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) names: Names,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) acks: Vec<Ack>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) others: Vec<Other>,
    /// (sender, client id or else content) of sends answered by a `refused` event.
    pub(crate) refused_events: std::collections::HashSet<(u32, Key)>,
    pub(crate) conversations: HashMap<u32, Conversation>,
    pub(crate) sessions: HashMap<u32, Session>,
    pub(crate) kills: Vec<u64>,
    pub(crate) publishes: Vec<Publish>,
    pub(crate) topic_deliveries: Vec<TopicDelivery>,
    pub(crate) records: u64,
    pub(crate) dup_flags: u64,
    pub(crate) by_door: std::collections::BTreeMap<String, u64>,
}

impl Run {
    /// The place of a record, for people.
    pub(crate) fn place(&self, at: At) -> String {
        let file = self
            .files
            .get(usize::from(at.file))
            .and_then(|path| path.file_name());
        format!(
            "{}:{}",
            file.map_or("?".into(), |name| name.to_string_lossy()),
            at.line
        )
    }
}
