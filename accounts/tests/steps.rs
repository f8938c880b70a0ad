//! The accounts role step by step: what waits for the disk, and what goes from memory.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use godwit_accounts::{Accounts, Config, Metrics, Tokens};
use godwit_cluster::harness::Harness;
use godwit_cluster::{Flow, Loading, Role, RoleId};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Completion, Store};
use godwit_wire::account::{AccountAnswer, AccountCommand as C, NewLoginSession, Registration, Secret};
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::{Key, UserId};
use tokio::sync::oneshot::Receiver;
use uuid::Uuid;

struct Steps {
    harness: Harness,
    role: Accounts,
    store: Arc<dyn Store>,
    metrics: Metrics,
    _folder: tempfile::TempDir,
}

impl Steps {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 1 << 20,
            ..Options::default()
        };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path(), options).unwrap());
        let metrics = Metrics::default();
        let role = Accounts::new(Config::default(), Arc::new(Tokens::ephemeral()), metrics.clone());
        let harness = Harness::new(store.clone(), 1_800_000_000_000).unwrap();
        Self {
            harness,
            role,
            store,
            metrics,
            _folder: folder,
        }
    }

    /// Gives a command, and loads what it asks for.
    fn give(&mut self, user: UserId, command: C) -> Receiver<Answer> {
        let (reply, answer) = Harness::reply();
        let (key, command) = (Key::User(user), Command::Account(Box::new(command)));
        let role = &mut self.role;
        let mut flow = self
            .harness
            .with(RoleId::Accounts, |cx| role.apply(cx, &key, command, reply));
        while let Flow::Load {
            command,
            reply,
            mut reads,
        } = flow
        {
            loop {
                let answers = self.store.read_now(&reads).unwrap();
                match self
                    .harness
                    .with(RoleId::Accounts, |cx| role.loaded(cx, &key, answers))
                {
                    Loading::More(more) => reads = more,
                    Loading::Ready => break,
                }
            }
            flow = self
                .harness
                .with(RoleId::Accounts, |cx| role.apply(cx, &key, command, reply));
        }
        answer
    }

    /// Lets one batch of completions through, waiting for it.
    fn complete(&mut self) {
        for _ in 0..1_000 {
            let taken = self.harness.take_completions();
            if taken.is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(5));
                continue;
            }
            for completion in taken {
                if let Completion::Written { ticket, outcome } = completion {
                    let role = &mut self.role;
                    self.harness
                        .with(RoleId::Accounts, |cx| role.stored(cx, ticket, outcome));
                }
            }
            return;
        }
        panic!("the store did not complete within 5 s");
    }

    fn registered(&mut self, name: &str) -> UserId {
        let user = UserId::fresh();
        let registration = Registration {
            name: Arc::from(name),
            display_name: String::new(),
            email: None,
            phc: Secret("x".into()),
            admin: false,
            key: None,
        };
        let mut answer = self.give(user, C::Register(Box::new(registration)));
        while answer.try_recv().is_err() {
            self.complete();
        }
        user
    }

    fn tick(&mut self, ms: u64) {
        self.harness.advance(ms);
        while let Some(tag) = self.harness.take_timer() {
            let role = &mut self.role;
            self.harness.with(RoleId::Accounts, |cx| role.timer(cx, tag));
        }
    }
}

fn login() -> C {
    let session = NewLoginSession {
        id: Uuid::now_v7(),
        family_hash: [1; 32],
        token_hash: [2; 32],
        client: String::new(),
    };
    C::Login {
        password_version: 1,
        session,
    }
}

#[test]
fn no_answer_leaves_before_what_it_rests_on_is_durable() {
    let mut steps = Steps::new();
    let alice = steps.registered("alice");
    let mut begun = steps.give(alice, login());
    assert!(begun.try_recv().is_err(), "a session before its row is stored");
    // The list would show a session that a crash could take back.
    let mut listed = steps.give(alice, C::Sessions);
    assert!(listed.try_recv().is_err());
    steps.complete();
    assert!(matches!(begun.try_recv(), Ok(Answer::Account(_))));
    let Ok(Answer::Account(sessions)) = listed.try_recv() else {
        panic!("the list comes with the completion")
    };
    assert!(matches!(*sessions, AccountAnswer::Sessions(all) if all.len() == 1));
    let mut again = steps.give(alice, C::Sessions);
    assert!(
        again.try_recv().is_ok(),
        "with nothing under way it comes at once"
    );
}

#[test]
fn a_name_is_claimed_before_its_user_is_answered() {
    let mut steps = Steps::new();
    let user = UserId::fresh();
    let registration = |name: &str| {
        C::Register(Box::new(Registration {
            name: Arc::from(name),
            display_name: String::new(),
            email: Some("a@example.org".into()),
            phc: Secret("x".into()),
            admin: false,
            key: None,
        }))
    };
    let mut answer = steps.give(user, registration("alice"));
    for _step in ["name", "address", "row"] {
        assert!(answer.try_recv().is_err());
        let mut meanwhile = steps.give(user, registration("alice"));
        assert!(
            matches!(meanwhile.try_recv(), Ok(Answer::Refused(_))),
            "one registration at a time"
        );
        steps.complete();
    }
    assert!(matches!(answer.try_recv(), Ok(Answer::Account(_))));
}

#[test]
fn idle_users_leave_memory_and_come_back_as_they_were() {
    let mut steps = Steps::new();
    let users: Vec<UserId> = (0..50).map(|n| steps.registered(&format!("user{n}"))).collect();
    assert_eq!(steps.metrics.cached.get(), 50);
    for _ in 0..3 {
        steps.tick(6_000);
        let mut profile = steps.give(users[0], C::Profile);
        assert!(profile.try_recv().is_ok());
    }
    steps.tick(6_000);
    assert_eq!(
        steps.metrics.cached.get(),
        1,
        "all but the one that was asked for"
    );
    let mut profile = steps.give(users[7], C::Profile);
    assert!(matches!(profile.try_recv(), Ok(Answer::Account(answer))
        if matches!(&*answer, AccountAnswer::Profile(profile) if &*profile.name == "user7")));
    steps.tick(60_000);
    assert_eq!(steps.metrics.cached.get(), 0);
    assert!(
        steps.harness.next_timer().is_none(),
        "with nobody in memory nothing ticks"
    );
}

#[test]
fn a_user_with_a_write_under_way_stays_in_memory() {
    let mut steps = Steps::new();
    let alice = steps.registered("alice");
    let mut begun = steps.give(alice, login());
    steps.tick(60_000);
    assert_eq!(steps.metrics.cached.get(), 1);
    steps.complete();
    assert!(begun.try_recv().is_ok());
    steps.tick(60_000);
    assert_eq!(steps.metrics.cached.get(), 0);
}
