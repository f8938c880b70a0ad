//! The worker loop from outside: what it does when the store is busy, when a worker fails, and when all stop.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Router, Tag, Workers};
use godwit_store::{
    Batch, Completion, CompletionPort, Health, Kind, Op, Outcome, PortId, Read, ReadAnswer, Stats, Store,
    StoreError, Submission, Table, Ticket, View,
};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand as C, TopicCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};

const TABLE: Table = Table {
    id: 1,
    kind: Kind::Set,
    name: "things",
};

/// A store that takes everything, unless it is told to be busy, and whose reads come when they are let go, or fail.
#[derive(Default)]
struct Fake {
    ports: Mutex<Vec<(PortId, Arc<dyn CompletionPort>)>>,
    busy: AtomicBool,
    reads_fail: AtomicBool,
    holds_reads: AtomicBool,
    held: Mutex<Vec<(PortId, Ticket, usize)>>,
    taken: AtomicUsize,
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    fn complete(&self, port: PortId, completion: Completion) {
        let ports = lock(&self.ports);
        let sink = ports
            .iter()
            .find(|(of, _)| *of == port)
            .map(|(_, sink)| sink.clone());
        drop(ports);
        sink.expect("a registered port").complete(&mut vec![completion]);
    }

    fn let_reads_go(&self) {
        self.holds_reads.store(false, Ordering::SeqCst);
        for (port, ticket, reads) in std::mem::take(&mut *lock(&self.held)) {
            self.answer(port, ticket, reads);
        }
    }

    fn answer(&self, port: PortId, ticket: Ticket, reads: usize) {
        let answers = if self.reads_fail.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable("a test".into()))
        } else {
            Ok((0..reads).map(|_| ReadAnswer::Row(None)).collect())
        };
        self.complete(port, Completion::Read { ticket, answers });
    }
}

impl Store for Fake {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        lock(&self.ports).push((port, sink));
    }
    fn submit(&self, batch: Batch) -> Submission {
        if self.busy.load(Ordering::SeqCst) {
            return Submission::Busy(batch);
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        let (ticket, outcome) = (batch.ticket, Outcome::Stored);
        self.complete(batch.port, Completion::Written { ticket, outcome });
        Submission::Taken
    }
    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        if self.holds_reads.load(Ordering::SeqCst) {
            lock(&self.held).push((port, ticket, reads.len()));
        } else {
            self.answer(port, ticket, reads.len());
        }
    }
    fn read_now(&self, _: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        Err(StoreError::Misuse("not in these tests"))
    }
    fn totally_ordered(&self) -> bool {
        true
    }
    fn start_view(&self) -> u64 {
        1
    }
    fn health(&self) -> Health {
        Health::Serving
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
    fn backup(&self, _: &Path) -> Result<(), StoreError> {
        Ok(())
    }
    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What the role under test saw.
#[derive(Default)]
struct Seen {
    ordered: Vec<bool>,
    overfull: Vec<bool>,
    applied: Vec<u64>,
    loaded: bool,
    answers: Vec<Answer>,
}

/// What a command makes the role do.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    /// `Indexed{n}` stores n batches and notes after each whether the order may be relied on.
    Store,
    /// Panics.
    Fail,
    /// Loads first; notes in which order commands are applied.
    Load,
    /// At shutdown asks a topic's home, which answers late.
    AskLate,
    /// Nothing.
    Rest,
}

struct Actor {
    play: Play,
    seen: Arc<Mutex<Seen>>,
    waiting: usize,
    late: VecDeque<Reply>,
}

impl Role for Actor {
    fn apply(&mut self, cx: &mut Cx<'_>, _: &Key, command: Command, reply: Reply) -> Flow {
        if let Command::Topic(_) = command {
            self.late.push_back(reply);
            cx.after(300, 1);
            return Flow::Taken;
        }
        let Command::Conversation(C::Indexed { up_to }) = command else {
            cx.answer(reply, Refusal::not_found().into());
            return Flow::Taken;
        };
        match self.play {
            Play::Store => {
                for _ in 0..up_to {
                    let op = Op::Remove {
                        table: TABLE,
                        partition: Bytes::new(),
                        element: Bytes::new(),
                    };
                    cx.store(&Key::Wildcards, 0, vec![op]);
                    let mut seen = lock(&self.seen);
                    seen.ordered.push(cx.totally_ordered());
                    seen.overfull.push(cx.overfull());
                }
            }
            Play::Fail => panic!("planted"),
            Play::Load if !lock(&self.seen).loaded => {
                return Flow::Load {
                    command: Command::Conversation(C::Indexed { up_to }),
                    reply,
                    reads: vec![Read::Fact {
                        table: TABLE,
                        key: Bytes::new(),
                    }],
                };
            }
            Play::Load | Play::AskLate | Play::Rest => lock(&self.seen).applied.push(up_to),
        }
        cx.answer(reply, Answer::Done);
        Flow::Taken
    }
    fn loaded(&mut self, _: &mut Cx<'_>, _: &Key, _: Vec<ReadAnswer>) -> Loading {
        lock(&self.seen).loaded = true;
        Loading::Ready
    }
    fn load_failed(&mut self, _: &mut Cx<'_>, _: &Key) {}
    fn stored(&mut self, _: &mut Cx<'_>, _: Tag, _: Outcome) {}
    fn answered(&mut self, _: &mut Cx<'_>, _: Tag, answer: Answer) {
        self.waiting -= 1;
        lock(&self.seen).answers.push(answer);
    }
    fn timer(&mut self, cx: &mut Cx<'_>, _: Tag) {
        for reply in self.late.drain(..) {
            cx.answer(reply, Answer::Done);
        }
    }
    fn taken_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
    fn given_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
    fn shut_down(&mut self, cx: &mut Cx<'_>) {
        if self.play == Play::AskLate && cx.worker() == 0 {
            self.waiting += 1;
            let command = TopicCommand::Retained { filter: "x".into() };
            cx.ask(7, topic_of(cx.workers(), 1), Command::Topic(command));
        }
    }
    fn quiet(&self) -> bool {
        self.waiting == 0
    }
}

fn topic_of(workers: u16, worker: u16) -> Key {
    let names = (0..1_000).map(|n: u16| Key::Topic(n.to_string().into()));
    let mut here = names.filter(|key| key.shard() % workers == worker);
    here.next().expect("one of a thousand")
}

fn conversation_of(router: &Router, worker: u16) -> Key {
    loop {
        let key = Key::Conversation(ConversationId::direct(UserId::fresh(), UserId::fresh()));
        if router.worker_of(&key) == worker {
            return key;
        }
    }
}

fn start(count: u16, play: Play) -> (Workers, Arc<Fake>, Arc<Mutex<Seen>>) {
    let fake = Arc::new(Fake::default());
    let store: Arc<dyn Store> = fake.clone();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let shared = seen.clone();
    let make = Arc::new(move |_| -> [Box<dyn Role>; 3] {
        let actor = |play| {
            Box::new(Actor {
                play,
                seen: shared.clone(),
                waiting: 0,
                late: VecDeque::new(),
            })
        };
        [actor(Play::Rest), actor(Play::Rest), actor(play)]
    });
    (Workers::start(count, &store, make).expect("started"), fake, seen)
}

fn indexed(up_to: u64) -> Command {
    Command::Conversation(C::Indexed { up_to })
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("in time")
}

#[tokio::test]
async fn the_order_of_commits_is_not_relied_on_while_a_batch_is_kept_back() {
    let (workers, fake, seen) = start(1, Play::Store);
    let (router, key) = (workers.router().clone(), conversation_of(workers.router(), 0));
    in_time(router.call(key.clone(), indexed(1))).await;
    fake.busy.store(true, Ordering::SeqCst);
    in_time(router.call(key.clone(), indexed(1))).await;
    fake.busy.store(false, Ordering::SeqCst);
    let since = Instant::now();
    while fake.taken.load(Ordering::SeqCst) < 2 {
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "what was kept back is submitted again"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    in_time(router.call(key, indexed(1))).await;
    assert_eq!(lock(&seen).ordered, [true, false, true]);
    workers.stop();
}

#[tokio::test]
async fn work_that_piles_up_behind_a_busy_store_is_called_overfull() {
    let (workers, fake, seen) = start(1, Play::Store);
    fake.busy.store(true, Ordering::SeqCst);
    let key = conversation_of(workers.router(), 0);
    in_time(workers.router().call(key, indexed(20_000))).await;
    let seen = std::mem::take(&mut lock(&seen).overfull);
    assert!(!seen[1_000] && seen[19_999]);
    fake.busy.store(false, Ordering::SeqCst);
    workers.stop();
}

#[tokio::test]
async fn a_worker_that_fails_leaves_nobody_waiting_and_says_so() {
    let (workers, _, _) = start(2, Play::Fail);
    let router = workers.router().clone();
    let key = conversation_of(&router, 0);
    assert!(!router.has_failed());
    let (told, failures) = std::sync::mpsc::channel();
    router.on_failure(move || told.send(()).expect("the test waits"));
    for _ in 0..2 {
        let answer = in_time(router.call(key.clone(), indexed(1))).await;
        assert!(matches!(answer, Answer::Refused(refusal) if refusal.code == Code::Unavailable));
    }
    assert!(router.has_failed());
    let patience = std::time::Duration::from_secs(5);
    failures.recv_timeout(patience).expect("who watches is told");
    assert!(!router.tell(key, indexed(1)));
    workers.stop();
}

#[tokio::test]
async fn a_worker_does_not_stop_while_another_waits_for_its_answer() {
    let (workers, _, seen) = start(2, Play::AskLate);
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || workers.stop())
        .await
        .expect("stopped");
    assert!(matches!(lock(&seen).answers[..], [Answer::Done]));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "nobody waits for the deadline"
    );
}

#[tokio::test]
async fn what_comes_while_a_key_loads_is_applied_behind_it_in_order() {
    let (workers, fake, seen) = start(1, Play::Load);
    let router = workers.router().clone();
    let key = conversation_of(&router, 0);
    fake.holds_reads.store(true, Ordering::SeqCst);
    for n in 1..=50 {
        assert!(router.tell(key.clone(), indexed(n)));
    }
    let since = Instant::now();
    while lock(&fake.held).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(5), "it loads");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fake.let_reads_go();
    in_time(router.call(key, indexed(51))).await;
    assert_eq!(lock(&seen).applied, (1..=51).collect::<Vec<_>>());
    workers.stop();
}

#[tokio::test]
async fn a_load_that_fails_refuses_what_waited_for_it_and_the_next_command_loads_again() {
    let (workers, fake, seen) = start(1, Play::Load);
    let router = workers.router().clone();
    let key = conversation_of(&router, 0);
    fake.reads_fail.store(true, Ordering::SeqCst);
    let answer = in_time(router.call(key.clone(), indexed(1))).await;
    assert!(matches!(answer, Answer::Refused(refusal) if refusal.code == Code::Unavailable));
    fake.reads_fail.store(false, Ordering::SeqCst);
    assert!(matches!(
        in_time(router.call(key, indexed(2))).await,
        Answer::Done
    ));
    assert_eq!(lock(&seen).applied, [2]);
    workers.stop();
}
