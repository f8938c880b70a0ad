//! The loop: one thread per worker takes mail, completions, sockets and timers, and dispatches them to its roles.
//! Everything that a role may not do itself (blocking, clocks, queues between workers) is here.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use godwit_store::{Batch, Completion, Health, Op, Read, Store, Submission, View};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;

use crate::role::{Cx, Flow, Loading, Now, Reply, ReplyTo, Role, RoleId, Tag, pack, unpack};
use crate::router::{Envelope, INBOX_REQUESTS, Inbox, Mail, Router};

/// Most workers of a node.
pub const MAX_WORKERS: u16 = 256;
/// Most commands and entries parked while a key loads; beyond it they are refused as `unavailable`.
pub const PARKED_PER_KEY: usize = 1_024;
/// Own work kept back (store busy, other inboxes full) from which on clients are not read.
const CONGESTED_AT: usize = 4 * 1024;
/// Requests taken from the inbox a turn, so that sockets get their turn too.
const REQUESTS_PER_TURN: usize = 1_024;
/// How long a shutdown waits for the roles to become quiet.
const SHUTDOWN: Duration = Duration::from_secs(8);
/// Longest sleep without an event, so that kept-back work is tried again.
const NAP: Duration = Duration::from_millis(5);

const WAKER: mio::Token = mio::Token(usize::MAX);

/// The state of the loop that roles reach through [`Cx`].
pub(crate) struct Turn {
    pub(crate) worker: u16,
    pub(crate) view: View,
    pub(crate) now: Now,
    pub(crate) router: Router,
    pub(crate) registry: mio::Registry,
    pub(crate) totally_ordered: bool,
    pub(crate) health: Health,
    store: Arc<dyn Store>,
    /// Batches that the engine had no room for, in order.
    unsubmitted: VecDeque<Batch>,
    /// For this worker's own keys: taken in this same loop.
    local: VecDeque<Envelope>,
    local_answers: VecDeque<(u64, Answer)>,
    entries: VecDeque<(RoleId, Key, Tag)>,
    /// For other workers, by worker.
    outgoing: Vec<VecDeque<Envelope>>,
    outgoing_answers: Vec<Vec<(u64, Answer)>>,
    timers: BinaryHeap<Reverse<(u64, u64)>>,
    own_inbox: Arc<Inbox>,
}

impl Turn {
    pub(crate) fn new(worker: u16, router: Router, registry: mio::Registry, store: Arc<dyn Store>) -> Self {
        let workers = router.inboxes.len();
        let own_inbox = router.inboxes[usize::from(worker)].clone();
        Self {
            worker,
            view: store.start_view(),
            now: Now::default(),
            router,
            registry,
            totally_ordered: store.totally_ordered(),
            health: store.health(),
            store,
            unsubmitted: VecDeque::new(),
            local: VecDeque::new(),
            local_answers: VecDeque::new(),
            entries: VecDeque::new(),
            outgoing: (0..workers).map(|_| VecDeque::new()).collect(),
            outgoing_answers: (0..workers).map(|_| Vec::new()).collect(),
            timers: BinaryHeap::new(),
            own_inbox,
        }
    }

    pub(crate) fn store(&mut self, role: RoleId, tag: Tag, ops: Vec<Op>) {
        let batch = Batch {
            port: self.worker,
            ticket: pack(role, tag),
            ops,
        };
        self.submit(batch);
    }

    fn submit(&mut self, batch: Batch) {
        if !self.unsubmitted.is_empty() {
            self.unsubmitted.push_back(batch);
        } else if let Submission::Busy(back) = self.store.submit(batch) {
            self.unsubmitted.push_back(back);
        }
    }

    fn resubmit(&mut self) {
        while let Some(batch) = self.unsubmitted.pop_front() {
            if let Submission::Busy(back) = self.store.submit(batch) {
                self.unsubmitted.push_front(back);
                return;
            }
        }
    }

    pub(crate) fn read(&mut self, role: RoleId, tag: Tag, reads: Vec<Read>) {
        self.store.read(self.worker, pack(role, tag), reads);
    }

    pub(crate) fn send(&mut self, key: Key, command: Command, reply: Reply) {
        let worker = self.router.worker_of(&key);
        let envelope = Envelope { key, command, reply };
        if worker == self.worker {
            self.local.push_back(envelope);
        } else {
            self.outgoing[usize::from(worker)].push_back(envelope);
        }
    }

    pub(crate) fn answer(&mut self, reply: Reply, answer: Answer) {
        match reply.0 {
            ReplyTo::Nobody => {}
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

    pub(crate) fn congested(&self) -> bool {
        self.unsubmitted.len() + self.outgoing.iter().map(VecDeque::len).sum::<usize>() >= CONGESTED_AT
    }

    /// Gives gathered mail to the other workers, as far as they have room.
    fn flush(&mut self) {
        for worker in 0..self.outgoing.len() {
            let (requests, answers) = (&mut self.outgoing[worker], &mut self.outgoing_answers[worker]);
            if requests.is_empty() && answers.is_empty() {
                continue;
            }
            let inbox = &self.router.inboxes[worker];
            let mut mail = inbox.lock();
            let room = INBOX_REQUESTS
                .saturating_sub(mail.requests.len())
                .min(requests.len());
            mail.requests.extend(requests.drain(..room));
            mail.answers.append(answers);
            drop(mail);
            inbox.wake();
        }
    }

    fn kept_back(&self) -> bool {
        !self.unsubmitted.is_empty() || self.outgoing.iter().any(|queue| !queue.is_empty())
    }
}

#[cfg(feature = "harness")]
impl Turn {
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

enum Parked {
    Command(Command, Reply),
    Entry(Tag),
}

/// A key that is being loaded by a role.
struct LoadingKey {
    role: RoleId,
    key: Key,
    parked: VecDeque<Parked>,
}

/// Makes the roles of one worker, on its thread.
pub type MakeRoles = dyn Fn(u16) -> [Box<dyn Role>; RoleId::COUNT] + Send + Sync;

/// The running workers of this node.
pub struct Workers {
    router: Router,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers (1 to [`MAX_WORKERS`]) on `store`, each with the roles that `make` gives it.
    pub fn start(count: u16, store: &Arc<dyn Store>, make: Arc<MakeRoles>) -> io::Result<Self> {
        let count = count.clamp(1, MAX_WORKERS);
        let polls = (0..count)
            .map(|_| mio::Poll::new())
            .collect::<io::Result<Vec<_>>>()?;
        let inboxes = polls
            .iter()
            .map(|poll| Ok(Arc::new(Inbox::new(mio::Waker::new(poll.registry(), WAKER)?))))
            .collect::<io::Result<Vec<_>>>()?;
        let router = Router {
            inboxes: inboxes.into(),
        };
        let mut threads = Vec::new();
        for (worker, poll) in (0..count).zip(polls) {
            store.register(worker, router.inboxes[usize::from(worker)].clone());
            let (router, store, make) = (router.clone(), store.clone(), make.clone());
            let registry = poll.registry().try_clone()?;
            threads.push(
                std::thread::Builder::new()
                    .name(format!("godwit-worker-{worker}"))
                    .spawn(move || {
                        let roles = make(worker);
                        Worker::new(worker, router, registry, store, roles).run(poll);
                    })?,
            );
        }
        Ok(Self { router, threads })
    }

    /// The handle to them.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Tells the roles to shut down and waits until they are quiet or their deadline (8 s) has passed.
    pub fn stop(self) {
        for inbox in self.router.inboxes.iter() {
            inbox.lock().stop = true;
            inbox.wake();
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

/// Answers of [`Store::read`] for loads are told from the roles' own reads by this role number.
const LOADS: u64 = RoleId::COUNT as u64;

struct Worker {
    turn: Turn,
    roles: [Box<dyn Role>; RoleId::COUNT],
    loading: HashMap<u64, LoadingKey>,
    loading_keys: HashMap<(RoleId, Key), u64>,
    next_load: u64,
    started: Instant,
}

impl Worker {
    fn new(
        worker: u16,
        router: Router,
        registry: mio::Registry,
        store: Arc<dyn Store>,
        roles: [Box<dyn Role>; RoleId::COUNT],
    ) -> Self {
        let turn = Turn::new(worker, router, registry, store);
        let (loading, loading_keys) = (HashMap::new(), HashMap::new());
        Self {
            turn,
            roles,
            loading,
            loading_keys,
            next_load: 0,
            started: Instant::now(),
        }
    }

    fn run(mut self, mut poll: mio::Poll) {
        self.tell_time();
        let shards: Vec<u16> = (0..Key::SHARDS)
            .filter(|shard| shard % self.turn.router.workers() == self.turn.worker)
            .collect();
        let view = self.turn.view;
        for role in ROLES {
            self.with(role, |role, cx| role.taken_up(cx, &shards, view));
        }
        let mut events = mio::Events::with_capacity(1_024);
        let mut stop_at: Option<Instant> = None;
        loop {
            let mut busy = self.take_mail(&mut stop_at);
            busy |= self.run_timers();
            self.drain_local();
            if busy || !events.is_empty() {
                for role in ROLES {
                    self.with(role, |role, cx| role.end_of_turn(cx));
                }
                self.drain_local();
            }
            self.turn.resubmit();
            self.turn.flush();
            if let Some(deadline) = stop_at {
                let quiet = self.roles.iter().all(|role| role.quiet()) && !self.turn.kept_back();
                if quiet || Instant::now() >= deadline {
                    return;
                }
            }
            let sleep = self.sleep(stop_at.is_some());
            if let Err(error) = poll.poll(&mut events, sleep) {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::error!(%error, "polling failed");
                    std::thread::sleep(NAP);
                }
            }
            self.tell_time();
            for event in events.iter() {
                if event.token() != WAKER {
                    let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                    let writable = event.is_writable() || event.is_write_closed() || event.is_error();
                    self.with(RoleId::Broker, |role, cx| {
                        role.io(cx, event.token(), readable, writable)
                    });
                    self.drain_local();
                }
            }
        }
    }

    fn tell_time(&mut self) {
        self.turn.now.mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A clock before 1970 reads as 1970.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.turn.now.unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        self.turn.health = self.turn.store.health();
    }

    fn sleep(&self, stopping: bool) -> Option<Duration> {
        let timer = self.turn.timers.peek().map(|Reverse((due, _))| {
            // One is added so that a timer is due when the sleep ends.
            Duration::from_millis(due.saturating_sub(self.turn.now.mono_ms))
        });
        let nap = (self.turn.kept_back() || stopping).then_some(NAP);
        match (timer, nap) {
            (Some(timer), Some(nap)) => Some(timer.min(nap)),
            (one, other) => one.or(other),
        }
    }

    fn take_mail(&mut self, stop_at: &mut Option<Instant>) -> bool {
        let inbox = self.turn.own_inbox.clone();
        inbox.looking();
        let mut mail = inbox.lock();
        let answers = std::mem::take(&mut mail.answers);
        let completions = std::mem::take(&mut mail.completions);
        let handed = std::mem::take(&mut mail.handed);
        let take = mail.requests.len().min(REQUESTS_PER_TURN);
        let requests: Vec<Envelope> = mail.requests.drain(..take).collect();
        let more = !mail.requests.is_empty();
        let stop = std::mem::take(&mut mail.stop);
        drop(mail);
        if more {
            inbox.wake();
        }
        let busy = !(answers.is_empty()
            && completions.is_empty()
            && handed.is_empty()
            && requests.is_empty()
            && !stop);
        for completion in completions {
            self.complete(completion);
        }
        for (tag, answer) in answers {
            self.answered(tag, answer);
        }
        for (role, item) in handed {
            self.with(role, |role, cx| role.handed(cx, item));
        }
        for envelope in requests {
            self.apply(envelope);
        }
        if stop && stop_at.is_none() {
            *stop_at = Some(Instant::now() + SHUTDOWN);
            for role in ROLES {
                self.with(role, |role, cx| role.shut_down(cx));
            }
        }
        busy
    }

    /// Everything that this worker asked of itself, until nothing is left. Reads of the embedded store are answered
    /// before the call returns, so loads end here too.
    fn drain_local(&mut self) {
        loop {
            if let Some((tag, answer)) = self.turn.local_answers.pop_front() {
                self.answered(tag, answer);
            } else if let Some((role, key, tag)) = self.turn.entries.pop_front() {
                self.enter(role, key, tag);
            } else if let Some(envelope) = self.turn.local.pop_front() {
                self.apply(envelope);
            } else {
                return;
            }
        }
    }

    fn run_timers(&mut self) -> bool {
        let mut any = false;
        while let Some(Reverse((due, packed))) = self.turn.timers.peek().copied() {
            if due > self.turn.now.mono_ms {
                break;
            }
            self.turn.timers.pop();
            any = true;
            let (role, tag) = unpack(packed);
            self.with(ROLES[role], |role, cx| role.timer(cx, tag));
        }
        any
    }

    fn with<T>(&mut self, role: RoleId, call: impl FnOnce(&mut dyn Role, &mut Cx<'_>) -> T) -> T {
        call(
            self.roles[role as usize].as_mut(),
            &mut Cx {
                turn: &mut self.turn,
                role,
            },
        )
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Written { ticket, outcome } => {
                let (role, tag) = unpack(ticket);
                self.with(ROLES[role], |role, cx| role.stored(cx, tag, outcome));
            }
            Completion::Read { ticket, answers } => {
                let answers = answers
                    .inspect_err(|error| tracing::warn!(%error, "a read failed"))
                    .ok();
                if ticket >> 56 == LOADS {
                    self.load_read(unpack(ticket).1, answers);
                } else {
                    let (role, tag) = unpack(ticket);
                    self.with(ROLES[role], |role, cx| role.read(cx, tag, answers));
                }
            }
        }
    }

    fn answered(&mut self, packed: u64, answer: Answer) {
        let (role, tag) = unpack(packed);
        self.with(ROLES[role], |role, cx| role.answered(cx, tag, answer));
    }

    fn apply(&mut self, envelope: Envelope) {
        let Envelope { key, command, reply } = envelope;
        let role = RoleId::of(&command);
        if let Some((command, reply)) = self.park_if_loading(role, &key, Parked::Command(command, reply)) {
            let flow = self.with(role, |role, cx| role.apply(cx, &key, command, reply));
            if let Flow::Load {
                command,
                reply,
                reads,
            } = flow
            {
                self.load(
                    role,
                    key,
                    VecDeque::from([Parked::Command(command, reply)]),
                    reads,
                );
            }
        }
    }

    fn enter(&mut self, role: RoleId, key: Key, tag: Tag) {
        if !self.loading_keys.is_empty() {
            if let Some(load) = self.loading_keys.get(&(role, key.clone())).copied() {
                if let Some(loading) = self.loading.get_mut(&load) {
                    loading.parked.push_back(Parked::Entry(tag));
                    return;
                }
            }
        }
        if let Some(reads) = self.with(role, |role, cx| role.enter(cx, &key, tag)) {
            self.load(role, key, VecDeque::from([Parked::Entry(tag)]), reads);
        }
    }

    /// Gives the command back if its key is not loading.
    fn park_if_loading(&mut self, role: RoleId, key: &Key, parked: Parked) -> Option<(Command, Reply)> {
        let Parked::Command(command, reply) = parked else {
            return None;
        };
        if self.loading_keys.is_empty() {
            return Some((command, reply));
        }
        let Some(loading) = self
            .loading_keys
            .get(&(role, key.clone()))
            .and_then(|load| self.loading.get_mut(load))
        else {
            return Some((command, reply));
        };
        if loading.parked.len() < PARKED_PER_KEY {
            loading.parked.push_back(Parked::Command(command, reply));
        } else {
            self.turn.answer(reply, Answer::Refused(Refusal::unavailable()));
        }
        None
    }

    fn load(&mut self, role: RoleId, key: Key, parked: VecDeque<Parked>, reads: Vec<Read>) {
        let load = self.next_load;
        self.next_load += 1;
        self.loading_keys.insert((role, key.clone()), load);
        self.loading.insert(load, LoadingKey { role, key, parked });
        self.turn
            .store
            .read(self.turn.worker, (LOADS << 56) | load, reads);
        self.take_own_reads();
    }

    /// Loads that the engine answered at once go on at once, so that what was parked keeps its place.
    fn take_own_reads(&mut self) {
        let ready: Vec<Completion> = {
            let mut mail = self.turn.own_inbox.lock();
            let Mail { completions, .. } = &mut *mail;
            let is_load =
                |c: &mut Completion| matches!(c, Completion::Read { ticket, .. } if *ticket >> 56 == LOADS);
            completions.extract_if(.., is_load).collect()
        };
        for completion in ready {
            self.complete(completion);
        }
    }

    fn load_read(&mut self, load: u64, answers: Option<Vec<godwit_store::ReadAnswer>>) {
        let Some(LoadingKey { role, key, parked }) = self.loading.remove(&load) else {
            return;
        };
        let Some(answers) = answers else {
            self.loading_keys.remove(&(role, key.clone()));
            self.with(role, |role, cx| role.load_failed(cx, &key));
            for parked in parked {
                if let Parked::Command(_, reply) = parked {
                    self.turn.answer(reply, Answer::Refused(Refusal::unavailable()));
                }
            }
            return;
        };
        match self.with(role, |role, cx| role.loaded(cx, &key, answers)) {
            Loading::More(reads) => {
                self.loading.insert(load, LoadingKey { role, key, parked });
                self.turn
                    .store
                    .read(self.turn.worker, (LOADS << 56) | load, reads);
                self.take_own_reads();
            }
            Loading::Ready => {
                self.loading_keys.remove(&(role, key.clone()));
                self.unpark(role, key, parked);
            }
        }
    }

    fn unpark(&mut self, role: RoleId, key: Key, mut parked: VecDeque<Parked>) {
        while let Some(next) = parked.pop_front() {
            let reads = match next {
                Parked::Command(command, reply) => {
                    match self.with(role, |role, cx| role.apply(cx, &key, command, reply)) {
                        Flow::Taken => continue,
                        Flow::Load {
                            command,
                            reply,
                            reads,
                        } => {
                            parked.push_front(Parked::Command(command, reply));
                            reads
                        }
                    }
                }
                Parked::Entry(tag) => match self.with(role, |role, cx| role.enter(cx, &key, tag)) {
                    None => continue,
                    Some(reads) => {
                        parked.push_front(Parked::Entry(tag));
                        reads
                    }
                },
            };
            // It needs more than was loaded: what is left waits in the same order.
            self.load(role, key, parked, reads);
            return;
        }
    }
}

const ROLES: [RoleId; RoleId::COUNT] = [RoleId::Accounts, RoleId::Broker, RoleId::Ingest];
