//! Folders that the engine must not open, and torn ones that it must.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{NoLoads, fill, killed, open, seqs, small};
use godwit_store::blocking::Client;
use godwit_store::embedded::{Embedded, Options};
use godwit_store::testsuite::log;
use godwit_store::{Op, Outcome, Store, StoreError};
use tempfile::TempDir;

fn make() -> (Arc<dyn Store>, TempDir) {
    let dir = TempDir::new().expect("folder");
    (open(dir.path()), dir)
}

fn refused(dir: &Path) -> String {
    match Embedded::open(dir, small()) {
        Err(StoreError::Refused(why)) => why,
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("opened"),
    }
}

fn last_segment(dir: &Path) -> std::path::PathBuf {
    let mut all: Vec<_> = std::fs::read_dir(dir.join("journal"))
        .expect("listed")
        .map(|e| e.expect("entry").path())
        .collect();
    all.sort();
    all.pop().expect("a segment")
}

/// Offsets of the records of a segment, and where they end.
fn record_offsets(data: &[u8]) -> Vec<usize> {
    let (mut at, mut out) = (4096, vec![4096]);
    while data.get(at + 20..at + 24) == Some(b"GwR1") {
        at += u32::from_le_bytes(data[at + 16..at + 20].try_into().expect("4")) as usize;
        out.push(at);
    }
    out
}

#[test]
fn every_tear_of_the_last_record_is_dropped_and_the_store_starts() {
    let (store, dir) = make();
    fill(&store, 1, 8);
    let copy = killed(dir.path());
    drop(store);
    let path = last_segment(copy.path());
    let whole = std::fs::read(&path).expect("read");
    let offsets = record_offsets(&whole);
    let (last, end) = (offsets[offsets.len() - 2], offsets[offsets.len() - 1]);
    for keep in (last..end).step_by(3) {
        let torn = killed(copy.path());
        let mut data = whole.clone();
        data[keep..end].fill(0);
        std::fs::write(last_segment(torn.path()), &data).expect("written");
        let again = open(torn.path());
        assert_eq!(
            seqs(&again),
            (1..=7).collect::<Vec<_>>(),
            "kept {keep} of {last}..{end}"
        );
        fill(&again, 8, 9);
    }
    // A hole: the head of the record is not there, its end is.
    let mut data = whole.clone();
    data[last..last + 10].fill(0);
    std::fs::write(&path, &data).expect("written");
    assert_eq!(seqs(&open(copy.path())).len(), 7);
}

#[test]
fn a_damaged_record_with_a_valid_one_behind_it_refuses_to_start_and_says_what_to_do() {
    let (store, dir) = make();
    fill(&store, 1, 20);
    let copy = killed(dir.path());
    drop(store);
    let path = last_segment(copy.path());
    let whole = std::fs::read(&path).expect("read");
    let offsets = record_offsets(&whole);
    for at in [
        offsets[5],
        offsets[5] + 17,
        offsets[6] + 30,
        offsets[offsets.len() - 3] + 8,
    ] {
        let mut data = whole.clone();
        data[at] ^= 0x40;
        std::fs::write(&path, &data).expect("written");
        let why = refused(copy.path());
        assert!(
            why.contains("valid records follow") && why.contains("godwit restore"),
            "{why}"
        );
    }
    std::fs::write(&path, &whole).expect("written");
    assert_eq!(seqs(&open(copy.path())).len(), 20, "and the whole one starts");
}

#[test]
fn damage_in_a_sealed_segment_and_a_missing_segment_are_refused() {
    let (store, dir) = make();
    fill(&store, 1, 5);
    drop(store);
    let options = Options {
        faults: Arc::new(NoLoads),
        ..small()
    };
    let store: Arc<dyn Store> = Arc::new(Embedded::open(dir.path(), options).expect("opened"));
    fill(&store, 6, 9);
    let copy = killed(dir.path());
    drop(store);
    let segments = copy.path().join("journal");
    let first = segments.join(format!("{:020}.seg", 1));
    let whole = std::fs::read(&first).expect("read");
    let offsets = record_offsets(&whole);
    let mut data = whole.clone();
    data[offsets[3] + 30] ^= 1;
    std::fs::write(&first, &data).expect("written");
    assert!(refused(copy.path()).contains("damaged"));
    std::fs::remove_file(&first).expect("removed");
    assert!(refused(copy.path()).contains("missing"));
    std::fs::remove_dir_all(&segments).expect("removed");
    assert!(refused(copy.path()).contains("missing"));
}

#[test]
fn a_newer_format_is_refused() {
    let (store, dir) = make();
    drop(store);
    std::fs::write(dir.path().join("FORMAT"), "godwit-store 2\n").expect("written");
    assert!(refused(dir.path()).contains("newer program"));
}

#[test]
fn a_second_opening_of_the_same_folder_is_refused() {
    let (_store, dir) = make();
    assert!(refused(dir.path()).contains("in use by another process"));
}

#[test]
fn records_that_a_message_body_makes_up_do_not_keep_a_torn_store_from_starting() {
    let (store, dir) = make();
    fill(&store, 1, 3);
    // As good as somebody can make one who knows the code: any later number, and what can be guessed as the seed.
    let mut body = Vec::new();
    for seed in 0..4u64 {
        let mut made_up = [&[0; 8][..], &1000u64.to_le_bytes(), &24u32.to_le_bytes(), b"GwR1"].concat();
        let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&made_up[8..], seed);
        made_up[..8].copy_from_slice(&sum.to_le_bytes());
        body.extend_from_slice(&made_up);
    }
    body.resize(2000, b'x');
    let append = Op::Append {
        log: log(1),
        view: 1,
        seq: 4,
        row: body.into(),
    };
    let client = Client::new(store.clone(), 1);
    assert_eq!(client.write(vec![append]).expect("answered"), Outcome::Stored);
    let copy = killed(dir.path());
    drop((client, store));
    let path = last_segment(copy.path());
    let mut data = std::fs::read(&path).expect("read");
    let end = record_offsets(&data).pop().expect("an end");
    data[end - 500..end].fill(0);
    std::fs::write(&path, &data).expect("written");
    assert_eq!(seqs(&open(copy.path())), vec![1, 2, 3]);
}
