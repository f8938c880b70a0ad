//! What is in the journal but not yet in the tree, kept readable in memory: one generation a segment. The bytes of the
//! rows are the journal's own record buffers; a row costs 32 bytes of index besides. Not here: files, the merge of answers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::index::{Key, Part, chunk_row};
use super::record::{Act, RECORD_HEAD, row_at};
use crate::types::Head;

/// Locks of a generation, so that readers do not wait for the committer but by chance. Must be a power of two.
const SHARDS: usize = 16;
/// Estimate of what a partition costs besides its rows (key, table slot, vectors).
const PART_COST: u64 = 200;
/// Partitions whose rows are fetched from memory together while a generation is read in order.
const TOUCH: usize = 16;

#[derive(Default)]
struct Shard {
    chunks: Vec<Bytes>,
    parts: HashTable<(Key, Part)>,
}

impl Shard {
    fn part(&self, hash: u64, pkey: &[u8]) -> Option<&Part> {
        self.parts
            .find(hash, |(key, _)| key.is(pkey))
            .map(|(_, part)| part)
    }

    fn known(&self, at: (u32, u32)) -> Known {
        let row = chunk_row(&self.chunks, at);
        match row.act {
            // Copied, because a small answer must not hold a large record.
            Act::Put | Act::Head => Known::Value(Bytes::copy_from_slice(row.value)),
            Act::Delete => Known::Deleted,
        }
    }
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
    let n = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_be_bytes)
    };
    Head {
        confirmed: n(0),
        floor: n(8),
    }
}

/// The larger of each number.
pub(super) fn max_head(a: Head, b: Head) -> Head {
    Head {
        confirmed: a.confirmed.max(b.confirmed),
        floor: a.floor.max(b.floor),
    }
}

impl Generation {
    pub(super) fn new(segment: u64) -> Self {
        Self {
            segment,
            shards: Default::default(),
            bytes: AtomicU64::new(0),
        }
    }

    /// Estimate of the memory it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard_of(hash)]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows all rows of a durable record. Neighbouring rows of one partition appear together.
    pub(super) fn apply(&self, record: &Bytes) {
        let mut held: Option<(usize, RwLockWriteGuard<'_, Shard>)> = None;
        let (mut at, mut cost) = (RECORD_HEAD, record.len() as u64);
        while let Some((row, next)) = row_at(record, at) {
            let hash = xxh3_64(row.pkey);
            let wanted = shard_of(hash);
            if held.as_ref().is_none_or(|(shard, _)| *shard != wanted) {
                drop(held.take());
                let guard = self.shards[wanted]
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                held = Some((wanted, guard));
            }
            if let Some((_, shard)) = &mut held {
                let Shard { chunks, parts } = &mut **shard;
                if chunks.last().is_none_or(|c| c.as_ptr() != record.as_ptr()) {
                    chunks.push(record.clone());
                }
                let before = parts.len();
                let slot = parts.entry(hash, |(key, _)| key.is(row.pkey), |(key, _)| xxh3_64(key.bytes()));
                let mut slot = slot.or_insert_with(|| (Key::new(row.pkey), Part::default()));
                slot.get_mut().1.put(chunks, at as u32, &row);
                cost += Part::ROW_COST + if parts.len() > before { PART_COST } else { 0 };
            }
            at = next;
        }
        self.bytes.fetch_add(cost, Relaxed);
    }

    /// What this generation knows of a row.
    pub(super) fn get(&self, pkey: &[u8], rest: &[u8]) -> Option<Known> {
        let hash = xxh3_64(pkey);
        let shard = self.read(hash);
        let at = shard.part(hash, pkey)?.find(&shard.chunks, rest)?;
        Some(shard.known(at))
    }

    /// The head that this generation has of a log.
    pub(super) fn head(&self, pkey: &[u8]) -> Option<Head> {
        let hash = xxh3_64(pkey);
        self.read(hash).part(hash, pkey)?.head
    }

    /// Rows of a partition above `after` (from the first without), not above `up_to`, at most `rows` and about `bytes`.
    pub(super) fn page(
        &self,
        pkey: &[u8],
        after: Option<&[u8]>,
        up_to: Option<&[u8]>,
        rows: usize,
        bytes: usize,
    ) -> Page {
        let hash = xxh3_64(pkey);
        let shard = self.read(hash);
        let mut page = Page::default();
        let Some(part) = shard.part(hash, pkey) else {
            return page;
        };
        let mut size = 0;
        for at in part.after(&shard.chunks, after) {
            let row = chunk_row(&shard.chunks, at);
            if up_to.is_some_and(|end| row.rest > end) {
                break;
            }
            if page.rows.len() >= rows || size > bytes {
                page.more = true;
                break;
            }
            size += row.rest.len() + row.value.len();
            page.rows.push((row.rest.to_vec(), shard.known(at)));
        }
        page
    }

    /// Hands out all partitions in key order: the head, and the rows in order with `None` for a deletion.
    pub(super) fn each_sorted<E>(
        &self,
        mut take: impl FnMut(
            &[u8],
            Option<Head>,
            &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>,
        ) -> Result<(), E>,
    ) -> Result<(), E> {
        let shards: Vec<_> = self
            .shards
            .iter()
            .map(|s| s.read().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let mut parts: Vec<(&Key, &Part, &[Bytes])> = Vec::new();
        for shard in &shards {
            parts.extend(shard.parts.iter().map(|(key, part)| (key, part, &*shard.chunks)));
        }
        parts.sort_unstable_by(|a, b| a.0.cmp(b.0));
        for group in parts.chunks(TOUCH) {
            // The rows lie all over the buffers. Asked for one after the other each would be waited for alone.
            let touched: usize = group.iter().map(|(_, part, chunks)| part.touch(chunks)).sum();
            std::hint::black_box(touched);
            for (key, part, chunks) in group {
                let mut rows = part.after(chunks, None).map(|at| {
                    let row = chunk_row(chunks, at);
                    (row.rest, (row.act == Act::Put).then_some(row.value))
                });
                take(key.bytes(), part.head, &mut rows)?;
            }
        }
        Ok(())
    }
}

fn shard_of(hash: u64) -> usize {
    // Not the bits that the table uses (the lowest and the seven highest).
    (hash >> 40) as usize & (SHARDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::record::{new_record, push_row};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn record(act: Act, pkey: &[u8], rest: &[u8], value: &[u8]) -> Bytes {
        let mut r = new_record(0);
        let key = |out: &mut Vec<u8>| {
            out.extend_from_slice(pkey);
            pkey.len()
        };
        push_row(&mut r, act, key, rest, &[value]);
        r.into()
    }

    #[test]
    fn the_larger_number_of_each_head_counts() {
        let g = Generation::new(1);
        let head = |confirmed, floor| head_bytes(Head { confirmed, floor });
        g.apply(&record(Act::Head, b"p", b"", &head(9, 1)));
        g.apply(&record(Act::Head, b"p", b"", &head(4, 5)));
        assert_eq!(
            g.head(b"p"),
            Some(Head {
                confirmed: 9,
                floor: 5
            })
        );
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
                g.apply(&record(act, &[*part], rest, if *put { &value } else { b"" }));
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
