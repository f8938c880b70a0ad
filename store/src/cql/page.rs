//! Pages of small rows and of sets: rows of several views beside each other, of which the highest counts, and ends that are left out.
//! Reading goes on by key, never by a state of the server. Not here: which partition is read.

use bytes::Bytes;
use scylla::statement::prepared::PreparedStatement;

use super::core::Core;
use super::names;
use super::session::{Bind, unavailable};
use crate::StoreError;

/// Rows of the first statement of a page, before it is known how large they are.
const FIRST_CHUNK: usize = 100;
/// And the most of any.
const LAST_CHUNK: usize = 2_000;
/// Bytes that one statement should bring, about.
const CHUNK_BYTES: usize = 1 << 20;

/// How many rows the next statement asks for.
pub(super) struct Pace(usize);

impl Pace {
    pub(super) fn new() -> Self {
        Self(FIRST_CHUNK)
    }

    /// The next limit, of `wanted` rows.
    pub(super) fn limit(&self, wanted: usize) -> i32 {
        self.0.min(wanted).clamp(1, LAST_CHUNK) as i32
    }

    pub(super) fn came(&mut self, rows: usize, bytes: usize) {
        if let Some(each) = bytes.checked_div(rows) {
            self.0 = (CHUNK_BYTES / (each + 1)).clamp(8, LAST_CHUNK);
        }
    }
}

/// A partition that is read in pages.
pub(super) struct Paged<'a> {
    /// What stands before the name in both statements.
    pub(super) partition: Vec<Bind>,
    /// Names from this one on.
    pub(super) from: &'a PreparedStatement,
    /// Names, or names and views, after these.
    pub(super) after: &'a PreparedStatement,
    /// Whether `after` takes a view.
    pub(super) views: bool,
}

/// A page: `(name, value)`, and whether there may be more.
pub(super) type Page = (Vec<(Bytes, Bytes)>, bool);

/// A page, and what it took. What one statement brings of a partition is of one moment; a page of several is not.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) page: Page,
    pub(super) statements: usize,
}

impl Core {
    /// Names above `after` and up to `up_to`, at most `limit` of those that have a value.
    pub(super) async fn page(
        &self,
        paged: &Paged<'_>,
        after: Option<&Bytes>,
        up_to: Option<&Bytes>,
        limit: u32,
    ) -> Result<Page, StoreError> {
        Ok(self.take_page(paged, after, up_to, limit).await?.page)
    }

    /// The same, with the number of statements.
    pub(super) async fn take_page(
        &self,
        paged: &Paged<'_>,
        after: Option<&Bytes>,
        up_to: Option<&Bytes>,
        limit: u32,
    ) -> Result<Taken, StoreError> {
        let limit = limit.max(1) as usize;
        let up_to = up_to.map(names::key);
        let mut position = after.map(|name| (names::key(name), i64::MAX));
        let mut pace = Pace::new();
        let mut found: Vec<(Bytes, Bytes)> = Vec::new();
        // The highest view of the last name; it counts once the next name has come.
        let mut last: Option<(Bytes, Bytes)> = None;
        let mut statements = 0;
        loop {
            statements += 1;
            let asked = pace.limit(limit + 1 - found.len().min(limit) + 1);
            let rows = self.chunk(paged, position.as_ref(), asked).await?;
            let end = rows.len() < asked as usize;
            pace.came(rows.len(), rows.iter().map(|(k, _, v)| k.len() + v.len()).sum());
            let mut beyond = false;
            for (key, view, stored) in rows {
                if up_to.as_ref().is_some_and(|up_to| key > *up_to) {
                    beyond = true;
                    break;
                }
                position = Some((key.clone(), view));
                match &mut last {
                    Some((name, highest)) if *name == key => *highest = stored,
                    _ => {
                        let done = last.replace((key, stored));
                        found.extend(done.and_then(live));
                    }
                }
            }
            if end || beyond {
                found.extend(last.take().and_then(live));
            }
            if found.len() > limit {
                found.truncate(limit);
                let page = (found, true);
                return Ok(Taken { page, statements });
            }
            if end || beyond {
                let page = (found, false);
                return Ok(Taken { page, statements });
            }
        }
    }

    async fn chunk(
        &self,
        paged: &Paged<'_>,
        position: Option<&(Bytes, i64)>,
        limit: i32,
    ) -> Result<Vec<(Bytes, i64, Bytes)>, StoreError> {
        let mut values = paged.partition.clone();
        let statement = match position {
            None => {
                values.push(Bytes::new().into());
                paged.from
            }
            Some((key, view)) => {
                values.push(key.into());
                if paged.views {
                    values.push((*view).into());
                }
                paged.after
            }
        };
        values.push(limit.into());
        let rows = self.link.rows(statement, &values).await?;
        rows.rows::<(&[u8], i64, Option<&[u8]>)>()
            .map_err(|e| unavailable(&e))?
            .map(|row| {
                let (key, view, value) = row.map_err(|e| unavailable(&e))?;
                // Copied: what is kept of a page must not keep the page.
                let copy = Bytes::copy_from_slice;
                Ok((copy(key), view, value.map(copy).unwrap_or_default()))
            })
            .collect()
    }
}

/// The name and its value, if it has not ended. What this engine did not write counts as ended.
fn live((key, stored): (Bytes, Bytes)) -> Option<(Bytes, Bytes)> {
    let (name, value) = names::split(key, stored)?;
    Some((name, value?))
}
