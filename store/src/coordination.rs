//! The rows through which nodes agree who owns what, as a partitioned engine offers them: the contract and its plain
//! data. What the rows mean is `cluster::own`'s; nothing of a client's is here (docs/decisions/0010-ownership.md).

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use uuid::Uuid;

use crate::{StoreError, View};

/// One start of a node: fresh and random each time a node joins.
pub type StartId = Uuid;

/// An attempt to change the view: fresh and random for each, so that who tried can tell its own from another's.
pub type Nonce = Uuid;

/// The row of a start. Only that start writes it, always whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRow {
    /// Whose it is; the clustering key.
    pub start: StartId,
    /// Another number with every heartbeat, growing.
    pub beat: u64,
    /// The largest view that the start acts by; 0 before it was ever in one. Only grows.
    pub confirmed: View,
    /// No timestamp that this start has given out is larger: microseconds since 1970. Only grows.
    pub stamp: i64,
    /// Name, addresses and roles, as `cluster::own` encodes them. At most 4 KiB.
    pub about: Bytes,
}

/// The view as the row holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredView {
    /// Its number, from 1.
    pub number: View,
    /// Of the attempt that wrote it.
    pub nonce: Nonce,
    /// Members and unsettled views, as `cluster::own` encodes them. At most 256 KiB.
    pub body: Bytes,
}

/// What [`Coordination::change_view`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The row is now the new one, or was for a moment.
    Applied,
    /// The row was another than the expected one; nothing was written and nothing will be.
    Not,
    /// Nobody knows: it may be applied, or be applied until the next transaction on the row has ended. The caller reads
    /// the row with [`Coordination::read_view`].
    Unknown,
}

/// The answer to a call of [`Coordination`].
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The coordination rows of one cluster. All calls may be under way at once, from one task.
///
/// An engine MUST:
/// 1. write and read the starts' rows plainly, at QUORUM: what a completed write wrote, every read begun after it shows
///    (or something newer). A failed write may land at any later time, but never replaces what the same start wrote
///    after it, and a deletion hides no later heartbeat than it names (both carry the beat as their timestamp);
/// 2. touch the view's row by lightweight transactions alone: [`Coordination::read_view`] at SERIAL,
///    [`Coordination::change_view`] under the condition that the nonce is the expected one;
/// 3. show with [`Coordination::shown_view`], a QUORUM read of the row, at least the view that any `read_view` returned
///    which had ended before it began;
/// 4. answer each call within [`TIMEOUT_MS`], by an error if need be;
/// 5. repeat none of the calls by itself but reads.
pub trait Coordination: Send + Sync {
    /// Writes a start's row. `Err`: it may be there, now or later.
    fn write_start(&self, row: StartRow) -> Asked<'_, Result<(), StoreError>>;

    /// All starts' rows: one partition, at most some hundreds.
    fn read_starts(&self) -> Asked<'_, Result<Vec<StartRow>, StoreError>>;

    /// Deletes the row of a start that is in no view any more, up to this heartbeat: a write of a later one brings it back, whenever
    /// and with whatever clock it was written.
    fn delete_start(&self, start: StartId, beat: u64) -> Asked<'_, Result<(), StoreError>>;

    /// Number and nonce of the view at QUORUM, without its body. `None`: there never was one.
    fn shown_view(&self) -> Asked<'_, Result<Option<(View, Nonce)>, StoreError>>;

    /// The view at SERIAL: every change that ended before this began is seen, and one of unknown outcome is settled.
    fn read_view(&self) -> Asked<'_, Result<Option<StoredView>, StoreError>>;

    /// Replaces the view if its nonce is `expected`; with `None` writes the first one if there is none.
    fn change_view(&self, expected: Option<Nonce>, new: StoredView) -> Asked<'_, Changed>;

    /// The largest timestamp given out so far, microseconds since 1970. At once.
    fn stamp(&self) -> i64;

    /// From now on only timestamps above `floor` are given out. At once.
    fn raise_stamps(&self, floor: i64);
}

/// Longest time for which a call of [`Coordination`] may be under way: below the lease of 3 s, so that a call that hangs
/// leaves room for another.
pub const TIMEOUT_MS: u64 = 1_500;
