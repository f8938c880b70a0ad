//! The schema: both keyspaces, the tables of every crate by their kinds, the coordination tables, and what is checked before a start.
//! `godwit schema` calls [`create`], a node [`check`]. Why the tables are so: decision 0009.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backon::{ConstantBuilder, Retryable as _};
use uuid::Uuid;

use super::meta::Meta;
use super::session::{Link, Options, Replication, unavailable};
use super::statements::ENDED_TTL;
use crate::StoreError;
use crate::types::{Kind, Table};

/// Of what [`create`] makes; a newer one found is refused, an older one migrated by [`create`].
pub(super) const VERSION: u32 = 1;
/// As it is called in `meta`.
pub(super) const VERSION_NAME: &str = "version";

/// Seconds for which deletions are kept against a replica that missed them, where one that returns harms nobody: a returned
/// element of a set is looked at once more, an ended row of an owner is a row, and views above it count.
const SHORT_GRACE: u32 = 86_400;
/// The same where a deletion must not be forgotten before a repair, which runs once a week.
const GRACE: u32 = ENDED_TTL as u32;

/// How often more a keyspace or table is tried to be made: each time for as long as the session gives a change of the schema.
const REPEATS: usize = 2;
/// Between two looks for what was not said to be made, and for how long in all: what is late may come after all.
const LOOK_EACH: Duration = Duration::from_secs(2);
const LOOKED_FOR: Duration = Duration::from_secs(20);

const LEVELLED: &str = "{'class': 'LeveledCompactionStrategy'}";
const TIERED: &str = "{'class': 'SizeTieredCompactionStrategy'}";

/// What was found and made of a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Keyspaces and tables that were made, in order.
    pub made: Vec<String>,
    /// How many of them were there.
    pub found: usize,
    /// Of [`create`] and [`check`] alike.
    pub version: u32,
    /// Keyspaces whose copies are others than the options say, with what they have. Not changed: that is `ALTER KEYSPACE` and a repair.
    pub copies: Vec<String>,
}

/// Makes what is missing of keyspaces and tables, migrates what is older, and returns when all nodes agree on it. May be repeated. Not
/// by two processes at once: Cassandra 5 may then make a table twice and ask for help.
///
/// # Errors
/// [`StoreError::Unavailable`] if no node answers or they do not agree; [`StoreError::Refused`] if what is there is newer, or
/// made for another consistency or cluster.
pub fn create(options: &Options, tables: &[Table]) -> Result<Report, StoreError> {
    super::in_a_runtime(async {
        let link = Link::open(options).await?;
        let found = Found::of(&link, options).await?;
        let agreed = options.agreed();
        if found.has(&format!("{}.meta", options.own_keyspace())) {
            // Before anything is added to what is a newer build's, or another cluster's.
            Meta::prepare(&link, options).await?.may_be_mine(&agreed).await?;
        }
        let mut report = found.report(options);
        for Made { name, cql } in statements(options, tables, found.scylla) {
            if found.has(&name) {
                report.found += 1;
            } else {
                make(&link, options, &name, &cql).await?;
                report.made.push(name);
            }
        }
        link.agree().await?;
        let meta = Meta::prepare(&link, options).await?;
        for (name, value) in &agreed {
            meta.put(name, value).await?;
        }
        meta.check(&agreed).await?;
        Ok(report)
    })
}

/// Makes one of them. What the store gave no answer to may still be under way there: it is looked for, and said again only if it does not come. Should both
/// be carried out, they make one table: they name its id.
async fn make(link: &Link, options: &Options, name: &str, cql: &str) -> Result<(), StoreError> {
    let attempt = || async {
        let Err(error) = link.define(cql).await else {
            return Ok(());
        };
        tracing::warn!(name, %error, "the store did not say that this was made; it is looked for");
        let look = || async {
            // Nodes that do not agree say nothing, and each wait for them is long.
            link.agree().await?;
            Ok(Found::of(link, options).await.is_ok_and(|found| found.has(name)))
        };
        let (each, in_all) = match error.retryable() {
            true => (LOOK_EACH, LOOKED_FOR),
            // It was refused: nothing of it is under way.
            false => (LOOKED_FOR, LOOKED_FOR),
        };
        match comes(look, each, in_all).await {
            true => Ok(()),
            false => Err(error),
        }
    };
    attempt
        .retry(
            ConstantBuilder::default()
                .with_delay(LOOK_EACH)
                .with_max_times(REPEATS),
        )
        .when(StoreError::retryable)
        .await
}

/// Whether something is there at one of these looks: with pauses of `each` between them, not longer than `in_all`, and not after an error.
async fn comes<F>(look: impl Fn() -> F, each: Duration, in_all: Duration) -> bool
where
    F: Future<Output = Result<bool, StoreError>>,
{
    let looks = async {
        loop {
            match look().await {
                Ok(true) => return true,
                Ok(false) if each < in_all => tokio::time::sleep(each).await,
                Ok(false) | Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(in_all, looks).await.unwrap_or(false)
}

/// Whether the schema that is there is this build's with all of these tables, and made for the same consistency and cluster. Changes nothing.
///
/// # Errors
/// As [`create`]; [`StoreError::Refused`] also if it is older, incomplete, or was never made.
pub fn check(options: &Options, tables: &[Table]) -> Result<Report, StoreError> {
    super::in_a_runtime(async {
        let link = Link::open(options).await?;
        let found = Found::of(&link, options).await?;
        let mut report = found.report(options);
        for Made { name, .. } in statements(options, tables, found.scylla) {
            if !found.has(&name) {
                return Err(StoreError::Refused(format!(
                    "the store lacks {name} (a keyspace or table): run `godwit schema`"
                )));
            }
            report.found += 1;
        }
        checked(&link, options).await?;
        Ok(report)
    })
}

pub(super) async fn checked(link: &Link, options: &Options) -> Result<(), StoreError> {
    if !Found::of(link, options)
        .await?
        .has(&format!("{}.meta", options.own_keyspace()))
    {
        return Err(StoreError::Refused(format!(
            "the store has no schema in the keyspace {}: run `godwit schema`",
            options.keyspace
        )));
    }
    let meta = Meta::prepare(link, options).await?;
    meta.check(&options.agreed()).await
}

/// A keyspace or a table, and how it is made.
struct Made {
    name: String,
    cql: String,
}

/// What is there of both keyspaces.
struct Found {
    scylla: bool,
    names: BTreeSet<String>,
    /// By keyspace: how its copies are described.
    copies: Vec<(String, BTreeMap<String, String>)>,
}

impl Found {
    async fn of(link: &Link, options: &Options) -> Result<Self, StoreError> {
        let mut found = Self {
            scylla: is_scylla(link).await?,
            names: BTreeSet::new(),
            copies: Vec::new(),
        };
        for keyspace in [options.keyspace.clone(), options.own_keyspace()] {
            // A name of these is plain letters, see `Options`.
            let asked =
                format!("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{keyspace}'");
            let rows = link.ask(&asked).await?;
            let row = rows
                .maybe_first_row::<(BTreeMap<String, String>,)>()
                .map_err(|e| unavailable(&e))?;
            let Some((copies,)) = row else { continue };
            found.copies.push((keyspace.clone(), copies));
            let asked =
                format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'");
            let rows = link.ask(&asked).await?;
            for row in rows.rows::<(String,)>().map_err(|e| unavailable(&e))? {
                let (table,) = row.map_err(|e| unavailable(&e))?;
                found.names.insert(format!("{keyspace}.{table}"));
            }
            found.names.insert(keyspace);
        }
        Ok(found)
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn report(&self, options: &Options) -> Report {
        let wanted = copies_of(&options.replication);
        let others = self
            .copies
            .iter()
            .filter(|(_, copies)| copies_found(copies) != wanted)
            .map(|(keyspace, copies)| format!("{keyspace}: {copies:?}"));
        Report {
            version: VERSION,
            copies: others.collect(),
            ..Report::default()
        }
    }
}

/// How many copies where, of what is wanted and of what is there; the strategy is left out where it does not matter.
fn copies_of(replication: &Replication) -> BTreeMap<String, String> {
    match replication {
        Replication::Simple(copies) => [("replication_factor".to_owned(), copies.to_string())].into(),
        Replication::Datacenters(all) => all
            .iter()
            .map(|(name, copies)| (name.clone(), copies.to_string()))
            .collect(),
    }
}

fn copies_found(found: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let others = found.iter().filter(|(name, _)| *name != "class");
    others
        .map(|(name, copies)| (name.clone(), copies.clone()))
        .collect()
}

/// ScyllaDB describes its own tables in one that Cassandra does not have.
async fn is_scylla(link: &Link) -> Result<bool, StoreError> {
    let asked = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system_schema' AND table_name = 'scylla_tables'";
    Ok(link.ask(asked).await?.rows_num() > 0)
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
fn statements(options: &Options, tables: &[Table], scylla: bool) -> Vec<Made> {
    let (data, own, replication) = (&options.keyspace, options.own_keyspace(), replication(options));
    // Lightweight transactions do not go with tablets on the versions of ScyllaDB that are out.
    let tablets = if scylla {
        " AND tablets = {'enabled': false}"
    } else {
        ""
    };
    let mut all = vec![
        Made {
            name: data.clone(),
            cql: format!("CREATE KEYSPACE IF NOT EXISTS {data} WITH replication = {replication}"),
        },
        Made {
            name: own.clone(),
            cql: format!("CREATE KEYSPACE IF NOT EXISTS {own} WITH replication = {replication}{tablets}"),
        },
    ];
    let mut table = |name: String, columns: &str, compaction: &str, grace: u32| {
        // ScyllaDB makes one change of the schema after the other, and no table twice.
        let id = match scylla {
            true => String::new(),
            false => format!(" AND id = '{}'", Uuid::new_v4()),
        };
        let cql = format!(
            "CREATE TABLE IF NOT EXISTS {name} ({columns}) WITH compaction = {compaction} AND gc_grace_seconds = {grace}{id}"
        );
        all.push(Made { name, cql });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_data_centres_are_quoted_and_lightweight_transactions_have_no_tablets() {
        let mut options = Options::new(vec!["a".into()]);
        options.replication = Replication::Datacenters(vec![("o'hare".into(), 3), ("b".into(), 2)]);
        let all: Vec<String> = statements(&options, &[], true)
            .into_iter()
            .map(|made| made.cql)
            .collect();
        assert!(
            all[0].ends_with("{'class': 'NetworkTopologyStrategy', 'o''hare': 3, 'b': 2}"),
            "{}",
            all[0]
        );
        assert!(all[1].starts_with("CREATE KEYSPACE IF NOT EXISTS godwit_own") && all[1].contains("tablets"));
        let all = statements(&options, &[], false);
        assert!(!all.iter().any(|made| made.cql.contains("tablets")));
    }

    #[tokio::test]
    async fn what_was_not_said_to_be_made_is_looked_for_so_long_in_all_however_long_each_look_takes() {
        let (each, in_all, long) = (
            Duration::from_millis(1),
            Duration::from_millis(60),
            Duration::from_secs(60),
        );
        let slowly = || async {
            tokio::time::sleep(long).await;
            Ok(true)
        };
        let began = std::time::Instant::now();
        assert!(!comes(slowly, each, in_all).await);
        assert!(!comes(|| async { Ok(false) }, each, in_all).await);
        let failed = || async { Err(StoreError::Unavailable("they do not agree".into())) };
        assert!(!comes(failed, each, long).await, "that ends it");
        assert!(began.elapsed() < long / 2);
        let looks = std::cell::Cell::new(0);
        let third = || async {
            looks.set(looks.get() + 1);
            Ok(looks.get() == 3)
        };
        assert!(comes(third, each, long).await);
        assert_eq!(looks.get(), 3);
        looks.set(0);
        assert!(!comes(third, in_all, in_all).await);
        assert_eq!(looks.get(), 1, "once");
    }

    #[test]
    fn a_table_has_an_id_that_all_attempts_to_make_it_name_and_no_other_run() {
        let options = Options::new(vec!["a".into()]);
        let ids = |scylla| {
            let all = statements(&options, &[], scylla).into_iter();
            let ids = all.filter_map(|made| Some(made.cql.split_once(" AND id = ")?.1.to_owned()));
            ids.collect::<BTreeSet<String>>()
        };
        let (one, other) = (ids(false), ids(false));
        assert_eq!((one.len(), one.intersection(&other).count()), (3, 0));
        assert!(ids(true).is_empty());
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
                .all(|made| made.cql.contains("compaction") && made.cql.contains("gc_grace_seconds"))
        );
    }
}
