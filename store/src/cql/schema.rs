//! The schema: both keyspaces, the tables of every crate by their kinds, the coordination tables, and what is checked before a start.
//! `godwit schema` calls [`create`], a node [`check`]. Why the tables are so: decision 0009.

use uuid::Uuid;

use super::session::{Bind, Link, Options, Replication, Use, unavailable};
use super::statements::ENDED_TTL;
use crate::StoreError;
use crate::types::{Kind, Table};

/// Of what [`create`] makes; a newer one found is refused, an older one migrated by [`create`].
const VERSION: u32 = 1;

/// Seconds for which deletions are kept against a replica that missed them, where one that returns harms nobody: a returned
/// element of a set is looked at once more, an ended row of an owner is a row, and views above it count.
const SHORT_GRACE: u32 = 86_400;
/// The same where a deletion must not be forgotten before a repair, which runs once a week.
const GRACE: u32 = ENDED_TTL as u32;

const LEVELLED: &str = "{'class': 'LeveledCompactionStrategy'}";
const TIERED: &str = "{'class': 'SizeTieredCompactionStrategy'}";

/// Makes what is missing of keyspaces and tables, migrates what is older, and returns when all nodes agree on it. May be repeated. Not
/// by two at once: Cassandra 5 may then make a table twice and ask for help.
///
/// # Errors
/// [`StoreError::Unavailable`] if no node answers or they do not agree; [`StoreError::Refused`] if what is there is newer, or
/// made for another consistency.
pub fn create(options: &Options, tables: &[Table]) -> Result<(), StoreError> {
    super::in_a_runtime(async {
        let link = Link::open(options).await?;
        let scylla = is_scylla(&link).await?;
        for cql in statements(options, tables, scylla) {
            link.define(&cql).await?;
        }
        link.agree().await?;
        let meta = Meta::prepare(&link, options).await?;
        let level = options.consistency_level();
        meta.put("consistency", &level).await?;
        meta.put("version", &VERSION.to_string()).await?;
        meta.check(&level).await
    })
}

/// Whether the schema that is there is this build's, and made for the same consistency.
///
/// # Errors
/// As [`create`]; [`StoreError::Refused`] also if it is older or was never made.
pub fn check(options: &Options) -> Result<(), StoreError> {
    super::in_a_runtime(async {
        let link = Link::open(options).await?;
        checked(&link, options).await
    })
}

pub(super) async fn checked(link: &Link, options: &Options) -> Result<(), StoreError> {
    let meta = Meta::prepare(link, options).await?;
    meta.check(&options.consistency_level()).await
}

/// ScyllaDB describes its own tables in one that Cassandra does not have.
async fn is_scylla(link: &Link) -> Result<bool, StoreError> {
    let asked = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system_schema' AND table_name = 'scylla_tables'";
    let found = link
        .define(asked)
        .await?
        .into_rows_result()
        .map_err(|e| unavailable(&e))?;
    Ok(found.rows_num() > 0)
}

fn replication(options: &Options) -> String {
    match &options.replication {
        Replication::Simple(copies) => {
            format!("{{'class': 'SimpleStrategy', 'replication_factor': {copies}}}")
        }
        Replication::Datacenters(all) => {
            let each: String = all
                .iter()
                .map(|(name, copies)| format!(", '{}': {copies}", name.replace('\'', "''")))
                .collect();
            format!("{{'class': 'NetworkTopologyStrategy'{each}}}")
        }
    }
}

/// Everything, in order.
fn statements(options: &Options, tables: &[Table], scylla: bool) -> Vec<String> {
    let (data, own, replication) = (&options.keyspace, options.own_keyspace(), replication(options));
    // Lightweight transactions do not go with tablets on the versions of ScyllaDB that are out.
    let tablets = if scylla {
        " AND tablets = {'enabled': false}"
    } else {
        ""
    };
    let mut all = vec![
        format!("CREATE KEYSPACE IF NOT EXISTS {data} WITH replication = {replication}"),
        format!("CREATE KEYSPACE IF NOT EXISTS {own} WITH replication = {replication}{tablets}"),
    ];
    let mut table = |name: String, columns: &str, compaction: &str, grace: u32| {
        all.push(format!(
            "CREATE TABLE IF NOT EXISTS {name} ({columns}) WITH compaction = {compaction} AND gc_grace_seconds = {grace}"
        ));
    };
    table(
        format!("{own}.meta"),
        "name text PRIMARY KEY, value text, nonce uuid",
        LEVELLED,
        GRACE,
    );
    table(
        format!("{own}.views"),
        "cluster text PRIMARY KEY, number bigint, nonce uuid, body blob",
        LEVELLED,
        GRACE,
    );
    table(
        format!("{own}.starts"),
        "cluster text, start uuid, beat bigint, confirmed bigint, stamp bigint, about blob, PRIMARY KEY ((cluster), start)",
        LEVELLED,
        // Deleted once a start, and one that returns is seen not to beat.
        SHORT_GRACE,
    );
    for t in tables {
        let name = format!("{data}.{}", t.name);
        match t.kind {
            Kind::Log => {
                let columns = "id uuid, bucket bigint, seq bigint, owner bigint, row blob, PRIMARY KEY ((id, bucket), seq, owner)";
                // Written once, read in order, dropped by the partition.
                table(name.clone(), columns, TIERED, SHORT_GRACE);
                let columns = "id uuid, owner bigint, confirmed bigint, floor bigint, dropped bigint, fence blob, PRIMARY KEY ((id), owner)";
                // Read with every page, overwritten often.
                table(format!("{name}_heads"), columns, LEVELLED, GRACE);
            }
            Kind::Owned => {
                let columns = "partition blob, owner bigint, name blob, value blob, PRIMARY KEY ((partition, owner), name)";
                // A copy that is begun anew deletes rows that would count again.
                table(name.clone(), columns, LEVELLED, GRACE);
                let columns =
                    "partition blob, owner bigint, complete boolean, PRIMARY KEY ((partition), owner)";
                table(format!("{name}_fences"), columns, LEVELLED, GRACE);
            }
            Kind::Rows => {
                let columns = "partition blob, name blob, owner bigint, value blob, PRIMARY KEY ((partition), name, owner)";
                table(name, columns, LEVELLED, GRACE);
            }
            Kind::Single => {
                let columns = "partition blob, name blob, owner bigint, value blob, PRIMARY KEY ((partition, name), owner)";
                table(name, columns, LEVELLED, GRACE);
            }
            Kind::Set => {
                let columns = "partition blob, element blob, owner bigint, value blob, PRIMARY KEY ((partition), element, owner)";
                table(name, columns, LEVELLED, SHORT_GRACE);
            }
            Kind::Facts => table(
                format!("{own}.{}", t.name),
                "key blob PRIMARY KEY, value blob, nonce uuid",
                LEVELLED,
                GRACE,
            ),
        }
    }
    all
}

/// What was agreed on when the schema was made. By lightweight transactions only.
struct Meta<'a> {
    link: &'a Link,
    put: scylla::statement::prepared::PreparedStatement,
    get: scylla::statement::prepared::PreparedStatement,
}

impl<'a> Meta<'a> {
    async fn prepare(link: &'a Link, options: &Options) -> Result<Self, StoreError> {
        let meta = format!("{}.meta", options.own_keyspace());
        let put = format!("INSERT INTO {meta} (name, value, nonce) VALUES (?, ?, ?) IF NOT EXISTS");
        let get = format!("SELECT value FROM {meta} WHERE name = ?");
        Ok(Self {
            put: link.prepare(&put, Use::Claim).await?,
            get: link.prepare(&get, Use::SerialRead).await?,
            link,
        })
    }

    /// Writes it if it is new. An unknown outcome is seen by the check.
    async fn put(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let values = [name.into(), value.into(), Bind::from(Uuid::new_v4())];
        match self.link.run(&self.put, &values).await {
            Ok(_) => Ok(()),
            Err(e) => self.get(name).await?.map(drop).ok_or_else(|| unavailable(&e)),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        let rows = self.link.rows(&self.get, &[name.into()]).await?;
        let row = rows
            .maybe_first_row::<(Option<String>,)>()
            .map_err(|e| unavailable(&e))?;
        Ok(row.and_then(|(value,)| value))
    }

    async fn check(&self, level: &str) -> Result<(), StoreError> {
        let version = self.get("version").await?;
        let found = version.as_deref().and_then(|v| v.parse::<u32>().ok());
        match found {
            Some(VERSION) => {}
            Some(found) => {
                return Err(StoreError::Refused(format!(
                    "the store's schema is version {found}, this build's is {VERSION}: run `godwit schema` of the newest build"
                )));
            }
            None => {
                return Err(StoreError::Refused(
                    "the store has no schema: run `godwit schema`".into(),
                ));
            }
        }
        match self.get("consistency").await? {
            Some(found) if found == level => Ok(()),
            found => Err(StoreError::Refused(format!(
                "the schema was made for consistency {:?} and this node is set to {level:?}: all nodes must be alike",
                found.unwrap_or_default()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_data_centres_are_quoted_and_lightweight_transactions_have_no_tablets() {
        let mut options = Options::new(vec!["a".into()]);
        options.replication = Replication::Datacenters(vec![("o'hare".into(), 3), ("b".into(), 2)]);
        let all = statements(&options, &[], true);
        assert!(
            all[0].ends_with("{'class': 'NetworkTopologyStrategy', 'o''hare': 3, 'b': 2}"),
            "{}",
            all[0]
        );
        assert!(all[1].starts_with("CREATE KEYSPACE IF NOT EXISTS godwit_own") && all[1].contains("tablets"));
        assert!(!statements(&options, &[], false).concat().contains("tablets"));
    }

    #[test]
    fn every_table_says_its_compaction_and_none_has_an_index() {
        let tables = [
            Kind::Log,
            Kind::Owned,
            Kind::Rows,
            Kind::Single,
            Kind::Set,
            Kind::Facts,
        ]
        .map(|kind| Table {
            id: 1,
            kind,
            name: "t",
        });
        let all = statements(&Options::new(vec!["a".into()]), &tables, false);
        assert_eq!(all.len(), 2 + 3 + 8);
        assert!(
            all[2..]
                .iter()
                .all(|s| s.contains("compaction") && s.contains("gc_grace_seconds"))
        );
    }
}
