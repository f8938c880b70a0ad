//! Changes of names on the layer: lookup, create, link, rename, remove, list, and the sync of a folder. Each is done
//! in the backing folder at once and remembered as pending until its folder is synced.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, mkdirat, openat, statat};
use rustix::io::Errno;

use crate::content::{Content, PAGE};
use crate::layer::{GRAVEYARD, Layer, Tree};
use crate::node::{Node, ROOT};
use crate::pending::{Change, PENDING_MAX, Place};

/// A name in a folder as `readdir` tells it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: OsString,
    pub(crate) real: u64,
    pub(crate) is_dir: bool,
}

impl Layer {
    fn tree_alone(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> io::Result<Arc<Node>> {
        let _entered = self.enter()?;
        not_hidden(parent, name)?;
        let mut tree = self.tree_alone();
        let dir = tree.nodes.get(parent)?;
        let node = tree.nodes.find(&dir, name)?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(node)
    }

    pub(crate) fn forget(&self, id: u64, times: u64) {
        self.tree_alone().nodes.forget(id, times);
    }

    /// Makes and opens a file; an existing one is opened unless `exclusive`.
    pub(crate) fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        exclusive: bool,
    ) -> io::Result<Arc<Node>> {
        let _entered = self.enter()?;
        not_hidden(parent, name)?;
        self.may_change(PAGE)?;
        let mut tree = self.tree_alone();
        let dir = tree.nodes.get(parent)?;
        let how = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = match openat(&dir.file, name, how, Mode::from_raw_mode(mode & 0o7777)) {
            Ok(file) => {
                let node = tree.nodes.adopt(File::from(file), Content::found(0))?;
                self.remember(
                    &mut tree,
                    Change::Added {
                        place: Place::new(&dir, name),
                        directory: None,
                    },
                )?;
                node
            }
            Err(Errno::EXIST) if !exclusive => tree.nodes.find(&dir, name)?,
            Err(e) => return Err(e.into()),
        };
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(node)
    }

    pub(crate) fn mkdir(&self, parent: u64, name: &OsStr, mode: u32) -> io::Result<Arc<Node>> {
        let _entered = self.enter()?;
        not_hidden(parent, name)?;
        self.may_change(PAGE)?;
        let mut tree = self.tree_alone();
        let dir = tree.nodes.get(parent)?;
        mkdirat(&dir.file, name, Mode::from_raw_mode(mode & 0o7777))?;
        let node = tree.nodes.find(&dir, name)?;
        let directory = Some(node.real);
        self.remember(
            &mut tree,
            Change::Added {
                place: Place::new(&dir, name),
                directory,
            },
        )?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(node)
    }

    pub(crate) fn link(&self, id: u64, parent: u64, name: &OsStr) -> io::Result<Arc<Node>> {
        let _entered = self.enter()?;
        not_hidden(parent, name)?;
        self.may_change(0)?;
        let mut tree = self.tree_alone();
        let (node, dir) = (tree.nodes.get(id)?, tree.nodes.get(parent)?);
        if node.is_dir {
            return Err(Errno::PERM.into());
        }
        // By the descriptor: the file may have been renamed since the kernel looked it up.
        let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&node.file));
        rustix::fs::linkat(rustix::fs::CWD, source, &dir.file, name, AtFlags::SYMLINK_FOLLOW)?;
        self.remember(
            &mut tree,
            Change::Added {
                place: Place::new(&dir, name),
                directory: None,
            },
        )?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(node)
    }

    /// Removes a file's name, or with `folder` an empty folder.
    pub(crate) fn remove(&self, parent: u64, name: &OsStr, folder: bool) -> io::Result<()> {
        let _entered = self.enter()?;
        not_hidden(parent, name)?;
        let mut tree = self.tree_alone();
        let dir = tree.nodes.get(parent)?;
        let node = tree.nodes.find(&dir, name)?;
        match (folder, node.is_dir) {
            (true, false) => return Err(Errno::NOTDIR.into()),
            (false, true) => return Err(Errno::ISDIR.into()),
            (true, true) => must_be_empty(&node)?,
            (false, false) => {}
        }
        let place = Place::new(&dir, name);
        let buried = tree.pending.bury(&place, node.real)?;
        self.buried(&node)?;
        self.remember(&mut tree, Change::Removed { place, buried })
    }

    /// Renames, over what has the new name unless `no_replace`.
    pub(crate) fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), no_replace: bool) -> io::Result<()> {
        let _entered = self.enter()?;
        not_hidden(from.0, from.1)?;
        not_hidden(to.0, to.1)?;
        let mut tree = self.tree_alone();
        let (from, to) = (
            Place {
                dir: tree.nodes.get(from.0)?,
                name: from.1.to_owned(),
            },
            Place {
                dir: tree.nodes.get(to.0)?,
                name: to.1.to_owned(),
            },
        );
        let node = tree.nodes.find(&from.dir, &from.name)?;
        let target = match tree.nodes.find(&to.dir, &to.name) {
            Ok(target) => Some(target),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let mut buried = None;
        if let Some(target) = &target {
            if no_replace {
                return Err(Errno::EXIST.into());
            }
            match (node.is_dir, target.is_dir) {
                _ if target.real == node.real => return Ok(()),
                (true, false) => return Err(Errno::NOTDIR.into()),
                (false, true) => return Err(Errno::ISDIR.into()),
                (true, true) => must_be_empty(target)?,
                (false, false) => {}
            }
            buried = Some(tree.pending.bury(&to, target.real)?);
        }
        if let Err(e) = rustix::fs::renameat(&from.dir.file, &from.name, &to.dir.file, &to.name) {
            if let Some(buried) = &buried {
                tree.pending.unbury(buried, &to)?;
            }
            return Err(e.into());
        }
        if let Some(target) = &target {
            self.buried(target)?;
        }
        let directory = node.is_dir.then_some(node.real);
        self.remember(
            &mut tree,
            Change::Moved {
                from,
                to,
                directory,
                buried,
            },
        )
    }

    pub(crate) fn list(&self, id: u64) -> io::Result<Vec<Listed>> {
        let _entered = self.enter()?;
        let tree = self.tree_alone();
        let node = tree.nodes.get(id)?;
        let mut listed = Vec::new();
        for entry in rustix::fs::Dir::read_from(&node.file)? {
            let entry = entry?;
            let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(entry.file_name().to_bytes());
            if not_hidden(id, name).is_err() {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => {
                    let stat = statat(&node.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode as RawMode) == FileType::Directory
                }
                kind => kind == FileType::Directory,
            };
            listed.push(Listed {
                name: name.to_owned(),
                real: entry.ino(),
                is_dir,
            });
        }
        Ok(listed)
    }

    pub(crate) fn sync_dir(&self, id: u64) -> io::Result<()> {
        let _entered = self.enter()?;
        let node = self.node(id)?;
        self.may_sync()?;
        self.counters.dir_syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_names((self.names == crate::Names::Strict).then_some(node.real))
    }

    /// Makes the pending names of one folder durable, or all.
    pub(crate) fn sync_names(&self, folder: Option<u64>) -> io::Result<()> {
        let mut tree = self.tree_alone();
        if tree.pending.len() == 0 {
            return Ok(());
        }
        let gone = match folder {
            Some(real) => tree.pending.sync(real)?,
            None => tree.pending.sync_oldest(0)?,
        };
        gone.into_iter().for_each(|real| tree.nodes.gone(real));
        Ok(())
    }

    fn remember(&self, tree: &mut Tree, change: Change) -> io::Result<()> {
        tree.pending.push(change);
        if tree.pending.len() > PENDING_MAX {
            let gone = tree.pending.sync_oldest(PENDING_MAX / 2)?;
            gone.into_iter().for_each(|real| tree.nodes.gone(real));
            self.counters
                .aged
                .fetch_add((PENDING_MAX / 2) as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A name of this node went to the graveyard: the program sees one name less, and with the last its room.
    fn buried(&self, node: &Node) -> io::Result<()> {
        let buried = node.buried.fetch_add(1, Ordering::Relaxed) + 1;
        if !node.is_dir && node.stat()?.st_nlink <= buried {
            let freed = node.allocated.swap(0, Ordering::Relaxed);
            self.faults.used_changed(-(freed as i64));
        }
        Ok(())
    }
}

fn not_hidden(parent: u64, name: &OsStr) -> io::Result<()> {
    if parent == ROOT && name == GRAVEYARD {
        Err(Errno::NOENT.into())
    } else {
        Ok(())
    }
}

fn must_be_empty(folder: &Node) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(&folder.file)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Err(Errno::NOTEMPTY.into());
        }
    }
    Ok(())
}
