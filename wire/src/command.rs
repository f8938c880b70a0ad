//! The one enum of commands and answers between homes. REST, WebSocket and MQTT use the same ones, so that the doors
//! cannot drift apart. A home is reached by key only: no crate that owns homes imports another's.

use std::sync::Arc;

use bytes::Bytes;

use crate::account::{AccountAnswer, AccountCommand};
use crate::code::Refusal;
use crate::ids::{ConversationId, MessageId, SessionId, UserId};
use crate::proto::chat;

pub use crate::search_command::{Find, Found, FoundAt, SearchCommand};
pub use crate::session_info::{LISTED_FILTERS, LiveInfo, SessionInfo};
pub use crate::topic_command::{Route, TopicCommand};

/// What a home is asked to do. The variant says which role of the key's worker takes it.
#[derive(Clone, Debug)]
pub enum Command {
    /// For a [`Key::User`](crate::ids::Key::User): who is who and who may what.
    Account(Box<AccountCommand>),
    /// For a [`Key::User`](crate::ids::Key::User): mailbox, sessions, live connections.
    User(UserCommand),
    /// For a [`Key::Conversation`](crate::ids::Key::Conversation).
    Conversation(ConversationCommand),
    /// For a [`Key::Topic`](crate::ids::Key::Topic), `Wildcards` or `WildcardCopy`.
    Topic(TopicCommand),
    /// For a [`Key::Node`](crate::ids::Key::Node): its search index.
    Search(Box<SearchCommand>),
}

/// What a home answers. Which variant goes with which command is said at the command.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Refused; nothing happened, but see [`Code::Unavailable`](crate::code::Code::Unavailable).
    Refused(Refusal),
    /// Done, and where it changes anything, durable.
    Done,
    /// Of an [`AccountCommand`].
    Account(Box<AccountAnswer>),
    /// Of [`ConversationCommand::Send`].
    Sent(Sent),
    /// Of [`ConversationCommand::Get`], `OpenDirect` and `CreateGroup`.
    Conversation(Box<ConversationInfo>),
    /// Of [`ConversationCommand::History`].
    History(HistoryPage),
    /// Of [`ConversationCommand::Status`].
    Status(Vec<Watermark>),
    /// Of [`ConversationCommand::Visible`]: intervals of positions, both ends inclusive, that the user may read.
    Visible(Vec<(u64, u64)>),
    /// Of [`UserCommand::Offer`], `Note` and `Deliver`: the sessions (or the whole user) that are gone. All others
    /// have a durable entry, or were live and QoS 0.
    Kept {
        /// No entry will ever be wanted by these: their routes may be removed. For `Offer`: empty or anything.
        gone: Vec<SessionId>,
    },
    /// Of [`UserCommand::Sessions`] and `Kick`, by client id.
    Sessions(Vec<SessionInfo>),
    /// Of [`UserCommand::Share`]: the member's client is not connected, another one is to be asked.
    Away,
    /// Of [`TopicCommand::Publish`] and `Share`.
    Published {
        /// Whether anybody matched (MQTT 5: reason code 0x10 if not).
        matched: bool,
        /// How many subscriptions it matched, those of groups apart.
        routes: u32,
    },
    /// Of the same: it matched so many, and not all could take it.
    PublishRefused {
        /// Why.
        refusal: Refusal,
        /// As at `Published`.
        routes: u32,
    },
    /// Of [`TopicCommand::Subscribe`] and `Retained`: the retained messages asked for.
    Retained(Vec<Arc<Publish>>),
    /// Of [`ConversationCommand::Indexed`]: how far it is confirmed.
    Confirmed(u64),
    /// Of [`SearchCommand::Find`].
    Found(Box<Found>),
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// For a conversation's home.
#[derive(Clone, Debug)]
pub enum ConversationCommand {
    /// A message. Answer: `Sent`, once ACK holds.
    Send(Box<Send>),
    /// Makes or finds the one-to-one conversation of two users. Answer: `Conversation`.
    OpenDirect {
        /// Who asks.
        by: Named,
        /// The other one.
        with: Named,
    },
    /// Makes a group; a repeat with the same id by the same user finds it. Answer: `Conversation`.
    CreateGroup {
        /// Who asks, and becomes its first admin.
        by: Named,
        /// At most 128 bytes.
        name: String,
        /// At most 1,024 bytes.
        description: String,
        /// The others, at most 511.
        members: Vec<Named>,
        /// Members read everything, also from before their joining.
        full_history: bool,
    },
    /// Name or description; admins. Answer: `Conversation`.
    Change {
        /// Who asks.
        by: UserId,
        /// `None`: stays.
        name: Option<String>,
        /// `None`: stays.
        description: Option<String>,
    },
    /// Takes somebody in; admins. Answer: `Done`, also if already in.
    AddMember {
        /// Who asks.
        by: UserId,
        /// Who comes in.
        user: Named,
    },
    /// Takes somebody out (admins), or leaves (`by == user`). Answer: `Done`.
    RemoveMember {
        /// Who asks.
        by: UserId,
        /// Who goes.
        user: UserId,
    },
    /// Gives a role; admins. Answer: `Done`.
    SetRole {
        /// Who asks.
        by: UserId,
        /// Whose role.
        user: UserId,
        /// Which.
        role: chat::Role,
    },
    /// What a member sees of it. Answer: `Conversation`.
    Get {
        /// Who asks.
        by: UserId,
    },
    /// A page of history. Answer: `History`.
    History {
        /// Who asks.
        by: UserId,
        /// Which page.
        at: HistoryAt,
        /// Entries, 1 to [`limits::PAGE`](crate::limits::PAGE).
        limit: u32,
    },
    /// What a user may read, for search. Answer: `Visible`, empty for who is not in.
    Visible {
        /// Who asks.
        by: UserId,
    },
    /// The user's read watermark moves, at least to. Answer: `Done`.
    Read {
        /// Whose.
        by: UserId,
        /// To this position.
        up_to: u64,
    },
    /// The user's devices acknowledged everything up to here. No answer is waited for: it is told again.
    Delivered {
        /// Whose.
        user: UserId,
        /// To this position.
        up_to: u64,
    },
    /// Watermarks of everybody. Answer: `Status`.
    Status {
        /// Who asks.
        by: UserId,
    },
    /// In a one-to-one conversation: `by` blocks `user`, or no longer. Answer: `Done`, also where there is none yet.
    Block {
        /// Who blocks.
        by: UserId,
        /// Who is blocked.
        user: UserId,
        /// Or no longer.
        blocked: bool,
    },
    /// The search index has committed everything up to here. Answer, where one is waited for: `Confirmed`.
    Indexed {
        /// Position.
        up_to: u64,
    },
}

/// A user with the immutable name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Id.
    pub user: UserId,
    /// User name.
    pub name: Arc<str>,
}

/// A message to be sent. Sizes are checked at the door.
#[derive(Clone, Debug)]
pub struct Send {
    /// Who sends.
    pub sender: Named,
    /// What names it for ONCE.
    pub identity: SendIdentity,
    /// The identity was made just now, for this send alone, so it names nothing stored and need not be looked up.
    pub fresh: bool,
    /// Content type and content.
    pub content: chat::send_request::Content,
    /// Which of the content types.
    pub content_type: chat::ContentType,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// If the conversation may be the sender's one-to-one conversation with this user, which the first send makes.
    pub direct_with: Option<Named>,
}

/// What makes a repeated send recognisable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SendIdentity {
    /// The client's own id, 1–64 bytes.
    Client(Box<str>),
    /// The broker's: from session, connection number, packet id, topic and payload. Kept in the message's row.
    Implicit([u8; 16]),
}

/// A stored message's name and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub message_id: MessageId,
    /// Its position.
    pub sequence_number: u64,
    /// When it was stored first, milliseconds since 1970.
    pub created_at: u64,
    /// Whether this was a repeat.
    pub duplicate: bool,
}

/// Where a page of history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryAt {
    /// The newest page.
    Newest,
    /// The entries right before this position.
    Before(Position),
    /// The entries right after this position.
    After(Position),
    /// Half of the page before, this entry, the rest after.
    Around(Position),
}

/// A place in a conversation's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// By sequence number.
    Sequence(u64),
    /// By message id.
    Message(MessageId),
}

/// A page of history, oldest first.
#[derive(Clone, Debug, Default)]
pub struct HistoryPage {
    /// Entries.
    pub entries: Vec<Arc<LoggedEntry>>,
    /// Whether there is more in the direction asked for.
    pub has_more: bool,
}

/// One confirmed entry of a conversation's log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedEntry {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Position.
    pub sequence_number: u64,
    /// What it is.
    pub body: EntryBody,
    /// The protobuf encoding of `body`'s message, encoded once and shared by everybody's inbox event.
    pub encoded: Bytes,
}

/// What took a number.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryBody {
    /// A message.
    Message(chat::Message),
    /// A membership change.
    Member(chat::Member),
}

/// How far one member got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Whose.
    pub user: UserId,
    /// Acknowledged by a device up to here.
    pub delivered_up_to: u64,
    /// Read up to here.
    pub read_up_to: u64,
}

/// What a member sees of a conversation.
#[derive(Clone, Debug)]
pub struct ConversationInfo {
    /// Id.
    pub id: ConversationId,
    /// Group or one-to-one.
    pub group: bool,
    /// Groups only.
    pub name: String,
    /// Groups only.
    pub description: String,
    /// Who is in now, with role and since which position.
    pub members: Vec<(Named, chat::Role, u64)>,
    /// Members' watermarks.
    pub watermarks: Vec<Watermark>,
    /// Newest confirmed position; 0 if empty.
    pub last_sequence: u64,
    /// Newest confirmed message that the asking user may see.
    pub last_message: Option<Arc<LoggedEntry>>,
    /// When it was made, milliseconds since 1970.
    pub created_at: u64,
    /// Whether this very call made it.
    pub created: bool,
}

/// For a user's home in the broker.
#[derive(Clone, Debug)]
pub enum UserCommand {
    /// An entry of a conversation for the mailbox. In sequence order for one conversation. Answer: `Kept` once the
    /// entry (this one, or the same offered before) is durable.
    Offer {
        /// What is offered.
        entry: Arc<LoggedEntry>,
        /// The position that was owed to this user last before it in this conversation; 0: none. A mailbox that has
        /// neither confirmed nor in flight an entry at or above it refuses (`unavailable`): an earlier offer got lost
        /// on the way, and taking this one would move the mark over it. It is offered again, in order.
        after: u64,
    },
    /// An event of its own for the mailbox: `conversation` or `refused`. Answer: `Kept`.
    Note(Box<chat::InboxEvent>),
    /// Watermarks of a conversation moved: told to live sessions, not owed. No answer.
    Receipt {
        /// Which conversation.
        conversation: ConversationId,
        /// Whose.
        watermark: Watermark,
    },
    /// A publish on an ordinary topic that matched subscriptions of this user's sessions. Answer: `Kept`.
    Deliver {
        /// Shared by all who get it.
        publish: Arc<Publish>,
        /// Which sessions, with the merged options of their subscriptions.
        targets: Vec<Target>,
        /// How long ago it was matched, in seconds, rounded up: subscriptions may have ended since. 0: just now.
        late: u32,
    },
    /// A publish that a group of a shared subscription gives to this member. Answer: `Kept`, as of `Deliver`, with the
    /// session in `gone` if it is no member (any more); `Away`; or a refusal: then another member may be asked (`quota`: it is
    /// nearly full, `forbidden`: it has no right to the topic).
    Share {
        /// The publish.
        publish: Arc<Publish>,
        /// The member.
        session: SessionId,
        /// The group: the filter with `$share/…`.
        filter: Arc<str>,
        /// No member is known to be connected: taken without a client too, if the member gets QoS 1 or 2.
        waits: bool,
        /// All others would not take it: taken although the member is nearly full.
        last: bool,
    },
    /// A token or login session of the user ended, or a client certificate was revoked: its connections are closed (0x87). No answer.
    CredentialEnded {
        /// Which ([`Principal::credential`](crate::account::Principal)).
        credential: uuid::Uuid,
    },
    /// An operator asks for the user's sessions. Answer: `Sessions`.
    Sessions,
    /// An operator ends connections of the user (0x98). Answer: `Sessions`, those that it was about as they were before; their end is
    /// durable as that of any other.
    Kick {
        /// Whose; `None`: all of the user's.
        client_id: Option<Box<str>>,
        /// The sessions end too, with what they are owed.
        forget: bool,
    },
}

/// One session that a publish is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The session.
    pub session: SessionId,
    /// Highest QoS granted among its matching subscriptions (the publish's own QoS caps it).
    pub qos: u8,
    /// Whether any of them asked for retain as published.
    pub retain_as_published: bool,
    /// Their subscription identifiers.
    pub subscription_ids: Vec<u32>,
}

/// A PUBLISH on an ordinary topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Topic name.
    pub topic: Box<str>,
    /// Application message.
    pub payload: Bytes,
    /// As published, 0 to 2.
    pub qos: u8,
    /// As published.
    pub retain: bool,
    /// When it ends, milliseconds since 1970.
    pub expires_at: Option<u64>,
    /// MQTT 5 properties that travel with it.
    pub properties: Option<Box<crate::proto::stored::PublishProperties>>,
    /// The publishing session (No Local); `None` for a will of a session that is gone.
    pub from: Option<SessionId>,
    /// QoS 2: the id stored under its packet id; a session's log takes it once.
    pub message_id: Option<MessageId>,
}
