//! Topics' homes of two nodes on one store, with the real loops and links without a network: what one of them is told
//! of the other's sessions and filters before it gives its first publish.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use godwit_cluster::own::{Body, Group, Holdings, Homes, Layout, Roles, Seat, Standing};
use godwit_cluster::{Clustered, Cx, Peers, Role, Router, Tag, Workers, WorkersHomes, slot_of};
use godwit_store::coordination::StartId;
use godwit_store::{Outcome, Read, ReadAnswer, View};
use godwit_wire::code::Refusal;
use godwit_wire::peer::{PeerAnswer, PeerRequest};
use uuid::Uuid;

use super::*;

/// The users of one node, as far as topics' homes see them.
#[derive(Default)]
struct Them {
    /// Routes of sessions in memory only.
    live: Mutex<Vec<Route>>,
    /// Who was given a publish.
    given: Mutex<Vec<UserId>>,
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap()
}

/// Topics as they are, and users who take what they are given.
struct Actor {
    topics: Topics,
    them: Arc<Them>,
}

impl Role for Actor {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        match (key, command) {
            (Key::User(user), _) => {
                lock(&self.them.given).push(*user);
                cx.answer(reply, Answer::Kept { gone: Vec::new() });
                Flow::Taken
            }
            (Key::WildcardCopy(worker), Command::Topic(TopicCommand::Interest { shards })) => {
                let is_own = |route: &&Route| {
                    cx.worker_of(&Key::User(route.user)) == *worker
                        && shards.contains(&filter_key(&route.filter).shard())
                };
                let routes = lock(&self.them.live).iter().filter(is_own).cloned().collect();
                self.topics.announce(cx, routes, reply);
                Flow::Taken
            }
            (key, Command::Topic(command)) => self.topics.apply(cx, key, command, reply),
            _ => panic!("nothing else is asked here"),
        }
    }
    fn loaded(&mut self, cx: &mut Cx<'_>, key: &Key, answers: Vec<ReadAnswer>) -> Loading {
        self.topics.loaded(cx, key, answers)
    }
    fn load_failed(&mut self, _: &mut Cx<'_>, key: &Key) {
        self.topics.load_failed(key);
    }
    fn enter(&mut self, cx: &mut Cx<'_>, key: &Key, _: Tag) -> Option<Vec<Read>> {
        self.topics.enter(cx, key)
    }
    fn stored(&mut self, cx: &mut Cx<'_>, tag: Tag, outcome: Outcome) {
        self.topics.stored(cx, number(tag), &outcome);
    }
    fn read(&mut self, cx: &mut Cx<'_>, tag: Tag, answers: Option<Vec<ReadAnswer>>) {
        self.topics.read(cx, number(tag), answers);
    }
    fn answered(&mut self, cx: &mut Cx<'_>, tag: Tag, answer: Answer) {
        self.topics.answered(cx, number(tag), answer);
    }
    fn timer(&mut self, cx: &mut Cx<'_>, tag: Tag) {
        self.topics.timer(cx, number(tag));
    }
    fn started(&mut self, cx: &mut Cx<'_>) {
        self.topics.started(cx);
    }
    fn taken_up(&mut self, cx: &mut Cx<'_>, shards: &[u16], _: View) {
        self.topics.taken_up(cx, shards);
    }
    fn given_up(&mut self, _: &mut Cx<'_>, shards: &[u16], _: View) {
        self.topics.given_up(&shards.iter().copied().collect());
    }
    fn stands(&mut self, cx: &mut Cx<'_>) {
        self.topics.stands(cx);
    }
    fn end_of_turn(&mut self, cx: &mut Cx<'_>) {
        self.topics.end_of_turn(cx);
    }
}

/// What is asked of others than users and topics.
struct Idle;

impl Role for Idle {
    fn apply(&mut self, _: &mut Cx<'_>, _: &Key, _: Command, _: Reply) -> Flow {
        Flow::Taken
    }
    fn loaded(&mut self, _: &mut Cx<'_>, _: &Key, _: Vec<ReadAnswer>) -> Loading {
        Loading::Ready
    }
    fn load_failed(&mut self, _: &mut Cx<'_>, _: &Key) {}
    fn stored(&mut self, _: &mut Cx<'_>, _: Tag, _: Outcome) {}
    fn answered(&mut self, _: &mut Cx<'_>, _: Tag, _: Answer) {}
    fn taken_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
    fn given_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
}

#[derive(Default)]
struct Direct {
    routers: OnceLock<[Router; 2]>,
    starts: OnceLock<[StartId; 2]>,
    /// Nothing gets through: what is asked is answered `unavailable`.
    cut: AtomicBool,
    /// How many requests a node was asked to announce what it has.
    interests: Mutex<usize>,
}

struct End(Arc<Direct>, usize);

impl End {
    fn router(&self, node: usize) -> &Router {
        &self.0.routers.get().unwrap()[node]
    }
}

impl Peers for End {
    fn send(&self, _: StartId, requests: &mut VecDeque<PeerRequest>) {
        let is_interest =
            |one: &&PeerRequest| matches!(&one.command, Command::Topic(TopicCommand::Interest { .. }));
        *lock(&self.0.interests) += requests.iter().filter(is_interest).count();
        if self.0.cut.load(Ordering::SeqCst) {
            let refused = || PeerAnswer::Answer(Refusal::unavailable().into());
            let answers = requests.drain(..).map(|one| (one.id, refused())).collect();
            self.router(self.1).peers_answered(answers);
            return;
        }
        let me = self.0.starts.get().unwrap()[self.1];
        let mut refused = Vec::new();
        self.router(1 - self.1).peer_asks(me, requests, &mut refused);
        assert!(refused.is_empty(), "nobody is full");
    }
    fn answer(&self, _: StartId, answers: &mut Vec<(u64, PeerAnswer)>) {
        self.router(1 - self.1).peers_answered(std::mem::take(answers));
    }
}

struct Node {
    workers: Workers,
    homes: WorkersHomes,
    them: Arc<Them>,
}

struct Two {
    /// Of the first node.
    first: Arc<MemStore>,
    /// Of the second node.
    store: Arc<MemStore>,
    nodes: [Node; 2],
    direct: Arc<Direct>,
    starts: [StartId; 2],
    runtime: tokio::runtime::Runtime,
}

/// Of the first node alone, and of both.
fn standing(starts: &[StartId], number: View) -> Arc<Standing> {
    let seat = |start: &StartId| Seat {
        start: *start,
        name: start.to_string().into(),
        roles: Roles::ALL,
        leaving: false,
    };
    let body = Body {
        seats: starts.iter().map(seat).collect(),
        ..Body::default()
    };
    Arc::new(Standing::of(number, Uuid::nil(), body, Layout::PRODUCT))
}

fn user_slots() -> impl Iterator<Item = u16> {
    (0..Key::SHARDS).map(|shard| Layout::PRODUCT.slot(Group::Users, shard))
}

impl Two {
    /// The first node holds everything, alone; the other has begun. `moves`: the wildcards will be the other's.
    fn new(moves: bool) -> Self {
        let starts = (2..)
            .map(|n| [Uuid::from_u128(1), Uuid::from_u128(n)])
            .find(|starts| (standing(starts, 2).map.owner(slot_of(&Key::Wildcards)) == Some(1)) == moves)
            .unwrap();
        let direct = Arc::new(Direct::default());
        let store = MemStore::start(State::default(), 1);
        let beside = store.beside();
        let nodes = [node(&direct, 0, &store), node(&direct, 1, &beside)];
        let routers = [
            nodes[0].workers.router().clone(),
            nodes[1].workers.router().clone(),
        ];
        assert!(direct.routers.set(routers).is_ok() && direct.starts.set(starts).is_ok());
        for (node, start) in nodes.iter().zip(starts) {
            node.homes.begin(start);
            node.homes.moved(standing(&starts[..1], 1));
        }
        nodes[0].homes.take_up(1, user_slots().collect());
        Self {
            first: store,
            store: beside,
            nodes,
            direct,
            starts,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn ask(&self, node: usize, key: Key, command: TopicCommand) -> Answer {
        let call = self.nodes[node]
            .workers
            .router()
            .call(key, Command::Topic(command));
        let in_time = async { tokio::time::timeout(Duration::from_secs(20), call).await };
        self.runtime.block_on(in_time).expect("answered")
    }

    fn subscribe(&self, node: usize, route: &Route) -> Answer {
        let command = TopicCommand::Subscribe {
            route: route.clone(),
            retained: false,
        };
        self.ask(node, filter_key(&route.filter), command)
    }

    /// To how many subscriptions a publish went that came at the second node.
    fn publish(&self, topic: &str) -> u32 {
        let publish = Publish {
            retain: false,
            ..publish(topic, 1)
        };
        let command = TopicCommand::Publish(Arc::new(publish), UserId::fresh());
        match self.ask(1, Key::of_topic(topic), command) {
            Answer::Published { routes, .. } => routes,
            other => panic!("{other:?}"),
        }
    }

    /// A session in memory only of a user who stays at the first node.
    fn live(&self, filter: &str) -> Route {
        let both = standing(&self.starts, 2);
        let mut route = route(filter);
        route.persistent = false;
        while both.map.owner(slot_of(&Key::User(route.user))) != Some(0) {
            route.user = UserId::fresh();
        }
        lock(&self.nodes[0].them.live).push(route.clone());
        assert!(matches!(self.subscribe(0, &route), Answer::Retained(_)));
        route
    }

    /// A topic that will be the second node's.
    fn topic(&self) -> String {
        let both = standing(&self.starts, 2);
        let is_its = |topic: &String| both.map.owner(slot_of(&Key::of_topic(topic))) == Some(1);
        (0..).map(|n| format!("t{n}/x")).find(is_its).unwrap()
    }

    /// The second node becomes a member and takes up what is its.
    fn join(&self) {
        let both = standing(&self.starts, 2);
        let moves: Vec<u16> = user_slots()
            .filter(|slot| both.map.owner(*slot) == Some(1))
            .collect();
        assert!(moves.len() > 1_000);
        let let_go = self.nodes[0].homes.let_go(2, moves.clone());
        self.nodes[0].homes.moved(both.clone());
        self.runtime.block_on(let_go);
        self.nodes[1].homes.moved(both);
        self.nodes[1].homes.take_up(2, moves);
    }

    fn given(&self) -> Vec<UserId> {
        std::mem::take(&mut *lock(&self.nodes[0].them.given))
    }

    fn stop(self) {
        for node in self.nodes {
            node.workers.stop();
        }
    }
}

fn node(direct: &Arc<Direct>, number: usize, store: &Arc<MemStore>) -> Node {
    let store: Arc<dyn Store> = store.clone();
    let them = Arc::<Them>::default();
    let of_roles = them.clone();
    let make = Arc::new(move |_| -> [Box<dyn Role>; 3] {
        let actor = Actor {
            topics: Topics::new(Metrics::default()),
            them: of_roles.clone(),
        };
        [Box::new(Idle), Box::new(actor), Box::new(Idle)]
    });
    let clustered = |_: &Router| Clustered {
        holdings: Arc::new(Holdings::new(Layout::PRODUCT)),
        clock: || 0,
        peers: Arc::new(End(direct.clone(), number)),
    };
    let workers = Workers::start_in(2, &store, make, &clustered).unwrap();
    let homes = WorkersHomes::new(workers.router().clone());
    Node { workers, homes, them }
}

#[test]
fn a_home_that_was_taken_up_gives_its_first_publish_to_sessions_in_memory_elsewhere() {
    let two = Two::new(false);
    let topic = two.topic();
    let route = two.live(&topic);
    two.join();
    assert_eq!(two.publish(&topic), 1);
    assert_eq!(two.given(), [route.user]);
    // Each worker asks each node once, for all that it took up.
    assert_eq!(*lock(&two.direct.interests), 2);
    two.stop();
}

#[test]
fn a_publish_waits_for_a_node_that_cannot_be_asked_and_goes_on_when_it_is_no_member() {
    let two = Two::new(true);
    let topic = two.topic();
    two.live(&topic);
    two.direct.cut.store(true, Ordering::SeqCst);
    two.join();
    let router = two.nodes[1].workers.router().clone();
    let command = TopicCommand::Publish(Arc::new(publish(&topic, 1)), UserId::fresh());
    let key = Key::of_topic(&topic);
    let asked = two
        .runtime
        .spawn(async move { router.call(key, Command::Topic(command)).await });
    let a_while = async { tokio::time::sleep(Duration::from_millis(700)).await };
    two.runtime.block_on(a_while);
    assert!(!asked.is_finished(), "somebody may have a route");
    two.nodes[1].homes.moved(standing(&two.starts[1..], 3));
    let answer = two.runtime.block_on(asked).unwrap();
    assert!(matches!(answer, Answer::Published { .. }), "{answer:?}");
    two.stop();
}

/// A node that comes later, with and without the wildcards' home moving to it.
#[test]
fn a_new_node_knows_all_filters_with_early_wildcards_before_its_first_publish() {
    for moves in [false, true] {
        let two = Two::new(moves);
        let live = two.live("+/x");
        let stored = route("+/+");
        assert!(matches!(two.subscribe(0, &stored), Answer::Retained(_)));
        two.join();
        assert_eq!(two.publish(&two.topic()), 2, "moves: {moves}");
        // What the home then does, the copies follow: here one of the SUBSCRIBEs takes the other's place.
        let again = Route {
            route_id: 2,
            ..live.clone()
        };
        assert!(matches!(two.subscribe(1, &again), Answer::Retained(_)));
        assert_eq!(two.publish(&two.topic()), 2, "moves: {moves}");
        two.stop();
    }
}

#[test]
fn a_subscription_with_an_early_wildcard_is_in_force_on_every_node_or_refused() {
    for moves in [false, true] {
        let two = Two::new(moves);
        two.join();
        let topic = two.topic();
        assert_eq!(two.publish(&topic), 0);
        assert!(matches!(two.subscribe(1, &route("+/x")), Answer::Retained(_)));
        assert_eq!(two.publish(&topic), 1, "moves: {moves}");
        two.direct.cut.store(true, Ordering::SeqCst);
        let home = usize::from(moves);
        let refused = two.subscribe(home, &route("#"));
        assert!(matches!(&refused, Answer::Refused(one) if one.code == Code::Unavailable));
        two.direct.cut.store(false, Ordering::SeqCst);
        two.stop();
    }
}

#[test]
fn a_filter_that_goes_goes_from_every_node() {
    let two = Two::new(false);
    two.join();
    let topic = two.topic();
    let gone = route("+/x");
    assert!(matches!(two.subscribe(0, &gone), Answer::Retained(_)));
    assert_eq!(two.publish(&topic), 1);
    let command = TopicCommand::Unsubscribe { route: gone };
    assert!(matches!(two.ask(0, Key::Wildcards, command), Answer::Done));
    // The copies are told, not asked.
    let until = Instant::now() + Duration::from_secs(10);
    while two.publish(&topic) == 1 {
        assert!(Instant::now() < until, "it is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    two.stop();
}

#[test]
fn an_announced_route_never_takes_the_place_of_a_later_one() {
    let mut rig = Rig::new();
    let old = route("a/b");
    let new = Route {
        route_id: 2,
        qos: 2,
        ..old.clone()
    };
    let announce = |rig: &mut Rig, route: &Route| {
        let command = TopicCommand::Announce { route: route.clone() };
        assert!(matches!(
            rig.ask(&filter_key(&route.filter), command),
            Some(Answer::Done)
        ));
    };
    // In both orders, in memory and not.
    announce(&mut rig, &old);
    rig.subscribe(&new);
    announce(&mut rig, &old);
    let mut found = Vec::new();
    let home = rig.topics.home(&Key::of_topic("a/b")).unwrap();
    home.matching("a/b", &mut |route| found.push(route.route_id));
    assert_eq!(found, [2]);
}

#[test]
fn what_was_retained_under_an_earlier_view_is_shown_when_it_is_written_under_the_homes_own() {
    let two = Two::new(false);
    let topic = two.topic();
    let key = Key::of_topic(&topic);
    let command = TopicCommand::Publish(Arc::new(publish(&topic, 1)), UserId::fresh());
    assert!(matches!(
        two.ask(0, key.clone(), command),
        Answer::Published { .. }
    ));
    let view = || {
        let row = two
            .store
            .row(RETAINED.id, &home::partition(&key), topic.as_bytes())
            .unwrap();
        super::super::retained::read_retained(topic.as_bytes(), row)
            .unwrap()
            .1
    };
    assert_eq!(view(), 1);
    // Its writer died with the row stored and the key's place in the list not.
    two.store
        .take_element(super::super::RETAINED_KEYS.id, topic.as_bytes());
    two.join();
    two.store.hold.store(true, Ordering::SeqCst);
    let router = two.nodes[1].workers.router().clone();
    let (filter, to) = (topic.as_str().into(), key.clone());
    let asked = two.runtime.spawn(async move {
        let command = TopicCommand::Retained { filter };
        router.call(to, Command::Topic(command)).await
    });
    let a_while = async { tokio::time::sleep(Duration::from_millis(300)).await };
    two.runtime.block_on(a_while);
    assert!(!asked.is_finished(), "who reads next might not find it");
    two.store.commit(usize::MAX);
    let found = two.runtime.block_on(asked).unwrap();
    assert!(matches!(found, Answer::Retained(found) if found.len() == 1));
    assert_eq!(view(), 2);
    assert_eq!(two.store.rows_of_table(super::super::RETAINED_KEYS.id), 1);
    two.stop();
}

#[test]
fn no_publish_is_answered_before_the_store_has_confirmed_whose_it_is_and_clearings_are_always_stored() {
    for retain in [false, true] {
        answered_when_confirmed(retain);
    }
}

/// A publish without subscribers. One that clears a retained message which is not known is stored too, since an earlier
/// home's write may show later.
fn answered_when_confirmed(retain: bool) {
    let two = Two::new(false);
    let topic = two.topic();
    let router = two.nodes[0].workers.router().clone();
    let clearing = Publish {
        payload: Bytes::new(),
        retain,
        ..publish(&topic, 1)
    };
    two.first.hold.store(true, Ordering::SeqCst);
    let asked = two.runtime.spawn(async move {
        let key = Key::of_topic(&clearing.topic);
        let command = TopicCommand::Publish(Arc::new(clearing), UserId::fresh());
        router.call(key, Command::Topic(command)).await
    });
    let a_while = async { tokio::time::sleep(Duration::from_millis(300)).await };
    two.runtime.block_on(a_while);
    assert!(!asked.is_finished(), "retain: {retain}");
    assert_eq!(two.first.pending_ops(), usize::from(retain));
    two.first.commit(usize::MAX);
    let answer = two.runtime.block_on(asked).unwrap();
    assert!(matches!(answer, Answer::Published { .. }), "{answer:?}");
    two.stop();
}

#[test]
fn routes_of_sessions_in_memory_go_when_their_user_moves_and_those_made_since_stay() {
    let two = Two::new(false);
    let both = standing(&two.starts, 2);
    let owner = |key: &Key| both.map.owner(slot_of(key));
    let topic = (0..)
        .map(|n| format!("t{n}/x"))
        .find(|topic| owner(&Key::of_topic(topic)) == Some(0))
        .unwrap();
    let of_who_moves = |filter: &str, route_id| {
        let mut route = route(filter);
        (route.persistent, route.route_id) = (false, route_id);
        while owner(&Key::User(route.user)) != Some(1) {
            route.user = UserId::fresh();
        }
        assert!(matches!(two.subscribe(0, &route), Answer::Retained(_)));
    };
    of_who_moves(&topic, 1 << 32 | 7);
    of_who_moves("+/x", 1 << 32 | 8);
    two.live(&topic);
    assert_eq!(two.publish(&topic), 3);
    // A client was faster than the word of the view.
    of_who_moves(&topic, 2 << 32 | 1);
    two.join();
    assert_eq!(two.publish(&topic), 2);
    two.stop();
}
