//! What a node looks at for its operators: when it last saw another node's heartbeat change, and whether somebody asked over another node that
//! it leave. Nothing here decides who owns what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit_cluster::own::{About, Millis, clock_of};
use godwit_store::coordination::{Coordination as _, StartId, StartRow};
use godwit_store::{Kind, Read, ReadAnswer, Store as _, StoreError, Table};

use super::wall;
use super::{Membership, boot_ms};
use crate::node::unix_ms;

/// A start → that it is to leave. One row for each node that was ever drained through another.
pub(crate) const DRAINS: Table = Table {
    id: 501,
    kind: Kind::Facts,
    name: "drains",
};

/// What each start says about itself.
pub type Peers = Arc<HashMap<StartId, About>>;

/// How often: two small reads each.
const EVERY: Duration = Duration::from_secs(2);

/// Who has not read the rows for longer than this does not know when a heartbeat came that was not there before, milliseconds: after a time without the
/// store, or of sleep, it may be of the beginning of that.
const GAP_MS: Millis = 3_000;

/// How often at a start, until all others' heartbeats were seen to change: those that live write one each 500 ms.
const AT_FIRST_EVERY: Duration = Duration::from_millis(150);
/// How long at most: after it who stands still is not waited for.
const AT_FIRST: Duration = Duration::from_millis(1_500);

/// Starts that were seen, with their last heartbeats.
#[derive(Default)]
pub(super) struct Seen {
    starts: HashMap<StartId, LastBeat>,
    /// When the last read that gave rows began.
    read_at: Option<Millis>,
}

#[derive(Clone, Copy)]
struct LastBeat {
    beat: u64,
    seen_at: Millis,
    /// It was seen to come; else it may be of long ago.
    came: bool,
}

impl Seen {
    /// Takes in all rows of a read that began at `now`; forgets who has none any more.
    pub(super) fn read(&mut self, now: Millis, rows: &[StartRow]) {
        let gap = self
            .read_at
            .is_none_or(|read_at| now.saturating_sub(read_at) > GAP_MS);
        self.read_at = Some(now);
        let before = std::mem::take(&mut self.starts);
        self.starts = rows
            .iter()
            .map(|row| {
                let before = before.get(&row.start).copied();
                let last = before.filter(|last| last.beat == row.beat);
                let new = LastBeat {
                    beat: row.beat,
                    seen_at: now,
                    came: before.is_some() && !gap,
                };
                (row.start, last.unwrap_or(new))
            })
            .collect();
    }

    /// How long ago the last change was seen.
    pub(super) fn age(&self, now: Millis, start: StartId) -> Option<Millis> {
        self.starts
            .get(&start)
            .map(|last| now.saturating_sub(last.seen_at))
    }

    /// As [`Self::age`], of one that was seen to come.
    fn age_of_new(&self, now: Millis, start: StartId) -> Option<Millis> {
        let came = self.starts.get(&start).is_some_and(|last| last.came);
        self.age(now, start).filter(|_| came)
    }
}

/// A start's row as operators see it.
pub(super) struct Row {
    pub(super) start: StartId,
    /// `None`: of a newer build.
    pub(super) about: Option<About>,
    pub(super) confirmed: u64,
}

impl Membership {
    /// The rows of all starts, and they are taken as seen.
    pub(super) async fn rows(&self) -> Result<Vec<Row>, StoreError> {
        let began = boot_ms();
        let rows = self.0.coordination.read_starts().await?;
        self.seen().read(began, &rows);
        self.compare_clocks(&rows);
        let row = |row: StartRow| Row {
            start: row.start,
            about: About::decode(&row.about),
            confirmed: row.confirmed,
        };
        let rows: Vec<Row> = rows.into_iter().map(row).collect();
        let peers = rows
            .iter()
            .filter_map(|row| Some((row.start, row.about.clone()?)));
        let peers: HashMap<StartId, About> = peers.collect();
        self.0.peers.send_if_modified(|known| {
            let changed = **known != peers;
            if changed {
                *known = Arc::new(peers);
            }
            changed
        });
        Ok(rows)
    }

    /// Rows of other nodes that count when calendars are compared: of members, or, before there is a view, of all.
    fn others<'a>(&self, rows: &'a [StartRow]) -> Vec<&'a StartRow> {
        let standing = self.0.standing.borrow().clone();
        // An earlier start of this node had the same calendar.
        let is_own =
            |row: &StartRow| About::decode(&row.about).is_some_and(|about| about.name == self.0.about.name);
        let is_member = |start| {
            standing
                .as_ref()
                .is_none_or(|standing| standing.body.seat_of(start).is_some())
        };
        rows.iter()
            .filter(|row| is_member(row.start) && !is_own(row))
            .collect()
    }

    /// This machine's calendar beside those of the other members, as of their last heartbeats.
    fn compare_clocks(&self, rows: &[StartRow]) {
        let (here, now) = (unix_ms(), boot_ms());
        let rows = self.others(rows);
        let others: Vec<i64> = {
            let seen = self.seen();
            let others = rows.iter().filter_map(|row| {
                let age = seen
                    .age_of_new(now, row.start)
                    .filter(|age| *age < wall::FRESH_MS)?;
                let there = clock_of(&row.about)?.saturating_add(age);
                i64::try_from(i128::from(there) - i128::from(here)).ok()
            });
            others.collect()
        };
        let waits = rows.iter().any(|row| {
            let seen = self.seen();
            let age = seen.age(now, row.start).unwrap_or(0);
            seen.age_of_new(now, row.start).is_none() && age < wall::FRESH_MS
        });
        let before = self.0.holdings.calendar();
        let mut history = self.history();
        let Some(calendar) = history.take(before, others, waits, (here, now)) else {
            return;
        };
        self.0.holdings.set_calendar(calendar);
        let seconds = history.ahead_ms.unwrap_or(0) as f64 / 1e3;
        if calendar.doubted && !before.doubted {
            tracing::warn!(
                seconds,
                "this machine's calendar is far off the median of the members', or it was set and nobody agrees: until that is right this node goes by their time, and expires and trims nothing"
            );
        } else if before.doubted && !calendar.doubted {
            tracing::info!(
                seconds,
                "this machine's calendar agrees with the members': what is over ends"
            );
        }
    }

    /// Whether of all other nodes in these rows a heartbeat was seen to come.
    fn have_come(&self, rows: &[Row]) -> bool {
        let (now, seen) = (boot_ms(), self.seen());
        let is_own = |row: &Row| {
            let about = row.about.as_ref();
            about.is_some_and(|about| about.name == self.0.about.name)
        };
        rows.iter()
            .all(|row| is_own(row) || seen.age_of_new(now, row.start).is_some())
    }

    /// Asks another start to leave. Blocks.
    pub(super) fn drain_other(&self, start: StartId) -> Result<(), StoreError> {
        let key = Bytes::copy_from_slice(start.as_bytes());
        self.0
            .store
            .settle(DRAINS, &key, &Bytes::from_static(b"1"))
            .map(drop)
    }

    /// Whether this start was asked to leave over another node. Blocks.
    fn is_asked(&self) -> bool {
        let Some(start) = *self.0.start.borrow() else {
            return false;
        };
        let asked = Read::Fact {
            table: DRAINS,
            key: Bytes::copy_from_slice(start.as_bytes()),
        };
        // What fails is asked again.
        let answers = self.0.store.read_now(&[asked]).unwrap_or_default();
        matches!(answers.first(), Some(ReadAnswer::Fact(Some(_))))
    }
}

/// Before anything is taken up: so that nothing is written by a calendar that was not compared with those of whom there is.
pub(super) async fn look_at_first(membership: &Membership) {
    let until = tokio::time::Instant::now() + AT_FIRST;
    while tokio::time::Instant::now() < until {
        match membership.rows().await {
            Ok(rows) if membership.have_come(&rows) => return,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the other nodes' rows cannot be read"),
        }
        tokio::time::sleep(AT_FIRST_EVERY).await;
    }
}

/// Looks again and again; dropped with the driver.
pub(super) async fn look(membership: &Membership) {
    let mut standing = membership.standing();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // Its sender lives as long as this.
            _ = standing.changed() => {}
        }
        if let Err(error) = membership.rows().await {
            tracing::debug!(%error, "the other nodes' rows cannot be read");
        }
        let asking = membership.clone();
        let asked = tokio::task::spawn_blocking(move || asking.is_asked());
        if asked.await.unwrap_or(false) {
            tracing::info!("asked over another node to leave the cluster");
            membership.drain();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_heartbeat_is_as_old_as_its_last_change_and_a_row_that_went_is_forgotten() {
        let row = |start, beat| StartRow {
            start: Uuid::from_u128(start),
            beat,
            confirmed: 1,
            stamp: 0,
            about: Bytes::new(),
        };
        let (mut seen, one, two) = (Seen::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        seen.read(1_000, &[row(1, 5), row(2, 5)]);
        seen.read(3_000, &[row(1, 6), row(2, 5)]);
        assert_eq!(
            (seen.age(4_000, one), seen.age(4_000, two)),
            (Some(1_000), Some(3_000))
        );
        assert_eq!(
            (seen.age_of_new(4_000, one), seen.age_of_new(4_000, two)),
            (Some(1_000), None),
            "the other's may be of long ago"
        );
        seen.read(5_000, &[row(1, 6)]);
        assert_eq!((seen.age(5_000, one), seen.age(5_000, two)), (Some(2_000), None));
        // Five minutes without the store: this one came at their beginning.
        seen.read(305_000, &[row(1, 7)]);
        assert_eq!(seen.age_of_new(305_000, one), None);
        seen.read(307_000, &[row(1, 8)]);
        assert_eq!(seen.age_of_new(307_000, one), Some(0));
    }
}
