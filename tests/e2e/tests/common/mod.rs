//! What the end-to-end tests share: one at a time, a seed, a folder that stays if the test fails, a small world.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use godwit_e2e::rig::Size;
use rand::RngExt;
use tempfile::TempDir;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder, and the right to use the machine: two nodes under full load at once would only slow each other down.
pub(crate) struct Folder {
    folder: TempDir,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Folder {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Leaves it where it is, for a look at what went wrong.
    pub(crate) fn keep(self) -> String {
        self.folder.keep().display().to_string()
    }
}

pub(crate) fn folder(name: &str) -> Folder {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    made(name, Some(alone))
}

/// A folder alone, for a run of which no time is judged: as many as the tests have threads.
pub(crate) fn folder_beside_others(name: &str) -> Folder {
    made(name, None)
}

fn made(name: &str, alone: Option<MutexGuard<'static, ()>>) -> Folder {
    let folder = tempfile::Builder::new()
        .prefix(&format!("godwit-{name}-"))
        .tempdir()
        .expect("a temporary folder");
    Folder {
        folder,
        _alone: alone,
    }
}

/// From `GODWIT_SEED`, else random; each test prints it.
pub(crate) fn seed() -> u64 {
    std::env::var("GODWIT_SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number"))
}

/// Conversations of 2, 8 and 40: users are made quickly.
pub(crate) fn small() -> Size {
    Size {
        users: 40,
        senders: 20,
        window: 6,
        posters: 4,
    }
}
