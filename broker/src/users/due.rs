//! What must happen without a client: session expiry and wills have a row `(shard, slice; when, whose)` that says *look*,
//! not *do*. Read here in pages by the worker that owns the shard; what is then found decides.

use std::collections::VecDeque;

use bytes::Bytes;
use godwit_store::{Op, Read, ReadAnswer};
use godwit_wire::ids::{Key, SessionId, UserId};

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
/// Slices of a shard; room for more, were a shard's rows ever too many for one partition.
const SLICE: u8 = 0;

/// What a due row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// When, milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) user: UserId,
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
    /// Nothing is looked at before, of the loop's milliseconds.
    not_before_ms: u64,
}

#[derive(Clone, Copy)]
struct Shard {
    /// The earliest row not looked at, milliseconds since 1970.
    next: u64,
    /// Rows up to here were looked at.
    done: u64,
    reading: bool,
}

impl Due {
    /// The worker owns these shards; clients have until `not_before_ms` to return.
    pub(crate) fn taken_up(&mut self, shards: &[u16], not_before_ms: u64) {
        self.not_before_ms = not_before_ms;
        self.shards.resize(usize::from(Key::SHARDS), None);
        for shard in shards {
            self.shards[usize::from(*shard)] = Some(Shard {
                next: 0,
                done: 0,
                reading: false,
            });
        }
    }

    /// It no longer does.
    pub(crate) fn given_up(&mut self, shards: &[u16]) {
        for shard in shards {
            if let Some(slot) = self.shards.get_mut(usize::from(*shard)) {
                *slot = None;
            }
        }
    }

    fn expect(&mut self, look: &Look) {
        let shard = usize::from(Key::User(look.user).shard());
        if let Some(Some(shard)) = self.shards.get_mut(shard)
            && look.at > shard.done
        {
            shard.next = shard.next.min(look.at);
        }
    }

    /// It could not be looked at: it is read again.
    pub(crate) fn again(&mut self, look: &Look) {
        let shard = usize::from(Key::User(look.user).shard());
        if let Some(Some(shard)) = self.shards.get_mut(shard) {
            shard.done = shard.done.min(look.at.saturating_sub(1));
            shard.next = shard.next.min(look.at);
        }
    }

    /// Reads of the shards whose time has come.
    pub(crate) fn tick(&mut self, mono_ms: u64, unix_ms: u64) -> Vec<(u16, Read)> {
        if mono_ms < self.not_before_ms {
            return Vec::new();
        }
        if self.queue.is_empty() {
            let due = self
                .shards
                .iter()
                .enumerate()
                .filter(|(_, shard)| shard.is_some_and(|shard| shard.next <= unix_ms && !shard.reading));
            self.queue.extend(due.map(|(index, _)| index as u16));
        }
        let mut reads = Vec::new();
        while let Some(number) = self.queue.pop_front() {
            let Some(Some(shard)) = self.shards.get_mut(usize::from(number)) else {
                continue;
            };
            shard.reading = true;
            let after = Bytes::copy_from_slice(&(shard.done + 1).to_be_bytes());
            let read = Read::Set {
                table: DUE,
                partition: partition(number),
                after: Some(after),
                up_to: None,
                limit: PAGE,
            };
            reads.push((number, read));
            if reads.len() >= SHARDS_PER_TICK {
                break;
            }
        }
        reads
    }

    /// When to tick next, milliseconds from now.
    pub(crate) fn next_tick_ms(&self) -> u64 {
        match self.queue.is_empty() {
            true => TICK_MS,
            false => BUSY_TICK_MS,
        }
    }

    /// A shard was read: what is to be looked at now.
    pub(crate) fn read(&mut self, number: u16, unix_ms: u64, answer: Option<&ReadAnswer>) -> Vec<Look> {
        let Some(Some(shard)) = self.shards.get_mut(usize::from(number)) else {
            return Vec::new();
        };
        shard.reading = false;
        let Some(ReadAnswer::Set { elements, more }) = answer else {
            return Vec::new();
        };
        let looks = elements.iter().filter_map(|(element, _)| Look::decode(element));
        let (now, later): (Vec<Look>, Vec<Look>) = looks.partition(|look| look.at <= unix_ms);
        match (later.first(), now.last()) {
            (Some(first), _) => {
                shard.done = unix_ms;
                shard.next = first.at;
            }
            // The page ended within what is due: the last of it may have company at the same time.
            (None, Some(last)) if *more => {
                shard.done = shard.done.max(last.at.saturating_sub(1));
                shard.next = last.at;
            }
            _ => {
                shard.done = unix_ms;
                shard.next = u64::MAX;
            }
        }
        now
    }
}

/// Sees to it that the session is looked at no later than `at`.
pub(crate) fn session_look(env: &mut Env<'_, '_>, session: &mut Session, at: u64, ops: &mut Vec<Op>) {
    let now = env.unix_ms();
    if session.due_at > now && session.due_at <= at {
        return;
    }
    forget_session(env, session, ops);
    session.due_at = at.max(now + 1);
    let look = of_session(env.user, session);
    env.common.due.expect(&look);
    ops.push(look.insert());
}

/// A session ends: so does its due row.
pub(crate) fn forget_session(env: &Env<'_, '_>, session: &Session, ops: &mut Vec<Op>) {
    if session.due_at > 0 {
        ops.push(of_session(env.user, session).remove());
    }
}

/// Sees to it that a will is looked at.
pub(crate) fn expect_will(env: &mut Env<'_, '_>, look: &Look) -> Op {
    env.common.due.expect(look);
    look.insert()
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
            // It was moved, or its session is gone.
            env.store(What::Lazy, vec![look.remove()]);
            return;
        };
        let session = &mut self.sessions[index];
        let mut ops = Vec::new();
        if session.live.is_none() && session.disconnected_at == 0 {
            // Its connection ended with an earlier start of this node.
            session.disconnected_at = now;
        }
        if session.live.is_none() && session.ends_at() <= now {
            let ended = Box::new(self.remove_session(env, index, &mut ops));
            self.session_over(env, ended.id);
            self.finish_end(env, Some(ended), ops);
            return;
        }
        let at = match session.live {
            Some(_) => now + u64::from(session.expiry.max(1)) * 1_000,
            None => session.ends_at(),
        };
        session_look(env, session, at, &mut ops);
        ops.push(Name::Session(session.id).put(user, view, &session.row()));
        env.store(What::Lazy, ops);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, will: Option<u64>) -> Look {
        Look {
            at,
            user: UserId::fresh(),
            session: SessionId::fresh(),
            will,
        }
    }

    #[test]
    fn a_due_row_reads_back() {
        for look in [look(7, None), look(u64::MAX, Some(9))] {
            assert_eq!(Look::decode(&look.element()), Some(look));
        }
        assert_eq!(Look::decode(b"short"), None);
    }

    #[test]
    fn nothing_is_looked_at_before_clients_had_time_to_return() {
        let mut due = Due::default();
        due.taken_up(&[3], 30_000);
        assert!(due.tick(29_999, 1_000_000).is_empty());
        assert_eq!(due.tick(30_000, 1_000_000).len(), 1);
        assert!(due.tick(30_001, 1_000_000).is_empty(), "it is being read");
    }

    #[test]
    fn a_shard_is_read_again_when_its_next_row_is_due() {
        let mut due = Due::default();
        let (past, future) = (look(900, None), look(5_000, Some(1)));
        let shard = Key::User(past.user).shard();
        due.taken_up(&[shard], 0);
        assert_eq!(due.tick(0, 1_000).len(), 1);
        let elements = vec![(past.element(), Bytes::new()), (future.element(), Bytes::new())];
        let answer = ReadAnswer::Set {
            elements,
            more: false,
        };
        assert_eq!(due.read(shard, 1_000, Some(&answer)), [past]);
        assert!(due.tick(0, 4_999).is_empty());
        due.expect(&Look { at: 3_000, ..past });
        assert_eq!(due.tick(0, 3_000).len(), 1);
        let answer = ReadAnswer::Set {
            elements: Vec::new(),
            more: false,
        };
        assert!(due.read(shard, 3_000, Some(&answer)).is_empty());
        assert!(due.tick(0, u64::MAX - 1).is_empty());
    }

    #[test]
    fn a_full_page_of_due_rows_is_followed_by_the_next() {
        let mut due = Due::default();
        due.taken_up(&[1], 0);
        due.tick(0, 1_000);
        let elements = vec![
            (look(10, None).element(), Bytes::new()),
            (look(20, None).element(), Bytes::new()),
        ];
        let answer = ReadAnswer::Set { elements, more: true };
        assert_eq!(due.read(1, 1_000, Some(&answer)).len(), 2);
        let again = due.tick(0, 1_000);
        let Some((
            1,
            Read::Set {
                after: Some(after), ..
            },
        )) = again.first()
        else {
            panic!("it is read on");
        };
        assert_eq!(after[..], 20u64.to_be_bytes()[..]);
    }
}
