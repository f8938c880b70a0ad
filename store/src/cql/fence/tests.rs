//! What the rules promise, one by one, and a world in which owners die at every point and writes land late.

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
    let TakeUp::Write { rows, fence: found } = take_up(&heads, &[row(2, 3), row(3, 3), row(5, 3)], 4) else {
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
fn an_owner_that_was_here_before_writes_its_fence_only() {
    let heads = Heads::of([fenced(5, &[(5, 0)], 1)]);
    let rows = vec![row(2, 5), row(3, 5)];
    assert_eq!(
        take_up(&heads, &rows, 5),
        TakeUp::Here {
            rows: rows.clone(),
            fence: Some(fence(&[(5, 0)]))
        }
    );
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
    assert_eq!(
        take_up(&heads, &[], 2),
        TakeUp::Here {
            rows: vec![],
            fence: None
        }
    );
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
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_confirmed_stays_whatever_lands_late(steps in proptest::collection::vec(0u8..12, 1..120)) {
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
