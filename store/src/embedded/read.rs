//! Answers to reads: what the generations know over what the tree knows. Not here: how either keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::layout::{clustering, kind, log_pkey, split_name, table_pkey};
use super::overlay::{Generation, Known, Page, max_head};
use super::tree::Tree;
use crate::StoreError;
use crate::types::{Head, LogId, LogRow, Read, ReadAnswer, View};

/// Rows that one source is asked for at a time while an answer is put together.
const PAGE_ROWS: usize = 512;
/// Bytes that one source is asked for at a time.
const PAGE_BYTES: usize = 1 << 20;

/// All generations at one moment, newest last, and the tree.
pub(super) struct Snapshot<'a> {
    /// Taken before the tree is looked at: what was loaded in between is then found twice, never missed.
    pub(super) generations: Arc<Vec<Arc<Generation>>>,
    pub(super) tree: &'a Tree,
}

impl Snapshot<'_> {
    /// The newest value of one row.
    pub(super) fn get(&self, pkey: &[u8], rest: &[u8]) -> Result<Option<Bytes>, StoreError> {
        for generation in self.generations.iter().rev() {
            match generation.get(pkey, rest) {
                Some(Known::Value(value)) => return Ok(Some(value)),
                Some(Known::Deleted) => return Ok(None),
                None => {}
            }
        }
        self.tree.get(pkey, rest)
    }

    fn head(&self, pkey: &[u8]) -> Result<Head, StoreError> {
        let stored = self.tree.head(pkey)?.unwrap_or_default();
        Ok(self
            .generations
            .iter()
            .filter_map(|g| g.head(pkey))
            .fold(stored, max_head))
    }

    /// Hands the rows of a partition to `take` in order, until it says `false` or there are no more.
    fn scan(
        &self,
        pkey: &[u8],
        after: Option<&[u8]>,
        up_to: Option<&[u8]>,
        wanted: usize,
        mut take: impl FnMut(Vec<u8>, Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let rows = wanted.clamp(1, PAGE_ROWS) + 1;
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let mut pages = vec![self.tree.page(pkey, after.as_deref(), up_to, rows, PAGE_BYTES)?];
            // Every source is asked for the same rows, so what one has left out ends the answer of all.
            pages.extend(
                self.generations
                    .iter()
                    .map(|g| g.page(pkey, after.as_deref(), up_to, rows, PAGE_BYTES)),
            );
            let end = pages
                .iter()
                .filter(|p| p.more)
                .filter_map(|p| p.rows.last())
                .map(|(rest, _)| rest.clone())
                .min();
            for (rest, known) in newest(pages) {
                if end.as_ref().is_some_and(|end| rest > *end) {
                    break;
                }
                if let Known::Value(value) = known
                    && !take(rest, value)
                {
                    return Ok(());
                }
            }
            match end {
                Some(end) => after = Some(end),
                None => return Ok(()),
            }
        }
    }

    /// Answers one read.
    pub(super) fn answer(&self, read: &Read) -> Result<ReadAnswer, StoreError> {
        match read {
            Read::TakeUp { log, .. } => self.take_up(log),
            Read::TakeUpRows { .. } => Ok(ReadAnswer::TakenUp),
            // Taking up writes nothing here.
            Read::IfAny(read) => self.answer(read),
            Read::Log {
                log,
                after,
                up_to,
                max_rows,
                max_bytes,
            } => self.log(log, *after, *up_to, *max_rows as usize, *max_bytes as usize),
            Read::Row {
                table,
                partition,
                name,
            } => {
                let value = self.get(&table_pkey(kind::ROWS, table, partition), &clustering(name))?;
                Ok(ReadAnswer::Row(value.and_then(|v| row_value(name, v))))
            }
            Read::Rows {
                table,
                partition,
                after,
                limit,
            } => {
                let pkey = table_pkey(kind::ROWS, table, partition);
                let (rows, more) = self.named(&pkey, after.as_ref(), None, *limit, |v| {
                    split_view(v).map(|(_, v)| v)
                })?;
                Ok(ReadAnswer::Rows { rows, more })
            }
            Read::Set {
                table,
                partition,
                after,
                up_to,
                limit,
            } => {
                let pkey = table_pkey(kind::SET, table, partition);
                let (elements, more) = self.named(&pkey, after.as_ref(), up_to.as_ref(), *limit, Some)?;
                Ok(ReadAnswer::Set { elements, more })
            }
            Read::Fact { table, key } => Ok(ReadAnswer::Fact(
                self.get(&table_pkey(kind::FACTS, table, key), b"")?,
            )),
        }
    }

    fn take_up(&self, log: &LogId) -> Result<ReadAnswer, StoreError> {
        let pkey = log_pkey(log);
        let head = self.head(&pkey)?;
        let mut rows = Vec::new();
        let mut next = head.confirmed.max(head.floor);
        if next == u64::MAX {
            return Ok(ReadAnswer::TakeUp { head, rows });
        }
        self.scan(
            &pkey,
            Some(&next.to_be_bytes()),
            None,
            PAGE_ROWS,
            |rest, value| {
                let row = log_row(&rest, value).filter(|r| r.seq == next + 1);
                next += 1;
                row.map(|row| rows.push(row)).is_some()
            },
        )?;
        Ok(ReadAnswer::TakeUp { head, rows })
    }

    fn log(
        &self,
        log: &LogId,
        after: u64,
        up_to: u64,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<ReadAnswer, StoreError> {
        let pkey = log_pkey(log);
        let after = after.max(self.head(&pkey)?.floor);
        let (mut rows, mut more, mut size) = (Vec::new(), false, 0);
        if after < up_to && max_rows > 0 {
            let (from, to) = (after.to_be_bytes(), up_to.to_be_bytes());
            self.scan(&pkey, Some(&from), Some(&to), max_rows, |rest, value| {
                let Some(row) = log_row(&rest, value) else {
                    return false;
                };
                more = rows.len() >= max_rows || (size > max_bytes && !rows.is_empty());
                if more || rows.last().is_some_and(|last: &LogRow| last.seq + 1 != row.seq) {
                    return false;
                }
                size += row.row.len();
                rows.push(row);
                true
            })?;
        }
        Ok(ReadAnswer::Log { rows, more })
    }

    fn named(
        &self,
        pkey: &[u8],
        after: Option<&Bytes>,
        up_to: Option<&Bytes>,
        limit: u32,
        value_of: impl Fn(Bytes) -> Option<Bytes>,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), StoreError> {
        let limit = limit as usize;
        let (after, up_to) = (after.map(|a| clustering(a)), up_to.map(|u| clustering(u)));
        let (mut rows, mut more) = (Vec::new(), false);
        self.scan(pkey, after.as_deref(), up_to.as_deref(), limit, |rest, value| {
            more = rows.len() >= limit;
            if !more {
                let named = split_name(rest.into(), value);
                rows.extend(named.and_then(|(name, value)| Some((name, value_of(value)?))));
            }
            !more
        })?;
        Ok((rows, more))
    }
}

/// One list of many, in order; of a row that several have, what the last (newest) says.
fn newest(mut pages: Vec<Page>) -> Box<dyn Iterator<Item = (Vec<u8>, Known)>> {
    let filled = pages.iter().filter(|p| !p.rows.is_empty()).count();
    if filled <= 1 {
        let only = pages.iter().position(|p| !p.rows.is_empty()).unwrap_or(0);
        return Box::new(pages.swap_remove(only).rows.into_iter());
    }
    let merged: BTreeMap<_, _> = pages.into_iter().flat_map(|p| p.rows).collect();
    Box::new(merged.into_iter())
}

/// Takes the view off the front of a value.
pub(super) fn split_view(mut value: Bytes) -> Option<(View, Bytes)> {
    if value.len() < 8 {
        return None;
    }
    let rest = value.split_off(8);
    Some((u64::from_be_bytes(value[..].try_into().ok()?), rest))
}

/// The value of a small row by its name.
pub(super) fn row_value(name: &Bytes, value: Bytes) -> Option<Bytes> {
    let key = Bytes::copy_from_slice(&clustering(name));
    let (_, value) = split_name(key, value)?;
    split_view(value).map(|(_, value)| value)
}

fn log_row(rest: &[u8], value: Bytes) -> Option<LogRow> {
    let seq = u64::from_be_bytes(rest.try_into().ok()?);
    let (view, row) = split_view(value)?;
    Some(LogRow { seq, view, row })
}
