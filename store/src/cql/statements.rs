//! The statements of each kind of table, prepared once. What they are for is decision 0009. Not here: when they run.

use std::collections::HashMap;

use scylla::statement::prepared::PreparedStatement;

use super::session::{Link, Options, Use};
use crate::StoreError;
use crate::types::{Kind, Table};

/// Seconds that an end stays: longer than any write can come late, and than a replica may be away without a repair.
pub(super) const ENDED_TTL: i32 = 10 * 86_400;

pub(super) struct LogStatements {
    pub(super) append: PreparedStatement,
    pub(super) rows: PreparedStatement,
    pub(super) cut_of: PreparedStatement,
    pub(super) drop: PreparedStatement,
    pub(super) heads: PreparedStatement,
    pub(super) confirmed: PreparedStatement,
    pub(super) floor: PreparedStatement,
    pub(super) dropped: PreparedStatement,
    pub(super) fence: PreparedStatement,
    pub(super) ended: PreparedStatement,
    pub(super) forget: PreparedStatement,
}

pub(super) struct OwnedStatements {
    pub(super) put: PreparedStatement,
    pub(super) end: PreparedStatement,
    pub(super) get: PreparedStatement,
    pub(super) page_from: PreparedStatement,
    pub(super) page_after: PreparedStatement,
    pub(super) drop: PreparedStatement,
    pub(super) fences: PreparedStatement,
    pub(super) fence: PreparedStatement,
    pub(super) forget: PreparedStatement,
}

/// Of Rows and of Single; the latter has no pages.
pub(super) struct RowsStatements {
    pub(super) put: PreparedStatement,
    pub(super) end: PreparedStatement,
    pub(super) forget: PreparedStatement,
    pub(super) get: PreparedStatement,
    pub(super) pages: Option<(PreparedStatement, PreparedStatement)>,
}

pub(super) struct SetStatements {
    pub(super) insert: PreparedStatement,
    pub(super) remove: PreparedStatement,
    pub(super) page_from: PreparedStatement,
    pub(super) page_after: PreparedStatement,
}

pub(super) struct FactsStatements {
    pub(super) claim: PreparedStatement,
    pub(super) get: PreparedStatement,
    pub(super) get_serial: PreparedStatement,
}

pub(super) enum Statements {
    Log(Box<LogStatements>),
    Owned(Box<OwnedStatements>),
    Rows(Box<RowsStatements>),
    Set(Box<SetStatements>),
    Facts(Box<FactsStatements>),
}

/// By the table's number.
pub(super) struct Tables(HashMap<u16, Statements>);

const NO_SUCH: StoreError = StoreError::Misuse("a table of another kind, or not one of this engine's");

macro_rules! get {
    ($name:ident, $kind:ident, $type:ty) => {
        pub(super) fn $name(&self, table: Table) -> Result<&$type, StoreError> {
            match self.0.get(&table.id) {
                Some(Statements::$kind(statements)) => Ok(statements),
                _ => Err(NO_SUCH),
            }
        }
    };
}

impl Tables {
    get!(log, Log, LogStatements);
    get!(owned, Owned, OwnedStatements);
    get!(rows, Rows, RowsStatements);
    get!(set, Set, SetStatements);
    get!(facts, Facts, FactsStatements);

    pub(super) async fn prepare(
        link: &Link,
        options: &Options,
        tables: &[Table],
    ) -> Result<Self, StoreError> {
        let mut all = HashMap::new();
        for (i, table) in tables.iter().enumerate() {
            match tables[..i].iter().find(|before| before.id == table.id) {
                // Two crates may name one table.
                Some(before) if before == table => continue,
                Some(_) => return Err(StoreError::Misuse("two tables of one number")),
                None => {}
            }
            let prepare = Prepare { link };
            let data = format!("{}.{}", options.keyspace, table.name);
            let own = format!("{}.{}", options.own_keyspace(), table.name);
            let statements = match table.kind {
                Kind::Log => Statements::Log(Box::new(prepare.log(&data).await?)),
                Kind::Owned => Statements::Owned(Box::new(prepare.owned(&data).await?)),
                Kind::Rows => Statements::Rows(Box::new(prepare.rows(&data, true).await?)),
                Kind::Single => Statements::Rows(Box::new(prepare.rows(&data, false).await?)),
                Kind::Set => Statements::Set(Box::new(prepare.set(&data).await?)),
                Kind::Facts => Statements::Facts(Box::new(prepare.facts(&own).await?)),
            };
            all.insert(table.id, statements);
        }
        Ok(Self(all))
    }
}

struct Prepare<'a> {
    link: &'a Link,
}

impl Prepare<'_> {
    async fn write(&self, cql: String) -> Result<PreparedStatement, StoreError> {
        self.link.prepare(&cql, Use::Write).await
    }

    async fn read(&self, cql: String) -> Result<PreparedStatement, StoreError> {
        self.link.prepare(&cql, Use::Read).await
    }

    async fn log(&self, t: &str) -> Result<LogStatements, StoreError> {
        let head = |column: &str| {
            format!("UPDATE {t}_heads USING TIMESTAMP ? SET {column} = ? WHERE id = ? AND owner = ?")
        };
        Ok(LogStatements {
            append: self
                .write(format!("INSERT INTO {t} (id, bucket, seq, owner, row) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"))
                .await?,
            rows: self
                .read(format!("SELECT seq, owner, row FROM {t} WHERE id = ? AND bucket = ? AND (seq, owner) > (?, ?) LIMIT ?"))
                .await?,
            cut_of: self
                .read(format!("SELECT row FROM {t} WHERE id = ? AND bucket = ? AND seq = 0 ORDER BY seq DESC, owner DESC LIMIT 1"))
                .await?,
            drop: self
                .write(format!("DELETE FROM {t} USING TIMESTAMP ? WHERE id = ? AND bucket = ?"))
                .await?,
            heads: self
                .read(format!("SELECT owner, confirmed, floor, dropped, fence FROM {t}_heads WHERE id = ?"))
                .await?,
            confirmed: self.write(head("confirmed")).await?,
            floor: self.write(head("floor")).await?,
            dropped: self.write(head("dropped")).await?,
            fence: self.write(head("fence")).await?,
            ended: self
                .write(format!(
                    "UPDATE {t}_heads USING TTL {ENDED_TTL} AND TIMESTAMP ? SET floor = ?, confirmed = ?, dropped = ?, fence = null \
                     WHERE id = ? AND owner = ?"
                ))
                .await?,
            forget: self
                .write(format!("DELETE FROM {t}_heads USING TIMESTAMP ? WHERE id = ? AND owner < ?"))
                .await?,
        })
    }

    async fn owned(&self, t: &str) -> Result<OwnedStatements, StoreError> {
        let put = |ttl: &str| {
            format!(
                "INSERT INTO {t} (partition, owner, name, value) VALUES (?, ?, ?, ?) USING {ttl}TIMESTAMP ?"
            )
        };
        let page = |beyond: &str| {
            format!(
                "SELECT name, owner, value FROM {t} WHERE partition = ? AND owner = ? AND name {beyond} ? LIMIT ?"
            )
        };
        Ok(OwnedStatements {
            put: self.write(put("")).await?,
            end: self.write(put(&format!("TTL {ENDED_TTL} AND "))).await?,
            get: self
                .read(format!(
                    "SELECT value FROM {t} WHERE partition = ? AND owner = ? AND name = ?"
                ))
                .await?,
            page_from: self.read(page(">=")).await?,
            page_after: self.read(page(">")).await?,
            drop: self
                .write(format!(
                    "DELETE FROM {t} USING TIMESTAMP ? WHERE partition = ? AND owner = ?"
                ))
                .await?,
            fences: self
                .read(format!(
                    "SELECT owner, complete FROM {t}_fences WHERE partition = ?"
                ))
                .await?,
            fence: self
                .write(format!(
                    "INSERT INTO {t}_fences (partition, owner, complete) VALUES (?, ?, ?) USING TIMESTAMP ?"
                ))
                .await?,
            forget: self
                .write(format!(
                    "DELETE FROM {t}_fences USING TIMESTAMP ? WHERE partition = ? AND owner < ?"
                ))
                .await?,
        })
    }

    async fn rows(&self, t: &str, pages: bool) -> Result<RowsStatements, StoreError> {
        let put = |ttl: &str| {
            format!(
                "INSERT INTO {t} (partition, name, owner, value) VALUES (?, ?, ?, ?) USING {ttl}TIMESTAMP ?"
            )
        };
        let page = |beyond: &str| {
            format!("SELECT name, owner, value FROM {t} WHERE partition = ? AND {beyond} LIMIT ?")
        };
        let order = if pages {
            "name DESC, owner DESC"
        } else {
            "owner DESC"
        };
        Ok(RowsStatements {
            put: self.write(put("")).await?,
            end: self.write(put(&format!("TTL {ENDED_TTL} AND "))).await?,
            forget: self
                .write(format!(
                    "DELETE FROM {t} USING TIMESTAMP ? WHERE partition = ? AND name = ? AND owner < ?"
                ))
                .await?,
            get: self
                .read(format!(
                    "SELECT value FROM {t} WHERE partition = ? AND name = ? ORDER BY {order} LIMIT 1"
                ))
                .await?,
            pages: if pages {
                let (from, after) = (page("name >= ?"), page("(name, owner) > (?, ?)"));
                Some((self.read(from).await?, self.read(after).await?))
            } else {
                None
            },
        })
    }

    async fn set(&self, t: &str) -> Result<SetStatements, StoreError> {
        let page = |beyond: &str| {
            format!("SELECT element, owner, value FROM {t} WHERE partition = ? AND {beyond} LIMIT ?")
        };
        Ok(SetStatements {
            insert: self
                .write(format!(
                    "INSERT INTO {t} (partition, element, owner, value) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
                ))
                .await?,
            remove: self
                .write(format!(
                    "DELETE FROM {t} USING TIMESTAMP ? WHERE partition = ? AND element = ? AND owner <= ?"
                ))
                .await?,
            page_from: self.read(page("element >= ?")).await?,
            page_after: self.read(page("(element, owner) > (?, ?)")).await?,
        })
    }

    async fn facts(&self, t: &str) -> Result<FactsStatements, StoreError> {
        let get = format!("SELECT value FROM {t} WHERE key = ?");
        Ok(FactsStatements {
            claim: self
                .link
                .prepare(
                    &format!("INSERT INTO {t} (key, value, nonce) VALUES (?, ?, ?) IF NOT EXISTS"),
                    Use::Claim,
                )
                .await?,
            get: self.link.prepare(&get, Use::Read).await?,
            get_serial: self.link.prepare(&get, Use::SerialRead).await?,
        })
    }
}
