//! What must happen without a client: session expiry, wills and a mailbox's retention have a row `(shard, slice; when, whose)` that says *look*,
//! not *do*. Read here in pages by the worker that owns the shard; what is then found decides.

use std::collections::{BTreeSet, HashSet, VecDeque};

use bytes::Bytes;
use godwit_store::{Op, Read, ReadAnswer};
use godwit_wire::ids::{Key, SessionId, UserId};
use uuid::Uuid;

use super::env::{Env, What};
use super::home::Home;
use super::rows::Name;
use super::session::Session;
use crate::tables::DUE;

/// How often a worker looks at its clock for due rows, milliseconds.
const TICK_MS: u64 = 1_000;
/// As long as shards wait to be read.
const BUSY_TICK_MS: u64 = 20;
/// Shards read a tick.
const SHARDS_PER_TICK: usize = 256;
/// Due rows of a page; the rest of the shard comes with the next tick.
const PAGE: u32 = 64;
/// Most rows of after the start that are remembered while older ones wait, the earliest: some 700 KiB. What is beyond
/// waits as long as those.
const FRESH: usize = 16_384;
/// Most users that are looked at in a turn: one that must be loaded costs some 100 µs, and thousands are due at once where
/// thousands left at once.
pub(crate) const LOOKS_A_TURN: usize = 8;
/// Slices of a shard; room for more, were a shard's rows ever too many for one partition.
const SLICE: u8 = 0;

/// What a due row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// When, milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) user: UserId,
    /// Nil: the mailbox.
    pub(crate) session: SessionId,
    /// The will of the connection with this number; `None`: the session's expiry.
    pub(crate) will: Option<u64>,
}

impl Look {
    fn partition(&self) -> Bytes {
        partition(Key::User(self.user).shard())
    }

    fn element(&self) -> Bytes {
        let mut element = Vec::with_capacity(49);
        element.extend_from_slice(&self.at.to_be_bytes());
        element.extend_from_slice(self.user.0.as_bytes());
        element.extend_from_slice(self.session.0.as_bytes());
        if let Some(number) = self.will {
            element.extend_from_slice(&number.to_be_bytes());
        }
        element.into()
    }

    fn decode(element: &[u8]) -> Option<Self> {
        let (at, rest) = element.split_at_checked(8)?;
        let (user, rest) = rest.split_at_checked(16)?;
        let (session, will) = rest.split_at_checked(16)?;
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        Some(Self {
            at: number(at)?,
            user: UserId::from_slice(user)?,
            session: SessionId::from_slice(session)?,
            will: if will.is_empty() {
                None
            } else {
                Some(number(will)?)
            },
        })
    }

    pub(crate) fn insert(&self) -> Op {
        Op::Insert {
            table: DUE,
            partition: self.partition(),
            element: self.element(),
            value: Bytes::new(),
        }
    }

    pub(crate) fn remove(&self) -> Op {
        Op::Remove {
            table: DUE,
            partition: self.partition(),
            element: self.element(),
        }
    }
}

fn partition(shard: u16) -> Bytes {
    let shard = shard.to_be_bytes();
    Bytes::copy_from_slice(&[shard[0], shard[1], SLICE])
}

/// A worker's shards and when to look at each next.
#[derive(Default)]
pub(crate) struct Due {
    /// By shard; `None`: not owned.
    shards: Vec<Option<Shard>>,
    /// Shards whose time has come, to be read.
    queue: VecDeque<u16>,
    /// Of some shard the rows of before it was taken up are not looked at yet.
    waits: bool,
    /// Of such shards: the rows that became durable since. Clients did not lose them by an outage of ours.
    fresh: BTreeSet<(u64, UserId)>,
    /// Read, and not looked at yet: no more than the pages of a tick, since no other is read before.
    looks: VecDeque<Look>,
}

/// `done < next`, always.
#[derive(Clone, Copy)]
struct Shard {
    /// The earliest row not looked at, milliseconds since 1970.
    next: u64,
    /// Rows up to here were looked at, or are being read.
    done: u64,
    reading: Option<Reading>,
    /// Rows of before the worker took it up are not looked at before, of the loop's milliseconds; `None`: that is over.
    /// Each shard has its own: others that come must not put it off.
    not_before_ms: Option<u64>,
}

/// A read of a shard's rows.
#[derive(Clone, Copy)]
struct Reading {
    /// `done` before it.
    from: u64,
    /// When it was asked: rows up to here are looked at.
    asked: u64,
    /// Only the rows at this time of this user.
    only: Option<(u64, UserId)>,
}

impl Due {
    /// The worker owns these shards; clients have until `not_before_ms` to return. What becomes due to those that came
    /// since is not held up by that.
    pub(crate) fn taken_up(&mut self, shards: &[u16], not_before_ms: u64) {
        self.waits = true;
        // Shards that are due come into it again.
        self.queue.clear();
        self.shards.resize(usize::from(Key::SHARDS), None);
        for shard in shards {
            self.shards[usize::from(*shard)] = Some(Shard {
                next: 0,
                done: 0,
                reading: None,
                not_before_ms: Some(not_before_ms),
            });
        }
    }

    /// Lets go the shards whose clients had their time to return.
    fn end_waits(&mut self, mono_ms: u64) {
        let (mut waits, mut ended) = (false, false);
        for shard in self.shards.iter_mut().flatten() {
            match shard.not_before_ms {
                Some(at) if mono_ms < at => waits = true,
                Some(_) => {
                    shard.not_before_ms = None;
                    ended = true;
                }
                None => {}
            }
        }
        self.waits = waits;
        if !waits {
            self.fresh = BTreeSet::new();
        } else if ended {
            // Theirs are read with all others.
            let shards = &self.shards;
            let waits = |user: &UserId| {
                let shard = shards.get(usize::from(Key::User(*user).shard()));
                shard.is_some_and(|shard| shard.is_some_and(|shard| shard.not_before_ms.is_some()))
            };
            self.fresh.retain(|(_, user)| waits(user));
        }
    }

    /// It no longer does.
    pub(crate) fn given_up(&mut self, lost: &HashSet<u16>) {
        for shard in lost {
            if let Some(slot) = self.shards.get_mut(usize::from(*shard)) {
                *slot = None;
            }
        }
        self.looks
            .retain(|look| !lost.contains(&Key::User(look.user).shard()));
    }

    /// What was read is to be looked at.
    pub(crate) fn put(&mut self, looks: Vec<Look>) {
        self.looks.extend(looks);
    }

    /// What is to be looked at in this turn.
    pub(crate) fn some_looks(&mut self) -> impl Iterator<Item = Look> {
        self.looks.drain(..self.looks.len().min(LOOKS_A_TURN))
    }

    /// A row of this user stands at this time and is to be looked at: it has become durable (not earlier: a read before
    /// would pass it by), or a look left it. Whatever was read meanwhile, and wherever the clock went.
    pub(crate) fn stands(&mut self, user: UserId, at: u64) {
        let shard = usize::from(Key::User(user).shard());
        if let Some(Some(shard)) = self.shards.get_mut(shard) {
            shard.done = shard.done.min(at.saturating_sub(1));
            shard.next = shard.next.min(at);
            if shard.not_before_ms.is_some() {
                self.fresh.insert((at, user));
                if self.fresh.len() > FRESH {
                    self.fresh.pop_last();
                }
            }
        }
    }

    /// Reads of the rows that became durable since the start and are due.
    fn tick_fresh(&mut self, unix_ms: u64) -> Vec<(u16, Read)> {
        let mut reads = Vec::new();
        let due: Vec<(u64, UserId)> = self
            .fresh
            .iter()
            .take_while(|(at, _)| *at <= unix_ms)
            .take(SHARDS_PER_TICK)
            .copied()
            .collect();
        for row in due {
            let (at, user) = row;
            let number = Key::User(user).shard();
            let shard = self.shards.get_mut(usize::from(number));
            let Some(Some(shard)) = shard else {
                self.fresh.remove(&row);
                continue;
            };
            if shard.reading.is_some() {
                continue;
            }
            self.fresh.remove(&row);
            shard.reading = Some(Reading {
                from: shard.done,
                asked: unix_ms,
                only: Some(row),
            });
            let after = [&at.to_be_bytes()[..], user.0.as_bytes()].concat();
            reads.push((number, read_rows(number, after.into())));
        }
        reads
    }

    /// Reads of the shards whose time has come.
    pub(crate) fn tick(&mut self, mono_ms: u64, unix_ms: u64) -> Vec<(u16, Read)> {
        if !self.looks.is_empty() {
            return Vec::new();
        }
        if self.waits {
            self.end_waits(mono_ms);
        }
        let mut reads = self.tick_fresh(unix_ms);
        if self.queue.is_empty() {
            let due = self.shards.iter().enumerate().filter(|(_, shard)| {
                shard.is_some_and(|shard| {
                    shard.next <= unix_ms && shard.reading.is_none() && shard.not_before_ms.is_none()
                })
            });
            self.queue.extend(due.map(|(index, _)| index as u16));
        }
        while reads.len() < SHARDS_PER_TICK {
            let Some(number) = self.queue.pop_front() else {
                break;
            };
            let Some(Some(shard)) = self.shards.get_mut(usize::from(number)) else {
                continue;
            };
            let from = shard.done;
            let after = Bytes::copy_from_slice(&(from + 1).to_be_bytes());
            // What turns up from now on lowers these again.
            shard.reading = Some(Reading {
                from,
                asked: unix_ms,
                only: None,
            });
            (shard.done, shard.next) = (unix_ms, u64::MAX);
            reads.push((number, read_rows(number, after)));
        }
        reads
    }

    /// When to tick next, milliseconds from now.
    pub(crate) fn next_tick_ms(&self) -> u64 {
        match self.queue.is_empty() && self.fresh.len() <= SHARDS_PER_TICK && self.looks.is_empty() {
            true => TICK_MS,
            false => BUSY_TICK_MS,
        }
    }

    /// A shard was read: what is to be looked at now.
    pub(crate) fn read(&mut self, number: u16, answer: Option<&ReadAnswer>) -> Vec<Look> {
        let Some(Some(shard)) = self.shards.get_mut(usize::from(number)) else {
            return Vec::new();
        };
        let Some(Reading { from, asked, only }) = shard.reading.take() else {
            return Vec::new();
        };
        if let Some((at, user)) = only {
            let Some(ReadAnswer::Set { elements, .. }) = answer else {
                // Asked again, or read with the others.
                self.stands(user, at);
                return Vec::new();
            };
            let looks = elements.iter().filter_map(|(element, _)| Look::decode(element));
            return looks.filter(|look| (look.at, look.user) == (at, user)).collect();
        }
        let Some(ReadAnswer::Set { elements, more }) = answer else {
            shard.done = shard.done.min(from);
            shard.next = shard.next.min(from + 1);
            return Vec::new();
        };
        let looks = elements.iter().filter_map(|(element, _)| Look::decode(element));
        let (now, later): (Vec<Look>, Vec<Look>) = looks.partition(|look| look.at <= asked);
        match (later.first(), now.last()) {
            (Some(first), _) => shard.next = shard.next.min(first.at),
            // The page ended within what is due: the last of it may have company at the same time.
            (None, Some(last)) if *more => {
                shard.done = shard.done.min(last.at.saturating_sub(1));
                shard.next = shard.next.min(last.at);
            }
            _ => {}
        }
        now
    }
}

fn read_rows(shard: u16, after: Bytes) -> Read {
    Read::Set {
        table: DUE,
        partition: partition(shard),
        after: Some(after),
        up_to: None,
        limit: PAGE,
    }
}

/// Sees to it that the session is looked at no later than `at`. `Some`: by a new row at this time, of which
/// [`Due::stands`] must be told when it is durable ([`What::Expected`]).
pub(crate) fn session_look(
    env: &mut Env<'_, '_>,
    session: &mut Session,
    at: u64,
    ops: &mut Vec<Op>,
) -> Option<u64> {
    let now = env.unix_ms();
    if session.due_at > now && session.due_at <= at {
        // It may be of before the start, and its client has returned.
        env.common.due.stands(env.user, session.due_at);
        return None;
    }
    forget_session(env, session, ops);
    session.due_at = at.max(now + 1);
    ops.push(of_session(env.user, session).insert());
    Some(session.due_at)
}

/// Sees to it that the mailbox's retention is looked at then; once looked at, the row goes like that of a session that is not
/// there. So far ahead that it is durable long before.
pub(crate) fn mailbox_look(env: &mut Env<'_, '_>, at: u64, ops: &mut Vec<Op>) {
    let look = Look {
        at,
        user: env.user,
        session: SessionId(Uuid::nil()),
        will: None,
    };
    ops.push(look.insert());
    env.common.due.stands(look.user, at);
}

/// A session ends: so does its due row.
pub(crate) fn forget_session(env: &Env<'_, '_>, session: &Session, ops: &mut Vec<Op>) {
    if session.due_at > 0 {
        ops.push(of_session(env.user, session).remove());
    }
}

fn of_session(user: UserId, session: &Session) -> Look {
    Look {
        at: session.due_at,
        user,
        session: session.id,
        will: None,
    }
}

impl Home {
    /// Something of this user is due: looks, and does what is really to be done.
    pub(crate) fn look(&mut self, env: &mut Env<'_, '_>, look: Look) {
        if let Some(number) = look.will {
            self.look_at_will(env, look, number);
            return;
        }
        let (user, view, now) = (env.user, env.view(), env.unix_ms());
        let index = self
            .sessions
            .iter()
            .position(|s| s.id == look.session && s.due_at == look.at);
        let Some(index) = index else {
            // Moved by half, maybe: session and due row are in different partitions. The session's own time counts.
            let moved = self
                .sessions
                .iter()
                .find(|s| s.id == look.session && s.due_at > 0)
                .map(|session| of_session(user, session));
            if let Some(own) = moved {
                env.store(What::Expected(own.at), vec![own.insert(), look.remove()]);
                return;
            }
            if self.look_at_estate(env, look.session) {
                return;
            }
            // It was moved, or its session is gone; or it is about the mailbox, which looks at its retention whenever it
            // is loaded and before it leaves.
            env.store(What::Lazy, vec![look.remove()]);
            return;
        };
        let session = &mut self.sessions[index];
        let mut ops = Vec::new();
        if session.live.is_none() && session.disconnected_at == 0 {
            // Its connection ended with an earlier start of this node.
            session.disconnected_at = env.stamp_ms();
        }
        session.was_left_by_now(env);
        if session.live.is_none() && session.ends_at() <= env.expiry_ms() {
            let ended = Box::new(self.remove_session(env, index, &mut ops));
            self.session_over(env, ended.id);
            self.finish_end(env, Some(ended), ops);
            return;
        }
        if session.live.is_some() && !session.outlives() {
            // Its row is for a later start of this node, should this one not see its connection end.
            return;
        }
        let at = match session.live {
            Some(_) => now + u64::from(session.expiry) * 1_000,
            None => session.ends_at(),
        };
        let what = match session_look(env, session, at, &mut ops) {
            Some(at) => What::Expected(at),
            // The clock went back: its row still is the right one.
            None => {
                env.common.due.stands(user, session.due_at);
                What::Lazy
            }
        };
        ops.push(Name::Session(session.id).put(user, view, &session.row()));
        env.store(what, ops);
    }
}

#[cfg(test)]
mod tests;
