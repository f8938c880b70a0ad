//! The coordination rows in CQL: one row a start, written plainly; the view, changed by lightweight transactions alone. The contract is
//! [`crate::coordination`], what the rows mean is decision 0010.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row};
use uuid::Uuid;

use super::claim::applied;
use super::core::Core;
use super::session::{Bind, Link, Options, Use, number, unavailable};
use crate::StoreError;
use crate::coordination::{Asked, Changed, Coordination, Nonce, StartId, StartRow, StoredView, TIMEOUT_MS};
use crate::types::View;

/// The one cluster of a keyspace.
const CLUSTER: &str = "godwit";
/// After which a call ends with an error; what it asked for may still happen.
const TIMEOUT: Duration = Duration::from_millis(TIMEOUT_MS - 50);

pub(super) struct CoordinationStatements {
    shown: PreparedStatement,
    view: PreparedStatement,
    first_view: PreparedStatement,
    next_view: PreparedStatement,
    beat: PreparedStatement,
    starts: PreparedStatement,
    delete_start: PreparedStatement,
}

impl CoordinationStatements {
    pub(super) async fn prepare(link: &Link, options: &Options) -> Result<Self, StoreError> {
        let own = options.own_keyspace();
        let shown = format!("SELECT number, nonce FROM {own}.views WHERE cluster = ?");
        let view = format!("SELECT number, nonce, body FROM {own}.views WHERE cluster = ?");
        let first = format!(
            "INSERT INTO {own}.views (cluster, number, nonce, body) VALUES (?, ?, ?, ?) IF NOT EXISTS"
        );
        let next =
            format!("UPDATE {own}.views SET number = ?, nonce = ?, body = ? WHERE cluster = ? IF nonce = ?");
        let beat = format!(
            "INSERT INTO {own}.starts (cluster, start, beat, confirmed, stamp, about) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let starts =
            format!("SELECT start, beat, confirmed, stamp, about FROM {own}.starts WHERE cluster = ?");
        let delete = format!("DELETE FROM {own}.starts USING TIMESTAMP ? WHERE cluster = ? AND start = ?");
        Ok(Self {
            shown: link.prepare(&shown, Use::Read).await?,
            view: link.prepare(&view, Use::SerialRead).await?,
            first_view: link.prepare(&first, Use::Claim).await?,
            next_view: link.prepare(&next, Use::Claim).await?,
            beat: link.prepare(&beat, Use::Write).await?,
            starts: link.prepare(&starts, Use::Read).await?,
            delete_start: link.prepare(&delete, Use::Write).await?,
        })
    }
}

/// The coordination rows of the engine's cluster. Calls may come from tasks of any runtime.
#[derive(Clone)]
pub struct CqlCoordination {
    core: Arc<Core>,
}

impl CqlCoordination {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Runs it where the session lives, for as long as a call may take.
    fn asked<T, F>(&self, work: impl FnOnce(Arc<Core>) -> F) -> Asked<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let work = work(self.core.clone());
        let call = self
            .core
            .handle
            .spawn(async { tokio::time::timeout(TIMEOUT, work).await });
        Box::pin(async move {
            match call.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(StoreError::Unavailable(format!("no answer within {TIMEOUT:?}"))),
                Err(_) => Err(StoreError::Unavailable("the engine has been closed".into())),
            }
        })
    }
}

impl Coordination for CqlCoordination {
    fn write_start(&self, row: StartRow) -> Asked<'_, Result<(), StoreError>> {
        self.core.clock.stamping(row.stamp);
        self.asked(async move |core| {
            let stamp = row.stamp;
            let values: [Bind; 7] = [
                CLUSTER.into(),
                row.start.into(),
                row.beat.into(),
                row.confirmed.into(),
                row.stamp.into(),
                row.about.into(),
                // The timestamp is the heartbeat's number: larger beats win, and a deletion hides no later one, whatever the clocks say.
                row.beat.into(),
            ];
            let written = core.link.run(&core.coordination.beat, &values).await;
            written.map_err(|e| unavailable(&e))?;
            core.clock.stamped(stamp);
            Ok(())
        })
    }

    fn read_starts(&self) -> Asked<'_, Result<Vec<StartRow>, StoreError>> {
        self.asked(async |core| {
            let rows = core
                .link
                .rows(&core.coordination.starts, &[CLUSTER.into()])
                .await?;
            type Found<'a> = (Uuid, Option<i64>, Option<i64>, Option<i64>, Option<&'a [u8]>);
            rows.rows::<Found<'_>>()
                .map_err(|e| unavailable(&e))?
                .map(|row| {
                    let (start, beat, confirmed, stamp, about) = row.map_err(|e| unavailable(&e))?;
                    Ok(StartRow {
                        start,
                        beat: number(beat),
                        confirmed: number(confirmed),
                        stamp: stamp.unwrap_or(0),
                        about: Bytes::copy_from_slice(about.unwrap_or_default()),
                    })
                })
                .collect()
        })
    }

    fn delete_start(&self, start: StartId, beat: u64) -> Asked<'_, Result<(), StoreError>> {
        self.asked(async move |core| {
            let values = [beat.into(), CLUSTER.into(), start.into()];
            let deleted = core.link.run(&core.coordination.delete_start, &values).await;
            deleted.map(drop).map_err(|e| unavailable(&e))
        })
    }

    fn shown_view(&self) -> Asked<'_, Result<Option<(View, Nonce)>, StoreError>> {
        self.asked(async |core| core.shown_view().await)
    }

    fn read_view(&self) -> Asked<'_, Result<Option<StoredView>, StoreError>> {
        self.asked(async |core| {
            let rows = core.link.rows(&core.coordination.view, &[CLUSTER.into()]).await?;
            let row = rows
                .maybe_first_row::<(Option<i64>, Option<Uuid>, Option<&[u8]>)>()
                .map_err(|e| unavailable(&e))?;
            Ok(row.map(|(view, nonce, body)| StoredView {
                number: number(view),
                nonce: nonce.unwrap_or_default(),
                body: Bytes::copy_from_slice(body.unwrap_or_default()),
            }))
        })
    }

    fn change_view(&self, expected: Option<Nonce>, new: StoredView) -> Asked<'_, Changed> {
        let asked = self.asked(async move |core| Ok(core.change_view(expected, &new).await));
        Box::pin(async move { asked.await.unwrap_or(Changed::Unknown) })
    }

    fn stamp(&self) -> i64 {
        self.core.clock.stamp()
    }

    fn raise_stamps(&self, floor: i64) {
        self.core.clock.raise_to(floor);
    }
}

impl Core {
    /// Number and nonce of the view at QUORUM; the confirming read, too.
    pub(super) async fn shown_view(&self) -> Result<Option<(View, Nonce)>, StoreError> {
        let rows = self
            .link
            .rows(&self.coordination.shown, &[CLUSTER.into()])
            .await?;
        let row = rows
            .maybe_first_row::<(Option<i64>, Option<Uuid>)>()
            .map_err(|e| unavailable(&e))?;
        Ok(row.map(|(view, nonce)| (number(view), nonce.unwrap_or_default())))
    }

    async fn change_view(&self, expected: Option<Nonce>, new: &StoredView) -> Changed {
        let c = &self.coordination;
        let (number, nonce, body): (Bind, Bind, Bind) =
            (new.number.into(), new.nonce.into(), (&new.body).into());
        let tried = match expected {
            None => {
                self.link
                    .run(&c.first_view, &[CLUSTER.into(), number, nonce, body])
                    .await
            }
            Some(expected) => {
                let values = [number, nonce, body, CLUSTER.into(), expected.into()];
                self.link.run(&c.next_view, &values).await
            }
        };
        let rows = tried.ok().and_then(|result| result.into_rows_result().ok());
        let Some(row) = rows.and_then(|rows| rows.first_row::<Row>().ok()) else {
            return Changed::Unknown;
        };
        // A "no" beside our own nonce is the answer to a second proposal, after somebody finished the first.
        let ours = row
            .columns
            .iter()
            .flatten()
            .any(|value| *value == CqlValue::Uuid(new.nonce));
        if ours || applied(Some(row)) {
            Changed::Applied
        } else {
            Changed::Not
        }
    }
}
