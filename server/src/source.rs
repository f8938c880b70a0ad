//! What the search index reads of the store: logs of conversations, the list of open tails, the list of all
//! conversations. The index itself and its thread are the search crate's.

use std::sync::Arc;

use bytes::Bytes;
use godwit_ingest::{
    CONVERSATION_LOG, CONVERSATIONS, OPEN_TAILS, fan_out_mark, fan_out_mark_of, tail_partition,
};
use godwit_search::{IndexDoc, Source, SourceError, SourcePage, Tail, UNKNOWN_END, Which};
use godwit_store::{LogId, LogRow, Read, ReadAnswer, Scope, Store, StoreError, Table};
use godwit_wire::command::{EntryBody, LoggedEntry};
use godwit_wire::ids::{ConversationId, Key};
use godwit_wire::proto::chat;
use prometheus_client::metrics::counter::Counter;
use uuid::Uuid;

pub(crate) use homes::{Ends, Homes};

mod homes;

/// Bytes of one read of a log: bounds the memory of the feed, whatever the messages' sizes.
const READ_BYTES: u32 = 4 << 20;
/// Shards whose lists are read at a time.
const SHARDS_A_READ: usize = 256;
/// Marks of conversations read at a time.
const MARKS_A_READ: usize = 64;

/// The store as the search index sees it.
pub(crate) struct StoreSource {
    store: Arc<dyn Store>,
    unreadable: Counter,
    /// In a cluster: who knows where logs end. Alone the store does.
    ends: Option<Box<dyn Ends>>,
}

/// One of the lists of conversations, which are sets by shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    OpenTails,
    All,
}

impl List {
    fn table(self) -> Table {
        match self {
            Self::OpenTails => OPEN_TAILS,
            Self::All => CONVERSATIONS,
        }
    }
}

impl StoreSource {
    /// `unreadable` counts stored entries that cannot be read; they are left out of the index. `ends`: of a node that is one of
    /// several.
    pub(crate) fn new(store: Arc<dyn Store>, unreadable: Counter, ends: Option<Box<dyn Ends>>) -> Self {
        Self {
            store,
            unreadable,
            ends,
        }
    }

    /// A page of one of the lists.
    fn list(
        &self,
        list: List,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        let all: Vec<u32>;
        let shards = match which {
            Which::These(shards) => shards,
            Which::All => {
                all = (0..u32::from(Key::SHARDS)).collect();
                &all
            }
        };
        let mut at = after.map_or(0, |tail| shards.partition_point(|shard| *shard < tail.shard));
        // The shard in which the last page ended is read alone, unless it is none of these any more.
        let mut above = after
            .filter(|tail| shards.get(at) == Some(&tail.shard))
            .map(|tail| Bytes::copy_from_slice(tail.conversation.as_bytes()));
        let mut found: Vec<(u16, Uuid)> = Vec::new();
        while at < shards.len() && found.len() < limit {
            let count = if above.is_some() { 1 } else { SHARDS_A_READ };
            let some: Vec<u16> = shards[at..shards.len().min(at + count)]
                .iter()
                .filter_map(|shard| u16::try_from(*shard).ok())
                .collect();
            let room = u32::try_from(limit - found.len()).unwrap_or(u32::MAX);
            let reads: Vec<Read> = some
                .iter()
                .map(|shard| Read::Set {
                    table: list.table(),
                    partition: tail_partition(*shard),
                    after: above.clone(),
                    up_to: None,
                    limit: room,
                })
                .collect();
            for (shard, answer) in some.iter().zip(self.store.read_now(&reads).map_err(failed)?) {
                let ReadAnswer::Set { elements, .. } = answer else {
                    return Err(SourceError("a set was asked for and something else came".into()));
                };
                let ids = elements
                    .iter()
                    .filter_map(|(element, _)| Uuid::from_slice(element).ok());
                found.extend(ids.map(|id| (*shard, id)));
            }
            (at, above) = (at + count, None);
        }
        found.truncate(limit);
        match &self.ends {
            None => self.with_ends(&found),
            Some(ends) => {
                let ids: Vec<Uuid> = found.iter().map(|(_, id)| *id).collect();
                let up_to = match list {
                    List::OpenTails => ends.of(&ids)?,
                    List::All => self.marks(&ids)?,
                };
                let tails = found.iter().zip(up_to);
                Ok(tails
                    .map(|((shard, id), up_to)| tail(*shard, *id, up_to))
                    .collect())
            }
        }
    }

    /// How far conversations were confirmed when their homes said so last. What came since has them in the list of open tails.
    fn marks(&self, conversations: &[Uuid]) -> Result<Vec<u64>, SourceError> {
        let mut marks = Vec::with_capacity(conversations.len());
        for some in conversations.chunks(MARKS_A_READ) {
            let reads: Vec<Read> = some
                .iter()
                .map(|id| fan_out_mark_of(ConversationId(*id)))
                .collect();
            for (id, answer) in some.iter().zip(self.store.read_now(&reads).map_err(failed)?) {
                let ReadAnswer::Row(row) = answer else {
                    return Err(SourceError("a row was asked for and something else came".into()));
                };
                let mark = row.map_or(Some(0), |row| fan_out_mark(&row));
                if mark.is_none() {
                    tracing::error!(conversation = %id, "how far it was confirmed cannot be read: its home is asked");
                }
                marks.push(mark.unwrap_or(UNKNOWN_END));
            }
        }
        Ok(marks)
    }

    /// How far each log is confirmed. A row that is stored with all before it is confirmed on this engine.
    fn with_ends(&self, found: &[(u16, Uuid)]) -> Result<Vec<Tail>, SourceError> {
        let view = self.store.start_view();
        let reads: Vec<Read> = found
            .iter()
            .map(|(shard, id)| Read::TakeUp {
                log: log(*id),
                scope: Scope { shard: *shard, view },
            })
            .collect();
        let ends = self.store.read_now(&reads).map_err(failed)?;
        let tails = found.iter().zip(ends).map(|((shard, id), end)| {
            let ReadAnswer::TakeUp { head, rows } = end else {
                return Err(SourceError(
                    "a log's head was asked for and something else came".into(),
                ));
            };
            let confirmed_up_to = rows.last().map_or(head.confirmed, |row| row.seq);
            Ok(tail(*shard, *id, confirmed_up_to))
        });
        tails.collect()
    }

    fn doc(&self, conversation: Uuid, row: LogRow) -> Option<IndexDoc> {
        let entry = match LoggedEntry::from_stored(row.row) {
            Ok((entry, _)) => entry,
            Err(error) => {
                self.unreadable.inc();
                tracing::error!(%conversation, position = row.seq, %error, "a stored entry cannot be indexed");
                return None;
            }
        };
        let EntryBody::Message(message) = entry.body else {
            return None;
        };
        let text = text(message.content?)?;
        Some(IndexDoc {
            conversation,
            sequence_number: row.seq,
            shard: u32::from(Key::Conversation(ConversationId(conversation)).shard()),
            message_id: Uuid::from_slice(&message.message_id).ok()?,
            sender: Uuid::from_slice(&message.sender_id).ok()?,
            created_at_ms: i64::try_from(message.created_at).unwrap_or(i64::MAX),
            text,
        })
    }
}

fn tail(shard: u16, conversation: Uuid, confirmed_up_to: u64) -> Tail {
    Tail {
        conversation,
        shard: u32::from(shard),
        confirmed_up_to,
    }
}

fn log(conversation: Uuid) -> LogId {
    LogId {
        table: CONVERSATION_LOG,
        id: conversation,
    }
}

fn failed(error: StoreError) -> SourceError {
    SourceError(error.to_string())
}

/// What people may look for in a message.
fn text(content: chat::message::Content) -> Option<String> {
    match content {
        chat::message::Content::Text(text) => Some(text),
        chat::message::Content::Media(media) => Some(media.caption).filter(|caption| !caption.is_empty()),
        chat::message::Content::Ciphertext(_) => None,
    }
}

impl Source for StoreSource {
    fn read(
        &self,
        conversation: Uuid,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<SourcePage, SourceError> {
        let up_to = match &self.ends {
            // What is stored with all before it is confirmed on this engine.
            None => u64::MAX,
            Some(ends) if up_to == UNKNOWN_END => match ends.of(&[conversation])?.first() {
                Some(&end) if end != UNKNOWN_END => end,
                _ => return Err(SourceError("a conversation's home does not answer".into())),
            },
            // A row above may be of a former owner, and never count.
            Some(_) => up_to,
        };
        if up_to <= after {
            return Ok(SourcePage {
                docs: Vec::new(),
                read_up_to: after,
            });
        }
        let read = Read::Log {
            log: log(conversation),
            after,
            up_to,
            max_rows: u32::try_from(limit).unwrap_or(u32::MAX),
            max_bytes: READ_BYTES,
        };
        let rows = match self.store.read_now(&[read]).map_err(failed)?.pop() {
            Some(ReadAnswer::Log { rows, .. }) => rows,
            _ => return Err(SourceError("a log was asked for and something else came".into())),
        };
        let read_up_to = rows.last().map_or(after, |row| row.seq);
        let docs = rows
            .into_iter()
            .filter_map(|row| self.doc(conversation, row))
            .collect();
        Ok(SourcePage { docs, read_up_to })
    }

    fn open_tails(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        self.list(List::OpenTails, which, after, limit)
    }

    fn conversations(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        self.list(List::All, which, after, limit)
    }
}

#[cfg(test)]
mod tests;
