//! Homes of users and topics of one worker on a store in memory, with connections that only record, and a naive
//! conversation that all users are in. Nothing happens but what is run; a crash leaves what was committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use godwit_accounts::{Acl, USER_NAMES, acl};
use godwit_cluster::harness::Harness;
use godwit_cluster::{Flow, Loading, Reply, RoleId};
use godwit_store::{Completion, Read, Store};
use godwit_wire::account::{AccountAnswer, AccountCommand, Principal, Scopes};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, ConversationCommand, Sent as Stored, UserCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use uuid::Uuid;

use super::conversation::{Asked, Conversation, Offer};
use super::lines::{Line, Lines};
use super::store::{MemStore, State};
use crate::packet::{Connect, Incoming};
use crate::part::Part;
use crate::tables::SESSION_LOG;
use crate::topics::{Metrics as TopicMetrics, Topics};
use crate::users::{Users, UsersConfig, UsersMetrics};
use crate::wire_trait::{CloseReason, Closed, ConnId};

/// Rounds of work after one step; beyond it something feeds itself.
const ROUNDS: u32 = 20_000;
/// Packets that a connection keeps while it is not read.
const BACKLOG: usize = 16;
pub(super) struct World {
    pub(super) users: Users,
    pub(super) topics: Topics,
    pub(super) metrics: UsersMetrics,
    pub(super) members: Vec<UserId>,
    pub(super) conversation_id: ConversationId,
    /// The store's completions do not arrive.
    pub(super) slow: bool,
    /// Other homes than users' do not answer.
    pub(super) deaf: bool,
    pub(super) store: Arc<MemStore>,
    harness: Harness,
    lines: Lines,
    pub(super) conversation: Conversation,
    /// Sends whose offers are not all answered.
    pub(super) waiting: Vec<(Reply, Stored, Vec<Offer>)>,
    late: VecDeque<Completion>,
    next_conn: u32,
    view: u64,
}

/// 2027, in milliseconds since 1970.
const START_MS: u64 = 1_800_000_000_000;

impl World {
    pub(super) fn new(members: Vec<UserId>, names: &[(&str, UserId)]) -> Self {
        let world = Self::start(State::default(), 1, START_MS, members);
        for (name, user) in names {
            world.store.put_fact(USER_NAMES.id, name, user.to_bytes());
        }
        world
    }

    fn start(state: State, view: u64, unix_ms: u64, members: Vec<UserId>) -> Self {
        let store = MemStore::start(state, view);
        let dynamic: Arc<dyn Store> = store.clone();
        let everything = acl::Rule {
            effect: acl::Effect::Allow,
            access: acl::Access::Both,
            filter: "#".into(),
            who: acl::Who::Everyone,
        };
        let config = UsersConfig {
            acl: Arc::new(Acl::new(vec![everything]).expect("a right rule")),
            // Shorter than in the product, so that a sequence is short too.
            idle_ms: 2_000,
            return_ms: 3_000,
            ..UsersConfig::default()
        };
        let metrics = UsersMetrics::default();
        let mut world = Self {
            harness: Harness::new(dynamic, unix_ms).expect("the system has descriptors"),
            users: Users::new(Arc::new(config), metrics.clone()),
            topics: Topics::new(TopicMetrics::default()),
            metrics,
            store,
            lines: Lines::default(),
            conversation_id: ConversationId(Uuid::from_u128(0x8000_0000_0000_7000_8000_0000_0000_00cc)),
            conversation: Conversation::default(),
            waiting: Vec::new(),
            late: VecDeque::new(),
            slow: false,
            deaf: false,
            next_conn: 0,
            view,
            members,
        };
        let shards: Vec<u16> = world
            .members
            .iter()
            .map(|user| Key::User(*user).shard())
            .collect();
        let (users, topics) = (&mut world.users, &mut world.topics);
        world.harness.with(RoleId::Broker, |cx| {
            users.started(cx);
            users.taken_up(cx, &shards);
            topics.started(cx);
        });
        world.run();
        world
    }

    /// kill -9 and a new start.
    pub(super) fn crash(&mut self) {
        let (state, unix_ms) = (self.store.durable(), self.harness.now().unix_ms);
        let members = std::mem::take(&mut self.members);
        let mut next = Self::start(state, self.view + 1, unix_ms, members);
        next.next_conn = self.next_conn;
        next.conversation = std::mem::take(&mut self.conversation);
        *self = next;
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.harness.now().unix_ms
    }

    /// Runs until nothing is left to do.
    pub(super) fn run(&mut self) {
        for _ in 0..ROUNDS {
            if !self.round() {
                return;
            }
        }
        panic!("a step does not come to an end");
    }

    fn round(&mut self) -> bool {
        let mut busy = false;
        let (users, topics) = (&mut self.users, &mut self.topics);
        self.harness.with(RoleId::Broker, |cx| {
            users.end_of_turn(cx);
            topics.end_of_turn(cx);
        });
        self.late.extend(self.harness.take_completions());
        while !self.slow
            && let Some(completion) = self.late.pop_front()
        {
            busy = true;
            self.complete(completion);
        }
        while let Some((tag, answer)) = self.harness.take_answer() {
            busy = true;
            let (users, topics, lines) = (&mut self.users, &mut self.topics, &mut self.lines);
            self.harness.with(RoleId::Broker, |cx| match Part::of(tag) {
                (Part::Topics, number) => topics.answered(cx, number, answer),
                (_, number) => users.answered(cx, lines, number, answer),
            });
        }
        while let Some((key, tag)) = self.harness.take_entry() {
            busy = true;
            if let Key::User(user) = key {
                self.enter(user, Part::of(tag).1);
            }
        }
        while !self.deaf
            && let Some((key, command, reply)) = self.harness.take_command()
        {
            busy = true;
            self.command(key, command, reply);
        }
        while let Some(tag) = self.harness.take_timer() {
            busy = true;
            let (users, topics, lines) = (&mut self.users, &mut self.topics, &mut self.lines);
            self.harness.with(RoleId::Broker, |cx| match Part::of(tag) {
                (Part::Topics, number) => topics.timer(cx, number),
                (_, number) => users.timer(cx, lines, number),
            });
        }
        busy |= self.answer_sends();
        let read = |(conn, line): (&ConnId, &mut Line)| {
            let may = line.ready && !line.paused && !line.closed;
            let packet = if may { line.backlog.pop_front() } else { None };
            packet.map(|packet| (*conn, packet))
        };
        let mut read: Vec<_> = self.lines.0.iter_mut().filter_map(read).collect();
        read.sort_by_key(|(conn, _)| *conn);
        for (conn, packet) in read {
            busy = true;
            self.hand_up(conn, packet);
        }
        busy
    }

    fn complete(&mut self, completion: Completion) {
        let (users, topics, lines) = (&mut self.users, &mut self.topics, &mut self.lines);
        self.harness.with(RoleId::Broker, |cx| match completion {
            Completion::Written { ticket, outcome } => match Part::of(ticket) {
                (Part::Topics, number) => topics.stored(cx, number, &outcome),
                (_, number) => users.stored(cx, lines, number, &outcome),
            },
            Completion::Read { ticket, answers } => match Part::of(ticket) {
                (Part::Topics, number) => topics.read(cx, number, answers.ok()),
                (_, number) => users.read(cx, lines, number, answers.ok()),
            },
        });
    }

    fn enter(&mut self, user: UserId, number: u64) {
        for _ in 0..2 {
            let (users, lines) = (&mut self.users, &mut self.lines);
            let reads = self
                .harness
                .with(RoleId::Broker, |cx| users.enter(cx, lines, user, number));
            let Some(reads) = reads else { return };
            if !self.load(&Key::User(user), reads) {
                return;
            }
        }
        panic!("a loaded home asks to be loaded");
    }

    /// Reads what a key needs. `false`: the reads failed.
    fn load(&mut self, key: &Key, mut reads: Vec<Read>) -> bool {
        loop {
            let fails = self.store.fail_reads.load(Ordering::Relaxed);
            let answers = self.store.read_now(&reads).ok().filter(|_| !fails);
            let (users, topics) = (&mut self.users, &mut self.topics);
            let loading = self.harness.with(RoleId::Broker, |cx| match (key, answers) {
                (Key::User(user), Some(answers)) => Some(users.loaded(cx, *user, answers)),
                (Key::User(user), None) => {
                    users.load_failed(*user);
                    None
                }
                (key, Some(answers)) => Some(topics.loaded(cx, key, answers)),
                (key, None) => {
                    topics.load_failed(key);
                    None
                }
            });
            match loading {
                None => return false,
                Some(Loading::Ready) => return true,
                Some(Loading::More(more)) => reads = more,
            }
        }
    }

    #[allow(clippy::result_large_err, reason = "what it does not take is given back")]
    /// Nobody's credential is revoked for good here: a will is published whatever its client came by.
    fn standing(key: &Key, command: &AccountCommand) -> Answer {
        let (Key::User(user), AccountCommand::Standing { credential }) = (key, command) else {
            return Refusal::not_found().into();
        };
        let scopes = Scopes {
            chat: true,
            topics: true,
            rest: true,
        };
        Answer::Account(Box::new(AccountAnswer::Principal(Principal {
            user: *user,
            name: "".into(),
            credential: Some(*credential),
            expires_at: 0,
            scopes,
            admin: false,
        })))
    }

    fn command(&mut self, key: Key, command: Command, reply: Reply) {
        let (users, topics, lines) = (&mut self.users, &mut self.topics, &mut self.lines);
        let flow = self.harness.with(RoleId::Broker, |cx| match (&key, command) {
            (Key::User(user), Command::User(command)) => Ok(users.apply(cx, lines, *user, command, reply)),
            (key, Command::Topic(command)) => Ok(topics.apply(cx, key, command, reply)),
            (_, command) => Err(Box::new((command, reply))),
        });
        match flow {
            Ok(Flow::Taken) => {}
            Ok(Flow::Load {
                command,
                reply,
                reads,
            }) => match self.load(&key, reads) {
                true => self.command(key, command, reply),
                false => self.answer(reply, Refusal::unavailable().into()),
            },
            Err(other) => match *other {
                (Command::Conversation(ConversationCommand::Send(send)), reply) => {
                    self.send(&key, *send, reply);
                }
                (Command::Account(command), reply) => {
                    let answer = Self::standing(&key, &command);
                    self.answer(reply, answer);
                }
                (_, reply) => self.answer(reply, Answer::Done),
            },
        }
    }

    pub(super) fn answer(&mut self, reply: Reply, answer: Answer) {
        self.harness.with(RoleId::Broker, |cx| cx.answer(reply, answer));
    }

    /// A command to a user's home from outside.
    pub(super) fn ask(&mut self, user: UserId, command: UserCommand) -> Asked {
        let (reply, mut receiver) = Harness::reply();
        self.command(Key::User(user), Command::User(command), reply);
        Box::new(move || receiver.try_recv().ok())
    }

    /// Time passes, timers fire.
    pub(super) fn pass(&mut self, ms: u64) {
        let mut left = ms;
        loop {
            self.run();
            if left == 0 {
                return;
            }
            let step = self.harness.next_timer().unwrap_or(u64::MAX).clamp(1, left);
            self.harness.advance(step);
            left -= step;
        }
    }

    /// Commits are held back, or go on.
    pub(super) fn hold(&self, on: bool) {
        self.store.hold.store(on, Ordering::Relaxed);
        if !on {
            self.store.commit(usize::MAX);
        }
    }

    pub(super) fn commit(&self, count: usize) {
        self.store.commit(count);
    }

    pub(super) fn fail_reads(&self, on: bool) {
        self.store.fail_reads.store(on, Ordering::Relaxed);
    }

    pub(super) fn low_space(&self, on: bool) {
        self.store.low_space.store(on, Ordering::Relaxed);
    }

    /// How many sessions' logs have a durable row with these bytes in it.
    pub(super) fn logs_with(&self, bytes: &[u8]) -> usize {
        self.store.logs_with(SESSION_LOG.id, bytes)
    }

    /// Hands a CONNECT up.
    pub(super) fn connect(&mut self, who: &Principal, connect: Connect) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId {
            index: self.next_conn,
            generation: 1,
        };
        let mut line = Line::new(connect.version);
        let loaded = self.users.is_loaded(who.user) || {
            let users = &mut self.users;
            let reads = self
                .harness
                .with(RoleId::Broker, |cx| users.load_reads(cx, who.user));
            self.load(&Key::User(who.user), reads)
        };
        // The door refuses it where the home cannot be loaded.
        line.closed = !loaded;
        self.lines.0.insert(conn, line);
        if loaded {
            let (users, lines, who) = (&mut self.users, &mut self.lines, who.clone());
            let connect = Box::new(connect);
            self.harness
                .with(RoleId::Broker, |cx| users.attach(cx, lines, conn, connect, who));
        }
        conn
    }

    /// A packet comes. `false`: it is not read, and does not come.
    pub(super) fn give(&mut self, conn: ConnId, packet: Incoming) -> bool {
        let Some(line) = self.lines.0.get_mut(&conn) else {
            return false;
        };
        if line.closed || line.backlog.len() >= BACKLOG {
            return false;
        }
        if line.ready && !line.paused && line.backlog.is_empty() {
            self.hand_up(conn, packet);
        } else {
            line.backlog.push_back(packet);
        }
        true
    }

    fn hand_up(&mut self, conn: ConnId, packet: Incoming) {
        let (users, lines) = (&mut self.users, &mut self.lines);
        self.harness
            .with(RoleId::Broker, |cx| users.packet(cx, lines, conn, packet));
    }

    /// The door closes a connection.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason, unwritten: u32) {
        let Some(line) = self.lines.0.get_mut(&conn) else {
            return;
        };
        if std::mem::replace(&mut line.closed, true) {
            return;
        }
        let closed = Closed { reason, unwritten };
        let (users, lines) = (&mut self.users, &mut self.lines);
        self.harness
            .with(RoleId::Broker, |cx| users.closed(cx, lines, conn, closed));
    }

    /// PUBACKs that the socket has not taken.
    pub(super) fn unwritten(&mut self, conn: ConnId, count: u32) {
        if let Some(line) = self.lines.0.get_mut(&conn) {
            line.unwritten = count;
        }
    }

    /// A connection takes no more PUBLISHes, or takes them again.
    pub(super) fn full(&mut self, conn: ConnId, full: bool) {
        let Some(line) = self.lines.0.get_mut(&conn).filter(|line| !line.closed) else {
            return;
        };
        if std::mem::replace(&mut line.full, full) && !full {
            let (users, lines) = (&mut self.users, &mut self.lines);
            self.harness
                .with(RoleId::Broker, |cx| users.drained(cx, lines, conn));
        }
    }

    pub(super) fn line(&mut self, conn: ConnId) -> Option<&mut Line> {
        self.lines.0.get_mut(&conn)
    }

    /// Whether nothing waits anywhere.
    pub(super) fn is_quiet(&self) -> bool {
        self.users.quiet() && self.topics.quiet() && self.waiting.is_empty() && self.late.is_empty()
    }

    /// The serial number in a payload. Ids and times around it may hold the mark too.
    pub(super) fn serial(payload: &Bytes) -> Option<u32> {
        let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        let mut marked = payload.windows(9).filter(|window| window[0] == b'#');
        let found = marked.find(|window| window[1..].iter().all(digit))?;
        u32::from_str_radix(std::str::from_utf8(&found[1..]).ok()?, 16).ok()
    }
}
