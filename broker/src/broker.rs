//! The broker role: gives every call of the loop to the part it is for. Sockets, users' homes and topics' homes know each
//! other only through here (docs/decisions/0004-inside-the-broker.md).

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use godwit_accounts::Acl;
use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Tag};
use godwit_store::{Outcome, Read, ReadAnswer, View};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, TopicCommand, UserCommand};
use godwit_wire::ids::Key;

use crate::net::{Event, Net, NetConfig, NetMetrics};
use crate::part::Part;
use crate::topics::{Metrics as TopicMetrics, Topics};
use crate::users::{Users, UsersConfig, UsersMetrics};
use crate::wire_trait::ConnId;

/// How the broker is set up.
#[derive(Clone, Default)]
pub struct Config {
    /// The doors.
    pub net: NetConfig,
    /// Users' homes.
    pub users: Arc<UsersConfig>,
}

/// What the broker counts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The doors.
    pub net: NetMetrics,
    /// Users' homes.
    pub users: UsersMetrics,
    /// Topics' homes.
    pub topics: TopicMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let users = UsersMetrics::default();
        Self {
            net: NetMetrics::default(),
            topics: TopicMetrics::beside(&users),
            users,
        }
    }
}

impl Metrics {
    /// Names them in a registry.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.net.register(registry);
        self.users.register(registry);
        self.topics.register(registry);
    }
}

/// Handed to a worker: the rules of ordinary topics from now on.
pub struct NewRules(pub Arc<Acl>);

/// The broker on one worker.
pub struct Broker {
    net: Net,
    users: Users,
    topics: Topics,
    /// When (worker's milliseconds) a shutdown waits no longer for the answers of what was read.
    drain_until: Option<u64>,
}

/// How long a shutdown waits for the answers to what clients have sent, before they are told to go. The loop waits 8 s
/// in all.
const DRAIN_MS: u64 = 2_000;
/// The timer of its end: the tag of no connection.
const TIMER_DRAINED: u64 = (1 << 54) - 5;

impl Broker {
    /// A broker without connections; homes are loaded as they are spoken to.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        Self {
            net: Net::new(config.net.clone(), metrics.net.clone()),
            users: Users::new(config.users.clone(), metrics.users.clone()),
            topics: Topics::new(metrics.topics.clone()),
            drain_until: None,
        }
    }
}

/// What comes up from a connection goes to its user's home.
fn up(users: &mut Users) -> impl FnMut(&mut Cx<'_>, &mut Net, ConnId, Event) + '_ {
    |cx, net, conn, event| match event {
        Event::Packet(packet) => users.packet(cx, net, conn, packet),
        Event::Closed(closed) => users.closed(cx, net, conn, closed),
        Event::Drained => users.drained(cx, net, conn),
        Event::Renewed(principal) => users.renewed(cx, net, conn, principal),
    }
}

impl Role for Broker {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        match (key, command) {
            (Key::User(user), Command::User(command)) => {
                if let UserCommand::CredentialEnded { credential } = &command {
                    self.net.credential_ended(*user, *credential);
                }
                self.users.apply(cx, &mut self.net, *user, command, reply)
            }
            (Key::WildcardCopy(_), Command::Topic(TopicCommand::Interest { shards })) => {
                let routes = self.users.live_routes(&shards);
                self.topics.announce(cx, routes, reply);
                Flow::Taken
            }
            (key, Command::Topic(command)) => self.topics.apply(cx, key, command, reply),
            _ => {
                cx.answer(reply, Refusal::not_found().into());
                Flow::Taken
            }
        }
    }

    fn loaded(&mut self, cx: &mut Cx<'_>, key: &Key, answers: Vec<ReadAnswer>) -> Loading {
        match key {
            Key::User(user) => self.users.loaded(cx, *user, answers),
            _ => self.topics.loaded(cx, key, answers),
        }
    }

    fn load_failed(&mut self, _cx: &mut Cx<'_>, key: &Key) {
        match key {
            Key::User(user) => {
                self.users.load_failed(*user);
                self.net.not_entered(*user);
            }
            _ => self.topics.load_failed(key),
        }
    }

    fn enter(&mut self, cx: &mut Cx<'_>, key: &Key, tag: Tag) -> Option<Vec<Read>> {
        let Key::User(user) = key else {
            return self.topics.enter(cx, key);
        };
        match Part::of(tag) {
            (Part::Net, conn) => {
                if !self.users.is_loaded(*user) {
                    return Some(self.users.load_reads(cx, *user));
                }
                if let Some((conn, connect, principal)) = self.net.entered(conn) {
                    self.users.attach(cx, &mut self.net, conn, connect, principal);
                }
                None
            }
            (_, number) => self.users.enter(cx, &mut self.net, *user, number),
        }
    }

    fn stored(&mut self, cx: &mut Cx<'_>, tag: Tag, outcome: Outcome) {
        match Part::of(tag) {
            (Part::Net, _) => {}
            (Part::Users, number) => self.users.stored(cx, &mut self.net, number, &outcome),
            (Part::Topics, number) => self.topics.stored(cx, number, &outcome),
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>, tag: Tag, answers: Option<Vec<ReadAnswer>>) {
        match Part::of(tag) {
            (Part::Net, conn) => self.net.name_read(cx, conn, answers),
            (Part::Users, number) => self.users.read(cx, &mut self.net, number, answers),
            (Part::Topics, number) => self.topics.read(cx, number, answers),
        }
    }

    fn answered(&mut self, cx: &mut Cx<'_>, tag: Tag, answer: Answer) {
        match Part::of(tag) {
            (Part::Net, conn) => self.net.judged(cx, conn, answer, &mut up(&mut self.users)),
            (Part::Users, number) => self.users.answered(cx, &mut self.net, number, answer),
            (Part::Topics, number) => self.topics.answered(cx, number, answer),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, tag: Tag) {
        match Part::of(tag) {
            (Part::Net, number) => self.net.timer(cx, number, &mut up(&mut self.users)),
            (Part::Users, number) => self.users.timer(cx, &mut self.net, number),
            (Part::Topics, number) => self.topics.timer(cx, number),
        }
    }

    fn started(&mut self, cx: &mut Cx<'_>) {
        self.net.start(cx);
        self.users.started(cx);
        self.topics.started(cx);
    }

    fn taken_up(&mut self, cx: &mut Cx<'_>, shards: &[u16], _view: View) {
        self.users.taken_up(cx, shards);
        self.topics.taken_up(cx, shards);
        self.net.look_for_homes(cx);
    }

    fn given_up(&mut self, _cx: &mut Cx<'_>, shards: &[u16], _view: View) {
        let lost: HashSet<u16> = shards.iter().copied().collect();
        self.users.given_up(&mut self.net, &lost);
        self.net.given_up(&lost);
        self.topics.given_up(&lost);
    }

    fn stands(&mut self, cx: &mut Cx<'_>) {
        self.net.stands(cx);
        self.net.look_for_homes(cx);
        self.topics.stands(cx);
    }

    fn io_ended(&mut self, _cx: &mut Cx<'_>, token: mio::Token) {
        self.net.io_ended(token);
    }

    fn io(&mut self, cx: &mut Cx<'_>, token: mio::Token, readable: bool, writable: bool) {
        self.net
            .io(cx, token, readable, writable, &mut up(&mut self.users));
    }

    fn handed(&mut self, cx: &mut Cx<'_>, item: Box<dyn Any + Send>) {
        match item.downcast::<NewRules>() {
            Ok(rules) => {
                self.users.new_rules(rules.0);
                self.users.review(cx, &mut self.net);
            }
            Err(item) => self.net.handed(cx, item),
        }
    }

    fn lapsed(&mut self, cx: &mut Cx<'_>, over_ms: u64, handed: &mut Vec<Box<dyn Any + Send>>) {
        self.net.lapsed(cx, over_ms, handed);
    }

    fn has_enough(&self) -> bool {
        self.net.has_enough()
    }

    fn end_of_turn(&mut self, cx: &mut Cx<'_>) {
        self.users.end_of_turn(cx);
        self.topics.end_of_turn(cx);
        self.net.end_of_turn(cx, &mut up(&mut self.users));
        let over = |until| cx.now().mono_ms >= until || (self.users.quiet() && !self.net.passes_on());
        if self.drain_until.is_some_and(over) {
            self.drain_until = None;
            self.net.shut_down(cx, &mut up(&mut self.users));
            self.users.shut_down(cx, &mut self.net);
        }
    }

    fn after_turn(&mut self, cx: &mut Cx<'_>) -> bool {
        self.net.after_turn(cx, &mut up(&mut self.users))
    }

    /// Nothing more is read; what was read is answered; then clients are told and what is lazy is stored.
    fn shut_down(&mut self, cx: &mut Cx<'_>) {
        self.net.stop_reading();
        self.drain_until = Some(cx.now().mono_ms + DRAIN_MS);
        cx.after(DRAIN_MS, Part::Net.tag(TIMER_DRAINED));
    }

    fn quiet(&self) -> bool {
        self.drain_until.is_none() && self.users.quiet() && self.topics.quiet()
    }
}
