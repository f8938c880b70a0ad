//! Writes: what a batch's operations are in statements. Timestamps are given here, once, in the order of submission. Not here: that each statement is
//! repeated until it is stored (`again`), and when a batch is complete (`order`, `confirm`).

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;

use super::again::Failed;
use super::confirm::Done;
use super::core::{Core, Gone};
use super::fence;
use super::names;
use super::session::{Bind, Bound};
use crate::StoreError;
use crate::store::{Outcome, Submission};
use crate::types::{Batch, Head, Kind, LogId, Op, Scope, Table, View};

/// Bytes of one mutation: a quarter of what Cassandra takes with its default segments. A batch with more for one partition lands
/// in as many parts.
const MAX_MUTATION: usize = 4 << 20;

/// One thing to be stored: statements on one partition, or a fact.
pub(super) enum Work {
    Rows(Vec<Bound>),
    Claim {
        table: Table,
        key: Bytes,
        value: Bytes,
    },
    /// A log ends for ever, in its row of heads of this view, by these timestamps.
    End {
        log: LogId,
        view: View,
        forget: i64,
        ended: i64,
    },
}

/// What a batch stores.
#[derive(Default)]
struct Works {
    first: Vec<Work>,
    /// Only when `first` is stored and confirmed: heads of logs, which may rest on rows that are stored with them (what was taken out of
    /// order, cursors); and where a log ends, its end and what leads to it. Before that, the row that ends its session might be
    /// missing, and the session would live on without what it is owed.
    last: Vec<Work>,
}

impl From<Gone> for Outcome {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Lost => Self::Lost,
            Gone::Ended => Self::Unknown,
        }
    }
}

/// Bytes that a batch costs while it is under way, about.
fn cost(batch: &Batch) -> usize {
    let of = |op: &Op| match op {
        Op::Append { row, .. } => row.len(),
        Op::Head { .. } => 0,
        Op::Put {
            partition,
            name,
            value,
            ..
        } => partition.len() + name.len() + value.as_ref().map_or(0, Bytes::len),
        Op::Insert {
            partition,
            element,
            value,
            ..
        } => partition.len() + element.len() + value.len(),
        Op::Remove {
            partition, element, ..
        } => partition.len() + element.len(),
        Op::Claim { key, value, .. } => key.len() + value.len(),
    };
    64 + batch.ops.iter().map(|op| 128 + of(op)).sum::<usize>()
}

impl Core {
    pub(super) fn submit(self: &Arc<Self>, batch: Batch) -> Submission {
        let (statements, bytes) = (batch.ops.len().max(1), cost(&batch));
        // For the time of a heartbeat after the view has changed.
        if self.clock.is_ahead() || !self.room.take(statements, bytes) {
            return Submission::Busy(batch);
        }
        let begun = Instant::now();
        let id = self
            .order
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taken(&batch);
        let works = self.encode(&batch);
        let heads = batch.ops.iter().filter_map(|op| match op {
            Op::Head { log, head } if head.floor >= fence::BUCKET => Some((*log, *head)),
            _ => None,
        });
        let done = Done {
            port: batch.port,
            ticket: batch.ticket,
            scope: batch.scope,
            outcome: Outcome::Stored,
            begun,
            statements,
            bytes,
            heads: heads.collect(),
        };
        self.handle.spawn(self.clone().write(id, works, done));
        Submission::Taken
    }

    async fn write(self: Arc<Self>, id: u64, works: Result<Works, StoreError>, mut done: Done) {
        let scope = done.scope;
        done.outcome = match works {
            Ok(works) => {
                let mut outcome = self.store_all(scope, &works.first).await;
                if outcome == Outcome::Stored && !works.last.is_empty() {
                    outcome = match self.confirms.held(scope).await {
                        Ok(()) => self.store_all(scope, &works.last).await,
                        Err(gone) => gone.into(),
                    };
                }
                outcome
            }
            Err(e) => {
                tracing::error!(error = %e, "a batch cannot be written");
                Outcome::Unknown
            }
        };
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, or a later batch of a log might be handed on first.
        self.confirms.batches(order.written(id, done));
    }

    /// `Stored`, or what is not.
    async fn store_all(&self, scope: Scope, works: &[Work]) -> Outcome {
        let outcomes = join_all(works.iter().map(|work| self.store(scope, work))).await;
        let outcomes = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(Outcome::from));
        outcomes
            .filter(|outcome| *outcome != Outcome::Stored)
            .last()
            .unwrap_or(Outcome::Stored)
    }

    async fn store(&self, scope: Scope, work: &Work) -> Result<Outcome, Gone> {
        match work {
            Work::Rows(statements) => self.stored(scope, statements).await.map(|()| Outcome::Stored),
            Work::Claim { table, key, value } => self.claim(scope, *table, key, value).await,
            Work::End {
                log,
                view,
                forget,
                ended,
            } => {
                let attempt = || self.end_log(scope, *log, *view, (*forget, *ended));
                self.until(attempt).await.map(|()| Outcome::Stored)
            }
        }
    }

    /// The statements of a batch, those of one partition of small rows or of a set together.
    fn encode(&self, batch: &Batch) -> Result<Works, StoreError> {
        let mut works: Vec<Work> = Vec::with_capacity(batch.ops.len());
        let mut last: Vec<Work> = Vec::new();
        let ends = |op: &Op| matches!(op, Op::Head { head, .. } if head.floor == u64::MAX);
        let ends = batch.ops.iter().any(ends);
        let heads_alone = batch.ops.iter().all(|op| matches!(op, Op::Head { .. }));
        // Where the statements of a partition are gathered, with their bytes.
        let mut open: Vec<((u16, View, &Bytes), usize, usize)> = Vec::new();
        for op in &batch.ops {
            let (key, statements) = match op {
                Op::Append { log, view, seq, row } => {
                    works.push(Work::Rows(vec![self.append(*log, *view, *seq, row)?]));
                    continue;
                }
                Op::Head { log, head } if head.floor == u64::MAX => {
                    last.push(Work::End {
                        log: *log,
                        view: batch.scope.view,
                        forget: self.clock.next(),
                        ended: self.clock.next(),
                    });
                    continue;
                }
                Op::Head { log, head } => {
                    let statements = self.head(*log, batch.scope.view, *head)?;
                    if !statements.is_empty() {
                        let works = if heads_alone { &mut works } else { &mut last };
                        works.push(Work::Rows(statements));
                    }
                    continue;
                }
                Op::Claim { table, key, value } => {
                    let (table, key, value) = (*table, key.clone(), value.clone());
                    works.push(Work::Claim { table, key, value });
                    continue;
                }
                Op::Put {
                    table,
                    partition,
                    name,
                    view,
                    value,
                } => {
                    let statements = self.put(*table, partition, name, *view, value.as_ref())?;
                    if table.kind == Kind::Single {
                        works.push(Work::Rows(statements));
                        continue;
                    }
                    let view = if table.kind == Kind::Owned { *view } else { 0 };
                    ((table.id, view, partition), statements)
                }
                Op::Insert {
                    table,
                    partition,
                    element,
                    value,
                } => {
                    let set = self.tables.set(*table)?;
                    let values = vec![
                        partition.into(),
                        names::key(element).into(),
                        batch.scope.view.into(),
                        names::value(element, Some(value)).into(),
                        self.clock.next().into(),
                    ];
                    let statement = set.insert.clone();
                    ((table.id, 0, partition), vec![Bound { statement, values }])
                }
                Op::Remove {
                    table,
                    partition,
                    element,
                } => {
                    let set = self.tables.set(*table)?;
                    let key = names::key(element).into();
                    let values = vec![
                        self.clock.next().into(),
                        partition.into(),
                        key,
                        batch.scope.view.into(),
                    ];
                    let statement = set.remove.clone();
                    let bound = Bound { statement, values };
                    if ends {
                        last.push(Work::Rows(vec![bound]));
                        continue;
                    }
                    ((table.id, 0, partition), vec![bound])
                }
            };
            let bytes: usize = statements.iter().map(weight).sum();
            match open.iter_mut().rev().find(|(k, ..)| *k == key) {
                Some((_, at, used)) if *used + bytes <= MAX_MUTATION => {
                    *used += bytes;
                    if let Work::Rows(gathered) = &mut works[*at] {
                        gathered.extend(statements);
                    }
                }
                _ => {
                    open.push((key, works.len(), bytes));
                    works.push(Work::Rows(statements));
                }
            }
        }
        Ok(Works { first: works, last })
    }

    pub(super) fn append(&self, log: LogId, view: View, seq: u64, row: &Bytes) -> Result<Bound, StoreError> {
        let values = vec![
            log.id.into(),
            fence::bucket(seq).into(),
            seq.into(),
            view.into(),
            row.into(),
            self.clock.next().into(),
        ];
        let statement = self.tables.log(log.table)?.append.clone();
        Ok(Bound { statement, values })
    }

    /// The maximum counts also within one owner's row, whatever comes late: so the timestamp of a number is the number.
    pub(super) fn head(&self, log: LogId, view: View, head: Head) -> Result<Vec<Bound>, StoreError> {
        let s = self.tables.log(log.table)?;
        let mut all = Vec::new();
        let mut push = |statement: &_, timestamp: Bind, number: u64| {
            all.push(Bound {
                statement: Clone::clone(statement),
                values: vec![timestamp, number.into(), log.id.into(), view.into()],
            });
        };
        if head.confirmed > 0 {
            push(&s.confirmed, head.confirmed.into(), head.confirmed);
        }
        if head.floor > 0 {
            push(&s.floor, head.floor.into(), head.floor);
        }
        Ok(all)
    }

    /// All that is known of a log that ends becomes one row that goes after a while. The timestamps are of now, larger than any position:
    /// nothing that is stored of a head comes after it.
    async fn end_log(
        &self,
        scope: Scope,
        log: LogId,
        view: View,
        (forget, ended): (i64, i64),
    ) -> Result<(), Failed> {
        self.still(scope)?;
        let again = |e: StoreError| Failed::Again(e.to_string());
        let s = self.tables.log(log.table).map_err(again)?;
        let heads = self.heads(s, log).await.map_err(again)?;
        let _permit = self.wire.acquire().await;
        let values: Vec<Bind> = vec![
            ended.into(),
            u64::MAX.into(),
            heads.head.confirmed.into(),
            heads.dropped.into(),
            log.id.into(),
            view.into(),
        ];
        let row = Bound {
            statement: s.ended.clone(),
            values,
        };
        let lower = Bound {
            statement: s.forget.clone(),
            values: vec![forget.into(), log.id.into(), view.into()],
        };
        Ok(self.link.together(&[lower, row]).await?)
    }

    fn put(
        &self,
        table: Table,
        partition: &Bytes,
        name: &Bytes,
        view: View,
        value: Option<&Bytes>,
    ) -> Result<Vec<Bound>, StoreError> {
        let (key, stored) = (names::key(name), names::value(name, value));
        if table.kind == Kind::Owned {
            let owned = self.tables.owned(table)?;
            let statement = if value.is_some() { &owned.put } else { &owned.end }.clone();
            let values = vec![
                partition.into(),
                view.into(),
                key.into(),
                stored.into(),
                self.clock.next().into(),
            ];
            return Ok(vec![Bound { statement, values }]);
        }
        let rows = self.tables.rows(table)?;
        let statement = if value.is_some() { &rows.put } else { &rows.end }.clone();
        let mut all = Vec::new();
        if value.is_none() {
            // An end goes after a while; what it ended must not come back then.
            let values = vec![
                self.clock.next().into(),
                partition.into(),
                key.clone().into(),
                view.into(),
            ];
            let statement = rows.forget.clone();
            all.push(Bound { statement, values });
        }
        let values = vec![
            partition.into(),
            key.into(),
            view.into(),
            stored.into(),
            self.clock.next().into(),
        ];
        all.push(Bound { statement, values });
        Ok(all)
    }
}

/// Bytes of a statement, about.
pub(super) fn weight(bound: &Bound) -> usize {
    let of = |bind: &Bind| match bind {
        Bind::Blob(b) => b.len(),
        _ => 16,
    };
    64 + bound.values.iter().map(of).sum::<usize>()
}
