//! From a number to an acknowledgement: the entry is appended, confirmed when all before it are, offered to every mailbox
//! it is for, and only then are those who wait told (ACK, ORDER). What an entry says is not known here.

use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_store::Op;
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, EntryBody, LoggedEntry, UserCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};

use crate::conversation::{Flight, WAITERS, Waiter};
use crate::role::{Ingest, Step, TIMER_OFFERS};
use crate::tables::log;

/// A refused offer comes again after this long.
pub(crate) const OFFER_AGAIN_MS: u64 = 100;
/// Refused offers of one mailbox that follow at once when it takes one again; each taken one brings as many.
const REST_AT_ONCE: usize = 64;

impl Ingest {
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
        let view = cx.view_of(&Key::Conversation(id));
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
        ops.extend(conversation.list_tail());
        conversation.flight.push_back(Flight {
            entry,
            stored: false,
            offered: false,
            outstanding: 0,
            waiters: vec![waiter],
            since_ms: cx.now().mono_ms,
        });
        let unoffered = conversation
            .flight
            .iter()
            .rev()
            .take_while(|flight| !flight.offered);
        let first = position + 1 - unoffered.count() as u64;
        let tag = self.step(Step::Stored(id, position));
        cx.store(&Key::Conversation(id), tag, ops);
        if cx.totally_ordered() {
            // Mailbox entries are submitted behind the row, so none of them can be durable without it. Rows that were
            // kept back before this one are in the order now too.
            for position in first..=position {
                self.offer(cx, id, position);
            }
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
    pub(crate) fn acknowledge(&mut self, cx: &mut Cx<'_>, id: ConversationId) {
        let now_ms = cx.now().mono_ms;
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if conversation.restoring > 0 {
            return;
        }
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

    /// One more waits for a position; `None` gives it back: the position is acknowledged, or not there.
    pub(crate) fn wait_for(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        position: u64,
        waiter: Waiter,
    ) -> Option<Waiter> {
        let conversation = self.conversations.get_mut(&id);
        let Some(flight) = conversation.and_then(|conversation| conversation.flight_at(position)) else {
            return Some(waiter);
        };
        if flight.waiters.len() >= WAITERS {
            // Who has waited longest has most likely gone; it may ask again.
            let (Waiter::Send(reply, _) | Waiter::Change(reply)) = flight.waiters.remove(0);
            cx.answer(reply, Refusal::unavailable().into());
        }
        flight.waiters.push(waiter);
        None
    }

    /// Offers a position to everybody it is for, once.
    pub(crate) fn offer(&mut self, cx: &mut Cx<'_>, id: ConversationId, position: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let users: Vec<UserId> = conversation.members.at(position).collect();
        let Some(flight) = conversation.flight_at(position) else {
            return;
        };
        if std::mem::replace(&mut flight.offered, true) {
            return;
        }
        flight.outstanding += users.len();
        let entry = flight.entry.clone();
        for user in users {
            self.offer_to(cx, id, user, position, entry.clone());
        }
        if let EntryBody::Member(change) = &entry.body {
            self.tell_accounts(cx, id, position, change);
        }
    }

    fn offer_to(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        user: UserId,
        position: u64,
        entry: Arc<LoggedEntry>,
    ) {
        let Some(conversation) = self.conversations.get(&id) else {
            return;
        };
        let after = conversation.members.before(user, position);
        let tag = self.step(Step::Offer(id, position, user));
        let offer = UserCommand::Offer { entry, after };
        cx.ask(tag, Key::User(user), Command::User(offer));
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
            conversation.refused_offers.insert((user, position));
            if !std::mem::replace(&mut conversation.offers_queued, true) {
                self.refused.push_back(id);
            }
            self.offer_again_soon(cx);
            return;
        }
        if let Some(flight) = conversation.flight_at(position) {
            flight.outstanding = flight.outstanding.saturating_sub(1);
        }
        let all = (user, 0)..=(user, u64::MAX);
        let rest: Vec<u64> = conversation
            .refused_offers
            .range(all)
            .take(REST_AT_ONCE)
            .map(|(_, position)| *position)
            .collect();
        for position in rest {
            self.offer_refused(cx, id, user, position);
        }
        self.acknowledge(cx, id);
    }

    pub(crate) fn offer_again_soon(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::replace(&mut self.offers_timer, true) {
            cx.after(OFFER_AGAIN_MS, TIMER_OFFERS);
        }
    }

    /// Asks every mailbox that refused with its oldest one; the rest follows when that is taken.
    pub(crate) fn offer_again(&mut self, cx: &mut Cx<'_>) {
        self.offers_timer = false;
        self.say_again(cx);
        for id in std::mem::take(&mut self.refused) {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            conversation.offers_queued = false;
            let mut oldest: Vec<(UserId, u64)> = conversation.refused_offers.iter().copied().collect();
            oldest.dedup_by_key(|(user, _)| *user);
            for (user, position) in oldest {
                self.offer_refused(cx, id, user, position);
            }
        }
    }

    fn offer_refused(&mut self, cx: &mut Cx<'_>, id: ConversationId, user: UserId, position: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        conversation.refused_offers.remove(&(user, position));
        let flight = conversation.flight_at(position);
        if let Some(entry) = flight.map(|flight| flight.entry.clone()) {
            self.offer_to(cx, id, user, position, entry);
        }
    }

    /// Answers who need not wait.
    pub(crate) fn answer_waiter(cx: &mut Cx<'_>, waiter: Waiter) {
        match waiter {
            Waiter::Send(reply, sent) => cx.answer(reply, Answer::Sent(sent)),
            Waiter::Change(reply) => cx.answer(reply, Answer::Done),
        }
    }

    /// Whether new work is refused: no room on the disk, or too much kept back behind a busy store.
    pub(crate) fn is_full(cx: &Cx<'_>) -> bool {
        cx.health() == godwit_store::Health::LowSpace || cx.overfull()
    }

    /// Refuses new work if there is no room for it.
    pub(crate) fn refuse_if_full(&self, cx: &mut Cx<'_>, reply: Reply) -> Option<Reply> {
        if !Self::is_full(cx) {
            return Some(reply);
        }
        self.metrics.refused_busy.inc();
        cx.answer(reply, Refusal::unavailable().into());
        None
    }
}
