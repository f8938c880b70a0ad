//! Users who are not there: asking for them writes nothing, on an engine where taking a key up leaves a row.

#![allow(clippy::unwrap_used)]

mod home;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use godwit_accounts::config::Config;
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{
    Batch, Completion, CompletionPort, Health, PortId, Read, ReadAnswer, Stats, Store, StoreError,
    Submission, Ticket,
};
use godwit_wire::account::{AccountAnswer, AccountCommand as C};
use godwit_wire::code::Code;
use godwit_wire::ids::UserId;
use home::Home;

/// Takes keys up as the engine on CQL does, and counts it.
struct Fenced {
    inner: Embedded,
    ports: Mutex<HashMap<PortId, Arc<dyn CompletionPort>>>,
    taken_up: AtomicUsize,
}

impl Fenced {
    fn is_nothing(&self, read: &Read) -> bool {
        let Read::IfAny(inner) = read else {
            let takes_up = matches!(read, Read::TakeUpRows { .. });
            self.taken_up.fetch_add(usize::from(takes_up), Ordering::SeqCst);
            return false;
        };
        let Read::TakeUpRows { table, partition, .. } = &**inner else {
            panic!("{inner:?}")
        };
        let rows = Read::Rows {
            table: *table,
            partition: partition.clone(),
            after: None,
            limit: 1,
        };
        let found = self.inner.read_now(&[rows]).unwrap();
        matches!(&found[..], [ReadAnswer::Rows { rows, .. }] if rows.is_empty())
    }
}

impl Store for Fenced {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.ports.lock().unwrap().insert(port, sink.clone());
        self.inner.register(port, sink);
    }
    fn submit(&self, batch: Batch) -> Submission {
        self.inner.submit(batch)
    }
    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        let answers = self.read_now(&reads);
        let sink = self.ports.lock().unwrap().get(&port).cloned().unwrap();
        sink.complete(&mut vec![Completion::Read { ticket, answers }]);
    }
    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        let mut answers = self.inner.read_now(reads)?;
        for (read, answer) in reads.iter().zip(&mut answers) {
            if self.is_nothing(read) {
                *answer = ReadAnswer::Nothing;
            }
        }
        Ok(answers)
    }
    fn totally_ordered(&self) -> bool {
        false
    }
    fn start_view(&self) -> u64 {
        self.inner.start_view()
    }
    fn health(&self) -> Health {
        self.inner.health()
    }
    fn stats(&self) -> Stats {
        self.inner.stats()
    }
    fn backup(&self, dir: &Path) -> Result<(), StoreError> {
        self.inner.backup(dir)
    }
    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

#[test]
fn asking_for_users_who_are_not_there_leaves_no_rows_and_one_can_register_there_later() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::default()
    };
    let store = Arc::new(Fenced {
        inner: Embedded::open(&folder.path().join("store"), options).unwrap(),
        ports: Mutex::default(),
        taken_up: AtomicUsize::new(0),
    });
    let home = Home::over(store.clone(), folder.path(), Config::default());
    let user = UserId::fresh();
    for _ in 0..3 {
        assert_eq!(home.refused(user, C::Profile), Code::NotFound);
        assert_eq!(home.refused(UserId::fresh(), C::Profile), Code::NotFound);
    }
    assert_eq!(store.taken_up.load(Ordering::SeqCst), 0);
    let registration = Box::new(Home::registration("alice"));
    let made = home.account(user, C::Register(registration));
    assert!(matches!(made, AccountAnswer::Registered(_, false)), "{made:?}");
    assert_eq!(store.taken_up.load(Ordering::SeqCst), 1);
    let profile = home.account(user, C::Profile);
    assert!(matches!(profile, AccountAnswer::Profile(_)), "{profile:?}");
    assert_eq!(store.taken_up.load(Ordering::SeqCst), 1, "it stays so");
}
