//! Small rows of one key: which owner's partition counts, its pages, and taking it up by a copy under the new owner's view.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::core::Core;
use super::names;
use super::page::{Page, Paged, Taken};
use super::session::{Bound, number, unavailable};
use super::take_up::{After, TakenUp};
use super::write::weight;
use crate::StoreError;
use crate::types::{ReadAnswer, Scope, Table, View};

/// Rows that are copied at once.
const COPY_ROWS: u32 = 500;
/// Bytes of a statement that copies: small beside what a mutation may have, so that a take-up does not hold the others up.
const COPY_BYTES: usize = 128 << 10;
/// How often reading begins anew because the owner, or the rows, changed under it.
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
        let taken = self.in_owned(table, partition, page).await?;
        Ok(taken.unwrap_or_default().page)
    }

    async fn page_of(
        &self,
        table: Table,
        partition: &Bytes,
        view: View,
        after: Option<&Bytes>,
        limit: u32,
    ) -> Result<Taken, StoreError> {
        let owned = self.tables.owned(table)?;
        let paged = Paged {
            partition: vec![partition.into(), view.into()],
            from: &owned.page_from,
            after: &owned.page_after,
            views: false,
        };
        self.take_page(&paged, after, None, limit).await
    }

    /// Makes the rows this owner's: a fence that says "begun", so that what an owner leaves behind that dies here is found; the copy; the fence
    /// that says "whole". What fails before that may be tried again.
    pub(super) async fn take_up_rows(
        &self,
        table: Table,
        partition: &Bytes,
        scope: Scope,
        if_any: bool,
    ) -> Result<TakenUp, StoreError> {
        let _alone = self.keys.lock(table.id, partition.clone()).await;
        self.still(scope)?;
        let fences = self.fences(table, partition).await?;
        if if_any && fences.all.is_empty() {
            return Ok(TakenUp::nothing(scope));
        }
        match fences.whole {
            Some(view) if view > scope.view => return Err(StoreError::Lost),
            Some(view) if view < scope.view => {
                self.fence_rows(table, partition, scope, false).await?;
                if fences.all.contains(&scope.view) {
                    self.drop_rows(table, partition, scope, scope.view).await?;
                }
                self.copy_whole(table, partition, view, scope).await?;
            }
            _ => {}
        }
        // Also when it was whole before: this read may have found a write of it that never reached a QUORUM.
        self.fence_rows(table, partition, scope, true).await?;
        let lower: Vec<View> = fences.all.into_iter().filter(|view| *view < scope.view).collect();
        let after = (!lower.is_empty()).then(|| After::Rows {
            table,
            partition: partition.clone(),
            scope,
            lower,
        });
        Ok(TakenUp {
            scope,
            answer: ReadAnswer::TakenUp,
            after,
        })
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
        self.stored_soon(scope, &[Bound { statement, values }]).await
    }

    /// Copies the rows as they were at one moment: a former owner's last write may land while they are read, and is then in the copy as a whole
    /// or not at all. What came by one statement is of one moment; else they are read again, and copied again if they changed.
    async fn copy_whole(
        &self,
        table: Table,
        partition: &Bytes,
        from: View,
        scope: Scope,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let (digest, statements) = self.copy(table, partition, from, Some(scope)).await?;
            if statements <= 1 || self.copy(table, partition, from, None).await?.0 == digest {
                return Ok(());
            }
            self.drop_rows(table, partition, scope, scope.view).await?;
        }
        Err(StoreError::Unavailable(
            "rows change while they are taken up".into(),
        ))
    }

    /// Copies the rows, or with no scope only reads them; the digest and the number of statements that it took.
    async fn copy(
        &self,
        table: Table,
        partition: &Bytes,
        from: View,
        to: Option<Scope>,
    ) -> Result<(u128, usize), StoreError> {
        let put = &self.tables.owned(table)?.put;
        let (mut after, mut digest, mut statements) = (None, Xxh3::new(), 0);
        loop {
            let taken = self
                .page_of(table, partition, from, after.as_ref(), COPY_ROWS)
                .await?;
            statements += taken.statements;
            let (rows, more) = taken.page;
            let (mut part, mut bytes) = (Vec::new(), 0);
            for (name, value) in &rows {
                for part in [name, value] {
                    digest.update(&part.len().to_le_bytes());
                    digest.update(part);
                }
                let Some(scope) = to else { continue };
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
                    self.stored_soon(scope, &part).await?;
                    (part, bytes) = (Vec::new(), 0);
                }
            }
            if let Some(scope) = to
                && !part.is_empty()
            {
                self.stored_soon(scope, &part).await?;
            }
            after = rows.into_iter().next_back().map(|(name, _)| name);
            if !more {
                return Ok((digest.digest128(), statements));
            }
        }
    }

    async fn drop_rows(
        &self,
        table: Table,
        partition: &Bytes,
        scope: Scope,
        view: View,
    ) -> Result<(), StoreError> {
        let statement = self.tables.owned(table)?.drop.clone();
        let values = vec![self.clock.next().into(), partition.into(), view.into()];
        self.stored_soon(scope, &[Bound { statement, values }]).await
    }

    /// Deletes what lower views left, then what says that there is something to delete.
    pub(super) async fn forget_rows(
        &self,
        table: Table,
        partition: &Bytes,
        scope: Scope,
        lower: &[View],
    ) -> Result<(), StoreError> {
        for view in lower {
            self.drop_rows(table, partition, scope, *view).await?;
        }
        let statement = self.tables.owned(table)?.forget.clone();
        let values = vec![self.clock.next().into(), partition.into(), scope.view.into()];
        self.stored_soon(scope, &[Bound { statement, values }]).await
    }
}
