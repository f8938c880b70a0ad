//! How a conversation comes back into memory: out of its small rows and the tail of its log. What it says is offered
//! again before anything new. What cannot be read makes it damaged: it is shown, and nothing is written to it.

use std::sync::Arc;

use bytes::Bytes;
use godwit_cluster::Cx;
use godwit_store::{Read, ReadAnswer, Scope};
use godwit_wire::command::{EntryBody, LoggedEntry};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::proto::chat;
use prost::Message;

use crate::conversation::{Conversation, Flight, Phase};
use crate::members::MEMBERS_EVER;
use crate::role::Ingest;
use crate::rows::{InfoRow, MarkRow, MemberRow, RowName, WatermarkRow};
use crate::send::known_send;
use crate::tables::{CONVERSATION_ROWS, log};

/// Most small rows of one conversation: a member row and a watermark of everybody who ever was in, and a few.
const LOAD_ROWS: u32 = 65_536;
const _: () = assert!(2 * MEMBERS_EVER + 8 < LOAD_ROWS as usize);

impl Ingest {
    pub(crate) fn load_reads(id: ConversationId, scope: Scope) -> Vec<Read> {
        vec![
            Read::TakeUp { log: log(id), scope },
            Read::TakeUpRows {
                table: CONVERSATION_ROWS,
                partition: id.to_bytes(),
                scope,
            },
            Read::Rows {
                table: CONVERSATION_ROWS,
                partition: id.to_bytes(),
                after: None,
                limit: LOAD_ROWS,
            },
        ]
    }

    pub(crate) fn install(&mut self, id: ConversationId, answers: Vec<ReadAnswer>, now_ms: u64) {
        let mut conversation = Conversation::new(id);
        conversation.last_used_ms = now_ms;
        let mut tail = Vec::new();
        for answer in answers {
            match answer {
                ReadAnswer::TakeUp { head, rows } => {
                    conversation.confirmed = head.confirmed.max(head.floor);
                    tail = rows;
                }
                ReadAnswer::Rows { rows, more } => {
                    for (name, value) in rows {
                        restore_row(&mut conversation, &name, value);
                    }
                    conversation.damaged |= more;
                }
                _ => {}
            }
        }
        for row in tail {
            match LoggedEntry::from_stored(row.row) {
                Ok((entry, keys)) if entry.conversation == id && entry.sequence_number == row.seq => {
                    conversation.confirmed = row.seq;
                    replay(&mut conversation, row.seq, entry, &keys);
                }
                read => {
                    // SEQ: its number, and those behind it, are taken. Nothing may be numbered from here on.
                    let error = read.err();
                    tracing::error!(conversation = %id, position = row.seq, ?error, "a stored entry cannot be read");
                    conversation.damaged = true;
                    break;
                }
            }
        }
        conversation.head = conversation.head.max(conversation.confirmed);
        if conversation.damaged {
            self.metrics.damaged.inc();
            // Its members may not be what they were: nobody is offered anything.
            conversation.flight.clear();
        }
        self.conversations.insert(id, conversation);
    }

    /// A conversation came into memory: what is above its mark is offered before anything new.
    pub(crate) fn resume(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        self.metrics.loaded.set(self.conversations.len() as i64);
        let Some(conversation) = self.conversations.get(&id) else {
            return;
        };
        if conversation.damaged {
            return;
        }
        let (from, to) = (conversation.fanned_out() + 1, conversation.head);
        if conversation.phase == Phase::Ready && !conversation.info.announced {
            // It was stored, but a crash kept somebody from hearing of it.
            self.announce_again(cx, id, None);
        }
        if from <= to {
            self.list_tail(cx, id);
        }
        for position in from..=to {
            self.offer(cx, id, position);
        }
        self.advance(cx, id);
    }
}

fn restore_row(conversation: &mut Conversation, name: &[u8], value: Bytes) {
    let Some(name) = RowName::decode(name) else { return };
    let read = match name {
        RowName::Info => InfoRow::decode(value).map(|info| {
            conversation.info = info;
            conversation.phase = Phase::Ready;
        }),
        RowName::Member(user) => MemberRow::decode(value).map(|row| conversation.members.restore(user, row)),
        RowName::Watermark(user) => WatermarkRow::decode(value).map(|row| {
            conversation.watermarks.insert(user, row);
        }),
        RowName::BlockedBy(user) => {
            conversation.blocked_by.insert(user);
            Ok(())
        }
        RowName::Mark => MarkRow::decode(value).map(|row| {
            conversation.mark = row.fanned_out;
            conversation.last_created_at = conversation.last_created_at.max(row.last_created_at);
        }),
    };
    if let Err(error) = read {
        tracing::error!(conversation = %conversation.id, ?name, %error, "a small row cannot be read");
        conversation.damaged |= matches!(name, RowName::Info | RowName::Member(_));
    }
}

/// What a stored entry says when it is read back at take-up.
fn replay(conversation: &mut Conversation, position: u64, entry: LoggedEntry, keys: &RetryKeys) {
    conversation.head = position;
    let known = match &entry.body {
        EntryBody::Message(message) => {
            conversation.last_created_at = conversation.last_created_at.max(message.created_at);
            known_send(message, keys, position)
        }
        EntryBody::Member(change) => {
            apply_member(conversation, position, change, None);
            None
        }
    };
    if position > conversation.mark {
        conversation.flight.push_back(Flight {
            entry: Arc::new(entry),
            stored: true,
            offered: false,
            outstanding: 0,
            waiters: Vec::new(),
            since_ms: conversation.last_used_ms,
        });
    }
    // Behind the flight, which says what is fanned out and may be forgotten.
    if let Some(known) = known {
        conversation.remember(known);
    }
}

/// Applies a membership entry to the state.
pub(crate) fn apply_member(
    conversation: &mut Conversation,
    position: u64,
    change: &chat::Member,
    name: Option<&Arc<str>>,
) {
    let Some(user) = UserId::from_slice(&change.user_id) else {
        return;
    };
    let unnamed: Arc<str> = "".into();
    conversation.last_created_at = conversation.last_created_at.max(change.created_at);
    conversation.members.apply(
        position,
        user,
        name.unwrap_or(&unnamed),
        change.op(),
        change.role(),
    );
}
