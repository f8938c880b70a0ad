//! Mailbox retention: how old entries are, by samples, how many and how heavy, and the floor that follows. What a session
//! had not acknowledged is never dropped silently: its cursor moves first, durably, and leaves a gap marker that it is
//! told.

use godwit_store::Op;

use super::due;
use super::env::{Env, What};
use super::home::Home;
use super::mailbox::{self, Mailbox};
use super::rows::{AgesRow, Name};
use super::session::Session;
use super::slices::Quota;

/// Samples within the time that entries are kept: an entry goes at most a twelfth of it too late.
const SAMPLES: u64 = 12;

/// The part of a quota that goes at once.
const PARTS: u64 = 16;

/// When which numbers were there already: `(milliseconds since 1970, number)`, ascending. At 0: those over a quota.
pub(crate) type Ages = Vec<(u64, u64)>;

/// The samples in a row.
pub(crate) fn restored(row: &AgesRow) -> Ages {
    row.at.iter().copied().zip(row.number.iter().copied()).collect()
}

impl Mailbox {
    /// Takes a sample if it is time for one, and looks at the quota. `up_to` is confirmed; `all`: it leaves memory.
    pub(crate) fn sample(&mut self, env: &mut Env<'_, '_>, up_to: u64, all: bool, ops: &mut Vec<Op>) {
        let (over, dirty) = (self.keep_quota(env), all && self.log.slices_dirty());
        let now = env.stamp_ms();
        let every = env.common.config.mailbox_ms / SAMPLES;
        let corrected = self.correct_ages(env, ops);
        let young = self.ages.last().is_some_and(|(at, _)| now < at + every);
        if !young {
            self.ages.push((now, up_to));
            // Looked at when these are over their time, also if nobody comes and nothing arrives until then.
            due::mailbox_look(env, now + env.common.config.mailbox_ms, ops);
        }
        if over || dirty || corrected || !young {
            ops.push(self.ages_row(env));
        }
    }

    /// What was there when a sample was taken is not younger than now: the node that took it was ahead. Nothing while this one may be behind. `true`: to be
    /// stored.
    fn correct_ages(&mut self, env: &mut Env<'_, '_>, ops: &mut Vec<Op>) -> bool {
        let now = env.expiry_ms();
        let ahead = self.ages.iter().position(|(at, _)| *at > now);
        let Some(first) = ahead.filter(|_| now > 0) else {
            return false;
        };
        for age in &mut self.ages[first..] {
            age.0 = now;
        }
        due::mailbox_look(env, now + env.common.config.mailbox_ms, ops);
        true
    }

    /// BOUND: what is over the quota is to go as if its time were over. `true`: to be stored.
    fn keep_quota(&mut self, env: &Env<'_, '_>) -> bool {
        let config = &env.common.config;
        let going = self
            .ages
            .first()
            .filter(|(at, _)| *at == 0)
            .map_or(0, |age| age.1);
        let floor = self.log.floor().max(going);
        let quota = Quota {
            entries: u64::MAX,
            bytes: config.mailbox_bytes,
        };
        let counted = self.log.count(quota, floor);
        let (most, confirmed) = (config.mailbox_entries, self.log.confirmed());
        let many = (confirmed - floor > most).then(|| confirmed - (most - most / PARTS));
        let Some(up_to) = counted.drop_to.max(many) else {
            return counted.closed;
        };
        tracing::warn!(user = %env.user.0, "a mailbox is over its quota: the oldest entries go");
        env.metrics().over_quota.inc_by(up_to - floor);
        self.ages.retain(|(_, number)| *number > up_to);
        self.ages.insert(0, (0, up_to));
        true
    }

    fn ages_row(&mut self, env: &Env<'_, '_>) -> Op {
        let (slices, slice_bytes) = self.log.store_slices();
        let row = AgesRow {
            slices,
            slice_bytes,
            at: self.ages.iter().map(|age| age.0).collect(),
            number: self.ages.iter().map(|age| age.1).collect(),
        };
        Name::Ages.put(env.user, env.view(), &row)
    }

    /// The last number whose time is over. Never above the stored head: the marks of what goes are stored.
    fn outlived(&self, env: &Env<'_, '_>) -> u64 {
        let kept_ms = env.common.config.mailbox_ms;
        let over = self
            .ages
            .iter()
            .rev()
            .find(|(at, _)| *at == 0 || at + kept_ms <= env.expiry_ms());
        over.map_or(0, |(_, number)| *number).min(self.log.stored_head())
    }
}

impl Session {
    /// It was left now at the latest: a time to come is of a node whose calendar was ahead. Not while this one's may be behind. `true`: it is another time.
    pub(crate) fn was_left_by_now(&mut self, env: &Env<'_, '_>) -> bool {
        let now = env.expiry_ms();
        let ahead = now > 0 && self.live.is_none() && self.disconnected_at > now;
        if ahead {
            self.disconnected_at = now;
        }
        ahead
    }

    /// The same in the store, and its due row with it.
    pub(crate) fn correct_its_end(&mut self, env: &mut Env<'_, '_>) {
        if !self.was_left_by_now(env) || !self.outlives() {
            return;
        }
        let mut ops = Vec::new();
        let look_at = due::session_look(env, self, self.ends_at(), &mut ops);
        ops.push(Name::Session(self.id).put(env.user, env.view(), &self.row()));
        env.store(look_at.map_or(What::Lazy, What::Expected), ops);
    }
}

impl Home {
    /// Trims what is over its time: cursors first.
    pub(crate) fn retain(&mut self, env: &mut Env<'_, '_>) {
        let floor = self.mailbox.outlived(env);
        if floor <= self.mailbox.log.floor() || self.mailbox.trimming {
            return;
        }
        self.mailbox.trimming = true;
        self.mailbox.ages.retain(|(_, number)| *number > floor);
        let mut ops = vec![self.mailbox.ages_row(env)];
        for session in &mut self.sessions {
            let (id, stored) = (session.id, session.is_persistent());
            let Some(inbox) = session.inbox.as_deref_mut() else {
                continue;
            };
            let Some(feed) = inbox.feed.as_mut() else { continue };
            let acked = feed.cursor.acked();
            if acked < floor {
                inbox.gap = inbox.gap.or(Some(acked));
                inbox.gap_told = false;
                feed.cursor.lift(floor);
            }
            // Never above a stored cursor: one that is only lazily stored is stored now.
            if stored && inbox.stored < floor {
                inbox.stored = feed.cursor.acked();
                ops.push(Name::Inbox(id).put(env.user, env.view(), &inbox.row()));
            }
        }
        env.store(What::Trim(floor), ops);
    }

    /// The cursors are durable above this floor.
    pub(crate) fn trim(&mut self, env: &mut Env<'_, '_>, floor: u64) {
        self.mailbox.trimming = false;
        let confirmed = self.mailbox.log.stored_head();
        if let Some(head) = self.mailbox.log.move_head(confirmed, floor) {
            let log = mailbox::log_id(env.user);
            env.store(What::Lazy, vec![Op::Head { log, head }]);
        }
        for index in 0..self.sessions.len() {
            self.push_mail(env, index);
        }
    }
}
