//! What the tests of the bridge share: it on real workers and a real store, with stand-ins for the two roles it speaks to.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]

pub mod gate;
pub mod steps;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Router, Tag, Workers};
use godwit_ingest::{Config, Ingest, Metrics};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Outcome, ReadAnswer, Store, View};
use godwit_wire::account::AccountCommand;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{
    Answer, Command, ConversationCommand as C, EntryBody, HistoryAt, Named, Send, SendIdentity, Sent,
    UserCommand,
};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::proto::chat::{self, send_request::Content};

use gate::Gate;

/// What the stand-ins saw and are told to do.
#[derive(Default)]
pub struct World {
    /// Offers by user: positions in the order of arrival.
    pub offers: HashMap<UserId, Vec<(u64, u64)>>,
    pub notes: HashMap<UserId, usize>,
    /// The next offers to this user are refused, so many.
    pub refuse: HashMap<UserId, usize>,
    /// Offers to this user are never answered.
    pub silent: Option<UserId>,
    /// Who cannot be written to.
    pub closed: Option<UserId>,
}

pub type Shared = Arc<Mutex<World>>;

pub struct Others(Shared, Vec<Reply>);

impl Role for Others {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        let Key::User(user) = key else {
            panic!("only users are spoken to, not {key:?}")
        };
        let mut world = self.0.lock().expect("no test panicked with it");
        let answer = match command {
            Command::User(UserCommand::Offer { entry, after }) => {
                if world.silent == Some(*user) {
                    self.1.push(reply);
                    return Flow::Taken;
                }
                let refuse = world.refuse.entry(*user).or_default();
                let last = *refuse;
                *refuse = last.saturating_sub(1);
                let known = world.offers.entry(*user).or_default();
                let have = known.last().map_or(0, |(position, _)| *position);
                if last > 0 || have < after {
                    Refusal::unavailable().into()
                } else {
                    known.push((entry.sequence_number, after));
                    Answer::Kept { gone: Vec::new() }
                }
            }
            Command::User(UserCommand::Note(_)) => {
                *world.notes.entry(*user).or_default() += 1;
                Answer::Kept { gone: Vec::new() }
            }
            Command::Account(command) => match *command {
                AccountCommand::MayWrite { .. } if world.closed == Some(*user) => Refusal::not_found().into(),
                _ => Answer::Done,
            },
            _ => Answer::Done,
        };
        cx.answer(reply, answer);
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

pub struct Bridge {
    pub workers: Option<Workers>,
    pub store: Arc<dyn Store>,
    pub gate: Arc<Gate>,
    pub world: Shared,
    pub router: Router,
}

impl Bridge {
    pub fn start(folder: &std::path::Path) -> Self {
        Self::start_with(folder, Shared::default())
    }

    /// After a restart the mailboxes still know what they were offered.
    pub fn start_with(folder: &std::path::Path, world: Shared) -> Self {
        let inner = Embedded::open(folder, Options::default()).expect("the store opens");
        let gate = Arc::new(Gate::new(inner));
        let store: Arc<dyn Store> = gate.clone();
        let others = world.clone();
        let make = Arc::new(move |_| -> [Box<dyn Role>; 3] {
            [
                Box::new(Others(others.clone(), Vec::new())),
                Box::new(Others(others.clone(), Vec::new())),
                Box::new(Ingest::new(Config::default(), Metrics::default())),
            ]
        });
        let workers = Workers::start(2, &store, make).expect("workers start");
        let router = workers.router().clone();
        Self {
            workers: Some(workers),
            store,
            gate,
            world,
            router,
        }
    }

    pub async fn ask(&self, id: ConversationId, command: C) -> Answer {
        let call = self
            .router
            .call(Key::Conversation(id), Command::Conversation(command));
        tokio::time::timeout(Duration::from_secs(20), call)
            .await
            .expect("an answer in time")
    }

    pub async fn send(
        &self,
        id: ConversationId,
        from: &Named,
        client_id: &str,
        text: &str,
    ) -> Result<Sent, Code> {
        self.send_to(id, from, client_id, text, None).await
    }

    pub async fn send_to(
        &self,
        id: ConversationId,
        from: &Named,
        client_id: &str,
        text: &str,
        with: Option<&Named>,
    ) -> Result<Sent, Code> {
        let send = Send {
            sender: from.clone(),
            identity: SendIdentity::Client(client_id.into()),
            fresh: false,
            content: Content::Text(text.into()),
            content_type: chat::ContentType::Text,
            reply_to: None,
            direct_with: with.cloned(),
        };
        match self.ask(id, C::Send(Box::new(send))).await {
            Answer::Sent(sent) => Ok(sent),
            Answer::Refused(refusal) => Err(refusal.code),
            other => panic!("not an answer to a send: {other:?}"),
        }
    }

    pub async fn texts(&self, id: ConversationId, by: &Named, at: HistoryAt) -> Vec<(u64, String)> {
        match self
            .ask(
                id,
                C::History {
                    by: by.user,
                    at,
                    limit: 200,
                },
            )
            .await
        {
            Answer::History(page) => page
                .entries
                .iter()
                .map(|e| (e.sequence_number, text(&e.body)))
                .collect(),
            other => panic!("no history: {other:?}"),
        }
    }

    pub fn positions(&self, user: &Named) -> Vec<u64> {
        let world = self.world.lock().expect("no test panicked with it");
        world
            .offers
            .get(&user.user)
            .map(|all| all.iter().map(|(at, _)| *at).collect())
            .unwrap_or_default()
    }

    pub fn stop(mut self) {
        if let Some(workers) = self.workers.take() {
            workers.stop();
        }
        self.store.close().expect("the store closes");
    }
}

pub fn text(body: &EntryBody) -> String {
    match body {
        EntryBody::Message(message) => match &message.content {
            Some(chat::message::Content::Text(text)) => text.to_string(),
            _ => String::new(),
        },
        EntryBody::Member(change) => format!("{:?}", change.op()),
    }
}

pub fn named(name: &str) -> Named {
    Named {
        user: UserId::fresh(),
        name: name.into(),
    }
}

pub fn pair() -> (Named, Named, ConversationId) {
    let (ann, bob) = (named("ann"), named("bob"));
    let id = ConversationId::direct(ann.user, bob.user);
    (ann, bob, id)
}
