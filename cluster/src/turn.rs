//! What a worker has gathered in a turn: work for its own keys, for other workers and for the store, and what it had
//! to keep back. Roles reach it through [`Cx`](crate::Cx); who runs the turn is in `worker`.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use godwit_store::{Batch, Health, Op, Read, Scope, Store, Submission, View};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;
use godwit_wire::peer::PeerAnswer;

use crate::away::Away;
use crate::own::{Calendar, Group, Layout};
use crate::role::{Now, Reply, ReplyTo, RoleId, Tag, pack, take_dropped};
use crate::router::{Envelope, Inbox, Router};

/// Own work kept back (store busy, other inboxes full) from which on clients are not read.
const CONGESTED_AT: usize = 4 * 1024;
/// Bytes of batches kept back from which on clients are not read: about what the store's own queue holds.
const CONGESTED_BYTES: usize = 16 << 20;
/// Batches kept back from which on roles refuse new work: what came in before clients stopped being read, and calls
/// from outside, which nobody stops.
const OVERFULL_AT: usize = 4 * CONGESTED_AT;
/// The same in bytes.
const OVERFULL_BYTES: usize = 4 * CONGESTED_BYTES;
/// Requests to other workers kept back from which on roles refuse new work: a thousand messages in full groups.
const OVERFULL_OUTGOING: usize = 512 * 1024;

/// The state of the loop that roles reach through [`Cx`](crate::Cx).
pub(crate) struct Turn {
    pub(crate) worker: u16,
    /// In which view this worker took a slot up; 0: it does not hold it.
    pub(crate) views: Box<[View]>,
    pub(crate) now: Now,
    pub(crate) router: Router,
    pub(crate) registry: mio::Registry,
    pub(crate) health: Health,
    /// By which `now` was made.
    pub(crate) calendar: Calendar,
    totally_ordered: bool,
    pub(crate) store: Arc<dyn Store>,
    /// Batches that the engine had no room for, in order, each with its size.
    unsubmitted: VecDeque<(usize, Batch)>,
    unsubmitted_bytes: usize,
    /// For this worker's own keys: taken in this same loop.
    pub(crate) local: VecDeque<Envelope>,
    pub(crate) local_answers: VecDeque<(u64, Answer)>,
    pub(crate) entries: VecDeque<(RoleId, Key, Tag)>,
    /// For other workers, by worker.
    outgoing: Vec<VecDeque<Envelope>>,
    outgoing_answers: Vec<Vec<(u64, Answer)>>,
    pub(crate) timers: BinaryHeap<Reverse<(u64, u64)>>,
    /// A role has more to do than it may in a turn: the next one begins without sleep.
    pub(crate) again: bool,
    pub(crate) own_inbox: Arc<Inbox>,
    /// For keys that this worker does not hold; `None` on a node that is alone.
    pub(crate) away: Option<Box<Away>>,
}

/// The slot of a key: its shard among those of its kind of home.
pub fn slot_of(key: &Key) -> u16 {
    let group = match key {
        Key::User(_) | Key::Topic(_) | Key::Wildcards | Key::WildcardCopy(_) | Key::Node(_) => Group::Users,
        Key::Conversation(_) => Group::Conversations,
    };
    Layout::PRODUCT.slot(group, key.shard())
}

/// Bytes that a batch keeps in memory, about.
fn size(batch: &Batch) -> usize {
    let of = |op: &Op| match op {
        Op::Append { row, .. } => row.len(),
        Op::Put { name, value, .. } => name.len() + value.as_ref().map_or(0, |value| value.len()),
        Op::Insert { element, value, .. } => element.len() + value.len(),
        Op::Remove { element, .. } => element.len(),
        Op::Claim { key, value, .. } => key.len() + value.len(),
        Op::Head { .. } => 0,
    };
    size_of::<Batch>() + batch.ops.iter().map(|op| size_of::<Op>() + of(op)).sum::<usize>()
}

impl Turn {
    pub(crate) fn new(worker: u16, router: Router, registry: mio::Registry, store: Arc<dyn Store>) -> Self {
        let workers = router.inboxes.len();
        let own_inbox = router.inboxes[usize::from(worker)].clone();
        Self {
            worker,
            views: vec![0; Layout::PRODUCT.slots()].into(),
            now: Now::default(),
            router,
            registry,
            totally_ordered: store.totally_ordered(),
            health: store.health(),
            calendar: Calendar::default(),
            store,
            unsubmitted: VecDeque::new(),
            unsubmitted_bytes: 0,
            local: VecDeque::new(),
            local_answers: VecDeque::new(),
            entries: VecDeque::new(),
            outgoing: (0..workers).map(|_| VecDeque::new()).collect(),
            outgoing_answers: (0..workers).map(|_| Vec::new()).collect(),
            timers: BinaryHeap::new(),
            again: false,
            own_inbox,
            away: None,
        }
    }

    /// This worker holds a slot from now on in this view; 0: it does not.
    pub(crate) fn hold(&mut self, slot: u16, view: View) {
        if let Some(held) = self.views.get_mut(usize::from(slot)) {
            *held = view;
        }
    }

    pub(crate) fn holds(&self, slot: u16) -> bool {
        self.views.get(usize::from(slot)).is_some_and(|view| *view != 0)
    }

    pub(crate) fn scope(&self, key: &Key) -> Scope {
        let shard = slot_of(key);
        let view = self.views.get(usize::from(shard)).copied().unwrap_or_default();
        Scope { shard, view }
    }

    pub(crate) fn store(&mut self, role: RoleId, key: &Key, tag: Tag, ops: Vec<Op>) {
        let scope = self.scope(key);
        let batch = Batch {
            port: self.worker,
            ticket: pack(role, tag),
            scope,
            ops,
        };
        if !self.unsubmitted.is_empty() {
            self.keep(batch);
        } else if let Submission::Busy(back) = self.store.submit(batch) {
            self.keep(back);
        }
    }

    fn keep(&mut self, batch: Batch) {
        let size = size(&batch);
        self.unsubmitted_bytes += size;
        self.unsubmitted.push_back((size, batch));
    }

    fn resubmit(&mut self) {
        while let Some((size, batch)) = self.unsubmitted.pop_front() {
            if let Submission::Busy(back) = self.store.submit(batch) {
                self.unsubmitted.push_front((size, back));
                return;
            }
            self.unsubmitted_bytes -= size;
        }
    }

    /// A batch that is kept back is not in the engine's order yet: another worker's may get in before it.
    pub(crate) fn totally_ordered(&self) -> bool {
        self.totally_ordered && self.unsubmitted.is_empty()
    }

    pub(crate) fn read(&mut self, role: RoleId, tag: Tag, reads: Vec<Read>) {
        self.store.read(self.worker, pack(role, tag), reads);
    }

    pub(crate) fn send(&mut self, key: Key, command: Command, reply: Reply) {
        let worker = match (&key, &self.away) {
            // Each worker asks other nodes itself.
            (Key::Node(node), Some(away)) if !away.is_me(*node) => self.worker,
            _ => self.router.worker_of(&key),
        };
        let envelope = Envelope::of_this_node(key, command, reply);
        if worker == self.worker {
            self.local.push_back(envelope);
        } else {
            self.outgoing[usize::from(worker)].push_back(envelope);
        }
    }

    pub(crate) fn answer(&mut self, mut reply: Reply, answer: Answer) {
        self.answer_to(reply.take(), answer);
    }

    /// Whoever was forgotten is told so.
    pub(crate) fn answer_dropped(&mut self) {
        for to in take_dropped() {
            self.answer_to(to, Refusal::unavailable().into());
        }
    }

    fn answer_to(&mut self, to: ReplyTo, answer: Answer) {
        match to {
            ReplyTo::Nobody => {}
            ReplyTo::Peer { node, id } => {
                if let Some(away) = &mut self.away {
                    away.answer(node, id, PeerAnswer::Answer(answer));
                }
            }
            ReplyTo::Worker { worker, tag } if worker == self.worker => {
                self.local_answers.push_back((tag, answer))
            }
            ReplyTo::Worker { worker, tag } => self.outgoing_answers[usize::from(worker)].push((tag, answer)),
            // The caller may have gone; then nobody wants the answer.
            ReplyTo::Outside(sender) => drop(sender.send(answer)),
        }
    }

    pub(crate) fn enter(&mut self, role: RoleId, key: Key, tag: Tag) {
        self.entries.push_back((role, key, tag));
    }

    pub(crate) fn after(&mut self, role: RoleId, ms: u64, tag: Tag) {
        // One more, since the time of the turn is rounded down.
        self.timers
            .push(Reverse((self.now.mono_ms + ms + 1, pack(role, tag))));
    }

    pub(crate) fn hand_over(&mut self, worker: u16, role: RoleId, item: Box<dyn Any + Send>) {
        self.router.hand_over(worker, role, item);
    }

    fn outgoing_requests(&self) -> usize {
        let away = self.away.as_ref().map_or(0, |away| away.kept());
        self.outgoing.iter().map(VecDeque::len).sum::<usize>() + away
    }

    pub(crate) fn congested(&self) -> bool {
        self.unsubmitted_bytes >= CONGESTED_BYTES
            || self.unsubmitted.len() + self.outgoing_requests() >= CONGESTED_AT
            || self.away.as_ref().is_some_and(|away| away.asked_most())
    }

    pub(crate) fn overfull(&self) -> bool {
        self.unsubmitted.len() >= OVERFULL_AT
            || self.unsubmitted_bytes >= OVERFULL_BYTES
            || self.outgoing_requests() >= OVERFULL_OUTGOING
    }

    /// Gives what gathered to the store, to other workers and to other nodes, as far as they have room.
    pub(crate) fn give_out(&mut self) {
        self.resubmit();
        self.answer_dropped();
        self.flush();
    }

    /// Gives gathered mail to the other workers and nodes.
    pub(crate) fn flush(&mut self) {
        if let Some(away) = &mut self.away {
            away.flush();
        }
        for worker in 0..self.outgoing.len() {
            let (requests, answers) = (&mut self.outgoing[worker], &mut self.outgoing_answers[worker]);
            if requests.is_empty() && answers.is_empty() {
                continue;
            }
            let inbox = &self.router.inboxes[worker];
            let mut mail = inbox.lock();
            if mail.closed {
                drop(mail);
                answers.clear();
                let refused = std::mem::take(requests);
                for envelope in refused {
                    self.answer(envelope.reply, Refusal::unavailable().into());
                }
                // Looked at in the next turn.
                self.own_inbox.wake();
                continue;
            }
            let room = mail.room().min(requests.len());
            requests.drain(..room).for_each(|envelope| mail.push(envelope));
            mail.answers.append(answers);
            drop(mail);
            inbox.wake();
        }
    }

    pub(crate) fn kept_back(&self) -> bool {
        !self.unsubmitted.is_empty()
            || self.outgoing.iter().any(|queue| !queue.is_empty())
            || self.away.as_ref().is_some_and(|away| away.unsent())
    }
}

#[cfg(feature = "harness")]
impl Turn {
    /// This worker holds every slot, in the view of this start.
    pub(crate) fn hold_all(&mut self) -> View {
        let view = self.store.start_view();
        self.views.fill(view);
        view
    }

    pub(crate) fn store_health(&self) -> Health {
        self.store.health()
    }

    pub(crate) fn take_local(&mut self) -> Option<Envelope> {
        self.local.pop_front()
    }

    pub(crate) fn take_local_answer(&mut self) -> Option<(u64, Answer)> {
        self.local_answers.pop_front()
    }

    pub(crate) fn take_entry(&mut self) -> Option<(RoleId, Key, Tag)> {
        self.entries.pop_front()
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.own_inbox
    }

    pub(crate) fn timers(&mut self) -> &mut BinaryHeap<Reverse<(u64, u64)>> {
        &mut self.timers
    }
}
