//! Commands and answers as nodes send them to each other (`peer.v1`): to protobuf and back. What is shared by several
//! commands of a frame (a publish to thousands, a message to a group) stands in it once. Links and routing are elsewhere.

mod accounts;
mod chat;
mod search;
mod sessions;
mod topics;
pub mod weight;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::code::{Code, Refusal};
use crate::command::{Answer, Command, LoggedEntry, Named, Publish};
use crate::entry::RetryKeys;
use crate::ids::{ConversationId, Key, MessageId, SessionId, UserId};
use crate::proto::peer::{self, answer, key, request};

/// A frame that is not one of this protocol, or of a newer version that this node cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer sent something without a proper `{0}`")]
pub struct DecodeError(pub &'static str);

type Result<T> = std::result::Result<T, DecodeError>;

/// A request of another node.
#[derive(Clone, Debug)]
pub struct PeerRequest {
    /// Named in the answer; 0: nobody waits.
    pub id: u64,
    /// The view by which the sender chose this node.
    pub view: u64,
    /// For whom.
    pub key: Key,
    /// What.
    pub command: Command,
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub enum PeerAnswer {
    /// What the key's home answered.
    Answer(Answer),
    /// Nothing was done: the key is not that node's. It may be asked of the right one.
    Moved,
}

/// A frame being filled.
#[derive(Debug, Default)]
pub struct FrameWriter {
    frame: peer::Frame,
    // By address: what they point to is kept alive by `kept`.
    publishes: HashMap<usize, u32>,
    entries: HashMap<usize, u32>,
    kept: Vec<Kept>,
}

#[derive(Debug)]
enum Kept {
    Publish(#[expect(dead_code, reason = "held for its address")] Arc<Publish>),
    Entry(#[expect(dead_code, reason = "held for its address")] Arc<LoggedEntry>),
}

impl FrameWriter {
    /// Adds a request. A copy for one worker ([`Key::WildcardCopy`]) never leaves its node: refused.
    pub fn request(&mut self, id: u64, view: u64, key: &Key, command: &Command) -> Result<()> {
        let key = Some(peer::Key {
            key: Some(match key {
                Key::User(user) => key::Key::User(user.to_bytes()),
                Key::Conversation(conversation) => key::Key::Conversation(conversation.to_bytes()),
                Key::Topic(levels) => key::Key::Topic(levels.to_string()),
                Key::Wildcards => key::Key::Wildcards(peer::Unit {}),
                Key::Node(start) => key::Key::Node(Bytes::copy_from_slice(start.as_bytes())),
                Key::WildcardCopy(_) => return Err(DecodeError("key")),
            }),
        });
        let command = Some(match command {
            Command::Account(command) => request::Command::Account(accounts::command_out(command)),
            Command::User(command) => request::Command::User(chat::user_out(command, self)),
            Command::Conversation(command) => request::Command::Conversation(chat::conversation_out(command)),
            Command::Topic(command) => request::Command::Topic(topics::command_out(command, self)),
            Command::Search(command) => request::Command::Search(search::command_out(command)),
        });
        let request = peer::Request {
            id,
            view,
            key,
            command,
        };
        self.frame.requests.push(request);
        Ok(())
    }

    /// Adds an answer.
    pub fn answer(&mut self, id: u64, answer: &PeerAnswer) {
        let answer = Some(match answer {
            PeerAnswer::Moved => answer::Answer::Moved(peer::Unit {}),
            PeerAnswer::Answer(answer) => answer_out(answer),
        });
        self.frame.answers.push(peer::Answer { id, answer });
    }

    /// Allows the other side so many requests more.
    pub fn credit(&mut self, requests: u32) {
        self.frame.credit = self.frame.credit.saturating_add(requests);
    }

    /// Whether there is anything to send.
    pub fn is_empty(&self) -> bool {
        self.frame.requests.is_empty() && self.frame.answers.is_empty() && self.frame.credit == 0
    }

    /// What was gathered.
    pub fn finish(self) -> peer::Frame {
        self.frame
    }

    fn publish(&mut self, publish: &Arc<Publish>) -> u32 {
        let next = self.frame.publishes.len() as u32;
        let at = *self
            .publishes
            .entry(Arc::as_ptr(publish) as usize)
            .or_insert(next);
        if at == next {
            self.frame.publishes.push(topics::publish_out(publish));
            self.kept.push(Kept::Publish(publish.clone()));
        }
        at
    }

    fn entry(&mut self, entry: &Arc<LoggedEntry>) -> u32 {
        let next = self.frame.entries.len() as u32;
        let at = *self.entries.entry(Arc::as_ptr(entry) as usize).or_insert(next);
        if at == next {
            self.frame.entries.push(entry_out(entry));
            self.kept.push(Kept::Entry(entry.clone()));
        }
        at
    }
}

/// What a frame holds, in order.
#[derive(Debug, Default)]
pub struct FrameContent {
    /// Requests; what cannot be read is an error with its id, so that its sender can be told.
    pub requests: Vec<std::result::Result<PeerRequest, (u64, DecodeError)>>,
    /// Answers; what cannot be read reads as `unavailable`.
    pub answers: Vec<(u64, PeerAnswer)>,
    /// So many requests more may be sent.
    pub credit: u32,
}

/// Reads a frame.
pub fn read_frame(frame: peer::Frame) -> FrameContent {
    let publish = |publish| topics::publish_in(publish).map(Arc::new);
    let entry = |row| entry_in(row).map(Arc::new);
    let shared = Shared {
        publishes: frame.publishes.into_iter().map(publish).collect(),
        entries: frame.entries.into_iter().map(entry).collect(),
    };
    let request = |request: peer::Request| {
        let id = request.id;
        request_in(request, &shared).map_err(|error| (id, error))
    };
    let answer = |answer: peer::Answer| {
        let id = answer.id;
        // The asker has waited for it: no worse an answer than none.
        let unreadable = |_| PeerAnswer::Answer(Refusal::unavailable().into());
        (id, answer_in(answer).unwrap_or_else(unreadable))
    };
    FrameContent {
        requests: frame.requests.into_iter().map(request).collect(),
        answers: frame.answers.into_iter().map(answer).collect(),
        credit: frame.credit,
    }
}

/// What stands in a frame once.
struct Shared {
    publishes: Vec<Result<Arc<Publish>>>,
    entries: Vec<Result<Arc<LoggedEntry>>>,
}

impl Shared {
    fn publish(&self, at: u32) -> Result<Arc<Publish>> {
        let found = self.publishes.get(at as usize);
        found.cloned().unwrap_or(Err(DecodeError("publish")))
    }

    fn entry(&self, at: u32) -> Result<Arc<LoggedEntry>> {
        let found = self.entries.get(at as usize);
        found.cloned().unwrap_or(Err(DecodeError("entry")))
    }
}

fn request_in(request: peer::Request, shared: &Shared) -> Result<PeerRequest> {
    let key = match need(request.key.and_then(|key| key.key), "key")? {
        key::Key::User(id) => Key::User(user(&id)?),
        key::Key::Conversation(id) => Key::Conversation(conversation(&id)?),
        key::Key::Topic(levels) => Key::Topic(levels.into()),
        key::Key::Wildcards(_) => Key::Wildcards,
        key::Key::Node(start) => Key::Node(Uuid::from_slice(&start).map_err(|_| DecodeError("node"))?),
    };
    let command = match need(request.command, "command")? {
        request::Command::Account(command) => Command::Account(Box::new(accounts::command_in(command)?)),
        request::Command::User(command) => Command::User(chat::user_in(command, shared)?),
        request::Command::Conversation(command) => Command::Conversation(chat::conversation_in(command)?),
        request::Command::Topic(command) => Command::Topic(topics::command_in(command, shared)?),
        request::Command::Search(command) => Command::Search(Box::new(search::command_in(command)?)),
    };
    Ok(PeerRequest {
        id: request.id,
        view: request.view,
        key,
        command,
    })
}

fn answer_out(answer: &Answer) -> answer::Answer {
    match answer {
        Answer::Refused(refusal) => answer::Answer::Refused(refusal_out(refusal)),
        Answer::Done => answer::Answer::Done(peer::Unit {}),
        Answer::Account(answer) => answer::Answer::Account(accounts::answer_out(answer)),
        Answer::Sent(sent) => answer::Answer::Sent(chat::sent_out(sent)),
        Answer::Conversation(info) => answer::Answer::Conversation(chat::info_out(info)),
        Answer::History(page) => answer::Answer::History(peer::HistoryPage {
            entries: page.entries.iter().map(|entry| entry_out(entry)).collect(),
            has_more: page.has_more,
        }),
        Answer::Status(watermarks) => answer::Answer::Status(peer::Watermarks {
            watermarks: watermarks.iter().map(chat::watermark_out).collect(),
        }),
        Answer::Visible(intervals) => answer::Answer::Visible(peer::Intervals {
            intervals: intervals
                .iter()
                .map(|&(from, to)| peer::Interval { from, to })
                .collect(),
        }),
        Answer::Kept { gone } => answer::Answer::Kept(peer::Kept {
            gone: gone.iter().map(|session| session.to_bytes()).collect(),
        }),
        Answer::Sessions(of) => answer::Answer::Sessions(sessions::sessions_out(of)),
        Answer::Away => answer::Answer::Away(peer::Unit {}),
        Answer::Published { matched, routes } => answer::Answer::Published(peer::Published {
            matched: *matched,
            routes: *routes,
        }),
        Answer::PublishRefused { refusal, routes } => answer::Answer::PublishRefused(peer::PublishRefused {
            refusal: Some(refusal_out(refusal)),
            routes: *routes,
        }),
        Answer::Retained(publishes) => answer::Answer::Retained(peer::Publishes {
            publishes: publishes
                .iter()
                .map(|publish| topics::publish_out(publish))
                .collect(),
        }),
        Answer::Confirmed(up_to) => answer::Answer::Confirmed(*up_to),
        Answer::Found(found) => answer::Answer::Found(search::found_out(found)),
    }
}

fn answer_in(answer: peer::Answer) -> Result<PeerAnswer> {
    let answer = match need(answer.answer, "answer")? {
        answer::Answer::Moved(_) => return Ok(PeerAnswer::Moved),
        answer::Answer::Refused(refusal) => Answer::Refused(refusal_in(refusal)),
        answer::Answer::Done(_) => Answer::Done,
        answer::Answer::Account(answer) => Answer::Account(Box::new(accounts::answer_in(answer)?)),
        answer::Answer::Sent(sent) => Answer::Sent(chat::sent_in(&sent)?),
        answer::Answer::Conversation(info) => Answer::Conversation(Box::new(chat::info_in(info)?)),
        answer::Answer::History(page) => Answer::History(crate::command::HistoryPage {
            entries: all(page.entries, |row| entry_in(row).map(Arc::new))?,
            has_more: page.has_more,
        }),
        answer::Answer::Status(status) => Answer::Status(all(status.watermarks, chat::watermark_in)?),
        answer::Answer::Visible(visible) => {
            Answer::Visible(visible.intervals.iter().map(|i| (i.from, i.to)).collect())
        }
        answer::Answer::Kept(kept) => Answer::Kept {
            gone: all(kept.gone, |id| session(&id))?,
        },
        answer::Answer::Sessions(of) => Answer::Sessions(sessions::sessions_in(of)?),
        answer::Answer::Away(_) => Answer::Away,
        answer::Answer::Published(published) => Answer::Published {
            matched: published.matched,
            routes: published.routes,
        },
        answer::Answer::PublishRefused(refused) => Answer::PublishRefused {
            refusal: refusal_in(need(refused.refusal, "refusal")?),
            routes: refused.routes,
        },
        answer::Answer::Retained(retained) => Answer::Retained(all(retained.publishes, |publish| {
            topics::publish_in(publish).map(Arc::new)
        })?),
        answer::Answer::Confirmed(up_to) => Answer::Confirmed(up_to),
        answer::Answer::Found(found) => Answer::Found(Box::new(search::found_in(found)?)),
    };
    Ok(PeerAnswer::Answer(answer))
}

fn refusal_out(refusal: &Refusal) -> peer::Refusal {
    peer::Refusal {
        code: refusal.code.name().to_owned(),
        detail: refusal.detail.to_string(),
    }
}

/// A code of a later version reads as `unavailable`, the one that promises nothing.
fn refusal_in(refusal: peer::Refusal) -> Refusal {
    let code = Code::ALL.into_iter().find(|code| code.name() == refusal.code);
    Refusal {
        code: code.unwrap_or(Code::Unavailable),
        detail: Cow::Owned(refusal.detail),
    }
}

fn entry_out(entry: &LoggedEntry) -> Bytes {
    entry.to_stored(&RetryKeys::default())
}

fn entry_in(row: Bytes) -> Result<LoggedEntry> {
    let read = LoggedEntry::from_stored(row).map_err(|_| DecodeError("entry"))?;
    Ok(read.0)
}

fn named_out(named: &Named) -> peer::Named {
    peer::Named {
        user: named.user.to_bytes(),
        name: named.name.to_string(),
    }
}

fn named_in(named: Option<peer::Named>) -> Result<Named> {
    let named = need(named, "user")?;
    Ok(Named {
        user: user(&named.user)?,
        name: named.name.into(),
    })
}

fn need<T>(value: Option<T>, field: &'static str) -> Result<T> {
    value.ok_or(DecodeError(field))
}

fn all<T, U>(values: Vec<T>, read: impl Fn(T) -> Result<U>) -> Result<Vec<U>> {
    values.into_iter().map(read).collect()
}

fn user(bytes: &[u8]) -> Result<UserId> {
    need(UserId::from_slice(bytes), "user")
}

fn conversation(bytes: &[u8]) -> Result<ConversationId> {
    need(ConversationId::from_slice(bytes), "conversation")
}

fn session(bytes: &[u8]) -> Result<SessionId> {
    need(SessionId::from_slice(bytes), "session")
}

fn message(bytes: &[u8]) -> Result<MessageId> {
    need(MessageId::from_slice(bytes), "message")
}

fn uuid(bytes: &[u8]) -> Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| DecodeError("id"))
}

fn uuid_out(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn hash<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| DecodeError("hash"))
}

/// Empty bytes stand for nothing.
fn optional<T>(bytes: &[u8], read: impl Fn(&[u8]) -> Result<T>) -> Result<Option<T>> {
    (!bytes.is_empty()).then(|| read(bytes)).transpose()
}
