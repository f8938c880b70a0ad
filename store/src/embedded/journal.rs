//! The journal's segments: preallocated files, written in order, synced before anything is confirmed. A segment that had a
//! failed write or sync is never written or synced again. Not here: what rows mean, when to commit.
//!
//! ```text
//! segment file: magic 8 │ format 4 │ – 4 │ segment 8 │ before: segment 8, end 8, last record 8 │ seed 8
//!               │ checksum 8 │ – … 4096 │ records …
//! ```
//! `seed` is drawn anew for each segment and known to nobody outside: the checksums of its records rest on it. `before` says where the segment before it really ends: behind that offset lies nothing, or a record whose write or sync
//! failed; such a record was written again as the first of the new segment. A segment gets its name only when
//! all that was first written to it is synced. At each open the last valid record is written again to the new
//! segment, because nobody knows whether the process that wrote it lived to see its sync succeed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::rand::{GetRandomFlags, getrandom};
use xxhash_rust::xxh3::xxh3_64;

use super::faults::{Faults, Planted, is_planted};
use super::layout::{self, sync_dir};
use super::record::{record_at, seal, valid_record_beyond};
use crate::StoreError;

const MAGIC: [u8; 8] = *b"GwtJrnl1";
/// Where the records of a segment begin: a page, so that a torn head cannot touch a record.
pub(super) const SEGMENT_HEAD: u64 = 4096;
const HEAD_USED: usize = 64;
/// What is preallocated when the disk has no room for a whole segment any more.
const SMALL_SEGMENT: u64 = 2 << 20;

/// Where a segment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Number of the segment; 0 before the first.
    pub(super) segment: u64,
    /// Offset behind its last durable record.
    pub(super) end: u64,
    /// Number of the last durable record.
    pub(super) last_record: u64,
}

/// The segment that is being written.
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    at: Position,
    seed: u64,
    size: u64,
    wanted: u64,
    faults: Arc<dyn Faults>,
}

pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:020}.seg"))
}

impl Journal {
    /// Begins the segment after `before` with `first` as its first records (sealed here), durable when it returns.
    pub(super) fn begin(
        dir: &Path,
        before: Position,
        first: &mut [Vec<u8>],
        wanted: u64,
        faults: Arc<dyn Faults>,
    ) -> io::Result<Self> {
        let segment = before.segment + 1;
        let new = dir.join("next.new");
        // A leftover of a failed attempt; a new inode is wanted, never the old one again.
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        faults.create()?;
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&new)?;
        let records: u64 = first.iter().map(|r| r.len() as u64).sum();
        let size = preallocate(&file, wanted.max(SEGMENT_HEAD + records), SEGMENT_HEAD + records)?;
        let seed = new_seed()?;
        let mut bytes = head(segment, before, seed);
        let mut number = before.last_record;
        for record in first {
            number += 1;
            seal(record, number, seed);
            bytes.extend_from_slice(record);
        }
        write(&file, &bytes, 0, &*faults)?;
        faults.sync()?;
        file.sync_all()?;
        std::fs::rename(&new, segment_path(dir, segment))?;
        faults.sync()?;
        sync_dir(dir)?;
        let at = Position {
            segment,
            end: bytes.len() as u64,
            last_record: number,
        };
        Ok(Self {
            dir: dir.into(),
            file,
            at,
            seed,
            size,
            wanted,
            faults,
        })
    }

    /// Where the durable part ends.
    pub(super) fn position(&self) -> Position {
        self.at
    }

    /// Whether a record of this length goes into the segment.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.at.end + len as u64 <= self.size
    }

    /// Whether anything was written but the head.
    pub(super) fn is_fresh(&self) -> bool {
        self.at.end == SEGMENT_HEAD
    }

    /// Writes and syncs one record. After an error this segment must not be used again: go on by [`Journal::follow`].
    pub(super) fn append(&mut self, record: &mut [u8]) -> io::Result<()> {
        seal(record, self.at.last_record + 1, self.seed);
        write(&self.file, record, self.at.end, &*self.faults)?;
        if !is_planted(&*self.faults, Planted::NoSync) {
            self.faults.sync()?;
            self.file.sync_data()?;
        }
        self.at.end += record.len() as u64;
        self.at.last_record += 1;
        Ok(())
    }

    /// Begins the next segment behind the durable part of this one.
    pub(super) fn follow(&self, first: &mut [Vec<u8>]) -> io::Result<Self> {
        Self::begin(&self.dir, self.at, first, self.wanted, self.faults.clone())
    }
}

fn write(file: &File, bytes: &[u8], at: u64, faults: &dyn Faults) -> io::Result<()> {
    if let Err((written, e)) = faults.write(bytes.len()) {
        file.write_all_at(&bytes[..written.min(bytes.len())], at)?;
        return Err(e);
    }
    file.write_all_at(bytes, at)
}

/// Gives the file its blocks, so that a sync has no length to write: 4 times as many syncs a second as by appending.
fn preallocate(file: &File, wanted: u64, needed: u64) -> io::Result<u64> {
    for size in [wanted, SMALL_SEGMENT.max(needed)] {
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) => return Ok(size),
            Err(rustix::io::Errno::NOSPC) => file.set_len(0)?,
            // A file system without it: the length is set, blocks come with the writes.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                file.set_len(size)?;
                return Ok(size);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(rustix::io::Errno::NOSPC.into())
}

fn new_seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    // So few bytes never come in part.
    match getrandom(&mut seed, GetRandomFlags::empty())? {
        8 => Ok(u64::from_le_bytes(seed)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn head(segment: u64, before: Position, seed: u64) -> Vec<u8> {
    let mut head = vec![0; SEGMENT_HEAD as usize];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&layout::FORMAT.to_le_bytes());
    for (i, n) in [segment, before.segment, before.end, before.last_record, seed]
        .into_iter()
        .enumerate()
    {
        head[16 + 8 * i..24 + 8 * i].copy_from_slice(&n.to_le_bytes());
    }
    let sum = xxh3_64(&head[..HEAD_USED - 8]);
    head[HEAD_USED - 8..HEAD_USED].copy_from_slice(&sum.to_le_bytes());
    head
}

/// What the head of a segment says.
struct Head {
    segment: u64,
    before: Position,
    seed: u64,
}

fn read_head(data: &[u8]) -> Option<Head> {
    let head = data.get(..HEAD_USED)?;
    let n = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    (head[..8] == MAGIC && xxh3_64(&head[..HEAD_USED - 8]) == n(HEAD_USED - 8)?).then_some(())?;
    Some(Head {
        segment: n(16)?,
        before: Position {
            segment: n(24)?,
            end: n(32)?,
            last_record: n(40)?,
        },
        seed: n(48)?,
    })
}

/// A segment as it was found.
pub(super) struct Found {
    /// Number of the segment.
    pub(super) segment: u64,
    /// Its valid records, in order.
    pub(super) records: Vec<Vec<u8>>,
    /// Where the last record of `records` begins.
    last_start: u64,
    end: Position,
}

impl Found {
    /// Where this segment is to end if its last record is written again elsewhere.
    pub(super) fn before_last(&self) -> Position {
        if self.records.is_empty() {
            return self.end;
        }
        Position {
            segment: self.segment,
            end: self.last_start,
            last_record: self.end.last_record - 1,
        }
    }
}

/// Reads all segments above `ingested`, oldest first. Refuses if one is missing or damaged; drops a torn tail.
pub(super) fn read_all(dir: &Path, ingested: u64) -> Result<Vec<Found>, StoreError> {
    let mut numbers = list(dir).map_err(|e| layout::io("cannot list", dir, &e))?;
    numbers.retain(|n| *n > ingested);
    for (i, n) in numbers.iter().enumerate() {
        let wanted = ingested + 1 + i as u64;
        if *n != wanted {
            return Err(refused(
                &segment_path(dir, wanted),
                "is missing although later ones are there",
            ));
        }
    }
    let mut found: Vec<Found> = Vec::new();
    let mut pending: Option<(Head, Vec<u8>)> = None;
    for n in numbers {
        let path = segment_path(dir, n);
        let data = std::fs::read(&path).map_err(|e| layout::io("cannot read", &path, &e))?;
        // A segment has its name only once its head is synced.
        let Some(head) = read_head(&data).filter(|head| head.segment == n) else {
            return Err(refused(&path, "has a damaged head"));
        };
        if let Some((one, data)) = pending.take() {
            found.push(read_segment(dir, &one, &data, Some(head.before))?);
        }
        pending = Some((head, data));
    }
    if let Some((last, data)) = pending {
        found.push(read_segment(dir, &last, &data, None)?);
    }
    Ok(found)
}

fn read_segment(dir: &Path, head: &Head, data: &[u8], end: Option<Position>) -> Result<Found, StoreError> {
    let (segment, seed) = (head.segment, head.seed);
    let path = segment_path(dir, segment);
    let mut at = SEGMENT_HEAD as usize;
    let mut number = head.before.last_record;
    let mut out = Found {
        segment,
        records: Vec::new(),
        last_start: at as u64,
        end: Position::default(),
    };
    let stop = end.map(|e| e.end as usize);
    while stop.is_none_or(|stop| at < stop) {
        let Some((record, n)) = record_at(data, at, seed) else {
            break;
        };
        if n != number + 1 {
            return Err(refused(
                &path,
                &format!("goes on with record {n} after record {number}"),
            ));
        }
        out.last_start = at as u64;
        at += record.len();
        number = n;
        out.records.push(record.to_vec());
    }
    out.end = Position {
        segment,
        end: at as u64,
        last_record: number,
    };
    match end {
        Some(end) if end != out.end => Err(refused(
            &path,
            &format!("is damaged at offset {at}, behind record {number}, and was complete"),
        )),
        None if valid_record_beyond(data, at, seed, number).is_some() => Err(refused(
            &path,
            &format!("is damaged at offset {at}, behind record {number}, and valid records follow"),
        )),
        _ => Ok(out),
    }
}

fn refused(path: &Path, what: &str) -> StoreError {
    StoreError::Refused(format!(
        "journal segment {} {what}: acknowledged data would be lost by going on. Check the disk, copy the data folder \
         aside, and restore the last backup (godwit restore); only if you accept the loss, move the journal folder's \
         segments from this one on away",
        path.display()
    ))
}

/// Numbers of the segments in the folder, ascending.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(n) = name
            .to_str()
            .and_then(|n| n.strip_suffix(".seg"))
            .and_then(|n| n.parse().ok())
        {
            out.push(n);
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// Deletes the segments up to this one. What cannot be deleted now is deleted at the next call.
pub(super) fn forget(dir: &Path, up_to: u64) {
    for n in list(dir).unwrap_or_default().into_iter().filter(|n| *n <= up_to) {
        if let Err(e) = std::fs::remove_file(segment_path(dir, n)) {
            tracing::warn!(segment = n, error = %e, "cannot delete a journal segment that is no longer needed");
        }
    }
}
