//! Publishes that are for many: given to their users a part a turn, key after key, so that everybody else on the worker
//! is served in between. What belongs to one key stays in order; who publishes to it takes turns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Command, Publish, Target, UserCommand};
use godwit_wire::ids::{Key, SessionId, UserId};

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
/// Deliveries of publishes under way from which on no other is matched, at some 150 bytes each. One publish may overrun it.
pub(super) const MATCHED: usize = 64 * 1024;
/// Most publishes that wait, for others of their key or for room; beyond it they are refused as `unavailable`.
pub(super) const WAITING: usize = 4_096;
/// The same in bytes of payload.
const WAITING_BYTES: usize = 64 << 20;

/// A publish that is being given to its users.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) publish: Arc<Publish>,
    /// Where its answers are gathered; `None`: nobody waits for them.
    pub(super) place: Option<usize>,
    pub(super) deliveries: std::vec::IntoIter<(UserId, Vec<Target>)>,
    pub(super) groups: Vec<Arc<str>>,
}

/// One that is not matched yet.
#[derive(Debug)]
struct Waiting {
    publish: Arc<Publish>,
    owner: Option<UserId>,
    reply: Reply,
}

/// What is to be done for one key.
#[derive(Debug, Default)]
struct OfKey {
    now: Option<Spread>,
    /// By who publishes, so that none waits for all of another's.
    next: VecDeque<(Option<SessionId>, VecDeque<Waiting>)>,
}

/// Publishes that are not given to all of their users yet.
#[derive(Debug)]
pub(super) struct Spreads {
    keys: HashMap<Key, OfKey>,
    /// Their turns.
    ring: VecDeque<Key>,
    /// What this turn has left of [`A_TURN`].
    left: usize,
    matched: usize,
    waiting: usize,
    waiting_bytes: usize,
    timer: bool,
}

impl Default for Spreads {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            ring: VecDeque::new(),
            left: A_TURN,
            matched: 0,
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

    /// Whether a publish of this key has its turn behind others.
    pub(super) fn holds(&self, key: &Key) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(key)
    }

    /// Whether one for so many is to wait before it is matched for good.
    pub(super) fn is_full(&self, users: usize) -> bool {
        users > FEW && self.matched >= MATCHED
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
        self.matched += spread.deliveries.len();
        self.of_key(key).now = Some(spread);
    }

    /// The next of those that wait for their turn in this key.
    fn next(&mut self, key: &Key) -> Option<Waiting> {
        let of_key = self.keys.get_mut(key)?;
        let (from, mut line) = of_key.next.pop_front()?;
        let next = line.pop_front();
        if !line.is_empty() {
            of_key.next.push_back((from, line));
        }
        if let Some(next) = &next {
            self.waiting -= 1;
            self.waiting_bytes -= next.publish.payload.len();
        }
        next
    }
}

impl Topics {
    /// Puts a publish behind those of its key, or behind whatever has no room.
    pub(super) fn wait(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        publish: Arc<Publish>,
        owner: Option<UserId>,
        reply: Reply,
    ) {
        let spreads = &mut self.spreads;
        let bytes = publish.payload.len();
        if spreads.waiting >= WAITING || spreads.waiting_bytes + bytes > WAITING_BYTES {
            self.metrics.crowded.inc();
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        (spreads.waiting, spreads.waiting_bytes) = (spreads.waiting + 1, spreads.waiting_bytes + bytes);
        let from = publish.from;
        let waiting = Waiting {
            publish,
            owner,
            reply,
        };
        let lines = &mut spreads.of_key(key).next;
        match lines.iter_mut().find(|(of, _)| *of == from) {
            Some((_, line)) => line.push_back(waiting),
            None => lines.push_back((from, VecDeque::from([waiting]))),
        }
        if let Some(home) = self.home(key) {
            home.busy += 1;
        }
    }

    /// Gives a publish to its next users, at most so many. `true`: to all.
    pub(super) fn give(&mut self, cx: &mut Cx<'_>, spread: &mut Spread, most: usize) -> bool {
        for (user, targets) in spread.deliveries.by_ref().take(most) {
            let deliver = Command::User(UserCommand::Deliver {
                publish: spread.publish.clone(),
                targets,
            });
            match spread.place {
                Some(place) => {
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
        if self.spreads.is_empty() {
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
        if !self.spreads.is_empty() && !std::mem::replace(&mut self.spreads.timer, true) {
            // If all of it is for other workers, nothing else makes this one's next turn.
            cx.after(0, Part::Topics.tag(TIMER_SPREAD));
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
            if self.spreads.matched < MATCHED
                && let Some(Waiting {
                    publish,
                    owner,
                    reply,
                }) = self.spreads.next(key)
            {
                self.spreads.left -= 1;
                if let Some(home) = self.home(key) {
                    home.busy = home.busy.saturating_sub(1);
                }
                self.publish_now(cx, key, publish, owner, reply);
            }
            return;
        };
        let before = spread.deliveries.len();
        let all = self.give(cx, &mut spread, self.spreads.left.min(A_KEY));
        let given = before - spread.deliveries.len();
        self.spreads.left -= given;
        self.spreads.matched -= given;
        if !all && let Some(of_key) = self.spreads.keys.get_mut(key) {
            of_key.now = Some(spread);
        }
    }
}
