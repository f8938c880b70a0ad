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
use godwit_wire::peer::{PeerAnswer, PeerRequest};

use crate::away::asker;
use crate::meter::{Meter, Turns};
use crate::peers::Move;
use crate::role::{Reply, ReplyTo, RoleId};

/// Most requests waiting in a worker's inbox: beyond it senders keep their work and stop reading their clients.
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
}

impl Envelope {
    pub(crate) fn of_this_node(key: Key, command: Command, reply: Reply) -> Self {
        Self {
            key,
            command,
            reply,
            view: 0,
        }
    }

    /// Whether another node waits for the answer.
    pub(crate) fn is_peers(&self) -> bool {
        matches!(self.reply.0, ReplyTo::Peer { .. })
    }
}

#[derive(Default)]
pub(crate) struct Mail {
    pub(crate) requests: VecDeque<Envelope>,
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
            mail.requests.push_back(Envelope {
                view: 0,
                key,
                command,
                reply: Reply(ReplyTo::Outside(sender)),
            });
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
            mail.requests.push_back(Envelope {
                view: 0,
                key,
                command,
                reply: Reply::nobody(),
            });
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

    /// Takes requests of another node from the front until a worker has no room for one; in order.
    pub fn peer_asks(&self, node: StartId, requests: &mut VecDeque<PeerRequest>) {
        while let Some(request) = requests.front() {
            let inbox = &self.inboxes[usize::from(self.worker_of(&request.key))];
            let mut mail = inbox.lock();
            if !mail.closed && mail.requests.len() >= INBOX_REQUESTS {
                return;
            }
            // There is one: it was looked at.
            let Some(PeerRequest {
                id,
                view,
                key,
                command,
            }) = requests.pop_front()
            else {
                return;
            };
            let reply = match id {
                0 => Reply::nobody(),
                id => Reply(ReplyTo::Peer { node, id }),
            };
            if !mail.closed {
                mail.requests.push_back(Envelope {
                    key,
                    command,
                    reply,
                    view,
                });
            }
            drop(mail);
            inbox.wake();
        }
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
