//! What the model's logs hold: messages and membership changes, and a mailbox's copies of them.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// The one conversation's log; mailboxes are numbered by their users.
pub(crate) const CONVERSATION: u8 = 100;
/// Users: each has a mailbox and is a client.
pub(crate) const USERS: u8 = 3;
/// Everybody, as bits.
pub(crate) const MEMBERS_AT_FIRST: u64 = (1 << USERS) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Text,
    Joins(u8),
    Leaves(u8),
}

/// A row of the conversation: sender and client_message_id, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sender: u8,
    pub(crate) number: u32,
    pub(crate) what: What,
}

impl Entry {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(7);
        let (kind, user) = match self.what {
            What::Text => (0, 0),
            What::Joins(user) => (1, user),
            What::Leaves(user) => (2, user),
        };
        out.put_slice(&[kind, user, self.sender]);
        out.put_u32(self.number);
        out.freeze()
    }

    pub(crate) fn decode(row: &Bytes) -> Option<Self> {
        let what = match *row.first()? {
            0 => What::Text,
            1 => What::Joins(*row.get(1)?),
            2 => What::Leaves(*row.get(1)?),
            _ => return None,
        };
        Some(Self {
            sender: *row.get(2)?,
            number: u32::from_be_bytes(row.get(3..7)?.try_into().ok()?),
            what,
        })
    }

    /// Members after this entry.
    pub(crate) fn then(self, members: u64) -> u64 {
        match self.what {
            What::Text => members,
            What::Joins(user) => members | 1 << user,
            What::Leaves(user) => members & !(1 << user),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sender, self.number)?;
        match self.what {
            What::Text => Ok(()),
            What::Joins(user) => write!(f, " +{user}"),
            What::Leaves(user) => write!(f, " -{user}"),
        }
    }
}

/// A row of a mailbox: a position of the conversation and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MailEntry {
    pub(crate) seq: u64,
    pub(crate) entry: Bytes,
}

impl MailEntry {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(8 + self.entry.len());
        out.put_u64(self.seq);
        out.put_slice(&self.entry);
        out.freeze()
    }

    pub(crate) fn decode(row: &Bytes) -> Option<Self> {
        Some(Self {
            seq: u64::from_be_bytes(row.get(..8)?.try_into().ok()?),
            entry: row.slice(8..),
        })
    }
}
