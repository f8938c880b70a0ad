//! Publishes that are for many: given to their users a part a turn, key after key, so that everybody else on the worker
//! is served in between. What belongs to one key goes one after another; the users who publish to it take turns, and none
//! has more than a share of what there is (decision 0012).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Command, Publish, Target, UserCommand};
use godwit_wire::ids::{Key, UserId};
use godwit_wire::limits::RECEIVE_MAXIMUM;

use super::shared::Sharing;
use super::{Step, TIMER_SPREAD, Topics};
use crate::part::Part;

/// Users that a publish is given to without further ado: it costs not much more than to read it.
pub(super) const FEW: usize = 8;
/// Most users that the others are given to in a turn: a delivery is 10 to 60 µs of work with its write to the socket or
/// the store, and one to a user that must be loaded 100; and what others do takes several turns to come back to them.
pub(super) const A_TURN: usize = 16;
/// Most of them that one key has before the next one has its part.
pub(super) const A_KEY: usize = 4;
/// Nodes of the tree of subscriptions after which a turn matches nothing more that may be as costly: about
/// a quarter of a millisecond. The one that goes beyond it is matched to its end.
pub(super) const A_WALK: usize = 4 * 1024;
/// After a turn that went beyond it nothing costly is matched for as long as its walk took, about, so that half of the
/// worker's time is the others'.
const WALK_PER_MS: usize = 16 * 1024;
/// Deliveries that are matched and not given yet, from which on no other publish for many is matched, at some 150 bytes
/// each. One publish may overrun it.
pub(super) const MATCHED: usize = 64 * 1024;
/// Deliveries that are given and not answered from which on no others are given: their users' homes have no room or their
/// store stands still. What one turn gives may overrun it.
pub(super) const UNANSWERED: usize = 16 * 1024;
/// The same while answers come: they lie before what others ask of the workers that they are for, 20 ms of work in all.
pub(super) const IN_INBOXES: usize = 512;
/// For how long there may be as many all the while, milliseconds, until twice as many may be, up to [`UNANSWERED`]: then it is not those workers that are busy,
/// but a store that stands still or a node that does not answer.
pub(super) const STUCK_MS: u64 = 200;
/// After how long it is looked again whether there is room behind this worker, milliseconds; most turns look anyway.
const LOOK_AGAIN_MS: u64 = 5;
/// Most publishes that wait, for others of their key or for room; beyond it they are refused as `unavailable`.
pub(super) const WAITING: usize = 4_096;
/// The same in bytes of payload.
const WAITING_BYTES: usize = 64 << 20;
/// What one user may have of [`WAITING`], [`WAITING_BYTES`] and [`MATCHED`]: one part in so many. Of the first that is the
/// receive maximum, so that what a single connection publishes always finds a place.
pub(super) const SHARES: usize = 16;
const _: () = assert!(WAITING / SHARES >= RECEIVE_MAXIMUM as usize);
/// Publishes for many of one user that are given at a time, each of its key: who publishes to a thousand keys has no more
/// of the turns than this many others.
pub(super) const AT_ONCE: usize = 4;

/// A publish that is being given to its users.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) publish: Arc<Publish>,
    pub(super) by: UserId,
    /// Where its answers are gathered; `None`: nobody waits for them.
    pub(super) place: Option<usize>,
    pub(super) deliveries: std::vec::IntoIter<(UserId, Vec<Target>)>,
    pub(super) groups: Vec<Arc<str>>,
    /// When it was matched, in the worker's milliseconds.
    pub(super) matched_ms: u64,
}

/// One that is not matched yet.
#[derive(Debug)]
struct Waiting {
    publish: Arc<Publish>,
    by: UserId,
    reply: Reply,
}

/// What is to be done for one key.
#[derive(Debug, Default)]
struct OfKey {
    now: Option<Spread>,
    /// By who publishes, so that none waits for all of another's. All of a user's are in one line: what its next
    /// connection publishes, or its will, is behind what waits already.
    next: VecDeque<(UserId, VecDeque<Waiting>)>,
}

/// What a user has of it all.
#[derive(Debug, Default)]
struct OfUser {
    waiting: usize,
    waiting_bytes: usize,
    /// Publishes that are being given.
    now: usize,
    /// Deliveries of them that are not given yet.
    matched: usize,
}

/// Publishes that are not given to all of their users yet.
#[derive(Debug)]
pub(super) struct Spreads {
    keys: HashMap<Key, OfKey>,
    /// Those with anything in `keys`.
    users: HashMap<UserId, OfUser>,
    /// Turns of the keys.
    ring: VecDeque<Key>,
    /// What this turn has left of [`A_TURN`].
    left: usize,
    /// What this turn has used of [`A_WALK`].
    walked: usize,
    /// Until when (worker's milliseconds) nothing costly is matched.
    rest_until: u64,
    matched: usize,
    unanswered: usize,
    /// How many may be: [`IN_INBOXES`], doubled each time that nothing moved.
    most: usize,
    /// Since when (worker's milliseconds) there are as many.
    full_since: Option<u64>,
    waiting: usize,
    waiting_bytes: usize,
    timer: bool,
}

impl Default for Spreads {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            users: HashMap::new(),
            ring: VecDeque::new(),
            left: A_TURN,
            walked: 0,
            rest_until: 0,
            matched: 0,
            unanswered: 0,
            most: IN_INBOXES,
            full_since: None,
            waiting: 0,
            waiting_bytes: 0,
            timer: false,
        }
    }
}

impl Spreads {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether nothing is counted any more.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        let all = self.matched + self.unanswered + self.waiting + self.waiting_bytes;
        all == 0 && self.users.is_empty() && self.ring.is_empty()
    }

    /// A publish was matched, at this cost.
    pub(super) fn walk(&mut self, steps: usize) {
        self.walked += steps;
    }

    /// Whether nothing costly is to be matched for the moment.
    pub(super) fn rests(&self, now_ms: u64) -> bool {
        self.walked >= A_WALK || now_ms < self.rest_until
    }

    /// Whether a publish of this key has its turn behind others.
    pub(super) fn holds(&self, key: &Key) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(key)
    }

    /// Whether one of this user for so many is to wait before it is matched for good.
    pub(super) fn is_full(&self, users: usize, by: UserId) -> bool {
        users > FEW && !self.may_begin(by)
    }

    /// Whether there is room for one more publish for many of this user.
    fn may_begin(&self, by: UserId) -> bool {
        let has_share = |of: &OfUser| of.now == 0 || (of.now < AT_ONCE && of.matched < MATCHED / SHARES);
        self.matched < MATCHED && self.users.get(&by).is_none_or(has_share)
    }

    /// Changes what a user has.
    fn count(&mut self, by: UserId, change: impl FnOnce(&mut OfUser)) {
        let of = self.users.entry(by).or_default();
        change(of);
        if of.waiting == 0 && of.now == 0 {
            self.users.remove(&by);
        }
    }

    /// These keys are another worker's: what waits for them is answered by being dropped.
    pub(super) fn give_up(&mut self, is_lost: impl Fn(&Key) -> bool) {
        let lost: Vec<Key> = self.keys.keys().filter(|key| is_lost(key)).cloned().collect();
        for key in lost {
            let Some(OfKey { now, next }) = self.keys.remove(&key) else {
                continue;
            };
            if let Some(spread) = now {
                let left = spread.deliveries.len();
                self.matched -= left;
                self.count(spread.by, |of| {
                    (of.now, of.matched) = (of.now - 1, of.matched - left)
                });
            }
            for (by, line) in next {
                let bytes: usize = line.iter().map(|one| one.publish.payload.len()).sum();
                (self.waiting, self.waiting_bytes) = (self.waiting - line.len(), self.waiting_bytes - bytes);
                self.count(by, |of| {
                    (of.waiting, of.waiting_bytes) = (of.waiting - line.len(), of.waiting_bytes - bytes);
                });
            }
        }
        self.ring.retain(|key| !is_lost(key));
    }

    /// A delivery was answered.
    pub(super) fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.unanswered < self.most {
            self.full_since = None;
        }
        if self.unanswered < IN_INBOXES {
            self.most = IN_INBOXES;
        }
    }

    /// Whether the homes of users have as much of this worker as they are to have.
    fn waits_for_answers(&mut self, now_ms: u64) -> bool {
        if self.unanswered < self.most {
            return false;
        }
        let since = *self.full_since.get_or_insert(now_ms);
        if self.most < UNANSWERED && now_ms.saturating_sub(since) >= STUCK_MS {
            (self.most, self.full_since) = (self.most * 2, None);
        }
        self.unanswered >= self.most
    }

    /// Whether one for so many goes in this turn.
    pub(super) fn go(&mut self, users: usize) -> bool {
        if users <= FEW {
            return true;
        }
        let goes = users <= self.left;
        if goes {
            self.left -= users;
        }
        goes
    }

    fn of_key(&mut self, key: &Key) -> &mut OfKey {
        if !self.keys.contains_key(key) {
            self.ring.push_back(key.clone());
        }
        self.keys.entry(key.clone()).or_default()
    }

    /// Begins one that does not go in this turn. Nothing of its key is under way.
    pub(super) fn begin(&mut self, key: &Key, spread: Spread) {
        let users = spread.deliveries.len();
        self.matched += users;
        self.count(spread.by, |of| {
            (of.now, of.matched) = (of.now + 1, of.matched + users)
        });
        self.of_key(key).now = Some(spread);
    }

    /// The next of those that wait for their turn in this key, of the first user who has room for it.
    fn next(&mut self, key: &Key) -> Option<Waiting> {
        let lines = &self.keys.get(key)?.next;
        let at = lines.iter().position(|(by, _)| self.may_begin(*by))?;
        let lines = &mut self.keys.get_mut(key)?.next;
        let (by, mut line) = lines.remove(at)?;
        let next = line.pop_front()?;
        if !line.is_empty() {
            lines.push_back((by, line));
        }
        let bytes = next.publish.payload.len();
        (self.waiting, self.waiting_bytes) = (self.waiting - 1, self.waiting_bytes - bytes);
        self.count(by, |of| {
            (of.waiting, of.waiting_bytes) = (of.waiting - 1, of.waiting_bytes - bytes);
        });
        Some(next)
    }

    /// Whether there is a place to wait for one more of this user, of so many bytes. One of any size has one where it is
    /// the user's only one.
    fn has_place(&self, by: UserId, bytes: usize) -> bool {
        let has_share = |of: &OfUser| {
            of.waiting == 0
                || (of.waiting < WAITING / SHARES && of.waiting_bytes + bytes <= WAITING_BYTES / SHARES)
        };
        self.waiting < WAITING
            && self.waiting_bytes + bytes <= WAITING_BYTES
            && self.users.get(&by).is_none_or(has_share)
    }
}

impl Topics {
    /// Puts a publish behind those of its key, or behind whatever has no room.
    pub(super) fn wait(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        publish: Arc<Publish>,
        by: UserId,
        reply: Reply,
    ) {
        let spreads = &mut self.spreads;
        let bytes = publish.payload.len();
        if !spreads.has_place(by, bytes) {
            self.metrics.crowded.inc();
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        (spreads.waiting, spreads.waiting_bytes) = (spreads.waiting + 1, spreads.waiting_bytes + bytes);
        spreads.count(by, |of| {
            (of.waiting, of.waiting_bytes) = (of.waiting + 1, of.waiting_bytes + bytes);
        });
        let waiting = Waiting { publish, by, reply };
        let lines = &mut spreads.of_key(key).next;
        match lines.iter_mut().find(|(of, _)| *of == by) {
            Some((_, line)) => line.push_back(waiting),
            None => lines.push_back((by, VecDeque::from([waiting]))),
        }
        if let Some(home) = self.home(key) {
            home.busy += 1;
        }
    }

    /// Gives a publish to its next users, at most so many; `late`: in a later turn than it came. `true`: to all.
    pub(super) fn give(&mut self, cx: &mut Cx<'_>, spread: &mut Spread, most: usize, late: bool) -> bool {
        let waited_ms = cx.now().mono_ms.saturating_sub(spread.matched_ms);
        let late = match late {
            true => u32::try_from(waited_ms / 1_000 + 1).unwrap_or(u32::MAX),
            false => 0,
        };
        for (user, targets) in spread.deliveries.by_ref().take(most) {
            let deliver = Command::User(UserCommand::Deliver {
                publish: spread.publish.clone(),
                targets,
                late,
            });
            match spread.place {
                Some(place) => {
                    self.spreads.unanswered += 1;
                    let tag = self.step(Step::Publish(place));
                    cx.ask(tag, Key::User(user), deliver);
                }
                None => cx.tell(Key::User(user), deliver),
            }
        }
        if spread.deliveries.len() > 0 {
            return false;
        }
        if let Some(place) = spread.place {
            for filter in std::mem::take(&mut spread.groups) {
                self.share(cx, Sharing::new(place, filter, None));
            }
        }
        true
    }

    /// The end of a turn: what did not go in it goes on.
    pub(crate) fn end_of_turn(&mut self, cx: &mut Cx<'_>) {
        self.spreads.left = A_TURN;
        let now = cx.now().mono_ms;
        self.rest(now);
        if self.spreads.is_empty() {
            return;
        }
        if cx.congested() || self.spreads.waits_for_answers(now) {
            self.come_again(cx, LOOK_AGAIN_MS);
            return;
        }
        // Each key at least once, or nothing might move for lack of room while another could make some.
        let mut idle = 0;
        while self.spreads.left > 0 && idle < self.spreads.ring.len() {
            let Some(key) = self.spreads.ring.pop_front() else {
                break;
            };
            let before = self.spreads.left;
            self.go_on_with(cx, &key);
            idle = if self.spreads.left < before { 0 } else { idle + 1 };
            let over = |of_key: &OfKey| of_key.now.is_none() && of_key.next.is_empty();
            if self.spreads.keys.get(&key).is_none_or(over) {
                self.spreads.keys.remove(&key);
            } else {
                self.spreads.ring.push_back(key);
            }
        }
        self.rest(now);
        if !self.spreads.is_empty() {
            // If all of it is for other workers, nothing else makes this one's next turn.
            let still = self.spreads.left == A_TURN;
            let rest = self.spreads.rest_until.saturating_sub(now);
            self.come_again(cx, if still { rest } else { 0 });
        }
    }

    /// What was walked in a turn is rested from.
    fn rest(&mut self, now_ms: u64) {
        let walked = std::mem::take(&mut self.spreads.walked);
        if walked >= A_WALK {
            self.spreads.rest_until = now_ms + 1 + (walked / WALK_PER_MS) as u64;
        }
    }

    fn come_again(&mut self, cx: &mut Cx<'_>, ms: u64) {
        if !std::mem::replace(&mut self.spreads.timer, true) {
            cx.after(ms, Part::Topics.tag(TIMER_SPREAD));
        }
    }

    /// The end of this turn goes on.
    pub(super) fn spread_timer(&mut self) {
        self.spreads.timer = false;
    }

    /// A key has its part of the turn.
    fn go_on_with(&mut self, cx: &mut Cx<'_>, key: &Key) {
        let now = self
            .spreads
            .keys
            .get_mut(key)
            .and_then(|of_key| of_key.now.take());
        let Some(mut spread) = now else {
            if self.waits_for_rest(cx, key) {
                return;
            }
            if let Some(Waiting { publish, by, reply }) = self.spreads.next(key) {
                self.spreads.left -= 1;
                if let Some(home) = self.home(key) {
                    home.busy = home.busy.saturating_sub(1);
                }
                self.publish_now(cx, key, publish, by, reply);
            }
            return;
        };
        let before = spread.deliveries.len();
        let all = self.give(cx, &mut spread, self.spreads.left.min(A_KEY), true);
        let given = before - spread.deliveries.len();
        self.spreads.left -= given;
        self.spreads.matched -= given;
        self.spreads.count(spread.by, |of| {
            (of.now, of.matched) = (of.now - usize::from(all), of.matched - given);
        });
        if !all && let Some(of_key) = self.spreads.keys.get_mut(key) {
            of_key.now = Some(spread);
        }
    }
}
