//! The feed's list of work: which conversations wait to be read, which were read since the last commit, and how old the
//! oldest of them is. No IO, no clock.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::{Indexed, Tail};
use crate::progress::MAX_MARKS;

/// Conversations waiting at most (about 8 MB); beyond, the open tails stand in for them.
pub(super) const MAX_PENDING: usize = 65_536;

/// A time so early that nothing can be said.
pub(super) const UNKNOWN: i64 = i64::MIN;

#[derive(Default)]
pub(super) struct WorkList {
    pending: HashMap<Uuid, Waiting>,
    queue: VecDeque<Uuid>,
    touched: HashMap<Uuid, Touched>,
    /// Where reading goes on, with what is not yet committed.
    marks: HashMap<Uuid, u64>,
    /// How many pending conversations come from a walk, by shard.
    walked: HashMap<u32, usize>,
}

/// How a conversation came to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It was notified.
    Told,
    /// A walk found it.
    Walked,
    /// A walk over everything found it: nobody waits to hear that it is indexed.
    Unasked,
}

/// A conversation that waits.
#[derive(Clone, Copy)]
struct Waiting {
    shard: u32,
    target: u64,
    /// Nothing in it was confirmed before this time without being indexed.
    since_ms: i64,
    walked: bool,
    /// Somebody waits to hear that it is indexed.
    asked: bool,
}

/// A conversation read since the last commit.
struct Touched {
    shard: u32,
    up_to: u64,
    since_ms: i64,
    walked: bool,
    asked: bool,
}

impl WorkList {
    /// Adds a conversation, or raises what it waits for. False when there is no room.
    pub(super) fn add(&mut self, tail: Tail, since_ms: i64, came: Came) -> bool {
        let (walked, asked) = (came != Came::Told, came != Came::Unasked);
        let full = self.pending.len() >= MAX_PENDING;
        match self.pending.get_mut(&tail.conversation) {
            Some(waiting) => {
                waiting.target = waiting.target.max(tail.confirmed_up_to);
                waiting.since_ms = waiting.since_ms.min(since_ms);
                waiting.asked |= asked;
                if walked && !waiting.walked {
                    waiting.walked = true;
                    *self.walked.entry(waiting.shard).or_default() += 1;
                }
            }
            None if full => return false,
            None => {
                let waiting = Waiting {
                    shard: tail.shard,
                    target: tail.confirmed_up_to,
                    since_ms,
                    walked,
                    asked,
                };
                self.pending.insert(tail.conversation, waiting);
                self.queue.push_back(tail.conversation);
                if walked {
                    *self.walked.entry(tail.shard).or_default() += 1;
                }
            }
        }
        true
    }

    /// The next conversation to read; it stays pending until `read` says it is done.
    pub(super) fn next(&mut self) -> Option<Tail> {
        let conversation = self.queue.pop_front()?;
        let waiting = self.pending.get(&conversation)?;
        Some(Tail {
            conversation,
            shard: waiting.shard,
            confirmed_up_to: waiting.target,
        })
    }

    /// Notes that `conversation` was read up to `up_to`. Unless `done`, it waits again, behind the others.
    pub(super) fn read(&mut self, tail: Tail, up_to: u64, done: bool) {
        let Some(waiting) = self.pending.get(&tail.conversation).copied() else {
            return;
        };
        self.marks.insert(tail.conversation, up_to);
        let touched = self.touched.entry(tail.conversation).or_insert(Touched {
            shard: tail.shard,
            up_to,
            since_ms: waiting.since_ms,
            walked: waiting.walked,
            asked: waiting.asked,
        });
        touched.walked |= waiting.walked;
        touched.asked |= waiting.asked;
        touched.up_to = touched.up_to.max(up_to);
        touched.since_ms = touched.since_ms.min(waiting.since_ms);
        if done {
            self.pending.remove(&tail.conversation);
            self.unwalk(&waiting);
        } else {
            self.queue.push_back(tail.conversation);
        }
    }

    /// The conversation that `next` gave could not be read: it waits again.
    pub(super) fn defer(&mut self, conversation: Uuid) {
        self.queue.push_back(conversation);
    }

    pub(super) fn mark(&self, conversation: Uuid) -> Option<u64> {
        self.marks.get(&conversation).copied()
    }

    fn unwalk(&mut self, waiting: &Waiting) {
        if waiting.walked
            && let Some(of) = self.walked.get_mut(&waiting.shard)
        {
            *of -= 1;
            if *of == 0 {
                self.walked.remove(&waiting.shard);
            }
        }
    }

    /// Conversations of these shards wait no more.
    pub(super) fn drop_shards(&mut self, gone: impl Fn(u32) -> bool) {
        self.pending.retain(|_, waiting| !gone(waiting.shard));
        let pending = &self.pending;
        self.queue
            .retain(|conversation| pending.contains_key(conversation));
        self.walked.retain(|shard, _| !gone(*shard));
    }

    /// What the commit that just succeeded made durable, and whether somebody waits to hear of it.
    pub(super) fn committed(&mut self) -> Vec<(Indexed, bool)> {
        if self.marks.len() > MAX_MARKS {
            self.marks.clear();
        }
        self.touched
            .drain()
            .map(|(conversation, touched)| {
                let indexed = Indexed {
                    conversation,
                    shard: touched.shard,
                    up_to: touched.up_to,
                };
                (indexed, touched.asked)
            })
            .collect()
    }

    /// After a failure: everything since the last commit must be read again, from the marks that the index gives.
    pub(super) fn rolled_back(&mut self) {
        self.marks.clear();
        for (conversation, touched) in std::mem::take(&mut self.touched) {
            let waiting = self.pending.entry(conversation).or_insert(Waiting {
                shard: touched.shard,
                target: touched.up_to,
                since_ms: touched.since_ms,
                walked: false,
                asked: false,
            });
            waiting.since_ms = waiting.since_ms.min(touched.since_ms);
            waiting.asked |= touched.asked;
            if touched.walked && !std::mem::replace(&mut waiting.walked, true) {
                // The walk is not through before it has been read again.
                *self.walked.entry(waiting.shard).or_default() += 1;
            }
        }
        self.queue = self.pending.keys().copied().collect();
    }

    /// A conversation was removed from the index: its marks mean nothing any more. `None`: any may have been.
    pub(super) fn forget_marks(&mut self, conversation: Option<Uuid>) {
        match conversation {
            Some(conversation) => {
                self.marks.remove(&conversation);
            }
            None => self.marks.clear(),
        }
    }

    /// Before when everything that was confirmed has been read, as far as the pending ones show.
    pub(super) fn oldest_pending(&self) -> Option<i64> {
        self.pending.values().map(|waiting| waiting.since_ms).min()
    }

    /// How many conversations were read since the last commit.
    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn walked_pending(&self) -> usize {
        self.walked.values().sum()
    }

    /// Whether a conversation of this shard that a walk found still waits.
    pub(super) fn is_walked(&self, shard: u32) -> bool {
        self.walked.contains_key(&shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(n: u128, confirmed_up_to: u64) -> Tail {
        Tail {
            conversation: Uuid::from_u128(n),
            shard: 0,
            confirmed_up_to,
        }
    }

    #[test]
    fn a_conversation_waits_once_with_its_highest_target_and_oldest_time() {
        let mut work = WorkList::default();
        assert!(work.add(tail(1, 5), 10, Came::Told));
        assert!(work.add(tail(1, 3), 20, Came::Walked));
        assert_eq!(
            (work.pending(), work.walked_pending(), work.oldest_pending()),
            (1, 1, Some(10))
        );
        assert_eq!(work.next(), Some(tail(1, 5)));
        assert_eq!(work.next(), None);
        work.read(tail(1, 5), 5, true);
        assert_eq!(
            (
                work.pending(),
                work.walked_pending(),
                work.mark(tail(1, 0).conversation)
            ),
            (0, 0, Some(5))
        );
        assert_eq!(work.committed().len(), 1);
        assert!(work.committed().is_empty());
    }

    #[test]
    fn a_long_conversation_lets_the_others_pass() {
        let mut work = WorkList::default();
        work.add(tail(1, 1_000), 0, Came::Told);
        work.add(tail(2, 1), 0, Came::Told);
        let long = work.next().unwrap();
        work.read(long, 256, false);
        assert_eq!(work.next().unwrap().conversation, tail(2, 1).conversation);
    }

    #[test]
    fn what_was_not_committed_waits_again_after_a_failure() {
        let mut work = WorkList::default();
        work.add(tail(1, 5), 10, Came::Told);
        work.add(tail(2, 5), 10, Came::Walked);
        let first = work.next().unwrap();
        let second = work.next().unwrap();
        work.read(first, 5, true);
        work.read(second, 5, true);
        assert_eq!(work.walked_pending(), 0);
        work.rolled_back();
        assert_eq!(work.walked_pending(), 1, "the walk is not through");
        assert_eq!((work.pending(), work.mark(first.conversation)), (2, None));
        assert!(work.next().is_some() && work.next().is_some() && work.next().is_none());
    }

    #[test]
    fn what_a_shard_had_waiting_goes_with_it() {
        let mut work = WorkList::default();
        let other = Tail {
            shard: 7,
            ..tail(2, 5)
        };
        work.add(tail(1, 5), 10, Came::Walked);
        work.add(other, 10, Came::Unasked);
        work.drop_shards(|shard| shard == 0);
        assert_eq!((work.pending(), work.walked_pending()), (1, 1));
        assert!(work.is_walked(7) && !work.is_walked(0));
        let next = work.next().unwrap();
        assert_eq!((next, work.next()), (other, None));
        work.read(next, 5, true);
        let [(indexed, asked)] = work.committed()[..] else {
            panic!("one")
        };
        assert_eq!((indexed.up_to, asked, work.walked_pending()), (5, false, 0));
    }

    #[test]
    fn a_full_list_takes_no_new_conversation() {
        let mut work = WorkList::default();
        for n in 0..MAX_PENDING as u128 {
            assert!(work.add(tail(n, 1), 0, Came::Told));
        }
        assert!(!work.add(tail(u128::MAX, 1), 0, Came::Told));
        assert!(work.add(tail(0, 2), 0, Came::Told));
    }
}
