//! What is in the journal but not yet in the tree, kept readable in memory: one generation a segment. The bytes of the
//! rows are the journal's own record buffers; a row costs 32 bytes of index besides. Not here: files, the merge of answers.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::record::{Act, RECORD_HEAD, RowRef, row_at};
use crate::types::Head;

/// Locks of a generation, so that readers do not wait for the committer but by chance. Must be a power of two.
const SHARDS: usize = 16;
/// Rows that are out of order are kept apart until they are this many, or a 32nd of the partition.
const RECENT: usize = 64;
/// Estimate of what a partition costs besides its rows (key, map slot, vectors).
const PART_COST: u64 = 200;

#[derive(Default)]
struct XxHasher(u64);

impl Hasher for XxHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }
    // The length that a slice's hash begins with says nothing that the partition key does not.
    fn write_usize(&mut self, _: usize) {}
}

/// Where a row lies, and the first 16 bytes of its clustering key.
#[derive(Clone, Copy)]
struct Entry {
    prefix: u128,
    chunk: u32,
    at: u32,
}

const _: () = assert!(size_of::<Entry>() == 32);

fn prefix(rest: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let n = rest.len().min(16);
    bytes[..n].copy_from_slice(&rest[..n]);
    u128::from_be_bytes(bytes)
}

/// One partition's rows: `sorted`, and a few that came out of order beside it.
#[derive(Default)]
struct Part {
    head: Option<Head>,
    sorted: Vec<Entry>,
    recent: Vec<Entry>,
}

#[derive(Default)]
struct Shard {
    chunks: Vec<Bytes>,
    parts: HashMap<Box<[u8]>, Part, BuildHasherDefault<XxHasher>>,
}

/// What is known of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It has this value.
    Value(Bytes),
    /// It has none.
    Deleted,
}

/// Rows of one source in one range, in order.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) rows: Vec<(Vec<u8>, Known)>,
    /// Whether the source may have more behind the last one.
    pub(super) more: bool,
}

/// All rows of one segment.
pub(super) struct Generation {
    pub(super) segment: u64,
    shards: [RwLock<Shard>; SHARDS],
    bytes: AtomicU64,
}

/// Encodes a head for the journal and the tree.
pub(super) fn head_bytes(head: Head) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&head.confirmed.to_be_bytes());
    out[8..].copy_from_slice(&head.floor.to_be_bytes());
    out
}

/// Decodes a head; one that is too short is as good as none.
pub(super) fn read_head(bytes: &[u8]) -> Head {
    let n = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    Head { confirmed: n(0), floor: n(8) }
}

/// The larger of each number.
pub(super) fn max_head(a: Head, b: Head) -> Head {
    Head { confirmed: a.confirmed.max(b.confirmed), floor: a.floor.max(b.floor) }
}

impl Generation {
    pub(super) fn new(segment: u64) -> Self {
        Self { segment, shards: Default::default(), bytes: AtomicU64::new(0) }
    }

    /// Estimate of the memory it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn shard(pkey: &[u8]) -> usize {
        (xxh3_64(pkey) >> 32) as usize & (SHARDS - 1)
    }

    fn read(&self, pkey: &[u8]) -> RwLockReadGuard<'_, Shard> {
        self.shards[Self::shard(pkey)].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows all rows of a durable record. Neighbouring rows of one partition appear together.
    pub(super) fn apply(&self, record: &Bytes) {
        let mut held: Option<(usize, RwLockWriteGuard<'_, Shard>)> = None;
        let (mut at, mut cost) = (RECORD_HEAD, record.len() as u64);
        while let Some((row, next)) = row_at(record, at) {
            let wanted = Self::shard(row.pkey);
            if held.as_ref().is_none_or(|(shard, _)| *shard != wanted) {
                drop(held.take());
                let guard = self.shards[wanted].write().unwrap_or_else(PoisonError::into_inner);
                held = Some((wanted, guard));
            }
            if let Some((_, shard)) = &mut held {
                cost += shard.put(record, at, &row);
            }
            at = next;
        }
        self.bytes.fetch_add(cost, Relaxed);
    }

    /// What this generation knows of a row.
    pub(super) fn get(&self, pkey: &[u8], rest: &[u8]) -> Option<Known> {
        let shard = self.read(pkey);
        let part = shard.parts.get(pkey)?;
        let find = |list: &[Entry]| list.binary_search_by(|e| shard.cmp(e, prefix(rest), rest)).ok().map(|i| list[i]);
        find(&part.sorted).or_else(|| find(&part.recent)).map(|e| shard.known(&e))
    }

    /// The head that this generation has of a log.
    pub(super) fn head(&self, pkey: &[u8]) -> Option<Head> {
        self.read(pkey).parts.get(pkey)?.head
    }

    /// Rows of a partition above `after` (from the first without), not above `up_to`, at most `rows` and about `bytes`.
    pub(super) fn page(&self, pkey: &[u8], after: Option<&[u8]>, up_to: Option<&[u8]>, rows: usize, bytes: usize) -> Page {
        let shard = self.read(pkey);
        let mut page = Page::default();
        let Some(part) = shard.parts.get(pkey) else { return page };
        let from = |list: &[Entry]| match after {
            None => 0,
            Some(after) => list.partition_point(|e| shard.cmp(e, prefix(after), after).is_le()),
        };
        let mut size = 0;
        for e in shard.merged(&part.sorted[from(&part.sorted)..], &part.recent[from(&part.recent)..]) {
            let row = shard.row(&e);
            if up_to.is_some_and(|end| row.rest > end) {
                break;
            }
            if page.rows.len() >= rows || size > bytes {
                page.more = true;
                break;
            }
            size += row.rest.len() + row.value.len();
            page.rows.push((row.rest.to_vec(), shard.known(&e)));
        }
        page
    }

    /// Hands out all partitions in key order: the head, and the rows in order with `None` for a deletion.
    pub(super) fn each_sorted<E>(
        &self,
        mut part: impl FnMut(&[u8], Option<Head>, &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let shards: Vec<_> = self.shards.iter().map(|s| s.read().unwrap_or_else(PoisonError::into_inner)).collect();
        let mut parts: Vec<(&[u8], &Part, &Shard)> = Vec::new();
        for shard in &shards {
            parts.extend(shard.parts.iter().map(|(key, p)| (&**key, p, &**shard)));
        }
        parts.sort_unstable_by(|a, b| a.0.cmp(b.0));
        for (key, p, shard) in parts {
            let mut rows = shard.merged(&p.sorted, &p.recent).map(|e| {
                let row = shard.row(&e);
                (row.rest, (row.act == Act::Put).then_some(row.value))
            });
            part(key, p.head, &mut rows)?;
        }
        Ok(())
    }
}

impl Shard {
    /// The row of an entry. Entries are made of rows that were there, in buffers that never change.
    fn row(&self, e: &Entry) -> RowRef<'_> {
        const NOTHING: RowRef<'_> = RowRef { act: Act::Delete, pkey: &[], rest: &[], value: &[] };
        let chunk = self.chunks.get(e.chunk as usize);
        chunk.and_then(|c| row_at(c, e.at as usize)).map_or(NOTHING, |(row, _)| row)
    }

    fn known(&self, e: &Entry) -> Known {
        let row = self.row(e);
        match row.act {
            // Copied, because a small answer must not hold a large record.
            Act::Put | Act::Head => Known::Value(Bytes::copy_from_slice(row.value)),
            Act::Delete => Known::Deleted,
        }
    }

    fn cmp(&self, e: &Entry, key_prefix: u128, rest: &[u8]) -> Ordering {
        e.prefix.cmp(&key_prefix).then_with(|| self.row(e).rest.cmp(rest))
    }

    fn merged<'a>(&'a self, a: &'a [Entry], b: &'a [Entry]) -> impl Iterator<Item = Entry> + 'a {
        let (mut i, mut j) = (0, 0);
        std::iter::from_fn(move || {
            let from_a = match (a.get(i), b.get(j)) {
                (Some(x), Some(y)) => self.cmp(x, y.prefix, self.row(y).rest).is_lt(),
                (x, _) => x.is_some(),
            };
            let (list, k) = if from_a { (a, &mut i) } else { (b, &mut j) };
            let next = list.get(*k).copied();
            *k += 1;
            next
        })
    }

    /// Takes one row in; returns about how many bytes of memory that cost.
    fn put(&mut self, record: &Bytes, at: usize, row: &RowRef<'_>) -> u64 {
        let mut cost = size_of::<Entry>() as u64;
        if self.chunks.last().is_none_or(|c| c.as_ptr() != record.as_ptr()) {
            self.chunks.push(record.clone());
        }
        if !self.parts.contains_key(row.pkey) {
            self.parts.insert(row.pkey.into(), Part::default());
            cost += PART_COST;
        }
        // Taken out for the time of the change, so that comparisons can borrow the buffers.
        let Some(slot) = self.parts.get_mut(row.pkey) else { return cost };
        if row.act == Act::Head {
            let head = read_head(row.value);
            slot.head = Some(slot.head.map_or(head, |old| max_head(old, head)));
            return cost;
        }
        let mut part = std::mem::take(slot);
        let e = Entry { prefix: prefix(row.rest), chunk: (self.chunks.len() - 1) as u32, at: at as u32 };
        self.insert(&mut part, e, row.rest);
        if let Some(slot) = self.parts.get_mut(row.pkey) {
            *slot = part;
        }
        cost
    }

    fn insert(&self, part: &mut Part, e: Entry, rest: &[u8]) {
        if part.recent.is_empty() && part.sorted.last().is_none_or(|last| self.cmp(last, e.prefix, rest).is_lt()) {
            part.sorted.push(e);
            return;
        }
        if let Ok(i) = part.sorted.binary_search_by(|o| self.cmp(o, e.prefix, rest)) {
            part.sorted[i] = e;
            return;
        }
        match part.recent.binary_search_by(|o| self.cmp(o, e.prefix, rest)) {
            Ok(i) => part.recent[i] = e,
            Err(i) => part.recent.insert(i, e),
        }
        if part.recent.len() > RECENT.max(part.sorted.len() / 32) {
            let merged = self.merged(&part.sorted, &part.recent).collect();
            part.sorted = merged;
            part.recent.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::record::{new_record, push_row};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn record(rows: &[(Act, &[u8], &[u8], &[u8])]) -> Bytes {
        let mut r = new_record(0);
        for (act, pkey, rest, value) in rows {
            push_row(
                &mut r,
                *act,
                |out| {
                    out.extend_from_slice(pkey);
                    pkey.len()
                },
                rest,
                &[value],
            );
        }
        r.into()
    }

    #[test]
    fn the_larger_number_of_each_head_counts() {
        let g = Generation::new(1);
        let head = |confirmed, floor| head_bytes(Head { confirmed, floor });
        g.apply(&record(&[(Act::Head, b"p", b"", &head(9, 1))]));
        g.apply(&record(&[(Act::Head, b"p", b"", &head(4, 5))]));
        assert_eq!(g.head(b"p"), Some(Head { confirmed: 9, floor: 5 }));
        assert_eq!(g.head(b"q"), None);
    }

    proptest! {
        #[test]
        fn it_answers_like_a_plain_sorted_map(
            ops in proptest::collection::vec((any::<bool>(), 0u8..3, proptest::collection::vec(0u8..4, 0..20)), 1..400),
            after in proptest::collection::vec(0u8..4, 0..20),
            limit in 1usize..50,
        ) {
            let g = Generation::new(1);
            let mut model: BTreeMap<(u8, Vec<u8>), Option<Vec<u8>>> = BTreeMap::new();
            for (i, (put, part, rest)) in ops.iter().enumerate() {
                let value = i.to_le_bytes();
                let act = if *put { Act::Put } else { Act::Delete };
                g.apply(&record(&[(act, &[*part], rest, if *put { &value } else { b"" })]));
                model.insert((*part, rest.clone()), put.then(|| value.to_vec()));
            }
            for ((part, rest), value) in &model {
                let known = match value { Some(v) => Known::Value(v.clone().into()), None => Known::Deleted };
                prop_assert_eq!(g.get(&[*part], rest), Some(known));
            }
            for part in 0..3 {
                let page = g.page(&[part], Some(&after), None, limit, usize::MAX);
                let all: Vec<_> = model.iter().filter(|((p, r), _)| *p == part && *r > after).collect();
                prop_assert_eq!(page.more, all.len() > limit);
                let want: Vec<_> = all.iter().take(limit).map(|((_, r), _)| r.clone()).collect();
                prop_assert_eq!(page.rows.into_iter().map(|(r, _)| r).collect::<Vec<_>>(), want);
            }
            let mut all = Vec::new();
            g.each_sorted(|key, _, rows| {
                all.extend(rows.map(|(r, v)| ((key[0], r.to_vec()), v.map(<[u8]>::to_vec))));
                Ok::<_, ()>(())
            }).expect("cannot fail");
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }
}
