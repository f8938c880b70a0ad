//! Small rows of one key: which owner's partition counts, its pages, and taking it up by a copy under the new owner's view.

use bytes::Bytes;

use super::core::{Core, Gone};
use super::names;
use super::page::{Page, Paged};
use super::session::{Bound, number, unavailable};
use super::take_up::{After, TakenUp};
use super::write::weight;
use crate::StoreError;
use crate::types::{ReadAnswer, Scope, Table, View};

/// Rows that are copied at once.
const COPY_ROWS: u32 = 500;
/// Bytes of a statement that copies: small beside what a mutation may have, so that a take-up does not hold the others up.
const COPY_BYTES: usize = 128 << 10;
/// How often a reader begins anew because the owner changed under it.
const TRIES: usize = 5;

/// Which partitions there are.
#[derive(Default)]
struct Fences {
    /// The largest that is whole: this one counts.
    whole: Option<View>,
    /// Any at all, whole or begun.
    all: Vec<View>,
}

impl Core {
    async fn fences(&self, table: Table, partition: &Bytes) -> Result<Fences, StoreError> {
        let statement = &self.tables.owned(table)?.fences;
        let rows = self.link.rows(statement, &[partition.into()]).await?;
        let mut fences = Fences::default();
        for row in rows.rows::<(i64, Option<bool>)>().map_err(|e| unavailable(&e))? {
            let (view, whole) = row.map_err(|e| unavailable(&e))?;
            let view = number(Some(view));
            fences.all.push(view);
            if whole == Some(true) {
                fences.whole = fences.whole.max(Some(view));
            }
        }
        Ok(fences)
    }

    /// Reads in the partition that counts, and again if another one counts by then: the former one may have gone in the middle.
    async fn in_owned<T, F>(
        &self,
        table: Table,
        partition: &Bytes,
        read: impl Fn(View) -> F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut whole = self.fences(table, partition).await?.whole;
        for _ in 0..TRIES {
            let Some(view) = whole else { return Ok(None) };
            let found = read(view).await?;
            whole = self.fences(table, partition).await?.whole;
            if whole == Some(view) {
                return Ok(Some(found));
            }
        }
        Err(StoreError::Unavailable("the owner changes all the time".into()))
    }

    pub(super) async fn owned_row(
        &self,
        table: Table,
        partition: &Bytes,
        name: &Bytes,
    ) -> Result<Option<Bytes>, StoreError> {
        let statement = &self.tables.owned(table)?.get;
        let key = names::key(name);
        let stored = self.in_owned(table, partition, |view| {
            let values = [partition.into(), view.into(), key.clone().into()];
            async move {
                let rows = self.link.rows(statement, &values).await?;
                let row = rows
                    .maybe_first_row::<(Option<&[u8]>,)>()
                    .map_err(|e| unavailable(&e))?;
                Ok(row.and_then(|(value,)| value).map(Bytes::copy_from_slice))
            }
        });
        let stored = stored.await?.flatten();
        Ok(stored
            .and_then(|stored| names::split(key, stored))
            .and_then(|(_, value)| value))
    }

    pub(super) async fn owned_page(
        &self,
        table: Table,
        partition: &Bytes,
        after: Option<&Bytes>,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let page = |view| self.page_of(table, partition, view, after, limit);
        Ok(self.in_owned(table, partition, page).await?.unwrap_or_default())
    }

    async fn page_of(
        &self,
        table: Table,
        partition: &Bytes,
        view: View,
        after: Option<&Bytes>,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let owned = self.tables.owned(table)?;
        let paged = Paged {
            partition: vec![partition.into(), view.into()],
            from: &owned.page_from,
            after: &owned.page_after,
            views: false,
        };
        self.page(&paged, after, None, limit).await
    }

    /// Makes the rows this owner's: a fence that says "begun", so that what an owner leaves behind that dies here is found; the copy; the fence
    /// that says "whole". What fails before the first write may be tried again; what is written is written to the end.
    pub(super) async fn take_up_rows(
        &self,
        table: Table,
        partition: &Bytes,
        scope: Scope,
    ) -> Result<TakenUp, StoreError> {
        let _alone = self.keys.lock(table.id, partition.clone()).await;
        self.still(scope)?;
        let fences = self.fences(table, partition).await?;
        let mut taken = TakenUp {
            scope,
            answer: ReadAnswer::TakenUp,
            after: None,
        };
        match fences.whole {
            Some(view) if view > scope.view => return Err(StoreError::Lost),
            Some(view) if view == scope.view => return Ok(taken),
            Some(view) => {
                self.fence_rows(table, partition, scope, false).await?;
                self.copy(table, partition, view, scope).await?;
            }
            None => {}
        }
        self.fence_rows(table, partition, scope, true).await?;
        let lower: Vec<View> = fences.all.into_iter().filter(|view| *view < scope.view).collect();
        if !lower.is_empty() {
            taken.after = Some(After::Rows {
                statements: self.forget_rows(table, partition, scope.view, &lower)?,
                scope,
            });
        }
        Ok(taken)
    }

    async fn fence_rows(
        &self,
        table: Table,
        partition: &Bytes,
        scope: Scope,
        whole: bool,
    ) -> Result<(), StoreError> {
        let statement = self.tables.owned(table)?.fence.clone();
        let values = vec![
            partition.into(),
            scope.view.into(),
            whole.into(),
            self.clock.next().into(),
        ];
        Ok(self.stored(scope, &[Bound { statement, values }]).await?)
    }

    async fn copy(
        &self,
        table: Table,
        partition: &Bytes,
        from: View,
        scope: Scope,
    ) -> Result<(), StoreError> {
        let put = &self.tables.owned(table)?.put;
        let mut after = None;
        loop {
            let (rows, more) = self
                .page_of(table, partition, from, after.as_ref(), COPY_ROWS)
                .await?;
            let (mut part, mut bytes) = (Vec::new(), 0);
            for (name, value) in &rows {
                let values = vec![
                    partition.into(),
                    scope.view.into(),
                    names::key(name).into(),
                    names::value(name, Some(value)).into(),
                    self.clock.next().into(),
                ];
                let bound = Bound {
                    statement: put.clone(),
                    values,
                };
                bytes += weight(&bound);
                part.push(bound);
                if bytes > COPY_BYTES {
                    self.stored(scope, &part).await?;
                    (part, bytes) = (Vec::new(), 0);
                }
            }
            if !part.is_empty() {
                self.stored(scope, &part).await?;
            }
            after = rows.into_iter().next_back().map(|(name, _)| name);
            if !more {
                return Ok(());
            }
        }
    }

    fn forget_rows(
        &self,
        table: Table,
        partition: &Bytes,
        view: View,
        lower: &[View],
    ) -> Result<Vec<Bound>, StoreError> {
        let owned = self.tables.owned(table)?;
        let mut all: Vec<Bound> = Vec::new();
        for lower in lower {
            let values = vec![self.clock.next().into(), partition.into(), (*lower).into()];
            let statement = owned.drop.clone();
            all.push(Bound { statement, values });
        }
        // Last: it is what says that there is something to delete.
        let values = vec![self.clock.next().into(), partition.into(), view.into()];
        let statement = owned.forget.clone();
        all.push(Bound { statement, values });
        Ok(all)
    }

    /// Deletes what lower views left, each partition by itself.
    pub(super) async fn forget(&self, scope: Scope, statements: Vec<Bound>) -> Result<(), Gone> {
        for statement in statements {
            self.stored(scope, &[statement]).await?;
        }
        Ok(())
    }
}
