//! The threads behind the committer: one loads sealed generations into the tree and watches the disk, one merges the tree.
//! Neither is ever waited for by a commit, unless the overlay is full. Not here: how a load is done (`tree`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::core::Core;
use super::journal;
use super::layout::journal_dir;
use super::queue::SealRequest;
use super::tree::TOO_MANY_RUNS;

/// How often the disk's free space is read and idleness looked at.
const TICK: Duration = Duration::from_secs(1);
/// Wait after a failed load or merge.
const PAUSE: Duration = Duration::from_millis(500);
/// Without a commit for this long the overlay is emptied, so that an idle server does not hold its memory.
const IDLE: Duration = Duration::from_secs(2);
/// Priority of merging.
const NICE: i32 = 10;
/// An overlay below this is left where it is.
const IDLE_BYTES: u64 = 256 << 10;

/// Reads the free and total bytes of the disk under the data folder.
pub(super) fn read_disk(core: &Core) {
    if let Ok(fs) = rustix::fs::statvfs(&core.data) {
        core.meters.disk_free.store(fs.f_bavail * fs.f_frsize, Relaxed);
        core.meters.disk_total.store(fs.f_blocks * fs.f_frsize, Relaxed);
    }
}

/// Loads sealed generations, oldest first, until the engine stops; when it is closed in order, until none is left.
pub(super) fn load_loop(core: &Arc<Core>) {
    let (mut commits, mut since) = (0, Instant::now());
    let mut ticked = Instant::now();
    while !core.stopping() {
        let (oldest, _) = core.oldest_sealed();
        match oldest {
            Some(generation) => match core.tree.ingest(&generation, &*core.faults) {
                Ok(()) => {
                    core.loaded(generation.segment);
                    journal::forget(&journal_dir(&core.data), generation.segment);
                    core.tree_failing.store(false, Relaxed);
                    while core.tree.runs() > TOO_MANY_RUNS && !core.stopping() {
                        core.wait_until(PAUSE, || core.stopping());
                    }
                }
                Err(e) => {
                    heal(core, &core.tree_failing, &e);
                    if core.committed_all() {
                        // Closed: what is not in the tree stays in the journal.
                        return;
                    }
                }
            },
            None if core.committed_all() => return,
            None => core.wait_until(TICK, || {
                core.stopping() || core.committed_all() || core.oldest_sealed().1 > 0
            }),
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            read_disk(core);
            let now = core.meters.commits.load(Relaxed);
            if now != commits {
                (commits, since) = (now, Instant::now());
            } else if since.elapsed() >= IDLE && core.overlay_bytes() > IDLE_BYTES {
                let (answer, _) = sync_channel(1);
                core.queue.seal(SealRequest {
                    only_if_used: true,
                    answer,
                });
                since = Instant::now();
            }
        }
    }
}

/// Merges the tree's runs whenever it has too many.
pub(super) fn merge_loop(core: &Arc<Core>) {
    // On Linux this is the thread's own. Messages come first; without the right to it, merging is only less polite.
    let _ = rustix::process::setpriority_process(None, NICE);
    while !core.stopping() {
        let merged = core.tree.merge(&*core.faults);
        if merged.is_ok() {
            core.merge_failing.store(false, Relaxed);
        }
        match merged {
            Ok(true) => core.notify(),
            Ok(false) => core.wait_until(TICK, || core.stopping()),
            Err(e) => heal(core, &core.merge_failing, &e),
        }
    }
}

/// After an error nothing is known of the tree's state in memory: it is opened anew, and what was to be done is done again
/// by the caller, who clears `failing` when that succeeds.
fn heal(core: &Core, failing: &AtomicBool, e: &crate::StoreError) {
    if !failing.swap(true, Relaxed) {
        tracing::error!(error = %e, "the tree cannot be written; trying again until the disk is back");
    }
    core.wait_until(PAUSE, || core.stopping());
    match core.tree.reopen() {
        Ok(()) => {
            core.meters.reopened.fetch_add(1, Relaxed);
        }
        Err(e) => tracing::warn!(error = %e, "the tree cannot be opened anew yet"),
    }
}
