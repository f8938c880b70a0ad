//! What links bring for a worker whose inbox is full: how much of it lies behind the inbox, so that the link goes on for the node's
//! other workers (docs/decisions/0014-full-workers-and-retained-answers.md). Only counted here: where it lies is the end of the
//! inbox itself, so what is for one key stays in order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use godwit_store::coordination::StartId;

/// Most requests of one node that lie behind this node's full inboxes; beyond it the link to it stands still. As many as a link may have
/// under way.
pub const LYING_REQUESTS: usize = 4_096;
/// And their bytes, one request apart.
pub const LYING_BYTES: usize = 8 * 1024 * 1024;
/// A full worker has a part of both: an eighth, more where the node has fewer workers.
pub const LANES: usize = 8;

/// What came of a request for a worker that is full.
#[derive(Debug)]
pub(crate) enum Place {
    /// It lies behind the inbox for as long as this is kept.
    Lies(Lying),
    /// Its worker has all that it may have: to be answered `unavailable`.
    Refused,
    /// All together have all that they may: the link is to stand still.
    None,
}

/// How many requests and bytes.
#[derive(Debug, Default)]
struct Count {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Count {
    fn add(&self, bytes: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether one more of so many bytes is no more than a part of what there may be. One of any size is.
    fn has_room(&self, bytes: usize, parts: usize) -> bool {
        let lying = self.requests.load(Ordering::Relaxed);
        let all = self.bytes.load(Ordering::Relaxed) + bytes;
        lying == 0 || (lying < LYING_REQUESTS / parts && all <= LYING_BYTES / parts)
    }
}

/// What lies of one node.
#[derive(Debug)]
pub(crate) struct OfNode {
    all: Count,
    by_worker: Box<[Count]>,
}

/// A request that lies; it does no longer when this is dropped.
#[derive(Debug)]
pub(crate) struct Lying {
    of: Arc<OfNode>,
    worker: usize,
    bytes: usize,
}

impl Drop for Lying {
    fn drop(&mut self) {
        self.of.all.remove(self.bytes);
        if let Some(of_worker) = self.of.by_worker.get(self.worker) {
            of_worker.remove(self.bytes);
        }
    }
}

impl OfNode {
    /// A request of so many bytes for a full worker. Only who reads the node's link calls this. What is only told is not refused.
    pub(crate) fn place(self: &Arc<Self>, worker: u16, bytes: usize, is_told: bool) -> Place {
        let worker = usize::from(worker);
        let Some(of_worker) = self.by_worker.get(worker) else {
            return Place::Refused;
        };
        if !self.all.has_room(bytes, 1) {
            return Place::None;
        }
        let parts = self.by_worker.len().clamp(1, LANES);
        if !is_told && !of_worker.has_room(bytes, parts) {
            return Place::Refused;
        }
        self.all.add(bytes);
        of_worker.add(bytes);
        Place::Lies(Lying {
            of: self.clone(),
            worker,
            bytes,
        })
    }
}

/// What lies of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    nodes: Mutex<HashMap<StartId, Arc<OfNode>>>,
    refused: AtomicU64,
}

/// What full workers did with what other nodes asked of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FullWorkers {
    /// Requests of other nodes that lie behind a full inbox now.
    pub lying: usize,
    /// Requests of other nodes that were answered `unavailable` since their worker had as many lying as it may.
    pub refused: u64,
}

impl Lanes {
    /// Of one node.
    pub(crate) fn of(&self, node: StartId, workers: u16) -> Arc<OfNode> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = nodes.get(&node) {
            return of.clone();
        }
        // Starts that are over.
        nodes.retain(|_, of| Arc::strong_count(of) > 1);
        let of = Arc::new(OfNode {
            all: Count::default(),
            by_worker: (0..workers).map(|_| Count::default()).collect(),
        });
        nodes.insert(node, of.clone());
        of
    }

    pub(crate) fn refused(&self, requests: usize) {
        self.refused.fetch_add(requests as u64, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> FullWorkers {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let lying = nodes.values().map(|of| of.all.requests.load(Ordering::Relaxed));
        FullWorkers {
            lying: lying.sum(),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn lies(of: &Arc<OfNode>, worker: u16, bytes: usize, is_told: bool) -> Lying {
        match of.place(worker, bytes, is_told) {
            Place::Lies(lying) => lying,
            other => panic!("{other:?}"),
        }
    }

    fn fill(of: &Arc<OfNode>, worker: u16, requests: usize) -> Vec<Lying> {
        let filled = (0..requests).map(|_| lies(of, worker, 1, false)).collect();
        assert!(matches!(of.place(worker, 1, false), Place::Refused | Place::None));
        filled
    }

    #[test]
    fn a_full_worker_has_its_part_and_all_full_ones_have_all() {
        let lanes = Lanes::default();
        for (workers, full) in [(1, 1), (2, 2), (8, 8), (64, 8)] {
            let of = lanes.of(Uuid::from_u128(u128::from(workers) + 1), workers);
            let mut lying = Vec::new();
            for worker in 0..full {
                lying.push(fill(&of, worker, LYING_REQUESTS / usize::from(full)));
            }
            assert!(matches!(of.place(workers - 1, 1, true), Place::None));
            lying.pop();
            assert!(
                matches!(of.place(0, 1, true), Place::Lies(_)),
                "told is not refused"
            );
            drop(lying);
            assert_eq!(lanes.counts().lying, 0);
        }
        assert_eq!(lanes.nodes.lock().expect("whole").len(), 1, "the last one's");
    }

    #[test]
    fn a_node_of_one_worker_refuses_nothing() {
        let of = Lanes::default().of(Uuid::nil(), 1);
        let large = lies(&of, 0, LYING_BYTES * 2, false);
        assert!(matches!(of.place(0, 1, false), Place::None));
        drop(large);
        let _lying: Vec<_> = (0..LYING_REQUESTS).map(|_| lies(&of, 0, 1, false)).collect();
        assert!(matches!(of.place(0, 1, false), Place::None));
    }

    #[test]
    fn bytes_are_bounded_by_worker_and_in_all_and_one_of_any_size_lies() {
        let of = Lanes::default().of(Uuid::nil(), 8);
        let large = lies(&of, 0, LYING_BYTES / 8 + 1, false);
        assert!(matches!(of.place(0, 1, false), Place::Refused));
        let other = lies(&of, 1, LYING_BYTES / 8, false);
        assert!(matches!(of.place(1, 1, false), Place::Refused));
        let told = lies(&of, 1, LYING_BYTES / 4 * 3 - 1, true);
        assert!(matches!(of.place(2, 1, false), Place::None));
        drop((large, other, told));
        drop(lies(&of, 0, LYING_BYTES + 1, true));
        assert!(matches!(of.place(0, 1, false), Place::Lies(_)));
    }
}
