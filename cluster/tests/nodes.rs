//! The worker loops of two nodes: what is asked at one is done where the key is held, once and in order, while shards
//! come, move and go.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use godwit_cluster::own::{Body, Group, Holdings, Homes, Layout, Roles, Seat, Standing};
use godwit_cluster::{Clustered, Cx, Flow, Loading, Peers, Reply, Role, Router, Tag, Workers, WorkersHomes};
use godwit_store::coordination::StartId;
use godwit_store::{
    Batch, CompletionPort, Health, Outcome, PortId, Read, ReadAnswer, Stats, Store, StoreError, Submission,
    Ticket, View,
};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, ConversationCommand as C, Publish, UserCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use uuid::Uuid;

/// Nothing here is stored.
struct Nothing;

impl Store for Nothing {
    fn register(&self, _: PortId, _: Arc<dyn CompletionPort>) {}
    fn submit(&self, batch: Batch) -> Submission {
        Submission::Busy(batch)
    }
    fn read(&self, _: PortId, _: Ticket, _: Vec<Read>) {}
    fn read_now(&self, _: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        Err(StoreError::Misuse("not in these tests"))
    }
    fn totally_ordered(&self) -> bool {
        false
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

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was done on one node, in order.
type Done = Arc<Mutex<Vec<u64>>>;

/// Answers all but `Indexed{0}`, which it keeps.
struct Actor {
    done: Done,
    kept: Vec<Reply>,
}

impl Role for Actor {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        assert!(cx.holds(key), "what is not held is not applied");
        let up_to = match command {
            Command::Conversation(C::Indexed { up_to }) => up_to,
            Command::User(UserCommand::Deliver { late, .. }) => u64::from(late),
            _ => panic!("nothing else is asked here"),
        };
        lock(&self.done).push(up_to);
        match up_to {
            0 => self.kept.push(reply),
            _ => cx.answer(reply, Answer::Done),
        }
        Flow::Taken
    }
    fn loaded(&mut self, _: &mut Cx<'_>, _: &Key, _: Vec<ReadAnswer>) -> Loading {
        Loading::Ready
    }
    fn load_failed(&mut self, _: &mut Cx<'_>, _: &Key) {}
    fn stored(&mut self, _: &mut Cx<'_>, _: Tag, _: Outcome) {}
    fn answered(&mut self, _: &mut Cx<'_>, _: Tag, _: Answer) {}
    fn taken_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
    fn given_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {
        self.kept.clear();
    }
}

/// Links without a network: what is sent is there at once.
#[derive(Default)]
struct Direct {
    /// What is on its way, while nothing arrives.
    held: Mutex<Option<VecDeque<PeerRequest>>>,
    routers: OnceLock<[Router; 2]>,
}

/// One node's end of them.
struct End(Arc<Direct>, usize);

fn start(node: usize) -> StartId {
    Uuid::from_u128(node as u128 + 1)
}

impl End {
    fn other(&self) -> &Router {
        &self.0.routers.get().expect("both are there")[1 - self.1]
    }
}

impl Peers for End {
    fn send(&self, node: StartId, requests: &mut VecDeque<PeerRequest>) {
        assert_eq!(node, start(1 - self.1), "nobody asks itself");
        if let Some(held) = &mut *lock(&self.0.held) {
            held.append(requests);
            return;
        }
        let mut refused = Vec::new();
        self.other().peer_asks(start(self.1), requests, &mut refused);
        assert!(refused.is_empty(), "nobody is full");
    }
    fn answer(&self, _: StartId, answers: &mut Vec<(u64, PeerAnswer)>) {
        self.other().peers_answered(std::mem::take(answers));
    }
}

struct Node {
    workers: Workers,
    homes: WorkersHomes,
    done: Done,
    direct: Arc<Direct>,
}

fn node(direct: &Arc<Direct>, number: usize) -> Node {
    node_with(direct, number, Holdings::new(Layout::PRODUCT), || 0)
}

fn node_with(direct: &Arc<Direct>, number: usize, holdings: Holdings, clock: fn() -> u64) -> Node {
    let holdings = Arc::new(holdings);
    let store: Arc<dyn Store> = Arc::new(Nothing);
    let done = Done::default();
    let of_roles = done.clone();
    let make = Arc::new(move |_| -> [Box<dyn Role>; 3] {
        let actor = || {
            let done = of_roles.clone();
            Box::new(Actor {
                done,
                kept: Vec::new(),
            })
        };
        [actor(), actor(), actor()]
    });
    let clustered = |_: &Router| Clustered {
        holdings: holdings.clone(),
        clock,
        peers: Arc::new(End(direct.clone(), number)),
    };
    let workers = Workers::start_in(2, &store, make, &clustered).expect("started");
    let homes = WorkersHomes::new(workers.router().clone());
    homes.begin(start(number));
    Node {
        workers,
        homes,
        done,
        direct: direct.clone(),
    }
}

/// Two nodes, and a conversation.
fn two() -> ([Node; 2], Key) {
    let direct = Arc::new(Direct::default());
    let nodes = [node(&direct, 0), node(&direct, 1)];
    let routers = [
        nodes[0].workers.router().clone(),
        nodes[1].workers.router().clone(),
    ];
    assert!(direct.routers.set(routers).is_ok());
    let key = Key::Conversation(ConversationId::direct(UserId::fresh(), UserId::fresh()));
    (nodes, key)
}

fn slot(key: &Key) -> u16 {
    Layout::PRODUCT.slot(Group::Conversations, key.shard())
}

/// A view of both in which all but these leave.
fn view(number: View, stay: &[usize]) -> Arc<Standing> {
    let seat = |node| Seat {
        start: start(node),
        name: format!("n{node}").into(),
        roles: Roles::ALL,
        leaving: !stay.contains(&node),
    };
    let body = Body {
        seats: vec![seat(0), seat(1)],
        ..Body::default()
    };
    Arc::new(Standing::of(number, Uuid::nil(), body, Layout::PRODUCT))
}

impl Node {
    /// Learns of a view in which this node owns everything, and the other is about to leave.
    fn stands(&self, number: View, owner: usize) {
        self.homes.moved(view(number, &[owner]));
    }

    fn take_up(&self, view: View, key: &Key) {
        self.homes.take_up(view, vec![slot(key)]);
    }

    async fn let_go(&self, view: View, key: &Key) {
        in_time(self.homes.let_go(view, vec![slot(key)])).await;
    }

    fn ask(&self, key: &Key, number: u64) -> tokio::task::JoinHandle<Answer> {
        let (router, key) = (self.workers.router().clone(), key.clone());
        let command = Command::Conversation(C::Indexed { up_to: number });
        tokio::spawn(async move { router.call(key, command).await })
    }

    fn done(&self) -> Vec<u64> {
        lock(&self.done).clone()
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("in time")
}

async fn ok(asked: tokio::task::JoinHandle<Answer>) {
    let answer = in_time(asked).await.expect("no panic");
    assert!(matches!(answer, Answer::Done), "{answer:?}");
}

/// Each begins before the next one.
async fn ask_in_order(
    node: &Node,
    key: &Key,
    numbers: std::ops::Range<u64>,
) -> Vec<tokio::task::JoinHandle<Answer>> {
    let mut asked = Vec::new();
    for number in numbers {
        asked.push(node.ask(key, number));
        tokio::task::yield_now().await;
    }
    asked
}

async fn stop(nodes: [Node; 2]) {
    for node in nodes {
        tokio::task::spawn_blocking(move || node.workers.stop())
            .await
            .expect("stopped");
    }
}

#[tokio::test]
async fn what_is_asked_at_another_node_is_done_where_the_key_is_held_in_order() {
    let (nodes, key) = two();
    for node in &nodes {
        node.stands(1, 1);
    }
    nodes[1].take_up(1, &key);
    for asked in ask_in_order(&nodes[0], &key, 1..1_000).await {
        ok(asked).await;
    }
    assert_eq!(nodes[1].done(), (1..1_000).collect::<Vec<u64>>());
    assert!(nodes[0].done().is_empty());
    stop(nodes).await;
}

#[tokio::test]
async fn what_comes_before_the_take_up_waits_for_it_also_at_the_owner() {
    let (nodes, key) = two();
    for node in &nodes {
        node.stands(1, 1);
    }
    let there = nodes[0].ask(&key, 1);
    let here = nodes[1].ask(&key, 2);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!there.is_finished() && !here.is_finished());
    nodes[1].take_up(1, &key);
    ok(there).await;
    ok(here).await;
    assert_eq!(nodes[1].done().len(), 2);
    stop(nodes).await;
}

#[tokio::test]
async fn a_shard_moves_in_the_middle_and_all_is_done_once_and_in_order() {
    let (nodes, key) = two();
    for node in &nodes {
        node.stands(1, 1);
    }
    nodes[1].take_up(1, &key);
    let mut asked = ask_in_order(&nodes[0], &key, 1..200).await;
    // The asker learns of the new view later than the owner: it is told `moved` meanwhile.
    nodes[1].let_go(2, &key).await;
    nodes[1].stands(2, 0);
    asked.extend(ask_in_order(&nodes[0], &key, 200..400).await);
    tokio::time::sleep(Duration::from_millis(250)).await;
    nodes[0].stands(2, 0);
    asked.extend(ask_in_order(&nodes[0], &key, 400..500).await);
    nodes[0].take_up(2, &key);
    asked.extend(ask_in_order(&nodes[0], &key, 500..600).await);
    for asked in asked {
        ok(asked).await;
    }
    let mut all = nodes[1].done();
    all.extend(nodes[0].done());
    assert_eq!(all, (1..600).collect::<Vec<u64>>());
    assert!(nodes[0].done().contains(&599));
    stop(nodes).await;
}

#[tokio::test]
async fn who_is_not_answered_before_a_shard_goes_is_told_so() {
    let (nodes, key) = two();
    for node in &nodes {
        node.stands(1, 1);
    }
    nodes[1].take_up(1, &key);
    let kept = nodes[0].ask(&key, 0);
    while nodes[1].done().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    nodes[1].let_go(2, &key).await;
    let answer = in_time(kept).await.expect("no panic");
    assert!(matches!(answer, Answer::Refused(refusal) if refusal.code == Code::Unavailable));
    stop(nodes).await;
}

#[tokio::test]
async fn what_is_nobodys_for_too_long_is_refused() {
    let (nodes, key) = two();
    let asked = nodes[0].ask(&key, 1);
    let answer = in_time(asked).await.expect("no panic");
    assert!(matches!(answer, Answer::Refused(refusal) if refusal.code == Code::Unavailable));
    stop(nodes).await;
}

#[tokio::test]
async fn who_is_told_to_stop_when_its_lease_is_over_does_nothing_more() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let holdings = godwit_cluster::harness::holdings(1, 10);
    let node = node_with(&Arc::default(), 0, holdings, || NOW.load(Ordering::SeqCst));
    let key = Key::Conversation(ConversationId::direct(UserId::fresh(), UserId::fresh()));
    node.stands(1, 0);
    node.take_up(1, &key);
    ok(node.ask(&key, 1)).await;
    NOW.store(10, Ordering::SeqCst);
    let late = node.ask(&key, 2);
    tokio::task::yield_now().await;
    let done = node.done.clone();
    tokio::task::spawn_blocking(move || node.workers.stop())
        .await
        .expect("stopped");
    let answer = in_time(late).await.expect("no panic");
    assert!(matches!(answer, Answer::Refused(refusal) if refusal.code == Code::Unavailable));
    assert_eq!(*lock(&done), [1]);
}

#[tokio::test]
async fn what_is_on_its_way_to_who_had_a_shard_is_done_before_what_is_asked_when_it_has_moved() {
    let (nodes, key) = two();
    for node in &nodes {
        node.stands(1, 1);
    }
    nodes[1].take_up(1, &key);
    *lock(&nodes[0].direct.held) = Some(VecDeque::new());
    let mut asked = ask_in_order(&nodes[0], &key, 1..100).await;
    while lock(&nodes[0].direct.held)
        .as_ref()
        .is_none_or(|held| held.len() < 99)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    nodes[1].let_go(2, &key).await;
    for node in &nodes {
        node.stands(2, 0);
    }
    nodes[0].take_up(2, &key);
    asked.extend(ask_in_order(&nodes[0], &key, 100..200).await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(nodes[0].done().is_empty());
    let mut held = lock(&nodes[0].direct.held).take().unwrap_or_default();
    nodes[1]
        .workers
        .router()
        .peer_asks(start(0), &mut held, &mut Vec::new());
    for asked in asked {
        ok(asked).await;
    }
    assert_eq!(nodes[0].done(), (1..200).collect::<Vec<u64>>());
    assert!(nodes[1].done().is_empty());
    stop(nodes).await;
}

#[tokio::test]
async fn what_comes_by_a_view_from_before_the_take_up_is_sent_back_and_by_a_later_one_waits() {
    let (nodes, key) = two();
    nodes[0].stands(1, 1);
    nodes[1].stands(2, 1);
    nodes[1].take_up(2, &key);
    let early = nodes[0].ask(&key, 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        nodes[1].done().is_empty(),
        "the shard may have been elsewhere in between"
    );
    nodes[0].stands(2, 1);
    ok(early).await;
    nodes[0].stands(3, 1);
    let late = nodes[0].ask(&key, 2);
    ok(late).await;
    nodes[1].let_go(3, &key).await;
    let later = nodes[0].ask(&key, 3);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!later.is_finished(), "its sender knows more than is known here");
    nodes[1].stands(3, 0);
    nodes[0].stands(4, 0);
    nodes[0].take_up(4, &key);
    ok(later).await;
    assert_eq!((nodes[1].done(), nodes[0].done()), (vec![1, 2], vec![3]));
    stop(nodes).await;
}

#[tokio::test]
async fn a_delivery_by_an_earlier_view_is_taken_only_of_who_has_its_topic_still() {
    let (nodes, _) = two();
    let user = UserId::fresh();
    let key = Key::User(user);
    nodes[0].stands(1, 1);
    let slot = Layout::PRODUCT.slot(Group::Users, key.shard());
    nodes[1].homes.take_up(1, vec![slot]);
    // Both have topics in the next view, of which the first node hears late.
    let next = view(2, &[0, 1]);
    nodes[1].homes.moved(next.clone());
    let topic_of = |node: usize| {
        let of = |topic: &String| {
            let slot = Layout::PRODUCT.slot(Group::Users, Key::of_topic(topic).shard());
            next.map.owner(slot).map(|at| next.body.seats[at].start) == Some(start(node))
        };
        (0..).map(|n| format!("a/{n}")).find(of).expect("there is one")
    };
    let deliver = |topic: String, late: u32| {
        let publish = Publish {
            topic: topic.into(),
            payload: Default::default(),
            qos: 1,
            retain: false,
            expires_at: None,
            properties: None,
            from: None,
            message_id: None,
        };
        let targets = Vec::new();
        let publish = Arc::new(publish);
        let command = Command::User(UserCommand::Deliver {
            publish,
            targets,
            late,
        });
        let (router, key) = (nodes[0].workers.router().clone(), key.clone());
        tokio::spawn(async move { router.call(key, command).await })
    };
    ok(deliver(topic_of(0), 1)).await;
    let lost = deliver(topic_of(1), 2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(nodes[1].done(), [1], "its topic is another's");
    // Who knows as much has had its topic by the same view.
    nodes[0].stands(2, 1);
    ok(lost).await;
    assert_eq!(nodes[1].done(), [1, 2]);
    stop(nodes).await;
}
