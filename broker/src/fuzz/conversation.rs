//! The naive conversation of the target `sessions`: numbers, keeps and offers; an offer that was refused is made again with
//! the next send. Every user is a member.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_cluster::Reply;
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, LoggedEntry, Send, SendIdentity, Sent as Stored, UserCommand};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{Key, MessageId, UserId};
use godwit_wire::proto::chat;

use super::world::World;
use crate::tables::{CONVERSATION_LOG, MAILBOX};

/// The one conversation: its entries, and how many of them each member has.
#[derive(Default)]
pub(super) struct Conversation {
    entries: Vec<(SendIdentity, Stored, Arc<LoggedEntry>)>,
    kept: HashMap<UserId, u64>,
}

/// Gives the answer, once it is there.
pub(super) type Asked = Box<dyn FnMut() -> Option<Answer>>;

/// One entry offered to one member.
pub(super) struct Offer {
    member: UserId,
    position: u64,
    asked: Asked,
    answer: Option<Answer>,
}

impl World {
    pub(super) fn send(&mut self, key: &Key, send: Send, reply: Reply) {
        let (true, chat::send_request::Content::Text(text)) =
            (*key == Key::Conversation(self.conversation_id), send.content)
        else {
            self.answer(reply, Refusal::not_found().into());
            return;
        };
        let known = self
            .conversation
            .entries
            .iter()
            .find(|(identity, ..)| *identity == send.identity);
        let stored = known.map(|(_, stored, _)| Stored {
            duplicate: true,
            ..*stored
        });
        let stored = stored.unwrap_or_else(|| {
            let stored = Stored {
                message_id: MessageId::fresh(),
                sequence_number: self.conversation.entries.len() as u64 + 1,
                created_at: self.now_ms(),
                duplicate: false,
            };
            let entry = LoggedEntry::message(chat::Message {
                conversation_id: self.conversation_id.to_bytes(),
                sequence_number: stored.sequence_number,
                message_id: stored.message_id.to_bytes(),
                sender_id: send.sender.user.to_bytes(),
                sender_name: send.sender.name.to_string(),
                content_type: chat::ContentType::Text as i32,
                content: Some(chat::message::Content::Text(text)),
                created_at: stored.created_at,
                ..chat::Message::default()
            });
            let entry = Arc::new(entry.expect("right ids"));
            let row = entry.to_stored(&RetryKeys::default());
            let (table, id) = (CONVERSATION_LOG.id, self.conversation_id.0);
            self.store.put_log_row(table, id, stored.sequence_number, row);
            self.conversation.entries.push((send.identity, stored, entry));
            stored
        });
        let mut offers = Vec::new();
        for member in self.members.clone() {
            let kept = self.conversation.kept.get(&member).copied().unwrap_or(0);
            let missing = self.conversation.entries.iter().skip(kept as usize);
            for entry in missing.map(|(_, _, entry)| entry.clone()).collect::<Vec<_>>() {
                let position = entry.sequence_number;
                let after = position - 1;
                let asked = self.ask(member, UserCommand::Offer { entry, after });
                offers.push(Offer {
                    member,
                    position,
                    asked,
                    answer: None,
                });
            }
        }
        self.waiting.push((reply, stored, offers));
    }

    /// Answers sends whose offers are answered. ACK: what a mailbox calls kept is in its log.
    pub(super) fn answer_sends(&mut self) -> bool {
        let mut busy = false;
        for (reply, stored, mut offers) in std::mem::take(&mut self.waiting) {
            for offer in offers.iter_mut().filter(|offer| offer.answer.is_none()) {
                offer.answer = (offer.asked)();
            }
            if offers.iter().any(|offer| offer.answer.is_none()) {
                self.waiting.push((reply, stored, offers));
                continue;
            }
            busy = true;
            let mut refused = false;
            for Offer {
                member,
                position,
                answer,
                ..
            } in offers
            {
                match answer {
                    Some(Answer::Kept { .. }) => {
                        let of = self.conversation_id.0;
                        let rows = self.store.rows_with(MAILBOX.id, member.0, of.as_bytes());
                        assert!(
                            rows as u64 >= position,
                            "ACK: position {position} is kept, of {rows} rows"
                        );
                        let kept = self.conversation.kept.entry(member).or_default();
                        *kept = position.max(*kept);
                    }
                    Some(Answer::Refused(_)) => refused = true,
                    other => panic!("an offer is answered {other:?}"),
                }
            }
            let answer = if refused {
                Refusal::unavailable().into()
            } else {
                Answer::Sent(stored)
            };
            self.answer(reply, answer);
        }
        busy
    }
}
