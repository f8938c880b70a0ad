//! A queue that is one pointer while it is empty: most sessions are idle most of the time, and have many.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

/// A [`VecDeque`] on the heap, made when something is first put in, given back by [`Queue::rest`].
#[derive(Clone, Debug)]
#[expect(clippy::box_collection, reason = "one pointer while empty is what it is for")]
pub(crate) struct Queue<T: 'static>(Option<Box<VecDeque<T>>>);

impl<T> Queue<T> {
    const EMPTY: &'static VecDeque<T> = &VecDeque::new();

    /// Gives the memory back if there is nothing in it.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> From<VecDeque<T>> for Queue<T> {
    fn from(queue: VecDeque<T>) -> Self {
        Self(Some(Box::new(queue)))
    }
}

impl<T> Deref for Queue<T> {
    type Target = VecDeque<T>;

    fn deref(&self) -> &VecDeque<T> {
        self.0.as_deref().unwrap_or(Self::EMPTY)
    }
}

impl<T> DerefMut for Queue<T> {
    fn deref_mut(&mut self) -> &mut VecDeque<T> {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_is_one_pointer_and_owns_nothing_after_a_rest() {
        let mut queue = Queue::default();
        assert_eq!(size_of::<Queue<u64>>(), size_of::<usize>());
        assert!(queue.is_empty() && queue.front().is_none());
        queue.push_back(7u64);
        queue.rest();
        assert_eq!(queue.pop_front(), Some(7));
        assert!(queue.0.is_some());
        queue.rest();
        assert!(queue.0.is_none());
    }
}
