//! The one mechanism for everything that is owed: an append-only log with numbers 1, 2, 3 …, confirmed in order, and
//! feeds that read it for a session: what just came directly, what is older in pages from the store. Decides nothing
//! about sessions and writes nothing itself.

use std::collections::VecDeque;

use godwit_store::Head;

use super::cursor::Cursor;
use super::queue::Queue;
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
/// The head is stored at least this often, so that a take-up reads at most about twice as many rows.
pub(crate) const HEAD_EVERY: u64 = 1_024;

/// What is in a log, shared by all who are to get it.
pub(crate) trait Entry: Clone + 'static {
    /// About how many bytes it keeps alive.
    fn weight(&self) -> usize;
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
}

/// A log as its owner has it.
///
/// ```text
///   floor        stored head          confirmed        last
///  ───┼──────────────┼───────────[ tail ]┼── pending ───┼───▶ number
/// ```
/// SEQ: a number is given once, to one entry; an entry is confirmed when its batch and all before it are stored.
pub(crate) struct Log<T: 'static> {
    last: u64,
    confirmed: u64,
    /// As stored, or on its way.
    head: Head,
    pending: Queue<Pending<T>>,
    tail: Queue<T>,
    tail_bytes: usize,
}

impl<T: Entry> Log<T> {
    /// A log with this stored head whose last valid row is `last`.
    pub(crate) fn restored(head: Head, last: u64) -> Self {
        let confirmed = last.max(head.confirmed).max(head.floor);
        Self {
            last: confirmed,
            confirmed,
            head,
            pending: Queue::default(),
            tail: Queue::default(),
            tail_bytes: 0,
        }
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

    /// Gives the next number to an entry, which the caller submits now.
    pub(crate) fn append(&mut self, entry: T, waiter: Waiter) -> u64 {
        self.last += 1;
        self.pending.push_back(Pending { entry, waiter });
        self.last
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
        let Pending { entry, waiter } = self.pending.pop_front()?;
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

    /// Everybody who waits for what is not confirmed yet.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waiter> {
        let waiter = |pending: &mut Pending<T>| std::mem::replace(&mut pending.waiter, Waiter::Nobody);
        self.pending.iter_mut().map(waiter).collect()
    }

    /// The last number that was given.
    pub(crate) fn last(&self) -> u64 {
        self.last
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

    fn in_tail(&self, number: u64) -> Option<&T> {
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
    }
}

/// What a feed can give next.
pub(crate) enum Next<T> {
    /// The entry after [`Cursor::sent`].
    Entry(T),
    /// It must be read: rows `after < number ≤ up_to`. The feed waits for [`Feed::page_read`].
    Read {
        /// Exclusive.
        after: u64,
        /// Inclusive.
        up_to: u64,
    },
    /// Nothing now.
    Nothing,
}

/// One session's way through a log.
pub(crate) struct Feed<T: 'static> {
    /// How far it is.
    pub(crate) cursor: Cursor,
    page: Queue<(u64, T)>,
    reading: bool,
    /// Grows when the connection goes: a page read for an earlier one is not taken.
    generation: u32,
}

impl<T: Entry> Feed<T> {
    /// A feed from this cursor on.
    pub(crate) fn new(cursor: Cursor) -> Self {
        Self {
            cursor,
            page: Queue::default(),
            reading: false,
            generation: 0,
        }
    }

    /// What comes next.
    pub(crate) fn next(&mut self, log: &Log<T>) -> Next<T> {
        let number = self.cursor.sent() + 1;
        if number > log.confirmed {
            return Next::Nothing;
        }
        while self.page.front().is_some_and(|(at, _)| *at < number) {
            self.page.pop_front();
        }
        if let Some((_, entry)) = self.page.front().filter(|(at, _)| *at == number) {
            return Next::Entry(entry.clone());
        }
        if let Some(entry) = log.in_tail(number) {
            return Next::Entry(entry.clone());
        }
        if self.reading {
            return Next::Nothing;
        }
        self.reading = true;
        Next::Read {
            after: number - 1,
            up_to: log.confirmed,
        }
    }

    /// Which read it waits for.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The page asked for, in order. `false`: it was asked for by an earlier connection.
    pub(crate) fn page_read(&mut self, generation: u32, page: VecDeque<(u64, T)>) -> bool {
        if generation != self.generation || !self.reading {
            return false;
        }
        self.reading = false;
        self.page = page.into();
        true
    }

    /// The read failed; it is asked again at the next occasion.
    pub(crate) fn page_failed(&mut self, generation: u32) {
        if generation == self.generation {
            self.reading = false;
        }
    }

    /// The connection is gone.
    pub(crate) fn detach(&mut self) {
        self.cursor.detach();
        self.page = Queue::default();
        self.reading = false;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Gives memory back that is not needed now.
    pub(crate) fn rest(&mut self) {
        self.cursor.rest();
        let sent = self.cursor.sent();
        if self.page.back().is_none_or(|(at, _)| *at <= sent) {
            self.page = Queue::default();
        }
    }
}

/// Up to where rows are missing before a page that should begin at `first`; below `first` if none is.
pub(crate) fn gap_before<T>(page: &VecDeque<(u64, T)>, first: u64, confirmed: u64) -> u64 {
    page.front()
        .map_or(confirmed, |(number, _)| number.saturating_sub(1).max(first - 1))
}

#[cfg(test)]
mod tests {
    use super::super::cursor::State;
    use super::*;

    impl Entry for u64 {
        fn weight(&self) -> usize {
            8
        }
    }

    fn give(feed: &mut Feed<u64>, log: &Log<u64>) -> Option<u64> {
        match feed.next(log) {
            Next::Entry(number) => {
                drop(feed.cursor.gave(State::Sent, None));
                Some(number)
            }
            _ => None,
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
        assert_eq!(log.append(6, Waiter::Nobody), 6);
        assert_eq!(log.append(7, Waiter::Nobody), 7);
        assert_eq!(log.confirmed(), 5);
        assert_eq!(log.confirm(Keep::No).map(|(n, e, _)| (n, e)), Some((6, 6)));
        assert_eq!(log.confirm(Keep::No).map(|(n, e, _)| (n, e)), Some((7, 7)));
        assert!(log.confirm(Keep::No).is_none());
        assert!(log.is_settled());
    }

    #[test]
    fn a_feed_gives_new_entries_from_memory_and_old_ones_from_a_page() {
        let mut log = Log::<u64>::restored(Head::default(), 4);
        let mut feed = Feed::new(Cursor::new(2, 0));
        log.append(5, Waiter::Nobody);
        assert!(log.confirm(Keep::Tail).is_some());
        let Next::Read { after: 2, up_to: 5 } = feed.next(&log) else {
            panic!("3 is not in memory");
        };
        assert!(matches!(feed.next(&log), Next::Nothing), "asked once");
        assert!(feed.page_read(0, VecDeque::from([(3, 3), (4, 4)])));
        assert_eq!(
            [
                give(&mut feed, &log),
                give(&mut feed, &log),
                give(&mut feed, &log),
                give(&mut feed, &log)
            ],
            [Some(3), Some(4), Some(5), None]
        );
    }

    #[test]
    fn a_page_for_an_earlier_connection_is_not_taken() {
        let log = Log::<u64>::restored(Head::default(), 4);
        let mut feed = Feed::new(Cursor::new(0, 0));
        assert!(matches!(feed.next(&log), Next::Read { .. }));
        let generation = feed.generation();
        feed.detach();
        assert!(matches!(feed.next(&log), Next::Read { .. }));
        assert!(!feed.page_read(generation, VecDeque::from([(1, 1)])));
        assert!(feed.page_read(feed.generation(), VecDeque::from([(1, 1)])));
    }

    #[test]
    fn the_tail_in_memory_is_bounded_and_dropped_once_everybody_has_it() {
        let mut log = Log::<u64>::restored(Head::default(), 0);
        for n in 1..=1_000 {
            log.append(n, Waiter::Nobody);
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
