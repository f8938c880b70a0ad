//! The contract between the product and an engine, and the small blocking client that tools and tests use.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::types::{Batch, Op, PortId, Read, ReadAnswer, Scope, Ticket, View};

/// Why a store cannot be opened or a read cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine does not answer at the moment; the same call may succeed later.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The data is damaged, of a newer format, or locked by another process: a person must look.
    #[error("{0}")]
    Refused(String),
    /// The shard is another owner's, or was taken up anew: the caller drops what it knows of it.
    #[error("another node owns this by now")]
    Lost,
    /// A call broke the contract of [`Store`] (a bug of the caller).
    #[error("the store was asked for something it does not take: {0}")]
    Misuse(&'static str),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable: it survives the death of the process and loss of power.
    Stored,
    /// A [`Op::Claim`] found the key taken by this other value; nothing was written.
    Taken(Bytes),
    /// The shard is another owner's: nobody may be told anything; the caller drops what it knows of the shard.
    Lost,
    /// Nobody knows. The caller repeats the same content until it is known.
    Unknown,
}

/// What an engine hands back to a port.
#[derive(Debug)]
pub enum Completion {
    /// Of [`Store::submit`].
    Written {
        /// As given.
        ticket: Ticket,
        /// What became of it.
        outcome: Outcome,
    },
    /// Of [`Store::read`], one answer a read, in order.
    Read {
        /// As given.
        ticket: Ticket,
        /// `Err` if any of the reads failed.
        answers: Result<Vec<ReadAnswer>, StoreError>,
    },
}

/// Where completions of one port go. Implemented by the worker loop.
pub trait CompletionPort: Send + Sync {
    /// Takes completions out of `batch` (leaves it empty) and wakes the owner. Never blocks for long, never fails;
    /// what is outstanding was bounded when it was submitted.
    fn complete(&self, batch: &mut Vec<Completion>);
}

/// What [`Store::submit`] says at once.
#[derive(Debug)]
#[must_use]
pub enum Submission {
    /// Taken; exactly one completion will follow.
    Taken,
    /// The engine's queue is full; the batch is given back. Submit it again after the next completion, or in 10 ms.
    Busy(Batch),
}

/// Whether the engine can take writes, for `/readyz` and for refusing sends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Serving,
    /// Less than 5 % of the disk is free: sends are refused before the engine fails; reads and acknowledgements go on.
    LowSpace,
    /// Writes or syncs fail; submissions are kept and repeated by the engine until the disk is back.
    Failing,
}

/// Counters of an engine since its start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Group commits done.
    pub commits: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes written to the journal (or sent).
    pub bytes: u64,
    /// Sum of the times of all commits, in microseconds, from first byte to durable.
    pub commit_micros: u64,
    /// Commits by time: cumulative counts at the upper bounds of [`Stats::COMMIT_BUCKETS_MICROS`].
    pub commit_histogram: [u64; 10],
    /// Times the engine was re-opened after a failed write or sync.
    pub reopened: u64,
    /// Bytes kept in memory that are durable in the journal alone.
    pub overlay_bytes: u64,
    /// Bytes of blocks that were read and are kept for the next reader; bounded by configuration.
    pub cache_bytes: u64,
    /// Bytes free on the disk, and in all.
    pub disk: (u64, u64),
}

impl Stats {
    /// Upper bounds of the commit histogram in microseconds.
    pub const COMMIT_BUCKETS_MICROS: [u64; 10] = [
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000,
    ];
}

/// What [`Ownership::verdict`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The shard was held without interruption from the scope's view to the shown one.
    Held,
    /// It was not: nothing that is not yet confirmed ever will be.
    Lost,
    /// The shown view is not known here yet: read it, and ask again.
    Later,
}

/// Who holds which shard, as far as this node knows. A partitioned engine asks it before it completes anything: a write
/// is confirmed when a read of the view, begun after the write was completed, shows a view in which the shard is held.
pub trait Ownership: Send + Sync {
    /// Whether a read that showed view `shown` confirms what was done under `scope`. Cheap; from any thread.
    fn verdict(&self, scope: Scope, shown: View) -> Verdict;

    /// Whether this node may act at this moment: its lease has not ended. Asked after the read that confirms; what is held is
    /// completed only then, else later, by another read. Cheap; from any thread.
    fn acts(&self) -> bool {
        true
    }
}

/// An engine. It is shared by all workers; every worker has a port.
///
/// ```text
///  log:   floor        confirmed (stored head)      last row
///    ──────┼──────────────────┼───────────────────────┼────▶ seq
///   trimmed│  readable        │ TakeUp gives these    │ next append
/// ```
///
/// An engine MUST:
/// 1. complete every taken batch exactly once, `Stored` only when it is durable (synced, or at QUORUM);
/// 2. complete the batches that touch one log in the order of their submission on one port;
/// 3. show to every read begun after a `Stored` completion what that batch wrote; a read may show a submitted batch
///    before its completion only if it is already durable;
/// 4. never drop a taken batch while the process lives: a batch whose write failed is repeated until it is stored, or
///    completed `Unknown` (then the caller repeats it: the same `Append`, `Put`, `Insert` and `Claim` may come twice);
/// 5. bound what it holds: [`Submission::Busy`] at the limit, never a blocked caller;
/// 6. say `Stored`, and answer a take-up, only when the scope's shard was still held after the write or read was done
///    ([`Ownership`]; the embedded engine: one process has the lock, so it is), else [`Outcome::Lost`];
/// 7. answer [`Read::TakeUp`] with the valid rows above the stored head, dense and in order, such that no earlier
///    owner's late write can change the answer later (the embedded engine: one process has the lock, so a read does).
pub trait Store: Send + Sync {
    /// Registers port number `port`; once, before its first use.
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>);

    /// Submits writes. Never blocks.
    fn submit(&self, batch: Batch) -> Submission;

    /// Asks for reads; answered by one [`Completion::Read`] (on the embedded engine before this call returns, out of
    /// memory or by a short disk read).
    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>);

    /// Answers reads on the caller's thread, which may block. For threads that are not workers (search, tools).
    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError>;

    /// Whether all commits have one total order, so that a batch that was submitted later is never durable without
    /// all that were submitted (by anyone) and taken before it.
    fn totally_ordered(&self) -> bool;

    /// The view of this start: larger than every one before it on this data.
    fn start_view(&self) -> u64;

    /// Whether writes go through at the moment.
    fn health(&self) -> Health;

    /// Counters since the start.
    fn stats(&self) -> Stats;

    /// Writes a consistent copy of everything stored so far to the empty or absent folder `dir`, while serving.
    fn backup(&self, dir: &std::path::Path) -> Result<(), StoreError>;

    /// Completes what was taken, makes the next start quick, releases the lock. Later submissions are `Busy`.
    fn close(&self) -> Result<(), StoreError>;
}

/// A blocking client of a [`Store`] on a port of its own, for tools and tests.
pub mod blocking {
    use super::{
        Arc, Batch, Completion, CompletionPort, Mutex, Op, Outcome, PoisonError, PortId, Read, ReadAnswer,
        Receiver, Scope, Store, StoreError, Submission, mpsc,
    };

    struct Sink(Mutex<mpsc::Sender<Completion>>);

    impl CompletionPort for Sink {
        fn complete(&self, batch: &mut Vec<Completion>) {
            let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for completion in batch.drain(..) {
                // The client is gone: nobody waits for this any more.
                let _ = sender.send(completion);
            }
        }
    }

    /// The client; one call at a time.
    pub struct Client {
        store: Arc<dyn Store>,
        port: PortId,
        scope: Scope,
        receiver: Receiver<Completion>,
    }

    impl Client {
        /// Registers `port` and uses it from then on.
        pub fn new(store: Arc<dyn Store>, port: PortId) -> Self {
            let (sender, receiver) = mpsc::channel();
            store.register(port, Arc::new(Sink(Mutex::new(sender))));
            Self {
                store,
                port,
                scope: Scope::default(),
                receiver,
            }
        }

        /// Writes under this scope from now on, where an engine asks for one.
        pub fn under(mut self, scope: Scope) -> Self {
            self.scope = scope;
            self
        }

        /// Submits `ops` as one batch and waits for what becomes of it.
        pub fn write(&self, ops: Vec<Op>) -> Result<Outcome, StoreError> {
            let mut batch = Batch {
                port: self.port,
                ticket: 0,
                scope: self.scope,
                ops,
            };
            loop {
                match self.store.submit(batch) {
                    Submission::Taken => break,
                    Submission::Busy(back) => {
                        batch = back;
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                }
            }
            match self.receiver.recv() {
                Ok(Completion::Written { outcome, .. }) => Ok(outcome),
                Ok(Completion::Read { .. }) => Err(StoreError::Misuse("a read was completed for a write")),
                Err(_) => Err(StoreError::Unavailable("the engine has stopped".into())),
            }
        }

        /// Answers one read.
        pub fn read(&self, read: Read) -> Result<ReadAnswer, StoreError> {
            let mut answers = self.store.read_now(&[read])?;
            answers.pop().ok_or(StoreError::Misuse("no answer for a read"))
        }
    }
}
