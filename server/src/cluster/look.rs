//! What a node looks at for its operators: when it last saw another node's heartbeat change, and whether somebody asked over another node that
//! it leave. Nothing here decides who owns what.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use godwit_cluster::own::{About, Millis, clock_of};
use godwit_store::coordination::{Coordination as _, StartId, StartRow};
use godwit_store::{Kind, Read, ReadAnswer, Store as _, StoreError, Table};

use super::{Membership, boot_ms, wall};
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

/// Starts that were seen, with their last heartbeats.
#[derive(Default)]
pub(super) struct Seen(HashMap<StartId, (u64, Millis)>);

impl Seen {
    /// Takes in all rows, read at `now`; forgets who has none any more.
    pub(super) fn read(&mut self, now: Millis, rows: &[StartRow]) {
        let before = std::mem::take(&mut self.0);
        self.0 = rows
            .iter()
            .map(|row| match before.get(&row.start) {
                Some((beat, at)) if *beat == row.beat => (row.start, (*beat, *at)),
                _ => (row.start, (row.beat, now)),
            })
            .collect();
    }

    /// How long ago the last change was seen.
    pub(super) fn age(&self, now: Millis, start: StartId) -> Option<Millis> {
        self.0.get(&start).map(|(_, at)| now.saturating_sub(*at))
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
        let rows = self.0.coordination.read_starts().await?;
        self.seen().read(boot_ms(), &rows);
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

    /// This machine's calendar beside those of the other members, as of their last heartbeats.
    fn compare_clocks(&self, rows: &[StartRow]) {
        let (standing, own) = (self.0.standing.borrow().clone(), *self.0.start.borrow());
        let Some(standing) = standing else { return };
        let (here, now) = (unix_ms(), boot_ms());
        let is_other = |row: &&StartRow| Some(row.start) != own && standing.body.seat_of(row.start).is_some();
        let others = rows.iter().filter(is_other);
        let others: Vec<i64> = others
            .filter_map(|row| {
                let age = self
                    .seen()
                    .age(now, row.start)
                    .filter(|age| *age < wall::FRESH_MS)?;
                let there = clock_of(&row.about)?.saturating_add(age);
                i64::try_from(i128::from(there) - i128::from(here)).ok()
            })
            .collect();
        let mut known = self
            .0
            .clock_ahead_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if others.is_empty() && known.is_some_and(wall::is_off) {
            // Nobody is left to compare it with, and it was wrong: late rather than early, until somebody comes or it is started again.
            return;
        }
        let ahead = wall::ahead_ms(others);
        *known = Some(ahead);
        drop(known);
        let is_off = wall::is_off(ahead);
        let was_off = self.0.holdings.doubt_clock(is_off);
        let seconds = ahead as f64 / 1e3;
        if is_off && !was_off {
            tracing::warn!(
                seconds,
                "this machine's calendar is far off the median of the members': this node expires and trims nothing until that is right"
            );
        } else if was_off && !is_off {
            tracing::info!(
                seconds,
                "this machine's calendar agrees with the members': what is over ends"
            );
        }
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
        seen.read(5_000, &[row(1, 6)]);
        assert_eq!((seen.age(5_000, one), seen.age(5_000, two)), (Some(2_000), None));
    }
}
