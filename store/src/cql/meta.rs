//! What all nodes must agree on, written beside the schema when it is made and checked before every start: version, consistency, cluster.

use backon::Retryable;
use uuid::Uuid;

use super::again::pauses;
use super::schema::{VERSION, VERSION_NAME};
use super::session::{Bind, Link, Options, Use, unavailable};
use crate::StoreError;

/// How often writing a row is tried again when the schema is made.
const PUT_REPEATS: usize = 4;

/// What was agreed on when the schema was made. By lightweight transactions only.
pub(super) struct Meta<'a> {
    link: &'a Link,
    put: scylla::statement::prepared::PreparedStatement,
    get: scylla::statement::prepared::PreparedStatement,
}

impl<'a> Meta<'a> {
    pub(super) async fn prepare(link: &'a Link, options: &Options) -> Result<Self, StoreError> {
        let meta = format!("{}.meta", options.own_keyspace());
        let put = format!("INSERT INTO {meta} (name, value, nonce) VALUES (?, ?, ?) IF NOT EXISTS");
        let get = format!("SELECT value FROM {meta} WHERE name = ?");
        Ok(Self {
            put: link.prepare(&put, Use::Claim).await?,
            get: link.prepare(&get, Use::SerialRead).await?,
            link,
        })
    }

    /// Writes it if it is new. What became of an attempt without an answer a read at SERIAL says; what it holds is judged by the check.
    pub(super) async fn put(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let put = || async {
            let values = [name.into(), value.into(), Bind::from(Uuid::new_v4())];
            match self.link.run(&self.put, &values).await {
                Ok(_) => Ok(()),
                Err(e) => self.get(name).await?.map(drop).ok_or_else(|| unavailable(&e)),
            }
        };
        put.retry(pauses().with_max_times(PUT_REPEATS))
            .when(StoreError::retryable)
            .await
    }

    async fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        let rows = self.link.rows(&self.get, &[name.into()]).await?;
        let row = rows
            .maybe_first_row::<(Option<String>,)>()
            .map_err(|e| unavailable(&e))?;
        Ok(row.and_then(|(value,)| value))
    }

    /// Refuses what a newer build made, or what was made for something else; what is not said yet is no matter.
    pub(super) async fn may_be_mine(&self, agreed: &[(&str, String)]) -> Result<(), StoreError> {
        for (name, wanted) in agreed {
            let Some(found) = self.get(name).await? else {
                continue;
            };
            let newer = || found.parse::<u32>().is_ok_and(|found| found > VERSION);
            if found != *wanted && (*name != VERSION_NAME || newer()) {
                return Err(differs(name, &found, wanted));
            }
        }
        Ok(())
    }

    pub(super) async fn check(&self, agreed: &[(&str, String)]) -> Result<(), StoreError> {
        for (name, wanted) in agreed {
            match self.get(name).await? {
                Some(found) if found == *wanted => {}
                Some(found) => return Err(differs(name, &found, wanted)),
                None => {
                    return Err(StoreError::Refused(
                        "the store's schema is not complete: run `godwit schema`".into(),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn differs(name: &str, found: &str, wanted: &str) -> StoreError {
    StoreError::Refused(if name == VERSION_NAME {
        format!(
            "the store's schema is version {found}, this build's is {wanted}: run `godwit schema` of the newest build"
        )
    } else {
        format!(
            "the schema was made for {name} {found:?} and this node is set to {wanted:?}: all nodes must be alike"
        )
    })
}
