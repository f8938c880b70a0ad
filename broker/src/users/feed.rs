//! A session's feed from a log: what just came directly from memory, what is older in pages from the store. Reads nothing
//! itself and knows no packets.

use std::collections::VecDeque;

use super::cursor::Cursor;
use super::log::{Entry, Log};
use super::queue::Queue;

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
        if number > log.confirmed() {
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
            up_to: log.confirmed(),
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
    use godwit_store::Head;

    use super::super::cursor::State;
    use super::super::log::Keep;
    use super::super::waiter::Waiter;
    use super::*;

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
    fn a_feed_gives_new_entries_from_memory_and_old_ones_from_a_page() {
        let mut log = Log::<u64>::restored(Head::default(), 4);
        let mut feed = Feed::new(Cursor::new(2, 0));
        log.append(5, Waiter::Nobody, 8);
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
}
