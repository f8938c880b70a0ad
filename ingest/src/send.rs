//! One message: recognised or numbered, stored, offered to every mailbox, and only then acknowledged (ACK, SEQ, ONCE).

use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_store::{Health, Op, Read, ReadAnswer};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, EntryBody, LoggedEntry, Send, SendIdentity, Sent, UserCommand};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, Key, MessageId, UserId};
use godwit_wire::proto::chat;

use crate::conversation::{Check, Conversation, Flight, IN_FLIGHT, Known, PENDING, Pending, Phase, Waiter};
use crate::read::Reading;
use crate::role::{Ingest, Step, TIMER_OFFERS};
use crate::tables::{
    CLIENT_IDS, OPEN_TAILS, client_id_name, client_id_sequence, client_id_value, log, message_id_row,
    tail_partition,
};

/// A refused offer comes again after this long.
const OFFER_AGAIN_MS: u64 = 100;

impl Ingest {
    pub(crate) fn send(&mut self, cx: &mut Cx<'_>, id: ConversationId, send: Box<Send>, reply: Reply) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if cx.health() == Health::LowSpace
            || conversation.pending.len() >= PENDING
            || conversation.flight.len() >= IN_FLIGHT
        {
            self.metrics.refused_busy.inc();
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        if conversation.phase == Phase::Absent && !self.make_by_send(cx, id, &send) {
            cx.answer(reply, Refusal::not_found().into());
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let number = conversation.next_pending;
        conversation.next_pending += 1;
        let digest = send.digest();
        let known = conversation
            .recall(send.sender.user, &send.identity)
            .map(|known| known.sent.sequence_number);
        let check = known.map_or(Check::Reading, Check::At);
        let name = client_id_name(send.sender.user, &send.identity);
        conversation.pending.push_back(Pending {
            number,
            send,
            digest,
            reply,
            check,
        });
        if check == Check::Reading {
            let tag = self.step(Step::Check(id, number));
            cx.read(
                tag,
                vec![Read::Row {
                    table: CLIENT_IDS,
                    partition: id.to_bytes(),
                    name,
                }],
            );
        }
        self.number_pending(cx, id);
    }

    /// The row of a pending send's id was read, or was not there.
    pub(crate) fn checked(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        number: u64,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Some(pending) = conversation
            .pending
            .iter_mut()
            .find(|pending| pending.number == number)
        else {
            return;
        };
        pending.check = match answers.as_deref() {
            Some([ReadAnswer::Row(None)]) => Check::New,
            Some([ReadAnswer::Row(Some(value))]) => {
                client_id_sequence(value).map_or(Check::Failed, Check::At)
            }
            _ => Check::Failed,
        };
        self.number_pending(cx, id);
    }

    /// Numbers what waits, in the order of arrival, up to the first whose look-up has not ended.
    pub(crate) fn number_pending(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        while let Some(conversation) = self.conversations.get_mut(&id) {
            if conversation.phase == Phase::Making {
                return;
            }
            if conversation
                .pending
                .front()
                .is_none_or(|first| first.check == Check::Reading)
            {
                return;
            }
            let Some(pending) = conversation.pending.pop_front() else {
                return;
            };
            let sender = pending.send.sender.user;
            if conversation.phase == Phase::Absent || !conversation.may_send(sender) {
                cx.answer(pending.reply, Refusal::not_found().into());
            } else if let Some(known) = conversation.recall(sender, &pending.send.identity).cloned() {
                // Numbered while its row was being looked up, or not long ago.
                self.answer_known(cx, id, &known, &pending.digest, pending.reply);
            } else {
                match pending.check {
                    Check::At(position) => self.answer_stored(cx, id, position, pending),
                    Check::New => self.number(cx, id, pending),
                    Check::Reading | Check::Failed => cx.answer(pending.reply, Refusal::unavailable().into()),
                }
            }
        }
    }

    fn answer_known(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        known: &Known,
        digest: &[u8; 16],
        reply: Reply,
    ) {
        if known.digest != *digest {
            cx.answer(reply, other_content().into());
            return;
        }
        self.metrics.duplicates.inc();
        let sent = Sent {
            duplicate: true,
            ..known.sent
        };
        let flight = self
            .conversations
            .get_mut(&id)
            .and_then(|c| c.flight_at(sent.sequence_number));
        match flight {
            // ACK: a duplicate is answered only when the first one could be.
            Some(flight) => flight.waiters.push(Waiter::Send(reply, sent)),
            None => cx.answer(reply, Answer::Sent(sent)),
        }
    }

    /// The id was met before, and not lately: its place is in the log.
    fn answer_stored(&mut self, cx: &mut Cx<'_>, id: ConversationId, position: u64, pending: Pending) {
        let Pending {
            send, digest, reply, ..
        } = pending;
        let reading = Reading::Duplicate {
            id,
            position,
            send,
            digest,
            reply,
        };
        self.begin_reading(cx, reading, vec![one_row(id, position)]);
    }

    /// Gives the next number. From here on the work is the worker's: no closed connection or time-out cancels it.
    fn number(&mut self, cx: &mut Cx<'_>, id: ConversationId, pending: Pending) {
        let (view, now) = (cx.view(), cx.now());
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Pending {
            send, digest, reply, ..
        } = pending;
        let position = conversation.head + 1;
        let message_id = MessageId::fresh();
        // Times in one conversation never run backwards, whatever the clock does.
        let created_at = now.unix_ms.max(conversation.last_created_at);
        conversation.last_created_at = created_at;
        let client_message_id = match &send.identity {
            SendIdentity::Client(own) => own.to_string(),
            SendIdentity::Implicit(_) => String::new(),
        };
        let retry_key = match &send.identity {
            SendIdentity::Client(_) => None,
            SendIdentity::Implicit(key) => Some(*key),
        };
        let message = chat::Message {
            conversation_id: id.to_bytes(),
            sequence_number: position,
            message_id: message_id.to_bytes(),
            client_message_id,
            sender_id: send.sender.user.to_bytes(),
            sender_name: send.sender.name.to_string(),
            content_type: send.content_type as i32,
            content: Some(send.content.into()),
            reply_to: send.reply_to.map(MessageId::to_bytes).unwrap_or_default(),
            created_at,
        };
        let sent = Sent {
            message_id,
            sequence_number: position,
            created_at,
            duplicate: false,
        };
        let sender = send.sender.user;
        let name = client_id_name(sender, &send.identity);
        let entry = match LoggedEntry::message(message) {
            Ok(entry) => Arc::new(entry),
            Err(error) => {
                // The fields were made here; only a content that the door let through can be at fault.
                tracing::error!(conversation = %id, %error, "a message could not be encoded");
                cx.answer(
                    reply,
                    Refusal::new(Code::Malformed, "this content cannot be stored").into(),
                );
                return;
            }
        };
        conversation.remember(Known {
            sender,
            identity: send.identity,
            digest,
            sent,
        });
        let ops = vec![
            Op::Put {
                table: CLIENT_IDS,
                partition: id.to_bytes(),
                name,
                view,
                value: Some(client_id_value(position, view)),
            },
            message_id_row(message_id, id, position, view),
        ];
        self.metrics.messages.inc();
        let stored = entry.to_stored(&RetryKeys {
            retry_key,
            content_digest: Some(digest),
        });
        self.append(cx, id, entry.clone(), stored, ops, Waiter::Send(reply, sent));
    }

    /// Appends an entry at the next position together with `ops`, and offers it as soon as the store's order allows.
    pub(crate) fn append(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        entry: Arc<LoggedEntry>,
        row: bytes::Bytes,
        mut ops: Vec<Op>,
        waiter: Waiter,
    ) {
        let view = cx.view();
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let position = conversation.head + 1;
        debug_assert_eq!(
            position, entry.sequence_number,
            "SEQ: the entry carries its own position"
        );
        conversation.head = position;
        ops.insert(
            0,
            Op::Append {
                log: log(id),
                view,
                seq: position,
                row,
            },
        );
        if !conversation.tail_open {
            conversation.tail_open = true;
            ops.push(Op::Insert {
                table: OPEN_TAILS,
                partition: tail_partition(Key::Conversation(id).shard()),
                element: id.to_bytes(),
                value: bytes::Bytes::new(),
            });
        }
        conversation.flight.push_back(Flight {
            entry,
            stored: false,
            offered: false,
            outstanding: 0,
            waiters: vec![waiter],
            since_ms: cx.now().mono_ms,
        });
        let tag = self.step(Step::Stored(id, position));
        cx.store(tag, ops);
        if cx.totally_ordered() {
            // Mailbox entries are submitted behind the row, so none of them can be durable without it.
            self.offer(cx, id, position);
        }
    }

    pub(crate) fn row_stored(&mut self, cx: &mut Cx<'_>, id: ConversationId, position: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Some(flight) = conversation.flight_at(position) else {
            return;
        };
        flight.stored = true;
        self.advance(cx, id);
    }

    /// Confirms, offers and acknowledges as far as everything before allows it.
    pub(crate) fn advance(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let before = conversation.confirmed;
        while conversation.confirmed < conversation.head {
            let next = conversation.confirmed + 1;
            if !conversation.flight_at(next).is_some_and(|flight| flight.stored) {
                break;
            }
            conversation.confirmed = next;
        }
        let confirmed = conversation.confirmed;
        if confirmed > before {
            if let Some(tell) = &self.config.confirmed {
                tell(id, Key::Conversation(id).shard(), confirmed);
            }
            for position in before + 1..=confirmed {
                self.offer(cx, id, position);
            }
        }
        self.acknowledge(cx, id);
    }

    /// Answers the waiters of every leading position that is stored and in all its mailboxes.
    fn acknowledge(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let now_ms = cx.now().mono_ms;
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        while conversation
            .flight
            .front()
            .is_some_and(|first| first.stored && first.offered && first.outstanding == 0)
        {
            let Some(done) = conversation.flight.pop_front() else {
                break;
            };
            self.metrics.acknowledged(now_ms.saturating_sub(done.since_ms));
            for waiter in done.waiters {
                match waiter {
                    Waiter::Send(reply, sent) => cx.answer(reply, Answer::Sent(sent)),
                    Waiter::Change(reply) => cx.answer(reply, Answer::Done),
                }
            }
        }
        self.store_mark_if_far(cx, id);
    }

    /// Offers a position to everybody it is for, once.
    pub(crate) fn offer(&mut self, cx: &mut Cx<'_>, id: ConversationId, position: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let users: Vec<(UserId, u64)> = conversation
            .members
            .at(position)
            .map(|user| (user, conversation.members.before(user, position)))
            .collect();
        let Some(flight) = conversation.flight_at(position) else {
            return;
        };
        if std::mem::replace(&mut flight.offered, true) {
            return;
        }
        flight.outstanding += users.len();
        let entry = flight.entry.clone();
        for (user, after) in users {
            let tag = self.step(Step::Offer(id, position, user));
            let offer = UserCommand::Offer {
                entry: entry.clone(),
                after,
            };
            cx.ask(tag, Key::User(user), Command::User(offer));
        }
        if let EntryBody::Member(change) = &entry.body {
            self.tell_accounts(cx, id, position, change);
        }
    }

    pub(crate) fn offer_answered(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        position: u64,
        user: UserId,
        answer: &Answer,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if let Answer::Refused(_) = answer {
            // It did not get there (a home that could not be loaded). Later ones are refused too, so order is kept.
            self.metrics.offers_refused.inc();
            if conversation.refused_offers.is_empty() {
                self.refused.push_back(id);
            }
            conversation.refused_offers.insert((user, position));
            if !std::mem::replace(&mut self.offers_timer, true) {
                cx.after(OFFER_AGAIN_MS, TIMER_OFFERS);
            }
            return;
        }
        if let Some(flight) = conversation.flight_at(position) {
            flight.outstanding -= 1;
        }
        self.acknowledge(cx, id);
    }

    pub(crate) fn offer_again(&mut self, cx: &mut Cx<'_>) {
        self.offers_timer = false;
        self.say_again(cx);
        for id in std::mem::take(&mut self.refused) {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            for (user, position) in std::mem::take(&mut conversation.refused_offers) {
                let after = conversation.members.before(user, position);
                let Some(entry) = conversation
                    .flight_at(position)
                    .map(|flight| flight.entry.clone())
                else {
                    continue;
                };
                let tag = self.steps.insert(Step::Offer(id, position, user)) as u64;
                cx.ask(
                    tag,
                    Key::User(user),
                    Command::User(UserCommand::Offer { entry, after }),
                );
            }
        }
    }

    /// Makes the one-to-one conversation that a first send names. `false`: there is none and none may be.
    fn make_by_send(&mut self, cx: &mut Cx<'_>, id: ConversationId, send: &Send) -> bool {
        let Some(with) = &send.direct_with else {
            return false;
        };
        if ConversationId::direct(send.sender.user, with.user) != id {
            return false;
        }
        self.open_direct(cx, id, send.sender.clone(), with.clone(), Reply::nobody());
        self.conversations
            .get(&id)
            .is_some_and(|conversation| conversation.phase != Phase::Absent)
    }

    /// What a stored entry says when it is read back at take-up.
    pub(crate) fn replay(
        &mut self,
        conversation: &mut Conversation,
        position: u64,
        (entry, keys): (LoggedEntry, RetryKeys),
    ) {
        conversation.head = position;
        match &entry.body {
            EntryBody::Message(message) => {
                conversation.last_created_at = conversation.last_created_at.max(message.created_at);
                let known = known_send(message, &keys, position);
                if let Some(known) = known {
                    conversation.remember(known);
                }
            }
            EntryBody::Member(change) => apply_member(conversation, position, change, None),
        }
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

/// What names a stored message, for the memory of recent sends.
pub(crate) fn known_send(message: &chat::Message, keys: &RetryKeys, position: u64) -> Option<Known> {
    let identity = match keys.retry_key {
        Some(key) => SendIdentity::Implicit(key),
        None if message.client_message_id.is_empty() => return None,
        None => SendIdentity::Client(message.client_message_id.as_str().into()),
    };
    let sent = Sent {
        message_id: MessageId::from_slice(&message.message_id)?,
        sequence_number: position,
        created_at: message.created_at,
        duplicate: false,
    };
    Some(Known {
        sender: UserId::from_slice(&message.sender_id)?,
        identity,
        digest: keys.content_digest?,
        sent,
    })
}

pub(crate) fn one_row(id: ConversationId, position: u64) -> Read {
    Read::Log {
        log: log(id),
        after: position.saturating_sub(1),
        up_to: position,
        max_rows: 1,
        max_bytes: 1 << 20,
    }
}

pub(crate) fn other_content() -> Refusal {
    Refusal::new(
        Code::Conflict,
        "this client_message_id already names a message with other content",
    )
}
