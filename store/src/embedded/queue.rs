//! The bounded way into the engine: what was submitted and not yet committed, and requests to the committer. Not here: what
//! the committer does with it.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::types::{Batch, Op};

/// Batches that wait at most: 64 workers with 1,024 each.
const MAX_BATCHES: usize = 65_536;
/// Bytes that wait at most; with the group being written this bounds what submissions cost in memory.
const MAX_BYTES: usize = 32 << 20;
/// Bytes of one group commit: 10 ms of a slow disk.
const MAX_GROUP: usize = 4 << 20;

/// Asks the committer to end the segment; it answers with the number of the segment that was ended.
pub(super) struct SealRequest {
    /// Not if the segment has nothing in it.
    pub(super) only_if_used: bool,
    /// Where the answer goes: the last segment that is ended.
    pub(super) answer: SyncSender<u64>,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
    seals: Vec<SealRequest>,
    closed: bool,
}

/// What the committer takes at once.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) batches: Vec<Batch>,
    pub(super) seals: Vec<SealRequest>,
    /// Nothing will come any more.
    pub(super) end: bool,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// Bytes that a batch costs while it waits and in the journal, about.
pub(super) fn cost(batch: &Batch) -> usize {
    let op_cost = |op: &Op| match op {
        Op::Append { row, .. } => 64 + row.len(),
        Op::Head { .. } => 64,
        Op::Put {
            partition,
            name,
            value,
            ..
        } => 48 + partition.len() + name.len() + value.as_ref().map_or(0, |v| v.len()),
        Op::Insert {
            partition,
            element,
            value,
            ..
        } => 40 + partition.len() + element.len() + value.len(),
        Op::Remove {
            partition, element, ..
        } => 40 + partition.len() + element.len(),
        Op::Claim { key, value, .. } => 40 + key.len() + value.len(),
    };
    64 + batch.ops.iter().map(op_cost).sum::<usize>()
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch in, or gives it back if there is no room. An empty queue takes a batch of any size.
    pub(super) fn push(&self, batch: Batch) -> Result<(), Batch> {
        let bytes = cost(&batch);
        let mut w = self.lock();
        if w.closed
            || w.batches.len() >= MAX_BATCHES
            || (w.bytes + bytes > MAX_BYTES && !w.batches.is_empty())
        {
            return Err(batch);
        }
        w.bytes += bytes;
        w.batches.push_back(batch);
        let first = w.batches.len() == 1;
        drop(w);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Asks for the end of a segment. False if the committer is gone.
    pub(super) fn seal(&self, request: SealRequest) -> bool {
        let mut w = self.lock();
        if w.closed {
            return false;
        }
        w.seals.push(request);
        drop(w);
        self.wake.notify_one();
        true
    }

    /// Takes no more from now on; what was taken is still committed.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for something to do and takes it. A seal that is only for what was used waits until the queue is empty.
    pub(super) fn take(&self) -> Taken {
        let mut w = self.lock();
        while w.batches.is_empty() && w.seals.is_empty() && !w.closed {
            w = self.wake.wait(w).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut taken, mut size) = (Taken::default(), 0);
        while size < MAX_GROUP {
            let Some(batch) = w.batches.pop_front() else { break };
            let bytes = cost(&batch);
            w.bytes -= bytes;
            size += bytes;
            taken.batches.push(batch);
        }
        let empty = w.batches.is_empty();
        let (now, later) = std::mem::take(&mut w.seals)
            .into_iter()
            .partition(|s| empty || !s.only_if_used);
        (taken.seals, w.seals) = (now, later);
        taken.end = empty && w.closed;
        taken
    }

    /// Waits, but not when the queue is closed.
    pub(super) fn pause(&self, time: Duration) {
        let w = self.lock();
        if !w.closed {
            let _unused = self.wake.wait_timeout_while(w, time, |w| !w.closed);
        }
    }
}
