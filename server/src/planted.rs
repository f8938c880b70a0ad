//! Bugs planted on purpose, for the kill tests to find; compiled in only with the feature `planted-bugs`. But for
//! the missing sync, which is in the store's engine, they are a store that lies: it says "stored" of what it left out, or of something else.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use godwit_broker::tables::{MAILBOX, SESSION_LOG};
use godwit_ingest::CONVERSATION_LOG;
use godwit_store::embedded::{Faults, Planted};
use godwit_store::{
    Batch, Completion, CompletionPort, Head, Health, LogId, Op, Outcome, PortId, Read, ReadAnswer, Stats,
    Store, StoreError, Submission, Table, Ticket,
};
use uuid::Uuid;

use crate::ConfigError;

/// Names the bug that is to be awake.
pub(crate) const VARIABLE: &str = "GODWIT_PLANTED";
/// One in so many appends is left out.
const EVERY: u64 = 29;

/// How long what was acknowledged too early waits before it is stored: long enough for a kill to come in between.
const EARLY: Duration = Duration::from_millis(100);
/// Ports of batches that were acknowledged too early have this bit: nobody listens there.
const UNHEARD: PortId = 1 << 15;

/// What is awake.
pub(crate) enum Bug {
    /// Commits are not synced; in the engine.
    NoSync(Arc<NoSync>),
    /// In front of the engine.
    Lie(Lie),
}

/// Sleeps during the first start on a data folder, so that the world that a test makes is there to lose something.
#[derive(Default)]
pub(crate) struct NoSync(AtomicBool);

impl Faults for NoSync {
    fn planted(&self) -> Option<Planted> {
        self.0.load(Ordering::Relaxed).then_some(Planted::NoSync)
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Lie {
    /// Leaves appends to this table out: to mailboxes, what somebody is owed; to conversations, a number, which is then
    /// given again after the next start.
    LeaveOut(Table),
    /// Stores cursors of sessions' logs as if everything were acknowledged.
    ForgetCursor,
    /// Says "stored" at once, and stores later.
    AckBeforeCommit,
}

impl Bug {
    /// The one that the environment names.
    pub(crate) fn named() -> Result<Option<Self>, ConfigError> {
        let Ok(name) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        Ok(Some(match name.as_str() {
            "no-sync" => Self::NoSync(Arc::default()),
            "ack-before-commit" => Self::Lie(Lie::AckBeforeCommit),
            "skip-mailbox" => Self::Lie(Lie::LeaveOut(MAILBOX)),
            "reuse-number" => Self::Lie(Lie::LeaveOut(CONVERSATION_LOG)),
            "forget-cursor" => Self::Lie(Lie::ForgetCursor),
            other => {
                return Err(ConfigError(format!(
                    "{VARIABLE}: there is no planted bug \"{other}\""
                )));
            }
        }))
    }

    /// The engine's part.
    pub(crate) fn faults(&self) -> Option<Arc<dyn Faults>> {
        match self {
            Self::NoSync(faults) => Some(faults.clone()),
            Self::Lie(_) => None,
        }
    }

    /// The part before the engine.
    pub(crate) fn before(self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match self {
            Self::NoSync(faults) => {
                faults.0.store(store.start_view() > 1, Ordering::Relaxed);
                store
            }
            Self::Lie(lie) => Arc::new(Lying {
                late: matches!(lie, Lie::AckBeforeCommit).then(|| later(store.clone())),
                store,
                lie,
                appends: AtomicU64::new(0),
                ends: Mutex::default(),
                ports: Mutex::default(),
            }),
        }
    }
}

/// Stores what it is given, in order, each a while after it came.
fn later(store: Arc<dyn Store>) -> Sender<(Instant, Batch)> {
    let (sender, receiver) = channel::<(Instant, Batch)>();
    std::thread::spawn(move || {
        for (came, mut batch) in receiver {
            std::thread::sleep((came + EARLY).saturating_duration_since(Instant::now()));
            while let Submission::Busy(back) = store.submit(batch) {
                batch = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    sender
}

/// Hears of batches that were acknowledged long ago.
struct Unheard;

impl CompletionPort for Unheard {
    fn complete(&self, batch: &mut Vec<Completion>) {
        batch.clear();
    }
}

struct Lying {
    store: Arc<dyn Store>,
    lie: Lie,
    appends: AtomicU64,
    /// The last position of each session's log.
    ends: Mutex<HashMap<Uuid, u64>>,
    ports: Mutex<HashMap<PortId, Arc<dyn CompletionPort>>>,
    /// Where early acknowledged batches wait.
    late: Option<Sender<(Instant, Batch)>>,
}

impl Lying {
    /// Acknowledges a batch before anything was done about it; gives back what must be judged by the store.
    fn acknowledge(&self, batch: Batch) -> Option<Batch> {
        // Small rows of accounts are read again at once; it is messages that are to be lost.
        let messages = batch.ops.iter().any(|op| matches!(op, Op::Append { .. }));
        let Some(late) = self.late.as_ref().filter(|_| messages) else {
            return Some(batch);
        };
        let port = self
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&batch.port)
            .cloned();
        let written = Completion::Written {
            ticket: batch.ticket,
            outcome: Outcome::Stored,
        };
        // Its thread lives as long as this.
        let _ = late.send((
            Instant::now(),
            Batch {
                port: batch.port | UNHEARD,
                ..batch
            },
        ));
        if let Some(port) = port {
            port.complete(&mut vec![written]);
        }
        None
    }

    fn op(&self, op: Op) -> Op {
        match (self.lie, op) {
            (Lie::LeaveOut(table), Op::Append { log, .. })
                if log.table == table
                    && self.appends.fetch_add(1, Ordering::Relaxed) % EVERY == EVERY - 1 =>
            {
                nothing(log)
            }
            (Lie::ForgetCursor, Op::Append { log, view, seq, row }) if log.table == SESSION_LOG => {
                self.ends
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(log.id, seq);
                Op::Append { log, view, seq, row }
            }
            (Lie::ForgetCursor, Op::Head { log, head }) if log.table == SESSION_LOG => {
                let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                let floor = head.floor.max(ends.get(&log.id).copied().unwrap_or(0));
                Op::Head {
                    log,
                    head: Head { floor, ..head },
                }
            }
            (_, op) => op,
        }
    }
}

/// Changes nothing: of a head only what is larger counts.
fn nothing(log: LogId) -> Op {
    Op::Head {
        log,
        head: Head::default(),
    }
}

impl Store for Lying {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port, sink.clone());
        self.store.register(port | UNHEARD, Arc::new(Unheard));
        self.store.register(port, sink);
    }

    fn submit(&self, batch: Batch) -> Submission {
        let ops = batch.ops.into_iter().map(|op| self.op(op)).collect();
        match self.acknowledge(Batch { ops, ..batch }) {
            Some(batch) => self.store.submit(batch),
            None => Submission::Taken,
        }
    }

    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        self.store.read(port, ticket, reads);
    }

    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        self.store.read_now(reads)
    }

    fn totally_ordered(&self) -> bool {
        self.store.totally_ordered()
    }

    fn start_view(&self) -> u64 {
        self.store.start_view()
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn stats(&self) -> Stats {
        self.store.stats()
    }

    fn backup(&self, dir: &Path) -> Result<(), StoreError> {
        self.store.backup(dir)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.store.close()
    }
}
