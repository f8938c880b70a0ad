//! How many bytes of a log are not settled, in slices, so that at its quota the oldest can go without being read. Counts
//! only; what goes, and how that is made durable, is decided by who owns the log.

/// How much a log may hold; both at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    pub(crate) entries: u64,
    /// Of rows.
    pub(crate) bytes: u64,
}

/// A slice is this part of the quota: what goes at once, and by how much the quota is overrun.
const PARTS: u64 = 16;

/// The unsettled part of a log.
///
/// ```text
///   settled     last        last (= from)        counted     confirmed
///  ────┼─────────┼───────────┼─────── open ─────────┼─ fresh ────┼──▶ number
/// ```
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// Last number and bytes of the closed ones, the oldest first: at most about `2 * PARTS`.
    closed: Vec<(u64, u64)>,
    /// The open one begins above.
    from: u64,
    open: u64,
    /// Bytes that were confirmed and not counted yet.
    fresh: u64,
    /// Bytes that are on their way to be confirmed.
    coming: u64,
    /// Has changed since it was stored.
    dirty: bool,
    warned: bool,
}

/// What [`Slices::count`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// A slice was closed: it is to be stored, or a crash forgets more than one.
    pub(crate) closed: bool,
    /// Over its quota: everything up to here must go.
    pub(crate) drop_to: Option<u64>,
    /// That is so for the first time.
    pub(crate) warn: bool,
}

impl Slices {
    /// Nothing yet, above this number.
    pub(crate) fn above(from: u64) -> Self {
        Self {
            from,
            ..Self::default()
        }
    }

    /// As stored: last numbers, bytes, the open one last; `fresh` came after. What is settled by now is left out.
    pub(crate) fn restored(last: &[u64], bytes: &[u64], settled: u64, fresh: u64) -> Self {
        let stored = last.iter().copied().zip(bytes.iter().copied());
        let mut slices = Self {
            fresh,
            ..Self::above(settled)
        };
        slices.closed = stored.filter(|(last, _)| *last > settled).collect();
        if let Some((_, open)) = slices.closed.pop() {
            slices.open = open;
        }
        if let Some((last, _)) = slices.closed.last() {
            slices.from = *last;
        }
        slices
    }

    /// What is to be stored; `confirmed` is the last number counted or fresh.
    pub(crate) fn store(&mut self, confirmed: u64) -> (Vec<u64>, Vec<u64>) {
        self.dirty = false;
        let open = self.open + self.fresh;
        let any = open > 0 || !self.closed.is_empty();
        let closed = self.closed.iter().copied();
        closed.chain(any.then_some((confirmed, open))).unzip()
    }

    /// An entry is on its way.
    pub(crate) fn comes(&mut self, bytes: u32) {
        self.coming += u64::from(bytes);
    }

    /// Bytes of entries that are on their way.
    pub(crate) fn coming(&self) -> u64 {
        self.coming
    }

    /// An entry was confirmed.
    pub(crate) fn add(&mut self, bytes: u32) {
        self.coming = self.coming.saturating_sub(u64::from(bytes));
        self.fresh += u64::from(bytes);
        self.dirty = true;
    }

    /// Bytes that are not counted yet.
    pub(crate) fn fresh(&self) -> u64 {
        self.fresh
    }

    /// About how many confirmed bytes are above `settled`: the closed slice that it lies in counts as a whole, of the open
    /// one as much as of its entries.
    pub(crate) fn above_settled(&self, settled: u64, confirmed: u64) -> u64 {
        let closed = self.closed.iter().filter(|(last, _)| *last > settled);
        let closed: u64 = closed.map(|(_, bytes)| bytes).sum();
        let entries = confirmed.saturating_sub(self.from).max(1);
        let left = confirmed.saturating_sub(settled.max(self.from));
        closed + ((self.open + self.fresh) / entries + 1) * left
    }

    /// Whether it is to be stored before its log leaves memory.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open == 0 && self.fresh == 0 && self.coming == 0
    }

    /// Counts what is fresh, up to `confirmed`.
    pub(crate) fn count(&mut self, quota: Quota, settled: u64, confirmed: u64) -> Counted {
        self.open += std::mem::take(&mut self.fresh);
        if settled >= confirmed {
            let (warned, coming) = (self.warned, self.coming);
            *self = Self {
                warned,
                coming,
                ..Self::above(confirmed)
            };
            return Counted::default();
        }
        self.closed.retain(|(last, _)| *last > settled);
        let many = confirmed.saturating_sub(self.from) >= (quota.entries / PARTS).max(1);
        if !many && self.open < (quota.bytes / PARTS).max(1) {
            return Counted::default();
        }
        self.closed.push((confirmed, self.open));
        (self.from, self.open) = (confirmed, 0);
        let mut bytes: u64 = self.closed.iter().map(|slice| slice.1).sum();
        let mut floor = settled;
        let mut gone = 0;
        for (last, of) in &self.closed {
            if confirmed - floor <= quota.entries && bytes <= quota.bytes {
                break;
            }
            (floor, bytes, gone) = (*last, bytes - of, gone + 1);
        }
        self.closed.drain(..gone);
        Counted {
            closed: true,
            drop_to: (gone > 0).then_some(floor),
            warn: gone > 0 && !std::mem::replace(&mut self.warned, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota {
        entries: 1_600,
        bytes: 16_000,
    };

    /// Appends one entry after the other, each counted at once.
    fn fill(slices: &mut Slices, numbers: std::ops::RangeInclusive<u64>, bytes: u32, settled: u64) -> u64 {
        let mut floor = settled;
        for number in numbers {
            slices.add(bytes);
            if let Some(to) = slices.count(QUOTA, floor, number).drop_to {
                assert!(to > floor && to < number);
                floor = to;
            }
        }
        floor
    }

    #[test]
    fn the_oldest_go_by_a_sixteenth_when_there_are_too_many_entries() {
        let mut slices = Slices::above(0);
        assert_eq!(fill(&mut slices, 1..=1_600, 1, 0), 0);
        assert_eq!(fill(&mut slices, 1_601..=1_700, 1, 0), 100);
        assert_eq!(fill(&mut slices, 1_701..=10_000, 1, 100), 8_400);
        assert!(slices.closed.len() <= 16);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let mut slices = Slices::above(0);
        assert_eq!(fill(&mut slices, 1..=16, 1_000, 0), 0);
        assert_eq!(fill(&mut slices, 17..=17, 1_000, 0), 1);
        let floor = fill(&mut slices, 18..=100, 1_000, 1);
        assert_eq!(floor, 84);
    }

    #[test]
    fn what_is_settled_does_not_count() {
        let mut slices = Slices::above(0);
        for number in 1..=100_000u64 {
            slices.add(500);
            let counted = slices.count(QUOTA, number.saturating_sub(3), number);
            assert_eq!(counted.drop_to, None);
        }
        slices.count(QUOTA, 100_000, 100_000);
        assert!(slices.is_empty());
    }

    #[test]
    fn what_was_stored_counts_on_and_what_is_settled_meanwhile_does_not() {
        let mut slices = Slices::above(0);
        fill(&mut slices, 1..=12, 1_000, 0);
        slices.add(700);
        assert!(slices.is_dirty());
        let (last, bytes) = slices.store(13);
        assert!(!slices.is_dirty());
        let mut same = Slices::restored(&last, &bytes, 0, 0);
        let mut less = Slices::restored(&last, &bytes, 8, 0);
        assert_eq!((same.open, same.from, same.closed.len()), (700, 12, 12));
        assert_eq!((less.open, less.from, less.closed.len()), (700, 12, 4));
        assert_eq!(fill(&mut same, 14..=17, 1_000, 0), 1);
        assert_eq!(fill(&mut less, 14..=17, 1_000, 8), 8);
        assert!(Slices::restored(&last, &bytes, 13, 0).is_empty());
        let mut closed = Slices::above(0);
        fill(&mut closed, 1..=12, 1_000, 0);
        let (last, bytes) = closed.store(12);
        let restored = Slices::restored(&last, &bytes, 0, 0);
        assert_eq!(
            (restored.open, restored.closed.len()),
            (0, 12),
            "no slice grows by it"
        );
    }

    #[test]
    fn what_is_left_is_told_about_before_it_is_counted() {
        let mut slices = Slices::above(0);
        for _ in 0..100 {
            slices.comes(500);
        }
        assert_eq!(slices.coming(), 50_000);
        for _ in 0..100 {
            slices.add(500);
        }
        assert_eq!(slices.coming(), 0);
        let near = |left: u64, expected: u64| (expected..expected + 200).contains(&left);
        assert!(near(slices.above_settled(0, 100), 50_000));
        assert!(near(slices.above_settled(80, 100), 10_000));
        assert_eq!(slices.above_settled(100, 100), 0);
        assert_eq!(slices.count(QUOTA, 90, 100).drop_to, Some(100));
        assert_eq!(slices.above_settled(100, 100), 0);
    }

    #[test]
    fn a_log_warns_once() {
        let mut slices = Slices::above(0);
        let mut warned = 0;
        let mut floor = 0;
        for number in 1..=10_000 {
            slices.add(1);
            let counted = slices.count(QUOTA, floor, number);
            floor = counted.drop_to.unwrap_or(floor);
            warned += u32::from(counted.warn);
        }
        assert_eq!(warned, 1);
    }
}
