//! Users' homes on a store in memory, with a recording [`Wire`] and naive homes of topics and conversations, stepped by
//! the test: nothing happens but what it runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use godwit_cluster::harness::Harness;
use godwit_cluster::{Flow, Loading, Reply, RoleId};
use godwit_store::coordination::StartId;
use godwit_store::{Completion, Store};
use godwit_wire::account::{AccountAnswer, AccountCommand, Principal};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand, Publish, Route, UserCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use tokio::sync::oneshot::Receiver;

use super::super::{Users, UsersConfig, UsersMetrics};
use super::clients::subscribe;
use super::homes::{Conversation, Waiting};
use super::store::{MemStore, State};
use crate::packet::{Connect, Incoming, Outgoing, PublishOut, Version};
use crate::part::Part;
use crate::topics::Topics;
use crate::wire_trait::{CloseReason, Closed, ConnId, Sent, Wire};

/// One recorded connection.
#[derive(Default)]
pub(super) struct Line {
    pub(super) out: Vec<Outgoing>,
    pub(super) closed: bool,
    /// Its user, and whether it waits for an answer.
    pub(super) moved: Option<(UserId, bool)>,
    pub(super) paused: bool,
    pub(super) full: bool,
    pub(super) unwritten: u32,
    /// That it showed to another node.
    pub(super) certificate: Option<uuid::Uuid>,
    version: Option<Version>,
}

/// Records what is sent.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) lines: HashMap<ConnId, Line>,
}

impl Wire for Recorder {
    fn send(&mut self, conn: ConnId, packet: &Outgoing) -> Sent {
        let line = self.lines.entry(conn).or_default();
        assert!(!line.closed, "nothing is sent to a closed connection");
        line.out.push(packet.clone());
        Sent::Taken
    }

    fn close(&mut self, conn: ConnId, last: Option<Outgoing>) -> u32 {
        let line = self.lines.entry(conn).or_default();
        line.out.extend(last);
        line.closed = true;
        line.unwritten
    }

    fn moved(&mut self, conn: ConnId, user: UserId, waits: bool) {
        let line = self.lines.entry(conn).or_default();
        line.moved = Some((user, waits));
        line.closed = true;
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        self.lines.entry(conn).or_default().paused = paused;
    }

    fn room(&mut self, conn: ConnId) -> bool {
        self.lines
            .get(&conn)
            .is_some_and(|line| !line.full && !line.closed)
    }

    fn version(&self, conn: ConnId) -> Version {
        self.lines
            .get(&conn)
            .and_then(|line| line.version)
            .unwrap_or(Version::V5)
    }

    fn came_by(&self, _: ConnId) -> Option<StartId> {
        None
    }

    fn certificate(&self, conn: ConnId) -> Option<uuid::Uuid> {
        self.lines.get(&conn)?.certificate
    }

    fn unwritten(&self, conn: ConnId) -> u32 {
        self.lines.get(&conn).map_or(0, |line| line.unwritten)
    }
}

pub(super) struct Rig {
    pub(super) store: Arc<MemStore>,
    pub(super) harness: Harness,
    pub(super) users: Users,
    pub(super) wire: Recorder,
    pub(super) metrics: UsersMetrics,
    pub(super) routes: Vec<Route>,
    pub(super) retained: BTreeMap<String, Arc<Publish>>,
    pub(super) conversations: HashMap<ConversationId, Conversation>,
    pub(super) waiting: Vec<Waiting>,
    /// What was told to conversations besides sends.
    pub(super) told: Vec<(ConversationId, ConversationCommand)>,
    /// Publishes that topics' homes got.
    pub(super) published: Vec<Arc<Publish>>,
    /// How many subscriptions they say that one matched.
    pub(super) routes_of_a_publish: u32,
    /// Whom credentials stand for; another is refused.
    pub(super) known: HashMap<uuid::Uuid, Principal>,
    /// They do not answer.
    pub(super) accounts_fail: bool,
    /// Topics' and conversations' homes do not answer.
    pub(super) deaf: bool,
    /// Real homes of topics in place of the naive ones.
    pub(super) topics: Option<Box<Topics>>,
    /// They refuse everything as unavailable.
    pub(super) topics_refuse: bool,
    /// How much they did.
    pub(super) topics_refused: usize,
    pub(super) refuse_sends: Option<godwit_wire::code::Refusal>,
    next_conn: u32,
    view: u64,
}

pub(super) const START_MS: u64 = 1_800_000_000_000;

impl Rig {
    pub(super) fn new() -> Self {
        Self::start(State::default(), 1, START_MS)
    }

    fn start(state: State, view: u64, unix_ms: u64) -> Self {
        let store = MemStore::start(state, view);
        let dynamic: Arc<dyn Store> = store.clone();
        let metrics = UsersMetrics::default();
        let mut rig = Self {
            harness: Harness::new(dynamic, unix_ms).unwrap(),
            store,
            users: Users::new(Arc::new(UsersConfig::default()), metrics.clone()),
            metrics,
            wire: Recorder::default(),
            routes: Vec::new(),
            retained: BTreeMap::new(),
            conversations: HashMap::new(),
            waiting: Vec::new(),
            told: Vec::new(),
            published: Vec::new(),
            routes_of_a_publish: 0,
            known: HashMap::new(),
            accounts_fail: false,
            deaf: false,
            topics: None,
            topics_refuse: false,
            topics_refused: 0,
            refuse_sends: None,
            next_conn: 0,
            view,
        };
        let shards: Vec<u16> = (0..Key::SHARDS).collect();
        rig.harness.with(RoleId::Broker, |cx| {
            rig.users.started(cx);
            rig.users.taken_up(cx, &shards);
        });
        rig.run();
        rig
    }

    /// kill -9 and a new start: what was not committed is gone, and so is every connection.
    pub(super) fn crash(&mut self) {
        let (state, unix_ms) = (self.store.durable(), self.harness.now().unix_ms);
        let mut next = Self::start(state, self.view + 1, unix_ms);
        next.routes = std::mem::take(&mut self.routes);
        next.routes.retain(|route| route.persistent);
        next.retained = std::mem::take(&mut self.retained);
        next.conversations = std::mem::take(&mut self.conversations);
        for conversation in next.conversations.values_mut() {
            conversation.stale = true;
        }
        next.next_conn = self.next_conn;
        next.known = std::mem::take(&mut self.known);
        if self.topics.is_some() {
            next.start_topics();
        }
        *self = next;
    }

    /// Runs until nothing is left to do.
    pub(super) fn run(&mut self) {
        loop {
            let mut busy = false;
            let users = &mut self.users;
            self.harness.with(RoleId::Broker, |cx| users.end_of_turn(cx));
            self.topics_end_of_turn();
            for completion in self.harness.take_completions() {
                busy = true;
                let Some(completion) = self.topics_completed(completion) else {
                    continue;
                };
                let (users, wire) = (&mut self.users, &mut self.wire);
                self.harness.with(RoleId::Broker, |cx| match completion {
                    Completion::Written { ticket, outcome } => {
                        users.stored(cx, wire, number(ticket), &outcome)
                    }
                    Completion::Read { ticket, answers } => {
                        users.read(cx, wire, number(ticket), answers.ok())
                    }
                });
            }
            while let Some((tag, answer)) = self.harness.take_answer() {
                busy = true;
                let Some(answer) = self.topics_answered(tag, answer) else {
                    continue;
                };
                let (users, wire) = (&mut self.users, &mut self.wire);
                self.harness
                    .with(RoleId::Broker, |cx| users.answered(cx, wire, number(tag), answer));
            }
            while let Some((key, tag)) = self.harness.take_entry() {
                busy = true;
                let Key::User(user) = key else {
                    panic!("only users are entered")
                };
                self.enter(user, number(tag));
            }
            while !self.deaf {
                let Some((key, command, reply)) = self.harness.take_command() else {
                    break;
                };
                busy = true;
                self.command(key, command, reply);
            }
            while let Some(tag) = self.harness.take_timer() {
                busy = true;
                if self.topics_timer(tag) {
                    continue;
                }
                let (users, wire) = (&mut self.users, &mut self.wire);
                self.harness
                    .with(RoleId::Broker, |cx| users.timer(cx, wire, number(tag)));
            }
            busy |= self.answer_waiting();
            if !busy {
                return;
            }
        }
    }

    fn enter(&mut self, user: UserId, number: u64) {
        let (users, wire) = (&mut self.users, &mut self.wire);
        let reads = self
            .harness
            .with(RoleId::Broker, |cx| users.enter(cx, wire, user, number));
        if let Some(reads) = reads {
            self.load(user, reads);
            let (users, wire) = (&mut self.users, &mut self.wire);
            let again = self
                .harness
                .with(RoleId::Broker, |cx| users.enter(cx, wire, user, number));
            assert!(again.is_none(), "a loaded home is entered");
        }
    }

    fn load(&mut self, user: UserId, mut reads: Vec<godwit_store::Read>) {
        loop {
            let answers = self.store.read_now(&reads).unwrap();
            let users = &mut self.users;
            match self
                .harness
                .with(RoleId::Broker, |cx| users.loaded(cx, user, answers))
            {
                Loading::Ready => return,
                Loading::More(more) => reads = more,
            }
        }
    }

    pub(super) fn loaded(&mut self, user: UserId) {
        if !self.users.is_loaded(user) {
            let users = &mut self.users;
            let reads = self.harness.with(RoleId::Broker, |cx| users.load_reads(cx, user));
            self.load(user, reads);
        }
    }

    /// A command to a user's home from outside; its answer comes out of the receiver.
    pub(super) fn ask_user(&mut self, user: UserId, command: UserCommand) -> Receiver<Answer> {
        let (reply, receiver) = Harness::reply();
        self.apply(user, command, reply);
        receiver
    }

    fn apply(&mut self, user: UserId, command: UserCommand, reply: Reply) {
        let (users, wire) = (&mut self.users, &mut self.wire);
        let flow = self
            .harness
            .with(RoleId::Broker, |cx| users.apply(cx, wire, user, command, reply));
        if let Flow::Load {
            command,
            reply,
            reads,
        } = flow
        {
            self.load(user, reads);
            let Command::User(command) = command else {
                panic!("given back")
            };
            self.apply(user, command, reply);
        }
    }

    pub(super) fn command(&mut self, key: Key, command: Command, reply: Reply) {
        match (key, command) {
            (Key::User(user), Command::User(command)) => self.apply(user, command, reply),
            (key, Command::Topic(command)) if self.topics.is_some() => {
                self.topics_command(&key, command, reply);
            }
            (_, Command::Topic(command)) => self.topic(command, reply),
            (Key::User(user), Command::Account(command)) => self.account(user, &command, reply),
            (Key::Conversation(id), Command::Conversation(ConversationCommand::Send(send))) => {
                self.send(id, *send, reply);
            }
            (Key::Conversation(id), Command::Conversation(command)) => {
                self.told.push((id, command));
                self.answer(reply, Answer::Done);
            }
            (key, command) => panic!("{command:?} to {key:?}"),
        }
    }

    pub(super) fn account(&mut self, user: UserId, command: &AccountCommand, reply: Reply) {
        let AccountCommand::Standing { credential } = command else {
            panic!("{command:?} to {user:?}")
        };
        if self.accounts_fail {
            return self.answer(reply, Refusal::unavailable().into());
        }
        let known = self.known.get(credential).filter(|who| who.user == user);
        let answer = match known {
            Some(who) => Answer::Account(Box::new(AccountAnswer::Principal(who.clone()))),
            None => Refusal::new(Code::Unauthenticated, "revoked").into(),
        };
        self.answer(reply, answer);
    }

    pub(super) fn answer(&mut self, reply: Reply, answer: Answer) {
        self.harness.with(RoleId::Broker, |cx| cx.answer(reply, answer));
    }

    /// Time passes, timers fire.
    pub(super) fn pass(&mut self, ms: u64) {
        let mut left = ms;
        loop {
            self.run();
            let step = self.harness.next_timer().unwrap_or(u64::MAX).min(left);
            self.harness.advance(step.max(u64::from(left > 0)));
            left -= step.max(u64::from(left > 0)).min(left);
            if left == 0 {
                self.run();
                return;
            }
        }
    }

    pub(super) fn hold(&self, on: bool) {
        self.store.hold.store(on, Ordering::Relaxed);
        if !on {
            self.store.commit(usize::MAX);
        }
    }

    pub(super) fn routes(&self) -> usize {
        self.routes.len()
    }

    /// Hands a CONNECT up.
    pub(super) fn connect(&mut self, who: &Principal, connect: Connect) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId {
            index: self.next_conn,
            generation: 1,
        };
        let line = Line {
            version: Some(connect.version),
            ..Line::default()
        };
        self.wire.lines.insert(conn, line);
        if let Some(credential) = who.credential {
            self.known.insert(credential, who.clone());
        }
        self.loaded(who.user);
        let (users, wire) = (&mut self.users, &mut self.wire);
        let who = who.clone();
        self.harness.with(RoleId::Broker, |cx| {
            users.attach(cx, wire, conn, Box::new(connect), who)
        });
        self.run();
        conn
    }

    /// Hands a packet up, without running what follows.
    pub(super) fn give(&mut self, conn: ConnId, packet: Incoming) {
        let (users, wire) = (&mut self.users, &mut self.wire);
        self.harness
            .with(RoleId::Broker, |cx| users.packet(cx, wire, conn, packet));
    }

    /// Hands a packet up and runs.
    pub(super) fn packet(&mut self, conn: ConnId, packet: Incoming) {
        self.give(conn, packet);
        self.run();
    }

    /// The client vanishes.
    pub(super) fn vanish(&mut self, conn: ConnId) {
        self.close(conn, CloseReason::Gone);
    }

    /// The sockets close it.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        let line = self.wire.lines.entry(conn).or_default();
        if std::mem::replace(&mut line.closed, true) {
            return;
        }
        let closed = Closed {
            reason,
            unwritten: line.unwritten,
        };
        let (users, wire) = (&mut self.users, &mut self.wire);
        self.harness
            .with(RoleId::Broker, |cx| users.closed(cx, wire, conn, closed));
        self.run();
    }

    /// The process ends in order.
    pub(super) fn shut_down(&mut self, conn: ConnId) {
        let (users, wire) = (&mut self.users, &mut self.wire);
        self.harness.with(RoleId::Broker, |cx| {
            users.shut_down(cx, wire);
            let closed = Closed {
                reason: CloseReason::Shutdown,
                unwritten: 0,
            };
            users.closed(cx, wire, conn, closed);
        });
        self.run();
    }

    /// The client has authenticated anew.
    pub(super) fn renew(&mut self, conn: ConnId, who: &Principal) {
        let (users, wire, who) = (&mut self.users, &mut self.wire, who.clone());
        self.harness
            .with(RoleId::Broker, |cx| users.renewed(cx, wire, conn, who));
        self.run();
    }

    pub(super) fn drained(&mut self, conn: ConnId) {
        self.wire.lines.entry(conn).or_default().full = false;
        let (users, wire) = (&mut self.users, &mut self.wire);
        self.harness
            .with(RoleId::Broker, |cx| users.drained(cx, wire, conn));
        self.run();
    }

    /// What was sent since the last call.
    pub(super) fn out(&mut self, conn: ConnId) -> Vec<Outgoing> {
        std::mem::take(&mut self.wire.lines.entry(conn).or_default().out)
    }

    /// The PUBLISHes among [`Self::out`].
    pub(super) fn publishes(&mut self, conn: ConnId) -> Vec<PublishOut> {
        let publish = |packet| match packet {
            Outgoing::Publish(publish) => Some(*publish),
            _ => None,
        };
        self.out(conn).into_iter().filter_map(publish).collect()
    }

    pub(super) fn is_closed(&self, conn: ConnId) -> bool {
        self.wire.lines.get(&conn).is_some_and(|line| line.closed)
    }

    pub(super) fn subscribe(&mut self, conn: ConnId, filter: &str, qos: u8) -> Vec<u8> {
        self.packet(conn, subscribe(7, filter, qos));
        let suback = |packet: &Outgoing| match packet {
            Outgoing::Suback(7, codes) => Some(codes.clone()),
            _ => None,
        };
        let lines = self.wire.lines.entry(conn).or_default();
        let found = lines.out.iter().find_map(suback);
        lines.out.retain(|packet| !matches!(packet, Outgoing::Suback(..)));
        found.unwrap_or_default()
    }
}

pub(super) fn number(tag: u64) -> u64 {
    let (part, number) = Part::of(tag);
    assert_eq!(part, Part::Users);
    number
}
