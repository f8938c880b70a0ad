//! A small journal: preallocated segments, checksummed batches, pwrite + fdatasync; and the ordered overlay that holds what is
//! journalled but not yet in the engine behind. Trial code: the product's journal is store/src/embedded.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::load::Row;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub const SEGMENT: u64 = 64 << 20;
const HEAD: usize = 24; // checksum 8, batch number 8, length 4, magic 4
const MAGIC: u32 = 0x4757_4a31;

pub struct Journal {
    dir: PathBuf,
    pub segment: u64,
    file: File,
    pos: u64,
    batch: u64,
    buf: Vec<u8>,
}

pub fn seg_path(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("{n:012}.jnl"))
}

fn preallocated(path: &Path) -> File {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path).unwrap();
    if std::env::var_os("TRIAL_APPEND").is_some() {
        return file;
    }
    let rc = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, SEGMENT as i64) };
    assert_eq!(rc, 0);
    if std::env::var_os("TRIAL_ZERO").is_some() {
        let z = vec![0u8; 1 << 20];
        for i in 0..SEGMENT >> 20 {
            file.write_all_at(&z, i << 20).unwrap();
        }
    }
    file.sync_all().unwrap();
    file
}

impl Journal {
    pub fn create(dir: &Path, segment: u64, batch: u64) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let file = preallocated(&seg_path(dir, segment));
        File::open(dir).unwrap().sync_all().unwrap();
        Self { dir: dir.into(), segment, file, pos: 0, batch, buf: vec![0; HEAD] }
    }

    pub fn put(&mut self, row: &Row<'_>) {
        self.buf.push(row.part.len() as u8);
        self.buf.push(row.rest.len() as u8);
        self.buf.extend_from_slice(&(row.value.len() as u32).to_le_bytes());
        self.buf.extend_from_slice(row.part);
        self.buf.extend_from_slice(row.rest);
        self.buf.extend_from_slice(row.value);
    }

    /// Writes and syncs the gathered batch. True if the segment was sealed after it.
    pub fn commit(&mut self) -> (Arc<Vec<u8>>, bool) {
        self.batch += 1;
        let len = self.buf.len();
        self.buf[8..16].copy_from_slice(&self.batch.to_le_bytes());
        self.buf[16..20].copy_from_slice(&(len as u32).to_le_bytes());
        self.buf[20..24].copy_from_slice(&MAGIC.to_le_bytes());
        let sum = xxh3_64_with_seed(&self.buf[8..], self.segment);
        self.buf[..8].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&self.buf, self.pos).unwrap();
        self.file.sync_data().unwrap();
        self.pos += len as u64;
        let mut next = Vec::with_capacity(len + len / 4);
        next.resize(HEAD, 0);
        let batch = Arc::new(std::mem::replace(&mut self.buf, next));
        let full = self.pos > SEGMENT - (1 << 20);
        if full {
            self.segment += 1;
            self.file = preallocated(&seg_path(&self.dir, self.segment));
            File::open(&self.dir).unwrap().sync_all().unwrap();
            self.pos = 0;
        }
        (batch, full)
    }
}

/// What a scan of one segment found.
pub struct Scan {
    pub batches: u64,
    pub last_batch: u64,
    /// A later batch is valid although an earlier one is not: damage, not a torn tail.
    pub damaged: bool,
}

pub fn scan(dir: &Path, n: u64, mut each: impl FnMut(&[u8])) -> Scan {
    let data = std::fs::read(seg_path(dir, n)).unwrap();
    let valid = |at: usize| -> Option<usize> {
        let head = data.get(at..at + HEAD)?;
        let len = u32::from_le_bytes(head[16..20].try_into().unwrap()) as usize;
        if head[20..24] != MAGIC.to_le_bytes() || len < HEAD {
            return None;
        }
        let all = data.get(at..at + len)?;
        (xxh3_64_with_seed(&all[8..], n).to_le_bytes() == head[..8]).then_some(len)
    };
    let mut at = 0;
    let mut out = Scan { batches: 0, last_batch: 0, damaged: false };
    while let Some(len) = valid(at) {
        out.batches += 1;
        out.last_batch = u64::from_le_bytes(data[at + 8..at + 16].try_into().unwrap());
        each(&data[at..at + len]);
        at += len;
    }
    let magic = MAGIC.to_le_bytes();
    let mut i = at + 21;
    while let Some(off) = data.get(i..).and_then(|d| d.windows(4).position(|w| w == magic)) {
        if valid(i + off - 20).is_some() {
            out.damaged = true;
            break;
        }
        i += off + 1;
    }
    out
}

/// Where a row lies: its batch's buffer, and the offset in it; with the first 16 bytes of the clustering key beside it.
#[derive(Clone, Copy)]
struct Entry {
    prefix: u128,
    chunk: u32,
    at: u32,
}

/// Rows by partition, in order within it; sorted over partitions only when it is ingested. The bytes stay in the batches' buffers.
#[derive(Default)]
pub struct Overlay {
    chunks: Vec<Arc<Vec<u8>>>,
    parts: HashMap<Box<[u8]>, Vec<Entry>, std::hash::BuildHasherDefault<Xx>>,
}

#[derive(Default)]
pub struct Xx(u64);
impl std::hash::Hasher for Xx {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, b: &[u8]) {
        self.0 = xxh3_64_with_seed(b, self.0);
    }
    fn write_usize(&mut self, _: usize) {}
}

fn prefix(rest: &[u8]) -> u128 {
    let mut b = [0u8; 16];
    let n = rest.len().min(16);
    b[..n].copy_from_slice(&rest[..n]);
    u128::from_be_bytes(b)
}

fn row_at(b: &[u8]) -> (Row<'_>, usize) {
    let (p, r) = (b[0] as usize, b[1] as usize);
    let v = u32::from_le_bytes(b[2..6].try_into().unwrap()) as usize;
    let rest = &b[6..];
    (Row { part: &rest[..p], rest: &rest[p..p + r], value: &rest[p + r..p + r + v] }, 6 + p + r + v)
}

impl Overlay {
    /// Takes all rows of a batch as the journal wrote it.
    pub fn take(&mut self, batch: Arc<Vec<u8>>) -> u64 {
        let mut rows = 0;
        let chunk = self.chunks.len() as u32;
        self.chunks.push(batch);
        let batch = &self.chunks[chunk as usize];
        let mut at = HEAD;
        while at < batch.len() {
            let (row, len) = row_at(&batch[at..]);
            let e = Entry { prefix: prefix(row.rest), chunk, at: at as u32 };
            match self.parts.get_mut(row.part) {
                None => {
                    self.parts.insert(row.part.into(), vec![e]);
                }
                Some(v) => {
                    let rest = |e: &Entry| row_at(&self.chunks[e.chunk as usize][e.at as usize..]).0.rest;
                    let cmp = |o: &Entry| o.prefix.cmp(&e.prefix).then_with(|| {
                        if row.rest.len() <= 16 { std::cmp::Ordering::Equal } else { rest(o).cmp(row.rest) }
                    });
                    if cmp(&v[v.len() - 1]).is_lt() {
                        v.push(e);
                    } else {
                        match v.binary_search_by(cmp) {
                            Ok(i) => v[i] = e,
                            Err(i) => v.insert(i, e),
                        }
                    }
                }
            }
            at += len;
            rows += 1;
        }
        rows
    }

    /// All rows in key order.
    pub fn each(self, mut put: impl FnMut(&[u8], &[u8])) {
        let mut parts: Vec<_> = self.parts.into_iter().collect();
        parts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (_, v) in parts {
            for e in v {
                let b = &self.chunks[e.chunk as usize][e.at as usize..];
                let (row, _) = row_at(b);
                put(&b[6..6 + row.part.len() + row.rest.len()], row.value);
            }
        }
    }
}
