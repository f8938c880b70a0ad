//! Pushing the mailbox to a session: new entries directly, older ones in pages from the store, whose references are
//! resolved by the conversations' rows. What a mailbox takes and when it is durable is in `mailbox`.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_store::{LogId, Read, ReadAnswer};
use godwit_wire::command::{EntryBody, LoggedEntry, Watermark};
use godwit_wire::ids::{ConversationId, MessageId, SessionId};
use godwit_wire::proto::chat::{self, inbox_event};
use godwit_wire::proto::stored::{MailboxEntry, PublishProperties, mailbox_entry};
use godwit_wire::topic::Encoding;

use super::config::UsersMetrics;
use super::cursor::{Half, State, packet_id};
use super::deliver::READ_AGAIN_MS;
use super::env::{Asked, Env, What};
use super::feed::{Next, gap_before};
use super::home::Home;
use super::inbox::InboxForm;
use super::log::{Keep, PAGE_BYTES, PAGE_ROWS};
use super::mail::Mail;
use super::mailbox::{self, Mailbox};
use super::session::{Live, Session};
use crate::packet::{Outgoing, PublishOut, Version};
use crate::tables::CONVERSATION_LOG;
use crate::wire_trait::Sent;

impl Home {
    /// The store has the mailbox's oldest unconfirmed entry: whoever waits is told, live sessions get it.
    pub(crate) fn mail_stored(&mut self, env: &mut Env<'_, '_>) {
        let fed =
            |session: &Session| session.live.is_some() && session.inbox.as_ref().is_some_and(|i| i.is_fed());
        let keep = match self.sessions.iter().any(&fed) {
            true => Keep::Tail,
            false => Keep::No,
        };
        let Some((number, mail, waiter)) = self.mailbox.confirm(keep) else {
            return;
        };
        self.kept(env, waiter);
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            let Some(inbox) = session.inbox.as_deref() else {
                continue;
            };
            match inbox.form {
                // ORDER: it would overtake what is to be given first, for which there was no room.
                Some(form) if form.qos == 0 && inbox.is_fed() => {
                    env.metrics()
                        .dropped_qos0
                        .inc_by(u64::from(session.live.is_some()));
                }
                Some(form) if form.qos == 0 => give_live(session, env, &mail, number, form),
                Some(_) => self.push_mail(env, index),
                None => {}
            }
        }
        let behind = self.sessions.iter().filter(|session| fed(session));
        let sent = behind.filter_map(|session| Some(session.inbox.as_ref()?.feed.as_ref()?.cursor.sent()));
        let everybody_has = sent.min().unwrap_or(u64::MAX);
        self.mailbox.log.had(everybody_has);
        self.mailbox.keep_marks(env, false);
    }

    /// Gives a session what its window and connection have room for.
    pub(crate) fn push_mail(&mut self, env: &mut Env<'_, '_>, index: usize) {
        let settled = push(&mut self.sessions[index], &self.mailbox, env);
        if settled > 0 {
            self.flush_soon(env, settled);
        }
    }

    /// A page of the mailbox was read for a session: what its references name is read next.
    pub(crate) fn mail_page(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        asked: Asked,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let Some(ReadAnswer::Log { rows, .. }) = answers.and_then(|answers| answers.into_iter().next())
        else {
            env.after(READ_AGAIN_MS, What::MailAgain(id, asked.generation));
            return;
        };
        let rows: Vec<(u64, MailboxEntry)> = rows
            .into_iter()
            .map(|row| (row.seq, mailbox::decode_row(row.row).unwrap_or_default()))
            .collect();
        let reads = conversation_reads(rows.iter().filter_map(|(_, row)| mailbox::reference(row)));
        if reads.is_empty() {
            self.mail_rows(env, id, asked, rows, Some(Vec::new()));
        } else {
            env.read(What::MailRows(id, asked, Box::new(rows)), reads);
        }
    }

    /// The conversations' rows of a page were read.
    pub(crate) fn mail_rows(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        asked: Asked,
        rows: Vec<(u64, MailboxEntry)>,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let Some(answers) = answers else {
            env.after(READ_AGAIN_MS, What::MailAgain(id, asked.generation));
            return;
        };
        let mut entries = HashMap::new();
        for answer in answers {
            let ReadAnswer::Log { rows, .. } = answer else {
                continue;
            };
            for (entry, _) in rows
                .into_iter()
                .filter_map(|row| LoggedEntry::from_stored(row.row).ok())
            {
                entries.insert((entry.conversation, entry.sequence_number), Arc::new(entry));
            }
        }
        let page = rows.into_iter().map(|(number, row)| {
            let mail = resolve(row, &entries, env.metrics());
            if matches!(mail, Mail::Lost) {
                env.metrics().missing.inc();
                tracing::error!(number, "a mailbox entry leads nowhere");
            }
            (number, mail)
        });
        let page = page.collect();
        let Some(index) = self.sessions.iter().position(|session| session.id == id) else {
            return;
        };
        let feed = self.sessions[index]
            .inbox
            .as_mut()
            .and_then(|inbox| inbox.feed.as_mut());
        let Some(feed) = feed else { return };
        let first = feed.cursor.sent() + 1;
        let missing = gap_before(&page, first, asked.up_to);
        if feed.page_read(asked.generation, page) {
            if missing >= first {
                env.metrics().missing.inc_by(missing + 1 - first);
                tracing::error!(from = first, to = missing, "rows of a mailbox are missing");
                feed.cursor.lift(missing);
            }
            self.push_mail(env, index);
        }
    }

    /// The timer after a page of the mailbox that could not be read.
    pub(crate) fn mail_again(&mut self, env: &mut Env<'_, '_>, id: SessionId, generation: u32) {
        let Some(index) = self.sessions.iter().position(|session| session.id == id) else {
            return;
        };
        let inbox = self.sessions[index].inbox.as_mut();
        if let Some(feed) = inbox.and_then(|inbox| inbox.feed.as_mut()) {
            feed.page_failed(generation);
            self.push_mail(env, index);
        }
    }

    /// Tells live sessions that somebody got further; not owed.
    pub(crate) fn give_receipt(
        &mut self,
        env: &mut Env<'_, '_>,
        conversation: ConversationId,
        mark: Watermark,
    ) {
        let receipt = chat::Receipt {
            conversation_id: conversation.to_bytes(),
            user_id: mark.user.to_bytes(),
            delivered_up_to: mark.delivered_up_to,
            read_up_to: mark.read_up_to,
        };
        let event = chat::InboxEvent {
            inbox_seq: 0,
            event: Some(inbox_event::Event::Receipt(receipt)),
        };
        let mail = Mail::Event(Arc::new(event));
        for session in &mut self.sessions {
            if let Some(form) = session.inbox.as_ref().and_then(|inbox| inbox.form) {
                give_live(session, env, &mail, 0, form);
            }
        }
    }
}

fn push(session: &mut Session, mailbox: &Mailbox, env: &mut Env<'_, '_>) -> u64 {
    let mut settled = 0;
    loop {
        let in_flight = session.in_flight();
        let (Some(live), Some(inbox)) = (
            session.live.as_deref().filter(|live| live.takes_mail()),
            &mut session.inbox,
        ) else {
            return settled;
        };
        let next = inbox.feed.as_ref().map_or(0, |feed| feed.cursor.sent()) + 1;
        let (Some(form), Some(feed)) = (inbox.form_of(next), &mut inbox.feed) else {
            return settled;
        };
        if let Some(after) = inbox.gap.filter(|_| !inbox.gap_told) {
            inbox.gap_told = true;
            give_gap(live, form, env, after);
        }
        if next > mailbox.log.confirmed() || in_flight >= live.window || !feed.cursor.has_span() {
            return settled;
        }
        if !env.wire.room(live.conn) {
            return settled;
        }
        if feed.cursor.state(next) == Some(State::Acked) {
            settled += feed.cursor.passed().count() as u64;
            continue;
        }
        let mail = match feed.next(&mailbox.log) {
            Next::Nothing => return settled,
            Next::Read { after, up_to } => {
                let read = Read::Log {
                    log: mailbox::log_id(env.user),
                    after,
                    up_to,
                    max_rows: PAGE_ROWS,
                    max_bytes: PAGE_BYTES,
                };
                let generation = feed.generation();
                env.read(
                    What::MailPage(session.id, Asked { generation, up_to }),
                    vec![read],
                );
                return settled;
            }
            Next::Entry(mail) => mail,
        };
        let payload = match form.no_local && mail.is_mine(env.user) {
            true => None,
            false => mail.payload(next, form.encoding),
        };
        let given = payload.is_some_and(|payload| {
            let packet = publish(env, live, form, payload, 1, packet_id(Half::Mailbox, next));
            let dup = feed.cursor.is_repeat(next);
            give(env, live, PublishOut { dup, ..packet })
        });
        settled += match given {
            true => feed.cursor.gave(State::Sent, mail.about(env.user)).count() as u64,
            false => feed.cursor.gave(State::Acked, None).count() as u64,
        };
    }
}

/// To a connection that is not owed it: dropped, and counted, if it has no room.
fn give_live(session: &mut Session, env: &mut Env<'_, '_>, mail: &Mail, number: u64, form: InboxForm) {
    let Some(live) = session.live.as_deref().filter(|live| live.takes_mail()) else {
        return;
    };
    if form.no_local && mail.is_mine(env.user) {
        return;
    }
    let Some(payload) = mail.payload(number, form.encoding) else {
        return;
    };
    if env.wire.room(live.conn) {
        let packet = publish(env, live, form, payload, 0, 0);
        give(env, live, packet);
    } else {
        env.metrics().dropped_qos0.inc();
    }
}

/// Retention took entries that this session had not acknowledged.
fn give_gap(live: &Live, form: InboxForm, env: &mut Env<'_, '_>, after: u64) {
    let gap = chat::Gap {
        after,
        conversation_id: bytes::Bytes::new(),
    };
    let event = chat::InboxEvent {
        inbox_seq: 0,
        event: Some(inbox_event::Event::Gap(gap)),
    };
    if let Some(payload) = Mail::Event(Arc::new(event)).payload(0, form.encoding) {
        let packet = publish(env, live, form, payload, 0, 0);
        give(env, live, packet);
    }
}

fn publish(
    env: &Env<'_, '_>,
    live: &Live,
    form: InboxForm,
    payload: bytes::Bytes,
    qos: u8,
    packet_id: u16,
) -> PublishOut {
    let topic = match form.encoding {
        Encoding::Proto => 0,
        Encoding::Json => 1,
        Encoding::Text => 2,
    };
    let readable = live.version == Version::V5 && form.encoding != Encoding::Proto;
    let content_type = match form.encoding {
        Encoding::Json => "application/json",
        Encoding::Text | Encoding::Proto => "",
    };
    PublishOut {
        topic: env.common.inbox_topics[topic].clone(),
        payload,
        qos,
        retain: false,
        dup: false,
        packet_id,
        message_expiry: None,
        subscription_ids: form.subscription_id.into_iter().collect(),
        properties: readable.then(|| {
            Box::new(PublishProperties {
                payload_is_utf8: Some(true),
                content_type: content_type.to_owned(),
                ..PublishProperties::default()
            })
        }),
    }
}

/// `false`: too large for this client, which counts as delivered.
pub(crate) fn give(env: &mut Env<'_, '_>, live: &Live, packet: PublishOut) -> bool {
    match env.wire.send(live.conn, &Outgoing::Publish(Box::new(packet))) {
        Sent::Taken => {
            env.metrics().messages_out.inc();
            true
        }
        Sent::TooLarge => {
            env.metrics().too_large.inc();
            false
        }
    }
}

/// Reads of the rows that these references name; neighbours in one.
fn conversation_reads(references: impl Iterator<Item = (ConversationId, u64)>) -> Vec<Read> {
    let mut runs: Vec<(ConversationId, u64, u64)> = Vec::new();
    for (conversation, sequence) in references {
        match runs.iter_mut().rev().find(|run| run.0 == conversation) {
            Some(run) if run.2 + 1 == sequence => run.2 = sequence,
            _ => runs.push((conversation, sequence, sequence)),
        }
    }
    let read = |(conversation, first, last): (ConversationId, u64, u64)| Read::Log {
        log: LogId {
            table: CONVERSATION_LOG,
            id: conversation.0,
        },
        after: first.saturating_sub(1),
        up_to: last,
        // A page has few rows, so this many bytes are all of them.
        max_rows: PAGE_ROWS,
        max_bytes: u32::MAX,
    };
    runs.into_iter().map(read).collect()
}

fn resolve(
    row: MailboxEntry,
    entries: &HashMap<(ConversationId, u64), Arc<LoggedEntry>>,
    metrics: &UsersMetrics,
) -> Mail {
    let Some(key) = mailbox::reference(&row) else {
        return match row.entry {
            Some(mailbox_entry::Entry::Event(event)) => Mail::Event(Arc::new(event)),
            _ => Mail::Lost,
        };
    };
    let Some(mailbox_entry::Entry::Reference(reference)) = row.entry else {
        return Mail::Lost;
    };
    match entries.get(&key) {
        Some(entry) if is_named(entry, MessageId::from_slice(&reference.message_id)) => {
            Mail::Entry(entry.clone())
        }
        Some(_) => {
            metrics.contradictions.inc();
            Mail::Lost
        }
        None => Mail::Lost,
    }
}

/// Whether the entry is the one that was offered: never another message under its number (SEQ).
fn is_named(entry: &LoggedEntry, id: Option<MessageId>) -> bool {
    match entry.body {
        EntryBody::Message(_) => entry.message_id() == id,
        EntryBody::Member(_) => id.is_none(),
    }
}
