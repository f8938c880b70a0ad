//! Wills that are due, so many at a time: a crowd that vanishes leaves tens of megabytes of them at once, and all else that is
//! to be stored would wait behind. What a will is and when it is due is in `wills`.

use std::collections::{HashMap, HashSet, VecDeque};

use godwit_cluster::Cx;
use godwit_wire::ids::{Key, UserId};

use super::Users;
use crate::part::Part;

/// Bytes of wills of a worker that are being published at a time, from which on others wait: they are in the store's queue two or
/// three times (where they are kept, and where they go).
const BYTES: usize = 256 << 10;
/// And how many.
const MOST: usize = 64;
/// Whose turn comes in one of the worker's: each is matched, given and stored.
const A_TURN: usize = 8;

/// Wills of this worker's users. Bounded by the wills that there are.
#[derive(Default)]
pub(crate) struct Firing {
    /// By number: being published.
    now: HashMap<u64, (UserId, usize)>,
    bytes: usize,
    /// Tags of those that wait for their turn, in the order in which they were due.
    waiting: VecDeque<(UserId, u64)>,
}

impl Firing {
    /// Whether one that is due now may go.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.is_below()
    }

    fn is_below(&self) -> bool {
        self.now.len() < MOST && self.bytes < BYTES
    }

    pub(crate) fn wait(&mut self, user: UserId, ticket: u64) {
        self.waiting.push_back((user, ticket));
    }

    pub(crate) fn begins(&mut self, user: UserId, number: u64, bytes: usize) {
        if let Some((_, before)) = self.now.insert(number, (user, bytes)) {
            self.bytes -= before;
        }
        self.bytes += bytes;
    }

    /// Published, or not to be: as often as one likes.
    pub(crate) fn is_over(&mut self, number: u64) {
        if let Some((_, bytes)) = self.now.remove(&number) {
            self.bytes -= bytes;
        }
    }

    /// Users of these shards are others'. Gives the tickets that nothing comes back for.
    #[must_use = "they are still issued"]
    pub(crate) fn given_up(&mut self, lost: &HashSet<u16>) -> Vec<u64> {
        let is_lost = |user: &UserId| lost.contains(&Key::User(*user).shard());
        let (gone, waiting): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(user, _)| is_lost(user));
        self.waiting = waiting;
        self.now.retain(|_, (user, _)| !is_lost(user));
        self.bytes = self.now.values().map(|(_, bytes)| bytes).sum();
        gone.into_iter().map(|(_, tag)| Part::of(tag).1).collect()
    }
}

impl Users {
    /// The end of a turn: the next ones whose turn has come.
    pub(super) fn fire_some(&mut self, cx: &mut Cx<'_>) {
        let firing = &mut self.common.firing;
        if firing.waiting.is_empty() || !firing.is_below() {
            return;
        }
        for (user, ticket) in firing.waiting.drain(..A_TURN.min(firing.waiting.len())) {
            cx.enter(Key::User(user), ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u128) -> UserId {
        UserId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_will_has_room_while_few_go_and_none_waits() {
        let mut firing = Firing::default();
        for number in 0..MOST as u64 {
            assert!(firing.has_room(), "{number}");
            firing.begins(user(1), number, 1);
        }
        assert!(!firing.has_room(), "as many as may go");
        firing.is_over(0);
        firing.is_over(0);
        assert!(firing.has_room());
        firing.wait(user(2), 7);
        assert!(!firing.has_room(), "nobody overtakes who waits");
        firing.waiting.clear();
        firing.begins(user(1), 1, BYTES);
        firing.begins(user(1), 1, BYTES);
        assert!(!firing.has_room(), "a large one is enough");
        firing.is_over(1);
        assert!(firing.has_room());
    }

    #[test]
    fn what_was_given_up_is_not_counted() {
        let mut firing = Firing::default();
        firing.begins(user(1), 1, BYTES);
        firing.wait(user(1), 7);
        let gone = firing.given_up(&HashSet::from([Key::User(user(1)).shard()]));
        assert_eq!(gone, [7]);
        assert!(firing.has_room());
        firing.is_over(1);
        assert_eq!(firing.bytes, 0);
    }
}
