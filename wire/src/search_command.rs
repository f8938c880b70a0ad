//! What nodes ask each other about search: the index of a conversation is at one node, and that of another one elsewhere.

use crate::ids::{ConversationId, UserId};

/// For a [`Key::Node`](crate::ids::Key::Node): a node that indexes conversations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchCommand {
    /// Which messages match, in conversations whose index is there. Answer: `Found`.
    Find(Find),
    /// So far these conversations are confirmed. No answer: it is told again, or read from the list of open tails.
    Confirmed(Vec<(ConversationId, u64)>),
}

/// A search in some conversations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// Who asks: what this user may read is asked of the conversations' homes by who answers.
    pub by: UserId,
    /// Where to look, at most 20,000.
    pub conversations: Vec<ConversationId>,
    /// Words and phrases, at most 512 characters.
    pub query: String,
    /// Only messages of this user.
    pub sender: Option<UserId>,
    /// Only messages created at this time or later, milliseconds since 1970.
    pub after_ms: Option<i64>,
    /// Only messages created before this time, milliseconds since 1970.
    pub before_ms: Option<i64>,
    /// Hits wanted, 1 to 100.
    pub limit: u32,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// What was found in an index, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// At most as many as were asked for; each may be read by who asked.
    pub hits: Vec<FoundAt>,
    /// Whether there are older ones.
    pub more: bool,
    /// Something may be missing: the index of some of the conversations is being completed, or is not there.
    pub partial: bool,
    /// What was confirmed before this time is found, but for what `partial` says, milliseconds since 1970; `None`: nobody knows.
    pub indexed_up_to_ms: Option<i64>,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAt {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its position there.
    pub sequence_number: u64,
    /// When it was created, milliseconds since 1970.
    pub created_at_ms: i64,
}
