//! A file or a folder that the kernel knows by number, with the open backing file behind it, and the table of them.
//! Numbers are never used twice in the life of a mount, so after a power loss nothing the kernel cached under an
//! old number can show through. No policy: what may change, and what survives, is decided elsewhere.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use crate::content::Content;

/// The kernel's number of the mounted folder itself.
pub(crate) const ROOT: u64 = 1;

/// One file or folder.
#[derive(Debug)]
pub(crate) struct Node {
    /// The kernel's number.
    pub(crate) id: u64,
    /// The inode in the backing folder.
    pub(crate) real: u64,
    pub(crate) is_dir: bool,
    /// Open for reading and writing (a folder: for reading).
    pub(crate) file: File,
    /// How often the kernel was told of it without forgetting it; changed under the tree's lock.
    pub(crate) lookups: AtomicU64,
    /// Names it has in the graveyard, which the program must not see counted.
    pub(crate) buried: AtomicU64,
    content: Mutex<Content>,
    /// Bytes on the backing disk when last looked.
    pub(crate) allocated: AtomicU64,
}

impl Node {
    pub(crate) fn open(id: u64, dir: impl AsFd, name: &OsStr, stat: &Stat) -> io::Result<Self> {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let how = if is_dir {
            OFlags::RDONLY | OFlags::DIRECTORY
        } else {
            OFlags::RDWR
        };
        let file = openat(dir, name, how | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Self::with(id, file.into())
    }

    pub(crate) fn with(id: u64, file: File) -> io::Result<Self> {
        let stat = fstat(&file)?;
        Ok(Self {
            id,
            real: stat.st_ino,
            is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            file,
            lookups: AtomicU64::new(0),
            buried: AtomicU64::new(0),
            content: Mutex::new(Content::found(u64::try_from(stat.st_size).unwrap_or(0))),
            allocated: AtomicU64::new(allocated(&stat)),
        })
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.file)?)
    }
}

/// Bytes that an inode takes on its disk.
pub(crate) fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

/// All nodes by the kernel's number and by inode.
#[derive(Debug)]
pub(crate) struct Nodes {
    by_id: HashMap<u64, Arc<Node>>,
    by_real: HashMap<u64, u64>,
    next: u64,
}

impl Nodes {
    pub(crate) fn new(root: Arc<Node>) -> Self {
        let mut nodes = Self {
            by_id: HashMap::new(),
            by_real: HashMap::new(),
            next: ROOT + 1,
        };
        nodes.insert(root);
        nodes
    }

    fn insert(&mut self, node: Arc<Node>) {
        self.by_real.insert(node.real, node.id);
        self.by_id.insert(node.id, node);
    }

    pub(crate) fn get(&self, id: u64) -> io::Result<Arc<Node>> {
        self.by_id.get(&id).cloned().ok_or_else(|| Errno::STALE.into())
    }

    pub(crate) fn by_real(&self, real: u64) -> Option<Arc<Node>> {
        self.by_id.get(self.by_real.get(&real)?).cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.by_id.values()
    }

    /// The node of a name in the backing folder, opened if it is not yet known. Only files and folders are served.
    pub(crate) fn find(&mut self, dir: &Node, name: &OsStr) -> io::Result<Arc<Node>> {
        let stat = statat(&dir.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if let Some(node) = self.by_real(stat.st_ino) {
            return Ok(node);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => {}
            _ => return Err(Errno::OPNOTSUPP.into()),
        }
        let node = Arc::new(Node::open(self.next, &dir.file, name, &stat)?);
        self.next += 1;
        self.insert(Arc::clone(&node));
        Ok(node)
    }

    /// A file just made, already open.
    pub(crate) fn adopt(&mut self, file: File, content: Content) -> io::Result<Arc<Node>> {
        let mut node = Node::with(self.next, file)?;
        node.content = Mutex::new(content);
        node.allocated = AtomicU64::new(0);
        let node = Arc::new(node);
        self.next += 1;
        self.insert(Arc::clone(&node));
        Ok(node)
    }

    /// The kernel forgot it `times` times; it stays while it has a name and anything unsynced.
    pub(crate) fn forget(&mut self, id: u64, times: u64) {
        if let Some(node) = self.by_id.get(&id) {
            let left = node.lookups.load(Ordering::Relaxed).saturating_sub(times);
            node.lookups.store(left, Ordering::Relaxed);
            let done = |node: &Node| {
                node.is_dir || node.content().is_synced() || node.stat().is_ok_and(|s| s.st_nlink == 0)
            };
            if left == 0 && id != ROOT && done(node) {
                self.remove(id);
            }
        }
    }

    /// Its last name is durably gone.
    pub(crate) fn gone(&mut self, real: u64) {
        if let Some(node) = self.by_real(real) {
            let buried = node.buried.load(Ordering::Relaxed).saturating_sub(1);
            node.buried.store(buried, Ordering::Relaxed);
            if node.lookups.load(Ordering::Relaxed) == 0 && node.stat().is_ok_and(|s| s.st_nlink == 0) {
                self.remove(node.id);
            }
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(node) = self.by_id.remove(&id) {
            self.by_real.remove(&node.real);
        }
    }

    /// Forgets all but the folder itself; numbers go on from where they were.
    pub(crate) fn reset(&mut self) {
        let root = self.by_id.remove(&ROOT);
        self.by_id.clear();
        self.by_real.clear();
        if let Some(root) = root {
            self.insert(root);
        }
    }
}
