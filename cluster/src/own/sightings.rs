//! What this start has seen of the others: heartbeats, and since when they stand still. Judges who is dead; what
//! follows from it is `moves.rs`'s and `changes.rs`'s.

use std::collections::BTreeMap;

use godwit_store::View;
use godwit_store::coordination::{StartId, StartRow};

use super::{DEAD_AFTER_MS, ENDED, LEASE_MS, Millis};

/// What was last seen of a start.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) beat: u64,
    /// Return of the read that first showed this beat.
    first_returned: Millis,
    /// Begin of the last read that showed no later one.
    last_begun: Millis,
    /// Whether the beat was ever seen to change: else it may be a row left behind.
    changed: bool,
    /// Whether the last read had the row.
    present: bool,
    pub(super) confirmed: View,
    pub(super) stamp: i64,
    pub(super) about: bytes::Bytes,
}

/// All starts by what was last seen of them. Bounded by the rows that there are and the views that name starts.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    seen: BTreeMap<StartId, Sighting>,
    /// Begin of the last read of all rows; `None` before the first.
    pub(super) last_begun: Option<Millis>,
}

impl Sightings {
    /// A read of all rows. `wanted` are starts that matter even without a row.
    pub(super) fn read(
        &mut self,
        begun: Millis,
        returned: Millis,
        rows: Vec<StartRow>,
        wanted: impl Iterator<Item = StartId>,
    ) {
        self.last_begun = Some(begun);
        let fresh = || Sighting {
            beat: 0,
            first_returned: returned,
            last_begun: begun,
            changed: false,
            present: false,
            confirmed: 0,
            stamp: 0,
            about: bytes::Bytes::new(),
        };
        for seen in self.seen.values_mut() {
            seen.present = false;
            seen.last_begun = begun;
        }
        let mut keep: Vec<StartId> = wanted.collect();
        for start in &keep {
            self.seen.entry(*start).or_insert_with(fresh);
        }
        for row in rows {
            keep.push(row.start);
            let known = self.seen.contains_key(&row.start);
            let seen = self.seen.entry(row.start).or_insert_with(fresh);
            seen.present = true;
            // A QUORUM read may show less than one before it: numbers only grow, so the largest counts.
            if row.beat > seen.beat {
                seen.changed |= known && seen.beat > 0;
                seen.beat = row.beat;
                seen.first_returned = returned;
                seen.about = row.about;
            }
            seen.confirmed = seen.confirmed.max(row.confirmed);
            seen.stamp = seen.stamp.max(row.stamp);
        }
        self.seen.retain(|start, _| keep.contains(start));
    }

    pub(super) fn get(&self, start: StartId) -> Option<&Sighting> {
        self.seen.get(&start)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (StartId, &Sighting)> {
        self.seen.iter().map(|(start, seen)| (*start, seen))
    }

    /// Whether the start is dead by a read begun after `after`: it says so itself, or its beat stood still for
    /// lease and margin, counted from the return of the read that first showed it to the begin of the last one.
    pub(super) fn dead(&self, start: StartId, after: Millis) -> bool {
        self.seen.get(&start).is_some_and(|seen| {
            let stood = seen.last_begun.saturating_sub(seen.first_returned);
            seen.confirmed == ENDED || (stood >= DEAD_AFTER_MS && seen.last_begun > after)
        })
    }

    /// The largest view that the start has confirmed.
    pub(super) fn confirmed(&self, start: StartId) -> View {
        self.seen.get(&start).map_or(0, |seen| seen.confirmed)
    }

    /// When [`Sightings::dead`] may next turn true for one of `starts`: no need to look before.
    pub(super) fn silent_for(&self, start: StartId, now: Millis) -> Millis {
        self.seen
            .get(&start)
            .map_or(0, |seen| now.saturating_sub(seen.first_returned))
    }
}

impl Sighting {
    /// Whether it waits to be taken into a view, as far as its row says.
    pub(super) fn waits(&self) -> bool {
        self.present && self.confirmed == 0
    }

    /// Whether it waits to be taken into a view, and lives.
    pub(super) fn asks_to_join(&self, now: Millis) -> bool {
        self.waits() && self.changed && now.saturating_sub(self.first_returned) < LEASE_MS
    }

    /// Whether the row is there and has not changed for `ms`.
    pub(super) fn left_behind(&self, ms: Millis) -> bool {
        self.present && self.last_begun.saturating_sub(self.first_returned) >= ms
    }
}
