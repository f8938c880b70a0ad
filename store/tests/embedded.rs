//! What the embedded engine promises beyond the conformance suite: recovery, refusals, backup.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_store::blocking::Client;
use godwit_store::embedded::{Embedded, Faults, Options, restore};
use godwit_store::testsuite::{Port, append, log, rows, submit, tables};
use godwit_store::{Batch, Completion, Head, Op, Outcome, Read, ReadAnswer, Store, StoreError, Submission};
use tempfile::TempDir;

fn make() -> (Arc<dyn Store>, TempDir) {
    let dir = TempDir::new().expect("folder");
    (Arc::new(Embedded::open(dir.path(), Options::default()).expect("opened")), dir)
}

/// Segments so small that every few rows go through the tree.
fn make_small() -> (Arc<dyn Store>, TempDir) {
    let dir = TempDir::new().expect("folder");
    (Arc::new(Embedded::open(dir.path(), small()).expect("opened")), dir)
}

fn small() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

godwit_store::conformance!(embedded, super::make);
godwit_store::conformance!(embedded_in_small_segments, super::make_small);

/// A disk on which the tree cannot be written, so that segments stay.
struct NoLoads;

impl Faults for NoLoads {
    fn ingest(&self) -> std::io::Result<()> {
        Err(std::io::Error::other("not now"))
    }
}

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(dir, small()).expect("opened"))
}

fn refused(dir: &Path) -> String {
    match Embedded::open(dir, small()) {
        Err(StoreError::Refused(why)) => why,
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("opened"),
    }
}

fn write(store: &Arc<dyn Store>, ops: Vec<Op>) {
    let client = Client::new(store.clone(), 1);
    assert_eq!(client.write(ops).expect("answered"), Outcome::Stored);
}

/// One append a commit, so that the journal has as many records.
fn fill(store: &Arc<dyn Store>, from: u64, to: u64) {
    let client = Client::new(store.clone(), 1);
    for seq in from..=to {
        assert_eq!(client.write(vec![append(1, seq, &format!("row {seq}"))]).expect("answered"), Outcome::Stored);
    }
}

fn seqs(store: &Arc<dyn Store>) -> Vec<u64> {
    rows(&**store, 1, 0).expect("read").iter().map(|r| r.seq).collect()
}

/// What a process that is killed leaves behind: the folder as it is, without any goodbye.
fn killed(dir: &Path) -> TempDir {
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

fn last_segment(dir: &Path) -> std::path::PathBuf {
    let mut all: Vec<_> = std::fs::read_dir(dir.join("journal")).expect("listed").map(|e| e.expect("entry").path()).collect();
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
fn what_was_stored_is_there_after_a_kill_and_a_later_start_has_a_larger_view() {
    let (store, dir) = make_small();
    fill(&store, 1, 300);
    let copy = killed(dir.path());
    let again = open(copy.path());
    assert_eq!(seqs(&again), (1..=300).collect::<Vec<_>>());
    assert_eq!((store.start_view(), again.start_view()), (1, 2));
    fill(&again, 301, 310);
    drop(again);
    let third = open(copy.path());
    assert_eq!(third.start_view(), 3);
    assert_eq!(seqs(&third).len(), 310);
}

#[test]
fn a_closed_store_opens_again_with_everything_in_the_tree() {
    let (store, dir) = make_small();
    fill(&store, 1, 50);
    write(&store, vec![Op::Head { log: log(1), head: Head { confirmed: 40, floor: 10 } }]);
    store.close().expect("closed");
    drop(store);
    assert_eq!(std::fs::read_dir(dir.path().join("journal")).expect("listed").count(), 1, "one fresh segment");
    let again = open(dir.path());
    assert_eq!(seqs(&again), (11..=50).collect::<Vec<_>>());
}

#[test]
fn a_second_opening_of_the_same_folder_is_refused() {
    let (_store, dir) = make();
    assert!(refused(dir.path()).contains("in use by another process"));
}

#[test]
fn a_newer_format_is_refused() {
    let (store, dir) = make();
    drop(store);
    std::fs::write(dir.path().join("FORMAT"), "godwit-store 2\n").expect("written");
    assert!(refused(dir.path()).contains("newer program"));
}

#[test]
fn every_tear_of_the_last_record_is_dropped_and_the_store_starts() {
    let (store, dir) = make_small();
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
        assert_eq!(seqs(&again), (1..=7).collect::<Vec<_>>(), "kept {keep} of {last}..{end}");
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
    let (store, dir) = make_small();
    fill(&store, 1, 20);
    let copy = killed(dir.path());
    drop(store);
    let path = last_segment(copy.path());
    let whole = std::fs::read(&path).expect("read");
    let offsets = record_offsets(&whole);
    for at in [offsets[5], offsets[5] + 17, offsets[6] + 30, offsets[offsets.len() - 3] + 8] {
        let mut data = whole.clone();
        data[at] ^= 0x40;
        std::fs::write(&path, &data).expect("written");
        let why = refused(copy.path());
        assert!(why.contains("valid records follow") && why.contains("godwit restore"), "{why}");
    }
    std::fs::write(&path, &whole).expect("written");
    assert_eq!(seqs(&open(copy.path())).len(), 20, "and the whole one starts");
}

#[test]
fn damage_in_a_sealed_segment_and_a_missing_segment_are_refused() {
    let (store, dir) = make_small();
    fill(&store, 1, 5);
    drop(store);
    let options = Options { faults: Arc::new(NoLoads), ..small() };
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
fn rows_of_every_kind_live_through_the_tree_and_back() {
    let (store, dir) = make_small();
    let bytes = |s: &str| Bytes::copy_from_slice(s.as_bytes());
    let insert = |e: &str| Op::Insert { table: tables::SET, partition: bytes("s"), element: bytes(e), value: bytes(e) };
    let remove = |e: &str| Op::Remove { table: tables::SET, partition: bytes("s"), element: bytes(e) };
    let put = |n: &str, v: Option<&str>| Op::Put {
        table: tables::ROWS,
        partition: bytes("p"),
        name: bytes(n),
        view: 1,
        value: v.map(bytes),
    };
    for round in 0..4 {
        for i in 0..200 {
            write(&store, vec![insert(&format!("{round}-{i:03}")), put(&format!("{i:03}"), Some(&round.to_string()))]);
        }
        write(&store, (0..200).filter(|i| i % 3 == 0).map(|i| remove(&format!("{round}-{i:03}"))).collect());
        write(&store, (0..200).filter(|i| i % 5 == 0).map(|i| put(&format!("{i:03}"), None)).collect());
    }
    write(&store, vec![Op::Claim { table: tables::FACTS, key: bytes("k"), value: bytes("v") }]);
    let check = |store: &Arc<dyn Store>| {
        let all = Read::Set { table: tables::SET, partition: bytes("s"), after: None, up_to: None, limit: 10_000 };
        let named = Read::Rows { table: tables::ROWS, partition: bytes("p"), after: None, limit: 10_000 };
        let fact = Read::Fact { table: tables::FACTS, key: bytes("k") };
        let answers = store.read_now(&[all, named, fact]).expect("read");
        let ReadAnswer::Set { elements, more: false } = &answers[0] else { panic!("{:?}", answers[0]) };
        assert_eq!(elements.len(), 4 * (0..200).filter(|i| i % 3 != 0).count());
        let ReadAnswer::Rows { rows, more: false } = &answers[1] else { panic!("{:?}", answers[1]) };
        assert_eq!(rows.len(), 160);
        assert!(rows.iter().all(|(_, v)| v == "3"));
        assert_eq!(answers[2], ReadAnswer::Fact(Some(bytes("v"))));
    };
    check(&store);
    store.close().expect("closed");
    drop(store);
    let again = open(dir.path());
    check(&again);
}

#[test]
fn a_backup_while_serving_is_consistent_and_can_be_restored() {
    let (store, dir) = make_small();
    fill(&store, 1, 100);
    let other = TempDir::new().expect("folder");
    let (backup, data) = (other.path().join("backup"), other.path().join("data"));
    std::thread::scope(|scope| {
        scope.spawn(|| fill(&store, 101, 400));
        std::thread::sleep(Duration::from_millis(20));
        store.backup(&backup).expect("backed up");
    });
    assert!(store.backup(&backup).is_err(), "not over another one");
    assert_eq!(seqs(&store).len(), 400);
    drop(store);
    drop(dir);
    restore(&backup, &data).expect("restored");
    assert!(restore(&backup, &data).is_err(), "not over data");
    assert!(restore(other.path(), &other.path().join("x")).is_err(), "not from anything");
    let again = open(&data);
    let found = seqs(&again);
    assert!(found.len() >= 100, "{}", found.len());
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_says_busy_and_gives_the_batch_back() {
    let (store, _dir) = make();
    let done = Port::register(&*store, 2);
    let row = Bytes::from(vec![1; 1 << 20]);
    let (mut taken, mut busy) = (0, false);
    for seq in 1..=400u64 {
        let ops = vec![Op::Append { log: log(1), view: 1, seq, row: row.clone() }];
        match store.submit(Batch { port: 2, ticket: seq, ops }) {
            Submission::Taken => taken += 1,
            Submission::Busy(back) => {
                assert_eq!(back.ticket, seq);
                busy = true;
                break;
            }
        }
    }
    assert!(busy, "32 MiB is the most that waits");
    for _ in 0..taken {
        assert!(matches!(
            done.recv_timeout(Duration::from_secs(30)),
            Ok(Completion::Written { outcome: Outcome::Stored, .. })
        ));
    }
}

#[test]
fn an_idle_store_empties_its_overlay_and_the_disk_is_measured() {
    let (store, dir) = make();
    let row = Bytes::from(vec![1; 1 << 20]);
    write(&store, vec![Op::Append { log: log(1), view: 1, seq: 1, row }]);
    assert!(store.stats().overlay_bytes > 1 << 20);
    let begun = Instant::now();
    while store.stats().overlay_bytes > 1 << 19 && begun.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let stats = store.stats();
    assert!(stats.overlay_bytes < 1 << 19, "{}", stats.overlay_bytes);
    assert!(stats.commits >= 1 && stats.bytes > 1 << 20 && stats.disk.0 > 0 && stats.disk.1 >= stats.disk.0);
    assert_eq!(rows(&*store, 1, 0).expect("read").len(), 1);
    drop((store, dir));
}

#[test]
fn rows_below_the_floor_leave_the_disk() {
    let (store, dir) = make_small();
    let done = Port::register(&*store, 2);
    for seq in 1..=20_000u64 {
        let head = Op::Head { log: log(1), head: Head { confirmed: seq, floor: seq.saturating_sub(10) } };
        submit(&*store, Batch { port: 2, ticket: seq, ops: vec![append(1, seq, &"x".repeat(100)), head] });
    }
    (0..20_000).for_each(|_| drop(done.recv_timeout(Duration::from_secs(30)).expect("completed")));
    store.close().expect("closed");
    assert_eq!(seqs(&store).len(), 10);
    let tables = dir.path().join("tree/tables");
    let size: u64 = std::fs::read_dir(tables).expect("listed").map(|e| e.expect("entry").metadata().expect("size").len()).sum();
    assert!(size < 500_000, "{size} bytes for 10 rows that count, of 2 MB written");
}
