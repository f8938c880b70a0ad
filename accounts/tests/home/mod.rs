//! A home for tests: real workers on the embedded store, with the accounts role and one that answers `Done` to the rest
//! and writes down what it was asked.

// A module of several test crates, each of which uses a part of it.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use godwit_accounts::config::Config;
use godwit_accounts::{Accounts, Metrics, Tokens};
use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Router, Tag, Workers};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Outcome, ReadAnswer, Store, View};
use godwit_wire::account::{AccountAnswer, AccountCommand, Profile, Registration, Secret};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, Named};
use godwit_wire::ids::{Key, UserId};

pub type Told = Arc<Mutex<Vec<(Key, Command)>>>;

struct Scribe(Told);

impl Role for Scribe {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        self.0.lock().unwrap().push((key.clone(), command));
        cx.answer(reply, Answer::Done);
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

pub struct Home {
    workers: Option<Workers>,
    pub store: Arc<dyn Store>,
    pub router: Router,
    pub tokens: Arc<Tokens>,
    pub told: Told,
    pub metrics: Metrics,
    runtime: tokio::runtime::Runtime,
}

impl Home {
    pub fn open(folder: &Path) -> Self {
        Self::with(folder, Config::default())
    }

    pub fn with(folder: &Path, config: Config) -> Self {
        let options = Options {
            segment_bytes: 1 << 20,
            ..Options::default()
        };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&folder.join("store"), options).unwrap());
        Self::over(store, folder, config)
    }

    pub fn over(store: Arc<dyn Store>, folder: &Path, config: Config) -> Self {
        let tokens = Arc::new(Tokens::open(&folder.join("signing.key")).unwrap());
        let (told, metrics) = (Told::default(), Metrics::default());
        let make = {
            let (tokens, told, metrics) = (tokens.clone(), told.clone(), metrics.clone());
            move |_: u16| -> [Box<dyn Role>; 3] {
                [
                    Box::new(Accounts::new(config.clone(), tokens.clone(), metrics.clone())),
                    Box::new(Scribe(told.clone())),
                    Box::new(Scribe(told.clone())),
                ]
            }
        };
        let workers = Workers::start(2, &store, Arc::new(make)).unwrap();
        let router = workers.router().clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            workers: Some(workers),
            store,
            router,
            tokens,
            told,
            metrics,
            runtime,
        }
    }

    pub fn ask(&self, user: UserId, command: AccountCommand) -> Result<Answer, Refusal> {
        let call = self
            .router
            .call(Key::User(user), Command::Account(Box::new(command)));
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(10), call)
                .await
                .expect("an answer within 10 s")
        });
        match answer {
            Answer::Refused(refusal) => Err(refusal),
            answer => Ok(answer),
        }
    }

    pub fn account(&self, user: UserId, command: AccountCommand) -> AccountAnswer {
        match self.ask(user, command) {
            Ok(Answer::Account(answer)) => *answer,
            other => panic!("not an account answer: {other:?}"),
        }
    }

    pub fn refused(&self, user: UserId, command: AccountCommand) -> Code {
        self.ask(user, command).expect_err("a refusal").code
    }

    pub fn registration(name: &str) -> Registration {
        Registration {
            name: Arc::from(name),
            display_name: String::new(),
            email: None,
            phc: Secret("$argon2id$test".into()),
            admin: false,
            key: None,
        }
    }

    pub fn user(&self, name: &str) -> Named {
        let registration = Self::registration(name);
        match self.account(UserId::fresh(), AccountCommand::Register(Box::new(registration))) {
            AccountAnswer::Registered(Profile { user, name, .. }, false) => Named { user, name },
            other => panic!("not registered: {other:?}"),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.stop();
        }
        let _ = self.store.close();
    }
}
