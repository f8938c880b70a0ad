//! Wills that are due, so many at a time: a crowd that vanishes leaves tens of megabytes of them at once, and all else that is
//! to be stored would wait behind. What a will is and when it is due is in `wills`.

use std::collections::{HashMap, HashSet, VecDeque};

use godwit_cluster::Cx;
use godwit_wire::account::{AccountCommand, Principal};
use godwit_wire::command::Command;
use godwit_wire::ids::{Key, SessionId, UserId};
use uuid::Uuid;

use super::Users;
use super::env::{Env, Ticket, What};
use super::home::Home;
use super::rows::Name;
use crate::part::Part;
use crate::wire_trait::Wire;

/// Bytes of wills of a worker that are being published at a time, from which on others wait: they are in the store's queue two or
/// three times (where they are kept, and where they go).
const BYTES: usize = 128 << 10;
/// And how many.
const MOST: usize = 32;
/// Whose turn comes in one of the worker's: each is matched, given and stored.
const A_TURN: usize = 8;
/// Bytes of wills that a worker marks as due when the process ends while they wait: what the store takes in a part of the time that a stop may last. The
/// others are to the next start what they are after a crash.
const MARKED_BYTES: usize = 4 << 20;

/// Wills of this worker's users. Bounded by the wills that there are.
#[derive(Default)]
pub(crate) struct Firing {
    /// By number: being published.
    now: HashMap<u64, (UserId, usize)>,
    bytes: usize,
    /// Tags of those that wait for their turn, in the order in which they were due.
    waiting: VecDeque<(UserId, u64)>,
    /// The process ends: nothing waits any more, and so many bytes may still be marked.
    ends: Option<usize>,
}

impl Firing {
    /// Whether one that is due now may go.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.is_below()
    }

    fn is_below(&self) -> bool {
        self.now.len() < MOST && self.bytes < BYTES
    }

    /// The process ends: whether one that has no room is marked, for the next start or owner to publish.
    pub(crate) fn marks(&mut self, bytes: usize) -> bool {
        let room = self.ends.and_then(|room| room.checked_sub(bytes));
        self.ends = self.ends.map(|_| room.unwrap_or(0));
        room.is_some()
    }

    /// Whether the process ends.
    pub(crate) fn is_ending(&self) -> bool {
        self.ends.is_some()
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
    /// The process ends: what waits is left to the next start, or owner; a stop does not last until thousands are published.
    pub(super) fn leave_line(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire) {
        self.common.firing.ends = Some(MARKED_BYTES);
        for (user, tag) in std::mem::take(&mut self.common.firing.waiting) {
            let Some(Ticket {
                what: What::WillTurn(session, number),
                ..
            }) = self.take(Part::of(tag).1)
            else {
                continue;
            };
            self.came_back(user);
            self.with(cx, wire, user, |home, env| home.leave_will(env, session, number));
        }
    }

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

impl Home {
    /// A session has ended: its delayed will is due.
    pub(crate) fn session_over(&mut self, env: &mut Env<'_, '_>, session: SessionId) {
        let of_session = self
            .wills
            .iter()
            .filter(|will| will.session == session && !will.firing);
        let numbers: Vec<u64> = of_session.map(|will| will.number).collect();
        for number in numbers {
            self.fire_will(env, session, number);
        }
    }

    /// It is due: whether it may leave is checked now (SCOPE). What its client came by must not be revoked, and must give
    /// the right to its topic; that its time is over is no harm.
    pub(super) fn fire_will(&mut self, env: &mut Env<'_, '_>, session: SessionId, number: u64) {
        if env.common.firing.has_room() {
            self.fire_will_now(env, session, number);
        } else if let Some(will) = self.will(session, number)
            && !std::mem::replace(&mut will.firing, true)
        {
            will.waits = true;
            if env.common.firing.is_ending() {
                self.leave_will(env, session, number);
            } else {
                env.wait_to_fire(What::WillTurn(session, number));
            }
        }
    }

    pub(super) fn fire_will_now(&mut self, env: &mut Env<'_, '_>, session: SessionId, number: u64) {
        let user = env.user;
        let Some(will) = self.will(session, number) else {
            return;
        };
        will.waits = false;
        env.common.firing.begins(user, number, will.row.payload.len());
        let Ok(credential) = Uuid::from_slice(&will.row.credential) else {
            let anonymous = Principal::anonymous(user);
            self.publish_will(env, session, number, &anonymous);
            return;
        };
        will.firing = true;
        let command = Command::Account(Box::new(AccountCommand::Standing { credential }));
        env.ask(What::WillOf(session, number), Key::User(user), command);
    }

    /// Its turn does not come before the end of the process: whoever reads its row publishes it, also if its client returns before.
    pub(crate) fn leave_will(&mut self, env: &mut Env<'_, '_>, session: SessionId, number: u64) {
        let (user, view, now) = (env.user, env.view(), env.stamp_ms());
        let Some(will) = self.will(session, number).filter(|will| will.waits) else {
            return;
        };
        // It stays in no line; its due row is in the past, or is moved there.
        will.waits = false;
        if !env.common.firing.marks(will.row.payload.len()) {
            return;
        }
        will.row.marked = true;
        if will.row.due_at > now {
            // Its session was over before its delay.
            self.move_will(env, session, number, now, now);
            return;
        }
        if will.row.due_at == 0 {
            will.row.due_at = now;
        }
        let op = Name::Will(session, number).put(user, view, &*will.row);
        env.store(What::Lazy, vec![op]);
    }

    /// Its turn has come, if it was not before its turn that it had to go.
    pub(crate) fn will_turn(&mut self, env: &mut Env<'_, '_>, session: SessionId, number: u64) {
        if self.will(session, number).is_some_and(|will| will.waits) {
            self.fire_will_now(env, session, number);
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
