//! What a power loss does to everything at once: contents and names, by one seed. The rules for one file are in
//! `content`, those for names in `pending`.

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::node::Node;
use crate::pending::Pending;
use crate::rng::Rng;

/// How much of what was not synced is found after the power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing.
    Drop,
    /// Of every file a random subset of the unsynced sectors (512 bytes, or 4 KiB, by chance); of the changes of
    /// names the first few, by chance.
    Torn,
    /// Of every file all unsynced writes but the last, and of that a prefix that ends at any byte, never the whole;
    /// of the changes of names the first few, by chance.
    Partial,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "drop" => Ok(Mode::Drop),
            "torn" => Ok(Mode::Torn),
            "partial" => Ok(Mode::Partial),
            _ => Err(format!("`{word}` is none of drop, torn, partial")),
        }
    }
}

/// What a power loss took. Sectors are of 512 bytes and only those that differed from their synced content count.
#[derive(Debug, Clone, Serialize)]
pub struct Loss {
    /// How.
    pub mode: Mode,
    /// The seed that repeats it on the same state.
    pub seed: u64,
    /// Files that had unsynced changes.
    pub files: u64,
    /// Unsynced sectors that are gone.
    pub sectors_dropped: u64,
    /// Unsynced sectors that are there all the same.
    pub sectors_kept: u64,
    /// Creates, renames, links and removals that never happened.
    pub names_dropped: u64,
    /// Those that were not synced and are there all the same.
    pub names_kept: u64,
}

/// Brings contents and names to what a disk would show. The nodes are stale afterwards.
pub(crate) fn lose(nodes: &[Arc<Node>], names: &mut Pending, mode: Mode, seed: u64) -> io::Result<Loss> {
    let mut rng = Rng::new(seed);
    let mut loss = Loss {
        mode,
        seed,
        files: 0,
        sectors_dropped: 0,
        sectors_kept: 0,
        names_dropped: 0,
        names_kept: 0,
    };
    for node in nodes.iter().filter(|node| !node.is_dir) {
        let mut content = node.content();
        if content.is_synced() {
            continue;
        }
        let taken = content.lose(&node.file, mode, &mut rng)?;
        loss.files += 1;
        loss.sectors_dropped += taken.sectors_dropped;
        loss.sectors_kept += taken.sectors_kept;
    }
    let pending = names.len() as u64;
    let landed = if mode == Mode::Drop {
        0
    } else {
        rng.below(pending + 1)
    };
    loss.names_kept = landed;
    loss.names_dropped = names.lose(landed as usize)? as u64;
    Ok(loss)
}
