//! A user's mailbox: takes offers of conversations' homes in order and without doubles, and events of its own; keeps the
//! marks by which repeats are known. Knows no MQTT and no session.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use godwit_cluster::Reply;
use godwit_store::{Head, LogId, LogRow, Op};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, LoggedEntry};
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::proto::chat;
use godwit_wire::proto::stored::{MailboxEntry, Reference, mailbox_entry};
use prost::Message as _;

use super::env::{Env, What};
use super::log::{Keep, Log};
use super::mail::Mail;
use super::retention::Ages;
use super::rows::{MARK_BYTES, Name, decode_marks};
use super::waiter::Waiter;
use crate::tables::MAILBOX;

/// Rows over which the marks are spread, so that one change rewrites a small part.
const BUCKETS: u8 = 16;
/// Rows up to here are not counted in bytes: a reference has some 60, most events little more.
const SMALL: usize = 512;

/// The mailbox's log in the store.
pub(crate) fn log_id(user: UserId) -> LogId {
    LogId {
        table: MAILBOX,
        id: user.0,
    }
}

/// Entries on their way by conversation: `(sequence number, number in the mailbox)`, ascending.
type OnTheWay = HashMap<ConversationId, VecDeque<(u64, u64)>>;

/// A mailbox.
pub(crate) struct Mailbox {
    pub(crate) log: Log<Mail>,
    /// Some session has, or had, a cursor.
    pub(crate) ever: bool,
    /// Conversation → highest sequence number whose entry is confirmed; sorted by conversation.
    marks: Vec<(ConversationId, u64)>,
    /// `None` while there are none.
    on_the_way: Option<Box<OnTheWay>>,
    /// Buckets with marks that are not stored.
    dirty: u16,
    /// Marks are on their way to the store.
    storing: bool,
    /// How old its entries are.
    pub(crate) ages: Ages,
    /// Cursors are on their way to the store, before the floor moves.
    pub(crate) trimming: bool,
}

impl Mailbox {
    /// A mailbox out of its rows.
    pub(crate) fn restored(head: Head, rows: &[LogRow], marks: &[Bytes], ever: bool) -> Self {
        let last = rows.last().map_or(0, |row| row.seq);
        let mut mailbox = Self {
            log: Log::restored(head, last),
            ever,
            marks: Vec::new(),
            on_the_way: None,
            dirty: 0,
            storing: false,
            ages: Ages::new(),
            trimming: false,
        };
        for (id, sequence) in marks.iter().flat_map(|value| decode_marks(value)) {
            mailbox.mark(ConversationId(id), sequence);
        }
        mailbox.dirty = 0;
        for row in rows {
            match decode_row(row.row.clone()).as_ref().and_then(reference) {
                Some((conversation, sequence)) => mailbox.mark(conversation, sequence),
                None => mailbox.log.restore_rows(std::iter::once(held(row.row.len()))),
            }
        }
        mailbox
    }

    fn mark(&mut self, conversation: ConversationId, sequence: u64) {
        match self.marks.binary_search_by_key(&conversation, |mark| mark.0) {
            Ok(at) => self.marks[at].1 = self.marks[at].1.max(sequence),
            Err(at) => {
                self.marks.reserve_exact(1);
                self.marks.insert(at, (conversation, sequence));
            }
        }
        self.dirty |= 1 << bucket(conversation);
    }

    fn marked(&self, conversation: ConversationId) -> u64 {
        let at = self.marks.binary_search_by_key(&conversation, |mark| mark.0);
        at.map_or(0, |at| self.marks[at].1)
    }

    /// A conversation's home offers an entry. ONCE and ORDER of the mailbox are kept here.
    pub(crate) fn offer(&mut self, env: &mut Env<'_, '_>, entry: Arc<LoggedEntry>, after: u64, reply: Reply) {
        let (conversation, sequence) = (entry.conversation, entry.sequence_number);
        let marked = self.marked(conversation);
        if sequence <= marked {
            env.cx.answer(reply, Answer::Kept { gone: Vec::new() });
            return;
        }
        let under_way = self.on_the_way.as_ref().and_then(|all| all.get(&conversation));
        let covering = under_way.and_then(|entries| entries.iter().find(|(at, _)| *at >= sequence));
        if let Some((_, number)) = covering.copied() {
            // It is on its way already, or was not this user's when a later one was taken.
            if let Err(Waiter::Reply(reply)) = self.log.also_wait(number, Waiter::Reply(reply)) {
                env.cx.answer(reply, Answer::Refused(Refusal::unavailable()));
            }
            return;
        }
        let newest = under_way
            .and_then(|entries| entries.back())
            .map_or(marked, |last| last.0);
        if after > newest || !self.log.has_room() {
            env.cx.answer(reply, Answer::Refused(Refusal::unavailable()));
            return;
        }
        let reference = Reference {
            conversation_id: conversation.to_bytes(),
            sequence_number: sequence,
            message_id: entry.message_id().map(|id| id.to_bytes()).unwrap_or_default(),
        };
        let row = mailbox_entry::Entry::Reference(reference);
        let number = self.append(env, Mail::Entry(entry), row, Waiter::Reply(reply));
        let on_the_way = self.on_the_way.get_or_insert_default();
        on_the_way
            .entry(conversation)
            .or_default()
            .push_back((sequence, number));
    }

    /// An event of its own.
    pub(crate) fn note(&mut self, env: &mut Env<'_, '_>, event: chat::InboxEvent, waiter: Waiter) {
        if !self.log.has_room() {
            if let Waiter::Reply(reply) = waiter {
                env.cx.answer(reply, Answer::Refused(Refusal::unavailable()));
            }
            return;
        }
        let event = chat::InboxEvent {
            inbox_seq: 0,
            ..event
        };
        let row = mailbox_entry::Entry::Event(event.clone());
        self.append(env, Mail::Event(Arc::new(event)), row, waiter);
    }

    fn append(
        &mut self,
        env: &mut Env<'_, '_>,
        mail: Mail,
        row: mailbox_entry::Entry,
        waiter: Waiter,
    ) -> u64 {
        let row: Bytes = MailboxEntry { entry: Some(row) }.encode_to_vec().into();
        let seq = self.log.append(mail, waiter, held(row.len()));
        let (log, view) = (log_id(env.user), env.view());
        env.store(What::Mail, vec![Op::Append { log, view, seq, row }]);
        env.metrics().owed.inc();
        seq
    }

    /// The oldest unconfirmed entry is stored.
    pub(crate) fn confirm(&mut self, keep: Keep) -> Option<(u64, Mail, Waiter)> {
        let (number, mail, waiter) = self.log.confirm(keep)?;
        if let Mail::Entry(entry) = &mail {
            let conversation = entry.conversation;
            let on_the_way = self.on_the_way.get_or_insert_default();
            if let Entry::Occupied(mut entries) = on_the_way.entry(conversation) {
                entries.get_mut().pop_front();
                if entries.get().is_empty() {
                    entries.remove();
                }
            }
            self.mark(conversation, entry.sequence_number);
        }
        Some((number, mail, waiter))
    }

    /// Stores marks and head if it is time, or (`all`) if there is anything to store. The head follows the marks: a
    /// take-up reads the entries above it, so it never passes an entry whose mark is not stored.
    pub(crate) fn keep_marks(&mut self, env: &mut Env<'_, '_>, all: bool) {
        let lag = self.log.head_lag();
        if self.storing || lag == 0 || !(all || self.log.is_head_due(env.cx.is_clustered())) {
            return;
        }
        self.storing = true;
        let (user, view, up_to) = (env.user, env.view(), self.log.confirmed());
        let mut ops = Vec::new();
        for bucket in (0..BUCKETS).filter(|bucket| self.dirty & (1 << bucket) != 0) {
            ops.push(Name::Marks(bucket).put_bytes(user, view, self.bucket_row(bucket)));
        }
        self.dirty = 0;
        self.sample(env, up_to, all, &mut ops);
        if ops.is_empty() {
            self.marks_stored(env, up_to);
        } else {
            env.store(What::Marks(up_to), ops);
        }
    }

    fn bucket_row(&self, wanted: u8) -> Bytes {
        let marks = self.marks.iter().filter(|mark| bucket(mark.0) == wanted);
        let mut row = Vec::with_capacity(MARK_BYTES * 8);
        for (conversation, sequence) in marks {
            row.extend_from_slice(conversation.0.as_bytes());
            row.extend_from_slice(&sequence.to_be_bytes());
        }
        row.into()
    }

    /// The marks of everything up to here are stored.
    pub(crate) fn marks_stored(&mut self, env: &mut Env<'_, '_>, up_to: u64) {
        self.storing = false;
        let floor = self.log.floor();
        if let Some(head) = self.log.move_head(up_to, floor) {
            let log = log_id(env.user);
            env.store(What::Lazy, vec![Op::Head { log, head }]);
        }
    }

    /// Gives memory back that is not needed now.
    pub(crate) fn rest(&mut self) {
        self.log.rest();
        if self.on_the_way.as_ref().is_some_and(|all| all.is_empty()) {
            self.on_the_way = None;
        }
    }
}

/// The bytes of a row that count against the mailbox's quota. Small ones do not, references above all: the number of
/// entries bounds them, and most mailboxes have nothing else and need no memory to count it.
fn held(row: usize) -> usize {
    if row > SMALL { row } else { 0 }
}

fn bucket(conversation: ConversationId) -> u8 {
    // The last byte is random in every version of UUID that conversations have.
    conversation.0.as_bytes()[15] % BUCKETS
}

/// The entry of a mailbox row. `None`: of a later version.
pub(crate) fn decode_row(row: Bytes) -> Option<MailboxEntry> {
    MailboxEntry::decode(row).ok()
}

/// Which conversation's entry a row refers to.
pub(crate) fn reference(entry: &MailboxEntry) -> Option<(ConversationId, u64)> {
    match entry.entry.as_ref()? {
        mailbox_entry::Entry::Reference(reference) => Some((
            ConversationId::from_slice(&reference.conversation_id)?,
            reference.sequence_number,
        )),
        mailbox_entry::Entry::Event(_) => None,
    }
}
