//! Copies of a whole store: a backup while it serves, and the way back. Not here: when.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::RwLockWriteGuard;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::core::Core;
use super::journal;
use super::layout::{self, journal_dir, sync_dir, tree_dir};
use super::queue::SealRequest;
use crate::StoreError;

/// How long the committer may take to end the segment, and how often it is asked: it cannot while the overlay is full, which
/// only goes on when the tree is let go.
const SEAL_TIME: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 10;

fn make_empty(dir: &Path) -> Result<(), StoreError> {
    layout::make_dir(dir).map_err(|e| layout::io("cannot create", dir, &e))?;
    let used = std::fs::read_dir(dir)
        .map_err(|e| layout::io("cannot list", dir, &e))?
        .next()
        .is_some();
    if used {
        return Err(StoreError::Refused(format!(
            "{} is not empty; give an empty or new folder",
            dir.display()
        )));
    }
    Ok(())
}

/// Ends the segment with the tree held: from then on no file of the tree changes and no segment is deleted.
fn hold_sealed(core: &Core) -> Result<(RwLockWriteGuard<'_, ()>, u64), StoreError> {
    for _ in 0..ATTEMPTS {
        let held = core.tree.hold();
        let (answer, sealed) = sync_channel(1);
        if !core.queue.seal(SealRequest {
            only_if_used: false,
            answer,
        }) {
            return Err(StoreError::Unavailable("the store is closed".into()));
        }
        if let Ok(last) = sealed.recv_timeout(SEAL_TIME) {
            return Ok((held, last));
        }
        drop(held);
        std::thread::sleep(SEAL_TIME / 4);
    }
    Err(StoreError::Unavailable(
        "the journal does not come to an end; try again".into(),
    ))
}

/// Writes everything stored so far to `dir`. Loading and merging wait meanwhile, commits do not.
pub(super) fn backup(core: &Core, dir: &Path) -> Result<(), StoreError> {
    make_empty(dir)?;
    let (held, last) = hold_sealed(core)?;
    let copy = || -> io::Result<()> {
        copy_dir(&tree_dir(&core.data), &tree_dir(dir), true, &|_| true)?;
        let from = journal_dir(&core.data);
        let wanted = journal::list(&from)?;
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter(|n| *n <= last)
            .map(|n| journal::segment_path(&from, n))
            .collect();
        copy_dir(&from, &journal_dir(dir), true, &|p| wanted.iter().any(|w| w == p))?;
        sync_dir(dir)
    };
    copy().map_err(|e| layout::io("cannot write the backup to", dir, &e))?;
    drop(held);
    // Last, so that half a backup is never taken for one.
    layout::write_format(dir, layout::FORMAT)
}

/// Makes the data folder `data` (empty or absent) from a backup.
///
/// # Errors
/// If `backup` is none, or of a newer format, or `data` is in use; or the disk's.
pub fn restore(backup: &Path, data: &Path) -> Result<(), StoreError> {
    let Some(format) = layout::found_format(backup)? else {
        return Err(StoreError::Refused(format!(
            "{} is not a complete backup",
            backup.display()
        )));
    };
    if format > layout::FORMAT {
        layout::bring_up(backup, format)?;
    }
    make_empty(data)?;
    let copy = || -> io::Result<()> {
        copy_dir(&tree_dir(backup), &tree_dir(data), false, &|_| true)?;
        copy_dir(&journal_dir(backup), &journal_dir(data), false, &|_| true)?;
        sync_dir(data)
    };
    copy().map_err(|e| layout::io("cannot restore to", data, &e))?;
    layout::write_format(data, format)
}

/// Copies the files of a folder and of those in it; by hard link if that is allowed and works: no file of a store is ever
/// changed once it has its name.
fn copy_dir(from: &Path, to: &Path, link: bool, wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_dir(&source, &target, link, wanted)?;
        } else if wanted(&source) && !(link && std::fs::hard_link(&source, &target).is_ok()) {
            std::fs::copy(&source, &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    sync_dir(to)
}
