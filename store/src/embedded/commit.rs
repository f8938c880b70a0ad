//! The committer: the one thread that writes the journal. It takes what has gathered, writes and syncs it as one record, shows it
//! to readers, completes it. After a failed write or sync it goes on in a fresh segment with the same record; nobody is
//! told anything before that one is synced. Not here: the files (`journal`), the tree (`upkeep`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::core::{Core, MAX_SEALED};
use super::encode::{push_op, view_of};
use super::faults::{Planted, is_planted};
use super::journal::Journal;
use super::layout::{clustering, kind, table_pkey};
use super::overlay::Generation;
use super::queue::SealRequest;
use super::read::split_view;
use super::record::{is_empty, new_record};
use crate::StoreError;
use crate::store::{Completion, Outcome};
use crate::types::{Batch, Op, PortId, Ticket, View};

/// First wait before a fresh segment is tried again; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Committer {
    core: Arc<Core>,
    journal: Journal,
    active: Arc<Generation>,
    /// The largest view seen; a small row of a lower one is compared with what is stored before it is written.
    high_view: View,
    done: Vec<(PortId, Ticket, Outcome)>,
    /// A batch was completed `Unknown`, because the engine was closed while the disk failed. Nothing is written any more:
    /// a later batch must not be stored without it, the segment may have had a failed write, and its successor may exist.
    dead: bool,
    /// Length of the last record, for the next one's capacity.
    usual: usize,
}

impl Committer {
    pub(super) fn new(core: Arc<Core>, journal: Journal, active: Arc<Generation>, start_view: View) -> Self {
        Self {
            core,
            journal,
            active,
            high_view: start_view,
            done: Vec::new(),
            dead: false,
            usual: 4096,
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let taken = self.core.queue.take();
            self.commit(taken.batches);
            for request in taken.seals {
                self.seal(&request);
            }
            if taken.end {
                return;
            }
        }
    }

    fn commit(&mut self, batches: Vec<Batch>) {
        let mut record = new_record(self.usual);
        for batch in batches {
            if self.needs_lookup(&batch) && !is_empty(&record) {
                // What it is compared with must be visible first.
                self.flush(std::mem::replace(&mut record, new_record(0)));
            }
            let outcome = self.decide(&mut record, &batch);
            self.done.push((batch.port, batch.ticket, outcome));
        }
        self.flush(record);
    }

    /// Encodes a batch; while what it rests on cannot be read, again and again. `Unknown` only when the engine is closed.
    fn decide(&mut self, record: &mut Vec<u8>, batch: &Batch) -> Outcome {
        let mut pause = FIRST_PAUSE;
        while !self.dead {
            let start = record.len();
            match self.encode(record, batch) {
                Ok(outcome) => {
                    self.core.look_up_failing.store(false, Relaxed);
                    return outcome;
                }
                Err(e) => {
                    record.truncate(start);
                    if !self.core.look_up_failing.swap(true, Relaxed) {
                        tracing::error!(error = %e, "what a write rests on cannot be read; trying again until it can");
                    }
                }
            }
            // What came before does not wait for it.
            self.flush(std::mem::replace(record, new_record(0)));
            if self.core.queue.is_closed() {
                self.dead = true;
            } else {
                self.core.queue.pause(pause);
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
        Outcome::Unknown
    }

    fn needs_lookup(&self, batch: &Batch) -> bool {
        batch
            .ops
            .iter()
            .any(|op| matches!(op, Op::Claim { .. }) || view_of(op).is_some_and(|v| v < self.high_view))
    }

    fn look_up(&self, pkey: &[u8], rest: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let fault = self.core.faults.look_up();
        fault.map_err(|e| StoreError::Unavailable(e.to_string()))?;
        self.core.snapshot().get(pkey, rest)
    }

    fn encode(&mut self, record: &mut Vec<u8>, batch: &Batch) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::Stored;
        for op in &batch.ops {
            match op {
                Op::Claim { table, key, value } => {
                    let found = self.look_up(&table_pkey(kind::FACTS, table, key), b"")?;
                    match found {
                        None => push_op(record, op),
                        Some(found) if found == *value => {}
                        Some(found) => outcome = Outcome::Taken(found),
                    }
                }
                Op::Put {
                    table,
                    partition,
                    name,
                    view,
                    ..
                } if *view < self.high_view => {
                    let pkey = table_pkey(kind::ROWS, table, partition);
                    let found = self.look_up(&pkey, &clustering(name))?;
                    let stored = found.and_then(|v| stored_view(name, v));
                    if stored.is_none_or(|stored| stored <= *view) {
                        push_op(record, op);
                    }
                }
                _ => push_op(record, op),
            }
            if let Some(view) = view_of(op) {
                self.high_view = self.high_view.max(view);
            }
        }
        Ok(outcome)
    }

    /// Makes the record durable and visible and completes everything in `done`.
    fn flush(&mut self, mut record: Vec<u8>) {
        if !is_empty(&record) {
            self.usual = record.len() + record.len() / 8;
            if is_planted(&*self.core.faults, Planted::EarlyAck) {
                self.complete();
            }
            let begun = Instant::now();
            if self.write(&mut record) {
                self.core
                    .meters
                    .commit(self.done.len(), record.len(), begun.elapsed());
                self.active.apply(&Bytes::from(record));
            }
        }
        if self.dead {
            for (.., outcome) in &mut self.done {
                *outcome = Outcome::Unknown;
            }
        }
        self.complete();
        self.bound_backlog();
    }

    fn complete(&mut self) {
        let mut by_port: Vec<(PortId, Vec<Completion>)> = Vec::new();
        for (port, ticket, outcome) in self.done.drain(..) {
            let list = match by_port.iter_mut().find(|(p, _)| *p == port) {
                Some((_, list)) => list,
                None => {
                    by_port.push((port, Vec::new()));
                    &mut by_port.last_mut().expect("pushed above").1
                }
            };
            list.push(Completion::Written { ticket, outcome });
        }
        for (port, mut list) in by_port {
            self.core.complete(port, &mut list);
        }
    }

    /// Writes the record to this segment, or as the first of the next. False only when the engine is closed while the
    /// disk fails, and from then on.
    fn write(&mut self, record: &mut Vec<u8>) -> bool {
        if self.dead {
            return false;
        }
        if self.journal.has_room(record.len()) {
            match self.journal.append(record) {
                Ok(()) => return true,
                Err(e) => {
                    tracing::error!(error = %e, segment = self.journal.position().segment,
                        "a write or sync of the journal failed; going on in a fresh segment");
                    self.core.journal_failing.store(true, Relaxed);
                    self.core.meters.reopened.fetch_add(1, Relaxed);
                }
            }
        }
        self.next_segment(std::slice::from_mut(record))
    }

    fn next_segment(&mut self, first: &mut [Vec<u8>]) -> bool {
        if self.dead {
            return false;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match self.journal.follow(first) {
                Ok(journal) => {
                    self.journal = journal;
                    self.active = Arc::new(Generation::new(self.journal.position().segment));
                    self.core.begin_generation(self.active.clone());
                    self.core.journal_failing.store(false, Relaxed);
                    return true;
                }
                Err(e) => {
                    if !self.core.journal_failing.swap(true, Relaxed) {
                        tracing::error!(error = %e, "cannot begin a journal segment; trying again until the disk is back");
                    }
                }
            }
            if self.core.queue.is_closed() {
                tracing::error!(
                    "closed while the journal cannot be written; the outcome of what waits is unknown"
                );
                self.dead = true;
                return false;
            }
            self.core.queue.pause(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Waits while too much is in memory alone; the queue fills meanwhile and submissions get `Busy`.
    fn bound_backlog(&self) {
        while self.core.oldest_sealed().1 > MAX_SEALED && !self.core.queue.is_closed() {
            let core = &self.core;
            core.wait_until(Duration::from_millis(100), || {
                core.oldest_sealed().1 <= MAX_SEALED
            });
        }
    }

    fn seal(&mut self, request: &SealRequest) {
        let nothing_to_end = request.only_if_used && self.journal.is_fresh();
        if !nothing_to_end && !self.next_segment(&mut []) {
            return;
        }
        // Who asked may not wait for the answer.
        let _ = request.answer.try_send(self.journal.position().segment - 1);
    }
}

fn stored_view(name: &Bytes, value: Bytes) -> Option<View> {
    let key = Bytes::copy_from_slice(&clustering(name));
    let (_, value) = super::layout::split_name(key, value)?;
    split_view(value).map(|(view, _)| view)
}
