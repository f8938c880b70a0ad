//! One message: recognised or numbered, stored, offered to every mailbox, and only then acknowledged (ACK, SEQ, ONCE).

use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_store::{Op, Read, ReadAnswer};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{LoggedEntry, Send, SendIdentity, Sent};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, Key, MessageId, UserId};
use godwit_wire::proto::chat;

use crate::conversation::{Check, IN_FLIGHT, Known, PENDING, Pending, Phase, Waiter};
use crate::read::Reading;
use crate::role::{Ingest, Step};
use crate::tables::{CLIENT_IDS, client_id_name, client_id_sequence, client_id_value, log, message_id_row};

impl Ingest {
    pub(crate) fn send(&mut self, cx: &mut Cx<'_>, id: ConversationId, send: Box<Send>, reply: Reply) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if Self::is_full(cx)
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
        let unknown = if send.fresh { Check::New } else { Check::Reading };
        let check = known.map_or(unknown, Check::At);
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

    pub(crate) fn answer_known(
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
        // ACK: a duplicate is answered only when the first one could be.
        let waiter = Waiter::Send(reply, sent);
        if let Some(waiter) = self.wait_for(cx, id, sent.sequence_number, waiter) {
            Self::answer_waiter(cx, waiter);
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
        let (view, now) = (cx.view_of(&Key::Conversation(id)), cx.now());
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
            until: conversation.next_pending,
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
            member_name: None,
        });
        self.append(cx, id, entry.clone(), stored, ops, Waiter::Send(reply, sent));
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
        until: 0,
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

fn other_content() -> Refusal {
    Refusal::new(
        Code::Conflict,
        "this client_message_id already names a message with other content",
    )
}
