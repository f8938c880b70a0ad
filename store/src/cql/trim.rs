//! Whole buckets of logs go once the stored floor has passed them, behind the writes and without anybody waiting. What is not done, a later
//! head or owner does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::core::Core;
use super::fence;
use super::line::{Came, Line};
use super::read::Limits;
use super::session::Bound;
use crate::StoreError;
use crate::types::{Head, LogId, Scope};

/// Logs that live and are trimmed at a time; more are left to their next head.
const AT_ONCE: usize = 32;
/// Logs that have ended and are deleted at a time: beside the living ones, not before them. A user who leaves ends many at once.
const ENDED_AT_ONCE: usize = 8;
/// Ended logs that wait at most: some 5 MiB. What is above keeps its buckets, which nobody reads.
const ENDED_WAITING: usize = 65_536;
/// Logs of which it is remembered how far they were trimmed: 3 MiB. Beyond it all are forgotten, and read again when needed.
const REMEMBERED: usize = 65_536;

pub(super) struct Trims {
    state: Mutex<State>,
    ended: Line<(Scope, LogId)>,
}

impl Default for Trims {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            ended: Line::new(ENDED_AT_ONCE, ENDED_WAITING),
        }
    }
}

#[derive(Default)]
struct State {
    /// Living logs that are being trimmed.
    busy: HashSet<LogId>,
    /// Buckets below this number are gone.
    dropped: HashMap<LogId, u64>,
}

impl Trims {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a living log is to be trimmed now.
    fn begin(&self, log: LogId, buckets: u64) -> bool {
        let mut state = self.state();
        let known = state.dropped.get(&log).is_some_and(|dropped| *dropped >= buckets);
        !known && state.busy.len() < AT_ONCE && state.busy.insert(log)
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
        if head.floor == u64::MAX {
            if self.trims.ended.came((scope, log)) == Came::Start {
                let core = self.clone();
                self.handle.spawn(async move {
                    while let Some((scope, log)) = core.trims.ended.next() {
                        stays(log, core.drop_buckets(scope, log, u64::MAX).await);
                    }
                });
            }
            return;
        }
        let buckets = head.floor / fence::BUCKET;
        if self.trims.begin(log, buckets) {
            let core = self.clone();
            self.handle.spawn(async move {
                let dropped = stays(log, core.drop_buckets(scope, log, buckets).await);
                core.trims.end(log, dropped);
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
            self.stored_soon(scope, &[Bound { statement, values }]).await?;
            bucket += 1;
            if bucket.is_multiple_of(fence::BUCKET) {
                let so_far = self.dropped(log, scope.view, bucket)?;
                self.stored_soon(scope, &[so_far]).await?;
            }
        }
        if bucket > heads.dropped && buckets != u64::MAX {
            let all = self.dropped(log, scope.view, bucket)?;
            self.stored_soon(scope, &[all]).await?;
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

/// What was dropped; what was not stays for now.
fn stays(log: LogId, dropped: Result<u64, StoreError>) -> Option<u64> {
    if let Err(e) = &dropped {
        tracing::debug!(error = %e, log = %log.id, "buckets below the floor stay for now");
    }
    dropped.ok()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::types::{Kind, Table};

    fn log(n: u128) -> LogId {
        LogId {
            table: Table {
                id: 1,
                kind: Kind::Log,
                name: "t",
            },
            id: Uuid::from_u128(n),
        }
    }

    #[test]
    fn a_living_log_is_trimmed_while_ten_thousand_ended_ones_wait() {
        let trims = Trims::default();
        for n in 0..10_000 {
            assert_ne!(trims.ended.came((Scope::default(), log(n))), Came::Full);
        }
        assert!(trims.begin(log(10_000), 1));
    }

    #[test]
    fn living_logs_are_trimmed_once_at_a_time_and_not_again_for_what_is_gone() {
        let trims = Trims::default();
        assert!(trims.begin(log(0), 2) && !trims.begin(log(0), 3));
        for n in 1..AT_ONCE as u128 {
            assert!(trims.begin(log(n), 1));
        }
        assert!(!trims.begin(log(1_000), 1), "left to its next head");
        trims.end(log(0), Some(2));
        assert!(!trims.begin(log(0), 2));
        assert!(trims.begin(log(0), 3));
    }
}
