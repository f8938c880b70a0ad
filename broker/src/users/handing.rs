//! What a member of a group had not acknowledged when it left is given to another one (decision 0006): out of the memory
//! of a session that had no more, entry by entry after an UNSUBSCRIBE, and out of the estate of a session that was kept.

use godwit_store::{Head, Op, Read, ReadAnswer};
use godwit_wire::command::{Answer, Command, TopicCommand};
use godwit_wire::ids::{SessionId, UserId};
use godwit_wire::topic::filter_key;

use super::cursor::State;
use super::deliver::READ_AGAIN_MS;
use super::due::Look;
use super::env::{Env, What};
use super::home::Home;
use super::log::{PAGE_BYTES, PAGE_ROWS};
use super::owed::Owed;
use super::rows::{EstateRow, Name};
use super::session::{Session, log_id};

/// Most estates of a user: sessions that ended with work of a group, faster than it was given to others. What a session
/// beyond it leaves ends with it, counted and logged.
pub(crate) const ESTATES: usize = 1_024;

/// An entry on its way to another member.
pub(crate) struct Handing {
    /// Whose it was.
    from: SessionId,
    /// In that session's log; 0: it is in memory only.
    position: u64,
    owed: Owed,
}

/// The log of a session that is no more, as far as groups want it.
///
/// ```text
///   passed        in_hand             given          up_to
///  ───┼────────[ a page ]───────────────┼──────────────┼──▶ position
///     │ durable with others             │ QoS 2 ends   │
/// ```
pub(crate) struct Estate {
    id: SessionId,
    row: EstateRow,
    /// What was read, or was asked by the session itself, and is not known to be elsewhere.
    in_hand: Vec<u64>,
    /// Where the page in hand ends.
    read_to: u64,
    /// The end of its session is durable.
    ready: bool,
    reading: bool,
}

/// What a home still has to give to groups.
#[derive(Default)]
pub(crate) struct Leaving {
    /// One after another.
    estates: Vec<Estate>,
    /// Entries that are on their way out of memory.
    handing: usize,
}

impl Estate {
    pub(crate) fn restored(id: SessionId, row: EstateRow) -> Self {
        Self {
            id,
            read_to: row.passed,
            row,
            in_hand: Vec::new(),
            ready: true,
            reading: false,
        }
    }

    fn look(&self, user: UserId) -> Look {
        Look {
            at: self.row.due_at,
            user,
            session: self.id,
            will: None,
        }
    }

    /// What keeps it until it is given away.
    fn begin_ops(&self, env: &Env<'_, '_>) -> [Op; 2] {
        [self.progress(env), self.look(env.user).insert()]
    }

    fn progress(&self, env: &Env<'_, '_>) -> Op {
        Name::Estate(self.id).put(env.user, env.view(), &self.row)
    }

    fn end_ops(&self, env: &Env<'_, '_>) -> Vec<Op> {
        let head = Head {
            confirmed: self.row.up_to,
            floor: u64::MAX,
        };
        vec![
            Name::Estate(self.id).end(env.user, env.view()),
            Op::Head {
                log: log_id(self.id),
                head,
            },
            self.look(env.user).remove(),
        ]
    }

    /// Whether another member may have an entry: not what was settled, and of QoS 2 not what may have been sent.
    fn is_free(&self, position: u64, owed: &Owed) -> bool {
        !self.in_hand.contains(&position)
            && self.row.settled.binary_search(&position).is_err()
            && (owed.qos < 2
                || position > self.row.given
                || self.row.leaving.binary_search(&position).is_ok())
    }
}

impl Leaving {
    /// One that an earlier start of this node had.
    pub(crate) fn restore(&mut self, estate: Estate) {
        self.estates.push(estate);
    }

    fn is_empty(&self) -> bool {
        self.estates.is_empty() && self.handing == 0
    }
}

impl Session {
    /// What it leaves to its groups, if anything. Only before it is taken apart.
    fn estate(&mut self, now_ms: u64) -> Option<Estate> {
        let (passed, up_to) = (self.feed.cursor.acked(), self.log.confirmed());
        if !self.shared || !self.stored || passed >= up_to {
            return None;
        }
        let cursor = &self.feed.cursor;
        let mut settled: Vec<u64> = cursor.settled().chain(cursor.received()).collect();
        settled.sort_unstable();
        let mut leaving: Vec<u64> = cursor.leaving().collect();
        leaving.sort_unstable();
        Some(Estate {
            id: self.id,
            in_hand: leaving.clone(),
            row: EstateRow {
                passed,
                up_to,
                given: cursor.given_to(),
                settled,
                leaving,
                // Not the session's own look, which goes with it.
                due_at: now_ms + 1 + u64::from(self.due_at == now_ms + 1),
            },
            read_to: passed,
            ready: false,
            reading: false,
        })
    }

    /// What its groups get of a session that is in memory only.
    fn left_in_memory(&self) -> Vec<Owed> {
        if !self.shared || self.stored {
            return Vec::new();
        }
        let cursor = &self.feed.cursor;
        let left = |position: &u64| match cursor.state(*position) {
            Some(State::Acked | State::Received | State::Sent2 | State::Leaving) => false,
            Some(State::Sent) | None => true,
        };
        let positions = (cursor.acked() + 1..=self.log.confirmed()).filter(left);
        let entries = positions.filter_map(|position| self.log.in_tail(position).cloned());
        entries.filter(|owed| owed.share.is_some()).collect()
    }
}

impl Home {
    /// A session is about to end: what its groups get of it. `true`: its log stays for them, as `ops` now say.
    pub(crate) fn bequeath(
        &mut self,
        env: &Env<'_, '_>,
        index: usize,
        ops: &mut Vec<Op>,
    ) -> (bool, Vec<Owed>) {
        let now = env.unix_ms();
        let session = &mut self.sessions[index];
        let left = session.left_in_memory();
        let Some(estate) = session.estate(now) else {
            return (false, left);
        };
        let leaving = self.leaving.get_or_insert_default();
        if leaving.estates.len() >= ESTATES {
            let lost = estate.row.up_to - estate.row.passed;
            env.metrics().shared_ended.inc_by(lost);
            tracing::warn!(user = %env.user.0, entries = lost, "too many sessions have left work of their groups: this one's ends");
            return (false, left);
        }
        ops.extend(estate.begin_ops(env));
        leaving.estates.push(estate);
        (true, left)
    }

    /// The end of a session is durable: its groups get what it left.
    pub(crate) fn hand_over(&mut self, env: &mut Env<'_, '_>, id: SessionId, left: Vec<Owed>) {
        for owed in left {
            self.leaving.get_or_insert_default().handing += 1;
            let handing = Handing {
                from: id,
                position: 0,
                owed,
            };
            hand(env, Box::new(handing));
        }
        if let Some(leaving) = self.leaving.as_deref_mut() {
            let ended = leaving.estates.iter_mut().find(|estate| estate.id == id);
            if let Some(estate) = ended {
                estate.ready = true;
            }
            self.go_on(env);
        }
    }

    /// Something is due of a session that is not there: `true` if it is its estate, which goes on.
    pub(crate) fn look_at_estate(&mut self, env: &mut Env<'_, '_>, id: SessionId) -> bool {
        let leaving = self.leaving.as_deref();
        let found = leaving.is_some_and(|leaving| leaving.estates.iter().any(|estate| estate.id == id));
        if found {
            self.go_on(env);
        }
        found
    }

    /// The next page of the first estate, or its end.
    pub(crate) fn go_on(&mut self, env: &mut Env<'_, '_>) {
        while let Some(estate) = self
            .leaving
            .as_deref_mut()
            .and_then(|all| all.estates.first_mut())
        {
            if !estate.ready || estate.reading || !estate.in_hand.is_empty() {
                return;
            }
            if estate.read_to > estate.row.passed {
                estate.row.passed = estate.read_to;
                if estate.read_to < estate.row.up_to {
                    let progress = estate.progress(env);
                    env.store(What::Lazy, vec![progress]);
                }
            }
            if estate.read_to < estate.row.up_to {
                estate.reading = true;
                let read = Read::Log {
                    log: log_id(estate.id),
                    after: estate.read_to,
                    up_to: estate.row.up_to,
                    max_rows: PAGE_ROWS,
                    max_bytes: PAGE_BYTES,
                };
                env.read(What::EstatePage(estate.id), vec![read]);
                return;
            }
            let ops = estate.end_ops(env);
            env.store(What::Lazy, ops);
            if let Some(leaving) = self.leaving.as_deref_mut() {
                leaving.estates.remove(0);
            }
        }
        self.leave_nothing();
    }

    fn leave_nothing(&mut self) {
        if self.leaving.as_deref().is_some_and(Leaving::is_empty) {
            self.leaving = None;
        }
    }

    fn estate(&mut self, id: SessionId) -> Option<&mut Estate> {
        let leaving = self.leaving.as_deref_mut()?;
        leaving.estates.iter_mut().find(|estate| estate.id == id)
    }

    /// A page of an estate was read.
    pub(crate) fn estate_page(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let now = env.expiry_ms();
        let Some(estate) = self.estate(id) else { return };
        let Some(ReadAnswer::Log { rows, .. }) = answers.and_then(|answers| answers.into_iter().next())
        else {
            env.after(READ_AGAIN_MS, What::EstateAgain(id));
            return;
        };
        estate.reading = false;
        estate.read_to = rows.last().map_or(estate.row.up_to, |row| row.seq);
        let mut given = Vec::new();
        for row in rows {
            let position = row.seq;
            let Some((owed, _)) = Owed::from_row(row.row) else {
                continue;
            };
            if owed.share.is_none() || estate.row.settled.binary_search(&position).is_ok() {
                continue;
            }
            if owed.publish.expires_at.is_some_and(|at| at <= now) {
                env.metrics().expired.inc();
            } else if estate.is_free(position, &owed) {
                estate.in_hand.push(position);
                given.push(Handing {
                    from: id,
                    position,
                    owed,
                });
            } else if owed.qos == 2 {
                env.metrics().shared_ended.inc();
            }
        }
        for handing in given {
            hand(env, Box::new(handing));
        }
        self.go_on(env);
    }

    /// The timer after a page of an estate that could not be read.
    pub(crate) fn estate_again(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        if let Some(estate) = self.estate(id) {
            estate.reading = false;
            self.go_on(env);
        }
    }

    /// The group answered for an entry that it was given.
    pub(crate) fn handed(&mut self, env: &mut Env<'_, '_>, handing: Box<Handing>, answer: &Answer) {
        match answer {
            Answer::Published { matched, .. } => {
                let metrics = env.metrics();
                let counter = if *matched {
                    &metrics.shared_again
                } else {
                    &metrics.shared_ended
                };
                counter.inc();
            }
            _ => {
                // Its home has it as long as no other has.
                env.after(READ_AGAIN_MS, What::HandAgain(handing));
                return;
            }
        }
        let (id, position) = (handing.from, handing.position);
        if position == 0 {
            if let Some(leaving) = self.leaving.as_deref_mut() {
                leaving.handing = leaving.handing.saturating_sub(1);
            }
            self.leave_nothing();
        } else if let Some(session) = self.session(id) {
            let cursor = &mut session.feed.cursor;
            if cursor.state(position) == Some(State::Leaving) {
                let settled = cursor.ack(position, false).count() as u64;
                // Behind an open one it is to be known after the home was out of memory, too.
                session.out_dirty = true;
                self.settled(env, id, settled);
            }
        } else if let Some(estate) = self.estate(id) {
            estate.in_hand.retain(|at| *at != position);
            // One that its session had asked for is not in the page that was read, and is not to be given again with its own.
            if position > estate.read_to
                && let Err(at) = estate.row.settled.binary_search(&position)
            {
                estate.row.settled.insert(at, position);
            }
            self.go_on(env);
        }
    }
}

/// Gives an entry of a session that left its group before it was sent.
pub(crate) fn hand_one(env: &mut Env<'_, '_>, from: SessionId, position: u64, owed: Owed) {
    hand(env, Box::new(Handing { from, position, owed }));
}

/// Gives an entry to its group.
pub(crate) fn hand(env: &mut Env<'_, '_>, handing: Box<Handing>) {
    let Some(share) = handing.owed.share.as_deref() else {
        return;
    };
    let key = filter_key(&share.filter);
    let command = TopicCommand::Share {
        filter: share.filter.clone(),
        publish: handing.owed.as_published(),
        from: handing.from,
    };
    env.ask(What::Handed(handing), key, Command::Topic(command));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use godwit_wire::command::Publish;

    use super::*;

    fn owed(qos: u8) -> Owed {
        let publish = Publish {
            topic: "iot/a/b".into(),
            payload: bytes::Bytes::from_static(b"x"),
            qos,
            retain: false,
            expires_at: None,
            properties: None,
            from: None,
            message_id: None,
        };
        Owed {
            publish: Arc::new(publish),
            qos,
            retain: false,
            subscription_ids: Vec::new(),
            share: None,
        }
    }

    #[test]
    fn of_qos_2_what_was_on_its_way_to_another_member_is_free_and_what_may_have_been_sent_is_not() {
        let row = EstateRow {
            passed: 2,
            up_to: 9,
            given: 7,
            settled: vec![4],
            due_at: 1,
            leaving: vec![6, 7],
        };
        let estate = Estate::restored(SessionId::fresh(), row);
        let free = |qos: u8| -> Vec<u64> {
            let owed = owed(qos);
            (3..=9)
                .filter(|position| estate.is_free(*position, &owed))
                .collect()
        };
        assert_eq!(free(2), [6, 7, 8, 9]);
        assert_eq!(free(1), [3, 5, 6, 7, 8, 9]);
    }
}
