//! Facts: `IF NOT EXISTS`, whose outcome may be unknown. It is then read back at SERIAL, which finishes what was begun, and tried again
//! until it is known; a repeat with the same value is harmless. Nothing is ever deleted.

use backon::Retryable;
use bytes::Bytes;
use scylla::value::{CqlValue, Row};
use uuid::Uuid;

use super::again::{Failed, pauses};
use super::core::{Core, Gone};
use super::session::Bind;
use crate::StoreError;
use crate::store::Outcome;
use crate::types::{Scope, Table};

/// How often settling a fact is tried again at a start.
const SETTLE_REPEATS: usize = 4;

impl Core {
    pub(super) async fn claim(
        &self,
        scope: Scope,
        table: Table,
        key: &Bytes,
        value: &Bytes,
    ) -> Result<Outcome, Gone> {
        // Claims of one key would only make each other wait in the store.
        let _alone = self.keys.lock(table.id, key.clone()).await;
        self.until(|| async {
            self.still(scope)?;
            let _permit = self.wire.acquire().await;
            let again = |e: StoreError| Failed::Again(e.to_string());
            let statements = self.tables.facts(table).map_err(again)?;
            let values: [Bind; 3] = [key.into(), value.into(), Uuid::new_v4().into()];
            let tried = self.link.run(&statements.claim, &values).await;
            let failure = match tried {
                Ok(result) => match result.into_rows_result() {
                    Ok(rows) if applied(rows.first_row::<Row>().ok()) => return Ok(Outcome::Stored),
                    Ok(_) => String::from("taken, and not to be read"),
                    Err(e) => e.to_string(),
                },
                Err(e) => e.to_string(),
            };
            match self.fact(table, key, true).await.map_err(again)? {
                Some(found) if found == *value => Ok(Outcome::Stored),
                Some(found) => Ok(Outcome::Taken(found)),
                None => Err(Failed::Again(failure)),
            }
        })
        .await
    }

    /// Settles a fact that is nobody's key, such as a secret that all nodes share: what is there, or `value` from now on. Asks no owner.
    pub(super) async fn settle(&self, table: Table, key: &Bytes, value: &Bytes) -> Result<Bytes, StoreError> {
        let _alone = self.keys.lock(table.id, key.clone()).await;
        let claim = &self.tables.facts(table)?.claim;
        let settle = || async {
            if let Some(found) = self.fact(table, key, true).await? {
                return Ok(found);
            }
            let values: [Bind; 3] = [key.into(), value.into(), Uuid::new_v4().into()];
            // Whatever it says, a read at SERIAL says more.
            let tried = self.link.run(claim, &values).await;
            match (self.fact(table, key, true).await?, tried) {
                (Some(found), _) => Ok(found),
                (None, Err(e)) => Err(super::session::unavailable(&e)),
                (None, Ok(_)) => Err(StoreError::Unavailable(
                    "a fact was written and is not there".into(),
                )),
            }
        };
        settle
            .retry(pauses().with_max_times(SETTLE_REPEATS))
            .when(StoreError::retryable)
            .await
    }

    /// A fact; at SERIAL, with what others have begun.
    pub(super) async fn fact(
        &self,
        table: Table,
        key: &Bytes,
        serial: bool,
    ) -> Result<Option<Bytes>, StoreError> {
        let statements = self.tables.facts(table)?;
        let statement = if serial {
            &statements.get_serial
        } else {
            &statements.get
        };
        let rows = self.link.rows(statement, &[key.into()]).await?;
        let row = rows
            .maybe_first_row::<(Option<&[u8]>,)>()
            .map_err(|e| super::session::unavailable(&e))?;
        Ok(row.and_then(|(value,)| value.map(Bytes::copy_from_slice)))
    }
}

/// Whether a lightweight transaction was applied: its answer's first column says so.
pub(super) fn applied(row: Option<Row>) -> bool {
    matches!(
        row.and_then(|row| row.columns.into_iter().next().flatten()),
        Some(CqlValue::Boolean(true))
    )
}
