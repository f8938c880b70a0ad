//! The tests' hand on the journal's disk calls. The product uses [`NoFaults`].

use std::io;

/// Consulted before each disk call of the journal.
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
    /// Before a bulk load of the tree.
    fn ingest(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Nothing goes wrong but what the disk itself does.
#[derive(Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {}
