//! Reads: calls from ports and threads, and every kind of read but the take-ups. Rows are read first, and what says which of them
//! count after them, so that whoever asks sees what its owner was told. Not here: pages of small rows (`page`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};

use super::core::Core;
use super::fence::{self, Fence, HeadRow, Heads};
use super::names;
use super::page::{Pace, Paged};
use super::session::{number, unavailable};
use super::statements::LogStatements;
use super::take_up::TakenUp;
use crate::StoreError;
use crate::store::Completion;
use crate::types::{Kind, LogId, LogRow, PortId, Read, ReadAnswer, Scope, Table, Ticket};

/// Calls that wait at most; a worker loop parks far fewer. Beyond it a read is answered at once, with an error that may be repeated.
const MAX_WAITING: usize = 65_536;

/// How long a take-up waits for a heartbeat: two of them.
const STAMP_PATIENCE: Duration = Duration::from_secs(1);
const STAMP_PAUSE: Duration = Duration::from_millis(5);

/// Rows of a log from one read on, before anybody has said which count.
pub(super) struct Gathered {
    /// In order of position, then view; of each position all.
    pub(super) rows: Vec<LogRow>,
    /// Whether a limit ended it.
    pub(super) cut_short: bool,
}

/// How much to read of a log.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) positions: usize,
    pub(super) bytes: usize,
}

impl Core {
    pub(super) fn read(self: &Arc<Self>, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        let core = self.clone();
        let before = self.reads_waiting.fetch_add(1, Relaxed);
        if before >= MAX_WAITING || self.ended.load(Relaxed) {
            self.reads_waiting.fetch_sub(1, Relaxed);
            let answers = Err(StoreError::Unavailable(
                "closed, or too many reads are waiting".into(),
            ));
            self.complete(port, &mut vec![Completion::Read { ticket, answers }]);
            return;
        }
        self.handle.spawn(async move {
            let answers = core.answer(reads).await;
            core.complete(port, &mut vec![Completion::Read { ticket, answers }]);
            core.reads_waiting.fetch_sub(1, Relaxed);
        });
    }

    pub(super) fn read_now(self: &Arc<Self>, reads: Vec<Read>) -> Result<Vec<ReadAnswer>, StoreError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let core = self.clone();
        self.handle.spawn(async move {
            // Who asked waits for it, or its process ends.
            let _ = answer.send(core.answer(reads).await);
        });
        answered
            .recv()
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the engine has been closed".into())))
    }

    async fn answer(self: &Arc<Self>, reads: Vec<Read>) -> Result<Vec<ReadAnswer>, StoreError> {
        if self.ended.load(Relaxed) {
            return Err(StoreError::Unavailable("the engine has been closed".into()));
        }
        let is_take_up = |read: &Read| {
            matches!(
                read,
                Read::TakeUp { .. } | Read::TakeUpRows { .. } | Read::IfAny(_)
            )
        };
        let line = if reads.iter().any(is_take_up) {
            &self.take_ups
        } else {
            &self.readers
        };
        let attempt = || async {
            if reads.iter().any(is_take_up) {
                self.stamped().await?;
            }
            let first = reads.iter().filter(|read| is_take_up(read));
            // Each to its end: none is left half written because another failed.
            let first = join_all(first.map(|read| self.take_up(read, false))).await;
            let taken = first.into_iter().collect::<Result<Vec<TakenUp>, _>>()?;
            let others = reads.iter().filter(|read| !is_take_up(read));
            let others = try_join_all(others.map(|read| self.one(read))).await?;
            Ok((taken, others))
        };
        // While the view cannot be read nothing is confirmed, but others read.
        let (mut taken, others) = line.run(attempt).await?;
        let mut others = others.into_iter();
        let mut scopes: Vec<Scope> = taken.iter().map(|t| t.scope).collect();
        scopes.dedup();
        for scope in scopes {
            self.confirms.held(scope).await?;
        }
        let mut answers = Vec::with_capacity(reads.len());
        let mut ups = taken.drain(..);
        for read in &reads {
            let answer = if is_take_up(read) {
                ups.next().map(|up: TakenUp| {
                    let (answer, after) = (up.answer, up.after);
                    if let Some(after) = after {
                        self.tidy_later(after);
                    }
                    answer
                })
            } else {
                others.next()
            };
            answers.extend(answer);
        }
        Ok(answers)
    }

    /// Waits until the stored stamp is above the timestamps that are given out next: as a rule for one heartbeat after the view has changed.
    async fn stamped(&self) -> Result<(), StoreError> {
        let until = Instant::now() + STAMP_PATIENCE;
        while self.clock.is_ahead() {
            if Instant::now() > until {
                return Err(StoreError::Unavailable(
                    "this node's heartbeat is not stored".into(),
                ));
            }
            tokio::time::sleep(STAMP_PAUSE).await;
        }
        Ok(())
    }

    async fn one(&self, read: &Read) -> Result<ReadAnswer, StoreError> {
        match read {
            Read::TakeUp { .. } | Read::TakeUpRows { .. } | Read::IfAny(_) => {
                Err(StoreError::Misuse("take-ups come first"))
            }
            Read::Log {
                log,
                after,
                up_to,
                max_rows,
                max_bytes,
            } => {
                let limits = Limits {
                    positions: (*max_rows).max(1) as usize,
                    bytes: *max_bytes as usize,
                };
                self.log(*log, *after, *up_to, limits).await
            }
            Read::Row {
                table,
                partition,
                name,
            } => Ok(ReadAnswer::Row(match table.kind {
                Kind::Owned => self.owned_row(*table, partition, name).await?,
                _ => self.row(*table, partition, name).await?,
            })),
            Read::Rows {
                table,
                partition,
                after,
                limit,
            } => {
                let (rows, more) = match table.kind {
                    Kind::Owned => self.owned_page(*table, partition, after.as_ref(), *limit).await?,
                    _ => {
                        let pages = self.tables.rows(*table)?.pages.as_ref();
                        let (from, after_it) = pages.ok_or(StoreError::Misuse("pages of a table without"))?;
                        let paged = Paged {
                            partition: vec![partition.into()],
                            from,
                            after: after_it,
                            views: true,
                        };
                        self.page(&paged, after.as_ref(), None, *limit).await?
                    }
                };
                Ok(ReadAnswer::Rows { rows, more })
            }
            Read::Set {
                table,
                partition,
                after,
                up_to,
                limit,
            } => {
                let set = self.tables.set(*table)?;
                let paged = Paged {
                    partition: vec![partition.into()],
                    from: &set.page_from,
                    after: &set.page_after,
                    views: true,
                };
                let (elements, more) = self.page(&paged, after.as_ref(), up_to.as_ref(), *limit).await?;
                Ok(ReadAnswer::Set { elements, more })
            }
            Read::Fact { table, key } => Ok(ReadAnswer::Fact(self.fact(*table, key, false).await?)),
        }
    }

    async fn row(&self, table: Table, partition: &Bytes, name: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let statement = &self.tables.rows(table)?.get;
        let key = names::key(name);
        let rows = self
            .link
            .rows(statement, &[partition.into(), key.clone().into()])
            .await?;
        let row = rows
            .maybe_first_row::<(Option<&[u8]>,)>()
            .map_err(|e| unavailable(&e))?;
        let stored = row.and_then(|(value,)| value).map(Bytes::copy_from_slice);
        Ok(stored
            .and_then(|stored| names::split(key, stored))
            .and_then(|(_, value)| value))
    }

    async fn log(
        &self,
        log: LogId,
        after: u64,
        up_to: u64,
        limits: Limits,
    ) -> Result<ReadAnswer, StoreError> {
        let s = self.tables.log(log.table)?;
        let (mut start, mut found, mut bytes) = (after, Vec::new(), 0_usize);
        loop {
            let left = Limits {
                positions: limits.positions - found.len(),
                bytes: limits.bytes.saturating_sub(bytes),
            };
            if start >= up_to {
                return Ok(ReadAnswer::Log {
                    rows: found,
                    more: false,
                });
            }
            let gathered = self.gather(s, log, start, up_to, left).await?;
            // After the rows: a row that the fence names now was there then, or the page ends before it.
            let heads = self.heads(s, log).await?;
            if heads.head.floor > start {
                found.clear();
                bytes = 0;
                start = heads.head.floor;
                continue;
            }
            let names = self.names(s, log, &heads, &gathered.rows).await?;
            let valid = fence::valid(&gathered.rows, start, |seq| names.view_at(seq));
            let progress = !valid.is_empty();
            for row in valid {
                if row.seq > up_to {
                    break;
                }
                start = row.seq;
                bytes += row.row.len();
                found.push(row);
                if found.len() >= limits.positions || bytes > limits.bytes {
                    return Ok(ReadAnswer::Log {
                        rows: found,
                        more: start < up_to,
                    });
                }
            }
            if !gathered.cut_short || !progress {
                return Ok(ReadAnswer::Log {
                    rows: found,
                    more: false,
                });
            }
        }
    }

    /// The rows of a log above `start`, bucket by bucket, until one bucket's last position is missing or a limit is reached.
    pub(super) async fn gather(
        &self,
        s: &LogStatements,
        log: LogId,
        start: u64,
        up_to: u64,
        limits: Limits,
    ) -> Result<Gathered, StoreError> {
        let mut rows: Vec<LogRow> = Vec::new();
        let (mut pace, mut bytes, mut positions) = (Pace::new(), 0, 0_usize);
        let mut at = (start, i64::MAX);
        loop {
            let bucket = fence::bucket(at.0.saturating_add(1));
            let wanted = limits.positions.saturating_sub(positions).saturating_add(1);
            let limit = pace.limit(wanted);
            let values = [
                log.id.into(),
                bucket.into(),
                at.0.into(),
                at.1.into(),
                limit.into(),
            ];
            let chunk = self.link.rows(&s.rows, &values).await?;
            let (mut came, mut size) = (0, 0);
            for row in chunk
                .rows::<(i64, i64, Option<&[u8]>)>()
                .map_err(|e| unavailable(&e))?
            {
                let (seq, view, row) = row.map_err(|e| unavailable(&e))?;
                let row = Bytes::copy_from_slice(row.unwrap_or_default());
                at = (number(Some(seq)), view);
                came += 1;
                size += row.len();
                positions += usize::from(rows.last().is_none_or(|last| last.seq != at.0));
                rows.push(LogRow {
                    seq: at.0,
                    view: number(Some(view)),
                    row,
                });
            }
            bytes += size;
            pace.came(came, size);
            let bucket_done = came < limit as usize;
            let last = rows.last().map_or(start, |row| row.seq);
            if last > up_to || (bucket_done && last < fence::bucket_end(bucket)) {
                return Ok(Gathered {
                    rows,
                    cut_short: false,
                });
            }
            if bucket_done {
                at = (last, i64::MAX);
            }
            if positions > limits.positions || (bytes > limits.bytes && positions > 1) {
                if !bucket_done {
                    // There may be more views of the last position.
                    rows.retain(|row| row.seq != last);
                }
                return Ok(Gathered {
                    rows,
                    cut_short: true,
                });
            }
        }
    }

    pub(super) async fn heads(&self, s: &LogStatements, log: LogId) -> Result<Heads, StoreError> {
        let rows = self.link.rows(&s.heads, &[log.id.into()]).await?;
        type Row<'a> = (i64, Option<i64>, Option<i64>, Option<i64>, Option<&'a [u8]>);
        let mut all = Vec::new();
        for row in rows.rows::<Row<'_>>().map_err(|e| unavailable(&e))? {
            let (view, confirmed, floor, dropped, stored) = row.map_err(|e| unavailable(&e))?;
            let unknown = || StoreError::Refused(format!("log {} has a fence of an unknown format", log.id));
            let fence = stored
                .map(|stored| Fence::decode(stored).ok_or_else(unknown))
                .transpose()?;
            all.push(HeadRow {
                view: number(Some(view)),
                confirmed: number(confirmed),
                floor: number(floor),
                dropped: number(dropped),
                fence,
            });
        }
        Ok(Heads::of(all))
    }

    /// What says to which view each of these rows belongs: the fence, and before its beginning what was cut off it.
    async fn names(
        &self,
        s: &LogStatements,
        log: LogId,
        heads: &Heads,
        rows: &[LogRow],
    ) -> Result<Fence, StoreError> {
        let Some((_, fence)) = &heads.fence else {
            let one = fence::maker(rows).map(|view| fence::Interval { view, from: 0 });
            return Ok(Fence(one.into_iter().collect()));
        };
        let mut all = Vec::new();
        let mut before = rows
            .iter()
            .map(|row| row.seq)
            .take_while(|seq| *seq <= fence.begins());
        let mut buckets: Vec<u64> = before.by_ref().map(fence::bucket).collect();
        buckets.dedup();
        for bucket in buckets {
            let found = self.link.rows(&s.cut_of, &[log.id.into(), bucket.into()]).await?;
            let row = found
                .maybe_first_row::<(Option<&[u8]>,)>()
                .map_err(|e| unavailable(&e))?;
            let cut = row.and_then(|(stored,)| stored).and_then(Fence::decode);
            all.extend(cut.unwrap_or_default().0);
        }
        all.extend(&fence.0);
        Ok(Fence(all))
    }
}
