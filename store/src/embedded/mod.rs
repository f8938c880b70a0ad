//! The embedded engine: a journal of our own, an overlay of what is in it, and a tree behind both, filled in bulk.
//!
//! ```text
//!  submit ─▶ queue ─▶ committer ─▶ journal (pwrite, fdatasync) ─▶ overlay ─▶ completions
//!                                   segment full ─▶ loader ─▶ tree ◀─ merger        reads: overlay over tree
//! ```
//! * The journal is the truth. `Stored` is said after the sync of the record that holds the batch, never before.
//! * One record is one group commit: while one is synced the next gathers. Commits have one total order.
//! * A segment (64 MiB) that is full becomes a sealed generation; the loader brings it into the tree in one step, together
//!   with the row that says so, and deletes the file. An idle engine does the same after 2 s.
//! * A torn last record is dropped at open: it was never acknowledged. Damage with valid records behind it is refused.
//! * After a failed write or sync the segment is left as it is and the same record goes first into a fresh one, as
//!   often as it takes; nobody is told before it is synced there. After a failed load or merge the tree is opened anew.
//!
//! The data folder, format 1:
//!
//! ```text
//! FORMAT            "godwit-store 1"; written last when the folder is made
//! LOCK              locked (flock) by the process that has it open
//! journal/N.seg     see `journal.rs` and `record.rs`; N from 1 without gap
//! tree/             lsm-tree 3. Keys: kind 1 │ table 2 │ length 2 │ partition │ clustering key, numbers big-endian
//!   kind 0 engine   "ingested" → segment, "start" → view
//!   kind 1 log      partition = id 16, clustering = sequence 8; value = view 8 │ row; sequence 0 = confirmed 8 │ floor 8
//!   kind 2 rows     clustering = name; value = view 8 │ value; an ended row is a tombstone
//!   kind 3 set      clustering = element; value = value
//!   kind 4 facts    partition = key, no clustering; value = value
//! ```
//! A name of 64,000 bytes or more stands as its first 63,968 and its SHA-256, and whole before the value.

mod backup;
mod commit;
mod core;
mod encode;
mod faults;
mod index;
mod journal;
mod layout;
mod overlay;
mod queue;
mod read;
mod record;
mod tree;
mod upkeep;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

pub use backup::restore;
pub use faults::{Faults, NoFaults, Planted};

use self::commit::Committer;
use self::core::Core;
use self::journal::{Journal, Position};
use self::layout::{FORMAT, journal_dir, sync_dir, tree_dir};
use self::overlay::Generation;
use self::queue::SealRequest;
use self::read::Snapshot;
use self::record::{Act, new_record, push_row};
use self::tree::{Tree, meta_pkey};
use crate::StoreError;
use crate::store::{Completion, CompletionPort, Health, Stats, Store, Submission};
use crate::types::{Batch, PortId, Read, ReadAnswer, Ticket, View};

/// Name of the engine's row with the view of the last start.
const START: &[u8] = b"start";

/// How the engine is set up.
#[derive(Clone)]
pub struct Options {
    /// Bytes of a journal segment, preallocated; twice to three times this is the most the overlay holds.
    /// Default 64 MiB; at least 64 KiB.
    pub segment_bytes: u64,
    /// Bytes of the tree's block cache. Default 32 MiB.
    pub cache_bytes: u64,
    /// For tests: what goes wrong with the disk.
    pub faults: Arc<dyn Faults>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cache_bytes: 32 << 20,
            faults: Arc::new(NoFaults),
        }
    }
}

/// Smallest segment: one that leaves room for something behind its head.
const MIN_SEGMENT: u64 = 64 << 10;

/// The engine on one data folder, which it holds alone until it is closed or dropped.
pub struct Embedded {
    core: Arc<Core>,
    start_view: View,
    threads: Mutex<Threads>,
}

/// Name of the thread without which nothing that was taken is ever completed.
const COMMITTER: &str = "store-commit";

#[derive(Default)]
struct Threads {
    committer: Option<JoinHandle<()>>,
    upkeep: Vec<JoinHandle<()>>,
    lock: Option<File>,
}

fn spawn(
    thread: &'static str,
    core: &Arc<Core>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let core = core.clone();
    let run = move || {
        // A bug must not look like success: nothing more is taken, health says so.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            core.journal_failing.store(true, Relaxed);
            core.queue.close();
            if thread == COMMITTER {
                // What it had taken would never be completed. Everything here survives a kill.
                tracing::error!(
                    "the store's committer has panicked: ending the process; nothing acknowledged is lost"
                );
                std::process::abort();
            }
            tracing::error!(
                thread,
                "a thread of the store has failed; no more writes are taken"
            );
        }
    };
    std::thread::Builder::new()
        .name(thread.into())
        .spawn(run)
        .map_err(|e| StoreError::Unavailable(format!("cannot start thread {thread}: {e}")))
}

impl Embedded {
    /// Opens the data folder `data`, making it if it is absent or empty: takes the lock, reads the journal, and
    /// makes the row of this start durable before it returns.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if another process has it, if its format is newer, or if it is damaged;
    /// [`StoreError::Unavailable`] if the disk fails.
    pub fn open(data: &Path, options: Options) -> Result<Self, StoreError> {
        layout::make_dir(data).map_err(|e| layout::io("cannot create", data, &e))?;
        let lock = layout::lock(data)?;
        let format = layout::found_format(data)?;
        if let Some(found) = format {
            layout::bring_up(data, found)?;
        }
        let segments = journal_dir(data);
        let made = std::fs::create_dir_all(&segments).and_then(|()| sync_dir(data));
        made.map_err(|e| layout::io("cannot create", &segments, &e))?;
        let tree = Tree::open(tree_dir(data), options.cache_bytes)?;
        let ingested = tree.ingested()?;
        let found = journal::read_all(&segments, ingested)?;
        if found.is_empty() && format.is_some() {
            return Err(StoreError::Refused(format!(
                "the journal in {} is missing; restore the last backup (godwit restore)",
                segments.display()
            )));
        }
        journal::forget(&segments, ingested);

        let (mut generations, mut first) = (Vec::new(), Vec::new());
        let mut before = Position {
            segment: ingested,
            ..Position::default()
        };
        for segment in found {
            before = segment.before_last();
            first = segment.records.last().cloned().into_iter().collect();
            let generation = Generation::new(segment.segment);
            segment
                .records
                .into_iter()
                .for_each(|r| generation.apply(&Bytes::from(r)));
            generations.push(Arc::new(generation));
        }
        let so_far = Snapshot {
            generations: Arc::new(generations.clone()),
            tree: &tree,
        };
        let start_view = so_far
            .get(&meta_pkey(), START)?
            .and_then(|v| v[..].try_into().ok())
            .map_or(0, u64::from_be_bytes)
            + 1;
        first.push(start_record(start_view));
        let wanted = options.segment_bytes.max(MIN_SEGMENT);
        let journal = Journal::begin(&segments, before, &mut first, wanted, options.faults.clone())
            .map_err(|e| layout::io("cannot begin a journal segment in", &segments, &e))?;
        let active = Arc::new(Generation::new(journal.position().segment));
        first.into_iter().for_each(|r| active.apply(&Bytes::from(r)));
        generations.push(active.clone());
        if format.is_none() {
            layout::write_format(data, FORMAT)?;
        }

        let core = Arc::new(Core::new(data.into(), tree, options.faults, generations));
        upkeep::read_disk(&core);
        let committer = Committer::new(core.clone(), journal, active, start_view);
        let (loader, merger) = (core.clone(), core.clone());
        let store = Self {
            core: core.clone(),
            start_view,
            threads: Mutex::default(),
        };
        // From here on an error drops `store`, which ends what was started.
        let mut threads = store.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.lock = Some(lock);
        threads.committer = Some(spawn(COMMITTER, &core, move || committer.run())?);
        threads
            .upkeep
            .push(spawn("store-load", &core, move || upkeep::load_loop(&loader))?);
        threads
            .upkeep
            .push(spawn("store-merge", &core, move || upkeep::merge_loop(&merger))?);
        drop(threads);
        Ok(store)
    }

    /// Ends the threads: orderly with everything loaded into the tree, or as soon as possible.
    fn end(&self, orderly: bool) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if orderly && threads.committer.is_some() {
            let (answer, _) = sync_channel(1);
            self.core.queue.seal(SealRequest {
                only_if_used: true,
                answer,
            });
        }
        self.core.queue.close();
        if let Some(thread) = threads.committer.take() {
            // A panic in it has ended the process.
            let _ = thread.join();
        }
        self.core.ended.store(true, Relaxed);
        self.core.notify();
        let mut upkeep = threads.upkeep.drain(..);
        if orderly
            && !self.core.tree_failing.load(Relaxed)
            && let Some(loader) = upkeep.next()
        {
            let _ = loader.join();
        }
        self.core.stop.store(true, Relaxed);
        self.core.notify();
        for thread in upkeep {
            let _ = thread.join();
        }
        threads.lock = None;
    }
}

fn start_record(view: View) -> Vec<u8> {
    let mut record = new_record(64);
    let key = |out: &mut Vec<u8>| {
        let key = meta_pkey();
        out.extend_from_slice(&key);
        key.len()
    };
    push_row(&mut record, Act::Put, key, START, &[&view.to_be_bytes()]);
    record
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Store for Embedded {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.core.register(port, sink);
    }

    fn submit(&self, batch: Batch) -> Submission {
        match self.core.queue.push(batch) {
            Ok(()) => Submission::Taken,
            Err(batch) => Submission::Busy(batch),
        }
    }

    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        let answers = self.read_now(&reads);
        self.core
            .complete(port, &mut vec![Completion::Read { ticket, answers }]);
    }

    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        let snapshot = self.core.snapshot();
        reads.iter().map(|read| snapshot.answer(read)).collect()
    }

    fn totally_ordered(&self) -> bool {
        true
    }

    fn start_view(&self) -> u64 {
        self.start_view
    }

    fn health(&self) -> Health {
        self.core.health()
    }

    fn stats(&self) -> Stats {
        self.core.stats()
    }

    fn backup(&self, dir: &Path) -> Result<(), StoreError> {
        backup::backup(&self.core, dir)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.end(true);
        Ok(())
    }
}
