//! Which conversations a user is in. Written by the conversations' homes, read in pages; only groups are held in
//! memory, and only while somebody adds the user to one, to keep to the limit.

use bytes::Bytes;
use godwit_cluster::{Cx, Reply};
use godwit_store::{Op, Read, ReadAnswer};
use godwit_wire::account::AccountAnswer;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Answer;
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::limits::USER_GROUPS;

use crate::role::{Accounts, Pending, answer, conversations_of};
use crate::tables::USER_CONVERSATIONS;

/// Longest page of conversations.
const PAGE: u32 = 1_000;

impl Accounts {
    pub(crate) fn joined(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        conversation: ConversationId,
        group: bool,
        reply: Reply,
    ) {
        if group {
            let groups = self.user(user).groups.get_or_insert_default();
            if !groups.contains(&conversation.0) && groups.len() >= USER_GROUPS {
                let detail = "this user is in too many groups";
                self.metrics.count_limit("groups");
                return cx.answer(reply, Refusal::new(Code::Quota, detail).into());
            }
            groups.insert(conversation.0);
        }
        let op = Op::Insert {
            table: USER_CONVERSATIONS,
            partition: conversations_of(user, group),
            element: conversation.to_bytes(),
            value: Bytes::new(),
        };
        self.write(cx, user, vec![op], reply, Answer::Done);
    }

    pub(crate) fn left(&mut self, cx: &mut Cx<'_>, user: UserId, conversation: ConversationId, reply: Reply) {
        if let Some(groups) = &mut self.user(user).groups {
            groups.remove(&conversation.0);
        }
        let remove = |group| Op::Remove {
            table: USER_CONVERSATIONS,
            partition: conversations_of(user, group),
            element: conversation.to_bytes(),
        };
        self.write(cx, user, vec![remove(true), remove(false)], reply, Answer::Done);
    }

    pub(crate) fn conversations(
        &mut self,
        cx: &mut Cx<'_>,
        user: UserId,
        after: Option<ConversationId>,
        limit: u32,
        reply: Reply,
    ) {
        let limit = limit.clamp(1, PAGE);
        let read = |group| Read::Set {
            table: USER_CONVERSATIONS,
            partition: conversations_of(user, group),
            after: after.map(ConversationId::to_bytes),
            up_to: None,
            limit: limit + 1,
        };
        let tag = self.pend(Pending::List {
            user,
            limit: limit as usize,
            reply,
        });
        cx.read(tag, vec![read(true), read(false)]);
    }

    /// Groups and one-to-one conversations in one order of ids.
    pub(crate) fn conversation_page(answers: Vec<ReadAnswer>, limit: usize) -> Answer {
        let mut page = Vec::new();
        for (answer, group) in answers.into_iter().zip([true, false]) {
            let ReadAnswer::Set { elements, .. } = answer else {
                return Refusal::unavailable().into();
            };
            let ids = elements
                .iter()
                .filter_map(|(element, _)| ConversationId::from_slice(element));
            page.extend(ids.map(|id| (id, group)));
        }
        page.sort_unstable();
        let more = page.len() > limit;
        page.truncate(limit);
        answer(AccountAnswer::Conversations(page, more))
    }
}
