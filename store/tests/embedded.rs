//! What the embedded engine promises beyond the conformance suite: recovery, backup, bounds.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{fill, killed, open, seqs, small};
use godwit_store::blocking::Client;
use godwit_store::embedded::{Embedded, Options, restore};
use godwit_store::testsuite::{Port, append, log, rows, submit, tables};
use godwit_store::{Batch, Completion, Head, Op, Outcome, Read, ReadAnswer, Scope, Store, Submission};
use tempfile::TempDir;

fn make() -> (Arc<dyn Store>, TempDir) {
    let dir = TempDir::new().expect("folder");
    (
        Arc::new(Embedded::open(dir.path(), Options::default()).expect("opened")),
        dir,
    )
}

/// Segments so small that every few rows go through the tree.
fn make_small() -> (Arc<dyn Store>, TempDir) {
    let dir = TempDir::new().expect("folder");
    (
        Arc::new(Embedded::open(dir.path(), small()).expect("opened")),
        dir,
    )
}

godwit_store::conformance!(embedded, super::make);
godwit_store::conformance!(embedded_in_small_segments, super::make_small);

fn write(store: &Arc<dyn Store>, ops: Vec<Op>) {
    let client = Client::new(store.clone(), 1);
    assert_eq!(client.write(ops).expect("answered"), Outcome::Stored);
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
    write(
        &store,
        vec![Op::Head {
            log: log(1),
            head: Head {
                confirmed: 40,
                floor: 10,
            },
        }],
    );
    store.close().expect("closed");
    drop(store);
    assert_eq!(
        std::fs::read_dir(dir.path().join("journal"))
            .expect("listed")
            .count(),
        1,
        "one fresh segment"
    );
    let again = open(dir.path());
    assert_eq!(seqs(&again), (11..=50).collect::<Vec<_>>());
}

#[test]
fn rows_of_every_kind_live_through_the_tree_and_back() {
    let (store, dir) = make_small();
    let bytes = |s: &str| Bytes::copy_from_slice(s.as_bytes());
    let insert = |e: &str| Op::Insert {
        table: tables::SET,
        partition: bytes("s"),
        element: bytes(e),
        value: bytes(e),
    };
    let remove = |e: &str| Op::Remove {
        table: tables::SET,
        partition: bytes("s"),
        element: bytes(e),
    };
    let put = |n: &str, v: Option<&str>| Op::Put {
        table: tables::ROWS,
        partition: bytes("p"),
        name: bytes(n),
        view: 1,
        value: v.map(bytes),
    };
    for round in 0..4 {
        for i in 0..200 {
            write(
                &store,
                vec![
                    insert(&format!("{round}-{i:03}")),
                    put(&format!("{i:03}"), Some(&round.to_string())),
                ],
            );
        }
        write(
            &store,
            (0..200)
                .filter(|i| i % 3 == 0)
                .map(|i| remove(&format!("{round}-{i:03}")))
                .collect(),
        );
        write(
            &store,
            (0..200)
                .filter(|i| i % 5 == 0)
                .map(|i| put(&format!("{i:03}"), None))
                .collect(),
        );
    }
    write(
        &store,
        vec![Op::Claim {
            table: tables::FACTS,
            key: bytes("k"),
            value: bytes("v"),
        }],
    );
    let check = |store: &Arc<dyn Store>| {
        let all = Read::Set {
            table: tables::SET,
            partition: bytes("s"),
            after: None,
            up_to: None,
            limit: 10_000,
        };
        let named = Read::Rows {
            table: tables::ROWS,
            partition: bytes("p"),
            after: None,
            limit: 10_000,
        };
        let fact = Read::Fact {
            table: tables::FACTS,
            key: bytes("k"),
        };
        let answers = store.read_now(&[all, named, fact]).expect("read");
        let ReadAnswer::Set {
            elements,
            more: false,
        } = &answers[0]
        else {
            panic!("{:?}", answers[0])
        };
        assert_eq!(elements.len(), 4 * (0..200).filter(|i| i % 3 != 0).count());
        let ReadAnswer::Rows { rows, more: false } = &answers[1] else {
            panic!("{:?}", answers[1])
        };
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
    assert!(
        restore(other.path(), &other.path().join("x")).is_err(),
        "not from anything"
    );
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
        let ops = vec![Op::Append {
            log: log(1),
            view: 1,
            seq,
            row: row.clone(),
        }];
        match store.submit(Batch {
            port: 2,
            ticket: seq,
            scope: Scope::default(),
            ops,
        }) {
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
            Ok(Completion::Written {
                outcome: Outcome::Stored,
                ..
            })
        ));
    }
}

#[test]
fn an_idle_store_empties_its_overlay_and_the_disk_is_measured() {
    let (store, dir) = make();
    let row = Bytes::from(vec![1; 1 << 20]);
    write(
        &store,
        vec![Op::Append {
            log: log(1),
            view: 1,
            seq: 1,
            row,
        }],
    );
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
        let head = Op::Head {
            log: log(1),
            head: Head {
                confirmed: seq,
                floor: seq.saturating_sub(10),
            },
        };
        submit(
            &*store,
            Batch {
                port: 2,
                ticket: seq,
                scope: Scope::default(),
                ops: vec![append(1, seq, &"x".repeat(100)), head],
            },
        );
    }
    (0..20_000).for_each(|_| drop(done.recv_timeout(Duration::from_secs(30)).expect("completed")));
    store.close().expect("closed");
    assert_eq!(seqs(&store).len(), 10);
    let tables = dir.path().join("tree/tables");
    let size: u64 = std::fs::read_dir(tables)
        .expect("listed")
        .map(|e| e.expect("entry").metadata().expect("size").len())
        .sum();
    assert!(
        size < 500_000,
        "{size} bytes for 10 rows that count, of 2 MB written"
    );
}
