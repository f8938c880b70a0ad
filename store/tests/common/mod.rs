//! What the engine's tests share: small stores, rows, and folders as a killed process leaves them.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod disk;

use std::path::Path;
use std::sync::Arc;

use godwit_store::blocking::Client;
use godwit_store::embedded::{Embedded, Faults, Options};
use godwit_store::testsuite::{append, rows};
use godwit_store::{Outcome, Store};
use tempfile::TempDir;

pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        ..Options::default()
    }
}

/// A disk on which the tree cannot be written, so that segments stay.
pub(crate) struct NoLoads;

impl Faults for NoLoads {
    fn ingest(&self) -> std::io::Result<()> {
        Err(std::io::Error::other("not now"))
    }
}

pub(crate) fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(dir, small()).expect("opened"))
}

/// One append a commit, so that the journal has as many records.
pub(crate) fn fill(store: &Arc<dyn Store>, from: u64, to: u64) {
    let client = Client::new(store.clone(), 1);
    for seq in from..=to {
        assert_eq!(
            client
                .write(vec![append(1, seq, &format!("row {seq}"))])
                .expect("answered"),
            Outcome::Stored
        );
    }
}

pub(crate) fn seqs(store: &Arc<dyn Store>) -> Vec<u64> {
    rows(&**store, 1, 0)
        .expect("read")
        .iter()
        .map(|r| r.seq)
        .collect()
}

/// What a process that is killed leaves behind: the folder as it is, without any goodbye.
pub(crate) fn killed(dir: &Path) -> TempDir {
    let copy = TempDir::new().expect("folder");
    copy_all(dir, copy.path());
    copy
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("listed") {
        let path = entry.expect("entry").path();
        let target = to.join(path.file_name().expect("name"));
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}
