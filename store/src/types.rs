//! The words of the store: tables, logs, operations, reads and their answers. Plain data, no behaviour.

use bytes::Bytes;
use uuid::Uuid;

/// Number of a view of the cluster; on the embedded store the start number. Grows for ever, starts at 1.
pub type View = u64;

/// Names one submission or one read of a port until its completion. Chosen by the caller, opaque to the engine.
pub type Ticket = u64;

/// Which completion port (one a worker) an answer goes to.
pub type PortId = u16;

/// For which shard something is written or taken up, and in which view its writer took that shard up. Who writes for a
/// shard that is another's by now is told [`Outcome::Lost`](crate::Outcome::Lost).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The shard of the key, with the kind of home it has there: 0 to 12,287 (`cluster::own::Layout`).
    pub shard: u16,
    /// View in which the writer took the shard up.
    pub view: View,
}

/// What kind of thing a table keeps; decides its key layout and which operations it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Append-only logs with a head: rows `(log, view, sequence) → bytes`.
    Log,
    /// Small rows of one key: `(partition, name) → value`, taken up as a whole by [`Read::TakeUpRows`] before the first
    /// other act of an owner; what a former owner still writes is void.
    Owned,
    /// Versioned rows: `(partition, name, view) → value`, the highest view counts.
    Rows,
    /// The same, but only ever read one by one: a partition may have any number of them.
    Single,
    /// Sets: `(partition, element) → value`, read in element order.
    Set,
    /// Rare unique facts, written once: `key → value` by `IF NOT EXISTS`.
    Facts,
}

/// A table, declared as a constant by the crate that owns it. Ids are part of the on-disk format: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Number in keys, unique over the whole product. wire, store and cluster take 1–99, accounts 100–199,
    /// broker 200–299, ingest 300–399, search 400–499, server 500–599.
    pub id: u16,
    /// What it keeps.
    pub kind: Kind,
    /// Name in CQL and in metrics, `snake_case`.
    pub name: &'static str,
}

/// One log: a conversation's, a mailbox's, a session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId {
    /// A table of [`Kind::Log`].
    pub table: Table,
    /// The log within it.
    pub id: Uuid,
}

/// The stored head of a log. Both numbers only grow; the maximum of what was ever stored counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Everything up to here was confirmed when the head was stored; more may be.
    pub confirmed: u64,
    /// Everything at or below is trimmed: it is never read again and its rows may be removed at any time.
    pub floor: u64,
}

/// One row of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Position, 1, 2, 3 … without gap.
    pub seq: u64,
    /// The view in which its writer took the shard up.
    pub view: View,
    /// What was appended.
    pub row: Bytes,
}

/// One write.
#[derive(Clone, Debug)]
pub enum Op {
    /// Appends `row` at `seq`. The caller owns the log and numbers it without gaps; the same position may be
    /// submitted again with the same content.
    Append {
        /// The log.
        log: LogId,
        /// View in which the caller took the shard up.
        view: View,
        /// Position, from 1.
        seq: u64,
        /// At most 1 MiB.
        row: Bytes,
    },
    /// Stores a log's head; each number only if it is larger than the stored one. Rows at or below `floor` may be
    /// removed by the engine from then on. A log that has ended for ever has floor [`u64::MAX`].
    Head {
        /// The log.
        log: LogId,
        /// The new head.
        head: Head,
    },
    /// Writes a small row, or with `None` a row that says "ended" (reads as absent).
    Put {
        /// A table of [`Kind::Owned`], [`Kind::Rows`] or [`Kind::Single`].
        table: Table,
        /// Partition, at most 1 KiB.
        partition: Bytes,
        /// Name within it, at most 64 KiB; pages come in its byte order.
        name: Bytes,
        /// View in which the caller took the shard up.
        view: View,
        /// At most 1 MiB.
        value: Option<Bytes>,
    },
    /// Puts an element into a set, or replaces its value.
    Insert {
        /// A table of [`Kind::Set`].
        table: Table,
        /// Partition, at most 1 KiB.
        partition: Bytes,
        /// Element, at most 64 KiB.
        element: Bytes,
        /// What goes with it.
        value: Bytes,
    },
    /// Takes an element out of a set; absent is fine.
    Remove {
        /// A table of [`Kind::Set`].
        table: Table,
        /// Partition.
        partition: Bytes,
        /// Element.
        element: Bytes,
    },
    /// Writes a fact if its key is new. Must be the only operation of its batch; if the key is taken the batch
    /// completes with [`Outcome::Taken`](crate::Outcome::Taken). A repeat with the same value counts as new.
    Claim {
        /// A table of [`Kind::Facts`].
        table: Table,
        /// Key, at most 1 KiB.
        key: Bytes,
        /// Value.
        value: Bytes,
    },
}

/// Some writes that are submitted and completed together. Not a transaction: on a partitioned engine each operation
/// may land without the others; only operations on one partition of one table land together, and heads of logs land only
/// when everything else of the batch has. Nothing may rest on more than that before the completion says `Stored`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where the completion goes.
    pub port: PortId,
    /// What it is called there.
    pub ticket: Ticket,
    /// Whose key all of it is about.
    pub scope: Scope,
    /// At most 4,096. None: nothing is written; `Stored` says that the shard was still held in that view after the batch
    /// was submitted.
    pub ops: Vec<Op>,
}

/// One read by key. None needs a scan that a partitioned store could not do.
#[derive(Clone, Debug)]
pub enum Read {
    /// What a new owner starts from: the stored head and every valid row above its `confirmed`.
    TakeUp {
        /// The log.
        log: LogId,
        /// The new owner's.
        scope: Scope,
    },
    /// Makes the small rows of a partition this owner's: answered when no later write of a former owner can change
    /// them. Reads of the same call see them taken up.
    TakeUpRows {
        /// A table of [`Kind::Owned`].
        table: Table,
        /// Partition.
        partition: Bytes,
        /// The new owner's.
        scope: Scope,
    },
    /// One of the two above, of a key that its asker makes nothing of: where nothing was ever stored nothing is written, and
    /// [`ReadAnswer::Nothing`] may be the answer. Whoever makes something there takes it up first.
    IfAny(Box<Self>),
    /// Rows `after < seq ≤ up_to` in order, ending early at `max_rows` or once `max_bytes` are exceeded (one row is
    /// always given). Rows at or below the floor are never given.
    Log {
        /// The log.
        log: LogId,
        /// Exclusive.
        after: u64,
        /// Inclusive.
        up_to: u64,
        /// At most this many.
        max_rows: u32,
        /// Stop after about this many bytes.
        max_bytes: u32,
    },
    /// One small row.
    Row {
        /// A table of [`Kind::Owned`], [`Kind::Rows`] or [`Kind::Single`].
        table: Table,
        /// Partition.
        partition: Bytes,
        /// Name.
        name: Bytes,
    },
    /// A page of a partition's small rows, in name order.
    Rows {
        /// A table of [`Kind::Owned`] or [`Kind::Rows`].
        table: Table,
        /// Partition.
        partition: Bytes,
        /// Only names above this one.
        after: Option<Bytes>,
        /// At most this many.
        limit: u32,
    },
    /// A page of a set, in element order.
    Set {
        /// A table of [`Kind::Set`].
        table: Table,
        /// Partition.
        partition: Bytes,
        /// Only elements above this one.
        after: Option<Bytes>,
        /// Only elements at or below this one.
        up_to: Option<Bytes>,
        /// At most this many.
        limit: u32,
    },
    /// One fact.
    Fact {
        /// A table of [`Kind::Facts`].
        table: Table,
        /// Key.
        key: Bytes,
    },
}

/// The answer to the [`Read`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// See [`Read::TakeUp`].
    TakeUp {
        /// The stored head; zeros for a log that never was.
        head: Head,
        /// The valid rows above `head.confirmed`, dense and in order.
        rows: Vec<LogRow>,
    },
    /// See [`Read::TakeUpRows`].
    TakenUp,
    /// See [`Read::IfAny`]: nothing is there, and nothing was taken up.
    Nothing,
    /// See [`Read::Log`].
    Log {
        /// Dense and in order.
        rows: Vec<LogRow>,
        /// Whether the page ended before `up_to` because of a limit.
        more: bool,
    },
    /// See [`Read::Row`].
    Row(Option<Bytes>),
    /// See [`Read::Rows`].
    Rows {
        /// `(name, value)`, ended rows left out.
        rows: Vec<(Bytes, Bytes)>,
        /// Whether there may be more.
        more: bool,
    },
    /// See [`Read::Set`].
    Set {
        /// `(element, value)`.
        elements: Vec<(Bytes, Bytes)>,
        /// Whether there may be more.
        more: bool,
    },
    /// See [`Read::Fact`].
    Fact(Option<Bytes>),
}
