//! Users' homes on a store in memory, with a recording [`Wire`] and naive homes of topics and conversations, stepped by
//! the test: nothing happens but what it runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use godwit_cluster::harness::Harness;
use godwit_cluster::{Flow, Loading, Reply, RoleId};
use godwit_store::{Completion, Store};
use godwit_wire::account::{Principal, Scopes};
use godwit_wire::command::{
    Answer, Command, ConversationCommand, LoggedEntry, Publish, Route, Send, SendIdentity, Sent as Stored,
    Target, TopicCommand, UserCommand,
};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, Key, MessageId, UserId};
use godwit_wire::proto::chat;
use godwit_wire::topic;
use tokio::sync::oneshot::Receiver;
use uuid::Uuid;

use super::super::{Users, UsersConfig, UsersMetrics};
use super::store::{MemStore, State};
use crate::packet::{Connect, FilterIn, Incoming, Outgoing, PublishIn, PublishOut, Version};
use crate::part::Part;
use crate::wire_trait::{CloseReason, Closed, ConnId, Sent, Wire};

/// One recorded connection.
#[derive(Default)]
pub(super) struct Line {
    pub(super) out: Vec<Outgoing>,
    pub(super) closed: bool,
    pub(super) paused: bool,
    pub(super) full: bool,
    pub(super) unwritten: u32,
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

    fn pubacks_unwritten(&self, conn: ConnId) -> u32 {
        self.lines.get(&conn).map_or(0, |line| line.unwritten)
    }
}

/// A naive conversation: its entries and members.
#[derive(Default)]
struct Conversation {
    members: Vec<UserId>,
    entries: Vec<(SendIdentity, Stored, Arc<LoggedEntry>)>,
    /// Taken up by a new start: everything is offered again before anything new.
    stale: bool,
}

enum Waiting {
    Published(Reply, Vec<Receiver<Answer>>),
    Sent(Reply, Stored, Vec<Receiver<Answer>>),
}

pub(super) struct Rig {
    pub(super) store: Arc<MemStore>,
    pub(super) harness: Harness,
    pub(super) users: Users,
    pub(super) wire: Recorder,
    pub(super) metrics: UsersMetrics,
    routes: Vec<Route>,
    retained: BTreeMap<String, Arc<Publish>>,
    conversations: HashMap<ConversationId, Conversation>,
    waiting: Vec<Waiting>,
    /// What was told to conversations besides sends.
    pub(super) told: Vec<(ConversationId, ConversationCommand)>,
    /// Publishes that topics' homes got.
    pub(super) published: Vec<Arc<Publish>>,
    /// Topics' and conversations' homes do not answer.
    pub(super) deaf: bool,
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
            deaf: false,
            refuse_sends: None,
            next_conn: 0,
            view,
        };
        let shards: Vec<u16> = (0..Key::SHARDS).collect();
        rig.harness
            .with(RoleId::Broker, |cx| rig.users.taken_up(cx, &shards, view));
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
        *self = next;
    }

    /// Runs until nothing is left to do.
    pub(super) fn run(&mut self) {
        loop {
            let mut busy = false;
            for completion in self.harness.take_completions() {
                busy = true;
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
            let reads = self.users.load_reads(user);
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

    fn command(&mut self, key: Key, command: Command, reply: Reply) {
        match (key, command) {
            (Key::User(user), Command::User(command)) => self.apply(user, command, reply),
            (_, Command::Topic(command)) => self.topic(command, reply),
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

    fn answer(&mut self, reply: Reply, answer: Answer) {
        self.harness.with(RoleId::Broker, |cx| cx.answer(reply, answer));
    }

    fn topic(&mut self, command: TopicCommand, reply: Reply) {
        match command {
            TopicCommand::Subscribe { route, retained } => {
                self.routes
                    .retain(|old| (old.session, &old.filter) != (route.session, &route.filter));
                let matching = self
                    .retained
                    .iter()
                    .filter(|(name, _)| retained && topic::matches(&route.filter, name));
                let found = matching.map(|(_, publish)| publish.clone()).collect();
                self.routes.push(route);
                self.answer(reply, Answer::Retained(found));
            }
            TopicCommand::Unsubscribe { route } => {
                self.routes.retain(|old| {
                    (old.session, &old.filter, old.route_id) != (route.session, &route.filter, route.route_id)
                });
                self.answer(reply, Answer::Done);
            }
            TopicCommand::Retained { .. } => self.answer(reply, Answer::Retained(Vec::new())),
            TopicCommand::Publish(publish) => {
                self.published.push(publish.clone());
                if publish.retain {
                    self.retained.insert(publish.topic.to_string(), publish.clone());
                }
                let mut by_user: BTreeMap<UserId, Vec<Target>> = BTreeMap::new();
                for route in self
                    .routes
                    .iter()
                    .filter(|route| topic::matches(&route.filter, &publish.topic))
                {
                    if route.no_local && publish.from == Some(route.session) {
                        continue;
                    }
                    let targets = by_user.entry(route.user).or_default();
                    match targets.iter_mut().find(|target| target.session == route.session) {
                        Some(target) => target.qos = target.qos.max(route.qos),
                        None => targets.push(Target {
                            session: route.session,
                            qos: route.qos,
                            retain_as_published: route.retain_as_published,
                            subscription_ids: route.subscription_id.into_iter().collect(),
                        }),
                    }
                }
                let deliver = |(user, targets)| {
                    let publish = publish.clone();
                    self.ask_user(user, UserCommand::Deliver { publish, targets })
                };
                let answers = by_user.into_iter().map(deliver).collect();
                self.waiting.push(Waiting::Published(reply, answers));
            }
        }
    }

    fn send(&mut self, id: ConversationId, send: Send, reply: Reply) {
        if let Some(refusal) = self.refuse_sends.clone() {
            self.answer(reply, Answer::Refused(refusal));
            return;
        }
        let now = self.harness.now().unix_ms;
        let store = self.store.clone();
        let conversation = self.conversations.entry(id).or_default();
        let repeat = std::mem::take(&mut conversation.stale);
        let mut offers: Vec<Arc<LoggedEntry>> = Vec::new();
        if repeat {
            offers.extend(conversation.entries.iter().map(|(_, _, entry)| entry.clone()));
        }
        let known = conversation
            .entries
            .iter()
            .find(|(identity, ..)| *identity == send.identity);
        if let Some((_, stored, entry)) = known {
            let stored = Stored {
                duplicate: true,
                ..*stored
            };
            if !repeat {
                offers.push(entry.clone());
            }
            self.offer(id, offers, stored, reply);
            return;
        }
        let sequence_number = conversation.entries.len() as u64 + 1;
        let message_id = MessageId::fresh();
        let stored = Stored {
            message_id,
            sequence_number,
            created_at: now,
            duplicate: false,
        };
        let chat::send_request::Content::Text(text) = send.content else {
            panic!("texts only")
        };
        let entry = LoggedEntry::message(chat::Message {
            conversation_id: id.to_bytes(),
            sequence_number,
            message_id: message_id.to_bytes(),
            sender_id: send.sender.user.to_bytes(),
            sender_name: send.sender.name.to_string(),
            content_type: chat::ContentType::Text as i32,
            content: Some(chat::message::Content::Text(text)),
            created_at: now,
            ..chat::Message::default()
        });
        let entry = Arc::new(entry.unwrap());
        store.put_log_row(300, id.0, sequence_number, entry.to_stored(&RetryKeys::default()));
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.entries.push((send.identity, stored, entry.clone()));
        }
        offers.push(entry);
        self.offer(id, offers, stored, reply);
    }

    fn offer(&mut self, id: ConversationId, entries: Vec<Arc<LoggedEntry>>, stored: Stored, reply: Reply) {
        let members = self
            .conversations
            .get(&id)
            .map(|found| found.members.clone())
            .unwrap_or_default();
        let mut answers = Vec::new();
        for entry in entries {
            for member in &members {
                let after = entry.sequence_number - 1;
                answers.push(self.ask_user(
                    *member,
                    UserCommand::Offer {
                        entry: entry.clone(),
                        after,
                    },
                ));
            }
        }
        self.waiting.push(Waiting::Sent(reply, stored, answers));
    }

    fn answer_waiting(&mut self) -> bool {
        let mut busy = false;
        for waiting in std::mem::take(&mut self.waiting) {
            let (Waiting::Published(reply, answers) | Waiting::Sent(reply, _, answers)) = &waiting;
            let _ = reply;
            let ready = answers.iter().all(|answer| !answer.is_empty());
            if !ready {
                self.waiting.push(waiting);
                continue;
            }
            busy = true;
            match waiting {
                Waiting::Published(reply, mut answers) => {
                    let matched = !answers.is_empty();
                    let mut gone = HashSet::new();
                    let mut refused = None;
                    for answer in &mut answers {
                        match answer.try_recv().unwrap() {
                            Answer::Kept { gone: some } => gone.extend(some),
                            Answer::Refused(refusal) => refused = Some(refusal),
                            other => panic!("{other:?} to a delivery"),
                        }
                    }
                    self.routes.retain(|route| !gone.contains(&route.session));
                    self.answer(
                        reply,
                        refused.map_or(Answer::Published { matched }, Answer::Refused),
                    );
                }
                Waiting::Sent(reply, stored, mut answers) => {
                    for answer in &mut answers {
                        assert!(matches!(answer.try_recv().unwrap(), Answer::Kept { .. }));
                    }
                    self.answer(reply, Answer::Sent(stored));
                }
            }
        }
        busy
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

    pub(super) fn make_conversation(&mut self, members: &[UserId]) -> ConversationId {
        let id = ConversationId::fresh();
        let made = Conversation {
            members: members.to_vec(),
            ..Conversation::default()
        };
        self.conversations.insert(id, made);
        id
    }

    /// A conversation under an id of the caller's.
    pub(super) fn make_conversation_as(&mut self, id: ConversationId, members: &[UserId]) {
        let made = Conversation {
            members: members.to_vec(),
            ..Conversation::default()
        };
        self.conversations.insert(id, made);
    }

    pub(super) fn entries(&self, id: ConversationId) -> usize {
        self.conversations
            .get(&id)
            .map_or(0, |conversation| conversation.entries.len())
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
        let line = self.wire.lines.entry(conn).or_default();
        if std::mem::replace(&mut line.closed, true) {
            return;
        }
        let closed = Closed {
            reason: CloseReason::Gone,
            pubacks_unwritten: line.unwritten,
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
                pubacks_unwritten: 0,
            };
            users.closed(cx, wire, conn, closed);
        });
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

fn number(tag: u64) -> u64 {
    let (part, number) = Part::of(tag);
    assert_eq!(part, Part::Users);
    number
}

pub(super) fn subscribe(packet_id: u16, filter: &str, qos: u8) -> Incoming {
    let filter = FilterIn {
        filter: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    Incoming::Subscribe {
        packet_id,
        filters: vec![filter],
        subscription_id: None,
    }
}

pub(super) fn user(name: &str) -> Principal {
    Principal {
        user: UserId::fresh(),
        name: name.into(),
        credential: Some(Uuid::now_v7()),
        expires_at: 0,
        scopes: Scopes {
            chat: true,
            topics: true,
            rest: true,
        },
        admin: false,
    }
}

/// A persistent session.
pub(super) fn persistent(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        client_id: client_id.into(),
        client_id_assigned: false,
        clean_start: false,
        keep_alive: 0,
        session_expiry: 3_600,
        receive_maximum: 65_535,
        maximum_packet_size: u32::MAX,
        topic_alias_maximum: 0,
        request_problem_information: true,
        will: None,
        username: None,
        password: None,
        authentication_method: None,
    }
}

/// A session that ends with its connection.
pub(super) fn clean(version: Version, client_id: &str) -> Connect {
    Connect {
        clean_start: true,
        session_expiry: 0,
        ..persistent(version, client_id)
    }
}

pub(super) fn publish(topic: &str, payload: &str, qos: u8, packet_id: u16) -> Incoming {
    Incoming::Publish(Box::new(PublishIn {
        topic: topic.into(),
        topic_alias: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        dup: false,
        packet_id,
        message_expiry: None,
        properties: None,
    }))
}

pub(super) fn text(publish: &PublishOut) -> String {
    String::from_utf8_lossy(&publish.payload).into_owned()
}
