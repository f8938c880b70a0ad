//! What a read of the model's store found, as rows and heads: what is deleted left out. What counts among it is said by the
//! engine's own pure functions.

use std::collections::BTreeMap;

use bytes::Bytes;
use godwit_store::cql::fence::{HeadRow, Heads, valid};
use godwit_store::{LogRow, View};

use crate::replicas::{BUCKET, Key, Replicas, Val};

/// What a read found.
pub(crate) struct Cells(pub(crate) BTreeMap<Key, (i64, Val)>);

impl Cells {
    pub(crate) fn heads(&self) -> Vec<HeadRow> {
        let head = |(key, (_, val)): (&Key, &(i64, Val))| match (key, val) {
            (
                Key::Head { view, .. },
                Val::Head {
                    confirmed,
                    floor,
                    fence,
                },
            ) => Some(HeadRow {
                view: *view,
                confirmed: *confirmed,
                floor: *floor,
                dropped: 0,
                fence: fence.clone(),
            }),
            _ => None,
        };
        self.0.iter().filter_map(head).collect()
    }

    /// Rows that are not deleted, in order of position, then view.
    pub(crate) fn rows(&self) -> Vec<LogRow> {
        let row = |(key, (stamp, val)): (&Key, &(i64, Val))| match (key, val) {
            (Key::Row { log, seq, view }, Val::Row(row)) => {
                let gone = self.0.get(&Key::Gone {
                    log: *log,
                    bucket: (seq - 1) / BUCKET,
                });
                gone.is_none_or(|(at, _)| at < stamp).then(|| LogRow {
                    seq: *seq,
                    view: *view,
                    row: row.clone(),
                })
            }
            _ => None,
        };
        self.0.iter().filter_map(row).collect()
    }

    pub(crate) fn owned(&self, part: u8, view: View) -> BTreeMap<u8, Val> {
        let forgotten = self.0.get(&Key::Forgotten { part, view }).map(|(at, _)| *at);
        let cell = |(key, (stamp, val)): (&Key, &(i64, Val))| match key {
            Key::Owned { name, .. } if forgotten.is_none_or(|at| at < *stamp) => Some((*name, val.clone())),
            _ => None,
        };
        self.0.iter().filter_map(cell).collect()
    }
}

pub(crate) fn heads_of(log: u8) -> std::ops::RangeInclusive<Key> {
    Key::Head { log, view: 0 }..=Key::Head { log, view: View::MAX }
}

pub(crate) fn rows_of(log: u8, after: u64, up_to: u64) -> Vec<std::ops::RangeInclusive<Key>> {
    let first = Key::Row {
        log,
        seq: after.saturating_add(1),
        view: 0,
    };
    vec![
        first..=Key::Row {
            log,
            seq: up_to,
            view: View::MAX,
        },
        Key::Gone {
            log,
            bucket: after / BUCKET,
        }..=Key::Gone {
            log,
            bucket: u64::MAX,
        },
    ]
}

pub(crate) fn owned_of(part: u8, view: View) -> std::ops::RangeInclusive<Key> {
    Key::Owned { part, view, name: 0 }..=Key::Owned {
        part,
        view,
        name: u8::MAX,
    }
}

pub(crate) fn view_of(key: &Key) -> Option<View> {
    match key {
        Key::Fence { view, .. } => Some(*view),
        _ => None,
    }
}

/// The rows of a log that count, as whoever looks at all replicas at once sees them: what is confirmed and not trimmed is
/// among them at any time.
pub(crate) fn that_count(replicas: &Replicas, log: u8) -> BTreeMap<u64, Bytes> {
    let heads = Heads::of(Cells(replicas.everything(vec![heads_of(log)])).heads());
    let Some((_, fence)) = &heads.fence else {
        return BTreeMap::new();
    };
    let floor = heads.head.floor;
    let found = Cells(replicas.everything(rows_of(log, floor, u64::MAX)));
    let rows = valid(&found.rows(), floor, |seq| fence.view_at(seq));
    rows.into_iter().map(|row| (row.seq, row.row)).collect()
}
