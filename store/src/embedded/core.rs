//! What the threads of the engine share: the queue, the generations, the tree, ports and meters. Not here: their work.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::faults::Faults;
use super::overlay::Generation;
use super::queue::Queue;
use super::read::Snapshot;
use super::tree::Tree;
use crate::store::{Completion, CompletionPort, Health, Stats};
use crate::types::PortId;

/// Generations that may wait for the tree. With the one being written this bounds the memory of the overlay and what a
/// start has to read again: 192 MiB of journal by default.
pub(super) const MAX_SEALED: usize = 2;

/// Counters that outlive a re-open.
#[derive(Default)]
pub(super) struct Meters {
    pub(super) commits: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) micros: AtomicU64,
    pub(super) histogram: [AtomicU64; Stats::COMMIT_BUCKETS_MICROS.len()],
    pub(super) reopened: AtomicU64,
    pub(super) disk_free: AtomicU64,
    pub(super) disk_total: AtomicU64,
}

impl Meters {
    /// Counts one group commit.
    pub(super) fn commit(&self, batches: usize, bytes: usize, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Relaxed);
        self.batches.fetch_add(batches as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
        for (count, bound) in self.histogram.iter().zip(Stats::COMMIT_BUCKETS_MICROS) {
            if micros <= bound {
                count.fetch_add(1, Relaxed);
            }
        }
    }
}

pub(super) struct Core {
    pub(super) data: PathBuf,
    pub(super) queue: Queue,
    pub(super) tree: Tree,
    pub(super) faults: Arc<dyn Faults>,
    pub(super) meters: Meters,
    /// Oldest first; the last is being written. Replaced whole, so that a reader keeps what it began with.
    generations: RwLock<Arc<Vec<Arc<Generation>>>>,
    ports: RwLock<HashMap<PortId, Arc<dyn CompletionPort>>>,
    /// Woken when a generation was sealed or loaded, and when the engine stops.
    changed: (Mutex<()>, Condvar),
    /// The journal cannot be written.
    pub(super) journal_failing: AtomicBool,
    /// The tree cannot be loaded; cleared by a load that succeeds.
    pub(super) tree_failing: AtomicBool,
    /// The tree cannot be merged; cleared by a merge that succeeds.
    pub(super) merge_failing: AtomicBool,
    /// What a write rests on cannot be read, and the committer waits for it.
    pub(super) look_up_failing: AtomicBool,
    /// The committer is done for good.
    pub(super) ended: AtomicBool,
    /// No more work is begun.
    pub(super) stop: AtomicBool,
}

impl Core {
    pub(super) fn new(
        data: PathBuf,
        tree: Tree,
        faults: Arc<dyn Faults>,
        generations: Vec<Arc<Generation>>,
    ) -> Self {
        Self {
            data,
            queue: Queue::default(),
            tree,
            faults,
            meters: Meters::default(),
            generations: RwLock::new(Arc::new(generations)),
            ports: RwLock::default(),
            changed: Default::default(),
            journal_failing: AtomicBool::new(false),
            tree_failing: AtomicBool::new(false),
            merge_failing: AtomicBool::new(false),
            look_up_failing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    pub(super) fn generations(&self) -> Arc<Vec<Arc<Generation>>> {
        self.generations
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            generations: self.generations(),
            tree: &self.tree,
        }
    }

    /// Begins a new generation; the one before it is sealed.
    pub(super) fn begin_generation(&self, generation: Arc<Generation>) {
        let mut list = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = (**list).clone();
        new.push(generation);
        *list = Arc::new(new);
        drop(list);
        self.notify();
    }

    /// The oldest generation that is sealed, and how many are.
    pub(super) fn oldest_sealed(&self) -> (Option<Arc<Generation>>, usize) {
        let list = self.generations();
        let sealed = list.len().saturating_sub(1);
        ((sealed > 0).then(|| list[0].clone()), sealed)
    }

    /// Takes a generation out that the tree has.
    pub(super) fn loaded(&self, segment: u64) {
        let mut list = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        let new = list.iter().filter(|g| g.segment != segment).cloned().collect();
        *list = Arc::new(new);
        drop(list);
        self.notify();
    }

    fn changed(&self) -> MutexGuard<'_, ()> {
        self.changed.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self) {
        let _held = self.changed();
        self.changed.1.notify_all();
    }

    /// Waits until `ready`, or for `time`.
    pub(super) fn wait_until(&self, time: Duration, mut ready: impl FnMut() -> bool) {
        let held = self.changed();
        let _unused = self.changed.1.wait_timeout_while(held, time, |()| !ready());
    }

    pub(super) fn committed_all(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.ports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port, sink);
    }

    /// Hands completions to their port.
    pub(super) fn complete(&self, port: PortId, completions: &mut Vec<Completion>) {
        let sink = self
            .ports
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&port)
            .cloned();
        match sink {
            Some(sink) => sink.complete(completions),
            None => tracing::error!(port, "completions for a port that nobody registered"),
        }
        completions.clear();
    }

    pub(super) fn overlay_bytes(&self) -> u64 {
        self.generations().iter().map(|g| g.bytes()).sum()
    }

    pub(super) fn health(&self) -> Health {
        let failing = [
            &self.journal_failing,
            &self.tree_failing,
            &self.merge_failing,
            &self.look_up_failing,
        ];
        if failing.iter().any(|flag| flag.load(Relaxed)) {
            return Health::Failing;
        }
        let (free, total) = (
            self.meters.disk_free.load(Relaxed),
            self.meters.disk_total.load(Relaxed),
        );
        // 5 %, as the contract says.
        if total > 0 && free < total / 20 {
            Health::LowSpace
        } else {
            Health::Serving
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let m = &self.meters;
        let mut commit_histogram = [0; Stats::COMMIT_BUCKETS_MICROS.len()];
        for (to, from) in commit_histogram.iter_mut().zip(&m.histogram) {
            *to = from.load(Relaxed);
        }
        Stats {
            commits: m.commits.load(Relaxed),
            batches: m.batches.load(Relaxed),
            bytes: m.bytes.load(Relaxed),
            commit_micros: m.micros.load(Relaxed),
            commit_histogram,
            reopened: m.reopened.load(Relaxed),
            overlay_bytes: self.overlay_bytes(),
            cache_bytes: self.tree.cached_bytes(),
            disk: (m.disk_free.load(Relaxed), m.disk_total.load(Relaxed)),
        }
    }
}
