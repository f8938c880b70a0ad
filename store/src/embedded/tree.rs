//! The tree behind the journal: opening, bulk loading of a generation, merging of its runs, reads. It never sees
//! a row that is not in a synced journal first, so that it may be thrown away and re-opened after any error. The
//! only file that knows lsm-tree. Not here: when to load and merge (`upkeep`).

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Leveled, Verdict, filter::Context};
use lsm_tree::config::{BlockSizePolicy, CompressionPolicy, PinningPolicy};
use lsm_tree::{
    AbstractTree as _, AnyTree, Cache, CompressionType, Config, DescriptorTable, Guard as _, SeqNo,
    SequenceNumberCounter,
};

use super::faults::Faults;
use super::layout::{PKEY_HEAD, kind, pkey};
use super::overlay::{Generation, Known, Page, head_bytes, max_head, read_head};
use crate::StoreError;
use crate::types::Head;

/// Reads see the newest version; there are no older snapshots.
const NEWEST: SeqNo = SeqNo::MAX >> 1;
/// Runs of level 0 before they are merged: each is 64 MiB of journal at most, and every merge writes level 1 again,
/// so few and large merges cost least (decision 0001); a read looks at this many runs.
const MERGE_AT: usize = 16;
/// Runs of level 0 above which loading waits for the merge.
pub(super) const TOO_MANY_RUNS: usize = 48;
/// Decision 0001: larger blocks cost less to write; a page of a mailbox is about as long.
const BLOCK: u32 = 16 << 10;
const TABLE: u64 = 64 << 20;
/// Table files kept open; the rest are opened when read. The process has 20,000 at most, connections need them.
const OPEN_FILES: usize = 200;

/// Name of the engine's row that says up to which segment the tree has everything.
pub(super) const INGESTED: &[u8] = b"ingested";

/// The key of the engine's own rows.
pub(super) fn meta_pkey() -> Vec<u8> {
    pkey(kind::META, 0, b"")
}

pub(super) struct Tree {
    dir: PathBuf,
    cache: Arc<Cache>,
    tree: RwLock<AnyTree>,
    /// Shared by those that change files of the tree, held alone by whoever needs them to stay as they are.
    busy: RwLock<()>,
}

fn failed(e: &lsm_tree::Error) -> StoreError {
    match e {
        lsm_tree::Error::Io(e) => StoreError::Unavailable(format!("tree: {e}")),
        e => StoreError::Refused(format!(
            "the tree is damaged ({e:?}); check the disk and restore the last backup (godwit restore)"
        )),
    }
}

/// Runs what may panic inside the engine (its locks do after a failure) and makes an error of that.
fn guarded<T>(what: impl FnOnce() -> lsm_tree::Result<T>) -> Result<T, StoreError> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)) {
        Ok(result) => result.map_err(|e| failed(&e)),
        Err(_) => Err(StoreError::Unavailable(
            "tree: it has failed before and must be re-opened".into(),
        )),
    }
}

fn open_tree(dir: &std::path::Path, cache: &Arc<Cache>) -> Result<AnyTree, StoreError> {
    let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
    guarded(|| {
        let tree = Config::new(dir, seqno.clone(), visible.clone())
            .use_cache(cache.clone())
            .use_descriptor_table(Some(Arc::new(DescriptorTable::new(OPEN_FILES))))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            .data_block_size_policy(BlockSizePolicy::all(BLOCK))
            // A whole filter of a full table is 0.5 MB; looking for one key must not read that.
            .filter_block_partitioning_policy(PinningPolicy::all(true))
            .with_compaction_filter_factory(Some(Arc::new(Trim)))
            .open()?;
        let next = tree.get_highest_seqno().map_or(0, |n| n + 1);
        seqno.fetch_max(next);
        visible.fetch_max(next);
        Ok(tree)
    })
}

impl Tree {
    pub(super) fn open(dir: PathBuf, cache_bytes: u64) -> Result<Self, StoreError> {
        let cache = Arc::new(Cache::with_capacity_bytes(cache_bytes));
        let tree = open_tree(&dir, &cache)?;
        Ok(Self {
            dir,
            cache,
            tree: RwLock::new(tree),
            busy: RwLock::new(()),
        })
    }

    fn now(&self) -> AnyTree {
        self.tree.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn cached_bytes(&self) -> u64 {
        self.cache.size()
    }

    /// Keeps the files of the tree as they are until it is dropped.
    pub(super) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.busy.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.busy.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it anew after an error; nothing is lost, what was not loaded is in the journal.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let _held = self.hold();
        let fresh = open_tree(&self.dir, &self.cache)?;
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The last segment of which the tree has everything.
    pub(super) fn ingested(&self) -> Result<u64, StoreError> {
        let value = self.get(&meta_pkey(), INGESTED)?;
        Ok(value
            .and_then(|v| v[..].try_into().ok())
            .map_or(0, u64::from_be_bytes))
    }

    pub(super) fn get(&self, pkey: &[u8], rest: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = [pkey, rest].concat();
        let tree = self.now();
        let value = guarded(|| tree.get(&key, NEWEST))?;
        Ok(value.map(|v| Bytes::copy_from_slice(&v)))
    }

    pub(super) fn head(&self, pkey: &[u8]) -> Result<Option<Head>, StoreError> {
        Ok(self.get(pkey, &[0; 8])?.map(|v| read_head(&v)))
    }

    /// As [`Generation::page`].
    pub(super) fn page(
        &self,
        pkey: &[u8],
        after: Option<&[u8]>,
        up_to: Option<&[u8]>,
        rows: usize,
        bytes: usize,
    ) -> Result<Page, StoreError> {
        let low = match after {
            Some(after) => Bound::Excluded([pkey, after].concat()),
            None => Bound::Included(pkey.to_vec()),
        };
        let high = match up_to {
            Some(end) => Bound::Included([pkey, end].concat()),
            None => Bound::Excluded(successor(pkey)),
        };
        if let (Bound::Excluded(l) | Bound::Included(l), Bound::Excluded(h) | Bound::Included(h)) =
            (&low, &high)
            && l > h
        {
            return Ok(Page::default());
        }
        let tree = self.now();
        guarded(|| {
            let (mut page, mut size) = (Page::default(), 0);
            for item in tree.range((low, high), NEWEST, None) {
                let (key, value) = item.into_inner()?;
                if page.rows.len() >= rows || size > bytes {
                    page.more = true;
                    break;
                }
                size += key.len() + value.len();
                let rest = key.get(pkey.len()..).unwrap_or_default().to_vec();
                page.rows
                    .push((rest, Known::Value(Bytes::copy_from_slice(&value))));
            }
            Ok(page)
        })
    }

    /// Loads a whole generation in one step, and that its segment is no longer needed.
    pub(super) fn ingest(&self, generation: &Generation, faults: &dyn Faults) -> Result<(), StoreError> {
        let _changing = self.changing();
        faults.ingest().map_err(|e| failed(&lsm_tree::Error::Io(e)))?;
        let tree = self.now();
        guarded(|| {
            let mut load = tree.ingestion()?;
            let mut key = [&meta_pkey()[..], INGESTED].concat();
            load.write(key.as_slice(), generation.segment.to_be_bytes())?;
            generation.each_sorted(|pkey, head, rows| {
                let mut put = |rest: &[u8], value: Option<&[u8]>| {
                    key.clear();
                    key.extend_from_slice(pkey);
                    key.extend_from_slice(rest);
                    match value {
                        Some(value) => load.write(key.as_slice(), value),
                        None => load.write_tombstone(key.as_slice()),
                    }
                };
                let mut floor = 0;
                if let Some(head) = head {
                    let stored = tree
                        .get([pkey, &[0; 8]].concat(), NEWEST)?
                        .map_or_else(Head::default, |v| read_head(&v));
                    let head = max_head(stored, head);
                    floor = head.floor;
                    put(&[0; 8], Some(&head_bytes(head)))?;
                }
                for (rest, value) in rows {
                    let trimmed = pkey[0] == kind::LOG && sequence(rest).is_some_and(|s| s <= floor);
                    if !trimmed {
                        put(rest, value)?;
                    }
                }
                Ok::<_, lsm_tree::Error>(())
            })?;
            load.finish()
        })
    }

    pub(super) fn runs(&self) -> usize {
        self.now().l0_run_count()
    }

    /// Does one merge if one is due; whether more may be.
    pub(super) fn merge(&self, faults: &dyn Faults) -> Result<bool, StoreError> {
        let _changing = self.changing();
        faults.merge().map_err(|e| failed(&lsm_tree::Error::Io(e)))?;
        let tree = self.now();
        guarded(|| {
            let before = tree.current_version().id();
            let policy = Leveled::default()
                .with_l0_threshold(MERGE_AT as u8)
                .with_table_target_size(TABLE);
            tree.compact(Arc::new(policy), NEWEST)?;
            Ok(tree.current_version().id() != before)
        })
    }
}

/// The first key behind all that begin with `prefix`, which begins with a kind and so never is all 0xff.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn sequence(rest: &[u8]) -> Option<u64> {
    rest.try_into().ok().map(u64::from_be_bytes)
}

/// Leaves rows at or below their log's floor out of merges. The head sorts before its rows, so it was seen if it is
/// part of the merge; if it is not, the rows stay until a later one.
struct Trim;

impl Factory for Trim {
    fn name(&self) -> &'static str {
        "trim"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Trimming {
            log: Vec::new(),
            floor: 0,
        })
    }
}

struct Trimming {
    log: Vec<u8>,
    floor: u64,
}

/// Length of the key of a log: its partition's and the sequence.
const LOG_KEY: usize = PKEY_HEAD + 16 + 8;

impl CompactionFilter for Trimming {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let key: &[u8] = item.key();
        if key.len() != LOG_KEY || key[0] != kind::LOG {
            return Ok(Verdict::Keep);
        }
        let (log, seq) = key.split_at(LOG_KEY - 8);
        match sequence(seq) {
            Some(0) => {
                self.log = log.to_vec();
                self.floor = read_head(&item.value()?).floor;
                Ok(Verdict::Keep)
            }
            Some(seq) if self.log == log && seq <= self.floor => Ok(Verdict::Destroy),
            _ => Ok(Verdict::Keep),
        }
    }
}
