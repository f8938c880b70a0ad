//! Changes of names (create, link, unlink, rename, mkdir, rmdir) that no directory sync has covered yet, in order,
//! each with what undoes it. The backing folder shows the program's side; what a pending change removed waits in a
//! hidden graveyard folder. Knows nothing of file contents.
//!
//! Which changes a sync of directory X makes durable: all pending ones that touch a name in X; every earlier one
//! that touches a name of one of those, or that emptied a folder one of those removed; and, for a rename between two directories, what gave the directories on
//! the way to the new name their place (a journal never loses a file that was only moved). Each change is atomic.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, unlinkat};

use crate::node::Node;

/// At most so many changes wait for a directory sync; beyond that the oldest half is taken as written back, as a
/// kernel does after some seconds. Each holds up to two open directories, and a sync walks them all.
pub(crate) const PENDING_MAX: usize = 8_192;

/// A directory and a name in it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) dir: Arc<Node>,
    pub(crate) name: OsString,
}

impl Place {
    pub(crate) fn new(dir: &Arc<Node>, name: &OsStr) -> Self {
        Self {
            dir: Arc::clone(dir),
            name: name.to_owned(),
        }
    }

    fn move_to(&self, other: &Place) -> io::Result<()> {
        Ok(rustix::fs::renameat(
            &self.dir.file,
            &self.name,
            &other.dir.file,
            &other.name,
        )?)
    }
}

/// Something that lost its name and waits in the graveyard.
#[derive(Debug, Clone)]
pub(crate) struct Buried {
    name: OsString,
    /// Its inode in the backing folder.
    pub(crate) real: u64,
}

/// One change of names and how to undo it.
#[derive(Debug)]
pub(crate) enum Change {
    /// A file or a directory got this name.
    Added { place: Place, directory: Option<u64> },
    /// This name went; what had it is buried.
    Removed { place: Place, buried: Buried },
    /// A name moved, over what is buried if there was one.
    Moved {
        from: Place,
        to: Place,
        directory: Option<u64>,
        buried: Option<Buried>,
    },
}

impl Change {
    fn places(&self) -> impl Iterator<Item = &Place> {
        let (first, second) = match self {
            Change::Added { place, .. } | Change::Removed { place, .. } => (place, None),
            Change::Moved { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    /// The directory that got its place by this change.
    fn placed(&self) -> Option<u64> {
        match self {
            Change::Added { directory, .. } | Change::Moved { directory, .. } => *directory,
            Change::Removed { .. } => None,
        }
    }

    fn buried(&self) -> Option<&Buried> {
        match self {
            Change::Added { .. } => None,
            Change::Removed { buried, .. } => Some(buried),
            Change::Moved { buried, .. } => buried.as_ref(),
        }
    }
}

/// The pending changes, oldest first, and the graveyard.
#[derive(Debug)]
pub(crate) struct Pending {
    log: BTreeMap<u64, Change>,
    next: u64,
    graveyard: Arc<Node>,
    graveyard_path: PathBuf,
}

impl Pending {
    pub(crate) fn new(graveyard: Arc<Node>, graveyard_path: PathBuf) -> Self {
        Self {
            log: BTreeMap::new(),
            next: 0,
            graveyard,
            graveyard_path,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.log.len()
    }

    pub(crate) fn push(&mut self, change: Change) {
        self.next += 1;
        self.log.insert(self.next, change);
    }

    /// Moves what has this name into the graveyard.
    pub(crate) fn bury(&mut self, place: &Place, real: u64) -> io::Result<Buried> {
        self.next += 1;
        let grave = self.grave(self.next.to_string().into());
        place.move_to(&grave)?;
        Ok(Buried {
            name: grave.name,
            real,
        })
    }

    /// Gives it the name back.
    pub(crate) fn unbury(&self, buried: &Buried, place: &Place) -> io::Result<()> {
        self.grave(buried.name.clone()).move_to(place)
    }

    fn grave(&self, name: OsString) -> Place {
        Place {
            dir: Arc::clone(&self.graveyard),
            name,
        }
    }

    /// A sync of the directory with this inode: returns the inodes that are gone for good.
    pub(crate) fn sync(&mut self, directory: u64) -> io::Result<Vec<u64>> {
        let mut chosen = Vec::new();
        let mut names: HashSet<(u64, OsString)> = HashSet::new();
        let mut needed: HashSet<u64> = HashSet::new();
        let mut directories = HashSet::from([directory]);
        for (&number, change) in self.log.iter().rev() {
            let by_place = change.placed().is_some_and(|placed| needed.contains(&placed));
            let by_name = change.places().any(|place| {
                directories.contains(&place.dir.real)
                    || (!names.is_empty() && names.contains(&(place.dir.real, place.name.clone())))
            });
            if !by_place && !by_name {
                continue;
            }
            chosen.push(number);
            names.extend(change.places().map(|place| (place.dir.real, place.name.clone())));
            // A removed folder was empty, so what emptied it happened before.
            directories.extend(change.buried().map(|buried| buried.real));
            if let Change::Moved { from, to, .. } = change
                && from.dir.real != to.dir.real
            {
                needed.insert(to.dir.real);
            }
            if by_place {
                needed.extend(change.places().map(|place| place.dir.real));
            }
        }
        chosen.reverse();
        self.land(&chosen)
    }

    /// Everything pending, or all but the newest `keep`, is durable now: returns the inodes that are gone for good.
    pub(crate) fn sync_oldest(&mut self, keep: usize) -> io::Result<Vec<u64>> {
        let count = self.log.len().saturating_sub(keep);
        let chosen: Vec<u64> = self.log.keys().take(count).copied().collect();
        self.land(&chosen)
    }

    fn land(&mut self, chosen: &[u64]) -> io::Result<Vec<u64>> {
        let mut gone = Vec::new();
        for number in chosen {
            let Some(change) = self.log.remove(number) else {
                continue;
            };
            if let Some(buried) = change.buried() {
                self.dispose(buried)?;
                gone.push(buried.real);
            }
        }
        Ok(gone)
    }

    fn dispose(&self, buried: &Buried) -> io::Result<()> {
        match unlinkat(&self.graveyard.file, &buried.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::ISDIR) => std::fs::remove_dir_all(self.graveyard_path.join(&buried.name)),
            Err(e) => Err(e.into()),
        }
    }

    /// The power is gone: the first `landed` pending changes are on the disk, the others never happened.
    pub(crate) fn lose(&mut self, landed: usize) -> io::Result<usize> {
        let first: Vec<u64> = self.log.keys().take(landed).copied().collect();
        self.land(&first)?;
        let lost = self.log.len();
        while let Some((_, change)) = self.log.pop_last() {
            self.undo(change).map_err(|e| {
                io::Error::new(
                    e.kind(),
                    format!("a change of names could not be taken back: {e}"),
                )
            })?;
        }
        Ok(lost)
    }

    fn undo(&mut self, change: Change) -> io::Result<()> {
        match change {
            Change::Added {
                place,
                directory: None,
            } => Ok(unlinkat(&place.dir.file, &place.name, AtFlags::empty())?),
            Change::Added {
                place,
                directory: Some(real),
            } => {
                // What was made inside it and synced goes with it: nothing durable leads there.
                let buried = self.bury(&place, real)?;
                self.dispose(&buried)
            }
            Change::Removed { place, buried } => self.unbury(&buried, &place),
            Change::Moved { from, to, buried, .. } => {
                to.move_to(&from)?;
                buried.map_or(Ok(()), |buried| self.unbury(&buried, &to))
            }
        }
    }
}
