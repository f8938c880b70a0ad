//! What the tests of the CQL engine share: one Cassandra of the test process, engines on one keyspace of it, ownership by decree.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use godwit_cassandra::Cluster;
use godwit_store::cql::{Cql, Options, Replication, schema};
use godwit_store::testsuite::tables;
use godwit_store::{Ownership, Scope, Store, Table, Verdict, View};
use uuid::Uuid;

/// How long anything may take that waits for the store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TABLES: [Table; 6] = [
    tables::LOG,
    tables::ROWS,
    tables::OWNED,
    tables::SINGLE,
    tables::SET,
    tables::FACTS,
];

/// The Cassandra of this test process, started by whoever asks first.
pub(crate) fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<&'static Cluster> = OnceLock::new();
    SHARED.get_or_init(|| wait(Cluster::shared()).expect("Cassandra starts"))
}

/// Waits for what the cluster is asked for.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// The tests' keyspace, fresh for each process, with its schema made.
pub(crate) fn options() -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(|| {
        let options = options_of("test");
        schema::create(&options, &TABLES).expect("the schema is made");
        options
    })
}

pub(crate) fn options_of(name: &str) -> Options {
    let nodes = cluster().contact_points().iter().map(ToString::to_string);
    let mut options = Options::new(nodes.collect());
    options.keyspace = format!("{name}_{:08x}", Uuid::new_v4().as_fields().0);
    options.replication = Replication::Simple(cluster().contact_points().len().min(3) as u8);
    options
}

/// Views below this number have lost what they had.
#[derive(Default)]
pub(crate) struct LostBelow(pub(crate) AtomicU64);

impl LostBelow {
    pub(crate) fn set(&self, view: View) {
        self.0.store(view, SeqCst);
    }
}

impl Ownership for LostBelow {
    fn verdict(&self, scope: Scope, _shown: View) -> Verdict {
        if scope.view < self.0.load(SeqCst) {
            Verdict::Lost
        } else {
            Verdict::Held
        }
    }
}

/// An engine on the tests' keyspace.
pub(crate) fn engine(ownership: Arc<dyn Ownership>) -> Arc<Cql> {
    Arc::new(Cql::open(options(), &TABLES, ownership).expect("opened"))
}

pub(crate) fn always() -> Arc<dyn Ownership> {
    Arc::new(LostBelow::default())
}

/// The same, as tests of the contract want it.
pub(crate) fn store() -> Arc<dyn Store> {
    engine(always())
}

/// A number that no other test uses, for a log of its own.
pub(crate) fn fresh() -> u128 {
    Uuid::new_v4().as_u128()
}

pub(crate) fn bytes(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}
