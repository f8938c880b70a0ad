//! The kernel's calls turned into calls on the layer, and its answers into the kernel's. No decisions: what is not
//! answered here (extended attributes, flush, access, locks, ioctl) is refused once as unknown, after which the
//! kernel does it alone or stops asking, locks among them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{FileTimes, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use rustix::fs::{Gid, OFlags, Uid};

use crate::layer::Layer;
use crate::node::Node;
use crate::tree::Listed;

/// Attributes may be cached: all changes come through this mount, and numbers die with a power loss.
const ATTRIBUTES_FOR: Duration = Duration::from_secs(1);
/// Names may not: a power loss changes them behind the kernel's back.
const NAMES_FOR: Duration = Duration::ZERO;
/// The unit in which `statfs` counts.
const BLOCK: u64 = 4096;

/// The served file system.
#[derive(Debug)]
pub(crate) struct Fuse {
    layer: Arc<Layer>,
    /// Listings of open folders; the kernel bounds them by the program's open files.
    listings: Mutex<HashMap<u64, Arc<Vec<Listed>>>>,
    next_listing: AtomicU64,
}

impl Fuse {
    pub(crate) fn new(layer: Arc<Layer>) -> Self {
        Self {
            layer,
            listings: Mutex::new(HashMap::new()),
            next_listing: AtomicU64::new(1),
        }
    }

    fn listings(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Vec<Listed>>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self, req: &Request, node: &Node) -> io::Result<FileAttr> {
        let owner = (req.uid(), req.gid());
        if owner != (0, 0) {
            rustix::fs::fchown(
                &node.file,
                Some(Uid::from_raw(owner.0)),
                Some(Gid::from_raw(owner.1)),
            )?;
        }
        attributes(node)
    }

    #[allow(clippy::too_many_arguments)] // as the kernel's call has them
    fn set_attributes(
        &self,
        id: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
    ) -> io::Result<FileAttr> {
        if let Some(size) = size {
            self.layer.truncate(id, size)?;
        }
        let _entered = self.layer.enter()?;
        let node = self.layer.node(id)?;
        if let Some(mode) = mode {
            node.file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
        }
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(&node.file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
        }
        let mut times = FileTimes::new();
        if let Some(time) = accessed {
            times = times.set_accessed(moment(time));
        }
        if let Some(time) = modified {
            times = times.set_modified(moment(time));
        }
        if accessed.is_some() || modified.is_some() {
            node.file.set_times(times)?;
        }
        attributes(&node)
    }
}

fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn attributes(node: &Node) -> io::Result<FileAttr> {
    let stat = node.stat()?;
    let time = |seconds: i64, nanos: u64| {
        SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or(0), nanos as u32)
    };
    let names = u64::from(stat.st_nlink as u32).saturating_sub(node.buried.load(Ordering::Relaxed));
    Ok(FileAttr {
        ino: INodeNo(node.id),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: SystemTime::UNIX_EPOCH,
        kind: if node.is_dir {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: if node.is_dir {
            stat.st_nlink as u32
        } else {
            names as u32
        },
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    })
}

fn answer(done: io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(Errno::from(e)),
    }
}

fn answer_entry(done: io::Result<FileAttr>, reply: ReplyEntry) {
    match done {
        Ok(attr) => reply.entry_with_ttls(&ATTRIBUTES_FOR, &NAMES_FOR, &attr, Generation(0)),
        Err(e) => reply.error(Errno::from(e)),
    }
}

fn answer_attributes(done: io::Result<FileAttr>, reply: ReplyAttr) {
    match done {
        Ok(attr) => reply.attr(&ATTRIBUTES_FOR, &attr),
        Err(e) => reply.error(Errno::from(e)),
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // No write-back cache: a write that returned must be known here, synced or not.
        for wish in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ] {
            // An older kernel without it only serves slower.
            let _ = config.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(
            self.layer
                .lookup(parent.0, name)
                .and_then(|node| attributes(&node)),
            reply,
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.layer.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let done = self
            .layer
            .enter()
            .and_then(|_entered| attributes(&*self.layer.node(ino.0)?));
        answer_attributes(done, reply);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer_attributes(
            self.set_attributes(ino.0, mode, uid, gid, size, atime, mtime),
            reply,
        );
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let done = self
            .layer
            .mkdir(parent.0, name, mode & !umask)
            .and_then(|node| self.made(req, &node));
        answer_entry(done, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.layer.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.layer.remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        answer(
            self.layer
                .rename((parent.0, name), (newparent.0, newname), no_replace),
            reply,
        );
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let done = self
            .layer
            .link(ino.0, newparent.0, newname)
            .and_then(|node| attributes(&node));
        answer_entry(done, reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.layer.enter().and_then(|_entered| self.layer.node(ino.0)) {
            // What is cached under this number is right for as long as the number lives.
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buffer = vec![0; size as usize];
        match self.layer.read(ino.0, offset, &mut buffer) {
            Ok(len) => reply.data(&buffer[..len]),
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let sync = OFlags::from_bits_retain(flags.0 as u32).intersects(OFlags::SYNC | OFlags::DSYNC);
        match self.layer.write(ino.0, offset, data, sync) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(self.layer.sync(ino.0), reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.layer.list(ino.0) {
            Ok(listed) => {
                let handle = self.next_listing.fetch_add(1, Ordering::Relaxed);
                self.listings().insert(handle, Arc::new(listed));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(listed) = self.listings().get(&fh.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        for (index, entry) in listed
            .iter()
            .enumerate()
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        {
            let kind = if entry.is_dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(entry.real), index as u64 + 1, kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings().remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(self.layer.sync_dir(ino.0), reply);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.layer.disk() {
            Ok(disk) => reply.statfs(
                disk.total / BLOCK,
                disk.free / BLOCK,
                disk.free / BLOCK,
                disk.files,
                disk.files_free,
                BLOCK as u32,
                255,
                BLOCK as u32,
            ),
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let exclusive = OFlags::from_bits_retain(flags as u32).contains(OFlags::EXCL);
        let done = self
            .layer
            .create(parent.0, name, mode & !umask, exclusive)
            .and_then(|node| self.made(req, &node));
        match done {
            // The kernel keeps one time for name and attributes here, so the name's.
            Ok(attr) => {
                reply.created(
                    &NAMES_FOR,
                    &attr,
                    Generation(0),
                    FileHandle(0),
                    FopenFlags::FOPEN_KEEP_CACHE,
                );
            }
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(self.layer.fallocate(ino.0, offset, length, mode), reply);
    }
}
