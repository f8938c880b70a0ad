//! The engine on ScyllaDB or Apache Cassandra. The tables and the rules are decision 0009, ownership is 0010.
//!
//! ```text
//!  submit ─▶ statements, all at once, each repeated until it is stored ─▶ order of each log ─▶ confirming read ─▶ completions
//!  read ───▶ take-ups: read, write once more, fence ──────────────────────────────────────────▶ confirming read ─▶ answer
//!            everything else: rows, then what says which of them count ──────────────────────────────────────────▶ answer
//! ```
//! * A write is stored when a QUORUM has it; it is confirmed when a QUORUM read of the view, begun after that, finds the shard still held
//!   ([`Ownership`]). One such read at a time serves everything that waits. Who was replaced is told [`Outcome::Lost`](crate::Outcome).
//! * Every plain statement may come twice: its key holds its writer's view, its content and its timestamp are fixed when it is submitted.
//! * Nothing here rests on a clock: timestamps only order what one owner writes.

mod again;
mod bind;
mod claim;
mod clock;
mod confirm;
mod coordination;
mod core;
pub mod fence;
mod keys;
mod lane;
mod line;
mod meta;
mod names;
mod order;
mod owned;
mod page;
mod read;
pub mod schema;
mod session;
mod statements;
mod take_up;
mod tls;
mod trim;
mod write;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
pub use clock::Clock;
pub use coordination::CqlCoordination;
pub use session::{Options, Replication};
pub use tls::Tls;

use self::core::Core;
use crate::StoreError;
use crate::store::{CompletionPort, Health, Ownership, Stats, Store, Submission};
use crate::types::{Batch, PortId, Read, ReadAnswer, Table, Ticket, View};

/// How long [`Store::close`] waits for what was taken before it completes it as unknown.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// The same when the engine is dropped without a word.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// The engine: a driver's session and the threads that serve it, shared by all workers.
pub struct Cql {
    core: Arc<Core>,
    start_view: AtomicU64,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
}

impl Cql {
    /// Connects, checks the schema, prepares the statements of `tables`. What the engine confirms, `ownership` decides.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if no node answers; [`StoreError::Refused`] if the schema is missing, of another version, or
    /// made for another consistency.
    pub fn open(
        options: &Options,
        tables: &[Table],
        ownership: Arc<dyn Ownership>,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("store-cql")
            .enable_all()
            .build()
            .map_err(|e| StoreError::Unavailable(format!("cannot start the store's threads: {e}")))?;
        let opened = on_a_thread(|| runtime.block_on(Core::open(options, tables, ownership)));
        let core = match opened.and_then(|opened| opened) {
            Ok(core) => Arc::new(core),
            Err(e) => {
                // The caller may be a task, which must not wait for threads.
                runtime.shutdown_background();
                return Err(e);
            }
        };
        runtime.spawn(confirm::run(core.clone()));
        Ok(Self {
            core,
            start_view: AtomicU64::new(0),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// The rows by which nodes agree on who owns what.
    pub fn coordination(&self) -> CqlCoordination {
        CqlCoordination::new(self.core.clone())
    }

    /// The generator of this start's timestamps.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// Says in which view this start became a member, for [`Store::start_view`].
    pub fn set_start_view(&self, view: View) {
        self.start_view.store(view, Relaxed);
    }

    /// Settles a fact of the whole cluster, such as a secret that all nodes share: gives what is there, or writes `value` and gives that. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not known in some seconds; [`StoreError::Misuse`] for a table that is not of facts.
    pub fn settle(&self, table: Table, key: &Bytes, value: &Bytes) -> Result<Bytes, StoreError> {
        let (core, handle) = (&self.core, &self.core.handle);
        on_a_thread(|| handle.block_on(core.settle(table, key, value)))?
    }

    /// Where the engine's tasks run; for the loop that keeps a member's row, too.
    pub fn handle(&self) -> tokio::runtime::Handle {
        self.core.handle.clone()
    }

    fn end(&self, patience: Duration) {
        self.core.room.close();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(runtime) = runtime else { return };
        let core = self.core.clone();
        let ended = on_a_thread(|| runtime.block_on(core.end(patience)));
        if let Err(e) = ended {
            tracing::error!(error = %e, "the store's threads have failed");
        }
        runtime.shutdown_background();
    }
}

impl Drop for Cql {
    fn drop(&mut self) {
        self.end(DROP_PATIENCE);
    }
}

impl Store for Cql {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.core.register(port, sink);
    }

    fn submit(&self, batch: Batch) -> Submission {
        self.core.submit(batch)
    }

    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        self.core.read(port, ticket, reads);
    }

    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        self.core.read_now(reads.to_vec())
    }

    fn totally_ordered(&self) -> bool {
        false
    }

    /// 0 until [`Cql::set_start_view`].
    fn start_view(&self) -> u64 {
        self.start_view.load(Relaxed)
    }

    fn health(&self) -> Health {
        self.core.health()
    }

    fn stats(&self) -> Stats {
        self.core.meters.stats()
    }

    fn backup(&self, _dir: &Path) -> Result<(), StoreError> {
        Err(StoreError::Refused(
            "the rows are in ScyllaDB or Cassandra: back them up with its own tools (nodetool snapshot)"
                .into(),
        ))
    }

    fn close(&self) -> Result<(), StoreError> {
        self.end(CLOSE_PATIENCE);
        Ok(())
    }
}

/// Runs it on a thread of its own, so that the caller may be one of any runtime.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, StoreError> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| StoreError::Unavailable("a thread of the store has panicked".into()))
}

/// For what happens before there is an engine.
fn in_a_runtime<T: Send>(work: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
    on_a_thread(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let failed = |e| StoreError::Unavailable(format!("cannot start a thread for the store: {e}"));
        runtime.map_err(failed)?.block_on(work)
    })?
}
