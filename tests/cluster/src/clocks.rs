//! Clocks of single nodes that can be set while they run: libfaketime in front of the system's clock of the calendar, and of no other: what measures
//! time (CLOCK_MONOTONIC, CLOCK_BOOTTIME) stays right, as on a machine whose clock is set. What is set when is the fault's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where packages put it, below /usr/lib and the machine's own folder there.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A node's clock.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

fn library() -> Result<PathBuf> {
    let machines = std::fs::read_dir("/usr/lib")?.flatten();
    machines
        .map(|entry| entry.path().join(LIBRARY))
        .chain([Path::new("/usr/lib").join(LIBRARY)])
        .find(|path| path.is_file())
        .context("libfaketime is needed: please install faketime")
}

impl Clock {
    /// One that is right; what it is set to stands in this file.
    ///
    /// # Errors
    /// Without libfaketime.
    pub fn new(file: PathBuf) -> Result<Self> {
        let made = Self {
            file,
            library: library()?,
        };
        made.set(0)?;
        Ok(made)
    }

    /// The environment of a process that goes by it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // The file is looked at once a second.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Sets it so far from the right time; the process sees it within a second.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, millis: i64) -> Result<()> {
        let seconds = millis.unsigned_abs();
        let sign = if millis < 0 { '-' } else { '+' };
        let text = format!("{sign}{}.{:03}\n", seconds / 1_000, seconds % 1_000);
        // All at once: half of a number is another one.
        let new = self.file.with_extension("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, &self.file)?)
    }
}
