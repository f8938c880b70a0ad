//! A small program to prove the layer on: it writes numbered, self-checking records to `DIR/records`, syncs as told,
//! and afterwards says which of them a file holds. Uses nothing of the layer but its folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;

/// When the writer syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sync {
    /// After each record.
    Each,
    /// Once, after the last.
    End,
    /// Never.
    None,
}

/// What the reader found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Whole records before the first damage.
    pub prefix: u64,
    /// Whole records anywhere.
    pub whole: u64,
    /// Places of a record that hold anything else.
    pub broken: u64,
    /// Bytes of a last, incomplete record.
    pub rest: u64,
}

/// Name of the file in its folder.
const FILE: &str = "records";
/// A record's number and checksum; the rest of it repeats the number.
const HEAD: usize = 16;

fn record(number: u64, bytes: usize) -> Vec<u8> {
    let mut record = vec![0; bytes.max(HEAD)];
    record[..8].copy_from_slice(&(number + 1).to_le_bytes());
    for (index, byte) in record[HEAD..].iter_mut().enumerate() {
        *byte = (number as u8) ^ (index as u8) | 1;
    }
    let sum = checksum(&record);
    record[8..HEAD].copy_from_slice(&sum.to_le_bytes());
    record
}

/// FNV-1a over all but the checksum itself.
fn checksum(record: &[u8]) -> u64 {
    let bytes = record[..8].iter().chain(&record[HEAD..]);
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Makes the file, appends `count` records of `bytes` bytes and syncs as told, the folder too unless never. Says
/// each number to `acknowledge` once the record is written and, as far as asked, synced.
///
/// # Errors
/// The first error of the disk.
pub fn write(
    dir: &Path,
    count: u64,
    bytes: usize,
    sync: Sync,
    mut acknowledge: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(FILE))?;
    if sync != Sync::None {
        File::open(dir)?.sync_all()?;
    }
    for number in 0..count {
        file.write_all(&record(number, bytes))?;
        if sync == Sync::Each {
            file.sync_data()?;
        }
        if sync != Sync::End {
            acknowledge(number)?;
        }
    }
    if sync == Sync::End {
        file.sync_data()?;
        (0..count).try_for_each(acknowledge)?;
    }
    Ok(())
}

/// Reads the file back; one that is not there holds nothing.
///
/// # Errors
/// When it is there and cannot be read.
pub fn check(dir: &Path, bytes: usize) -> io::Result<Found> {
    let mut content = Vec::new();
    match File::open(dir.join(FILE)) {
        Ok(mut file) => file.read_to_end(&mut content).map(|_| ())?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut found = Found {
        prefix: 0,
        whole: 0,
        broken: 0,
        rest: 0,
    };
    let chunks = content.chunks_exact(bytes.max(HEAD));
    found.rest = chunks.remainder().len() as u64;
    for (number, chunk) in chunks.enumerate() {
        if chunk == record(number as u64, bytes) {
            found.whole += 1;
            found.prefix += u64::from(found.broken == 0);
        } else {
            found.broken += 1;
        }
    }
    Ok(found)
}
