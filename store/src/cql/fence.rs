//! What counts among rows that several owners have written beside each other: heads, fences, intervals, and what a take-up must
//! write. Pure functions without IO; the simulation runs the same ones. The rule is decision 0009, its argument 0010.
//!
//! ```text
//!  positions   1 ─────────── 6 7 ──── 9 10 ─────────▶
//!  fence of 5     view 2        view 3     view 5          only the fence of the largest view counts; a row of another view than
//!  intervals      (2, 0)        (3, 6)     (5, 9)          the one it names is void, whenever it turns up
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{Head, LogRow, View};

/// Positions of a bucket, which is a partition: 1,024 rows keep it below 100 MB with rows of 100 KB, and a read of a page in one place.
pub const BUCKET: u64 = 1_024;

/// Intervals from which on a fence is cut: 1 KiB, read with every page.
pub const LONG_FENCE: usize = 64;

/// The first byte of an encoded fence.
const FORMAT: u8 = 1;

/// The bucket of a position from 1 on.
pub const fn bucket(seq: u64) -> u64 {
    seq.saturating_sub(1) / BUCKET
}

/// The last position of a bucket.
pub const fn bucket_end(bucket: u64) -> u64 {
    (bucket + 1).saturating_mul(BUCKET)
}

/// Positions above `from`, up to the `from` of the next interval, belong to `view`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Whose rows count.
    pub view: View,
    /// Exclusive.
    pub from: u64,
}

/// Which position belongs to which view, as one owner found it when it took the log up. `from` grows strictly; what is at or below the
/// first one was cut off, and is said by the row 0 of each bucket there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence(pub Vec<Interval>);

impl Fence {
    /// The view to which a position belongs; `None` where the fence begins behind it.
    pub fn view_at(&self, seq: u64) -> Option<View> {
        let above = self.0.partition_point(|interval| interval.from < seq);
        above.checked_sub(1).map(|i| self.0[i].view)
    }

    /// Everything at or below this position is not said here.
    pub fn begins(&self) -> u64 {
        self.0.first().map_or(0, |first| first.from)
    }

    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + 16 * self.0.len());
        out.put_u8(FORMAT);
        for interval in &self.0 {
            out.put_u64(interval.view);
            out.put_u64(interval.from);
        }
        out.freeze()
    }

    /// Of what is stored; `None` if it is of a format that this build does not know, or not a fence.
    pub fn decode(stored: &[u8]) -> Option<Self> {
        let (&FORMAT, intervals) = stored.split_first()? else {
            return None;
        };
        let (pairs, []) = intervals.as_chunks::<16>() else {
            return None;
        };
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        let fence: Vec<Interval> = pairs
            .iter()
            .map(|pair| {
                Some(Interval {
                    view: number(&pair[..8])?,
                    from: number(&pair[8..])?,
                })
            })
            .collect::<Option<_>>()?;
        let grows = fence.windows(2).all(|w| w[0].from < w[1].from);
        (grows && !fence.is_empty()).then_some(Self(fence))
    }
}

/// One owner's row of heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadRow {
    /// The owner's view.
    pub view: View,
    /// See [`Head::confirmed`].
    pub confirmed: u64,
    /// See [`Head::floor`].
    pub floor: u64,
    /// Buckets below this number were deleted.
    pub dropped: u64,
    /// Written when the owner took the log up; a log's maker has none.
    pub fence: Option<Fence>,
}

/// All rows of heads of a log, taken together: maxima, and the fence that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// The largest of all.
    pub head: Head,
    /// The largest of all.
    pub dropped: u64,
    /// The fence of the largest view that has one.
    pub fence: Option<(View, Fence)>,
    /// The lowest view of a row of heads.
    pub lowest: Option<View>,
}

impl Heads {
    /// Of the rows, in any order.
    pub fn of(rows: impl IntoIterator<Item = HeadRow>) -> Self {
        let mut all = Self::default();
        for row in rows {
            all.head.confirmed = all.head.confirmed.max(row.confirmed);
            all.head.floor = all.head.floor.max(row.floor);
            all.dropped = all.dropped.max(row.dropped);
            all.lowest = Some(all.lowest.map_or(row.view, |lowest| lowest.min(row.view)));
            if let Some(fence) = row.fence
                && all.fence.as_ref().is_none_or(|(view, _)| *view < row.view)
            {
                all.fence = Some((row.view, fence));
            }
        }
        all
    }

    /// Whether the log has ended for ever.
    pub fn ended(&self) -> bool {
        self.head.floor == u64::MAX
    }

    /// Whether the owner of this view has been replaced.
    pub fn lost(&self, view: View) -> bool {
        self.fence.as_ref().is_some_and(|(fenced, _)| *fenced > view)
    }

    /// Where a take-up begins to read: rows at or below are not asked for.
    pub fn take_up_from(&self) -> u64 {
        self.head.confirmed.max(self.head.floor)
    }

    /// The position above which a take-up has to know rows. Without a fence there is one more, if it may be there: it names the maker.
    pub fn read_from(&self) -> u64 {
        let from = self.take_up_from();
        if self.fence.is_none() && from > self.head.floor {
            from - 1
        } else {
            from
        }
    }
}

/// The view whose rows count where there is no fence: the log's one writer's. `rows` are of any positions, in order.
pub fn maker(rows: &[LogRow]) -> Option<View> {
    let first = rows.first()?.seq;
    rows.iter()
        .take_while(|row| row.seq == first)
        .map(|row| row.view)
        .min()
}

/// The rows of `rows` (in order of position, then view) that count, from the position above `after` on, until one is missing.
pub fn valid(rows: &[LogRow], after: u64, view_at: impl Fn(u64) -> Option<View>) -> Vec<LogRow> {
    let mut found: Vec<LogRow> = Vec::new();
    let mut next = after.saturating_add(1);
    for row in rows.iter().skip_while(|row| row.seq <= after) {
        if row.seq > next {
            break;
        }
        if row.seq == next && view_at(next) == Some(row.view) {
            found.push(row.clone());
            next += 1;
        }
    }
    found
}

/// What a new owner has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeUp {
    /// A later owner has fenced the log.
    Lost,
    /// This owner has fenced it before, or nothing can ever be appended to it: no row is written.
    Here {
        /// See [`crate::ReadAnswer::TakeUp`].
        rows: Vec<LogRow>,
        /// To be written once more: this read may have found a write of it that never reached a QUORUM. None for a log that has ended.
        fence: Option<Fence>,
    },
    /// The rows are to be written once more, each under its own view; then the fence, with the maxima of the heads.
    Write {
        /// See [`crate::ReadAnswer::TakeUp`].
        rows: Vec<LogRow>,
        /// All intervals that are known, and the new owner's.
        fence: Fence,
    },
    /// A position that an earlier owner stored and fenced is not there: rows were lost, by the store or by hand.
    Damaged {
        /// The first missing one.
        missing: u64,
    },
}

/// What the owner of `view` does with a log. `rows` are all rows above [`Heads::read_from`], in order of position, then view.
pub fn take_up(heads: &Heads, rows: &[LogRow], view: View) -> TakeUp {
    if heads.lost(view) {
        return TakeUp::Lost;
    }
    if heads.ended() {
        return TakeUp::Here {
            rows: Vec::new(),
            fence: None,
        };
    }
    let from = heads.take_up_from();
    let mut intervals = match &heads.fence {
        Some((fenced, fence)) => {
            let rows = valid(rows, from, |seq| fence.view_at(seq));
            if *fenced == view {
                return TakeUp::Here {
                    rows,
                    fence: Some(fence.clone()),
                };
            }
            fence.0.clone()
        }
        None => maker(rows)
            .map(|view| Interval { view, from: 0 })
            .into_iter()
            .collect(),
    };
    let old = Fence(intervals.clone());
    let rows = valid(rows, from, |seq| old.view_at(seq));
    let last = rows.last().map_or(from, |row| row.seq);
    if let Some(newest) = intervals.last()
        && newest.from > last
    {
        return TakeUp::Damaged { missing: last + 1 };
    }
    // An interval without a position says nothing.
    intervals.retain(|interval| interval.from < last);
    let below = intervals.partition_point(|interval| interval.from <= heads.head.floor);
    intervals.drain(..below.saturating_sub(1));
    intervals.push(Interval { view, from: last });
    TakeUp::Write {
        rows,
        fence: Fence(intervals),
    }
}

/// A fence that is too long, and what is said at the buckets instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// To be stored first, as position 0 of each bucket.
    pub buckets: Vec<(u64, Fence)>,
    /// Takes the fence's place.
    pub rest: Fence,
}

/// Cuts a confirmed fence that is long: the intervals of the full buckets at or below `confirmed` and above `floor`.
pub fn cut(fence: &Fence, head: Head) -> Option<Cut> {
    let last = fence.0.last()?;
    let end = head.confirmed.min(last.from) / BUCKET * BUCKET;
    if fence.0.len() <= LONG_FENCE || end <= fence.begins() {
        return None;
    }
    let slice = |from: u64, up_to: u64| {
        let covering = fence.0.partition_point(|i| i.from <= from).saturating_sub(1);
        let intervals = fence.0[covering..].iter().take_while(|i| i.from < up_to);
        Fence(
            intervals
                .map(|i| Interval {
                    view: i.view,
                    from: i.from.max(from),
                })
                .collect(),
        )
    };
    let first = fence.begins().max(head.floor) / BUCKET;
    Some(Cut {
        buckets: (first..end / BUCKET)
            .map(|bucket| {
                (
                    bucket,
                    slice((bucket * BUCKET).max(fence.begins()), bucket_end(bucket)),
                )
            })
            .collect(),
        rest: slice(end, u64::MAX),
    })
}

#[cfg(test)]
mod tests;
