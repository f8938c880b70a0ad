//! A start's heartbeat and its lease: when it writes its row, what a stored row is good for, whether it should act. What the others
//! make of its row is `sightings.rs`'s.

use godwit_store::coordination::StartRow;

use super::events::Action;
use super::member::{Member, Phase};
use super::{BEAT_MS, LEASE_MS, Millis};

impl Member {
    /// A heartbeat vouches that its node reads the view: who cannot see that its shards went falls silent.
    pub(super) fn sees(&self) -> bool {
        self.phase != Phase::In || self.now.saturating_sub(self.view_begun) < LEASE_MS
    }

    pub(super) fn write_if_due(&mut self) {
        let due = self.now >= self.next_beat && self.sees();
        if self.writing.is_some() || !(due || self.write_soon) {
            return;
        }
        self.write_soon = false;
        self.next_beat = self.now + BEAT_MS;
        self.beat += 1;
        self.writing = Some((self.now, self.confirmed));
        self.actions.push_back(Action::WriteStart(StartRow {
            start: self.me.start,
            beat: self.beat,
            confirmed: self.confirmed,
            stamp: 0,
            about: self.about.clone(),
        }));
    }

    pub(super) fn wrote(&mut self, stored: bool) {
        let Some((begun, confirmed)) = self.writing.take() else {
            return;
        };
        if let Phase::Ending(why) = self.phase {
            if confirmed == super::ENDED {
                // If the last row is not stored, the others wait for its silence instead.
                self.phase = Phase::Ended;
                self.actions.push_back(Action::Ended(why));
            }
            return;
        }
        if !stored {
            self.write_soon |= confirmed < self.confirmed;
            return;
        }
        self.stored = Some((self.beat, self.now));
        let until = begun + LEASE_MS;
        if self.now < self.lease_until {
            self.lease(until);
        } else {
            // The lease had ended: others may have taken over since. The next read of the view knows.
            self.renewed = Some((until, self.now));
        }
    }

    /// Whether a read begun at `begun` had to show a heartbeat of this start and did not: then the others do not see it either.
    pub(super) fn is_unseen(&self, begun: Millis, rows: &[StartRow]) -> bool {
        #[cfg(feature = "planted-bugs")]
        if self.bugs.trusts_hidden_rows {
            return false;
        }
        let mine = |row: &&StartRow| row.start == self.me.start;
        let shown = rows.iter().find(mine).map_or(0, |row| row.beat);
        self.stored
            .is_some_and(|(beat, known)| known < begun && shown < beat)
    }

    fn lease(&mut self, until: Millis) {
        self.lease_until = self.lease_until.max(until);
        self.holdings.act_until(self.lease_until);
    }

    /// Whether it should act now.
    pub fn may_act(&self) -> bool {
        self.phase == Phase::In && self.now < self.lease_until
    }

    /// A read begun at `begun` showed the view that this start acts in.
    pub(super) fn view_was_read(&mut self, begun: Millis) {
        self.view_begun = self.view_begun.max(begun);
        if self.phase == Phase::In
            && let Some((until, returned)) = self.renewed
            && begun > returned
        {
            self.renewed = None;
            self.lease(until);
        }
    }
}
