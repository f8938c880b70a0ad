//! One file's bytes twice: as the program sees them (in the backing file) and as the disk would have them after a
//! power loss (the backing file with the pages kept here laid over it). No names, no FUSE, no locks.
//!
//! Only what a write, a truncation or a hole is about to change *below the synced size* is read and kept, once per
//! page and sync, so appending costs no memory and overwriting costs one 4 KiB read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::loss::Mode;
use crate::rng::Rng;

/// The unit in which synced bytes are kept.
pub(crate) const PAGE: u64 = 4096;
/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;
const PAGE_BYTES: usize = PAGE as usize;
const SECTORS: usize = PAGE_BYTES / SECTOR;

/// A page's bytes at the last sync: shorter than a page at the end of the synced file, empty beyond it.
#[derive(Debug)]
struct Synced {
    bytes: Box<[u8]>,
    /// A sync of these changes failed: like Linux we forget that the page is dirty, so that no later sync carries
    /// it, until it is written again.
    lost: bool,
}

/// What is known of one regular file since it was last wholly synced.
#[derive(Debug)]
pub(crate) struct Content {
    size: u64,
    synced_size: u64,
    pages: BTreeMap<u64, Synced>,
    /// Bytes held in `pages`.
    held: u64,
    /// The newest write that no sync has covered.
    last_write: Option<Write>,
}

/// Where a write began and ended, and the file's size before it.
#[derive(Debug, Clone, Copy)]
struct Write {
    start: u64,
    end: u64,
    size_before: u64,
}

/// What a power loss took from one file.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Taken {
    /// 512-byte sectors that went back to what was synced.
    pub(crate) sectors_dropped: u64,
    /// 512-byte sectors whose unsynced bytes stayed.
    pub(crate) sectors_kept: u64,
}

impl Content {
    /// A file found on the disk: all of it is synced.
    pub(crate) fn found(size: u64) -> Self {
        Self {
            size,
            synced_size: size,
            pages: BTreeMap::new(),
            held: 0,
            last_write: None,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.pages.is_empty() && self.size == self.synced_size
    }

    pub(crate) fn unsynced_pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Bytes of memory that the synced side takes.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn write(&mut self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = end_of(offset, data.len() as u64)?;
        self.touch(file, offset, end)?;
        file.write_all_at(data, offset)?;
        self.last_write = Some(Write {
            start: offset,
            end,
            size_before: self.size,
        });
        self.size = self.size.max(end);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, file: &File, size: u64) -> io::Result<()> {
        if size < self.size {
            self.touch(file, size, self.size.min(self.synced_size))?;
        }
        file.set_len(size)?;
        if size < self.size {
            self.last_write = None;
        }
        self.size = size;
        Ok(())
    }

    /// Preallocation, and holes or zeroes put into the middle, as `mode` says; `change` does it to the backing file.
    pub(crate) fn reshape(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        change: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let end = end_of(offset, len)?;
        self.touch(file, offset, end.min(self.synced_size))?;
        change()?;
        self.size = file.metadata()?.len();
        Ok(())
    }

    /// All that is written now survives a power loss, but for pages whose earlier sync failed.
    pub(crate) fn sync(&mut self) {
        self.pages.retain(|_, page| page.lost);
        self.held = self.pages.values().map(|page| page.bytes.len() as u64).sum();
        self.synced_size = self.size;
        self.last_write = None;
    }

    /// The sync failed: what it should have carried stays unsynced; with `forget` no later sync carries it either.
    pub(crate) fn sync_failed(&mut self, forget: bool) {
        if forget {
            self.pages.values_mut().for_each(|page| page.lost = true);
        }
    }

    /// Keeps the synced bytes of every page that `from..to` reaches, before they change.
    fn touch(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        for number in from / PAGE..=(to - 1) / PAGE {
            if let Some(page) = self.pages.get_mut(&number) {
                page.lost = false;
                continue;
            }
            let len = self.synced_size.saturating_sub(number * PAGE).min(PAGE) as usize;
            let mut bytes = vec![0; len].into_boxed_slice();
            read_padded(file, number * PAGE, &mut bytes)?;
            self.held += bytes.len() as u64;
            self.pages.insert(number, Synced { bytes, lost: false });
        }
        Ok(())
    }

    /// Rewrites the backing file as the disk would be found after the power went.
    pub(crate) fn lose(&mut self, file: &File, mode: Mode, rng: &mut Rng) -> io::Result<Taken> {
        let (images, size, taken) = match mode {
            Mode::Drop => self.images(file, self.synced_size, |_| 0)?,
            Mode::Torn => self.torn(file, rng)?,
            Mode::Partial => self.partial(file, rng)?,
        };
        file.set_len(size)?;
        for (number, bytes) in &images {
            let start = number * PAGE;
            let len = size.saturating_sub(start).min(PAGE) as usize;
            file.write_all_at(&bytes[..len], start)?;
        }
        *self = Self::found(size);
        Ok(taken)
    }

    /// A random subset of the sectors is there, and any of the lengths that a file system may then report.
    fn torn(&self, file: &File, rng: &mut Rng) -> io::Result<Images> {
        // Half of the disks tear at 4 KiB, half at 512 bytes.
        let whole_pages = rng.coin();
        let kept: BTreeMap<u64, u8> = self
            .pages
            .keys()
            .map(|&number| {
                let mask = if whole_pages {
                    if rng.coin() { u8::MAX } else { 0 }
                } else {
                    rng.next_u64() as u8
                };
                (number, mask)
            })
            .collect();
        let end_of_kept = kept
            .iter()
            .rev()
            .find(|(_, mask)| **mask != 0)
            .map_or(0, |(number, mask)| {
                number * PAGE + (8 - u64::from(mask.leading_zeros())) * SECTOR as u64
            });
        let size = match rng.below(3) {
            0 => self.synced_size,
            1 => self.size,
            _ => end_of_kept.clamp(self.synced_size.min(self.size), self.synced_size.max(self.size)),
        };
        self.images(file, size, |number| kept.get(&number).copied().unwrap_or(0))
    }

    /// All writes but the last are there, and of the last a prefix that ends at any byte.
    fn partial(&self, file: &File, rng: &mut Rng) -> io::Result<Images> {
        let Some(write) = self.last_write else {
            // Nothing was written since the sync; a truncation or a preallocation lands whole.
            return self.images(file, self.size, |number| self.keep_unless_lost(number));
        };
        let cut = write.start + rng.below(write.end - write.start);
        let made_the_end = write.end == self.size && write.end > write.size_before;
        let size = if made_the_end {
            write.size_before.max(cut)
        } else {
            self.size
        };
        let (mut images, size, mut taken) =
            self.images(file, size, |number| self.keep_unless_lost(number))?;
        for (number, image) in &mut images {
            let start = *number * PAGE;
            let from = cut.saturating_sub(start).min(PAGE) as usize;
            let to = write.end.saturating_sub(start).min(PAGE) as usize;
            if from >= to {
                continue;
            }
            let synced = self.synced_page(*number);
            image[from..to].copy_from_slice(&synced[from..to]);
            let sectors = (to.div_ceil(SECTOR) - from / SECTOR) as u64;
            taken.sectors_dropped += sectors;
            taken.sectors_kept = taken.sectors_kept.saturating_sub(sectors);
        }
        Ok((images, size, taken))
    }

    fn keep_unless_lost(&self, number: u64) -> u8 {
        if self.pages.get(&number).is_some_and(|page| page.lost) {
            0
        } else {
            u8::MAX
        }
    }

    /// Every touched page as it will be found, a sector from the program's side where its bit in `kept` is set, else
    /// from the synced side. Only sectors that differ are counted.
    fn images(&self, file: &File, size: u64, kept: impl Fn(u64) -> u8) -> io::Result<Images> {
        let mut taken = Taken::default();
        let mut images = Vec::with_capacity(self.pages.len());
        for &number in self.pages.keys() {
            let mask = kept(number);
            let mut image = vec![0; PAGE_BYTES].into_boxed_slice();
            read_padded(file, number * PAGE, &mut image)?;
            let synced = self.synced_page(number);
            for sector in 0..SECTORS {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                if image[range.clone()] == synced[range.clone()] {
                    continue;
                }
                if mask & (1 << sector) != 0 {
                    taken.sectors_kept += 1;
                } else {
                    taken.sectors_dropped += 1;
                    image[range.clone()].copy_from_slice(&synced[range]);
                }
            }
            images.push((number, image));
        }
        Ok((images, size, taken))
    }

    /// The synced bytes of a touched page, with zeroes beyond the synced end.
    fn synced_page(&self, number: u64) -> Box<[u8]> {
        let mut page = vec![0; PAGE_BYTES].into_boxed_slice();
        if let Some(synced) = self.pages.get(&number) {
            page[..synced.bytes.len()].copy_from_slice(&synced.bytes);
        }
        page
    }
}

/// Pages to write, the size of the file, and what that took away.
type Images = (Vec<(u64, Box<[u8]>)>, u64, Taken);

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    offset
        .checked_add(len)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or_else(|| io::Error::from(rustix::io::Errno::FBIG))
}

/// Reads what is there; the rest of the buffer stays zero.
fn read_padded(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
