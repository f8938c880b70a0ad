//! The index of one partition in the overlay: where its rows lie in the record buffers, in order of their clustering
//! keys. Not here: locks, generations, what the rows mean.

use std::cmp::Ordering;

use bytes::Bytes;

use super::overlay::{max_head, read_head};
use super::record::{Act, RowRef, row_at};
use crate::types::Head;

/// Rows that are out of order are kept apart until they are this many, or a 32nd of the partition.
const RECENT: usize = 64;
/// Rows of a partition that are fetched from memory ahead.
const TOUCH_ROWS: usize = 32;
/// Longest key kept in place: that of a log.
const SHORT_KEY: usize = 22;

/// A partition's key, in place if it is as short as most are.
pub(super) enum Key {
    Short(u8, [u8; SHORT_KEY]),
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 24);

impl Key {
    pub(super) fn new(key: &[u8]) -> Self {
        if key.len() > SHORT_KEY {
            return Self::Long(key.into());
        }
        let mut short = [0; SHORT_KEY];
        short[..key.len()].copy_from_slice(key);
        Self::Short(key.len() as u8, short)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, key) => &key[..usize::from(*len)],
            Self::Long(key) => key,
        }
    }

    pub(super) fn is(&self, key: &[u8]) -> bool {
        self.bytes() == key
    }

    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

/// The first bytes of a clustering key as numbers: equal for most only if the keys are, and then they lie beside the entry.
type Prefix = [u64; 3];

fn prefix(rest: &[u8]) -> Prefix {
    let mut bytes = [0; 24];
    let n = rest.len().min(24);
    bytes[..n].copy_from_slice(&rest[..n]);
    let word = |i: usize| bytes[i..i + 8].try_into().map_or(0, u64::from_be_bytes);
    [word(0), word(8), word(16)]
}

/// Where a row lies: the record's buffer, and the offset in it.
type At = (u32, u32);

#[derive(Clone, Copy)]
struct Entry {
    prefix: Prefix,
    at: At,
}

const _: () = assert!(size_of::<Entry>() == 32);

/// The row at a place. Places are taken of rows that were there, in buffers that never change.
pub(super) fn chunk_row(chunks: &[Bytes], (chunk, at): At) -> RowRef<'_> {
    const NOTHING: RowRef<'_> = RowRef {
        act: Act::Delete,
        pkey: &[],
        rest: &[],
        value: &[],
    };
    chunks
        .get(chunk as usize)
        .and_then(|c| row_at(c, at as usize))
        .map_or(NOTHING, |(row, _)| row)
}

fn cmp(chunks: &[Bytes], e: &Entry, key_prefix: Prefix, rest: &[u8]) -> Ordering {
    e.prefix
        .cmp(&key_prefix)
        .then_with(|| chunk_row(chunks, e.at).rest.cmp(rest))
}

/// One partition's rows: `sorted`, and a few that came out of order beside it. No row is in both.
#[derive(Default)]
pub(super) struct Part {
    pub(super) head: Option<Head>,
    sorted: Vec<Entry>,
    recent: Vec<Entry>,
}

impl Part {
    /// Bytes of memory that a row costs here.
    pub(super) const ROW_COST: u64 = size_of::<Entry>() as u64;

    /// Takes a row of the newest buffer in.
    pub(super) fn put(&mut self, chunks: &[Bytes], at: u32, row: &RowRef<'_>) {
        if row.act == Act::Head {
            let head = read_head(row.value);
            self.head = Some(self.head.map_or(head, |old| max_head(old, head)));
            return;
        }
        let key = prefix(row.rest);
        let e = Entry {
            prefix: key,
            at: ((chunks.len() - 1) as u32, at),
        };
        if self.recent.is_empty()
            && self
                .sorted
                .last()
                .is_none_or(|last| cmp(chunks, last, key, row.rest).is_lt())
        {
            self.sorted.push(e);
            return;
        }
        if let Ok(i) = self.sorted.binary_search_by(|o| cmp(chunks, o, key, row.rest)) {
            self.sorted[i] = e;
            return;
        }
        match self.recent.binary_search_by(|o| cmp(chunks, o, key, row.rest)) {
            Ok(i) => self.recent[i] = e,
            Err(i) => self.recent.insert(i, e),
        }
        if self.recent.len() > RECENT.max(self.sorted.len() / 32) {
            self.sorted = merged(chunks, &self.sorted, &self.recent).collect();
            self.recent.clear();
        }
    }

    /// Where the row of this key is.
    pub(super) fn find(&self, chunks: &[Bytes], rest: &[u8]) -> Option<At> {
        let key = prefix(rest);
        let find = |list: &[Entry]| {
            list.binary_search_by(|e| cmp(chunks, e, key, rest))
                .ok()
                .map(|i| list[i].at)
        };
        find(&self.sorted).or_else(|| find(&self.recent))
    }

    /// Where the rows above `after` (all without) are, in order.
    pub(super) fn after<'a>(
        &'a self,
        chunks: &'a [Bytes],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = At> + 'a {
        let from = |list: &'a [Entry]| match after {
            None => list,
            Some(after) => &list[list.partition_point(|e| cmp(chunks, e, prefix(after), after).is_le())..],
        };
        merged(chunks, from(&self.sorted), from(&self.recent)).map(|e| e.at)
    }

    /// Reads a byte of each of the first rows, so that they are on their way from memory together.
    pub(super) fn touch(&self, chunks: &[Bytes]) -> usize {
        let byte = |e: &Entry| {
            chunks
                .get(e.at.0 as usize)
                .and_then(|c| c.get(e.at.1 as usize))
                .copied()
        };
        self.sorted
            .iter()
            .chain(&self.recent)
            .take(TOUCH_ROWS)
            .filter_map(byte)
            .map(usize::from)
            .sum()
    }
}

fn merged<'a>(chunks: &'a [Bytes], a: &'a [Entry], b: &'a [Entry]) -> impl Iterator<Item = Entry> + 'a {
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        let from_a = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => cmp(chunks, x, y.prefix, chunk_row(chunks, y.at).rest).is_lt(),
            (x, _) => x.is_some(),
        };
        let (list, k) = if from_a { (a, &mut i) } else { (b, &mut j) };
        let next = list.get(*k).copied();
        *k += 1;
        next
    })
}
