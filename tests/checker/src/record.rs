//! The forms of the recorded lines: what drivers of a test write down, one JSON object a line. The fields' meaning
//! is the contract between recorder and checker; nothing is judged here.
//!
//! Every record has `kind` and `t`, nanoseconds of one monotonic clock shared by all recorders of a run. Ids and
//! names are strings of any form. Unknown fields are ignored, unknown kinds refused. Where a content `hash` is asked,
//! any string serves that is equal exactly when the contents are; each logical send must have a content of its own,
//! because sends without a client message id are told apart by it.

use std::borrow::Cow;

use serde::Deserialize;

type Text<'a> = Cow<'a, str>;

/// One line.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record<'a> {
    /// A client asks. Written before the first byte leaves.
    #[serde(borrow)]
    Send(Send<'a>),
    /// The door said yes to that attempt.
    #[serde(borrow)]
    Ack(Ack<'a>),
    /// The door said no, or nobody knows what came of it.
    #[serde(borrow)]
    Fail(Fail<'a>),
    /// A session of a user got a message.
    #[serde(borrow)]
    Recv(Recv<'a>),
    /// A session of a user got another inbox event.
    #[serde(borrow)]
    Event(Event<'a>),
    /// A conversation's history as it is at the end, or a page of it; pages in order, each position once.
    #[serde(borrow)]
    History(History<'a>),
    /// Who was a member when.
    #[serde(borrow)]
    Members(Members<'a>),
    /// A process of the system was killed.
    Kill {
        /// When.
        t: u64,
    },
    /// A session connected, the first time or again.
    Connect {
        /// When.
        t: u64,
        /// Which.
        #[serde(borrow)]
        session: Text<'a>,
    },
    /// The session was drained: nothing more came for it at the end of the run. Only drained sessions are asked for
    /// what they were owed.
    #[serde(borrow)]
    End(End<'a>),
    /// A persistent session's subscription on ordinary topics was acknowledged.
    #[serde(borrow)]
    TopicSub(TopicSub<'a>),
    /// A publish on an ordinary topic, QoS 1 or 2. Written before the first byte leaves, once for all retries.
    #[serde(borrow)]
    TopicPub(TopicPub<'a>),
    /// Its PUBACK or PUBCOMP.
    TopicAck {
        /// When.
        t: u64,
        /// The publish.
        #[serde(borrow)]
        id: Text<'a>,
    },
    /// A session got a publish on an ordinary topic; the id was in its payload.
    #[serde(borrow)]
    TopicRecv(TopicRecv<'a>),
}

/// An attempt to send.
#[derive(Debug, Deserialize)]
pub struct Send<'a> {
    /// When.
    pub t: u64,
    /// A name for this attempt, unique in the run; a retry is an attempt of its own, with the same
    /// `client_message_id` if it has one.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// The user.
    #[serde(borrow)]
    pub sender: Text<'a>,
    /// Where to.
    #[serde(borrow)]
    pub conversation: Text<'a>,
    /// Absent for a send without one.
    #[serde(borrow, default)]
    pub client_message_id: Option<Text<'a>>,
    /// `mqtt3`, `mqtt5`, `rest`, `json`, `text`: counted, not judged.
    #[serde(borrow)]
    pub door: Text<'a>,
    /// Content.
    #[serde(borrow)]
    pub hash: Text<'a>,
}

/// A success.
#[derive(Debug, Deserialize)]
pub struct Ack<'a> {
    /// When it was read.
    pub t: u64,
    /// The attempt.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// If the door tells.
    #[serde(borrow, default)]
    pub message_id: Option<Text<'a>>,
    /// If the door tells.
    #[serde(default, alias = "seq", alias = "sequence_number")]
    pub sequence: Option<u32>,
}

/// A refusal, or an unknown outcome.
#[derive(Debug, Deserialize)]
pub struct Fail<'a> {
    /// When.
    pub t: u64,
    /// The attempt.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// The error code. `unavailable`, `timeout` and `closed` mean that the outcome is unknown; any other that the
    /// message must not be stored by this attempt.
    #[serde(borrow)]
    pub code: Text<'a>,
}

/// A message in an inbox.
#[derive(Debug, Deserialize)]
pub struct Recv<'a> {
    /// When.
    pub t: u64,
    /// The session, unique over all users.
    #[serde(borrow)]
    pub session: Text<'a>,
    /// Its user.
    #[serde(borrow)]
    pub user: Text<'a>,
    /// Which conversation.
    #[serde(borrow)]
    pub conversation: Text<'a>,
    /// Absent where the form does not carry it (bare text).
    #[serde(default, alias = "seq", alias = "sequence")]
    pub sequence_number: Option<u32>,
    /// Absent where the form does not carry it.
    #[serde(borrow, default)]
    pub message_id: Option<Text<'a>>,
    /// If the message has one.
    #[serde(borrow, default)]
    pub client_message_id: Option<Text<'a>>,
    /// Absent where the form does not carry it.
    #[serde(default)]
    pub inbox_seq: Option<u32>,
    /// The DUP flag of the packet: counted, not judged.
    #[serde(default)]
    pub dup: bool,
    /// Who sent it, if the form tells.
    #[serde(borrow, default)]
    pub sender: Option<Text<'a>>,
    /// Content.
    #[serde(borrow)]
    pub hash: Text<'a>,
}

/// An inbox event that is no message.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// When.
    pub t: u64,
    /// The session.
    #[serde(borrow)]
    pub session: Text<'a>,
    /// Its user.
    #[serde(borrow)]
    pub user: Text<'a>,
    /// `member`, `conversation`, `reaction`, `refused`, `gap`, …
    #[serde(borrow, rename = "type")]
    pub form: Text<'a>,
    /// Its place in the mailbox; absent for what takes none.
    #[serde(default)]
    pub inbox_seq: Option<u32>,
    /// If it concerns one.
    #[serde(borrow, default)]
    pub conversation: Option<Text<'a>>,
    /// If it took a number there.
    #[serde(default, alias = "seq", alias = "sequence")]
    pub sequence_number: Option<u32>,
    /// Of a `refused`: the send's, if it had one.
    #[serde(borrow, default)]
    pub client_message_id: Option<Text<'a>>,
    /// Of a `refused`: the send's content.
    #[serde(borrow, default)]
    pub hash: Option<Text<'a>>,
}

/// What a conversation holds at the end.
#[derive(Debug, Deserialize)]
pub struct History<'a> {
    /// When it was read.
    pub t: u64,
    /// Which.
    #[serde(borrow)]
    pub conversation: Text<'a>,
    /// Every entry that took a number, messages and membership changes, oldest first.
    #[serde(borrow)]
    pub entries: Vec<Entry<'a>>,
}

/// One entry of a history.
#[derive(Debug, Deserialize)]
pub struct Entry<'a> {
    /// Its position, from 1.
    #[serde(alias = "sequence", alias = "sequence_number")]
    pub seq: u32,
    /// `message` if absent; anything else only takes its number.
    #[serde(borrow, default, rename = "type")]
    pub form: Option<Text<'a>>,
    /// Of a message.
    #[serde(borrow, default)]
    pub message_id: Option<Text<'a>>,
    /// Of a message, if it has one.
    #[serde(borrow, default)]
    pub client_message_id: Option<Text<'a>>,
    /// Of a message.
    #[serde(borrow, default)]
    pub sender: Option<Text<'a>>,
    /// Of a message: content.
    #[serde(borrow, default)]
    pub hash: Option<Text<'a>>,
}

/// One interval of membership; several for who left and came back.
#[derive(Debug, Deserialize)]
pub struct Members<'a> {
    /// The conversation.
    #[serde(borrow)]
    pub conversation: Text<'a>,
    /// The user.
    #[serde(borrow)]
    pub user: Text<'a>,
    /// Position of the entry that let the user in, 0 for a member from the start: owed is what comes after.
    pub joined: u32,
    /// Position of the entry that ended it: owed is what comes before.
    #[serde(default)]
    pub left: Option<u32>,
}

/// A drained session.
#[derive(Debug, Deserialize)]
pub struct End<'a> {
    /// The session.
    #[serde(borrow)]
    pub session: Text<'a>,
    /// Its user, if it has an inbox; a session of ordinary topics needs none.
    #[serde(borrow, default)]
    pub user: Option<Text<'a>>,
    /// The session was opened when the mailbox had so many entries and is owed only later ones.
    #[serde(default)]
    pub from: u32,
    /// The session asked not to get its own user's messages.
    #[serde(default)]
    pub no_local: bool,
}

/// A subscription on ordinary topics.
#[derive(Debug, Deserialize)]
pub struct TopicSub<'a> {
    /// When the acknowledgement was read: publishes begun later are owed.
    pub t: u64,
    /// The session.
    #[serde(borrow)]
    pub session: Text<'a>,
    /// An MQTT filter, wildcards allowed.
    #[serde(borrow)]
    pub filter: Text<'a>,
    /// Granted QoS.
    pub qos: u8,
}

/// A publish on an ordinary topic.
#[derive(Debug, Deserialize)]
pub struct TopicPub<'a> {
    /// When.
    pub t: u64,
    /// The publishing session.
    #[serde(borrow)]
    pub publisher: Text<'a>,
    /// Unique in the run, carried in the payload.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// The topic.
    #[serde(borrow)]
    pub topic: Text<'a>,
    /// 1 or 2.
    pub qos: u8,
}

/// A publish that arrived.
#[derive(Debug, Deserialize)]
pub struct TopicRecv<'a> {
    /// When.
    pub t: u64,
    /// The session.
    #[serde(borrow)]
    pub session: Text<'a>,
    /// From the payload.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// The topic.
    #[serde(borrow)]
    pub topic: Text<'a>,
    /// The DUP flag of the packet: counted, not judged.
    #[serde(default)]
    pub dup: bool,
}
