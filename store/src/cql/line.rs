//! Work that nobody waits for, such as deleting what a former owner left: one bounded line of it, of which few are at work at a time. Plain
//! state; what the work is, and that what is turned away is done by a later owner, is said by who uses it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// A line of work.
pub(super) struct Line<T> {
    state: Mutex<State<T>>,
    at_once: usize,
    most: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    at_work: usize,
}

/// What is to be done about something that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Start one more that takes from the line until it is told that there is nothing left.
    Start,
    /// It waits.
    Waits,
    /// The line is full: it is dropped.
    Full,
}

impl<T> Line<T> {
    /// `at_once` at work, `most` in the line.
    pub(super) fn new(at_once: usize, most: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            at_work: 0,
        };
        Self {
            state: Mutex::new(state),
            at_once,
            most,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn came(&self, one: T) -> Came {
        let mut state = self.state();
        if state.waiting.len() >= self.most {
            return Came::Full;
        }
        state.waiting.push_back(one);
        if state.at_work >= self.at_once {
            return Came::Waits;
        }
        state.at_work += 1;
        Came::Start
    }

    /// The next one for somebody who was started; `None` ends it.
    pub(super) fn next(&self) -> Option<T> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.at_work -= 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_at_work_a_bounded_number_waits_and_the_rest_is_turned_away() {
        let line = Line::new(2, 3);
        let came: Vec<Came> = (1..=4).map(|n| line.came(n)).collect();
        assert_eq!(came, [Came::Start, Came::Start, Came::Waits, Came::Full]);
        // The two that were started take what there is, in order.
        assert_eq!((line.next(), line.next()), (Some(1), Some(2)));
        assert_eq!((line.came(5), line.came(6)), (Came::Waits, Came::Waits));
        assert_eq!(
            (line.next(), line.next(), line.next()),
            (Some(3), Some(5), Some(6))
        );
        assert_eq!(line.next(), None, "the first of them has ended");
        assert_eq!(line.came(7), Came::Start, "one is at work");
        assert_eq!(line.came(8), Came::Waits);
        assert_eq!(
            (line.next(), line.next(), line.next(), line.next()),
            (Some(7), Some(8), None, None)
        );
        assert_eq!(line.came(9), Came::Start);
    }
}
