//! Watermarks: how far each member's devices acknowledged and read. State, not entries; stored and told lazily.

use godwit_cluster::{Cx, Reply};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, UserCommand, Watermark};
use godwit_wire::ids::{ConversationId, Key, UserId};
use prost::Message;

use crate::conversation::Phase;
use crate::role::{Ingest, Step, TIMER_RECEIPTS};
use crate::rows::{RowName, put};

/// At most one telling a conversation in this time.
const TELL_MS: u64 = 1_000;
/// Above this many members receipts are not told one by one; the status of a message has the counts.
const TOLD_MEMBERS: usize = 32;

impl Ingest {
    pub(crate) fn watermark_read(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        by: UserId,
        up_to: u64,
        reply: Reply,
    ) {
        let view = cx.view_of(&Key::Conversation(id));
        // Short of space alone does not stop it: acknowledgements go on then.
        if cx.overfull() {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if conversation.phase != Phase::Ready || conversation.members.current(by).is_none() {
            cx.answer(reply, Refusal::not_found().into());
            return;
        }
        let up_to = up_to.min(conversation.confirmed);
        // What says so already may be on its way to the store: then this one waits for a write of its own behind it.
        let settled = conversation.busy == 0;
        let watermark = conversation.watermarks.entry(by).or_default();
        if up_to <= watermark.read && settled {
            cx.answer(reply, Answer::Done);
            return;
        }
        let moved = up_to > watermark.read;
        watermark.read = watermark.read.max(up_to);
        let row = watermark.encode_to_vec().into();
        if moved && conversation.untold_watermarks.insert(by) {
            self.untold.push(id);
        }
        self.write_then(
            cx,
            id,
            vec![put(id, view, RowName::Watermark(by), Some(row))],
            reply,
            Answer::Done,
        );
        self.tell_soon(cx);
    }

    pub(crate) fn watermark_delivered(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        user: UserId,
        up_to: u64,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if conversation.phase != Phase::Ready || conversation.members.current(user).is_none() {
            return;
        }
        let up_to = up_to.min(conversation.head);
        let watermark = conversation.watermarks.entry(user).or_default();
        if up_to > watermark.delivered {
            watermark.delivered = up_to;
            conversation.unstored_watermarks.insert(user);
            if conversation.untold_watermarks.insert(user) {
                self.untold.push(id);
            }
            self.tell_soon(cx);
        }
    }

    fn tell_soon(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::replace(&mut self.receipts_timer, true) {
            cx.after(TELL_MS, TIMER_RECEIPTS);
        }
    }

    /// Stores and tells every watermark that moved since the last time.
    pub(crate) fn tell_receipts(&mut self, cx: &mut Cx<'_>) {
        self.receipts_timer = false;
        for id in std::mem::take(&mut self.untold) {
            let view = cx.view_of(&Key::Conversation(id));
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            let moved = std::mem::take(&mut conversation.untold_watermarks);
            let unstored = std::mem::take(&mut conversation.unstored_watermarks);
            let row = |user: &UserId| conversation.watermarks.get(user).copied().unwrap_or_default();
            let ops: Vec<_> = unstored
                .iter()
                .map(|user| {
                    put(
                        id,
                        view,
                        RowName::Watermark(*user),
                        Some(row(user).encode_to_vec().into()),
                    )
                })
                .collect();
            if conversation.members.count() <= TOLD_MEMBERS {
                for user in &moved {
                    let row = row(user);
                    let delivered_up_to = row.delivered.max(row.read);
                    let watermark = Watermark {
                        user: *user,
                        delivered_up_to,
                        read_up_to: row.read,
                    };
                    for (member, _) in conversation.members.iter_current() {
                        let receipt = UserCommand::Receipt {
                            conversation: id,
                            watermark,
                        };
                        cx.tell(Key::User(member), Command::User(receipt));
                    }
                }
            }
            if !ops.is_empty() {
                conversation.busy += 1;
                let tag = self.step(Step::Lazy(id));
                cx.store(&Key::Conversation(id), tag, ops);
            }
        }
    }
}
