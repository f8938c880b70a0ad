//! Words to the accounts: each user's home keeps a list of conversations, and a membership change is not done before
//! that list says so. What is told is always how it stands now, so a word that comes late never says what was.

use godwit_cluster::Cx;
use godwit_wire::account::AccountCommand;
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::proto::chat::{self, MemberOp};

use crate::role::{Ingest, Step};

pub(crate) fn joined(conversation: ConversationId) -> Command {
    Command::Account(Box::new(AccountCommand::Joined {
        conversation,
        group: true,
    }))
}

pub(crate) fn left(conversation: ConversationId) -> Command {
    Command::Account(Box::new(AccountCommand::Left { conversation }))
}

impl Ingest {
    /// The change at this position is done only when the accounts of who comes or goes have it.
    pub(crate) fn tell_accounts(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        position: u64,
        change: &chat::Member,
    ) {
        if matches!(change.op(), MemberOp::Role | MemberOp::Unspecified) {
            return;
        }
        let Some(user) = UserId::from_slice(&change.user_id) else {
            return;
        };
        let conversation = self.conversations.get_mut(&id);
        let Some(flight) = conversation.and_then(|conversation| conversation.flight_at(position)) else {
            return;
        };
        flight.outstanding += 1;
        self.say(cx, id, position, user);
    }

    fn say(&mut self, cx: &mut Cx<'_>, id: ConversationId, position: u64, user: UserId) {
        let Some(conversation) = self.conversations.get(&id) else {
            return;
        };
        let is_in = conversation.members.current(user).is_some();
        let word = if is_in { joined(id) } else { left(id) };
        let tag = self.step(Step::Membership(id, position, user));
        cx.ask(tag, Key::User(user), word);
    }

    pub(crate) fn membership_answered(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        position: u64,
        user: UserId,
        answer: &Answer,
    ) {
        if matches!(answer, Answer::Refused(refusal) if refusal.code == Code::Unavailable) {
            self.refused_words.push((id, position, user));
            self.offer_again_soon(cx);
            return;
        }
        let conversation = self.conversations.get_mut(&id);
        if let Some(flight) = conversation.and_then(|conversation| conversation.flight_at(position)) {
            flight.outstanding = flight.outstanding.saturating_sub(1);
        }
        self.advance(cx, id);
    }

    pub(crate) fn say_again(&mut self, cx: &mut Cx<'_>) {
        for (id, position, user) in std::mem::take(&mut self.refused_words) {
            self.say(cx, id, position, user);
        }
    }
}
