//! Taking a log up: read the heads and the rows above the stored head, write the valid ones once more, then the fence; what may go
//! goes after the confirming read. What counts and what is written is said by `fence`; this is its IO.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;

use super::core::Core;
use super::fence::{self, Fence, Heads, TakeUp};
use super::line::Came;
use super::read::Limits;
use super::session::Bound;
use crate::StoreError;
use crate::types::{LogId, LogRow, Read, ReadAnswer, Scope, Table, View};

/// A take-up whose writes are done; not confirmed yet.
pub(super) struct TakenUp {
    pub(super) scope: Scope,
    pub(super) answer: ReadAnswer,
    /// To be done once it is confirmed.
    pub(super) after: Option<After>,
}

impl TakenUp {
    /// Nobody has ever stored anything there. To be confirmed, like everything that is told.
    pub(super) fn nothing(scope: Scope) -> Self {
        Self {
            scope,
            answer: ReadAnswer::Nothing,
            after: None,
        }
    }
}

/// What a confirmed take-up has to tidy up. Whatever of it is not done the next owner does.
pub(super) enum After {
    Log {
        log: LogId,
        scope: Scope,
        /// Deletes the heads of lower views.
        forget: Option<Bound>,
        cut: Option<fence::Cut>,
    },
    Rows {
        table: Table,
        partition: Bytes,
        scope: Scope,
        /// Whose copies are deleted.
        lower: Vec<View>,
    },
}

impl Core {
    /// `if_any`: only what is there, see [`Read::IfAny`].
    pub(super) async fn take_up(&self, read: &Read, if_any: bool) -> Result<TakenUp, StoreError> {
        match read {
            Read::IfAny(read) if !if_any => Box::pin(self.take_up(read, true)).await,
            Read::TakeUp { log, scope } => self.take_up_log(*log, *scope, if_any).await,
            Read::TakeUpRows {
                table,
                partition,
                scope,
            } => self.take_up_rows(*table, partition, *scope, if_any).await,
            _ => Err(StoreError::Misuse("not a take-up")),
        }
    }

    async fn take_up_log(&self, log: LogId, scope: Scope, if_any: bool) -> Result<TakenUp, StoreError> {
        let s = self.tables.log(log.table)?;
        let key = Bytes::copy_from_slice(log.id.as_bytes());
        // Two of one owner at once could find different rows.
        let _alone = self.keys.lock(log.table.id, key).await;
        self.still(scope)?;
        let heads = self.heads(s, log).await?;
        if heads.lost(scope.view) {
            return Err(StoreError::Lost);
        }
        let rows = if heads.ended() {
            Vec::new()
        } else {
            // Bounded by the head, which is stored at least once a bucket.
            let all = Limits {
                positions: usize::MAX - 1,
                bytes: usize::MAX,
            };
            self.gather(s, log, heads.read_from(), u64::MAX, all).await?.rows
        };
        if if_any && heads.lowest.is_none() && rows.is_empty() {
            return Ok(TakenUp::nothing(scope));
        }
        let taken = |rows, after| TakenUp {
            scope,
            answer: ReadAnswer::TakeUp {
                head: heads.head,
                rows,
            },
            after,
        };
        match fence::take_up(&heads, &rows, scope.view) {
            TakeUp::Lost => Err(StoreError::Lost),
            TakeUp::Here { rows, fence } => {
                if let Some(fence) = fence {
                    let again = self.fence(log, scope.view, &Heads::default(), &fence)?;
                    self.stored_soon(scope, &again).await?;
                }
                Ok(taken(rows, None))
            }
            TakeUp::Damaged { missing } => {
                // A later owner may have trimmed it between the two reads.
                self.confirms.held(scope).await?;
                if self.heads(s, log).await? != heads {
                    return Err(StoreError::Unavailable(
                        "the log changed while it was read".into(),
                    ));
                }
                Err(StoreError::Refused(format!(
                    "log {} of {} lacks position {missing}, which was stored: rows were lost; restore the keyspace from a backup",
                    log.id, log.table.name
                )))
            }
            TakeUp::Write { rows, fence } => {
                try_join_all(rows.iter().map(|row| self.once_more(log, scope, row))).await?;
                let fenced = self.fence(log, scope.view, &heads, &fence)?;
                self.stored_soon(scope, &fenced).await?;
                let forget = heads.lowest.is_some_and(|lowest| lowest < scope.view);
                let cut = fence::cut(&fence, heads.head);
                let after = (forget || cut.is_some()).then(|| After::Log {
                    log,
                    scope,
                    forget: forget.then(|| Bound {
                        statement: s.forget.clone(),
                        values: vec![self.clock.next().into(), log.id.into(), scope.view.into()],
                    }),
                    cut,
                });
                Ok(taken(rows, after))
            }
        }
    }

    async fn once_more(&self, log: LogId, scope: Scope, row: &LogRow) -> Result<(), StoreError> {
        let bound = self.append(log, row.view, row.seq, &row.row)?;
        self.stored_soon(scope, &[bound]).await
    }

    /// The owner's row of heads: the maxima of all rows, where there are any, and its fence, in one mutation.
    fn fence(&self, log: LogId, view: View, heads: &Heads, fence: &Fence) -> Result<Vec<Bound>, StoreError> {
        let s = self.tables.log(log.table)?;
        let mut all = self.head(log, view, heads.head)?;
        if heads.dropped > 0 {
            all.push(self.dropped(log, view, heads.dropped)?);
        }
        let values = vec![
            self.clock.next().into(),
            fence.encode().into(),
            log.id.into(),
            view.into(),
        ];
        let statement = s.fence.clone();
        all.push(Bound { statement, values });
        Ok(all)
    }

    /// Buckets below this number are gone. The largest counts, see [`Core::head`].
    pub(super) fn dropped(&self, log: LogId, view: View, buckets: u64) -> Result<Bound, StoreError> {
        let statement = self.tables.log(log.table)?.dropped.clone();
        let values = vec![buckets.into(), buckets.into(), log.id.into(), view.into()];
        Ok(Bound { statement, values })
    }

    /// What is left of a confirmed take-up is done behind it, or by the next owner.
    pub(super) fn tidy_later(self: &Arc<Self>, after: After) {
        match self.tidies.came(after) {
            Came::Waits => {}
            Came::Full => tracing::debug!("too much is left to tidy up: this stays for the next owner"),
            Came::Start => {
                let core = self.clone();
                self.handle.spawn(async move {
                    while let Some(after) = core.tidies.next() {
                        core.tidy(after).await;
                    }
                });
            }
        }
    }

    async fn tidy(&self, after: After) {
        let done = match after {
            After::Rows {
                table,
                partition,
                scope,
                lower,
            } => self.forget_rows(table, &partition, scope, &lower).await,
            After::Log {
                log,
                scope,
                forget,
                cut,
            } => self.tidy_log(log, scope, forget, cut).await,
        };
        if let Err(e) = done {
            tracing::debug!(error = %e, "what a former owner left stays for the next");
        }
    }

    async fn tidy_log(
        &self,
        log: LogId,
        scope: Scope,
        forget: Option<Bound>,
        cut: Option<fence::Cut>,
    ) -> Result<(), StoreError> {
        if let Some(forget) = forget {
            self.stored_soon(scope, &[forget]).await?;
        }
        let Some(cut) = cut else { return Ok(()) };
        for (bucket, intervals) in &cut.buckets {
            let mut bound = self.append(log, scope.view, 0, &intervals.encode())?;
            // Position 0 of this bucket.
            bound.values[1] = (*bucket).into();
            self.stored_soon(scope, &[bound]).await?;
        }
        let shorter = self.fence(log, scope.view, &Heads::default(), &cut.rest)?;
        self.stored_soon(scope, &shorter).await
    }
}
