//! Whole buckets of logs go once the stored floor has passed them, behind the writes and without anybody waiting. What is not done, a later
//! head or owner does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::core::Core;
use super::fence;
use super::read::Limits;
use super::session::Bound;
use crate::StoreError;
use crate::types::{Head, LogId, Scope};

/// Logs that are trimmed at a time; more are left to their next head, or wait if they have ended and have none.
const AT_ONCE: usize = 32;
/// Ended logs that wait at most: 16 MiB of tasks. What is above keeps its buckets, which nobody reads.
const ENDED_WAITING: usize = 65_536;
/// Logs of which it is remembered how far they were trimmed: 3 MiB. Beyond it all are forgotten, and read again when needed.
const REMEMBERED: usize = 65_536;

pub(super) struct Trims {
    state: Mutex<State>,
    turns: Semaphore,
}

impl Default for Trims {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

#[derive(Default)]
struct State {
    busy: HashSet<LogId>,
    /// Buckets below this number are gone.
    dropped: HashMap<LogId, u64>,
}

impl Trims {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, log: LogId, buckets: u64) -> bool {
        let mut state = self.state();
        let known = state.dropped.get(&log).is_some_and(|dropped| *dropped >= buckets);
        let most = if buckets == u64::MAX {
            ENDED_WAITING
        } else {
            AT_ONCE
        };
        !known && state.busy.len() < most && state.busy.insert(log)
    }

    fn end(&self, log: LogId, dropped: Option<u64>) {
        let mut state = self.state();
        state.busy.remove(&log);
        if let Some(dropped) = dropped {
            if state.dropped.len() >= REMEMBERED {
                state.dropped.clear();
            }
            state.dropped.insert(log, dropped);
        }
    }
}

impl Core {
    /// A head was stored and confirmed whose floor is at least a bucket.
    pub(super) fn trim(self: &Arc<Self>, scope: Scope, log: LogId, head: Head) {
        let buckets = if head.floor == u64::MAX {
            u64::MAX
        } else {
            head.floor / fence::BUCKET
        };
        if self.trims.begin(log, buckets) {
            let core = self.clone();
            self.handle.spawn(async move {
                // Never closed.
                let _turn = core.trims.turns.acquire().await;
                let dropped = core.drop_buckets(scope, log, buckets).await;
                if let Err(e) = &dropped {
                    tracing::debug!(error = %e, log = %log.id, "buckets below the floor stay for now");
                }
                core.trims.end(log, dropped.ok());
            });
        }
    }

    async fn drop_buckets(&self, scope: Scope, log: LogId, buckets: u64) -> Result<u64, StoreError> {
        let s = self.tables.log(log.table)?;
        let heads = self.heads(s, log).await?;
        let mut bucket = heads.dropped;
        while bucket < buckets {
            if buckets == u64::MAX
                && !self.has_rows(log, bucket).await?
                && fence::bucket_end(bucket) > heads.head.confirmed
            {
                break;
            }
            let values = vec![self.clock.next().into(), log.id.into(), bucket.into()];
            let statement = s.drop.clone();
            self.stored(scope, &[Bound { statement, values }]).await?;
            bucket += 1;
            if bucket.is_multiple_of(fence::BUCKET) {
                let so_far = self.dropped(log, scope.view, bucket)?;
                self.stored(scope, &[so_far]).await?;
            }
        }
        if bucket > heads.dropped && buckets != u64::MAX {
            let all = self.dropped(log, scope.view, bucket)?;
            self.stored(scope, &[all]).await?;
        }
        Ok(buckets)
    }

    async fn has_rows(&self, log: LogId, bucket: u64) -> Result<bool, StoreError> {
        let s = self.tables.log(log.table)?;
        let one = Limits {
            positions: 1,
            bytes: 1,
        };
        let before = bucket * fence::BUCKET;
        Ok(!self
            .gather(s, log, before, fence::bucket_end(bucket), one)
            .await?
            .rows
            .is_empty())
    }
}
