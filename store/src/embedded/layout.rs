//! What lies in a data folder: the format version, the lock, the names of its parts; and how keys are laid out in it.
//! Not here: what a journal segment looks like (`record`, `journal`).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::StoreError;
use crate::types::{LogId, Table};

/// Version of everything below the data folder that this code reads and writes.
pub(super) const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";

/// One step from a format to the next; there is none before the second format exists.
type Step = fn(&Path) -> Result<(), StoreError>;
const STEPS: &[(u32, Step)] = &[];

pub(super) fn journal_dir(data: &Path) -> PathBuf {
    data.join("journal")
}

pub(super) fn tree_dir(data: &Path) -> PathBuf {
    data.join("tree")
}

pub(super) fn io(what: &str, path: &Path, e: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{what} {}: {e}", path.display()))
}

/// Makes the entries of a folder durable.
pub(super) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a folder and those above it, durably.
pub(super) fn make_dir(dir: &Path) -> std::io::Result<()> {
    if !dir.is_dir() {
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            make_dir(parent)?;
        }
        match std::fs::create_dir(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    // Also if it was there already: a start before this one may have died before its sync.
    let synced = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    };
    match synced {
        // A folder that we may not even list is not one that we have just made an entry in.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Takes the folder for this process for as long as the file lives.
pub(super) fn lock(data: &Path) -> Result<File, StoreError> {
    let path = data.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| io("cannot open", &path, &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Refused(format!(
                "the data folder {} is in use by another process; stop that one first, or give this one a folder \
                 of its own",
                data.display()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(io("cannot lock", &path, &e)),
    }
    // For people only; nothing reads it.
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Reads the format version; `None` if the folder was never completed.
pub(super) fn found_format(data: &Path) -> Result<Option<u32>, StoreError> {
    let path = data.join(FORMAT_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("cannot read", &path, &e)),
    };
    let version = text
        .strip_prefix("godwit-store ")
        .and_then(|v| v.trim().parse().ok());
    version.map(Some).ok_or_else(|| {
        StoreError::Refused(format!(
            "{} is not a format file of this store; restore a backup",
            path.display()
        ))
    })
}

/// Refuses a newer format and brings an older one up, step by step, saying so.
pub(super) fn bring_up(data: &Path, found: u32) -> Result<(), StoreError> {
    bring_up_by(data, found, FORMAT, STEPS)
}

fn bring_up_by(data: &Path, mut found: u32, wanted: u32, steps: &[(u32, Step)]) -> Result<(), StoreError> {
    if found > wanted {
        return Err(StoreError::Refused(format!(
            "the data folder {} has format {found}, this program knows up to {wanted}; use the newer program",
            data.display()
        )));
    }
    while found < wanted {
        let Some((_, step)) = steps.iter().find(|(from, _)| *from == found) else {
            return Err(StoreError::Refused(format!(
                "the data folder {} has format {found}, which nothing brings up to {wanted}",
                data.display()
            )));
        };
        tracing::warn!(from = found, to = found + 1, "migrating the data folder");
        step(data)?;
        found += 1;
        write_format(data, found)?;
    }
    Ok(())
}

/// Writes the format version durably; the last act of making a folder.
pub(super) fn write_format(data: &Path, version: u32) -> Result<(), StoreError> {
    let (path, new) = (data.join(FORMAT_FILE), data.join("FORMAT.new"));
    let write = || {
        let mut file = File::create(&new)?;
        writeln!(file, "godwit-store {version}")?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        sync_dir(data)
    };
    write().map_err(|e| io("cannot write", &path, &e))
}

/// First byte of every key: what kind of row it is.
pub(super) mod kind {
    /// The engine's own rows.
    pub(crate) const META: u8 = 0;
    /// `log ++ sequence`; sequence 0 is the head.
    pub(crate) const LOG: u8 = 1;
    /// `partition ++ name`.
    pub(crate) const ROWS: u8 = 2;
    /// `partition ++ element`.
    pub(crate) const SET: u8 = 3;
    /// `key`, nothing after it.
    pub(crate) const FACTS: u8 = 4;
}

/// Bytes of a partition's key before the partition itself: kind 1, table 2, length 2.
pub(super) const PKEY_HEAD: usize = 5;

/// The key of a partition: everything in it sorts together behind this prefix, and no partition's key is the prefix
/// of another's.
pub(super) fn pkey(kind: u8, table: u16, partition: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PKEY_HEAD + partition.len().min(MAX_PARTITION));
    push_pkey(&mut key, kind, table, partition);
    key
}

/// Appends the key of a partition and returns its length.
pub(super) fn push_pkey(out: &mut Vec<u8>, kind: u8, table: u16, partition: &[u8]) -> usize {
    let start = out.len();
    out.push(kind);
    out.extend_from_slice(&table.to_be_bytes());
    if partition.len() <= MAX_PARTITION {
        // At most MAX_PARTITION, which fits.
        out.extend_from_slice(&(partition.len() as u16).to_be_bytes());
        out.extend_from_slice(partition);
    } else {
        // Against the contract, but it must not break anything: no partition is listed, so its digest will do.
        out.extend_from_slice(&u16::MAX.to_be_bytes());
        out.extend_from_slice(&Sha256::digest(partition));
    }
    out.len() - start
}

pub(super) fn log_pkey(log: &LogId) -> Vec<u8> {
    pkey(kind::LOG, log.table.id, log.id.as_bytes())
}

pub(super) fn table_pkey(kind: u8, table: &Table, partition: &[u8]) -> Vec<u8> {
    pkey(kind, table.id, partition)
}

/// Longest partition that stands in keys as it is (the contract's bound).
const MAX_PARTITION: usize = 1024;

/// A name this long, and no other, is the beginning of a longer one and its digest; the tree's keys end at 65,535.
pub(super) const LONG_NAME: usize = 64_000;
const DIGEST: usize = 32;
const _: () = assert!(PKEY_HEAD + MAX_PARTITION + LONG_NAME < u16::MAX as usize);

/// The clustering key of a name: itself, unless it is too long for the tree.
pub(super) fn clustering(name: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if name.len() < LONG_NAME {
        return name.into();
    }
    let mut key = name[..LONG_NAME - DIGEST].to_vec();
    key.extend_from_slice(&Sha256::digest(name));
    key.into()
}

/// What stands before the value of a long name: its length and itself; nothing for others.
pub(super) fn long_name(name: &[u8]) -> Option<[u8; 4]> {
    (name.len() >= LONG_NAME).then(|| (name.len() as u32).to_le_bytes())
}

/// Takes the name and the value apart again.
pub(super) fn split_name(clustering: Bytes, mut value: Bytes) -> Option<(Bytes, Bytes)> {
    if clustering.len() != LONG_NAME {
        return Some((clustering, value));
    }
    let len = u32::from_le_bytes(value.get(..4)?.try_into().ok()?) as usize;
    if value.len() < 4 + len {
        return None;
    }
    let rest = value.split_off(4 + len);
    Some((value.slice(4..), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(data: &Path) -> Result<(), StoreError> {
        std::fs::write(data.join("stepped"), "").map_err(|e| io("cannot write", data, &e))
    }

    #[test]
    fn an_older_format_is_brought_up_step_by_step_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        write_format(dir.path(), 1).expect("written");
        bring_up_by(dir.path(), 1, 2, &[(1, step)]).expect("migrated");
        assert!(dir.path().join("stepped").exists());
        assert_eq!(found_format(dir.path()).expect("read"), Some(2));
        let refused = bring_up(dir.path(), 2).expect_err("newer");
        assert!(
            matches!(&refused, StoreError::Refused(why) if why.contains("newer program")),
            "{refused}"
        );
        assert!(bring_up_by(dir.path(), 0, 2, &[(1, step)]).is_err());
    }

    #[test]
    fn a_name_too_long_for_the_tree_comes_back_whole() {
        let name = vec![7u8; 65_536];
        let key = clustering(&name).into_owned();
        assert_eq!(key.len(), LONG_NAME);
        let value = [&long_name(&name).expect("long")[..], &name, b"v"].concat();
        let (back, value) = split_name(key.into(), value.into()).expect("whole");
        assert_eq!((&back[..], &value[..]), (&name[..], &b"v"[..]));
        assert_eq!(clustering(b"short").as_ref(), b"short");
    }
}
