//! The tests' hand on the engine's disk calls. The product uses [`NoFaults`].

use std::io;

/// Consulted before the disk calls of the journal, and before the larger ones of the tree.
pub trait Faults: Send + Sync {
    /// Before a file is created.
    fn create(&self) -> io::Result<()> {
        Ok(())
    }
    /// Before `len` bytes are written; with an error, how many of them are written all the same.
    fn write(&self, _len: usize) -> Result<(), (usize, io::Error)> {
        Ok(())
    }
    /// Before a sync.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    /// A bug that is to be in this engine.
    #[cfg(feature = "planted-bugs")]
    fn planted(&self) -> Option<Planted> {
        None
    }
    /// Before a bulk load of the tree.
    fn ingest(&self) -> io::Result<()> {
        Ok(())
    }
    /// Before the tree's runs are looked at for a merge.
    fn merge(&self) -> io::Result<()> {
        Ok(())
    }
    /// Before the committer reads what a write rests on.
    fn look_up(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bugs that the kill tests must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Records are written and never synced.
    NoSync,
    /// `Stored` is said before the record is written.
    EarlyAck,
}

#[cfg(feature = "planted-bugs")]
impl Faults for Planted {
    fn planted(&self) -> Option<Planted> {
        Some(*self)
    }
}

/// Whether this bug is to be there; without the feature never, and the compiler drops it.
pub(super) fn is_planted(_faults: &dyn Faults, _bug: Planted) -> bool {
    #[cfg(feature = "planted-bugs")]
    return _faults.planted() == Some(_bug);
    #[cfg(not(feature = "planted-bugs"))]
    false
}

/// Nothing goes wrong but what the disk itself does.
#[derive(Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {}
