//! A store that says it is busy when a test wants it to, for messages only; and one whose batches have no order and may be
//! there by halves, as those of the engine on CQL are when their writer dies.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use godwit_ingest::CONVERSATION_LOG;
use godwit_store::embedded::Embedded;
use godwit_store::{
    Batch, CompletionPort, Health, Op, PortId, Read, ReadAnswer, Stats, Store, StoreError, Submission, Ticket,
};

/// Whether an operation is stored.
pub type Lands = fn(&Op) -> bool;

/// The embedded engine behind a gate.
pub struct Gate {
    inner: Embedded,
    /// There is no room for a batch with a row of a conversation's log.
    pub busy_for_messages: AtomicBool,
    /// Commits have no order.
    pub unordered: AtomicBool,
    /// Of the batches of a writer that is about to die only these operations are stored, and it hears of none.
    pub torn: Mutex<Option<Lands>>,
    /// Batches of which some was stored so.
    pub landed: AtomicUsize,
    /// Take-ups of what may have been nowhere: each leaves a row.
    pub take_ups: AtomicUsize,
}

impl Gate {
    pub fn new(inner: Embedded) -> Self {
        Self {
            inner,
            busy_for_messages: AtomicBool::new(false),
            unordered: AtomicBool::new(false),
            torn: Mutex::new(None),
            landed: AtomicUsize::new(0),
            take_ups: AtomicUsize::new(0),
        }
    }

    fn has_nothing(&self, take_up: &Read, answer: &ReadAnswer) -> Result<bool, StoreError> {
        let Read::TakeUpRows { table, partition, .. } = take_up else {
            return Ok(
                matches!(answer, ReadAnswer::TakeUp { head, rows } if head.confirmed == 0 && rows.is_empty()),
            );
        };
        let rows = Read::Rows {
            table: *table,
            partition: partition.clone(),
            after: None,
            limit: 1,
        };
        let found = self.inner.read_now(&[rows])?;
        Ok(matches!(&found[..], [ReadAnswer::Rows { rows, .. }] if rows.is_empty()))
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
        if let Some(keeps) = *self.torn.lock().expect("no test panicked with it") {
            let mut batch = batch;
            batch.ops.retain(keeps);
            let landed = usize::from(!batch.ops.is_empty());
            self.landed.fetch_add(landed, Ordering::SeqCst);
            // Nobody has this port.
            batch.port = PortId::MAX;
            return self.inner.submit(batch);
        }
        self.inner.submit(batch)
    }
    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        self.inner.read(port, ticket, reads);
    }
    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        let mut answers = self.inner.read_now(reads)?;
        for (read, answer) in reads.iter().zip(&mut answers) {
            match read {
                Read::IfAny(inner) => {
                    let unordered = self.unordered.load(Ordering::SeqCst);
                    if unordered && self.has_nothing(inner, answer)? {
                        *answer = ReadAnswer::Nothing;
                    }
                }
                Read::TakeUp { .. } | Read::TakeUpRows { .. } => {
                    self.take_ups.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
        Ok(answers)
    }
    fn totally_ordered(&self) -> bool {
        self.inner.totally_ordered() && !self.unordered.load(Ordering::SeqCst)
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
