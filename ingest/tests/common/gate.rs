//! A store that says it is busy when a test wants it to, for messages only.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use godwit_ingest::CONVERSATION_LOG;
use godwit_store::embedded::Embedded;
use godwit_store::{
    Batch, CompletionPort, Health, Op, PortId, Read, ReadAnswer, Stats, Store, StoreError, Submission, Ticket,
};

/// The embedded engine behind a gate.
pub struct Gate {
    inner: Embedded,
    /// There is no room for a batch with a row of a conversation's log.
    pub busy_for_messages: AtomicBool,
}

impl Gate {
    pub fn new(inner: Embedded) -> Self {
        Self {
            inner,
            busy_for_messages: AtomicBool::new(false),
        }
    }
}

impl Store for Gate {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.inner.register(port, sink);
    }
    fn submit(&self, batch: Batch) -> Submission {
        let is_row = |op: &Op| matches!(op, Op::Append { log, .. } if log.table == CONVERSATION_LOG);
        if self.busy_for_messages.load(Ordering::SeqCst) && batch.ops.iter().any(is_row) {
            return Submission::Busy(batch);
        }
        self.inner.submit(batch)
    }
    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        self.inner.read(port, ticket, reads);
    }
    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        self.inner.read_now(reads)
    }
    fn totally_ordered(&self) -> bool {
        self.inner.totally_ordered()
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
