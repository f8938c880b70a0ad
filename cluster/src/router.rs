//! How commands and answers get from anywhere to the worker that owns a key: one inbox a worker, filled in batches.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use godwit_store::coordination::StartId;
use godwit_store::{Completion, CompletionPort, View};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;
use godwit_wire::peer::{PeerAnswer, PeerRequest, weight};

use crate::away::asker;
use crate::lanes::{FullWorkers, Lanes, Lying, Place};
use crate::meter::{Meter, Turns};
use crate::peers::Move;
use crate::role::{Reply, ReplyTo, RoleId};

/// Most requests waiting in a worker's inbox: beyond it senders keep their work and stop reading their clients. What links bring
/// may lie behind them, see [`Router::peer_asks`].
pub const INBOX_REQUESTS: usize = 32 * 1024;
/// Most calls from outside the workers (REST) waiting in an inbox: they are refused beyond it.
pub const OUTSIDE_REQUESTS: usize = 4 * 1024;

/// Reads for loads carry this number where the roles' own carry their role's.
pub(crate) const LOADS: u64 = RoleId::COUNT as u64;

/// A command under way.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) key: Key,
    pub(crate) command: Command,
    pub(crate) reply: Reply,
    /// The view by which another node sent it; 0: it is of this node.
    pub(crate) view: View,
    /// It came when the inbox was full, and lies there.
    pub(crate) lying: Option<Lying>,
}

impl Envelope {
    pub(crate) fn of_this_node(key: Key, command: Command, reply: Reply) -> Self {
        Self {
            key,
            command,
            reply,
            view: 0,
            lying: None,
        }
    }

    /// Whether another node waits for the answer.
    pub(crate) fn is_peers(&self) -> bool {
        matches!(self.reply.0, ReplyTo::Peer { .. })
    }
}

#[derive(Default)]
pub(crate) struct Mail {
    requests: VecDeque<Envelope>,
    /// How many of these lie there beyond what there is room for.
    lying: usize,
    /// Never behind requests, bounded by the requests that this worker has sent.
    pub(crate) answers: Vec<(u64, Answer)>,
    /// Bounded by what this worker has submitted.
    pub(crate) completions: Vec<Completion>,
    /// Reads of loads, apart from the others: they are looked for after every load.
    pub(crate) loads: Vec<Completion>,
    pub(crate) handed: Vec<(RoleId, Box<dyn Any + Send>)>,
    /// Other nodes' answers, bounded by what this worker asked them.
    pub(crate) peer_answers: Vec<(u64, PeerAnswer)>,
    /// Few and rare.
    pub(crate) moves: Vec<Move>,
    pub(crate) stop: bool,
    /// The worker has ended: nothing is taken any more.
    pub(crate) closed: bool,
}

impl Mail {
    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.len()
    }

    /// For how many requests there is room.
    pub(crate) fn room(&self) -> usize {
        INBOX_REQUESTS.saturating_sub(self.requests.len() - self.lying)
    }

    /// One more request, behind the others.
    pub(crate) fn push(&mut self, envelope: Envelope) {
        self.lying += usize::from(envelope.lying.is_some());
        self.requests.push_back(envelope);
    }

    /// The next requests, so many at most.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Envelope> {
        let mut taken: Vec<Envelope> = self.requests.drain(..most.min(self.requests.len())).collect();
        if self.lying > 0 {
            for envelope in &mut taken {
                self.lying -= usize::from(envelope.lying.take().is_some());
            }
        }
        taken
    }
}

/// One worker's inbox.
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    waker: mio::Waker,
    /// Whether the worker will look before it sleeps: spares the system call of the waker.
    notified: AtomicBool,
    /// While the workers stop: nothing is outstanding at this one.
    pub(crate) quiet: AtomicBool,
    pub(crate) meter: Meter,
}

impl Inbox {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self {
            mail: Mutex::default(),
            waker,
            notified: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            meter: Meter::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Mail> {
        // A panic while the lock was held leaves plain queues behind, which are still whole.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        if !self.notified.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a worker cannot be woken");
        }
    }

    /// The worker looks now: later mail must wake it again.
    pub(crate) fn looking(&self) {
        self.notified.store(false, Ordering::Release);
    }
}

impl CompletionPort for Inbox {
    fn complete(&self, batch: &mut Vec<Completion>) {
        let is_load = |c: &Completion| matches!(c, Completion::Read { ticket, .. } if *ticket >> 56 == LOADS);
        let mut mail = self.lock();
        if mail.closed {
            batch.clear();
            return;
        }
        if batch.iter().any(is_load) {
            let (loads, others) = batch.drain(..).partition::<Vec<_>, _>(is_load);
            mail.loads.extend(loads);
            mail.completions.extend(others);
        } else {
            mail.completions.append(batch);
        }
        drop(mail);
        self.wake();
    }
}

/// The handle through which anybody reaches a key. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    pub(crate) inboxes: Arc<[Arc<Inbox>]>,
    failed: Arc<Failed>,
    lanes: Arc<Lanes>,
}

/// Whether a worker has ended by a bug, and who is told.
#[derive(Default)]
struct Failed {
    has: AtomicBool,
    watcher: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Router {
    pub(crate) fn new(inboxes: Vec<Arc<Inbox>>) -> Self {
        Self {
            inboxes: inboxes.into(),
            failed: Arc::default(),
            lanes: Arc::default(),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        // At most `MAX_WORKERS`, which fits.
        self.inboxes.len() as u16
    }

    /// The turns of all workers together.
    pub fn turns(&self) -> Turns {
        let mut turns = Turns::default();
        for inbox in self.inboxes.iter() {
            inbox.meter.add_to(&mut turns);
        }
        turns
    }

    /// What this node's full workers did with what other nodes asked of them.
    pub fn full_workers(&self) -> FullWorkers {
        self.lanes.counts()
    }

    /// Which worker owns a key.
    pub fn worker_of(&self, key: &Key) -> u16 {
        match key {
            Key::WildcardCopy(worker) => *worker % self.workers(),
            // It asks the others.
            Key::Node(_) => 0,
            other => other.shard() % self.workers(),
        }
    }

    /// Asks a home from outside the workers. `unavailable` if its inbox is full or the worker has stopped. The caller
    /// bounds the time it waits.
    pub async fn call(&self, key: Key, command: Command) -> Answer {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let inbox = &self.inboxes[usize::from(self.worker_of(&key))];
        {
            let mut mail = inbox.lock();
            if mail.closed || mail.requests.len() >= OUTSIDE_REQUESTS {
                return Answer::Refused(Refusal::unavailable());
            }
            let reply = Reply(ReplyTo::Outside(sender));
            mail.push(Envelope::of_this_node(key, command, reply));
        }
        inbox.wake();
        receiver
            .await
            .unwrap_or_else(|_| Answer::Refused(Refusal::unavailable()))
    }

    /// Tells a home something from outside the workers; dropped (`false`) if its inbox is full or the worker has
    /// stopped.
    pub fn tell(&self, key: Key, command: Command) -> bool {
        let inbox = &self.inboxes[usize::from(self.worker_of(&key))];
        {
            let mut mail = inbox.lock();
            if mail.closed || mail.requests.len() >= OUTSIDE_REQUESTS {
                return false;
            }
            mail.push(Envelope::of_this_node(key, command, Reply::nobody()));
        }
        inbox.wake();
        true
    }

    /// Gives something to a role of a worker (an upgraded WebSocket, a listener).
    pub fn hand_over(&self, worker: u16, role: RoleId, item: Box<dyn Any + Send>) {
        let inbox = &self.inboxes[usize::from(worker % self.workers())];
        let mut mail = inbox.lock();
        if !mail.closed {
            mail.handed.push((role, item));
        }
        drop(mail);
        inbox.wake();
    }

    /// Takes requests of another node, in order. One whose worker has no room lies behind the others of its inbox, so that the link goes on for
    /// the other workers, and once as much lies for that worker as may ([`LANES`](crate::LANES)) its id is put into `refused`: it is to be answered
    /// `unavailable`, and nothing was done. What is left lying when this returns is to be given again, before what comes behind it.
    pub fn peer_asks(&self, node: StartId, requests: &mut VecDeque<PeerRequest>, refused: &mut Vec<u64>) {
        let before = refused.len();
        let mut lanes = None;
        let mut shared = weight::Shared::default();
        // Of these nothing more is taken this time, so that what was sent together is not done in part where that can be helped.
        let mut refusing = Vec::new();
        while let Some(request) = requests.front() {
            let worker = self.worker_of(&request.key);
            let inbox = &self.inboxes[usize::from(worker)];
            let mut mail = inbox.lock();
            let is_refusing = request.id != 0 && refusing.contains(&worker);
            let place = if is_refusing {
                Some(Place::Refused)
            } else if !mail.closed && mail.room() == 0 {
                let bytes = weight::request(request, &mut shared);
                let lanes = lanes.get_or_insert_with(|| self.lanes.of(node, self.workers()));
                Some(lanes.place(worker, bytes, request.id == 0))
            } else {
                None
            };
            let lying = match place {
                None => None,
                Some(Place::Lies(lying)) => Some(lying),
                Some(Place::Refused) => {
                    drop(mail);
                    if !is_refusing {
                        refusing.push(worker);
                    }
                    refused.extend(requests.pop_front().map(|request| request.id));
                    continue;
                }
                Some(Place::None) => break,
            };
            // There is one: it was looked at.
            let Some(PeerRequest {
                id,
                view,
                key,
                command,
            }) = requests.pop_front()
            else {
                break;
            };
            let reply = match id {
                0 => Reply::nobody(),
                id => Reply(ReplyTo::Peer { node, id }),
            };
            if !mail.closed {
                mail.push(Envelope {
                    key,
                    command,
                    reply,
                    view,
                    lying,
                });
            }
            drop(mail);
            inbox.wake();
        }
        self.lanes.refused(refused.len() - before);
    }

    /// Takes answers to what workers of this node asked others.
    pub fn peers_answered(&self, answers: Vec<(u64, PeerAnswer)>) {
        for (id, answer) in answers {
            if let Some(inbox) = self.inboxes.get(usize::from(asker(id))) {
                let mut mail = inbox.lock();
                if !mail.closed {
                    mail.peer_answers.push((id, answer));
                }
                drop(mail);
                inbox.wake();
            }
        }
    }

    /// Each worker looks at what it kept back.
    pub fn look(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.wake());
    }

    pub(crate) fn tell_move(&self, told: &Move) {
        for inbox in self.inboxes.iter() {
            let mut mail = inbox.lock();
            if !mail.closed {
                mail.moves.push(told.clone());
            }
            drop(mail);
            inbox.wake();
        }
    }

    /// Whether a worker has ended by a bug. Its keys are answered `unavailable` from then on; only a new start of the
    /// process serves them again, so the process should end.
    pub fn has_failed(&self) -> bool {
        self.failed.has.load(Ordering::SeqCst)
    }

    /// Calls `watcher` when a worker fails, at once if one has; for each of them. Only the first watcher counts.
    pub fn on_failure(&self, watcher: impl Fn() + Send + Sync + 'static) {
        // A second one is a mistake that costs nothing: somebody watches already.
        let _ = self.failed.watcher.set(Box::new(watcher));
        if self.has_failed() {
            self.failed.tell();
        }
    }

    pub(crate) fn all_quiet(&self) -> bool {
        let quiet = |inbox: &Arc<Inbox>| inbox.quiet.load(Ordering::Acquire);
        self.inboxes.iter().all(quiet)
    }

    /// A worker has ended: whoever waits for it is told, and nobody asks it again.
    pub(crate) fn close(&self, worker: u16, failed: bool) {
        if failed {
            self.failed.has.store(true, Ordering::SeqCst);
            self.failed.tell();
        }
        let inbox = &self.inboxes[usize::from(worker)];
        inbox.quiet.store(true, Ordering::Release);
        let left = Mail {
            closed: true,
            ..Mail::default()
        };
        let mail = std::mem::replace(&mut *inbox.lock(), left);
        for mut envelope in mail.requests {
            // Callers from outside see it by their end of the channel being dropped, other nodes by the link's end.
            if let ReplyTo::Worker { worker, tag } = envelope.reply.take() {
                let asker = &self.inboxes[usize::from(worker)];
                let mut mail = asker.lock();
                if !mail.closed {
                    mail.answers.push((tag, Answer::Refused(Refusal::unavailable())));
                }
                drop(mail);
                asker.wake();
            }
        }
    }
}

impl Failed {
    fn tell(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher();
        }
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Router({} workers)", self.inboxes.len())
    }
}

#[cfg(test)]
mod tests;
