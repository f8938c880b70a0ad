//! The bridge without a thread: every command it sends and every completion it gets waits until the test lets it go,
//! and time moves only when the test moves it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_cluster::harness::Harness;
use godwit_cluster::{Flow, Loading, Reply, Role, RoleId};
use godwit_ingest::{Config, Ingest, Metrics, OPEN_TAILS, tail_partition};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Completion, Read, ReadAnswer, Store};
use godwit_wire::command::{
    Answer, Command, ConversationCommand as C, Named, Send, SendIdentity, UserCommand,
};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::proto::chat::{self, send_request::Content};
use tokio::sync::oneshot::Receiver;

/// The bridge, step by step.
pub struct Steps {
    pub harness: Harness,
    pub ingest: Ingest,
    pub store: Arc<dyn Store>,
    /// Commands to other homes that nobody answered yet.
    pub asked: VecDeque<(Key, Command, Reply)>,
    /// Completions of writes are kept back.
    pub hold_writes: bool,
    /// Answers to reads are kept back in `held_reads`.
    pub hold_reads: bool,
    pub held_writes: Vec<Completion>,
    pub held_reads: VecDeque<Completion>,
}

pub fn send(from: &Named, client_id: &str, with: Option<&Named>) -> C {
    C::Send(Box::new(Send {
        sender: from.clone(),
        identity: SendIdentity::Client(client_id.into()),
        fresh: false,
        content: Content::Text(format!("text of {client_id}")),
        content_type: chat::ContentType::Text,
        reply_to: None,
        direct_with: with.cloned(),
    }))
}

/// What a home that is well answers.
pub fn yes(command: &Command) -> Answer {
    match command {
        Command::User(_) => Answer::Kept { gone: Vec::new() },
        _ => Answer::Done,
    }
}

pub fn is_offer(command: &Command) -> bool {
    matches!(command, Command::User(UserCommand::Offer { .. }))
}

pub fn is_note(command: &Command) -> bool {
    matches!(command, Command::User(UserCommand::Note(_)))
}

impl Steps {
    pub fn new(folder: &Path, config: Config) -> Self {
        let store = Embedded::open(folder, Options::default()).expect("it opens");
        Self::over(Arc::new(store), config)
    }

    pub fn over(store: Arc<dyn Store>, config: Config) -> Self {
        let harness = Harness::new(store.clone(), 1_700_000_000_000).expect("a harness");
        let mut steps = Self {
            harness,
            ingest: Ingest::new(config, Metrics::default()),
            store,
            asked: VecDeque::new(),
            hold_writes: false,
            hold_reads: false,
            held_writes: Vec::new(),
            held_reads: VecDeque::new(),
        };
        let shards: Vec<u16> = (0..Key::SHARDS).collect();
        let view = steps.store.start_view();
        steps.harness.with(RoleId::Ingest, |cx| {
            steps.ingest.started(cx);
            steps.ingest.taken_up(cx, &shards, view);
        });
        steps
    }

    fn load(&mut self, key: &Key, reads: &[Read]) {
        let answers = self.store.read_now(reads).expect("it reads");
        let ingest = &mut self.ingest;
        let loaded = self
            .harness
            .with(RoleId::Ingest, |cx| ingest.loaded(cx, key, answers));
        assert!(matches!(loaded, Loading::Ready));
    }

    /// Gives a command to the bridge, loading what it needs; says whether that was needed.
    pub fn apply(&mut self, key: &Key, command: Command, reply: Reply) -> bool {
        let ingest = &mut self.ingest;
        let flow = self
            .harness
            .with(RoleId::Ingest, |cx| ingest.apply(cx, key, command, reply));
        match flow {
            Flow::Taken => false,
            Flow::Load {
                command,
                reply,
                reads,
            } => {
                self.load(key, &reads);
                self.apply(key, command, reply);
                true
            }
        }
    }

    pub fn call(&mut self, id: ConversationId, command: C) -> Receiver<Answer> {
        let (reply, receiver) = Harness::reply();
        self.apply(&Key::Conversation(id), Command::Conversation(command), reply);
        self.turn();
        receiver
    }

    /// Everything that can go on without the test.
    pub fn turn(&mut self) {
        loop {
            let mut any = false;
            while let Some((key, tag)) = self.harness.take_entry() {
                any = true;
                let ingest = &mut self.ingest;
                let reads = self
                    .harness
                    .with(RoleId::Ingest, |cx| ingest.enter(cx, &key, tag));
                if let Some(reads) = reads {
                    self.load(&key, &reads);
                    let ingest = &mut self.ingest;
                    let more = self
                        .harness
                        .with(RoleId::Ingest, |cx| ingest.enter(cx, &key, tag));
                    assert!(more.is_none());
                }
            }
            while let Some((key, command, reply)) = self.harness.take_command() {
                any = true;
                if matches!(command, Command::Conversation(_)) {
                    self.apply(&key, command, reply);
                } else {
                    self.asked.push_back((key, command, reply));
                }
            }
            while let Some((tag, answer)) = self.harness.take_answer() {
                any = true;
                let ingest = &mut self.ingest;
                self.harness
                    .with(RoleId::Ingest, |cx| ingest.answered(cx, tag, answer));
            }
            while let Some(tag) = self.harness.take_timer() {
                any = true;
                let ingest = &mut self.ingest;
                self.harness.with(RoleId::Ingest, |cx| ingest.timer(cx, tag));
            }
            for completion in self.harness.take_completions() {
                any = true;
                match completion {
                    Completion::Written { .. } if self.hold_writes => self.held_writes.push(completion),
                    Completion::Read { .. } if self.hold_reads => self.held_reads.push_back(completion),
                    other => self.complete(other),
                }
            }
            if !any {
                return;
            }
        }
    }

    pub fn complete(&mut self, completion: Completion) {
        let ingest = &mut self.ingest;
        self.harness.with(RoleId::Ingest, |cx| match completion {
            Completion::Written { ticket, outcome } => ingest.stored(cx, ticket, outcome),
            Completion::Read { ticket, answers } => ingest.read(cx, ticket, answers.ok()),
        });
    }

    /// Answers what was asked as `policy` says; what it has no answer for goes on waiting.
    pub fn answer(&mut self, mut policy: impl FnMut(UserId, &Command) -> Option<Answer>) {
        for (key, command, reply) in std::mem::take(&mut self.asked) {
            let Key::User(user) = key else {
                panic!("only users are asked, not {key:?}")
            };
            match policy(user, &command) {
                Some(answer) => self.harness.with(RoleId::Ingest, |cx| cx.answer(reply, answer)),
                None => self.asked.push_back((key, command, reply)),
            }
        }
        self.turn();
    }

    /// Goes on, answering everything well, until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        loop {
            self.turn();
            self.answer(|_, command| Some(yes(command)));
            if done(self) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(10), "not in time: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// As [`Steps::until`], nothing being answered.
    pub fn until_alone(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        loop {
            self.turn();
            if done(self) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(10), "not in time: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Goes on until this is answered.
    pub fn answered(&mut self, receiver: &mut Receiver<Answer>) -> Answer {
        let mut answer = None;
        self.until("an answer", |_| {
            answer = receiver.try_recv().ok();
            answer.is_some()
        });
        answer.expect("looked at above")
    }

    /// Lets time pass in steps of a second, everybody answering.
    pub fn rest(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.harness.advance(1_000);
            self.turn();
            std::thread::sleep(Duration::from_millis(20));
            self.answer(|_, command| Some(yes(command)));
        }
    }

    /// Lets every kept-back write complete.
    pub fn let_writes_go(&mut self) {
        self.hold_writes = false;
        for completion in std::mem::take(&mut self.held_writes) {
            self.complete(completion);
        }
        self.turn();
    }

    /// Whether the conversation is in the stored list of open tails.
    pub fn is_listed(&self, id: ConversationId) -> bool {
        let read = Read::Set {
            table: OPEN_TAILS,
            partition: tail_partition(Key::Conversation(id).shard()),
            after: None,
            up_to: None,
            limit: 100,
        };
        match self.store.read_now(&[read]).expect("it reads").pop() {
            Some(ReadAnswer::Set { elements, .. }) => {
                elements.iter().any(|(element, _)| *element == id.to_bytes())
            }
            other => panic!("not a set: {other:?}"),
        }
    }
}
