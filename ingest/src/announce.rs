//! Word to every member that a group's name or description changed: once the change is stored, an entry in each mailbox;
//! who changed it hears "ok" when all of them are there. Of a member's coming and going the log itself tells.

use godwit_cluster::{Cx, Reply};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, UserCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::proto::chat;

use crate::role::{Ingest, Step};

/// A change that is being told.
#[derive(Debug)]
pub(crate) struct Announcing {
    reply: Reply,
    answer: Answer,
    event: Box<chat::InboxEvent>,
    members: Vec<UserId>,
    /// Mailboxes that have not answered.
    outstanding: usize,
    refused: bool,
}

impl Announcing {
    /// To be told to `members` once it is stored; then `reply` gets `answer`.
    pub(crate) fn new(
        reply: Reply,
        answer: Answer,
        event: Box<chat::InboxEvent>,
        members: Vec<UserId>,
    ) -> Self {
        Self {
            reply,
            answer,
            event,
            members,
            outstanding: 0,
            refused: false,
        }
    }
}

impl Ingest {
    /// The change is stored: its members are told.
    pub(crate) fn tell_change(&mut self, cx: &mut Cx<'_>, id: ConversationId, mut change: Box<Announcing>) {
        let members = std::mem::take(&mut change.members);
        if members.is_empty() {
            self.release(id);
            cx.answer(change.reply, change.answer);
            return;
        }
        change.outstanding = members.len();
        let event = change.event.clone();
        let number = self.next_announcement;
        self.next_announcement += 1;
        self.announcements.insert(number, change);
        for user in members {
            let tag = self.step(Step::Noted(id, number));
            let note = UserCommand::Note(event.clone());
            cx.ask(tag, Key::User(user), Command::User(note));
        }
    }

    /// One member's mailbox has it, or will not.
    pub(crate) fn change_told(&mut self, cx: &mut Cx<'_>, id: ConversationId, number: u64, answer: &Answer) {
        let Some(change) = self.announcements.get_mut(&number) else {
            return;
        };
        change.refused |= matches!(answer, Answer::Refused(_));
        change.outstanding = change.outstanding.saturating_sub(1);
        if change.outstanding > 0 {
            return;
        }
        let Some(change) = self.announcements.remove(&number) else {
            return;
        };
        self.release(id);
        // The change stands, but not everybody was told: the same change, asked for again, tells all once more.
        let answer = match change.refused {
            true => Refusal::unavailable().into(),
            false => change.answer,
        };
        cx.answer(change.reply, answer);
    }
}
