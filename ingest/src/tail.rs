//! Open tails: which conversations may have an entry that is not fanned out or not indexed. A take-up reads that
//! list, never all conversations, and offers the rest again before anything new.

use godwit_cluster::Cx;
use godwit_store::{Head, Op, Read, ReadAnswer};
use godwit_wire::ids::{ConversationId, Key};
use prost::Message;

use crate::conversation::{Conversation, Phase};
use crate::role::{Ingest, Step, TIMER_SWEEP, TIMER_TAILS};
use crate::rows::{MarkRow, RowName, put};
use crate::tables::{OPEN_TAILS, log, tail_partition};

/// How often conversations are looked over for closing and dropping, milliseconds.
pub(crate) const SWEEP_MS: u64 = 1_000;
/// Quiet for so long, a tail is closed.
const CLOSE_AFTER_MS: u64 = 3_000;
/// Positions between two stored fan-out marks: what a take-up offers again at the most, besides what was in flight.
const MARK_EVERY: u64 = 256;
/// The same among several nodes, where a take-up writes each of them once more.
const MARK_EVERY_AMONG_NODES: u64 = 64;
/// Conversations of the list that are loaded at a time after a take-up.
const TAILS_AT_A_TIME: usize = 64;
/// Pause before the next ones, milliseconds: some 30,000 a second.
const TAILS_MS: u64 = 1;
/// Conversations of one list that are read at a time.
const PAGE: u32 = 4_096;
/// Shards whose lists are read at a time, those of one page after those of the other: with all of a thousand at once before it, who waits for a conversation
/// or for its mailbox to be taken up on a busy store waited for seconds.
const SHARDS_A_READ: usize = 32;

impl Conversation {
    /// The write that puts it into the list, the first time.
    pub(crate) fn list_tail(&mut self) -> Option<Op> {
        self.tail_maybe_listed = true;
        if std::mem::replace(&mut self.tail_listed, true) {
            return None;
        }
        Some(Op::Insert {
            table: OPEN_TAILS,
            partition: tail_partition(Key::Conversation(self.id).shard()),
            element: self.id.to_bytes(),
            value: bytes::Bytes::new(),
        })
    }
}

impl Ingest {
    pub(crate) fn read_tails(&mut self, cx: &mut Cx<'_>, shards: &[u16]) {
        self.unread_shards.extend(shards);
        self.read_some_tails(cx);
    }

    /// The next shards' lists, unless some are being read.
    fn read_some_tails(&mut self, cx: &mut Cx<'_>) {
        if self.reading_tails > 0 || self.unread_shards.is_empty() {
            return;
        }
        let some = self.unread_shards.len().min(SHARDS_A_READ);
        let shards: Vec<u16> = self.unread_shards.drain(..some).collect();
        let reads = shards.iter().map(|shard| tails_of(*shard, None)).collect();
        self.reading_tails += 1;
        let tag = self.step(Step::Tails(shards));
        cx.read(tag, reads);
    }

    pub(crate) fn tails_read(&mut self, cx: &mut Cx<'_>, shards: &[u16], answers: Option<Vec<ReadAnswer>>) {
        self.reading_tails -= 1;
        let Some(answers) = answers else {
            // The store does not answer: the promise waits for it.
            self.unread_shards.extend(shards);
            return;
        };
        for (shard, answer) in shards.iter().zip(answers) {
            let ReadAnswer::Set { elements, more } = answer else {
                continue;
            };
            let last = elements.last().map(|(element, _)| element.clone());
            self.tails.extend(
                elements
                    .iter()
                    .filter_map(|(element, _)| ConversationId::from_slice(element)),
            );
            if let (true, Some(last)) = (more, last) {
                self.reading_tails += 1;
                let tag = self.step(Step::Tails(vec![*shard]));
                cx.read(tag, vec![tails_of(*shard, Some(last))]);
            }
        }
        self.read_some_tails(cx);
        self.load_tails(cx);
    }

    /// Loads some now and the rest by a timer, so that a long list holds up nobody who is served meanwhile.
    pub(crate) fn load_tails(&mut self, cx: &mut Cx<'_>) {
        while self.loading_tails.len() < TAILS_AT_A_TIME {
            let Some(id) = self.tails.pop_front() else { return };
            if self.loading_tails.insert(id) {
                cx.enter(Key::Conversation(id), 0);
            }
        }
        if !std::mem::replace(&mut self.tails_timer, true) {
            cx.after(TAILS_MS, TIMER_TAILS);
        }
    }

    pub(crate) fn tail_loaded(&mut self, id: ConversationId) {
        self.loading_tails.remove(&id);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.tail_maybe_listed = true;
            if let Some(tell) = &self.config.confirmed {
                tell(id, Key::Conversation(id).shard(), conversation.confirmed);
            }
        }
    }

    /// Puts a conversation that has something to offer into the list, whoever did before: what a former owner put there may
    /// go with that one's late removal, or may never have been stored.
    pub(crate) fn list_tail(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let listed = self.conversations.get_mut(&id).and_then(|conversation| {
            conversation.busy += 1;
            conversation.list_tail()
        });
        match listed {
            Some(op) => {
                let tag = self.step(Step::Lazy(id));
                cx.store(&Key::Conversation(id), tag, vec![op]);
            }
            None => self.release(id),
        }
    }

    pub(crate) fn tail_load_failed(&mut self, id: ConversationId) {
        if self.loading_tails.remove(&id) {
            self.failed_tails.push(id);
        }
    }

    pub(crate) fn store_mark_if_far(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let view = cx.view_of(&Key::Conversation(id));
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let every = if cx.is_clustered() {
            MARK_EVERY_AMONG_NODES
        } else {
            MARK_EVERY
        };
        if conversation.fanned_out() - conversation.mark >= every {
            conversation.busy += 1;
            let ops = mark(conversation, view);
            let tag = self.step(Step::Lazy(id));
            cx.store(&Key::Conversation(id), tag, ops);
        }
    }

    pub(crate) fn sweep(&mut self, cx: &mut Cx<'_>) {
        cx.after(SWEEP_MS, TIMER_SWEEP);
        self.read_some_tails(cx);
        self.tails.extend(self.failed_tails.drain(..));
        self.load_tails(cx);
        let now = cx.now().mono_ms;
        let idle = if self.conversations.len() > self.config.loaded {
            CLOSE_AFTER_MS
        } else {
            self.config.idle_ms
        };
        let due: Vec<ConversationId> = self
            .conversations
            .values()
            .filter(|c| c.is_quiet() && now.saturating_sub(c.last_used_ms) >= CLOSE_AFTER_MS.min(idle))
            .map(|conversation| conversation.id)
            .collect();
        for id in due {
            self.close(cx, id);
            let dropped = |c: &Conversation| c.is_quiet() && now.saturating_sub(c.last_used_ms) >= idle;
            if self.conversations.get(&id).is_some_and(dropped) {
                self.conversations.remove(&id);
            }
        }
        self.metrics.loaded.set(self.conversations.len() as i64);
    }

    /// Stores the mark of a quiet conversation, and takes it off the list if nothing is left to do for it.
    fn close(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let view = cx.view_of(&Key::Conversation(id));
        let searched = self.config.confirmed.is_some();
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if conversation.phase != Phase::Ready || conversation.damaged || conversation.restoring > 0 {
            return;
        }
        let told = conversation.indexed.max(conversation.told_again);
        if cx.is_clustered() && told < conversation.confirmed {
            // The index may be at another node, and what it was told have got lost on the way.
            conversation.told_again = conversation.confirmed;
            if let Some(tell) = &self.config.confirmed {
                tell(id, Key::Conversation(id).shard(), conversation.confirmed);
            }
        }
        let mut ops = Vec::new();
        if conversation.fanned_out() > conversation.mark {
            ops = mark(conversation, view);
        }
        // At a shutdown there may be something in flight still: then the list is what the next start finds it by.
        let done = conversation.flight.is_empty() && (!searched || conversation.indexed >= conversation.head);
        if conversation.tail_maybe_listed && done {
            conversation.tail_listed = false;
            conversation.tail_maybe_listed = false;
            let partition = tail_partition(Key::Conversation(id).shard());
            ops.push(Op::Remove {
                table: OPEN_TAILS,
                partition,
                element: id.to_bytes(),
            });
        }
        if !ops.is_empty() {
            conversation.busy += 1;
            let tag = self.step(Step::Lazy(id));
            cx.store(&Key::Conversation(id), tag, ops);
        }
    }

    /// The process ends: marks are stored, so that the next start has little to offer again.
    pub(crate) fn close_all(&mut self, cx: &mut Cx<'_>) {
        self.tell_receipts(cx);
        let all: Vec<ConversationId> = self.conversations.keys().copied().collect();
        for id in all {
            self.close(cx, id);
        }
    }
}

/// Mark and head move together: a take-up reads the rows above the one, and offers those above the other.
fn mark(conversation: &mut Conversation, view: u64) -> Vec<Op> {
    let fanned_out = conversation.fanned_out();
    conversation.mark = fanned_out;
    let last_created_at = conversation.last_created_at;
    let row = MarkRow {
        fanned_out,
        last_created_at,
    };
    let row = row.encode_to_vec().into();
    vec![
        put(conversation.id, view, RowName::Mark, Some(row)),
        Op::Head {
            log: log(conversation.id),
            head: Head {
                confirmed: fanned_out,
                floor: 0,
            },
        },
    ]
}

fn tails_of(shard: u16, after: Option<bytes::Bytes>) -> Read {
    Read::Set {
        table: OPEN_TAILS,
        partition: tail_partition(shard),
        after,
        up_to: None,
        limit: PAGE,
    }
}
