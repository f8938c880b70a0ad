//! The one mechanism for everything that is owed: an append-only log with numbers 1, 2, 3 …, confirmed in order. Feeds
//! (`feed`) read it for sessions. Decides nothing about sessions and writes nothing itself.

use godwit_store::Head;

use super::queue::Queue;
use super::slices::{Counted, Quota, Slices};
use super::waiter::Waiter;

/// Most entries that are submitted and not yet confirmed: a log whose store stands still refuses beyond it.
pub(crate) const PENDING: usize = 16 * 1024;
/// Most confirmed entries kept in memory for live sessions that lag a little; older ones are read in pages.
const TAIL: usize = 256;
/// And most bytes of them.
const TAIL_BYTES: usize = 64 * 1024;
/// Entries of a page of catching up.
pub(crate) const PAGE_ROWS: u32 = 64;
/// About as many bytes of a page at most.
pub(crate) const PAGE_BYTES: u32 = 64 * 1024;
/// The head is stored when this many entries are confirmed above it, so that a take-up reads at most about twice as many
/// rows, …
const HEAD_EVERY: u64 = 1_024;
/// … among several nodes this many, since there a take-up writes each of them once more: with a thousand in each mailbox what a dead node had was taken up
/// three seconds later than with a hundred, on two busy cores, …
const HEAD_EVERY_AMONG_NODES: u64 = 128;
/// … or when they have this many bytes: a user may have many sessions, and their rows are read together.
const HEAD_BYTES: u64 = 1024 * 1024;

/// What is in a log, shared by all who are to get it.
pub(crate) trait Entry: Clone + 'static {
    /// About how many bytes it keeps alive.
    fn weight(&self) -> usize;

    /// What stands in its place when nobody is to get it any more.
    fn emptied(&self) -> Self {
        self.clone()
    }
}

/// Who may want a just confirmed entry from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nobody: it is in the store.
    No,
    /// Live sessions: what they do not take soon is in the store.
    Tail,
    /// The one session of a log that is in memory only; the caller bounds it ([`Log::kept`]).
    All,
}

struct Pending<T> {
    entry: T,
    waiter: Waiter,
    /// Of its row.
    bytes: u32,
}

/// A log as its owner has it.
///
/// ```text
///   floor        stored head          confirmed        last
///  ───┼──────────────┼───────────[ tail ]┼── pending ───┼───▶ number
/// ```
/// SEQ: a number is given once, to one entry; an entry is confirmed when its batch and all before it are stored.
pub(crate) struct Log<T: 'static> {
    confirmed: u64,
    /// As stored, or on its way.
    head: Head,
    pending: Queue<Pending<T>>,
    tail: Queue<T>,
    tail_bytes: usize,
    /// `None` while nothing is unsettled.
    slices: Option<Box<Slices>>,
}

impl<T: Entry> Log<T> {
    /// A log with this stored head whose last valid row is `last`.
    pub(crate) fn restored(head: Head, last: u64) -> Self {
        let confirmed = last.max(head.confirmed).max(head.floor);
        Self {
            confirmed,
            head,
            pending: Queue::default(),
            tail: Queue::default(),
            tail_bytes: 0,
            slices: None,
        }
    }

    /// And how heavy it is: rows above the head that count, …
    pub(crate) fn restore_rows(&mut self, bytes: impl Iterator<Item = usize>) {
        for bytes in bytes {
            self.weighs(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// … and, then, the slices as stored.
    pub(crate) fn restore_slices(&mut self, last: &[u64], bytes: &[u64]) {
        let fresh = self.slices.take().map_or(0, |slices| slices.fresh());
        let slices = Slices::restored(last, bytes, self.head.floor, fresh);
        self.slices = (!slices.is_empty()).then(|| Box::new(slices));
    }

    /// The last confirmed number.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Everything at or below is trimmed.
    pub(crate) fn floor(&self) -> u64 {
        self.head.floor
    }

    /// Whether nothing is on its way to the store.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether one more may be appended.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.len() < PENDING
    }

    /// Gives the next number to an entry, which the caller submits now as a row of `bytes`.
    pub(crate) fn append(&mut self, entry: T, waiter: Waiter, bytes: usize) -> u64 {
        // A row has at most 1 MiB.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > 0 {
            self.slices_above().comes(bytes);
        }
        self.pending.push_back(Pending { entry, waiter, bytes });
        self.last()
    }

    /// Another one waits for the entry with this number, which is on its way.
    pub(crate) fn also_wait(&mut self, number: u64, waiter: Waiter) -> Result<(), Waiter> {
        let index = number.checked_sub(self.confirmed + 1).map(|index| index as usize);
        match index.and_then(|index| self.pending.get_mut(index)) {
            Some(pending) => {
                pending.waiter.join(waiter);
                Ok(())
            }
            None => Err(waiter),
        }
    }

    /// The batch of the oldest unconfirmed entry is stored (or the log is in memory only).
    pub(crate) fn confirm(&mut self, keep: Keep) -> Option<(u64, T, Waiter)> {
        let Pending { entry, waiter, bytes } = self.pending.pop_front()?;
        self.weighs(bytes);
        self.confirmed += 1;
        if keep == Keep::No {
            self.forget_tail();
        } else {
            self.tail_bytes += entry.weight();
            self.tail.push_back(entry.clone());
        }
        while keep == Keep::Tail && (self.tail.len() > TAIL || self.tail_bytes > TAIL_BYTES) {
            self.drop_oldest();
        }
        Some((self.confirmed, entry, waiter))
    }

    /// Entries in memory, and about their bytes.
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.tail.len(), self.tail_bytes)
    }

    /// A log in memory: its session has done with an entry, which stays in its place behind an open one.
    pub(crate) fn done_with(&mut self, number: u64) {
        let Some(back) = self.confirmed.checked_sub(number) else {
            return;
        };
        let index = usize::try_from(back + 1)
            .ok()
            .and_then(|back| self.tail.len().checked_sub(back));
        if let Some(entry) = index.and_then(|index| self.tail.get_mut(index)) {
            let empty = entry.emptied();
            self.tail_bytes -= entry.weight();
            self.tail_bytes += empty.weight();
            *entry = empty;
        }
    }

    /// About how many bytes of rows are confirmed or on their way and not settled.
    pub(crate) fn unsettled_bytes(&self, settled: u64) -> u64 {
        let Some(slices) = self.slices.as_deref() else {
            return 0;
        };
        let above = match settled < self.confirmed {
            true => slices.above_settled(settled, self.confirmed),
            false => 0,
        };
        above + slices.coming()
    }

    /// Everybody who waits for what is not confirmed yet.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waiter> {
        let waiter = |pending: &mut Pending<T>| std::mem::replace(&mut pending.waiter, Waiter::Nobody);
        self.pending.iter_mut().map(waiter).collect()
    }

    /// The last number that was given.
    pub(crate) fn last(&self) -> u64 {
        self.confirmed + self.pending.len() as u64
    }

    #[cfg(test)]
    pub(crate) fn has_slices(&self) -> bool {
        self.slices.is_some()
    }

    fn slices_above(&mut self) -> &mut Slices {
        let confirmed = self.confirmed;
        self.slices
            .get_or_insert_with(|| Box::new(Slices::above(confirmed)))
    }

    fn weighs(&mut self, bytes: u32) {
        if bytes > 0 {
            self.slices_above().add(bytes);
        }
    }

    /// Counts what it holds above `settled` against its quota.
    pub(crate) fn count(&mut self, quota: Quota, settled: u64) -> Counted {
        let confirmed = self.confirmed;
        let slices = self.slices.as_deref_mut();
        slices.map_or_else(Counted::default, |slices| slices.count(quota, settled, confirmed))
    }

    /// Whether its slices are to be stored before it leaves memory.
    pub(crate) fn slices_dirty(&self) -> bool {
        self.slices.as_ref().is_some_and(|slices| slices.is_dirty())
    }

    /// Its slices as a row that is stored now has them: last numbers and bytes.
    pub(crate) fn store_slices(&mut self) -> (Vec<u64>, Vec<u64>) {
        let confirmed = self.confirmed;
        let slices = self.slices.as_deref_mut();
        slices.map_or_else(Default::default, |slices| slices.store(confirmed))
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= entry.weight();
        }
    }

    /// Every live session has what is at or below `number`.
    pub(crate) fn had(&mut self, number: u64) {
        let keep = self.confirmed.saturating_sub(number);
        while self.tail.len() as u64 > keep {
            self.drop_oldest();
        }
    }

    /// Nobody wants the newest entries from memory.
    pub(crate) fn forget_tail(&mut self) {
        self.tail = Queue::default();
        self.tail_bytes = 0;
    }

    /// A confirmed entry, if it is in memory.
    pub(crate) fn in_tail(&self, number: u64) -> Option<&T> {
        let back = usize::try_from(self.confirmed.checked_sub(number)?).ok()?;
        self.tail.get(self.tail.len().checked_sub(back + 1)?)
    }

    /// What the stored head, or the one on its way, says is confirmed.
    pub(crate) fn stored_head(&self) -> u64 {
        self.head.confirmed
    }

    /// Entries confirmed since the head was stored.
    pub(crate) fn head_lag(&self) -> u64 {
        self.confirmed.saturating_sub(self.head.confirmed)
    }

    /// Whether the head is to be stored now; `clustered`: this node is one of several.
    pub(crate) fn is_head_due(&self, clustered: bool) -> bool {
        let fresh = self.slices.as_ref().map_or(0, |slices| slices.fresh());
        let every = if clustered {
            HEAD_EVERY_AMONG_NODES
        } else {
            HEAD_EVERY
        };
        self.head_lag() >= every || fresh >= HEAD_BYTES
    }

    /// The head to store now, if it would say more than the stored one. `confirmed` must be confirmed.
    pub(crate) fn move_head(&mut self, confirmed: u64, floor: u64) -> Option<Head> {
        debug_assert!(confirmed <= self.confirmed, "only what is confirmed is in a head");
        let head = Head {
            confirmed: self.head.confirmed.max(confirmed),
            floor: self.head.floor.max(floor),
        };
        (head != self.head).then(|| {
            self.head = head;
            head
        })
    }

    /// Gives memory back that is not needed now.
    pub(crate) fn rest(&mut self) {
        self.pending.rest();
        self.tail.rest();
        let settled = self.head.floor >= self.confirmed && self.is_settled();
        if settled || self.slices.as_ref().is_some_and(|slices| slices.is_empty()) {
            self.slices = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Entry for u64 {
        fn weight(&self) -> usize {
            8
        }
    }

    #[test]
    fn numbers_have_no_gap_and_are_confirmed_in_order() {
        let mut log = Log::<u64>::restored(
            Head {
                confirmed: 3,
                floor: 1,
            },
            5,
        );
        assert_eq!((log.confirmed(), log.floor()), (5, 1));
        assert_eq!(log.append(6, Waiter::Nobody, 8), 6);
        assert_eq!(log.append(7, Waiter::Nobody, 8), 7);
        assert_eq!(log.confirmed(), 5);
        assert_eq!(log.confirm(Keep::No).map(|(n, e, _)| (n, e)), Some((6, 6)));
        assert_eq!(log.confirm(Keep::No).map(|(n, e, _)| (n, e)), Some((7, 7)));
        assert!(log.confirm(Keep::No).is_none());
        assert!(log.is_settled());
    }

    #[test]
    fn the_tail_in_memory_is_bounded_and_dropped_once_everybody_has_it() {
        let mut log = Log::<u64>::restored(Head::default(), 0);
        for n in 1..=1_000 {
            log.append(n, Waiter::Nobody, 8);
            assert!(log.confirm(Keep::Tail).is_some());
        }
        assert_eq!(log.tail.len(), TAIL);
        assert_eq!(log.in_tail(1_000), Some(&1_000));
        assert_eq!(log.in_tail(1_000 - TAIL as u64), None);
        log.had(990);
        assert_eq!(log.tail.len(), 10);
        log.had(1_000);
        assert_eq!((log.tail.len(), log.tail_bytes), (0, 0));
    }

    #[test]
    fn a_head_only_grows_and_is_given_only_when_it_says_more() {
        let mut log = Log::<u64>::restored(
            Head {
                confirmed: 2,
                floor: 1,
            },
            9,
        );
        assert_eq!(log.head_lag(), 7);
        assert_eq!(
            log.move_head(9, 4),
            Some(Head {
                confirmed: 9,
                floor: 4
            })
        );
        assert_eq!(log.move_head(8, 3), None);
    }
}
