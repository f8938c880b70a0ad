//! The file layer itself: what each file call does to the backing folder, and what of it a power loss would leave.
//! Knows no FUSE, so that it is tested without a mount. Reads and contents are here; changes of names in `tree`.
//!
//! Locks, in this order: the gate (shared by every call, held alone by a power loss), the tree, one file's content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde::Serialize;

use crate::faults::Faults;
use crate::loss::{self, Loss, Mode};
use crate::node::{Node, Nodes, ROOT, allocated};
use crate::pending::Pending;
use crate::rng::Rng;

/// The hidden folder in the backing folder where removed names wait for a directory sync.
pub(crate) const GRAVEYARD: &str = ".faultfs-graveyard";

/// Synced bytes kept in memory below unsynced changes; beyond it the file that grows them is taken as written back,
/// as a kernel short of memory does. Counted in the status as `aged`.
const HELD_MAX: u64 = 1 << 30;

/// When the names in a folder are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Names {
    /// When that folder was synced: what POSIX promises.
    #[default]
    Strict,
    /// When anything was synced after: what the journals of ext4 and XFS happen to do.
    Journal,
}

/// Files, names and counters of one served folder.
#[derive(Debug)]
pub struct Layer {
    pub(crate) names: Names,
    pub(crate) faults: Faults,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) counters: Counters,
    backing: PathBuf,
    gate: RwLock<()>,
    cut: AtomicBool,
    seed: u64,
}

#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Nodes,
    pub(crate) pending: Pending,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    writes: AtomicU64,
    bytes_written: AtomicU64,
    syncs: AtomicU64,
    pub(crate) dir_syncs: AtomicU64,
    bytes_synced: AtomicU64,
    held: AtomicU64,
    pub(crate) aged: AtomicU64,
    failed_writes: AtomicU64,
    failed_syncs: AtomicU64,
    losses: AtomicU64,
}

/// Counters since the start and what is unsynced now; sizes in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Write calls done.
    pub writes: u64,
    /// Bytes they carried.
    pub bytes_written: u64,
    /// File syncs done.
    pub syncs: u64,
    /// Folder syncs done.
    pub dir_syncs: u64,
    /// Bytes in 4 KiB pages that file syncs made durable.
    pub bytes_synced: u64,
    /// Files with unsynced content.
    pub unsynced_files: u64,
    /// 4 KiB pages with unsynced content.
    pub unsynced_pages: u64,
    /// Changes of names that no folder sync has covered.
    pub unsynced_names: u64,
    /// Memory that keeps the synced bytes below unsynced ones.
    pub held_bytes: u64,
    /// Files and names taken as written back because a bound of this layer was reached.
    pub aged: u64,
    /// Writes refused by order.
    pub failed_writes: u64,
    /// Syncs refused by order.
    pub failed_syncs: u64,
    /// Power losses so far.
    pub power_losses: u64,
    /// Bytes that the served files take.
    pub used_bytes: i64,
    /// Free bytes claimed by `space`, if any.
    pub claimed_free: Option<u64>,
    /// True between `cut` and `power-loss`.
    pub cut: bool,
    /// What is ordered to fail.
    pub faults: String,
    /// The seed of the mount.
    pub seed: u64,
}

/// Bytes and inodes of the disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

/// Proof that no power loss happens during a call.
pub(crate) type Entered<'a> = RwLockReadGuard<'a, ()>;

impl Layer {
    /// Opens a backing folder; whatever is found in it counts as synced.
    ///
    /// # Errors
    /// When the folder cannot be read, or is itself served by a layer whose graveyard cannot be cleared.
    pub fn open(backing: &Path, seed: u64, names: Names) -> io::Result<Self> {
        let backing = backing.canonicalize()?;
        let graveyard_path = backing.join(GRAVEYARD);
        match std::fs::remove_dir_all(&graveyard_path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => std::fs::create_dir(&graveyard_path)?,
        }
        let root = Arc::new(Node::with(ROOT, File::open(&backing)?)?);
        let graveyard = Arc::new(Node::with(0, File::open(&graveyard_path)?)?);
        let layer = Self {
            names,
            faults: Faults::default(),
            tree: RwLock::new(Tree {
                nodes: Nodes::new(root),
                pending: Pending::new(graveyard, graveyard_path),
            }),
            counters: Counters::default(),
            backing,
            gate: RwLock::new(()),
            cut: AtomicBool::new(false),
            seed,
        };
        layer.faults.set_used(used_below(&layer.backing)?);
        Ok(layer)
    }

    /// Every call of the program begins here.
    pub(crate) fn enter(&self) -> io::Result<Entered<'_>> {
        let entered = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if self.cut.load(Ordering::Acquire) {
            return Err(Errno::IO.into());
        }
        Ok(entered)
    }

    pub(crate) fn node(&self, id: u64) -> io::Result<Arc<Node>> {
        self.tree
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .nodes
            .get(id)
    }

    /// Refuses by order, or because the claimed disk has no `room` bytes left.
    pub(crate) fn may_change(&self, room: u64) -> io::Result<()> {
        match self.faults.write_error(room) {
            None => Ok(()),
            Some(errno) => {
                self.counters.failed_writes.fetch_add(1, Ordering::Relaxed);
                Err(errno.into())
            }
        }
    }

    pub(crate) fn read(&self, id: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let _entered = self.enter()?;
        let node = self.node(id)?;
        let mut done = 0;
        while done < buffer.len() {
            match node.file.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Writes; with `sync` (the file was opened O_SYNC or O_DSYNC) also syncs.
    pub(crate) fn write(&self, id: u64, offset: u64, data: &[u8], sync: bool) -> io::Result<()> {
        let _entered = self.enter()?;
        let node = self.node(id)?;
        self.change(&node, offset.saturating_add(data.len() as u64), |content| {
            content.write(&node.file, offset, data)
        })?;
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.counters
            .bytes_written
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        if sync { self.sync_node(&node) } else { Ok(()) }
    }

    pub(crate) fn truncate(&self, id: u64, size: u64) -> io::Result<()> {
        let _entered = self.enter()?;
        let node = self.node(id)?;
        self.change(&node, size, |content| content.truncate(&node.file, size))
    }

    pub(crate) fn fallocate(&self, id: u64, offset: u64, len: u64, mode: i32) -> io::Result<()> {
        let _entered = self.enter()?;
        let node = self.node(id)?;
        let flags = FallocateFlags::from_bits_truncate(mode as u32);
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if mode as u32 & !known.bits() != 0 {
            return Err(Errno::OPNOTSUPP.into());
        }
        let end = if flags.contains(FallocateFlags::PUNCH_HOLE) {
            0
        } else {
            offset.saturating_add(len)
        };
        self.change(&node, end, |content| {
            content.reshape(&node.file, offset, len, || {
                Ok(rustix::fs::fallocate(&node.file, flags, offset, len)?)
            })
        })
    }

    /// One change of a file's content that lets it reach `end`: refusals before, bookkeeping after.
    fn change(
        &self,
        node: &Node,
        end: u64,
        change: impl FnOnce(&mut crate::content::Content) -> io::Result<()>,
    ) -> io::Result<()> {
        if node.is_dir {
            return Err(Errno::ISDIR.into());
        }
        let mut content = node.content();
        self.may_change(end.saturating_sub(content.size().max(node.allocated.load(Ordering::Relaxed))))?;
        let held = content.held();
        let done = change(&mut content);
        self.held_changed(held, content.held());
        if self.counters.held.load(Ordering::Relaxed) > HELD_MAX {
            let held = content.held();
            content.sync();
            self.held_changed(held, content.held());
            self.counters.aged.fetch_add(1, Ordering::Relaxed);
        }
        let now = allocated(&node.stat()?);
        let before = node.allocated.swap(now, Ordering::Relaxed);
        self.faults.used_changed(now as i64 - before as i64);
        done
    }

    fn held_changed(&self, before: u64, now: u64) {
        // Two's complement: adding the difference modulo 2^64 also subtracts.
        self.counters
            .held
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    pub(crate) fn sync(&self, id: u64) -> io::Result<()> {
        let _entered = self.enter()?;
        self.sync_node(&*self.node(id)?)
    }

    fn sync_node(&self, node: &Node) -> io::Result<()> {
        let mut content = node.content();
        if let Some(failed) = self.faults.sync_error() {
            content.sync_failed(failed.forget);
            self.counters.failed_syncs.fetch_add(1, Ordering::Relaxed);
            return Err(failed.errno.into());
        }
        let (held, pages) = (content.held(), content.unsynced_pages());
        content.sync();
        self.held_changed(held, content.held());
        let synced = (pages - content.unsynced_pages()) * crate::content::PAGE;
        drop(content);
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_synced.fetch_add(synced, Ordering::Relaxed);
        if self.names == Names::Journal {
            self.sync_names(None)
        } else {
            Ok(())
        }
    }

    /// Size and room of the disk, as claimed or as they are.
    pub(crate) fn disk(&self) -> io::Result<Disk> {
        let stat = rustix::fs::statvfs(&self.backing)?;
        let (total, free) = self
            .faults
            .space()
            .unwrap_or((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize));
        Ok(Disk {
            total,
            free,
            files: stat.f_files,
            files_free: stat.f_ffree,
        })
    }

    /// For folder syncs: fails by order like a file's.
    pub(crate) fn may_sync(&self) -> io::Result<()> {
        match self.faults.sync_error() {
            None => Ok(()),
            Some(failed) => {
                self.counters.failed_syncs.fetch_add(1, Ordering::Relaxed);
                Err(failed.errno.into())
            }
        }
    }

    /// From now every call fails with EIO, until the power loss: nothing more can reach the disk.
    pub(crate) fn cut(&self) {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.cut.store(true, Ordering::Release);
    }

    /// The power goes and comes back: unsynced changes are lost as `mode` says, everything the program had open is
    /// stale (ESTALE), and the folder can be used again at once. Without a seed the mount's seed and the number of
    /// the loss give one.
    pub(crate) fn power_loss(&self, mode: Mode, seed: Option<u64>) -> io::Result<Loss> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let number = self.counters.losses.fetch_add(1, Ordering::Relaxed);
        let seed = seed.unwrap_or_else(|| Rng::new(self.seed.wrapping_add(number)).next_u64());
        let mut nodes: Vec<_> = tree.nodes.all().cloned().collect();
        nodes.sort_by_key(|node| node.id);
        let loss = loss::lose(&nodes, &mut tree.pending, mode, seed)?;
        tree.nodes.reset();
        drop(nodes);
        self.counters.held.store(0, Ordering::Relaxed);
        self.faults.set_used(used_below(&self.backing)?);
        self.cut.store(false, Ordering::Release);
        Ok(loss)
    }

    /// Everything is durable now, as after an orderly unmount.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let gone = tree.pending.sync_oldest(0)?;
        gone.into_iter().for_each(|real| tree.nodes.gone(real));
        for node in tree.nodes.all() {
            node.content().sync();
        }
        self.counters.held.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the graveyard: the backing folder is an ordinary one again.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.sync_all()?;
        std::fs::remove_dir_all(self.backing.join(GRAVEYARD))
    }

    /// Counters and what is unsynced.
    pub fn status(&self) -> Status {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let (mut files, mut pages) = (0, 0);
        for node in tree.nodes.all().filter(|node| !node.is_dir) {
            let content = node.content();
            files += u64::from(!content.is_synced());
            pages += content.unsynced_pages();
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        Status {
            writes: count(&c.writes),
            bytes_written: count(&c.bytes_written),
            syncs: count(&c.syncs),
            dir_syncs: count(&c.dir_syncs),
            bytes_synced: count(&c.bytes_synced),
            unsynced_files: files,
            unsynced_pages: pages,
            unsynced_names: tree.pending.len() as u64,
            held_bytes: count(&c.held),
            aged: count(&c.aged),
            failed_writes: count(&c.failed_writes),
            failed_syncs: count(&c.failed_syncs),
            power_losses: count(&c.losses),
            used_bytes: self.faults.used(),
            claimed_free: self.faults.space().map(|(_, free)| free),
            cut: self.cut.load(Ordering::Acquire),
            faults: self.faults.describe(),
            seed: self.seed,
        }
    }
}

/// Bytes that everything below a folder takes on its disk; a file with several names counts once.
fn used_below(folder: &Path) -> io::Result<i64> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::HashSet::new();
    let mut folders = vec![folder.to_owned()];
    let mut used = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else if seen.insert(meta.ino()) {
                used += meta.blocks() as i64 * 512;
            }
        }
    }
    Ok(used)
}
