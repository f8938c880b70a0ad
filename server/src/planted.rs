//! Bugs planted on purpose, for the kill tests to find; compiled in only with the feature `planted-bugs`. Those that are
//! not in the store's engine are a store that lies: it says "stored" of what it left out, or of something else.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use godwit_broker::tables::{MAILBOX, SESSION_LOG};
use godwit_ingest::CONVERSATION_LOG;
use godwit_store::embedded::{Faults, Planted};
use godwit_store::{
    Batch, CompletionPort, Head, Health, LogId, Op, PortId, Read, ReadAnswer, Stats, Store, StoreError,
    Submission, Table, Ticket,
};
use uuid::Uuid;

use crate::ConfigError;

/// Names the bug that is to be awake.
pub(crate) const VARIABLE: &str = "GODWIT_PLANTED";
/// One in so many appends is left out.
const EVERY: u64 = 29;

/// What is awake.
pub(crate) enum Bug {
    /// In the engine.
    Engine(Planted),
    /// In front of it.
    Lie(Lie),
}

#[derive(Clone, Copy)]
pub(crate) enum Lie {
    /// Leaves appends to this table out: to mailboxes, what somebody is owed; to conversations, a number, which is then
    /// given again after the next start.
    LeaveOut(Table),
    /// Stores cursors of sessions' logs as if everything were acknowledged.
    ForgetCursor,
}

impl Bug {
    /// The one that the environment names.
    pub(crate) fn named() -> Result<Option<Self>, ConfigError> {
        let Ok(name) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        Ok(Some(match name.as_str() {
            "no-sync" => Self::Engine(Planted::NoSync),
            "ack-before-commit" => Self::Engine(Planted::EarlyAck),
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
            Self::Engine(planted) => Some(Arc::new(*planted)),
            Self::Lie(_) => None,
        }
    }

    /// The part before the engine.
    pub(crate) fn before(self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match self {
            Self::Engine(_) => store,
            Self::Lie(lie) => Arc::new(Lying {
                store,
                lie,
                appends: AtomicU64::new(0),
                ends: Mutex::default(),
            }),
        }
    }
}

struct Lying {
    store: Arc<dyn Store>,
    lie: Lie,
    appends: AtomicU64,
    /// The last position of each session's log.
    ends: Mutex<HashMap<Uuid, u64>>,
}

impl Lying {
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
        self.store.register(port, sink);
    }

    fn submit(&self, batch: Batch) -> Submission {
        let ops = batch.ops.into_iter().map(|op| self.op(op)).collect();
        self.store.submit(Batch { ops, ..batch })
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
