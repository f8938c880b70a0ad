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
    /// This owner has fenced it before, or nothing can ever be appended to it: nothing is written.
    Here {
        /// See [`crate::ReadAnswer::TakeUp`].
        rows: Vec<LogRow>,
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
        return TakeUp::Here { rows: Vec::new() };
    }
    let from = heads.take_up_from();
    let mut intervals = match &heads.fence {
        Some((fenced, fence)) => {
            let rows = valid(rows, from, |seq| fence.view_at(seq));
            if *fenced == view {
                return TakeUp::Here { rows };
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(seq: u64, view: View) -> LogRow {
        LogRow {
            seq,
            view,
            row: Bytes::from(format!("{seq} of {view}")),
        }
    }

    fn fence(intervals: &[(View, u64)]) -> Fence {
        Fence(
            intervals
                .iter()
                .map(|&(view, from)| Interval { view, from })
                .collect(),
        )
    }

    fn fenced(view: View, intervals: &[(View, u64)], confirmed: u64) -> HeadRow {
        HeadRow {
            view,
            confirmed,
            fence: Some(fence(intervals)),
            ..HeadRow::default()
        }
    }

    fn seqs(rows: &[LogRow]) -> Vec<(u64, View)> {
        rows.iter().map(|r| (r.seq, r.view)).collect()
    }

    #[test]
    fn a_position_belongs_to_the_view_that_the_fence_names() {
        let f = fence(&[(2, 0), (3, 6), (5, 9)]);
        let views: Vec<_> = [1, 6, 7, 9, 10, u64::MAX].map(|seq| f.view_at(seq)).to_vec();
        assert_eq!(views, [2, 2, 3, 3, 5, 5].map(Some));
        assert_eq!(fence(&[(5, 9)]).view_at(9), None);
    }

    #[test]
    fn a_late_row_of_a_former_view_ends_nothing_and_is_not_taken() {
        let heads = Heads::of([fenced(5, &[(2, 0), (5, 2)], 0)]);
        let rows = [row(1, 2), row(2, 2), row(3, 2), row(3, 5), row(4, 2)];
        let TakeUp::Write { rows, fence: found } = take_up(&heads, &rows, 9) else {
            panic!("not lost")
        };
        assert_eq!(seqs(&rows), [(1, 2), (2, 2), (3, 5)]);
        assert_eq!(found, fence(&[(2, 0), (5, 2), (9, 3)]));
    }

    #[test]
    fn only_the_fence_of_the_largest_view_counts_whatever_turns_up_later() {
        let late = fenced(3, &[(2, 0), (3, 7)], 4);
        let heads = Heads::of([fenced(5, &[(2, 0), (5, 2)], 2), late]);
        assert_eq!(heads.fence, Some((5, fence(&[(2, 0), (5, 2)]))));
        assert_eq!(heads.head.confirmed, 4, "maxima count");
        assert_eq!(take_up(&heads, &[], 4), TakeUp::Lost);
    }

    #[test]
    fn a_log_without_a_fence_is_its_makers() {
        let mut heads = Heads::of([HeadRow {
            view: 3,
            confirmed: 2,
            ..HeadRow::default()
        }]);
        assert_eq!(heads.read_from(), 1, "one more, to know the maker");
        let TakeUp::Write { rows, fence: found } = take_up(&heads, &[row(2, 3), row(3, 3), row(5, 3)], 4)
        else {
            panic!("not lost")
        };
        assert_eq!((seqs(&rows), found), (vec![(3, 3)], fence(&[(3, 0), (4, 3)])));
        heads.head = Head::default();
        let new = take_up(&Heads::default(), &[], 4);
        let empty = TakeUp::Write {
            rows: vec![],
            fence: fence(&[(4, 0)]),
        };
        assert_eq!(new, empty);
    }

    #[test]
    fn an_owner_that_was_here_before_writes_nothing() {
        let heads = Heads::of([fenced(5, &[(5, 0)], 1)]);
        let rows = vec![row(2, 5), row(3, 5)];
        assert_eq!(take_up(&heads, &rows, 5), TakeUp::Here { rows: rows.clone() });
    }

    #[test]
    fn a_missing_position_below_a_fence_is_damage_and_never_given_away_again() {
        let heads = Heads::of([fenced(5, &[(2, 0), (5, 3)], 0)]);
        assert_eq!(
            take_up(&heads, &[row(1, 2), row(3, 2)], 6),
            TakeUp::Damaged { missing: 2 }
        );
    }

    #[test]
    fn owners_that_appended_nothing_and_what_is_trimmed_leave_the_fence() {
        let mut head = fenced(5, &[(2, 0), (3, 6), (5, 9)], 9);
        head.floor = 7;
        let heads = Heads::of([head]);
        let TakeUp::Write { fence: found, .. } = take_up(&heads, &[], 8) else {
            panic!("not lost")
        };
        assert_eq!(found, fence(&[(3, 6), (8, 9)]));
    }

    #[test]
    fn nothing_is_written_to_a_log_that_has_ended() {
        let heads = Heads::of([HeadRow {
            view: 1,
            floor: u64::MAX,
            ..HeadRow::default()
        }]);
        assert_eq!(take_up(&heads, &[], 2), TakeUp::Here { rows: vec![] });
    }

    #[test]
    fn bytes_of_nobody_are_no_fence() {
        assert_eq!(
            Fence::decode(&fence(&[(1, 0), (2, 7)]).encode()),
            Some(fence(&[(1, 0), (2, 7)]))
        );
        assert_eq!(
            Fence::decode(&fence(&[(1, 7), (2, 7)]).encode()),
            None,
            "must grow"
        );
        assert_eq!(Fence::decode(&[]), None);
        assert_eq!(Fence::decode(&[2; 17]), None);
        assert_eq!(Fence::decode(&[1; 18]), None);
    }

    #[test]
    fn a_bucket_holds_positions_from_1_to_1024() {
        assert_eq!([1, 1024, 1025].map(bucket), [0, 0, 1]);
        assert_eq!([0, 1].map(bucket_end), [1024, 2048]);
        assert_eq!(bucket(u64::MAX), (u64::MAX - 1) / BUCKET);
    }

    /// One store whose writes land now, later or never; owners that take up, append, die, and go on when they should not.
    #[derive(Debug, Default)]
    struct World {
        rows: Vec<LogRow>,
        heads: Vec<HeadRow>,
        /// Rows of owners that were replaced, which land at some time.
        late: Vec<LogRow>,
        late_fences: Vec<HeadRow>,
        /// What must never change: confirmed positions.
        confirmed: Vec<LogRow>,
        view: View,
        /// The owner: the next position.
        next: u64,
    }

    impl World {
        fn sorted(&self, above: u64) -> Vec<LogRow> {
            let mut rows: Vec<_> = self.rows.iter().filter(|r| r.seq > above).cloned().collect();
            rows.sort_by_key(|r| (r.seq, r.view));
            rows.dedup();
            rows
        }

        fn put_head(&mut self, new: HeadRow) {
            match self.heads.iter_mut().find(|h| h.view == new.view) {
                Some(old) => {
                    old.confirmed = old.confirmed.max(new.confirmed);
                    old.fence = new.fence.or(old.fence.take());
                }
                None => self.heads.push(new),
            }
        }

        fn take_up(&mut self) {
            self.view += 1;
            let heads = Heads::of(self.heads.clone());
            let TakeUp::Write { rows, fence } = take_up(&heads, &self.sorted(heads.read_from()), self.view)
            else {
                panic!("a new view is larger, and nothing is lost: {self:?}")
            };
            self.next = rows.last().map_or(heads.take_up_from(), |r| r.seq) + 1;
            self.put_head(HeadRow {
                view: self.view,
                confirmed: heads.head.confirmed,
                fence: Some(fence),
                ..HeadRow::default()
            });
            self.rows.extend(rows);
        }

        /// What a reader sees.
        fn read(&self) -> Vec<LogRow> {
            let heads = Heads::of(self.heads.clone());
            let rows = self.sorted(0);
            let one = maker(&rows).map(|view| Fence(vec![Interval { view, from: 0 }]));
            let names = heads.fence.map(|(_, fence)| fence).or(one).unwrap_or_default();
            valid(&rows, 0, |seq| names.view_at(seq))
        }
    }

    proptest! {
        #[test]
        fn what_was_confirmed_stays_whatever_lands_late(steps in proptest::collection::vec(0u8..12, 1..200)) {
            let mut world = World { view: 1, next: 1, ..World::default() };
            for (number, step) in steps.iter().enumerate() {
                let new = LogRow { seq: world.next, view: world.view, row: Bytes::from(number.to_string()) };
                match step {
                    0..4 => {
                        world.rows.push(new.clone());
                        world.confirmed.push(new);
                        world.next += 1;
                    }
                    // Written, not confirmed, and the owner dies: it may be found or not.
                    4 => world.rows.push(new),
                    5 => world.late.push(new),
                    6 => {
                        let confirmed = world.confirmed.len() as u64 / 2;
                        world.put_head(HeadRow { view: world.view, confirmed, ..HeadRow::default() });
                        continue;
                    }
                    // A replaced owner's rows and fence land.
                    7 => {
                        let late = std::mem::take(&mut world.late);
                        world.rows.extend(late);
                        let late = std::mem::take(&mut world.late_fences);
                        late.into_iter().for_each(|h| world.put_head(h));
                        continue;
                    }
                    8 => {
                        // A take-up that dies before its fence has landed.
                        world.view += 1;
                        let heads = Heads::of(world.heads.clone());
                        let found = take_up(&heads, &world.sorted(heads.read_from()), world.view);
                        if let TakeUp::Write { fence, .. } = found {
                            world.late_fences.push(HeadRow { view: world.view, fence: Some(fence), ..HeadRow::default() });
                        }
                    }
                    _ => {}
                }
                if *step >= 4 {
                    world.take_up();
                }
                let read = world.read();
                prop_assert!(read.len() >= world.confirmed.len(), "{:?}", world);
                if *step >= 4 {
                    // What a take-up found counts from then on.
                    world.confirmed = read;
                } else {
                    prop_assert_eq!(&read[..world.confirmed.len()], &world.confirmed[..]);
                }
            }
            prop_assert_eq!(&world.read()[..world.confirmed.len()], &world.confirmed[..]);
        }

        #[test]
        fn a_cut_fence_and_its_buckets_say_what_the_whole_one_said(
            lengths in proptest::collection::vec(1u64..90, 65..120),
            confirmed in 0u64..8_000,
            floor in 0u64..4_000,
        ) {
            let mut at = 0;
            let whole = Fence(lengths.iter().enumerate().map(|(i, length)| {
                let interval = Interval { view: i as u64 + 1, from: at };
                at += length;
                interval
            }).collect());
            let head = Head { confirmed, floor: floor.min(confirmed) };
            let Some(cut) = cut(&whole, head) else {
                prop_assert!(confirmed.min(at) < 2 * BUCKET);
                return Ok(());
            };
            prop_assert!(cut.rest.begins() <= confirmed && cut.rest.begins() % BUCKET == 0);
            prop_assert!(Fence::decode(&cut.rest.encode()).is_some());
            for seq in head.floor + 1..at + 10 {
                let said = if seq > cut.rest.begins() {
                    cut.rest.view_at(seq)
                } else {
                    cut.buckets.iter().find(|(b, _)| *b == bucket(seq)).and_then(|(_, f)| f.view_at(seq))
                };
                prop_assert_eq!(said, whole.view_at(seq), "{}", seq);
            }
        }
    }
}
