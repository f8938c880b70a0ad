//! How a conversation comes back into memory: out of its small rows and the tail of its log. What it says is offered
//! again before anything new. What cannot be read makes it damaged: it is shown, and nothing is written to it.

use std::sync::Arc;

use bytes::Bytes;
use godwit_cluster::{Cx, Tag};
use godwit_store::{Op, Read, ReadAnswer, Scope};
use godwit_wire::command::{EntryBody, LoggedEntry};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::proto::chat;
use prost::Message;

use crate::conversation::{Conversation, Flight, Phase};
use crate::members::MEMBERS_EVER;
use crate::role::{Ingest, Step};
use crate::rows::{InfoRow, MarkRow, MemberRow, RowName, WatermarkRow, put};
use crate::send::known_send;
use crate::tables::{CLIENT_IDS, CONVERSATION_ROWS, client_id_name, client_id_value, log, message_id_row};

/// Most small rows of one conversation: a member row and a watermark of everybody who ever was in, and a few.
const LOAD_ROWS: u32 = 65_536;
/// Operations of one batch of [`Ingest::restore`]: a quarter of the statements that an engine has under way.
const RESTORED_AT_ONCE: usize = 1_024;
const _: () = assert!(2 * MEMBERS_EVER + 8 < LOAD_ROWS as usize);

impl Ingest {
    /// `makes`: for something that may make it; else where there is nothing nothing is written, since anybody may ask for
    /// any id.
    pub(crate) fn load_reads(id: ConversationId, scope: Scope, makes: bool) -> Vec<Read> {
        let take_up = |read| match makes {
            true => read,
            false => Read::IfAny(Box::new(read)),
        };
        vec![
            take_up(Read::TakeUp { log: log(id), scope }),
            take_up(Read::TakeUpRows {
                table: CONVERSATION_ROWS,
                partition: id.to_bytes(),
                scope,
            }),
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
        let (mut tail, mut head_stored) = (Vec::new(), 0);
        for answer in answers {
            match answer {
                ReadAnswer::TakeUp { head, rows } => {
                    head_stored = head.confirmed.max(head.floor);
                    conversation.confirmed = head_stored;
                    tail = rows;
                }
                ReadAnswer::Rows { rows, more } => {
                    for (name, value) in rows {
                        restore_row(&mut conversation, &name, value);
                    }
                    conversation.damaged |= more;
                }
                ReadAnswer::Nothing => conversation.not_taken_up = true,
                _ => {}
            }
        }
        // Above the head the log alone says who is in: a row may be there without its entry, and the other way round.
        let cut = conversation.members.cut_above(head_stored);
        conversation.unlike_log = cut.iter().map(|(user, _)| *user).collect();
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
        if conversation.damaged {
            // The log cannot say it: who the rows say is out stays out.
            conversation.members.put_back(cut);
        }
        conversation.members.settle();
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
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if conversation.damaged {
            return;
        }
        let (from, to) = (conversation.fanned_out() + 1, conversation.head);
        if cx.totally_ordered() {
            // A batch is there wholly or not at all: rows and log say the same.
            conversation.unlike_log.clear();
        }
        if conversation.phase == Phase::Ready && !conversation.info.announced {
            // It was stored, but a crash kept somebody from hearing of it.
            self.announce_again(cx, id, None);
        }
        if !cx.totally_ordered() {
            self.restore(cx, id);
        } else if from <= to {
            self.list_tail(cx, id);
        }
        for position in from..=to {
            self.offer(cx, id, position);
        }
        self.advance(cx, id);
    }

    /// Stores under the own view what a batch of a former owner may have left behind, where a batch can be there by halves:
    /// whoever wrote an entry may have died before its other rows were. What is offered meanwhile stays stored; nothing is
    /// acknowledged, and no mark or head moves over these entries, before all of it is.
    fn restore(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let view = cx.view_of(&Key::Conversation(id));
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let mut ops = Vec::new();
        let (from, to) = (conversation.fanned_out() + 1, conversation.head);
        if from <= to {
            ops.extend(conversation.list_tail());
        }
        for user in std::mem::take(&mut conversation.unlike_log) {
            let member = conversation.members.get(user);
            let row = member.map(|member| member.to_row().encode_to_vec().into());
            ops.push(put(id, view, RowName::Member(user), row));
        }
        for position in from..=to {
            let flight = conversation.flight_at(position);
            let message_id = flight.and_then(|flight| flight.entry.message_id());
            ops.extend(message_id.map(|message| message_id_row(message, id, position, view)));
            ops.extend(conversation.recent_at(position).map(|known| Op::Put {
                table: CLIENT_IDS,
                partition: id.to_bytes(),
                name: client_id_name(known.sender, &known.identity),
                view,
                value: Some(client_id_value(position, view)),
            }));
        }
        while !ops.is_empty() {
            let rest = ops.split_off(ops.len().min(RESTORED_AT_ONCE));
            conversation.restoring += 1;
            conversation.busy += 1;
            let tag = self.steps.insert(Step::Restored(id)) as Tag;
            cx.store(&Key::Conversation(id), tag, std::mem::replace(&mut ops, rest));
        }
    }

    /// Some of it is stored.
    pub(crate) fn restored(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        self.release(id);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.restoring = conversation.restoring.saturating_sub(1);
        }
        self.acknowledge(cx, id);
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
            let user = UserId::from_slice(&change.user_id);
            conversation.unlike_log.extend(user);
            apply_member(conversation, position, change, keys.member_name.as_ref());
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
