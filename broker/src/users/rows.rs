//! A user's small rows: their names within the partition and their protobuf forms. On-disk format: fields and kinds are
//! only ever added.

use bytes::Bytes;
use godwit_store::{Op, Read, View};
use godwit_wire::ids::{MessageId, SessionId, UserId};
use prost::Message;
use uuid::Uuid;

use crate::tables::USER_ROWS;

/// The name of a small row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `s`: [`SessionRow`].
    Session(SessionId),
    /// `t`: [`SubscriptionRow`], by its route id.
    Subscription(SessionId, u64),
    /// `c`: [`InboxRow`].
    Inbox(SessionId),
    /// `r`: [`OutRow`].
    Out(SessionId),
    /// `q`: [`InRow`], by the message's id.
    In(SessionId, MessageId),
    /// `w`: [`WillRow`], by its connection's number.
    Will(SessionId, u64),
    /// `e`: [`EstateRow`].
    Estate(SessionId),
    /// `m`: a bucket of marks, 24 bytes each: conversation and sequence number.
    Marks(u8),
    /// `i`: some session of this user has, or had, a mailbox cursor.
    InboxEver,
    /// `p`: [`PreviousRow`].
    Previous,
    /// `a`: [`AgesRow`].
    Ages,
}

impl Name {
    /// Its bytes.
    pub(crate) fn encode(self) -> Bytes {
        let (kind, session, rest): (u8, Option<SessionId>, &[u8]) = match &self {
            Self::Session(id) => (b's', Some(*id), &[]),
            Self::Subscription(id, route) => (b't', Some(*id), &route.to_be_bytes()),
            Self::Inbox(id) => (b'c', Some(*id), &[]),
            Self::Out(id) => (b'r', Some(*id), &[]),
            Self::Estate(id) => (b'e', Some(*id), &[]),
            Self::In(id, message) => (b'q', Some(*id), message.0.as_bytes()),
            Self::Will(id, number) => (b'w', Some(*id), &number.to_be_bytes()),
            Self::Marks(bucket) => (b'm', None, std::slice::from_ref(bucket)),
            Self::InboxEver => (b'i', None, &[]),
            Self::Previous => (b'p', None, &[]),
            Self::Ages => (b'a', None, &[]),
        };
        let mut name = Vec::with_capacity(33);
        name.push(kind);
        if let Some(session) = session {
            name.extend_from_slice(session.0.as_bytes());
        }
        name.extend_from_slice(rest);
        name.into()
    }

    /// The name in these bytes; `None` for one of a later version.
    pub(crate) fn decode(name: &[u8]) -> Option<Self> {
        let (kind, rest) = name.split_first()?;
        match kind {
            b'm' => return (rest.len() == 1).then(|| Self::Marks(rest[0])),
            b'i' => return rest.is_empty().then_some(Self::InboxEver),
            b'p' => return rest.is_empty().then_some(Self::Previous),
            b'a' => return rest.is_empty().then_some(Self::Ages),
            _ => {}
        }
        let (id, rest) = rest.split_at_checked(16)?;
        let id = SessionId::from_slice(id)?;
        let number = || Some(u64::from_be_bytes(rest.try_into().ok()?));
        match kind {
            b's' if rest.is_empty() => Some(Self::Session(id)),
            b'c' if rest.is_empty() => Some(Self::Inbox(id)),
            b'r' if rest.is_empty() => Some(Self::Out(id)),
            b'e' if rest.is_empty() => Some(Self::Estate(id)),
            b't' => Some(Self::Subscription(id, number()?)),
            b'w' => Some(Self::Will(id, number()?)),
            b'q' => Some(Self::In(id, MessageId::from_slice(rest)?)),
            _ => None,
        }
    }

    /// Writes the row.
    pub(crate) fn put(self, user: UserId, view: View, row: &impl Message) -> Op {
        self.put_bytes(user, view, row.encode_to_vec().into())
    }

    /// Writes the row.
    pub(crate) fn put_bytes(self, user: UserId, view: View, value: Bytes) -> Op {
        Op::Put {
            table: USER_ROWS,
            partition: user.to_bytes(),
            name: self.encode(),
            view,
            value: Some(value),
        }
    }

    /// Writes the row that says "ended".
    pub(crate) fn end(self, user: UserId, view: View) -> Op {
        Op::Put {
            table: USER_ROWS,
            partition: user.to_bytes(),
            name: self.encode(),
            view,
            value: None,
        }
    }
}

/// Rows of a page of a user's partition.
const ROWS_PAGE: u32 = 1_000;

/// A page of a user's rows.
pub(crate) fn read_rows(user: UserId, after: Option<Bytes>) -> Read {
    Read::Rows {
        table: USER_ROWS,
        partition: user.to_bytes(),
        after,
        limit: ROWS_PAGE,
    }
}

/// A persistent session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionRow {
    #[prost(string, tag = "1")]
    pub(crate) client_id: String,
    /// Session Expiry Interval as granted, seconds.
    #[prost(uint32, tag = "2")]
    pub(crate) expiry: u32,
    /// Milliseconds since 1970; 0: connected when this was written.
    #[prost(uint64, tag = "3")]
    pub(crate) disconnected_at: u64,
    /// At the disconnect: positions that may have been given, of the mailbox and of the session's log.
    #[prost(uint64, tag = "4")]
    pub(crate) given_mailbox: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) given_log: u64,
    /// A due row for its expiry stands at this time, milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub(crate) due_at: u64,
    /// It was once a member of a shared subscription's group.
    #[prost(bool, tag = "7")]
    pub(crate) shared: bool,
}

/// The log of a session that ended, which has work of groups: it is given to their other members.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EstateRow {
    /// Up to here nothing is left to be given.
    #[prost(uint64, tag = "1")]
    pub(crate) passed: u64,
    /// The last position.
    #[prost(uint64, tag = "2")]
    pub(crate) up_to: u64,
    /// Positions up to here may have been sent: those of QoS 2 are nobody else's.
    #[prost(uint64, tag = "3")]
    pub(crate) given: u64,
    /// Positions above `passed` that were acknowledged, or whose PUBREC came; in order.
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) settled: Vec<u64>,
    /// Where its due row stands, milliseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub(crate) due_at: u64,
    /// Positions that were on their way to another member, never sent to this one; in order.
    #[prost(uint64, repeated, tag = "6")]
    pub(crate) leaving: Vec<u64>,
}

/// A subscription to ordinary topics.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SubscriptionRow {
    #[prost(string, tag = "1")]
    pub(crate) filter: String,
    #[prost(uint32, tag = "2")]
    pub(crate) qos: u32,
    #[prost(bool, tag = "3")]
    pub(crate) no_local: bool,
    #[prost(bool, tag = "4")]
    pub(crate) retain_as_published: bool,
    #[prost(uint32, optional, tag = "5")]
    pub(crate) subscription_id: Option<u32>,
    /// Route ids of this filter that may still stand because this one was perhaps never made.
    #[prost(uint64, repeated, tag = "6")]
    pub(crate) replaced: Vec<u64>,
    /// Retained messages were asked for only if it is new, and it was not answered when this was written.
    #[prost(bool, tag = "7")]
    pub(crate) unanswered: bool,
}

/// A session's mailbox cursor and its subscription to me/inbox.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InboxRow {
    /// Whether there is a cursor: a QoS 0 subscription has none.
    #[prost(bool, tag = "1")]
    pub(crate) has_cursor: bool,
    /// The end of the acknowledged prefix.
    #[prost(uint64, tag = "2")]
    pub(crate) acked: u64,
    /// 0: not subscribed; 1 protobuf, 2 JSON, 3 text.
    #[prost(uint32, tag = "3")]
    pub(crate) encoding: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) qos: u32,
    #[prost(bool, tag = "5")]
    pub(crate) no_local: bool,
    #[prost(uint32, optional, tag = "6")]
    pub(crate) subscription_id: Option<u32>,
    /// Retention took what followed this number; the session has acknowledged nothing since.
    #[prost(uint64, optional, tag = "7")]
    pub(crate) gap_after: Option<u64>,
    #[prost(message, optional, tag = "8")]
    pub(crate) remainder: Option<RemainderRow>,
}

/// What a replaced or ended subscription to me/inbox left to be given.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RemainderRow {
    /// The last number that is given with QoS 1.
    #[prost(uint64, tag = "1")]
    pub(crate) up_to: u64,
    /// As in [`InboxRow`].
    #[prost(uint32, tag = "2")]
    pub(crate) encoding: u32,
    #[prost(bool, tag = "3")]
    pub(crate) no_local: bool,
    #[prost(uint32, optional, tag = "4")]
    pub(crate) subscription_id: Option<u32>,
    /// The last number up to which No Local does not count.
    #[prost(uint64, tag = "5")]
    pub(crate) mine_to: u64,
}

/// How old and how heavy the entries of the mailbox are: at this time, milliseconds since 1970, this number was
/// confirmed; time 0: what is up to this number goes whatever its age.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AgesRow {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) at: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) number: Vec<u64>,
    /// What entries hold themselves, in slices, as in [`OutRow`].
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) slices: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) slice_bytes: Vec<u64>,
}

/// A session's log: QoS 2 towards the client, and how heavy it is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OutRow {
    /// Positions of the session's log whose PUBREC came.
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) received: Vec<u64>,
    /// The last QoS 2 messages appended, so that a repeated one is known.
    #[prost(fixed64, repeated, tag = "2")]
    pub(crate) recent: Vec<u64>,
    /// Positions above the log's floor that are settled: nothing is given for them again.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) settled: Vec<u64>,
    /// What the log holds above its floor, in slices: their last numbers and the bytes of their rows.
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) slices: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) slice_bytes: Vec<u64>,
    /// Up to this number everything is settled. The head says so too, but where writes of one batch are apart it may not
    /// have been written when this was.
    #[prost(uint64, tag = "6")]
    pub(crate) acked: u64,
}

/// QoS 2 from the client: a message taken under a packet identifier.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InRow {
    #[prost(uint32, tag = "1")]
    pub(crate) packet_id: u32,
    /// Of topic and payload: another publish under the same identifier is not taken for this one.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) digest: Bytes,
}

/// The will of a connection.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WillRow {
    #[prost(string, tag = "1")]
    pub(crate) topic: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) payload: Bytes,
    #[prost(uint32, tag = "3")]
    pub(crate) qos: u32,
    #[prost(bool, tag = "4")]
    pub(crate) retain: bool,
    /// Will Delay Interval, seconds.
    #[prost(uint32, tag = "5")]
    pub(crate) delay: u32,
    #[prost(uint32, optional, tag = "6")]
    pub(crate) message_expiry: Option<u32>,
    #[prost(message, optional, tag = "7")]
    pub(crate) properties: Option<godwit_wire::proto::stored::PublishProperties>,
    /// Of the connection, for the ACL when it fires.
    #[prost(string, tag = "8")]
    pub(crate) client_id: String,
    /// By which its client came; 16 bytes, none for an anonymous one.
    #[prost(bytes = "bytes", tag = "9")]
    pub(crate) credential: Bytes,
    /// When it is due, milliseconds since 1970; 0: the connection lived when this was written.
    #[prost(uint64, tag = "11")]
    pub(crate) due_at: u64,
    /// Where its due row stands.
    #[prost(uint64, tag = "12")]
    pub(crate) look_at: u64,
    /// Of the message that it is published as, however often that is tried.
    #[prost(bytes = "bytes", tag = "13")]
    pub(crate) message_id: Bytes,
    /// How often it could not be published.
    #[prost(uint32, tag = "14")]
    pub(crate) failed: u32,
    /// It was due and in line when the process ended: it is to be published also if its client returns, and before what that says.
    #[prost(bool, tag = "15")]
    pub(crate) marked: bool,
}

/// What is known of clients' previous connections while the home is not in memory.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PreviousRow {
    #[prost(message, repeated, tag = "1")]
    pub(crate) clients: Vec<PreviousClient>,
}

/// A client's publishes whose PUBACK was not written.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PreviousClient {
    #[prost(string, tag = "1")]
    pub(crate) client_id: String,
    /// 34 bytes each: packet identifier, digest, identity.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) publishes: Bytes,
}

/// One mark in a bucket.
pub(crate) const MARK_BYTES: usize = 24;

/// The marks in a bucket's row.
pub(crate) fn decode_marks(value: &[u8]) -> impl Iterator<Item = (Uuid, u64)> + '_ {
    value.chunks_exact(MARK_BYTES).filter_map(|mark| {
        let (id, number) = mark.split_at(16);
        Some((
            Uuid::from_slice(id).ok()?,
            u64::from_be_bytes(number.try_into().ok()?),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rows_read_back_and_unknown_ones_are_left_alone() {
        let (session, message) = (SessionId::fresh(), MessageId::fresh());
        for name in [
            Name::Session(session),
            Name::Subscription(session, 7),
            Name::Inbox(session),
            Name::Out(session),
            Name::Estate(session),
            Name::In(session, message),
            Name::Will(session, 9),
            Name::Marks(15),
            Name::InboxEver,
            Name::Previous,
            Name::Ages,
        ] {
            assert_eq!(Name::decode(&name.encode()), Some(name));
        }
        for bad in [&b""[..], b"z", b"s123", b"m", b"mxx", b"t0123456789abcdef123"] {
            assert_eq!(Name::decode(bad), None);
        }
    }

    #[test]
    fn marks_read_back() {
        let id = Uuid::from_u128(7);
        let mut value = id.as_bytes().to_vec();
        value.extend_from_slice(&42u64.to_be_bytes());
        assert_eq!(decode_marks(&value).collect::<Vec<_>>(), [(id, 42)]);
    }
}
