//! How far the index is, as the feed writes it and searches read it. Holds no files.

use std::{
    collections::HashMap,
    sync::{
        Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
};

use uuid::Uuid;

use crate::shards::{Shards, Standing};

/// Conversations whose exact mark is kept in memory (about 5 MB); others are looked up in the index.
pub(crate) const MAX_MARKS: usize = 100_000;

/// No watermark is known.
const UNKNOWN: i64 = i64::MIN;

/// How current the whole index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Every message confirmed before this time (ms since 1970 UTC) can be found; `None` while the index is being
    /// built and nothing can be said yet.
    pub indexed_up_to_ms: Option<i64>,
    /// How far that is behind the time of asking, in ms; `None` as above. 0 when nothing waits.
    pub lag_ms: Option<u64>,
}

/// What the feed is doing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum FeedState {
    /// No feed has been started on this index.
    #[default]
    Stopped,
    /// Reading what was not indexed when the node stopped, or what was notified while the queue was full.
    CatchingUp,
    /// Visiting every conversation, because the index was made anew.
    Rebuilding,
    /// Following the log.
    Following,
    /// The disk or the store fails; the index answers from what it has and the feed tries again.
    Stale {
        /// What failed, for operators.
        reason: String,
    },
}

#[derive(Debug)]
pub(crate) struct Progress {
    complete: AtomicBool,
    watermark_ms: AtomicI64,
    /// The feed waits for a notification and has nothing in hand.
    pub(crate) idle: AtomicBool,
    /// Notifications were lost for want of room; the truth must be read again.
    pub(crate) overflowed: AtomicBool,
    pub(crate) counters: Counters,
    marks: RwLock<HashMap<Uuid, u64>>,
    state: Mutex<FeedState>,
    /// On a node that is one of several.
    shards: OnceLock<Shards>,
}

/// Counts since the index was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) indexed: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) lost_notifications: AtomicU64,
    pub(crate) pending: AtomicU64,
}

impl Progress {
    pub(crate) fn new(complete: bool, watermark_ms: Option<i64>) -> Self {
        Self {
            complete: AtomicBool::new(complete),
            watermark_ms: AtomicI64::new(watermark_ms.unwrap_or(UNKNOWN)),
            idle: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            counters: Counters::default(),
            marks: RwLock::default(),
            state: Mutex::default(),
            shards: OnceLock::new(),
        }
    }

    /// The index was emptied.
    pub(crate) fn restart(&self) {
        self.complete.store(false, SeqCst);
        self.watermark_ms.store(UNKNOWN, SeqCst);
        self.idle.store(false, SeqCst);
        if let Some(shards) = self.shards() {
            shards.restart();
        }
        self.marks.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn is_complete(&self) -> bool {
        match self.shards() {
            Some(shards) => shards.catching().is_empty(),
            None => self.complete.load(SeqCst),
        }
    }

    /// From now on the index is to have the conversations of some shards, of none at first.
    pub(crate) fn divide(&self, shards: u32) {
        self.shards.get_or_init(|| Shards::new(shards));
    }

    pub(crate) fn shards(&self) -> Option<&Shards> {
        self.shards.get()
    }

    pub(crate) fn standing(&self, shard: u32) -> Standing {
        match self.shards() {
            Some(shards) => shards.standing(shard),
            None if self.is_complete() => Standing::Whole,
            None => Standing::Catching,
        }
    }

    pub(crate) fn set_complete(&self) {
        self.complete.store(true, SeqCst);
    }

    pub(crate) fn watermark(&self) -> Option<i64> {
        let ms = self.watermark_ms.load(SeqCst);
        (ms != UNKNOWN).then_some(ms)
    }

    /// Never goes back: what was findable stays so.
    pub(crate) fn raise_watermark(&self, ms: i64) {
        self.watermark_ms.fetch_max(ms, SeqCst);
    }

    pub(crate) fn freshness(&self, now_ms: i64) -> Freshness {
        let up_to = match self.watermark() {
            Some(_) if self.idle.load(SeqCst) => Some(now_ms),
            watermark => watermark.map(|ms| ms.min(now_ms)),
        };
        let lag_ms = up_to.map(|ms| now_ms.saturating_sub(ms).max(0).unsigned_abs());
        Freshness {
            indexed_up_to_ms: up_to,
            lag_ms,
        }
    }

    pub(crate) fn mark(&self, conversation: Uuid) -> Option<u64> {
        self.marks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&conversation)
            .copied()
    }

    /// Takes over marks that are committed. Forgets the rest when there are too many: the index knows them too.
    pub(crate) fn publish(&self, marks: impl ExactSizeIterator<Item = (Uuid, u64)>) {
        let mut kept = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + marks.len() > MAX_MARKS {
            kept.clear();
        }
        kept.extend(marks);
    }

    pub(crate) fn forget(&self, conversation: Option<Uuid>) {
        let mut kept = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        match conversation {
            Some(conversation) => {
                kept.remove(&conversation);
            }
            None => kept.clear(),
        }
    }

    pub(crate) fn set_state(&self, state: FeedState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(crate) fn state(&self) -> FeedState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
