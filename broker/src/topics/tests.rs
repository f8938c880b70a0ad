//! Topics' homes by their calls, on a store in memory: bounds of what is retained, loads, routes that come and go.

mod announcing;
mod copies;
mod nodes;
mod shared;
mod spread;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use godwit_cluster::harness::Harness;
use godwit_cluster::{Flow, Loading, Reply, RoleId};
use godwit_store::{Batch, Completion, Store, Submission};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, Publish, Route, TopicCommand, UserCommand};
use godwit_wire::ids::{Key, SessionId, UserId};
use godwit_wire::topic::filter_key;

use super::retained::{KEY_BYTES, RETAINED};
use super::tree::tests::route;
use super::{IDLE_MS, Metrics, PAGE, ROUTES, SWEEP_MS, Topics, home};
use crate::memory_store::{MemStore, State};
use crate::part::Part;

struct Rig {
    store: Arc<MemStore>,
    harness: Harness,
    topics: Topics,
    /// Deliveries, by session.
    delivered: Vec<SessionId>,
    /// Sessions that are no more.
    gone: Vec<SessionId>,
    /// Members of groups whose client is not connected, and those whose log is full.
    away: Vec<SessionId>,
    /// Away, whatever is asked.
    stubborn: Vec<SessionId>,
    full: Vec<SessionId>,
    passed: shared::Passed,
    /// Topics' homes are at another node: the bytes that each answers when it is asked for what it retains.
    far: Option<usize>,
}

impl Rig {
    fn new() -> Self {
        Self::on(State::default())
    }

    fn on(state: State) -> Self {
        let mut rig = Self::before_start(state);
        rig.start();
        rig
    }

    fn before_start(state: State) -> Self {
        let store = MemStore::start(state, 1);
        let dynamic: Arc<dyn Store> = store.clone();
        Self {
            harness: Harness::new(dynamic, 1_800_000_000_000).unwrap(),
            store,
            topics: Topics::new(Metrics::default()),
            delivered: Vec::new(),
            gone: Vec::new(),
            away: Vec::new(),
            stubborn: Vec::new(),
            full: Vec::new(),
            passed: shared::Passed::default(),
            far: None,
        }
    }

    fn start(&mut self) {
        let topics = &mut self.topics;
        self.harness.with(RoleId::Broker, |cx| topics.started(cx));
        self.run();
    }

    fn run(&mut self) {
        loop {
            let mut busy = false;
            self.end_of_turn();
            for completion in self.harness.take_completions() {
                busy = true;
                let topics = &mut self.topics;
                self.harness.with(RoleId::Broker, |cx| match completion {
                    Completion::Written { ticket, outcome } => {
                        topics.stored(cx, number(ticket), &outcome);
                    }
                    Completion::Read { ticket, answers } => topics.read(cx, number(ticket), answers.ok()),
                });
            }
            while let Some((tag, answer)) = self.harness.take_answer() {
                busy = true;
                let topics = &mut self.topics;
                self.harness
                    .with(RoleId::Broker, |cx| topics.answered(cx, number(tag), answer));
            }
            while let Some((key, command, reply)) = self.harness.take_command() {
                busy = true;
                match command {
                    Command::Topic(TopicCommand::Retained { filter }) if self.far.is_some() => {
                        let answer = copies::answer(self.far.unwrap(), &filter);
                        self.harness.with(RoleId::Broker, |cx| cx.answer(reply, answer));
                    }
                    Command::Topic(command) => self.apply(&key, command, reply),
                    Command::User(UserCommand::Deliver { targets, .. }) => {
                        let all = targets.iter().map(|target| target.session);
                        let (gone, here): (Vec<_>, Vec<_>) = all.partition(|id| self.gone.contains(id));
                        self.delivered.extend(here);
                        self.harness
                            .with(RoleId::Broker, |cx| cx.answer(reply, Answer::Kept { gone }));
                    }
                    command => self.share(command, reply),
                }
            }
            while let Some((key, _)) = self.harness.take_entry() {
                busy = true;
                self.enter(&key);
            }
            while let Some(tag) = self.harness.take_timer() {
                busy = true;
                self.timer(number(tag));
            }
            if !busy {
                return;
            }
        }
    }

    fn enter(&mut self, key: &Key) {
        let topics = &mut self.topics;
        let Some(mut reads) = self.harness.with(RoleId::Broker, |cx| topics.enter(cx, key)) else {
            return;
        };
        loop {
            let answers = self.store.read_now(&reads).unwrap();
            let topics = &mut self.topics;
            let loading = self
                .harness
                .with(RoleId::Broker, |cx| topics.loaded(cx, key, answers));
            match loading {
                Loading::Ready => break,
                Loading::More(more) => reads = more,
            }
        }
        self.enter(key);
    }

    fn timer(&mut self, number: u64) {
        let topics = &mut self.topics;
        self.harness.with(RoleId::Broker, |cx| topics.timer(cx, number));
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.harness.advance(100);
            self.run();
        }
    }

    fn apply(&mut self, key: &Key, command: TopicCommand, reply: Reply) {
        let topics = &mut self.topics;
        let flow = self
            .harness
            .with(RoleId::Broker, |cx| topics.apply(cx, key, command, reply));
        let Flow::Load {
            command,
            reply,
            mut reads,
        } = flow
        else {
            return;
        };
        loop {
            let answers = self.store.read_now(&reads).unwrap();
            let topics = &mut self.topics;
            let loading = self
                .harness
                .with(RoleId::Broker, |cx| topics.loaded(cx, key, answers));
            match loading {
                Loading::Ready => break,
                Loading::More(more) => reads = more,
            }
        }
        let Command::Topic(command) = command else {
            panic!("given back")
        };
        self.apply(key, command, reply);
    }

    fn ask(&mut self, key: &Key, command: TopicCommand) -> Option<Answer> {
        let (reply, mut answer) = Harness::reply();
        self.apply(key, command, reply);
        self.run();
        answer.try_recv().ok()
    }

    fn publish(&mut self, publish: Publish) -> Option<Answer> {
        let key = Key::of_topic(&publish.topic);
        self.ask(&key, TopicCommand::Publish(Arc::new(publish), UserId::fresh()))
    }

    fn subscribe(&mut self, route: &Route) -> Option<Answer> {
        let command = TopicCommand::Subscribe {
            route: route.clone(),
            retained: true,
        };
        self.ask(&filter_key(&route.filter), command)
    }

    /// Topics of the retained messages that a new subscription gets.
    fn retained(&mut self, filter: &str) -> Vec<String> {
        match self.subscribe(&route(filter)) {
            Some(Answer::Retained(found)) => found.iter().map(|one| one.topic.to_string()).collect(),
            other => panic!("{other:?} to a subscription"),
        }
    }
}

fn number(tag: u64) -> u64 {
    let (part, number) = Part::of(tag);
    assert_eq!(part, Part::Topics);
    number
}

fn publish(topic: &str, bytes: usize) -> Publish {
    Publish {
        topic: topic.into(),
        payload: Bytes::from(vec![b'x'; bytes]),
        qos: 1,
        retain: true,
        expires_at: None,
        properties: None,
        from: None,
        message_id: None,
    }
}

fn code(answer: Option<Answer>) -> Option<Code> {
    match answer {
        Some(Answer::Refused(refusal)) => Some(refusal.code),
        Some(Answer::Published { .. }) => None,
        other => panic!("{other:?} to a publish"),
    }
}

#[test]
fn a_retained_publish_over_the_quota_of_its_key_is_refused_whole_until_there_is_room() {
    let mut rig = Rig::new();
    let watcher = route("iot/alice/#");
    rig.subscribe(&watcher);
    let sixteenth = KEY_BYTES / 16 - 1_024;
    for n in 0..16 {
        let mut one = publish(&format!("iot/alice/{n}"), sixteenth);
        one.expires_at = (n == 3).then(|| rig.harness.now().unix_ms + 60_000);
        assert_eq!(code(rig.publish(one)), None, "message {n}");
    }
    rig.delivered.clear();
    assert_eq!(
        code(rig.publish(publish("iot/alice/more", sixteenth))),
        Some(Code::Quota)
    );
    assert!(rig.delivered.is_empty(), "nobody got what was refused");
    assert_eq!(
        code(rig.publish(publish("iot/alice/7", sixteenth))),
        None,
        "replaced"
    );
    assert_eq!(
        code(rig.publish(publish("iot/bob/1", sixteenth))),
        None,
        "another key"
    );
    let not_kept = Publish {
        retain: false,
        ..publish("iot/alice/more", sixteenth)
    };
    assert_eq!(code(rig.publish(not_kept)), None);
    assert_eq!(code(rig.publish(publish("iot/alice/5", 0))), None, "cleared");
    assert_eq!(code(rig.publish(publish("iot/alice/more", sixteenth))), None);
    assert_eq!(
        code(rig.publish(publish("iot/alice/again", sixteenth))),
        Some(Code::Quota)
    );
    // Before a sweep has come by.
    rig.harness.advance(61_000);
    assert_eq!(code(rig.publish(publish("iot/alice/again", sixteenth))), None);
    assert_eq!(rig.retained("iot/alice/#").len(), 16);
    let mut again = Rig::on(rig.store.durable());
    assert_eq!(again.retained("iot/alice/#").len(), 16);
    assert_eq!(
        code(again.publish(publish("iot/alice/other", sixteenth))),
        Some(Code::Quota),
        "also after a start"
    );
}

#[test]
fn retained_messages_whose_time_is_over_leave_memory_and_store() {
    let mut rig = Rig::new();
    let now = rig.harness.now().unix_ms;
    for n in 0..50 {
        let mut one = publish(&format!("iot/alice/{n}"), 10);
        one.expires_at = (n % 2 == 0).then_some(now + 5_000);
        rig.publish(one);
    }
    assert_eq!(rig.store.rows_of_table(RETAINED.id), 50);
    rig.pass(5_000 + 2 * SWEEP_MS);
    assert_eq!(rig.store.rows_of_table(RETAINED.id), 25);
    assert_eq!(rig.retained("iot/alice/#").len(), 25);
    // Those of a key that is not in memory go when it comes there.
    let mut one = publish("iot/bob/1", 10);
    one.expires_at = Some(rig.harness.now().unix_ms + 30_000);
    rig.publish(one);
    let mut later = Rig::before_start(rig.store.durable());
    later.harness.advance(600_000);
    later.start();
    assert!(later.retained("iot/bob/1").is_empty());
    later.pass(2 * SWEEP_MS);
    assert_eq!(later.store.rows_of_table(RETAINED.id), 25);
}

#[test]
fn retained_messages_of_all_keys_are_collected_for_an_early_wildcard() {
    let mut rig = Rig::new();
    for n in 0..700 {
        rig.publish(publish(&format!("key{n}/x/1"), 1));
    }
    assert_eq!(rig.retained("+/x/#").len(), 700);
    assert_eq!(rig.retained("+/y/#").len(), 0);
    assert_eq!(rig.retained("#").len(), 700);
}

#[test]
fn of_two_subscriptions_of_a_session_to_one_wildcard_filter_behind_each_other_only_the_last_has_a_row() {
    let mut rig = Rig::new();
    let first = route("+/x");
    let second = Route {
        route_id: 2,
        ..first.clone()
    };
    for one in [&first, &second] {
        let (reply, _) = Harness::reply();
        let command = TopicCommand::Subscribe {
            route: one.clone(),
            retained: false,
        };
        rig.apply(&Key::Wildcards, command, reply);
    }
    rig.run();
    assert_eq!(rig.store.rows_of_table(ROUTES.id), 1);
    rig.publish(publish("a/x", 1));
    assert_eq!(rig.delivered, [first.session]);
    rig.ask(&Key::Wildcards, TopicCommand::Unsubscribe { route: second });
    rig.publish(publish("a/x", 1));
    assert_eq!((rig.delivered.len(), rig.store.rows_of_table(ROUTES.id)), (1, 0));
}

#[test]
fn wildcard_filters_that_cannot_be_read_are_read_again_after_a_while_and_publishes_wait() {
    let mut rig = Rig::before_start(State::default());
    rig.store.fail_reads.store(true, Ordering::Relaxed);
    rig.start();
    let (reply, mut answer) = Harness::reply();
    let command = TopicCommand::Publish(Arc::new(publish("iot/alice/1", 1)), UserId::fresh());
    rig.apply(&Key::of_topic("iot/alice/1"), command, reply);
    rig.pass(1_000);
    assert!(answer.is_empty());
    rig.store.fail_reads.store(false, Ordering::Relaxed);
    rig.pass(200);
    assert!(matches!(answer.try_recv(), Ok(Answer::Published { .. })));
}

#[test]
fn a_load_of_several_pages_that_takes_long_loses_no_route() {
    let mut rig = Rig::new();
    let key = Key::of_topic("iot/alice/1");
    let routes: Vec<Route> = (0..=PAGE).map(|_| route("iot/alice/1")).collect();
    for route in &routes {
        let batch = Batch {
            port: 0,
            ticket: 0,
            scope: godwit_store::Scope::default(),
            ops: vec![home::put_route(&key, route)],
        };
        assert!(matches!(rig.store.submit(batch), Submission::Taken));
    }
    drop(rig.harness.take_completions());
    let (reply, _answer) = Harness::reply();
    let command = TopicCommand::Publish(Arc::new(publish("iot/alice/1", 1)), UserId::fresh());
    let topics = &mut rig.topics;
    let flow = rig
        .harness
        .with(RoleId::Broker, |cx| topics.apply(cx, &key, command, reply));
    let Flow::Load {
        command: Command::Topic(command),
        reply,
        mut reads,
    } = flow
    else {
        panic!("it is not in memory")
    };
    let mut pages = 0;
    loop {
        pages += 1;
        let answers = rig.store.read_now(&reads).unwrap();
        let topics = &mut rig.topics;
        match rig
            .harness
            .with(RoleId::Broker, |cx| topics.loaded(cx, &key, answers))
        {
            Loading::Ready => break,
            Loading::More(more) => reads = more,
        }
        rig.harness.advance(2 * IDLE_MS);
        rig.timer(super::TIMER_SWEEP);
    }
    assert!(pages > 1, "one page is no test");
    rig.apply(&key, command, reply);
    rig.run();
    assert_eq!(rig.delivered.len(), routes.len());
    // And it can go once it is idle.
    rig.pass(2 * IDLE_MS + SWEEP_MS);
    assert!(rig.topics.homes.is_empty());
}

#[test]
fn a_publish_is_refused_while_too_much_is_kept_back() {
    let mut rig = Rig::new();
    rig.subscribe(&route("iot/alice/#"));
    rig.store.busy.store(true, Ordering::Relaxed);
    let topics = &mut rig.topics;
    rig.harness.with(RoleId::Broker, |cx| {
        while !cx.overfull() {
            let tag = topics.step(super::Step::Lazy);
            cx.store(&Key::Wildcards, tag, Vec::new());
        }
    });
    let refused = publish("iot/alice/1", 1);
    assert_eq!(code(rig.publish(refused.clone())), Some(Code::Unavailable));
    assert!(rig.delivered.is_empty());
    assert!(rig.topics.homes.values().all(|home| home.retained.is_none()));
}

#[test]
fn routes_of_sessions_that_are_gone_go_where_a_publish_finds_them() {
    let mut rig = Rig::new();
    let (gone, stays) = (route("iot/alice/#"), route("iot/alice/#"));
    let wild = Route {
        filter: "+/alice/#".into(),
        route_id: 2,
        ..gone.clone()
    };
    for one in [&gone, &stays, &wild] {
        rig.subscribe(one);
    }
    rig.gone.push(gone.session);
    assert_eq!(rig.store.rows_of_table(ROUTES.id), 3);
    rig.publish(publish("iot/alice/1", 1));
    assert_eq!(rig.delivered, [stays.session]);
    assert_eq!(rig.store.rows_of_table(ROUTES.id), 1);
    assert_eq!(rig.topics.wildcards.len(), 0);
}

#[test]
fn a_session_that_got_what_it_has_no_subscription_for_loses_those_routes_only() {
    let mut rig = Rig::new();
    let user = UserId::fresh();
    let session = SessionId::fresh();
    let make = |filter: &str, route_id| Route {
        user,
        session,
        route_id,
        ..route(filter)
    };
    let all = [
        make("iot/alice/#", 1),
        make("iot/alice/1", 2),
        make("iot/alice/+", 9),
        make("iot/alice/2", 3),
        make("+/alice/1", 4),
        make("+/alice/#", 5),
    ];
    for one in &all {
        rig.subscribe(one);
    }
    let prune = TopicCommand::Prune {
        session,
        topic: "iot/alice/1".into(),
        keep: vec![2, 5],
        before: 9,
    };
    rig.ask(&Key::of_topic("iot/alice/1"), prune);
    let left: Vec<u64> = rig.store.durable_routes(ROUTES.id);
    // 1 and 4 have no subscription; 9 is newer than the word; 3 does not match and is none of its business.
    assert_eq!(left, [2, 3, 5, 9]);
}
