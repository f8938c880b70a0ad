//! What a conversation answers about itself: history, its state, who may read what. Reads show confirmed entries only.

use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_store::{Read, ReadAnswer};
use godwit_wire::code::Refusal;
use godwit_wire::command::{
    Answer, ConversationCommand, ConversationInfo, EntryBody, HistoryAt, HistoryPage, LoggedEntry, Named,
    Position, Send, Watermark,
};
use godwit_wire::ids::{ConversationId, MessageId, UserId};
use godwit_wire::limits::{MESSAGE_BYTES, PAGE};

use crate::conversation::{Check, Digest, Pending, Phase};
use crate::page::window;
use crate::role::{Ingest, Step};
use crate::send::known_send;
use crate::tables::{MESSAGE_IDS, log, message_place};

/// Bytes of one page of history: never less than a full one has. A page that ends early would leave out its newest
/// entries, and who goes on backwards from its oldest would never see them.
const PAGE_BYTES: u32 = 16 << 20;
const _: () = assert!(PAGE as usize * (MESSAGE_BYTES + 8 * 1024) < PAGE_BYTES as usize);
/// How many entries back the newest message is looked for.
const LOOK_BACK: u64 = 16;

/// A read under way, and what is done with it.
#[derive(Debug)]
pub(crate) enum Reading {
    /// The place of a send's id: is it really there?
    Duplicate {
        id: ConversationId,
        position: u64,
        send: Box<Send>,
        digest: Digest,
        reply: Reply,
    },
    /// The place of the message that a page is asked around.
    Place {
        id: ConversationId,
        by: UserId,
        at: HistoryAt,
        limit: u32,
        reply: Reply,
    },
    /// A page.
    Page {
        id: ConversationId,
        has_more: bool,
        reply: Reply,
    },
    /// The newest entries.
    Last {
        id: ConversationId,
        by: UserId,
        created: bool,
        reply: Reply,
    },
}

impl Reading {
    pub(crate) fn id(&self) -> ConversationId {
        match self {
            Self::Duplicate { id, .. }
            | Self::Place { id, .. }
            | Self::Page { id, .. }
            | Self::Last { id, .. } => *id,
        }
    }
}

impl Ingest {
    pub(crate) fn begin_reading(&mut self, cx: &mut Cx<'_>, reading: Reading, reads: Vec<Read>) {
        if let Some(conversation) = self.conversations.get_mut(&reading.id()) {
            conversation.busy += 1;
        }
        let tag = self.step(Step::Reading(Box::new(reading)));
        cx.read(tag, reads);
    }

    pub(crate) fn has_read(&mut self, cx: &mut Cx<'_>, reading: Reading, answers: Option<Vec<ReadAnswer>>) {
        self.release(reading.id());
        let Some(answers) = answers else {
            let (Reading::Duplicate { reply, .. }
            | Reading::Place { reply, .. }
            | Reading::Page { reply, .. }
            | Reading::Last { reply, .. }) = reading;
            cx.answer(reply, Refusal::unavailable().into());
            return;
        };
        match reading {
            Reading::Duplicate {
                id,
                position,
                send,
                digest,
                reply,
            } => {
                let pending = Pending {
                    number: 0,
                    send,
                    digest,
                    reply,
                    check: Check::New,
                };
                self.duplicate_read(cx, id, position, pending, answers);
            }
            Reading::Place {
                id,
                by,
                at,
                limit,
                reply,
            } => match answers.first() {
                Some(ReadAnswer::Row(Some(value))) => match message_place(value) {
                    Some((place, sequence)) if place == id => {
                        self.history(cx, id, by, at_sequence(at, sequence), limit, reply);
                    }
                    _ => cx.answer(reply, Refusal::not_found().into()),
                },
                _ => cx.answer(reply, Refusal::not_found().into()),
            },
            Reading::Page { id, has_more, reply } => {
                let (entries, cut) = entries_of(id, answers);
                cx.answer(
                    reply,
                    Answer::History(HistoryPage {
                        entries,
                        has_more: has_more || cut,
                    }),
                );
            }
            Reading::Last {
                id,
                by,
                created,
                reply,
            } => {
                let (entries, _) = entries_of(id, answers);
                let last = entries
                    .into_iter()
                    .rev()
                    .find(|entry| matches!(entry.body, EntryBody::Message(_)));
                let member = self
                    .conversations
                    .get(&id)
                    .is_some_and(|c| c.members.current(by).is_some());
                match self.info(id, last, created).filter(|_| member) {
                    Some(answer) => cx.answer(reply, answer),
                    None => cx.answer(reply, Refusal::not_found().into()),
                }
            }
        }
    }

    fn duplicate_read(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        position: u64,
        pending: Pending,
        answers: Vec<ReadAnswer>,
    ) {
        let Some(ReadAnswer::Log { rows, .. }) = answers.into_iter().next() else {
            return;
        };
        let stored = rows
            .into_iter()
            .next()
            .and_then(|row| LoggedEntry::from_stored(row.row).ok());
        let known = stored.and_then(|(entry, keys)| match &entry.body {
            EntryBody::Message(message) => known_send(message, &keys, position),
            EntryBody::Member(_) => None,
        });
        let same_name = |known: &crate::conversation::Known| {
            known.sender == pending.send.sender.user && known.identity == pending.send.identity
        };
        match known.filter(same_name) {
            Some(known) => self.answer_known(cx, id, &known, &pending.digest, pending.reply),
            None => {
                // ONCE: a row counts only if the position it names is there and carries that id.
                if let Some(conversation) = self.conversations.get_mut(&id) {
                    conversation.pending.push_front(pending);
                    self.number_pending(cx, id);
                }
            }
        }
    }

    pub(crate) fn look(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        command: ConversationCommand,
        reply: Reply,
    ) {
        use ConversationCommand as C;
        let Some(conversation) = self.conversations.get(&id) else {
            return;
        };
        let (C::Get { by } | C::History { by, .. } | C::Visible { by } | C::Status { by }) = command else {
            return;
        };
        let is_member = conversation.phase == Phase::Ready && conversation.members.current(by).is_some();
        match command {
            // Search asks for every conversation of a user: for who is not in, nothing is visible.
            C::Visible { .. } => {
                let full = conversation.info.full_history;
                cx.answer(
                    reply,
                    Answer::Visible(conversation.members.visible(by, full, conversation.confirmed)),
                );
            }
            _ if !is_member => cx.answer(reply, Refusal::not_found().into()),
            C::Get { .. } => self.look_created(cx, id, by, false, reply),
            C::History { at, limit, .. } => self.history(cx, id, by, at, limit, reply),
            C::Status { .. } => cx.answer(reply, Answer::Status(watermarks(conversation))),
            _ => {}
        }
    }

    /// Answers what a member sees of the conversation.
    pub(crate) fn look_created(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: UserId,
        created: bool,
        reply: Reply,
    ) {
        if reply.is_nobody() {
            return;
        }
        let Some(conversation) = self.conversations.get(&id) else {
            return;
        };
        let visible =
            conversation
                .members
                .visible(by, conversation.info.full_history, conversation.confirmed);
        let Some((from, to)) = visible.last().copied() else {
            let is_in = conversation.members.current(by).is_some();
            let answer = self.info(id, None, created).filter(|_| is_in);
            cx.answer(reply, answer.unwrap_or_else(|| Refusal::not_found().into()));
            return;
        };
        let after = to.saturating_sub(LOOK_BACK).max(from - 1);
        let reading = Reading::Last {
            id,
            by,
            created,
            reply,
        };
        self.begin_reading(cx, reading, vec![range(id, after + 1, to)]);
    }

    pub(crate) fn info(
        &self,
        id: ConversationId,
        last_message: Option<Arc<LoggedEntry>>,
        created: bool,
    ) -> Option<Answer> {
        let conversation = self.conversations.get(&id)?;
        let info = &conversation.info;
        let members = conversation
            .members
            .iter_current()
            .map(|(user, member)| {
                (
                    Named {
                        user,
                        name: member.name.clone(),
                    },
                    member.role,
                    member.joined_at(),
                )
            })
            .collect();
        Some(Answer::Conversation(Box::new(ConversationInfo {
            id,
            group: info.group,
            name: info.name.clone(),
            description: info.description.clone(),
            members,
            watermarks: watermarks(conversation),
            last_sequence: conversation.confirmed,
            last_message,
            created_at: info.created_at,
            created,
        })))
    }

    fn history(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: UserId,
        at: HistoryAt,
        limit: u32,
        reply: Reply,
    ) {
        let Some(conversation) = self.conversations.get(&id) else {
            return;
        };
        if conversation.members.current(by).is_none() {
            cx.answer(reply, Refusal::not_found().into());
            return;
        }
        if let HistoryAt::Before(Position::Message(message))
        | HistoryAt::After(Position::Message(message))
        | HistoryAt::Around(Position::Message(message)) = at
        {
            let reading = Reading::Place {
                id,
                by,
                at,
                limit,
                reply,
            };
            self.begin_reading(cx, reading, vec![place_of(message)]);
            return;
        }
        let visible =
            conversation
                .members
                .visible(by, conversation.info.full_history, conversation.confirmed);
        let (ranges, has_more) = window(&visible, at, u64::from(limit.clamp(1, PAGE)));
        if ranges.is_empty() {
            cx.answer(
                reply,
                Answer::History(HistoryPage {
                    entries: Vec::new(),
                    has_more,
                }),
            );
            return;
        }
        let reads = ranges.into_iter().map(|(from, to)| range(id, from, to)).collect();
        self.begin_reading(cx, Reading::Page { id, has_more, reply }, reads);
    }
}

fn watermarks(conversation: &crate::conversation::Conversation) -> Vec<Watermark> {
    conversation
        .members
        .iter_current()
        .map(|(user, _)| {
            let row = conversation.watermarks.get(&user).copied().unwrap_or_default();
            Watermark {
                user,
                delivered_up_to: row.delivered.max(row.read),
                read_up_to: row.read,
            }
        })
        .collect()
}

fn place_of(message: MessageId) -> Read {
    Read::Row {
        table: MESSAGE_IDS,
        partition: message.to_bytes(),
        name: bytes::Bytes::new(),
    }
}

fn range(id: ConversationId, from: u64, to: u64) -> Read {
    Read::Log {
        log: log(id),
        after: from.saturating_sub(1),
        up_to: to,
        max_rows: PAGE,
        max_bytes: PAGE_BYTES,
    }
}

fn at_sequence(at: HistoryAt, sequence: u64) -> HistoryAt {
    let position = Position::Sequence(sequence);
    match at {
        HistoryAt::Newest => HistoryAt::Newest,
        HistoryAt::Before(_) => HistoryAt::Before(position),
        HistoryAt::After(_) => HistoryAt::After(position),
        HistoryAt::Around(_) => HistoryAt::Around(position),
    }
}

/// The entries of a page, and whether it was cut short by its size.
fn entries_of(id: ConversationId, answers: Vec<ReadAnswer>) -> (Vec<Arc<LoggedEntry>>, bool) {
    let (mut entries, mut cut) = (Vec::new(), false);
    for answer in answers {
        let ReadAnswer::Log { rows, more } = answer else {
            continue;
        };
        for row in rows {
            match LoggedEntry::from_stored(row.row) {
                Ok((entry, ..)) => entries.push(Arc::new(entry)),
                Err(error) => {
                    tracing::error!(conversation = %id, position = row.seq, %error, "a stored entry cannot be read");
                }
            }
        }
        if more {
            cut = true;
            break;
        }
    }
    (entries, cut)
}
